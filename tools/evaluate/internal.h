/* internal.h - statistics of a region, from which judges.c decides. Other programs include evaluate.h. */
#ifndef TOOLS_EVALUATE_INTERNAL_H
#define TOOLS_EVALUATE_INTERNAL_H

#include "tools/evaluate/evaluate.h"

static inline bool inside(const region *r, size_t i)
{
    return r->id < 0 || r->label[i] == r->id;
}

static inline tint pixel_of(const region *r, size_t i)
{
    return (tint){(float)r->rgb[3 * i] / 255, (float)r->rgb[3 * i + 1] / 255, (float)r->rgb[3 * i + 2] / 255};
}

/* Of patterns: the share of the variance that stripes and spots in the world's directions explain (pattern_share in
   tools/world/brushes.c), at their best period and at the usual one, and the share that other directions explain. */
enum { STRIPES, SPOTS, MIRRORED, SPOTS_A, SPOTS_B, SPOTS_C, UPRIGHT, STRIPES_10, SPOTS_11, PATTERN_FEATURES };
bool pattern_features(flis_ctx *ctx, const region *r, double *out);

/* Of styles: statistics of colour (spread, darkness, how far the hues agree), and of the steps between neighbouring pixels of
   the region (size, flatness, where in a grid of 4 they lie). */
enum {
    COLOURFUL,
    LUMA,
    LUMA2,
    DARK_SHARE,
    BRIGHT_SHARE,
    HUE_A,
    HUE_B,
    AGREED,
    STEP,
    FLAT,
    SHARP,
    PHASE,
    STYLE_FEATURES = PHASE + 4
};
bool style_features(const region *r, double *out);

/* Of things: mean and standard deviation of luma and of two opponent colours, and the change from the upper half to the lower. */
enum { CHANNELS = 3, LOOK_FEATURES = 3 * CHANNELS };
bool look_features(const region *r, double *out);

#endif
