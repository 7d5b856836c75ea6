/* styles.c - filters from s->pixel (which they may overwrite) to s->other. */
#include "tools/world/internal.h"

#include <math.h>
#include <string.h>

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

/* White paper, with lines where a pixel is darker than its surroundings, and hatching in the shadows. */
static void pencil(world_scene *s)
{
    for (int i = 0; i < WORLD_PIXELS; i++)
        s->plane[0][i] = sqrtf(luma(s->pixel[i])); /* without the root, nights would be black */
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

/* 32 x 32 tiles of slightly varied brightness, with dark joints. */
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

/* Distorted, blurred colours, darker along edges, on paper that shows through. */
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

/* Glowing outlines in the saturated colour of what they enclose, on a dark ground. */
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
        float *glow = s->plane[1],
              *room = (float *)s->pixel + WORLD_PIXELS; /* the first third of s->pixel holds luma */
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

/* Cells around 9 x 9 scattered points, cut at the borders of regions; each piece has its mean colour and a lead border. */
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

/* Brush strokes along a swirling flow. Bristles are averaged over the whole stroke, colours over its middle only, so that things
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

/* Flat tones, halftone dots in the shadows, ink along the edges of regions and strong contrasts. */
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
void apply_style(world_scene *s, int style, int only, uint64_t seed)
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
