/* samples.c - one sample of a batch for text2image and layout: which scene or picture, which window of it, its words, its
 * latents and its noise. The order in which random numbers are drawn is part of the bits of a training: first the choice (which
 * sample, whether its words are dropped, whether it is mirrored), which ahead.c draws a second time; then all else.
 */
#include "tools/train/train.h"

#include <math.h>
#include <string.h>

/* ---- Windows ----------------------------------------------------------------------------------------------------- */

size_t spread_evenly(size_t i, size_t count, size_t of)
{
    return (size_t)((uint64_t)i * of / count);
}

size_t window_side(const job *j, size_t side)
{
    return j->o.window && j->o.window < side ? (size_t)j->o.window : side;
}

/* The class that a window is cut around: that of one word, drawn among all; -1: a style's, which acts everywhere. things: among
   the words of things, where there are any. */
static int choose_class(const latents *l, size_t at, bool things, dice *d)
{
    const int16_t *of = l->class_ids + at * FLIS_TOKENS;
    int word[FLIS_TOKENS], words = 0;
    for (int pick = things; pick >= 0 && !words; pick--)
        for (int i = 0; i < l->classes[at]; i++)
            if (!pick || (of[i] >= 0 && !world_is_stuff(world_class_of(of[i])))) word[words++] = i;
    return words ? of[word[roll(d, words)]] : -1;
}

/* The upper left cell of a window of scene `at`. The window contains a cell, drawn uniformly, of a class that is drawn first,
   so that a boat is seen as often as the sea. For a style, which acts everywhere, the window lies at the upper left corner: any
   position would be better, but the shipped model was trained so, and its commands must reproduce it. Returns the class. */
int choose_window(const latents *l, size_t at, size_t side, bool things, dice *d, size_t *top, size_t *left)
{
    const uint8_t *label = l->label + at * l->h * l->w;
    const int class = choose_class(l, at, things, d);
    int seen = 0;
    for (size_t i = 0; i < l->h * l->w; i++) seen += class < 0 || label[i] == class;
    int chosen = seen ? roll(d, seen) : 0;
    size_t i = 0;
    while (class >= 0 && seen && chosen >= 0) chosen -= label[i++] == class;
    i -= i > 0;
    const size_t y = i / l->w, x = i % l->w, up = (size_t)roll(d, (int)side), before = (size_t)roll(d, (int)side);
    *top = y < up ? 0 : y - up + side > l->h ? l->h - side : y - up;
    *left = x < before ? 0 : x - before + side > l->w ? l->w - side : x - before;
    return class;
}

/* Words of a phrase that covers fewer cells of the window would name something that is hardly visible. */
enum { FEWEST_CELLS = 3 };

/* Tokens [77] and classes [77] of a window of scene `at` (label: its cells): the words of the phrases that are visible in it
   and of what acts everywhere, without gaps, then end and padding. all: of all phrases. only: of the regions' phrases this
   class alone; -1: all. */
void put_window_prompt(const latents *l, size_t at, const uint8_t *label, size_t cells, bool all, int only,
                       const int32_t *empty, int32_t *ids, float *class_ids, size_t *classes)
{
    const int32_t *from = l->ids + at * FLIS_TOKENS;
    const int16_t *class = l->class_ids + at * FLIS_TOKENS;
    const size_t words = (size_t)l->classes[at];
    size_t n = 0;
    ids[0] = empty[0];
    for (size_t i = 0; i < words && i + 1 < FLIS_TOKENS; i++) {
        size_t seen = 0;
        for (size_t k = 0; k < cells && class[i] >= 0; k++) seen += label[k] == class[i];
        if (!all && class[i] >= 0 && seen < FEWEST_CELLS) continue;
        if (only >= 0 && class[i] >= 0 && class[i] != only) continue;
        class_ids[n] = class[i];
        ids[++n] = from[i + 1];
    }
    *classes = n;
    for (size_t i = n; i < FLIS_TOKENS; i++) class_ids[i] = -1;
    while (++n < FLIS_TOKENS) ids[n] = empty[1]; /* end and padding are one token */
}

/* ---- Samples ----------------------------------------------------------------------------------------------------- */

/* True with a probability that is a whole percentage. */
static bool happens(dice *d, double probability)
{
    return chance(d, (int)(100 * probability + 0.5));
}

/* The posterior's sample times the scale factor, z = scale (m + e^(l/2) noise), of cells of scene `at`. */
static void sample_window(const latents *l, size_t at, size_t top, size_t left, size_t h, size_t w, double scale,
                          const flis_real *noise, uint8_t *label, flis_real *z)
{
    for (size_t i = 0; i < h * w; i++) {
        const size_t from = at * l->h * l->w + (top + i / w) * l->w + left + i % w;
        label[i] = l->label[from];
        for (size_t c = 0; c < 4; c++) {
            const double mean = flis_half_to_float(l->moments[from * 8 + c]),
                         log_variance = flis_half_to_float(l->moments[from * 8 + 4 + c]);
            z[i * 4 + c] = (flis_real)(scale * (mean + flis_exp(0.5 * log_variance) * (double)noise[i * 4 + c]));
        }
    }
}

choice choose_latents(const job *j, uint64_t number, size_t sample, dice *d)
{
    const size_t at = (size_t)(dice_next(d) % j->data.count);
    (void)number;
    (void)sample;
    return (choice){.at = at, .dropped = happens(d, j->o.dropout)};
}

choice choose_photo(const job *j, uint64_t number, size_t sample, dice *d)
{
    const bool dropped = happens(d, j->o.dropout), mirror = happens(d, j->o.flip);
    const size_t at = choose_picture(&j->o, j->folder.files.count, number, sample, dice_next(d));
    return (choice){.at = at, .dropped = dropped, .mirror = mirror};
}

bool put_latents(job *j, const latents *l, choice c, batch *b, size_t k, double scale, dice *d)
{
    const size_t at = c.at, h = window_side(j, l->h), w = window_side(j, l->w), cells = h * w;
    const bool layout = j->o.stage == LAYOUT && !c.dropped, whole = cells == l->h * l->w;
    size_t top = 0, left = 0, classes;
    int only = -1;
    flis_real *noise = flis_scratch(&j->ctx, cells * 4, sizeof *noise);
    uint8_t *label = flis_scratch(&j->ctx, cells, 1);
    if (!noise || !label) return false;
    b->t[k] = roll(d, FLIS_TIMESTEPS);
    if (!whole) only = choose_window(l, at, h, j->o.things, d, &top, &left);
    if (j->o.alone == 0 || !happens(d, j->o.alone)) only = -1;
    fill_normal(d, noise, cells * 4);
    fill_normal(d, b->noise->x + k * cells * 4, cells * 4);
    sample_window(l, at, top, left, h, w, scale, noise, label, b->z->x + k * cells * 4);
    put_window_prompt(l, at, label, cells, whole, only, j->empty, b->ids + k * FLIS_TOKENS,
                      b->class_ids + k * FLIS_TOKENS, &classes);
    for (size_t i = 0; c.dropped && i < FLIS_TOKENS; i++) b->ids[k * FLIS_TOKENS + i] = j->empty[i];
    b->rca[k] = (flis_rca){label, h, w, b->class_ids + k * FLIS_TOKENS, classes};
    b->layout[k] = layout ? &b->rca[k] : NULL;
    return true;
}

/* A picture of a folder through the encoder. */
bool put_photo(job *j, const photos *f, choice c, const decoded *photo, batch *b, size_t k, double scale, dice *d)
{
    flis_ctx *ctx = &j->ctx;
    const size_t side = (size_t)j->o.size, h = side / FLIS_FACTOR, cells = h * h;
    int32_t ids[FLIS_TOKENS];
    int16_t class_ids[FLIS_TOKENS], classes = 0;
    if (*photo->error) return flis_fail(ctx, "%s", photo->error);
    if (!put_prompt(ctx, j->vocab, photo->phrase, photo->phrases, ids, class_ids, &classes))
        return flis_fail_in(ctx, f->files.name[c.at]);
    flis_mark mark = flis_here(ctx);
    flis_tensor *x = flis_image(ctx, 1, side, side, 3);
    if (x) memcpy(x->x, photo->pixels, side * side * 3 * sizeof *x->x);
    flis_tensor *moments = flis_vae_encode(ctx, j->m.vae, x), *noise = flis_image(ctx, 1, h, h, 4);
    if (noise) fill_normal(d, noise->x, flis_count(noise));
    if (noise && b->posterior) memcpy(b->posterior + k * cells * 4, noise->x, cells * 4 * sizeof *noise->x);
    if (b->image) memcpy(b->image + k * side * side * 3, photo->pixels, side * side * 3 * sizeof *b->image);
    flis_tensor *z = flis_posterior_sample(ctx, moments, noise);
    for (size_t i = 0; z && i < cells * 4; i++) b->z->x[k * cells * 4 + i] = (flis_real)(scale * (double)z->x[i]);
    flis_rewind(ctx, mark);
    b->t[k] = roll(d, FLIS_TIMESTEPS);
    fill_normal(d, b->noise->x + k * cells * 4, cells * 4);
    for (size_t i = 0; i < FLIS_TOKENS; i++) {
        b->ids[k * FLIS_TOKENS + i] = c.dropped ? j->empty[i] : ids[i];
        b->class_ids[k * FLIS_TOKENS + i] = class_ids[i];
    }
    b->rca[k] = (flis_rca){photo->label, side, side, b->class_ids + k * FLIS_TOKENS, (size_t)classes};
    b->layout[k] = j->o.stage == LAYOUT && !c.dropped ? &b->rca[k] : NULL;
    return flis_ok(ctx);
}

/* ---- Batches ----------------------------------------------------------------------------------------------------- */

batch *batch_new(flis_ctx *ctx, size_t n, size_t h, size_t w, bool pictures)
{
    batch *b = flis_scratch(ctx, 1, sizeof *b);
    if (!b) return NULL;
    memset(b, 0, sizeof *b);
    b->z = flis_image(ctx, n, h, w, 4);
    b->noise = flis_image(ctx, n, h, w, 4);
    b->ids = flis_scratch(ctx, n * FLIS_TOKENS, sizeof *b->ids);
    b->class_ids = flis_scratch(ctx, n * FLIS_TOKENS, sizeof *b->class_ids);
    if (pictures) {
        b->image = flis_scratch(ctx, n * h * w * FLIS_FACTOR * FLIS_FACTOR * 3, sizeof *b->image);
        b->posterior = flis_scratch(ctx, n * h * w * 4, sizeof *b->posterior);
    }
    return flis_ok(ctx) ? b : NULL;
}

void batch_add_noise(const flis_schedule *s, batch *b)
{
    const size_t values = b->z->h * b->z->w * 4;
    for (size_t k = 0; k < b->z->n; k++) {
        const double bar = s->alpha_bar[(size_t)b->t[k]], signal = sqrt(bar), noise = sqrt(1 - bar);
        for (size_t i = k * values; i < (k + 1) * values; i++)
            b->z->x[i] = (flis_real)(signal * (double)b->z->x[i] + noise * (double)b->noise->x[i]);
    }
}
