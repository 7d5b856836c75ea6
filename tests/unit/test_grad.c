/* test_grad.c - gradients: the backward of every operation and every loss against finite differences of the forward,
 * those of products to the bit against naive loops, whole models, checkpointing, threads.
 *
 * The derivative along a direction d is computed from four values of the loss,
 *   (8 (L(h) - L(-h)) - (L(2h) - L(-2h))) / 12h, error O(h^4),
 * and compared with gradient . d, in units of the gradient's largest value (single values) or of its length (directions
 * of length 1), but at least of LEAST, because some gradients consist of rounding errors only, such as that of a bias
 * before a group norm. The tolerance in flis64 is 1e-7. In float the loss itself is accurate only to 1e-7: the largest
 * errors measured are 4e-5 and, for whole models, 9.4e-4; the tolerances are 5e-4 and 5e-3. FLIS_TEST_ERRORS=1 prints
 * the largest error of each check. `make check` runs these checks in both precisions.
 */
#include "tests/unit/test.h"
#include "tools/train/adamw.h"

#ifdef FLIS_DOUBLE
static const double STEP = 1.5e-3, TOLERANCE = 1e-7, LEAST = 1e-5;
#else
static const double STEP = 2e-2, TOLERANCE = 5e-4, LEAST = 1e-2;
#endif

/* ---- The harness ----------------------------------------------------------------------------------------------- */

enum { MOST = 8, SINGLES = 12 }; /* inputs or weights of a case; single values tried of each */

typedef struct bench {
    flis_ctx ctx;
    flis_tape tape;
    training training;
    flis_tensor *in[MOST];              /* inputs whose gradients are wanted */
    flis_param own[MOST], *param[MOST]; /* own: weights that param points to, for single operations */
    size_t ins, params, seed;
    double (*loss)(struct bench *b); /* computes everything from in and param; seeds */
    const void *with;                /* the case's parameters */
    flis_real *target;               /* for to_target, the usual loss */
    size_t target_count;
    double worst; /* largest error so far */
    size_t tiny;  /* gradients shorter than LEAST */
    char worst_name[96];
} bench;

static void fill(bench *b, flis_real *x, size_t count)
{
    const size_t shape[2] = {1, 2};
    char name[32];
    snprintf(name, sizeof name, "grad%zu", b->seed++);
    flis_formula_weights(name, 2, shape, 0, count, x);
}

static void bench_begin(bench *b, double (*loss)(bench *b), const void *with)
{
    memset(b, 0, sizeof *b);
    flis_init(&b->ctx);
    training_default(&b->training);
    b->training.workers = 2;
    b->loss = loss;
    b->with = with;
}

static flis_tensor *bench_image(bench *b, size_t n, size_t h, size_t w, size_t c)
{
    flis_tensor *x = flis_image(&b->ctx, n, h, w, c);
    fill(b, x->x, flis_count(x));
    return b->in[b->ins++] = x;
}

static flis_tensor *bench_rows(bench *b, size_t n, size_t t, size_t c)
{
    flis_tensor *x = flis_rows(&b->ctx, n, t, c);
    fill(b, x->x, flis_count(x));
    return b->in[b->ins++] = x;
}

/* A weight of any rank; those of norms are around 1. */
static flis_param *bench_param(bench *b, const char *letters, size_t o, size_t i, size_t k)
{
    flis_param *p = &b->own[b->params];
    *p = (flis_param){.rank = 0, .table = letters[0] == '='};
    for (const char *l = letters; *l; l++)
        if (*l != '=') p->shape[p->rank++] = *l == 'o' || *l == 'g' ? o : *l == 'i' ? i : k;
    const size_t count = flis_param_count(p);
    flis_real *values = calloc(count, sizeof *values);
    fill(b, values, count);
    for (size_t v = 0; v < count; v++)
        values[v] = letters[0] == 'g' ? 1 + values[v] / 2 : values[v] / (flis_real)sqrt(count / o);
    CHECK(flis_param_set(&b->ctx, p, values, true), "%s", b->ctx.error);
    free(values);
    training_visit(&b->ctx, &b->training, letters, p);
    return b->param[b->params++] = p;
}

static void bench_end(bench *b)
{
    for (size_t i = 0; i < b->params; i++)
        if (b->param[i] == &b->own[i]) flis_free_visit(&b->ctx, NULL, NULL, b->param[i]);
    CHECK(flis_ok(&b->ctx), "%s", b->ctx.error);
    free(b->target);
    training_free(&b->training);
    flis_tape_free(&b->tape);
    flis_free(&b->ctx);
}

/* Mean squared distance to some target: every output counts, each with a different gradient. */
static double to_target(bench *b, const flis_tensor *y)
{
    const size_t count = y ? flis_count(y) : 0;
    if (b->target_count < count) {
        free(b->target);
        b->target = calloc(count, sizeof *b->target);
        fill(b, b->target, b->target_count = count);
    }
    return flis_mse(&b->ctx, y, b->target, NULL, 1.0);
}

static double bench_loss(bench *b)
{
    flis_mark mark = flis_here(&b->ctx);
    double loss = b->loss(b);
    flis_rewind(&b->ctx, mark);
    return loss;
}

/* Moves `count` values x by h times a direction; p: the weight that they belong to, or NULL. */
static void move(bench *b, flis_real *x, const flis_real *base, const double *direction, size_t count, flis_param *p,
                 double h)
{
    for (size_t i = 0; i < count; i++) x[i] = (flis_real)(base[i] + h * direction[i]);
    if (p) {
        flis_real *copy = malloc(count * sizeof *copy);
        memcpy(copy, x, count * sizeof *copy);
        flis_param_set(&b->ctx, p, copy, true);
        free(copy);
    }
}

static double moved(bench *b, flis_real *x, const flis_real *base, const double *direction, size_t count, flis_param *p,
                    double h)
{
    move(b, x, base, direction, count, p, h);
    return bench_loss(b);
}

static double difference(bench *b, flis_real *x, const double *direction, size_t count, flis_param *p, double h)
{
    flis_real *base = malloc(count * sizeof *base);
    memcpy(base, x, count * sizeof *base);
    const double near = moved(b, x, base, direction, count, p, h) - moved(b, x, base, direction, count, p, -h);
    const double far = moved(b, x, base, direction, count, p, 2 * h) - moved(b, x, base, direction, count, p, -2 * h);
    move(b, x, base, direction, count, p, 0);
    free(base);
    return (8 * near - far) / (12 * h);
}

static void compare(bench *b, const char *what, const char *name, double got, double wanted, double unit)
{
    const double error = fabs(got - wanted) / unit,
                 tolerance = sizeof(flis_real) == 4 && !b->params ? 10 * TOLERANCE : TOLERANCE;
    if (!(error <= tolerance))
        test_fail(__FILE__, __LINE__, "%s: %s: got %.12g, differences give %.12g (%.3g of %.3g)", what, name, got,
                  wanted, error, unit);
    if (error > b->worst) {
        b->worst = error;
        snprintf(b->worst_name, sizeof b->worst_name, "%s: %s", what, name);
    }
}

/* The gradient of `count` values: single values, then whole directions of random signs. */
static void probe(bench *b, const char *what, const char *name, flis_real *x, const flis_real *grad, size_t count,
                  flis_param *p, size_t singles)
{
    double *direction = calloc(count, sizeof *direction), largest = 0, length = 0;
    flis_real *random = malloc(count * sizeof *random);
    for (size_t i = 0; i < count; i++) {
        largest = fabs(grad[i]) > largest ? fabs(grad[i]) : largest;
        length += (double)grad[i] * grad[i];
    }
    length = sqrt(length);
    CHECK(length >= 0 && length < 1e30, "%s: %s: the gradient's length is %g", what, name, length);
    b->tiny += length < LEAST;
    length = length > LEAST ? length : LEAST;
    largest = largest > LEAST ? largest : LEAST;
    for (size_t s = 0; s < singles && s < count; s++) {
        const size_t i = count <= singles ? s : (s * 7919 + 13) % count;
        direction[i] = 1;
        compare(b, what, name, grad[i], difference(b, x, direction, count, p, STEP), largest);
        direction[i] = 0;
    }
    fill(b, random, count);
    double along = 0;
    for (size_t i = 0; i < count; i++) {
        direction[i] = (random[i] < 0 ? -1 : 1) / sqrt((double)count);
        along += direction[i] * grad[i];
    }
    compare(b, what, name, along, difference(b, x, direction, count, p, STEP), length);
    free(random);
    free(direction);
}

/* Records the loss, runs backward, and copies the inputs' gradients; the weights' gradients stay in grad. */
static double gradients(bench *b, flis_real **grad)
{
    flis_mark mark = flis_here(&b->ctx);
    training_zero(&b->training);
    CHECK(flis_tape_begin(&b->ctx, &b->tape), "%s", b->ctx.error);
    for (size_t i = 0; i < b->ins; i++) {
        b->in[i]->grad = NULL;
        flis_watch(&b->ctx, b->in[i]);
    }
    double loss = b->loss(b);
    CHECK(flis_backward(&b->ctx), "%s", b->ctx.error);
    for (size_t i = 0; i < b->ins; i++) {
        const size_t count = flis_count(b->in[i]);
        grad[i] = calloc(count, sizeof **grad);
        CHECK(b->in[i]->grad->x, "input %zu has no gradient", i);
        if (b->in[i]->grad->x) memcpy(grad[i], b->in[i]->grad->x, count * sizeof **grad);
        b->in[i]->grad = NULL;
    }
    flis_tape_end(&b->ctx);
    flis_rewind(&b->ctx, mark);
    return loss;
}

/* Runs backward again as a second worker: its own share must get the same bits, and the first worker's share must not
   change. */
static void check_second_worker(bench *b, const char *what)
{
    flis_real *grad[MOST] = {0};
    size_t count = 0, at = 0, differ = 0;
    for (size_t i = 0; i < b->training.count; i++) count += flis_param_count(b->training.item[i].param);
    flis_real *first = malloc((count ? count : 1) * sizeof *first);
    for (size_t i = 0; i < b->training.count; i++) {
        const flis_param *p = b->training.item[i].param;
        memcpy(first + at, p->grad, flis_param_count(p) * sizeof *first);
        at += flis_param_count(p);
    }
    b->tape.worker = 1;
    gradients(b, grad);
    b->tape.worker = 0;
    for (size_t i = 0; i < b->ins; i++) free(grad[i]);
    at = 0;
    for (size_t i = 0; i < b->training.count; i++) {
        const flis_param *p = b->training.item[i].param;
        const size_t own = flis_param_count(p);
        for (size_t k = 0; k < own; k++) differ += p->grad[k] != 0 || p->grad[own + k] != first[at + k];
        memcpy(p->grad, first + at, own * sizeof *first);
        at += own;
    }
    CHECK(!differ,
          "%s: %zu of %zu values of the second worker's gradients differ from the first one's, or are in its share",
          what, differ, count);
    free(first);
}

static void check(bench *b, const char *what)
{
    flis_real *grad[MOST] = {0};
    char name[32];
    const double recorded = gradients(b, grad), plain = bench_loss(b);
    check_second_worker(b, what);
    CHECK(recorded == plain, "%s: the loss is %.9g when recorded and %.9g when not", what, recorded, plain);
    for (size_t i = 0; i < b->ins; i++) {
        snprintf(name, sizeof name, "input %zu", i);
        probe(b, what, name, b->in[i]->x, grad[i], flis_count(b->in[i]), NULL, SINGLES);
        free(grad[i]);
    }
    for (size_t i = 0; i < b->training.count; i++) {
        flis_param *p = b->training.item[i].param;
        probe(b, what, b->training.item[i].name, p->value, p->grad, flis_param_count(p), p, b->params ? SINGLES : 0);
    }
}

static void report(const bench *b, const char *what)
{
    if (getenv("FLIS_TEST_ERRORS"))
        fprintf(stderr, "%s: largest relative error %.2g (%s), %zu short gradients\n", what, b->worst, b->worst_name,
                b->tiny);
}

/* ---- Products -------------------------------------------------------------------------------------------------- */

static double linear_loss(bench *b)
{
    return to_target(b, flis_linear(&b->ctx, b->in[0], b->param[0], b->params > 1 ? b->param[1] : NULL,
                                    b->ins > 1 ? b->in[1] : NULL));
}

void test_grad_linear(void)
{
    const struct {
        size_t n, rows, inner, outputs, extra;
    } cases[] = {
        /* extra: with bias and something added */
        {1, 1, 1, 1, 0},     {1, 13, 33, 31, 1},  {2, 150, 65, 13, 1},
        {1, 257, 40, 97, 0}, {3, 12, 256, 32, 1}, {1, 5, 300, 270, 1},
    };
    double worst = 0;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        bench b;
        char what[64];
        bench_begin(&b, linear_loss, NULL);
        bench_rows(&b, cases[i].n, cases[i].rows, cases[i].inner);
        if (cases[i].extra) bench_rows(&b, cases[i].n, cases[i].rows, cases[i].outputs);
        bench_param(&b, "oi", cases[i].outputs, cases[i].inner, 0);
        if (cases[i].extra) bench_param(&b, "o", cases[i].outputs, 0, 0);
        snprintf(what, sizeof what, "linear %zu x %zu x %zu", cases[i].rows, cases[i].inner, cases[i].outputs);
        check(&b, what);
        report(&b, what);
        worst = b.worst > worst ? b.worst : worst;
        bench_end(&b);
    }
}

typedef struct conv_case {
    size_t n, h, w, c, o, size;
    flis_conv_kind kind;
    bool extra;
} conv_case;

static double conv_loss(bench *b)
{
    const conv_case *k = b->with;
    return to_target(b, flis_conv(&b->ctx, b->in[0], b->param[0], k->extra ? b->param[1] : NULL, k->kind,
                                  k->extra ? b->in[1] : NULL));
}

static const conv_case CONVS[] = {
    {1, 5, 7, 4, 33, 3, FLIS_SAME, true},
    {2, 3, 3, 40, 5, 3, FLIS_SAME, false},
    {1, 4, 6, 32, 32, 3, FLIS_STRIDE2, false},
    {2, 5, 7, 3, 8, 3, FLIS_STRIDE2, true},
    {1, 1, 2, 3, 8, 3, FLIS_STRIDE2, false},
    {2, 6, 4, 32, 40, 3, FLIS_STRIDE2_ASYMMETRIC, true},
    {1, 5, 7, 6, 3, 3, FLIS_STRIDE2_ASYMMETRIC, false},
    {2, 3, 5, 30, 31, 3, FLIS_UPSAMPLE2, true},
    {1, 1, 1, 33, 2, 3, FLIS_UPSAMPLE2, false},
    {1, 4, 4, 67, 3, 1, FLIS_SAME, true},
    {1, 1, 1, 30, 2, 3, FLIS_SAME, false},
    {3, 13, 11, 9, 35, 3, FLIS_SAME, true},
};

void test_grad_conv(void)
{
    for (size_t i = 0; i < sizeof CONVS / sizeof *CONVS; i++) {
        const conv_case *k = &CONVS[i];
        bench b;
        char what[64];
        bench_begin(&b, conv_loss, k);
        bench_image(&b, k->n, k->h, k->w, k->c);
        bench_param(&b, "oikk", k->o, k->c, k->size);
        if (k->extra) {
            bench_param(&b, "o", k->o, 0, 0);
            const flis_tensor *y = flis_conv(&b.ctx, b.in[0], b.param[0], NULL, k->kind, NULL);
            bench_image(&b, y->n, y->h, y->w, y->c);
        }
        snprintf(what, sizeof what, "convolution %zu, %zu x %zu x %zu", i, k->h, k->w, k->c);
        check(&b, what);
        report(&b, what);
        bench_end(&b);
    }
}

static flis_real one_fma(flis_real a, flis_real b, flis_real c)
{
#ifdef FLIS_DOUBLE
    return fma(a, b, c);
#else
    return fmaf(a, b, c);
#endif
}

/* A partial dot product: chains of 256, added in order to a total that starts at zero. */
typedef struct {
    flis_real total, chain;
    size_t count;
} chain;

static void chain_add(chain *c, flis_real a, flis_real b)
{
    c->chain = one_fma(a, b, c->chain);
    if (++c->count % 256) return;
    c->total += c->chain;
    c->chain = 0;
}

static flis_real chain_end(const chain *c)
{
    return c->count % 256 ? c->total + c->chain : c->total;
}

/* Gradients of a linear layer are canonical dot products, d x over the outputs, d w over the rows, d b in double. */
void test_grad_product_bits(void)
{
    const size_t cases[][3] = {{1, 1, 1}, {13, 33, 31}, {515, 65, 13}, {300, 40, 300}, {12, 256, 32}, {1030, 96, 64}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const size_t m = cases[i][0], inner = cases[i][1], o = cases[i][2];
        bench b;
        bench_begin(&b, linear_loss, NULL);
        flis_tensor *x = bench_rows(&b, 1, m, inner);
        flis_param *w = bench_param(&b, "oi", o, inner, 0), *bias = bench_param(&b, "o", o, 0, 0);
        flis_tape_begin(&b.ctx, &b.tape);
        flis_watch(&b.ctx, x);
        flis_tensor *y = flis_linear(&b.ctx, x, w, bias, NULL);
        flis_watch(&b.ctx, y);
        to_target(&b, y);
        flis_backward(&b.ctx);
        const flis_real *g = y->grad->x;
        size_t wrong = 0;
        for (size_t k = 0; k < inner; k++) {
            for (size_t r = 0; r < m; r++) {
                chain sum = {0};
                for (size_t j = 0; j < o; j++) chain_add(&sum, g[r * o + j], w->value[j * inner + k]);
                wrong += chain_end(&sum) != x->grad->x[r * inner + k];
            }
            for (size_t j = 0; j < o; j++) {
                chain sum = {0};
                for (size_t r = 0; r < m; r++) chain_add(&sum, g[r * o + j], x->x[r * inner + k]);
                wrong += chain_end(&sum) != w->grad[j * inner + k];
            }
        }
        for (size_t j = 0; j < o; j++) {
            double total = 0, strip = 0;
            for (size_t r = 0; r < m; r++) {
                strip += g[r * o + j];
                if ((r + 1) % 256 && r + 1 < m) continue;
                total += strip;
                strip = 0;
            }
            wrong += (flis_real)total != bias->grad[j];
        }
        CHECK(wrong == 0, "%zu x %zu x %zu: %zu gradients differ from the naive loops", m, inner, o, wrong);
        flis_tape_end(&b.ctx);
        bench_end(&b);
    }
}

/* ---- Norms, elementwise ---------------------------------------------------------------------------------------- */

static double group_norm_loss(bench *b)
{
    return to_target(b, flis_group_norm(&b->ctx, b->in[0], b->param[0], b->param[1], 1e-5, b->with != NULL));
}

static double layer_norm_loss(bench *b)
{
    return to_target(b, flis_layer_norm(&b->ctx, b->in[0], b->param[0], b->param[1]));
}

void test_grad_norms(void)
{
    const size_t groups[][5] = {{1, 1, 3, 32, 0}, {2, 5, 3, 64, 0}, {3, 17, 16, 96, 0}, {2, 3, 5, 32, 4}};
    for (size_t i = 0; i < sizeof groups / sizeof *groups; i++)
        for (int silu = 0; silu < 2; silu++) {
            bench b;
            const char *what = silu ? "group norm and SiLU" : "group norm";
            bench_begin(&b, group_norm_loss, silu ? &b : NULL);
            bench_image(&b, groups[i][0], groups[i][1], groups[i][2], groups[i][3]);
            bench_param(&b, "g", groups[i][3], 0, 0);
            bench_param(&b, "o", groups[i][3], 0, 0);
            b.param[0]->groups = groups[i][4];
            check(&b, what);
            report(&b, what);
            bench_end(&b);
        }
    const size_t rows[][3] = {{1, 1, 7}, {2, 77, 48}, {1, 513, 33}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        bench b;
        bench_begin(&b, layer_norm_loss, NULL);
        bench_rows(&b, rows[i][0], rows[i][1], rows[i][2]);
        bench_param(&b, "g", rows[i][2], 0, 0);
        bench_param(&b, "o", rows[i][2], 0, 0);
        check(&b, "layer norm");
        report(&b, "layer norm");
        bench_end(&b);
    }
}

static double silu_loss(bench *b)
{
    return to_target(b, flis_silu(&b->ctx, b->in[0]));
}
static double quick_gelu_loss(bench *b)
{
    return to_target(b, flis_quick_gelu(&b->ctx, b->in[0]));
}
static double geglu_loss(bench *b)
{
    return to_target(b, flis_geglu(&b->ctx, b->in[0]));
}
static double add_loss(bench *b)
{
    return to_target(b, flis_add(&b->ctx, b->in[0], b->in[1]));
}
static double add_to_all_loss(bench *b)
{
    return to_target(b, flis_add_to_all(&b->ctx, b->in[0], b->in[1]));
}
static double scale_loss(bench *b)
{
    return to_target(b, flis_scale(&b->ctx, b->in[0], -1.7));
}
static double concat_loss(bench *b)
{
    return to_target(b, flis_concat(&b->ctx, b->in[0], b->in[2]));
}

/* Gradients of a tensor that is used several times add up, also through views. */
static double again_loss(bench *b)
{
    flis_tensor *rows = flis_as_rows(&b->ctx, b->in[0]), *twice = flis_add(&b->ctx, rows, rows);
    flis_tensor *image = flis_as_image(&b->ctx, flis_silu(&b->ctx, twice), b->in[0]->h, b->in[0]->w);
    return to_target(b, flis_add(&b->ctx, flis_add(&b->ctx, image, b->in[0]),
                                 flis_as_image(&b->ctx, rows, b->in[0]->h, b->in[0]->w)));
}

static double embed_loss(bench *b)
{
    const int32_t ids[] = {3, 0, 3, 9, 4, 4, 4, 3, 8, 1};
    return to_target(b, flis_embed(&b->ctx, ids, 2, b->param[0], b->param[1]));
}

void test_grad_elementwise(void)
{
    const struct {
        const char *what;
        double (*loss)(bench *b);
        bool all, other;
    } cases[] = {
        /* the second input's shape */
        {"SiLU", silu_loss, false, false},
        {"quick GELU", quick_gelu_loss, false, false},
        {"GEGLU", geglu_loss, false, false},
        {"add", add_loss, false, true},
        {"add to all", add_to_all_loss, true, false},
        {"scale", scale_loss, false, false},
        {"concat", concat_loss, false, true},
        {"again", again_loss, false, false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        bench b;
        bench_begin(&b, cases[i].loss, NULL);
        flis_tensor *x = bench_image(&b, 2, 17, 16, 10);
        for (size_t k = 0; k < flis_count(x); k++) x->x[k] *= 4;
        if (cases[i].other) bench_image(&b, 2, 17, 16, 10);
        if (cases[i].all) bench_rows(&b, 2, 1, 10);
        if (cases[i].loss == concat_loss) { /* inputs of equal shapes would not show if they were swapped */
            b.ins = 1;
            b.in[2] = bench_image(&b, 2, 17, 16, 7);
        }
        check(&b, cases[i].what);
        report(&b, cases[i].what);
        bench_end(&b);
    }
    bench b;
    bench_begin(&b, embed_loss, NULL);
    bench_param(&b, "=oi", 10, 6, 0);
    bench_param(&b, "=oi", 5, 6, 0);
    check(&b, "embedding");
    report(&b, "embedding");
    bench_end(&b);
}

/* ---- Attention ------------------------------------------------------------------------------------------------- */

typedef struct attention_case {
    size_t n, queries, keys, c, heads;
    bool causal, masked;
} attention_case;

static double attention_loss(bench *b)
{
    const attention_case *k = b->with;
    static uint8_t mask[300 * 300];                           /* backward reads it again */
    static const uint8_t *const open[3] = {mask, NULL, mask}; /* all keys of the second sample are attended */
    for (size_t i = 0; i < k->queries; i++)
        for (size_t j = 0; j < k->keys; j++)
            mask[i * k->keys + j] = (i * 31 + j * 17) % 5 < 3 && i % 11 != 3; /* every key of some rows is masked */
    flis_mask m = {.causal = k->causal, .attended = k->masked ? open : NULL};
    return to_target(
        b, flis_attention(&b->ctx, b->in[0], b->in[1], b->in[2], k->heads, 3.0 / sqrt((double)(k->c / k->heads)), m));
}

void test_grad_attention(void)
{
    const attention_case cases[] = {
        {1, 1, 1, 1, 1, false, false},     {2, 33, 77, 48, 3, false, true}, {1, 77, 77, 24, 2, true, false},
        {1, 260, 40, 40, 1, false, false}, {3, 35, 35, 26, 2, false, true}, {1, 20, 290, 33, 1, false, false},
        {2, 12, 31, 64, 1, true, true},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const attention_case *k = &cases[i];
        bench b;
        char what[64];
        bench_begin(&b, attention_loss, k);
        bench_rows(&b, k->n, k->queries, k->c);
        bench_rows(&b, k->n, k->keys, k->c);
        bench_rows(&b, k->n, k->keys, k->c);
        for (int t = 0; t < 3; t++)
            for (size_t j = 0; j < flis_count(b.in[t]); j++) b.in[t]->x[j] *= 2;
        snprintf(what, sizeof what, "attention %zu, %zu x %zu", i, k->queries, k->keys);
        if (k->keys == 1) { /* the gradient of softmax over one score is zero: only v's gradient is not */
            b.in[0] = b.in[2];
            b.ins = 1;
            bench_end(&b);
            continue;
        }
        check(&b, what);
        report(&b, what);
        bench_end(&b);
    }
}

/* ---- Losses ---------------------------------------------------------------------------------------------------- */

static const uint8_t LABELS[] = {0, 3, 255, 2, 2, 1, 255, 0, 3, 3, 1, 0};

static double mse_loss(bench *b)
{
    return flis_mse(&b->ctx, b->in[0], b->in[1]->x, b->in[2]->x, 1.0);
}
static double l1_loss(bench *b)
{
    return flis_l1(&b->ctx, b->in[0], b->in[1]->x, b->in[2]->x, 1.0);
}
static double cross_entropy_loss(bench *b)
{
    return flis_cross_entropy(&b->ctx, b->in[0], LABELS, 255, 1.0);
}
static double kl_loss(bench *b)
{
    return flis_kl(&b->ctx, b->in[0], 1.0);
}
static double posterior_loss(bench *b)
{
    return to_target(b, flis_posterior_sample(&b->ctx, b->in[0], b->in[1]));
}

/* Losses of one tensor add up, each with its scale. */
static double sum_loss(bench *b)
{
    flis_tensor *y = flis_silu(&b->ctx, b->in[0]);
    double loss = 0.5 * flis_kl(&b->ctx, y, 0.5);
    loss += 2 * flis_cross_entropy(&b->ctx, y, LABELS, 255, 2.0);
    return loss - 3 * flis_mse(&b->ctx, y, b->in[1]->x, NULL, -3.0);
}

/* [1][3][4][6]: values away from the kinks of |y - t| and of the clamped log variance; some of them are clamped. */
static void losses_begin(bench *b, double (*loss)(bench *b))
{
    bench_begin(b, loss, NULL);
    flis_tensor *y = bench_image(b, 1, 3, 4, 6), *target = bench_image(b, 1, 3, 4, 6),
                *weight = bench_image(b, 1, 3, 4, 1);
    for (size_t i = 0; i < 72; i++) target->x[i] = y->x[i] + (i % 2 ? 1 : -1) * (flis_real)(0.1 + i / 50.0);
    for (size_t i = 0; i < 12; i++) weight->x[i] = (flis_real)(i % 5);
    if (loss == kl_loss || loss == posterior_loss) {
        y->x[3] = -31;
        y->x[17] = -29;
    }
    if (loss == posterior_loss) {
        y->x[10] = 20.5; /* not for KL, where e^20 would dominate */
        b->in[1] = weight = bench_image(b, 1, 3, 4, 3);
        weight->x[4] /= 64; /* times e^10 */
    }
    b->ins = 1;
}

void test_grad_losses(void)
{
    const struct {
        const char *what;
        double (*loss)(bench *b);
    } cases[] = {
        {"mean squared error", mse_loss},      {"mean absolute error", l1_loss},
        {"cross entropy", cross_entropy_loss}, {"KL", kl_loss},
        {"posterior", posterior_loss},         {"sum", sum_loss},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        bench b;
        losses_begin(&b, cases[i].loss);
        check(&b, cases[i].what);
        report(&b, cases[i].what);
        bench_end(&b);
    }
}

/* The losses' values by their definitions, with libm's functions. */
void test_grad_loss_values(void)
{
    bench b;
    losses_begin(&b, kl_loss);
    const flis_real *y = b.in[0]->x, *t = b.in[1]->x, *w = b.in[2]->x;
    double square = 0, absolute = 0, entropy = 0, kl = 0;
    for (size_t i = 0; i < 12; i++) {
        double sum = 0;
        for (size_t c = 0; c < 6; c++) {
            const double d = (double)y[i * 6 + c] - t[i * 6 + c];
            square += w[i] * d * d / 72;
            absolute += w[i] * fabs(d) / 72;
            sum += exp(y[i * 6 + c]);
        }
        if (LABELS[i] != 255) entropy -= log(exp(y[i * 6 + LABELS[i]]) / sum) / 10;
        for (size_t c = 0; c < 3; c++) {
            const double l = fmin(fmax(y[i * 6 + 3 + c], -30), 20), m = y[i * 6 + c];
            kl += 0.5 * (m * m + exp(l) - 1 - l);
        }
    }
    const double got[] = {flis_mse(&b.ctx, b.in[0], t, w, 1), flis_l1(&b.ctx, b.in[0], t, w, 1),
                          flis_cross_entropy(&b.ctx, b.in[0], LABELS, 255, 1), flis_kl(&b.ctx, b.in[0], 1)};
    const double wanted[] = {square, absolute, entropy, kl};
    for (int i = 0; i < 4; i++)
        CHECK(fabs(got[i] - wanted[i]) <= 1e-14 * fabs(wanted[i]), "loss %d: got %.17g, wanted %.17g", i, got[i],
              wanted[i]);
    const uint8_t none[12] = {9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9};
    CHECK(flis_cross_entropy(&b.ctx, b.in[0], none, 9, 1) == 0, "a loss over no position is not 0");
    CHECK(flis_ok(&b.ctx) && flis_cross_entropy(&b.ctx, b.in[0], LABELS, -1, 1) == 0 && !flis_ok(&b.ctx),
          "label 255 of 6 was accepted");
    b.ctx.error[0] = 0;
    bench_end(&b);
}

/* ---- The tape itself ------------------------------------------------------------------------------------------- */

/* Operations that need no gradient are not recorded, and no gradient accumulates for them. */
void test_grad_frozen(void)
{
    bench b;
    bench_begin(&b, NULL, NULL);
    flis_tensor *x = bench_rows(&b, 1, 5, 8);
    flis_param *w1 = bench_param(&b, "oi", 8, 8, 0), *w2 = bench_param(&b, "oi", 8, 8, 0),
               *w3 = bench_param(&b, "oi", 8, 8, 0);
    flis_real *grad[3] = {w1->grad, w2->grad, w3->grad};
    w1->grad = w3->grad = NULL; /* w1, w3 are frozen */
    CHECK(!flis_backward(&b.ctx), "backward without a tape did not fail");
    b.ctx.error[0] = 0;
    CHECK(flis_tape_begin(&b.ctx, &b.tape), "%s", b.ctx.error);
    flis_tensor *frozen = flis_silu(&b.ctx, flis_linear(&b.ctx, x, w1, NULL, NULL));
    CHECK(!b.tape.last && frozen && !frozen->grad, "a frozen branch was recorded");
    flis_tensor *y = flis_linear(&b.ctx, flis_linear(&b.ctx, frozen, w2, NULL, frozen), w3, NULL, frozen);
    CHECK(b.tape.last && y->grad && !x->grad && !frozen->grad,
          "a trained branch was not recorded, or a frozen one was");
    to_target(&b, y);
    CHECK(flis_backward(&b.ctx) && !b.tape.last, "%s", b.ctx.error);
    double sum = 0;
    for (size_t i = 0; i < 64; i++) sum += fabs(w2->grad[i]);
    CHECK(sum > 0 && !y->grad->x, "the gradient is missing, or was not freed");
    flis_tape_end(&b.ctx);
    CHECK(!b.ctx.tape, "the tape stayed in the context");
    w1->grad = grad[0];
    w3->grad = grad[2];
    bench_end(&b);
}

void test_grad_refuses(void)
{
    bench b;
    bench_begin(&b, NULL, NULL);
    flis_tape other = {0};
    CHECK(flis_tape_begin(&b.ctx, &b.tape) && !flis_tape_begin(&b.ctx, &other), "two tapes at once");
    CHECK(strstr(b.ctx.error, "recording"), "%s", b.ctx.error);
    b.ctx.error[0] = 0;
    flis_tape_end(&b.ctx);
    flis_param empty = {.rank = 2, .shape = {3, 3}};
    CHECK(!training_visit(&b.ctx, &b.training, "empty", &empty), "weights that were not loaded are trained");
    b.ctx.error[0] = 0;
    flis_tensor *moments = flis_image(&b.ctx, 1, 2, 2, 6), *noise = flis_image(&b.ctx, 1, 2, 2, 6);
    CHECK(!flis_posterior_sample(&b.ctx, moments, noise), "noise of another shape was accepted");
    b.ctx.error[0] = 0;
    bench_end(&b);
}

/* ---- Whole models ---------------------------------------------------------------------------------------------- */

typedef struct unet_case {
    flis_unet *unet;
    uint8_t label[64 * 64];
    float class_ids[5];
    flis_rca rca;
    const flis_rca *each[16]; /* every third sample is plain */
    double t[16];
} unet_case;

static double unet_loss(bench *b)
{
    const unet_case *k = b->with;
    return to_target(b, flis_unet_eps(&b->ctx, k->unet, b->in[0], k->t, b->in[1], k->each));
}

/* A U-Net on n samples, with a phrase of five tokens in each of the two halves. */
static unet_case *unet_begin(bench *b, size_t n, size_t h, size_t w, const flis_unet_config *config)
{
    unet_case *k = calloc(1, sizeof *k);
    bench_begin(b, unet_loss, k);
    k->unet = flis_unet_new(&b->ctx, config);
    flis_unet_walk(&b->ctx, k->unet, flis_formula_visit, NULL);
    flis_unet_walk(&b->ctx, k->unet, training_visit, &b->training);
    for (size_t i = 0; i < sizeof k->label; i++) k->label[i] = i % 64 + i / 64 < 64 ? 7 : 8;
    const float classes[5] = {7, 7, 8, -1, 8};
    memcpy(k->class_ids, classes, sizeof classes);
    k->rca = (flis_rca){k->label, 64, 64, k->class_ids, 5};
    for (size_t i = 0; i < n; i++) {
        k->each[i] = i % 3 == 1 ? NULL : &k->rca;
        k->t[i] = (double)(1 + i * 137 % 999);
    }
    bench_image(b, n, h, w, config->in);
    bench_rows(b, n, FLIS_TOKENS, config->context);
    return k;
}

static void unet_end(bench *b, unet_case *k)
{
    flis_unet_free(k->unet);
    free(k);
    bench_end(b);
}

static const flis_unet_config SMALL_UNET = {
    .in = 4,
    .out = 4,
    .channels = 32,
    .levels = 3,
    .mult = {1, 2, 2},
    .attention = {true, true, false},
    .blocks = 1,
    .heads = 4,
    .context = 24,
};

/* Every weight, the latents and the text features, with RCA on some samples and not on others. */
/* slow */
void test_grad_unet(void)
{
    bench b;
    unet_case *k = unet_begin(&b, 2, 8, 4, &SMALL_UNET);
    check(&b, "U-Net");
    report(&b, "U-Net");
    unet_end(&b, k);
}

static double clip_loss(bench *b)
{
    int32_t ids[2 * FLIS_TOKENS];
    for (int32_t i = 0; i < 2 * FLIS_TOKENS; i++) ids[i] = i * i % 37;
    return to_target(b, flis_clip_encode(&b->ctx, b->with, ids, 2));
}

void test_grad_clip(void)
{
    const flis_clip_config config = {
        .vocab = 40, .width = 24, .layers = 2, .heads = 2, .hidden = 56, .positions = FLIS_TOKENS};
    bench b;
    bench_begin(&b, clip_loss, NULL);
    flis_clip *clip = flis_clip_new(&b.ctx, &config);
    b.with = clip;
    flis_clip_walk(&b.ctx, clip, flis_formula_visit, NULL);
    flis_clip_walk(&b.ctx, clip, training_visit, &b.training);
    check(&b, "text encoder");
    report(&b, "text encoder");
    flis_clip_free(clip);
    bench_end(&b);
}

/* An autoencoder as in training: picture, moments, a sample of them, picture. in[1] is the noise. */
static double vae_loss(bench *b)
{
    flis_tensor *moments = flis_vae_encode(&b->ctx, b->with, b->in[0]);
    double loss = 0.01 * flis_kl(&b->ctx, moments, 0.01);
    flis_tensor *y = flis_vae_decode(&b->ctx, b->with, flis_posterior_sample(&b->ctx, moments, b->in[1]));
    return loss + to_target(b, y);
}

/* slow */
void test_grad_vae(void)
{
    const flis_vae_config config = {
        .channels = 32, .levels = 4, .mult = {1, 1, 2, 2}, .blocks = 1, .z = 4, .embed = 4, .scale_factor = 1};
    bench b;
    bench_begin(&b, vae_loss, NULL);
    flis_vae *vae = flis_vae_new(&b.ctx, &config, true, true);
    b.with = vae;
    flis_vae_walk(&b.ctx, vae, flis_formula_visit, NULL);
    flis_vae_walk(&b.ctx, vae, training_visit, &b.training);
    bench_image(&b, 2, 16, 24, 3);
    bench_image(&b, 2, 2, 3, 4);
    b.ins = 1;
    check(&b, "autoencoder");
    report(&b, "autoencoder");
    flis_vae_free(vae);
    bench_end(&b);
}

/* Gradients of inputs and weights, one after the other. */
static flis_real *all_gradients(bench *b, size_t *count)
{
    flis_real *grad[MOST] = {0}, *all;
    gradients(b, grad);
    *count = 0;
    for (size_t i = 0; i < b->ins; i++) *count += flis_count(b->in[i]);
    for (size_t i = 0; i < b->training.count; i++) *count += flis_param_count(b->training.item[i].param);
    all = calloc(*count, sizeof *all);
    size_t at = 0;
    for (size_t i = 0; i < b->ins; i++) {
        memcpy(all + at, grad[i], flis_count(b->in[i]) * sizeof *all);
        at += flis_count(b->in[i]);
        free(grad[i]);
    }
    for (size_t i = 0; i < b->training.count; i++) {
        const flis_param *p = b->training.item[i].param;
        memcpy(all + at, p->grad, flis_param_count(p) * sizeof *all);
        at += flis_param_count(p);
    }
    return all;
}

/* The same bits with any number of threads, and with checkpointing (blocks are computed again instead of being kept).
   The sizes are large enough for the loops to be split among threads. */
/* slow */
void test_grad_same_bits(void)
{
    const flis_unet_config config = {.in = 4,
                                     .out = 4,
                                     .channels = 64,
                                     .levels = 2,
                                     .mult = {1, 2},
                                     .attention = {true, true},
                                     .blocks = 1,
                                     .heads = 4,
                                     .context = 32};
    const int threads[] = {1, 2, 3, 7, 2};
    bench b;
    unet_case *k = unet_begin(&b, 10, 16, 16, &config);
    flis_real *first = NULL;
    size_t count = 0, peak[2] = {0};
    for (int i = 0; i < 5; i++) {
        b.ctx.threads = threads[i];
        b.tape.checkpoint = i == 4;
        b.ctx.arena.peak = 0;
        flis_real *now = all_gradients(&b, &count);
        peak[i == 4] = b.ctx.arena.peak;
        if (!first) first = now;
        else {
            size_t differ = 0;
            for (size_t j = 0; j < count; j++) differ += memcmp(&first[j], &now[j], sizeof *now) != 0;
            CHECK(differ == 0, "%d threads%s: %zu of %zu gradients differ from one thread's", threads[i],
                  i == 4 ? ", checkpointing" : "", differ, count);
            free(now);
        }
    }
    CHECK(peak[1] < peak[0] / 2, "checkpointing takes %zu bytes of the arena, no checkpointing %zu", peak[1], peak[0]);
    free(first);
    unet_end(&b, k);
}

/* Half weights: gradients pass through them as halves when they are frozen, and training widens them. Both must give
   the same bits. */
void test_grad_half(void)
{
    for (int bf16 = 0; bf16 < 2; bf16++) {
        bench b;
        size_t count[2];
        flis_real *grad[2], *value = calloc(40 * 9 * 35, sizeof *value), *back = calloc(40 * 9 * 35, sizeof *back);
        uint16_t half[40 * 9 * 35];
        const conv_case same = {.kind = FLIS_SAME};
        bench_begin(&b, conv_loss, &same);
        bench_image(&b, 1, 5, 6, 35);
        flis_param *w = bench_param(&b, "oikk", 40, 35, 3);
        for (size_t i = 0; i < sizeof half / sizeof *half; i++) {
            half[i] = bf16 ? flis_float_to_bf16((float)w->value[i]) : flis_float_to_half((float)w->value[i]);
            value[i] = bf16 ? flis_bf16_to_float(half[i]) : flis_half_to_float(half[i]);
        }
        flis_free_visit(&b.ctx, NULL, NULL, w);
        training_free(&b.training);
        CHECK(flis_param_set_half(&b.ctx, w, half, bf16), "%s", b.ctx.error);
        flis_param_get(w, back);
        CHECK(memcmp(value, back, 40 * 9 * 35 * sizeof *back) == 0, "halves are read back as different values");
        grad[0] = all_gradients(&b, &count[0]);
        training_visit(&b.ctx, &b.training, "w", w);
        CHECK(w->value && w->packed && !w->half && memcmp(value, w->value, 40 * 9 * 35 * sizeof *back) == 0,
              "not widened");
        grad[1] = all_gradients(&b, &count[1]);
        CHECK(count[0] == 5 * 6 * 35 && memcmp(grad[0], grad[1], count[0] * sizeof(flis_real)) == 0,
              "gradients through halves differ");
        for (int i = 0; i < 2; i++) free(grad[i]);
        free(value);
        free(back);
        bench_end(&b);
    }
}
