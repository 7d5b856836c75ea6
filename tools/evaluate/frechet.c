/* frechet.c - Fréchet distance of two sets of features (Heusel et al. 2017, equation 6):
 *
 *   |m1 - m2|^2 + tr(S1 + S2 - 2 (S1^1/2 S2 S1^1/2)^1/2), S with N - 1
 *
 * With X = Q R the centred samples, S = R'R / (N - 1), and the last trace is the sum of the singular values of
 * R1 R2' / sqrt((N1 - 1) (N2 - 1)). No matrix is squared, so N < d works, and equal sets have distance 0 up to rounding.
 */
#include "tools/evaluate/evaluate.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Eight partial sums, so that compilers may use vectors and the result is the same on every machine. */
static double dot(const double *a, const double *b, size_t n)
{
    double s[8] = {0}, rest = 0;
    size_t i = 0;
    for (; i + 8 <= n; i += 8)
        for (int k = 0; k < 8; k++) s[k] += a[i + (size_t)k] * b[i + (size_t)k];
    for (; i < n; i++) rest += a[i] * b[i];
    return ((s[0] + s[4]) + (s[1] + s[5])) + ((s[2] + s[6]) + (s[3] + s[7])) + rest;
}

static void add_scaled(double *y, double k, const double *x, size_t n)
{
    for (size_t i = 0; i < n; i++) y[i] += k * x[i];
}

/* Householder: the reflection that takes (head, x) to (beta, 0) is 1 - tau v v', v = (v0, x). False: x is already zero, or
   both are so small that tau would overflow (with fewer samples than dimensions they are rounding errors only). */
static bool reflector(double head, const double *x, size_t n, double *beta, double *v0, double *tau)
{
    double s = dot(x, x, n);
    if (s == 0 || head * head + s < 0x1p-960) return false;
    *beta = head > 0 ? -sqrt(head * head + s) : sqrt(head * head + s);
    *v0 = head - *beta;
    *tau = 2 / (*v0 * *v0 + s);
    return true;
}

/* R of [R; W]: adds m more rows to a QR decomposition. Column-major: r [d][d], upper triangular, entry
   (i, j) at r[j d + i]; w [d][m], overwritten. */
static void qr_add(double *r, double *w, size_t d, size_t m)
{
    for (size_t k = 0; k < d; k++) {
        double beta, v0, tau, *v = w + k * m;
        if (!reflector(r[k * d + k], v, m, &beta, &v0, &tau)) continue;
        r[k * d + k] = beta;
#ifdef _OPENMP
#pragma omp parallel for if ((d - k) * m > 65536)
#endif
        for (size_t j = k + 1; j < d; j++) {
            double *x = w + j * m, t = tau * (v0 * r[j * d + k] + dot(v, x, m));
            r[j * d + k] -= t * v0;
            add_scaled(x, -t, v, m);
        }
    }
}

/* R of the centred samples x [n][d]; their mean goes to mean [d]. NULL: out of memory. */
static double *centred_qr(flis_ctx *ctx, double *x, size_t n, size_t d, double *mean)
{
    enum { ROWS = 256 };
    double *r = flis_alloc(ctx, d * d, sizeof *r), *w = flis_alloc(ctx, d * ROWS, sizeof *w);
    memset(mean, 0, d * sizeof *mean);
    for (size_t i = 0; i < n; i++) add_scaled(mean, 1, x + i * d, d);
    for (size_t j = 0; j < d; j++) mean[j] /= (double)n;
    for (size_t i = 0; i < n && r && w; i += ROWS) {
        size_t m = n - i < ROWS ? n - i : ROWS;
        for (size_t k = 0; k < m; k++)
            for (size_t j = 0; j < d; j++) w[j * m + k] = x[(i + k) * d + j] - mean[j];
        qr_add(r, w, d, m);
    }
    free(w);
    if (!flis_ok(ctx)) {
        free(r);
        return NULL;
    }
    return r;
}

/* Golub and Kahan (1965): reflections from both sides reduce a [n][m] (column-major, m >= n) to `diagonal` [n] and
   `above` [n - 1]. room: m values. */
static void bidiagonalise(double *a, size_t m, size_t n, double *diagonal, double *above, double *room)
{
    for (size_t k = 0; k < n; k++) {
        double beta, v0, tau, *v = a + k * m + k;
        diagonal[k] = v[0];
        if (reflector(v[0], v + 1, m - k - 1, &beta, &v0, &tau)) {
            diagonal[k] = beta, v[0] = v0;
#ifdef _OPENMP
#pragma omp parallel for if ((n - k) * (m - k) > 65536)
#endif
            for (size_t j = k + 1; j < n; j++) add_scaled(a + j * m + k, -tau * dot(v, a + j * m + k, m - k), v, m - k);
        }
        if (k + 1 == n) return;
        /* The tail of the row, copied to be contiguous; then y = A v and A -= tau y v'. */
        size_t tail = n - k - 1, below = m - k - 1;
        for (size_t j = 0; j < tail; j++) room[j] = a[(k + 1 + j) * m + k];
        above[k] = room[0];
        if (!reflector(room[0], room + 1, tail - 1, &beta, &v0, &tau)) continue;
        above[k] = beta, room[0] = v0;
        double *y = a + k * m + k + 1; /* column k is no longer needed */
        memset(y, 0, below * sizeof *y);
        for (size_t j = 0; j < tail; j++) add_scaled(y, room[j], a + (k + 1 + j) * m + k + 1, below);
        for (size_t j = 0; j < tail; j++) add_scaled(a + (k + 1 + j) * m + k + 1, -tau * room[j], y, below);
    }
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

/* Sum of the singular values of a [n][m] (overwritten; column-major). Those of a bidiagonal matrix are the positive
   eigenvalues of the tridiagonal one with zeros on the diagonal and d0 e0 d1 e1 … beside it. */
static bool nuclear_norm(flis_ctx *ctx, double *a, size_t m, size_t n, double *out)
{
    double *room = flis_alloc(ctx, m + 6 * n, sizeof *room), *d = room + m, *e = d + n, *zero = e + n,
           *beside = zero + 2 * n;
    if (!room) return false;
    bidiagonalise(a, m, n, d, e, room);
    for (size_t i = 0; i < n; i++) beside[2 * i] = d[i], beside[2 * i + 1] = i + 1 < n ? e[i] : 0;
    bool good = tridiagonal_eigenvalues(ctx, zero, beside, 2 * n);
    *out = 0;
    for (size_t i = 0; i < 2 * n; i++) *out += fabs(zero[i]) / 2;
    free(room);
    return good;
}

/* R1 R2', or its transpose where that is the taller one: the singular values are the same. Rows of R beyond `n` samples are 0. */
static double *product(flis_ctx *ctx, const double *r1, size_t n1, const double *r2, size_t n2, size_t d, size_t *m,
                       size_t *n)
{
    size_t h1 = n1 < d ? n1 : d, h2 = n2 < d ? n2 : d;
    if (h1 < h2) return product(ctx, r2, n2, r1, n1, d, m, n);
    double *p = flis_alloc(ctx, h1 * h2, sizeof *p);
    *m = h1, *n = h2;
    if (!p) return NULL;
#ifdef _OPENMP
#pragma omp parallel for if (h1 * h2 > 4096)
#endif
    for (size_t j = 0; j < h2; j++)
        for (size_t k = j; k < d; k++) add_scaled(p + j * h1, r2[k * d + j], r1 + k * d, k + 1 < h1 ? k + 1 : h1);
    return p;
}

static double squares(const double *r, size_t count)
{
    double s = 0;
    for (size_t i = 0; i < count; i++) s += r[i] * r[i];
    return s;
}

bool frechet_distance(flis_ctx *ctx, double *a, size_t na, double *b, size_t nb, size_t d, double *out)
{
    if (na < 2 || nb < 2) return flis_fail(ctx, "got %zu and %zu samples, wanted at least 2 of each", na, nb);
    double *mean = flis_alloc(ctx, d, 2 * sizeof *mean), *r1 = mean ? centred_qr(ctx, a, na, d, mean) : NULL;
    double *r2 = r1 ? centred_qr(ctx, b, nb, d, mean + d) : NULL;
    size_t m = 0, n = 0;
    double *p = r2 ? product(ctx, r1, na, r2, nb, d, &m, &n) : NULL, cross = 0, between = 0;
    bool good = p && nuclear_norm(ctx, p, m, n, &cross);
    if (good) {
        for (size_t i = 0; i < d; i++) between += (mean[i] - mean[d + i]) * (mean[i] - mean[d + i]);
        double f1 = (double)(na - 1), f2 = (double)(nb - 1);
        *out = between + squares(r1, d * d) / f1 + squares(r2, d * d) / f2 - 2 * cross / sqrt(f1 * f2);
        if (*out < 0) *out = 0; /* rounding */
    }
    free(mean);
    free(r1);
    free(r2);
    free(p);
    return good;
}
