/* measure.c - timing a piece of work: repeated until it takes long enough, the median of several runs, the peak before and
 * after.
 */
#include "tools/bench/bench.h"

#include <stdlib.h>

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

/* Work that takes less than 20 ms is repeated until it takes that long; the time is divided by the repetitions. */
static bool measure(bench *b, work *run, const void *what, timing *t)
{
    double seconds[MAX_RUNS];
    const uint64_t macs = b->ctx.macs;
    const size_t used = b->ctx.arena.used;
    size_t repeats = 1;
    b->ctx.arena.peak = used;
    double start = seconds_now(), estimate;
    once(b, run, what); /* not measured, because it touches the pages for the first time */
    estimate = seconds_now() - start;
    *t = (timing){.flop = 2 * (double)(b->ctx.macs - macs), .activations = (double)(b->ctx.arena.peak - used)};
    if (estimate < LEAST) {
        start = seconds_now();
        once(b, run, what);
        estimate = seconds_now() - start;
    }
    if (estimate < LEAST) repeats = estimate > LEAST / 10000 ? (size_t)(LEAST / estimate) + 1 : 10000;
    t->before = peak_rate(b);
    for (size_t r = 0; r < b->runs && flis_ok(&b->ctx); r++) {
        start = seconds_now();
        for (size_t i = 0; i < repeats; i++) once(b, run, what);
        seconds[r] = (seconds_now() - start) / (double)repeats;
    }
    t->after = peak_rate(b);
    qsort(seconds, b->runs, sizeof *seconds, by_value);
    t->least = seconds[0];
    t->most = seconds[b->runs - 1];
    t->median = (seconds[(b->runs - 1) / 2] + seconds[b->runs / 2]) / 2;
    return flis_ok(&b->ctx);
}

bool each_thread(bench *b, const char *part, const char *name, work *run, const void *what, double bytes, timing *t)
{
    for (size_t i = 0; i < b->threads.count && flis_ok(&b->ctx); i++) {
        b->ctx.threads = (int)b->threads.at[i];
        show_status(name);
        if (!measure(b, run, what, t)) break;
        if (!(t->flop > 0)) t->bytes = bytes;
        print_timing(b, part, name, t);
    }
    return flis_ok(&b->ctx);
}

void fill_values(flis_ctx *ctx, const char *name, flis_tensor *x)
{
    const size_t shape[2] = {x ? flis_count(x) / 3 + 1 : 0, 3};
    if (x && x->x && flis_ok(ctx)) flis_formula_weights(name, 2, shape, 0, flis_count(x), x->x);
}
