/* test_unet.c - RCA and the U-Net against the authors' PyTorch tensors (golden/tinyunet_B_16: formula weights, tiny B).
 *
 * Tolerances: eps within 2e-5 (t = 981, 500) and 1e-5 (t = 1), absolute. Inner tensors reach 21, where PyTorch's
 * float32 is itself up to 3.9e-5 off (flis64), so their tolerance is 1e-5 of their largest value, if that is above 1.
 * The largest error measured is 6.5e-6, in time_embed, which PyTorch computes in float32 and flis in double
 * (FLIS_TEST_ERRORS=1 prints it).
 */
#include "tests/unit/test.h"
#include "tools/common/common.h"

#define GOLDEN "golden/tinyunet_B_16.safetensors"

static flis_unet *tiny_unet(flis_ctx *ctx)
{
    flis_unet *unet = flis_unet_new(ctx, &preset_find("tinyB")->unet);
    if (unet) flis_unet_walk(ctx, unet, flis_formula_visit, NULL);
    CHECK(flis_ok(ctx), "%s", ctx->error);
    return unet;
}

typedef struct layout {
    uint8_t label[512 * 512];
    float class_ids[16];
    flis_rca rca;
} layout;

static layout *layout_read(const char *name)
{
    layout *l = calloc(1, sizeof *l);
    char key[64];
    size_t count = 0, classes = 0;
    snprintf(key, sizeof key, "in.class_ids.%s", name);
    double *label = test_golden(GOLDEN, "in.label512", &count), *ids = test_golden(GOLDEN, key, &classes);
    for (size_t i = 0; i < count; i++) l->label[i] = (uint8_t)label[i];
    for (size_t i = 0; i < classes; i++) l->class_ids[i] = (float)ids[i];
    l->rca = (flis_rca){l->label, 512, 512, l->class_ids, classes};
    free(label);
    free(ids);
    return l;
}

/* Every recorded intermediate of one case at t = 981, and eps at all three timesteps. */
static void blocks(const char *name)
{
    flis_ctx ctx;
    flis_init(&ctx);
    flis_unet *unet = tiny_unet(&ctx);
    layout *l = strcmp(name, "plain") == 0 ? NULL : layout_read(name);
    const flis_rca *rca[1] = {l ? &l->rca : NULL};
    flis_tensor *x = test_tensor(&ctx, GOLDEN, "in.x"), *context = test_tensor(&ctx, GOLDEN, "in.context");
    const double t[] = {981, 500, 1}, tolerance[] = {2e-5, 2e-5, 1e-5}, inner = 1e-5;
    for (int i = 0; i < 3; i++) {
        test_trace trace;
        char prefix[64], key[80];
        snprintf(prefix, sizeof prefix, "%s.t%d.", name, (int)t[i]);
        snprintf(key, sizeof key, "%seps", prefix);
        if (!test_trace_open(&trace, GOLDEN, prefix, inner)) break;
        ctx.trace = test_trace_take;
        ctx.trace_user = &trace;
        flis_mark mark = flis_here(&ctx);
        flis_tensor *eps = flis_unet_eps(&ctx, unet, x, &t[i], context, l ? rca : NULL);
        CHECK(flis_ok(&ctx), "%s", ctx.error);
        test_close(eps, GOLDEN, key, tolerance[i]);
        size_t count = eps ? flis_count(eps) : 0;
        flis_real *first = calloc(count + 1, sizeof *first);
        if (eps) memcpy(first, eps->x, count * sizeof *first);
        CHECK(trace.compared == test_trace_expected(&trace), "%s: compared %zu tensors, the golden file has %zu",
              prefix, trace.compared, test_trace_expected(&trace));
        flis_rewind(&ctx, mark);
        if (getenv("FLIS_TEST_ERRORS")) fprintf(stderr, "%s worst %.3g\n", trace.worst_name, trace.worst);
        ctx.trace = NULL; /* tracing splits residuals from norms; the bits must not change */
        eps = flis_unet_eps(&ctx, unet, x, &t[i], context, l ? rca : NULL);
        CHECK(eps && memcmp(first, eps->x, count * sizeof *first) == 0, "%s: eps differs with and without a trace",
              prefix);
        flis_rewind(&ctx, mark);
        free(first);
        test_trace_close(&trace);
    }
    free(l);
    flis_unet_free(unet);
    flis_free(&ctx);
}

void test_unet_blocks_mix(void)
{
    blocks("mix");
}
/* slow */
void test_unet_blocks_boat(void)
{
    blocks("boat");
}
/* slow */
void test_unet_blocks_plain(void)
{
    blocks("plain");
}

/* The mask by its definition, on the authors' grids (golden/labels): column k+1 for token k, absent classes, class
   -1. */
void test_unet_mask(void)
{
    flis_ctx ctx;
    flis_init(&ctx);
    layout *l = layout_read("mix");
    const int sizes[] = {64, 32, 16, 8};
    for (int s = 0; s < 4; s++) {
        size_t n = (size_t)sizes[s], wrong = 0, count = 0;
        char key[32];
        snprintf(key, sizeof key, "boat.label%d", sizes[s]);
        double *grid = test_golden("golden/labels.safetensors", key, &count);
        uint8_t *mask = malloc(n * n * FLIS_TOKENS);
        CHECK(flis_rca_mask(&ctx, &l->rca, n, n, mask), "%s", ctx.error);
        for (size_t i = 0; i < n * n; i++)
            for (size_t j = 0; j < FLIS_TOKENS; j++) {
                bool attended =
                    j == 0 || j > l->rca.classes || l->class_ids[j - 1] == -1 || grid[i] == l->class_ids[j - 1];
                wrong += mask[i * FLIS_TOKENS + j] != attended;
            }
        CHECK(wrong == 0, "%d: %zu of %zu entries differ", sizes[s], wrong, n * n * FLIS_TOKENS);
        free(grid);
        free(mask);
    }
    free(l);
    flis_free(&ctx);
}

/* The mask on a 2 x 2 label map, written out. SPEC 15.1. */
void test_unet_mask_edges(void)
{
    flis_ctx ctx;
    flis_init(&ctx);
    const uint8_t label[4] = {1, 2, 2, 255};
    const float ids[4] = {2, -1, 9, 1}; /* of tokens 0..3: class 9 is absent */
    flis_rca rca = {label, 2, 2, ids, 4};
    uint8_t mask[4 * FLIS_TOKENS];
    CHECK(flis_rca_mask(&ctx, &rca, 2, 2, mask), "%s", ctx.error);
    const uint8_t wanted[4][6] = {
        /* BOS, four tokens, EOS */
        {1, 0, 1, 0, 1, 1},
        {1, 1, 1, 0, 0, 1},
        {1, 1, 1, 0, 0, 1},
        {1, 0, 1, 0, 0, 1},
    };
    for (int i = 0; i < 4; i++)
        for (int j = 0; j < FLIS_TOKENS; j++)
            CHECK(mask[i * FLIS_TOKENS + j] == (j < 6 ? wanted[i][j] : 1), "cell %d column %d: got %d", i, j,
                  mask[i * FLIS_TOKENS + j]);
    rca.classes = 0; /* no classes: plain attention */
    CHECK(flis_rca_mask(&ctx, &rca, 2, 2, mask), "%s", ctx.error);
    for (int i = 0; i < 4 * FLIS_TOKENS; i++) CHECK(mask[i] == 1, "entry %d is masked", i);
    static const float many[76];
    rca = (flis_rca){label, 2, 2, many, 76};
    CHECK(!flis_rca_mask(&ctx, &rca, 2, 2, mask) && strstr(ctx.error, "76"), "76 classes: %s", ctx.error);
    flis_free(&ctx);
}

/* rca NULL, rca[i] NULL and a layout without classes are the same plain attention, to the bit. SPEC 15.3. */
void test_unet_uncond_is_plain(void)
{
    flis_ctx ctx;
    flis_init(&ctx);
    flis_unet *unet = tiny_unet(&ctx);
    layout *l = layout_read("boat");
    const double t = 981;
    flis_tensor *x = test_tensor(&ctx, GOLDEN, "in.x"), *context = test_tensor(&ctx, GOLDEN, "in.context");
    const flis_rca *none[1] = {NULL}, *some[1] = {&l->rca};
    flis_tensor *a = flis_unet_eps(&ctx, unet, x, &t, context, NULL),
                *b = flis_unet_eps(&ctx, unet, x, &t, context, none);
    flis_tensor *c = flis_unet_eps(&ctx, unet, x, &t, context, some);
    l->rca.classes = 0;
    flis_tensor *d = flis_unet_eps(&ctx, unet, x, &t, context, some);
    CHECK(flis_ok(&ctx), "%s", ctx.error);
    if (flis_ok(&ctx)) {
        size_t bytes = flis_count(a) * sizeof(flis_real);
        CHECK(memcmp(a->x, b->x, bytes) == 0 && memcmp(a->x, d->x, bytes) == 0,
              "the three forms of plain attention differ");
        CHECK(memcmp(a->x, c->x, bytes) != 0, "the layout has no effect");
    }
    free(l);
    flis_unet_free(unet);
    flis_free(&ctx);
}

/* PyTorch's float32 frequencies have errors of up to one unit in the last place, which is 6e-5 at t = 999.
   SPEC 15.10. */
void test_unet_time_embedding(void)
{
    size_t count = 0;
    double *t = test_golden("golden/temb.safetensors", "t", &count),
           *wanted = test_golden("golden/temb.safetensors", "temb320", NULL);
    double worst = 0;
    for (size_t i = 0; t && wanted && i < count; i++) {
        flis_real got[320];
        flis_time_embedding(t[i], 320, got);
        double error = test_max_error(got, wanted + i * 320, 320, NULL);
        if (!(error <= worst)) worst = error;
        for (size_t k = 0; k < 160; k++) { /* against libm: only the rounding to float */
            double angle = t[i] * exp(-log(10000.0) * (double)k / 160);
            CHECK(fabs((double)got[k] - cos(angle)) <= 3.1e-8 && fabs((double)got[160 + k] - sin(angle)) <= 3.1e-8,
                  "t %g, frequency %zu: got %.9g, %.9g", t[i], k, (double)got[k], (double)got[160 + k]);
        }
    }
    CHECK(worst <= 6.2e-5, "error %.3g against PyTorch", worst);
    free(t);
    free(wanted);
}

/* Two samples in one call equal two calls, to the bit, and with any number of threads. */
/* slow */
void test_unet_batch(void)
{
    flis_ctx ctx;
    flis_init(&ctx);
    flis_unet *unet = tiny_unet(&ctx);
    layout *l = layout_read("boat");
    flis_tensor *x = test_tensor(&ctx, GOLDEN, "in.x"), *context = test_tensor(&ctx, GOLDEN, "in.context");
    flis_tensor *x2 = flis_image(&ctx, 2, 16, 16, 4), *context2 = flis_rows(&ctx, 2, FLIS_TOKENS, 48);
    const size_t count = flis_count(x);
    for (size_t i = 0; i < 2; i++) {
        memcpy(x2->x + i * count, x->x, count * sizeof(flis_real));
        memcpy(context2->x + i * flis_count(context), context->x, flis_count(context) * sizeof(flis_real));
    }
    const double t[2] = {981, 1};
    const flis_rca *some[2] = {&l->rca, NULL};
    flis_tensor *a = flis_unet_eps(&ctx, unet, x, t, context, some),
                *b = flis_unet_eps(&ctx, unet, x, t + 1, context, NULL);
    const int threads[] = {1, 2, 3, 7};
    for (int i = 0; i < 4; i++) {
        ctx.threads = threads[i];
        flis_tensor *both = flis_unet_eps(&ctx, unet, x2, t, context2, some);
        CHECK(both && memcmp(both->x, a->x, count * sizeof(flis_real)) == 0, "sample 0 differs, %d threads",
              threads[i]);
        CHECK(both && memcmp(both->x + count, b->x, count * sizeof(flis_real)) == 0, "sample 1 differs, %d threads",
              threads[i]);
    }
    free(l);
    flis_unet_free(unet);
    flis_free(&ctx);
}

void test_unet_refuses(void)
{
    flis_ctx ctx;
    flis_init(&ctx);
    flis_unet *unet = tiny_unet(&ctx);
    const double t = 1;
    flis_tensor *context = flis_rows(&ctx, 1, FLIS_TOKENS, 48);
    CHECK(!flis_unet_eps(&ctx, unet, flis_image(&ctx, 1, 12, 16, 4), &t, context, NULL) && strstr(ctx.error, "12 x 16"),
          "a latent that does not halve: %s", ctx.error);
    ctx.error[0] = 0;
    CHECK(!flis_unet_eps(&ctx, unet, flis_image(&ctx, 1, 16, 16, 4), &t, flis_rows(&ctx, 1, 76, 48), NULL) &&
              strstr(ctx.error, "76"),
          "76 tokens: %s", ctx.error);
    ctx.error[0] = 0;
    flis_unet_config wrong = preset_find("tinyB")->unet;
    wrong.heads = 0;
    CHECK(!flis_unet_new(&ctx, &wrong) && ctx.error[0], "no heads");
    flis_unet_free(unet);
    flis_free(&ctx);
}

/* ---- Eps of the norms ------------------------------------------------------------------------------------------ */

/* A weight of a network by its checkpoint name. */
typedef struct wanted {
    const char *name;
    flis_param *param;
} wanted;

static bool pick(flis_ctx *ctx, void *user, const char *name, flis_param *param)
{
    (void)ctx;
    for (wanted *w = user; w->name; w++)
        if (strcmp(name + strlen("model.diffusion_model."), w->name) == 0) w->param = param;
    return true;
}

/* Copies of traced tensors by name. */
typedef struct kept {
    const char *name;
    flis_tensor *x;
    flis_ctx *ctx;
} kept;

static void keep_traced(void *user, const char *name, const flis_tensor *x)
{
    for (kept *k = user; k->name; k++)
        if (strcmp(name, k->name) == 0 && (k->x = flis_image(k->ctx, x->n, x->h, x->w, x->c)))
            memcpy(k->x->x, x->x, flis_count(x) * sizeof(flis_real));
}

static bool same(const flis_tensor *a, const flis_tensor *b)
{
    return a && b && flis_count(a) == flis_count(b) && memcmp(a->x, b->x, flis_count(a) * sizeof(flis_real)) == 0;
}

/* Eps is 1e-5 in ResBlocks and out, 1e-6 in SpatialTransformers. With ordinary activations the two results differ by
   less than the tolerance. Therefore the latents are made a thousand times smaller, and the norms are computed again
   outside the U-Net with each eps: the correct one must agree to the bit, the other must not. SPEC 15.7. */
void test_unet_eps_of_norms(void)
{
    flis_ctx ctx, own;
    flis_init(&ctx);
    flis_init(&own);
    flis_unet *unet = tiny_unet(&ctx);
#define RES "input_blocks.1.0."
    wanted w[] = {{RES "in_layers.0.weight", 0},
                  {RES "in_layers.0.bias", 0},
                  {RES "in_layers.2.weight", 0},
                  {RES "in_layers.2.bias", 0},
                  {RES "emb_layers.1.weight", 0},
                  {RES "emb_layers.1.bias", 0},
                  {RES "out_layers.0.weight", 0},
                  {RES "out_layers.0.bias", 0},
                  {RES "out_layers.3.weight", 0},
                  {RES "out_layers.3.bias", 0},
                  {"input_blocks.1.1.norm.weight", 0},
                  {"input_blocks.1.1.norm.bias", 0},
                  {"input_blocks.1.1.proj_in.weight", 0},
                  {"input_blocks.1.1.proj_in.bias", 0},
                  {"out.0.weight", 0},
                  {"out.0.bias", 0},
                  {NULL, NULL}};
#undef RES
    kept k[] = {{"input_blocks.0", 0, &own},
                {"time_embed", 0, &own},
                {"input_blocks.1.0", 0, &own},
                {"input_blocks.1.1.proj_in", 0, &own},
                {"output_blocks.11", 0, &own},
                {"out.0", 0, &own},
                {NULL, NULL, NULL}};
    flis_unet_walk(&ctx, unet, pick, w);
    const double t = 981;
    flis_tensor *x = flis_scale(&ctx, test_tensor(&ctx, GOLDEN, "in.x"), 1e-3);
    ctx.trace = keep_traced;
    ctx.trace_user = k;
    flis_unet_eps(&ctx, unet, x, &t, test_tensor(&ctx, GOLDEN, "in.context"), NULL);
    CHECK(flis_ok(&ctx), "%s", ctx.error);
    ctx.trace = NULL;
    flis_tensor *emb = flis_silu(&ctx, flis_as_rows(&ctx, k[1].x));
    for (int other = 0; other < 2; other++) {
        const double res_eps = other ? 1e-6 : 1e-5, transformer_eps = other ? 1e-5 : 1e-6;
        flis_tensor *y = flis_group_norm(&ctx, k[0].x, w[0].param, w[1].param, res_eps, true);
        y = flis_conv(&ctx, y, w[2].param, w[3].param, FLIS_SAME, NULL);
        y = flis_add_to_all(&ctx, y, flis_linear(&ctx, emb, w[4].param, w[5].param, NULL));
        y = flis_group_norm(&ctx, y, w[6].param, w[7].param, res_eps, true);
        y = flis_conv(&ctx, y, w[8].param, w[9].param, FLIS_SAME, k[0].x);
        CHECK(same(y, k[2].x) == !other, "ResBlock with eps %g: %s", res_eps, other ? "not detected" : "differs");
        y = flis_group_norm(&ctx, k[2].x, w[10].param, w[11].param, transformer_eps, false);
        y = flis_conv(&ctx, y, w[12].param, w[13].param, FLIS_SAME, NULL);
        CHECK(same(y, k[3].x) == !other, "SpatialTransformer with eps %g: %s", transformer_eps,
              other ? "not detected" : "differs");
        y = flis_group_norm(&ctx, k[4].x, w[14].param, w[15].param, res_eps, false);
        CHECK(same(y, k[5].x) == !other, "out with eps %g: %s", res_eps, other ? "not detected" : "differs");
    }
    CHECK(flis_ok(&ctx), "%s", ctx.error);
    flis_unet_free(unet);
    flis_free(&ctx);
    flis_free(&own);
}

/* Latents need not be square. At 8 x 16, with a layout of two halves, the first cross-attention is computed again
   outside the U-Net from its traced queries, keys and values and the mask of 8 x 16: it must agree to the bit.
   SPEC 15.6. */
void test_unet_not_square(void)
{
    flis_ctx ctx, own;
    flis_init(&ctx);
    flis_init(&own);
    flis_unet *unet = tiny_unet(&ctx);
    flis_tensor *context = test_tensor(&ctx, GOLDEN, "in.context"), *x = flis_image(&ctx, 1, 8, 16, 4);
    uint8_t *label = calloc(64 * 128, 1), mask[8 * 16 * FLIS_TOKENS];
    for (int i = 0; i < 64 * 128; i++) label[i] = i % 128 < 64 ? 8 : 154;
    const float ids[2] = {8, 154};
    const flis_rca rca = {label, 64, 128, ids, 2}, *some[1] = {&rca};
    const double t = 500;
    for (size_t i = 0; i < flis_count(x); i++) x->x[i] = (flis_real)((double)(i * 37 % 101) / 50 - 1);
#define ATTN2 "input_blocks.1.1.transformer_blocks.0.attn2"
    wanted w[] = {{ATTN2 ".to_out.0.weight", NULL}, {ATTN2 ".to_out.0.bias", NULL}, {NULL, NULL}};
    kept k[] = {{ATTN2 ".to_q", NULL, &own},
                {ATTN2 ".to_k", NULL, &own},
                {ATTN2 ".to_v", NULL, &own},
                {ATTN2, NULL, &own},
                {NULL, NULL, NULL}};
#undef ATTN2
    flis_unet_walk(&ctx, unet, pick, w);
    ctx.trace = keep_traced;
    ctx.trace_user = k;
    flis_tensor *y = flis_unet_eps(&ctx, unet, x, &t, context, some);
    ctx.trace = NULL;
    CHECK(y && y->h == 8 && y->w == 16 && y->c == 4, "%s", ctx.error);
    CHECK(flis_rca_mask(&ctx, &rca, 8, 16, mask), "%s", ctx.error);
    for (int i = 0; i < 8 * 16; i++)
        CHECK(mask[i * FLIS_TOKENS + 1] == (i % 16 < 8) && mask[i * FLIS_TOKENS + 2] == (i % 16 >= 8), "cell %d", i);
    const uint8_t *masks[1] = {mask};
    flis_tensor *a = flis_attention(&ctx, k[0].x, k[1].x, k[2].x, 4, 1 / sqrt(8.0), (flis_mask){.attended = masks});
    CHECK(same(flis_linear(&ctx, a, w[0].param, w[1].param, NULL), k[3].x), "cross-attention at 8 x 16 differs");
    free(label);
    flis_unet_free(unet);
    flis_free(&ctx);
    flis_free(&own);
}
