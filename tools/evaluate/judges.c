/* judges.c - Gaussian classifiers of styles, patterns and things, learned from scenes of the world. */
#include "tools/evaluate/internal.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* One Gaussian per kind. While learning, `factor` holds sums of products; afterwards the Cholesky factors of the covariances.
   Each covariance is moved a fifth of the way to the mean of all, so that few samples suffice. */
enum { MOST_KINDS = 2 * (WORLD_STYLES + 1), MOST_FEATURES = 16 };
typedef struct judge {
    int classes, kinds, features; /* kind k is of class k modulo classes */
    double count[MOST_KINDS], mean[MOST_KINDS][MOST_FEATURES], log_det[MOST_KINDS];
    double factor[MOST_KINDS][MOST_FEATURES][MOST_FEATURES];
} judge;
struct judges {
    judge picture, part, rest;      /* styles; rest: the picture without one region */
    judge thing[WORLD_CLASSES + 1]; /* patterns */
    judge look[WORLD_CLASSES + 1];  /* a thing by day (class 0) and at night (class 1) */
};

static void judge_add(judge *j, int kind, const double *x)
{
    j->count[kind]++;
    for (int a = 0; a < j->features; a++) {
        j->mean[kind][a] += x[a];
        for (int b = 0; b <= a; b++) j->factor[kind][a][b] += x[a] * x[b];
    }
}

/* In place; false: not positive definite. log_det: of the matrix, the sum of the logarithms of the factor's squared diagonal. */
static bool cholesky(double (*m)[MOST_FEATURES], int n, double *log_det)
{
    *log_det = 0;
    for (int i = 0; i < n; i++)
        for (int k = 0; k <= i; k++) {
            double s = m[i][k];
            for (int l = 0; l < k; l++) s -= m[i][l] * m[k][l];
            if (i == k && !(s > 0)) return false;
            m[i][k] = i == k ? sqrt(s) : s / m[k][k];
            if (i == k) *log_det += flis_log(s);
        }
    return true;
}

/* Ends the learning; false: too few samples, or a covariance that is not positive definite. */
static bool judge_finish(judge *j)
{
    double common[MOST_FEATURES][MOST_FEATURES] = {{0}}, all = 0;
    for (int k = 0; k < j->kinds; k++) {
        if (j->count[k] < 2) return false;
        all += j->count[k];
        for (int a = 0; a < j->features; a++) j->mean[k][a] /= j->count[k];
        for (int a = 0; a < j->features; a++)
            for (int b = 0; b <= a; b++) {
                double s = j->factor[k][a][b] - j->count[k] * j->mean[k][a] * j->mean[k][b];
                common[a][b] += s;
                j->factor[k][a][b] = s / (j->count[k] - 1);
            }
    }
    bool good = true;
    for (int k = 0; k < j->kinds && good; k++) {
        for (int a = 0; a < j->features; a++)
            for (int b = 0; b <= a; b++)
                j->factor[k][a][b] =
                    0.8 * j->factor[k][a][b] + 0.2 * common[a][b] / (all - j->kinds) + (a == b ? 1e-6 : 0);
        good = cholesky(j->factor[k], j->features, &j->log_det[k]);
    }
    return good;
}

/* -2 log of the density at x, up to a constant, of the most likely kind of the class. */
static double judge_distance(const judge *j, int class, const double *x)
{
    double best = HUGE_VAL;
    for (int k = class; k < j->kinds; k += j->classes) {
        double u[MOST_FEATURES], d = j->log_det[k];
        for (int a = 0; a < j->features; a++) {
            u[a] = x[a] - j->mean[k][a];
            for (int b = 0; b < a; b++) u[a] -= j->factor[k][a][b] * u[b];
            u[a] /= j->factor[k][a][a];
            d += u[a] * u[a];
        }
        best = d < best ? d : best;
    }
    return best;
}

/* The class that x most likely belongs to. */
static int judge_decide(const judge *j, const double *x)
{
    int class = 0;
    for (int k = 1; k < j->classes; k++)
        if (judge_distance(j, k, x) < judge_distance(j, class, x)) class = k;
    return class;
}

int measure_style(const judges *j, const region *r)
{
    double x[STYLE_FEATURES];
    return style_features(r, x) ? judge_decide(r->id < 0 ? &j->picture : &j->part, x) : 0;
}

/* Everything but a region, as id 2 of the label map that `map` receives (of the region's size). */
static region rest_of(const region *r, uint8_t *map)
{
    region rest = *r;
    for (size_t i = 0; i < r->width * r->height; i++) map[i] = inside(r, i) ? 1 : 2;
    rest.label = map;
    rest.id = 2;
    return rest;
}

/* True if that style is more likely than none: an easier question than measure_style's. */
static bool has_style(const judge *one, const region *r, int style)
{
    double x[STYLE_FEATURES];
    return style_features(r, x) && judge_distance(one, style, x) < judge_distance(one, 0, x);
}

bool style_only_in(const judges *j, const region *r, int style)
{
    uint8_t map[WORLD_PIXELS];
    const region rest = rest_of(r, map);
    return has_style(&j->part, r, style) && !has_style(&j->rest, &rest, style);
}

int measure_pattern(flis_ctx *ctx, const judges *j, const region *r, int class)
{
    double x[PATTERN_FEATURES];
    return j->thing[class].kinds && pattern_features(ctx, r, x) ? judge_decide(&j->thing[class], x) : 0;
}

bool looks_more_like(const judges *j, const region *r, int class, int other)
{
    double x[LOOK_FEATURES];
    return look_features(r, x) &&
           judge_distance(&j->look[class], r->night, x) < judge_distance(&j->look[other], r->night, x);
}

region region_of(const world_scene *s, int id)
{
    return (region){s->rgb, s->label, WORLD_SIDE, WORLD_SIDE, id, s->night};
}

/* A style of the whole picture, or of one region and not of the rest. */
static void learn_style(judges *j, const world_scene *s, bool in_region, int id, int kind)
{
    double x[MOST_FEATURES] = {0};
    uint8_t map[WORLD_PIXELS];
    const region part = region_of(s, id), rest = rest_of(&part, map), whole = region_of(s, -1);
    const int style = kind % j->part.classes;
    if (!in_region && style_features(&whole, x)) judge_add(&j->picture, kind, x);
    if (in_region && style_features(&part, x)) judge_add(&j->part, kind, x);
    if (style_features(&rest, x)) judge_add(&j->rest, in_region ? kind - style : kind, x);
}

/* The next three functions learn from scenes of the training half with all classes, and from every second scene as repainted
   too. Styles: first of pictures, then of regions. */
static bool learn_styles(flis_ctx *ctx, judges *j, world_scene *s, repaint *painter, void *user)
{
    world_rules rules = *world_set("text2image");
    rules.styles = 90;
    for (uint64_t seed = 0; seed < 2 * STYLED; seed++) {
        rules.style_in_region = seed >= STYLED;
        rules.attributes = rules.style_in_region ? 20 : 40;
        if (!world_draw(seed, &rules, s)) continue;
        const world_phrase *last = &s->phrase[s->phrases - 1];
        const int id = rules.style_in_region && last->style ? last->id : s->label[seed % WORLD_PIXELS];
        learn_style(j, s, rules.style_in_region, id, last->style);
        if (!painter || seed % 2) continue;
        if (!painter(ctx, user, s->rgb)) return false;
        learn_style(j, s, rules.style_in_region, id, j->part.classes + last->style);
    }
    return true;
}

static bool learn_patterns(flis_ctx *ctx, judges *j, world_scene *s, repaint *painter, void *user)
{
    world_rules rules = *world_set("text2image");
    double x[MOST_FEATURES] = {0};
    rules.styles = 0;
    rules.attributes = 90;
    for (uint64_t seed = 0; seed < PATTERNED && flis_ok(ctx); seed++) {
        if (!world_draw(seed, &rules, s)) continue;
        for (int painted = 0; painted < (painter && seed % 2 == 0 ? 2 : 1); painted++) {
            if (painted && !painter(ctx, user, s->rgb)) return false;
            for (int i = 0; i < s->phrases; i++) {
                judge *one = &j->thing[s->phrase[i].class];
                region r = region_of(s, s->phrase[i].id);
                if (one->kinds && pattern_features(ctx, &r, x))
                    judge_add(one, painted * one->classes + s->phrase[i].pattern, x);
            }
        }
    }
    return flis_ok(ctx);
}

/* Things without colour or pattern, half of them in the outline of another. */
static bool learn_looks(flis_ctx *ctx, judges *j, world_scene *s, repaint *painter, void *user)
{
    world_rules rules = *world_set("shapes");
    double x[MOST_FEATURES] = {0};
    rules.styles = rules.attributes = rules.dyed = 0;
    rules.outlined = 50;
    for (uint64_t seed = 0; seed < LOOKED_AT; seed++) {
        if (!world_draw(seed, &rules, s)) continue;
        for (int painted = 0; painted < (painter && seed % 2 == 0 ? 2 : 1); painted++) {
            if (painted && !painter(ctx, user, s->rgb)) return false;
            for (int i = 0; i < s->phrases; i++) {
                judge *one = &j->look[s->phrase[i].class];
                const region r = region_of(s, s->phrase[i].id);
                if (one->kinds && look_features(&r, x)) judge_add(one, painted * one->classes + s->night, x);
            }
        }
    }
    return true;
}

judges *judges_learn(flis_ctx *ctx, repaint *painter, void *user)
{
    judges *j = flis_alloc(ctx, 1, sizeof *j);
    world_scene *s = flis_alloc(ctx, 1, sizeof *s);
    const int times = painter ? 2 : 1;
    if (j && s) {
        const judge style = {
            .classes = WORLD_STYLES + 1, .kinds = times * (WORLD_STYLES + 1), .features = STYLE_FEATURES};
        j->picture = j->part = j->rest = style;
        for (int c = 1; c <= WORLD_CLASSES; c++)
            if (world_has_patterns(c))
                j->thing[c] = (judge){
                    .classes = WORLD_PATTERNS + 1, .kinds = times * (WORLD_PATTERNS + 1), .features = PATTERN_FEATURES};
        for (int c = 1; c <= WORLD_CLASSES; c++)
            if (!world_is_stuff(c)) j->look[c] = (judge){.classes = 2, .kinds = times * 2, .features = LOOK_FEATURES};
        bool good = learn_styles(ctx, j, s, painter, user) && learn_patterns(ctx, j, s, painter, user) &&
                    learn_looks(ctx, j, s, painter, user) && judge_finish(&j->picture) && judge_finish(&j->part) &&
                    judge_finish(&j->rest);
        for (int c = 1; good && c <= WORLD_CLASSES; c++)
            good =
                (!j->thing[c].kinds || judge_finish(&j->thing[c])) && (!j->look[c].kinds || judge_finish(&j->look[c]));
        if (!good && flis_ok(ctx))
            flis_fail(ctx, "the world's scenes do not suffice to distinguish styles, patterns and things");
    }
    free(s);
    if (flis_ok(ctx)) return j;
    free(j);
    return NULL;
}
