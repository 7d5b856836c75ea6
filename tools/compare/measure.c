/* measure.c - tolerances, and how far two tensors are apart. */
#include "tools/compare/compare.h"

#include <stdlib.h>
#include <string.h>

/* ---- Tolerances --------------------------------------------------------------------------------------------------

   Measured, worst tensor of a part, on tinyB (weights by formula, latents 16 x 16, t = 981):
   - f32 as PyTorch 1.13 does it, against flis (tests/golden/tinyunet_B_16, tinyvae_B, tinyclip_B), and its float32 against its
     float64 at full size (the same files of Stable Diffusion v1.4: none of their parts is worse):
       time  7.0e-6 7.6e-6   PyTorch's angles t f_i are float32, 6e-5 off at t = 981
       first 9.9e-7 1.4e-6   input_blocks.2 ff
       unet  6.4e-6 5.0e-6   output_blocks.5 attn2 at full size, output_blocks.10 attn2
       clip  1.1e-6 1.7e-6   encoder.layers.6, .5 at full size
       vae   1.5e-6 1.9e-6   norm_out
     Margin 2; 1.5 for unet's relative.
   - tf32, fp16, bf16 as `flis64 precision` emulates them (each operation's result rounded to the format) against double:
              tf32              fp16              bf16
       time   6.0e-4  6.9e-4    7.4e-4  7.7e-4    7.1e-3  9.0e-3    emb_layers.1
       first  1.0e-3  1.9e-3    1.6e-3  2.8e-3    1.3e-2  2.4e-2    input_blocks.2 attn1 scores, weights
       unet   2.6e-3  6.1e-3    3.5e-3  4.5e-3    2.9e-2  5.2e-2    output_blocks.7..10 scores, weights
       clip   7.8e-4  1.4e-3    1.1e-3  1.4e-3    8.9e-3  1.3e-2    encoder.layers.3 q_proj
       vae    1.0e-3  1.0e-3    1.5e-3  1.7e-3    1.2e-2  1.3e-2    decoder.up.0.block.2.conv2
     Margin 2.5. */
enum { TIME, FIRST, CLIP, VAE, REST, PARTS }; /* the first that matches; REST: the U-Net's others, and all else */
static const char *const PART_NAMES[PARTS][8] = {
    {"*time_embed", "*time_embed.*", "*emb_layers*"},
    {"*input_blocks.[0-3]", "*input_blocks.[0-3].*"},
    {"*embeddings", "*encoder.layers.*", "*final_layer_norm", "*last_hidden_state", "clip.*"},
    {"*decoder.*", "*encoder.*", "*quant_conv", "*moments"},
    {"*"}};
const char *const PROFILE_NAMES[] = {"f32", "tf32", "fp16", "bf16", NULL};
static const limits PROFILES[][PARTS] = {
    {{1.4e-5, 1.6e-5}, {2e-6, 2.8e-6}, {2.2e-6, 3.4e-6}, {3e-6, 3.8e-6}, {1e-5, 1e-5}},
    {{1.5e-3, 1.8e-3}, {2.5e-3, 4.8e-3}, {2e-3, 3.5e-3}, {2.5e-3, 2.6e-3}, {6.5e-3, 1.5e-2}},
    {{1.9e-3, 2e-3}, {4e-3, 7e-3}, {2.7e-3, 3.5e-3}, {3.9e-3, 4.2e-3}, {8.8e-3, 1.2e-2}},
    {{1.8e-2, 2.3e-2}, {3.3e-2, 6e-2}, {2.3e-2, 3.4e-2}, {3.1e-2, 3.4e-2}, {7.2e-2, 1.3e-1}},
};

limits limits_of(const char *name, int profile)
{
    for (int part = 0; part < REST; part++)
        for (int i = 0; i < 8 && PART_NAMES[part][i]; i++)
            if (glob_match(PART_NAMES[part][i], name)) return PROFILES[profile][part];
    return PROFILES[profile][REST];
}

/* ---- Measures ---------------------------------------------------------------------------------------------------- */

bool is_integer(flis_dtype dtype)
{
    return dtype != FLIS_F64 && dtype != FLIS_F32 && dtype != FLIS_F16 && dtype != FLIS_BF16;
}

/* Numbers a format's values in their order, so that neighbours differ by 1. */
static int64_t ordinal(double x, flis_dtype format)
{
    int64_t bits;
    if (format == FLIS_F64) {
        memcpy(&bits, &x, sizeof bits);
        return bits < 0 ? INT64_MIN - bits : bits;
    }
    const float f = (float)x;
    int32_t narrow;
    memcpy(&narrow, &f, sizeof narrow);
    if (format == FLIS_F16) narrow = flis_float_to_half(f);
    if (format == FLIS_BF16) narrow = flis_float_to_bf16(f);
    if (format == FLIS_F16 || format == FLIS_BF16) return narrow & 0x8000 ? -(int64_t)(narrow & 0x7fff) : narrow;
    return narrow < 0 ? -(int64_t)(narrow & 0x7fffffff) : narrow;
}

static uint64_t ulps(double a, double b, flis_dtype format)
{
    const int64_t x = ordinal(a, format), y = ordinal(b, format);
    return x < y ? (uint64_t)y - (uint64_t)x : (uint64_t)x - (uint64_t)y;
}

/* Counts of distances, exact below 512, then in steps of 1/256: the median without a second array. */
enum { EXACT = 512, BUCKETS = 56 * 256 + EXACT };

static size_t bucket_of(uint64_t distance)
{
    int shift = 0;
    while (distance >> shift >= EXACT) shift++;
    return (size_t)shift * 256 + (size_t)(distance >> shift);
}

static double bucket_median(const uint64_t *counts, uint64_t total)
{
    uint64_t below = 0;
    for (size_t i = 0; i < BUCKETS; i++) {
        below += counts[i];
        if (below * 2 < total || !below) continue;
        if (i < EXACT) return (double)i;
        const int shift = (int)((i - 256) / 256);
        return ldexp((double)(i - (size_t)shift * 256), shift);
    }
    return 0;
}

static flis_dtype coarser(flis_dtype a, flis_dtype b)
{
    static const flis_dtype order[] = {FLIS_BF16, FLIS_F16, FLIS_F32};
    for (size_t i = 0; i < sizeof order / sizeof *order; i++)
        if (a == order[i] || b == order[i]) return order[i];
    return FLIS_F64;
}

bool masked_in_both(double r, double o)
{
    return (r >= MASKED && o >= MASKED) || (r <= -MASKED && o <= -MASKED);
}

/* One pass over both arrays. A NaN or an infinity is counted and takes no part in the sums. */
static void measure_values(measures *m, const double *r, const double *o, flis_dtype format, bool floats,
                           uint64_t *counts)
{
    double rr = 0, oo = 0, ro = 0, ee = 0;
    uint64_t used = 0;
    memset(counts, 0, BUCKETS * sizeof *counts);
    for (uint64_t i = 0; i < m->count; i++) {
        const bool bad_r = !finite_value(r[i]), bad_o = !finite_value(o[i]);
        if (bad_r || bad_o) {
            if (!m->bad_ref && !m->bad_other) m->first_bad = i;
            m->bad_ref += bad_r;
            m->bad_other += bad_o;
            continue;
        }
        if (masked_in_both(r[i], o[i])) continue;
        const double error = fabs(o[i] - r[i]);
        if (error > m->max_error || !used) {
            m->max_error = error;
            m->at = i;
        }
        used++;
        m->largest = fmax(m->largest, fabs(r[i]));
        rr += r[i] * r[i];
        oo += o[i] * o[i];
        ro += r[i] * o[i];
        ee += error * error;
        if (floats) counts[bucket_of(ulps(r[i], o[i], format))]++;
    }
    const double n = used ? (double)used : 1;
    m->rms = sqrt(rr / n);
    m->rms_error = sqrt(ee / n);
    m->relative = ee == 0 ? 0 : m->rms_error / m->rms;
    m->cosine = rr > 0 && oo > 0 ? fmin(ro / sqrt(rr) / sqrt(oo), 1) : rr == oo ? 1 : 0;
    m->ulp = floats ? bucket_median(counts, used) : (double)NAN;
    if (m->count) {
        m->ref_at = r[m->at];
        m->other_at = o[m->at];
    }
}

static double ratio(double error, double limit)
{
    return error == 0 ? 0 : limit > 0 ? error / limit : (double)INFINITY;
}

double excess_of(const options *o, const measures *m, const struct named *ref)
{
    if (o->absolute >= 0 || o->relative >= 0)
        return fmax(o->absolute >= 0 ? ratio(m->max_error, o->absolute) : 0,
                    o->relative >= 0 ? ratio(m->relative, o->relative) : 0);
    if (is_integer(ref->entry->dtype)) return ratio(m->max_error, 0);
    const limits limit = limits_of(ref->name, o->profile);
    return fmax(ratio(m->relative, limit.relative), ratio(m->max_error, limit.largest * m->largest));
}

bool shapes_agree(const flis_entry *a, const flis_entry *b, bool exactly)
{
    int i = 0, k = 0;
    for (;; i++, k++) {
        while (!exactly && i < a->rank && a->shape[i] == 1) i++;
        while (!exactly && k < b->rank && b->shape[k] == 1) k++;
        if (i >= a->rank || k >= b->rank) return i >= a->rank && k >= b->rank;
        if (a->shape[i] != b->shape[k]) return false;
    }
}

double *read_values(comparison *c, side *s, const flis_entry *entry)
{
    double *x = flis_alloc(&c->ctx, (size_t)flis_entry_count(entry) + 1, sizeof *x);
    if (x && flis_file_read_f64(&c->ctx, s->file, entry, x)) return x;
    free(x);
    return NULL;
}

/* The samples of a tensor, where one of the files has no more. */
static double *read_samples(comparison *c, side *s, const flis_entry *entry)
{
    const size_t count = samples_of(flis_entry_count(entry)), stride = stride_of(flis_entry_count(entry));
    if (!s->samples) {
        double *x = read_values(c, s, entry);
        for (size_t i = 0; x && i < count; i++) x[i] = x[i * stride];
        return x;
    }
    double *x = flis_alloc(&c->ctx, count + 1, sizeof *x);
    if (x) memcpy(x, s->samples + entry->begin / sizeof *x, count * sizeof *x);
    return x;
}

static bool measure(comparison *c, pair *p, uint64_t *counts)
{
    const bool sampled = c->ref.samples || c->other.samples;
    if (!p->other) {
        p->verdict = MISSING;
        return true;
    }
    const flis_entry *r = p->ref->entry, *o = p->other->entry;
    p->m.count = flis_entry_count(r);
    p->verdict = SHAPE;
    if (!shapes_agree(r, o, false)) return true;
    double *(*const read)(comparison * c, side * s, const flis_entry *entry) = sampled ? read_samples : read_values;
    double *a = read(c, &c->ref, r), *b = a ? read(c, &c->other, o) : NULL;
    if (sampled) p->m.count = samples_of(p->m.count);
    if (b) {
        const bool floats = !is_integer(r->dtype) && !is_integer(o->dtype);
        measure_values(&p->m, a, b, coarser(r->dtype, o->dtype), floats, counts);
        if (sampled) {
            p->m.at *= stride_of(flis_entry_count(r));
            p->m.first_bad *= stride_of(flis_entry_count(r));
        }
        p->m.excess = excess_of(&c->o, &p->m, p->ref);
        p->measured = true;
        p->verdict = p->m.bad_ref || p->m.bad_other ? NOT_FINITE : p->m.excess <= 1 ? SAME : DIFFERENT;
    }
    free(a);
    free(b);
    return flis_ok(&c->ctx);
}

bool measure_all(comparison *c)
{
    uint64_t *counts = flis_alloc(&c->ctx, BUCKETS, sizeof *counts);
    for (size_t i = 0; counts && i < c->count; i++) {
        pair *p = &c->pair[i];
        if (!measure(c, p, counts)) break;
        c->missing += p->verdict == MISSING;
        c->compared += p->verdict != MISSING;
        c->failed += p->verdict != MISSING && p->verdict != SAME;
        c->not_finite += p->verdict == NOT_FINITE;
        c->reshaped += p->other && !shapes_agree(p->ref->entry, p->other->entry, true);
        c->recast += p->other && p->ref->entry->dtype != p->other->entry->dtype;
        if (!c->first && p->verdict != SAME && p->verdict != MISSING) c->first = p;
    }
    free(counts);
    return flis_ok(&c->ctx);
}

bool differs(const comparison *c)
{
    return c->failed || (c->missing && !c->o.allow_missing);
}
