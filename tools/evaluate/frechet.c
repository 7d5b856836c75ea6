/* frechet.c - Fréchet distance of two sets of features (Heusel et al. 2017, equation 6):
 *
 *   |m1 - m2|^2 + tr(S1 + S2 - 2 (S1^1/2 S2 S1^1/2)^1/2), S with N - 1
 *
 * With S = F'F for both, the last trace is the sum of the singular values of F1 F2'. Of samples, F is the centred samples, or
 * their R of X = Q R where there are more samples than dimensions, over sqrt(N - 1). No matrix is squared, so N < d works, and
 * equal sets have distance 0 up to rounding. Of a covariance, F comes from Cholesky's decomposition.
 */
#include "tools/evaluate/evaluate.h"
#include "tools/evaluate/matrix.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* How far, relative to the largest variance, a covariance may be from one: it may have been rounded to float. */
static const double CLOSE = 1e-6;

void gaussian_free(gaussian *g)
{
    free(g->mean);
    free(g->factor);
    memset(g, 0, sizeof *g);
}

/* The upper triangle of the centred samples' QR decomposition; x [n][d]. Work of seconds and more shows its progress. */
static double *triangle_of(flis_ctx *ctx, double *x, size_t n, size_t d)
{
    enum { ROWS = 512 };
    const bool show = ctx->progress && (double)n * (double)d * (double)d > 0x1p33;
    double *r = flis_alloc(ctx, d, d * sizeof *r);
    for (size_t i = 0; r && i < n && flis_ok(ctx); i += ROWS) {
        const size_t rows = n - i < ROWS ? n - i : ROWS;
        if (qr_add(ctx, r, x + i * d, d, rows) && show) ctx->progress(ctx->progress_user, "samples", i + rows, n);
    }
    return r;
}

bool gaussian_of_samples(flis_ctx *ctx, double *x, size_t n, size_t d, gaussian *out)
{
    *out = (gaussian){.d = d, .rank = n < d ? n : d};
    if (n < 2) return flis_fail(ctx, "got %zu sample, wanted at least 2", n);
    out->mean = flis_alloc(ctx, d, sizeof *out->mean);
    if (!out->mean) return false;
    for (size_t i = 0; i < n; i++) add_scaled(out->mean, 1, x + i * d, d);
    for (size_t j = 0; j < d; j++) out->mean[j] /= (double)n;
    for (size_t i = 0; i < n; i++) add_scaled(x + i * d, -1, out->mean, d);
    if (n > d) out->factor = triangle_of(ctx, x, n, d);
    else if ((out->factor = flis_alloc(ctx, n, d * sizeof *x))) memcpy(out->factor, x, n * d * sizeof *x);
    for (size_t i = 0; out->factor && i < out->rank * d; i++) out->factor[i] /= sqrt((double)(n - 1));
    if (!flis_ok(ctx)) gaussian_free(out);
    return flis_ok(ctx);
}

/* Fails where a covariance has an entry that is none, or is not symmetric. *largest: its largest variance. */
static bool check_covariance(flis_ctx *ctx, const char *name, const double *s, size_t d, double *largest)
{
    *largest = 0;
    for (size_t i = 0; i < d; i++) *largest = s[i * d + i] > *largest ? s[i * d + i] : *largest;
    for (size_t i = 0; i < d; i++)
        for (size_t j = 0; j <= i; j++) {
            const double a = s[i * d + j], b = s[j * d + i];
            if (i == j && a < 0)
                return flis_fail(ctx, "%s: is no covariance: the variance of dimension %zu is %g", name, i, a);
            if (fabs(a - b) > CLOSE * *largest)
                return flis_fail(ctx,
                                 "%s: is no covariance: it is not symmetric: %g in row %zu, column %zu, and %g in row "
                                 "%zu, column %zu",
                                 name, a, i, j, b, j, i);
        }
    return true;
}

/* A row of F from the pivot's row of what is left of S, of which `rows` rows of F, f, are not subtracted yet; left: the remaining
   variances, -1 where the dimension was the pivot of an earlier row. */
static bool factor_row(flis_ctx *ctx, const char *name, const double *s, const double *f, size_t rows, size_t pivot,
                       double largest, double *left, size_t d, double *row)
{
    const double variance = left[pivot], root = sqrt(variance);
    memcpy(row, s, d * sizeof *row);
    for (size_t i = 0; i < rows; i++) add_scaled(row, -f[i * d + pivot], f + i * d, d);
    row[pivot] = variance, left[pivot] = -1;
    for (size_t i = 0; i < d; i++) {
        /* Cauchy and Schwarz: a covariance is at most the root of both variances; more by rounding is cut off. */
        const double most = left[i] > 0 ? sqrt(left[i] * variance) : i == pivot ? variance : 0;
        if (left[i] >= 0 && fabs(row[i]) > most + CLOSE * largest)
            return flis_fail(ctx, "%s: is no covariance: it has a negative eigenvalue", name);
        row[i] = (row[i] > most ? most : row[i] < -most ? -most : row[i]) / root;
        if (left[i] > 0 && (left[i] -= row[i] * row[i]) < 0) left[i] = 0;
    }
    return true;
}

/* Cholesky's decomposition with diagonal pivoting (Higham 2002, 10.3): each step takes the largest remaining variance; it ends when
   that is rounding error. Of a matrix of rank r, F has r rows. `s` is overwritten by what is left of it, every BLOCK rows. */
static bool factorise(flis_ctx *ctx, const char *name, double *s, double *left, gaussian *g)
{
    enum { BLOCK = 32 };
    const size_t d = g->d;
    double largest;
    if (!check_covariance(ctx, name, s, d, &largest)) return false;
    for (size_t i = 0; i < d; i++) left[i] = s[i * d + i];
    for (size_t first = 0; g->rank < d; g->rank++) {
        size_t pivot = 0;
        for (size_t i = 1; i < d; i++) pivot = left[i] > left[pivot] ? i : pivot;
        if (!(left[pivot] > (double)d * 0x1p-52 * largest)) break;
        if (g->rank == first + BLOCK) {
            const matrix block = rows_of(g->factor + first * d, d);
            if (!flis_poll(ctx) || !product_add(ctx, d, d, BLOCK, -1, transposed(block), block, rows_of(s, d))) break;
            first += BLOCK;
        }
        if (!factor_row(ctx, name, s + pivot * d, g->factor + first * d, g->rank - first, pivot, largest, left, d,
                        g->factor + g->rank * d))
            break;
    }
    return flis_ok(ctx);
}

bool gaussian_of_covariance(flis_ctx *ctx, const char *name, const double *mean, double *covariance, size_t d,
                            gaussian *out)
{
    *out = (gaussian){.d = d, .mean = flis_alloc(ctx, d, sizeof *mean), .factor = flis_alloc(ctx, d, d * sizeof *mean)};
    double *left = flis_alloc(ctx, d, sizeof *left);
    if (flis_ok(ctx)) {
        memcpy(out->mean, mean, d * sizeof *mean);
        factorise(ctx, name, covariance, left, out);
    }
    free(left);
    if (!flis_ok(ctx)) gaussian_free(out);
    return flis_ok(ctx);
}

static double squares(const double *r, size_t count)
{
    double s = 0;
    for (size_t i = 0; i < count; i++) s += r[i] * r[i];
    return s;
}

bool gaussian_distance(flis_ctx *ctx, const gaussian *a, const gaussian *b, double *out)
{
    if (a->rank < b->rank) return gaussian_distance(ctx, b, a, out);
    const size_t d = a->d, m = a->rank, n = b->rank;
    double *p = n ? flis_alloc(ctx, m, n * sizeof *p) : NULL, cross = 0, between = 0;
    const matrix f1 = rows_of(a->factor, d), f2 = transposed(rows_of(b->factor, d));
    if (p && product_add(ctx, m, n, d, 1, f1, f2, rows_of(p, n))) nuclear_norm(ctx, p, m, n, &cross);
    for (size_t i = 0; i < d; i++) between += (a->mean[i] - b->mean[i]) * (a->mean[i] - b->mean[i]);
    *out = between + squares(a->factor, m * d) + squares(b->factor, n * d) - 2 * cross;
    if (*out < 0) *out = 0; /* rounding */
    free(p);
    return flis_ok(ctx);
}

bool frechet_distance(flis_ctx *ctx, double *a, size_t na, double *b, size_t nb, size_t d, double *out)
{
    gaussian g = {0}, h = {0};
    if (na < 2 || nb < 2) return flis_fail(ctx, "got %zu and %zu samples, wanted at least 2 of each", na, nb);
    const bool good = gaussian_of_samples(ctx, a, na, d, &g) && gaussian_of_samples(ctx, b, nb, d, &h) &&
                      gaussian_distance(ctx, &g, &h, out);
    gaussian_free(&g);
    gaussian_free(&h);
    return good;
}
