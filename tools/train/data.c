/* data.c - what is learned from: random numbers, files of latents, prompts. */
#include "tools/train/train.h"

#include <stdlib.h>
#include <string.h>

/* ---- Random numbers ---------------------------------------------------------------------------------------------- */

dice dice_of(const options *o, int purpose, uint64_t step, uint64_t number)
{
    uint64_t z = scramble(o->seed + UINT64_C(0x9E3779B97F4A7C15) * (uint64_t)(purpose + 16 * (int)o->stage));
    return (dice){scramble(scramble(z ^ step) + number)};
}

uint64_t batch_number(const job *j)
{
    return j->training.step * j->o.accumulate + j->part;
}

void fill_normal(dice *d, flis_real *out, size_t count)
{
    flis_rng rng;
    float piece[256];
    flis_rng_seed(&rng, FLIS_RNG_CPU, dice_next(d));
    for (size_t i = 0; i < count; i += 256) {
        const size_t now = count - i < 256 ? count - i : 256;
        flis_randn(&rng, piece, now);
        for (size_t k = 0; k < now; k++) out[i + k] = piece[k];
    }
}

/* ---- Files of latents -------------------------------------------------------------------------------------------- */

void latents_free(latents *l)
{
    free(l->moments);
    free(l->label);
    free(l->ids);
    free(l->class_ids);
    free(l->classes);
    memset(l, 0, sizeof *l);
}

bool latents_new(flis_ctx *ctx, latents *l, size_t count, size_t h, size_t w)
{
    *l = (latents){.count = count, .h = h, .w = w};
    l->moments = flis_alloc(ctx, count, h * w * 8 * sizeof *l->moments);
    l->label = flis_alloc(ctx, count, h * w);
    l->ids = flis_alloc(ctx, count, FLIS_TOKENS * sizeof *l->ids);
    l->class_ids = flis_alloc(ctx, count, FLIS_TOKENS * sizeof *l->class_ids);
    l->classes = flis_alloc(ctx, count, sizeof *l->classes);
    return flis_ok(ctx);
}

enum { MOMENTS, LABEL, IDS, CLASS_IDS, CLASSES, TENSORS };
static const struct {
    const char *name;
    flis_dtype dtype, other; /* either is read */
    int rank;
} TENSOR[TENSORS] = {
    [MOMENTS] = {"moments", FLIS_F16, FLIS_F16, 4}, [LABEL] = {"label", FLIS_U8, FLIS_U8, 3},
    [IDS] = {"ids", FLIS_I16, FLIS_I32, 2},         [CLASS_IDS] = {"class_ids", FLIS_I16, FLIS_I16, 2},
    [CLASSES] = {"classes", FLIS_I16, FLIS_I16, 1},
};

static void little_endian(uint16_t *x, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        const unsigned char b[2] = {(unsigned char)(x[i] & 255), (unsigned char)(x[i] >> 8)};
        memcpy(x + i, b, 2);
    }
}

/* The shape of each tensor of `l`. */
static void shapes_of(const latents *l, uint64_t shape[TENSORS][4])
{
    const uint64_t n = l->count, of[TENSORS][4] = {[MOMENTS] = {n, l->h, l->w, 8},
                                                   [LABEL] = {n, l->h, l->w},
                                                   [IDS] = {n, FLIS_TOKENS},
                                                   [CLASS_IDS] = {n, FLIS_TOKENS},
                                                   [CLASSES] = {n}};
    memcpy(shape, of, sizeof of);
}

/* Tokens are I16, as they always were, where that holds them, else I32: CLIP has 49408. */
static flis_dtype type_of_ids(const latents *l)
{
    for (size_t i = 0; i < l->count * FLIS_TOKENS; i++)
        if (l->ids[i] > INT16_MAX) return TENSOR[IDS].other;
    return TENSOR[IDS].dtype;
}

/* Whole numbers of sample i: of ids, of class_ids, or the one of classes. */
static size_t sample_numbers(const latents *l, int tensor, size_t i, int64_t out[FLIS_TOKENS])
{
    if (tensor == CLASSES) return out[0] = l->classes[i], 1;
    for (size_t k = 0, at = i * FLIS_TOKENS; k < FLIS_TOKENS; k++, at++)
        out[k] = tensor == IDS ? l->ids[at] : l->class_ids[at];
    return FLIS_TOKENS;
}

bool latents_write(flis_ctx *ctx, const char *path, latents *l)
{
    uint64_t shape[TENSORS][4];
    int64_t numbers[FLIS_TOKENS];
    const size_t cells = l->count * l->h * l->w;
    flis_writer *writer = flis_write_begin(ctx, path);
    if (!writer) return false;
    shapes_of(l, shape);
    for (int t = 0; t < TENSORS; t++)
        flis_write_declare(ctx, writer, TENSOR[t].name, t == IDS ? type_of_ids(l) : TENSOR[t].dtype, TENSOR[t].rank,
                           shape[t]);
    little_endian(l->moments, cells * 8);
    flis_write_raw(ctx, writer, (const unsigned char *)l->moments, cells * 8);
    flis_write_raw(ctx, writer, l->label, cells);
    for (int t = IDS; t < TENSORS; t++)
        for (size_t i = 0; i < l->count && flis_ok(ctx); i++) {
            const size_t count = sample_numbers(l, t, i, numbers);
            flis_write_i64(ctx, writer, numbers, count);
        }
    return flis_write_end(ctx, writer);
}

static const flis_entry *latents_entry(flis_ctx *ctx, const flis_file *file, int i)
{
    const flis_entry *e = flis_file_find(file, TENSOR[i].name);
    if (e && (e->dtype == TENSOR[i].dtype || e->dtype == TENSOR[i].other) && e->rank == TENSOR[i].rank) return e;
    flis_fail(ctx, "%s: wanted a file of latents: a tensor %s of %s with %d dimensions", file->path, TENSOR[i].name,
              flis_dtype_name(TENSOR[i].dtype), TENSOR[i].rank);
    return NULL;
}

/* The sizes that the other tensors must have are those of moments. */
static bool check_shapes(flis_ctx *ctx, const flis_file *file, const flis_entry *const e[TENSORS])
{
    const uint64_t *m = e[MOMENTS]->shape;
    const latents sizes = {.count = (size_t)m[0], .h = (size_t)m[1], .w = (size_t)m[2]};
    uint64_t shape[TENSORS][4];
    if (!m[0] || !m[1] || !m[2]) return flis_fail(ctx, "%s: moments: got no values", file->path);
    shapes_of(&sizes, shape);
    for (int t = 0; t < TENSORS; t++)
        for (int k = 0; k < TENSOR[t].rank; k++)
            if (e[t]->shape[k] != shape[t][k])
                return flis_fail(ctx, "%s: %s: got size %llu in dimension %d, wanted %llu", file->path, TENSOR[t].name,
                                 (unsigned long long)e[t]->shape[k], k, (unsigned long long)shape[t][k]);
    return true;
}

/* Negative tokens in I16 are those above 32767, which older versions wrote less 65536. */
static bool read_numbers(flis_ctx *ctx, flis_file *file, const flis_entry *e, int tensor, latents *l)
{
    const size_t count = (size_t)flis_entry_count(e);
    int64_t *wide = flis_alloc(ctx, count, sizeof *wide);
    bool good = wide && flis_file_read_i64(ctx, file, e, wide);
    for (size_t i = 0; good && i < count; i++) {
        if (tensor == IDS) l->ids[i] = (int32_t)(wide[i] < 0 && e->dtype == FLIS_I16 ? wide[i] + 65536 : wide[i]);
        else (tensor == CLASSES ? l->classes : l->class_ids)[i] = (int16_t)wide[i];
    }
    free(wide);
    return good;
}

bool latents_read(flis_ctx *ctx, const char *path, latents *l)
{
    const flis_entry *e[TENSORS] = {NULL};
    flis_file *file = flis_file_open(ctx, path);
    bool good = file != NULL;
    for (int i = 0; good && i < TENSORS; i++) good = (e[i] = latents_entry(ctx, file, i)) != NULL;
    good =
        good && check_shapes(ctx, file, e) &&
        latents_new(ctx, l, (size_t)e[MOMENTS]->shape[0], (size_t)e[MOMENTS]->shape[1], (size_t)e[MOMENTS]->shape[2]) &&
        flis_file_read_u16(ctx, file, e[MOMENTS], l->moments) && flis_file_read_u8(ctx, file, e[LABEL], l->label);
    for (int t = IDS; good && t < TENSORS; t++) good = flis_poll(ctx) && read_numbers(ctx, file, e[t], t, l);
    flis_file_close(file);
    return good;
}

/* Sample i: its tokens are a prompt of this vocabulary. */
static bool check_tokens(flis_ctx *ctx, const char *path, const latents *l, size_t i, const flis_vocab *vocab)
{
    const int32_t *ids = l->ids + i * FLIS_TOKENS, bos = flis_vocab_bos(vocab), eos = flis_vocab_eos(vocab);
    const int16_t *of = l->class_ids + i * FLIS_TOKENS;
    if (ids[0] != bos || ids[FLIS_TOKENS - 1] != eos)
        return flis_fail(ctx,
                         "%s: sample %zu: its tokens begin with %ld and end with %ld, wanted %ld and %ld: the latents "
                         "were made with a vocabulary of another size than --vocab",
                         path, i, (long)ids[0], (long)ids[FLIS_TOKENS - 1], (long)bos, (long)eos);
    for (size_t k = 0; k < FLIS_TOKENS; k++)
        if (ids[k] < 0 || ids[k] > eos || of[k] < -1 || of[k] > 255)
            return flis_fail(ctx, "%s: sample %zu: got token %ld of class %d, wanted 0 to %ld and -1 to 255", path, i,
                             (long)ids[k], of[k], (long)eos);
    return (l->classes[i] >= 0 && l->classes[i] <= FLIS_PHRASE_TOKENS) ||
           flis_fail(ctx, "%s: sample %zu: got %d words, wanted 0 to %d", path, i, l->classes[i], FLIS_PHRASE_TOKENS);
}

bool latents_check(flis_ctx *ctx, const char *path, const latents *l, const flis_vocab *vocab)
{
    const size_t values = l->h * l->w * 8;
    for (size_t i = 0; i < l->count && flis_poll(ctx); i++) {
        if (!check_tokens(ctx, path, l, i, vocab)) return false;
        for (size_t k = i * values; k < (i + 1) * values; k++)
            if ((l->moments[k] & 0x7C00) == 0x7C00)
                return flis_fail(ctx, "%s: sample %zu: its moments have a value that is not finite", path, i);
    }
    return flis_ok(ctx);
}

/* ---- Prompts ----------------------------------------------------------------------------------------------------- */

bool put_prompt(flis_ctx *ctx, const flis_vocab *vocab, const flis_phrase *phrase, size_t count, int32_t *ids,
                int16_t *class_ids, int16_t *classes)
{
    flis_prompt prompt;
    if (!flis_prompt_make(ctx, vocab, phrase, count, &prompt)) return false;
    for (size_t i = 0; i < FLIS_TOKENS; i++) {
        ids[i] = prompt.ids[i];
        class_ids[i] = (int16_t)(i < prompt.classes ? prompt.class_ids[i] : -1);
    }
    *classes = (int16_t)prompt.classes;
    flis_prompt_free(&prompt);
    return true;
}

bool put_scene_prompt(flis_ctx *ctx, const flis_vocab *vocab, const world_scene *s, bool plain, int32_t *ids,
                      int16_t *class_ids, int16_t *classes)
{
    flis_phrase phrase[WORLD_PHRASES];
    char text[WORLD_PHRASES][sizeof s->phrase[0].text];
    char caption[sizeof s->caption];
    if (!plain) {
        memcpy(caption, s->caption, sizeof caption);
        return put_prompt(ctx, vocab, &(flis_phrase){caption, -1}, 1, ids, class_ids, classes);
    }
    for (int i = 0; i < s->phrases; i++) {
        memcpy(text[i], s->phrase[i].text, sizeof text[i]);
        phrase[i] = (flis_phrase){text[i], s->phrase[i].id};
    }
    return put_prompt(ctx, vocab, phrase, (size_t)s->phrases, ids, class_ids, classes);
}
