/* threads.c MODEL VOCAB LAYOUT.json LAYOUT.json - two threads, a context each, one model: for the thread sanitizer.
 *
 * The model and the vocabulary are loaded once and shared. Each thread reads its own layout and paints it; the pictures
 * must equal those that a single thread paints. There is one step only, because the sanitizer makes everything ten
 * times slower. Exit 0 if they are equal.
 */
#include "flis.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

typedef struct job {
    const flis_model *model;
    const flis_vocab *vocab;
    const char *path;
    flis_picture picture;
    char error[4096];
} job;

static void *work(void *user)
{
    job *j = user;
    flis_ctx ctx;
    flis_layout layout;
    flis_options options;
    flis_init(&ctx);
    ctx.threads = 1;
    flis_options_default(&options);
    options.width = options.height = 64;
    options.sampling.kind = FLIS_DDIM;
    options.sampling.steps = 1;
    flis_layout_read(&ctx, j->path, &layout);
    flis_model_generate(&ctx, j->model, j->vocab, &layout, &options, &j->picture);
    memcpy(j->error, ctx.error, sizeof ctx.error);
    flis_layout_free(&layout);
    flis_free(&ctx);
    return NULL;
}

static bool same(const flis_picture *a, const flis_picture *b)
{
    return a->pixels && b->pixels && a->width == b->width && a->height == b->height &&
           memcmp(a->pixels, b->pixels, a->width * a->height * 3) == 0;
}

int main(int argc, char **argv)
{
    flis_ctx ctx;
    if (argc != 5) return 2;
    flis_init(&ctx);
    flis_vocab *vocab = flis_vocab_read(&ctx, argv[2]);
    flis_model *model = flis_model_load(&ctx, argv[1], FLIS_PARTS_PAINT);
    if (!flis_ok(&ctx)) {
        fprintf(stderr, "threads: %s\n", ctx.error);
        return 1;
    }
    static job jobs[4]; /* two at a time, then the same two one after the other */
    pthread_t thread[2];
    bool ok = true;
    for (int i = 0; i < 4; i++) jobs[i] = (job){.model = model, .vocab = vocab, .path = argv[3 + i % 2]};
    for (int i = 0; i < 2; i++) ok = pthread_create(&thread[i], NULL, work, &jobs[i]) == 0 && ok;
    for (int i = 0; i < 2 && ok; i++) pthread_join(thread[i], NULL);
    for (int i = 2; i < 4; i++) work(&jobs[i]);
    for (int i = 0; i < 4; i++) {
        if (*jobs[i].error) fprintf(stderr, "threads: %s\n", jobs[i].error);
        ok = ok && !*jobs[i].error && same(&jobs[i].picture, &jobs[i % 2].picture);
    }
    for (int i = 0; i < 4; i++) flis_picture_free(&jobs[i].picture);
    flis_model_free(&model);
    flis_vocab_free(vocab);
    flis_free(&ctx);
    if (!ok) fprintf(stderr, "threads: the pictures of two threads differ from those of one\n");
    return ok ? 0 : 1;
}
