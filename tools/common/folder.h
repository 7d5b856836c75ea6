/* folder.h - folders of pictures and label maps, for the programs that read them (evaluate, paper, train): names in order,
 * partners, 8-bit RGB pictures from PNG and PPM, resizing, what an autoencoder makes of a picture, and samples for training.
 * Include it first: it needs POSIX' declarations where there is POSIX; elsewhere lists of files do, since C99 cannot list a
 * folder.
 */
#ifndef FOLDER_H
#define FOLDER_H

#if defined(__unix__) || defined(__APPLE__)
#define _POSIX_C_SOURCE 200809L
#include <dirent.h>
#include <unistd.h>
#define HAVE_FOLDERS 1
#else
#define HAVE_FOLDERS 0
#endif

#include "flis.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Long work draws its progress there. */
static inline bool flis_terminal(void)
{
#if HAVE_FOLDERS
    return isatty(STDERR_FILENO);
#else
    return false;
#endif
}

/* ---- Files ------------------------------------------------------------------------------------------------------- */

typedef struct names {
    size_t count, room;
    char **name;
} names;

static inline void names_free(names *n)
{
    for (size_t i = 0; i < n->count; i++) free(n->name[i]);
    free(n->name);
    memset(n, 0, sizeof *n);
}

/* Adds the text before + "/" + after; before NULL: after alone. */
static inline bool names_add(flis_ctx *ctx, names *n, const char *before, const char *after, size_t length)
{
    if (n->count == n->room) {
        size_t room = n->room ? 2 * n->room : 64;
        char **grown = flis_alloc(ctx, room, sizeof *grown);
        if (!grown) return false;
        if (n->count) memcpy(grown, n->name, n->count * sizeof *grown);
        free(n->name);
        n->name = grown;
        n->room = room;
    }
    size_t head = before ? strlen(before) : 0;
    char *name = flis_alloc(ctx, head + length + 2, 1);
    if (!name) return false;
    if (before) memcpy(name, before, head), name[head++] = '/';
    memcpy(name + head, after, length);
    n->name[n->count++] = name;
    return true;
}

static inline int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static inline bool ends_in(const char *text, const char *end)
{
    size_t n = strlen(text), k = strlen(end);
    return n > k && strcmp(text + n - k, end) == 0;
}

/* The files of a folder whose names end in one of two ways, sorted; false without an error: no folder. */
static inline bool list_folder(flis_ctx *ctx, const char *path, const char *end, const char *other, names *out)
{
#if HAVE_FOLDERS
    DIR *folder = opendir(path);
    if (!folder) return false;
    for (struct dirent *e; flis_ok(ctx) && (e = readdir(folder)) != NULL;)
        if (*e->d_name != '.' && (ends_in(e->d_name, end) || ends_in(e->d_name, other)))
            names_add(ctx, out, path, e->d_name, strlen(e->d_name));
    closedir(folder);
    if (out->count) qsort(out->name, out->count, sizeof *out->name, by_name);
    else flis_fail(ctx, "%s: the folder has no file that ends in %s or %s", path, end, other);
    return true;
#else
    (void)ctx, (void)path, (void)end, (void)other, (void)out;
    return false;
#endif
}

/* A folder's files, or the lines of a text file. *folder tells which. */
static inline bool list_files(flis_ctx *ctx, const char *path, const char *end, const char *other, names *out,
                              bool *folder)
{
    *folder = list_folder(ctx, path, end, other, out);
    if (*folder || !flis_ok(ctx)) return flis_ok(ctx);
    size_t length;
    char *text = flis_read_file(ctx, path, 64u << 20, &length);
    for (size_t i = 0, stop; text && i < length && flis_ok(ctx); i = stop + 1) {
        const char *newline = memchr(text + i, '\n', length - i);
        stop = newline ? (size_t)(newline - text) : length;
        size_t used = stop - i;
        while (used && (text[i + used - 1] == '\r' || text[i + used - 1] == ' ')) used--;
        if (used) names_add(ctx, out, NULL, text + i, used);
    }
    free(text);
    if (flis_ok(ctx) && !out->count) flis_fail(ctx, "%s: the list is empty", path);
    return flis_ok(ctx);
}

/* A file's name without folder and ending. */
static inline void stem(const char *path, const char **start, size_t *length)
{
    const char *slash = strrchr(path, '/');
    *start = slash ? slash + 1 : path;
    const char *dot_at = strrchr(*start, '.');
    *length = dot_at ? (size_t)(dot_at - *start) : strlen(*start);
}

/* The file of `in` with the stem of `like`; NULL: none. */
static inline const char *same_stem(const names *in, const char *like)
{
    const char *a, *b;
    size_t m, n;
    stem(like, &a, &m);
    for (size_t i = 0; i < in->count; i++) {
        stem(in->name[i], &b, &n);
        if (m == n && memcmp(a, b, n) == 0) return in->name[i];
    }
    return NULL;
}

/* Partner of file i: of the same stem where either side is a folder, else of the same line. */
static inline const char *partner(flis_ctx *ctx, const names *of, size_t i, const names *in, bool folders,
                                  const char *where)
{
    if (!folders && of->count != in->count) {
        flis_fail(ctx, "%s: the list has %zu files, wanted %zu, as the other has", where, in->count, of->count);
        return NULL;
    }
    const char *found = folders ? same_stem(in, of->name[i]) : in->name[i];
    if (!found) flis_fail(ctx, "%s: no file belongs to %s", where, of->name[i]);
    return found;
}

/* ---- Pictures ---------------------------------------------------------------------------------------------------- */

static inline uint32_t big_endian(const uint8_t *b)
{
    return (uint32_t)b[0] << 24 | (uint32_t)b[1] << 16 | (uint32_t)b[2] << 8 | b[3];
}

/* One row's filter undone (PNG, ISO/IEC 15948, section 9); `above` is the row before, zeros at first. */
static inline bool unfilter(int filter, uint8_t *row, const uint8_t *above, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        int a = i < 3 ? 0 : row[i - 3], b = above[i], c = i < 3 ? 0 : above[i - 3];
        int pa = b > c ? b - c : c - b, pb = a > c ? a - c : c - a, pc = a + b - 2 * c;
        pc = pc < 0 ? -pc : pc;
        int paeth = pa <= pb && pa <= pc ? a : pb <= pc ? b : c;
        row[i] = (uint8_t)(row[i] + (filter == 0   ? 0
                                     : filter == 1 ? a
                                     : filter == 2 ? b
                                     : filter == 3 ? (a + b) / 2
                                                   : paeth));
    }
    return filter <= 4;
}

/* The bytes of all IDAT chunks, put together at the file's own beginning. */
static inline bool gather_data(flis_ctx *ctx, const char *path, uint8_t *in, size_t length, size_t *data)
{
    size_t at = 8;
    *data = 0;
    while (at + 12 <= length) {
        size_t size = big_endian(in + at);
        if (size > length - at - 12) break;
        if (memcmp(in + at + 4, "IEND", 4) == 0) return true;
        if (memcmp(in + at + 4, "IDAT", 4) == 0) {
            memmove(in + *data, in + at + 8, size);
            *data += size;
        }
        at += size + 12;
    }
    return flis_fail(ctx, "%s: damaged PNG: it ends early", path);
}

/* An 8-bit RGB PNG, as flis, tools/world and most programs write pictures. */
static inline bool read_png(flis_ctx *ctx, const char *path, flis_picture *out)
{
    enum { LIMIT = 1 << 28, HEAD = 29 };
    size_t length = 0, data = 0, got = 0;
    uint8_t *in = (uint8_t *)flis_read_file(ctx, path, LIMIT, &length), *raw = NULL, *above = NULL;
    memset(out, 0, sizeof *out);
    if (in && (length < HEAD || memcmp(in, "\x89PNG\r\n\x1a\n", 8) != 0 || memcmp(in + 12, "IHDR", 4) != 0 ||
               in[24] != 8 || in[25] != 2 || in[28]))
        flis_fail(ctx, "%s: wanted a picture: an 8-bit RGB PNG that is not interlaced", path);
    if (flis_ok(ctx)) out->width = big_endian(in + 16), out->height = big_endian(in + 20), out->channels = 3;
    if (flis_ok(ctx) && (!out->width || !out->height || out->width > 16384 || out->height > 16384 ||
                         out->width * out->height > LIMIT / 4))
        flis_fail(ctx, "%s: got %zu x %zu pixels, wanted at most %d in all", path, out->width, out->height, LIMIT / 4);
    size_t row = out->width * 3, wanted = (row + 1) * out->height;
    if (flis_ok(ctx) && gather_data(ctx, path, in, length, &data))
        raw = flis_inflate(ctx, path, FLIS_ZLIB, in, data, wanted, &got);
    if (raw && got != wanted) flis_fail(ctx, "%s: damaged PNG: got %zu bytes of pixels, wanted %zu", path, got, wanted);
    if (flis_ok(ctx)) out->pixels = flis_alloc(ctx, row, out->height), above = flis_alloc(ctx, row, 1);
    for (size_t y = 0; flis_ok(ctx) && y < out->height; y++) {
        uint8_t *line = raw + y * (row + 1);
        if (!unfilter(line[0], line + 1, y ? line - row : above, row))
            flis_fail(ctx, "%s: damaged PNG: filter %d", path, line[0]);
        memcpy(out->pixels + y * row, line + 1, row);
    }
    free(above);
    free(raw);
    free(in);
    return flis_ok(ctx);
}

/* Binary PPM (P6) with 8 bits a colour. */
static inline bool read_ppm(flis_ctx *ctx, const char *path, flis_picture *out)
{
    enum { LIMIT = 1 << 28 };
    size_t length = 0, number[3] = {0}, at = 2;
    char *in = flis_read_file(ctx, path, LIMIT, &length);
    if (!in) return false;
    bool good = length > 2 && memcmp(in, "P6", 2) == 0;
    for (int i = 0; good && i < 3; i++) {
        while (at < length && (in[at] == '#' || strchr(" \t\r\n", in[at]))) {
            if (in[at] == '#')
                while (at < length && in[at] != '\n') at++;
            else at++;
        }
        for (; at < length && in[at] >= '0' && in[at] <= '9' && number[i] < 100000; at++)
            number[i] = number[i] * 10 + (size_t)(in[at] - '0');
        good = number[i] > 0;
    }
    at++;
    good = good && number[0] <= 16384 && number[1] <= 16384 && number[2] == 255 && at <= length &&
           length - at >= number[0] * number[1] * 3;
    if (!good)
        flis_fail(ctx, "%s: wanted a binary PPM (P6) with maxval 255, whole, at most 16384 pixels wide and high", path);
    *out = (flis_picture){number[0], number[1], 3, good ? flis_alloc(ctx, number[0] * number[1], 3) : NULL};
    if (out->pixels) memcpy(out->pixels, in + at, number[0] * number[1] * 3);
    free(in);
    return out->pixels != NULL;
}

static inline bool read_picture(flis_ctx *ctx, const char *path, flis_picture *out)
{
    return ends_in(path, ".ppm") ? read_ppm(ctx, path, out) : read_png(ctx, path, out);
}

/* Cubic convolution with a = -1/2 (Keys 1981), as PIL's BICUBIC. */
static inline double cubic(double x)
{
    x = fabs(x);
    return x < 1 ? (1.5 * x - 2.5) * x * x + 1 : x < 2 ? ((-0.5 * x + 2.5) * x - 4) * x + 2 : 0;
}

/* One direction: out[o][i][c] of in[o][.][c], `in` being `count` long and `outer` times there, strided; when it shrinks
   the kernel is as wide as the pixels that fall together, as PIL's. */
static inline void resize_line(const float *in, size_t count, size_t step, float *out, size_t out_count,
                               size_t out_step)
{
    const double scale = (double)count / (double)out_count, widen = scale > 1 ? scale : 1;
    for (size_t i = 0; i < out_count; i++) {
        const double centre = ((double)i + 0.5) * scale, first = floor(centre - 2 * widen),
                     last = floor(centre + 2 * widen) + 1;
        double sum[3] = {0}, weights = 0;
        for (double k = first < 0 ? 0 : first; k < last && k < (double)count; k++) {
            const double w = cubic((k + 0.5 - centre) / widen);
            for (size_t c = 0; c < 3; c++) sum[c] += w * (double)in[(size_t)k * step + c];
            weights += w;
        }
        for (size_t c = 0; c < 3; c++) out[i * out_step + c] = (float)(sum[c] / weights);
    }
}

/* Pixels -1..1, [side][side][3]. */
static inline bool resize_picture(flis_ctx *ctx, const flis_picture *p, size_t side, flis_real *out)
{
    const size_t w = p->width, h = p->height;
    float *in = flis_alloc(ctx, w * h * 3, sizeof *in), *middle = flis_alloc(ctx, side * h * 3, sizeof *middle),
          *done = flis_alloc(ctx, side * side * 3, sizeof *done);
    if (in && middle && done) {
        for (size_t i = 0; i < w * h * 3; i++) in[i] = p->pixels[i];
        for (size_t y = 0; y < h; y++) resize_line(in + y * w * 3, w, 3, middle + y * side * 3, side, 3);
        for (size_t x = 0; x < side; x++) resize_line(middle + x * 3, h, side * 3, done + x * 3, side, side * 3);
        for (size_t i = 0; i < side * side * 3; i++)
            out[i] = (flis_real)(done[i] < 0 ? 0 : done[i] > 255 ? 255 : done[i]) / (flis_real)127.5 - 1;
    }
    free(in);
    free(middle);
    free(done);
    return flis_ok(ctx);
}

/* Means of four pixels, -1..1: [height / 2][width / 2][3], as the segmenter sees pictures. */
static inline void half_picture(const uint8_t *rgb, size_t width, size_t height, flis_real *out)
{
    for (size_t y = 0; y < height / 2; y++)
        for (size_t i = 0; i < width / 2; i++) {
            const uint8_t *at = rgb + (2 * y * width + 2 * i) * 3;
            for (size_t c = 0; c < 3; c++)
                out[(y * (width / 2) + i) * 3 + c] =
                    (flis_real)(at[c] + at[c + 3] + at[c + 3 * width] + at[c + 3 * width + 3]) / (flis_real)510 - 1;
        }
}

/* ---- Samples for training ---------------------------------------------------------------------------------------- */

/* FOLDER/pictures, FOLDER/labels with files of the same names, FOLDER/classes.txt; or FOLDER/captions.txt. */
typedef struct photos {
    size_t count;
    names files;
    char **picture; /* files.name */
    char *path, *classes, *captions;
    bool layouts;
} photos;

static inline void folder_close(photos *f)
{
    names_free(&f->files);
    free(f->path);
    free(f->classes);
    free(f->captions);
    memset(f, 0, sizeof *f);
}

static inline char *folder_text(flis_ctx *ctx, const char *where, const char *file)
{
    char path[4096];
    size_t length;
    snprintf(path, sizeof path, "%s/%s", where, file);
    return flis_read_file(ctx, path, (size_t)256 << 20, &length);
}

static inline bool folder_open(flis_ctx *ctx, const char *path, bool layouts, photos *out)
{
    char pictures[4096];
    *out = (photos){.layouts = layouts};
    if (strlen(path) > 3000) return flis_fail(ctx, "%.100s…: the name is too long", path);
    snprintf(pictures, sizeof pictures, "%s/pictures", path);
    out->path = flis_alloc(ctx, strlen(path) + 1, 1);
    if (!out->path) return false;
    memcpy(out->path, path, strlen(path));
    if (!list_folder(ctx, pictures, ".png", ".ppm", &out->files))
        return flis_fail(ctx, "%s: there is no such folder", pictures);
    out->count = out->files.count;
    out->picture = out->files.name;
    if (layouts) out->classes = folder_text(ctx, path, "classes.txt");
    else out->captions = folder_text(ctx, path, "captions.txt");
    return flis_ok(ctx);
}

/* Line `at` of a text; NULL: it has fewer. */
static inline const char *line_at(const char *text, size_t at, size_t *length)
{
    for (; text && at; at--) text = (text = strchr(text, '\n')) ? text + 1 : NULL;
    if (!text || !*text) return NULL;
    *length = strcspn(text, "\r\n");
    return text;
}

/* The name after "label<TAB>" (up to the next tab); NULL: the list does not have the label, so its pixels are void. */
static inline const char *class_of(const char *classes, int label, size_t *length)
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

static inline bool phrase_add(flis_ctx *ctx, flis_phrase **phrase, size_t *count, const char *text, size_t length,
                              int id)
{
    char *copy = flis_alloc(ctx, length + 1, 1);
    if (!copy) return false;
    memcpy(copy, text, length);
    (*phrase)[(*count)++] = (flis_phrase){copy, id};
    return true;
}

static inline void folder_phrases_free(flis_phrase *phrase, size_t count)
{
    for (size_t i = 0; i < count; i++) free(phrase[i].text);
    free(phrase);
}

/* The classes of a map in the order of their labels: the FOLDER_PHRASES largest, so that the prompt stays below 75 tokens. */
enum { FOLDER_PHRASES = 18 };
static inline bool folder_phrases(flis_ctx *ctx, const photos *f, const uint8_t *label, size_t count,
                                  flis_phrase **phrase, size_t *phrases)
{
    size_t area[256] = {0}, least = 1, length;
    for (size_t i = 0; i < count; i++) area[label[i]]++;
    for (int present = 256; present > FOLDER_PHRASES; least++) {
        present = 0;
        for (int l = 0; l < 256; l++) present += area[l] >= least && class_of(f->classes, l, &length);
        if (present <= FOLDER_PHRASES) break;
    }
    *phrase = flis_alloc(ctx, FOLDER_PHRASES, sizeof **phrase);
    *phrases = 0;
    for (int l = 0; *phrase && l < 256; l++) {
        const char *name = area[l] >= least ? class_of(f->classes, l, &length) : NULL;
        if (name) phrase_add(ctx, phrase, phrases, name, length, l);
    }
    return flis_ok(ctx);
}

/* labels/STEM.png, else .pgm */
static inline bool folder_label(flis_ctx *ctx, const photos *f, const char *picture, flis_picture *out)
{
    const char *start;
    char path[4096];
    size_t length;
    stem(picture, &start, &length);
    if (length > 900) return flis_fail(ctx, "%.100s…: the name is too long", start);
    snprintf(path, sizeof path, "%s/labels/%.*s.pgm", f->path, (int)length, start);
    FILE *there = fopen(path, "rb");
    if (there) fclose(there);
    else snprintf(path, sizeof path, "%s/labels/%.*s.png", f->path, (int)length, start);
    return flis_read_label(ctx, path, out);
}

/* Sample `at`: pixels [side][side][3] in -1..1, label [side][side], and phrases (free them). Mirrored left to right if asked. */
static inline bool folder_sample(flis_ctx *ctx, const photos *f, size_t at, size_t side, bool mirror, flis_real *pixels,
                                 uint8_t *label, flis_phrase **phrase, size_t *phrases)
{
    flis_picture picture = {0, 0, 0, NULL}, map = {0, 0, 0, NULL};
    size_t length = 0;
    bool good = read_picture(ctx, f->picture[at], &picture) && resize_picture(ctx, &picture, side, pixels);
    memset(label, 0, side * side);
    if (good && f->layouts) {
        good = folder_label(ctx, f, f->picture[at], &map);
        if (good) flis_label_pil(map.pixels, map.height, map.width, label, side, side);
        good = good && folder_phrases(ctx, f, label, side * side, phrase, phrases);
    } else if (good) {
        const char *caption = line_at(f->captions, at, &length);
        *phrases = 0;
        *phrase = flis_alloc(ctx, 1, sizeof **phrase);
        good = caption || flis_fail(ctx, "%s/captions.txt: no line %zu, for %s", f->path, at + 1, f->picture[at]);
        good = good && *phrase && phrase_add(ctx, phrase, phrases, caption, length, -1);
    }
    for (size_t y = 0; good && mirror && y < side; y++)
        for (size_t x = 0; x < side / 2; x++) {
            const size_t a = y * side + x, b = y * side + side - 1 - x;
            const uint8_t l = label[a];
            label[a] = label[b], label[b] = l;
            for (size_t c = 0; c < 3; c++) {
                const flis_real p = pixels[a * 3 + c];
                pixels[a * 3 + c] = pixels[b * 3 + c], pixels[b * 3 + c] = p;
            }
        }
    free(picture.pixels);
    free(map.pixels);
    return good;
}

#endif
