/* photos.c - folders of pictures: opening one, checking every file of it before the first step, one sample. */
#include "tools/train/train.h"

#include <stdlib.h>
#include <string.h>

/* ---- Opening ----------------------------------------------------------------------------------------------------- */

void photos_settings(photos *f, const options *o)
{
    f->all_classes = o->phrases == PHRASES_ALL;
    f->bytes = o->resize == RESIZE_BYTES;
}

void photos_close(photos *f)
{
    names_free(&f->files);
    names_free(&f->lines);
    names_free(&f->captions);
    dataset_close(&f->set);
    free(f->path);
    memset(f, 0, sizeof *f);
}

/* The lines of captions.txt, one per picture; empty lines at its end are none. */
static bool read_captions(flis_ctx *ctx, photos *f)
{
    char path[PATH_ROOM];
    size_t length;
    names *lines = &f->captions;
    snprintf(path, sizeof path, "%s/captions.txt", f->path);
    char *text = flis_read_file(ctx, path, (size_t)256 << 20, &length);
    const char *at = text;
    if (text && text_check(ctx, path, &at, &length))
        for (const char *end = at + length, *stop; at < end && flis_ok(ctx); at = stop + 1) {
            stop = memchr(at, '\n', (size_t)(end - at));
            if (!stop) stop = end;
            names_add(ctx, lines, NULL, at, (size_t)(stop - at) - (stop > at && stop[-1] == '\r'));
        }
    free(text);
    while (lines->count > f->files.count && !*lines->name[lines->count - 1]) free(lines->name[--lines->count]);
    if (flis_ok(ctx) && lines->count < f->files.count)
        flis_fail(ctx, "%s: line %zu is missing, wanted the caption of %s", path, lines->count + 1,
                  f->files.name[lines->count]);
    if (flis_ok(ctx) && lines->count > f->files.count)
        flis_fail(ctx, "%s: got %zu lines, wanted %zu: one for each picture in pictures, in the order of their names",
                  path, lines->count, f->files.count);
    return flis_ok(ctx);
}

bool photos_count_tokens(flis_ctx *ctx, photos *f, const flis_vocab *vocab, const char *where)
{
    char place[PATH_ROOM];
    flis_prompt prompt;
    for (int label = 0; label < CLASS_LABELS; label++) {
        const flis_phrase phrase = {f->set.classes.name[label], label};
        if (!phrase.text) continue;
        if (!flis_prompt_make(ctx, vocab, &phrase, 1, &prompt)) {
            snprintf(place, sizeof place, "%.4000s: label %d", where, label);
            return flis_fail_in(ctx, place);
        }
        f->tokens[label] = prompt.classes > prompt.tokens ? prompt.classes : prompt.tokens;
        flis_prompt_free(&prompt);
    }
    return true;
}

/* classes.txt; every other label is void. */
static bool read_classes(flis_ctx *ctx, photos *f, const flis_vocab *vocab)
{
    char path[PATH_ROOM];
    snprintf(path, sizeof path, "%s/classes.txt", f->path);
    if (!classes_read(ctx, path, &f->set.classes)) return false;
    for (int label = 0; label < CLASS_LABELS; label++) f->set.is_void[label] = !f->set.classes.name[label];
    f->set.name = "classes.txt";
    return photos_count_tokens(ctx, f, vocab, path);
}

bool photos_open(flis_ctx *ctx, const char *path, bool layouts, const flis_vocab *vocab, photos *out)
{
    char folder[PATH_ROOM];
    memset(out, 0, sizeof *out);
    out->layouts = layouts;
    if (strlen(path) > 3000) return flis_fail(ctx, "%.100s…: the name is too long", path);
    if (!(out->path = path_with(ctx, path, ""))) return false;
    snprintf(folder, sizeof folder, "%s/pictures", path);
    if (!list_folder(ctx, folder, PICTURE_ENDINGS, &out->files))
        return flis_fail(ctx, "%s: there is no such folder", folder);
    snprintf(folder, sizeof folder, "%s/labels", path);
    if (layouts && flis_ok(ctx) && kind_of_file(folder) != FILE_FOLDER)
        return flis_fail(ctx, "%s: there is no such folder", folder);
    return flis_ok(ctx) && (layouts ? read_classes(ctx, out, vocab) : read_captions(ctx, out));
}

/* ---- One sample -------------------------------------------------------------------------------------------------- */

static bool phrase_add(flis_ctx *ctx, flis_phrase **phrase, size_t *count, const char *text, int id)
{
    char *copy = path_with(ctx, text, "");
    if (!copy) return false;
    (*phrase)[(*count)++] = (flis_phrase){copy, id};
    return true;
}

/* The smallest area that a class must have so that those which have it, at most MOST_PHRASES, fit into a prompt. */
enum { MOST_PHRASES = 18 };
static size_t least_area(const photos *f, const size_t area[CLASS_LABELS])
{
    for (size_t least = 1;;) {
        size_t present = 0, tokens = 0, smallest = SIZE_MAX;
        for (int l = 0; l < CLASS_LABELS; l++) {
            if (!f->set.classes.name[l] || area[l] < least) continue;
            present++;
            tokens += f->tokens[l];
            if (area[l] < smallest) smallest = area[l];
        }
        if (present <= MOST_PHRASES && tokens <= FLIS_PHRASE_TOKENS) return least;
        least = smallest + 1;
    }
}

/* The classes of a map in the order of their labels: all, or the largest that fit into a prompt. */
static bool label_phrases(flis_ctx *ctx, const photos *f, const char *where, const uint8_t *label, size_t count,
                          flis_phrase **phrase, size_t *phrases)
{
    size_t area[CLASS_LABELS] = {0}, kept = 0;
    if (!dataset_phrases(ctx, &f->set, where, label, count, phrase, phrases)) return false;
    if (f->all_classes) return true;
    for (size_t i = 0; i < count; i++) area[label[i]]++;
    const size_t least = least_area(f, area);
    for (size_t i = 0; i < *phrases; i++)
        if (area[(*phrase)[i].id] >= least) (*phrase)[kept++] = (*phrase)[i];
        else free((*phrase)[i].text);
    *phrases = kept;
    return true;
}

/* labels/STEM.pgm, else labels/STEM.png; of a data set, in its folders. */
static bool label_path(flis_ctx *ctx, const photos *f, size_t at, char path[PATH_ROOM])
{
    const char *start;
    size_t length;
    if (f->listed) return dataset_label_path(ctx, &f->set, f->path, f->lines.name[at], path);
    name_stem(f->files.name[at], &start, &length);
    if (length > 900) return flis_fail(ctx, "%.100s…: the name is too long", start);
    snprintf(path, PATH_ROOM, "%s/labels/%.*s.pgm", f->path, (int)length, start);
    if (kind_of_file(path) == FILE_ABSENT) snprintf(path, PATH_ROOM, "%s/labels/%.*s.png", f->path, (int)length, start);
    return true;
}

/* Labels [side][side] of a map, nearest, and its phrases. */
static bool map_sample(flis_ctx *ctx, const photos *f, const char *where, const flis_picture *map, size_t side,
                       uint8_t *label, flis_phrase **phrase, size_t *phrases)
{
    flis_label_pil(map->pixels, map->height, map->width, label, side, side);
    return label_phrases(ctx, f, where, label, side * side, phrase, phrases);
}

static bool caption_sample(flis_ctx *ctx, const photos *f, size_t at, flis_phrase **phrase, size_t *phrases)
{
    *phrases = 0;
    *phrase = flis_alloc(ctx, 1, sizeof **phrase);
    return *phrase && phrase_add(ctx, phrase, phrases, f->captions.name[at], -1);
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

/* Pixels [side][side][3] in -1..1: of reals, or as the authors' code makes them of PIL's bytes, v / 127.5 - 1 in double. */
static bool resize_sample(flis_ctx *ctx, const photos *f, const flis_picture *picture, size_t side, flis_real *pixels)
{
    flis_picture bytes = {0, 0, 0, NULL};
    if (!f->bytes) return resize_picture(ctx, picture, side, pixels);
    if (!resize_bicubic(ctx, picture, side, side, &bytes)) return false;
    for (size_t i = 0; i < side * side * 3; i++) pixels[i] = (float)(bytes.pixels[i] / 127.5 - 1.0);
    free(bytes.pixels);
    return true;
}

bool photos_sample(flis_ctx *ctx, const photos *f, size_t at, size_t side, bool mirror, flis_real *pixels,
                   uint8_t *label, flis_phrase **phrase, size_t *phrases)
{
    const char *path = f->files.name[at];
    char labels[PATH_ROOM];
    flis_picture picture = {0, 0, 0, NULL}, map = {0, 0, 0, NULL};
    bool good = read_picture(ctx, path, &picture) && resize_sample(ctx, f, &picture, side, pixels);
    memset(label, 0, side * side);
    good = good && (f->layouts ? label_path(ctx, f, at, labels) && flis_read_label(ctx, labels, &map) &&
                                     map_sample(ctx, f, labels, &map, side, label, phrase, phrases)
                               : caption_sample(ctx, f, at, phrase, phrases));
    if (good && mirror) mirror_sample(side, pixels, label);
    free(picture.pixels);
    free(map.pixels);
    return good;
}

/* ---- Checking all ------------------------------------------------------------------------------------------------ */

/* What was found of one sample. */
typedef struct finding {
    char *error, *warning; /* NULL: none */
    char picture[65], map[65];
    uint32_t labels[CLASS_LABELS / 32]; /* bits: those in its map */
    bool scaled;                        /* map and picture have different sizes, and the same proportions */
} finding;

static bool has_label(const finding *found, int label)
{
    return found->labels[label / 32] >> (label % 32) & 1;
}

/* Not a pipe, which would never end; not an output, which would destroy it. */
static bool check_input(flis_ctx *ctx, const job *j, const char *path)
{
    const char *const out[] = {j->o.out, j->o.state, j->o.log, j->o.plot};
    if (kind_of_file(path) == FILE_SPECIAL) return flis_fail(ctx, "%s: is not a regular file", path);
    for (size_t i = 0; i < sizeof out / sizeof *out; i++)
        if (out[i] && same_file(out[i], path))
            return flis_fail(ctx, "%s: is an input too, wanted another file for the result", out[i]);
    return flis_ok(ctx);
}

/* Proportions agree where neither side differs by a whole pixel of the map; a difference in size alone is harmless, since both are
   resized to --size. */
static bool check_sizes(flis_ctx *ctx, const char *path, const flis_picture *picture, const flis_picture *map,
                        finding *found)
{
    const uint64_t a = (uint64_t)picture->width * map->height, b = (uint64_t)picture->height * map->width,
                   apart = a > b ? a - b : b - a,
                   pixel = picture->width > picture->height ? picture->width : picture->height;
    found->scaled = picture->width != map->width || picture->height != map->height;
    if (!found->scaled || apart < pixel) return true;
    return flis_fail(ctx, "%s: got %zu x %zu pixels, wanted its picture's %zu x %zu, or the same proportions", path,
                     map->width, map->height, picture->width, picture->height);
}

static bool check_map(flis_ctx *ctx, const job *j, const photos *f, const char *path, const flis_picture *picture,
                      finding *found, flis_phrase **phrase, size_t *phrases)
{
    const size_t side = (size_t)j->o.size;
    flis_picture map = {0, 0, 0, NULL};
    uint8_t *label = flis_alloc(ctx, side, side);
    bool good = label && check_input(ctx, j, path) && flis_read_label(ctx, path, &map) &&
                check_sizes(ctx, path, picture, &map, found) && file_digest(ctx, path, found->map) &&
                map_sample(ctx, f, path, &map, side, label, phrase, phrases);
    for (size_t i = 0; good && i < map.width * map.height; i++)
        found->labels[map.pixels[i] / 32] |= UINT32_C(1) << (map.pixels[i] % 32);
    free(map.pixels);
    free(label);
    return good;
}

/* Everything that a step does with sample `at` but resizing and the networks. */
static bool check_sample(flis_ctx *ctx, const job *j, const photos *f, size_t at, finding *found)
{
    const char *path = f->files.name[at];
    char labels[PATH_ROOM];
    flis_picture picture = {0, 0, 0, NULL};
    flis_phrase *phrase = NULL;
    size_t phrases = 0;
    int32_t ids[FLIS_TOKENS];
    int16_t class_ids[FLIS_TOKENS], classes;
    bool good =
        check_input(ctx, j, path) && read_picture(ctx, path, &picture) && file_digest(ctx, path, found->picture);
    good = good && (f->layouts ? label_path(ctx, f, at, labels) &&
                                     check_map(ctx, j, f, labels, &picture, found, &phrase, &phrases)
                               : caption_sample(ctx, f, at, &phrase, &phrases));
    if (good && !put_prompt(ctx, j->vocab, phrase, phrases, ids, class_ids, &classes)) flis_fail_in(ctx, path);
    phrases_free(phrase, phrases);
    free(picture.pixels);
    return flis_ok(ctx);
}

/* For ctx->warn: keeps the first sentence of a sample. */
static void keep_warning(void *user, const char *sentence)
{
    flis_ctx plain = FLIS_CTX_PLAIN;
    finding *found = user;
    if (!found->warning) found->warning = path_with(&plain, sentence, "");
}

/* Checks every sample on all threads. */
static bool check_samples(job *j, const photos *f, finding *found)
{
    const size_t count = f->files.count;
    progress shown = {.quiet = j->o.quiet, .unit = "picture"};
    size_t done = 0;
#ifdef _OPENMP
#pragma omp parallel for num_threads(j->ctx.threads) schedule(dynamic)
#endif
    for (size_t i = 0; i < count; i++) {
        flis_ctx own = FLIS_CTX_PLAIN;
        own.interrupted = j->ctx.interrupted;
        own.warn = keep_warning;
        own.warn_user = &found[i];
        if (!flis_poll(&own)) continue;
        if (!check_sample(&own, j, f, i, &found[i])) {
            flis_ctx plain = FLIS_CTX_PLAIN;
            found[i].error = path_with(&plain, own.error, "");
        }
#ifdef _OPENMP
#pragma omp critical
#endif
        {
            done++;
            if (is_terminal(stderr) || done % 1000 == 0) progress_show(&shown, "check", done, count);
        }
    }
    progress_end(&shown);
    return flis_poll(&j->ctx);
}

/* One sentence: the first sample that cannot be used, and the names of the next ones; with --check-data, a line on stdout for each
   and a sentence that counts them. */
static bool report_errors(job *j, const photos *f, const finding *found)
{
    enum { NAMED = 5 };
    const size_t count = f->files.count;
    char others[512] = "";
    size_t bad = 0, first = 0;
    for (size_t i = 0; i < count; i++) {
        if (!found[i].error) continue;
        if (j->o.check_data) printf("%s\n", found[i].error);
        if (bad++ == 0) first = i;
        else if (bad <= NAMED)
            text_append(others, sizeof others, "%s%.80s", *others ? ", " : "", base_name(f->files.name[i]));
    }
    if (!bad) return true;
    if (j->o.check_data) return flis_fail(&j->ctx, "%s: %zu of %zu samples cannot be used", f->path, bad, count);
    if (bad == 1) return flis_fail(&j->ctx, "%s", found[first].error);
    return flis_fail(&j->ctx, "%s (%zu of %zu samples cannot be used; the next: %s%s)", found[first].error, bad, count,
                     others, bad > NAMED ? ", …" : "");
}

/* The first warning of a file, and how many samples have one. */
static void report_warnings(job *j, const photos *f, const finding *found)
{
    size_t count = 0, first = 0;
    for (size_t i = 0; i < f->files.count; i++)
        if (found[i].warning && !count++) first = i;
    if (count == 1) flis_warn(&j->ctx, "%s", found[first].warning);
    else if (count) flis_warn(&j->ctx, "%s (the first of %zu samples with a warning)", found[first].warning, count);
}

/* Labels of the maps that have no class, which is right for void; but not if none has one. */
static bool report_labels(job *j, const photos *f, const finding *found)
{
    char labels[160] = "";
    size_t without = 0, with = 0;
    for (int l = 0; l < CLASS_LABELS; l++) {
        size_t maps = 0;
        for (size_t i = 0; i < f->files.count; i++) maps += has_label(&found[i], l);
        if (maps && f->set.classes.name[l]) with++;
        if (!maps || f->set.classes.name[l]) continue;
        if (++without <= 12) text_append(labels, sizeof labels, "%s%d", *labels ? ", " : "", l);
    }
    if (without > 12) text_append(labels, sizeof labels, ", …");
    if (f->listed) /* labels that are neither a class nor void were refused */
        return with ||
               flis_fail(&j->ctx, "%s: no label of the maps (%s) is a class of %s", f->path, labels, f->set.name);
    if (!with) return flis_fail(&j->ctx, "%s/labels: no label of the maps (%s) is in classes.txt", f->path, labels);
    if (without)
        flis_warn(&j->ctx, "%s/labels: %s without a line in classes.txt, whose pixels are void: %s", f->path,
                  without == 1 ? "a label" : "labels", labels);
    return true;
}

/* ---- Files that are not used ------------------------------------------------------------------------------------- */

typedef struct unused {
    const photos *f;
    bool labels;
    size_t count;
    char first[256];
} unused;

static bool has_picture(const photos *f, const char *name)
{
    const char *start;
    char path[PATH_ROOM];
    size_t length;
    name_stem(name, &start, &length);
    for (const char *const *end = PICTURE_ENDINGS; *end; end++)
        if (snprintf(path, sizeof path, "%s/pictures/%.*s%s", f->path, (int)length, start, *end) < PATH_ROOM &&
            kind_of_file(path) != FILE_ABSENT)
            return true;
    return false;
}

static void see_entry(void *user, const char *name)
{
    unused *u = user;
    if (*name == '.') return;
    if (u->labels ? has_picture(u->f, name) : ends_in_any(name, PICTURE_ENDINGS)) return;
    if (!u->count++ || strcmp(name, u->first) < 0) snprintf(u->first, sizeof u->first, "%s", name);
}

static void report_unused(job *j, const photos *f)
{
    for (int labels = 0; labels <= f->layouts; labels++) {
        char path[PATH_ROOM];
        unused u = {.f = f, .labels = labels};
        snprintf(path, sizeof path, "%s/%s", f->path, labels ? "labels" : "pictures");
        if (each_entry(path, see_entry, &u) && u.count)
            flis_warn(&j->ctx, "%s: %zu file%s %s not used, for %s: %s%s", path, u.count, u.count == 1 ? "" : "s",
                      u.count == 1 ? "is" : "are",
                      labels ? "there is no picture of the name" : "only .png, .jpg, .jpeg and .ppm are", u.first,
                      u.count == 1 ? "" : ", …");
    }
}

/* Of names, pictures, maps, and classes or captions: the order of samples and their contents. */
static void digest_folder(photos *f, const finding *found)
{
    flis_sha256 sum;
    char line[400];
    flis_sha256_begin(&sum);
    for (int l = 0; l < CLASS_LABELS; l++)
        if (f->set.classes.name[l]) {
            snprintf(line, sizeof line, "%d\t", l);
            flis_sha256_add(&sum, line, strlen(line));
            flis_sha256_add(&sum, f->set.classes.name[l], strlen(f->set.classes.name[l]) + 1);
        }
    for (size_t i = 0; i < f->files.count; i++) {
        const char *const text[] = {base_name(f->files.name[i]), found[i].picture, found[i].map,
                                    i < f->captions.count ? f->captions.name[i] : ""};
        for (int k = 0; k < 4; k++) flis_sha256_add(&sum, text[k], strlen(text[k]) + 1);
    }
    flis_sha256_end(&sum, f->digest);
}

bool photos_check(job *j, photos *f)
{
    const size_t count = f->files.count;
    size_t scaled = 0, first = 0;
    char list[PATH_ROOM];
    snprintf(list, sizeof list, "%s/%s", f->path, f->layouts ? "classes.txt" : "captions.txt");
    finding *found = f->listed || check_input(&j->ctx, j, list) ? flis_alloc(&j->ctx, count, sizeof *found) : NULL;
    const bool good = found && check_samples(j, f, found) && report_errors(j, f, found) &&
                      (!f->layouts || report_labels(j, f, found));
    for (size_t i = 0; good && i < count; i++)
        if (found[i].scaled && !scaled++) first = i;
    if (scaled)
        flis_warn(
            &j->ctx,
            "%s: %zu of %zu label maps have another size than their pictures, in the same proportions; the first: %s",
            f->path, scaled, count, base_name(f->files.name[first]));
    if (good) report_warnings(j, f, found), digest_folder(f, found);
    if (good && !f->listed) report_unused(j, f);
    for (size_t i = 0; found && i < count; i++) free(found[i].error), free(found[i].warning);
    free(found);
    return good;
}
