/* command_miou.c - evaluate miou: label maps of any size and kind against the ground truth. */
#include "tools/evaluate/command.h"

#include <stdlib.h>
#include <string.h>

int classes_number(const options *o)
{
    uint64_t n;
    return o->classes && parse_whole(o->classes, &n) && n <= 256 ? (int)n : 0;
}

/* ---- Reading ----------------------------------------------------------------------------------------------------- */

/* Ids from NumPy's array, [height, width] after leading sizes of 1. */
static bool ids_of_array(flis_ctx *ctx, const char *path, const npy_array *a, flis_picture *out)
{
    int first = 0;
    while (a->rank - first > 2 && a->shape[first] == 1) first++;
    if (a->rank - first != 2 || !a->count)
        return flis_fail(ctx, "%s: got an array of %d dimensions, wanted the class of each pixel: [height, width]",
                         path, a->rank);
    if (a->kind == 'f') return flis_fail(ctx, "%s: got an array of floats, wanted whole numbers: classes", path);
    *out = (flis_picture){(size_t)a->shape[first + 1], (size_t)a->shape[first], 1, flis_alloc(ctx, a->count, 1)};
    for (size_t i = 0; out->pixels && i < a->count; i++) {
        const int64_t id = npy_integer(a, i);
        if (id < 0 || id > 255)
            return flis_fail(ctx, "%s: got %lld at pixel (%zu, %zu), wanted class numbers from 0 to 255", path,
                             (long long)id, i % out->width, i / out->width);
        out->pixels[i] = (uint8_t)id;
    }
    return flis_ok(ctx);
}

static bool read_map(flis_ctx *ctx, const char *path, flis_picture *out)
{
    npy_array array;
    if (flis_file_kind(path) != FLIS_KIND_NPY) return flis_read_label(ctx, path, out);
    const bool good = npy_read(ctx, path, &array) && ids_of_array(ctx, path, &array, out);
    npy_free(&array);
    return good;
}

/* For each_entry: does a folder have PNG or PGM files? */
static void note_pictures(void *user, const char *name)
{
    bool *pictures = user;
    *pictures = *pictures || (*name != '.' && ends_in_any(name, LABEL_ENDINGS));
}

/* The label maps of a folder or a list; a folder's .npy files only where it has no PNG and no PGM. */
static bool list_maps(flis_ctx *ctx, const char *path, names *out, bool *folder)
{
    static const char *const ANY[] = {".png", ".pgm", ".npy", NULL};
    bool pictures = false;
    each_entry(path, note_pictures, &pictures);
    return list_files(ctx, path, pictures ? LABEL_ENDINGS : ANY, out, folder);
}

static bool same_size(const flis_picture *a, const flis_picture *b)
{
    return a->width == b->width && a->height == b->height;
}

static bool resize_map(flis_ctx *ctx, flis_picture *p, size_t width, size_t height)
{
    flis_picture out = {0, 0, 0, NULL};
    if (p->width == width && p->height == height) return true;
    if (!resize_nearest(ctx, p, width, height, &out)) return false;
    free(p->pixels);
    *p = out;
    return true;
}

/* ---- The comparison ---------------------------------------------------------------------------------------------- */

typedef struct comparison {
    confusion c;
    dataset set; /* of --classes coco, ade20k, FILE */
    const class_names *named;
    names truth, predicted;
    bool paired;    /* by stem; else by line */
    size_t resized; /* pairs */
} comparison;

static bool add_pair(run *p, comparison *m, const char *truth_path, const char *predicted_path)
{
    flis_picture truth = {0, 0, 0, NULL}, predicted = {0, 0, 0, NULL};
    const options *o = p->o;
    bool good = read_map(&p->ctx, truth_path, &truth) && read_map(&p->ctx, predicted_path, &predicted);
    if (good) {
        const size_t width = o->size == SIZE_GIVEN       ? o->width
                             : o->size == SIZE_PREDICTED ? predicted.width
                                                         : truth.width,
                     height = o->size == SIZE_GIVEN       ? o->height
                              : o->size == SIZE_PREDICTED ? predicted.height
                                                          : truth.height;
        m->resized += !same_size(&truth, &predicted);
        good = resize_map(&p->ctx, &truth, width, height) && resize_map(&p->ctx, &predicted, width, height) &&
               confusion_add(&p->ctx, &m->c, truth_path, truth.pixels, predicted.pixels, width * height);
    }
    free(truth.pixels);
    free(predicted.pixels);
    return good;
}

/* The largest label of the ground truth, void aside; *last is at least --first. */
static bool find_last(run *p, const names *truth, int *last)
{
    const options *o = p->o;
    *last = (int)o->first;
    for (size_t i = 0; i < truth->count && flis_poll(&p->ctx); i++) {
        flis_picture map = {0, 0, 0, NULL};
        if (!read_map(&p->ctx, truth->name[i], &map)) return false;
        for (size_t k = 0; k < map.width * map.height; k++) {
            const int raw = map.pixels[k], label = o->modulo ? raw % (int)o->modulo : raw;
            if ((uint64_t)raw != o->void_label && label > *last) *last = label;
        }
        free(map.pixels);
    }
    return flis_ok(&p->ctx);
}

/* The classes of a data set or of a list: those that it names, from the first to the last. */
static bool classes_of_set(run *p, comparison *m)
{
    int first = -1, last = 0;
    if (!dataset_open(&p->ctx, p->o->classes, &m->set)) return false;
    for (int l = 0; l < CLASS_LABELS; l++)
        if (m->set.classes.name[l]) first = first < 0 ? l : first, last = l;
    if (!confusion_make(&p->ctx, &m->c, first, last - first + 1, -1, (int)p->o->modulo)) return false;
    for (int l = 0; l < CLASS_LABELS; l++) {
        m->c.is_void[l] = m->set.is_void[l];
        m->c.is_class[l] = m->set.classes.name[l] && !m->set.is_void[l];
    }
    m->named = &m->set.classes;
    return true;
}

static bool choose_classes(run *p, comparison *m, class_names *listed)
{
    const options *o = p->o;
    int last = 0, n = classes_number(o);
    if (o->classes && !n) {
        if (!classes_of_set(p, m)) return false;
    } else {
        if (o->names && !classes_read(&p->ctx, o->names, listed)) return false;
        m->named = listed;
        if (!n && !find_last(p, &m->truth, &last)) return false;
        if (!n) n = last - (int)o->first + 1;
        if (!confusion_make(&p->ctx, &m->c, (int)o->first, n, (int)o->void_label, (int)o->modulo)) return false;
    }
    if (o->predicted_first_given) m->c.predicted_first = (int)o->predicted_first;
    return true;
}

static bool compare_all(run *p, comparison *m, iou_score *score)
{
    bool good = true;
    for (size_t i = 0; good && i < m->truth.count; i++) {
        const char *other = name_partner(&p->ctx, &m->truth, i, &m->predicted, m->paired, p->o->predicted);
        good = flis_poll(&p->ctx) && other && add_pair(p, m, m->truth.name[i], other);
        if (good) progress_show(&p->progress, "label maps", i + 1, m->truth.count);
    }
    progress_end(&p->progress);
    if (good && m->resized && p->o->size == SIZE_TRUTH)
        fprintf(stderr,
                "%s: note: %zu of %zu predicted label maps were resized to their ground truth's size (nearest)\n",
                p->name, m->resized, m->truth.count);
    return good && confusion_score(&p->ctx, &m->c, score);
}

/* ---- Printing ---------------------------------------------------------------------------------------------------- */

static void print_json(const comparison *m, const iou_score *s)
{
    const confusion *c = &m->c;
    const char *comma = "";
    printf("{\"images\": %llu, \"pixels\": %llu, \"first\": %d, \"classes\": %d, \"present\": %d, "
           "\"miou_present\": %.9g, \"miou_all\": %.9g, \"pixel_accuracy\": %.9g, \"mean_accuracy\": %.9g, \"iou\": {",
           (unsigned long long)c->images, (unsigned long long)c->pixels, c->first, c->classes, s->present,
           s->mean_present, s->mean_all, s->pixel_accuracy, s->mean_accuracy);
    for (int i = 0; i < c->classes; i++) {
        if (s->iou[i] < 0) continue;
        printf("%s\"%d\": %.9g", comma, i + c->first, s->iou[i]);
        comma = ", ";
    }
    printf("}, \"either\": %d, \"miou_either\": %.9g, \"resized\": %zu, \"accuracy\": {", s->either, s->mean_either,
           m->resized);
    comma = "";
    for (int i = 0; i < c->classes; i++) {
        if (s->iou[i] < 0) continue;
        printf("%s\"%d\": %.9g", comma, i + c->first, s->accuracy[i]);
        comma = ", ";
    }
    printf("}}\n");
}

static void print_means(const comparison *m, const iou_score *s, const char *start)
{
    const confusion *c = &m->c;
    printf("%smean IoU %.4f over the %d classes in the ground truth or in the predicted maps\n", start, s->mean_either,
           s->either);
    printf("%smIoU %.4f over the %d classes present, %.4f over all %d; pixel accuracy %.4f, mean accuracy %.4f; %llu "
           "images\n",
           start, s->mean_present, s->present, s->mean_all, m->set.name ? s->all : c->classes, s->pixel_accuracy,
           s->mean_accuracy, (unsigned long long)c->images);
}

static void print_lines(const comparison *m, const iou_score *s)
{
    const confusion *c = &m->c;
    for (int i = 0; i < c->classes; i++) {
        if (s->iou[i] < 0) continue;
        const char *name = m->named->name[i + c->first];
        printf("%3d  %.4f  %10llu  %10llu  %s\n", i + c->first, s->iou[i], (unsigned long long)s->truth[i],
               (unsigned long long)s->predicted[i], name ? name : "");
    }
    print_means(m, s, "");
}

/* Every class, with tabs. A class that is in neither has no IoU, one that is not in the ground truth no accuracy. */
static void print_table(const comparison *m, const iou_score *s)
{
    const confusion *c = &m->c;
    printf("label\tIoU\taccuracy\ttruth\tpredicted\tname\n");
    for (int i = 0; i < c->classes; i++) {
        const char *name = m->named->name[i + c->first];
        if (!c->is_class[i + c->first]) continue;
        printf("%d\t", i + c->first);
        if (s->truth[i]) printf("%.6f\t%.6f", s->iou[i], s->accuracy[i]);
        else printf(s->predicted[i] ? "0.000000\t-" : "-\t-");
        printf("\t%llu\t%llu\t%s\n", (unsigned long long)s->truth[i], (unsigned long long)s->predicted[i],
               name ? name : "");
    }
    print_means(m, s, "# ");
}

bool run_miou(run *p)
{
    comparison m = {.paired = false};
    bool folder[2] = {false, false};
    iou_score *score = flis_alloc(&p->ctx, 1, sizeof *score);
    class_names listed = {.count = 0};
    bool good = score && list_maps(&p->ctx, p->o->truth, &m.truth, &folder[0]) &&
                list_maps(&p->ctx, p->o->predicted, &m.predicted, &folder[1]) && choose_classes(p, &m, &listed);
    m.paired = folder[0] || folder[1];
    good = good && compare_all(p, &m, score);
    progress_end(&p->progress);
    if (good && p->o->json) print_json(&m, score);
    else if (good && p->o->table) print_table(&m, score);
    else if (good) print_lines(&m, score);
    names_free(&m.truth);
    names_free(&m.predicted);
    free(m.c.count);
    free(score);
    classes_free(&listed);
    dataset_close(&m.set);
    return good;
}
