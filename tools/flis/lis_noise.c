/* lis_noise.c - random numbers as the authors' LIS.py draws them: one generator over all batches. A batch draws x_T for all its
 * pictures at once, then the noise of every step of the sampler, also where sigma is 0. FreestyleNet@5dcb8b8 scripts/LIS.py main,
 * ldm/models/diffusion/ddim.py and plms.py. SPEC 8.8.
 */
#include "tools/flis/lis.h"

#include <stdlib.h>
#include <string.h>

/* Values of a latent. */
static size_t latent_count(const job *j)
{
    return 4 * (j->options.width / FLIS_FACTOR) * (j->options.height / FLIS_FACTOR);
}

/* Draws of a batch: x_T, unless it is the same for all batches, and one for each step; PLMS' first step has two. */
static uint64_t draws_of_batch(const job *j)
{
    return j->step_count + (j->options.sampling.kind == FLIS_PLMS) + !j->set.fixed_code;
}

bool job_batch_noise(job *j, flis_rng *at, uint64_t *number, uint64_t wanted, size_t index, flis_rng *out)
{
    const size_t pictures = (size_t)j->set.batch;
    if (!at->batch || *number > wanted) {
        flis_rng_seed(at, j->options.rng, j->set.seed);
        at->batch = pictures;
        *number = 0;
    }
    for (; *number < wanted; ++*number) {
        if (!flis_poll(&j->ctx)) return false;
        flis_randn_skip(at, latent_count(j), draws_of_batch(j));
    }
    *out = *at;
    out->index = index;
    return true;
}

bool job_fixed_code(job *j, size_t index, flis_real **code)
{
    const size_t count = latent_count(j);
    float *drawn = flis_alloc(&j->ctx, count, sizeof *drawn);
    flis_rng rng;
    if (!*code) *code = flis_alloc(&j->ctx, count, sizeof **code);
    if (drawn && *code) {
        flis_rng_seed(&rng, j->options.rng, j->set.seed);
        rng.batch = (size_t)j->set.batch;
        rng.index = index;
        flis_randn(&rng, drawn, count);
        for (size_t i = 0; i < count; i++) (*code)[i] = (flis_real)drawn[i];
        j->options.noise_values = *code;
        j->options.noise_count = count;
    }
    free(drawn);
    return flis_ok(&j->ctx);
}

bool lis_noise(lis *l, size_t i)
{
    job *j = l->j;
    const size_t pictures = (size_t)j->set.batch;
    j->options.seed = l->picture[i].seed;
    if (j->set.by_picture) return true;
    j->options.random = &j->random;
    return job_batch_noise(j, &l->noise.at, &l->noise.number, i / pictures, i % pictures, &j->random) &&
           (!j->set.fixed_code || job_fixed_code(j, i % pictures, &l->noise.code));
}
