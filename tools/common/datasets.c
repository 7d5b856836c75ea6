/* datasets.c - the data sets that the authors train and evaluate on, as they lie on disk: names of the classes, void labels,
 * folders of label maps, and lists of pictures. Names: FreestyleNet@5dcb8b8 ldm/data/COCO.py COCO_dict and ldm/data/ADE20K.py
 * ADE20K_dict, whose words differ from the data sets' own where those would be ambiguous. Folders and void labels: the classes
 * COCOVal and ADE20KVal of scripts/LIS.py, COCOBase and ADE20KBase of ldm/data.
 */
#include "tools/common/common.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

/* Labels 0 to 181, in their order. */
static const char COCO[] =
    "person, bicycle, car, motorcycle, airplane, bus, train, truck, boat, traffic light, fire hydrant, street "
    "sign, stop sign, parking meter, bench, bird, cat, dog, horse, sheep, cow, elephant, bear, zebra, giraffe, "
    "hat, backpack, umbrella, shoe, eye glasses, handbag, tie, suitcase, frisbee, skis, snowboard, sports "
    "ball, kite, baseball bat, baseball glove, skateboard, surfboard, tennis racket, bottle, plate, wine "
    "glass, cup, fork, knife, spoon, bowl, banana, apple, sandwich, orange, broccoli, carrot, hot dog, pizza, "
    "donut, cake, chair, couch, potted plant, bed, mirror, dining table, window, desk, toilet, door, tv, "
    "laptop, mouse, remote, keyboard, cell phone, microwave, oven, toaster, sink, refrigerator, blender, book, "
    "clock, vase, scissors, teddy bear, hair drier, toothbrush, hair brush, banner, blanket, branch, bridge, "
    "building, bush, cabinet, cage, cardboard, carpet, ceiling, tile ceiling, cloth, clothes, clouds, counter, "
    "cupboard, curtain, desk, dirt, door, fence, marble floor, floor, stone floor, tile floor, wood floor, "
    "flower, fog, food, fruit, furniture, grass, gravel, ground, hill, house, leaves, light, mat, metal, "
    "mirror, moss, mountain, mud, napkin, net, paper, pavement, pillow, plant, plastic, platform, "
    "playingfield, railing, railroad, river, road, rock, roof, rug, salad, sand, sea, shelf, sky, skyscraper, "
    "snow, solid, stairs, stone, straw, structural, table, tent, textile, towel, tree, vegetable, brick wall, "
    "concrete wall, wall, panel wall, stone wall, tile wall, wood wall, water, waterdrops, blind window, "
    "window, wood";

/* Labels 1 to 150. */
static const char ADE20K[] =
    "wall, building, sky, floor, tree, ceiling, road, bed, window, grass, cabinet, sidewalk, person, ground, "
    "door, table, mountain, plant, curtain, chair, car, water, painting, sofa, shelf, house, sea, mirror, "
    "carpet, field, armchair, seat, fence, desk, stone, wardrobe, lamp, bathtub, railing, cushion, pedestal, "
    "box, pillar, signboard, dresser, counter, sand, sink, skyscraper, fireplace, refrigerator, grandstand, "
    "path, stairs, runway, showcase, pool table, pillow, screen door, stairway, river, bridge, bookcase, "
    "blinds, coffee table, toilet, flower, book, hill, bench, countertop, stove, palm, kitchen, computer, "
    "swivel chair, boat, bar, arcade machine, hovel, bus, towel, light, truck, tower, chandelier, awning, "
    "streetlight, booth, television, airplane, dirt road, apparel, pole, land, bannister, escalator, pouf, "
    "bottle, sideboard, poster, stage, van, ship, fountain, conveyor, canopy, washer, plaything, swimming "
    "pool, stool, barrel, basket, waterfall, tent, bag, motorbike, cradle, oven, ball, food, stair, tank, "
    "brand, microwave, pot, animal, bicycle, lake, dishwasher, screen, blanket, sculpture, hood, sconce, vase, "
    "traffic light, tray, ashcan, fan, pier, screen, plate, monitor, bulletin board, shower, radiator, glass, "
    "clock, flag";

static const struct known {
    const char *name, *classes; /* separated by a comma and a blank */
    int first, void_label;
    const char *labels[2]; /* training, validation */
    const char *word;      /* in the paths of training pictures */
} KNOWN[] = {
    {"coco", COCO, 0, 255, {"stuffthingmaps_trainval2017/train2017", "stuffthingmaps_trainval2017/val2017"}, "train"},
    {"ade20k", ADE20K, 1, 0, {"annotations/training", "annotations/validation"}, "training"},
};

static bool same_word(const char *a, const char *b)
{
    while (*a && tolower((unsigned char)*a) == *b) a++, b++;
    return !*a && !*b;
}

static const struct known *find_known(const char *name)
{
    for (size_t i = 0; i < sizeof KNOWN / sizeof *KNOWN; i++)
        if (same_word(name, KNOWN[i].name)) return &KNOWN[i];
    return NULL;
}

void dataset_close(dataset *d)
{
    classes_free(&d->classes);
    memset(d, 0, sizeof *d);
}

static bool copy_known(flis_ctx *ctx, const struct known *known, dataset *out)
{
    out->name = known->name;
    out->word = known->word;
    memcpy(out->labels, known->labels, sizeof out->labels);
    out->is_void[known->void_label] = true;
    int label = known->first;
    for (const char *at = known->classes, *end; at && flis_ok(ctx); at = end ? end + 2 : NULL, label++) {
        end = strstr(at, ", ");
        const size_t length = end ? (size_t)(end - at) : strlen(at);
        if ((out->classes.name[label] = flis_alloc(ctx, length + 1, 1))) memcpy(out->classes.name[label], at, length);
        out->classes.count++;
    }
    return flis_ok(ctx);
}

bool dataset_open(flis_ctx *ctx, const char *name, dataset *out)
{
    const struct known *known = find_known(name);
    memset(out, 0, sizeof *out);
    if (!known && kind_of_file(name) == FILE_ABSENT)
        return flis_fail(
            ctx, "%s: there is no such file, wanted coco, ade20k, or a file with lines of label, tab, name", name);
    if (known) copy_known(ctx, known, out);
    else if (classes_read(ctx, name, &out->classes)) {
        out->name = name;
        out->is_void[0] = !out->classes.name[0];
        out->is_void[255] = !out->classes.name[255];
    }
    if (!flis_ok(ctx)) dataset_close(out);
    return flis_ok(ctx);
}

/* Folder i of the two of a data set, the authors' choice first: a word in the picture's path says that it is one of training. */
static const char *choose_folder(const char *const labels[2], const char *word, const char *picture, int i)
{
    const bool training = strstr(picture, word) != NULL;
    return labels[(i == 0) != training];
}

/* Folder i, below the root, of those that may hold a picture's label map; "": the root itself; NULL: no more. */
static const char *label_folder(const dataset *d, const char *picture, int i)
{
    enum { KNOWN_FOLDERS = 2 * sizeof KNOWN / sizeof *KNOWN };
    if (d->word) return i < 2 ? choose_folder(d->labels, d->word, picture, i) : i == 2 ? "" : NULL;
    if (i == 0) return "";
    const struct known *like = &KNOWN[(i - 1) / 2];
    return i <= KNOWN_FOLDERS ? choose_folder(like->labels, like->word, picture, (i - 1) % 2) : NULL;
}

bool dataset_label_path(flis_ctx *ctx, const dataset *d, const char *root, const char *picture, char out[PATH_ROOM])
{
    static const char *const ENDINGS[] = {".png", ".pgm"};
    const char *stem, *folder;
    size_t length;
    name_stem(picture, &stem, &length);
    for (int i = 0; (folder = label_folder(d, picture, i)) != NULL; i++)
        for (int k = 0; k < 2; k++) {
            const int used = snprintf(out, PATH_ROOM, "%s/%s%s%.*s%s", root, folder, *folder ? "/" : "", (int)length,
                                      stem, ENDINGS[k]);
            if (used < 0 || used >= PATH_ROOM) return flis_fail(ctx, "%.100s…: the name is too long", picture);
            if (kind_of_file(out) == FILE_REGULAR) return true;
        }
    folder = label_folder(d, picture, 0);
    snprintf(out, PATH_ROOM, "%s/%s%s%.*s.png", root, folder, *folder ? "/" : "", (int)length, stem);
    return flis_fail(ctx, "%s: there is no such label map", out);
}

bool dataset_phrases(flis_ctx *ctx, const dataset *d, const char *where, const uint8_t *label, size_t count,
                     flis_phrase **phrase, size_t *phrases)
{
    bool seen[CLASS_LABELS] = {false};
    *phrases = 0;
    *phrase = flis_alloc(ctx, CLASS_LABELS, sizeof **phrase);
    for (size_t i = 0; i < count; i++) seen[label[i]] = true;
    for (int l = 0; *phrase && l < CLASS_LABELS; l++) {
        if (!seen[l] || d->is_void[l]) continue;
        if (!d->classes.name[l])
            return flis_fail(ctx, "%s: has label %d, which is no class of %s and not void", where, l, d->name);
        if (!((*phrase)[*phrases].text = path_with(ctx, d->classes.name[l], ""))) return false;
        (*phrase)[(*phrases)++].id = l;
    }
    return flis_ok(ctx);
}

void phrases_free(flis_phrase *phrase, size_t count)
{
    for (size_t i = 0; phrase && i < count; i++) free(phrase[i].text);
    free(phrase);
}
