/* paint.c - flis from C: loads a model once and paints every layout that it is given.
 *
 *     cc paint.c $(pkg-config --cflags --libs flis) -o paint
 *     ./paint models/flis-small.safetensors models/vocab.txt examples/harbour.json examples/night.json
 *
 * writes harbour.png and night.png, 128 x 128 pixels, into the working directory.
 */
#include <flis.h>

#include <string.h>

enum { SIDE = 128, SEED = 7 };

/* "examples/harbour.json" to "harbour.png". */
static void picture_name(const char *layout, char *out, size_t room)
{
    const char *base = strrchr(layout, '/') ? strrchr(layout, '/') + 1 : layout;
    snprintf(out, room, "%.*s.png", (int)strcspn(base, "."), base);
}

/* True when the picture was written; else ctx->error says why. */
static bool paint(flis_ctx *ctx, const flis_model *model, const flis_vocab *vocab, const char *path)
{
    flis_layout layout;
    flis_options options;
    flis_picture picture = {0, 0, 0, NULL};
    char name[256];
    picture_name(path, name, sizeof name);
    flis_options_default(&options);
    options.width = options.height = SIDE;
    options.seed = SEED;
    bool ok = flis_layout_read(ctx, path, &layout) &&
              flis_model_generate(ctx, model, vocab, &layout, &options, &picture) &&
              flis_write_png(ctx, name, &picture, NULL);
    flis_picture_free(&picture);
    flis_layout_free(&layout);
    return ok;
}

int main(int argc, char **argv)
{
    flis_ctx ctx;
    if (argc < 4) {
        fprintf(stderr, "usage: paint MODEL VOCAB LAYOUT.json...\n");
        return 2;
    }
    if (flis_version() != FLIS_VERSION_NUMBER) {
        fprintf(stderr, "paint: the library is %s, the header was %s\n", flis_version_text(), FLIS_VERSION);
        return 1;
    }
    flis_init(&ctx);
    flis_vocab *vocab = flis_vocab_read(&ctx, argv[2]);
    flis_model *model = flis_model_load(&ctx, argv[1], FLIS_PARTS_PAINT);
    bool ready = flis_ok(&ctx), failed = !ready;
    if (!ready) fprintf(stderr, "paint: %s\n", ctx.error);
    for (int i = 3; ready && i < argc; i++) {
        if (paint(&ctx, model, vocab, argv[i])) continue;
        fprintf(stderr, "paint: %s\n", ctx.error);
        flis_clear_error(&ctx); /* one bad layout does not stop the others */
        failed = true;
    }
    flis_model_free(&model);
    flis_vocab_free(vocab);
    flis_free(&ctx);
    return failed;
}
