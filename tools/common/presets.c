/* presets.c - shapes of models with formula weights (flis_formula_weights), and writing them: pseudo-random numbers
 * that every port can compute to the bit from the tensors' names. Names and shapes come from the library's key tables.
 */
#include "tools/common/common.h"

#include <stdlib.h>
#include <string.h>

static const preset PRESETS[] = {
    {"tinyA",
     {1000, 32, 2, 2, 128, 77},
     {4, 4, 32, 3, {1, 2, 2}, {true, true, true}, 1, 2, 32, 32},
     {32, 4, {1, 1, 1, 1}, 1, 4, 4, 0.18215, 32}},
    {"tinyB",
     {1000, 48, 4, 4, 192, 77},
     {4, 4, 32, 4, {1, 2, 4, 4}, {true, true, true, false}, 2, 4, 48, 32},
     {32, 4, {1, 2, 4, 4}, 2, 4, 4, 0.18215, 32}},
    {"sd14",
     {49408, 768, 12, 12, 3072, 77},
     {4, 4, 320, 4, {1, 2, 4, 4}, {true, true, true, false}, 2, 8, 768, 32},
     {128, 4, {1, 2, 4, 4}, 2, 4, 4, 0.18215, 32}},
};

const preset *preset_find(const char *name)
{
    for (size_t i = 0; i < sizeof PRESETS / sizeof *PRESETS; i++)
        if (strcmp(name, PRESETS[i].name) == 0) return &PRESETS[i];
    return NULL;
}

typedef struct model_output {
    flis_writer *writer;
    flis_dtype dtype;
} model_output;

static bool declare(flis_ctx *ctx, void *user, const char *name, flis_param *param)
{
    const model_output *o = user;
    uint64_t shape[4];
    for (int i = 0; i < param->rank; i++) shape[i] = param->shape[i];
    return flis_write_declare(ctx, o->writer, name, o->dtype, param->rank, shape);
}

static bool write_values(flis_ctx *ctx, void *user, const char *name, flis_param *param)
{
    enum { PIECE = 1 << 16 };
    const model_output *o = user;
    const size_t count = flis_param_count(param);
    flis_real *values = flis_alloc(ctx, PIECE, sizeof *values);
    for (size_t first = 0; values && first < count && flis_poll(ctx); first += PIECE) {
        size_t now = count - first < PIECE ? count - first : PIECE;
        flis_formula_weights(name, param->rank, param->shape, first, now, values);
        flis_write_real(ctx, o->writer, values, now);
    }
    free(values);
    return flis_ok(ctx);
}

/* SPEC 10.6. */
static void metadata(flis_ctx *ctx, flis_writer *writer, const preset *p)
{
    char number[32];
    flis_write_metadata(ctx, writer, "flis.preset", p->name);
    snprintf(number, sizeof number, "%zu", p->unet.heads);
    flis_write_metadata(ctx, writer, "unet.num_heads", number);
    snprintf(number, sizeof number, "%zu", p->clip.heads);
    flis_write_metadata(ctx, writer, "clip.num_heads", number);
    snprintf(number, sizeof number, "%g", p->vae.scale_factor);
    flis_write_metadata(ctx, writer, "vae.scale_factor", number);
}

/* SPEC 11.2. */
bool preset_write(flis_ctx *ctx, const preset *p, const char *path, flis_dtype dtype, bool encoder)
{
    flis_clip *clip = flis_clip_new(ctx, &p->clip);
    flis_unet *unet = flis_unet_new(ctx, &p->unet);
    flis_vae *vae = flis_vae_new(ctx, &p->vae, true, encoder);
    model_output o = {clip && unet && vae ? flis_write_begin(ctx, path) : NULL, dtype};
    if (o.writer) {
        metadata(ctx, o.writer, p);
        flis_visit *const visits[] = {declare, write_values};
        for (int i = 0; i < 2; i++) {
            flis_unet_walk(ctx, unet, visits[i], &o);
            flis_vae_walk(ctx, vae, visits[i], &o);
            flis_clip_walk(ctx, clip, visits[i], &o);
        }
        flis_write_end(ctx, o.writer);
    }
    flis_clip_free(clip);
    flis_unet_free(unet);
    flis_vae_free(vae);
    return flis_ok(ctx);
}
