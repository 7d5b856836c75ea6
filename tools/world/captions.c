/* captions.c - the phrases of a scene, and a caption that contains them. */
#include "tools/world/internal.h"

#include <stdio.h>
#include <string.h>

static void add_phrase(world_scene *s, int label, int class, int colour, int pattern)
{
    for (int i = 0; i < s->phrases; i++)
        if (s->phrase[i].id == label) return;
    world_phrase *f = &s->phrase[s->phrases++];
    *f = (world_phrase){.id = label, .class = (uint8_t) class, .colour = (uint8_t)colour, .pattern = (uint8_t)pattern};
    snprintf(f->text, sizeof f->text, "%s%s%s%s%s", colour ? world_colour_name(colour) : "", colour ? " " : "",
             world_pattern_name(pattern), pattern ? " " : "", world_class_name(class));
}

/* One phrase per label of the plan, in random order, the style last. False: a region has too few pixels to be recognised. */
bool make_phrases(world_scene *s, const plan *p, dice *d)
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

/* Appends the things in the sky, or all others, as "a red house, a tree and a ball". Returns their number. */
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

/* Appends the grounds, nearest first: "the sand, the sea and the mountain". */
static void say_grounds(world_scene *s, const plan *p, const char *before)
{
    for (int i = p->layers - 1; i > 0; i--) {
        say(s, i == p->layers - 1 ? before : i == 1 ? " and " : ", ", "the ");
        say(s, "", phrase_of(s, p->layer[i].label));
    }
}

void make_caption(world_scene *s, const plan *p, const world_rules *r, dice *d)
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
