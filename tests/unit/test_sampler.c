/* test_sampler.c - random numbers, schedule and samplers against PyTorch's own (golden/rng, schedule, sampler_tinyB).
 * For SPEC 15.11 to 15.15 the wrong variants are evaluated here too. They must differ from the golden values, which
 * shows that the golden values can detect them. (The mutation tests put the same mistakes into the sources.)
 */
#include "tests/unit/test.h"

#define RNG "golden/rng.safetensors"
#define SCHEDULE "golden/schedule.safetensors"
#define REPLAY "golden/sampler_tinyB.safetensors"

/* ---- Random numbers -------------------------------------------------------------------------------------------- */

/* Draws the values that `seedS.KIND.N[.second]` contains, as doubles. */
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

/* The recorded sequence randn(1), randn(16), randn(1), rand(3), randn(5), randn(2) of one generator, to the bit.
   Returns how many values differ from the recorded ones. The wrong variant discards the stored half after each call. */
static size_t mix_differs(uint64_t seed, bool forget)
{
    const struct {
        const char *name;
        bool normal;
        size_t count;
    } calls[] = {{"a_randn1", true, 1}, {"b_randn16", true, 16}, {"c_randn1", true, 1},
                 {"d_rand3", false, 3}, {"e_randn5", true, 5},   {"f_randn2", true, 2}};
    flis_rng rng;
    size_t wrong = 0;
    flis_rng_seed(&rng, FLIS_RNG_CPU, seed);
    for (size_t c = 0; c < sizeof calls / sizeof *calls; c++) {
        char name[64];
        float got[16];
        size_t count = 0;
        snprintf(name, sizeof name, "seed%llu.mix.%s", (unsigned long long)seed, calls[c].name);
        double *wanted = test_golden(RNG, name, &count);
        CHECK(count == calls[c].count, "%s: %zu values", name, count);
        if (calls[c].normal) flis_randn(&rng, got, calls[c].count);
        else flis_rand(&rng, got, calls[c].count);
        for (size_t i = 0; i < count && i < calls[c].count; i++) wrong += (double)got[i] != wanted[i];
        if (forget) rng.has_next_normal = false;
        free(wanted);
    }
    return wrong;
}

/* For fewer than 16 values the second of a Box-Muller pair is stored: randn(1), randn(16), randn(1) gives randn(2)'s
   first, a vector call of 16 from the words after that pair's four, and randn(2)'s second. Seeding discards the stored
   half. */
void test_sampler_rng_sequences(void)
{
    const uint64_t seeds[] = {0, 42, 1234, 2147483648u, 4294967295u, 9223372036854775807u};
    for (size_t s = 0; s < sizeof seeds / sizeof *seeds; s++) {
        const unsigned long long seed = seeds[s];
        size_t wrong = mix_differs(seeds[s], false);
        CHECK(wrong == 0, "seed %llu: %zu of the 28 mixed values differ", seed, wrong);
        CHECK(mix_differs(seeds[s], true) > 0, "seed %llu: discarding the stored half is not detected", seed);
        flis_rng rng, fresh;
        float two[2], one[1], again[1], vector[16], wanted[16];
        flis_rng_seed(&fresh, FLIS_RNG_CPU, seeds[s]);
        flis_randn(&fresh, two, 2);
        flis_randn(&fresh, wanted, 16);
        flis_rng_seed(&rng, FLIS_RNG_CPU, seeds[s]);
        flis_randn(&rng, one, 1);
        flis_randn(&rng, vector, 16);
        flis_randn(&rng, again, 1);
        CHECK(one[0] == two[0] && again[0] == two[1], "seed %llu: the stored half was lost", seed);
        CHECK(memcmp(vector, wanted, sizeof vector) == 0, "seed %llu: 16 values used the stored half", seed);
        flis_randn(&rng, one, 1);
        flis_rng_seed(&rng, FLIS_RNG_CPU, seeds[s]);
        flis_randn(&rng, one, 1);
        CHECK(one[0] == two[0], "seed %llu: seeding kept the stored half", seed);
    }
}

static size_t differing_floats(const float *a, const double *b, size_t count)
{
    size_t wrong = 0;
    for (size_t i = 0; b && i < count; i++) wrong += (double)a[i] != b[i];
    return wrong;
}

/* With 17 values the last 16 are drawn again, so only the first equals that of a call for 16. Wrong: no second draw (15
   of the first 16 differ from PyTorch's); the scalar path for 17 values; the vector path for 15. SPEC 15.15. */
void test_sampler_redraw(void)
{
    flis_rng rng;
    float sixteen[16], seventeen[17], scalar[17];
    double *golden = test_golden(RNG, "seed42.randn.17", NULL), *few = test_golden(RNG, "seed42.randn.15", NULL);
    flis_rng_seed(&rng, FLIS_RNG_CPU, 42);
    flis_randn(&rng, sixteen, 16);
    flis_rng_seed(&rng, FLIS_RNG_CPU, 42);
    flis_randn(&rng, seventeen, 17);
    size_t same = 0;
    for (int i = 0; i < 16; i++) same += sixteen[i] == seventeen[i];
    CHECK(same == 1 && sixteen[0] == seventeen[0], "%zu values equal those of a call for 16", same);
    flis_rng_seed(&rng, FLIS_RNG_CPU, 42);
    for (int i = 0; i < 17; i++) flis_randn(&rng, &scalar[i], 1);
    CHECK(differing_floats(seventeen, golden, 17) == 0, "17 values differ from PyTorch's");
    CHECK(differing_floats(sixteen, golden, 16) == 15, "not drawing the last 16 again is not detected");
    CHECK(differing_floats(scalar, golden, 17) == 17, "the scalar path for 17 values is not detected");
    CHECK(differing_floats(scalar, few, 15) == 0, "15 values differ from PyTorch's");
    CHECK(differing_floats(sixteen, few, 15) == 15, "the vector path for 15 values is not detected");
    free(golden);
    free(few);
}

/* Picture `index` of a batch of `batch`, with `count` values each, is its part of one call for all; afterwards all of the batch
   has been drawn. */
static void check_batch(flis_rng_kind kind, size_t batch, size_t count)
{
    enum { MOST = 512 };
    float all[MOST], part[MOST];
    double next, after;
    for (size_t index = 0; index < batch; index++) {
        flis_rng whole, rng, skipped;
        flis_rng_seed(&whole, kind, 42);
        flis_randn(&whole, all, batch * count);
        flis_rng_seed(&rng, kind, 42);
        rng.batch = batch;
        rng.index = index;
        skipped = rng;
        flis_randn(&rng, part, count);
        size_t wrong = 0;
        for (size_t i = 0; i < count; i++) wrong += memcmp(&part[i], &all[index * count + i], sizeof *part) != 0;
        CHECK(wrong == 0, "picture %zu of %zu, %zu values: %zu differ", index, batch, count, wrong);
        for (int calls = 1; calls < 4; calls++) flis_randn(&rng, part, count), flis_randn(&whole, all, batch * count);
        flis_randn_skip(&skipped, count, 4);
        flis_randn_f64(&whole, &next, 1);
        flis_randn_f64(&rng, &after, 1);
        CHECK(next == after, "picture %zu of %zu, %zu values: the batch is not drawn whole", index, batch, count);
        flis_randn_f64(&skipped, &after, 1);
        CHECK(next == after, "%zu x %zu values: skipping four calls is not four calls", batch, count);
    }
}

void test_sampler_batch(void)
{
    static const size_t COUNT[] = {1, 2, 3, 7, 15, 16, 17, 33, 64, 65};
    for (size_t i = 0; i < sizeof COUNT / sizeof *COUNT; i++)
        for (size_t batch = 1; batch <= 7; batch++) {
            check_batch(FLIS_RNG_CPU, batch, COUNT[i]);
            check_batch(FLIS_RNG_CUDA, batch, COUNT[i]);
        }
}

/* Published values of torch.randn on CUDA. flis claims only 1e-6, because no more values from a GPU were available. */
void test_sampler_philox(void)
{
    const double seed0[12] = {-0.92466259, -0.42534415, -2.6438457,  0.14518388,  -0.12086647, -0.57972564,
                              -0.62285122, -0.32838709, -1.07454231, -0.36314407, -1.67105067, 2.26550497};
    const double seed42[19] = {0.1940,  2.1614,  -0.1721, 0.8491, -1.9244, 0.6530, -0.6494, -0.8175, 0.5280, -1.2753,
                               -1.6621, -0.3033, -0.0926, 0.1992, -1.1204, 1.8577, -0.7145, 0.6881,  0.7968};
    flis_rng rng;
    float got[19];
    flis_rng_seed(&rng, FLIS_RNG_CUDA, 0);
    flis_randn(&rng, got, 12);
    for (int i = 0; i < 12; i++)
        CHECK(fabs((double)got[i] - seed0[i]) <= 1e-6, "seed 0, value %d: got %.9g, wanted %.9g", i, (double)got[i],
              seed0[i]);
    float again[12];
    flis_randn(&rng, again, 12);
    CHECK(again[0] != got[0], "a second call gives the same numbers");
    flis_rng_seed(&rng, FLIS_RNG_CUDA, 42);
    flis_randn(&rng, got, 19);
    for (int i = 0; i < 19; i++)
        CHECK(fabs((double)got[i] - seed42[i]) <= 5.1e-5, "seed 42, value %d: got %.6g, wanted %.4f", i, (double)got[i],
              seed42[i]);
}

/* ---- Schedule -------------------------------------------------------------------------------------------------- */

/* Betas are linear in sqrt. Wrong: linear; the product in float32. SPEC 15.11. */
void test_sampler_schedule(void)
{
    flis_schedule *s = malloc(sizeof *s);
    flis_schedule_make(s);
    double *beta = test_golden(SCHEDULE, "f64.betas", NULL);
    double *product = test_golden(SCHEDULE, "f64.alphas_cumprod", NULL);
    double *single = test_golden(SCHEDULE, "f32.alphas_cumprod", NULL);
    size_t wrong[3] = {0}, linear = 0, in_float = 0;
    float running = 1;
    for (int t = 0; beta && product && single && t < FLIS_TIMESTEPS; t++) {
        wrong[0] += s->beta[t] != beta[t];
        wrong[1] += s->alpha_bar[t] != product[t];
        wrong[2] += (double)s->alpha_bar32[t] != single[t];
        linear += fabs(0.00085 + (0.0120 - 0.00085) * t / (FLIS_TIMESTEPS - 1) - beta[t]) > 1e-5;
        running *= 1 - (float)beta[t];
        in_float += (double)running != single[t];
    }
    CHECK(wrong[0] == 0, "f64.betas: %zu values differ", wrong[0]);
    CHECK(wrong[1] == 0, "f64.alphas_cumprod: %zu values differ", wrong[1]);
    CHECK(wrong[2] == 0, "f32.alphas_cumprod: %zu values differ", wrong[2]);
    CHECK(linear > 900, "linear betas are not detected: %zu differ", linear);
    CHECK(in_float > 100, "a product in float32 is not detected: %zu differ", in_float);
    free(beta);
    free(product);
    free(single);
    free(s);
}

/* Wrong variants: timesteps without the + 1, and alphas_prev[0] = 1, which removes the noise from the last step.
   SPEC 15.11 and SPEC 15.12. */
static void wrong_steps(const flis_schedule *schedule, const flis_steps *eta1)
{
    size_t count = 0;
    double *t = test_golden(SCHEDULE, "ddim.S50.eta1.timesteps", &count);
    double *alpha = test_golden(SCHEDULE, "ddim.S50.eta1.ddim_alphas", NULL);
    double *before = test_golden(SCHEDULE, "ddim.S50.eta1.ddim_alphas_prev", NULL);
    double *sigma = test_golden(SCHEDULE, "ddim.S50.eta1.ddim_sigmas", NULL);
    if (t && alpha && before && sigma) {
        for (size_t i = 0; i < count; i++)
            CHECK((double)schedule->alpha_bar32[i * 20] != alpha[i] && t[i] != (double)(i * 20),
                  "timestep %zu without the + 1 is not detected", i);
        CHECK(before[0] == (double)schedule->alpha_bar32[0] && before[0] != 1, "alphas_prev[0] = 1 is not detected");
        const double none = sqrt((1 - 1.0) / (1 - alpha[0]) * (1 - alpha[0] / 1.0));
        CHECK(none == 0 && sigma[0] > 0.01 && eta1->sigma[0] == sigma[0], "last sigma: got %g", eta1->sigma[0]);
    }
    double *all[] = {t, alpha, before, sigma};
    for (int i = 0; i < 4; i++) free(all[i]);
}

/* Timesteps and coefficients of every recorded (sampler, S, eta), to the bit. SPEC 15.11 and SPEC 15.12. */
void test_sampler_steps(void)
{
    const int counts[] = {50, 20, 10, 7, 1, 4, 25, 100};
    const struct {
        const char *name;
        double eta;
    } etas[] = {{"0", 0}, {"0.5", 0.5}, {"1", 1}};
    flis_ctx ctx;
    flis_init(&ctx);
    flis_schedule *schedule = malloc(sizeof *schedule);
    flis_steps *got = malloc(sizeof *got);
    flis_schedule_make(schedule);
    size_t tables = 0;
    for (int k = 0; k < 8; k++)
        for (int e = 0; e < 4; e++) { /* the fourth: PLMS */
            const flis_sampler_kind kind = e == 3 ? FLIS_PLMS : FLIS_DDIM;
            CHECK(flis_steps_make(&ctx, schedule, kind, counts[k], e == 3 ? 0 : etas[e].eta, got), "%s", ctx.error);
            const char *fields[] = {"timesteps", "ddim_alphas", "ddim_alphas_prev", "ddim_sigmas",
                                    "ddim_sqrt_one_minus_alphas"};
            for (int f = 0; f < 5; f++, tables++) {
                char name[80];
                size_t count = 0, wrong = 0;
                snprintf(name, sizeof name, "%s.S%d.eta%s.%s", e == 3 ? "plms" : "ddim", counts[k],
                         e == 3 ? "0" : etas[e].name, fields[f]);
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
    CHECK(flis_steps_make(&ctx, schedule, FLIS_DDIM, 50, 1, got), "%s", ctx.error);
    wrong_steps(schedule, got);
    free(schedule);
    free(got);
    flis_free(&ctx);
}

/* Exactly the counts that crash the authors' code are refused. The list is compared with the rule behind it, evaluated
   like Python's range(). Wrong: the rule without the + 1, which accepts 3; refusing all counts that do not divide 1000.
   SPEC 15.11. */
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
        int last = 0;
        for (int t = 0; s >= 1 && s <= 1000 && t < 1000; t += 1000 / s) last = t;
        CHECK(s < 1 || s > 1000 || refused == (last + 1 == 1000), "%d steps: list and rule disagree", s);
        CHECK(s != 3 || (refused && last < 1000 && last + 1 >= 1000), "the rule without + 1 is not detected");
        CHECK(s != 7 || (!refused && 1000 % s != 0), "refusing all counts that do not divide 1000 is not detected");
        ctx.error[0] = 0;
        CHECK(flis_steps_make(&ctx, schedule, FLIS_DDIM, s, 0, steps) == !refused, "%d steps: %s", s, ctx.error);
        CHECK(!refused || ctx.error[0], "%d steps are refused without an error message", s);
        const char *advice = strstr(ctx.error, "such as ");
        const int other = advice ? atoi(advice + 8) : 50;
        ctx.error[0] = 0;
        CHECK(flis_steps_make(&ctx, schedule, FLIS_DDIM, other, 0, steps), "%d steps: advises %d", s, other);
    }
    ctx.error[0] = 0;
    CHECK(flis_steps_make(&ctx, schedule, FLIS_DDIM, 7, 0, steps) && steps->count == 8, "7 steps are %zu, wanted 8",
          steps->count);
    CHECK(!flis_steps_make(&ctx, schedule, FLIS_PLMS, 10, 0.5, steps) && strstr(ctx.error, "PLMS"), "PLMS with eta: %s",
          ctx.error);
    ctx.error[0] = 0;
    CHECK(!flis_steps_make(&ctx, schedule, FLIS_DDIM, 10, NAN, steps), "eta NaN");
    free(schedule);
    free(steps);
    flis_free(&ctx);
}

/* ---- Trajectories, replayed ------------------------------------------------------------------------------------ */

enum { VALUES = 4 * 16 * 16 };

/* Replaces the U-Net: returns the recorded eps, call by call, and checks its arguments. */
typedef struct replay {
    const char *name;
    double *x, *eps, *t, *has_label;                 /* a row per call */
    double *e_t, *x_prev, *pred_x0, *step_t, *index; /* a row per step */
    size_t calls, steps, wrong;
} replay;

/* The number of values that differ from PyTorch's: to the bit, or, in flis64, by more than the rounding of float32. */
static size_t differing(const flis_real *a, const double *b)
{
    const double tolerance = sizeof(flis_real) == sizeof(float) ? 0 : 5e-6;
    size_t count = 0;
    for (size_t i = 0; i < VALUES; i++) count += !(fabs((double)a[i] - b[i]) <= tolerance * fmax(1, fabs(b[i])));
    return count;
}

static void give(replay *r, const flis_real *x, int64_t t, flis_real *eps, bool label)
{
    const size_t row = r->calls++ * VALUES;
    r->wrong += differing(x, r->x + row) + (r->t[r->calls - 1] != (double)t);
    r->wrong += (r->has_label[r->calls - 1] != 0) != label;
    for (size_t i = 0; i < VALUES; i++) eps[i] = (flis_real)r->eps[row + i];
}

static bool on_eps(flis_ctx *ctx, void *user, const flis_real *x, int64_t t, flis_real *eps, flis_real *uncond)
{
    (void)ctx;
    give(user, x, t, eps, true); /* conditional first, with the layout; then unconditional, without: SPEC 15.3 */
    if (uncond) give(user, x, t, uncond, false);
    return true;
}

static void on_step(flis_ctx *ctx, void *user, const flis_step *step)
{
    replay *r = user;
    const size_t row = r->steps * VALUES;
    (void)ctx;
    CHECK((double)step->t == r->step_t[r->steps] && (double)step->index == r->index[r->steps],
          "%s: step %zu: t or index differs", r->name, step->number);
    r->steps++;
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

static replay replay_open(const char *name, size_t *calls, size_t *steps)
{
    return (replay){.name = name,
                    .x = recorded(name, "call.x", NULL),
                    .eps = recorded(name, "call.eps", NULL),
                    .t = recorded(name, "call.t", calls),
                    .has_label = recorded(name, "call.has_label", NULL),
                    .e_t = recorded(name, "step.e_t", NULL),
                    .x_prev = recorded(name, "step.x_prev", NULL),
                    .pred_x0 = recorded(name, "step.pred_x0", NULL),
                    .step_t = recorded(name, "step.t", steps),
                    .index = recorded(name, "step.index", NULL)};
}

static void replay_close(replay *r)
{
    double *all[] = {r->x, r->eps, r->t, r->has_label, r->e_t, r->x_prev, r->pred_x0, r->step_t, r->index};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) free(all[i]);
}

static void replay_run(const char *name, flis_sampling sampling, uint64_t seed)
{
    flis_ctx ctx;
    flis_init(&ctx);
    size_t calls = 0, steps = 0, draws = 0;
    replay r = replay_open(name, &calls, &steps);
    double *x_T = recorded(name, "x_T", NULL), *final = recorded(name, "final", NULL);
    double *noise = recorded(name, "noise_like_draws", &draws);
    float drawn[VALUES];
    flis_real x[VALUES];
    flis_rng_seed(&ctx.rng, FLIS_RNG_CPU, seed);
    flis_randn(&ctx.rng, drawn, VALUES);
    CHECK(differing_floats(drawn, x_T, VALUES) == 0, "%s: x_T differs from torch.randn", name);
    for (size_t i = 0; i < VALUES; i++) x[i] = drawn[i];
    flis_rng before = ctx.rng;
    flis_model_fn model = {on_eps, on_step, &r};
    CHECK(flis_sample(&ctx, &sampling, VALUES, x, &model), "%s", ctx.error);
    CHECK(r.wrong == 0, "%s: the model was called with %zu wrong values", name, r.wrong);
    CHECK(r.calls == calls && r.steps == steps, "%s: got %zu calls in %zu steps, wanted %zu in %zu", name, r.calls,
          r.steps, calls, steps);
    CHECK(differing(x, final) == 0, "%s: the final latent differs", name);
    /* The draws are the recorded ones, in order, and the generator's state is the one directly after them.
       SPEC 15.14. */
    size_t wrong = 0;
    for (size_t i = 0; i < draws; i += VALUES) {
        flis_randn(&before, drawn, VALUES);
        wrong += differing_floats(drawn, noise + i, VALUES);
    }
    CHECK(wrong == 0 && memcmp(&before, &ctx.rng, sizeof before) == 0, "%s: noise was not drawn once per update", name);
    replay_close(&r);
    free(x_T);
    free(final);
    free(noise);
    flis_free(&ctx);
}

/* ---- A second implementation of PLMS, and its wrong variants --------------------------------------------------- */

enum variant { RIGHT, UNGUIDED_HISTORY, HISTORY_OF_MIXED, FROM_IMPROVED, ONE_EVALUATION, VARIANTS };

/* x_prev for sigma 0, in float32. */
static float stepped(const flis_steps *steps, size_t index, float x, float e)
{
    const float before = (float)steps->alpha_prev[index];
    const float pred_x0 = (x - steps->sqrt_one_minus_alpha[index] * e) / sqrtf(steps->alpha[index]);
    return sqrtf(before) * pred_x0 + sqrtf(1.0f - before) * e;
}

/* With recorded eps everything is elementwise: the whole trajectory of value k, guidance scale 2. */
static float plms_value(const flis_steps *steps, const replay *r, size_t k, float x, enum variant variant)
{
    const double *eps = r->eps + k;
    float o1 = 0, o2 = 0, o3 = 0;
    for (size_t i = 0; i < steps->count; i++) {
        const size_t index = steps->count - 1 - i;
        const float cond = (float)eps[0], uncond = (float)eps[VALUES], e = uncond + 2.0f * (cond - uncond);
        float mixed = i == 1   ? (3 * e - o1) / 2
                      : i == 2 ? (23 * e - 16 * o1 + 5 * o2) / 12
                               : (55 * e - 59 * o1 + 37 * o2 - 9 * o3) / 24;
        eps += 2 * VALUES;
        if (i == 0) {
            const float c = (float)eps[0], u = (float)eps[VALUES], next = u + 2.0f * (c - u);
            eps += 2 * VALUES;
            mixed = variant == ONE_EVALUATION ? e : (e + next) / 2;
            if (variant == FROM_IMPROVED) x = stepped(steps, index, x, e);
        }
        x = stepped(steps, index, x, mixed);
        o3 = o2;
        o2 = o1;
        o1 = variant == UNGUIDED_HISTORY ? cond : variant == HISTORY_OF_MIXED ? mixed : e;
    }
    return x;
}

/* A second implementation of PLMS gives the recorded latents; each of its wrong variants does not. SPEC 15.13. */
static void plms_variants(void)
{
    flis_ctx ctx;
    flis_init(&ctx);
    flis_schedule *schedule = malloc(sizeof *schedule);
    flis_steps *steps = malloc(sizeof *steps);
    flis_schedule_make(schedule);
    CHECK(flis_steps_make(&ctx, schedule, FLIS_PLMS, 10, 0, steps), "%s", ctx.error);
    size_t calls = 0, count = 0;
    replay r = replay_open("plms10", &calls, &count);
    double *x_T = recorded("plms10", "x_T", NULL), *final = recorded("plms10", "final", NULL);
    CHECK(calls == 2 * (count + 1), "%zu calls in %zu steps: wanted one evaluation more than steps", calls, count);
    for (int v = RIGHT; v < VARIANTS && r.eps && x_T && final && calls == 22; v++) {
        double worst = 0;
        for (size_t k = 0; k < VALUES; k++)
            worst = fmax(worst, fabs((double)plms_value(steps, &r, k, (float)x_T[k], (enum variant)v) - final[k]));
        if (v == RIGHT) CHECK(worst == 0, "the second implementation of PLMS is off by %g", worst);
        else CHECK(worst > 1e-3, "wrong variant %d of PLMS is not detected: it is off by only %g", v, worst);
    }
    replay_close(&r);
    free(x_T);
    free(final);
    free(steps);
    free(schedule);
    flis_free(&ctx);
}

/* With the recorded eps the sampler's own arithmetic equals PyTorch's to the bit. SPEC 15.12 to SPEC 15.14. */
void test_sampler_replay(void)
{
    replay_run("plms10", (flis_sampling){FLIS_PLMS, 10, 0, 2}, 42);
    replay_run("ddim10_eta0", (flis_sampling){FLIS_DDIM, 10, 0, 2}, 42);
    replay_run("ddim10_eta0.5", (flis_sampling){FLIS_DDIM, 10, 0.5, 2}, 42);
    replay_run("plms4_scale1", (flis_sampling){FLIS_PLMS, 4, 0, 1}, 7);
    plms_variants();
}

static bool zero_eps(flis_ctx *ctx, void *user, const flis_real *x, int64_t t, flis_real *eps, flis_real *uncond)
{
    (void)ctx, (void)user, (void)x, (void)t;
    for (size_t i = 0; i < 16; i++) eps[i] = 0;
    for (size_t i = 0; uncond && i < 16; i++) uncond[i] = 0;
    return true;
}

/* Counts the calls of flis_sample, and lets it finish or stops it in one of three ways. */
typedef struct stops {
    size_t evaluations, steps, reported, at_step; /* at_step: the number of steps after which it stops */
    enum { GO_ON, INTERRUPT, STEP_FAILS, MODEL_FAILS } how;
    volatile int interrupted;
    bool in_order; /* progress was reported as "sample", 0..total */
} stops;

static bool count_eps(flis_ctx *ctx, void *user, const flis_real *x, int64_t t, flis_real *eps, flis_real *uncond)
{
    stops *s = user;
    s->evaluations++;
    if (s->how == MODEL_FAILS && s->steps == s->at_step) return flis_fail(ctx, "the model fails");
    return zero_eps(ctx, NULL, x, t, eps, uncond);
}

static void count_step(flis_ctx *ctx, void *user, const flis_step *step)
{
    stops *s = user;
    CHECK(step->number == s->steps && step->total == 10 && step->index == 9 - s->steps, "step %zu", step->number);
    if (++s->steps != s->at_step) return;
    if (s->how == INTERRUPT) s->interrupted = 1;
    if (s->how == STEP_FAILS) flis_fail(ctx, "the disk is full");
}

static void count_progress(void *user, const char *what, size_t done, size_t total)
{
    stops *s = user;
    s->in_order = s->in_order && strcmp(what, "sample") == 0 && done == s->reported && total == 10;
    s->reported++;
}

/* Ten steps report 0 to 10. A run that stops after three steps has the error of its cause, and the model is not called
   again. */
static void sampling_stops(void)
{
    const char *const wanted[] = {"", "interrupted", "the disk is full", "the model fails"};
    const size_t steps[] = {10, 3, 3, 3}, evaluations[] = {10, 3, 3, 4};
    for (int how = GO_ON; how <= MODEL_FAILS; how++) {
        flis_ctx ctx;
        flis_init(&ctx);
        stops s = {.at_step = 3, .in_order = true};
        s.how = how;
        flis_real x[16] = {0};
        ctx.progress = count_progress;
        ctx.progress_user = &s;
        ctx.interrupted = &s.interrupted;
        flis_model_fn model = {count_eps, count_step, &s};
        const bool done = flis_sample(&ctx, &(flis_sampling){FLIS_DDIM, 10, 0, 2}, 16, x, &model);
        CHECK(done == (how == GO_ON) && strcmp(ctx.error, wanted[how]) == 0, "way %d: \"%s\"", how, ctx.error);
        CHECK(s.steps == steps[how] && s.evaluations == evaluations[how], "way %d: %zu steps, %zu evaluations", how,
              s.steps, s.evaluations);
        CHECK(s.in_order && (how != GO_ON || s.reported == 11), "way %d: progress was reported %zu times", how,
              s.reported);
        CHECK(done || !flis_sample(&ctx, &(flis_sampling){FLIS_DDIM, 10, 0, 2}, 16, x, &model),
              "flis_sample succeeded with a failed context");
        CHECK(s.evaluations == evaluations[how], "flis_sample called the model with a failed context");
        flis_free(&ctx);
    }
}

/* Without golden tensors: S + 1 draws for PLMS, S for DDIM, for any eta. Wrong: no draws where sigma is 0; one draw
   fewer. The next picture of the same generator would start from different noise. SPEC 15.14. */
void test_sampler_noise_stays_in_step(void)
{
    for (int kind = 0; kind < 2; kind++) {
        flis_ctx ctx;
        flis_init(&ctx);
        flis_rng expected, undrawn, fewer;
        float drawn[16], next[16], wrong[2][16];
        flis_real x[16] = {0};
        flis_rng_seed(&ctx.rng, FLIS_RNG_CPU, 5);
        expected = undrawn = fewer = ctx.rng;
        for (int i = 0; i < 10 + (kind == 0); i++) {
            fewer = expected;
            flis_randn(&expected, drawn, 16);
        }
        flis_sampling sampling = {kind ? FLIS_DDIM : FLIS_PLMS, 10, 0, 2};
        flis_model_fn model = {zero_eps, NULL, NULL};
        CHECK(flis_sample(&ctx, &sampling, 16, x, &model), "%s", ctx.error);
        CHECK(memcmp(&expected, &ctx.rng, sizeof expected) == 0, "%s made a wrong number of draws",
              kind ? "DDIM" : "PLMS");
        flis_randn(&ctx.rng, next, 16);
        flis_randn(&undrawn, wrong[0], 16);
        flis_randn(&fewer, wrong[1], 16);
        for (int i = 0; i < 16; i++)
            CHECK(next[i] != wrong[0][i] && next[i] != wrong[1][i], "missing draws are not detected at %d", i);
        flis_free(&ctx);
    }
    sampling_stops();
}
