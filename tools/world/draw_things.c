/* draw_things.c - draws things, which stand at a position: boats, houses, trees. */
#include "tools/world/internal.h"

#include <string.h>

/* What the function of a class needs to draw a thing. */
typedef struct subject {
    world_scene *s;
    const thing *t;
    dice d;
    float x, y, k; /* middle of its foot; size */
    int label;
    int ground; /* class of the land it stands on: trees are firs in snow, palms on sand */
    tint main;
} subject;

/* The colour of a thing whose phrase names none; never exactly a named one. */
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
    if (t->pattern) { /* a pattern without a named colour: any colour */
        int i = 1 + roll(d, WHITE - 1);
        c = jittered(d, COLOURS[i].value, 0.03f);
    }
    return c;
}

/* The thing's surface with its pattern, lit from the upper left. */
static brush surface(const subject *m, float x0, float y0, float x1, float y1)
{
    brush b = across(m->label, lighter(m->main, 0.14f), scaled(m->main, 0.74f), x0, y0, x1, y1);
    bool pale = luma(m->main) > 0.72f;
    b.pattern = m->t->pattern;
    b.paint[0] = pale ? (tint){0.24f, 0.27f, 0.38f} : (tint){0.97f, 0.97f, 0.95f};
    b.period = b.pattern == STRIPED ? 10 : 11;
    b.cx = m->x, b.cy = m->y;
    return b;
}

static brush sphere(const subject *m, float x, float y, float r)
{
    brush b = surface(m, 0, 0, 1, 0);
    b.from = lighter(m->main, 0.34f), b.to = scaled(m->main, 0.62f);
    b.radial = true, b.x0 = x - r * 0.35f, b.y0 = y - r * 0.4f, b.gx = 1 / (r * 1.6f);
    b.cx = x, b.cy = y, b.rx = b.ry = r;
    return b;
}

static const tint WHITE_PAINT = {0.97f, 0.97f, 0.95f}, DARK = {0.16f, 0.15f, 0.17f}, WOOD = {0.45f, 0.30f, 0.19f};

static void draw_sun(subject *m)
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

static void draw_moon(subject *m)
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

static void draw_star(subject *m)
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

static void draw_cloud(subject *m)
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

static void draw_bird(subject *m)
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

static void draw_balloon(subject *m)
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

static void draw_boat(subject *m)
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

static void draw_fish(subject *m)
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

static void window(subject *m, float x, float y, float half, float tall)
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

static void draw_house(subject *m)
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

/* h: height; c: colour of the needles. Tiers from bottom to top, each lit from the left. */
void conifer(world_scene *s, int label, float x, float y, float h, tint c, bool snowy)
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

static void palm(subject *m)
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

static void draw_tree(subject *m)
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

static void draw_car(subject *m)
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

static void draw_rock(subject *m)
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

static void draw_flower(subject *m)
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

static void draw_ball(subject *m)
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

static void draw_mushroom(subject *m)
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

static void draw_snowman(subject *m)
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

static void draw_lighthouse(subject *m)
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

static void draw_cactus(subject *m)
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

static void draw_umbrella(subject *m)
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

static void draw_tent(subject *m)
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

static void draw_windmill(subject *m)
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

void draw_thing(world_scene *s, const thing *t, int ground)
{
    static void (*const draw[WORLD_CLASSES + 1])(subject *) = {
        [BOAT] = draw_boat,         [SUN] = draw_sun,           [HOUSE] = draw_house,
        [TREE] = draw_tree,         [CAR] = draw_car,           [CLOUD] = draw_cloud,
        [ROCK] = draw_rock,         [FLOWER] = draw_flower,     [BALL] = draw_ball,
        [BIRD] = draw_bird,         [MOON] = draw_moon,         [BALLOON] = draw_balloon,
        [MUSHROOM] = draw_mushroom, [SNOWMAN] = draw_snowman,   [LIGHTHOUSE] = draw_lighthouse,
        [CACTUS] = draw_cactus,     [UMBRELLA] = draw_umbrella, [TENT] = draw_tent,
        [FISH] = draw_fish,         [STAR] = draw_star,         [WINDMILL] = draw_windmill,
    };
    subject m = {.s = s,
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
