/* bench.c - how fast flis is here, told as fractions of what this machine can do.
 *
 * The measure is the machine's own peak of multiply-adds, found by a plain C99 loop below that does nothing else,
 * compiled by the same compiler for the same machine as the library, and measured again just before and after every
 * line: on a machine that is busy or throttled the fractions still mean something, and that the two peaks differ shows.
 * Measured: the shapes that the model's products and norms have, then whole stages, then loading. Nothing here looks at
 * results (the suite does), and nothing is tuned: the library runs as it does in `flis generate`.
 *
 * In order: the machine, the peak, measuring, printing, operations, stages, loading, options and main.
 */

/* ---- The machine: what is outside C99, each with a fallback ------------------------------------------------------ */

#if defined(__unix__) || defined(__APPLE__)
#define _XOPEN_SOURCE 700
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>
#define HAVE_POSIX 1
#else
#include <time.h>
#define HAVE_POSIX 0
#endif

#include "flis.h"

#include <math.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#ifdef _OPENMP
#include <omp.h>
#endif

/* Seconds since some moment. */
static double now(void)
{
#if HAVE_POSIX
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
#elif defined(_OPENMP)
    return omp_get_wtime();
#else
    return (double)clock() / CLOCKS_PER_SEC;
#endif
}

static bool stderr_is_terminal(void)
{
#if HAVE_POSIX
    return isatty(STDERR_FILENO);
#else
    return false;
#endif
}

/* The most memory that this process ever had, in bytes; 0: nobody knows. */
static double process_peak(void)
{
#if HAVE_POSIX
    struct rusage use;
    if (getrusage(RUSAGE_SELF, &use) != 0) return 0;
#ifdef __APPLE__
    return (double)use.ru_maxrss;
#else
    return (double)use.ru_maxrss * 1024;
#endif
#else
    return 0;
#endif
}

/* What programs may still take, in bytes; 0: nobody knows. Only Linux tells. */
static double memory_available(void)
{
    char line[128];
    double kilobytes = 0;
    FILE *file = fopen("/proc/meminfo", "r");
    if (!file) return 0;
    while (fgets(line, sizeof line, file))
        if (strncmp(line, "MemAvailable:", 13) == 0) kilobytes = strtod(line + 13, NULL);
    fclose(file);
    return kilobytes * 1024;
}

static size_t processors(void)
{
#ifdef _OPENMP
    return (size_t)omp_get_num_procs();
#else
    return 1;
#endif
}

/* A place for a file of ours alone; false: none could be made. */
typedef struct scratch_file {
    char folder[512], path[600];
} scratch_file;
static bool scratch_make(scratch_file *s)
{
#if HAVE_POSIX
    const char *where = getenv("TMPDIR");
#ifdef P_tmpdir
    if (!where || !*where) where = P_tmpdir;
#endif
    if (!where || !*where) where = ".";
    if (snprintf(s->folder, sizeof s->folder, "%s/flis-bench-XXXXXX", where) >= (int)sizeof s->folder) return false;
    if (!mkdtemp(s->folder)) return false;
    snprintf(s->path, sizeof s->path, "%s/model.safetensors", s->folder);
    return true;
#else
    s->folder[0] = 0;
    snprintf(s->path, sizeof s->path, "flis-bench.safetensors");
    FILE *there = fopen(s->path, "rb");
    if (there) fclose(there);
    return !there;
#endif
}

static void scratch_remove(const scratch_file *s)
{
    remove(s->path);
    if (s->folder[0]) remove(s->folder);
}

static volatile sig_atomic_t interrupted;
static void on_signal(int number)
{
    interrupted = 1;
    signal(number, SIG_DFL);
}

/* ---- What is asked for ------------------------------------------------------------------------------------------- */

enum { MAX_LIST = 16, MAX_RUNS = 1000, MAX_MEMORY = 64 };
enum { PEAK = 1, KERNELS = 2, CLIP = 4, UNET = 8, VAE = 16, LOAD = 32, EVERYTHING = 63 };
static const char *const PARTS[] = {"peak", "kernels", "clip", "unet", "vae", "load"};

typedef struct number_list {
    size_t count;
    uint64_t at[MAX_LIST];
} number_list;
typedef struct memory_line {
    const char *stage;
    uint64_t size;
    double weights, activations, process;
} memory_line;

typedef struct bench {
    flis_ctx ctx;
    number_list threads, sizes;
    uint64_t runs;
    unsigned only;
    const char *model, *match;
    size_t peak_rounds; /* of the peak's loop in one part */
    bool json, small, terminal;
    bool comma;       /* JSON: a result was written before */
    const char *part; /* table: whose columns were headed last */
    memory_line memory[MAX_MEMORY];
    size_t memories;
} bench;

static void tell(const bench *b, const char *what)
{
    if (b->terminal) fprintf(stderr, "\r\033[K%s%s", what, *what ? " …" : "");
}

/* ---- The peak ---------------------------------------------------------------------------------------------------- */

/* ROWS rows of LANES sums that do not meet, with names, one lane loop each: s = s a + b, with nothing to load or store.
   The forms are those that tensor.c's kernel has for the same macros: compilers keep them in registers (clang for AVX
   only with two steps a turn). A machine that starts two multiply-adds a cycle and ends each after four wants eight
   vectors. Measured on one core of Zen 4, whose clock allows 118.2 GFLOP/s, gcc 12 / clang 14: AVX-512 118.2 / 118.2,
   AVX2 118.2 / 118.2, SSE2 (half of it) 59.1 / 53.2. Clang with AVX2, one step a turn: 52; 4 rows of 24: 51. */
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

/* tensor.c's condition. Without such hardware the peak is that of a product and a sum, which canonical arithmetic, that
   rounds once, cannot reach: flis then computes fma from several operations. */
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

/* Sums that began alike would be one for the compiler. */
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

/* Seconds for `parts` times `count` rounds, shared out as products are: a thread kept off its core delays the end by
   one part, not by its half of all. volatile, so that no compiler foresees the sums. */
static double peak_seconds(size_t count, int parts, int threads)
{
    static volatile flis_real factor = (flis_real)0.5, summand = 1;
    const flis_real a = factor, b = summand;
    double all = 0;
    const double start = now();
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
    const double seconds = now() - start;
    volatile double used = all;
    (void)used;
    return seconds;
}

/* Rounds that take a thread some 1 ms: from the best of four goes, for one that was kept waiting tells nothing. */
static size_t peak_rounds(void)
{
    size_t rounds = 1 << 10;
    for (; rounds < (size_t)1 << 30; rounds *= 2) {
        double best = 1;
        for (int go = 0; go < 4; go++) {
            const double seconds = peak_seconds(rounds, 1, 1);
            if (seconds < best) best = seconds;
        }
        if (best > 0.0007) break;
    }
    return rounds;
}

/* Floating point operations a second, all threads together: the best of five goes of some 20 ms. */
static double peak(const bench *b)
{
    const int parts = 20 * b->ctx.threads;
    double best = 0;
    for (int go = 0; go < 5; go++) {
        const double flop = 2.0 * ROWS * LANES * (double)b->peak_rounds * parts;
        const double rate = flop / peak_seconds(b->peak_rounds, parts, b->ctx.threads);
        if (rate > best) best = rate;
    }
    return best;
}

/* ---- Measuring --------------------------------------------------------------------------------------------------- */

/* Something to be measured, once: everything it takes from the arena is given back by the caller. */
typedef flis_tensor *work(flis_ctx *ctx, const void *what);

typedef struct timing {
    double median, least, most; /* seconds */
    double before, after;       /* the peak, on as many threads */
    double flop, bytes;         /* work in one; 0: not what it is measured by */
    double activations;         /* bytes of the arena */
} timing;

static int by_value(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void once(bench *b, work *run, const void *what)
{
    flis_mark mark = flis_here(&b->ctx);
    run(&b->ctx, what);
    flis_rewind(&b->ctx, mark);
}

static const double LEAST = 0.02;

/* What takes less than 20 ms is done so often that it takes that long, and divided. */
static bool measure(bench *b, work *run, const void *what, timing *t)
{
    static double seconds[MAX_RUNS];
    const uint64_t macs = b->ctx.macs;
    const size_t used = b->ctx.arena.used;
    size_t repeats = 1;
    b->ctx.arena.peak = used;
    double start = now(), estimate;
    once(b, run, what); /* fresh pages are not what is measured */
    estimate = now() - start;
    *t = (timing){.flop = 2 * (double)(b->ctx.macs - macs), .activations = (double)(b->ctx.arena.peak - used)};
    if (estimate < LEAST) {
        start = now();
        once(b, run, what);
        estimate = now() - start;
    }
    if (estimate < LEAST) repeats = estimate > LEAST / 10000 ? (size_t)(LEAST / estimate) + 1 : 10000;
    t->before = peak(b);
    for (size_t r = 0; r < b->runs && flis_ok(&b->ctx); r++) {
        start = now();
        for (size_t i = 0; i < repeats; i++) once(b, run, what);
        seconds[r] = (now() - start) / (double)repeats;
    }
    t->after = peak(b);
    qsort(seconds, b->runs, sizeof *seconds, by_value);
    t->least = seconds[0];
    t->most = seconds[b->runs - 1];
    t->median = (seconds[(b->runs - 1) / 2] + seconds[b->runs / 2]) / 2;
    return flis_ok(&b->ctx);
}

/* ---- Printing ---------------------------------------------------------------------------------------------------- */

static void print_heading(const bench *b)
{
    static const char *const has = HAVE_FMA ? "fma in hardware" : "no fma in hardware (the peak is that of * and +)";
#ifdef __VERSION__
    static const char compiler[] = __VERSION__;
#else
    static const char compiler[] = "unknown";
#endif
#ifdef _OPENMP
    static const bool openmp = true;
#else
    static const bool openmp = false;
#endif
    const char *type = sizeof(flis_real) == 8 ? "double" : "float";
    const char *model = b->model ? "a file" : b->small ? "small" : "full";
    if (b->json) {
        printf("{\"version\": \"" FLIS_VERSION "\", \"real\": \"%s\", \"compiler\": \"%s\", \"openmp\": %s, "
               "\"fma\": %s, \"processors\": %zu, \"model\": \"%s\", \"runs\": %u,\n \"results\": [",
               type, compiler, openmp ? "true" : "false", HAVE_FMA ? "true" : "false", processors(), model,
               (unsigned)b->runs);
        return;
    }
    printf("flis " FLIS_VERSION ", %s, compiler %s, %s, %s\nmodel: %s; each line is the median of %u run%s\n", type,
           compiler, openmp ? "OpenMP" : "no OpenMP", has, model, (unsigned)b->runs, b->runs > 1 ? "s" : "");
}

static void print_columns(const char *title)
{
    printf("\n%-38s %3s %10s %9s %9s  %15s %8s\n", title, "thr", "ms", "GFLOP", "GFLOP/s", "peak bef/after", "of peak");
}

/* One line, or one JSON object. The larger of the two peaks counts: a fraction must not flatter. */
static void print_timing(bench *b, const char *part, const char *name, const timing *t)
{
    const double most = t->before > t->after ? t->before : t->after, flops = t->flop / t->median;
    tell(b, "");
    if (b->json) {
        printf("%s\n  {\"part\": \"%s\", \"name\": \"%s\", ", b->comma ? "," : "", part, name);
        printf("\"threads\": %d, ", b->ctx.threads);
        printf("\"seconds\": %.6g, \"least\": %.6g, \"most\": %.6g, ", t->median, t->least, t->most);
        if (t->flop > 0) printf("\"flop\": %.0f, \"flops\": %.5g, \"of_peak\": %.4f, ", t->flop, flops, flops / most);
        if (t->bytes > 0) printf("\"bytes\": %.0f, \"bytes_per_second\": %.5g, ", t->bytes, t->bytes / t->median);
        printf("\"peak_before\": %.5g, \"peak_after\": %.5g, ", t->before, t->after);
        printf("\"activations\": %.0f}", t->activations);
        b->comma = true;
        fflush(stdout);
        return;
    }
    if (b->part != part) print_columns(part);
    b->part = part;
    if (t->flop > 0) {
        printf("%-38s %3d %10.3f %9.3f %9.1f  %7.1f %7.1f %6.1f %%\n", name, b->ctx.threads, 1e3 * t->median,
               1e-9 * t->flop, 1e-9 * flops, 1e-9 * t->before, 1e-9 * t->after, 100 * flops / most);
    } else {
        printf("%-38s %3d %10.3f %9s %9.1f GB/s\n", name, b->ctx.threads, 1e3 * t->median, "",
               1e-9 * t->bytes / t->median);
    }
    fflush(stdout);
}

static void print_memory(const bench *b)
{
    if (b->json) fputs("\n ],\n \"memory\": [", stdout);
    else if (b->memories) printf("\n%-38s %12s %12s %12s\n", "memory, MiB", "weights", "activations", "process");
    for (size_t i = 0; i < b->memories; i++) {
        const memory_line *m = &b->memory[i];
        char name[64], process[32] = "unknown";
        snprintf(name, sizeof name, m->size ? "%s %u" : "%s", m->stage, (unsigned)m->size);
        if (b->json) {
            printf("%s\n  {\"part\": \"%s\", \"size\": %u, ", i ? "," : "", m->stage, (unsigned)m->size);
            printf("\"weights\": %.0f, \"activations\": %.0f, \"process_so_far\": %.0f}", m->weights, m->activations,
                   m->process);
            continue;
        }
        if (m->process > 0) snprintf(process, sizeof process, "%.0f", m->process / 1048576);
        printf("%-38s %12.0f %12.0f %12s\n", name, m->weights / 1048576, m->activations / 1048576, process);
    }
    if (b->json) puts("\n ]}");
    else if (b->memories) puts("process: the most that the whole process had until then (--only for one stage alone)");
}

static void remember(bench *b, const char *stage, uint64_t size, double weights, const timing *t)
{
    if (b->memories < MAX_MEMORY)
        b->memory[b->memories++] = (memory_line){stage, size, weights, t->activations, process_peak()};
}

/* Measures and prints on each number of threads. `bytes`: what it is measured by where it does no multiply-adds. */
static bool each_thread(bench *b, const char *part, const char *name, work *run, const void *what, double bytes,
                        timing *t)
{
    for (size_t i = 0; i < b->threads.count && flis_ok(&b->ctx); i++) {
        b->ctx.threads = (int)b->threads.at[i];
        tell(b, name);
        if (!measure(b, run, what, t)) break;
        if (!(t->flop > 0)) t->bytes = bytes;
        print_timing(b, part, name, t);
    }
    return flis_ok(&b->ctx);
}

static void bench_peak(bench *b)
{
    for (size_t i = 0; i < b->threads.count && flis_ok(&b->ctx); i++) {
        b->ctx.threads = (int)b->threads.at[i];
        tell(b, "peak");
        const double best = peak(b);
        tell(b, "");
        if (b->json) {
            printf("%s\n  {\"part\": \"peak\", \"name\": \"peak\", ", b->comma ? "," : "");
            printf("\"threads\": %d, \"flops\": %.5g}", b->ctx.threads, best);
            b->comma = true;
        } else {
            printf("%speak of multiply-adds, threads %d: %.1f GFLOP/s\n", i ? "" : "\n", b->ctx.threads, 1e-9 * best);
        }
        fflush(stdout);
    }
}

/* ---- Operations -------------------------------------------------------------------------------------------------- */

/* Every shape that costs something in the 512x512 pipeline. For convolutions h x w is the input; for linear layers and
   layer norm h is the rows; for attention h queries, w keys, c channels in all heads, o heads. */
typedef enum { CONV3, CONV1, DOWN, UP, LINEAR, ATTENTION, GROUP_NORM, LAYER_NORM, GEGLU, QUICK_GELU } operation;
typedef struct form {
    operation op;
    size_t h, w, c, o;
    const char *where;
} form;
static const form FORMS[] = {
    {CONV3, 64, 64, 4, 320, "unet in"},
    {CONV3, 64, 64, 320, 320, "unet"},
    {CONV3, 64, 64, 640, 320, "unet"},
    {CONV3, 64, 64, 960, 320, "unet"},
    {CONV3, 64, 64, 320, 4, "unet out"},
    {CONV3, 32, 32, 320, 640, "unet"},
    {CONV3, 32, 32, 640, 640, "unet"},
    {CONV3, 32, 32, 960, 640, "unet"},
    {CONV3, 32, 32, 1280, 640, "unet"},
    {CONV3, 32, 32, 1920, 640, "unet"},
    {CONV3, 16, 16, 640, 1280, "unet"},
    {CONV3, 16, 16, 1280, 1280, "unet"},
    {CONV3, 16, 16, 1920, 1280, "unet"},
    {CONV3, 16, 16, 2560, 1280, "unet"},
    {CONV3, 8, 8, 1280, 1280, "unet"},
    {CONV3, 8, 8, 2560, 1280, "unet"},
    {DOWN, 64, 64, 320, 320, "unet"},
    {DOWN, 32, 32, 640, 640, "unet"},
    {DOWN, 16, 16, 1280, 1280, "unet"},
    {UP, 8, 8, 1280, 1280, "unet"},
    {UP, 16, 16, 1280, 1280, "unet"},
    {UP, 32, 32, 640, 640, "unet"},
    {CONV1, 64, 64, 320, 320, "unet"},
    {CONV1, 64, 64, 640, 320, "unet"},
    {CONV1, 64, 64, 960, 320, "unet"},
    {CONV1, 32, 32, 640, 640, "unet"},
    {CONV1, 32, 32, 1920, 640, "unet"},
    {CONV1, 16, 16, 1280, 1280, "unet"},
    {CONV1, 16, 16, 2560, 1280, "unet"},
    {CONV1, 8, 8, 2560, 1280, "unet"},
    {LINEAR, 4096, 1, 320, 320, "unet"},
    {LINEAR, 4096, 1, 320, 2560, "unet geglu"},
    {LINEAR, 4096, 1, 1280, 320, "unet"},
    {LINEAR, 1024, 1, 640, 640, "unet"},
    {LINEAR, 1024, 1, 640, 5120, "unet geglu"},
    {LINEAR, 1024, 1, 2560, 640, "unet"},
    {LINEAR, 256, 1, 1280, 1280, "unet"},
    {LINEAR, 256, 1, 1280, 10240, "unet geglu"},
    {LINEAR, 256, 1, 5120, 1280, "unet"},
    {LINEAR, 64, 1, 1280, 1280, "unet"},
    {LINEAR, 64, 1, 1280, 10240, "unet geglu"},
    {LINEAR, 64, 1, 5120, 1280, "unet"},
    {LINEAR, 77, 1, 768, 320, "unet text"},
    {LINEAR, 77, 1, 768, 1280, "unet text"},
    {LINEAR, 1, 1, 1280, 1280, "unet time"},
    {ATTENTION, 4096, 4096, 320, 8, "unet"},
    {ATTENTION, 1024, 1024, 640, 8, "unet"},
    {ATTENTION, 256, 256, 1280, 8, "unet"},
    {ATTENTION, 64, 64, 1280, 8, "unet"},
    {ATTENTION, 4096, 77, 320, 8, "unet text"},
    {ATTENTION, 1024, 77, 640, 8, "unet text"},
    {ATTENTION, 256, 77, 1280, 8, "unet text"},
    {ATTENTION, 64, 77, 1280, 8, "unet text"},
    {GROUP_NORM, 64, 64, 320, 0, "unet"},
    {GROUP_NORM, 32, 32, 640, 0, "unet"},
    {GROUP_NORM, 16, 16, 1280, 0, "unet"},
    {LAYER_NORM, 4096, 1, 320, 0, "unet"},
    {LAYER_NORM, 1024, 1, 640, 0, "unet"},
    {GEGLU, 4096, 1, 2560, 0, "unet"},
    {GEGLU, 1024, 1, 5120, 0, "unet"},
    {GEGLU, 256, 1, 10240, 0, "unet"},
    {CONV3, 64, 64, 512, 512, "vae"},
    {UP, 64, 64, 512, 512, "vae"},
    {CONV3, 128, 128, 512, 512, "vae"},
    {UP, 128, 128, 512, 512, "vae"},
    {CONV3, 256, 256, 512, 256, "vae"},
    {CONV3, 256, 256, 256, 256, "vae"},
    {UP, 256, 256, 256, 256, "vae"},
    {CONV3, 512, 512, 256, 128, "vae"},
    {CONV3, 512, 512, 128, 128, "vae"},
    {CONV3, 512, 512, 128, 3, "vae out"},
    {CONV1, 512, 512, 256, 128, "vae"},
    {ATTENTION, 4096, 4096, 512, 1, "vae"},
    {GROUP_NORM, 512, 512, 128, 0, "vae"},
    {GROUP_NORM, 256, 256, 256, 0, "vae"},
    {GROUP_NORM, 128, 128, 512, 0, "vae"},
    {LINEAR, 77, 1, 768, 768, "clip"},
    {LINEAR, 77, 1, 768, 3072, "clip"},
    {LINEAR, 77, 1, 3072, 768, "clip"},
    {ATTENTION, 77, 77, 768, 12, "clip"},
    {QUICK_GELU, 77, 1, 3072, 0, "clip"},
};

typedef struct job {
    form s;
    flis_param w, b;
    flis_tensor *x, *k; /* input (queries); keys and values */
} job;

/* The same list for --small: channels of the small networks, pictures a quarter as wide. What belongs to text stays. */
static form smaller(form s)
{
    size_t *channels[] = {&s.c, &s.o}, *sides[] = {&s.h, &s.w};
    const size_t by = s.op == ATTENTION || s.op == LINEAR || s.op == LAYER_NORM || s.op == GEGLU ? 16 : 4;
    for (int i = 0; i < 2; i++) {
        size_t *c = channels[i], *side = sides[i];
        *c = *c % 320 == 0 ? *c / 10 : *c >= 128 ? *c / 4 : *c;
        if (*side != 77 && *side > 1) *side = *side > 2 * by ? *side / by : 2;
    }
    return s;
}

static void describe(const form *s, char *out, size_t room)
{
    static const char *const name[] = {"conv 3x3",  "conv 1x1",   "conv 3x3 down", "conv 3x3 up", "linear",
                                       "attention", "group norm", "layer norm",    "geglu",       "quick gelu"};
    char sizes[64];
    if (s->op <= UP) snprintf(sizes, sizeof sizes, "%zux%zu %zu->%zu", s->h, s->w, s->c, s->o);
    else if (s->op == LINEAR) snprintf(sizes, sizeof sizes, "%zu %zu->%zu", s->h, s->c, s->o);
    else if (s->op == ATTENTION) snprintf(sizes, sizeof sizes, "%zux%zu %zux%zu", s->h, s->w, s->o, s->c / s->o);
    else if (s->op == GROUP_NORM) snprintf(sizes, sizeof sizes, "%zux%zux%zu", s->h, s->w, s->c);
    else snprintf(sizes, sizeof sizes, "%zux%zu", s->h, s->c);
    snprintf(out, room, "%s %s", name[s->op], sizes);
}

/* Between -1 and 1. */
static void fill(flis_ctx *ctx, const char *name, flis_tensor *x)
{
    const size_t shape[2] = {x ? flis_count(x) / 3 + 1 : 0, 3};
    if (x && x->x && flis_ok(ctx)) flis_formula_weights(name, 2, shape, 0, flis_count(x), x->x);
}

static bool prepare(flis_ctx *ctx, job *j)
{
    const form *s = &j->s;
    const bool convolution = s->op <= UP, norm = s->op == GROUP_NORM || s->op == LAYER_NORM;
    const size_t side = s->op == CONV1 ? 1 : 3;
    j->x = convolution || s->op == GROUP_NORM ? flis_image(ctx, 1, s->h, s->w, s->c) : flis_rows(ctx, 1, s->h, s->c);
    fill(ctx, "bench.x", j->x);
    if (s->op == ATTENTION) fill(ctx, "bench.k", j->k = flis_rows(ctx, 1, s->w, s->c));
    if (convolution) j->w = (flis_param){.rank = 4, .shape = {s->o, s->c, side, side}};
    if (s->op == LINEAR) j->w = (flis_param){.rank = 2, .shape = {s->o, s->c}};
    if (norm) j->w = (flis_param){.rank = 1, .shape = {s->c}};
    j->b = (flis_param){.rank = 1, .shape = {norm ? s->c : s->o}};
    if (j->w.rank && flis_formula_visit(ctx, NULL, "bench.weight", &j->w))
        flis_formula_visit(ctx, NULL, "bench.bias", &j->b);
    return flis_ok(ctx);
}

static flis_tensor *operate(flis_ctx *ctx, const void *what)
{
    const job *j = what;
    const form *s = &j->s;
    switch (s->op) {
    case CONV3:
    case CONV1: return flis_conv(ctx, j->x, &j->w, &j->b, FLIS_SAME, NULL);
    case DOWN: return flis_conv(ctx, j->x, &j->w, &j->b, FLIS_STRIDE2, NULL);
    case UP: return flis_conv(ctx, j->x, &j->w, &j->b, FLIS_UPSAMPLE2, NULL);
    case LINEAR: return flis_linear(ctx, j->x, &j->w, &j->b, NULL);
    case ATTENTION:
        return flis_attention(ctx, j->x, j->k, j->k, s->o, 1 / sqrt((double)(s->c / s->o)),
                              (flis_mask){.causal = s->h == FLIS_TOKENS && s->w == FLIS_TOKENS});
    case GROUP_NORM: return flis_group_norm(ctx, j->x, &j->w, &j->b, 1e-5, true);
    case LAYER_NORM: return flis_layer_norm(ctx, j->x, &j->w, &j->b);
    case GEGLU: return flis_geglu(ctx, j->x);
    case QUICK_GELU: return flis_quick_gelu(ctx, j->x);
    }
    return NULL;
}

static void bench_kernels(bench *b)
{
    flis_ctx *ctx = &b->ctx;
    for (size_t i = 0; i < sizeof FORMS / sizeof *FORMS && flis_ok(ctx); i++) {
        job j = {.s = b->small ? smaller(FORMS[i]) : FORMS[i]};
        char what[128], name[160];
        timing t;
        describe(&j.s, what, sizeof what);
        snprintf(name, sizeof name, "%s (%s)", what, j.s.where);
        if (b->match && !strstr(name, b->match)) continue;
        flis_mark mark = flis_here(ctx);
        const double in = (double)j.s.h * (double)j.s.w * (double)j.s.c, moved = in * (j.s.op == GEGLU ? 1.5 : 2);
        if (prepare(ctx, &j)) each_thread(b, "kernels", name, operate, &j, moved * sizeof(flis_real), &t);
        flis_free_visit(ctx, NULL, "", &j.w);
        flis_free_visit(ctx, NULL, "", &j.b);
        flis_rewind(ctx, mark);
    }
}

/* ---- Stages ------------------------------------------------------------------------------------------------------ */

typedef struct preset {
    flis_clip_config clip;
    flis_unet_config unet;
    flis_vae_config vae;
} preset;
static const preset FULL = /* Stable Diffusion v1.4 */
    {{49408, 768, 12, 12, 3072, 77},
     {4, 4, 320, 4, {1, 2, 4, 4}, {true, true, true, false}, 2, 8, 768, 32},
     {128, 4, {1, 2, 4, 4}, 2, 4, 4, 0.18215, 32}};
static const preset SMALL = /* synth's tinyB */
    {{1000, 48, 4, 4, 192, 77},
     {4, 4, 32, 4, {1, 2, 4, 4}, {true, true, true, false}, 2, 4, 48, 32},
     {32, 4, {1, 2, 4, 4}, 2, 4, 4, 0.18215, 32}};

static const preset *sizes_of(const bench *b)
{
    return b->small ? &SMALL : &FULL;
}

/* Adds up what weights take, as they are kept. */
static bool weigh(flis_ctx *ctx, void *bytes, const char *name, flis_param *param)
{
    (void)name;
    *(double *)bytes +=
        (double)flis_param_count(param) * (double)(param->half ? sizeof *param->half : sizeof(flis_real));
    return flis_ok(ctx);
}

/* What a stage computes on. */
typedef struct stage {
    flis_clip *clip;
    flis_unet *unet;
    flis_vae *vae;
    flis_tensor *x, *context;
    int32_t ids[FLIS_TOKENS];
    flis_rca rca;
} stage;

static flis_tensor *run_clip(flis_ctx *ctx, const void *what)
{
    const stage *s = what;
    return flis_clip_encode(ctx, s->clip, s->ids, 1);
}

static flis_tensor *run_unet(flis_ctx *ctx, const void *what)
{
    const stage *s = what;
    const flis_rca *const rca[] = {&s->rca};
    const double t = 981;
    return flis_unet_eps(ctx, s->unet, s->x, &t, s->context, rca);
}

static flis_tensor *run_vae(flis_ctx *ctx, const void *what)
{
    const stage *s = what;
    return flis_vae_decode(ctx, s->vae, s->x);
}

static void bench_clip(bench *b, flis_file *file)
{
    flis_ctx *ctx = &b->ctx;
    stage s = {.clip = NULL};
    double weights = 0;
    timing t;
    tell(b, "clip: weights");
    s.clip = file ? flis_clip_load(ctx, file) : flis_clip_new(ctx, &sizes_of(b)->clip);
    if (s.clip && !file) flis_clip_walk(ctx, s.clip, flis_formula_visit, NULL);
    if (s.clip && flis_ok(ctx)) {
        const size_t words = flis_clip_get_config(s.clip)->vocab;
        for (size_t i = 0; i < FLIS_TOKENS; i++) s.ids[i] = (int32_t)(i * 37 % words);
        flis_clip_walk(ctx, s.clip, weigh, &weights);
        if (each_thread(b, "clip", "text encoder, 77 tokens", run_clip, &s, 0, &t)) remember(b, "clip", 0, weights, &t);
    }
    flis_clip_free(s.clip);
}

/* Eight bands, each the region of a phrase of three tokens: a mask as a prompt of 24 tokens has it. */
enum { BANDS = 8, PHRASE = 3 };
static uint8_t *bands_make(flis_ctx *ctx, size_t size)
{
    uint8_t *label = flis_alloc(ctx, size, size);
    for (size_t i = 0; label && i < size * size; i++) label[i] = (uint8_t)(i / size * BANDS / size);
    return label;
}

static void bench_unet_size(bench *b, stage *s, size_t size, double weights)
{
    flis_ctx *ctx = &b->ctx;
    const flis_unet_config *config = flis_unet_get_config(s->unet);
    float class_ids[BANDS * PHRASE];
    char name[64];
    timing t;
    flis_mark mark = flis_here(ctx);
    uint8_t *label = bands_make(ctx, size);
    for (size_t k = 0; k < BANDS * PHRASE; k++) class_ids[k] = (float)(k / PHRASE);
    s->rca = (flis_rca){label, size, size, class_ids, BANDS * PHRASE};
    fill(ctx, "bench.latents", s->x = flis_image(ctx, 1, size / FLIS_FACTOR, size / FLIS_FACTOR, config->in));
    fill(ctx, "bench.context", s->context = flis_rows(ctx, 1, FLIS_TOKENS, config->context));
    snprintf(name, sizeof name, "U-Net, one pass with a layout, %zux%zu", size, size);
    if (each_thread(b, "unet", name, run_unet, s, 0, &t)) remember(b, "unet", size, weights, &t);
    free(label);
    flis_rewind(ctx, mark);
}

static void bench_unet(bench *b, flis_file *file)
{
    flis_ctx *ctx = &b->ctx;
    stage s = {.unet = NULL};
    double weights = 0;
    tell(b, "unet: weights");
    s.unet = file ? flis_unet_load(ctx, file) : flis_unet_new(ctx, &sizes_of(b)->unet);
    if (s.unet && !file) flis_unet_walk(ctx, s.unet, flis_formula_visit, NULL);
    if (s.unet && flis_ok(ctx)) flis_unet_walk(ctx, s.unet, weigh, &weights);
    for (size_t i = 0; s.unet && i < b->sizes.count && flis_ok(ctx); i++)
        bench_unet_size(b, &s, b->sizes.at[i], weights);
    flis_unet_free(s.unet);
    flis_free(ctx); /* the next stage's arena has another size */
}

static void bench_vae(bench *b, flis_file *file)
{
    flis_ctx *ctx = &b->ctx;
    stage s = {.vae = NULL};
    double weights = 0;
    tell(b, "vae: weights");
    s.vae = file ? flis_vae_load(ctx, file, true, false) : flis_vae_new(ctx, &sizes_of(b)->vae, true, false);
    if (s.vae && !file) flis_vae_walk(ctx, s.vae, flis_formula_visit, NULL);
    if (s.vae && flis_ok(ctx)) flis_vae_walk(ctx, s.vae, weigh, &weights);
    for (size_t i = 0; s.vae && i < b->sizes.count && flis_ok(ctx); i++) {
        const size_t size = b->sizes.at[i], cells = size / FLIS_FACTOR;
        char name[64];
        timing t;
        flis_mark mark = flis_here(ctx);
        fill(ctx, "bench.latents", s.x = flis_image(ctx, 1, cells, cells, flis_vae_get_config(s.vae)->embed));
        snprintf(name, sizeof name, "decoder, %zux%zu", size, size);
        if (each_thread(b, "vae", name, run_vae, &s, 0, &t)) remember(b, "vae", size, weights, &t);
        flis_rewind(ctx, mark);
    }
    flis_vae_free(s.vae);
    flis_free(ctx);
}

/* ---- Loading ----------------------------------------------------------------------------------------------------- */

/* As `flis generate` loads: one stage after the other, each freed before the next. */
static flis_tensor *run_load(flis_ctx *ctx, const void *path)
{
    flis_file *file = flis_model_open(ctx, path);
    if (file) flis_clip_free(flis_clip_load(ctx, file));
    if (file && flis_ok(ctx)) flis_unet_free(flis_unet_load(ctx, file));
    if (file && flis_ok(ctx)) flis_vae_free(flis_vae_load(ctx, file, true, false));
    flis_file_close(file);
    return NULL;
}

static bool declare(flis_ctx *ctx, void *writer, const char *name, flis_param *param)
{
    uint64_t shape[4];
    for (int i = 0; i < param->rank; i++) shape[i] = param->shape[i];
    return flis_write_declare(ctx, writer, name, FLIS_F32, param->rank, shape);
}

static bool write_values(flis_ctx *ctx, void *writer, const char *name, flis_param *param)
{
    enum { PIECE = 1 << 16 };
    const size_t count = flis_param_count(param);
    flis_real *values = flis_alloc(ctx, PIECE, sizeof *values);
    for (size_t first = 0; values && first < count && flis_ok(ctx); first += PIECE) {
        const size_t some = count - first < PIECE ? count - first : PIECE;
        flis_formula_weights(name, param->rank, param->shape, first, some, values);
        flis_write_real(ctx, writer, values, some);
    }
    free(values);
    if (interrupted) flis_fail(ctx, "interrupted");
    return flis_ok(ctx);
}

/* What shapes do not tell: without it the small text encoder would be taken for one of other heads. */
static void write_heads(flis_ctx *ctx, flis_writer *writer, const char *key, size_t heads)
{
    char text[32];
    snprintf(text, sizeof text, "%zu", heads);
    flis_write_metadata(ctx, writer, key, text);
}

static bool write_model(flis_ctx *ctx, const preset *p, const char *path)
{
    flis_visit *const visits[] = {declare, write_values};
    flis_clip *clip = flis_clip_new(ctx, &p->clip);
    flis_unet *unet = flis_unet_new(ctx, &p->unet);
    flis_vae *vae = flis_vae_new(ctx, &p->vae, true, false);
    flis_writer *writer = clip && unet && vae ? flis_write_begin(ctx, path) : NULL;
    if (writer) {
        write_heads(ctx, writer, "clip.num_heads", p->clip.heads);
        write_heads(ctx, writer, "unet.num_heads", p->unet.heads);
    }
    for (int i = 0; writer && i < 2 && flis_ok(ctx); i++) {
        flis_unet_walk(ctx, unet, visits[i], writer);
        flis_vae_walk(ctx, vae, visits[i], writer);
        flis_clip_walk(ctx, clip, visits[i], writer);
    }
    if (writer) flis_write_end(ctx, writer);
    flis_clip_free(clip);
    flis_unet_free(unet);
    flis_vae_free(vae);
    return flis_ok(ctx);
}

/* Of every weight of the three parts, as they are kept (a file may have others, which loading passes over). */
static double bytes_to_load(flis_ctx *ctx, const char *path)
{
    double bytes = 0;
    flis_file *file = flis_model_open(ctx, path);
    flis_clip *clip = file ? flis_clip_load(ctx, file) : NULL;
    if (clip) flis_clip_walk(ctx, clip, weigh, &bytes);
    flis_clip_free(clip);
    flis_unet *unet = file && flis_ok(ctx) ? flis_unet_load(ctx, file) : NULL;
    if (unet) flis_unet_walk(ctx, unet, weigh, &bytes);
    flis_unet_free(unet);
    flis_vae *vae = file && flis_ok(ctx) ? flis_vae_load(ctx, file, true, false) : NULL;
    if (vae) flis_vae_walk(ctx, vae, weigh, &bytes);
    flis_vae_free(vae);
    flis_file_close(file);
    return bytes;
}

static void bench_load(bench *b)
{
    flis_ctx *ctx = &b->ctx;
    scratch_file scratch = {{0}, {0}};
    const char *path = b->model;
    timing t;
    if (!path) {
        tell(b, "load: writing a model");
        path = scratch.path;
        if (!scratch_make(&scratch)) {
            flis_fail(ctx, "%s: no temporary file could be made there (TMPDIR chooses the folder)", scratch.folder);
            return;
        }
        write_model(ctx, sizes_of(b), path);
    }
    tell(b, "load: reading it once");
    const double bytes = flis_ok(ctx) ? bytes_to_load(ctx, path) : 0;
    each_thread(b, "load", "all three parts, from the page cache", run_load, path, bytes, &t);
    if (!b->model) scratch_remove(&scratch);
}

/* ---- Options and main -------------------------------------------------------------------------------------------- */

static const char HELP[] =
    "usage: bench [OPTION…]\n"
    "Times the library: each shape of the model's operations, text encoder, U-Net, decoder and loading, as the median\n"
    "of runs and as fractions of this machine's own peak of multiply-adds, measured just before and after each.\n"
    "  --only LIST       of peak,kernels,clip,unet,vae,load (default: all)\n"
    "  --match TEXT      of the operations only those whose line contains TEXT\n"
    "  -t, --threads LIST  1,2 is the default where there are two processors\n"
    "  --runs N          each line is the median of N (default 3), after one that does not count\n"
    "  --sizes[=LIST]    U-Net and decoder at these picture sizes, multiples of 64 (without LIST: 256,384,512,768)\n"
    "  --full            networks of Stable Diffusion v1.4's size (the default where 5 GiB of memory are free)\n"
    "  --small           small ones: seconds, to try it out; fractions of the peak mean little there\n"
    "  -m, --model FILE  load this model and time it, in place of one with formula weights; without it `load` writes\n"
    "                    a temporary file (4.1 GB for --full; in the folder that TMPDIR names) and removes it\n"
    "  --json            one object: results in order, then memory; seconds, rates per second, bytes\n"
    "  --help, --version\n"
    "exit status: 0 done, 1 failed (one sentence on stderr), 2 wrong usage\n";

static int misused(const char *what, const char *why)
{
    fprintf(stderr, "bench: %s%s; see --help\n", what, why);
    return 2;
}

/* A whole number from 1 to most, and where it ends; 0: none. */
static uint64_t number(const char **text, uint64_t most)
{
    uint64_t n = 0;
    const char *p = *text;
    for (; *p >= '0' && *p <= '9'; p++)
        if ((n = n * 10 + (uint64_t)(*p - '0')) > most) return 0;
    *text = p;
    return n;
}

/* "1,2,4" of whole numbers from 1 to most, each a multiple of `step`. */
static bool read_list(const char *text, uint64_t most, uint64_t step, number_list *out)
{
    out->count = 0;
    for (;; text++) {
        const uint64_t n = number(&text, most);
        if (!n || n % step || out->count == MAX_LIST) return false;
        out->at[out->count++] = n;
        if (!*text) return true;
        if (*text != ',') return false;
    }
}

static bool read_parts(const char *text, unsigned *out)
{
    enum { COUNT = sizeof PARTS / sizeof *PARTS };
    for (*out = 0;; text++) {
        const size_t length = strcspn(text, ",");
        size_t i = 0;
        while (i < COUNT && (strlen(PARTS[i]) != length || strncmp(PARTS[i], text, length) != 0)) i++;
        if (i == COUNT) return false;
        *out |= 1u << i;
        text += length;
        if (!*text) return true;
    }
}

/* The value of an option that takes one: after '=' or as the next argument. False: this is another option. */
static bool valued(const char *name, const char *letter, int argc, char **argv, int *i, const char **value)
{
    const size_t length = strlen(name);
    if (strncmp(argv[*i], name, length) == 0 && argv[*i][length] == '=') {
        *value = argv[*i] + length + 1;
        return true;
    }
    if (strcmp(argv[*i], name) != 0 && (!letter || strcmp(argv[*i], letter) != 0)) return false;
    *value = *i + 1 < argc ? argv[++*i] : NULL;
    return true;
}

/* -1: go on; else the exit status. */
static int read_options(bench *b, int argc, char **argv, bool *full)
{
    const char *v = NULL;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--help") == 0) return fputs(HELP, stdout) < 0;
        if (strcmp(argv[i], "--version") == 0) return puts("bench " FLIS_VERSION) < 0;
        if (strcmp(argv[i], "--json") == 0) b->json = true;
        else if (strcmp(argv[i], "--small") == 0) b->small = true;
        else if (strcmp(argv[i], "--full") == 0) *full = true;
        else if (strcmp(argv[i], "--sizes") == 0) read_list("256,384,512,768", 8192, 64, &b->sizes);
        else if (strncmp(argv[i], "--sizes=", 8) == 0) {
            if (!read_list(argv[i] + 8, 8192, 64, &b->sizes))
                return misused(argv[i], ": wanted multiples of 64 to 8192");
        } else if (valued("--only", NULL, argc, argv, &i, &v)) {
            if (!v || !read_parts(v, &b->only))
                return misused("--only", ": wanted some of peak,kernels,clip,unet,vae,load");
        } else if (valued("--match", NULL, argc, argv, &i, &b->match)) {
            if (!b->match) return misused("--match", ": wanted a text");
        } else if (valued("--threads", "-t", argc, argv, &i, &v)) {
            if (!v || !read_list(v, 1024, 1, &b->threads)) return misused("--threads", ": wanted a list like 1,2");
        } else if (valued("--runs", NULL, argc, argv, &i, &v)) {
            if (!v || !(b->runs = number(&v, MAX_RUNS)) || *v) return misused("--runs", ": wanted 1 to 1000");
        } else if (valued("--model", "-m", argc, argv, &i, &b->model)) {
            if (!b->model || !*b->model) return misused("--model", ": wanted a file");
        } else return misused(argv[i], ": not an option");
    }
    if (*full && b->small) return misused("--full and --small", " exclude each other");
    if (b->model && (*full || b->small)) return misused("--model", ": its networks have the size they have");
    return -1;
}

static void choose_defaults(bench *b, bool full)
{
    const double free_bytes = memory_available();
    const bool stages = b->only & (UNET | VAE | LOAD);
    if (!full && !b->small && !b->model && stages && free_bytes > 0 && free_bytes < 5.0 * 1024 * 1024 * 1024) {
        b->small = true;
        fprintf(stderr, "bench: %.1f GiB of memory are free, little for full size: small networks (--full insists)\n",
                free_bytes / (1024 * 1024 * 1024));
    }
    if (!b->threads.count) b->threads = (number_list){processors() > 1 ? 2 : 1, {1, 2}};
#ifndef _OPENMP
    for (size_t i = 0; i < b->threads.count; i++)
        if (b->threads.at[i] > 1) fputs("bench: built without OpenMP, so there is one thread only\n", stderr);
    b->threads = (number_list){1, {1}};
#endif
    if (!b->sizes.count) b->sizes = (number_list){1, {b->small ? 128 : 512}};
    b->terminal = stderr_is_terminal();
}

static bool bench_all(bench *b)
{
    flis_ctx *ctx = &b->ctx;
    flis_file *file = b->model ? flis_model_open(ctx, b->model) : NULL;
    if (!flis_ok(ctx)) return false;
    b->peak_rounds = peak_rounds();
    print_heading(b);
    if (b->only & PEAK) bench_peak(b);
    if (b->only & KERNELS) bench_kernels(b);
    flis_free(ctx);
    if (b->only & CLIP && flis_ok(ctx)) bench_clip(b, file);
    if (b->only & UNET && flis_ok(ctx)) bench_unet(b, file);
    if (b->only & VAE && flis_ok(ctx)) bench_vae(b, file);
    flis_file_close(file);
    if (b->only & LOAD && flis_ok(ctx)) bench_load(b);
    tell(b, "");
    print_memory(b); /* after an error too, so that JSON ends well */
    return flis_ok(ctx);
}

int main(int argc, char **argv)
{
    static bench b = {.runs = 3, .only = EVERYTHING};
    bool full = false;
    const int status = read_options(&b, argc, argv, &full);
    if (status >= 0) return status;
    choose_defaults(&b, full);
    signal(SIGINT, on_signal);
    signal(SIGTERM, on_signal);
    bool done = flis_init(&b.ctx);
    b.ctx.interrupted = &interrupted;
    done = done && bench_all(&b);
    if (!done) fprintf(stderr, "bench: %s\n", b.ctx.error);
    flis_free(&b.ctx);
    if (fflush(stdout) != 0 || ferror(stdout)) {
        fputs("bench: the output could not be written\n", stderr);
        done = false;
    }
    return done ? 0 : 1;
}
