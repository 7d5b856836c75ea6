/* draw_stuff.c - draws stuff, which fills a region: sky, mountains, forest, water and grounds. */
#include "tools/world/internal.h"

#include <math.h>

/* A natural colour in the hue of a named one: a luma below `middle` gives a shade of it, above a tint. */
static tint dyed(tint c, int colour, float middle)
{
    if (!colour) return c;
    tint d = world_colour_tint(colour);
    float k = luma(c) / middle;
    return k < 1 ? scaled(d, 0.35f + 0.65f * k) : mixed(d, (tint){1, 1, 1}, clamp01((k - 1) * 0.9f));
}

void draw_sky(world_scene *s, const layer *l)
{
    static const tint zenith[3] = {{0.22f, 0.50f, 0.88f}, {0.30f, 0.60f, 0.92f}, {0.16f, 0.42f, 0.80f}};
    static const tint rim[3] = {{0.76f, 0.90f, 0.98f}, {0.85f, 0.94f, 0.97f}, {0.66f, 0.84f, 0.96f}};
    dice d = {l->seed};
    int kind = roll(&d, 3);
    float ox = spread(&d, 0, 64);
    float oy = spread(&d, 0, 64);
    float wisps = spread(&d, 0.2f, 0.7f);
    for (int y = 0; y < l->bottom; y++)
        for (int x = 0; x < WORLD_SIDE; x++) {
            float t = (float)y / (float)l->bottom;
            tint c = mixed(zenith[kind], rim[kind], t * (1.6f - 0.6f * t));
            float n = texture(s->soft, ox + (float)x * 0.22f, oy + (float)y * 0.62f);
            c = lighter(c, wisps * smooth((n - 0.5f) * 3.2f));
            put(s, x, y, dyed(c, l->colour, 0.64f), 1, l->label, true);
        }
}

void draw_night_sky(world_scene *s, const layer *l)
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

/* Peaks from back to front. Each has a lit and a dark side with an irregular ridge between them, and snow on top. */
void draw_mountain(world_scene *s, const layer *l)
{
    dice d = {l->seed};
    peak p[4];
    int n = 2 + roll(&d, 3);
    int kind = roll(&d, 3);
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

void draw_forest(world_scene *s, const layer *l)
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

/* Water: streaks get flatter and denser towards the far shore; below the sun or the moon the water glitters. */
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

void draw_ground(world_scene *s, const layer *l, float glitter)
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

/* An ellipse between l->y and l->bottom, which may extend beyond the picture. */
void draw_lake(world_scene *s, const layer *l, float glitter)
{
    dice d = {l->seed};
    float cx = spread(&d, 44, 84);
    dice_next(&d); /* unused, but drawn since the first scenes */
    float rx = spread(&d, 58, 90);
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

/* A road across the picture with a dashed line, or a winding one to the horizon. */
void draw_road(world_scene *s, const layer *l, bool country)
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
