/* data.c - what is learned from: random numbers, files of latents, prompts, folders of pictures. */
#include "tools/train/train.h"

#include <stdlib.h>
#include <string.h>

/* ---- Random numbers ---------------------------------------------------------------------------------------------- */

dice dice_of(const options *o, int purpose, uint64_t step, uint64_t number)
{
    uint64_t z = scramble(o->seed + UINT64_C(0x9E3779B97F4A7C15) * (uint64_t)(purpose + 16 * (int)o->stage));
    return (dice){scramble(scramble(z ^ step) + number)};
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

enum { TENSORS = 5 };
static const struct {
    const char *name;
    flis_dtype dtype;
    int rank;
} TENSOR[TENSORS] = {
    {"moments", FLIS_F16, 4},   {"label", FLIS_U8, 3},    {"ids", FLIS_I16, 2},
    {"class_ids", FLIS_I16, 2}, {"classes", FLIS_I16, 1},
};

static void little_endian(uint16_t *x, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        const unsigned char b[2] = {(unsigned char)(x[i] & 255), (unsigned char)(x[i] >> 8)};
        memcpy(x + i, b, 2);
    }
}

bool latents_write(flis_ctx *ctx, const char *path, latents *l)
{
    const uint64_t n = l->count,
                   sizes[TENSORS][4] = {{n, l->h, l->w, 8}, {n, l->h, l->w}, {n, FLIS_TOKENS}, {n, FLIS_TOKENS}, {n}};
    void *const values[TENSORS] = {l->moments, l->label, l->ids, l->class_ids, l->classes};
    flis_writer *writer = flis_write_begin(ctx, path);
    for (int i = 0; writer && i < TENSORS; i++)
        flis_write_declare(ctx, writer, TENSOR[i].name, TENSOR[i].dtype, TENSOR[i].rank, sizes[i]);
    for (int i = 0; writer && i < TENSORS; i++) {
        size_t count = 1;
        for (int k = 0; k < TENSOR[i].rank; k++) count *= (size_t)sizes[i][k];
        if (flis_dtype_size(TENSOR[i].dtype) == 2) little_endian(values[i], count);
        flis_write_raw(ctx, writer, values[i], count);
    }
    return writer && flis_write_end(ctx, writer);
}

static const flis_entry *latents_entry(flis_ctx *ctx, const flis_file *file, int i)
{
    const flis_entry *e = flis_file_find(file, TENSOR[i].name);
    if (e && e->dtype == TENSOR[i].dtype && e->rank == TENSOR[i].rank) return e;
    flis_fail(ctx, "%s: wanted a file of latents: a tensor %s of %s with %d dimensions", file->path, TENSOR[i].name,
              flis_dtype_name(TENSOR[i].dtype), TENSOR[i].rank);
    return NULL;
}

static bool read_i16(flis_ctx *ctx, flis_file *file, const flis_entry *e, int16_t *out)
{
    const size_t count = (size_t)flis_entry_count(e);
    int64_t *wide = flis_alloc(ctx, count, sizeof *wide);
    bool good = wide && flis_file_read_i64(ctx, file, e, wide);
    for (size_t i = 0; good && i < count; i++) out[i] = (int16_t)wide[i];
    free(wide);
    return good;
}

bool latents_read(flis_ctx *ctx, const char *path, latents *l)
{
    const flis_entry *e[TENSORS] = {NULL};
    flis_file *file = flis_file_open(ctx, path);
    bool good = file != NULL;
    for (int i = 0; good && i < TENSORS; i++) good = (e[i] = latents_entry(ctx, file, i)) != NULL;
    for (int i = 1; good && i < TENSORS; i++)
        if (e[i]->shape[0] != e[0]->shape[0] || ((i == 2 || i == 3) && e[i]->shape[1] != FLIS_TOKENS))
            good = flis_fail(ctx, "%s: %s has another number of samples or tokens than moments", path, TENSOR[i].name);
    good = good && latents_new(ctx, l, (size_t)e[0]->shape[0], (size_t)e[0]->shape[1], (size_t)e[0]->shape[2]);
    good = good && flis_file_read_u16(ctx, file, e[0], l->moments) && flis_file_read_u8(ctx, file, e[1], l->label) &&
           read_i16(ctx, file, e[2], l->ids) && read_i16(ctx, file, e[3], l->class_ids) &&
           read_i16(ctx, file, e[4], l->classes);
    flis_file_close(file);
    return good;
}

/* ---- Prompts ----------------------------------------------------------------------------------------------------- */

bool put_prompt(flis_ctx *ctx, const flis_vocab *vocab, const flis_phrase *phrase, size_t count, int16_t *ids,
                int16_t *class_ids, int16_t *classes)
{
    flis_prompt prompt;
    if (!flis_prompt_make(ctx, vocab, phrase, count, &prompt)) return false;
    for (size_t i = 0; i < FLIS_TOKENS; i++) {
        ids[i] = (int16_t)prompt.ids[i];
        class_ids[i] = (int16_t)(i < prompt.classes ? prompt.class_ids[i] : -1);
    }
    *classes = (int16_t)prompt.classes;
    flis_prompt_free(&prompt);
    return true;
}

bool put_scene_prompt(flis_ctx *ctx, const flis_vocab *vocab, const world_scene *s, bool plain, int16_t *ids,
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

/* ---- Folders of pictures ----------------------------------------------------------------------------------------- */

void photos_close(photos *f)
{
    names_free(&f->files);
    free(f->path);
    free(f->classes);
    free(f->captions);
    memset(f, 0, sizeof *f);
}

static char *read_text(flis_ctx *ctx, const char *where, const char *file)
{
    char path[PATH_ROOM];
    size_t length;
    snprintf(path, sizeof path, "%s/%s", where, file);
    return flis_read_file(ctx, path, (size_t)256 << 20, &length);
}

bool photos_open(flis_ctx *ctx, const char *path, bool layouts, photos *out)
{
    char pictures[PATH_ROOM];
    *out = (photos){.layouts = layouts};
    if (strlen(path) > 3000) return flis_fail(ctx, "%.100s…: the name is too long", path);
    snprintf(pictures, sizeof pictures, "%s/pictures", path);
    if (!(out->path = path_with(ctx, path, ""))) return false;
    if (!list_folder(ctx, pictures, ".png", ".ppm", &out->files))
        return flis_fail(ctx, "%s: there is no such folder", pictures);
    if (layouts) out->classes = read_text(ctx, path, "classes.txt");
    else out->captions = read_text(ctx, path, "captions.txt");
    return flis_ok(ctx);
}

/* Line `at` of a text; NULL: it has fewer. */
static const char *line_at(const char *text, size_t at, size_t *length)
{
    for (; text && at; at--) text = (text = strchr(text, '\n')) ? text + 1 : NULL;
    if (!text || !*text) return NULL;
    *length = strcspn(text, "\r\n");
    return text;
}

/* The name after "label<TAB>" (up to the next tab); NULL: the list does not have the label, so its pixels are void. */
static const char *class_name(const char *classes, int label, size_t *length)
{
    for (const char *line = classes; line && *line; line = (line = strchr(line, '\n')) ? line + 1 : NULL) {
        char *end;
        const long number = strtol(line, &end, 10);
        if (end == line || *end != '\t' || number != label) continue;
        *length = strcspn(end + 1, "\t\r\n");
        return end + 1;
    }
    return NULL;
}

static bool phrase_add(flis_ctx *ctx, flis_phrase **phrase, size_t *count, const char *text, size_t length, int id)
{
    char *copy = flis_alloc(ctx, length + 1, 1);
    if (!copy) return false;
    memcpy(copy, text, length);
    (*phrase)[(*count)++] = (flis_phrase){copy, id};
    return true;
}

void phrases_free(flis_phrase *phrase, size_t count)
{
    for (size_t i = 0; i < count; i++) free(phrase[i].text);
    free(phrase);
}

/* The classes of a map in the order of their labels: the MOST_PHRASES largest, so that the prompt stays below 75 tokens. */
enum { MOST_PHRASES = 18 };
static bool label_phrases(flis_ctx *ctx, const photos *f, const uint8_t *label, size_t count, flis_phrase **phrase,
                          size_t *phrases)
{
    size_t area[256] = {0}, least = 1, length;
    for (size_t i = 0; i < count; i++) area[label[i]]++;
    for (int present = 256; present > MOST_PHRASES; least++) {
        present = 0;
        for (int l = 0; l < 256; l++) present += area[l] >= least && class_name(f->classes, l, &length);
        if (present <= MOST_PHRASES) break;
    }
    *phrase = flis_alloc(ctx, MOST_PHRASES, sizeof **phrase);
    *phrases = 0;
    for (int l = 0; *phrase && l < 256; l++) {
        const char *name = area[l] >= least ? class_name(f->classes, l, &length) : NULL;
        if (name) phrase_add(ctx, phrase, phrases, name, length, l);
    }
    return flis_ok(ctx);
}

/* labels/STEM.pgm, else labels/STEM.png. */
static bool read_labels(flis_ctx *ctx, const photos *f, const char *picture, flis_picture *out)
{
    const char *start;
    char path[PATH_ROOM];
    size_t length;
    name_stem(picture, &start, &length);
    if (length > 900) return flis_fail(ctx, "%.100s…: the name is too long", start);
    snprintf(path, sizeof path, "%s/labels/%.*s.pgm", f->path, (int)length, start);
    if (kind_of_file(path) == FILE_ABSENT)
        snprintf(path, sizeof path, "%s/labels/%.*s.png", f->path, (int)length, start);
    return flis_read_label(ctx, path, out);
}

static void mirror_sample(size_t side, flis_real *pixels, uint8_t *label)
{
    for (size_t y = 0; y < side; y++)
        for (size_t x = 0; x < side / 2; x++) {
            const size_t a = y * side + x, b = y * side + side - 1 - x;
            const uint8_t l = label[a];
            label[a] = label[b], label[b] = l;
            for (size_t c = 0; c < 3; c++) {
                const flis_real p = pixels[a * 3 + c];
                pixels[a * 3 + c] = pixels[b * 3 + c], pixels[b * 3 + c] = p;
            }
        }
}

bool photos_sample(flis_ctx *ctx, const photos *f, size_t at, size_t side, bool mirror, flis_real *pixels,
                   uint8_t *label, flis_phrase **phrase, size_t *phrases)
{
    const char *path = f->files.name[at];
    flis_picture picture = {0, 0, 0, NULL}, map = {0, 0, 0, NULL};
    size_t length = 0;
    bool good = read_picture(ctx, path, &picture) && resize_picture(ctx, &picture, side, pixels);
    memset(label, 0, side * side);
    if (good && f->layouts) {
        good = read_labels(ctx, f, path, &map);
        if (good) flis_label_pil(map.pixels, map.height, map.width, label, side, side);
        good = good && label_phrases(ctx, f, label, side * side, phrase, phrases);
    } else if (good) {
        const char *caption = line_at(f->captions, at, &length);
        *phrases = 0;
        *phrase = flis_alloc(ctx, 1, sizeof **phrase);
        good = caption ||
               flis_fail(ctx, "%s/captions.txt: line %zu is missing, wanted the caption of %s", f->path, at + 1, path);
        good = good && *phrase && phrase_add(ctx, phrase, phrases, caption, length, -1);
    }
    if (good && mirror) mirror_sample(side, pixels, label);
    free(picture.pixels);
    free(map.pixels);
    return good;
}
