/* run.c - runs the checks of tests/unit/test_*.c: all of them, or those whose names match a glob.
 *
 *   run [-q] [-l] [-j N] [GLOB...]
 *     -l       list the names and stop
 *     -q       quick: skip the slow checks
 *     -j N     N checks at a time, each in a process of its own; default: the number of processors
 *
 * One line per check with its time; the last line is "N passed, N failed". Exit 1 if anything failed or nothing ran.
 * Checks are found by name: the Makefile lists every `void test_NAME(void)` of tests/unit/test_*.c in checks.h, as SLOW where the
 * line above it is the comment "slow".
 */
#if defined(__unix__) || defined(__APPLE__)
#define _POSIX_C_SOURCE 200809L
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>
#define HAVE_POSIX 1
#else
#define HAVE_POSIX 0
#endif
#include "tests/unit/test.h"

#include <stdio.h>
#include <time.h>

#include "checks.h" /* CHECKS(X): one X(name, FAST or SLOW) for each check */

enum { FAST, SLOW, MOST_JOBS = 64 };

#define DECLARE(name, speed) test_fn name;
#define ROW(name, speed) {#name, name, speed},
CHECKS(DECLARE)
static const struct check {
    const char *name;
    test_fn *run;
    int speed;
} checks[] = {CHECKS(ROW)};
enum { CHECK_COUNT = sizeof checks / sizeof *checks };

typedef struct totals {
    long passed, failed, ran;
} totals;

/* * any run of characters, ? any one. "test_" in front of a name may be left out. */
static bool glob(const char *pattern, const char *text)
{
    for (; *pattern && *pattern != '*'; pattern++, text++)
        if (!*text || (*pattern != '?' && *pattern != *text)) return false;
    if (!*pattern) return !*text;
    for (pattern++;; text++) {
        if (glob(pattern, text)) return true;
        if (!*text) return false;
    }
}

static bool wanted(const char *name, int count, char **patterns)
{
    if (!count) return true;
    for (int i = 0; i < count; i++)
        if (glob(patterns[i], name) || glob(patterns[i], name + strlen("test_"))) return true;
    return false;
}

/* Wall time: C99's time() counts whole seconds only. */
static double seconds(void)
{
#if HAVE_POSIX
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
#else
    return (double)time(NULL);
#endif
}

static void report(totals *t, const struct check *check, bool ok, double start)
{
    printf("%-4s %s (%.2f s)\n", ok ? "ok" : "FAIL", check->name + strlen("test_"), seconds() - start);
    fflush(stdout);
    if (ok) t->passed++;
    else t->failed++;
}

#if HAVE_POSIX
/* A check that runs in a process of its own, so that a crash fails only this check. Its output is kept until it ends. */
typedef struct job {
    pid_t child;
    const struct check *check;
    FILE *output;
    double start;
} job;

static void start(job *j, const struct check *check)
{
    *j = (job){.check = check, .output = tmpfile(), .start = seconds()};
    fflush(stdout);
    fflush(stderr);
    if ((j->child = fork()) != 0) return;
    if (j->output) {
        dup2(fileno(j->output), STDOUT_FILENO);
        dup2(fileno(j->output), STDERR_FILENO);
    }
    check->run();
    exit(test_failures != 0);
}

/* Waits for one of the jobs to end, reports it and moves the last job to its slot. */
static void finish_one(totals *t, job *jobs, size_t *running)
{
    int status;
    const pid_t child = wait(&status);
    size_t i = 0;
    while (i < *running && jobs[i].child != child) i++;
    if (i == *running) return;
    job *j = &jobs[i];
    if (j->output) {
        rewind(j->output);
        for (int c; (c = getc(j->output)) != EOF;) putchar(c);
        fclose(j->output);
    }
    report(t, j->check, WIFEXITED(status) && WEXITSTATUS(status) == 0, j->start);
    *j = jobs[--*running];
}

static long processors(void)
{
    const long n = sysconf(_SC_NPROCESSORS_ONLN);
    return n > 0 ? n : 1;
}
#else
static long processors(void)
{
    return 1;
}
#endif

static void run_checks(totals *t, const struct check **chosen, size_t count, size_t at_once)
{
#if HAVE_POSIX
    job jobs[MOST_JOBS];
    size_t running = 0;
    for (size_t i = 0; i < count; i++) {
        start(&jobs[running++], chosen[i]);
        if (running == at_once) finish_one(t, jobs, &running);
    }
    while (running) finish_one(t, jobs, &running);
#else
    (void)at_once;
    for (size_t i = 0; i < count; i++) {
        const double begun = seconds();
        test_failures = 0;
        chosen[i]->run();
        report(t, chosen[i], !test_failures, begun);
    }
#endif
}

int main(int argc, char **argv)
{
    bool quick = false, list = false;
    int first = 1;
    long at_once = processors();
    for (; first < argc && argv[first][0] == '-'; first++) {
        if (!strcmp(argv[first], "-q")) quick = true;
        else if (!strcmp(argv[first], "-l")) list = true;
        else if (!strcmp(argv[first], "-j") && first + 1 < argc) at_once = strtol(argv[++first], NULL, 10);
        else {
            fprintf(stderr, "usage: run [-q] [-l] [-j N] [GLOB...]\n");
            return 2;
        }
    }
    const struct check *chosen[CHECK_COUNT];
    size_t count = 0;
    totals t = {0, 0, 0};
    for (size_t i = 0; i < CHECK_COUNT; i++) {
        if (!wanted(checks[i].name, argc - first, argv + first)) continue;
        t.ran++;
        if (list) printf("%s%s\n", checks[i].name + strlen("test_"), checks[i].speed == SLOW ? " (slow)" : "");
        else if (!quick || checks[i].speed == FAST) chosen[count++] = &checks[i];
    }
    if (list) return 0;
    run_checks(&t, chosen, count, at_once < 1 ? 1 : at_once > MOST_JOBS ? MOST_JOBS : (size_t)at_once);
    if (!t.ran) fprintf(stderr, "run: no check has such a name\n");
    printf("%ld passed, %ld failed\n", t.passed, t.failed);
    return t.failed || !t.ran;
}
