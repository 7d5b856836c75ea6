/* synth - writes a whole latent diffusion model with formula weights: pseudo-random numbers that every port can compute
 * for itself, to the bit, from the tensors' names alone (flis_formula_weights). Its pictures are noise; its numbers are
 * what ports are compared on. Names and shapes come from the library's own key tables.
 */
#include "flis.h"

#include <stdlib.h>
#include <string.h>

typedef struct preset {
    const char *name;
    flis_clip_config clip;
    flis_unet_config unet;
    flis_vae_config vae;
} preset;

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

typedef struct output {
    flis_writer *writer;
    flis_dtype dtype;
} output;

static bool declare(flis_ctx *ctx, void *user, const char *name, flis_param *param)
{
    const output *o = user;
    uint64_t shape[4];
    for (int i = 0; i < param->rank; i++) shape[i] = param->shape[i];
    return flis_write_declare(ctx, o->writer, name, o->dtype, param->rank, shape);
}

static bool write_values(flis_ctx *ctx, void *user, const char *name, flis_param *param)
{
    enum { PIECE = 1 << 16 };
    const output *o = user;
    size_t count = 1;
    flis_real *values = flis_alloc(ctx, PIECE, sizeof *values);
    for (int i = 0; i < param->rank; i++) count *= param->shape[i];
    for (size_t first = 0; values && first < count && flis_ok(ctx); first += PIECE) {
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
static bool synthesise(flis_ctx *ctx, const preset *p, const char *path, flis_dtype dtype)
{
    flis_clip *clip = flis_clip_new(ctx, &p->clip);
    flis_unet *unet = flis_unet_new(ctx, &p->unet);
    flis_vae *vae = flis_vae_new(ctx, &p->vae, true, true);
    output o = {clip && unet && vae ? flis_write_begin(ctx, path) : NULL, dtype};
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

static const char HELP[] = "usage: synth [--half] PRESET OUT.safetensors\n"
                           "Writes a model with formula weights: pseudo-random, the same on every machine.\n"
                           "  tinyA, tinyB   small networks (9 and 56 MB)\n"
                           "  sd14           Stable Diffusion v1.4 in full size (4.3 GB; 2.1 GB with --half)\n"
                           "  --half         store F16: each value rounded to nearest\n"
                           "  --help, --version\n"
                           "exit status: 0 done, 1 failed (one sentence on stderr, nothing written), 2 wrong usage\n";

static int misused(const char *what, const char *why)
{
    fprintf(stderr, "synth: %s%s; see --help\n", what, why);
    return 2;
}

int main(int argc, char **argv)
{
    const char *name = NULL, *path = NULL;
    flis_dtype dtype = FLIS_F32;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--help") == 0) return fputs(HELP, stdout) < 0;
        if (strcmp(argv[i], "--version") == 0) return puts("synth " FLIS_VERSION) < 0;
        if (strcmp(argv[i], "--half") == 0) dtype = FLIS_F16;
        else if (argv[i][0] == '-') return misused(argv[i], ": not an option");
        else if (!name) name = argv[i];
        else if (!path) path = argv[i];
        else return misused(argv[i], ": one argument too many");
    }
    if (!path) return misused("wanted PRESET and OUT.safetensors", "");
    for (size_t i = 0; i < sizeof PRESETS / sizeof *PRESETS; i++) {
        if (strcmp(name, PRESETS[i].name) != 0) continue;
        flis_ctx ctx;
        bool done = flis_init(&ctx) && synthesise(&ctx, &PRESETS[i], path, dtype);
        if (!done) fprintf(stderr, "synth: %s\n", ctx.error);
        flis_free(&ctx);
        return done ? 0 : 1;
    }
    return misused(name, ": not a preset; wanted tinyA, tinyB or sd14");
}
