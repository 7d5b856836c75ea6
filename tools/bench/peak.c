/* peak.c - the unit of bench: this machine's peak rate of multiply-adds, measured with a plain C99 loop that does
 * nothing else and is compiled like the library.
 */
#include "tools/bench/bench.h"

#include <math.h>

/* ROWS rows of LANES independent sums in named arrays, one loop over the lanes each: s = s a + b, with nothing to load
   or store. The shapes are those of tensor.c's kernel for the same macros: compilers keep them in registers (clang for
   AVX only with two steps per iteration). A machine that starts two multiply-adds per cycle with a latency of four
   cycles needs eight vectors. Measured on one core of Zen 4, whose clock allows 118.2 GFLOP/s, gcc 12 / clang 14:
   AVX-512 118.2 / 118.2, AVX2 118.2 / 118.2, SSE2 (half of it) 59.1 / 53.2. Clang with AVX2, one step per iteration:
   52; 4 rows of 24: 51. */
#if defined(__AVX512F__)
enum { ROWS = 8, LANES = 128 / sizeof(flis_real), TWO_AT_ONCE = 0 };
#define EACH_ROW(X) X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7)
#elif defined(__AVX__) && defined(__clang__)
enum { ROWS = 2, LANES = 128 / sizeof(flis_real), TWO_AT_ONCE = 1 };
#define EACH_ROW(X) X(0) X(1)
#elif defined(__AVX__) || defined(__aarch64__)
enum { ROWS = 4, LANES = 96 / sizeof(flis_real), TWO_AT_ONCE = 0 };
#define EACH_ROW(X) X(0) X(1) X(2) X(3)
#else
enum { ROWS = 12, LANES = 16 / sizeof(flis_real), TWO_AT_ONCE = 0 };
#define EACH_ROW(X) X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11)
#endif

/* The same condition as in tensor.c. Without fma in hardware the peak is that of a product and a sum. flis cannot reach
   it, because canonical arithmetic rounds once: flis then computes fma with several operations. */
#if defined(__FMA__) || defined(__ARM_FEATURE_FMA) || defined(FP_FAST_FMAF)
#define HAVE_FMA 1
#else
#define HAVE_FMA 0
#endif
static inline flis_real multiply_add(flis_real s, flis_real a, flis_real b)
{
#if HAVE_FMA && defined(FLIS_DOUBLE)
    return fma(s, a, b);
#elif HAVE_FMA
    return fmaf(s, a, b);
#else
    return s * a + b;
#endif
}

/* Sums that start equal would be merged by the compiler, so each starts from its own total. */
static void peak_loop(size_t count, flis_real a, flis_real b, flis_real *restrict total)
{
#define DECLARE(i) \
    flis_real s##i[LANES]; \
    for (int j = 0; j < LANES; j++) s##i[j] = total[i * LANES + j] + a;
    EACH_ROW(DECLARE)
#undef DECLARE
#define STEP(i) \
    for (int j = 0; j < LANES; j++) s##i[j] = multiply_add(s##i[j], a, b);
    size_t k = 0;
    if (TWO_AT_ONCE)
        for (; k + 1 < count; k += 2) {
            EACH_ROW(STEP)
            EACH_ROW(STEP)
        }
    for (; k < count; k++) { EACH_ROW(STEP) }
#undef STEP
#define FINISH(i) \
    for (int j = 0; j < LANES; j++) total[i * LANES + j] += s##i[j];
    EACH_ROW(FINISH)
#undef FINISH
}

/* Seconds for `parts` times `count` rounds, scheduled like products: a preempted thread delays the end by one part, not by its
   share of all parts. volatile prevents the compiler from computing the sums beforehand. */
static double peak_seconds(size_t count, int parts, int threads)
{
    static volatile flis_real factor = (flis_real)0.5, summand = 1;
    const flis_real a = factor, b = summand;
    double all = 0;
    const double start = seconds_now();
#ifdef _OPENMP
#pragma omp parallel for num_threads(threads) schedule(dynamic) reduction(+ : all)
#else
    (void)threads;
#endif
    for (int i = 0; i < parts; i++) {
        flis_real total[ROWS * LANES];
        for (int j = 0; j < ROWS * LANES; j++) total[j] = (flis_real)j;
        peak_loop(count, a, b, total);
        for (int j = 0; j < ROWS * LANES; j++) all += (double)total[j];
    }
    const double seconds = seconds_now() - start;
    volatile double used = all;
    (void)used;
    return seconds;
}

bool peak_has_fma(void)
{
    return HAVE_FMA;
}

/* The best of four tries, because a preempted one is too slow. */
size_t peak_calibrate(void)
{
    size_t rounds = 1 << 10;
    for (; rounds < (size_t)1 << 30; rounds *= 2) {
        double best = 1;
        for (int try = 0; try < 4; try++) {
            const double seconds = peak_seconds(rounds, 1, 1);
            if (seconds < best) best = seconds;
        }
        if (best > 0.0007) break;
    }
    return rounds;
}

/* The best of five tries of about 20 ms. */
double peak_rate(const bench *b)
{
    const int parts = 20 * b->ctx.threads;
    double best = 0;
    for (int try = 0; try < 5; try++) {
        const double flop = 2.0 * ROWS * LANES * (double)b->peak_rounds * parts;
        const double rate = flop / peak_seconds(b->peak_rounds, parts, b->ctx.threads);
        if (rate > best) best = rate;
    }
    return best;
}

void bench_peak(bench *b)
{
    for (size_t i = 0; i < b->threads.count && flis_ok(&b->ctx); i++) {
        b->ctx.threads = (int)b->threads.at[i];
        show_status("peak");
        const double best = peak_rate(b);
        print_peak(b, best, i == 0);
    }
}
