/* golden - writes the conformance vectors: what a port of FreestyleNet must compute, one vector per operation, stage
 * and rule that is easy to get wrong, each with the mistake that it catches.
 *
 *   golden DIR             manifest.json, inputs.safetensors and outputs.safetensors, the same bytes on every machine
 *   golden --answers FILE  flis' own answers alone, as a port would hand them to `flis conformance`
 *
 * Inputs and weights are formulas of their names (SPEC 11.1), so that a port needs nothing but the manifest;
 * inputs.safetensors holds them all the same. Tensors in files are in PyTorch's order. Where a vector fails, its
 * answers are missing and the others are there.
 *
 * In order: growing text and lists of tensors; the manifest as it is written; inputs; outputs; the vectors by subject.
 */
#include "flis.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- What is gathered -------------------------------------------------------------------------------------------- */

typedef struct text {
    char *at;
    size_t length, room;
} text;

/* A tensor on its way to a file, in the order that files have. */
typedef struct tensor {
    char *name;
    flis_dtype dtype;
    int rank;
    uint64_t shape[4];
    size_t count;
    double *number; /* floating types */
    int64_t *whole; /* I64, U8 */
} tensor;

typedef struct list {
    tensor *item;
    size_t count, room;
} list;

enum { MAX_PARAMS = 16, NAME = 160 };
typedef struct golden {
    flis_ctx all; /* for what outlasts a vector: its error ends the run */
    flis_ctx ctx; /* of the vector at hand */
    list inputs, outputs,
        traced; /* traced: intermediates of the network that ran last, for the vectors to choose from */
    text manifest, given, in, out; /* the vector's JSON, in pieces */
    const char *id;
    size_t vectors, failed, outputs_before;
    flis_param param[MAX_PARAMS];
    size_t params;
    bool refusing; /* a refused vector has no sentence of failure */
} golden;

static void put(golden *g, text *t, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    const int length = vsnprintf(NULL, 0, format, args);
    va_end(args);
    if (length < 0 || !flis_ok(&g->all)) return;
    if (t->room - t->length <= (size_t)length) {
        const size_t room = 2 * t->room + (size_t)length + 256;
        char *larger = flis_alloc(&g->all, room, 1);
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

static void put_string(golden *g, text *t, const char *string)
{
    put(g, t, "\"");
    for (const unsigned char *s = (const unsigned char *)string; *s; s++) {
        if (*s == '"' || *s == '\\') put(g, t, "\\%c", *s);
        else if (*s < ' ') put(g, t, "\\u%04x", (unsigned)*s);
        else put(g, t, "%c", *s);
    }
    put(g, t, "\"");
}

static void put_shape(golden *g, text *t, const tensor *x)
{
    put(g, t, "\"shape\": [");
    for (int i = 0; i < x->rank; i++) put(g, t, "%s%llu", i ? "," : "", (unsigned long long)x->shape[i]);
    put(g, t, "]");
}

static bool is_whole(flis_dtype dtype)
{
    return dtype == FLIS_I64 || dtype == FLIS_U8;
}

static const tensor *find(const list *l, const char *name)
{
    for (size_t i = 0; i < l->count; i++)
        if (strcmp(l->item[i].name, name) == 0) return &l->item[i];
    return NULL;
}

/* Adds a tensor with zeros for values; NULL: out of memory. */
static tensor *add(golden *g, list *l, const char *name, flis_dtype dtype, int rank, const size_t *shape)
{
    if (l->count == l->room) {
        const size_t room = l->room ? 2 * l->room : 64;
        tensor *item = flis_alloc(&g->all, room, sizeof *item);
        if (!item) return NULL;
        if (l->count) memcpy(item, l->item, l->count * sizeof *item);
        free(l->item);
        l->item = item;
        l->room = room;
    }
    tensor x = {.dtype = dtype, .rank = rank, .count = 1};
    for (int i = 0; i < rank; i++) {
        x.shape[i] = shape[i];
        x.count *= shape[i];
    }
    x.name = flis_alloc(&g->all, strlen(name) + 1, 1);
    if (is_whole(dtype)) x.whole = flis_alloc(&g->all, x.count + 1, sizeof *x.whole);
    else x.number = flis_alloc(&g->all, x.count + 1, sizeof *x.number);
    if (!flis_ok(&g->all)) {
        free(x.name);
        return NULL;
    }
    strcpy(x.name, name);
    l->item[l->count] = x;
    return &l->item[l->count++];
}

static void drop(list *l, size_t count)
{
    while (l->count > count) {
        tensor *x = &l->item[--l->count];
        free(x->name);
        free(x->number);
        free(x->whole);
    }
    if (count) return;
    free(l->item);
    *l = (list){0};
}

/* ---- One vector -------------------------------------------------------------------------------------------------- */

/* item: of what is easy to get wrong (ITEMS), 0: none; section: of SPEC.md. */
static void begin(golden *g, const char *id, int item, const char *section, const char *what, const char *catches)
{
    flis_init(&g->ctx);
    g->id = id;
    g->outputs_before = g->outputs.count;
    g->given.length = g->in.length = g->out.length = g->params = 0;
    g->refusing = false;
    put(g, &g->manifest, "%s\n    {\"id\": \"%s\", \"spec\": \"%s\", ", g->vectors++ ? "," : "", id, section);
    if (item) put(g, &g->manifest, "\"item\": %d, ", item);
    put(g, &g->manifest, "\n     \"what\": ");
    put_string(g, &g->manifest, what);
    put(g, &g->manifest, ",\n     \"catches\": ");
    put_string(g, &g->manifest, catches);
}

/* What the vector is given beside tensors, as members of a JSON object. */
static void given(golden *g, const char *key, const char *format, ...)
{
    char value[2000];
    va_list args;
    va_start(args, format);
    vsnprintf(value, sizeof value, format, args);
    va_end(args);
    put(g, &g->given, "%s\"%s\": %s", g->given.length ? ", " : "", key, value);
}

static void given_string(golden *g, const char *key, const char *string)
{
    put(g, &g->given, "%s\"%s\": ", g->given.length ? ", " : "", key);
    put_string(g, &g->given, string);
}

static void end(golden *g)
{
    if (g->given.length) put(g, &g->manifest, ",\n     \"given\": {%s}", g->given.at);
    if (g->in.length) put(g, &g->manifest, ",\n     \"inputs\": [%s]", g->in.at);
    put(g, &g->manifest, ",\n     \"outputs\": [%s]}", g->out.length ? g->out.at : "");
    if (!flis_ok(&g->ctx)) {
        fprintf(stderr, "golden: %s: %s\n", g->id, g->ctx.error);
        drop(&g->outputs, g->outputs_before);
        g->failed++;
    }
    flis_ctx calm = {.threads = 1}; /* a failed context would not free */
    for (size_t i = 0; i < g->params; i++) flis_free_visit(&calm, NULL, NULL, &g->param[i]);
    flis_free(&g->ctx);
}

/* A name with a slash is shared between vectors; any other belongs to this one. */
static const char *full_name(const golden *g, const char *name, char out[NAME])
{
    if (strchr(name, '/')) snprintf(out, NAME, "%s", name);
    else snprintf(out, NAME, "%s/%s", g->id, name);
    return out;
}

/* ---- Inputs ------------------------------------------------------------------------------------------------------ */

static const size_t UNIT[2] = {1, 3}; /* fan_in 3: the formula's scale is 1 */

/* Lists an input, and keeps it where it is new; the caller fills it. */
static tensor *input(golden *g, const char *name, flis_dtype dtype, int rank, const size_t *shape, const char *rule)
{
    char full[NAME];
    const tensor *old = find(&g->inputs, full_name(g, name, full));
    tensor *x = old ? &g->inputs.item[old - g->inputs.item] : add(g, &g->inputs, full, dtype, rank, shape);
    if (!x) return NULL;
    put(g, &g->in, "%s\n       {\"name\": \"%s\", \"dtype\": \"%s\", ", g->in.length ? "," : "", full,
        flis_dtype_name(dtype));
    put_shape(g, &g->in, x);
    put(g, &g->in, ", \"rule\": ");
    put_string(g, &g->in, rule);
    put(g, &g->in, "}");
    return x;
}

/* u(name, i) * scale in the order of files; out has room for the values. */
static void real_input(golden *g, const char *name, int rank, const size_t *shape, double scale, flis_real *out)
{
    char rule[48];
    snprintf(rule, sizeof rule, scale == 1 ? "u" : scale > 1 ? "u * %g" : "u / %g", scale > 1 ? scale : 1 / scale);
    tensor *x = input(g, name, FLIS_F32, rank, shape, rule);
    if (!x || !out) return;
    flis_formula_weights(x->name, 2, UNIT, 0, x->count, out);
    for (size_t i = 0; i < x->count; i++) x->number[i] = (double)(out[i] = (flis_real)((double)out[i] * scale));
}

/* scale: a power of two. */
static flis_tensor *image_input(golden *g, const char *name, size_t n, size_t c, size_t h, size_t w, double scale)
{
    const size_t shape[4] = {n, c, h, w};
    flis_real *values = flis_alloc(&g->ctx, n * c * h * w, sizeof *values);
    real_input(g, name, 4, shape, scale, values);
    flis_tensor *x = flis_from_nchw(&g->ctx, values, n, c, h, w);
    free(values);
    return x;
}

static flis_tensor *rows_input(golden *g, const char *name, size_t n, size_t t, size_t c, double scale)
{
    const size_t shape[3] = {n, t, c};
    flis_tensor *x = flis_rows(&g->ctx, n, t, c);
    if (x) real_input(g, name, 3, shape, scale, x->x);
    return x;
}

/* A weight, by the rule for weights. */
static flis_param *weight(golden *g, const char *name, int rank, size_t a, size_t b, size_t size, bool table)
{
    const size_t shape[4] = {a, b, size, size};
    flis_param *p = &g->param[g->params++];
    *p = (flis_param){.rank = rank, .shape = {a, b, size, size}, .table = table};
    for (int i = rank; i < 4; i++) p->shape[i] = 0;
    tensor *x = input(g, name, FLIS_F32, rank, shape, "formula weights");
    flis_real *values = x ? flis_alloc(&g->ctx, x->count, sizeof *values) : NULL;
    if (values) {
        flis_formula_weights(x->name, rank, shape, 0, x->count, values);
        for (size_t i = 0; i < x->count; i++) x->number[i] = (double)values[i];
        flis_param_set(&g->ctx, p, values, false);
    }
    free(values);
    return p;
}

static void whole_input(golden *g, const char *name, flis_dtype dtype, int rank, const size_t *shape, const char *rule,
                        const int64_t *values)
{
    tensor *x = input(g, name, dtype, rank, shape, rule);
    for (size_t i = 0; x && i < x->count; i++) x->whole[i] = values[i];
}

/* ---- Outputs ----------------------------------------------------------------------------------------------------- */

/* Tolerances are given in units of 2^-24 of the output's largest value, and written as numbers of two digits. */
static void tolerance_of(const tensor *x, double units, char out[32])
{
    double largest = 0;
    for (size_t i = 0; i < x->count; i++)
        if (fabs(x->number[i]) > largest) largest = fabs(x->number[i]);
    snprintf(out, 32, "%.1e", units * 0x1p-24 * (largest > 0 ? largest : 1));
}

/* judgement: JSON that says how the output is judged; NULL: by `units`. */
static tensor *output(golden *g, const char *name, flis_dtype dtype, int rank, const size_t *shape)
{
    char full[NAME];
    return flis_ok(&g->ctx) ? add(g, &g->outputs, full_name(g, name, full), dtype, rank, shape) : NULL;
}

static void list_output(golden *g, const tensor *x, double units, const char *judgement)
{
    char tolerance[32];
    put(g, &g->out, "%s\n       {\"name\": \"%s\", \"dtype\": \"%s\", ", g->out.length ? "," : "", x->name,
        flis_dtype_name(x->dtype));
    put_shape(g, &g->out, x);
    if (!judgement) tolerance_of(x, units, tolerance);
    if (judgement) put(g, &g->out, ", %s}", judgement);
    else put(g, &g->out, ", \"tolerance\": %s, \"units\": %g}", tolerance, units);
}

static const char EXACT[] = "\"exact\": true";

static void real_output(golden *g, const char *name, int rank, const size_t *shape, const flis_real *values,
                        double units)
{
    tensor *x = output(g, name, sizeof(flis_real) == 8 ? FLIS_F64 : FLIS_F32, rank, shape);
    if (!x) return;
    for (size_t i = 0; i < x->count; i++) x->number[i] = (double)values[i];
    list_output(g, x, units, NULL);
}

static void float_output(golden *g, const char *name, size_t count, const float *values, double units)
{
    tensor *x = output(g, name, FLIS_F32, 1, &count);
    if (!x) return;
    for (size_t i = 0; i < count; i++) x->number[i] = (double)values[i];
    list_output(g, x, units, units > 0 ? NULL : EXACT);
}

static void double_output(golden *g, const char *name, size_t count, const double *values, const char *judgement)
{
    tensor *x = output(g, name, FLIS_F64, 1, &count);
    if (!x) return;
    memcpy(x->number, values, count * sizeof *values);
    list_output(g, x, 0, judgement);
}

static void whole_output(golden *g, const char *name, int rank, const size_t *shape, const int64_t *values)
{
    tensor *x = output(g, name, FLIS_I64, rank, shape);
    if (!x) return;
    memcpy(x->whole, values, x->count * sizeof *values);
    list_output(g, x, 0, EXACT);
}

static void byte_output(golden *g, const char *name, int rank, const size_t *shape, const uint8_t *values,
                        const char *judgement)
{
    tensor *x = output(g, name, FLIS_U8, rank, shape);
    if (!x) return;
    for (size_t i = 0; i < x->count; i++) x->whole[i] = values[i];
    list_output(g, x, 0, judgement);
}

/* Shape and values of an activation as files have them. */
static int file_shape(const flis_tensor *x, size_t shape[4])
{
    shape[0] = x->n;
    shape[1] = x->rank == 3 ? x->h * x->w : x->c;
    shape[2] = x->rank == 3 ? x->c : x->h;
    shape[3] = x->w;
    return x->rank;
}

static void tensor_output(golden *g, const char *name, const flis_tensor *x, double units)
{
    size_t shape[4];
    if (!x || !flis_ok(&g->ctx)) return;
    flis_real *values = flis_alloc(&g->ctx, flis_count(x), sizeof *values);
    if (!values) return;
    if (x->rank == 4) flis_to_nchw(x, values);
    else memcpy(values, x->x, flis_count(x) * sizeof *values);
    real_output(g, name, file_shape(x, shape), shape, values, units);
    free(values);
}

/* The call before must have been refused: the answer is 1. The manifest has flis' sentence; a port may have another. */
static void refusal_output(golden *g, const char *kind)
{
    const size_t one = 1;
    const uint8_t refused = !flis_ok(&g->ctx);
    char sentence[sizeof g->ctx.error];
    memcpy(sentence, g->ctx.error, sizeof sentence);
    g->ctx.error[0] = 0;
    byte_output(g, "refused", 1, &one, &refused, EXACT);
    put(g, &g->given, "%s\"refusal\": \"%s\", \"sentence\": ", g->given.length ? ", " : "", kind);
    put_string(g, &g->given, sentence);
}

/* ---- Operations -------------------------------------------------------------------------------------------------- */

static void linear_vectors(golden *g)
{
    begin(g, "op.linear", 20, "1.3",
          "y[i,o] = sum over k of x[i,k] w[o,k], + b[o]; k runs over more than one block of 256",
          "a bias that is left out, a matrix that is transposed, 16-bit arithmetic");
    flis_tensor *x = rows_input(g, "x", 2, 5, 300, 1);
    flis_param *w = weight(g, "weight", 2, 40, 300, 0, false), *b = weight(g, "bias", 1, 40, 0, 0, false);
    tensor_output(g, "y", flis_linear(&g->ctx, x, w, b, NULL), 64);
    end(g);
}

static void conv_vector(golden *g, const char *id, int item, const char *what, const char *catches, size_t size,
                        flis_conv_kind kind)
{
    begin(g, id, item, "1.3", what, catches);
    flis_tensor *x = image_input(g, "x", 1, 8, 6, 10, 1);
    flis_param *w = weight(g, "weight", 4, 12, 8, size, false), *b = weight(g, "bias", 1, 12, 0, 0, false);
    tensor_output(g, "y", flis_conv(&g->ctx, x, w, b, kind, NULL), 64);
    end(g);
}

static void conv_vectors(golden *g)
{
    conv_vector(
        g, "op.conv.same", 0, "3x3, stride 1, one zero on every side",
        "a kernel that is flipped (convolution instead of correlation) or transposed, edges repeated instead of zero",
        3, FLIS_SAME);
    conv_vector(g, "op.conv.1x1", 0, "1x1: a linear layer at every place", "H and W swapped on the way", 1, FLIS_SAME);
    conv_vector(g, "op.conv.down-both", 17, "3x3, stride 2, one zero on every side: the U-Net's downsample",
                "the autoencoder's padding (0,1,0,1), which shifts by a pixel", 3, FLIS_STRIDE2);
    conv_vector(g, "op.conv.down-after", 17, "3x3, stride 2, one zero right and below: the encoder's downsample",
                "zeros on every side, which shifts by a pixel", 3, FLIS_STRIDE2_ASYMMETRIC);
    conv_vector(g, "op.conv.upsampled", 17, "each value becomes 2x2 (nearest), then 3x3 with one zero on every side",
                "an enlargement that is shifted by one, or interpolated", 3, FLIS_UPSAMPLE2);
}

static void norm_vector(golden *g, const char *id, const char *what, const char *catches, double eps, bool silu)
{
    begin(g, id, 7, "1.9", what, catches);
    given(g, "groups", "32");
    given(g, "eps", "%g", eps);
    given(g, "silu", silu ? "true" : "false");
    flis_tensor *x = image_input(g, "x", 2, 64, 3, 5, 0x1p-7);
    flis_param *gain = weight(g, "weight", 1, 64, 0, 0, false), *bias = weight(g, "bias", 1, 64, 0, 0, false);
    tensor_output(g, "y", flis_group_norm(&g->ctx, x, gain, bias, eps, silu), 64);
    end(g);
}

static void norm_vectors(golden *g)
{
    norm_vector(g, "op.group-norm", "32 groups of neighbouring channels, eps inside the root, on small values",
                "another eps, groups of channels that are 32 apart, the variance divided by n - 1", 1e-5, false);
    norm_vector(g, "op.group-norm.silu", "the same with the other eps, then SiLU", "SiLU left out, another eps", 1e-6,
                true);
    begin(g, "op.layer-norm", 7, "1.10", "over the channels of each token, eps 1e-5, on small values",
          "eps 1e-6 or 1e-12, statistics over all tokens");
    flis_tensor *x = rows_input(g, "x", 1, 7, 48, 0x1p-7);
    flis_param *gain = weight(g, "weight", 1, 48, 0, 0, false), *bias = weight(g, "bias", 1, 48, 0, 0, false);
    tensor_output(g, "y", flis_layer_norm(&g->ctx, x, gain, bias), 64);
    end(g);
}

static void activation_vectors(golden *g)
{
    begin(g, "op.silu", 0, "1.8", "x sigmoid(x) for x in (-8, 8)", "x sigmoid(1.702 x), ReLU");
    tensor_output(g, "y", flis_silu(&g->ctx, rows_input(g, "x", 1, 8, 32, 8)), 16);
    end(g);
    begin(g, "op.quick-gelu", 8, "1.8", "x sigmoid(1.702 x) for x in (-8, 8): CLIP's", "SiLU, exact GELU");
    tensor_output(g, "y", flis_quick_gelu(&g->ctx, rows_input(g, "x", 1, 8, 32, 8)), 16);
    end(g);
    begin(g, "op.geglu", 8, "1.8", "the first half times the erf GELU of the second, for values in (-4, 4)",
          "the halves swapped, tanh GELU (off by 5e-4), quick GELU");
    tensor_output(g, "y", flis_geglu(&g->ctx, rows_input(g, "x", 1, 8, 64, 4)), 16);
    end(g);
}

static void move_vectors(golden *g)
{
    begin(g, "op.add", 0, "1.4", "a + b", "a residual that is left out");
    flis_tensor *a = image_input(g, "a", 1, 4, 3, 5, 1), *b = image_input(g, "b", 1, 4, 3, 5, 1);
    tensor_output(g, "y", flis_add(&g->ctx, a, b), 4);
    end(g);
    begin(g, "op.add-to-all", 0, "1.4", "v [n,c] added at every place of x [n,c,h,w]",
          "a vector added along another axis");
    flis_tensor *x = image_input(g, "x", 2, 4, 4, 4, 1), *v = rows_input(g, "v", 2, 1, 4, 1);
    tensor_output(g, "y", flis_add_to_all(&g->ctx, x, v), 4);
    end(g);
    begin(g, "op.scale", 18, "1.4", "x times float32(1 / 0.18215) = 5.4899807", "a division by the factor left out");
    tensor_output(g, "y", flis_scale(&g->ctx, image_input(g, "x", 1, 4, 3, 5, 1), (double)(float)(1.0 / 0.18215)), 8);
    end(g);
    begin(g, "op.concat", 19, "1.4", "channels of h, then channels of skip", "the skip before h");
    flis_tensor *h = image_input(g, "h", 1, 4, 3, 5, 1), *skip = image_input(g, "skip", 1, 4, 3, 5, 1);
    tensor_output(g, "y", flis_concat(&g->ctx, h, skip), 1);
    end(g);
    begin(g, "op.embed", 9, "3.2", "row ids[t] of the token table plus row t of the positions",
          "positions left out, or counted from 1");
    static const int64_t ids64[6] = {4, 0, 9, 9, 2, 7};
    const int32_t ids[6] = {4, 0, 9, 9, 2, 7};
    const size_t shape[2] = {2, 3};
    whole_input(g, "ids", FLIS_I64, 2, shape, "[[4, 0, 9], [9, 2, 7]]", ids64);
    flis_param *token = weight(g, "token.weight", 2, 10, 16, 0, true),
               *position = weight(g, "position.weight", 2, 77, 16, 0, true);
    /* A text has 77 tokens: the first three of each are told. */
    int32_t padded[2 * FLIS_TOKENS] = {0};
    for (int i = 0; i < 6; i++) padded[i / 3 * FLIS_TOKENS + i % 3] = ids[i];
    flis_tensor *y = flis_embed(&g->ctx, padded, 2, token, position), *few = flis_rows(&g->ctx, 2, 3, 16);
    for (size_t i = 0; y && few && i < 96; i++) few->x[i] = y->x[i / 48 * FLIS_TOKENS * 16 + i % 48];
    tensor_output(g, "y", few, 4);
    end(g);
}

static void attention_vector(golden *g, const char *id, int item, const char *what, const char *catches, bool causal,
                             const uint8_t *open)
{
    const size_t queries = 6, keys = causal ? 6 : 9;
    begin(g, id, item, "1.11", what, catches);
    given(g, "heads", "2");
    given(g, "scale", "0.25");
    given(g, "causal", causal ? "true" : "false");
    flis_tensor *q = rows_input(g, "q", 1, queries, 32, 4), *k = rows_input(g, "k", 1, keys, 32, 4);
    flis_tensor *v = rows_input(g, "v", 1, keys, 32, 1);
    if (open) {
        const size_t shape[2] = {queries, keys};
        int64_t whole[54];
        for (size_t i = 0; i < queries * keys; i++) whole[i] = open[i];
        whole_input(g, "open", FLIS_U8, 2, shape, "1 open, 0 closed: (i + 2 j) mod 3 != 0, and nothing in row 2",
                    whole);
    }
    tensor_output(g, "y", flis_attention(&g->ctx, q, k, v, 2, 0.25, (flis_mask){causal, open ? &open : NULL}), 256);
    end(g);
}

static void attention_vectors(golden *g)
{
    uint8_t open[54];
    for (size_t i = 0; i < 54; i++) open[i] = i / 9 != 2 && (i / 9 + 2 * (i % 9)) % 3 != 0;
    attention_vector(g, "op.attention", 16, "softmax(scale q k^T) v, two heads side by side in the channels",
                     "no scale, heads interleaved instead of side by side, softmax over the queries", false, NULL);
    attention_vector(g, "op.attention.causal", 9, "key j is open to query i where j <= i",
                     "no causal mask, or one that hides i itself", true, NULL);
    attention_vector(g, "op.attention.masked", 2,
                     "closed scores are -max(float) before softmax; a row with nothing open weighs all keys equally",
                     "a mask applied after softmax, closed scores of -1 or 0, NaN in a row of closed scores", false,
                     open);
}

static void time_vector(golden *g)
{
    static const double t[3] = {1, 500, 981};
    flis_real out[3 * 32];
    const size_t shape[2] = {3, 32};
    begin(g, "time-embedding", 10, "5.4", "[cos, sin] of t exp(-ln(10000) i / 16) for t = 1, 500, 981, 32 wide",
          "sines before cosines, i / (half - 1), frequencies in 16 bits");
    given(g, "t", "[1, 500, 981]");
    for (size_t i = 0; i < 3; i++) flis_time_embedding(t[i], 32, out + 32 * i);
    /* PyTorch works in float32, which is up to 6e-5 away at t = 981. */
    real_output(g, "y", 2, shape, out, 2048);
    end(g);
}

/* ---- Text -------------------------------------------------------------------------------------------------------- */

enum { MERGES = 486 };
/* "b c</w>" ranks before "a b": in "abc" the later pair merges first. */
static const char WORDS[] =
    "s e\nse a</w>\ns k\nsk y</w>\nr e\nre d</w>\nb o\na t</w>\nbo at</w>\ni n</w>\no i\noi l</w>\n"
    "t h\nth e</w>\nb c</w>\na b\n";
enum { WORD_MERGES = 16 };

/* The merges' text: WORDS, then pairs of capitals, which no text has left when it comes to merging. */
static flis_vocab *make_vocab(golden *g)
{
    static char merges[sizeof WORDS + 4 * MERGES];
    char *at = strcpy(merges, WORDS) + sizeof WORDS - 1;
    for (int i = 0; i < MERGES - WORD_MERGES; i++) at += sprintf(at, "%c %c\n", 'A' + i / 26, 'A' + i % 26);
    return flis_vocab_parse(&g->ctx, "the vectors' vocabulary", merges, (size_t)(at - merges));
}

static void given_vocabulary(golden *g)
{
    given_string(g, "vocabulary", "vocabulary"); /* the manifest's member of that name */
}

static void token_vector(golden *g, const char *id, const char *section, const char *what, const char *catches,
                         const char *text_in)
{
    int32_t *ids = NULL;
    begin(g, id, 5, section, what, catches);
    given_vocabulary(g);
    given_string(g, "text", text_in);
    flis_vocab *vocab = make_vocab(g);
    const long count = vocab ? flis_tokenize(&g->ctx, vocab, text_in, strlen(text_in), &ids) : -1;
    int64_t wide[400];
    const size_t length = count > 0 ? (size_t)count : 0;
    for (size_t i = 0; i < length && i < 400; i++) wide[i] = ids[i];
    if (count >= 0) whole_output(g, "ids", 1, &length, wide);
    free(ids);
    flis_vocab_free(vocab);
    end(g);
}

static void token_vectors(golden *g)
{
    token_vector(g, "tokens.words", "2.6", "letters, digits and signs are words of their own; white space goes",
                 "digits kept together, contractions split elsewhere, _ taken for a letter",
                 "a red boat, the sea; it's 101 o'clock in_oil");
    token_vector(g, "tokens.merges", "2.7",
                 "the pair of lowest rank merges first, wherever it stands; </w> ends a word",
                 "pairs merged from left to right, words without </w>", "abc sea seat abab sky");
    token_vector(g, "tokens.case", "2.5", "text is lowered, runs of white space are one, ends are trimmed",
                 "text that is not lowered", "  The SEA \t and\n the Sky  ");
    token_vector(g, "tokens.unicode", "2.4",
                 "what ftfy and Unicode's NFC make of entities, combining and wide characters",
                 "entities kept, accents kept apart, wide characters kept wide",
                 "caf\xC3\xA9 cafe\xCC\x81 &amp; \xEF\xBC\xA1 \xE2\x80\x99s \xF0\x9F\x98\x80");
    token_vector(g, "tokens.none", "2.1", "the empty prompt has no tokens", "BOS and EOS counted twice", "");
}

static void prompt_outputs(golden *g, const flis_prompt *p)
{
    const size_t ids_shape = FLIS_TOKENS, classes = p->classes;
    int64_t ids[FLIS_TOKENS], class_ids[FLIS_TOKENS];
    for (size_t i = 0; i < FLIS_TOKENS; i++) ids[i] = p->ids[i];
    for (size_t i = 0; i < classes; i++) class_ids[i] = (int64_t)p->class_ids[i];
    whole_output(g, "ids", 1, &ids_shape, ids);
    whole_output(g, "class_ids", 1, &classes, class_ids);
}

/* refused: NULL, or the kind of refusal that is expected. */
static void prompt_vector(golden *g, const char *id, const char *what, const char *catches, const flis_phrase *phrase,
                          size_t count, const char *refused)
{
    flis_prompt p = {0};
    text list_text = {0};
    begin(g, id, 5, "2.9", what, catches);
    given_vocabulary(g);
    put(g, &list_text, "[");
    for (size_t i = 0; i < count; i++) {
        put(g, &list_text, i ? ", [" : "[");
        put_string(g, &list_text, phrase[i].text);
        put(g, &list_text, ", %d]", phrase[i].id);
    }
    put(g, &list_text, "]");
    given(g, "phrases", "%s", list_text.at ? list_text.at : "");
    free(list_text.at);
    flis_vocab *vocab = make_vocab(g);
    const bool made = vocab && flis_prompt_make(&g->ctx, vocab, phrase, count, &p);
    if (refused) refusal_output(g, refused);
    else if (made) prompt_outputs(g, &p);
    flis_prompt_free(&p);
    flis_vocab_free(vocab);
    end(g);
}

static void prompt_vectors(golden *g)
{
    static flis_phrase phrases[] = {{"sky", 1}, {"red boat", 4}, {"the sea, at 7", 2}, {"in oil", -1}};
    static flis_phrase split[] = {{"x<y &amp; z", 3}, {"sea", 7}};
    static flis_phrase special[] = {{"sky", 1}, {"a <|endoftext|> b", 2}};
    static char seventy_five[2 * 75] = "";
    char seventy_six[2 * 76];
    for (int i = 0; i < 75; i++) strcpy(seventy_five + 2 * i, i < 74 ? "z " : "z");
    snprintf(seventy_six, sizeof seventy_six, "%s z", seventy_five);
    flis_phrase full[] = {{seventy_five, 3}}, over[] = {{seventy_six, 3}};
    prompt_vector(g, "prompt",
                  "phrases joined by spaces and tokenised whole; a class for each token of each space-separated word",
                  "a class per word instead of per token, padding other than EOS", phrases, 4, NULL);
    prompt_vector(g, "prompt.words",
                  "each word is cleaned and counted alone, where the whole prompt keeps &amp; behind a <",
                  "tokens counted per phrase", split, 2, NULL);
    prompt_vector(g, "prompt.full", "75 tokens fit", "a limit of 74 or 77", full, 1, NULL);
    prompt_vector(g, "prompt.too-long", "76 tokens are refused: the authors' code would mask EOS",
                  "76 tokens taken, or cut off", over, 1, "too many tokens");
    prompt_vector(g, "prompt.special", "a special token inside a phrase is refused: it breaks the alignment of classes",
                  "a special token taken", special, 2, "special token");
}

/* ---- Layouts ----------------------------------------------------------------------------------------------------- */

/* A label map of six regions with ragged edges, so that each source index tells. */
static const char LABEL_RULE[] = "1 + floor((3 x + y mod 3) / W) + 3 floor(2 y / H), of row y and column x";
static void label_values(uint8_t *label, size_t h, size_t w)
{
    for (size_t y = 0; y < h; y++)
        for (size_t x = 0; x < w; x++) {
            const size_t third = (3 * x + y % 3) / w;
            label[y * w + x] = (uint8_t)(1 + (third < 2 ? third : 2) + 2 * y / h * 3);
        }
}

static void label_input(golden *g, const char *name, uint8_t *label, size_t h, size_t w)
{
    const size_t shape[2] = {h, w};
    label_values(label, h, w);
    int64_t *whole = flis_alloc(&g->ctx, h * w, sizeof *whole);
    for (size_t i = 0; whole && i < h * w; i++) whole[i] = label[i];
    if (whole) whole_input(g, name, FLIS_U8, 2, shape, LABEL_RULE, whole);
    free(whole);
}

/* Source indices in a map of 8-bit numbers. */
static void resize_vectors(golden *g)
{
    uint8_t in[44 * 50], big[64 * 64], small[64 * 11];
    const size_t big_shape[2] = {64, 64}, small_shape[2] = {11, 7};
    begin(g, "label.pil", 4, "4.1", "44x50 to 64x64 by PIL's NEAREST: source index floor((i + 0.5) in / out)",
          "torch's rule, floor(i in / out); rounding");
    label_input(g, "label", in, 44, 50);
    for (size_t i = 0; i < sizeof in; i++) in[i] = (uint8_t)(i % 251);
    int64_t whole[sizeof in];
    const size_t in_shape[2] = {44, 50};
    for (size_t i = 0; i < sizeof in; i++) whole[i] = in[i];
    whole_input(g, "places", FLIS_U8, 2, in_shape, "flat index mod 251", whole);
    flis_label_pil(in, 44, 50, big, 64, 64);
    byte_output(g, "y", 2, big_shape, big, EXACT);
    end(g);
    begin(g, "label.torch", 4, "4.2", "64x64 to 11x7 by torch's nearest: source index floor(i float(in / out))",
          "PIL's rule, which looks up the middle of the new pixel: regions move by half a cell");
    int64_t places[64 * 64];
    for (size_t i = 0; i < 64 * 64; i++) places[i] = big[i] = (uint8_t)(i % 251);
    whole_input(g, "places", FLIS_U8, 2, big_shape, "flat index mod 251", places);
    flis_label_torch(big, 64, 64, small, 11, 7);
    byte_output(g, "y", 2, small_shape, small, EXACT);
    end(g);
}

/* Two tokens of one class, one open everywhere (-1), one of a class that the label map does not have. */
enum { CLASSES = 8 };
static const float CLASS_IDS[CLASSES] = {1, 1, 5, 2, 3, -1, 9, 6};
static void classes_input(golden *g, const char *name)
{
    const size_t shape = CLASSES;
    int64_t ids[CLASSES];
    for (int i = 0; i < CLASSES; i++) ids[i] = (int64_t)CLASS_IDS[i];
    whole_input(g, name, FLIS_I64, 1, &shape, "[1, 1, 5, 2, 3, -1, 9, 6]", ids);
}

static void mask_vector(golden *g, const char *id, int item, const char *what, const char *catches, size_t height,
                        size_t width, size_t h, size_t w)
{
    char name[NAME];
    uint8_t *label = malloc(height * width), *mask = malloc(h * w * FLIS_TOKENS);
    const size_t shape[2] = {h * w, FLIS_TOKENS};
    begin(g, id, item, "4.3", what, catches);
    given(g, "h", "%zu", h);
    given(g, "w", "%zu", w);
    snprintf(name, sizeof name, "rca/label.%zux%zu", height, width);
    label_input(g, name, label, height, width);
    classes_input(g, "rca/class_ids");
    const flis_rca rca = {label, height, width, CLASS_IDS, CLASSES};
    if (flis_rca_mask(&g->ctx, &rca, h, w, mask)) byte_output(g, "mask", 2, shape, mask, EXACT);
    free(label);
    free(mask);
    end(g);
}

static void mask_vectors(golden *g)
{
    static const char catches[] = "column k instead of k + 1, class -1 masked, a class that is absent left open, PIL's "
                                  "rule of nearest, H and W swapped";
    mask_vector(g, "rca.mask.0", 1, "the mask of the first level, 16x16, of a 128x128 picture; 1 open, 0 closed",
                catches, 128, 128, 16, 16);
    mask_vector(g, "rca.mask.1", 1, "of the second level, 8x8", catches, 128, 128, 8, 8);
    mask_vector(g, "rca.mask.2", 1, "of the third level, 4x4", catches, 128, 128, 4, 4);
    mask_vector(g, "rca.mask.3", 1, "of the middle block, 2x2: regions vanish, and their columns close everywhere",
                catches, 128, 128, 2, 2);
    mask_vector(g, "rca.mask.not-square", 6, "16x8, of a picture 64 wide and 128 high",
                "latents taken for square, H and W swapped", 128, 64, 16, 8);
}

/* ---- Text encoder ------------------------------------------------------------------------------------------------ */

static const char SMALL_RULE[] = "tinyA, every weight divided by 64";

/* Formula weights divided by 64: activations become so small that eps tells. */
static bool small_visit(flis_ctx *ctx, void *unused, const char *name, flis_param *param)
{
    (void)unused;
    size_t count = 1;
    for (int i = 0; i < param->rank; i++) count *= param->shape[i];
    flis_real *values = flis_alloc(ctx, count, sizeof *values);
    if (values) {
        flis_formula_weights(name, param->rank, param->shape, 0, count, values);
        for (size_t i = 0; i < count; i++) values[i] /= 64;
        flis_param_set(ctx, param, values, false);
    }
    free(values);
    return flis_ok(ctx);
}

/* An intermediate that is a vector of its own. */
typedef struct traced {
    const char *id; /* NULL: the table ends */
    int item;
    const char *section, *name, *what, *catches; /* name: of the trace */
    double units;
} traced;

typedef struct wanted {
    golden *g;
    const traced *table;
} wanted;

static bool is_wanted(const wanted *w, const char *name)
{
    for (const traced *t = w->table; t->id; t++)
        if (strcmp(t->name, name) == 0) return true;
    return false;
}

static bool on_wants(void *user, const char *name, size_t count)
{
    (void)count;
    return is_wanted(user, name);
}

static void on_trace(void *user, const char *name, const flis_tensor *x)
{
    const wanted *w = user;
    size_t shape[4];
    if (!x->x || !is_wanted(w, name) || find(&w->g->traced, name)) return;
    const int rank = file_shape(x, shape);
    tensor *kept = add(w->g, &w->g->traced, name, FLIS_F64, rank, shape);
    flis_real *values = kept ? malloc(kept->count * sizeof *values) : NULL;
    if (!values) return;
    if (x->rank == 4) flis_to_nchw(x, values);
    else memcpy(values, x->x, kept->count * sizeof *values);
    for (size_t i = 0; i < kept->count; i++) kept->number[i] = (double)values[i];
    free(values);
}

static void trace_on(golden *g, wanted *w, const traced *table)
{
    drop(&g->traced, 0);
    *w = (wanted){g, table};
    g->ctx.trace = on_trace;
    g->ctx.trace_wants = on_wants;
    g->ctx.trace_user = w;
}

/* An intermediate of the network that ran last, under its module's name. */
static void traced_output(golden *g, const char *name, double units)
{
    const tensor *x = find(&g->traced, name);
    size_t shape[4];
    if (!x) {
        flis_fail(&g->ctx, "%s was not traced", name);
        return;
    }
    flis_real *values = flis_alloc(&g->ctx, x->count, sizeof *values);
    for (int i = 0; i < x->rank; i++) shape[i] = (size_t)x->shape[i];
    for (size_t i = 0; values && i < x->count; i++) values[i] = (flis_real)x->number[i];
    if (values) real_output(g, name, x->rank, shape, values, units);
    free(values);
}

/* The vectors of a table, from the run that was just done for the vector `of`. */
static void traced_vectors(golden *g, const char *of, const traced *table)
{
    for (const traced *t = table; t->id; t++) {
        begin(g, t->id, t->item, t->section, t->what, t->catches);
        given_string(g, "run", of);
        traced_output(g, t->name, t->units);
        end(g);
    }
}

static const traced CLIP_TRACED[] = {
    {"clip.q", 9, "3.2", "encoder.layers.0.self_attn.q_proj",
     "queries of the first layer, W x + b, before they are scaled", "a bias that is left out", 64},
    {"clip.attention", 9, "3.2", "encoder.layers.0.self_attn", "the first self-attention's output, out_proj included",
     "no causal mask, queries scaled before their bias is added", 64},
    {"clip.mlp", 8, "3.2", "encoder.layers.0.mlp", "the first MLP's output",
     "SiLU or exact GELU for x sigmoid(1.702 x)", 64},
    {"clip.last-layer", 9, "3.2", "encoder.layers.1", "what the last layer gives, before the final layer norm",
     "a residual that is left out, another layer", 128},
    {NULL, 0, NULL, NULL, NULL, NULL, 0},
};

static void clip_vectors(golden *g)
{
    static const flis_clip_config tiny = {1000, 32, 2, 2, 128, 77};
    static const int32_t words[] = {998, 530, 576, 577, 66, 127, 325, 171, 999};
    int32_t ids[FLIS_TOKENS];
    int64_t wide[FLIS_TOKENS];
    const size_t shape[2] = {1, FLIS_TOKENS};
    wanted w;
    begin(g, "clip", 9, "3.2", "77 ids to last_hidden_state: two layers of tinyA, causal, final layer norm",
          "no causal mask, no final layer norm, the last layer but one, padding other than EOS (999)");
    given_string(g, "weights", "tinyA");
    for (size_t i = 0; i < FLIS_TOKENS; i++) wide[i] = ids[i] = i < 9 ? words[i] : 999;
    whole_input(g, "clip/ids", FLIS_I64, 2, shape, "998, 530, 576, 577, 66, 127, 325, 171, then 999", wide);
    flis_clip *clip = flis_clip_new(&g->ctx, &tiny);
    if (clip) flis_clip_walk(&g->ctx, clip, flis_formula_visit, NULL);
    trace_on(g, &w, CLIP_TRACED);
    flis_tensor *y = clip ? flis_clip_encode(&g->ctx, clip, ids, 1) : NULL;
    tensor_output(g, "last_hidden_state", y, 128);
    flis_clip_free(clip);
    end(g);
    traced_vectors(g, "clip", CLIP_TRACED);
}

/* ---- U-Net ------------------------------------------------------------------------------------------------------- */

#define RES "input_blocks.1.0"
#define BLOCK "input_blocks.1.1.transformer_blocks.0"
#define MIDDLE "middle_block.1.transformer_blocks.0"

static flis_unet *make_unet(golden *g, flis_visit *visit)
{
    static const flis_unet_config tiny = {4, 4, 32, 3, {1, 2, 2}, {true, true, true}, 1, 2, 32, 32};
    flis_unet *unet = flis_unet_new(&g->ctx, &tiny);
    if (unet) flis_unet_walk(&g->ctx, unet, visit, NULL);
    return unet;
}

/* eps of latents h x w at timestep t, with or without a layout of 8h x 8w. */
static void unet_vector(golden *g, const char *id, int item, const char *what, const char *catches, size_t h, size_t w,
                        double t, bool layout, bool small, const traced *table)
{
    char x_name[NAME], label_name[NAME];
    uint8_t *label = malloc(64 * h * w);
    wanted want;
    begin(g, id, item, "5.7", what, catches);
    given_string(g, "weights", small ? SMALL_RULE : "tinyA");
    given(g, "t", "%g", t);
    snprintf(x_name, sizeof x_name, "unet/x.%zux%zu", h, w);
    snprintf(label_name, sizeof label_name, "rca/label.%zux%zu", 8 * h, 8 * w);
    flis_tensor *x = image_input(g, x_name, 1, 4, h, w, 1),
                *context = rows_input(g, "unet/context", 1, FLIS_TOKENS, 32, 1);
    if (small) x = flis_scale(&g->ctx, x, 0x1p-6);
    if (small) given_string(g, "x", "divided by 64");
    label_values(label, 8 * h, 8 * w);
    if (layout) label_input(g, label_name, label, 8 * h, 8 * w);
    if (layout) classes_input(g, "rca/class_ids");
    const flis_rca rca = {label, 8 * h, 8 * w, CLASS_IDS, CLASSES}, *rcas[1] = {&rca};
    flis_unet *unet = make_unet(g, small ? small_visit : flis_formula_visit);
    if (table) trace_on(g, &want, table);
    flis_tensor *eps = unet ? flis_unet_eps(&g->ctx, unet, x, &t, context, layout ? rcas : NULL) : NULL;
    tensor_output(g, "eps", eps, 512);
    flis_unet_free(unet);
    free(label);
    end(g);
}

static const traced UNET_TRACED[] = {
    {"unet.time-embed", 10, "5.4", "time_embed", "time_embed: W2 silu(W0 embedding + b0) + b2",
     "SiLU left out; [sin, cos]", 2048},
    {"unet.resblock", 0, "5.5", RES, "the first ResBlock", "no residual", 256},
    {"unet.resblock.wide", 0, "5.5", "input_blocks.3.0",
     "the first ResBlock whose groups have more than one channel: there the time embedding tells", "no time embedding",
     512},
    {"unet.resblock.norm", 0, "5.5", RES ".in_layers.0", "its first group norm, before SiLU", "other groups", 64},
    {"unet.resblock.emb", 10, "5.5", RES ".emb_layers.1", "its share of the time embedding: W silu(emb) + b",
     "no SiLU before emb_layers.1", 2048},
    {"unet.transformer", 0, "5.6", "input_blocks.1.1", "the first SpatialTransformer, its residual included",
     "no residual, proj_in left out", 512},
    {"unet.attn1.weights", 2, "5.6", BLOCK ".attn1.weights",
     "self-attention's weights: every key is open to every query", "self-attention masked", 256},
    {"unet.attn1", 0, "5.6", BLOCK ".attn1", "self-attention's output, to_out included", "to_out's bias left out", 256},
    {"unet.attn2.scores", 16, "5.6", BLOCK ".attn2.scores",
     "cross-attention's scores before the mask: (q . k) times head width^-0.5", "all channels' width^-0.5, or no scale",
     256},
    {"unet.attn2.weights", 2, "4.4", BLOCK ".attn2.weights", "rectified weights [heads,64,77]: 0 where closed",
     "a mask applied after softmax, closed scores of -1, column k for k + 1", 256},
    {"unet.attn2", 2, "5.6", BLOCK ".attn2", "cross-attention's output, to_out included", "no mask", 256},
    {"unet.ff", 8, "5.6", BLOCK ".ff.net.0", "GEGLU inside the feed-forward: value times erf GELU of the gate",
     "the halves swapped, tanh GELU", 256},
    {"unet.down", 17, "5.2", "input_blocks.2", "the first downsample: one zero on every side",
     "zeros right and below only: shifted by a pixel", 512},
    {"unet.attn2.weights.level-1", 2, "4.4", "input_blocks.3.1.transformer_blocks.0.attn2.weights",
     "rectified weights of the second level", "RCA at full size only", 256},
    {"unet.attn2.weights.middle", 2, "4.4", MIDDLE ".attn2.weights", "rectified weights of the middle block",
     "no RCA in the middle block", 256},
    {"unet.attn1.weights.middle", 2, "4.4", MIDDLE ".attn1.weights", "self-attention of the middle block: not masked",
     "self-attention masked", 256},
    {"unet.skip.norm", 19, "5.2", "output_blocks.0.0.in_layers.0", "group norm of [h, skip] in the first output block",
     "[skip, h]", 512},
    {"unet.up", 17, "5.2", "output_blocks.1", "the first upsample: nearest, then 3x3",
     "an enlargement that is shifted by one", 512},
    {"unet.skip-connection", 19, "5.5", "output_blocks.3.0.skip_connection",
     "the 1x1 convolution of [h, skip] around a ResBlock", "[skip, h]; another skip than the last that is left", 512},
    {"unet.attn2.weights.last", 2, "4.4", "output_blocks.5.1.transformer_blocks.0.attn2.weights",
     "rectified weights of the last output block", "the mask of another level", 512},
    {"unet.out-norm", 0, "5.7", "out.0", "the last group norm, before SiLU", "its channels in another order", 512},
    {NULL, 0, NULL, NULL, NULL, NULL, 0},
};

static const traced UNET_NORMS[] = {
    {"unet.eps.resblock", 7, "5.5", RES ".in_layers.0", "the first ResBlock's first group norm: eps 1e-5", "eps 1e-6",
     64},
    {"unet.eps.transformer", 7, "5.6", "input_blocks.1.1.norm", "the first SpatialTransformer's group norm: eps 1e-6",
     "eps 1e-5", 64},
    {"unet.eps.out", 7, "5.7", "out.0", "the last group norm: eps 1e-5", "eps 1e-6", 512},
    {NULL, 0, NULL, NULL, NULL, NULL, 0},
};

static void unet_vectors(golden *g)
{
    unet_vector(
        g, "unet.layout", 2, "eps of 8x8 latents at t = 981 with a layout",
        "the mask missing in some cross-attention, or used in self-attention; whatever else is wrong in the U-Net", 8,
        8, 981, true, false, UNET_TRACED);
    traced_vectors(g, "unet.layout", UNET_TRACED);
    unet_vector(g, "unet.plain", 0, "eps without a layout: plain Stable Diffusion",
                "a mask where there is no layout; a wrong ResBlock or SpatialTransformer", 8, 8, 500, false, false,
                NULL);
    unet_vector(g, "unet.not-square", 6, "eps of 8x16 latents with a layout of 64x128",
                "latents taken for square, H and W swapped", 8, 16, 500, true, false, NULL);
    unet_vector(g, "unet.small", 7, "eps of small activations, where eps of the norms tells", "any other eps of a norm",
                8, 8, 500, false, true, UNET_NORMS);
    traced_vectors(g, "unet.small", UNET_NORMS);
}

static void guided_vector(golden *g)
{
    const size_t shape[3] = {4, 8, 8};
    flis_real eps[256], uncond[256];
    uint8_t label[64 * 64];
    begin(g, "unet.guided", 3, "8.5",
          "the two passes of guidance at t = 261: the layout acts on the conditional one alone",
          "the unconditional pass rectified too; both in one batch with one mask; conditions swapped");
    given_string(g, "weights", "tinyA");
    given(g, "t", "261");
    flis_tensor *x = image_input(g, "unet/x.8x8", 1, 4, 8, 8, 1),
                *context = rows_input(g, "unet/context", 1, FLIS_TOKENS, 32, 1);
    flis_tensor *empty = rows_input(g, "unet/uncond", 1, FLIS_TOKENS, 32, 1);
    label_input(g, "rca/label.64x64", label, 64, 64);
    classes_input(g, "rca/class_ids");
    const flis_rca rca = {label, 64, 64, CLASS_IDS, CLASSES};
    flis_unet *unet = make_unet(g, flis_formula_visit);
    if (unet && x && context && empty) {
        flis_real latent[256];
        flis_to_nchw(x, latent);
        flis_guided guided = {unet, 8, 8, context->x, empty->x, &rca};
        if (flis_guided_eps(&g->ctx, &guided, latent, 261, eps, uncond)) {
            real_output(g, "eps", 3, shape, eps, 512);
            real_output(g, "uncond", 3, shape, uncond, 512);
        }
    }
    flis_unet_free(unet);
    end(g);
}

/* ---- Autoencoder ------------------------------------------------------------------------------------------------- */

static flis_vae *make_vae(golden *g, flis_visit *visit)
{
    static const flis_vae_config tiny = {32, 4, {1, 1, 1, 1}, 1, 4, 4, 0.18215, 32};
    flis_vae *vae = flis_vae_new(&g->ctx, &tiny, true, true);
    if (vae) flis_vae_walk(&g->ctx, vae, visit, NULL);
    return vae;
}

static void picture_vector(golden *g)
{
    flis_picture picture = {0};
    begin(g, "vae.bytes", 18, "9.1",
          "latents to bytes: times float32(1 / 0.18215), decode, clamp((x + 1) / 2), 255 x truncated; [h,w,rgb]",
          "bytes rounded instead of truncated, latents not divided by the factor, BGR");
    given_string(g, "weights", "tinyA");
    flis_vae *vae = make_vae(g, flis_formula_visit);
    flis_tensor *z = image_input(g, "vae/latents", 1, 4, 4, 4, 1);
    if (vae && flis_decode_picture(&g->ctx, vae, z, &picture)) {
        const size_t shape[3] = {picture.height, picture.width, 3};
        byte_output(g, "bytes", 3, shape, picture.pixels, "\"tolerance\": 1, \"share\": 0.01");
    }
    free(picture.pixels);
    flis_vae_free(vae);
    end(g);
}

static const traced DECODER_TRACED[] = {
    {"vae.attention", 16, "6.2", "decoder.mid.attn_1", "the middle attention: one head, scale c^-0.5",
     "no scale, several heads", 512},
    {"vae.up", 17, "6.3", "decoder.up.3.upsample", "the first upsample: nearest, then 3x3",
     "an enlargement that is shifted by one", 512},
    {"vae.resnet", 0, "6.2", "decoder.mid.block_1", "the first resnet", "no residual", 256},
    {NULL, 0, NULL, NULL, NULL, NULL, 0},
};

static const traced DECODER_NORMS[] = {
    {"vae.eps.resnet", 7, "6.2", "decoder.mid.block_1.norm1", "the first resnet's first group norm: eps 1e-6",
     "eps 1e-5", 64},
    {"vae.eps.attention", 7, "6.2", "decoder.mid.attn_1.norm", "the attention's group norm: eps 1e-6", "eps 1e-5", 64},
    {"vae.eps.out", 7, "6.3", "decoder.norm_out", "the last group norm: eps 1e-6", "eps 1e-5", 1024},
    {NULL, 0, NULL, NULL, NULL, NULL, 0},
};

static const traced ENCODER_TRACED[] = {
    {"vae.down", 17, "6.4", "encoder.down.0.downsample", "the first downsample: one zero right and below",
     "zeros on every side", 256},
    {NULL, 0, NULL, NULL, NULL, NULL, 0},
};

static void vae_vectors(golden *g)
{
    for (int small = 0; small < 2; small++) {
        wanted want;
        begin(g, small ? "vae.decode.small" : "vae.decode", small ? 7 : 16, "6.3",
              small ? "decode small activations, where eps of the norms tells"
                    : "latents [1,4,3,4] (already divided by the factor) to an image [1,3,24,32]",
              small ? "eps 1e-5" : "no scale in the attention, a shifted upsample, levels in another order");
        given_string(g, "weights", small ? SMALL_RULE : "tinyA");
        flis_vae *vae = make_vae(g, small ? small_visit : flis_formula_visit);
        flis_tensor *z = image_input(g, "vae/z", 1, 4, 3, 4, 1);
        trace_on(g, &want, small ? DECODER_NORMS : DECODER_TRACED);
        tensor_output(g, "image", vae ? flis_vae_decode(&g->ctx, vae, z) : NULL, 512);
        flis_vae_free(vae);
        end(g);
        if (small) break;
        traced_vectors(g, "vae.decode", DECODER_TRACED);
    }
    traced_vectors(g, "vae.decode.small", DECODER_NORMS);
    wanted want;
    begin(g, "vae.encode", 17, "6.4", "an image [1,3,24,32] to moments [1,8,3,4]: means, then log variances",
          "zeros on both sides of a downsample: shifted by a pixel; quant_conv left out");
    given_string(g, "weights", "tinyA");
    flis_vae *vae = make_vae(g, flis_formula_visit);
    flis_tensor *image = image_input(g, "vae/image", 1, 3, 24, 32, 1);
    trace_on(g, &want, ENCODER_TRACED);
    tensor_output(g, "moments", vae ? flis_vae_encode(&g->ctx, vae, image) : NULL, 512);
    flis_vae_free(vae);
    end(g);
    traced_vectors(g, "vae.encode", ENCODER_TRACED);
    picture_vector(g);
}

/* ---- Random numbers ---------------------------------------------------------------------------------------------- */

static void randn_vector(golden *g, const char *id, const char *section, const char *what, const char *catches,
                         flis_rng_kind kind, uint64_t seed, const size_t *counts, double units)
{
    float x[1024];
    size_t total = 0;
    text sizes = {0};
    begin(g, id, 15, section, what, catches);
    flis_rng_seed(&g->ctx.rng, kind, seed);
    for (size_t i = 0; counts[i]; i++) {
        flis_randn(&g->ctx.rng, x + total, counts[i]);
        total += counts[i];
        put(g, &sizes, i ? ", %zu" : "%zu", counts[i]);
    }
    given(g, "seed", "%llu", (unsigned long long)seed);
    given(g, "randn", "[%s]", sizes.at ? sizes.at : "");
    free(sizes.at);
    float_output(g, "y", total, x, units);
    end(g);
}

static void random_vectors(golden *g)
{
    static const size_t many[] = {64, 0}, few[] = {7, 0}, odd[] = {17, 43, 0}, mixed[] = {3, 16, 4, 0},
                        two[] = {20, 5, 0};
    int64_t words[8];
    const size_t eight = 8;
    begin(g, "rng.mt19937", 15, "7.1", "the first words of mt19937 of seed 42", "init_by_array, a wrong tempering");
    given(g, "seed", "42");
    flis_rng_seed(&g->ctx.rng, FLIS_RNG_CPU, 42);
    for (int i = 0; i < 8; i++) words[i] = (int64_t)flis_rng_u32(&g->ctx.rng);
    whole_output(g, "words", 1, &eight, words);
    end(g);
    randn_vector(g, "rng.cpu", "7.4", "torch.randn(64) on the CPU, to the bit", "sine and cosine swapped, u for 1 - u",
                 FLIS_RNG_CPU, 42, many, 0);
    randn_vector(g, "rng.cpu.few", "7.3", "torch.randn(7): below 16 values the scalar path in double",
                 "the 16-wide path for few values", FLIS_RNG_CPU, 42, few, 0);
    randn_vector(g, "rng.cpu.redrawn", "7.4", "torch.randn(17), then 43: the last 16 are drawn anew",
                 "the last 16 not redrawn", FLIS_RNG_CPU, 7, odd, 0);
    randn_vector(g, "rng.cpu.mixed", "7.3",
                 "torch.randn(3), (16), (4): the sine of the second pair waits for the third call",
                 "the kept value dropped between calls", FLIS_RNG_CPU, UINT64_C(12345678901), mixed, 0);
    randn_vector(g, "rng.cuda", "7.6", "torch.randn(20), then 5, on CUDA: Philox 4x32-10",
                 "9 rounds, calls that do not move the counter, cosine for sine", FLIS_RNG_CUDA, UINT64_C(5000000000),
                 two, 64);
}

/* ---- Schedule and samplers --------------------------------------------------------------------------------------- */

/* Largest relative errors of float64 values. */
#define CLOSE "\"relative\": 1e-12"

static void schedule_vector(golden *g, const flis_schedule *schedule)
{
    begin(g, "schedule", 11, "8.1",
          "beta and alphas_cumprod of the 1000 steps, in double, and as the float32 that is used",
          "betas linear instead of linear in sqrt, the product in float32");
    double_output(g, "beta", FLIS_TIMESTEPS, schedule->beta, CLOSE);
    double_output(g, "alphas_cumprod", FLIS_TIMESTEPS, schedule->alpha_bar, CLOSE);
    float_output(g, "alphas_cumprod.f32", FLIS_TIMESTEPS, schedule->alpha_bar32, 2);
    end(g);
}

static void steps_vector(golden *g, const char *id, int item, const char *what, const char *catches,
                         const flis_schedule *schedule, int count, double eta)
{
    flis_steps *s = malloc(sizeof *s);
    begin(g, id, item, "8.2", what, catches);
    given(g, "steps", "%d", count);
    given(g, "eta", "%g", eta);
    if (s && flis_steps_make(&g->ctx, schedule, FLIS_DDIM, count, eta, s)) {
        whole_output(g, "t", 1, &s->count, s->t);
        float_output(g, "alpha", s->count, s->alpha, 2);
        double_output(g, "alpha_prev", s->count, s->alpha_prev, "\"relative\": 1e-07");
        double_output(g, "sigma", s->count, s->sigma, "\"relative\": 1e-05");
    }
    free(s);
    end(g);
}

/* Which counts the authors' code crashes on, for each from 1 to 1000. */
static void refused_steps_vector(golden *g, const flis_schedule *schedule)
{
    uint8_t refused[FLIS_TIMESTEPS];
    int64_t counts[FLIS_TIMESTEPS];
    const size_t shape = FLIS_TIMESTEPS;
    flis_steps *s = malloc(sizeof *s);
    begin(g, "steps.refused", 11, "8.2",
          "for S = 1 to 1000 steps: refused because timestep 1000 would be read; how many steps there are (0: none)",
          "S in 3, 9, 27, 36, 37, 101-111, 251-333, 501-1000 taken; always S steps");
    given_string(g, "refusal", "last timestep beyond the schedule");
    for (int i = 0; s && i < FLIS_TIMESTEPS; i++) {
        refused[i] = !flis_steps_make(&g->ctx, schedule, FLIS_PLMS, i + 1, 0, s);
        counts[i] = refused[i] ? 0 : (int64_t)s->count;
        g->ctx.error[0] = 0;
    }
    byte_output(g, "refused", 1, &shape, refused, EXACT);
    whole_output(g, "count", 1, &shape, counts);
    free(s);
    end(g);
}

/* A model that needs no network: e_cond = x / 2 + cond t / 1024, e_uncond = x / 4 + uncond t / 1024. */
enum { LATENT = 4 * 2 * 4, MOST_STEPS = 16 };
typedef struct toy {
    flis_real cond[LATENT], uncond[LATENT];
    int64_t
        evaluated[2 * MOST_STEPS]; /* timesteps of the calls, negative where the unconditional eps was not asked for */
    size_t evaluations, steps;
    flis_real x_prev[MOST_STEPS * LATENT], pred_x0[MOST_STEPS * LATENT], e_t[MOST_STEPS * LATENT];
} toy;

static bool toy_eps(flis_ctx *ctx, void *user, const flis_real *x, int64_t t, flis_real *eps, flis_real *uncond)
{
    toy *m = user;
    if (m->evaluations == 2 * MOST_STEPS) return flis_fail(ctx, "more evaluations than wanted");
    m->evaluated[m->evaluations++] = uncond ? t : -t;
    for (size_t i = 0; i < LATENT; i++) {
        eps[i] = x[i] / 2 + m->cond[i] * (flis_real)t / 1024;
        if (uncond) uncond[i] = x[i] / 4 + m->uncond[i] * (flis_real)t / 1024;
    }
    return true;
}

static void toy_step(flis_ctx *ctx, void *user, const flis_step *step)
{
    toy *m = user;
    if (m->steps == MOST_STEPS) {
        flis_fail(ctx, "more steps than wanted");
        return;
    }
    memcpy(m->x_prev + m->steps * LATENT, step->x_prev, LATENT * sizeof(flis_real));
    memcpy(m->pred_x0 + m->steps * LATENT, step->pred_x0, LATENT * sizeof(flis_real));
    memcpy(m->e_t + m->steps++ * LATENT, step->e_t, LATENT * sizeof(flis_real));
}

static void sample_vector(golden *g, const char *id, int item, const char *what, const char *catches, flis_sampling s)
{
    const size_t shape[4] = {1, 4, 2, 4};
    flis_real x[LATENT];
    float next[4];
    toy *m = calloc(1, sizeof *m);
    begin(g, id, item, "8.6", what, catches);
    given_string(g, "sampler", s.kind == FLIS_PLMS ? "plms" : "ddim");
    given(g, "steps", "%d", s.steps);
    given(g, "eta", "%g", s.eta);
    given(g, "scale", "%g", s.scale);
    given_string(g, "eps", "cond: x / 2 + cond t / 1024; uncond: x / 4 + uncond t / 1024");
    given(g, "seed", "42");
    real_input(g, "sampler/x_T", 4, shape, 1, x);
    real_input(g, "sampler/cond", 4, shape, 1, m->cond);
    real_input(g, "sampler/uncond", 4, shape, 1, m->uncond);
    flis_rng_seed(&g->ctx.rng, FLIS_RNG_CPU, 42);
    const flis_model_fn model = {toy_eps, toy_step, m};
    if (flis_sample(&g->ctx, &s, LATENT, x, &model)) {
        const size_t steps[5] = {m->steps, 4, 2, 4}, four = 4;
        whole_output(g, "evaluated", 1, &m->evaluations, m->evaluated);
        real_output(g, "e_t", 4, steps, m->e_t, 256);
        real_output(g, "pred_x0", 4, steps, m->pred_x0, 256);
        real_output(g, "x_prev", 4, steps, m->x_prev, 256);
        flis_randn(&g->ctx.rng, next, 4);
        float_output(g, "next_randn", four, next, 0);
    }
    free(m);
    end(g);
}

static void sampler_vectors(golden *g)
{
    flis_schedule *schedule = flis_alloc(&g->all, 1, sizeof *schedule);
    if (!schedule) return;
    flis_schedule_make(schedule);
    schedule_vector(g, schedule);
    steps_vector(g, "steps.50", 11, "50 steps: t = range(0, 1000, 20) + 1, smallest first, and the arrays of DDIM",
                 "timesteps without the + 1", schedule, 50, 0);
    steps_vector(g, "steps.30", 11, "30 does not divide 1000: 31 steps", "a linspace of timesteps, 30 steps", schedule,
                 30, 0.5);
    steps_vector(g, "steps.first", 12, "alpha_prev of the smallest step is alphas_cumprod[0]", "1 in its place",
                 schedule, 4, 1);
    refused_steps_vector(g, schedule);
    free(schedule);
    sample_vector(g, "sampler.ddim", 14,
                  "DDIM, 5 steps, eta 0: noise is drawn at every step all the same; next_randn: the 4 numbers after it",
                  "no noise drawn where sigma is 0: streams out of step", (flis_sampling){FLIS_DDIM, 5, 0, 3});
    sample_vector(g, "sampler.ddim.eta", 14, "DDIM, 5 steps, eta 0.5",
                  "sigma left out of the direction, alpha_prev[0] = 1", (flis_sampling){FLIS_DDIM, 5, 0.5, 3});
    sample_vector(g, "sampler.plms", 13,
                  "PLMS, 10 steps: 11 evaluations, the second at the next timestep; evaluated: their timesteps",
                  "one evaluation in the first step, the second step taken from the improved x",
                  (flis_sampling){FLIS_PLMS, 10, 0, 3});
    sample_vector(g, "sampler.plms.history", 13, "PLMS, 5 steps: the history holds the guided eps, not the combination",
                  "what was stepped with kept as history, unguided history", (flis_sampling){FLIS_PLMS, 5, 0, 7.5});
    sample_vector(g, "sampler.guidance", 3, "e = uncond + scale (cond - uncond), scale 2",
                  "e = cond + scale (cond - uncond)", (flis_sampling){FLIS_DDIM, 2, 0, 2});
    sample_vector(g, "sampler.no-guidance", 3,
                  "scale 1: the unconditional eps is not asked for (negative timesteps in `evaluated`)",
                  "an unconditional pass all the same", (flis_sampling){FLIS_DDIM, 2, 0, 1});
}

/* ---- Files and refusals ------------------------------------------------------------------------------------------ */

static void png_vector(golden *g)
{
    static const char *const words[] = {"Software", "flis", "Title", "caf\xC3\xA9", "prompt", "\xE6\xB5\xB7", NULL};
    uint8_t pixels[5 * 7 * 3];
    int64_t whole[sizeof pixels];
    const size_t shape[3] = {5, 7, 3};
    size_t length = 0;
    begin(g, "png", 0, "9.2",
          "the PNG of a picture 7 wide and 5 high with three texts: bytes are a function of pixels and texts",
          "BGR, H and W swapped, text that is not Latin-1 in tEXt, another filter or compression");
    given(g, "texts", "{\"Software\": \"flis\", \"Title\": \"caf\xC3\xA9\", \"prompt\": \"\xE6\xB5\xB7\"}");
    for (size_t i = 0; i < sizeof pixels; i++) whole[i] = pixels[i] = (uint8_t)(i * i % 251);
    whole_input(g, "pixels", FLIS_U8, 3, shape, "i i mod 251 of the flat index i, [h,w,rgb]", whole);
    const flis_picture picture = {7, 5, 3, pixels};
    uint8_t *bytes = flis_png_bytes(&g->ctx, &picture, words, &length);
    if (bytes) byte_output(g, "bytes", 1, &length, bytes, EXACT);
    free(bytes);
    end(g);
}

/* Writes `content` to a file beside the result, reads it as a layout, removes it; the sentence says layout.json. */
static void layout_vector(golden *g, const char *scratch, const char *id, const char *section, const char *what,
                          const char *catches, const char *content, const char *kind)
{
    flis_layout layout = {0};
    begin(g, id, 0, section, what, catches);
    given_string(g, "layout", content);
    FILE *file = fopen(scratch, "wb");
    if (!file || fputs(content, file) < 0) flis_fail(&g->all, "%s: cannot be written", scratch);
    if (file) fclose(file);
    flis_layout_read(&g->ctx, scratch, &layout);
    remove(scratch);
    char *at = strstr(g->ctx.error, scratch);
    if (at && strlen(g->ctx.error) + strlen("layout.json") < sizeof g->ctx.error) {
        memmove(at + strlen("layout.json"), at + strlen(scratch), strlen(at + strlen(scratch)) + 1);
        memcpy(at, "layout.json", strlen("layout.json"));
    }
    if (kind) refusal_output(g, kind);
    else {
        int64_t ids[16];
        const size_t count = layout.count < 16 ? layout.count : 16;
        for (size_t i = 0; i < count; i++) ids[i] = layout.phrase[i].id;
        whole_output(g, "ids", 1, &count, ids);
    }
    flis_layout_free(&layout);
    end(g);
}

static void layout_vectors(golden *g, const char *scratch)
{
    layout_vector(g, scratch, "layout.pairs", "10.9", "a list of pairs lets a phrase occur twice; order is kept",
                  "phrases sorted, or merged",
                  "{\"text_label_mapping\": [[\"sky\", 1], [\"in oil\", -1], [\"sky\", 5]]}", NULL);
    layout_vector(g, scratch, "layout.id", "10.9", "an id above 255 is refused: label maps have 8 bits",
                  "256 taken for 0", "{\"text_label_mapping\": {\"sky\": 256}}", "id out of range");
    layout_vector(g, scratch, "layout.negative", "10.9", "an id below -1 is refused", "-2 taken for -1 or 254",
                  "{\"text_label_mapping\": {\"sky\": -2}}", "id out of range");
    layout_vector(g, scratch, "layout.fraction", "10.9", "an id that is no whole number is refused", "1.5 taken for 1",
                  "{\"text_label_mapping\": {\"sky\": 1.5}}", "id out of range");
    layout_vector(g, scratch, "layout.missing", "10.9", "a layout without text_label_mapping is refused",
                  "an empty prompt", "{\"layout_path\": \"a.png\"}", "text_label_mapping missing");
    layout_vector(g, scratch, "layout.json", "10.8", "JSON that is cut short is refused", "what was read so far taken",
                  "{\"text_label_mapping\": {\"sky\": 1", "broken JSON");
    layout_vector(
        g, scratch, "layout.absent", "10.9", "a label map that is not there is refused", "a plain picture made instead",
        "{\"text_label_mapping\": {\"sky\": 1}, \"layout_path\": \"flis-no-such-label-map.png\"}", "label map missing");
}

static void options_vector(golden *g, const char *id, const char *what, const char *catches, size_t width,
                           size_t height, flis_sampling s, const char *kind)
{
    flis_options options;
    flis_picture out = {0};
    flis_layout layout = {0};
    flis_options_default(&options);
    options.width = width;
    options.height = height;
    options.sampling = s;
    begin(g, id, s.steps == 50 && s.eta == 0 ? 6 : 11, "13.2", what, catches);
    given(g, "size", "[%zu, %zu]", width, height);
    given_string(g, "sampler", s.kind == FLIS_PLMS ? "plms" : "ddim");
    given(g, "steps", "%d", s.steps);
    given(g, "eta", "%g", s.eta);
    /* Options are checked before the model is looked for; with them accepted, it is the file that is missing. */
    const bool done = flis_generate(&g->ctx, "flis-no-such-model.safetensors", NULL, &layout, &options, &out);
    if (!done && strstr(g->ctx.error, "flis-no-such-model")) g->ctx.error[0] = 0;
    refusal_output(g, kind);
    free(out.pixels);
    end(g);
}

static void options_vectors(golden *g)
{
    options_vector(g, "refused.size", "a picture size that is no multiple of 64 is refused", "a size rounded or taken",
                   512, 500, (flis_sampling){FLIS_PLMS, 50, 0, 2}, "size");
    options_vector(g, "refused.steps", "27 steps are refused: timestep 1000 would be read",
                   "alphas beyond the schedule", 512, 512, (flis_sampling){FLIS_PLMS, 27, 0, 2},
                   "last timestep beyond the schedule");
    options_vector(g, "refused.eta", "PLMS with eta is refused", "eta ignored", 512, 512,
                   (flis_sampling){FLIS_PLMS, 50, 0.5, 2}, "eta");
    uint8_t mask[4 * FLIS_TOKENS], label[4] = {0};
    float ids[76] = {0};
    begin(g, "refused.classes", 5, "4.3", "a layout with classes for 76 tokens is refused",
          "a column beyond the text's closed, EOS masked");
    const flis_rca rca = {label, 2, 2, ids, 76};
    flis_rca_mask(&g->ctx, &rca, 2, 2, mask);
    refusal_output(g, "too many tokens");
    end(g);
}

/* ---- The files --------------------------------------------------------------------------------------------------- */

static const char *const ITEMS[] = {
    "Mask column of phrase token k is k+1; BOS, EOS, padding and class -1 stay open; an absent class closes its column",
    "Closed scores are -max(float) before softmax, in every cross-attention, never in self-attention",
    "The unconditional pass has no RCA and is a separate call; guidance is uncond + scale (cond - uncond)",
    "Label map: PIL's NEAREST to the picture's size, then torch's nearest to each scale: two rules",
    "Tokens are counted per space-separated word; the prompt is tokenised whole; more than 75 tokens are refused",
    "Latents need not be square",
    "GroupNorm eps: 1e-5 in the U-Net's ResBlocks and out, 1e-6 in SpatialTransformer and autoencoder; LayerNorm 1e-5",
    "GEGLU is exact erf GELU on the second half; CLIP's activation is x sigmoid(1.702 x)",
    "CLIP: causal mask, final LayerNorm, last layer; padding is EOS; q scaled after its bias",
    "Time embedding [cos, sin], frequencies exp(-ln(10000) i/half)",
    "Betas linear in sqrt; DDIM timesteps range(0,1000,1000//S)+1; step counts that read t=1000 are refused",
    "alphas_prev[0] = alphas_cumprod[0]",
    "PLMS: the first step evaluates twice; history holds the guided eps",
    "Noise is drawn every step even where sigma is 0",
    "torch.randn: mt19937 with its scalar and 16-wide paths on the CPU, Philox on CUDA",
    "Attention scale d_head^-0.5; the autoencoder's single head c^-0.5",
    "Downsample pads (0,1,0,1) in the autoencoder's encoder, 1 on every side in the U-Net; upsample is nearest",
    "Decode multiplies by float32(1/0.18215); bytes are 255 clamp((x+1)/2), truncated",
    "Skip connections concatenate [h, skip]",
    "The authors' default is fp16 autocast: float32 is the reference here",
};
enum { ITEM_COUNT = sizeof ITEMS / sizeof *ITEMS };

static void put_vocabulary(golden *g, text *t)
{
    put(g, t, "  \"vocabulary\": {\"size\": 1000, \"bos\": 998, \"eos\": 999,\n   \"rule\": ");
    put_string(g, t,
               "CLIP's 512 byte tokens, then 486 merges: these, then pairs of capitals A A, A B, ... A Z, B A, ...");
    put(g, t, ",\n   \"merges\": ");
    put_string(g, t, WORDS);
    put(g, t, "},\n");
}

/* SPEC 11.3. */
static void write_manifest(golden *g, const char *path)
{
    text head = {0};
    char partial[4200];
    put(g, &head,
        "{\"format\": \"flis conformance\", \"version\": 1,\n  \"inputs\": \"inputs.safetensors\", \"outputs\": "
        "\"outputs.safetensors\",\n");
    put(g, &head, "  \"rules\": {\n   \"u\": ");
    put_string(
        g, &head,
        "value i (flat index, in the shape's order) of the tensor's name: h = FNV-1a-64 of the name, z = splitmix64's "
        "finaliser of "
        "h + (i + 1) 0x9E3779B97F4A7C15 (shifts 30, 27, 31; multipliers 0xBF58476D1CE4E5B9, 0x94D049BB133111EB), "
        "u = ((z >> 40) - 2^23) 2^-23");
    put(g, &head, ",\n   \"formula weights\": ");
    put_string(g, &head,
               "two or more dimensions (fan_in = product of shape[1:]): u 2^round(log2(sqrt(3 / fan_in))); one "
               "dimension: 1 + u 2^-4 where "
               "the name ends in weight, else u 2^-6");
    put(g, &head, ",\n   \"tinyA\": ");
    put_string(g, &head,
               "formula weights under the checkpoint's names, in the shapes of tools/synth tinyA: U-Net 32 channels, "
               "levels 1, 2, 2, one "
               "ResBlock a level, attention at each, 2 heads, text width 32; CLIP 1000 tokens, width 32, 2 layers, 2 "
               "heads, MLP 128; autoencoder 32 "
               "channels, levels 1, 1, 1, 1, one resnet a level");
    put(g, &head, ",\n   \"tolerance\": ");
    put_string(g, &head,
               "largest absolute error; `units` tells it in 2^-24 of the output's largest value, and is at least 8 "
               "times what flis' float32 is off from flis64's double. exact: equal values. relative: largest "
               "relative error. share: how many of the values may be off at all. A NaN is never right");
    put(g, &head, "},\n");
    put_vocabulary(g, &head);
    put(g, &head, "  \"items\": [");
    for (int i = 0; i < ITEM_COUNT; i++) {
        put(g, &head, i ? ",\n   " : "\n   ");
        put_string(g, &head, ITEMS[i]);
    }
    put(g, &head, "],\n  \"vectors\": [");
    put(g, &g->manifest, "]\n}\n");
    snprintf(partial, sizeof partial, "%s.partial", path);
    FILE *file = flis_ok(&g->all) ? fopen(partial, "wb") : NULL;
    bool ok = file && fwrite(head.at, 1, head.length, file) == head.length;
    ok = ok && fwrite(g->manifest.at, 1, g->manifest.length, file) == g->manifest.length;
    if (file && fclose(file) != 0) ok = false;
#ifdef _WIN32
    if (ok) remove(path);
#endif
    if (!ok || rename(partial, path) != 0) {
        flis_fail(&g->all, "%s: cannot be written", path);
        if (file) remove(partial);
    }
    free(head.at);
}

static void write_list(golden *g, const list *l, const char *path)
{
    flis_writer *writer = flis_ok(&g->all) ? flis_write_begin(&g->all, path) : NULL;
    if (!writer) return;
    flis_write_metadata(&g->all, writer, "generator",
                        sizeof(flis_real) == 8 ? "flis64 " FLIS_VERSION : "flis " FLIS_VERSION);
    for (size_t i = 0; i < l->count; i++)
        flis_write_declare(&g->all, writer, l->item[i].name, l->item[i].dtype, l->item[i].rank, l->item[i].shape);
    for (size_t i = 0; i < l->count; i++) {
        const tensor *x = &l->item[i];
        if (x->dtype == FLIS_I64) flis_write_i64(&g->all, writer, x->whole, x->count);
        else if (x->dtype == FLIS_U8) {
            uint8_t *bytes = flis_alloc(&g->all, x->count + 1, 1);
            for (size_t k = 0; bytes && k < x->count; k++) bytes[k] = (uint8_t)x->whole[k];
            if (bytes) flis_write_u8(&g->all, writer, bytes, x->count);
            free(bytes);
        } else flis_write_f64(&g->all, writer, x->number, x->count);
    }
    flis_write_end(&g->all, writer);
}

/* SPEC 11.3. */
static void make_vectors(golden *g, const char *scratch)
{
    linear_vectors(g);
    conv_vectors(g);
    norm_vectors(g);
    activation_vectors(g);
    move_vectors(g);
    attention_vectors(g);
    time_vector(g);
    token_vectors(g);
    prompt_vectors(g);
    resize_vectors(g);
    mask_vectors(g);
    clip_vectors(g);
    unet_vectors(g);
    guided_vector(g);
    vae_vectors(g);
    random_vectors(g);
    sampler_vectors(g);
    png_vector(g);
    layout_vectors(g, scratch);
    options_vectors(g);
}

static const char HELP[] =
    "usage: golden DIR\n"
    "       golden --answers FILE.safetensors\n"
    "Writes the conformance vectors: manifest.json, inputs.safetensors and outputs.safetensors in the folder DIR, the\n"
    "same bytes on every machine; or flis' own answers alone, for `flis conformance`.\n"
    "  --help, --version\n"
    "exit status: 0 done, 1 failed (a vector that failed is named on stderr), 2 wrong usage\n";

int main(int argc, char **argv)
{
    static golden g; /* large, and zero */
    char path[4][4096];
    if (argc == 2 && !strcmp(argv[1], "--help")) return fputs(HELP, stdout) < 0;
    if (argc == 2 && !strcmp(argv[1], "--version")) return puts("golden " FLIS_VERSION) < 0;
    const bool answers = argc == 3 && !strcmp(argv[1], "--answers");
    const char *to = answers ? argv[2] : argv[argc > 1];
    if (!answers && (argc != 2 || argv[1][0] == '-')) {
        fprintf(stderr, "golden: wanted DIR, or --answers FILE; see --help\n");
        return 2;
    }
    if (!answers && sizeof(flis_real) == 8) {
        fprintf(stderr, "golden: the vectors are float32's; in double precision there is only --answers\n");
        return 2;
    }
    bool ok = flis_init(&g.all);
    const char *const names[] = {"manifest.json", "inputs.safetensors", "outputs.safetensors", "layout.partial"};
    for (int i = 0; i < 4; i++)
        if (snprintf(path[i], sizeof path[i], answers ? "%s.layout.partial" : "%s/%s", to, names[i]) >=
            (int)sizeof path[i] - 16)
            ok = flis_fail(&g.all, "%s: the name is too long", to);
    if (ok) make_vectors(&g, path[3]);
    if (!answers && g.failed) flis_fail(&g.all, "%zu vectors failed; nothing was written", g.failed);
    if (answers) write_list(&g, &g.outputs, to);
    else {
        write_list(&g, &g.inputs, path[1]);
        write_list(&g, &g.outputs, path[2]);
        if (flis_ok(&g.all)) write_manifest(&g, path[0]);
    }
    if (!flis_ok(&g.all)) fprintf(stderr, "golden: %s\n", g.all.error);
    const bool done = flis_ok(&g.all) && !g.failed;
    drop(&g.inputs, 0);
    drop(&g.outputs, 0);
    drop(&g.traced, 0);
    free(g.manifest.at);
    free(g.given.at);
    free(g.in.at);
    free(g.out.at);
    flis_free(&g.all);
    return done ? 0 : 1;
}
