/* test_precision.c - emulated formats: what every operation's result, and every product's operand, is rounded to. */
#include "tests/unit/test.h"

#include <float.h>

static const flis_precision ALL[4] = {FLIS_AS_F32, FLIS_AS_TF32, FLIS_AS_F16, FLIS_AS_BF16};
static const char *const NAMES[4] = {"f32", "tf32", "fp16", "bf16"};

/* x rounded to each format; a stored result in tf32 is float32. */
static flis_real in_format(flis_real x, flis_precision p)
{
    if (p == FLIS_AS_F16) return flis_half_to_float(flis_float_to_half((float)x));
    if (p == FLIS_AS_BF16) return flis_bf16_to_float(flis_float_to_bf16((float)x));
    return p == FLIS_EXACT ? x : (flis_real)(float)x;
}

/* What a trace counts: the tensors, the values that are not in the format, and the distance from another run's
   values. */
typedef struct watch {
    flis_precision precision; /* the format that values must be in; FLIS_EXACT: keep them */
    flis_precision emulated;
    size_t tensors, wrong;
    char first[160];
    double *kept; /* the exact run's values, one tensor after the other; the exact run writes them */
    size_t at, room;
    double square, error, worst;
} watch;

static void look(void *user, const char *name, const flis_tensor *x)
{
    watch *w = user;
    double square = 0, error = 0;
    w->tensors++;
    for (size_t i = 0; i < flis_count(x); i++) {
        if (in_format(x->x[i], w->precision) != x->x[i] && !w->wrong++) snprintf(w->first, sizeof w->first, "%s", name);
        if (w->at >= w->room) continue;
        if (w->precision == FLIS_EXACT) w->kept[w->at] = x->x[i];
        const double difference = x->x[i] - w->kept[w->at];
        square += w->kept[w->at] * w->kept[w->at];
        error += difference * difference;
        w->at++;
    }
    const double relative = square > 0 ? sqrt(error / square) : 0;
    if (!(relative <= w->worst)) w->worst = relative;
    w->square += square;
    w->error += error;
}

static bool everything(void *user, const char *name, size_t count)
{
    (void)user;
    (void)name;
    (void)count;
    return true;
}

static void fill(flis_tensor *x, size_t seed)
{
    for (size_t i = 0; x && i < flis_count(x); i++) x->x[i] = (flis_real)((double)((i + seed) * 37 % 101) / 50 - 1);
}

/* The U-Net, the decoder and the text encoder of a small model, traced into w under a format. */
static void run_all(flis_ctx *ctx, watch *w)
{
    const flis_unet_config unet_config = {4, 4, 32, 2, {1, 2}, {true, false}, 1, 4, 24, 32};
    const flis_vae_config vae_config = {32, 4, {1, 2, 1, 1}, 1, 4, 4, 0.18215, 32};
    const flis_clip_config clip_config = {50, 16, 2, 2, 32, FLIS_TOKENS};
    flis_unet *unet = flis_unet_new(ctx, &unet_config);
    flis_vae *vae = flis_vae_new(ctx, &vae_config, true, false);
    flis_clip *clip = flis_clip_new(ctx, &clip_config);
    uint8_t label[64 * 64];
    const float ids[3] = {1, -1, 0};
    const flis_rca rca = {label, 64, 64, ids, 3}, *one = &rca;
    const double t = 981;
    int32_t tokens[FLIS_TOKENS];
    for (size_t i = 0; i < sizeof label; i++) label[i] = i % 64 < 32;
    for (int i = 0; i < FLIS_TOKENS; i++) tokens[i] = i * 7 % 50;
    flis_unet_walk(ctx, unet, flis_formula_visit, NULL);
    flis_vae_walk(ctx, vae, flis_formula_visit, NULL);
    flis_clip_walk(ctx, clip, flis_formula_visit, NULL);
    flis_tensor *x = flis_image(ctx, 1, 8, 8, 4), *context = flis_rows(ctx, 1, FLIS_TOKENS, 24);
    flis_tensor *z = flis_image(ctx, 1, 2, 3, 4);
    fill(x, 3);
    fill(context, 11);
    fill(z, 5);
    ctx->precision = w->emulated;
    ctx->trace = look;
    ctx->trace_wants = everything;
    ctx->trace_user = w;
    flis_unet_eps(ctx, unet, x, &t, context, &one);
    flis_vae_decode(ctx, vae, z);
    flis_clip_encode(ctx, clip, tokens, 1);
    ctx->precision = FLIS_EXACT;
    ctx->trace = NULL;
    CHECK(flis_ok(ctx), "%s", ctx->error);
    flis_unet_free(unet);
    flis_vae_free(vae);
    flis_clip_free(clip);
}

/* Every operation rounds: the format can represent every value of every tensor. The errors against the exact run match
   the formats' widths: bf16 has 3 bits less than fp16 and is about 8 times worse; tf32 has as many bits as fp16, but in
   operands only. Measured, rms over all values: tf32 1.1e-3, fp16 1.7e-3, bf16 1.4e-2, and in flis64 f32 1.9e-7; in
   flis, whose numbers are float32, f32 changes no bit. */
void test_precision_everywhere(void)
{
    enum { ROOM = 1 << 21 };
    double *kept = malloc(ROOM * sizeof *kept), error[4];
    flis_ctx ctx;
    flis_init(&ctx);
    watch exact = {.precision = FLIS_EXACT, .kept = kept, .room = ROOM};
    run_all(&ctx, &exact);
    CHECK(exact.at < ROOM, "%zu values and more", exact.at);
    for (int i = 0; i < 4; i++) {
        watch w = {.precision = ALL[i], .kept = kept, .room = ROOM, .emulated = ALL[i]};
        run_all(&ctx, &w);
        CHECK(w.tensors == exact.tensors && w.tensors > 200, "%s: %zu tensors, %zu when exact", NAMES[i], w.tensors,
              exact.tensors);
        CHECK(!w.wrong, "%s: %zu values are not in the format, first in %s", NAMES[i], w.wrong, w.first);
        error[i] = sqrt(w.error / w.square);
        if (getenv("FLIS_TEST_ERRORS"))
            printf("%s: rms %.3g of the values, worst tensor %.3g\n", NAMES[i], error[i], w.worst);
    }
    CHECK(sizeof(flis_real) == 4 ? error[0] == 0 : error[0] > 9e-8 && error[0] < 4e-7, "f32: %.3g", error[0]);
    CHECK(error[1] > 2e-4 && error[1] < 3e-3, "tf32: %.3g", error[1]);
    CHECK(error[2] > error[1] && error[2] < 2 * error[1], "fp16: %.3g, tf32 %.3g", error[2], error[1]);
    CHECK(error[3] > 6 * error[2] && error[3] < 10 * error[2], "bf16: %.3g, fp16 %.3g", error[3], error[2]);
    flis_free(&ctx);
    free(kept);
}

/* A matrix as a weight, from values in rows. */
static void set_weight(flis_ctx *ctx, flis_param *w, size_t outputs, size_t inputs, const flis_real *values)
{
    memset(w, 0, sizeof *w);
    w->rank = inputs ? 2 : 1;
    w->shape[0] = outputs;
    w->shape[1] = inputs;
    flis_param_set(ctx, w, values, false);
}

/* One product computed by hand: 1 + 2^-11 needs 12 bits. tf32 and fp16 (11 bits) round it as an operand, ties away from
   0 in tf32 (cvt.rna) and to even in fp16; float32 does not. Bias and sum are rounded like results. */
void test_precision_products(void)
{
    flis_ctx ctx;
    flis_init(&ctx);
    const flis_real one[1] = {1}, odd[1] = {(flis_real)(1 + 0x1p-11)}, small[1] = {(flis_real)0x1p-12};
    static const struct {
        flis_precision p;
        double operand, sum;
    } cases[] = {
        {FLIS_AS_F32, 1 + 0x1p-11, 1 + 0x1p-11 + 0x1p-12},
        {FLIS_AS_TF32, 1 + 0x1p-10, 1 + 0x1p-10 + 0x1p-12},
        {FLIS_AS_F16, 1, 1},
        {FLIS_AS_BF16, 1, 1},
    };
    flis_param unit, w, b;
    set_weight(&ctx, &unit, 1, 1, one);
    set_weight(&ctx, &w, 1, 1, odd);
    set_weight(&ctx, &b, 1, 0, small);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        flis_tensor *x = flis_vectors(&ctx, 1, 1), *y = flis_vectors(&ctx, 1, 1);
        x->x[0] = odd[0];
        y->x[0] = 1;
        ctx.precision = cases[i].p;
        flis_tensor *a = flis_linear(&ctx, x, &unit, NULL, NULL), *c = flis_linear(&ctx, y, &w, NULL, NULL);
        flis_tensor *s = flis_linear(&ctx, x, &unit, &b, NULL), *r = flis_linear(&ctx, y, &unit, NULL, x);
        CHECK(a && a->x[0] == (flis_real)cases[i].operand, "%s: an input: got %.10g, wanted %.10g", NAMES[i],
              (double)a->x[0], cases[i].operand);
        CHECK(c && c->x[0] == (flis_real)cases[i].operand, "%s: a weight: got %.10g, wanted %.10g", NAMES[i],
              (double)c->x[0], cases[i].operand);
        CHECK(s && s->x[0] == (flis_real)cases[i].sum, "%s: with bias: got %.10g, wanted %.10g", NAMES[i],
              (double)s->x[0], cases[i].sum);
        CHECK(r && r->x[0] == in_format((flis_real)(2 + 0x1p-11), cases[i].p), "%s: with residual: got %.10g", NAMES[i],
              (double)r->x[0]);
    }
    ctx.precision = FLIS_EXACT;
    CHECK(flis_ok(&ctx), "%s", ctx.error);
    flis_free_visit(&ctx, NULL, "", &unit);
    flis_free_visit(&ctx, NULL, "", &w);
    flis_free_visit(&ctx, NULL, "", &b);
    flis_free(&ctx);
}

/* The definitions emulate formats like the fast code: every value of a small U-Net, decoder and text encoder is
   equal. */
void test_precision_definitions(void)
{
    enum { ROOM = 1 << 21 };
    double *kept = malloc(ROOM * sizeof *kept);
    flis_ctx ctx;
    flis_init(&ctx);
    for (int i = 1; i < 3; i++) { /* tf32 rounds operands only; fp16 also divides e before the weighted sum */
        /* precision FLIS_EXACT: `look` keeps this run's values for the next */
        watch fast = {.precision = FLIS_EXACT, .kept = kept, .room = ROOM, .emulated = ALL[i]};
        watch slow = {.precision = ALL[i], .kept = kept, .room = ROOM, .emulated = ALL[i]};
        run_all(&ctx, &fast);
        ctx.naive = true;
        run_all(&ctx, &slow);
        ctx.naive = false;
        CHECK(slow.at == fast.at && slow.error == 0, "%s: the definitions differ by %.3g", NAMES[i], slow.worst);
    }
    flis_free(&ctx);
    free(kept);
}

/* A value too large for fp16 becomes infinite and is counted as non-finite; bf16 can represent it. */
void test_precision_overflow(void)
{
    flis_ctx ctx;
    flis_init(&ctx);
    flis_tensor *x = flis_vectors(&ctx, 1, 2);
    x->x[0] = 40000;
    x->x[1] = -40000;
    ctx.precision = FLIS_AS_F16;
    flis_tensor *y = flis_add(&ctx, x, x), *z = flis_add(&ctx, y, flis_scale(&ctx, y, -1));
    ctx.precision = FLIS_AS_BF16;
    flis_tensor *kept = flis_add(&ctx, x, x);
    flis_summary s;
    flis_tensor_summary(y, &s);
    CHECK(y->x[0] > DBL_MAX && y->x[1] < -DBL_MAX && s.not_finite == 2, "fp16: %g, %g", (double)y->x[0],
          (double)y->x[1]);
    CHECK(z->x[0] != z->x[0], "infinity minus infinity: %g", (double)z->x[0]);
    CHECK(kept->x[0] == 79872, "bf16: %g", (double)kept->x[0]);
    flis_free(&ctx);
}
