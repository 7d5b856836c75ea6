/* miou.c - agreement of label maps: a confusion matrix, and the scores of it. */
#include "tools/evaluate/evaluate.h"

#include <string.h>

bool confusion_make(flis_ctx *ctx, confusion *c, int first, int classes, int void_label, int modulo)
{
    *c = (confusion){.first = first, .predicted_first = first, .classes = classes, .modulo = modulo};
    for (int l = 0; l < 256; l++) {
        c->is_void[l] = l == void_label;
        c->is_class[l] = l >= first && l < first + classes && l != void_label;
    }
    c->count = flis_alloc(ctx, (size_t)classes * (size_t)(classes + 1), sizeof *c->count);
    return c->count != NULL;
}

static bool any(const bool *flag)
{
    return memchr(flag, true, 256 * sizeof *flag) != NULL;
}

/* The column of a predicted label; c->classes: none of the classes. */
static int column_of(const confusion *c, int label)
{
    const int shift = c->first - c->predicted_first, raw = label + shift,
              moved = (c->modulo ? label % c->modulo : label) + shift;
    if (moved < c->first || moved >= c->first + c->classes || !(c->is_class[moved] || c->is_void[moved]))
        return c->classes;
    return raw >= 0 && raw < 256 && c->is_void[raw] ? c->classes : moved - c->first;
}

bool confusion_add(flis_ctx *ctx, confusion *c, const char *name, const uint8_t *truth, const uint8_t *predicted,
                   size_t pixels)
{
    for (size_t i = 0; i < pixels; i++) {
        if (c->is_void[truth[i]]) continue;
        const int label = c->modulo ? truth[i] % c->modulo : truth[i], t = label - c->first;
        if (t < 0 || t >= c->classes || !(c->is_class[label] || c->is_void[label]))
            return flis_fail(ctx, "%s: pixel %zu has label %d, wanted %d to %d%s", name, i, truth[i], c->first,
                             c->first + c->classes - 1, any(c->is_void) ? ", or the void label" : "");
        c->count[(size_t)t * (size_t)(c->classes + 1) + (size_t)column_of(c, predicted[i])]++;
        c->pixels++;
    }
    c->images++;
    return true;
}

bool confusion_score(flis_ctx *ctx, const confusion *c, iou_score *out)
{
    double sum = 0, accuracy = 0;
    uint64_t right = 0;
    int n = c->classes;
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
        out->all += c->is_class[c->first + t];
        out->either += out->truth[t] || out->predicted[t];
        out->iou[t] = out->accuracy[t] = -1;
        if (!out->truth[t]) continue;
        out->iou[t] = (double)both / (double)(out->truth[t] + out->predicted[t] - both);
        out->accuracy[t] = (double)both / (double)out->truth[t];
        sum += out->iou[t];
        accuracy += out->accuracy[t];
        right += both;
        out->present++;
    }
    out->mean_present = sum / out->present;
    out->mean_either = sum / out->either;
    out->mean_all = sum / out->all;
    out->mean_accuracy = accuracy / out->present;
    out->pixel_accuracy = (double)right / (double)c->pixels;
    return true;
}
