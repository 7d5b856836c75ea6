/* bench - how fast flis is on this machine, as fractions of what the machine can do.
 *
 * The unit is the machine's own peak rate of multiply-adds (peak.c), measured again just before and after every line.
 * Therefore the fractions are still meaningful on a busy or throttled machine, and the two peaks reveal that state.
 * bench measures the shapes of the model's operations (kernels.c), then whole stages, then loading (stages.c). It does
 * not check results (the tests do) and tunes nothing: the library runs as in `flis generate`.
 */
#include "tools/bench/bench.h"

#include <string.h>

/* Numbers from 1 to most, each a multiple of `step`. */
static bool read_list(const char *text, uint64_t most, uint64_t step, number_list *out)
{
    if (!parse_list(text, 1, most, out->at, MAX_LIST, &out->count)) return false;
    for (size_t i = 0; i < out->count; i++)
        if (out->at[i] % step) return false;
    return true;
}

static bool set_threads(void *options, const char *text)
{
    return read_list(text, 1024, 1, &((bench *)options)->threads);
}

static bool set_sizes(void *options, const char *text)
{
    return read_list(text ? text : "256,384,512,768", 8192, 64, &((bench *)options)->sizes);
}

static bool set_parts(void *options, const char *text)
{
    static const char *const parts[] = {"peak", "kernels", "clip", "unet", "vae", "load"};
    enum { COUNT = sizeof parts / sizeof *parts };
    bench *b = options;
    for (b->only = 0;; text++) {
        const size_t length = strcspn(text, ",");
        size_t i = 0;
        while (i < COUNT && (strlen(parts[i]) != length || strncmp(parts[i], text, length) != 0)) i++;
        if (i == COUNT) return false;
        b->only |= 1u << i;
        text += length;
        if (!*text) return true;
    }
}

static const option OPTIONS[] = {
    {.name = "only",
     .kind = OPTION_CALL,
     .value = "LIST",
     .parse = set_parts,
     .wanted = "some of peak,kernels,clip,unet,vae,load",
     .help = "of peak,kernels,clip,unet,vae,load; default: all"},
    {.name = "match",
     .kind = OPTION_TEXT,
     .offset = offsetof(bench, match),
     .value = "TEXT",
     .help = "only operations (kernels) whose line contains TEXT; default: all"},
    {.name = "threads",
     .letter = 't',
     .kind = OPTION_CALL,
     .value = "LIST",
     .parse = set_threads,
     .wanted = "numbers from 1 to 1024, like 1,2",
     .help = "numbers of threads; default: 1,2 with two or more processors, else 1"},
    {.name = "runs",
     .kind = OPTION_WHOLE,
     .offset = offsetof(bench, runs),
     .value = "N",
     .min = 1,
     .max = MAX_RUNS,
     .help = "each line is the median of N runs, after one run that is not counted; default "},
    {.name = "sizes",
     .kind = OPTION_CALL,
     .value = "[=LIST]",
     .optional = true,
     .parse = set_sizes,
     .wanted = "multiples of 64 up to 8192, like 256,512",
     .help = "U-Net and decoder at these picture sizes, multiples of 64 (without LIST: 256,384,512,768); "
             "default: 512, for small networks 128"},
    {.name = "full",
     .kind = OPTION_FLAG,
     .offset = offsetof(bench, full),
     .help = "networks of Stable Diffusion v1.4's size; default: if 5 GiB of memory are free"},
    {.name = "small",
     .kind = OPTION_FLAG,
     .offset = offsetof(bench, small),
     .help = "small networks: takes seconds, to try bench; fractions of the peak are not meaningful"},
    {.name = "model",
     .letter = 'm',
     .kind = OPTION_TEXT,
     .offset = offsetof(bench, model),
     .value = "FILE",
     .help = "measure this model instead of one with formula weights; without it, `load` writes a temporary file (4.1 "
             "GB for --full, in the folder that TMPDIR names) and removes it; default: none"},
    {.name = "json",
     .kind = OPTION_FLAG,
     .offset = offsetof(bench, json),
     .help = "print one JSON object: results in order, then memory; seconds, rates per second, bytes"},
};

static const bench DEFAULTS = {.runs = 3, .only = EVERYTHING};

static const program BENCH = {
    .name = "bench",
    .arguments = "[options]",
    .summary =
        "Times the library: each shape of the model's operations, text encoder, U-Net, decoder and loading, as the\n"
        "median of runs and as fractions of this machine's own peak of multiply-adds, measured just before and after\n"
        "each.",
    .options = OPTIONS,
    .count = sizeof OPTIONS / sizeof *OPTIONS,
    .defaults = &DEFAULTS,
};

static void choose_defaults(bench *b)
{
    const double free_bytes = memory_available();
    const bool stages = b->only & (UNET | VAE | LOAD);
    if (!b->full && !b->small && !b->model && stages && free_bytes > 0 && free_bytes < 5.0 * 1024 * 1024 * 1024) {
        b->small = true;
        fprintf(stderr,
                "bench: %.1f GiB of memory are free, and full size needs 5: small networks are measured (--full "
                "insists on full size)\n",
                free_bytes / (1024 * 1024 * 1024));
    }
    if (!b->threads.count) b->threads = (number_list){processors() > 1 ? 2 : 1, {1, 2}};
#ifndef _OPENMP
    for (size_t i = 0; i < b->threads.count; i++)
        if (b->threads.at[i] > 1) fputs("bench: built without OpenMP: measuring with one thread\n", stderr);
    b->threads = (number_list){1, {1}};
#endif
    if (!b->sizes.count) b->sizes = (number_list){1, {b->small ? 128 : 512}};
}

static void bench_all(bench *b)
{
    flis_ctx *ctx = &b->ctx;
    flis_file *file = b->model ? flis_model_open(ctx, b->model) : NULL;
    if (!flis_ok(ctx)) return;
    b->peak_rounds = peak_calibrate();
    print_heading(b);
    if (b->only & PEAK) bench_peak(b);
    if (b->only & KERNELS) bench_kernels(b);
    flis_free(ctx);
    if (b->only & CLIP && flis_ok(ctx)) bench_clip(b, file);
    if (b->only & UNET && flis_ok(ctx)) bench_unet(b, file);
    if (b->only & VAE && flis_ok(ctx)) bench_vae(b, file);
    flis_file_close(file);
    if (b->only & LOAD && flis_ok(ctx)) bench_load(b);
    show_status("");
    print_memory(b); /* also after an error, so that the JSON is complete */
}

int main(int argc, char **argv)
{
    bench b = DEFAULTS;
    int words;
    const int status = options_read(&BENCH, &b, argc, argv, &words);
    if (status >= 0) return finish("bench", NULL, status);
    if (words) return unexpected_argument(&BENCH, argv[0]);
    if (b.full && b.small) return usage_error(&BENCH, "--full and --small exclude each other");
    if (b.model && (b.full || b.small))
        return usage_error(&BENCH, "--model excludes --full and --small: the file determines the size");
    choose_defaults(&b);
    if (flis_init(&b.ctx)) {
        b.ctx.interrupted = catch_signals();
        bench_all(&b);
    }
    flis_free(&b.ctx);
    return finish("bench", &b.ctx, 0);
}
