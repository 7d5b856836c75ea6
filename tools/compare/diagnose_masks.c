/* diagnose_masks.c - hypotheses: masks, and the softmax computed from its scores. */
#include "tools/compare/diagnose.h"

#include <stdlib.h>

/* One way to compute weights from scores: the mask shifted by `shift` columns, masked scores set to `masked`. */
typedef struct softmax {
    const double *score, *mask; /* [heads][queries][keys]; mask [samples][queries][keys], NULL: no mask */
    size_t heads, queries, keys, samples;
    int shift;
    bool invert, after; /* after: weights are multiplied by the mask, not summing to 1 */
    double masked, scale;
} softmax;

static void softmax_row(const softmax *m, size_t head, size_t query, double *out)
{
    const size_t row = head * m->queries + query;
    const double *score = m->score + row * m->keys;
    const double *mask = m->mask ? m->mask + (head / (m->heads / m->samples) * m->queries + query) * m->keys : NULL;
    double largest = -HUGE_VAL, sum = 0;
    for (size_t k = 0; k < m->keys; k++) {
        const size_t from =
            k + (size_t)m->shift; /* wraps below 0, is then beyond keys: attended, as BOS and padding are */
        const bool attended = !mask || (from < m->keys ? (mask[from] != 0) != m->invert : true);
        out[k] = attended || m->after ? score[k] * m->scale : m->masked;
        largest = fmax(largest, out[k]);
    }
    for (size_t k = 0; k < m->keys; k++) sum += out[k] = flis_exp(out[k] - largest);
    for (size_t k = 0; k < m->keys; k++) {
        const size_t from = k + (size_t)m->shift;
        out[k] /= sum;
        if (m->after && mask && from < m->keys && (mask[from] != 0) == m->invert) out[k] = 0;
    }
}

static double softmax_left(subject *s, const softmax *m, const double *wanted)
{
    double sum = 0;
    for (size_t i = 0; i < m->heads * m->queries; i++) {
        softmax_row(m, i / m->queries, i % m->queries, s->q + i * m->keys);
        for (size_t k = 0; k < m->keys; k++) {
            const double d = wanted[i * m->keys + k] - s->q[i * m->keys + k];
            sum += d * d;
        }
    }
    return sum;
}

/* Softmax over the queries instead of the keys. */
static double softmax_columns_left(subject *s, const softmax *m)
{
    for (size_t head = 0; head < m->heads; head++)
        for (size_t k = 0; k < m->keys; k++) {
            const double *x = m->score + head * m->queries * m->keys + k;
            double *y = s->q + head * m->queries * m->keys + k, largest = -HUGE_VAL, sum = 0;
            for (size_t i = 0; i < m->queries; i++) largest = fmax(largest, x[i * m->keys]);
            for (size_t i = 0; i < m->queries; i++) sum += y[i * m->keys] = flis_exp(x[i * m->keys] - largest);
            for (size_t i = 0; i < m->queries; i++) y[i * m->keys] /= sum;
        }
    return left_by(s, s->q);
}

static void try_softmax_variants(subject *s, const softmax *right)
{
    static const double masked[] = {0, -1, -10, -100, -1e4};
    const double d[] = {8, 10, 16, 32, 40, 64, 80, 128, 160, 320, 512, 640, 768, 1280};
    softmax m = *right;
    m.mask = NULL;
    if (right->mask)
        consider(s, softmax_left(s, &m, s->o) / s->energy, 0, PLAIN,
                 "the mask is not applied: every query attends to every column");
    m = *right;
    for (int shift = -1; right->mask && shift <= 1; shift += 2) {
        m.shift = shift;
        consider(s, softmax_left(s, &m, s->o) / s->energy, 0, PLAIN,
                 "mask off by one column: column j takes what belongs to column j %+d (token k acts in column k + 1)",
                 shift);
    }
    m = *right;
    m.invert = true;
    if (right->mask) consider(s, softmax_left(s, &m, s->o) / s->energy, 0, PLAIN, "the mask is inverted");
    m.invert = false;
    m.after = true;
    if (right->mask)
        consider(s, softmax_left(s, &m, s->o) / s->energy, 0, PLAIN,
                 "the mask is applied after the softmax: rows do not sum to 1");
    m = *right;
    for (size_t i = 0; right->mask && i < sizeof masked / sizeof *masked; i++) {
        m.masked = masked[i];
        consider(s, softmax_left(s, &m, s->o) / s->energy, 0, PLAIN, "masked scores are %g instead of -max", masked[i]);
    }
    m = *right;
    for (size_t i = 0; i < 2 * sizeof d / sizeof *d; i++) {
        m.scale = i % 2 ? 1 / sqrt(d[i / 2]) : sqrt(d[i / 2]);
        consider(s, softmax_left(s, &m, s->o) / s->energy, 0, SIMPLE, "softmax's scale: scores times %s%g%s",
                 i % 2 ? "1/sqrt(" : "sqrt(", d[i / 2], ") once more");
    }
    m.scale = 0.69314718055994531;
    consider(s, softmax_left(s, &m, s->o) / s->energy, 0, SIMPLE, "exp2 in the softmax instead of exp");
    consider(s, softmax_columns_left(s, right), 0, SIMPLE, "softmax over the queries instead of the keys");
}

void try_softmax(subject *s)
{
    char name[NAME_ROOM];
    if (!path_ends(s->p->ref->name, "weights") || s->rank != 3) return;
    const struct named *scores = find_ref(s->c, relative_path(s->p->ref->name, 1, "scores", name));
    const struct named *mask = find_ref(s->c, relative_path(s->p->ref->name, 1, "mask", name));
    if (!scores || flis_entry_count(scores->entry) != s->n) return;
    softmax m = {
        .heads = s->dim[0], .queries = s->dim[1], .keys = s->dim[2], .samples = 1, .masked = -MASKED, .scale = 1};
    const size_t plane = m.queries * m.keys, have = mask ? (size_t)flis_entry_count(mask->entry) : 0;
    if (have && have % plane == 0 && m.heads % (have / plane) == 0) m.samples = have / plane;
    else mask = NULL;
    double *score = read_values(s->c, &s->c->ref, scores->entry);
    double *attended = score && mask ? read_values(s->c, &s->c->ref, mask->entry) : NULL;
    m.score = score;
    m.mask = attended;
    if (score && softmax_left(s, &m, s->r) < 1e-6 * s->rr) try_softmax_variants(s, &m);
    free(attended);
    free(score);
}

/* Scores that were masked before they were dumped. */
void try_masked_scores(subject *s)
{
    double rest = 0;
    size_t masked = 0;
    for (size_t i = 0; i < s->n; i++) {
        const double e = s->o[i] - s->r[i];
        if (s->o[i] <= -9000 && s->r[i] > -9000) masked++;
        else rest += e * e;
    }
    if (masked && masked < s->n && rest <= 1e-8 * s->rr)
        consider(
            s, 0, 0, PLAIN,
            "masked already: %zu scores are -9000 or less, the others agree; REF's scores are those before the mask",
            masked);
}

/* Cells of a mask or a label map that hold a neighbour's class where they are wrong: another rule for the nearest neighbour. */
void try_nearest(subject *s)
{
    size_t h = 0, w = 0, row = 1, wrong = 0, taken = 0;
    if (!is_integer(s->p->ref->entry->dtype)) return;
    if (path_ends(s->p->ref->name, "mask") && s->rank >= 2) {
        row = s->dim[s->rank - 1];
        h = w = (size_t)sqrt((double)s->dim[s->rank - 2]);
    } else if (s->rank >= 2) {
        h = s->dim[s->rank - 2];
        w = s->dim[s->rank - 1];
    }
    if (h * w * row == 0 || s->n % (h * w * row)) return;
    for (size_t i = 0; i < s->n; i += row) {
        const size_t y = i / row / w % h, x = i / row % w;
        bool same = true, found = false;
        for (size_t k = 0; k < row; k++) same = same && s->o[i + k] == s->r[i + k];
        if (same) continue;
        wrong++;
        for (int dy = -1; dy <= 1; dy++)
            for (int dx = -1; dx <= 1 && !found; dx++) {
                if ((y == 0 && dy < 0) || (y + 1 == h && dy > 0) || (x == 0 && dx < 0) || (x + 1 == w && dx > 0))
                    continue;
                const double *from = s->r + (ptrdiff_t)i + (dy * (ptrdiff_t)w + dx) * (ptrdiff_t)row;
                bool equal = true;
                for (size_t k = 0; equal && k < row; k++) equal = s->o[i + k] == from[k];
                found = equal;
            }
        taken += found;
    }
    if (wrong && wrong * 2 < s->n / row)
        consider(s, 1 - (double)taken / (double)wrong, 0, NUMEROUS,
                 "%zu of %zu cells hold a neighbour's class: another nearest-neighbour rule (PIL's for torch's?)",
                 wrong, s->n / row);
}

/* A mask in which columns are masked that every query attends to in REF: those of BOS, EOS, padding, and class -1. */
void try_attended_columns(subject *s)
{
    const size_t columns = s->rank ? s->dim[s->rank - 1] : 0;
    size_t first = columns, last = 0, count = 0;
    if (!path_ends(s->p->ref->name, "mask") || !columns) return;
    for (size_t k = 0; k < columns; k++) {
        bool attended = true, same = true;
        for (size_t i = k; i < s->n; i += columns) {
            attended = attended && s->r[i] == 1;
            same = same && s->o[i] == s->r[i];
        }
        if (same) continue;
        if (!attended) return;
        first = k < first ? k : first;
        last = k;
        count++;
    }
    if (count)
        consider(s, 0, 0, PLAIN,
                 "%zu columns from %zu to %zu are masked that every query attends to in REF: class -1 acts everywhere, "
                 "as BOS, EOS and padding do",
                 count, first, last);
}
