/* golden.h - the parts of the golden program: what is gathered while the vectors are computed, and the vectors by subject.
 *
 * Every vector is one block of calls: vector_begin; what it is given and its inputs; the computation; its outputs; vector_end.
 * Where a computation fails, the vector's answers are left out and the run goes on.
 */
#ifndef GOLDEN_H
#define GOLDEN_H

#include "tools/common/common.h"

/* A tensor on its way to a file, in PyTorch's order of axes and values. */
typedef struct tensor {
    char *name;
    flis_dtype dtype;
    int rank;
    uint64_t shape[4];
    size_t count;
    double *number; /* of floating-point types */
    int64_t *whole; /* of I64, U8 */
} tensor;

typedef struct list {
    tensor *item;
    size_t count, room;
} list;

enum { MAX_PARAMS = 16, NAME = 160 };
typedef struct golden {
    flis_ctx all; /* for what outlives a vector: an error here ends the run */
    flis_ctx ctx; /* of the current vector */
    list inputs, outputs;
    list traced;                     /* intermediates of the network that ran last */
    buffer manifest, given, in, out; /* the manifest so far; the current vector's members of it */
    const char *id;
    size_t vectors, failed, outputs_before;
    flis_param param[MAX_PARAMS]; /* the current vector's weights */
    size_t params;
} golden;

/* ---- Lists of tensors, one vector (gather.c) ----------------------------------------------------------------------- */

const tensor *list_find(const list *l, const char *name);
/* Adds a tensor whose values are zero; NULL: out of memory. */
tensor *list_add(golden *g, list *l, const char *name, flis_dtype dtype, int rank, const size_t *shape);
/* Frees all tensors but the first `count`. */
void list_drop(list *l, size_t count);

/* item: the number among SPEC's "easy to get wrong", 0: none; section: of SPEC.md. */
void vector_begin(golden *g, const char *id, int item, const char *section, const char *what, const char *catches);
/* A parameter of the vector beside its tensors: a member of the JSON object "given". */
void given(golden *g, const char *key, const char *format, ...);
void given_string(golden *g, const char *key, const char *string);
void vector_end(golden *g);

/* ---- Inputs (gather.c): a name with a slash is shared between vectors, any other belongs to the current one -------- */

/* u(name, i) * scale in the file's order, written to out too. */
void formula_values(golden *g, const char *name, int rank, const size_t *shape, double scale, flis_real *out);
/* The same as an activation [n,c,h,w] or [n,t,c]; scale: a power of two. */
flis_tensor *formula_image(golden *g, const char *name, size_t n, size_t c, size_t h, size_t w, double scale);
flis_tensor *formula_rows(golden *g, const char *name, size_t n, size_t t, size_t c, double scale);
/* A weight with formula values, [a], [a,b] or [a,b,size,size]. */
flis_param *formula_weight(golden *g, const char *name, int rank, size_t a, size_t b, size_t size, bool table);
void whole_input(golden *g, const char *name, flis_dtype dtype, int rank, const size_t *shape, const char *rule,
                 const int64_t *values);

/* ---- Outputs (gather.c): nothing is added once the vector has failed ----------------------------------------------- */

#define EXACT "\"exact\": true"

/* units: the tolerance in 2^-24 of the output's largest value. */
void real_output(golden *g, const char *name, int rank, const size_t *shape, const flis_real *values, double units);
void float_output(golden *g, const char *name, size_t count, const float *values, double units); /* 0 units: exact */
void tensor_output(golden *g, const char *name, const flis_tensor *x, double units);
/* judgement: the JSON member that says how the output is judged. */
void double_output(golden *g, const char *name, size_t count, const double *values, const char *judgement);
void byte_output(golden *g, const char *name, int rank, const size_t *shape, const uint8_t *values,
                 const char *judgement);
void whole_output(golden *g, const char *name, int rank, const size_t *shape, const int64_t *values);
/* The call before must have been refused: then the answer is 1. The manifest has flis' sentence; a port may have another. */
void refusal_output(golden *g, const char *kind);
/* Shape of an activation as files have it; returns the rank. */
int shape_in_file(const flis_tensor *x, size_t shape[4]);

/* ---- The vectors by subject ---------------------------------------------------------------------------------------- */

void operation_vectors(golden *g);                 /* operations.c */
void text_vectors(golden *g);                      /* text.c */
void label_vectors(golden *g);                     /* layouts.c */
void network_vectors(golden *g);                   /* networks.c */
void sampler_vectors(golden *g);                   /* samplers.c */
void file_vectors(golden *g, const char *scratch); /* files.c; scratch: the name of a file for layouts */

/* The vocabulary's first merges (text.c). */
extern const char VOCABULARY_WORDS[];

/* The layout of the masks' and the U-Net's vectors (layouts.c): a label map, and a class for each of eight tokens. */
enum { CLASSES = 8 };
extern const float CLASS_IDS[CLASSES];
void label_values(uint8_t *label, size_t h, size_t w);
void label_input(golden *g, const char *name, uint8_t *label, size_t h, size_t w); /* fills label */
void classes_input(golden *g, const char *name);

/* ---- The files (manifest.c) ---------------------------------------------------------------------------------------- */

void write_manifest(golden *g, const char *path);
void write_list(golden *g, const list *l, const char *path);

#endif
