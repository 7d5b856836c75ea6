/* jpeg_write.c - writes JPEG files as PIL does it without options: JFIF 1.1, baseline, YCbCr with halved colours (4:2:0), the typical
 * Huffman tables of ITU-T T.81 K.3, libjpeg's integer DCT ("islow"). The bytes equal PIL's.
 */
#include "tools/common/jpeg.h"

#include <stdlib.h>
#include <string.h>

const uint8_t JPEG_ZIGZAG[80] = {0,  1,  8,  16, 9,  2,  3,  10, 17, 24, 32, 25, 18, 11, 4,  5,  12, 19, 26, 33,
                                 40, 48, 41, 34, 27, 20, 13, 6,  7,  14, 21, 28, 35, 42, 49, 56, 57, 50, 43, 36,
                                 29, 22, 15, 23, 30, 37, 44, 51, 58, 59, 52, 45, 38, 31, 39, 46, 53, 60, 61, 54,
                                 47, 55, 62, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63};

/* T.81 tables K.3 to K.6. */
const jpeg_huffman JPEG_STANDARD_DC[2] = {
    {true, {0, 0, 1, 5, 1, 1, 1, 1, 1, 1}, {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11}},
    {true, {0, 0, 3, 1, 1, 1, 1, 1, 1, 1, 1, 1}, {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11}}};
const jpeg_huffman JPEG_STANDARD_AC[2] = {
    {true,
     {0, 0, 2, 1, 3, 3, 2, 4, 3, 5, 5, 4, 4, 0, 0, 1, 125},
     {0x01, 0x02, 0x03, 0x00, 0x04, 0x11, 0x05, 0x12, 0x21, 0x31, 0x41, 0x06, 0x13, 0x51, 0x61, 0x07, 0x22, 0x71,
      0x14, 0x32, 0x81, 0x91, 0xA1, 0x08, 0x23, 0x42, 0xB1, 0xC1, 0x15, 0x52, 0xD1, 0xF0, 0x24, 0x33, 0x62, 0x72,
      0x82, 0x09, 0x0A, 0x16, 0x17, 0x18, 0x19, 0x1A, 0x25, 0x26, 0x27, 0x28, 0x29, 0x2A, 0x34, 0x35, 0x36, 0x37,
      0x38, 0x39, 0x3A, 0x43, 0x44, 0x45, 0x46, 0x47, 0x48, 0x49, 0x4A, 0x53, 0x54, 0x55, 0x56, 0x57, 0x58, 0x59,
      0x5A, 0x63, 0x64, 0x65, 0x66, 0x67, 0x68, 0x69, 0x6A, 0x73, 0x74, 0x75, 0x76, 0x77, 0x78, 0x79, 0x7A, 0x83,
      0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8A, 0x92, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99, 0x9A, 0xA2, 0xA3,
      0xA4, 0xA5, 0xA6, 0xA7, 0xA8, 0xA9, 0xAA, 0xB2, 0xB3, 0xB4, 0xB5, 0xB6, 0xB7, 0xB8, 0xB9, 0xBA, 0xC2, 0xC3,
      0xC4, 0xC5, 0xC6, 0xC7, 0xC8, 0xC9, 0xCA, 0xD2, 0xD3, 0xD4, 0xD5, 0xD6, 0xD7, 0xD8, 0xD9, 0xDA, 0xE1, 0xE2,
      0xE3, 0xE4, 0xE5, 0xE6, 0xE7, 0xE8, 0xE9, 0xEA, 0xF1, 0xF2, 0xF3, 0xF4, 0xF5, 0xF6, 0xF7, 0xF8, 0xF9, 0xFA}},
    {true,
     {0, 0, 2, 1, 2, 4, 4, 3, 4, 7, 5, 4, 4, 0, 1, 2, 119},
     {0x00, 0x01, 0x02, 0x03, 0x11, 0x04, 0x05, 0x21, 0x31, 0x06, 0x12, 0x41, 0x51, 0x07, 0x61, 0x71, 0x13, 0x22,
      0x32, 0x81, 0x08, 0x14, 0x42, 0x91, 0xA1, 0xB1, 0xC1, 0x09, 0x23, 0x33, 0x52, 0xF0, 0x15, 0x62, 0x72, 0xD1,
      0x0A, 0x16, 0x24, 0x34, 0xE1, 0x25, 0xF1, 0x17, 0x18, 0x19, 0x1A, 0x26, 0x27, 0x28, 0x29, 0x2A, 0x35, 0x36,
      0x37, 0x38, 0x39, 0x3A, 0x43, 0x44, 0x45, 0x46, 0x47, 0x48, 0x49, 0x4A, 0x53, 0x54, 0x55, 0x56, 0x57, 0x58,
      0x59, 0x5A, 0x63, 0x64, 0x65, 0x66, 0x67, 0x68, 0x69, 0x6A, 0x73, 0x74, 0x75, 0x76, 0x77, 0x78, 0x79, 0x7A,
      0x82, 0x83, 0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8A, 0x92, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99, 0x9A,
      0xA2, 0xA3, 0xA4, 0xA5, 0xA6, 0xA7, 0xA8, 0xA9, 0xAA, 0xB2, 0xB3, 0xB4, 0xB5, 0xB6, 0xB7, 0xB8, 0xB9, 0xBA,
      0xC2, 0xC3, 0xC4, 0xC5, 0xC6, 0xC7, 0xC8, 0xC9, 0xCA, 0xD2, 0xD3, 0xD4, 0xD5, 0xD6, 0xD7, 0xD8, 0xD9, 0xDA,
      0xE2, 0xE3, 0xE4, 0xE5, 0xE6, 0xE7, 0xE8, 0xE9, 0xEA, 0xF2, 0xF3, 0xF4, 0xF5, 0xF6, 0xF7, 0xF8, 0xF9, 0xFA}}};

/* Typical quantisation, for quality 50: T.81 tables K.1 and K.2, row by row. */
static const uint8_t TYPICAL[2][64] = {
    {16, 11,  10,  16, 24, 40, 51, 61, 12,  12,  14,  19,  26, 58, 60, 55,  14,  13,  16,  24, 40, 57,
     69, 56,  14,  17, 22, 29, 51, 87, 80,  62,  18,  22,  37, 56, 68, 109, 103, 77,  24,  35, 55, 64,
     81, 104, 113, 92, 49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98,  112, 100, 103, 99},
    {17, 18, 24, 47, 99, 99, 99, 99, 18, 21, 26, 66, 99, 99, 99, 99, 24, 26, 56, 99, 99, 99,
     99, 99, 47, 66, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99,
     99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99}};

/* Codes by symbol. */
typedef struct coder {
    uint16_t code[256];
    uint8_t length[256];
} coder;

/* The samples of a component, filled up to whole blocks. */
typedef struct plane {
    size_t columns, rows; /* blocks */
    uint8_t *samples;
    int previous_dc;
} plane;

typedef struct writer {
    flis_ctx *ctx;
    uint8_t *out;
    size_t length, room;
    uint32_t bits;
    int count; /* bits not yet written */
    int planes;
    plane plane[3];
    uint8_t quant[2][64]; /* natural order */
    coder dc[2], ac[2];
} writer;

/* ---- Bytes and bits -------------------------------------------------------------------------------------------------- */

static void put(writer *w, int byte)
{
    if (w->length == w->room) {
        uint8_t *more = w->ctx->error[0] || w->room > SIZE_MAX / 2 ? NULL : realloc(w->out, w->room * 2 + 4096);
        if (!more) {
            flis_fail(w->ctx, "no memory for a JPEG of more than %zu bytes", w->length);
            return;
        }
        w->out = more;
        w->room = w->room * 2 + 4096;
    }
    w->out[w->length++] = (uint8_t)byte;
}

static void put_bytes(writer *w, const uint8_t *bytes, size_t count)
{
    for (size_t i = 0; i < count; i++) put(w, bytes[i]);
}

static void put_marker(writer *w, int marker, size_t length)
{
    put(w, 0xFF);
    put(w, marker);
    if (length) put(w, (int)((length + 2) >> 8)), put(w, (int)((length + 2) & 255));
}

/* A byte 0xFF in the data is followed by 0x00. */
static void put_bits(writer *w, uint32_t bits, int count)
{
    w->bits = w->bits << count | bits;
    for (w->count += count; w->count >= 8; w->count -= 8) {
        const int byte = (int)(w->bits >> (w->count - 8) & 255);
        put(w, byte);
        if (byte == 0xFF) put(w, 0);
    }
    w->bits &= (1u << w->count) - 1;
}

/* T.81 C.2: codes of one length are consecutive. */
static void make_coder(const jpeg_huffman *h, coder *c)
{
    unsigned code = 0, symbol = 0;
    for (int length = 1; length <= 16; length++, code <<= 1)
        for (int i = 0; i < h->counts[length]; i++, code++, symbol++) {
            c->code[h->symbols[symbol]] = (uint16_t)code;
            c->length[h->symbols[symbol]] = (uint8_t)length;
        }
}

/* ---- Samples ----------------------------------------------------------------------------------------------------------- */

/* Y, Cb or Cr in units of 2^-16, rounded as in libjpeg's tables. SPEC 16.7. */
static int ycc(const uint8_t *p, int which)
{
    static const int32_t FACTOR[3][3] = {{19595, 38470, 7471}, {-11059, -21709, 32768}, {32768, -27439, -5329}};
    const int32_t *f = FACTOR[which], half = which ? (128 << 16) + 32767 : 32768;
    return (int)((f[0] * p[0] + f[1] * p[1] + f[2] * p[2] + half) >> 16);
}

static size_t within(size_t i, size_t count)
{
    return i < count ? i : count - 1;
}

/* Colours are the means of 2 x 2 pixels; the rounding alternates along the row. Missing pixels repeat the last ones, and below the
   last row of means that row is repeated. SPEC 16.7. */
static void fill_plane(const flis_picture *picture, plane *p, int which, bool halved)
{
    const size_t width = p->columns * 8, w = picture->width, h = picture->height, step = picture->channels;
    for (size_t y = 0; y < p->rows * 8; y++)
        for (size_t x = 0; x < width; x++) {
            const size_t row = halved ? within(y, (h + 1) / 2) : within(y, h);
            int sum = 0;
            for (size_t i = 0; i < (halved ? 4 : 1); i++) {
                const size_t at_y = halved ? within(2 * row + i / 2, h) : row,
                             at_x = within(halved ? 2 * x + i % 2 : x, w);
                const uint8_t *pixel = picture->pixels + (at_y * w + at_x) * step;
                sum += step == 1 ? pixel[0] : ycc(pixel, which);
            }
            p->samples[y * width + x] = (uint8_t)(halved ? (sum + 1 + (int)(x % 2)) >> 2 : sum);
        }
}

/* ---- The forward DCT ----------------------------------------------------------------------------------------------------- */

/* (x + 2^(n - 1)) / 2^n, rounded down */
static int32_t descale(int32_t x, int n)
{
    x += 1 << (n - 1);
    return x >= 0 ? x >> n : ~(~x >> n);
}

/* One pass over eight values, `step` apart, by the factorisation of Loeffler, Ligtenberg and Moschytz (1989) with constants times
   2^13. The first pass keeps two more bits. SPEC 16.7. */
static void forward_pass(int32_t *d, size_t step, bool first)
{
    enum { PASS_BITS = 2 };
    const int shift = first ? 13 - PASS_BITS : 13 + PASS_BITS;
    int32_t sum[4], difference[4];
    for (size_t i = 0; i < 4; i++) {
        sum[i] = d[i * step] + d[(7 - i) * step];
        difference[i] = d[i * step] - d[(7 - i) * step];
    }
    const int32_t a = sum[0] + sum[3], b = sum[1] + sum[2], c = sum[1] - sum[2], e = sum[0] - sum[3],
                  z = (c + e) * 4433, t4 = difference[3], t5 = difference[2], t6 = difference[1], t7 = difference[0],
                  z5 = (t4 + t6 + t5 + t7) * 9633, z1 = -(t4 + t7) * 7373, z2 = -(t5 + t6) * 20995,
                  z3 = -(t4 + t6) * 16069 + z5, z4 = -(t5 + t7) * 3196 + z5;
    d[0] = first ? (a + b) * 4 : descale(a + b, PASS_BITS);
    d[4 * step] = first ? (a - b) * 4 : descale(a - b, PASS_BITS);
    d[2 * step] = descale(z + e * 6270, shift);
    d[6 * step] = descale(z - c * 15137, shift);
    d[7 * step] = descale(t4 * 2446 + z1 + z3, shift);
    d[5 * step] = descale(t5 * 16819 + z2 + z4, shift);
    d[3 * step] = descale(t6 * 25172 + z2 + z3, shift);
    d[step] = descale(t7 * 12299 + z1 + z4, shift);
}

/* The quantised coefficients of a block in natural order. The DCT's values are 8 times too large. SPEC 16.7. */
static void transform(const uint8_t *samples, size_t stride, const uint8_t quant[64], int out[64])
{
    int32_t d[64];
    for (size_t i = 0; i < 64; i++) d[i] = samples[i / 8 * stride + i % 8] - 128;
    for (size_t y = 0; y < 8; y++) forward_pass(d + y * 8, 1, true);
    for (size_t x = 0; x < 8; x++) forward_pass(d + x, 8, false);
    for (size_t i = 0; i < 64; i++) {
        const int32_t divisor = quant[i] * 8, size = ((d[i] < 0 ? -d[i] : d[i]) + divisor / 2) / divisor;
        out[i] = d[i] < 0 ? -size : size;
    }
}

/* ---- Blocks -------------------------------------------------------------------------------------------------------------- */

/* The number of bits of |x|, and x as those bits: a negative x minus 1 (T.81 F.1.2.1). */
static void put_value(writer *w, const coder *c, int symbol, int x)
{
    int size = 0;
    for (int m = x < 0 ? -x : x; m; m >>= 1) size++;
    put_bits(w, c->code[symbol | size], c->length[symbol | size]);
    put_bits(w, (uint32_t)(x < 0 ? x - 1 : x) & ((1u << size) - 1), size);
}

/* T.81 F.1.2: the DC's difference from the block before, then runs of zeros with the value after them. SPEC 16.7. */
static void put_block(writer *w, plane *p, int table, const int block[64])
{
    const coder *ac = &w->ac[table];
    int run = 0;
    put_value(w, &w->dc[table], 0, block[0] - p->previous_dc);
    p->previous_dc = block[0];
    for (int k = 1; k < 64; k++) {
        const int x = block[JPEG_ZIGZAG[k]];
        if (!x) {
            run++;
            continue;
        }
        for (; run > 15; run -= 16) put_bits(w, ac->code[0xF0], ac->length[0xF0]);
        put_value(w, ac, run << 4, x);
        run = 0;
    }
    if (run) put_bits(w, ac->code[0], ac->length[0]);
}

/* The data. In an MCU, blocks beyond the picture have the DC of the block before and nothing else. SPEC 16.7. */
static void put_scan(writer *w)
{
    const size_t side = w->planes == 1 ? 1 : 2, columns = (w->plane[0].columns + side - 1) / side,
                 rows = (w->plane[0].rows + side - 1) / side;
    for (size_t y = 0; y < rows && flis_ok(w->ctx); y++)
        for (size_t x = 0; x < columns; x++)
            for (int i = 0; i < w->planes; i++) {
                plane *p = &w->plane[i];
                const size_t blocks = i ? 1 : side;
                for (size_t b = 0; b < blocks * blocks; b++) {
                    const size_t column = x * blocks + b % blocks, row = y * blocks + b / blocks;
                    int block[64] = {p->previous_dc};
                    if (column < p->columns && row < p->rows)
                        transform(p->samples + (row * 8 * p->columns + column) * 8, p->columns * 8, w->quant[i > 0],
                                  block);
                    put_block(w, p, i > 0, block);
                }
            }
    if (w->count) put_bits(w, 0x7F, 7); /* the last byte is filled up with ones */
}

/* ---- The file ---------------------------------------------------------------------------------------------------------------- */

/* libjpeg's scaling of the typical tables: 5000 / quality percent below 50, else 200 - 2 quality percent. SPEC 16.7. */
static void make_quantisation(writer *w, int quality)
{
    const int percent = quality < 50 ? 5000 / quality : 200 - quality * 2;
    for (int t = 0; t < 2; t++)
        for (int i = 0; i < 64; i++) {
            const int q = (TYPICAL[t][i] * percent + 50) / 100;
            w->quant[t][i] = (uint8_t)(q < 1 ? 1 : q > 255 ? 255 : q);
        }
}

static void put_huffman(writer *w, int class_and_index, const jpeg_huffman *h)
{
    size_t count = 0;
    for (int i = 1; i <= 16; i++) count += h->counts[i];
    put_marker(w, JPEG_DHT, 17 + count);
    put(w, class_and_index);
    put_bytes(w, h->counts + 1, 16);
    put_bytes(w, h->symbols, count);
}

/* SPEC 16.7 */
static void put_header(writer *w, const flis_picture *picture)
{
    static const uint8_t JFIF[14] = {'J', 'F', 'I', 'F', 0, 1, 1, 0, 0, 1, 0, 1, 0, 0}; /* version 1.1, pixels 1 : 1 */
    const int planes = w->planes, tables = planes == 1 ? 1 : 2;
    const size_t size = 6 + 3 * (size_t)planes, dimension[2] = {picture->height, picture->width};
    put_marker(w, JPEG_SOI, 0);
    put_marker(w, JPEG_APP0, sizeof JFIF);
    put_bytes(w, JFIF, sizeof JFIF);
    for (int t = 0; t < tables; t++) {
        put_marker(w, JPEG_DQT, 65);
        put(w, t);
        for (int i = 0; i < 64; i++) put(w, w->quant[t][JPEG_ZIGZAG[i]]);
    }
    put_marker(w, JPEG_SOF0, size);
    put(w, 8); /* bits */
    for (int i = 0; i < 2; i++) put(w, (int)(dimension[i] >> 8)), put(w, (int)(dimension[i] & 255));
    put(w, planes);
    for (int i = 0; i < planes; i++) put(w, i + 1), put(w, i || planes == 1 ? 0x11 : 0x22), put(w, i > 0);
    for (int t = 0; t < tables; t++) {
        put_huffman(w, t, &JPEG_STANDARD_DC[t]);
        put_huffman(w, 0x10 | t, &JPEG_STANDARD_AC[t]);
    }
    put_marker(w, JPEG_SOS, 4 + 2 * (size_t)planes);
    put(w, planes);
    for (int i = 0; i < planes; i++) put(w, i + 1), put(w, i ? 0x11 : 0);
    put(w, 0), put(w, 63), put(w, 0); /* coefficients 0 to 63, all bits */
}

/* Block rows and columns of a plane, and its samples. */
static bool make_plane(writer *w, const flis_picture *picture, int i)
{
    plane *p = &w->plane[i];
    const size_t factor = i ? 16 : 8;
    p->columns = (picture->width + factor - 1) / factor;
    p->rows = (picture->height + factor - 1) / factor;
    p->samples = flis_alloc(w->ctx, p->columns * p->rows, 64);
    if (p->samples) fill_plane(picture, p, i, i > 0);
    return p->samples != NULL;
}

/* SPEC 16.7 */
uint8_t *jpeg_bytes(flis_ctx *ctx, const flis_picture *picture, int quality, size_t *length)
{
    enum { SIDE = 65500 };
    *length = 0;
    if (!flis_given(ctx, picture, "jpeg_bytes")) return NULL;
    if ((picture->channels != 1 && picture->channels != 3) || !picture->width || !picture->height ||
        picture->width > SIDE || picture->height > SIDE || quality < 1 || quality > 100) {
        flis_fail(ctx,
                  "JPEG: got %zu x %zu pixels, %zu channels, quality %d; wanted at most %d, 1 or 3 channels, 1 to 100",
                  picture->width, picture->height, picture->channels, quality, SIDE);
        return NULL;
    }
    writer *w = flis_alloc(ctx, 1, sizeof *w);
    if (!w) return NULL;
    w->ctx = ctx;
    w->planes = (int)picture->channels;
    bool good = true;
    for (int i = 0; good && i < w->planes; i++) good = make_plane(w, picture, i);
    make_quantisation(w, quality);
    for (int t = 0; t < 2; t++) {
        make_coder(&JPEG_STANDARD_DC[t], &w->dc[t]);
        make_coder(&JPEG_STANDARD_AC[t], &w->ac[t]);
    }
    if (good) {
        put_header(w, picture);
        put_scan(w);
        put_marker(w, JPEG_EOI, 0);
    }
    for (int i = 0; i < 3; i++) free(w->plane[i].samples);
    uint8_t *out = w->out;
    *length = flis_ok(ctx) ? w->length : 0;
    free(w);
    if (flis_ok(ctx)) return out;
    free(out);
    return NULL;
}
