/* run.c - runs the checks of tests/test_*.c: all of them, or those whose names match a glob.
 *
 *   run [-q] [-l] [-a FILE] [GLOB…]
 *     -l       list the names and stop
 *     -q       quick: skip the checks marked SLOW
 *     -a FILE  add the counts of another program's "N passed, N failed" line to the total (tests/cli.sh writes one);
 *              up to four times
 *
 * One line per check with its time; the last line is "N passed, N failed". Exit 1 if anything failed or nothing ran.
 * Every void test_X(void) in tests/test_*.c must be in the table below; the Makefile checks that.
 *
 * -DTEST_HELPERS_ONLY leaves the table and main out: what remains is test.h for programs that have their own main.
 */
#if defined(__unix__) || defined(__APPLE__)
#define _POSIX_C_SOURCE 200809L
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>
#define HAVE_POSIX 1
#else
#define HAVE_POSIX 0
#endif
#include "tests/unit/test.h"

#include <float.h>
#include <stdio.h>
#include <time.h>

#ifndef TESTS_DIR
#define TESTS_DIR "tests"
#endif

/* ---- The machine: a scratch directory (C99 has none) ----------------------------------------------------------- */

static char scratch[512];   /* the directory; "" until something asks for it */
static char made[256][128]; /* names handed out, to be removed at the end */
static size_t made_count;

#if HAVE_POSIX
static void scratch_make(void)
{
    const char *base = getenv("TMPDIR");
    snprintf(scratch, sizeof scratch, "%s/flis-tests-XXXXXX", base && *base ? base : "/tmp");
    if (!mkdtemp(scratch)) { /* not a number of the process: an interrupted run's folder may bear it */
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
    if (++test_failures <= 20) { /* of one check; more would only hide the first */
        printf("%s:%d: ", file, line);
        vprintf(format, args);
        printf("\n");
    }
    va_end(args);
}

/* One of four buffers, so that four paths may be alive at once. */
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

/* NaN first: it must not slip through a comparison that it makes false. */
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

#ifndef TEST_HELPERS_ONLY

/* ---- The checks ------------------------------------------------------------------------------------------------ */

enum { FAST, SLOW };

#define CHECKS(X) \
    X(test_runner_nan_is_an_error, FAST) \
    /* test_checkpoints.c */ \
    X(test_checkpoints_convert, FAST) \
    X(test_checkpoints_views, FAST) \
    X(test_checkpoints_too_large_for_half, FAST) \
    X(test_checkpoints_ema, FAST) \
    X(test_checkpoints_half, FAST) \
    X(test_checkpoints_cut_short, FAST) \
    X(test_checkpoints_flipped, FAST) \
    /* test_clip.c */ \
    X(test_clip_layers, FAST) \
    X(test_clip_refuses, FAST) \
    /* test_damage.c */ \
    X(test_damage_table, FAST) \
    X(test_damage_cut, FAST) \
    /* test_fma.c */ \
    X(test_fma_random, FAST) \
    X(test_fma_hard, FAST) \
    X(test_fma_special, FAST) \
    /* test_files.c */ \
    X(test_json_values, FAST) \
    X(test_json_refuses, FAST) \
    X(test_json_cut_short, FAST) \
    X(test_json_numbers, FAST) \
    X(test_json_is_linear, FAST) \
    X(test_inflate_streams, FAST) \
    X(test_inflate_cut_short, FAST) \
    X(test_inflate_refuses, FAST) \
    X(test_inflate_wrappers, FAST) \
    X(test_png_every_kind, FAST) \
    X(test_png_every_size, FAST) \
    X(test_png_palette_index, FAST) \
    X(test_png_refuses, FAST) \
    X(test_png_damaged, FAST) \
    X(test_pgm, FAST) \
    X(test_pgm_refuses, FAST) \
    X(test_png_written, FAST) \
    X(test_png_bytes, FAST) \
    X(test_png_text, FAST) \
    X(test_png_refuses_to_write, FAST) \
    X(test_layout_reads, FAST) \
    X(test_layout_same_name_twice, FAST) \
    X(test_layout_refuses, FAST) \
    X(test_layout_path, FAST) \
    X(test_layout_warnings, FAST) \
    X(test_label_two_rules, FAST) \
    X(test_label_pil_rule, FAST) \
    X(test_generate_refuses, FAST) \
    X(test_guided_passes, SLOW) \
    /* test_grad.c */ \
    X(test_grad_linear, FAST) \
    X(test_grad_conv, FAST) \
    X(test_grad_product_bits, FAST) \
    X(test_grad_norms, FAST) \
    X(test_grad_elementwise, FAST) \
    X(test_grad_attention, FAST) \
    X(test_grad_losses, FAST) \
    X(test_grad_loss_values, FAST) \
    X(test_grad_frozen, FAST) \
    X(test_grad_refuses, FAST) \
    X(test_grad_unet, SLOW) \
    X(test_grad_clip, FAST) \
    X(test_grad_vae, SLOW) \
    X(test_grad_same_bits, SLOW) \
    X(test_grad_half, FAST) \
    /* test_models.c */ \
    X(test_models_sharded, SLOW) \
    X(test_models_diffusers, SLOW) \
    X(test_models_half, FAST) \
    X(test_models_refuses, FAST) \
    /* test_ops.c */ \
    X(test_ops_linear, FAST) \
    X(test_ops_linear_edges, SLOW) \
    X(test_ops_conv, FAST) \
    X(test_ops_group_norm, FAST) \
    X(test_ops_layer_norm, FAST) \
    X(test_ops_gates, FAST) \
    X(test_ops_moves, FAST) \
    X(test_ops_attention, FAST) \
    X(test_ops_threads, SLOW) \
    X(test_ops_blocks_beat_one_chain, FAST) \
    /* test_pipeline.c */ \
    X(test_pipeline_plms10, FAST) \
    X(test_pipeline_ddim10, FAST) \
    X(test_pipeline_ddim10_eta, SLOW) \
    X(test_pipeline_plms4_scale1, FAST) \
    X(test_pipeline_text, FAST) \
    X(test_pipeline_generate, SLOW) \
    /* test_precision.c */ \
    X(test_precision_everywhere, FAST) \
    X(test_precision_products, FAST) \
    X(test_precision_overflow, FAST) \
    /* test_sampler.c */ \
    X(test_sampler_rng, FAST) \
    X(test_sampler_rng_sequences, FAST) \
    X(test_sampler_redraw, FAST) \
    X(test_sampler_philox, FAST) \
    X(test_sampler_schedule, FAST) \
    X(test_sampler_steps, FAST) \
    X(test_sampler_refused_steps, FAST) \
    X(test_sampler_replay, FAST) \
    X(test_sampler_noise_stays_in_step, FAST) \
    /* test_tensor.c */ \
    X(test_tensor_elementwise, FAST) \
    X(test_tensor_functions, FAST) \
    X(test_tensor_half, FAST) \
    X(test_tensor_sha256, FAST) \
    X(test_tensor_arena, FAST) \
    X(test_tensor_file_round_trip, FAST) \
    X(test_tensor_file_damaged, FAST) \
    X(test_tensor_formula, FAST) \
    X(test_tensor_load_lists, FAST) \
    /* test_tokens.c */ \
    X(test_tokens_pinned, FAST) \
    X(test_tokens_utf8, FAST) \
    X(test_tokens_entities, FAST) \
    X(test_tokens_characters, FAST) \
    X(test_tokens_normal_form, FAST) \
    X(test_tokens_lower_case, FAST) \
    X(test_tokens_words, FAST) \
    X(test_tokens_merge_order, FAST) \
    X(test_tokens_special, FAST) \
    X(test_tokens_alignment, FAST) \
    X(test_tokens_limit, FAST) \
    X(test_tokens_refused, FAST) \
    X(test_tokens_damaged, FAST) \
    X(test_tokens_gzip, FAST) \
    X(test_tokens_long, FAST) \
    /* test_trace.c */ \
    X(test_trace_changes_nothing, FAST) \
    X(test_trace_insides, FAST) \
    X(test_trace_weights_are_attention, FAST) \
    X(test_trace_asks, FAST) \
    X(test_trace_summary, FAST) \
    X(test_trace_summary_not_finite, FAST) \
    /* test_train.c */ \
    X(test_train_adamw, FAST) \
    X(test_train_workers, FAST) \
    X(test_train_clip, FAST) \
    X(test_train_resume, FAST) \
    X(test_train_swap, FAST) \
    X(test_train_refuses, FAST) \
    X(test_train_learns, FAST) \
    /* test_unet.c */ \
    X(test_unet_blocks_mix, FAST) \
    X(test_unet_blocks_boat, SLOW) \
    X(test_unet_blocks_plain, SLOW) \
    X(test_unet_mask, FAST) \
    X(test_unet_mask_edges, FAST) \
    X(test_unet_uncond_is_plain, FAST) \
    X(test_unet_time_embedding, FAST) \
    X(test_unet_not_square, FAST) \
    X(test_unet_batch, SLOW) \
    X(test_unet_refuses, FAST) \
    X(test_unet_eps_of_norms, FAST) \
    /* test_vae.c */ \
    X(test_vae_decode, FAST) \
    X(test_vae_encode, FAST) \
    X(test_vae_bytes, FAST) \
    X(test_vae_refuses, FAST) \
    X(test_vae_eps_of_norms, FAST) \
    /* test_evaluate.c */ \
    X(test_evaluate_miou, FAST) \
    X(test_evaluate_frechet, FAST) \
    X(test_evaluate_judges, SLOW) \
    /* test_world.c */ \
    X(test_world_pinned, FAST) \
    X(test_world_repeats, FAST) \
    X(test_world_labels, FAST) \
    X(test_world_sets, FAST) \
    X(test_world_held_out, FAST) \
    X(test_world_captions, FAST) \
    X(test_world_prompts, FAST) \
    X(test_world_styles, FAST) \
    X(test_world_misplaced, FAST) \
    X(test_world_often, FAST) \
    X(test_world_outlined, FAST) \
    X(test_world_exchanged, FAST) \
    X(test_world_refuses, FAST) \
    /* test_windows.c */ \
    X(test_windows_words, FAST) \
    X(test_windows_alone, FAST) \
    X(test_windows_shares, FAST) \
    X(test_windows_places, FAST) \
    X(test_windows_weights, FAST) \
    X(test_windows_deaf, FAST)

#define DECLARE(name, speed) test_fn name;
#define ROW(name, speed) {#name, name, speed},
CHECKS(DECLARE)
static const struct check {
    const char *name;
    test_fn *run;
    int speed;
} checks[] = {CHECKS(ROW)};
enum { CHECK_COUNT = sizeof checks / sizeof *checks };

/* The runner's own promise: a NaN is never "close". */
void test_runner_nan_is_an_error(void)
{
    const flis_real a[3] = {1, (flis_real)NAN, 3};
    const double b[3] = {1, 2, 3.5}, c[3] = {1, NAN, 3};
    size_t where;
    CHECK(test_max_error(a, b, 3, &where) == HUGE_VAL && where == 1, "a NaN passed as a number");
    CHECK(test_max_error(a, c, 3, NULL) == HUGE_VAL, "NaN passed as equal to NaN");
    CHECK(test_max_error(a, b, 1, NULL) == 0, "equal values differ");
}

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

/* Adds the counts that another program left in a file; a file that does not tell counts as one failure. */
static void add_counts(const char *path, long *passed, long *failed)
{
    long p, f;
    FILE *file = fopen(path, "r");
    if (file && fscanf(file, "%ld passed, %ld failed", &p, &f) == 2) {
        *passed += p;
        *failed += f;
    } else {
        printf("%s: no \"N passed, N failed\" in it\n", path);
        ++*failed;
    }
    if (file) fclose(file);
}

/* Wall time: C99's own clock counts whole seconds. */
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

/* Runs a check in a process of its own, so that one that crashes fails alone; without fork, here. */
static bool passes(const struct check *check)
{
    test_failures = 0;
#if HAVE_POSIX
    int status;
    fflush(stdout);
    fflush(stderr);
    pid_t child = fork();
    if (child == 0) {
        check->run();
        exit(test_failures != 0);
    }
    if (child > 0) return waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0;
#endif
    check->run();
    return !test_failures;
}

static bool run_one(const struct check *check)
{
    double start = seconds();
    bool ok = passes(check);
    printf("%-4s %s (%.2f s)\n", ok ? "ok" : "FAIL", check->name + strlen("test_"), seconds() - start);
    fflush(stdout);
    return ok;
}

int main(int argc, char **argv)
{
    bool quick = false, list = false;
    const char *other[4];
    int others = 0;
    int first = 1;
    for (; first < argc && argv[first][0] == '-'; first++) {
        if (!strcmp(argv[first], "-q")) quick = true;
        else if (!strcmp(argv[first], "-l")) list = true;
        else if (!strcmp(argv[first], "-a") && first + 1 < argc && others < 4) other[others++] = argv[++first];
        else {
            fprintf(stderr, "usage: run [-q] [-l] [-a FILE] [GLOB...]\n");
            return 2;
        }
    }
    long passed = 0, failed = 0, ran = 0;
    for (size_t i = 0; i < CHECK_COUNT; i++) {
        if (!wanted(checks[i].name, argc - first, argv + first)) continue;
        ran++;
        if (list) printf("%s%s\n", checks[i].name + strlen("test_"), checks[i].speed == SLOW ? " (slow)" : "");
        else if (quick && checks[i].speed == SLOW) continue;
        else if (run_one(&checks[i])) passed++;
        else failed++;
    }
    if (list) return 0;
    for (int i = 0; i < others; i++) add_counts(other[i], &passed, &failed);
    if (!ran) fprintf(stderr, "run: no check has such a name\n");
    printf("%ld passed, %ld failed\n", passed, failed);
    return failed || !ran;
}
#endif
