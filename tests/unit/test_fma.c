/* test_fma.c - fma without hardware, flis_fma_soft, against C99's fmaf, which IEEE 754 defines to the bit.
 *
 * The quick run takes 2 million random cases. FLIS_FMA_CASES=100000000 in the environment takes that many and prints
 * what was compared (`make platforms` uses it). fmaf is the processor's instruction where the tests are compiled for
 * it, else the C library's function.
 */
#include "tests/unit/test.h"

#include <float.h>

static float float_of(uint32_t u)
{
    float x;
    memcpy(&x, &u, sizeof x);
    return x;
}

static uint32_t bits_of(float x)
{
    uint32_t u;
    memcpy(&u, &x, sizeof u);
    return u;
}

static uint64_t next_random(uint64_t *state)
{
    uint64_t z = *state += 0x9E3779B97F4A7C15u;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    return z ^ z >> 31;
}

/* What was compared so far. naive counts the cases in which double arithmetic without the correction is wrong: a set of
   ties without such cases would prove nothing. */
typedef struct tally {
    uint64_t cases, wrong, naive;
} tally;

static bool same_float(float a, float b)
{
    return (isnan(a) && isnan(b)) || bits_of(a) == bits_of(b);
}

static void compare(tally *t, float a, float b, float c)
{
    const float wanted = fmaf(a, b, c), got = flis_fma_soft(a, b, c);
    t->cases++;
    t->naive += !same_float(wanted, (float)((double)a * b + c));
    if (same_float(wanted, got)) return;
    t->wrong++;
    CHECK(false, "fma(%a, %a, %a): got %a, wanted %a", (double)a, (double)b, (double)c, (double)got, (double)wanted);
}

static void say(const char *what, const tally *t)
{
    if (getenv("FLIS_FMA_CASES"))
        printf("fma %s: %llu cases, %llu wrong; %llu would be wrong if rounded twice\n", what,
               (unsigned long long)t->cases, (unsigned long long)t->wrong, (unsigned long long)t->naive);
}

/* 2^e with any sign, and a random fraction. e from -149 (where bits drop off at the end) to 127. */
static float with_exponent(uint64_t r, int e)
{
    const float x = ldexpf((float)(0x800000 | (r & 0x7fffff)), e - 23);
    return r >> 24 & 1 ? -x : x;
}

static int clamped(int e)
{
    return e < -149 ? -149 : e > 127 ? 127 : e;
}

/* Half of them any three bit patterns; half with c's exponent near the product's, where the sum has to be rounded. */
void test_fma_random(void)
{
    const char *asked = getenv("FLIS_FMA_CASES");
    const uint64_t total = asked ? strtoull(asked, NULL, 10) : 2000000;
    uint64_t state = 1;
    tally t = {0, 0, 0};
    CHECK(total > 0, "FLIS_FMA_CASES: got \"%s\", wanted a number", asked ? asked : "");
    while (t.cases < total && t.wrong < 20) {
        const uint64_t r = next_random(&state), s = next_random(&state);
        compare(&t, float_of((uint32_t)r), float_of((uint32_t)(r >> 32)), float_of((uint32_t)s));
        const int ea = (int)(s >> 32 & 127) - 75, eb = (int)(s >> 39 & 127) - 75, apart = (int)(s >> 46 & 63) - 31;
        compare(&t, with_exponent(r, ea), with_exponent(r >> 32, eb), with_exponent(s, clamped(ea + eb + apart)));
    }
    CHECK(t.wrong == 0, "%llu of %llu cases differ from fmaf", (unsigned long long)t.wrong,
          (unsigned long long)t.cases);
    say("random", &t);
}

/* a b on a tie of 24 bits (an odd number of 25 bits, times a power of two), and c far below it: c alone determines the
   rounding, by a digit that double does not have. */
static void tie_of_product(tally *t, uint64_t r, uint64_t s)
{
    uint32_t a = 1 | (uint32_t)(r & 0xfff), b = 1 | (uint32_t)(r >> 12 & 0x1fff);
    while ((uint64_t)a * b < 1 << 24) a < 0x1000 ? (a = 2 * a + 1) : (b = 2 * b + 1);
    const int e = (int)(s & 63) - 32, below = 29 + (int)(s >> 6 & 63);
    const float sign = s >> 12 & 1 ? -1.0f : 1.0f;
    compare(t, ldexpf((float)a * sign, e), (float)b, with_exponent(r >> 32, clamped(e + 24 - below)));
    compare(t, ldexpf((float)a * sign, e), (float)b, 0.0f * sign);
}

/* a b slightly off half a unit of c: the sum lies beside a tie, and double rounds it onto the tie. */
static void tie_of_sum(tally *t, uint64_t r, uint64_t s)
{
    const float hair = ldexpf((float)(1 + r % 64), -23), sign = s & 1 ? 1.0f : -1.0f;
    const int e = (int)(s >> 1 & 127) - 100;
    compare(t, 1 + hair, ldexpf((1 - hair) * sign, e), ldexpf((float)((1u << 23) + (s >> 8 & 0x7fffff)), e + 1));
    compare(t, 1, ldexpf(sign, e), ldexpf((float)((1u << 23) + (s >> 8 & 0x7fffff)), e + 1));
}

/* Results below 2^-126, where the unit stays 2^-149: products with digits above and below it, with and without c. */
static void subnormal_result(tally *t, uint64_t r, uint64_t s)
{
    const int ea = (int)(s & 63) - 90, sum = -125 - (int)(s >> 6 & 31);
    const float tiny = float_of((uint32_t)(s >> 16 & 0xffffff) | (uint32_t)(s >> 40 & 1) << 31); /* to 2^-125 */
    compare(t, with_exponent(r, ea), with_exponent(r >> 32, sum - ea), tiny);
    compare(t, with_exponent(r, ea), with_exponent(r >> 32, sum - ea), 0.0f);
    /* Onto a tie of the subnormal unit, an odd multiple of 2^-150; and beside it by less than double can represent. */
    const float odd = (float)(1 + 2 * (r & 0xff)), hair = ldexpf((float)(1 + (r >> 8 & 7)), -23);
    compare(t, odd * 0x1p-75f, 0x1p-75f, tiny);
    compare(t, (1 + hair) * 0x1p-75f, (1 - hair) * (s >> 41 & 1 ? -0x1p-75f : 0x1p-75f), tiny);
}

/* c near -a b: all but the product's last digits cancel. */
static void cancellation(tally *t, uint64_t r, uint64_t s)
{
    const float a = with_exponent(r, (int)(s & 31) - 16), b = with_exponent(r >> 32, (int)(s >> 5 & 31) - 16),
                p = a * b;
    compare(t, a, b, -p);
    compare(t, a, b, -float_of(bits_of(p) + 1));
    compare(t, a, b, -float_of(bits_of(p) - 1));
    compare(t, a, b, -float_of(bits_of(p) ^ (1u << (s >> 10) % 23)));
    const float a16 = (float)(r & 0xfff), b16 = (float)(r >> 12 & 0xfff); /* exact products: +0 when they cancel */
    compare(t, a16, -b16, a16 * b16);
}

/* Around the largest float: half a unit above it is the first sum that becomes infinite. */
static void overflow_edge(tally *t, uint64_t r, uint64_t s)
{
    const float sign = s & 1 ? -1.0f : 1.0f, top = float_of(0x7f7fffffu - (uint32_t)(s >> 1 & 3)),
                hair = ldexpf(1, -1 - (int)(r % 23));
    compare(t, 0x1p52f, 0x1p51f * sign, top * sign);
    compare(t, 0x1p52f * (1 + hair), 0x1p51f * (1 - hair) * sign, top * sign);
    compare(t, 0x1p52f * (1 - hair), 0x1p51f * sign, top * sign);
    compare(t, with_exponent(r, 63), with_exponent(r >> 32, 64), with_exponent(s, 127));
    compare(t, top, 1 + hair, -top * sign);
}

void test_fma_hard(void)
{
    static const struct {
        const char *name;
        void (*make)(tally *t, uint64_t r, uint64_t s);
        bool ties;
    } kind[] = {
        {"ties of the product", tie_of_product, true},
        {"ties of the sum", tie_of_sum, true},
        {"subnormal results", subnormal_result, true},
        {"cancellation", cancellation, false},
        {"overflow", overflow_edge, true},
    };
    uint64_t state = 2;
    for (size_t k = 0; k < sizeof kind / sizeof *kind; k++) {
        tally t = {0, 0, 0};
        while (t.cases < 25000) {
            const uint64_t r = next_random(&state), s = next_random(&state);
            kind[k].make(&t, r, s);
        }
        CHECK(t.wrong == 0, "%s: %llu of %llu cases differ from fmaf", kind[k].name, (unsigned long long)t.wrong,
              (unsigned long long)t.cases);
        CHECK(!kind[k].ties || t.naive > 100, "%s: rounding twice would be detected in %llu cases only", kind[k].name,
              (unsigned long long)t.naive);
        say(kind[k].name, &t);
    }
}

/* Every triple of the values that have special rules: signed zeros, infinities, NaN, the ends of each range. */
void test_fma_special(void)
{
    static const uint32_t positive[] = {
        0,          1,          2,          0x400000,   0x7fffff,   0x800000,   0x800001,   0x1f800000, 0x20000000,
        0x33800000, 0x34000000, 0x3effffff, 0x3f000000, 0x3f7fffff, 0x3f800000, 0x3f800001, 0x3fc00000, 0x4b7fffff,
        0x5f000000, 0x5f7fffff, 0x7f000000, 0x7f7ffffe, 0x7f7fffff, 0x7f800000, 0x7fc00000,
    };
    enum { VALUES = 2 * sizeof positive / sizeof *positive };
    float x[VALUES];
    tally t = {0, 0, 0};
    for (size_t i = 0; i < VALUES; i++) x[i] = float_of(positive[i / 2] | (i % 2 ? 0x80000000u : 0));
    for (size_t i = 0; i < VALUES; i++)
        for (size_t j = 0; j < VALUES; j++)
            for (size_t k = 0; k < VALUES; k++) compare(&t, x[i], x[j], x[k]);
    CHECK(t.wrong == 0, "%llu of %llu cases differ from fmaf", (unsigned long long)t.wrong,
          (unsigned long long)t.cases);
    /* The special rules, written out, independently of fmaf. */
    CHECK(bits_of(flis_fma_soft(-0.0f, 1, -0.0f)) == 0x80000000u && bits_of(flis_fma_soft(-0.0f, 1, 0.0f)) == 0 &&
              bits_of(flis_fma_soft(2, 3, -6)) == 0 && bits_of(flis_fma_soft(-1e-30f, 1e-30f, 0)) == 0x80000000u,
          "zeros' signs");
    CHECK(isnan(flis_fma_soft(INFINITY, 0, 1)) && isnan(flis_fma_soft(INFINITY, 1, -INFINITY)) &&
              isnan(flis_fma_soft(1, 1, NAN)) && flis_fma_soft(FLT_MAX, FLT_MAX, -INFINITY) == -INFINITY &&
              flis_fma_soft(FLT_MAX, 2, -FLT_MAX) == FLT_MAX,
          "infinities");
    say("special", &t);
}

/* Operands of dot products over k = 0, 1: row {unit, a}, output o {c, b}: fma(a, b, unit c). unit is a power of two. */
static void row_operands(uint64_t *state, int kind, float *unit, float *a, float *b, float *c, size_t outputs)
{
    const uint64_t q = next_random(state);
    const float hair = ldexpf((float)(1 + q % 64), -23);
    const float row[] = {with_exponent(q, (int)(q >> 32 & 63) - 31), 1 + hair, (1 + hair) * 0x1p-75f, 1,
                         float_of((uint32_t)q)};
    *unit = kind == 2 ? 0x1p-75f : 1;
    *a = row[kind];
    for (size_t o = 0; o < outputs; o++) {
        const uint64_t r = next_random(state), s = next_random(state);
        const float sign = s & 1 ? 1.0f : -1.0f, odd = (float)((1u << 23) + (s >> 8 & 0x7fffff));
        const int e = (int)(s >> 1 & 127) - 100;
        switch (kind) {
        case 0:
            b[o] = with_exponent(r, (int)(s & 63) - 31), c[o] = with_exponent(r >> 32, (int)(s >> 6 & 127) - 63);
            break;
        case 1: /* beside a tie by less than double can represent */
        case 3: /* onto a tie */ b[o] = ldexpf((kind == 1 ? 1 - hair : 1) * sign, e), c[o] = ldexpf(odd, e + 1); break;
        case 2: /* the same for subnormal sums */
            b[o] = (1 - hair) * 0x1p-75f * sign, c[o] = (float)(s >> 16 & 0xffffff) * 0x1p-74f;
            break;
        default:
            b[o] = float_of((uint32_t)r), c[o] = float_of((uint32_t)(r >> 32)); /* any bits, also infinite and NaN */
        }
        if (r >> 60 == 0) b[o] = 0;
    }
}

/* Dot products take many lanes at once: without fma in hardware by another way than flis_fma_soft. */
void test_fma_rows(void)
{
    enum { ROWS = 5, OUTPUTS = 50, KINDS = 5 };
    if (sizeof(flis_real) != sizeof(float)) return;
    const char *asked = getenv("FLIS_FMA_CASES");
    const uint64_t total = asked ? strtoull(asked, NULL, 10) : 1000000;
    uint64_t state = 3;
    flis_ctx ctx;
    CHECK(flis_init(&ctx), "flis_init");
    for (int kind = 0; kind < KINDS; kind++) {
        tally t = {0, 0, 0};
        while (t.cases < total / KINDS && t.wrong < 4) {
            float unit, a, b[OUTPUTS], c[OUTPUTS];
            flis_real values[OUTPUTS * 2];
            row_operands(&state, kind, &unit, &a, b, c, OUTPUTS);
            for (size_t o = 0; o < OUTPUTS; o++) values[2 * o] = c[o], values[2 * o + 1] = b[o];
            flis_param w = {.rank = 2, .shape = {OUTPUTS, 2}};
            const flis_mark mark = flis_here(&ctx);
            flis_tensor *x = flis_rows(&ctx, 1, ROWS, 2), *y;
            for (size_t r = 0; r < ROWS; r++) x->x[2 * r] = unit, x->x[2 * r + 1] = a;
            flis_param_set(&ctx, &w, values, false);
            y = flis_linear(&ctx, x, &w, NULL, NULL);
            for (size_t i = 0; flis_ok(&ctx) && i < ROWS * OUTPUTS; i++) {
                const size_t o = i % OUTPUTS;
                /* the block's sum is added to a total of 0, as the first step to a sum of 0 */
                const float wanted = 0 + fmaf(a, b[o], unit * c[o]), got = (float)y->x[i];
                t.cases++;
                t.naive += !same_float(wanted, 0 + (float)((double)a * b[o] + unit * c[o]));
                if (same_float(wanted, got)) continue;
                t.wrong++;
                CHECK(false, "kind %d: fma(%a, %a, %a): got %a, wanted %a", kind, (double)a, (double)b[o],
                      (double)(unit * c[o]), (double)got, (double)wanted);
            }
            CHECK(flis_ok(&ctx), "%s", ctx.error);
            if (!flis_ok(&ctx)) break;
            flis_free_visit(&ctx, NULL, "w", &w);
            flis_rewind(&ctx, mark);
        }
        CHECK((kind != 1 && kind != 2) || t.naive > 100, "kind %d: rounding twice would be detected in %llu cases only",
              kind, (unsigned long long)t.naive);
        say("rows", &t);
    }
    flis_free(&ctx);
}
