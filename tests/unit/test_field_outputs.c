/* test_field_outputs.c - checks of outputs_check, flis_output_open's temporary names, pipes and descriptors, and the name of a
 * layout's label map. The command lines of all programs are tried by tests/sh/field_outputs.sh.
 */
#if defined(__unix__) || defined(__APPLE__)
#define _XOPEN_SOURCE 700
#include <sys/stat.h>
#include <unistd.h>
#define HAVE_POSIX 1
#else
#define HAVE_POSIX 0
#endif
#include "tests/unit/test.h"
#include "tools/common/common.h"

enum { ROOM = 1024 };

static void put(flis_ctx *ctx, const char *path, const char *text)
{
    CHECK(output_write(ctx, path, text, strlen(text)), "%s", ctx->error);
}

static bool holds(const char *path, const char *text)
{
    flis_ctx ctx = FLIS_CTX_PLAIN;
    size_t length;
    char *got = flis_read_file(&ctx, path, 1000, &length);
    const bool same = got && strcmp(got, text) == 0;
    free(got);
    return same;
}

/* out[0..1] and in[0] are checked; wanted NULL: accepted. */
static void check(const char *in, const char *first, const char *second, const char *wanted)
{
    flis_ctx ctx;
    const char *const inputs[] = {NULL, in}, *const outputs[] = {first, NULL, second};
    flis_init(&ctx);
    const bool good = outputs_check(&ctx, inputs, 2, outputs, 3);
    CHECK(good == !wanted && (!wanted || strstr(ctx.error, wanted)), "input %s, outputs %s, %s: got \"%s\", wanted %s",
          in ? in : "none", first, second ? second : "none", ctx.error, wanted ? wanted : "success");
    flis_free(&ctx);
}

/* Wrong: names compared as texts; links not followed; files that do not exist yet taken for different. */
void test_field_outputs_check(void)
{
    flis_ctx ctx;
    char a[ROOM], b[ROOM], partial[ROOM + 16], there[ROOM];
    flis_init(&ctx);
    snprintf(a, sizeof a, "%s", test_scratch("a.txt"));
    snprintf(b, sizeof b, "%s", test_scratch("b.txt"));
    snprintf(partial, sizeof partial, "%s.partial", a);
    snprintf(there, sizeof there, "%s", test_scratch("absent/x"));
    put(&ctx, a, "one");
    check(a, b, NULL, NULL);
    check(a, NULL, NULL, NULL);
    check(NULL, a, b, NULL);
    check(a, a, NULL, "the output is the input");
    check(a, b, a, "the output is the input");
    check(NULL, b, b, "named for two outputs");
    check(NULL, a, a, "named for two outputs");
    check(NULL, a, partial, "kept until it is complete");
    check(NULL, there, NULL, "cannot be written");
    CHECK(holds(a, "one") && kind_of_file(b) == FILE_ABSENT && kind_of_file(partial) == FILE_ABSENT,
          "the check changed files");
    CHECK(output_remove(a), "%s stays", a);
    flis_free(&ctx);
}

#if HAVE_POSIX
/* Wrong: only the name given is looked at; a folder's files are not; a link that leads nowhere is a file of its own. */
void test_field_outputs_links(void)
{
    flis_ctx ctx;
    char folder[ROOM], deep[ROOM + 16], file[ROOM + 32], hard[ROOM + 16], link_to[ROOM + 16], dangling[ROOM + 16];
    char next[ROOM + 16], new[ROOM + 32], other[ROOM + 32], spelled[ROOM + 64];
    flis_init(&ctx);
    snprintf(folder, sizeof folder, "%s", test_scratch("data"));
    snprintf(deep, sizeof deep, "%s/unet", folder);
    snprintf(file, sizeof file, "%s/x", deep);
    snprintf(hard, sizeof hard, "%s.hard", folder);
    snprintf(link_to, sizeof link_to, "%s.link", folder);
    snprintf(dangling, sizeof dangling, "%s.none", folder);
    snprintf(next, sizeof next, "%s.next", folder);
    snprintf(new, sizeof new, "%s/new", deep);
    snprintf(other, sizeof other, "%s/other", deep);
    snprintf(spelled, sizeof spelled, "%s/../unet/./new", deep);
    CHECK(mkdir(folder, 0700) == 0 && mkdir(deep, 0700) == 0, "no folders");
    put(&ctx, file, "one");
    CHECK(link(file, hard) == 0 && symlink(file, link_to) == 0 && symlink(new, dangling) == 0 &&
              symlink(deep, next) == 0,
          "no links");
    check(file, hard, NULL, "the output is the input");
    check(hard, link_to, NULL, "the output is the input");
    check(folder, file, NULL, "the output is the input");
    check(folder, hard, NULL, "the output is the input");
    check(folder, link_to, NULL, "the output is the input");
    check(folder, new, NULL, NULL);
    check(folder, other, new, NULL);
    check(NULL, hard, link_to, "are one file");
    check(NULL, spelled, new, "are one file");
    check(NULL, dangling, new, "are one file");
    snprintf(spelled, sizeof spelled, "%s/new", next);
    check(NULL, spelled, dangling, "are one file");
    put(&ctx, dangling, "two");
    CHECK(holds(new, "two"), "what a link points to is not written");
    check(NULL, "/dev/null", "/dev/null", NULL);
    const char *const made[] = {file, hard, link_to, dangling, next, new};
    for (size_t i = 0; i < sizeof made / sizeof *made; i++) remove(made[i]);
    rmdir(deep);
    rmdir(folder);
    flis_free(&ctx);
}

/* Bytes for a descriptor go where it stands; nothing is replaced or removed. */
void test_field_outputs_descriptor(void)
{
    flis_ctx ctx;
    struct stat info;
    char path[ROOM], name[64];
    flis_init(&ctx);
    snprintf(path, sizeof path, "%s", test_scratch("descriptor"));
    FILE *file = fopen(path, "wb");
    CHECK(file && fputs("one", file) >= 0 && fflush(file) == 0, "no file");
    if (!file) return;
    snprintf(name, sizeof name, "/dev/fd/%d", fileno(file));
    if (stat(name, &info) == 0) {
        put(&ctx, name, "two");
        CHECK(!output_remove(name) && kind_of_file(path) == FILE_REGULAR, "an open file was removed");
    } else fputs("two", file); /* this system does not name descriptors */
    fputs("three", file);
    fclose(file);
    CHECK(holds(path, "onetwothree"), "the bytes are not where the descriptor stood");
    remove(path);
    flis_free(&ctx);
}

/* Wrong: the new file has the permissions of any new file. */
void test_field_outputs_permissions(void)
{
    flis_ctx ctx;
    struct stat info;
    char path[ROOM];
    flis_init(&ctx);
    snprintf(path, sizeof path, "%s", test_scratch("private"));
    put(&ctx, path, "one");
    CHECK(chmod(path, 0640) == 0, "no permissions");
    put(&ctx, path, "two");
    CHECK(stat(path, &info) == 0 && (info.st_mode & 0777) == 0640, "got permissions %o", (unsigned)info.st_mode & 0777);
    remove(path);
    flis_free(&ctx);
}
#endif

/* A file of the user that has the temporary name stays, and two writers of one file do not mix. Wrong: opened to write. */
void test_field_outputs_partial(void)
{
    flis_ctx ctx;
    flis_output one, two;
    char path[ROOM], partial[ROOM + 16];
    flis_init(&ctx);
    snprintf(path, sizeof path, "%s", test_scratch("p.txt"));
    snprintf(partial, sizeof partial, "%s.partial", path);
    put(&ctx, partial, "mine");
    FILE *a = flis_output_open(&ctx, path, &one), *b = flis_output_open(&ctx, path, &two);
    CHECK(a && b, "%s", ctx.error);
    if (!a || !b) return;
    fputs("one", a);
    fputs("two", b);
    CHECK(strcmp(one.partial, two.partial) != 0, "both write %s", one.partial);
    CHECK(flis_output_close(&ctx, &one) && holds(path, "one"), "%s", ctx.error);
    CHECK(flis_output_close(&ctx, &two) && holds(path, "two"), "%s", ctx.error);
    CHECK(holds(partial, "mine"), "a file of the user was overwritten");
    remove(path);
    remove(partial);
    flis_free(&ctx);
}

/* The file of the label map is an input that only the layout names. */
void test_field_outputs_label(void)
{
    static const char json[] = "{\"text_label_mapping\": {\"sky\": 1}, \"layout_path\": \"elsewhere/label.pgm\"}";
    static const char map[] = "P2\n1 1\n255\n1\n";
    flis_ctx ctx;
    flis_layout layout;
    char path[ROOM], label[ROOM];
    flis_init(&ctx);
    snprintf(path, sizeof path, "%s", test_scratch("layout.json"));
    snprintf(label, sizeof label, "%s", test_scratch("label.pgm"));
    put(&ctx, path, json);
    put(&ctx, label, map);
    CHECK(flis_layout_read(&ctx, path, &layout), "%s", ctx.error);
    CHECK(layout.label_path && same_file(layout.label_path, label), "got %s, wanted %s",
          layout.label_path ? layout.label_path : "no path", label);
    const uint8_t other[1] = {2};
    CHECK(flis_layout_set_label(&ctx, &layout, other, 1, 1) && !layout.label_path, "the map of a caller has a path");
    flis_layout_free(&layout);
    remove(path);
    remove(label);
    flis_free(&ctx);
}
