/* samplers.c - vectors of random numbers, the schedule and the samplers; the samplers run a model that needs no network. */
#include "tools/golden/golden.h"

#include <stdlib.h>
#include <string.h>

/* ---- Random numbers ---------------------------------------------------------------------------------------------- */

static void randn_vector(golden *g, const char *id, const char *section, const char *what, const char *catches,
                         flis_rng_kind kind, uint64_t seed, const size_t *counts, double units)
{
    float x[1024];
    size_t total = 0;
    buffer sizes = {0};
    vector_begin(g, id, 15, section, what, catches);
    flis_rng_seed(&g->ctx.rng, kind, seed);
    for (size_t i = 0; counts[i]; i++) {
        flis_randn(&g->ctx.rng, x + total, counts[i]);
        total += counts[i];
        buffer_put(&g->all, &sizes, i ? ", %zu" : "%zu", counts[i]);
    }
    given(g, "seed", "%llu", (unsigned long long)seed);
    given(g, "randn", "[%s]", sizes.at ? sizes.at : "");
    free(sizes.at);
    float_output(g, "y", total, x, units);
    vector_end(g);
}

static void random_vectors(golden *g)
{
    static const size_t many[] = {64, 0}, few[] = {7, 0}, odd[] = {17, 43, 0}, mixed[] = {3, 16, 4, 0},
                        two[] = {20, 5, 0};
    int64_t words[8];
    const size_t eight = 8;
    vector_begin(g, "rng.mt19937", 15, "7.1", "the first words of mt19937 of seed 42",
                 "init_by_array, a wrong tempering");
    given(g, "seed", "42");
    flis_rng_seed(&g->ctx.rng, FLIS_RNG_CPU, 42);
    for (int i = 0; i < 8; i++) words[i] = (int64_t)flis_rng_u32(&g->ctx.rng);
    whole_output(g, "words", 1, &eight, words);
    vector_end(g);
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
    vector_begin(g, "schedule", 11, "8.1",
                 "beta and alphas_cumprod of the 1000 steps, in double, and as the float32 that is used",
                 "betas linear instead of linear in sqrt, the product in float32");
    double_output(g, "beta", FLIS_TIMESTEPS, schedule->beta, CLOSE);
    double_output(g, "alphas_cumprod", FLIS_TIMESTEPS, schedule->alpha_bar, CLOSE);
    float_output(g, "alphas_cumprod.f32", FLIS_TIMESTEPS, schedule->alpha_bar32, 2);
    vector_end(g);
}

static void steps_vector(golden *g, const char *id, int item, const char *what, const char *catches,
                         const flis_schedule *schedule, int count, double eta)
{
    vector_begin(g, id, item, "8.2", what, catches);
    flis_steps *s = flis_alloc(&g->ctx, 1, sizeof *s);
    given(g, "steps", "%d", count);
    given(g, "eta", "%g", eta);
    if (s && flis_steps_make(&g->ctx, schedule, FLIS_DDIM, count, eta, s)) {
        whole_output(g, "t", 1, &s->count, s->t);
        float_output(g, "alpha", s->count, s->alpha, 2);
        double_output(g, "alpha_prev", s->count, s->alpha_prev, "\"relative\": 1e-07");
        double_output(g, "sigma", s->count, s->sigma, "\"relative\": 1e-05");
    }
    free(s);
    vector_end(g);
}

/* The numbers of steps, from 1 to 1000, at which the authors' code crashes. */
static void refused_steps_vector(golden *g, const flis_schedule *schedule)
{
    uint8_t refused[FLIS_TIMESTEPS];
    int64_t counts[FLIS_TIMESTEPS];
    const size_t shape = FLIS_TIMESTEPS;
    flis_steps *s = flis_alloc(&g->all, 1, sizeof *s);
    vector_begin(
        g, "steps.refused", 11, "8.2",
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
    vector_end(g);
}

/* A model that needs no network: e_cond = x / 2 + cond t / 1024, e_uncond = x / 4 + uncond t / 1024. */
enum { LATENT = 4 * 2 * 4, MOST_STEPS = 16 };
typedef struct toy {
    flis_real cond[LATENT], uncond[LATENT];
    int64_t evaluated[2 * MOST_STEPS]; /* timesteps; negative: the unconditional eps was not asked for */
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
    vector_begin(g, id, item, "8.6", what, catches);
    toy *m = flis_alloc(&g->ctx, 1, sizeof *m);
    given_string(g, "sampler", s.kind == FLIS_PLMS ? "plms" : "ddim");
    given(g, "steps", "%d", s.steps);
    given(g, "eta", "%g", s.eta);
    given(g, "scale", "%g", s.scale);
    given_string(g, "eps", "cond: x / 2 + cond t / 1024; uncond: x / 4 + uncond t / 1024");
    given(g, "seed", "42");
    formula_values(g, "sampler/x_T", 4, shape, 1, x);
    formula_values(g, "sampler/cond", 4, shape, 1, m ? m->cond : NULL);
    formula_values(g, "sampler/uncond", 4, shape, 1, m ? m->uncond : NULL);
    flis_rng_seed(&g->ctx.rng, FLIS_RNG_CPU, 42);
    const flis_model_fn model = {toy_eps, toy_step, m};
    if (m && flis_sample(&g->ctx, &s, LATENT, x, &model)) {
        const size_t steps[5] = {m->steps, 4, 2, 4}, four = 4;
        whole_output(g, "evaluated", 1, &m->evaluations, m->evaluated);
        real_output(g, "e_t", 4, steps, m->e_t, 256);
        real_output(g, "pred_x0", 4, steps, m->pred_x0, 256);
        real_output(g, "x_prev", 4, steps, m->x_prev, 256);
        flis_randn(&g->ctx.rng, next, 4);
        float_output(g, "next_randn", four, next, 0);
    }
    free(m);
    vector_end(g);
}

void sampler_vectors(golden *g)
{
    flis_schedule *schedule = flis_alloc(&g->all, 1, sizeof *schedule);
    random_vectors(g);
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
