/* test_train.c - the optimiser: AdamW, clipping, averages; a resumed training gives the same bits. */
#include "tests/unit/test.h"
#include "tools/train/adamw.h"

/* ---- A model of three weights with made-up gradients ------------------------------------------------------ */

enum { WEIGHTS = 3, MOST = 35 * 7 };
static const struct {
    const char *name;
    int rank;
    size_t shape[4], count;
    bool table;
} SHAPES[WEIGHTS] = {
    {"matrix.weight", 2, {35, 7, 1, 1}, 35 * 7, false},
    {"kernel.weight", 4, {2, 3, 3, 3}, 54, false},
    {"table.weight", 2, {5, 4, 1, 1}, 20, true},
};

typedef struct model {
    flis_ctx ctx;
    training training;
    flis_param weight[WEIGHTS];
} model;

static void values(const char *name, size_t seed, size_t count, flis_real *out)
{
    char full[64];
    const size_t shape[2] = {1, 2};
    snprintf(full, sizeof full, "%s %zu", name, seed);
    flis_formula_weights(full, 2, shape, 0, count, out);
}

static void model_begin_workers(model *m, double ema, size_t workers)
{
    flis_real x[MOST];
    memset(m, 0, sizeof *m);
    flis_init(&m->ctx);
    training_default(&m->training);
    m->training.ema = ema;
    m->training.workers = workers;
    for (int i = 0; i < WEIGHTS; i++) {
        m->weight[i] = (flis_param){.rank = SHAPES[i].rank, .table = SHAPES[i].table};
        memcpy(m->weight[i].shape, SHAPES[i].shape, sizeof SHAPES[i].shape);
        values(SHAPES[i].name, 0, SHAPES[i].count, x);
        CHECK(flis_param_set(&m->ctx, &m->weight[i], x, false), "%s", m->ctx.error);
        CHECK(training_visit(&m->ctx, &m->training, SHAPES[i].name, &m->weight[i]), "%s", m->ctx.error);
    }
}

static void model_begin(model *m, double ema)
{
    model_begin_workers(m, ema, 1);
}

static void model_end(model *m)
{
    CHECK(flis_ok(&m->ctx), "%s", m->ctx.error);
    for (int i = 0; i < WEIGHTS; i++) flis_free_visit(&m->ctx, NULL, NULL, &m->weight[i]);
    training_free(&m->training);
    flis_free(&m->ctx);
}

/* A step whose gradients depend on its number. */
static void step(model *m)
{
    for (int i = 0; i < WEIGHTS; i++)
        values(SHAPES[i].name, 1 + (size_t)m->training.step, SHAPES[i].count, m->weight[i].grad);
    CHECK(training_step(&m->ctx, &m->training), "%s", m->ctx.error);
}

static bool same_weights(const model *a, const model *b)
{
    for (int i = 0; i < WEIGHTS; i++) {
        flis_real x[MOST], y[MOST];
        const flis_param *p = &a->weight[i], *q = &b->weight[i];
        flis_param only_packed = *p;
        const size_t bytes = SHAPES[i].count * sizeof(flis_real);
        flis_param_get(p, x);
        flis_param_get(q, y);
        const trained_weight *s = &a->training.item[i], *t = &b->training.item[i];
        if (memcmp(x, y, bytes) || memcmp(s->m, t->m, bytes) || memcmp(s->v, t->v, bytes)) return false;
        if (s->ema && memcmp(s->ema, t->ema, bytes)) return false;
        only_packed.value = NULL; /* the panels must contain the same values */
        if (p->packed) flis_param_get(&only_packed, y);
        if (memcmp(x, y, bytes)) return false;
    }
    return true;
}

/* ---- AdamW ----------------------------------------------------------------------------------------------------- */

/* Loshchilov & Hutter 2019, algorithm 2, in double. */
static void reference(const training *t, double clip, int number, double *p, double *m, double *v, double *ema,
                      const flis_real *grad, size_t count)
{
    const double decay = fmin(t->ema, (1.0 + number) / (10.0 + number));
    for (size_t i = 0; i < count; i++) {
        const double g = clip * grad[i];
        m[i] = t->beta1 * m[i] + (1 - t->beta1) * g;
        v[i] = t->beta2 * v[i] + (1 - t->beta2) * g * g;
        const double m_hat = m[i] / (1 - pow(t->beta1, number)), v_hat = v[i] / (1 - pow(t->beta2, number));
        p[i] = p[i] - t->rate * t->decay * p[i] - t->rate * m_hat / (sqrt(v_hat) + t->eps);
        ema[i] = decay * ema[i] + (1 - decay) * p[i];
    }
}

/* Relative to the largest value. In float about 1e-7 per step, for 40 steps. */
#ifdef FLIS_DOUBLE
static const double TOLERANCE = 1e-14;
#else
static const double TOLERANCE = 2e-6;
#endif

static void against_reference(double clip)
{
    model m;
    double p[WEIGHTS][MOST], first[WEIGHTS][MOST] = {{0}}, second[WEIGHTS][MOST] = {{0}}, ema[WEIGHTS][MOST], worst = 0;
    model_begin(&m, 0.9);
    m.training.rate = 0.01;
    m.training.decay = 0.1;
    m.training.eps = 1e-3;
    m.training.clip = clip;
    for (int i = 0; i < WEIGHTS; i++)
        for (size_t k = 0; k < SHAPES[i].count; k++) p[i][k] = ema[i][k] = m.weight[i].value[k];
    for (int number = 1; number <= 40; number++) {
        flis_real grad[WEIGHTS][MOST];
        double square = 0;
        for (int i = 0; i < WEIGHTS; i++) {
            values(SHAPES[i].name, (size_t)number, SHAPES[i].count, grad[i]);
            for (size_t k = 0; k < SHAPES[i].count; k++) square += (double)grad[i][k] * grad[i][k];
        }
        const double factor = clip > 0 ? fmin(1, clip / (sqrt(square) + 1e-6)) : 1;
        for (int i = 0; i < WEIGHTS; i++)
            reference(&m.training, factor, number, p[i], first[i], second[i], ema[i], grad[i], SHAPES[i].count);
        step(&m);
        CHECK(fabs(m.training.norm - sqrt(square)) <= 1e-12 * sqrt(square), "the norm is %g, wanted %g",
              m.training.norm, sqrt(square));
    }
    CHECK(m.training.step == 40, "%d steps", (int)m.training.step);
    for (int i = 0; i < WEIGHTS; i++)
        for (size_t k = 0; k < SHAPES[i].count; k++) {
            const flis_param *w = &m.weight[i];
            const trained_weight *s = &m.training.item[i];
            const double error[] = {w->value[k] - p[i][k], s->m[k] - first[i][k], s->v[k] - second[i][k],
                                    s->ema[k] - ema[i][k]};
            for (int j = 0; j < 4; j++) {
                CHECK(fabs(error[j]) <= TOLERANCE, "%s[%zu]: state %d is %g off", SHAPES[i].name, k, j, error[j]);
                worst = fabs(error[j]) > worst ? fabs(error[j]) : worst;
            }
            CHECK(w->grad[k] == 0, "a gradient was not set to zero");
        }
    if (getenv("FLIS_TEST_ERRORS")) fprintf(stderr, "AdamW, clip %g: largest error %.2g\n", clip, worst);
    model_end(&m);
}

/* The gradients of three workers are added in order and are all zero afterwards; a NaN in one of them is refused. */
void test_train_workers(void)
{
    model one, three;
    model_begin(&one, 0.9);
    model_begin_workers(&three, 0.9, 3);
    for (int number = 1; number <= 3; number++) {
        for (int i = 0; i < WEIGHTS; i++)
            for (size_t h = 0; h < 3; h++) {
                flis_real part[MOST];
                values(SHAPES[i].name, (size_t)number * 3 + h, SHAPES[i].count, part);
                memcpy(three.weight[i].grad + h * SHAPES[i].count, part, SHAPES[i].count * sizeof(flis_real));
                for (size_t k = 0; k < SHAPES[i].count; k++) one.weight[i].grad[k] += part[k];
            }
        CHECK(training_step(&one.ctx, &one.training) && training_step(&three.ctx, &three.training), "%s",
              three.ctx.error);
    }
    CHECK(one.training.norm == three.training.norm && same_weights(&one, &three),
          "three workers give weights that differ from those of the sum of their gradients");
    for (int i = 0; i < WEIGHTS; i++)
        for (size_t k = 0; k < 3 * SHAPES[i].count; k++)
            CHECK(three.weight[i].grad[k] == 0, "a worker's gradient was not set to zero by the step");
    three.weight[1].grad[2 * SHAPES[1].count + 5] = 1;
    training_zero(&three.training);
    CHECK(three.weight[1].grad[2 * SHAPES[1].count + 5] == 0, "a worker's gradient was not set to zero");
    model_end(&one);
    three.weight[1].grad[2 * SHAPES[1].count + 5] = (flis_real)NAN;
    CHECK(!training_step(&three.ctx, &three.training) && strstr(three.ctx.error, SHAPES[1].name),
          "a worker's NaN was accepted");
    three.ctx.error[0] = 0;
    model_end(&three);
}

void test_train_adamw(void)
{
    against_reference(0);
}
void test_train_clip(void)
{
    against_reference(3);    /* the norms are around 10 */
    against_reference(1000); /* never reached */
}

/* ---- State ----------------------------------------------------------------------------------------------------- */

static void save(model *m, const char *path)
{
    const uint64_t shape[1] = {2};
    const double extra[2] = {1, 2};
    flis_writer *writer = flis_write_begin(&m->ctx, path);
    flis_write_metadata(&m->ctx, writer, "note", "other tensors may be in the file");
    flis_write_declare(&m->ctx, writer, "extra", FLIS_F64, 1, shape);
    training_declare(&m->ctx, writer, &m->training);
    flis_write_f64(&m->ctx, writer, extra, 2);
    training_write(&m->ctx, writer, &m->training);
    CHECK(flis_write_end(&m->ctx, writer), "%s", m->ctx.error);
}

void test_train_resume(void)
{
    for (int averaged = 0; averaged < 2; averaged++) {
        model a, b;
        const char *path = test_scratch("state.safetensors");
        model_begin(&a, averaged ? 0.99 : 0);
        model_begin(&b, averaged ? 0.99 : 0);
        for (int i = 0; i < 3; i++) step(&a);
        save(&a, path);
        for (int i = 0; i < 4; i++) step(&a);
        step(&b); /* different values, which reading must overwrite */
        flis_file *file = flis_file_open(&b.ctx, path);
        CHECK(file && training_read(&b.ctx, file, &b.training) && b.training.step == 3, "%s", b.ctx.error);
        flis_file_close(file);
        for (int i = 0; i < 4; i++) step(&b);
        CHECK(same_weights(&a, &b), "resumed after 3 of 7 steps, the weights differ");
        step(&b);
        CHECK(!same_weights(&a, &b), "another step changes nothing");
        model_end(&a);
        model_end(&b);
    }
}

void test_train_swap(void)
{
    model a, b;
    model_begin(&a, 0.5);
    model_begin(&b, 0.5);
    for (int i = 0; i < 3; i++) {
        step(&a);
        step(&b);
    }
    flis_real before[MOST], after[MOST];
    flis_param_get(&a.weight[0], before);
    CHECK(training_swap(&a.ctx, &a.training), "%s", a.ctx.error);
    flis_param panels = a.weight[0];
    panels.value = NULL;
    flis_param_get(&panels, after);
    CHECK(memcmp(after, b.training.item[0].ema, SHAPES[0].count * sizeof(flis_real)) == 0 &&
              memcmp(before, after, sizeof after) != 0,
          "the weights are not their averages");
    CHECK(training_swap(&a.ctx, &a.training), "%s", a.ctx.error);
    step(&a);
    step(&b);
    CHECK(same_weights(&a, &b), "two exchanges changed the weights");
    model_end(&a);
    model_end(&b);
}

void test_train_refuses(void)
{
    model a, b;
    const char *path = test_scratch("state.safetensors");
    model_begin(&a, 0.9);
    model_begin(&b, 0);
    step(&a);
    step(&b);
    a.weight[1].grad[5] = (flis_real)NAN;
    flis_real before[MOST];
    flis_param_get(&a.weight[0], before);
    a.weight[0].grad[0] = 1;
    CHECK(!training_step(&a.ctx, &a.training) && strstr(a.ctx.error, "kernel.weight: step 2"), "%s", a.ctx.error);
    CHECK(a.training.step == 1 && memcmp(before, a.weight[0].value, SHAPES[0].count * sizeof(flis_real)) == 0,
          "a NaN changed weights");
    a.ctx.error[0] = 0;
    training_zero(&a.training);
    CHECK(!training_swap(&b.ctx, &b.training) && strstr(b.ctx.error, "matrix.weight"), "%s", b.ctx.error);
    b.ctx.error[0] = 0;
    save(&b, path); /* without averages, which `a` needs */
    flis_file *file = flis_file_open(&a.ctx, path);
    CHECK(!training_read(&a.ctx, file, &a.training) && strstr(a.ctx.error, "ema.matrix.weight is missing"), "%s",
          a.ctx.error);
    a.ctx.error[0] = 0;
    b.weight[2].shape[0] = 4;
    b.weight[2].shape[1] = 5;
    CHECK(!training_read(&b.ctx, file, &b.training) &&
              strstr(b.ctx.error, "table.weight: got shape [5,4], wanted the model's, [4,5]"),
          "%s", b.ctx.error);
    b.ctx.error[0] = 0;
    flis_file_close(file);
    model_end(&a);
    model_end(&b);
}

/* ---- A whole training ------------------------------------------------------------------------------------------ */

/* A small network learns a function that it can express: the loss falls to a hundredth in 300 steps with accumulated gradients. */
void test_train_learns(void)
{
    model m;
    flis_tape tape = {0};
    model_begin(&m, 0);
    training_free(&m.training);
    flis_param *w = &m.weight[0], hidden = {.rank = 2, .shape = {4, 35}};
    flis_real start[4 * 35];
    values("hidden", 0, 4 * 35, start);
    flis_param_set(&m.ctx, &hidden, start, false);
    training_visit(&m.ctx, &m.training, "first", w);
    training_visit(&m.ctx, &m.training, "second", &hidden);
    m.training.rate = 0.02;
    m.training.decay = 0;
    double loss = 0, begun = 0;
    for (int i = 0; i < 300; i++) {
        loss = 0;
        for (int part = 0; part < 2; part++) {
            flis_mark mark = flis_here(&m.ctx);
            flis_tensor *x = flis_rows(&m.ctx, 1, 16, 7);
            flis_real target[16 * 4];
            values("x", (size_t)part, 16 * 7, x->x);
            for (size_t r = 0; r < 16; r++)
                for (size_t k = 0; k < 4; k++) target[r * 4 + k] = x->x[r * 7 + k] * x->x[r * 7 + k + 1];
            flis_tape_begin(&m.ctx, &tape);
            flis_tensor *y =
                flis_linear(&m.ctx, flis_silu(&m.ctx, flis_linear(&m.ctx, x, w, NULL, NULL)), &hidden, NULL, NULL);
            loss += 0.5 * flis_mse(&m.ctx, y, target, NULL, 0.5);
            flis_backward(&m.ctx);
            flis_tape_end(&m.ctx);
            flis_rewind(&m.ctx, mark);
        }
        if (i == 0) begun = loss;
        CHECK(training_step(&m.ctx, &m.training), "%s", m.ctx.error);
    }
    CHECK(loss < begun / 100, "the loss went from %g to %g", begun, loss);
    flis_free_visit(&m.ctx, NULL, NULL, &hidden);
    flis_tape_free(&tape);
    model_end(&m);
}
