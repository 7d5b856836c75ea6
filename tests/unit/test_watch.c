/* test_watch.c - what runs beside a training and must not change it: pictures that are read ahead, the log with a validation loss.
 * tests/sh/train.sh compares whole trainings with and without them.
 */
#include "tests/unit/test.h"
#include "tools/train/train.h"

/* ---- A thread ------------------------------------------------------------------------------------------------------ */

static void add_one(void *number)
{
    ++*(int *)number;
}

void test_watch_thread(void)
{
    thread t = {0};
    thread_end(&t);
    for (int threads = 1; threads <= 2; threads++) {
        int number = 0;
        thread_begin(&t, threads, add_one, &number);
        CHECK(threads > 1 || number == 0, "without a thread, the work began before its end was wanted");
        thread_end(&t);
        CHECK(number == 1, "%d threads: the work was done %d times", threads, number);
        thread_end(&t);
        CHECK(number == 1, "an end without a begin did something");
    }
}

/* ---- Pictures ahead ------------------------------------------------------------------------------------------------ */

enum { PICTURES = 5, SIDE = 64, BATCH = 2, STEPS = 6, PARTS = 2 };
static volatile int no_stop;

static void name_picture(int i, char out[64])
{
    snprintf(out, 64, "watched/pictures/%d.png", i);
}

/* Pictures of noise, with captions. The names are given to test_scratch before their folders, so that these are removed last. */
static void make_folder_of_noise(void)
{
    static uint8_t rgb[SIDE * SIDE * 3];
    static const char captions[] = "a\nb\nc\nd\ne\n";
    char name[64];
    flis_ctx ctx;
    flis_init(&ctx);
    for (int i = 0; i < PICTURES; i++) name_picture(i, name), test_scratch(name);
    test_scratch("watched/captions.txt");
    test_scratch("watched/pictures");
    make_folder(&ctx, test_scratch("watched"));
    make_folder(&ctx, test_scratch("watched/pictures"));
    output_write(&ctx, test_scratch("watched/captions.txt"), captions, strlen(captions));
    for (int i = 0; i < PICTURES; i++) {
        dice d = {(uint64_t)i};
        for (size_t k = 0; k < sizeof rgb; k++) rgb[k] = (uint8_t)roll(&d, 256);
        name_picture(i, name);
        flis_write_png(&ctx, test_scratch(name), &(flis_picture){SIDE, SIDE, 3, rgb}, NULL);
    }
    CHECK(flis_ok(&ctx), "%s", ctx.error);
    flis_free(&ctx);
}

static void begin(job *j, int threads, order_kind order)
{
    static char path[PATH_ROOM];
    memset(j, 0, sizeof *j);
    flis_init(&j->ctx);
    snprintf(path, sizeof path, "%s", test_scratch("watched"));
    j->ctx.threads = threads;
    j->stop = &no_stop;
    settings_default(&j->o, TEXT2IMAGE);
    j->o.size = SIDE, j->o.batch = BATCH, j->o.steps = STEPS, j->o.accumulate = PARTS, j->o.order = (int)order;
    CHECK(photos_open(&j->ctx, path, false, NULL, &j->folder) && ahead_make(j), "%s", j->ctx.error);
}

static void end(job *j)
{
    ahead_free(j);
    photos_close(&j->folder);
    flis_free(&j->ctx);
}

/* The pictures of the present batch are those that its random numbers choose, each with its caption. */
static void check_batch(job *j)
{
    static flis_real pixels[SIDE * SIDE * 3];
    static uint8_t label[SIDE * SIDE];
    ahead_batch(j);
    for (size_t k = 0; k < BATCH; k++) {
        flis_phrase *phrase;
        size_t phrases;
        dice d = dice_of(&j->o, DICE_SAMPLE, batch_number(j), k);
        const choice c = choose_photo(j, batch_number(j), k, &d);
        const decoded *got = ahead_sample(j, k);
        CHECK(photos_sample(&j->ctx, &j->folder, c.at, SIDE, c.mirror, pixels, label, &phrase, &phrases), "%s",
              j->ctx.error);
        CHECK(!*got->error && memcmp(got->pixels, pixels, sizeof pixels) == 0 &&
                  strcmp(got->phrase[0].text, phrase[0].text) == 0,
              "step %d, part %d: another picture than %zu", (int)j->training.step, (int)j->part, c.at);
        phrases_free(phrase, phrases);
    }
}

/* In order, from the middle as after --resume, and where a batch is asked for twice. */
void test_watch_ahead(void)
{
    static job j;
    make_folder_of_noise();
    for (int threads = 1; threads <= 2; threads++)
        for (int order = ORDER_DRAWN; order <= ORDER_EPOCHS; order++) {
            begin(&j, threads, (order_kind)order);
            for (j.training.step = 0; j.training.step < STEPS; j.training.step++)
                for (j.part = 0; j.part < PARTS; j.part++) check_batch(&j), check_batch(&j);
            end(&j);
            begin(&j, threads, (order_kind)order);
            j.training.step = 3;
            check_batch(&j);
            j.training.step = 1, j.part = 1;
            check_batch(&j);
            end(&j);
        }
}

/* A picture that breaks after the check is an error of the batch that needs it, not of the one before. */
void test_watch_broken(void)
{
    static job j;
    char name[64];
    make_folder_of_noise();
    for (int threads = 1; threads <= 2; threads++) {
        begin(&j, threads, ORDER_EPOCHS);
        dice d = dice_of(&j.o, DICE_SAMPLE, 1, 0);
        const choice c = choose_photo(&j, 1, 0, &d);
        name_picture((int)c.at, name);
        CHECK(output_write(&j.ctx, test_scratch(name), "P6", 2), "%s", j.ctx.error);
        ahead_batch(&j);
        for (size_t k = 0; k < BATCH; k++) CHECK(!*ahead_sample(&j, k)->error, "an error of the next batch");
        j.part = 1;
        ahead_batch(&j);
        CHECK(strstr(ahead_sample(&j, 0)->error, "wanted a binary PPM") && flis_ok(&j.ctx), "\"%s\"",
              ahead_sample(&j, 0)->error);
        batch b = {0};
        CHECK(!put_photo(&j, &j.folder, c, ahead_sample(&j, 0), &b, 0, 1, &d) && strstr(j.ctx.error, "binary PPM"),
              "the sentence is lost: \"%s\"", j.ctx.error);
        end(&j);
        make_folder_of_noise();
    }
}

/* ---- The log ------------------------------------------------------------------------------------------------------- */

static void check_log(const char *wanted, bool column)
{
    static job j;
    size_t length;
    static char path[PATH_ROOM];
    memset(&j, 0, sizeof j);
    flis_init(&j.ctx);
    snprintf(path, sizeof path, "%s", test_scratch("watched.tsv"));
    j.o.log = path;
    j.training.step = 75;
    CHECK(output_write(&j.ctx, path, wanted, strlen(wanted)) && log_read(&j), "%s", j.ctx.error);
    CHECK(j.lines == 3 && j.line[1].step == 50 && j.line[2].norm == 3, "%zu lines", j.lines);
    CHECK((j.line[0].validation == j.line[0].validation) == column && !(j.line[1].validation == j.line[1].validation),
          "validation %g, %g", j.line[0].validation, j.line[1].validation);
    CHECK(log_write(&j), "%s", j.ctx.error);
    char *text = flis_read_file(&j.ctx, path, 4096, &length);
    CHECK(text && strcmp(text, wanted) == 0, "got \"%s\", wanted \"%s\"", text, wanted);
    free(text);
    free(j.line);
    flis_free(&j.ctx);
}

/* A log is read and written to the same bytes, also where a line has no validation loss. */
void test_watch_log(void)
{
    check_log("step\tloss\tgradient_norm\n25\t0.5\t1\n50\t0.25\t2\n75\t0.125\t3\n", false);
    check_log("step\tloss\tgradient_norm\tvalidation\n25\t0.5\t1\t0.75\n50\t0.25\t2\t\n75\t0.125\t3\t0.625\n", true);
}

/* Samples that are spread over all: the first, no two the same, in order. */
void test_watch_spread(void)
{
    for (size_t of = 1; of < 40; of++)
        for (size_t count = 1; count <= of; count++)
            for (size_t i = 0; i < count; i++) {
                const size_t at = spread_evenly(i, count, of);
                CHECK(at < of && (i ? at > spread_evenly(i - 1, count, of) : at == 0), "%zu of %zu of %zu: %zu", i,
                      count, of, at);
            }
}
