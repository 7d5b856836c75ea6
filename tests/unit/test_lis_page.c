/* test_lis_page.c - the page of `flis lis --grid`: colours of labels, links, rows. */
#include "tests/unit/test.h"
#include "tools/common/common.h"
#include "tools/flis/lis_page.h"

/* All colours differ by 12 of 255 or more in some channel, and none is near white or black, which is what is around them. */
void test_lis_page_colours(void)
{
    uint8_t a[3], b[3];
    for (int i = 0; i < CLASS_LABELS; i++) {
        label_colour(i, a);
        CHECK(a[0] + a[1] + a[2] > 60 && a[0] + a[1] + a[2] < 740, "label %d: %d,%d,%d is near the page's colour", i,
              a[0], a[1], a[2]);
        for (int k = 0; k < i; k++) {
            int most = 0;
            label_colour(k, b);
            for (int c = 0; c < 3; c++) most = abs(a[c] - b[c]) > most ? abs(a[c] - b[c]) : most;
            CHECK(most >= 12, "labels %d and %d: the colours are %d apart, wanted 12", k, i, most);
        }
    }
}

/* Without void, with it, and with all 256 labels: read back, every pixel has its label's colour; void is gray. */
void test_lis_page_png(void)
{
    enum { W = 16, H = 16 };
    static const int most[] = {3, 256, 256};
    uint8_t pixels[W * H], rgb[3];
    bool is_void[CLASS_LABELS] = {false};
    flis_ctx ctx;
    flis_init(&ctx);
    for (int t = 0; t < 3; t++) {
        const flis_picture map = {W, H, 1, pixels};
        flis_picture back = {0, 0, 0, NULL};
        size_t length = 0;
        for (int i = 0; i < W * H; i++) pixels[i] = (uint8_t)(i % most[t]);
        is_void[255] = t == 2;
        uint8_t *png = label_png(&ctx, &map, is_void, &length);
        CHECK(png && output_write(&ctx, test_scratch("palette.png"), png, length), "%s", ctx.error);
        CHECK(read_picture(&ctx, test_scratch("palette.png"), &back), "%s", ctx.error);
        for (int i = 0; back.pixels && i < W * H; i++) {
            if (is_void[pixels[i]]) memset(rgb, 128, sizeof rgb);
            else label_colour(pixels[i], rgb);
            CHECK(memcmp(rgb, back.pixels + 3 * i, 3) == 0, "case %d: pixel %d has not the colour of label %d", t, i,
                  pixels[i]);
        }
        free(png);
        free(back.pixels);
    }
    flis_free(&ctx);
}

/* The text of a file; free() it. */
static char *text_of(flis_ctx *ctx, const char *path)
{
    size_t length;
    char *text = flis_read_file(ctx, path, 1 << 20, &length);
    CHECK(text != NULL, "%s", ctx->error);
    return text;
}

static void check_link(flis_ctx *ctx, const char *page, const char *file, const char *wanted)
{
    flis_output o;
    FILE *stream = flis_output_open(ctx, test_scratch("link"), &o);
    if (stream) print_link(stream, page, file);
    CHECK(stream && flis_output_close(ctx, &o), "%s", ctx->error);
    char *got = text_of(ctx, test_scratch("link"));
    CHECK(got && strcmp(got, wanted) == 0, "%s from %s: got '%s', wanted '%s'", file, page, got ? got : "", wanted);
    free(got);
}

void test_lis_page_links(void)
{
    char page[PATH_ROOM], file[PATH_ROOM];
    char top[PATH_ROOM / 2];
    flis_ctx ctx;
    flis_init(&ctx);
    snprintf(top, sizeof top, "%s", test_scratch("."));
    for (int i = 0; i < 4; i++) {
        static const char *const FOLDER[] = {"a", "a/b", "ab", "c"};
        make_folder(&ctx, test_scratch(FOLDER[i]));
    }
    CHECK(flis_ok(&ctx), "%s", ctx.error);
    static const struct {
        const char *page, *file, *link;
    } row[] = {
        {"page.html", "x.jpg", "x.jpg"},
        {"page.html", "a/b/x.jpg", "a/b/x.jpg"},
        {"a/page.html", "x.jpg", "../x.jpg"},
        {"ab/page.html", "a/x.jpg", "../a/x.jpg"},
        {"a/b/page.html", "c/x.jpg", "../../c/x.jpg"},
        {"a/../c/page.html", "c/../a/./x.jpg", "../a/x.jpg"},
        {"page.html", "a/50%: a&b \"c\"?#d+\xc3\xa9.jpg", "a/50%25%3A%20a%26b%20%22c%22%3F%23d%2B%C3%A9.jpg"},
    };
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        snprintf(page, sizeof page, "%s/%s", top, row[i].page);
        snprintf(file, sizeof file, "%s/%s", top, row[i].file);
        check_link(&ctx, page, file, row[i].link);
    }
    check_link(&ctx, "page.html", "tools/x.jpg", "tools/x.jpg");
    check_link(&ctx, "tools/flis/../page.html", "x.jpg", "../x.jpg");
    flis_free(&ctx);
}

/* Row 0 has void and two classes, row 1 a label without a name. */
static bool read_label(void *user, size_t i, flis_picture *out)
{
    static const uint8_t MAP[2][6] = {{255, 0, 0, 156, 156, 0}, {7, 7, 7, 7, 7, 7}};
    if (i == 2) return flis_fail(user, "map 2 is lost");
    *out = (flis_picture){3, 2, 1, flis_alloc(user, 6, 1)};
    if (out->pixels) memcpy(out->pixels, MAP[i], 6);
    return out->pixels != NULL;
}

static size_t times(const char *text, const char *part)
{
    size_t n = 0;
    for (const char *at = text; (at = strstr(at, part)) != NULL; at += strlen(part)) n++;
    return n;
}

static void check_rows(flis_ctx *ctx)
{
    char *text = text_of(ctx, test_scratch("page.html"));
    if (!text) return;
    CHECK(times(text, "<figure id=") == 2 && times(text, "</figure>") == 2, "wanted 2 rows");
    CHECK(times(text, "data:image/png;base64,iVBORw0KGgo") == 2, "wanted 2 layouts in the page");
    CHECK(times(text, "width=\"128\" height=\"64\" alt=\"layout\"") == 2, "wanted layouts of 128 x 64");
    CHECK(times(text, "width=\"512\" height=\"256\" alt=\"person sky\" src=\"a%20b.jpg\"") == 1,
          "the picture of row 1");
    CHECK(times(text, "<i class=\"c0\"></i>person</span>") == 2 && times(text, "<i class=\"c156\"></i>sky</span>") == 2,
          "each class, in its row and at the end");
    CHECK(times(text, "class=\"c255\"") == 0, "void is no class");
    CHECK(times(text, "“person sky”") == 0, "a prompt that is the classes' names is not repeated");
    CHECK(times(text, "“&lt;b&gt; &amp; &quot;quoted&quot;”") == 1, "another prompt is shown, escaped");
    CHECK(times(text, "label 7") == 2, "a label without a name");
    CHECK(times(text, "loading=\"lazy\"") == 2 && times(text, "<a href=\"c.jpg\">") == 1, "pictures load when seen");
    CHECK(times(text, "seed 18446744073709551615") == 1, "the seed");
    CHECK(times(text, "<title>A &lt; B</title>") == 1, "the title is escaped");
    free(text);
}

void test_lis_page_rows(void)
{
    flis_ctx ctx;
    dataset coco;
    char first[PATH_ROOM], second[PATH_ROOM], path[PATH_ROOM];
    flis_init(&ctx);
    snprintf(first, sizeof first, "%s", test_scratch("a b.jpg"));
    snprintf(second, sizeof second, "%s", test_scratch("c.jpg"));
    snprintf(path, sizeof path, "%s", test_scratch("page.html"));
    const lis_page_row row[3] = {{first, NULL, UINT64_MAX}, {second, "<b> & \"quoted\"", 1}, {second, "", 2}};
    CHECK(dataset_open(&ctx, "coco", &coco), "%s", ctx.error);
    free(coco.classes.name[7]);
    coco.classes.name[7] = NULL;
    lis_page page = {"A < B", &coco, 512, 256, row, 2, read_label, &ctx};
    CHECK(lis_page_write(&ctx, path, &page), "%s", ctx.error);
    check_rows(&ctx);
    page.rows = 3;
    output_remove(path);
    CHECK(!lis_page_write(&ctx, path, &page) && strcmp(ctx.error, "map 2 is lost") == 0, "got '%s'", ctx.error);
    CHECK(kind_of_file(path) == FILE_ABSENT, "a page that is not complete is left");
    dataset_close(&coco);
    flis_free(&ctx);
}
