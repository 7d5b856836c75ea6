/* brushes.c - fills for shapes, and how they are painted into a scene. */
#include "tools/world/internal.h"

#include <math.h>

brush across(int label, tint from, tint to, float x0, float y0, float x1, float y1)
{
    float dx = x1 - x0, dy = y1 - y0, k = 1 / (dx * dx + dy * dy + 1e-6f);
    return (brush){.label = label, .from = from, .to = to, .x0 = x0, .y0 = y0, .gx = dx * k, .gy = dy * k, .alpha = 1};
}

brush flat(int label, tint c)
{
    return across(label, c, c, 0, 0, 1, 0);
}
brush down(int label, tint from, tint to, float y0, float y1)
{
    return across(label, from, to, 0, y0, 0, y1);
}
brush around(int label, tint from, tint to, float x, float y, float r)
{
    return (brush){.label = label, .from = from, .to = to, .radial = true, .x0 = x, .y0 = y, .gx = 1 / r, .alpha = 1};
}

brush grained(brush b, float grain, float x, float y)
{
    b.grain = grain, b.grain_x = x, b.grain_y = y;
    return b;
}

brush rimmed(brush b, float rim, float width)
{
    b.rim = rim, b.rim_width = width;
    return b;
}

/* The share of the pattern's other colour at (x, y). Stripes are diagonal, spots lie on a staggered grid. */
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
    float s =
        (u * (1.25f - 0.25f * u * u) + 1) * 0.5f * (float)b->gores; /* gores look narrower at the sides of the sphere */
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

void put(world_scene *s, int x, int y, tint c, float alpha, int label, bool glow)
{
    tint *p = &s->pixel[y * WORLD_SIDE + x];
    if (s->night && !glow) c = (tint){c.r * MOONLIGHT.r, c.g * MOONLIGHT.g, c.b * MOONLIGHT.b};
    /* An opaque pixel must not depend on the one below, not even by rounding. */
    *p = alpha >= 1 ? c : mixed(*p, c, alpha);
    if (label && alpha >= 0.5f) s->label[y * WORLD_SIDE + x] = (uint8_t)label;
}

void paint(world_scene *s, shape form, brush b)
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

void shadow(world_scene *s, float x, float y, float rx, float ry, float alpha)
{
    brush b = flat(0, (tint){0.05f, 0.06f, 0.12f});
    b.alpha = alpha;
    paint(s, feathered(ellipse(x, y, rx, ry), ry * 1.2f), b);
}

void shine(world_scene *s, float x, float y, float r, tint c, float alpha)
{
    bounds in = clip_bounds(x - r, y - r, x + r, y + r);
    for (int j = in.y0; j < in.y1; j++)
        for (int i = in.x0; i < in.x1; i++) {
            float dx = (float)i + 0.5f - x, dy = (float)j + 0.5f - y, k = 1 - (dx * dx + dy * dy) / (r * r);
            if (k > 0) put(s, i, j, c, alpha * k * k, 0, true);
        }
}
