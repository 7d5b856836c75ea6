/* synth - writes a whole latent diffusion model with formula weights. Its pictures are noise; its numbers are what ports are
 * compared on (SPEC 11).
 */
#include "tools/common/common.h"

typedef struct options {
    uint64_t tokens;
    bool half;
} options;

static const option OPTIONS[] = {
    {.name = "tokens",
     .kind = OPTION_WHOLE,
     .offset = offsetof(options, tokens),
     .value = "N",
     .min = 514,
     .max = 1 << 20,
     .help = "size of the vocabulary: 49408 is CLIP's; default: the preset's (tinyA and tinyB 1000, sd14 49408)"},
    {.name = "half",
     .kind = OPTION_FLAG,
     .offset = offsetof(options, half),
     .help = "store F16 in place of F32: each value rounded to nearest"},
};

static const program SYNTH = {
    .name = "synth",
    .arguments = "PRESET OUT.safetensors [options]",
    .summary = "Writes a model with formula weights: pseudo-random, the same on every machine.\n"
               "  tinyA, tinyB   small networks (9 and 56 MB)\n"
               "  sd14           Stable Diffusion v1.4 in full size (4.3 GB; 2.1 GB with --half)",
    .options = OPTIONS,
    .count = sizeof OPTIONS / sizeof *OPTIONS,
};

int main(int argc, char **argv)
{
    options o = {0, false};
    flis_ctx ctx;
    int words;
    const int status = options_read(&SYNTH, &o, argc, argv, &words);
    if (status >= 0) return finish("synth", NULL, status);
    if (words < 2) return missing_argument(&SYNTH, words ? "OUT.safetensors" : "PRESET");
    if (words > 2) return unexpected_argument(&SYNTH, argv[2]);
    const preset *p = preset_find(argv[0]);
    if (!p) return usage_error(&SYNTH, "unknown preset '%s': wanted tinyA, tinyB or sd14", argv[0]);
    preset made = *p;
    char name[64];
    if (o.tokens && o.tokens != p->clip.vocab) { /* no longer the preset that ports know by its name */
        snprintf(name, sizeof name, "%s --tokens %llu", p->name, (unsigned long long)o.tokens);
        made.name = name;
        made.clip.vocab = (size_t)o.tokens;
    }
    if (flis_init(&ctx)) {
        ctx.interrupted = catch_signals();
        if (outputs_check(&ctx, NULL, 0, (const char *const *)&argv[1], 1) && binary_check(&ctx, argv[1]))
            preset_write(&ctx, &made, argv[1], o.half ? FLIS_F16 : FLIS_F32, true);
    }
    flis_free(&ctx);
    return finish("synth", &ctx, 0);
}
