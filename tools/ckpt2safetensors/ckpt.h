/* ckpt.h - reading a PyTorch checkpoint, and writing its tensors. Reading has two independent parts: the pickle machine (pickle.c,
 * globals.c) turns a pickle into inert values; the container (zip.c, legacy.c) finds the pickle, and then the bytes of each
 * storage that the pickle names. After that, tensors.c and convert.c see values only.
 */
#ifndef CKPT_H
#define CKPT_H

#include "tools/common/common.h"

/* ---- Values (values.c) --------------------------------------------------------------------------------------------- */

typedef enum { NONE, BOOL, INT, FLOAT, TEXT, TUPLE, LIST, DICT, GLOBAL, STORAGE, TENSOR, INERT, MARK } value_kind;
typedef enum {
    G_INERT,        /* any other: what it makes is inert */
    G_DICT,         /* OrderedDict, dict */
    G_SIZE,         /* torch.Size: its argument */
    G_TENSOR,       /* _rebuild_tensor(storage, offset, size, stride) */
    G_TENSOR2,      /* _rebuild_tensor_v2: and requires_grad, hooks, metadata */
    G_TENSOR3,      /* _rebuild_tensor_v3: dtype before the metadata */
    G_PARAMETER,    /* of a tensor */
    G_TYPED,        /* _rebuild_from_type_v2(function, type, arguments, state) */
    G_OTHER_TENSOR, /* sparse, quantised, …: a tensor that cannot be written; `name` says which */
    G_STORAGE,
    G_DTYPE /* torch.float32, … */
} global_kind;

typedef struct value value;
typedef struct storage {
    uint64_t numel, at; /* values; position of the first in the file, once located */
    size_t size;        /* bytes of one value; 0: unknown */
    flis_dtype dtype;   /* of the values, if `refused` is NULL */
    const char *refused;
    char *key;
    bool located;
    uint64_t packed, unpacked; /* zip, a deflated entry: its bytes in the file, and inflated; else 0 */
    uint32_t crc;              /* of the inflated bytes */
} storage;
typedef struct storages {
    storage **at;
    size_t count, room;
} storages; /* every storage named so far, sorted by key */

typedef struct tensor {
    storage *storage;
    flis_dtype dtype;
    const char *refused;                                          /* why it cannot be written; NULL: it can */
    uint64_t offset, shape[FLIS_MAX_DIMS], stride[FLIS_MAX_DIMS]; /* in values */
    int rank;
} tensor;

/* What an unknown function or class would have made. Nothing was called: what was to be done with it is kept. */
typedef struct object {
    const char *name; /* of the function or class: "os.system" */
    const value *arguments;
    value *state;
    value *items; /* of a subclass of a dictionary: key, value, …; NULL: none */
} object;

struct value {
    value_kind kind;
    bool seen; /* by the search for weights */
    enum {
        MODULE_UNKNOWN,
        MODULE_NO,
        MODULE_YES
    } module_state; /* DICT: whether it has what a module's has; asked once */
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
            const char *name;    /* "module.name" */
            const char *refused; /* G_OTHER_TENSOR: what it is and what is wanted */
            global_kind call;
            int type; /* G_STORAGE: row of the table of storage types; G_DTYPE: a flis_dtype */
        } global;
        struct {
            storage *storage;
            const char *refused;
        } storage;
        tensor *tensor;
        object *object;
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
uint64_t storage_size(const storage *s); /* bytes; UINT64_MAX: more than 64 bits hold */
/* For "values of …". */
const char *storage_type(const storage *s);
/* Text in the pool. */
char *pool_text(flis_ctx *ctx, pool *p, const char *format, ...);

/* ---- Pickles (pickle.c) --------------------------------------------------------------------------------------------- */

/* Where a pickle's bytes come from: a stream, or memory. */
typedef struct pickle_bytes {
    FILE *in;
    const unsigned char *at; /* the next byte in memory; NULL: the stream */
    uint64_t size, left;     /* bytes of the pickle (old format: of the file), and how many may still be read */
} pickle_bytes;

/* Runs one pickle from its source's position to its STOP. */
value *unpickle(flis_ctx *ctx, const char *path, pickle_bytes *from, pool *p, storages *known);

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
    uint64_t pickle_at, pickle_size; /* zip: position of data.pkl and its bytes in the file */
    const storage *inflated;         /* the deflated storage whose bytes are in memory */
    unsigned char *inflated_bytes;
    const char **note; /* lines about what was done, for when it is done */
    size_t notes;
    uint64_t unpacked; /* bytes that deflated storages hold beyond those in the file */
} checkpoint;

uint64_t little_endian(const unsigned char *bytes, int size);
bool read_at(checkpoint *c, uint64_t offset, void *out, size_t count);
/* The part of checkpoint_read for each format: finds the pickle, runs it, locates the storages. */
bool read_zip(checkpoint *c);
bool read_legacy(checkpoint *c);
/* Adds a line to the notes. */
void add_note(checkpoint *c, const char *format, ...);
/* Bytes of a storage, from its byte `offset` on. */
bool read_storage(checkpoint *c, const storage *s, uint64_t offset, void *out, size_t count);
/* zip: the bytes of a deflated entry, malloc'ed. */
unsigned char *inflate_entry(checkpoint *c, const char *name, uint64_t at, uint64_t packed, uint64_t unpacked,
                             uint32_t crc);
/* Opens a checkpoint of either format; afterwards the root and the position of every storage are known. Close it after a failure
   too. */
bool checkpoint_read(flis_ctx *ctx, checkpoint *c, const char *path);
void checkpoint_close(checkpoint *c);

/* ---- Conversion (find.c, names.c, tensors.c, convert.c) ------------------------------------------------------------------------------ */

typedef struct conversion {
    bool ema, all, half; /* --ema, --all, --half */
    bool quiet;          /* no summary and no warnings */
    const char *key;     /* --key; NULL: the only set of weights */
    size_t withouts;
    const char *const *without; /* --without: patterns of names */
    size_t sets;
    const char *const *set; /* metadata, KEY=VALUE */
    const char *in, *out;
} conversion;

typedef struct ckpt_tensor {
    const char *name;
    const value *value;
    bool nul; /* the name has a NUL character, and more after it */
} ckpt_tensor;

/* The tensors of a dictionary or module. value: a TENSOR, or an INERT object in the place of one. */
typedef struct weight_set {
    const char *path;            /* keys from the root, with dots between; "": the root */
    ckpt_tensor *list;           /* in the pool */
    size_t count, room, tensors; /* entries; those that are tensors */
    bool root;
    bool beside; /* under a key that holds other things than the model: callbacks, hyper_parameters */
    bool dotted; /* a name has a dot, as those of modules have */
    bool known;  /* names of Stable Diffusion's parts */
} weight_set;

/* The set to write (find.c): the only one, or the one that --key names. NULL: failed. */
const weight_set *find_weights(checkpoint *c, const conversion *o);
/* Removes what wrappers put before the names of a set (names.c). */
bool unwrap_names(checkpoint *c, ckpt_tensor *list, size_t count);
/* Whether the name is one of Stable Diffusion's parts, perhaps behind something (names.c). */
bool known_name(const char *name);
/* The tensors to write (tensors.c), sorted by name; free(). NULL: failed. */
ckpt_tensor *choose_tensors(checkpoint *c, const conversion *o, size_t *count);
/* Reads o->in and writes o->out; the context reports what failed, and then nothing was written. */
void convert_checkpoint(flis_ctx *ctx, const conversion *o);

#endif
