/* test_field_cli.c - what people give on the command line: names that are close to others, values of foreign texts, base64, warnings;
   and the negative prompt. */
#include "tests/unit/test.h"
#include "tools/common/common.h"

/* ---- Names -------------------------------------------------------------------------------------------------------------- */

void test_field_cli_distance(void)
{
    static const struct {
        const char *typed, *name;
        size_t distance;
    } cases[] = {
        {"steps", "steps", 0},     {"Steps", "steps", 0},          {"no_layout", "no-layout", 0}, {"step", "steps", 1},
        {"stpes", "steps", 1},     {"stepss", "steps", 1},         {"stels", "steps", 1},         {"setsp", "steps", 2},
        {"neg", "negative", 2},    {"trace-d", "trace-digest", 3}, {"abcdef", "steps", SIZE_MAX}, {"n", "m", SIZE_MAX},
        {"eta", "seed", SIZE_MAX},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const size_t got = typed_distance(cases[i].typed, strlen(cases[i].typed), cases[i].name);
        CHECK(got == cases[i].distance, "%s is %zu from %s, wanted %zu", cases[i].typed, got, cases[i].name,
              cases[i].distance);
    }
    char longest[200];
    memset(longest, 'a', sizeof longest);
    CHECK(typed_distance(longest, sizeof longest, "steps") == SIZE_MAX, "a long name is close to steps");
    static const foreign_option table[] = {{"cfg_scale", "scale", "A"}, {"H", "size", "B"}, {NULL, NULL, NULL}};
    CHECK(find_foreign(table, "cfg-scale=7", 9) == table && find_foreign(table, "cfg_scale", 9) == table,
          "cfg-scale is not found");
    CHECK(find_foreign(table, "H", 1) == table + 1 && !find_foreign(table, "h", 1), "H is not told from h");
    CHECK(!find_foreign(NULL, "H", 1), "found in no table");
}

typedef struct given {
    const char *text;
    uint64_t whole;
} given;
static const option TABLE[] = {
    {"file", 'f', OPTION_ARGUMENT, 0, "FILE", "an argument", .commands = 0},
    {"text", 't', OPTION_TEXT, offsetof(given, text), "T", "a text", .commands = 0},
    {"whole", 0, OPTION_WHOLE, offsetof(given, whole), "N", "a whole number", 1, 9, .commands = 0},
};
static const program PROGRAM = {
    .name = "test", .arguments = "", .summary = "", .options = TABLE, .count = sizeof TABLE / sizeof *TABLE};

void test_field_cli_arguments(void)
{
    char a[][16] = {"test", "-f", "one", "two", "--text", "x", "--file=three", "--", "-f"};
    enum { COUNT = sizeof a / sizeof *a };
    char *argv[COUNT];
    given g = {NULL, 5};
    int words = 0;
    for (size_t i = 0; i < COUNT; i++) argv[i] = a[i];
    CHECK(options_read(&PROGRAM, &g, COUNT, argv, &words) == -1 && words == 4, "got %d arguments, wanted 4", words);
    CHECK(strcmp(argv[0], "one") == 0 && strcmp(argv[1], "two") == 0 && strcmp(argv[2], "three") == 0 &&
              strcmp(argv[3], "-f") == 0 && g.text && strcmp(g.text, "x") == 0,
          "arguments are not in their order");
    char wanted[128];
    CHECK(option_set(&PROGRAM, &g, "whole", "7", wanted, sizeof wanted) && g.whole == 7, "7 is refused");
    CHECK(!option_set(&PROGRAM, &g, "whole", "10", wanted, sizeof wanted) && g.whole == 7 && strstr(wanted, "1 to 9"),
          "10 is accepted: wanted %s", wanted);
    CHECK(!option_set(&PROGRAM, &g, "none", "7", wanted, sizeof wanted), "an option that is not there is set");
}

/* The authors' scripts have '_' where options here have '-'. */
void test_field_cli_underscores(void)
{
    static const option table[] = {
        {"a-b", 0, OPTION_WHOLE, offsetof(given, whole), "N", "comes first", 1, 9, .commands = 0},
        {"a_b", 0, OPTION_TEXT, offsetof(given, text), "T", "has the exact name", .commands = 0},
        {"data-root", 0, OPTION_TEXT, offsetof(given, text), "DIR", "a folder", .commands = 1},
        {"n", 'n', OPTION_WHOLE, offsetof(given, whole), "N", "a letter", 1, 9, .commands = 0},
    };
    static const foreign_option foreign[] = {{"data_root", "n", "it is -n N here"}, {NULL, NULL, NULL}};
    program p = {
        .name = "test", .arguments = "", .summary = "", .options = table, .count = 4, .command = 1, .foreign = foreign};
    static const struct {
        const char *typed, *text;
        uint64_t whole;
    } cases[] = {{"--data-root=x", "x", 5}, {"--data_root=x_y", "x_y", 5}, {"--a-b=7", NULL, 7}, {"--a_b=7", "7", 5}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char typed[24], name[] = "test";
        char *argv[] = {name, typed, NULL};
        given g = {NULL, 5};
        int words;
        strcpy(typed, cases[i].typed);
        CHECK(options_read(&p, &g, 2, argv, &words) == -1, "%s is refused", cases[i].typed);
        CHECK(g.whole == cases[i].whole && (cases[i].text ? g.text && strcmp(g.text, cases[i].text) == 0 : !g.text),
              "%s: got %llu and %s", cases[i].typed, (unsigned long long)g.whole, g.text ? g.text : "no text");
    }
}

/* ---- Texts -------------------------------------------------------------------------------------------------------------- */

void test_field_cli_base64(void)
{
    flis_ctx ctx;
    flis_init(&ctx);
    uint8_t bytes[67];
    for (size_t i = 0; i < sizeof bytes; i++) bytes[i] = (uint8_t)(i * 151 + 3);
    for (size_t n = 0; n <= sizeof bytes; n++) {
        buffer text = {NULL, 0, 0};
        size_t length = 99;
        buffer_base64(&ctx, &text, bytes, n);
        uint8_t *back = base64_bytes(&ctx, text.at ? text.at : "", &length);
        CHECK(back && length == n && memcmp(back, bytes, n) == 0, "%zu bytes do not come back", n);
        free(back);
        free(text.at);
    }
    buffer text = {NULL, 0, 0};
    buffer_base64(&ctx, &text, (const uint8_t *)"foob", 4); /* RFC 4648, section 10 */
    CHECK(text.at && strcmp(text.at, "Zm9vYg==") == 0, "foob is %s", text.at);
    free(text.at);
    static const char *const bad[] = {"Z", "Zm9", "Zm9vY===", "====", "Zm 9", "Zm9v\n", "Zm=v", "Zm9*"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        size_t length;
        uint8_t *back = base64_bytes(&ctx, bad[i], &length);
        CHECK(!back, "'%s' is accepted", bad[i]);
        free(back);
    }
    CHECK(flis_ok(&ctx), "%s", ctx.error);
    flis_free(&ctx);
}

/* The same sentence is printed once; the table of sentences may be full. */
void test_field_cli_warnings(void)
{
    warnings w = {.name = "test", .off = true};
    print_warning(&w, "a");
    CHECK(w.count == 0, "a warning that is off is counted");
    enum { ROOM = sizeof w.printed / sizeof *w.printed };
    w.off = false;
    w.count = ROOM - 2;
    print_warning(&w, "(a warning of the tests, once)");
    print_warning(&w, "(a warning of the tests, once)");
    CHECK(w.count == ROOM - 1, "the same sentence is printed twice");
    print_warning(&w, "(the last one that is remembered)");
    print_warning(&w, "(one more)");
    CHECK(w.count == ROOM, "%zu sentences are remembered, wanted %d", w.count, (int)ROOM);
}

/* ---- The negative prompt ------------------------------------------------------------------------------------------------ */

/* Hashes of what the text encoder computed, of both prompts. */
typedef struct encoded {
    uint64_t prompt, negative, noise;
    size_t count;
} encoded;

static void take(void *user, const char *name, const flis_tensor *x)
{
    encoded *e = user;
    char hex[65];
    const bool negative = strncmp(name, "clip.uncond.", 12) == 0;
    uint64_t *sum = negative ? &e->negative : strncmp(name, "clip.", 5) == 0 ? &e->prompt : &e->noise;
    if (sum == &e->noise && strcmp(name, "x_T") != 0) return;
    flis_tensor_digest(x, hex);
    *sum = *sum * 31 + test_hash(hex, 64);
    e->count += negative;
}

/* A text as the negative prompt is encoded as the same text is as a prompt, and changes nothing else. */
/* slow */
void test_field_cli_negative(void)
{
    flis_ctx ctx;
    flis_init(&ctx);
    const char *path = test_scratch("tiny.safetensors");
    flis_vocab *vocab = flis_vocab_read(&ctx, test_path("vocab.txt"));
    if (vocab) test_write_tiny_model(&ctx, path, flis_vocab_size(vocab));
    flis_layout sea = {0}, fog = {0};
    flis_layout_add(&ctx, &sea, "a sea", -1);
    flis_layout_add(&ctx, &fog, "gray fog", -1);
    flis_options options;
    flis_options_default(&options);
    options.width = options.height = 64;
    options.sampling.steps = 1;
    encoded e[4] = {{0, 0, 0, 0}};
    uint64_t pixels[4] = {0};
    const char *const negative[4] = {NULL, "", "gray fog", NULL};
    ctx.trace = take;
    for (size_t i = 0; i < 4; i++) {
        flis_picture picture = {0};
        ctx.trace_user = &e[i];
        options.negative = negative[i];
        CHECK(flis_generate(&ctx, path, vocab, i == 3 ? &fog : &sea, &options, &picture), "%s", ctx.error);
        if (picture.pixels) pixels[i] = test_hash(picture.pixels, 64 * 64 * 3);
        flis_picture_free(&picture);
    }
    ctx.trace = NULL;
    CHECK(e[2].count > 10 && e[2].negative == e[3].prompt, "the negative prompt is not encoded as a prompt is");
    CHECK(e[2].prompt == e[0].prompt && e[2].noise == e[0].noise, "the negative prompt changes prompt or noise");
    CHECK(pixels[1] == pixels[0] && e[1].negative == e[0].negative, "\"\" is not the default");
    CHECK(pixels[2] != pixels[0], "the negative prompt changes no pixel");
    flis_picture picture = {0};
    options.negative = "fog";
    options.sampling.scale = 1;
    CHECK(!flis_generate(&ctx, path, vocab, &sea, &options, &picture) && strstr(ctx.error, "no effect"), "%s",
          ctx.error);
    flis_clear_error(&ctx);
    char text[2 * 76 + 1] = "";
    for (int i = 0; i < 76; i++) strcat(text, "a ");
    options.negative = text;
    options.sampling.scale = 2;
    CHECK(!flis_generate(&ctx, path, vocab, &sea, &options, &picture) && strstr(ctx.error, "76 tokens"), "%s",
          ctx.error);
    flis_clear_error(&ctx);
    text[2 * 75] = 0;
    CHECK(flis_generate(&ctx, path, vocab, &sea, &options, &picture), "75 tokens: %s", ctx.error);
    flis_picture_free(&picture);
    flis_layout_free(&sea);
    flis_layout_free(&fog);
    flis_vocab_free(vocab);
    flis_free(&ctx);
}
