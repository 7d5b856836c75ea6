/* paper.c - repeats the paper's experiments (Xue et al., CVPR 2023) with the small model, and writes one page of results.
 *
 *   Table 1   held-out layouts of classes that the fine-tuning saw: mIoU and Fréchet distance of real pictures, of those
 *             through the autoencoder, of plain text to image, of RCA without fine-tuning, and of RCA with it
 *   Figure 5  what the fine-tuning never saw: new objects, attributes, styles; how often the right thing is in its region
 *   Figure 6  one map shared by "sky" and a style; two things with their maps swapped (real: drawn in each other's outlines)
 *
 * Real pictures are scenes of tools/world. Who judges: the small world's own segmenter (tools/train), whose features also
 * give the distance, which is therefore not comparable to anybody's FID; and the measures of colours, patterns and styles of
 * tools/evaluate. Real scenes are judged too: that is the best a judge can say. Layout i of a set is its scene SEED + i, the
 * noise of its pictures has seed i, the same for every method.
 *
 * In order: the models, painting, judging, the experiments, the page, and the program.
 */
#include "tools/common/folder.h"

#define EVALUATE_NO_MAIN
#include "tools/evaluate/main.c"

#include <time.h>

/* ---- Models ------------------------------------------------------------------------------------------------------ */

typedef struct model {
    flis_clip *clip;
    flis_unet *unet;
    flis_vae *vae;
    flis_real *empty; /* text features of "", [77][d] */
    char digest[65];
} model;

typedef enum { REAL, CODED, PLAIN, UNTUNED, TUNED, METHODS } method;
static const char *const METHOD[METHODS] = {
    "real pictures",           "real, through the autoencoder", "plain text to image",
    "RCA without fine-tuning", "RCA with fine-tuning",
};

typedef enum { OBJECT, ATTRIBUTE, STYLE, SHARED, SWAPPED, QUESTIONS } question;
static const struct {
    const char *name, *set, *asks;
} QUESTION[QUESTIONS] = {
    {"new objects", "ood-object", "the segmenter finds every new object in most of its region"},
    {"new attributes", "ood-attribute", "every colour and pattern is measured in its thing"},
    {"new styles", "ood-style", "the style is measured in the picture, out of nine and none"},
    {"a style shares a map", "region-style",
     "that style, not none, is measured in its region, and none, not that style, in the rest"},
    {"swapped maps", "test",
     "each of two maps looks more like the thing that it was given than like the one whose outline it is, by colours"},
};
static const char *const EACH[QUESTIONS] = {"each new object", "each new colour or pattern", NULL, NULL,
                                            "each swapped thing"};

enum { SHOWN = 4, SIDE = WORLD_SIDE, CELLS = WORLD_SIDE / FLIS_FACTOR, PLACES = CELLS * CELLS };

/* Layouts in which all is right, and how much of all that was asked of them. */
typedef struct tally {
    uint64_t right, all, each_right, each;
} tally;

typedef struct paper {
    flis_ctx ctx;
    const char *model_path, *plain_path, *segmenter_path, *vocab_path, *out;
    uint64_t count, trials, steps, seed, threads;
    double scale;
    bool quiet;
    flis_vocab *vocab;
    model tuned, plain;
    flis_unet *segmenter;
    judges *judges;
    /* each hand's own */
    world_scene *scene;
    uint8_t *rgb, *found;
    confusion confusion[METHODS];
    tally tally[QUESTIONS][METHODS];
    /* results */
    iou_score iou[METHODS];
    double distance[METHODS];
    flis_real
        *features; /* [METHODS + 1][count][d]: of each method's pictures, and of others to measure distances from */
    uint8_t *show; /* [QUESTIONS + 1][SHOWN][METHODS + 1][pixels][3]: the map, then each method's picture */
    char (*caption)[SHOWN][512]; /* [QUESTIONS + 1] */
    uint64_t judged;             /* pictures that the judges learn from, so far */
    time_t began;
} paper;

static void model_free(model *m)
{
    flis_clip_free(m->clip);
    flis_unet_free(m->unet);
    flis_vae_free(m->vae);
    free(m->empty);
}

static bool file_digest(flis_ctx *ctx, const char *path, char hex[65])
{
    size_t length;
    char *bytes = flis_read_file(ctx, path, (size_t)1 << 30, &length);
    flis_sha256 sha;
    if (!bytes) return false;
    flis_sha256_begin(&sha);
    flis_sha256_add(&sha, bytes, length);
    flis_sha256_end(&sha, hex);
    free(bytes);
    return true;
}

static bool model_load(paper *p, const char *path, model *m)
{
    flis_ctx *ctx = &p->ctx;
    flis_file *file = flis_model_open(ctx, path);
    if (!file) return false;
    m->clip = flis_clip_load(ctx, file);
    m->unet = flis_unet_load(ctx, file);
    m->vae = flis_vae_load(ctx, file, true, true);
    flis_file_close(file);
    flis_prompt prompt;
    flis_phrase empty = {(char[]){""}, -1};
    if (!flis_ok(ctx) || !file_digest(ctx, path, m->digest) || !flis_prompt_make(ctx, p->vocab, &empty, 1, &prompt))
        return false;
    flis_mark mark = flis_here(ctx);
    flis_tensor *text = flis_clip_encode(ctx, m->clip, prompt.ids, 1);
    m->empty = text ? flis_alloc(ctx, flis_count(text), sizeof *m->empty) : NULL;
    if (m->empty) memcpy(m->empty, text->x, flis_count(text) * sizeof *m->empty);
    flis_rewind(ctx, mark);
    flis_prompt_free(&prompt);
    return flis_ok(ctx);
}

static void progress(const paper *p, const char *what, uint64_t done, uint64_t total)
{
    if (p->quiet || !flis_terminal()) return;
    if (done > total) done = total;
    fprintf(stderr, "\r%s: %llu of %llu, %.0f s   %s", what, (unsigned long long)done, (unsigned long long)total,
            difftime(time(NULL), p->began), done == total ? "\n" : "");
}

/* ---- Painting ---------------------------------------------------------------------------------------------------- */

/* The phrases of a scene as flis has them. */
static size_t phrases_of(const world_scene *s, flis_phrase *phrase, char (*text)[40])
{
    for (int i = 0; i < s->phrases; i++) {
        memcpy(text[i], s->phrase[i].text, sizeof text[i]);
        phrase[i] = (flis_phrase){text[i], s->phrase[i].id};
    }
    return (size_t)s->phrases;
}

/* label NULL: plain Stable Diffusion, the phrases alone. */
static bool synthesise(paper *p, const model *m, const flis_phrase *phrase, size_t count, const uint8_t *label,
                       uint64_t seed, uint8_t *rgb)
{
    flis_ctx *ctx = &p->ctx;
    flis_prompt prompt;
    float noise[PLACES * 4];
    flis_real x[PLACES * 4];
    if (!flis_prompt_make(ctx, p->vocab, phrase, count, &prompt)) return false;
    flis_mark mark = flis_here(ctx);
    const flis_tensor *text = flis_clip_encode(ctx, m->clip, prompt.ids, 1);
    const flis_rca rca = {label, SIDE, SIDE, prompt.class_ids, prompt.classes};
    flis_guided guided = {m->unet, CELLS, CELLS, text ? text->x : NULL, m->empty, label ? &rca : NULL};
    const flis_model_fn fn = {flis_guided_eps, NULL, &guided};
    const flis_sampling sampling = {FLIS_PLMS, (int)p->steps, 0, p->scale};
    flis_picture picture = {0, 0, 0, NULL};
    flis_rng_seed(&ctx->rng, FLIS_RNG_CPU, seed);
    flis_randn(&ctx->rng, noise, PLACES * 4);
    for (size_t i = 0; i < PLACES * 4; i++) x[i] = noise[i];
    if (text && flis_sample(ctx, &sampling, PLACES * 4, x, &fn))
        flis_decode_picture(ctx, m->vae, flis_from_nchw(ctx, x, 1, 4, CELLS, CELLS), &picture);
    if (picture.pixels) memcpy(rgb, picture.pixels, WORLD_PIXELS * 3);
    free(picture.pixels);
    flis_rewind(ctx, mark);
    flis_prompt_free(&prompt);
    return flis_ok(ctx);
}

/* A develop: judges also learn from scenes that went through the autoencoder, which blurs what styles and patterns are told by. */
static bool blur_real(flis_ctx *ctx, void *user, uint8_t *rgb)
{
    paper *p = user;
    progress(p, "judges", ++p->judged, JUDGES_PAINTED);
    return through_autoencoder(ctx, p->tuned.vae, SIDE, rgb);
}

static bool make(paper *p, method how, const world_scene *s, uint64_t seed, uint8_t *rgb)
{
    flis_phrase phrase[WORLD_PHRASES];
    char text[WORLD_PHRASES][40];
    const size_t count = phrases_of(s, phrase, text);
    if (how == REAL || how == CODED) memcpy(rgb, s->rgb, WORLD_PIXELS * 3);
    if (how == REAL) return true;
    if (how == CODED) return through_autoencoder(&p->ctx, p->tuned.vae, SIDE, rgb);
    return synthesise(p, how == TUNED ? &p->tuned : &p->plain, phrase, count, how == PLAIN ? NULL : s->label, seed,
                      rgb);
}

/* ---- Judging ----------------------------------------------------------------------------------------------------- */

/* The class that most pixels of a region have, by the segmenter's labels. */
static int majority(const uint8_t *found, const uint8_t *label, int id)
{
    size_t count[256] = {0};
    int best = 0;
    for (size_t i = 0; i < WORLD_PIXELS; i++) count[found[i]] += label[i] == id;
    for (int c = 1; c < 256; c++)
        if (count[c] > count[best]) best = c;
    return best;
}

static bool has_pixels(const world_scene *s, int id)
{
    return id < 0 || memchr(s->label, id, WORLD_PIXELS) != NULL;
}

/* That style rather than none: an easier question than measure_style's. */
static bool has_style(const judge *one, const region *r, int style)
{
    double x[STYLE_FEATURES];
    return style_features(r, x) && judge_distance(one, style, x) < judge_distance(one, 0, x);
}

static void count_one(tally *t, bool right)
{
    t->each++;
    t->each_right += right;
}

/* That style in its region, and not in the rest. */
static bool shares(const judges *j, const region *r, int style)
{
    uint8_t room[WORLD_PIXELS];
    const region rest = rest_of(r, room);
    return has_style(&j->part, r, style) && !has_style(&j->rest, &rest, style);
}

/* Counts a picture: what was asked of its scene, and whether all of it is right. */
static void judge_one(paper *p, question asked, const world_scene *s, const uint8_t *rgb, const uint8_t *found,
                      tally *t)
{
    const uint64_t wrong = t->each - t->each_right;
    for (int i = 0; i < s->phrases; i++) {
        const world_phrase *f = &s->phrase[i];
        const region r = {rgb, s->label, SIDE, SIDE, f->id, s->night};
        if (!has_pixels(s, f->id)) continue;
        if (asked == OBJECT && f->class && !CLASS[f->class].layout)
            count_one(t, majority(found, s->label, f->id) == f->class);
        if (asked == ATTRIBUTE && f->colour) count_one(t, measure_colour(&r, NULL) == f->colour);
        if (asked == ATTRIBUTE && f->pattern)
            count_one(t, measure_pattern(&p->ctx, p->judges, &r, f->class) == f->pattern);
        if (asked == STYLE && f->style) count_one(t, measure_style(p->judges, &r) == f->style);
        if (asked == SHARED && f->style) count_one(t, shares(p->judges, &r, f->style));
    }
    t->all++;
    t->right += t->each - t->each_right == wrong;
}

/* ---- Experiments ------------------------------------------------------------------------------------------------- */

/* Bright colours for maps; neighbouring numbers get hues far apart. */
static void map_picture(const uint8_t *label, uint8_t *rgb)
{
    for (size_t i = 0; i < WORLD_PIXELS; i++)
        for (int c = 0; c < 3; c++)
            rgb[3 * i + (size_t)c] =
                (uint8_t)(255 * (0.55f + 0.44f * sine((float)label[i] * 0.618034f + (float)c / 3)));
}

static uint8_t *shown(const paper *p, size_t row, uint64_t i, int column)
{
    return p->show + ((row * SHOWN + i) * (METHODS + 1) + (size_t)column) * WORLD_PIXELS * 3;
}

static bool draw(paper *p, const char *set, uint64_t seed)
{
    return world_draw(seed, world_set(set), p->scene) ||
           flis_fail(&p->ctx, "the set %s has no scene of seed %llu", set, (unsigned long long)seed);
}

static bool distance_of(paper *p, const flis_real *features, size_t d, const flis_real *others, double *out)
{
    const size_t size = (size_t)p->count * d;
    double *a = flis_alloc(&p->ctx, size, sizeof *a), *b = flis_alloc(&p->ctx, size, sizeof *b);
    for (size_t i = 0; a && b && i < size; i++) a[i] = (double)features[i], b[i] = (double)others[i];
    bool good = a && b && frechet_distance(&p->ctx, a, (size_t)p->count, b, (size_t)p->count, d, out);
    free(a);
    free(b);
    return good;
}

/* Does layouts first, first + step, first + 2 step…. */
typedef void work(paper *own, question asked, uint64_t first, uint64_t step);

static void hand_free(paper *own)
{
    for (int m = 0; m < METHODS; m++) free(own->confusion[m].count);
    free(own->scene);
    free(own->rgb);
    free(own->found);
    flis_free(&own->ctx);
}

static bool hand_make(const paper *p, paper *own)
{
    *own = *p;
    memset(own->tally, 0, sizeof own->tally);
    bool good = flis_init(&own->ctx);
    own->ctx.threads = 1;
    own->scene = flis_alloc(&own->ctx, 1, sizeof *own->scene);
    own->rgb = flis_alloc(&own->ctx, WORLD_PIXELS, 3);
    own->found = flis_alloc(&own->ctx, WORLD_PIXELS, 1);
    for (int m = 0; m < METHODS; m++)
        good = confusion_make(&own->ctx, &own->confusion[m], 0, WORLD_CLASSES + 1, 0, WORLD_SECOND) && good;
    return good && flis_ok(&own->ctx);
}

/* What a hand counted, into p. */
static void hand_add(paper *p, const paper *own)
{
    const size_t cells = (WORLD_CLASSES + 1) * (WORLD_CLASSES + 2);
    for (int m = 0; m < METHODS; m++) {
        confusion *c = &p->confusion[m];
        const confusion *o = &own->confusion[m];
        c->images += o->images;
        c->pixels += o->pixels;
        for (size_t i = 0; i < cells; i++) c->count[i] += o->count[i];
        for (int q = 0; q < QUESTIONS; q++) {
            tally *t = &p->tally[q][m];
            const tally *of = &own->tally[q][m];
            t->right += of->right, t->all += of->all, t->each_right += of->each_right, t->each += of->each;
        }
    }
}

/* A layout is small for many threads: each hand paints whole layouts with one. Who painted which does not show. */
static bool share_out(paper *p, work *fn, question asked)
{
    const int hands = p->ctx.threads;
    paper *own = flis_alloc(&p->ctx, (size_t)hands, sizeof *own);
    if (!own) return false;
#ifdef _OPENMP
#pragma omp parallel for num_threads(hands) schedule(static, 1)
#endif
    for (int k = 0; k < hands; k++)
        if (hand_make(p, &own[k])) fn(&own[k], asked, (uint64_t)k, (uint64_t)hands);
    for (int k = 0; k < hands; k++) {
        if (flis_ok(&own[k].ctx)) hand_add(p, &own[k]);
        else flis_fail(&p->ctx, "%s", own[k].ctx.error);
        hand_free(&own[k]);
    }
    free(own);
    return flis_ok(&p->ctx);
}

static void table_rows(paper *p, question unused, uint64_t first, uint64_t step)
{
    flis_ctx *ctx = &p->ctx;
    const size_t d = segmenter_features(p->segmenter), size = (size_t)p->count * d;
    (void)unused;
    for (uint64_t i = first; i < p->count && flis_ok(ctx); i += step) {
        if (!draw(p, "test", p->seed + p->count + i)) break;
        segmenter_run(ctx, p->segmenter, p->scene->rgb, SIDE, SIDE, NULL, p->features + METHODS * size + i * d);
        if (!draw(p, "test", p->seed + i)) break;
        if (i < SHOWN) {
            map_picture(p->scene->label, shown(p, QUESTIONS, i, 0));
            memcpy(p->caption[QUESTIONS][i], p->scene->caption, sizeof p->caption[0][0]);
        }
        for (int m = 0; m < METHODS && flis_ok(ctx); m++) {
            make(p, m, p->scene, i, p->rgb);
            if (i < SHOWN) memcpy(shown(p, QUESTIONS, i, m + 1), p->rgb, WORLD_PIXELS * 3);
            if (segmenter_run(ctx, p->segmenter, p->rgb, SIDE, SIDE, p->found, p->features + (size_t)m * size + i * d))
                confusion_add(ctx, &p->confusion[m], METHOD[m], p->scene->label, p->found, WORLD_PIXELS);
        }
        if (first == 0) progress(p, "layouts", i + step, p->count);
    }
}

/* Table 1. */
static bool table(paper *p)
{
    const size_t d = segmenter_features(p->segmenter), size = (size_t)p->count * d;
    p->features = flis_alloc(&p->ctx, size * (METHODS + 1), sizeof *p->features);
    for (int m = 0; m < METHODS; m++) confusion_make(&p->ctx, &p->confusion[m], 0, WORLD_CLASSES + 1, 0, WORLD_SECOND);
    bool good = flis_ok(&p->ctx) && share_out(p, table_rows, QUESTIONS);
    for (int m = 0; m < METHODS && good; m++)
        good = confusion_score(&p->ctx, &p->confusion[m], &p->iou[m]) &&
               distance_of(p, p->features + (size_t)m * size, d, p->features + METHODS * size, &p->distance[m]);
    return good;
}

static void question_rows(paper *p, question asked, uint64_t first, uint64_t step)
{
    for (uint64_t i = first; i < p->trials && flis_ok(&p->ctx) && draw(p, QUESTION[asked].set, p->seed + i);
         i += step) {
        if (i < SHOWN) {
            map_picture(p->scene->label, shown(p, asked, i, 0));
            memcpy(p->caption[asked][i], p->scene->caption, sizeof p->caption[0][0]);
        }
        for (int m = 0; m < METHODS && flis_ok(&p->ctx); m++) {
            if (!make(p, m, p->scene, i, p->rgb) ||
                !segmenter_run(&p->ctx, p->segmenter, p->rgb, SIDE, SIDE, p->found, NULL))
                break;
            if (i < SHOWN) memcpy(shown(p, asked, i, m + 1), p->rgb, WORLD_PIXELS * 3);
            judge_one(p, asked, p->scene, p->rgb, p->found, &p->tally[asked][m]);
        }
        if (first == 0) progress(p, QUESTION[asked].name, i + step, p->trials);
    }
}

/* Two things of different classes with 200 pixels and more, whose maps are about as large. */
static bool pick_two(const world_scene *s, int *a, int *b)
{
    size_t area[256] = {0};
    for (size_t i = 0; i < WORLD_PIXELS; i++) area[s->label[i]]++;
    for (*a = 0; *a < s->phrases; ++*a)
        for (*b = *a + 1; *b < s->phrases; ++*b) {
            const world_phrase *x = &s->phrase[*a], *y = &s->phrase[*b];
            if (x->id < 0 || y->id < 0 || !x->class || !y->class || x->class == y->class) continue;
            if (world_is_stuff(x->class) || world_is_stuff(y->class)) continue;
            const size_t m = area[x->id], n = area[y->id];
            if (m >= 200 && n >= 200 && m <= 3 * n && n <= 3 * m) return true;
        }
    return false;
}

/* Two things get each other's maps. Of the real world the same is asked: each is drawn in the other's outline, where that stood. */
static void swap_rows(paper *p, question asked, uint64_t first, uint64_t step)
{
    world_scene *s = p->scene;
    world_rules rules = *world_set(QUESTION[asked].set);
    int a, b;
    for (uint64_t i = 0, scene = 0; i < p->trials && flis_ok(&p->ctx) && draw(p, QUESTION[asked].set, p->seed + scene);
         scene++) {
        if (!pick_two(s, &a, &b) || i++ % step != first) continue;
        const uint64_t trial = i - 1;
        const world_phrase *x = &s->phrase[a], *y = &s->phrase[b];
        rules.exchange[0] = x->id;
        rules.exchange[1] = y->id;
        world_draw(p->seed + scene, &rules, s);
        if (trial < SHOWN) {
            map_picture(s->label, shown(p, asked, trial, 0));
            snprintf(p->caption[asked][trial], sizeof p->caption[0][0], "%.400s; %s and %s swapped", s->caption,
                     x->text, y->text);
        }
        for (int m = 0; m < METHODS && make(p, m, s, trial, p->rgb); m++) {
            const region of_x = {p->rgb, s->label, SIDE, SIDE, x->id, s->night},
                         of_y = {p->rgb, s->label, SIDE, SIDE, y->id, s->night};
            tally *t = &p->tally[asked][m];
            const uint64_t wrong = t->each - t->each_right;
            if (trial < SHOWN) memcpy(shown(p, asked, trial, m + 1), p->rgb, WORLD_PIXELS * 3);
            count_one(t, looks_rather(p->judges, &of_x, x->class, y->class));
            count_one(t, looks_rather(p->judges, &of_y, y->class, x->class));
            t->all++;
            t->right += t->each - t->each_right == wrong;
        }
        if (first == 0) progress(p, QUESTION[asked].name, trial + step, p->trials);
    }
}

/* ---- The page ---------------------------------------------------------------------------------------------------- */

static void base64(FILE *file, const uint8_t *bytes, size_t length)
{
    static const char digit[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (size_t i = 0; i < length; i += 3) {
        const uint32_t group = (uint32_t)bytes[i] << 16 | (i + 1 < length ? (uint32_t)bytes[i + 1] << 8 : 0) |
                               (i + 2 < length ? bytes[i + 2] : 0);
        fputc(digit[group >> 18], file);
        fputc(digit[group >> 12 & 63], file);
        fputc(i + 1 < length ? digit[group >> 6 & 63] : '=', file);
        fputc(i + 2 < length ? digit[group & 63] : '=', file);
    }
}

static bool put_picture(paper *p, FILE *file, uint8_t *rgb, const char *what)
{
    size_t length;
    const flis_picture picture = {SIDE, SIDE, 3, rgb};
    uint8_t *png = flis_png_bytes(&p->ctx, &picture, NULL, &length);
    if (!png) return false;
    fprintf(file, "<td><img width=\"%d\" height=\"%d\" alt=\"%s\" src=\"data:image/png;base64,", SIDE, SIDE, what);
    base64(file, png, length);
    fputs("\"></td>", file);
    free(png);
    return true;
}

static bool put_figure(paper *p, FILE *file, size_t row, uint64_t count)
{
    fputs("<div class=\"wide\"><table class=\"pictures\"><tr><th>layout</th>", file);
    for (int m = 0; m < METHODS; m++) fprintf(file, "<th>%s</th>", METHOD[m]);
    fputs("</tr>\n", file);
    for (uint64_t i = 0; i < count && i < SHOWN; i++) {
        fputs("<tr>", file);
        for (int m = 0; m <= METHODS; m++)
            if (!put_picture(p, file, shown(p, row, i, m), m ? METHOD[m - 1] : "layout")) return false;
        fprintf(file, "</tr>\n<tr><td colspan=\"%d\" class=\"caption\">%s</td></tr>\n", METHODS + 1,
                p->caption[row][i]);
    }
    fputs("</table></div>\n", file);
    return true;
}

static void put_table(const paper *p, FILE *file)
{
    fprintf(file,
            "<h2>Layouts of known classes (the paper's Table 1)</h2>\n<p>%llu held-out layouts. Distance: Fréchet "
            "distance between "
            "features of the small world's own segmenter, from those of %llu other real pictures; it is not anybody's "
            "FID. mIoU: the "
            "segmenter's labels against the layout, over the classes that "
            "occur.</p>\n<table><tr><th></th><th>distance</th><th>mIoU</th>"
            "<th>pixel accuracy</th></tr>\n",
            (unsigned long long)p->count, (unsigned long long)p->count);
    for (int m = 0; m < METHODS; m++)
        fprintf(file, "<tr><td>%s</td><td>%.3f</td><td>%.3f</td><td>%.3f</td></tr>\n", METHOD[m], p->distance[m],
                p->iou[m].mean_present, p->iou[m].pixel_accuracy);
    fputs("</table>\n", file);
}

static void put_questions(const paper *p, FILE *file)
{
    fprintf(file,
            "<h2>Beyond what the fine-tuning saw</h2>\n<p>%llu layouts each; how many are right. The fine-tuning saw "
            "no such object, "
            "attribute or style, and none of these scenes. Only the swapped maps are made of what it knows: plain "
            "things, of which it saw "
            "some in each other's outlines.</p>\n<div class=\"wide\"><table><tr><th></th><th>right means</th>",
            (unsigned long long)p->trials);
    for (int m = 0; m < METHODS; m++) fprintf(file, "<th>%s</th>", METHOD[m]);
    fputs("</tr>\n", file);
    for (int q = 0; q < QUESTIONS; q++) {
        fprintf(file, "<tr><td>%s</td><td class=\"text\">%s</td>", QUESTION[q].name, QUESTION[q].asks);
        for (int m = 0; m < METHODS; m++) {
            const tally *t = &p->tally[q][m];
            fprintf(file, "<td>%.0f %%</td>", 100.0 * (double)t->right / (double)t->all);
        }
        fputs("</tr>\n", file);
        if (!EACH[q]) continue;
        fprintf(file, "<tr><td>%s</td><td class=\"text\">the same, one by one</td>", EACH[q]);
        for (int m = 0; m < METHODS; m++)
            fprintf(file, "<td>%.0f %%</td>", 100.0 * (double)p->tally[q][m].each_right / (double)p->tally[q][m].each);
        fputs("</tr>\n", file);
    }
    fputs("</table></div>\n", file);
}

static bool put_page(paper *p)
{
    static const char HEAD[] = "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta "
                               "name=\"viewport\" content=\"width=device-width\">\n"
                               "<title>The paper in miniature</title>\n<style>body{font:16px/1.5 "
                               "sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222}"
                               "table{border-collapse:collapse}td,th{padding:.2rem "
                               ".6rem;text-align:right;vertical-align:bottom}td:first-child,th:first-child,"
                               "td.text{text-align:left}tr+tr td{border-top:1px solid #ddd}.pictures td,.pictures "
                               "th{padding:.1rem;text-align:center;border:0;"
                               "font-size:.8rem;width:8rem}.pictures "
                               "td.caption{text-align:left;padding-bottom:.8rem;color:#555}.wide{overflow-x:auto}"
                               "img{image-rendering:auto;display:block}code{font-size:.85rem;word-break:break-all}</"
                               "style></head><body>\n<h1>The paper in miniature</h1>\n";
    FILE *file = fopen(p->out, "wb");
    if (!file) return flis_fail(&p->ctx, "%s: cannot be written: %s", p->out, strerror(errno));
    fputs(HEAD, file);
    fprintf(file,
            "<p>The experiments of <i>Freestyle Layout-to-Image Synthesis</i> (Xue et al., CVPR 2023), repeated with "
            "flis' small model on "
            "the small world that tools/world draws. PLMS, %llu steps, guidance %g, seeds %llu and on. Judges: the "
            "world's own segmenter and "
            "measures of colour, pattern and style; their verdict on real pictures is the most that a method can "
            "reach.</p>\n",
            (unsigned long long)p->steps, p->scale, (unsigned long long)p->seed);
    put_table(p, file);
    bool good = put_figure(p, file, QUESTIONS, p->count);
    put_questions(p, file);
    for (size_t q = 0; good && q < QUESTIONS; q++) {
        fprintf(file, "<h3>%c%s</h3>\n<p>Right: %s.</p>\n", QUESTION[q].name[0] - 32, QUESTION[q].name + 1,
                QUESTION[q].asks);
        good = put_figure(p, file, q, p->trials);
    }
    fprintf(file,
            "<h2>Made from</h2>\n<p>Model with fine-tuning: <code>%s</code><br>without: "
            "<code>%s</code></p>\n</body></html>\n",
            p->tuned.digest, p->plain.digest);
    if (fclose(file) != 0) good = flis_fail(&p->ctx, "%s: cannot be written", p->out);
    return good;
}

static void print_results(const paper *p)
{
    printf("%-32s %10s %8s %8s\n", "", "distance", "mIoU", "accuracy");
    for (int m = 0; m < METHODS; m++)
        printf("%-32s %10.3f %8.4f %8.4f\n", METHOD[m], p->distance[m], p->iou[m].mean_present,
               p->iou[m].pixel_accuracy);
    for (int q = 0; q < QUESTIONS; q++) {
        printf("%-28s", QUESTION[q].name);
        for (int m = 0; m < METHODS; m++)
            printf(" %4llu/%-4llu", (unsigned long long)p->tally[q][m].right, (unsigned long long)p->tally[q][m].all);
        if (EACH[q]) printf("\n%-28s", EACH[q]);
        for (int m = 0; EACH[q] && m < METHODS; m++)
            printf(" %4llu/%-4llu", (unsigned long long)p->tally[q][m].each_right,
                   (unsigned long long)p->tally[q][m].each);
        putchar('\n');
    }
}

/* ---- The program ------------------------------------------------------------------------------------------------- */

static const char HELP[] =
    "usage: paper --plain MODEL --segmenter SEGMENTER [--model MODEL] [options] -o PAGE.html\n"
    "Repeats the paper's experiments with a model of the small world, and writes one page of results.\n"
    "  --model FILE      tuned to layouts (train layout); default models/flis-small.safetensors\n"
    "  --plain FILE      what it was tuned from (train text2image)\n"
    "  --segmenter FILE  train segmenter\n"
    "  --vocab FILE      default models/vocab.txt\n"
    "  --count N         layouts for the table; default 500; at least 2\n"
    "  --trials N        layouts for each other question; default 50\n"
    "  --steps N         of PLMS; default 50; --scale S: guidance, default 2\n"
    "  --seed S          of the first scene; default 1000000\n"
    "  --threads N, -q, --help, --version\n"
    "exit status: 0 done, 1 failed (one sentence on stderr), 2 wrong usage\n";

static int misused(const char *what, const char *why)
{
    fprintf(stderr, "paper: %s%s (see paper --help)\n", what, why);
    return 2;
}

static bool number(const char *text, uint64_t most, uint64_t *out)
{
    *out = 0;
    for (const char *c = text; *c; c++) {
        if (*c < '0' || *c > '9' || *out > most) return false;
        *out = *out * 10 + (uint64_t)(*c - '0');
    }
    return *text && *out <= most;
}

static int parse(paper *p, int argc, char **argv)
{
    for (int i = 1; i < argc; i += 2) {
        const char *name = argv[i], *value = i + 1 < argc ? argv[i + 1] : NULL;
        char *end = NULL;
        bool good = true;
        if (strcmp(name, "-q") == 0) {
            p->quiet = true;
            i--;
            continue;
        }
        if (*name == '-' && !value) return misused(name, " wants a value");
        if (strcmp(name, "--model") == 0) p->model_path = value;
        else if (strcmp(name, "--plain") == 0) p->plain_path = value;
        else if (strcmp(name, "--segmenter") == 0) p->segmenter_path = value;
        else if (strcmp(name, "--vocab") == 0) p->vocab_path = value;
        else if (strcmp(name, "-o") == 0) p->out = value;
        else if (strcmp(name, "--count") == 0) good = number(value, 1 << 20, &p->count) && p->count > 1;
        else if (strcmp(name, "--trials") == 0) good = number(value, 1 << 20, &p->trials) && p->trials > 0;
        else if (strcmp(name, "--steps") == 0) good = number(value, 1000, &p->steps) && p->steps > 0;
        else if (strcmp(name, "--seed") == 0) good = number(value, UINT64_C(1) << 60, &p->seed);
        else if (strcmp(name, "--threads") == 0) good = number(value, 1024, &p->threads) && p->threads > 0;
        else if (strcmp(name, "--scale") == 0)
            good = (p->scale = strtod(value, &end)) >= 0 && !*end && end != value && p->scale < 1000;
        else return misused(name, ": not an option");
        if (!good) return misused(name, ": its value is none of those allowed");
    }
    if (!p->plain_path || !p->segmenter_path || !p->out)
        return misused("wanted --plain MODEL, --segmenter SEGMENTER and -o PAGE.html", "");
    return 0;
}

static bool prepare(paper *p)
{
    flis_ctx *ctx = &p->ctx;
    p->caption = flis_alloc(ctx, QUESTIONS + 1, sizeof *p->caption);
    p->show = flis_alloc(ctx, (QUESTIONS + 1) * SHOWN * (METHODS + 1), WORLD_PIXELS * 3);
    if (!p->caption || !p->show || !(p->vocab = flis_vocab_read(ctx, p->vocab_path))) return false;
    if (!model_load(p, p->model_path, &p->tuned) || !model_load(p, p->plain_path, &p->plain)) return false;
    flis_file *file = flis_file_open(ctx, p->segmenter_path);
    p->segmenter = file ? flis_unet_load(ctx, file) : NULL;
    flis_file_close(file);
    if (p->segmenter && flis_unet_get_config(p->segmenter)->in != 3)
        return flis_fail(ctx, "%s: it is no segmenter", p->segmenter_path);
    return p->segmenter && (p->judges = judges_learn(ctx, blur_real, p)) != NULL;
}

int main(int argc, char **argv)
{
    static paper p = {.model_path = "models/flis-small.safetensors",
                      .vocab_path = "models/vocab.txt",
                      .count = 500,
                      .trials = 50,
                      .steps = 50,
                      .seed = 1000000,
                      .scale = 2};
    if (argc > 1 && strcmp(argv[1], "--help") == 0) return fputs(HELP, stdout) < 0;
    if (argc > 1 && strcmp(argv[1], "--version") == 0) return puts("paper " FLIS_VERSION) < 0;
    const int wrong = parse(&p, argc, argv);
    if (wrong) return wrong;
    p.began = time(NULL);
    bool done = flis_init(&p.ctx);
    if (p.threads) p.ctx.threads = (int)p.threads;
    done = done && prepare(&p) && table(&p);
    for (question q = 0; done && q < QUESTIONS; q++) done = share_out(&p, q == SWAPPED ? swap_rows : question_rows, q);
    if (done) print_results(&p);
    done = done && put_page(&p) && (fflush(stdout) == 0 || flis_fail(&p.ctx, "stdout: cannot be written"));
    if (!done) fprintf(stderr, "paper: %s\n", p.ctx.error);
    model_free(&p.tuned);
    model_free(&p.plain);
    flis_unet_free(p.segmenter);
    flis_vocab_free(p.vocab);
    free(p.judges);
    for (int m = 0; m < METHODS; m++) free(p.confusion[m].count);
    free(p.features);
    free(p.caption);
    free(p.show);
    flis_free(&p.ctx);
    return done ? 0 : 1;
}
