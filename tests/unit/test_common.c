/* test_common.c - what the programs in tools/ share: numbers, options, globs, text, files through links, pictures, lists. */
#if defined(__unix__) || defined(__APPLE__)
#define _XOPEN_SOURCE 700
#include <unistd.h>
#define HAVE_POSIX 1
#else
#define HAVE_POSIX 0
#endif
#include "tests/unit/test.h"
#include "tools/common/common.h"

#include <stdio.h>

/* ---- Options ---------------------------------------------------------------------------------------------------------- */

void test_common_numbers(void)
{
    uint64_t whole, list[3];
    double number;
    size_t count;
    CHECK(parse_whole("18446744073709551615", &whole) && whole == UINT64_MAX, "2^64-1 is refused");
    static const char *const bad_whole[] = {"", "-1", "+1", " 1", "1 ", "0x1", "1.0", "1e3", "18446744073709551616"};
    for (size_t i = 0; i < sizeof bad_whole / sizeof *bad_whole; i++)
        CHECK(!parse_whole(bad_whole[i], &whole), "'%s' is accepted as a whole number", bad_whole[i]);
    CHECK(parse_number("-2.5e-3", &number) && number == -2.5e-3, "-2.5e-3 is refused");
    CHECK(parse_number("1e-400", &number) && number < 1e-300, "a number below the range is not 0");
    static const char *const bad_number[] = {"",   "nan",   "inf",    "0x1", "1,5", "1 ",
                                             " 1", "1e999", "-1e999", "--1", "1e"};
    for (size_t i = 0; i < sizeof bad_number / sizeof *bad_number; i++)
        CHECK(!parse_number(bad_number[i], &number), "'%s' is accepted as a number", bad_number[i]);
    CHECK(parse_list("1,2,40", 1, 40, list, 3, &count) && count == 3 && list[2] == 40, "1,2,40 is refused");
    static const char *const bad_list[] = {"", ",", "1,", ",1", "1,,2", "0", "41", "1,2,3,4", "1, 2", "a"};
    for (size_t i = 0; i < sizeof bad_list / sizeof *bad_list; i++)
        CHECK(!parse_list(bad_list[i], 1, 40, list, 3, &count), "'%s' is accepted as a list", bad_list[i]);
}

typedef struct given {
    bool flag;
    const char *text;
    uint64_t whole;
    double number;
    int word, calls;
} given;

static bool take_call(void *options, const char *text)
{
    ((given *)options)->calls++;
    return strcmp(text, "good") == 0;
}

static const char *const WORDS[] = {"red", "green", NULL};
enum { FIRST = 1, SECOND = 2, BOTH = FIRST | SECOND };
static const option TABLE[] = {
    {"text", 't', OPTION_WHOLE, offsetof(given, whole), "N", "of the second command", .commands = SECOND},
    {"flag", 'f', OPTION_FLAG, offsetof(given, flag), NULL, "a flag", .commands = BOTH},
    {"text", 't', OPTION_TEXT, offsetof(given, text), "T", "a text", .commands = FIRST},
    {"whole", 0, OPTION_WHOLE, offsetof(given, whole), "N", "a whole number", .commands = BOTH},
    {"number", 0, OPTION_NUMBER, offsetof(given, number), "X", "a number", -1, 1, .commands = BOTH},
    {"word", 0, OPTION_WORD, offsetof(given, word), "W", "a word", .words = WORDS},
    {"call", 0, OPTION_CALL, 0, "C", "a call", .parse = take_call, .wanted = "good"},
};
static const program PROGRAM = {.name = "test",
                                .arguments = "",
                                .summary = "",
                                .options = TABLE,
                                .count = sizeof TABLE / sizeof *TABLE,
                                .command = FIRST};

void test_common_options(void)
{
    char a[][24] = {"test", "one",    "--whole=7", "-t",     "x",    "--number", "-0.5", "two",
                    "-f",   "--word", "green",     "--call", "good", "-",        "--",   "--flag"};
    enum { COUNT = sizeof a / sizeof *a };
    char *argv[COUNT + 1] = {NULL};
    given g = {.word = -1};
    int words = 0;
    for (size_t i = 0; i < COUNT; i++) argv[i] = a[i];
    CHECK(options_read(&PROGRAM, &g, COUNT, argv, &words) == -1, "valid options are refused");
    CHECK(g.flag && g.text && strcmp(g.text, "x") == 0 && g.whole == 7 && g.number == -0.5 && g.word == 1 &&
              g.calls == 1,
          "an option has not reached its field");
    CHECK(words == 4 && strcmp(argv[0], "one") == 0 && strcmp(argv[1], "two") == 0 && strcmp(argv[2], "-") == 0 &&
              strcmp(argv[3], "--flag") == 0,
          "got %d words, wanted one, two, - and --flag", words);
    char b[][24] = {"test", "--text", "first", "--text=last=one"};
    char *again[] = {b[0], b[1], b[2], b[3], NULL};
    CHECK(options_read(&PROGRAM, &g, 4, again, &words) == -1 && strcmp(g.text, "last=one") == 0,
          "the last of two equal options must win");
}

/* The value of an option before options are read: the last one, no other option's value, nothing after "--". */
void test_common_options_find(void)
{
    static const struct {
        const char *argv[6], *value;
    } cases[] = {
        {{"test", "--word", "red", "--word=green", NULL}, "green"},
        {{"test", "-t", "--word", "red", NULL}, NULL},
        {{"test", "-f", "--word", "red", NULL}, "red"},
        {{"test", "--call=x", "one", "--", "--word=red", NULL}, NULL},
        {{"test", "--unknown", "--word", NULL}, NULL},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char text[6][16];
        char *argv[7] = {NULL};
        int count = 0;
        for (; cases[i].argv[count]; count++) {
            strcpy(text[count], cases[i].argv[count]);
            argv[count] = text[count];
        }
        const char *got = options_find(&PROGRAM, count, argv, "word");
        CHECK(got && cases[i].value ? strcmp(got, cases[i].value) == 0 : got == cases[i].value, "row %zu: got %s", i,
              got ? got : "none");
    }
    const given from = {.whole = 1, .number = 0.5}, to = {.whole = 2, .number = 0.5, .word = 1, .flag = true};
    char text[80] = "";
    options_list_changes(&PROGRAM, &from, &to, text, sizeof text);
    CHECK(strcmp(text, "--flag --whole 2 --word green") == 0, "changes: %s", text);
}

/* ---- Text --------------------------------------------------------------------------------------------------------------- */

void test_common_glob(void)
{
    static const struct {
        const char *pattern, *text;
        bool match;
    } cases[] = {
        {"", "", true},          {"*", "", true},          {"*", "a.b.c", true},   {"a*c", "abcbc", true},
        {"a*c", "abcb", false},  {"?", "a", true},         {"?", "", false},       {"a?c", "abc", true},
        {"a", "ab", false},      {"*b*d", "abcd", true},   {"[a-c]x", "bx", true}, {"[a-c]x", "dx", false},
        {"[!a-c]x", "dx", true}, {"[!a]", "a", false},     {"[]]", "]", true},     {"[a-]", "-", true},
        {"*[0-9]", "x12", true}, {"*[0-9]", "x1y", false}, {"[", "[", false},      {"a**b", "ab", true},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        CHECK(glob_match(cases[i].pattern, cases[i].text) == cases[i].match, "%s and %s: wanted %s", cases[i].pattern,
              cases[i].text, cases[i].match ? "a match" : "none");
    CHECK(ends_in("a.png", ".png") && !ends_in(".png", ".png") && !ends_in("a.pngx", ".png"),
          "ends_in gives a wrong answer");
}

static void check_text(buffer *b, const char *wanted)
{
    CHECK(b->at && strcmp(b->at, wanted) == 0, "got %s, wanted %s", b->at ? b->at : "nothing", wanted);
    free(b->at);
    *b = (buffer){NULL, 0, 0};
}

void test_common_text(void)
{
    flis_ctx ctx;
    buffer b = {NULL, 0, 0};
    flis_init(&ctx);
    for (int i = 0; i < 300; i++) buffer_put(&ctx, &b, "%d,", i % 10);
    CHECK(b.length == 600 && strlen(b.at) == 600 && b.at[599] == ',', "a growing text has wrong bytes");
    free(b.at);
    b = (buffer){NULL, 0, 0};
    buffer_json_string(&ctx, &b, "a\"\\\n\x01\xC3\xA9");
    check_text(&b, "\"a\\\"\\\\\\u000a\\u0001\xC3\xA9\"");
    buffer_json_number(&ctx, &b, 0.1, 0);
    buffer_put(&ctx, &b, " ");
    buffer_json_number(&ctx, &b, 0.1, 17);
    check_text(&b, "0.1 0.10000000000000001");
    buffer_json_number(&ctx, &b, HUGE_VAL, 9);
    buffer_json_number(&ctx, &b, -HUGE_VAL, 9);
    buffer_json_number(&ctx, &b, HUGE_VAL - HUGE_VAL, 9);
    check_text(&b, "\"Infinity\"\"-Infinity\"\"NaN\"");
    char cut[8] = "ab";
    text_append(cut, sizeof cut, "%s", "cdefghij");
    CHECK(strcmp(cut, "abcdefg") == 0, "got %s, wanted abcdefg", cut);
    flis_free(&ctx);
}

void test_common_shortest_number(void)
{
    char text[32];
    uint64_t state = 1;
    for (int i = 0; i < 2000; i++) {
        double x;
        state = state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        memcpy(&x, &state, sizeof x);
        if (x - x != 0) continue;
        shortest_number(x, text);
        CHECK(strtod(text, NULL) == x, "%s does not read back as %.17g", text, x);
    }
    shortest_number(2, text);
    CHECK(strcmp(text, "2") == 0, "got %s, wanted 2", text);
}

/* The output of a function, at most 255 bytes. */
static const char *printed(void print(FILE *stream))
{
    static char text[256];
    FILE *stream = tmpfile();
    size_t length = 0;
    if (stream) {
        print(stream);
        rewind(stream);
        length = fread(text, 1, sizeof text - 1, stream);
        fclose(stream);
    }
    text[length] = 0;
    return text;
}

static void print_all(FILE *stream)
{
    print_base64(stream, (const uint8_t *)"light w", 7);
    fputc(' ', stream);
    print_base64(stream, (const uint8_t *)"lig", 3);
    fputc(' ', stream);
    print_html(stream, "<a href=\"x\">&");
    fputc(' ', stream);
    print_json_string(stream, "\t\"");
    fputc(' ', stream);
    print_json_number(stream, HUGE_VAL);
    fputc(' ', stream);
    print_name(stream, "a\x1B[2J\n\xFF\xC3\xA9");
}

void test_common_print(void)
{
    const char *wanted = "bGlnaHQgdw== bGln &lt;a href=&quot;x&quot;&gt;&amp; \"\\u0009\\\"\" null a?[2J??\xC3\xA9";
    const char *got = printed(print_all);
    CHECK(strcmp(got, wanted) == 0, "got %s, wanted %s", got, wanted);
}

/* ---- Files -------------------------------------------------------------------------------------------------------------- */

void test_common_paths(void)
{
    flis_ctx ctx;
    const char *start;
    size_t length;
    flis_init(&ctx);
    CHECK(folder_length("a/b/c") == 4 && folder_length("c") == 0 && strcmp(base_name("a/b/c.st"), "c.st") == 0,
          "a path is split wrongly");
    name_stem("a.b/c.d.png", &start, &length);
    CHECK(length == 3 && strncmp(start, "c.d", 3) == 0, "got the stem %.*s, wanted c.d", (int)length, start);
    char *with = path_with(&ctx, "m.st", ".state");
    CHECK(with && strcmp(with, "m.st.state") == 0, "got %s", with ? with : "nothing");
    free(with);
    flis_free(&ctx);
}

static void check_file(const char *path, const char *wanted)
{
    flis_ctx ctx;
    size_t length;
    flis_init(&ctx);
    char *text = flis_read_file(&ctx, path, 1000, &length);
    CHECK(wanted ? text && strcmp(text, wanted) == 0 : !text, "%s: got %s, wanted %s", path, text ? text : "no file",
          wanted ? wanted : "no file");
    free(text);
    flis_free(&ctx);
}

/* A file gets its name only when it is complete; after a failure the old file is unchanged. */
void test_common_output(void)
{
    flis_ctx ctx;
    flis_output o;
    char path[1024], partial[1040];
    strcpy(path, test_scratch("output.txt"));
    snprintf(partial, sizeof partial, "%s.partial", path);
    flis_init(&ctx);
    FILE *stream = flis_output_open(&ctx, path, &o);
    if (stream) fputs("new", stream);
    check_file(path, NULL);
    CHECK(flis_output_close(&ctx, &o), "%s", ctx.error);
    check_file(path, "new");
    check_file(partial, NULL);
    CHECK(flis_output_close(&ctx, &o), "a closed output cannot be closed again");
    if (flis_output_open(&ctx, path, &o)) flis_output_abort(&o);
    check_file(path, "new");
    check_file(partial, NULL);
    CHECK(output_check(&ctx, path), "%s", ctx.error);
    check_file(path, "new");
    if (flis_output_open(&ctx, path, &o)) flis_fail(&ctx, "the work failed");
    CHECK(!flis_output_close(&ctx, &o), "an output is closed successfully although the work failed");
    check_file(path, "new");
    check_file(partial, NULL);
    flis_free(&ctx);
    CHECK(output_remove(path) && !output_remove(path), "a file is not removed");
}

static void refuses(const char *path, const char *sentence)
{
    flis_ctx ctx;
    flis_init(&ctx);
    CHECK(!output_write(&ctx, path, "x", 1) && strstr(ctx.error, sentence), "%s: got '%s', wanted '%s'", path,
          ctx.error, sentence);
    flis_free(&ctx);
}

/* A link stays and the file that it leads to is replaced. Folders, devices and loops of links are refused. */
void test_common_links(void)
{
#if HAVE_POSIX
    flis_ctx ctx;
    char real[1024], link[1024], second[1024], to[1024] = "";
    strcpy(real, test_scratch("real.txt"));
    strcpy(link, test_scratch("link.txt"));
    strcpy(second, test_scratch("second.txt"));
    flis_init(&ctx);
    CHECK(symlink("real.txt", link) == 0 && symlink(link, second) == 0, "no links can be made");
    CHECK(output_write(&ctx, second, "one", 3), "%s", ctx.error);
    check_file(real, "one");
    CHECK(output_write(&ctx, link, "two", 3), "%s", ctx.error);
    check_file(real, "two");
    CHECK(readlink(second, to, sizeof to - 1) > 0 && strcmp(to, link) == 0, "a link was replaced by a file");
    CHECK(same_file(second, real) && !same_file(link, "/dev/null"), "same_file gives a wrong answer");
    CHECK(output_remove(second), "the file behind a link is not removed");
    check_file(real, NULL);
    remove(second);
    remove(link);
    CHECK(symlink("second.txt", link) == 0 && symlink("link.txt", second) == 0, "no loop of links can be made");
    refuses(link, "circle");
    remove(second);
    remove(link);
    refuses("/", "is a folder");
    refuses("/no/such/folder/x", "cannot be written");
    flis_free(&ctx);
#else
    refuses("no/such/folder/x", "cannot be written");
#endif
}

void test_common_digest(void)
{
    flis_ctx ctx;
    char hex[65] = "";
    const char *path = test_scratch("abc.txt");
    flis_init(&ctx);
    CHECK(output_write(&ctx, path, "abc", 3) && file_digest(&ctx, path, hex), "%s", ctx.error);
    CHECK(strcmp(hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad") == 0, "got %s", hex);
    CHECK(!file_digest(&ctx, "/no/such/file", hex) && strstr(ctx.error, "/no/such/file"), "got '%s'", ctx.error);
    flis_free(&ctx);
}

/* ---- Lists of files ------------------------------------------------------------------------------------------------------- */

void test_common_lists(void)
{
    static const char lines[] = "pictures/one.png\r\n\ntwo.png  \nthree.png";
    flis_ctx ctx;
    names a = {0}, b = {0};
    bool folder = true;
    const char *path = test_scratch("list.txt");
    flis_init(&ctx);
    CHECK(output_write(&ctx, path, lines, sizeof lines - 1) && list_files(&ctx, path, PICTURE_ENDINGS, &a, &folder),
          "%s", ctx.error);
    CHECK(!folder && a.count == 3 && strcmp(a.name[0], "pictures/one.png") == 0 && strcmp(a.name[1], "two.png") == 0,
          "a list's lines are read wrongly");
    names_add(&ctx, &b, "labels", "two.pgm", 7);
    names_add(&ctx, &b, "labels", "one.pgm", 7);
    const char *partner = name_partner(&ctx, &a, 0, &b, true, "labels");
    CHECK(partner && strcmp(partner, "labels/one.pgm") == 0, "got the partner %s", partner ? partner : "none");
    CHECK(!name_partner(&ctx, &a, 2, &b, true, "labels") && strstr(ctx.error, "three.png"), "got '%s'", ctx.error);
    flis_free(&ctx);
    flis_init(&ctx);
    CHECK(!name_partner(&ctx, &a, 0, &b, false, "labels") && strstr(ctx.error, "2 files, wanted 3"), "got '%s'",
          ctx.error);
    flis_free(&ctx);
    names_free(&a);
    names_free(&b);
}

/* A folder's files by their endings, sorted; hidden ones are left out. */
void test_common_folder(void)
{
    static const char *const files[] = {"pics/d.ppm", "pics/b.jpg", "pics/c.jpeg", "pics/a.png",
                                        "pics/e.gif", "pics/f.pgm", "pics/.g.jpg"};
    flis_ctx ctx;
    names a = {0}, b = {0};
    char folder[PATH_ROOM];
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) test_scratch(files[i]);
    snprintf(folder, sizeof folder, "%s", test_scratch("pics"));
    flis_init(&ctx);
    CHECK(make_folder(&ctx, folder), "%s", ctx.error);
    CHECK(list_folder(&ctx, folder, PICTURE_ENDINGS, &a) &&
              strstr(ctx.error, "no file that ends in .png, .jpg, .jpeg or .ppm"),
          "an empty folder: '%s'", ctx.error);
    flis_clear_error(&ctx);
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) output_write(&ctx, test_scratch(files[i]), "x", 1);
    CHECK(list_folder(&ctx, folder, PICTURE_ENDINGS, &a) && a.count == 4, "%s: got %zu pictures", ctx.error, a.count);
    for (size_t i = 0; i < a.count; i++) CHECK(*base_name(a.name[i]) == "abcd"[i], "picture %zu is %s", i, a.name[i]);
    CHECK(list_folder(&ctx, folder, LABEL_ENDINGS, &b) && b.count == 2 && strcmp(base_name(b.name[1]), "f.pgm") == 0,
          "got %zu label maps", b.count);
    CHECK(!list_folder(&ctx, test_scratch("absent"), LABEL_ENDINGS, &b) && flis_ok(&ctx), "a folder that is absent");
    flis_free(&ctx);
    names_free(&a);
    names_free(&b);
}

/* Another kind of file in place of a list or of a picture is named. */
void test_common_kinds(void)
{
    static const struct {
        const char *bytes, *what;
        bool list;
    } cases[] = {
        {"<!DOCTYPE html><html>", "an HTML page", false},
        {"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer", false},
        {"\x89PNG\r\n\x1A\n", "a PNG", false},
        {"GIF89a", "a picture (GIF", false},
        {"PK\3\4abcdefgh", "a zip archive", false},
        {"{\"a\": 1}", "a JSON text", false},
        {"%PDF-1.7", "a PDF document", false},
        {"", "empty", false},
        {"a.png\n", "a file that is no PNG", true},
    };
    flis_ctx ctx;
    flis_init(&ctx);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        names list = {0};
        flis_picture picture = {0};
        bool folder;
        const char *path = test_scratch("kind.png");
        CHECK(output_write(&ctx, path, cases[i].bytes, strlen(cases[i].bytes)), "%s", ctx.error);
        const bool listed = list_files(&ctx, path, PICTURE_ENDINGS, &list, &folder);
        CHECK(listed == cases[i].list && (listed || strstr(ctx.error, cases[i].what)), "a list: \"%s\" lacks \"%s\"",
              ctx.error, cases[i].what);
        flis_clear_error(&ctx);
        CHECK(!read_picture(&ctx, path, &picture) && strstr(ctx.error, "wanted a picture") &&
                  strstr(ctx.error, cases[i].what),
              "a picture: \"%s\" lacks \"%s\"", ctx.error, cases[i].what);
        flis_clear_error(&ctx);
        names_free(&list);
    }
    flis_free(&ctx);
}

/* ---- Pictures ------------------------------------------------------------------------------------------------------------- */

enum { WIDTH = 6, HEIGHT = 4 };

static void make_picture(flis_picture *p, uint8_t pixels[WIDTH * HEIGHT * 3])
{
    *p = (flis_picture){WIDTH, HEIGHT, 3, pixels};
    for (size_t i = 0; i < WIDTH * HEIGHT * 3; i++) pixels[i] = (uint8_t)(i * 37 % 256);
}

static void check_read(const char *path, const flis_picture *wanted)
{
    flis_ctx ctx;
    flis_picture got = {0};
    flis_init(&ctx);
    CHECK(read_picture(&ctx, path, &got), "%s", ctx.error);
    CHECK(got.width == wanted->width && got.height == wanted->height && got.channels == 3 && got.pixels &&
              memcmp(got.pixels, wanted->pixels, got.width * got.height * 3) == 0,
          "%s: a wrong picture is read", path);
    free(got.pixels);
    flis_free(&ctx);
}

void test_common_pictures(void)
{
    flis_ctx ctx;
    uint8_t pixels[WIDTH * HEIGHT * 3], ppm[200];
    flis_picture p, got = {0};
    size_t length = 0;
    char path[1024];
    make_picture(&p, pixels);
    flis_init(&ctx);
    uint8_t *png = flis_png_bytes(&ctx, &p, NULL, &length);
    strcpy(path, test_scratch("common.png"));
    CHECK(png && output_write(&ctx, path, png, length), "%s", ctx.error);
    check_read(path, &p);
    const int head = snprintf((char *)ppm, sizeof ppm, "P6\n# a comment\n%d %d\n255\n", WIDTH, HEIGHT);
    memcpy(ppm + head, pixels, sizeof pixels);
    strcpy(path, test_scratch("common.ppm"));
    CHECK(output_write(&ctx, path, ppm, (size_t)head + sizeof pixels), "%s", ctx.error);
    check_read(path, &p);
    CHECK(output_write(&ctx, path, ppm, (size_t)head + sizeof pixels - 1), "%s", ctx.error);
    CHECK(!read_picture(&ctx, path, &got) && strstr(ctx.error, "PPM"), "got '%s'", ctx.error);
    flis_free(&ctx);
    for (size_t cut = 0; png && cut < length; cut += 5) { /* a PNG cut short is refused, wherever it ends */
        flis_init(&ctx);
        strcpy(path, test_scratch("cut.png"));
        CHECK(output_write(&ctx, path, png, cut) && !read_picture(&ctx, path, &got), "%zu of %zu bytes are taken", cut,
              length);
        free(got.pixels);
        flis_free(&ctx);
    }
    free(png);
}

void test_common_resize(void)
{
    flis_ctx ctx;
    uint8_t pixels[WIDTH * HEIGHT * 3];
    flis_picture p;
    flis_real out[8 * 8 * 3], half[WIDTH * HEIGHT * 3 / 4];
    make_picture(&p, pixels);
    flis_init(&ctx);
    half_picture(pixels, WIDTH, HEIGHT, half);
    const double mean = (pixels[0] + pixels[3] + pixels[WIDTH * 3] + pixels[WIDTH * 3 + 3]) / 4.0;
    CHECK(fabs((double)half[0] - (mean / 127.5 - 1)) < 1e-6, "got %g, wanted the mean of four pixels", (double)half[0]);
    /* Resizing to the same size changes nothing, and a picture of one colour keeps that colour at any size. */
    p.width = p.height = 4;
    CHECK(resize_picture(&ctx, &p, 4, out), "%s", ctx.error);
    for (size_t i = 0; i < 4 * 4 * 3; i++)
        CHECK(fabs((double)out[i] - (pixels[i] / 127.5 - 1)) < 1e-6, "value %zu: got %g", i, (double)out[i]);
    memset(pixels, 100, sizeof pixels);
    for (size_t side = 1; side <= 8; side++) {
        CHECK(resize_picture(&ctx, &p, side, out), "%s", ctx.error);
        for (size_t i = 0; i < side * side * 3; i++)
            CHECK(fabs((double)out[i] - (100 / 127.5 - 1)) < 1e-6, "side %zu, value %zu: got %g", side, i,
                  (double)out[i]);
    }
    flis_free(&ctx);
}

/* ---- Presets -------------------------------------------------------------------------------------------------------------- */

void test_common_presets(void)
{
    const preset *a = preset_find("tinyA"), *full = preset_find("sd14");
    CHECK(a && a->clip.vocab == 1000 && a->unet.context == a->clip.width, "tinyA differs from SPEC");
    CHECK(full && full->clip.vocab == 49408 && full->unet.channels == 320 && full->vae.channels == 128,
          "sd14 is not Stable Diffusion v1.4");
    CHECK(!preset_find("tinyC") && !preset_find(""), "an unknown preset is found");
}
