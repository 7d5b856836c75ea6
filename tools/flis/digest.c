/* digest.c - `flis digest`: one line for each stage, its name and the SHA-256 of its values' little-endian bytes, in PyTorch's
 * order. The last line is the SHA-256 of the lines before it. Where two machines differ, the first line that differs says where to
 * look: number formats and functions come first, then single operations (large enough to be shared among threads), then the
 * pipeline in its own order, tokens to PNG. Inputs and, without -m, weights are formulas: no file is read.
 */
#include "tools/flis/command.h"

#include <stdlib.h>
#include <string.h>

typedef struct digest {
    flis_ctx *ctx;
    flis_sha256 all, line;
} digest;

static void digest_hex(digest *d, const char *name, const char *hex)
{
    char line[160];
    int length = snprintf(line, sizeof line, "%s  %s\n", name, hex);
    flis_sha256_add(&d->all, line, (size_t)length);
    if (!flis_ok(d->ctx)) return;
    fputs(line, stdout);
    fflush(stdout); /* these lines are also the progress */
}

/* The low bytes of a value, least significant first. */
static void digest_whole(digest *d, uint64_t value, int bytes)
{
    unsigned char out[8];
    for (int i = 0; i < bytes; i++) out[i] = (unsigned char)(value >> 8 * i & 255);
    flis_sha256_add(&d->line, out, (size_t)bytes);
}

static void digest_double(digest *d, double x)
{
    uint64_t bits;
    memcpy(&bits, &x, sizeof bits);
    digest_whole(d, bits, 8);
}

static void digest_float(digest *d, float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    digest_whole(d, bits, 4);
}

static void digest_real(digest *d, flis_real x)
{
    if (sizeof(flis_real) == 8) digest_double(d, (double)x);
    else digest_float(d, (float)x);
}

/* Ends the line that the previous call began, and begins the next one. */
static void digest_end(digest *d, const char *name)
{
    char hex[65];
    flis_sha256_end(&d->line, hex);
    digest_hex(d, name, hex);
    flis_sha256_begin(&d->line);
}

static void digest_reals(digest *d, const char *name, const flis_real *x, size_t count)
{
    for (size_t i = 0; i < count; i++) digest_real(d, x[i]);
    digest_end(d, name);
}

static void digest_tensor(digest *d, const char *name, const flis_tensor *x)
{
    char hex[65];
    if (!x || !flis_ok(d->ctx)) return;
    flis_tensor_digest(x, hex);
    digest_hex(d, name, hex);
}

/* Values in (-1, 1) that fill the mantissa of flis_real: the sum of two formula tensors, the second below the last bit of the
   first. */
static void formula_fill(flis_ctx *ctx, const char *name, size_t count, flis_real *out)
{
    static const size_t shape[2] = {1, 3}; /* fan_in 3: scale 1 */
    char low[64];
    flis_real *second = flis_alloc(ctx, count, sizeof *second);
    if (second && out) {
        snprintf(low, sizeof low, "%s.low", name);
        flis_formula_weights(name, 2, shape, 0, count, out);
        flis_formula_weights(low, 2, shape, 0, count, second);
        for (size_t i = 0; i < count; i++) out[i] = (flis_real)((double)out[i] + (double)second[i] * 0x1p-24);
    }
    free(second);
}

static flis_tensor *formula_image(flis_ctx *ctx, const char *name, size_t n, size_t h, size_t w, size_t c)
{
    flis_tensor *x = flis_image(ctx, n, h, w, c);
    if (x) formula_fill(ctx, name, flis_count(x), x->x);
    return x;
}

static flis_tensor *formula_rows(flis_ctx *ctx, const char *name, size_t n, size_t t, size_t c)
{
    flis_tensor *x = flis_rows(ctx, n, t, c);
    if (x) formula_fill(ctx, name, flis_count(x), x->x);
    return x;
}

/* The elementary functions, fma without hardware, 16-bit formats. No NaN: its bits differ between machines. */
static void digest_functions(digest *d)
{
    enum { COUNT = 3000 };
    flis_real *x = flis_alloc(d->ctx, 3 * COUNT, sizeof *x);
    if (!x) return;
    formula_fill(d->ctx, "digest.functions", 3 * COUNT, x);
    for (size_t i = 0; i < COUNT; i++) digest_double(d, flis_exp(710.0 * (double)x[i]));
    digest_end(d, "exp");
    for (size_t i = 0; i < COUNT; i++) digest_double(d, flis_log((1.0 + (double)x[i]) * (double)(1 + i)));
    digest_end(d, "log");
    for (size_t i = 0; i < COUNT; i++) {
        digest_double(d, flis_sin(1e5 * (double)x[i]));
        digest_double(d, flis_cos(1e5 * (double)x[i]));
    }
    digest_end(d, "sin_cos");
    for (size_t i = 0; i < COUNT; i++) digest_double(d, flis_erfc(6.0 * (double)x[i]));
    digest_end(d, "erfc");
    for (size_t i = 0; i < COUNT; i++) { /* c from far below the product's last bit to far above its first */
        float a = (float)x[3 * i], b = (float)x[3 * i + 1], c = (float)x[3 * i + 2];
        for (size_t k = 0; k < i % 60; k++) c *= i % 2 ? 0.5f : 2.0f;
        digest_float(d, flis_fma_soft(a, b, c));
        digest_float(d, flis_fma_soft(a * 0x1p-70f, b * 0x1p-70f, c * 0x1p-126f)); /* subnormals */
    }
    digest_end(d, "fma");
    for (uint32_t i = 0; i < 65536; i++) {
        if ((i & 0x7c00) != 0x7c00) digest_float(d, flis_half_to_float((uint16_t)i));
        if ((i & 0x7f80) != 0x7f80) digest_float(d, flis_bf16_to_float((uint16_t)i));
    }
    for (size_t i = 0; i < COUNT; i++) {
        float scaled = (float)x[i];
        for (size_t k = 0; k < i % 30; k++) scaled *= i % 3 ? 0.5f : 2.0f;
        digest_whole(d, flis_float_to_half(scaled), 2);
        digest_whole(d, flis_float_to_bf16(scaled), 2);
    }
    digest_end(d, "halves");
    free(x);
}

/* A weight with formula values, as reals or as 16-bit numbers. */
static void digest_param(flis_ctx *ctx, flis_param *p, int rank, size_t outputs, size_t inputs, flis_dtype dtype)
{
    const size_t count = outputs * (rank > 1 ? inputs : 1);
    flis_real *values = flis_alloc(ctx, count, sizeof *values);
    uint16_t *halves = flis_alloc(ctx, count, sizeof *halves);
    *p = (flis_param){.rank = rank, .shape = {outputs, rank > 1 ? inputs : 1, 1, 1}};
    if (values && halves) {
        formula_fill(ctx, "digest.weights", count, values);
        for (size_t i = 0; i < count; i++)
            halves[i] =
                dtype == FLIS_BF16 ? flis_float_to_bf16((float)values[i]) : flis_float_to_half((float)values[i]);
        if (dtype == FLIS_F16 || dtype == FLIS_BF16) flis_param_set_half(ctx, p, halves, dtype == FLIS_BF16);
        else flis_param_set(ctx, p, values, false);
    }
    free(values);
    free(halves);
}

static void digest_linear(digest *d, const char *name, size_t rows, size_t inputs, size_t outputs, flis_dtype dtype)
{
    flis_ctx *ctx = d->ctx;
    flis_mark mark = flis_here(ctx);
    flis_param w, b;
    digest_param(ctx, &w, 2, outputs, inputs, dtype);
    digest_param(ctx, &b, 1, outputs, 1, FLIS_F32);
    flis_tensor *x = formula_rows(ctx, "digest.x", 1, rows, inputs);
    digest_tensor(d, name, flis_linear(ctx, x, &w, &b, formula_rows(ctx, "digest.add", 1, rows, outputs)));
    flis_free_visit(ctx, NULL, NULL, &w);
    flis_free_visit(ctx, NULL, NULL, &b);
    flis_rewind(ctx, mark);
}

/* Each has just enough work for its loop to be shared among threads (524288 values; 2^24 multiply-adds). */
static void digest_operations(digest *d)
{
    flis_ctx *ctx = d->ctx;
    flis_mark mark = flis_here(ctx);
    flis_param weight, bias;
    digest_linear(d, "linear", 203, 321, 271, FLIS_F32);
    digest_linear(d, "linear.f16", 29, 300, 40, FLIS_F16);
    digest_linear(d, "linear.bf16", 29, 300, 40, FLIS_BF16);
    digest_param(ctx, &weight, 1, 64, 1, FLIS_F32);
    digest_param(ctx, &bias, 1, 64, 1, FLIS_F32);
    const flis_tensor *image = formula_image(ctx, "digest.image", 1, 91, 93, 64);
    digest_tensor(d, "group_norm", flis_group_norm(ctx, image, &weight, &bias, 1e-5, true));
    digest_tensor(d, "layer_norm", flis_layer_norm(ctx, image, &weight, &bias));
    flis_free_visit(ctx, NULL, NULL, &weight);
    flis_free_visit(ctx, NULL, NULL, &bias);
    const flis_tensor *wide = flis_scale(ctx, flis_concat(ctx, image, image), 9.0);
    digest_tensor(d, "silu", flis_silu(ctx, wide));
    digest_tensor(d, "quick_gelu", flis_quick_gelu(ctx, wide));
    digest_tensor(d, "geglu", flis_geglu(ctx, wide));
    flis_rewind(ctx, mark);
    const flis_tensor *q = formula_rows(ctx, "digest.q", 1, 290, 2 * 97),
                      *k = formula_rows(ctx, "digest.k", 1, 301, 2 * 97);
    const flis_tensor *v = formula_rows(ctx, "digest.v", 1, 301, 2 * 97);
    digest_tensor(d, "attention", flis_attention(ctx, q, k, v, 2, 0.7, (flis_mask){.causal = true}));
    flis_rewind(ctx, mark);
}

/* Random numbers and the sampler's tables. */
static void digest_tables(digest *d)
{
    enum { COUNT = 1003 };
    float x[COUNT];
    static const struct {
        const char *name;
        flis_rng_kind kind;
        size_t count;
    } draws[] = {
        {"randn.cpu", FLIS_RNG_CPU, COUNT},
        {"randn.cpu.few", FLIS_RNG_CPU, 7},
        {"randn.cuda", FLIS_RNG_CUDA, COUNT},
    };
    for (size_t k = 0; k < sizeof draws / sizeof *draws; k++) {
        flis_rng_seed(&d->ctx->rng, draws[k].kind, 42);
        flis_randn(&d->ctx->rng, x, draws[k].count);
        for (size_t i = 0; i < draws[k].count; i++) digest_float(d, x[i]);
        digest_end(d, draws[k].name);
    }
    flis_schedule *schedule = flis_alloc(d->ctx, 1, sizeof *schedule);
    flis_steps *s = flis_alloc(d->ctx, 1, sizeof *s);
    if (schedule && s) {
        flis_schedule_make(schedule);
        for (size_t i = 0; i < FLIS_TIMESTEPS; i++) {
            digest_double(d, schedule->beta[i]);
            digest_double(d, schedule->alpha_bar[i]);
        }
        flis_steps_make(d->ctx, schedule, FLIS_DDIM, 50, 0.5, s);
        for (size_t i = 0; i < s->count; i++) {
            digest_whole(d, (uint64_t)s->t[i], 8);
            digest_float(d, s->alpha[i]);
            digest_double(d, s->alpha_prev[i]);
            digest_double(d, s->sigma[i]);
            digest_float(d, s->sqrt_one_minus_alpha[i]);
        }
        digest_end(d, "schedule");
    }
    free(schedule);
    free(s);
    flis_real embedding[320];
    flis_time_embedding(981, 320, embedding);
    digest_reals(d, "time_embedding", embedding, 320);
}

/* The pipeline. Latents are 8x8, the picture 64x64. */
enum {
    DIGEST_LATENT = 8,
    DIGEST_SIZE = DIGEST_LATENT * FLIS_FACTOR,
    DIGEST_VALUES = 4 * DIGEST_LATENT * DIGEST_LATENT
};

typedef struct digest_run {
    digest *d;
    flis_file *file;    /* NULL: formula weights in the shapes of tinyA */
    const preset *tiny; /* those shapes */
    flis_prompt prompt;
    uint8_t label[DIGEST_SIZE * DIGEST_SIZE];
    flis_rca rca;
    flis_guided guided;
    flis_real *context, *uncond; /* [77][width] */
    size_t width;
    flis_real x[DIGEST_VALUES];
    const char *sampler;
    size_t step, evaluation;
} digest_run;

/* 486 merges, so that there are 1000 tokens: some that make words of the prompt, then pairs of capitals, which never apply because
   text is lower-cased before it is merged. */
static flis_vocab *digest_vocab(flis_ctx *ctx)
{
    static const char words[] =
        "s e\nse a</w>\ns k\nsk y</w>\nr e\nre d</w>\nb o\na t</w>\nbo at</w>\no i\noi l</w>\ni n</w>\n";
    enum { WORDS = 12, MERGES = 486 };
    char text[sizeof words + 4 * (MERGES - WORDS)];
    char *end = strcpy(text, words) + sizeof words - 1;
    for (int i = 0; i < MERGES - WORDS; i++) end += sprintf(end, "%c %c\n", 'A' + i / 26, 'A' + i % 26);
    return flis_vocab_parse(ctx, "the built-in vocabulary", text, (size_t)(end - text));
}

static void digest_text(digest_run *r, const flis_vocab *vocab)
{
    static flis_phrase phrases[] = {{"sky", 1}, {"red boat", 4}, {"sea", 2}, {"in oil", -1}, {"caf\xC3\xA9", 6}};
    static const char mixed[] =
        "It\xE2\x80\x99s  d\xC3\x89J\xC3\x80 vu &amp; \xEF\xBC\xA1 e\xCC\x81 \xF0\x9F\x98\x80 12 \xFF <sea>";
    digest *d = r->d;
    int32_t *ids = NULL;
    long count = flis_tokenize(d->ctx, vocab, mixed, sizeof mixed - 1, &ids);
    for (long i = 0; i < count; i++) digest_whole(d, (uint64_t)ids[i], 4);
    digest_end(d, "tokens.odd");
    free(ids);
    if (!flis_prompt_make(d->ctx, vocab, phrases, sizeof phrases / sizeof *phrases, &r->prompt)) return;
    for (size_t i = 0; i < FLIS_TOKENS; i++) digest_whole(d, (uint64_t)r->prompt.ids[i], 4);
    digest_end(d, "tokens");
    for (size_t i = 0; i < r->prompt.classes; i++) digest_float(d, r->prompt.class_ids[i]);
    digest_end(d, "classes");
}

/* A label map of six rectangles, 50 x 44, brought to the picture's size; then the masks of every scale. */
static void digest_layout(digest_run *r, size_t levels)
{
    enum { H = 44, W = 50 };
    uint8_t small[H * W], mask[DIGEST_LATENT * DIGEST_LATENT * FLIS_TOKENS];
    char name[64];
    for (size_t i = 0; i < H * W; i++) small[i] = (uint8_t)(1 + i % W * 3 / W + i / W * 2 / H * 3);
    flis_label_pil(small, H, W, r->label, DIGEST_SIZE, DIGEST_SIZE);
    r->rca = (flis_rca){r->label, DIGEST_SIZE, DIGEST_SIZE, r->prompt.class_ids, r->prompt.classes};
    for (size_t side = DIGEST_LATENT, level = 0; level < levels && side && flis_ok(r->d->ctx); level++, side /= 2) {
        flis_rca_mask(r->d->ctx, &r->rca, side, side, mask);
        for (size_t i = 0; i < side * side * FLIS_TOKENS; i++) digest_whole(r->d, mask[i], 1);
        snprintf(name, sizeof name, "mask.%zux%zu", side, side);
        digest_end(r->d, name);
    }
}

/* Text features of one prompt, kept outside the arena. */
static flis_real *digest_encode(digest_run *r, const flis_clip *clip, const int32_t *ids, const char *name)
{
    flis_ctx *ctx = r->d->ctx;
    flis_mark mark = flis_here(ctx);
    const flis_tensor *y = flis_clip_encode(ctx, clip, ids, 1);
    flis_real *out = y && flis_ok(ctx) ? flis_alloc(ctx, flis_count(y), sizeof *out) : NULL;
    if (out) memcpy(out, y->x, flis_count(y) * sizeof *out);
    digest_tensor(r->d, name, y);
    flis_rewind(ctx, mark);
    return out;
}

static void digest_clip(digest_run *r, const flis_vocab *vocab)
{
    flis_ctx *ctx = r->d->ctx;
    int32_t empty[FLIS_TOKENS] = {flis_vocab_bos(vocab)};
    for (int i = 1; i < FLIS_TOKENS; i++) empty[i] = flis_vocab_eos(vocab);
    flis_clip *clip = r->file ? flis_clip_load(ctx, r->file) : flis_clip_new(ctx, &r->tiny->clip);
    if (clip && !r->file) flis_clip_walk(ctx, clip, flis_formula_visit, NULL);
    if (clip && flis_ok(ctx)) {
        r->width = flis_clip_get_config(clip)->width;
        r->context = digest_encode(r, clip, r->prompt.ids, "clip");
        r->uncond = digest_encode(r, clip, empty, "clip.uncond");
    }
    flis_clip_free(clip);
}

static bool digest_eps(flis_ctx *ctx, void *user, const flis_real *x, int64_t t, flis_real *eps, flis_real *uncond)
{
    digest_run *r = user;
    char name[48];
    const char *next = r->evaluation++ ? "next." : "";
    if (!flis_guided_eps(ctx, &r->guided, x, t, eps, uncond)) return false;
    snprintf(name, sizeof name, "%s.%zu.%scond.eps", r->sampler, r->step, next);
    digest_reals(r->d, name, eps, DIGEST_VALUES);
    snprintf(name, sizeof name, "%s.%zu.%suncond.eps", r->sampler, r->step, next);
    if (uncond) digest_reals(r->d, name, uncond, DIGEST_VALUES);
    return flis_ok(ctx);
}

static void digest_step(flis_ctx *ctx, void *user, const flis_step *step)
{
    digest_run *r = user;
    char name[48];
    (void)ctx;
    snprintf(name, sizeof name, "%s.%zu.pred_x0", r->sampler, r->step);
    digest_reals(r->d, name, step->pred_x0, DIGEST_VALUES);
    snprintf(name, sizeof name, "%s.%zu.x_prev", r->sampler, r->step);
    digest_reals(r->d, name, step->x_prev, DIGEST_VALUES);
    r->step++;
    r->evaluation = 0;
}

/* One trajectory: x_T from the seed, then every evaluation and step. */
static void digest_sample(digest_run *r, const char *sampler, flis_rng_kind rng, flis_sampling sampling)
{
    flis_ctx *ctx = r->d->ctx;
    const flis_model_fn model = {digest_eps, digest_step, r};
    float drawn[DIGEST_VALUES];
    char name[48];
    r->sampler = sampler;
    r->step = r->evaluation = 0;
    flis_rng_seed(&ctx->rng, rng, 42);
    flis_randn(&ctx->rng, drawn, DIGEST_VALUES);
    for (size_t i = 0; i < DIGEST_VALUES; i++) r->x[i] = (flis_real)drawn[i];
    snprintf(name, sizeof name, "%s.x_T", sampler);
    digest_reals(r->d, name, r->x, DIGEST_VALUES);
    flis_sample(ctx, &sampling, DIGEST_VALUES, r->x, &model);
}

static void digest_unet(digest_run *r)
{
    flis_ctx *ctx = r->d->ctx;
    flis_unet *unet = r->file ? flis_unet_load(ctx, r->file) : flis_unet_new(ctx, &r->tiny->unet);
    if (unet && !r->file) flis_unet_walk(ctx, unet, flis_formula_visit, NULL);
    if (unet && flis_ok(ctx)) {
        const flis_unet_config *config = flis_unet_get_config(unet);
        if (config->context != r->width)
            flis_fail(ctx, "%s: got a text encoder of width %zu, wanted the U-Net's, %zu", r->file->path, r->width,
                      config->context);
        digest_layout(r, config->levels);
        r->guided = (flis_guided){unet, DIGEST_LATENT, DIGEST_LATENT, r->context, r->uncond, &r->rca};
        digest_sample(r, "ddim", FLIS_RNG_CUDA, (flis_sampling){FLIS_DDIM, 2, 0.5, 1});
        digest_sample(r, "plms", FLIS_RNG_CPU, (flis_sampling){FLIS_PLMS, 4, 0, 2});
    }
    flis_unet_free(unet);
}

/* The decoder's output, before it becomes bytes. */
static void digest_trace(void *user, const char *name, const flis_tensor *x)
{
    digest_run *r = user;
    if (!strcmp(name, "decoder.conv_out")) digest_tensor(r->d, "decode", x);
}

static void digest_picture(digest_run *r, const flis_picture *picture)
{
    static const char *const text[] = {"Software", "flis digest",  "Title", "caf\xC3\xA9",
                                       "prompt",   "\xE6\xB5\xB7", NULL};
    digest *d = r->d;
    size_t length = 0;
    flis_sha256_add(&d->line, picture->pixels, picture->height * picture->width * picture->channels);
    digest_end(d, "pixels");
    uint8_t *png = flis_png_bytes(d->ctx, picture, text, &length);
    if (png) flis_sha256_add(&d->line, png, length);
    digest_end(d, "png");
    free(png);
}

static void digest_vae(digest_run *r)
{
    flis_ctx *ctx = r->d->ctx;
    flis_mark mark = flis_here(ctx);
    flis_picture picture = {0};
    const bool encoder = !r->file || flis_file_find(r->file, "first_stage_model.encoder.conv_in.weight");
    flis_vae *vae = !flis_ok(ctx) ? NULL
                    : r->file     ? flis_vae_load(ctx, r->file, true, encoder)
                                  : flis_vae_new(ctx, &r->tiny->vae, true, true);
    if (vae && !r->file) flis_vae_walk(ctx, vae, flis_formula_visit, NULL);
    if (vae && encoder)
        digest_tensor(r->d, "encode", flis_vae_encode(ctx, vae, formula_image(ctx, "digest.picture", 1, 32, 40, 3)));
    ctx->trace = digest_trace;
    ctx->trace_user = r;
    if (vae && flis_decode_picture(ctx, vae, flis_from_nchw(ctx, r->x, 1, 4, DIGEST_LATENT, DIGEST_LATENT), &picture))
        digest_picture(r, &picture);
    ctx->trace = NULL;
    free(picture.pixels);
    flis_vae_free(vae);
    flis_rewind(ctx, mark);
}

int run_digest(job *j)
{
    flis_ctx *ctx = &j->ctx;
    char hex[65];
    digest d = {.ctx = ctx};
    digest_run r = {.d = &d, .tiny = preset_find("tinyA")};
    if (j->words) return unexpected_argument(j->program, j->word[0]);
    job_begin(j);
    ctx->progress = NULL;
    flis_sha256_begin(&d.all);
    flis_sha256_begin(&d.line);
    if (j->set.model && find_model(j)) r.file = open_model(j);
    flis_vocab *vocab = j->set.vocab ? find_vocab(j) : digest_vocab(ctx);
    if (flis_ok(ctx)) {
        digest_functions(&d);
        digest_operations(&d);
        digest_tables(&d);
        digest_text(&r, vocab);
        digest_clip(&r, vocab);
        digest_unet(&r);
        digest_vae(&r);
        flis_sha256_end(&d.all, hex);
        digest_hex(&d, "all", hex);
    }
    flis_vocab_free(vocab);
    flis_prompt_free(&r.prompt);
    free(r.context);
    free(r.uncond);
    flis_file_close(r.file);
    return job_status(j);
}
