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
