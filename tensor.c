/* tensor.c - context, arena, tensors, trace, tape; the canonical arithmetic; every operation and loss; weights.
 *
 * Each operation has four parts, in this order: its equation; a slow loop, which *is* its definition, to the bit (its
 * name ends in _definition); the fast code, which computes the same bits; and the backward. Where the fast code is the
 * plain loop over the equation, that loop is the definition, and there is no second one. The fast code (panels, tiles,
 * threads, SIMD) only reorders work whose results do not meet in one sum; tests/unit/test_ops.c compares the two.
 *
 * To read the definitions alone, skip every `#ifndef FLIS_NAIVE`: `make naive` builds flis-naive without those parts.
 * ctx->naive selects the definitions at run time. This is no general tensor library: it has the operations that Stable
 * Diffusion v1.4 needs, on the layouts that they are fastest on. It opens no file.
 *
 * Letters: n samples, h height, w width, c channels in, o channels out, t tokens, d width of a head, k inner index of
 * a dot product, m row of a product, p panel, i row in a tile, j lane (output in a panel, or query in a block).
 */
#include "flis.h"

#include <float.h>
#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#if defined(__FAST_MATH__)
#error "flis defines every bit of its results; -ffast-math lets the compiler change them. Build without it."
#endif
#if defined(FLT_EVAL_METHOD) && FLT_EVAL_METHOD != 0 && FLT_EVAL_METHOD != 16
#error \
    "Floats are computed with excess precision here: x87 wants -msse2 -mfpmath=sse, gcc for s390 -fexcess-precision=fast."
#endif

/* A loop runs on several threads only where there is enough work (some 300 microseconds): a thread that another program
   keeps off its core delays the end of every loop, which made small networks a hundred times slower on a busy machine.
   Training has a machine to itself for hours, and many small loops: there less work is enough. */
#ifdef _OPENMP
#include <omp.h>
#ifndef LESS
#define LESS 65536
#endif
#define PRAGMA(text) _Pragma(#text)
#define PARALLEL_FOR(work) PRAGMA(omp parallel for num_threads(ctx->threads) schedule(static) if ((work) > (ctx->tape ? LESS : 524288)))
#define PARALLEL_FOR_DYNAMIC(macs) \
    PRAGMA(omp parallel for num_threads(ctx->threads) schedule(dynamic) if ((macs) > (ctx->tape ? 32 * LESS : 16777216)))
#else
#define PARALLEL_FOR(work) (void)(work);
#define PARALLEL_FOR_DYNAMIC(macs) (void)(macs);
#endif

#ifdef FLIS_DOUBLE
#define REAL_MAX DBL_MAX
#else
#define REAL_MAX FLT_MAX
#endif

/* ---- Context and errors ---------------------------------------------------------------------------------------- */

/* Bytes of the well-formed UTF-8 character at p (Unicode 12.1, section 3.9, table 3-7); 0 where there is none. */
static size_t utf8_length(const unsigned char *p)
{
    const size_t n = p[0] < 0x80 ? 1 : p[0] < 0xC2 || p[0] > 0xF4 ? 0 : p[0] < 0xE0 ? 2 : p[0] < 0xF0 ? 3 : 4;
    for (size_t i = 1; i < n; i++)
        if ((p[i] & 0xC0) != 0x80) return 0;
    if ((p[0] == 0xE0 && p[1] < 0xA0) || (p[0] == 0xED && p[1] > 0x9F)) return 0; /* overlong, surrogates */
    if ((p[0] == 0xF0 && p[1] < 0x90) || (p[0] == 0xF4 && p[1] > 0x8F)) return 0; /* overlong, beyond U+10FFFF */
    return n;
}

/* 0 for control characters, line separators, bidirectional controls (U+2028 to U+202E, U+2066 to U+2069) and invalid
   UTF-8. SPEC 14.1. */
size_t flis_printable(const char *text)
{
    const unsigned char *p = (const unsigned char *)text;
    if (p[0] < ' ' || p[0] == 0x7F || (p[0] == 0xC2 && p[1] < 0xA0)) return 0;
    if (p[0] == 0xE2 && p[1] == 0x80 && p[2] >= 0xA8 && p[2] <= 0xAE) return 0;
    if (p[0] == 0xE2 && p[1] == 0x81 && p[2] >= 0xA6 && p[2] <= 0xA9) return 0;
    return utf8_length(p);
}

/* Names come from files: a line feed in one would split the sentence, an escape sequence would control the terminal.
   SPEC 14.1. */
void flis_make_printable(char *text)
{
    for (unsigned char *p = (unsigned char *)text; *p;) {
        size_t n = flis_printable((const char *)p);
        if (n) p += n;
        else *p++ = '?';
    }
}

/* The first sentence wins: what fails later is a consequence of it. SPEC 14.1. */
bool flis_fail(flis_ctx *ctx, const char *format, ...)
{
    if (!ctx || ctx->error[0]) return false;
    va_list args;
    va_start(args, format);
    vsnprintf(ctx->error, sizeof ctx->error, format, args);
    va_end(args);
    flis_make_printable(ctx->error);
    return false;
}

/* What a person should look at is passed on, never printed here. SPEC 14.1. */
void flis_warn(flis_ctx *ctx, const char *format, ...)
{
    char sentence[sizeof ctx->error];
    if (!flis_ok(ctx) || !ctx->warn) return;
    va_list args;
    va_start(args, format);
    vsnprintf(sentence, sizeof sentence, format, args);
    va_end(args);
    flis_make_printable(sentence);
    ctx->warn(ctx->warn_user, sentence);
}

/* "open: no such file" becomes "model.safetensors: open: no such file". SPEC 14.1. */
bool flis_fail_in(flis_ctx *ctx, const char *where)
{
    char sentence[sizeof ctx->error];
    if (flis_ok(ctx)) return true;
    memcpy(sentence, ctx->error, sizeof sentence);
    ctx->error[0] = 0;
    return flis_fail(ctx, "%s: %s", where, sentence);
}

/* The sentence is the state: no second flag can disagree with it. SPEC 14.1. */
bool flis_ok(const flis_ctx *ctx)
{
    return ctx && !ctx->error[0];
}

/* Overwrites the error: in memory that flis_init has not seen, it may hold anything. */
static bool initialised(flis_ctx *ctx)
{
    if (!ctx) return false;
    if (ctx->magic == FLIS_MAGIC) return true;
    snprintf(ctx->error, sizeof ctx->error, "the context was not initialised: call flis_init before it is used");
    return false;
}

/* True if work may begin in this context. */
static bool usable(flis_ctx *ctx)
{
    if (!initialised(ctx) || !flis_ok(ctx)) return false;
    if (ctx->threads < 1) return flis_fail(ctx, "context: got %d threads, wanted 1 or more", ctx->threads);
    if ((unsigned)ctx->precision > FLIS_AS_BF16)
        return flis_fail(ctx, "context: got precision %d, wanted one from FLIS_EXACT (%d) to FLIS_AS_BF16 (%d)",
                         (int)ctx->precision, (int)FLIS_EXACT, (int)FLIS_AS_BF16);
    return true;
}

/* A NULL that came from an earlier failure is not reported: the first sentence stays. SPEC 14.1. */
bool flis_given(flis_ctx *ctx, const void *argument, const char *what)
{
    if (!usable(ctx)) return false;
    return argument || flis_fail(ctx, "%s: got NULL", what);
}

/* Zero bytes are taken as one: malloc(0) may return NULL, which would be read as a failure. SPEC 14.1. */
void *flis_alloc(flis_ctx *ctx, size_t count, size_t size)
{
    if (!initialised(ctx) || !flis_ok(ctx)) return NULL;
    if (size && count > SIZE_MAX / size) {
        flis_fail(ctx, "out of memory: %zu items of %zu bytes are more than this machine can address", count, size);
        return NULL;
    }
    void *p = calloc(count ? count : 1, size ? size : 1);
    if (!p) flis_fail(ctx, "out of memory: wanted %zu bytes more", count * size);
    return p;
}

static bool libm_is_exact(flis_ctx *ctx); /* below, beside fma */

/* Compilers and start-up code (one library that was linked with -Ofast) can take IEEE arithmetic away. One product of
   each kind shows it; volatile keeps the compiler from computing it with its own arithmetic. SPEC 1.1. */
static bool arithmetic_is_ieee(flis_ctx *ctx)
{
    volatile float tiny = FLT_MIN, half = 0.5f, big = 16777216.0f, one = 1.0f;
    volatile float subnormal = tiny * half;
    if (!(subnormal > 0)) return flis_fail(ctx, "this machine flushes subnormal numbers to zero: results would differ");
    volatile float sum = big + one;
    sum -= big;
    if (sum != 0) return flis_fail(ctx, "this build computes floats with excess precision: results would differ");
    volatile float a = 1.0f + FLT_EPSILON, product = a * a;
    volatile float rest = product - (1.0f + 2 * FLT_EPSILON);
    float contracted = a * a - product;
    if (rest != 0 || contracted != 0)
        return flis_fail(ctx, "this build contracts products and sums: compile with -ffp-contract=off");
    return true;
}

/* Fails where the machine or the build would change bits, before any result is computed. SPEC 1.1. */
bool flis_init(flis_ctx *ctx)
{
    if (!ctx) return false;
    memset(ctx, 0, sizeof *ctx);
    ctx->magic = FLIS_MAGIC;
    ctx->threads = 1;
#ifdef _OPENMP
    ctx->threads = omp_get_max_threads();
#endif
    return arithmetic_is_ieee(ctx) && libm_is_exact(ctx);
}

/* A signal handler may only set a flag; the failure happens here, between two operations. SPEC 14.1. */
bool flis_poll(flis_ctx *ctx)
{
    if (!initialised(ctx)) return false;
    if (ctx->interrupted && *ctx->interrupted) flis_fail(ctx, "interrupted");
    return flis_ok(ctx);
}

/* True when an operation has nothing to compute: failed, interrupted, or only measuring. */
static bool idle(flis_ctx *ctx)
{
    return !flis_poll(ctx) || ctx->dry;
}

/* The check at the start of every operation. False where the operation must do nothing: the context has failed before
   (then the arguments may be NULL), or fails here, because it is not usable or an argument is NULL. */
static bool ready(flis_ctx *ctx, const char *op, const char *names, const void *const *given, size_t count)
{
    if (!usable(ctx)) return false;
    for (size_t i = 0; i < count; i++) {
        if (given[i]) continue;
        for (size_t k = 0; k < i; k++) names = strchr(names, ',') + 2;
        return flis_fail(ctx, "%s: %.*s: got NULL", op, (int)strcspn(names, ","), names);
    }
    return true;
}
/* Lists the arguments that must not be NULL, by their names in flis.h: the sentence has the name, "linear: x: got NULL". */
#define READY(ctx, op, ...) \
    ready(ctx, op, #__VA_ARGS__, (const void *const[]){__VA_ARGS__}, \
          sizeof((const void *const[]){__VA_ARGS__}) / sizeof(const void *))

/* True where operations run their definitions: the same bits, slowly. A tape needs what only the fast code saves. */
static bool runs_definition(const flis_ctx *ctx)
{
#ifdef FLIS_NAIVE
    (void)ctx;
    return true;
#else
    return ctx->naive && !ctx->tape;
#endif
}

/* ---- Arena ----------------------------------------------------------------------------------------------------- */

enum { ALIGN = 64, SMALLEST_CHUNK = 1 << 20 };

struct flis_chunk {
    struct flis_chunk *below;
    size_t size, fill;   /* bytes of data, bytes in use */
    unsigned char *data; /* ALIGNed, inside this allocation */
};

static size_t rounded(size_t bytes)
{
    return (bytes + ALIGN - 1) / ALIGN * ALIGN;
}

static struct flis_chunk *chunk_new(flis_ctx *ctx, size_t bytes)
{
    size_t size = bytes < SMALLEST_CHUNK ? SMALLEST_CHUNK : bytes;
    struct flis_chunk *chunk = size > SIZE_MAX - sizeof *chunk - ALIGN ? NULL : malloc(sizeof *chunk + ALIGN + size);
    if (!chunk) {
        flis_fail(ctx, "out of memory: wanted %zu bytes more for activations", size);
        return NULL;
    }
    uintptr_t start = (uintptr_t)(chunk + 1);
    chunk->data = (unsigned char *)(chunk + 1) + (ALIGN - start % ALIGN) % ALIGN;
    chunk->size = size;
    chunk->fill = 0;
    chunk->below = NULL;
    return chunk;
}

static void chunks_free(struct flis_chunk *chunk)
{
    while (chunk) {
        struct flis_chunk *below = chunk->below;
        free(chunk);
        chunk = below;
    }
}

/* The arena, the only memory that a context owns. SPEC 14.1. */
void flis_free(flis_ctx *ctx)
{
    if (!ctx || ctx->magic != FLIS_MAGIC) return;
    chunks_free(ctx->arena.top);
    chunks_free(ctx->arena.spare);
    memset(&ctx->arena, 0, sizeof ctx->arena);
}

/* Puts a chunk with room for `bytes` on top: a spare one if one is large enough, else a new one. */
static bool chunk_push(flis_ctx *ctx, size_t bytes)
{
    flis_arena *arena = &ctx->arena;
    struct flis_chunk **link = &arena->spare;
    while (*link && (*link)->size < bytes) link = &(*link)->below;
    struct flis_chunk *chunk = *link;
    if (chunk) *link = chunk->below;
    else if (!(chunk = chunk_new(ctx, bytes))) return false;
    chunk->below = arena->top;
    chunk->fill = 0;
    arena->top = chunk;
    return true;
}

static void count_use(flis_arena *arena, size_t bytes)
{
    arena->used += bytes;
    if (arena->used > arena->peak) arena->peak = arena->used;
}

/* One piece of `head` bytes, which exist even while dry, and `body` bytes, which are only counted then. */
static void *arena_take(flis_ctx *ctx, size_t head, size_t body)
{
    if (!initialised(ctx) || !flis_ok(ctx)) return NULL;
    if (body > SIZE_MAX / 2 - head) {
        flis_fail(ctx, "out of memory: a tensor of %zu bytes is more than this machine can address", body);
        return NULL;
    }
    size_t want = rounded(head) + rounded(body), real_bytes = ctx->dry ? rounded(head) : want;
    count_use(&ctx->arena, want);
    if (!real_bytes) return NULL;
    struct flis_chunk *top = ctx->arena.top;
    if (!top || top->size - top->fill < real_bytes) {
        if (!chunk_push(ctx, real_bytes)) return NULL;
        top = ctx->arena.top;
    }
    void *p = top->data + top->fill;
    top->fill += real_bytes;
    return p;
}

/* The sum of sizes is counted as if the memory were taken, so that a dry run gives the arena's peak. SPEC 14.2. */
void *flis_scratch(flis_ctx *ctx, size_t count, size_t size)
{
    if (size && count > SIZE_MAX / 4 / size) {
        flis_fail(ctx, "out of memory: %zu items of %zu bytes are more than this machine can address", count, size);
        return NULL;
    }
    return arena_take(ctx, 0, count * size);
}

/* In one chunk: pieces that do not fit the rest of a chunk would leave holes. SPEC 14.2. */
bool flis_reserve(flis_ctx *ctx, size_t bytes)
{
    flis_arena *arena = &ctx->arena;
    if (!initialised(ctx) || !flis_ok(ctx)) return false;
    if (arena->top && arena->top->size - arena->top->fill >= bytes) return true;
    struct flis_chunk *fit = arena->spare;
    while (fit && fit->size < bytes) fit = fit->below;
    if (!fit) {
        chunks_free(arena->spare); /* too small: keeping them would only add to the peak */
        arena->spare = NULL;
    }
    return chunk_push(ctx, bytes);
}

/* The current arena position. SPEC 14.2. */
flis_mark flis_here(const flis_ctx *ctx)
{
    const flis_arena *arena = &ctx->arena;
    flis_mark mark = {arena->top, arena->top ? arena->top->fill : 0, arena->used};
    return mark;
}

/* Frees everything allocated after the mark; chunks stay, as spares. SPEC 14.2. */
void flis_rewind(flis_ctx *ctx, flis_mark mark)
{
    flis_arena *arena = &ctx->arena;
    while (arena->top != mark.chunk) {
        struct flis_chunk *chunk = arena->top;
        arena->top = chunk->below;
        chunk->below = arena->spare;
        arena->spare = chunk;
#ifdef FLIS_DEBUG
        memset(chunk->data, 0xA5, chunk->size); /* a tensor used after its rewind shows up at once */
#endif
    }
    if (arena->top) {
#ifdef FLIS_DEBUG
        memset(arena->top->data + mark.fill, 0xA5, arena->top->fill - mark.fill);
#endif
        arena->top->fill = mark.fill;
    }
    arena->used = mark.used;
}

/* flis-naive has no dry runs: its arena grows as it is used. SPEC 14.2. */
bool flis_dry_begin(flis_ctx *ctx, flis_dry *dry)
{
#ifdef FLIS_NAIVE
    (void)ctx;
    (void)dry;
    return false;
#else
    if (ctx->dry || ctx->tape || !flis_poll(ctx)) return false;
    *dry = (flis_dry){flis_here(ctx), ctx->arena.peak, ctx->macs};
    ctx->arena.peak = ctx->arena.used;
    ctx->dry = true;
    return true;
#endif
}

/* Reserves what the operations between begin and end used at most. SPEC 14.2. */
void flis_dry_end(flis_ctx *ctx, const flis_dry *dry)
{
    size_t most = ctx->arena.peak - dry->mark.used;
    ctx->dry = false;
    ctx->macs = dry->macs;
    ctx->arena.peak = dry->peak;
    flis_rewind(ctx, dry->mark);
    flis_reserve(ctx, most);
}

/* ---- Tensors --------------------------------------------------------------------------------------------------- */

static bool product_fits(size_t a, size_t b, size_t *out)
{
    if (a && b > SIZE_MAX / a) return false;
    *out = a * b;
    return true;
}

static flis_tensor *tensor_new(flis_ctx *ctx, int rank, size_t n, size_t h, size_t w, size_t c)
{
    size_t count = 0, bytes = 0;
    if (!(product_fits(n, h, &count) && product_fits(count, w, &count) && product_fits(count, c, &count) &&
          product_fits(count, sizeof(flis_real), &bytes))) {
        flis_fail(ctx, "out of memory: a tensor of %zu x %zu x %zu x %zu is more than this machine can address", n, h,
                  w, c);
        return NULL;
    }
    flis_tensor *y = arena_take(ctx, sizeof *y, bytes);
    if (!y) return NULL;
    y->rank = rank;
    y->bytes = false;
    y->n = n;
    y->h = h;
    y->w = w;
    y->c = c;
    y->x = ctx->dry ? NULL : (flis_real *)((unsigned char *)y + rounded(sizeof *y));
    y->grad = NULL;
    return y;
}

/* [n][h][w][c]. SPEC 0.1. */
flis_tensor *flis_image(flis_ctx *ctx, size_t n, size_t h, size_t w, size_t c)
{
    return tensor_new(ctx, 4, n, h, w, c);
}

/* [n][t][c], stored as [n][t][1][c]. SPEC 0.1. */
flis_tensor *flis_rows(flis_ctx *ctx, size_t n, size_t t, size_t c)
{
    return tensor_new(ctx, 3, n, t, 1, c);
}

/* [n][c], stored as [n][1][1][c]. SPEC 0.1. */
flis_tensor *flis_vectors(flis_ctx *ctx, size_t n, size_t c)
{
    return tensor_new(ctx, 2, n, 1, 1, c);
}

/* n h w c, whatever the rank. SPEC 0.1. */
size_t flis_count(const flis_tensor *x)
{
    return x ? x->n * x->h * x->w * x->c : 0;
}

static flis_tensor *like(flis_ctx *ctx, const flis_tensor *x)
{
    return x ? tensor_new(ctx, x->rank, x->n, x->h, x->w, x->c) : NULL;
}

/* A model file can cause wrong shapes, so they end in a sentence, not in an assertion. */
static bool same_shape(flis_ctx *ctx, const char *op, const flis_tensor *a, const flis_tensor *b)
{
    if (a->n == b->n && a->h == b->h && a->w == b->w && a->c == b->c) return true;
    return flis_fail(ctx, "%s: got [%zu,%zu,%zu,%zu] and [%zu,%zu,%zu,%zu], wanted the same shape", op, a->n, a->h,
                     a->w, a->c, b->n, b->h, b->w, b->c);
}

/* y survives the rewind by moving down to the mark. SPEC 14.2. */
flis_tensor *flis_keep(flis_ctx *ctx, flis_mark mark, flis_tensor *y)
{
    if (!y || ctx->tape) return y; /* the backward still needs everything */
    flis_tensor old = *y;
    flis_rewind(ctx, mark);
    /* A tensor's values follow its header in the same chunk, so the new header, which lies lower, cannot overwrite values
       that have not been moved yet. */
    flis_tensor *kept = tensor_new(ctx, old.rank, old.n, old.h, old.w, old.c);
    if (kept && kept->x) memmove(kept->x, old.x, flis_count(&old) * sizeof(flis_real));
    return kept;
}

static flis_tensor *view(flis_ctx *ctx, const flis_tensor *x, int rank, size_t h, size_t w)
{
    if (!x || !flis_ok(ctx)) return NULL;
    flis_tensor *y = arena_take(ctx, sizeof *y, 0);
    if (!y) return NULL;
    *y = *x;
    y->rank = rank;
    y->h = h;
    y->w = w;
    return y;
}

/* Position (i, j) of [n][h][w][c] is row i w + j of [n][h w][c]: the same memory. SPEC 0.1. */
flis_tensor *flis_as_rows(flis_ctx *ctx, const flis_tensor *x)
{
    return READY(ctx, "as rows", x) ? view(ctx, x, 3, x->h * x->w, 1) : NULL;
}

/* Row i w + j of [n][h w][c] is position (i, j) of [n][h][w][c]: the same memory. SPEC 0.1. */
flis_tensor *flis_as_image(flis_ctx *ctx, const flis_tensor *x, size_t h, size_t w)
{
    if (!READY(ctx, "as image", x)) return NULL;
    if (h * w != x->h * x->w) {
        flis_fail(ctx, "as image: got %zu rows, wanted %zu x %zu", x->h * x->w, h, w);
        return NULL;
    }
    return view(ctx, x, 4, h, w);
}

/* y[n][i][k] = x[n][k][i], i = 0..h w - 1. SPEC 0.1. */
flis_tensor *flis_from_nchw(flis_ctx *ctx, const flis_real *x, size_t n, size_t c, size_t h, size_t w)
{
    if (!READY(ctx, "from NCHW", x)) return NULL;
    flis_tensor *y = flis_image(ctx, n, h, w, c);
    if (!y || idle(ctx)) return y;
    for (size_t s = 0; s < n; s++)
        for (size_t k = 0; k < c; k++)
            for (size_t i = 0; i < h * w; i++) y->x[(s * h * w + i) * c + k] = x[(s * c + k) * h * w + i];
    return y;
}

/* out[n][k][i] = x[n][i][k]. SPEC 0.1. */
void flis_to_nchw(const flis_tensor *x, flis_real *out)
{
    if (!x || !x->x || !out) return;
    size_t c = x->c, positions = x->h * x->w;
    for (size_t s = 0; s < x->n; s++)
        for (size_t k = 0; k < c; k++)
            for (size_t i = 0; i < positions; i++) out[(s * c + k) * positions + i] = x->x[(s * positions + i) * c + k];
}

enum { TRACE_NAME = 64 + 256 }; /* ctx->scope and a module's path */

/* A dry run has no values to show. SPEC 10.12. */
void flis_trace(flis_ctx *ctx, const flis_tensor *x, const char *format, ...)
{
    if (!ctx || !ctx->trace || !x || idle(ctx)) return;
    char name[TRACE_NAME];
    size_t start = (size_t)snprintf(name, sizeof name, "%s", ctx->scope);
    va_list args;
    va_start(args, format);
    vsnprintf(name + start, sizeof name - start, format, args);
    va_end(args);
    ctx->trace(ctx->trace_user, name, x);
}

/* False without a trace, so that nothing is computed for nobody. SPEC 10.12. */
bool flis_trace_wants(flis_ctx *ctx, size_t count, const char *format, ...)
{
    if (!ctx || !ctx->trace || !ctx->trace_wants || idle(ctx)) return false;
    char name[TRACE_NAME];
    size_t start = (size_t)snprintf(name, sizeof name, "%s", ctx->scope);
    va_list args;
    va_start(args, format);
    vsnprintf(name + start, sizeof name - start, format, args);
    va_end(args);
    return ctx->trace_wants(ctx->trace_user, name, count);
}

/* ---- Tape ------------------------------------------------------------------------------------------------------ */

/* A recorded operation: what its backward needs. Tensors are copied; their values and gradients are shared. */
typedef struct flis_node flis_node;
typedef void backward_fn(flis_ctx *ctx, const flis_node *node);
struct flis_node {
    flis_node *before; /* recorded before this one */
    backward_fn *backward;
    flis_tensor y, x[3];     /* result; inputs, all zero where there are fewer */
    const flis_param *w, *b; /* weights, or NULL */
    flis_conv_kind kind;
    bool silu;
    double number; /* the factor, the scale */
    size_t count;  /* heads; inputs of a block */
    flis_mask mask;
    const void *saved; /* what forward computed and backward wants again; a block's inputs */
    flis_block *block; /* flis_checkpoint's */
    void *user;
};

/* Gradients of tensors live outside the arena: they are allocated and freed in another order than activations. A buffer
   that is free waits here for the next gradient that it fits. */
struct flis_buffer {
    struct flis_buffer *next;
    size_t count;
    bool used;
    flis_real *x;
};

static void *aligned_new(flis_ctx *ctx, size_t count, size_t size);
static void aligned_free(void *x);

static bool grad_take(flis_ctx *ctx, flis_grad *g)
{
    struct flis_buffer *best = NULL;
    if (!ctx->tape) return flis_fail(ctx, "backward: a gradient is wanted, but the context has no tape");
    for (struct flis_buffer *b = ctx->tape->buffers; b; b = b->next)
        if (!b->used && b->count >= g->count && b->count / 2 <= g->count && (!best || b->count < best->count)) best = b;
    if (!best) {
        if (!(best = flis_alloc(ctx, 1, sizeof *best))) return false;
        if (!(best->x = aligned_new(ctx, g->count, sizeof *best->x))) {
            free(best);
            return false;
        }
        best->count = g->count;
        best->next = ctx->tape->buffers;
        ctx->tape->buffers = best;
        ctx->tape->bytes += g->count * sizeof *best->x;
    }
    best->used = true;
    g->buffer = best;
    g->x = best->x;
    return true;
}

static void grad_release(flis_grad *g)
{
    if (g->buffer) g->buffer->used = false;
    g->buffer = NULL;
    g->x = NULL;
}

/* The memory in which the gradient of t accumulates; NULL: none is wanted (or there is no memory). *first: nothing has
   been accumulated yet, the memory is uninitialised, and must be written, not added to. */
static flis_real *grad_open(flis_ctx *ctx, const flis_tensor *t, bool *first)
{
    flis_grad *g = t->grad;
    if (!g || !flis_ok(ctx)) return NULL;
    *first = !g->x;
    if (!g->x && !grad_take(ctx, g)) return NULL;
    return g->x;
}

/* The memory in which the gradient of a weight accumulates: the share of the tape's worker; NULL: none is wanted. */
static flis_real *weight_grad(const flis_ctx *ctx, const flis_param *w)
{
    return w && w->grad ? w->grad + ctx->tape->worker * flis_param_count(w) : NULL;
}

/* Accumulates one value: writes it where it is the first, else adds it. */
#define ACCUMULATE(to, first, value) ((to) = (first) ? (value) : (to) + (value))

/* The last use of a result's gradient: adds it to the gradient of t, or, where that is still empty, moves its memory there. */
static void grad_pass(flis_ctx *ctx, const flis_tensor *y, const flis_tensor *t)
{
    flis_grad *from = y->grad, *to = t->grad;
    (void)ctx;
    if (!to) return;
    if (!to->x) {
        to->x = from->x;
        to->buffer = from->buffer;
        from->x = NULL;
        from->buffer = NULL;
        return;
    }
    const size_t count = to->count, strips = (count + 65535) / 65536;
    PARALLEL_FOR(count)
    for (size_t s = 0; s < strips; s++) {
        size_t last = (s + 1) * 65536 < count ? (s + 1) * 65536 : count;
        for (size_t i = s * 65536; i < last; i++) to->x[i] += from->x[i];
    }
}

static flis_grad *grad_new(flis_ctx *ctx, const flis_tensor *t)
{
    flis_grad *g = flis_scratch(ctx, 1, sizeof *g);
    if (g) *g = (flis_grad){.count = flis_count(t)};
    return g;
}

/* An input becomes a variable: operations on it are recorded from now on. SPEC 14.5. */
void flis_watch(flis_ctx *ctx, flis_tensor *x)
{
    if (!READY(ctx, "watch", x) || !ctx->tape) return;
    if (!x->grad) x->grad = grad_new(ctx, x);
    if (x->grad) x->grad->watched = true;
}

/* flis-naive records nothing: what computes with panels has no backward there. */
#ifdef FLIS_NAIVE
#define BACKWARD(function) NULL
#else
#define BACKWARD(function) function
#endif

/* Records an operation that computes y from a, b, c and the weights w, bias (each may be NULL). Returns NULL, and records
   nothing, where none of them needs a gradient. Called before an operation takes its scratch memory. */
static flis_node *record(flis_ctx *ctx, backward_fn *backward, flis_tensor *y, const flis_tensor *a,
                         const flis_tensor *b, const flis_tensor *c, const flis_param *w, const flis_param *bias)
{
    const flis_tensor *in[3] = {a, b, c};
    bool wanted = (w && w->grad) || (bias && bias->grad);
    if (!ctx->tape || !y || !flis_ok(ctx)) return NULL;
    for (int i = 0; i < 3; i++) wanted = wanted || (in[i] && in[i]->grad);
    if (!wanted) return NULL;
    flis_node *node = flis_scratch(ctx, 1, sizeof *node);
    if (!node || !(y->grad = grad_new(ctx, y))) return NULL;
    *node = (flis_node){.before = ctx->tape->last, .backward = backward, .y = *y, .w = w, .b = bias};
    for (int i = 0; i < 3; i++)
        if (in[i]) node->x[i] = *in[i];
    return ctx->tape->last = node;
}

/* A backward may overwrite or move the gradient that it is given; one that is watched is copied before. */
static void node_backward(flis_ctx *ctx, const flis_node *node)
{
    flis_grad *g = node->y.grad, watched = *g;
    if (!g->x) return;
    if (watched.watched) {
        if (!grad_take(ctx, g)) return;
        memcpy(g->x, watched.x, g->count * sizeof *g->x);
    }
    node->backward(ctx, node);
    grad_release(g);
    if (watched.watched) *g = watched;
}

/* The chain rule, newest operation first. SPEC 14.5. */
bool flis_backward(flis_ctx *ctx)
{
    if (!READY(ctx, "backward", ctx)) return false;
    if (!ctx->tape) return flis_fail(ctx, "backward: nothing was recorded, for the context has no tape");
    while (ctx->tape->last && !idle(ctx)) {
        const flis_node *node = ctx->tape->last;
        ctx->tape->last = node->before;
        node_backward(ctx, node);
    }
    return flis_ok(ctx);
}

/* flis-naive and ctx->naive have no tape: a backward uses what only the fast code keeps. SPEC 14.5. */
bool flis_tape_begin(flis_ctx *ctx, flis_tape *tape)
{
    if (!READY(ctx, "tape", tape)) return false;
    if (runs_definition(ctx))
        return flis_fail(ctx, "tape: operations that run their definitions record nothing: train with the fast code");
    if (ctx->tape || ctx->dry) return flis_fail(ctx, "tape: the context is already %s", ctx->dry ? "dry" : "recording");
    tape->last = NULL;
    ctx->tape = tape;
    return true;
}

/* Buffers stay with the tape for its next step. SPEC 14.5. */
void flis_tape_end(flis_ctx *ctx)
{
    if (!ctx || !ctx->tape) return;
    for (struct flis_buffer *b = ctx->tape->buffers; b; b = b->next) b->used = false;
    ctx->tape->last = NULL;
    ctx->tape = NULL;
}

/* The buffers of tensors' gradients. SPEC 14.5. */
void flis_tape_free(flis_tape *tape)
{
    while (tape && tape->buffers) {
        struct flis_buffer *next = tape->buffers->next;
        aligned_free(tape->buffers->x);
        free(tape->buffers);
        tape->buffers = next;
    }
    if (tape) tape->bytes = 0;
}

/* y = block(in), computed again, this time recorded, and then backward through that. */
static void checkpoint_backward(flis_ctx *ctx, const flis_node *node)
{
    flis_mark mark = flis_here(ctx);
    flis_node *before = ctx->tape->last;
    void (*trace)(void *user, const char *name, const flis_tensor *tensor) = ctx->trace;
    ctx->tape->last = NULL;
    ctx->trace = NULL; /* the forward pass has traced every intermediate already */
    flis_tensor *y = node->block(ctx, node->user, node->saved);
    if (y && y->grad) {
        grad_pass(ctx, &node->y, y);
        flis_backward(ctx);
    }
    ctx->trace = trace;
    ctx->tape->last = before;
    flis_rewind(ctx, mark);
}

/* y = block(in) without its intermediates, which the backward computes again: less memory, the same bits. SPEC 14.5. */
flis_tensor *flis_checkpoint(flis_ctx *ctx, flis_block *block, void *user, flis_tensor *const *in, size_t count)
{
    if (!READY(ctx, "checkpoint", in)) return NULL;
    if (!block) return flis_fail(ctx, "checkpoint: block: got NULL"), NULL;
    flis_tape *tape = ctx->tape;
    if (!tape || !tape->checkpoint) return block(ctx, user, in);
    flis_tensor **saved = flis_scratch(ctx, count, sizeof *saved);
    flis_node *node = flis_scratch(ctx, 1, sizeof *node);
    if (!saved || !node) return NULL;
    memcpy(saved, in, count * sizeof *saved);
    flis_mark mark = flis_here(ctx);
    ctx->tape = NULL;
    flis_tensor *y = flis_keep(ctx, mark, block(ctx, user, in));
    ctx->tape = tape;
    if (!y || !(y->grad = grad_new(ctx, y))) return NULL;
    *node = (flis_node){.before = tape->last,
                        .backward = checkpoint_backward,
                        .y = *y,
                        .block = block,
                        .user = user,
                        .saved = saved,
                        .count = count};
    tape->last = node;
    return y;
}

/* ---- Elementary functions -------------------------------------------------------------------------------------- */

/* In double with + - * / alone, so that every machine agrees. The operations of the float build need far fewer digits
   (2^-24 against 2^-53): their polynomials have fewer terms there, which is part of the definition of its bits. */

static uint64_t bits_of(double x)
{
    uint64_t u;
    memcpy(&u, &x, sizeof u);
    return u;
}

static double from_bits(uint64_t u)
{
    double x;
    memcpy(&x, &u, sizeof x);
    return x;
}

/* exp(x) = 2^k exp(r), k = round(x / ln 2), r = x - k ln 2 in [-0.347, 0.347], exp(r) its Taylor sum of `terms` terms.
   Below -708 the result is 0 (as a float it is 0 from -104 on), above 709 it is infinite; NaN stays NaN.
   Adding 1.5 * 2^52 rounds x / ln 2 to an integer, which is in the low bits of the sum. Bit masks select the results at
   the ends, because gcc makes jumps of ?: with floating constants and then does not vectorise the loops around (measured:
   attention ten times slower). SPEC 1.5. */
static inline double exp_with(double x, int terms)
{
    static const double inverse_factorial[] = {
        1.0,        1.0,         1.0 / 2,      1.0 / 6,       1.0 / 24,       1.0 / 120,       1.0 / 720,
        1.0 / 5040, 1.0 / 40320, 1.0 / 362880, 1.0 / 3628800, 1.0 / 39916800, 1.0 / 479001600, 1.0 / 6227020800.0,
    };
    const double shift = 6755399441055744.0, log2e = 1.4426950408889634;
    const double ln2_high = 0x1.62e42fee00000p-1, ln2_low = 0x1.a39ef35793c76p-33;
    const uint64_t low = (uint64_t)0 - (uint64_t)(x < -708.0), high = (uint64_t)0 - (uint64_t)(x > 709.0);
    double shifted = x * log2e + shift, k = shifted - shift;
    double r = (x - k * ln2_high) - k * ln2_low;
    double sum = inverse_factorial[terms - 1];
    for (int i = terms - 2; i >= 0; i--) sum = sum * r + inverse_factorial[i];
    double y = sum * from_bits((bits_of(shifted) + 1023) << 52);
    return from_bits((bits_of(y) & ~(low | high)) | (0x7ff0000000000000u & high));
}

/* erfc(a) = exp(-a^2) erfcx(a) for a >= 0, erfc(-a) = 2 - erfc(a). erfcx is a polynomial in t = (a - 3) / (a + 3), fitted
   for the least maximum error on [0, 28] (mpmath, 60 digits): 7e-18 with 23 coefficients, 7e-11 with 13. SPEC 1.6. */
static inline double erfc_with(double x, const double *coefficient, int terms, int exp_terms)
{
    const uint64_t sign = bits_of(x) & 0x8000000000000000u;
    const double a = from_bits(bits_of(x) ^ sign), t = (a - 3.0) / (a + 3.0);
    double sum = coefficient[0];
    for (int i = 1; i < terms; i++) sum = sum * t + coefficient[i];
    double y = exp_with(-a * a, exp_terms) * sum; /* x < 0: 2 - y; else 0 + y */
    return from_bits(0x4000000000000000u & ((uint64_t)0 - (sign >> 63))) + from_bits(bits_of(y) ^ sign);
}

static const double ERFCX_23[23] = {
    1.9674703501081508e-10, -8.536978868707139e-10, -5.5900863029204106e-9,  1.1527211207561689e-9,
    4.2260360391949387e-8,  2.7726095125032085e-8,  -2.3079016386643261e-7,  -2.9299902292533344e-7,
    1.2504517763532595e-6,  2.1194128768606825e-6,  -7.9774269878766725e-6,  -1.2860273949326376e-5,
    6.4056397712138979e-5,  4.5255248253372724e-5,  -0.00059706192623191037, 0.00070774644553524259,
    0.0042691363309648293,  -0.024392499319140996,  0.071665837198060884,    -0.15011593650076217,
    0.24560380171232942,    -0.32623356004303737,   0.17900115118138995,
};

#ifdef FLIS_DOUBLE
#define EXP_TERMS 14
#define ERFCX ERFCX_23
#define ERFCX_TERMS 23
#else
static const double ERFCX_13[13] = {
    -6.5475550390372634e-6,  -9.2705823003372271e-6, 6.3793930831972385e-5, 4.2687486390818274e-5,
    -0.00059743159159011462, 0.00070863022186413942, 0.0042693509447310628, -0.024392641958024205,
    0.071665796277249789,    -0.1501159274779515,    0.2456038043288539,    -0.32623356017126496,
    0.17900115115492726,
};
#define EXP_TERMS 10
#define ERFCX ERFCX_13
#define ERFCX_TERMS 13
#endif

/* exp with the number of terms that flis_real needs: part of the bits. SPEC 1.5. */
static inline double exp_real(double x)
{
    return exp_with(x, EXP_TERMS);
}

/* x sigmoid(b x) = x / (1 + exp(-b x)). SPEC 1.8. */
static inline flis_real swish(flis_real x, double b)
{
    return (flis_real)(x / (1.0 + exp_real(-b * x)));
}

/* x Phi(x) = x erfc(-x / sqrt 2) / 2. SPEC 1.8. */
static inline flis_real gelu(flis_real x)
{
    return (flis_real)(x * 0.5 * erfc_with(x * -0.70710678118654752, ERFCX, ERFCX_TERMS, EXP_TERMS));
}

/* d/dx of x s(b x) = s + b x s (1 - s), s the sigmoid */
static inline double swish_derivative(double x, double b)
{
    const double s = 1.0 / (1.0 + exp_real(-b * x));
    return s * (1.0 + b * x * (1.0 - s));
}

/* Phi(x) and phi(x), which share e^(-x^2/2); as in erfc_with. d/dx of x Phi(x) = Phi(x) + x phi(x). */
static inline double normal(double x, double *density)
{
    const uint64_t sign = bits_of(x) & 0x8000000000000000u;
    const double a = from_bits(bits_of(x) ^ sign) * 0.70710678118654752, t = (a - 3.0) / (a + 3.0),
                 e = exp_real(-a * a);
    double sum = ERFCX[0];
    for (int i = 1; i < ERFCX_TERMS; i++) sum = sum * t + ERFCX[i];
    const double y = e * sum; /* erfc(a); x > 0: Phi is 1 - y / 2, else y / 2 */
    *density = 0.39894228040143268 * e;
    return 0.5 * (from_bits(0x4000000000000000u & ~((uint64_t)0 - (sign >> 63))) +
                  from_bits(bits_of(y) ^ (sign ^ 0x8000000000000000u)));
}

/* exp_with of 14 terms; above 709, where 2^k would overflow before the product does, exp(x) = exp(x - 1) e. SPEC 1.5. */
double flis_exp(double x)
{
    if (!(x == x)) return x;
    return x > 709.0 ? exp_with(x - 1, 14) * 2.7182818284590452 : exp_with(x, 14);
}

/* erfc_with of 23 coefficients. SPEC 1.6. */
double flis_erfc(double x)
{
    if (!(x == x)) return x;
    return erfc_with(x, ERFCX_23, 23, 14);
}

/* log(x) = e ln 2 + log(m), m in [sqrt(1/2), sqrt 2), log(m) = 2 atanh(s) = 2 (s + s^3/3 + …), s = (m - 1) / (m + 1).
   SPEC 1.7. */
double flis_log(double x)
{
    if (!(x > 0)) return x == 0 ? -HUGE_VAL : NAN;
    int e = 0;
    double m = frexp(x, &e); /* exact by definition */
    if (m < 0.70710678118654752) {
        m *= 2;
        e--;
    }
    double s = (m - 1) / (m + 1), z = s * s, sum = 0;
    for (int i = 25; i >= 3; i -= 2) sum = sum * z + 1.0 / i;
    double tail = 2 * s * (z * sum);
    return e * 0x1.62e42fee00000p-1 + (2 * s + (tail + e * 0x1.a39ef35793c76p-33));
}

/* r = x - k pi/2 in [-pi/4, pi/4]; pi/2 in three parts of 33 bits, so that k times each is exact for k < 2^20.
   SPEC 1.7. */
static double reduce_quadrant(double x, int *quadrant)
{
    const double shift = 6755399441055744.0;
    double k = (x * 0.63661977236758134 + shift) - shift;
    *quadrant = (int)((int64_t)k & 3);
    double r = (x - k * 0x1.921fb54400000p+0) - k * 0x1.0b4611a600000p-34;
    return r - k * 0x1.3198a2e037073p-69;
}

/* sin(r) = r - r^3/3! + r^5/5! - … - r^19/19!, the smallest terms first. SPEC 1.7. */
static double sin_taylor(double r)
{
    double z = r * r, sum = 0;
    for (int i = 19; i >= 3; i -= 2) sum = (1 - sum) * z / (i * (i - 1));
    return r - r * sum;
}

/* cos(r) = 1 - r^2/2! + r^4/4! - … + r^20/20!, the smallest terms first. SPEC 1.7. */
static double cos_taylor(double r)
{
    double z = r * r, sum = 0;
    for (int i = 20; i >= 2; i -= 2) sum = (1 - sum) * z / (i * (i - 1));
    return 1 - sum;
}

/* sin(r + k pi/2) is sin r, cos r, -sin r, -cos r for k mod 4 = 0, 1, 2, 3. SPEC 1.7. */
double flis_sin(double x)
{
    int quadrant;
    double r = reduce_quadrant(x, &quadrant);
    double y = quadrant & 1 ? cos_taylor(r) : sin_taylor(r);
    return quadrant & 2 ? -y : y;
}

/* cos(r + k pi/2) is cos r, -sin r, -cos r, sin r for k mod 4 = 0, 1, 2, 3. SPEC 1.7. */
double flis_cos(double x)
{
    int quadrant;
    double r = reduce_quadrant(x, &quadrant);
    double y = quadrant & 1 ? sin_taylor(r) : cos_taylor(r);
    return (quadrant + 1) & 2 ? -y : y;
}

/* a b is exact in double (24 + 24 bits); a b + c is rounded to odd in double, and then to nearest in float. Rounding to
   nearest twice would be wrong where the first rounding gives a tie of the second. SPEC 1.1. */
static inline float fma_soft(float a, float b, float c)
{
    double p = (double)a * b, s = p + c;
    double c_part = s - p, error = (p - (s - c_part)) + (c - c_part);
    uint64_t u = bits_of(s);
    bool finite = (u & 0x7ff0000000000000u) != 0x7ff0000000000000u;
    bool inexact_even = finite && error != 0 && !(u & 1);
    bool away = (error > 0) == (s > 0);
    return (float)from_bits(u + (inexact_even ? (away ? 1u : (uint64_t)-1) : 0u));
}

/* fma_soft for the tests, which compare it with the hardware's. SPEC 1.1. */
float flis_fma_soft(float a, float b, float c)
{
    return fma_soft(a, b, c);
}

/* An unsigned number of 128 bits. */
typedef struct uint128 {
    uint64_t high, low;
} uint128;

static uint128 product_of(uint64_t a, uint64_t b)
{
    const uint64_t ones = 0xffffffffu, ah = a >> 32, al = a & ones, bh = b >> 32, bl = b & ones;
    const uint64_t low = al * bl, middle = ah * bl + (low >> 32), other = al * bh + (middle & ones);
    return (uint128){ah * bh + (middle >> 32) + (other >> 32), other << 32 | (low & ones)};
}

/* a 2^-n for a < 2^127, n >= 0. The last bit is also set where a digit is lost: the sum then still lies on the same side of
   every tie. */
static uint128 shifted_down(uint128 a, int n)
{
    if (n > 127) n = 127;
    if (n >= 64) {
        a = (uint128){0, a.high | (a.low != 0)};
        n -= 64;
    }
    if (n == 0) return a;
    const bool lost = a.low << (64 - n) != 0;
    return (uint128){a.high >> n, a.low >> n | a.high << (64 - n) | lost};
}

/* m of |x| = m 2^exponent, 2^52 <= m < 2^53, for a finite x that is not 0. */
static uint64_t significand_of(double x, int *exponent)
{
    const uint64_t u = bits_of(x), one = (uint64_t)1 << 52;
    const int field = (int)(u >> 52 & 0x7ff);
    uint64_t m = (u & (one - 1)) | (field ? one : 0);
    *exponent = (field ? field : 1) - 1075;
    for (; m < one; m <<= 1) --*exponent; /* subnormals */
    return m;
}

/* +-m 2^exponent, 0 < m < 2^127, rounded to the nearest double, ties to even; subnormals are multiples of 2^-1074. */
static double nearest_double(bool negative, uint128 m, int exponent)
{
    while (m.high < (uint64_t)1 << 62) {
        m = (uint128){m.high << 1 | m.low >> 63, m.low << 1};
        exponent--;
    }
    const uint64_t digits = m.high | (m.low != 0), sign = (uint64_t)negative << 63; /* 63 digits of weight 2^exponent */
    exponent += 64;
    const int drop = exponent + 10 >= -1074 ? 10 : -1074 - exponent;
    if (drop > 63) return from_bits(sign); /* less than half of the smallest subnormal */
    uint64_t kept = digits >> drop;
    const uint64_t rest = digits - (kept << drop), half = (uint64_t)1 << (drop - 1);
    kept += rest > half || (rest == half && (kept & 1));
    const int field = exponent + drop + 1074; /* the leading digit of kept, 2^52, adds 1; no such digit: subnormal */
    const uint64_t u = ((uint64_t)field << 52) + kept, infinite = (uint64_t)0x7ff << 52;
    return from_bits(sign | (u < infinite ? u : infinite));
}

/* The product is exact in 128 bits. Of product and c, the one with the smaller unit is shifted to the other's; digits are
   lost only where the other is so much larger that the sum keeps at least 124 digits. Integers alone, because some C
   libraries' fma is wrong: see libm_is_exact. SPEC 1.1. */
double flis_fma(double a, double b, double c)
{
    if (!isfinite(a) || !isfinite(b) || a == 0 || b == 0) return a * b + c; /* the product is exact, or no number */
    if (!isfinite(c)) return c + c;
    int ea, eb, ec;
    const uint64_t ma = significand_of(a, &ea), mb = significand_of(b, &eb);
    uint128 p = product_of(ma << 10, mb << 10), q = {0, 0}; /* 2^124 <= p < 2^126, 2^125 <= q < 2^126 */
    int unit = ea + eb - 20;
    bool negative = (a < 0) != (b < 0);
    if (c != 0) {
        q.high = significand_of(c, &ec) << 9;
        const int apart = unit - (ec - 73);
        if (apart > 0) q = shifted_down(q, apart);
        else p = shifted_down(p, -apart);
        if (apart < 0) unit = ec - 73;
    }
    if (negative == (c < 0)) {
        const uint64_t low = p.low + q.low;
        p = (uint128){p.high + q.high + (low < q.low), low};
        return nearest_double(negative, p, unit);
    }
    if (p.high == q.high && p.low == q.low) return 0;
    if (p.high < q.high || (p.high == q.high && p.low < q.low)) {
        const uint128 swap = p;
        p = q;
        q = swap;
        negative = !negative;
    }
    p = (uint128){p.high - q.high - (p.low < q.low), p.low - q.low};
    return nearest_double(negative, p, unit);
}

/* FUSED: where fma is the processor's instruction; and in double also glibc's function for x86, which is exact (it runs that
   instruction where the processor has one). A builtin, because without optimisation gcc calls the C library for the others. */
#ifdef __GNUC__
#define BUILTIN(name) __builtin_##name
#else
#define BUILTIN(name) name
#endif
#if defined(FLIS_SOFT_FMA)
#elif defined(FLIS_DOUBLE)
#if defined(FP_FAST_FMA) || defined(__FMA__) || defined(__aarch64__) || \
    (defined(__GLIBC__) && (defined(__x86_64__) || defined(__i386__)))
#define FUSED BUILTIN(fma)
#endif
#elif defined(FP_FAST_FMAF) || defined(__FMA__) || defined(__ARM_FEATURE_FMA)
#define FUSED BUILTIN(fmaf)
#endif

/* fma(a, b, c) = a b + c, rounded once: the hardware's where there is one; C libraries' own are far slower than ours, or
   wrong. SPEC 1.1. */
static inline flis_real fused(flis_real a, flis_real b, flis_real c)
{
#if defined(FUSED)
    return FUSED(a, b, c);
#elif defined(FLIS_DOUBLE)
    return flis_fma(a, b, c);
#else
    return fma_soft(a, b, c);
#endif
}

static bool rounds_to(flis_ctx *ctx, const char *name, double got, double wanted, const char *advice)
{
    if (got == wanted) return true;
    return flis_fail(
        ctx, "this build's %s is not rounded as IEEE 754 requires (got %a, wanted %a): results would differ; %s", name,
        got, wanted, advice);
}

/* What is used of libm's rounded functions, on operands where known C libraries are wrong. mingw's fma and sqrt compute in
   x87 registers and round twice; glibc's fma for mips64el breaks ties wrongly (seen under qemu); others add after rounding
   the product. SPEC 1.1. */
static bool libm_is_exact(flis_ctx *ctx)
{
    static const struct {
        double x, root;
        float x32, root32;
    } roots[] = {{2435, 0x1.8ac40868f92c1p+5, 0x1.000002p+0f, 1},
                 {10809, 0x1.9fdd886b151a7p+6, 0x1.fffffep-1f, 0x1.fffffep-1f},
                 {0x1p-1074, 0x1p-537, 3, 0x1.bb67aep+0f}};
    static const struct {
        flis_real a, b, c, sum;
    } sums[] = {
#ifdef FLIS_DOUBLE
        {1, 1, 0x1p-53, 1},
        {0x1.0000000000001p+0, 1, 0x1p-53, 0x1.0000000000002p+0},
        {0x1.0000000000001p+0, 0x1.0000000000001p+0, -0x1.0000000000002p+0, 0x1p-104},
        {0x1.0000002p+0, 0x1.ffffffcp-1, -0x1p-200, 0x1.fffffffffffffp-1},
        {0x1p-600, 0x1.0000000000001p-475, 0, 0x1p-1074},
#else
        {1, 1, 0x1p-24f, 1},
        {0x1.000002p+0f, 1, 0x1p-24f, 0x1.000004p+0f},
        {0x1.000002p+0f, 0x1.000002p+0f, -0x1.000004p+0f, 0x1p-46f},
        {4097, 4099, -0x1p-60f, 16793602},
        {0x1p-75f, 0x1.000002p-75f, 0, 0x1p-149f},
#endif
        {REAL_MAX, 2, -REAL_MAX, REAL_MAX}};
    static const char BY_PROCESSOR[] =
        "compile with optimisation, which replaces the C library's function by an instruction";
    bool ok = true;
    for (size_t i = 0; ok && i < sizeof roots / sizeof *roots; i++) {
        volatile double x = roots[i].x;
        volatile float x32 = roots[i].x32;
        ok = rounds_to(ctx, "sqrt", sqrt(x), roots[i].root, BY_PROCESSOR) &&
             rounds_to(ctx, "sqrtf", (double)sqrtf(x32), (double)roots[i].root32, BY_PROCESSOR);
    }
    for (size_t i = 0; ok && i < sizeof sums / sizeof *sums; i++) {
        volatile flis_real a = sums[i].a, b = sums[i].b, c = sums[i].c;
        ok = rounds_to(ctx, "fma", (double)fused(a, b, c), (double)sums[i].sum, "compile with -DFLIS_SOFT_FMA");
    }
    volatile double below = -0x1p-1074, large = 0x1.fffffffffffffp+51;
    return ok && rounds_to(ctx, "floor", floor(below), -1, BY_PROCESSOR) &&
           rounds_to(ctx, "floor", floor(large), 0x1.ffffffffffffep+51, BY_PROCESSOR);
}

/* (-1)^sign 2^(exponent - 15) 1.fraction; exponent 0: fraction 2^-24; exponent 31: infinity or NaN. Exact. SPEC 1.12. */
float flis_half_to_float(uint16_t bits)
{
    uint32_t sign = (uint32_t)(bits & 0x8000) << 16, exponent = bits >> 10 & 31, fraction = bits & 1023, u;
    float x;
    if (exponent == 0) { /* zero and subnormals: fraction * 2^-24 is exact */
        x = (float)fraction * 0x1p-24f;
        return sign ? -x : x;
    }
    u = sign | (exponent == 31 ? 0x7f800000u : (exponent + 112) << 23) | fraction << 13;
    memcpy(&x, &u, sizeof x);
    return x;
}

/* To nearest, ties to even. SPEC 1.12. */
uint16_t flis_float_to_half(float x)
{
    uint32_t u;
    memcpy(&u, &x, sizeof u);
    uint16_t sign = (uint16_t)(u >> 16 & 0x8000);
    uint32_t magnitude = u & 0x7fffffff;
    if (magnitude > 0x7f800000) return (uint16_t)(sign | 0x7e00);  /* NaN */
    if (magnitude >= 0x477ff000) return (uint16_t)(sign | 0x7c00); /* rounds to 65536 or more: Inf */
    if (magnitude < 0x38800000) { /* below 2^-14, a subnormal half: x + 2^-1 * 2^… rounds at its last bit, 2^-24 */
        float y, step = 0.5f;
        uint32_t v;
        memcpy(&y, &magnitude, sizeof y);
        volatile float sum = y + step; /* the last bit of a float in [0.5, 1) is 2^-24 */
        y = sum;
        memcpy(&v, &y, sizeof v);
        return (uint16_t)(sign | (v - 0x3f000000));
    }
    uint32_t rounded_bits = magnitude + 0xfff + (magnitude >> 13 & 1);
    return (uint16_t)(sign | ((rounded_bits - 0x38000000) >> 13));
}

/* BF16 is the upper half of a float. SPEC 1.12. */
float flis_bf16_to_float(uint16_t bits)
{
    uint32_t u = (uint32_t)bits << 16;
    float x;
    memcpy(&x, &u, sizeof x);
    return x;
}

/* To nearest, ties to even: a carry runs into the exponent, as it should. NaN stays NaN. SPEC 1.12. */
uint16_t flis_float_to_bf16(float x)
{
    uint32_t u;
    memcpy(&u, &x, sizeof u);
    if ((u & 0x7fffffff) > 0x7f800000) return (uint16_t)(u >> 16 | 64);
    return (uint16_t)((u + 0x7fff + (u >> 16 & 1)) >> 16);
}

/* ---- Emulated formats ------------------------------------------------------------------------------------------ */

/* ctx->precision: the number format whose rounding is emulated. The result of every operation is rounded to it, and the
   operands of every product. FLIS_EXACT, the rule, changes nothing. */

/* x as an operation's result is stored. */
static flis_real stored(flis_real x, flis_precision precision)
{
    switch (precision) {
    case FLIS_EXACT: break;
    case FLIS_AS_F32:
    case FLIS_AS_TF32: return (flis_real)(float)x;
    case FLIS_AS_F16: return flis_half_to_float(flis_float_to_half((float)x));
    case FLIS_AS_BF16: return flis_bf16_to_float(flis_float_to_bf16((float)x));
    }
    return x;
}

/* x as the operand of a product. tf32 keeps 10 bits of the fraction: to nearest, ties away from zero (PTX cvt.rna.tf32). */
static inline flis_real operand(flis_real x, flis_precision precision)
{
    if (precision == FLIS_EXACT) return x;
    float y = (float)stored(x, precision);
    uint32_t u;
    if (precision != FLIS_AS_TF32 || !(y - y == 0)) return y;
    memcpy(&u, &y, sizeof u);
    u = (u + 0x1000u) & 0xffffe000u;
    memcpy(&y, &u, sizeof y);
    return y;
}

static void store_all(flis_ctx *ctx, flis_real *x, size_t count)
{
    PARALLEL_FOR(count)
    for (size_t i = 0; i < count; i++) x[i] = stored(x[i], ctx->precision);
}

/* The end of every operation. */
static flis_tensor *finished(flis_ctx *ctx, flis_tensor *y)
{
    if (ctx->precision && y && y->x && flis_ok(ctx)) store_all(ctx, y->x, flis_count(y));
    return y;
}

/* x itself, or a copy whose values are rounded as operands. */
static const flis_tensor *operands(flis_ctx *ctx, const flis_tensor *x)
{
    if (!ctx->precision) return x;
    flis_tensor *y = like(ctx, x);
    if (!y || !y->x) return y;
    const size_t count = flis_count(x);
    PARALLEL_FOR(count)
    for (size_t i = 0; i < count; i++) y->x[i] = operand(x->x[i], ctx->precision);
    return y;
}

/* ---- Order of sums --------------------------------------------------------------------------------------------- */

enum { STRIP = 256 }; /* positions summed in one chain of doubles: part of the bits */
enum { LANES = 16 };  /* interleaved sums of a row: part of the bits */

/* The lanes added pairwise: 8 apart, 4, 2, 1. SPEC 1.10. */
static double lanes_total(double *lane)
{
    for (int step = LANES / 2; step > 0; step /= 2)
        for (int j = 0; j < step; j++) lane[j] += lane[j + step];
    return lane[0];
}
/* ---- Dot products ---------------------------------------------------------------------------------------------- */

/* The dot product of a and b over k = 0 .. K-1, on which products, convolutions and attention are built:

     total = 0
     for each block of 256 consecutive k (the last may be shorter), in order:
         s = 0;  for each k of the block:  s = fma(a[k], b[k], s)
         total = total + s

   Each fma and each + rounds once. Outputs do not meet in a sum, so nothing but this order is part of the bits. Blocks,
   because one chain of fmas over all of k loses more digits: 2.0e-6 of the signal at K = 11520, instead of 3.1e-7. */

/* A dot product that is given its terms one by one; all zero to begin with. */
typedef struct {
    flis_real total, chain;
    size_t k;
} dot_sum;

/* The definition: the term a[k] b[k]. SPEC 1.2. */
static inline void dot_add(dot_sum *sum, flis_real a, flis_real b)
{
    if (sum->k++ % 256 == 0) {
        sum->total += sum->chain;
        sum->chain = 0;
    }
    sum->chain = fused(a, b, sum->chain);
}

/* The last block's sum is added as the others. SPEC 1.2. */
static inline flis_real dot_end(const dot_sum *sum)
{
    return sum->total + sum->chain;
}

#ifndef FLIS_NAIVE
/* The fast code computes a tile of outputs at once, ROWS rows by PANEL lanes, whose accumulators fill a machine's registers
   but for a few. The form is what gcc 12 and clang 14 both keep in registers: rows as named arrays, one lane loop per row,
   arithmetic at head and tail; a plain copy of the accumulators becomes memcpy and pins them to the stack, and an array of
   rows spills. Measured on one core of Zen 4 (peak 118 GFLOP/s, the products of the U-Net, gcc / clang): AVX-512 8 rows of
   32: 105 / 106, 12 of 32: 99 / 82; AVX2 4 of 24: 95 / 25, 2 of 32 with two k at once: 84 / 85. */
#define EIGHT_ROWS(X) X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7)
#if defined(__AVX512F__)
enum { ROWS = 8, PANEL = 128 / sizeof(flis_real), FEW = 4, TWO_AT_ONCE = 0 };
#define EACH_ROW(X) EIGHT_ROWS(X)
#elif defined(__AVX__) && defined(__clang__)
enum { ROWS = 2, FEW = 2, PANEL = 32, TWO_AT_ONCE = 1 };
#define EACH_ROW(X) X(0) X(1)
#elif defined(__AVX__) || defined(__aarch64__)
enum { ROWS = 4, FEW = 2, PANEL = 24, TWO_AT_ONCE = 0 };
#define EACH_ROW(X) X(0) X(1) X(2) X(3)
#else
enum { ROWS = 2, FEW = 1, PANEL = 24, TWO_AT_ONCE = 0 };
#define EACH_ROW(X) X(0) X(1)
#endif
#define EACH_OF_4(X) X(0) X(1) X(2) X(3)
#define EACH_OF_2(X) X(0) X(1)
#define EACH_OF_1(X) X(0)
#if defined(__AVX512F__)
#define EACH_FEW EACH_OF_4
#elif defined(__AVX__) || defined(__aarch64__)
#define EACH_FEW EACH_OF_2
#else
#define EACH_FEW EACH_OF_1
#endif

enum {
    BLOCK = 256,   /* k per chain: part of the definition of the bits */
    MAX_TAPS = 16, /* a 3x3 kernel has 9 taps; the gradient of an enlarging one has 16 */
    TILES = 12     /* tiles that share a panel while it is in the nearest cache */
};

/* A piece of a block: `length` values of k that are contiguous in one tap, from `offset` channels into it. */
typedef struct {
    size_t tap, offset, length;
} segment;

/* One block: total[i][j] += chain over the block's segments of row[tap][i][offset + k] * panel[k][j]. SPEC 1.2. */
static void exact_block(const segment *piece, size_t pieces, const flis_real *const (*row)[ROWS],
                        const flis_real *restrict panel, flis_real *restrict total)
{
#define DECLARE(i) \
    flis_real sum##i[PANEL]; \
    for (int j = 0; j < PANEL; j++) sum##i[j] = 0;
    EACH_ROW(DECLARE)
#undef DECLARE
    for (size_t s = 0; s < pieces; s++) {
        const size_t length = piece[s].length;
#define POINT(i) const flis_real *restrict row##i = row[piece[s].tap][i] + piece[s].offset;
        EACH_ROW(POINT)
#undef POINT
#define CHAIN(i) \
    { \
        const flis_real a = row##i[k]; \
        for (int j = 0; j < PANEL; j++) sum##i[j] = fused(a, b[j], sum##i[j]); \
    }
        const flis_real *restrict b = panel;
        size_t k = 0;
        if (TWO_AT_ONCE)
            for (; k + 1 < length; k++, b += PANEL) {
                EACH_ROW(CHAIN)
                k++;
                b += PANEL;
                EACH_ROW(CHAIN)
            }
        for (; k < length; k++, b += PANEL) { EACH_ROW(CHAIN) }
#undef CHAIN
        panel += length * PANEL;
    }
#define FINISH(i) \
    for (int j = 0; j < PANEL; j++) total[i * PANEL + j] += sum##i[j];
    EACH_ROW(FINISH)
#undef FINISH
}

#if defined(FUSED) || defined(FLIS_DOUBLE)
#define block_kernel exact_block
#else
/* The least |x| of a[0..count-1] but for zeros, as its bits less 1, or `least` if that is less. SPEC 1.1. */
static uint32_t least_magnitude(const float *a, size_t count, uint32_t least)
{
    for (size_t i = 0; i < count; i++) {
        uint32_t u;
        memcpy(&u, a + i, sizeof u);
        u = (u & 0x7fffffffu) - 1; /* a zero becomes the largest number */
        least = u < least ? u : least;
    }
    return least;
}

/* True if all products that are not 0 are at least 2^-103. Their last digits, 46 bits further down, are then multiples of
   2^-149, and so are all sums: a sum below 2^-126 is a float, and exact. SPEC 1.1. */
static bool sums_keep_subnormals(const segment *piece, size_t pieces, const float *const (*row)[ROWS],
                                 const float *panel)
{
    uint32_t a = 0x7f7fffffu, b = 0x7f7fffffu;
    for (size_t s = 0; s < pieces; s++) {
        const size_t length = piece[s].length;
        for (int i = 0; i < ROWS; i++) a = least_magnitude(row[piece[s].tap][i] + piece[s].offset, length, a);
        b = least_magnitude(panel, length * PANEL, b);
        panel += length * PANEL;
    }
    /* |x| >= 2^(exponent field - 127) */
    return ((a + 1) >> 23) > 0 && ((b + 1) >> 23) > 0 && ((a + 1) >> 23) + ((b + 1) >> 23) >= 2 * 127 - 103;
}

/* sum[j] = fma(a, b[j], sum[j]): each rounds to double and then to float. This is fma unless the double is a tie of the
   second rounding, the low 29 of its 53 bits 0x10000000: ties are doubles, and rounding is monotonic, so that any other
   double lies on the same side of every tie as the exact sum. A step with a tie is taken again, exactly. SPEC 1.1. */
static inline void fused_row(float *restrict sum, float a, const float *restrict b)
{
    float next[PANEL];
    uint32_t tie = 0;
    for (int j = 0; j < PANEL; j++) {
        const double s = (double)a * b[j] + sum[j];
        tie |= ((uint32_t)bits_of(s) & 0x1fffffffu) == 0x10000000u;
        next[j] = (float)s;
    }
    if (tie)
        for (int j = 0; j < PANEL; j++) next[j] = fma_soft(a, b[j], sum[j]);
    for (int j = 0; j < PANEL; j++) sum[j] = next[j];
}

/* exact_block, faster where fma is not in hardware. Below 2^-126 the ties of floats lie elsewhere than fused_row looks;
   sums_keep_subnormals says that they cannot matter. SPEC 1.1. */
static void block_kernel(const segment *piece, size_t pieces, const flis_real *const (*row)[ROWS],
                         const flis_real *restrict panel, flis_real *restrict total)
{
    float sum[ROWS][PANEL];
    const float *b = panel;
    if (!sums_keep_subnormals(piece, pieces, row, panel)) {
        exact_block(piece, pieces, row, panel, total);
        return;
    }
    for (int i = 0; i < ROWS; i++)
        for (int j = 0; j < PANEL; j++) sum[i][j] = 0;
    for (size_t s = 0; s < pieces; s++)
        for (size_t k = 0; k < piece[s].length; k++, b += PANEL)
            for (int i = 0; i < ROWS; i++) fused_row(sum[i], row[piece[s].tap][i][piece[s].offset + k], b);
    for (int i = 0; i < ROWS; i++)
        for (int j = 0; j < PANEL; j++) total[i * PANEL + j] += sum[i][j];
}
#endif

/* k cut at every 256 and at every tap's end: plan[first[b]] .. plan[first[b+1]-1] are block b's pieces. */
typedef struct {
    size_t taps, channels, blocks;
    segment *plan;
    size_t *first;
} k_plan;

/* Cuts k = tap * channels + channel, so that each piece is contiguous in memory and no piece crosses a block. SPEC 1.2. */
static bool plan_make(flis_ctx *ctx, k_plan *plan, size_t taps, size_t channels)
{
    size_t inner = taps * channels;
    plan->taps = taps;
    plan->channels = channels;
    plan->blocks = (inner + BLOCK - 1) / BLOCK;
    plan->plan = flis_scratch(ctx, plan->blocks + taps + 1, sizeof *plan->plan);
    plan->first = flis_scratch(ctx, plan->blocks + 1, sizeof *plan->first);
    if (idle(ctx)) return false;
    size_t count = 0;
    for (size_t k = 0; k < inner;) {
        if (k % BLOCK == 0) plan->first[k / BLOCK] = count;
        size_t tap = k / channels, offset = k % channels, length = channels - offset, left = BLOCK - k % BLOCK;
        if (length > left) length = left;
        plan->plan[count++] = (segment){tap, offset, length};
        k += length;
    }
    plan->first[plan->blocks] = count;
    return true;
}

/* total[i][j] for one tile: every block in order. panel [K][PANEL]. SPEC 1.2. */
static void tile_kernel(const k_plan *plan, const flis_real *const (*row)[ROWS], const flis_real *panel,
                        flis_real *total)
{
    for (int i = 0; i < ROWS * PANEL; i++) total[i] = 0;
    for (size_t b = 0; b < plan->blocks; b++) {
        const size_t first = plan->first[b];
        block_kernel(plan->plan + first, plan->first[b + 1] - first, row, panel + b * BLOCK * PANEL, total);
    }
}

static size_t panels_of(size_t outputs)
{
    return (outputs + PANEL - 1) / PANEL;
}
#endif

/* ---- Linear layers and convolutions ---------------------------------------------------------------------------- */

/* Linear:       y[i][o] = sum over k of x[i][k] w[o][k]  + bias[o] + add[i][o]
   Convolution:  y[i][j][o] = sum over (kh, kw, ci) of x[row][column][ci] w[o][ci][kh][kw]  + bias[o] + add[i][j][o]

   Each sum is a dot product, over k = ci or k = (kh * kernel width + kw) * channels + ci; then the bias is added, then
   `add`. Output (i, j) reads the input at

     1x1                        row = i              same 3x3                        row = i + kh - 1
     FLIS_STRIDE2               row = 2 i + kh - 1   FLIS_STRIDE2_ASYMMETRIC         row = 2 i + kh
     FLIS_UPSAMPLE2             row = floor((i + kh - 1) / 2), of a picture that is enlarged twice

   and likewise for columns; outside the picture it reads zeros, which take part in the sum. */

/* What the definition and the fast code are given. */
typedef struct {
    const flis_tensor *x;
    const flis_param *w;
    const unsigned char *bytes;  /* of w, where it stays in its file; else NULL */
    const flis_real *bias, *add; /* [c_out] and like y; may be NULL */
    size_t taps;                 /* positions of the kernel: 1 or 9 (in a backward up to 16) */
    flis_conv_kind kind;
    flis_precision precision; /* if emulated, x and bias are rounded already */
    flis_tensor *y;
    const struct spread *back; /* in a backward: its taps, in place of kind's; else NULL */
} product;

static size_t weight_index(const flis_param *w, size_t o, size_t ci, size_t tap);
static bool can_multiply(const flis_param *w);
static size_t param_count(const flis_param *param);

/* ---- Weights that stay in their file ---- */

/* Whether this machine has the file's order of bytes. Compilers know the answer. */
static inline bool little_endian(void)
{
    const uint16_t one = 1;
    unsigned char first;
    memcpy(&first, &one, 1);
    return first == 1;
}

/* Values of a file's type, little-endian and at any address, as reals. SPEC 10.1. */
static void values_from(const unsigned char *bytes, flis_dtype dtype, size_t count, flis_real *out)
{
    const bool little = little_endian();
    for (size_t i = 0; i < count; i++) {
        if (dtype == FLIS_F32) {
            uint32_t u;
            float x;
            memcpy(&u, bytes + 4 * i, sizeof u);
            if (!little) u = u >> 24 | (u >> 8 & 0xff00) | (u << 8 & 0xff0000) | u << 24;
            memcpy(&x, &u, sizeof x);
            out[i] = x;
        } else if (dtype == FLIS_F64) {
            uint64_t u = 0;
            double x;
            for (int k = 7; k >= 0; k--) u = u << 8 | bytes[8 * i + (size_t)k];
            memcpy(&x, &u, sizeof x);
            out[i] = (flis_real)x;
        } else {
            const uint16_t half = (uint16_t)(bytes[2 * i] | bytes[2 * i + 1] << 8);
            out[i] = dtype == FLIS_BF16 ? flis_bf16_to_float(half) : flis_half_to_float(half);
        }
    }
}

/* The index of the first value that is NaN or infinite; `count`: none is. */
static size_t first_bad(const unsigned char *bytes, flis_dtype dtype, size_t count)
{
    const size_t size = flis_dtype_size(dtype);
    for (size_t i = 0; i < count; i++) {
        flis_real x;
        values_from(bytes + i * size, dtype, 1, &x);
        if (!(x - x == 0)) return i;
    }
    return count;
}

/* Fails with the first value that is NaN or infinite, as loading does. */
static bool fail_bad(flis_ctx *ctx, const flis_param *w, const unsigned char *bytes)
{
    const size_t count = param_count(w), bad = first_bad(bytes, w->entry->dtype, count);
    if (bad == count) return true;
    return flis_fail(ctx, "%s: %s: value %zu is NaN or infinite", flis_file_path(w->file, w->entry->name),
                     w->entry->name, bad);
}

/* w[o][ci][kh][kw], tap = kh * kernel width + kw, whether w is stored as reals, as halves, or in its file, whose bytes of it are
   then given. */
static inline flis_real weight_at(const flis_param *w, const unsigned char *bytes, size_t o, size_t ci, size_t tap,
                                  flis_precision precision)
{
    const size_t taps = w->rank == 4 ? w->shape[2] * w->shape[3] : 1;
    if (bytes) {
        flis_real x;
        const size_t size = flis_dtype_size(w->entry->dtype);
        values_from(bytes + ((o * w->shape[1] + ci) * taps + tap) * size, w->entry->dtype, 1, &x);
        return operand(x, precision);
    }
    const size_t at = weight_index(w, o, ci, tap);
    const flis_real *values = w->packed ? w->packed : w->value;
    if (!w->half) return operand(values[at], precision);
    return operand(w->half_is_bf16 ? flis_bf16_to_float(w->half[at]) : flis_half_to_float(w->half[at]), precision);
}

/* y[o] of one position: the bias is added after the dot product, then the tensor to be added. */
static flis_real product_end(const product *p, const dot_sum *sum, size_t position, size_t o)
{
    flis_real y = dot_end(sum);
    if (p->bias) y += p->bias[o];
    if (p->add) y += p->add[position * p->y->c + o];
    return y;
}

/* y[i][o] = sum over k of x[i][k] w[o][k] + bias[o] + add[i][o]. A 1x1 convolution is the same sum. SPEC 1.3. */
static void linear_definition(const product *p)
{
    const size_t rows = p->y->n * p->y->h * p->y->w, inner = p->x->c, outputs = p->y->c;
    for (size_t i = 0; i < rows; i++)
        for (size_t o = 0; o < outputs; o++) {
            dot_sum sum = {0};
            for (size_t k = 0; k < inner; k++)
                dot_add(&sum, p->x->x[i * inner + k], weight_at(p->w, p->bytes, o, k, 0, p->precision));
            p->y->x[i * outputs + o] = product_end(p, &sum, i, o);
        }
}

/* The c channels of x at sample n, row and column of the picture that a convolution sees; NULL: outside of it. */
static const flis_real *pixel_of(const product *p, size_t n, int64_t row, int64_t column)
{
    const flis_tensor *x = p->x;
    const int64_t enlarged = p->kind == FLIS_UPSAMPLE2 ? 2 : 1;
    if (row < 0 || column < 0 || row >= (int64_t)x->h * enlarged || column >= (int64_t)x->w * enlarged) return NULL;
    return x->x + ((n * x->h + (size_t)(row / enlarged)) * x->w + (size_t)(column / enlarged)) * x->c;
}

/* Output o at row i and column j of sample n, without bias: the sum over (kh, kw, ci) of
   x[i stride + kh - pad][j stride + kw - pad][ci] w[o][ci][kh][kw], for 3x3 kernels. SPEC 1.3. */
static dot_sum conv_sum(const product *p, size_t n, size_t i, size_t j, size_t o)
{
    const int64_t stride = p->kind == FLIS_STRIDE2 || p->kind == FLIS_STRIDE2_ASYMMETRIC ? 2 : 1,
                  pad = p->kind == FLIS_STRIDE2_ASYMMETRIC ? 0 : 1;
    dot_sum sum = {0};
    for (int64_t kh = 0; kh < 3; kh++)
        for (int64_t kw = 0; kw < 3; kw++) {
            const flis_real *pixel = pixel_of(p, n, (int64_t)i * stride + kh - pad, (int64_t)j * stride + kw - pad);
            for (size_t ci = 0; ci < p->x->c; ci++)
                dot_add(&sum, pixel ? pixel[ci] : 0,
                        weight_at(p->w, p->bytes, o, ci, (size_t)(kh * 3 + kw), p->precision));
        }
    return sum;
}

/* y[i][j][o] = conv_sum + bias[o] + add[i][j][o] at every position (i, j). SPEC 1.3. */
static void conv_definition(const product *p)
{
    const flis_tensor *y = p->y;
    for (size_t position = 0; position < y->n * y->h * y->w; position++)
        for (size_t o = 0; o < y->c; o++) {
            const dot_sum sum = conv_sum(p, position / y->w / y->h, position / y->w % y->h, position % y->w, o);
            y->x[position * y->c + o] = product_end(p, &sum, position, o);
        }
}

#ifndef FLIS_NAIVE
/* ---- The fast code ---- */

/* A convolution's gradient is a convolution with other taps: at output (y, x), tap t reads (y * stride + y[t], …), and its
   weights are those of the taps of w in from[t] (bit s: tap s), summed. */
typedef struct spread {
    size_t taps;
    int stride;
    int8_t y[MAX_TAPS], x[MAX_TAPS];
    uint16_t from[MAX_TAPS];
} spread;

/* The pixels that a product reads for each output row m, without a copy of them: the window of a convolution is found
   tap by tap. */
typedef struct {
    const flis_tensor *x;
    size_t out_h, out_w, taps;
    flis_conv_kind kind;
    const flis_real *zeros; /* what a tap outside the picture reads: c zeros */
    const spread *back;     /* a gradient's taps, in place of kind's; or NULL */
} gather;

/* What output row (n, y) reads at a tap: position `column` reads pixel (column * stride + offset) >> halved of an input
   row, where that is below `width`. */
typedef struct {
    const flis_real *row;
    int64_t stride, offset, width;
    int halved;
} tap_row;

/* The positions of a linear layer are one long row, in which position m reads pixel m. */
static bool is_linear(const gather *g)
{
    return g->taps == 1 && !g->back;
}

/* Goes over output positions, from number `first` on. */
typedef struct {
    size_t n, y, column, width, height;
} cursor;

static cursor cursor_at(const gather *g, size_t first)
{
    if (is_linear(g)) return (cursor){0, 0, first, SIZE_MAX, 1};
    const size_t y = first / g->out_w;
    return (cursor){y / g->out_h, y % g->out_h, first % g->out_w, g->out_w, g->out_h};
}

/* To the next position; true: it lies in another row. */
static inline bool cursor_next(cursor *at)
{
    if (++at->column < at->width) return false;
    at->column = 0;
    if (++at->y == at->height) at->y = 0, at->n++;
    return true;
}

/* Output (n, y, column) reads at tap (kh, kw) the input at (y * stride + kh - pad, …), or zeros outside. SPEC 1.3. */
static tap_row tap_row_at(const gather *g, const cursor *at, size_t tap)
{
    const flis_tensor *x = g->x;
    if (is_linear(g)) return (tap_row){x->x, 1, 0, INT64_MAX, 0};
    /* Signed: the first row of a padded picture lies at -1. */
    const int64_t pad = g->kind == FLIS_STRIDE2_ASYMMETRIC ? 0 : 1;
    const int64_t stride = g->back                                                         ? g->back->stride
                           : g->kind == FLIS_STRIDE2 || g->kind == FLIS_STRIDE2_ASYMMETRIC ? 2
                                                                                           : 1;
    const int64_t down = g->back ? g->back->y[tap] : (int64_t)(tap / 3) - pad;
    const int64_t across = g->back ? g->back->x[tap] : (int64_t)(tap % 3) - pad;
    const int halved = !g->back && g->kind == FLIS_UPSAMPLE2;
    const int64_t row = (int64_t)at->y * stride + down;
    if (row < 0 || row >= (int64_t)x->h << halved) return (tap_row){g->zeros, 0, -1, 0, 0};
    return (tap_row){x->x + (at->n * x->h + (size_t)(row >> halved)) * x->w * x->c, stride, across,
                     (int64_t)x->w << halved, halved};
}

static inline const flis_real *tap_at(const gather *g, const tap_row *t, size_t column)
{
    const int64_t at = (int64_t)column * t->stride + t->offset;
    return at < 0 || at >= t->width ? g->zeros : t->row + (size_t)(at >> t->halved) * g->x->c;
}

/* Stores a tile: the bias is added after the dot product, then the tensor to be added. SPEC 1.2. */
static void tile_store(const flis_real *total, flis_real *y, const flis_real *add, const flis_real *bias,
                       size_t row_length, size_t rows, size_t lanes)
{
    for (size_t i = 0; i < rows; i++)
        for (size_t j = 0; j < lanes; j++) {
            flis_real value = total[i * PANEL + j];
            if (bias) value += bias[j];
            if (add) value += add[i * row_length + j];
            y[i * row_length + j] = value;
        }
}

/* What the parts of a product share. */
typedef struct {
    const product *of;
    const gather *source;
    const k_plan *plan;
    size_t rows, outputs;
} product_job;

/* A half is widened exactly: its exponent grows by 112, for infinity and NaN by 224; a subnormal half, the fraction f times 2^-24,
   is (2^-14 + f 2^-24) - 2^-14. No operand is a subnormal float, on which many processors are slow. SPEC 1.12. */
static void widen_half(const uint16_t *in, flis_real *out, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        const uint32_t h = in[i] & 0x7fff, sign = (uint32_t)(in[i] & 0x8000) << 16, least = 0x38800000; /* 2^-14 */
        uint32_t u, low, high = (h << 13) + 0x38000000 + (uint32_t)(h >= 0x7c00) * 0x38000000;
        float x, y;
        u = (h << 13 & 0x7fffff) | least;
        memcpy(&x, &u, sizeof x);
        memcpy(&y, &least, sizeof y);
        x -= y;
        memcpy(&low, &x, sizeof low);
        u = sign | (h < 0x400 ? low : high);
        memcpy(&x, &u, sizeof x);
        out[i] = x;
    }
}

/* BF16 is the upper half of a float. SPEC 1.12. */
static void widen_bf16(const uint16_t *in, flis_real *out, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        uint32_t u = (uint32_t)in[i] << 16;
        float x;
        memcpy(&x, &u, sizeof x);
        out[i] = x;
    }
}

/* Begins to bring a line of memory that will be read into the cache. */
#ifdef __GNUC__
#define PREFETCH(at) __builtin_prefetch(at)
#else
#define PREFETCH(at) ((void)(at))
#endif

/* A piece of a panel on its way from the file's order to the kernels': STRIPES stripes of COLUMNS values of each output. */
enum { COLUMNS = 16, STRIPES = 4, WIDTH = STRIPES * COLUMNS, STRIPE = PANEL * COLUMNS };

/* out[i] = value i of the file's, for i < WIDTH: values_from in loops of fixed length. */
static void read_width(const unsigned char *bytes, flis_dtype dtype, flis_real *out)
{
    uint16_t half[WIDTH];
    if (dtype == FLIS_F32) values_from(bytes, FLIS_F32, WIDTH, out);
    else if (dtype == FLIS_F64) values_from(bytes, FLIS_F64, WIDTH, out);
    else {
        memcpy(half, bytes, sizeof half);
        for (int i = 0; !little_endian() && i < WIDTH; i++) half[i] = (uint16_t)(half[i] << 8 | half[i] >> 8);
        if (dtype == FLIS_F16) widen_half(half, out, WIDTH);
        else widen_bf16(half, out, WIDTH);
    }
}

/* stripe[s][j][i] = value at + s * COLUMNS + i of output o + j, 0 where there is none; false: one is NaN or infinite. */
static bool read_stripes(const flis_param *w, const unsigned char *bytes, size_t o, size_t at, flis_real *stripe)
{
    const flis_dtype dtype = w->entry->dtype;
    const size_t inner = param_count(w) / w->shape[0], size = flis_dtype_size(dtype),
                 width = inner - at < WIDTH ? inner - at : WIDTH;
    flis_real line[WIDTH], zero[WIDTH], all = 0;
    for (int i = 0; i < WIDTH; i++) line[i] = zero[i] = 0;
    for (size_t j = 0; j < PANEL; j++) {
        const unsigned char *from = bytes + ((o + j) * inner + at) * size;
        for (size_t i = 0; i < WIDTH * size; i += 64) PREFETCH(from + WIDTH * size + i);
        if (o + j >= w->shape[0])
            for (int i = 0; i < WIDTH; i++) line[i] = 0;
        else if (width == WIDTH) read_width(from, dtype, line);
        else values_from(from, dtype, width, line);
        for (int i = 0; i < WIDTH; i++) zero[i] += line[i] - line[i]; /* 0, or NaN */
        for (int s = 0; s < STRIPES; s++)
            for (int i = 0; i < COLUMNS; i++) stripe[s * STRIPE + (int)j * COLUMNS + i] = line[s * COLUMNS + i];
    }
    for (int i = 0; i < WIDTH; i++) all += zero[i];
    return all == 0;
}

/* One pass: the even places go to the first half, the odd ones to the second. */
static void turn_once(const flis_real *restrict from, flis_real *restrict to)
{
    for (int i = 0; i < STRIPE / 2; i++) {
        to[i] = from[2 * i];
        to[STRIPE / 2 + i] = from[2 * i + 1];
    }
}

/* row[i][j] = stripe[j][i]. A pass makes the lowest bit of a place's number its highest, so that after four passes the column has
   gone from the end of the number to its front. Compilers turn a pass into shuffles of whole vectors; gcc's code for the plain
   loop over rows takes three times as long. */
static void turn_stripe(flis_real *restrict stripe, flis_real *const row[COLUMNS])
{
    flis_real other[STRIPE];
    turn_once(stripe, other);
    turn_once(other, stripe);
    turn_once(stripe, other);
    for (int i = 0; i < COLUMNS / 2; i++) {
        flis_real *restrict even = row[i], *restrict odd = row[COLUMNS / 2 + i];
        const flis_real *restrict from = other + 2 * i * PANEL;
        for (int j = 0; j < PANEL; j++) {
            even[j] = from[2 * j];
            odd[j] = from[2 * j + 1];
        }
    }
}

/* Panel p of a weight that stays in its file: out[k][j], k = tap * channels + ci, from [j][ci][tap]. False: a value is NaN or
   infinite. SPEC 14.3. */
static bool panel_from_file(const flis_param *w, const unsigned char *bytes, size_t p, flis_precision precision,
                            flis_real *out)
{
    const size_t channels = w->shape[1], inner = param_count(w) / w->shape[0], taps = inner / channels;
    flis_real stripe[STRIPES * STRIPE], nowhere[PANEL], *row[COLUMNS];
    bool good = true;
    size_t tap = 0, ci = 0;
    for (size_t at = 0; at < inner; at += COLUMNS) {
        const size_t s = at / COLUMNS % STRIPES;
        if (s == 0) good = read_stripes(w, bytes, p * PANEL, at, stripe) && good;
        for (size_t i = 0; i < COLUMNS; i++) {
            row[i] = at + i < inner ? out + (tap * channels + ci) * PANEL : nowhere;
            if (++tap == taps) tap = 0, ci++;
        }
        turn_stripe(stripe + s * STRIPE, row);
    }
    for (size_t i = 0; precision && i < inner * PANEL; i++) out[i] = operand(out[i], precision);
    return good;
}

/* Block b of panel p: w's own memory where it is packed as reals, else widened (emulating: rounded) into `wide`.
   SPEC 14.3. */
static const flis_real *panel_block(const flis_param *w, size_t inner, size_t p, size_t b, flis_precision precision,
                                    flis_real *wide)
{
    const size_t at = (p * inner + b * BLOCK) * PANEL, left = inner - b * BLOCK,
                 count = (left < BLOCK ? left : BLOCK) * PANEL;
    if (w->packed && !precision) return w->packed + at;
    if (w->packed) memcpy(wide, w->packed + at, count * sizeof *wide);
    else if (w->half_is_bf16) widen_bf16(w->half + at, wide, count);
    else widen_half(w->half + at, wide, count);
    for (size_t i = 0; precision && i < count; i++) wide[i] = operand(wide[i], precision);
    return wide;
}

/* row[tile][tap][i]: where output position first + tile * ROWS + i begins to read, or zeros beyond the last position. */
static void tap_rows(const gather *g, size_t first, size_t positions, size_t tap, size_t tiles,
                     const flis_real *(*row)[MAX_TAPS][ROWS])
{
    cursor at = cursor_at(g, first);
    tap_row t = tap_row_at(g, &at, tap);
    for (size_t tile = 0, m = first; tile < tiles; tile++)
        for (size_t i = 0; i < ROWS; i++, m++) {
            row[tile][tap][i] = m < positions ? tap_at(g, &t, at.column) : g->zeros;
            if (cursor_next(&at) && m + 1 < positions) t = tap_row_at(g, &at, tap);
        }
}

/* Rows first_row.. (at most TILES tiles) times panels first_panel..last_panel-1. A block of a panel is 32 KB: the tiles
   use it one after the other while it is in the nearest cache. packed: these panels, of a weight that stays in its file; else
   NULL. SPEC 14.3. */
static void product_part(const product_job *job, const flis_real *packed, size_t first_row, size_t first_panel,
                         size_t last_panel)
{
    const flis_real *row[TILES][MAX_TAPS][ROWS], *add = job->of->add, *bias = job->of->bias;
    const size_t inner = job->plan->taps * job->plan->channels;
    size_t tiles = 0;
    for (; tiles < TILES && first_row + tiles * ROWS < job->rows; tiles++)
        ;
    for (size_t tap = 0; tap < job->plan->taps; tap++) tap_rows(job->source, first_row, job->rows, tap, tiles, row);
    for (size_t p = first_panel; p < last_panel; p++) {
        flis_real total[TILES][ROWS * PANEL], wide[BLOCK * PANEL];
        for (size_t tile = 0; tile < tiles; tile++)
            for (int i = 0; i < ROWS * PANEL; i++) total[tile][i] = 0;
        for (size_t b = 0; b < job->plan->blocks; b++) {
            const flis_real *panel = packed ? packed + ((p - first_panel) * inner + b * BLOCK) * PANEL
                                            : panel_block(job->of->w, inner, p, b, job->of->precision, wide);
            const size_t first = job->plan->first[b], pieces = job->plan->first[b + 1] - first;
            for (size_t tile = 0; tile < tiles; tile++)
                block_kernel(job->plan->plan + first, pieces, (const flis_real *const(*)[ROWS])row[tile], panel,
                             total[tile]);
        }
        for (size_t tile = 0; tile < tiles; tile++) {
            size_t m = first_row + tile * ROWS, o = p * PANEL, at = m * job->outputs + o;
            size_t rows = job->rows - m < ROWS ? job->rows - m : ROWS;
            size_t lanes = job->outputs - o < PANEL ? job->outputs - o : PANEL;
            tile_store(total[tile], job->of->y->x + at, add ? add + at : NULL, bias ? bias + o : NULL, job->outputs,
                       rows, lanes);
        }
    }
}

/* A part is a band of rows by a group of panels: many parts a thread, so that an unlucky one does not wait long. */
static void product_parts(flis_ctx *ctx, const product_job *job)
{
    const size_t band = TILES * ROWS, bands = (job->rows + band - 1) / band, panels = panels_of(job->outputs);
    if (!bands) return; /* a tensor without positions */
    size_t wanted = (size_t)ctx->threads * 16, groups = (wanted + bands - 1) / bands;
    if (groups > panels) groups = panels;
    const size_t parts = bands * groups;
    PARALLEL_FOR_DYNAMIC(job->rows * job->outputs * job->plan->taps * job->plan->channels)
    for (size_t part = 0; part < parts; part++) {
        size_t group = part % groups;
        product_part(job, NULL, part / groups * band, group * panels / groups, (group + 1) * panels / groups);
    }
}

/* How the product with a weight that stays in its file is divided: a part packs a group of panels, then takes its rows band by
   band. Few panels at once, which stay in the second cache; several, so that what a band needs is found once; many parts a
   thread; and many rows, because packing a panel takes as long as multiplying it by some 30. */
typedef struct {
    size_t together;              /* panels */
    size_t groups, bands, shares; /* of panels; of rows; that the bands are divided into */
    size_t room;                  /* values of one group's panels */
} file_parts;

static file_parts divide(const flis_ctx *ctx, size_t rows, size_t outputs, size_t inner)
{
    enum { SECOND_CACHE = 1 << 19, FEWEST_BANDS = 4 };
    const size_t panels = panels_of(outputs), bytes = inner * PANEL * sizeof(flis_real),
                 wanted = (size_t)ctx->threads * 4;
    file_parts d = {.together = SECOND_CACHE / bytes, .bands = (rows + TILES * ROWS - 1) / (TILES * ROWS)};
    if (d.together > panels / wanted) d.together = panels / wanted;
    if (d.together < 1) d.together = 1;
    d.groups = (panels + d.together - 1) / d.together;
    d.shares = (wanted + d.groups - 1) / d.groups;
    if (d.shares > d.bands / FEWEST_BANDS) d.shares = d.bands / FEWEST_BANDS;
    if (d.shares < 1) d.shares = 1;
    d.room = d.together * inner * PANEL;
    return d;
}

static bool file_part(const product_job *job, const file_parts *d, size_t part, flis_real *packed)
{
    const size_t panels = panels_of(job->outputs), inner = job->plan->taps * job->plan->channels,
                 first = part / d->shares * d->together, share = part % d->shares;
    const size_t last = first + d->together < panels ? first + d->together : panels;
    bool good = true;
    for (size_t p = first; p < last; p++)
        good =
            panel_from_file(job->of->w, job->of->bytes, p, job->of->precision, packed + (p - first) * inner * PANEL) &&
            good;
    for (size_t b = share * d->bands / d->shares; b < (share + 1) * d->bands / d->shares; b++)
        product_part(job, packed, b * TILES * ROWS, first, last);
    return good;
}

static size_t this_thread(void)
{
#ifdef _OPENMP
    return (size_t)omp_get_thread_num();
#else
    return 0;
#endif
}

/* The same with a weight that stays in its file. Each thread has room for its panels. SPEC 14.3. */
static void product_from_file(flis_ctx *ctx, const product_job *job)
{
    const size_t inner = job->plan->taps * job->plan->channels;
    const file_parts d = divide(ctx, job->rows, job->outputs, inner);
    flis_real *room = flis_scratch(ctx, (size_t)ctx->threads * d.room, sizeof *room);
    bool *bad = flis_scratch(ctx, (size_t)ctx->threads * 64, sizeof *bad); /* each in a line of its own */
    if (!room || !bad || !job->rows) return;
    for (size_t i = 0; i < (size_t)ctx->threads; i++) bad[i * 64] = false;
    PARALLEL_FOR_DYNAMIC(job->rows * job->outputs * inner)
    for (size_t part = 0; part < d.groups * d.shares; part++) {
        const size_t thread = this_thread();
        if (!file_part(job, &d, part, room + thread * d.room)) bad[thread * 64] = true;
    }
    for (size_t i = 0; i < (size_t)ctx->threads; i++)
        if (bad[i * 64]) fail_bad(ctx, job->of->w, job->of->bytes);
}

static void product_fast(flis_ctx *ctx, const product *p)
{
    const flis_tensor *x = p->x, *y = p->y;
    k_plan plan;
    flis_real *zeros = flis_scratch(ctx, x->c, sizeof *zeros);
    const bool planned = plan_make(ctx, &plan, p->taps, x->c);
    const gather source = {x, y->h, y->w, plan.taps, p->kind, zeros, p->back};
    const product_job job = {p, &source, &plan, y->n * y->h * y->w, y->c};
    for (size_t k = 0; planned && k < x->c; k++) zeros[k] = 0;
    if (p->w->entry) product_from_file(ctx, &job); /* dry: counts the memory that it takes */
    else if (planned) product_parts(ctx, &job);
}
#endif

static void product_run(flis_ctx *ctx, const product *p)
{
#ifndef FLIS_NAIVE
    if (!runs_definition(ctx)) {
        product_fast(ctx, p);
        return;
    }
#endif
    if (idle(ctx) || (p->bytes && !fail_bad(ctx, p->w, p->bytes))) return;
    if (p->taps == 1) linear_definition(p);
    else conv_definition(p);
}

/* Into p.y; b and add may be NULL. Emulating, the product and the sum with `add` are two operations. */
static flis_tensor *product_into(flis_ctx *ctx, product p, const flis_param *b, const flis_tensor *add)
{
    flis_tensor *y = p.y;
    if (!y || (add && !same_shape(ctx, "the tensor to be added", y, add))) return NULL;
    const size_t positions = y->n * y->h * y->w;
    const flis_tensor *later = ctx->precision ? add : NULL;
    flis_mark mark = flis_here(ctx);
    flis_real *rounded_bias = b && ctx->precision ? flis_scratch(ctx, y->c, sizeof *rounded_bias) : NULL;
    for (size_t i = 0; rounded_bias && i < y->c; i++) rounded_bias[i] = stored(b->value[i], ctx->precision);
    p.precision = ctx->precision;
    p.bias = rounded_bias ? rounded_bias : b ? b->value : NULL;
    p.add = add && !later ? add->x : NULL;
    if (!(p.x = operands(ctx, p.x))) return NULL;
    if (p.w->entry) p.bytes = flis_file_bytes(ctx, p.w->file, p.w->entry);
    ctx->macs += (uint64_t)positions * y->c * p.taps * p.x->c;
    product_run(ctx, &p);
    flis_rewind(ctx, mark);
    if (!flis_ok(ctx)) return NULL;
    finished(ctx, y);
    for (size_t i = 0; later && y->x && flis_ok(ctx) && i < positions * y->c; i++) y->x[i] += later->x[i];
    return later ? finished(ctx, y) : y;
}

#ifndef FLIS_NAIVE
/* ---- Their backward ---- */

/* In the forward pass y[i,o] = sum_k x[i,k] w[o,k] + b[o] + add[i,o]; so with g = d loss / d y, each sum a dot product:
     d x[i,k] += sum_o g[i,o] w[o,k]     d w[o,k] += sum_i g[i,o] x[i,k]     d b[o] += sum_i g[i,o]     d add += g
   where x[i,k] of a convolution is what output position i reads at k = (kh, kw, ci). */

/* total[i][j] += chain over k < length of a[k * stride + i] * panel[k][j], for i < ROWS or i < FEW: the block of a dot
   product that runs down the rows of a matrix. */
#define COLUMN_KERNEL(name, EACH) \
    static void name(const flis_real *a, size_t stride, const flis_real *restrict panel, size_t length, \
                     flis_real *restrict total) \
    { \
        EACH(COLUMN_DECLARE) \
        for (size_t k = 0; k < length; k++, a += stride, panel += PANEL) { EACH(COLUMN_CHAIN) } \
        EACH(COLUMN_FINISH) \
    }
#define COLUMN_DECLARE(i) \
    flis_real sum##i[PANEL]; \
    for (int j = 0; j < PANEL; j++) sum##i[j] = 0;
#define COLUMN_CHAIN(i) \
    { \
        const flis_real x = a[i]; \
        for (int j = 0; j < PANEL; j++) sum##i[j] = fused(x, panel[j], sum##i[j]); \
    }
#define COLUMN_FINISH(i) \
    for (int j = 0; j < PANEL; j++) total[i * PANEL + j] += sum##i[j];
COLUMN_KERNEL(column_kernel, EACH_ROW)
COLUMN_KERNEL(column_kernel_few, EACH_FEW)

/* The same for i < count, a multiple of FEW. */
static void columns(const flis_real *a, size_t stride, size_t count, const flis_real *panel, size_t length,
                    flis_real *total)
{
    for (size_t i = 0; i < count;) {
        const bool whole = count - i >= ROWS;
        (whole ? column_kernel : column_kernel_few)(a + i, stride, panel, length, total + i * PANEL);
        i += whole ? ROWS : FEW;
    }
}

static size_t few_of(size_t count)
{
    return (count + FEW - 1) / FEW * FEW;
}

typedef struct {
    const gather *source; /* x */
    const flis_real *g;   /* [rows][outputs] */
    size_t rows, outputs, channels, taps;
    flis_real *grad; /* [outputs][channels][taps] */
} weight_gradient;

/* panel[i][j] = x[first + i, k + j] for `length` positions, zeros where k + j is beyond the last. */
static void weight_panel(const weight_gradient *job, size_t k, size_t first, size_t length, flis_real *panel)
{
    const gather *source = job->source;
    const size_t inner = job->taps * job->channels;
    for (size_t lane = 0; lane < PANEL;) {
        const size_t tap = (k + lane) / job->channels, offset = (k + lane) % job->channels;
        size_t run = job->channels - offset < PANEL - lane ? job->channels - offset : PANEL - lane;
        const bool beyond = k + lane >= inner;
        if (beyond) run = PANEL - lane;
        cursor at = cursor_at(source, first);
        tap_row t = beyond ? (tap_row){source->zeros, 0, -1, 0, 0} : tap_row_at(source, &at, tap);
        for (size_t i = 0; i < length; i++) {
            flis_real *to = panel + i * PANEL + lane;
            const flis_real *from = tap_at(source, &t, at.column) + (beyond ? 0 : offset);
            if (run == PANEL)
                for (int j = 0; j < PANEL; j++) to[j] = from[j];
            else
                for (size_t j = 0; j < run; j++) to[j] = from[j];
            if (!beyond && cursor_next(&at) && i + 1 < length) t = tap_row_at(source, &at, tap);
        }
        lane += run;
    }
}

/* The last outputs, as many as are no multiple of FEW, with zeros after them: [length][FEW]. */
static void weight_edge(const weight_gradient *job, size_t row, size_t length, size_t o, flis_real *edge)
{
    for (size_t i = 0; i < length; i++)
        for (size_t j = 0; j < FEW; j++)
            edge[i * FEW + j] = o + j < job->outputs ? job->g[(row + i) * job->outputs + o + j] : 0;
}

enum { WEIGHT_ROWS = 264 }; /* outputs that share a packed panel: a multiple of every ROWS */

/* Adds d w of the outputs first..last-1 (at most WEIGHT_ROWS) and the PANEL inner indices k... */
static void weight_gradient_part(const weight_gradient *job, size_t k, size_t first, size_t last)
{
    flis_real total[WEIGHT_ROWS * PANEL], panel[BLOCK * PANEL], edge[BLOCK * FEW];
    const size_t inner = job->taps * job->channels, whole = (last - first) / FEW * FEW;
    for (size_t i = 0; i < few_of(last - first) * PANEL; i++) total[i] = 0;
    for (size_t row = 0; row < job->rows; row += BLOCK) {
        const size_t length = job->rows - row < BLOCK ? job->rows - row : BLOCK;
        weight_panel(job, k, row, length, panel);
        columns(job->g + row * job->outputs + first, job->outputs, whole, panel, length, total);
        if (first + whole < last) {
            weight_edge(job, row, length, first + whole, edge);
            columns(edge, FEW, FEW, panel, length, total + whole * PANEL);
        }
    }
    for (size_t o = first; o < last; o++) {
        const flis_real *from = total + (o - first) * PANEL;
        size_t tap = k / job->channels, channel = k % job->channels;
        for (size_t j = 0; j < PANEL && k + j < inner; j++) {
            job->grad[(o * job->channels + channel) * job->taps + tap] += from[j];
            if (++channel == job->channels) {
                channel = 0;
                tap++;
            }
        }
    }
}

static void weight_gradient_run(flis_ctx *ctx, const weight_gradient *job)
{
    const size_t inner = job->taps * job->channels, panels = panels_of(inner);
    const size_t most = panels < 4 * (size_t)ctx->threads ? WEIGHT_ROWS / 11 : WEIGHT_ROWS;
    const size_t groups = (job->outputs + most - 1) / most, parts = panels * groups;
    const size_t taps = job->channels % PANEL ? 1 : job->taps, each = panels / taps;
    ctx->macs += (uint64_t)job->rows * job->outputs * inner;
    PARALLEL_FOR_DYNAMIC(job->rows * job->outputs * inner)
    for (size_t part = 0; part < parts; part++) {
        /* The taps of the same weights one after the other: their gradients are neighbours in memory. */
        const size_t p = part / groups, o = part % groups * most,
                     last = o + most < job->outputs ? o + most : job->outputs;
        weight_gradient_part(job, (p % taps * each + p / taps) * PANEL, o, last);
    }
}

static void strip_sums(flis_ctx *ctx, const flis_real *x, size_t positions, size_t c, const double *mean, double *part);

static size_t strips_of(size_t positions)
{
    return (positions + STRIP - 1) / STRIP;
}

/* out[k] += sum of the strips' sums in order, rounded once. */
static void add_strips(const double *part, size_t strips, size_t c, flis_real *out)
{
    for (size_t k = 0; k < c; k++) {
        double total = 0;
        for (size_t s = 0; s < strips; s++) total += part[s * c + k];
        out[k] += (flis_real)total;
    }
}

static void bias_gradient(flis_ctx *ctx, const flis_real *g, size_t rows, size_t c, flis_real *grad)
{
    flis_mark mark = flis_here(ctx);
    double *part = flis_scratch(ctx, strips_of(rows) * c, sizeof *part);
    if (part) {
        strip_sums(ctx, g, rows, c, NULL, part);
        add_strips(part, strips_of(rows), c, grad);
    }
    flis_rewind(ctx, mark);
}

/* One axis of a convolution's gradient, for input positions step * a + parity: output position stride * a + offset[t] read
   this one through the kernel's rows in kernel[t] (bit s: row s). */
typedef struct {
    int step, stride, count;
    int8_t offset[4];
    uint8_t kernel[4];
} axis;

static axis axis_back(size_t taps, flis_conv_kind kind, size_t parity)
{
    static const axis one = {1, 1, 1, {0}, {1}}, same = {1, 1, 3, {-1, 0, 1}, {4, 2, 1}};
    static const axis both[2] = {{2, 1, 1, {0}, {2}}, {2, 1, 2, {0, 1}, {4, 1}}};
    static const axis after[2] = {{2, 1, 2, {-1, 0}, {4, 1}}, {2, 1, 1, {0}, {2}}};
    static const axis upsampled = {1, 2, 4, {-1, 0, 1, 2}, {4, 6, 3, 1}};
    if (taps == 1) return one;
    return kind == FLIS_STRIDE2              ? both[parity]
           : kind == FLIS_STRIDE2_ASYMMETRIC ? after[parity]
           : kind == FLIS_UPSAMPLE2          ? upsampled
                                             : same;
}

/* Every pair of the two axes' taps. */
static void spread_make(axis y, axis x, size_t width, spread *out)
{
    out->taps = 0;
    out->stride = y.stride;
    for (int i = 0; i < y.count; i++)
        for (int j = 0; j < x.count; j++, out->taps++) {
            out->y[out->taps] = y.offset[i];
            out->x[out->taps] = x.offset[j];
            out->from[out->taps] = 0;
            for (size_t s = 0; s < width * width; s++)
                if (y.kernel[i] >> s / width & 1 && x.kernel[j] >> s % width & 1)
                    out->from[out->taps] |= (uint16_t)(1u << s);
        }
}

/* The weights of d x[i,k] += sum_o g[i,o] w[o,k]: panels over the input channels ci, k running over (t, o), of the sum over
   s in from[t] of w[o, ci, s]. */
static void transpose_weights(flis_ctx *ctx, const flis_param *w, const flis_real *packed, const spread *back,
                              flis_real *out)
{
    const size_t outputs = w->shape[0], channels = w->shape[1], panels = panels_of(channels);
    const size_t taps = w->rank == 4 ? w->shape[2] * w->shape[3] : 1, inner = taps * channels;
    (void)ctx;
    PARALLEL_FOR(panels * PANEL * back->taps * outputs)
    for (size_t part = 0; part < panels * back->taps; part++) {
        const size_t first = part / back->taps * PANEL, t = part % back->taps;
        flis_real *to = out + part * outputs * PANEL;
        for (size_t i = 0; i < outputs * PANEL; i++) to[i] = 0;
        for (size_t s = 0; s < taps; s++)
            for (size_t p = 0; back->from[t] >> s & 1 && p < panels_of(outputs); p++) {
                const flis_real *from = packed + (p * inner + s * channels + first) * PANEL;
                const size_t lanes = channels - first < PANEL ? channels - first : PANEL;
                for (size_t i = 0; i < PANEL && p * PANEL + i < outputs; i++)
                    for (size_t j = 0; j < lanes; j++) to[(p * PANEL + i) * PANEL + j] += from[j * PANEL + i];
            }
    }
}

/* d x, for the positions of one parity each way (step 2) or all (step 1). */
static void input_gradient(flis_ctx *ctx, const flis_node *node, const flis_real *packed, axis y, axis x,
                           size_t parity_y, size_t parity_x, flis_real *grad, bool first)
{
    const flis_tensor *in = &node->x[0];
    const size_t step = (size_t)y.step, c = in->c, width = node->w->rank == 4 ? node->w->shape[3] : 1;
    flis_tensor g = node->y, part = *in;
    g.x = node->y.grad->x;
    part.h = (in->h + step - 1 - parity_y) / step;
    part.w = (in->w + step - 1 - parity_x) / step;
    flis_mark mark = flis_here(ctx);
    spread back;
    spread_make(y, x, width, &back);
    flis_param transposed = {.rank = 2, .shape = {c, back.taps * g.c}};
    transposed.packed = flis_scratch(ctx, panels_of(c) * PANEL * transposed.shape[1], sizeof *transposed.packed);
    part.x = step == 1 ? grad : flis_scratch(ctx, flis_count(&part), sizeof *part.x);
    if (transposed.packed && part.x && flis_count(&part)) {
        transpose_weights(ctx, node->w, packed, &back, transposed.packed);
        const product p = {.x = &g,
                           .w = &transposed,
                           .taps = back.taps,
                           .kind = FLIS_SAME,
                           .y = &part,
                           .back = width == 1 ? NULL : &back};
        product_into(ctx, p, NULL, step == 1 && !first ? &part : NULL);
        for (size_t i = 0; step == 2 && i < part.n * part.h * part.w; i++) {
            const size_t n = i / part.w / part.h, row = i / part.w % part.h * 2 + parity_y,
                         column = i % part.w * 2 + parity_x;
            flis_real *to = grad + ((n * in->h + row) * in->w + column) * c;
            for (size_t k = 0; k < c; k++) ACCUMULATE(to[k], first, part.x[i * c + k]);
        }
    }
    flis_rewind(ctx, mark);
}

static void product_backward(flis_ctx *ctx, const flis_node *node)
{
    const flis_tensor *x = &node->x[0], *y = &node->y;
    const flis_param *w = node->w;
    const size_t rows = y->n * y->h * y->w, taps = w->rank == 4 ? w->shape[2] * w->shape[3] : 1;
    flis_mark mark = flis_here(ctx);
    bool first = false;
    flis_real *zeros = flis_scratch(ctx, x->c > PANEL ? x->c : PANEL, sizeof *zeros), *grad = grad_open(ctx, x, &first);
    const flis_real *packed = w->packed;
    for (size_t k = 0; zeros && (k < x->c || k < PANEL); k++) zeros[k] = 0;
    flis_real *w_grad = weight_grad(ctx, w), *b_grad = weight_grad(ctx, node->b);
    if (w_grad && zeros) {
        gather source = {x, y->h, y->w, taps, node->kind, zeros, NULL};
        weight_gradient job = {&source, y->grad->x, rows, y->c, x->c, taps, w_grad};
        weight_gradient_run(ctx, &job);
    }
    if (b_grad) bias_gradient(ctx, y->grad->x, rows, y->c, b_grad);
    if (grad && !packed) {
        const size_t inner = w->shape[1] * taps, panels = panels_of(w->shape[0]), count = panels * PANEL * inner;
        const unsigned char *bytes = w->entry ? flis_file_bytes(ctx, w->file, w->entry) : NULL;
        flis_real *wide = flis_scratch(ctx, count, sizeof *wide);
        for (size_t p = 0; wide && bytes && p < panels; p++)
            panel_from_file(w, bytes, p, FLIS_EXACT, wide + p * PANEL * inner);
        if (wide && !w->entry) (w->half_is_bf16 ? widen_bf16 : widen_half)(w->half, wide, count);
        packed = wide;
    }
    if (grad && packed)
        for (size_t parity = 0; parity < 4; parity++) {
            axis down = axis_back(taps, node->kind, parity / 2), across = axis_back(taps, node->kind, parity % 2);
            if (parity && down.step == 1) break;
            input_gradient(ctx, node, packed, down, across, parity / 2, parity % 2, grad, first);
        }
    flis_rewind(ctx, mark);
    grad_pass(ctx, y, &node->x[1]);
}
#endif

/* ---- The operations ---- */

/* A linear layer takes a matrix or a 1x1 kernel; a convolution 3x3 kernels too. */
static bool weights_fit(flis_ctx *ctx, const char *op, const flis_tensor *x, const flis_param *w, const flis_param *b,
                        bool kernels)
{
    const size_t height = w->rank == 4 ? w->shape[2] : 1, width = w->rank == 4 ? w->shape[3] : 1;
    if (w->rank != 2 && w->rank != 4)
        return flis_fail(ctx, "%s: got weights of %d dimensions, wanted 2 or 4", op, w->rank);
    if (w->shape[1] != x->c) return flis_fail(ctx, "%s: got %zu channels, wanted %zu", op, x->c, w->shape[1]);
    if (height != width || (width != 1 && !(kernels && width == 3)))
        return flis_fail(ctx, "%s: got a %zu x %zu kernel, wanted 1 x 1%s", op, height, width,
                         kernels ? " or 3 x 3" : "");
    if (b && (b->rank != 1 || b->shape[0] != w->shape[0]))
        return flis_fail(ctx, "%s: got %zu biases, wanted %zu", op, b->shape[0], w->shape[0]);
    if (ctx->dry) return true;
    if (!can_multiply(w) || (b && !b->value)) return flis_fail(ctx, "%s: the weights were not loaded", op);
    return true;
}

/* y[i][o] = sum over k of x[i][k] w[o][k] + b[o] + add[i][o]. SPEC 1.3. */
flis_tensor *flis_linear(flis_ctx *ctx, const flis_tensor *x, const flis_param *w, const flis_param *b,
                         const flis_tensor *add)
{
    if (!READY(ctx, "linear", x, w) || !weights_fit(ctx, "linear", x, w, b, false)) return NULL;
    flis_tensor *y = tensor_new(ctx, x->rank, x->n, x->h, x->w, w->shape[0]);
    record(ctx, BACKWARD(product_backward), y, x, add, NULL, w, b);
    return product_into(ctx, (product){.x = x, .w = w, .taps = 1, .kind = FLIS_SAME, .y = y}, b, add);
}

/* y[i][j][o] = sum over (kh, kw, ci) of x[row][column][ci] w[o][ci][kh][kw] + b[o] + add[i][j][o]; rows and columns as
   above. SPEC 1.3. */
flis_tensor *flis_conv(flis_ctx *ctx, const flis_tensor *x, const flis_param *w, const flis_param *b,
                       flis_conv_kind kind, const flis_tensor *add)
{
    if (!READY(ctx, "convolution", x, w) || !weights_fit(ctx, "convolution", x, w, b, true)) return NULL;
    size_t taps = w->rank == 4 ? w->shape[2] * w->shape[3] : 1, h = x->h, width = x->w;
    if ((unsigned)kind > FLIS_UPSAMPLE2) {
        flis_fail(ctx, "convolution: got kind %d, wanted one from FLIS_SAME (%d) to FLIS_UPSAMPLE2 (%d)", (int)kind,
                  (int)FLIS_SAME, (int)FLIS_UPSAMPLE2);
        return NULL;
    }
    if (x->rank != 4 || (taps == 1 && kind != FLIS_SAME)) {
        if (x->rank != 4) flis_fail(ctx, "convolution: got a tensor of %d dimensions, wanted 4", x->rank);
        flis_fail(ctx, "convolution: got a 1 x 1 kernel, wanted 3 x 3 where the size changes");
        return NULL;
    }
    if (kind == FLIS_STRIDE2) { /* floor((h + 2 - 3) / 2) + 1 */
        h = (h + 1) / 2;
        width = (width + 1) / 2;
    } else if (kind == FLIS_STRIDE2_ASYMMETRIC) {
        h /= 2;
        width /= 2;
    } else if (kind == FLIS_UPSAMPLE2) {
        h *= 2;
        width *= 2;
    }
    flis_tensor *y = flis_image(ctx, x->n, h, width, w->shape[0]);
    flis_node *node = record(ctx, BACKWARD(product_backward), y, x, add, NULL, w, b);
    if (node) node->kind = kind;
    return product_into(ctx, (product){.x = x, .w = w, .taps = taps, .kind = kind, .y = y}, b, add);
}

/* ---- Normalisation --------------------------------------------------------------------------------------------- */

/* Group norm, per sample and per group of neighbouring channels, P positions and c / groups channels in a group:

     mean     = sum of x[i][k] / (P c / groups)                variance = sum of (x[i][k] - mean)^2 / (P c / groups)
     scale[k] = weight[k] / sqrt(variance + eps)               shift[k] = bias[k] - mean scale[k]
     y[i][k]  = x[i][k] scale[k] + shift[k]                    then, if asked, y = y sigmoid(y), from the rounded y

   in double, y rounded once. The order of a sum over a group: for each channel, the sums over strips of 256 positions are
   added in order; then the channels' sums are added in order. */

/* Groups of channels: Stable Diffusion has 32, of 4 channels and more. */
static size_t groups_of(const flis_param *weight)
{
    return weight->groups ? weight->groups : 32;
}

/* One sample. */
typedef struct {
    const flis_real *weight, *bias;
    size_t positions, c, groups;
    double eps;
    bool silu;
} group_norm;

/* The mean over group g of x - centre, or of its square. SPEC 1.9. */
static double group_mean(const group_norm *a, const flis_real *x, size_t g, double centre, bool square)
{
    const size_t width = a->c / a->groups;
    double total = 0;
    for (size_t k = g * width; k < (g + 1) * width; k++) {
        double channel = 0;
        for (size_t strip = 0; strip < a->positions; strip += STRIP) {
            double sum = 0;
            for (size_t i = strip; i < strip + STRIP && i < a->positions; i++) {
                const double d = x[i * a->c + k] - centre;
                sum += square ? d * d : d;
            }
            channel += sum;
        }
        total += channel;
    }
    return total / ((double)a->positions * (double)width);
}

/* One sample, x and y [positions][c]: y = x scale + shift. SPEC 1.9. */
static void group_norm_definition(const group_norm *a, const flis_real *x, flis_real *y)
{
    const size_t width = a->c / a->groups;
    for (size_t g = 0; g < a->groups; g++) {
        const double mean = group_mean(a, x, g, 0, false), variance = group_mean(a, x, g, mean, true);
        for (size_t k = g * width; k < (g + 1) * width; k++) {
            const double scale = a->weight[k] / sqrt(variance + a->eps), shift = a->bias[k] - mean * scale;
            for (size_t i = 0; i < a->positions; i++) {
                const flis_real normed = (flis_real)(x[i * a->c + k] * scale + shift);
                y[i * a->c + k] = a->silu ? swish(normed, 1.0) : normed;
            }
        }
    }
}

#ifndef FLIS_NAIVE
/* part[strip][c] = sum over the strip's positions of x, or of (x - mean)^2, one chain of doubles per channel. SPEC 1.9. */
static void strip_sums(flis_ctx *ctx, const flis_real *x, size_t positions, size_t c, const double *mean, double *part)
{
    const size_t strips = (positions + STRIP - 1) / STRIP;
    (void)ctx;
    PARALLEL_FOR(positions * c)
    for (size_t s = 0; s < strips; s++) {
        double *sum = part + s * c;
        size_t last = (s + 1) * STRIP < positions ? (s + 1) * STRIP : positions;
        for (size_t k = 0; k < c; k++) sum[k] = 0;
        for (size_t i = s * STRIP; i < last; i++) {
            const flis_real *row = x + i * c;
            if (mean)
                for (size_t k = 0; k < c; k++) {
                    double difference = row[k] - mean[k];
                    sum[k] += difference * difference;
                }
            else
                for (size_t k = 0; k < c; k++) sum[k] += row[k];
        }
    }
}

/* out[k] = the mean over the group of k, of strip_sums' result: strips in order per channel, then channels in order.
   SPEC 1.9. */
static void group_means(const double *part, size_t positions, size_t c, size_t groups, double *out)
{
    const size_t strips = (positions + STRIP - 1) / STRIP, width = c / groups;
    for (size_t g = 0; g < groups; g++) {
        double total = 0;
        for (size_t k = g * width; k < (g + 1) * width; k++) {
            double channel = 0;
            for (size_t s = 0; s < strips; s++) channel += part[s * c + k];
            total += channel;
        }
        for (size_t k = g * width; k < (g + 1) * width; k++) out[k] = total / ((double)positions * (double)width);
    }
}

/* One sample. part [strips][c], work [4][c]; saved: mean and 1 / sqrt(variance + eps) of each channel's group, or NULL. */
static void group_norm_sample(flis_ctx *ctx, const group_norm *a, const flis_real *in, flis_real *out, double *part,
                              double *work, double *saved)
{
    const size_t c = a->c, positions = a->positions;
    double *mean = work, *variance = work + c, *scale = work + 2 * c, *shift = work + 3 * c;
    (void)ctx;
    strip_sums(ctx, in, positions, c, NULL, part);
    group_means(part, positions, c, a->groups, mean);
    strip_sums(ctx, in, positions, c, mean, part);
    group_means(part, positions, c, a->groups, variance);
    for (size_t k = 0; k < c; k++) {
        scale[k] = a->weight[k] / sqrt(variance[k] + a->eps);
        shift[k] = a->bias[k] - mean[k] * scale[k];
    }
    for (size_t k = 0; saved && k < c; k++) {
        saved[k] = mean[k];
        saved[c + k] = 1.0 / sqrt(variance[k] + a->eps);
    }
    PARALLEL_FOR(positions * c)
    for (size_t i = 0; i < positions; i++) {
        const flis_real *restrict from = in + i * c;
        flis_real *restrict to = out + i * c;
        for (size_t k = 0; k < c; k++) to[k] = (flis_real)(from[k] * scale[k] + shift[k]);
        if (a->silu)
            for (size_t k = 0; k < c; k++) to[k] = swish(to[k], 1.0);
    }
}

/* In the forward pass y = w xhat + b, xhat = (x - mean) r, r = 1 / sqrt(variance + eps); then y = silu(y) if asked, whose
   derivative times g replaces g. So, with means over the positions and channels of a group:
     d x += r (w g - mean(w g) - xhat mean(w g xhat))     d w += sum g xhat     d b += sum g
   One sample. g is overwritten; sums [2][c] gets the sums of g and g xhat; part [2][strips][c]. */
static void group_norm_sample_back(flis_ctx *ctx, const group_norm *a, const flis_real *in, flis_real *g,
                                   const double *saved, double *part, double *sums, flis_real *out, bool first)
{
    const size_t c = a->c, positions = a->positions, strips = strips_of(positions), width = c / a->groups;
    const double *mean = saved, *r = saved + c;
    double *sum_g = sums, *sum_gx = sums + c;
    (void)ctx;
    PARALLEL_FOR(positions * c * 4)
    for (size_t s = 0; s < strips; s++) {
        double *restrict part_g = part + s * c, *restrict part_gx = part + (strips + s) * c;
        for (size_t k = 0; k < c; k++) part_g[k] = part_gx[k] = 0;
        for (size_t i = s * STRIP; i < (s + 1) * STRIP && i < positions; i++) {
            const flis_real *restrict x = in + i * c;
            flis_real *restrict gi = g + i * c;
            if (a->silu)
                for (size_t k = 0; k < c; k++) {
                    const double scale = a->weight[k] * r[k];
                    const flis_real y = (flis_real)(x[k] * scale + (a->bias[k] - mean[k] * scale));
                    gi[k] = (flis_real)(gi[k] * swish_derivative(y, 1.0));
                }
            for (size_t k = 0; k < c; k++) {
                part_g[k] += gi[k];
                part_gx[k] += gi[k] * ((x[k] - mean[k]) * r[k]);
            }
        }
    }
    for (size_t k = 0; k < c; k++) {
        sum_g[k] = sum_gx[k] = 0;
        for (size_t s = 0; s < strips; s++) sum_g[k] += part[s * c + k];
        for (size_t s = 0; s < strips; s++) sum_gx[k] += part[(strips + s) * c + k];
    }
    if (!out) return;
    double *by_g = part, *by_x = part + c, *shift = part + 2 * c;
    for (size_t group = 0; group < a->groups; group++) {
        double mean_g = 0, mean_gx = 0;
        for (size_t k = group * width; k < (group + 1) * width; k++) {
            mean_g += a->weight[k] * sum_g[k];
            mean_gx += a->weight[k] * sum_gx[k];
        }
        mean_g /= (double)positions * (double)width;
        mean_gx /= (double)positions * (double)width;
        for (size_t k = group * width; k < (group + 1) * width; k++) {
            by_g[k] = r[k] * a->weight[k];
            by_x[k] = -r[k] * r[k] * mean_gx;
            shift[k] = -r[k] * mean_g - mean[k] * by_x[k];
        }
    }
    PARALLEL_FOR(positions * c)
    for (size_t i = 0; i < positions; i++) {
        const flis_real *restrict x = in + i * c, *restrict gi = g + i * c;
        flis_real *restrict to = out + i * c;
        for (size_t k = 0; k < c; k++)
            ACCUMULATE(to[k], first, (flis_real)(gi[k] * by_g[k] + (x[k] * by_x[k] + shift[k])));
    }
}

static void group_norm_backward(flis_ctx *ctx, const flis_node *node)
{
    const flis_tensor *x = &node->x[0];
    const size_t c = x->c, positions = x->h * x->w, size = positions * c;
    const group_norm a = {node->w->value, node->b->value, positions, c, groups_of(node->w), node->number, node->silu};
    const size_t part_size = 2 * strips_of(positions) * c > 3 * c ? 2 * strips_of(positions) * c : 3 * c;
    const double *saved = node->saved;
    bool first = false;
    flis_mark mark = flis_here(ctx);
    double *part = flis_scratch(ctx, x->n * part_size, sizeof *part),
           *sums = flis_scratch(ctx, x->n * 2 * c, sizeof *sums);
    flis_real *grad = grad_open(ctx, x, &first), *g = node->y.grad->x;
    flis_real *w_grad = weight_grad(ctx, node->w), *b_grad = weight_grad(ctx, node->b);
    if (!flis_ok(ctx)) return;
    PARALLEL_FOR(x->n > 1 ? x->n * size * 4 : 0)
    for (size_t n = 0; n < x->n; n++)
        group_norm_sample_back(ctx, &a, x->x + n * size, g + n * size, saved + n * 2 * c, part + n * part_size,
                               sums + n * 2 * c, grad ? grad + n * size : NULL, first);
    for (size_t k = 0; k < c; k++) {
        double weight = 0, bias = 0;
        for (size_t n = 0; n < x->n; n++) {
            bias += sums[n * 2 * c + k];
            weight += sums[n * 2 * c + c + k];
        }
        if (w_grad) w_grad[k] += (flis_real)weight;
        if (b_grad) b_grad[k] += (flis_real)bias;
    }
    flis_rewind(ctx, mark);
}

/* node: its backward wants the mean and 1 / sqrt(variance + eps) of each channel's group; or NULL. */
static void group_norm_fast(flis_ctx *ctx, const group_norm *a, const flis_tensor *x, flis_tensor *y, flis_node *node)
{
    const size_t c = a->c, size = a->positions * c, part_size = strips_of(a->positions) * c;
    double *saved = node ? flis_scratch(ctx, x->n * 2 * c, sizeof *saved) : NULL;
    if (node) node->saved = saved;
    flis_mark mark = flis_here(ctx);
    const size_t workers = size < 524288 ? x->n : 1; /* large samples are divided among threads by position instead */
    double *part = flis_scratch(ctx, workers * part_size, sizeof *part),
           *work = flis_scratch(ctx, workers * 4 * c, sizeof *work);
    if (!idle(ctx) && size) { /* an empty tensor has no scratch memory either */
        PARALLEL_FOR(workers > 1 ? x->n * size * 4 : 0)
        for (size_t n = 0; n < x->n; n++) {
            const size_t own = n % workers;
            group_norm_sample(ctx, a, x->x + n * size, y->x + n * size, part + own * part_size, work + own * 4 * c,
                              saved ? saved + n * 2 * c : NULL);
        }
    }
    flis_rewind(ctx, mark);
}
#endif

/* A norm's weight and bias have one value for each of c channels. */
static bool norm_fits(flis_ctx *ctx, const char *op, size_t c, const flis_param *weight, const flis_param *bias)
{
    if (weight->shape[0] != c || bias->shape[0] != c)
        return flis_fail(ctx, "%s: got %zu channels, wanted %zu", op, c, weight->shape[0]);
    if (!ctx->dry && (!weight->value || !bias->value)) return flis_fail(ctx, "%s: the weights were not loaded", op);
    return true;
}

static void group_norm_run(flis_ctx *ctx, const group_norm *a, const flis_tensor *x, flis_tensor *y, flis_node *node)
{
    const size_t size = a->positions * a->c;
#ifndef FLIS_NAIVE
    if (!runs_definition(ctx)) {
        group_norm_fast(ctx, a, x, y, node);
        return;
    }
#endif
    (void)node;
    for (size_t n = 0; !idle(ctx) && n < x->n; n++) group_norm_definition(a, x->x + n * size, y->x + n * size);
}

/* y = (x - mean) / sqrt(variance + eps) * weight + bias, mean and variance over the positions and channels of a group;
   silu: then y = y sigmoid(y), from the rounded y, so that it equals the two operations. SPEC 1.9. */
flis_tensor *flis_group_norm(flis_ctx *ctx, const flis_tensor *x, const flis_param *weight, const flis_param *bias,
                             double eps, bool silu)
{
    if (!READY(ctx, "group norm", x, weight, bias)) return NULL;
    if (silu && ctx->precision) return flis_silu(ctx, flis_group_norm(ctx, x, weight, bias, eps, false));
    const size_t groups = groups_of(weight);
    if (x->c % groups) {
        flis_fail(ctx, "group norm: got %zu channels, wanted %zu, a multiple of %zu", x->c, weight->shape[0], groups);
        return NULL;
    }
    if (!norm_fits(ctx, "group norm", x->c, weight, bias)) return NULL;
    flis_tensor *y = like(ctx, x);
    if (!y) return NULL;
    flis_node *node = record(ctx, BACKWARD(group_norm_backward), y, x, NULL, NULL, weight, bias);
    if (node) {
        node->number = eps;
        node->silu = silu;
    }
    const group_norm a = {weight->value, bias->value, x->h * x->w, x->c, groups, eps, silu};
    group_norm_run(ctx, &a, x, y, node);
    return finished(ctx, y);
}

/* Layer norm, per row of c channels:

     mean = sum of x[k] / c     r = 1 / sqrt(sum of (x[k] - mean)^2 / c + 1e-5)     y[k] = (x[k] - mean) r weight[k] + bias[k]

   in double, y rounded once. The order of a sum over a row: item k is added in lane k mod 16; then lanes are added
   pairwise, 8 apart, then 4, 2 and 1. */

/* PyTorch's default, which neither CLIP's nor the U-Net's layer norms change. */
static const double LAYER_EPS = 1e-5;

/* The mean over a row of x - centre, or of its square. SPEC 1.10. */
static double row_mean(const flis_real *x, size_t c, double centre, bool square)
{
    double lane[LANES] = {0};
    for (size_t k = 0; k < c; k++) {
        const double d = x[k] - centre;
        lane[k % LANES] += square ? d * d : d;
    }
    return lanes_total(lane) / (double)c;
}

/* One row: y[k] = (x[k] - mean) r weight[k] + bias[k]. SPEC 1.10. */
static void layer_norm_definition(const flis_real *x, const flis_real *weight, const flis_real *bias, size_t c,
                                  flis_real *y)
{
    const double mean = row_mean(x, c, 0, false), variance = row_mean(x, c, mean, true);
    const double r = 1.0 / sqrt(variance + LAYER_EPS);
    for (size_t k = 0; k < c; k++) y[k] = (flis_real)((x[k] - mean) * r * weight[k] + bias[k]);
}

#ifndef FLIS_NAIVE
/* Sum over a row of x - shift, or of its square, 16 items at a time. SPEC 1.10. */
static double row_sum(const flis_real *x, size_t c, double shift, bool square)
{
    double lane[LANES] = {0};
    size_t k = 0;
    for (; k + LANES <= c; k += LANES)
        for (int j = 0; j < LANES; j++) {
            double value = x[k + (size_t)j] - shift;
            lane[j] += square ? value * value : value;
        }
    for (int j = 0; k < c; k++, j++) {
        double value = x[k] - shift;
        lane[j] += square ? value * value : value;
    }
    return lanes_total(lane);
}

static double row_dot(const flis_real *a, const flis_real *b, size_t c)
{
    double lane[LANES] = {0};
    size_t k = 0;
    for (; k + LANES <= c; k += LANES)
        for (size_t j = 0; j < LANES; j++) lane[j] += (double)a[k + j] * b[k + j];
    for (size_t j = 0; k < c; k++, j++) lane[j] += (double)a[k] * b[k];
    return lanes_total(lane);
}

/* In the forward pass y = w xhat + b, xhat = (x - mean) r, r = 1 / sqrt(variance + 1e-5); so, with means over the
   channels of a row:
     d x += r (w g - mean(w g) - xhat mean(w g xhat))     d w += sum g xhat     d b += sum g
   sums [2][c] accumulates the last two over the rows of a strip. */
static void layer_norm_row_back(const flis_real *x, const flis_real *g, const flis_real *weight, size_t c, double *sums,
                                flis_real *out, bool first)
{
    const double mean = row_sum(x, c, 0, false) / (double)c,
                 r = 1.0 / sqrt(row_sum(x, c, mean, true) / (double)c + LAYER_EPS);
    double lane_g[LANES] = {0}, lane_gx[LANES] = {0};
    size_t k = 0;
    for (; k + LANES <= c; k += LANES)
        for (size_t j = 0; j < LANES; j++) {
            const double scaled = (double)g[k + j] * weight[k + j];
            lane_g[j] += scaled;
            lane_gx[j] += scaled * ((x[k + j] - mean) * r);
        }
    for (size_t j = 0; k < c; k++, j++) {
        const double scaled = (double)g[k] * weight[k];
        lane_g[j] += scaled;
        lane_gx[j] += scaled * ((x[k] - mean) * r);
    }
    const double mean_g = lanes_total(lane_g) / (double)c, mean_gx = lanes_total(lane_gx) / (double)c;
    for (k = 0; k < c; k++) {
        sums[k] += g[k];
        sums[c + k] += g[k] * ((x[k] - mean) * r);
    }
    for (k = 0; out && k < c; k++)
        ACCUMULATE(out[k], first, (flis_real)(r * ((double)g[k] * weight[k] - mean_g - (x[k] - mean) * r * mean_gx)));
}

static void layer_norm_backward(flis_ctx *ctx, const flis_node *node)
{
    const flis_tensor *x = &node->x[0];
    const size_t c = x->c, rows = x->n * x->h * x->w, strips = strips_of(rows);
    bool first = false;
    flis_mark mark = flis_here(ctx);
    double *part = flis_scratch(ctx, strips * 2 * c, sizeof *part);
    flis_real *grad = grad_open(ctx, x, &first), *w_grad = weight_grad(ctx, node->w),
              *b_grad = weight_grad(ctx, node->b);
    const flis_real *g = node->y.grad->x;
    if (!flis_ok(ctx)) return;
    PARALLEL_FOR(rows * c * 4)
    for (size_t s = 0; s < strips; s++) {
        double *sums = part + s * 2 * c;
        for (size_t k = 0; k < 2 * c; k++) sums[k] = 0;
        for (size_t i = s * STRIP; i < (s + 1) * STRIP && i < rows; i++)
            layer_norm_row_back(x->x + i * c, g + i * c, node->w->value, c, sums, grad ? grad + i * c : NULL, first);
    }
    for (size_t k = 0; k < c; k++) {
        double bias = 0, weight = 0;
        for (size_t s = 0; s < strips; s++) {
            bias += part[s * 2 * c + k];
            weight += part[s * 2 * c + c + k];
        }
        if (w_grad) w_grad[k] += (flis_real)weight;
        if (b_grad) b_grad[k] += (flis_real)bias;
    }
    flis_rewind(ctx, mark);
}

/* One row. SPEC 1.10. */
static void layer_norm_row(const flis_real *in, const flis_real *weight, const flis_real *bias, size_t c,
                           flis_real *out)
{
    double mean = row_sum(in, c, 0, false) / (double)c;
    double scale = 1.0 / sqrt(row_sum(in, c, mean, true) / (double)c + LAYER_EPS);
    for (size_t k = 0; k < c; k++) out[k] = (flis_real)((in[k] - mean) * scale * weight[k] + bias[k]);
}
#endif

static void layer_norm_run(flis_ctx *ctx, const flis_tensor *x, const flis_param *weight, const flis_param *bias,
                           flis_tensor *y)
{
    const size_t c = x->c, rows = x->n * x->h * x->w;
#ifndef FLIS_NAIVE
    if (!runs_definition(ctx)) {
        PARALLEL_FOR(rows * c)
        for (size_t i = 0; i < rows; i++) layer_norm_row(x->x + i * c, weight->value, bias->value, c, y->x + i * c);
        return;
    }
#endif
    (void)ctx;
    for (size_t i = 0; i < rows; i++) layer_norm_definition(x->x + i * c, weight->value, bias->value, c, y->x + i * c);
}

/* y = (x - mean) / sqrt(variance + 1e-5) * weight + bias over each row of c, in double, rounded once. SPEC 1.10. */
flis_tensor *flis_layer_norm(flis_ctx *ctx, const flis_tensor *x, const flis_param *weight, const flis_param *bias)
{
    if (!READY(ctx, "layer norm", x, weight, bias) || !norm_fits(ctx, "layer norm", x->c, weight, bias)) return NULL;
    flis_tensor *y = like(ctx, x);
    record(ctx, BACKWARD(layer_norm_backward), y, x, NULL, NULL, weight, bias);
    if (!y || idle(ctx)) return y;
    layer_norm_run(ctx, x, weight, bias, y);
    return finished(ctx, y);
}

/* ---- Elementwise ----------------------------------------------------------------------------------------------- */

/* The loops of this section are the equations, and so their own definitions. */

enum { LOT = 256 }; /* values computed before they are accumulated: loops that do both stay scalar */

static void accumulate_lot(flis_real *to, bool first, const flis_real *value, size_t count)
{
    if (first) memcpy(to, value, count * sizeof *to);
    else
        for (size_t i = 0; i < count; i++) to[i] += value[i];
}

/* In the forward pass y = x s(b x); so d x += g d/dx (x s(b x)). */
static void swish_backward(flis_ctx *ctx, const flis_node *node)
{
    const flis_tensor *x = &node->x[0];
    const size_t all = flis_count(x), lots = (all + LOT - 1) / LOT;
    const flis_real *g = node->y.grad->x;
    const double b = node->number;
    bool first = false;
    flis_real *grad = grad_open(ctx, x, &first);
    if (!grad) return;
    PARALLEL_FOR(all * 4)
    for (size_t lot = 0; lot < lots; lot++) {
        const size_t k = lot * LOT, count = all - k < LOT ? all - k : LOT;
        flis_real slope[LOT];
        for (size_t j = 0; j < count; j++) slope[j] = (flis_real)(g[k + j] * swish_derivative(x->x[k + j], b));
        accumulate_lot(grad + k, first, slope, count);
    }
}

/* y = x s(b x), s the sigmoid. */
static flis_tensor *swish_of(flis_ctx *ctx, const char *op, const flis_tensor *x, double b)
{
    if (!READY(ctx, op, x)) return NULL;
    flis_tensor *y = like(ctx, x);
    flis_node *node = record(ctx, swish_backward, y, x, NULL, NULL, NULL, NULL);
    if (node) node->number = b;
    if (!y || idle(ctx)) return y;
    const size_t rows = x->n * x->h * x->w, c = x->c;
    PARALLEL_FOR(rows * c)
    for (size_t i = 0; i < rows; i++)
        for (size_t k = 0; k < c; k++) y->x[i * c + k] = swish(x->x[i * c + k], b);
    return finished(ctx, y);
}

/* y = x / (1 + exp(-x)), in double, rounded once. SPEC 1.8. */
flis_tensor *flis_silu(flis_ctx *ctx, const flis_tensor *x)
{
    return swish_of(ctx, "SiLU", x, 1.0);
}

/* y = x / (1 + exp(-1.702 x)), in double, rounded once: the text encoder's. SPEC 1.8. */
flis_tensor *flis_quick_gelu(flis_ctx *ctx, const flis_tensor *x)
{
    return swish_of(ctx, "quick GELU", x, 1.702);
}

/* In the forward pass y[k] = x[k] gelu(x[c/2 + k]); so
     d x[k] += g[k] gelu(x[c/2 + k])     d x[c/2 + k] += g[k] x[k] gelu'(x[c/2 + k]) */
static void geglu_backward(flis_ctx *ctx, const flis_node *node)
{
    const flis_tensor *x = &node->x[0], *y = &node->y;
    const size_t rows = y->n * y->h * y->w, c = y->c;
    bool first = false;
    flis_real *grad = grad_open(ctx, x, &first);
    if (!grad) return;
    PARALLEL_FOR(rows * c * 4)
    for (size_t i = 0; i < rows; i++) {
        const flis_real *value = x->x + i * 2 * c, *gate = value + c, *g = y->grad->x + i * c;
        flis_real *to = grad + i * 2 * c, by_value[LOT], by_gate[LOT];
        for (size_t k = 0; k < c; k += LOT) {
            const size_t count = c - k < LOT ? c - k : LOT;
            for (size_t j = 0; j < count; j++) {
                double density, below = normal(gate[k + j], &density);
                by_value[j] = (flis_real)(g[k + j] * gate[k + j] * below);
                by_gate[j] = (flis_real)((double)g[k + j] * value[k + j] * (below + gate[k + j] * density));
            }
            accumulate_lot(to + k, first, by_value, count);
            accumulate_lot(to + c + k, first, by_gate, count);
        }
    }
}

/* y[k] = x[k] gelu(x[c/2 + k]), k < c/2, gelu(x) = x erfc(-x / sqrt 2) / 2: the *second* half is the gate; rounded after
   GELU and after the product. SPEC 1.8. */
flis_tensor *flis_geglu(flis_ctx *ctx, const flis_tensor *x)
{
    if (!READY(ctx, "GEGLU", x)) return NULL;
    if (x->c % 2) {
        flis_fail(ctx, "GEGLU: got %zu channels, wanted an even number", x->c);
        return NULL;
    }
    flis_tensor *y = tensor_new(ctx, x->rank, x->n, x->h, x->w, x->c / 2);
    record(ctx, geglu_backward, y, x, NULL, NULL, NULL, NULL);
    if (!y || idle(ctx)) return y;
    const size_t rows = x->n * x->h * x->w, c = x->c / 2;
    PARALLEL_FOR(rows * c)
    for (size_t i = 0; i < rows; i++) {
        const flis_real *restrict value = x->x + i * 2 * c, *restrict gate = value + c;
        flis_real *restrict out = y->x + i * c;
        if (!ctx->precision)
            for (size_t k = 0; k < c; k++) out[k] = value[k] * gelu(gate[k]);
        else
            for (size_t k = 0; k < c; k++) out[k] = value[k] * stored(gelu(gate[k]), ctx->precision);
    }
    return finished(ctx, y);
}

/* d t += factor g */
static void accumulate_scaled(flis_ctx *ctx, const flis_tensor *t, const flis_real *g, flis_real factor)
{
    const size_t rows = t->n * t->h * t->w, c = t->c;
    bool first = false;
    flis_real *grad = grad_open(ctx, t, &first);
    if (!grad) return;
    PARALLEL_FOR(rows * c)
    for (size_t i = 0; i < rows; i++)
        for (size_t k = i * c; k < (i + 1) * c; k++) ACCUMULATE(grad[k], first, factor * g[k]);
}

/* In the forward pass y = a + b; so d a += g, d b += g. */
static void add_backward(flis_ctx *ctx, const flis_node *node)
{
    accumulate_scaled(ctx, &node->x[0], node->y.grad->x, 1);
    grad_pass(ctx, &node->y, &node->x[1]);
}

/* y = a + b. SPEC 1.4. */
flis_tensor *flis_add(flis_ctx *ctx, const flis_tensor *a, const flis_tensor *b)
{
    if (!READY(ctx, "add", a, b) || !same_shape(ctx, "add", a, b)) return NULL;
    flis_tensor *y = like(ctx, a);
    record(ctx, add_backward, y, a, b, NULL, NULL, NULL);
    if (!y || idle(ctx)) return y;
    const size_t rows = a->n * a->h * a->w, c = a->c;
    PARALLEL_FOR(rows * c)
    for (size_t i = 0; i < rows; i++)
        for (size_t k = 0; k < c; k++) y->x[i * c + k] = a->x[i * c + k] + b->x[i * c + k];
    return finished(ctx, y);
}

#ifndef FLIS_NAIVE
/* In the forward pass y[n,i] = x[n,i] + v[n]; so d v[n] += sum_i g[n,i], d x += g. */
static void add_to_all_backward(flis_ctx *ctx, const flis_node *node)
{
    const flis_tensor *y = &node->y, *v = &node->x[1];
    const size_t positions = y->h * y->w, c = y->c, strips = strips_of(positions);
    flis_mark mark = flis_here(ctx);
    bool first = false;
    flis_real *grad = grad_open(ctx, v, &first);
    double *part = flis_scratch(ctx, strips * c, sizeof *part);
    for (size_t n = 0; grad && part && n < y->n; n++) {
        strip_sums(ctx, y->grad->x + n * positions * c, positions, c, NULL, part);
        for (size_t k = 0; first && k < c; k++) grad[n * c + k] = 0;
        add_strips(part, strips, c, grad + n * c);
    }
    flis_rewind(ctx, mark);
    grad_pass(ctx, y, &node->x[0]);
}
#endif

/* y[n][i] = x[n][i] + v[n] at every position i. SPEC 1.4. */
flis_tensor *flis_add_to_all(flis_ctx *ctx, const flis_tensor *x, const flis_tensor *v)
{
    if (!READY(ctx, "add to all positions", x, v)) return NULL;
    if (v->n != x->n || v->c != x->c || v->h * v->w != 1) {
        flis_fail(ctx, "add to all positions: got [%zu,%zu,%zu], wanted [%zu,1,%zu]", v->n, v->h * v->w, v->c, x->n,
                  x->c);
        return NULL;
    }
    flis_tensor *y = like(ctx, x);
    record(ctx, BACKWARD(add_to_all_backward), y, x, v, NULL, NULL, NULL);
    if (!y || idle(ctx)) return y;
    const size_t positions = x->h * x->w, rows = x->n * positions, c = x->c;
    PARALLEL_FOR(rows * c)
    for (size_t i = 0; i < rows; i++)
        for (size_t k = 0; k < c; k++) y->x[i * c + k] = x->x[i * c + k] + v->x[i / positions * c + k];
    return finished(ctx, y);
}

/* In the forward pass y = f x; so d x += f g. */
static void scale_backward(flis_ctx *ctx, const flis_node *node)
{
    accumulate_scaled(ctx, &node->x[0], node->y.grad->x, (flis_real)node->number);
}

/* y = x f, f the factor rounded to flis_real. SPEC 1.4. */
flis_tensor *flis_scale(flis_ctx *ctx, const flis_tensor *x, double factor)
{
    if (!READY(ctx, "scale", x)) return NULL;
    flis_tensor *y = like(ctx, x);
    flis_node *node = record(ctx, scale_backward, y, x, NULL, NULL, NULL, NULL);
    if (node) node->number = factor;
    if (!y || idle(ctx)) return y;
    const size_t count = flis_count(x);
    const flis_real by = (flis_real)factor;
    for (size_t i = 0; i < count; i++) y->x[i] = x->x[i] * by;
    return finished(ctx, y);
}

/* In the forward pass y = [a, b]; so d a += the first channels of g, d b += the others. */
static void concat_backward(flis_ctx *ctx, const flis_node *node)
{
    const size_t rows = node->y.n * node->y.h * node->y.w, c = node->y.c;
    const flis_real *restrict g = node->y.grad->x;
    for (int part = 0; part < 2; part++) {
        const flis_tensor *t = &node->x[part];
        const size_t own = t->c, from = part ? c - own : 0;
        bool first = false;
        flis_real *grad = grad_open(ctx, t, &first);
        PARALLEL_FOR(grad ? rows * own : 0)
        for (size_t i = 0; i < rows; i++)
            for (size_t k = 0; grad && k < own; k++) ACCUMULATE(grad[i * own + k], first, g[i * c + from + k]);
    }
}

/* y = [a, b]: the channels of a, then those of b. SPEC 1.4. */
flis_tensor *flis_concat(flis_ctx *ctx, const flis_tensor *a, const flis_tensor *b)
{
    if (!READY(ctx, "concat", a, b)) return NULL;
    if (a->n != b->n || a->h != b->h || a->w != b->w) {
        flis_fail(ctx, "concat: got %zu x %zu and %zu x %zu positions, wanted the same", a->h, a->w, b->h, b->w);
        return NULL;
    }
    flis_tensor *y = tensor_new(ctx, a->rank, a->n, a->h, a->w, a->c + b->c);
    record(ctx, concat_backward, y, a, b, NULL, NULL, NULL);
    if (!y || idle(ctx)) return y;
    const size_t rows = a->n * a->h * a->w;
    PARALLEL_FOR(rows * y->c)
    for (size_t i = 0; i < rows; i++) {
        memcpy(y->x + i * y->c, a->x + i * a->c, a->c * sizeof(flis_real));
        memcpy(y->x + i * y->c + a->c, b->x + i * b->c, b->c * sizeof(flis_real));
    }
    return y;
}

/* In the forward pass y[n][t] = token[ids[n][t]] + position[t]; so d token[id] += g[n][t] wherever ids[n][t] = id, in order,
   and d position[t] += g[n][t]. */
static void embed_backward(flis_ctx *ctx, const flis_node *node)
{
    const flis_tensor *y = &node->y;
    const int32_t *ids = node->saved;
    const size_t tokens = y->h, c = y->c;
    flis_real *token = weight_grad(ctx, node->w), *position = weight_grad(ctx, node->b);
    for (size_t i = 0; i < y->n * tokens; i++) {
        const flis_real *g = y->grad->x + i * c;
        for (size_t k = 0; token && k < c; k++) token[(size_t)ids[i] * c + k] += g[k];
        for (size_t k = 0; position && k < c; k++) position[i % tokens * c + k] += g[k];
    }
}

/* Both tables loaded, unpacked and equally wide; every id in the table. */
static bool embed_fits(flis_ctx *ctx, const int32_t *ids, size_t n, const flis_param *token, const flis_param *position)
{
    if (token->rank != 2 || position->rank != 2 || token->shape[1] != position->shape[1])
        return flis_fail(ctx, "embed: got tables [%zu,%zu] and [%zu,%zu], wanted the same width", token->shape[0],
                         token->shape[1], position->shape[0], position->shape[1]);
    if (ctx->dry) return true;
    if ((!token->value && !token->entry) || (!position->value && !position->entry))
        return flis_fail(ctx, "embed: the tables were not loaded");
    for (size_t i = 0; i < n * position->shape[0]; i++)
        if (ids[i] < 0 || (size_t)ids[i] >= token->shape[0])
            return flis_fail(ctx, "token %zu: got id %ld, wanted 0 to %zu", i, (long)ids[i], token->shape[0] - 1);
    return true;
}

/* Row `row` of a table: in memory, or in its file, whose bytes of it are then given. */
static bool row_of(flis_ctx *ctx, const flis_param *table, const unsigned char *bytes, size_t row, flis_real *out)
{
    const size_t c = table->shape[1];
    if (table->value) memcpy(out, table->value + row * c, c * sizeof *out);
    if (table->value || !bytes) return flis_ok(ctx);
    const flis_dtype dtype = table->entry->dtype;
    values_from(bytes + row * c * flis_dtype_size(dtype), dtype, c, out);
    for (size_t k = 0; k < c; k++)
        if (!(out[k] - out[k] == 0)) return fail_bad(ctx, table, bytes);
    return true;
}

/* y[n][t] = token[ids[n][t]] + position[t], t = 0 .. rows of position - 1. SPEC 1.4. */
flis_tensor *flis_embed(flis_ctx *ctx, const int32_t *ids, size_t n, const flis_param *token,
                        const flis_param *position)
{
    if (!READY(ctx, "embed", ids, token, position) || !embed_fits(ctx, ids, n, token, position)) return NULL;
    const size_t tokens = position->shape[0], c = token->shape[1];
    flis_tensor *y = flis_rows(ctx, n, tokens, c);
    flis_node *node = record(ctx, embed_backward, y, NULL, NULL, NULL, token, position);
    if (node) {
        int32_t *copy = flis_scratch(ctx, n * tokens, sizeof *copy);
        if (copy) memcpy(copy, ids, n * tokens * sizeof *copy);
        node->saved = copy;
    }
    const flis_mark mark = flis_here(ctx);
    const unsigned char *ids_bytes = token->entry ? flis_file_bytes(ctx, token->file, token->entry) : NULL,
                        *t_bytes = position->entry ? flis_file_bytes(ctx, position->file, position->entry) : NULL;
    flis_real *of_id = flis_scratch(ctx, c, sizeof *of_id), *of_t = flis_scratch(ctx, c, sizeof *of_t);
    bool good = y && !idle(ctx);
    for (size_t i = 0; good && i < n * tokens; i++) {
        good = row_of(ctx, token, ids_bytes, (size_t)ids[i], of_id) && row_of(ctx, position, t_bytes, i % tokens, of_t);
        for (size_t k = 0; k < c; k++) y->x[i * c + k] = of_id[k] + of_t[k];
    }
    flis_rewind(ctx, mark);
    return finished(ctx, y);
}

/* ---- Attention ------------------------------------------------------------------------------------------------- */

/* Per sample, head and query i, over the keys j that the head sees, with q, k and v its d channels:

     score[j] = (q[i] . k[j]) scale, or -max(real) where key j is masked       a dot product over d
     e[j]     = exp(score[j] - largest score)                                  rounded to real
     out[i]   = (sum over j of e[j] v[j]) / (sum over j of e[j])               a dot product over the keys, divided by
                                                                               a chain of doubles, rounded once

   -max(real), not minus infinity: a query whose keys are all masked attends to all of them alike. */

typedef struct {
    const flis_tensor *q, *k, *v;
    size_t heads, d, queries, keys;
    double scale;
    flis_mask mask;
    flis_precision precision; /* if emulated, q, k and v are rounded already */
    flis_real *y;
    double *saved; /* for the backward, [n][heads][queries][2]: largest score and sum; or NULL */
#ifndef FLIS_NAIVE
    const flis_real *v_transposed; /* [n][c][keys] */
    const flis_real *zeros;
    k_plan over_d, over_keys;
#endif
} attention;

/* score[j] = (q . k[j]) scale for every key, before the mask. SPEC 1.11. */
static void scores_definition(const attention *a, size_t n, size_t head, size_t query, flis_real *score)
{
    const size_t c = a->q->c;
    const flis_real *q = a->q->x + (n * a->queries + query) * c + head * a->d;
    for (size_t j = 0; j < a->keys; j++) {
        const flis_real *k = a->k->x + (n * a->keys + j) * c + head * a->d;
        dot_sum sum = {0};
        for (size_t i = 0; i < a->d; i++) dot_add(&sum, q[i], k[i]);
        score[j] = stored(stored(dot_end(&sum), a->precision) * (flis_real)a->scale, a->precision);
    }
}

/* A query's row: score becomes e[j] = exp(score[j] - largest), -max(real) standing for the scores of masked keys. Returns the
   sum of e. SPEC 1.11. */
static double softmax_definition(const attention *a, size_t n, size_t query, flis_real *score)
{
    const uint8_t *row = a->mask.attended && a->mask.attended[n] ? a->mask.attended[n] + query * a->keys : NULL;
    flis_real largest = -REAL_MAX;
    double sum = 0;
    for (size_t j = 0; j < a->keys; j++) {
        const bool masked = (row && !row[j]) || (a->mask.causal && j > query);
        score[j] = masked ? -REAL_MAX : score[j];
        largest = score[j] > largest ? score[j] : largest;
    }
    for (size_t j = 0; j < a->keys; j++) {
        score[j] = (flis_real)exp_real((double)score[j] - largest);
        sum += score[j];
    }
    return sum;
}

/* e as operands of the weighted sum. PyTorch's softmax divides first, which makes small weights subnormal in fp16. */
static void weights_emulate(flis_precision precision, flis_real *e, size_t keys, double *sum)
{
    const bool half = precision == FLIS_AS_F16 || precision == FLIS_AS_BF16;
    for (size_t j = 0; j < keys; j++) e[j] = operand(half ? (flis_real)(e[j] / *sum) : e[j], precision);
    if (half) *sum = 1;
}

/* One query of one head: out = (sum over j of e[j] v[j]) / (sum of e). e [keys] is scratch memory. SPEC 1.11. */
static void attention_definition(const attention *a, size_t n, size_t head, size_t query, flis_real *e)
{
    const size_t c = a->q->c, at = (n * a->queries + query) * c + head * a->d;
    scores_definition(a, n, head, query, e);
    double sum_e = softmax_definition(a, n, query, e);
    if (a->precision) weights_emulate(a->precision, e, a->keys, &sum_e);
    for (size_t i = 0; i < a->d; i++) {
        dot_sum sum = {0};
        for (size_t j = 0; j < a->keys; j++) dot_add(&sum, a->v->x[(n * a->keys + j) * c + head * a->d + i], e[j]);
        a->y[at + i] = (flis_real)(dot_end(&sum) / sum_e);
    }
}

#ifndef FLIS_NAIVE
/* ---- The fast code ---- */

/* PANEL queries at a time, transposed: S^T = K Q^T has the keys as rows and the queries as lanes, so that softmax runs
   down columns and S^T is already the packed panel of O^T = V^T P^T. */

/* S^T becomes e^T; each lane's largest score and sum of e. SPEC 1.11. */
static void softmax_columns(flis_real *score, size_t keys, flis_real *largest, double *sum)
{
    for (int j = 0; j < PANEL; j++) {
        largest[j] = -REAL_MAX;
        sum[j] = 0;
    }
    for (size_t key = 0; key < keys; key++)
        for (int j = 0; j < PANEL; j++) {
            flis_real s = score[key * PANEL + (size_t)j];
            largest[j] = s > largest[j] ? s : largest[j];
        }
    for (size_t key = 0; key < keys; key++) {
        flis_real *row = score + key * PANEL;
        for (int j = 0; j < PANEL; j++) {
            flis_real e = (flis_real)exp_real((double)row[j] - largest[j]);
            row[j] = e;
            sum[j] += e;
        }
    }
}

/* weights_emulate of every lane. */
static void columns_emulate(flis_precision precision, flis_real *e, size_t keys, double *sum)
{
    const bool half = precision == FLIS_AS_F16 || precision == FLIS_AS_BF16;
    for (size_t i = 0; i < keys * PANEL; i++)
        e[i] = operand(half ? (flis_real)(e[i] / sum[i % PANEL]) : e[i], precision);
    for (int j = 0; half && j < PANEL; j++) sum[j] = 1;
}

/* Scales a tile of scores and applies the mask. Lanes beyond the last query compute on zeros. SPEC 1.11. */
static void scores_store(const attention *a, const flis_real *total, flis_real *score, size_t n, size_t query,
                         size_t lanes, size_t key, size_t rows)
{
    const flis_real scale = (flis_real)a->scale;
    const uint8_t *attended = a->mask.attended ? a->mask.attended[n] : NULL;
    for (size_t i = 0; i < rows; i++) {
        flis_real *out = score + (key + i) * PANEL;
        for (int j = 0; j < PANEL; j++) out[j] = total[i * PANEL + (size_t)j] * scale;
        for (size_t j = 0; a->precision && j < PANEL; j++)
            out[j] = stored(stored(total[i * PANEL + j], a->precision) * scale, a->precision);
        if (a->mask.causal)
            for (size_t j = 0; j < lanes; j++)
                if (key + i > query + j) out[j] = -REAL_MAX;
        if (attended)
            for (size_t j = 0; j < lanes; j++)
                if (!attended[(query + j) * a->keys + key + i]) out[j] = -REAL_MAX;
    }
}

/* PANEL queries of one head, from `query` on. score [keys][PANEL] and transposed [d][PANEL] are this thread's. SPEC 1.11. */
static void attention_part(const attention *a, size_t n, size_t head, size_t query, flis_real *score,
                           flis_real *transposed)
{
    const size_t c = a->q->c, queries = a->queries, lanes = queries - query < PANEL ? queries - query : PANEL;
    const flis_real *q = a->q->x + (n * queries + query) * c + head * a->d;
    const flis_real *k = a->k->x + n * a->keys * c + head * a->d;
    const flis_real *v = a->v_transposed + (n * c + head * a->d) * a->keys;
    flis_real total[ROWS * PANEL];
    const flis_real *row[1][ROWS];
    double sum[PANEL];
    flis_real largest[PANEL];
    for (size_t i = 0; i < a->d; i++)
        for (size_t j = 0; j < PANEL; j++) transposed[i * PANEL + j] = j < lanes ? q[j * c + i] : 0;
    for (size_t key = 0; key < a->keys; key += ROWS) {
        size_t rows = a->keys - key < ROWS ? a->keys - key : ROWS;
        for (size_t i = 0; i < ROWS; i++) row[0][i] = i < rows ? k + (key + i) * c : a->zeros;
        tile_kernel(&a->over_d, (const flis_real *const(*)[ROWS])row, transposed, total);
        scores_store(a, total, score, n, query, lanes, key, rows);
    }
    softmax_columns(score, a->keys, largest, sum);
    for (size_t j = 0; a->saved && j < lanes; j++) {
        double *saved = a->saved + ((n * a->heads + head) * queries + query + j) * 2;
        saved[0] = largest[j];
        saved[1] = sum[j];
    }
    if (a->precision) columns_emulate(a->precision, score, a->keys, sum);
    for (size_t at = 0; at < a->d; at += ROWS) {
        size_t rows = a->d - at < ROWS ? a->d - at : ROWS;
        for (size_t i = 0; i < ROWS; i++) row[0][i] = i < rows ? v + (at + i) * a->keys : a->zeros;
        tile_kernel(&a->over_keys, (const flis_real *const(*)[ROWS])row, score, total);
        for (size_t j = 0; j < lanes; j++)
            for (size_t i = 0; i < rows; i++)
                a->y[(n * queries + query + j) * c + head * a->d + at + i] = (flis_real)(total[i * PANEL + j] / sum[j]);
    }
}

/* x [n][tokens][c] as out [n][c][tokens], 16 tokens at a time for the cache. */
static void transpose(flis_ctx *ctx, const flis_tensor *x, flis_real *out)
{
    const size_t tokens = x->h * x->w, c = x->c, blocks = (tokens + 15) / 16;
    (void)ctx;
    for (size_t n = 0; n < x->n; n++) {
        PARALLEL_FOR(tokens * c)
        for (size_t b = 0; b < blocks; b++) {
            size_t last = (b + 1) * 16 < tokens ? (b + 1) * 16 : tokens;
            for (size_t k = 0; k < c; k++)
                for (size_t i = b * 16; i < last; i++) out[(n * c + k) * tokens + i] = x->x[(n * tokens + i) * c + k];
        }
    }
}

static void attention_fast(flis_ctx *ctx, attention *a)
{
    const size_t d = a->d, keys = a->keys, blocks = panels_of(a->queries), longest = keys > d ? keys : d;
    const size_t jobs = a->q->n * a->heads * blocks, own = (keys + d) * PANEL,
                 workers = (size_t)ctx->threads < jobs ? (size_t)ctx->threads : jobs;
    flis_real *transposed = flis_scratch(ctx, flis_count(a->v), sizeof *transposed);
    flis_real *zeros = flis_scratch(ctx, longest, sizeof *zeros);
    flis_real *work = flis_scratch(ctx, workers * own, sizeof *work);
    const bool planned = plan_make(ctx, &a->over_d, 1, d);
    if (!plan_make(ctx, &a->over_keys, 1, keys) || !planned) return;
    memset(zeros, 0, longest * sizeof *zeros);
    transpose(ctx, a->v, transposed);
    a->v_transposed = transposed;
    a->zeros = zeros;
    PARALLEL_FOR(a->q->n * a->queries * keys * d / 16)
    for (size_t worker = 0; worker < workers; worker++)
        for (size_t job = worker; job < jobs; job += workers)
            attention_part(a, job / blocks / a->heads, job / blocks % a->heads, job % blocks * PANEL,
                           work + worker * own, work + worker * own + keys * PANEL);
}

/* ---- Its backward ---- */

/* In the forward pass out = P v, P[i][j] = exp(s[i][j] - largest of row i) / sum of row i, s = scale q k^T. So, with
   g = d loss / d out and D[i] = sum_d g[i][d] out[i][d]:
     d v[j] += sum_i P[i][j] g[i]           dS[i][j] = P[i][j] (g[i] . v[j] - D[i]) scale, 0 where masked
     d q[i] += sum_j dS[i][j] k[j]          d k[j] += sum_i dS[i][j] q[i]
   each sum a dot product. P is computed again, BLOCK queries at a time; one head of one sample is one job, so that no two
   threads accumulate into one sum. Scores have queries as rows and keys as lanes here. */
typedef struct {
    const flis_node *node;
    size_t heads, d, d_few, d_panels, keys, panels, queries; /* d_few: d, rounded up to a multiple of FEW */
    k_plan over_d, over_keys;                                /* over_keys runs over the panels of dS */
    const flis_real *zeros;
    flis_real *q, *k, *v; /* gradients, NULL where none is wanted */
    bool first_q, first_k, first_v;
} attention_back;

/* One job's memory. */
typedef struct {
    flis_real *k_lanes, *v_lanes; /* [panels][d][PANEL]: keys as lanes */
    flis_real *k_rows;            /* [d_panels][panels * PANEL][PANEL]: d as lanes, zeros beyond the last key */
    flis_real *p, *ds;            /* [panels][BLOCK][PANEL] */
    flis_real *q, *g;             /* [BLOCK][d_few]: a block's queries and their gradients */
    flis_real *sum_k, *sum_v;     /* [panels][d_few][PANEL]: d k and d v, transposed */
} attention_room;

static size_t attention_room_make(const attention_back *a, flis_real *base, attention_room *room)
{
    const size_t lanes = a->panels * a->d * PANEL, scores = a->panels * BLOCK * PANEL, slice = BLOCK * a->d_few;
    const size_t sums = a->panels * a->d_few * PANEL,
                 size[] = {
                     lanes, lanes, a->d_panels * a->panels * PANEL * PANEL, scores, scores, slice, slice, sums, sums,
                 };
    flis_real **part[] = {&room->k_lanes, &room->v_lanes, &room->k_rows, &room->p,    &room->ds,
                          &room->q,       &room->g,       &room->sum_k,  &room->sum_v};
    size_t used = 0;
    for (size_t i = 0; i < sizeof size / sizeof *size; i++) {
        if (base) *part[i] = base + used;
        used += size[i];
    }
    return used;
}

/* Keys and values of one head as panels; the sums set to zero. */
static void attention_pack(const attention_back *a, size_t n, size_t head, const attention_room *room)
{
    const flis_tensor *k = &a->node->x[1], *v = &a->node->x[2];
    const size_t c = k->c, d = a->d;
    for (size_t p = 0; p < a->panels; p++)
        for (size_t j = 0; j < PANEL; j++) {
            const size_t key = p * PANEL + j, from = (n * a->keys + key) * c + head * d;
            for (size_t i = 0; i < d; i++) {
                room->k_lanes[(p * d + i) * PANEL + j] = key < a->keys ? k->x[from + i] : 0;
                room->v_lanes[(p * d + i) * PANEL + j] = key < a->keys ? v->x[from + i] : 0;
            }
            for (size_t dp = 0; dp < a->d_panels; dp++)
                for (size_t i = 0; i < PANEL; i++)
                    room->k_rows[((dp * a->panels + p) * PANEL + j) * PANEL + i] =
                        key < a->keys && dp * PANEL + i < d ? k->x[from + dp * PANEL + i] : 0;
        }
    for (size_t i = 0; i < a->panels * a->d_few * PANEL; i++) room->sum_k[i] = room->sum_v[i] = 0;
}

/* What does not depend on the keys in a query's row of P and dS: its largest score, 1 / its sum, and D. */
typedef struct {
    double largest, over_sum;
    flis_real dot;
} attention_row;

/* Rows of one tile of scores (s, unscaled) and of g v^T (gv) become rows of P and dS. */
static void attention_tile(const attention_back *a, const attention_row *of, const flis_real *s, const flis_real *gv,
                           size_t n, size_t query, size_t rows, size_t key, flis_real *p, flis_real *ds)
{
    const flis_node *node = a->node;
    const flis_real scale = (flis_real)node->number;
    const size_t lanes = a->keys - key < PANEL ? a->keys - key : PANEL;
    for (size_t i = 0; i < rows; i++) {
        const uint8_t *attended = node->mask.attended ? node->mask.attended[n] : NULL;
        const double largest = of[i].largest, over_sum = of[i].over_sum;
        const flis_real dot = of[i].dot;
        flis_real *to = p + i * PANEL, *slope = ds + i * PANEL;
        flis_real score[PANEL], factor[PANEL]; /* factor: scale, or 0 where masked, for -max(real) is a constant */
        for (size_t j = 0; j < PANEL; j++) {
            score[j] = s[i * PANEL + j] * scale;
            factor[j] = scale;
        }
        for (size_t j = 0; (node->mask.causal || attended) && j < lanes; j++)
            if ((node->mask.causal && key + j > query + i) ||
                (attended && !attended[(query + i) * a->keys + key + j])) {
                score[j] = -REAL_MAX;
                factor[j] = 0;
            }
        for (size_t j = 0; j < PANEL; j++) {
            to[j] = (flis_real)(exp_real(score[j] - largest) * over_sum);
            slope[j] = to[j] * (gv[i * PANEL + j] - dot) * factor[j];
        }
        for (size_t j = lanes; j < PANEL; j++) to[j] = slope[j] = 0;
    }
}

/* P and dS of the `count` queries from `query` on, and what they add to d k and d v. */
static void attention_block(const attention_back *a, size_t n, size_t head, size_t query, size_t count,
                            const attention_room *room)
{
    const flis_tensor *q = &a->node->x[0];
    const size_t c = q->c, width = a->d_few;
    const flis_real *row[1][ROWS], *g = a->node->y.grad->x;
    flis_real s[ROWS * PANEL], gv[ROWS * PANEL];
    attention_row of[BLOCK];
    for (size_t i = 0; i < count; i++) {
        const size_t at = (n * a->queries + query + i) * c + head * a->d;
        const double *saved = (const double *)a->node->saved + ((n * a->heads + head) * a->queries + query + i) * 2;
        of[i] = (attention_row){saved[0], 1.0 / saved[1], (flis_real)row_dot(g + at, a->node->y.x + at, a->d)};
        for (size_t k = 0; k < width; k++) {
            room->q[i * width + k] = k < a->d ? q->x[at + k] : 0;
            room->g[i * width + k] = k < a->d ? g[at + k] : 0;
        }
    }
    for (size_t p = 0; p < a->panels; p++)
        for (size_t i = 0; i < count; i += ROWS) {
            const size_t rows = count - i < ROWS ? count - i : ROWS, at = (p * BLOCK + i) * PANEL;
            for (size_t k = 0; k < ROWS; k++) row[0][k] = k < rows ? room->q + (i + k) * width : a->zeros;
            tile_kernel(&a->over_d, (const flis_real *const(*)[ROWS])row, room->k_lanes + p * a->d * PANEL, s);
            for (size_t k = 0; k < ROWS; k++) row[0][k] = k < rows ? room->g + (i + k) * width : a->zeros;
            tile_kernel(&a->over_d, (const flis_real *const(*)[ROWS])row, room->v_lanes + p * a->d * PANEL, gv);
            attention_tile(a, of + i, s, gv, n, query + i, rows, p * PANEL, room->p + at, room->ds + at);
        }
    for (size_t p = 0; p < a->panels; p++) {
        columns(room->g, width, width, room->p + p * BLOCK * PANEL, count, room->sum_v + p * width * PANEL);
        columns(room->q, width, width, room->ds + p * BLOCK * PANEL, count, room->sum_k + p * width * PANEL);
    }
}

/* d q of a block: rows of dS times the keys. */
static void attention_queries(const attention_back *a, size_t n, size_t head, size_t query, size_t count,
                              const attention_room *room)
{
    const size_t c = a->node->y.c;
    const flis_real *row[1][ROWS];
    flis_real total[ROWS * PANEL];
    for (size_t i = 0; i < count; i += ROWS)
        for (size_t dp = 0; dp < a->d_panels; dp++) {
            const size_t lanes = a->d - dp * PANEL < PANEL ? a->d - dp * PANEL : PANEL;
            for (size_t k = 0; k < ROWS; k++) row[0][k] = room->ds + (i + k < count ? i + k : i) * PANEL;
            tile_kernel(&a->over_keys, (const flis_real *const(*)[ROWS])row,
                        room->k_rows + dp * a->panels * PANEL * PANEL, total);
            for (size_t k = 0; k < ROWS && i + k < count; k++) {
                flis_real *to = a->q + (n * a->queries + query + i + k) * c + head * a->d + dp * PANEL;
                for (size_t j = 0; j < lanes; j++) ACCUMULATE(to[j], a->first_q, total[k * PANEL + j]);
            }
        }
}

static void attention_head_back(const attention_back *a, size_t n, size_t head, const attention_room *room)
{
    const size_t c = a->node->y.c;
    attention_pack(a, n, head, room);
    for (size_t query = 0; query < a->queries; query += BLOCK) {
        const size_t count = a->queries - query < BLOCK ? a->queries - query : BLOCK;
        attention_block(a, n, head, query, count, room);
        if (a->q) attention_queries(a, n, head, query, count, room);
    }
    for (size_t key = 0; key < a->keys; key++)
        for (size_t i = 0; i < a->d; i++) {
            const size_t at = (n * a->keys + key) * c + head * a->d + i;
            const size_t from = (key / PANEL * a->d_few + i) * PANEL + key % PANEL;
            if (a->k) ACCUMULATE(a->k[at], a->first_k, room->sum_k[from]);
            if (a->v) ACCUMULATE(a->v[at], a->first_v, room->sum_v[from]);
        }
}

/* The plan of a dot product over keys that lie in panels: PANEL keys in a row of each, BLOCK rows apart. */
static bool plan_over_panels(flis_ctx *ctx, k_plan *plan, size_t panels)
{
    if (!plan_make(ctx, plan, panels, PANEL)) return false;
    for (size_t i = 0; i < plan->first[plan->blocks]; i++)
        plan->plan[i] = (segment){0, plan->plan[i].tap * BLOCK * PANEL + plan->plan[i].offset, plan->plan[i].length};
    return true;
}

static void attention_backward(flis_ctx *ctx, const flis_node *node)
{
    const flis_tensor *q = &node->x[0], *k = &node->x[1];
    const size_t d = q->c / node->count, keys = k->h * k->w, jobs = q->n * node->count;
    const size_t workers = (size_t)ctx->threads < jobs ? (size_t)ctx->threads : jobs;
    flis_mark mark = flis_here(ctx);
    attention_back a = {.node = node,
                        .heads = node->count,
                        .d = d,
                        .d_few = few_of(d),
                        .d_panels = panels_of(d),
                        .keys = keys,
                        .panels = panels_of(keys),
                        .queries = q->h * q->w};
    attention_room room;
    const size_t own = attention_room_make(&a, NULL, &room), width = a.d_few;
    flis_real *zeros = flis_scratch(ctx, width, sizeof *zeros), *work = flis_scratch(ctx, workers * own, sizeof *work);
    for (size_t i = 0; zeros && i < width; i++) zeros[i] = 0;
    a.zeros = zeros;
    a.q = grad_open(ctx, q, &a.first_q);
    a.k = grad_open(ctx, k, &a.first_k);
    a.v = grad_open(ctx, &node->x[2], &a.first_v);
    bool ready = plan_make(ctx, &a.over_d, 1, d);
    ready = plan_over_panels(ctx, &a.over_keys, a.panels) && ready;
    ctx->macs += (uint64_t)q->n * a.queries * keys * q->c * 5;
    if (ready) {
        PARALLEL_FOR(q->n * a.queries * keys * q->c / 8)
        for (size_t worker = 0; worker < workers; worker++) {
            attention_room mine = {0}; /* gcc without OpenMP takes it for uninitialized */
            attention_room_make(&a, work + worker * own, &mine);
            for (size_t job = worker; job < jobs; job += workers)
                attention_head_back(&a, job / node->count, job % node->count, &mine);
        }
    }
    flis_rewind(ctx, mark);
}
#endif

/* ---- The operation ---- */

static bool attention_fits(flis_ctx *ctx, const flis_tensor *q, const flis_tensor *k, const flis_tensor *v,
                           size_t heads)
{
    if (heads == 0 || q->c % heads)
        return flis_fail(ctx, "attention: got %zu channels for %zu heads, wanted a multiple", q->c, heads);
    if (k->c != q->c || v->c != q->c || k->n != q->n || v->n != q->n || k->h * k->w != v->h * v->w)
        return flis_fail(ctx, "attention: got keys [%zu,%zu,%zu] and values [%zu,%zu,%zu], wanted [%zu,t,%zu]", k->n,
                         k->h * k->w, k->c, v->n, v->h * v->w, v->c, q->n, q->c);
    if (flis_count(q) && !flis_count(k)) /* a softmax over nothing is 0 / 0 */
        return flis_fail(ctx, "attention: got 0 keys, wanted 1 or more");
    return true;
}

static void attention_run(flis_ctx *ctx, attention *a)
{
#ifndef FLIS_NAIVE
    if (!runs_definition(ctx)) {
        attention_fast(ctx, a);
        return;
    }
#endif
    flis_real *e = flis_scratch(ctx, a->keys, sizeof *e);
    if (idle(ctx)) return;
    for (size_t i = 0; i < a->q->n * a->heads * a->queries; i++)
        attention_definition(a, i / a->queries / a->heads, i / a->queries % a->heads, i % a->queries, e);
}

/* out[i] = (sum over j of e[j] v[j]) / (sum over j of e[j]), e[j] = exp((q[i] . k[j]) scale - largest), heads side by side
   in c. SPEC 1.11. */
flis_tensor *flis_attention(flis_ctx *ctx, const flis_tensor *q, const flis_tensor *k, const flis_tensor *v,
                            size_t heads, double scale, flis_mask mask)
{
    if (!READY(ctx, "attention", q, k, v) || !attention_fits(ctx, q, k, v, heads)) return NULL;
    flis_tensor *y = like(ctx, q);
    double *saved = NULL;
    flis_node *node = record(ctx, BACKWARD(attention_backward), y, q, k, v, NULL, NULL);
    if (node) {
        node->count = heads;
        node->number = scale;
        node->mask = mask;
        node->saved = saved = flis_scratch(ctx, q->n * heads * q->h * q->w * 2, sizeof *saved);
    }
    flis_mark mark = flis_here(ctx);
    attention a = {.q = operands(ctx, q),
                   .k = operands(ctx, k),
                   .v = operands(ctx, v),
                   .heads = heads,
                   .d = q->c / heads,
                   .queries = q->h * q->w,
                   .keys = k->h * k->w,
                   .scale = scale,
                   .mask = mask,
                   .precision = ctx->precision,
                   .y = y ? y->x : NULL,
                   .saved = saved};
    if (!a.q || !a.k || !a.v) return NULL;
    ctx->macs += (uint64_t)q->n * a.queries * a.keys * q->c * 2;
    attention_run(ctx, &a);
    flis_rewind(ctx, mark);
    return finished(ctx, y);
}

/* ---- An attention's insides, for the trace --------------------------------------------------------------------- */

/* [n][t][heads d] as [n heads][t][d]: the authors' rearrange(x, 'b n (h d) -> (b h) n d'). */
static void trace_heads(flis_ctx *ctx, const flis_tensor *x, size_t heads, const char *name, const char *part)
{
    const size_t tokens = x->h * x->w, d = x->c / heads;
    if (!flis_trace_wants(ctx, flis_count(x), "%s%s", name, part)) return;
    flis_mark mark = flis_here(ctx);
    flis_tensor *y = flis_rows(ctx, x->n * heads, tokens, d);
    for (size_t i = 0; y && i < x->n * heads * tokens; i++) {
        const size_t n = i / tokens / heads, head = i / tokens % heads, t = i % tokens;
        memcpy(y->x + i * d, x->x + (n * tokens + t) * x->c + head * d, d * sizeof(flis_real));
    }
    flis_trace(ctx, y, "%s%s", name, part);
    flis_rewind(ctx, mark);
}

static void trace_mask(flis_ctx *ctx, const flis_mask *mask, size_t n, size_t queries, size_t keys, const char *name)
{
    bool any = false;
    for (size_t i = 0; mask->attended && i < n; i++) any = any || mask->attended[i];
    if (!any || !flis_trace_wants(ctx, n * queries * keys, "%s.mask", name)) return;
    flis_mark mark = flis_here(ctx);
    flis_tensor *y = n == 1 ? flis_vectors(ctx, queries, keys) : flis_rows(ctx, n, queries, keys);
    for (size_t i = 0; y && i < n * queries * keys; i++) {
        const uint8_t *attended = mask->attended[i / (queries * keys)];
        y->x[i] = attended ? attended[i % (queries * keys)] : 1;
    }
    if (y) y->bytes = true;
    flis_trace(ctx, y, "%s.mask", name);
    flis_rewind(ctx, mark);
}

#ifndef FLIS_NAIVE
/* scores_definition, vectorised across keys. k_transposed [d][keys]. */
static void scores_row(const flis_real *q, const flis_real *k_transposed, size_t d, size_t keys, flis_real scale,
                       flis_precision precision, flis_real *out)
{
    enum { WIDE = 64 };
    for (size_t key = 0; key < keys; key += WIDE) {
        const size_t lanes = keys - key < WIDE ? keys - key : WIDE;
        flis_real total[WIDE] = {0};
        for (size_t first = 0; first < d; first += BLOCK) {
            const size_t last = d - first < BLOCK ? d : first + BLOCK;
            flis_real sum[WIDE] = {0};
            for (size_t k = first; k < last; k++)
                for (size_t j = 0; j < lanes; j++) sum[j] = fused(q[k], k_transposed[k * keys + key + j], sum[j]);
            for (size_t j = 0; j < lanes; j++) total[j] += sum[j];
        }
        for (size_t j = 0; j < lanes; j++) out[key + j] = stored(stored(total[j], precision) * scale, precision);
    }
}

static void scores_fast(flis_ctx *ctx, const attention *a, flis_real *out)
{
    const size_t c = a->q->c, d = a->d;
    flis_real *transposed = flis_scratch(ctx, flis_count(a->k), sizeof *transposed);
    if (!transposed) return;
    transpose(ctx, a->k, transposed);
    PARALLEL_FOR(a->q->n * a->heads * a->queries * a->keys)
    for (size_t i = 0; i < a->q->n * a->heads * a->queries; i++) {
        const size_t n = i / a->queries / a->heads, head = i / a->queries % a->heads, query = i % a->queries;
        scores_row(a->q->x + (n * a->queries + query) * c + head * d, transposed + (n * c + head * d) * a->keys, d,
                   a->keys, (flis_real)a->scale, a->precision, out + i * a->keys);
    }
}
#endif

/* [n heads][queries][keys], before the mask. */
static flis_tensor *attention_scores(flis_ctx *ctx, const attention *a)
{
    flis_tensor *y = flis_rows(ctx, a->q->n * a->heads, a->queries, a->keys);
    if (!y) return NULL;
#ifndef FLIS_NAIVE
    if (!runs_definition(ctx)) {
        scores_fast(ctx, a, y->x);
        return y;
    }
#endif
    for (size_t i = 0; i < a->q->n * a->heads * a->queries; i++)
        scores_definition(a, i / a->queries / a->heads, i / a->queries % a->heads, i % a->queries, y->x + i * a->keys);
    return y;
}

/* A query's scores become e[j] / sum of e, both as in the attention. */
static void weights_row(const attention *a, size_t n, size_t query, flis_real *score)
{
    const double sum = softmax_definition(a, n, query, score);
    for (size_t j = 0; j < a->keys; j++) score[j] = stored((flis_real)(score[j] / sum), a->precision);
}

/* What flis_attention computes inside, computed again for the trace. SPEC 10.12. */
void flis_trace_attention(flis_ctx *ctx, const flis_tensor *q, const flis_tensor *k, const flis_tensor *v, size_t heads,
                          double scale, flis_mask mask, const char *name)
{
    if (!ctx->trace_wants || !READY(ctx, "attention", q, k, v) || idle(ctx) || !attention_fits(ctx, q, k, v, heads))
        return;
    const size_t queries = q->h * q->w, keys = k->h * k->w, rows = q->n * heads * queries;
    trace_heads(ctx, q, heads, name, ".q");
    trace_heads(ctx, k, heads, name, ".k");
    trace_heads(ctx, v, heads, name, ".v");
    const bool scores = flis_trace_wants(ctx, rows * keys, "%s.scores", name);
    const bool weights = flis_trace_wants(ctx, rows * keys, "%s.weights", name);
    const flis_mark mark = flis_here(ctx);
    const bool wanted = scores || weights;
    const attention a = {.q = wanted ? operands(ctx, q) : NULL,
                         .k = wanted ? operands(ctx, k) : NULL,
                         .heads = heads,
                         .d = q->c / heads,
                         .queries = queries,
                         .keys = keys,
                         .scale = scale,
                         .mask = mask,
                         .precision = ctx->precision};
    flis_tensor *y = a.q && a.k ? attention_scores(ctx, &a) : NULL;
    if (scores) flis_trace(ctx, y, "%s.scores", name);
    trace_mask(ctx, &mask, q->n, queries, keys, name);
    if (weights && y) {
        PARALLEL_FOR(rows * keys)
        for (size_t i = 0; i < rows; i++) weights_row(&a, i / queries / heads, i % queries, y->x + i * keys);
        flis_trace(ctx, y, "%s.weights", name);
    }
    flis_rewind(ctx, mark);
}

/* ---- Fused operations, split when tracing ---------------------------------------------------------------------- */

/* silu(group norm(x)); the trace sees the norm. SPEC 10.12. */
flis_tensor *flis_norm_silu(flis_ctx *ctx, const flis_tensor *x, const flis_param *weight, const flis_param *bias,
                            double eps, const char *name, const char *part)
{
    flis_tensor *y = flis_group_norm(ctx, x, weight, bias, eps, !ctx->trace);
    if (!ctx->trace) return y;
    flis_trace(ctx, y, "%s%s", name, part);
    return flis_silu(ctx, y);
}

/* conv(x) + add; the trace sees the convolution. SPEC 10.12. */
flis_tensor *flis_conv_add(flis_ctx *ctx, const flis_tensor *x, const flis_param *w, const flis_param *b,
                           const flis_tensor *add, const char *name, const char *part)
{
    if (!ctx->trace) return flis_conv(ctx, x, w, b, FLIS_SAME, add);
    flis_tensor *y = flis_conv(ctx, x, w, b, FLIS_SAME, NULL);
    flis_trace(ctx, y, "%s%s", name, part);
    return flis_add(ctx, y, add);
}

/* ---- Losses ---------------------------------------------------------------------------------------------------- */

/* A loss seeds the gradient of its argument at once. The loops are the equations, and so their own definitions; a sum over
   all values is taken in 16 lanes, as over a row of layer norm. */

static bool loss_ready(flis_ctx *ctx, const char *op, const flis_tensor *y)
{
    return READY(ctx, op, y) && !idle(ctx) && flis_count(y);
}

/* L = mean of w (y - t)^2; so d y += 2 w (y - t) / count. absolute: L = mean of w |y - t|; so d y += w sign(y - t) / count. */
static double distance(flis_ctx *ctx, const flis_tensor *y, const flis_real *target, const flis_real *weight,
                       double scale, bool absolute)
{
    if (!loss_ready(ctx, "loss", y) || !READY(ctx, "loss", y, target)) return 0;
    const size_t count = flis_count(y), c = y->c;
    const double step = scale / (double)count;
    double lane[LANES] = {0};
    bool first = false;
    flis_real *grad = grad_open(ctx, y, &first);
    for (size_t i = 0; i < count; i++) {
        const double w = weight ? weight[i / c] : 1.0, d = (double)y->x[i] - target[i];
        lane[i % LANES] += absolute ? w * fabs(d) : w * d * d;
        if (grad) ACCUMULATE(grad[i], first, (flis_real)(absolute ? step * w * ((d > 0) - (d < 0)) : 2 * step * w * d));
    }
    return lanes_total(lane) / (double)count;
}

/* Mean of w (y - t)^2. SPEC 14.6. */
double flis_mse(flis_ctx *ctx, const flis_tensor *y, const flis_real *target, const flis_real *weight, double scale)
{
    return distance(ctx, y, target, weight, scale, false);
}

/* Mean of w |y - t|. SPEC 14.6. */
double flis_l1(flis_ctx *ctx, const flis_tensor *y, const flis_real *target, const flis_real *weight, double scale)
{
    return distance(ctx, y, target, weight, scale, true);
}

/* L = mean over positions of log sum_c exp(y[c]) - y[label]; so d y[c] += (softmax(y)[c] - (c == label)) / positions. The
   largest y is subtracted before exp, which changes nothing but overflow. SPEC 14.6. */
double flis_cross_entropy(flis_ctx *ctx, const flis_tensor *y, const uint8_t *label, int void_label, double scale)
{
    if (!loss_ready(ctx, "cross entropy", y) || !READY(ctx, "cross entropy", y, label)) return 0;
    const size_t positions = y->n * y->h * y->w, c = y->c;
    size_t counted = 0;
    for (size_t i = 0; i < positions; i++) {
        if (label[i] == void_label) continue;
        counted++;
        if (label[i] < c) continue;
        flis_fail(ctx, "cross entropy: position %zu: got label %u, wanted 0 to %zu", i, (unsigned)label[i], c - 1);
        return 0;
    }
    double total = 0;
    bool first = false;
    flis_real *grad = grad_open(ctx, y, &first);
    for (size_t i = 0; i < positions; i++) {
        const flis_real *in = y->x + i * c;
        const bool counts = label[i] != void_label;
        double largest = in[0], sum = 0;
        for (size_t k = 1; k < c; k++) largest = in[k] > largest ? in[k] : largest;
        for (size_t k = 0; k < c; k++) sum += flis_exp(in[k] - largest);
        if (counts) total += flis_log(sum) + largest - in[label[i]];
        for (size_t k = 0; grad && k < c; k++) {
            const double slope = flis_exp(in[k] - largest) / sum - (k == label[i]);
            ACCUMULATE(grad[i * c + k], first, (flis_real)(counts ? scale / (double)counted * slope : 0));
        }
    }
    return counted ? total / (double)counted : 0;
}

static const double LOG_VARIANCE_LEAST = -30, LOG_VARIANCE_MOST = 20;

/* The log variance, clamped; *is_free: it is within the limits, so that it has a gradient. */
static double log_variance(flis_real x, bool *is_free)
{
    *is_free = !(x < LOG_VARIANCE_LEAST || x > LOG_VARIANCE_MOST);
    return x < LOG_VARIANCE_LEAST ? LOG_VARIANCE_LEAST : x > LOG_VARIANCE_MOST ? LOG_VARIANCE_MOST : x;
}

/* L = 1/2 sum of (m^2 + e^l - 1 - l) / n; so d m += m / n, d l += (e^l - 1) / 2n. SPEC 14.6. */
double flis_kl(flis_ctx *ctx, const flis_tensor *moments, double scale)
{
    if (!READY(ctx, "KL", moments) || !loss_ready(ctx, "KL", moments)) return 0;
    const size_t positions = moments->n * moments->h * moments->w, c = moments->c, z = c / 2;
    const double step = scale / (double)moments->n;
    double total = 0;
    bool first = false, is_free;
    flis_real *grad = grad_open(ctx, moments, &first);
    for (size_t i = 0; i < positions; i++)
        for (size_t k = 0; k < z; k++) {
            const double m = moments->x[i * c + k], l = log_variance(moments->x[i * c + z + k], &is_free),
                         variance = flis_exp(l);
            total += 0.5 * (m * m + variance - 1 - l);
            if (!grad) continue;
            ACCUMULATE(grad[i * c + k], first, (flis_real)(step * m));
            ACCUMULATE(grad[i * c + z + k], first, (flis_real)(is_free ? step * 0.5 * (variance - 1) : 0));
        }
    return total / (double)moments->n;
}

/* In the forward pass z = m + e^(l/2) noise; so d m += g, d l += g noise e^(l/2) / 2. */
static void posterior_backward(flis_ctx *ctx, const flis_node *node)
{
    const flis_tensor *moments = &node->x[0], *noise = &node->x[1];
    const size_t positions = moments->n * moments->h * moments->w, c = moments->c, z = c / 2;
    const flis_real *g = node->y.grad->x;
    bool first = false, is_free;
    flis_real *grad = grad_open(ctx, moments, &first);
    for (size_t i = 0; grad && i < positions; i++)
        for (size_t k = 0; k < z; k++) {
            const double l = log_variance(moments->x[i * c + z + k], &is_free);
            ACCUMULATE(grad[i * c + k], first, g[i * z + k]);
            ACCUMULATE(grad[i * c + z + k], first,
                       (flis_real)(is_free ? 0.5 * (double)g[i * z + k] * noise->x[i * z + k] * flis_exp(0.5 * l) : 0));
        }
}

/* z = m + e^(l/2) noise: a sample of the encoder's distribution. SPEC 14.6. */
flis_tensor *flis_posterior_sample(flis_ctx *ctx, const flis_tensor *moments, const flis_tensor *noise)
{
    if (!READY(ctx, "posterior", moments, noise)) return NULL;
    flis_tensor shape = *moments;
    shape.c /= 2;
    if (moments->c % 2 || !same_shape(ctx, "posterior: moments' half and noise", &shape, noise)) return NULL;
    flis_tensor *y = like(ctx, &shape);
    record(ctx, posterior_backward, y, moments, noise, NULL, NULL, NULL);
    if (!y || idle(ctx)) return y;
    const size_t positions = y->n * y->h * y->w, z = y->c;
    bool is_free;
    for (size_t i = 0; i < positions; i++)
        for (size_t k = 0; k < z; k++) {
            const double l = log_variance(moments->x[i * 2 * z + z + k], &is_free);
            y->x[i * z + k] = (flis_real)(moments->x[i * 2 * z + k] + flis_exp(0.5 * l) * noise->x[i * z + k]);
        }
    return y;
}

/* ---- Weights: key tables, loading, packing --------------------------------------------------------------------- */

/* The size that a shape's letter stands for: a digit itself, else from the pairs letter, size. SPEC 10.5. */
static size_t letter_size(const size_t *dims, char letter)
{
    if (letter >= '1' && letter <= '9') return (size_t)(letter - '0');
    for (; *dims; dims += 2)
        if (*dims == (size_t)letter) return dims[1];
    return 0;
}

/* Letters of a shape become sizes; the visitor sees each weight in the table's order. SPEC 10.3. */
bool flis_walk_keys(flis_ctx *ctx, flis_walk *walk, const char *module, const flis_key *keys, size_t count, void *base,
                    const size_t *dims)
{
    if (!READY(ctx, "list of weights", walk, module, keys, base, dims)) return false;
    for (size_t i = 0; i < count && flis_ok(ctx); i++) {
        char name[sizeof walk->prefix + 256];
        flis_param *param = (flis_param *)(void *)((unsigned char *)base + keys[i].offset);
        const char *shape = keys[i].shape;
        param->table = *shape == '=';
        if (param->table) shape++;
        param->rank = (int)strlen(shape);
        for (int k = 0; k < param->rank; k++) param->shape[k] = letter_size(dims, shape[k]);
        snprintf(name, sizeof name, "%s%s%s", walk->prefix, module, keys[i].name);
        if (!walk->visit(ctx, walk->user, name, param)) return false;
    }
    return flis_ok(ctx);
}

/* ALIGNed memory from malloc; the address to free is stored just before it. */
static void *aligned_new(flis_ctx *ctx, size_t count, size_t size)
{
    if (count > (SIZE_MAX - ALIGN - sizeof(void *)) / size) {
        flis_fail(ctx, "out of memory: %zu weights are more than this machine can address", count);
        return NULL;
    }
    unsigned char *base = malloc(count * size + ALIGN + sizeof(void *));
    if (!base) {
        flis_fail(ctx, "out of memory: wanted %zu bytes more for weights", count * size);
        return NULL;
    }
    unsigned char *p = base + sizeof(void *);
    p += (ALIGN - (uintptr_t)p % ALIGN) % ALIGN;
    memcpy(p - sizeof(void *), &base, sizeof(void *));
    return p;
}

static void aligned_free(void *x)
{
    void *base;
    if (!x) return;
    memcpy(&base, (unsigned char *)x - sizeof(void *), sizeof(void *));
    free(base);
}

static size_t param_count(const flis_param *param)
{
    size_t count = 1;
    for (int i = 0; i < param->rank; i++) count *= param->shape[i];
    return count;
}

static bool multiplies(const flis_param *param)
{
    return param->rank >= 2 && !param->table;
}

#ifdef FLIS_NAIVE
/* Where w[o][ci][tap] is: in the checkpoint's order. */
static size_t weight_index(const flis_param *w, size_t o, size_t ci, size_t tap)
{
    const size_t taps = w->rank == 4 ? w->shape[2] * w->shape[3] : 1;
    return (o * w->shape[1] + ci) * taps + tap;
}

static size_t packed_count(const flis_param *param)
{
    return param_count(param);
}

#define PACK(param, values, packed, type) memcpy(packed, values, param_count(param) * sizeof(type))
#else
/* Where w[o][ci][tap] is in packed[p][k][j], the panel p of the outputs p * PANEL + j at k = tap * channels + ci. */
static size_t weight_index(const flis_param *w, size_t o, size_t ci, size_t tap)
{
    const size_t channels = w->shape[1], taps = w->rank == 4 ? w->shape[2] * w->shape[3] : 1;
    return ((o / PANEL * taps + tap) * channels + ci) * PANEL + o % PANEL;
}

static size_t packed_count(const flis_param *param)
{
    return param->shape[0] ? panels_of(param->shape[0]) * PANEL * (param_count(param) / param->shape[0]) : 0;
}

/* packed[p][k][j] = value of output p * PANEL + j at k = (kh, kw, ci); lanes beyond the last output are zero. Both for
   reals and for halves. */
#define PACK(param, values, packed, type) \
    do { \
        const size_t outputs = (param)->shape[0], channels = (param)->shape[1]; \
        const size_t taps = (param)->rank == 4 ? (param)->shape[2] * (param)->shape[3] : 1, inner = channels * taps; \
        for (size_t p = 0; p < panels_of(outputs); p++) \
            for (size_t j = 0; j < PANEL; j++) { \
                const size_t o = p * PANEL + j; \
                type *to = (packed) + p * inner * PANEL + j; \
                for (size_t tap = 0; tap < taps; tap++) \
                    for (size_t ci = 0; ci < channels; ci++, to += PANEL) \
                        *to = o < outputs ? (values)[(o * channels + ci) * taps + tap] : 0; \
            } \
    } while (0)
#endif

/* True if products can use the weight as it is stored. */
static bool can_multiply(const flis_param *w)
{
#ifdef FLIS_NAIVE
    return w->value || w->half || w->entry;
#else
    return w->packed || w->half || w->entry;
#endif
}

/* values: in the checkpoint's order; matrices and kernels are packed for products. SPEC 10.3. */
bool flis_param_set(flis_ctx *ctx, flis_param *param, const flis_real *values, bool keep_unpacked)
{
    if (!READY(ctx, "weight", param, values)) return false;
    param->entry = NULL;
#ifdef FLIS_NAIVE
    keep_unpacked = true;
#else
    if (multiplies(param)) {
        if (!param->packed) param->packed = aligned_new(ctx, packed_count(param), sizeof(flis_real));
        if (param->packed) PACK(param, values, param->packed, flis_real);
    }
#endif
    if (!multiplies(param) || keep_unpacked) {
        if (!param->value) param->value = aligned_new(ctx, param_count(param), sizeof(flis_real));
        if (param->value) memcpy(param->value, values, param_count(param) * sizeof *values);
    }
    return flis_ok(ctx);
}

/* The product of the shape's sizes. SPEC 14.3. */
size_t flis_param_count(const flis_param *param)
{
    return param_count(param);
}

/* The values of a weight that stays in its file; NaN where it cannot be read. */
static void param_get_from_file(const flis_param *param, flis_real *out)
{
    flis_ctx own = FLIS_CTX_PLAIN;
    const size_t count = param_count(param);
    const unsigned char *bytes = flis_file_bytes(&own, param->file, param->entry);
    if (bytes) values_from(bytes, param->entry->dtype, count, out);
    for (size_t i = 0; !bytes && i < count; i++) out[i] = (flis_real)NAN;
    flis_free(&own);
}

/* Undoes the packing; halves are widened. SPEC 14.3. */
void flis_param_get(const flis_param *param, flis_real *out)
{
    const size_t count = param_count(param);
    if (param->entry) {
        param_get_from_file(param, out);
        return;
    }
    if (param->value || !multiplies(param)) {
        if (param->value) memcpy(out, param->value, count * sizeof *out);
        return;
    }
    const size_t channels = param->shape[1], taps = count / (param->shape[0] * channels), inner = channels * taps;
    for (size_t i = 0; i < count; i++)
        out[i] = can_multiply(param) ? weight_at(param, NULL, i / inner, i / taps % channels, i % taps, FLIS_EXACT) : 0;
}

/* The same for values that stay F16 or BF16: half the memory. SPEC 10.3. */
bool flis_param_set_half(flis_ctx *ctx, flis_param *param, const uint16_t *values, bool bf16)
{
    if (!READY(ctx, "weight", param, values)) return false;
    param->entry = NULL;
    param->half_is_bf16 = bf16;
    if (!param->half) param->half = aligned_new(ctx, packed_count(param), sizeof(uint16_t));
    if (param->half) PACK(param, values, param->half, uint16_t);
    return flis_ok(ctx);
}

/* A visitor that counts. SPEC 10.3. */
bool flis_count_visit(flis_ctx *ctx, void *count, const char *name, flis_param *param)
{
    (void)name;
    (void)param;
    ++*(size_t *)count;
    return flis_ok(ctx);
}

/* A visitor that frees what flis_param_set and flis_param_train allocated. SPEC 10.3. */
bool flis_free_visit(flis_ctx *ctx, void *unused, const char *name, flis_param *param)
{
    (void)ctx;
    (void)unused;
    (void)name;
    aligned_free(param->value);
    aligned_free(param->packed);
    aligned_free(param->half);
    aligned_free(param->grad);
    param->grad = param->value = param->packed = NULL;
    param->half = NULL;
    param->entry = NULL;
    param->file = NULL;
    return true;
}

/* round(log2(sqrt(3 / fan_in))): the e with 2^(2e-1) <= 3 / fan_in < 2^(2e+1), found by comparing integers, which is
   exact. 3 / fan_in = 2^(2e-1), at fan_in 6, 24, 96, …, is a tie, which is rounded to the even e. SPEC 11.1. */
static int formula_exponent(uint64_t fan_in)
{
    int e = 0;
    if (fan_in <= 1) return 1;
    while ((uint64_t)6 << -2 * e < fan_in) e--;
    return (uint64_t)6 << -2 * e == fan_in && e % 2 ? e - 1 : e;
}

/* Value i of the tensor `name`: FNV-1a-64 of the name, splitmix64 of the index, scaled by its shape; the equations are in
   flis.h. SPEC 11.1. */
void flis_formula_weights(const char *name, int rank, const size_t *shape, size_t first, size_t count, flis_real *out)
{
    uint64_t hash = 0xcbf29ce484222325u, fan_in = 1;
    for (const char *p = name; *p; p++) hash = (hash ^ (unsigned char)*p) * 0x100000001b3u;
    for (int i = 1; i < rank; i++) fan_in *= shape[i];
    const size_t length = strlen(name);
    const bool is_norm_weight = rank == 1 && length >= 6 && strcmp(name + length - 6, "weight") == 0;
    const double scale = rank >= 2 ? ldexp(1.0, formula_exponent(fan_in)) : is_norm_weight ? 0x1p-4 : 0x1p-6;
    for (size_t i = 0; i < count; i++) {
        uint64_t z = hash + ((uint64_t)(first + i) + 1) * 0x9E3779B97F4A7C15u;
        z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
        z = (z ^ z >> 27) * 0x94D049BB133111EBu;
        z ^= z >> 31;
        double u = ((double)(z >> 40) - 8388608.0) * 0x1p-23;
        out[i] =
            (float)((is_norm_weight ? 1.0 : 0.0) + u * scale); /* 1 + u / 16 needs 28 bits: rounded, in flis64 too */
    }
}

/* A visitor that fills a model with formula weights. SPEC 11.1. */
bool flis_formula_visit(flis_ctx *ctx, void *unused, const char *name, flis_param *param)
{
    (void)unused;
    const size_t count = param_count(param);
    flis_real *values = flis_alloc(ctx, count, sizeof *values);
    if (values) {
        flis_formula_weights(name, param->rank, param->shape, 0, count, values);
        flis_param_set(ctx, param, values, false);
    }
    free(values);
    return flis_ok(ctx);
}

/* ---- Weights in training ---------------------------------------------------------------------------------------- */

/* PACK in the order of the panels, so that each is written from one end to the other: twice as fast. SPEC 14.7. */
void flis_param_repack(flis_param *param)
{
#ifdef FLIS_NAIVE
    (void)param;
#else
    if (!multiplies(param)) return;
    const size_t outputs = param->shape[0], channels = param->shape[1], inner = param_count(param) / outputs,
                 taps = inner / channels;
    for (size_t o = 0; o < outputs; o += PANEL) {
        const flis_real *from[PANEL];
        const size_t lanes = outputs - o < PANEL ? outputs - o : PANEL;
        flis_real *to = param->packed + o * inner;
        for (size_t j = 0; j < PANEL; j++) from[j] = param->value + (o + (j < lanes ? j : 0)) * inner;
        for (size_t tap = 0; tap < taps; tap++)
            for (size_t ci = 0; ci < channels; ci++, to += PANEL) {
                for (size_t j = 0; j < PANEL; j++) to[j] = from[j][ci * taps + tap];
                for (size_t j = lanes; j < PANEL; j++) to[j] = 0;
            }
    }
#endif
}

/* Values unpacked beside the panels, both as reals. */
static bool master_make(flis_ctx *ctx, flis_param *param)
{
    if (!param->value && !can_multiply(param)) return flis_fail(ctx, "training: the weights were not loaded");
    if (param->value && (param->packed || !multiplies(param))) return true;
    const flis_mark mark = flis_here(ctx);
    const unsigned char *bytes = param->entry ? flis_file_bytes(ctx, param->file, param->entry) : NULL;
    if (bytes) fail_bad(ctx, param, bytes);
    flis_rewind(ctx, mark);
    flis_real *values = flis_alloc(ctx, param_count(param), sizeof *values);
    if (values) {
        flis_param_get(param, values);
        flis_param_set(ctx, param, values, true);
        aligned_free(param->half);
        param->half = NULL;
    }
    free(values);
    return flis_ok(ctx);
}

/* Real values beside the panels, and a gradient for each worker, zero. SPEC 14.7. */
bool flis_param_train(flis_ctx *ctx, flis_param *param, size_t workers)
{
    if (!READY(ctx, "training", param) || !master_make(ctx, param)) return false;
    const size_t count = param_count(param) * workers;
    if (!param->grad && (param->grad = aligned_new(ctx, count, sizeof *param->grad)))
        for (size_t i = 0; i < count; i++) param->grad[i] = 0;
    return flis_ok(ctx);
}
