/* diagnose_norms.c - hypotheses: a norm done in a wrong way, computed from its input. */
#include "tools/compare/diagnose.h"

#include <stdlib.h>
#include <string.h>

/* The norm whose output is wrong is computed again: r = weight z(u) + bias, with the weight and bias of each channel fitted to
   REF; then z with each usual mistake. Arrays are [n][c][l], l counting pixels or tokens. */
typedef struct norm {
    size_t n, c, l;
    bool rows;  /* r and o are [n][l][c] */
    bool layer; /* over the channels of each position; else over groups of channels at all positions */
    size_t groups;
    double eps;
    double *u, *part[2], *z, *weight, *bias; /* u: the input; part: its summands */
    size_t joined;                           /* channels of h where u is [h, skip]; 0: not joined */
} norm;

static size_t norm_index(const norm *b, size_t n, size_t c, size_t l)
{
    return b->rows ? (n * b->l + l) * b->c + c : (n * b->c + c) * b->l + l;
}

typedef enum { RIGHT, UNBIASED, NO_MEAN, EPS_OUTSIDE } flaw;

/* z = (u - mean) / sqrt(variance + eps) over `count` values in runs of `run`, whose starts are `step` apart. */
static void normalise_set(const double *u, double *z, size_t count, size_t run, size_t step, double eps, flaw how)
{
    double sum = 0, squares = 0;
    const double n = (double)count;
    for (size_t i = 0; i < count; i++) sum += u[i / run * step + i % run];
    const double mean = how == NO_MEAN ? 0 : sum / n;
    for (size_t i = 0; i < count; i++) {
        const double d = u[i / run * step + i % run] - mean;
        squares += d * d;
    }
    const double variance = squares / (how == UNBIASED && n > 1 ? n - 1 : n);
    const double scale = how == EPS_OUTSIDE ? 1 / (sqrt(variance) + eps) : 1 / sqrt(variance + eps);
    for (size_t i = 0; i < count; i++) z[i / run * step + i % run] = (u[i / run * step + i % run] - mean) * scale;
}

static void normalise(const norm *b, const double *u, bool layer, size_t groups, double eps, flaw how)
{
    for (size_t n = 0; n < b->n; n++) {
        const double *from = u + n * b->c * b->l;
        double *to = b->z + n * b->c * b->l;
        if (layer)
            for (size_t l = 0; l < b->l; l++) normalise_set(from + l, to + l, b->c, 1, b->l, eps, how);
        else
            for (size_t g = 0; g < groups; g++) {
                const size_t each = b->c / groups * b->l;
                normalise_set(from + g * each, to + g * each, each, each, each, eps, how);
            }
    }
}

/* Fits weight and bias to REF; the share of REF's variance that they leave. */
static double norm_fit(const subject *s, norm *b)
{
    double left = 0, total = 0;
    for (size_t c = 0; c < b->c; c++) {
        double z = 0, r = 0, zz = 0, zr = 0, rr = 0;
        const double n = (double)(b->n * b->l);
        for (size_t k = 0; k < b->n; k++)
            for (size_t l = 0; l < b->l; l++) {
                const double x = b->z[(k * b->c + c) * b->l + l], y = s->r[norm_index(b, k, c, l)];
                z += x;
                r += y;
                zz += x * x;
                zr += x * y;
                rr += y * y;
            }
        const double vz = zz - z * z / n, cov = zr - z * r / n, vr = rr - r * r / n;
        b->weight[c] = vz > 0 ? cov / vz : 0;
        b->bias[c] = (r - b->weight[c] * z) / n;
        left += vr - b->weight[c] * cov;
        total += vr;
    }
    return total > 0 ? left / total : 1;
}

enum { WEIGHT = 1, BIAS = 2 };
static void try_norm(subject *s, const norm *b, int affine, int cost, const char *what)
{
    for (size_t n = 0; n < b->n; n++)
        for (size_t c = 0; c < b->c; c++)
            for (size_t l = 0; l < b->l; l++)
                s->q[norm_index(b, n, c, l)] = b->z[(n * b->c + c) * b->l + l] * (affine & WEIGHT ? b->weight[c] : 1) +
                                               (affine & BIAS ? b->bias[c] : 0);
    consider(s, left_by(s, s->q), 0, cost, "%s", what);
}

/* Writes a tensor of REF's, [n,c,h,w], [n,t,c] or [n,c] (for all positions), to u from channel `first` on, or adds it there.
   Returns its channels; 0: it is absent or does not fit. */
static size_t norm_gather(subject *s, const norm *b, const char *name, double *u, size_t first, bool add)
{
    const struct named *x = find_ref(s->c, name);
    const flis_entry *e = x ? x->entry : NULL;
    if (!e || e->rank < 2 || e->rank > 4 || e->shape[0] != b->n) return 0;
    const size_t channels = (size_t)(e->rank == 3 ? e->shape[2] : e->shape[1]);
    const size_t positions = e->rank == 4   ? (size_t)(e->shape[2] * e->shape[3])
                             : e->rank == 3 ? (size_t)e->shape[1]
                                            : 1;
    if (first + channels > b->c || (positions != b->l && e->rank != 2)) return 0;
    double *v = read_values(s->c, &s->c->ref, e);
    for (size_t n = 0; v && n < b->n; n++)
        for (size_t c = 0; c < channels; c++)
            for (size_t l = 0; l < b->l; l++) {
                const double y = e->rank == 4   ? v[(n * channels + c) * b->l + l]
                                 : e->rank == 3 ? v[(n * b->l + l) * channels + c]
                                                : v[n * channels + c];
                double *at = &u[(n * b->c + first + c) * b->l + l];
                *at = add ? *at + y : y;
            }
    free(v);
    return v ? channels : 0;
}

/* The last number of a path's word `word`, e.g. 3 of "step.0.cond.output_blocks.3.0" for "output_blocks."; -1: none.
   *head is the length of the text before the word. */
static long block_number(const char *name, const char *word, size_t *head)
{
    const char *at = strstr(name, word);
    if (!at || !strchr("0123456789", at[strlen(word)])) return -1;
    *head = (size_t)(at - name);
    return strtol(at + strlen(word), NULL, 10);
}

/* [h, skip] of an output block: h the block before, skip the mirrored input block's output. */
static bool norm_joined(subject *s, norm *b, char h[NAME_ROOM], char skip[NAME_ROOM])
{
    size_t head = 0;
    const char *name = s->p->ref->name;
    const long block = block_number(name, "output_blocks.", &head);
    if (block < 0) return false;
    long last = 0;
    do snprintf(skip, NAME_ROOM, "%.*sinput_blocks.%ld", (int)head, name, last);
    while (find_ref(s->c, skip) && ++last);
    snprintf(skip, NAME_ROOM, "%.*sinput_blocks.%ld", (int)head, name, last - 1 - block);
    if (block) snprintf(h, NAME_ROOM, "%.*soutput_blocks.%ld", (int)head, name, block - 1);
    else snprintf(h, NAME_ROOM, "%.*smiddle_block", (int)head, name);
    b->joined = norm_gather(s, b, h, b->u, 0, false);
    return b->joined && norm_gather(s, b, skip, b->u, b->joined, false) == b->c - b->joined;
}

/* u = x + y (y NULL: x alone); both summands are kept. */
static bool norm_sum(subject *s, norm *b, const char *x, const char *y)
{
    if (norm_gather(s, b, x, b->part[0], 0, false) != b->c) return false;
    memcpy(b->u, b->part[0], s->n * sizeof *b->u);
    if (!y) return true;
    return norm_gather(s, b, y, b->part[1], 0, false) == b->c && norm_gather(s, b, y, b->u, 0, true) == b->c;
}

/* Whether u, with this kind of norm, gives REF's values. Layers' eps is 1e-5, groups' 1e-5 in ResBlocks and `out`, else 1e-6. */
static bool norm_fits(const subject *s, norm *b)
{
    const char *name = s->p->ref->name;
    const bool resblock = strstr(name, "in_layers.") || strstr(name, "out_layers.") || path_ends(name, "out.0");
    for (int layer = b->rows ? 1 : 0; layer >= 0; layer--) {
        b->layer = layer;
        b->groups = 32;
        b->eps = layer || resblock ? 1e-5 : 1e-6;
        if (!layer && b->c % b->groups) continue;
        normalise(b, b->u, b->layer, b->groups, b->eps, RIGHT);
        if (b->n * b->l > 2 && norm_fit(s, b) < 1e-8) return true;
    }
    return false;
}

/* Finds the input: by its name where that is known, else the nearest tensor before the norm that fits. */
static bool norm_input(subject *s, norm *b, char h[NAME_ROOM], char skip[NAME_ROOM])
{
    const char *name = s->p->ref->name;
    bool known = false;
    *h = *skip = 0;
    if (path_ends(name, "out_layers.0"))
        known = norm_sum(s, b, relative_path(name, 2, "in_layers.2", h), relative_path(name, 2, "emb_layers.1", skip));
    else if (path_ends(name, "norm2") && b->rows)
        known = norm_sum(s, b, relative_path(name, 3, "proj_in", h), relative_path(name, 1, "attn1", skip));
    else if (path_ends(name, "norm3") && b->rows) {
        known = norm_sum(s, b, relative_path(name, 3, "proj_in", h), relative_path(name, 1, "attn2", skip));
        char first[NAME_ROOM];
        relative_path(name, 1, "attn1", first);
        known = known && norm_gather(s, b, first, b->u, 0, true) && norm_gather(s, b, first, b->part[0], 0, true);
    } else if (path_ends(name, "layer_norm2")) {
        size_t head = 0;
        const long layer = block_number(name, "encoder.layers.", &head);
        if (layer > 0) snprintf(h, NAME_ROOM, "%.*sencoder.layers.%ld", (int)head, name, layer - 1);
        else snprintf(h, NAME_ROOM, "%.*sembeddings", (int)head, name);
        known = norm_sum(s, b, h, relative_path(name, 1, "self_attn", skip));
    } else if (path_ends(name, "in_layers.0") && strstr(name, "output_blocks.")) known = norm_joined(s, b, h, skip);
    if (known) return norm_fits(s, b);
    const size_t here = (size_t)(s->p->ref - s->c->ref.item);
    for (size_t k = 1, tried = 0; k <= here && tried < 12; k++) {
        const struct named *x = &s->c->ref.item[here - k];
        if (flis_entry_count(x->entry) != s->n || is_integer(x->entry->dtype)) continue;
        tried++;
        b->joined = 0;
        if (norm_sum(s, b, x->name, NULL) && norm_fits(s, b)) {
            snprintf(h, NAME_ROOM, "%s", x->name);
            *skip = 0;
            return true;
        }
    }
    return false;
}

static void try_norm_flaws(subject *s, norm *b)
{
    static const double eps[] = {0, 1e-12, 1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2};
    static const size_t groups[] = {1, 2, 4, 8, 16, 64};
    char text[160];
    for (size_t i = 0; i < sizeof eps / sizeof *eps; i++) {
        if (eps[i] == b->eps) continue;
        snprintf(text, sizeof text, "another eps: %g instead of %g in the norm", eps[i], b->eps);
        normalise(b, b->u, b->layer, b->groups, eps[i], RIGHT);
        try_norm(s, b, WEIGHT | BIAS, PLAIN, text);
    }
    normalise(b, b->u, b->layer, b->groups, b->eps, UNBIASED);
    try_norm(s, b, WEIGHT | BIAS, SIMPLE, "the norm's variance is divided by n - 1 instead of n");
    normalise(b, b->u, b->layer, b->groups, b->eps, NO_MEAN);
    try_norm(s, b, WEIGHT | BIAS, SIMPLE, "the norm does not subtract the mean");
    normalise(b, b->u, b->layer, b->groups, b->eps, EPS_OUTSIDE);
    try_norm(s, b, WEIGHT | BIAS, SIMPLE, "the norm's eps is added outside the root");
    for (size_t i = 0; !b->layer && i < sizeof groups / sizeof *groups; i++) {
        if (b->c % groups[i]) continue;
        snprintf(text, sizeof text, "a norm over %zu groups instead of 32", groups[i]);
        normalise(b, b->u, false, groups[i], b->eps, RIGHT);
        try_norm(s, b, WEIGHT | BIAS, SIMPLE, text);
    }
    if (b->layer || b->c != 32) {
        normalise(b, b->u, false, b->c, b->eps, RIGHT);
        try_norm(s, b, WEIGHT | BIAS, SIMPLE, "each channel is normalised alone (instance norm)");
    }
    normalise(b, b->u, !b->layer, 32, b->eps, RIGHT);
    if (b->layer == false || b->c % 32 == 0)
        try_norm(s, b, WEIGHT | BIAS, SIMPLE,
                 b->layer ? "a group norm instead of a layer norm" : "a layer norm instead of a group norm");
    normalise(b, b->u, b->layer, b->groups, b->eps, RIGHT);
    try_norm(s, b, WEIGHT, SIMPLE, "the norm's bias is missing");
    try_norm(s, b, BIAS, SIMPLE, "the norm's weight is missing");
    try_norm(s, b, 0, SIMPLE, "the norm's weight and bias are missing");
}

/* The norm of one part of the sum, and of [skip, h]. */
static void try_norm_inputs(subject *s, norm *b, const char *h, const char *skip)
{
    char text[2 * NAME_ROOM];
    if (b->joined) {
        for (size_t n = 0; n < b->n; n++) {
            const size_t cut = b->joined * b->l, all = b->c * b->l;
            memcpy(b->part[0] + n * all, b->u + n * all + cut, (all - cut) * sizeof *b->u);
            memcpy(b->part[0] + n * all + all - cut, b->u + n * all, cut * sizeof *b->u);
        }
        normalise(b, b->part[0], b->layer, b->groups, b->eps, RIGHT);
        try_norm(s, b, WEIGHT | BIAS, PLAIN, "skip order: the norm of [skip, h] instead of [h, skip]");
    } else if (*skip) {
        normalise(b, b->part[0], b->layer, b->groups, b->eps, RIGHT);
        snprintf(text, sizeof text, "%s is missing in the norm's input", skip);
        try_norm(s, b, WEIGHT | BIAS, PLAIN, text);
        normalise(b, b->part[1], b->layer, b->groups, b->eps, RIGHT);
        snprintf(text, sizeof text, "%s is missing in the norm's input", h);
        try_norm(s, b, WEIGHT | BIAS, PLAIN, text);
    }
}

void try_norms(subject *s)
{
    const char *name = s->p->ref->name, *last = strrchr(name, '.');
    char h[NAME_ROOM], skip[NAME_ROOM];
    if (!strstr(last ? last : name, "norm") && !path_ends(name, "in_layers.0") && !path_ends(name, "out_layers.0") &&
        !path_ends(name, "out.0"))
        return;
    if (s->rank != 3 && s->rank != 4) return;
    norm b = {.n = s->dim[0], .c = s->dim[s->rank == 4 ? 1 : 2], .rows = s->rank == 3};
    b.l = s->n / b.n / b.c;
    double *room = flis_alloc(&s->c->ctx, 4 * s->n + 2 * b.c, sizeof *room);
    if (!room) return;
    b.u = room;
    b.part[0] = room + s->n;
    b.part[1] = room + 2 * s->n;
    b.z = room + 3 * s->n;
    b.weight = room + 4 * s->n;
    b.bias = b.weight + b.c;
    if (norm_input(s, &b, h, skip)) {
        try_norm_flaws(s, &b);
        try_norm_inputs(s, &b, h, skip);
    }
    free(room);
}
