/* matrix.c - QR decomposition, and the sum of a matrix's singular values, by Householder's reflections in blocks of PANEL.
 *
 * Nearly all work is in products of matrices (product.c): the reflections of PANEL columns together are I - V T V'
 * (Schreiber and Van Loan 1989), and a whole matrix is updated with them by two products.
 */
#include "tools/evaluate/matrix.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Threads share a matrix by stripes of columns or bands of rows, which are the same for any number of threads. */
#ifdef _OPENMP
#include <omp.h>
#define PRAGMA(text) _Pragma(#text)
#define PARALLEL_FOR(work) PRAGMA(omp parallel for num_threads(ctx->threads) schedule(dynamic) if ((work) > 1 << 22))
#else
#define PARALLEL_FOR(work) (void)(work);
#endif

enum { PANEL = 32, EACH = PRODUCT_ROOM + PANEL * STRIPE /* a thread's room */ };

static double *own_room(double *rooms)
{
#ifdef _OPENMP
    return rooms + (size_t)omp_get_thread_num() * EACH;
#else
    return rooms;
#endif
}

static double *rooms_make(flis_ctx *ctx)
{
    return flis_alloc(ctx, (size_t)ctx->threads, EACH * sizeof(double));
}

static size_t least(size_t a, size_t b)
{
    return a < b ? a : b;
}

bool product_add(flis_ctx *ctx, size_t m, size_t n, size_t k, double sign, matrix a, matrix b, matrix c)
{
    double *rooms = rooms_make(ctx);
    if (!rooms) return false;
    PARALLEL_FOR(m * n * k)
    for (size_t i = 0; i < m; i += BAND)
        product_part(least(BAND, m - i), n, k, sign, part(a, i, 0), b, part(c, i, 0), own_room(rooms));
    free(rooms);
    return true;
}

double dot(const double *a, const double *b, size_t n)
{
    double s[8] = {0}, rest = 0;
    size_t i = 0;
    for (; i + 8 <= n; i += 8)
        for (int k = 0; k < 8; k++) s[k] += a[i + (size_t)k] * b[i + (size_t)k];
    for (; i < n; i++) rest += a[i] * b[i];
    return ((s[0] + s[4]) + (s[1] + s[5])) + ((s[2] + s[6]) + (s[3] + s[7])) + rest;
}

void add_scaled(double *y, double k, const double *x, size_t n)
{
    for (size_t i = 0; i < n; i++) y[i] += k * x[i];
}

/* ---- Reflections ------------------------------------------------------------------------------------------------- */

/* The reflection 1 - tau v v', v = (1, x / v0), that takes (*head, x) to (beta, 0): *head becomes beta, x the rest of v.
   Returns tau; 0: x is zero already, or both are so small that tau would overflow, and nothing is changed but x, to 0. */
static double reflector(double *head, double *x, size_t n)
{
    const double s = dot(x, x, n), h = *head, square = h * h + s;
    if (s == 0 || square < 0x1p-960) {
        memset(x, 0, n * sizeof *x);
        return 0;
    }
    const double beta = h > 0 ? -sqrt(square) : sqrt(square), v0 = h - beta;
    for (size_t i = 0; i < n; i++) x[i] /= v0;
    *head = beta;
    return 2 * v0 * v0 / (v0 * v0 + s);
}

/* The reflections of a panel: v [columns][length], column-major with ones on the diagonal and zeros above; t [PANEL][PANEL],
   upper triangular. R is left above: r [columns][columns], row-major. */
typedef struct panel {
    size_t length, columns;
    double *v, t[PANEL * PANEL], r[PANEL * PANEL];
} panel;

/* QR decomposition of the columns in p->v. */
static void panel_reduce(panel *p)
{
    const size_t m = p->length, n = p->columns;
    double tau[PANEL];
    memset(p->t, 0, sizeof p->t);
    memset(p->r, 0, sizeof p->r);
    for (size_t j = 0; j < n; j++) {
        double *v = p->v + j * m;
        tau[j] = j < m ? reflector(v + j, v + j + 1, m - j - 1) : 0;
        for (size_t i = 0; i <= j && i < m; i++) p->r[i * PANEL + j] = v[i], v[i] = i == j;
        for (size_t k = j + 1; k < n && tau[j] != 0; k++) {
            double *x = p->v + k * m;
            add_scaled(x + j, -tau[j] * dot(v + j, x + j, m - j), v + j, m - j);
        }
        /* T: its next column is -tau T V'v above tau. */
        for (size_t i = 0; i < j; i++) {
            const double along = -tau[j] * dot(p->v + i * m, v, m);
            for (size_t k = 0; k <= i; k++) p->t[k * PANEL + j] += p->t[k * PANEL + i] * along;
        }
        p->t[j * PANEL + j] = tau[j];
    }
}

static matrix panel_v(const panel *p)
{
    return (matrix){p->v, 1, p->length};
}

/* Copies the columns of a [length][columns] to p->v. */
static void panel_copy(panel *p, matrix a)
{
    for (size_t j = 0; j < p->columns; j++)
        for (size_t i = 0; i < p->length; i++) p->v[j * p->length + i] = a.at[i * a.down + j * a.right];
}

/* w [columns][n] = T' w, or [m][columns] = w T; in place, from the last column of T to the first. */
static void times_t_rows(const panel *p, double *w, size_t n)
{
    for (size_t j = p->columns; j-- > 0;) {
        double *row = w + j * n;
        const double own = p->t[j * PANEL + j];
        for (size_t k = 0; k < n; k++) row[k] *= own;
        for (size_t i = 0; i < j; i++) add_scaled(row, p->t[i * PANEL + j], w + i * n, n);
    }
}

static void times_t_columns(const panel *p, double *w, size_t m)
{
    for (size_t k = 0; k < m; k++)
        for (size_t j = p->columns; j-- > 0;) {
            double sum = 0;
            for (size_t i = 0; i <= j; i++) sum += w[k * p->columns + i] * p->t[i * PANEL + j];
            w[k * p->columns + j] = sum;
        }
}

/* ---- QR decomposition -------------------------------------------------------------------------------------------- */

/* [R; W] -= V T' V' [R; W] for `width` columns; V = [1; V2], because the panel's part of R is a triangle:
   Y = T'(R + V2'W), R -= Y, W -= V2 Y. r [PANEL][d], w [m][d]; y: room for PANEL STRIPE. */
static void qr_stripe(const panel *p, double *r, double *w, size_t d, size_t width, double *y, double *room)
{
    const size_t m = p->length - p->columns;
    const matrix v2 = part(panel_v(p), p->columns, 0);
    for (size_t i = 0; i < p->columns; i++) memcpy(y + i * width, r + i * d, width * sizeof *y);
    product_part(p->columns, width, m, 1, transposed(v2), rows_of(w, d), rows_of(y, width), room);
    times_t_rows(p, y, width);
    for (size_t i = 0; i < p->columns; i++) add_scaled(r + i * d, -1, y + i * width, width);
    product_part(m, width, p->columns, -1, v2, rows_of(y, width), rows_of(w, d), room);
}

/* Copies the panel's columns of r [PANEL][d] and w [m][d] to v, reduces them, and writes R back. */
static void qr_panel(panel *p, double *r, const double *w, size_t d)
{
    const size_t columns = p->columns, m = p->length - columns;
    for (size_t j = 0; j < columns; j++) {
        double *v = p->v + j * p->length;
        for (size_t i = 0; i < columns; i++) v[i] = r[i * d + j];
        for (size_t i = 0; i < m; i++) v[columns + i] = w[i * d + j];
    }
    panel_reduce(p);
    for (size_t i = 0; i < columns; i++) memcpy(r + i * d, p->r + i * PANEL, columns * sizeof *r);
}

bool qr_add(flis_ctx *ctx, double *r, double *w, size_t d, size_t m)
{
    panel *p = flis_alloc(ctx, 1, sizeof *p);
    double *v = flis_alloc(ctx, PANEL, (m + PANEL) * sizeof *v), *rooms = rooms_make(ctx);
    for (size_t k = 0; p && v && rooms && k < d && flis_poll(ctx); k += PANEL) {
        const size_t columns = least(PANEL, d - k);
        *p = (panel){.length = columns + m, .columns = columns, .v = v};
        qr_panel(p, r + k * d + k, w + k, d);
        PARALLEL_FOR((d - k) * m * PANEL)
        for (size_t j = k + columns; j < d; j += STRIPE) {
            double *room = own_room(rooms);
            qr_stripe(p, r + k * d + j, w + j, d, least(STRIPE, d - j), room + PRODUCT_ROOM, room);
        }
    }
    free(p);
    free(v);
    free(rooms);
    return flis_ok(ctx);
}

/* ---- Sum of singular values -------------------------------------------------------------------------------------- */

/* A -= V T' V' A, A [p->length][n]. */
static void reflect_left(flis_ctx *ctx, double *rooms, const panel *p, matrix a, size_t n)
{
    (void)ctx; /* without OpenMP */
    PARALLEL_FOR(n * p->length * PANEL)
    for (size_t j = 0; j < n; j += STRIPE) {
        const size_t width = least(STRIPE, n - j);
        double *room = own_room(rooms), *y = room + PRODUCT_ROOM;
        memset(y, 0, p->columns * width * sizeof *y);
        product_part(p->columns, width, p->length, 1, transposed(panel_v(p)), part(a, 0, j), rows_of(y, width), room);
        times_t_rows(p, y, width);
        product_part(p->length, width, p->columns, -1, panel_v(p), rows_of(y, width), part(a, 0, j), room);
    }
}

/* A -= A V T V', A [m][p->length]. */
static void reflect_right(flis_ctx *ctx, double *rooms, const panel *p, matrix a, size_t m)
{
    (void)ctx; /* without OpenMP */
    PARALLEL_FOR(m * p->length * PANEL)
    for (size_t i = 0; i < m; i += BAND) {
        const size_t height = least(BAND, m - i);
        double *room = own_room(rooms), *y = room + PRODUCT_ROOM;
        memset(y, 0, height * p->columns * sizeof *y);
        product_part(height, p->columns, p->length, 1, part(a, i, 0), panel_v(p), rows_of(y, p->columns), room);
        times_t_columns(p, y, height);
        product_part(height, p->length, p->columns, -1, rows_of(y, p->columns), transposed(panel_v(p)), part(a, i, 0),
                     room);
    }
}

/* Reflections from both sides reduce a [m][n], m >= n, to its diagonal and the PANEL ones above it (Großer and Lang 1999), in
   band [n][WIDTH]: row i has the columns i - PANEL to i + 2 PANEL, which leaves room for `chase`. */
enum { WIDTH = 3 * PANEL + 1 };
static bool reduce_to_band(flis_ctx *ctx, double *a, size_t m, size_t n, double *band)
{
    panel *p = flis_alloc(ctx, 1, sizeof *p);
    double *v = flis_alloc(ctx, PANEL, m * sizeof *v), *rooms = rooms_make(ctx);
    for (size_t k = 0; p && v && rooms && k < n && flis_poll(ctx); k += PANEL) {
        const size_t columns = n - k < PANEL ? n - k : PANEL, right = n - k - columns;
        const matrix here = part(rows_of(a, n), k, k), beside = part(here, 0, columns);
        *p = (panel){.length = m - k, .columns = columns, .v = v};
        panel_copy(p, here);
        panel_reduce(p);
        for (size_t i = 0; i < columns; i++)
            for (size_t j = i; j < columns; j++) band[(k + i) * WIDTH + PANEL + j - i] = p->r[i * PANEL + j];
        if (!right) break;
        reflect_left(ctx, rooms, p, beside, right);
        /* The same with the rows of the block beside it: a decomposition L Q. */
        *p = (panel){.length = right, .columns = columns, .v = v};
        panel_copy(p, transposed(beside));
        panel_reduce(p);
        for (size_t i = 0; i < columns; i++)
            for (size_t j = 0; j <= i && j < right; j++)
                band[(k + i) * WIDTH + PANEL + columns + j - i] = p->r[j * PANEL + i];
        reflect_right(ctx, rooms, p, part(beside, columns, 0), m - k - columns);
    }
    free(p);
    free(v);
    free(rooms);
    return flis_ok(ctx);
}

/* Applies the reflection (tau, v [count]) from the right to the columns j.. of rows first to last of the band. */
static void band_right(double *band, size_t first, size_t last, size_t j, const double *v, double tau, size_t count)
{
    for (size_t i = first; i <= last; i++) {
        double *x = band + i * WIDTH + PANEL + j - i;
        add_scaled(x, -tau * dot(x, v, count), v, count);
    }
}

/* The same from the left to rows i.. and columns first to last. */
static void band_left(double *band, size_t i, size_t first, size_t last, const double *v, double tau, size_t count)
{
    double sum[WIDTH] = {0};
    const size_t width = last - first + 1;
    for (size_t k = 0; k < count; k++) add_scaled(sum, v[k], band + (i + k) * WIDTH + PANEL + first - i - k, width);
    for (size_t k = 0; k < count; k++)
        add_scaled(band + (i + k) * WIDTH + PANEL + first - i - k, -tau * v[k], sum, width);
}

/* Bidiagonal form of the band (Lang 1996): a reflection from the right clears row k beyond its second entry and fills a triangle
   below the diagonal; one from the left clears that triangle's first column and fills one beyond the band, PANEL columns
   further right, and so on to the end. */
static void chase(double *band, size_t n, double *diagonal, double *above)
{
    double v[PANEL];
    for (size_t k = 0; k + 1 < n; k++) {
        size_t row = k; /* whose entries beyond the first of columns j.. are cleared */
        for (size_t j = k + 1; j < n; j += PANEL) {
            const size_t count = least(PANEL, n - j);
            double *x = band + row * WIDTH + PANEL + j - row;
            memcpy(v, x, count * sizeof *v);
            double tau = reflector(v, v + 1, count - 1);
            x[0] = v[0], v[0] = 1;
            memset(x + 1, 0, (count - 1) * sizeof *x);
            if (tau != 0) band_right(band, row + 1, j + count - 1, j, v, tau, count);
            for (size_t i = 0; i < count; i++) v[i] = band[(j + i) * WIDTH + PANEL - i];
            tau = reflector(v, v + 1, count - 1);
            band[j * WIDTH + PANEL] = v[0], v[0] = 1;
            for (size_t i = 1; i < count; i++) band[(j + i) * WIDTH + PANEL - i] = 0;
            if (tau != 0) band_left(band, j, j + 1, least(j + count - 1 + PANEL, n - 1), v, tau, count);
            row = j;
        }
    }
    for (size_t i = 0; i < n; i++) diagonal[i] = band[i * WIDTH + PANEL], above[i] = band[i * WIDTH + PANEL + 1];
}

/* One implicit QL step with Wilkinson's shift on the block l..m of the symmetric tridiagonal (d, e), e[i] beside d[i] and
   d[i + 1]. Bowdler, Martin, Reinsch, Wilkinson (1968), without vectors. */
static void ql_step(double *d, double *e, size_t l, size_t m)
{
    double g = (d[l + 1] - d[l]) / (2 * e[l]), r = sqrt(g * g + 1), s = 1, c = 1, p = 0;
    g = d[m] - d[l] + e[l] / (g + (g < 0 ? -r : r));
    for (size_t i = m; i-- > l;) {
        double f = s * e[i], b = c * e[i];
        r = sqrt(f * f + g * g);
        e[i + 1] = r;
        if (r == 0) {
            d[i + 1] -= p;
            e[m] = 0;
            return;
        }
        s = f / r, c = g / r;
        g = d[i + 1] - p;
        r = (d[i] - g) * s + 2 * c * b;
        p = s * r;
        d[i + 1] = g + p;
        g = c * r - b;
    }
    d[l] -= p;
    e[l] = g;
    e[m] = 0;
}

/* Eigenvalues of a symmetric tridiagonal matrix, into d [n]; e [n], whose last entry is scratch. Their errors are rounding
   errors of the largest entry. */
static bool tridiagonal_eigenvalues(flis_ctx *ctx, double *d, double *e, size_t n)
{
    double largest = 0;
    e[n - 1] = 0;
    for (size_t i = 0; i < n; i++) {
        double x = fabs(d[i]), y = fabs(e[i]);
        largest = x > largest ? x : largest, largest = y > largest ? y : largest;
    }
    for (size_t l = 0; l < n; l++)
        for (int steps = 0;; steps++) {
            size_t m = l;
            while (m + 1 < n && fabs(e[m]) > 0x1p-53 * largest) m++;
            if (m == l) break;
            if (steps == 200) return flis_fail(ctx, "the eigenvalues did not converge");
            ql_step(d, e, l, m);
        }
    return true;
}

/* The singular values of a bidiagonal matrix are the positive eigenvalues of the tridiagonal one with zeros on the diagonal and
   d0 e0 d1 e1 … beside it (Golub and Kahan 1965). */
bool nuclear_norm(flis_ctx *ctx, double *a, size_t m, size_t n, double *out)
{
    double *band = flis_alloc(ctx, n, WIDTH * sizeof *band), *d = flis_alloc(ctx, n, 6 * sizeof *d), *e = d + n,
           *zero = e + n, *beside = zero + 2 * n;
    bool good = band && d && reduce_to_band(ctx, a, m, n, band);
    if (good) {
        chase(band, n, d, e);
        for (size_t i = 0; i < n; i++) beside[2 * i] = d[i], beside[2 * i + 1] = i + 1 < n ? e[i] : 0;
        good = tridiagonal_eigenvalues(ctx, zero, beside, 2 * n);
        *out = 0;
        for (size_t i = 0; i < 2 * n; i++) *out += fabs(zero[i]) / 2;
    }
    free(band);
    free(d);
    return good;
}
