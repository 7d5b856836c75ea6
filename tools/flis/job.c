/* job.c - what long commands share: threads, progress, signals, notes on stderr, and a step count that the sampler takes. */
#include "tools/flis/command.h"

#include <stdlib.h>
#include <string.h>

void job_progress(void *user, const char *what, size_t done, size_t total)
{
    job *j = user;
    const bool sampling = strcmp(what, "sample") == 0;
    j->progress.unit = sampling ? "step" : NULL;
    progress_show(&j->progress, sampling ? "step" : what, done, total);
}

void job_note(job *j, const char *kind, const char *format, ...)
{
    va_list args;
    if (j->set.quiet) return;
    progress_end(&j->progress);
    fprintf(stderr, "%s: %s: ", j->program->name, kind);
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fputc('\n', stderr);
}

void job_print_seed(job *j)
{
    if (!j->set.quiet) fprintf(stderr, "seed %llu\n", (unsigned long long)j->options.seed);
}

void job_begin(job *j)
{
    const settings *s = &j->set;
    flis_options *o = &j->options;
    flis_options_default(o);
    o->sampling.kind = s->sampler ? FLIS_DDIM : FLIS_PLMS;
    o->sampling.steps = (int)s->steps;
    o->sampling.eta = s->eta;
    o->sampling.scale = s->scale;
    o->seed = s->seed;
    o->rng = s->rng ? FLIS_RNG_CUDA : FLIS_RNG_CPU;
    o->width = s->width;
    o->height = s->height;
    o->no_layout = s->no_layout;
    o->noise = s->noise;
    o->negative = s->negative;
    if (s->threads) j->ctx.threads = (int)s->threads;
    j->progress.quiet = s->quiet;
    j->ctx.progress = job_progress;
    j->ctx.progress_user = j;
    j->ctx.interrupted = catch_signals();
}

int job_status(const job *j)
{
    return flis_ok(&j->ctx) ? 0 : 1;
}

bool job_check_steps(job *j)
{
    const flis_sampling *s = &j->options.sampling;
    flis_schedule *schedule = flis_alloc(&j->ctx, 1, sizeof *schedule);
    flis_steps *steps = flis_alloc(&j->ctx, 1, sizeof *steps);
    if (schedule && steps) {
        flis_schedule_make(schedule);
        if (flis_steps_make(&j->ctx, schedule, s->kind, s->steps, s->eta, steps)) j->step_count = steps->count;
        if (flis_ok(&j->ctx) && steps->count != (size_t)s->steps)
            flis_warn(&j->ctx, "%d does not divide 1000: there will be %zu steps, as in the authors' code", s->steps,
                      steps->count);
    }
    free(schedule);
    free(steps);
    return flis_ok(&j->ctx);
}
