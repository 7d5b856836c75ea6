/* bench.h - what the parts of bench share. Every part measures one kind of work with each_thread, and the report prints
   the results. */
#ifndef BENCH_H
#define BENCH_H

#include "tools/common/common.h"

enum { MAX_LIST = 16, MAX_RUNS = 1000, MAX_MEMORY = 64 };
enum { PEAK = 1, KERNELS = 2, CLIP = 4, UNET = 8, VAE = 16, LOAD = 32, EVERYTHING = 63 };

typedef struct number_list {
    size_t count;
    uint64_t at[MAX_LIST];
} number_list;

/* What a stage needs, in bytes. process: the peak of the whole process until then. */
typedef struct memory_line {
    const char *stage;
    uint64_t size; /* of the picture; 0: the stage has none */
    double weights, activations, process;
} memory_line;

typedef struct bench {
    flis_ctx ctx;
    number_list threads, sizes;
    uint64_t runs;
    unsigned only; /* bits of the parts */
    const char *model, *match;
    size_t peak_rounds; /* rounds of the peak's loop in one part */
    bool json, small, full;
    bool comma;       /* JSON: a result was written before */
    const char *part; /* table: the part whose column titles were printed last */
    memory_line memory[MAX_MEMORY];
    size_t memories;
} bench;

typedef struct timing {
    double median, least, most; /* seconds */
    double before, after;       /* the peak on as many threads, floating-point operations per second */
    double flop, bytes;         /* the amount of work in one run; 0: not measured by this */
    double activations;         /* bytes of the arena */
} timing;

/* ---- The peak (peak.c) ----------------------------------------------------------------------------------------- */

bool peak_has_fma(void);
size_t peak_calibrate(void);      /* the rounds that take one thread about 1 ms */
double peak_rate(const bench *b); /* floating-point operations per second, all threads together */

/* ---- Measuring (measure.c) ------------------------------------------------------------------------------------- */

/* The work to measure, done once. The caller frees what it allocates in the arena. */
typedef flis_tensor *work(flis_ctx *ctx, const void *what);
/* Measures and reports with each number of threads; *t is the last result. bytes: the amount of work if there are no
   multiply-adds. */
bool each_thread(bench *b, const char *part, const char *name, work *run, const void *what, double bytes, timing *t);
/* Formula values between -1 and 1. */
void fill_values(flis_ctx *ctx, const char *name, flis_tensor *x);

/* ---- The parts (peak.c, kernels.c, stages.c) ------------------------------------------------------------------- */

void bench_peak(bench *b);
void bench_kernels(bench *b);
void bench_clip(bench *b, flis_file *file); /* file NULL: formula weights, here and below */
void bench_unet(bench *b, flis_file *file);
void bench_vae(bench *b, flis_file *file);
void bench_load(bench *b);

/* ---- The report (report.c) --------------------------------------------------------------------------------------- */

void show_status(const char *what); /* on a terminal: shows a line that the next output replaces; "": clears it */
void print_heading(const bench *b);
void print_peak(bench *b, double rate, bool first);
void print_timing(bench *b, const char *part, const char *name, const timing *t);
void remember_memory(bench *b, const char *stage, uint64_t size, double weights, const timing *t);
void print_memory(const bench *b); /* the end of the report */

#endif
