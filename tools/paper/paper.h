/* paper.h - the paper's experiments (Xue et al., CVPR 2023), repeated with the small model on the small world.
 *
 *   Table 1   held-out layouts of classes that the fine-tuning saw: mIoU and Fréchet distance of real pictures, of those
 *             through the autoencoder, of plain text to image, of RCA without fine-tuning, and of RCA with fine-tuning
 *   Figure 5  what the fine-tuning never saw: new objects, attributes, styles; how often the right one is in its region
 *   Figure 6  one map shared by "sky" and a style; two things with their maps swapped (real: drawn in each other's outlines)
 *
 * Real pictures are scenes of tools/world. The small world's own segmenter (tools/train) judges objects; its features also give
 * the distance, which is therefore not comparable with any published FID. Colours, patterns and styles are measured by
 * tools/evaluate. Real scenes are judged too: they show the best score that the judges can give.
 *
 * Layout i of a set is its scene SEED + i; the noise of its pictures has seed i, the same for every method.
 */
#ifndef TOOLS_PAPER_H
#define TOOLS_PAPER_H

#include "tools/common/common.h"
#include "tools/evaluate/evaluate.h"

enum { SHOWN = 4, SIDE = WORLD_SIDE }; /* SHOWN: layouts that the page shows per experiment */

typedef enum { REAL, CODED, PLAIN, UNTUNED, TUNED, METHODS } method;
extern const char *const METHOD[METHODS];

typedef enum { OBJECT, ATTRIBUTE, STYLE, SHARED, SWAPPED, QUESTIONS } question;
typedef struct question_row {
    const char *name, *set;
    const char *asks; /* what is right */
    const char *each; /* what is also counted one by one; NULL: nothing */
} question_row;
extern const question_row QUESTION[QUESTIONS];

/* Layouts in which everything is right, out of all; and the same for every single thing that was asked. */
typedef struct tally {
    uint64_t right, all, each_right, each;
} tally;

typedef struct options {
    const char *model, *plain, *segmenter, *vocab, *out;
    uint64_t count, trials, steps, seed, workers;
    double scale;
    bool quiet;
} options;

typedef struct model {
    flis_clip *clip;
    flis_unet *unet;
    flis_vae *vae;
    flis_real *empty; /* text features of "", [77][d] */
    char digest[65];
} model;

typedef struct paper {
    flis_ctx ctx;
    options o;
    progress progress;
    flis_vocab *vocab;
    model tuned, plain;
    flis_unet *segmenter;
    judges *judges;
    uint64_t judged; /* repainted scenes that the judges have learned from */
    /* each worker's own */
    world_scene *scene;
    uint8_t *rgb, *found;
    confusion confusion[METHODS];
    tally tally[QUESTIONS][METHODS];
    /* results */
    iou_score iou[METHODS];
    double distance[METHODS];
    flis_real *features; /* [METHODS + 1][count][d]: of each method's pictures, and of the reference pictures */
    uint8_t *show;       /* [QUESTIONS + 1][SHOWN][METHODS + 1][pixels][3]: the map, then each method's picture */
    char (*caption)[SHOWN][512]; /* [QUESTIONS + 1] */
} paper;

/* ---- Models and pictures (painting.c) ----------------------------------------------------------------------------- */

bool model_load(paper *p, const char *path, model *m);
void model_free(model *m);
/* A repaint: scenes as the tuned model's autoencoder reproduces them, so that judges know its blur. `user` is the paper. */
bool repaint_coded(flis_ctx *ctx, void *user, uint8_t *rgb);
/* The picture of a scene by one method. */
bool make_picture(paper *p, method how, const world_scene *s, uint64_t seed, uint8_t *rgb);

/* ---- Experiments (experiments.c) ---------------------------------------------------------------------------------- */

bool run_table(paper *p);
bool run_question(paper *p, question asked);
/* Of the picture that the page shows: column 0 the map, then the methods; row QUESTIONS: of the table. */
uint8_t *shown_picture(const paper *p, size_t row, uint64_t i, int column);

/* ---- Results (page.c) ---------------------------------------------------------------------------------------------- */

bool write_page(paper *p);
void print_results(const paper *p);

#endif
