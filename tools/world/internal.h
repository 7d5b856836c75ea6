/* internal.h - what the small world's files share, and its tests call. Other programs include world.h. */
#ifndef TOOLS_WORLD_INTERNAL_H
#define TOOLS_WORLD_INTERNAL_H

#include "tools/world/world.h"

/* ---- Numbers and colours (colour.c) ------------------------------------------------------------------------------ */

static inline float clamp01(float x)
{
    return x < 0 ? 0 : x > 1 ? 1 : x;
}
static inline float smooth(float x)
{
    x = clamp01(x);
    return x * x * (3 - 2 * x);
}
static inline float lerp(float a, float b, float t)
{
    return a + (b - a) * t;
}
static inline float step_at(float edge, float width, float x)
{
    return clamp01((x - edge) / width + 0.5f);
}

static inline tint mixed(tint a, tint b, float t)
{
    return (tint){lerp(a.r, b.r, t), lerp(a.g, b.g, t), lerp(a.b, b.b, t)};
}
static inline tint scaled(tint a, float k)
{
    return (tint){a.r * k, a.g * k, a.b * k};
}
static inline tint lighter(tint a, float t)
{
    return mixed(a, (tint){1, 1, 1}, t);
}
tint jittered(dice *d, tint a, float by); /* a colour within `by` of a in each channel */
/* Sum of octaves of value noise, `cells` lattice cells across the tile in the first; 0 to 1. */
void noise_tile(dice *d, int cells, int octaves, float *tile);
float texture(const float *tile, float u, float v); /* bilinear, repeating */

/* ---- Names (names.c) --------------------------------------------------------------------------------------------- */

enum {
    IN_SKY = 1,
    ON_GRASS = 2,
    ON_SNOW = 4,
    ON_SAND = 8,
    ON_WATER = 16,
    ON_ROAD = 32,
    BY_THE_SEA = 64,
    IN_DESERT = 128
};

/* colours, patterns: bits of those that a phrase may name. zones: where a thing may stand. low, high: range of a thing's larger
   side, in pixels; w, h: its box as shares of that side. */
typedef struct class_row {
    const char *name;
    bool stuff, layout; /* layout: in the layout training set */
    unsigned colours, patterns;
    int zones, weight; /* weight: relative frequency among the things of a zone */
    float low, high, w, h;
} class_row;
extern const class_row CLASS[WORLD_CLASSES + 1];

typedef struct colour_row {
    const char *name;
    tint value;
} colour_row;
extern const colour_row COLOURS[WORLD_COLOURS + 1];

/* ---- Shapes (shapes.c) ------------------------------------------------------------------------------------------- */

/* A shape is defined by its signed distance in pixels, negative inside; the coverage of a pixel follows from the distance. */
typedef enum { ELLIPSE, BOX, STROKE, POLYGON } shape_kind;
enum { CORNERS = 12 };
typedef struct shape {
    shape_kind kind;
    float x, y, rx, ry; /* centre and half sides; STROKE: the ends (x, y) and (rx, ry) */
    float cos, sin;     /* of its rotation */
    float round, taper; /* BOX: radius of corners; STROKE: radius at the first and second end */
    int corners;
    float corner[CORNERS][2];
    float feather;               /* width of the soft edge; 1: antialiased only */
    const struct shape *within;  /* clipped to; may be NULL */
    const struct shape *without; /* cut out; may be NULL */
} shape;

shape ellipse(float x, float y, float rx, float ry);
shape disc(float x, float y, float r);
shape box(float x0, float y0, float x1, float y1, float round);
shape stroke(float x0, float y0, float x1, float y1, float r0, float r1);
/* Corners given around (0, 0); moved to (x, y), scaled by sx and sy. */
shape polygon(int corners, const float (*corner)[2], float x, float y, float sx, float sy);
shape turned(shape s, float turn); /* by a fraction of a full turn */
shape feathered(shape s, float feather);
float distance(const shape *s, float x, float y); /* signed, in pixels; of what `within` and `without` leave */

/* The nearest row or column of the picture. */
static inline int within(int i)
{
    return i < 0 ? 0 : i >= WORLD_SIDE ? WORLD_SIDE - 1 : i;
}

typedef struct bounds {
    int x0, y0, x1, y1;
} bounds;
bounds clip_bounds(float x0, float y0, float x1, float y1); /* to the picture */
bounds shape_bounds(const shape *s);

/* ---- Brushes (brushes.c) ----------------------------------------------------------------------------------------- */

/* The fill of a shape: a gradient between two colours, linear along (gx, gy) from (x0, y0) or radial around (x0, y0), with a
   pattern, a darker rim and grain. */
enum { GORES = WORLD_PATTERNS + 1 }; /* coloured segments of a sphere: a pattern that no phrase names */
typedef struct brush {
    int label; /* 0: labels stay as they are (shadows, glows) */
    tint from, to;
    bool radial, glow;    /* glow: not darkened at night */
    float x0, y0, gx, gy; /* radial: gx = 1 / radius */
    float alpha;
    float rim, rim_width;
    float grain, grain_x, grain_y;
    int pattern, gores;
    float period, cx, cy, rx, ry; /* the pattern's scale and centre; half sides of the sphere for gores */
    tint paint[3];                /* the pattern's other colour; the gores' colours */
} brush;

brush flat(int label, tint c);
brush across(int label, tint from, tint to, float x0, float y0, float x1, float y1); /* linear */
brush down(int label, tint from, tint to, float y0, float y1);
brush around(int label, tint from, tint to, float x, float y, float r); /* radial */
brush grained(brush b, float grain, float x, float y);
brush rimmed(brush b, float rim, float width);

/* One pixel; label 0: the label stays. */
void put(world_scene *s, int x, int y, tint c, float alpha, int label, bool glow);
void paint(world_scene *s, shape form, brush b);
void shadow(world_scene *s, float x, float y, float rx, float ry, float alpha);
void shine(world_scene *s, float x, float y, float r, tint c,
           float alpha); /* a soft light that fades out at radius r */

/* ---- The plan of a scene (plan.c): what is where, before anything is drawn ---------------------------------------- */

typedef struct layer {
    uint8_t class, colour;
    int label;
    int y, bottom; /* mean row of the upper edge; later layers cover the rows from `bottom` on */
    uint64_t seed;
} layer;

typedef struct look {
    uint8_t class, colour, pattern;
    uint64_t seed;
} look;

typedef struct thing {
    uint8_t class, colour, pattern;
    bool misplaced;
    int label;
    int x, y, size; /* middle of its foot; the larger side */
    uint64_t seed;
    look outline; /* the thing whose outline it fills; class 0: its own */
} thing;

/* The class of its outline. */
static inline int form_of(const thing *t)
{
    return t->outline.class ? t->outline.class : t->class;
}

typedef enum { SEASIDE, MEADOW, ROADSIDE, SNOWY, DESERT, LAKESIDE, FARMLAND, SCENERIES } scenery;
enum { MOST_LAYERS = 6, MOST_THINGS = 10 };
typedef struct plan {
    scenery kind;
    bool night, country_road; /* country_road: to the horizon, else across the picture */
    int horizon, layers, things;
    layer layer[MOST_LAYERS];
    thing thing[MOST_THINGS];
    int style, style_label; /* style_label 0: the whole picture */
} plan;

/* One attempt with the dice; false: the result breaks the rules. */
bool plan_scene(plan *p, dice *d, const world_rules *r);
uint64_t composition(const plan *p); /* hash of what determines the label map */
void exchange_things(plan *p, const int label[2]);

/* ---- Drawing (draw.c, draw_stuff.c, draw_things.c, styles.c) ------------------------------------------------------ */

void draw_plan(world_scene *s, const plan *p, dice *d);
void draw_sky(world_scene *s, const layer *l);
void draw_night_sky(world_scene *s, const layer *l);
void draw_mountain(world_scene *s, const layer *l);
void draw_forest(world_scene *s, const layer *l);
void draw_ground(world_scene *s, const layer *l, float glitter);
void draw_lake(world_scene *s, const layer *l, float glitter);
void draw_road(world_scene *s, const layer *l, bool country);
/* ground: the class of the land it stands on, SNOW, SAND or else. */
void draw_thing(world_scene *s, const thing *t, int ground);
void draw_outlined(world_scene *s, const thing *t, int ground);
void conifer(world_scene *s, int label, float x, float y, float h, tint c, bool snowy);
/* Over the whole picture (only 0), or over the pixels with one label. */
void apply_style(world_scene *s, int style, int only, uint64_t seed);

/* ---- Phrases and captions (captions.c) ---------------------------------------------------------------------------- */

bool make_phrases(world_scene *s, const plan *p, dice *d);
void make_caption(world_scene *s, const plan *p, const world_rules *r, dice *d);

/* ---- Sets (sets.c) ------------------------------------------------------------------------------------------------ */

enum { OFTEN = 3 }; /* factor of world_rules.often */
#define ALL_CLASSES ((UINT64_C(2) << WORLD_CLASSES) - 2)
#define LAYOUT_CLASSES ((UINT64_C(2) << NIGHT_SKY) - 2)
/* Of the classes outside the layout set, those with the fewest phrases: 0.9 to 2.05 percent each in 1500 scenes of "anything"
   (balloon has 2.07, lighthouse 2.8). */
#define RARE_CLASSES \
    (UINT64_C(1) << MUSHROOM | UINT64_C(1) << SNOWMAN | UINT64_C(1) << CACTUS | UINT64_C(1) << UMBRELLA | \
     UINT64_C(1) << TENT | UINT64_C(1) << FISH | UINT64_C(1) << STAR | UINT64_C(1) << WINDMILL)
/* The rare classes that a model still painted wrong, and the class of the layout set whose colours and patterns it missed most. */
#define HARD_CLASSES ((RARE_CLASSES & ~(UINT64_C(1) << TENT)) | UINT64_C(1) << BALL)

#endif
