/* ahead.c - reading pictures ahead: another thread decodes and resizes those of the next batch while the networks work on this one.
 *
 * Which pictures a batch has is a function of (seed, number of the batch, number of the sample) (data.c), so no bit of a training depends on when
 * they are read. A picture that cannot be read is no error before the batch that needs it.
 */
#include "tools/train/train.h"

#include <stdlib.h>
#include <string.h>

/* ---- One picture ------------------------------------------------------------------------------------------------- */

bool decoded_make(flis_ctx *ctx, size_t side, decoded *out)
{
    memset(out, 0, sizeof *out);
    out->pixels = flis_alloc(ctx, side * side * 3, sizeof *out->pixels);
    out->label = flis_alloc(ctx, side, side);
    if (flis_ok(ctx)) return true;
    decoded_free(out);
    return false;
}

void decoded_free(decoded *d)
{
    phrases_free(d->phrase, d->phrases);
    free(d->pixels);
    free(d->label);
    memset(d, 0, sizeof *d);
}

void decode_photo(const photos *f, size_t at, size_t side, bool mirror, decoded *out)
{
    flis_ctx own = FLIS_CTX_PLAIN;
    phrases_free(out->phrase, out->phrases);
    out->phrase = NULL;
    out->phrases = 0;
    photos_sample(&own, f, at, side, mirror, out->pixels, out->label, &out->phrase, &out->phrases);
    snprintf(out->error, sizeof out->error, "%s", own.error);
    flis_free(&own);
}

/* ---- A batch ----------------------------------------------------------------------------------------------------- */

static void read_batch(const job *j, uint64_t number, decoded *sample, size_t count)
{
    for (size_t i = 0; i < count && !*j->stop; i++) {
        dice d = dice_of(&j->o, DICE_SAMPLE, number, i);
        const choice c = choose_photo(j, number, i, &d);
        decode_photo(&j->folder, c.at, (size_t)j->o.size, c.mirror, &sample[i]);
    }
}

static void read_next(void *user)
{
    const ahead *a = user;
    read_batch(a->job, a->number + 1, a->next, a->count);
}

bool ahead_make(job *j)
{
    const size_t count = (size_t)j->o.batch;
    if (!j->folder.files.count) return true;
    ahead *a = j->ahead = flis_alloc(&j->ctx, 1, sizeof *a);
    if (!a) return false;
    a->job = j;
    a->now = flis_alloc(&j->ctx, count, sizeof *a->now);
    a->next = flis_alloc(&j->ctx, count, sizeof *a->next);
    a->count = a->now && a->next ? count : 0;
    for (size_t i = 0; i < a->count; i++)
        if (!decoded_make(&j->ctx, (size_t)j->o.size, &a->now[i]) ||
            !decoded_make(&j->ctx, (size_t)j->o.size, &a->next[i]))
            return false;
    return flis_ok(&j->ctx);
}

void ahead_batch(job *j)
{
    ahead *a = j->ahead;
    const uint64_t number = batch_number(j);
    if (!a || (a->begun && number == a->number)) return;
    thread_end(&a->thread);
    if (a->begun && number == a->number + 1) {
        decoded *read = a->next;
        a->next = a->now;
        a->now = read;
    } else read_batch(j, number, a->now, a->count);
    a->number = number;
    a->begun = true;
    if (number + 1 < j->o.steps * j->o.accumulate) thread_begin(&a->thread, j->ctx.threads, read_next, a);
}

const decoded *ahead_sample(const job *j, size_t k)
{
    return &j->ahead->now[j->first + k];
}

void ahead_free(job *j)
{
    ahead *a = j->ahead;
    if (!a) return;
    thread_end(&a->thread);
    for (size_t i = 0; i < a->count; i++) decoded_free(&a->now[i]), decoded_free(&a->next[i]);
    free(a->now);
    free(a->next);
    free(a);
    j->ahead = NULL;
}
