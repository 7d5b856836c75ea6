/* test_sampler.c - random numbers, schedule and samplers against PyTorch's own (golden/rng, schedule, sampler_tinyB).
 * Checks: test_sampler_rng, test_sampler_rng_sequences, test_sampler_redraw, test_sampler_philox, test_sampler_schedule,
 *   test_sampler_steps, test_sampler_refused_steps, test_sampler_replay, test_sampler_noise_stays_in_step
 */
#include "test.h"

#define RNG "golden/rng.safetensors"
#define SCHEDULE "golden/schedule.safetensors"
#define REPLAY "golden/sampler_tinyB.safetensors"

/* ---- Random numbers -------------------------------------------------------------------------------------------- */

/* What `seedS.KIND.N[.second]` holds, drawn here: values as doubles. */
static bool draw(const char *name, double *out, size_t count)
{
    unsigned long long seed = 0;
    char what[64] = "";
    if (sscanf(name, "seed%llu.%63s", &seed, what) != 2 || strncmp(what, "mix", 3) == 0) return false;
    float *f = malloc((count + 1) * sizeof *f);
    int64_t *n = malloc((count + 1) * sizeof *n);
    flis_rng rng;
    flis_rng_seed(&rng, FLIS_RNG_CPU, seed);
    for (int times = strstr(what, ".second") ? 2 : 1; times > 0; times--) {
        const bool wide = strstr(what, ".f64.") != NULL, normal = strncmp(what, "randn.", 6) == 0;
        const bool integer = strncmp(what, "randint", 7) == 0;
        if (wide && normal) flis_randn_f64(&rng, out, count);
        else if (wide) flis_rand_f64(&rng, out, count);
        else if (integer) flis_randint(&rng, n, count, 1000);
        else if (normal) flis_randn(&rng, f, count);
        else flis_rand(&rng, f, count);
        for (size_t i = 0; !wide && i < count; i++) out[i] = integer ? (double)n[i] : (double)f[i];
    }
    free(f);
    free(n);
    return true;
}

/* Every seed, size and kind of the golden file, to the bit. */
void test_sampler_rng(void)
{
    flis_ctx ctx;
    flis_init(&ctx);
    flis_file *file = flis_file_open(&ctx, test_path(RNG));
    CHECK(file, "%s", ctx.error);
    size_t tensors = 0;
    for (size_t e = 0; file && e < file->count; e++) {
        size_t count = (size_t)flis_entry_count(&file->entry[e]), wrong = 0;
        double *wanted = malloc((count + 1) * sizeof *wanted), *got = malloc((count + 1) * sizeof *got);
        CHECK(flis_file_read_f64(&ctx, file, &file->entry[e], wanted), "%s", ctx.error);
        if (draw(file->entry[e].name, got, count)) {
            tensors++;
            for (size_t i = 0; i < count; i++) wrong += got[i] != wanted[i];
            CHECK(wrong == 0, "%s: %zu of %zu values differ", file->entry[e].name, wrong, count);
        }
        free(wanted);
        free(got);
    }
    CHECK(tensors == 193, "got %zu tensors, wanted 193", tensors);
    flis_file_close(file);
    flis_free(&ctx);
}

/* Below 16 values the second of a Box-Muller pair is kept: randn(1), randn(16), randn(1) gives randn(2)'s first, a vector
   call of 16 from the words after that pair's four, and randn(2)'s second. Seeding forgets the kept half. */
void test_sampler_rng_sequences(void)
{
    const uint64_t seeds[] = {0, 42, 4294967295u};
    for (size_t s = 0; s < sizeof seeds / sizeof *seeds; s++) {
        flis_rng rng, fresh;
        float two[2], one[1], again[1], vector[16], wanted[16];
        flis_rng_seed(&fresh, FLIS_RNG_CPU, seeds[s]);
        flis_randn(&fresh, two, 2);
        flis_randn(&fresh, wanted, 16);
        flis_rng_seed(&rng, FLIS_RNG_CPU, seeds[s]);
        flis_randn(&rng, one, 1);
        flis_randn(&rng, vector, 16);
        flis_randn(&rng, again, 1);
        CHECK(one[0] == two[0] && again[0] == two[1], "seed %llu: the kept half was lost", (unsigned long long)seeds[s]);
        CHECK(memcmp(vector, wanted, sizeof vector) == 0, "seed %llu: 16 values used the kept half", (unsigned long long)seeds[s]);
        flis_randn(&rng, one, 1);
        flis_rng_seed(&rng, FLIS_RNG_CPU, seeds[s]);
        flis_randn(&rng, one, 1);
        CHECK(one[0] == two[0], "seed %llu: seeding kept a half", (unsigned long long)seeds[s]);
    }
}

/* Item 15: with 17 values the last 16 are drawn anew, so only the first is that of a call for 16. */
void test_sampler_redraw(void)
{
    flis_rng rng;
    float sixteen[16], seventeen[17];
    flis_rng_seed(&rng, FLIS_RNG_CPU, 42);
    flis_randn(&rng, sixteen, 16);
    flis_rng_seed(&rng, FLIS_RNG_CPU, 42);
    flis_randn(&rng, seventeen, 17);
    size_t same = 0;
    for (int i = 0; i < 16; i++) same += sixteen[i] == seventeen[i];
    CHECK(same == 1 && sixteen[0] == seventeen[0], "%zu values are those of 16", same);
}

/* Published values of torch.randn on CUDA; the claim is 1e-6, no GPU made more. */
void test_sampler_philox(void)
{
    const double seed0[12] = {-0.92466259, -0.42534415, -2.6438457, 0.14518388, -0.12086647, -0.57972564,
                              -0.62285122, -0.32838709, -1.07454231, -0.36314407, -1.67105067, 2.26550497};
    const double seed42[19] = {0.1940, 2.1614, -0.1721, 0.8491, -1.9244, 0.6530, -0.6494, -0.8175, 0.5280, -1.2753,
                               -1.6621, -0.3033, -0.0926, 0.1992, -1.1204, 1.8577, -0.7145, 0.6881, 0.7968};
    flis_rng rng;
    float got[19];
    flis_rng_seed(&rng, FLIS_RNG_CUDA, 0);
    flis_randn(&rng, got, 12);
    for (int i = 0; i < 12; i++)
        CHECK(fabs((double)got[i] - seed0[i]) <= 1e-6, "seed 0, value %d: got %.9g, wanted %.9g", i, (double)got[i], seed0[i]);
    float again[12];
    flis_randn(&rng, again, 12);
    CHECK(again[0] != got[0], "a second call gives the same numbers");
    flis_rng_seed(&rng, FLIS_RNG_CUDA, 42);
    flis_randn(&rng, got, 19);
    for (int i = 0; i < 19; i++)
        CHECK(fabs((double)got[i] - seed42[i]) <= 5.1e-5, "seed 42, value %d: got %.6g, wanted %.4f", i, (double)got[i], seed42[i]);
}

/* ---- Schedule -------------------------------------------------------------------------------------------------- */

void test_sampler_schedule(void)
{
    flis_schedule *s = malloc(sizeof *s);
    flis_schedule_make(s);
    const struct { const char *name; const double *got; } wide[] = {{"f64.betas", s->beta}, {"f64.alphas_cumprod", s->alpha_bar}};
    for (int k = 0; k < 2; k++) {
        double *wanted = test_golden(SCHEDULE, wide[k].name, NULL);
        size_t wrong = 0;
        for (int i = 0; wanted && i < FLIS_TIMESTEPS; i++) wrong += wide[k].got[i] != wanted[i];
        CHECK(wrong == 0, "%s: %zu values differ", wide[k].name, wrong);
        free(wanted);
    }
    double *wanted = test_golden(SCHEDULE, "f32.alphas_cumprod", NULL);
    for (int i = 0; wanted && i < FLIS_TIMESTEPS; i++) CHECK((double)s->alpha_bar32[i] == wanted[i], "float32 value %d", i);
    free(wanted);
    free(s);
}

/* Timesteps and coefficients of every recorded (sampler, S, eta), to the bit. Items 11 and 12. */
void test_sampler_steps(void)
{
    const int counts[] = {50, 20, 10, 7, 1, 4, 25, 100};
    const struct { const char *name; double eta; } etas[] = {{"0", 0}, {"0.5", 0.5}, {"1", 1}};
    flis_ctx ctx;
    flis_init(&ctx);
    flis_schedule *schedule = malloc(sizeof *schedule);
    flis_steps *got = malloc(sizeof *got);
    flis_schedule_make(schedule);
    size_t tables = 0;
    for (int k = 0; k < 8; k++)
        for (int e = 0; e < 4; e++) {   /* the fourth: PLMS */
            const flis_sampler_kind kind = e == 3 ? FLIS_PLMS : FLIS_DDIM;
            CHECK(flis_steps_make(&ctx, schedule, kind, counts[k], e == 3 ? 0 : etas[e].eta, got), "%s", ctx.error);
            const char *fields[] = {"timesteps", "ddim_alphas", "ddim_alphas_prev", "ddim_sigmas", "ddim_sqrt_one_minus_alphas"};
            for (int f = 0; f < 5; f++, tables++) {
                char name[80];
                size_t count = 0, wrong = 0;
                snprintf(name, sizeof name, "%s.S%d.eta%s.%s", e == 3 ? "plms" : "ddim", counts[k], e == 3 ? "0" : etas[e].name, fields[f]);
                double *wanted = test_golden(SCHEDULE, name, &count);
                CHECK(count == got->count, "%s: got %zu steps, wanted %zu", name, got->count, count);
                for (size_t i = 0; i < count && i < got->count; i++) {
                    double value = f == 0   ? (double)got->t[i]
                                   : f == 1 ? (double)got->alpha[i]
                                   : f == 2 ? got->alpha_prev[i]
                                   : f == 3 ? got->sigma[i]
                                            : (double)got->sqrt_one_minus_alpha[i];
                    wrong += value != wanted[i];
                }
                CHECK(wrong == 0, "%s: %zu values differ", name, wrong);
                free(wanted);
            }
        }
    CHECK(tables == 160, "%zu tables", tables);
    free(schedule);
    free(got);
    flis_free(&ctx);
}

/* Item 11: exactly the counts that crash the authors' code are refused. */
void test_sampler_refused_steps(void)
{
    flis_ctx ctx;
    flis_init(&ctx);
    flis_schedule *schedule = malloc(sizeof *schedule);
    flis_steps *steps = malloc(sizeof *steps);
    flis_schedule_make(schedule);
    for (int s = -1; s <= 1001; s++) {
        bool refused = s < 1 || s == 3 || s == 9 || s == 27 || s == 36 || s == 37 || (s >= 101 && s <= 111) ||
                       (s >= 251 && s <= 333) || s >= 501;
        ctx.error[0] = 0;
        CHECK(flis_steps_make(&ctx, schedule, FLIS_DDIM, s, 0, steps) == !refused, "%d steps: %s", s, ctx.error);
        CHECK(!refused || ctx.error[0], "%d steps are refused without a word", s);
    }
    ctx.error[0] = 0;
    CHECK(flis_steps_make(&ctx, schedule, FLIS_DDIM, 7, 0, steps) && steps->count == 8, "7 steps are %zu, wanted 8", steps->count);
    CHECK(!flis_steps_make(&ctx, schedule, FLIS_PLMS, 10, 0.5, steps) && strstr(ctx.error, "PLMS"), "PLMS with eta: %s", ctx.error);
    ctx.error[0] = 0;
    CHECK(!flis_steps_make(&ctx, schedule, FLIS_DDIM, 10, NAN, steps), "eta NaN");
    free(schedule);
    free(steps);
    flis_free(&ctx);
}

/* ---- Trajectories, replayed ------------------------------------------------------------------------------------ */

enum { VALUES = 4 * 16 * 16 };

/* Stands for the U-Net: gives back the recorded eps, call by call, and checks what it is asked. */
typedef struct replay {
    const char *name;
    double *x, *eps, *t, *e_t, *x_prev, *pred_x0;
    size_t calls, steps, wrong;
} replay;

static size_t differing(const real *a, const double *b)
{
    size_t count = 0;
    for (size_t i = 0; i < VALUES; i++) count += (double)a[i] != b[i];
    return count;
}

static void give(replay *r, const real *x, int64_t t, real *eps)
{
    const size_t row = r->calls++ * VALUES;
    r->wrong += differing(x, r->x + row) + (r->t[r->calls - 1] != (double)t);
    for (size_t i = 0; i < VALUES; i++) eps[i] = (real)r->eps[row + i];
}

static bool on_eps(flis_ctx *ctx, void *user, const real *x, int64_t t, real *eps, real *uncond)
{
    (void)ctx;
    give(user, x, t, eps);              /* conditional first, then unconditional (item 3) */
    if (uncond) give(user, x, t, uncond);
    return true;
}

static void on_step(flis_ctx *ctx, void *user, const flis_step *step)
{
    replay *r = user;
    const size_t row = r->steps++ * VALUES;
    (void)ctx;
    CHECK(differing(step->e_t, r->e_t + row) == 0, "%s: step %zu: e_t differs", r->name, step->number);
    CHECK(differing(step->pred_x0, r->pred_x0 + row) == 0, "%s: step %zu: pred_x0 differs", r->name, step->number);
    CHECK(differing(step->x_prev, r->x_prev + row) == 0, "%s: step %zu: x_prev differs", r->name, step->number);
}

static double *recorded(const char *run, const char *field, size_t *count)
{
    char name[64];
    snprintf(name, sizeof name, "%s.%s", run, field);
    return test_golden(REPLAY, name, count);
}

static void replay_run(const char *name, flis_sampling sampling, uint64_t seed)
{
    flis_ctx ctx;
    flis_init(&ctx);
    size_t calls = 0, steps = 0, draws = 0;
    replay r = {.name = name, .x = recorded(name, "call.x", NULL), .eps = recorded(name, "call.eps", NULL),
                .t = recorded(name, "call.t", &calls), .e_t = recorded(name, "step.e_t", NULL),
                .x_prev = recorded(name, "step.x_prev", NULL), .pred_x0 = recorded(name, "step.pred_x0", NULL)};
    double *t = recorded(name, "step.t", &steps), *x_T = recorded(name, "x_T", NULL), *final = recorded(name, "final", NULL);
    double *noise = recorded(name, "noise_like_draws", &draws);
    float drawn[VALUES];
    real x[VALUES];
    flis_rng_seed(&ctx.rng, FLIS_RNG_CPU, seed);
    flis_randn(&ctx.rng, drawn, VALUES);
    for (size_t i = 0; i < VALUES; i++) x[i] = drawn[i];
    CHECK(differing(x, x_T) == 0, "%s: x_T differs from torch.randn", name);
    flis_rng before = ctx.rng;
    flis_model_fn model = {on_eps, on_step, &r};
    CHECK(flis_sample(&ctx, &sampling, VALUES, x, &model), "%s", ctx.error);
    if (sizeof(real) == sizeof(float)) CHECK(r.wrong == 0, "%s: the model was asked %zu other values", name, r.wrong);
    CHECK(r.calls == calls && r.steps == steps, "%s: got %zu calls in %zu steps, wanted %zu in %zu", name, r.calls, r.steps, calls, steps);
    CHECK(differing(x, final) == 0, "%s: the final latent differs", name);
    /* Item 14: the recorded draws, in order, and the generator ends right behind them. */
    size_t wrong = 0;
    for (size_t i = 0; i < draws; i += VALUES) {
        flis_randn(&before, drawn, VALUES);
        for (size_t k = 0; k < VALUES; k++) wrong += (double)drawn[k] != noise[i + k];
    }
    CHECK(wrong == 0 && memcmp(&before, &ctx.rng, sizeof before) == 0, "%s: noise was not drawn once per update", name);
    double *all[] = {r.x, r.eps, r.t, r.e_t, r.x_prev, r.pred_x0, t, x_T, final, noise};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) free(all[i]);
    flis_free(&ctx);
}

/* With the recorded eps the sampler's own arithmetic equals PyTorch's to the bit: items 12, 13 and 14. */
void test_sampler_replay(void)
{
#ifndef FLIS_DOUBLE
    replay_run("plms10", (flis_sampling){FLIS_PLMS, 10, 0, 2}, 42);
    replay_run("ddim10_eta0", (flis_sampling){FLIS_DDIM, 10, 0, 2}, 42);
    replay_run("ddim10_eta0.5", (flis_sampling){FLIS_DDIM, 10, 0.5, 2}, 42);
    replay_run("plms4_scale1", (flis_sampling){FLIS_PLMS, 4, 0, 1}, 7);
#endif
}

static bool zero_eps(flis_ctx *ctx, void *user, const real *x, int64_t t, real *eps, real *uncond)
{
    (void)ctx, (void)user, (void)x, (void)t;
    for (size_t i = 0; i < 16; i++) eps[i] = 0;
    for (size_t i = 0; uncond && i < 16; i++) uncond[i] = 0;
    return true;
}

/* Item 14 again, without golden tensors: S + 1 draws for PLMS, S for DDIM, whatever eta. */
void test_sampler_noise_stays_in_step(void)
{
    for (int kind = 0; kind < 2; kind++) {
        flis_ctx ctx;
        flis_init(&ctx);
        flis_rng expected;
        float drawn[16];
        real x[16] = {0};
        flis_rng_seed(&ctx.rng, FLIS_RNG_CPU, 5);
        expected = ctx.rng;
        for (int i = 0; i < 10 + (kind == 0); i++) flis_randn(&expected, drawn, 16);
        flis_sampling sampling = {kind ? FLIS_DDIM : FLIS_PLMS, 10, 0, 2};
        flis_model_fn model = {zero_eps, NULL, NULL};
        CHECK(flis_sample(&ctx, &sampling, 16, x, &model), "%s", ctx.error);
        CHECK(memcmp(&expected, &ctx.rng, sizeof expected) == 0, "%s drew another number of times", kind ? "DDIM" : "PLMS");
        flis_free(&ctx);
    }
}
