/* test_world.c - the small world (tools/world): the same bytes on every machine, and every set as its rules require. */
#include "tests/unit/test.h"
#include "tools/world/internal.h"

static const char *const SETS[] = {"text2image", "layout",       "test",         "ood-object", "ood-attribute",
                                   "ood-style",  "region-style", "phrases",      "anything",   "shapes",
                                   "rare",       "hard",         "layout-shapes"};
enum { SET_COUNT = sizeof SETS / sizeof *SETS };

/* Hash of everything in a scene. */
static uint64_t scene_hash(const world_scene *s)
{
    uint64_t h = test_hash(s->rgb, sizeof s->rgb) ^ test_hash(s->label, sizeof s->label) * 3;
    return h ^ test_hash(s->caption, strlen(s->caption)) * 5 ^ (uint64_t)s->phrases;
}

static uint64_t scenes_hash(world_scene *s, const char *set, uint64_t first, int count)
{
    uint64_t h = 0;
    for (int i = 0; i < count; i++) {
        CHECK(world_draw(first + (uint64_t)i, world_set(set), s), "%s, seed %d: no scene", set, i);
        h = h * 31 + scene_hash(s);
    }
    return h;
}

/* The hashes come from this program, built by gcc 12 at -O3 on x86-64. gcc and clang at -O0 to -O3, with and without
   FMA, with 32 and 64 bits, gave the same. If the hashes change, training data and held-out layouts change too. */
void test_world_pinned(void)
{
    static const struct {
        const char *set;
        uint64_t seed, hash;
    } row[] = {
        {"text2image", 0, UINT64_C(0xddcd1ed0a572f38d)},
        {"layout", 1000, UINT64_C(0x4727ef9094b5951a)},
        {"test", 0, UINT64_C(0x0adf1fcb693643ff)},
        {"ood-object", 5, UINT64_C(0xa5f0a15ec09d78d5)},
        {"ood-attribute", UINT64_C(18446744073709551000), UINT64_C(0x29387e7fbc5bc701)},
        {"ood-style", 77, UINT64_C(0xc3286aa0623077a7)},
        {"region-style", 123456789, UINT64_C(0xc95bdbc736451139)},
        {"anything", 31, UINT64_C(0x6ab31a3bfcc5ee02)},
        {"shapes", 400, UINT64_C(0x1258be887828390f)},
        {"rare", 9000, UINT64_C(0xa3b42d92e39c873d)},
        {"hard", 271828, UINT64_C(0xeef0a730f4ef9244)},
        {"layout-shapes", 2048, UINT64_C(0x6da8ef1a095b877f)},
    };
    world_scene *s = malloc(sizeof *s);
    for (size_t i = 0; s && i < sizeof row / sizeof *row; i++) {
        uint64_t h = scenes_hash(s, row[i].set, row[i].seed, 8);
        CHECK(h == row[i].hash, "%s from seed %llu: got 0x%016llx", row[i].set, (unsigned long long)row[i].seed,
              (unsigned long long)h);
    }
    free(s);
}

/* A scene depends on seed and rules only, not on the buffers' earlier contents. */
void test_world_repeats(void)
{
    world_scene *a = malloc(sizeof *a), *b = malloc(sizeof *b);
    for (uint64_t seed = 0; a && b && seed < 20; seed++) {
        memset(a, 0xFF, sizeof *a);
        memset(b, 0, sizeof *b);
        world_draw(seed, world_set("text2image"), a);
        world_draw(seed + 1, world_set("ood-style"), b);
        world_draw(seed, world_set("text2image"), b);
        CHECK(scene_hash(a) == scene_hash(b), "seed %llu: a different scene the second time", (unsigned long long)seed);
    }
    free(a);
    free(b);
}

static const world_phrase *with_id(const world_scene *s, int id)
{
    for (int i = 0; i < s->phrases; i++)
        if (s->phrase[i].id == id && s->phrase[i].class) return &s->phrase[i];
    return NULL;
}

/* Every pixel's label has one phrase, every phrase has pixels, and the phrase's words are its class and attributes. */
void test_world_labels(void)
{
    world_scene *s = malloc(sizeof *s);
    int seconds = 0;
    for (int k = 0; s && k < SET_COUNT; k++)
        for (uint64_t seed = 0; seed < 40; seed++) {
            long pixels[256] = {0};
            world_draw(seed, world_set(SETS[k]), s);
            for (int i = 0; i < WORLD_PIXELS; i++) pixels[s->label[i]]++;
            for (int l = 0; l < 256; l++)
                CHECK(!pixels[l] || with_id(s, l), "%s %llu: label %d has no phrase", SETS[k], (unsigned long long)seed,
                      l);
            for (int i = 0; i < s->phrases; i++) {
                const world_phrase *f = &s->phrase[i];
                char text[80];
                if (f->style) {
                    CHECK(strcmp(f->text, world_style_name(f->style)) == 0 && i == s->phrases - 1, "style \"%s\"",
                          f->text);
                    continue;
                }
                snprintf(text, sizeof text, "%s%s%s%s%s", f->colour ? world_colour_name(f->colour) : "",
                         f->colour ? " " : "", world_pattern_name(f->pattern), f->pattern ? " " : "",
                         world_class_name(f->class));
                CHECK(strcmp(text, f->text) == 0, "\"%s\" should be \"%s\"", f->text, text);
                CHECK(f->id > 0 && pixels[f->id] >= 90 && world_class_of(f->id) == f->class,
                      "\"%s\" has id %d, %ld pixels", f->text, f->id, f->id > 0 ? pixels[f->id] : 0);
                CHECK(with_id(s, f->id) == f, "\"%s\" shares its id with another phrase", f->text);
                seconds += f->id > WORLD_SECOND;
            }
        }
    CHECK(seconds > 5, "only %d second phrases of a class", seconds);
    free(s);
}

typedef struct census {
    int classes[WORLD_CLASSES + 1], attributes, styles, pictures, regions, plain;
} census;

static void count_scene(census *c, const world_scene *s)
{
    char joined[640] = "";
    for (int i = 0; i < s->phrases; i++) {
        const world_phrase *f = &s->phrase[i];
        c->classes[f->class]++;
        c->attributes += f->colour || f->pattern;
        c->styles += f->style != 0;
        c->pictures += f->style && f->id == -1;
        c->regions += f->style && with_id(s, f->id) && world_is_stuff(with_id(s, f->id)->class);
        strcat(strcat(joined, i ? " " : ""), f->text);
    }
    c->plain += strcmp(joined, s->caption) == 0;
}

/* What the scenes of each set may and must contain. Fine-tuning uses only plain names of classes 1 to 20. */
void test_world_sets(void)
{
    enum { SCENES = 150 };
    world_scene *s = malloc(sizeof *s);
    for (int k = 0; s && k < SET_COUNT; k++) {
        census c = {{0}, 0, 0, 0, 0, 0};
        bool everything = k == 0 || (k >= 7 && k <= 11), object = k == 3, attribute = k == 4, style = k == 5,
             part = k == 6;
        uint64_t wanted = k == 10 ? RARE_CLASSES : k == 11 ? HARD_CLASSES : 0;
        int new_scenes = 0, attribute_scenes = 0, wanted_scenes = 0, new_things = 0;
        for (uint64_t seed = 0; seed < SCENES; seed++) {
            bool new_here = false, attribute_here = false, wanted_here = false;
            world_draw(seed, world_set(SETS[k]), s);
            count_scene(&c, s);
            for (int i = 0; i < s->phrases; i++) {
                new_here = new_here || s->phrase[i].class > NIGHT_SKY;
                attribute_here = attribute_here || s->phrase[i].colour || s->phrase[i].pattern;
                wanted_here = wanted_here || (wanted >> s->phrase[i].class & 1);
            }
            new_scenes += new_here, attribute_scenes += attribute_here, wanted_scenes += wanted_here;
        }
        for (int i = NIGHT_SKY + 1; i <= WORLD_CLASSES; i++) new_things += c.classes[i];
        for (int i = 1; i <= NIGHT_SKY; i++)
            CHECK(c.classes[i] > 0, "%s: no %s in %d scenes", SETS[k], world_class_name(i), SCENES);
        CHECK(everything || object ? new_things > 0 : new_things == 0, "%s: %d phrases of new classes", SETS[k],
              new_things);
        CHECK(!object || new_scenes == SCENES, "%s: %d scenes with a new class, wanted all", SETS[k], new_scenes);
        CHECK(!wanted || wanted_scenes == SCENES, "%s: %d scenes with a wanted class, wanted all", SETS[k],
              wanted_scenes);
        CHECK(everything || attribute ? c.attributes > 0 : c.attributes == 0, "%s: %d attributes", SETS[k],
              c.attributes);
        CHECK(!attribute || attribute_scenes == SCENES, "%s: %d scenes with an attribute, wanted all", SETS[k],
              attribute_scenes);
        CHECK(everything ? c.styles > 0 && c.styles < SCENES : c.styles == (style || part ? SCENES : 0),
              "%s: %d styles", SETS[k], c.styles);
        CHECK(c.pictures == (part ? 0 : c.styles) && c.regions == (part ? SCENES : 0),
              "%s: %d styles of pictures, %d of regions", SETS[k], c.pictures, c.regions);
        CHECK(k == 0 ? c.plain < SCENES / 2 : c.plain == SCENES, "%s: %d captions are the phrases alone", SETS[k],
              c.plain);
    }
    for (int i = 1; i <= WORLD_CLASSES; i++)
        CHECK(CLASS[i].layout == (i <= NIGHT_SKY), "%s: in the wrong set", world_class_name(i));
    free(s);
}

/* A bit of the composition's hash determines if a scene is held out, so no label map can be in both sets. */
void test_world_held_out(void)
{
    enum { SCENES = 120 };
    static uint64_t map[2 * SCENES];
    world_scene *s = malloc(sizeof *s);
    plan p;
    for (int k = 0; k < SET_COUNT; k++) {
        const world_rules *r = world_set(SETS[k]);
        dice d = {(uint64_t)k};
        int plans = 0;
        CHECK(r->held_out == (k > 1 && k < 7), "%s: held out is %d", SETS[k], r->held_out);
        for (int i = 0; i < 3000; i++) {
            if (!plan_scene(&p, &d, r)) continue;
            plans++;
            CHECK((composition(&p) & 1) == (uint64_t)r->held_out, "%s: a composition of the other half", SETS[k]);
        }
        CHECK(plans > 50, "%s: %d plans of 3000", SETS[k], plans);
    }
    for (int i = 0; s && i < 2 * SCENES; i++) {
        world_draw((uint64_t)(i % SCENES), world_set(i < SCENES ? "layout" : "test"), s);
        map[i] = test_hash(s->label, sizeof s->label);
    }
    for (int i = 0; s && i < SCENES; i++)
        for (int j = SCENES; j < 2 * SCENES; j++)
            CHECK(map[i] != map[j], "layout %d and test %d have the same map", i, j - SCENES);
    free(s);
}

/* A caption contains every phrase. */
void test_world_captions(void)
{
    world_scene *s = malloc(sizeof *s);
    for (int k = 0; s && k < SET_COUNT; k++)
        for (uint64_t seed = 0; seed < 60; seed++) {
            world_draw(seed, world_set(SETS[k]), s);
            CHECK(strlen(s->caption) + 1 < sizeof s->caption && !strstr(s->caption, "  ") &&
                      !strstr(s->caption, ", ,") && !strstr(s->caption, " ,"),
                  "\"%s\"", s->caption);
            for (int i = 0; i < s->phrases; i++)
                CHECK(strstr(s->caption, s->phrase[i].text), "\"%s\" without \"%s\"", s->caption, s->phrase[i].text);
        }
    free(s);
}

/* Layouts and captions fit the text encoder, with the small model's vocabulary. */
void test_world_prompts(void)
{
    flis_ctx ctx;
    flis_init(&ctx);
    flis_vocab *vocab = flis_vocab_read(&ctx, test_path("../models/vocab.txt"));
    world_scene *s = malloc(sizeof *s);
    CHECK(vocab, "%s", ctx.error);
    for (int k = 0; s && vocab && k < SET_COUNT; k++)
        for (uint64_t seed = 0; seed < 60; seed++) {
            flis_phrase phrase[WORLD_PHRASES];
            flis_prompt prompt;
            int32_t *ids = NULL;
            world_draw(seed, world_set(SETS[k]), s);
            for (int i = 0; i < s->phrases; i++) phrase[i] = (flis_phrase){s->phrase[i].text, s->phrase[i].id};
            bool good = flis_prompt_make(&ctx, vocab, phrase, (size_t)s->phrases, &prompt);
            CHECK(good, "%s", ctx.error);
            if (good) flis_prompt_free(&prompt);
            long n = flis_tokenize(&ctx, vocab, s->caption, strlen(s->caption), &ids);
            CHECK(n > 0 && n <= FLIS_PHRASE_TOKENS, "\"%s\" has %ld tokens", s->caption, n);
            free(ids);
        }
    free(s);
    flis_vocab_free(vocab);
    flis_free(&ctx);
}

/* A style of one region changes no other pixel; a style of the picture changes nearly all pixels. */
void test_world_styles(void)
{
    world_scene *with = malloc(sizeof *with), *without = malloc(sizeof *without);
    bool seen[WORLD_STYLES + 1] = {false};
    for (uint64_t seed = 0; with && without && seed < 60; seed++) {
        plan p;
        dice d = {seed};
        while (!plan_scene(&p, &d, world_set("region-style"))) {}
        dice e = d;
        int only = seed % 2 ? p.style_label : 0;
        long changed = 0, outside = 0, within_region = 0;
        seen[p.style] = true;
        p.style_label = only;
        draw_plan(with, &p, &d);
        p.style = 0;
        draw_plan(without, &p, &e);
        for (int i = 0; i < WORLD_PIXELS; i++) {
            bool same = memcmp(with->rgb + 3 * i, without->rgb + 3 * i, 3) == 0, here = !only || with->label[i] == only;
            within_region += here;
            changed += here && !same;
            outside += !here && !same;
        }
        CHECK(memcmp(with->label, without->label, sizeof with->label) == 0, "a style moved a region");
        CHECK(outside == 0, "seed %d: %ld pixels changed outside the region", (int)seed, outside);
        CHECK(10 * changed >= 7 * within_region, "seed %d: %ld of %ld pixels changed", (int)seed, changed,
              within_region);
    }
    for (int i = 1; i <= WORLD_STYLES; i++) CHECK(seen[i], "%s: not seen", world_style_name(i));
    free(with);
    free(without);
}

/* In "anything" about two things in five may be at positions where their class otherwise never is, and the ground does
   not hide a sun on it. Measured: 551 of 1390 things, 89 things of the sky on the ground, 1327 pixels of suns. */
void test_world_misplaced(void)
{
    const world_rules *r = world_set("anything"), *usual = world_set("phrases");
    int misplaced = 0, things = 0, elsewhere = 0;
    for (uint64_t seed = 0; seed < 400; seed++) {
        plan p;
        dice d = {seed};
        while (!plan_scene(&p, &d, r)) {}
        for (int i = 0; i < p.things; i++) {
            const thing *t = &p.thing[i];
            things++;
            misplaced += t->misplaced;
            elsewhere += t->misplaced && CLASS[t->class].zones == IN_SKY && t->y > p.horizon + 8;
        }
        d = (dice){seed};
        while (!plan_scene(&p, &d, usual)) {}
        for (int i = 0; i < p.things; i++)
            CHECK(!p.thing[i].misplaced, "seed %d: a misplaced thing in a set without misplaced things", (int)seed);
    }
    CHECK(100 * misplaced > 38 * things && 100 * misplaced < 42 * things, "%d of %d things are misplaced", misplaced,
          things);
    CHECK(elsewhere > things / 20, "%d of %d things belong in the sky and are on the ground", elsewhere, things);
    world_scene *s = malloc(sizeof *s);
    int low = 0;
    for (uint64_t seed = 0; s && seed < 300; seed++) {
        world_draw(seed, r, s);
        for (int i = 100 * WORLD_SIDE; i < WORLD_PIXELS; i++) low += world_class_of(s->label[i]) == SUN;
    }
    CHECK(low > 1000, "%d pixels of suns in the lowest rows", low);
    free(s);
}

/* Classes in `often` replace others; the number of things in a scene stays the same. Measured: 703 of 1345 things with
   `often`, 369 of 1348 without: 2.91 times the odds. */
void test_world_often(void)
{
    int things[2] = {0}, often[2] = {0};
    for (int k = 0; k < 2; k++) {
        world_rules r = *world_set("hard");
        r.wanted = 0;
        if (k) r.often = 0;
        for (uint64_t seed = 0; seed < 400; seed++) {
            plan p;
            dice d = {seed};
            while (!plan_scene(&p, &d, &r)) {}
            for (int i = 0; i < p.things; i++) {
                things[k]++;
                often[k] += HARD_CLASSES >> p.thing[i].class & 1;
            }
        }
    }
    CHECK(abs(things[0] - things[1]) < things[0] / 100, "%d things, and %d without `often`", things[0], things[1]);
    const double odds = (double)often[0] / (things[0] - often[0]) / ((double)often[1] / (things[1] - often[1]));
    CHECK(odds > 2.7 && odds < 3.2, "%d of %d things, and %d of %d without: %.2f times the odds, wanted about %d",
          often[0], things[0], often[1], things[1], odds, OFTEN);
}

/* In "shapes" two things in five fill the outline of another, without gaps and without pixels outside. Measured: 569 of
   1365 things. Of the pixels of a red thing in another outline (a ball's highlight is white) at least 63 percent are
   red. */
void test_world_outlined(void)
{
    const world_rules *r = world_set("shapes");
    int outlined = 0, things = 0;
    for (uint64_t seed = 0; seed < 400; seed++) {
        plan p;
        dice d = {seed};
        while (!plan_scene(&p, &d, r)) {}
        for (int i = 0; i < p.things; i++, things++) outlined += p.thing[i].outline.class > 0;
    }
    CHECK(100 * outlined > 36 * things && 100 * outlined < 44 * things, "%d of %d things have another's outline",
          outlined, things);
    world_scene *a = calloc(1, sizeof *a), *b = calloc(1, sizeof *b);
    for (int class = 1; a && b && class <= WORLD_CLASSES; class ++) {
        if (world_is_stuff(class)) continue;
        const thing own = {.class = (uint8_t) class, .label = 1, .x = 60, .y = 90, .size = 50, .seed = 3};
        thing other = own;
        other.class = class == BALL ? TENT : BALL;
        other.colour = RED;
        other.seed = 4;
        other.outline = (look){own.class, 0, 0, own.seed};
        world_scene *const of[2] = {a, b};
        for (int k = 0; k < 2; k++) {
            memset(of[k]->label, 0, sizeof of[k]->label);
            for (int i = 0; i < WORLD_PIXELS; i++) of[k]->pixel[i] = (tint){0, 0, 1};
        }
        draw_thing(a, &own, GRASS);
        draw_outlined(b, &other, GRASS);
        CHECK(memcmp(a->label, b->label, sizeof a->label) == 0, "%s: a different map", world_class_name(class));
        long red = 0, gaps = 0, inside = 0, changed = 0;
        for (int i = 0; i < WORLD_PIXELS; i++) {
            const tint c = b->pixel[i];
            inside += b->label[i] == 1;
            red += b->label[i] == 1 && c.r > c.b && c.r > 1.5f * c.g;
            gaps += b->label[i] == 1 && c.r == 0 && c.b == 1;
            changed += b->label[i] != 1 && (c.r > 0 || c.b < 1);
        }
        CHECK(inside > 100 && 10 * red > 6 * inside, "%s: %ld of %ld pixels are red", world_class_name(class), red,
              inside);
        CHECK(gaps == 0 && changed == 0, "%s: %ld pixels of gaps, %ld outside", world_class_name(class), gaps, changed);
    }
    free(a);
    free(b);
}

/* Exchanged things keep label and phrase, and each has exactly the other's region of the map; the pixels there
   change. */
void test_world_exchanged(void)
{
    world_scene *before = malloc(sizeof *before), *after = malloc(sizeof *after);
    world_rules r = *world_set("test");
    int pairs = 0;
    for (uint64_t seed = 0; before && after && seed < 60; seed++) {
        int id[2] = {0, 0}, n = 0;
        world_draw(seed, world_set("test"), before);
        for (int i = 0; i < before->phrases && n < 2; i++)
            if (before->phrase[i].class && !world_is_stuff(before->phrase[i].class)) id[n++] = before->phrase[i].id;
        if (n < 2) continue;
        memcpy(r.exchange, id, sizeof id);
        CHECK(world_draw(seed, &r, after), "seed %d: no scene", (int)seed);
        CHECK(strcmp(before->caption, after->caption) == 0 && before->phrases == after->phrases,
              "seed %d: different words", (int)seed);
        long wrong = 0, painted = 0, inside = 0;
        for (int i = 0; i < WORLD_PIXELS; i++) {
            const int was = before->label[i], is = was == id[0] ? id[1] : was == id[1] ? id[0] : was;
            wrong += after->label[i] != is;
            inside += is != was;
            painted += is != was && memcmp(before->rgb + 3 * i, after->rgb + 3 * i, 3) != 0;
        }
        CHECK(wrong == 0, "seed %d: the map differs in %ld pixels from one with the labels exchanged", (int)seed,
              wrong);
        CHECK(10 * painted > 9 * inside, "seed %d: %ld of %ld pixels changed", (int)seed, painted, inside);
        pairs++;
    }
    CHECK(pairs > 20, "%d pairs", pairs);
    free(before);
    free(after);
}

void test_world_refuses(void)
{
    world_scene *s = malloc(sizeof *s);
    world_rules r = *world_set("layout");
    CHECK(!world_set("") && !world_set("Layout") && !world_set("ood"), "a set that does not exist");
    r.classes = 0;
    CHECK(s && !world_draw(1, &r, s), "a scene of no class");
    r = *world_set("layout");
    r.wanted = UINT64_C(1) << FISH;
    CHECK(s && !world_draw(1, &r, s), "a fish among the classes of the layout set");
    free(s);
}
