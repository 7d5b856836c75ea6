/* kernels.c - the shapes of the operations that take most of the time of the 512x512 pipeline, each measured
   separately. */
#include "tools/bench/bench.h"

#include <math.h>
#include <string.h>

/* Convolutions: h x w is the input. Linear layers and layer norm: h rows. Attention: h queries, w keys, c channels in all heads, o
   heads. */
typedef enum { CONV3, CONV1, DOWN, UP, LINEAR, ATTENTION, GROUP_NORM, LAYER_NORM, GEGLU, QUICK_GELU } operation;
typedef struct form {
    operation op;
    size_t h, w, c, o;
    const char *where;
} form;
static const form FORMS[] = {
    {CONV3, 64, 64, 4, 320, "unet in"},
    {CONV3, 64, 64, 320, 320, "unet"},
    {CONV3, 64, 64, 640, 320, "unet"},
    {CONV3, 64, 64, 960, 320, "unet"},
    {CONV3, 64, 64, 320, 4, "unet out"},
    {CONV3, 32, 32, 320, 640, "unet"},
    {CONV3, 32, 32, 640, 640, "unet"},
    {CONV3, 32, 32, 960, 640, "unet"},
    {CONV3, 32, 32, 1280, 640, "unet"},
    {CONV3, 32, 32, 1920, 640, "unet"},
    {CONV3, 16, 16, 640, 1280, "unet"},
    {CONV3, 16, 16, 1280, 1280, "unet"},
    {CONV3, 16, 16, 1920, 1280, "unet"},
    {CONV3, 16, 16, 2560, 1280, "unet"},
    {CONV3, 8, 8, 1280, 1280, "unet"},
    {CONV3, 8, 8, 2560, 1280, "unet"},
    {DOWN, 64, 64, 320, 320, "unet"},
    {DOWN, 32, 32, 640, 640, "unet"},
    {DOWN, 16, 16, 1280, 1280, "unet"},
    {UP, 8, 8, 1280, 1280, "unet"},
    {UP, 16, 16, 1280, 1280, "unet"},
    {UP, 32, 32, 640, 640, "unet"},
    {CONV1, 64, 64, 320, 320, "unet"},
    {CONV1, 64, 64, 640, 320, "unet"},
    {CONV1, 64, 64, 960, 320, "unet"},
    {CONV1, 32, 32, 640, 640, "unet"},
    {CONV1, 32, 32, 1920, 640, "unet"},
    {CONV1, 16, 16, 1280, 1280, "unet"},
    {CONV1, 16, 16, 2560, 1280, "unet"},
    {CONV1, 8, 8, 2560, 1280, "unet"},
    {LINEAR, 4096, 1, 320, 320, "unet"},
    {LINEAR, 4096, 1, 320, 2560, "unet geglu"},
    {LINEAR, 4096, 1, 1280, 320, "unet"},
    {LINEAR, 1024, 1, 640, 640, "unet"},
    {LINEAR, 1024, 1, 640, 5120, "unet geglu"},
    {LINEAR, 1024, 1, 2560, 640, "unet"},
    {LINEAR, 256, 1, 1280, 1280, "unet"},
    {LINEAR, 256, 1, 1280, 10240, "unet geglu"},
    {LINEAR, 256, 1, 5120, 1280, "unet"},
    {LINEAR, 64, 1, 1280, 1280, "unet"},
    {LINEAR, 64, 1, 1280, 10240, "unet geglu"},
    {LINEAR, 64, 1, 5120, 1280, "unet"},
    {LINEAR, 77, 1, 768, 320, "unet text"},
    {LINEAR, 77, 1, 768, 1280, "unet text"},
    {LINEAR, 1, 1, 1280, 1280, "unet time"},
    {ATTENTION, 4096, 4096, 320, 8, "unet"},
    {ATTENTION, 1024, 1024, 640, 8, "unet"},
    {ATTENTION, 256, 256, 1280, 8, "unet"},
    {ATTENTION, 64, 64, 1280, 8, "unet"},
    {ATTENTION, 4096, 77, 320, 8, "unet text"},
    {ATTENTION, 1024, 77, 640, 8, "unet text"},
    {ATTENTION, 256, 77, 1280, 8, "unet text"},
    {ATTENTION, 64, 77, 1280, 8, "unet text"},
    {GROUP_NORM, 64, 64, 320, 0, "unet"},
    {GROUP_NORM, 32, 32, 640, 0, "unet"},
    {GROUP_NORM, 16, 16, 1280, 0, "unet"},
    {LAYER_NORM, 4096, 1, 320, 0, "unet"},
    {LAYER_NORM, 1024, 1, 640, 0, "unet"},
    {GEGLU, 4096, 1, 2560, 0, "unet"},
    {GEGLU, 1024, 1, 5120, 0, "unet"},
    {GEGLU, 256, 1, 10240, 0, "unet"},
    {CONV3, 64, 64, 512, 512, "vae"},
    {UP, 64, 64, 512, 512, "vae"},
    {CONV3, 128, 128, 512, 512, "vae"},
    {UP, 128, 128, 512, 512, "vae"},
    {CONV3, 256, 256, 512, 256, "vae"},
    {CONV3, 256, 256, 256, 256, "vae"},
    {UP, 256, 256, 256, 256, "vae"},
    {CONV3, 512, 512, 256, 128, "vae"},
    {CONV3, 512, 512, 128, 128, "vae"},
    {CONV3, 512, 512, 128, 3, "vae out"},
    {CONV1, 512, 512, 256, 128, "vae"},
    {ATTENTION, 4096, 4096, 512, 1, "vae"},
    {GROUP_NORM, 512, 512, 128, 0, "vae"},
    {GROUP_NORM, 256, 256, 256, 0, "vae"},
    {GROUP_NORM, 128, 128, 512, 0, "vae"},
    {LINEAR, 77, 1, 768, 768, "clip"},
    {LINEAR, 77, 1, 768, 3072, "clip"},
    {LINEAR, 77, 1, 3072, 768, "clip"},
    {ATTENTION, 77, 77, 768, 12, "clip"},
    {QUICK_GELU, 77, 1, 3072, 0, "clip"},
};

typedef struct job {
    form s;
    flis_param w, b;
    flis_tensor *x, *k; /* input (queries); keys and values */
} job;

/* The shape for --small: the channels of small networks, pictures of a quarter of the width, and again 77 tokens. */
static form smaller(form s)
{
    size_t *channels[] = {&s.c, &s.o}, *sides[] = {&s.h, &s.w};
    const size_t by = s.op == ATTENTION || s.op == LINEAR || s.op == LAYER_NORM || s.op == GEGLU ? 16 : 4;
    for (int i = 0; i < 2; i++) {
        size_t *c = channels[i], *side = sides[i];
        *c = *c % 320 == 0 ? *c / 10 : *c >= 128 ? *c / 4 : *c;
        if (*side != 77 && *side > 1) *side = *side > 2 * by ? *side / by : 2;
    }
    return s;
}

static void describe(const form *s, char *out, size_t room)
{
    static const char *const name[] = {"conv 3x3",  "conv 1x1",   "conv 3x3 down", "conv 3x3 up", "linear",
                                       "attention", "group norm", "layer norm",    "geglu",       "quick gelu"};
    char sizes[64];
    if (s->op <= UP) snprintf(sizes, sizeof sizes, "%zux%zu %zu->%zu", s->h, s->w, s->c, s->o);
    else if (s->op == LINEAR) snprintf(sizes, sizeof sizes, "%zu %zu->%zu", s->h, s->c, s->o);
    else if (s->op == ATTENTION) snprintf(sizes, sizeof sizes, "%zux%zu %zux%zu", s->h, s->w, s->o, s->c / s->o);
    else if (s->op == GROUP_NORM) snprintf(sizes, sizeof sizes, "%zux%zux%zu", s->h, s->w, s->c);
    else snprintf(sizes, sizeof sizes, "%zux%zu", s->h, s->c);
    snprintf(out, room, "%s %s", name[s->op], sizes);
}

static bool prepare(flis_ctx *ctx, job *j)
{
    const form *s = &j->s;
    const bool convolution = s->op <= UP, norm = s->op == GROUP_NORM || s->op == LAYER_NORM;
    const size_t side = s->op == CONV1 ? 1 : 3;
    j->x = convolution || s->op == GROUP_NORM ? flis_image(ctx, 1, s->h, s->w, s->c) : flis_rows(ctx, 1, s->h, s->c);
    fill_values(ctx, "bench.x", j->x);
    if (s->op == ATTENTION) fill_values(ctx, "bench.k", j->k = flis_rows(ctx, 1, s->w, s->c));
    if (convolution) j->w = (flis_param){.rank = 4, .shape = {s->o, s->c, side, side}};
    if (s->op == LINEAR) j->w = (flis_param){.rank = 2, .shape = {s->o, s->c}};
    if (norm) j->w = (flis_param){.rank = 1, .shape = {s->c}};
    j->b = (flis_param){.rank = 1, .shape = {norm ? s->c : s->o}};
    if (j->w.rank && flis_formula_visit(ctx, NULL, "bench.weight", &j->w))
        flis_formula_visit(ctx, NULL, "bench.bias", &j->b);
    return flis_ok(ctx);
}

static flis_tensor *operate(flis_ctx *ctx, const void *what)
{
    const job *j = what;
    const form *s = &j->s;
    switch (s->op) {
    case CONV3:
    case CONV1: return flis_conv(ctx, j->x, &j->w, &j->b, FLIS_SAME, NULL);
    case DOWN: return flis_conv(ctx, j->x, &j->w, &j->b, FLIS_STRIDE2, NULL);
    case UP: return flis_conv(ctx, j->x, &j->w, &j->b, FLIS_UPSAMPLE2, NULL);
    case LINEAR: return flis_linear(ctx, j->x, &j->w, &j->b, NULL);
    case ATTENTION:
        return flis_attention(ctx, j->x, j->k, j->k, s->o, 1 / sqrt((double)(s->c / s->o)),
                              (flis_mask){.causal = s->h == FLIS_TOKENS && s->w == FLIS_TOKENS});
    case GROUP_NORM: return flis_group_norm(ctx, j->x, &j->w, &j->b, 1e-5, true);
    case LAYER_NORM: return flis_layer_norm(ctx, j->x, &j->w, &j->b);
    case GEGLU: return flis_geglu(ctx, j->x);
    case QUICK_GELU: return flis_quick_gelu(ctx, j->x);
    }
    return NULL;
}

void bench_kernels(bench *b)
{
    flis_ctx *ctx = &b->ctx;
    size_t measured = 0;
    for (size_t i = 0; i < sizeof FORMS / sizeof *FORMS && flis_ok(ctx); i++) {
        job j = {.s = b->small ? smaller(FORMS[i]) : FORMS[i]};
        char what[128], name[160];
        timing t;
        describe(&j.s, what, sizeof what);
        snprintf(name, sizeof name, "%s (%s)", what, j.s.where);
        if (b->match && !strstr(name, b->match)) continue;
        measured++;
        flis_mark mark = flis_here(ctx);
        const double in = (double)j.s.h * (double)j.s.w * (double)j.s.c, moved = in * (j.s.op == GEGLU ? 1.5 : 2);
        if (prepare(ctx, &j)) each_thread(b, "kernels", name, operate, &j, moved * sizeof(flis_real), &t);
        flis_free_visit(ctx, NULL, "", &j.w);
        flis_free_visit(ctx, NULL, "", &j.b);
        flis_rewind(ctx, mark);
    }
    if (!measured && flis_ok(ctx)) flis_fail(ctx, "--match: no operation's line contains %.100s", b->match);
}
