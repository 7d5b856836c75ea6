/* test_trace.c - traces: the intermediate tensors of attentions, every layer by name, summary statistics. */
#include "tests/unit/test.h"

#include <float.h>

/* Copies of all traced tensors, by name. */
typedef struct record {
    flis_ctx own;         /* owns the copies */
    size_t count, wanted; /* wanted: the number of calls of trace_wants */
    size_t limit;         /* trace_wants returns false for more values than this */
    struct {
        char name[160];
        flis_tensor *x;
    } item[2048];
} record;

static void take(void *user, const char *name, const flis_tensor *x)
{
    record *r = user;
    if (r->count == sizeof r->item / sizeof *r->item) return;
    flis_tensor *y = flis_image(&r->own, x->n, x->h, x->w, x->c);
    if (!y) return;
    memcpy(y->x, x->x, flis_count(x) * sizeof *x->x);
    y->rank = x->rank;
    y->bytes = x->bytes;
    snprintf(r->item[r->count].name, sizeof r->item->name, "%s", name);
    r->item[r->count++].x = y;
}

static bool wants(void *user, const char *name, size_t count)
{
    record *r = user;
    (void)name;
    r->wanted++;
    return count <= r->limit;
}

static record *record_new(flis_ctx *ctx, size_t limit)
{
    record *r = calloc(1, sizeof *r);
    flis_init(&r->own);
    r->limit = limit;
    ctx->trace = take;
    ctx->trace_wants = wants;
    ctx->trace_user = r;
    return r;
}

static void record_free(flis_ctx *ctx, record *r)
{
    CHECK(flis_ok(&r->own), "%s", r->own.error);
    ctx->trace = NULL;
    ctx->trace_wants = NULL;
    flis_free(&r->own);
    free(r);
}

static const flis_tensor *find(const record *r, const char *module, const char *part)
{
    char name[200];
    snprintf(name, sizeof name, "%s%s", module, part);
    for (size_t i = 0; i < r->count; i++)
        if (strcmp(r->item[i].name, name) == 0) return r->item[i].x;
    CHECK(false, "%s was not traced", name);
    return NULL;
}

static bool same(const flis_tensor *a, const flis_tensor *b)
{
    return a && b && flis_count(a) == flis_count(b) && memcmp(a->x, b->x, flis_count(a) * sizeof(flis_real)) == 0;
}

/* ---- A network with a layout that is not square; of two samples one has no layout -------------------------------- */

static const flis_unet_config SMALL = {
    .in = 4,
    .out = 4,
    .channels = 32,
    .levels = 2,
    .mult = {1, 2},
    .attention = {true, false},
    .blocks = 1,
    .heads = 4,
    .context = 24,
};
enum { H = 4, W = 6 };

typedef struct network {
    flis_ctx ctx;
    flis_unet *unet;
    flis_tensor *x, *context;
    uint8_t label[8 * H * 8 * W];
    float ids[3];
    flis_rca rca;
} network;

static void fill(flis_tensor *x, size_t seed)
{
    for (size_t i = 0; x && i < flis_count(x); i++) x->x[i] = (flis_real)((double)((i + seed) * 37 % 101) / 50 - 1);
}

static network *network_new(size_t samples)
{
    network *n = calloc(1, sizeof *n);
    flis_init(&n->ctx);
    n->unet = flis_unet_new(&n->ctx, &SMALL);
    flis_unet_walk(&n->ctx, n->unet, flis_formula_visit, NULL);
    fill(n->x = flis_image(&n->ctx, samples, H, W, 4), 3);
    fill(n->context = flis_rows(&n->ctx, samples, FLIS_TOKENS, SMALL.context), 11);
    for (size_t i = 0; i < sizeof n->label; i++) n->label[i] = i % (8 * W) < 4 * W ? 8 : 154;
    n->ids[0] = 8;
    n->ids[1] = -1;
    n->ids[2] = 154;
    n->rca = (flis_rca){n->label, 8 * H, 8 * W, n->ids, 3};
    CHECK(flis_ok(&n->ctx), "%s", n->ctx.error);
    return n;
}

static void network_free(network *n)
{
    flis_unet_free(n->unet);
    flis_free(&n->ctx);
    free(n);
}

static flis_tensor *network_run(network *n)
{
    const double t[2] = {981, 21};
    const flis_rca *rca[2] = {&n->rca, NULL};
    flis_tensor *y = flis_unet_eps(&n->ctx, n->unet, n->x, t, n->context, rca);
    CHECK(y, "%s", n->ctx.error);
    return y;
}

/* Tracing, of all tensors or of some, changes no bit of a result: U-Net, encoder, decoder, text encoder. */
void test_trace_changes_nothing(void)
{
    const flis_vae_config vae_config = {32, 4, {1, 1, 1, 1}, 1, 4, 4, 0.18215, 32};
    const flis_clip_config clip_config = {50, 16, 2, 2, 32, FLIS_TOKENS};
    const size_t limits[] = {0, SIZE_MAX};
    network *n = network_new(2);
    flis_ctx *ctx = &n->ctx;
    flis_vae *vae = flis_vae_new(ctx, &vae_config, true, true);
    flis_clip *clip = flis_clip_new(ctx, &clip_config);
    flis_vae_walk(ctx, vae, flis_formula_visit, NULL);
    flis_clip_walk(ctx, clip, flis_formula_visit, NULL);
    flis_tensor *z = flis_image(ctx, 1, 4, 2, 4), *image = flis_image(ctx, 1, 16, 8, 3), *plain[4];
    int32_t ids[FLIS_TOKENS];
    for (int i = 0; i < FLIS_TOKENS; i++) ids[i] = i * 7 % 50;
    fill(z, 5);
    fill(image, 9);
    for (int run = 0; run < 3; run++) {
        record *r = run ? record_new(ctx, limits[run - 1]) : NULL;
        flis_tensor *y[4] = {network_run(n), flis_vae_decode(ctx, vae, z), flis_vae_encode(ctx, vae, image),
                             flis_clip_encode(ctx, clip, ids, 1)};
        for (int i = 0; i < 4; i++) {
            if (!run) plain[i] = y[i];
            CHECK(same(y[i], plain[i]), "result %d differs when traced with limit %zu: %s", i, run ? r->limit : 0,
                  ctx->error);
        }
        CHECK(!r || r->count > 100, "only %zu tensors were traced", r ? r->count : 0);
        CHECK(!r || r->limit || r->wanted > 10, "trace_wants was called %zu times", r ? r->wanted : 0);
        if (r) record_free(ctx, r);
    }
    flis_vae_free(vae);
    flis_clip_free(clip);
    network_free(n);
}

/* ---- Inside an attention ----------------------------------------------------------------------------------------- */

#define ATTN1 "input_blocks.1.1.transformer_blocks.0.attn1"
#define ATTN2 "input_blocks.1.1.transformer_blocks.0.attn2"

/* One chain per score, as flis_attention's equation has it (heads here are narrower than a block of 256). */
static flis_real score_of(const flis_tensor *q, const flis_tensor *k, size_t head, size_t i, size_t j)
{
    const size_t d = q->c;
    flis_real sum = 0;
    for (size_t e = 0; e < d; e++) {
        const flis_real a = q->x[(head * q->h + i) * d + e], b = k->x[(head * k->h + j) * d + e];
#ifdef FLIS_DOUBLE
        sum = fma(a, b, sum);
#else
        sum = flis_fma_soft(a, b, sum);
#endif
    }
    return (0 + sum) * (flis_real)(1 / sqrt((double)d));
}

/* q, k, v are the outputs of to_q, to_k, to_v by head; scores are their canonical products, to the bit; the mask is the
   layout's; weights are the softmax of masked scores; the weighted v, projected, is the module's output. */
static void check_insides(const record *r, const network *n, const char *module, bool cross)
{
    const flis_tensor *q = find(r, module, ".q"), *k = find(r, module, ".k"), *v = find(r, module, ".v");
    const flis_tensor *to_v = find(r, module, ".to_v"), *scores = find(r, module, ".scores");
    const flis_tensor *weights = find(r, module, ".weights");
    const flis_tensor *mask = cross ? find(r, module, ".mask") : NULL;
    const size_t keys = cross ? FLIS_TOKENS : H * W, heads = SMALL.heads, d = SMALL.channels / heads, samples = n->x->n;
    if (!q || !k || !v || !to_v || !scores || !weights || (cross && !mask)) return;
    CHECK(q->rank == 3 && q->n == samples * heads && q->h == H * W && q->c == d, "%s.q: [%zu,%zu,%zu]", module, q->n,
          q->h, q->c);
    CHECK(weights->rank == 3 && weights->n == samples * heads && weights->h == H * W && weights->c == keys,
          "%s.weights: shape", module);
    size_t wrong_scores = 0, wrong_v = 0, wrong_mask = 0;
    double error = 0;
    for (size_t b = 0; b < samples * heads; b++)
        for (size_t i = 0; i < H * W; i++) {
            const flis_real *s = scores->x + (b * H * W + i) * keys, *w = weights->x + (b * H * W + i) * keys;
            double largest = -DBL_MAX, sum = 0;
            for (size_t j = 0; j < keys; j++) {
                const bool half = i % W < W / 2; /* positions of class 8; column 2 is attended, column 3 is class 154 */
                const bool attended = b >= heads || !cross || (j == 1 ? half : j == 3 ? !half : true);
                const size_t at = (samples > 1 ? b / heads * H * W + i : i) * keys + j;
                wrong_scores += memcmp(&s[j], (const flis_real[]){score_of(q, k, b, i, j)}, sizeof *s) != 0;
                wrong_mask += mask && mask->x[at] != (attended ? 1 : 0);
                wrong_mask += !attended && w[j] != 0;
                if (attended && s[j] > largest) largest = s[j];
            }
            for (size_t j = 0; j < keys; j++) sum += w[j] != 0 ? exp(s[j] - largest) : 0;
            for (size_t j = 0; j < keys; j++)
                error = fmax(error, fabs((w[j] != 0 ? exp(s[j] - largest) / sum : 0) - w[j]));
            for (size_t e = 0; e < d && i < keys; e++)
                wrong_v += v->x[(b * keys + i) * d + e] !=
                           to_v->x[(b / heads * keys + i) * SMALL.channels + b % heads * d + e];
        }
    CHECK(!wrong_scores && !wrong_v && !wrong_mask, "%s: %zu scores, %zu values of v, %zu values of the mask are wrong",
          module, wrong_scores, wrong_v, wrong_mask);
    CHECK(error <= (sizeof(flis_real) == 8 ? 1e-14 : 7e-8), "%s.weights: error %.3g against softmax of the scores",
          module, error);
    CHECK(!mask || (mask->bytes && mask->rank == (samples > 1 ? 3 : 2)), "%s.mask: rank %d", module,
          mask ? mask->rank : 0);
}

void test_trace_insides(void)
{
    for (size_t samples = 1; samples <= 2; samples++) {
        network *n = network_new(samples);
        record *r = record_new(&n->ctx, SIZE_MAX);
        network_run(n);
        check_insides(r, n, ATTN2, true);
        check_insides(r, n, ATTN1, false);
        record_free(&n->ctx, r);
        network_free(n);
    }
}

/* Attention over values that are 1 at one key and 0 at the others gives that key's weight: dot(e, v) is e itself, and
   the division is the same. So the traced weights must equal those that flis_attention uses, to the bit; weights times
   v must equal its output up to the rounding errors of dividing earlier or later. */
void test_trace_weights_are_attention(void)
{
    enum { HEADS = 3, D = 5, TQ = 37, TK = 21 };
    flis_ctx ctx;
    flis_init(&ctx);
    flis_tensor *q = flis_rows(&ctx, 2, TQ, HEADS * D), *k = flis_rows(&ctx, 2, TK, HEADS * D);
    flis_tensor *v = flis_rows(&ctx, 2, TK, HEADS * D);
    uint8_t attended[TQ * TK];
    fill(q, 1);
    fill(k, 50);
    fill(v, 77);
    for (size_t i = 0; i < flis_count(q); i++) q->x[i] *= 3;
    for (size_t i = 0; i < sizeof attended; i++) attended[i] = i * 7 % 5 != 0 || i % TK == 0;
    const uint8_t *masks[2] = {NULL, attended};
    const flis_mask mask[3] = {{false, NULL}, {true, NULL}, {false, masks}};
    for (int m = 0; m < 3; m++) {
        record *r = record_new(&ctx, SIZE_MAX);
        flis_trace_attention(&ctx, q, k, v, HEADS, 0.3, mask[m], "a");
        const flis_tensor *weights = find(r, "a", ".weights");
        size_t wrong = 0;
        for (size_t key = 0; weights && key < TK; key++) {
            flis_tensor *one = flis_rows(&ctx, 2, TK, HEADS * D);
            for (size_t i = 0; i < flis_count(one); i++) one->x[i] = i / (HEADS * D) % TK == key;
            flis_tensor *y = flis_attention(&ctx, q, k, one, HEADS, 0.3, mask[m]);
            for (size_t i = 0; i < flis_count(y); i++) {
                const size_t query = i / (HEADS * D) % TQ, head = i % (HEADS * D) / D, n = i / (HEADS * D) / TQ;
                wrong += y->x[i] != weights->x[((n * HEADS + head) * TQ + query) * TK + key];
            }
        }
        CHECK(!wrong, "mask %d: %zu weights differ from those of flis_attention", m, wrong);
        flis_tensor *y = flis_attention(&ctx, q, k, v, HEADS, 0.3, mask[m]);
        double error = 0;
        for (size_t i = 0; weights && i < flis_count(y); i++) {
            const size_t query = i / (HEADS * D) % TQ, head = i % (HEADS * D) / D, n = i / (HEADS * D) / TQ;
            double sum = 0;
            for (size_t key = 0; key < TK; key++)
                sum += (double)weights->x[((n * HEADS + head) * TQ + query) * TK + key] *
                       v->x[(n * TK + key) * HEADS * D + i % (HEADS * D)];
            error = fmax(error, fabs(sum - y->x[i]));
        }
        CHECK(error <= (sizeof(flis_real) == 8 ? 1e-15 : 2.5e-7), "mask %d: weights times v: error %.3g", m, error);
        record_free(&ctx, r);
    }
    CHECK(flis_ok(&ctx), "%s", ctx.error);
    flis_free(&ctx);
}

/* Without trace_wants, and where it returns false, no inner tensor of an attention is computed or traced. */
void test_trace_asks(void)
{
    network *n = network_new(1);
    record *all = record_new(&n->ctx, SIZE_MAX);
    network_run(n);
    record *none = record_new(&n->ctx, SIZE_MAX);
    n->ctx.trace_wants = NULL;
    network_run(n);
    record *small = record_new(&n->ctx, H * W * FLIS_TOKENS);
    network_run(n);
    size_t large = 0, insides = 0;
    for (size_t i = 0; i < small->count; i++) {
        const char *part = strrchr(small->item[i].name, '.');
        const bool inside = part && (!strcmp(part, ".scores") || !strcmp(part, ".weights") || !strcmp(part, ".mask"));
        large += inside && flis_count(small->item[i].x) > H * W * FLIS_TOKENS;
        insides += inside;
    }
    CHECK(insides && !large, "%zu tensors inside attentions, of which %zu are larger than wanted", insides, large);
    for (size_t i = 0; i < none->count; i++)
        CHECK(!strstr(none->item[i].name, ".scores") && !strstr(none->item[i].name, ".mask"),
              "%s is not wanted, but was traced", none->item[i].name);
    CHECK(none->count < small->count && small->count < all->count, "%zu, %zu, %zu tensors", none->count, small->count,
          all->count);
    record_free(&n->ctx, all);
    record_free(&n->ctx, none);
    record_free(&n->ctx, small);
    network_free(n);
}

/* ---- Summaries --------------------------------------------------------------------------------------------------- */

/* Compares with sums over the values in file order, written out, and the digest with that of the bytes. */
void test_trace_summary(void)
{
    enum { N = 2, HEIGHT = 5, WIDTH = 7, C = 3, COUNT = N * HEIGHT * WIDTH * C };
    flis_ctx ctx;
    flis_init(&ctx);
    flis_tensor *x = flis_image(&ctx, N, HEIGHT, WIDTH, C);
    fill(x, 0);
    x->x[(1 * HEIGHT * WIDTH + 2 * WIDTH + 3) * C + 1] = -9; /* in a file: n 1, c 1, y 2, x 3 */
    flis_real values[COUNT];
    unsigned char bytes[COUNT * sizeof(flis_real)];
    flis_to_nchw(x, values);
    double sum = 0, squares = 0;
    for (int i = 0; i < COUNT; i++) sum += values[i];
    for (int i = 0; i < COUNT; i++) squares += (values[i] - sum / COUNT) * (values[i] - sum / COUNT);
    for (int i = 0; i < COUNT; i++) {
        uint64_t u = 0;
        uint32_t u32;
        if (sizeof(flis_real) == 8) memcpy(&u, &values[i], sizeof values[i]);
        else {
            memcpy(&u32, &values[i], sizeof u32);
            u = u32;
        }
        for (size_t b = 0; b < sizeof(flis_real); b++)
            bytes[(size_t)i * sizeof(flis_real) + b] = (unsigned char)(u >> 8 * b & 255);
    }
    flis_sha256 hash;
    char hex[65];
    flis_sha256_begin(&hash);
    flis_sha256_add(&hash, bytes, sizeof bytes);
    flis_sha256_end(&hash, hex);
    flis_summary s;
    flis_tensor_summary(x, &s);
    CHECK(s.count == COUNT && !s.not_finite && s.mean == sum / COUNT && s.std == sqrt(squares / COUNT),
          "mean %.17g, deviation %.17g", s.mean, s.std);
    CHECK(s.largest == 9 && s.largest_at == ((1 * C + 1) * HEIGHT + 2) * WIDTH + 3, "largest %g at %zu", s.largest,
          s.largest_at);
    CHECK(s.stride == COUNT / 64 && s.samples == 64, "%zu samples, stride %zu", s.samples, s.stride);
    for (size_t i = 0; i < s.samples; i++) CHECK(s.sample[i] == values[i * s.stride], "sample %zu", i);
    CHECK(strcmp(s.sha256, hex) == 0, "digest %s, wanted %s", s.sha256, hex);
    flis_tensor *few = flis_vectors(&ctx, 1, 5);
    fill(few, 4);
    flis_tensor_summary(few, &s);
    CHECK(s.samples == 5 && s.stride == 1 && s.sample[4] == few->x[4], "%zu samples of 5", s.samples);
    for (int i = 0; i < 5; i++) few->x[i] = (flis_real)(i % 2);
    few->bytes = true; /* a mask: its bytes, 0 1 0 1 0 */
    flis_tensor_summary(few, &s);
    flis_sha256_begin(&hash);
    flis_sha256_add(&hash, "\0\1\0\1", 5);
    flis_sha256_end(&hash, hex);
    CHECK(strcmp(s.sha256, hex) == 0, "a mask's digest: %s, wanted %s", s.sha256, hex);
    flis_free(&ctx);
}

/* NaN is counted, and its position is reported instead of that of a large number. */
void test_trace_summary_not_finite(void)
{
    flis_ctx ctx;
    flis_init(&ctx);
    flis_tensor *x = flis_vectors(&ctx, 1, 6);
    const flis_real values[6] = {1, -1000, (flis_real)HUGE_VAL, 3, (flis_real)NAN, 5};
    memcpy(x->x, values, sizeof values);
    flis_summary s;
    flis_tensor_summary(x, &s);
    CHECK(s.not_finite == 2 && s.largest_at == 2 && s.largest > DBL_MAX && s.mean != s.mean, "%zu at %zu, mean %g",
          s.not_finite, s.largest_at, s.mean);
    x->x[2] = (flis_real)NAN;
    flis_tensor_summary(x, &s);
    CHECK(s.not_finite == 2 && s.largest_at == 2 && s.largest != s.largest, "%zu at %zu, largest %g", s.not_finite,
          s.largest_at, s.largest);
    flis_free(&ctx);
}
