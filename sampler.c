/* sampler.c - random numbers, the noise schedule, and the samplers PLMS and DDIM with classifier-free guidance.
 *
 * Random numbers are PyTorch's: torch.randn on a CPU to the bit (ATen/native/cpu/DistributionTemplates.h and
 * avx_mathfun.h of PyTorch 1.13; SPEC 7.3 and 7.4), on CUDA within rounding. Schedule and samplers transcribe
 * FreestyleNet@5dcb8b8 ldm/models/diffusion/ddpm.py, plms.py and ddim.py, and ldm/modules/diffusionmodules/util.py.
 * This file does not know the U-Net: it gets eps through a callback, and treats latents as flat arrays in PyTorch's
 * order [4][h][w].
 */
#include "flis.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- mt19937 --------------------------------------------------------------------------------------------------- */

enum { WORDS = 624, MIDDLE = 397 };

/* w[0] = seed mod 2^32; w[i] = 1812433253 (w[i-1] ^ w[i-1] >> 30) + i. Matsumoto and Nishimura's initialisation;
   PyTorch uses the low 32 bits of the seed only. SPEC 7.1. */
void flis_rng_seed(flis_rng *rng, flis_rng_kind kind, uint64_t seed)
{
    if (!rng) return;
    memset(rng, 0, sizeof *rng);
    rng->kind = kind;
    rng->seed = seed;
    rng->at = WORDS;
    rng->mt[0] = (uint32_t)seed;
    for (uint32_t i = 1; i < WORDS; i++) rng->mt[i] = 1812433253u * (rng->mt[i - 1] ^ rng->mt[i - 1] >> 30) + i;
}

/* (high bit of a, low 31 bits of b) >> 1 ^ (0x9908b0df if that was odd). SPEC 7.1. */
static uint32_t twist(uint32_t a, uint32_t b)
{
    const uint32_t y = (a & 0x80000000u) | (b & 0x7fffffffu);
    return y >> 1 ^ (y & 1 ? 0x9908b0dfu : 0);
}

/* The next 624 words: w[i] = w[i + 397] ^ twist(w[i], w[i + 1]), indices mod 624. SPEC 7.1. */
static void refill(flis_rng *rng)
{
    uint32_t *w = rng->mt;
    for (int i = 0; i < WORDS - MIDDLE; i++) w[i] = w[i + MIDDLE] ^ twist(w[i], w[i + 1]);
    for (int i = WORDS - MIDDLE; i < WORDS - 1; i++) w[i] = w[i + MIDDLE - WORDS] ^ twist(w[i], w[i + 1]);
    w[WORDS - 1] = w[MIDDLE - 1] ^ twist(w[WORDS - 1], w[0]);
    rng->at = 0;
}

/* As if `count` words had been drawn. SPEC 7.1. */
static void skip_words(flis_rng *rng, uint64_t count)
{
    while (count) {
        if (rng->at >= WORDS) refill(rng);
        const uint64_t left = (uint64_t)(WORDS - rng->at), step = count < left ? count : left;
        rng->at += (int)step;
        count -= step;
    }
}

/* The next word, tempered. SPEC 7.1. */
static uint32_t next_word(flis_rng *rng)
{
    if (rng->at >= WORDS) refill(rng);
    uint32_t y = rng->mt[rng->at++];
    y ^= y >> 11;
    y ^= y << 7 & 0x9d2c5680u;
    y ^= y << 15 & 0xefc60000u;
    return y ^ y >> 18;
}

/* The next word, of either kind: the CUDA kind has a state of mt19937 too. SPEC 7.1. */
uint32_t flis_rng_u32(flis_rng *rng)
{
    return rng ? next_word(rng) : 0;
}

/* Uniform in [0, 1): the low 24 bits of one word, times 2^-24. SPEC 7.2. */
void flis_rand(flis_rng *rng, float *out, size_t count)
{
    if (!rng || !out) return;
    for (size_t i = 0; i < count; i++) out[i] = (float)(next_word(rng) & 0xffffffu) * 0x1p-24f;
}

/* Uniform in [0, 1): the low 53 bits of two words, times 2^-53; the first word drawn is the upper half. SPEC 7.2. */
void flis_rand_f64(flis_rng *rng, double *out, size_t count)
{
    if (!rng || !out) return;
    for (size_t i = 0; i < count; i++) {
        uint64_t high = next_word(rng), bits = high << 32 | next_word(rng);
        out[i] = (double)(bits & 0x1fffffffffffffu) * 0x1p-53;
    }
}

/* Integers from 0 to high - 1: word mod high, as torch.randint. SPEC 7.2. */
void flis_randint(flis_rng *rng, int64_t *out, size_t count, uint32_t high)
{
    if (!rng || !out) return;
    for (size_t i = 0; i < count; i++) out[i] = high ? next_word(rng) % high : 0;
}

/* ---- Double-double arithmetic ---------------------------------------------------------------------------------- */

/* PyTorch's scalar path calls libm's log1p, sin and cos, which are correctly rounded in nearly all cases. Here they are
   computed to about 30 digits as unevaluated sums high + low, and rounded once. Products use Dekker's splitting, which
   needs no fma. */
typedef struct pair {
    double high, low;
} pair;

static pair quick_sum(double a, double b) /* |a| >= |b| */
{
    double s = a + b;
    return (pair){s, b - (s - a)};
}

static pair sum_of(double a, double b)
{
    double s = a + b, t = s - a;
    return (pair){s, (a - (s - t)) + (b - t)};
}

static pair product_of(double a, double b)
{
    double p = a * b, t = a * 134217729.0, ah = t - (t - a), al = a - ah;
    t = b * 134217729.0;
    double bh = t - (t - b), bl = b - bh;
    return (pair){p, ((ah * bh - p) + ah * bl + al * bh) + al * bl};
}

static pair add(pair a, pair b)
{
    pair s = sum_of(a.high, b.high), t = sum_of(a.low, b.low);
    s = quick_sum(s.high, s.low + t.high);
    return quick_sum(s.high, s.low + t.low);
}

static pair multiply(pair a, pair b)
{
    pair p = product_of(a.high, b.high);
    return quick_sum(p.high, p.low + (a.high * b.low + a.low * b.high));
}

static pair divide(pair a, pair b)
{
    double q = a.high / b.high;
    pair p = multiply(b, (pair){q, 0}), rest = add(a, (pair){-p.high, -p.low});
    double q2 = rest.high / b.high;
    p = multiply(b, (pair){q2, 0});
    rest = add(rest, (pair){-p.high, -p.low});
    pair s = quick_sum(q, q2);
    return add(s, (pair){rest.high / b.high, 0});
}

static pair whole(double x)
{
    return (pair){x, 0};
}

static pair one_less(pair x) /* 1 - x */
{
    return add(whole(1), (pair){-x.high, -x.low});
}

/* log x = e ln 2 + 2 (s + s^3/3 + s^5/5 + …), s = (m - 1) / (m + 1), m in [sqrt(1/2), sqrt 2). SPEC 7.3. */
static double log_rounded(double x)
{
    const pair ln2 = {0x1.62e42fefa39efp-1, 0x1.abc9e3b39803fp-56};
    int e = 0;
    double m = frexp(x, &e);
    if (m < 0.70710678118654752) {
        m *= 2;
        e--;
    }
    pair s = divide(sum_of(m, -1), sum_of(m, 1)), z = multiply(s, s), sum = divide(whole(1), whole(41));
    for (int i = 39; i >= 1; i -= 2) sum = add(multiply(sum, z), divide(whole(1), whole(i)));
    sum = multiply(sum, s);
    sum = add((pair){2 * sum.high, 2 * sum.low}, multiply(ln2, whole(e)));
    return sum.high + sum.low;
}

/* sin x and cos x, 0 <= x < 8: r = x - k pi/2, Taylor sums in r. SPEC 7.3. */
static void sin_cos_rounded(double x, double *sine, double *cosine)
{
    const pair half_pi = {0x1.921fb54442d18p+0, 0x1.1a62633145c07p-54};
    const double half_pi_rest = -0x1.f1976b7ed8fbcp-110;
    double k = floor(x * 0.63661977236758134 + 0.5);
    pair r = add(whole(x), multiply(half_pi, whole(-k)));
    r = add(r, whole(-k * half_pi_rest));
    pair z = multiply(r, r), s = whole(0), c = whole(0);
    for (int i = 29; i >= 3; i -= 2) s = divide(multiply(z, one_less(s)), whole(i * (i - 1)));
    for (int i = 30; i >= 2; i -= 2) c = divide(multiply(z, one_less(c)), whole(i * (i - 1)));
    s = multiply(r, one_less(s));
    c = one_less(c);
    const double a = s.high + s.low, b = c.high + c.low;
    switch ((int)k & 3) {
    case 0:
        *sine = a;
        *cosine = b;
        break;
    case 1:
        *sine = b;
        *cosine = -a;
        break;
    case 2:
        *sine = -a;
        *cosine = -b;
        break;
    default:
        *sine = -b;
        *cosine = a;
        break;
    }
}

/* ---- Normal numbers on the CPU --------------------------------------------------------------------------------- */

static const double TWO_PI = 6.2831853071795865;
enum { BOX = 16 }; /* PyTorch's vector path starts at 16 values and works on 16 at a time */

/* Below 16 values: sqrt(-2 log(1 - u1)) cos(2 pi u0) in double (Box-Muller); the sine's half is stored for the next
   call. 1 - u is exact, so that log1p(-u) is log(1 - u). SPEC 7.3. */
static double normal_scalar(flis_rng *rng)
{
    if (rng->has_next_normal) {
        rng->has_next_normal = false;
        return rng->next_normal;
    }
    double u[2] = {0, 0}, sine, cosine;
    flis_rand_f64(rng, u, 2);
    double radius = sqrt(-2.0 * log_rounded(1.0 - u[1]));
    sin_cos_rounded(TWO_PI * u[0], &sine, &cosine);
    rng->next_normal = radius * sine;
    rng->has_next_normal = true;
    return radius * cosine;
}

/* Cephes' logf as in PyTorch's AVX2 kernels, contracted to fma where their compiler did. SPEC 7.4. */
static float log_avx2(float x)
{
    static const float p[9] = {7.0376836292e-2f,  -1.1514610310e-1f, 1.1676998740e-1f,
                               -1.2420140846e-1f, 1.4249322787e-1f,  -1.6668057665e-1f,
                               2.0000714765e-1f,  -2.4999993993e-1f, 3.3333331174e-1f};
    int exponent = 0;
    x = frexpf(x < 0x1p-126f ? 0x1p-126f : x, &exponent); /* in [0.5, 1) */
    float e = (float)exponent;
    if (x < 0.707106781186547524f) {
        e -= 1;
        x = (x - 1) + x;
    } else x = x - 1;
    float z = x * x, y = p[0];
    for (int i = 1; i < 9; i++) y = flis_fma_soft(y, x, p[i]);
    y = y * x;
    y = flis_fma_soft(y, z, e * -2.12194440e-4f);
    y = flis_fma_soft(-z, 0.5f, y);
    x = x + y;
    return flis_fma_soft(e, 0.693359375f, x);
}

/* Cephes' sinf and cosf likewise, x >= 0. SPEC 7.4. */
static void sin_cos_avx2(float x, float *sine, float *cosine)
{
    int j = ((int)(x * 1.27323954473516f) + 1) & ~1;
    float y = (float)j;
    x = flis_fma_soft(y, -0.78515625f, x);
    x = flis_fma_soft(y, -2.4187564849853515625e-4f, x);
    x = flis_fma_soft(y, -3.77489497744594108e-8f, x);
    float z = x * x;
    float c = flis_fma_soft(flis_fma_soft(2.443315711809948e-5f, z, -1.388731625493765e-3f), z, 4.166664568298827e-2f);
    c = c * z;
    c = flis_fma_soft(c, z, -(z * 0.5f));
    c = c + 1;
    float s = flis_fma_soft(flis_fma_soft(-1.9515295891e-4f, z, 8.3321608736e-3f), z, -1.6666654611e-1f);
    s = s * z;
    s = flis_fma_soft(s, x, x);
    bool swap = j & 2;
    float from_sine = swap ? c : s, from_cosine = swap ? s : c;
    *sine = j & 4 ? -from_sine : from_sine;
    *cosine = (j - 2) & 4 ? from_cosine : -from_cosine;
}

/* 16 uniforms d become normal: r = sqrt(-2 log(1 - d[j])), a = 2 pi d[j + 8]; d[j] = r cos a, d[j + 8] = r sin a.
   SPEC 7.4. */
static void box_muller(float *x)
{
    for (int j = 0; j < BOX / 2; j++) {
        float sine, cosine, radius = sqrtf(-2.0f * log_avx2(1.0f - x[j]));
        sin_cos_avx2((float)TWO_PI * x[j + BOX / 2], &sine, &cosine);
        x[j] = radius * cosine;
        x[j + BOX / 2] = radius * sine;
    }
}

/* The same in double, with correctly rounded log, sin and cos. SPEC 7.5. */
static void box_muller_f64(double *x)
{
    for (int j = 0; j < BOX / 2; j++) {
        double sine, cosine, radius = sqrt(-2.0 * log_rounded(1.0 - x[j]));
        sin_cos_rounded(TWO_PI * x[j + BOX / 2], &sine, &cosine);
        x[j] = radius * cosine;
        x[j + BOX / 2] = radius * sine;
    }
}

/* ---- Normal numbers on CUDA ------------------------------------------------------------------------------------ */

/* Philox 4x32-10 (Salmon et al., 2011): ten rounds of two multiplications, keys bumped by Weyl constants. SPEC 7.6. */
static void philox(uint32_t counter[4], uint64_t seed)
{
    uint32_t key[2] = {(uint32_t)seed, (uint32_t)(seed >> 32)};
    for (int round = 0; round < 10; round++) {
        uint64_t a = (uint64_t)0xD2511F53u * counter[0], b = (uint64_t)0xCD9E8D57u * counter[2];
        uint32_t next[4] = {(uint32_t)(b >> 32) ^ counter[1] ^ key[0], (uint32_t)b,
                            (uint32_t)(a >> 32) ^ counter[3] ^ key[1], (uint32_t)a};
        memcpy(counter, next, sizeof next);
        key[0] += 0x9E3779B9u;
        key[1] += 0xBB67AE85u;
    }
}

/* Value i of call n: Philox of the counter (n, 0, i, 0); u and v from its first two words; sqrt(-2 log u) sin v.
   SPEC 7.6. */
static double normal_cuda(const flis_rng *rng, size_t i)
{
    uint32_t word[4] = {rng->calls, 0, (uint32_t)i, 0};
    philox(word, rng->seed);
    float u = (float)word[0] * 0x1p-32f + 0x1p-33f;
    float v = (float)word[1] * 0x1.921fb6p-30f + 0x1.921fb6p-31f;
    return sqrt(-2.0 * flis_log(u)) * flis_sin(v);
}

/* Values first..first + 15 of a call; those of them that lie in begin..begin + count - 1 go to out. SPEC 7.4. */
static void normal_group(flis_rng *rng, size_t first, size_t begin, float *out, size_t count)
{
    float group[BOX];
    flis_rand(rng, group, BOX);
    box_muller(group);
    for (size_t i = 0; i < BOX; i++)
        if (first + i >= begin && first + i - begin < count) out[first + i - begin] = group[i];
}

/* Values begin..begin + count - 1 of torch.randn(total), whose other values are drawn, but not transformed. The last 16
   are drawn again if the total is no multiple of 16. SPEC 7.4. */
static void normal_groups(flis_rng *rng, size_t total, size_t begin, float *out, size_t count)
{
    const size_t first = begin / BOX * BOX, end = total / BOX * BOX;
    size_t at = first;
    skip_words(rng, first < end ? first : end);
    for (; at < end && at < begin + count; at += BOX) normal_group(rng, at, begin, out, count);
    skip_words(rng, total - (at < end ? at : end));
    if (total > end) normal_group(rng, total - BOX, begin, out, count);
}

/* The values that one call draws, for all pictures of the batch. SPEC 7.7. */
static size_t batch_total(const flis_rng *rng, size_t count)
{
    return rng->batch > 1 ? rng->batch * count : count;
}

/* torch.randn in float32: on CUDA Philox; on the CPU the scalar path below 16 values, else 16 at a time. Of a batch, the
   part of one picture. SPEC 7.4, 7.7. */
void flis_randn(flis_rng *rng, float *out, size_t count)
{
    if (!rng || !out || !count) return;
    const size_t total = batch_total(rng, count), begin = rng->batch > 1 ? rng->index * count : 0;
    if (rng->kind == FLIS_RNG_CUDA) {
        for (size_t i = 0; i < count; i++) out[i] = (float)normal_cuda(rng, begin + i);
        rng->calls++;
    } else if (total < BOX) {
        for (size_t i = 0; i < total; i++) {
            const float value = (float)normal_scalar(rng);
            if (i >= begin && i - begin < count) out[i - begin] = value;
        }
    } else normal_groups(rng, total, begin, out, count);
}

/* What `calls` calls of flis_randn take from the generator: on CUDA a call is one step of the counter; on the CPU a value is
   one word, and 16 more where the last 16 are drawn again. SPEC 7.7. */
void flis_randn_skip(flis_rng *rng, size_t count, uint64_t calls)
{
    if (!rng || !count) return;
    const size_t total = batch_total(rng, count);
    if (rng->kind == FLIS_RNG_CUDA) rng->calls += (uint32_t)calls;
    else if (total >= BOX) skip_words(rng, calls * (total + (total % BOX ? BOX : 0)));
    else
        for (uint64_t i = 0; i < calls * total; i++) normal_scalar(rng);
}

/* torch.randn in float64, by the same rules. SPEC 7.5. */
void flis_randn_f64(flis_rng *rng, double *out, size_t count)
{
    if (!rng || !out) return;
    if (rng->kind == FLIS_RNG_CUDA) {
        for (size_t i = 0; i < count; i++) out[i] = normal_cuda(rng, i);
        rng->calls++;
        return;
    }
    if (count < BOX) {
        for (size_t i = 0; i < count; i++) out[i] = normal_scalar(rng);
        return;
    }
    flis_rand_f64(rng, out, count);
    for (size_t i = 0; i + BOX <= count; i += BOX) box_muller_f64(out + i);
    if (count % BOX) {
        flis_rand_f64(rng, out + count - BOX, BOX);
        box_muller_f64(out + count - BOX);
    }
}

/* ---- Schedule -------------------------------------------------------------------------------------------------- */

/* beta_t = (sqrt(0.00085) … sqrt(0.0120) in even steps)^2; alpha_bar_t = product of 1 - beta up to t; both in double,
   then float32. The steps are torch.linspace's, to the bit: four at a time, the first of four by one fma from the start
   (in the second half of the range from the end), the others by adding multiples of the step.
   ddpm.py:117-160 register_schedule, util.py make_beta_schedule "linear". SPEC 8.1. */
void flis_schedule_make(flis_schedule *schedule)
{
    const double first = sqrt(0.00085), last = sqrt(0.0120), step = (last - first) / (FLIS_TIMESTEPS - 1);
    double product = 1;
    for (int t = 0; schedule && t < FLIS_TIMESTEPS; t++) {
        const int four = t / 4 * 4;
        double base =
            four < FLIS_TIMESTEPS / 2 ? flis_fma(step, four, first) : flis_fma(-step, FLIS_TIMESTEPS - four - 1, last);
        double root = base + (t - four) * step;
        schedule->beta[t] = root * root;
        product *= 1 - schedule->beta[t];
        schedule->alpha_bar[t] = product;
        schedule->alpha_bar32[t] = (float)product;
    }
}

/* sigma = eta sqrt((1 - a_prev) / (1 - a) (1 - a / a_prev)), a in float32 and a_prev in double, rounded where PyTorch
   rounds; with a single step PyTorch treats a_prev as a scalar and everything is float32. SPEC 8.3. */
static double sigma_of(double eta, float a, double prev, bool single)
{
    const float inverse = 1.0f / (1.0f - a);
    if (!single) return eta * sqrt((1 - prev) * (double)inverse * (1 - a / prev));
    const float ratio = inverse * (float)(1 - prev), rest = 1.0f - a / (float)prev;
    return (float)eta * sqrtf(ratio * rest);
}

/* True if the last timestep of range(0, 1000, 1000 / steps) + 1 is 1000, one beyond the schedule: where the stride
   divides 999. SPEC 8.2. */
static bool beyond_schedule(int steps)
{
    const int stride = FLIS_TIMESTEPS / steps, count = (FLIS_TIMESTEPS + stride - 1) / stride;
    return (count - 1) * stride + 1 >= FLIS_TIMESTEPS;
}

/* Timesteps are range(0, 1000, 1000 / steps) + 1; their count is the requested one only if it divides 1000. Where the
   last would be 1000, the authors' code reads past its arrays and crashes: 3, 9, 27, 36, 37, 101-111, 251-333,
   501-1000. util.py make_ddim_timesteps "uniform", make_ddim_sampling_parameters. SPEC 8.2. */
bool flis_steps_make(flis_ctx *ctx, const flis_schedule *schedule, flis_sampler_kind kind, int steps, double eta,
                     flis_steps *out)
{
    if (!flis_given(ctx, schedule, "steps: the schedule") || !flis_given(ctx, out, "steps: where they go"))
        return false;
    if (kind != FLIS_PLMS && kind != FLIS_DDIM)
        return flis_fail(ctx, "sampler: got kind %d, wanted FLIS_PLMS (%d) or FLIS_DDIM (%d)", (int)kind,
                         (int)FLIS_PLMS, (int)FLIS_DDIM);
    if (steps < 1 || steps > FLIS_TIMESTEPS) return flis_fail(ctx, "steps: got %d, wanted 1 to 500", steps);
    if (!(eta >= 0 && eta <= 1)) return flis_fail(ctx, "eta: got %g, wanted 0 to 1", eta);
    if (kind == FLIS_PLMS && eta != 0)
        return flis_fail(ctx, "eta: got %g, wanted 0: PLMS adds no noise (DDIM does)", eta);
    if (beyond_schedule(steps)) {
        int other = steps < FLIS_TIMESTEPS / 2 ? steps : FLIS_TIMESTEPS / 2;
        while (beyond_schedule(other)) other++;
        return flis_fail(ctx,
                         "steps: got %d, whose last timestep would be 1000, one beyond the schedule (the authors' "
                         "code crashes on it); wanted another count, such as %d",
                         steps, other);
    }
    const int stride = FLIS_TIMESTEPS / steps, count = (FLIS_TIMESTEPS + stride - 1) / stride;
    memset(out, 0, sizeof *out);
    out->count = (size_t)count;
    for (int i = 0; i < count; i++) {
        out->t[i] = (int64_t)i * stride + 1;
        out->alpha[i] = schedule->alpha_bar32[out->t[i]];
        out->alpha_prev[i] = i ? schedule->alpha_bar32[out->t[i - 1]] : schedule->alpha_bar32[0];
        out->sigma[i] = sigma_of(eta, out->alpha[i], out->alpha_prev[i], count == 1);
        out->sqrt_one_minus_alpha[i] = sqrtf(1.0f - out->alpha[i]);
    }
    return true;
}

/* ---- Samplers -------------------------------------------------------------------------------------------------- */

enum { HISTORY = 3 };

typedef struct sampler {
    const flis_sampling *options;
    const flis_model_fn *model;
    flis_steps steps;
    size_t count;                  /* values of a latent */
    flis_real *x;                  /* the caller's latents */
    flis_real *e, *uncond;         /* guided eps; the unconditional pass */
    flis_real *e_next, *eps_prime; /* PLMS: the first step's second evaluation; the combination it steps with */
    flis_real *x_prev, *pred_x0;
    flis_real *old[HISTORY]; /* guided eps of earlier steps, the newest first */
    size_t history;
    float *noise;
} sampler;

/* e = e_uncond + scale (e_cond - e_uncond); scale 1: the conditional pass alone. plms.py:173-189, ddim.py:166-180.
   SPEC 8.5. */
static bool guided_eps(flis_ctx *ctx, const sampler *s, const flis_real *x, int64_t t, flis_real *e)
{
    const bool guided = s->options->scale != 1;
    if (!s->model->eps(ctx, s->model->user, x, t, e, guided ? s->uncond : NULL)) return false;
    const flis_real scale = (flis_real)s->options->scale;
    for (size_t i = 0; guided && i < s->count; i++) e[i] = s->uncond[i] + scale * (e[i] - s->uncond[i]);
    return flis_ok(ctx);
}

/* pred_x0 = (x - sqrt(1 - a) e) / sqrt(a);  x_prev = sqrt(a_prev) pred_x0 + sqrt(1 - a_prev - sigma^2) e + sigma noise,
   rounding after each operation as PyTorch does; the coefficients are float32. Noise is drawn even where sigma is 0, so
   that later draws do not depend on eta. plms.py:200-217 get_x_prev_and_pred_x0, ddim.py:190-208. SPEC 8.4. */
static void step_from(flis_ctx *ctx, sampler *s, size_t index, const flis_real *e)
{
    const float a = s->steps.alpha[index], prev = (float)s->steps.alpha_prev[index];
    const float sigma = (float)s->steps.sigma[index], rest = 1.0f - prev, square = sigma * sigma;
    const flis_real root = sqrtf(a), root_prev = sqrtf(prev), direction = sqrtf(rest - square);
    const flis_real root_rest = s->steps.sqrt_one_minus_alpha[index];
    flis_randn(&ctx->rng, s->noise, s->count);
    for (size_t i = 0; i < s->count; i++) {
        s->pred_x0[i] = (s->x[i] - root_rest * e[i]) / root;
        s->x_prev[i] = root_prev * s->pred_x0[i] + direction * e[i] + (flis_real)sigma * (flis_real)s->noise[i];
    }
}

/* Adams-Bashforth over the guided eps of earlier steps; the first step is a pseudo improved Euler step, which evaluates
   a second time at the next timestep and then steps from the *original* x. SPEC 8.6 has the table. plms.py:219-236. */
static bool plms_eps(flis_ctx *ctx, sampler *s, size_t index)
{
    const flis_real *e = s->e, *o1 = s->old[0], *o2 = s->old[1], *o3 = s->old[2];
    if (s->history == 0) {
        step_from(ctx, s, index, e);
        if (!guided_eps(ctx, s, s->x_prev, s->steps.t[index ? index - 1 : 0], s->e_next)) return false;
    }
    for (size_t i = 0; i < s->count; i++)
        s->eps_prime[i] = s->history == 0   ? (e[i] + s->e_next[i]) / 2
                          : s->history == 1 ? (3 * e[i] - o1[i]) / 2
                          : s->history == 2 ? (23 * e[i] - 16 * o1[i] + 5 * o2[i]) / 12
                                            : (55 * e[i] - 59 * o1[i] + 37 * o2[i] - 9 * o3[i]) / 24;
    return true;
}

/* Puts the guided eps in front of the history; the oldest buffer is reused for it. SPEC 8.6. */
static void remember(sampler *s)
{
    flis_real *oldest = s->old[HISTORY - 1];
    memmove(&s->old[1], &s->old[0], (HISTORY - 1) * sizeof s->old[0]);
    s->old[0] = oldest;
    memcpy(oldest, s->e, s->count * sizeof *s->e);
    if (s->history < HISTORY) s->history++;
}

/* Steps from the largest timestep to the smallest: e = guided eps; DDIM steps with e, PLMS with its combination of e
   and the history. SPEC 8.6. */
static bool run(flis_ctx *ctx, sampler *s)
{
    const size_t total = s->steps.count;
    for (size_t i = 0; i < total; i++) {
        const size_t index = total - 1 - i;
        if (!flis_ok(ctx)) return false; /* a step callback may have failed (a full disk): no more evaluations */
        if (ctx->progress) ctx->progress(ctx->progress_user, "sample", i, total);
        if (ctx->interrupted && *ctx->interrupted) return flis_fail(ctx, "interrupted");
        if (!guided_eps(ctx, s, s->x, s->steps.t[index], s->e)) return false;
        const flis_real *e = s->e;
        if (s->options->kind == FLIS_PLMS) {
            if (!plms_eps(ctx, s, index)) return false;
            e = s->eps_prime;
        }
        step_from(ctx, s, index, e);
        remember(s);
        const flis_step step = {i, total, index, s->steps.t[index], s->e, s->x_prev, s->pred_x0};
        if (s->model->step) s->model->step(ctx, s->model->user, &step);
        memcpy(s->x, s->x_prev, s->count * sizeof *s->x);
    }
    if (ctx->progress) ctx->progress(ctx->progress_user, "sample", total, total);
    return flis_ok(ctx);
}

/* Makes the timesteps and coefficients, allocates the arrays, and runs the sampler on x in place. SPEC 8.6. */
bool flis_sample(flis_ctx *ctx, const flis_sampling *options, size_t count, flis_real *x, const flis_model_fn *model)
{
    enum { ARRAYS = 6 + HISTORY };
    if (!flis_given(ctx, options, "sampler: the options") || !flis_given(ctx, x, "sampler: the latents") ||
        !flis_given(ctx, model, "sampler: the model"))
        return false;
    if (!model->eps) return flis_fail(ctx, "sampler: the model's eps: got NULL");
    if (ctx->rng.kind != FLIS_RNG_CPU && ctx->rng.kind != FLIS_RNG_CUDA)
        return flis_fail(ctx, "sampler: got a generator of kind %d, wanted FLIS_RNG_CPU (%d) or FLIS_RNG_CUDA (%d)",
                         (int)ctx->rng.kind, (int)FLIS_RNG_CPU, (int)FLIS_RNG_CUDA);
    flis_schedule *schedule = flis_alloc(ctx, 1, sizeof *schedule);
    sampler *s = flis_alloc(ctx, 1, sizeof *s);
    flis_real *memory = count <= SIZE_MAX / ARRAYS ? flis_alloc(ctx, count * ARRAYS, sizeof *memory) : NULL;
    bool done = false;
    if (schedule && s && memory && (s->noise = flis_alloc(ctx, count, sizeof *s->noise))) {
        flis_real **arrays[ARRAYS] = {&s->e,       &s->uncond, &s->e_next, &s->eps_prime, &s->x_prev,
                                      &s->pred_x0, &s->old[0], &s->old[1], &s->old[2]};
        for (size_t i = 0; i < ARRAYS; i++) *arrays[i] = memory + i * count;
        s->options = options;
        s->model = model;
        s->count = count;
        s->x = x;
        flis_schedule_make(schedule);
        done = flis_steps_make(ctx, schedule, options->kind, options->steps, options->eta, &s->steps) && run(ctx, s);
        free(s->noise);
    }
    free(memory);
    free(s);
    free(schedule);
    return done;
}
