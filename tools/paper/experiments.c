/* experiments.c - the table and the questions, shared out to workers. */
#include "tools/paper/paper.h"

#include <stdlib.h>
#include <string.h>

const char *const METHOD[METHODS] = {
    "real pictures",           "real, through the autoencoder", "plain text to image",
    "RCA without fine-tuning", "RCA with fine-tuning",
};

const question_row QUESTION[QUESTIONS] = {
    {"new objects", "ood-object", "the segmenter finds every new object in most of its region", "each new object"},
    {"new attributes", "ood-attribute", "every colour and pattern is measured in its thing",
     "each new colour or pattern"},
    {"new styles", "ood-style", "the style is measured in the picture, out of nine and none", NULL},
    {"a style shares a map", "region-style",
     "that style, not none, is measured in its region, and none, not that style, in the rest", NULL},
    {"swapped maps", "test",
     "each of two maps looks more like the thing that it was given than like the one whose outline it is, by colours",
     "each swapped thing"},
};

/* ---- Judging ----------------------------------------------------------------------------------------------------- */

/* The most frequent class in a region, by the segmenter's labels. */
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

static void count_one(tally *t, bool right)
{
    t->each++;
    t->each_right += right;
}

/* Counts a picture: everything that was asked of its scene, and whether all of it is right. */
static void judge_one(paper *p, question asked, const world_scene *s, const uint8_t *rgb, const uint8_t *found,
                      tally *t)
{
    const uint64_t wrong = t->each - t->each_right;
    for (int i = 0; i < s->phrases; i++) {
        const world_phrase *f = &s->phrase[i];
        const region r = {rgb, s->label, SIDE, SIDE, f->id, s->night};
        if (!has_pixels(s, f->id)) continue;
        if (asked == OBJECT && f->class && !world_in_layout_set(f->class))
            count_one(t, majority(found, s->label, f->id) == f->class);
        if (asked == ATTRIBUTE && f->colour) count_one(t, measure_colour(&r, NULL) == f->colour);
        if (asked == ATTRIBUTE && f->pattern)
            count_one(t, measure_pattern(&p->ctx, p->judges, &r, f->class) == f->pattern);
        if (asked == STYLE && f->style) count_one(t, measure_style(p->judges, &r) == f->style);
        if (asked == SHARED && f->style) count_one(t, style_only_in(p->judges, &r, f->style));
    }
    t->all++;
    t->right += t->each - t->each_right == wrong;
}

/* ---- Layouts and workers ----------------------------------------------------------------------------------------- */

/* Label maps in bright colours; neighbouring numbers get distant hues. */
static void map_picture(const uint8_t *label, uint8_t *rgb)
{
    for (size_t i = 0; i < WORLD_PIXELS; i++)
        for (int c = 0; c < 3; c++)
            rgb[3 * i + (size_t)c] =
                (uint8_t)(255 * (0.55f + 0.44f * sine((float)label[i] * 0.618034f + (float)c / 3)));
}

uint8_t *shown_picture(const paper *p, size_t row, uint64_t i, int column)
{
    return p->show + ((row * SHOWN + i) * (METHODS + 1) + (size_t)column) * WORLD_PIXELS * 3;
}

/* Of the first worker: the others are about as far. */
static void show_progress(paper *own, const char *what, uint64_t done, uint64_t total)
{
    progress_show(&own->progress, what, (size_t)(done < total ? done : total), (size_t)total);
}

static bool draw_scene(paper *p, const char *set, uint64_t seed)
{
    return world_draw(seed, world_set(set), p->scene) ||
           flis_fail(&p->ctx, "seed %llu: no scene satisfies the rules of set %s", (unsigned long long)seed, set);
}

static bool distance_of(paper *p, const flis_real *features, size_t d, const flis_real *others, double *out)
{
    const size_t size = (size_t)p->o.count * d;
    double *a = flis_alloc(&p->ctx, size, sizeof *a), *b = flis_alloc(&p->ctx, size, sizeof *b);
    for (size_t i = 0; a && b && i < size; i++) a[i] = (double)features[i], b[i] = (double)others[i];
    bool good = a && b && frechet_distance(&p->ctx, a, (size_t)p->o.count, b, (size_t)p->o.count, d, out);
    free(a);
    free(b);
    return good;
}

/* Makes layouts first, first + step, first + 2 step…. */
typedef void work(paper *own, question asked, uint64_t first, uint64_t step);

static void worker_free(paper *own)
{
    progress_end(&own->progress);
    for (int m = 0; m < METHODS; m++) free(own->confusion[m].count);
    free(own->scene);
    free(own->rgb);
    free(own->found);
    flis_free(&own->ctx);
}

static bool worker_make(const paper *p, paper *own)
{
    *own = *p;
    memset(own->tally, 0, sizeof own->tally);
    bool good = flis_init(&own->ctx);
    own->ctx.threads = 1;
    own->ctx.interrupted = p->ctx.interrupted;
    own->scene = flis_alloc(&own->ctx, 1, sizeof *own->scene);
    own->rgb = flis_alloc(&own->ctx, WORLD_PIXELS, 3);
    own->found = flis_alloc(&own->ctx, WORLD_PIXELS, 1);
    for (int m = 0; m < METHODS; m++)
        good = confusion_make(&own->ctx, &own->confusion[m], 0, WORLD_CLASSES + 1, 0, WORLD_SECOND) && good;
    return good && flis_ok(&own->ctx);
}

/* Adds a worker's counts to p. */
static void worker_add(paper *p, const paper *own)
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

/* One layout is too small for many threads, so each worker makes whole layouts with one thread. The results do not depend on
   the number of workers. */
static bool run_workers(paper *p, work *fn, question asked)
{
    const int workers = p->ctx.threads;
    paper *own = flis_alloc(&p->ctx, (size_t)workers, sizeof *own);
    if (!own) return false;
#ifdef _OPENMP
#pragma omp parallel for num_threads(workers) schedule(static, 1)
#endif
    for (int k = 0; k < workers; k++)
        if (worker_make(p, &own[k])) fn(&own[k], asked, (uint64_t)k, (uint64_t)workers);
    for (int k = 0; k < workers; k++) {
        if (flis_ok(&own[k].ctx)) worker_add(p, &own[k]);
        else flis_fail(&p->ctx, "%s", own[k].ctx.error);
        worker_free(&own[k]);
    }
    free(own);
    return flis_ok(&p->ctx);
}

static void table_rows(paper *p, question unused, uint64_t first, uint64_t step)
{
    flis_ctx *ctx = &p->ctx;
    const size_t d = segmenter_features(p->segmenter), size = (size_t)p->o.count * d;
    (void)unused;
    for (uint64_t i = first; i < p->o.count && flis_ok(ctx); i += step) {
        if (!draw_scene(p, "test", p->o.seed + p->o.count + i)) break;
        segmenter_run(ctx, p->segmenter, p->scene->rgb, SIDE, SIDE, NULL, p->features + METHODS * size + i * d);
        if (!draw_scene(p, "test", p->o.seed + i)) break;
        if (i < SHOWN) {
            map_picture(p->scene->label, shown_picture(p, QUESTIONS, i, 0));
            memcpy(p->caption[QUESTIONS][i], p->scene->caption, sizeof p->caption[0][0]);
        }
        for (int m = 0; m < METHODS && flis_ok(ctx); m++) {
            make_picture(p, m, p->scene, i, p->rgb);
            if (i < SHOWN) memcpy(shown_picture(p, QUESTIONS, i, m + 1), p->rgb, WORLD_PIXELS * 3);
            if (segmenter_run(ctx, p->segmenter, p->rgb, SIDE, SIDE, p->found, p->features + (size_t)m * size + i * d))
                confusion_add(ctx, &p->confusion[m], METHOD[m], p->scene->label, p->found, WORLD_PIXELS);
        }
        if (first == 0) show_progress(p, "layouts", i + step, p->o.count);
    }
}

bool run_table(paper *p)
{
    const size_t d = segmenter_features(p->segmenter), size = (size_t)p->o.count * d;
    p->features = flis_alloc(&p->ctx, size * (METHODS + 1), sizeof *p->features);
    for (int m = 0; m < METHODS; m++) confusion_make(&p->ctx, &p->confusion[m], 0, WORLD_CLASSES + 1, 0, WORLD_SECOND);
    bool good = flis_ok(&p->ctx) && run_workers(p, table_rows, QUESTIONS);
    for (int m = 0; m < METHODS && good; m++)
        good = confusion_score(&p->ctx, &p->confusion[m], &p->iou[m]) &&
               distance_of(p, p->features + (size_t)m * size, d, p->features + METHODS * size, &p->distance[m]);
    return good;
}

static void question_rows(paper *p, question asked, uint64_t first, uint64_t step)
{
    for (uint64_t i = first; i < p->o.trials && flis_ok(&p->ctx) && draw_scene(p, QUESTION[asked].set, p->o.seed + i);
         i += step) {
        if (i < SHOWN) {
            map_picture(p->scene->label, shown_picture(p, asked, i, 0));
            memcpy(p->caption[asked][i], p->scene->caption, sizeof p->caption[0][0]);
        }
        for (int m = 0; m < METHODS && flis_ok(&p->ctx); m++) {
            if (!make_picture(p, m, p->scene, i, p->rgb) ||
                !segmenter_run(&p->ctx, p->segmenter, p->rgb, SIDE, SIDE, p->found, NULL))
                break;
            if (i < SHOWN) memcpy(shown_picture(p, asked, i, m + 1), p->rgb, WORLD_PIXELS * 3);
            judge_one(p, asked, p->scene, p->rgb, p->found, &p->tally[asked][m]);
        }
        if (first == 0) show_progress(p, QUESTION[asked].name, i + step, p->o.trials);
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

/* Two things swap their maps. The real world answers the same question: each thing is drawn in the outline of the other. */
static void swap_rows(paper *p, question asked, uint64_t first, uint64_t step)
{
    world_scene *s = p->scene;
    world_rules rules = *world_set(QUESTION[asked].set);
    int a, b;
    for (uint64_t i = 0, scene = 0;
         i < p->o.trials && flis_ok(&p->ctx) && draw_scene(p, QUESTION[asked].set, p->o.seed + scene); scene++) {
        if (!pick_two(s, &a, &b) || i++ % step != first) continue;
        const uint64_t trial = i - 1;
        const world_phrase *x = &s->phrase[a], *y = &s->phrase[b];
        rules.exchange[0] = x->id;
        rules.exchange[1] = y->id;
        world_draw(p->o.seed + scene, &rules, s);
        if (trial < SHOWN) {
            map_picture(s->label, shown_picture(p, asked, trial, 0));
            snprintf(p->caption[asked][trial], sizeof p->caption[0][0], "%.400s; %s and %s swapped", s->caption,
                     x->text, y->text);
        }
        for (int m = 0; m < METHODS && make_picture(p, m, s, trial, p->rgb); m++) {
            const region of_x = {p->rgb, s->label, SIDE, SIDE, x->id, s->night},
                         of_y = {p->rgb, s->label, SIDE, SIDE, y->id, s->night};
            tally *t = &p->tally[asked][m];
            const uint64_t wrong = t->each - t->each_right;
            if (trial < SHOWN) memcpy(shown_picture(p, asked, trial, m + 1), p->rgb, WORLD_PIXELS * 3);
            count_one(t, looks_more_like(p->judges, &of_x, x->class, y->class));
            count_one(t, looks_more_like(p->judges, &of_y, y->class, x->class));
            t->all++;
            t->right += t->each - t->each_right == wrong;
        }
        if (first == 0) show_progress(p, QUESTION[asked].name, trial + step, p->o.trials);
    }
}

bool run_question(paper *p, question asked)
{
    return run_workers(p, asked == SWAPPED ? swap_rows : question_rows, asked);
}
