/* diagnose_order.c - hypotheses: REF's values in another order. Axes (some split in two) permuted, mirrored, rotated, shifted. */
#include "tools/compare/diagnose.h"

#include <string.h>

/* REF's values read in another order: axes (some split in two) permuted and mirrored. OTHER's values are taken as they lie in
   its file, so that a wrong shape with the right values is found too. */

enum { VIEW_RANK = 6 };
typedef struct view {
    int rank;
    size_t dim[VIEW_RANK];
    ptrdiff_t stride[VIEW_RANK], start;
} view;

static double view_at(const subject *s, const view *v, size_t flat)
{
    ptrdiff_t at = v->start;
    for (int i = v->rank; i-- > 0; flat /= v->dim[i]) at += (ptrdiff_t)(flat % v->dim[i]) * v->stride[i];
    return s->r[at];
}

/* Tried at some indices first: most hypotheses are far off. */
static double view_left(const subject *s, const view *v)
{
    double error = 0, sum = 0;
    for (size_t i = 0; i < s->spots; i++) {
        const size_t at = s->spot[i];
        const double d = s->o[at] - view_at(s, v, at), e = s->o[at] - s->r[at];
        sum += d * d;
        error += e * e;
        if (i % 128 == 127 && sum > error) return NEVER;
    }
    if (sum > 0.5 * error) return NEVER;
    for (size_t i = 0; i < s->n; i++) s->q[i] = view_at(s, v, i);
    return left_by(s, s->q);
}

/* REF's axes without those of length 1; `split` of them (-1: none) seen as [f][length / f]. */
typedef struct axes {
    view v;
    int axis[VIEW_RANK]; /* of REF */
    int split;           /* first of the two parts in v; -1: none */
} axes;

static bool axes_make(const subject *s, int split, size_t f, axes *a)
{
    *a = (axes){.split = -1};
    for (int i = 0; i < s->rank; i++) {
        if (s->dim[i] == 1) continue;
        const int parts = i == split ? 2 : 1;
        if (a->v.rank + parts > VIEW_RANK) return false;
        if (parts == 2) {
            a->split = a->v.rank;
            a->axis[a->v.rank] = i;
            a->v.dim[a->v.rank] = f;
            a->v.stride[a->v.rank++] = (ptrdiff_t)(s->stride[i] * (s->dim[i] / f));
        }
        a->axis[a->v.rank] = i;
        a->v.dim[a->v.rank] = parts == 2 ? s->dim[i] / f : s->dim[i];
        a->v.stride[a->v.rank++] = (ptrdiff_t)s->stride[i];
    }
    return a->v.rank > 0 && a->v.rank < VIEW_RANK;
}

/* "[N, H, W, C]", the parts of a split axis by their lengths. */
static const char *order_text(const subject *s, const axes *a, const int *order, char out[160])
{
    size_t used = 0;
    for (int i = 0; i < a->v.rank; i++) {
        const int k = order[i];
        const bool part = a->split >= 0 && (k == a->split || k == a->split + 1);
        if (part)
            used += (size_t)snprintf(out + used, 160 - used, "%s%s/%zu", i ? ", " : "[", axis_name(s, a->axis[k]),
                                     a->v.dim[k]);
        else used += (size_t)snprintf(out + used, 160 - used, "%s%s", i ? ", " : "[", axis_name(s, a->axis[k]));
        if (used >= 160) return out;
    }
    snprintf(out + used, 160 - used, "]");
    return out;
}

static void permutation_found(subject *s, const axes *a, const int *order, double left)
{
    char was[160], is[160];
    int identity[VIEW_RANK] = {0}, moved = 0, first = -1, second = -1;
    for (int i = 0; i < a->v.rank; i++) {
        identity[i] = i;
        if (order[i] == i) continue;
        moved++;
        second = first < 0 ? -1 : i;
        first = first < 0 ? i : first;
    }
    order_text(s, a, identity, was);
    order_text(s, a, order, is);
    const bool split = a->split >= 0, whole_image = s->rank == 4 && !split;
    if (whole_image && moved == 2 && a->axis[first] == 2 && a->axis[second] == 3)
        consider(s, left, 0, PLAIN, "H and W swapped");
    else if (split && moved == 2 && first == a->split && second == a->split + 1) {
        const char *name = axis_name(s, a->axis[first]);
        const bool pixels = strcmp(name, "tokens") == 0 || strcmp(name, "queries") == 0 || strcmp(name, "rows") == 0;
        consider(s, left, 0, SIMPLE, "%s (%zu) read as [%zu][%zu] instead of [%zu][%zu]: %s", name,
                 s->dim[a->axis[first]], a->v.dim[second], a->v.dim[first], a->v.dim[first], a->v.dim[second],
                 pixels ? "H and W swapped in the flattened picture"
                        : "interleaved instead of one after the other (heads and their width, or the two halves)");
    } else if (split)
        consider(s, left, 0, SIMPLE,
                 "a wrong split: values in the order %s instead of %s (heads taken without transposing?)", is, was);
    else consider(s, left, 0, PLAIN, "transposed axes: values in the order %s instead of %s", is, was);
}

static void try_permutations(subject *s, const axes *a, int *order, int fixed)
{
    if (fixed < a->v.rank) {
        for (int i = fixed; i < a->v.rank; i++) {
            const int was = order[fixed];
            order[fixed] = order[i];
            order[i] = was;
            try_permutations(s, a, order, fixed + 1);
            order[i] = order[fixed];
            order[fixed] = was;
        }
        return;
    }
    view v = {.rank = a->v.rank};
    bool moved = false, parted = a->split < 0;
    for (int i = 0; i < v.rank; i++) {
        v.dim[i] = a->v.dim[order[i]];
        v.stride[i] = a->v.stride[order[i]];
        moved = moved || order[i] != i;
        if (order[i] == a->split && (i + 1 == v.rank || order[i + 1] != a->split + 1)) parted = true;
    }
    if (!moved || !parted) return; /* parts that stay together were tried before the axis was split */
    const double left = view_left(s, &v);
    if (left < 1) permutation_found(s, a, order, left);
}

/* The view with one axis read backwards. */
static view mirrored(view v, int axis)
{
    v.start += (ptrdiff_t)(v.dim[axis] - 1) * v.stride[axis];
    v.stride[axis] = -v.stride[axis];
    return v;
}

static view swapped(view v, int i, int k)
{
    const size_t dim = v.dim[i];
    const ptrdiff_t stride = v.stride[i];
    v.dim[i] = v.dim[k];
    v.stride[i] = v.stride[k];
    v.dim[k] = dim;
    v.stride[k] = stride;
    return v;
}

/* Two axes mirrored: half a turn. One mirrored and both swapped: a quarter. */
static void try_turns(subject *s, const axes *a, int i, int k)
{
    const char *name = axis_name(s, a->axis[i]), *other = axis_name(s, a->axis[k]);
    const view once = mirrored(a->v, i), half = mirrored(once, k);
    const double left = view_left(s, &half);
    if (left < 1) consider(s, left, 0, SIMPLE, "rotated by 180 degrees (%s and %s mirrored)", name, other);
    for (int which = 0; which < 2; which++) {
        const view quarter = swapped(which ? mirrored(a->v, k) : once, i, k);
        const double quarter_left = view_left(s, &quarter);
        if (quarter_left < 1)
            consider(s, quarter_left, 0, SIMPLE, "rotated by 90 degrees (%s and %s swapped, one mirrored)", name,
                     other);
    }
}

static void try_mirrors(subject *s, const axes *a)
{
    for (int i = 0; i < a->v.rank; i++) {
        const char *name = axis_name(s, a->axis[i]);
        const view v = mirrored(a->v, i);
        const double left = view_left(s, &v);
        if (left < 1 && s->dim[a->axis[i]] == 3 && a->split < 0)
            consider(s, left, 0, PLAIN, "BGR instead of RGB: %s reversed", name);
        else if (left < 1 && a->split < 0) consider(s, left, 0, PLAIN, "mirrored along %s", name);
        else if (left < 1)
            consider(s, left, 0, SIMPLE, "mirrored along one axis of %s, seen as [%zu][%zu]", name, a->v.dim[a->split],
                     a->v.dim[a->split + 1]);
        for (int k = i + 1; k < a->v.rank; k++) try_turns(s, a, i, k);
    }
}

void try_orders(subject *s)
{
    axes a;
    int order[VIEW_RANK];
    for (int i = 0; i < VIEW_RANK; i++) order[i] = i;
    if (axes_make(s, -1, 1, &a)) {
        try_permutations(s, &a, order, 0);
        try_mirrors(s, &a);
    }
    for (int axis = 0; axis < s->rank; axis++)
        for (size_t f = 2; f < s->dim[axis]; f++) {
            if (s->dim[axis] % f || !axes_make(s, axis, f, &a)) continue;
            try_permutations(s, &a, order, 0);
            if (s->rank < 4) try_mirrors(s, &a); /* a picture's rows and columns inside one axis */
        }
}

/* Rotated along an axis: halves swapped, or two parts joined in the other order. */
static double rotated_left(const subject *s, int axis, size_t by, bool full)
{
    double error = 0, sum = 0;
    const size_t count = full ? s->n : s->spots, dim = s->dim[axis];
    for (size_t i = 0; i < count; i++) {
        const size_t at = full ? i : s->spot[i], k = index_of(s, at, axis), from = (k + by) % dim;
        const double d = s->o[at] - s->r[at + from * s->stride[axis] - k * s->stride[axis]], e = s->o[at] - s->r[at];
        sum += d * d;
        error += e * e;
        if (!full && i % 64 == 63 && sum > error) return NEVER;
    }
    return error > 0 ? sum / error : NEVER;
}

void try_rotations(subject *s)
{
    for (int axis = 0; axis < s->rank; axis++)
        for (size_t by = 1; by < s->dim[axis]; by++) {
            if (s->dim[axis] < 4 || rotated_left(s, axis, by, false) > 0.5) continue;
            const double left = rotated_left(s, axis, by, true);
            const char *name = axis_name(s, axis);
            if (by * 2 == s->dim[axis])
                consider(s, left, 0, PLAIN,
                         "swapped halves: %s %zu.. before 0.. (cos and sin, value and gate, h and skip)", name, by);
            else if (by == 1 || by == s->dim[axis] - 1) consider(s, left, 0, SIMPLE, "rotated by one along %s", name);
            else
                consider(
                    s, left, 0, SIMPLE,
                    "rotated by %zu along %s: two parts of %zu and %zu in the other order ([skip, h] for [h, skip]?)",
                    by, name, by, s->dim[axis] - by);
        }
}

/* Shifted by a along one axis and b along another (or the same axis, b = 0): judged where both have values. */
static void try_shift(subject *s, int x, int a, int y, int b)
{
    double sum = 0, error = 0, edge = 0;
    for (size_t i = 0; i < s->n; i++) {
        const ptrdiff_t u = (ptrdiff_t)index_of(s, i, x) - a, v = (ptrdiff_t)index_of(s, i, y) - b;
        const double e = s->o[i] - s->r[i];
        if (u < 0 || u >= (ptrdiff_t)s->dim[x] || v < 0 || v >= (ptrdiff_t)s->dim[y]) {
            edge += e * e;
            continue;
        }
        const double d = s->o[i] - s->r[(ptrdiff_t)i - a * (ptrdiff_t)s->stride[x] - b * (ptrdiff_t)s->stride[y]];
        sum += d * d;
        error += e * e;
        if (i % 4096 == 4095 && sum > error) return;
    }
    if (!(error > 0) || edge > 0.7 * s->energy) return;
    const char *name = axis_name(s, x);
    if (b)
        consider(s, sum / error, 0, SIMPLE,
                 "shifted by %+d along %s and %+d along %s (padding, or the picture's origin)", a, name, b,
                 axis_name(s, y));
    else if (path_ends(s->p->ref->name, "mask") && x == s->rank - 1)
        consider(s, sum / error, 0, PLAIN,
                 "mask off by one column: OTHER's column j is REF's j %+d (token k acts in column k + 1; "
                 "column 0 is BOS)",
                 -a);
    else
        consider(s, sum / error, 0, PLAIN, "shifted by %s along %s: OTHER[i] = REF[i %+d]",
                 a == 1 || a == -1 ? "one" : "two", name, -a);
}

void try_shifts(subject *s)
{
    static const int by[] = {1, -1, 2, -2};
    for (int x = 0; x < s->rank; x++)
        for (int k = 0; k < 4; k++)
            if (s->dim[x] > 4) try_shift(s, x, by[k], x, 0);
    for (int k = 0; s->rank == 4 && k < 4; k++)
        if (s->dim[2] > 4 && s->dim[3] > 4) try_shift(s, 2, k & 1 ? 1 : -1, 3, k & 2 ? 1 : -1);
}

/* The same values in an order that nothing above explains: sums of hashes do not depend on the order. */
void try_same_values(subject *s)
{
    uint64_t sum_r = 0, sum_o = 0;
    bool varied = false;
    for (size_t i = 0; i < s->n; i++) {
        uint64_t a, b;
        const double r = s->r[i] + 0.0, o = s->o[i] + 0.0; /* -0 is 0 */
        memcpy(&a, &r, sizeof a);
        memcpy(&b, &o, sizeof b);
        a = (a ^ (a >> 29)) * 0xBF58476D1CE4E5B9u;
        b = (b ^ (b >> 29)) * 0xBF58476D1CE4E5B9u;
        sum_r += (a ^ (a >> 32)) * 0x94D049BB133111EBu;
        sum_o += (b ^ (b >> 32)) * 0x94D049BB133111EBu;
        varied = varied || s->r[i] != s->r[0];
    }
    if (varied && sum_r == sum_o)
        consider(s, 0, 0, NUMEROUS, "the same values in another order (noise drawn or laid out in another order?)");
}
