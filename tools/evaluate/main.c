/* main.c - the program evaluate: the paper's measures on files. */
#include "tools/common/common.h"
#include "tools/evaluate/evaluate.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- Options ----------------------------------------------------------------------------------------------------- */

enum { MIOU = 1, FRECHET = 2, SEGMENT = 4, ATTRIBUTES = 8 };

typedef struct options {
    const char *truth, *predicted, *layouts, *pictures, *tensor, *names, *out, *features;
    uint64_t first, classes, void_label, modulo;
    bool json, quiet;
    const char *file[2];
    int files;
} options;

#define TEXT(option_name, field, placeholder, of, text) \
    { \
        .name = option_name, .kind = OPTION_TEXT, .offset = offsetof(options, field), .value = placeholder, \
        .commands = of, .help = text \
    }
#define NUMBER(option_name, field, placeholder, low, high, of, text) \
    { \
        .name = option_name, .kind = OPTION_WHOLE, .offset = offsetof(options, field), .value = placeholder, \
        .min = low, .max = high, .commands = of, .help = text \
    }
#define FLAG(option_name, option_letter, field, of, text) \
    { \
        .name = option_name, .letter = option_letter, .kind = OPTION_FLAG, .offset = offsetof(options, field), \
        .commands = of, .help = text \
    }

static const option OPTIONS[] = {
    TEXT("truth", truth, "FILES", MIOU, "label maps of the ground truth (PNG gray or palette, PGM)"),
    TEXT("predicted", predicted, "FILES", MIOU, "label maps of the same names or in the same order, and sizes"),
    NUMBER("first", first, "F", 0, 255, MIOU, "the first class (ADE20K and the small world: 1); default "),
    NUMBER("classes", classes, "N", 1, 256, MIOU,
           "number of classes; default: up to the largest label of the ground truth"),
    NUMBER("void", void_label, "L", 0, 255, MIOU,
           "the label whose pixels in the ground truth are not counted; default "),
    NUMBER("modulo", modulo, "M", 1, 255, MIOU,
           "take labels modulo M (100 for the small world's second phrases); default: labels as they are"),
    TEXT("names", names, "FILE", MIOU,
         "names of the classes: lines of number, tab, name, as `world --classes` writes them; default: none"),
    TEXT("tensor", tensor, "NAME", FRECHET, "which tensor to read; default: a file's only one"),
    TEXT("layouts", layouts, "FILES", ATTRIBUTES, "layouts (JSON)"),
    TEXT("pictures", pictures, "FILES", SEGMENT | ATTRIBUTES, "8-bit pictures (PNG, JPEG or PPM)"),
    {.name = "output",
     .letter = 'o',
     .kind = OPTION_TEXT,
     .offset = offsetof(options, out),
     .value = "DIR",
     .commands = SEGMENT,
     .help = "write label maps, DIR/NAME.png for each picture; the folder is made"},
    TEXT("features", features, "FILE", SEGMENT, "write features, [samples, dimensions], for frechet"),
    FLAG("json", 0, json, MIOU | FRECHET | ATTRIBUTES, "print the same numbers as JSON"),
    FLAG("quiet", 'q', quiet, 0, "no progress"),
};

static const char DETAILS[] =
    "FILES is a folder, or a text file with one path per line. Folders are paired by the files' names without ending,\n"
    "lists line by line.\n";

/* By bit. */
static const char *const COMMAND_NAMES[] = {"miou", "frechet", "segment", "attributes", NULL};

static const options DEFAULTS = {.void_label = 255};

#define PROGRAM(full_name, command_bit, usage, text) \
    { \
        .name = full_name, .arguments = usage, .summary = text, .details = (command_bit) == FRECHET ? NULL : DETAILS, \
        .options = OPTIONS, .count = sizeof OPTIONS / sizeof *OPTIONS, .command = command_bit, \
        .command_names = (command_bit) ? NULL : COMMAND_NAMES, .defaults = &DEFAULTS \
    }

static const program EVALUATE =
    PROGRAM("evaluate", 0,
            "miou --truth FILES --predicted FILES [options]\n"
            "frechet A.safetensors B.safetensors [options]\n"
            "segment SEGMENTER.safetensors --pictures FILES [options]\n"
            "attributes --layouts FILES --pictures FILES [options]",
            "Measures of the paper.\n"
            "  miou         label maps against the ground truth: mean IoU over its classes, and over all\n"
            "  frechet      Fréchet distance of two sets of features, [samples, dimensions]\n"
            "  segment      label maps and features of pictures, by the small world's own segmenter (train segmenter)\n"
            "  attributes   colours, patterns and styles of the small world, measured where layouts ask for them\n"
            "`evaluate COMMAND --help` shows the options of one command.");

static const program COMMANDS[] = {
    PROGRAM("evaluate miou", MIOU, "--truth FILES --predicted FILES [options]",
            "Label maps against the ground truth: IoU of each class, their mean over the classes present in the ground "
            "truth,\n"
            "and over all."),
    PROGRAM("evaluate frechet", FRECHET, "A.safetensors B.safetensors [options]",
            "Fréchet distance of two sets of features, [samples, dimensions]."),
    PROGRAM("evaluate segment", SEGMENT, "SEGMENTER.safetensors --pictures FILES [options]",
            "The small world's own segmenter (train segmenter) labels pictures. A Fréchet distance of its features is "
            "the small\n"
            "world's own and not comparable with Inception's FID."),
    PROGRAM("evaluate attributes", ATTRIBUTES, "--layouts FILES --pictures FILES [options]",
            "Measures the small world's colours, patterns and styles where the layouts ask for them, in pictures of "
            "the same\n"
            "names: how many are right, and how many things without a pattern are seen without."),
};
enum { COMMAND_COUNT = sizeof COMMANDS / sizeof *COMMANDS };

/* ---- Commands ---------------------------------------------------------------------------------------------------- */

typedef struct run {
    flis_ctx ctx;
    const options *o;
    int first, classes, void_label, modulo; /* of miou */
    progress progress;
} run;

typedef bool pair_fn(run *p, void *user, const char *name, const flis_picture *truth, const flis_picture *predicted);

/* Reads a pair of label maps and hands them to `take`; predicted_path NULL: the ground truth alone. */
static bool one_pair(run *p, const char *truth_path, const char *predicted_path, pair_fn *take, void *user)
{
    flis_picture truth = {0, 0, 0, NULL}, predicted = {0, 0, 0, NULL};
    bool good = flis_read_label(&p->ctx, truth_path, &truth) &&
                (!predicted_path || flis_read_label(&p->ctx, predicted_path, &predicted));
    if (good && predicted_path && (truth.width != predicted.width || truth.height != predicted.height))
        good = flis_fail(&p->ctx, "%s: got %zu x %zu pixels, wanted %zu x %zu, as %s has", predicted_path,
                         predicted.width, predicted.height, truth.width, truth.height, truth_path);
    good = good && take(p, user, truth_path, &truth, &predicted);
    free(truth.pixels);
    free(predicted.pixels);
    return good;
}

static bool take_largest(run *p, void *user, const char *name, const flis_picture *truth, const flis_picture *predicted)
{
    int *largest = user;
    (void)name, (void)predicted;
    for (size_t i = 0; i < truth->width * truth->height; i++) {
        int label = p->modulo && truth->pixels[i] != p->void_label ? truth->pixels[i] % p->modulo : truth->pixels[i];
        if (truth->pixels[i] != p->void_label && label > *largest) *largest = label;
    }
    return true;
}

static bool take_confusion(run *p, void *user, const char *name, const flis_picture *truth,
                           const flis_picture *predicted)
{
    return confusion_add(&p->ctx, user, name, truth->pixels, predicted->pixels, truth->width * truth->height);
}

static void print_iou_json(const confusion *c, const iou_score *s)
{
    const char *comma = "";
    printf("{\"images\": %llu, \"pixels\": %llu, \"first\": %d, \"classes\": %d, \"present\": %d, "
           "\"miou_present\": %.9g, \"miou_all\": %.9g, \"pixel_accuracy\": %.9g, \"mean_accuracy\": %.9g, \"iou\": {",
           (unsigned long long)c->images, (unsigned long long)c->pixels, c->first, c->classes, s->present,
           s->mean_present, s->mean_all, s->pixel_accuracy, s->mean_accuracy);
    for (int i = 0; i < c->classes; i++) {
        if (s->iou[i] < 0) continue;
        printf("%s\"%d\": %.9g", comma, i + c->first, s->iou[i]);
        comma = ", ";
    }
    printf("}}\n");
}

static void print_iou(const confusion *c, const iou_score *s, const class_names *named)
{
    for (int i = 0; i < c->classes; i++) {
        if (s->iou[i] < 0) continue;
        const char *name = named->name[i + c->first];
        printf("%3d  %.4f  %10llu  %10llu  %s\n", i + c->first, s->iou[i], (unsigned long long)s->truth[i],
               (unsigned long long)s->predicted[i], name ? name : "");
    }
    printf("mIoU %.4f over the %d classes present, %.4f over all %d; pixel accuracy %.4f, mean accuracy %.4f; %llu "
           "images\n",
           s->mean_present, s->present, s->mean_all, c->classes, s->pixel_accuracy, s->mean_accuracy,
           (unsigned long long)c->images);
}

static bool run_miou(run *p)
{
    names truth = {0, 0, NULL}, predicted = {0, 0, NULL};
    bool folder[2] = {false, false};
    confusion c = {.count = NULL};
    iou_score *score = flis_alloc(&p->ctx, 1, sizeof *score);
    class_names named = {.count = 0};
    bool good = (!p->o->names || classes_read(&p->ctx, p->o->names, &named)) && flis_ok(&p->ctx) &&
                list_files(&p->ctx, p->o->truth, LABEL_ENDINGS, &truth, &folder[0]) &&
                list_files(&p->ctx, p->o->predicted, LABEL_ENDINGS, &predicted, &folder[1]);
    int largest = p->first;
    for (size_t i = 0; good && !p->classes && i < truth.count; i++)
        good = flis_poll(&p->ctx) && one_pair(p, truth.name[i], NULL, take_largest, &largest);
    good = good && confusion_make(&p->ctx, &c, p->first, p->classes ? p->classes : largest - p->first + 1,
                                  p->void_label, p->modulo);
    for (size_t i = 0; good && i < truth.count; i++) {
        const char *other = name_partner(&p->ctx, &truth, i, &predicted, folder[0] || folder[1], p->o->predicted);
        good = flis_poll(&p->ctx) && other && one_pair(p, truth.name[i], other, take_confusion, &c);
        if (good) progress_show(&p->progress, "label maps", i + 1, truth.count);
    }
    good = good && confusion_score(&p->ctx, &c, score);
    progress_end(&p->progress);
    if (good && p->o->json) print_iou_json(&c, score);
    else if (good) print_iou(&c, score, &named);
    names_free(&truth);
    names_free(&predicted);
    free(c.count);
    free(score);
    classes_free(&named);
    return good;
}

/* The features of a file: the tensor that --tensor names, or the only one. */
static double *read_features(run *p, const char *path, size_t *n, size_t *d)
{
    flis_file *file = input_check(&p->ctx, path) ? flis_file_open(&p->ctx, path) : NULL;
    if (!file) return NULL;
    const flis_entry *e = p->o->tensor ? flis_file_find(file, p->o->tensor) : file->count == 1 ? &file->entry[0] : NULL;
    double *x = NULL;
    if (!e) {
        if (p->o->tensor) flis_fail(&p->ctx, "%s: tensor \"%s\" is missing", path, p->o->tensor);
        else flis_fail(&p->ctx, "%s: got %zu tensors, wanted one, or its name with --tensor", path, file->count);
    } else if (e->rank != 2 || !e->shape[0] || !e->shape[1])
        flis_fail(&p->ctx, "%s: tensor \"%s\": got %d dimensions, wanted [samples, dimensions]", path, e->name,
                  e->rank);
    else {
        *n = (size_t)e->shape[0], *d = (size_t)e->shape[1];
        x = flis_alloc(&p->ctx, *n * *d, sizeof *x);
        if (x) flis_file_read_f64(&p->ctx, file, e, x);
        for (size_t i = 0; x && flis_ok(&p->ctx) && i < *n * *d; i++)
            if (!(fabs(x[i]) <= 1e100))
                flis_fail(&p->ctx, "%s: sample %zu, dimension %zu is not finite, or beyond 1e100", path, i / *d,
                          i % *d);
    }
    flis_file_close(file);
    if (flis_ok(&p->ctx)) return x;
    free(x);
    return NULL;
}

static bool run_frechet(run *p)
{
    size_t na = 0, nb = 0, d = 0, e = 0;
    double *a = read_features(p, p->o->file[0], &na, &d), *b = a ? read_features(p, p->o->file[1], &nb, &e) : NULL,
           distance_ab = 0;
    bool good = b != NULL;
    if (good && d != e)
        good = flis_fail(&p->ctx, "%s: got %zu dimensions, wanted %zu, as %s has", p->o->file[1], e, d, p->o->file[0]);
    good = good && frechet_distance(&p->ctx, a, na, b, nb, d, &distance_ab);
    if (good && p->o->json)
        printf("{\"frechet\": %.12g, \"samples\": [%zu, %zu], \"dimensions\": %zu}\n", distance_ab, na, nb, d);
    else if (good) printf("%.9g\n", distance_ab);
    free(a);
    free(b);
    return good;
}

/* The meaning of a phrase; class 0 for a style, and for a class that the world does not have. */
static world_phrase parse_phrase(const flis_phrase *text)
{
    world_phrase f = {.id = text->id};
    const char *rest = text->text;
    for (int k = 1; k <= WORLD_STYLES; k++)
        if (strcmp(rest, world_style_name(k)) == 0) f.style = (uint8_t)k;
    for (bool more = true; more;) {
        more = false;
        for (int k = 1; k <= WORLD_COLOURS + WORLD_PATTERNS; k++) {
            const char *word = k <= WORLD_COLOURS ? world_colour_name(k) : world_pattern_name(k - WORLD_COLOURS);
            size_t n = strlen(word);
            if (strncmp(rest, word, n) != 0 || rest[n] != ' ') continue;
            if (k <= WORLD_COLOURS) f.colour = (uint8_t)k;
            else f.pattern = (uint8_t)(k - WORLD_COLOURS);
            rest += n + 1;
            more = true;
        }
    }
    for (int c = 1; c <= WORLD_CLASSES; c++)
        if (strcmp(rest, world_class_name(c)) == 0) f.class = (uint8_t)c;
    return f;
}

enum { COLOURS_MEASURED, PATTERNS_MEASURED, PLAIN_MEASURED, STYLES_MEASURED, MEASURES };
typedef struct tally {
    long right, all;
} tally;

/* Measures the phrases of one layout in its picture. Phrases without a pixel are not counted. */
static bool judge_picture(run *p, const judges *j, const flis_layout *layout, const flis_picture *picture, tally *t)
{
    region r = {picture->pixels, NULL, picture->width, picture->height, -1, false};
    uint8_t *label = flis_alloc(&p->ctx, r.width, r.height);
    if (!label) return false;
    if (layout->label.width)
        flis_label_pil(layout->label.pixels, layout->label.height, layout->label.width, label, r.height, r.width);
    r.label = label;
    for (size_t i = 0; i < layout->count; i++) r.night = r.night || strcmp(layout->phrase[i].text, "night sky") == 0;
    for (size_t i = 0; i < layout->count; i++) {
        world_phrase f = parse_phrase(&layout->phrase[i]);
        r.id = f.id;
        if (f.id >= 0 && !memchr(label, f.id, r.width * r.height)) continue;
        if (f.colour) t[COLOURS_MEASURED].all++, t[COLOURS_MEASURED].right += measure_colour(&r, NULL) == f.colour;
        if (f.style) t[STYLES_MEASURED].all++, t[STYLES_MEASURED].right += measure_style(j, &r) == f.style;
        if (!f.class || !world_has_patterns(f.class)) continue;
        tally *which = &t[f.pattern ? PATTERNS_MEASURED : PLAIN_MEASURED];
        which->all++, which->right += measure_pattern(&p->ctx, j, &r, f.class) == f.pattern;
    }
    free(label);
    return flis_ok(&p->ctx);
}

static void print_attributes(const run *p, const tally *t, size_t images)
{
    static const char *const name[MEASURES] = {"colour", "pattern", "no pattern", "style"};
    if (p->o->json) printf("{\"images\": %zu", images);
    for (int i = 0; i < MEASURES; i++) {
        if (p->o->json) printf(", \"%s\": {\"right\": %ld, \"all\": %ld}", name[i], t[i].right, t[i].all);
        else if (t[i].all)
            printf("%-10s  %ld of %ld right (%.3f)\n", name[i], t[i].right, t[i].all,
                   (double)t[i].right / (double)t[i].all);
    }
    if (p->o->json) printf("}\n");
}

static bool run_attributes(run *p)
{
    static const char *const JSON[] = {".json", NULL};
    names layouts = {0, 0, NULL}, pictures = {0, 0, NULL};
    bool folder[2] = {false, false};
    tally t[MEASURES] = {{0, 0}};
    bool good = list_files(&p->ctx, p->o->layouts, JSON, &layouts, &folder[0]) &&
                list_files(&p->ctx, p->o->pictures, PICTURE_ENDINGS, &pictures, &folder[1]);
    judges *j = good ? judges_learn(&p->ctx, NULL, NULL) : NULL;
    good = j != NULL;
    for (size_t i = 0; good && i < layouts.count; i++) {
        const char *other = name_partner(&p->ctx, &layouts, i, &pictures, folder[0] || folder[1], p->o->pictures);
        flis_layout layout = {0};
        flis_picture picture = {0};
        good = flis_poll(&p->ctx) && other && flis_layout_read(&p->ctx, layouts.name[i], &layout) &&
               read_picture(&p->ctx, other, &picture) && judge_picture(p, j, &layout, &picture, t);
        flis_layout_free(&layout);
        free(picture.pixels);
        if (good) progress_show(&p->progress, "pictures", i + 1, layouts.count);
    }
    progress_end(&p->progress);
    if (good) print_attributes(p, t, layouts.count);
    names_free(&layouts);
    names_free(&pictures);
    free(j);
    return good;
}

static bool write_features(flis_ctx *ctx, const char *path, const flis_real *features, size_t count, size_t d)
{
    const uint64_t sizes[2] = {count, d};
    flis_writer *writer = flis_write_begin(ctx, path);
    if (!writer) return false;
    flis_write_declare(ctx, writer, "features", sizeof(flis_real) == 8 ? FLIS_F64 : FLIS_F32, 2, sizes);
    flis_write_real(ctx, writer, features, count * d);
    return flis_write_end(ctx, writer);
}

/* DIR/STEM.png. */
static bool map_path(run *p, const char *picture_path, char path[PATH_ROOM])
{
    const char *start;
    size_t length;
    name_stem(picture_path, &start, &length);
    if (length >= PATH_ROOM || snprintf(path, PATH_ROOM, "%s/%.*s.png", p->o->out, (int)length, start) >= PATH_ROOM)
        return flis_fail(&p->ctx, "%.100s: the name is too long", picture_path);
    return true;
}

/* Neither the features nor a label map takes the place of a picture; pictures of one name in two folders, or with two endings,
   have no two label maps. */
static bool check_outputs(run *p, const names *pictures)
{
    const char *const in[] = {p->o->file[0], p->o->pictures};
    const char *const *read = (const char *const *)pictures->name;
    char path[PATH_ROOM];
    names out = {0, 0, NULL};
    if (p->o->features) names_add(&p->ctx, &out, NULL, p->o->features, strlen(p->o->features));
    const bool maps = p->o->out && kind_of_file(p->o->out) == FILE_FOLDER; /* otherwise it is made later */
    for (size_t i = 0; maps && i < pictures->count && map_path(p, pictures->name[i], path); i++)
        if (!names_add(&p->ctx, &out, NULL, path, strlen(path))) break;
    const char *const *written = (const char *const *)out.name;
    if (flis_ok(&p->ctx) && out.count && outputs_apart(&p->ctx, read, pictures->count, written, out.count) &&
        (kind_of_file(p->o->pictures) == FILE_FOLDER || outputs_apart(&p->ctx, in, 2, written, out.count)))
        outputs_check(&p->ctx, in, 1, written, out.count < 2 ? out.count : 2);
    names_free(&out);
    return flis_ok(&p->ctx);
}

static bool segment_one(run *p, const flis_unet *segmenter, const char *path, flis_real *features)
{
    flis_picture picture;
    if (!flis_poll(&p->ctx) || !read_picture(&p->ctx, path, &picture)) return false;
    uint8_t *label = flis_alloc(&p->ctx, picture.width, picture.height);
    const flis_picture map = {picture.width, picture.height, 1, label};
    bool good =
        label && (segmenter_run(&p->ctx, segmenter, picture.pixels, picture.width, picture.height, label, features) ||
                  flis_fail_in(&p->ctx, path));
    char to[PATH_ROOM];
    if (good && p->o->out) good = map_path(p, path, to) && flis_write_png(&p->ctx, to, &map, NULL);
    free(label);
    free(picture.pixels);
    return good;
}

static bool run_segment(run *p)
{
    names files = {0, 0, NULL};
    bool is_folder,
        good = (!p->o->features || output_check(&p->ctx, p->o->features)) && binary_check(&p->ctx, p->o->features) &&
               (!p->o->out || folder_check(&p->ctx, p->o->out)) && input_check(&p->ctx, p->o->file[0]) &&
               list_files(&p->ctx, p->o->pictures, PICTURE_ENDINGS, &files, &is_folder) && check_outputs(p, &files);
    flis_unet *segmenter = good ? segmenter_load(&p->ctx, p->o->file[0]) : NULL;
    good = segmenter && (!p->o->out || (make_folder(&p->ctx, p->o->out) && check_outputs(p, &files)));
    const size_t d = good ? segmenter_features(segmenter) : 0;
    flis_real *features = good ? flis_alloc(&p->ctx, files.count, d * sizeof *features) : NULL;
    for (size_t i = 0; features && i < files.count && segment_one(p, segmenter, files.name[i], features + i * d); i++)
        progress_show(&p->progress, "pictures", i + 1, files.count);
    progress_end(&p->progress);
    if (features && flis_ok(&p->ctx) && p->o->features)
        write_features(&p->ctx, p->o->features, features, files.count, d);
    free(features);
    names_free(&files);
    flis_unet_free(segmenter);
    return flis_ok(&p->ctx);
}

/* ---- The program ------------------------------------------------------------------------------------------------- */

/* The first argument that a command needs and did not get; NULL: none. */
static const char *first_missing(const program *p, const options *o)
{
    switch (p->command) {
    case MIOU: return !o->truth ? "--truth FILES" : !o->predicted ? "--predicted FILES" : NULL;
    case FRECHET: return o->files < 1 ? "A.safetensors" : o->files < 2 ? "B.safetensors" : NULL;
    case SEGMENT:
        if (o->files < 1) return "SEGMENTER.safetensors";
        if (!o->pictures) return "--pictures FILES";
        return !o->out && !o->features ? "-o DIR or --features FILE" : NULL;
    default: return !o->layouts ? "--layouts FILES" : !o->pictures ? "--pictures FILES" : NULL;
    }
}

/* -1: good. */
static int check(const program *p, const options *o)
{
    const char *what = first_missing(p, o);
    if (what) return missing_argument(p, what);
    if (p->command == MIOU && o->first + (o->classes ? o->classes : 1) > 256)
        return usage_error(p, "--first and --classes exceed label 255");
    return -1;
}

static void run_command(run *p, unsigned command)
{
    p->ctx.interrupted = catch_signals();
    if (command == MIOU) run_miou(p);
    else if (command == FRECHET) run_frechet(p);
    else if (command == SEGMENT) run_segment(p);
    else run_attributes(p);
    progress_end(&p->progress);
}

int main(int argc, char **argv)
{
    static const int FILES_OF[COMMAND_COUNT] = {0, 2, 1, 0};
    options o = DEFAULTS;
    int words, chosen = 0;
    if (argc < 2 || argv[1][0] == '-') { /* no command: --help, --version or an error */
        const int status = options_read(&EVALUATE, &o, argc, argv, &words);
        if (status >= 0) return finish("evaluate", NULL, status);
        return usage_error(&EVALUATE, "a command is missing: miou, frechet, segment or attributes");
    }
    while (chosen < COMMAND_COUNT && strcmp(COMMANDS[chosen].name + strlen("evaluate "), argv[1]) != 0) chosen++;
    if (chosen == COMMAND_COUNT)
        return usage_error(&EVALUATE, "unknown command '%s': wanted miou, frechet, segment or attributes", argv[1]);
    const program *p = &COMMANDS[chosen];
    const int status = options_read(p, &o, argc - 1, argv + 1, &words);
    if (status >= 0) return finish(p->name, NULL, status);
    if (words > FILES_OF[chosen]) return unexpected_argument(p, argv[1 + FILES_OF[chosen]]);
    for (int i = 0; i < words; i++) o.file[o.files++] = argv[1 + i];
    const int wrong = check(p, &o);
    if (wrong >= 0) return wrong;
    run r = {.o = &o,
             .first = (int)o.first,
             .classes = (int)o.classes,
             .void_label = (int)o.void_label,
             .modulo = (int)o.modulo,
             .progress.quiet = o.quiet};
    if (flis_init(&r.ctx)) run_command(&r, p->command);
    flis_free(&r.ctx);
    return finish(p->name, &r.ctx, 0);
}
