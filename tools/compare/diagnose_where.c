/* diagnose_where.c - where in a tensor the error is, and which values are not finite. */
#include "tools/compare/diagnose.h"

#include <stdlib.h>

void not_finite_found(const subject *s, report *out)
{
    size_t bad = 0, nan = 0, over_half = 0, over_half_bad = 0, masked = 0, rows = 0, whole_rows = 0, in_whole = 0;
    const size_t row = s->rank ? s->dim[s->rank - 1] : 1;
    for (size_t i = 0; i < s->n; i++) {
        const bool is_bad = !finite_value(s->o[i]);
        bad += is_bad;
        nan += s->o[i] != s->o[i];
        over_half += fabs(s->r[i]) > 65504;
        over_half_bad += is_bad && fabs(s->r[i]) > 65504;
        masked += is_bad && s->o[i] < 0 && s->r[i] <= -MASKED;
    }
    for (size_t i = 0; row && i < s->n; i += row, rows++) {
        size_t here = 0;
        for (size_t k = 0; k < row; k++) here += !finite_value(s->o[i + k]);
        whole_rows += here == row;
        in_whole += here == row ? row : 0;
    }
    if (!bad) say(out, "  looks like: REF itself is not finite here\n");
    else if (bad == s->n) say(out, "  looks like: nothing but %s\n", nan == bad ? "NaN" : nan ? "NaN and Inf" : "Inf");
    else if (masked == bad)
        say(out, "  looks like: masked scores are -Inf where REF has -max (a row that is wholly masked becomes NaN)\n");
    else if (over_half_bad == bad && over_half == bad)
        say(out, "  looks like: overflow of fp16, at the %zu values that REF has beyond 65504 (explains all of them)\n",
            bad);
    else if (row > 1 && whole_rows && in_whole == bad)
        say(out,
            "  looks like: %zu of %zu rows are entirely NaN or Inf: a softmax of a row that is wholly masked, or a "
            "division by 0\n",
            whole_rows, rows);
    else say(out, "  %zu of %zu values are NaN, %zu Inf: no pattern recognised\n", nan, s->n, bad - nan);
}

/* Where along an axis the error is. */
static void locate_along(const subject *s, int axis, double *sum, report *out)
{
    const size_t dim = s->dim[axis];
    size_t first = dim, last = 0, wrong = 0;
    for (size_t i = 0; i < dim; i++) sum[i] = 0;
    for (size_t i = 0; i < s->n; i++) sum[index_of(s, i, axis)] += (s->o[i] - s->r[i]) * (s->o[i] - s->r[i]);
    for (size_t i = 0; i < dim; i++) {
        if (!(sum[i] > 1e-9 * s->energy / (double)dim)) continue;
        first = first == dim ? i : first;
        last = i;
        wrong++;
    }
    const char *name = axis_name(s, axis);
    if (!wrong || wrong == dim || dim < 2) return;
    if (wrong == dim - 1 && last == dim - 2)
        say(out, "  where: every index of %s but the last%s\n", name,
            axis == 1 && dim == FLIS_TOKENS ? ": a causal mask is missing or wrong (the last token sees all either way)"
                                            : "");
    else if (wrong == dim - 1 && first == 1)
        say(out, "  where: every index of %s but 0%s\n", name,
            axis == 1 && dim == FLIS_TOKENS ? " (which sees itself alone)" : "");
    else if (wrong == 1) say(out, "  where: only index %zu of %s (of %zu)\n", first, name, dim);
    else if (wrong == last - first + 1) say(out, "  where: only %zu..%zu of %s (of %zu)\n", first, last, name, dim);
    else if (wrong <= 8) {
        say(out, "  where: only");
        for (size_t i = 0; i < dim; i++)
            if (sum[i] > 1e-9 * s->energy / (double)dim) say(out, " %zu", i);
        say(out, " of %s (of %zu)\n", name, dim);
    } else if (wrong * 2 <= dim) say(out, "  where: %zu of %zu indices of %s, first %zu\n", wrong, dim, name, first);
}

/* Error at the picture's border alone, or mostly. */
static void locate_border(const subject *s, report *out)
{
    double border = 0, after = 0;
    size_t pixels = 0;
    if (s->rank != 4 || s->dim[2] < 6 || s->dim[3] < 6) return;
    for (size_t i = 0; i < s->n; i++) {
        const size_t y = index_of(s, i, 2), x = index_of(s, i, 3);
        const double e = (s->o[i] - s->r[i]) * (s->o[i] - s->r[i]);
        const bool low = y == 0 || x == 0, high = y + 1 == s->dim[2] || x + 1 == s->dim[3];
        pixels += low || high;
        border += low || high ? e : 0;
        after += high && !low ? e : 0;
    }
    if (border > 0.9 * s->energy && pixels * 10 < 7 * s->n)
        say(out, "  where: %.1f %% of the error at the border%s: padding\n", 100 * border / s->energy,
            after > 0.9 * s->energy ? ", right and below" : "");
}

void locate_error(const subject *s, report *out)
{
    size_t longest = 1;
    for (int i = 0; i < s->rank; i++) longest = s->dim[i] > longest ? s->dim[i] : longest;
    double *sum = flis_alloc(&s->c->ctx, longest, sizeof *sum);
    for (int i = 0; sum && i < s->rank; i++) locate_along(s, i, sum, out);
    locate_border(s, out);
    free(sum);
}
