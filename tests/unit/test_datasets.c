/* test_datasets.c - the authors' data sets: classes, void labels, phrases of a label map. */
#include "tests/unit/test.h"
#include "tools/common/common.h"

static void check_class(const dataset *d, int label, const char *wanted)
{
    const char *got = d->classes.name[label];
    CHECK(got && strcmp(got, wanted) == 0, "%s %d: got %s, wanted %s", d->name, label, got ? got : "none", wanted);
}

void test_datasets_classes(void)
{
    flis_ctx ctx;
    dataset d;
    flis_init(&ctx);
    CHECK(dataset_open(&ctx, "COCO", &d), "%s", ctx.error);
    CHECK(d.classes.count == 182, "COCO: got %zu classes, wanted 182", d.classes.count);
    CHECK(d.is_void[255] && !d.is_void[0] && !d.classes.name[182], "COCO: void is 255 alone");
    check_class(&d, 0, "person");
    check_class(&d, 68, "desk");
    check_class(&d, 109, "desk");
    check_class(&d, 181, "wood");
    dataset_close(&d);
    CHECK(dataset_open(&ctx, "ade20k", &d), "%s", ctx.error);
    CHECK(d.classes.count == 150, "ADE20K: got %zu classes, wanted 150", d.classes.count);
    CHECK(d.is_void[0] && !d.is_void[255] && !d.classes.name[0], "ADE20K: void is 0 alone");
    check_class(&d, 1, "wall");
    check_class(&d, 150, "flag");
    dataset_close(&d);
    CHECK(!dataset_open(&ctx, "cityscapes", &d), "a name that is neither a data set nor a file is taken");
    flis_free(&ctx);
}

void test_datasets_phrases(void)
{
    static const uint8_t map[] = {255, 156, 0, 156, 154, 0}, wrong[] = {0, 200};
    flis_ctx ctx;
    dataset d;
    flis_phrase *phrase = NULL;
    size_t count = 0;
    flis_init(&ctx);
    dataset_open(&ctx, "coco", &d);
    CHECK(dataset_phrases(&ctx, &d, "map.png", map, sizeof map, &phrase, &count), "%s", ctx.error);
    CHECK(count == 3 && strcmp(phrase[0].text, "person") == 0 && strcmp(phrase[1].text, "sea") == 0 &&
              strcmp(phrase[2].text, "sky") == 0 && phrase[2].id == 156,
          "got %zu phrases, wanted person, sea, sky", count);
    phrases_free(phrase, count);
    CHECK(dataset_phrases(&ctx, &d, "map.png", map, 1, &phrase, &count) && count == 0, "void alone has no phrase");
    phrases_free(phrase, count);
    CHECK(!dataset_phrases(&ctx, &d, "map.png", wrong, sizeof wrong, &phrase, &count), "label 200 is taken");
    CHECK(strcmp(ctx.error, "map.png: has label 200, which is no class of coco and not void") == 0, "%s", ctx.error);
    phrases_free(phrase, count);
    dataset_close(&d);
    flis_free(&ctx);
}

/* A data set's folders, with label maps by their names in them. */
static void make_maps(flis_ctx *ctx, const char *top, const char *const *path)
{
    char full[PATH_ROOM];
    for (; *path; path++) {
        for (size_t i = 0; (*path)[i]; i++) {
            if ((*path)[i] != '/') continue;
            snprintf(full, sizeof full, "%s/%.*s", top, (int)i, *path);
            make_folder(ctx, full);
        }
        snprintf(full, sizeof full, "%s/%s", top, *path);
        output_write(ctx, full, "", 0);
    }
    CHECK(flis_ok(ctx), "%s", ctx->error);
}

typedef struct place {
    const char *picture, *map; /* map NULL: there is none */
} place;

static void check_places(flis_ctx *ctx, const dataset *d, const char *top, const place *row, size_t rows)
{
    char got[PATH_ROOM], wanted[PATH_ROOM];
    for (size_t i = 0; i < rows; i++) {
        const bool found = dataset_label_path(ctx, d, top, row[i].picture, got);
        if (row[i].map) snprintf(wanted, sizeof wanted, "%s/%s", top, row[i].map);
        else CHECK(!found && strstr(ctx->error, "there is no such label map"), "%s: got %s", row[i].picture, got);
        CHECK(!row[i].map || (found && strcmp(got, wanted) == 0), "%s of %s: got %s, wanted %s", row[i].picture,
              d->name, found ? got : ctx->error, row[i].map);
        flis_clear_error(ctx);
    }
}

/* Where a picture's label map is looked for: of coco, of ade20k, and of a list of classes, which tries the folders of both. */
void test_datasets_folders(void)
{
    static const char *const MAPS[] = {"root.png",
                                       "both.png",
                                       "stuffthingmaps_trainval2017/train2017/1.png",
                                       "stuffthingmaps_trainval2017/val2017/1.png",
                                       "stuffthingmaps_trainval2017/train2017/2.png",
                                       "stuffthingmaps_trainval2017/val2017/3.pgm",
                                       "stuffthingmaps_trainval2017/val2017/both.png",
                                       "annotations/training/1.png",
                                       "annotations/training/4.png",
                                       "annotations/validation/4.png",
                                       NULL};
    static const char TRAIN[] = "stuffthingmaps_trainval2017/train2017/1.png",
                      VAL[] = "stuffthingmaps_trainval2017/val2017/1.png",
                      THREE[] = "stuffthingmaps_trainval2017/val2017/3.pgm";
    static const place COCO[] = {{"a/train2017/1.jpg", TRAIN},
                                 {"a/val2017/1.jpg", VAL},
                                 {"val2017/2.jpg", "stuffthingmaps_trainval2017/train2017/2.png"},
                                 {"train2017/3.jpg", THREE},
                                 {"both", "stuffthingmaps_trainval2017/val2017/both.png"},
                                 {"root.jpg", "root.png"},
                                 {"4.jpg", NULL}};
    static const place ADE[] = {{"images/training/1.jpg", "annotations/training/1.png"},
                                {"images/validation/4.jpg", "annotations/validation/4.png"},
                                {"images/training/4.jpg", "annotations/training/4.png"},
                                {"3.jpg", NULL}};
    static const place LIST[] = {{"train2017/1.jpg", TRAIN},
                                 {"val2017/1.jpg", VAL},
                                 {"train2017/3.jpg", THREE},
                                 {"val2017/both.jpg", "both.png"},
                                 {"training/4.jpg", "annotations/training/4.png"},
                                 {"4.jpg", "annotations/validation/4.png"},
                                 {"5.jpg", NULL}};
    char top[PATH_ROOM / 2], list[PATH_ROOM];
    dataset d;
    flis_ctx ctx;
    flis_init(&ctx);
    snprintf(top, sizeof top, "%s", test_scratch("maps"));
    snprintf(list, sizeof list, "%s", test_scratch("classes.tsv"));
    make_folder(&ctx, top);
    make_maps(&ctx, top, MAPS);
    output_write(&ctx, list, "1\tsky\n", 6);
    CHECK(dataset_open(&ctx, "coco", &d), "%s", ctx.error);
    check_places(&ctx, &d, top, COCO, sizeof COCO / sizeof *COCO);
    dataset_close(&d);
    CHECK(dataset_open(&ctx, "ADE20K", &d), "%s", ctx.error);
    check_places(&ctx, &d, top, ADE, sizeof ADE / sizeof *ADE);
    dataset_close(&d);
    CHECK(dataset_open(&ctx, list, &d), "%s", ctx.error);
    CHECK(d.is_void[0] && d.is_void[255] && !d.is_void[1], "void of a list: 0 and 255, which it does not name");
    check_places(&ctx, &d, top, LIST, sizeof LIST / sizeof *LIST);
    dataset_close(&d);
    flis_free(&ctx);
}
