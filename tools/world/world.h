/* world.h - the small world: 128 x 128 scenes with label maps and captions, any number of them, each from a seed.
 *
 * The small model learns here what Stable Diffusion learned from photographs, so that the paper's experiments can be
 * repeated within hours. Text to image sees every class, colour, pattern and style; the fine-tuning for layouts sees plain
 * class names of a subset; everything else is out of distribution, and the label maps show whether a model got it right.
 *
 * A scene is a pure function of (seed, rules), the same bytes on every machine: the world has its own random numbers, and
 * of floating point it uses only + - * / sqrt and floor, each of which IEEE 754 rounds exactly.
 *
 *   #include "tools/world/world.h"
 *   world_scene *scene = malloc(sizeof *scene);
 *   if (world_draw(7, world_set("layout"), scene)) puts(scene->caption);
 *
 * Coordinates: x to the right, y down, in pixels; the pixel in column i covers i to i + 1. Colours: 0 to 1, as stored (sRGB).
 */
#ifndef TOOLS_WORLD_H
#define TOOLS_WORLD_H

#include "flis.h"
#include "tools/world/dice.h"

enum {
    WORLD_SIDE = 128,
    WORLD_PIXELS = WORLD_SIDE * WORLD_SIDE,
    WORLD_PHRASES = 16, /* at most, in one scene */
    WORLD_SECOND = 100, /* label of a class's second phrase ("red ball" beside "blue ball"): class + 100 */
    WORLD_TILE = 64     /* side of the noise tiles */
};

/* The number of a class is the label of its pixels (world_class_of(label) where a class has two phrases). */
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

/* What may be drawn. Take one of world_set's and change a copy where needed. */
typedef struct world_rules {
    uint64_t classes; /* bit c: class c may appear */
    uint64_t wanted;  /* at least one of these appears; 0: no such condition */
    uint64_t often;   /* these are picked three times as often as other things that could stand in the same zone */
    int attributes;   /* percent of the things that could have a colour or pattern that get one */
    int dyed;         /* percent of the stuff that could have a colour; 0: a third of attributes */
    int misplaced;    /* percent of things in a place where the class never is: a house in the sky, the sun on grass */
    int outlined;     /* percent of things that fill the outline of another: a boat as round as the sun */
    int styles;       /* percent of scenes with a style */
    bool style_in_region; /* the style covers one stuff region; else the whole picture */
    bool need_attribute;  /* at least one phrase has a colour or pattern */
    bool held_out;        /* only compositions kept from training; else only the others */
    bool plain;           /* the caption is the phrases alone, joined by blanks, as layouts are prompted */
    int exchange[2];      /* labels of things that swap their maps once the scene is complete; 0: none */
} world_rules;

typedef struct world_phrase {
    char text[40];                         /* "red striped ball", "sky", "pencil drawing" */
    int id;                                /* its label in the map; -1: the whole picture */
    uint8_t class, colour, pattern, style; /* the meaning of the text; class 0: a style */
} world_phrase;

typedef struct tint {
    float r, g, b;
} tint;

/* A scene, and the buffers to draw it in (about 1 MB: allocate it; one per thread). */
typedef struct world_scene {
    uint8_t rgb[WORLD_PIXELS * 3]; /* [y][x][3] */
    uint8_t label[WORLD_PIXELS];   /* [y][x], from 1; every label has a phrase */
    int phrases;
    world_phrase phrase[WORLD_PHRASES]; /* in the caption's order if that is plain; at most 75 tokens in all */
    char caption[512];
    bool night;
    /* buffers */
    tint pixel[WORLD_PIXELS], other[WORLD_PIXELS], before[WORLD_PIXELS];
    float plane[2][WORLD_PIXELS];
    uint8_t below[WORLD_PIXELS], outline[WORLD_PIXELS];
    float soft[WORLD_TILE * WORLD_TILE], fine[WORLD_TILE * WORLD_TILE]; /* noise, 0 to 1, that tiles without seams */
} world_scene;

/* ---- Scenes (sets.c) --------------------------------------------------------------------------------------------- */

/* text2image, phrases, anything, shapes, rare, hard, layout, layout-shapes, test, ood-object, ood-attribute, ood-style,
   region-style; NULL: no such set. */
const world_rules *world_set(const char *name);
/* False: no scene satisfies the rules (or hardly any does). */
bool world_draw(uint64_t seed, const world_rules *rules, world_scene *out);

/* ---- Names (names.c) --------------------------------------------------------------------------------------------- */

const char *world_class_name(int class);
const char *world_colour_name(int colour);
const char *world_pattern_name(int pattern);
const char *world_style_name(int style);
static inline int world_class_of(int label)
{
    return label > WORLD_SECOND ? label - WORLD_SECOND : label;
}
bool world_is_stuff(int class);      /* fills its region (sky, sea); else a thing (boat, sun) */
bool world_has_patterns(int class);  /* may be striped or spotted */
bool world_in_layout_set(int class); /* the fine-tuning for layouts sees the class */
tint world_colour_tint(int colour);  /* the reference colour of a name */

/* ---- Colour (colour.c) ------------------------------------------------------------------------------------------- */

static inline float luma(tint c)
{
    return 0.299f * c.r + 0.587f * c.g + 0.114f * c.b;
}
float sine(float t);         /* sin(2 pi t), to 0.001, from exactly rounded operations */
extern const tint MOONLIGHT; /* what colours are multiplied by at night */

/* ---- Autoencoder (autoencoder.c) --------------------------------------------------------------------------------- */

/* A picture [side][side][3] encoded to the mean of its posterior and decoded, in place. */
bool through_autoencoder(flis_ctx *ctx, const flis_vae *vae, size_t side, uint8_t *rgb);

#endif
