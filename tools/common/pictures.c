/* pictures.c - 8-bit RGB pictures from JPEG (jpeg_read.c), PNG and PPM, and resizing as PIL does it. */
#include "tools/common/common.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static uint32_t big_endian(const uint8_t *b)
{
    return (uint32_t)b[0] << 24 | (uint32_t)b[1] << 16 | (uint32_t)b[2] << 8 | b[3];
}

/* Undoes the filter of one row (PNG, ISO/IEC 15948, section 9); `above` is the previous row, zeros for the first. */
static bool unfilter(int filter, uint8_t *row, const uint8_t *above, size_t count, size_t bytes_per_pixel)
{
    const size_t back = bytes_per_pixel;
    for (size_t i = 0; i < count; i++) {
        int a = i < back ? 0 : row[i - back], b = above[i], c = i < back ? 0 : above[i - back];
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

/* What a PNG's header says. Palette entries that the file does not have are gray, entry i of brightness i, as PIL has them. */
typedef struct png_head {
    size_t width, height, bits, channels;
    bool palette;
    uint8_t colours[256][3];
} png_head;

/* Moves the bytes of all IDAT chunks to the start of the buffer, where they are contiguous, and copies the palette. */
static bool gather_data(flis_ctx *ctx, const char *path, uint8_t *in, size_t length, png_head *head, size_t *data)
{
    size_t at = 8;
    *data = 0;
    while (at + 12 <= length) {
        size_t size = big_endian(in + at);
        if (size > length - at - 12) break;
        if (memcmp(in + at + 4, "IEND", 4) == 0) return true;
        if (memcmp(in + at + 4, "PLTE", 4) == 0)
            memcpy(head->colours, in + at + 8, size < sizeof head->colours ? size : sizeof head->colours);
        if (memcmp(in + at + 4, "IDAT", 4) == 0) {
            memmove(in + *data, in + at + 8, size);
            *data += size;
        }
        at += size + 12;
    }
    return flis_fail(ctx, "%s: damaged PNG: it ends early", path);
}

enum { KIND_ROOM = 160 }; /* bytes of what a file is */

/* Whether a PNG can be read: at most 8 bits per value, not interlaced (ISO/IEC 15948, table 11.1). Sets *h; else text says what the
   file is. */
static bool png_kind(const uint8_t *in, size_t length, png_head *h, char text[KIND_ROOM])
{
    static const struct {
        const char *name;
        size_t channels;
    } kind[] = {{"gray", 1},          {NULL, 0}, {"RGB", 3}, {"palette", 1}, {"gray with alpha", 2}, {NULL, 0},
                {"RGB with alpha", 4}};
    enum { HEAD = 29, KINDS = sizeof kind / sizeof *kind };
    memset(h, 0, sizeof *h);
    for (int i = 0; i < 256; i++) memset(h->colours[i], i, 3);
    const bool png = length >= 8 && memcmp(in, "\x89PNG\r\n\x1a\n", 8) == 0;
    if (!png || length < HEAD || memcmp(in + 12, "IHDR", 4) != 0) {
        const char *what = png ? NULL : flis_kind_text(flis_kind_of(in, length));
        snprintf(text, KIND_ROOM, "%s", what ? what : png ? "a PNG without a header" : "a file that is no PNG");
        return false;
    }
    const unsigned bits = in[24], type = in[25];
    h->palette = type == 3;
    h->bits = bits;
    h->channels = type < KINDS ? kind[type].channels : 0;
    snprintf(text, KIND_ROOM, "a PNG: %u-bit %s%s", bits, h->channels ? kind[type].name : "pixels of no known kind",
             in[28] ? ", interlaced" : "");
    return h->channels && !in[28] && (bits == 8 || (h->channels == 1 && (bits == 1 || bits == 2 || bits == 4)));
}

static bool png_header(flis_ctx *ctx, const char *path, const uint8_t *in, size_t length, png_head *h)
{
    enum { SIDE = 16384, PIXELS = 1 << 26 };
    char text[KIND_ROOM];
    if (!png_kind(in, length, h, text))
        return flis_fail(
            ctx,
            "%s: got %s, wanted a picture: a JPEG, a PPM, or a PNG with at most 8 bits per value that is not "
            "interlaced",
            path, text);
    h->width = big_endian(in + 16);
    h->height = big_endian(in + 20);
    if (!h->width || !h->height || h->width > SIDE || h->height > SIDE || h->width * h->height > PIXELS)
        return flis_fail(ctx, "%s: got %zu x %zu pixels, wanted at most %d in all", path, h->width, h->height, PIXELS);
    return true;
}

/* A row of values as RGB. Gray is repeated, less than 8 bits are scaled to 0..255, alpha is dropped. SPEC 16.1. */
static void png_row(const png_head *h, const uint8_t *in, uint8_t *out)
{
    const unsigned mask = (1u << h->bits) - 1;
    for (size_t x = 0; x < h->width; x++, out += 3) {
        if (h->channels >= 3) memcpy(out, in + x * h->channels, 3);
        else {
            const size_t bit = x * h->bits * h->channels;
            const unsigned value = in[bit / 8] >> (8 - h->bits - bit % 8) & mask;
            if (h->palette) memcpy(out, h->colours[value], 3);
            else out[0] = out[1] = out[2] = (uint8_t)(value * 255 / mask);
        }
    }
}

static bool read_png(flis_ctx *ctx, const char *path, uint8_t *in, size_t length, flis_picture *out)
{
    png_head head;
    size_t data = 0, got = 0;
    uint8_t *raw = NULL, *above = NULL;
    if (!png_header(ctx, path, in, length, &head)) return false;
    const size_t row = (head.width * head.bits * head.channels + 7) / 8, wanted = (row + 1) * head.height;
    *out = (flis_picture){head.width, head.height, 3, NULL};
    if (gather_data(ctx, path, in, length, &head, &data))
        raw = flis_inflate(ctx, path, FLIS_ZLIB, in, data, wanted, &got);
    if (raw && got != wanted) flis_fail(ctx, "%s: damaged PNG: got %zu bytes of pixels, wanted %zu", path, got, wanted);
    if (flis_ok(ctx)) out->pixels = flis_alloc(ctx, head.width * 3, head.height), above = flis_alloc(ctx, row, 1);
    for (size_t y = 0; flis_ok(ctx) && y < head.height; y++) {
        uint8_t *line = raw + y * (row + 1);
        if (!unfilter(line[0], line + 1, y ? line - row : above, row, (head.bits * head.channels + 7) / 8))
            flis_fail(ctx, "%s: damaged PNG: filter %d", path, line[0]);
        else png_row(&head, line + 1, out->pixels + y * head.width * 3);
    }
    free(above);
    free(raw);
    return flis_ok(ctx);
}

/* Binary PPM (P6) with 8 bits per colour. */
static bool read_ppm(flis_ctx *ctx, const char *path, const uint8_t *in, size_t length, flis_picture *out)
{
    size_t number[3] = {0}, at = 2;
    bool good = true;
    for (int i = 0; good && i < 3; i++) {
        while (at < length && in[at] && (in[at] == '#' || strchr(" \t\r\n", in[at]))) {
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
        return flis_fail(ctx, "%s: wanted a binary PPM (P6) with maxval 255, whole, at most 16384 pixels wide and high",
                         path);
    *out = (flis_picture){number[0], number[1], 3, flis_alloc(ctx, number[0] * number[1], 3)};
    if (out->pixels) memcpy(out->pixels, in + at, number[0] * number[1] * 3);
    return out->pixels != NULL;
}

/* SPEC 16.1 */
bool read_picture(flis_ctx *ctx, const char *path, flis_picture *out)
{
    enum { LIMIT = 1 << 28 };
    size_t length = 0;
    memset(out, 0, sizeof *out);
    uint8_t *in = (uint8_t *)flis_read_file(ctx, path, LIMIT, &length);
    if (!in) return false;
    const bool jpeg = length >= 3 && memcmp(in, "\xFF\xD8\xFF", 3) == 0, ppm = length >= 2 && memcmp(in, "P6", 2) == 0;
    const bool good = jpeg  ? read_jpeg_memory(ctx, path, in, length, out)
                      : ppm ? read_ppm(ctx, path, in, length, out)
                            : read_png(ctx, path, in, length, out);
    free(in);
    return good;
}

/* Cubic convolution with a = -1/2 (Keys 1981), as PIL's BICUBIC. */
static double cubic(double x)
{
    x = fabs(x);
    return x < 1 ? (1.5 * x - 2.5) * x * x + 1 : x < 2 ? ((-0.5 * x + 2.5) * x - 4) * x + 2 : 0;
}

/* Resizes one line of `count` pixels, `step` values apart, to out_count pixels, out_step values apart. When shrinking,
   the kernel is widened by the factor, like PIL's. */
static void resize_line(const float *in, size_t count, size_t step, float *out, size_t out_count, size_t out_step)
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

/* Gives pixels in -1..1, [side][side][3]. SPEC 16.8. */
bool resize_picture(flis_ctx *ctx, const flis_picture *p, size_t side, flis_real *out)
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

/* PIL's coefficients for one output value: out = sum k[i] in[first + i] / 2^22, rounded; k is rounded to whole numbers. */
typedef struct taps {
    size_t first, count;
    int32_t *k;
} taps;

/* The cubic in the order of PIL's operations, since a different rounding could change a byte. SPEC 16.8. */
static double pil_cubic(double x)
{
    const double a = -0.5;
    x = fabs(x);
    return x < 1 ? ((a + 2) * x - (a + 3)) * x * x + 1 : x < 2 ? (((x - 5) * x + 8) * x - 4) * a : 0;
}

/* The coefficients of output value i of out_count. `weights` has room for as many numbers as t->k. SPEC 16.8. */
static void make_taps(size_t count, size_t out_count, size_t i, double *weights, taps *t)
{
    const double scale = (double)count / (double)out_count, widen = scale < 1 ? 1 : scale, support = 2 * widen,
                 centre = ((double)i + 0.5) * scale, inverse = 1 / widen, first = centre - support + 0.5,
                 end = centre + support + 0.5;
    double sum = 0;
    t->first = first < 0 ? 0 : (size_t)first;
    t->count = (end > (double)count ? count : (size_t)end) - t->first;
    for (size_t x = 0; x < t->count; x++)
        sum += weights[x] = pil_cubic(((double)x + (double)t->first - centre + 0.5) * inverse);
    for (size_t x = 0; x < t->count; x++) {
        const double w = (sum != 0 ? weights[x] / sum : weights[x]) * (1 << 22);
        t->k[x] = (int32_t)(w < 0 ? w - 0.5 : w + 0.5);
    }
}

/* One pass: `lines` lines of `count` values, which become out_count values. In a line, values are `step` apart; lines are
   line_in and line_out apart. */
typedef struct pass {
    size_t count, out_count, lines, step, line_in, line_out;
} pass;

/* SPEC 16.8 */
static bool resize_pass(flis_ctx *ctx, const uint8_t *in, const pass *p, uint8_t *out)
{
    const size_t shrink = p->count / p->out_count + 1, room = shrink * 4 + 5;
    double *weights = flis_alloc(ctx, room, sizeof *weights);
    taps t = {0, 0, flis_alloc(ctx, room, sizeof *t.k)};
    for (size_t i = 0; flis_ok(ctx) && i < p->out_count; i++) {
        make_taps(p->count, p->out_count, i, weights, &t);
        for (size_t line = 0; line < p->lines; line++) {
            const uint8_t *at = in + line * p->line_in + t.first * p->step;
            int64_t sum = 1 << 21;
            for (size_t x = 0; x < t.count; x++) sum += (int64_t)at[x * p->step] * t.k[x];
            sum = sum < 0 ? 0 : sum >> 22;
            out[line * p->line_out + i * p->step] = (uint8_t)(sum > 255 ? 255 : sum);
        }
    }
    free(weights);
    free(t.k);
    return flis_ok(ctx);
}

static bool resize_start(flis_ctx *ctx, const flis_picture *p, size_t width, size_t height, flis_picture *out)
{
    memset(out, 0, sizeof *out);
    if (!p->width || !p->height || !width || !height)
        return flis_fail(ctx, "resize: got %zu x %zu and %zu x %zu pixels", p->width, p->height, width, height);
    *out = (flis_picture){width, height, p->channels, flis_alloc(ctx, width * p->channels, height)};
    return out->pixels != NULL;
}

/* PIL 9 (src/libImaging/Resample.c, 8 bits): across, rounded to bytes, then down. A side that does not change is
   copied. SPEC 16.8. */
bool resize_bicubic(flis_ctx *ctx, const flis_picture *p, size_t width, size_t height, flis_picture *out)
{
    const size_t n = p->channels, row = width * n;
    uint8_t *middle = NULL;
    if (!resize_start(ctx, p, width, height, out) || !(middle = flis_alloc(ctx, row, p->height))) return false;
    for (size_t c = 0; c < n && flis_ok(ctx); c++)
        resize_pass(ctx, p->pixels + c, &(pass){p->width, width, p->height, n, p->width * n, row}, middle + c);
    if (flis_ok(ctx)) resize_pass(ctx, middle, &(pass){p->height, height, row, row, 1, 1}, out->pixels);
    free(middle);
    return flis_ok(ctx);
}

/* PIL 9 (src/libImaging/Geometry.c): source position 0.5 in / out, plus in / out for each step, added up in double. Rarely, this
   differs from flis_label_pil's exact rule. SPEC 16.8. */
bool resize_nearest(flis_ctx *ctx, const flis_picture *p, size_t width, size_t height, flis_picture *out)
{
    const double step_x = (double)p->width / (double)width, step_y = (double)p->height / (double)height;
    double x = step_x * 0.5, y = step_y * 0.5;
    const size_t n = p->channels;
    size_t *column = NULL;
    if (!resize_start(ctx, p, width, height, out) || !(column = flis_alloc(ctx, width, sizeof *column))) return false;
    for (size_t i = 0; i < width; i++, x += step_x) column[i] = (size_t)x;
    for (size_t j = 0; j < height; j++, y += step_y)
        for (size_t i = 0; i < width; i++)
            if (column[i] < p->width && (size_t)y < p->height)
                memcpy(out->pixels + (j * width + i) * n, p->pixels + ((size_t)y * p->width + column[i]) * n, n);
    free(column);
    return true;
}

/* The means of four pixels in -1..1, [height / 2][width / 2][3]: the segmenter's input. */
void half_picture(const uint8_t *rgb, size_t width, size_t height, flis_real *out)
{
    for (size_t y = 0; y < height / 2; y++)
        for (size_t i = 0; i < width / 2; i++) {
            const uint8_t *at = rgb + (2 * y * width + 2 * i) * 3;
            for (size_t c = 0; c < 3; c++)
                out[(y * (width / 2) + i) * 3 + c] =
                    (flis_real)(at[c] + at[c + 3] + at[c + 3 * width] + at[c + 3 * width + 3]) / (flis_real)510 - 1;
        }
}
