/* segmenter.c - the segmenter of tools/train: label maps and features of pictures. */
#include "tools/common/common.h"
#include "tools/evaluate/evaluate.h"

#include <string.h>

size_t segmenter_features(const flis_unet *segmenter)
{
    const flis_unet_config *config = flis_unet_get_config(segmenter);
    return config->channels * config->mult[config->levels - 1];
}

/* A trace: means over the positions of the output of the middle block. */
static void average_middle(void *user, const char *name, const flis_tensor *t)
{
    flis_real *out = user;
    if (!out || strcmp(name, "middle_block") != 0) return;
    for (size_t c = 0; c < t->c; c++) {
        double sum = 0;
        for (size_t i = 0; i < t->h * t->w; i++) sum += (double)t->x[i * t->c + c];
        out[c] = (flis_real)(sum / (double)(t->h * t->w));
    }
}

bool segmenter_run(flis_ctx *ctx, const flis_unet *segmenter, const uint8_t *rgb, size_t width, size_t height,
                   uint8_t *label, flis_real *features)
{
    const double t = 0;
    const size_t h = height / 2, w = width / 2;
    if (width % 32 || height % 32)
        return flis_fail(ctx, "the segmenter: got %zu x %zu pixels, wanted sides that are multiples of 32", width,
                         height);
    flis_mark mark = flis_here(ctx);
    flis_tensor *x = flis_image(ctx, 1, h, w, 3),
                *text = flis_rows(ctx, 1, FLIS_TOKENS, flis_unet_get_config(segmenter)->context);
    if (x) half_picture(rgb, width, height, x->x);
    if (text) memset(text->x, 0, flis_count(text) * sizeof *text->x);
    ctx->trace = features ? average_middle : NULL;
    ctx->trace_user = features;
    const flis_tensor *y = flis_unet_eps(ctx, segmenter, x, &t, text, NULL);
    ctx->trace = NULL;
    for (size_t i = 0; y && label && i < height * width; i++) {
        const flis_real *score = y->x + (i / width / 2 * w + i % width / 2) * y->c;
        size_t best = 0;
        for (size_t c = 1; c < y->c; c++)
            if (score[c] > score[best]) best = c;
        label[i] = (uint8_t)best;
    }
    flis_rewind(ctx, mark);
    return flis_ok(ctx);
}

flis_unet *segmenter_load(flis_ctx *ctx, const char *path)
{
    flis_file *file = flis_file_open(ctx, path);
    flis_unet *segmenter = file ? flis_unet_load(ctx, file) : NULL;
    flis_file_close(file);
    if (!segmenter || flis_unet_get_config(segmenter)->in == 3) return segmenter;
    flis_fail(ctx, "%s: is not a segmenter: its input has %zu channels, wanted 3", path,
              flis_unet_get_config(segmenter)->in);
    flis_unet_free(segmenter);
    return NULL;
}
