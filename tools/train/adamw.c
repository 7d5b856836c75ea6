/* adamw.c - the optimiser: AdamW (Loshchilov & Hutter 2019, Decoupled Weight Decay Regularization, algorithm 2) on the gradients
 * that the library accumulated; clipping of their norm, moving averages of the weights, the state in a file.
 *
 * A loop's unit of work is a whole weight, which one thread updates, so no bit depends on the number of threads.
 */
#include "tools/train/adamw.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#ifdef _OPENMP
#define PRAGMA(text) _Pragma(#text)
#define PARALLEL_FOR(values) PRAGMA(omp parallel for num_threads(ctx->threads) schedule(dynamic) if ((values) > 32768))
#else
#define PARALLEL_FOR(values) (void)(values);
#endif

/* SPEC 14.7. */
void training_default(training *t)
{
    memset(t, 0, sizeof *t);
    t->rate = 1e-4;
    t->beta1 = 0.9;
    t->beta2 = 0.999;
    t->eps = 1e-8;
    t->decay = 0.01;
    t->workers = 1;
}

/* Number of values in training: the work of an update's loops. */
static size_t training_size(const training *t)
{
    size_t size = 0;
    for (size_t i = 0; i < t->count; i++) size += flis_param_count(t->item[i].param);
    return size;
}

static void weight_free(trained_weight *w)
{
    free(w->name);
    free(w->m);
    free(w->v);
    free(w->ema);
}

/* SPEC 14.7. */
bool training_visit(flis_ctx *ctx, void *user, const char *name, flis_param *param)
{
    training *t = user;
    const size_t count = flis_param_count(param);
    if (!flis_poll(ctx) || !flis_param_train(ctx, param, t->workers)) return false;
    if (t->count == t->room) {
        const size_t room = t->room ? 2 * t->room : 256;
        trained_weight *grown = realloc(t->item, room * sizeof *grown);
        if (!grown) return flis_fail(ctx, "out of memory: a list of %zu weights", room);
        t->item = grown;
        t->room = room;
    }
    trained_weight w = {flis_alloc(ctx, strlen(name) + 1, 1), param, flis_alloc(ctx, count, sizeof *w.m),
                        flis_alloc(ctx, count, sizeof *w.v), t->ema > 0 ? flis_alloc(ctx, count, sizeof *w.ema) : NULL};
    if (flis_ok(ctx)) {
        strcpy(w.name, name);
        if (w.ema) memcpy(w.ema, param->value, count * sizeof *w.ema);
        t->item[t->count++] = w;
        return true;
    }
    weight_free(&w);
    return false;
}

/* SPEC 14.7. */
void training_free(training *t)
{
    for (size_t i = 0; i < t->count; i++) weight_free(&t->item[i]);
    free(t->item);
    t->item = NULL;
    t->count = t->room = 0;
}

/* SPEC 14.7. */
void training_zero(training *t)
{
    for (size_t i = 0; i < t->count; i++)
        memset(t->item[i].param->grad, 0, flis_param_count(t->item[i].param) * t->workers * sizeof(flis_real));
}

/* Adds what the other workers accumulated to the first one's gradients, worker by worker: g = ((g0 + g1) + g2) + … */
static void join_workers(flis_ctx *ctx, const training *t)
{
    const size_t workers = t->workers;
    (void)ctx;
    if (workers == 1) return;
    PARALLEL_FOR(training_size(t))
    for (size_t i = 0; i < t->count; i++) {
        const size_t count = flis_param_count(t->item[i].param);
        flis_real *restrict sum = t->item[i].param->grad, *restrict g = sum + count;
        for (size_t h = 1; h < workers; h++, g += count)
            for (size_t k = 0; k < count; k++) sum[k] += g[k], g[k] = 0;
    }
}

/* base^n by squaring: the same bits everywhere, which libm's pow does not promise. */
static double power(double base, uint64_t n)
{
    double result = 1;
    for (; n; n >>= 1, base *= base)
        if (n & 1) result *= base;
    return result;
}

/* Sum of x[k]^2 in double: sixteen interleaved sums, then the upper half of them is added to the lower half until one is left. The
   order of additions is part of the bits. SPEC 1.10. */
static double sum_of_squares(const flis_real *x, size_t count)
{
    enum { LANES = 16 };
    double lane[LANES] = {0};
    for (size_t k = 0; k < count; k++) lane[k % LANES] += (double)x[k] * (double)x[k];
    for (size_t step = LANES / 2; step > 0; step /= 2)
        for (size_t j = 0; j < step; j++) lane[j] += lane[j + step];
    return lane[0];
}

/* The norm of all gradients as one vector: the squares of each weight are summed, then those sums in the order of the weights. */
static double gradient_norm(flis_ctx *ctx, const training *t, double *squares)
{
    double total = 0;
    (void)ctx;
    PARALLEL_FOR(training_size(t))
    for (size_t i = 0; i < t->count; i++) {
        const flis_param *p = t->item[i].param;
        squares[i] = sum_of_squares(p->grad, flis_param_count(p));
    }
    for (size_t i = 0; i < t->count; i++) total += squares[i];
    return sqrt(total);
}

/* Factors that all values of one update share: keep = 1 - rate decay, rest = 1 - beta, rate: over 1 - beta1^step,
   root2 = sqrt(1 - beta2^step), ema = 1 - d. */
typedef struct {
    flis_real keep, beta1, beta2, rest1, rest2, rate, root2, eps, ema, clip;
} update;

/* In this order, per value, with g scaled by `clip` first:
     m = beta1 m + (1 - beta1) g;  v = beta2 v + (1 - beta2) g g
     p = p (1 - rate decay) - rate / (1 - beta1^step) m / (sqrt(v) / sqrt(1 - beta2^step) + eps)
     ema = ema - (1 - d)(ema - p) */
static void update_weight(const update *u, trained_weight *w)
{
    const size_t count = flis_param_count(w->param);
    flis_real *restrict p = w->param->value, *restrict m = w->m, *restrict v = w->v, *restrict g = w->param->grad,
                        *ema = w->ema;
    for (size_t i = 0; i < count; i++) {
        const flis_real grad = g[i] * u->clip;
        m[i] = m[i] * u->beta1 + grad * u->rest1;
        v[i] = v[i] * u->beta2 + grad * grad * u->rest2;
#ifdef FLIS_DOUBLE
        const flis_real root = sqrt(v[i]);
#else
        const flis_real root = sqrtf(v[i]);
#endif
        p[i] = p[i] * u->keep - u->rate * (m[i] / (root / u->root2 + u->eps));
        g[i] = 0;
    }
    for (size_t i = 0; ema && i < count; i++) ema[i] -= u->ema * (ema[i] - p[i]);
    flis_param_repack(w->param);
}

/* d = min(ema, (1 + step) / (10 + step)); clip = min(1, clip / (norm + 1e-6)), as torch.nn.utils.clip_grad_norm_. SPEC 14.7. */
bool training_step(flis_ctx *ctx, training *t)
{
    double *squares = flis_alloc(ctx, t->count, sizeof *squares);
    if (!squares) return false;
    join_workers(ctx, t);
    t->norm = gradient_norm(ctx, t, squares);
    for (size_t i = 0; i < t->count && flis_ok(ctx); i++)
        if (!(squares[i] <= DBL_MAX))
            flis_fail(ctx, "%s: step %llu: the gradient is not finite", t->item[i].name,
                      (unsigned long long)t->step + 1);
    free(squares);
    if (!flis_ok(ctx)) return false;
    const uint64_t step = ++t->step;
    const double most = (1.0 + (double)step) / (10.0 + (double)step), ema = t->ema < most ? t->ema : most;
    const double clip = t->clip > 0 ? t->clip / (t->norm + 1e-6) : 1.0;
    const update u = {
        .keep = (flis_real)(1 - t->rate * t->decay),
        .beta1 = (flis_real)t->beta1,
        .beta2 = (flis_real)t->beta2,
        .rest1 = (flis_real)(1 - t->beta1),
        .rest2 = (flis_real)(1 - t->beta2),
        .rate = (flis_real)(t->rate / (1 - power(t->beta1, step))),
        .root2 = (flis_real)sqrt(1 - power(t->beta2, step)),
        .eps = (flis_real)t->eps,
        .ema = (flis_real)(1 - ema),
        .clip = (flis_real)(clip < 1 ? clip : 1),
    };
    PARALLEL_FOR(training_size(t))
    for (size_t i = 0; i < t->count; i++) update_weight(&u, &t->item[i]);
    return true;
}

/* Every average is checked first, so that a failure changes nothing. SPEC 14.7. */
bool training_swap(flis_ctx *ctx, training *t)
{
    if (!flis_ok(ctx)) return false;
    for (size_t i = 0; i < t->count; i++) {
        if (!t->item[i].ema) return flis_fail(ctx, "%s: it has no moving average", t->item[i].name);
    }
    for (size_t i = 0; i < t->count; i++) {
        trained_weight *w = &t->item[i];
        const size_t count = flis_param_count(w->param);
        for (size_t k = 0; k < count; k++) {
            const flis_real value = w->param->value[k];
            w->param->value[k] = w->ema[k];
            w->ema[k] = value;
        }
        flis_param_repack(w->param);
    }
    return true;
}

/* Prefixes of the tensors that hold one weight's state, in the order of the file. */
static const char *const STATE_PREFIX[] = {"", "adamw.m.", "adamw.v.", "ema."};
enum { STATES = 4 };

static flis_real *state_of(const trained_weight *w, int which)
{
    return which == 0 ? w->param->value : which == 1 ? w->m : which == 2 ? w->v : w->ema;
}

/* SPEC 14.7. */
bool training_declare(flis_ctx *ctx, flis_writer *writer, const training *t)
{
    char text[320];
    snprintf(text, sizeof text, "%llu", (unsigned long long)t->step);
    flis_write_metadata(ctx, writer, "adamw.step", text);
    for (size_t i = 0; i < t->count; i++)
        for (int which = 0; which < STATES; which++) {
            const flis_param *p = t->item[i].param;
            uint64_t shape[4] = {0};
            for (int k = 0; k < p->rank; k++) shape[k] = p->shape[k];
            if (!state_of(&t->item[i], which)) continue;
            snprintf(text, sizeof text, "%s%s", STATE_PREFIX[which], t->item[i].name);
            flis_write_declare(ctx, writer, text, sizeof(flis_real) == 8 ? FLIS_F64 : FLIS_F32, p->rank, shape);
        }
    return flis_ok(ctx);
}

/* SPEC 14.7. */
bool training_write(flis_ctx *ctx, flis_writer *writer, const training *t)
{
    for (size_t i = 0; i < t->count; i++)
        for (int which = 0; which < STATES; which++) {
            const flis_param *p = t->item[i].param;
            if (state_of(&t->item[i], which))
                flis_write_real(ctx, writer, state_of(&t->item[i], which), flis_param_count(p));
        }
    return flis_ok(ctx);
}

static void shape_text(char *out, size_t room, const uint64_t *shape, int rank)
{
    size_t used = (size_t)snprintf(out, room, "[");
    for (int i = 0; i < rank && used < room; i++)
        used += (size_t)snprintf(out + used, room - used, "%s%llu", i ? "," : "", (unsigned long long)shape[i]);
    if (used < room) snprintf(out + used, room - used, "]");
}

/* Reads one tensor of the state; it must have the weight's shape. */
static bool state_read(flis_ctx *ctx, flis_file *file, const char *name, const flis_param *param, flis_real *out)
{
    const flis_entry *entry = flis_file_find(file, name);
    if (!entry) return flis_fail(ctx, "%s: no state of training in it: %s is missing", file->path, name);
    bool fits = entry->rank == param->rank;
    for (int k = 0; fits && k < entry->rank; k++) fits = entry->shape[k] == param->shape[k];
    if (!fits) {
        char got[192], wanted[96];
        uint64_t shape[4];
        for (int k = 0; k < param->rank; k++) shape[k] = param->shape[k];
        shape_text(got, sizeof got, entry->shape, entry->rank);
        shape_text(wanted, sizeof wanted, shape, param->rank);
        return flis_fail(ctx, "%s: %s: got shape %s, wanted the model's, %s", file->path, name, got, wanted);
    }
    return flis_file_read_real(ctx, file, entry, out);
}

/* SPEC 14.7. */
bool training_read(flis_ctx *ctx, flis_file *file, training *t)
{
    char name[320];
    const char *step = flis_ok(ctx) ? flis_file_metadata(file, "adamw.step") : NULL;
    if (!flis_ok(ctx)) return false;
    if (!step) return flis_fail(ctx, "%s: no state of training in it: adamw.step is missing", file->path);
    flis_ctx quiet = FLIS_CTX_PLAIN;
    flis_json *number = flis_json_parse(&quiet, "adamw.step", step, strlen(step));
    const bool whole = flis_json_u64(number, &t->step);
    flis_json_free(number);
    if (!whole)
        return flis_fail(ctx, "%s: metadata adamw.step: got \"%.40s\", wanted a whole number below 2^64", file->path,
                         step);
    for (size_t i = 0; i < t->count; i++) {
        flis_param *p = t->item[i].param;
        if (!flis_poll(ctx)) return false;
        for (int which = 0; which < STATES; which++) {
            snprintf(name, sizeof name, "%s%s", STATE_PREFIX[which], t->item[i].name);
            if (state_of(&t->item[i], which) && !state_read(ctx, file, name, p, state_of(&t->item[i], which)))
                return false;
        }
        flis_param_repack(p);
    }
    training_zero(t);
    return true;
}
