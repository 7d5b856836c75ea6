/* main.c - the program evaluate: the paper's measures on files; options, segment and attributes. */
#include "tools/evaluate/command.h"

#include <stdlib.h>
#include <string.h>

/* ---- Options ----------------------------------------------------------------------------------------------------- */

enum { MIOU = 1, FRECHET = 2, SEGMENT = 4, ATTRIBUTES = 8 };

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

/* Options whose default depends on others: the text of the help says it. */
static bool parse_label(const char *text, uint64_t *out, bool *given)
{
    return *given = parse_whole(text, out) && *out <= 255;
}

static bool parse_first(void *o, const char *text)
{
    return parse_label(text, &((options *)o)->first, &((options *)o)->first_given);
}

static bool parse_void(void *o, const char *text)
{
    return parse_label(text, &((options *)o)->void_label, &((options *)o)->void_given);
}

static bool parse_predicted_first(void *o, const char *text)
{
    return parse_label(text, &((options *)o)->predicted_first, &((options *)o)->predicted_first_given);
}

/* truth, predicted, N or WxH. */
static bool parse_size(void *user, const char *text)
{
    enum { MOST = 65535 };
    options *o = user;
    uint64_t side[2];
    char width[8];
    const char *x = strchr(text, 'x');
    const size_t length = x ? (size_t)(x - text) : strlen(text);
    o->size = strcmp(text, "predicted") == 0 ? SIZE_PREDICTED : strcmp(text, "truth") == 0 ? SIZE_TRUTH : SIZE_GIVEN;
    if (o->size != SIZE_GIVEN) return true;
    snprintf(width, sizeof width, "%.*s", (int)(length < 7 ? length : 7), text);
    if (!parse_whole(width, &side[0]) || !parse_whole(x ? x + 1 : width, &side[1])) return false;
    o->width = (size_t)side[0], o->height = (size_t)side[1];
    return side[0] && side[1] && side[0] <= MOST && side[1] <= MOST;
}

#define LABEL(option_name, function, placeholder, text) \
    { \
        .name = option_name, .kind = OPTION_CALL, .parse = function, .value = placeholder, .commands = MIOU, \
        .wanted = "a whole number from 0 to 255", .help = text \
    }

static const option OPTIONS[] = {
    TEXT(
        "truth", truth, "FILES", MIOU,
        "label maps of the ground truth: PNG gray or palette, PGM; .npy in a list, or in a folder without PNG and PGM"),
    TEXT("predicted", predicted, "FILES", MIOU, "label maps of the same names or in the same order"),
    {.name = "size",
     .kind = OPTION_CALL,
     .parse = parse_size,
     .value = "SIZE",
     .wanted = "truth, predicted, N or WxH",
     .commands = MIOU,
     .help = "compare at this size: `truth` resizes predicted maps to their ground truth, `predicted` the ground truth "
             "to them, N or WxH both; by the nearest pixel, as PIL does; default truth"},
    LABEL("first", parse_first, "F",
          "the first class (ADE20K and the small world: 1); default 0, or that of --classes"),
    TEXT("classes", classes, "CLASSES", MIOU,
         "number of classes, or coco or ade20k (their classes, names and void labels), or a FILE of lines label, tab, "
         "name; default: up to the largest label of the ground truth"),
    LABEL("void", parse_void, "L", "the label whose pixels in the ground truth are not counted; default 255"),
    LABEL(
        "predicted-first", parse_predicted_first, "P",
        "the label of the first class in the predicted maps: 0 where a segmenter of ADE20K counts from 0; default: as "
        "in the ground truth"),
    NUMBER("modulo", modulo, "M", 1, 255, MIOU,
           "take labels modulo M (100 for the small world's second phrases); default: labels as they are"),
    TEXT("names", names, "FILE", MIOU,
         "names of the classes: lines of number, tab, name, as `world --classes` writes them; default: none"),
    TEXT("tensor", tensor, "NAME", FRECHET,
         "which tensor or array to read; default: a file's only one, or the statistics mu and sigma"),
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
    FLAG("table", 0, table, MIOU,
         "print a table with tabs: label, IoU, accuracy, pixels of the ground truth, pixels predicted, name"),
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
            "frechet A B [options]\n"
            "segment SEGMENTER.safetensors --pictures FILES [options]\n"
            "attributes --layouts FILES --pictures FILES [options]",
            "Measures of the paper.\n"
            "  miou         label maps against the ground truth: mean IoU over its classes, and over all\n"
            "  frechet      Fréchet distance of two sets of features, or of statistics of them\n"
            "  segment      label maps and features of pictures, by the small world's own segmenter (train segmenter)\n"
            "  attributes   colours, patterns and styles of the small world, measured where layouts ask for them\n"
            "`evaluate COMMAND --help` shows the options of one command.");

static const program COMMANDS[] = {
    PROGRAM("evaluate miou", MIOU, "--truth FILES --predicted FILES [options]",
            "Label maps against the ground truth: IoU of each class, their mean over the classes present in the ground "
            "truth\n"
            "(the last line), over those and the ones that are only predicted (the line before it), and over all."),
    PROGRAM("evaluate frechet", FRECHET, "A B [options]",
            "Fréchet distance of two sets of features. A and B are .safetensors, .npy or .npz: [samples, dimensions], "
            "also\n"
            "[samples, dimensions, 1, 1]; or a .npz with the statistics mu and sigma that pytorch-fid writes."),
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
    case FRECHET: return o->files < 1 ? "file A" : o->files < 2 ? "file B" : NULL;
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
    const int n = classes_number(o);
    if (what) return missing_argument(p, what);
    if (p->command != MIOU) return -1;
    uint64_t number;
    if (o->classes && (n ? false : parse_whole(o->classes, &number)))
        return usage_error(p,
                           "invalid value '%s' for --classes: wanted a whole number from 1 to 256, coco, ade20k or a "
                           "file",
                           o->classes);
    if (o->classes && !n) {
        what = o->first_given ? "--first" : o->void_given ? "--void" : o->names ? "--names" : NULL;
        if (what) return usage_error(p, "--classes %s sets %s as well: give one of the two", o->classes, what);
    } else if (o->first + (uint64_t)(n ? n : 1) > 256) return usage_error(p, "--first and --classes exceed label 255");
    if (o->json && o->table) return usage_error(p, "--json and --table exclude each other");
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
    run r = {.o = &o, .name = p->name, .progress.quiet = o.quiet};
    if (flis_init(&r.ctx)) run_command(&r, p->command);
    flis_free(&r.ctx);
    return finish(p->name, &r.ctx, 0);
}
