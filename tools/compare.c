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

   relative: rms error / rms of the reference. largest: largest error / largest value of the reference. Both must hold.
   Integers must be equal.

   Measured (worst tensor of all), tinyB, 16 x 16 latents, `flis64 noise`: every operation's result rounded to the format,
   against the truth in double:
            relative                                      largest
     f32    4.1e-7  (unet …output_blocks.10 attn1.scores)  6.8e-7 (attn1.scores)
     tf32   2.6e-3  (…output_blocks.7 attn1.weights)       6.1e-3 (attn2.weights)
     fp16   3.5e-3  (middle_block attn1.scores)            4.5e-3 (attn2.weights)
     bf16   2.9e-2  (…output_blocks.10 attn1.scores)       5.2e-2 (attn2.weights)
   and PyTorch's own float32 against flis (tests/golden: U-Net, autoencoder, text encoder): largest 6.5e-6, in time_embed,
   which PyTorch computes with float32 angles. Margin: 2 for the emulated formats; f32 takes PyTorch's figures times 1.5. */
typedef struct profile { const char *name; double relative, largest; } profile;
static const profile profiles[] = {
    {"f32", 1e-5, 1e-5},
    {"tf32", 5e-3, 1.2e-2},
    {"fp16", 7e-3, 1.2e-2},
    {"bf16", 6e-2, 1.1e-1},
};
enum { PROFILES = sizeof profiles / sizeof *profiles };

/* Beyond this a value stands for "closed" (-max before a softmax): equal when both files have one of the same sign. */
static const double CLOSED = 1e30;

/* ---- Options ----------------------------------------------------------------------------------------------------- */

typedef struct options {
    const profile *profile;
    double absolute, relative;          /* --tolerance, --relative; negative: not given */
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
    "  --map FILE          lines \"other ref\": what OTHER calls REF's tensors; one * in each stands for the same text\n"
    "  --allow-missing     a tensor that OTHER lacks is no difference\n"
    "  --all               list every tensor, not only those that differ\n"
    "  --json              the result as JSON on stdout\n"
    "  --html FILE         the result as one page, with a plot of error by layer\n"
    "  -q, --quiet         exit status alone\n"
    "  -h, --help, --version\n\n"
    "Names are equal with or without model., model.diffusion_model., first_stage_model. and the like, and (where that is\n"
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
    static const char *const valued[] = {"--profile", "--tolerance", "--relative", "--match", "--map", "--html",
                                         "--ref-prefix", "--other-prefix"};
    enum { PROFILE, TOLERANCE, RELATIVE, MATCH, MAP, HTML, REF_PREFIX, OTHER_PREFIX, VALUED };
    const char *arg = argv[*i];
    const size_t length = strcspn(arg, "=");
    int which = 0;
    while (which < VALUED && (strlen(valued[which]) != length || strncmp(arg, valued[which], length) != 0)) which++;
    if (which == VALUED) {
        bool *flag = strcmp(arg, "--allow-missing") == 0 ? &o->allow_missing
                     : strcmp(arg, "--all") == 0         ? &o->all
                     : strcmp(arg, "--json") == 0        ? &o->json
                     : strcmp(arg, "--quiet") == 0 || strcmp(arg, "-q") == 0 ? &o->quiet
                     : strcmp(arg, "--help") == 0 || strcmp(arg, "-h") == 0  ? &o->help
                     : strcmp(arg, "--version") == 0     ? &o->version : NULL;
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
    static const char *const prefixes[] = {"module.", "_orig_mod.", "model.", "diffusion_model.", "unet.", "first_stage_model.",
                                           "vae.", "cond_stage_model.", "text_encoder.", "transformer.", "text_model."};
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

typedef struct side {                   /* one file's tensors that take part, in order of execution */
    flis_file *file;
    size_t count;
    struct named { const flis_entry *entry; char *name; size_t order; bool taken; } *item;
    bool by_name;                       /* the file is sorted by name: its order is no order of execution */
} side;

/* How a pair ended. */
typedef enum { SAME, DIFFERENT, NOT_FINITE, SHAPE, MISSING } verdict;

typedef struct measures {
    uint64_t count;
    uint64_t bad_ref, bad_other, first_bad;     /* values that are NaN or infinite, in either; where the first stands */
    double largest, rms;                /* of the reference: largest |value|, root mean square */
    double max_error; uint64_t at;      /* the largest error and where */
    double ref_at, other_at;
    double rms_error, relative, cosine;
    double ulp;                         /* median distance in units of the coarser format's last place; NaN: integers */
    double excess;                      /* error as a multiple of the tolerance: above 1 fails */
} measures;

typedef struct pair {
    const struct named *ref, *other;    /* other NULL: missing */
    bool measured;
    verdict verdict;
    measures m;
} pair;

typedef struct comparison {
    flis_ctx ctx;
    options o;
    side ref, other;
    size_t count;
    pair *pair;                         /* REF's tensors in order of execution */
    size_t compared, failed, missing, extra, reshaped, recast, not_finite;
    const pair *first;                  /* the first that differs; NULL: none */
    const char *order;                  /* where the order came from, when not from REF's file */
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
    static const char *const words[] = {
        "in", "ids", "label", "class_ids", "context", "uncond", "x_T", "t", "x", "z", "step", "next", "cond", "clip", "unet",
        "decode", "encode", "embeddings", "time_embed", "input_blocks", "middle_block", "output_blocks", "in_layers",
        "emb_layers", "out_layers", "skip_connection", "post_quant_conv", "encoder", "decoder", "quant_conv", "conv_in",
        "down", "mid", "up", "block_1", "attn_1", "block_2", "block", "attn", "downsample", "upsample", "layers",
        "layer_norm1", "self_attn", "layer_norm2", "mlp", "norm", "proj_in", "transformer_blocks", "norm1", "attn1", "norm2",
        "attn2", "norm3", "ff", "to_q", "to_k", "to_v", "q_proj", "k_proj", "v_proj", "q", "k", "v", "scores", "mask",
        "weights", "to_out", "out_proj", "fc1", "fc2", "conv1", "conv2", "nin_shortcut", "proj", "proj_out", "norm_out",
        "conv_out", "out", "final_layer_norm", "last_hidden_state", "eps", "e_t", "pred_x0", "x_prev", "latents", "moments",
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
    return *a ? -1 : *b ? 1 : 0;        /* parts before the whole */
}

static int by_offset(const void *a, const void *b)
{
    const struct named *x = a, *y = b;
    if (x->entry->shard != y->entry->shard) return x->entry->shard < y->entry->shard ? -1 : 1;
    if (x->entry->begin != y->entry->begin) return x->entry->begin < y->entry->begin ? -1 : 1;
    return strcmp(x->name, y->name);    /* empty tensors share a place */
}

static int by_path(const void *a, const void *b)
{
    const struct named *x = a, *y = b;
    const int order = path_order(behind_model(x->name), behind_model(y->name));
    return order ? order : strcmp(x->name, y->name);
}

/* "other ref" lines, the first that fits. One * in each: what it stood for in other's name goes into ref's. */
typedef struct rename_map { size_t count; struct { char *from, *to; } *line; char *text; } rename_map;

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
        if (length < head + tail || strncmp(name, from, head) != 0 || strcmp(name + length - tail, star + 1) != 0) continue;
        char *out = flis_alloc(ctx, strlen(to) + length, 1);
        if (out)
            sprintf(out, "%.*s%.*s%s", (int)(hole - to), to, (int)(length - head - tail), name + head, hole + 1);
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

static bool side_open(flis_ctx *ctx, side *s, const char *path, const char *prefix, const char *match, const rename_map *map)
{
    if (!(s->file = flis_file_open(ctx, path))) return false;
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

typedef struct keyed { const char *key; size_t index; } keyed;
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
        return flis_fail(&c->ctx, "%s: none of its %zu tensors has a name of %s's (see --map)", o->path[1], c->other.count,
                         o->path[0]);
    if (c->ref.by_name && !c->other.by_name) {
        qsort(c->pair, c->count, sizeof *c->pair, by_other_order);
        c->order = "OTHER's file (REF's is sorted by name)";
    } else if (c->ref.by_name)
        c->order = "the modules' paths (both files are sorted by name)";
    for (size_t i = 0; i < c->other.count; i++)     /* behind --match, only what would have matched is told */
        if (!c->other.item[i].taken && o->match && !glob(o->match, c->other.item[i].name)) c->other.item[i].taken = true;
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
static void measure_values(measures *m, const double *r, const double *o, flis_dtype format, bool floats, uint64_t *counts)
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
static double excess_of(const options *o, const measures *m, bool floats)
{
    const bool given = o->absolute >= 0 || o->relative >= 0;
    if (given)
        return fmax(o->absolute >= 0 ? ratio(m->max_error, o->absolute) : 0,
                    o->relative >= 0 ? ratio(m->relative, o->relative) : 0);
    if (!floats) return ratio(m->max_error, 0);
    return fmax(ratio(m->relative, o->profile->relative), ratio(m->max_error, o->profile->largest * m->largest));
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

static bool measure(comparison *c, pair *p, uint64_t *counts)
{
    if (!p->other) {
        p->verdict = MISSING;
        return true;
    }
    const flis_entry *r = p->ref->entry, *o = p->other->entry;
    p->m.count = flis_entry_count(r);
    p->verdict = SHAPE;
    if (!shapes_agree(r, o, false)) return true;
    double *a = read_values(c, &c->ref, r), *b = a ? read_values(c, &c->other, o) : NULL;
    if (b) {
        const bool floats = !is_integer(r->dtype) && !is_integer(o->dtype);
        measure_values(&p->m, a, b, coarser(r->dtype, o->dtype), floats, counts);
        p->m.excess = excess_of(&c->o, &p->m, !is_integer(r->dtype));
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

/* ---- Table ------------------------------------------------------------------------------------------------------- */

enum { NAME_WIDTH = 37, AT_WIDTH = 15 };

typedef struct paint { const char *bad, *good, *dim, *strong, *off; } paint;

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
        printf("%7.1e %-*s %7.1e %7.1e %7.1e %6s %6s", m->max_error, AT_WIDTH, index_text(p->ref->entry, m->at, at), m->rms_error,
               m->relative, 1 - m->cosine, ulp, excess_text(m->excess, times));
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
            printf("dtype: %zu tensor%s %s where REF has %s: ", count, count > 1 ? "s" : "", flis_dtype_name((flis_dtype)b),
                   flis_dtype_name((flis_dtype)a));
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
    } else
        printf("; profile %s", o->profile->name);
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
        printf("\n  largest error %.3g at %s: got %.9g, wanted %.9g", p->m.max_error, index_text(p->ref->entry, p->m.at, at),
               p->m.other_at, p->m.ref_at);
    printf("\n%s", c->diagnosis);
}

static void print_table(const comparison *c)
{
    const paint color = paints();
    if (c->o.all || c->failed)
        printf("%s  %-*s %7s %-*s %7s %7s %7s %6s %6s%s\n", color.dim, NAME_WIDTH, "tensor", "max err", AT_WIDTH, "at", "rms err",
               "rel err", "1-cos", "ulp", "x tol", color.off);
    for (size_t i = 0; i < c->count; i++)
        if (c->pair[i].verdict != MISSING && (c->o.all || c->pair[i].verdict != SAME)) print_row(&c->pair[i], &color);
    print_lists(c);
    print_dtypes(c);
    print_summary(c, &color);
    print_first(c, &color);
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
    static comparison c;                /* zero */
    c.o = (options){.profile = &profiles[0], .absolute = -1, .relative = -1};
    int status = parse_arguments(&c.o, argc, argv);
    if (status) return status;
    if (c.o.help) fputs(HELP, stdout);
    else if (c.o.version) puts("compare " FLIS_VERSION);
    else {
        if (flis_init(&c.ctx) && pairs_make(&c) && measure_all(&c)) {
            status = differs(&c);
            if (!c.o.quiet) print_table(&c);
        } else
            status = trouble("%s", c.ctx.error);
        comparison_free(&c);
    }
    if (fflush(stdout) != 0 || ferror(stdout)) return trouble("standard output: %s", strerror(errno));
    return status;
}
