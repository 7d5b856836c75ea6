/* names.c - the small world's vocabulary: classes, colours, patterns, styles. */
#include "tools/world/internal.h"

#define COLOUR(c) (1u << (c))
#define ANY_COLOUR 0x3FEu

const class_row CLASS[WORLD_CLASSES + 1] = {
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

const colour_row COLOURS[WORLD_COLOURS + 1] = {
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

const char *world_class_name(int class)
{
    return CLASS[class].name;
}
const char *world_colour_name(int colour)
{
    return COLOURS[colour].name;
}
const char *world_pattern_name(int pattern)
{
    return PATTERN_NAME[pattern];
}
const char *world_style_name(int style)
{
    return STYLE_NAME[style];
}
bool world_is_stuff(int class)
{
    return CLASS[class].stuff;
}
bool world_has_patterns(int class)
{
    return CLASS[class].patterns != 0;
}

bool world_in_layout_set(int class)
{
    return CLASS[class].layout;
}

tint world_colour_tint(int colour)
{
    return COLOURS[colour].value;
}
