/* test_recipe.c - training on the authors' data sets: --recipe authors step by step against numbers of PyTorch 1.13, the order of an
 * epoch, lists of pictures, prompts of all classes, pictures as PIL has them.
 *
 * The numbers are those of tests/external/train_check.py in float64, which computes the same folder's steps anew (make check-train).
 */
#include "tests/unit/test.h"
#include "tools/train/train.h"

/* ---- AdamW ------------------------------------------------------------------------------------------------------- */

/* Four steps of torch.optim.AdamW, rate 1e-3, decay 0.1: gradients far below eps, about eps, far above it, and zero. The first two
   detect an eps inside the root, and all a missing correction of the first steps or a decay that goes through the moments. */
void test_recipe_adamw(void)
{
    enum { COUNT = 6, STEPS = 4 };
    static const flis_real first[COUNT] = {0.5f, -0.25f, 1.0f, -2.0f, 0.125f, 3.0f};
    static const double grad[COUNT] = {3e-9, -1e-8, 2e-6, 1e-3, -0.5, 0.0};
    static const double wanted[STEPS][COUNT] = {
        {0.499404545455, -0.249175000000, 0.998901248439, -2.000799997500, 0.125987499995, 2.999700000000},
        {0.498848872494, -0.248384158589, 0.997820170939, -2.001582489802, 0.126957476321, 2.999400030000},
        {0.498573294335, -0.248005448771, 0.997253428070, -2.001850042008, 0.127412492529, 2.999100089997},
        {0.498305690587, -0.247626960958, 0.996671693653, -2.002132744705, 0.127882640742, 2.998800179988},
    };
    flis_ctx ctx;
    training t;
    flis_param p = {.rank = 1, .shape = {COUNT}};
    flis_init(&ctx);
    training_default(&t);
    t.rate = 1e-3;
    t.decay = 0.1;
    CHECK(flis_param_set(&ctx, &p, first, false) && training_visit(&ctx, &t, "w", &p), "%s", ctx.error);
    for (int step = 1; step <= STEPS; step++) {
        for (int i = 0; i < COUNT; i++) p.grad[i] = (flis_real)(grad[i] * (5 - step) * (step == 3 ? -1 : 1));
        CHECK(training_step(&ctx, &t), "%s", ctx.error);
        /* Four steps round weights of up to 3 to float32: 1.2e-7 each. */
        for (int i = 0; i < COUNT; i++)
            CHECK(fabs((double)p.value[i] - wanted[step - 1][i]) <= 1.6e-7 * (1 + fabs(wanted[step - 1][i])),
                  "step %d: value %d is %.12f, PyTorch's %.12f", step, i, (double)p.value[i], wanted[step - 1][i]);
    }
    training_free(&t);
    flis_free_visit(&ctx, NULL, NULL, &p);
    flis_free(&ctx);
}

/* ---- A data set of two pictures ---------------------------------------------------------------------------------- */

enum { WIDTH = 80, HEIGHT = 48 };

static void put(flis_ctx *ctx, const char *name, const char *text)
{
    CHECK(output_write(ctx, test_scratch(name), text, strlen(text)), "%s", ctx->error);
}

/* Label 255 is void; "red boat" has several tokens. */
static void make_data(flis_ctx *ctx)
{
    static uint8_t ppm[16 + WIDTH * HEIGHT * 3], label[WIDTH * HEIGHT];
    char name[32];
    for (int i = 0; i < 2; i++) {
        const int head = snprintf((char *)ppm, 16, "P6\n%d %d\n255\n", WIDTH, HEIGHT);
        for (int y = 0; y < HEIGHT; y++)
            for (int x = 0; x < WIDTH; x++) {
                for (int c = 0; c < 3; c++)
                    ppm[head + 3 * (y * WIDTH + x) + c] = (uint8_t)(3 * x + 5 * y + 60 * c + 40 * i);
                label[y * WIDTH + x] = x < 24 + 20 * i ? 1 : y < 20 ? 2 : x < 70 ? 7 : 255;
            }
        const flis_picture map = {WIDTH, HEIGHT, 1, label};
        snprintf(name, sizeof name, "set-%d.ppm", i);
        CHECK(output_write(ctx, test_scratch(name), ppm, (size_t)head + WIDTH * HEIGHT * 3), "%s", ctx->error);
        snprintf(name, sizeof name, "set-%d.png", i);
        CHECK(flis_write_png(ctx, test_scratch(name), &map, NULL), "%s", ctx->error);
    }
    put(ctx, "classes.tsv", "1\tsea\n2\tsky\n7\tred boat\n");
    put(ctx, "list.txt", "set-0.ppm\r\n\nset-1.ppm\n");
}

typedef struct paths {
    char model[PATH_ROOM], root[PATH_ROOM], list[PATH_ROOM], classes[PATH_ROOM], vocab[PATH_ROOM], out[4][PATH_ROOM];
} paths;

/* A job of the recipe, at 64 x 64. */
static void job_begin(job *j, paths *p)
{
    static volatile int no_stop;
    static const char *const end[] = {"", ".state", ".tsv", ".svg"};
    memset(j, 0, sizeof *j);
    flis_init(&j->ctx);
    settings_default(&j->o, LAYOUT);
    settings_recipe(&j->o, RECIPE_AUTHORS);
    for (int i = 0; i < 4; i++) {
        char name[32];
        snprintf(name, sizeof name, "recipe.safetensors%s", end[i]);
        snprintf(p->out[i], PATH_ROOM, "%s", test_scratch(name));
    }
    snprintf(p->model, PATH_ROOM, "%s", test_scratch("tinyA.safetensors"));
    snprintf(p->list, PATH_ROOM, "%s", test_scratch("list.txt"));
    snprintf(p->classes, PATH_ROOM, "%s", test_scratch("classes.tsv"));
    snprintf(p->root, PATH_ROOM, "%.*s", (int)folder_length(p->list) - 1, p->list);
    snprintf(p->vocab, PATH_ROOM, "%s", test_path("../models/vocab.txt"));
    j->o.out = p->out[0], j->o.state = p->out[1], j->o.log = p->out[2], j->o.plot = p->out[3];
    j->o.model = p->model, j->o.vocab = p->vocab;
    j->o.dataset = p->classes, j->o.data_root = p->root, j->o.train_list = p->list;
    j->o.size = 64, j->o.quiet = true;
    j->progress.quiet = true;
    j->stop = &no_stop;
}

/* ---- Steps against PyTorch --------------------------------------------------------------------------------------- */

/* Two steps of two accumulated batches: the mean loss, the norm of the last gradient, and of eight weights the value that has the
   largest gradient. Errors measured: loss 2.3e-7, norm 2.6e-6 of themselves, weights 3.4e-8. The loss detects masks that are off by one; the norm,
   gradients that are added and not averaged, which AdamW's steps would not show. */
void test_recipe_steps(void)
{
    static const double LOSS = 1.456997962, NORM = 8.26727268;
    static const struct {
        const char *name;
        size_t at;
        double value;
    } wanted[] = {
        {"input_blocks.0.0.weight", 406, 0.0469668753},
        {"input_blocks.1.1.transformer_blocks.0.attn2.to_q.weight", 22, 0.1166060450},
        {"input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight", 695, -0.0593210928},
        {"middle_block.1.transformer_blocks.0.attn2.to_v.weight", 1629, -0.2133070410},
        {"middle_block.1.transformer_blocks.0.norm2.weight", 5, 0.9642091731},
        {"time_embed.0.weight", 1108, 0.0611328318},
        {"output_blocks.5.0.out_layers.3.weight", 4587, 0.0394512606},
        {"out.2.bias", 3, 0.0030863870},
    };
    static job j;
    static paths p;
    job_begin(&j, &p);
    make_data(&j.ctx);
    CHECK(preset_write(&j.ctx, preset_find("tinyA"), p.model, FLIS_F32, true), "%s", j.ctx.error);
    j.o.steps = 2, j.o.accumulate = 2, j.o.rate = 1e-4, j.o.decay = 0.1, j.o.f32 = true;
    CHECK(train(&j) && j.training.step == 2 && j.lines == 1, "%s", j.ctx.error);
    if (j.lines)
        CHECK(fabs(j.line[0].loss - LOSS) <= 1e-6 * LOSS && fabs(j.training.norm - NORM) <= 1e-5 * NORM,
              "loss %.10f, PyTorch's %.10f; norm %.10f, PyTorch's %.10f", j.line[0].loss, LOSS, j.training.norm, NORM);
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++) {
        double got = NAN;
        for (size_t k = 0; k < j.training.count; k++)
            if (strcmp(j.training.item[k].name + strlen("model.diffusion_model."), wanted[i].name) == 0)
                got = j.training.item[k].param->value[wanted[i].at];
        CHECK(fabs(got - wanted[i].value) <= 1e-7, "%s: %.10f, PyTorch's %.10f", wanted[i].name, got, wanted[i].value);
    }
    flis_file *file = flis_file_open(&j.ctx, p.out[0]);
    const flis_entry *e = file ? flis_file_find(file, "model.diffusion_model.out.2.bias") : NULL;
    flis_real bias[4] = {0};
    CHECK(e && e->dtype == FLIS_F32 && flis_file_read_real(&j.ctx, file, e, bias), "--f32 writes no F32: %s",
          j.ctx.error);
    CHECK(fabs((double)bias[3] - wanted[7].value) <= 1e-7, "the file has %.10f, not the last weights", (double)bias[3]);
    flis_file_close(file);
    job_free(&j);
}

/* ---- Order ------------------------------------------------------------------------------------------------------- */

/* Each epoch has every picture once; epochs and seeds have other orders; every picture comes first as often as others. */
void test_recipe_order(void)
{
    options o;
    settings_default(&o, LAYOUT);
    for (uint64_t count = 1; count <= 70; count++)
        for (uint64_t epoch = 0; epoch < 3; epoch++) {
            bool seen[70] = {false};
            for (uint64_t i = 0; i < count; i++) {
                const uint64_t at = shuffled(&o, epoch, i, count);
                CHECK(at < count && !seen[at], "%d pictures, epoch %d: number %d is %d", (int)count, (int)epoch, (int)i,
                      (int)at);
                if (at < count) seen[at] = true;
            }
        }
    int first[10] = {0}, next[10] = {0}, same = 0;
    for (uint64_t epoch = 0; epoch < 2000; epoch++) {
        const uint64_t a = shuffled(&o, epoch, 0, 10), b = shuffled(&o, epoch, 1, 10);
        first[a]++;
        next[(b + 10 - a) % 10]++;
    }
    /* 200 and 222 are expected; five standard deviations are 67 and 71. */
    for (int i = 0; i < 10; i++)
        CHECK(abs(first[i] - 200) < 70 && (i == 0 || abs(next[i] - 222) < 75), "%d: %d first, %d next", i, first[i],
              next[i]);
    for (uint64_t i = 0; i < 118287; i += 1000) same += shuffled(&o, 0, i, 118287) == shuffled(&o, 1, i, 118287);
    o.seed = 1;
    const uint64_t other = shuffled(&o, 0, 0, 118287);
    o.seed = 0;
    CHECK(same < 3 && other != shuffled(&o, 0, 0, 118287), "the order does not change: %d of 119 pictures", same);
}

/* ---- Samples ----------------------------------------------------------------------------------------------------- */

static const char *open_set(job *j, paths *p)
{
    static char error[sizeof j->ctx.error];
    job_begin(j, p);
    j->vocab = flis_vocab_read(&j->ctx, p->vocab);
    const bool good = photos_open_dataset(&j->ctx, &j->o, j->vocab, &j->folder);
    j->folder.all_classes = j->folder.bytes = true;
    if (good) photos_check(j, &j->folder);
    snprintf(error, sizeof error, "%s", j->ctx.error);
    return error;
}

/* Pictures are bytes of PIL / 127.5 - 1; the prompt has every class, in the order of labels, without void; mirroring. */
void test_recipe_sample(void)
{
    enum { SIDE = 64 };
    static job j;
    static paths p;
    static flis_real pixels[SIDE * SIDE * 3], mirrored[SIDE * SIDE * 3];
    static uint8_t label[SIDE * SIDE], turned[SIDE * SIDE];
    flis_phrase *phrase = NULL;
    flis_picture picture = {0}, small = {0};
    size_t phrases = 0, wrong = 0;
    job_begin(&j, &p);
    make_data(&j.ctx);
    job_free(&j);
    CHECK(!*open_set(&j, &p), "%s", j.ctx.error);
    CHECK(photos_sample(&j.ctx, &j.folder, 1, SIDE, true, mirrored, turned, &phrase, &phrases), "%s", j.ctx.error);
    phrases_free(phrase, phrases);
    CHECK(photos_sample(&j.ctx, &j.folder, 1, SIDE, false, pixels, label, &phrase, &phrases) && phrases == 3 &&
              phrase[0].id == 1 && phrase[1].id == 2 && phrase[2].id == 7 && strcmp(phrase[2].text, "red boat") == 0,
          "%zu phrases: %s", phrases, j.ctx.error);
    phrases_free(phrase, phrases);
    CHECK(read_picture(&j.ctx, j.folder.files.name[1], &picture) &&
              resize_bicubic(&j.ctx, &picture, SIDE, SIDE, &small),
          "%s", j.ctx.error);
    for (size_t i = 0; small.pixels && i < SIDE * SIDE; i++) {
        const size_t other = i / SIDE * SIDE + SIDE - 1 - i % SIDE;
        wrong += label[i] != turned[other];
        for (size_t c = 0; c < 3; c++)
            wrong += pixels[3 * i + c] != (float)(small.pixels[3 * i + c] / 127.5 - 1.0) ||
                     pixels[3 * i + c] != mirrored[3 * other + c];
    }
    CHECK(!wrong && label[0] == 1 && label[63] == 2 && label[SIDE * SIDE - 1] == 255, "%zu values are wrong", wrong);
    free(picture.pixels);
    free(small.pixels);
    job_free(&j);
}

/* What a list, a folder or a label map can have wrong: one sentence, before the first step. */
void test_recipe_refuses(void)
{
    static const struct {
        const char *file, *text, *says;
    } rows[] = {
        {"list.txt", "set-0.ppm\nnowhere/x.jpg\n", "list.txt: there is no file nowhere/x.jpg, and no "},
        {"list.txt", "\n", "list.txt: the list is empty"},
        {"classes.tsv", "1\tsea\n2\tsky\n", "set-0.png: has label 7, which is no class of "},
        {"classes.tsv", "3\tsea\n4\tsky\n", "set-0.png: has label 1, which is no class of "},
        {"classes.tsv",
         "1\tsea sea sea sea sea sea sea sea sea sea sea sea sea sea sea sea sea sea sea sea\n"
         "2\tsky sky sky sky sky sky sky sky sky sky sky sky sky sky sky sky sky sky sky sky\n"
         "7\tboat boat boat boat boat boat boat boat boat boat boat boat boat boat boat boat boat boat boat boat boat "
         "boat "
         "boat boat boat boat boat boat boat boat boat boat boat boat boat boat boat boat boat boat boat boat boat\n",
         "set-0.ppm: prompt: "},
    };
    static job j;
    static paths p;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        job_begin(&j, &p);
        make_data(&j.ctx);
        put(&j.ctx, rows[i].file, rows[i].text);
        job_free(&j);
        const char *got = open_set(&j, &p);
        CHECK(strstr(got, rows[i].says), "row %zu: \"%s\", wanted \"%s\"", i, got, rows[i].says);
        job_free(&j);
    }
}
