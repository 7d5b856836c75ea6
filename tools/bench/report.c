/* report.c - what bench prints: a table, or one JSON object. */
#include "tools/bench/bench.h"

void show_status(const char *what)
{
    if (is_terminal(stderr)) fprintf(stderr, "\r\033[K%s%s", what, *what ? " …" : "");
}

void print_heading(const bench *b)
{
    const char *has = peak_has_fma() ? "fma in hardware" : "no fma in hardware (the peak is that of * and +)";
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
               type, compiler, openmp ? "true" : "false", peak_has_fma() ? "true" : "false", processors(), model,
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

void print_peak(bench *b, double rate, bool first)
{
    show_status("");
    if (b->json) {
        printf("%s\n  {\"part\": \"peak\", \"name\": \"peak\", ", b->comma ? "," : "");
        printf("\"threads\": %d, \"flops\": %.5g}", b->ctx.threads, rate);
        b->comma = true;
    } else {
        printf("%speak of multiply-adds, threads %d: %.1f GFLOP/s\n", first ? "\n" : "", b->ctx.threads, 1e-9 * rate);
    }
    fflush(stdout);
}

/* The fraction refers to the larger of the two peaks, so that it is never too high. */
void print_timing(bench *b, const char *part, const char *name, const timing *t)
{
    const double most = t->before > t->after ? t->before : t->after, flops = t->flop / t->median;
    show_status("");
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

void print_memory(const bench *b)
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
    else if (b->memories)
        puts("process: peak memory of the whole process until then (--only measures one stage alone)");
}

void remember_memory(bench *b, const char *stage, uint64_t size, double weights, const timing *t)
{
    if (b->memories < MAX_MEMORY)
        b->memory[b->memories++] = (memory_line){stage, size, weights, t->activations, memory_peak()};
}
