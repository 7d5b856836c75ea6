/* test.h - what the checks in tests/unit share. One file per subject; every `void test_NAME(void)` is a check (see
   run.c). */
#ifndef TEST_H
#define TEST_H
#include "flis.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* A check. Every CHECK that fails is counted and printed with its file and line. */
typedef void test_fn(void);

extern int test_failures;
void test_fail(const char *file, int line, const char *format, ...);
/* A check continues after a failure, so that one run reports all of them. */
#define CHECK(ok, ...) ((ok) ? (void)0 : test_fail(__FILE__, __LINE__, __VA_ARGS__))

/* Path of a file under tests/ ("golden/x.safetensors"); the string is static and valid until the fourth call after it. */
const char *test_path(const char *relative);
/* A scratch path in a directory that the runner makes and removes; valid as long as a test_path. */
const char *test_scratch(const char *name);
/* A tensor of a golden file as doubles, malloc'ed; *count may be NULL. A missing tensor is a failure and gives NULL. */
double *test_golden(const char *file, const char *name, size_t *count);
/* Largest |a - b|; NaN or Inf anywhere counts as infinite. *where (may be NULL) is its index. */
double test_max_error(const flis_real *a, const double *b, size_t count, size_t *where);
/* Compares every traced tensor `scope + name` with golden tensor `prefix + name`, if there is one (trace.c). */
typedef struct test_trace {
    flis_ctx own; /* reads the golden file; the traced context is not touched */
    flis_file *file;
    const char *prefix;
    double tolerance, worst; /* largest absolute error so far */
    char worst_name[256];
    size_t compared;
} test_trace;
bool test_trace_open(test_trace *t, const char *golden, const char *prefix, double tolerance);
void test_trace_take(void *trace, const char *name, const flis_tensor *x); /* for ctx->trace */
/* Number of golden tensors whose name starts with prefix and does not continue with "in." or "out.". */
size_t test_trace_expected(const test_trace *t);
void test_trace_close(test_trace *t);
/* A golden tensor as `flis_real`s in the arena, 4-d NCHW turned into [n][h][w][c], 3-d as rows. */
flis_tensor *test_tensor(flis_ctx *ctx, const char *golden, const char *name);
/* Compares a tensor with a golden one of the same values; counts a failure above the tolerance. Returns the error. */
double test_close(const flis_tensor *x, const char *golden, const char *name, double tolerance);
/* Writes a complete model of formula weights, small enough to generate fast, for a vocabulary of that size
   (test_pipeline.c). */
void test_write_tiny_model(flis_ctx *ctx, const char *path, size_t vocab);
/* FNV-1a-64 hash of bytes, for pinning outputs. */
uint64_t test_hash(const void *bytes, size_t count);
#endif
