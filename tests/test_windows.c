/* test_windows.c - windows of scenes and deaf keys (tools/train.c): the words that are kept are those of what is seen, with
 * their classes beside them, and a new cross-attention does not listen to padding.
 * Checks: test_windows_words, test_windows_places, test_windows_deaf
 */
#define main train_main
#include "../tools/train.c"
#undef main
#include "test.h"

enum { T_BOS = 7, T_EOS = 9, T_SIDE = 16 };

/* Two things on a ground, and a style: "red ball" (17) covers 2 x 2, "boat" (3) 1 x 2, "sea" (2) the rest; words 100…104. */
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
    const int16_t empty[2] = {T_BOS, T_EOS};
    for (int part = 0; part < 2; part++) {         /* the upper left quarter, the lower right one: there 2 places of boat are too few */
        uint8_t label[64];
        int32_t ids[FLIS_TOKENS];
        float class_ids[FLIS_TOKENS];
        size_t n = 0;
        for (int i = 0; i < 64; i++) label[i] = l.label[(8 * part + i / 8) * T_SIDE + 8 * part + i % 8];
        put_words(&l, 0, label, 64, false, empty, ids, class_ids, &n);
        CHECK(n == count[part] && ids[0] == T_BOS && ids[76] == T_EOS, "window %d: %zu words, wanted %zu", part, n, count[part]);
        for (int i = 0; i < 5; i++)
            CHECK(ids[i + 1] == wanted[part][i] && class_ids[i] == wanted_class[part][i], "window %d, word %d: token %d of class %g", part, i,
                  ids[i + 1], (double)class_ids[i]);
        put_words(&l, 0, l.label, T_SIDE * T_SIDE, true, empty, ids, class_ids, &n);
        CHECK(n == 5 && ids[4] == 103 && class_ids[3] == 3, "a whole scene keeps all its words: %zu", n);
    }
    latents_free(&l);
    flis_free(&ctx);
}

/* How many of so many windows touch the ball, and lie at the upper and lower edge. */
enum { DRAWN = 3000 };
static void draw_windows(const latents *l, int *balls, int *top_most, int *bottom_most)
{
    dice d = {5};
    *balls = *top_most = *bottom_most = 0;
    for (int i = 0; i < DRAWN; i++) {
        size_t top = 99, left = 99;
        place_window(l, 0, 8, &d, &top, &left);
        CHECK(top <= T_SIDE - 8 && left <= T_SIDE - 8, "window at %zu, %zu", top, left);
        *balls += top <= 4 && left <= 5;
        *top_most += top == 0;
        *bottom_most += top == T_SIDE - 8;
    }
}

/* A window is drawn for one word of all, and touches what the word names: the ball, with two words of five, is met far more
   often than by windows that lie anywhere (37 % of them). */
void test_windows_places(void)
{
    flis_ctx ctx;
    latents l = {0};
    int balls, top, bottom;
    CHECK(flis_init(&ctx) && latents_new(&ctx, &l, 1, T_SIDE, T_SIDE), "no room");
    two_things(&l);
    draw_windows(&l, &balls, &top, &bottom);
    CHECK(balls > DRAWN / 2 && balls < DRAWN, "the ball is in %d of %d windows", balls, DRAWN);
    CHECK(top > DRAWN / 10 && bottom > DRAWN / 10, "%d at the top, %d at the bottom", top, bottom);
    for (int i = 0; i < 5; i++) l.class_ids[i] = 3;         /* only the boat is named */
    draw_windows(&l, &balls, &top, &bottom);
    CHECK(balls < DRAWN / 10 && bottom > DRAWN / 10, "for the boat, the ball is in %d windows, and %d lie at the bottom", balls, bottom);
    for (int i = 0; i < 5; i++) l.class_ids[i] = 17;        /* only the ball */
    draw_windows(&l, &balls, &top, &bottom);
    CHECK(balls == DRAWN, "the ball is in %d of %d windows that are drawn for it", balls, DRAWN);
    for (int i = 0; i < 5; i++) l.class_ids[i] = -1;        /* only what acts everywhere, and no word at all */
    draw_windows(&l, &balls, &top, &bottom);
    CHECK(top == DRAWN, "%d of %d windows at the top", top, DRAWN);
    l.classes[0] = 0;
    draw_windows(&l, &balls, &top, &bottom);
    CHECK(top == DRAWN, "%d of %d windows at the top", top, DRAWN);
    latents_free(&l);
    flis_free(&ctx);
}

/* Scores of a key k against queries Wq (x + 1), x of mean 0: DEAF on average for padding, near 0 for features that are no
   padding. */
typedef struct scores { const real *padding, *word; size_t heads, seen; real *query; double worst_padding, worst_word; } scores;

static bool score(flis_ctx *ctx, void *user, const char *name, flis_param *p)
{
    scores *s = user;
    const bool q = ends(name, ".attn2.to_q.weight");
    if (!q && !ends(name, ".attn2.to_k.weight")) return true;
    const size_t rows = p->shape[0], columns = p->shape[1], head = rows / s->heads;
    real *w = flis_alloc(ctx, rows * columns, sizeof *w);
    if (!w) return false;
    flis_param_get(p, w);
    if (q) {
        s->query = w;
        return true;
    }
    for (size_t h = 0; h < s->heads; h++) {
        double padding = 0, word = 0;
        for (size_t i = h * head; i < (h + 1) * head; i++) {
            double query = 0, a = 0, b = 0;
            for (size_t c = 0; c < rows; c++) query += (double)s->query[i * rows + c];
            for (size_t c = 0; c < columns; c++) a += (double)w[i * columns + c] * (double)s->padding[c], b += (double)w[i * columns + c] * (double)s->word[c];
            padding += query * a, word += query * b;
        }
        padding = fabs(padding / sqrt((double)head) - DEAF), word = fabs(word / sqrt((double)head));
        s->worst_padding = padding > s->worst_padding ? padding : s->worst_padding;
        s->worst_word = word > s->worst_word ? word : s->worst_word;
    }
    s->seen++;
    free(s->query);
    s->query = NULL;
    free(w);
    return true;
}

void test_windows_deaf(void)
{
    enum { D = 64 };
    static const flis_unet_config small = {4, 4, 48, 4, {1, 1, 2, 1}, {true, true, true, false}, 2, 2, D, 6};
    flis_ctx ctx;
    options o = {.stage = TEXT2IMAGE};
    real padding[D], word[D];
    dice d = {3};
    double along = 0, square = 0;
    for (int i = 0; i < D; i++) padding[i] = spread(&d, -1.7f, 1.7f), word[i] = spread(&d, -1.7f, 1.7f);
    for (int i = 0; i < D; i++) along += (double)padding[i] * (double)word[i], square += (double)padding[i] * (double)padding[i];
    for (int i = 0; i < D; i++) word[i] -= (real)(along / square * (double)padding[i]);
    CHECK(flis_init(&ctx), "no context");
    flis_unet *unet = flis_unet_new(&ctx, &small);
    CHECK(unet && flis_unet_walk(&ctx, unet, new_weights, &o), "no U-Net: %s", ctx.error);
    deafness f = {padding, D, 2, NULL};
    scores s = {padding, word, 2, 0, NULL, 0, 0};
    CHECK(flis_unet_walk(&ctx, unet, deafen, &f) && flis_unet_walk(&ctx, unet, score, &s), "walk: %s", ctx.error);
    CHECK(s.seen == 16, "%zu cross-attentions, wanted 16", s.seen);
    /* what the drawn keys say to padding and to a word stays: of deviation 1/3, 64 draws; the formula itself leaves no error */
    CHECK(s.worst_padding < 1.5, "padding's score is %g from %d", s.worst_padding, DEAF);
    CHECK(s.worst_word < 1.5, "a word's score is %g", s.worst_word);
    free(f.query);
    flis_unet_free(unet);
    flis_free(&ctx);
}
