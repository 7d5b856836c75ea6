/* compare.h - the parts of compare: two files' tensors, paired by name; their measures; the diagnosis of the first that differs;
 * the result as a table, JSON or a page.
 */
#ifndef COMPARE_H
#define COMPARE_H

#include "tools/common/common.h"

#include <float.h>
#include <math.h>

typedef struct options {
    int profile;               /* index in PROFILE_NAMES */
    double absolute, relative; /* --tolerance, --relative; negative: not given */
    const char *match, *map, *html, *ref_prefix, *other_prefix;
    bool allow_missing, all, json, quiet;
    const char *path[2]; /* REF, OTHER */
} options;

/* One file's tensors that take part, in order of execution. */
typedef struct side {
    flis_file *file;
    size_t count;
    struct named {
        const flis_entry *entry;
        char *name;
        size_t order;
        bool taken; /* paired */
    } * item;
    bool by_name;    /* the file is sorted by name: its order is no order of execution */
    double *samples; /* of a run's digest: at most FLIS_SAMPLES of each tensor; NULL: the file has all values */
} side;

/* How a pair ended. */
typedef enum { SAME, DIFFERENT, NOT_FINITE, SHAPE, MISSING } verdict;

typedef struct measures {
    uint64_t count;
    uint64_t bad_ref, bad_other, first_bad; /* values that are NaN or infinite; index of the first in either */
    double largest, rms;                    /* of REF: largest |value|, root mean square */
    double max_error;
    uint64_t at; /* index of the largest error */
    double ref_at, other_at;
    double rms_error, relative, cosine;
    double ulp;    /* median distance in units of the coarser format's last place; NaN: integers */
    double excess; /* error as a multiple of the tolerance: above 1 fails */
} measures;

typedef struct pair {
    const struct named *ref, *other; /* other NULL: missing */
    bool measured;
    verdict verdict;
    measures m;
} pair;

typedef struct comparison {
    flis_ctx ctx;
    options o;
    side ref, other;
    size_t count;
    pair *pair; /* REF's tensors in order of execution */
    size_t compared, failed, missing, extra, reshaped, recast, not_finite;
    const pair *first; /* the first that differs; NULL: none */
    const char *order; /* where the order came from, if not from REF's file */
    char diagnosis[2048];
} comparison;

static inline bool finite_value(double x)
{
    return fabs(x) <= DBL_MAX;
}

/* ---- Names (names.c) ----------------------------------------------------------------------------------------------- */

char *copy_text(flis_ctx *ctx, const char *text);
/* Moves *name past the prefix, unless nothing would be left. */
bool skip_prefix(const char **name, const char *prefix);
/* The name without what wrappers, checkpoints and pipelines put before a module's path. */
const char *behind_model(const char *name);
/* The same, and without "step.N.", "next." (PLMS evaluates a second time in its first step), "cond." and "uncond." */
const char *behind_scope(const char *name);
/* Which of two module paths runs first: negative, 0 or positive. */
int path_order(const char *a, const char *b);

/* Lines "other ref", of which the first that fits counts. One * in each: what it stands for in OTHER's name goes into REF's. */
typedef struct rename_map {
    size_t count;
    struct {
        char *from, *to;
    } * line;
    char *text;
} rename_map;
bool map_read(flis_ctx *ctx, const char *path, rename_map *map);
void map_free(rename_map *map);
char *map_name(flis_ctx *ctx, const rename_map *map, const char *name);

/* ---- Digests of runs (digest.c) ------------------------------------------------------------------------------------ */

/* A digest as a file of tensors, their samples in s->samples at the entries' begin / sizeof(double). False without an error: the
   file is not a digest. */
bool digest_open(flis_ctx *ctx, const char *path, side *s);
size_t samples_of(uint64_t count); /* how many samples a tensor of `count` values has, and how far they are apart */
size_t stride_of(uint64_t count);

/* ---- Pairs (pairs.c) ----------------------------------------------------------------------------------------------- */

bool pairs_make(comparison *c);
void side_close(side *s);

/* ---- Measures (measure.c) ------------------------------------------------------------------------------------------ */

/* relative: rms error / rms of REF. largest: largest error / largest value of REF. Both must hold; integers must be equal. */
typedef struct limits {
    double relative, largest;
} limits;
extern const char *const PROFILE_NAMES[]; /* NULL-terminated */
limits limits_of(const char *name, int profile);

/* Beyond this a value means "masked" (-max before a softmax): equal if both files have one of the same sign. */
static const double MASKED = 1e30;
bool masked_in_both(double r, double o);
bool is_integer(flis_dtype dtype);
/* The same shape; or, unless exactly, the same but for axes of length 1. */
bool shapes_agree(const flis_entry *a, const flis_entry *b, bool exactly);
double *read_values(comparison *c, side *s, const flis_entry *entry); /* free */
/* The error as a multiple of what is allowed. */
double excess_of(const options *o, const measures *m, const struct named *ref);
bool measure_all(comparison *c);
bool differs(const comparison *c);

/* ---- The result (diagnose.c, report.c, html.c) --------------------------------------------------------------------- */

/* Lines on the first wrong tensor, to c->diagnosis. */
void diagnose(comparison *c);
void print_table(const comparison *c);
void print_json(const comparison *c);
bool write_html(comparison *c);
/* "[1,320,64,64]"; an index in it, "[0,3,15,2]". */
const char *shape_text(const flis_entry *e, char out[200]);
const char *index_text(const flis_entry *e, uint64_t at, char out[200]);

#endif
