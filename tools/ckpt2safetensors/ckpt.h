/* ckpt.h - reading a PyTorch checkpoint, and writing its tensors. Reading has two independent parts: the pickle machine (pickle.c,
 * globals.c) turns a pickle into inert values; the container (zip.c, legacy.c) finds the pickle, and then the bytes of each
 * storage that the pickle names. After that, tensors.c and convert.c see values only.
 */
#ifndef CKPT_H
#define CKPT_H

#include "tools/common/common.h"

/* ---- Values (values.c) --------------------------------------------------------------------------------------------- */

typedef enum { NONE, BOOL, INT, FLOAT, TEXT, TUPLE, LIST, DICT, GLOBAL, STORAGE, TENSOR, INERT, MARK } value_kind;
typedef enum { G_INERT, G_DICT, G_TENSOR2, G_TENSOR, G_PARAMETER, G_STORAGE } global_kind;

typedef struct value value;
typedef struct storage {
    uint64_t numel, at; /* values; position of the first in the file, once located */
    flis_dtype dtype;
    char *key;
    bool located;
} storage;
typedef struct storages {
    storage **at;
    size_t count, room;
} storages; /* every storage named so far, sorted by key */
struct value {
    value_kind kind;
    union {
        int64_t integer;
        double number;
        struct {
            char *bytes;
            size_t length;
        } text;
        struct {
            value **item;
            size_t count, room;
        } list; /* TUPLE, LIST; DICT: key, value, key, value, … */
        struct {
            global_kind call;
            flis_dtype dtype;
            const char *name;
        } global;
        storage *storage;
        struct {
            storage *storage;
            uint64_t offset, shape[FLIS_MAX_DIMS], stride[FLIS_MAX_DIMS]; /* in values */
            int rank;
        } tensor;
    } u;
};

/* Memory for values, freed all at once. */
typedef struct pool {
    const char *path; /* of the checkpoint, for the error sentence */
    struct pool_piece {
        struct pool_piece *next;
    } * pieces;
    size_t used;
    unsigned char *free;
    size_t left;
} pool;
void *pool_take(flis_ctx *ctx, pool *p, size_t size); /* not cleared; NULL: failed */
void pool_free(pool *p);

/* A larger copy of an array: `size` bytes that begin with the `used` ones of `old`. */
void *pool_grow(flis_ctx *ctx, pool *p, const void *old, size_t used, size_t size);
/* The dictionary's value under a text key, the last where there are several; NULL: none. */
const value *dict_get(const value *dict, const char *key);
storage *storage_find(const storages *all, const char *key, size_t length);
uint64_t storage_size(const storage *s); /* bytes */

/* ---- Pickles (pickle.c) --------------------------------------------------------------------------------------------- */

/* Runs one pickle from the stream's position to its STOP. size: bytes of the pickle (old format: of the file); *left: how many of them
   may still be read, before and after. */
value *unpickle(flis_ctx *ctx, const char *path, FILE *in, uint64_t size, uint64_t *left, pool *p, storages *known);

/* ---- Containers (checkpoint.c, zip.c, legacy.c) ----------------------------------------------------------------------------------- */

typedef struct checkpoint {
    flis_ctx *ctx;
    const char *path;
    FILE *in;
    uint64_t size;
    pool pool;
    storages storages;
    value *root;
    const unsigned char *folder; /* of data.pkl, with its slash; points into the directory's bytes */
    size_t folder_length;
    uint64_t pickle_at, pickle_size; /* zip: position of data.pkl */
} checkpoint;

uint64_t little_endian(const unsigned char *bytes, int size);
bool read_at(checkpoint *c, uint64_t offset, void *out, size_t count);
/* The part of checkpoint_read for each format: finds the pickle, runs it, locates the storages. */
bool read_zip(checkpoint *c);
bool read_legacy(checkpoint *c);
/* Opens a checkpoint of either format; afterwards the root and the position of every storage are known. Close it after a failure
   too. */
bool checkpoint_read(flis_ctx *ctx, checkpoint *c, const char *path);
void checkpoint_close(checkpoint *c);

/* ---- Conversion (tensors.c, convert.c) ------------------------------------------------------------------------------ */

typedef struct conversion {
    bool ema, all, half; /* --ema, --all, --half */
    bool quiet;          /* no summary and no warnings */
    size_t sets;
    const char *const *set; /* metadata, KEY=VALUE */
    const char *in, *out;
} conversion;

typedef struct ckpt_tensor {
    const char *name;
    const value *tensor;
} ckpt_tensor;

/* The tensors to write, sorted by name; free(). NULL: failed. */
ckpt_tensor *choose_tensors(checkpoint *c, const conversion *o, size_t *count);
/* Reads o->in and writes o->out; the context reports what failed, and then nothing was written. */
void convert_checkpoint(flis_ctx *ctx, const conversion *o);

#endif
