/* trace.c - compares the library's named intermediates with golden tensors. */
#include "tests/unit/test.h"

bool test_trace_open(test_trace *t, const char *golden, const char *prefix, double tolerance)
{
    memset(t, 0, sizeof *t);
    flis_init(&t->own);
    t->prefix = prefix;
    t->tolerance = tolerance;
    t->file = flis_file_open(&t->own, test_path(golden));
    CHECK(t->file, "%s", t->own.error);
    return t->file != NULL;
}

void test_trace_close(test_trace *t)
{
    flis_file_close(t->file);
    flis_free(&t->own);
}

size_t test_trace_expected(const test_trace *t)
{
    size_t length = strlen(t->prefix), count = 0;
    for (size_t i = 0; i < t->file->count; i++) {
        const char *name = t->file->entry[i].name;
        if (strncmp(name, t->prefix, length) == 0 && strncmp(name + length, "in.", 3) != 0 &&
            strncmp(name + length, "out.i", 5) != 0 && strncmp(name + length, "out.m", 5) != 0 &&
            strncmp(name + length, "out.l", 5) != 0 && strncmp(name + length, "dfs.", 4) != 0 &&
            strcmp(name + length, "eps") != 0)
            count++;
    }
    return count;
}

/* Copies the values in PyTorch's order into a new array. */
static flis_real *in_file_order(const flis_tensor *x)
{
    flis_real *y = malloc(flis_count(x) * sizeof *y);
    if (x->rank == 4) flis_to_nchw(x, y);
    else memcpy(y, x->x, flis_count(x) * sizeof *y);
    return y;
}

/* Absolute error, or (relative) in units of the golden tensor's largest value where that is above 1: inner tensors
   reach 20, where the last bit of float32 is 2e-6. */
static double compare(flis_ctx *ctx, flis_file *file, const flis_entry *entry, const flis_tensor *x, double tolerance,
                      bool relative)
{
    size_t count = flis_count(x), where = 0;
    CHECK(flis_entry_count(entry) == count, "%s: got %zu values, wanted %zu", entry->name, count,
          (size_t)flis_entry_count(entry));
    if (flis_entry_count(entry) != count) return HUGE_VAL;
    double *wanted = malloc(count * sizeof *wanted);
    flis_real *got = in_file_order(x);
    CHECK(flis_file_read_f64(ctx, file, entry, wanted), "%s", ctx->error);
    double error = test_max_error(got, wanted, count, &where), largest = 1;
    for (size_t i = 0; relative && i < count; i++) largest = fmax(largest, fabs(wanted[i]));
    error /= largest;
    CHECK(error <= tolerance, "%s: error %.3g at %zu (got %.9g, wanted %.9g), tolerance %.3g", entry->name, error,
          where, (double)got[where], wanted[where], tolerance);
    free(got);
    free(wanted);
    return error;
}

void test_trace_take(void *trace, const char *name, const flis_tensor *x)
{
    test_trace *t = trace;
    char full[256];
    snprintf(full, sizeof full, "%s%s", t->prefix, name);
    const flis_entry *entry = flis_file_find(t->file, full);
    if (!entry) return;
    double error = compare(&t->own, t->file, entry, x, t->tolerance, true);
    if (!(error <= t->worst)) {
        t->worst = error;
        snprintf(t->worst_name, sizeof t->worst_name, "%s", full);
    }
    t->compared++;
}

flis_tensor *test_tensor(flis_ctx *ctx, const char *golden, const char *name)
{
    flis_tensor *y = NULL;
    flis_file *file = flis_file_open(ctx, test_path(golden));
    const flis_entry *entry = file ? flis_file_find(file, name) : NULL;
    CHECK(entry, "%s: %s is missing %s", golden, name, ctx->error);
    if (entry) {
        flis_real *x = malloc((size_t)flis_entry_count(entry) * sizeof *x);
        flis_file_read_real(ctx, file, entry, x);
        const uint64_t *s = entry->shape;
        if (entry->rank == 4) y = flis_from_nchw(ctx, x, (size_t)s[0], (size_t)s[1], (size_t)s[2], (size_t)s[3]);
        else if ((y = flis_rows(ctx, (size_t)s[0], (size_t)s[1], (size_t)s[2])))
            memcpy(y->x, x, flis_count(y) * sizeof *x);
        free(x);
    }
    flis_file_close(file);
    return y;
}

double test_close(const flis_tensor *x, const char *golden, const char *name, double tolerance)
{
    flis_ctx ctx;
    flis_init(&ctx);
    double error = HUGE_VAL;
    flis_file *file = flis_file_open(&ctx, test_path(golden));
    const flis_entry *entry = file ? flis_file_find(file, name) : NULL;
    CHECK(entry, "%s: %s is missing %s", golden, name, ctx.error);
    CHECK(x, "%s: nothing was computed", name);
    if (entry && x) error = compare(&ctx, file, entry, x, tolerance, false);
    flis_file_close(file);
    flis_free(&ctx);
    return error;
}
