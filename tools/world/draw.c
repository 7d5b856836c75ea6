/* draw.c - draws a plan: the picture and its label map. */
#include "tools/world/internal.h"

#include <math.h>
#include <string.h>

/* The colour of the nearest pixel with the label, searched on growing squares around (x, y). */
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

/* A thing in the outline of another: drawn at the outline's size and cut to it; gaps get the colour of the nearest pixel. */
void draw_outlined(world_scene *s, const thing *t, int ground)
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

void draw_plan(world_scene *s, const plan *p, dice *d)
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
