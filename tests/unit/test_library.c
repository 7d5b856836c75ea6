/* test_library.c - the high-level interface: a model that is loaded once, input from memory, failures, replacing files.
 *
 * The model is a tiny one of formula weights, at 64 x 64 pixels and few steps; tests/sh/library.sh tests the same
 * functions with the small model and the installed library.
 */
#if defined(__unix__) || defined(__APPLE__)
#define _POSIX_C_SOURCE 200809L
#include <sys/stat.h>
#include <unistd.h>
#define HAVE_POSIX 1
#else
#define HAVE_POSIX 0
#endif
#include "tests/unit/test.h"

#define VOCAB "vocab.txt"

static const char *const LAYOUTS[3] = {"../examples/harbour.json", "../examples/meadow.json", "../examples/night.json"};

/* Writes the tiny model once for all checks; the vocabulary is the caller's. */
static flis_vocab *begin(flis_ctx *ctx, char path[1024])
{
    flis_init(ctx);
    flis_vocab *vocab = flis_vocab_read(ctx, test_path(VOCAB));
    snprintf(path, 1024, "%s", test_scratch("library.safetensors"));
    if (vocab) test_write_tiny_model(ctx, path, flis_vocab_size(vocab));
    CHECK(vocab && flis_ok(ctx), "%s", ctx->error);
    return vocab;
}

static flis_options small_options(void)
{
    flis_options options;
    flis_options_default(&options);
    options.width = options.height = 64;
    options.sampling.kind = FLIS_DDIM;
    options.sampling.steps = 1;
    return options;
}

static bool same_picture(const flis_picture *a, const flis_picture *b)
{
    return a->pixels && b->pixels && a->width == b->width && a->height == b->height && a->channels == b->channels &&
           memcmp(a->pixels, b->pixels, a->width * a->height * a->channels) == 0;
}

static void count_loads(void *user, const char *what, size_t done, size_t total)
{
    if (strcmp(what, "load") == 0 && done == total) ++*(int *)user;
}

static void whole_file(flis_ctx *ctx, const char *path, char **bytes, size_t *length)
{
    *bytes = flis_read_file(ctx, path, (size_t)1 << 30, length);
    CHECK(*bytes, "%s", ctx->error);
}

/* ---- Versions and structs ----------------------------------------------------------------------------------------- */

void test_library_version(void)
{
    char text[32];
    const int n = flis_version();
    snprintf(text, sizeof text, "%d.%d.%d", n / 10000, n / 100 % 100, n % 100);
    CHECK(n == FLIS_VERSION_NUMBER && strcmp(text, FLIS_VERSION) == 0, "the number is %s, the text %s", text,
          FLIS_VERSION);
    CHECK(strcmp(flis_version_text(), FLIS_VERSION) == 0, "the library says %s", flis_version_text());
}

void test_library_abi(void)
{
    size_t offset = 1, size = 0;
    CHECK(flis_abi("flis_tensor", &offset, &size) && offset == 0 && size == sizeof(flis_tensor), "%zu %zu", offset,
          size);
    CHECK(flis_abi("flis_options.seed", &offset, &size) && offset == offsetof(flis_options, seed) && size == 8,
          "%zu %zu", offset, size);
    CHECK(flis_abi("flis_real", NULL, &size) && size == sizeof(flis_real), "%zu", size);
    CHECK(!flis_abi("flis_tensor.nothing", &offset, &size) && !flis_abi(NULL, NULL, NULL), "an unknown name is found");
}

/* ---- The model handle --------------------------------------------------------------------------------------------- */

/* A model that is loaded once, in each of five ways, generates three pictures: they equal those of flis_generate, and
   no weight is read again if all parts are in memory. Wrong: a part freed, shared or read twice. */
void test_library_model(void)
{
    static const unsigned parts[5] = {FLIS_PARTS_NONE, FLIS_PARTS_PAINT, FLIS_PART_TEXT | FLIS_PART_DECODER,
                                      FLIS_PART_TEXT | FLIS_PART_UNET, FLIS_PARTS_PAINT};
    static const int loaded_later[5] = {9, 0, 3, 3, 0};
    flis_ctx ctx;
    flis_layout layout[3];
    flis_picture wanted[3];
    flis_options options = small_options();
    int loads = 0;
    char path[1024];
    flis_vocab *vocab = begin(&ctx, path);
    ctx.progress = count_loads;
    ctx.progress_user = &loads;
    for (int i = 0; i < 3; i++) {
        flis_layout_read(&ctx, test_path(LAYOUTS[i]), &layout[i]);
        CHECK(flis_generate(&ctx, path, vocab, &layout[i], &options, &wanted[i]), "%s", ctx.error);
    }
    CHECK(loads == 9, "three pictures loaded %d parts, wanted 9", loads);
    for (int way = 0; way < 5; way++) {
        char *bytes = NULL;
        size_t length;
        if (way == 4) whole_file(&ctx, path, &bytes, &length);
        flis_model *model = bytes ? flis_model_load_memory(&ctx, "model", bytes, length, parts[way])
                                  : flis_model_load(&ctx, path, parts[way]);
        CHECK(model, "way %d: %s", way, ctx.error);
        free(bytes); /* all parts are loaded: the bytes are no longer needed */
        CHECK(!flis_model_clip(model) == !(parts[way] & FLIS_PART_TEXT) &&
                  !flis_model_unet(model) == !(parts[way] & FLIS_PART_UNET) &&
                  !flis_model_vae(model) == !(parts[way] & FLIS_PART_DECODER),
              "way %d: wrong parts are loaded", way);
        loads = 0;
        for (int i = 0; i < 3 && model; i++) {
            flis_picture picture;
            const size_t used = ctx.arena.used;
            CHECK(flis_model_generate(&ctx, model, vocab, &layout[i], &options, &picture), "way %d: %s", way,
                  ctx.error);
            CHECK(same_picture(&picture, &wanted[i]), "way %d, layout %d: a different picture", way, i);
            CHECK(ctx.arena.used == used, "way %d: the arena has %zu bytes in use, wanted %zu", way, ctx.arena.used,
                  used);
            flis_picture_free(&picture);
        }
        CHECK(loads == loaded_later[way], "way %d: generating loaded %d parts, wanted %d", way, loads,
              loaded_later[way]);
        flis_model_free(&model);
        CHECK(!model, "a freed model is not NULL");
        flis_model_free(&model);
    }
    for (int i = 0; i < 3; i++) {
        flis_layout_free(&layout[i]);
        flis_picture_free(&wanted[i]);
    }
    flis_vocab_free(vocab);
    flis_free(&ctx);
}

typedef struct halves {
    size_t half, in_file, other;
} halves;

static bool count_halves(flis_ctx *ctx, void *user, const char *name, flis_param *param)
{
    halves *h = user;
    (void)name;
    const bool held = param->half || param->packed || param->value;
    if (param->rank >= 2 && !param->table)
        ++*(param->entry && !held ? &h->in_file : param->half && !param->packed ? &h->half : &h->other);
    return flis_ok(ctx);
}

/* Weights stay in the file, also when all parts are loaded; packed, F16 stays F16 in memory. Wrong: widened when loaded. */
void test_library_halves(void)
{
    static const unsigned parts[] = {FLIS_PART_UNET, FLIS_PARTS_PAINT};
    for (int i = 0; i < 4; i++) {
        flis_ctx ctx;
        halves h = {0, 0, 0};
        const flis_choice choice = {.packed = i % 2};
        flis_init(&ctx);
        const char *path = test_path("../models/flis-small.safetensors");
        flis_model *model = flis_model_load_with(&ctx, path, &choice, parts[i / 2]);
        CHECK(model && flis_model_unet(model), "%s", ctx.error);
        if (model) flis_unet_walk(&ctx, (flis_unet *)flis_model_unet(model), count_halves, &h);
        CHECK((choice.packed ? h.half : h.in_file) > 100 && !h.other && !(choice.packed ? h.in_file : h.half),
              "packed %d: %zu matrices are halves, %zu are in the file, %zu are neither", i % 2, h.half, h.in_file,
              h.other);
        flis_model_free(&model);
        flis_free(&ctx);
    }
}

/* ---- From memory -------------------------------------------------------------------------------------------------- */

/* x_T from an array gives the same picture as the same x_T drawn from the seed. */
void test_library_noise(void)
{
    enum { N = 4 * 8 * 8 };
    flis_ctx ctx;
    flis_layout layout = {0};
    flis_options options = small_options();
    flis_picture drawn, given, other;
    float normal[N];
    flis_real x[N];
    char path[1024];
    flis_vocab *vocab = begin(&ctx, path);
    flis_layout_add(&ctx, &layout, "sea", -1);
    CHECK(flis_generate(&ctx, path, vocab, &layout, &options, &drawn), "%s", ctx.error);
    flis_rng_seed(&ctx.rng, FLIS_RNG_CPU, options.seed);
    flis_randn(&ctx.rng, normal, N);
    for (int i = 0; i < N; i++) x[i] = normal[i];
    options.noise_values = x;
    options.noise_count = N;
    CHECK(flis_generate(&ctx, path, vocab, &layout, &options, &given), "%s", ctx.error);
    CHECK(same_picture(&drawn, &given), "the same noise gives a different picture");
    x[17] += 1;
    CHECK(flis_generate(&ctx, path, vocab, &layout, &options, &other), "%s", ctx.error);
    CHECK(!same_picture(&drawn, &other), "other noise gives the same picture");
    flis_picture_free(&drawn);
    flis_picture_free(&given);
    flis_picture_free(&other);
    flis_layout_free(&layout);
    flis_vocab_free(vocab);
    flis_free(&ctx);
}

static bool same_layout(const flis_layout *a, const flis_layout *b)
{
    bool same = a->count == b->count && a->label.width == b->label.width && a->label.height == b->label.height &&
                a->label.channels == b->label.channels &&
                memcmp(a->label.pixels, b->label.pixels, a->label.width * a->label.height) == 0;
    for (size_t i = 0; same && i < a->count; i++)
        same = a->phrase[i].id == b->phrase[i].id && strcmp(a->phrase[i].text, b->phrase[i].text) == 0;
    return same;
}

/* A layout read from the disk, parsed from text and array, and made phrase by phrase: the layouts are equal. */
void test_library_layout(void)
{
    flis_ctx ctx;
    flis_layout read, parsed, made = {0};
    flis_picture label;
    char *text, *png;
    size_t length, png_length;
    flis_init(&ctx);
    CHECK(flis_layout_read(&ctx, test_path(LAYOUTS[0]), &read), "%s", ctx.error);
    whole_file(&ctx, test_path(LAYOUTS[0]), &text, &length);
    whole_file(&ctx, test_path("../examples/harbour.png"), &png, &png_length);
    CHECK(flis_read_label_memory(&ctx, "harbour", png, png_length, &label), "%s", ctx.error);
    CHECK(flis_layout_parse(&ctx, "harbour", text, length, &label, &parsed), "%s", ctx.error);
    CHECK(same_layout(&read, &parsed), "the parsed layout differs");
    for (size_t i = 0; i < read.count; i++) flis_layout_add(&ctx, &made, read.phrase[i].text, read.phrase[i].id);
    flis_layout_set_label(&ctx, &made, label.pixels, 1, 1);
    CHECK(flis_layout_set_label(&ctx, &made, label.pixels, label.width, label.height), "%s", ctx.error);
    CHECK(same_layout(&read, &made), "the layout made phrase by phrase differs");
    flis_layout_free(&parsed);
    CHECK(!flis_layout_parse(&ctx, "memory", text, length, NULL, &parsed) && !parsed.count &&
              strstr(ctx.error, "memory:") && strstr(ctx.error, "opens no file"),
          "\"%s\"", ctx.error);
    flis_layout_free(&read);
    flis_layout_free(&made);
    flis_layout_free(&parsed);
    flis_picture_free(&label);
    free(text);
    free(png);
    flis_free(&ctx);
}

/* A safetensors file in memory: it has the values of the file on disk, and truncated at any byte it is refused with a
   message. */
void test_library_file_memory(void)
{
    flis_ctx ctx;
    char *bytes;
    size_t length;
    flis_init(&ctx);
    const char *path = test_path("golden/temb.safetensors");
    whole_file(&ctx, path, &bytes, &length);
    flis_file *disk = flis_file_open(&ctx, path), *memory = flis_file_open_memory(&ctx, "memory", bytes, length);
    CHECK(disk && memory && disk->count == memory->count && disk->count, "%s", ctx.error);
    for (size_t i = 0; disk && memory && i < disk->count; i++) {
        const size_t count = (size_t)flis_entry_count(&disk->entry[i]);
        double *a = calloc(count + 1, sizeof *a), *b = calloc(count + 1, sizeof *b);
        CHECK(flis_file_read_f64(&ctx, disk, &disk->entry[i], a) &&
                  flis_file_read_f64(&ctx, memory, &memory->entry[i], b) && !memcmp(a, b, count * sizeof *a),
              "%s: %s", disk->entry[i].name, ctx.error);
        free(a);
        free(b);
    }
    for (size_t cut = 0; cut < length; cut += cut < 2000 ? 1 : 997) {
        char *part = malloc(cut + 1); /* so that a sanitizer detects a read beyond the end */
        memcpy(part, bytes, cut);
        CHECK(!flis_file_open_memory(&ctx, "cut", part, cut) && !strncmp(ctx.error, "cut: ", 5), "%zu bytes: \"%s\"",
              cut, ctx.error);
        flis_clear_error(&ctx);
        free(part);
    }
    flis_file_close(disk);
    flis_file_close(memory);
    free(bytes);
    flis_free(&ctx);
}

/* ---- Invalid arguments -------------------------------------------------------------------------------------------- */

/* Arguments of flis_model_generate; a row changes one of them. */
typedef struct call {
    flis_ctx *ctx;
    const flis_model *model;
    const flis_vocab *vocab;
    const flis_layout *layout;
    flis_options options, *options_at;
    flis_picture picture, *out;
} call;

enum {
    NO_MODEL,
    NO_VOCAB,
    NO_LAYOUT,
    NO_OPTIONS,
    NO_PICTURE,
    THREADS_0,
    THREADS_MINUS_3,
    WIDTH_0,
    WIDTH_100,
    WIDTH_HUGE,
    STEPS_0,
    SCALE_NAN,
    NO_PHRASES,
    NO_PHRASE_ARRAY,
    NO_TEXT,
    ID_300,
    ID_MINUS_2,
    LABEL_RGB,
    LABEL_NULL,
    LABEL_FLAT,
    NOISE_SHORT,
    NOISE_NAN,
    NOISE_TWICE,
    KIND_7,
    GENERATOR_9,
    PRECISION_9,
    ROWS
};

static const char *const SENTENCE[ROWS] = {
    [NO_MODEL] = "generate: the model (not loaded, or freed): got NULL",
    [NO_VOCAB] = "vocabulary: got NULL",
    [NO_LAYOUT] = "layout: got NULL",
    [NO_OPTIONS] = "generate: the options: got NULL",
    [NO_PICTURE] = "generate: the picture: got NULL",
    [THREADS_0] = "context: got 0 threads, wanted 1 or more",
    [THREADS_MINUS_3] = "context: got -3 threads, wanted 1 or more",
    [WIDTH_0] = "picture size: got 0x64, wanted multiples of 64 from 64 to 8192",
    [WIDTH_100] = "picture size: got 100x64, wanted multiples of 64 from 64 to 8192",
    [WIDTH_HUGE] = "picture size: got 8256x64, wanted multiples of 64 from 64 to 8192",
    [STEPS_0] = "steps",
    [SCALE_NAN] = "guidance scale: got ",
    [NO_PHRASES] = "layout: got no phrases, wanted at least one",
    [NO_PHRASE_ARRAY] = "layout: its phrases: got NULL",
    [NO_TEXT] = "layout: phrase 0: got NULL, wanted a text",
    [ID_300] = "layout: phrase \"sea\": got id 300, wanted an integer from -1 to 255",
    [ID_MINUS_2] = "layout: phrase \"sea\": got id -2, wanted an integer from -1 to 255",
    [LABEL_RGB] = "layout: got a label map of 3 channels, wanted 1: one class id per pixel",
    [LABEL_NULL] = "label map: its pixels: got NULL",
    [LABEL_FLAT] = "layout: got a picture of 4 x 0 pixels, wanted sides from 1",
    [NOISE_SHORT] = "noise: got an array of 255 values, wanted 256: [4,8,8]",
    [NOISE_NAN] = "noise: value 3 is not finite",
    [NOISE_TWICE] = "noise: got a file and an array, wanted one of them",
    [KIND_7] = "sampler: got kind 7, wanted FLIS_PLMS (0) or FLIS_DDIM (1)",
    [GENERATOR_9] = "options: got a generator of kind 9, wanted FLIS_RNG_CPU (0) or FLIS_RNG_CUDA (1)",
    [PRECISION_9] = "context: got precision 9, wanted one from FLIS_EXACT (0) to FLIS_AS_BF16 (4)",
};

static void spoil(call *c, int row, flis_layout *layout, flis_phrase *phrase, flis_real *noise)
{
    flis_options *o = &c->options;
    c->ctx->threads = row == THREADS_0 ? 0 : row == THREADS_MINUS_3 ? -3 : 1;
    if (row == NO_MODEL) c->model = NULL;
    if (row == NO_VOCAB) c->vocab = NULL;
    if (row == NO_LAYOUT) c->layout = NULL;
    if (row == NO_OPTIONS) c->options_at = NULL;
    if (row == NO_PICTURE) c->out = NULL;
    if (row == WIDTH_0) o->width = 0;
    if (row == WIDTH_100) o->width = 100;
    if (row == WIDTH_HUGE) o->width = 8256;
    if (row == STEPS_0) o->sampling.steps = 0;
    if (row == SCALE_NAN) o->sampling.scale = NAN;
    if (row == NO_PHRASES) layout->count = 0;
    if (row == NO_PHRASE_ARRAY) layout->phrase = NULL;
    if (row == NO_TEXT) phrase->text = NULL;
    if (row == ID_300) phrase->id = 300;
    if (row == ID_MINUS_2) phrase->id = -2;
    if (row == LABEL_RGB) layout->label.channels = 3;
    if (row == LABEL_NULL) layout->label.pixels = NULL;
    if (row == LABEL_FLAT) layout->label.height = 0;
    if (row == KIND_7) o->sampling.kind = (flis_sampler_kind)7;
    if (row == GENERATOR_9) o->rng = (flis_rng_kind)9;
    c->ctx->precision = row == PRECISION_9 ? (flis_precision)9 : FLIS_EXACT;
    if (row >= NOISE_SHORT && row <= NOISE_TWICE) {
        o->noise_values = noise;
        o->noise_count = row == NOISE_SHORT ? 255 : 256;
        noise[3] = row == NOISE_NAN ? (flis_real)NAN : 0;
        o->noise = row == NOISE_TWICE ? "some.safetensors" : NULL;
    }
}

/* Every invalid argument fails with its message and leaves no picture. After flis_clear_error the context generates a
   picture again. */
void test_library_refuses(void)
{
    flis_ctx ctx;
    static flis_real noise[256];
    uint8_t pixels[16] = {0};
    char sea[] = "sea";
    char path[1024];
    flis_vocab *vocab = begin(&ctx, path);
    flis_model *model = flis_model_load(&ctx, path, FLIS_PARTS_PAINT);
    CHECK(model && vocab, "%s", ctx.error);
    const size_t used = ctx.arena.used;
    for (int row = 0; row < ROWS; row++) {
        flis_phrase phrase = {sea, 0};
        flis_layout layout = {.count = 1, .phrase = &phrase, .label = {4, 4, 1, pixels}};
        call c = {&ctx, model, vocab, &layout, small_options(), NULL, {7, 7, 7, pixels}, NULL};
        c.options_at = &c.options;
        c.out = &c.picture;
        memset(noise, 0, sizeof noise);
        spoil(&c, row, &layout, &phrase, noise);
        const bool ok = flis_model_generate(c.ctx, c.model, c.vocab, c.layout, c.options_at, c.out);
        CHECK(!ok && strstr(ctx.error, SENTENCE[row]), "row %d: got \"%s\", wanted \"%s\"", row, ctx.error,
              SENTENCE[row]);
        CHECK(!c.out || (!c.picture.pixels && !c.picture.width), "row %d: a picture is left", row);
        CHECK(!flis_model_generate(c.ctx, model, vocab, &layout, &c.options, &c.picture),
              "row %d: the error is not sticky", row);
        flis_clear_error(&ctx);
        ctx.threads = 1;
        ctx.precision = FLIS_EXACT;
        CHECK(ctx.arena.used == used && flis_ok(&ctx), "row %d: the arena has %zu bytes in use", row, ctx.arena.used);
    }
    flis_phrase phrase = {sea, 0};
    flis_layout layout = {.count = 1, .phrase = &phrase, .label = {4, 4, 1, pixels}};
    flis_options options = small_options();
    flis_picture before, after;
    CHECK(flis_model_generate(&ctx, model, vocab, &layout, &options, &before), "%s", ctx.error);
    const int stop = 1;
    ctx.interrupted = &stop;
    CHECK(!flis_model_generate(&ctx, model, vocab, &layout, &options, &after) && !strcmp(ctx.error, "interrupted"),
          "\"%s\"", ctx.error);
    ctx.interrupted = NULL;
    flis_clear_error(&ctx);
    CHECK(flis_model_generate(&ctx, model, vocab, &layout, &options, &after) && same_picture(&before, &after),
          "after a failure: %s", ctx.error);
    flis_picture_free(&before);
    flis_picture_free(&after);
    flis_model_free(&model);
    flis_vocab_free(vocab);
    flis_free(&ctx);
}

/* One invalid argument of another function: the message must match, then the context is cleared for the next call. */
static void refused(flis_ctx *ctx, bool failed, const char *wanted)
{
    CHECK(failed && strstr(ctx->error, wanted), "got \"%s\", wanted \"%s\"", ctx->error, wanted);
    flis_clear_error(ctx);
}

/* NULLs and numbers out of range, in every function of the high-level interface; a context that is NULL, or all
   zero. */
void test_library_refuses_arguments(void)
{
    flis_ctx ctx, blank = {.threads = 0};
    flis_layout layout = {0};
    flis_picture picture = {0};
    flis_output out = {0};
    size_t length;
    const uint8_t pixel = 0;
    char path[1024];
    flis_vocab_free(begin(&ctx, path));
    refused(&ctx, !flis_model_load(&ctx, NULL, FLIS_PARTS_ALL), "model: its path: got NULL");
    refused(&ctx, !flis_model_load(&ctx, path, 16), "model: got parts 0x10");
    refused(&ctx, !flis_model_load(&ctx, "absent.safetensors", FLIS_PARTS_NONE),
            "absent.safetensors: cannot be opened");
    refused(&ctx, !flis_model_load_memory(&ctx, "m", NULL, 9, FLIS_PARTS_ALL), "model: its bytes: got NULL");
    refused(&ctx, !flis_model_load_memory(&ctx, "m", "12345678", 8, FLIS_PARTS_ALL),
            "m: is a text file, wanted a safetensors file");
    refused(&ctx, !flis_model_open(&ctx, NULL), "model: its path: got NULL");
    refused(&ctx, !flis_file_open(&ctx, NULL), "safetensors file: its path: got NULL");
    refused(&ctx, !flis_file_open_memory(&ctx, NULL, "", 0), "got 0 bytes, wanted 8 and more");
    refused(&ctx, !flis_layout_read(&ctx, NULL, &layout), "file: its path: got NULL");
    refused(&ctx, !flis_layout_read(&ctx, "absent.json", NULL), "layout: where it goes: got NULL");
    refused(&ctx, !flis_layout_parse(&ctx, NULL, NULL, 0, NULL, &layout), "layout: its text: got NULL");
    refused(&ctx, !flis_layout_parse(&ctx, NULL, "[]", 2, NULL, &layout), "layout:1:1: got an array");
    refused(&ctx, !flis_layout_add(&ctx, &layout, NULL, 1), "layout: a phrase: got NULL");
    refused(&ctx, !flis_layout_add(&ctx, NULL, "sea", 1), "layout: got NULL");
    refused(&ctx, !flis_layout_add(&ctx, &layout, "sea", 300), "got id 300, wanted an integer from -1 to 255");
    refused(&ctx, !flis_layout_set_label(&ctx, &layout, NULL, 1, 1), "layout: its label map: got NULL");
    refused(&ctx, !flis_layout_set_label(&ctx, &layout, &pixel, 0, 1), "got a picture of 0 x 1 pixels");
    refused(&ctx, !flis_read_label(&ctx, NULL, &picture), "file: its path: got NULL");
    refused(&ctx, !flis_read_label_colors(&ctx, NULL, NULL, 9, &picture), "label map: its bytes: got NULL");
    refused(&ctx, !flis_read_label_colors(&ctx, NULL, "P5", 2, NULL), "label map: where it goes: got NULL");
    refused(&ctx, !flis_layout_read_phrases(&ctx, NULL, &layout), "file: its path: got NULL");
    refused(&ctx, !flis_read_label_memory(&ctx, NULL, "P6", 2, &picture), "label map: got a PPM picture (RGB)");
    refused(&ctx, !flis_write_png(&ctx, NULL, &picture, NULL), "PNG: its path: got NULL");
    refused(&ctx, !flis_write_png(&ctx, "a.png", NULL, NULL), "PNG: the picture: got NULL");
    refused(&ctx, !flis_write_png(&ctx, "a.png", &picture, NULL), "PNG: the picture's pixels: got NULL");
    refused(&ctx, !flis_png_bytes(&ctx, &picture, NULL, NULL), "PNG: where its length goes: got NULL");
    refused(&ctx, !flis_read_file(&ctx, "", 9, &length), "file: its path: got \"\", wanted a name");
    refused(&ctx, !flis_vocab_read(&ctx, ""), "file: its path: got \"\", wanted a name");
    refused(&ctx, !flis_file_open(&ctx, ""), "safetensors file: its path: got \"\", wanted a name");
    refused(&ctx, !flis_output_open(&ctx, "", &out), "output: its path: got \"\", wanted a name");
    refused(&ctx, !flis_model_load(&ctx, "", FLIS_PARTS_ALL), "model: its path: got \"\", wanted a name");
    refused(&ctx, !flis_read_file(&ctx, NULL, 9, &length), "file: its path: got NULL");
    refused(&ctx, !flis_json_parse(&ctx, "j", NULL, 0), "JSON: its text: got NULL");
    refused(&ctx, !flis_write_begin(&ctx, NULL), "safetensors file: its path: got NULL");
    refused(&ctx, !flis_output_open(&ctx, NULL, &out), "output: its path: got NULL");
    refused(&ctx, !flis_decode_picture(&ctx, NULL, NULL, &picture), "decode: the latents: got NULL");
    refused(&ctx, !flis_guided_eps(&ctx, NULL, NULL, 0, NULL, NULL), "guidance: got NULL");
    CHECK(!flis_model_load(NULL, "m", 0) && !flis_layout_read(NULL, "l", &layout) && !flis_file_open(NULL, "f") &&
              !flis_write_png(NULL, "p", &picture, NULL) && !flis_output_open(NULL, "o", &out),
          "a context that is NULL");
    CHECK(!flis_layout_add(&blank, &layout, "sea", 1) && strstr(blank.error, "the context was not initialised"),
          "\"%s\"", blank.error);
    memset(&blank, 0xA5, sizeof blank); /* like an uninitialised variable on the stack */
    CHECK(!flis_model_load(&blank, path, FLIS_PARTS_NONE) && strstr(blank.error, "the context was not initialised"),
          "\"%.60s\"", blank.error);
    flis_clear_error(NULL);
    flis_picture_free(NULL);
    flis_layout_free(NULL);
    flis_model_free(NULL);
    flis_output_abort(NULL);
    flis_release(NULL);
    flis_layout_free(&layout);
    flis_free(&ctx);
}

/* The same for text, the vocabulary and prompts. */
void test_library_refuses_text(void)
{
    flis_ctx ctx;
    flis_prompt prompt;
    int32_t *ids;
    char path[1024], sea[] = "sea";
    const flis_phrase phrase[2] = {{sea, 1}, {NULL, 2}};
    flis_vocab *vocab = begin(&ctx, path);
    refused(&ctx, !flis_vocab_parse(&ctx, "merges.txt", NULL, 4), "vocabulary: its text: got NULL");
    refused(&ctx, flis_tokenize(&ctx, NULL, sea, 3, &ids) < 0, "vocabulary: got NULL");
    refused(&ctx, flis_tokenize(&ctx, vocab, NULL, 3, &ids) < 0, "text: got NULL");
    refused(&ctx, flis_tokenize(&ctx, vocab, sea, 3, NULL) < 0, "text: where its tokens go: got NULL");
    CHECK(flis_tokenize(&ctx, vocab, NULL, 0, &ids) == 0, "an empty text: %s", ctx.error);
    free(ids);
    refused(&ctx, !flis_prompt_make(&ctx, NULL, phrase, 1, &prompt), "vocabulary: got NULL");
    refused(&ctx, !flis_prompt_make(&ctx, vocab, NULL, 1, &prompt), "prompt: its phrases: got NULL");
    refused(&ctx, !flis_prompt_make(&ctx, vocab, phrase, 2, &prompt), "prompt: phrase 1: got NULL, wanted a text");
    refused(&ctx, !flis_prompt_make(&ctx, vocab, phrase, 1, NULL), "prompt: where it goes: got NULL");
    CHECK(flis_vocab_size(NULL) == 0 && flis_vocab_bos(NULL) == -1 && flis_vocab_eos(NULL) == -1, "no vocabulary");
    flis_prompt_free(NULL);
    flis_vocab_free(NULL);
    flis_vocab_free(vocab);
    flis_free(&ctx);
}

/* The same for the networks: NULLs, no samples, and sizes of 0. */
void test_library_refuses_networks(void)
{
    flis_ctx ctx;
    uint8_t label[1] = {0}, mask[FLIS_TOKENS];
    const float class_ids[1] = {0};
    const int32_t ids[FLIS_TOKENS] = {0};
    const double t[1] = {1};
    flis_rca rca = {label, 1, 1, class_ids, 1};
    char path[1024];
    flis_vocab_free(begin(&ctx, path));
    flis_model *model = flis_model_load(&ctx, path, FLIS_PARTS_PAINT);
    const flis_clip *clip = flis_model_clip(model);
    const flis_unet *unet = flis_model_unet(model);
    const flis_vae *vae = flis_model_vae(model);
    flis_tensor *x = flis_image(&ctx, 1, 8, 8, 4), *none = flis_image(&ctx, 0, 8, 8, 4),
                *text = flis_rows(&ctx, 1, FLIS_TOKENS, 1);
    refused(&ctx, !flis_clip_encode(&ctx, NULL, ids, 1), "text encoder: got NULL");
    refused(&ctx, !flis_clip_encode(&ctx, clip, NULL, 1), "text encoder: the tokens: got NULL");
    refused(&ctx, !flis_clip_encode(&ctx, clip, ids, 0), "text encoder: got 0 prompts, wanted 1 or more");
    refused(&ctx, !flis_unet_eps(&ctx, NULL, x, t, text, NULL), "U-Net: got NULL");
    refused(&ctx, !flis_unet_eps(&ctx, unet, NULL, t, text, NULL), "U-Net: the latents: got NULL");
    refused(&ctx, !flis_unet_eps(&ctx, unet, x, NULL, text, NULL), "U-Net: the timesteps: got NULL");
    refused(&ctx, !flis_unet_eps(&ctx, unet, x, t, NULL, NULL), "U-Net: the text features: got NULL");
    refused(&ctx, !flis_unet_eps(&ctx, unet, none, t, text, NULL), "U-Net: got 0 samples, wanted 1 or more");
    refused(&ctx, !flis_vae_decode(&ctx, NULL, x), "decode: the autoencoder: got NULL");
    refused(&ctx, !flis_vae_decode(&ctx, vae, NULL), "decode: the latents: got NULL");
    refused(&ctx, !flis_vae_decode(&ctx, vae, none), "decode: got latents [0,4,8,8]");
    refused(&ctx, !flis_vae_encode(&ctx, NULL, x), "encode: the autoencoder: got NULL");
    refused(&ctx, !flis_vae_encode(&ctx, vae, NULL), "encode: the picture: got NULL");
    refused(&ctx, !flis_rca_mask(&ctx, NULL, 1, 1, mask), "mask: the layout: got NULL");
    refused(&ctx, !flis_rca_mask(&ctx, &rca, 1, 1, NULL), "mask: where it goes: got NULL");
    refused(&ctx, !flis_rca_mask(&ctx, &rca, 0, 1, mask), "got a label map of 1 x 1 pixels and 1 x 0 cells");
    rca.class_ids = NULL;
    refused(&ctx, !flis_rca_mask(&ctx, &rca, 1, 1, mask), "mask: the tokens' classes: got NULL");
    rca.label = NULL;
    refused(&ctx, !flis_rca_mask(&ctx, &rca, 1, 1, mask), "mask: the label map: got NULL");
    refused(&ctx, !flis_clip_new(&ctx, NULL), "text encoder: its configuration: got NULL");
    refused(&ctx, !flis_unet_new(&ctx, NULL), "U-Net: its configuration: got NULL");
    refused(&ctx, !flis_vae_new(&ctx, NULL, true, true), "autoencoder: its configuration: got NULL");
    refused(&ctx, !flis_clip_load(&ctx, NULL), "text encoder: its file: got NULL");
    refused(&ctx, !flis_unet_load(&ctx, NULL), "U-Net: its file: got NULL");
    refused(&ctx, !flis_vae_load(&ctx, NULL, true, true), "autoencoder: its file: got NULL");
    refused(&ctx, !flis_unet_walk(&ctx, NULL, flis_count_visit, NULL), "U-Net: got NULL");
    flis_fail(&ctx, "first");
    CHECK(!flis_clip_encode(&ctx, NULL, NULL, 0) && !flis_unet_eps(&ctx, NULL, NULL, NULL, NULL, NULL) &&
              !flis_vae_decode(&ctx, NULL, NULL) && !strcmp(ctx.error, "first"),
          "a failed context: \"%s\"", ctx.error);
    CHECK(!flis_clip_get_config(NULL) && !flis_unet_get_config(NULL) && !flis_vae_get_config(NULL), "no network");
    flis_model_free(&model);
    flis_free(&ctx);
}

/* The same for the sampler, files of tensors, compressed data, and functions that have no context. */
void test_library_refuses_workshop(void)
{
    flis_ctx ctx;
    flis_rng rng;
    int64_t integer = 7;
    flis_steps steps;
    flis_summary summary;
    flis_sampling sampling = {FLIS_DDIM, 1, 0, 1};
    const flis_model_fn no_eps = {NULL, NULL, NULL};
    flis_schedule schedule;
    flis_real x[1] = {0};
    char path[1024], hex[65] = "x";
    size_t length;
    flis_vocab_free(begin(&ctx, path));
    flis_schedule_make(&schedule);
    refused(&ctx, !flis_steps_make(&ctx, NULL, FLIS_DDIM, 1, 0, &steps), "steps: the schedule: got NULL");
    refused(&ctx, !flis_steps_make(&ctx, &schedule, FLIS_DDIM, 1, 0, NULL), "steps: where they go: got NULL");
    refused(&ctx, !flis_steps_make(&ctx, &schedule, (flis_sampler_kind)7, 1, 0, &steps), "sampler: got kind 7");
    refused(&ctx, !flis_sample(&ctx, NULL, 1, x, &no_eps), "sampler: the options: got NULL");
    refused(&ctx, !flis_sample(&ctx, &sampling, 1, NULL, &no_eps), "sampler: the latents: got NULL");
    refused(&ctx, !flis_sample(&ctx, &sampling, 1, x, NULL), "sampler: the model: got NULL");
    refused(&ctx, !flis_sample(&ctx, &sampling, 1, x, &no_eps), "sampler: the model's eps: got NULL");
    refused(&ctx, !flis_inflate(&ctx, "z", FLIS_ZLIB, NULL, 4, 9, &length), "compressed data: its bytes: got NULL");
    refused(&ctx, !flis_inflate(&ctx, "z", FLIS_ZLIB, (const uint8_t *)"zzzz", 4, 9, NULL),
            "where its length goes: got NULL");
    refused(&ctx, !flis_inflate(&ctx, "z", (flis_stream_kind)7, (const uint8_t *)"zzzz", 4, 9, &length), "got kind 7");
    refused(&ctx, !flis_write_end(&ctx, NULL), "safetensors file: its writer: got NULL");
    flis_writer *writer = flis_write_begin(&ctx, test_scratch("bad.safetensors"));
    const uint64_t shape[1] = {1};
    refused(&ctx, !flis_write_declare(&ctx, writer, NULL, FLIS_F32, 1, shape), "tensor: its name: got NULL");
    refused(&ctx, !flis_write_declare(&ctx, writer, "a", FLIS_F32, 9, shape), "got 9 dimensions, wanted 0 to 8");
    refused(&ctx, !flis_write_declare(&ctx, writer, "a", (flis_dtype)99, 1, shape), "got dtype 99");
    refused(&ctx, !flis_write_real(&ctx, writer, NULL, 1), "safetensors file: the values: got NULL");
    flis_write_abort(writer);
    CHECK(!flis_file_find(NULL, "a") && !flis_file_any(NULL, "a") && !flis_file_metadata(NULL, "a"), "no file");
    flis_tensor_digest(NULL, hex);
    flis_tensor_summary(NULL, &summary);
    CHECK(!hex[0] && !summary.count && !summary.sha256[0], "no tensor");
    flis_rng_seed(NULL, FLIS_RNG_CPU, 1);
    flis_rng_seed(&rng, FLIS_RNG_CPU, 1);
    flis_randint(&rng, &integer, 1, 0);
    flis_randn(NULL, NULL, 1);
    CHECK(flis_rng_u32(NULL) == 0 && integer == 0, "no generator");
    CHECK(!flis_ok(NULL) && !flis_init(NULL) && !flis_alloc(NULL, 1, 1) && !flis_fail(NULL, "x"), "no context");
    flis_free(NULL);
    flis_free(&ctx);
}

/* ---- Files that are replaced --------------------------------------------------------------------------------------- */

static bool holds(const char *path, const char *text)
{
    char got[64] = "";
    FILE *file = fopen(path, "rb");
    const size_t count = file ? fread(got, 1, sizeof got - 1, file) : 0;
    if (file) fclose(file);
    return file && count == strlen(text) && strcmp(got, text) == 0;
}

static bool put_text(flis_ctx *ctx, const char *path, const char *text)
{
    flis_output out;
    FILE *stream = flis_output_open(ctx, path, &out);
    if (stream) fputs(text, stream);
    return stream && flis_output_close(ctx, &out);
}

/* The old file stays until the new one is complete. After an abort or with a failed context the old file is
   unchanged. */
void test_library_output(void)
{
    flis_ctx ctx;
    flis_output out;
    char path[1024], partial[1100];
    flis_init(&ctx);
    snprintf(path, sizeof path, "%s", test_scratch("out.txt"));
    snprintf(partial, sizeof partial, "%s.partial", path);
    CHECK(put_text(&ctx, path, "one") && holds(path, "one"), "%s", ctx.error);
    FILE *stream = flis_output_open(&ctx, path, &out);
    CHECK(stream && fputs("two", stream) >= 0 && !fflush(stream) && holds(path, "one") && holds(partial, "two"),
          "the file changed before it was complete");
    flis_output_abort(&out);
    flis_output_abort(&out);
    CHECK(holds(path, "one") && !holds(partial, "two"), "an abort changed the file");
    CHECK(flis_output_open(&ctx, path, &out), "%s", ctx.error);
    flis_fail(&ctx, "something else");
    CHECK(!flis_output_close(&ctx, &out) && !strcmp(ctx.error, "something else") && holds(path, "one"), "\"%s\"",
          ctx.error);
    CHECK(!fopen(partial, "rb"), "%s is left", partial);
    flis_clear_error(&ctx);
    CHECK(put_text(&ctx, path, "three") && holds(path, "three"), "%s", ctx.error);
    CHECK(!put_text(&ctx, test_scratch("absent/out.txt"), "x") && strstr(ctx.error, "cannot be written"), "\"%s\"",
          ctx.error);
    flis_free(&ctx);
}

#if HAVE_POSIX
/* The target of a link is replaced, and the link stays; a device gets the bytes and is not replaced. Wrong: rename over
   the link. */
void test_library_output_links(void)
{
    flis_ctx ctx;
    struct stat info;
    char folder[1024], file[1100], link_to[1100], link_to_link[1100], circle[1100];
    flis_init(&ctx);
    snprintf(folder, sizeof folder, "%s", test_scratch("links"));
    snprintf(file, sizeof file, "%s/file", folder);
    snprintf(link_to, sizeof link_to, "%s/link", folder);
    snprintf(link_to_link, sizeof link_to_link, "%s/link2", folder);
    snprintf(circle, sizeof circle, "%s/circle", folder);
    CHECK(mkdir(folder, 0700) == 0 && symlink("file", link_to) == 0 && symlink(link_to, link_to_link) == 0 &&
              symlink("circle", circle) == 0,
          "the links cannot be made");
    CHECK(put_text(&ctx, link_to, "one") && holds(file, "one"), "a link to nothing yet: %s", ctx.error);
    CHECK(put_text(&ctx, link_to_link, "two") && holds(file, "two"), "%s", ctx.error);
    CHECK(lstat(link_to, &info) == 0 && S_ISLNK(info.st_mode) && lstat(link_to_link, &info) == 0 &&
              S_ISLNK(info.st_mode),
          "a link was replaced");
    refused(&ctx, !put_text(&ctx, circle, "x"), "links lead in a circle");
    refused(&ctx, !put_text(&ctx, folder, "x"), "is a folder, wanted a file name");
    CHECK(put_text(&ctx, "/dev/null", "x"), "%s", ctx.error);
    CHECK(lstat("/dev/null", &info) == 0 && S_ISCHR(info.st_mode), "/dev/null was replaced");
    remove(link_to);
    remove(link_to_link);
    remove(circle);
    remove(file);
    rmdir(folder);
    flis_free(&ctx);
}
#endif

/* A struct named `out` is all zero after a failure, on a context that had failed before too, so that it may be freed. */
void test_library_out_is_zero(void)
{
    flis_ctx ctx;
    flis_init(&ctx);
    flis_fail(&ctx, "failed before");
    for (int i = 0; i < 5; i++) {
        flis_layout layout;
        flis_picture picture;
        memset(&layout, 0x55, sizeof layout);
        memset(&picture, 0x55, sizeof picture);
        if (i == 0) flis_layout_read(&ctx, "absent.json", &layout);
        if (i == 1) flis_layout_parse(&ctx, "j", "{}", 2, NULL, &layout);
        if (i == 2) flis_read_label(&ctx, "absent.png", &picture);
        if (i == 3) flis_read_label_memory(&ctx, "p", "P5", 2, &picture);
        if (i == 4) flis_decode_picture(&ctx, NULL, NULL, &picture);
        if (i < 2)
            CHECK(!layout.count && !layout.phrase && !layout.label.pixels, "function %d: the layout is not zero", i);
        else CHECK(!picture.width && !picture.pixels, "function %d: the picture is not zero", i);
    }
    CHECK(strcmp(ctx.error, "failed before") == 0, "%s", ctx.error);
    flis_free(&ctx);
}
