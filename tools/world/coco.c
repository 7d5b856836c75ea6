/* coco.c - scenes of the small world in the folders of COCO-Stuff, as the authors' LIS and training read them. */
#include "tools/world/coco.h"

#include <stdlib.h>

enum { QUALITY = 75 }; /* of the pictures, PIL's default */

/* One half of the data set. */
typedef struct half {
    const char *name, *list; /* the folders' and the list's */
    const world_rules *rules;
    uint64_t first, count; /* seeds */
} half;

static bool full_path(flis_ctx *ctx, const char *dir, const char *name, char out[PATH_ROOM])
{
    const int length = snprintf(out, PATH_ROOM, "%s/%s", dir, name);
    return length < PATH_ROOM || flis_fail(ctx, "%.100s…: the folder's name is too long", dir);
}

static bool make_folders(flis_ctx *ctx, const char *dir)
{
    static const char *const FOLDER[] = {"train2017", "val2017", "stuffthingmaps_trainval2017",
                                         "stuffthingmaps_trainval2017/train2017",
                                         "stuffthingmaps_trainval2017/val2017"};
    char path[PATH_ROOM];
    bool good = make_folder(ctx, dir);
    for (size_t i = 0; good && i < sizeof FOLDER / sizeof *FOLDER; i++)
        good = full_path(ctx, dir, FOLDER[i], path) && make_folder(ctx, path);
    return good;
}

/* Lines of label, tab, name. */
static bool write_classes(flis_ctx *ctx, const char *dir)
{
    char path[PATH_ROOM];
    flis_output o;
    FILE *file = full_path(ctx, dir, "classes.tsv", path) ? flis_output_open(ctx, path, &o) : NULL;
    for (int c = 1; file && c <= WORLD_CLASSES; c++) fprintf(file, "%d\t%s\n", c, world_class_name(c));
    return file && flis_output_close(ctx, &o);
}

static bool write_scene(flis_ctx *ctx, const char *dir, const half *h, uint64_t seed, world_scene *scene)
{
    const flis_picture picture = {WORLD_SIDE, WORLD_SIDE, 3, scene->rgb};
    const flis_picture map = {WORLD_SIDE, WORLD_SIDE, 1, scene->label};
    char name[80], path[PATH_ROOM];
    size_t length = 0;
    uint8_t *jpeg = jpeg_bytes(ctx, &picture, QUALITY, &length);
    snprintf(name, sizeof name, "%s/%012llu.jpg", h->name, (unsigned long long)seed);
    bool good = jpeg && full_path(ctx, dir, name, path) && output_write(ctx, path, jpeg, length);
    free(jpeg);
    snprintf(name, sizeof name, "stuffthingmaps_trainval2017/%s/%012llu.png", h->name, (unsigned long long)seed);
    return good && full_path(ctx, dir, name, path) && flis_write_png(ctx, path, &map, NULL);
}

/* The list is written last: where it is, all of its files are. */
static bool write_half(flis_ctx *ctx, const char *dir, const half *h, world_scene *scene, progress *p)
{
    char path[PATH_ROOM];
    flis_output list;
    if (!h->count) return true;
    for (uint64_t i = 0; i < h->count; i++) {
        if (!flis_poll(ctx)) return false;
        if (!world_draw(h->first + i, h->rules, scene))
            return flis_fail(ctx, "seed %llu: no scene satisfies the rules", (unsigned long long)(h->first + i));
        if (!write_scene(ctx, dir, h, h->first + i, scene)) return false;
        progress_show(p, h->name, (size_t)i + 1, (size_t)h->count);
    }
    progress_end(p);
    FILE *file = full_path(ctx, dir, h->list, path) ? flis_output_open(ctx, path, &list) : NULL;
    for (uint64_t i = 0; file && i < h->count; i++)
        fprintf(file, "%s/%012llu.jpg\n", h->name, (unsigned long long)(h->first + i));
    return file && flis_output_close(ctx, &list);
}

bool world_write_coco(flis_ctx *ctx, const char *dir, uint64_t seed, uint64_t validation, uint64_t training,
                      world_scene *scene, progress *p)
{
    const half val = {"val2017", "val.txt", world_set("test"), seed + WORLD_VALIDATION_SEED, validation};
    const half train = {"train2017", "train.txt", world_set("layout"), seed, training};
    return make_folders(ctx, dir) && write_classes(ctx, dir) && write_half(ctx, dir, &val, scene, p) &&
           write_half(ctx, dir, &train, scene, p);
}
