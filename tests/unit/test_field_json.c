/* test_field_json.c - the JSON of layouts as people bring it: other encodings, numbers, names of members, paths of other machines,
 * files of another kind. Each right value is what flis.h promises, or what Python's json makes of the same text.
 */
#include "tests/unit/test.h"

/* ---- Reading, with what is said ---------------------------------------------------------------------------------- */

typedef struct reading {
    flis_ctx ctx;
    flis_layout layout;
    char said[4096]; /* warnings, one a line */
    int warnings;
} reading;

static void collect(void *user, const char *sentence)
{
    reading *r = user;
    r->warnings++;
    if (strlen(r->said) + strlen(sentence) + 2 < sizeof r->said) strcat(strcat(r->said, sentence), "\n");
}

static const char *file_of(const char *name, const void *content, size_t count)
{
    const char *path = test_scratch(name);
    FILE *file = fopen(path, "wb");
    CHECK(file && fwrite(content, 1, count, file) == count, "%s: cannot be written", path);
    if (file) fclose(file);
    return path;
}

/* Reads a layout: "" or the error. */
static const char *read_layout(reading *r, const void *json, size_t length, bool phrases)
{
    memset(r, 0, sizeof *r);
    flis_init(&r->ctx);
    r->ctx.warn = collect;
    r->ctx.warn_user = r;
    file_of("map.pgm", "P2 2 1 255 3 7", 14);
    const char *path = file_of("field.json", json, length);
    const bool ok =
        phrases ? flis_layout_read_phrases(&r->ctx, path, &r->layout) : flis_layout_read(&r->ctx, path, &r->layout);
    CHECK(ok == !*r->ctx.error, "a layout, or an error");
    return r->ctx.error;
}

static void end(reading *r)
{
    flis_layout_free(&r->layout);
    flis_free(&r->ctx);
}

static void refused(const char *json, const char *wanted)
{
    static reading r;
    const char *got = read_layout(&r, json, strlen(json), false);
    CHECK(*got && strstr(got, wanted), "%s: got \"%s\", wanted \"%s\"", json, got, wanted);
    end(&r);
}

/* One phrase of this id, the map, and one warning, or none. */
static void reads(const char *json, int id, const char *warned)
{
    static reading r;
    const char *got = read_layout(&r, json, strlen(json), false);
    CHECK(!*got, "%s: %s", json, got);
    CHECK(*got || (r.layout.count == 1 && r.layout.phrase[0].id == id), "%s: wanted a phrase of id %d", json, id);
    CHECK(*got || (r.layout.label.width == 2 && r.layout.label.pixels[1] == 7), "%s: the map", json);
    CHECK(warned ? r.warnings == 1 && strstr(r.said, warned) : !r.warnings, "%s: got warnings \"%s\", wanted \"%s\"",
          json, r.said, warned ? warned : "");
    end(&r);
}

#define MAP ", \"layout_path\": \"map.pgm\""
#define SEA(id) "{\"text_label_mapping\": {\"sea\": " id "}" MAP "}"
#define MORE(member) "{\"text_label_mapping\": {\"sea\": 3}" MAP ", " member "}"
#define NO_MAP(member) "{\"text_label_mapping\": {\"sea\": 3}, " member "}"

/* ---- Encodings --------------------------------------------------------------------------------------------------- */

/* Each character of `text` in `width` bytes. */
static size_t widen(const char *text, int width, bool big, const char *mark, size_t mark_length, char *out)
{
    size_t used = mark_length;
    memcpy(out, mark, mark_length);
    for (; *text; text++, used += (size_t)width) {
        memset(out + used, 0, (size_t)width);
        out[used + (big ? (size_t)width - 1 : 0)] = *text;
    }
    return used;
}

void test_field_json_encodings(void)
{
    static const struct {
        const char *mark, *name;
        size_t length;
        int width;
        bool big;
    } cases[] = {{"\xFF\xFE", "UTF-16", 2, 2, false},
                 {"\xFE\xFF", "UTF-16", 2, 2, true},
                 {"", "UTF-16", 0, 2, false},
                 {"", "UTF-16", 0, 2, true},
                 {"\xFF\xFE\0\0", "UTF-32", 4, 4, false},
                 {"\0\0\xFE\xFF", "UTF-32", 4, 4, true},
                 {"", "UTF-32", 0, 4, false},
                 {"", "UTF-32", 0, 4, true}};
    static reading r;
    char text[1024], wanted[80];
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const size_t n = widen(SEA("3"), cases[i].width, cases[i].big, cases[i].mark, cases[i].length, text);
        snprintf(wanted, sizeof wanted, "field.json: is text in %s, wanted UTF-8: save", cases[i].name);
        const char *got = read_layout(&r, text, n, false);
        CHECK(strstr(got, wanted), "case %zu: got \"%s\", wanted \"%s\"", i, got, wanted);
        end(&r);
    }
    reads("\xEF\xBB\xBF" SEA("3"), 3, NULL);
    reads("\xEF\xBB\xBF\r\n " SEA("3"), 3, NULL);
    refused("\xEF\xBB\xBF{\"a\": 1}", "field.json:1:1: text_label_mapping is missing"); /* the mark is no character */
    refused("\xEF\xBB\xBF\xEF\xBB\xBF{}", "got character U+FEFF, wanted a value");
    /* Every JSON file that flis reads goes through the same reader: an index of shards. */
    static const char index[] = "\xEF\xBB\xBF{\"weight_map\": {}}";
    flis_ctx ctx;
    flis_init(&ctx);
    flis_file *model = flis_model_open(&ctx, file_of("m.safetensors.index.json", index, sizeof index - 1));
    CHECK(!strstr(ctx.error, "0xEF") && !strstr(ctx.error, ":1:1:"), "an index with a byte order mark: %s", ctx.error);
    flis_file_close(model);
    flis_free(&ctx);
}

/* What other formats have: named, with its place. */
void test_field_json_sentences(void)
{
    static const struct {
        const char *json, *wanted;
    } bad[] = {
        {"{ // the sea\n}", ":1:3: got '/', wanted a name in quotes (JSON has no comments)"},
        {"/* map */ {}", ":1:1: got '/', wanted a value (JSON has no comments)"},
        {"# map\n{}", ":1:1: got '#', wanted a value (JSON has no comments)"},
        {"{\"a\": 1, # map\n \"b\": 2}", ":1:10: got '#', wanted a name in quotes (JSON has no comments)"},
        {"{\"a\": 1 /* x */}", ":1:9: got '/', wanted ',' or '}' (JSON has no comments)"},
        {"{} # end", "wanted nothing after the value (JSON has no comments)"},
        {"{\"a\": 1,}", ":1:9: got '}', wanted a name in quotes (JSON has no trailing commas)"},
        {"{\"a\": [1, 2,\n ]}", ":2:2: got ']', wanted a value (JSON has no trailing commas)"},
        {"{'a': 1}", ":1:2: got ''', wanted a name in quotes (JSON has only double quotes)"},
        {"{\"a\": 'b'}", "(JSON has only double quotes)"},
        {"{\xE2\x80\x9C"
         "a\xE2\x80\x9D: 1}",
         ":1:2: got character U+201C, wanted a name in quotes (JSON has only straight quotes"},
        {"{\xC2\xA0\"a\": 1}", "got character U+00A0, wanted a name in quotes (a non-breaking space"},
        {"{\"a\": NaN}", "(JSON has no NaN)"},
        {"{\"a\": nan}", "(JSON has no NaN)"},
        {"{\"a\": Infinity}", "(JSON has no Infinity)"},
        {"{\"a\": -Infinity}", "(JSON has no Infinity)"},
        {"{\"a\": True}", "(JSON writes true in lower case)"},
        {"{\"a\": FALSE}", "(JSON writes false in lower case)"},
        {"{\"a\": None}", "(JSON has null instead)"},
        {"{\"a\": none}", "(JSON has null instead)"},
        {"{} {}", ":1:4: got '{', wanted nothing after the value (one JSON text has one value)"},
        {"{}\n{}\n", ":2:1: got '{', wanted nothing after the value (one JSON text has one value)"},
        {"{\"a\": \"C:\\maps\"}", "(a backslash of a path is written twice)"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) refused(bad[i].json, bad[i].wanted);
}

/* ---- Ids and members --------------------------------------------------------------------------------------------- */

/* Numbers are Python's: 1.0 == 1. */
void test_field_layout_ids(void)
{
    static const struct {
        const char *json;
        int id;
    } good[] = {{SEA("1.0"), 1},   {SEA("1e0"), 1},      {SEA("10e-1"), 1}, {SEA("0.1E+1"), 1}, {SEA("-1.0"), -1},
                {SEA("-1e0"), -1}, {SEA("255.00"), 255}, {SEA("-0"), 0},    {SEA("0.0"), 0},    {SEA("2.55e2"), 255}};
    static const struct {
        const char *json, *wanted;
    } bad[] = {{SEA("1.5"), "phrase \"sea\": an id out of range: got 1.5, wanted an integer from -1 to 255"},
               {SEA("-0.5"), "got -0.5, wanted an integer from -1 to 255"},
               {SEA("1e-1"), "got 1e-1, wanted an integer from -1 to 255"},
               {SEA("256.0"), "an id out of range: got 256.0"},
               {SEA("-2.0"), "an id out of range: got -2.0"},
               {SEA("1e300"), "an id out of range: got 1e300"},
               {SEA("\"1\""), "phrase \"sea\": got \"1\" in quotes, wanted a class id: an integer"},
               {SEA("true"), "phrase \"sea\": got true, wanted a class id"},
               {SEA("null"), "phrase \"sea\": got null, wanted a class id"},
               {SEA("[1]"), "phrase \"sea\": got an array, wanted a class id"},
               {"{\"text_label_mapping\": {\"7\": \"sea\"}" MAP "}",
                "got \"sea\": id and phrase are exchanged, wanted \"sea\": 7"}};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) reads(good[i].json, good[i].id, NULL);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) refused(bad[i].json, bad[i].wanted);
}

/* Without layout_path a name like it must not paint a picture without a layout. */
void test_field_layout_path_misspelt(void)
{
    static const char *const names[] = {"layoutpath",
                                        "layoutPath",
                                        "layout-path",
                                        "Layout_Path",
                                        "LAYOUT_PATH",
                                        "layout",
                                        "path",
                                        "layout_file",
                                        "label_path",
                                        "layout_pth",
                                        "image_path",
                                        "lyaout_path",
                                        "layout_paths",
                                        "layout_path ",
                                        "layour_path",
                                        "imagePath",
                                        "layoutFile",
                                        "label",
                                        "label_map",
                                        "mask",
                                        "mask_path",
                                        "segmentation",
                                        "png",
                                        "file_name",
                                        "l\xD0\xB0yout_path",
                                        "picture",
                                        "layout path",
                                        "seg_map",
                                        "x"};
    static reading r;
    char json[256], wanted[128];
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        snprintf(json, sizeof json, NO_MAP("\"%s\": \"map.pgm\""), names[i]);
        snprintf(wanted, sizeof wanted,
                 "\"%s\": a layout has no such member, and the picture depends on it: wanted \"layout_path\"",
                 names[i]);
        refused(json, wanted);
        read_layout(&r, json, strlen(json), true); /* --no-layout: nothing is lost */
        CHECK(flis_ok(&r.ctx) && r.layout.count == 1 && !r.layout.label.width, "%s without a map: %s", json,
              r.ctx.error);
        end(&r);
    }
    refused(NO_MAP("\"layout_pathh\": null"), "wanted \"layout_path\"");
    refused(NO_MAP("\"image_path\": \"maps/sea\""), "wanted \"layout_path\"");
    refused(NO_MAP("\"mapFile\": \"sea\""), "wanted \"layout_path\"");
    refused(NO_MAP("\"layout\": {\"file\": \"sea\"}"), "wanted \"layout_path\"");
    refused(NO_MAP("\"images\": [\"sea\"]"), "wanted \"layout_path\"");
    refused(NO_MAP("\"labelmap\": \"map.pgm\""), "labelmap, the ids of a label map's colours, but no layout_path");
    refused(NO_MAP("\"colors\": {\"#000000\": 3}"), "colors, the ids of a label map's colours, but no layout_path");
    refused(NO_MAP("\"layout_path\": null"), "layout_path: got null, wanted the name of a file");
    refused(NO_MAP("\"layout_path\": 7"), "layout_path: got 7, wanted the name of a file");
    refused(NO_MAP("\"layout_path\": [\"map.pgm\"]"), "layout_path: got an array, wanted the name of a file");
    refused(NO_MAP("\"layout_path\": \"\""), "layout_path: got an empty string");
    static const char *const others[] = {NO_MAP("\"title\": \"a harbour\""), NO_MAP("\"author\": 3"),
                                         NO_MAP("\"profile\": \"x\""), "{\"text_label_mapping\": {\"sea\": 3}}"};
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        read_layout(&r, others[i], strlen(others[i]), false);
        CHECK(flis_ok(&r.ctx) && !r.layout.label.width, "%s: %s", others[i], r.ctx.error);
        CHECK(strstr(r.said, "it has no layout_path: every phrase acts everywhere"), "%s: got \"%s\"", others[i],
              r.said);
        end(&r);
    }
}

void test_field_layout_members(void)
{
    reads(MORE("\"colour\": 1"), 3,
          "field.json:1:62: \"colour\" is ignored: a layout has no such member (did you mean \"colors\"?)");
    reads(MORE("\"seed\": 7"), 3, "\"seed\" is ignored: a layout has no such member");
    reads(MORE("\"layoutpath\": \"old.png\""), 3, "\"layoutpath\" is ignored");
    reads(MORE("\"image\": \"photo.jpg\""), 3, "\"image\" is ignored");
    reads(MORE("\"comment\": [1]"), 3, "\"comment\" is ignored");
    static const char *const remarks[] = {MORE("\"caption\": \"the sea\""), MORE("\"_comment\": 1"),
                                          MORE("\"//\": \"x\""), MORE("\"$schema\": \"x\"")};
    for (size_t i = 0; i < sizeof remarks / sizeof *remarks; i++) reads(remarks[i], 3, NULL);
    static reading r;
    char many[1024] = "{\"text_label_mapping\": {\"sea\": 3}" MAP;
    for (int i = 0; i < 20; i++) snprintf(many + strlen(many), 16, ", \"m%d\": 1", i);
    strcat(many, "}");
    read_layout(&r, many, strlen(many), false);
    CHECK(flis_ok(&r.ctx) && r.warnings == 9 && strstr(r.said, "12 more members"), "%d warnings: %s", r.warnings,
          r.said);
    end(&r);
    refused("{\"text_label_maping\": {\"sea\": 3}" MAP "}",
            "field.json:1:2: text_label_mapping is missing: got \"text_label_maping\"");
    refused("{\"textLabelMapping\": {\"sea\": 3}" MAP "}", "text_label_mapping is missing: got \"textLabelMapping\"");
    reads("{\"text_label_mapping\": {\"sea\": 3, \"sea\": 3}" MAP "}", 3, NULL);
    reads("{\"text_label_mapping\": {\"sea\": 3, \"sea\": 4}" MAP "}", 4,
          "field.json:1:35: phrase \"sea\" occurs twice in an object: its last id, 4, replaces 3, as in Python");
    reads("{\"text_label_mapping\": {\"x\": 9}, \"text_label_mapping\": {\"sea\": 3}" MAP "}", 3,
          "text_label_mapping occurs twice: the last one counts");
    reads("{\"text_label_mapping\": {\"sea\": 3}, \"layout_path\": \"absent.png\"" MAP "}", 3,
          "field.json:1:36: layout_path occurs twice: the last one counts");
}

/* ---- Paths of other machines, other files ------------------------------------------------------------------------ */

void test_field_layout_paths(void)
{
    static const char taken[] = "cannot be read: \"map.pgm\" beside the JSON is taken";
    static const struct {
        const char *path, *warned;
    } good[] = {{"C:\\\\maps\\\\new\\\\map.pgm", taken},
                {"c:/maps/map.pgm", taken},
                {"\\\\\\\\server\\\\maps\\\\map.pgm", taken},
                {"maps\\\\map.pgm", NULL},
                {".\\\\map.pgm", NULL},
                {"maps/old\\\\map.pgm", NULL},
                {"/home/someone/maps/map.pgm", taken},
                {"~/maps/map.pgm", taken},
                {"../x/map.pgm", NULL},
                {"./map.pgm", NULL}};
    static const struct {
        const char *path, *wanted;
    } bad[] = {
        {"C:\\\\maps\\\\other.png", "\"C:\\maps\\other.png\" cannot be read, and no \"other.png\" beside the JSON"},
        {"~/other.png", "(~ is the shell's, and no folder)"},
        {"C:\\maps\\new\\map.pgm", "(a backslash of a path is written twice)"},
        {"C:\\new\\bird.pgm",
         "layout_path: a control character, 0x0A: in JSON each backslash of a path is written twice"},
        {"file:///maps/map.pgm", "layout_path: got the URL \"file:///maps/map.pgm\", wanted the path of a file"},
        {"https://example.org/map.pgm", "got the URL"},
        {"HTTP://example.org/map.pgm", "got the URL"},
        {"data:image/png;base64,iVBORw0K", "got the URL"},
        {"maps\\\\other.png",
         "\"maps\\other.png\" cannot be read, neither beside the JSON nor from the working directory"}};
    char json[256];
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        snprintf(json, sizeof json, NO_MAP("\"layout_path\": \"%s\""), good[i].path);
        reads(json, 3, good[i].warned);
    }
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        snprintf(json, sizeof json, NO_MAP("\"layout_path\": \"%s\""), bad[i].path);
        refused(json, bad[i].wanted);
    }
}

void test_field_layout_of_another_kind(void)
{
    static const struct {
        const char *text, *wanted;
        size_t length;
    } bad[] = {{"\x89PNG\r\n\x1a\n....",
                "field.json: is a PNG picture, wanted the JSON of a layout, which names its label map", 12},
               {"\xFF\xD8\xFF\xE0 JFIF", "is a JPEG picture, wanted the JSON of a layout", 9},
               {"<!DOCTYPE html><html></html>", "is an HTML page", 28},
               {"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "is a Git LFS pointer", 57},
               {"[{\"text_label_mapping\": {}}, {}]",
                "field.json:1:1: got a list of 2 objects, wanted one layout: a file has one", 32},
               {"{\"version\": \"5.0\", \"shapes\": []}",
                "text_label_mapping is missing: this looks like an annotation of labelme", 32},
               {"{\"images\": [], \"annotations\": []}", "this looks like an annotation file (COCO)", 33},
               {"", "field.json:1:1: got the end of the text, wanted a value", 0}};
    static reading r;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        const char *got = read_layout(&r, bad[i].text, bad[i].length, false);
        CHECK(strstr(got, bad[i].wanted), "got \"%s\", wanted \"%s\"", got, bad[i].wanted);
        end(&r);
    }
    flis_picture label;
    flis_ctx ctx;
    flis_init(&ctx);
    CHECK(!flis_read_label(&ctx, file_of("map.png", bad[3].text, bad[3].length), &label) &&
              strstr(ctx.error, "map.png: got a Git LFS pointer, not the file itself"),
          "\"%s\"", ctx.error);
    flis_free(&ctx);
}

/* The values of a PGM are the ids, whatever its maximum is (Pillow 9.0.1, the authors' version); later bytes are ignored. */
void test_field_pgm(void)
{
    static const struct {
        const char *text, *warned;
        size_t length;
    } good[] = {{"P2 2 1 15 3 7", NULL, 13},
                {"P5 2 1 15\n\3\7", NULL, 12},
                {"P5 2 1 255\n\3\7\n\n", NULL, 15},
                {"P5 2 1 255\n\3\7more", "4 bytes behind its last pixel are ignored", 17},
                {"P2 2 1 255 3 7 8 9", "3 bytes behind its last pixel are ignored", 18},
                {"P5\r2 1\r255\r\3\7", NULL, 13}};
    static reading r;
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        flis_picture p;
        memset(&r, 0, sizeof r);
        flis_init(&r.ctx);
        r.ctx.warn = collect;
        r.ctx.warn_user = &r;
        CHECK(flis_read_label_memory(&r.ctx, "m", good[i].text, good[i].length, &p) && !memcmp(p.pixels, "\3\7", 2),
              "case %zu: %s", i, r.ctx.error);
        CHECK(good[i].warned ? r.warnings == 1 && strstr(r.said, good[i].warned) : !r.warnings, "case %zu: \"%s\"", i,
              r.said);
        flis_picture_free(&p);
        flis_free(&r.ctx);
    }
}
