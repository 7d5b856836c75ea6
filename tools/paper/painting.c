/* painting.c - models, and the pictures that each method makes of a scene. */
#include "tools/paper/paper.h"

#include <stdlib.h>
#include <string.h>

enum { CELLS = SIDE / FLIS_FACTOR, VALUES = CELLS * CELLS * 4 }; /* of a latent */

void model_free(model *m)
{
    flis_clip_free(m->clip);
    flis_unet_free(m->unet);
    flis_vae_free(m->vae);
    free(m->empty);
}

bool model_load(paper *p, const char *path, model *m)
{
    flis_ctx *ctx = &p->ctx;
    flis_file *file = flis_model_open(ctx, path);
    if (!file) return false;
    m->clip = flis_clip_load(ctx, file);
    m->unet = flis_unet_load(ctx, file);
    m->vae = flis_vae_load(ctx, file, true, true);
    flis_file_close(file);
    flis_prompt prompt;
    flis_phrase empty = {(char[]){""}, -1};
    if (!flis_ok(ctx) || !file_digest(ctx, path, m->digest) || !flis_prompt_make(ctx, p->vocab, &empty, 1, &prompt))
        return false;
    flis_mark mark = flis_here(ctx);
    flis_tensor *text = flis_clip_encode(ctx, m->clip, prompt.ids, 1);
    m->empty = text ? flis_alloc(ctx, flis_count(text), sizeof *m->empty) : NULL;
    if (m->empty) memcpy(m->empty, text->x, flis_count(text) * sizeof *m->empty);
    flis_rewind(ctx, mark);
    flis_prompt_free(&prompt);
    return flis_ok(ctx);
}

/* The phrases of a scene, as flis_prompt_make takes them; text holds copies. */
static size_t phrases_of(const world_scene *s, flis_phrase *phrase, char (*text)[40])
{
    for (int i = 0; i < s->phrases; i++) {
        memcpy(text[i], s->phrase[i].text, sizeof text[i]);
        phrase[i] = (flis_phrase){text[i], s->phrase[i].id};
    }
    return (size_t)s->phrases;
}

/* Text to image with PLMS; label NULL: without RCA, from the phrases alone. */
static bool synthesise(paper *p, const model *m, const flis_phrase *phrase, size_t count, const uint8_t *label,
                       uint64_t seed, uint8_t *rgb)
{
    flis_ctx *ctx = &p->ctx;
    flis_prompt prompt;
    float noise[VALUES];
    flis_real x[VALUES];
    if (!flis_prompt_make(ctx, p->vocab, phrase, count, &prompt)) return false;
    flis_mark mark = flis_here(ctx);
    const flis_tensor *text = flis_clip_encode(ctx, m->clip, prompt.ids, 1);
    const flis_rca rca = {label, SIDE, SIDE, prompt.class_ids, prompt.classes};
    flis_guided guided = {m->unet, CELLS, CELLS, text ? text->x : NULL, m->empty, label ? &rca : NULL};
    const flis_model_fn fn = {flis_guided_eps, NULL, &guided};
    const flis_sampling sampling = {FLIS_PLMS, (int)p->o.steps, 0, p->o.scale};
    flis_picture picture = {0, 0, 0, NULL};
    flis_rng_seed(&ctx->rng, FLIS_RNG_CPU, seed);
    flis_randn(&ctx->rng, noise, VALUES);
    for (size_t i = 0; i < VALUES; i++) x[i] = noise[i];
    if (text && flis_sample(ctx, &sampling, VALUES, x, &fn))
        flis_decode_picture(ctx, m->vae, flis_from_nchw(ctx, x, 1, 4, CELLS, CELLS), &picture);
    if (picture.pixels) memcpy(rgb, picture.pixels, WORLD_PIXELS * 3);
    free(picture.pixels);
    flis_rewind(ctx, mark);
    flis_prompt_free(&prompt);
    return flis_ok(ctx);
}

bool repaint_coded(flis_ctx *ctx, void *user, uint8_t *rgb)
{
    paper *p = user;
    progress_show(&p->progress, "judges", (size_t)++p->judged, JUDGES_PAINTED);
    return through_autoencoder(ctx, p->tuned.vae, SIDE, rgb);
}

bool make_picture(paper *p, method how, const world_scene *s, uint64_t seed, uint8_t *rgb)
{
    flis_phrase phrase[WORLD_PHRASES];
    char text[WORLD_PHRASES][40];
    const size_t count = phrases_of(s, phrase, text);
    if (how == REAL || how == CODED) memcpy(rgb, s->rgb, WORLD_PIXELS * 3);
    if (how == REAL) return true;
    if (how == CODED) return through_autoencoder(&p->ctx, p->tuned.vae, SIDE, rgb);
    return synthesise(p, how == TUNED ? &p->tuned : &p->plain, phrase, count, how == PLAIN ? NULL : s->label, seed,
                      rgb);
}
