/* product.c - the product of two matrices in double precision: c += a b.
 *
 * Both factors are copied into panels first, so that the innermost loop reads memory in order: a in panels of TALL rows, b
 * in panels of WIDE columns, both with k outermost. A tile of TALL x WIDE sums is held in registers while k runs.
 */
#include "tools/evaluate/matrix.h"

#include <string.h>

/* The tile fills the vector registers. It changes no bit of the result, unlike DEEP, the length of the blocks along k. */
#if defined(__AVX512F__)
enum { TALL = 8, WIDE = 16 };
#elif defined(__AVX__) || defined(__aarch64__)
enum { TALL = 4, WIDE = 8 };
#else
enum { TALL = 2, WIDE = 8 };
#endif

/* Copies rows of a [count][k] into a panel [k][each]; what lies behind the last row is not used. */
static void pack(double *panel, size_t each, matrix a, size_t count, size_t k)
{
    if (a.down == 1 && count == each)
        for (size_t p = 0; p < k; p++) memcpy(panel + p * each, a.at + p * a.right, each * sizeof *panel);
    else
        for (size_t i = 0; i < count; i++)
            for (size_t p = 0; p < k; p++) panel[p * each + i] = a.at[i * a.down + p * a.right];
}

#if defined(__AVX512F__)
#define EACH_ROW(DO) DO(0) DO(1) DO(2) DO(3) DO(4) DO(5) DO(6) DO(7)
#elif defined(__AVX__) || defined(__aarch64__)
#define EACH_ROW(DO) DO(0) DO(1) DO(2) DO(3)
#else
#define EACH_ROW(DO) DO(0) DO(1)
#endif

/* sum [TALL][WIDE] of a tile: a [k][TALL], b [k][WIDE]. One array for each row, so that compilers keep it in registers. */
static void tile(size_t k, const double *restrict a, const double *restrict b, double *restrict sum)
{
#define CLEAR(i) \
    double sum##i[WIDE]; \
    for (int j = 0; j < WIDE; j++) sum##i[j] = 0;
#define ADD(i) \
    for (int j = 0; j < WIDE; j++) sum##i[j] += a[i] * b[j];
#define STORE(i) \
    for (int j = 0; j < WIDE; j++) sum[i * WIDE + j] = sum##i[j];
    EACH_ROW(CLEAR)
    for (; k > 0; k--, a += TALL, b += WIDE) { EACH_ROW(ADD) }
    EACH_ROW(STORE)
#undef CLEAR
#undef ADD
#undef STORE
}

/* The tiles of c [m][n], both at most BAND and STRIPE, from panels of a and b. */
static void add_tiles(size_t m, size_t n, size_t k, double sign, const double *a, const double *b, matrix c)
{
    double sum[TALL * WIDE];
    for (size_t j = 0; j < n; j += WIDE)
        for (size_t i = 0; i < m; i += TALL) {
            const size_t rows = m - i < TALL ? m - i : TALL, columns = n - j < WIDE ? n - j : WIDE;
            tile(k, a + i * k, b + j * k, sum);
            for (size_t y = 0; y < rows; y++) {
                double *to = c.at + (i + y) * c.down + j;
                if (columns == WIDE)
                    for (size_t x = 0; x < WIDE; x++) to[x] += sign * sum[y * WIDE + x];
                else
                    for (size_t x = 0; x < columns; x++) to[x] += sign * sum[y * WIDE + x];
            }
        }
}

void product_part(size_t m, size_t n, size_t k, double sign, matrix a, matrix b, matrix c, double *room)
{
    double *a_panels = room, *b_panels = room + BAND * DEEP;
    for (size_t j = 0; j < n; j += STRIPE)
        for (size_t p = 0; p < k; p += DEEP) {
            const size_t columns = n - j < STRIPE ? n - j : STRIPE, deep = k - p < DEEP ? k - p : DEEP;
            for (size_t x = 0; x < columns; x += WIDE)
                pack(b_panels + x * deep, WIDE, transposed(part(b, p, j + x)), columns - x < WIDE ? columns - x : WIDE,
                     deep);
            for (size_t i = 0; i < m; i += BAND) {
                const size_t rows = m - i < BAND ? m - i : BAND;
                for (size_t y = 0; y < rows; y += TALL)
                    pack(a_panels + y * deep, TALL, part(a, i + y, p), rows - y < TALL ? rows - y : TALL, deep);
                add_tiles(rows, columns, deep, sign, a_panels, b_panels, part(c, i, j));
            }
        }
}
