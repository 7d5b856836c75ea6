/* stages.c - whole stages: text encoder, U-Net and decoder, and loading all three. */
#include "tools/bench/bench.h"

#include <stdlib.h>
#include <string.h>

static const preset *sizes_of(const bench *b)
{
    return preset_find(b->small ? "tinyB" : "sd14");
}

/* Sums up the bytes of the weights in memory: F16 ones stay F16. */
static bool weigh(flis_ctx *ctx, void *bytes, const char *name, flis_param *param)
{
    (void)name;
    *(double *)bytes +=
        (double)flis_param_count(param) * (double)(param->half ? sizeof *param->half : sizeof(flis_real));
    return flis_ok(ctx);
}

/* What a stage computes on. */
typedef struct stage {
    flis_clip *clip;
    flis_unet *unet;
    flis_vae *vae;
    flis_tensor *x, *context;
    int32_t ids[FLIS_TOKENS];
    flis_rca rca;
} stage;

static flis_tensor *run_clip(flis_ctx *ctx, const void *what)
{
    const stage *s = what;
    return flis_clip_encode(ctx, s->clip, s->ids, 1);
}

static flis_tensor *run_unet(flis_ctx *ctx, const void *what)
{
    const stage *s = what;
    const flis_rca *const rca[] = {&s->rca};
    const double t = 981;
    return flis_unet_eps(ctx, s->unet, s->x, &t, s->context, rca);
}

static flis_tensor *run_vae(flis_ctx *ctx, const void *what)
{
    const stage *s = what;
    return flis_vae_decode(ctx, s->vae, s->x);
}

void bench_clip(bench *b, flis_file *file)
{
    flis_ctx *ctx = &b->ctx;
    stage s = {.clip = NULL};
    double weights = 0;
    timing t;
    show_status("clip: weights");
    s.clip = file ? flis_clip_load(ctx, file) : flis_clip_new(ctx, &sizes_of(b)->clip);
    if (s.clip && !file) flis_clip_walk(ctx, s.clip, flis_formula_visit, NULL);
    if (s.clip && flis_ok(ctx)) {
        const size_t words = flis_clip_get_config(s.clip)->vocab;
        for (size_t i = 0; i < FLIS_TOKENS; i++) s.ids[i] = (int32_t)(i * 37 % words);
        flis_clip_walk(ctx, s.clip, weigh, &weights);
        if (each_thread(b, "clip", "text encoder, 77 tokens", run_clip, &s, 0, &t))
            remember_memory(b, "clip", 0, weights, &t);
    }
    flis_clip_free(s.clip);
}

/* Eight bands, each the region of a phrase of three tokens: the mask of a prompt of 24 tokens. */
enum { BANDS = 8, PHRASE = 3 };
static uint8_t *bands_make(flis_ctx *ctx, size_t size)
{
    uint8_t *label = flis_alloc(ctx, size, size);
    for (size_t i = 0; label && i < size * size; i++) label[i] = (uint8_t)(i / size * BANDS / size);
    return label;
}

static void bench_unet_size(bench *b, stage *s, size_t size, double weights)
{
    flis_ctx *ctx = &b->ctx;
    const flis_unet_config *config = flis_unet_get_config(s->unet);
    float class_ids[BANDS * PHRASE];
    char name[64];
    timing t;
    flis_mark mark = flis_here(ctx);
    uint8_t *label = bands_make(ctx, size);
    for (size_t k = 0; k < BANDS * PHRASE; k++) class_ids[k] = (float)(k / PHRASE);
    s->rca = (flis_rca){label, size, size, class_ids, BANDS * PHRASE};
    fill_values(ctx, "bench.latents", s->x = flis_image(ctx, 1, size / FLIS_FACTOR, size / FLIS_FACTOR, config->in));
    fill_values(ctx, "bench.context", s->context = flis_rows(ctx, 1, FLIS_TOKENS, config->context));
    snprintf(name, sizeof name, "U-Net, one pass with a layout, %zux%zu", size, size);
    if (each_thread(b, "unet", name, run_unet, s, 0, &t)) remember_memory(b, "unet", size, weights, &t);
    free(label);
    flis_rewind(ctx, mark);
}

void bench_unet(bench *b, flis_file *file)
{
    flis_ctx *ctx = &b->ctx;
    stage s = {.unet = NULL};
    double weights = 0;
    show_status("unet: weights");
    s.unet = file ? flis_unet_load(ctx, file) : flis_unet_new(ctx, &sizes_of(b)->unet);
    if (s.unet && !file) flis_unet_walk(ctx, s.unet, flis_formula_visit, NULL);
    if (s.unet && flis_ok(ctx)) flis_unet_walk(ctx, s.unet, weigh, &weights);
    for (size_t i = 0; s.unet && i < b->sizes.count && flis_ok(ctx); i++)
        bench_unet_size(b, &s, b->sizes.at[i], weights);
    flis_unet_free(s.unet);
    flis_free(ctx); /* the next stage needs an arena of a different size */
}

void bench_vae(bench *b, flis_file *file)
{
    flis_ctx *ctx = &b->ctx;
    stage s = {.vae = NULL};
    double weights = 0;
    show_status("vae: weights");
    s.vae = file ? flis_vae_load(ctx, file, true, false) : flis_vae_new(ctx, &sizes_of(b)->vae, true, false);
    if (s.vae && !file) flis_vae_walk(ctx, s.vae, flis_formula_visit, NULL);
    if (s.vae && flis_ok(ctx)) flis_vae_walk(ctx, s.vae, weigh, &weights);
    for (size_t i = 0; s.vae && i < b->sizes.count && flis_ok(ctx); i++) {
        const size_t size = b->sizes.at[i], cells = size / FLIS_FACTOR;
        char name[64];
        timing t;
        flis_mark mark = flis_here(ctx);
        fill_values(ctx, "bench.latents", s.x = flis_image(ctx, 1, cells, cells, flis_vae_get_config(s.vae)->embed));
        snprintf(name, sizeof name, "decoder, %zux%zu", size, size);
        if (each_thread(b, "vae", name, run_vae, &s, 0, &t)) remember_memory(b, "vae", size, weights, &t);
        flis_rewind(ctx, mark);
    }
    flis_vae_free(s.vae);
    flis_free(ctx);
}

/* Like `flis generate`: one stage after the other, each freed before the next is loaded. */
static flis_tensor *run_load(flis_ctx *ctx, const void *path)
{
    flis_file *file = flis_model_open(ctx, path);
    if (file) flis_clip_free(flis_clip_load(ctx, file));
    if (file && flis_ok(ctx)) flis_unet_free(flis_unet_load(ctx, file));
    if (file && flis_ok(ctx)) flis_vae_free(flis_vae_load(ctx, file, true, false));
    flis_file_close(file);
    return NULL;
}

/* Bytes of all weights of the three parts in memory. A file may have others, which are not loaded. */
static double bytes_to_load(flis_ctx *ctx, const char *path)
{
    double bytes = 0;
    flis_file *file = flis_model_open(ctx, path);
    flis_clip *clip = file ? flis_clip_load(ctx, file) : NULL;
    if (clip) flis_clip_walk(ctx, clip, weigh, &bytes);
    flis_clip_free(clip);
    flis_unet *unet = file && flis_ok(ctx) ? flis_unet_load(ctx, file) : NULL;
    if (unet) flis_unet_walk(ctx, unet, weigh, &bytes);
    flis_unet_free(unet);
    flis_vae *vae = file && flis_ok(ctx) ? flis_vae_load(ctx, file, true, false) : NULL;
    if (vae) flis_vae_walk(ctx, vae, weigh, &bytes);
    flis_vae_free(vae);
    flis_file_close(file);
    return bytes;
}

void bench_load(bench *b)
{
    flis_ctx *ctx = &b->ctx;
    char folder[PATH_ROOM];
    char *written = NULL;
    timing t;
    if (!b->model) {
        show_status("load: writing a model");
        if (!scratch_folder(ctx, "flis-bench", folder)) return;
        written = path_with(ctx, folder, "/flis-bench.safetensors");
        if (written && kind_of_file(written) != FILE_ABSENT) {
            flis_fail(ctx, "%s: exists already", written); /* on systems without scratch folders */
            free(written);
            return;
        }
        if (written) preset_write(ctx, sizes_of(b), written, FLIS_F32, false);
    }
    const char *path = b->model ? b->model : written;
    show_status("load: reading it once");
    const double bytes = flis_ok(ctx) ? bytes_to_load(ctx, path) : 0;
    each_thread(b, "load", "all three parts, from the page cache", run_load, path, bytes, &t);
    if (b->model) return;
    if (written) output_remove(written);
    scratch_remove(folder);
    free(written);
}
