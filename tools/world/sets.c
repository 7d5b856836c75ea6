/* sets.c - the named sets of rules, and drawing a scene of one. */
#include "tools/world/internal.h"

#include <string.h>

const world_rules *world_set(const char *name)
{
    static const struct {
        const char *name;
        world_rules rules;
    } set[] = {
        {"text2image", {.classes = ALL_CLASSES, .attributes = 55, .styles = 30}},
        {"phrases", {.classes = ALL_CLASSES, .attributes = 55, .styles = 30, .plain = true}},
        {"anything",
         {.classes = ALL_CLASSES, .attributes = 75, .dyed = 50, .styles = 20, .misplaced = 40, .plain = true}},
        {"shapes",
         {.classes = ALL_CLASSES,
          .attributes = 75,
          .dyed = 50,
          .styles = 20,
          .misplaced = 40,
          .outlined = 40,
          .plain = true}},
        {"rare",
         {.classes = ALL_CLASSES,
          .wanted = RARE_CLASSES,
          .attributes = 80,
          .dyed = 30,
          .styles = 15,
          .misplaced = 30,
          .outlined = 30,
          .plain = true}},
        {"hard",
         {.classes = ALL_CLASSES,
          .wanted = HARD_CLASSES,
          .often = HARD_CLASSES,
          .attributes = 75,
          .dyed = 50,
          .styles = 15,
          .misplaced = 50,
          .outlined = 30,
          .plain = true}},
        {"layout", {.classes = LAYOUT_CLASSES, .plain = true}},
        {"layout-shapes", {.classes = LAYOUT_CLASSES, .misplaced = 30, .outlined = 30, .plain = true}},
        {"test", {.classes = LAYOUT_CLASSES, .plain = true, .held_out = true}},
        {"ood-object",
         {.classes = ALL_CLASSES, .wanted = ALL_CLASSES & ~LAYOUT_CLASSES, .plain = true, .held_out = true}},
        {"ood-attribute",
         {.classes = LAYOUT_CLASSES, .attributes = 60, .need_attribute = true, .plain = true, .held_out = true}},
        {"ood-style", {.classes = LAYOUT_CLASSES, .styles = 100, .plain = true, .held_out = true}},
        {"region-style",
         {.classes = LAYOUT_CLASSES, .styles = 100, .style_in_region = true, .plain = true, .held_out = true}},
    };
    for (size_t i = 0; i < sizeof set / sizeof *set; i++)
        if (strcmp(set[i].name, name) == 0) return &set[i].rules;
    return NULL;
}

bool world_draw(uint64_t seed, const world_rules *rules, world_scene *out)
{
    dice d = {scramble(seed ^ UINT64_C(0x666c6973776f726c))};
    plan p;
    for (int tries = 0; tries < 2000; tries++) {
        if (!plan_scene(&p, &d, rules)) continue;
        dice before = d;
        draw_plan(out, &p, &d);
        if (!make_phrases(out, &p, &d)) continue;
        make_caption(out, &p, rules, &d);
        if (!rules->exchange[0]) return true;
        exchange_things(&p, rules->exchange);
        draw_plan(out, &p, &before);
        return true;
    }
    return false;
}
