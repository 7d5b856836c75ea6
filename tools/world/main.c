/* main.c - the program world: writes scenes with label maps, layouts and captions. */
#include "tools/world/coco.h"

#include <stdlib.h>
#include <string.h>

typedef struct options {
    const char *out, *sheet, *coco;
    uint64_t seed, count, captions;
    uint64_t validation, training; /* NOT_GIVEN: the default */
    int set;                       /* -1: not given */
    bool classes, quiet;
} options;

static const uint64_t NOT_GIVEN = UINT64_MAX;
enum { VALIDATION = 200, TRAINING = 1000 }; /* defaults */

static const char *const SET_NAMES[] = {"text2image",    "phrases",   "anything",      "shapes", "rare",
                                        "hard",          "layout",    "layout-shapes", "test",   "ood-object",
                                        "ood-attribute", "ood-style", "region-style",  NULL};

static const option OPTIONS[] = {
    {.name = "set",
     .kind = OPTION_WORD,
     .offset = offsetof(options, set),
     .value = "NAME",
     .words = SET_NAMES,
     .help = "which scenes, see below; default text2image"},
    {.name = "seed",
     .kind = OPTION_WHOLE,
     .offset = offsetof(options, seed),
     .value = "S",
     .help = "seed of the first scene; scene i has seed S + i; default "},
    {.name = "count",
     .kind = OPTION_WHOLE,
     .offset = offsetof(options, count),
     .value = "N",
     .min = 1,
     .help = "number of scenes, for a sheet at most 4096; default 1, for a sheet 16"},
    {.name = "output",
     .letter = 'o',
     .kind = OPTION_TEXT,
     .offset = offsetof(options, out),
     .value = "DIR",
     .help =
         "write DIR/pictures/000000.png, DIR/labels/000000.png (class numbers, + 100 for a second phrase of a class), "
         "DIR/layouts/000000.json (for flis) and DIR/captions.txt (one per line)"},
    {.name = "sheet",
     .kind = OPTION_TEXT,
     .offset = offsetof(options, sheet),
     .value = "FILE.png",
     .help = "write one picture with every scene beside its label map, four scenes per row"},
    {.name = "coco",
     .kind = OPTION_TEXT,
     .offset = offsetof(options, coco),
     .value = "DIR",
     .help = "write a small COCO-Stuff, for flis lis and train: DIR/val2017/NAME.jpg and DIR/train2017/NAME.jpg, "
             "DIR/stuffthingmaps_trainval2017/val2017/NAME.png and …/train2017/NAME.png (class numbers), DIR/val.txt, "
             "DIR/train.txt (one picture per line), DIR/classes.tsv (number, tab, name); NAME is the scene's seed"},
    {.name = "validation",
     .kind = OPTION_WHOLE,
     .offset = offsetof(options, validation),
     .value = "N",
     .max = WORLD_TRAINING_MOST,
     .help = "with --coco: N scenes of the set test, with seeds from S + 1000000 on; default 200"},
    {.name = "training",
     .kind = OPTION_WHOLE,
     .offset = offsetof(options, training),
     .value = "N",
     .max = WORLD_TRAINING_MOST,
     .help = "with --coco: N scenes of the set layout, with seeds from S on; default 1000"},
    {.name = "captions",
     .kind = OPTION_WHOLE,
     .offset = offsetof(options, captions),
     .value = "N",
     .min = 1,
     .help = "print N captions, for learnbpe"},
    {.name = "classes",
     .kind = OPTION_FLAG,
     .offset = offsetof(options, classes),
     .help = "print every class: number, name, stuff or thing, layout or new (not in the layout set)"},
    {.name = "quiet", .letter = 'q', .kind = OPTION_FLAG, .offset = offsetof(options, quiet), .help = "no progress"},
};

static const options DEFAULTS = {.validation = UINT64_MAX, .training = UINT64_MAX, .set = -1};

static const program WORLD = {
    .name = "world",
    .arguments = "-o DIR [options]\n"
                 "--sheet FILE.png [options]\n"
                 "--coco DIR [options]\n"
                 "--captions N [options]\n"
                 "--classes",
    .summary = "Draws 128 x 128 scenes of a small world, with label maps, layouts and captions.",
    .options = OPTIONS,
    .count = sizeof OPTIONS / sizeof *OPTIONS,
    .defaults = &DEFAULTS,
    .details =
        "Sets for training:\n"
        "  text2image      every class, colour, pattern and style\n"
        "  phrases         the same, with captions that are phrases alone\n"
        "  anything        phrases, with more colours, and things in places where their class never is\n"
        "  shapes          anything, with things in each other's outlines\n"
        "  rare            shapes, with at least one of the classes that few scenes have\n"
        "  hard            rare, with the classes that are learned worst three times as often\n"
        "  layout          plain names of classes 1 to 20\n"
        "  layout-shapes   layout, with some things in unusual places or in each other's outlines\n"
        "Sets that are held out from all training:\n"
        "  test            as layout\n"
        "  ood-object, ood-attribute, ood-style, region-style\n"
        "                  something that layout lacks: classes, colours and patterns, styles, styles of a region\n",
};

typedef struct painter {
    flis_ctx ctx;
    const options *o;
    const world_rules *rules;
    world_scene *scene;
    progress progress;
} painter;

/* Scene i of the set, into p->scene. */
static bool draw_scene(painter *p, uint64_t i)
{
    const uint64_t seed = p->o->seed + i;
    return flis_poll(&p->ctx) && (world_draw(seed, p->rules, p->scene) ||
                                  flis_fail(&p->ctx, "seed %llu: no scene satisfies the rules of set %s",
                                            (unsigned long long)seed, SET_NAMES[p->o->set]));
}

/* The path DIR/folder/number.end, in path[PATH_ROOM]. */
static bool scene_path(painter *p, const char *folder, uint64_t i, const char *end, char *path)
{
    const int length = snprintf(path, PATH_ROOM, "%s/%s/%06llu.%s", p->o->out, folder, (unsigned long long)i, end);
    return length < PATH_ROOM || flis_fail(&p->ctx, "%.100s: the folder's name is too long", p->o->out);
}

static bool write_layout(painter *p, uint64_t i)
{
    const world_scene *s = p->scene;
    char path[PATH_ROOM];
    flis_output o;
    FILE *file = scene_path(p, "layouts", i, "json", path) ? flis_output_open(&p->ctx, path, &o) : NULL;
    if (!file) return false;
    fprintf(file, "{\n  \"caption\": \"%s\",\n  \"text_label_mapping\": [\n", s->caption);
    for (int k = 0; k < s->phrases; k++)
        fprintf(file, "    [\"%s\", %d]%s\n", s->phrase[k].text, s->phrase[k].id, k + 1 < s->phrases ? "," : "");
    fprintf(file, "  ],\n  \"layout_path\": \"../labels/%06llu.png\"\n}\n", (unsigned long long)i);
    return flis_output_close(&p->ctx, &o);
}

static bool write_scene(painter *p, uint64_t i)
{
    const flis_picture picture = {WORLD_SIDE, WORLD_SIDE, 3, p->scene->rgb};
    const flis_picture map = {WORLD_SIDE, WORLD_SIDE, 1, p->scene->label};
    const char *const text[] = {"Description", p->scene->caption, NULL};
    char path[PATH_ROOM];
    return scene_path(p, "pictures", i, "png", path) && flis_write_png(&p->ctx, path, &picture, text) &&
           scene_path(p, "labels", i, "png", path) && flis_write_png(&p->ctx, path, &map, NULL) && write_layout(p, i);
}

static bool make_folders(painter *p)
{
    static const char *const folder[] = {"", "/pictures", "/labels", "/layouts"};
    for (size_t i = 0; i < sizeof folder / sizeof *folder && flis_ok(&p->ctx); i++) {
        char *path = path_with(&p->ctx, p->o->out, folder[i]);
        if (path) make_folder(&p->ctx, path);
        free(path);
    }
    return flis_ok(&p->ctx);
}

static bool write_folder(painter *p)
{
    const uint64_t count = p->o->count ? p->o->count : 1;
    flis_output captions;
    char *path = make_folders(p) ? path_with(&p->ctx, p->o->out, "/captions.txt") : NULL;
    FILE *file = path ? flis_output_open(&p->ctx, path, &captions) : NULL;
    free(path);
    if (!file) return false;
    for (uint64_t i = 0; i < count && draw_scene(p, i) && write_scene(p, i); i++) {
        fprintf(file, "%s\n", p->scene->caption);
        progress_show(&p->progress, "scenes", (size_t)i + 1, (size_t)count);
    }
    progress_end(&p->progress);
    return flis_output_close(&p->ctx, &captions);
}

/* Neighbouring numbers get hues far apart; a second phrase of a class is darker. */
static void sheet_colour(int label, uint8_t *rgb)
{
    const float turn = (float)world_class_of(label) * 0.618034f, bright = label > WORLD_SECOND ? 0.75f : 1;
    for (int i = 0; i < 3; i++) rgb[i] = (uint8_t)(255 * bright * (0.55f + 0.44f * sine(turn + (float)i / 3)));
}

static bool write_sheet(painter *p)
{
    enum { GAP = 4, PAIR = 2 * WORLD_SIDE + GAP * 2, ROW = WORLD_SIDE + GAP, COLUMNS = 4 };
    const size_t count = p->o->count ? (size_t)p->o->count : 16;
    const size_t columns = count < COLUMNS ? count : COLUMNS, rows = (count + COLUMNS - 1) / COLUMNS;
    flis_picture sheet = {columns * PAIR, rows * ROW, 3, NULL};
    if (!output_check(&p->ctx, p->o->sheet) || !binary_check(&p->ctx, p->o->sheet))
        return false; /* before the scenes are drawn */
    sheet.pixels = flis_alloc(&p->ctx, sheet.width * sheet.height, 3);
    if (!sheet.pixels) return false;
    memset(sheet.pixels, 255, sheet.width * sheet.height * 3);
    for (size_t i = 0; i < count && draw_scene(p, i); i++) {
        for (size_t k = 0; k < WORLD_PIXELS; k++) {
            const size_t x = i % COLUMNS * PAIR + k % WORLD_SIDE, y = i / COLUMNS * ROW + k / WORLD_SIDE;
            uint8_t *at = sheet.pixels + (y * sheet.width + x) * 3;
            memcpy(at, p->scene->rgb + 3 * k, 3);
            sheet_colour(p->scene->label[k], at + 3 * WORLD_SIDE);
        }
        progress_show(&p->progress, "scenes", i + 1, count);
    }
    progress_end(&p->progress);
    const bool good = flis_ok(&p->ctx) && flis_write_png(&p->ctx, p->o->sheet, &sheet, NULL);
    free(sheet.pixels);
    return good;
}

static void print_captions(painter *p)
{
    for (uint64_t i = 0; i < p->o->captions && draw_scene(p, i); i++)
        if (puts(p->scene->caption) < 0) return; /* finish reports it */
}

static void print_classes(void)
{
    for (int c = 1; c <= WORLD_CLASSES; c++)
        printf("%d\t%s\t%s\t%s\n", c, world_class_name(c), world_is_stuff(c) ? "stuff" : "thing",
               world_in_layout_set(c) ? "layout" : "new");
}

/* -1: the options fit together; 2: a usage error was printed. */
static int check_options(const options *o)
{
    const int given = (o->out != NULL) + (o->sheet != NULL) + (o->coco != NULL) + (o->captions > 0) + o->classes;
    if (!given) return missing_argument(&WORLD, "-o DIR, --sheet FILE.png, --coco DIR, --captions N or --classes");
    if (given > 1) return usage_error(&WORLD, "-o, --sheet, --coco, --captions and --classes exclude each other");
    if (o->sheet && o->count > 4096)
        return usage_error(&WORLD, "invalid value '%llu' for --count: wanted at most 4096 scenes with --sheet",
                           (unsigned long long)o->count);
    if (!o->coco && (o->validation != NOT_GIVEN || o->training != NOT_GIVEN))
        return usage_error(&WORLD, "--validation and --training need --coco DIR");
    if (o->coco && (o->set >= 0 || o->count))
        return usage_error(&WORLD, "--coco takes --validation N and --training N, not --set or --count");
    if (o->coco && o->seed > UINT64_MAX - WORLD_VALIDATION_SEED - WORLD_TRAINING_MOST)
        return usage_error(&WORLD, "invalid value '%llu' for --seed: the last scene's would be beyond 2^64-1",
                           (unsigned long long)o->seed);
    return -1;
}

static void write_coco(painter *p)
{
    const options *o = p->o;
    world_write_coco(&p->ctx, o->coco, o->seed, o->validation == NOT_GIVEN ? VALIDATION : o->validation,
                     o->training == NOT_GIVEN ? TRAINING : o->training, p->scene, &p->progress);
    progress_end(&p->progress);
}

int main(int argc, char **argv)
{
    options o = DEFAULTS;
    int words;
    int status = options_read(&WORLD, &o, argc, argv, &words);
    if (status >= 0) return finish("world", NULL, status);
    if (words) return unexpected_argument(&WORLD, argv[0]);
    if ((status = check_options(&o)) >= 0) return status;
    if (o.set < 0) o.set = 0;
    painter p = {.o = &o, .rules = world_set(SET_NAMES[o.set]), .progress.quiet = o.quiet};
    flis_init(&p.ctx);
    p.ctx.interrupted = catch_signals();
    p.scene = flis_alloc(&p.ctx, 1, sizeof *p.scene);
    if (!p.scene) return finish("world", &p.ctx, 1);
    if (o.classes) print_classes();
    else if (o.captions) print_captions(&p);
    else if (o.out) write_folder(&p);
    else if (o.coco) write_coco(&p);
    else write_sheet(&p);
    free(p.scene);
    flis_free(&p.ctx);
    return finish("world", &p.ctx, 0);
}
