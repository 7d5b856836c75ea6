/* test_ops.c - the fast code of every operation against its definition (ctx->naive), to the bit: for shapes that
 * straddle tiles, panels, blocks and strips, for weights in every storage format, and for loops large enough to be
 * split among threads, with 1, 2, 3 and 7 threads.
 *
 * Where an operation's loop is its own definition (gates, sums, copies), the equation is written out here again.
 */
#include "tests/unit/test.h"

static const int THREADS[] = {1, 2, 3, 7};
enum { THREAD_COUNTS = sizeof THREADS / sizeof *THREADS };
#define LENGTH(array) (sizeof(array) / sizeof *(array))

/* ---- Inputs ------------------------------------------------------------------------------------------------------ */

/* Deterministic values in (-1, 1) that use all bits of flis_real's mantissa. */
static void fill(flis_real *x, size_t count, uint32_t seed)
{
    const size_t shape[2] = {1, 3};
    char name[32];
    snprintf(name, sizeof name, "ops%u", (unsigned)seed);
    flis_formula_weights(name, 2, shape, 0, count, x);
    for (size_t i = 0; i < count && sizeof(flis_real) == 8; i++) x[i] += (flis_real)0x1p-25 * x[(i * 7 + 1) % count];
}

static flis_tensor *image(flis_ctx *ctx, size_t n, size_t h, size_t w, size_t c, uint32_t seed)
{
    flis_tensor *x = flis_image(ctx, n, h, w, c);
    fill(x->x, flis_count(x), seed);
    return x;
}

static flis_tensor *rows(flis_ctx *ctx, size_t n, size_t t, size_t c, uint32_t seed)
{
    flis_tensor *x = flis_rows(ctx, n, t, c);
    fill(x->x, flis_count(x), seed);
    return x;
}

/* A weight, with a copy of its values in the checkpoint's order that stays when the library packs or halves the
   weight. */
typedef struct weight {
    flis_param param;
    flis_real *value;
} weight;

static weight weight_new(flis_ctx *ctx, flis_dtype dtype, int rank, size_t a, size_t b, size_t size, uint32_t seed)
{
    const size_t count = a * b * size * size;
    weight w = {{.rank = rank, .shape = {a, b, size, size}}, malloc(count * sizeof *w.value)};
    uint16_t *half = malloc(count * sizeof *half);
    fill(w.value, count, seed);
    for (size_t i = 0; i < count; i++) {
        float x = (float)w.value[i];
        if (i % 5 == 0) x = ldexpf(x, -(int)(i % 26)); /* down to the subnormal halves */
        half[i] = dtype == FLIS_BF16 ? flis_float_to_bf16(x) : flis_float_to_half(x);
        if (dtype == FLIS_F16) w.value[i] = (flis_real)flis_half_to_float(half[i]);
        if (dtype == FLIS_BF16) w.value[i] = (flis_real)flis_bf16_to_float(half[i]);
    }
    if (dtype == FLIS_F16 || dtype == FLIS_BF16) flis_param_set_half(ctx, &w.param, half, dtype == FLIS_BF16);
    else flis_param_set(ctx, &w.param, w.value, false);
    free(half);
    return w;
}

static void weight_free(flis_ctx *ctx, weight *w)
{
    flis_free_visit(ctx, NULL, NULL, &w->param);
    free(w->value);
}

/* ---- Comparing --------------------------------------------------------------------------------------------------- */

/* Compares the bits, so that -0 differs from 0. */
static bool equal(const flis_real *a, const flis_real *b, size_t count)
{
    return memcmp(a, b, count * sizeof *a) == 0;
}

static void same(const flis_ctx *ctx, const char *what, const flis_tensor *y, const flis_real *wanted, size_t count)
{
    size_t wrong = 0, first = 0;
    CHECK(y && wanted && flis_ok(ctx), "%s: %s", what, ctx->error);
    CHECK(!y || flis_count(y) == count, "%s: got %zu values, wanted %zu", what, flis_count(y), count);
    for (size_t i = 0; y && wanted && i < count && i < flis_count(y); i++)
        if (!equal(&y->x[i], &wanted[i], 1) && !wrong++) first = i;
    CHECK(wrong == 0,
          "%s, %d threads: %zu of %zu values differ from the definition; value %zu: got %.17g, wanted %.17g", what,
          ctx->threads, wrong, count, first, (double)y->x[first], (double)wanted[first]);
}

/* Computes `operation` by its definition and by its fast code. */
#define SAME(ctx, what, operation) \
    do { \
        (ctx)->naive = true; \
        const flis_tensor *wanted_ = (operation); \
        (ctx)->naive = false; \
        same(ctx, what, operation, wanted_ ? wanted_->x : NULL, wanted_ ? flis_count(wanted_) : 0); \
    } while (0)

/* The definition reads the weights as they are stored, so their storage is checked separately. */
static void unpacks(const weight *w, const char *what)
{
    const size_t count = flis_param_count(&w->param);
    flis_real *back = calloc(count, sizeof *back);
    flis_param_get(&w->param, back);
    CHECK(equal(back, w->value, count), "%s: the stored weights differ from those that were set", what);
    free(back);
}

/* ---- Products ---------------------------------------------------------------------------------------------------- */

/* With bias and residual, and with neither; n samples of m rows. */
static void linear_case(flis_ctx *ctx, flis_dtype dtype, size_t n, size_t m, size_t inner, size_t outputs)
{
    char what[96];
    snprintf(what, sizeof what, "linear %s [%zu,%zu,%zu] to %zu", flis_dtype_name(dtype), n, m, inner, outputs);
    flis_mark mark = flis_here(ctx);
    flis_tensor *x = rows(ctx, n, m, inner, 3), *add = rows(ctx, n, m, outputs, 4);
    weight w = weight_new(ctx, dtype, 2, outputs, inner, 1, 1), b = weight_new(ctx, FLIS_F32, 1, outputs, 1, 1, 2);
    unpacks(&w, what);
    SAME(ctx, what, flis_linear(ctx, x, &w.param, &b.param, add));
    if (m * inner * outputs < 100000) SAME(ctx, what, flis_linear(ctx, x, &w.param, NULL, NULL));
    weight_free(ctx, &w);
    weight_free(ctx, &b);
    flis_rewind(ctx, mark);
}

void test_ops_linear(void)
{
    const size_t sizes[][3] = {
        /* rows, inner, outputs */
        {1, 1, 1},     {1, 320, 33}, {12, 256, 32}, {13, 257, 31}, {11, 255, 64}, {97, 512, 65},
        {25, 513, 96}, {200, 40, 7}, {5, 769, 25},  {2, 1281, 23}, {3, 767, 17},
    };
    const flis_dtype dtypes[] = {FLIS_F32, FLIS_F16, FLIS_BF16};
    flis_ctx ctx;
    flis_init(&ctx);
    for (size_t s = 0; s < LENGTH(sizes); s++)
        for (size_t k = 0; k < LENGTH(dtypes); k++) {
            ctx.threads = THREADS[(s + k) % THREAD_COUNTS];
            linear_case(&ctx, dtypes[k], 1 + s % 3, sizes[s][0], sizes[s][1], sizes[s][2]);
        }
    flis_free(&ctx);
}

/* Every row count around tiles (2, 4 or 12 rows) and bands (8 tiles) with every output count around panels (16, 24 or 32),
   and an inner size around multiples of 256 with each. */
/* slow */
void test_ops_linear_edges(void)
{
    const size_t count[] = {1, 2, 3, 4, 5, 11, 12, 13, 15, 16, 17, 23, 24, 25, 31, 32, 33, 36, 95, 96, 97, 193};
    const size_t outputs[] = {1, 2, 15, 16, 17, 23, 24, 25, 31, 32, 33, 47, 48, 49, 63, 64, 65, 97};
    const size_t inner[] = {1, 2, 127, 255, 256, 257, 511, 512, 513, 767, 768, 769, 1025};
    flis_ctx ctx;
    flis_init(&ctx);
    for (size_t i = 0; i < LENGTH(count); i++)
        for (size_t j = 0; j < LENGTH(outputs); j++) {
            ctx.threads = THREADS[(i + j / 2) % THREAD_COUNTS];
            linear_case(&ctx, (i + j) % 7 ? FLIS_F32 : FLIS_F16, 1, count[i], inner[(i * 5 + j) % LENGTH(inner)],
                        outputs[j]);
        }
    flis_free(&ctx);
}

static void conv_case(flis_ctx *ctx, flis_dtype dtype, size_t n, size_t h, size_t w, size_t c, size_t outputs,
                      size_t size, flis_conv_kind kind)
{
    const char *const names[] = {"same", "stride 2", "stride 2 asymmetric", "upsampled"};
    const size_t up = kind == FLIS_UPSAMPLE2 ? 2 : 1,
                 stride = kind == FLIS_STRIDE2 || kind == FLIS_STRIDE2_ASYMMETRIC ? 2 : 1;
    const size_t padding = size == 1 ? 0 : kind == FLIS_STRIDE2_ASYMMETRIC ? 1 : 2; /* the sum of both sides */
    const size_t out_h = (h * up + padding - size) / stride + 1, out_w = (w * up + padding - size) / stride + 1;
    char what[128];
    snprintf(what, sizeof what, "conv %s %zux%zu %s [%zu,%zu,%zu,%zu] to %zu", names[kind], size, size,
             flis_dtype_name(dtype), n, h, w, c, outputs);
    flis_mark mark = flis_here(ctx);
    flis_tensor *x = image(ctx, n, h, w, c, 7), *add = image(ctx, n, out_h, out_w, outputs, 8);
    weight k = weight_new(ctx, dtype, 4, outputs, c, size, 5), b = weight_new(ctx, FLIS_F32, 1, outputs, 1, 1, 6);
    unpacks(&k, what);
    flis_tensor *y = flis_conv(ctx, x, &k.param, &b.param, kind, add);
    CHECK(!y || (y->n == n && y->h == out_h && y->w == out_w && y->c == outputs), "%s: got [%zu,%zu,%zu,%zu]", what,
          y->n, y->h, y->w, y->c);
    SAME(ctx, what, flis_conv(ctx, x, &k.param, &b.param, kind, add));
    SAME(ctx, what, flis_conv(ctx, x, &k.param, NULL, kind, NULL));
    weight_free(ctx, &k);
    weight_free(ctx, &b);
    flis_rewind(ctx, mark);
}

void test_ops_conv(void)
{
    const size_t picture[][2] = {{1, 1}, {1, 2}, {2, 1}, {3, 3}, {2, 7}, {5, 8}, {12, 1}, {4, 6}, {13, 11}, {1, 33}};
    /* Numbers of channels around those at which 256 falls inside a tap, on its edge, and inside a channel run of nine
       taps. */
    const size_t channels[] = {1, 3, 28, 29, 32, 57, 64, 85, 86, 256, 257, 300};
    const size_t outputs[] = {1, 4, 16, 23, 25, 32, 33, 48, 65};
    const flis_dtype dtypes[] = {FLIS_F32, FLIS_F32, FLIS_F16, FLIS_BF16};
    flis_ctx ctx;
    flis_init(&ctx);
    size_t s = 0;
    for (int kind = FLIS_SAME; kind <= FLIS_UPSAMPLE2; kind++)
        for (size_t p = 0; p < LENGTH(picture); p++)
            for (size_t k = 0; k < 3; k++, s++) {
                const size_t c = channels[(s * 5 + k) % LENGTH(channels)], o = outputs[(s * 2 + k) % LENGTH(outputs)];
                if (kind == FLIS_STRIDE2_ASYMMETRIC && (picture[p][0] < 2 || picture[p][1] < 2))
                    continue; /* the output would be empty */
                ctx.threads = THREADS[s % THREAD_COUNTS];
                conv_case(&ctx, dtypes[s / 3 % LENGTH(dtypes)], 1 + s % 2, picture[p][0], picture[p][1], c, o, 3,
                          (flis_conv_kind)kind);
            }
    for (size_t k = 0; k < LENGTH(channels); k++)
        conv_case(&ctx, dtypes[k % LENGTH(dtypes)], 1 + k % 3, picture[k % LENGTH(picture)][0],
                  picture[k % LENGTH(picture)][1], channels[k], outputs[k % LENGTH(outputs)], 1, FLIS_SAME);
    flis_free(&ctx);
}

/* The reason for blocks of 256: their sum is closer to the exact one than that of one chain (rms 3.1e-7 against 2.0e-6
   of the signal). */
void test_ops_blocks_beat_one_chain(void)
{
#ifndef FLIS_DOUBLE
    enum { K = 11520, TRIALS = 64 };
    static float b[K];
    double blocks = 0, chain = 0;
    flis_ctx ctx;
    flis_init(&ctx);
    ctx.naive = true;
    for (uint32_t trial = 0; trial < TRIALS; trial++) {
        const flis_mark mark = flis_here(&ctx);
        const flis_tensor *a = rows(&ctx, 1, 1, K, 100 + trial);
        flis_param w = {.rank = 2, .shape = {1, K}};
        double exact = 0;
        float single = 0;
        fill(b, K, 200 + trial);
        flis_param_set(&ctx, &w, b, false);
        for (size_t k = 0; k < K; k++) {
            exact += (double)a->x[k] * b[k];
            single = fmaf(a->x[k], b[k], single);
        }
        const flis_tensor *y = flis_linear(&ctx, a, &w, NULL, NULL);
        blocks += pow(y->x[0] - exact, 2);
        chain += pow(single - exact, 2);
        flis_free_visit(&ctx, NULL, NULL, &w);
        flis_rewind(&ctx, mark);
    }
    CHECK(blocks < chain / 4, "rms error of blocks %.3g, of one chain %.3g", sqrt(blocks / TRIALS),
          sqrt(chain / TRIALS));
    flis_free(&ctx);
#endif
}

/* ---- Normalisation ----------------------------------------------------------------------------------------------- */

/* groups 0: as in Stable Diffusion, 32. */
static void group_norm_case(flis_ctx *ctx, size_t n, size_t h, size_t w, size_t c, size_t groups, double eps)
{
    char what[96];
    flis_mark mark = flis_here(ctx);
    flis_tensor *x = image(ctx, n, h, w, c, 10);
    weight scale = weight_new(ctx, FLIS_F32, 1, c, 1, 1, 8), bias = weight_new(ctx, FLIS_F32, 1, c, 1, 1, 9);
    scale.param.groups = groups;
    for (int silu = 0; silu < 2; silu++) {
        snprintf(what, sizeof what, "group norm%s [%zu,%zu,%zu,%zu]", silu ? " and SiLU" : "", n, h, w, c);
        SAME(ctx, what, flis_group_norm(ctx, x, &scale.param, &bias.param, eps, silu));
    }
    weight_free(ctx, &scale);
    weight_free(ctx, &bias);
    flis_rewind(ctx, mark);
}

void test_ops_group_norm(void)
{
    const size_t sizes[][4] = {
        /* positions around strips of 256 */
        {1, 1, 1, 32},   {2, 3, 5, 64},   {1, 16, 16, 96}, {1, 17, 16, 32},  {1, 33, 17, 320},
        {3, 15, 17, 32}, {1, 257, 1, 64}, {2, 7, 73, 32},  {1, 16, 32, 128}, {1, 27, 19, 32},
    };
    flis_ctx ctx;
    flis_init(&ctx);
    for (size_t s = 0; s < LENGTH(sizes); s++) {
        ctx.threads = THREADS[s % THREAD_COUNTS];
        group_norm_case(&ctx, sizes[s][0], sizes[s][1], sizes[s][2], sizes[s][3], 0, s % 2 ? 1e-6 : 1e-5);
        group_norm_case(&ctx, sizes[s][0], sizes[s][1], sizes[s][2], sizes[s][3], (size_t)1 << s % 5,
                        s % 2 ? 1e-6 : 1e-5);
    }
    flis_free(&ctx);
}

static void layer_norm_case(flis_ctx *ctx, size_t n, size_t t, size_t c)
{
    char what[96];
    snprintf(what, sizeof what, "layer norm [%zu,%zu,%zu]", n, t, c);
    flis_mark mark = flis_here(ctx);
    flis_tensor *x = rows(ctx, n, t, c, 13);
    weight scale = weight_new(ctx, FLIS_F32, 1, c, 1, 1, 11), bias = weight_new(ctx, FLIS_F32, 1, c, 1, 1, 12);
    SAME(ctx, what, flis_layer_norm(ctx, x, &scale.param, &bias.param));
    weight_free(ctx, &scale);
    weight_free(ctx, &bias);
    flis_rewind(ctx, mark);
}

/* eps is PyTorch's 1e-5, in both forms, worked out by hand: of (0.001, -0.001) the variance is 1e-6, so y = 0.001 / sqrt(1.1e-5).
   Wrong: 1e-6 gives 0.7071. SPEC 15.7. */
static void layer_norm_eps(flis_ctx *ctx, bool naive)
{
    const flis_real one[2] = {1, 1}, zero[2] = {0, 0};
    flis_param w = {.rank = 1, .shape = {2}}, b = {.rank = 1, .shape = {2}};
    flis_tensor *x = flis_rows(ctx, 1, 1, 2);
    flis_param_set(ctx, &w, one, true);
    flis_param_set(ctx, &b, zero, true);
    x->x[0] = (flis_real)0.001;
    x->x[1] = (flis_real)-0.001;
    ctx->naive = naive;
    const flis_tensor *y = flis_layer_norm(ctx, x, &w, &b);
    CHECK(y && fabs(y->x[0] - 0.30151134) < 1e-6 && fabs(y->x[1] + 0.30151134) < 1e-6,
          "naive %d: got %g, wanted 0.3015", naive, y ? (double)y->x[0] : 0);
    ctx->naive = false;
    flis_free_visit(ctx, NULL, NULL, &w);
    flis_free_visit(ctx, NULL, NULL, &b);
}

void test_ops_layer_norm(void)
{
    const size_t widths[] = {1, 2, 8, 15, 16, 17, 31, 32, 33, 48, 320, 333, 768};
    flis_ctx ctx;
    flis_init(&ctx);
    for (size_t s = 0; s < LENGTH(widths); s++) layer_norm_case(&ctx, 1 + s % 3, 7, widths[s]);
    layer_norm_eps(&ctx, false);
    layer_norm_eps(&ctx, true);
    flis_free(&ctx);
}

/* ---- Elementwise ------------------------------------------------------------------------------------------------- */

/* SPEC 1.5: 10 terms in the float build, 14 in the double one. */
static double plain_exp(double x)
{
    const int terms = sizeof(flis_real) == 4 ? 10 : 14;
    double factorial[14] = {1};
    if (x < -708) return 0;
    if (x > 709) return HUGE_VAL;
    const double k = nearbyint(x * 1.4426950408889634), r = (x - k * 0x1.62e42fee00000p-1) - k * 0x1.a39ef35793c76p-33;
    for (int i = 1; i < terms; i++) factorial[i] = factorial[i - 1] * i;
    double sum = 1 / factorial[terms - 1];
    for (int i = terms - 2; i >= 0; i--) sum = sum * r + 1 / factorial[i];
    return ldexp(sum, (int)k);
}

/* SPEC 1.8: x / (1 + exp(-b x)) */
static flis_real plain_swish(flis_real x, double b)
{
    return (flis_real)(x / (1 + plain_exp(-b * x)));
}

/* SPEC 1.6: erfc(a) = exp(-a^2) p((a - 3) / (a + 3)) for a >= 0, p of 13 coefficients (float) or 23; 2 - erfc(-a) below. */
static double plain_erfc(double x)
{
    static const double p13[] = {
        -6.5475550390372634e-6,  -9.2705823003372271e-6, 6.3793930831972385e-5, 4.2687486390818274e-5,
        -0.00059743159159011462, 0.00070863022186413942, 0.0042693509447310628, -0.024392641958024205,
        0.071665796277249789,    -0.1501159274779515,    0.2456038043288539,    -0.32623356017126496,
        0.17900115115492726,
    };
    static const double p23[] = {
        1.9674703501081508e-10, -8.536978868707139e-10, -5.5900863029204106e-9,  1.1527211207561689e-9,
        4.2260360391949387e-8,  2.7726095125032085e-8,  -2.3079016386643261e-7,  -2.9299902292533344e-7,
        1.2504517763532595e-6,  2.1194128768606825e-6,  -7.9774269878766725e-6,  -1.2860273949326376e-5,
        6.4056397712138979e-5,  4.5255248253372724e-5,  -0.00059706192623191037, 0.00070774644553524259,
        0.0042691363309648293,  -0.024392499319140996,  0.071665837198060884,    -0.15011593650076217,
        0.24560380171232942,    -0.32623356004303737,   0.17900115118138995,
    };
    const double a = fabs(x), t = (a - 3) / (a + 3), *p = sizeof(flis_real) == 4 ? p13 : p23;
    const size_t terms = sizeof(flis_real) == 4 ? LENGTH(p13) : LENGTH(p23);
    double sum = p[0];
    for (size_t i = 1; i < terms; i++) sum = sum * t + p[i];
    const double y = plain_exp(-a * a) * sum;
    return x < 0 ? 2 - y : 0 + y; /* for large a, p is negative and y may be -0 */
}

/* SPEC 1.8: x * 0.5 * erfc(x * -0.70710678118654752) */
static flis_real plain_gelu(flis_real x)
{
    return (flis_real)(x * 0.5 * plain_erfc(x * -0.70710678118654752));
}

/* -0 and 0, the ends of the float range, around exp's ends at 708 and 709, and evenly spaced values between -30 and
   30. */
static flis_real gate_value(size_t i)
{
    static const double ends[] = {
        0.0,   1e-45, 1e-38, 0x1p-126, 1e-20, 1e-8,  87.3,  88.8, 103.9, 104.0,
        415.9, 416.6, 707.9, 708.0,    708.1, 709.0, 709.1, 1e4,  1e30,  3.4e38,
    };
    const double v = i / 2 < LENGTH(ends) ? ends[i / 2] : (double)(i % 6007) / 200 + 0.00123;
    return (flis_real)(i % 2 ? -v : v);
}

static void gates_case(flis_ctx *ctx, size_t n, size_t t, size_t c)
{
    flis_mark mark = flis_here(ctx);
    flis_tensor *x = flis_rows(ctx, n, t, 2 * c);
    const size_t count = flis_count(x);
    flis_real *silu = malloc(count * sizeof *silu), *quick = malloc(count * sizeof *quick),
              *geglu = malloc(count * sizeof *geglu);
    for (size_t i = 0; i < count; i++) {
        x->x[i] = gate_value(i);
        silu[i] = plain_swish(x->x[i], 1);
        quick[i] = plain_swish(x->x[i], 1.702);
    }
    for (size_t i = 0; i < n * t * c; i++) { /* the second half is the gate */
        const flis_real *row = x->x + i / c * 2 * c;
        geglu[i] = row[i % c] * plain_gelu(row[c + i % c]);
    }
    same(ctx, "SiLU", flis_silu(ctx, x), silu, count);
    same(ctx, "quick GELU", flis_quick_gelu(ctx, x), quick, count);
    same(ctx, "GEGLU", flis_geglu(ctx, x), geglu, n * t * c);
    free(silu);
    free(quick);
    free(geglu);
    flis_rewind(ctx, mark);
}

void test_ops_gates(void)
{
    flis_ctx ctx;
    flis_init(&ctx);
    const size_t widths[] = {1, 3, 7, 8, 15, 16, 17, 33, 500};
    for (size_t s = 0; s < LENGTH(widths); s++) gates_case(&ctx, 1 + s % 2, 41, widths[s]);
    flis_free(&ctx);
}

/* Operations that add, copy or transpose: sums, concatenation, scaling, embeddings, PyTorch's order and back. */
static void moves_case(flis_ctx *ctx, size_t n, size_t h, size_t w, size_t c, size_t other)
{
    flis_mark mark = flis_here(ctx);
    const size_t positions = n * h * w, count = positions * c;
    const flis_tensor *a = image(ctx, n, h, w, c, 14), *b = image(ctx, n, h, w, c, 15), *v = rows(ctx, n, 1, c, 16);
    const flis_tensor *wide = image(ctx, n, h, w, other, 17);
    flis_real *wanted = calloc(positions * (c + other), sizeof *wanted);
    for (size_t i = 0; i < count; i++) wanted[i] = a->x[i] + b->x[i];
    same(ctx, "add", flis_add(ctx, a, b), wanted, count);
    for (size_t i = 0; i < count; i++) wanted[i] = a->x[i] + v->x[i / (h * w * c) * c + i % c];
    same(ctx, "add to all positions", flis_add_to_all(ctx, a, v), wanted, count);
    for (size_t i = 0; i < count; i++) wanted[i] = a->x[i] * (flis_real)0.18215;
    same(ctx, "scale", flis_scale(ctx, a, 0.18215), wanted, count);
    for (size_t i = 0; i < positions * (c + other); i++) {
        const size_t at = i / (c + other), k = i % (c + other);
        wanted[i] = k < c ? a->x[at * c + k] : wide->x[at * other + k - c];
    }
    same(ctx, "concat", flis_concat(ctx, a, wide), wanted, positions * (c + other));
    flis_real *nchw = malloc(count * sizeof *nchw);
    for (size_t i = 0; i < count; i++) {
        const size_t x = i % w, y = i / w % h, k = i / w / h % c, sample = i / w / h / c;
        nchw[i] = a->x[((sample * h + y) * w + x) * c + k];
    }
    flis_to_nchw(a, wanted);
    CHECK(equal(wanted, nchw, count), "[%zu,%zu,%zu,%zu] to NCHW", n, h, w, c);
    same(ctx, "from NCHW", flis_from_nchw(ctx, nchw, n, c, h, w), a->x, count);
    const flis_tensor *as_rows = flis_as_rows(ctx, a);
    CHECK(as_rows && as_rows->rank == 3 && as_rows->h == h * w && as_rows->w == 1 && as_rows->x == a->x, "as rows");
    const flis_tensor *back = flis_as_image(ctx, as_rows, h, w);
    CHECK(back && back->rank == 4 && back->h == h && back->w == w && back->x == a->x, "as image");
    free(nchw);
    free(wanted);
    flis_rewind(ctx, mark);
}

static void embed_case(flis_ctx *ctx, size_t n, size_t tokens, size_t vocabulary, size_t c)
{
    flis_mark mark = flis_here(ctx);
    int32_t *ids = malloc(n * tokens * sizeof *ids);
    weight token = weight_new(ctx, FLIS_F32, 2, vocabulary, c, 1, 18),
           position = weight_new(ctx, FLIS_F32, 2, tokens, c, 1, 19);
    flis_real *wanted = calloc(n * tokens * c, sizeof *wanted);
    flis_param tables[2] = {token.param, position.param};
    for (int i = 0; i < 2; i++) tables[i].table = true;
    tables[0].value = token.value; /* an embedding is looked up unpacked */
    tables[1].value = position.value;
    for (size_t i = 0; i < n * tokens; i++) {
        ids[i] = (int32_t)((i * 7 + 3) % vocabulary);
        for (size_t k = 0; k < c; k++)
            wanted[i * c + k] = token.value[(size_t)ids[i] * c + k] + position.value[i % tokens * c + k];
    }
    same(ctx, "embed", flis_embed(ctx, ids, n, &tables[0], &tables[1]), wanted, n * tokens * c);
    ids[n * tokens - 1] = (int32_t)vocabulary;
    CHECK(!flis_embed(ctx, ids, n, &tables[0], &tables[1]) && strstr(ctx->error, "wanted 0 to"), "%s", ctx->error);
    ctx->error[0] = 0;
    free(wanted);
    free(ids);
    weight_free(ctx, &token);
    weight_free(ctx, &position);
    flis_rewind(ctx, mark);
}

void test_ops_moves(void)
{
    flis_ctx ctx;
    flis_init(&ctx);
    moves_case(&ctx, 1, 1, 1, 1, 1);
    moves_case(&ctx, 2, 3, 5, 7, 2);
    moves_case(&ctx, 3, 1, 9, 33, 64);
    moves_case(&ctx, 1, 8, 8, 32, 1);
    embed_case(&ctx, 1, 1, 1, 1);
    embed_case(&ctx, 3, 77, 514, 33);
    CHECK(!flis_add(&ctx, flis_rows(&ctx, 1, 2, 3), flis_rows(&ctx, 1, 3, 2)) && strstr(ctx.error, "same shape"), "%s",
          ctx.error);
    flis_free(&ctx);
}

/* ---- Attention --------------------------------------------------------------------------------------------------- */

typedef enum { UNMASKED, CAUSAL, RANDOM, MASKED, MASKED_COLUMNS } mask_kind;

/* The mask of one sample; RANDOM and MASKED_COLUMNS also mask every key of some rows. */
static uint8_t *mask_new(mask_kind kind, size_t tq, size_t tk)
{
    uint8_t *attended = calloc(tq * tk, 1);
    flis_real *x = malloc(tq * tk * sizeof *x);
    fill(x, tq * tk, 23);
    for (size_t i = 0; i < tq * tk; i++) {
        if (kind == RANDOM) attended[i] = i / tk % 5 != 4 && x[i] > 0;
        if (kind == MASKED_COLUMNS) attended[i] = i / tk % 7 != 6 && (i % tk == 0 || i % tk > tk / 2);
    }
    free(x);
    return attended;
}

static void attention_case(flis_ctx *ctx, size_t n, size_t tq, size_t tk, size_t heads, size_t d, double scale,
                           mask_kind kind)
{
    const char *const names[] = {"unmasked", "causal", "random", "masked", "masked columns"};
    char what[128];
    snprintf(what, sizeof what, "attention n %zu, %zu queries, %zu keys, %zu heads of %zu, %s", n, tq, tk, heads, d,
             names[kind]);
    flis_mark mark = flis_here(ctx);
    const flis_tensor *q = rows(ctx, n, tq, heads * d, 20), *k = rows(ctx, n, tk, heads * d, 21),
                      *v = rows(ctx, n, tk, heads * d, 22);
    uint8_t *attended = mask_new(kind, tq, tk);
    const uint8_t *masks[3] = {attended, NULL, attended}; /* the second sample has no mask */
    const flis_mask mask = {.causal = kind == CAUSAL, .attended = kind == UNMASKED || kind == CAUSAL ? NULL : masks};
    SAME(ctx, what, flis_attention(ctx, q, k, v, heads, scale, mask));
    free(attended);
    flis_rewind(ctx, mark);
}

void test_ops_attention(void)
{
    const size_t queries[] = {1, 2, 15, 16, 17, 23, 24, 25, 31, 32, 33, 47, 49, 63, 65, 77, 100};
    const size_t keys[] = {1, 2, 3, 4, 11, 12, 13, 77, 255, 256, 257, 513};
    const size_t heads[][2] = {{1, 1}, {1, 8}, {3, 13}, {2, 24}, {8, 5}, {2, 40}, {1, 80}, {1, 160}, {1, 257}};
    flis_ctx ctx;
    flis_init(&ctx);
    for (size_t i = 0; i < LENGTH(queries); i++)
        for (size_t j = 0; j < 5; j++) { /* each query count with each kind of mask */
            const size_t s = i * 5 + j, *shape = heads[s * 4 % LENGTH(heads)];
            ctx.threads = THREADS[s % THREAD_COUNTS];
            attention_case(&ctx, 1 + s % 3, queries[i], keys[s * 7 % LENGTH(keys)], shape[0], shape[1], 0.3,
                           (mask_kind)j);
        }
    for (size_t i = 0; i < LENGTH(keys); i++)
        attention_case(&ctx, 1, 33, keys[i], 2, 40, 60.0, UNMASKED); /* weights down to subnormals */
    attention_case(&ctx, 2, 64, 64, 8, 40, 0.15811388300841897, RANDOM);
    CHECK(!flis_attention(&ctx, flis_rows(&ctx, 1, 2, 6), flis_rows(&ctx, 1, 2, 6), flis_rows(&ctx, 1, 2, 6), 4, 1,
                          (flis_mask){0}),
          "6 channels for 4 heads");
    flis_free(&ctx);
}

/* Digests of an attention's intermediate tensors, in order. */
typedef struct insides {
    uint64_t hash[8];
    size_t count;
} insides;

static void take_inside(void *user, const char *name, const flis_tensor *x)
{
    insides *in = user;
    (void)name;
    if (in->count < LENGTH(in->hash)) in->hash[in->count++] = test_hash(x->x, flis_count(x) * sizeof *x->x);
}

static bool every_inside(void *user, const char *name, size_t count)
{
    (void)user;
    (void)name;
    (void)count;
    return true;
}

void test_ops_attention_traced(void)
{
    insides in[2] = {0};
    flis_ctx ctx;
    flis_init(&ctx);
    uint8_t *attended = mask_new(RANDOM, 33, 77);
    const uint8_t *masks[2] = {attended, NULL};
    const flis_tensor *q = rows(&ctx, 2, 33, 3 * 90, 20), *k = rows(&ctx, 2, 77, 3 * 90, 21),
                      *v = rows(&ctx, 2, 77, 3 * 90, 22);
    ctx.trace = take_inside;
    ctx.trace_wants = every_inside;
    for (int i = 0; i < 2; i++) {
        ctx.naive = i == 0;
        ctx.trace_user = &in[i];
        flis_trace_attention(&ctx, q, k, v, 3, 0.1, (flis_mask){.attended = masks}, "a");
    }
    CHECK(flis_ok(&ctx) && in[0].count == 6, "%zu tensors, wanted q, k, v, scores, mask, weights: %s", in[0].count,
          ctx.error);
    CHECK(memcmp(&in[0], &in[1], sizeof in[0]) == 0, "the intermediate tensors differ from their definition");
    free(attended);
    flis_free(&ctx);
}

/* ---- Threads ----------------------------------------------------------------------------------------------------- */

/* Each operation with enough work to be split among threads (2^24 multiply-adds, 2^19 values), in sizes that no number
   of threads divides. */
/* slow */
void test_ops_threads(void)
{
    for (size_t i = 0; i < THREAD_COUNTS; i++) {
        flis_ctx ctx;
        flis_init(&ctx);
        ctx.threads = THREADS[i];
        linear_case(&ctx, FLIS_F32, 1, 203, 321, 271);
        linear_case(&ctx, FLIS_F16, 1, 1031, 257, 65);
        conv_case(&ctx, FLIS_F32, 1, 31, 29, 33, 65, 3, FLIS_SAME);
        conv_case(&ctx, FLIS_F32, 1, 17, 15, 32, 61, 3, FLIS_UPSAMPLE2);
        conv_case(&ctx, FLIS_BF16, 1, 61, 62, 33, 65, 3, FLIS_STRIDE2_ASYMMETRIC);
        group_norm_case(&ctx, 1, 127, 131, 32, 0, 1e-5);
        layer_norm_case(&ctx, 1, 1031, 511);
        gates_case(&ctx, 1, 1031, 511);
        moves_case(&ctx, 1, 127, 131, 33, 31);
        attention_case(&ctx, 1, 290, 301, 2, 97, 0.3, RANDOM);
        attention_case(&ctx, 3, 77, 301, 1, 130, 0.1, CAUSAL);
        flis_free(&ctx);
    }
}
