/* colours.c - which named colour a region has. */
#include "tools/evaluate/internal.h"

/* The name of one colour, 0: none. Boundaries lie between the hues of the world's palette; brown and teal have no name. */
static int name_colour(tint c)
{
    float high = c.r > c.g ? (c.r > c.b ? c.r : c.b) : c.g > c.b ? c.g : c.b;
    float low = c.r < c.g ? (c.r < c.b ? c.r : c.b) : c.g < c.b ? c.g : c.b, chroma = high - low;
    if (chroma < 0.12f) return high > 0.66f ? WHITE : high < 0.30f ? BLACK : 0;
    if (high < 0.20f) return BLACK;
    float hue = high == c.r ? (c.g - c.b) / chroma : high == c.g ? 2 + (c.b - c.r) / chroma : 4 + (c.r - c.g) / chroma;
    hue = 60 * (hue < 0 ? hue + 6 : hue);
    float share = chroma / high;
    if (hue >= 345 || hue < 13) return share < 0.5f && high > 0.8f ? PINK : share > 0.45f ? RED : 0;
    if (hue < 41) return share > 0.55f && high > 0.55f ? ORANGE : 0;
    if (hue < 68) return share > 0.45f && high > 0.45f ? YELLOW : 0;
    if (hue < 170) return GREEN;
    if (hue < 200) return 0;
    if (hue < 252) return share > 0.35f ? BLUE : 0;
    if (hue < 312) return PURPLE;
    return PINK;
}

int measure_colour(const region *r, double *share)
{
    size_t count[WORLD_COLOURS + 1] = {0}, total = 0;
    for (size_t i = 0; i < r->width * r->height; i++) {
        if (!inside(r, i)) continue;
        tint c = pixel_of(r, i);
        if (r->night) c = (tint){c.r / MOONLIGHT.r, c.g / MOONLIGHT.g, c.b / MOONLIGHT.b};
        count[name_colour(c)]++;
        total++;
    }
    int best = WHITE, hue = RED;
    for (int c = RED; c <= WORLD_COLOURS; c++) {
        if (share) share[c] = total ? (double)count[c] / (double)total : 0;
        if (c < WHITE && count[c] > count[hue]) hue = c;
    }
    if (share) share[0] = total ? (double)count[0] / (double)total : 0;
    if (count[BLACK] > count[WHITE]) best = BLACK;
    if (4 * count[hue] >= total || count[hue] > count[best]) best = hue;
    return 5 * count[best] >= total && total ? best : 0;
}
