/* test_pipeline.c - text features, U-Net, sampler and decoder together, against the authors' recorded trajectories
 * (golden/sampler_tinyB: FLIS.py's loop on formula weights, tiny B, latents 16 x 16, layout boat).
 *
 * Tolerance: 1e-4 of each tensor's largest value at every step. Errors of 1e-5 in eps grow along the trajectory because
 * early steps divide by sqrt(alpha) = 0.08. The largest error measured is 2e-5.
 */
#include "tests/unit/test.h"
#include "tools/common/common.h"

#define GOLDEN "golden/sampler_tinyB.safetensors"

enum { VALUES = 4 * 16 * 16 };

typedef struct run {
    const char *name;
    double *e_t, *x_prev, *pred_x0; /* golden rows [steps][VALUES] */
    double worst;
    size_t steps;
    flis_guided guided;
} run;

static double *golden(const char *name, const char *key, size_t *count)
{
    char full[80];
    snprintf(full, sizeof full, "%s.%s", name, key);
    return test_golden(GOLDEN, full, count);
}

static void compare(run *r, const char *what, const flis_real *got, const double *rows, const flis_step *step)
{
    double largest = 0;
    const double *row = rows + step->number * VALUES;
    for (size_t i = 0; i < VALUES; i++) largest = fmax(largest, fabs(row[i]));
    size_t where = 0;
    double error = test_max_error(got, row, VALUES, &where) / largest;
    if (!(error <= r->worst)) r->worst = error;
    CHECK(error <= 1e-4, "%s, step %zu, %s: relative error %.3g at %zu", r->name, step->number, what, error, where);
}

static void on_step(flis_ctx *ctx, void *user, const flis_step *step)
{
    run *r = user;
    (void)ctx;
    compare(r, "e_t", step->e_t, r->e_t, step);
    compare(r, "pred_x0", step->pred_x0, r->pred_x0, step);
    compare(r, "x_prev", step->x_prev, r->x_prev, step);
    r->steps++;
}

static bool on_eps(flis_ctx *ctx, void *user, const flis_real *x, int64_t t, flis_real *eps, flis_real *uncond)
{
    return flis_guided_eps(ctx, &((run *)user)->guided, x, t, eps, uncond);
}

static flis_real *reals(const double *x, size_t count)
{
    flis_real *y = malloc((count + 1) * sizeof *y);
    for (size_t i = 0; x && i < count; i++) y[i] = (flis_real)x[i];
    return y;
}

/* The picture's bytes from the final latents. */
static void compare_picture(flis_ctx *ctx, const flis_real *latents)
{
    const flis_vae_config config = {
        .channels = 32, .levels = 4, .mult = {1, 2, 4, 4}, .blocks = 2, .z = 4, .embed = 4, .scale_factor = 0.18215};
    flis_vae *vae = flis_vae_new(ctx, &config, true, false);
    flis_picture picture = {0};
    size_t count = 0, differ = 0;
    flis_vae_walk(ctx, vae, flis_formula_visit, NULL);
    CHECK(flis_decode_picture(ctx, vae, flis_from_nchw(ctx, latents, 1, 4, 16, 16), &picture), "%s", ctx->error);
    double *bytes = test_golden(GOLDEN, "plms10.image_u8_hwc", &count);
    for (size_t i = 0; i < count && picture.pixels; i++) {
        CHECK(fabs(picture.pixels[i] - bytes[i]) <= 1, "byte %zu: got %d, wanted %g", i, picture.pixels[i], bytes[i]);
        differ += picture.pixels[i] != bytes[i];
    }
    CHECK(count == 128 * 128 * 3 && differ <= 20, "%zu of %zu bytes are off by one", differ, count);
    free(bytes);
    free(picture.pixels);
    flis_vae_free(vae);
}

static void trajectory(const char *name, flis_sampling sampling, uint64_t seed)
{
    flis_ctx ctx;
    flis_init(&ctx);
    run r = {.name = name};
    size_t count = 0, classes = 0, steps = 0;
    flis_unet *unet = flis_unet_new(&ctx, &preset_find("tinyB")->unet);
    flis_unet_walk(&ctx, unet, flis_formula_visit, NULL);
    double *context = golden(name, "context", &count), *ids = golden(name, "class_ids", &classes);
    double *uncond = sampling.scale == 1 ? NULL : golden(name, "uncond", NULL), *x_T = golden(name, "x_T", NULL);
    double *label = test_golden("golden/tinyunet_B_16.safetensors", "in.label512", NULL);
    r.e_t = golden(name, "step.e_t", &steps);
    r.x_prev = golden(name, "step.x_prev", NULL);
    r.pred_x0 = golden(name, "step.pred_x0", NULL);
    uint8_t *label_bytes = malloc(512 * 512);
    float class_ids[16];
    for (size_t i = 0; i < 512 * 512; i++) label_bytes[i] = (uint8_t)label[i];
    for (size_t i = 0; i < classes; i++) class_ids[i] = (float)ids[i];
    const flis_rca rca = {label_bytes, 512, 512, class_ids, classes};
    flis_real *context_reals = reals(context, count), *uncond_reals = reals(uncond, uncond ? count : 0);
    r.guided = (flis_guided){unet, 16, 16, context_reals, uncond ? uncond_reals : NULL, &rca};
    flis_real x[VALUES];
    float drawn[VALUES];
    flis_rng_seed(&ctx.rng, FLIS_RNG_CPU, seed);
    flis_randn(&ctx.rng, drawn, VALUES);
    size_t wrong = 0;
    for (size_t i = 0; i < VALUES; i++) {
        x[i] = drawn[i];
        wrong += (double)drawn[i] != x_T[i];
    }
    CHECK(wrong == 0, "%s: %zu values of x_T differ from torch.randn's", name, wrong);
    flis_model_fn model = {on_eps, on_step, &r};
    CHECK(flis_sample(&ctx, &sampling, VALUES, x, &model), "%s", ctx.error);
    CHECK(r.steps == steps / VALUES, "%s: got %zu steps, wanted %zu", name, r.steps, steps / VALUES);
    if (strcmp(name, "plms10") == 0) compare_picture(&ctx, x);
    free(context);
    free(ids);
    free(uncond);
    free(x_T);
    free(label);
    free(label_bytes);
    free(context_reals);
    free(uncond_reals);
    free(r.e_t);
    free(r.x_prev);
    free(r.pred_x0);
    flis_unet_free(unet);
    flis_free(&ctx);
}

void test_pipeline_plms10(void)
{
    trajectory("plms10", (flis_sampling){FLIS_PLMS, 10, 0, 2}, 42);
}
void test_pipeline_ddim10(void)
{
    trajectory("ddim10_eta0", (flis_sampling){FLIS_DDIM, 10, 0, 2}, 42);
}
/* slow */
void test_pipeline_ddim10_eta(void)
{
    trajectory("ddim10_eta0.5", (flis_sampling){FLIS_DDIM, 10, 0.5, 2}, 42);
}
void test_pipeline_plms4_scale1(void)
{
    trajectory("plms4_scale1", (flis_sampling){FLIS_PLMS, 4, 0, 1}, 7);
}

/* Prompt ids through the text encoder give the recorded context and uncond. */
void test_pipeline_text(void)
{
    flis_ctx ctx;
    flis_init(&ctx);
    const flis_clip_config config = {
        .vocab = 1000, .width = 48, .layers = 4, .heads = 4, .hidden = 192, .positions = 77};
    flis_clip *clip = flis_clip_new(&ctx, &config);
    flis_clip_walk(&ctx, clip, flis_formula_visit, NULL);
    const char *keys[2][2] = {{"in.ids", "plms10.context"}, {"in.uncond_ids", "plms10.uncond"}};
    for (int i = 0; i < 2; i++) {
        int32_t ids[FLIS_TOKENS];
        double *wanted = test_golden(GOLDEN, keys[i][0], NULL);
        for (int k = 0; k < FLIS_TOKENS; k++) ids[k] = (int32_t)wanted[k];
        test_close(flis_clip_encode(&ctx, clip, ids, 1), GOLDEN, keys[i][1], 1e-5);
        free(wanted);
    }
    flis_clip_free(clip);
    flis_free(&ctx);
}

/* ---- The whole pipeline, on a model file ------------------------------------------------------------------------ */

typedef struct listing {
    flis_writer *out;
    bool declare;
} listing;

static bool list_or_write(flis_ctx *ctx, void *user, const char *name, flis_param *param)
{
    listing *l = user;
    uint64_t shape[4];
    size_t count = 1;
    for (int i = 0; i < param->rank; i++) count *= (size_t)(shape[i] = param->shape[i]);
    if (l->declare) return flis_write_declare(ctx, l->out, name, FLIS_F32, param->rank, shape);
    flis_real *values = flis_alloc(ctx, count, sizeof *values);
    if (values) flis_formula_weights(name, param->rank, param->shape, 0, count, values);
    bool written = values && flis_write_real(ctx, l->out, values, count);
    free(values);
    return written;
}

/* A tiny model for the vocabulary of that size, with attention only in the middle block, to be fast. */
void test_write_tiny_model(flis_ctx *ctx, const char *path, size_t vocab)
{
    const flis_clip_config clip_config = {
        .vocab = vocab, .width = 32, .layers = 1, .heads = 2, .hidden = 64, .positions = 77};
    const flis_unet_config unet_config = {.in = 4,
                                          .out = 4,
                                          .channels = 32,
                                          .levels = 4,
                                          .mult = {1, 1, 1, 1},
                                          .attention = {true, false, false, false},
                                          .blocks = 1,
                                          .heads = 2,
                                          .context = 32};
    const flis_vae_config vae_config = {
        .channels = 32, .levels = 4, .mult = {1, 1, 1, 1}, .blocks = 1, .z = 4, .embed = 4, .scale_factor = 0.18215};
    flis_clip *clip = flis_clip_new(ctx, &clip_config);
    flis_unet *unet = flis_unet_new(ctx, &unet_config);
    flis_vae *vae = flis_vae_new(ctx, &vae_config, true, false);
    listing l = {flis_write_begin(ctx, path), true};
    flis_write_metadata(ctx, l.out, "unet.num_heads", "2");
    flis_write_metadata(ctx, l.out, "clip.num_heads", "2");
    for (int pass = 0; pass < 2; pass++, l.declare = false) {
        flis_clip_walk(ctx, clip, list_or_write, &l);
        flis_unet_walk(ctx, unet, list_or_write, &l);
        flis_vae_walk(ctx, vae, list_or_write, &l);
    }
    CHECK(flis_write_end(ctx, l.out), "%s", ctx->error);
    flis_clip_free(clip);
    flis_unet_free(unet);
    flis_vae_free(vae);
}

static int warned;

static void count_warning(void *user, const char *sentence)
{
    (void)user;
    (void)sentence;
    warned++;
}

/* From phrases and label map to pixels: the same bytes with any number of threads; the layout changes them; errors are
   reported before any long computation. */
/* slow */
void test_pipeline_generate(void)
{
    flis_ctx ctx;
    flis_init(&ctx);
    const char *path = test_scratch("tiny.safetensors");
    flis_vocab *vocab = flis_vocab_read(&ctx, test_path("vocab.txt"));
    CHECK(vocab, "%s", ctx.error);
    if (!vocab) return;
    test_write_tiny_model(&ctx, path, flis_vocab_size(vocab));
    uint8_t label[64 * 128];
    for (int i = 0; i < 64 * 128; i++) label[i] = i < 20 * 128 ? 1 : i % 128 < 2 && i / 128 == 40 ? 3 : 2;
    char sky[] = "sky", sea[] = "blue sea", boat[] = "boat";
    flis_phrase phrases[] = {{sky, 1}, {sea, 2}, {boat, 3}};
    flis_layout layout = {.count = 3, .phrase = phrases, .label = {128, 64, 1, label}};
    flis_options options;
    flis_options_default(&options);
    options.width = 128;
    options.height = 64;
    options.sampling.steps = 2;
    options.warn = count_warning;
    uint64_t digest[4] = {0};
    for (int i = 0; i < 4; i++) {
        flis_picture picture = {0};
        ctx.threads = i == 1 ? 3 : 1;
        options.no_layout = i == 2;
        options.rng = i == 3 ? FLIS_RNG_CUDA : FLIS_RNG_CPU;
        CHECK(flis_generate(&ctx, path, vocab, &layout, &options, &picture), "%s", ctx.error);
        CHECK(picture.width == 128 && picture.height == 64 && picture.channels == 3, "%zu x %zu", picture.width,
              picture.height);
        if (picture.pixels) digest[i] = test_hash(picture.pixels, 128 * 64 * 3);
        free(picture.pixels);
    }
    CHECK(digest[0] == digest[1], "the picture depends on the number of threads");
    CHECK(digest[0] != digest[2] && digest[0] != digest[3], "the layout or the random numbers change nothing");
    CHECK(warned > 0, "a boat of two pixels gives no warning");
    const struct {
        size_t width;
        int steps;
        double eta;
        const char *says;
    } refused[] = {
        {100, 2, 0, "64"},
        {128, 3, 0, "3"},
        {128, 0, 0, "0"},
        {128, 2, 0.5, "eta"},
    };
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        flis_picture picture = {0};
        options.width = refused[i].width;
        options.sampling.steps = refused[i].steps;
        options.sampling.eta = refused[i].eta;
        ctx.error[0] = 0;
        CHECK(!flis_generate(&ctx, path, vocab, &layout, &options, &picture) && strstr(ctx.error, refused[i].says) &&
                  !picture.pixels,
              "refusal %zu: %s", i, ctx.error);
    }
    flis_vocab_free(vocab);
    flis_free(&ctx);
}
