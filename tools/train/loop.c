/* loop.c - the training loop: steps, workers, the state in a file.
 *
 * A state holds all that changes, so a training that was stopped and resumed gives the same file as one that was not, on any
 * number of threads.
 */
#include "tools/train/train.h"

#include <stdlib.h>
#include <string.h>

/* ---- State ------------------------------------------------------------------------------------------------------- */

/* What must be equal when a training is resumed: everything that the bits of a step depend on. Options that are newer than this
   text appear only where they are used, so that older states can still be resumed. */
static void fingerprint(const options *o, char *out, size_t room)
{
    char later[96] = "";
    size_t at = 0;
    if (o->workers > 1) at += (size_t)snprintf(later, sizeof later, " workers %llu", (unsigned long long)o->workers);
    if (o->alone > 0) at += (size_t)snprintf(later + at, sizeof later - at, " alone %.9g", o->alone);
    if (o->things_weight != 1) snprintf(later + at, sizeof later - at, " things weight %.9g", o->things_weight);
    snprintf(out, room,
             "%s seed %llu batch %llu warmup %llu rate %.9g decay %.9g ema %.9g clip %.9g dropout %.9g kl %.9g edges "
             "%.9g colours %.9g "
             "size %llu crop %llu window %llu set %s%s%s%s%s%s",
             STAGE[o->stage], (unsigned long long)o->seed, (unsigned long long)o->batch, (unsigned long long)o->warmup,
             o->rate, o->decay, o->ema, o->clip, o->dropout, o->kl, o->edges, o->colours, (unsigned long long)o->size,
             (unsigned long long)o->crop, (unsigned long long)o->window, o->data ? "" : o->set,
             o->frozen_text ? " frozen text" : "", o->frozen_encoder ? " frozen encoder" : "",
             o->things ? " things" : "", o->stage == SEGMENTER && o->model ? " through an autoencoder" : "", later);
}

/* The metadata of a model is there too, so that `flis info` can describe a state. */
static bool state_write(job *j)
{
    char text[400];
    flis_writer *writer = flis_write_begin(&j->ctx, j->o.state);
    if (!writer) return false;
    fingerprint(&j->o, text, sizeof text);
    flis_write_metadata(&j->ctx, writer, "train.options", text);
    model_metadata(&j->ctx, writer, &j->m, j->m.vae ? flis_vae_get_config(j->m.vae)->scale_factor : 1);
    training_declare(&j->ctx, writer, &j->training);
    training_write(&j->ctx, writer, &j->training);
    return flis_write_end(&j->ctx, writer) && log_write(j);
}

static bool state_read(job *j)
{
    char text[400];
    flis_file *file = flis_file_open(&j->ctx, j->o.state);
    if (!file) return false;
    const char *saved = flis_file_metadata(file, "train.options");
    fingerprint(&j->o, text, sizeof text);
    bool good = saved && strcmp(saved, text) == 0;
    if (!good)
        flis_fail(&j->ctx, "%s: its options were \"%s\", wanted \"%s\"", j->o.state, saved ? saved : "none", text);
    good = good && training_read(&j->ctx, file, &j->training);
    flis_file_close(file);
    return good && log_read(j);
}

/* ---- Workers ----------------------------------------------------------------------------------------------------- */

/* Data parallelism: the batch is split among workers, each of which takes its share through the whole network with one thread. A
   small network's operations are too short to be split well (measured: two threads train 1.1 to 1.3 times as fast as one). */
static bool workers_make(job *j)
{
    const size_t workers = (size_t)j->o.workers;
    j->units = j->scenes ? j->scenes : (size_t)j->o.batch;
    j->share = 1;
    if (workers < 2) return true;
    if (workers > j->units)
        return flis_fail(&j->ctx, "--workers %zu: wanted at most %zu, the parts that a batch has", workers, j->units);
    if (!(j->worker = flis_alloc(&j->ctx, workers, sizeof *j->worker))) return false;
    for (size_t i = 0; i < workers; i++) {
        job *own = &j->worker[i];
        *own = *j;
        own->worker = NULL;
        own->tape = (flis_tape){.worker = i, .checkpoint = j->tape.checkpoint};
        own->first = i * j->units / workers;
        own->units = (i + 1) * j->units / workers - own->first;
        own->share = (double)own->units / (double)j->units;
        if (j->scenes) own->scene = j->scene + own->first, own->scenes = own->units;
        j->workers = i + 1;
        if (!flis_init(&own->ctx)) return flis_fail(&j->ctx, "%s", own->ctx.error);
        own->ctx.threads = 1;
    }
    return true;
}

static void workers_free(job *j)
{
    for (size_t i = 0; i < j->workers; i++) {
        flis_tape_free(&j->worker[i].tape);
        flis_free(&j->worker[i].ctx);
    }
    free(j->worker);
}

/* The loss of a batch; its gradients accumulate, each worker's apart. */
static double batch_loss(job *j)
{
    double loss = 0;
    if (!j->worker) return j->loss(j);
#ifdef _OPENMP
#pragma omp parallel for num_threads(j->ctx.threads) schedule(dynamic)
#endif
    for (size_t i = 0; i < j->workers; i++) {
        j->worker[i].training.step = j->training.step;
        j->worker[i].share_loss = j->worker[i].loss(&j->worker[i]);
    }
    for (size_t i = 0; i < j->workers; i++) {
        if (!flis_ok(&j->worker[i].ctx)) flis_fail(&j->ctx, "%s", j->worker[i].ctx.error);
        loss += j->worker[i].share * j->worker[i].share_loss;
    }
    return loss;
}

/* ---- Steps ------------------------------------------------------------------------------------------------------- */

/* Rises linearly over the warmup, stays, and falls to a tenth over the last fifth. */
static double rate_at(const options *o, uint64_t step)
{
    const double done = (double)step + 1, fall = 0.2 * (double)o->steps, left = (double)o->steps - (double)step;
    if (done < (double)o->warmup) return o->rate * done / (double)o->warmup;
    return left < fall ? o->rate * (0.1 + 0.9 * left / fall) : o->rate;
}

static void show(job *j, double loss)
{
    const uint64_t step = j->training.step;
    if (!is_terminal(stderr) && step % LINE_EVERY && step != j->o.steps) return;
    progress_note(&j->progress, STAGE[j->o.stage], (size_t)step, (size_t)j->o.steps, "loss %.4f, gradient norm %.2f",
                  loss, j->training.norm);
}

/* Trains until all steps are done (*finished), the time is over or a signal arrives. Either way the state is saved. */
static bool loop(job *j, bool *finished)
{
    const double began = seconds_now();
    double sum = 0, saved = began;
    uint64_t summed = 0;
    *finished = true;
    progress_show(&j->progress, STAGE[j->o.stage], (size_t)j->training.step, (size_t)j->o.steps);
    while (j->training.step < j->o.steps) {
        j->training.rate = rate_at(&j->o, j->training.step);
        const double loss = batch_loss(j);
        if (!flis_ok(&j->ctx) || !training_step(&j->ctx, &j->training)) return false;
        sum += loss;
        summed++;
        show(j, sum / (double)summed);
        if (j->training.step % LOG_EVERY && j->training.step != j->o.steps) continue;
        if (!log_add(j, j->training.step, sum / (double)summed, j->training.norm)) return false;
        sum = 0;
        summed = 0;
        const double now = seconds_now();
        const bool last = *j->stop || (j->o.minutes > 0 && now - began > 60 * j->o.minutes);
        if (last || (j->o.every > 0 && now - saved >= 60 * j->o.every)) {
            if (!state_write(j) || !plot_write(j)) return false;
            saved = now;
        }
        if (!last) continue;
        *finished = j->training.step >= j->o.steps;
        break;
    }
    return state_write(j) && plot_write(j);
}

bool train(job *j)
{
    bool finished = false;
    flis_schedule_make(&j->schedule);
    training_default(&j->training);
    j->training.decay = j->o.decay;
    j->training.ema = j->o.ema;
    j->training.clip = j->o.clip;
    j->training.workers = (size_t)j->o.workers;
    j->tape.checkpoint = j->o.less_memory;
    if (!prepare(j) || !workers_make(j) || (j->o.resume && !state_read(j))) return false;
    const bool good = loop(j, &finished);
    progress_end(&j->progress);
    if (!good) return false;
    if (finished) return write_result(j);
    if (!j->o.quiet)
        fprintf(stderr, "train %s: stopped at step %llu; --resume continues\n", STAGE[j->o.stage],
                (unsigned long long)j->training.step);
    return true;
}

void job_free(job *j)
{
    training_free(&j->training);
    models_free(&j->m);
    flis_vae_free(j->autoencoder);
    flis_vocab_free(j->vocab);
    workers_free(j);
    flis_tape_free(&j->tape);
    latents_free(&j->data);
    photos_close(&j->folder);
    flis_free_visit(&j->ctx, NULL, NULL, &j->edges);
    flis_free_visit(&j->ctx, NULL, NULL, &j->colours);
    for (size_t i = 0; i < j->scenes; i++) free(j->scene[i]);
    free(j->scene);
    free(j->line);
    flis_free(&j->ctx);
}
