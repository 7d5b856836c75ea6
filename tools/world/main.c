/* world.c - the small world: 128 x 128 scenes with label maps and captions, any number, from a seed.
 *
 * The small model learns here what Stable Diffusion learnt from photographs, so that the paper's experiments can be
 * repeated within hours: text to image sees every class, colour, pattern and style; the fine-tuning for layouts sees plain
 * class names of a subset; what is left over is out of distribution, and the label maps tell whether it came out right.
 *
 * A scene is a pure function of (seed, rules), the same bytes on every machine: own generator, and of floating point only
 * + - * / sqrt and floor, each exactly rounded. One call of the dice per full expression, since C leaves the order open
 * within one.
 *
 * In order: what others call (classes, rules, world_draw), dice and numbers, shapes and brushes, stuff, things, styles, the
 * plan of a scene, captions, and the program. Others include this file with WORLD_NO_MAIN defined (or main renamed).
 *
 * Coordinates: x to the right, y down, in pixels; the pixel in column i covers i..i+1. Colours: 0..1, as stored (sRGB).
 */
#include "flis.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- What others call -------------------------------------------------------------------------------------------- */

enum {
    WORLD_SIDE = 128,
    WORLD_PIXELS = WORLD_SIDE * WORLD_SIDE,
    WORLD_PHRASES = 16, /* most phrases of a scene */
    WORLD_SECOND = 100, /* label of a class' second phrase ("red ball" beside "blue ball"): class + 100 */
    WORLD_TILE = 64     /* side of the noise tiles */
};

/* Classes; the number is the label of its pixels (world_class_of(label) where a class has two phrases). */
typedef enum {
    SKY = 1,
    SEA,
    BOAT,
    SUN,
    MOUNTAIN,
    SAND,
    HOUSE,
    GRASS,
    TREE,
    ROAD,
    CAR,
    SNOW,
    FOREST,
    CLOUD,
    ROCK,
    FLOWER,
    BALL,
    BIRD,
    MOON,
    NIGHT_SKY,
    FIELD,
    LAKE,
    BALLOON,
    MUSHROOM,
    SNOWMAN,
    LIGHTHOUSE,
    CACTUS,
    UMBRELLA,
    TENT,
    FISH,
    STAR,
    WINDMILL,
    WORLD_CLASSES = WINDMILL /* the largest */
} world_class;

/* Colours and patterns are bound to a thing ("red striped ball"), styles to the picture or to one region. 0: none. */
typedef enum { RED = 1, ORANGE, YELLOW, GREEN, BLUE, PURPLE, PINK, WHITE, BLACK, WORLD_COLOURS = BLACK } world_colour;
typedef enum { STRIPED = 1, SPOTTED, WORLD_PATTERNS = SPOTTED } world_pattern;
typedef enum {
    SEPIA = 1,
    PENCIL,
    MOSAIC,
    WATERCOLOR,
    NEON,
    PIXEL_ART,
    STAINED_GLASS,
    VAN_GOGH,
    COMIC,
    WORLD_STYLES = COMIC
} world_style;

/* What may be drawn. Take one of world_set's, and change a copy if need be. */
typedef struct world_rules {
    uint64_t classes; /* bit c: class c may appear */
    uint64_t wanted;  /* at least one of these appears; 0: whatever comes */
    uint64_t often;   /* where one of these could stand among other things, it is picked OFTEN times as often */
    int attributes;   /* percent of the things that could have a colour or pattern that get one */
    int dyed;         /* percent of the stuff that could have a colour; 0: a third of attributes */
    int misplaced;    /* percent of things that stand where they never would: a house in the sky, the sun on grass */
    int outlined;     /* percent of things that fill the outline of another: a boat as round as the sun */
    int styles;       /* percent of scenes with a style */
    bool style_in_region; /* the style covers one stuff region; else the whole picture */
    bool need_attribute;  /* at least one phrase has a colour or pattern */
    bool held_out;        /* of the compositions kept from training; else of the others */
    bool plain;           /* the caption is the phrases alone, joined by spaces, as layouts are prompted */
    int exchange[2];      /* labels of things that get each other's maps, after all else is settled; 0: none */
} world_rules;

typedef struct world_phrase {
    char text[40];                         /* "red striped ball", "sky", "pencil drawing" */
    int id;                                /* its label in the map; -1: the whole picture */
    uint8_t class, colour, pattern, style; /* what the text says; class 0: a style */
} world_phrase;

typedef struct tint {
    float r, g, b;
} tint;

/* A scene, and the room to draw it in (about 1 MB: allocate it; one for each thread). */
typedef struct world_scene {
    uint8_t rgb[WORLD_PIXELS * 3]; /* [y][x][3] */
    uint8_t label[WORLD_PIXELS];   /* [y][x], 1..; every label has a phrase */
    int phrases;
    world_phrase phrase[WORLD_PHRASES]; /* in the order of the caption where it is plain; at most 75 tokens together */
    char caption[512];
    /* room */
    bool night;
    tint pixel[WORLD_PIXELS], other[WORLD_PIXELS], before[WORLD_PIXELS];
    float plane[2][WORLD_PIXELS];
    uint8_t below[WORLD_PIXELS], outline[WORLD_PIXELS];
    float soft[WORLD_TILE * WORLD_TILE], fine[WORLD_TILE * WORLD_TILE]; /* noise, 0..1, that repeats seamlessly */
} world_scene;

static inline const char *world_class_name(int class);
static inline const char *world_colour_name(int colour);
static inline const char *world_pattern_name(int pattern);
static inline const char *world_style_name(int style);
static inline int world_class_of(int label)
{
    return label > WORLD_SECOND ? label - WORLD_SECOND : label;
}
static inline bool world_is_stuff(int class);
/* The reference colour of a name. */
static inline tint world_colour_tint(int colour);
/* text2image, phrases, anything, shapes, rare, hard, layout, layout-shapes, test, ood-object, ood-attribute, ood-style,
   region-style; NULL: no such set. */
static inline const world_rules *world_set(const char *name);
/* False: the rules allow no scene (or hardly any). */
static inline bool world_draw(uint64_t seed, const world_rules *rules, world_scene *out);

/* ---- Dice and numbers -------------------------------------------------------------------------------------------- */

/* splitmix64 (Steele, Lea, Flood 2014). */
typedef struct dice {
    uint64_t state;
} dice;

static uint64_t scramble(uint64_t z)
{
    z = (z ^ z >> 30) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ z >> 27) * UINT64_C(0x94D049BB133111EB);
    return z ^ z >> 31;
}

static uint64_t dice_next(dice *d)
{
    return scramble(d->state += UINT64_C(0x9E3779B97F4A7C15));
}
static int roll(dice *d, int n)
{
    return (int)((dice_next(d) >> 32) * (uint64_t)n >> 32);
} /* 0..n-1 */
static bool chance(dice *d, int percent)
{
    return roll(d, 100) < percent;
}
static float spread(dice *d, float low, float high)
{
    return low + (high - low) * ((float)(dice_next(d) >> 40) * 0x1p-24f);
}

static float clamp01(float x)
{
    return x < 0 ? 0 : x > 1 ? 1 : x;
}
static float smooth(float x)
{
    x = clamp01(x);
    return x * x * (3 - 2 * x);
}
static float lerp(float a, float b, float t)
{
    return a + (b - a) * t;
}
static float step_at(float edge, float width, float x)
{
    return clamp01((x - edge) / width + 0.5f);
}

/* sin(2 pi t): 16 t (1/2 - |t|) is a parabola through its zeros, and one more step brings it within 0.001. */
static float sine(float t)
{
    t -= floorf(t + 0.5f);
    float p = 16 * t * (0.5f - (t < 0 ? -t : t));
    return p * (0.775f + 0.225f * (p < 0 ? -p : p));
}

static tint mixed(tint a, tint b, float t)
{
    return (tint){lerp(a.r, b.r, t), lerp(a.g, b.g, t), lerp(a.b, b.b, t)};
}
static tint scaled(tint a, float k)
{
    return (tint){a.r * k, a.g * k, a.b * k};
}
static tint lighter(tint a, float t)
{
    return mixed(a, (tint){1, 1, 1}, t);
}
static float luma(tint a)
{
    return 0.299f * a.r + 0.587f * a.g + 0.114f * a.b;
}
/* A neighbouring colour: no two houses are painted from the same pot. */
static tint jittered(dice *d, tint a, float by)
{
    float r = spread(d, -by, by);
    float g = spread(d, -by, by);
    float b = spread(d, -by, by);
    return (tint){clamp01(a.r + r), clamp01(a.g + g), clamp01(a.b + b)};
}

/* Sum of octaves of value noise, `cells` lattice cells across the tile in the first; 0..1. */
static void noise_tile(dice *d, int cells, int octaves, float *tile)
{
    float lattice[WORLD_TILE * WORLD_TILE], weight = 1, total = 0;
    memset(tile, 0, WORLD_TILE * WORLD_TILE * sizeof *tile);
    for (int o = 0; o < octaves; o++, cells *= 2, weight *= 0.5f) {
        for (int i = 0; i < cells * cells; i++) lattice[i] = (float)(dice_next(d) >> 40) * 0x1p-24f;
        int side = WORLD_TILE / cells;
        for (int y = 0; y < WORLD_TILE; y++) {
            const float *above = lattice + y / side * cells, *below = lattice + (y / side + 1) % cells * cells;
            float v = smooth((float)(y % side) / (float)side);
            for (int x = 0; x < WORLD_TILE; x++) {
                int i = x / side, j = (i + 1) % cells;
                float u = smooth((float)(x % side) / (float)side);
                tile[y * WORLD_TILE + x] += weight * lerp(lerp(above[i], above[j], u), lerp(below[i], below[j], u), v);
            }
        }
        total += weight;
    }
    for (int i = 0; i < WORLD_TILE * WORLD_TILE; i++) tile[i] /= total;
}

static float texture(const float *tile, float u, float v)
{
    float fu = floorf(u), fv = floorf(v);
    int i = (int)fu & (WORLD_TILE - 1), j = (int)fv & (WORLD_TILE - 1);
    int k = (i + 1) & (WORLD_TILE - 1), l = (j + 1) & (WORLD_TILE - 1);
    const float *a = tile + j * WORLD_TILE, *b = tile + l * WORLD_TILE;
    return lerp(lerp(a[i], a[k], u - fu), lerp(b[i], b[k], u - fu), v - fv);
}

/* ---- Names ------------------------------------------------------------------------------------------------------- */

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
#define COLOUR(c) (1u << (c))
#define ANY_COLOUR 0x3FEu

/* stuff: fills its region; things have a place. colours, patterns: which may be bound to it. low, high: of the larger side, in
   pixels; w and h: the box as shares of it. */
static const struct class_row {
    const char *name;
    bool stuff, layout; /* layout: in the layout training set */
    unsigned colours, patterns;
    int zones, weight; /* weight: how often it is picked where several things could stand */
    float low, high, w, h;
} CLASS[WORLD_CLASSES + 1] = {
    [SKY] = {"sky", 1, 1, COLOUR(PINK) | COLOUR(ORANGE) | COLOUR(PURPLE) | COLOUR(YELLOW) | COLOUR(GREEN) | COLOUR(RED),
             0, 0, 0, 0, 0, 0, 0},
    [SEA] = {"sea", 1, 1, COLOUR(GREEN) | COLOUR(PURPLE) | COLOUR(PINK) | COLOUR(RED) | COLOUR(ORANGE), 0, 0, 0, 0, 0,
             0, 0},
    [BOAT] = {"boat", 0, 1, ANY_COLOUR, 0, ON_WATER, 3, 40, 58, 0.95f, 1.0f},
    [SUN] = {"sun", 0, 1, COLOUR(RED) | COLOUR(BLUE) | COLOUR(GREEN), 0, IN_SKY, 4, 22, 32, 1, 1},
    [MOUNTAIN] = {"mountain", 1, 1, COLOUR(RED) | COLOUR(PURPLE) | COLOUR(GREEN) | COLOUR(ORANGE) | COLOUR(PINK), 0, 0,
                  0, 0, 0, 0, 0},
    [SAND] = {"sand", 1, 1, COLOUR(PINK) | COLOUR(WHITE) | COLOUR(BLACK) | COLOUR(RED), 0, 0, 0, 0, 0, 0, 0},
    [HOUSE] = {"house", 0, 1, ANY_COLOUR, 6, ON_GRASS | ON_SNOW | ON_SAND, 5, 40, 60, 1, 0.86f},
    [GRASS] = {"grass", 1, 1, COLOUR(YELLOW) | COLOUR(PURPLE) | COLOUR(BLUE) | COLOUR(PINK) | COLOUR(RED), 0, 0, 0, 0,
               0, 0, 0},
    [TREE] = {"tree", 0, 1, ANY_COLOUR & ~COLOUR(GREEN) & ~COLOUR(BLACK), 0, ON_GRASS | ON_SNOW | ON_SAND, 4, 48, 68,
              0.72f, 1},
    [ROAD] = {"road", 1, 1, 0, 0, 0, 0, 0, 0, 0, 0},
    [CAR] = {"car", 0, 1, ANY_COLOUR, 6, ON_ROAD, 3, 42, 56, 1, 0.5f},
    [SNOW] = {"snow", 1, 1, 0, 0, 0, 0, 0, 0, 0, 0},
    [FOREST] = {"forest", 1, 1, COLOUR(RED) | COLOUR(ORANGE) | COLOUR(YELLOW) | COLOUR(PURPLE) | COLOUR(BLUE), 0, 0, 0,
                0, 0, 0, 0},
    [CLOUD] = {"cloud", 0, 1, COLOUR(PINK) | COLOUR(PURPLE) | COLOUR(ORANGE) | COLOUR(BLACK), 0, IN_SKY, 3, 36, 52, 1,
               0.5f},
    [ROCK] = {"rock", 0, 1, 0, 0, ON_GRASS | ON_SNOW | ON_SAND, 2, 24, 40, 1, 0.72f},
    [FLOWER] = {"flower", 0, 1, ANY_COLOUR & ~COLOUR(GREEN), 0, ON_GRASS, 4, 34, 48, 0.66f, 1},
    [BALL] = {"ball", 0, 1, ANY_COLOUR, 6, ON_GRASS | ON_SAND | ON_SNOW, 2, 22, 34, 1, 1},
    [BIRD] = {"bird", 0, 1, ANY_COLOUR & ~COLOUR(BLACK), 0, IN_SKY, 3, 30, 40, 1, 0.7f},
    [MOON] = {"moon", 0, 1, COLOUR(RED) | COLOUR(BLUE) | COLOUR(GREEN), 0, IN_SKY, 4, 22, 32, 1, 1},
    [NIGHT_SKY] = {"night sky", 1, 1, 0, 0, 0, 0, 0, 0, 0, 0},
    [FIELD] = {"field", 1, 0, COLOUR(GREEN) | COLOUR(PURPLE) | COLOUR(RED), 0, 0, 0, 0, 0, 0, 0},
    [LAKE] = {"lake", 1, 0, COLOUR(GREEN) | COLOUR(PURPLE) | COLOUR(PINK), 0, 0, 0, 0, 0, 0, 0},
    [BALLOON] = {"balloon", 0, 0, ANY_COLOUR, 6, IN_SKY, 2, 42, 56, 0.74f, 1},
    [MUSHROOM] = {"mushroom", 0, 0, ANY_COLOUR, 6, ON_GRASS, 3, 28, 44, 1, 0.95f},
    [SNOWMAN] = {"snowman", 0, 0, 0, 0, ON_SNOW, 4, 42, 58, 0.72f, 1},
    [LIGHTHOUSE] = {"lighthouse", 0, 0, ANY_COLOUR & ~COLOUR(WHITE), 0, BY_THE_SEA, 12, 54, 74, 0.36f, 1},
    [CACTUS] = {"cactus", 0, 0, COLOUR(PURPLE) | COLOUR(PINK) | COLOUR(BLUE) | COLOUR(RED), 0, IN_DESERT, 4, 38, 56,
                0.66f, 1},
    [UMBRELLA] = {"umbrella", 0, 0, ANY_COLOUR, 6, ON_SAND, 5, 40, 54, 1, 0.95f},
    [TENT] = {"tent", 0, 0, ANY_COLOUR, 6, ON_GRASS | ON_SAND | ON_SNOW, 2, 38, 54, 1, 0.72f},
    [FISH] = {"fish", 0, 0, ANY_COLOUR, 6, ON_WATER, 2, 30, 40, 1, 0.75f},
    [STAR] = {"star", 0, 0, ANY_COLOUR & ~COLOUR(BLACK) & ~COLOUR(YELLOW), 0, IN_SKY, 3, 20, 28, 1, 1},
    [WINDMILL] = {"windmill", 0, 0, ANY_COLOUR, 0, ON_GRASS, 3, 56, 74, 0.8f, 1},
};

static const struct {
    const char *name;
    tint value;
} COLOURS[WORLD_COLOURS + 1] = {
    [RED] = {"red", {0.83f, 0.12f, 0.13f}},       [ORANGE] = {"orange", {0.96f, 0.52f, 0.08f}},
    [YELLOW] = {"yellow", {0.97f, 0.85f, 0.15f}}, [GREEN] = {"green", {0.18f, 0.62f, 0.24f}},
    [BLUE] = {"blue", {0.14f, 0.35f, 0.84f}},     [PURPLE] = {"purple", {0.52f, 0.20f, 0.70f}},
    [PINK] = {"pink", {0.97f, 0.52f, 0.72f}},     [WHITE] = {"white", {0.95f, 0.95f, 0.94f}},
    [BLACK] = {"black", {0.13f, 0.13f, 0.15f}},
};
static const char *const PATTERN_NAME[WORLD_PATTERNS + 1] = {"", "striped", "spotted"};
static const char *const STYLE_NAME[WORLD_STYLES + 1] = {
    "",          "sepia",         "pencil drawing",    "mosaic", "watercolor", "neon",
    "pixel art", "stained glass", "drawn by Van Gogh", "comic"};

static inline const char *world_class_name(int class)
{
    return CLASS[class].name;
}
static inline const char *world_colour_name(int colour)
{
    return COLOURS[colour].name;
}
static inline const char *world_pattern_name(int pattern)
{
    return PATTERN_NAME[pattern];
}
static inline const char *world_style_name(int style)
{
    return STYLE_NAME[style];
}
static inline bool world_is_stuff(int class)
{
    return CLASS[class].stuff;
}
static inline tint world_colour_tint(int colour)
{
    return COLOURS[colour].value;
}

/* ---- Shapes and brushes ------------------------------------------------------------------------------------------ */

/* A shape is its signed distance: negative inside, in pixels; coverage at the edge follows from it. */
typedef enum { ELLIPSE, BOX, STROKE, POLYGON } shape_kind;
enum { CORNERS = 12 };
typedef struct shape {
    shape_kind kind;
    float x, y, rx, ry; /* centre and half sides; STROKE: its ends (x, y), (rx, ry) */
    float cos, sin;     /* turned by */
    float round, taper; /* BOX: radius of corners; STROKE: radius at the first and second end */
    int corners;
    float corner[CORNERS][2];
    float feather;               /* width of the soft edge; 1: just antialiased */
    const struct shape *within;  /* clipped to; may be NULL */
    const struct shape *without; /* cut out; may be NULL */
} shape;

static shape ellipse(float x, float y, float rx, float ry)
{
    return (shape){.kind = ELLIPSE, .x = x, .y = y, .rx = rx, .ry = ry, .cos = 1, .feather = 1};
}

static shape disc(float x, float y, float r)
{
    return ellipse(x, y, r, r);
}

static shape box(float x0, float y0, float x1, float y1, float round)
{
    return (shape){.kind = BOX,
                   .x = (x0 + x1) / 2,
                   .y = (y0 + y1) / 2,
                   .rx = (x1 - x0) / 2,
                   .ry = (y1 - y0) / 2,
                   .cos = 1,
                   .round = round,
                   .feather = 1};
}

static shape stroke(float x0, float y0, float x1, float y1, float r0, float r1)
{
    return (shape){.kind = STROKE, .x = x0, .y = y0, .rx = x1, .ry = y1, .round = r0, .taper = r1, .feather = 1};
}

/* Corners given around (0, 0); placed at (x, y), scaled by sx and sy. */
static shape polygon(int corners, const float (*corner)[2], float x, float y, float sx, float sy)
{
    shape s = {.kind = POLYGON, .corners = corners, .feather = 1};
    for (int i = 0; i < corners; i++) {
        s.corner[i][0] = x + sx * corner[i][0];
        s.corner[i][1] = y + sy * corner[i][1];
    }
    return s;
}

/* Turned by a fraction of a full turn. */
static shape turned(shape s, float turn)
{
    float c = sine(turn + 0.25f), n = sine(turn), length = sqrtf(c * c + n * n);
    s.cos = c / length;
    s.sin = n / length;
    return s;
}

static shape feathered(shape s, float feather)
{
    s.feather = feather;
    return s;
}

static float polygon_distance(const shape *s, float x, float y)
{
    float best = 1e9f;
    bool inside = false;
    for (int i = 0, j = s->corners - 1; i < s->corners; j = i++) {
        float ax = s->corner[i][0], ay = s->corner[i][1], ex = s->corner[j][0] - ax, ey = s->corner[j][1] - ay;
        float px = x - ax, py = y - ay, t = clamp01((px * ex + py * ey) / (ex * ex + ey * ey));
        float dx = px - ex * t, dy = py - ey * t, d = dx * dx + dy * dy;
        if (d < best) best = d;
        if ((ay > y) != (s->corner[j][1] > y) && px < ex * py / ey) inside = !inside;
    }
    return inside ? -sqrtf(best) : sqrtf(best);
}

static float box_distance(const shape *s, float u, float v)
{
    float qx = (u < 0 ? -u : u) - s->rx + s->round, qy = (v < 0 ? -v : v) - s->ry + s->round;
    float ox = qx > 0 ? qx : 0, oy = qy > 0 ? qy : 0, in = qx > qy ? qx : qy;
    return (ox > 0 && oy > 0 ? sqrtf(ox * ox + oy * oy) : ox + oy) + (in < 0 ? in : 0) - s->round;
}

static float own_distance(const shape *s, float x, float y)
{
    if (s->kind == POLYGON) return polygon_distance(s, x, y);
    float px = x - s->x, py = y - s->y;
    if (s->kind == STROKE) {
        float ex = s->rx - s->x, ey = s->ry - s->y, t = clamp01((px * ex + py * ey) / (ex * ex + ey * ey + 1e-6f));
        float dx = px - ex * t, dy = py - ey * t;
        return sqrtf(dx * dx + dy * dy) - lerp(s->round, s->taper, t);
    }
    float u = px * s->cos + py * s->sin, v = py * s->cos - px * s->sin;
    if (s->kind == BOX) return box_distance(s, u, v);
    if (s->rx == s->ry) return sqrtf(u * u + v * v) - s->rx;
    /* An ellipse's distance to first order: k (k - 1) / |gradient|, k the radius in its own units. */
    u /= s->rx, v /= s->ry;
    float k = sqrtf(u * u + v * v), gx = u / s->rx, gy = v / s->ry;
    return k * (k - 1) / (sqrtf(gx * gx + gy * gy) + 1e-6f);
}

static float distance(const shape *s, float x, float y)
{
    float d = own_distance(s, x, y);
    if (s->within) {
        float e = own_distance(s->within, x, y);
        if (e > d) d = e;
    }
    if (s->without) {
        float e = -own_distance(s->without, x, y);
        if (e > d) d = e;
    }
    return d;
}

static int within(int i)
{
    return i < 0 ? 0 : i >= WORLD_SIDE ? WORLD_SIDE - 1 : i;
}

typedef struct bounds {
    int x0, y0, x1, y1;
} bounds;

static bounds clip_bounds(float x0, float y0, float x1, float y1)
{
    float most = WORLD_SIDE;
    bounds b = {x0 > 0 ? (int)(x0 < most ? x0 : most) : 0, y0 > 0 ? (int)(y0 < most ? y0 : most) : 0,
                x1 < most ? (int)(x1 > 0 ? x1 + 1 : 0) : WORLD_SIDE,
                y1 < most ? (int)(y1 > 0 ? y1 + 1 : 0) : WORLD_SIDE};
    return b;
}

static bounds shape_bounds(const shape *s)
{
    float x0 = s->x, y0 = s->y, x1 = s->x, y1 = s->y, margin = s->feather;
    if (s->kind == POLYGON) {
        x0 = y0 = 1e9f, x1 = y1 = -1e9f;
        for (int i = 0; i < s->corners; i++) {
            x0 = s->corner[i][0] < x0 ? s->corner[i][0] : x0, x1 = s->corner[i][0] > x1 ? s->corner[i][0] : x1;
            y0 = s->corner[i][1] < y0 ? s->corner[i][1] : y0, y1 = s->corner[i][1] > y1 ? s->corner[i][1] : y1;
        }
    } else if (s->kind == STROKE) {
        margin += s->round > s->taper ? s->round : s->taper;
        x0 = s->x < s->rx ? s->x : s->rx, x1 = s->x > s->rx ? s->x : s->rx;
        y0 = s->y < s->ry ? s->y : s->ry, y1 = s->y > s->ry ? s->y : s->ry;
    } else {
        float c = s->cos < 0 ? -s->cos : s->cos, n = s->sin < 0 ? -s->sin : s->sin;
        float hx = s->rx * c + s->ry * n, hy = s->rx * n + s->ry * c;
        x0 -= hx, x1 += hx, y0 -= hy, y1 += hy;
    }
    return clip_bounds(x0 - margin, y0 - margin, x1 + margin, y1 + margin);
}

/* What a shape is filled with: a gradient from one colour to another, linear along (gx, gy) from (x0, y0) or radial around
   it, a pattern, a darker rim, grain. */
enum { GORES = WORLD_PATTERNS + 1 }; /* segments of a sphere: a pattern without a word */
typedef struct brush {
    int label; /* 0: what lies below keeps its label (shadows, glows) */
    tint from, to;
    bool radial, glow;    /* glow: lit from within, also at night */
    float x0, y0, gx, gy; /* radial: gx = 1 / radius */
    float alpha;
    float rim, rim_width;
    float grain, grain_x, grain_y;
    int pattern, gores;
    float period, cx, cy, rx, ry; /* the pattern's scale and centre; half sides of the sphere for gores */
    tint paint[3];                /* the pattern's other colour; the gores' colours */
} brush;

static brush across(int label, tint from, tint to, float x0, float y0, float x1, float y1)
{
    float dx = x1 - x0, dy = y1 - y0, k = 1 / (dx * dx + dy * dy + 1e-6f);
    return (brush){.label = label, .from = from, .to = to, .x0 = x0, .y0 = y0, .gx = dx * k, .gy = dy * k, .alpha = 1};
}

static brush flat(int label, tint c)
{
    return across(label, c, c, 0, 0, 1, 0);
}
static brush down(int label, tint from, tint to, float y0, float y1)
{
    return across(label, from, to, 0, y0, 0, y1);
}
static brush around(int label, tint from, tint to, float x, float y, float r)
{
    return (brush){.label = label, .from = from, .to = to, .radial = true, .x0 = x, .y0 = y, .gx = 1 / r, .alpha = 1};
}

static brush grained(brush b, float grain, float x, float y)
{
    b.grain = grain, b.grain_x = x, b.grain_y = y;
    return b;
}

static brush rimmed(brush b, float rim, float width)
{
    b.rim = rim, b.rim_width = width;
    return b;
}

/* How much of the pattern's other colour: stripes run diagonally, spots sit on a staggered grid. */
static float pattern_share(const brush *b, float x, float y)
{
    float u = (x - b->cx) / b->period, v = (y - b->cy) / b->period, soft = 1 / b->period;
    if (b->pattern == STRIPED) {
        float s = u * 0.9f + v * 0.45f;
        s -= floorf(s);
        float d = (s < 0.5f ? s : 1 - s) - 0.25f;
        return step_at(0, soft, d);
    }
    float row = floorf(v / 0.8f + 0.5f), shift = row - 2 * floorf(row / 2);
    u += shift * 0.5f;
    float dx = u - floorf(u + 0.5f), dy = v - row * 0.8f;
    return step_at(0, soft, 0.27f - sqrtf(dx * dx + dy * dy));
}

static tint gore_colour(const brush *b, float x, float y)
{
    float v = (y - b->cy) / b->ry, w = 1 - v * v, u = (x - b->cx) / (b->rx * sqrtf(w > 0.06f ? w : 0.06f));
    float s = (u * (1.25f - 0.25f * u * u) + 1) * 0.5f * (float)b->gores; /* the sphere bends away at the sides */
    float whole = floorf(s), width = (float)b->gores / (2 * b->rx),
          share = smooth((s - whole) / (width < 0.4f ? width : 0.4f));
    int i = whole < 0 ? 0 : (int)whole;
    return mixed(b->paint[(i + 2) % 3], b->paint[i % 3], i ? share : 1);
}

static tint brush_colour(const world_scene *s, const brush *b, float x, float y, float d)
{
    float dx = x - b->x0, dy = y - b->y0;
    float t = clamp01(b->radial ? sqrtf(dx * dx + dy * dy) * b->gx : dx * b->gx + dy * b->gy);
    tint c = mixed(b->from, b->to, t);
    if (b->pattern == GORES) {
        float k = luma(c) / (luma(b->from) + 1e-3f);
        c = scaled(gore_colour(b, x, y), k);
    } else if (b->pattern) c = mixed(c, scaled(b->paint[0], 1 - 0.3f * t), pattern_share(b, x, y));
    if (b->rim > 0) {
        float k = clamp01(1 + d / b->rim_width);
        c = scaled(c, 1 - b->rim * k * k);
    }
    if (b->grain > 0) c = scaled(c, 1 + b->grain * (2 * texture(s->fine, x * b->grain_x, y * b->grain_y) - 1));
    return c;
}

static const tint MOONLIGHT = {0.60f, 0.65f, 0.86f};

static void put(world_scene *s, int x, int y, tint c, float alpha, int label, bool glow)
{
    tint *p = &s->pixel[y * WORLD_SIDE + x];
    if (s->night && !glow) c = (tint){c.r * MOONLIGHT.r, c.g * MOONLIGHT.g, c.b * MOONLIGHT.b};
    *p = alpha >= 1 ? c : mixed(*p, c, alpha); /* what was there before may not matter, not even by rounding */
    if (label && alpha >= 0.5f) s->label[y * WORLD_SIDE + x] = (uint8_t)label;
}

static void paint(world_scene *s, shape form, brush b)
{
    bounds in = shape_bounds(&form);
    for (int y = in.y0; y < in.y1; y++)
        for (int x = in.x0; x < in.x1; x++) {
            float px = (float)x + 0.5f, py = (float)y + 0.5f, d = distance(&form, px, py),
                  cover = 0.5f - d / form.feather;
            if (cover <= 0) continue;
            put(s, x, y, brush_colour(s, &b, px, py, d), (cover < 1 ? cover : 1) * b.alpha, b.label, b.glow);
        }
}

static void shadow(world_scene *s, float x, float y, float rx, float ry, float alpha)
{
    brush b = flat(0, (tint){0.05f, 0.06f, 0.12f});
    b.alpha = alpha;
    paint(s, feathered(ellipse(x, y, rx, ry), ry * 1.2f), b);
}

/* A soft light around (x, y) that fades out at radius r. */
static void shine(world_scene *s, float x, float y, float r, tint c, float alpha)
{
    bounds in = clip_bounds(x - r, y - r, x + r, y + r);
    for (int j = in.y0; j < in.y1; j++)
        for (int i = in.x0; i < in.x1; i++) {
            float dx = (float)i + 0.5f - x, dy = (float)j + 0.5f - y, k = 1 - (dx * dx + dy * dy) / (r * r);
            if (k > 0) put(s, i, j, c, alpha * k * k, 0, true);
        }
}

/* ---- The plan of a scene: what is where, before anything is drawn ------------------------------------------------ */

typedef struct layer {
    uint8_t class, colour;
    int label;
    int y, bottom; /* mean height of its upper edge; rows from `bottom` on are covered by later layers */
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
    look outline; /* whose outline it fills; class 0: its own */
} thing;

/* The class that its outline is of. */
static int form_of(const thing *t)
{
    return t->outline.class ? t->outline.class : t->class;
}

typedef enum { SEASIDE, MEADOW, ROADSIDE, SNOWY, DESERT, LAKESIDE, FARMLAND, SCENERIES } scenery;
enum { MOST_LAYERS = 6, MOST_THINGS = 10 };
typedef struct plan {
    scenery kind;
    bool night, country_road; /* country_road: it runs to the horizon, instead of across */
    int horizon, layers, things;
    layer layer[MOST_LAYERS];
    thing thing[MOST_THINGS];
    int style, style_label; /* style_label 0: the whole picture */
} plan;

/* ---- Stuff ------------------------------------------------------------------------------------------------------- */

/* A natural colour in another hue: its luma against `middle` becomes a shade or a tint of the named colour. */
static tint dyed(tint c, int colour, float middle)
{
    if (!colour) return c;
    tint d = world_colour_tint(colour);
    float k = luma(c) / middle;
    return k < 1 ? scaled(d, 0.35f + 0.65f * k) : mixed(d, (tint){1, 1, 1}, clamp01((k - 1) * 0.9f));
}

static void draw_sky(world_scene *s, const layer *l)
{
    static const tint zenith[3] = {{0.22f, 0.50f, 0.88f}, {0.30f, 0.60f, 0.92f}, {0.16f, 0.42f, 0.80f}};
    static const tint rim[3] = {{0.76f, 0.90f, 0.98f}, {0.85f, 0.94f, 0.97f}, {0.66f, 0.84f, 0.96f}};
    dice d = {l->seed};
    int kind = roll(&d, 3);
    float ox = spread(&d, 0, 64), oy = 0, wisps = 0;
    oy = spread(&d, 0, 64);
    wisps = spread(&d, 0.2f, 0.7f);
    for (int y = 0; y < l->bottom; y++)
        for (int x = 0; x < WORLD_SIDE; x++) {
            float t = (float)y / (float)l->bottom;
            tint c = mixed(zenith[kind], rim[kind], t * (1.6f - 0.6f * t));
            float n = texture(s->soft, ox + (float)x * 0.22f, oy + (float)y * 0.62f);
            c = lighter(c, wisps * smooth((n - 0.5f) * 3.2f));
            put(s, x, y, dyed(c, l->colour, 0.64f), 1, l->label, true);
        }
}

static void draw_night_sky(world_scene *s, const layer *l)
{
    dice d = {l->seed};
    float ox = spread(&d, 0, 64);
    for (int y = 0; y < l->bottom; y++)
        for (int x = 0; x < WORLD_SIDE; x++) {
            float t = (float)y / (float)l->bottom;
            tint c = mixed((tint){0.03f, 0.04f, 0.15f}, (tint){0.17f, 0.21f, 0.46f}, t * t);
            float n = texture(s->soft, ox + (float)x * 0.3f, (float)(y + x / 2) * 0.4f);
            c = mixed(c, (tint){0.30f, 0.22f, 0.50f}, 0.5f * smooth((n - 0.5f) * 3));
            put(s, x, y, c, 1, l->label, true);
        }
    for (int i = 0; i < 60; i++) {
        int x = roll(&d, WORLD_SIDE);
        int y = roll(&d, l->bottom);
        float bright = spread(&d, 0.3f, 1);
        put(s, x, y, (tint){1, 1, 0.92f}, bright, 0, true);
    }
}

typedef struct peak {
    float x, y, left, right;
} peak;

/* Peaks from the back to the front; each has a lit and a dark side, parted by a ridge that wanders, and snow on top. */
static void draw_mountain(world_scene *s, const layer *l)
{
    dice d = {l->seed};
    peak p[4];
    int n = 2 + roll(&d, 3), kind = 0;
    kind = roll(&d, 3);
    tint rock = kind == 0   ? (tint){0.46f, 0.45f, 0.50f}
                : kind == 1 ? (tint){0.50f, 0.43f, 0.38f}
                            : (tint){0.40f, 0.46f, 0.54f};
    float snow = spread(&d, 0.1f, 0.42f);
    for (int i = 0; i < n; i++) {
        p[i].x = ((float)i + spread(&d, 0.15f, 0.85f)) * WORLD_SIDE / (float)n;
        p[i].y = (float)l->y - spread(&d, 26, 44);
        p[i].left = spread(&d, 0.9f, 1.5f);
        p[i].right = spread(&d, 0.9f, 1.5f);
    }
    for (int x = 0; x < WORLD_SIDE; x++)
        for (int y = 0; y < l->bottom; y++)
            for (int i = n - 1; i >= 0; i--) {
                float dx = (float)x + 0.5f - p[i].x, slope = dx < 0 ? p[i].left : p[i].right, px = (float)x,
                      py = (float)y;
                float edge = p[i].y + (dx < 0 ? -dx : dx) * slope +
                             5 * (texture(s->soft, px * 0.5f + (float)i * 17, 3) - 0.5f) +
                             2 * (texture(s->fine, px * 0.8f, (float)i * 9) - 0.5f);
                float cover = clamp01((py + 0.5f - edge) * 0.75f + 0.5f), depth = py - p[i].y;
                if (cover <= 0) continue;
                float ridge = 0.35f * depth * (texture(s->soft, (float)i * 23, py * 0.7f) - 0.35f);
                float bump = texture(s->soft, px * 0.6f + py * 0.35f, py * 0.4f + (float)i * 11) - 0.5f;
                float lit = clamp01(0.5f - (dx - ridge) * 0.35f + bump * 1.2f);
                float cap = snow * ((float)l->y - p[i].y);
                tint c = scaled(rock, lerp(0.66f, 1.22f, lit));
                c = mixed(c, mixed((tint){0.70f, 0.78f, 0.92f}, (tint){1, 1, 1}, lit),
                          step_at(0, 2.5f, cap - depth + 16 * (texture(s->fine, px * 0.45f, py * 0.12f) - 0.5f)));
                float haze = clamp01(depth / ((float)l->y - p[i].y));
                c = mixed(c, (tint){0.70f, 0.80f, 0.90f}, 0.35f * haze * haze + 0.12f);
                put(s, x, y, dyed(c, l->colour, 0.55f), cover, l->label, false);
                if (cover >= 1) break;
            }
}

static void conifer(world_scene *s, int label, float x, float y, float h, tint c, bool snowy);

static void draw_forest(world_scene *s, const layer *l)
{
    dice d = {l->seed};
    bool pines = chance(&d, 50);
    tint base = dyed((tint){0.12f, 0.36f, 0.18f}, l->colour, 0.27f);
    paint(s, box(-2, (float)l->y - 9, WORLD_SIDE + 2, (float)l->bottom, 0),
          down(l->label, scaled(base, 0.55f), scaled(base, 0.8f), (float)l->y - 9, (float)l->bottom));
    for (int row = 0; row < 2; row++)
        for (float x = -4; x < WORLD_SIDE + 6;) {
            float h = spread(&d, 17, 27) - (float)row * 6;
            float y = (float)l->y + (float)row * 3, k = spread(&d, 0.8f, 1.25f) * (0.8f + 0.3f * (float)row);
            if (pines) conifer(s, l->label, x, y + 3, h * 1.15f, scaled(base, k * 1.1f), false);
            else {
                brush b = around(l->label, scaled(base, k * 1.6f), scaled(base, k * 0.75f), x - h * 0.15f,
                                 y - h * 0.75f, h * 0.62f);
                paint(s, ellipse(x, y - h * 0.5f, h * 0.42f, h * 0.5f), grained(b, 0.3f, 0.9f, 0.9f));
            }
            x += spread(&d, 6.5f, 10.5f);
        }
}

/* Water: streaks that lie flatter and closer towards its far shore; the sun or the moon glitters below itself. */
static tint water(const world_scene *s, float x, float y, float t, float glitter, tint far, tint near)
{
    float row = 22 / (t + 0.32f), wave = texture(s->soft, x * (0.14f + 0.10f / (t + 0.4f)), row);
    float ripple = texture(s->fine, x * 0.22f, row * 1.7f + y * 0.2f);
    tint c = mixed(far, near, smooth(t * 1.15f));
    c = scaled(c, 0.86f + 0.34f * wave);
    c = lighter(c, 0.42f * smooth((wave * 0.6f + ripple * 0.5f - 0.60f) * 7));
    if (glitter >= 0) {
        float dx = (x - glitter) / (5 + 12 * t), k = 1 - dx * dx;
        if (k > 0) c = mixed(c, (tint){1, 0.95f, 0.72f}, 0.75f * k * smooth((ripple - 0.42f) * 5) * (1 - 0.6f * t));
    }
    return c;
}

static tint sand(const world_scene *s, float x, float y, float t)
{
    float warp = texture(s->soft, x * 0.22f, y * 0.35f);
    float ripple = sine(y * (0.17f - 0.06f * t) + warp * 2.4f + x * 0.012f);
    tint c = mixed((tint){0.93f, 0.83f, 0.60f}, (tint){0.84f, 0.68f, 0.42f}, t);
    c = scaled(c, 1 + 0.055f * ripple * (0.4f + t) + 0.16f * (texture(s->fine, x, y) - 0.5f) + 0.18f * (warp - 0.5f));
    return c;
}

static tint grass(const world_scene *s, float x, float y, float t)
{
    float k = 0.55f / (0.45f + t), patch = texture(s->soft, x * 0.3f * (0.5f + k), y * 0.6f * k + 20);
    float blades = texture(s->fine, x * (0.7f + 0.5f * k), y * 0.34f * (0.6f + k));
    tint c = mixed((tint){0.55f, 0.76f, 0.34f}, (tint){0.22f, 0.52f, 0.18f}, smooth(t * 0.9f + 0.1f));
    c = mixed(c, (tint){0.62f, 0.78f, 0.28f}, 0.5f * smooth((patch - 0.48f) * 4));
    return scaled(c, 1 + 0.42f * (blades - 0.5f));
}

static tint snow(const world_scene *s, float x, float y, float t)
{
    float drift = texture(s->soft, x * 0.20f, y * 0.5f), grain = texture(s->fine, x, y);
    tint c = mixed((tint){0.96f, 0.97f, 1}, (tint){0.74f, 0.83f, 0.95f},
                   smooth((drift - 0.36f) * 3.2f) * (0.35f + 0.5f * t));
    return scaled(c, 1 + 0.035f * (grain - 0.5f));
}

/* Furrows run to a vanishing point on the horizon. */
static tint field(const world_scene *s, const layer *l, float x, float y, float t)
{
    float vx = (float)(l->seed % 96) + 16, dy = y - (float)l->y + 7, u = (x - vx) / dy;
    float row = sine(u * 2.6f), ear = texture(s->fine, u * 40 + 3 * row, dy * 0.8f);
    tint c = mixed((tint){0.95f, 0.80f, 0.38f}, (tint){0.86f, 0.62f, 0.16f}, t);
    c = scaled(c, 1 + 0.20f * row * smooth((float)dy / 22) + 0.34f * (ear - 0.5f));
    return c;
}

static void draw_ground(world_scene *s, const layer *l, float glitter)
{
    dice d = {l->seed};
    float offset = spread(&d, 0, 64), tilt = spread(&d, -1, 1), waves = l->class == SEA ? 0 : l->class == FIELD ? 2 : 5;
    bool shore = l->class == SAND && l->bottom == WORLD_SIDE && l->y > 84;
    for (int x = 0; x < WORLD_SIDE; x++) {
        float px = (float)x + 0.5f, n = texture(s->soft, offset + px * 0.25f, 7);
        float top = (float)l->y + waves * (2 * n - 1) + (shore ? 7 * tilt * (px - 64) / 64 : 0);
        for (int y = top < 2 ? 0 : (int)top - 1; y < l->bottom; y++) {
            float py = (float)y + 0.5f, cover = clamp01(py - top + 0.5f),
                  t = clamp01((py - (float)l->y) / (float)(WORLD_SIDE - l->y));
            tint c;
            if (l->class == SEA)
                c = water(s, px, py, t, glitter, (tint){0.36f, 0.66f, 0.80f}, (tint){0.05f, 0.28f, 0.50f});
            else if (l->class == SAND) c = sand(s, px, py, t);
            else if (l->class == GRASS) c = grass(s, px, py, t);
            else if (l->class == SNOW) c = snow(s, px, py, t);
            else c = field(s, l, px, py, t);
            if (shore && py - top < 3) c = scaled(c, 0.80f + 0.066f * (py - top));
            c = dyed(c, l->colour,
                     l->class == SEA     ? 0.34f
                     : l->class == SAND  ? 0.78f
                     : l->class == GRASS ? 0.50f
                                         : 0.72f);
            put(s, x, y, c, cover, l->label, false);
            if (shore && py - top > -1.5f && py - top < 1) put(s, x, y, (tint){1, 1, 1}, 0.6f, 0, false);
        }
    }
}

/* A lake lies between l->y and l->bottom; its ends run out of the picture or close inside it. */
static void draw_lake(world_scene *s, const layer *l, float glitter)
{
    dice d = {l->seed};
    float cx = spread(&d, 44, 84), rx = spread(&d, 56, 84);
    rx = spread(&d, 58, 90);
    float cy = (float)(l->y + l->bottom) / 2, ry = (float)(l->bottom - l->y) / 2;
    for (int y = l->y - 2; y < l->bottom + 3 && y < WORLD_SIDE; y++)
        for (int x = 0; x < WORLD_SIDE; x++) {
            float px = (float)x + 0.5f, py = (float)y + 0.5f, u = (px - cx) / rx, v = (py - cy) / ry;
            float inside =
                (1 - u * u - v * v) * ry * 0.6f + 2.5f * (texture(s->soft, px * 0.4f, 31 + py * 0.2f) - 0.5f);
            float cover = clamp01(inside + 0.5f), t = clamp01((py - (float)l->y) / (2 * ry));
            if (cover <= 0) continue;
            tint c =
                water(s, px, py, 0.2f + 0.6f * t, glitter, (tint){0.55f, 0.80f, 0.88f}, (tint){0.16f, 0.46f, 0.66f});
            if (inside < 2.5f && v < 0) c = scaled(c, 0.72f);
            put(s, x, y, dyed(c, l->colour, 0.50f), cover, l->label, false);
        }
}

/* Across the picture with a dashed line, or winding to the horizon. */
static void draw_road(world_scene *s, const layer *l, bool country)
{
    dice d = {l->seed};
    float vx = spread(&d, 40, 88), bend = spread(&d, -46, 46), middle = (float)(l->y + l->bottom) / 2;
    for (int y = l->y; y < l->bottom; y++)
        for (int x = 0; x < WORLD_SIDE; x++) {
            float px = (float)x + 0.5f, py = (float)y + 0.5f, t = (py - (float)l->y) / (float)(l->bottom - l->y);
            float grain = texture(s->fine, px * 0.9f, py * 0.9f), edge, cover = 1, line;
            tint c = scaled((tint){0.43f, 0.43f, 0.46f}, 0.88f + 0.22f * grain);
            if (country) {
                float half = 2.5f + 34 * t * t + 6 * t,
                      centre = vx + bend * t * t + 9 * sine(t * 0.55f + vx * 0.1f) * t;
                float off = px - centre;
                off = off < 0 ? -off : off;
                cover = clamp01(half - off + 0.5f);
                edge = step_at(half * 0.86f, 1, off) * step_at(-half * 0.95f, 1, -off);
                line = step_at(-half * 0.05f - 0.4f, 1, -off) * (sine(6.5f * sqrtf(t)) > 0 ? 1 : 0);
            } else {
                float v = py - middle, from = (float)(l->bottom - l->y) / 2;
                v = v < 0 ? -v : v;
                edge = step_at(from - 2.6f, 1, v) * (1 - step_at(from - 1.2f, 1, v));
                line = (1 - step_at(0.9f, 1, v)) * step_at(0, 0.2f, sine(px / 21 + vx));
            }
            c = mixed(c, (tint){0.95f, 0.94f, 0.86f}, 0.85f * (edge > line ? edge : line));
            if (cover > 0) put(s, x, y, c, cover, l->label, false);
        }
}

/* ---- Things ------------------------------------------------------------------------------------------------------ */

/* What each drawing starts from: the thing's own dice, its main colour, and a brush that carries its pattern. */
typedef struct sitter {
    world_scene *s;
    const thing *t;
    dice d;
    float x, y, k; /* foot and size */
    int label;
    int ground; /* the land it stands on: firs in snow, palms on sand */
    tint main;
} sitter;

/* The colour a thing has when its phrase names none; never quite one of the named ones. */
static tint natural_colour(int class, dice *d)
{
    static const struct {
        uint8_t class;
        tint tint[3];
    } natural[] = {
        {BOAT, {{0.52f, 0.32f, 0.18f}, {0.60f, 0.40f, 0.22f}, {0.45f, 0.28f, 0.18f}}},
        {SUN, {{1.0f, 0.88f, 0.35f}, {1.0f, 0.80f, 0.28f}, {1.0f, 0.92f, 0.48f}}},
        {HOUSE, {{0.91f, 0.83f, 0.68f}, {0.86f, 0.78f, 0.66f}, {0.80f, 0.66f, 0.52f}}},
        {TREE, {{0.26f, 0.56f, 0.22f}, {0.34f, 0.60f, 0.22f}, {0.20f, 0.48f, 0.24f}}},
        {CAR, {{0.62f, 0.68f, 0.74f}, {0.50f, 0.60f, 0.62f}, {0.68f, 0.66f, 0.62f}}},
        {CLOUD, {{1, 1, 1}, {0.98f, 0.98f, 1}, {1, 0.99f, 0.97f}}},
        {ROCK, {{0.56f, 0.54f, 0.53f}, {0.60f, 0.55f, 0.49f}, {0.48f, 0.50f, 0.54f}}},
        {FLOWER, {{0.96f, 0.55f, 0.60f}, {0.98f, 0.72f, 0.45f}, {0.90f, 0.62f, 0.88f}}},
        {BALL, {{0.90f, 0.30f, 0.25f}, {0.20f, 0.50f, 0.85f}, {0.98f, 0.80f, 0.20f}}},
        {BIRD, {{0.34f, 0.40f, 0.50f}, {0.42f, 0.36f, 0.32f}, {0.28f, 0.36f, 0.46f}}},
        {MOON, {{0.97f, 0.95f, 0.82f}, {0.93f, 0.94f, 0.92f}, {0.98f, 0.93f, 0.74f}}},
        {BALLOON, {{0.88f, 0.30f, 0.25f}, {0.25f, 0.55f, 0.80f}, {0.95f, 0.70f, 0.20f}}},
        {MUSHROOM, {{0.66f, 0.42f, 0.26f}, {0.72f, 0.50f, 0.34f}, {0.58f, 0.36f, 0.22f}}},
        {SNOWMAN, {{0.98f, 0.98f, 1}, {0.98f, 0.98f, 1}, {0.98f, 0.98f, 1}}},
        {LIGHTHOUSE, {{0.86f, 0.24f, 0.20f}, {0.84f, 0.22f, 0.22f}, {0.80f, 0.26f, 0.20f}}},
        {CACTUS, {{0.28f, 0.58f, 0.34f}, {0.34f, 0.60f, 0.32f}, {0.24f, 0.52f, 0.36f}}},
        {UMBRELLA, {{0.22f, 0.68f, 0.68f}, {0.92f, 0.46f, 0.38f}, {0.30f, 0.58f, 0.78f}}},
        {TENT, {{0.72f, 0.66f, 0.46f}, {0.62f, 0.62f, 0.44f}, {0.78f, 0.66f, 0.48f}}},
        {FISH, {{0.62f, 0.72f, 0.80f}, {0.58f, 0.70f, 0.72f}, {0.70f, 0.74f, 0.78f}}},
        {STAR, {{1.0f, 0.86f, 0.30f}, {1.0f, 0.90f, 0.42f}, {1.0f, 0.82f, 0.25f}}},
        {WINDMILL, {{0.90f, 0.86f, 0.78f}, {0.80f, 0.72f, 0.62f}, {0.92f, 0.90f, 0.86f}}},
    };
    int i = roll(d, 3);
    for (size_t k = 0; k < sizeof natural / sizeof *natural; k++)
        if (natural[k].class == class)
            return jittered(d, natural[k].tint[i], class == SUN || class == CLOUD ? 0.01f : 0.04f);
    return (tint){0.5f, 0.5f, 0.5f};
}

static tint main_colour(const thing *t, dice *d)
{
    if (t->colour) return jittered(d, COLOURS[t->colour].value, 0.03f);
    tint c = natural_colour(t->class, d);
    if (t->pattern) { /* a pattern without a colour: any colour will do */
        int i = 1 + roll(d, WHITE - 1);
        c = jittered(d, COLOURS[i].value, 0.03f);
    }
    return c;
}

/* The thing's own surface, lit from the upper left. */
static brush surface(const sitter *m, float x0, float y0, float x1, float y1)
{
    brush b = across(m->label, lighter(m->main, 0.14f), scaled(m->main, 0.74f), x0, y0, x1, y1);
    bool pale = luma(m->main) > 0.72f;
    b.pattern = m->t->pattern;
    b.paint[0] = pale ? (tint){0.24f, 0.27f, 0.38f} : (tint){0.97f, 0.97f, 0.95f};
    b.period = b.pattern == STRIPED ? 10 : 11;
    b.cx = m->x, b.cy = m->y;
    return b;
}

static brush sphere(const sitter *m, float x, float y, float r)
{
    brush b = surface(m, 0, 0, 1, 0);
    b.from = lighter(m->main, 0.34f), b.to = scaled(m->main, 0.62f);
    b.radial = true, b.x0 = x - r * 0.35f, b.y0 = y - r * 0.4f, b.gx = 1 / (r * 1.6f);
    b.cx = x, b.cy = y, b.rx = b.ry = r;
    return b;
}

static const tint WHITE_PAINT = {0.97f, 0.97f, 0.95f}, DARK = {0.16f, 0.15f, 0.17f}, WOOD = {0.45f, 0.30f, 0.19f};

static void draw_sun(sitter *m)
{
    float r = m->k / 2, y = m->y - r;
    tint c = m->main;
    shine(m->s, m->x, y, r * 3.4f, lighter(c, 0.35f), 0.55f);
    for (int i = 0; i < 12; i++) {
        float t = (float)i / 12, n = sine(t), o = sine(t + 0.25f);
        brush b = flat(0, lighter(c, 0.2f));
        b.glow = true, b.alpha = 0.7f;
        paint(
            m->s,
            stroke(m->x + o * r * 1.2f, y + n * r * 1.2f, m->x + o * r * 1.5f, y + n * r * 1.5f, r * 0.10f, r * 0.04f),
            b);
    }
    brush b = around(m->label, lighter(c, 0.55f), c, m->x - r * 0.2f, y - r * 0.2f, r * 1.15f);
    b.glow = true;
    paint(m->s, disc(m->x, y, r), b);
}

static void draw_moon(sitter *m)
{
    float r = m->k / 2, y = m->y - r;
    bool full = chance(&m->d, 40);
    brush b = around(m->label, m->main, scaled(m->main, 0.80f), m->x - r * 0.4f, y - r * 0.3f, r * 1.6f);
    shine(m->s, m->x, y, r * 3, m->main, 0.35f);
    b.glow = true;
    if (!full) {
        shape bite = disc(m->x + r * 0.55f, y - r * 0.22f, r * 0.82f), crescent = disc(m->x, y, r);
        crescent.without = &bite;
        paint(m->s, crescent, b);
        return;
    }
    paint(m->s, disc(m->x, y, r), b);
    static const float crater[5][3] = {{-0.35f, -0.25f, 0.20f},
                                       {0.25f, 0.30f, 0.26f},
                                       {0.35f, -0.35f, 0.14f},
                                       {-0.25f, 0.42f, 0.15f},
                                       {0.02f, -0.02f, 0.10f}};
    for (int i = 0; i < 5; i++) {
        brush c = flat(0, scaled(m->main, 0.84f));
        c.glow = true;
        paint(m->s, disc(m->x + crater[i][0] * r, y + crater[i][1] * r, crater[i][2] * r), c);
    }
}

static void draw_star(sitter *m)
{
    float r = m->k / 2, y = m->y - r, corner[10][2];
    for (int i = 0; i < 10; i++) {
        float t = (float)i / 10 - 0.25f, k = i % 2 ? 0.46f : 1.0f;
        corner[i][0] = k * sine(t + 0.25f), corner[i][1] = k * sine(t);
    }
    shine(m->s, m->x, y, r * 2.4f, m->main, 0.4f);
    brush b = around(m->label, lighter(m->main, 0.45f), m->main, m->x, y, r);
    b.glow = true;
    paint(m->s, polygon(10, (const float(*)[2])corner, m->x, y, r, r), b);
}

static void draw_cloud(sitter *m)
{
    static const float puff[7][3] = {{-0.36f, -0.13f, 0.13f}, {0.36f, -0.13f, 0.13f}, {-0.18f, -0.22f, 0.18f},
                                     {0.20f, -0.20f, 0.17f},  {0.02f, -0.29f, 0.21f}, {-0.10f, -0.12f, 0.12f},
                                     {0.12f, -0.12f, 0.12f}};
    tint under = mixed(scaled(m->main, 0.80f), (tint){0.62f, 0.70f, 0.84f}, 0.35f);
    for (int i = 0; i < 7; i++) {
        float k = m->k * spread(&m->d, 0.9f, 1.1f), x = m->x + puff[i][0] * m->k, y = m->y + puff[i][1] * m->k;
        brush b = down(m->label, m->main, under, m->y - 0.40f * m->k, m->y + 0.02f * m->k);
        paint(m->s, feathered(disc(x, y, puff[i][2] * k), 2.2f), b);
    }
}

static void draw_bird(sitter *m)
{
    float k = m->k, f = chance(&m->d, 50) ? 1.0f : -1.0f, x = m->x, y = m->y - k * 0.28f;
    static const float far[4][2] = {{0.02f, -0.02f}, {0.14f, -0.40f}, {0.22f, -0.38f}, {0.20f, -0.02f}};
    static const float near[5][2] = {
        {-0.12f, 0.00f}, {-0.22f, -0.42f}, {-0.10f, -0.44f}, {0.08f, -0.22f}, {0.14f, 0.02f}};
    static const float tail[4][2] = {{-0.20f, -0.04f}, {-0.50f, -0.12f}, {-0.46f, 0.06f}, {-0.22f, 0.07f}};
    static const float beak[3][2] = {{0.38f, -0.10f}, {0.52f, -0.04f}, {0.38f, 0.00f}};
    paint(m->s, polygon(4, far, x, y, f * k, k), flat(m->label, scaled(m->main, 0.62f)));
    paint(m->s, polygon(4, tail, x, y, f * k, k), flat(m->label, scaled(m->main, 0.70f)));
    paint(m->s, polygon(3, beak, x, y, f * k, k), flat(m->label, (tint){0.95f, 0.62f, 0.15f}));
    brush body = down(m->label, m->main, mixed(m->main, (tint){1, 1, 1}, 0.55f), y - 0.08f * k, y + 0.16f * k);
    paint(m->s, turned(ellipse(x + f * 0.02f * k, y + 0.02f * k, 0.28f * k, 0.125f * k), -0.02f * f), body);
    paint(m->s, disc(x + f * 0.30f * k, y - 0.06f * k, 0.11f * k),
          down(m->label, lighter(m->main, 0.1f), m->main, y - 0.15f * k, y));
    paint(m->s, disc(x + f * 0.33f * k, y - 0.08f * k, 0.026f * k + 0.4f), flat(m->label, DARK));
    paint(m->s, polygon(5, near, x, y, f * k, k),
          rimmed(down(m->label, scaled(m->main, 0.70f), scaled(m->main, 0.95f), y - 0.44f * k, y), 0.25f, 2));
}

static void draw_balloon(sitter *m)
{
    static const float skirt[4][2] = {{-0.285f, -0.46f}, {0.285f, -0.46f}, {0.08f, -0.17f}, {-0.08f, -0.17f}};
    float k = m->k, x = m->x, y = m->y, cy = y - 0.635f * k;
    brush b = sphere(m, x, cy, 0.37f * k);
    if (!m->t->pattern) {
        b.pattern = GORES, b.gores = 7, b.rx = 0.37f * k, b.ry = 0.6f * k;
        for (int i = 0; i < 3; i++) b.paint[i] = i == 1 ? lighter(m->main, 0.25f) : m->main;
        if (!m->t->colour) {
            b.paint[0] = (tint){0.90f, 0.32f, 0.26f}, b.paint[1] = (tint){0.98f, 0.82f, 0.32f},
            b.paint[2] = (tint){0.26f, 0.60f, 0.78f};
            b.from = (tint){1, 1, 1}, b.to = (tint){0.66f, 0.66f, 0.66f};
        }
    }
    tint rope = scaled(WOOD, 0.7f);
    paint(m->s, stroke(x - 0.07f * k, y - 0.18f * k, x - 0.05f * k, y - 0.1f * k, 0.5f, 0.5f), flat(m->label, rope));
    paint(m->s, stroke(x + 0.07f * k, y - 0.18f * k, x + 0.05f * k, y - 0.1f * k, 0.5f, 0.5f), flat(m->label, rope));
    paint(m->s, polygon(4, skirt, x, y, k, k), b);
    paint(m->s, ellipse(x, cy, 0.37f * k, 0.365f * k), rimmed(b, 0.12f, 3));
    paint(m->s, box(x - 0.075f * k, y - 0.12f * k, x + 0.075f * k, y, 1.2f),
          down(m->label, lighter(WOOD, 0.25f), scaled(WOOD, 0.8f), y - 0.12f * k, y));
}

static void draw_boat(sitter *m)
{
    static const float hull[7][2] = {{-0.5f, -0.20f}, {0.5f, -0.23f},   {0.44f, -0.10f}, {0.34f, 0.0f},
                                     {-0.30f, 0.0f},  {-0.42f, -0.07f}, {-0.48f, -0.15f}};
    static const float sail[5][2] = {
        {0.02f, -0.96f}, {0.20f, -0.66f}, {0.34f, -0.42f}, {0.42f, -0.27f}, {0.02f, -0.27f}};
    static const float jib[4][2] = {{-0.05f, -0.88f}, {-0.05f, -0.29f}, {-0.38f, -0.29f}, {-0.24f, -0.52f}};
    float k = m->k, f = chance(&m->d, 50) ? 1.0f : -1.0f, x = m->x, y = m->y;
    tint cloth = m->t->colour ? m->main : (tint){0.97f, 0.95f, 0.88f};
    shadow(m->s, x, y + 1, 0.46f * k, 0.06f * k, 0.35f);
    paint(m->s, stroke(x - f * 0.015f * k, y - 0.2f * k, x - f * 0.015f * k, y - 1.0f * k, 0.022f * k, 0.014f * k),
          flat(m->label, WOOD));
    brush b = across(m->label, lighter(cloth, 0.12f), scaled(cloth, 0.84f), x - f * 0.1f * k, y - 0.9f * k,
                     x + f * 0.4f * k, y - 0.25f * k);
    paint(m->s, polygon(5, sail, x, y, f * k, k), b);
    b.from = cloth, b.to = scaled(cloth, 0.80f);
    paint(m->s, polygon(4, jib, x, y, f * k, k), b);
    tint wood = m->t->colour ? scaled(m->main, 0.85f) : m->main;
    paint(m->s, polygon(7, hull, x, y, f * k, k),
          grained(down(m->label, lighter(wood, 0.12f), scaled(wood, 0.55f), y - 0.22f * k, y), 0.12f, 0.15f, 1));
    paint(m->s, stroke(x - f * 0.47f * k, y - 0.19f * k, x + f * 0.48f * k, y - 0.215f * k, 0.9f, 0.9f),
          flat(m->label, lighter(wood, 0.55f)));
    brush foam = flat(0, (tint){0.9f, 0.96f, 1});
    foam.alpha = 0.6f;
    paint(m->s, ellipse(x, y + 0.3f, 0.36f * k, 1.1f), foam);
}

static void draw_fish(sitter *m)
{
    static const float tail[5][2] = {
        {-0.26f, 0.0f}, {-0.52f, -0.20f}, {-0.44f, 0.0f}, {-0.52f, 0.20f}, {-0.28f, 0.04f}};
    static const float fin[4][2] = {{-0.14f, -0.12f}, {-0.10f, -0.30f}, {0.10f, -0.26f}, {0.14f, -0.14f}};
    float k = m->k, f = chance(&m->d, 50) ? 1.0f : -1.0f, x = m->x, y = m->y - 0.36f * k;
    brush foam = flat(0, (tint){0.93f, 0.98f, 1});
    for (int i = 0; i < 9; i++) {
        float u = spread(&m->d, -0.42f, 0.42f), v = spread(&m->d, -0.04f, 0.10f), r = spread(&m->d, 0.8f, 2.2f);
        paint(m->s, ellipse(x + u * k, m->y - v * k, r * 1.3f, r), foam);
    }
    paint(m->s, polygon(5, tail, x, y, f * k, k),
          down(m->label, scaled(m->main, 0.9f), scaled(m->main, 0.65f), y - 0.2f * k, y + 0.2f * k));
    paint(m->s, polygon(4, fin, x, y, f * k, k), flat(m->label, scaled(m->main, 0.72f)));
    brush b = surface(m, x, y - 0.18f * k, x, y + 0.22f * k);
    b.period = 9;
    if (!m->t->pattern) b.from = scaled(m->main, 0.92f), b.to = lighter(m->main, 0.45f);
    paint(m->s, ellipse(x, y, 0.34f * k, 0.19f * k), rimmed(b, 0.22f, 2.5f));
    paint(m->s, turned(ellipse(x - f * 0.02f * k, y + 0.06f * k, 0.09f * k, 0.045f * k), f * 0.08f),
          flat(m->label, scaled(m->main, 0.68f)));
    paint(m->s, disc(x + f * 0.21f * k, y - 0.05f * k, 0.055f * k), flat(m->label, WHITE_PAINT));
    paint(m->s, disc(x + f * 0.22f * k, y - 0.05f * k, 0.03f * k), flat(m->label, DARK));
}

static void window(sitter *m, float x, float y, float half, float tall)
{
    bool lamp = m->s->night;
    brush glass = across(m->label, (tint){0.78f, 0.90f, 0.97f}, (tint){0.36f, 0.52f, 0.68f}, x - half, y - tall,
                         x + half, y + tall);
    if (lamp) glass = flat(m->label, (tint){1.0f, 0.84f, 0.42f}), glass.glow = true;
    paint(m->s, box(x - half - 1, y - tall - 1, x + half + 1, y + tall + 1, 0.4f), flat(m->label, WHITE_PAINT));
    paint(m->s, box(x - half, y - tall, x + half, y + tall, 0), glass);
    paint(m->s, box(x - 0.45f, y - tall, x + 0.45f, y + tall, 0), flat(m->label, WHITE_PAINT));
    paint(m->s, box(x - half, y - 0.45f, x + half, y + 0.45f, 0), flat(m->label, WHITE_PAINT));
}

static void draw_house(sitter *m)
{
    static const float front[5][2] = {{-0.40f, 0}, {-0.40f, -0.46f}, {0, -0.80f}, {0.40f, -0.46f}, {0.40f, 0}};
    static const float side[4][2] = {{-0.50f, -0.44f}, {-0.37f, -0.80f}, {0.37f, -0.80f}, {0.50f, -0.44f}};
    float k = m->k, x = m->x, y = m->y;
    bool gable = chance(&m->d, 50), mirrored = chance(&m->d, 50);
    float f = mirrored ? -1.0f : 1.0f;
    tint brick = jittered(&m->d, chance(&m->d, 60) ? (tint){0.58f, 0.30f, 0.23f} : (tint){0.36f, 0.36f, 0.42f}, 0.04f);
    tint roof = (m->ground == SNOW) ? (tint){0.95f, 0.97f, 1} : brick;
    brush wall = surface(m, x - 0.4f * k, y - 0.3f * k, x + 0.4f * k, y);
    wall.from = lighter(m->main, 0.10f), wall.to = scaled(m->main, 0.84f);
    shadow(m->s, x + 0.05f * k, y, 0.48f * k, 0.055f * k, 0.35f);
    paint(m->s, box(x + f * 0.20f * k, y - 0.92f * k, x + f * 0.20f * k + 0.10f * k, y - 0.55f * k, 0),
          down(m->label, scaled(brick, 1.1f), scaled(brick, 0.8f), y - 0.92f * k, y - 0.55f * k));
    if (gable) {
        paint(m->s, polygon(5, front, x, y, k, k), grained(wall, 0.05f, 0.6f, 1));
        for (float g = -1; g < 2; g += 2)
            paint(m->s, stroke(x, y - 0.82f * k, x + g * 0.47f * k, y - 0.43f * k, 0.055f * k, 0.055f * k),
                  down(m->label, lighter(roof, 0.1f), scaled(roof, 0.85f), y - 0.85f * k, y - 0.4f * k));
        window(m, x, y - 0.53f * k, 0.055f * k, 0.055f * k);
    } else {
        paint(m->s, box(x - 0.42f * k, y - 0.47f * k, x + 0.42f * k, y, 0), grained(wall, 0.05f, 0.6f, 1));
        shadow(m->s, x, y - 0.42f * k, 0.42f * k, 0.03f * k, 0.3f);
        paint(m->s, polygon(4, side, x, y, k, k),
              grained(down(m->label, lighter(roof, 0.12f), scaled(roof, 0.82f), y - 0.8f * k, y - 0.44f * k),
                      (m->ground == SNOW) ? 0.03f : 0.22f, 0.5f, 1.1f));
    }
    paint(m->s, box(x - f * 0.07f * k - 0.075f * k, y - 0.29f * k, x - f * 0.07f * k + 0.075f * k, y, 0.6f),
          across(m->label, scaled(WOOD, 1.15f), scaled(WOOD, 0.75f), x - 0.1f * k, y, x + 0.1f * k, y));
    paint(m->s, disc(x - f * 0.07f * k + 0.045f * k, y - 0.14f * k, 0.7f), flat(m->label, (tint){0.95f, 0.80f, 0.35f}));
    window(m, x - f * 0.27f * k, y - 0.21f * k, 0.06f * k, 0.07f * k);
    window(m, x + f * 0.22f * k, y - 0.21f * k, 0.06f * k, 0.07f * k);
}

/* h: height; c: its green. Tiers from below, each lit from the left. */
static void conifer(world_scene *s, int label, float x, float y, float h, tint c, bool snowy)
{
    static const float tier[5][2] = {{0, -1}, {0.5f, -0.08f}, {0.18f, -0.02f}, {-0.18f, -0.02f}, {-0.5f, -0.08f}};
    static const float cap[5][2] = {{0, -1}, {0.24f, -0.50f}, {0.04f, -0.40f}, {-0.12f, -0.46f}, {-0.34f, -0.30f}};
    paint(s, box(x - 0.05f * h, y - 0.2f * h, x + 0.05f * h, y, 0), flat(label, scaled(WOOD, 0.8f)));
    for (int i = 0; i < 3; i++) {
        float foot = y - h * (0.10f + 0.25f * (float)i), w = h * (0.60f - 0.13f * (float)i), tall = h * 0.42f;
        brush b = across(label, scaled(c, 1.30f), scaled(c, 0.62f), x - w * 0.35f, foot - tall, x + w * 0.4f, foot);
        paint(s, polygon(5, tier, x, foot, w, tall), grained(b, 0.22f, 0.8f, 0.8f));
        if (snowy)
            paint(s, polygon(5, cap, x, foot, w, tall),
                  down(label, (tint){1, 1, 1}, (tint){0.80f, 0.87f, 0.96f}, foot - tall, foot));
    }
}

static void palm(sitter *m)
{
    static const float frond[8][2] = {{-0.15f, 0.20f},  {0.18f, 0.19f},  {-0.36f, 0.06f},  {0.37f, 0.08f},
                                      {-0.32f, -0.14f}, {0.33f, -0.12f}, {-0.12f, -0.24f}, {0.15f, -0.23f}};
    float k = m->k, f = chance(&m->d, 50) ? 1.0f : -1.0f, x = m->x, y = m->y, cx = x + f * 0.10f * k,
          cy = y - 0.74f * k;
    const float bend[4] = {0, -0.02f, 0.02f, 0.10f};
    shadow(m->s, x + 0.04f * k, y, 0.20f * k, 0.04f * k, 0.4f);
    for (int i = 0; i < 3; i++) {
        float x0 = x + f * bend[i] * k, x1 = x + f * bend[i + 1] * k, r = (0.045f - 0.006f * (float)i) * k;
        paint(
            m->s, stroke(x0, y - 0.25f * k * (float)i, x1, y - 0.25f * k * (float)(i + 1), r, r * 0.86f),
            grained(across(m->label, lighter(WOOD, 0.28f), scaled(WOOD, 0.9f), x0 - r, y, x0 + r, y), 0.25f, 0.3f, 1));
    }
    for (int i = 0; i < 8; i++) {
        float dx = frond[i][0], dy = frond[i][1] + spread(&m->d, -0.02f, 0.02f);
        const float leaf[5][2] = {{0, 0.02f},
                                  {dx * 0.35f, dy * 0.5f - 0.10f},
                                  {dx * 0.75f, dy * 0.8f - 0.06f},
                                  {dx, dy + 0.02f},
                                  {dx * 0.50f, dy * 0.5f + 0.025f}};
        float dim = i < 4 ? 0.78f : 1.05f;
        brush b = around(m->label, lighter(scaled(m->main, dim), 0.12f), scaled(m->main, dim * 0.72f), cx,
                         cy - 0.1f * k, 0.4f * k);
        paint(m->s, polygon(5, leaf, cx, cy, k, k), grained(b, 0.2f, 0.9f, 0.9f));
    }
    for (int i = -1; i < 2; i++)
        paint(m->s, disc(cx + (float)i * 0.045f * k, cy + 0.03f * k, 0.032f * k), flat(m->label, scaled(WOOD, 0.7f)));
}

static void draw_tree(sitter *m)
{
    static const float crown[7][3] = {{-0.17f, -0.44f, 0.18f}, {0.17f, -0.44f, 0.18f}, {0, -0.46f, 0.20f},
                                      {-0.16f, -0.66f, 0.19f}, {0.15f, -0.64f, 0.19f}, {0.0f, -0.78f, 0.19f},
                                      {-0.05f, -0.62f, 0.19f}};
    float k = m->k, x = m->x, y = m->y;
    bool pine = m->ground == SNOW || chance(&m->d, 25);
    if (m->ground == SAND) {
        palm(m);
        return;
    }
    shadow(m->s, x + 0.05f * k, y, (pine ? 0.26f : 0.22f) * k, 0.045f * k, 0.4f);
    if (pine) {
        conifer(m->s, m->label, x, y, k, m->t->colour ? m->main : scaled(m->main, 0.80f), (m->ground == SNOW));
        return;
    }
    static const float trunk[6][2] = {{-0.07f, 0},    {-0.04f, -0.18f}, {-0.05f, -0.5f},
                                      {0.05f, -0.5f}, {0.04f, -0.18f},  {0.07f, 0}};
    paint(m->s, polygon(6, trunk, x, y, k, k),
          grained(across(m->label, lighter(WOOD, 0.1f), scaled(WOOD, 0.6f), x - 0.06f * k, y, x + 0.06f * k, y), 0.25f,
                  1, 0.3f));
    for (int i = 0; i < 7; i++) {
        float u = crown[i][0] + spread(&m->d, -0.025f, 0.025f), v = crown[i][1] + spread(&m->d, -0.025f, 0.025f);
        float r = crown[i][2] * k, dim = i < 3 ? 0.80f : i < 5 ? 0.92f : 1.05f;
        brush b = around(m->label, lighter(scaled(m->main, dim), 0.16f), scaled(m->main, dim * 0.66f),
                         x + u * k - r * 0.4f, y + v * k - r * 0.5f, r * 1.5f);
        paint(m->s, disc(x + u * k, y + v * k, r), grained(b, 0.26f, 0.75f, 0.75f));
    }
}

static void draw_car(sitter *m)
{
    static const float cabin[5][2] = {
        {-0.34f, -0.26f}, {-0.24f, -0.46f}, {0.10f, -0.47f}, {0.20f, -0.40f}, {0.30f, -0.26f}};
    static const float rear[4][2] = {{-0.28f, -0.27f}, {-0.21f, -0.42f}, {-0.06f, -0.42f}, {-0.06f, -0.27f}};
    static const float front[4][2] = {{-0.02f, -0.27f}, {-0.02f, -0.42f}, {0.10f, -0.42f}, {0.22f, -0.27f}};
    float k = m->k, f = chance(&m->d, 50) ? 1.0f : -1.0f, x = m->x, y = m->y;
    brush b = surface(m, x, y - 0.46f * k, x, y - 0.05f * k);
    brush glass =
        down(m->label, (tint){0.82f, 0.93f, 0.98f}, (tint){0.42f, 0.58f, 0.70f}, y - 0.43f * k, y - 0.27f * k);
    shadow(m->s, x, y - 0.01f * k, 0.50f * k, 0.05f * k, 0.55f);
    b.period = m->t->pattern == STRIPED ? 9 : 10;
    paint(m->s, polygon(5, cabin, x, y, f * k, k), b);
    paint(m->s, box(x - 0.5f * k, y - 0.30f * k, x + 0.5f * k, y - 0.09f * k, 0.075f * k), b);
    paint(m->s, polygon(4, rear, x, y, f * k, k), glass);
    paint(m->s, polygon(4, front, x, y, f * k, k), glass);
    paint(m->s, box(x - 0.49f * k, y - 0.125f * k, x + 0.49f * k, y - 0.08f * k, 0.02f * k),
          flat(m->label, scaled(m->main, 0.45f)));
    brush seam = flat(m->label, scaled(m->main, 0.55f));
    paint(m->s, stroke(x - f * 0.04f * k, y - 0.27f * k, x - f * 0.04f * k, y - 0.13f * k, 0.4f, 0.4f), seam);
    for (float g = -1; g < 2; g += 2) {
        paint(m->s, disc(x + g * 0.28f * k, y - 0.105f * k, 0.115f * k), flat(m->label, DARK));
        paint(m->s, disc(x + g * 0.28f * k, y - 0.105f * k, 0.058f * k), flat(m->label, (tint){0.75f, 0.76f, 0.78f}));
    }
    brush lamp = flat(m->label, (tint){1, 0.93f, 0.60f});
    lamp.glow = true;
    paint(m->s, ellipse(x + f * 0.465f * k, y - 0.225f * k, 0.028f * k, 0.036f * k), lamp);
    paint(m->s, ellipse(x - f * 0.475f * k, y - 0.225f * k, 0.020f * k, 0.036f * k),
          flat(m->label, (tint){0.75f, 0.10f, 0.10f}));
}

static void draw_rock(sitter *m)
{
    float k = m->k, x = m->x, y = m->y, h = 0.70f * k;
    float outline[8][2] = {{-0.50f, 0},     {-0.46f, -0.34f}, {-0.27f, -0.72f}, {-0.02f, -0.98f},
                           {0.24f, -0.84f}, {0.42f, -0.48f},  {0.5f, -0.12f},   {0.44f, 0}};
    float facet[5][2], dark[4][2];
    for (int i = 1; i < 7; i++) {
        outline[i][0] += spread(&m->d, -0.05f, 0.05f);
        outline[i][1] += spread(&m->d, -0.10f, 0.08f);
    }
    float mx = spread(&m->d, -0.04f, 0.14f);
    const int lit[4] = {1, 2, 3, 4};
    for (int i = 0; i < 4; i++) memcpy(facet[i], outline[lit[i]], sizeof facet[i]);
    facet[4][0] = mx, facet[4][1] = -0.52f;
    memcpy(dark[0], outline[4], sizeof dark[0]);
    memcpy(dark[1], outline[6], sizeof dark[1]);
    memcpy(dark[2], outline[7], sizeof dark[2]);
    dark[3][0] = mx, dark[3][1] = -0.52f;
    shadow(m->s, x + 0.04f * k, y, 0.5f * k, 0.06f * k, 0.4f);
    brush b = down(m->label, m->main, scaled(m->main, 0.66f), y - h, y);
    paint(m->s, polygon(8, (const float(*)[2])outline, x, y, k, h), grained(b, 0.22f, 0.8f, 0.8f));
    paint(m->s, polygon(5, (const float(*)[2])facet, x, y, k, h),
          grained(flat(m->label, lighter(m->main, (m->ground == SNOW) ? 0.85f : 0.26f)), 0.14f, 0.8f, 0.8f));
    paint(m->s, polygon(4, (const float(*)[2])dark, x, y, k, h),
          grained(flat(m->label, scaled(m->main, 0.66f)), 0.2f, 0.8f, 0.8f));
}

static void draw_flower(sitter *m)
{
    float k = m->k, x = m->x, y = m->y, hx = x + k * spread(&m->d, -0.05f, 0.05f), hy = y - 0.68f * k, r = 0.20f * k;
    int petals = 6 + roll(&m->d, 3);
    tint green = {0.20f, 0.50f, 0.18f};
    paint(m->s, stroke(x, y, hx, hy, 0.035f * k, 0.028f * k), flat(m->label, green));
    paint(m->s, turned(ellipse(x + 0.15f * k, y - 0.19f * k, 0.17f * k, 0.07f * k), -0.09f),
          down(m->label, lighter(green, 0.2f), green, y - 0.3f * k, y));
    paint(m->s, turned(ellipse(x - 0.15f * k, y - 0.13f * k, 0.17f * k, 0.07f * k), 0.09f),
          down(m->label, lighter(green, 0.2f), green, y - 0.25f * k, y));
    for (int i = 0; i < petals; i++) {
        float t = ((float)i + 0.25f) / (float)petals, c = sine(t + 0.25f), n = sine(t);
        brush b = around(m->label, scaled(m->main, 0.78f), lighter(m->main, 0.16f), hx, hy, r * 1.7f);
        paint(m->s, turned(ellipse(hx + c * r, hy + n * r, 0.145f * k, 0.088f * k), t), rimmed(b, 0.16f, 1.5f));
    }
    bool yellow = m->t->colour == YELLOW || m->t->colour == ORANGE;
    tint heart = yellow ? (tint){0.45f, 0.26f, 0.12f} : (tint){0.98f, 0.82f, 0.25f};
    paint(m->s, disc(hx, hy, 0.105f * k),
          around(m->label, lighter(heart, 0.3f), scaled(heart, 0.82f), hx - 1, hy - 1, 0.13f * k));
}

static void draw_ball(sitter *m)
{
    float r = m->k / 2, x = m->x, y = m->y - r;
    brush b = sphere(m, x, y, r);
    shadow(m->s, x + 0.1f * r, m->y, r * 0.9f, r * 0.16f, 0.5f);
    if (!m->t->pattern && !m->t->colour) {
        b.pattern = GORES, b.gores = 5;
        b.paint[0] = (tint){0.90f, 0.30f, 0.25f}, b.paint[1] = (tint){0.98f, 0.96f, 0.90f},
        b.paint[2] = (tint){0.20f, 0.52f, 0.85f};
        b.from = (tint){1, 1, 1}, b.to = (tint){0.60f, 0.60f, 0.60f};
    }
    b.period = m->t->pattern == STRIPED ? r * 0.72f : r * 0.75f;
    paint(m->s, disc(x, y, r), b);
    brush gleam = flat(0, (tint){1, 1, 1});
    gleam.alpha = 0.65f;
    paint(m->s, feathered(turned(ellipse(x - r * 0.38f, y - r * 0.45f, r * 0.20f, r * 0.13f), -0.1f), 2), gleam);
}

static void draw_mushroom(sitter *m)
{
    static const float stem[6][2] = {{-0.16f, 0},    {-0.12f, -0.3f}, {-0.14f, -0.5f},
                                     {0.14f, -0.5f}, {0.12f, -0.3f},  {0.16f, 0}};
    float k = m->k, x = m->x, y = m->y, cy = y - 0.42f * k;
    shadow(m->s, x, y, 0.26f * k, 0.05f * k, 0.4f);
    tint pale = {0.95f, 0.90f, 0.80f};
    paint(m->s, polygon(6, stem, x, y, k, k),
          across(m->label, pale, scaled(pale, 0.75f), x - 0.14f * k, y, x + 0.15f * k, y));
    shape cap = ellipse(x, cy, 0.5f * k, 0.5f * k), above = box(x - k, y - k, x + k, cy + 0.02f * k, 0);
    paint(m->s, ellipse(x, cy + 0.02f * k, 0.49f * k, 0.09f * k),
          down(m->label, scaled(pale, 0.72f), scaled(pale, 0.9f), cy, cy + 0.1f * k));
    cap.within = &above;
    brush b = sphere(m, x, cy - 0.1f * k, 0.5f * k);
    b.period = m->t->pattern == STRIPED ? 9 : 0.30f * k;
    b.cy = cy - 0.22f * k;
    paint(m->s, cap, b);
}

static void draw_snowman(sitter *m)
{
    static const float nose[3][2] = {{0, -0.03f}, {0.16f, 0.01f}, {0, 0.03f}};
    float k = m->k, x = m->x, y = m->y, f = chance(&m->d, 50) ? 1.0f : -1.0f;
    tint blue = {0.66f, 0.76f, 0.92f},
         scarf = jittered(&m->d, chance(&m->d, 50) ? (tint){0.80f, 0.20f, 0.20f} : (tint){0.20f, 0.45f, 0.70f}, 0.05f);
    shadow(m->s, x, y, 0.30f * k, 0.05f * k, 0.35f);
    for (float g = -1; g < 2; g += 2) {
        paint(m->s, stroke(x + g * 0.16f * k, y - 0.46f * k, x + g * 0.36f * k, y - 0.60f * k, 0.8f, 0.6f),
              flat(m->label, WOOD));
        paint(m->s, stroke(x + g * 0.30f * k, y - 0.56f * k, x + g * 0.35f * k, y - 0.52f * k, 0.6f, 0.5f),
              flat(m->label, WOOD));
    }
    static const float ball[3][2] = {{0.22f, 0.24f}, {0.49f, 0.175f}, {0.70f, 0.135f}};
    for (int i = 0; i < 3; i++) {
        float cy = y - ball[i][0] * k, r = ball[i][1] * k;
        paint(m->s, disc(x, cy, r),
              rimmed(around(m->label, m->main, blue, x - r * 0.4f, cy - r * 0.4f, r * 1.7f), 0.10f, 2));
    }
    paint(m->s, stroke(x - 0.12f * k, y - 0.595f * k, x + 0.12f * k, y - 0.595f * k, 0.035f * k, 0.035f * k),
          flat(m->label, scarf));
    paint(m->s, stroke(x + f * 0.09f * k, y - 0.59f * k, x + f * 0.11f * k, y - 0.44f * k, 0.03f * k, 0.03f * k),
          flat(m->label, scaled(scarf, 0.85f)));
    paint(m->s, polygon(3, nose, x, y - 0.70f * k, f * k, k), flat(m->label, (tint){0.96f, 0.52f, 0.12f}));
    for (float g = -1; g < 2; g += 2)
        paint(m->s, disc(x + g * 0.05f * k, y - 0.75f * k, 0.6f + 0.008f * k), flat(m->label, DARK));
    for (int i = 0; i < 2; i++)
        paint(m->s, disc(x, y - (0.43f + 0.10f * (float)i) * k, 0.6f + 0.008f * k), flat(m->label, DARK));
    paint(m->s, box(x - 0.15f * k, y - 0.84f * k, x + 0.15f * k, y - 0.80f * k, 0.5f), flat(m->label, DARK));
    paint(m->s, box(x - 0.095f * k, y - 1.0f * k, x + 0.095f * k, y - 0.80f * k, 0.8f), flat(m->label, DARK));
}

static void draw_lighthouse(sitter *m)
{
    float k = m->k, x = m->x, y = m->y;
    static const float tower[4][2] = {{-0.135f, 0}, {-0.085f, -0.74f}, {0.085f, -0.74f}, {0.135f, 0}};
    static const float dome[3][2] = {{-0.10f, -0.885f}, {0, -1}, {0.10f, -0.885f}};
    shape outline = polygon(4, tower, x, y, k, k);
    shadow(m->s, x, y, 0.17f * k, 0.03f * k, 0.4f);
    paint(m->s, outline, across(m->label, WHITE_PAINT, scaled(WHITE_PAINT, 0.74f), x - 0.12f * k, y, x + 0.13f * k, y));
    for (int i = 0; i < 3; i++) {
        shape band = box(x - k, y - (0.68f - 0.26f * (float)i) * k, x + k, y - (0.54f - 0.26f * (float)i) * k, 0);
        band.within = &outline;
        paint(m->s, band,
              across(m->label, lighter(m->main, 0.1f), scaled(m->main, 0.7f), x - 0.12f * k, y, x + 0.13f * k, y));
    }
    if (m->s->night) { shine(m->s, x, y - 0.82f * k, 0.42f * k, (tint){1, 0.92f, 0.6f}, 0.8f); }
    brush lamp = flat(m->label, (tint){1, 0.93f, 0.62f});
    lamp.glow = true;
    paint(m->s, box(x - 0.075f * k, y - 0.89f * k, x + 0.075f * k, y - 0.755f * k, 0), lamp);
    paint(m->s, box(x - 0.6f, y - 0.89f * k, x + 0.6f, y - 0.755f * k, 0), flat(m->label, DARK));
    paint(m->s, box(x - 0.125f * k, y - 0.765f * k, x + 0.125f * k, y - 0.73f * k, 0.4f),
          flat(m->label, (tint){0.28f, 0.29f, 0.33f}));
    paint(m->s, polygon(3, dome, x, y, k, k), flat(m->label, scaled(m->main, 0.75f)));
    paint(m->s, box(x - 0.045f * k, y - 0.12f * k, x + 0.045f * k, y, 1), flat(m->label, scaled(WOOD, 0.8f)));
}

static void draw_cactus(sitter *m)
{
    float k = m->k, x = m->x, y = m->y, f = chance(&m->d, 50) ? 1.0f : -1.0f;
    tint lit = lighter(m->main, 0.2f), dim = scaled(m->main, 0.62f);
    shadow(m->s, x + 0.05f * k, y, 0.22f * k, 0.04f * k, 0.4f);
    const float arm[4][6] = {{0.30f, 0.40f, 0.30f, 0.66f, 0.075f, 0},
                             {0.0f, 0.38f, 0.30f, 0.40f, 0.075f, 0},
                             {-0.28f, 0.54f, -0.28f, 0.76f, 0.068f, 0},
                             {0.0f, 0.52f, -0.28f, 0.54f, 0.068f, 0}};
    for (int i = 0; i < 4; i++) {
        const float *a = arm[i];
        brush b = i % 2 ? down(m->label, lit, dim, y - (a[1] + 0.12f) * k, y - (a[1] - 0.08f) * k)
                        : across(m->label, lit, dim, x + f * a[0] * k - 0.07f * k, y, x + f * a[0] * k + 0.08f * k, y);
        paint(m->s, stroke(x + f * a[0] * k, y - a[1] * k, x + f * a[2] * k, y - a[3] * k, a[4] * k, a[4] * k), b);
    }
    paint(m->s, stroke(x, y - 0.02f * k, x, y - 0.90f * k, 0.105f * k, 0.10f * k),
          across(m->label, lit, dim, x - 0.1f * k, y, x + 0.11f * k, y));
    for (int i = -1; i < 2; i++)
        paint(m->s,
              stroke(x + (float)i * 0.05f * k, y - 0.04f * k, x + (float)i * 0.05f * k, y - 0.92f * k, 0.35f, 0.35f),
              flat(0, dim));
}

static void draw_umbrella(sitter *m)
{
    float k = m->k, x = m->x, y = m->y, cy = y - 0.52f * k;
    shadow(m->s, x + 0.1f * k, y, 0.42f * k, 0.05f * k, 0.35f);
    paint(m->s, stroke(x, y, x, y - 0.95f * k, 0.022f * k, 0.022f * k), flat(m->label, lighter(WOOD, 0.35f)));
    shape dome = ellipse(x, cy, 0.5f * k, 0.44f * k), above = box(x - k, y - 2 * k, x + k, cy, 0);
    brush b = sphere(m, x, cy - 0.1f * k, 0.5f * k);
    b.cx = x, b.cy = cy;
    if (!m->t->pattern) {
        b.pattern = GORES, b.gores = 6, b.rx = 0.5f * k, b.ry = 0.46f * k;
        tint other = m->t->colour ? lighter(m->main, 0.22f) : (tint){0.98f, 0.95f, 0.88f};
        b.gores = 7;
        b.paint[0] = m->main, b.paint[1] = other,
        b.paint[2] = m->t->colour ? scaled(m->main, 0.86f) : (tint){0.96f, 0.78f, 0.40f};
        b.from = (tint){1, 1, 1}, b.to = (tint){0.7f, 0.7f, 0.7f};
    } else b.period = 10;
    dome.within = &above;
    paint(m->s, dome, b);
    for (int i = 0; i < 5; i++) {
        shape scallop = disc(x + (float)(i - 2) * 0.2f * k, cy - 0.005f * k, 0.1f * k),
              below = box(x - k, cy - 0.02f * k, x + k, y, 0);
        scallop.ry = 0.05f * k;
        scallop.within = &below;
        paint(m->s, scallop, flat(m->label, scaled(m->main, i % 2 ? 0.85f : 0.70f)));
    }
    paint(m->s, disc(x, y - 0.965f * k, 0.03f * k), flat(m->label, scaled(m->main, 0.7f)));
}

static void draw_tent(sitter *m)
{
    static const float front[3][2] = {{-0.5f, 0}, {-0.10f, -0.70f}, {0.22f, 0}};
    static const float side[4][2] = {{-0.10f, -0.70f}, {0.30f, -0.62f}, {0.5f, -0.04f}, {0.22f, 0}};
    static const float gap[3][2] = {{-0.24f, 0}, {-0.10f, -0.54f}, {0.03f, 0}};
    float k = m->k, x = m->x, y = m->y, f = chance(&m->d, 50) ? 1.0f : -1.0f;
    brush b = surface(m, x, y - 0.7f * k, x, y);
    shadow(m->s, x, y, 0.52f * k, 0.05f * k, 0.4f);
    b.from = scaled(m->main, 0.86f), b.to = scaled(m->main, 0.62f);
    b.paint[0] = scaled(b.paint[0], 0.85f);
    paint(m->s, polygon(4, side, x, y, f * k, k), b);
    b = surface(m, x, y - 0.7f * k, x, y);
    b.from = lighter(m->main, 0.16f), b.to = scaled(m->main, 0.92f);
    paint(m->s, polygon(3, front, x, y, f * k, k), b);
    brush hole = down(m->label, (tint){0.16f, 0.13f, 0.13f}, (tint){0.30f, 0.24f, 0.20f}, y - 0.5f * k, y);
    if (m->s->night)
        hole = down(m->label, (tint){0.8f, 0.55f, 0.2f}, (tint){1, 0.82f, 0.4f}, y - 0.5f * k, y), hole.glow = true;
    paint(m->s, polygon(3, gap, x, y, f * k, k), hole);
    paint(m->s, stroke(x - f * 0.10f * k, y - 0.70f * k, x - f * 0.10f * k, y - 0.02f * k, 0.5f, 0.5f),
          flat(m->label, WOOD));
}

static void draw_windmill(sitter *m)
{
    static const float tower[4][2] = {{-0.17f, 0}, {-0.10f, -0.58f}, {0.10f, -0.58f}, {0.17f, 0}};
    float k = m->k, x = m->x, y = m->y, hy = y - 0.60f * k, turn = spread(&m->d, 0.06f, 0.19f);
    shadow(m->s, x, y, 0.2f * k, 0.035f * k, 0.4f);
    paint(m->s, polygon(4, tower, x, y, k, k),
          grained(across(m->label, lighter(m->main, 0.08f), scaled(m->main, 0.70f), x - 0.13f * k, y, x + 0.15f * k, y),
                  0.08f, 0.8f, 1));
    shape cap = ellipse(x, y - 0.57f * k, 0.125f * k, 0.13f * k), above = box(x - k, y - k, x + k, y - 0.57f * k, 0);
    cap.within = &above;
    paint(m->s, cap, flat(m->label, (tint){0.42f, 0.26f, 0.20f}));
    paint(m->s, box(x - 0.05f * k, y - 0.15f * k, x + 0.05f * k, y, 1), flat(m->label, scaled(WOOD, 0.8f)));
    paint(m->s, box(x - 0.03f * k, y - 0.36f * k, x + 0.03f * k, y - 0.29f * k, 0),
          flat(m->label, (tint){0.35f, 0.45f, 0.55f}));
    for (int i = 0; i < 4; i++) {
        float t = turn + 0.25f * (float)i, c = sine(t + 0.25f), n = sine(t), r = 0.40f * k;
        paint(
            m->s,
            turned(box(x + c * r * 0.58f - n * 0.045f * k - r * 0.40f, hy + n * r * 0.58f + c * 0.045f * k - 0.042f * k,
                       x + c * r * 0.58f - n * 0.045f * k + r * 0.40f, hy + n * r * 0.58f + c * 0.045f * k + 0.042f * k,
                       0),
                   t),
            rimmed(flat(m->label, (tint){0.96f, 0.93f, 0.86f}), 0.35f, 1.2f));
        paint(m->s, stroke(x, hy, x + c * r, hy + n * r, 0.8f, 0.6f), flat(m->label, scaled(WOOD, 0.8f)));
    }
    paint(m->s, disc(x, hy, 0.035f * k), flat(m->label, DARK));
}

static void draw_thing(world_scene *s, const thing *t, int ground)
{
    static void (*const draw[WORLD_CLASSES + 1])(sitter *) = {
        [BOAT] = draw_boat,         [SUN] = draw_sun,           [HOUSE] = draw_house,
        [TREE] = draw_tree,         [CAR] = draw_car,           [CLOUD] = draw_cloud,
        [ROCK] = draw_rock,         [FLOWER] = draw_flower,     [BALL] = draw_ball,
        [BIRD] = draw_bird,         [MOON] = draw_moon,         [BALLOON] = draw_balloon,
        [MUSHROOM] = draw_mushroom, [SNOWMAN] = draw_snowman,   [LIGHTHOUSE] = draw_lighthouse,
        [CACTUS] = draw_cactus,     [UMBRELLA] = draw_umbrella, [TENT] = draw_tent,
        [FISH] = draw_fish,         [STAR] = draw_star,         [WINDMILL] = draw_windmill,
    };
    sitter m = {.s = s,
                .t = t,
                .d = {t->seed},
                .x = (float)t->x,
                .y = (float)t->y,
                .k = (float)t->size,
                .label = t->label,
                .ground = ground};
    m.main = main_colour(t, &m.d);
    draw[t->class](&m);
}

/* The colour of a nearest pixel that has the label, looked for on squares around (x, y). */
static tint nearest(const world_scene *s, int x, int y, int label)
{
    for (int r = 0; r < WORLD_SIDE; r++)
        for (int j = y - r; j <= y + r; j++)
            for (int i = x - r; i <= x + r; i++) {
                const bool on_edge = i == x - r || i == x + r || j == y - r || j == y + r;
                if (on_edge && i == within(i) && j == within(j) && s->label[j * WORLD_SIDE + i] == label)
                    return s->pixel[j * WORLD_SIDE + i];
            }
    return s->pixel[y * WORLD_SIDE + x];
}

/* A thing in another's outline: drawn as large as that, and where it leaves a gap its surface goes on. */
static void draw_outlined(world_scene *s, const thing *t, int ground)
{
    enum { FORM = 255 };
    thing form = *t, own = *t;
    int x0 = WORLD_SIDE, y0 = WORLD_SIDE, x1 = 0, y1 = 0;
    memcpy(s->before, s->pixel, sizeof s->before);
    memcpy(s->below, s->label, sizeof s->below);
    form.class = t->outline.class, form.colour = t->outline.colour, form.pattern = t->outline.pattern,
    form.seed = t->outline.seed;
    form.label = FORM;
    draw_thing(s, &form, ground);
    memcpy(s->outline, s->label, sizeof s->outline);
    memcpy(s->pixel, s->before, sizeof s->pixel);
    memset(s->label, 0, sizeof s->label);
    for (int i = 0; i < WORLD_PIXELS; i++) {
        const int x = i % WORLD_SIDE, y = i / WORLD_SIDE;
        if (s->outline[i] != FORM) continue;
        x0 = x < x0 ? x : x0, x1 = x >= x1 ? x + 1 : x1, y0 = y < y0 ? y : y0, y1 = y >= y1 ? y + 1 : y1;
    }
    if (x1 > x0) {
        const struct class_row *c = &CLASS[t->class];
        own.size = (int)(sqrtf((float)((x1 - x0) * (y1 - y0)) / (c->w * c->h)) + 0.5f);
        own.x = (x0 + x1) / 2;
        own.y = (int)((float)(y0 + y1) / 2 + c->h * (float)own.size / 2);
        draw_thing(s, &own, ground);
    }
    for (int i = 0; i < WORLD_PIXELS; i++)
        if (s->outline[i] == FORM)
            s->before[i] = nearest(s, i % WORLD_SIDE, i / WORLD_SIDE, t->label), s->below[i] = (uint8_t)t->label;
    memcpy(s->pixel, s->before, sizeof s->pixel);
    memcpy(s->label, s->below, sizeof s->label);
}

/* ---- Styles: filters from s->pixel (which they may spoil) to s->other --------------------------------------------- */

static tint at(const world_scene *s, int x, int y)
{
    return s->pixel[within(y) * WORLD_SIDE + within(x)];
}

static tint saturated(tint c, float by)
{
    float g = luma(c);
    return (tint){clamp01(g + (c.r - g) * by), clamp01(g + (c.g - g) * by), clamp01(g + (c.b - g) * by)};
}

/* Mean over a square of 2 r + 1 pixels, rows then columns. */
static void blur(float *plane, float *room, int r)
{
    float k = 1 / (float)(2 * r + 1);
    for (int pass = 0; pass < 2; pass++) {
        const float *in = pass ? room : plane;
        float *out = pass ? plane : room;
        for (int y = 0; y < WORLD_SIDE; y++)
            for (int x = 0; x < WORLD_SIDE; x++) {
                float sum = 0;
                for (int i = -r; i <= r; i++)
                    sum += pass ? in[within(y + i) * WORLD_SIDE + x] : in[y * WORLD_SIDE + within(x + i)];
                out[y * WORLD_SIDE + x] = sum * k;
            }
    }
}

static void luma_plane(world_scene *s)
{
    for (int i = 0; i < WORLD_PIXELS; i++) s->plane[0][i] = luma(s->pixel[i]);
}

static float grain_at(const world_scene *s, int x, int y, float scale)
{
    return texture(s->fine, (float)x * scale, (float)y * scale) - 0.5f;
}

static void sepia(world_scene *s)
{
    for (int i = 0; i < WORLD_PIXELS; i++) {
        float u = (float)(i % WORLD_SIDE - 64) / 64, v = (float)(i / WORLD_SIDE - 64) / 64;
        float g = clamp01((luma(s->pixel[i]) - 0.5f) * 1.05f + 0.52f +
                          0.10f * grain_at(s, i % WORLD_SIDE, i / WORLD_SIDE, 1));
        tint c = g < 0.5f ? mixed((tint){0.16f, 0.09f, 0.04f}, (tint){0.62f, 0.44f, 0.27f}, 2 * g)
                          : mixed((tint){0.62f, 0.44f, 0.27f}, (tint){0.99f, 0.93f, 0.78f}, 2 * g - 1);
        s->other[i] = scaled(c, 1 - 0.22f * smooth((u * u + v * v - 0.6f) / 1.4f));
    }
}

/* Lines where a pixel is darker than its surroundings, hatching in the shadows, on white paper. */
static void pencil(world_scene *s)
{
    for (int i = 0; i < WORLD_PIXELS; i++) s->plane[0][i] = sqrtf(luma(s->pixel[i])); /* or nights would be black */
    memcpy(s->other, s->plane[0], sizeof s->plane[0]);
    const float *g = (const float *)s->other;
    blur(s->plane[0], s->plane[1], 2);
    for (int i = WORLD_PIXELS - 1; i >= 0; i--) {
        int x = i % WORLD_SIDE, y = i / WORLD_SIDE;
        float v = g[i], line = clamp01((s->plane[0][i] - v) * 5.5f + 0.03f), tone = 0.30f * (1 - v);
        float wobble = 2 * grain_at(s, x, y, 0.3f);
        float hatch = 0.5f + 0.5f * sine((float)(x + y) / 5 + wobble),
              cross = 0.5f + 0.5f * sine((float)(x - y) / 5 + wobble);
        float dark = tone + line * 0.85f + hatch * clamp01((0.74f - v) * 1.2f) + cross * clamp01((0.50f - v) * 1.3f);
        float paper = 0.97f + 0.05f * grain_at(s, x, y, 1);
        s->plane[1][i] = clamp01(paper - clamp01(dark) * 0.86f);
    }
    for (int i = 0; i < WORLD_PIXELS; i++) {
        float v = s->plane[1][i];
        s->other[i] = (tint){v, v * 0.995f, v * 0.975f};
    }
}

static tint mean_of(const world_scene *s, int x0, int y0, int x1, int y1)
{
    tint c = {0, 0, 0};
    float n = (float)((x1 - x0) * (y1 - y0));
    for (int y = y0; y < y1; y++)
        for (int x = x0; x < x1; x++) {
            tint p = s->pixel[y * WORLD_SIDE + x];
            c.r += p.r, c.g += p.g, c.b += p.b;
        }
    return scaled(c, 1 / n);
}

/* 32 x 32 tiles, each fired a little differently, in dark joints. */
static void mosaic(world_scene *s, dice *d)
{
    for (int y = 0; y < WORLD_SIDE; y += 4)
        for (int x = 0; x < WORLD_SIDE; x += 4) {
            tint c = lighter(saturated(mean_of(s, x, y, x + 4, y + 4), 1.3f), 0.12f);
            c = scaled(c, spread(d, 0.78f, 1.16f));
            for (int i = 0; i < 16; i++) {
                bool joint = i % 4 == 3 || i / 4 == 3, edge = i % 4 == 0 || i / 4 == 0;
                s->other[(y + i / 4) * WORLD_SIDE + x + i % 4] =
                    joint  ? mixed(scaled(c, 0.62f), (tint){0.30f, 0.28f, 0.26f}, 0.30f)
                    : edge ? lighter(c, 0.20f)
                           : c;
            }
        }
}

/* Paint that ran a little, darker where it dried at an edge, on paper that shows. */
static void watercolor(world_scene *s)
{
    for (int i = 0; i < WORLD_PIXELS; i++) {
        float x = (float)(i % WORLD_SIDE), y = (float)(i / WORLD_SIDE);
        int u = (int)(x + 5 * (texture(s->soft, x * 0.7f, y * 0.7f) - 0.5f) + 0.5f);
        int v = (int)(y + 5 * (texture(s->soft, x * 0.7f + 31, y * 0.7f + 17) - 0.5f) + 0.5f);
        tint c = {0, 0, 0};
        for (int k = 0; k < 9; k++) {
            tint p = at(s, u + k % 3 - 1, v + k / 3 - 1);
            c.r += p.r / 9, c.g += p.g / 9, c.b += p.b / 9;
        }
        s->other[i] = c;
        s->plane[0][i] = luma(c);
    }
    for (int i = 0; i < WORLD_PIXELS; i++) {
        int x = i % WORLD_SIDE, y = i / WORLD_SIDE;
        float around4 = 0;
        for (int k = 0; k < 4; k++) {
            int u = within(x + (k == 0 ? -2 : k == 1 ? 2 : 0)), v = within(y + (k == 2 ? -2 : k == 3 ? 2 : 0));
            around4 += s->plane[0][v * WORLD_SIDE + u] / 4;
        }
        float edge = clamp01((around4 - s->plane[0][i]) * 3.2f);
        float wash = texture(s->soft, (float)x * 0.45f + 9, (float)y * 0.45f) - 0.5f;
        tint c = saturated(s->other[i], 1.30f);
        c = lighter(c, clamp01(0.30f + 0.55f * wash));
        c = scaled(c, 1 - 0.55f * edge + 0.12f * grain_at(s, x, y, 1));
        int border = x < y ? x : y, far = WORLD_SIDE - 1 - (x > y ? x : y);
        border = border < far ? border : far;
        float ragged = (float)border - 3.5f - 7 * (texture(s->soft, (float)x * 0.9f, (float)y * 0.9f) - 0.5f);
        s->pixel[i] = mixed((tint){0.98f, 0.975f, 0.95f}, c, step_at(0, 2.5f, ragged));
    }
    memcpy(s->other, s->pixel, sizeof s->other);
}

/* Outlines as glowing tubes in the saturated colour of what they enclose, on darkness. */
static void neon(world_scene *s)
{
    float *line = s->plane[0];
    for (int i = 0; i < WORLD_PIXELS; i++) {
        int x = i % WORLD_SIDE, y = i / WORLD_SIDE;
        tint l = at(s, x - 1, y), r = at(s, x + 1, y), u = at(s, x, y - 1), w = at(s, x, y + 1);
        float dx = (r.r - l.r) * (r.r - l.r) + (r.g - l.g) * (r.g - l.g) + (r.b - l.b) * (r.b - l.b);
        float dy = (w.r - u.r) * (w.r - u.r) + (w.g - u.g) * (w.g - u.g) + (w.b - u.b) * (w.b - u.b);
        line[i] = smooth((sqrtf(dx + dy) - 0.16f) * 2.6f);
    }
    for (int i = 0; i < WORLD_PIXELS; i++) {
        tint c = s->pixel[i];
        float low = c.r < c.g ? (c.r < c.b ? c.r : c.b) : c.g < c.b ? c.g : c.b;
        tint hue = {c.r - low, c.g - low, c.b - low};
        float high = hue.r > hue.g ? (hue.r > hue.b ? hue.r : hue.b) : hue.g > hue.b ? hue.g : hue.b;
        tint cold = luma(c) > 0.5f ? (tint){0.2f, 0.9f, 1} : (tint){1, 0.25f, 0.85f};
        s->other[i] = mixed(cold, scaled(hue, 1 / (high + 0.02f)), smooth((high - 0.08f) * 6));
    }
    for (int channel = 0; channel < 3; channel++) {
        float *glow = s->plane[1], *room = (float *)s->pixel + WORLD_PIXELS; /* the picture's own luma stays in front */
        if (channel == 0)
            for (int i = 0; i < WORLD_PIXELS; i++) ((float *)s->pixel)[i] = luma(s->pixel[i]);
        for (int i = 0; i < WORLD_PIXELS; i++) {
            const float *c = &s->other[i].r;
            glow[i] = line[i] * c[channel];
        }
        blur(glow, room, 2);
        blur(glow, room, 2);
        for (int i = 0; i < WORLD_PIXELS; i++) {
            float *c = &s->other[i].r;
            float ground = ((float *)s->pixel)[i] * (channel == 0   ? 0.10f
                                                     : channel == 1 ? 0.07f
                                                                    : 0.20f) +
                           (channel == 2 ? 0.06f : 0.02f);
            c[channel] = clamp01(ground + line[i] * (0.15f + 0.85f * c[channel]) + 1.1f * glow[i]);
        }
    }
}

static void pixel_art(world_scene *s)
{
    for (int y = 0; y < WORLD_SIDE; y += 4)
        for (int x = 0; x < WORLD_SIDE; x += 4) {
            tint c = scaled(saturated(mean_of(s, x, y, x + 4, y + 4), 1.35f), 1.08f);
            c = (tint){floorf(c.r * 6 + 0.6f) / 6, floorf(c.g * 6 + 0.6f) / 6, floorf(c.b * 6 + 0.6f) / 6};
            for (int i = 0; i < 16; i++) s->other[(y + i / 4) * WORLD_SIDE + x + i % 4] = c;
        }
}

/* Cells around 9 x 9 scattered points, cut where regions meet; each piece in its mean colour, leaded. */
static void stained_glass(world_scene *s, dice *d)
{
    enum { GRID = 9, PIECES = GRID * GRID * WORLD_PHRASES };
    float point[GRID * GRID][2];
    uint8_t labels[WORLD_PHRASES + 1];
    int known = 0;
    tint *sum = (tint *)s->plane[1]; /* [PIECES], then the counts */
    float *count = s->plane[1] + 3 * PIECES;
    memset(s->plane[1], 0, sizeof s->plane[1]);
    for (int i = 0; i < GRID * GRID; i++) {
        point[i][0] = ((float)(i % GRID) + spread(d, 0.1f, 0.9f)) * WORLD_SIDE / GRID;
        point[i][1] = ((float)(i / GRID) + spread(d, 0.1f, 0.9f)) * WORLD_SIDE / GRID;
    }
    for (int i = 0; i < WORLD_PIXELS; i++) {
        int x = i % WORLD_SIDE, y = i / WORLD_SIDE, cx = x * GRID / WORLD_SIDE, cy = y * GRID / WORLD_SIDE, best = 0,
            l = 0;
        float first = 1e9f, second = 1e9f;
        for (int k = 0; k < 25; k++) {
            int u = cx + k % 5 - 2, v = cy + k / 5 - 2;
            if (u < 0 || v < 0 || u >= GRID || v >= GRID) continue;
            float dx = point[v * GRID + u][0] - (float)x, dy = point[v * GRID + u][1] - (float)y, e = dx * dx + dy * dy;
            if (e < first) second = first, first = e, best = v * GRID + u;
            else if (e < second) second = e;
        }
        while (l < known && labels[l] != s->label[i]) l++;
        if (l == known && known < WORLD_PHRASES) labels[known++] = s->label[i];
        int piece = best * WORLD_PHRASES + (l < WORLD_PHRASES ? l : 0);
        bool lead = sqrtf(second) - sqrtf(first) < 1.3f || s->label[i] != s->label[y * WORLD_SIDE + within(x + 1)] ||
                    s->label[i] != s->label[within(y + 1) * WORLD_SIDE + x];
        s->plane[0][i] = (float)(lead ? -1 : piece);
        if (lead) continue;
        sum[piece].r += s->pixel[i].r, sum[piece].g += s->pixel[i].g, sum[piece].b += s->pixel[i].b;
        count[piece] += 1;
    }
    for (int i = 0; i < WORLD_PIXELS; i++) {
        int piece = (int)s->plane[0][i];
        tint c = {0.07f, 0.07f, 0.09f};
        if (piece >= 0) {
            c = saturated(scaled(sum[piece], 1 / count[piece]), 1.75f);
            c = scaled(lighter(c, 0.08f),
                       0.92f + 0.45f * (texture(s->soft, (float)(i % WORLD_SIDE), (float)(i / WORLD_SIDE)) - 0.4f));
        }
        s->other[i] = c;
    }
}

/* Brush strokes along a flow that swirls: bristles averaged over the whole stroke, colours over its middle, so that things
   keep their outlines. */
static void van_gogh(world_scene *s)
{
    enum { REACH = 7, MIDDLE = 3 };
    for (int i = 0; i < WORLD_PIXELS; i++) {
        tint c = {0, 0, 0};
        float bristle = 0;
        for (int way = -1; way < 2; way += 2) {
            float x = (float)(i % WORLD_SIDE), y = (float)(i / WORLD_SIDE);
            for (int k = 0; k < REACH; k++) {
                float u = x * 0.15f, v = y * 0.15f;
                float fx = texture(s->soft, u, v + 1) - texture(s->soft, u, v - 1) + 0.06f;
                float fy = texture(s->soft, u - 1, v) - texture(s->soft, u + 1, v),
                      size = sqrtf(fx * fx + fy * fy) + 1e-6f;
                bristle += texture(s->fine, x * 0.8f, y * 0.8f) / (2 * REACH);
                if (k < MIDDLE) {
                    tint p = at(s, (int)(x + 0.5f), (int)(y + 0.5f));
                    c.r += p.r / (2 * MIDDLE), c.g += p.g / (2 * MIDDLE), c.b += p.b / (2 * MIDDLE);
                }
                x += (float)way * fx / size;
                y += (float)way * fy / size;
            }
        }
        float stroke_light = (bristle - 0.5f) * 5;
        c = saturated(c, 1.4f);
        c = mixed(c, luma(c) + stroke_light * 0.2f > 0.52f ? (tint){0.99f, 0.88f, 0.40f} : (tint){0.08f, 0.20f, 0.52f},
                  0.15f);
        s->other[i] = scaled(c, 1 + 0.30f * (stroke_light < -1 ? -1 : stroke_light > 1 ? 1 : stroke_light));
    }
}

/* Flat tones, halftone dots in the shadows, ink along the regions' edges and strong contrasts. */
static void comic(world_scene *s)
{
    luma_plane(s);
    for (int i = 0; i < WORLD_PIXELS; i++) {
        int x = i % WORLD_SIDE, y = i / WORLD_SIDE;
        float g = s->plane[0][i], tone = g > 0.66f ? 1.08f : g > 0.36f ? 0.90f : 0.70f;
        tint c = saturated(s->pixel[i], 1.6f);
        c = scaled(c, tone * (0.60f + 0.30f * (g > 0.5f ? 1 : g + 0.5f)) / (0.25f + 0.75f * g + 0.1f));
        float dx = (float)(x & 3) - 1.5f, dy = (float)(y & 3) - 1.5f;
        if (g < 0.55f && dx * dx + dy * dy < 6 * (0.6f - g)) c = scaled(c, 0.72f);
        int right = y * WORLD_SIDE + within(x + 1), below = within(y + 1) * WORLD_SIDE + x;
        float step = fabsf(s->plane[0][right] - g) + fabsf(s->plane[0][below] - g);
        bool ink = s->label[i] != s->label[right] || s->label[i] != s->label[below] ||
                   s->label[i] != s->label[y * WORLD_SIDE + within(x - 1)];
        c = mixed(c, (tint){0.05f, 0.05f, 0.07f}, ink ? 1 : smooth((step - 0.14f) * 5));
        s->other[i] = c;
    }
}

/* Over the whole picture, or over the pixels with one label. */
static void apply_style(world_scene *s, int style, int only, uint64_t seed)
{
    dice d = {seed};
    memcpy(s->before, s->pixel, sizeof s->before);
    if (style == SEPIA) sepia(s);
    else if (style == PENCIL) pencil(s);
    else if (style == MOSAIC) mosaic(s, &d);
    else if (style == WATERCOLOR) watercolor(s);
    else if (style == NEON) neon(s);
    else if (style == PIXEL_ART) pixel_art(s);
    else if (style == STAINED_GLASS) stained_glass(s, &d);
    else if (style == VAN_GOGH) van_gogh(s);
    else comic(s);
    for (int i = 0; i < WORLD_PIXELS; i++) s->pixel[i] = !only || s->label[i] == only ? s->other[i] : s->before[i];
}

/* ---- Planning ---------------------------------------------------------------------------------------------------- */

static bool has(const world_rules *r, int class)
{
    return r->classes >> class & 1;
}

static layer *add_layer(plan *p, dice *d, int class, int y, int bottom)
{
    layer *l = &p->layer[p->layers++];
    *l = (layer){.class = (uint8_t) class, .label = class, .y = y, .bottom = bottom};
    l->seed = dice_next(d);
    return l;
}

static bool plan_scenery(plan *p, dice *d, const world_rules *r)
{
    static const struct {
        int needs, low, high;
    } row[SCENERIES] = {
        [SEASIDE] = {SEA, 52, 66}, [MEADOW] = {GRASS, 58, 74},  [ROADSIDE] = {ROAD, 48, 56}, [SNOWY] = {SNOW, 58, 74},
        [DESERT] = {SAND, 60, 76}, [LAKESIDE] = {LAKE, 50, 58}, [FARMLAND] = {FIELD, 56, 68}};
    p->kind = (scenery)roll(d, SCENERIES);
    p->night = chance(d, 24);
    p->horizon = row[p->kind].low + roll(d, row[p->kind].high - row[p->kind].low + 1);
    return has(r, row[p->kind].needs) && has(r, p->night ? NIGHT_SKY : SKY);
}

/* Of the given grounds one that the rules allow; 0: none. */
static int pick_ground(dice *d, const world_rules *r, const int *grounds, int count)
{
    int first = roll(d, count);
    for (int i = 0; i < count; i++)
        if (has(r, grounds[(first + i) % count])) return grounds[(first + i) % count];
    return 0;
}

static bool plan_layers(plan *p, dice *d, const world_rules *r)
{
    static const int meadows[3] = {GRASS, SNOW, SAND};
    int h = p->horizon;
    add_layer(p, d, p->night ? NIGHT_SKY : SKY, 0, h + 8);
    if (chance(d, 45) && has(r, MOUNTAIN)) add_layer(p, d, MOUNTAIN, h, h + 8);
    if (chance(d, 35) && has(r, FOREST) && p->kind != SEASIDE && p->kind != DESERT)
        add_layer(p, d, FOREST, h + 3, h + 8);
    switch (p->kind) {
    case SEASIDE:
        add_layer(p, d, SEA, h, WORLD_SIDE);
        if (chance(d, 65) && has(r, SAND)) add_layer(p, d, SAND, 92 + roll(d, 12), WORLD_SIDE);
        return true;
    case MEADOW: return add_layer(p, d, GRASS, h, WORLD_SIDE);
    case SNOWY: return add_layer(p, d, SNOW, h, WORLD_SIDE);
    case DESERT: return add_layer(p, d, SAND, h, WORLD_SIDE);
    case FARMLAND: return add_layer(p, d, FIELD, h, WORLD_SIDE);
    default: break;
    }
    int ground = pick_ground(d, r, meadows, p->kind == LAKESIDE ? 2 : 3);
    if (!ground) return false;
    add_layer(p, d, ground, h, WORLD_SIDE);
    if (p->kind == LAKESIDE) {
        int y = h + 9 + roll(d, 6);
        return add_layer(p, d, LAKE, y, y + 36 + roll(d, 10));
    }
    p->country_road = chance(d, 30);
    int y = p->country_road ? h + 2 : h + 20 + roll(d, 7);
    return add_layer(p, d, ROAD, y, p->country_road ? WORLD_SIDE : y + 26 + roll(d, 4));
}

/* Where things stand: rows for their foot, and what may stand there. */
typedef struct zone {
    int on, low, high, left, right;
} zone;

static int find_zones(const plan *p, zone *z)
{
    int n = 0, h = p->horizon;
    z[n++] = (zone){IN_SKY, 26, h + 4, 0, WORLD_SIDE};
    const layer *last = &p->layer[p->layers - 1];
    int ground = last->class == ROAD || last->class == LAKE ? last[-1].class : last->class;
    int on = ground == SNOW ? ON_SNOW : ground == SAND ? ON_SAND | IN_DESERT : ON_GRASS;
    if (p->kind == SEASIDE) {
        bool shore = last->class == SAND;
        z[n++] = (zone){ON_WATER, h + 16, shore ? last->y - 4 : 118, 0, WORLD_SIDE};
        if (shore) z[n++] = (zone){ON_SAND | BY_THE_SEA, last->y + 9, 125, 0, WORLD_SIDE};
    } else if (p->kind == ROADSIDE && p->country_road) {
        z[n++] = (zone){on, h + 10, 104, 0, 42};
        z[n++] = (zone){on, h + 10, 104, 86, WORLD_SIDE};
    } else if (p->kind == ROADSIDE) {
        z[n++] = (zone){ON_ROAD, last->bottom - 7, last->bottom - 3, 0, WORLD_SIDE};
        z[n++] = (zone){on, h + 8, last->y, 0, WORLD_SIDE};
        z[n++] = (zone){on, last->bottom + 14, 126, 0, WORLD_SIDE};
    } else if (p->kind == LAKESIDE) {
        z[n++] = (zone){ON_WATER, last->y + 18, last->bottom - 5, 24, 104};
        z[n++] = (zone){on, h + 8, last->y + 2, 0, WORLD_SIDE};
        z[n++] = (zone){on, last->bottom + 6, 126, 0, WORLD_SIDE};
    } else z[n++] = (zone){on, h + 10, 125, 0, WORLD_SIDE};
    return n;
}

typedef struct frame {
    float x0, y0, x1, y1;
} frame;

static frame frame_of(const thing *t)
{
    const struct class_row *c = &CLASS[form_of(t)];
    float w = c->w * (float)t->size, h = c->h * (float)t->size;
    return (frame){(float)t->x - w / 2, (float)t->y - h, (float)t->x + w / 2, (float)t->y};
}

/* The share of the smaller frame that both cover. */
static float overlap(frame a, frame b)
{
    float x0 = a.x0 > b.x0 ? a.x0 : b.x0, x1 = a.x1 < b.x1 ? a.x1 : b.x1, y0 = a.y0 > b.y0 ? a.y0 : b.y0,
          y1 = a.y1 < b.y1 ? a.y1 : b.y1;
    float area = (a.x1 - a.x0) * (a.y1 - a.y0), other = (b.x1 - b.x0) * (b.y1 - b.y0);
    return x1 > x0 && y1 > y0 ? (x1 - x0) * (y1 - y0) / (area < other ? area : other) : 0;
}

static bool in_this_light(const plan *p, int class)
{
    if (class == MOON || class == STAR) return p->night;
    return !(p->night && (class == SUN || class == BIRD || class == BALLOON || class == CLOUD));
}

/* Finds a place and a size in the zone; false after a few tries. */
static bool place(plan *p, dice *d, const zone *z, thing *t)
{
    const struct class_row *c = &CLASS[form_of(t)];
    for (int tries = 0; tries < 14; tries++) {
        t->y = z->low + roll(d, z->high - z->low + 1);
        float near =
            z->on == IN_SKY ? 1 : lerp(0.80f, 1.10f, (float)(t->y - p->horizon) / (float)(WORLD_SIDE - p->horizon));
        t->size = (int)(spread(d, c->low, c->high) * near);
        int half = (int)(c->w * (float)t->size * 0.46f), left = z->left + half, right = z->right - half;
        if (z->left) right = z->right - (half < 20 ? half : 20);
        else if (z->right < WORLD_SIDE) left = half < 20 ? half : 20;
        if (right <= left) continue;
        t->x = left + roll(d, right - left);
        frame f = frame_of(t);
        bool fits = f.y0 >= (z->on == IN_SKY ? 3 : 1);
        for (int i = 0; i < p->things && fits; i++) {
            bool sky = CLASS[p->thing[i].class].zones == IN_SKY && z->on != IN_SKY;
            fits = overlap(f, frame_of(&p->thing[i])) <= (sky ? 0.20f : 0.08f);
        }
        if (fits) return true;
    }
    return false;
}

enum { OFTEN = 3 }; /* see world_rules.often */

static bool pick_class(const plan *p, dice *d, const world_rules *r, const zone *z, thing *t)
{
    int candidate[WORLD_CLASSES * 8 * OFTEN], n = 0;
    t->misplaced = r->misplaced && chance(d, r->misplaced);
    for (int c = 1; c <= WORLD_CLASSES; c++) {
        bool lamp = c == SUN || c == MOON, taken = false;
        for (int i = 0; i < p->things; i++) taken = taken || (lamp && p->thing[i].class == c);
        if (taken || !has(r, c) || (!t->misplaced && (!(CLASS[c].zones & z->on) || !in_this_light(p, c)))) continue;
        for (int i = 0; i < CLASS[c].weight * (r->often >> c & 1 ? OFTEN : 1); i++) candidate[n++] = c;
    }
    if (n) t->class = (uint8_t)candidate[roll(d, n)];
    return n > 0;
}

/* Some things fill another's outline. They are drawn in front of what lies far, even in the outline of the sun. */
static void pick_outline(dice *d, const world_rules *r, thing *t)
{
    int candidate[WORLD_CLASSES], n = 0;
    if (!r->outlined || !chance(d, r->outlined)) return;
    for (int c = 1; c <= WORLD_CLASSES; c++)
        if (has(r, c) && !CLASS[c].stuff && c != t->class) candidate[n++] = c;
    if (!n) return;
    t->outline.class = (uint8_t)candidate[roll(d, n)];
    t->outline.seed = dice_next(d);
    t->misplaced = true;
}

static void pick_attributes(dice *d, const world_rules *r, unsigned colours, unsigned patterns, uint8_t *colour,
                            uint8_t *pattern)
{
    if (!chance(d, r->attributes)) return;
    int kind = roll(d, 100), option[16], n = 0;
    if (colours && (kind < 80 || !patterns)) {
        for (int c = 1; c <= WORLD_COLOURS; c++)
            if (colours >> c & 1) option[n++] = c;
        *colour = (uint8_t)option[roll(d, n)];
    }
    if (patterns && kind >= 60 && pattern) *pattern = (uint8_t)(1 + roll(d, WORLD_PATTERNS));
}

/* A class may have two phrases in a scene; a third thing of the class takes after the first. */
static void name_thing(plan *p, thing *t)
{
    const thing *first = NULL, *second = NULL;
    for (int i = p->things - 1; i >= 0; i--) {
        if (p->thing[i].class != t->class) continue;
        if (p->thing[i].label > WORLD_SECOND) second = &p->thing[i];
        else first = &p->thing[i];
    }
    const thing *like = first;
    if (first && second && second->colour == t->colour && second->pattern == t->pattern) like = second;
    if (first && !second && (first->colour != t->colour || first->pattern != t->pattern)) like = NULL;
    if (like) t->colour = like->colour, t->pattern = like->pattern;
    t->label = like ? like->label : t->class + (first ? WORLD_SECOND : 0);
}

static void plan_thing(plan *p, dice *d, const world_rules *r, const zone *z)
{
    thing t = {.class = 0};
    t.seed = dice_next(d);
    if (p->things == MOST_THINGS || !pick_class(p, d, r, z, &t)) return;
    pick_outline(d, r, &t);
    if (!place(p, d, z, &t)) return;
    pick_attributes(d, r, CLASS[t.class].colours, CLASS[t.class].patterns, &t.colour, &t.pattern);
    name_thing(p, &t);
    p->thing[p->things++] = t;
    bool again = chance(d, 18), same = chance(d, 50);
    thing u = t;
    u.seed = dice_next(d);
    if (!again || t.class == SUN || t.class == MOON || p->things == MOST_THINGS || !place(p, d, z, &u)) return;
    if (!same) {
        u.colour = u.pattern = 0;
        pick_attributes(d, r, CLASS[u.class].colours, CLASS[u.class].patterns, &u.colour, &u.pattern);
    }
    name_thing(p, &u);
    p->thing[p->things++] = u;
}

static void plan_things(plan *p, dice *d, const world_rules *r)
{
    zone zones[4];
    int n = find_zones(p, zones);
    for (int i = 0; i < n; i++) {
        int percent = roll(d, 100), more = zones[i].on == ON_ROAD  ? 1 + percent / 70
                                           : zones[i].on == IN_SKY ? (percent < 15   ? 0
                                                                      : percent < 65 ? 1
                                                                                     : 2)
                                           : n > 2                 ? (percent < 25   ? 0
                                                                      : percent < 85 ? 1
                                                                                     : 2)
                                                                   : 1 + percent / 40;
        while (more-- > 0) plan_thing(p, d, r, &zones[i]);
    }
    for (int i = 1; i < p->things; i++) /* what stands nearer is drawn later */
        for (int k = i; k > 0 && p->thing[k - 1].y > p->thing[k].y; k--) {
            thing swap = p->thing[k];
            p->thing[k] = p->thing[k - 1], p->thing[k - 1] = swap;
        }
}

/* FNV-1a-64 of what decides the label map. */
static uint64_t composition(const plan *p)
{
    uint64_t h = UINT64_C(0xcbf29ce484222325);
    const uint64_t prime = UINT64_C(0x100000001b3);
    h = (h ^ (uint64_t)(p->kind * 4 + p->night * 2 + p->country_road)) * prime;
    h = (h ^ (uint64_t)p->horizon) * prime;
    for (int i = 0; i < p->layers; i++) {
        h = (h ^ p->layer[i].class) * prime;
        h = (h ^ (uint64_t)(p->layer[i].y * 256 + p->layer[i].bottom)) * prime;
    }
    for (int i = 0; i < p->things; i++) {
        h = (h ^ p->thing[i].class) * prime;
        h = (h ^ (uint64_t)((p->thing[i].x * 256 + p->thing[i].y) * 256 + p->thing[i].size)) * prime;
    }
    return scramble(h);
}

/* One throw of the dice; false: the rules do not allow what came. Every composition is either held out or not, by one bit
   of its hash, so that no held-out scene can have been trained on. */
static bool plan_scene(plan *p, dice *d, const world_rules *r)
{
    memset(p, 0, sizeof *p);
    if (!plan_scenery(p, d, r) || !plan_layers(p, d, r)) return false;
    plan_things(p, d, r);
    if ((composition(p) & 1) != (uint64_t)r->held_out) return false;
    world_rules rarely = *r;
    rarely.attributes = r->dyed ? r->dyed : r->attributes / 3;
    bool attribute = false, wanted = !r->wanted;
    for (int i = 0; i < p->layers; i++) {
        pick_attributes(d, &rarely, CLASS[p->layer[i].class].colours, 0, &p->layer[i].colour, NULL);
        attribute = attribute || p->layer[i].colour;
        wanted = wanted || (r->wanted >> p->layer[i].class & 1);
    }
    for (int i = 0; i < p->things; i++) {
        attribute = attribute || p->thing[i].colour || p->thing[i].pattern;
        wanted = wanted || (r->wanted >> p->thing[i].class & 1);
    }
    if (chance(d, r->styles)) p->style = 1 + roll(d, WORLD_STYLES);
    if (p->style && r->style_in_region) p->style_label = p->layer[roll(d, p->layers)].label;
    return wanted && (attribute || !r->need_attribute);
}

/* ---- Drawing a plan ---------------------------------------------------------------------------------------------- */

static void draw_layer(world_scene *s, const plan *p, const layer *l)
{
    float glitter = -1;
    for (int i = 0; i < p->things; i++)
        if (p->thing[i].class == SUN || p->thing[i].class == MOON) glitter = (float)p->thing[i].x;
    switch (l->class) {
    case SKY: draw_sky(s, l); break;
    case NIGHT_SKY: draw_night_sky(s, l); break;
    case MOUNTAIN: draw_mountain(s, l); break;
    case FOREST: draw_forest(s, l); break;
    case LAKE: draw_lake(s, l, glitter); break;
    case ROAD: draw_road(s, l, p->country_road); break;
    default: draw_ground(s, l, glitter);
    }
}

static bool is_far(const thing *t)
{
    const int form = form_of(t);
    return !t->misplaced && (form == SUN || form == MOON || form == STAR || form == CLOUD);
}

static void draw_any(world_scene *s, const thing *t, int ground)
{
    if (t->outline.class) draw_outlined(s, t, ground);
    else draw_thing(s, t, ground);
}

static void draw_plan(world_scene *s, const plan *p, dice *d)
{
    s->night = p->night;
    noise_tile(d, 4, 4, s->soft);
    noise_tile(d, 16, 3, s->fine);
    draw_layer(s, p, &p->layer[0]);
    for (int i = 0; i < p->things; i++)
        if (is_far(&p->thing[i])) draw_any(s, &p->thing[i], 0);
    int ground = 0;
    for (int i = 1; i < p->layers; i++) {
        int class = p->layer[i].class;
        draw_layer(s, p, &p->layer[i]);
        if (class == SNOW || class == SAND) ground = class;
    }
    for (int i = 0; i < p->things; i++)
        if (!is_far(&p->thing[i])) draw_any(s, &p->thing[i], ground);
    for (int i = 0; i < WORLD_PIXELS; i++) {
        tint *c = &s->pixel[i];
        *c = (tint){clamp01(c->r), clamp01(c->g), clamp01(c->b)};
    }
    if (p->style) apply_style(s, p->style, p->style_label, dice_next(d));
    for (int i = 0; i < WORLD_PIXELS; i++) {
        const tint c = s->pixel[i];
        s->rgb[3 * i] = (uint8_t)(clamp01(c.r) * 255 + 0.5f);
        s->rgb[3 * i + 1] = (uint8_t)(clamp01(c.g) * 255 + 0.5f);
        s->rgb[3 * i + 2] = (uint8_t)(clamp01(c.b) * 255 + 0.5f);
    }
}

/* ---- Phrases and captions ---------------------------------------------------------------------------------------- */

static void add_phrase(world_scene *s, int label, int class, int colour, int pattern)
{
    for (int i = 0; i < s->phrases; i++)
        if (s->phrase[i].id == label) return;
    world_phrase *f = &s->phrase[s->phrases++];
    *f = (world_phrase){.id = label, .class = (uint8_t) class, .colour = (uint8_t)colour, .pattern = (uint8_t)pattern};
    snprintf(f->text, sizeof f->text, "%s%s%s%s%s", colour ? world_colour_name(colour) : "", colour ? " " : "",
             world_pattern_name(pattern), pattern ? " " : "", world_class_name(class));
}

/* A phrase for each label that the plan has, in random order, the style last; false if one can hardly be seen. */
static bool make_phrases(world_scene *s, const plan *p, dice *d)
{
    int pixels[256] = {0}, order[MOST_LAYERS + MOST_THINGS], n = p->layers + p->things;
    for (int i = 0; i < WORLD_PIXELS; i++) pixels[s->label[i]]++;
    s->phrases = 0;
    for (int i = 0; i < n; i++) order[i] = i;
    for (int i = n - 1; i > 0; i--) {
        int k = roll(d, i + 1), swap = order[i];
        order[i] = order[k], order[k] = swap;
    }
    for (int i = 0; i < n; i++) {
        const layer *l = order[i] < p->layers ? &p->layer[order[i]] : NULL;
        const thing *t = l ? NULL : &p->thing[order[i] - p->layers];
        if (pixels[l ? l->label : t->label] < (l ? 300 : 90)) return false;
        if (l) add_phrase(s, l->label, l->class, l->colour, 0);
        else add_phrase(s, t->label, t->class, t->colour, t->pattern);
    }
    if (p->style_label && pixels[p->style_label] < 1200) return false;
    if (p->style) {
        world_phrase *f = &s->phrase[s->phrases++];
        *f = (world_phrase){.id = p->style_label ? p->style_label : -1, .style = (uint8_t)p->style};
        snprintf(f->text, sizeof f->text, "%s", world_style_name(p->style));
    }
    return true;
}

static void say(world_scene *s, const char *before, const char *text)
{
    size_t at = strlen(s->caption);
    snprintf(s->caption + at, sizeof s->caption - at, "%s%s", before, text);
}

static const char *article(const char *text)
{
    return strchr("aeiou", *text) ? "an " : "a ";
}

/* The things in one place as "a red house, a tree and a ball"; returns how many. */
static int say_things(world_scene *s, const char *before, bool sky)
{
    const world_phrase *list[WORLD_PHRASES];
    int n = 0;
    for (int i = 0; i < s->phrases; i++) {
        const world_phrase *f = &s->phrase[i];
        bool high = f->class && CLASS[f->class].zones == IN_SKY;
        if (f->class && !CLASS[f->class].stuff && high == sky) list[n++] = f;
    }
    for (int i = 0; i < n; i++) {
        say(s, i == 0 ? before : i == n - 1 ? " and " : ", ", article(list[i]->text));
        say(s, "", list[i]->text);
    }
    return n;
}

static const char *phrase_of(const world_scene *s, int label)
{
    for (int i = 0; i < s->phrases; i++)
        if (s->phrase[i].id == label && s->phrase[i].class) return s->phrase[i].text;
    return "";
}

/* Grounds from the nearest: "the sand, the sea and the mountain". */
static void say_grounds(world_scene *s, const plan *p, const char *before)
{
    for (int i = p->layers - 1; i > 0; i--) {
        say(s, i == p->layers - 1 ? before : i == 1 ? " and " : ", ", "the ");
        say(s, "", phrase_of(s, p->layer[i].label));
    }
}

static void make_caption(world_scene *s, const plan *p, const world_rules *r, dice *d)
{
    int kind = r->plain ? 0 : roll(d, 10);
    const char *style = p->style ? world_style_name(p->style) : NULL, *sky = phrase_of(s, p->layer[0].label);
    bool in_front = style && kind > 2 && chance(d, 50) && p->style != VAN_GOGH;
    *s->caption = 0;
    if (in_front) say(s, style, " of ");
    if (kind < 3) {
        for (int i = 0; i < s->phrases - (style != NULL); i++) say(s, i ? " " : "", s->phrase[i].text);
        if (style) say(s, r->plain || kind ? " " : ", ", style);
        return;
    }
    if (kind < 6) {
        bool things = say_things(s, "", false) > 0;
        say_grounds(s, p, things ? (p->kind == SEASIDE || p->kind == LAKESIDE ? " by " : " on ") : "");
        say(s, " under ", article(sky));
        say(s, "", sky);
        say_things(s, " with ", true);
    } else if (kind < 8) {
        say(s, article(sky), sky);
        say_things(s, " with ", true);
        say_grounds(s, p, " above ");
        say_things(s, " with ", false);
    } else {
        if (say_things(s, "", false)) say(s, ", ", "");
        if (say_things(s, "", true)) say(s, ", ", "");
        say_grounds(s, p, "");
        say(s, ", the ", sky);
    }
    if (style && !in_front) say(s, ", ", style);
}

/* The things of two labels get each other's maps: each fills the other's outline, where that stood. */
static void exchange_things(plan *p, const int label[2])
{
    const thing *of[2] = {NULL, NULL};
    for (int i = p->things - 1; i >= 0; i--)
        for (int k = 0; k < 2; k++)
            if (p->thing[i].label == label[k]) of[k] = &p->thing[i];
    if (!of[0] || !of[1]) return;
    const thing first[2] = {*of[0], *of[1]};
    for (int i = 0; i < p->things; i++)
        for (int k = 0; k < 2; k++) {
            thing *t = &p->thing[i];
            if (t->label != label[k]) continue;
            const thing *other = &first[1 - k];
            t->outline = (look){t->class, t->colour, t->pattern, t->seed};
            t->class = other->class, t->colour = other->colour, t->pattern = other->pattern, t->label = other->label;
            break;
        }
}

/* ---- Sets and world_draw ----------------------------------------------------------------------------------------- */

#define ALL_CLASSES ((UINT64_C(2) << WORLD_CLASSES) - 2)
#define LAYOUT_CLASSES ((UINT64_C(2) << NIGHT_SKY) - 2)
/* Of the things that layouts are not tuned on those that phrases name least: 0.9 to 2.05 percent of the phrases of 1500 scenes
   of "anything" each (balloon 2.07, lighthouse 2.8). */
#define RARE_CLASSES \
    (UINT64_C(1) << MUSHROOM | UINT64_C(1) << SNOWMAN | UINT64_C(1) << CACTUS | UINT64_C(1) << UMBRELLA | \
     UINT64_C(1) << TENT | UINT64_C(1) << FISH | UINT64_C(1) << STAR | UINT64_C(1) << WINDMILL)
/* Of the rare ones those that a model still painted wrong, and the known thing whose colours and patterns it missed most. */
#define HARD_CLASSES ((RARE_CLASSES & ~(UINT64_C(1) << TENT)) | UINT64_C(1) << BALL)

static inline const world_rules *world_set(const char *name)
{
    static const struct {
        const char *name;
        world_rules rules;
    } set[] = {
        {"text2image", {.classes = ALL_CLASSES, .attributes = 55, .styles = 30}},
        {"phrases", {.classes = ALL_CLASSES, .attributes = 55, .styles = 30, .plain = true}},
        {"anything",
         {.classes = ALL_CLASSES, .attributes = 75, .dyed = 50, .styles = 20, .misplaced = 40, .plain = true}},
        {"shapes",
         {.classes = ALL_CLASSES,
          .attributes = 75,
          .dyed = 50,
          .styles = 20,
          .misplaced = 40,
          .outlined = 40,
          .plain = true}},
        {"rare",
         {.classes = ALL_CLASSES,
          .wanted = RARE_CLASSES,
          .attributes = 80,
          .dyed = 30,
          .styles = 15,
          .misplaced = 30,
          .outlined = 30,
          .plain = true}},
        {"hard",
         {.classes = ALL_CLASSES,
          .wanted = HARD_CLASSES,
          .often = HARD_CLASSES,
          .attributes = 75,
          .dyed = 50,
          .styles = 15,
          .misplaced = 50,
          .outlined = 30,
          .plain = true}},
        {"layout", {.classes = LAYOUT_CLASSES, .plain = true}},
        {"layout-shapes", {.classes = LAYOUT_CLASSES, .misplaced = 30, .outlined = 30, .plain = true}},
        {"test", {.classes = LAYOUT_CLASSES, .plain = true, .held_out = true}},
        {"ood-object",
         {.classes = ALL_CLASSES, .wanted = ALL_CLASSES & ~LAYOUT_CLASSES, .plain = true, .held_out = true}},
        {"ood-attribute",
         {.classes = LAYOUT_CLASSES, .attributes = 60, .need_attribute = true, .plain = true, .held_out = true}},
        {"ood-style", {.classes = LAYOUT_CLASSES, .styles = 100, .plain = true, .held_out = true}},
        {"region-style",
         {.classes = LAYOUT_CLASSES, .styles = 100, .style_in_region = true, .plain = true, .held_out = true}},
    };
    for (size_t i = 0; i < sizeof set / sizeof *set; i++)
        if (strcmp(set[i].name, name) == 0) return &set[i].rules;
    return NULL;
}

static inline bool world_draw(uint64_t seed, const world_rules *rules, world_scene *out)
{
    dice d = {scramble(seed ^ UINT64_C(0x666c6973776f726c))};
    plan p;
    for (int tries = 0; tries < 2000; tries++) {
        if (!plan_scene(&p, &d, rules)) continue;
        dice before = d;
        draw_plan(out, &p, &d);
        if (!make_phrases(out, &p, &d)) continue;
        make_caption(out, &p, rules, &d);
        if (!rules->exchange[0]) return true;
        exchange_things(&p, rules->exchange);
        draw_plan(out, &p, &before);
        return true;
    }
    return false;
}

#ifndef WORLD_NO_MAIN

/* ---- The program ------------------------------------------------------------------------------------------------- */

#if defined(__unix__) || defined(__APPLE__)
#include <sys/stat.h>
#include <sys/types.h>
#define MAKE_DIRECTORY(path) ((void)mkdir(path, 0777))
#else
#define MAKE_DIRECTORY(path) ((void)(path)) /* C99 cannot: the folders must be there */
#endif

static const char HELP[] =
    "usage: world [--set NAME] [--seed S] [--count N] -o DIR\n"
    "       world [--set NAME] [--seed S] [--count N] --sheet FILE.png\n"
    "       world [--set NAME] [--seed S] --captions N\n"
    "       world --classes\n"
    "Draws 128 x 128 scenes of a small world, with label maps, layouts and captions; scene i has seed S + i.\n"
    "  --set NAME    text2image (default): everything; phrases: the same, captions of phrases alone; anything: phrases "
    "again,\n"
    "                with more colours, and things where they never stand; shapes: and things in each other's "
    "outlines;\n"
    "                rare: and always one of the things that few scenes have; hard: and those learnt worst three times "
    "as often\n"
    "                layout: plain names of classes 1 to 20; layout-shapes: the same, some things where they never "
    "stand or in\n"
    "                each other's outlines\n"
    "                held out from all: test (as layout), ood-object, ood-attribute, ood-style, region-style\n"
    "  --seed S      0 to 2^64-1; default 0\n"
    "  --count N     default 1; for a sheet 16\n"
    "  -o DIR        write DIR/pictures/000000.png, DIR/labels/000000.png (class numbers; + 100 for a class' second "
    "phrase),\n"
    "                DIR/layouts/000000.json (for flis), DIR/captions.txt (one line each)\n"
    "  --sheet FILE  one picture with every scene beside its label map, in rows of four\n"
    "  --captions N  N captions on stdout, for learnbpe\n"
    "  --classes     every class on stdout: number, name, stuff or thing, and whether the layout set has it\n"
    "  --help, --version\n"
    "exit status: 0 done, 1 failed (one sentence on stderr), 2 wrong usage\n";

typedef struct program {
    flis_ctx ctx;
    const world_rules *rules;
    uint64_t seed, count, captions;
    const char *out, *sheet;
    world_scene *scene;
} program;

static bool scene_number(program *p, uint64_t i)
{
    return world_draw(p->seed + i, p->rules, p->scene) ||
           flis_fail(&p->ctx, "seed %llu: the rules allow no scene", (unsigned long long)(p->seed + i));
}

static bool write_text(flis_ctx *ctx, const char *path, const char *text)
{
    FILE *file = fopen(path, "wb");
    bool good = file && fputs(text, file) >= 0;
    if (file && fclose(file) != 0) good = false;
    return good || flis_fail(ctx, "%s: cannot be written: %s", path, strerror(errno));
}

static bool write_layout(program *p, const char *path, const char *label)
{
    char text[2048];
    size_t at = (size_t)snprintf(text, sizeof text, "{\n  \"caption\": \"%s\",\n  \"text_label_mapping\": [\n",
                                 p->scene->caption);
    for (int i = 0; i < p->scene->phrases; i++)
        at += (size_t)snprintf(text + at, sizeof text - at, "    [\"%s\", %d]%s\n", p->scene->phrase[i].text,
                               p->scene->phrase[i].id, i + 1 < p->scene->phrases ? "," : "");
    snprintf(text + at, sizeof text - at, "  ],\n  \"layout_path\": \"%s\"\n}\n", label);
    return write_text(&p->ctx, path, text);
}

static bool write_scene(program *p, uint64_t i)
{
    char path[4096], label[64];
    flis_picture picture = {WORLD_SIDE, WORLD_SIDE, 3, p->scene->rgb},
                 map = {WORLD_SIDE, WORLD_SIDE, 1, p->scene->label};
    const char *const text[] = {"Description", p->scene->caption, NULL};
    snprintf(path, sizeof path, "%s/pictures/%06llu.png", p->out, (unsigned long long)i);
    bool good = flis_write_png(&p->ctx, path, &picture, text);
    snprintf(path, sizeof path, "%s/labels/%06llu.png", p->out, (unsigned long long)i);
    good = good && flis_write_png(&p->ctx, path, &map, NULL);
    snprintf(label, sizeof label, "../labels/%06llu.png", (unsigned long long)i);
    snprintf(path, sizeof path, "%s/layouts/%06llu.json", p->out, (unsigned long long)i);
    return good && write_layout(p, path, label);
}

static bool write_folder(program *p)
{
    static const char *const folder[] = {"", "/pictures", "/labels", "/layouts"};
    char path[4096];
    if (strlen(p->out) > 3900) return flis_fail(&p->ctx, "%.100s…: the name is too long", p->out);
    for (size_t i = 0; i < sizeof folder / sizeof *folder; i++) {
        snprintf(path, sizeof path, "%s%s", p->out, folder[i]);
        MAKE_DIRECTORY(path);
    }
    snprintf(path, sizeof path, "%s/captions.txt", p->out);
    FILE *captions = fopen(path, "wb");
    if (!captions) return flis_fail(&p->ctx, "%s: cannot be written: %s", path, strerror(errno));
    bool good = true;
    for (uint64_t i = 0; i < p->count && good; i++) {
        good = scene_number(p, i) && write_scene(p, i);
        if (good && fprintf(captions, "%s\n", p->scene->caption) < 0)
            good = flis_fail(&p->ctx, "%s: cannot be written", path);
    }
    if (fclose(captions) != 0) good = flis_fail(&p->ctx, "%s: cannot be written", path);
    return good;
}

/* Neighbouring numbers get hues far apart. */
static void label_colour(int label, uint8_t *rgb)
{
    float turn = (float)world_class_of(label) * 0.618034f, bright = label > WORLD_SECOND ? 0.75f : 1;
    for (int i = 0; i < 3; i++) rgb[i] = (uint8_t)(255 * bright * (0.55f + 0.44f * sine(turn + (float)i / 3)));
}

static bool write_sheet(program *p)
{
    enum { GAP = 4, PAIR = 2 * WORLD_SIDE + GAP * 2, ROW = WORLD_SIDE + GAP };
    size_t columns = p->count < 4 ? (size_t)p->count : 4, rows = (size_t)((p->count + 3) / 4);
    if (p->count > 4096)
        return flis_fail(&p->ctx, "%s: got %llu scenes for a sheet, wanted at most 4096", p->sheet,
                         (unsigned long long)p->count);
    flis_picture sheet = {columns * PAIR, rows * ROW, 3, NULL};
    sheet.pixels = flis_alloc(&p->ctx, sheet.width * sheet.height, 3);
    if (!sheet.pixels) return false;
    memset(sheet.pixels, 255, sheet.width * sheet.height * 3);
    for (uint64_t i = 0; i < p->count && scene_number(p, i); i++)
        for (size_t k = 0; k < WORLD_PIXELS; k++) {
            size_t x = (size_t)(i % 4) * PAIR + k % WORLD_SIDE, y = (size_t)(i / 4) * ROW + k / WORLD_SIDE;
            uint8_t *at = sheet.pixels + (y * sheet.width + x) * 3;
            memcpy(at, p->scene->rgb + 3 * k, 3);
            label_colour(p->scene->label[k], at + 3 * WORLD_SIDE);
        }
    bool good = flis_ok(&p->ctx) && flis_write_png(&p->ctx, p->sheet, &sheet, NULL);
    free(sheet.pixels);
    return good;
}

static bool print_captions(program *p)
{
    for (uint64_t i = 0; i < p->captions && scene_number(p, i); i++)
        if (puts(p->scene->caption) < 0) return flis_fail(&p->ctx, "stdout: cannot be written");
    return flis_ok(&p->ctx);
}

static bool print_classes(flis_ctx *ctx)
{
    for (int c = 1; c <= WORLD_CLASSES; c++)
        printf("%d\t%s\t%s\t%s\n", c, world_class_name(c), world_is_stuff(c) ? "stuff" : "thing",
               CLASS[c].layout ? "layout" : "new");
    return fflush(stdout) == 0 || flis_fail(ctx, "stdout: cannot be written");
}

static int misused(const char *what, const char *why)
{
    fprintf(stderr, "world: %s%s (see world --help)\n", what, why);
    return 2;
}

/* The whole string as a decimal number below 2^64. */
static bool whole(const char *text, uint64_t *out)
{
    uint64_t value = 0;
    for (const char *c = text; *c; c++) {
        if (*c < '0' || *c > '9' || value > (UINT64_MAX - (uint64_t)(*c - '0')) / 10) return false;
        value = value * 10 + (uint64_t)(*c - '0');
    }
    *out = value;
    return *text != 0;
}

int main(int argc, char **argv)
{
    program p = {.rules = world_set("text2image")};
    bool counted = false, classes = false;
    for (int i = 1; i < argc; i++) {
        const char *name = argv[i], *value = i + 1 < argc ? argv[i + 1] : NULL;
        if (strcmp(name, "--help") == 0) return fputs(HELP, stdout) < 0;
        if (strcmp(name, "--version") == 0) return puts("world " FLIS_VERSION) < 0;
        if (strcmp(name, "--classes") == 0) {
            classes = true;
            continue;
        }
        bool known = true, good = true;
        if (strcmp(name, "--set") == 0) good = value && (p.rules = world_set(value)) != NULL;
        else if (strcmp(name, "--seed") == 0) good = value && whole(value, &p.seed);
        else if (strcmp(name, "--count") == 0) good = value && (counted = whole(value, &p.count)) && p.count > 0;
        else if (strcmp(name, "--captions") == 0) good = value && whole(value, &p.captions) && p.captions > 0;
        else if (strcmp(name, "-o") == 0) good = (p.out = value) != NULL;
        else if (strcmp(name, "--sheet") == 0) good = (p.sheet = value) != NULL;
        else known = false;
        if (!known) return misused(name, ": not an option");
        if (!good) return misused(name, value ? ": its value is not one" : " wants a value");
        i++;
    }
    if (classes + (p.captions > 0) + (p.out != NULL) + (p.sheet != NULL) != 1)
        return misused("wanted one of -o DIR, --sheet FILE.png, --captions N and --classes", "");
    if (!counted) p.count = p.sheet ? 16 : 1;
    flis_init(&p.ctx);
    p.scene = flis_alloc(&p.ctx, 1, sizeof *p.scene);
    bool done = p.scene && (classes      ? print_classes(&p.ctx)
                            : p.captions ? print_captions(&p)
                            : p.out      ? write_folder(&p)
                                         : write_sheet(&p));
    if (done && fflush(stdout) != 0) done = flis_fail(&p.ctx, "stdout: cannot be written");
    if (!done) fprintf(stderr, "world: %s\n", p.ctx.error);
    free(p.scene);
    flis_free(&p.ctx);
    return done ? 0 : 1;
}
#endif
