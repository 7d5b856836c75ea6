/* features.c - statistics of a region that show its style, and what kind of thing it is. */
#include "tools/evaluate/internal.h"

#include <math.h>
#include <string.h>

bool style_features(const region *r, double *out)
{
    double n = 0, pairs = 0, phase[4] = {0};
    memset(out, 0, STYLE_FEATURES * sizeof *out);
    for (size_t y = 0; y < r->height; y++)
        for (size_t x = 0; x < r->width; x++) {
            size_t i = y * r->width + x;
            if (!inside(r, i)) continue;
            tint c = pixel_of(r, i);
            double l = (double)luma(c), a = (double)(c.r - c.g), b = (double)((c.r + c.g) / 2 - c.b),
                   chroma = sqrt(a * a + b * b);
            n++;
            out[COLOURFUL] += chroma, out[LUMA] += l, out[LUMA2] += l * l, out[HUE_A] += a, out[HUE_B] += b;
            out[DARK_SHARE] += l<0.12, out[BRIGHT_SHARE] += chroma> 0.5;
            for (int way = 0; way < 2; way++) {
                size_t k = way ? i + r->width : i + 1, at_edge = way ? y : x;
                if (at_edge + 1 == (way ? r->height : r->width) || !inside(r, k)) continue;
                double step = fabs((double)luma(pixel_of(r, k)) - l);
                pairs++;
                out[STEP] += step, out[FLAT] += step<0.004, out[SHARP] += step> 0.18, phase[at_edge % 4] += step;
            }
        }
    if (n == 0 || pairs == 0) return false;
    out[AGREED] = sqrt(out[HUE_A] * out[HUE_A] + out[HUE_B] * out[HUE_B]) / (out[COLOURFUL] + 1e-9);
    for (int k = COLOURFUL; k <= HUE_B; k++) out[k] /= n;
    out[LUMA2] = sqrt(fabs(out[LUMA2] - out[LUMA] * out[LUMA]));
    for (int k = 0; k < 4; k++) out[PHASE + k] = phase[k] / (out[STEP] + 1e-9);
    for (int k = STEP; k <= SHARP; k++) out[k] /= pairs;
    return true;
}

bool look_features(const region *r, double *out)
{
    double n[2] = {0}, sum[2][CHANNELS] = {{0}}, squares[CHANNELS] = {0};
    size_t pixels = 0, seen = 0;
    for (size_t i = 0; i < r->width * r->height; i++) pixels += inside(r, i);
    for (size_t i = 0; i < r->width * r->height; i++) {
        if (!inside(r, i)) continue;
        const bool lower = 2 * seen++ >= pixels;
        const tint c = pixel_of(r, i);
        const double of[CHANNELS] = {(double)luma(c), (double)(c.r - c.g), (double)((c.r + c.g) / 2 - c.b)};
        n[lower]++;
        for (int k = 0; k < CHANNELS; k++) sum[lower][k] += of[k], squares[k] += of[k] * of[k];
    }
    if (n[0] == 0 || n[1] == 0) return false;
    for (int k = 0; k < CHANNELS; k++) {
        const double mean = (sum[0][k] + sum[1][k]) / (double)pixels;
        out[k] = mean;
        out[CHANNELS + k] = sqrt(fabs(squares[k] / (double)pixels - mean * mean));
        out[2 * CHANNELS + k] = sum[1][k] / n[1] - sum[0][k] / n[0];
    }
    return true;
}
