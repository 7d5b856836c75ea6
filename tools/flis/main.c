/* cli.c - the `flis` command: generate, stage, noise, tokens, info, layout, digest, conformance.
 *
 * Nothing is computed here: each command reads its arguments, calls the library, and writes what came back. Data goes
 * to stdout, everything else to stderr. Exit 0: done; 1: failed, one sentence says why and nothing was written;
 * 2: wrong usage. Others script against names, shapes and exit codes: keep them.
 *
 * In order: the machine, options, help, paths, tensors in and out, progress, then one function per command and stage.
 */

/* ---- The machine: what is outside C99, each with a fallback ------------------------------------------------------ */

#if defined(__unix__) || defined(__APPLE__)
#define _POSIX_C_SOURCE 200809L
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#define HAVE_POSIX 1
#else
#include <time.h>
#define HAVE_POSIX 0
#endif

#include "flis.h"

#include <errno.h>
#include <float.h>
#include <math.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#ifndef FLIS_DATADIR
#define FLIS_DATADIR "/usr/local/share/flis"
#endif

/* Seconds since some moment. */
static double now(void)
{
#if HAVE_POSIX
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
#else
    return (double)time(NULL);
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

typedef enum { ABSENT, REGULAR, DIRECTORY, SPECIAL } file_kind;
static file_kind kind_of(const char *path)
{
#if HAVE_POSIX
    struct stat s;
    if (stat(path, &s) != 0) return ABSENT;
    return S_ISREG(s.st_mode) ? REGULAR : S_ISDIR(s.st_mode) ? DIRECTORY : SPECIAL;
#else
    FILE *file = fopen(path, "rb");
    if (!file) return ABSENT;
    fclose(file);
    return REGULAR;
#endif
}

/* The first Ctrl-C asks the library to stop between two operations; the second ends the program at once. */
static volatile sig_atomic_t interrupted;
static void on_signal(int number)
{
    interrupted = 1;
    signal(number, SIG_DFL);
}

/* An ignored signal (nohup, a background job) stays ignored. */
static void catch_signal(int number)
{
    if (signal(number, on_signal) == SIG_IGN) signal(number, SIG_IGN);
}

static void catch_signals(void)
{
    catch_signal(SIGINT);
    catch_signal(SIGTERM);
#ifdef SIGHUP
    catch_signal(SIGHUP);
#endif
}

/* ---- What every command gets ------------------------------------------------------------------------------------- */

/* A tensor on its way to a file, in PyTorch's order. */
typedef struct named_tensor {
    char *name;
    flis_dtype dtype;
    int rank;
    uint64_t shape[4];
    size_t count;
    void *values; /* real, int64_t (I64) or uint8_t (U8) */
} named_tensor;

typedef struct tensor_list {
    named_tensor *item;
    size_t count, room;
} tensor_list;

/* Text that grows by appending; free(at). */
typedef struct buffer {
    char *at;
    size_t length, room;
} buffer;

/* What makes a run again, as keys and values. */
enum { MAX_FACTS = 32 };
typedef struct fact {
    const char *key;
    char *value;
} fact;

enum { MAX_RANGES = 64, PATH_ROOM = 4096 };

typedef struct cli {
    flis_ctx ctx;
    const char *program; /* argv[0] */
    const struct command *command;
    /* Options, as given. */
    flis_options options;
    const char *model, *layout, *in, *out, *vocab, *trace, *trace_digest, *trace_match, *truth, *json;
    const char *manifest, *match;
    struct {
        uint64_t first, last;
    } trace_step[MAX_RANGES];
    size_t trace_steps; /* ranges in trace_step; 0: every step */
    uint64_t steps, threads;
    bool quiet, diffable, help;
    int words; /* arguments that are no options */
    char **word;
    /* Found and made on the way. */
    char model_path[PATH_ROOM], vocab_path[PATH_ROOM];
    tensor_list outputs, traced; /* of stage; for --trace */
    fact fact[MAX_FACTS];        /* what a trace says of its run */
    size_t facts;
    struct {
        FILE *stream;
        size_t tensors;
    } digest; /* --trace-digest, while it is being written */
    struct {
        char what[24];
        double start, drawn;
        size_t first, done;
        bool line_open;
    } progress;
} cli;

typedef struct command {
    const char *name;
    int (*run)(cli *c);
    const char *arguments, *summary, *details;
} command;

/* Ends a progress line that is still being redrawn. */
static void end_line(cli *c)
{
    if (c->progress.line_open) fputc('\n', stderr);
    c->progress.line_open = false;
}

/* Wrong usage: one sentence, and where help is. */
static int usage(cli *c, const char *format, ...)
{
    va_list args;
    const char *name = c->command ? c->command->name : NULL;
    va_start(args, format);
    fprintf(stderr, "flis%s%s: ", name ? " " : "", name ? name : "");
    vfprintf(stderr, format, args);
    fprintf(stderr, " (see flis%s%s --help)\n", name ? " " : "", name ? name : "");
    va_end(args);
    return 2;
}

static void warn(void *user, const char *sentence)
{
    end_line(user);
    fprintf(stderr, "flis: warning: %s\n", sentence);
}

/* ---- Options ----------------------------------------------------------------------------------------------------- */

enum {
    GENERATE = 1,
    STAGE = 2,
    TOKENS = 4,
    INFO = 8,
    LAYOUT = 16,
    NOISE = 32,
    DIGEST = 64,
    CONFORMANCE = 128,
    LONG = GENERATE | STAGE
};

typedef enum { FLAG, TEXT, WHOLE, NUMBER, SIZE, SAMPLER, RNG, RANGES } option_kind;

typedef struct option {
    const char *name;
    char letter; /* -x, or 0 */
    option_kind kind;
    size_t offset;   /* of the field in cli */
    double min, max; /* NUMBER, WHOLE (max 0: all 64 bits) */
    unsigned commands;
    const char *value, *help;
} option;

#define AT(field) offsetof(cli, field)
static const option option_table[] = {
    {"model", 'm', TEXT, AT(model), 0, 0, LONG | TOKENS | LAYOUT | NOISE, "FILE",
     "safetensors checkpoint; default: the small model"},
    {"model", 'm', TEXT, AT(model), 0, 0, DIGEST, "FILE", "safetensors checkpoint; default: a tiny one, computed"},
    {"json", 'j', TEXT, AT(layout), 0, 0, GENERATE, "FILE", "the phrases, and the layout they act in"},
    {"input", 'i', TEXT, AT(in), 0, 0, STAGE, "FILE", "safetensors with the stage's inputs"},
    {"output", 'o', TEXT, AT(out), 0, 0, LONG, "FILE", "what to write: a PNG (generate), safetensors (stage)"},
    {"vocab", 0, TEXT, AT(vocab), 0, 0, GENERATE | TOKENS | LAYOUT, "FILE",
     "bpe_simple_vocab_16e6.txt[.gz] or merges.txt; default: beside the model"},
    {"vocab", 0, TEXT, AT(vocab), 0, 0, DIGEST, "FILE", "merges.txt or the like; default: 1000 tokens, computed"},
    {"steps", 0, WHOLE, AT(steps), 1, FLIS_TIMESTEPS, LONG, "N", "sampler steps; default 50"},
    {"sampler", 0, SAMPLER, AT(options.sampling.kind), 0, 0, LONG, "NAME", "plms or ddim; default plms"},
    {"eta", 0, NUMBER, AT(options.sampling.eta), 0, 1, LONG, "X", "DDIM's noise, 0 to 1; default 0"},
    {"scale", 0, NUMBER, AT(options.sampling.scale), -1000, 1000, LONG, "X", "guidance; 1: none; default 2"},
    {"seed", 0, WHOLE, AT(options.seed), 0, 0, LONG | NOISE, "N", "of the noise, 0 to 2^64-1; default 42"},
    {"rng", 0, RNG, AT(options.rng), 0, 0, LONG, "KIND", "PyTorch's generator: cpu or cuda; default cpu"},
    {"size", 0, SIZE, AT(options), 0, 0, GENERATE | LAYOUT, "WxH",
     "of the picture, multiples of 64, or one number; default 512"},
    {"size", 0, SIZE, AT(options), 0, 0, NOISE, "WxH", "of the picture, multiples of 64, or one number; default 128"},
    {"truth", 0, TEXT, AT(truth), 0, 0, NOISE, "FILE", "compare with this: what flis64 noise --trace wrote"},
    {"json", 0, TEXT, AT(json), 0, 0, NOISE, "FILE", "write the table to this JSON file too"},
    {"no-layout", 0, FLAG, AT(options.no_layout), 0, 0, GENERATE, NULL,
     "plain Stable Diffusion: the phrases act everywhere"},
    {"noise", 0, TEXT, AT(options.noise), 0, 0, GENERATE, "FILE",
     "safetensors with x_T [1,4,h,w]; default: from the seed"},
    {"threads", 0, WHOLE, AT(threads), 1, 4096, LONG | NOISE | DIGEST, "N",
     "no bit of the result depends on it; default: all cores"},
    {"trace", 0, TEXT, AT(trace), 0, 0, LONG, "FILE", "write intermediates to this safetensors file"},
    {"trace", 0, TEXT, AT(trace), 0, 0, NOISE, "FILE", "write the reference and its inputs to this safetensors file"},
    {"trace-match", 0, TEXT, AT(trace_match), 0, 0, LONG, "GLOB",
     "only intermediates whose whole name matches (* ? [a-z])"},
    {"trace-steps", 0, RANGES, AT(trace_step), 0, 0, LONG, "LIST", "only those sampler steps, from 0: 0,49 or 0-3"},
    {"trace-digest", 0, TEXT, AT(trace_digest), 0, 0, LONG, "FILE",
     "write every intermediate's digest and statistics to this JSON file"},
    {"manifest", 0, TEXT, AT(manifest), 0, 0, CONFORMANCE, "DIR",
     "where manifest.json and its files are; default: tests/golden"},
    {"match", 0, TEXT, AT(match), 0, 0, CONFORMANCE, "GLOB", "only vectors whose whole id matches (* ? [a-z])"},
    {"diffable", 0, FLAG, AT(diffable), 0, 0, INFO, NULL, "leave out where in the file each tensor lies"},
    {"quiet", 'q', FLAG, AT(quiet), 0, 0, LONG | NOISE, NULL, "no progress"},
    {"help", 'h', FLAG, AT(help), 0, 0, ~0u, NULL, "this text"},
};
enum { OPTIONS = sizeof option_table / sizeof *option_table };

/* The whole string as a decimal number below 2^64. */
static bool parse_whole(const char *text, uint64_t *out)
{
    uint64_t value = 0;
    if (!*text) return false;
    for (; *text; text++) {
        if (*text < '0' || *text > '9') return false;
        uint64_t digit = (uint64_t)(*text - '0');
        if (value > (UINT64_MAX - digit) / 10) return false;
        value = value * 10 + digit;
    }
    *out = value;
    return true;
}

/* The whole string as a finite decimal number; no blanks, no hexadecimal, no "inf". */
static bool parse_number(const char *text, double *out)
{
    char *end;
    if (!*text || strspn(text, "0123456789+-.eE") != strlen(text)) return false;
    errno = 0;
    *out = strtod(text, &end);
    return !*end && !(errno == ERANGE && (*out > 1 || *out < -1));
}

/* "512" or "640x448". */
static bool parse_size(const char *text, size_t *width, size_t *height)
{
    char first[24];
    uint64_t w, h;
    size_t length = strcspn(text, "x");
    if (length >= sizeof first) return false;
    memcpy(first, text, length);
    first[length] = 0;
    if (!parse_whole(first, &w)) return false;
    if (!text[length]) h = w;
    else if (!parse_whole(text + length + 1, &h)) return false;
    if (!w || !h || w % 64 || h % 64 || w > 65536 || h > 65536) return false;
    *width = (size_t)w;
    *height = (size_t)h;
    return true;
}

/* "0,49" or "0-3,10". */
static bool parse_ranges(cli *c, const char *text)
{
    for (c->trace_steps = 0;;) {
        char part[48], *dash;
        size_t length = strcspn(text, ",");
        if (length >= sizeof part || c->trace_steps == MAX_RANGES) return false;
        memcpy(part, text, length);
        part[length] = 0;
        if ((dash = strchr(part, '-'))) *dash++ = 0;
        uint64_t first, last;
        if (!parse_whole(part, &first) || !parse_whole(dash ? dash : part, &last) || last < first) return false;
        c->trace_step[c->trace_steps].first = first;
        c->trace_step[c->trace_steps++].last = last;
        if (!text[length]) return true;
        text += length + 1;
    }
}

/* One of two words. */
static bool parse_word(const char *text, const char *zero, const char *one, int *out)
{
    *out = strcmp(text, one) == 0;
    return *out || strcmp(text, zero) == 0;
}

/* Puts an option's value in its place. 0, or 2 after saying what is wrong. */
static int set_option(cli *c, const option *o, const char *text)
{
    void *field = (char *)c + o->offset;
    uint64_t whole;
    double number;
    int which = 0;
    switch (o->kind) {
    case FLAG: *(bool *)field = true; return 0;
    case TEXT:
        if (!*text) return usage(c, "--%s: got an empty name", o->name);
        *(const char **)field = text;
        return 0;
    case WHOLE:
        if (!parse_whole(text, &whole) || (o->max > 0 && ((double)whole < o->min || (double)whole > o->max)))
            return usage(c, "--%s: got \"%s\", wanted a whole number from %.0f to %s%.0f", o->name, text, o->min,
                         o->max > 0 ? "" : "2^64-", o->max > 0 ? o->max : 1);
        *(uint64_t *)field = whole;
        return 0;
    case NUMBER:
        if (!parse_number(text, &number) || number < o->min || number > o->max)
            return usage(c, "--%s: got \"%s\", wanted a number from %g to %g", o->name, text, o->min, o->max);
        *(double *)field = number;
        return 0;
    case SIZE:
        if (parse_size(text, &c->options.width, &c->options.height)) return 0;
        return usage(c, "--size: got \"%s\", wanted N or WxH, multiples of 64 up to 65536", text);
    case SAMPLER:
        if (!parse_word(text, "plms", "ddim", &which))
            return usage(c, "--sampler: got \"%s\", wanted plms or ddim", text);
        c->options.sampling.kind = which ? FLIS_DDIM : FLIS_PLMS;
        return 0;
    case RNG:
        if (!parse_word(text, "cpu", "cuda", &which)) return usage(c, "--rng: got \"%s\", wanted cpu or cuda", text);
        c->options.rng = which ? FLIS_RNG_CUDA : FLIS_RNG_CPU;
        return 0;
    case RANGES:
        if (parse_ranges(c, text)) return 0;
        return usage(c, "--trace-steps: got \"%s\", wanted numbers and ranges like 0,10-12,49", text);
    }
    return 2;
}

static const option *find_option(const char *name, size_t length, unsigned commands)
{
    for (size_t i = 0; i < OPTIONS; i++) {
        const option *o = &option_table[i];
        if (!(o->commands & commands)) continue;
        if (name[1] == '-' && strlen(o->name) == length - 2 && !strncmp(o->name, name + 2, length - 2)) return o;
        if (length == 2 && name[1] == o->letter) return o;
    }
    return NULL;
}

/* Options and words may be mixed; "--" ends the options; "--name=value" works; the last of a kind wins. */
static int parse_arguments(cli *c, int argc, char **argv, unsigned commands)
{
    bool options_over = false;
    c->word = argv; /* words move to the front */
    for (int i = 0; i < argc; i++) {
        char *text = argv[i];
        if (options_over || text[0] != '-' || !text[1]) {
            argv[c->words++] = text;
            continue;
        }
        if (!strcmp(text, "--")) {
            options_over = true;
            continue;
        }
        bool spelled = text[1] == '-';
        size_t length = spelled ? strcspn(text, "=") : strlen(text);
        const option *o = find_option(text, length, commands);
        const char *value = text[length] ? text + length + 1 : NULL;
        if (!o || (spelled && length == 2)) return usage(c, "unknown option %.*s", (int)length, text);
        if (o->kind == FLAG && value) return usage(c, "%.*s takes no value", (int)length, text);
        if (o->kind != FLAG && !value && ++i == argc) return usage(c, "%s needs a value: %s", text, o->value);
        int status = set_option(c, o, o->kind == FLAG || value ? value : argv[i]);
        if (status) return status;
        if (c->help) return 0;
    }
    return 0;
}

/* ---- Help -------------------------------------------------------------------------------------------------------- */

enum { COMMANDS = 8 };
static const command commands[COMMANDS + 1];

static unsigned command_bit(const command *which)
{
    return 1u << (which - commands);
}

static void help_command(const command *which)
{
    printf("usage: flis %s %s\n\n%s\n%s\noptions:\n", which->name, which->arguments, which->summary, which->details);
    for (size_t i = 0; i < OPTIONS; i++) {
        const option *o = &option_table[i];
        char left[64], letter[8] = "    ";
        if (!(o->commands & command_bit(which))) continue;
        if (o->letter) snprintf(letter, sizeof letter, "-%c, ", o->letter);
        snprintf(left, sizeof left, "%s--%s %s", letter, o->name, o->value ? o->value : "");
        printf("  %-26s %s\n", left, o->help);
    }
}

static void help_all(void)
{
    printf("flis " FLIS_VERSION
           " - freestyle layout-to-image synthesis: a layout and its phrases in, a picture out\n\n");
    for (const command *k = commands; k->name; k++)
        printf("  flis %s %s\n      %s\n", k->name, k->arguments, k->summary);
    printf("\nflis COMMAND --help tells a command's options; flis --version the version.\n"
           "Data goes to stdout, everything else to stderr. Exit 0: done; 1: failed; 2: wrong usage.\n");
}

/* ---- Paths ------------------------------------------------------------------------------------------------------- */

/* Length of the folder part of a path, its slash included; 0 if there is none. */
static size_t folder_length(const char *path)
{
    const char *slash = strrchr(path, '/');
#ifdef _WIN32
    const char *other = strrchr(path, '\\');
    if (other && (!slash || other > slash)) slash = other;
#endif
    return slash ? (size_t)(slash - path) + 1 : 0;
}

static const char *base_name(const char *path)
{
    return path + folder_length(path);
}

/* out = the first `length` bytes of folder, then name; true if such a file is there. */
static bool file_in(const char *folder, size_t length, const char *name, char *out)
{
    int wrote = snprintf(out, PATH_ROOM, "%.*s%s", (int)length, folder, name);
    if (wrote < 0 || wrote >= PATH_ROOM || length >= PATH_ROOM) return false;
    file_kind kind = kind_of(out);
    return kind == REGULAR || kind == SPECIAL;
}

/* Folder number i of those where a default model may be: beside the command, here, installed. False: no more. */
static bool default_folder(const cli *c, int i, char *out)
{
    size_t beside = folder_length(c->program);
    if (i == 0) return snprintf(out, PATH_ROOM, "%.*smodels/", (int)beside, c->program) < PATH_ROOM;
    if (i == 1) return snprintf(out, PATH_ROOM, "models/") < PATH_ROOM;
    return i == 2 && snprintf(out, PATH_ROOM, "%s/", FLIS_DATADIR) < PATH_ROOM;
}

#define DEFAULT_MODEL "flis-small.safetensors"

static bool find_model(cli *c)
{
    char folder[PATH_ROOM];
    if (!c->model) {
        for (int i = 0; default_folder(c, i, folder); i++)
            if (file_in(folder, strlen(folder), DEFAULT_MODEL, c->model_path)) return true;
        return flis_fail(&c->ctx, "no model: give one with -m; the default, models/" DEFAULT_MODEL ", is not here");
    }
    size_t length = strlen(c->model);
    if (length >= PATH_ROOM) return flis_fail(&c->ctx, "%s: the name is too long", c->model);
    memcpy(c->model_path, c->model, length + 1);
    return true;
}

static bool vocab_in(cli *c, const char *folder, size_t length)
{
    static const char *const names[] = {"vocab.txt", "merges.txt", "bpe_simple_vocab_16e6.txt",
                                        "bpe_simple_vocab_16e6.txt.gz"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (file_in(folder, length, names[i], c->vocab_path)) return true;
    return false;
}

/* The vocabulary given, or the one beside the model, or (where no model is named) beside a default model. */
static flis_vocab *find_vocab(cli *c)
{
    char folder[PATH_ROOM];
    bool found = false;
    if (c->vocab) return flis_vocab_read(&c->ctx, c->vocab);
    const char *model = c->model ? c->model : *c->model_path ? c->model_path : NULL;
    if (model) { /* a diffusers folder has its own in tokenizer/ */
        int length = snprintf(folder, sizeof folder, "%s/tokenizer", model);
        found = (length > 0 && length < PATH_ROOM && vocab_in(c, folder, (size_t)length)) ||
                vocab_in(c, model, folder_length(model));
    } else
        for (int i = 0; !found && default_folder(c, i, folder); i++) found = vocab_in(c, folder, strlen(folder));
    if (found) return flis_vocab_read(&c->ctx, c->vocab_path);
    flis_fail(&c->ctx,
              "no vocabulary: give one with --vocab, or put vocab.txt, merges.txt or bpe_simple_vocab_16e6.txt[.gz] "
              "beside %s",
              model ? model : "the model");
    return NULL;
}

/* Says now, not after an hour, that a result cannot be written. The probe has the name of the library's temporary. */
static bool check_writable(flis_ctx *ctx, const char *path)
{
    char probe[PATH_ROOM];
    file_kind kind = kind_of(path);
    if (kind == DIRECTORY) return flis_fail(ctx, "%s: is a directory, wanted a file name", path);
    if (kind == SPECIAL) return flis_fail(ctx, "%s: is not a regular file, which the result would replace", path);
    int length = snprintf(probe, sizeof probe, "%s.partial", path);
    if (length < 0 || length >= PATH_ROOM) return flis_fail(ctx, "%s: the name is too long", path);
    FILE *file = fopen(probe, "wb");
    if (!file) return flis_fail(ctx, "%s: cannot be written: %s", path, strerror(errno));
    fclose(file);
    remove(probe);
    return true;
}

/* ---- Tensors out: results and traces ----------------------------------------------------------------------------- */

static const flis_dtype REAL_TYPE = sizeof(flis_real) == 8 ? FLIS_F64 : FLIS_F32;

/* Adds a tensor with room for its values, which the caller fills. NULL: out of memory (the context says so). */
static void *add_tensor(flis_ctx *ctx, tensor_list *list, const char *name, flis_dtype dtype, int rank,
                        const uint64_t *shape)
{
    if (!flis_ok(ctx)) return NULL;
    if (list->count == list->room) {
        size_t room = list->room ? 2 * list->room : 64;
        named_tensor *item = flis_alloc(ctx, room, sizeof *item);
        if (!item) return NULL;
        if (list->count) memcpy(item, list->item, list->count * sizeof *item);
        free(list->item);
        list->item = item;
        list->room = room;
    }
    named_tensor *t = &list->item[list->count];
    *t = (named_tensor){.dtype = dtype, .rank = rank, .count = 1};
    for (int i = 0; i < rank; i++) {
        t->shape[i] = shape[i];
        t->count *= (size_t)shape[i];
    }
    t->name = flis_alloc(ctx, strlen(name) + 1, 1);
    t->values = flis_alloc(ctx, t->count ? t->count : 1,
                           dtype == FLIS_U8    ? 1
                           : dtype == FLIS_I64 ? 8
                                               : sizeof(flis_real));
    if (!t->name || !t->values) {
        free(t->name);
        free(t->values);
        return NULL;
    }
    strcpy(t->name, name);
    list->count++;
    return t->values;
}

/* [n][h][w][c] is [n,c,h,w] in a file, [n][t][c] and [n][c] are as they are. */
static void file_shape(const flis_tensor *x, uint64_t shape[4])
{
    shape[0] = x->n;
    shape[1] = x->rank == 3 ? x->h * x->w : x->c;
    shape[2] = x->rank == 3 ? x->c : x->h;
    shape[3] = x->w;
}

/* Adds an activation in the order that files have. */
static void add_activation(flis_ctx *ctx, tensor_list *list, const char *name, const flis_tensor *x)
{
    if (!x || !flis_ok(ctx)) return;
    uint64_t shape[4];
    file_shape(x, shape);
    void *values = add_tensor(ctx, list, name, x->bytes ? FLIS_U8 : REAL_TYPE, x->rank, shape);
    if (!values) return;
    if (x->rank == 4) flis_to_nchw(x, values);
    else if (!x->bytes) memcpy(values, x->x, flis_count(x) * sizeof *x->x);
    for (size_t i = 0; x->bytes && i < flis_count(x); i++) ((uint8_t *)values)[i] = (uint8_t)x->x[i];
}

static void free_tensors(tensor_list *list)
{
    for (size_t i = 0; i < list->count; i++) {
        free(list->item[i].name);
        free(list->item[i].values);
    }
    free(list->item);
    *list = (tensor_list){0};
}

static bool save_tensors(flis_ctx *ctx, const char *path, const tensor_list *list, const fact *facts, size_t fact_count)
{
    flis_writer *writer = flis_ok(ctx) ? flis_write_begin(ctx, path) : NULL;
    for (size_t i = 0; writer && i < fact_count; i++) flis_write_metadata(ctx, writer, facts[i].key, facts[i].value);
    for (size_t i = 0; writer && i < list->count; i++) {
        const named_tensor *t = &list->item[i];
        flis_write_declare(ctx, writer, t->name, t->dtype, t->rank, t->shape);
    }
    for (size_t i = 0; writer && i < list->count; i++) {
        const named_tensor *t = &list->item[i];
        if (t->dtype == FLIS_U8) flis_write_u8(ctx, writer, t->values, t->count);
        else if (t->dtype == FLIS_I64) flis_write_i64(ctx, writer, t->values, t->count);
        else flis_write_real(ctx, writer, t->values, t->count);
    }
    return writer && flis_write_end(ctx, writer);
}

/* [abc], [a-z], [!a]: does the set at *pattern (behind its bracket) hold c? Moves *pattern behind the set. */
static bool glob_set(const char **pattern, char c)
{
    const char *p = *pattern;
    bool invert = *p == '!', inside = false;
    if (invert) p++;
    const char *first = p;
    for (; *p && (*p != ']' || p == first); p++) {
        char low = *p, high = low;
        if (p[1] == '-' && p[2] && p[2] != ']') {
            high = p[2];
            p += 2;
        }
        inside = inside || (c >= low && c <= high);
    }
    *pattern = *p ? p + 1 : p;
    return inside != invert;
}

/* * any run of characters, dots too; ? any one; [a-z] one of a set. A later * makes an earlier one's choice final, so
   remembering one place to go back to is enough. */
static bool glob(const char *pattern, const char *text)
{
    const char *star = NULL, *resume = NULL;
    while (*text || *pattern) {
        const char *next = pattern + 1;
        if (*pattern == '*') {
            star = pattern++;
            resume = text;
            continue;
        }
        if (*text && *pattern && (*pattern == '?' || (*pattern == '[' ? glob_set(&next, *text) : *pattern == *text))) {
            pattern = next;
            text++;
            continue;
        }
        if (!star || !*resume) return false;
        pattern = star + 1;
        text = ++resume;
    }
    return true;
}

/* Whether --trace-steps wants a name: "step.N…" must be in the list, other names always are. */
static bool step_wanted(const cli *c, const char *name)
{
    char *end;
    if (!c->trace_steps || strncmp(name, "step.", 5)) return true;
    unsigned long step = strtoul(name + 5, &end, 10);
    for (size_t i = 0; i < c->trace_steps; i++)
        if (step >= c->trace_step[i].first && step <= c->trace_step[i].last) return true;
    return end == name + 5;
}

/* ---- Progress ---------------------------------------------------------------------------------------------------- */

/* "step 3/50, 1.25 s/step, 0:59 left", or "load 310/686". Redrawn on a terminal; else lines, one per sampler step. */
static void on_progress(void *user, const char *what, size_t done, size_t total)
{
    cli *c = user;
    double time = now();
    bool sampling = !strcmp(what, "sample"), terminal = stderr_is_terminal();
    if (strcmp(c->progress.what, what) || done < c->progress.done) {
        end_line(c);
        snprintf(c->progress.what, sizeof c->progress.what, "%s", what);
        c->progress.start = time;
        c->progress.first = done;
        c->progress.drawn = 0;
    } else if (done == c->progress.done) {
        return; /* sampler and pipeline both tell */
    }
    c->progress.done = done;
    const bool later = terminal ? done < total && time - c->progress.drawn < 0.1 : sampling ? !done : done < total;
    if (c->quiet || later) return;
    c->progress.drawn = time;
    fprintf(stderr, "%s%s %zu/%zu", terminal ? "\r" : "", sampling ? "step" : what, done, total);
    if (sampling && done > c->progress.first) {
        double each = (time - c->progress.start) / (double)(done - c->progress.first);
        unsigned long left = (unsigned long)(each * (double)(total - done) + 0.5);
        fprintf(stderr, ", %.2f s/step, %lu:%02lu left", each, left / 60, left % 60);
    }
    fputs(terminal ? "   " : "\n", stderr);
    c->progress.line_open = terminal;
    if (done >= total) end_line(c);
    fflush(stderr);
}

/* ---- Traces ------------------------------------------------------------------------------------------------------ */

static void put_text(flis_ctx *ctx, buffer *t, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    int length = vsnprintf(NULL, 0, format, args);
    va_end(args);
    if (length < 0 || !flis_ok(ctx)) return;
    if (t->room - t->length <= (size_t)length) {
        size_t room = 2 * t->room + (size_t)length + 64;
        char *larger = flis_alloc(ctx, room, 1);
        if (!larger) return;
        if (t->length) memcpy(larger, t->at, t->length);
        free(t->at);
        t->at = larger;
        t->room = room;
    }
    va_start(args, format);
    vsnprintf(t->at + t->length, t->room - t->length, format, args);
    va_end(args);
    t->length += (size_t)length;
}

static void put_json_string(flis_ctx *ctx, buffer *t, const char *string)
{
    put_text(ctx, t, "\"");
    for (const unsigned char *s = (const unsigned char *)string; *s; s++) {
        if (*s == '"' || *s == '\\') put_text(ctx, t, "\\%c", *s);
        else if (*s < ' ') put_text(ctx, t, "\\u%04x", (unsigned)*s);
        else put_text(ctx, t, "%c", *s);
    }
    put_text(ctx, t, "\"");
}

/* A number that reads back as the same; JSON has none for NaN and infinity, so they are strings. */
static void put_json_number(flis_ctx *ctx, buffer *t, double x, int digits)
{
    if (x != x) put_text(ctx, t, "\"NaN\"");
    else if (x - x != 0) put_text(ctx, t, x > 0 ? "\"Infinity\"" : "\"-Infinity\"");
    else put_text(ctx, t, "%.*g", digits, x);
}

/* The shortest text that reads back as the same number. SPEC 9.2. */
static void number_text(double x, char out[32])
{
    for (int digits = 1; digits <= 17; digits++) {
        snprintf(out, 32, "%.*g", digits, x);
        if (strtod(out, NULL) == x) return;
    }
}

/* Notes what a trace will say of its run. Takes the text over. */
static void add_fact(cli *c, const char *key, buffer *value)
{
    if (flis_ok(&c->ctx) && c->facts < MAX_FACTS) c->fact[c->facts++] = (fact){key, value->at};
    else free(value->at);
}

static void note(cli *c, const char *key, const char *format, ...)
{
    char small[512];
    buffer value = {NULL, 0, 0};
    va_list args;
    va_start(args, format);
    vsnprintf(small, sizeof small, format, args);
    va_end(args);
    put_text(&c->ctx, &value, "%s", small);
    add_fact(c, key, &value);
}

static void note_number(cli *c, const char *key, double x)
{
    char number[32];
    number_text(x, number);
    note(c, key, "%s", number);
}

static void free_facts(cli *c)
{
    for (size_t i = 0; i < c->facts; i++) free(c->fact[i].value);
    c->facts = 0;
}

/* Adds a file's bytes to a digest; done and total are told as progress, in megabytes. */
static bool trace_digest_file(cli *c, flis_sha256 *sum, const char *path, uint64_t *done, uint64_t total)
{
    enum { PIECE = 1 << 20 };
    flis_ctx *ctx = &c->ctx;
    size_t got = PIECE;
    unsigned char *bytes = flis_alloc(ctx, PIECE, 1);
    FILE *file = bytes ? fopen(path, "rb") : NULL;
    if (bytes && !file) flis_fail(ctx, "%s: cannot be opened", path);
    while (file && got == PIECE && flis_ok(ctx)) {
        got = fread(bytes, 1, PIECE, file);
        flis_sha256_add(sum, bytes, got);
        *done += got;
        if (total >> 20 && *done <= total) on_progress(c, "digest", (size_t)(*done >> 20), (size_t)(total >> 20));
        if (interrupted) flis_fail(ctx, "interrupted");
    }
    if (file && ferror(file)) flis_fail(ctx, "%s: cannot be read", path);
    if (file) fclose(file);
    free(bytes);
    return flis_ok(ctx);
}

static void note_file(cli *c, const char *key, const char *digest_key, const char *path)
{
    flis_sha256 sum;
    char hex[65];
    uint64_t done = 0;
    flis_sha256_begin(&sum);
    if (!flis_ok(&c->ctx) || !trace_digest_file(c, &sum, path, &done, 0)) return;
    flis_sha256_end(&sum, hex);
    note(c, key, "%s", base_name(path));
    note(c, digest_key, "%s", hex);
}

/* The digest of a model is of its files' bytes, one file after the other in the order of `flis info`: for a single file
   what sha256sum prints. */
static void note_model(cli *c)
{
    flis_sha256 sum;
    char hex[65];
    uint64_t done = 0, total = 0;
    flis_file *file = flis_ok(&c->ctx) ? flis_model_open(&c->ctx, c->model_path) : NULL;
    if (!file) return;
    for (size_t i = 0; i < file->count; i++) total += file->entry[i].end - file->entry[i].begin;
    flis_sha256_begin(&sum);
    for (size_t i = 0; i < file->shards && flis_ok(&c->ctx); i++)
        trace_digest_file(c, &sum, file->shard[i].path, &done, total);
    flis_sha256_end(&sum, hex);
    note(c, "model", "%s", base_name(c->model_path));
    note(c, "model.sha256", "%s", hex);
    flis_file_close(file);
}

static void note_sampling(cli *c)
{
    const flis_options *o = &c->options;
    note(c, "seed", "%llu", (unsigned long long)o->seed);
    note(c, "rng", "%s", o->rng == FLIS_RNG_CPU ? "cpu" : "cuda");
    note(c, "steps", "%d", o->sampling.steps);
    note(c, "sampler", "%s", o->sampling.kind == FLIS_PLMS ? "plms" : "ddim");
    note_number(c, "eta", o->sampling.eta);
    note_number(c, "scale", o->sampling.scale);
}

/* The phrases as JSON, the tokens and their classes, and the label map by the digest of its values. */
static void note_layout(cli *c, const flis_vocab *vocab, const flis_layout *layout)
{
    flis_ctx *ctx = &c->ctx;
    flis_prompt prompt = {0};
    buffer phrases = {NULL, 0, 0}, ids = {NULL, 0, 0}, classes = {NULL, 0, 0};
    flis_sha256 sum;
    char hex[65];
    put_text(ctx, &phrases, "[");
    for (size_t i = 0; i < layout->count; i++) {
        put_text(ctx, &phrases, i ? ", [" : "[");
        put_json_string(ctx, &phrases, layout->phrase[i].text);
        put_text(ctx, &phrases, ", %d]", layout->phrase[i].id);
    }
    put_text(ctx, &phrases, "]");
    add_fact(c, "phrases", &phrases);
    if (!flis_prompt_make(ctx, vocab, layout->phrase, layout->count, &prompt)) return;
    for (size_t i = 0; i < prompt.tokens + 2; i++) put_text(ctx, &ids, i ? " %ld" : "%ld", (long)prompt.ids[i]);
    put_text(ctx, &classes, "%s", "");
    for (size_t i = 0; i < prompt.classes; i++)
        put_text(ctx, &classes, i ? " %.0f" : "%.0f", (double)prompt.class_ids[i]);
    add_fact(c, "ids", &ids);
    add_fact(c, "class_ids", &classes);
    flis_prompt_free(&prompt);
    note(c, "layout", "%s", c->options.no_layout || !layout->label.width ? "none" : base_name(c->layout));
    if (c->options.no_layout || !layout->label.width) return;
    flis_sha256_begin(&sum);
    flis_sha256_add(&sum, layout->label.pixels, layout->label.width * layout->label.height);
    flis_sha256_end(&sum, hex);
    note(c, "layout.size", "%zux%zu", layout->label.width, layout->label.height);
    note(c, "layout.sha256", "%s", hex);
}

/* What a file is called while it is being written. */
static void partial_path(const char *path, char out[PATH_ROOM])
{
    snprintf(out, PATH_ROOM, "%s.partial", path);
}

/* Closes a file that was written under its partial name, and gives it its name; where anything failed, removes it. */
static bool close_partial(cli *c, FILE *stream, const char *path)
{
    char partial[PATH_ROOM];
    partial_path(path, partial);
    const bool bad = ferror(stream) != 0;
    if (fclose(stream) != 0 || bad) flis_fail(&c->ctx, "%s: cannot be written: the disk may be full", path);
#ifdef _WIN32
    if (flis_ok(&c->ctx)) remove(path);
#endif
    if (flis_ok(&c->ctx) && rename(partial, path) != 0) flis_fail(&c->ctx, "%s: cannot be written", path);
    if (!flis_ok(&c->ctx)) remove(partial);
    return flis_ok(&c->ctx);
}

static bool write_text(cli *c, const char *path, const buffer *t)
{
    char partial[PATH_ROOM];
    partial_path(path, partial);
    FILE *stream = flis_ok(&c->ctx) ? fopen(partial, "wb") : NULL;
    if (!stream) return flis_fail(&c->ctx, "%s: cannot be written", path);
    fwrite(t->at, 1, t->length, stream);
    return close_partial(c, stream, path);
}

/* Begins the JSON file with what is known of the run; a line per tensor follows, in order of execution. */
static bool trace_digest_begin(cli *c)
{
    char partial[PATH_ROOM];
    buffer head = {NULL, 0, 0};
    partial_path(c->trace_digest, partial);
    if (!flis_ok(&c->ctx) || !(c->digest.stream = fopen(partial, "wb")))
        return flis_fail(&c->ctx, "%s: cannot be written", c->trace_digest);
    put_text(&c->ctx, &head, "{\"metadata\": {");
    for (size_t i = 0; i < c->facts; i++) {
        put_text(&c->ctx, &head, "%s\n  \"%s\": ", i ? "," : "", c->fact[i].key);
        put_json_string(&c->ctx, &head, c->fact[i].value);
    }
    put_text(&c->ctx, &head, "},\n\"tensors\": [");
    if (flis_ok(&c->ctx)) fputs(head.at, c->digest.stream);
    free(head.at);
    return flis_ok(&c->ctx);
}

static void trace_digest_tensor(cli *c, const char *name, const flis_tensor *x)
{
    flis_ctx *ctx = &c->ctx;
    const int digits = sizeof(flis_real) == 8 ? 17 : 9;
    flis_summary s;
    uint64_t shape[4];
    buffer line = {NULL, 0, 0};
    flis_tensor_summary(x, &s);
    file_shape(x, shape);
    put_text(ctx, &line, "%s\n{\"name\": ", c->digest.tensors++ ? "," : "");
    put_json_string(ctx, &line, name);
    put_text(ctx, &line, ", \"dtype\": \"%s\", \"shape\": [", flis_dtype_name(x->bytes ? FLIS_U8 : REAL_TYPE));
    for (int i = 0; i < x->rank; i++) put_text(ctx, &line, i ? ", %llu" : "%llu", (unsigned long long)shape[i]);
    put_text(ctx, &line, "], \"mean\": ");
    put_json_number(ctx, &line, s.mean, 17);
    put_text(ctx, &line, ", \"std\": ");
    put_json_number(ctx, &line, s.std, 17);
    put_text(ctx, &line, ", \"largest\": ");
    put_json_number(ctx, &line, s.largest, digits);
    put_text(ctx, &line, ", \"largest_at\": %zu, \"not_finite\": %zu, \"stride\": %zu, \"samples\": [", s.largest_at,
             s.not_finite, s.stride);
    for (size_t i = 0; i < s.samples; i++) {
        if (i) put_text(ctx, &line, ", ");
        put_json_number(ctx, &line, s.sample[i], digits);
    }
    put_text(ctx, &line, "], \"sha256\": \"%s\"}", s.sha256);
    if (flis_ok(ctx)) fputs(line.at, c->digest.stream);
    free(line.at);
}

/* Ends the file and gives it its name; where the run failed, removes it. */
static bool trace_digest_end(cli *c)
{
    FILE *stream = c->digest.stream;
    if (!stream) return flis_ok(&c->ctx);
    c->digest.stream = NULL;
    fputs("\n]}\n", stream);
    return close_partial(c, stream, c->trace_digest);
}

/* Whether the trace file gets a tensor of that name. */
static bool selected(const cli *c, const char *name)
{
    return (c->trace || c->trace_match) && (!c->trace_match || glob(c->trace_match, name)) && step_wanted(c, name);
}

/* An attention's insides are left out where they are large (self-attention at full size: 512 MB a layer), unless a glob
   asks for them. */
static bool on_trace_wants(void *user, const char *name, size_t count)
{
    enum { LARGEST_UNASKED = 1 << 24 };
    const cli *c = user;
    if (c->trace_match && selected(c, name)) return true;
    return count <= LARGEST_UNASKED && (selected(c, name) || (c->digest.stream && step_wanted(c, name)));
}

static void on_trace(void *user, const char *name, const flis_tensor *x)
{
    cli *c = user;
    if (c->digest.stream && step_wanted(c, name)) trace_digest_tensor(c, name, x);
    if (selected(c, name)) add_activation(&c->ctx, c->trace ? &c->traced : &c->outputs, name, x);
}

static bool tracing(const cli *c)
{
    return c->trace || c->trace_match || c->trace_digest;
}

static void trace_begin(cli *c)
{
    if (!tracing(c) || !flis_ok(&c->ctx) || (c->trace_digest && !trace_digest_begin(c))) return;
    c->ctx.trace = on_trace;
    c->ctx.trace_wants = on_trace_wants;
    c->ctx.trace_user = c;
}

static bool trace_paths_writable(cli *c)
{
    return (!c->trace || check_writable(&c->ctx, c->trace)) &&
           (!c->trace_digest || check_writable(&c->ctx, c->trace_digest));
}

/* Writes both files of a trace, or none. */
static bool trace_end(cli *c)
{
    bool ok = !c->trace || save_tensors(&c->ctx, c->trace, &c->traced, c->fact, c->facts);
    if (!trace_digest_end(c) && ok && c->trace) remove(c->trace);
    return flis_ok(&c->ctx);
}

static void trace_remove(const cli *c)
{
    if (c->trace) remove(c->trace);
    if (c->trace_digest) remove(c->trace_digest);
}

/* What long commands share: threads, progress, Ctrl-C, and a step count that the sampler will take. */
static bool prepare(cli *c)
{
    flis_ctx *ctx = &c->ctx;
    if (c->threads) ctx->threads = (int)c->threads;
    ctx->progress = on_progress;
    ctx->progress_user = c;
    ctx->interrupted = &interrupted;
    c->options.sampling.steps = (int)c->steps;
    c->options.warn = warn;
    c->options.warn_user = c;
    catch_signals();
    return flis_ok(ctx);
}

/* Refuses, before anything is loaded, what the sampler would refuse after. */
static bool check_steps(cli *c)
{
    const flis_sampling *s = &c->options.sampling;
    char sentence[160];
    flis_schedule *schedule = flis_alloc(&c->ctx, 1, sizeof *schedule);
    flis_steps *steps = flis_alloc(&c->ctx, 1, sizeof *steps);
    if (schedule && steps) {
        flis_schedule_make(schedule);
        if (flis_steps_make(&c->ctx, schedule, s->kind, s->steps, s->eta, steps) && steps->count != (size_t)s->steps) {
            snprintf(sentence, sizeof sentence,
                     "%d does not divide 1000: there will be %zu steps, as in the authors' code", s->steps,
                     steps->count);
            warn(c, sentence);
        }
    }
    free(schedule);
    free(steps);
    return flis_ok(&c->ctx);
}

/* ---- generate ---------------------------------------------------------------------------------------------------- */

/* The phrases as the authors join them. */
static char *prompt_text(flis_ctx *ctx, const flis_layout *layout)
{
    size_t room = 1;
    for (size_t i = 0; i < layout->count; i++) room += strlen(layout->phrase[i].text) + 1;
    char *text = flis_alloc(ctx, room, 1);
    for (size_t i = 0; text && i < layout->count; i++) {
        if (i) strcat(text, " ");
        strcat(text, layout->phrase[i].text);
    }
    return text;
}

/* Everything that makes the picture again goes into it. No folders: the bytes must not depend on where it was made.
   SPEC 9.2. */
static bool write_picture(cli *c, const flis_picture *picture, const flis_layout *layout)
{
    const flis_options *o = &c->options;
    char seed[24], steps[24], eta[32], scale[32], size[48];
    char *prompt = prompt_text(&c->ctx, layout);
    snprintf(seed, sizeof seed, "%llu", (unsigned long long)o->seed);
    snprintf(steps, sizeof steps, "%d", o->sampling.steps);
    snprintf(size, sizeof size, "%zux%zu", o->width, o->height);
    number_text(o->sampling.eta, eta);
    number_text(o->sampling.scale, scale);
    const char *text[] = {"Software",
                          "flis " FLIS_VERSION,
                          "seed",
                          seed,
                          "steps",
                          steps,
                          "sampler",
                          o->sampling.kind == FLIS_PLMS ? "plms" : "ddim",
                          "eta",
                          eta,
                          "scale",
                          scale,
                          "rng",
                          o->rng == FLIS_RNG_CPU ? "cpu" : "cuda",
                          "size",
                          size,
                          "model",
                          base_name(c->model_path),
                          "prompt",
                          prompt,
                          "layout",
                          o->no_layout || !layout->label.width ? "none" : base_name(c->layout),
                          o->noise ? "noise" : NULL,
                          o->noise ? base_name(o->noise) : NULL,
                          NULL};
    bool ok = prompt && flis_write_png(&c->ctx, c->out, picture, text);
    free(prompt);
    return ok;
}

static void generate_facts(cli *c, const flis_vocab *vocab, const flis_layout *layout)
{
    note(c, "flis.version", FLIS_VERSION);
    note(c, "flis.real", "%s", flis_dtype_name(REAL_TYPE));
    note(c, "command", "generate");
    note_model(c);
    note_layout(c, vocab, layout);
    note(c, "size", "%zux%zu", c->options.width, c->options.height);
    note_sampling(c);
    if (c->options.noise) note_file(c, "noise", "noise.sha256", c->options.noise);
}

static int run_generate(cli *c)
{
    flis_ctx *ctx = &c->ctx;
    flis_layout layout = {0};
    flis_picture picture = {0};
    if (c->words) return usage(c, "unexpected argument \"%s\"", c->word[0]);
    if (!c->layout) return usage(c, "-j LAYOUT.json is missing");
    if (!c->out) return usage(c, "-o OUT.png is missing");
    if (!c->trace && (c->trace_match || (c->trace_steps && !c->trace_digest)))
        return usage(c, "--trace FILE is missing");
    prepare(c);
    flis_vocab *vocab = NULL;
    if (check_steps(c) && check_writable(ctx, c->out) && trace_paths_writable(c) && find_model(c) &&
        flis_layout_read(ctx, c->layout, &layout))
        vocab = find_vocab(c);
    if (vocab && tracing(c)) generate_facts(c, vocab, &layout);
    if (vocab) trace_begin(c);
    if (vocab && flis_ok(ctx)) {
        fprintf(stderr, "seed %llu\n", (unsigned long long)c->options.seed);
        flis_generate(ctx, c->model_path, vocab, &layout, &c->options, &picture);
        end_line(c);
    }
    if (trace_end(c) && !write_picture(c, &picture, &layout)) trace_remove(c); /* all or nothing */
    free(picture.pixels);
    flis_vocab_free(vocab);
    flis_layout_free(&layout);
    return flis_ok(ctx) ? 0 : 1;
}

/* ---- stage: inputs ----------------------------------------------------------------------------------------------- */

/* One stage at work: the input file, and what the letters of the shapes stand for so far. */
typedef struct stage {
    cli *c;
    flis_file *in, *model;
    size_t dim[128]; /* by letter; 0: not yet known */
} stage;

/* Appends to a sentence that is being built. */
static void append(char *out, size_t room, const char *format, ...)
{
    size_t used = strlen(out);
    va_list args;
    va_start(args, format);
    vsnprintf(out + used, room - used, format, args);
    va_end(args);
}

/* Compares a shape with "n,77,d": numbers must be equal, letters equal to what they were before, or are learnt. */
static bool shape_fits(stage *s, const char *pattern, const uint64_t *shape, int rank)
{
    size_t learnt[128];
    memcpy(learnt, s->dim, sizeof learnt);
    for (int i = 0; i < rank; i++) {
        char *end = (char *)pattern;
        size_t want = *pattern >= '0' && *pattern <= '9' ? strtoul(pattern, &end, 10) : learnt[(int)*end++];
        if (want ? shape[i] != want : shape[i] == 0 || shape[i] > SIZE_MAX) return false;
        if (!want) learnt[(int)*pattern] = (size_t)shape[i];
        if (*end != (i + 1 < rank ? ',' : 0)) return false;
        pattern = end + 1;
    }
    memcpy(s->dim, learnt, sizeof learnt);
    return true;
}

/* Finds an input and holds its shape against the pattern; one leading 1 too many is let pass. NULL: absent or wrong. */
static const flis_entry *find_input(stage *s, const char *name, const char *pattern, bool optional)
{
    flis_ctx *ctx = &s->c->ctx;
    if (!flis_ok(ctx)) return NULL;
    const flis_entry *entry = flis_file_find(s->in, name);
    if (!entry) {
        if (!optional) flis_fail(ctx, "%s: tensor \"%s\": missing, wanted [%s]", s->c->in, name, pattern);
        return NULL;
    }
    int rank = 1, spare;
    for (const char *p = pattern; *p; p++) rank += *p == ',';
    spare = entry->rank == rank + 1 && entry->shape[0] == 1;
    if (entry->rank == rank + spare && shape_fits(s, pattern, entry->shape + spare, rank)) return entry;
    char got[160] = "", bound[160] = "";
    for (int i = 0; i < entry->rank; i++)
        append(got, sizeof got, "%s%llu", i ? "," : "", (unsigned long long)entry->shape[i]);
    for (const char *p = pattern; *p; p++)
        if (*p > '9' && s->dim[(int)*p])
            append(bound, sizeof bound, "%s%c = %zu", *bound ? ", " : " with ", *p, s->dim[(int)*p]);
    flis_fail(ctx, "%s: tensor \"%s\": got shape [%s], wanted [%s]%s", s->c->in, name, got, pattern, bound);
    return NULL;
}

/* The values of an input; free() them. NULL: absent (if optional) or failed. */
static flis_real *real_input(stage *s, const char *name, const char *pattern, bool optional)
{
    const flis_entry *entry = find_input(s, name, pattern, optional);
    flis_real *values = entry ? flis_alloc(&s->c->ctx, (size_t)flis_entry_count(entry), sizeof *values) : NULL;
    if (values) flis_file_read_real(&s->c->ctx, s->in, entry, values);
    return values;
}

/* Whole numbers from low to high, of any integer type. */
static int64_t *whole_input(stage *s, const char *name, const char *pattern, int64_t low, int64_t high, bool optional)
{
    flis_ctx *ctx = &s->c->ctx;
    const flis_entry *entry = find_input(s, name, pattern, optional);
    size_t count = entry ? (size_t)flis_entry_count(entry) : 0;
    int64_t *values = entry ? flis_alloc(ctx, count, sizeof *values) : NULL;
    if (!values || !flis_file_read_i64(ctx, s->in, entry, values)) return values;
    for (size_t i = 0; i < count; i++)
        if (values[i] < low || values[i] > high) {
            flis_fail(ctx, "%s: tensor \"%s\": value %zu: got %lld, wanted %lld to %lld", s->c->in, name, i,
                      (long long)values[i], (long long)low, (long long)high);
            break;
        }
    return values;
}

/* label [H,W] and class_ids [k], both or neither; the arrays stay until free_rca. */
typedef struct rca_input {
    flis_rca rca;
    uint8_t *label;
    float *class_ids;
} rca_input;

static void free_rca(rca_input *r)
{
    free(r->label);
    free(r->class_ids);
}

/* False: not given (if optional), or failed. */
static bool read_rca(stage *s, rca_input *r, bool optional)
{
    flis_ctx *ctx = &s->c->ctx;
    bool has_label = flis_file_find(s->in, "label"), has_ids = flis_file_find(s->in, "class_ids");
    *r = (rca_input){0};
    if (optional && !has_label && !has_ids) return false;
    const flis_entry *entry = flis_file_find(s->in, "class_ids");
    if (entry && flis_entry_count(entry) == 0) { /* no class at all: every column stays open */
        r->class_ids = flis_alloc(ctx, 1, sizeof *r->class_ids);
    } else {
        flis_real *ids = real_input(s, "class_ids", "k", false);
        r->class_ids = ids ? flis_alloc(ctx, s->dim['k'], sizeof *r->class_ids) : NULL;
        for (size_t i = 0; r->class_ids && i < s->dim['k']; i++) r->class_ids[i] = (float)ids[i];
        free(ids);
    }
    int64_t *label = whole_input(s, "label", "H,W", 0, 255, false);
    size_t count = s->dim['H'] * s->dim['W'];
    r->label = label && flis_ok(ctx) ? flis_alloc(ctx, count, 1) : NULL;
    for (size_t i = 0; r->label && i < count; i++) r->label[i] = (uint8_t)label[i];
    free(label);
    r->rca = (flis_rca){r->label, s->dim['H'], s->dim['W'], r->class_ids, s->dim['k']};
    return flis_ok(ctx);
}

/* An [n,c,h,w] input as an activation. */
static flis_tensor *image_input(stage *s, const char *name, const char *pattern, size_t channels, char h, char w)
{
    flis_real *values = real_input(s, name, pattern, false);
    flis_tensor *x = NULL;
    if (flis_ok(&s->c->ctx))
        x = flis_from_nchw(&s->c->ctx, values, s->dim['n'], channels, s->dim[(int)h], s->dim[(int)w]);
    free(values);
    return x;
}

/* ---- stage: the stages ------------------------------------------------------------------------------------------- */

/* SPEC 10.14. */
static void stage_clip(stage *s)
{
    flis_ctx *ctx = &s->c->ctx;
    int64_t *wide = whole_input(s, "ids", "n,77", 0, INT32_MAX, false);
    flis_clip *clip = flis_ok(ctx) ? flis_clip_load(ctx, s->model) : NULL;
    size_t n = s->dim['n'], count = n * FLIS_TOKENS, vocab = clip ? flis_clip_get_config(clip)->vocab : 0;
    int32_t *ids = clip ? flis_alloc(ctx, count, sizeof *ids) : NULL;
    for (size_t i = 0; ids && i < count; i++) {
        ids[i] = (int32_t)wide[i];
        if (wide[i] >= (int64_t)vocab)
            flis_fail(ctx, "%s: tensor \"ids\": value %zu: got %lld, wanted less than the model's vocabulary, %zu",
                      s->c->in, i, (long long)wide[i], vocab);
    }
    if (ids && flis_ok(ctx))
        add_activation(ctx, &s->c->outputs, "last_hidden_state", flis_clip_encode(ctx, clip, ids, n));
    free(ids);
    free(wide);
    flis_clip_free(clip);
}

/* SPEC 10.14. */
static void stage_rca(stage *s)
{
    flis_ctx *ctx = &s->c->ctx;
    rca_input r;
    int64_t *size = whole_input(s, "size", "2", 1, 65536, false);
    if (read_rca(s, &r, false)) {
        const uint64_t h = (uint64_t)size[0], w = (uint64_t)size[1], shape[] = {h * w, FLIS_TOKENS};
        uint8_t *mask = add_tensor(ctx, &s->c->outputs, "mask", FLIS_U8, 2, shape);
        if (mask) flis_rca_mask(ctx, &r.rca, (size_t)h, (size_t)w, mask);
    }
    free_rca(&r);
    free(size);
}

/* SPEC 10.14. */
static void stage_unet(stage *s)
{
    flis_ctx *ctx = &s->c->ctx;
    rca_input r = {0};
    double *t = NULL;
    const flis_rca **rca = NULL;
    flis_tensor *context = NULL, *x = image_input(s, "x", "n,4,h,w", 4, 'h', 'w');
    const flis_entry *entry = find_input(s, "t", "n", false);
    if (entry && (t = flis_alloc(ctx, s->dim['n'], sizeof *t))) flis_file_read_f64(ctx, s->in, entry, t);
    flis_real *text = real_input(s, "context", "n,77,d", false);
    if (text && (context = flis_rows(ctx, s->dim['n'], FLIS_TOKENS, s->dim['d'])))
        memcpy(context->x, text, flis_count(context) * sizeof *text);
    free(text);
    if (read_rca(s, &r, true) && (rca = flis_alloc(ctx, s->dim['n'], sizeof *rca)))
        for (size_t i = 0; i < s->dim['n']; i++) rca[i] = &r.rca;
    flis_unet *unet = flis_ok(ctx) ? flis_unet_load(ctx, s->model) : NULL;
    if (unet) add_activation(ctx, &s->c->outputs, "eps", flis_unet_eps(ctx, unet, x, t, context, rca));
    flis_unet_free(unet);
    free((void *)rca);
    free_rca(&r);
    free(t);
}

/* SPEC 10.14. */
static void stage_decode(stage *s)
{
    flis_ctx *ctx = &s->c->ctx;
    flis_tensor *z = image_input(s, "z", "n,4,h,w", 4, 'h', 'w');
    flis_vae *vae = flis_ok(ctx) ? flis_vae_load(ctx, s->model, true, false) : NULL;
    if (vae) add_activation(ctx, &s->c->outputs, "image", flis_vae_decode(ctx, vae, z));
    flis_vae_free(vae);
}

/* SPEC 10.14. */
static void stage_encode(stage *s)
{
    flis_ctx *ctx = &s->c->ctx;
    flis_tensor *image = image_input(s, "image", "n,3,H,W", 3, 'H', 'W');
    if (flis_ok(ctx) && (s->dim['H'] % FLIS_FACTOR || s->dim['W'] % FLIS_FACTOR))
        flis_fail(ctx, "%s: tensor \"image\": got %zu x %zu pixels, wanted multiples of %d", s->c->in, s->dim['H'],
                  s->dim['W'], FLIS_FACTOR);
    flis_vae *vae = flis_ok(ctx) ? flis_vae_load(ctx, s->model, false, true) : NULL;
    if (vae) add_activation(ctx, &s->c->outputs, "moments", flis_vae_encode(ctx, vae, image));
    flis_vae_free(vae);
}

/* What stage sample writes for every step; rows are [S][4][h][w]. */
typedef struct recording {
    tensor_list *list;
    size_t count, h, w; /* values of one latent */
    int64_t *t;
    flis_real *e_t, *x_prev, *pred_x0, *x;
} recording;

/* The user pointer of both the sampler's callbacks. */
typedef struct sample_user {
    flis_guided guided;
    recording record;
    size_t step, evaluation; /* for the names of traced tensors */
} sample_user;

/* As in generate, the trace's names begin with the step; PLMS evaluates a second time in its first. */
static bool sample_eps(flis_ctx *ctx, void *user, const flis_real *x, int64_t t, flis_real *eps, flis_real *uncond)
{
    sample_user *u = user;
    snprintf(ctx->scope, sizeof ctx->scope, "step.%zu.%s", u->step, u->evaluation++ ? "next." : "");
    return flis_guided_eps(ctx, &u->guided, x, t, eps, uncond);
}

static void on_step(flis_ctx *ctx, void *user, const flis_step *step)
{
    sample_user *u = user;
    recording *r = &u->record;
    u->step++;
    u->evaluation = 0;
    if (step->number == 0) {
        const uint64_t shape[] = {step->total, 4, r->h, r->w};
        flis_real *start = r->x; /* x_T, until now */
        r->t = add_tensor(ctx, r->list, "t", FLIS_I64, 1, shape);
        r->e_t = add_tensor(ctx, r->list, "e_t", REAL_TYPE, 4, shape);
        r->x_prev = add_tensor(ctx, r->list, "x_prev", REAL_TYPE, 4, shape);
        r->pred_x0 = add_tensor(ctx, r->list, "pred_x0", REAL_TYPE, 4, shape);
        r->x = add_tensor(ctx, r->list, "x", REAL_TYPE, 4, shape);
        if (r->x) memcpy(r->x, start, r->count * sizeof *start);
    }
    if (!flis_ok(ctx)) return;
    const size_t bytes = r->count * sizeof(flis_real), at = step->number * r->count;
    r->t[step->number] = step->t;
    memcpy(r->e_t + at, step->e_t, bytes);
    memcpy(r->x_prev + at, step->x_prev, bytes);
    memcpy(r->pred_x0 + at, step->pred_x0, bytes);
    if (step->number + 1 < step->total) memcpy(r->x + at + r->count, step->x_prev, bytes);
}

/* x_T from the file, or drawn; either way the generator then stands behind one draw of that size. */
static flis_real *starting_noise(stage *s)
{
    flis_ctx *ctx = &s->c->ctx;
    flis_real *x = real_input(s, "x_T", "1,4,h,w", true);
    if (!x) {
        int64_t *size = whole_input(s, "size", "2", 1, 8192, true);
        if (flis_ok(ctx) && !size)
            flis_fail(ctx, "%s: tensor \"x_T\": missing, wanted [1,4,h,w] (or \"size\" [2], to draw it)", s->c->in);
        if (size && flis_ok(ctx)) {
            s->dim['h'] = (size_t)size[0];
            s->dim['w'] = (size_t)size[1];
        }
        free(size);
    }
    size_t count = 4 * s->dim['h'] * s->dim['w'];
    float *noise = flis_ok(ctx) ? flis_alloc(ctx, count, sizeof *noise) : NULL;
    if (!noise) return x;
    flis_rng_seed(&ctx->rng, s->c->options.rng, s->c->options.seed);
    flis_randn(&ctx->rng, noise, count);
    if (!x && (x = flis_alloc(ctx, count, sizeof *x)))
        for (size_t i = 0; i < count; i++) x[i] = (flis_real)noise[i];
    free(noise);
    return x;
}

/* SPEC 10.14. */
static void stage_sample(stage *s)
{
    cli *c = s->c;
    flis_ctx *ctx = &c->ctx;
    const bool guide = c->options.sampling.scale != 1;
    rca_input r = {0};
    flis_real *x = starting_noise(s), *latents = NULL;
    flis_real *context = real_input(s, "context", "1,77,d", false);
    flis_real *uncond = guide ? real_input(s, "uncond", "1,77,d", false) : NULL;
    const bool has_rca = read_rca(s, &r, true);
    const uint64_t shape[] = {1, 4, s->dim['h'], s->dim['w']};
    flis_unet *unet = flis_ok(ctx) ? flis_unet_load(ctx, s->model) : NULL;
    if (unet && flis_unet_get_config(unet)->context != s->dim['d'])
        flis_fail(ctx, "%s: tensor \"context\": got width %zu, wanted the model's, %zu", c->in, s->dim['d'],
                  flis_unet_get_config(unet)->context);
    if (unet && (latents = add_tensor(ctx, &c->outputs, "latents", REAL_TYPE, 4, shape))) {
        const size_t count = 4 * s->dim['h'] * s->dim['w'];
        sample_user user = {
            .guided = {unet, s->dim['h'], s->dim['w'], context, uncond, has_rca ? &r.rca : NULL},
            .record = {.list = &c->outputs, .count = count, .h = s->dim['h'], .w = s->dim['w'], .x = x}};
        const flis_model_fn model = {sample_eps, on_step, &user};
        memcpy(latents, x, count * sizeof *x);
        flis_sample(ctx, &c->options.sampling, count, latents, &model);
        fprintf(stderr, "seed %llu\n", (unsigned long long)c->options.seed);
    }
    flis_unet_free(unet);
    free_rca(&r);
    free(uncond);
    free(context);
    free(x);
}

static const struct {
    const char *name;
    void (*run)(stage *s);
    bool model; /* reads weights */
} stages[] = {
    {"clip", stage_clip, true},     {"rca", stage_rca, false},      {"unet", stage_unet, true},
    {"decode", stage_decode, true}, {"encode", stage_encode, true}, {"sample", stage_sample, true},
};

static int run_stage(cli *c)
{
    flis_ctx *ctx = &c->ctx;
    size_t which = 0, count = sizeof stages / sizeof *stages;
    stage s = {.c = c};
    if (!c->words) return usage(c, "the stage's name is missing: clip, rca, unet, decode, encode or sample");
    while (which < count && strcmp(stages[which].name, c->word[0])) which++;
    if (which == count)
        return usage(c, "unknown stage \"%s\", wanted clip, rca, unet, decode, encode or sample", c->word[0]);
    if (c->words > 1) return usage(c, "unexpected argument \"%s\"", c->word[1]);
    if (!c->in) return usage(c, "-i IN.safetensors is missing");
    if (!c->out) return usage(c, "-o OUT.safetensors is missing");
    prepare(c);
    if (check_writable(ctx, c->out) && trace_paths_writable(c) &&
        (stages[which].run != stage_sample || check_steps(c)) &&
        (!stages[which].model || (find_model(c) && (s.model = flis_model_open(ctx, c->model_path)))))
        s.in = flis_file_open(ctx, c->in);
    if (s.in && tracing(c)) {
        note(c, "flis.version", FLIS_VERSION);
        note(c, "flis.real", "%s", flis_dtype_name(REAL_TYPE));
        note(c, "command", "stage %s", stages[which].name);
        if (s.model) note_model(c);
        note_file(c, "input", "input.sha256", c->in);
        if (stages[which].run == stage_sample) note_sampling(c);
    }
    if (s.in) trace_begin(c);
    if (s.in && flis_ok(ctx)) stages[which].run(&s);
    end_line(c);
    flis_file_close(s.in);
    flis_file_close(s.model);
    const size_t facts = c->trace ? 0 : c->facts; /* they belong to the file that has the intermediates */
    if (trace_end(c) && !save_tensors(ctx, c->out, &c->outputs, c->fact, facts)) trace_remove(c);
    return flis_ok(ctx) ? 0 : 1;
}

/* ---- noise ------------------------------------------------------------------------------------------------------- */

enum { FORMATS = 4 };
static const struct {
    const char *name;
    flis_precision precision;
} formats[FORMATS] = {
    {"f32", sizeof(flis_real) == 8 ? FLIS_AS_F32 : FLIS_EXACT}, /* flis is float32 itself */
    {"tf32", FLIS_AS_TF32},
    {"fp16", FLIS_AS_F16},
    {"bf16", FLIS_AS_BF16},
};

/* One tensor's deviations. */
typedef struct deviation {
    double largest, rms;
    size_t not_finite;
} deviation;
typedef struct noise_row {
    char *name;
    size_t count;
    double rms; /* of the reference */
    deviation of[FORMATS];
} noise_row;

typedef struct noise_run {
    cli *c;
    flis_file *model, *truth; /* truth: NULL, or what stands for the reference pass */
    noise_row *row;
    size_t rows, room;
    size_t at;                  /* the next row in this pass */
    int format;                 /* of this pass; -1: the reference */
    size_t h, w;                /* of the latent */
    flis_real *x, *z, *context; /* inputs: [1,4,h,w], the same for the decoder, [1,77,d] */
    size_t width;               /* d */
} noise_run;

static bool noise_wants(void *user, const char *name, size_t count)
{
    (void)user;
    (void)name;
    return count <= (size_t)1 << 24;
}

/* The reference's values of a row, from this stage's own pass or from the file. free() them. */
static double *noise_reference(noise_run *n, const noise_row *row)
{
    flis_ctx *ctx = &n->c->ctx;
    double *values = flis_alloc(ctx, row->count, sizeof *values);
    if (values && n->truth) {
        const flis_entry *entry = flis_file_find(n->truth, row->name);
        if (!entry || flis_entry_count(entry) != row->count)
            flis_fail(ctx, "%s: tensor \"%s\": %s, wanted %zu values", n->c->truth, row->name,
                      entry ? "of another size" : "missing", row->count);
        else flis_file_read_f64(ctx, n->truth, entry, values);
    }
    for (size_t i = n->c->traced.count; values && !n->truth && i-- > 0;) {
        const named_tensor *t = &n->c->traced.item[i];
        if (strcmp(t->name, row->name) != 0) continue;
        for (size_t k = 0; k < row->count; k++) values[k] = ((const flis_real *)t->values)[k];
        break;
    }
    return values;
}

static noise_row *noise_new_row(noise_run *n, const char *name, size_t count)
{
    flis_ctx *ctx = &n->c->ctx;
    if (n->rows == n->room) {
        size_t room = n->room ? 2 * n->room : 256;
        noise_row *larger = flis_alloc(ctx, room, sizeof *larger);
        if (!larger) return NULL;
        if (n->rows) memcpy(larger, n->row, n->rows * sizeof *larger);
        free(n->row);
        n->row = larger;
        n->room = room;
    }
    noise_row *row = &n->row[n->rows];
    memset(row, 0, sizeof *row);
    row->count = count;
    if (!(row->name = flis_alloc(ctx, strlen(name) + 1, 1))) return NULL;
    strcpy(row->name, name);
    n->rows++;
    return row;
}

/* Compares one tensor of a pass; in the pass that comes first, makes its row (and keeps the reference's values). */
static void noise_take(void *user, const char *name, const flis_tensor *x)
{
    noise_run *n = user;
    flis_ctx *ctx = &n->c->ctx;
    if (x->bytes || !flis_ok(ctx)) return;
    if (n->format < 0) add_activation(ctx, &n->c->traced, name, x);
    noise_row *row = n->at == n->rows ? noise_new_row(n, name, flis_count(x)) : &n->row[n->at];
    n->at++;
    double *wanted = row ? noise_reference(n, row) : NULL, square = 0, error = 0;
    flis_real *got = wanted ? flis_alloc(ctx, row->count, sizeof *got) : NULL;
    if (got && x->rank == 4) flis_to_nchw(x, got);
    else if (got) memcpy(got, x->x, row->count * sizeof *got);
    deviation none = {0}, *d = row && n->format >= 0 ? &row->of[n->format] : &none;
    for (size_t i = 0; got && flis_ok(ctx) && i < row->count; i++) {
        const double size = fabs((double)got[i] - wanted[i]);
        square += wanted[i] * wanted[i];
        error += size * size;
        if (!(size <= DBL_MAX)) d->not_finite++;
        else if (size > d->largest) d->largest = size;
    }
    if (got && n->format < 0 && d->not_finite)
        flis_fail(ctx, "%s: %zu values of the reference are not finite", name, d->not_finite);
    if (row) row->rms = sqrt(square / (double)row->count);
    d->rms = row ? sqrt(error / (double)row->count) : 0;
    if (d->not_finite) d->rms = d->largest = HUGE_VAL;
    free(got);
    free(wanted);
}

/* What the stages work on: tokens, latents from the seed, a layout of four quarters. All of it fits any model. */
enum { NOISE_PHRASE = 8 };
static const float NOISE_CLASSES[NOISE_PHRASE] = {0, 0, 1, 2, 3, -1, 3, 1};

static bool noise_clip(noise_run *n, const flis_clip *clip)
{
    flis_ctx *ctx = &n->c->ctx;
    const flis_clip_config *k = flis_clip_get_config(clip);
    int32_t ids[FLIS_TOKENS];
    for (size_t i = 0; i < FLIS_TOKENS; i++) ids[i] = (int32_t)k->vocab - 1;
    ids[0] = (int32_t)k->vocab - 2;
    for (size_t i = 1; i <= NOISE_PHRASE; i++) ids[i] = (int32_t)((i * 1009 + 320) % (k->vocab - 2));
    flis_mark mark = flis_here(ctx);
    const flis_tensor *y = flis_clip_encode(ctx, clip, ids, 1);
    if (y && n->format < 0) { /* float32 numbers, so that flis and flis64 continue from the same */
        n->width = y->c;
        n->context = flis_alloc(ctx, flis_count(y), sizeof *n->context);
        for (size_t i = 0; n->context && i < flis_count(y); i++) n->context[i] = (float)y->x[i];
    }
    flis_rewind(ctx, mark);
    return flis_ok(ctx);
}

static bool noise_unet(noise_run *n, const flis_unet *unet)
{
    flis_ctx *ctx = &n->c->ctx;
    const size_t height = n->h * FLIS_FACTOR, width = n->w * FLIS_FACTOR;
    const double t = 981;
    flis_mark mark = flis_here(ctx);
    uint8_t *label = flis_alloc(ctx, height, width);
    for (size_t i = 0; label && i < height * width; i++)
        label[i] = (uint8_t)((i / width >= height / 2) * 2 + (i % width >= width / 2));
    const flis_rca rca = {label, height, width, NOISE_CLASSES, NOISE_PHRASE}, *one = &rca;
    flis_tensor *context = flis_rows(ctx, 1, FLIS_TOKENS, n->width);
    if (context) memcpy(context->x, n->context, flis_count(context) * sizeof *n->context);
    flis_unet_eps(ctx, unet, flis_from_nchw(ctx, n->x, 1, 4, n->h, n->w), &t, context, &one);
    free(label);
    flis_rewind(ctx, mark);
    return flis_ok(ctx);
}

static bool noise_decode(noise_run *n, const flis_vae *vae)
{
    flis_ctx *ctx = &n->c->ctx;
    flis_mark mark = flis_here(ctx);
    flis_vae_decode(ctx, vae, flis_from_nchw(ctx, n->z, 1, 4, n->h, n->w));
    flis_rewind(ctx, mark);
    return flis_ok(ctx);
}

/* One stage: the reference, unless a file has it, then each format. Its weights and values are in memory alone. */
static bool noise_stage(noise_run *n, const char *scope)
{
    flis_ctx *ctx = &n->c->ctx;
    flis_clip *clip = *scope == 'c' ? flis_clip_load(ctx, n->model) : NULL;
    flis_unet *unet = *scope == 'u' ? flis_unet_load(ctx, n->model) : NULL;
    flis_vae *vae = *scope == 'd' ? flis_vae_load(ctx, n->model, true, false) : NULL;
    const size_t first = n->rows;
    char what[16];
    snprintf(what, sizeof what, "%.*s", (int)strlen(scope) - 1, scope);
    if (!n->c->trace) free_tensors(&n->c->traced);
    snprintf(ctx->scope, sizeof ctx->scope, "%s", scope);
    ctx->progress = NULL; /* the decoder's own would come between */
    for (n->format = n->truth ? 0 : -1; n->format < FORMATS && flis_ok(ctx); n->format++) {
        if (!n->truth && n->format >= 0 && formats[n->format].precision == FLIS_EXACT)
            continue; /* the reference itself */
        n->at = first;
        ctx->precision = n->format < 0 ? FLIS_EXACT : formats[n->format].precision;
        if (clip) noise_clip(n, clip);
        if (unet) noise_unet(n, unet);
        if (vae) noise_decode(n, vae);
        if (flis_ok(ctx)) on_progress(n->c, what, (size_t)(n->format + 1), FORMATS);
    }
    ctx->precision = FLIS_EXACT;
    ctx->progress = on_progress;
    flis_clip_free(clip);
    flis_unet_free(unet);
    flis_vae_free(vae);
    return flis_ok(ctx);
}

/* An input from the file that has the truth. */
static flis_real *noise_input(noise_run *n, const char *name, size_t count)
{
    flis_ctx *ctx = &n->c->ctx;
    const flis_entry *entry = flis_file_find(n->truth, name);
    flis_real *values = flis_alloc(ctx, count, sizeof *values);
    if (!entry || flis_entry_count(entry) != count)
        flis_fail(ctx, "%s: tensor \"%s\": %s: is this what flis64 noise --trace wrote, of the same size?", n->c->truth,
                  name, entry ? "of another size" : "missing");
    else if (values) flis_file_read_real(ctx, n->truth, entry, values);
    return values;
}

static void noise_inputs(noise_run *n)
{
    flis_ctx *ctx = &n->c->ctx;
    const size_t count = 4 * n->h * n->w;
    const char *factor = flis_file_metadata(n->model, "vae.scale_factor");
    const float by = (float)(1 / (factor ? strtod(factor, NULL) : 0.18215));
    float *drawn = flis_alloc(ctx, count, sizeof *drawn);
    n->x = flis_alloc(ctx, count, sizeof *n->x);
    n->z = flis_alloc(ctx, count, sizeof *n->z);
    flis_rng_seed(&ctx->rng, FLIS_RNG_CPU, n->c->options.seed);
    if (drawn && n->x && n->z) flis_randn(&ctx->rng, drawn, count);
    for (size_t i = 0; flis_ok(ctx) && i < count; i++) {
        n->x[i] = drawn[i];
        n->z[i] = drawn[i] * by;
    }
    free(drawn);
    if (!n->truth || !flis_ok(ctx)) return;
    const flis_entry *context = flis_file_find(n->truth, "in.context");
    n->width = context && context->rank == 3 ? (size_t)context->shape[2] : 0;
    n->context = noise_input(n, "in.context", FLIS_TOKENS * n->width);
    flis_real *x = noise_input(n, "in.x", count);
    if (x && memcmp(x, n->x, count * sizeof *x) != 0)
        flis_fail(ctx, "%s: its inputs are others: wanted the same --size and --seed", n->c->truth);
    free(x);
    const char *model = flis_file_metadata(n->truth, "model.sha256");
    for (size_t i = 0; i < n->c->facts; i++)
        if (strcmp(n->c->fact[i].key, "model.sha256") == 0 && (!model || strcmp(model, n->c->fact[i].value) != 0))
            flis_fail(ctx, "%s: was made with another model", n->c->truth);
}

/* The reference with its inputs, for flis --truth. */
static void noise_save(noise_run *n)
{
    flis_ctx *ctx = &n->c->ctx;
    const uint64_t latent[] = {1, 4, n->h, n->w}, text[] = {1, FLIS_TOKENS, n->width};
    const size_t count = 4 * n->h * n->w;
    flis_real *x = add_tensor(ctx, &n->c->traced, "in.x", REAL_TYPE, 4, latent);
    flis_real *z = add_tensor(ctx, &n->c->traced, "in.z", REAL_TYPE, 4, latent);
    flis_real *context = add_tensor(ctx, &n->c->traced, "in.context", REAL_TYPE, 3, text);
    if (x) memcpy(x, n->x, count * sizeof *x);
    if (z) memcpy(z, n->z, count * sizeof *z);
    if (context) memcpy(context, n->context, FLIS_TOKENS * n->width * sizeof *context);
    save_tensors(ctx, n->c->trace, &n->c->traced, n->c->fact, n->c->facts);
}

/* ---- noise: what is told ----------------------------------------------------------------------------------------- */

static int by_size(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* A stage and a format: of rms error over rms, the median and the worst; the worst largest error over rms; the last
   tensor's rms error over rms, which is the stage's result. */
typedef struct noise_summary {
    size_t tensors, not_finite; /* not_finite: tensors with such a value */
    double median, worst, peak, result;
    const noise_row *worst_row, *peak_row, *bad_row;
} noise_summary;

static double relative(double error, double rms)
{
    return rms > 0 ? error / rms : error > 0 ? HUGE_VAL : 0;
}

static noise_summary noise_summarise(const noise_run *n, const char *scope, int format)
{
    noise_summary s = {0};
    double *all = calloc(n->rows ? n->rows : 1, sizeof *all);
    for (size_t i = 0; all && i < n->rows; i++) {
        const noise_row *row = &n->row[i];
        const deviation *d = &row->of[format];
        if (strncmp(row->name, scope, strlen(scope)) != 0) continue;
        const double error = relative(d->rms, row->rms), peak = relative(d->largest, row->rms);
        all[s.tensors++] = error;
        s.result = error;
        if (d->not_finite && !s.not_finite++) s.bad_row = row;
        if (!s.worst_row || error > s.worst) {
            s.worst = error;
            s.worst_row = row;
        }
        if (!s.peak_row || peak > s.peak) {
            s.peak = peak;
            s.peak_row = row;
        }
    }
    if (s.tensors) qsort(all, s.tensors, sizeof *all, by_size);
    if (s.tensors) s.median = all[s.tensors / 2];
    free(all);
    return s;
}

static const char *const noise_scopes[] = {"clip.", "unet.", "decode."};
enum { NOISE_STAGES = sizeof noise_scopes / sizeof *noise_scopes };

/* The first format that was compared: without a truth, float's own column would be zero. */
static int first_format(const noise_run *n)
{
    return !n->truth && formats[0].precision == FLIS_EXACT;
}

static void noise_print(const noise_run *n)
{
    printf("tensor\trms");
    for (int f = first_format(n); f < FORMATS; f++)
        printf("\t%s max\t%s rms\t%s relative", formats[f].name, formats[f].name, formats[f].name);
    printf("\n");
    for (size_t i = 0; i < n->rows; i++) {
        const noise_row *row = &n->row[i];
        printf("%s\t%.3g", row->name, row->rms);
        for (int f = first_format(n); f < FORMATS; f++)
            printf("\t%.3g\t%.3g\t%.3g", row->of[f].largest, row->of[f].rms, relative(row->of[f].rms, row->rms));
        printf("\n");
    }
    printf("\nstage\tformat\ttensors\tmedian relative\tworst relative\tof\tworst max / rms\tof\tresult's relative\t"
           "not finite\tfirst\n");
    for (int k = 0; k < NOISE_STAGES; k++)
        for (int f = first_format(n); f < FORMATS; f++) {
            const noise_summary s = noise_summarise(n, noise_scopes[k], f);
            const int length = (int)strlen(noise_scopes[k]) - 1;
            printf("%.*s\t%s\t%zu\t%.3g\t%.3g\t%s\t%.3g\t%s\t%.3g\t%zu\t%s\n", length, noise_scopes[k], formats[f].name,
                   s.tensors, s.median, s.worst, s.worst_row ? s.worst_row->name : "-", s.peak,
                   s.peak_row ? s.peak_row->name : "-", s.result, s.not_finite, s.bad_row ? s.bad_row->name : "-");
        }
}

static void put_number(flis_ctx *ctx, buffer *t, const char *name, double x)
{
    put_text(ctx, t, ", \"%s\": ", name);
    put_json_number(ctx, t, x, 9);
}

static void noise_json_row(flis_ctx *ctx, buffer *t, const noise_run *n, const noise_row *row)
{
    put_text(ctx, t, "{\"name\": ");
    put_json_string(ctx, t, row->name);
    put_text(ctx, t, ", \"count\": %zu", row->count);
    put_number(ctx, t, "rms", row->rms);
    for (int f = first_format(n); f < FORMATS; f++) {
        put_text(ctx, t, ", \"%s\": {\"not_finite\": %zu", formats[f].name, row->of[f].not_finite);
        put_number(ctx, t, "max", row->of[f].largest);
        put_number(ctx, t, "rms", row->of[f].rms);
        put_number(ctx, t, "relative", relative(row->of[f].rms, row->rms));
        put_text(ctx, t, "}");
    }
    put_text(ctx, t, "}");
}

static void noise_json_summary(flis_ctx *ctx, buffer *t, const noise_run *n, int stage_number, int f)
{
    const noise_summary s = noise_summarise(n, noise_scopes[stage_number], f);
    put_text(ctx, t, "{\"stage\": \"%.*s\", \"format\": \"%s\", \"tensors\": %zu, \"not_finite\": %zu",
             (int)strlen(noise_scopes[stage_number]) - 1, noise_scopes[stage_number], formats[f].name, s.tensors,
             s.not_finite);
    put_number(ctx, t, "median_relative", s.median);
    put_number(ctx, t, "worst_relative", s.worst);
    put_number(ctx, t, "worst_max_over_rms", s.peak);
    put_number(ctx, t, "result_relative", s.result);
    put_text(ctx, t, "}");
}

static void noise_json(noise_run *n)
{
    flis_ctx *ctx = &n->c->ctx;
    buffer t = {NULL, 0, 0};
    put_text(ctx, &t, "{\"metadata\": {");
    for (size_t i = 0; i < n->c->facts; i++) {
        put_text(ctx, &t, "%s\n  \"%s\": ", i ? "," : "", n->c->fact[i].key);
        put_json_string(ctx, &t, n->c->fact[i].value);
    }
    put_text(ctx, &t, "},\n\"summary\": [");
    for (int k = 0; k < NOISE_STAGES; k++)
        for (int f = first_format(n); f < FORMATS; f++) {
            put_text(ctx, &t, k || f > first_format(n) ? ",\n" : "\n");
            noise_json_summary(ctx, &t, n, k, f);
        }
    put_text(ctx, &t, "],\n\"tensors\": [");
    for (size_t i = 0; i < n->rows; i++) {
        put_text(ctx, &t, i ? ",\n" : "\n");
        noise_json_row(ctx, &t, n, &n->row[i]);
    }
    put_text(ctx, &t, "]}\n");
    write_text(n->c, n->c->json, &t);
    free(t.at);
}

static void noise_facts(cli *c)
{
    note(c, "flis.version", FLIS_VERSION);
    note(c, "flis.real", "%s", flis_dtype_name(REAL_TYPE));
    note(c, "command", "noise");
    note_model(c);
    note(c, "seed", "%llu", (unsigned long long)c->options.seed);
    note(c, "size", "%zux%zu", c->options.width, c->options.height);
    if (c->truth) note_file(c, "truth", "truth.sha256", c->truth);
    note(c, "reference", "%s", c->truth ? "truth" : sizeof(flis_real) == 8 ? "double" : "float");
}

static int run_noise(cli *c)
{
    flis_ctx *ctx = &c->ctx;
    noise_run n = {.c = c, .h = c->options.height / FLIS_FACTOR, .w = c->options.width / FLIS_FACTOR};
    if (c->words) return usage(c, "unexpected argument \"%s\"", c->word[0]);
    if (c->truth && c->trace) return usage(c, "--trace writes the reference, which --truth has already");
    prepare(c);
    if ((!c->json || check_writable(ctx, c->json)) && (!c->trace || check_writable(ctx, c->trace)) && find_model(c))
        n.model = flis_model_open(ctx, c->model_path);
    if (n.model && (c->json || c->trace || c->truth)) noise_facts(c);
    if (n.model && c->truth) n.truth = flis_file_open(ctx, c->truth);
    if (n.model && flis_ok(ctx)) noise_inputs(&n);
    if (sizeof(flis_real) == 4 && !c->truth && flis_ok(ctx))
        fprintf(stderr, "flis: note: the reference is float32 itself; for the truth use flis64 noise, or --truth\n");
    ctx->trace = noise_take;
    ctx->trace_wants = noise_wants;
    ctx->trace_user = &n;
    for (int k = 0; k < NOISE_STAGES && flis_ok(ctx); k++) noise_stage(&n, noise_scopes[k]);
    end_line(c);
    if (c->trace && flis_ok(ctx)) noise_save(&n);
    if (c->json && flis_ok(ctx)) noise_json(&n);
    if (flis_ok(ctx)) noise_print(&n);
    for (size_t i = 0; i < n.rows; i++) free(n.row[i].name);
    free(n.row);
    free(n.x);
    free(n.z);
    free(n.context);
    flis_file_close(n.truth);
    flis_file_close(n.model);
    return flis_ok(ctx) ? 0 : 1;
}

/* ---- tokens ------------------------------------------------------------------------------------------------------ */

/* BOS, at most 75 tokens, EOS: what the text encoder sees, without padding. */
static bool print_tokens(flis_ctx *ctx, const flis_vocab *vocab, const char *text, size_t length)
{
    int32_t *ids = NULL;
    long count = flis_tokenize(ctx, vocab, text, length, &ids);
    if (count < 0) return false;
    printf("%ld", (long)flis_vocab_bos(vocab));
    for (long i = 0; i < count && i < FLIS_PHRASE_TOKENS; i++) printf(" %ld", (long)ids[i]);
    printf(" %ld\n", (long)flis_vocab_eos(vocab));
    free(ids);
    return true;
}

/* One line of stdin, of any length and with any bytes. False at the end. */
static bool read_line(flis_ctx *ctx, char **line, size_t *room, size_t *length)
{
    int byte;
    for (*length = 0; (byte = getchar()) != EOF && byte != '\n'; (*line)[(*length)++] = (char)byte) {
        if (*length < *room) continue;
        char *larger = flis_alloc(ctx, 2 * *room + 256, 1);
        if (!larger) return false;
        if (*length) memcpy(larger, *line, *length);
        free(*line);
        *line = larger;
        *room = 2 * *room + 256;
    }
    return byte != EOF || *length;
}

static int run_tokens(cli *c)
{
    flis_ctx *ctx = &c->ctx;
    flis_vocab *vocab = find_vocab(c);
    char *line = NULL;
    size_t room = 0, length;
    for (int i = 0; vocab && flis_ok(ctx) && i < c->words; i++)
        print_tokens(ctx, vocab, c->word[i], strlen(c->word[i]));
    while (vocab && flis_ok(ctx) && !c->words && read_line(ctx, &line, &room, &length))
        print_tokens(ctx, vocab, line ? line : "", length);
    free(line);
    flis_vocab_free(vocab);
    return flis_ok(ctx) ? 0 : 1;
}

/* ---- info -------------------------------------------------------------------------------------------------------- */

/* The parts of a checkpoint by the names that theirs begin with; the last takes what is left. */
static const char *const part_prefix[] = {"cond_stage_model.", "model.diffusion_model.", "first_stage_model.", ""};
enum { PART_CLIP, PART_UNET, PART_VAE, PART_OTHER, PARTS };

/* What a part of the file adds up to. */
typedef struct part_sum {
    size_t tensors;
    uint64_t parameters;
    size_t of[FLIS_BOOL + 1];
} part_sum;

static int part_of(const char *name)
{
    int part = 0;
    while (strncmp(name, part_prefix[part], strlen(part_prefix[part]))) part++;
    return part;
}

static void print_list(const char *label, const size_t *values, size_t count)
{
    printf(" %s", label);
    for (size_t i = 0; i < count; i++) printf("%c%zu", i ? ',' : ' ', values[i]);
}

static void print_clip(flis_ctx *ctx, flis_file *file)
{
    flis_clip *clip = flis_clip_load(ctx, file);
    if (!clip) return;
    const flis_clip_config *k = flis_clip_get_config(clip);
    printf(" vocab %zu width %zu layers %zu heads %zu hidden %zu positions %zu", k->vocab, k->width, k->layers,
           k->heads, k->hidden, k->positions);
    flis_clip_free(clip);
}

static void print_unet(flis_ctx *ctx, flis_file *file)
{
    flis_unet *unet = flis_unet_load(ctx, file);
    if (!unet) return;
    const flis_unet_config *k = flis_unet_get_config(unet);
    size_t attention[FLIS_MAX_LEVELS];
    for (size_t i = 0; i < k->levels; i++) attention[i] = k->attention[i];
    printf(" in %zu out %zu channels %zu", k->in, k->out, k->channels);
    print_list("mult", k->mult, k->levels);
    print_list("attention", attention, k->levels);
    printf(" blocks %zu heads %zu context %zu", k->blocks, k->heads, k->context);
    flis_unet_free(unet);
}

static void print_vae(flis_ctx *ctx, flis_file *file)
{
    bool encoder = flis_file_find(file, "first_stage_model.encoder.conv_in.weight");
    flis_vae *vae = flis_vae_load(ctx, file, true, encoder);
    if (!vae) return;
    const flis_vae_config *k = flis_vae_get_config(vae);
    printf(" channels %zu", k->channels);
    print_list("mult", k->mult, k->levels);
    printf(" blocks %zu z %zu embed %zu scale_factor %.9g encoder %s", k->blocks, k->z, k->embed, k->scale_factor,
           encoder ? "yes" : "no");
    flis_vae_free(vae);
}

/* Lines that wait for their turn. */
typedef struct lines {
    char *text;
    size_t used;
} lines;

static void keep_line(void *user, const char *line)
{
    lines *kept = user;
    size_t length = strlen(line) + 3;
    char *grown = realloc(kept->text, kept->used + length + 1);
    if (!grown) return;
    kept->text = grown;
    kept->used += (size_t)sprintf(grown + kept->used, "  %s\n", line);
}

/* A part's line: tensors, parameters, dtypes, and the configuration as the library reads it; below it everything that is
   missing, misshaped or extra. A dry context loads nothing. */
static bool print_part(flis_ctx *ctx, flis_file *file, int part, const part_sum *sum)
{
    static const char *const name[] = {"clip", "unet", "vae", "other"};
    static void (*const print[])(flis_ctx *, flis_file *) = {print_clip, print_unet, print_vae};
    flis_ctx dry;
    printf("%s tensors %zu parameters %llu", name[part], sum->tensors, (unsigned long long)sum->parameters);
    for (int k = 0; k <= FLIS_BOOL; k++)
        if (sum->of[k]) printf(" %s %zu", flis_dtype_name((flis_dtype)k), sum->of[k]);
    if (part == PART_OTHER || !sum->tensors) return printf("\n") > 0;
    if (!flis_init(&dry)) return flis_fail(ctx, "%s", dry.error);
    lines found = {NULL, 0};
    dry.dry = true;
    dry.report = keep_line;
    dry.report_user = &found;
    print[part](&dry, file);
    printf("%s\n%s", flis_ok(&dry) ? "" : " incomplete", found.text ? found.text : "");
    free(found.text);
    if (!flis_ok(&dry)) flis_fail(ctx, "%s", dry.error);
    flis_free(&dry);
    return flis_ok(ctx);
}

/* A text out of a file, on a line of its own: what would end the line or command the terminal is a question mark. */
static void print_foreign(const char *text)
{
    for (size_t n; *text; text += n) {
        n = flis_printable(text);
        fwrite(n ? text : "?", 1, n ? n : 1, stdout);
        n = n ? n : 1;
    }
}

/* Stable Diffusion v1's text encoder is 768 wide; v2's is not, nor are its names these. */
static bool file_has_clip_l(const flis_file *file)
{
    const flis_entry *e =
        flis_file_find(file, "cond_stage_model.transformer.text_model.embeddings.token_embedding.weight");
    return e && e->rank == 2 && e->shape[1] == 768;
}

/* What kind of model the tensors' names and sizes say it is. */
static const char *kind_of_model(const flis_file *file, const part_sum *sum)
{
    const flis_entry *first = flis_file_find(file, "model.diffusion_model.input_blocks.0.0.weight");
    if (!sum[PART_CLIP].tensors && !sum[PART_UNET].tensors && !sum[PART_VAE].tensors) return "no model that flis knows";
    if (!sum[PART_CLIP].tensors || !sum[PART_UNET].tensors || !sum[PART_VAE].tensors)
        return "a part of a latent diffusion model";
    if (first && first->rank == 4 && first->shape[0] == 320 && (first->shape[1] != 4 || !file_has_clip_l(file)))
        return "a latent diffusion model of Stable Diffusion v1's width, but another text encoder or input: none that "
               "flis knows";
    if (!first || first->rank != 4 || first->shape[0] != 320)
        return "a small latent diffusion model with Stable Diffusion v1's topology";
    if (file->shards == 1) return "Stable Diffusion v1 or FreestyleNet, single file";
    return file->shards == 3 && !strstr(file->path, ".index.json")
               ? "Stable Diffusion v1 or FreestyleNet, diffusers folder"
               : "Stable Diffusion v1 or FreestyleNet, sharded";
}

static int run_info(cli *c)
{
    flis_ctx *ctx = &c->ctx;
    part_sum sum[PARTS] = {{0, 0, {0}}};
    uint64_t bytes = 0;
    if (!c->words) return usage(c, "MODEL is missing");
    if (c->words > 1) return usage(c, "unexpected argument \"%s\"", c->word[1]);
    c->model = c->word[0];
    flis_file *file = find_model(c) ? flis_model_open(ctx, c->model_path) : NULL;
    if (!file) return 1;
    for (size_t i = 0; i < file->count; i++) {
        int part = part_of(file->entry[i].name);
        sum[part].tensors++;
        sum[part].parameters += flis_entry_count(&file->entry[i]);
        sum[part].of[file->entry[i].dtype]++;
        bytes += file->entry[i].end - file->entry[i].begin;
    }
    printf("kind %s\nfiles %zu\nbytes %llu\ntensors %zu\n", kind_of_model(file, sum), file->shards,
           (unsigned long long)bytes, file->count);
    for (size_t i = 0; i < file->metadata_count; i++)
        for (int k = 0; k < 2; k++) {
            fputs(k ? " " : "metadata ", stdout);
            print_foreign(file->metadata[2 * i + (size_t)k]);
            fputs(k ? "\n" : "", stdout);
        }
    for (int part = 0; part < PARTS; part++) print_part(ctx, file, part, &sum[part]);
    printf("\n");
    for (size_t i = 0; i < file->count; i++) {
        const flis_entry *e = &file->entry[i];
        print_foreign(e->name);
        printf(" %s [", flis_dtype_name(e->dtype));
        for (int k = 0; k < e->rank; k++) printf("%s%llu", k ? "," : "", (unsigned long long)e->shape[k]);
        if (c->diffable) printf("]\n");
        else printf("] %zu:%llu-%llu\n", e->shard, (unsigned long long)e->begin, (unsigned long long)e->end);
    }
    flis_file_close(file);
    return flis_ok(ctx) ? 0 : 1;
}

/* ---- layout ------------------------------------------------------------------------------------------------------ */

static void print_phrases_of(const flis_layout *layout, int id)
{
    bool any = false;
    for (size_t i = 0; i < layout->count; i++)
        if (layout->phrase[i].id == id) {
            fputs(any ? ", " : "", stdout);
            print_foreign(layout->phrase[i].text);
            any = true;
        }
    if (!any) putchar('-');
}

/* The token's number, its id, and the class that its column of the mask belongs to. */
static void print_prompt_tokens(cli *c, const flis_layout *layout)
{
    flis_prompt prompt = {0};
    flis_vocab *vocab = find_vocab(c);
    if (!vocab && !c->vocab) { /* none was asked for: the rest is still of use */
        fprintf(stderr, "flis: note: tokens are left out: %s\n", c->ctx.error);
        c->ctx.error[0] = 0;
        return;
    }
    if (vocab && flis_prompt_make(&c->ctx, vocab, layout->phrase, layout->count, &prompt)) {
        printf("\ntoken\tid\tclass\n");
        for (size_t i = 0; i < prompt.tokens; i++) {
            printf("%zu\t%ld\t", i + 1, (long)prompt.ids[i + 1]);
            if (i < prompt.classes) printf("%.0f\n", (double)prompt.class_ids[i]);
            else printf("-\n");
        }
        flis_prompt_free(&prompt);
    }
    flis_vocab_free(vocab);
}

/* Cells of each id at the picture's size (PIL's nearest) and, from there, at the U-Net's scales (torch's nearest). */
static void print_areas(cli *c, const flis_layout *layout)
{
    enum { SCALES = 5 };
    static const size_t factor[SCALES] = {1, 8, 16, 32, 64};
    const flis_picture *label = &layout->label;
    const size_t width = c->options.width, height = c->options.height;
    size_t(*area)[256] = flis_alloc(&c->ctx, SCALES, sizeof *area);
    uint8_t *full = flis_alloc(&c->ctx, width, height), *cells = flis_alloc(&c->ctx, width, height);
    if (area && full && cells) {
        flis_label_pil(label->pixels, label->height, label->width, full, height, width);
        printf("\nid");
        for (size_t i = 0; i < SCALES; i++) {
            const size_t w = width / factor[i], h = height / factor[i];
            if (i) flis_label_torch(full, height, width, cells, h, w);
            for (size_t k = 0; k < w * h; k++) area[i][(i ? cells : full)[k]]++;
            if (w == h) printf("\t%zu", w);
            else printf("\t%zux%zu", w, h);
        }
        printf("\tphrase\n");
        for (int id = 0; id < 256; id++) {
            bool named = false;
            for (size_t i = 0; i < layout->count; i++) named = named || layout->phrase[i].id == id;
            if (!named && !area[0][id]) continue;
            printf("%d", id);
            for (size_t i = 0; i < SCALES; i++) printf("\t%zu", area[i][id]);
            printf("\t");
            print_phrases_of(layout, id);
            printf("\n");
        }
        flis_layout_warnings(&c->ctx, layout, width, height, warn, c);
    }
    free(area);
    free(full);
    free(cells);
}

static int run_layout(cli *c)
{
    flis_ctx *ctx = &c->ctx;
    flis_layout layout = {0};
    if (!c->words) return usage(c, "LAYOUT.json is missing");
    if (c->words > 1) return usage(c, "unexpected argument \"%s\"", c->word[1]);
    if (!flis_layout_read(ctx, c->word[0], &layout)) return 1;
    printf("prompt\t");
    for (size_t i = 0; i < layout.count; i++) {
        fputs(i ? " " : "", stdout);
        print_foreign(layout.phrase[i].text);
    }
    printf("\nlayout\t");
    if (layout.label.width) printf("%zux%zu\n", layout.label.width, layout.label.height);
    else printf("none: plain Stable Diffusion\n");
    printf("\nphrase\tid\n");
    for (size_t i = 0; i < layout.count; i++) {
        print_foreign(layout.phrase[i].text);
        printf("\t%d\n", layout.phrase[i].id);
    }
    print_prompt_tokens(c, &layout);
    if (flis_ok(ctx) && layout.label.width) print_areas(c, &layout);
    flis_layout_free(&layout);
    return flis_ok(ctx) ? 0 : 1;
}

/* ---- digest ------------------------------------------------------------------------------------------------------ */

/* One line for each stage: its name and the SHA-256 of its values' little-endian bytes, in PyTorch's order. The last line
   is the SHA-256 of the lines before it. Where two machines differ, the first line that differs tells where to look:
   number formats and functions come first, then single operations (large enough to be shared out among threads), then the
   pipeline in its own order, tokens to PNG. Inputs and, without -m, weights are formulas: no file is read. */

typedef struct digest {
    flis_ctx *ctx;
    flis_sha256 all, line;
} digest;

static void digest_hex(digest *d, const char *name, const char *hex)
{
    char line[160];
    int length = snprintf(line, sizeof line, "%s  %s\n", name, hex);
    flis_sha256_add(&d->all, line, (size_t)length);
    if (!flis_ok(d->ctx)) return;
    fputs(line, stdout);
    fflush(stdout); /* these lines are the progress, too */
}

/* The value's low bytes, least significant first. */
static void digest_whole(digest *d, uint64_t value, int bytes)
{
    unsigned char out[8];
    for (int i = 0; i < bytes; i++) out[i] = (unsigned char)(value >> 8 * i & 255);
    flis_sha256_add(&d->line, out, (size_t)bytes);
}

static void digest_double(digest *d, double x)
{
    uint64_t bits;
    memcpy(&bits, &x, sizeof bits);
    digest_whole(d, bits, 8);
}

static void digest_float(digest *d, float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    digest_whole(d, bits, 4);
}

static void digest_real(digest *d, flis_real x)
{
    if (sizeof(flis_real) == 8) digest_double(d, (double)x);
    else digest_float(d, (float)x);
}

/* Ends the line that was begun by the last one's end, and begins the next. */
static void digest_end(digest *d, const char *name)
{
    char hex[65];
    flis_sha256_end(&d->line, hex);
    digest_hex(d, name, hex);
    flis_sha256_begin(&d->line);
}

static void digest_reals(digest *d, const char *name, const flis_real *x, size_t count)
{
    for (size_t i = 0; i < count; i++) digest_real(d, x[i]);
    digest_end(d, name);
}

static void digest_tensor(digest *d, const char *name, const flis_tensor *x)
{
    char hex[65];
    if (!x || !flis_ok(d->ctx)) return;
    flis_tensor_digest(x, hex);
    digest_hex(d, name, hex);
}

/* Values in (-1, 1) that fill real's mantissa: two formula tensors, one below the other's last bit. */
static void formula_fill(flis_ctx *ctx, const char *name, size_t count, flis_real *out)
{
    static const size_t shape[2] = {1, 3}; /* fan_in 3: scale 1 */
    char low[64];
    flis_real *second = flis_alloc(ctx, count, sizeof *second);
    if (second && out) {
        snprintf(low, sizeof low, "%s.low", name);
        flis_formula_weights(name, 2, shape, 0, count, out);
        flis_formula_weights(low, 2, shape, 0, count, second);
        for (size_t i = 0; i < count; i++) out[i] = (flis_real)((double)out[i] + (double)second[i] * 0x1p-24);
    }
    free(second);
}

static flis_tensor *formula_image(flis_ctx *ctx, const char *name, size_t n, size_t h, size_t w, size_t c)
{
    flis_tensor *x = flis_image(ctx, n, h, w, c);
    if (x) formula_fill(ctx, name, flis_count(x), x->x);
    return x;
}

static flis_tensor *formula_rows(flis_ctx *ctx, const char *name, size_t n, size_t t, size_t c)
{
    flis_tensor *x = flis_rows(ctx, n, t, c);
    if (x) formula_fill(ctx, name, flis_count(x), x->x);
    return x;
}

/* The elementary functions, fma without hardware, 16-bit formats. No NaN: its bits are the machine's own. */
static void digest_functions(digest *d)
{
    enum { COUNT = 3000 };
    static flis_real x[3 * COUNT];
    formula_fill(d->ctx, "digest.functions", 3 * COUNT, x);
    for (size_t i = 0; i < COUNT; i++) digest_double(d, flis_exp(710.0 * (double)x[i]));
    digest_end(d, "exp");
    for (size_t i = 0; i < COUNT; i++) digest_double(d, flis_log((1.0 + (double)x[i]) * (double)(1 + i)));
    digest_end(d, "log");
    for (size_t i = 0; i < COUNT; i++) {
        digest_double(d, flis_sin(1e5 * (double)x[i]));
        digest_double(d, flis_cos(1e5 * (double)x[i]));
    }
    digest_end(d, "sin_cos");
    for (size_t i = 0; i < COUNT; i++) digest_double(d, flis_erfc(6.0 * (double)x[i]));
    digest_end(d, "erfc");
    for (size_t i = 0; i < COUNT; i++) { /* c from far below the product's last bit to far above its first */
        float a = (float)x[3 * i], b = (float)x[3 * i + 1], c = (float)x[3 * i + 2];
        for (size_t k = 0; k < i % 60; k++) c *= i % 2 ? 0.5f : 2.0f;
        digest_float(d, flis_fma_soft(a, b, c));
        digest_float(d, flis_fma_soft(a * 0x1p-70f, b * 0x1p-70f, c * 0x1p-126f)); /* subnormals */
    }
    digest_end(d, "fma");
    for (uint32_t i = 0; i < 65536; i++) {
        if ((i & 0x7c00) != 0x7c00) digest_float(d, flis_half_to_float((uint16_t)i));
        if ((i & 0x7f80) != 0x7f80) digest_float(d, flis_bf16_to_float((uint16_t)i));
    }
    for (size_t i = 0; i < COUNT; i++) {
        float scaled = (float)x[i];
        for (size_t k = 0; k < i % 30; k++) scaled *= i % 3 ? 0.5f : 2.0f;
        digest_whole(d, flis_float_to_half(scaled), 2);
        digest_whole(d, flis_float_to_bf16(scaled), 2);
    }
    digest_end(d, "halves");
}

/* A weight with formula values, as reals or as 16-bit numbers. */
static void digest_param(flis_ctx *ctx, flis_param *p, int rank, size_t outputs, size_t inputs, flis_dtype dtype)
{
    const size_t count = outputs * (rank > 1 ? inputs : 1);
    flis_real *values = flis_alloc(ctx, count, sizeof *values);
    uint16_t *halves = flis_alloc(ctx, count, sizeof *halves);
    *p = (flis_param){.rank = rank, .shape = {outputs, rank > 1 ? inputs : 1, 1, 1}};
    if (values && halves) {
        formula_fill(ctx, "digest.weights", count, values);
        for (size_t i = 0; i < count; i++)
            halves[i] =
                dtype == FLIS_BF16 ? flis_float_to_bf16((float)values[i]) : flis_float_to_half((float)values[i]);
        if (dtype == FLIS_F16 || dtype == FLIS_BF16) flis_param_set_half(ctx, p, halves, dtype == FLIS_BF16);
        else flis_param_set(ctx, p, values, false);
    }
    free(values);
    free(halves);
}

static void digest_linear(digest *d, const char *name, size_t rows, size_t inputs, size_t outputs, flis_dtype dtype)
{
    flis_ctx *ctx = d->ctx;
    flis_mark mark = flis_here(ctx);
    flis_param w, b;
    digest_param(ctx, &w, 2, outputs, inputs, dtype);
    digest_param(ctx, &b, 1, outputs, 1, FLIS_F32);
    flis_tensor *x = formula_rows(ctx, "digest.x", 1, rows, inputs);
    digest_tensor(d, name, flis_linear(ctx, x, &w, &b, formula_rows(ctx, "digest.add", 1, rows, outputs)));
    flis_free_visit(ctx, NULL, NULL, &w);
    flis_free_visit(ctx, NULL, NULL, &b);
    flis_rewind(ctx, mark);
}

/* Each just above the work from which its loop is shared out among threads (524288 values; 2^24 multiply-adds). */
static void digest_operations(digest *d)
{
    flis_ctx *ctx = d->ctx;
    flis_mark mark = flis_here(ctx);
    flis_param gain, bias;
    digest_linear(d, "linear", 203, 321, 271, FLIS_F32);
    digest_linear(d, "linear.f16", 29, 300, 40, FLIS_F16);
    digest_linear(d, "linear.bf16", 29, 300, 40, FLIS_BF16);
    digest_param(ctx, &gain, 1, 64, 1, FLIS_F32);
    digest_param(ctx, &bias, 1, 64, 1, FLIS_F32);
    const flis_tensor *image = formula_image(ctx, "digest.image", 1, 91, 93, 64);
    digest_tensor(d, "group_norm", flis_group_norm(ctx, image, &gain, &bias, 1e-5, true));
    digest_tensor(d, "layer_norm", flis_layer_norm(ctx, image, &gain, &bias));
    flis_free_visit(ctx, NULL, NULL, &gain);
    flis_free_visit(ctx, NULL, NULL, &bias);
    const flis_tensor *wide = flis_scale(ctx, flis_concat(ctx, image, image), 9.0);
    digest_tensor(d, "silu", flis_silu(ctx, wide));
    digest_tensor(d, "quick_gelu", flis_quick_gelu(ctx, wide));
    digest_tensor(d, "geglu", flis_geglu(ctx, wide));
    flis_rewind(ctx, mark);
    const flis_tensor *q = formula_rows(ctx, "digest.q", 1, 290, 2 * 97),
                      *k = formula_rows(ctx, "digest.k", 1, 301, 2 * 97);
    const flis_tensor *v = formula_rows(ctx, "digest.v", 1, 301, 2 * 97);
    digest_tensor(d, "attention", flis_attention(ctx, q, k, v, 2, 0.7, (flis_mask){.causal = true}));
    flis_rewind(ctx, mark);
}

/* Random numbers and the sampler's tables. */
static void digest_tables(digest *d)
{
    enum { COUNT = 1003 };
    static float x[COUNT];
    static const struct {
        const char *name;
        flis_rng_kind kind;
        size_t count;
    } draws[] = {
        {"randn.cpu", FLIS_RNG_CPU, COUNT},
        {"randn.cpu.few", FLIS_RNG_CPU, 7},
        {"randn.cuda", FLIS_RNG_CUDA, COUNT},
    };
    for (size_t k = 0; k < sizeof draws / sizeof *draws; k++) {
        flis_rng_seed(&d->ctx->rng, draws[k].kind, 42);
        flis_randn(&d->ctx->rng, x, draws[k].count);
        for (size_t i = 0; i < draws[k].count; i++) digest_float(d, x[i]);
        digest_end(d, draws[k].name);
    }
    flis_schedule *schedule = flis_alloc(d->ctx, 1, sizeof *schedule);
    flis_steps *s = flis_alloc(d->ctx, 1, sizeof *s);
    if (schedule && s) {
        flis_schedule_make(schedule);
        for (size_t i = 0; i < FLIS_TIMESTEPS; i++) {
            digest_double(d, schedule->beta[i]);
            digest_double(d, schedule->alpha_bar[i]);
        }
        flis_steps_make(d->ctx, schedule, FLIS_DDIM, 50, 0.5, s);
        for (size_t i = 0; i < s->count; i++) {
            digest_whole(d, (uint64_t)s->t[i], 8);
            digest_float(d, s->alpha[i]);
            digest_double(d, s->alpha_prev[i]);
            digest_double(d, s->sigma[i]);
            digest_float(d, s->sqrt_one_minus_alpha[i]);
        }
        digest_end(d, "schedule");
    }
    free(schedule);
    free(s);
    static flis_real embedding[320];
    flis_time_embedding(981, 320, embedding);
    digest_reals(d, "time_embedding", embedding, 320);
}

/* The pipeline's side of it. Latents are 8x8, the picture 64x64. */
enum {
    DIGEST_LATENT = 8,
    DIGEST_SIZE = DIGEST_LATENT * FLIS_FACTOR,
    DIGEST_VALUES = 4 * DIGEST_LATENT * DIGEST_LATENT
};

typedef struct digest_run {
    digest *d;
    flis_file *file; /* NULL: formula weights in the shape of synth's tinyA */
    flis_prompt prompt;
    uint8_t label[DIGEST_SIZE * DIGEST_SIZE];
    flis_rca rca;
    flis_guided guided;
    flis_real *context, *uncond; /* [77][width] */
    size_t width;
    flis_real x[DIGEST_VALUES];
    const char *sampler;
    size_t step, evaluation;
} digest_run;

/* 486 merges, so that there are 1000 tokens: some that make words of the prompt, then pairs of capitals, which no text
   has left when it comes to merging. */
static flis_vocab *digest_vocab(flis_ctx *ctx)
{
    static const char words[] =
        "s e\nse a</w>\ns k\nsk y</w>\nr e\nre d</w>\nb o\na t</w>\nbo at</w>\no i\noi l</w>\ni n</w>\n";
    enum { WORDS = 12, MERGES = 486 };
    static char text[sizeof words + 4 * (MERGES - WORDS)];
    char *end = strcpy(text, words) + sizeof words - 1;
    for (int i = 0; i < MERGES - WORDS; i++) end += sprintf(end, "%c %c\n", 'A' + i / 26, 'A' + i % 26);
    return flis_vocab_parse(ctx, "the built-in vocabulary", text, (size_t)(end - text));
}

static void digest_text(digest_run *r, const flis_vocab *vocab)
{
    static flis_phrase phrases[] = {{"sky", 1}, {"red boat", 4}, {"sea", 2}, {"in oil", -1}, {"caf\xC3\xA9", 6}};
    static const char odd[] =
        "It\xE2\x80\x99s  d\xC3\x89J\xC3\x80 vu &amp; \xEF\xBC\xA1 e\xCC\x81 \xF0\x9F\x98\x80 12 \xFF <sea>";
    digest *d = r->d;
    int32_t *ids = NULL;
    long count = flis_tokenize(d->ctx, vocab, odd, sizeof odd - 1, &ids);
    for (long i = 0; i < count; i++) digest_whole(d, (uint64_t)ids[i], 4);
    digest_end(d, "tokens.odd");
    free(ids);
    if (!flis_prompt_make(d->ctx, vocab, phrases, sizeof phrases / sizeof *phrases, &r->prompt)) return;
    for (size_t i = 0; i < FLIS_TOKENS; i++) digest_whole(d, (uint64_t)r->prompt.ids[i], 4);
    digest_end(d, "tokens");
    for (size_t i = 0; i < r->prompt.classes; i++) digest_float(d, r->prompt.class_ids[i]);
    digest_end(d, "classes");
}

/* A label map of six rectangles, 50 x 44, brought to the picture's size; then the masks of every scale. */
static void digest_layout(digest_run *r, size_t levels)
{
    enum { H = 44, W = 50 };
    static uint8_t small[H * W], mask[DIGEST_LATENT * DIGEST_LATENT * FLIS_TOKENS];
    char name[64];
    for (size_t i = 0; i < H * W; i++) small[i] = (uint8_t)(1 + i % W * 3 / W + i / W * 2 / H * 3);
    flis_label_pil(small, H, W, r->label, DIGEST_SIZE, DIGEST_SIZE);
    r->rca = (flis_rca){r->label, DIGEST_SIZE, DIGEST_SIZE, r->prompt.class_ids, r->prompt.classes};
    for (size_t side = DIGEST_LATENT, level = 0; level < levels && side && flis_ok(r->d->ctx); level++, side /= 2) {
        flis_rca_mask(r->d->ctx, &r->rca, side, side, mask);
        for (size_t i = 0; i < side * side * FLIS_TOKENS; i++) digest_whole(r->d, mask[i], 1);
        snprintf(name, sizeof name, "mask.%zux%zu", side, side);
        digest_end(r->d, name);
    }
}

/* Text features of one prompt, kept outside the arena. */
static flis_real *digest_encode(digest_run *r, const flis_clip *clip, const int32_t *ids, const char *name)
{
    flis_ctx *ctx = r->d->ctx;
    flis_mark mark = flis_here(ctx);
    const flis_tensor *y = flis_clip_encode(ctx, clip, ids, 1);
    flis_real *out = y && flis_ok(ctx) ? flis_alloc(ctx, flis_count(y), sizeof *out) : NULL;
    if (out) memcpy(out, y->x, flis_count(y) * sizeof *out);
    digest_tensor(r->d, name, y);
    flis_rewind(ctx, mark);
    return out;
}

static void digest_clip(digest_run *r, const flis_vocab *vocab)
{
    static const flis_clip_config tiny = {1000, 32, 2, 2, 128, 77};
    flis_ctx *ctx = r->d->ctx;
    int32_t empty[FLIS_TOKENS] = {flis_vocab_bos(vocab)};
    for (int i = 1; i < FLIS_TOKENS; i++) empty[i] = flis_vocab_eos(vocab);
    flis_clip *clip = r->file ? flis_clip_load(ctx, r->file) : flis_clip_new(ctx, &tiny);
    if (clip && !r->file) flis_clip_walk(ctx, clip, flis_formula_visit, NULL);
    if (clip && flis_ok(ctx)) {
        r->width = flis_clip_get_config(clip)->width;
        r->context = digest_encode(r, clip, r->prompt.ids, "clip");
        r->uncond = digest_encode(r, clip, empty, "clip.uncond");
    }
    flis_clip_free(clip);
}

static bool digest_eps(flis_ctx *ctx, void *user, const flis_real *x, int64_t t, flis_real *eps, flis_real *uncond)
{
    digest_run *r = user;
    char name[48];
    const char *next = r->evaluation++ ? "next." : "";
    if (!flis_guided_eps(ctx, &r->guided, x, t, eps, uncond)) return false;
    snprintf(name, sizeof name, "%s.%zu.%scond.eps", r->sampler, r->step, next);
    digest_reals(r->d, name, eps, DIGEST_VALUES);
    snprintf(name, sizeof name, "%s.%zu.%suncond.eps", r->sampler, r->step, next);
    if (uncond) digest_reals(r->d, name, uncond, DIGEST_VALUES);
    return flis_ok(ctx);
}

static void digest_step(flis_ctx *ctx, void *user, const flis_step *step)
{
    digest_run *r = user;
    char name[48];
    (void)ctx;
    snprintf(name, sizeof name, "%s.%zu.pred_x0", r->sampler, r->step);
    digest_reals(r->d, name, step->pred_x0, DIGEST_VALUES);
    snprintf(name, sizeof name, "%s.%zu.x_prev", r->sampler, r->step);
    digest_reals(r->d, name, step->x_prev, DIGEST_VALUES);
    r->step++;
    r->evaluation = 0;
}

/* One trajectory: x_T from the seed, then every evaluation and step. */
static void digest_sample(digest_run *r, const char *sampler, flis_rng_kind rng, flis_sampling sampling)
{
    flis_ctx *ctx = r->d->ctx;
    const flis_model_fn model = {digest_eps, digest_step, r};
    float drawn[DIGEST_VALUES];
    char name[48];
    r->sampler = sampler;
    r->step = r->evaluation = 0;
    flis_rng_seed(&ctx->rng, rng, 42);
    flis_randn(&ctx->rng, drawn, DIGEST_VALUES);
    for (size_t i = 0; i < DIGEST_VALUES; i++) r->x[i] = (flis_real)drawn[i];
    snprintf(name, sizeof name, "%s.x_T", sampler);
    digest_reals(r->d, name, r->x, DIGEST_VALUES);
    flis_sample(ctx, &sampling, DIGEST_VALUES, r->x, &model);
}

static void digest_unet(digest_run *r)
{
    static const flis_unet_config tiny = {4, 4, 32, 3, {1, 2, 2}, {true, true, true}, 1, 2, 32, 32};
    flis_ctx *ctx = r->d->ctx;
    flis_unet *unet = r->file ? flis_unet_load(ctx, r->file) : flis_unet_new(ctx, &tiny);
    if (unet && !r->file) flis_unet_walk(ctx, unet, flis_formula_visit, NULL);
    if (unet && flis_ok(ctx)) {
        const flis_unet_config *config = flis_unet_get_config(unet);
        if (config->context != r->width)
            flis_fail(ctx, "%s: got a text encoder of width %zu, wanted the U-Net's, %zu", r->file->path, r->width,
                      config->context);
        digest_layout(r, config->levels);
        r->guided = (flis_guided){unet, DIGEST_LATENT, DIGEST_LATENT, r->context, r->uncond, &r->rca};
        digest_sample(r, "ddim", FLIS_RNG_CUDA, (flis_sampling){FLIS_DDIM, 2, 0.5, 1});
        digest_sample(r, "plms", FLIS_RNG_CPU, (flis_sampling){FLIS_PLMS, 4, 0, 2});
    }
    flis_unet_free(unet);
}

/* The decoder's output, before it becomes bytes. */
static void digest_trace(void *user, const char *name, const flis_tensor *x)
{
    digest_run *r = user;
    if (!strcmp(name, "decoder.conv_out")) digest_tensor(r->d, "decode", x);
}

static void digest_picture(digest_run *r, const flis_picture *picture)
{
    static const char *const text[] = {"Software", "flis digest",  "Title", "caf\xC3\xA9",
                                       "prompt",   "\xE6\xB5\xB7", NULL};
    digest *d = r->d;
    size_t length = 0;
    flis_sha256_add(&d->line, picture->pixels, picture->height * picture->width * picture->channels);
    digest_end(d, "pixels");
    uint8_t *png = flis_png_bytes(d->ctx, picture, text, &length);
    if (png) flis_sha256_add(&d->line, png, length);
    digest_end(d, "png");
    free(png);
}

static void digest_vae(digest_run *r)
{
    static const flis_vae_config tiny = {32, 4, {1, 1, 1, 1}, 1, 4, 4, 0.18215, 32};
    flis_ctx *ctx = r->d->ctx;
    flis_mark mark = flis_here(ctx);
    flis_picture picture = {0};
    const bool encoder = !r->file || flis_file_find(r->file, "first_stage_model.encoder.conv_in.weight");
    flis_vae *vae = !flis_ok(ctx) ? NULL
                    : r->file     ? flis_vae_load(ctx, r->file, true, encoder)
                                  : flis_vae_new(ctx, &tiny, true, true);
    if (vae && !r->file) flis_vae_walk(ctx, vae, flis_formula_visit, NULL);
    if (vae && encoder)
        digest_tensor(r->d, "encode", flis_vae_encode(ctx, vae, formula_image(ctx, "digest.picture", 1, 32, 40, 3)));
    ctx->trace = digest_trace;
    ctx->trace_user = r;
    if (vae && flis_decode_picture(ctx, vae, flis_from_nchw(ctx, r->x, 1, 4, DIGEST_LATENT, DIGEST_LATENT), &picture))
        digest_picture(r, &picture);
    ctx->trace = NULL;
    free(picture.pixels);
    flis_vae_free(vae);
    flis_rewind(ctx, mark);
}

static int run_digest(cli *c)
{
    flis_ctx *ctx = &c->ctx;
    char hex[65];
    static digest_run r; /* large, and zero */
    static digest d;
    if (c->words) return usage(c, "unexpected argument \"%s\"", c->word[0]);
    prepare(c);
    ctx->progress = NULL;
    r.d = &d;
    d.ctx = ctx;
    flis_sha256_begin(&d.all);
    flis_sha256_begin(&d.line);
    if (c->model && find_model(c)) r.file = flis_model_open(ctx, c->model_path);
    flis_vocab *vocab = c->vocab ? flis_vocab_read(ctx, c->vocab) : digest_vocab(ctx);
    if (flis_ok(ctx)) {
        digest_functions(&d);
        digest_operations(&d);
        digest_tables(&d);
        digest_text(&r, vocab);
        digest_clip(&r, vocab);
        digest_unet(&r);
        digest_vae(&r);
        flis_sha256_end(&d.all, hex);
        digest_hex(&d, "all", hex);
    }
    flis_vocab_free(vocab);
    flis_prompt_free(&r.prompt);
    free(r.context);
    free(r.uncond);
    flis_file_close(r.file);
    return flis_ok(ctx) ? 0 : 1;
}

/* ---- conformance ------------------------------------------------------------------------------------------------- */

enum { LARGEST_MANIFEST = 1 << 24 };
typedef enum { PASSED, FAILED, MISSING } verdict;

typedef struct grading {
    cli *c;
    flis_json *manifest;
    flis_file *wanted, *got;
    size_t count[3];      /* of vectors, by verdict */
    double share;         /* of the vector at hand: largest error as a part of its tolerance */
    double error;         /* that error */
    bool exact;           /* all its outputs were judged for equality so far */
    char complaint[1024]; /* the first thing that is wrong with it */
} grading;

static const char *json_text(const flis_json *object, const char *key)
{
    const flis_json *j = flis_json_get(object, key);
    return j && j->type == FLIS_STRING ? j->string : "";
}

static double json_value(const flis_json *object, const char *key, double otherwise)
{
    const flis_json *j = flis_json_get(object, key);
    return j && j->type == FLIS_NUMBER ? j->number : otherwise;
}

/* "[2,5]": a shape, or the place of a flat index in one. */
static void shape_text(const flis_entry *e, uint64_t flat, bool place, char out[192])
{
    uint64_t index[FLIS_MAX_DIMS];
    out[0] = 0;
    for (int i = e->rank; i-- > 0;) {
        index[i] = place ? flat % (e->shape[i] ? e->shape[i] : 1) : e->shape[i];
        flat /= e->shape[i] ? e->shape[i] : 1;
    }
    append(out, 192, "[");
    for (int i = 0; i < e->rank; i++) append(out, 192, i ? ",%llu" : "%llu", (unsigned long long)index[i]);
    append(out, 192, "]");
}

static verdict complain(grading *g, verdict v, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    if (!*g->complaint) vsnprintf(g->complaint, sizeof g->complaint, format, args);
    va_end(args);
    return v;
}

/* How far value i may be from the one wanted. */
static double allowed(const flis_json *output, double wanted)
{
    const double relative = json_value(output, "relative", 0);
    return relative > 0 ? relative * fabs(wanted) : json_value(output, "tolerance", 0);
}

/* Values against values: NaN first, then the largest error in units of what is allowed. SPEC 11.3. */
static verdict judge_values(grading *g, const flis_json *output, const flis_entry *e, const double *got,
                            const double *wanted)
{
    const size_t count = (size_t)flis_entry_count(e);
    const double share = json_value(output, "share", 1);
    size_t off = 0, different = 0, worst = 0;
    double most = -1;
    char at[192];
    for (size_t i = 0; i < count; i++) {
        const double error = fabs(got[i] - wanted[i]), room = allowed(output, wanted[i]);
        const double part = error == 0 ? 0 : !(error <= DBL_MAX) ? HUGE_VAL : room > 0 ? error / room : HUGE_VAL;
        different += !(error == 0);
        off += !(part <= 1);
        if (part > most) {
            most = part;
            worst = i;
        }
    }
    if (count && most >= g->share) {
        g->share = most;
        g->error = fabs(got[worst] - wanted[worst]);
    }
    if (!flis_json_get(output, "exact")) g->exact = false;
    const bool many = (double)different > share * (double)count;
    if (!off && !many) return PASSED;
    shape_text(e, worst, true, at);
    return complain(g, FAILED, "%s: got %.9g at %s, wanted %.9g%s, the error is %.2g; %zu of %zu values are off%s",
                    e->name, got[worst], at, wanted[worst], flis_json_get(output, "exact") ? " exactly" : "",
                    fabs(got[worst] - wanted[worst]), off ? off : different, count,
                    off ? "" : ", each by no more than is allowed, but too many of them");
}

static verdict judge_output(grading *g, const flis_json *output)
{
    flis_ctx *ctx = &g->c->ctx;
    const char *name = json_text(output, "name");
    const flis_entry *wanted = flis_file_find(g->wanted, name), *got = flis_file_find(g->got, name);
    char got_shape[192], wanted_shape[192];
    if (!wanted) {
        flis_fail(ctx, "%s: tensor \"%s\": missing, but the manifest has it", g->wanted->path, name);
        return FAILED;
    }
    if (!got) return complain(g, MISSING, "%s is not in the file", name);
    bool same = got->rank == wanted->rank;
    for (int i = 0; same && i < got->rank; i++) same = got->shape[i] == wanted->shape[i];
    if (!same) {
        shape_text(got, 0, false, got_shape);
        shape_text(wanted, 0, false, wanted_shape);
        g->share = HUGE_VAL;
        return complain(g, FAILED, "%s: got the shape %s, wanted %s", name, got_shape, wanted_shape);
    }
    const size_t count = (size_t)flis_entry_count(wanted);
    double *a = flis_alloc(ctx, count ? count : 1, sizeof *a), *b = flis_alloc(ctx, count ? count : 1, sizeof *b);
    verdict v = FAILED;
    if (a && b && flis_file_read_f64(ctx, g->got, got, a) && flis_file_read_f64(ctx, g->wanted, wanted, b))
        v = judge_values(g, output, wanted, a, b);
    free(a);
    free(b);
    return v;
}

/* Which mistake it points at. */
static void print_failure(const grading *g, const flis_json *vector)
{
    const flis_json *items = flis_json_get(g->manifest, "items");
    const double number = json_value(vector, "item", 0);
    const size_t item = number >= 1 && number <= 1000 ? (size_t)number : 0;
    printf("         %s\n         what it is: %s\n         points at: %s\n         see SPEC.md %s", g->complaint,
           json_text(vector, "what"), json_text(vector, "catches"), json_text(vector, "spec"));
    if (item && items && items->type == FLIS_ARRAY && item <= items->count && items->item[item - 1].type == FLIS_STRING)
        printf("; easy to get wrong, no. %zu: %s", item, items->item[item - 1].string);
    printf("\n");
}

static void judge_vector(grading *g, const flis_json *vector)
{
    const flis_json *outputs = flis_json_get(vector, "outputs");
    static const char *const words[] = {"pass", "FAIL", "MISSING"};
    verdict worst = PASSED;
    g->share = g->error = 0;
    g->exact = true;
    g->complaint[0] = 0;
    if (vector->type != FLIS_OBJECT || !outputs || outputs->type != FLIS_ARRAY || !outputs->count) {
        flis_fail(&g->c->ctx, "manifest.json:%d: a vector without outputs", vector->line);
        return;
    }
    for (size_t i = 0; i < outputs->count && flis_ok(&g->c->ctx); i++) {
        const verdict v = judge_output(g, &outputs->item[i]);
        if (v == FAILED || (v == MISSING && worst == PASSED)) worst = v;
    }
    if (!flis_ok(&g->c->ctx)) return;
    g->count[worst]++;
    printf("%-8s %-28s", words[worst], json_text(vector, "id"));
    if (worst == PASSED && g->exact) printf(" equal\n");
    else if (worst == PASSED) printf(" %.1f %% of the tolerance (error %.2g)\n", 100 * g->share, g->error);
    else {
        printf("\n");
        print_failure(g, vector);
    }
}

/* The folder of the vectors: as given, or where a default may be. */
static bool find_manifest(cli *c, char folder[PATH_ROOM])
{
    char path[PATH_ROOM];
    const size_t beside = folder_length(c->program);
    if (c->manifest) return snprintf(folder, PATH_ROOM, "%s/", c->manifest) < PATH_ROOM;
    if (snprintf(folder, PATH_ROOM, "%.*stests/golden/", (int)beside, c->program) < PATH_ROOM &&
        file_in(folder, strlen(folder), "manifest.json", path))
        return true;
    strcpy(folder, "tests/golden/");
    if (file_in(folder, strlen(folder), "manifest.json", path)) return true;
    return snprintf(folder, PATH_ROOM, "%s/golden/", FLIS_DATADIR) < PATH_ROOM;
}

/* Opens what the manifest names. Its digest goes into the report, so that all can tell which vectors these were. */
static bool open_vectors(grading *g)
{
    flis_ctx *ctx = &g->c->ctx;
    char folder[PATH_ROOM], path[PATH_ROOM + 16], hex[65];
    size_t length;
    flis_sha256 sum;
    if (!find_manifest(g->c, folder)) return flis_fail(ctx, "--manifest: the name is too long");
    snprintf(path, sizeof path, "%smanifest.json", folder);
    char *text = flis_read_file(ctx, path, LARGEST_MANIFEST, &length);
    if (text) g->manifest = flis_json_parse(ctx, path, text, length);
    if (g->manifest) {
        const flis_json *vectors = flis_json_get(g->manifest, "vectors");
        const char *name = json_text(g->manifest, "outputs");
        const bool ours = strcmp(json_text(g->manifest, "format"), "flis conformance") == 0;
        if (!ours || json_value(g->manifest, "version", 0) != 1 || !vectors || vectors->type != FLIS_ARRAY || !*name ||
            strlen(folder) + strlen(name) >= PATH_ROOM)
            flis_fail(ctx, "%s: got another kind of JSON, wanted a manifest of conformance vectors, version 1", path);
        else {
            flis_sha256_begin(&sum);
            flis_sha256_add(&sum, text, length);
            flis_sha256_end(&sum, hex);
            snprintf(path, sizeof path, "%s%s", folder, name);
            g->wanted = flis_file_open(ctx, path);
        }
    }
    free(text);
    if (!g->wanted || !(g->got = flis_file_open(ctx, g->c->word[0]))) return false;
    const char *generator = flis_file_metadata(g->got, "generator");
    printf("flis %s conformance; manifest %.16s\nresults: %s", FLIS_VERSION, hex, base_name(g->c->word[0]));
    if (generator) {
        printf(", made by ");
        print_foreign(generator);
    }
    printf("\n\n");
    return true;
}

static int run_conformance(cli *c)
{
    static grading g;
    if (!c->words) return usage(c, "the file with the answers is missing");
    if (c->words > 1) return usage(c, "unexpected argument \"%s\"", c->word[1]);
    prepare(c);
    g.c = c;
    if (open_vectors(&g)) {
        const flis_json *vectors = flis_json_get(g.manifest, "vectors");
        for (size_t i = 0; i < vectors->count && flis_ok(&c->ctx); i++)
            if (!c->match || glob(c->match, json_text(&vectors->item[i], "id"))) judge_vector(&g, &vectors->item[i]);
    }
    const size_t all = g.count[PASSED] + g.count[FAILED] + g.count[MISSING];
    if (flis_ok(&c->ctx) && !all)
        flis_fail(&c->ctx, "--match: no vector has an id like %.100s", c->match ? c->match : "*");
    if (flis_ok(&c->ctx))
        printf("\n%zu passed, %zu failed, %zu missing of %zu vectors\n", g.count[PASSED], g.count[FAILED],
               g.count[MISSING], all);
    flis_file_close(g.wanted);
    flis_file_close(g.got);
    flis_json_free(g.manifest);
    return flis_ok(&c->ctx) && g.count[PASSED] == all ? 0 : 1;
}

/* ---- main -------------------------------------------------------------------------------------------------------- */

/* In the order of the bits GENERATE, STAGE, … */
static const command commands[COMMANDS + 1] = {
    {"generate", run_generate, "[-m MODEL] -j LAYOUT.json -o OUT.png [options]",
     "A layout and its phrases in, a picture out.",
     "\nThe seed is printed on stderr and kept in the PNG, with everything else that makes the picture again. Ctrl-C\n"
     "stops between two operations and leaves no partial file. Traced tensors are named after the authors' modules,\n"
     "behind the step and the pass, and are in PyTorch's order; they are kept in memory until the end, and without\n"
     "--trace-match that is all of them (but scores and weights of more than 2^24 values). Traces and digests say\n"
     "what makes the run again; for that the model's SHA-256 is computed, which takes some 20 s for 4 GB.\n"},
    {"stage", run_stage, "NAME [-m MODEL] -i IN.safetensors -o OUT.safetensors [options]",
     "One stage of the pipeline on given tensors, in PyTorch's order, batch first.",
     "\n  clip    ids I32 [n,77]                                     -> last_hidden_state [n,77,d]\n"
     "  rca     label U8 [H,W], class_ids F32 [k], size I32 [2]    -> mask U8 [h*w,77]; size is h, w\n"
     "  unet    x [n,4,h,w], t [n], context [n,77,d],\n"
     "          optional label U8 [H,W] and class_ids F32 [k]      -> eps [n,4,h,w]\n"
     "  decode  z [n,4,h,w], already divided by the scale factor   -> image [n,3,8h,8w]\n"
     "  encode  image [n,3,H,W]                                    -> moments [n,8,H/8,W/8]\n"
     "  sample  x_T [1,4,h,w], context [1,77,d], uncond [1,77,d] (not with --scale 1),\n"
     "          optional label and class_ids                       -> latents [1,4,h,w]; of every step t I64 [S], and\n"
     "          e_t, x_prev, pred_x0 and x, the latent that the step started from, [S,4,h,w]\n"
     "\nsample's noise is that of --seed behind one draw of x_T's size, as where x_T itself is drawn: with the x_T of\n"
     "the same seed, runs with --eta above 0 equal the authors'. Without x_T, size I32 [2] (h, w) has it drawn.\n"
     "label is at picture size; other integer types and one leading 1 too many are accepted. Outputs are F32 (flis64:\n"
     "F64). Intermediates have the names of the authors' modules (sample: behind the step and the pass).\n"
     "--trace-match without --trace adds those that match to the output file.\n"},
    {"tokens", run_tokens, "[--vocab FILE] [TEXT...]",
     "Token ids of each text (or of each line of stdin), one line per text.",
     "\nBOS and EOS included, at most 75 tokens between them, no padding. A text that begins with - goes after --.\n"},
    {"info", run_info, "MODEL",
     "What is in a model: its kind, sizes, configuration, what is missing or extra, every tensor.",
     "\nMODEL is a safetensors file, an index of shards, or a diffusers folder. Tensors are sorted by name; each line "
     "ends\n"
     "with file:begin-end. Exit status 1 if a part is incomplete.\n"},
    {"layout", run_layout, "LAYOUT.json",
     "What a layout says: phrases, tokens and classes, cells per id at every scale.",
     "\nWarnings on stderr name the phrases whose regions vanish at a scale.\n"},
    {"noise", run_noise, "[-m MODEL] [options]",
     "How far a right port may be off: every intermediate in float32, tf32, fp16 and bf16, held against the truth.",
     "\nRuns text encoder, U-Net (t = 981, a layout of four quarters) and decoder on fixed inputs. Each operation's\n"
     "result is rounded to the format, and so are the operands of products (tf32: the operands alone, to 10 bits).\n"
     "flis64 holds all against double (its f32 does not round partial sums: real float32 is 4 to 5 times further\n"
     "off). flis compares with its own float32, or, with --truth, all four, its float32 among them, with flis64's\n"
     "double. One line per tensor: root mean square, and of each format the largest error, the root mean square\n"
     "error, and that relative to the tensor's; then a line per stage and format. Where a format overflows, the\n"
     "tensors with such values are counted and the first is named.\n"},
    {"digest", run_digest, "[-m MODEL]",
     "One SHA-256 per stage, tokens to PNG, and one over all: the same on every machine.",
     "\nEach line is STAGE, two spaces, and the SHA-256 of the stage's values, little-endian, in PyTorch's order; the "
     "last,\n"
     "\"all\", is that of the lines before it. Without -m no file is read: weights are formulas (those of tools/synth\n"
     "tinyA), 8x8 latents, a 64x64 picture. Where two machines differ, the first line that differs says where to "
     "look.\n"},
    {"conformance", run_conformance, "RESULTS.safetensors [--manifest DIR] [--match GLOB]",
     "Grades a port's answers to the conformance vectors; the report can be pasted into an issue.",
     "\nmanifest.json says of each vector what it is, its inputs and weights (formulas), its outputs and how they are\n"
     "judged. RESULTS holds the outputs under their names, of any floating or integer type; tools/golden --answers\n"
     "writes flis' own. One line per vector, and of each that failed the largest error, its place, and the mistake\n"
     "that the vector exposes. Exit status 1 if a vector failed or an output is missing.\n"},
    {NULL, NULL, NULL, NULL, NULL}};

/* What was printed must have arrived. */
static int finish(int status)
{
    if ((fflush(stdout) != 0 || ferror(stdout)) && status != 2) {
        fprintf(stderr, "flis: standard output: cannot be written: %s\n", strerror(errno));
        return 1;
    }
    return status;
}

int main(int argc, char **argv)
{
    static cli c; /* large, and zero */
    c.program = argc ? argv[0] : "";
    if (argc < 2)
        return usage(&c, "a command is missing: generate, stage, noise, tokens, info, layout, digest or conformance");
    if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h") || !strcmp(argv[1], "help")) {
        help_all();
        return finish(0);
    }
    if (!strcmp(argv[1], "--version")) {
        printf("flis %s%s\n", FLIS_VERSION, sizeof(flis_real) == 8 ? " (double precision)" : "");
        return finish(0);
    }
    const command *which = commands;
    while (which->name && strcmp(which->name, argv[1])) which++;
    if (!which->name) {
        bool option_like = argv[1][0] == '-';
        return usage(&c, "unknown %s %s", option_like ? "option" : "command", argv[1]);
    }
    c.command = which;
    bool sane = flis_init(&c.ctx);
    flis_options_default(&c.options);
    if (which->run == run_noise) c.options.width = c.options.height = 128;
    c.steps = (uint64_t)c.options.sampling.steps;
    int status = parse_arguments(&c, argc - 2, argv + 2, command_bit(which));
    if (!status && c.help) help_command(which);
    else if (!status) status = sane ? which->run(&c) : 1;
    end_line(&c);
    if (!flis_ok(&c.ctx) && status != 2) fprintf(stderr, "flis: %s\n", c.ctx.error);
    free_tensors(&c.outputs);
    free_tensors(&c.traced);
    free_facts(&c);
    flis_free(&c.ctx);
    return finish(status);
}
