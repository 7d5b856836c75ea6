/* record.c - --record FOLDER: what a step of text2image and layout computes, in files, so that a port can take the same step from the
 * same numbers and compare. Names and shapes are PyTorch's ([n, channels, h, w]); docs/training.md lists them.
 */
#include "tools/train/train.h"

#include <stdlib.h>
#include <string.h>

static flis_dtype real_type(void)
{
    return sizeof(flis_real) == 8 ? FLIS_F64 : FLIS_F32;
}

/* FOLDER/step-N-WHAT.safetensors, open for writing; N counts from 1. */
static flis_writer *open_file(job *j, uint64_t step, const char *what)
{
    char path[PATH_ROOM], text[40];
    const int used =
        snprintf(path, sizeof path, "%s/step-%llu-%s.safetensors", j->o.record, (unsigned long long)step, what);
    if (used < 0 || used >= PATH_ROOM) {
        flis_fail(&j->ctx, "%.100s…: the name is too long", j->o.record);
        return NULL;
    }
    flis_writer *writer = flis_write_begin(&j->ctx, path);
    snprintf(text, sizeof text, "%llu", (unsigned long long)step);
    flis_write_metadata(&j->ctx, writer, "train.step", text);
    return writer;
}

bool record_begin(job *j)
{
    return !j->o.record || make_folder(&j->ctx, j->o.record);
}

/* ---- A batch ----------------------------------------------------------------------------------------------------- */

/* A tensor of the file: reals, or whole numbers. */
typedef struct entry {
    const char *name;
    flis_dtype dtype;
    int rank;
    uint64_t shape[4];     /* as in the file */
    const flis_real *real; /* [n][h][w][c] where rank is 4, else in the file's order */
    const double *t;
    const int32_t *ids;
    const float *class_ids;
    const uint8_t *label;
} entry;

static void write_entry(flis_ctx *ctx, flis_writer *writer, const entry *e)
{
    size_t count = 1;
    for (int i = 0; i < e->rank; i++) count *= (size_t)e->shape[i];
    if (e->label) {
        flis_write_u8(ctx, writer, e->label, count);
        return;
    }
    flis_real *values = flis_alloc(ctx, count, sizeof *values);
    const flis_tensor image = {.rank = 4,
                               .n = (size_t)e->shape[0],
                               .c = (size_t)e->shape[1],
                               .h = (size_t)e->shape[2],
                               .w = (size_t)e->shape[3],
                               .x = (flis_real *)(uintptr_t)e->real};
    if (values && e->rank == 4) flis_to_nchw(&image, values);
    for (size_t i = 0; values && e->rank != 4 && i < count; i++)
        values[i] = e->real  ? e->real[i]
                    : e->t   ? (flis_real)e->t[i]
                    : e->ids ? (flis_real)e->ids[i]
                             : (flis_real)e->class_ids[i];
    if (values) flis_write_real(ctx, writer, values, count);
    free(values);
}

bool record_batch(job *j, const batch *b, const flis_real *clean, const flis_tensor *text, const flis_tensor *eps,
                  double loss)
{
    flis_ctx *ctx = &j->ctx;
    if (!j->o.record || !flis_ok(ctx)) return flis_ok(ctx);
    const uint64_t n = b->z->n, h = b->z->h, w = b->z->w, side_h = b->rca[0].height, side_w = b->rca[0].width;
    uint8_t *label = flis_scratch(ctx, (size_t)(n * side_h * side_w), 1);
    for (size_t k = 0; label && k < n; k++)
        memcpy(label + k * side_h * side_w, b->rca[k].label, (size_t)(side_h * side_w));
    const flis_dtype real = real_type();
    const entry list[] = {
        {"image", real, 4, {n, 3, side_h, side_w}, .real = b->image},
        {"posterior_noise", real, 4, {n, 4, h, w}, .real = b->posterior},
        {"label", FLIS_U8, 3, {n, side_h, side_w}, .label = label},
        {"z", real, 4, {n, 4, h, w}, .real = clean},
        {"noise", real, 4, {n, 4, h, w}, .real = b->noise->x},
        {"z_t", real, 4, {n, 4, h, w}, .real = b->z->x},
        {"t", real, 1, {n}, .t = b->t},
        {"ids", real, 2, {n, FLIS_TOKENS}, .ids = b->ids},
        {"class_ids", real, 2, {n, FLIS_TOKENS}, .class_ids = b->class_ids},
        {"context", real, 3, {n, FLIS_TOKENS, text->c}, .real = text->x},
        {"eps", real, 4, {n, 4, h, w}, .real = eps->x},
    };
    char what[40], loss_text[40];
    snprintf(loss_text, sizeof loss_text, "%.17g", loss);
    snprintf(what, sizeof what, "batch-%llu", (unsigned long long)j->part + 1);
    flis_writer *writer = label ? open_file(j, j->training.step + 1, what) : NULL;
    if (writer) flis_write_metadata(ctx, writer, "train.loss", loss_text);
    for (int pass = 0; writer && pass < 2; pass++)
        for (size_t i = 0; i < sizeof list / sizeof *list; i++) {
            const entry *e = &list[i];
            if (e->rank == 4 && !e->real) continue; /* latents from a file have no pictures */
            if (pass == 0) flis_write_declare(ctx, writer, e->name, e->dtype, e->rank, e->shape);
            else write_entry(ctx, writer, e);
        }
    return writer && flis_write_end(ctx, writer);
}

/* ---- Gradients and weights --------------------------------------------------------------------------------------- */

static bool record_all(job *j, uint64_t step, const char *what, bool gradients)
{
    flis_ctx *ctx = &j->ctx;
    const training *t = &j->training;
    flis_writer *writer = flis_ok(ctx) ? open_file(j, step, what) : NULL;
    char rate[40];
    snprintf(rate, sizeof rate, "%.17g", t->rate);
    if (writer) flis_write_metadata(ctx, writer, "train.rate", rate);
    for (int pass = 0; writer && pass < 2; pass++)
        for (size_t i = 0; i < t->count; i++) {
            const flis_param *p = t->item[i].param;
            uint64_t shape[4] = {0};
            for (int k = 0; k < p->rank; k++) shape[k] = p->shape[k];
            if (pass == 0) flis_write_declare(ctx, writer, t->item[i].name, real_type(), p->rank, shape);
            else flis_write_real(ctx, writer, gradients ? p->grad : p->value, flis_param_count(p));
        }
    return writer && flis_write_end(ctx, writer);
}

bool record_gradients(job *j)
{
    return !j->o.record || record_all(j, j->training.step + 1, "gradients", true);
}

bool record_weights(job *j)
{
    return !j->o.record || record_all(j, j->training.step, "weights", false);
}
