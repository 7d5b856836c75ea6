/* helpers.c - implements test.h: failures, paths, scratch files, golden tensors, hashes. */
#if defined(__unix__) || defined(__APPLE__)
#define _POSIX_C_SOURCE 200809L
#include <unistd.h>
#define HAVE_POSIX 1
#else
#define HAVE_POSIX 0
#endif
#include "tests/unit/test.h"

#include <float.h>
#include <stdio.h>

#ifndef TESTS_DIR
#define TESTS_DIR "tests"
#endif

/* ---- The machine: a scratch directory (C99 has none) ----------------------------------------------------------- */

static char scratch[512];   /* the directory; "" until it is needed */
static char made[256][128]; /* names returned by test_scratch, to be removed at the end */
static size_t made_count;

#if HAVE_POSIX
static void scratch_make(void)
{
    const char *base = getenv("TMPDIR");
    snprintf(scratch, sizeof scratch, "%s/flis-tests-XXXXXX", base && *base ? base : "/tmp");
    if (!mkdtemp(scratch)) { /* not a process id: an interrupted run's folder may have the same */
        fprintf(stderr, "run: %s: cannot be made\n", scratch);
        exit(1);
    }
}

static void scratch_remove(void)
{
    if (*scratch) rmdir(scratch);
}
#else
static void scratch_make(void)
{
    strcpy(scratch, ".");
}

static void scratch_remove(void)
{
}
#endif

/* ---- test.h ---------------------------------------------------------------------------------------------------- */

int test_failures;

void test_fail(const char *file, int line, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    if (++test_failures <= 20) { /* of one check; later ones would only hide the first */
        printf("%s:%d: ", file, line);
        vprintf(format, args);
        printf("\n");
    }
    va_end(args);
}

/* Returns one of four buffers in turn, so that four paths are valid at once. */
static char *path_of(const char *directory, const char *name)
{
    static char buffer[4][1024];
    static int next;
    next = (next + 1) % 4;
    snprintf(buffer[next], sizeof buffer[next], "%s/%s", directory, name);
    return buffer[next];
}

const char *test_path(const char *relative)
{
    const char *directory = getenv("TESTS_DIR");
    return path_of(directory && *directory ? directory : TESTS_DIR, relative);
}

static void scratch_clean(void)
{
    for (size_t i = 0; i < made_count; i++) remove(path_of(scratch, made[i]));
    made_count = 0;
    scratch_remove();
    *scratch = 0;
}

const char *test_scratch(const char *name)
{
    if (!*scratch) {
        scratch_make();
        atexit(scratch_clean);
    }
    bool known = false;
    for (size_t i = 0; i < made_count; i++) known = known || strcmp(made[i], name) == 0;
    if (!known && made_count < sizeof made / sizeof *made && strlen(name) < sizeof *made)
        strcpy(made[made_count++], name);
    return path_of(scratch, name);
}

double *test_golden(const char *file, const char *name, size_t *count)
{
    flis_ctx ctx;
    double *values = NULL;
    if (count) *count = 0;
    flis_init(&ctx);
    flis_file *stream = flis_file_open(&ctx, test_path(file));
    const flis_entry *entry = stream ? flis_file_find(stream, name) : NULL;
    if (stream && !entry) flis_fail(&ctx, "%s: tensor \"%s\": missing", file, name);
    if (entry) {
        size_t n = (size_t)flis_entry_count(entry);
        values = calloc(n ? n : 1, sizeof *values);
        if (values && !flis_file_read_f64(&ctx, stream, entry, values)) {
            free(values);
            values = NULL;
        }
        if (values && count) *count = n;
    }
    if (!values) test_fail(__FILE__, __LINE__, "golden: %s", *ctx.error ? ctx.error : "out of memory");
    flis_file_close(stream);
    flis_free(&ctx);
    return values;
}

/* NaN is tested first, because every comparison with NaN is false. */
double test_max_error(const flis_real *a, const double *b, size_t count, size_t *where)
{
    double worst = 0;
    if (where) *where = 0;
    for (size_t i = 0; i < count; i++) {
        double error = fabs((double)a[i] - b[i]);
        if (!(error <= DBL_MAX)) {
            if (where) *where = i;
            return HUGE_VAL;
        }
        if (error > worst) {
            worst = error;
            if (where) *where = i;
        }
    }
    return worst;
}

uint64_t test_hash(const void *bytes, size_t count)
{
    const unsigned char *p = bytes;
    uint64_t hash = UINT64_C(0xcbf29ce484222325);
    for (size_t i = 0; i < count; i++) hash = (hash ^ p[i]) * UINT64_C(0x100000001b3);
    return hash;
}
