/* test_tensor.c - elementary functions and activations against libm; number formats exhaustively; the arena; files of
 * tensors. test_ops.c compares operations to the bit.
 */
#include "tests/unit/test.h"

#include <float.h>

/* Deterministic values in (-1, 1). */
static void fill(flis_real *x, size_t count, uint32_t seed)
{
    const size_t shape[2] = {1, 2};
    char name[32];
    snprintf(name, sizeof name, "test%u", seed);
    flis_formula_weights(name, 2, shape, 0, count, x);
}

static bool equal(const flis_real *a, const flis_real *b, size_t count)
{
    return memcmp(a, b, count * sizeof *a) == 0;
}

/* ---- Elementwise ----------------------------------------------------------------------------------------------- */

/* The difference from libm's answer in double is within half a unit in flis_real's last place, plus a little for the
   function's own error. */
static double off_by(flis_real got, double wanted)
{
    double unit = fmax(fabs(wanted), (double)FLT_MIN) * (sizeof(flis_real) == 4 ? 0x1p-24 : 0x1p-50);
    return fabs((double)got - wanted) / unit;
}

void test_tensor_elementwise(void)
{
    enum { COUNT = 4001 };
    flis_ctx ctx;
    flis_init(&ctx);
    flis_tensor *x = flis_rows(&ctx, 1, COUNT, 2);
    for (size_t i = 0; i < COUNT; i++) {
        x->x[2 * i] = (flis_real)1;
        x->x[2 * i + 1] = (flis_real)(((double)i - 2000) / 100 + 0.00123);
    }
    flis_tensor *silu = flis_silu(&ctx, x), *quick = flis_quick_gelu(&ctx, x), *geglu = flis_geglu(&ctx, x);
    CHECK(flis_ok(&ctx), "%s", ctx.error);
    double worst[3] = {0};
    for (size_t i = 0; i < COUNT; i++) {
        double v = x->x[2 * i + 1];
        worst[0] = fmax(worst[0], off_by(silu->x[2 * i + 1], v / (1 + exp(-v))));
        worst[1] = fmax(worst[1], off_by(quick->x[2 * i + 1], v / (1 + exp(-1.702 * v))));
        /* for large negative x Phi is tiny, and only the absolute error matters */
        double gelu = v * 0.5 * erfc(-v / sqrt(2));
        worst[2] = fmax(worst[2], v > -4 ? off_by(geglu->x[i], gelu) : fabs(geglu->x[i] - gelu) * 1e9);
    }
    CHECK(worst[0] <= 1.01 && worst[1] <= 1.01, "SiLU is %.3f units off, quick GELU %.3f", worst[0], worst[1]);
    CHECK(worst[2] <= 1.2, "GEGLU is %.3f units off", worst[2]);
    /* Wrong: tanh GELU instead of erf; the gate in the first half. SPEC 15.8. */
    double v = 1.5, tanh_gelu = 0.5 * v * (1 + tanh(sqrt(2 / acos(-1)) * (v + 0.044715 * v * v * v)));
    CHECK(fabs(tanh_gelu - v * 0.5 * erfc(-v / sqrt(2))) > 1e-5, "tanh GELU is not detected");
    flis_real out_of_order[2] = {2, 0.5};
    flis_tensor *pair = flis_rows(&ctx, 1, 1, 2);
    memcpy(pair->x, out_of_order, sizeof out_of_order);
    flis_tensor *gated = flis_geglu(&ctx, pair);
    CHECK(fabs((double)gated->x[0] - 2 * 0.5 * 0.5 * erfc(-0.5 / sqrt(2))) < 1e-6, "GEGLU gates with the first half");
    flis_free(&ctx);
}

void test_tensor_functions(void)
{
    double worst_exp = 0, worst_log = 0, worst_sin = 0, worst_erfc = 0;
    for (int i = -70000; i <= 70000; i++) {
        double x = i / 100.0 + 1e-3;
        worst_exp = fmax(worst_exp, fabs(flis_exp(x) / exp(x) - 1));
        worst_sin = fmax(worst_sin, fmax(fabs(flis_sin(x * 10) - sin(x * 10)), fabs(flis_cos(x * 10) - cos(x * 10))));
        double y = ldexp(1 + fabs(x) / 701, i % 900);
        worst_log = fmax(worst_log, fabs(flis_log(y) - log(y)) / fmax(fabs(log(y)), 1e-3));
        worst_erfc = fmax(worst_erfc, fabs(flis_erfc(x / 100) - erfc(x / 100)));
    }
    CHECK(worst_exp <= 5e-16, "exp: relative error %.3g", worst_exp);
    CHECK(worst_log <= 5e-16, "log: relative error %.3g", worst_log);
    CHECK(worst_sin <= 3e-16, "sin, cos: error %.3g", worst_sin);
    CHECK(worst_erfc <= 1e-15, "erfc: error %.3g", worst_erfc);
    CHECK(flis_exp(-1e300) == 0 && flis_exp(-(double)FLT_MAX) == 0 && flis_exp(0) == 1, "exp at its ends");
    CHECK(isinf(flis_exp(1000)) && isnan(flis_exp(NAN)) && isinf(flis_log(0)) && isnan(flis_log(-1)),
          "exp and log outside");
}

/* ---- Number formats -------------------------------------------------------------------------------------------- */

static float float_of(uint32_t u)
{
    float x;
    memcpy(&x, &u, sizeof x);
    return x;
}

void test_tensor_half(void)
{
    size_t wrong = 0;
    for (uint32_t u = 0; u < 65536; u++) {
        float x = flis_half_to_float((uint16_t)u);
        uint32_t e = u >> 10 & 31, f = u & 1023;
        double wanted = e == 31 ? (f ? NAN : INFINITY) : e ? ldexp(1024.0 + f, (int)e - 25) : ldexp(f, -24);
        if (u & 0x8000) wanted = -wanted;
        if (!(isnan(wanted) ? isnan(x) : x == wanted && !signbit(x) == !signbit(wanted))) wrong++;
        if (!isnan(wanted) && flis_float_to_half(x) != u) wrong++;
        if (flis_float_to_bf16(flis_bf16_to_float((uint16_t)u)) != u && !isnan(flis_bf16_to_float((uint16_t)u)))
            wrong++;
    }
    CHECK(wrong == 0, "%zu halves are converted wrongly", wrong);
    const struct {
        float x;
        uint16_t half;
    } edges[] = {
        /* ties to even, overflow, underflow */
        {1 + 0x1p-11f, 0x3c00}, {1 + 0x3p-11f, 0x3c02}, {65519.996f, 0x7bff},   {65520, 0x7c00},
        {1e30f, 0x7c00},        {0x1p-25f, 0},          {0x1.000002p-25f, 1},   {0x3p-25f, 2},
        {-0x1p-24f, 0x8001},    {0x1.ff8p-15f, 0x03ff}, {0x1.ffcp-15f, 0x0400},
    };
    for (size_t i = 0; i < sizeof edges / sizeof *edges; i++)
        CHECK(flis_float_to_half(edges[i].x) == edges[i].half, "%a: got %04x, wanted %04x", (double)edges[i].x,
              flis_float_to_half(edges[i].x), edges[i].half);
    CHECK(flis_float_to_bf16(float_of(0x3f808000)) == 0x3f80 && flis_float_to_bf16(float_of(0x3f818000)) == 0x3f82 &&
              isnan(flis_bf16_to_float(flis_float_to_bf16(NAN))),
          "bf16 ties and NaN");
}

/* ---- Arena ------------------------------------------------------------------------------------------- */

void test_tensor_arena(void)
{
    flis_ctx ctx;
    flis_init(&ctx);
    flis_tensor *first = flis_rows(&ctx, 1, 10, 10);
    fill(first->x, 100, 30);
    flis_mark mark = flis_here(&ctx);
    flis_tensor *y = NULL;
    for (size_t i = 0; i < 20; i++) { /* through several chunks */
        flis_tensor *other = flis_rows(&ctx, 1, 300, 500 + i);
        y = flis_rows(&ctx, 1, 300, 400 + i);
        fill(y->x, flis_count(y), (uint32_t)(40 + i));
        fill(other->x, 1, 1);
    }
    size_t before = ctx.arena.used;
    y = flis_keep(&ctx, mark, y);
    flis_real *wanted = malloc(flis_count(y) * sizeof *wanted);
    fill(wanted, flis_count(y), 59);
    CHECK(equal(wanted, y->x, flis_count(y)), "the kept tensor's values changed");
    CHECK(ctx.arena.used < before && ctx.arena.peak == before, "used %zu, peak %zu", ctx.arena.used, ctx.arena.peak);
    fill(wanted, 100, 30);
    CHECK(equal(wanted, first->x, 100), "an older tensor's values changed");
    free(wanted);
    flis_dry dry;
    size_t used = ctx.arena.used;
    CHECK(flis_dry_begin(&ctx, &dry), "a dry run fails");
    flis_tensor *big = flis_rows(&ctx, 1, (size_t)1 << 20, (size_t)1 << 8);
    CHECK(big && !big->x, "a tensor of a dry run has memory");
    flis_rewind(&ctx, dry.mark);
    flis_dry_end(&ctx, &(flis_dry){dry.mark, dry.peak, dry.macs});
    CHECK(ctx.arena.used == used && flis_ok(&ctx), "dry: %s", ctx.error);
    CHECK(!flis_rows(&ctx, SIZE_MAX / 2, 3, 1) && strstr(ctx.error, "out of memory"), "%s", ctx.error);
    CHECK(!flis_rows(&ctx, 1, 1, 1), "a failed context allocates memory");
    flis_free(&ctx);
}

/* ---- Arguments ------------------------------------------------------------------------------------------------- */

/* An operation must have failed with these words. Clears the context's error. */
static void refused(flis_ctx *ctx, const char *what, bool done, const char *says)
{
    CHECK(!done && strstr(ctx->error, says), "%s: got \"%s\", wanted \"…%s…\"", what, ctx->error, says);
    ctx->error[0] = 0;
}

static flis_param weight_of(flis_ctx *ctx, int rank, size_t a, size_t b, size_t size)
{
    static const flis_real values[4 * 4 * 25];
    flis_param w = {.rank = rank, .shape = {a, b, size, size}};
    flis_param_set(ctx, &w, values, false);
    return w;
}

/* Operations on tensors without values have results without values; attention needs keys. Wrong: a division by 0. */
void test_tensor_empty(void)
{
    static const size_t sides[3][3] = {{0, 2, 2}, {1, 0, 2}, {1, 2, 0}};
    for (int run = 0; run < 6; run++) {
        flis_ctx ctx;
        flis_init(&ctx);
        ctx.naive = run % 2;
        flis_param w = weight_of(&ctx, 2, 4, 4, 1), kernel = weight_of(&ctx, 4, 4, 4, 3),
                   b = weight_of(&ctx, 1, 4, 1, 1);
        b.groups = 2;
        const size_t *side = sides[run / 2];
        flis_tensor *x = flis_image(&ctx, side[0], side[1], side[2], 4), *rows = flis_as_rows(&ctx, x);
        CHECK(flis_linear(&ctx, x, &w, &b, x), "%s", ctx.error);
        for (int kind = FLIS_SAME; kind <= FLIS_UPSAMPLE2; kind++)
            CHECK(flis_conv(&ctx, x, &kernel, &b, (flis_conv_kind)kind, NULL), "kind %d: %s", kind, ctx.error);
        CHECK(flis_group_norm(&ctx, x, &b, &b, 1e-5, true) && flis_layer_norm(&ctx, x, &b, &b), "%s", ctx.error);
        CHECK(flis_attention(&ctx, rows, rows, rows, 2, 1, (flis_mask){0}), "%s", ctx.error);
        if (side[0])
            refused(&ctx, "keys", flis_attention(&ctx, flis_rows(&ctx, 1, 3, 4), rows, rows, 2, 1, (flis_mask){0}),
                    "attention: got 0 keys, wanted 1 or more");
        flis_free_visit(&ctx, NULL, NULL, &w);
        flis_free_visit(&ctx, NULL, NULL, &kernel);
        flis_free_visit(&ctx, NULL, NULL, &b);
        flis_free(&ctx);
    }
}

/* Each invalid argument of an operation fails with a message. */
void test_tensor_arguments(void)
{
    flis_ctx c, *ctx = &c;
    flis_init(ctx);
    flis_tensor *x = flis_image(ctx, 1, 3, 5, 4), *other = flis_image(ctx, 1, 5, 3, 4),
                *narrow = flis_vectors(ctx, 1, 3);
    fill(x->x, flis_count(x), 1);
    fill(other->x, flis_count(other), 2);
    fill(narrow->x, flis_count(narrow), 3);
    flis_param w = weight_of(ctx, 2, 4, 4, 1), wide = weight_of(ctx, 2, 4, 3, 1), kernel = weight_of(ctx, 4, 4, 4, 3),
               large = weight_of(ctx, 4, 4, 4, 5), b = weight_of(ctx, 1, 4, 1, 1), few = weight_of(ctx, 1, 3, 1, 1),
               table = {.rank = 2, .shape = {4, 4}, .table = true}, absent = {.rank = 2, .shape = {4, 4}},
               no_norm = {.rank = 1, .shape = {4}};
    static const flis_real rows[16];
    b.groups = 2;
    flis_param_set(ctx, &table, rows, false);
    CHECK(flis_ok(ctx), "%s", ctx->error);
    const int threads[] = {0, -3};
    for (int i = 0; i < 2; i++) {
        ctx->threads = threads[i];
        refused(ctx, "threads", flis_linear(ctx, x, &w, &b, NULL), "threads, wanted 1 or more");
        refused(ctx, "threads", flis_conv(ctx, x, &kernel, &b, FLIS_SAME, NULL), "wanted 1 or more");
        refused(ctx, "threads", flis_group_norm(ctx, x, &b, &b, 1e-5, true), "wanted 1 or more");
        refused(ctx, "threads", flis_silu(ctx, x), "wanted 1 or more");
        refused(ctx, "threads", flis_attention(ctx, x, x, x, 2, 1, (flis_mask){0}), "wanted 1 or more");
        refused(ctx, "threads", flis_mse(ctx, x, other->x, NULL, 1) != 0, "wanted 1 or more");
    }
    ctx->threads = 1;
    refused(ctx, "NULL", flis_linear(ctx, NULL, &w, &b, NULL), "linear: x: got NULL");
    refused(ctx, "NULL", flis_linear(ctx, x, NULL, &b, NULL), "linear: w: got NULL");
    refused(ctx, "NULL", flis_conv(ctx, NULL, &kernel, &b, FLIS_SAME, NULL), "convolution: x: got NULL");
    refused(ctx, "NULL", flis_group_norm(ctx, x, &b, NULL, 1e-5, false), "group norm: bias: got NULL");
    refused(ctx, "NULL", flis_layer_norm(ctx, x, NULL, &b), "layer norm: weight: got NULL");
    refused(ctx, "NULL", flis_quick_gelu(ctx, NULL), "quick GELU: x: got NULL");
    refused(ctx, "NULL", flis_geglu(ctx, NULL), "GEGLU: x: got NULL");
    refused(ctx, "NULL", flis_add(ctx, x, NULL), "add: b: got NULL");
    refused(ctx, "NULL", flis_add_to_all(ctx, x, NULL), "add to all positions: v: got NULL");
    refused(ctx, "NULL", flis_scale(ctx, NULL, 2), "scale: x: got NULL");
    refused(ctx, "NULL", flis_concat(ctx, NULL, x), "concat: a: got NULL");
    refused(ctx, "NULL", flis_embed(ctx, NULL, 1, &table, &table), "embed: ids: got NULL");
    refused(ctx, "NULL", flis_attention(ctx, x, x, NULL, 2, 1, (flis_mask){0}), "attention: v: got NULL");
    refused(ctx, "NULL", flis_mse(ctx, x, NULL, NULL, 1) != 0, "loss: target: got NULL");
    refused(ctx, "NULL", flis_cross_entropy(ctx, x, NULL, -1, 1) != 0, "cross entropy: label: got NULL");
    refused(ctx, "NULL", flis_posterior_sample(ctx, x, NULL), "posterior: noise: got NULL");
    refused(ctx, "NULL", flis_as_rows(ctx, NULL), "as rows: x: got NULL");
    refused(ctx, "NULL", flis_from_nchw(ctx, NULL, 1, 1, 1, 1), "from NCHW: x: got NULL");
    refused(ctx, "NULL", flis_param_set(ctx, &w, NULL, false), "weight: values: got NULL");
    refused(ctx, "NULL", flis_tape_begin(ctx, NULL), "tape: tape: got NULL");
    refused(ctx, "shape", flis_linear(ctx, x, &wide, NULL, NULL), "linear: got 4 channels, wanted 3");
    refused(ctx, "shape", flis_linear(ctx, x, &kernel, NULL, NULL), "linear: got a 3 x 3 kernel, wanted 1 x 1");
    refused(ctx, "shape", flis_linear(ctx, x, &b, NULL, NULL), "linear: got weights of 1 dimensions, wanted 2 or 4");
    refused(ctx, "shape", flis_linear(ctx, x, &w, &few, NULL), "linear: got 3 biases, wanted 4");
    refused(ctx, "shape", flis_linear(ctx, x, &w, NULL, other), "the tensor to be added: got [1,3,5,4] and [1,5,3,4]");
    refused(ctx, "kind", flis_conv(ctx, x, &kernel, NULL, (flis_conv_kind)9, NULL),
            "convolution: got kind 9, wanted one");
    ctx->precision = (flis_precision)9;
    refused(ctx, "precision", flis_add(ctx, x, x), "context: got precision 9, wanted one from FLIS_EXACT (0)");
    ctx->precision = FLIS_EXACT;
    refused(ctx, "shape", flis_conv(ctx, x, &large, NULL, FLIS_SAME, NULL), "wanted 1 x 1 or 3 x 3");
    refused(ctx, "rank", flis_conv(ctx, flis_as_rows(ctx, x), &kernel, NULL, FLIS_SAME, NULL),
            "convolution: got a tensor of 3 dimensions, wanted 4");
    refused(ctx, "shape", flis_conv(ctx, x, &w, NULL, FLIS_STRIDE2, NULL), "wanted 3 x 3 where the size changes");
    refused(ctx, "shape", flis_group_norm(ctx, narrow, &b, &b, 1e-5, false), "group norm: got 3 channels, wanted 4");
    refused(ctx, "shape", flis_layer_norm(ctx, narrow, &b, &b), "layer norm: got 3 channels, wanted 4");
    refused(ctx, "shape", flis_geglu(ctx, narrow), "GEGLU: got 3 channels, wanted an even number");
    refused(ctx, "shape", flis_add(ctx, x, other), "add: got [1,3,5,4] and [1,5,3,4], wanted the same shape");
    refused(ctx, "shape", flis_add_to_all(ctx, x, narrow), "add to all positions: got [1,1,3], wanted [1,1,4]");
    refused(ctx, "shape", flis_concat(ctx, x, other), "concat: got 3 x 5 and 5 x 3 positions");
    refused(ctx, "shape", flis_attention(ctx, x, x, x, 3, 1, (flis_mask){0}), "got 4 channels for 3 heads");
    refused(ctx, "shape", flis_as_image(ctx, x, 2, 2), "as image: got 15 rows, wanted 2 x 2");
    refused(ctx, "not loaded", flis_linear(ctx, x, &absent, NULL, NULL), "linear: the weights were not loaded");
    refused(ctx, "not loaded", flis_layer_norm(ctx, x, &no_norm, &b), "layer norm: the weights were not loaded");
    refused(ctx, "not loaded", flis_embed(ctx, (const int32_t[4]){0}, 1, &absent, &absent), "were not loaded");
    refused(ctx, "id", flis_embed(ctx, (const int32_t[4]){0, 1, 4, 2}, 1, &table, &table), "token 2: got id 4");
    refused(ctx, "id", flis_embed(ctx, (const int32_t[4]){-1}, 1, &table, &table), "token 0: got id -1, wanted 0 to 3");
    flis_tape tape = {0};
    ctx->naive = true;
    refused(ctx, "tape", flis_tape_begin(ctx, &tape), "train with the fast code");
    flis_fail(ctx, "the first sentence");
    CHECK(!flis_add(ctx, NULL, NULL) && strcmp(ctx->error, "the first sentence") == 0, "%s", ctx->error);
    flis_param *all[] = {&w, &wide, &kernel, &large, &b, &few, &table};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) flis_free_visit(ctx, NULL, NULL, all[i]);
    flis_free(ctx);
}

/* A context that was not initialised by flis_init, zero or garbage, gives an error message, not a crash. */
void test_tensor_uninitialised(void)
{
    for (int i = 0; i < 2; i++) {
        flis_ctx ctx;
        memset(&ctx, i ? 0xA5 : 0, sizeof ctx);
        CHECK(!flis_rows(&ctx, 1, 2, 3) && strstr(ctx.error, "call flis_init"), "rows: %.80s", ctx.error);
        memset(&ctx, i ? 0xA5 : 0, sizeof ctx);
        CHECK(!flis_silu(&ctx, NULL) && strstr(ctx.error, "call flis_init"), "SiLU: %.80s", ctx.error);
        memset(&ctx, i ? 0xA5 : 0, sizeof ctx);
        CHECK(!flis_alloc(&ctx, 1, 1) && strstr(ctx.error, "call flis_init"), "memory: %.80s", ctx.error);
        flis_free(&ctx);
    }
    flis_ctx plain = FLIS_CTX_PLAIN;
    CHECK(flis_silu(&plain, flis_rows(&plain, 1, 2, 3)), "plain: %s", plain.error);
    flis_free(&plain);
}

/* ---- Files ----------------------------------------------------------------------------------------------------- */

void test_tensor_file_round_trip(void)
{
    flis_ctx ctx;
    flis_init(&ctx);
    const char *path = test_scratch("round.safetensors");
    flis_writer *out = flis_write_begin(&ctx, path);
    const flis_real x[6] = {1, (flis_real)-2.5, 0, (flis_real)1e-3, (flis_real)65504, (flis_real)0.333};
    const int64_t ids[3] = {-1, INT64_MAX, INT64_MIN};
    const uint8_t bytes[4] = {0, 1, 254, 255};
    const double exact[2] = {0.1, -1e300};
    flis_write_metadata(&ctx, out, "a \"key\"", "line\nbreak");
    flis_write_declare(&ctx, out, "x", FLIS_F32, 2, (const uint64_t[]){2, 3});
    flis_write_declare(&ctx, out, "empty", FLIS_F32, 1, (const uint64_t[]){0});
    flis_write_declare(&ctx, out, "half", FLIS_F16, 1, (const uint64_t[]){6});
    flis_write_declare(&ctx, out, "ids", FLIS_I64, 1, (const uint64_t[]){3});
    flis_write_declare(&ctx, out, "bytes", FLIS_U8, 1, (const uint64_t[]){4});
    flis_write_declare(&ctx, out, "exact", FLIS_F64, 1, (const uint64_t[]){2});
    flis_write_declare(&ctx, out, "scalar", FLIS_BF16, 0, NULL);
    flis_write_real(&ctx, out, x, 6);
    flis_write_real(&ctx, out, x, 2);
    flis_write_real(&ctx, out, x + 2, 4);
    flis_write_i64(&ctx, out, ids, 3);
    flis_write_u8(&ctx, out, bytes, 4);
    flis_write_f64(&ctx, out, exact, 2);
    flis_write_real(&ctx, out, x, 1);
    CHECK(flis_write_end(&ctx, out), "%s", ctx.error);
    flis_file *in = flis_file_open(&ctx, path);
    CHECK(in && in->count == 7, "%s", ctx.error);
    if (in) {
        flis_real back[6];
        int64_t ids_back[3];
        double exact_back[2];
        const char *text = flis_file_metadata(in, "a \"key\"");
        CHECK(text && strcmp(text, "line\nbreak") == 0, "metadata: %s", text ? text : "(none)");
        CHECK(flis_file_read_real(&ctx, in, flis_file_find(in, "x"), back) && back[1] == (flis_real)-2.5, "x: %s",
              ctx.error);
        CHECK(flis_file_read_i64(&ctx, in, flis_file_find(in, "ids"), ids_back) &&
                  memcmp(ids, ids_back, sizeof ids) == 0,
              "ids");
        CHECK(flis_file_read_f64(&ctx, in, flis_file_find(in, "exact"), exact_back) && exact_back[1] == -1e300,
              "exact");
        CHECK(flis_file_read_real(&ctx, in, flis_file_find(in, "half"), back) && back[4] == 65504, "half");
        CHECK(flis_file_read_real(&ctx, in, flis_file_find(in, "scalar"), back) && back[0] == 1, "scalar");
        CHECK(flis_file_find(in, "empty")->end == flis_file_find(in, "empty")->begin && !flis_file_find(in, "y"),
              "empty, y");
    }
    flis_file_close(in);
    const char *unfinished = test_scratch("unfinished.safetensors");
    out = flis_write_begin(&ctx, unfinished);
    flis_write_declare(&ctx, out, "x", FLIS_F32, 1, (const uint64_t[]){6});
    flis_write_real(&ctx, out, x, 5);
    CHECK(!flis_write_end(&ctx, out) && strstr(ctx.error, "not written"), "a value short: %s", ctx.error);
    FILE *left = fopen(unfinished, "rb");
    CHECK(!left, "an unfinished file has the final name");
    if (left) fclose(left);
    flis_free(&ctx);
}

/* Damaged files and the words that the message must contain. test_checkpoints.c does the same for checkpoints. */
void test_tensor_file_damaged(void)
{
    const struct {
        const char *header;
        size_t data;
        const char *says;
    } cases[] = {
        {"{", 0, "1:"},
        {"[]", 0, "not a JSON object"},
        {"{\"a\":1}", 0, "wanted an object"},
        {"{\"a\":{\"dtype\":33,\"shape\":[1],\"data_offsets\":[0,4]}}", 4, "wanted a name like F32"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,4]}}", 4, "8 bytes"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 3, "cut short"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 5, "too long"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]}}", 8, "hole"},
        {"{\"a\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]},\"b\":{\"dtype\":\"U8\",\"shape\":[2],\"data_"
         "offsets\":[1,3]}}",
         3, "overlap"},
        {"{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]},\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_"
         "offsets\":[1,2]}}",
         2, "duplicated"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[4294967296,4294967296],\"data_offsets\":[0,4]}}", 4, "2^64"},
        {"{\"a\":{\"dtype\":\"U8\",\"shape\":[-1],\"data_offsets\":[0,1]}}", 1, "non-negative"},
        {"{\"a\":{\"dtype\":\"U8\",\"shape\":[1,1,1,1,1,1,1,1,1],\"data_offsets\":[0,1]}}", 1, "9 dimensions"},
        {"{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0]}}", 1, "data_offsets"},
        {"{\"__metadata__\":{\"k\":1}}", 0, "wanted a string"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        flis_ctx ctx;
        flis_init(&ctx);
        const char *path = test_scratch("damaged.safetensors");
        size_t length = strlen(cases[i].header);
        FILE *f = fopen(path, "wb");
        for (int b = 0; b < 8; b++) putc((int)((uint64_t)length >> 8 * b & 255), f);
        fputs(cases[i].header, f);
        for (size_t b = 0; b < cases[i].data; b++) putc(0, f);
        fclose(f);
        flis_file *file = flis_file_open(&ctx, path);
        CHECK(!file && strstr(ctx.error, cases[i].says), "case %zu: got \"%s\", wanted \"…%s…\"", i, ctx.error,
              cases[i].says);
        flis_file_close(file);
        flis_free(&ctx);
    }
    flis_ctx ctx;
    flis_init(&ctx);
    FILE *f = fopen(test_scratch("short"), "wb");
    fputs("\xff\xff\xff\xff\xff\xff\xff\x7f{}", f);
    fclose(f);
    CHECK(!flis_file_open(&ctx, test_scratch("short")) && strstr(ctx.error, "header"), "%s", ctx.error);
    ctx.error[0] = 0;
    CHECK(!flis_file_open(&ctx, test_scratch("absent")) && strstr(ctx.error, "cannot be opened"), "%s", ctx.error);
    flis_free(&ctx);
}

/* Values computed independently of the C code (in Python, from the formula in the header). */
void test_tensor_formula(void)
{
    flis_real x[3];
    flis_formula_weights("model.diffusion_model.time_embed.0.weight", 2, (const size_t[]){128, 32}, 0, 3, x);
    CHECK(x[0] == (flis_real)-0x1.e7511c0000000p-3 && x[2] == (flis_real)-0x1.36ddc40000000p-3,
          "time_embed.0.weight: got %.9g, %.9g", (double)x[0], (double)x[2]);
    flis_formula_weights("model.diffusion_model.out.0.weight", 1, (const size_t[]){32}, 5, 1, x);
    CHECK(x[0] == (flis_real)0x1.05386b4000000p+0, "out.0.weight: got %.9g", (double)x[0]);
    flis_formula_weights("model.diffusion_model.out.2.bias", 1, (const size_t[]){4}, 3, 1, x);
    CHECK(x[0] == (flis_real)0x1.839e600000000p-9, "out.2.bias: got %.9g", (double)x[0]);
    flis_real tie[3]; /* fan_in 6, 24, 96: log2(sqrt(3 / fan_in)) = -0.5, -1.5, -2.5, to even: 0, -2, -2 */
    const size_t fans[] = {6, 24, 96};
    for (int i = 0; i < 3; i++) {
        flis_real unit, scaled;
        flis_formula_weights("tie", 2, (const size_t[]){1, 2}, 0, 1, &unit); /* 2^0 */
        flis_formula_weights("tie", 2, (const size_t[]){1, fans[i]}, 0, 1, &scaled);
        tie[i] = scaled / unit;
    }
    CHECK(tie[0] == 1 && tie[1] == (flis_real)0.25 && tie[2] == (flis_real)0.25, "ties: got %g, %g, %g", (double)tie[0],
          (double)tie[1], (double)tie[2]);
}

/* One error lists every missing tensor and every tensor of a wrong shape. */
void test_tensor_load_lists(void)
{
    flis_ctx ctx;
    flis_init(&ctx);
    const char *path = test_scratch("lists.safetensors"), *text = "cond_stage_model.transformer.text_model.";
    char name[128];
    flis_writer *out = flis_write_begin(&ctx, path);
    snprintf(name, sizeof name, "%sembeddings.token_embedding.weight", text);
    flis_write_declare(&ctx, out, name, FLIS_F32, 2, (const uint64_t[]){10, 64});
    snprintf(name, sizeof name, "%sembeddings.position_embedding.weight", text);
    flis_write_declare(&ctx, out, name, FLIS_F32, 2, (const uint64_t[]){77, 32});
    flis_real *zeros = calloc(77 * 64, sizeof *zeros);
    flis_write_real(&ctx, out, zeros, 10 * 64);
    flis_write_real(&ctx, out, zeros, 77 * 32);
    free(zeros);
    CHECK(flis_write_end(&ctx, out), "%s", ctx.error);
    flis_file *file = flis_file_open(&ctx, path);
    CHECK(!flis_clip_load(&ctx, file), "an incomplete text encoder was loaded");
    CHECK(strstr(ctx.error, "19 tensors") && strstr(ctx.error, "got shape [77,32], wanted [77,64]") &&
              strstr(ctx.error, "final_layer_norm.weight: missing") &&
              strstr(ctx.error, "final_layer_norm.bias: missing"),
          "%s", ctx.error);
    flis_file_close(file);
    flis_free(&ctx);
}

/* FIPS 180-4's examples (NIST's SHA256.pdf), in one piece and byte by byte; the lengths around a block's end against
   sha256sum(1); and a tensor's digest against that of its values in the order of files. */
void test_tensor_sha256(void)
{
    static const struct {
        const char *text;
        size_t times;
        const char *hex;
    } CASES[] = {
        {"", 1, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
        {"abc", 1, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"},
        {"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq", 1,
         "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"},
        {"a", 1000000, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0"},
        {"a", 55, "9f4390f8d30c2dd92ec9f095b65e2b9ae9b0a925a5258e241c9f1e910f734318"},
        {"a", 56, "b35439a4ac6f0948b6d6f9e3c6af0f5f590ce20f1bde7090ef7970686ec6738a"},
        {"a", 63, "7d3e74a05d7db15bce4ad9ec0658ea98e3f06eeecf16b4c6fff2da457ddc2f34"},
        {"a", 64, "ffe054fe7ae0cb6dc65c3af9b61d5209f439851db43d0ba5997337df154668eb"},
    };
    char hex[65];
    flis_sha256 s;
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        flis_sha256_begin(&s);
        for (size_t t = 0; t < CASES[i].times; t++) flis_sha256_add(&s, CASES[i].text, strlen(CASES[i].text));
        flis_sha256_end(&s, hex);
        CHECK(strcmp(hex, CASES[i].hex) == 0, "case %zu: got %s, wanted %s", i, hex, CASES[i].hex);
    }
    flis_ctx ctx;
    flis_init(&ctx);
    flis_tensor *x = flis_image(&ctx, 2, 3, 5, 7);
    fill(x->x, flis_count(x), 99);
    flis_real out[2 * 3 * 5 * 7];
    unsigned char bytes[sizeof out];
    flis_to_nchw(x, out);
    for (size_t i = 0; i < sizeof out / sizeof *out; i++) {
        unsigned char b[sizeof(flis_real)];
        memcpy(b, &out[i], sizeof b);
        const uint16_t one = 1;
        bool little = *(const unsigned char *)&one == 1;
        for (size_t k = 0; k < sizeof b; k++) bytes[i * sizeof b + k] = b[little ? k : sizeof b - 1 - k];
    }
    char want[65];
    flis_sha256_begin(&s);
    flis_sha256_add(&s, bytes, sizeof bytes);
    flis_sha256_end(&s, want);
    flis_tensor_digest(x, hex);
    CHECK(strcmp(hex, want) == 0, "tensor: got %s, wanted %s", hex, want);
    flis_free(&ctx);
}
