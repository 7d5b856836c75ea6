/* gather.c - the tensors of a run, and one vector at a time: its JSON, inputs and outputs. */
#include "tools/golden/golden.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- Lists of tensors ---------------------------------------------------------------------------------------------- */

static void put_shape(golden *g, buffer *t, const tensor *x)
{
    buffer_put(&g->all, t, "\"shape\": [");
    for (int i = 0; i < x->rank; i++) buffer_put(&g->all, t, "%s%llu", i ? "," : "", (unsigned long long)x->shape[i]);
    buffer_put(&g->all, t, "]");
}

static bool is_whole(flis_dtype dtype)
{
    return dtype == FLIS_I64 || dtype == FLIS_U8;
}

const tensor *list_find(const list *l, const char *name)
{
    for (size_t i = 0; i < l->count; i++)
        if (strcmp(l->item[i].name, name) == 0) return &l->item[i];
    return NULL;
}

tensor *list_add(golden *g, list *l, const char *name, flis_dtype dtype, int rank, const size_t *shape)
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

void list_drop(list *l, size_t count)
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

void vector_begin(golden *g, const char *id, int item, const char *section, const char *what, const char *catches)
{
    flis_init(&g->ctx);
    g->id = id;
    g->outputs_before = g->outputs.count;
    g->given.length = g->in.length = g->out.length = g->params = 0;
    buffer_put(&g->all, &g->manifest, "%s\n    {\"id\": \"%s\", \"spec\": \"%s\", ", g->vectors++ ? "," : "", id,
               section);
    if (item) buffer_put(&g->all, &g->manifest, "\"item\": %d, ", item);
    buffer_put(&g->all, &g->manifest, "\n     \"what\": ");
    buffer_json_string(&g->all, &g->manifest, what);
    buffer_put(&g->all, &g->manifest, ",\n     \"catches\": ");
    buffer_json_string(&g->all, &g->manifest, catches);
}

void given(golden *g, const char *key, const char *format, ...)
{
    char value[2000];
    va_list args;
    va_start(args, format);
    vsnprintf(value, sizeof value, format, args);
    va_end(args);
    buffer_put(&g->all, &g->given, "%s\"%s\": %s", g->given.length ? ", " : "", key, value);
}

void given_string(golden *g, const char *key, const char *string)
{
    buffer_put(&g->all, &g->given, "%s\"%s\": ", g->given.length ? ", " : "", key);
    buffer_json_string(&g->all, &g->given, string);
}

void vector_end(golden *g)
{
    if (g->given.length) buffer_put(&g->all, &g->manifest, ",\n     \"given\": {%s}", g->given.at);
    if (g->in.length) buffer_put(&g->all, &g->manifest, ",\n     \"inputs\": [%s]", g->in.at);
    buffer_put(&g->all, &g->manifest, ",\n     \"outputs\": [%s]}", g->out.length ? g->out.at : "");
    if (!flis_ok(&g->ctx)) {
        fprintf(stderr, "golden: %s: %s\n", g->id, g->ctx.error);
        list_drop(&g->outputs, g->outputs_before);
        g->failed++;
    }
    flis_ctx calm = FLIS_CTX_PLAIN; /* flis_free_visit does nothing in a failed context */
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

/* Lists an input in the manifest and adds it where it is new; the caller fills it. */
static tensor *input_add(golden *g, const char *name, flis_dtype dtype, int rank, const size_t *shape, const char *rule)
{
    char full[NAME];
    const tensor *old = list_find(&g->inputs, full_name(g, name, full));
    tensor *x = old ? &g->inputs.item[old - g->inputs.item] : list_add(g, &g->inputs, full, dtype, rank, shape);
    if (!x) return NULL;
    buffer_put(&g->all, &g->in, "%s\n       {\"name\": \"%s\", \"dtype\": \"%s\", ", g->in.length ? "," : "", full,
               flis_dtype_name(dtype));
    put_shape(g, &g->in, x);
    buffer_put(&g->all, &g->in, ", \"rule\": ");
    buffer_json_string(&g->all, &g->in, rule);
    buffer_put(&g->all, &g->in, "}");
    return x;
}

void formula_values(golden *g, const char *name, int rank, const size_t *shape, double scale, flis_real *out)
{
    char rule[48];
    snprintf(rule, sizeof rule, scale == 1 ? "u" : scale > 1 ? "u * %g" : "u / %g", scale > 1 ? scale : 1 / scale);
    tensor *x = input_add(g, name, FLIS_F32, rank, shape, rule);
    if (!x || !out) return;
    flis_formula_weights(x->name, 2, UNIT, 0, x->count, out);
    for (size_t i = 0; i < x->count; i++) x->number[i] = (double)(out[i] = (flis_real)((double)out[i] * scale));
}

flis_tensor *formula_image(golden *g, const char *name, size_t n, size_t c, size_t h, size_t w, double scale)
{
    const size_t shape[4] = {n, c, h, w};
    flis_real *values = flis_alloc(&g->ctx, n * c * h * w, sizeof *values);
    formula_values(g, name, 4, shape, scale, values);
    flis_tensor *x = flis_from_nchw(&g->ctx, values, n, c, h, w);
    free(values);
    return x;
}

flis_tensor *formula_rows(golden *g, const char *name, size_t n, size_t t, size_t c, double scale)
{
    const size_t shape[3] = {n, t, c};
    flis_tensor *x = flis_rows(&g->ctx, n, t, c);
    if (x) formula_values(g, name, 3, shape, scale, x->x);
    return x;
}

flis_param *formula_weight(golden *g, const char *name, int rank, size_t a, size_t b, size_t size, bool table)
{
    const size_t shape[4] = {a, b, size, size};
    flis_param *p = &g->param[g->params++];
    *p = (flis_param){.rank = rank, .shape = {a, b, size, size}, .table = table};
    for (int i = rank; i < 4; i++) p->shape[i] = 0;
    tensor *x = input_add(g, name, FLIS_F32, rank, shape, "formula weights");
    flis_real *values = x ? flis_alloc(&g->ctx, x->count, sizeof *values) : NULL;
    if (values) {
        flis_formula_weights(x->name, rank, shape, 0, x->count, values);
        for (size_t i = 0; i < x->count; i++) x->number[i] = (double)values[i];
        flis_param_set(&g->ctx, p, values, false);
    }
    free(values);
    return p;
}

void whole_input(golden *g, const char *name, flis_dtype dtype, int rank, const size_t *shape, const char *rule,
                 const int64_t *values)
{
    tensor *x = input_add(g, name, dtype, rank, shape, rule);
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

static tensor *output_add(golden *g, const char *name, flis_dtype dtype, int rank, const size_t *shape)
{
    char full[NAME];
    return flis_ok(&g->ctx) ? list_add(g, &g->outputs, full_name(g, name, full), dtype, rank, shape) : NULL;
}

/* judgement: JSON that says how the output is judged; NULL: by `units`. */
static void list_output(golden *g, const tensor *x, double units, const char *judgement)
{
    char tolerance[32];
    buffer_put(&g->all, &g->out, "%s\n       {\"name\": \"%s\", \"dtype\": \"%s\", ", g->out.length ? "," : "", x->name,
               flis_dtype_name(x->dtype));
    put_shape(g, &g->out, x);
    if (!judgement) tolerance_of(x, units, tolerance);
    if (judgement) buffer_put(&g->all, &g->out, ", %s}", judgement);
    else buffer_put(&g->all, &g->out, ", \"tolerance\": %s, \"units\": %g}", tolerance, units);
}

void real_output(golden *g, const char *name, int rank, const size_t *shape, const flis_real *values, double units)
{
    tensor *x = output_add(g, name, sizeof(flis_real) == 8 ? FLIS_F64 : FLIS_F32, rank, shape);
    if (!x) return;
    for (size_t i = 0; i < x->count; i++) x->number[i] = (double)values[i];
    list_output(g, x, units, NULL);
}

void float_output(golden *g, const char *name, size_t count, const float *values, double units)
{
    tensor *x = output_add(g, name, FLIS_F32, 1, &count);
    if (!x) return;
    for (size_t i = 0; i < count; i++) x->number[i] = (double)values[i];
    list_output(g, x, units, units > 0 ? NULL : EXACT);
}

void double_output(golden *g, const char *name, size_t count, const double *values, const char *judgement)
{
    tensor *x = output_add(g, name, FLIS_F64, 1, &count);
    if (!x) return;
    memcpy(x->number, values, count * sizeof *values);
    list_output(g, x, 0, judgement);
}

void whole_output(golden *g, const char *name, int rank, const size_t *shape, const int64_t *values)
{
    tensor *x = output_add(g, name, FLIS_I64, rank, shape);
    if (!x) return;
    memcpy(x->whole, values, x->count * sizeof *values);
    list_output(g, x, 0, EXACT);
}

void byte_output(golden *g, const char *name, int rank, const size_t *shape, const uint8_t *values,
                 const char *judgement)
{
    tensor *x = output_add(g, name, FLIS_U8, rank, shape);
    if (!x) return;
    for (size_t i = 0; i < x->count; i++) x->whole[i] = values[i];
    list_output(g, x, 0, judgement);
}

int shape_in_file(const flis_tensor *x, size_t shape[4])
{
    shape[0] = x->n;
    shape[1] = x->rank == 3 ? x->h * x->w : x->c;
    shape[2] = x->rank == 3 ? x->c : x->h;
    shape[3] = x->w;
    return x->rank;
}

void tensor_output(golden *g, const char *name, const flis_tensor *x, double units)
{
    size_t shape[4];
    if (!x || !flis_ok(&g->ctx)) return;
    flis_real *values = flis_alloc(&g->ctx, flis_count(x), sizeof *values);
    if (!values) return;
    if (x->rank == 4) flis_to_nchw(x, values);
    else memcpy(values, x->x, flis_count(x) * sizeof *values);
    real_output(g, name, shape_in_file(x, shape), shape, values, units);
    free(values);
}

void refusal_output(golden *g, const char *kind)
{
    const size_t one = 1;
    const uint8_t refused = !flis_ok(&g->ctx);
    char sentence[sizeof g->ctx.error];
    memcpy(sentence, g->ctx.error, sizeof sentence);
    g->ctx.error[0] = 0;
    byte_output(g, "refused", 1, &one, &refused, EXACT);
    buffer_put(&g->all, &g->given, "%s\"refusal\": \"%s\", \"sentence\": ", g->given.length ? ", " : "", kind);
    buffer_json_string(&g->all, &g->given, sentence);
}
