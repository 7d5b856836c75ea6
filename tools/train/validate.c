/* validate.c - the loss on samples that are not learned from, which rises where a training learns its samples by heart.
 *
 * Each sample has its own timestep and noise, the same every time, from a seed apart from the training's; so two values of the
 * curve differ by the weights alone. The weights are those that -o would get: the averages, where there are any. A sample is a
 * batch of its own, so no bit depends on --batch, --workers or threads, and the training's random numbers stay as they were.
 */
#include "tools/train/train.h"

#include <math.h>
#include <stdlib.h>

enum { VALIDATION_SEED = 42 };

bool validate_prepare(job *j)
{
    validation *v = &j->validation;
    bool good = true;
    if (!flis_ok(&j->ctx)) return false;
    if (j->o.val_list) {
        options o = j->o;
        o.train_list = o.val_list;
        good = photos_open_dataset(&j->ctx, &o, j->vocab, &v->folder);
    } else if (j->o.validate && j->o.data)
        good = photos_open(&j->ctx, j->o.validate, j->o.stage == LAYOUT, j->vocab, &v->folder);
    else if (j->o.validate)
        good =
            latents_read(&j->ctx, j->o.validate, &v->data) && latents_check(&j->ctx, j->o.validate, &v->data, j->vocab);
    if (!good) return false;
    v->of = v->folder.files.count ? v->folder.files.count : v->data.count;
    v->count = j->o.validate_count && j->o.validate_count < v->of ? (size_t)j->o.validate_count : v->of;
    v->loss = NAN;
    photos_settings(&v->folder, &j->o);
    return !v->folder.files.count || photos_check(j, &v->folder);
}

/* Sample i. Timesteps are spread evenly, t = floor(1000 (i + u) / count) with u uniform in 0 ... 1: few samples have all of them. */
static double sample_loss(job *j, size_t i)
{
    flis_ctx *ctx = &j->ctx;
    const validation *v = &j->validation;
    const bool folder = v->folder.files.count > 0;
    const size_t h = folder ? (size_t)j->o.size / FLIS_FACTOR : window_side(j, v->data.h),
                 w = folder ? h : window_side(j, v->data.w);
    const options fixed = {.stage = j->o.stage, .seed = VALIDATION_SEED};
    const double scale = flis_vae_get_config(j->m.vae)->scale_factor;
    const choice c = {.at = spread_evenly(i, v->count, v->of)};
    dice d = dice_of(&fixed, DICE_VALIDATE, 0, i);
    const double t = ((double)i + roll(&d, FLIS_TIMESTEPS) / (double)FLIS_TIMESTEPS) / (double)v->count;
    decoded photo = {0};
    flis_mark mark = flis_here(ctx);
    batch *b = batch_new(ctx, 1, h, w, false);
    bool good = b && (!folder || decoded_make(ctx, (size_t)j->o.size, &photo));
    if (good && folder) decode_photo(&v->folder, c.at, (size_t)j->o.size, false, &photo);
    good = good && (folder ? put_photo(j, &v->folder, c, &photo, b, 0, scale, &d)
                           : put_latents(j, &v->data, c, b, 0, scale, &d));
    double loss = -1;
    if (good) {
        b->t[0] = floor(FLIS_TIMESTEPS * t);
        batch_add_noise(&j->schedule, b);
        const flis_tensor *text = flis_clip_encode(ctx, j->m.clip, b->ids, 1);
        const flis_tensor *eps = flis_unet_eps(ctx, j->m.unet, b->z, b->t, text, b->layout);
        loss = eps ? flis_mse(ctx, eps, b->noise->x, NULL, 1) : -1;
    }
    decoded_free(&photo);
    flis_rewind(ctx, mark);
    return loss;
}

/* Every `workers`-th sample. */
static void share_losses(job *j, job *worker, size_t first, size_t workers, double *loss, progress *shown)
{
    for (size_t i = first; i < j->validation.count && flis_poll(&worker->ctx); i += workers) {
        loss[i] = sample_loss(worker, i);
        if (first == 0 && is_terminal(stderr) && i + 1 < j->validation.count) /* the last line has the result */
            progress_show(shown, "validate", i + 1, j->validation.count);
    }
}

static void all_losses(job *j, double *loss, progress *shown)
{
    progress_end(&j->progress);
    progress_show(shown, "validate", 0, j->validation.count);
    if (!j->worker) share_losses(j, j, 0, 1, loss, shown);
#ifdef _OPENMP
#pragma omp parallel for num_threads(j->ctx.threads) schedule(dynamic)
#endif
    for (size_t k = 0; k < j->workers; k++) share_losses(j, &j->worker[k], k, j->workers, loss, shown);
    for (size_t k = 0; k < j->workers; k++)
        if (!flis_ok(&j->worker[k].ctx)) flis_fail(&j->ctx, "%s", j->worker[k].ctx.error);
}

void averages_swap(job *j)
{
    flis_ctx plain = FLIS_CTX_PLAIN; /* also on a failed context: the weights must come back */
    if (j->training.ema > 0) training_swap(&plain, &j->training);
}

bool validate(job *j)
{
    validation *v = &j->validation;
    progress shown = {.quiet = j->o.quiet, .unit = "sample"};
    double sum = 0, *loss = flis_alloc(&j->ctx, v->count, sizeof *loss);
    if (!loss) return false;
    averages_swap(j);
    all_losses(j, loss, &shown);
    averages_swap(j);
    for (size_t i = 0; i < v->count; i++) sum += loss[i];
    free(loss);
    progress_end(&shown);
    if (!flis_ok(&j->ctx)) return false;
    v->loss = sum / (double)v->count;
    progress_note(&shown, "validate", v->count, v->count, "loss %.4f", v->loss);
    return true;
}

/* A line of the log without its value is one that Ctrl-C cut short: a resumed training measures it now. */
bool validate_if_due(job *j)
{
    const uint64_t step = j->training.step;
    log_line *line = j->lines ? &j->line[j->lines - 1] : NULL;
    if (!j->validation.count || !line || line->step != step || !isnan(line->validation)) return true;
    if (step % j->o.validate_every && step != j->o.steps) return true;
    if (!validate(j)) return false;
    line->validation = j->validation.loss;
    return true;
}
