/* patterns.c - how striped or spotted a region is: the energy of its largest piece at some spatial frequencies. */
#include "tools/evaluate/internal.h"

#include <math.h>
#include <stdlib.h>

/* The largest connected piece of a region: its pixels, and their values on the main axis of its colours, of mean zero. */
typedef struct piece {
    uint8_t *in; /* [height][width] */
    double *value;
    size_t x0, y0, x1, y1;
    double count, total; /* number of pixels; sum of the squared values */
} piece;

static void piece_free(piece *p)
{
    free(p->in);
    free(p->value);
}

/* Marks the piece that contains `start` and returns its size. stack: one entry per pixel of the picture. */
static size_t flood(const region *r, size_t start, uint32_t number, uint32_t *mark, uint32_t *stack)
{
    size_t top = 0, size = 0;
    stack[top++] = (uint32_t)start;
    mark[start] = number;
    while (top) {
        size_t i = stack[--top], x = i % r->width, y = i / r->width;
        const size_t next[4] = {x ? i - 1 : i, x + 1 < r->width ? i + 1 : i, y ? i - r->width : i,
                                y + 1 < r->height ? i + r->width : i};
        size++;
        for (int k = 0; k < 4; k++)
            if (!mark[next[k]] && inside(r, next[k])) mark[next[k]] = number, stack[top++] = (uint32_t)next[k];
    }
    return size;
}

/* The piece's mask and bounds; false: out of memory, or the region has no pixel. */
static bool largest_piece(flis_ctx *ctx, const region *r, piece *p)
{
    size_t n = r->width * r->height, best_size = 0;
    uint32_t *mark = flis_alloc(ctx, n, sizeof *mark), *stack = flis_alloc(ctx, n, sizeof *stack), marks = 0, best = 0;
    for (size_t i = 0; mark && stack && i < n; i++) {
        if (mark[i] || !inside(r, i)) continue;
        size_t size = flood(r, i, ++marks, mark, stack);
        if (size > best_size) best = marks, best_size = size;
    }
    *p = (piece){
        .in = flis_alloc(ctx, n, 1), .value = flis_alloc(ctx, n, sizeof *p->value), .x0 = r->width, .y0 = r->height};
    p->count = (double)best_size;
    for (size_t i = 0; flis_ok(ctx) && i < n; i++) {
        size_t x = i % r->width, y = i / r->width;
        if (!best || mark[i] != best) continue;
        p->in[i] = 1;
        p->x0 = x < p->x0 ? x : p->x0, p->x1 = x + 1 > p->x1 ? x + 1 : p->x1;
        p->y0 = y < p->y0 ? y : p->y0, p->y1 = y + 1;
    }
    free(mark);
    free(stack);
    return flis_ok(ctx) && best;
}

/* Sets the piece's values; the axis comes from power iteration on the covariance of its colours. */
static void main_axis(const region *r, piece *p)
{
    double mean[3] = {0}, s[6] = {0}, v[3] = {0.577, 0.578, 0.576};
    size_t n = r->width * r->height;
    for (size_t i = 0; i < n; i++)
        for (size_t k = 0; k < 3 && p->in[i]; k++) mean[k] += r->rgb[3 * i + k] / p->count;
    for (size_t i = 0; i < n; i++) {
        if (!p->in[i]) continue;
        double a = r->rgb[3 * i] - mean[0], b = r->rgb[3 * i + 1] - mean[1], c = r->rgb[3 * i + 2] - mean[2];
        s[0] += a * a, s[1] += a * b, s[2] += a * c, s[3] += b * b, s[4] += b * c, s[5] += c * c;
    }
    for (int k = 0; k < 40; k++) {
        double x = s[0] * v[0] + s[1] * v[1] + s[2] * v[2], y = s[1] * v[0] + s[3] * v[1] + s[4] * v[2];
        double z = s[2] * v[0] + s[4] * v[1] + s[5] * v[2], length = sqrt(x * x + y * y + z * z) + 1e-30;
        v[0] = x / length, v[1] = y / length, v[2] = z / length;
    }
    for (size_t i = 0; i < n; i++) {
        if (!p->in[i]) continue;
        for (size_t k = 0; k < 3; k++) p->value[i] += (r->rgb[3 * i + k] - mean[k]) * v[k];
        p->total += p->value[i] * p->value[i];
    }
}

/* Share of the variance at the spatial frequency (fx, fy), in cycles per pixel. */
static double energy(const region *r, const piece *p, double fx, double fy)
{
    const double tau = 6.283185307179586;
    double re = 0, im = 0, c1 = flis_cos(tau * fx), s1 = flis_sin(tau * fx);
    for (size_t y = p->y0; y < p->y1; y++) {
        double turn = tau * ((double)p->x0 * fx + (double)y * fy), c = flis_cos(turn), s = flis_sin(turn);
        for (size_t x = p->x0; x < p->x1; x++) {
            double value = p->value[y * r->width + x], next = c * c1 - s * s1;
            re += value * c, im += value * s;
            s = s * c1 + c * s1;
            c = next;
        }
    }
    return p->total > 0 ? 2 * (re * re + im * im) / (p->count * p->total) : 0;
}

bool pattern_features(flis_ctx *ctx, const region *r, double *out)
{
    piece p;
    bool good = largest_piece(ctx, r, &p);
    for (int i = 0; i < PATTERN_FEATURES; i++) out[i] = 0;
    if (good) main_axis(r, &p);
    for (double period = 7; good && period < 14.6; period += 0.5) {
        const double f = 1 / period, a = energy(r, &p, f, 0.625 * f), b = energy(r, &p, f, -0.625 * f),
                     c = energy(r, &p, 0, 1.25 * f);
        const double now[UPRIGHT + 1] = {energy(r, &p, 0.9 * f, 0.45 * f),
                                         a + b + c,
                                         energy(r, &p, 0.9 * f, -0.45 * f),
                                         a,
                                         b,
                                         c,
                                         energy(r, &p, f, 0)};
        for (int i = 0; i <= UPRIGHT; i++) out[i] = now[i] > out[i] ? now[i] : out[i];
        if (period == 10) out[STRIPES_10] = now[STRIPES];
        if (period == 11) out[SPOTS_11] = now[SPOTS];
    }
    piece_free(&p);
    return good;
}
