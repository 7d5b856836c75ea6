/* stage.c - `flis stage`: one stage of the pipeline on given tensors. */
#include "tools/flis/command.h"

#include <stdlib.h>
#include <string.h>

/* SPEC 10.14. */
static void stage_clip(stage *s)
{
    flis_ctx *ctx = &s->j->ctx;
    int64_t *wide = integer_input(s, "ids", "n,77", 0, INT32_MAX, false);
    flis_clip *clip = flis_ok(ctx) ? flis_clip_load(ctx, s->model) : NULL;
    size_t n = s->dim['n'], count = n * FLIS_TOKENS, vocab = clip ? flis_clip_get_config(clip)->vocab : 0;
    int32_t *ids = clip ? flis_alloc(ctx, count, sizeof *ids) : NULL;
    for (size_t i = 0; ids && i < count; i++) {
        ids[i] = (int32_t)wide[i];
        if (wide[i] >= (int64_t)vocab)
            flis_fail(ctx, "%s: tensor \"ids\": value %zu: got %lld, wanted less than the model's vocabulary, %zu",
                      s->j->set.in, i, (long long)wide[i], vocab);
    }
    if (ids && flis_ok(ctx))
        add_activation(ctx, &s->j->outputs, "last_hidden_state", flis_clip_encode(ctx, clip, ids, n));
    free(ids);
    free(wide);
    flis_clip_free(clip);
}

/* SPEC 10.14. */
static void stage_rca(stage *s)
{
    flis_ctx *ctx = &s->j->ctx;
    rca_input r;
    int64_t *size = integer_input(s, "size", "2", 1, 65536, false);
    if (read_rca(s, &r, false)) {
        const uint64_t h = (uint64_t)size[0], w = (uint64_t)size[1], shape[] = {h * w, FLIS_TOKENS};
        uint8_t *mask = add_tensor(ctx, &s->j->outputs, "mask", FLIS_U8, 2, shape);
        if (mask) flis_rca_mask(ctx, &r.rca, (size_t)h, (size_t)w, mask);
    }
    free_rca(&r);
    free(size);
}

/* SPEC 10.14. */
static void stage_unet(stage *s)
{
    flis_ctx *ctx = &s->j->ctx;
    rca_input r = {0};
    double *t = NULL;
    const flis_rca **rca = NULL;
    flis_tensor *context = NULL, *x = image_input(s, "x", "n,4,h,w", 4, 'h', 'w');
    const flis_entry *entry = find_input(s, "t", "n", false);
    if (entry && (t = flis_alloc(ctx, s->dim['n'], sizeof *t))) flis_file_read_f64(ctx, s->in, entry, t);
    flis_real *text = real_input(s, "context", "n,77,d", false);
    if (text && (context = flis_rows(ctx, s->dim['n'], FLIS_TOKENS, s->dim['d'])))
        memcpy(context->x, text, flis_count(context) * sizeof *text);
    free(text);
    if (read_rca(s, &r, true) && (rca = flis_alloc(ctx, s->dim['n'], sizeof *rca)))
        for (size_t i = 0; i < s->dim['n']; i++) rca[i] = &r.rca;
    flis_unet *unet = flis_ok(ctx) ? flis_unet_load(ctx, s->model) : NULL;
    if (unet) add_activation(ctx, &s->j->outputs, "eps", flis_unet_eps(ctx, unet, x, t, context, rca));
    flis_unet_free(unet);
    free((void *)rca);
    free_rca(&r);
    free(t);
}

/* SPEC 10.14. */
static void stage_decode(stage *s)
{
    flis_ctx *ctx = &s->j->ctx;
    flis_tensor *z = image_input(s, "z", "n,4,h,w", 4, 'h', 'w');
    flis_vae *vae = flis_ok(ctx) ? flis_vae_load(ctx, s->model, true, false) : NULL;
    if (vae) add_activation(ctx, &s->j->outputs, "image", flis_vae_decode(ctx, vae, z));
    flis_vae_free(vae);
}

/* SPEC 10.14. */
static void stage_encode(stage *s)
{
    flis_ctx *ctx = &s->j->ctx;
    flis_tensor *image = image_input(s, "image", "n,3,H,W", 3, 'H', 'W');
    if (flis_ok(ctx) && (s->dim['H'] % FLIS_FACTOR || s->dim['W'] % FLIS_FACTOR))
        flis_fail(ctx, "%s: tensor \"image\": got %zu x %zu pixels, wanted multiples of %d", s->j->set.in, s->dim['H'],
                  s->dim['W'], FLIS_FACTOR);
    flis_vae *vae = flis_ok(ctx) ? flis_vae_load(ctx, s->model, false, true) : NULL;
    if (vae) add_activation(ctx, &s->j->outputs, "moments", flis_vae_encode(ctx, vae, image));
    flis_vae_free(vae);
}

/* What stage sample records of every step; arrays are [S][4][h][w]. */
typedef struct recording {
    tensor_list *list;
    size_t count, h, w; /* values of one latent */
    int64_t *t;
    flis_real *e_t, *x_prev, *pred_x0, *x;
} recording;

/* The user pointer of both callbacks of the sampler. */
typedef struct sample_user {
    flis_guided guided;
    recording record;
    size_t step, evaluation; /* for the names of traced tensors */
} sample_user;

/* As in generate, the names of traced tensors begin with the step; the first step of PLMS evaluates twice. */
static bool sample_eps(flis_ctx *ctx, void *user, const flis_real *x, int64_t t, flis_real *eps, flis_real *uncond)
{
    sample_user *u = user;
    snprintf(ctx->scope, sizeof ctx->scope, "step.%zu.%s", u->step, u->evaluation++ ? "next." : "");
    return flis_guided_eps(ctx, &u->guided, x, t, eps, uncond);
}

static void on_step(flis_ctx *ctx, void *user, const flis_step *step)
{
    sample_user *u = user;
    recording *r = &u->record;
    u->step++;
    u->evaluation = 0;
    if (step->number == 0) {
        const uint64_t shape[] = {step->total, 4, r->h, r->w};
        flis_real *start = r->x; /* x_T, until now */
        r->t = add_tensor(ctx, r->list, "t", FLIS_I64, 1, shape);
        r->e_t = add_tensor(ctx, r->list, "e_t", real_type(), 4, shape);
        r->x_prev = add_tensor(ctx, r->list, "x_prev", real_type(), 4, shape);
        r->pred_x0 = add_tensor(ctx, r->list, "pred_x0", real_type(), 4, shape);
        r->x = add_tensor(ctx, r->list, "x", real_type(), 4, shape);
        if (r->x) memcpy(r->x, start, r->count * sizeof *start);
    }
    if (!flis_ok(ctx)) return;
    const size_t bytes = r->count * sizeof(flis_real), at = step->number * r->count;
    r->t[step->number] = step->t;
    memcpy(r->e_t + at, step->e_t, bytes);
    memcpy(r->x_prev + at, step->x_prev, bytes);
    memcpy(r->pred_x0 + at, step->pred_x0, bytes);
    if (step->number + 1 < step->total) memcpy(r->x + at + r->count, step->x_prev, bytes);
}

/* x_T from the file, or drawn; either way the generator has then made one draw of that size. */
static flis_real *starting_noise(stage *s)
{
    flis_ctx *ctx = &s->j->ctx;
    flis_real *x = real_input(s, "x_T", "1,4,h,w", true);
    if (!x) {
        int64_t *size = integer_input(s, "size", "2", 1, 8192, true);
        if (flis_ok(ctx) && !size)
            flis_fail(ctx, "%s: tensor \"x_T\": missing, wanted [1,4,h,w] (or \"size\" [2], to draw it)", s->j->set.in);
        if (size && flis_ok(ctx)) {
            s->dim['h'] = (size_t)size[0];
            s->dim['w'] = (size_t)size[1];
        }
        free(size);
    }
    size_t count = 4 * s->dim['h'] * s->dim['w'];
    float *noise = flis_ok(ctx) ? flis_alloc(ctx, count, sizeof *noise) : NULL;
    if (!noise) return x;
    flis_rng_seed(&ctx->rng, s->j->options.rng, s->j->options.seed);
    flis_randn(&ctx->rng, noise, count);
    if (!x && (x = flis_alloc(ctx, count, sizeof *x)))
        for (size_t i = 0; i < count; i++) x[i] = (flis_real)noise[i];
    free(noise);
    return x;
}

/* SPEC 10.14. */
static void stage_sample(stage *s)
{
    job *j = s->j;
    flis_ctx *ctx = &j->ctx;
    const bool guide = j->options.sampling.scale != 1;
    rca_input r = {0};
    flis_real *x = starting_noise(s), *latents = NULL;
    flis_real *context = real_input(s, "context", "1,77,d", false);
    flis_real *uncond = guide ? real_input(s, "uncond", "1,77,d", false) : NULL;
    const bool has_rca = read_rca(s, &r, true);
    const uint64_t shape[] = {1, 4, s->dim['h'], s->dim['w']};
    flis_unet *unet = flis_ok(ctx) ? flis_unet_load(ctx, s->model) : NULL;
    if (unet && flis_unet_get_config(unet)->context != s->dim['d'])
        flis_fail(ctx, "%s: tensor \"context\": got width %zu, wanted the model's, %zu", j->set.in, s->dim['d'],
                  flis_unet_get_config(unet)->context);
    if (unet && (latents = add_tensor(ctx, &j->outputs, "latents", real_type(), 4, shape))) {
        const size_t count = 4 * s->dim['h'] * s->dim['w'];
        sample_user user = {
            .guided = {unet, s->dim['h'], s->dim['w'], context, uncond, has_rca ? &r.rca : NULL},
            .record = {.list = &j->outputs, .count = count, .h = s->dim['h'], .w = s->dim['w'], .x = x}};
        const flis_model_fn model = {sample_eps, on_step, &user};
        memcpy(latents, x, count * sizeof *x);
        flis_sample(ctx, &j->options.sampling, count, latents, &model);
        job_print_seed(j);
    }
    flis_unet_free(unet);
    free_rca(&r);
    free(uncond);
    free(context);
    free(x);
}

typedef struct stage_kind {
    const char *name;
    void (*run)(stage *s);
    bool model; /* reads weights */
} stage_kind;

static const stage_kind STAGES[] = {
    {"clip", stage_clip, true},     {"rca", stage_rca, false},      {"unet", stage_unet, true},
    {"decode", stage_decode, true}, {"encode", stage_encode, true}, {"sample", stage_sample, true},
};

static const stage_kind *find_stage(const char *name)
{
    for (size_t i = 0; i < sizeof STAGES / sizeof *STAGES; i++)
        if (strcmp(STAGES[i].name, name) == 0) return &STAGES[i];
    return NULL;
}

static const char STAGE_NAMES[] = "clip, rca, unet, decode, encode or sample";

static int check_usage(job *j)
{
    if (!j->words) return usage_error(j->program, "NAME is missing: %s", STAGE_NAMES);
    if (!find_stage(j->word[0]))
        return usage_error(j->program, "unknown stage '%s': wanted %s", j->word[0], STAGE_NAMES);
    if (j->words > 1) return unexpected_argument(j->program, j->word[1]);
    if (!j->set.in) return missing_argument(j->program, "-i IN.safetensors");
    if (!j->set.out) return missing_argument(j->program, "-o OUT.safetensors");
    return 0;
}

static void add_stage_facts(job *j, const stage_kind *kind)
{
    char command[32];
    snprintf(command, sizeof command, "stage %s", kind->name);
    add_run_facts(j, command, kind->model);
    add_file_facts(j, "input", "input.sha256", j->set.in);
    if (kind->run == stage_sample) add_sampling_facts(j);
}

int run_stage(job *j)
{
    flis_ctx *ctx = &j->ctx;
    stage s = {.j = j};
    if (check_usage(j)) return 2;
    const stage_kind *kind = find_stage(j->word[0]);
    job_begin(j);
    if (kind->run == stage_sample && job_check_steps(j) && trace_check_steps(j)) return 2;
    if (flis_ok(ctx) && job_check_outputs(j, NULL) && input_check(ctx, j->set.in) &&
        (!kind->model || (find_model(j) && job_check_outputs(j, NULL) && (s.model = open_model(j)))))
        s.in = flis_file_open(ctx, j->set.in);
    if (s.in && tracing(j)) add_stage_facts(j, kind);
    if (s.in) trace_begin(j);
    if (s.in && flis_ok(ctx)) kind->run(&s);
    progress_end(&j->progress);
    flis_file_close(s.in);
    flis_file_close(s.model);
    const size_t facts = j->set.trace ? 0 : j->facts; /* they belong to the file that has the intermediates */
    if (trace_end(j) && !save_tensors(ctx, j->set.out, &j->outputs, j->fact, facts)) trace_remove(j);
    return job_status(j);
}
