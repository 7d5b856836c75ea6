/* shared_lis.c - the paper's second task against the authors' code: classes and masks of label maps, and runs of both samplers in
 * batches, as scripts/LIS.py makes them; not part of `make check`.
 *
 *   shared_lis SHARED_DIR     reads datasets/lis.safetensors, datasets/maps, clip/bpe_simple_vocab_16e6.txt.gz
 *
 * Classes and masks must be equal. x_T must be equal to the bit; the final latents may differ by 1e-4 of their largest value.
 * What the oracle does not have (a part of it is kept back) is computed and said to be so. Exit 0 if all agrees, else 1.
 */
#include "tests/unit/test.h"
#include "tools/common/common.h"

typedef struct check {
    flis_ctx ctx;
    const char *shared;
    flis_file *file;
    flis_vocab *vocab;
    flis_unet *unet;
    size_t bad, absent;
} check;

/* One layout as LIS.py has it: the label map at 512 x 512, its classes, the prompt. */
typedef struct sample {
    uint8_t label[512 * 512];
    flis_phrase *phrase;
    size_t phrases;
    flis_prompt prompt;
    flis_rca rca;
} sample;

static const flis_entry *find(check *c, const char *format, ...)
{
    char name[96];
    va_list args;
    va_start(args, format);
    vsnprintf(name, sizeof name, format, args);
    va_end(args);
    const flis_entry *e = flis_file_find(c->file, name);
    if (!e) {
        printf("%s: not in the oracle\n", name);
        c->absent++;
    }
    return e;
}

static bool read_sample(check *c, const dataset *d, const char *kind, int n, sample *s)
{
    char path[PATH_ROOM];
    flis_picture map;
    memset(s, 0, sizeof *s);
    snprintf(path, sizeof path, "%s/datasets/maps/%s/%012d.png", c->shared, kind, n);
    if (!flis_read_label(&c->ctx, path, &map)) return false;
    flis_label_pil(map.pixels, map.height, map.width, s->label, 512, 512);
    flis_picture_free(&map);
    if (!dataset_phrases(&c->ctx, d, path, s->label, sizeof s->label, &s->phrase, &s->phrases) ||
        !flis_prompt_make(&c->ctx, c->vocab, s->phrase, s->phrases, &s->prompt))
        return false;
    s->rca = (flis_rca){s->label, 512, 512, s->prompt.class_ids, s->prompt.classes};
    return true;
}

static void free_sample(sample *s)
{
    phrases_free(s->phrase, s->phrases);
    flis_prompt_free(&s->prompt);
}

static void check_classes(check *c, const char *kind, int n, const sample *s)
{
    int64_t wanted[256];
    const flis_entry *e = find(c, "%s.%d.classes", kind, n);
    if (!e) return;
    const size_t count = (size_t)flis_entry_count(e);
    bool same = count == s->phrases && flis_file_read_i64(&c->ctx, c->file, e, wanted);
    for (size_t i = 0; same && i < count; i++) same = wanted[i] == s->phrase[i].id;
    printf("%s.%d.classes: %s\n", kind, n, same ? "equal" : "DIFFER");
    c->bad += !same;
}

static void check_mask(check *c, const char *kind, int n, const sample *s, size_t side)
{
    static uint8_t got[4096 * FLIS_TOKENS], wanted[4096 * FLIS_TOKENS];
    const flis_entry *e = find(c, "%s.%d.mask%zu", kind, n, side);
    if (!e) return;
    const size_t count = side * side * FLIS_TOKENS;
    bool same = flis_entry_count(e) == count && flis_rca_mask(&c->ctx, &s->rca, side, side, got) &&
                flis_file_read_u8(&c->ctx, c->file, e, wanted) && memcmp(got, wanted, count) == 0;
    printf("%s.%d.mask%zu: %s\n", kind, n, side, same ? "equal" : "DIFFERS");
    c->bad += !same;
}

/* The largest difference from a tensor [2][4][h][w] of the oracle, of picture `index`, relative to its largest value; every
   `stride`th row and column. -1: it cannot be compared. */
static double difference(check *c, const flis_entry *e, size_t index, const flis_real *x, size_t stride)
{
    static double wanted[2 * 4 * 64 * 64];
    const size_t side = 64 / stride;
    double largest = 0, worst = 0;
    if (flis_entry_count(e) != 2 * 4 * side * side || !flis_file_read_f64(&c->ctx, c->file, e, wanted)) return -1;
    for (size_t i = 0; i < 4 * side * side; i++) {
        const size_t at = (i / (side * side) * 64 + i / side % side * stride) * 64 + i % side * stride;
        const double w = wanted[index * 4 * side * side + i], apart = fabs((double)x[at] - w);
        if (!(apart <= 1e30)) return -1;
        largest = fabs(w) > largest ? fabs(w) : largest;
        worst = apart > worst ? apart : worst;
    }
    return worst / largest;
}

static void judge(check *c, const char *name, const char *batch, size_t index, const flis_real *x, size_t stride,
                  double bound)
{
    const flis_entry *e = find(c, "COCO.%s.%s_batch", name, batch);
    if (!e) return;
    const double apart = difference(c, e, index, x, stride);
    const bool good = apart >= 0 && apart <= bound;
    printf("COCO.%s.%s_batch, picture %zu: relative error %.2g%s\n", name, batch, index, apart,
           good ? "" : ": TOO LARGE");
    c->bad += !good;
}

static bool read_features(check *c, const char *name, flis_real out[FLIS_TOKENS * 48])
{
    const flis_entry *e = flis_file_find(c->file, name);
    return e && flis_entry_count(e) == FLIS_TOKENS * 48 && flis_file_read_real(&c->ctx, c->file, e, out);
}

/* Picture n of four in batches of two, ten steps, guidance 2. */
static bool run_sampler(check *c, const sample *s, flis_sampler_kind kind, int n)
{
    enum { COUNT = 4 * 64 * 64 };
    static flis_real x[COUNT], context[FLIS_TOKENS * 48], uncond[FLIS_TOKENS * 48];
    static float drawn[COUNT];
    const char *batch = n < 2 ? "first" : "second", *sampler = kind == FLIS_PLMS ? "plms10" : "ddim10";
    const flis_sampling sampling = {kind, 10, 0, 2};
    const size_t index = (size_t)n % 2;
    char name[64], x_T[64], final[64];
    snprintf(name, sizeof name, "COCO.%d.context", n);
    snprintf(x_T, sizeof x_T, "%s.x_T", sampler);
    snprintf(final, sizeof final, "%s.final", sampler);
    if (!read_features(c, name, context) || !read_features(c, "COCO.uncond", uncond)) return false;
    flis_guided guided = {c->unet, 64, 64, context, uncond, &s->rca};
    const flis_model_fn model = {flis_guided_eps, NULL, &guided};
    flis_rng_seed(&c->ctx.rng, FLIS_RNG_CPU, 42);
    c->ctx.rng.batch = 2;
    c->ctx.rng.index = index;
    if (n >= 2) flis_randn_skip(&c->ctx.rng, COUNT, 11 + (kind == FLIS_PLMS));
    flis_randn(&c->ctx.rng, drawn, COUNT);
    for (size_t i = 0; i < COUNT; i++) x[i] = drawn[i];
    judge(c, x_T, batch, index, x, 8, 0);
    if (!flis_sample(&c->ctx, &sampling, COUNT, x, &model)) return false;
    judge(c, final, batch, index, x, 1, 1e-4);
    return true;
}

static bool check_kind(check *c, const char *kind, int count)
{
    dataset d;
    static sample s;
    bool good = dataset_open(&c->ctx, kind, &d);
    for (int n = 0; good && n < count; n++) {
        good = read_sample(c, &d, kind, n, &s);
        if (good) check_classes(c, kind, n, &s);
        for (size_t side = 64; good && side >= 8; side /= 2) check_mask(c, kind, n, &s, side);
        for (int k = 0; good && k < 2 && strcmp(kind, "COCO") == 0; k++)
            good = run_sampler(c, &s, k ? FLIS_DDIM : FLIS_PLMS, n);
        free_sample(&s);
    }
    dataset_close(&d);
    return good && flis_ok(&c->ctx);
}

int main(int argc, char **argv)
{
    check c = {.bad = 0};
    char path[PATH_ROOM];
    if (argc != 2) {
        fprintf(stderr, "usage: shared_lis SHARED_DIR\n");
        return 2;
    }
    flis_init(&c.ctx);
    c.shared = argv[1];
    snprintf(path, sizeof path, "%s/clip/bpe_simple_vocab_16e6.txt.gz", argv[1]);
    c.vocab = flis_vocab_read(&c.ctx, path);
    snprintf(path, sizeof path, "%s/datasets/lis.safetensors", argv[1]);
    c.file = flis_file_open(&c.ctx, path);
    c.unet = flis_unet_new(&c.ctx, &preset_find("tinyB")->unet);
    if (c.unet) flis_unet_walk(&c.ctx, c.unet, flis_formula_visit, NULL);
    const bool good = flis_ok(&c.ctx) && check_kind(&c, "COCO", 4) && check_kind(&c, "ADE20K", 2);
    if (!good) printf("%s\n", *c.ctx.error ? c.ctx.error : "the oracle's text features are missing");
    printf("%zu disagree, %zu are not in the oracle\n", c.bad, c.absent);
    flis_unet_free(c.unet);
    flis_file_close(c.file);
    flis_vocab_free(c.vocab);
    flis_free(&c.ctx);
    return !good || c.bad;
}
