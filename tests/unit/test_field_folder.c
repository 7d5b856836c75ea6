/* test_field_folder.c - lists of classes and folders of pictures as people have them: what is another form, broken or without a
 * partner is refused before the first step, with a sentence that names the file and what was wanted.
 */
#include "tests/unit/test.h"
#include "tools/train/train.h"

/* ---- Lists of classes ---------------------------------------------------------------------------------------------- */

#define TEXT(literal) literal, sizeof literal - 1

static const struct {
    const char *text;
    size_t length;
    const char *says; /* NULL: accepted, with label 1 "sky" and label 2 "sea side" */
} LISTS[] = {
    {TEXT("1\tsky\n2\tsea side\n"), NULL},
    {TEXT("1\tsky\n2\tsea side"), NULL},
    {TEXT("\xEF\xBB\xBF"
          "1\tsky\r\n\r\n2\tsea side\r\n"),
     NULL},
    {TEXT("1\tsky\r2\tsea side\r"), NULL},
    {TEXT("# id\tname\tstuff\n001 \t sky \tstuff\tlayout\n  2\tsea side\t\n"), NULL},
    {TEXT("1\tsky\n0: unlabeled\n"), "list:2: got \"0: unlabeled\", wanted a label from 0 to 255, a tab and a name"},
    {TEXT("0: unlabeled\n"), "COCO-Stuff's labels.txt: its numbers are by one higher"},
    {TEXT("Idx\tRatio\tTrain\tVal\tName\n"), "objectInfo150.txt keep the columns Idx and Name"},
    {TEXT("1\t0.1576\t11664\t1172\twall\n"), "got \"1<tab>0.1576\", wanted a label"},
    {TEXT("sky\nsea\n"), "list:1: got \"sky\", wanted a label"},
    {TEXT("1 sky\n"), "list:1: got \"1 sky\""},
    {TEXT("1,sky\n"), "list:1: got \"1,sky\""},
    {TEXT("1;sky\n"), "list:1: got \"1;sky\""},
    {TEXT("sky\t1\n"), "list:1: got \"sky<tab>1\""},
    {TEXT("background:0,0,0::\n"), "list:1: got \"background"},
    {TEXT("{\"1\": \"sky\"}\n"), "list:1: got \"{"},
    {TEXT("-1\tsky\n"), "got \"-1<tab>sky\""},
    {TEXT("+1\tsky\n"), "got \"+1<tab>sky\""},
    {TEXT("1.0\tsky\n"), "got \"1.0<tab>sky\""},
    {TEXT("256\tsky\n"), "got \"256<tab>sky\", wanted a label from 0 to 255"},
    {TEXT("18446744073709551617\tsky\n"), "got \"18446744073709551617<tab>sky\""},
    {TEXT("1\t\n"), "list:1: got \"1\""},
    {TEXT("1\tsky\n2\tsea\n1\tsun\n"), "list:3: label 1 is given twice, first in line 1"},
    {TEXT("1\tcaf\xE9\n"), "list:1: the name of label 1 is not UTF-8"},
    {TEXT("1\tsky\x1B[31m\n"), "list:1: the name of label 1 is not UTF-8, or has control characters"},
    {TEXT("1\tsky\n\0"), "NUL bytes"},
    {TEXT("\xFF\xFE"
          "1\0\t\0s\0"),
     "is UTF-16, wanted UTF-8"},
    {TEXT(""), "has no class"},
    {TEXT("\n# nothing\n\n"), "has no class"},
};

void test_field_classes(void)
{
    for (size_t i = 0; i < sizeof LISTS / sizeof *LISTS; i++) {
        flis_ctx ctx;
        class_names c;
        flis_init(&ctx);
        const bool good = classes_parse(&ctx, "list", LISTS[i].text, LISTS[i].length, &c);
        if (LISTS[i].says)
            CHECK(!good && !c.count && strstr(ctx.error, LISTS[i].says), "list %zu: \"%s\", wanted \"%s\"", i,
                  ctx.error, LISTS[i].says);
        else
            CHECK(good && c.count == 2 && c.name[1] && strcmp(c.name[1], "sky") == 0 && c.name[2] &&
                      strcmp(c.name[2], "sea side") == 0,
                  "list %zu: %zu classes: %s", i, c.count, ctx.error);
        classes_free(&c);
        flis_free(&ctx);
    }
}

/* ---- Folders of pictures ------------------------------------------------------------------------------------------- */

enum { PICTURES = 3, SIDE = 16 };
static const char LIST[] = "0\tsky\n1\tsea\n2\tboat\n";

/* A scratch file with these bytes. */
static void put(const char *name, const char *bytes, size_t length)
{
    flis_ctx ctx;
    flis_init(&ctx);
    CHECK(output_write(&ctx, test_scratch(name), bytes, length), "%s", ctx.error);
    flis_free(&ctx);
}

/* Pictures and maps of half sky and half sea, classes and captions. The names are given to test_scratch before their folders, so
   that these are removed last. */
static void make_data(void)
{
    static const char *const folder[] = {"data", "data/pictures", "data/labels"};
    uint8_t rgb[SIDE * SIDE * 3], label[SIDE * SIDE];
    char name[64], path[3][PATH_ROOM];
    flis_ctx ctx;
    flis_init(&ctx);
    for (int i = 0; i < PICTURES; i++)
        for (int k = 0; k < 2; k++) {
            snprintf(name, sizeof name, "data/%s/%d.png", k ? "labels" : "pictures", i);
            test_scratch(name);
        }
    test_scratch("data/labels/1.pgm");
    test_scratch("data/pictures/1.jpg");
    test_scratch("data/pictures/1.jpeg");
    test_scratch("data/classes.txt");
    test_scratch("data/captions.txt");
    for (int i = 2; i >= 0; i--) test_scratch(folder[i]);
    for (int i = 0; i < 3; i++) {
        snprintf(path[i], PATH_ROOM, "%s", test_scratch(folder[i]));
        CHECK(make_folder(&ctx, path[i]), "%s", ctx.error);
    }
    for (int i = 0; i < SIDE * SIDE; i++) {
        label[i] = i >= SIDE * SIDE / 2;
        for (int c = 0; c < 3; c++) rgb[3 * i + c] = (uint8_t)(i + 80 * c);
    }
    const flis_picture picture = {SIDE, SIDE, 3, rgb}, map = {SIDE, SIDE, 1, label};
    for (int i = 0; i < PICTURES; i++) {
        snprintf(name, sizeof name, "data/pictures/%d.png", i);
        CHECK(flis_write_png(&ctx, test_scratch(name), &picture, NULL), "%s", ctx.error);
        snprintf(name, sizeof name, "data/labels/%d.png", i);
        CHECK(flis_write_png(&ctx, test_scratch(name), &map, NULL), "%s", ctx.error);
    }
    remove(test_scratch("data/labels/1.pgm"));
    remove(test_scratch("data/pictures/1.jpg"));
    put("data/classes.txt", LIST, strlen(LIST));
    put("data/captions.txt", "one\ntwo\nthree\n", 14);
    flis_free(&ctx);
}

/* Opens and checks the folder as a training does. Returns the sentence; "" where all is good. */
static const char *check_data(stage which, const char *out, char digest[65])
{
    static job j;
    static char data[PATH_ROOM], error[4096];
    flis_free(&j.ctx);
    memset(&j, 0, sizeof j);
    snprintf(data, sizeof data, "%s", test_scratch("data"));
    flis_init(&j.ctx);
    j.o.stage = which, j.o.size = 64, j.o.quiet = true, j.o.out = out;
    j.vocab = flis_vocab_read(&j.ctx, test_path("vocab.txt"));
    const bool good = photos_open(&j.ctx, data, which == LAYOUT, j.vocab, &j.folder) && photos_check(&j, &j.folder);
    if (good && digest) strcpy(digest, j.folder.digest);
    snprintf(error, sizeof error, "%s", j.ctx.error);
    CHECK(good == !*error, "%s", error);
    photos_close(&j.folder);
    flis_vocab_free(j.vocab);
    flis_free(&j.ctx);
    return error;
}

static void refused(stage which, const char *file, const char *says)
{
    const char *error = check_data(which, NULL, NULL);
    CHECK(strstr(error, says) && strstr(error, file), "%s: \"%s\", wanted \"%s\"", file, error, says);
    make_data();
}

void test_field_folder(void)
{
    static const char P5[] = "P5 4 3 255\n\0\0\0\0\1\1\1\1\1\1\1\1", VOID[] = "P5 2 2 255\n\377\377\377\377";
    char longer[600] = "1\t";
    make_data();
    CHECK(!*check_data(LAYOUT, NULL, NULL), "%s", check_data(LAYOUT, NULL, NULL));
    CHECK(!*check_data(TEXT2IMAGE, NULL, NULL), "%s", check_data(TEXT2IMAGE, NULL, NULL));
    remove(test_scratch("data/labels/2.png"));
    refused(LAYOUT, "data/labels/2.png", "cannot be opened");
    put("data/pictures/1.png", "\x89PNG\r\n\x1a\n", 8);
    refused(LAYOUT, "data/pictures/1.png", "got a PNG without a header, wanted a picture");
    put("data/pictures/1.png", "hello", 5);
    refused(TEXT2IMAGE, "data/pictures/1.png", "got a file that is no PNG");
    put("data/pictures/1.png", "", 0);
    put("data/pictures/2.png", "", 0);
    put("data/labels/0.png", "", 0);
    refused(LAYOUT, "data/labels/0.png", "(3 of 3 samples cannot be used; the next: 1.png, 2.png)");
    put("data/labels/1.pgm", P5, sizeof P5 - 1);
    refused(LAYOUT, "data/labels/1.pgm", "got 4 x 3 pixels, wanted its picture's 16 x 16, or the same proportions");
    put("data/labels/1.pgm", VOID, sizeof VOID - 1);
    CHECK(!*check_data(LAYOUT, NULL, NULL), "a map of another size, of void alone: %s", check_data(LAYOUT, NULL, NULL));
    make_data();
    put("data/classes.txt", "7\tsky\n", 6);
    refused(LAYOUT, "data/labels", "no label of the maps (0, 1) is in classes.txt");
    put("data/classes.txt", "0: sky\n", 7);
    refused(LAYOUT, "data/classes.txt:1", "wanted a label");
    while (strlen(longer) < 500) strcat(longer, "boat ");
    put("data/classes.txt", longer, strlen(longer));
    refused(LAYOUT, "data/classes.txt: label 1", "leave room for 75");
    put("data/captions.txt", "one\ntwo\n", 8);
    refused(TEXT2IMAGE, "data/captions.txt", "line 3 is missing, wanted the caption of");
    put("data/captions.txt", "one\ntwo\nthree\nfour\n\n", 20);
    refused(TEXT2IMAGE, "data/captions.txt", "got 4 lines, wanted 3");
    put("data/captions.txt", longer, strlen(longer));
    refused(TEXT2IMAGE, "data/captions.txt", "line 2 is missing");
    snprintf(longer + strlen(longer), 20, "\nb\nc\n");
    put("data/captions.txt", longer, strlen(longer));
    refused(TEXT2IMAGE, "data/pictures/0.png", "leave room for 75");
}

/* A JPEG is a picture like others, and its faults are found before the training. */
void test_field_folder_jpeg(void)
{
    static uint8_t rgb[SIDE * SIDE * 3];
    const flis_picture picture = {SIDE, SIDE, 3, rgb};
    size_t length = 0;
    flis_ctx ctx;
    flis_init(&ctx);
    uint8_t *bytes = jpeg_bytes(&ctx, &picture, 75, &length);
    CHECK(bytes, "%s", ctx.error);
    for (int cut = 0; bytes && cut < 2; cut++)
        for (int captions = 0; captions < 2; captions++) {
            const char *file = captions ? "data/pictures/1.jpeg" : "data/pictures/1.jpg";
            make_data();
            remove(test_scratch("data/pictures/1.png"));
            put(file, (const char *)bytes, cut ? length / 2 : length);
            const char *error = check_data(captions ? TEXT2IMAGE : LAYOUT, NULL, NULL);
            CHECK(cut ? strstr(error, file) && strstr(error, "damaged JPEG: it ends early") : !*error, "%s: '%s'", file,
                  error);
            remove(test_scratch(file));
        }
    free(bytes);
    flis_free(&ctx);
}

/* No output is a file of the folder. */
void test_field_folder_outputs(void)
{
    static const char *const name[] = {"data/pictures/1.png", "data/labels/2.png", "data/classes.txt"};
    make_data();
    for (int i = 0; i < 3; i++) {
        char out[PATH_ROOM];
        snprintf(out, sizeof out, "%s", test_scratch(name[i]));
        CHECK(strstr(check_data(LAYOUT, out, NULL), "is an input too"), "%s as output: accepted", name[i]);
    }
}

/* The digest is that of what is learned from: other pictures, maps, names and classes change it, a comment does not. */
void test_field_folder_digest(void)
{
    char first[65], again[65];
    flis_ctx ctx;
    flis_init(&ctx);
    make_data();
    check_data(LAYOUT, NULL, first);
    put("data/classes.txt", "# comment\n0\tsky\n2\tboat\n1\tsea\n", 29);
    CHECK(!*check_data(LAYOUT, NULL, again) && strcmp(first, again) == 0, "a comment changes the digest");
    put("data/classes.txt", "0\tsky\n1\tsea\n2\tship\n", 19);
    CHECK(!*check_data(LAYOUT, NULL, again) && strcmp(first, again) != 0, "another class has the same digest");
    make_data();
    uint8_t label[SIDE * SIDE] = {0};
    const flis_picture map = {SIDE, SIDE, 1, label};
    CHECK(flis_write_png(&ctx, test_scratch("data/labels/1.png"), &map, NULL), "%s", ctx.error);
    CHECK(!*check_data(LAYOUT, NULL, again) && strcmp(first, again) != 0, "another map has the same digest");
    make_data();
    uint8_t rgb[SIDE * SIDE * 3] = {0};
    const flis_picture black = {SIDE, SIDE, 3, rgb};
    CHECK(flis_write_png(&ctx, test_scratch("data/pictures/1.png"), &black, NULL), "%s", ctx.error);
    CHECK(!*check_data(LAYOUT, NULL, again) && strcmp(first, again) != 0, "another picture has the same digest");
    make_data();
    flis_free(&ctx);
}

/* Of more classes than a prompt has room for, the largest are named: 20 of 6 tokens each in a map, of which 12 fit into 75. */
void test_field_folder_room(void)
{
    enum { CLASSES_HERE = 20, TOKENS_EACH = 6, FIT = 12 };
    static job j;
    char list[1024] = "";
    uint8_t label[64 * 64], seen[64 * 64];
    flis_real *pixels = calloc(64 * 64 * 3, sizeof *pixels);
    make_data();
    memset(&j, 0, sizeof j);
    flis_init(&j.ctx);
    for (int i = 0; i < CLASSES_HERE; i++) snprintf(list + strlen(list), 40, "%d\tb b b b b %c\n", i, 'a' + i);
    put("data/classes.txt", list, strlen(list));
    for (int i = 0, at = 0; i < CLASSES_HERE; i++) /* class i has 100 + 10 i pixels, the last all others */
        for (int k = 0; at < 64 * 64 && (k < 100 + 10 * i || i == CLASSES_HERE - 1); k++) label[at++] = (uint8_t)i;
    const flis_picture map = {64, 64, 1, label};
    CHECK(flis_write_png(&j.ctx, test_scratch("data/labels/0.png"), &map, NULL), "%s", j.ctx.error);
    char data[PATH_ROOM];
    snprintf(data, sizeof data, "%s", test_scratch("data"));
    flis_phrase *phrase = NULL;
    size_t phrases = 0;
    int32_t ids[FLIS_TOKENS];
    int16_t class_ids[FLIS_TOKENS], classes = 0;
    j.vocab = flis_vocab_read(&j.ctx, test_path("vocab.txt"));
    CHECK(photos_open(&j.ctx, data, true, j.vocab, &j.folder) && j.folder.tokens[3] == TOKENS_EACH, "%zu tokens: %s",
          j.folder.tokens[3], j.ctx.error);
    CHECK(pixels && photos_sample(&j.ctx, &j.folder, 0, 64, false, pixels, seen, &phrase, &phrases), "%s", j.ctx.error);
    CHECK(phrases == FIT && phrase[0].id == CLASSES_HERE - FIT, "%zu phrases, the first of label %d", phrases,
          phrases ? phrase[0].id : -1);
    CHECK(put_prompt(&j.ctx, j.vocab, phrase, phrases, ids, class_ids, &classes) && classes == FIT * TOKENS_EACH,
          "%d words: %s", classes, j.ctx.error);
    phrases_free(phrase, phrases);
    photos_close(&j.folder);
    flis_vocab_free(j.vocab);
    flis_free(&j.ctx);
    free(pixels);
    make_data();
}
