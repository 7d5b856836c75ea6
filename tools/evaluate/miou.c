/* miou.c - agreement of label maps: a confusion matrix, and the scores of it. */
#include "tools/evaluate/evaluate.h"

#include <string.h>

bool confusion_make(flis_ctx *ctx, confusion *c, int first, int classes, int void_label, int modulo)
{
    *c = (confusion){.first = first, .classes = classes, .void_label = void_label, .modulo = modulo};
    c->count = flis_alloc(ctx, (size_t)classes * (size_t)(classes + 1), sizeof *c->count);
    return c->count != NULL;
}

bool confusion_add(flis_ctx *ctx, confusion *c, const char *name, const uint8_t *truth, const uint8_t *predicted,
                   size_t pixels)
{
    for (size_t i = 0; i < pixels; i++) {
        if (truth[i] == c->void_label) continue;
        int t = (c->modulo ? truth[i] % c->modulo : truth[i]) - c->first;
        int p = (c->modulo ? predicted[i] % c->modulo : predicted[i]) - c->first;
        if (t < 0 || t >= c->classes)
            return flis_fail(ctx, "%s: pixel %zu has label %d, wanted %d to %d%s", name, i, truth[i], c->first,
                             c->first + c->classes - 1, c->void_label < 0 ? "" : ", or the void label");
        if (p < 0 || p >= c->classes || predicted[i] == c->void_label) p = c->classes;
        c->count[(size_t)t * (size_t)(c->classes + 1) + (size_t)p]++;
        c->pixels++;
    }
    c->images++;
    return true;
}

bool confusion_score(flis_ctx *ctx, const confusion *c, iou_score *out)
{
    double sum = 0, accuracy = 0;
    uint64_t right = 0;
    int n = c->classes, counted = n - (c->void_label >= c->first && c->void_label < c->first + n);
    memset(out, 0, sizeof *out);
    if (!c->pixels) return flis_fail(ctx, "the ground truth has no pixel with a class");
    for (int t = 0; t < n; t++)
        for (int p = 0; p <= n; p++) {
            uint64_t k = c->count[(size_t)t * (size_t)(n + 1) + (size_t)p];
            out->truth[t] += k;
            if (p < n) out->predicted[p] += k;
        }
    for (int t = 0; t < n; t++) {
        uint64_t both = c->count[(size_t)t * (size_t)(n + 1) + (size_t)t];
        out->iou[t] = -1;
        if (!out->truth[t]) continue;
        out->iou[t] = (double)both / (double)(out->truth[t] + out->predicted[t] - both);
        sum += out->iou[t];
        accuracy += (double)both / (double)out->truth[t];
        right += both;
        out->present++;
    }
    out->mean_present = sum / out->present;
    out->mean_all = sum / counted;
    out->mean_accuracy = accuracy / out->present;
    out->pixel_accuracy = (double)right / (double)c->pixels;
    return true;
}
