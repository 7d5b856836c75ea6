/* precision.c - `flis precision`: how far float32, tf32, fp16 and bf16 are from the truth, for every intermediate. Each stage runs
 * once in each format on the same inputs; `flis noise` was its name, and is still the "command" in the metadata.
 */
#include "tools/flis/command.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { FORMATS = 4 };
static const struct {
    const char *name;
    flis_precision precision;
} FORMAT[FORMATS] = {
    {"f32", sizeof(flis_real) == 8 ? FLIS_AS_F32 : FLIS_EXACT}, /* flis is float32 itself */
    {"tf32", FLIS_AS_TF32},
    {"fp16", FLIS_AS_F16},
    {"bf16", FLIS_AS_BF16},
};

/* The errors of one tensor in one format. */
typedef struct errors {
    double largest, rms;
    size_t not_finite;
} errors;
typedef struct tensor_row {
    char *name;
    size_t count;
    double rms; /* of the reference */
    errors of[FORMATS];
} tensor_row;

typedef struct comparison {
    job *j;
    flis_file *model, *truth; /* truth: NULL, or the file that replaces the reference pass */
    tensor_row *row;
    size_t rows, room;
    size_t at;                  /* the next row in this pass */
    int format;                 /* of this pass; -1: the reference */
    size_t h, w;                /* of the latent */
    flis_real *x, *z, *context; /* inputs: [1,4,h,w], the same for the decoder, [1,77,d] */
    size_t width;               /* d */
} comparison;

static bool precision_wants(void *user, const char *name, size_t count)
{
    (void)user;
    (void)name;
    return count <= (size_t)1 << 24;
}

/* The reference values of a row, from the reference pass or from the file. free() them. */
static double *precision_reference(comparison *p, const tensor_row *row)
{
    flis_ctx *ctx = &p->j->ctx;
    double *values = flis_alloc(ctx, row->count, sizeof *values);
    if (values && p->truth) {
        const flis_entry *entry = flis_file_find(p->truth, row->name);
        if (!entry || flis_entry_count(entry) != row->count)
            flis_fail(ctx, "%s: tensor \"%s\": %s, wanted %zu values", p->j->set.truth, row->name,
                      entry ? "of another size" : "missing", row->count);
        else flis_file_read_f64(ctx, p->truth, entry, values);
    }
    for (size_t i = p->j->traced.count; values && !p->truth && i-- > 0;) {
        const named_tensor *t = &p->j->traced.item[i];
        if (strcmp(t->name, row->name) != 0) continue;
        for (size_t k = 0; k < row->count; k++) values[k] = ((const flis_real *)t->values)[k];
        break;
    }
    return values;
}

static tensor_row *new_row(comparison *p, const char *name, size_t count)
{
    flis_ctx *ctx = &p->j->ctx;
    if (p->rows == p->room) {
        size_t room = p->room ? 2 * p->room : 256;
        tensor_row *larger = flis_alloc(ctx, room, sizeof *larger);
        if (!larger) return NULL;
        if (p->rows) memcpy(larger, p->row, p->rows * sizeof *larger);
        free(p->row);
        p->row = larger;
        p->room = room;
    }
    tensor_row *row = &p->row[p->rows];
    memset(row, 0, sizeof *row);
    row->count = count;
    if (!(row->name = flis_alloc(ctx, strlen(name) + 1, 1))) return NULL;
    strcpy(row->name, name);
    p->rows++;
    return row;
}

/* Compares one tensor of a pass. The first pass makes the row; the reference pass also keeps the values. */
static void precision_take(void *user, const char *name, const flis_tensor *x)
{
    comparison *p = user;
    flis_ctx *ctx = &p->j->ctx;
    if (x->bytes || !flis_ok(ctx)) return;
    if (p->format < 0) add_activation(ctx, &p->j->traced, name, x);
    tensor_row *row = p->at == p->rows ? new_row(p, name, flis_count(x)) : &p->row[p->at];
    p->at++;
    double *wanted = row ? precision_reference(p, row) : NULL, square = 0, error = 0;
    flis_real *got = wanted ? flis_alloc(ctx, row->count, sizeof *got) : NULL;
    if (got && x->rank == 4) flis_to_nchw(x, got);
    else if (got) memcpy(got, x->x, row->count * sizeof *got);
    errors none = {0}, *d = row && p->format >= 0 ? &row->of[p->format] : &none;
    for (size_t i = 0; got && flis_ok(ctx) && i < row->count; i++) {
        const double size = fabs((double)got[i] - wanted[i]);
        square += wanted[i] * wanted[i];
        error += size * size;
        if (!(size <= DBL_MAX)) d->not_finite++;
        else if (size > d->largest) d->largest = size;
    }
    if (got && p->format < 0 && d->not_finite)
        flis_fail(ctx, "%s: %zu values of the reference are not finite", name, d->not_finite);
    if (row) row->rms = sqrt(square / (double)row->count);
    d->rms = row ? sqrt(error / (double)row->count) : 0;
    if (d->not_finite) d->rms = d->largest = HUGE_VAL;
    free(got);
    free(wanted);
}

/* The inputs of the stages: tokens, latents from the seed, a layout of four quarters. They fit any model. */
enum { PHRASE = 8 };
static const float CLASSES[PHRASE] = {0, 0, 1, 2, 3, -1, 3, 1};

static bool precision_clip(comparison *p, const flis_clip *clip)
{
    flis_ctx *ctx = &p->j->ctx;
    const flis_clip_config *k = flis_clip_get_config(clip);
    int32_t ids[FLIS_TOKENS];
    for (size_t i = 0; i < FLIS_TOKENS; i++) ids[i] = (int32_t)k->vocab - 1;
    ids[0] = (int32_t)k->vocab - 2;
    for (size_t i = 1; i <= PHRASE; i++) ids[i] = (int32_t)((i * 1009 + 320) % (k->vocab - 2));
    flis_mark mark = flis_here(ctx);
    const flis_tensor *y = flis_clip_encode(ctx, clip, ids, 1);
    if (y && p->format < 0) { /* float32 numbers, so that flis and flis64 continue from the same input */
        p->width = y->c;
        p->context = flis_alloc(ctx, flis_count(y), sizeof *p->context);
        for (size_t i = 0; p->context && i < flis_count(y); i++) p->context[i] = (float)y->x[i];
    }
    flis_rewind(ctx, mark);
    return flis_ok(ctx);
}

static bool precision_unet(comparison *p, const flis_unet *unet)
{
    flis_ctx *ctx = &p->j->ctx;
    const size_t height = p->h * FLIS_FACTOR, width = p->w * FLIS_FACTOR;
    const double t = 981;
    flis_mark mark = flis_here(ctx);
    uint8_t *label = flis_alloc(ctx, height, width);
    for (size_t i = 0; label && i < height * width; i++)
        label[i] = (uint8_t)((i / width >= height / 2) * 2 + (i % width >= width / 2));
    const flis_rca rca = {label, height, width, CLASSES, PHRASE}, *one = &rca;
    flis_tensor *context = flis_rows(ctx, 1, FLIS_TOKENS, p->width);
    if (context) memcpy(context->x, p->context, flis_count(context) * sizeof *p->context);
    flis_unet_eps(ctx, unet, flis_from_nchw(ctx, p->x, 1, 4, p->h, p->w), &t, context, &one);
    free(label);
    flis_rewind(ctx, mark);
    return flis_ok(ctx);
}

static bool precision_decode(comparison *p, const flis_vae *vae)
{
    flis_ctx *ctx = &p->j->ctx;
    flis_mark mark = flis_here(ctx);
    flis_vae_decode(ctx, vae, flis_from_nchw(ctx, p->z, 1, 4, p->h, p->w));
    flis_rewind(ctx, mark);
    return flis_ok(ctx);
}

/* One stage: the reference pass, unless a file has its values, then each format. One stage's weights and values are in memory. */
static bool precision_stage(comparison *p, const char *scope)
{
    flis_ctx *ctx = &p->j->ctx;
    flis_clip *clip = *scope == 'c' ? flis_clip_load(ctx, p->model) : NULL;
    flis_unet *unet = *scope == 'u' ? flis_unet_load(ctx, p->model) : NULL;
    flis_vae *vae = *scope == 'd' ? flis_vae_load(ctx, p->model, true, false) : NULL;
    const size_t first = p->rows;
    char what[16];
    snprintf(what, sizeof what, "%.*s", (int)strlen(scope) - 1, scope);
    if (!p->j->set.trace) free_tensors(&p->j->traced);
    snprintf(ctx->scope, sizeof ctx->scope, "%s", scope);
    ctx->progress = NULL; /* the decoder's own would interrupt the line */
    for (p->format = p->truth ? 0 : -1; p->format < FORMATS && flis_ok(ctx); p->format++) {
        if (!p->truth && p->format >= 0 && FORMAT[p->format].precision == FLIS_EXACT)
            continue; /* the reference itself */
        p->at = first;
        ctx->precision = p->format < 0 ? FLIS_EXACT : FORMAT[p->format].precision;
        if (clip) precision_clip(p, clip);
        if (unet) precision_unet(p, unet);
        if (vae) precision_decode(p, vae);
        if (flis_ok(ctx)) job_progress(p->j, what, (size_t)(p->format + 1), FORMATS);
    }
    ctx->precision = FLIS_EXACT;
    ctx->progress = job_progress;
    flis_clip_free(clip);
    flis_unet_free(unet);
    flis_vae_free(vae);
    return flis_ok(ctx);
}

/* An input from the file with the truth. */
static flis_real *precision_input(comparison *p, const char *name, size_t count)
{
    flis_ctx *ctx = &p->j->ctx;
    const flis_entry *entry = flis_file_find(p->truth, name);
    flis_real *values = flis_alloc(ctx, count, sizeof *values);
    if (!entry || flis_entry_count(entry) != count)
        flis_fail(ctx, "%s: tensor \"%s\": %s: is this what flis64 precision --trace wrote, of the same size?",
                  p->j->set.truth, name, entry ? "of another size" : "missing");
    else if (values) flis_file_read_real(ctx, p->truth, entry, values);
    return values;
}

static void precision_inputs(comparison *p)
{
    flis_ctx *ctx = &p->j->ctx;
    const size_t count = 4 * p->h * p->w;
    const char *factor = flis_file_metadata(p->model, "vae.scale_factor");
    const float by = (float)(1 / (factor ? strtod(factor, NULL) : 0.18215));
    float *drawn = flis_alloc(ctx, count, sizeof *drawn);
    p->x = flis_alloc(ctx, count, sizeof *p->x);
    p->z = flis_alloc(ctx, count, sizeof *p->z);
    flis_rng_seed(&ctx->rng, FLIS_RNG_CPU, p->j->options.seed);
    if (drawn && p->x && p->z) flis_randn(&ctx->rng, drawn, count);
    for (size_t i = 0; flis_ok(ctx) && i < count; i++) {
        p->x[i] = drawn[i];
        p->z[i] = drawn[i] * by;
    }
    free(drawn);
    if (!p->truth || !flis_ok(ctx)) return;
    const flis_entry *context = flis_file_find(p->truth, "in.context");
    p->width = context && context->rank == 3 ? (size_t)context->shape[2] : 0;
    p->context = precision_input(p, "in.context", FLIS_TOKENS * p->width);
    flis_real *x = precision_input(p, "in.x", count);
    if (x && memcmp(x, p->x, count * sizeof *x) != 0)
        flis_fail(ctx, "%s: its inputs differ: wanted the same --size and --seed", p->j->set.truth);
    free(x);
    const char *model = flis_file_metadata(p->truth, "model.sha256");
    for (size_t i = 0; i < p->j->facts; i++)
        if (strcmp(p->j->fact[i].key, "model.sha256") == 0 && (!model || strcmp(model, p->j->fact[i].value) != 0))
            flis_fail(ctx, "%s: was made with another model, wanted this one", p->j->set.truth);
}

/* The reference with its inputs, for --truth. */
static void precision_save(comparison *p)
{
    flis_ctx *ctx = &p->j->ctx;
    const uint64_t latent[] = {1, 4, p->h, p->w}, text[] = {1, FLIS_TOKENS, p->width};
    const size_t count = 4 * p->h * p->w;
    flis_real *x = add_tensor(ctx, &p->j->traced, "in.x", real_type(), 4, latent);
    flis_real *z = add_tensor(ctx, &p->j->traced, "in.z", real_type(), 4, latent);
    flis_real *context = add_tensor(ctx, &p->j->traced, "in.context", real_type(), 3, text);
    if (x) memcpy(x, p->x, count * sizeof *x);
    if (z) memcpy(z, p->z, count * sizeof *z);
    if (context) memcpy(context, p->context, FLIS_TOKENS * p->width * sizeof *context);
    save_tensors(ctx, p->j->set.trace, &p->j->traced, p->j->fact, p->j->facts);
}

/* ---- Report --------------------------------------------------------------------------------------------------------- */

static int by_size(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Of a stage in a format: the median and the worst of rms error / rms; the worst of largest error / rms; rms error / rms of the
   last tensor, which is the stage's result. */
typedef struct summary {
    size_t tensors, not_finite; /* not_finite: tensors with a non-finite value */
    double median, worst, peak, result;
    const tensor_row *worst_row, *peak_row, *bad_row;
} summary;

static double relative(double error, double rms)
{
    return rms > 0 ? error / rms : error > 0 ? HUGE_VAL : 0;
}

static summary summarise(const comparison *p, const char *scope, int format)
{
    summary s = {0};
    double *all = calloc(p->rows ? p->rows : 1, sizeof *all);
    for (size_t i = 0; all && i < p->rows; i++) {
        const tensor_row *row = &p->row[i];
        const errors *d = &row->of[format];
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

static const char *const SCOPES[] = {"clip.", "unet.", "decode."};
enum { STAGES = sizeof SCOPES / sizeof *SCOPES };

/* The first format that was compared: without a truth, float's own column would be zero. */
static int first_format(const comparison *p)
{
    return !p->truth && FORMAT[0].precision == FLIS_EXACT;
}

static void print_table(const comparison *p)
{
    printf("tensor\trms");
    for (int f = first_format(p); f < FORMATS; f++)
        printf("\t%s max\t%s rms\t%s relative", FORMAT[f].name, FORMAT[f].name, FORMAT[f].name);
    printf("\n");
    for (size_t i = 0; i < p->rows; i++) {
        const tensor_row *row = &p->row[i];
        printf("%s\t%.3g", row->name, row->rms);
        for (int f = first_format(p); f < FORMATS; f++)
            printf("\t%.3g\t%.3g\t%.3g", row->of[f].largest, row->of[f].rms, relative(row->of[f].rms, row->rms));
        printf("\n");
    }
    printf("\nstage\tformat\ttensors\tmedian relative\tworst relative\tof\tworst max / rms\tof\tresult's relative\t"
           "not finite\tfirst\n");
    for (int k = 0; k < STAGES; k++)
        for (int f = first_format(p); f < FORMATS; f++) {
            const summary s = summarise(p, SCOPES[k], f);
            const int length = (int)strlen(SCOPES[k]) - 1;
            printf("%.*s\t%s\t%zu\t%.3g\t%.3g\t%s\t%.3g\t%s\t%.3g\t%zu\t%s\n", length, SCOPES[k], FORMAT[f].name,
                   s.tensors, s.median, s.worst, s.worst_row ? s.worst_row->name : "-", s.peak,
                   s.peak_row ? s.peak_row->name : "-", s.result, s.not_finite, s.bad_row ? s.bad_row->name : "-");
        }
}

static void put_number(flis_ctx *ctx, buffer *t, const char *name, double x)
{
    buffer_put(ctx, t, ", \"%s\": ", name);
    buffer_json_number(ctx, t, x, 9);
}

static void precision_json_row(flis_ctx *ctx, buffer *t, const comparison *p, const tensor_row *row)
{
    buffer_put(ctx, t, "{\"name\": ");
    buffer_json_string(ctx, t, row->name);
    buffer_put(ctx, t, ", \"count\": %zu", row->count);
    put_number(ctx, t, "rms", row->rms);
    for (int f = first_format(p); f < FORMATS; f++) {
        buffer_put(ctx, t, ", \"%s\": {\"not_finite\": %zu", FORMAT[f].name, row->of[f].not_finite);
        put_number(ctx, t, "max", row->of[f].largest);
        put_number(ctx, t, "rms", row->of[f].rms);
        put_number(ctx, t, "relative", relative(row->of[f].rms, row->rms));
        buffer_put(ctx, t, "}");
    }
    buffer_put(ctx, t, "}");
}

static void precision_json_summary(flis_ctx *ctx, buffer *t, const comparison *p, int stage_number, int f)
{
    const summary s = summarise(p, SCOPES[stage_number], f);
    buffer_put(ctx, t, "{\"stage\": \"%.*s\", \"format\": \"%s\", \"tensors\": %zu, \"not_finite\": %zu",
               (int)strlen(SCOPES[stage_number]) - 1, SCOPES[stage_number], FORMAT[f].name, s.tensors, s.not_finite);
    put_number(ctx, t, "median_relative", s.median);
    put_number(ctx, t, "worst_relative", s.worst);
    put_number(ctx, t, "worst_max_over_rms", s.peak);
    put_number(ctx, t, "result_relative", s.result);
    buffer_put(ctx, t, "}");
}

static void precision_json(comparison *p)
{
    flis_ctx *ctx = &p->j->ctx;
    buffer t = {NULL, 0, 0};
    put_facts(p->j, &t);
    buffer_put(ctx, &t, ",\n\"summary\": [");
    for (int k = 0; k < STAGES; k++)
        for (int f = first_format(p); f < FORMATS; f++) {
            buffer_put(ctx, &t, k || f > first_format(p) ? ",\n" : "\n");
            precision_json_summary(ctx, &t, p, k, f);
        }
    buffer_put(ctx, &t, "],\n\"tensors\": [");
    for (size_t i = 0; i < p->rows; i++) {
        buffer_put(ctx, &t, i ? ",\n" : "\n");
        precision_json_row(ctx, &t, p, &p->row[i]);
    }
    buffer_put(ctx, &t, "]}\n");
    output_write(ctx, p->j->set.json, t.at, t.length);
    free(t.at);
}

static void add_precision_facts(job *j)
{
    add_run_facts(j, "noise", true);
    add_fact(j, "seed", "%llu", (unsigned long long)j->options.seed);
    add_fact(j, "size", "%zux%zu", j->options.width, j->options.height);
    if (j->set.truth) add_file_facts(j, "truth", "truth.sha256", j->set.truth);
    add_fact(j, "reference", "%s", j->set.truth ? "truth" : sizeof(flis_real) == 8 ? "double" : "float");
}

static void free_comparison(comparison *p)
{
    for (size_t i = 0; i < p->rows; i++) free(p->row[i].name);
    free(p->row);
    free(p->x);
    free(p->z);
    free(p->context);
    flis_file_close(p->truth);
    flis_file_close(p->model);
}

int run_precision(job *j)
{
    flis_ctx *ctx = &j->ctx;
    const settings *s = &j->set;
    comparison p = {.j = j, .h = s->height / FLIS_FACTOR, .w = s->width / FLIS_FACTOR};
    if (j->words) return unexpected_argument(j->program, j->word[0]);
    if (s->truth && s->trace)
        return usage_error(j->program,
                           "--trace and --truth exclude each other: --trace writes the reference, which --truth reads");
    job_begin(j);
    if (job_check_outputs(j, NULL) && (!s->truth || input_check(ctx, s->truth)) && find_model(j) &&
        job_check_outputs(j, NULL))
        p.model = open_model(j);
    if (p.model && (s->json || s->trace || s->truth)) add_precision_facts(j);
    if (p.model && s->truth) p.truth = flis_file_open(ctx, s->truth);
    if (p.model && flis_ok(ctx)) precision_inputs(&p);
    if (sizeof(flis_real) == 4 && !s->truth && flis_ok(ctx))
        job_note(j, "note",
                 "the reference is float32 itself; to compare with the truth use flis64 precision, or --truth");
    ctx->trace = precision_take;
    ctx->trace_wants = precision_wants;
    ctx->trace_user = &p;
    for (int k = 0; k < STAGES && flis_ok(ctx); k++) precision_stage(&p, SCOPES[k]);
    progress_end(&j->progress);
    if (s->trace && flis_ok(ctx)) precision_save(&p);
    if (s->json && flis_ok(ctx)) precision_json(&p);
    if (flis_ok(ctx) && !(s->json && leads_to_stdout(s->json))) print_table(&p);
    free_comparison(&p);
    return job_status(j);
}
