/* plan.c - decides what a scene contains, and where, before anything is drawn. */
#include "tools/world/internal.h"

#include <string.h>

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

/* One of the given grounds that the rules allow; 0: none. */
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

/* A part of the picture where things of some classes may stand: rows and columns of their foot. */
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

/* The area that both frames cover, as a share of the smaller one. */
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

/* Finds a position and a size in the zone; false: none after a few attempts. */
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

/* Some things fill the outline of another class. Such a thing is drawn in front of distant ones, even in the sun's outline. */
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

/* A class has at most two phrases in a scene: a third thing of the class gets the attributes of the first. */
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
    for (int i = 1; i < p->things; i++) /* nearer things are drawn later */
        for (int k = i; k > 0 && p->thing[k - 1].y > p->thing[k].y; k--) {
            thing swap = p->thing[k];
            p->thing[k] = p->thing[k - 1], p->thing[k - 1] = swap;
        }
}

/* FNV-1a-64 of what determines the label map. */
uint64_t composition(const plan *p)
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

/* One bit of its hash decides whether a composition is held out, so no held-out scene can have been trained on. */
bool plan_scene(plan *p, dice *d, const world_rules *r)
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

/* The things of two labels swap their maps: each fills the outline of the other, at the other's position. */
void exchange_things(plan *p, const int label[2])
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
