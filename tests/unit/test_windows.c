/* test_windows.c - windows of scenes and padding keys (tools/train): a window's prompt has the words of the regions
 * that are visible in it, with their classes; a new cross-attention does not attend to padding.
 */
#include "tests/unit/test.h"
#include "tools/train/train.h"

enum { T_BOS = 7, T_EOS = 9, T_SIDE = 16 };

/* Two things on a background, and a style: "red ball" (17) covers 2 x 2 cells, "boat" (3) 1 x 2, "sea" (2) the rest;
   words 100…104. */
static void two_things(latents *l)
{
    static const int16_t ids[] = {T_BOS, 100, 101, 102, 103, 104}, classes[] = {17, 17, 2, 3, -1};
    l->classes[0] = 5;
    for (int i = 0; i < FLIS_TOKENS; i++) {
        l->ids[i] = i < 6 ? ids[i] : T_EOS;
        l->class_ids[i] = i < 5 ? classes[i] : -1;
    }
    memset(l->label, 2, T_SIDE * T_SIDE);
    for (int i = 0; i < 4; i++) l->label[(3 + i / 2) * T_SIDE + 4 + i % 2] = 17;
    for (int i = 0; i < 2; i++) l->label[12 * T_SIDE + 11 + i] = 3;
}

void test_windows_words(void)
{
    static const int wanted[2][5] = {{100, 101, 102, 104, T_EOS}, {102, 104, T_EOS, T_EOS, T_EOS}};
    static const float wanted_class[2][5] = {{17, 17, 2, -1, -1}, {2, -1, -1, -1, -1}};
    static const size_t count[2] = {4, 2};
    flis_ctx ctx;
    latents l = {0};
    CHECK(flis_init(&ctx) && latents_new(&ctx, &l, 1, T_SIDE, T_SIDE), "no room");
    two_things(&l);
    const int32_t empty[2] = {T_BOS, T_EOS};
    /* the upper left quarter and the lower right one, where 2 cells of boat are too few */
    for (int part = 0; part < 2; part++) {
        uint8_t label[64];
        int32_t ids[FLIS_TOKENS];
        float class_ids[FLIS_TOKENS];
        size_t n = 0;
        for (int i = 0; i < 64; i++) label[i] = l.label[(8 * part + i / 8) * T_SIDE + 8 * part + i % 8];
        put_window_prompt(&l, 0, label, 64, false, -1, empty, ids, class_ids, &n);
        CHECK(n == count[part] && ids[0] == T_BOS && ids[76] == T_EOS, "window %d: %zu words, wanted %zu", part, n,
              count[part]);
        for (int i = 0; i < 5; i++)
            CHECK(ids[i + 1] == wanted[part][i] && class_ids[i] == wanted_class[part][i],
                  "window %d, word %d: token %d of class %g", part, i, ids[i + 1], (double)class_ids[i]);
        put_window_prompt(&l, 0, l.label, T_SIDE * T_SIDE, true, -1, empty, ids, class_ids, &n);
        CHECK(n == 5 && ids[4] == 103 && class_ids[3] == 3, "a whole scene keeps all its words: %zu", n);
    }
    latents_free(&l);
    flis_free(&ctx);
}

/* --alone: only the words of one phrase and the style's word; no word of the phrase if it covers too few cells. */
void test_windows_alone(void)
{
    static const int of[] = {17, 2, 3},
                     wanted[3][4] = {{100, 101, 104, T_EOS}, {102, 104, T_EOS, T_EOS}, {104, T_EOS, T_EOS, T_EOS}};
    static const float wanted_class[3][4] = {{17, 17, -1, -1}, {2, -1, -1, -1}, {-1, -1, -1, -1}};
    static const size_t count[] = {3, 2, 1};
    flis_ctx ctx;
    latents l = {0};
    CHECK(flis_init(&ctx) && latents_new(&ctx, &l, 1, T_SIDE, T_SIDE), "no room");
    two_things(&l);
    const int32_t empty[2] = {T_BOS, T_EOS};
    for (int which = 0; which < 3; which++) {
        int32_t ids[FLIS_TOKENS];
        float class_ids[FLIS_TOKENS];
        size_t n = 0;
        put_window_prompt(&l, 0, l.label, T_SIDE * T_SIDE, false, of[which], empty, ids, class_ids, &n);
        CHECK(n == count[which] && ids[0] == T_BOS && ids[76] == T_EOS, "phrase %d: %zu words, wanted %zu", of[which],
              n, count[which]);
        for (int i = 0; i < 4; i++)
            CHECK(ids[i + 1] == wanted[which][i] && class_ids[i] == wanted_class[which][i],
                  "phrase %d, word %d: token %d of class %g", of[which], i, ids[i + 1], (double)class_ids[i]);
    }
    latents_free(&l);
    flis_free(&ctx);
}

/* The number of windows, of 400 around things, whose prompts name more than one region; all have the style's word. With
   --alone 0.25 a quarter of the windows names one region. */
enum { SAMPLED = 400 };
static int named_together(job *j, batch *b, double alone)
{
    int together = 0;
    j->o.alone = alone;
    for (int i = 0; i < SAMPLED; i++) {
        dice d = {(uint64_t)i};
        flis_mark mark = flis_here(&j->ctx);
        const choice c = choose_latents(j, 0, 0, &d);
        CHECK(put_latents(j, &j->data, c, b, 0, 1, &d), "sample: %s", j->ctx.error);
        float one = -1;
        bool more = false, styled = false;
        for (size_t k = 0; k < b->rca[0].classes; k++) {
            const float class = b->class_ids[k];
            more = more || (one >= 0 && class >= 0 && class != one);
            if (class >= 0) one = class;
            styled = styled || b->ids[k + 1] == 104;
        }
        CHECK(styled, "window %d: no style", i);
        together += more;
        flis_rewind(&j->ctx, mark);
    }
    return together;
}

void test_windows_shares(void)
{
    static job j;
    static batch b;
    memset(&j, 0, sizeof j);
    memset(&b, 0, sizeof b);
    CHECK(flis_init(&j.ctx) && latents_new(&j.ctx, &j.data, 1, T_SIDE, T_SIDE), "no room");
    two_things(&j.data);
    memset(j.data.moments, 0, T_SIDE * T_SIDE * 8 * sizeof *j.data.moments);
    for (int i = 2; i < 8; i++) j.data.label[12 * T_SIDE + 8 + i] = 3; /* the boat is large enough for its word */
    j.empty[0] = T_BOS, j.empty[1] = T_EOS;
    j.o.stage = TEXT2IMAGE, j.o.window = 8, j.o.things = true;
    b.z = flis_image(&j.ctx, 1, 8, 8, 4), b.noise = flis_image(&j.ctx, 1, 8, 8, 4);
    b.ids = flis_scratch(&j.ctx, FLIS_TOKENS, sizeof *b.ids),
    b.class_ids = flis_scratch(&j.ctx, FLIS_TOKENS, sizeof *b.class_ids);
    CHECK(flis_ok(&j.ctx), "no room");
    const int all = named_together(&j, &b, 0), some = named_together(&j, &b, 0.25), none = named_together(&j, &b, 1);
    CHECK(all > SAMPLED / 2, "without --alone %d of %d windows name several", all, SAMPLED);
    CHECK(none == 0, "with --alone 1 %d of %d windows name several", none, SAMPLED);
    CHECK(abs(4 * some - 3 * all) < all / 2, "with --alone 0.25 %d windows name several, of %d", some, all);
    latents_free(&j.data);
    flis_free(&j.ctx);
}

/* --things-weight: pixels of a crop, row by row. The second phrase of a class is a thing if the class is. */
void test_windows_weights(void)
{
    world_scene *s = calloc(1, sizeof *s);
    flis_real weight[8 * 8];
    CHECK(s, "no room");
    memset(s->label, SKY, sizeof s->label);
    s->label[11 * WORLD_SIDE + 22] = HOUSE;
    s->label[12 * WORLD_SIDE + 20] = WORLD_SECOND + HOUSE;
    weigh_crop(s, 10, 20, 8, 3, weight);
    for (int i = 0; i < 64; i++) {
        const flis_real wanted = i == 8 + 2 || i == 2 * 8 ? 3 : 1;
        CHECK(weight[i] == wanted, "pixel %d, %d weighs %g, wanted %g", i / 8, i % 8, (double)weight[i],
              (double)wanted);
    }
    free(s);
}

/* Of DRAWN windows, the number that contain the ball, that lie at the upper edge, and that lie at the lower edge. */
enum { DRAWN = 3000 };
static void draw_windows(const latents *l, bool things, int *balls, int *top_most, int *bottom_most)
{
    dice d = {5};
    *balls = *top_most = *bottom_most = 0;
    for (int i = 0; i < DRAWN; i++) {
        size_t top = 99, left = 99;
        const int of = choose_window(l, 0, 8, things, &d, &top, &left);
        bool seen = of < 0;
        for (size_t k = 0; k < 64; k++) seen = seen || l->label[(top + k / 8) * T_SIDE + left + k % 8] == of;
        CHECK(seen, "a window around class %d without a cell of it", of);
        CHECK(top <= T_SIDE - 8 && left <= T_SIDE - 8, "window at %zu, %zu", top, left);
        *balls += top <= 4 && left <= 5;
        *top_most += top == 0;
        *bottom_most += top == T_SIDE - 8;
    }
}

/* A window is drawn for one of the words and contains the region of that word. The ball, with two of five words, is in
   far more windows than with uniform drawing (37 % of them). */
void test_windows_positions(void)
{
    flis_ctx ctx;
    latents l = {0};
    int balls, top, bottom;
    CHECK(flis_init(&ctx) && latents_new(&ctx, &l, 1, T_SIDE, T_SIDE), "no room");
    two_things(&l);
    draw_windows(&l, false, &balls, &top, &bottom);
    CHECK(balls > DRAWN / 2 && balls < DRAWN, "the ball is in %d of %d windows", balls, DRAWN);
    CHECK(top > DRAWN / 10 && bottom > DRAWN / 10, "%d at the top, %d at the bottom", top, bottom);
    l.class_ids[1] =
        3; /* "ball boat sea boat" and a style: of the words for things one is the ball's, two are the boat's */
    draw_windows(&l, true, &balls, &top, &bottom);
    CHECK(balls > 30 * DRAWN / 100 && balls < 37 * DRAWN / 100, "with things only, the ball is in %d of %d windows",
          balls, DRAWN);
    l.class_ids[0] = l.class_ids[1] = l.class_ids[3] = 2; /* no thing: as without --things */
    draw_windows(&l, true, &balls, &top, &bottom);
    CHECK(balls > 40 * DRAWN / 100 && balls < DRAWN, "without a thing, the ball is in %d of %d windows", balls, DRAWN);
    for (int i = 0; i < 5; i++) l.class_ids[i] = 3; /* only the boat is named */
    draw_windows(&l, false, &balls, &top, &bottom);
    CHECK(balls < DRAWN / 10 && bottom > DRAWN / 10,
          "for the boat, the ball is in %d windows, and %d lie at the bottom", balls, bottom);
    for (int i = 0; i < 5; i++) l.class_ids[i] = 17; /* only the ball */
    draw_windows(&l, false, &balls, &top, &bottom);
    CHECK(balls == DRAWN, "the ball is in %d of %d windows that are drawn for it", balls, DRAWN);
    for (int i = 0; i < 5; i++) l.class_ids[i] = -1; /* only the style; then no word at all */
    draw_windows(&l, false, &balls, &top, &bottom);
    CHECK(top == DRAWN, "%d of %d windows at the top", top, DRAWN);
    l.classes[0] = 0;
    draw_windows(&l, false, &balls, &top, &bottom);
    CHECK(top == DRAWN, "%d of %d windows at the top", top, DRAWN);
    latents_free(&l);
    flis_free(&ctx);
}

/* The scores q1 k / sqrt(head) of padding and of a word orthogonal to padding, in each head of every
   cross-attention. */
enum { T_HEADS = 2, T_ATTENTIONS = 16 };
typedef struct scores {
    const flis_real *feature[2]; /* padding, word */
    double of[2][T_ATTENTIONS * T_HEADS];
    size_t seen, biases; /* numbers of scores, and of norm2's biases that are 1 */
    flis_real *query;
} scores;

static bool score(flis_ctx *ctx, void *user, const char *name, flis_param *p)
{
    scores *s = user;
    const bool q = name_ends(name, ".attn2.to_q.weight"), k = name_ends(name, ".attn2.to_k.weight");
    if (!q && !k && !name_ends(name, ".transformer_blocks.0.norm2.bias")) return true;
    const size_t rows = p->shape[0], columns = flis_param_count(p) / rows, head = rows / T_HEADS;
    flis_real *w = flis_alloc(ctx, rows * columns, sizeof *w);
    if (!w) return false;
    flis_param_get(p, w);
    if (q) {
        s->query = w;
        return true;
    }
    for (size_t i = 0; !k && i < rows; i++) s->biases += w[i] == 1;
    for (size_t h = 0; k && h < T_HEADS; h++, s->seen++)
        for (int which = 0; which < 2; which++) {
            double sum = 0;
            for (size_t i = h * head; i < (h + 1) * head; i++) {
                double query = 0, key = 0;
                for (size_t c = 0; c < rows; c++) query += (double)s->query[i * rows + c];
                for (size_t c = 0; c < columns; c++) key += (double)w[i * columns + c] * (double)s->feature[which][c];
                sum += query * key;
            }
            s->of[which][s->seen] = sum / sqrt((double)head);
        }
    if (k) {
        free(s->query);
        s->query = NULL;
    }
    free(w);
    return true;
}

/* The scores of padding are lower by 6 than with the random weights; those of orthogonal words do not change. Keys are
   rounded to float: errors of 3.6e-8 were measured (2.7e-15 in double); FLIS_TEST_ERRORS=1 prints them. */
void test_windows_padding(void)
{
    enum { D = 64 };
    const double within = sizeof(flis_real) == 8 ? 2e-14 : 2e-7;
    flis_ctx ctx;
    const options o = {.stage = TEXT2IMAGE};
    flis_real padding[D], word[D];
    dice d = {3};
    double along = 0, square = 0, worst[2] = {0, 0};
    for (int i = 0; i < D; i++) {
        padding[i] = spread(&d, -1.7f, 1.7f);
        word[i] = spread(&d, -1.7f, 1.7f);
        along += (double)padding[i] * (double)word[i], square += (double)padding[i] * (double)padding[i];
    }
    for (int i = 0; i < D; i++) word[i] -= (flis_real)(along / square * (double)padding[i]);
    CHECK(flis_init(&ctx), "no context");
    flis_unet *unet = flis_unet_new(&ctx, &SMALL_UNET);
    CHECK(unet && flis_unet_walk(&ctx, unet, new_weights, (void *)&o), "no U-Net: %s", ctx.error);
    padding_features f = {padding, D, T_HEADS, NULL};
    scores before = {{padding, word}, {{0}}, 0, 0, NULL}, after = before;
    CHECK(flis_unet_walk(&ctx, unet, score, &before) && flis_unet_walk(&ctx, unet, suppress_padding, &f) &&
              flis_unet_walk(&ctx, unet, score, &after),
          "walk: %s", ctx.error);
    CHECK(after.seen == T_ATTENTIONS * T_HEADS, "%zu scores", after.seen);
    CHECK(before.biases == 0 && after.biases > 0, "%zu biases of norm2 are 1, and were %zu", after.biases,
          before.biases);
    for (size_t i = 0; i < after.seen; i++)
        for (int which = 0; which < 2; which++) {
            const double error = fabs(after.of[which][i] - before.of[which][i] - (which ? 0 : PADDING_SCORE));
            worst[which] = error > worst[which] ? error : worst[which];
        }
    if (getenv("FLIS_TEST_ERRORS"))
        fprintf(stderr, "padding keys: padding's scores off by %.2g, a word's by %.2g\n", worst[0], worst[1]);
    CHECK(worst[0] <= within && worst[1] <= within, "padding's scores are off by %g, a word's by %g", worst[0],
          worst[1]);
    free(f.shared);
    flis_unet_free(unet);
    flis_free(&ctx);
}
