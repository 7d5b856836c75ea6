/* evaluate.h - the paper's measures: mIoU of label maps, Fréchet distance of features, and whether attributes came out.
 *
 * mIoU and Fréchet distance look at no network: label maps and features may come from whatever segmenter and feature network
 * is usual for a data set (COCO-Stuff: DeepLab v2, ADE20K: UperNet, features: Inception v3), or from the small world's own.
 */
#ifndef TOOLS_EVALUATE_H
#define TOOLS_EVALUATE_H

#include "flis.h"
#include "tools/world/world.h"

/* ---- mIoU of label maps (miou.c) --------------------------------------------------------------------------------- */

/* One confusion matrix over all pixels of all images. Classes are the labels first to first + classes - 1; ground truth pixels
   with a void label are not counted at all. */
typedef struct confusion {
    int first, classes;
    int predicted_first; /* the label of the first class in the predicted maps */
    int modulo;          /* > 0: labels are taken modulo this, after void (the world's second phrases) */
    bool is_void[256], is_class[256];
    uint64_t images, pixels; /* pixels: those that are counted */
    uint64_t *count;         /* [classes][classes + 1]: truth, predicted; last column: predicted none of the classes */
} confusion;

/* Of class c: IoU = both / (truth + predicted - both), accuracy = both / truth. A class that is predicted but absent from the ground
   truth has IoU 0 in mean_either, and none in mean_present. */
typedef struct iou_score {
    double iou[256], accuracy[256]; /* per class; -1: absent from the ground truth */
    uint64_t truth[256], predicted[256];
    int present, either, all; /* classes in the ground truth; in it or predicted; without void */
    double mean_present, mean_either,
        mean_all; /* of IoU: the same sum over `present`, `either` and all classes (without void) */
    double pixel_accuracy, mean_accuracy;
} iou_score;

/* void_label -1: none. is_void, is_class and predicted_first (set to `first`) may be changed before the first image. */
bool confusion_make(flis_ctx *ctx, confusion *c, int first, int classes, int void_label, int modulo);
/* Adds one image; `name` is for error sentences. A ground truth label that is neither a class nor void is an error. */
bool confusion_add(flis_ctx *ctx, confusion *c, const char *name, const uint8_t *truth, const uint8_t *predicted,
                   size_t pixels);
bool confusion_score(flis_ctx *ctx, const confusion *c, iou_score *out);

/* ---- Fréchet distance (frechet.c) -------------------------------------------------------------------------------- */

/* A normal distribution: mean [d], covariance F'F with F [rank][d]. */
typedef struct gaussian {
    size_t d, rank;
    double *mean, *factor;
} gaussian;
void gaussian_free(gaussian *g);
/* Of samples x [n][d], n >= 2, which are overwritten; the covariance is with n - 1. */
bool gaussian_of_samples(flis_ctx *ctx, double *x, size_t n, size_t d, gaussian *out);
/* Of mean [d] and covariance [d][d], which is overwritten. `name` is for error sentences. Errors: it is no covariance. */
bool gaussian_of_covariance(flis_ctx *ctx, const char *name, const double *mean, double *covariance, size_t d,
                            gaussian *out);
bool gaussian_distance(flis_ctx *ctx, const gaussian *a, const gaussian *b, double *out);
/* a [na][d], b [nb][d] (both are overwritten), at least 2 samples each. */
bool frechet_distance(flis_ctx *ctx, double *a, size_t na, double *b, size_t nb, size_t d, double *out);

/* ---- Attributes (colours.c, patterns.c, features.c, judges.c) ---------------------------------------------------- */

/* A region of a picture: the pixels whose label is `id` (-1: all). The measures are made for the small world's colours,
   patterns and styles; `evaluate attributes` on a folder that tools/world wrote shows how often they are right. */
typedef struct region {
    const uint8_t *rgb, *label; /* [height][width][3], [height][width] */
    size_t width, height;
    int id;
    bool night; /* moonlight is removed before colours are named */
} region;
region region_of(const world_scene *s, int id);

/* The named colour (world_colour) of most of the region, 0: none. White and black are taken for details where a hue covers a
   quarter of the region. share [WORLD_COLOURS + 1] may be NULL. */
int measure_colour(const region *r, double *share);

/* Classifiers that learned from scenes of the world's training half: the mean and covariance of some statistics (quadratic
   discriminant analysis) of each style, of each thing without pattern, striped and spotted, and of each thing in any outline. */
typedef struct judges judges;
/* Changes a scene's pixels [128][128][3] to what a painter would make of them, in place; false: failed. */
typedef bool repaint(flis_ctx *ctx, void *user, uint8_t *rgb);
/* Scenes that judges learn from, and how many of them are repainted. */
enum { STYLED = 1200, PATTERNED = 1600, LOOKED_AT = 1600, JUDGES_PAINTED = STYLED + PATTERNED / 2 + LOOKED_AT / 2 };
/* free() it; takes a few seconds. With a painter, judges learn every kind twice: as drawn, and repainted. */
judges *judges_learn(flis_ctx *ctx, repaint *painter, void *user);
/* The most likely world_style of the region, 0: none. */
int measure_style(const judges *j, const region *r);
/* True if the region looks more like that style than like none, and the rest of the picture does not. Scenes' size only. */
bool style_only_in(const judges *j, const region *r, int style);
/* STRIPED, SPOTTED or 0, for a thing that can have patterns. */
int measure_pattern(flis_ctx *ctx, const judges *j, const region *r, int class);
/* True if a thing's region looks more like one class than like another, whatever its outline: by its colours, their spread, and
   their change from the upper half to the lower. */
bool looks_more_like(const judges *j, const region *r, int class, int other);

/* ---- The segmenter of tools/train (segmenter.c) ------------------------------------------------------------------ */

/* labels [height][width] of a picture whose sides are multiples of 32, in blocks of 2 x 2 pixels; features: means of the middle
   block's channels, segmenter_features of them. Either may be NULL. */
bool segmenter_run(flis_ctx *ctx, const flis_unet *segmenter, const uint8_t *rgb, size_t width, size_t height,
                   uint8_t *label, flis_real *features);
size_t segmenter_features(const flis_unet *segmenter);
/* Reads a segmenter; NULL: failed, also for a model whose pictures do not have 3 channels. */
flis_unet *segmenter_load(flis_ctx *ctx, const char *path);

#endif
