/* pictures.c - 8-bit RGB pictures from PNG and PPM, and resizing as PIL does it. */
#include "tools/common/common.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static uint32_t big_endian(const uint8_t *b)
{
    return (uint32_t)b[0] << 24 | (uint32_t)b[1] << 16 | (uint32_t)b[2] << 8 | b[3];
}

/* Undoes the filter of one row (PNG, ISO/IEC 15948, section 9); `above` is the previous row, zeros for the first. */
static bool unfilter(int filter, uint8_t *row, const uint8_t *above, size_t count)
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

/* Moves the bytes of all IDAT chunks to the start of the buffer, where they are contiguous. */
static bool gather_data(flis_ctx *ctx, const char *path, uint8_t *in, size_t length, size_t *data)
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

/* What a file is that was to be an 8-bit RGB PNG; NULL: one that is. */
static const char *other_picture(const uint8_t *in, size_t length, char text[64])
{
    static const char *const kind[] = {"gray", NULL, "RGB", "palette", "gray with alpha", NULL, "RGB with alpha"};
    enum { HEAD = 29, KINDS = sizeof kind / sizeof *kind };
    if (!length) return "an empty file";
    if (length < 8 || memcmp(in, "\x89PNG\r\n\x1a\n", 8) != 0) return "a file that is no PNG";
    if (length < HEAD || memcmp(in + 12, "IHDR", 4) != 0) return "a PNG without a header";
    const unsigned bits = in[24], type = in[25];
    if (bits == 8 && type == 2 && !in[28]) return NULL;
    snprintf(text, 64, "a PNG: %u-bit %s%s", bits, type < KINDS && kind[type] ? kind[type] : "pixels of no known kind",
             in[28] ? ", interlaced" : "");
    return text;
}

/* An 8-bit RGB PNG, as flis, tools/world and most programs write pictures. */
static bool read_png(flis_ctx *ctx, const char *path, flis_picture *out)
{
    enum { LIMIT = 1 << 28 };
    char text[64];
    size_t length = 0, data = 0, got = 0;
    uint8_t *in = (uint8_t *)flis_read_file(ctx, path, LIMIT, &length), *raw = NULL, *above = NULL;
    memset(out, 0, sizeof *out);
    const char *other = in ? other_picture(in, length, text) : NULL;
    if (other) flis_fail(ctx, "%s: got %s, wanted a picture: an 8-bit RGB PNG that is not interlaced", path, other);
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

/* Binary PPM (P6) with 8 bits per colour. */
static bool read_ppm(flis_ctx *ctx, const char *path, flis_picture *out)
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

bool read_picture(flis_ctx *ctx, const char *path, flis_picture *out)
{
    return ends_in(path, ".ppm") ? read_ppm(ctx, path, out) : read_png(ctx, path, out);
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

/* Gives pixels in -1..1, [side][side][3]. */
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
