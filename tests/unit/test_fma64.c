/* test_fma64.c - flis_fma, the exact fma in double.
 *
 * Right is what IEEE 754 defines: the double nearest to a b + c, ties to even. Here a b + c is computed as a whole number of
 * 2^-2200, without the code under test and without the C library's fma, which is wrong on some systems. Where the tests
 * are compiled for a processor with fma, its instruction is compared too: FLIS_FMA_CASES cases (default 2 million).
 */
#include "tests/unit/test.h"

#include <float.h>

#define TINY 0x1p-1074 /* the smallest double above 0 */

static uint64_t bits_of(double x)
{
    uint64_t u;
    memcpy(&u, &x, sizeof u);
    return u;
}

static double double_of(uint64_t u)
{
    double x;
    memcpy(&x, &u, sizeof x);
    return x;
}

static bool same_double(double a, double b)
{
    return (isnan(a) && isnan(b)) || bits_of(a) == bits_of(b);
}

/* ---- The definition ------------------------------------------------------------------------------------------------ */

/* The sum of word[i] 2^(32 i - 2200). The largest product is below 2^2048. */
enum { WORDS = 136, LOWEST = -2200 };
typedef struct exact {
    uint32_t word[WORDS];
} exact;

static void add_word(exact *x, uint32_t m, int shift)
{
    uint64_t carry = (uint64_t)m << shift % 32;
    for (int i = shift / 32; carry && i < WORDS; i++, carry >>= 32) {
        carry += x->word[i];
        x->word[i] = (uint32_t)carry;
    }
}

/* x + m 2^exponent. */
static void add_to(exact *x, uint64_t m, int exponent)
{
    add_word(x, (uint32_t)m, exponent - LOWEST);
    add_word(x, (uint32_t)(m >> 32), exponent - LOWEST + 32);
}

/* x - y, for x >= y. */
static void subtract(exact *x, const exact *y)
{
    uint32_t borrow = 0;
    for (int i = 0; i < WORDS; i++) {
        const uint64_t taken = (uint64_t)y->word[i] + borrow;
        borrow = x->word[i] < taken;
        x->word[i] = (uint32_t)(x->word[i] - taken);
    }
}

static int order(const exact *x, const exact *y)
{
    for (int i = WORDS; i-- > 0;)
        if (x->word[i] != y->word[i]) return x->word[i] < y->word[i] ? -1 : 1;
    return 0;
}

/* |x| = m 2^exponent; infinity counts as 2^1024, the double that would follow the largest one. */
static uint64_t parts(uint64_t bits, int *exponent)
{
    const int field = (int)(bits >> 52 & 0x7ff);
    *exponent = (field ? field : 1) - 1075;
    return (bits & 0xfffffffffffffu) | (uint64_t)(field != 0) << 52;
}

static void add_double(exact *x, uint64_t bits)
{
    int exponent;
    const uint64_t m = parts(bits, &exponent);
    add_to(x, m, exponent);
}

/* True if r is the double nearest to +-v, ties to even: between the midpoints to its neighbours. */
static bool is_nearest(double r, bool negative, const exact *v)
{
    const uint64_t bits = bits_of(r), magnitude = bits & ~((uint64_t)1 << 63), infinite = 0x7ff0000000000000u;
    const bool even = !(bits & 1);
    if (magnitude > infinite || bits >> 63 != negative) return false;
    exact twice = *v, below, above;
    for (int i = WORDS; i-- > 0;) twice.word[i] = v->word[i] << 1 | (i ? v->word[i - 1] >> 31 : 0);
    memset(&below, 0, sizeof below);
    memset(&above, 0, sizeof above);
    if (magnitude) {
        add_double(&below, magnitude - 1);
        add_double(&below, magnitude);
        const int side = order(&below, &twice);
        if (side > 0 || (side == 0 && !even)) return false;
    }
    if (magnitude == infinite) return true;
    add_double(&above, magnitude);
    add_double(&above, magnitude + 1);
    const int side = order(&twice, &above);
    return side < 0 || (side == 0 && even);
}

/* True if r = a b + c, rounded once, for finite operands. */
static bool is_fma(double a, double b, double c, double r)
{
    exact product, addend;
    int ea, eb;
    const uint64_t ma = parts(bits_of(a), &ea), mb = parts(bits_of(b), &eb), ones = 0xffffffffu;
    const bool negative = signbit(a) != signbit(b), opposite = negative != (signbit(c) != 0);
    memset(&product, 0, sizeof product);
    memset(&addend, 0, sizeof addend);
    add_to(&product, (ma & ones) * (mb & ones), ea + eb);
    add_to(&product, (ma >> 32) * (mb & ones), ea + eb + 32);
    add_to(&product, (ma & ones) * (mb >> 32), ea + eb + 32);
    add_to(&product, (ma >> 32) * (mb >> 32), ea + eb + 64);
    add_double(&addend, bits_of(c));
    const int side = order(&product, &addend);
    if (!opposite) {
        add_double(&product, bits_of(c));
        return is_nearest(r, negative, &product);
    }
    if (side == 0) return bits_of(r) == 0;
    if (side > 0) {
        subtract(&product, &addend);
        return is_nearest(r, negative, &product);
    }
    subtract(&addend, &product);
    return is_nearest(r, !negative, &addend);
}

/* ---- Cases --------------------------------------------------------------------------------------------------------- */

/* naive counts the cases that a b + c gets wrong: without such cases a set would prove nothing. */
typedef struct tally {
    uint64_t cases, wrong, naive;
    bool defined; /* compare with the definition, not with the processor */
} tally;

#if defined(__GNUC__) && defined(__FMA__)
enum { HARDWARE = 1 };
#define HARDWARE_FMA(a, b, c) __builtin_fma(a, b, c)
#else
enum { HARDWARE = 0 };
#define HARDWARE_FMA(a, b, c) ((a) * (b) + (c))
#endif

static void compare(tally *t, double a, double b, double c)
{
    const double got = flis_fma(a, b, c), naive = a * b + c;
    if (t->defined && !(isfinite(a) && isfinite(b) && isfinite(c))) return;
    t->cases++;
    t->naive += !same_double(got, naive);
    if (t->defined ? is_fma(a, b, c, got) : same_double(got, HARDWARE_FMA(a, b, c))) return;
    t->wrong++;
    CHECK(false, "fma(%a, %a, %a): got %a", a, b, c, got);
}

static uint64_t next_random(uint64_t *state)
{
    uint64_t z = *state += 0x9E3779B97F4A7C15u;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    return z ^ z >> 31;
}

/* 2^e with any sign and a random fraction of `digits` digits; e from -1074 (where digits drop off at the end) to 1023. */
static double with_exponent(uint64_t r, int e, int digits)
{
    const uint64_t fraction = r & (0xfffffffffffffu << (52 - digits)) & 0xfffffffffffffu;
    const double x = ldexp((double)((uint64_t)1 << 52 | fraction), (e < -1074 ? -1074 : e > 1023 ? 1023 : e) - 52);
    return r >> 63 ? -x : x;
}

/* Any three bit patterns. */
static void any_bits(tally *t, uint64_t r, uint64_t s, uint64_t u, uint64_t v)
{
    (void)v;
    compare(t, double_of(r), double_of(s), double_of(u));
}

/* c's exponent near the product's: the sum has to be rounded. */
static void near(tally *t, uint64_t r, uint64_t s, uint64_t u, uint64_t v)
{
    const int ea = (int)(v & 1023) - 511, eb = (int)(v >> 10 & 1023) - 511, apart = (int)(v >> 20 & 255) - 127;
    compare(t, with_exponent(r, ea, 52), with_exponent(s, eb, 52), with_exponent(u, ea + eb + apart, 52));
}

/* Sums of few digits, many of them ties; products of 54 digits, the last of them 1, which are ties, and c far below, which
   decides. */
static void ties(tally *t, uint64_t r, uint64_t s, uint64_t u, uint64_t v)
{
    const int ea = (int)(v & 511) - 255, eb = (int)(v >> 9 & 511) - 255, digits = (int)(v >> 20 & 15),
              apart = (int)(v >> 24 & 127) - 63;
    compare(t, with_exponent(r, ea, digits), with_exponent(s, eb, 15 - digits), with_exponent(u, ea + eb + apart, 52));
    const double a = with_exponent(r | 1 << 26, ea, 26), b = with_exponent(s | 1 << 26, eb, 26);
    compare(t, a, b, with_exponent(u, ea + eb - 54 - (int)(v >> 40 & 255), 52));
    compare(t, a, b, 0.0);
}

/* c near -a b: all but the product's last digits cancel. */
static void cancellation(tally *t, uint64_t r, uint64_t s, uint64_t u, uint64_t v)
{
    const double a = with_exponent(r, (int)(v & 511) - 255, 52), b = with_exponent(s, (int)(v >> 9 & 511) - 255, 52),
                 p = a * b;
    compare(t, a, b, -p);
    compare(t, a, b, -double_of(bits_of(p) + 1));
    compare(t, a, b, -double_of(bits_of(p) ^ (uint64_t)1 << u % 52));
    compare(t, with_exponent(r, 0, 25), 3, with_exponent(r, 0, 25) * -3.0); /* +0 */
}

/* Results below 2^-1022, whose unit stays 2^-1074. */
static void subnormal(tally *t, uint64_t r, uint64_t s, uint64_t u, uint64_t v)
{
    const int ea = (int)(v & 1023) - 1000, sum = -1015 - (int)(v >> 10 & 127);
    const double tiny = double_of(u & 0x801fffffffffffffu);
    compare(t, with_exponent(r, ea, 52), with_exponent(s, sum - ea, 52), tiny);
    compare(t, with_exponent(r, ea, 52), with_exponent(s, sum - ea, 52), u & 1 ? 0.0 : -0.0);
    compare(t, with_exponent(r, -537, 3), with_exponent(s, -538 + (int)(v >> 20 & 3), 2), tiny);
    compare(t, double_of(r & 0x800fffffffffffffu), with_exponent(s, (int)(v >> 30 & 63) - 52, 52), tiny);
}

/* Around the largest double: half a unit above it is the first sum that becomes infinite. */
static void overflow(tally *t, uint64_t r, uint64_t s, uint64_t u, uint64_t v)
{
    const double top = double_of(0x7fefffffffffffffu - (v & 3)), sign = v >> 2 & 1 ? -1 : 1;
    compare(t, with_exponent(r, 511, 52), with_exponent(s, 512, 52), with_exponent(u, 1023, 52));
    compare(t, ldexp(sign, 485), 0x1p485, top * sign);
    compare(t, ldexp(1 + ldexp(1, -(int)(r % 52)), 485), ldexp(sign, 484 + (int)(s & 1)), top * sign);
    compare(t, top, 2 - ldexp(1, -(int)(r % 52)), -top);
}

static const struct {
    const char *name;
    void (*make)(tally *t, uint64_t r, uint64_t s, uint64_t u, uint64_t v);
} KIND[] = {{"any bits", any_bits},         {"near", near},           {"ties", ties},
            {"cancellation", cancellation}, {"subnormal", subnormal}, {"overflow", overflow}};
enum { KINDS = sizeof KIND / sizeof *KIND };

static void run_kind(size_t k, bool defined, uint64_t cases)
{
    uint64_t state = 3 + k;
    tally t = {.defined = defined};
    while (t.cases < cases && t.wrong < 20) {
        const uint64_t r = next_random(&state), s = next_random(&state), u = next_random(&state);
        KIND[k].make(&t, r, s, u, next_random(&state));
    }
    CHECK(t.wrong == 0, "%s: %llu of %llu cases are wrong", KIND[k].name, (unsigned long long)t.wrong,
          (unsigned long long)t.cases);
    CHECK(k == 0 || t.naive > t.cases / 50, "%s: a b + c is wrong in %llu cases only", KIND[k].name,
          (unsigned long long)t.naive);
    if (getenv("FLIS_FMA_CASES"))
        printf("fma in double, %s: %llu cases, %llu wrong; %llu would be wrong if rounded twice\n", KIND[k].name,
               (unsigned long long)t.cases, (unsigned long long)t.wrong, (unsigned long long)t.naive);
}

void test_fma_double_definition(void)
{
    for (size_t k = 0; k < KINDS; k++) run_kind(k, true, 10000);
}

void test_fma_double_hardware(void)
{
    const char *asked = getenv("FLIS_FMA_CASES");
    const uint64_t total = asked ? strtoull(asked, NULL, 10) : 2000000;
    for (size_t k = 0; HARDWARE && k < KINDS; k++) run_kind(k, false, total / KINDS);
}

/* Right answers from rational arithmetic. Several are wrong in mingw's C library, where fma rounds twice, and in glibc for
   mips64el, where ties go wrong; the two that start with 0x1.5184 are steps of the schedule. */
void test_fma_double_known(void)
{
    static const struct {
        double a, b, c, wanted;
    } known[] = {
        {1, 1, 0x1p-53, 1},
        {0x1.0000000000001p+0, 1, 0x1p-53, 0x1.0000000000002p+0},
        {0x1p-53, 1, 1, 1},
        {0x1p-53, 1, -0x1.0000000000001p+0, -1},
        {0x1p-53, 0x1.8p+1, 0x1.0000000000001p+0, 0x1.0000000000002p+0},
        {0x1.0000000000001p+0, 1, -0x1p-54, 0x1.0000000000001p+0},
        {1, 1, -0x1p-54, 1},
        {1, 1, -0x1.8p-54, 0x1.fffffffffffffp-1},
        {0x1.0000000000001p+0, 0x1.0000000000001p+0, -0x1.0000000000002p+0, 0x1p-104},
        {0x1.00000004p+0, 0x1.000002p+0, 0x1p-80, 0x1.0000020400001p+0},
        {0x1.00000004p+0, 0x1.000002p+0, -TINY, 0x1.00000204p+0},
        {1, 0x1.0000000000001p+0, 0x1.000000000002p-53, 0x1.0000000000002p+0},
        {0x1.0000002p+0, 0x1.ffffffcp-1, 0.0, 1},
        {0x1.0000002p+0, 0x1.ffffffcp-1, -0x1p-200, 0x1.fffffffffffffp-1},
        {0x1.0000002p+0, 0x1.ffffffcp-1, TINY, 1},
        {0x1.51843e435d131p-14, 0x1p+8, 0x1.ddabec9dbb2bap-6, 0x1.979815708c1f6p-5},
        {0x1.51843e435d131p-14, 0x1p+2, 0x1.ddabec9dbb2bap-6, 0x1.e2f1fd96c89ffp-6},
        {0x1p-600, 0x1.0000000000001p-475, 0.0, TINY},
        {-0x1p-600, 0x1.8p-474, 0.0, -2 * TINY},
        {0x1.0000000000001p-600, 0x1.0000000000001p-473, TINY, 3 * TINY},
        {0x1p-600, 0x1.8p-474, 0x1p-1022, 0x1.0000000000002p-1022},
        {0x1p-600, -0x1.8p-474, 0x1p-1022, 0x0.ffffffffffffep-1022},
        {0x1p-600, -0x1p-600, 0x1p-1022, 0x1p-1022},
        {TINY, TINY, TINY, TINY},
        {TINY, -TINY, TINY, TINY},
        {TINY, 0x1.8p-1, TINY, 2 * TINY},
        {TINY, 0x1p-1, -TINY, -0.0},
        {DBL_MAX, 0x1p+1, -DBL_MAX, DBL_MAX},
        {DBL_MAX, 1, 0x1p+969, DBL_MAX},
        {DBL_MAX, 1, 0x1p+970, INFINITY},
        {DBL_MAX, 1, 0x1.fffffffffffffp+969, DBL_MAX},
        {-DBL_MAX, 1, -0x1p+970, -INFINITY},
        {DBL_MAX, DBL_MAX, -DBL_MAX, INFINITY},
        {0x1p+512, 0x1p+512, -0x1p+970, INFINITY},
        {0x1p+512, 0x1p+512, -0x1p+969, INFINITY},
        {DBL_MAX, TINY, -1, -0x1.ffffffffffff8p-1},
        {0x1.8p+1, 0x1.4p+2, -0x1.dffffffffffffp+3, 0x1p-49},
        {0x1p+512, 0x1p+512, -0x1.8p+970, DBL_MAX},
        {0.0, -1, 0.0, 0.0},
        {0.0, -1, -0.0, -0.0},
        {2, 3, -6, 0.0},
        {-1e-200, 1e-200, 0.0, -0.0},
        {INFINITY, 0.0, 1, NAN},
        {INFINITY, 1, -INFINITY, NAN},
        {1, 1, NAN, NAN},
        {NAN, 0.0, INFINITY, NAN},
        {DBL_MAX, DBL_MAX, -INFINITY, -INFINITY},
        {-INFINITY, TINY, DBL_MAX, -INFINITY},
    };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        const double a = known[i].a, b = known[i].b, c = known[i].c, wanted = known[i].wanted;
        CHECK(same_double(flis_fma(a, b, c), wanted), "fma(%a, %a, %a): got %a, wanted %a", a, b, c, flis_fma(a, b, c),
              wanted);
        CHECK(same_double(flis_fma(b, a, c), wanted), "fma(%a, %a, %a): got %a, wanted %a", b, a, c, flis_fma(b, a, c),
              wanted);
        CHECK(isnan(wanted) || bits_of(wanted) << 1 == 0 || same_double(flis_fma(-a, b, -c), -wanted),
              "fma(%a, %a, %a): got %a, wanted %a", -a, b, -c, flis_fma(-a, b, -c), -wanted);
    }
}
