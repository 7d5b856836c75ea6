/* test_field_train.c - training as people run it: CLIP's vocabulary with its ids above 32767, files of latents of another model, a
 * state that belongs to other data, Ctrl-C in the middle of a step.
 */
#include "tests/unit/test.h"
#include "tools/train/train.h"

/* ---- A vocabulary of CLIP's size --------------------------------------------------------------------------------- */

enum { LETTERS = 26, FILLERS = 32000 };

/* Merges: two letters inside a word; FILLERS of three; last the two letters that end a word, so that "ab" has an id above 32767.
   free() it. */
static char *large_vocabulary(size_t *length)
{
    const size_t room = (size_t)(FILLERS + 2 * LETTERS * LETTERS) * 10;
    char *text = malloc(room);
    size_t at = 0;
    for (int i = 0; text && i < LETTERS * LETTERS; i++)
        at += (size_t)snprintf(text + at, room - at, "%c %c\n", 'a' + i / LETTERS, 'a' + i % LETTERS);
    for (int i = 0; text && i < FILLERS; i++) {
        const int pair = i % (LETTERS * LETTERS), third = i / (LETTERS * LETTERS);
        at += (size_t)snprintf(text + at, room - at, "%c%c %c\n", 'a' + pair / LETTERS, 'a' + pair % LETTERS,
                               third < LETTERS ? 'a' + third : '0' + third - LETTERS);
    }
    for (int i = 0; text && i < LETTERS * LETTERS; i++)
        at += (size_t)snprintf(text + at, room - at, "%c %c</w>\n", 'a' + i / LETTERS, 'a' + i % LETTERS);
    *length = at;
    return text;
}

static flis_vocab *read_large(flis_ctx *ctx)
{
    size_t length;
    char *text = large_vocabulary(&length);
    flis_vocab *vocab = flis_vocab_parse(ctx, "large", text, length);
    CHECK(vocab && flis_vocab_size(vocab) == 512 + FILLERS + 2 * LETTERS * LETTERS + 2, "%s", ctx->error);
    free(text);
    return vocab;
}

/* One sample with the prompt "ab zz", of classes 3 and everywhere. */
static void one_sample(flis_ctx *ctx, const flis_vocab *vocab, latents *l)
{
    char first[] = "ab", second[] = "zz";
    const flis_phrase phrase[] = {{first, 3}, {second, -1}};
    CHECK(latents_new(ctx, l, 1, 2, 3) && put_prompt(ctx, vocab, phrase, 2, l->ids, l->class_ids, l->classes), "%s",
          ctx->error);
    for (size_t i = 0; i < 2 * 3 * 8; i++) l->moments[i] = (uint16_t)(0x3C00 + i);
    for (size_t i = 0; i < 2 * 3; i++) l->label[i] = (uint8_t)(250 + i);
}

/* The type that tokens have in a file of latents. */
static flis_dtype type_in_file(flis_ctx *ctx, const char *path)
{
    flis_file *file = flis_file_open(ctx, path);
    const flis_entry *ids = file ? flis_file_find(file, "ids") : NULL;
    const flis_dtype type = ids ? ids->dtype : FLIS_BOOL;
    flis_file_close(file);
    return type;
}

/* Ids above 32767 reach the file and the batch. */
void test_field_tokens(void)
{
    flis_ctx ctx;
    latents l = {0}, back = {0};
    flis_init(&ctx);
    flis_vocab *vocab = read_large(&ctx);
    const char *path = test_scratch("latents.safetensors");
    one_sample(&ctx, vocab, &l);
    const int32_t last = flis_vocab_eos(vocab), wanted[] = {last - 1, last - 1 - LETTERS * LETTERS + 1, last - 2, last};
    for (int i = 0; i < 4; i++)
        CHECK(wanted[i] > INT16_MAX && l.ids[i] == wanted[i], "token %d: got %ld, wanted %ld", i, (long)l.ids[i],
              (long)wanted[i]);
    CHECK(l.classes[0] == 2 && l.class_ids[0] == 3 && l.class_ids[1] == -1, "the classes are wrong");
    CHECK(latents_write(&ctx, path, &l) && latents_read(&ctx, path, &back), "%s", ctx.error);
    CHECK(memcmp(back.ids, l.ids, FLIS_TOKENS * sizeof *l.ids) == 0 &&
              memcmp(back.class_ids, l.class_ids, FLIS_TOKENS * sizeof *l.class_ids) == 0 && back.classes[0] == 2 &&
              back.moments[47] == 0x3C00 + 47 && back.label[5] == 255,
          "a file of latents does not keep its values");
    CHECK(latents_check(&ctx, path, &back, vocab), "%s", ctx.error);
    CHECK(type_in_file(&ctx, path) == FLIS_I32, "large tokens are not I32");
    for (int i = 0; i < FLIS_TOKENS; i++) l.ids[i] = INT16_MAX;
    CHECK(latents_write(&ctx, path, &l) && type_in_file(&ctx, path) == FLIS_I16, "small tokens are not I16, as ever");
    int32_t ids[FLIS_TOKENS], empty[2] = {last - 1, last};
    float class_ids[FLIS_TOKENS];
    size_t n = 0;
    put_window_prompt(&back, 0, back.label, 6, true, -1, empty, ids, class_ids, &n);
    for (int i = 0; i < 4; i++) CHECK(ids[i] == wanted[i], "window: token %d: got %ld", i, (long)ids[i]);
    CHECK(n == 2 && ids[76] == last, "window: %zu words, padding %ld", n, (long)ids[76]);
    latents_free(&l);
    latents_free(&back);
    flis_vocab_free(vocab);
    flis_free(&ctx);
}

/* ---- Files of latents ---------------------------------------------------------------------------------------------- */

/* What a file of latents has that is not as it should be. */
typedef struct damage {
    const char *says; /* NULL: it is read */
    flis_dtype ids;
    size_t moments, label_w, tokens, classes; /* sizes of dimensions */
    int64_t bos, token, class, words;
    double moment;
} damage;

static void write_latents(flis_ctx *ctx, const char *path, const damage *d)
{
    const uint64_t shape[5][4] = {{1, 2, 3, d->moments}, {1, 2, d->label_w}, {1, d->tokens}, {1, 77}, {d->classes}};
    static const char *const name[] = {"moments", "label", "ids", "class_ids", "classes"};
    const flis_dtype type[] = {FLIS_F16, FLIS_U8, d->ids, FLIS_I16, FLIS_I16};
    static const int rank[] = {4, 3, 2, 2, 1};
    int64_t ids[80], classes[77], words[4] = {d->words, 0, 0, 0};
    double moments[2 * 3 * 16];
    const uint8_t label[16] = {0};
    for (int i = 0; i < 80; i++) ids[i] = i == 0 ? d->bos : i == 1 ? d->token : d->bos + 1;
    for (int i = 0; i < 77; i++) classes[i] = i ? -1 : d->class;
    for (int i = 0; i < 2 * 3 * 16; i++) moments[i] = i == 20 ? d->moment : 0;
    flis_writer *writer = flis_write_begin(ctx, path);
    for (int i = 0; i < 5; i++) flis_write_declare(ctx, writer, name[i], type[i], rank[i], shape[i]);
    flis_write_f64(ctx, writer, moments, 6 * d->moments);
    flis_write_u8(ctx, writer, label, 2 * d->label_w);
    flis_write_i64(ctx, writer, ids, d->tokens);
    flis_write_i64(ctx, writer, classes, 77);
    flis_write_i64(ctx, writer, words, d->classes);
    CHECK(flis_write_end(ctx, writer), "%s", ctx->error);
}

void test_field_latents(void)
{
    flis_ctx ctx;
    flis_init(&ctx);
    flis_vocab *vocab = read_large(&ctx);
    const int64_t bos = flis_vocab_bos(vocab);
    const char *path = test_scratch("latents.safetensors");
    const damage rows[] = {
        {NULL, FLIS_I32, 8, 3, 77, 1, bos, 5, 3, 1, 0},
        {NULL, FLIS_I16, 8, 3, 77, 1, bos - 65536, 40 - 65536 + 32768, 3, 1, 0}, /* as older versions wrote them */
        {"moments: got size 16 in dimension 3, wanted 8", FLIS_I32, 16, 3, 77, 1, bos, 5, 3, 1, 0},
        {"moments: got size 4 in dimension 3, wanted 8", FLIS_I32, 4, 3, 77, 1, bos, 5, 3, 1, 0},
        {"label: got size 4 in dimension 2, wanted 3", FLIS_I32, 8, 4, 77, 1, bos, 5, 3, 1, 0},
        {"ids: got size 80 in dimension 1, wanted 77", FLIS_I32, 8, 3, 80, 1, bos, 5, 3, 1, 0},
        {"classes: got size 2 in dimension 0, wanted 1", FLIS_I32, 8, 3, 77, 2, bos, 5, 3, 1, 0},
        {"a tensor ids of I16", FLIS_I64, 8, 3, 77, 1, bos, 5, 3, 1, 0},
        {"begin with 998 and end with 999, wanted", FLIS_I16, 8, 3, 77, 1, 998, 5, 3, 1, 0},
        {"begin with 49406 and end with 49407, wanted", FLIS_I32, 8, 3, 77, 1, 49406, 5, 3, 1, 0},
        {"got token 70000 of class -1, wanted 0 to", FLIS_I32, 8, 3, 77, 1, bos, 70000, 3, 1, 0},
        {"got token -1 of class -1", FLIS_I32, 8, 3, 77, 1, bos, -1, 3, 1, 0},
        {"of class 256, wanted", FLIS_I32, 8, 3, 77, 1, bos, 5, 256, 1, 0},
        {"of class -2, wanted", FLIS_I32, 8, 3, 77, 1, bos, 5, -2, 1, 0},
        {"got 76 words, wanted 0 to 75", FLIS_I32, 8, 3, 77, 1, bos, 5, 3, 76, 0},
        {"got -1 words", FLIS_I32, 8, 3, 77, 1, bos, 5, 3, -1, 0},
        {"a value that is not finite", FLIS_I32, 8, 3, 77, 1, bos, 5, 3, 1, HUGE_VAL},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        latents l = {0};
        write_latents(&ctx, path, &rows[i]);
        const bool good = latents_read(&ctx, path, &l) && latents_check(&ctx, path, &l, vocab);
        CHECK(good == !rows[i].says && (good || strstr(ctx.error, rows[i].says)), "row %zu: \"%s\", wanted \"%s\"", i,
              ctx.error, rows[i].says ? rows[i].says : "no error");
        CHECK(!good || l.ids[0] == bos, "row %zu: the first token is %ld", i, (long)l.ids[0]);
        latents_free(&l);
        flis_clear_error(&ctx);
    }
    flis_vocab_free(vocab);
    flis_free(&ctx);
}

/* The vocabulary has as many tokens as the text encoder has rows; more rows only beyond CLIP's own. */
void test_field_vocabulary(void)
{
    flis_ctx ctx;
    flis_init(&ctx);
    flis_vocab *vocab = flis_vocab_read(&ctx, test_path("vocab.txt"));
    const size_t size = flis_vocab_size(vocab);
    CHECK(vocab_fits(&ctx, "m", size, "v", vocab), "%s", ctx.error);
    for (int i = 0; i < 2; i++) {
        CHECK(!vocab_fits(&ctx, "m", i ? 49408 : size - 1, "v", vocab) && strstr(ctx.error, "v: got a vocabulary of") &&
                  strstr(ctx.error, "as many as the text encoder of m has"),
              "\"%s\"", ctx.error);
        flis_clear_error(&ctx);
    }
    flis_vocab_free(vocab);
    flis_free(&ctx);
}

/* ---- Trainings ----------------------------------------------------------------------------------------------------- */

/* Outputs of the training NAME. */
typedef struct outputs {
    char path[4][PATH_ROOM];
} outputs;

static const char *const END[] = {"", ".state", ".tsv", ".svg"};

static void name_outputs(outputs *o, const char *name)
{
    for (int i = 0; i < 4; i++) {
        char full[64];
        snprintf(full, sizeof full, "%s%s", name, END[i]);
        snprintf(o->path[i], PATH_ROOM, "%s", test_scratch(full));
    }
}

static volatile int no_stop;

static void job_begin(job *j, stage which, const outputs *files)
{
    memset(j, 0, sizeof *j);
    flis_init(&j->ctx);
    j->o = (options){.stage = which,
                     .steps = 3,
                     .batch = 1,
                     .accumulate = 1,
                     .warmup = 2,
                     .rate = 1e-3,
                     .fall = 0.2,
                     .flip = 0.5,
                     .ema = 0.9,
                     .clip = 1,
                     .kl = 1e-6,
                     .edges = 0.5,
                     .colours = 2,
                     .things_weight = 1,
                     .workers = 1,
                     .size = 64,
                     .crop = 8,
                     .set = "text2image",
                     .quiet = true,
                     .out = files->path[0],
                     .state = files->path[1],
                     .log = files->path[2],
                     .plot = files->path[3]};
    j->progress.quiet = true;
    j->stop = &no_stop;
}

static bool same_bytes(const char *a, const char *b)
{
    flis_ctx ctx;
    char x[65] = "", y[65] = "";
    flis_init(&ctx);
    const bool same = file_digest(&ctx, a, x) && file_digest(&ctx, b, y) && strcmp(x, y) == 0;
    flis_free(&ctx);
    return same;
}

/* Raises the flag at the CALLS_UNTIL-th intermediate of a training, in the middle of its second step. */
static volatile int stop;
static int calls;

static void raise_flag(void *last, const char *name, const flis_tensor *tensor)
{
    (void)name;
    (void)tensor;
    if (++calls == *(const int *)last) stop = 1;
}

/* Ctrl-C in the middle of a step: the step is left, no weight has changed, the state goes on to the same files; so it does when the
   next one comes during the last. */
void test_field_interrupted(void)
{
    static job j;
    static char start[PATH_ROOM];
    outputs whole, parts;
    int never = -1;
    name_outputs(&whole, "whole.safetensors");
    name_outputs(&parts, "parts.safetensors");
    snprintf(start, sizeof start, "%s", test_path("../models/flis-small.safetensors"));
    remove(parts.path[0]);
    job_begin(&j, VAE, &whole);
    j.o.start = start, j.o.frozen_encoder = true;
    calls = 0;
    j.ctx.trace = raise_flag, j.ctx.trace_user = &never;
    CHECK(train(&j) && j.training.step == 3, "%s", j.ctx.error);
    job_free(&j);
    const int each = calls / 3;
    for (int i = 0; i < 3; i++) {
        int last = each + each / 2;
        job_begin(&j, VAE, &parts);
        j.o.start = start, j.o.frozen_encoder = true, j.o.resume = i > 0;
        j.ctx.interrupted = j.stop = &stop;
        stop = 0;
        calls = 0;
        if (i == 2) last = -1;
        j.ctx.trace = raise_flag, j.ctx.trace_user = &last;
        CHECK(train(&j) && (int)j.training.step == i + 1, "part %d: stopped at step %d: %s", i, (int)j.training.step,
              j.ctx.error);
        CHECK((kind_of_file(parts.path[0]) != FILE_ABSENT) == (i == 2), "part %d: the model %s", i,
              i == 2 ? "is missing" : "is there already");
        job_free(&j);
    }
    for (int i = 0; i < 4; i++) CHECK(same_bytes(whole.path[i], parts.path[i]), "another OUT%s", END[i]);
}

/* ---- States -------------------------------------------------------------------------------------------------------- */

/* A job with one weight and origins, enough for a state. */
static void state_job(job *j, flis_param *w, const outputs *files)
{
    const flis_real values[2] = {1, 2};
    job_begin(j, LAYOUT, files);
    j->o.model = "m", j->o.vocab = "v", j->o.data = "d";
    training_default(&j->training);
    *w = (flis_param){.rank = 1, .shape = {2}};
    CHECK(flis_param_set(&j->ctx, w, values, false) && training_visit(&j->ctx, &j->training, "w", w), "%s",
          j->ctx.error);
    for (int i = 0; i < ORIGINS; i++)
        snprintf(j->origin[i], sizeof j->origin[i], i == OF_START || i == OF_LATENTS ? "none" : "%064d", i);
}

static void state_end(job *j, flis_param *w)
{
    training_free(&j->training);
    flis_free_visit(&j->ctx, NULL, NULL, w);
    free(j->line);
    flis_free(&j->ctx);
}

static void other_model(job *j)
{
    strcpy(j->origin[OF_MODEL], "another");
}
static void other_vocabulary(job *j)
{
    strcpy(j->origin[OF_VOCAB], "another");
}
static void other_data(job *j)
{
    strcpy(j->origin[OF_DATA], "another");
}
static void latents_instead(job *j)
{
    j->o.data = NULL, j->o.latents = "l";
}
static void start_too(job *j)
{
    j->o.start = "s", strcpy(j->origin[OF_START], "another");
}
static void other_seed(job *j)
{
    j->o.seed = 5;
}
static void other_workers(job *j)
{
    j->o.workers = 2;
}
static void things(job *j)
{
    j->o.things = true;
}

void test_field_resume(void)
{
    static const struct {
        void (*change)(job *);
        const char *says;
    } rows[] = {
        {other_model, "its training had another --model: got m with SHA-256 another"},
        {other_vocabulary, "its training had another --vocab: got v with"},
        {other_data, "its training had another --data: got d with"},
        {latents_instead, "\"set \" is not \"set text2image\""},
        {start_too, "its training had no --start, got s"},
        {other_seed, "\"seed 0\" is not \"seed 5\""},
        {other_workers, "\"\" is not \"workers 2\""},
        {things, "\"\" is not \"things\""},
    };
    static job j;
    flis_param w;
    outputs files;
    name_outputs(&files, "resumed.safetensors");
    state_job(&j, &w, &files);
    j.training.step = 30, j.sum = 0.1, j.summed = 5;
    CHECK(log_add(&j, 25, 1, 2) && state_write(&j), "%s", j.ctx.error);
    state_end(&j, &w);
    state_job(&j, &w, &files);
    j.o.resume = true;
    CHECK(state_check(&j) && state_read(&j) && j.training.step == 30 && j.sum == 0.1 && j.summed == 5 && j.lines == 1,
          "step %d, sum %.17g of %d: %s", (int)j.training.step, j.sum, (int)j.summed, j.ctx.error);
    state_end(&j, &w);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        state_job(&j, &w, &files);
        j.o.resume = true;
        rows[i].change(&j);
        CHECK(!state_read(&j) && strstr(j.ctx.error, rows[i].says), "row %zu: \"%s\", wanted \"%s\"", i, j.ctx.error,
              rows[i].says);
        state_end(&j, &w);
    }
}

/* A state without origins, as older versions wrote it, is accepted; so is one whose --start is not given again. */
void test_field_resume_older(void)
{
    static job j;
    flis_param w;
    outputs files;
    char text[512] = "";
    name_outputs(&files, "older.safetensors");
    state_job(&j, &w, &files);
    j.o.start = "s", strcpy(j.origin[OF_START], "some");
    CHECK(state_write(&j), "%s", j.ctx.error);
    state_end(&j, &w);
    state_job(&j, &w, &files);
    flis_file *file = flis_file_open(&j.ctx, files.path[1]);
    const char *saved = file ? flis_file_metadata(file, "train.options") : NULL;
    snprintf(text, sizeof text, "%s", saved ? saved : "");
    flis_file_close(file);
    CHECK(state_read(&j) && strcmp(j.origin[OF_START], "some") == 0, "%s", j.ctx.error);
    state_end(&j, &w);
    state_job(&j, &w, &files);
    flis_writer *writer = flis_write_begin(&j.ctx, files.path[1]);
    flis_write_metadata(&j.ctx, writer, "train.options", text);
    training_declare(&j.ctx, writer, &j.training);
    training_write(&j.ctx, writer, &j.training);
    CHECK(flis_write_end(&j.ctx, writer) && state_read(&j), "%s", j.ctx.error);
    state_end(&j, &w);
}

/* ---- The whole with CLIP's vocabulary ------------------------------------------------------------------------------ */

/* A model of formula weights whose vocabulary is large, a folder of one picture, a file of the merges. */
static void large_inputs(flis_ctx *ctx, const flis_vocab *vocab)
{
    static const char *const folder[] = {"large", "large/pictures", "large/labels"};
    uint8_t rgb[64 * 64 * 3], label[64 * 64];
    size_t length;
    preset p = *preset_find("tinyA");
    test_scratch("large/pictures/0.png"), test_scratch("large/labels/0.png"), test_scratch("large/classes.txt");
    test_scratch("large.txt"), test_scratch("large.safetensors");
    for (int i = 2; i >= 0; i--) test_scratch(folder[i]);
    for (int i = 0; i < 3; i++) make_folder(ctx, test_scratch(folder[i]));
    for (int i = 0; i < 64 * 64; i++) {
        label[i] = i < 2048 ? 1 : 2;
        for (int c = 0; c < 3; c++) rgb[3 * i + c] = (uint8_t)(i / 16 + 40 * c);
    }
    const flis_picture picture = {64, 64, 3, rgb}, map = {64, 64, 1, label};
    flis_write_png(ctx, test_scratch("large/pictures/0.png"), &picture, NULL);
    flis_write_png(ctx, test_scratch("large/labels/0.png"), &map, NULL);
    output_write(ctx, test_scratch("large/classes.txt"), "1\tab\n2\tzz\n", 10);
    char *text = large_vocabulary(&length);
    output_write(ctx, test_scratch("large.txt"), text, length);
    free(text);
    p.clip.vocab = flis_vocab_size(vocab);
    CHECK(preset_write(ctx, &p, test_scratch("large.safetensors"), FLIS_F16, true), "%s", ctx->error);
}

/* train layout of a model with a vocabulary of more than 32768 tokens; its picture is painted. */
void test_field_large_vocabulary(void)
{
    static job j;
    static char model[PATH_ROOM], words[PATH_ROOM], data[PATH_ROOM];
    flis_ctx ctx;
    outputs files;
    char ab[] = "ab", zz[] = "zz";
    uint8_t label[64 * 64];
    flis_init(&ctx);
    flis_vocab *vocab = read_large(&ctx);
    large_inputs(&ctx, vocab);
    name_outputs(&files, "tuned.safetensors");
    snprintf(model, PATH_ROOM, "%s", test_scratch("large.safetensors"));
    snprintf(words, PATH_ROOM, "%s", test_scratch("large.txt"));
    snprintf(data, PATH_ROOM, "%s", test_scratch("large"));
    job_begin(&j, LAYOUT, &files);
    j.o.model = model, j.o.vocab = words, j.o.data = data, j.o.steps = 2;
    CHECK(train(&j) && j.training.step == 2, "%s", j.ctx.error);
    job_free(&j);
    for (int i = 0; i < 64 * 64; i++) label[i] = i < 2048 ? 1 : 2;
    flis_phrase phrase[] = {{ab, 1}, {zz, 2}};
    const flis_layout layout = {.count = 2, .phrase = phrase, .label = {64, 64, 1, label}};
    flis_options how;
    flis_picture picture = {0};
    flis_options_default(&how);
    how.width = how.height = 64;
    how.sampling.steps = 2;
    CHECK(flis_generate(&ctx, files.path[0], vocab, &layout, &how, &picture) && picture.pixels, "%s", ctx.error);
    flis_picture_free(&picture);
    flis_vocab_free(vocab);
    flis_free(&ctx);
}
