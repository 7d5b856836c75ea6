/* jpeg_pixels.c - from a JPEG's coefficients to pixels, with the bits of libjpeg-turbo: the integer inverse DCT ("islow"), block
 * smoothing of progressive files that are not complete, "fancy" upsampling, and colour conversion.
 */
#include "tools/common/jpeg.h"

#include <stdlib.h>
#include <string.h>

/* x modulo 2^32 as a signed number, and x within -2^15..2^15-1. */
static int32_t signed32(uint32_t x)
{
    return x < 0x80000000u ? (int32_t)x : (int32_t)(x - 0x80000000u) + INT32_MIN;
}

static int16_t wrap(int32_t x)
{
    return (int16_t)(((x & 0xFFFF) ^ 0x8000) - 0x8000);
}

static int16_t saturate(int32_t x)
{
    return (int16_t)(x < -32768 ? -32768 : x > 32767 ? 32767 : x);
}

static uint8_t clip(int32_t x)
{
    return (uint8_t)(x < 0 ? 0 : x > 255 ? 255 : x);
}

/* floor(x / 2^n) */
static int32_t shift_right(int32_t x, int n)
{
    return x >= 0 ? x >> n : ~(~x >> n);
}

/* ---- The inverse DCT -------------------------------------------------------------------------------------------------- */

/* Constants of the factorisation of Loeffler, Ligtenberg and Moschytz (1989), times 2^13. */
enum {
    C_0_298 = 2446,
    C_0_390 = 3196,
    C_0_541 = 4433,
    C_0_765 = 6270,
    C_0_899 = 7373,
    C_1_175 = 9633,
    C_1_501 = 12299,
    C_1_847 = 15137,
    C_1_961 = 16069,
    C_2_053 = 16819,
    C_2_562 = 20995,
    C_3_072 = 25172,
    DCT_BITS = 13, /* of the constants */
    PASS_BITS = 2  /* of precision that the first pass keeps */
};

/* c x modulo 2^32 */
static uint32_t times(int c, int16_t x)
{
    return (uint32_t)c * (uint32_t)(int32_t)x;
}

/* One pass over eight values, `step` apart: out = the inverse DCT times 2^13, rounded and shifted right. Like the vector code of
   x86-64, which PIL runs there, sums of two inputs are taken modulo 2^16 and results are limited to 16 bits. Damaged files
   have coefficients that are large enough for that. SPEC 16.3. */
static void inverse_pass(const int16_t *in, int16_t *out, size_t step, int shift)
{
    const int16_t even = wrap(in[0] + in[4 * step]), odd = wrap(in[0] - in[4 * step]), x1 = in[step], x2 = in[2 * step],
                  x3 = in[3 * step], x5 = in[5 * step], x6 = in[6 * step], x7 = in[7 * step], z3 = wrap(x7 + x3),
                  z4 = wrap(x5 + x1);
    const uint32_t a = times(C_0_541 + C_0_765, x2) + times(C_0_541, x6),
                   b = times(C_0_541, x2) + times(C_0_541 - C_1_847, x6),
                   p = times(C_1_175 - C_1_961, z3) + times(C_1_175, z4),
                   q = times(C_1_175, z3) + times(C_1_175 - C_0_390, z4), e0 = (uint32_t)even << DCT_BITS,
                   e1 = (uint32_t)odd << DCT_BITS, half = 1u << (shift - 1);
    const uint32_t sum[4] = {e0 + a + half, e1 + b + half, e1 - b + half, e0 - a + half},
                   add[4] = {times(C_1_501 - C_0_899, x1) - times(C_0_899, x7) + q,
                             times(C_3_072 - C_2_562, x3) - times(C_2_562, x5) + p,
                             times(C_2_053 - C_2_562, x5) - times(C_2_562, x3) + q,
                             times(C_0_298 - C_0_899, x7) - times(C_0_899, x1) + p};
    for (size_t i = 0; i < 4; i++) {
        out[i * step] = saturate(shift_right(signed32(sum[i] + add[i]), shift));
        out[(7 - i) * step] = saturate(shift_right(signed32(sum[i] - add[i]), shift));
    }
}

/* SPEC 16.3 */
void jpeg_inverse_dct(const int16_t *coefficients, const uint16_t *quant, uint8_t *out, size_t stride)
{
    int16_t in[64], middle[64];
    bool flat = true;
    for (size_t i = 0; i < 64; i++) {
        in[i] = wrap(signed32((uint32_t)coefficients[i] * quant[i]));
        flat = flat && (i < 8 || !coefficients[i]);
    }
    for (size_t x = 0; x < 8; x++) /* without rows 1 to 7, the first pass only multiplies, modulo 2^16 */
        if (!flat) inverse_pass(in + x, middle + x, 8, DCT_BITS - PASS_BITS);
        else
            for (size_t y = 0; y < 8; y++) middle[y * 8 + x] = wrap(in[x] * (1 << PASS_BITS));
    for (size_t y = 0; y < 8; y++) {
        int16_t row[8];
        inverse_pass(middle + y * 8, row, 1, DCT_BITS + PASS_BITS + 3);
        for (size_t x = 0; x < 8; x++) out[y * stride + x] = clip(row[x] + 128);
    }
}

/* ---- Block smoothing ----------------------------------------------------------------------------------------------------- */

/* Weights, times 256, of the 5 x 5 DC values around a block: what the value of a coefficient would be in a
   smooth picture. BESIDE is used where some AC coefficients were sent, ALONE where none was (libjpeg-turbo 2.1, after T.81
   K.8). In zigzag order. */
typedef int16_t window[25];
static const window ALONE[JPEG_SMOOTHED] = {
    {-2, -6, -8, -6, -2, -6, 6, 42, 6, -6, -8, 42, 152, 42, -8, -6, 6, 42, 6, -6, -2, -6, -8, -6, -2},
    {-1, -1, 0, 1, 1, -3, 13, 0, -13, 3, -3, 38, 0, -38, 3, -3, 13, 0, -13, 3, -1, -1, 0, 1, 1},
    {-1, -3, -3, -3, -1, -1, 13, 38, 13, -1, 0, 0, 0, 0, 0, 1, -13, -38, -13, 1, 1, 3, 3, 3, 1},
    {0, 0, 1, 0, 0, 0, 2, 7, 2, 0, 0, -5, -14, -5, 0, 0, 2, 7, 2, 0, 0, 0, 1, 0, 0},
    {-1, 0, 0, 0, 1, 0, 9, 0, -9, 0, 0, 0, 0, 0, 0, 0, -9, 0, 9, 0, 1, 0, 0, 0, -1},
    {0, 0, 0, 0, 0, 0, 2, -5, 2, 0, 1, 7, -14, 7, 1, 0, 2, -5, 2, 0, 0, 0, 0, 0, 0},
    {0, 0, 0, 0, 0, 0, 1, 0, -1, 0, 0, 2, 0, -2, 0, 0, 1, 0, -1, 0, 0, 0, 0, 0, 0},
    {0, 0, 0, 0, 0, 0, 1, -3, 1, 0, 0, 0, 0, 0, 0, 0, -1, 3, -1, 0, 0, 0, 0, 0, 0},
    {0, 0, 0, 0, 0, 0, 1, 0, -1, 0, 0, -3, 0, 3, 0, 0, 1, 0, -1, 0, 0, 0, 0, 0, 0},
    {0, 0, 0, 0, 0, 0, 1, 2, 1, 0, 0, 0, 0, 0, 0, 0, -1, -2, -1, 0, 0, 0, 0, 0, 0},
};
static const window BESIDE[6] = {
    {0},
    {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, -7, 50, 0, -50, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0},
    {0, 0, -7, 0, 0, 0, 0, 50, 0, 0, 0, 0, 0, 0, 0, 0, 0, -50, 0, 0, 0, 0, 7, 0, 0},
    {0, 0, -1, 0, 0, 0, 0, 13, 0, 0, 0, 0, -24, 0, 0, 0, 0, 13, 0, 0, 0, 0, -1, 0, 0},
    {0, -1, 0, 1, 0, -1, 10, 0, -10, 1, 0, 0, 0, 0, 0, 1, -10, 0, 10, -1, 0, 1, 0, -1, 0},
    {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, -1, 13, -24, 13, -1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0},
};

/* Smoothing is done if it can improve a coefficient: every component has a table without zeros and a DC value, and of some
   component a coefficient is not known to its last bit. SPEC 16.4. */
static bool needs_smoothing(const jpeg_reader *r)
{
    bool useful = false;
    for (int i = 0; r->progressive && i < r->count; i++) {
        const jpeg_component *c = &r->component[i];
        if (!c->latched || c->known[0] < 0) return false;
        for (int k = 0; k < JPEG_SMOOTHED; k++) {
            if (!c->quant[JPEG_ZIGZAG[k]]) return false;
            useful = useful || (k && c->known[k]);
        }
    }
    return useful;
}

/* round(sum of w dc, times Q[0] / (256 Q[k])), kept below the known bits. SPEC 16.4. */
static int16_t predict(const window w, const int dc[25], const jpeg_component *c, int k, int known)
{
    const int64_t divisor = (int64_t)c->quant[JPEG_ZIGZAG[k]] * 256;
    int64_t sum = 0;
    for (int i = 0; i < 25; i++) sum += w[i] * dc[i];
    sum *= c->quant[0];
    int64_t size = (divisor / 2 + (sum < 0 ? -sum : sum)) / divisor;
    if (known > 0 && size >= (int64_t)1 << known) size = ((int64_t)1 << known) - 1;
    return wrap((int32_t)((sum < 0 ? -size : size) & 0xFFFF));
}

/* Replaces the coefficients of a block that are zero and not known exactly. SPEC 16.4. */
static void smooth_block(const int dc[25], const jpeg_component *c, const int *known, int16_t *block)
{
    bool alone = true;
    for (int k = 1; k < JPEG_SMOOTHED; k++) alone = alone && known[k] == -1;
    for (int k = 1; k < (alone ? JPEG_SMOOTHED : 6); k++) {
        int16_t *x = &block[JPEG_ZIGZAG[k]];
        if (known[k] && !*x) *x = predict(alone ? ALONE[k] : BESIDE[k], dc, c, k, known[k]);
    }
    if (alone) block[0] = predict(ALONE[0], dc, c, 0, 0);
}

/* The rows of blocks above and below row `row` whose DC values smoothing reads, as libjpeg-turbo 2.1 has them: the second row above
   is missing also in the second row of MCUs, unless the row is at least the third of its MCU, and the second row below likewise
   in the last but one row of MCUs. SPEC 16.4. */
static void neighbour_rows(const jpeg_component *c, size_t row, size_t out[5])
{
    const size_t mcu_rows = c->room_rows / (size_t)c->v, mcu_row = row / (size_t)c->v, rest = c->rows % (size_t)c->v,
                 rows = mcu_row + 1 == mcu_rows && rest ? rest : (size_t)c->v, i = row % (size_t)c->v;
    out[2] = row;
    out[1] = row > 0 ? row - 1 : row;
    out[0] = i > 1 || mcu_row > 1 ? row - 2 : out[1];
    out[3] = i + 1 < rows || mcu_row + 1 < mcu_rows ? row + 1 : row;
    out[4] = i + 2 < rows || mcu_row + 2 < mcu_rows ? row + 2 : out[3];
}

/* The DC values around block `column`. Beyond the left and right edge the nearest one is repeated; libjpeg-turbo 2.1 repeats the
   first one on the right of two columns. SPEC 16.4. */
static void gather(const jpeg_component *c, const size_t rows[5], size_t column, int dc[25])
{
    for (size_t y = 0; y < 5; y++)
        for (size_t x = 0; x < 5; x++) {
            size_t at = column + x < 2 ? 0 : column + x - 2;
            if (at >= c->columns) at = c->columns == 2 ? 0 : c->columns - 1;
            dc[y * 5 + x] = c->coefficients[(rows[y] * c->room_columns + at) * 64];
        }
}

/* SPEC 16.4 */
void jpeg_transform(jpeg_reader *r)
{
    const bool smooth = needs_smoothing(r);
    for (int i = 0; i < r->count; i++) {
        jpeg_component *c = &r->component[i];
        const size_t stride = c->room_columns * 8;
        for (int k = 0; r->scans == 1 && k < JPEG_SMOOTHED; k++) c->before[k] = -1;
        for (size_t y = 0; y < c->rows && flis_poll(r->ctx); y++) {
            const int *known = y / (size_t)c->v > r->good_row ? c->before : c->known;
            size_t rows[5];
            neighbour_rows(c, y, rows);
            for (size_t x = 0; x < c->columns; x++) {
                int16_t block[64];
                int dc[25];
                memcpy(block, c->coefficients + (y * c->room_columns + x) * 64, sizeof block);
                if (smooth) {
                    gather(c, rows, x, dc);
                    smooth_block(dc, c, known, block);
                }
                jpeg_inverse_dct(block, c->quant, c->samples + y * 8 * stride + x * 8, stride);
            }
        }
    }
}

/* ---- Upsampling ------------------------------------------------------------------------------------------------------------ */

/* FANCY: linear interpolation between the centres of samples; the roundings alternate, so that no side is preferred. */
typedef enum { BOX, FANCY_ACROSS, FANCY_DOWN, FANCY_BOTH } upsampling;

/* SPEC 16.5 */
static bool choose(jpeg_reader *r, const jpeg_component *c, upsampling *out)
{
    const bool across = c->h * 2 == r->h_max, down = c->v * 2 == r->v_max, same_h = c->h == r->h_max,
               same_v = c->v == r->v_max;
    if (r->h_max % c->h || r->v_max % c->v)
        return flis_fail(r->ctx, "%s: sampling factors %d x %d of %d x %d are not supported", r->name, c->h, c->v,
                         r->h_max, r->v_max);
    *out = across && same_v && c->width > 2 ? FANCY_ACROSS
           : same_h && down                 ? FANCY_DOWN
           : across && down && c->width > 2 ? FANCY_BOTH
                                            : BOX;
    return true;
}

/* out[2 i], out[2 i + 1] = (3 in[i] + in[i - 1] + 1) / 4, (3 in[i] + in[i + 1] + 2) / 4; the ends are copied. SPEC
   16.5. */
static void fancy_across(const uint8_t *in, size_t count, uint8_t *out)
{
    for (size_t i = 0; i < count; i++) {
        out[2 * i] = i ? (uint8_t)((3 * in[i] + in[i - 1] + 1) >> 2) : in[i];
        out[2 * i + 1] = i + 1 < count ? (uint8_t)((3 * in[i] + in[i + 1] + 2) >> 2) : in[i];
    }
}

/* Down first: sum[i] = 3 near[i] + far[i], then across. SPEC 16.5. */
static void fancy_both(const uint8_t *near, const uint8_t *far, size_t count, uint8_t *out)
{
    for (size_t i = 0; i < count; i++) {
        const int sum = 3 * near[i] + far[i], left = i ? 3 * near[i - 1] + far[i - 1] : sum,
                  right = i + 1 < count ? 3 * near[i + 1] + far[i + 1] : sum;
        out[2 * i] = (uint8_t)((3 * sum + left + 8) >> 4);
        out[2 * i + 1] = (uint8_t)((3 * sum + right + 7) >> 4);
    }
}

/* Row y of the picture: a component's samples at the picture's width. `out` has room for two per sample of the
   component. SPEC 16.5. */
static void upsample_row(const jpeg_reader *r, const jpeg_component *c, upsampling how, size_t y, uint8_t *out)
{
    const size_t stride = c->room_columns * 8, scale_h = (size_t)(r->h_max / c->h), scale_v = (size_t)(r->v_max / c->v),
                 row = y / scale_v;
    const uint8_t *near = c->samples + row * stride, *far = near;
    if (y % 2 == 0 && row > 0) far = near - stride;
    if (y % 2 == 1 && row + 1 < c->height) far = near + stride;
    if (how == FANCY_ACROSS) fancy_across(near, c->width, out);
    else if (how == FANCY_BOTH) fancy_both(near, far, c->width, out);
    else if (how == FANCY_DOWN)
        for (size_t x = 0; x < c->width; x++) out[x] = (uint8_t)((3 * near[x] + far[x] + 1 + (int)(y % 2)) >> 2);
    else
        for (size_t x = 0; x < r->width; x++) out[x] = near[x / scale_h];
}

/* ---- Colours ----------------------------------------------------------------------------------------------------------------- */

typedef enum { GRAY, RGB, YCC, CMYK, YCCK } colours;

/* JFIF files are YCbCr, Adobe's marker names the transform, and else the component's ids decide. SPEC 16.5. */
static colours choose_colours(const jpeg_reader *r)
{
    const jpeg_component *c = r->component;
    if (r->count == 1) return GRAY;
    if (r->count == 4) return r->adobe && r->transform ? YCCK : CMYK;
    if (r->jfif) return YCC;
    if (r->adobe) return r->transform ? YCC : RGB;
    return c[0].id == 'R' && c[1].id == 'G' && c[2].id == 'B' ? RGB : YCC;
}

/* R = Y + 1.402 Cr, G = Y - 0.34414 Cb - 0.71414 Cr, B = Y + 1.772 Cb in units of 2^-16, each product rounded as in libjpeg's
   tables. SPEC 16.5. */
static void ycc_to_rgb(int y, int cb, int cr, uint8_t out[3])
{
    enum { R_CR = 91881, B_CB = 116130, G_CR = 46802, G_CB = 22554, HALF = 1 << 15 };
    cb -= 128;
    cr -= 128;
    out[0] = clip(y + shift_right(R_CR * cr + HALF, 16));
    out[1] = clip(y + shift_right(-G_CB * cb - G_CR * cr + HALF, 16));
    out[2] = clip(y + shift_right(B_CB * cb + HALF, 16));
}

/* round(a b / 255) */
static int times_255(int a, int b)
{
    const int x = a * b + 128;
    return ((x >> 8) + x) >> 8;
}

/* PIL takes every CMYK file as Adobe's, with inverted values v = 255 - ink: of the inks C, M, Y and K, each colour is
   (255 - K) - C (255 - K) / 255. SPEC 16.5. */
static void cmyk_to_rgb(const uint8_t in[4], uint8_t out[3])
{
    for (int i = 0; i < 3; i++) out[i] = clip(in[3] - times_255(255 - in[i], in[3]));
}

static void convert_row(colours from, uint8_t *const row[JPEG_COMPONENTS], size_t width, uint8_t *out)
{
    for (size_t x = 0; x < width; x++, out += 3) {
        uint8_t p[4];
        for (int i = 0; i < 4; i++) p[i] = row[i][x];
        if (from == YCCK) { /* libjpeg converts to CMY = 255 - RGB */
            ycc_to_rgb(p[0], p[1], p[2], out);
            for (int i = 0; i < 3; i++) p[i] = (uint8_t)(255 - out[i]);
        }
        if (from == YCC) ycc_to_rgb(p[0], p[1], p[2], out);
        else if (from == CMYK || from == YCCK) cmyk_to_rgb(p, out);
        else
            for (int i = 0; i < 3; i++) out[i] = p[from == RGB ? i : 0];
    }
}

bool jpeg_colours(jpeg_reader *r, uint8_t *out)
{
    const colours from = choose_colours(r);
    upsampling how[JPEG_COMPONENTS];
    uint8_t *row[JPEG_COMPONENTS], *room = NULL;
    const size_t length = r->width + 16;
    bool good = true;
    for (int i = 0; good && i < r->count; i++) good = choose(r, &r->component[i], &how[i]);
    if (good) room = flis_alloc(r->ctx, length, JPEG_COMPONENTS);
    for (size_t i = 0; room && i < JPEG_COMPONENTS; i++) row[i] = room + i * length;
    for (size_t y = 0; room && y < r->height; y++) {
        for (int i = 0; i < r->count; i++) upsample_row(r, &r->component[i], how[i], y, row[i]);
        convert_row(from, row, r->width, out + y * r->width * 3);
    }
    free(room);
    return room != NULL;
}
