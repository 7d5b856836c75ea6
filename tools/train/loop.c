/* loop.c - the training loop: steps, workers, stopping. */
#include "tools/train/train.h"

#include <stdlib.h>
#include <string.h>

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
        own->ctx.interrupted = j->stop;
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
static double batch_loss(job *j, uint64_t part)
{
    double loss = 0;
    j->part = part;
    ahead_batch(j);
    if (!flis_poll(&j->ctx)) return -1;
    if (!j->worker) return j->loss(j);
#ifdef _OPENMP
#pragma omp parallel for num_threads(j->ctx.threads) schedule(dynamic)
#endif
    for (size_t i = 0; i < j->workers; i++) {
        j->worker[i].training.step = j->training.step;
        j->worker[i].part = part;
        j->worker[i].share_loss = j->worker[i].loss(&j->worker[i]);
    }
    for (size_t i = 0; i < j->workers; i++) {
        if (!flis_ok(&j->worker[i].ctx)) flis_fail(&j->ctx, "%s", j->worker[i].ctx.error);
        loss += j->worker[i].share * j->worker[i].share_loss;
    }
    return loss;
}

/* ---- Steps ------------------------------------------------------------------------------------------------------- */

/* Rises linearly over the warmup, stays, and falls to a tenth over the last steps (--fall). */
static double rate_at(const options *o, uint64_t step)
{
    const double done = (double)step + 1, fall = o->fall * (double)o->steps, left = (double)o->steps - (double)step;
    if (done < (double)o->warmup) return o->rate * done / (double)o->warmup;
    return left < fall ? o->rate * (0.1 + 0.9 * left / fall) : o->rate;
}

static void show_step(job *j, double loss)
{
    const uint64_t step = j->training.step;
    char measured[40] = "";
    if (!is_terminal(stderr) && step % LINE_EVERY && step != j->o.steps) return;
    if (j->validation.loss == j->validation.loss && j->validation.count)
        snprintf(measured, sizeof measured, ", validation %.4f", j->validation.loss);
    progress_note(&j->progress, STAGE[j->o.stage], (size_t)step, (size_t)j->o.steps, "loss %.4f%s, gradient norm %.2f",
                  loss, measured, j->training.norm);
}

/* True after Ctrl-C. What the context failed with then is forgotten: the step that was cut short changed no weight, and a resumed
   training does it again. From now on nothing is interrupted, for the state must be written. */
static bool stopped(job *j)
{
    if (!*j->stop) return false;
    flis_clear_error(&j->ctx);
    j->ctx.interrupted = NULL;
    return true;
}

/* One step, and its line of the log where one is due. */
static bool step(job *j)
{
    j->training.rate = rate_at(&j->o, j->training.step);
    double loss = 0;
    for (uint64_t part = 0; part < j->o.accumulate && flis_ok(&j->ctx); part++)
        loss += batch_loss(j, part) / (double)j->o.accumulate;
    if (!flis_ok(&j->ctx) || !record_gradients(j) || !training_step(&j->ctx, &j->training) || !record_weights(j))
        return false;
    j->sum += loss;
    j->summed++;
    show_step(j, j->sum / (double)j->summed);
    if (j->training.step % LOG_EVERY && j->training.step != j->o.steps) return true;
    if (!log_add(j, j->training.step, j->sum / (double)j->summed, j->training.norm)) return false;
    j->sum = 0;
    j->summed = 0;
    return true;
}

/* What a person watches: the validation loss, pictures. */
static bool watch(job *j, bool again)
{
    return validate_if_due(j) && show_if_due(j, again);
}

/* Trains until all steps are done (*finished), the time is over or a signal arrives. Either way the state is saved. */
static bool loop(job *j, bool *finished)
{
    const double began = seconds_now();
    double saved = began;
    uint64_t saved_step = UINT64_MAX;
    bool last = false;
    if (!watch(j, false)) { /* before the first step; what Ctrl-C cut short before a resumed one */
        if (!stopped(j)) return false;
        last = true;
    }
    progress_show(&j->progress, STAGE[j->o.stage], (size_t)j->training.step, (size_t)j->o.steps);
    while (j->training.step < j->o.steps && !last) {
        const bool done = step(j) && watch(j, true);
        last = stopped(j);
        if (!done && !last) return false;
        const double now = seconds_now();
        last = last || (j->o.minutes > 0 && now - began > 60 * j->o.minutes);
        if (last || j->o.every <= 0 || now - saved < 60 * j->o.every) continue;
        if (!state_write(j) || !plot_write(j)) return false;
        saved = now;
        saved_step = j->training.step;
    }
    *finished = j->training.step >= j->o.steps;
    progress_end(&j->progress);
    return saved_step == j->training.step || (state_write(j) && plot_write(j));
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
    if (!state_check(j) || !record_begin(j) || !prepare(j) || !validate_prepare(j) || !show_prepare(j) ||
        !ahead_make(j) || !workers_make(j) || !origins_find(j) || (j->o.resume && !state_read(j)))
        return false;
    j->ctx.warn = NULL; /* every file was seen, and is read again in many steps */
    const bool good = loop(j, &finished);
    progress_end(&j->progress);
    if (!good) return false;
    if (finished && !write_result(j)) finished = !stopped(j);
    if (!finished && flis_ok(&j->ctx) && !j->o.quiet)
        fprintf(stderr, "train %s: stopped at step %llu; --resume continues\n", STAGE[j->o.stage],
                (unsigned long long)j->training.step);
    return flis_ok(&j->ctx);
}

void job_free(job *j)
{
    ahead_free(j); /* its thread reads the folder */
    training_free(&j->training);
    models_free(&j->m);
    flis_vae_free(j->autoencoder);
    flis_vocab_free(j->vocab);
    workers_free(j);
    flis_tape_free(&j->tape);
    latents_free(&j->data);
    photos_close(&j->folder);
    photos_close(&j->validation.folder);
    latents_free(&j->validation.data);
    show_free(j);
    flis_free_visit(&j->ctx, NULL, NULL, &j->edges);
    flis_free_visit(&j->ctx, NULL, NULL, &j->colours);
    for (size_t i = 0; i < j->scenes; i++) free(j->scene[i]);
    free(j->scene);
    free(j->line);
    flis_free(&j->ctx);
}
