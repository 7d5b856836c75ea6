/* compare - holds a port's tensors against a reference's and says where the port first went wrong, and how.
 *
 * As cmp(1): exit 0 when every tensor is within its tolerance, 1 when one differs, 2 when the comparison could not be
 * made. Tensors are taken in order of execution: a trace file holds them in that order, and where a file is sorted by
 * name (as PyTorch's writer leaves them) the authors' module paths tell it. What is told of a tensor that differs is
 * measured, never guessed from its name alone: each explanation is a prediction of OTHER's values, and is printed with
 * the share of the error's energy that it removes.
 *
 * In order: the machine, tolerances, options, names and pairs, measures, the diagnosis, table, JSON, HTML, main.
 */

/* ---- The machine: what is outside C99, with a fallback ----------------------------------------------------------- */

#if defined(__unix__) || defined(__APPLE__)
#define _POSIX_C_SOURCE 200809L
#include <unistd.h>
#define HAVE_POSIX 1
#else
#define HAVE_POSIX 0
#endif

#include "flis.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static bool stdout_is_terminal(void)
{
#if HAVE_POSIX
    return isatty(STDOUT_FILENO);
#else
    return false;
#endif
}

/* ---- Tolerances --------------------------------------------------------------------------------------------------

   relative: rms error / rms of REF. largest: largest error / largest value of REF. Both must hold; integers must be equal.

   Measured, worst tensor of a place, on tinyB (weights by formula, latents 16 x 16, t = 981):
   - f32 as PyTorch 1.13 does it, against flis (tests/golden/tinyunet_B_16, tinyvae_B, tinyclip_B), and its float32 against its
     float64 at full size (the same files of Stable Diffusion v1.4: none of their places is worse):
       time  7.0e-6 7.6e-6   PyTorch's angles t f_i are float32, 6e-5 off at t = 981
       first 9.9e-7 1.4e-6   input_blocks.2 ff
       unet  6.4e-6 5.0e-6   output_blocks.5 attn2 at full size, output_blocks.10 attn2
       clip  1.1e-6 1.7e-6   encoder.layers.6, .5 at full size
       vae   1.5e-6 1.9e-6   norm_out
     Margin 2; 1.5 for unet's relative.
   - tf32, fp16, bf16 as `flis64 noise` emulates them (each operation's result rounded to the format) against double:
              tf32              fp16              bf16
       time   6.0e-4  6.9e-4    7.4e-4  7.7e-4    7.1e-3  9.0e-3    emb_layers.1
       first  1.0e-3  1.9e-3    1.6e-3  2.8e-3    1.3e-2  2.4e-2    input_blocks.2 attn1 scores, weights
       unet   2.6e-3  6.1e-3    3.5e-3  4.5e-3    2.9e-2  5.2e-2    output_blocks.7..10 scores, weights
       clip   7.8e-4  1.4e-3    1.1e-3  1.4e-3    8.9e-3  1.3e-2    encoder.layers.3 q_proj
       vae    1.0e-3  1.0e-3    1.5e-3  1.7e-3    1.2e-2  1.3e-2    decoder.up.0.block.2.conv2
     Margin 2.5. */
typedef struct limits {
    double relative, largest;
} limits;
enum { TIME, FIRST, CLIP, VAE, REST, PLACES }; /* the first that matches; REST: the U-Net's others, and all else */
static const char *const place_names[PLACES][8] = {
    {"*time_embed", "*time_embed.*", "*emb_layers*"},
    {"*input_blocks.[0-3]", "*input_blocks.[0-3].*"},
    {"*embeddings", "*encoder.layers.*", "*final_layer_norm", "*last_hidden_state", "clip.*"},
    {"*decoder.*", "*encoder.*", "*quant_conv", "*moments"},
    {"*"}};
typedef struct profile {
    const char *name;
    limits limit[PLACES];
} profile;
static const profile profiles[] = {
    {"f32", {{1.4e-5, 1.6e-5}, {2e-6, 2.8e-6}, {2.2e-6, 3.4e-6}, {3e-6, 3.8e-6}, {1e-5, 1e-5}}},
    {"tf32", {{1.5e-3, 1.8e-3}, {2.5e-3, 4.8e-3}, {2e-3, 3.5e-3}, {2.5e-3, 2.6e-3}, {6.5e-3, 1.5e-2}}},
    {"fp16", {{1.9e-3, 2e-3}, {4e-3, 7e-3}, {2.7e-3, 3.5e-3}, {3.9e-3, 4.2e-3}, {8.8e-3, 1.2e-2}}},
    {"bf16", {{1.8e-2, 2.3e-2}, {3.3e-2, 6e-2}, {2.3e-2, 3.4e-2}, {3.1e-2, 3.4e-2}, {7.2e-2, 1.3e-1}}},
};
enum { PROFILES = sizeof profiles / sizeof *profiles };

/* Beyond this a value stands for "closed" (-max before a softmax): equal when both files have one of the same sign. */
static const double CLOSED = 1e30;

/* ---- Options ----------------------------------------------------------------------------------------------------- */

typedef struct options {
    const profile *profile;
    double absolute, relative; /* --tolerance, --relative; negative: not given */
    const char *match, *map, *html, *ref_prefix, *other_prefix;
    bool allow_missing, all, json, quiet, help, version;
    const char *path[2];
    int paths;
} options;

static const char HELP[] =
    "usage: compare [options] REF.safetensors OTHER.safetensors\n\n"
    "Holds OTHER's tensors against REF's, in order of execution, and names the first that is wrong.\n\n"
    "options:\n"
    "  --profile NAME      tolerances of a right port in f32 (default), tf32, fp16 or bf16\n"
    "  --tolerance ABS     largest error allowed, instead of the profile's\n"
    "  --relative REL      rms error / rms of REF allowed, instead of the profile's\n"
    "  --match GLOB        only REF's tensors of that name (* ? [a-z])\n"
    "  --ref-prefix TEXT   only REF's tensors that begin so; TEXT is taken off\n"
    "  --other-prefix TEXT the same for OTHER's\n"
    "  --map FILE          lines \"other ref\": what OTHER calls REF's tensors; one * in each stands for the same "
    "text\n"
    "  --allow-missing     a tensor that OTHER lacks is no difference\n"
    "  --all               list every tensor, not only those that differ\n"
    "  --json              the result as JSON on stdout\n"
    "  --html FILE         the result as one page, with a plot of error by layer\n"
    "  -q, --quiet         exit status alone\n"
    "  -h, --help, --version\n\n"
    "Names are equal with or without model., model.diffusion_model., first_stage_model. and the like, and (where that "
    "is\n"
    "unambiguous) with or without step.N., cond. and uncond.\n"
    "exit status: 0 the same within tolerance, 1 different, 2 trouble (one sentence on stderr)\n";

static int trouble(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fputs("compare: ", stderr);
    vfprintf(stderr, format, args);
    fputs("\n", stderr);
    va_end(args);
    return 2;
}

/* A number that is finite and not negative, nothing behind it. */
static bool parse_limit(const char *text, double *out)
{
    char *end;
    if (!strchr("0123456789.", *text) || !*text || strpbrk(text, "xX")) return false;
    *out = strtod(text, &end);
    return !*end && *out >= 0 && *out <= 1e300;
}

static bool parse_profile(const char *text, options *o)
{
    for (int i = 0; i < PROFILES; i++)
        if (strcmp(text, profiles[i].name) == 0) {
            o->profile = &profiles[i];
            return true;
        }
    return false;
}

/* 0: understood; 2: told what is wrong. *i is the argument at hand, moved over a value. */
static int parse_option(options *o, int argc, char **argv, int *i)
{
    static const char *const valued[] = {"--profile", "--tolerance", "--relative",   "--match",
                                         "--map",     "--html",      "--ref-prefix", "--other-prefix"};
    enum { PROFILE, TOLERANCE, RELATIVE, MATCH, MAP, HTML, REF_PREFIX, OTHER_PREFIX, VALUED };
    const char *arg = argv[*i];
    const size_t length = strcspn(arg, "=");
    int which = 0;
    while (which < VALUED && (strlen(valued[which]) != length || strncmp(arg, valued[which], length) != 0)) which++;
    if (which == VALUED) {
        bool *flag = strcmp(arg, "--allow-missing") == 0                     ? &o->allow_missing
                     : strcmp(arg, "--all") == 0                             ? &o->all
                     : strcmp(arg, "--json") == 0                            ? &o->json
                     : strcmp(arg, "--quiet") == 0 || strcmp(arg, "-q") == 0 ? &o->quiet
                     : strcmp(arg, "--help") == 0 || strcmp(arg, "-h") == 0  ? &o->help
                     : strcmp(arg, "--version") == 0                         ? &o->version
                                                                             : NULL;
        if (!flag) return trouble("unknown option %s (see compare --help)", arg);
        *flag = true;
        return 0;
    }
    const char *value = arg[length] ? arg + length + 1 : *i + 1 < argc ? argv[++*i] : NULL;
    if (!value) return trouble("%s needs a value (see compare --help)", arg);
    switch (which) {
    case PROFILE:
        if (!parse_profile(value, o)) return trouble("--profile: got \"%s\", wanted f32, tf32, fp16 or bf16", value);
        break;
    case TOLERANCE:
        if (!parse_limit(value, &o->absolute)) return trouble("--tolerance: got \"%s\", wanted a number from 0", value);
        break;
    case RELATIVE:
        if (!parse_limit(value, &o->relative)) return trouble("--relative: got \"%s\", wanted a number from 0", value);
        break;
    case MATCH: o->match = value; break;
    case MAP: o->map = value; break;
    case HTML: o->html = value; break;
    case REF_PREFIX: o->ref_prefix = value; break;
    default: o->other_prefix = value; break;
    }
    return 0;
}

static int parse_arguments(options *o, int argc, char **argv)
{
    bool over = false;
    for (int i = 1; i < argc; i++) {
        if (!over && strcmp(argv[i], "--") == 0) over = true;
        else if (!over && argv[i][0] == '-' && argv[i][1]) {
            int status = parse_option(o, argc, argv, &i);
            if (status || o->help || o->version) return status;
        } else if (o->paths < 2) o->path[o->paths++] = argv[i];
        else return trouble("unexpected argument \"%s\", wanted REF and OTHER (see compare --help)", argv[i]);
    }
    if (o->paths < 2) return trouble("wanted two files, REF and OTHER (see compare --help)");
    return 0;
}

/* ---- Names and pairs --------------------------------------------------------------------------------------------- */

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

/* As flis --trace-match: * any run of characters, dots too; ? any one; [a-z] one of a set. */
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

static limits limits_of(const char *name, const profile *of)
{
    for (int place = 0; place < REST; place++)
        for (int i = 0; i < 8 && place_names[place][i]; i++)
            if (glob(place_names[place][i], name)) return of->limit[place];
    return of->limit[REST];
}

static bool skip_prefix(const char **name, const char *prefix)
{
    const size_t length = strlen(prefix);
    if (strncmp(*name, prefix, length) != 0 || !(*name)[length]) return false;
    *name += length;
    return true;
}

/* Behind what wrappers, checkpoints and pipelines put in front of a module's path. */
static const char *behind_model(const char *name)
{
    static const char *const prefixes[] = {"module.",       "_orig_mod.",         "model.",     "diffusion_model.",
                                           "unet.",         "first_stage_model.", "vae.",       "cond_stage_model.",
                                           "text_encoder.", "transformer.",       "text_model."};
    for (size_t i = 0; i < sizeof prefixes / sizeof *prefixes;)
        if (skip_prefix(&name, prefixes[i])) i = 0;
        else i++;
    return name;
}

/* Behind "step.N.", "next." (PLMS evaluates a second time in its first step), "cond." and "uncond." */
static const char *behind_scope(const char *name)
{
    const char *digits = name;
    if (skip_prefix(&digits, "step.") && strspn(digits, "0123456789") && digits[strspn(digits, "0123456789")] == '.')
        name = digits + strspn(digits, "0123456789") + 1;
    skip_prefix(&name, "next.");
    if (!skip_prefix(&name, "cond.")) skip_prefix(&name, "uncond.");
    return behind_model(name);
}

typedef struct side { /* one file's tensors that take part, in order of execution */
    flis_file *file;
    size_t count;
    struct named {
        const flis_entry *entry;
        char *name;
        size_t order;
        bool taken;
    } * item;
    bool by_name; /* the file is sorted by name: its order is no order of execution */
    bool digest;  /* of each tensor there are 64 samples at most: a --trace-digest's JSON */
} side;

/* How a pair ended. */
typedef enum { SAME, DIFFERENT, NOT_FINITE, SHAPE, MISSING } verdict;

typedef struct measures {
    uint64_t count;
    uint64_t bad_ref, bad_other, first_bad; /* values that are NaN or infinite, in either; where the first stands */
    double largest, rms;                    /* of the reference: largest |value|, root mean square */
    double max_error;
    uint64_t at; /* the largest error and where */
    double ref_at, other_at;
    double rms_error, relative, cosine;
    double ulp;    /* median distance in units of the coarser format's last place; NaN: integers */
    double excess; /* error as a multiple of the tolerance: above 1 fails */
} measures;

typedef struct pair {
    const struct named *ref, *other; /* other NULL: missing */
    bool measured;
    verdict verdict;
    measures m;
} pair;

typedef struct comparison {
    flis_ctx ctx;
    options o;
    side ref, other;
    size_t count;
    pair *pair; /* REF's tensors in order of execution */
    size_t compared, failed, missing, extra, reshaped, recast, not_finite;
    const pair *first; /* the first that differs; NULL: none */
    const char *order; /* where the order came from, when not from REF's file */
    char diagnosis[2048];
} comparison;

static char *copy_text(flis_ctx *ctx, const char *text)
{
    char *copy = flis_alloc(ctx, strlen(text) + 1, 1);
    if (copy) strcpy(copy, text);
    return copy;
}

/* Words of module paths in the order in which siblings run; others come behind them, by name. */
static int word_rank(const char *word, size_t length)
{
    static const char *const words[] = {"in",
                                        "ids",
                                        "label",
                                        "class_ids",
                                        "context",
                                        "uncond",
                                        "x_T",
                                        "t",
                                        "x",
                                        "z",
                                        "step",
                                        "next",
                                        "cond",
                                        "clip",
                                        "unet",
                                        "decode",
                                        "encode",
                                        "embeddings",
                                        "time_embed",
                                        "input_blocks",
                                        "middle_block",
                                        "output_blocks",
                                        "in_layers",
                                        "emb_layers",
                                        "out_layers",
                                        "skip_connection",
                                        "post_quant_conv",
                                        "encoder",
                                        "decoder",
                                        "quant_conv",
                                        "conv_in",
                                        "down",
                                        "mid",
                                        "up",
                                        "block_1",
                                        "attn_1",
                                        "block_2",
                                        "block",
                                        "attn",
                                        "downsample",
                                        "upsample",
                                        "layers",
                                        "layer_norm1",
                                        "self_attn",
                                        "layer_norm2",
                                        "mlp",
                                        "norm",
                                        "proj_in",
                                        "transformer_blocks",
                                        "norm1",
                                        "attn1",
                                        "norm2",
                                        "attn2",
                                        "norm3",
                                        "ff",
                                        "to_q",
                                        "to_k",
                                        "to_v",
                                        "q_proj",
                                        "k_proj",
                                        "v_proj",
                                        "q",
                                        "k",
                                        "v",
                                        "scores",
                                        "mask",
                                        "weights",
                                        "to_out",
                                        "out_proj",
                                        "fc1",
                                        "fc2",
                                        "conv1",
                                        "conv2",
                                        "nin_shortcut",
                                        "proj",
                                        "proj_out",
                                        "norm_out",
                                        "conv_out",
                                        "out",
                                        "final_layer_norm",
                                        "last_hidden_state",
                                        "eps",
                                        "e_t",
                                        "pred_x0",
                                        "x_prev",
                                        "latents",
                                        "moments",
                                        "image"};
    const int count = (int)(sizeof words / sizeof *words);
    for (int i = 0; i < count; i++)
        if (strlen(words[i]) == length && strncmp(words[i], word, length) == 0) return i;
    return count;
}

/* Which of two module paths runs first, for files that are sorted by name: siblings by word_rank, numbers counted up (the
   decoder's levels down), and a module behind its parts. "norm2" of a VAE's block stands behind "conv1". */
static int path_order(const char *a, const char *b)
{
    bool down = false;
    while (*a && *b) {
        size_t i = strcspn(a, "."), k = strcspn(b, ".");
        const size_t digits_a = strspn(a, "0123456789"), digits_b = strspn(b, "0123456789");
        if (digits_a == i && digits_b == k) {
            const unsigned long x = strtoul(a, NULL, 10), y = strtoul(b, NULL, 10);
            if (x != y) return (x < y) != down ? -1 : 1;
        } else if (i != k || strncmp(a, b, i) != 0) {
            const int x = word_rank(a, i), y = word_rank(b, k);
            const bool conv1_norm2 = (strncmp(a, "norm2", i) == 0 && i == 5 && strncmp(b, "conv1", k) == 0) ||
                                     (strncmp(b, "norm2", k) == 0 && k == 5 && strncmp(a, "conv1", i) == 0);
            if (x != y) return (x < y) != conv1_norm2 ? -1 : 1;
            const int order = strncmp(a, b, i < k ? i : k);
            return order ? order : i < k ? -1 : 1;
        }
        down = i == 2 && strncmp(a, "up", 2) == 0;
        a += i + (a[i] == '.');
        b += k + (b[k] == '.');
    }
    return *a ? -1 : *b ? 1 : 0; /* parts before the whole */
}

static int by_offset(const void *a, const void *b)
{
    const struct named *x = a, *y = b;
    if (x->entry->shard != y->entry->shard) return x->entry->shard < y->entry->shard ? -1 : 1;
    if (x->entry->begin != y->entry->begin) return x->entry->begin < y->entry->begin ? -1 : 1;
    return strcmp(x->name, y->name); /* empty tensors share a place */
}

static int by_path(const void *a, const void *b)
{
    const struct named *x = a, *y = b;
    const int order = path_order(behind_model(x->name), behind_model(y->name));
    return order ? order : strcmp(x->name, y->name);
}

/* "other ref" lines, the first that fits. One * in each: what it stood for in other's name goes into ref's. */
typedef struct rename_map {
    size_t count;
    struct {
        char *from, *to;
    } * line;
    char *text;
} rename_map;

static bool map_read(flis_ctx *ctx, const char *path, rename_map *map)
{
    size_t length, number = 0;
    if (!(map->text = flis_read_file(ctx, path, (size_t)1 << 26, &length))) return false;
    size_t lines = 1;
    for (size_t i = 0; i < length; i++) lines += map->text[i] == '\n';
    if (strlen(map->text) != length) return flis_fail(ctx, "%s: is not a text file", path);
    if (!(map->line = flis_alloc(ctx, lines, sizeof *map->line))) return false;
    for (char *line = map->text; line; number++) {
        char *next = strchr(line, '\n');
        if (next) *next++ = 0;
        line[strcspn(line, "\r")] = 0;
        char *from = line + strspn(line, " \t"), *gap = from + strcspn(from, " \t"), *to = gap + strspn(gap, " \t");
        char *end = to + strcspn(to, " \t");
        line = next;
        if (!*from || *from == '#') continue;
        if (!*to || end[strspn(end, " \t")])
            return flis_fail(ctx, "%s:%zu: wanted two names, OTHER's and REF's", path, number + 1);
        *gap = *end = 0;
        if ((strchr(from, '*') != NULL) != (strchr(to, '*') != NULL))
            return flis_fail(ctx, "%s:%zu: wanted a * in both names or in none", path, number + 1);
        map->line[map->count].from = from;
        map->line[map->count++].to = to;
    }
    return true;
}

static char *map_name(flis_ctx *ctx, const rename_map *map, const char *name)
{
    for (size_t i = 0; i < map->count; i++) {
        const char *from = map->line[i].from, *to = map->line[i].to, *star = strchr(from, '*'), *hole = strchr(to, '*');
        if (!star && strcmp(from, name) == 0) return copy_text(ctx, to);
        if (!star) continue;
        const size_t head = (size_t)(star - from), tail = strlen(star + 1), length = strlen(name);
        if (length < head + tail || strncmp(name, from, head) != 0 || strcmp(name + length - tail, star + 1) != 0)
            continue;
        char *out = flis_alloc(ctx, strlen(to) + length, 1);
        if (out) sprintf(out, "%.*s%.*s%s", (int)(hole - to), to, (int)(length - head - tail), name + head, hole + 1);
        return out;
    }
    return copy_text(ctx, name);
}

/* Sorted by name within each dtype: how PyTorch's safetensors writer leaves its tensors. */
static bool sorted_by_name(const side *s)
{
    for (size_t i = 1; i < s->count; i++)
        if (s->item[i].entry->dtype == s->item[i - 1].entry->dtype &&
            strcmp(s->item[i - 1].entry->name, s->item[i].entry->name) > 0)
            return false;
    return s->count > 1;
}

/* ---- Digests of runs: JSON with each tensor's shape and 64 samples, flat[0], flat[stride], … ---- */

static double sample_value(const flis_json *json)
{
    if (json->type == FLIS_NUMBER) return json->number;
    if (strcmp(json->string, "NaN") == 0) return NAN;
    return *json->string == '-' ? -HUGE_VAL : HUGE_VAL;
}

static bool is_sample(const flis_json *json)
{
    return json->type == FLIS_NUMBER ||
           (json->type == FLIS_STRING && (strcmp(json->string, "NaN") == 0 || strcmp(json->string, "Infinity") == 0 ||
                                          strcmp(json->string, "-Infinity") == 0));
}

static size_t samples_of(uint64_t count)
{
    return count < FLIS_SAMPLES ? (size_t)count : FLIS_SAMPLES;
}
static size_t stride_of(uint64_t count)
{
    return count / FLIS_SAMPLES ? (size_t)(count / FLIS_SAMPLES) : 1;
}

static bool digest_entry(flis_ctx *ctx, const flis_json *json, flis_entry *e)
{
    const flis_json *name = flis_json_get(json, "name"), *dtype = flis_json_get(json, "dtype"),
                    *shape = flis_json_get(json, "shape");
    if (!name || name->type != FLIS_STRING || !dtype || dtype->type != FLIS_STRING || !shape ||
        shape->type != FLIS_ARRAY || shape->count > FLIS_MAX_DIMS)
        return false;
    while (e->dtype <= FLIS_BOOL && strcmp(flis_dtype_name(e->dtype), dtype->string) != 0) e->dtype++;
    if (e->dtype > FLIS_BOOL) return false;
    for (; e->rank < (int)shape->count; e->rank++) {
        const flis_json *size = &shape->item[e->rank];
        if (size->type != FLIS_NUMBER || !flis_json_u64(size, &e->shape[e->rank]) || e->shape[e->rank] > UINT32_MAX)
            return false;
    }
    return (e->name = copy_text(ctx, name->string)) != NULL;
}

/* A file whose tensors are the samples, as doubles of this machine. */
static bool digest_read(flis_ctx *ctx, flis_file *file, const flis_json *tensors)
{
    file->shard = flis_alloc(ctx, 1, sizeof *file->shard);
    file->entry = flis_alloc(ctx, tensors->count + 1, sizeof *file->entry);
    if (!file->shard || !file->entry) return false;
    memset(file->entry, 0, (tensors->count + 1) * sizeof *file->entry);
    *file->shard = (flis_shard){NULL, tmpfile(), 0};
    file->shards = 1;
    if (!file->shard->stream) return flis_fail(ctx, "%s: no temporary file for its samples", file->path);
    for (uint64_t at = 0; file->count < tensors->count;) {
        const flis_json *json = &tensors->item[file->count], *samples = flis_json_get(json, "samples");
        flis_entry *e = &file->entry[file->count++];
        bool good = samples && samples->type == FLIS_ARRAY && digest_entry(ctx, json, e);
        if (good && samples->count != samples_of(flis_entry_count(e))) good = false;
        for (size_t i = 0; good && i < samples->count; i++) {
            const double x = is_sample(&samples->item[i]) ? sample_value(&samples->item[i]) : 0;
            good = is_sample(&samples->item[i]) && fwrite(&x, sizeof x, 1, file->shard->stream) == 1;
        }
        if (!good)
            return flis_fail(ctx, "%s:%d:%d: wanted a tensor's name, dtype, shape and samples", file->path, json->line,
                             json->column);
        e->begin = at;
        e->end = at += samples->count * sizeof(double);
    }
    return flis_file_ready(ctx, file);
}

/* NULL without an error: not such a file. */
static flis_file *digest_open(flis_ctx *ctx, const char *path)
{
    char begin[8] = {0};
    FILE *stream = fopen(path, "rb");
    const bool read = stream && fread(begin, 1, sizeof begin, stream) == sizeof begin;
    if (stream) fclose(stream);
    if (!read || *begin != '{' || !begin[7]) return NULL; /* safetensors: the header's length, whose last byte is 0 */
    size_t length = 0;
    char *text = flis_read_file(ctx, path, (size_t)1 << 30, &length);
    flis_json *json = text ? flis_json_parse(ctx, path, text, length) : NULL;
    const flis_json *tensors = json ? flis_json_get(json, "tensors") : NULL;
    flis_file *file = json ? flis_file_new(ctx, path) : NULL;
    if (file && (!tensors || tensors->type != FLIS_ARRAY))
        flis_fail(ctx, "%s: wanted a list of tensors, as --trace-digest writes it", path);
    if (file && flis_ok(ctx)) digest_read(ctx, file, tensors);
    flis_json_free(json);
    free(text);
    return file;
}

static bool side_open(flis_ctx *ctx, side *s, const char *path, const char *prefix, const char *match,
                      const rename_map *map)
{
    s->digest = (s->file = digest_open(ctx, path)) != NULL;
    if (!flis_ok(ctx) || (!s->digest && !(s->file = flis_file_open(ctx, path)))) return false;
    if (!(s->item = flis_alloc(ctx, s->file->count + 1, sizeof *s->item))) return false;
    for (size_t i = 0; i < s->file->count; i++) {
        const char *name = s->file->entry[i].name;
        if (prefix && !skip_prefix(&name, prefix)) continue;
        if (match && !glob(match, name)) continue;
        struct named *n = &s->item[s->count];
        n->entry = &s->file->entry[i];
        if (!(n->name = map ? map_name(ctx, map, name) : copy_text(ctx, name))) return false;
        s->count++;
    }
    qsort(s->item, s->count, sizeof *s->item, by_offset);
    s->by_name = sorted_by_name(s);
    if (s->by_name) qsort(s->item, s->count, sizeof *s->item, by_path);
    for (size_t i = 0; i < s->count; i++) s->item[i].order = i;
    return true;
}

static void side_close(side *s)
{
    for (size_t i = 0; i < s->count; i++) free(s->item[i].name);
    free(s->item);
    flis_file_close(s->file);
}

typedef struct keyed {
    const char *key;
    size_t index;
} keyed;
static int by_key(const void *a, const void *b)
{
    return strcmp(((const keyed *)a)->key, ((const keyed *)b)->key);
}

static const char *whole_name(const char *name)
{
    return name;
}

/* Pairs what is not yet paired and has the same key, where only one tensor on each side has it. */
static bool pair_by(comparison *c, const char *(*key)(const char *name))
{
    size_t refs = 0, others = 0;
    keyed *r = flis_alloc(&c->ctx, c->count + 1, sizeof *r), *o = flis_alloc(&c->ctx, c->other.count + 1, sizeof *o);
    for (size_t i = 0; r && o && i < c->count; i++)
        if (!c->pair[i].other) r[refs++] = (keyed){key(c->pair[i].ref->name), i};
    for (size_t i = 0; r && o && i < c->other.count; i++)
        if (!c->other.item[i].taken) o[others++] = (keyed){key(c->other.item[i].name), i};
    if (refs) qsort(r, refs, sizeof *r, by_key);
    if (others) qsort(o, others, sizeof *o, by_key);
    for (size_t i = 0, k = 0; i < refs && k < others;) {
        const int order = strcmp(r[i].key, o[k].key);
        size_t same_r = 1, same_o = 1;
        while (i + same_r < refs && strcmp(r[i].key, r[i + same_r].key) == 0) same_r++;
        while (k + same_o < others && strcmp(o[k].key, o[k + same_o].key) == 0) same_o++;
        if (order == 0 && same_r == 1 && same_o == 1) {
            c->pair[r[i].index].other = &c->other.item[o[k].index];
            c->other.item[o[k].index].taken = true;
        }
        if (order <= 0) i += same_r;
        if (order >= 0) k += same_o;
    }
    free(r);
    free(o);
    return flis_ok(&c->ctx);
}

static int by_other_order(const void *a, const void *b)
{
    const pair *x = a, *y = b;
    const size_t i = x->other ? x->other->order : (size_t)-1, k = y->other ? y->other->order : (size_t)-1;
    if (i != k) return i < k ? -1 : 1;
    return x->ref->order < y->ref->order ? -1 : 1;
}

static bool pairs_make(comparison *c)
{
    const options *o = &c->o;
    rename_map map = {0};
    if ((!o->map || map_read(&c->ctx, o->map, &map)) &&
        side_open(&c->ctx, &c->ref, o->path[0], o->ref_prefix, o->match, NULL))
        side_open(&c->ctx, &c->other, o->path[1], o->other_prefix, NULL, &map);
    free(map.line);
    free(map.text);
    if (!flis_ok(&c->ctx)) return false;
    if (!c->ref.count)
        return flis_fail(&c->ctx, "%s: no tensor to compare%s%s", o->path[0], o->match ? ": none matches " : "",
                         o->match ? o->match : "");
    if (!(c->pair = flis_alloc(&c->ctx, c->ref.count, sizeof *c->pair))) return false;
    c->count = c->ref.count;
    for (size_t i = 0; i < c->count; i++) c->pair[i].ref = &c->ref.item[i];
    if (!pair_by(c, whole_name) || !pair_by(c, behind_model) || !pair_by(c, behind_scope)) return false;
    size_t paired = 0;
    for (size_t i = 0; i < c->count; i++) paired += c->pair[i].other != NULL;
    if (!paired)
        return flis_fail(&c->ctx, "%s: none of its %zu tensors has a name of %s's (see --map)", o->path[1],
                         c->other.count, o->path[0]);
    if (c->ref.by_name && !c->other.by_name) {
        qsort(c->pair, c->count, sizeof *c->pair, by_other_order);
        c->order = "OTHER's file (REF's is sorted by name)";
    } else if (c->ref.by_name) c->order = "the modules' paths (both files are sorted by name)";
    for (size_t i = 0; i < c->other.count; i++) /* behind --match, only what would have matched is told */
        if (!c->other.item[i].taken && o->match && !glob(o->match, c->other.item[i].name))
            c->other.item[i].taken = true;
    for (size_t i = 0; i < c->other.count; i++) c->extra += !c->other.item[i].taken;
    return true;
}

/* ---- Measures ---------------------------------------------------------------------------------------------------- */

static bool is_integer(flis_dtype dtype)
{
    return dtype != FLIS_F64 && dtype != FLIS_F32 && dtype != FLIS_F16 && dtype != FLIS_BF16;
}

/* Places of a format's values on one line, so that neighbours differ by 1. */
static int64_t ordinal(double x, flis_dtype format)
{
    int64_t bits;
    if (format == FLIS_F64) {
        memcpy(&bits, &x, sizeof bits);
        return bits < 0 ? INT64_MIN - bits : bits;
    }
    const float f = (float)x;
    int32_t narrow;
    memcpy(&narrow, &f, sizeof narrow);
    if (format == FLIS_F16) narrow = flis_float_to_half(f);
    if (format == FLIS_BF16) narrow = flis_float_to_bf16(f);
    if (format == FLIS_F16 || format == FLIS_BF16) return narrow & 0x8000 ? -(int64_t)(narrow & 0x7fff) : narrow;
    return narrow < 0 ? -(int64_t)(narrow & 0x7fffffff) : narrow;
}

static uint64_t ulps(double a, double b, flis_dtype format)
{
    const int64_t x = ordinal(a, format), y = ordinal(b, format);
    return x < y ? (uint64_t)y - (uint64_t)x : (uint64_t)x - (uint64_t)y;
}

/* Counts of distances, exact below 512, then in steps of 1/256: the median without a second array. */
enum { EXACT = 512, BUCKETS = 56 * 256 + EXACT };

static size_t bucket_of(uint64_t distance)
{
    int shift = 0;
    while (distance >> shift >= EXACT) shift++;
    return (size_t)shift * 256 + (size_t)(distance >> shift);
}

static double bucket_median(const uint64_t *counts, uint64_t total)
{
    uint64_t below = 0;
    for (size_t i = 0; i < BUCKETS; i++) {
        below += counts[i];
        if (below * 2 < total || !below) continue;
        if (i < EXACT) return (double)i;
        const int shift = (int)((i - 256) / 256);
        return ldexp((double)(i - (size_t)shift * 256), shift);
    }
    return 0;
}

static flis_dtype coarser(flis_dtype a, flis_dtype b)
{
    static const flis_dtype order[] = {FLIS_BF16, FLIS_F16, FLIS_F32};
    for (size_t i = 0; i < sizeof order / sizeof *order; i++)
        if (a == order[i] || b == order[i]) return order[i];
    return FLIS_F64;
}

static bool closed_in_both(double r, double o)
{
    return (r >= CLOSED && o >= CLOSED) || (r <= -CLOSED && o <= -CLOSED);
}

/* What one pass over both arrays gives. A NaN or an infinity is counted and takes no part in the sums. */
static void measure_values(measures *m, const double *r, const double *o, flis_dtype format, bool floats,
                           uint64_t *counts)
{
    double rr = 0, oo = 0, ro = 0, ee = 0;
    uint64_t used = 0;
    memset(counts, 0, BUCKETS * sizeof *counts);
    for (uint64_t i = 0; i < m->count; i++) {
        const bool bad_r = !(fabs(r[i]) <= 1.7976931348623157e308), bad_o = !(fabs(o[i]) <= 1.7976931348623157e308);
        if (bad_r || bad_o) {
            if (!m->bad_ref && !m->bad_other) m->first_bad = i;
            m->bad_ref += bad_r;
            m->bad_other += bad_o;
            continue;
        }
        if (closed_in_both(r[i], o[i])) continue;
        const double error = fabs(o[i] - r[i]);
        if (error > m->max_error || !used) {
            m->max_error = error;
            m->at = i;
        }
        used++;
        m->largest = fmax(m->largest, fabs(r[i]));
        rr += r[i] * r[i];
        oo += o[i] * o[i];
        ro += r[i] * o[i];
        ee += error * error;
        if (floats) counts[bucket_of(ulps(r[i], o[i], format))]++;
    }
    const double n = used ? (double)used : 1;
    m->rms = sqrt(rr / n);
    m->rms_error = sqrt(ee / n);
    m->relative = ee == 0 ? 0 : m->rms_error / m->rms;
    m->cosine = rr > 0 && oo > 0 ? fmin(ro / sqrt(rr) / sqrt(oo), 1) : rr == oo ? 1 : 0;
    m->ulp = floats ? bucket_median(counts, used) : (double)NAN;
    if (m->count) {
        m->ref_at = r[m->at];
        m->other_at = o[m->at];
    }
}

static double ratio(double error, double limit)
{
    return error == 0 ? 0 : limit > 0 ? error / limit : (double)INFINITY;
}

/* The error as a multiple of what is allowed. */
static double excess_of(const options *o, const measures *m, const struct named *ref)
{
    if (o->absolute >= 0 || o->relative >= 0)
        return fmax(o->absolute >= 0 ? ratio(m->max_error, o->absolute) : 0,
                    o->relative >= 0 ? ratio(m->relative, o->relative) : 0);
    if (is_integer(ref->entry->dtype)) return ratio(m->max_error, 0);
    const limits limit = limits_of(ref->name, o->profile);
    return fmax(ratio(m->relative, limit.relative), ratio(m->max_error, limit.largest * m->largest));
}

/* The same shape, or the same but for axes of length 1. */
static bool shapes_agree(const flis_entry *a, const flis_entry *b, bool exactly)
{
    int i = 0, k = 0;
    for (;; i++, k++) {
        while (!exactly && i < a->rank && a->shape[i] == 1) i++;
        while (!exactly && k < b->rank && b->shape[k] == 1) k++;
        if (i >= a->rank || k >= b->rank) return i >= a->rank && k >= b->rank;
        if (a->shape[i] != b->shape[k]) return false;
    }
}

static double *read_values(comparison *c, side *s, const flis_entry *entry)
{
    double *x = flis_alloc(&c->ctx, (size_t)flis_entry_count(entry) + 1, sizeof *x);
    if (x && flis_file_read_f64(&c->ctx, s->file, entry, x)) return x;
    free(x);
    return NULL;
}

/* The samples of a tensor, where one of the files has no more. */
static double *read_samples(comparison *c, side *s, const flis_entry *entry)
{
    const size_t count = samples_of(flis_entry_count(entry)), stride = stride_of(flis_entry_count(entry));
    double *x = s->digest ? flis_alloc(&c->ctx, count + 1, sizeof *x) : read_values(c, s, entry);
    for (size_t i = 0; x && !s->digest && i < count; i++) x[i] = x[i * stride];
    if (!x || !s->digest ||
        (fseek(s->file->shard->stream, (long)entry->begin, SEEK_SET) == 0 &&
         fread(x, sizeof *x, count, s->file->shard->stream) == count))
        return x;
    free(x);
    flis_fail(&c->ctx, "%s: its samples cannot be read again", s->file->path);
    return NULL;
}

static bool measure(comparison *c, pair *p, uint64_t *counts)
{
    const bool sampled = c->ref.digest || c->other.digest;
    if (!p->other) {
        p->verdict = MISSING;
        return true;
    }
    const flis_entry *r = p->ref->entry, *o = p->other->entry;
    p->m.count = flis_entry_count(r);
    p->verdict = SHAPE;
    if (!shapes_agree(r, o, false)) return true;
    double *(*const read)(comparison * c, side * s, const flis_entry *entry) = sampled ? read_samples : read_values;
    double *a = read(c, &c->ref, r), *b = a ? read(c, &c->other, o) : NULL;
    if (sampled) p->m.count = samples_of(p->m.count);
    if (b) {
        const bool floats = !is_integer(r->dtype) && !is_integer(o->dtype);
        measure_values(&p->m, a, b, coarser(r->dtype, o->dtype), floats, counts);
        if (sampled) p->m.at *= stride_of(flis_entry_count(r)), p->m.first_bad *= stride_of(flis_entry_count(r));
        p->m.excess = excess_of(&c->o, &p->m, p->ref);
        p->measured = true;
        p->verdict = p->m.bad_ref || p->m.bad_other ? NOT_FINITE : p->m.excess <= 1 ? SAME : DIFFERENT;
    }
    free(a);
    free(b);
    return flis_ok(&c->ctx);
}

static bool measure_all(comparison *c)
{
    uint64_t *counts = flis_alloc(&c->ctx, BUCKETS, sizeof *counts);
    for (size_t i = 0; counts && i < c->count; i++) {
        pair *p = &c->pair[i];
        if (!measure(c, p, counts)) break;
        c->missing += p->verdict == MISSING;
        c->compared += p->verdict != MISSING;
        c->failed += p->verdict != MISSING && p->verdict != SAME;
        c->not_finite += p->verdict == NOT_FINITE;
        c->reshaped += p->other && !shapes_agree(p->ref->entry, p->other->entry, true);
        c->recast += p->other && p->ref->entry->dtype != p->other->entry->dtype;
        if (!c->first && p->verdict != SAME && p->verdict != MISSING) c->first = p;
    }
    free(counts);
    return flis_ok(&c->ctx);
}

static bool differs(const comparison *c)
{
    return c->failed || (c->missing && !c->o.allow_missing);
}

/* ---- Diagnosis: the subject, and what a hypothesis is worth -------------------------------------------------------

   A hypothesis predicts OTHER's values q from REF's. It leaves the share left = sum (o - q)^2 / sum (o - r)^2 of the error's
   energy; with k fitted numbers that is multiplied by n / (n - k). The one that leaves least is told; where two leave about
   as little, the one with the lower cost, which is the plainer. */

typedef struct finding {
    double left;
    int cost;
    char text[512];
} finding;

typedef struct subject {
    comparison *c;
    const pair *p;
    int rank; /* of REF; lengths of its axes, and how far apart neighbours stand */
    size_t dim[FLIS_MAX_DIMS], stride[FLIS_MAX_DIMS], n;
    double *r, *o, *q;   /* REF, OTHER, a prediction */
    double energy, rr;   /* sum (o - r)^2, sum r^2 */
    size_t *spot, spots; /* places to try a hypothesis at, half of them where the error is */
    finding best;
} subject;

enum { SPOTS = 2048 };
static const double NEVER = 2; /* left of a hypothesis that does not apply */

/* The plainest comes first where several leave next to nothing. */
enum { PLAIN, SIMPLE, FITTED, FITTED2, NUMEROUS };

static int class_of(double left)
{
    return (int)floor(log(fmax(left, 1e-6)) / log(4.0));
}

static void consider(subject *s, double left, size_t fitted, int cost, const char *format, ...)
{
    va_list args;
    if (!(left < 1) || s->n < 2 * fitted) return;
    left = fmax(left, 0) * (double)s->n / (double)(s->n - fitted);
    const int mine = class_of(left), theirs = class_of(s->best.left);
    if (mine > theirs || (mine == theirs && (cost > s->best.cost || (cost == s->best.cost && left >= s->best.left))))
        return;
    s->best.left = left;
    s->best.cost = cost;
    va_start(args, format);
    vsnprintf(s->best.text, sizeof s->best.text, format, args);
    va_end(args);
}

/* What the prediction q leaves. */
static double left_by(const subject *s, const double *q)
{
    double sum = 0;
    for (size_t i = 0; i < s->n; i++) sum += (s->o[i] - q[i]) * (s->o[i] - q[i]);
    return sum / s->energy;
}

static size_t scatter(size_t i, size_t n)
{
    uint64_t z = ((uint64_t)i + 1) * 0x9E3779B97F4A7C15u;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return (size_t)((z ^ (z >> 31)) % n);
}

static bool subject_spots(subject *s)
{
    size_t wrong = 0, seen = 0;
    if (!(s->spot = flis_alloc(&s->c->ctx, 2 * SPOTS, sizeof *s->spot))) return false;
    for (size_t i = 0; i < s->n; i++) wrong += s->o[i] != s->r[i];
    const size_t step = wrong / SPOTS + 1;
    for (size_t i = 0; i < s->n && s->spots < SPOTS; i++)
        if (s->o[i] != s->r[i] && seen++ % step == 0) s->spot[s->spots++] = i;
    for (size_t i = 0, others = s->spots; i < others; i++) s->spot[s->spots++] = scatter(i, s->n);
    return true;
}

static bool subject_open(comparison *c, const pair *p, subject *s)
{
    const flis_entry *e = p->ref->entry;
    *s = (subject){.c = c, .p = p, .rank = e->rank, .n = (size_t)flis_entry_count(e), .best = {.left = NEVER}};
    size_t stride = 1;
    for (int i = e->rank; i-- > 0; stride *= s->dim[i]) {
        s->dim[i] = (size_t)e->shape[i];
        s->stride[i] = stride;
    }
    if (!s->n || flis_entry_count(p->other->entry) != s->n) return false;
    s->r = read_values(c, &c->ref, e);
    s->o = s->r ? read_values(c, &c->other, p->other->entry) : NULL;
    s->q = s->o ? flis_alloc(&c->ctx, s->n, sizeof *s->q) : NULL;
    if (!s->q) return false;
    for (size_t i = 0; i < s->n; i++) {
        if (closed_in_both(s->r[i], s->o[i])) s->r[i] = s->o[i] = 0;
        s->energy += (s->o[i] - s->r[i]) * (s->o[i] - s->r[i]);
        s->rr += s->r[i] * s->r[i];
    }
    return p->verdict == NOT_FINITE || (s->energy > 0 && subject_spots(s));
}

static void subject_close(subject *s)
{
    free(s->r);
    free(s->o);
    free(s->q);
    free(s->spot);
}

/* The last words of a path: "…attn2.weights" ends in "weights". */
static bool ends_in(const char *name, const char *tail)
{
    const size_t a = strlen(name), b = strlen(tail);
    return a >= b && strcmp(name + a - b, tail) == 0 && (a == b || name[a - b - 1] == '.');
}

static const char *axis_name(const subject *s, int axis)
{
    static const char *const image[] = {"N", "C", "H", "W"}, *const rows[] = {"N", "tokens", "channels"},
                             *const pairs[] = {"heads", "queries", "keys"},
                             *const heads[] = {"heads", "tokens", "width"}, *const flat[] = {"rows", "columns"},
                             *const numbered[] = {"axis 0", "axis 1", "axis 2", "axis 3",
                                                  "axis 4", "axis 5", "axis 6", "axis 7"};
    const char *name = s->p->ref->name;
    if (s->rank == 4) return image[axis];
    if (s->rank == 3 && (ends_in(name, "scores") || ends_in(name, "weights") || ends_in(name, "mask")))
        return pairs[axis];
    if (s->rank == 3 && (ends_in(name, "q") || ends_in(name, "k") || ends_in(name, "v"))) return heads[axis];
    if (s->rank == 3) return rows[axis];
    if (s->rank == 2) return flat[axis];
    return numbered[axis];
}

/* ---- Diagnosis: the same values elsewhere ------------------------------------------------------------------------

   REF's values read in another order: axes (some split in two) permuted and mirrored. OTHER's values are taken as they lie
   in its file, so that a wrong shape with the right values is found too. */

enum { VIEW_RANK = 6 };
typedef struct view {
    int rank;
    size_t dim[VIEW_RANK];
    ptrdiff_t stride[VIEW_RANK], start;
} view;

static double view_at(const subject *s, const view *v, size_t flat)
{
    ptrdiff_t at = v->start;
    for (int i = v->rank; i-- > 0; flat /= v->dim[i]) at += (ptrdiff_t)(flat % v->dim[i]) * v->stride[i];
    return s->r[at];
}

/* Tried at some places first: most hypotheses are far off. */
static double view_left(const subject *s, const view *v)
{
    double error = 0, sum = 0;
    for (size_t i = 0; i < s->spots; i++) {
        const size_t at = s->spot[i];
        const double d = s->o[at] - view_at(s, v, at), e = s->o[at] - s->r[at];
        sum += d * d;
        error += e * e;
        if (i % 128 == 127 && sum > error) return NEVER;
    }
    if (sum > 0.5 * error) return NEVER;
    for (size_t i = 0; i < s->n; i++) s->q[i] = view_at(s, v, i);
    return left_by(s, s->q);
}

/* REF's axes without those of length 1; `split` of them (-1: none) seen as [f][length / f]. */
typedef struct axes {
    view v;
    int axis[VIEW_RANK]; /* of REF */
    int split;           /* first of the two parts in v; -1: none */
} axes;

static bool axes_make(const subject *s, int split, size_t f, axes *a)
{
    *a = (axes){.split = -1};
    for (int i = 0; i < s->rank; i++) {
        if (s->dim[i] == 1) continue;
        const int parts = i == split ? 2 : 1;
        if (a->v.rank + parts > VIEW_RANK) return false;
        if (parts == 2) {
            a->split = a->v.rank;
            a->axis[a->v.rank] = i;
            a->v.dim[a->v.rank] = f;
            a->v.stride[a->v.rank++] = (ptrdiff_t)(s->stride[i] * (s->dim[i] / f));
        }
        a->axis[a->v.rank] = i;
        a->v.dim[a->v.rank] = parts == 2 ? s->dim[i] / f : s->dim[i];
        a->v.stride[a->v.rank++] = (ptrdiff_t)s->stride[i];
    }
    return a->v.rank > 0 && a->v.rank < VIEW_RANK;
}

/* "[N, H, W, C]", the parts of a split axis by their lengths. */
static const char *order_text(const subject *s, const axes *a, const int *order, char out[160])
{
    size_t used = 0;
    for (int i = 0; i < a->v.rank; i++) {
        const int k = order[i];
        const bool part = a->split >= 0 && (k == a->split || k == a->split + 1);
        if (part)
            used += (size_t)snprintf(out + used, 160 - used, "%s%s/%zu", i ? ", " : "[", axis_name(s, a->axis[k]),
                                     a->v.dim[k]);
        else used += (size_t)snprintf(out + used, 160 - used, "%s%s", i ? ", " : "[", axis_name(s, a->axis[k]));
        if (used >= 160) return out;
    }
    snprintf(out + used, 160 - used, "]");
    return out;
}

static void permutation_found(subject *s, const axes *a, const int *order, double left)
{
    char was[160], is[160];
    int identity[VIEW_RANK] = {0}, moved = 0, first = -1, second = -1;
    for (int i = 0; i < a->v.rank; i++) {
        identity[i] = i;
        if (order[i] == i) continue;
        moved++;
        second = first < 0 ? -1 : i;
        first = first < 0 ? i : first;
    }
    order_text(s, a, identity, was);
    order_text(s, a, order, is);
    const bool split = a->split >= 0, whole_image = s->rank == 4 && !split;
    if (whole_image && moved == 2 && a->axis[first] == 2 && a->axis[second] == 3)
        consider(s, left, 0, PLAIN, "H and W swapped");
    else if (split && moved == 2 && first == a->split && second == a->split + 1)
        consider(s, left, 0, SIMPLE, "%s (%zu) read as [%zu][%zu] instead of [%zu][%zu]: %s",
                 axis_name(s, a->axis[first]), s->dim[a->axis[first]], a->v.dim[second], a->v.dim[first],
                 a->v.dim[first], a->v.dim[second],
                 strcmp(axis_name(s, a->axis[first]), "tokens") == 0 ||
                         strcmp(axis_name(s, a->axis[first]), "queries") == 0 ||
                         strcmp(axis_name(s, a->axis[first]), "rows") == 0
                     ? "H and W swapped in the flattened picture"
                     : "interleaved instead of one behind the other (heads and their width, or the two halves)");
    else if (split)
        consider(s, left, 0, SIMPLE,
                 "a wrong split: values in the order %s instead of %s (heads taken without transposing?)", is, was);
    else consider(s, left, 0, PLAIN, "transposed axes: values in the order %s instead of %s", is, was);
}

static void try_permutations(subject *s, const axes *a, int *order, int fixed)
{
    if (fixed < a->v.rank) {
        for (int i = fixed; i < a->v.rank; i++) {
            const int was = order[fixed];
            order[fixed] = order[i];
            order[i] = was;
            try_permutations(s, a, order, fixed + 1);
            order[i] = order[fixed];
            order[fixed] = was;
        }
        return;
    }
    view v = {.rank = a->v.rank};
    bool moved = false, parted = a->split < 0;
    for (int i = 0; i < v.rank; i++) {
        v.dim[i] = a->v.dim[order[i]];
        v.stride[i] = a->v.stride[order[i]];
        moved = moved || order[i] != i;
        if (order[i] == a->split && (i + 1 == v.rank || order[i + 1] != a->split + 1)) parted = true;
    }
    if (!moved || !parted) return; /* parts that stay together were tried unsplit */
    const double left = view_left(s, &v);
    if (left < 1) permutation_found(s, a, order, left);
}

static void try_mirrors(subject *s, const axes *a)
{
    for (int i = 0; i < a->v.rank; i++) {
        const int axis = a->axis[i];
        const char *name = axis_name(s, axis);
        view v = a->v;
        v.start = (ptrdiff_t)(v.dim[i] - 1) * v.stride[i];
        v.stride[i] = -v.stride[i];
        const double left = view_left(s, &v);
        if (left < 1 && s->dim[axis] == 3 && a->split < 0)
            consider(s, left, 0, PLAIN, "BGR instead of RGB: %s reversed", name);
        else if (left < 1 && a->split < 0) consider(s, left, 0, PLAIN, "mirrored along %s", name);
        else if (left < 1)
            consider(s, left, 0, SIMPLE, "mirrored along one axis of %s, seen as [%zu][%zu]", name, a->v.dim[a->split],
                     a->v.dim[a->split + 1]);
        for (int k = i + 1; k < a->v.rank; k++) { /* two at once: a half turn; and with the axes swapped, a quarter */
            view w = v;
            w.start += (ptrdiff_t)(w.dim[k] - 1) * w.stride[k];
            w.stride[k] = -w.stride[k];
            const double half = view_left(s, &w);
            if (half < 1)
                consider(s, half, 0, SIMPLE, "turned by 180 degrees (%s and %s mirrored)", name,
                         axis_name(s, a->axis[k]));
            for (int which = 0; which < 2; which++) {
                view turned = a->v;
                const int flip = which ? k : i;
                turned.start = (ptrdiff_t)(a->v.dim[flip] - 1) * a->v.stride[flip];
                turned.stride[flip] = -turned.stride[flip];
                const ptrdiff_t stride = turned.stride[i];
                turned.stride[i] = turned.stride[k];
                turned.stride[k] = stride;
                turned.dim[i] = a->v.dim[k];
                turned.dim[k] = a->v.dim[i];
                const double quarter = view_left(s, &turned);
                if (quarter < 1)
                    consider(s, quarter, 0, SIMPLE, "turned by 90 degrees (%s and %s swapped, one mirrored)", name,
                             axis_name(s, a->axis[k]));
            }
        }
    }
}

static void try_orders(subject *s)
{
    axes a;
    int order[VIEW_RANK];
    for (int i = 0; i < VIEW_RANK; i++) order[i] = i;
    if (axes_make(s, -1, 1, &a)) {
        try_permutations(s, &a, order, 0);
        try_mirrors(s, &a);
    }
    for (int axis = 0; axis < s->rank; axis++)
        for (size_t f = 2; f < s->dim[axis]; f++) {
            if (s->dim[axis] % f || !axes_make(s, axis, f, &a)) continue;
            try_permutations(s, &a, order, 0);
            if (s->rank < 4) try_mirrors(s, &a); /* a picture's rows and columns inside one axis */
        }
}

static size_t index_of(const subject *s, size_t flat, int axis)
{
    return flat / s->stride[axis] % s->dim[axis];
}

/* Rotated along an axis: halves swapped, or two parts joined in the other order. */
static double rotated_left(const subject *s, int axis, size_t by, bool full)
{
    double error = 0, sum = 0;
    const size_t count = full ? s->n : s->spots, dim = s->dim[axis];
    for (size_t i = 0; i < count; i++) {
        const size_t at = full ? i : s->spot[i], k = index_of(s, at, axis), from = (k + by) % dim;
        const double d = s->o[at] - s->r[at + from * s->stride[axis] - k * s->stride[axis]], e = s->o[at] - s->r[at];
        sum += d * d;
        error += e * e;
        if (!full && i % 64 == 63 && sum > error) return NEVER;
    }
    return error > 0 ? sum / error : NEVER;
}

static void try_rotations(subject *s)
{
    for (int axis = 0; axis < s->rank; axis++)
        for (size_t by = 1; by < s->dim[axis]; by++) {
            if (s->dim[axis] < 4 || rotated_left(s, axis, by, false) > 0.5) continue;
            const double left = rotated_left(s, axis, by, true);
            const char *name = axis_name(s, axis);
            if (by * 2 == s->dim[axis])
                consider(s, left, 0, PLAIN,
                         "swapped halves: %s %zu.. before 0.. (cos and sin, value and gate, h and skip)", name, by);
            else if (by == 1 || by == s->dim[axis] - 1) consider(s, left, 0, SIMPLE, "rotated by one along %s", name);
            else
                consider(
                    s, left, 0, SIMPLE,
                    "rotated by %zu along %s: two parts of %zu and %zu in the other order ([skip, h] for [h, skip]?)",
                    by, name, by, s->dim[axis] - by);
        }
}

/* Shifted by a along one axis and b along another (or the same axis, b = 0): judged where both have values. */
static void try_shift(subject *s, int x, int a, int y, int b)
{
    double sum = 0, error = 0, edge = 0;
    for (size_t i = 0; i < s->n; i++) {
        const ptrdiff_t u = (ptrdiff_t)index_of(s, i, x) - a, v = (ptrdiff_t)index_of(s, i, y) - b;
        const double e = s->o[i] - s->r[i];
        if (u < 0 || u >= (ptrdiff_t)s->dim[x] || v < 0 || v >= (ptrdiff_t)s->dim[y]) {
            edge += e * e;
            continue;
        }
        const double d = s->o[i] - s->r[(ptrdiff_t)i - a * (ptrdiff_t)s->stride[x] - b * (ptrdiff_t)s->stride[y]];
        sum += d * d;
        error += e * e;
        if (i % 4096 == 4095 && sum > error) return;
    }
    if (!(error > 0) || edge > 0.7 * s->energy) return;
    const char *name = axis_name(s, x);
    if (b)
        consider(s, sum / error, 0, SIMPLE,
                 "shifted by %+d along %s and %+d along %s (padding, or the picture's origin)", a, name, b,
                 axis_name(s, y));
    else if (ends_in(s->p->ref->name, "mask") && x == s->rank - 1)
        consider(s, sum / error, 0, PLAIN,
                 "mask off by one column: OTHER's column j is REF's j %+d (token k acts in column k + 1; "
                 "column 0 is BOS)",
                 -a);
    else
        consider(s, sum / error, 0, PLAIN, "shifted by %s along %s: OTHER[i] = REF[i %+d]",
                 a == 1 || a == -1 ? "one" : "two", name, -a);
}

static void try_shifts(subject *s)
{
    static const int by[] = {1, -1, 2, -2};
    for (int x = 0; x < s->rank; x++)
        for (int k = 0; k < 4; k++)
            if (s->dim[x] > 4) try_shift(s, x, by[k], x, 0);
    for (int k = 0; s->rank == 4 && k < 4; k++)
        if (s->dim[2] > 4 && s->dim[3] > 4) try_shift(s, 2, k & 1 ? 1 : -1, 3, k & 2 ? 1 : -1);
}

/* The same values in an order that nothing above explains: sums of hashes do not depend on the order. */
static void try_same_values(subject *s)
{
    uint64_t sum_r = 0, sum_o = 0;
    bool varied = false;
    for (size_t i = 0; i < s->n; i++) {
        uint64_t a, b;
        const double r = s->r[i] + 0.0, o = s->o[i] + 0.0; /* -0 is 0 */
        memcpy(&a, &r, sizeof a);
        memcpy(&b, &o, sizeof b);
        a = (a ^ (a >> 29)) * 0xBF58476D1CE4E5B9u;
        b = (b ^ (b >> 29)) * 0xBF58476D1CE4E5B9u;
        sum_r += (a ^ (a >> 32)) * 0x94D049BB133111EBu;
        sum_o += (b ^ (b >> 32)) * 0x94D049BB133111EBu;
        varied = varied || s->r[i] != s->r[0];
    }
    if (varied && sum_r == sum_o)
        consider(s, 0, 0, NUMEROUS, "the same values in another order (noise drawn or laid out in another order?)");
}

/* ---- Diagnosis: factors, offsets, biases ------------------------------------------------------------------------- */

/* Sums of one group of values: e = o - r against r. */
typedef struct fit {
    double n, r, e, rr, re, ee;
} fit;

static double offset_left(const fit *f)
{
    return f->ee - f->e * f->e / f->n;
}

static double factor_left(const fit *f)
{
    return f->rr > 0 ? f->ee - f->re * f->re / f->rr : f->ee;
}

static double affine_left(const fit *f, double *slope)
{
    const double rr = f->rr - f->r * f->r / f->n, re = f->re - f->r * f->e / f->n;
    *slope = rr > 1e-12 * f->rr ? re / rr : 0;
    return offset_left(f) - *slope * re;
}

static bool near(double a, double b)
{
    return fabs(a - b) <= 2e-4 * fabs(b);
}

/* What a factor may be: out gets " = 255/256 (…)" or nothing. */
static const char *factor_text(const subject *s, double a, char out[120])
{
    static const struct {
        double value;
        const char *text;
    } known[] = {{0.18215, "0.18215, the autoencoder's scale factor: multiplied where REF is not, or divided twice"},
                 {1 / 0.18215, "1/0.18215, the autoencoder's scale factor: not multiplied, or divided once too often"},
                 {255.0 / 256, "255/256"},
                 {256.0 / 255, "256/255"},
                 {255, "255"},
                 {1.0 / 255, "1/255"},
                 {127.5, "127.5"},
                 {1 / 127.5, "1/127.5"},
                 {1.44269504, "log2(e): exp2 for exp"},
                 {0.69314718, "ln 2: exp for exp2"},
                 {1.702, "1.702"}};
    const double size = fabs(a);
    const char *sign = a < 0 ? "-" : "";
    *out = 0;
    if (near(a, -1)) snprintf(out, 120, " = -1: a sign");
    for (size_t i = 0; !*out && i < sizeof known / sizeof *known; i++)
        if (near(size, known[i].value)) snprintf(out, 120, " = %s%s", sign, known[i].text);
    for (int d = 2; !*out && d <= 4096; d++) {
        bool of_shape = d <= 12;
        for (int i = 0; i < s->rank; i++) of_shape = of_shape || s->dim[i] == (size_t)d;
        of_shape = of_shape || d == 40 || d == 80 || d == 160 || d == 64 || d == 320 || d == 640 || d == 1280 ||
                   d == 512 || d == 768;
        if (!of_shape && d > 200) continue;
        if (near(size, sqrt(d)) && fabs(sqrt(d) - floor(sqrt(d))) > 0)
            snprintf(out, 120, " = %ssqrt(%d): a scale of attention (d^-0.5) missing", sign, d);
        else if (near(size, 1 / sqrt(d)) && fabs(sqrt(d) - floor(sqrt(d))) > 0)
            snprintf(out, 120, " = %s1/sqrt(%d): a scale of attention (d^-0.5) too many", sign, d);
        else if (near(size, d)) snprintf(out, 120, " = %s%d", sign, d);
        else if (near(size, 1.0 / d)) snprintf(out, 120, " = %s1/%d", sign, d);
    }
    return out;
}

static void constant_found(subject *s, const fit *f)
{
    char named[120];
    double slope;
    const double factor = f->rr > 0 ? 1 + f->re / f->rr : 0, offset = f->e / f->n, affine = affine_left(f, &slope);
    const double constant = (f->e - slope * f->r) / f->n;
    if (f->rr > 0 && fabs(factor) > 1e-12)
        consider(s, factor_left(f) / s->energy, 1, SIMPLE, "a constant factor of %.6g%s", factor,
                 factor_text(s, factor, named));
    consider(s, offset_left(f) / s->energy, 1, SIMPLE, "a constant offset of %.6g%s", offset,
             near(offset, 1)    ? " (an index or a timestep one on?)"
             : near(offset, -1) ? " (an index or a timestep one back?)"
                                : "");
    if (fabs(slope + 1) < 1e-9) return;
    const char *what = near(slope + 1, 0.5) && near(constant, 0.5)       ? ": [0, 1] where REF is [-1, 1]"
                       : near(slope + 1, 2) && near(constant, -1)        ? ": [-1, 1] where REF is [0, 1]"
                       : near(slope + 1, -1) && near(constant, 1)        ? ": inverted"
                       : near(slope + 1, 127.5) && near(constant, 127.5) ? ": bytes where REF is [-1, 1]"
                                                                         : "";
    consider(s, affine / s->energy, 2, FITTED2, "OTHER = %.6g x REF %+.6g%s", slope + 1, constant, what);
}

/* The group that a value is in: its index along each axis of the set, an axis counted in steps of `step`. */
static size_t group_of(const subject *s, size_t flat, unsigned set, const size_t *step)
{
    size_t group = 0;
    for (int i = 0; i < s->rank; i++)
        if (set & 1u << i) group = group * ((s->dim[i] + step[i] - 1) / step[i]) + index_of(s, flat, i) / step[i];
    return group;
}

typedef struct grouping { /* of the values by their index along some axes */
    unsigned set;
    size_t step[FLIS_MAX_DIMS], count;
    char name[96];
} grouping;

static void grouping_found(subject *s, const grouping *g, const fit *f)
{
    double offset = 0, factor = 0, affine = 0, low = HUGE_VAL, high = -HUGE_VAL, slope;
    size_t groups = 0;
    for (size_t i = 0; i < g->count; i++) {
        if (!(f[i].n > 0)) continue;
        groups++;
        offset += offset_left(&f[i]);
        factor += factor_left(&f[i]);
        affine += affine_left(&f[i], &slope);
        if (!(f[i].rr > 0)) continue;
        low = fmin(low, 1 + f[i].re / f[i].rr);
        high = fmax(high, 1 + f[i].re / f[i].rr);
    }
    if (groups < 2 || s->n < 3 * groups) return;
    const bool close = low > 0.98 && high < 1.02;
    consider(s, offset / s->energy, groups, FITTED,
             "an error that is constant per %s: a bias, or something added there, is missing "
             "or wrong",
             g->name);
    consider(s, factor / s->energy, groups, FITTED2, "a factor per %s, %.6g to %.6g%s", g->name, low, high,
             close ? ": a norm with another eps or variance" : ": a norm, a gain or a softmax over something else");
    consider(s, affine / s->energy, 2 * groups, NUMEROUS, "factor and offset per %s%s", g->name,
             close ? ", factors near 1: a norm with another eps or variance"
                   : ": a norm of something else, or its gain and bias");
}

static bool try_grouping(subject *s, const grouping *g)
{
    fit *f = flis_alloc(&s->c->ctx, g->count, sizeof *f);
    for (size_t i = 0; f && i < s->n; i++) {
        fit *at = &f[g->set ? group_of(s, i, g->set, g->step) : 0];
        const double r = s->r[i], e = s->o[i] - r;
        at->n++;
        at->r += r;
        at->e += e;
        at->rr += r * r;
        at->re += r * e;
        at->ee += e * e;
    }
    if (f && g->set) grouping_found(s, g, f);
    else if (f) constant_found(s, f);
    free(f);
    return flis_ok(&s->c->ctx);
}

/* All values; per index of each axis; per sample and index; per row (all axes but the last); per group of a norm. */
static void try_groupings(subject *s)
{
    grouping g = {.count = 1};
    for (int i = 0; i < s->rank; i++) g.step[i] = 1;
    if (!try_grouping(s, &g)) return;
    for (unsigned set = 1; set < 1u << s->rank; set++) {
        const unsigned rows = (1u << (s->rank - 1)) - 1;
        const bool one = !(set & (set - 1)),
                   with_first = s->dim[0] > 1 && set & 1 && !((set & ~1u) & ((set & ~1u) - 1));
        if (!one && !with_first && set != rows) continue;
        g.set = set;
        g.count = 1;
        size_t used = 0;
        *g.name = 0;
        for (int i = 0; i < s->rank; i++) {
            if (!(set & 1u << i)) continue;
            g.count *= s->dim[i];
            if (s->dim[i] > 1 && used < sizeof g.name)
                used += (size_t)snprintf(g.name + used, sizeof g.name - used, "%sindex of %s", used ? " and " : "",
                                         axis_name(s, i));
        }
        if (g.count > 1 && !try_grouping(s, &g)) return;
    }
    const int channels = s->rank == 4 ? 1 : s->rank - 1;
    if (s->rank < 2 || s->dim[channels] % 32 || s->dim[channels] == 32) return;
    g.set = 1u | 1u << channels;
    g.step[channels] = s->dim[channels] / 32;
    g.count = s->dim[0] * 32;
    snprintf(g.name, sizeof g.name, "group of %zu channels", g.step[channels]);
    try_grouping(s, &g);
}

/* ---- Diagnosis: functions of each value -------------------------------------------------------------------------- */

static double same_f(double x)
{
    return x;
}
static double sigmoid(double x)
{
    return 1 / (1 + flis_exp(-x));
}
static double silu(double x)
{
    return x * sigmoid(x);
}
static double gelu(double x)
{
    return x * 0.5 * flis_erfc(x * -0.70710678118654752);
}
static double quick_gelu(double x)
{
    return x * sigmoid(1.702 * x);
}
static double relu(double x)
{
    return x > 0 ? x : 0;
}
static double tanh_f(double x)
{
    return 2 * sigmoid(2 * x) - 1;
}
/* 0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))): the approximation that differs from erf's by up to 4.7e-4. */
static double gelu_tanh(double x)
{
    return x * sigmoid(1.5957691216057308 * (x + 0.044715 * x * x * x));
}
static double clamp1(double x)
{
    return x < -1 ? -1 : x > 1 ? 1 : x;
}
static double clamp01(double x)
{
    return x < 0 ? 0 : x > 1 ? 1 : x;
}
static double clamp_byte(double x)
{
    return x < 0 ? 0 : x > 255 ? 255 : x;
}
static double unit(double x)
{
    return clamp01((x + 1) / 2);
}
static double round_f(double x)
{
    return floor(x + 0.5);
}
static double square(double x)
{
    return x * x;
}

typedef struct function {
    double (*f)(double x);
    const char *name;
} function;
static const function functions[] = {{silu, "SiLU"},
                                     {gelu, "GELU"},
                                     {gelu_tanh, "tanh GELU"},
                                     {quick_gelu, "quick GELU"},
                                     {relu, "ReLU"},
                                     {sigmoid, "sigmoid"},
                                     {tanh_f, "tanh"},
                                     {clamp1, "a clamp to [-1, 1]"},
                                     {clamp01, "a clamp to [0, 1]"},
                                     {clamp_byte, "a clamp to bytes"},
                                     {unit, "clamp((x + 1) / 2)"},
                                     {floor, "floor"},
                                     {round_f, "rounding to integers"},
                                     {fabs, "the absolute value"},
                                     {square, "the square"},
                                     {flis_exp, "exp"}};

/* Left by OTHER = f(REF), or (missing) by f(OTHER) = REF; at the spots, or everywhere. */
static double function_left(const subject *s, double (*f)(double x), bool missing, bool full)
{
    double sum = 0, error = 0, moved = 0;
    for (size_t i = 0; i < (full ? s->n : s->spots); i++) {
        const size_t at = full ? i : s->spot[i];
        const double x = missing ? s->o[at] : s->r[at], y = f(x), d = y - (missing ? s->r[at] : s->o[at]),
                     e = s->o[at] - s->r[at];
        sum += d * d;
        error += e * e;
        moved += fabs(y - x);
    }
    return moved > 0 && error > 0 ? sum / error : NEVER;
}

/* OTHER = f(REF): one operation too many. f(OTHER) = REF: one is missing. */
static void try_functions(subject *s)
{
    for (size_t k = 0; k < sizeof functions / sizeof *functions; k++) {
        if (function_left(s, functions[k].f, false, false) < 0.5)
            consider(s, function_left(s, functions[k].f, false, true), 0, SIMPLE, "%s applied once more",
                     functions[k].name);
        if (function_left(s, functions[k].f, true, false) < 0.5)
            consider(s, function_left(s, functions[k].f, true, true), 0, PLAIN,
                     "missing final operation: %s of OTHER is REF", functions[k].name);
    }
}

/* ---- Diagnosis: plain cases -------------------------------------------------------------------------------------- */

static void try_constant(subject *s)
{
    bool constant = true, empty_row = false;
    for (size_t i = 1; constant && i < s->n; i++) constant = s->o[i] == s->o[0];
    if (constant && s->n > 1 && s->o[0] == 0) consider(s, 0, 0, PLAIN, "all zeros: never written?");
    else if (constant && s->n > 1) consider(s, 0, 0, PLAIN, "the same value everywhere, %.6g", s->o[0]);
    const size_t row = s->rank ? s->dim[s->rank - 1] : 1;
    size_t zero_rows = 0, rows = 0;
    double covered = 0;
    for (size_t i = 0; row > 1 && i < s->n; i += row, rows++) {
        double error = 0;
        bool zeros = true;
        for (size_t k = 0; k < row; k++) {
            zeros = zeros && s->o[i + k] == 0;
            error += (s->o[i + k] - s->r[i + k]) * (s->o[i + k] - s->r[i + k]);
        }
        zero_rows += zeros;
        empty_row = empty_row || zeros;
        if (zeros) covered += error;
    }
    if (empty_row && zero_rows < rows)
        consider(s, 1 - covered / s->energy, 0, SIMPLE, "%zu of %zu rows are all zeros: not everything was written",
                 zero_rows, rows);
}

/* Bytes and other integers one off: truncated or rounded. */
static void try_integers(subject *s)
{
    size_t up = 0, down = 0, other = 0;
    for (size_t i = 0; i < s->n; i++) {
        const double e = s->o[i] - s->r[i];
        if (s->r[i] != floor(s->r[i]) || s->o[i] != floor(s->o[i])) return;
        up += e == 1;
        down += e == -1;
        other += e != 0 && e != 1 && e != -1;
    }
    const size_t wrong = up + down + other;
    double two_values = 0;
    for (size_t i = 0; i < s->n; i++) two_values += s->r[i] > 1 || s->r[i] < 0;
    if (!wrong || two_values == 0 || wrong == s->n) return;
    if (up > 20 * (down + other))
        consider(s, (double)(down + other) / (double)wrong, 0, PLAIN,
                 "rounded instead of truncated: %zu of %zu values are one higher", up, s->n);
    else if (down > 20 * (up + other))
        consider(s, (double)(up + other) / (double)wrong, 0, PLAIN,
                 "truncated instead of rounded: %zu of %zu values are one lower", down, s->n);
}

/* Bits of mantissa beyond which every value of x is zero. */
static bool all_fit(const double *x, size_t n, int kind)
{
    size_t told = 0;
    for (size_t i = 0; i < n; i++) {
        const float f = (float)x[i];
        float back = f;
        if (kind == 0) back = flis_half_to_float(flis_float_to_half(f));
        else if (kind == 1) back = flis_bf16_to_float(flis_float_to_bf16(f));
        else {
            uint32_t bits;
            memcpy(&bits, &f, sizeof bits);
            bits &= 0xffffe000u;
            memcpy(&back, &bits, sizeof back);
        }
        if ((double)back != x[i]) return false;
        told += x[i] != 0 && x[i] != 1;
    }
    return told > 8;
}

/* Which narrow format all of OTHER's values, but not REF's, can be held in; NULL: none. */
static const char *format_of(const subject *s)
{
    static const char *const names[] = {"fp16", "bf16", "tf32"};
    for (int kind = 0; kind < 3; kind++)
        if (all_fit(s->o, s->n, kind)) return all_fit(s->r, s->n, kind) ? NULL : names[kind];
    return NULL;
}

/* ---- Diagnosis: other tensors ------------------------------------------------------------------------------------ */

static const struct named *find_ref(const comparison *c, const char *name)
{
    for (size_t i = 0; i < c->ref.count; i++)
        if (strcmp(c->ref.item[i].name, name) == 0) return &c->ref.item[i];
    return NULL;
}

enum { NAME_ROOM = 512 };

/* A path with its last `drop` words replaced by `tail`. */
static const char *relative(const char *name, int drop, const char *tail, char out[NAME_ROOM])
{
    snprintf(out, NAME_ROOM, "%s", name);
    size_t length = strlen(out);
    while (drop > 0 && length > 0)
        if (out[--length] == '.' || length == 0) drop--;
    if (length && *tail) out[length++] = '.';
    snprintf(out + length, NAME_ROOM - length, "%s", tail);
    return out;
}

/* How OTHER's values could come of tensor x of REF's: equal to it; or the error is a multiple of it. */
static void try_tensor(subject *s, const struct named *x, const double *v, bool nearest)
{
    double equal = 0, vv = 0, ve = 0, dd = 0, de = 0;
    for (size_t i = 0; i < s->n; i++) {
        const double e = s->o[i] - s->r[i], d = v[i] - s->r[i];
        equal += (s->o[i] - v[i]) * (s->o[i] - v[i]);
        vv += v[i] * v[i];
        ve += v[i] * e;
        dd += d * d;
        de += d * e;
    }
    const char *here = s->p->ref->name, *there = x->name;
    const bool same_module = strcmp(behind_scope(here), behind_scope(there)) == 0;
    const bool same_step = strncmp(here, "step.", 5) != 0 || strncmp(there, "step.", 5) != 0 ||
                           strtoul(here + 5, NULL, 10) == strtoul(there + 5, NULL, 10);
    if (dd == 0) return; /* the same as REF's own: tells nothing */
    if (same_module && same_step)
        consider(s, equal / s->energy, 0, PLAIN, "cond and uncond swapped: equals REF's %s", there);
    else if (same_module) consider(s, equal / s->energy, 0, PLAIN, "another timestep: equals REF's %s", there);
    else if (nearest) consider(s, equal / s->energy, 0, PLAIN, "stale: equals the tensor before, %s", there);
    else consider(s, equal / s->energy, 0, SIMPLE, "equals another tensor, %s", there);
    const double factor = vv > 0 ? ve / vv : 0, blend = de / dd;
    const double left = 1 - ve * factor / s->energy;
    if (factor > -1.01 && factor < -0.99)
        consider(s, left, 1, SIMPLE, "%s is missing: OTHER = REF - it (a residual, a skip connection, an embedding)",
                 there);
    else if (factor > 0.99 && factor < 1.01)
        consider(s, left, 1, SIMPLE, "%s added once too often: OTHER = REF + it", there);
    else if (same_module || nearest) consider(s, left, 1, FITTED, "the error is %.4g x %s", factor, there);
    if (same_module && same_step && fabs(blend - 1) > 0.01)
        consider(s, 1 - de * blend / s->energy, 1, FITTED,
                 "another guidance scale: %.4g of the way from REF to REF's %s", blend, there);
}

/* REF's tensors with as many values, the same module elsewhere first, then those before, the nearest first; at most 256 MiB
   of them are read. */
static void try_tensors(subject *s)
{
    comparison *c = s->c;
    size_t budget = ((size_t)256 << 20) / sizeof(double);
    const size_t here = (size_t)(s->p->ref - c->ref.item);
    const char *module = behind_scope(s->p->ref->name);
    for (int pass = 0; pass < 2; pass++) {
        bool nearest = true;
        for (size_t k = 1; k < c->ref.count + 1; k++) {
            const bool behind = pass == 0 || k > here; /* pass 1: backwards from here, then forwards */
            const size_t i = pass == 0 ? k - 1 : behind ? k - 1 : here - k;
            const struct named *x = &c->ref.item[i];
            if (i == here || (pass == 1 && behind && i < here) || flis_entry_count(x->entry) != s->n) continue;
            if ((strcmp(behind_scope(x->name), module) == 0) != (pass == 0) || budget < s->n) continue;
            double *v = read_values(c, &c->ref, x->entry);
            if (!v) return;
            for (size_t j = 0; j < s->n; j++)
                if (!(fabs(v[j]) < CLOSED)) v[j] = 0;
            try_tensor(s, x, v, pass == 1 && nearest && !behind);
            nearest = false;
            budget -= s->n;
            free(v);
        }
    }
}

/* ---- Diagnosis: norms, from their inputs ------------------------------------------------------------------------- */

/* The norm whose output is wrong, redone: r = gain z(u) + bias, gain and bias of each channel fitted to REF; then z made
   wrong in every usual way. Arrays are [n][c][l], l counting pixels or tokens. */
typedef struct norm {
    size_t n, c, l;
    bool rows;  /* r and o are [n][l][c] */
    bool layer; /* over the channels of each place; else over groups of channels of all places */
    size_t groups;
    double eps;
    double *u, *part[2], *z, *gain, *bias; /* u: the input; part: what it is the sum of, NULL: whole */
    size_t joined;                         /* channels of h where u is [h, skip]; 0: not joined */
} norm;

static size_t norm_place(const norm *b, size_t n, size_t c, size_t l)
{
    return b->rows ? (n * b->l + l) * b->c + c : (n * b->c + c) * b->l + l;
}

typedef enum { RIGHT, UNBIASED, NO_MEAN, EPS_OUTSIDE } flaw;

/* z = (u - mean) / sqrt(variance + eps) over `count` values that stand `step` apart in runs of `run`. */
static void normalise_set(const double *u, double *z, size_t count, size_t run, size_t step, double eps, flaw how)
{
    double sum = 0, squares = 0;
    const double n = (double)count;
    for (size_t i = 0; i < count; i++) sum += u[i / run * step + i % run];
    const double mean = how == NO_MEAN ? 0 : sum / n;
    for (size_t i = 0; i < count; i++) {
        const double d = u[i / run * step + i % run] - mean;
        squares += d * d;
    }
    const double variance = squares / (how == UNBIASED && n > 1 ? n - 1 : n);
    const double scale = how == EPS_OUTSIDE ? 1 / (sqrt(variance) + eps) : 1 / sqrt(variance + eps);
    for (size_t i = 0; i < count; i++) z[i / run * step + i % run] = (u[i / run * step + i % run] - mean) * scale;
}

static void normalise(const norm *b, const double *u, bool layer, size_t groups, double eps, flaw how)
{
    for (size_t n = 0; n < b->n; n++) {
        const double *from = u + n * b->c * b->l;
        double *to = b->z + n * b->c * b->l;
        if (layer)
            for (size_t l = 0; l < b->l; l++) normalise_set(from + l, to + l, b->c, 1, b->l, eps, how);
        else
            for (size_t g = 0; g < groups; g++) {
                const size_t each = b->c / groups * b->l;
                normalise_set(from + g * each, to + g * each, each, each, each, eps, how);
            }
    }
}

/* Fits gain and bias to REF; the share of REF's variance that they leave. */
static double norm_fit(const subject *s, norm *b)
{
    double left = 0, total = 0;
    for (size_t c = 0; c < b->c; c++) {
        double z = 0, r = 0, zz = 0, zr = 0, rr = 0;
        const double n = (double)(b->n * b->l);
        for (size_t k = 0; k < b->n; k++)
            for (size_t l = 0; l < b->l; l++) {
                const double x = b->z[(k * b->c + c) * b->l + l], y = s->r[norm_place(b, k, c, l)];
                z += x;
                r += y;
                zz += x * x;
                zr += x * y;
                rr += y * y;
            }
        const double vz = zz - z * z / n, cov = zr - z * r / n, vr = rr - r * r / n;
        b->gain[c] = vz > 0 ? cov / vz : 0;
        b->bias[c] = (r - b->gain[c] * z) / n;
        left += vr - b->gain[c] * cov;
        total += vr;
    }
    return total > 0 ? left / total : 1;
}

enum { GAIN = 1, BIAS = 2 };
static void try_norm(subject *s, const norm *b, int affine, int cost, const char *what)
{
    for (size_t n = 0; n < b->n; n++)
        for (size_t c = 0; c < b->c; c++)
            for (size_t l = 0; l < b->l; l++)
                s->q[norm_place(b, n, c, l)] = b->z[(n * b->c + c) * b->l + l] * (affine & GAIN ? b->gain[c] : 1) +
                                               (affine & BIAS ? b->bias[c] : 0);
    consider(s, left_by(s, s->q), 0, cost, "%s", what);
}

/* u + or = a tensor of REF's, [n,c,h,w], [n,t,c] or [n,c] (for all places), from channel `first` on. Its channels; 0: no. */
static size_t norm_gather(subject *s, const norm *b, const char *name, double *u, size_t first, bool add)
{
    const struct named *x = find_ref(s->c, name);
    const flis_entry *e = x ? x->entry : NULL;
    if (!e || e->rank < 2 || e->rank > 4 || e->shape[0] != b->n) return 0;
    const size_t channels = (size_t)(e->rank == 3 ? e->shape[2] : e->shape[1]);
    const size_t places = e->rank == 4 ? (size_t)(e->shape[2] * e->shape[3]) : e->rank == 3 ? (size_t)e->shape[1] : 1;
    if (first + channels > b->c || (places != b->l && e->rank != 2)) return 0;
    double *v = read_values(s->c, &s->c->ref, e);
    for (size_t n = 0; v && n < b->n; n++)
        for (size_t c = 0; c < channels; c++)
            for (size_t l = 0; l < b->l; l++) {
                const double y = e->rank == 4   ? v[(n * channels + c) * b->l + l]
                                 : e->rank == 3 ? v[(n * b->l + l) * channels + c]
                                                : v[n * channels + c];
                double *at = &u[(n * b->c + first + c) * b->l + l];
                *at = add ? *at + y : y;
            }
    free(v);
    return v ? channels : 0;
}

/* The last number of a path's word `word`, e.g. 3 of "step.0.cond.output_blocks.3.0" for "output_blocks."; -1: none.
   *head is the length of what stands before the word. */
static long block_number(const char *name, const char *word, size_t *head)
{
    const char *at = strstr(name, word);
    if (!at || !strchr("0123456789", at[strlen(word)])) return -1;
    *head = (size_t)(at - name);
    return strtol(at + strlen(word), NULL, 10);
}

/* [h, skip] of an output block: h the block before, skip the mirrored input block's output. */
static bool norm_joined(subject *s, norm *b, char h[NAME_ROOM], char skip[NAME_ROOM])
{
    size_t head = 0;
    const char *name = s->p->ref->name;
    const long block = block_number(name, "output_blocks.", &head);
    if (block < 0) return false;
    long last = 0;
    do snprintf(skip, NAME_ROOM, "%.*sinput_blocks.%ld", (int)head, name, last);
    while (find_ref(s->c, skip) && ++last);
    snprintf(skip, NAME_ROOM, "%.*sinput_blocks.%ld", (int)head, name, last - 1 - block);
    if (block) snprintf(h, NAME_ROOM, "%.*soutput_blocks.%ld", (int)head, name, block - 1);
    else snprintf(h, NAME_ROOM, "%.*smiddle_block", (int)head, name);
    b->joined = norm_gather(s, b, h, b->u, 0, false);
    return b->joined && norm_gather(s, b, skip, b->u, b->joined, false) == b->c - b->joined;
}

/* u = a + b (b NULL: a alone), both kept. */
static bool norm_sum(subject *s, norm *b, const char *x, const char *y)
{
    if (norm_gather(s, b, x, b->part[0], 0, false) != b->c) return false;
    memcpy(b->u, b->part[0], s->n * sizeof *b->u);
    if (!y) return true;
    return norm_gather(s, b, y, b->part[1], 0, false) == b->c && norm_gather(s, b, y, b->u, 0, true) == b->c;
}

/* Whether u, with this kind of norm, gives REF's values. Layers' eps is 1e-5, groups' 1e-5 in ResBlocks and `out`, else 1e-6. */
static bool norm_fits(const subject *s, norm *b)
{
    const char *name = s->p->ref->name;
    const bool resblock = strstr(name, "in_layers.") || strstr(name, "out_layers.") || ends_in(name, "out.0");
    for (int layer = b->rows ? 1 : 0; layer >= 0; layer--) {
        b->layer = layer;
        b->groups = 32;
        b->eps = layer || resblock ? 1e-5 : 1e-6;
        if (!layer && b->c % b->groups) continue;
        normalise(b, b->u, b->layer, b->groups, b->eps, RIGHT);
        if (b->n * b->l > 2 && norm_fit(s, b) < 1e-8) return true;
    }
    return false;
}

/* The input by its name, where it is not simply the tensor before; else the nearest tensor before that fits. */
static bool norm_input(subject *s, norm *b, char h[NAME_ROOM], char skip[NAME_ROOM])
{
    const char *name = s->p->ref->name;
    bool known = false;
    *h = *skip = 0;
    if (ends_in(name, "out_layers.0"))
        known = norm_sum(s, b, relative(name, 2, "in_layers.2", h), relative(name, 2, "emb_layers.1", skip));
    else if (ends_in(name, "norm2") && b->rows)
        known = norm_sum(s, b, relative(name, 3, "proj_in", h), relative(name, 1, "attn1", skip));
    else if (ends_in(name, "norm3") && b->rows) {
        known = norm_sum(s, b, relative(name, 3, "proj_in", h), relative(name, 1, "attn2", skip));
        char first[NAME_ROOM];
        relative(name, 1, "attn1", first);
        known = known && norm_gather(s, b, first, b->u, 0, true) && norm_gather(s, b, first, b->part[0], 0, true);
    } else if (ends_in(name, "layer_norm2")) {
        size_t head = 0;
        const long layer = block_number(name, "encoder.layers.", &head);
        if (layer > 0) snprintf(h, NAME_ROOM, "%.*sencoder.layers.%ld", (int)head, name, layer - 1);
        else snprintf(h, NAME_ROOM, "%.*sembeddings", (int)head, name);
        known = norm_sum(s, b, h, relative(name, 1, "self_attn", skip));
    } else if (ends_in(name, "in_layers.0") && strstr(name, "output_blocks.")) known = norm_joined(s, b, h, skip);
    if (known) return norm_fits(s, b);
    const size_t here = (size_t)(s->p->ref - s->c->ref.item);
    for (size_t k = 1, tried = 0; k <= here && tried < 12; k++) {
        const struct named *x = &s->c->ref.item[here - k];
        if (flis_entry_count(x->entry) != s->n || is_integer(x->entry->dtype)) continue;
        tried++;
        b->joined = 0;
        if (norm_sum(s, b, x->name, NULL) && norm_fits(s, b)) {
            snprintf(h, NAME_ROOM, "%s", x->name);
            *skip = 0;
            return true;
        }
    }
    return false;
}

static void try_norm_flaws(subject *s, norm *b)
{
    static const double eps[] = {0, 1e-12, 1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2};
    static const size_t groups[] = {1, 2, 4, 8, 16, 64};
    char text[160];
    for (size_t i = 0; i < sizeof eps / sizeof *eps; i++) {
        if (eps[i] == b->eps) continue;
        snprintf(text, sizeof text, "another eps: %g instead of %g in the norm", eps[i], b->eps);
        normalise(b, b->u, b->layer, b->groups, eps[i], RIGHT);
        try_norm(s, b, GAIN | BIAS, PLAIN, text);
    }
    normalise(b, b->u, b->layer, b->groups, b->eps, UNBIASED);
    try_norm(s, b, GAIN | BIAS, SIMPLE, "the norm's variance is divided by n - 1 instead of n");
    normalise(b, b->u, b->layer, b->groups, b->eps, NO_MEAN);
    try_norm(s, b, GAIN | BIAS, SIMPLE, "the norm does not take off the mean");
    normalise(b, b->u, b->layer, b->groups, b->eps, EPS_OUTSIDE);
    try_norm(s, b, GAIN | BIAS, SIMPLE, "the norm's eps is added outside the root");
    for (size_t i = 0; !b->layer && i < sizeof groups / sizeof *groups; i++) {
        if (b->c % groups[i]) continue;
        snprintf(text, sizeof text, "a norm over %zu groups instead of 32", groups[i]);
        normalise(b, b->u, false, groups[i], b->eps, RIGHT);
        try_norm(s, b, GAIN | BIAS, SIMPLE, text);
    }
    if (b->layer || b->c != 32) {
        normalise(b, b->u, false, b->c, b->eps, RIGHT);
        try_norm(s, b, GAIN | BIAS, SIMPLE, "each channel is normed alone (instance norm)");
    }
    normalise(b, b->u, !b->layer, 32, b->eps, RIGHT);
    if (b->layer == false || b->c % 32 == 0)
        try_norm(s, b, GAIN | BIAS, SIMPLE,
                 b->layer ? "a group norm instead of a layer norm" : "a layer norm instead of a group norm");
    normalise(b, b->u, b->layer, b->groups, b->eps, RIGHT);
    try_norm(s, b, GAIN, SIMPLE, "the norm's bias is missing");
    try_norm(s, b, BIAS, SIMPLE, "the norm's gain is missing");
    try_norm(s, b, 0, SIMPLE, "the norm's gain and bias are missing");
}

/* The norm of one part of the sum, and of [skip, h]. */
static void try_norm_inputs(subject *s, norm *b, const char *h, const char *skip)
{
    char text[2 * NAME_ROOM];
    if (b->joined) {
        for (size_t n = 0; n < b->n; n++) {
            const size_t cut = b->joined * b->l, all = b->c * b->l;
            memcpy(b->part[0] + n * all, b->u + n * all + cut, (all - cut) * sizeof *b->u);
            memcpy(b->part[0] + n * all + all - cut, b->u + n * all, cut * sizeof *b->u);
        }
        normalise(b, b->part[0], b->layer, b->groups, b->eps, RIGHT);
        try_norm(s, b, GAIN | BIAS, PLAIN, "skip order: the norm of [skip, h] instead of [h, skip]");
    } else if (*skip) {
        normalise(b, b->part[0], b->layer, b->groups, b->eps, RIGHT);
        snprintf(text, sizeof text, "%s is missing in the norm's input", skip);
        try_norm(s, b, GAIN | BIAS, PLAIN, text);
        normalise(b, b->part[1], b->layer, b->groups, b->eps, RIGHT);
        snprintf(text, sizeof text, "%s is missing in the norm's input", h);
        try_norm(s, b, GAIN | BIAS, PLAIN, text);
    }
}

static void try_norms(subject *s)
{
    const char *name = s->p->ref->name, *last = strrchr(name, '.');
    char h[NAME_ROOM], skip[NAME_ROOM];
    if (!strstr(last ? last : name, "norm") && !ends_in(name, "in_layers.0") && !ends_in(name, "out_layers.0") &&
        !ends_in(name, "out.0"))
        return;
    if (s->rank != 3 && s->rank != 4) return;
    norm b = {.n = s->dim[0], .c = s->dim[s->rank == 4 ? 1 : 2], .rows = s->rank == 3};
    b.l = s->n / b.n / b.c;
    double *room = flis_alloc(&s->c->ctx, 4 * s->n + 2 * b.c, sizeof *room);
    if (!room) return;
    b.u = room;
    b.part[0] = room + s->n;
    b.part[1] = room + 2 * s->n;
    b.z = room + 3 * s->n;
    b.gain = room + 4 * s->n;
    b.bias = b.gain + b.c;
    if (norm_input(s, &b, h, skip)) {
        try_norm_flaws(s, &b);
        try_norm_inputs(s, &b, h, skip);
    }
    free(room);
}

/* ---- Diagnosis: gated units and softmax, from their inputs ------------------------------------------------------- */

/* GEGLU's ways to go wrong, from the projection that it gates: value GELU(gate), value the first half. */
static void try_geglu(subject *s)
{
    static const function gates[] = {
        {gelu, "erf GELU"}, {gelu_tanh, "tanh GELU"}, {quick_gelu, "quick GELU"}, {silu, "SiLU"},
        {relu, "ReLU"},     {sigmoid, "sigmoid"},     {same_f, "no GELU at all"}};
    char name[NAME_ROOM];
    relative(s->p->ref->name, 0, "proj", name);
    const struct named *x = find_ref(s->c, name);
    const size_t width = s->rank ? s->dim[s->rank - 1] : 0;
    if (!ends_in(s->p->ref->name, "net.0") || !x || flis_entry_count(x->entry) != 2 * s->n) return;
    double *u = read_values(s->c, &s->c->ref, x->entry);
    for (int layout = 0; u && layout < 3; layout++)
        for (size_t k = 0; k < sizeof gates / sizeof *gates; k++) {
            for (size_t i = 0; i < s->n; i++) {
                const double *row = u + i / width * 2 * width;
                const size_t j = i % width;
                const double value = layout == 0 ? row[j] : layout == 1 ? row[width + j] : row[2 * j];
                const double gate = layout == 0 ? row[width + j] : layout == 1 ? row[j] : row[2 * j + 1];
                s->q[i] = value * gates[k].f(gate);
            }
            if (layout || k)
                consider(s, left_by(s, s->q), 0, layout && k ? SIMPLE : PLAIN, "%s%s%s%s",
                         layout == 1 ? "swapped halves: value and gate of GEGLU"
                         : layout    ? "value and gate of GEGLU interleaved"
                                     : "",
                         layout && k ? ", and " : "", layout && !k ? "" : gates[k].name,
                         k ? " instead of erf GELU" : "");
        }
    free(u);
}

/* One way to make weights of scores: the mask taken `shift` columns off, closed scores set to `closed`. */
typedef struct softmax {
    const double *score, *mask; /* [heads][queries][keys]; mask [samples][queries][keys], NULL: all open */
    size_t heads, queries, keys, samples;
    int shift;
    bool invert, after; /* after: weights are multiplied by the mask, not summing to 1 */
    double closed, scale;
} softmax;

static void softmax_row(const softmax *m, size_t head, size_t query, double *out)
{
    const size_t row = head * m->queries + query;
    const double *score = m->score + row * m->keys;
    const double *mask = m->mask ? m->mask + (head / (m->heads / m->samples) * m->queries + query) * m->keys : NULL;
    double largest = -HUGE_VAL, sum = 0;
    for (size_t k = 0; k < m->keys; k++) {
        const size_t from =
            k + (size_t)m->shift; /* wraps below 0 and is then beyond keys: open, as BOS and padding are */
        const bool open = !mask || (from < m->keys ? (mask[from] != 0) != m->invert : true);
        out[k] = open || m->after ? score[k] * m->scale : m->closed;
        largest = fmax(largest, out[k]);
    }
    for (size_t k = 0; k < m->keys; k++) sum += out[k] = flis_exp(out[k] - largest);
    for (size_t k = 0; k < m->keys; k++) {
        const size_t from = k + (size_t)m->shift;
        out[k] /= sum;
        if (m->after && mask && from < m->keys && (mask[from] != 0) == m->invert) out[k] = 0;
    }
}

static double softmax_left(subject *s, const softmax *m, const double *wanted)
{
    double sum = 0;
    for (size_t i = 0; i < m->heads * m->queries; i++) {
        softmax_row(m, i / m->queries, i % m->queries, s->q + i * m->keys);
        for (size_t k = 0; k < m->keys; k++) {
            const double d = wanted[i * m->keys + k] - s->q[i * m->keys + k];
            sum += d * d;
        }
    }
    return sum;
}

/* Softmax over the queries instead of the keys. */
static double softmax_columns_left(subject *s, const softmax *m)
{
    for (size_t head = 0; head < m->heads; head++)
        for (size_t k = 0; k < m->keys; k++) {
            const double *x = m->score + head * m->queries * m->keys + k;
            double *y = s->q + head * m->queries * m->keys + k, largest = -HUGE_VAL, sum = 0;
            for (size_t i = 0; i < m->queries; i++) largest = fmax(largest, x[i * m->keys]);
            for (size_t i = 0; i < m->queries; i++) sum += y[i * m->keys] = flis_exp(x[i * m->keys] - largest);
            for (size_t i = 0; i < m->queries; i++) y[i * m->keys] /= sum;
        }
    return left_by(s, s->q);
}

static void try_softmax_variants(subject *s, const softmax *right)
{
    static const double closed[] = {0, -1, -10, -100, -1e4};
    const double d[] = {8, 10, 16, 32, 40, 64, 80, 128, 160, 320, 512, 640, 768, 1280};
    softmax m = *right;
    m.mask = NULL;
    if (right->mask)
        consider(s, softmax_left(s, &m, s->o) / s->energy, 0, PLAIN, "the mask is not applied: every column open");
    m = *right;
    for (int shift = -1; right->mask && shift <= 1; shift += 2) {
        m.shift = shift;
        consider(s, softmax_left(s, &m, s->o) / s->energy, 0, PLAIN,
                 "mask off by one column: column j takes what belongs to column j %+d (token k acts in column k + 1)",
                 shift);
    }
    m = *right;
    m.invert = true;
    if (right->mask) consider(s, softmax_left(s, &m, s->o) / s->energy, 0, PLAIN, "the mask is inverted");
    m.invert = false;
    m.after = true;
    if (right->mask)
        consider(s, softmax_left(s, &m, s->o) / s->energy, 0, PLAIN,
                 "the mask is applied after the softmax: rows do not sum to 1");
    m = *right;
    for (size_t i = 0; right->mask && i < sizeof closed / sizeof *closed; i++) {
        m.closed = closed[i];
        consider(s, softmax_left(s, &m, s->o) / s->energy, 0, PLAIN, "closed scores are %g instead of -max", closed[i]);
    }
    m = *right;
    for (size_t i = 0; i < 2 * sizeof d / sizeof *d; i++) {
        m.scale = i % 2 ? 1 / sqrt(d[i / 2]) : sqrt(d[i / 2]);
        consider(s, softmax_left(s, &m, s->o) / s->energy, 0, SIMPLE, "softmax's scale: scores times %s%g%s",
                 i % 2 ? "1/sqrt(" : "sqrt(", d[i / 2], ") once more");
    }
    m.scale = 0.69314718055994531;
    consider(s, softmax_left(s, &m, s->o) / s->energy, 0, SIMPLE, "exp2 in the softmax instead of exp");
    consider(s, softmax_columns_left(s, right), 0, SIMPLE, "softmax over the queries instead of the keys");
}

static void try_softmax(subject *s)
{
    char name[NAME_ROOM];
    if (!ends_in(s->p->ref->name, "weights") || s->rank != 3) return;
    const struct named *scores = find_ref(s->c, relative(s->p->ref->name, 1, "scores", name));
    const struct named *mask = find_ref(s->c, relative(s->p->ref->name, 1, "mask", name));
    if (!scores || flis_entry_count(scores->entry) != s->n) return;
    softmax m = {
        .heads = s->dim[0], .queries = s->dim[1], .keys = s->dim[2], .samples = 1, .closed = -CLOSED, .scale = 1};
    const size_t plane = m.queries * m.keys, have = mask ? (size_t)flis_entry_count(mask->entry) : 0;
    if (have && have % plane == 0 && m.heads % (have / plane) == 0) m.samples = have / plane;
    else mask = NULL;
    double *score = read_values(s->c, &s->c->ref, scores->entry);
    double *open = score && mask ? read_values(s->c, &s->c->ref, mask->entry) : NULL;
    m.score = score;
    m.mask = open;
    if (score && softmax_left(s, &m, s->r) < 1e-6 * s->rr) try_softmax_variants(s, &m);
    free(open);
    free(score);
}

/* Scores that were masked before they were dumped. */
static void try_masked_scores(subject *s)
{
    double rest = 0;
    size_t closed = 0;
    for (size_t i = 0; i < s->n; i++) {
        const double e = s->o[i] - s->r[i];
        if (s->o[i] <= -9000 && s->r[i] > -9000) closed++;
        else rest += e * e;
    }
    if (closed && closed < s->n && rest <= 1e-8 * s->rr)
        consider(s, 0, 0, PLAIN,
                 "masked already: %zu values are closed (-9000 or less), the rest agrees; REF's are before the mask",
                 closed);
}

/* Picture cells or label maps whose wrong places hold what a neighbour has: another rule for the nearest neighbour. */
static void try_nearest(subject *s)
{
    size_t h = 0, w = 0, row = 1, wrong = 0, taken = 0;
    if (!is_integer(s->p->ref->entry->dtype)) return;
    if (ends_in(s->p->ref->name, "mask") && s->rank >= 2) {
        row = s->dim[s->rank - 1];
        h = w = (size_t)sqrt((double)s->dim[s->rank - 2]);
    } else if (s->rank >= 2) {
        h = s->dim[s->rank - 2];
        w = s->dim[s->rank - 1];
    }
    if (h * w * row == 0 || s->n % (h * w * row)) return;
    for (size_t i = 0; i < s->n; i += row) {
        const size_t y = i / row / w % h, x = i / row % w;
        bool same = true, found = false;
        for (size_t k = 0; k < row; k++) same = same && s->o[i + k] == s->r[i + k];
        if (same) continue;
        wrong++;
        for (int dy = -1; dy <= 1; dy++)
            for (int dx = -1; dx <= 1 && !found; dx++) {
                if ((y == 0 && dy < 0) || (y + 1 == h && dy > 0) || (x == 0 && dx < 0) || (x + 1 == w && dx > 0))
                    continue;
                const double *from = s->r + (ptrdiff_t)i + (dy * (ptrdiff_t)w + dx) * (ptrdiff_t)row;
                bool equal = true;
                for (size_t k = 0; equal && k < row; k++) equal = s->o[i + k] == from[k];
                found = equal;
            }
        taken += found;
    }
    if (wrong && wrong * 2 < s->n / row)
        consider(s, 1 - (double)taken / (double)wrong, 0, NUMEROUS,
                 "%zu of %zu cells hold a neighbour's class: another nearest-neighbour rule (PIL's for torch's?)",
                 wrong, s->n / row);
}

/* A mask in which columns are closed that REF leaves open to every query: those of BOS, EOS, padding, and class -1. */
static void try_open_columns(subject *s)
{
    const size_t columns = s->rank ? s->dim[s->rank - 1] : 0;
    size_t first = columns, last = 0, closed = 0;
    if (!ends_in(s->p->ref->name, "mask") || !columns) return;
    for (size_t k = 0; k < columns; k++) {
        bool open = true, same = true;
        for (size_t i = k; i < s->n; i += columns) {
            open = open && s->r[i] == 1;
            same = same && s->o[i] == s->r[i];
        }
        if (same) continue;
        if (!open) return;
        first = k < first ? k : first;
        last = k;
        closed++;
    }
    if (closed)
        consider(
            s, 0, 0, PLAIN,
            "%zu columns from %zu to %zu are closed that are open everywhere in REF: class -1 acts everywhere, as BOS, "
            "EOS and padding do",
            closed, first, last);
}

/* ---- Diagnosis: NaN, places, places to look at ------------------------------------------------------------------- */

typedef struct report {
    char *at;
    size_t room;
} report;

static void say(report *out, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    const int length = vsnprintf(out->at, out->room, format, args);
    va_end(args);
    if (length < 0) return;
    const size_t used = (size_t)length < out->room ? (size_t)length : out->room - 1;
    out->at += used;
    out->room -= used;
}

static bool finite_value(double x)
{
    return fabs(x) <= 1.7976931348623157e308;
}

/* Which values are not finite, and what that is like. */
static void not_finite_found(const subject *s, report *out)
{
    size_t bad = 0, nan = 0, over_half = 0, over_half_bad = 0, closed = 0, rows = 0, whole_rows = 0, in_whole = 0;
    const size_t row = s->rank ? s->dim[s->rank - 1] : 1;
    for (size_t i = 0; i < s->n; i++) {
        const bool is_bad = !finite_value(s->o[i]);
        bad += is_bad;
        nan += s->o[i] != s->o[i];
        over_half += fabs(s->r[i]) > 65504;
        over_half_bad += is_bad && fabs(s->r[i]) > 65504;
        closed += is_bad && s->o[i] < 0 && s->r[i] <= -CLOSED;
    }
    for (size_t i = 0; row && i < s->n; i += row, rows++) {
        size_t here = 0;
        for (size_t k = 0; k < row; k++) here += !finite_value(s->o[i + k]);
        whole_rows += here == row;
        in_whole += here == row ? row : 0;
    }
    if (!bad) say(out, "  looks like: REF itself is not finite here\n");
    else if (bad == s->n) say(out, "  looks like: nothing but %s\n", nan == bad ? "NaN" : nan ? "NaN and Inf" : "Inf");
    else if (closed == bad)
        say(out, "  looks like: closed scores are -Inf where REF has -max (a row that is all closed becomes NaN)\n");
    else if (over_half_bad == bad && over_half == bad)
        say(out, "  looks like: overflow of fp16, at the %zu values that REF has beyond 65504 (explains all of them)\n",
            bad);
    else if (row > 1 && whole_rows && in_whole == bad)
        say(out,
            "  looks like: %zu of %zu rows are wholly NaN or Inf: a softmax of a row that is all closed, or a division "
            "by 0\n",
            whole_rows, rows);
    else say(out, "  %zu of %zu values are NaN, %zu Inf: no pattern recognised\n", nan, s->n, bad - nan);
}

/* Where along an axis the error is. */
static void place_along(const subject *s, int axis, double *sum, report *out)
{
    const size_t dim = s->dim[axis];
    size_t first = dim, last = 0, wrong = 0;
    for (size_t i = 0; i < dim; i++) sum[i] = 0;
    for (size_t i = 0; i < s->n; i++) sum[index_of(s, i, axis)] += (s->o[i] - s->r[i]) * (s->o[i] - s->r[i]);
    for (size_t i = 0; i < dim; i++) {
        if (!(sum[i] > 1e-9 * s->energy / (double)dim)) continue;
        first = first == dim ? i : first;
        last = i;
        wrong++;
    }
    const char *name = axis_name(s, axis);
    if (!wrong || wrong == dim || dim < 2) return;
    if (wrong == dim - 1 && last == dim - 2)
        say(out, "  where: every index of %s but the last%s\n", name,
            axis == 1 && dim == FLIS_TOKENS ? ": a causal mask is missing or wrong (the last token sees all either way)"
                                            : "");
    else if (wrong == dim - 1 && first == 1)
        say(out, "  where: every index of %s but 0%s\n", name,
            axis == 1 && dim == FLIS_TOKENS ? " (which sees itself alone)" : "");
    else if (wrong == 1) say(out, "  where: only index %zu of %s (of %zu)\n", first, name, dim);
    else if (wrong == last - first + 1) say(out, "  where: only %zu..%zu of %s (of %zu)\n", first, last, name, dim);
    else if (wrong <= 8) {
        say(out, "  where: only");
        for (size_t i = 0; i < dim; i++)
            if (sum[i] > 1e-9 * s->energy / (double)dim) say(out, " %zu", i);
        say(out, " of %s (of %zu)\n", name, dim);
    } else if (wrong * 2 <= dim) say(out, "  where: %zu of %zu indices of %s, first %zu\n", wrong, dim, name, first);
}

/* Error at the picture's border alone, or mostly. */
static void place_border(const subject *s, report *out)
{
    double border = 0, after = 0;
    size_t places = 0;
    if (s->rank != 4 || s->dim[2] < 6 || s->dim[3] < 6) return;
    for (size_t i = 0; i < s->n; i++) {
        const size_t y = index_of(s, i, 2), x = index_of(s, i, 3);
        const double e = (s->o[i] - s->r[i]) * (s->o[i] - s->r[i]);
        const bool low = y == 0 || x == 0, high = y + 1 == s->dim[2] || x + 1 == s->dim[3];
        places += low || high;
        border += low || high ? e : 0;
        after += high && !low ? e : 0;
    }
    if (border > 0.9 * s->energy && places * 10 < 7 * s->n)
        say(out, "  where: %.1f %% of the error at the border%s: padding\n", 100 * border / s->energy,
            after > 0.9 * s->energy ? ", right and below" : "");
}

static void places_found(const subject *s, report *out)
{
    size_t longest = 1;
    for (int i = 0; i < s->rank; i++) longest = s->dim[i] > longest ? s->dim[i] : longest;
    double *sum = flis_alloc(&s->c->ctx, longest, sizeof *sum);
    for (int i = 0; sum && i < s->rank; i++) place_along(s, i, sum, out);
    place_border(s, out);
    free(sum);
}

/* What is easily wrong at a place, for where the numbers do not tell: DESIGN.md's list by module. */
static const char *to_check(const char *name)
{
    static const struct {
        const char *match, *text;
    } places[] = {
        {"*time_embed*",
         "the time embedding is [cos, sin], frequencies exp(-ln(10000) i / half); then linear, SiLU, linear"},
        {"*embeddings", "token ids (BOS 49406, padding is EOS 49407), token plus position embedding"},
        {"*self_attn", "q is scaled after its bias, by 64^-0.5; the mask is causal; heads; out_proj's bias"},
        {"*mlp", "the activation is quick GELU, x sigmoid(1.702 x); fc2's bias"},
        {"*final_layer_norm", "after the last layer (not the last but one), eps 1e-5"},
        {"*attn2.mask", "column of phrase token k is k + 1; BOS, EOS, padding and class -1 stay open; an absent class "
                        "closes its column"},
        {"*attn2.to_[kv]",
         "the text features: last_hidden_state after the final layer norm; no bias; cond before uncond"},
        {"*attn2", "closed scores are -max before the softmax; scale d_head^-0.5, 8 heads; heads merged [tokens, "
                   "heads, width]; to_out's bias"},
        {"*attn1",
         "no mask in self-attention; scale d_head^-0.5, 8 heads; heads merged [tokens, heads, width]; to_out's bias"},
        {"*attn_1*", "one head, scale c^-0.5; norm eps 1e-6; the residual"},
        {"*.ff", "GEGLU: the first half times exact (erf) GELU of the second"},
        {"*net.0", "GEGLU: the first half times exact (erf) GELU of the second"},
        {"*emb_layers*", "linear of SiLU(time embedding)"},
        {"*proj_in", "group norm with eps 1e-6 before it; 1x1 convolution; pixels in rows, [n, h w, c]"},
        {"*norm[123]", "layer norm over channels, eps 1e-5; or (autoencoder) group norm, eps 1e-6, then SiLU"},
        {"*.norm", "group norm of 32 groups, eps 1e-6"},
        {"*.0.in_layers.0", "[h, skip] in that order (output blocks); group norm of 32 groups, eps 1e-5"},
        {"*layers.0", "group norm of 32 groups, eps 1e-5; the time embedding is added before it"},
        {"*output_blocks.*.0",
         "[h, skip] in that order, the last skip first; group norms eps 1e-5, SiLU; the time embedding; the residual"},
        {"*blocks.[0-9].0",
         "group norms eps 1e-5, SiLU, the time embedding, the residual; a downsample pads 1 on every side"},
        {"*blocks.[0-9][0-9].0",
         "group norms eps 1e-5, SiLU, the time embedding, the residual; a downsample pads 1 on every side"},
        {"*middle_block.[02]", "group norms eps 1e-5, SiLU, the time embedding, the residual"},
        {"*downsample", "zeros right and below only, (0, 1, 0, 1); stride 2"},
        {"*upsample", "nearest neighbour, then a 3x3 convolution"},
        {"*post_quant_conv", "latents are divided by the scale factor 0.18215 before it"},
        {"*conv_in", "inputs in [-1, 1], RGB; latents divided by 0.18215"},
        {"*block*", "group norms eps 1e-6, SiLU, the residual"},
        {"*out.0", "group norm eps 1e-5 of the last block"},
        {"*e_t", "guidance: uncond + scale (cond - uncond)"},
        {"*pred_x0", "(x - sqrt(1 - a) e) / sqrt(a), alphas as float32"},
        {"*x_prev", "alphas_prev[0] is alphas_cumprod[0]; PLMS: history of guided eps, the first step evaluates twice"},
        {"*image*", "clamp((x + 1) / 2), 255 x truncated to a byte; RGB"}};
    for (size_t i = 0; i < sizeof places / sizeof *places; i++)
        if (glob(places[i].match, name)) return places[i].text;
    return NULL;
}

/* ---- Diagnosis: all of it ---------------------------------------------------------------------------------------- */

/* The narrowest profile that everything measured is within, behind the one asked for; NULL: none. */
static const profile *enough(const comparison *c)
{
    for (int i = 0; i < PROFILES; i++) {
        options o = {.profile = &profiles[i], .absolute = -1, .relative = -1};
        bool all = true;
        for (size_t k = 0; all && k < c->count; k++) {
            const pair *p = &c->pair[k];
            all =
                p->verdict == MISSING || (p->measured && p->verdict != NOT_FINITE && excess_of(&o, &p->m, p->ref) <= 1);
        }
        if (all && &profiles[i] > c->o.profile) return &profiles[i];
    }
    return NULL;
}

/* Share explained, never rounded up to what it is not. */
static void say_found(const subject *s, const char *what, report *out)
{
    const double explained = floor((1 - s->best.left) * 1e4) / 100;
    const double rest = s->rr > 0 ? sqrt(s->best.left * s->energy / s->rr) : 0;
    say(out, "  %s: %s (explains %.2f %% of the error", what, s->best.text, explained);
    if (s->best.left > 0 && rest <= limits_of(s->p->ref->name, s->c->o.profile).relative)
        say(out, "; the rest is within tolerance");
    say(out, ")\n");
}

static void try_all(subject *s)
{
    try_constant(s);
    try_groupings(s);
    try_rotations(s);
    try_shifts(s);
    try_orders(s);
    try_functions(s);
    try_integers(s);
    try_masked_scores(s);
    try_nearest(s);
    try_open_columns(s);
    try_same_values(s);
    try_norms(s);
    try_geglu(s);
    try_softmax(s);
    try_tensors(s);
}

/* What the first wrong tensor's error looks like, in lines. */
static void diagnose(comparison *c)
{
    subject s;
    report out = {c->diagnosis, sizeof c->diagnosis};
    const profile *wider = enough(c);
    const pair *p = c->first;
    if (c->ref.digest || c->other.digest) {
        say(&out, "  of %zu samples no pattern can be told: compare whole traces\n", (size_t)FLIS_SAMPLES);
        return;
    }
    if (subject_open(c, p, &s)) {
        if (p->verdict == NOT_FINITE) not_finite_found(&s, &out);
        else {
            const char *format = format_of(&s), *check = to_check(p->ref->name);
            try_all(&s);
            const bool found = s.best.left <= 0.05; /* what explains less has named wrong causes */
            if (found) say_found(&s, "looks like", &out);
            else if (wider)
                say(&out, "  looks like: rounding of %s: no pattern in it, and every tensor is within profile %s\n",
                    wider->name, wider->name);
            else {
                say(&out, "  no pattern recognised\n");
                if (s.best.left <= 0.6) say_found(&s, "nearest", &out);
            }
            if (format) say(&out, "  OTHER's values are all %s numbers\n", format);
            if (p->measured) places_found(&s, &out);
            if (!found && !wider && check) say(&out, "  to check: %s\n", check);
        }
    } else if (flis_ok(&c->ctx))
        say(&out, "  %llu values instead of %llu\n", (unsigned long long)flis_entry_count(p->other->entry),
            (unsigned long long)flis_entry_count(p->ref->entry));
    subject_close(&s);
}

/* ---- Table ------------------------------------------------------------------------------------------------------- */

enum { NAME_WIDTH = 37, AT_WIDTH = 15 };

typedef struct paint {
    const char *bad, *good, *dim, *strong, *off;
} paint;

static paint paints(void)
{
    const char *no = getenv("NO_COLOR");
    if (!stdout_is_terminal() || (no && *no)) return (paint){"", "", "", "", ""};
    return (paint){"\033[31m", "\033[32m", "\033[2m", "\033[1m", "\033[0m"};
}

/* A name as it may be shown on a terminal: a hostile file's escapes are not obeyed. */
static void put_name(const char *name)
{
    for (; *name; name++) putchar((unsigned char)*name < 32 || *name == 127 ? '?' : *name);
}

/* The end tells more than the beginning. */
static const char *short_name(const char *name, char out[NAME_WIDTH + 1])
{
    const size_t length = strlen(name);
    if (length <= NAME_WIDTH) snprintf(out, NAME_WIDTH + 1, "%s", name);
    else snprintf(out, NAME_WIDTH + 1, "..%s", name + length - (NAME_WIDTH - 2));
    for (char *p = out; *p; p++)
        if ((unsigned char)*p < 32 || *p == 127) *p = '?';
    return out;
}

static const char *shape_text(const flis_entry *e, char out[200])
{
    size_t used = 1;
    strcpy(out, "[");
    for (int i = 0; i < e->rank; i++)
        used += (size_t)snprintf(out + used, 200 - used, "%s%llu", i ? "," : "", (unsigned long long)e->shape[i]);
    snprintf(out + used, 200 - used, "]");
    return out;
}

/* Flat place to indices: "[0,3,15,2]". */
static const char *index_text(const flis_entry *e, uint64_t at, char out[200])
{
    uint64_t index[FLIS_MAX_DIMS];
    size_t used = 1;
    for (int i = e->rank; i-- > 0;) {
        index[i] = e->shape[i] ? at % e->shape[i] : 0;
        at /= e->shape[i] ? e->shape[i] : 1;
    }
    strcpy(out, "[");
    for (int i = 0; i < e->rank; i++)
        used += (size_t)snprintf(out + used, 200 - used, "%s%llu", i ? "," : "", (unsigned long long)index[i]);
    snprintf(out + used, 200 - used, "]");
    return out;
}

static const char *excess_text(double x, char out[16])
{
    if (x < 9.995) snprintf(out, 16, "%.2f", x);
    else if (x < 1e5) snprintf(out, 16, "%.0f", x);
    else snprintf(out, 16, "%.0e", x);
    return out;
}

static void print_row(const pair *p, const paint *color)
{
    char name[NAME_WIDTH + 1], at[200], shape[200], times[16], ulp[16] = "-";
    const char *mark = p->verdict == SAME ? " " : "!", *on = p->verdict == SAME ? "" : color->bad;
    const measures *m = &p->m;
    printf("%s%s %-*s ", on, mark, NAME_WIDTH, short_name(p->ref->name, name));
    if (p->verdict == SHAPE)
        printf("shape %s, wanted %s", shape_text(p->other->entry, at), shape_text(p->ref->entry, shape));
    else if (p->verdict == NOT_FINITE)
        printf("%llu NaN or Inf%s, first at %s", (unsigned long long)(m->bad_other ? m->bad_other : m->bad_ref),
               m->bad_other ? "" : " in REF", index_text(p->ref->entry, m->first_bad, at));
    else {
        if (m->ulp == m->ulp) snprintf(ulp, sizeof ulp, m->ulp < 1e5 ? "%.0f" : "%.0e", m->ulp);
        printf("%7.1e %-*s %7.1e %7.1e %7.1e %6s %6s", m->max_error, AT_WIDTH, index_text(p->ref->entry, m->at, at),
               m->rms_error, m->relative, 1 - m->cosine, ulp, excess_text(m->excess, times));
    }
    printf("%s\n", *on ? color->off : "");
}

static void print_lists(const comparison *c)
{
    char a[200], b[200];
    for (size_t i = 0; i < c->count; i++) {
        const pair *p = &c->pair[i];
        if (p->verdict == MISSING) {
            printf("missing: ");
            put_name(p->ref->name);
            printf(" %s %s\n", flis_dtype_name(p->ref->entry->dtype), shape_text(p->ref->entry, a));
        } else if (p->measured && !shapes_agree(p->ref->entry, p->other->entry, true)) {
            printf("shape: ");
            put_name(p->ref->name);
            printf(" %s, wanted %s\n", shape_text(p->other->entry, a), shape_text(p->ref->entry, b));
        }
    }
    for (size_t i = 0; i < c->other.count; i++) {
        if (c->other.item[i].taken) continue;
        printf("extra: ");
        put_name(c->other.item[i].name);
        printf(" %s %s\n", flis_dtype_name(c->other.item[i].entry->dtype), shape_text(c->other.item[i].entry, a));
    }
}

/* dtypes that differ, one line a kind: a port that dumps halves differs in every tensor. */
static void print_dtypes(const comparison *c)
{
    for (int a = FLIS_F64; a <= FLIS_BOOL; a++)
        for (int b = FLIS_F64; b <= FLIS_BOOL; b++) {
            size_t count = 0;
            const char *one = NULL;
            for (size_t i = 0; a != b && i < c->count; i++) {
                const pair *p = &c->pair[i];
                if (!p->other || (int)p->ref->entry->dtype != a || (int)p->other->entry->dtype != b) continue;
                if (!count++) one = p->ref->name;
            }
            if (!count) continue;
            printf("dtype: %zu tensor%s %s where REF has %s: ", count, count > 1 ? "s" : "",
                   flis_dtype_name((flis_dtype)b), flis_dtype_name((flis_dtype)a));
            put_name(one);
            printf("%s\n", count > 1 ? " and on" : "");
        }
}

static void print_summary(const comparison *c, const paint *color)
{
    const options *o = &c->o;
    printf("%zu compared, %s%zu differ%s%s", c->compared, c->failed ? color->bad : color->good, c->failed,
           c->failed == 1 ? "s" : "", color->off);
    if (c->not_finite) printf(" (%zu not finite)", c->not_finite);
    if (c->missing) printf(", %zu missing", c->missing);
    if (c->extra) printf(", %zu extra", c->extra);
    if (o->absolute >= 0 || o->relative >= 0) {
        printf("; tolerance");
        if (o->absolute >= 0) printf(" %g absolute", o->absolute);
        if (o->relative >= 0) printf(" %g relative", o->relative);
    } else printf("; profile %s", o->profile->name);
    if (c->order) printf("; order of %s", c->order);
    printf("\n");
}

static void print_first(const comparison *c, const paint *color)
{
    const pair *p = c->first;
    char at[200], a[200];
    if (!p) return;
    printf("%sfirst wrong:%s %s", color->strong, color->off, color->bad);
    put_name(p->ref->name);
    printf("%s %s %s", color->off, flis_dtype_name(p->ref->entry->dtype), shape_text(p->ref->entry, a));
    if (strcmp(p->ref->name, p->other->name) != 0) {
        printf(" (OTHER's ");
        put_name(p->other->name);
        printf(")");
    }
    if (p->verdict == DIFFERENT)
        printf("\n  largest error %.3g at %s: got %.9g, wanted %.9g", p->m.max_error,
               index_text(p->ref->entry, p->m.at, at), p->m.other_at, p->m.ref_at);
    printf("\n%s", c->diagnosis);
}

static void print_table(const comparison *c)
{
    const paint color = paints();
    if (c->o.all || c->failed)
        printf("%s  %-*s %7s %-*s %7s %7s %7s %6s %6s%s\n", color.dim, NAME_WIDTH, "tensor", "max err", AT_WIDTH, "at",
               "rms err", "rel err", "1-cos", "ulp", "x tol", color.off);
    for (size_t i = 0; i < c->count; i++)
        if (c->pair[i].verdict != MISSING && (c->o.all || c->pair[i].verdict != SAME)) print_row(&c->pair[i], &color);
    print_lists(c);
    print_dtypes(c);
    print_summary(c, &color);
    print_first(c, &color);
}

/* ---- JSON -------------------------------------------------------------------------------------------------------- */

/* Strict UTF-8 is the reader's promise (the library checks names), so that only quotes and controls need an escape. */
static void json_text(const char *text)
{
    putchar('"');
    for (; *text; text++)
        if (*text == '"' || *text == '\\') printf("\\%c", *text);
        else if ((unsigned char)*text < 32) printf("\\u%04x", (unsigned)*text);
        else putchar(*text);
    putchar('"');
}

/* The shortest text that reads back as the same number; JSON has no NaN and no infinity. */
static void json_number(const char *key, double x)
{
    char text[32];
    printf(", \"%s\": ", key);
    if (!(fabs(x) <= 1.7976931348623157e308)) {
        printf("null");
        return;
    }
    for (int digits = 1; digits <= 17; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, x);
        if (strtod(text, NULL) == x) break;
    }
    printf("%s", text);
}

static void json_tensor(const comparison *c, const pair *p)
{
    static const char *const verdicts[] = {"same", "different", "not finite", "shape", "missing"};
    char text[200];
    const measures *m = &p->m;
    printf("    {\"name\": ");
    json_text(p->ref->name);
    printf(", \"verdict\": \"%s\", \"dtype\": \"%s\", \"shape\": %s", verdicts[p->verdict],
           flis_dtype_name(p->ref->entry->dtype), shape_text(p->ref->entry, text));
    if (p->other) {
        printf(", \"other\": ");
        json_text(p->other->name);
        printf(", \"other_dtype\": \"%s\", \"other_shape\": %s", flis_dtype_name(p->other->entry->dtype),
               shape_text(p->other->entry, text));
    }
    if (p->measured) {
        printf(", \"not_finite\": %llu, \"ref_not_finite\": %llu", (unsigned long long)m->bad_other,
               (unsigned long long)m->bad_ref);
        if (p->verdict == NOT_FINITE) printf(", \"not_finite_at\": %s", index_text(p->ref->entry, m->first_bad, text));
        json_number("max_error", m->max_error);
        printf(", \"max_error_at\": %s", index_text(p->ref->entry, m->at, text));
        json_number("got", m->other_at);
        json_number("wanted", m->ref_at);
        json_number("rms_error", m->rms_error);
        json_number("relative_error", m->relative);
        json_number("cosine", m->cosine);
        json_number("ulp_median", m->ulp);
        json_number("largest", m->largest);
        json_number("rms", m->rms);
        json_number("times_tolerance", m->excess);
    }
    printf("}%s\n", p + 1 < c->pair + c->count ? "," : "");
}

static void print_json(const comparison *c)
{
    const options *o = &c->o;
    const bool given = o->absolute >= 0 || o->relative >= 0;
    printf("{\n  \"compare\": \"" FLIS_VERSION "\",\n  \"reference\": ");
    json_text(o->path[0]);
    printf(",\n  \"other\": ");
    json_text(o->path[1]);
    printf(",\n  \"verdict\": \"%s\",\n  \"profile\": ", differs(c) ? "different" : "same");
    if (given) printf("null");
    else json_text(o->profile->name);
    printf(",\n  \"limits\": {\"given\": %s", given ? "true" : "false");
    json_number("absolute", o->absolute >= 0 ? o->absolute : (double)NAN);
    json_number("relative", o->relative >= 0 ? o->relative : (double)NAN);
    printf("},\n  \"compared\": %zu, \"failed\": %zu, \"not_finite\": %zu, \"missing\": %zu, \"extra\": %zu, "
           "\"shapes\": %zu, \"dtypes\": %zu,\n  \"first_wrong\": ",
           c->compared, c->failed, c->not_finite, c->missing, c->extra, c->reshaped, c->recast);
    if (c->first) json_text(c->first->ref->name);
    else printf("null");
    printf(",\n  \"tensors\": [\n");
    for (size_t i = 0; i < c->count; i++) json_tensor(c, &c->pair[i]);
    printf("  ],\n  \"extra_tensors\": [");
    for (size_t i = 0, told = 0; i < c->other.count; i++) {
        if (c->other.item[i].taken) continue;
        if (told++) printf(", ");
        json_text(c->other.item[i].name);
    }
    printf("]\n}\n");
}

/* ---- HTML -------------------------------------------------------------------------------------------------------- */

enum { PLOT_W = 1000, PLOT_H = 300, PLOT_LEFT = 60, PLOT_RIGHT = 12, PLOT_TOP = 14, PLOT_FOOT = 34 };

static void html_text(FILE *file, const char *text)
{
    for (; *text; text++) switch (*text) {
        case '<': fputs("&lt;", file); break;
        case '>': fputs("&gt;", file); break;
        case '&': fputs("&amp;", file); break;
        case '"': fputs("&quot;", file); break;
        default: putc(*text, file);
        }
}

/* The axis' decades: from the smallest error to the largest, and the tolerances among them. */
typedef struct axis {
    int low, high;
} axis;

static double place_of(const axis *a, double x)
{
    const double at = (log10(x) - a->low) / (a->high - a->low);
    return PLOT_TOP + (1 - (at < 0 ? 0 : at > 1 ? 1 : at)) * (PLOT_H - PLOT_TOP - PLOT_FOOT);
}

/* What a tensor's error is drawn as: the root mean square, relative to REF's. Exact ones stand on the floor. */
static bool drawn(const pair *p, double *error)
{
    *error = p->measured && p->verdict != NOT_FINITE ? p->m.relative : HUGE_VAL;
    return p->measured;
}

static axis html_axis(const comparison *c)
{
    double low = 1e-7, high = 1e-6;
    for (size_t i = 0; i < c->count; i++) {
        double e;
        if (!drawn(&c->pair[i], &e) || !(e < 1e30) || !(e > 1e-30)) continue;
        low = e < low ? e : low;
        high = e > high ? e : high;
    }
    for (size_t i = 0; i < c->count; i++) {
        const double limit = limits_of(c->pair[i].ref->name, c->o.profile).relative;
        high = limit > high ? limit : high;
    }
    return (axis){(int)floor(log10(low)), (int)ceil(log10(high) + 1e-9)};
}

static double column_of(const comparison *c, size_t i)
{
    return PLOT_LEFT + ((double)i + 0.5) / (double)c->count * (PLOT_W - PLOT_LEFT - PLOT_RIGHT);
}

static void html_point(FILE *file, const comparison *c, const axis *a, size_t i)
{
    const pair *p = &c->pair[i];
    double e;
    if (!drawn(p, &e)) return;
    const bool bad = p->verdict != SAME;
    fprintf(file, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"%s\" fill=\"%s\"><title>", column_of(c, i),
            place_of(a, e > 0 ? e : 1e-300),
            p == c->first ? "5"
            : bad         ? "3"
                          : "1.6",
            bad ? "#c22" : "#27a");
    html_text(file, p->ref->name);
    fprintf(file, ": %.3g</title></circle>\n", e);
}

static void html_plot(FILE *file, const comparison *c)
{
    const axis a = html_axis(c);
    const bool given = c->o.absolute >= 0 || c->o.relative >= 0;
    fprintf(file, "<svg viewBox=\"0 0 %d %d\" role=\"img\" aria-label=\"error by tensor\">\n", PLOT_W, PLOT_H);
    for (int d = a.low; d <= a.high; d++) {
        const double y = place_of(&a, pow(10, d));
        fprintf(file,
                "<path d=\"M%d %.1fH%d\" stroke=\"#ddd\"/><text x=\"%d\" y=\"%.1f\" text-anchor=\"end\">1e%d</text>\n",
                PLOT_LEFT, y, PLOT_W - PLOT_RIGHT, PLOT_LEFT - 6, y + 4, d);
    }
    if (!given || c->o.relative > 0) {
        fputs("<polyline fill=\"none\" stroke=\"#e90\" stroke-width=\"1.5\" points=\"", file);
        for (size_t i = 0; i < c->count; i++)
            fprintf(file, "%.1f,%.1f ", column_of(c, i),
                    place_of(&a, given ? c->o.relative : limits_of(c->pair[i].ref->name, c->o.profile).relative));
        fputs("\"><title>tolerance</title></polyline>\n", file);
    }
    for (size_t i = 0; i < c->count; i++)
        if (&c->pair[i] != c->first) html_point(file, c, &a, i);
    if (c->first) {
        const size_t i = (size_t)(c->first - c->pair);
        fprintf(file, "<path d=\"M%.1f %dV%d\" stroke=\"#c22\" stroke-dasharray=\"4 3\"/>", column_of(c, i), PLOT_TOP,
                PLOT_H - PLOT_FOOT);
        html_point(file, c, &a, i);
    }
    fprintf(file,
            "<text x=\"%d\" y=\"%d\">tensors in order of execution; relative error, root mean square; orange: "
            "tolerance; red: above it"
            "</text>\n</svg>\n",
            PLOT_LEFT, PLOT_H - 10);
}

static void html_row(FILE *file, const comparison *c, const pair *p)
{
    static const char *const verdicts[] = {"same", "different", "not finite", "another shape", "missing"};
    char text[200];
    fprintf(file, "<tr%s><td>", p == c->first ? " class=\"first\"" : p->verdict == SAME ? "" : " class=\"bad\"");
    html_text(file, p->ref->name);
    fprintf(file, "</td><td>%s</td><td>%s</td>", shape_text(p->ref->entry, text), verdicts[p->verdict]);
    if (p->measured)
        fprintf(file, "<td>%.3g</td><td>%s</td><td>%.3g</td><td>%.9g</td><td>%.3g</td>", p->m.max_error,
                index_text(p->ref->entry, p->verdict == NOT_FINITE ? p->m.first_bad : p->m.at, text), p->m.relative,
                p->m.cosine, p->m.excess);
    fputs("</tr>\n", file);
}

static void html_head(FILE *file, const comparison *c)
{
    fputs("<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" "
          "content=\"width=device-width\">\n"
          "<title>compare</title>\n<style>body{font:15px/1.5 sans-serif;max-width:64rem;margin:2rem auto;padding:0 "
          "1rem;color:#222}"
          "svg{width:100%;font-size:12px}table{border-collapse:collapse;font-size:13px}td,th{padding:.1rem "
          ".6rem;text-align:right}"
          "td:first-child,th:first-child{text-align:left}tr.bad td{color:#c22}tr.first "
          "td{background:#fdd}pre{white-space:pre-wrap}"
          ".wide{overflow-x:auto}</style></head><body>\n<h1>",
          file);
    fputs(c->first ? "First wrong: " : differs(c) ? "Tensors are missing" : "Same within tolerance", file);
    if (c->first) html_text(file, c->first->ref->name);
    fputs("</h1>\n<p>", file);
    html_text(file, c->o.path[1]);
    fputs(" held against ", file);
    html_text(file, c->o.path[0]);
    fprintf(file, ": %zu tensors compared, %zu wrong, %zu missing; profile %s.</p>\n", c->compared, c->failed,
            c->missing, c->o.profile->name);
    if (!c->first) return;
    fputs("<pre>", file);
    html_text(file, c->diagnosis);
    fputs("</pre>\n", file);
}

/* One page that needs nothing else. */
static bool write_html(comparison *c)
{
    char partial[4096];
    if (strlen(c->o.html) > 4000) return flis_fail(&c->ctx, "%.100s...: the name is too long", c->o.html);
    snprintf(partial, sizeof partial, "%s.partial", c->o.html);
    FILE *file = fopen(partial, "wb");
    if (!file) return flis_fail(&c->ctx, "%s: cannot be written: %s", c->o.html, strerror(errno));
    html_head(file, c);
    if (c->count) html_plot(file, c);
    fputs("<div class=\"wide\"><table><tr><th>tensor</th><th>shape</th><th></th><th>largest "
          "error</th><th>at</th><th>relative</th><th>cosine</th>"
          "<th>times tolerance</th></tr>\n",
          file);
    for (size_t i = 0; i < c->count; i++) html_row(file, c, &c->pair[i]);
    fputs("</table></div>\n</body></html>\n", file);
    const bool good = !ferror(file);
    if (fclose(file) == 0 && good && (remove(c->o.html), rename(partial, c->o.html) == 0)) return true;
    remove(partial);
    return flis_fail(&c->ctx, "%s: cannot be written: %s", c->o.html, strerror(errno));
}

/* ---- main -------------------------------------------------------------------------------------------------------- */

static void comparison_free(comparison *c)
{
    side_close(&c->ref);
    side_close(&c->other);
    free(c->pair);
    flis_free(&c->ctx);
}

int main(int argc, char **argv)
{
    static comparison c; /* zero */
    c.o = (options){.profile = &profiles[0], .absolute = -1, .relative = -1};
    int status = parse_arguments(&c.o, argc, argv);
    if (status) return status;
    if (c.o.help) fputs(HELP, stdout);
    else if (c.o.version) puts("compare " FLIS_VERSION);
    else {
        bool done = flis_init(&c.ctx) && pairs_make(&c) && measure_all(&c);
        if (done && c.first && (!c.o.quiet || c.o.html)) diagnose(&c);
        if (done && c.o.html) done = write_html(&c);
        if (done && flis_ok(&c.ctx)) {
            status = differs(&c);
            if (c.o.json && !c.o.quiet) print_json(&c);
            else if (!c.o.quiet) print_table(&c);
        } else status = trouble("%s", c.ctx.error);
        comparison_free(&c);
    }
    if (fflush(stdout) != 0 || ferror(stdout)) return trouble("standard output: %s", strerror(errno));
    return status;
}
