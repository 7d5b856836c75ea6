/* shapes.c - shapes as signed distances. */
#include "tools/world/internal.h"

#include <math.h>

shape ellipse(float x, float y, float rx, float ry)
{
    return (shape){.kind = ELLIPSE, .x = x, .y = y, .rx = rx, .ry = ry, .cos = 1, .feather = 1};
}

shape disc(float x, float y, float r)
{
    return ellipse(x, y, r, r);
}

shape box(float x0, float y0, float x1, float y1, float round)
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

shape stroke(float x0, float y0, float x1, float y1, float r0, float r1)
{
    return (shape){.kind = STROKE, .x = x0, .y = y0, .rx = x1, .ry = y1, .round = r0, .taper = r1, .feather = 1};
}

shape polygon(int corners, const float (*corner)[2], float x, float y, float sx, float sy)
{
    shape s = {.kind = POLYGON, .corners = corners, .feather = 1};
    for (int i = 0; i < corners; i++) {
        s.corner[i][0] = x + sx * corner[i][0];
        s.corner[i][1] = y + sy * corner[i][1];
    }
    return s;
}

shape turned(shape s, float turn)
{
    float c = sine(turn + 0.25f), n = sine(turn), length = sqrtf(c * c + n * n);
    s.cos = c / length;
    s.sin = n / length;
    return s;
}

shape feathered(shape s, float feather)
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
    /* An ellipse's distance to first order: k (k - 1) / |gradient|, k the radius in units of the half sides. */
    u /= s->rx, v /= s->ry;
    float k = sqrtf(u * u + v * v), gx = u / s->rx, gy = v / s->ry;
    return k * (k - 1) / (sqrtf(gx * gx + gy * gy) + 1e-6f);
}

float distance(const shape *s, float x, float y)
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

bounds clip_bounds(float x0, float y0, float x1, float y1)
{
    float most = WORLD_SIDE;
    bounds b = {x0 > 0 ? (int)(x0 < most ? x0 : most) : 0, y0 > 0 ? (int)(y0 < most ? y0 : most) : 0,
                x1 < most ? (int)(x1 > 0 ? x1 + 1 : 0) : WORLD_SIDE,
                y1 < most ? (int)(y1 > 0 ? y1 + 1 : 0) : WORLD_SIDE};
    return b;
}

bounds shape_bounds(const shape *s)
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
