/* diagnose_factors.c - hypotheses: factors, offsets and biases; constants; rounding. */
#include "tools/compare/diagnose.h"

#include <stdlib.h>
#include <string.h>

/* Sums of one group of values: e = o - r against r. */
typedef struct fit {
    double n, r, e, rr, re, ee;
} fit;

static double offset_left(const fit *f)
{
    return f->ee - f->e * f->e / f->n;
}

static double factor_left(const fit *f)
{
    return f->rr > 0 ? f->ee - f->re * f->re / f->rr : f->ee;
}

static double affine_left(const fit *f, double *slope)
{
    const double rr = f->rr - f->r * f->r / f->n, re = f->re - f->r * f->e / f->n;
    *slope = rr > 1e-12 * f->rr ? re / rr : 0;
    return offset_left(f) - *slope * re;
}

static bool near(double a, double b)
{
    return fabs(a - b) <= 2e-4 * fabs(b);
}

/* Factors that have a meaning. */
static const struct {
    double value;
    const char *text;
} KNOWN[] = {{0.18215, "0.18215, the autoencoder's scale factor: multiplied where REF is not, or divided twice"},
             {1 / 0.18215, "1/0.18215, the autoencoder's scale factor: not multiplied, or divided once too often"},
             {255.0 / 256, "255/256"},
             {256.0 / 255, "256/255"},
             {255, "255"},
             {1.0 / 255, "1/255"},
             {127.5, "127.5"},
             {1 / 127.5, "1/127.5"},
             {1.44269504, "log2(e): exp2 for exp"},
             {0.69314718, "ln 2: exp for exp2"},
             {1.702, "1.702"}};

/* What a factor may be: out gets " = 255/256 (…)" or nothing. */
static const char *factor_text(const subject *s, double a, char out[120])
{
    const double size = fabs(a);
    const char *sign = a < 0 ? "-" : "";
    *out = 0;
    if (near(a, -1)) snprintf(out, 120, " = -1: a sign");
    for (size_t i = 0; !*out && i < sizeof KNOWN / sizeof *KNOWN; i++)
        if (near(size, KNOWN[i].value)) snprintf(out, 120, " = %s%s", sign, KNOWN[i].text);
    for (int d = 2; !*out && d <= 4096; d++) {
        bool of_shape = d <= 12;
        for (int i = 0; i < s->rank; i++) of_shape = of_shape || s->dim[i] == (size_t)d;
        of_shape = of_shape || d == 40 || d == 80 || d == 160 || d == 64 || d == 320 || d == 640 || d == 1280 ||
                   d == 512 || d == 768;
        if (!of_shape && d > 200) continue;
        if (near(size, sqrt(d)) && fabs(sqrt(d) - floor(sqrt(d))) > 0)
            snprintf(out, 120, " = %ssqrt(%d): attention's scale (d^-0.5) missing", sign, d);
        else if (near(size, 1 / sqrt(d)) && fabs(sqrt(d) - floor(sqrt(d))) > 0)
            snprintf(out, 120, " = %s1/sqrt(%d): attention's scale (d^-0.5) applied twice", sign, d);
        else if (near(size, d)) snprintf(out, 120, " = %s%d", sign, d);
        else if (near(size, 1.0 / d)) snprintf(out, 120, " = %s1/%d", sign, d);
    }
    return out;
}

static void constant_found(subject *s, const fit *f)
{
    char named[120];
    double slope;
    const double factor = f->rr > 0 ? 1 + f->re / f->rr : 0, offset = f->e / f->n, affine = affine_left(f, &slope);
    const double constant = (f->e - slope * f->r) / f->n;
    if (f->rr > 0 && fabs(factor) > 1e-12)
        consider(s, factor_left(f) / s->energy, 1, SIMPLE, "a constant factor of %.6g%s", factor,
                 factor_text(s, factor, named));
    consider(s, offset_left(f) / s->energy, 1, SIMPLE, "a constant offset of %.6g%s", offset,
             near(offset, 1)    ? " (an index or a timestep too high by one?)"
             : near(offset, -1) ? " (an index or a timestep too low by one?)"
                                : "");
    if (fabs(slope + 1) < 1e-9) return;
    const char *what = near(slope + 1, 0.5) && near(constant, 0.5)       ? ": [0, 1] where REF is [-1, 1]"
                       : near(slope + 1, 2) && near(constant, -1)        ? ": [-1, 1] where REF is [0, 1]"
                       : near(slope + 1, -1) && near(constant, 1)        ? ": inverted"
                       : near(slope + 1, 127.5) && near(constant, 127.5) ? ": bytes where REF is [-1, 1]"
                                                                         : "";
    consider(s, affine / s->energy, 2, FITTED2, "OTHER = %.6g x REF %+.6g%s", slope + 1, constant, what);
}

/* The group that a value is in: its index along each axis of the set, an axis counted in steps of `step`. */
static size_t group_of(const subject *s, size_t flat, unsigned set, const size_t *step)
{
    size_t group = 0;
    for (int i = 0; i < s->rank; i++)
        if (set & 1u << i) group = group * ((s->dim[i] + step[i] - 1) / step[i]) + index_of(s, flat, i) / step[i];
    return group;
}

typedef struct grouping { /* of the values by their index along some axes */
    unsigned set;
    size_t step[FLIS_MAX_DIMS], count;
    char name[96];
} grouping;

static void grouping_found(subject *s, const grouping *g, const fit *f)
{
    double offset = 0, factor = 0, affine = 0, low = HUGE_VAL, high = -HUGE_VAL, slope;
    size_t groups = 0;
    for (size_t i = 0; i < g->count; i++) {
        if (!(f[i].n > 0)) continue;
        groups++;
        offset += offset_left(&f[i]);
        factor += factor_left(&f[i]);
        affine += affine_left(&f[i], &slope);
        if (!(f[i].rr > 0)) continue;
        low = fmin(low, 1 + f[i].re / f[i].rr);
        high = fmax(high, 1 + f[i].re / f[i].rr);
    }
    if (groups < 2 || s->n < 3 * groups) return;
    const bool close = low > 0.98 && high < 1.02;
    consider(s, offset / s->energy, groups, FITTED,
             "an error that is constant per %s: a bias, or something added there, is missing "
             "or wrong",
             g->name);
    consider(s, factor / s->energy, groups, FITTED2, "a factor per %s, %.6g to %.6g%s", g->name, low, high,
             close ? ": a norm with another eps or variance"
                   : ": a norm, its weight, or a softmax over something else");
    consider(s, affine / s->energy, 2 * groups, NUMEROUS, "factor and offset per %s%s", g->name,
             close ? ", factors near 1: a norm with another eps or variance"
                   : ": a norm of something else, or its weight and bias");
}

static bool try_grouping(subject *s, const grouping *g)
{
    fit *f = flis_alloc(&s->c->ctx, g->count, sizeof *f);
    for (size_t i = 0; f && i < s->n; i++) {
        fit *at = &f[g->set ? group_of(s, i, g->set, g->step) : 0];
        const double r = s->r[i], e = s->o[i] - r;
        at->n++;
        at->r += r;
        at->e += e;
        at->rr += r * r;
        at->re += r * e;
        at->ee += e * e;
    }
    if (f && g->set) grouping_found(s, g, f);
    else if (f) constant_found(s, f);
    free(f);
    return flis_ok(&s->c->ctx);
}

/* All values; per index of each axis; per sample and index; per row (all axes but the last); per group of a norm. */
void try_groupings(subject *s)
{
    grouping g = {.count = 1};
    for (int i = 0; i < s->rank; i++) g.step[i] = 1;
    if (!try_grouping(s, &g)) return;
    for (unsigned set = 1; set < 1u << s->rank; set++) {
        const unsigned rows = (1u << (s->rank - 1)) - 1;
        const bool one = !(set & (set - 1)),
                   with_first = s->dim[0] > 1 && set & 1 && !((set & ~1u) & ((set & ~1u) - 1));
        if (!one && !with_first && set != rows) continue;
        g.set = set;
        g.count = 1;
        size_t used = 0;
        *g.name = 0;
        for (int i = 0; i < s->rank; i++) {
            if (!(set & 1u << i)) continue;
            g.count *= s->dim[i];
            if (s->dim[i] > 1 && used < sizeof g.name)
                used += (size_t)snprintf(g.name + used, sizeof g.name - used, "%sindex of %s", used ? " and " : "",
                                         axis_name(s, i));
        }
        if (g.count > 1 && !try_grouping(s, &g)) return;
    }
    const int channels = s->rank == 4 ? 1 : s->rank - 1;
    if (s->rank < 2 || s->dim[channels] % 32 || s->dim[channels] == 32) return;
    g.set = 1u | 1u << channels;
    g.step[channels] = s->dim[channels] / 32;
    g.count = s->dim[0] * 32;
    snprintf(g.name, sizeof g.name, "group of %zu channels", g.step[channels]);
    try_grouping(s, &g);
}

/* ---- Constants, rounding ------------------------------------------------------------------------------------------- */

void try_constant(subject *s)
{
    bool constant = true, empty_row = false;
    for (size_t i = 1; constant && i < s->n; i++) constant = s->o[i] == s->o[0];
    if (constant && s->n > 1 && s->o[0] == 0) consider(s, 0, 0, PLAIN, "all zeros: never written?");
    else if (constant && s->n > 1) consider(s, 0, 0, PLAIN, "the same value everywhere, %.6g", s->o[0]);
    const size_t row = s->rank ? s->dim[s->rank - 1] : 1;
    size_t zero_rows = 0, rows = 0;
    double covered = 0;
    for (size_t i = 0; row > 1 && i < s->n; i += row, rows++) {
        double error = 0;
        bool zeros = true;
        for (size_t k = 0; k < row; k++) {
            zeros = zeros && s->o[i + k] == 0;
            error += (s->o[i + k] - s->r[i + k]) * (s->o[i + k] - s->r[i + k]);
        }
        zero_rows += zeros;
        empty_row = empty_row || zeros;
        if (zeros) covered += error;
    }
    if (empty_row && zero_rows < rows)
        consider(s, 1 - covered / s->energy, 0, SIMPLE, "%zu of %zu rows are all zeros: not everything was written",
                 zero_rows, rows);
}

/* Bytes and other integers one off: truncated or rounded. */
void try_integers(subject *s)
{
    size_t up = 0, down = 0, other = 0;
    for (size_t i = 0; i < s->n; i++) {
        const double e = s->o[i] - s->r[i];
        if (s->r[i] != floor(s->r[i]) || s->o[i] != floor(s->o[i])) return;
        up += e == 1;
        down += e == -1;
        other += e != 0 && e != 1 && e != -1;
    }
    const size_t wrong = up + down + other;
    double two_values = 0;
    for (size_t i = 0; i < s->n; i++) two_values += s->r[i] > 1 || s->r[i] < 0;
    if (!wrong || two_values == 0 || wrong == s->n) return;
    if (up > 20 * (down + other))
        consider(s, (double)(down + other) / (double)wrong, 0, PLAIN,
                 "rounded instead of truncated: %zu of %zu values are one higher", up, s->n);
    else if (down > 20 * (up + other))
        consider(s, (double)(up + other) / (double)wrong, 0, PLAIN,
                 "truncated instead of rounded: %zu of %zu values are one lower", down, s->n);
}

/* Whether every value of x is a number of the narrow format `kind` (0 and 1, which every format has, prove nothing). */
static bool all_fit(const double *x, size_t n, int kind)
{
    size_t proper = 0;
    for (size_t i = 0; i < n; i++) {
        const float f = (float)x[i];
        float back = f;
        if (kind == 0) back = flis_half_to_float(flis_float_to_half(f));
        else if (kind == 1) back = flis_bf16_to_float(flis_float_to_bf16(f));
        else {
            uint32_t bits;
            memcpy(&bits, &f, sizeof bits);
            bits &= 0xffffe000u;
            memcpy(&back, &bits, sizeof back);
        }
        if ((double)back != x[i]) return false;
        proper += x[i] != 0 && x[i] != 1;
    }
    return proper > 8;
}

const char *format_of(const subject *s)
{
    static const char *const formats[] = {"fp16", "bf16", "tf32"};
    for (int kind = 0; kind < 3; kind++)
        if (all_fit(s->o, s->n, kind)) return all_fit(s->r, s->n, kind) ? NULL : formats[kind];
    return NULL;
}
