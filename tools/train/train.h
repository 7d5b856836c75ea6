/* train.h - what the files of train share.
 *
 *   main.c      options and help          data.c      latents, tokens
 *   settings.c  defaults, recipes         photos.c    folders of pictures, and checking them
 *   stages.c    losses, preparation       datasets.c  the authors' data sets, the order of pictures
 *   loop.c      steps, workers            samples.c   one sample of a batch: window, words, noise
 *   state.c     the state in a file       weights.c   new weights, models in files
 *   plot.c      log and its plot          adamw.c     the optimiser
 *   record.c    what a step computes,     ahead.c     pictures, read ahead
 *               in files                  show.c      pictures of layouts, every N steps
 *   validate.c  the loss on samples that are not learned from
 *
 * Letters of shapes: n samples, h and w latent cells (8 pixels each), 77 tokens.
 */
#ifndef TOOLS_TRAIN_H
#define TOOLS_TRAIN_H

#include "tools/common/common.h"
#include "tools/train/adamw.h"
#include "tools/world/world.h"

typedef enum { VAE, LATENTS, TEXT2IMAGE, LAYOUT, SEGMENTER, STAGES } stage;
extern const char *const STAGE[STAGES]; /* "vae", "latents" … */

/* Words of options: how a batch's pictures are chosen, which classes a prompt names, what a resized picture is. */
typedef enum { ORDER_DRAWN, ORDER_EPOCHS } order_kind;
typedef enum { PHRASES_LARGEST, PHRASES_ALL } phrases_kind;
typedef enum { RESIZE_REALS, RESIZE_BYTES } resize_kind;
typedef enum { RECIPE_NONE, RECIPE_AUTHORS } recipe_kind;

typedef struct options {
    stage stage;
    const char *out, *state, *log, *plot, *record; /* files that are written; a folder */
    const char *model, *start, *vocab, *latents, *data, *set;
    const char *dataset, *data_root;   /* --dataset: its name, or a list of classes; its folder */
    const char *train_list, *val_list; /* lists of its pictures */
    const char *validate, *show;       /* samples apart: a folder, or latents; layouts that are painted */
    uint64_t validate_every, validate_count, show_every, show_count, show_steps;
    double show_scale;
    bool check_data;
    uint64_t seed, steps, batch, accumulate, warmup, count, size, crop, window, workers;
    double rate, fall, decay, ema, clip, dropout, flip, alone, kl, edges, colours, things_weight, minutes, every;
    uint64_t threads;
    int recipe, order, phrases, resize;
    bool resume, quiet, less_memory, frozen_text, frozen_encoder, things, f32;
} options;

enum {
    MAX_BATCH = 256,
    LOG_EVERY = 25,  /* steps between two lines of the log */
    LINE_EVERY = 50, /* steps between two lines of progress where stderr is not a terminal */
    CROPS = 2,       /* of each scene, for the autoencoder */
    SEGMENTER_SIDE = 64,
    SEGMENTER_CLASSES = WORLD_CLASSES + 1
};

typedef struct models {
    flis_vae *vae;
    flis_clip *clip;
    flis_unet *unet;
} models;

/* Scenes, encoded: what text2image and layout learn from. */
typedef struct latents {
    size_t count, h, w;
    uint16_t *moments; /* F16 [count][h][w][8]: 4 means, 4 log variances */
    uint8_t *label; /* [count][h][w]: every 8th pixel, which is PyTorch's nearest rule for this and the next scales */
    int32_t *ids;   /* [count][77] */
    int16_t *class_ids; /* [count][77]; -1: the word acts everywhere */
    int16_t *classes;   /* [count]: entries of class_ids that are in use */
} latents;

/* FOLDER/pictures, FOLDER/labels with files of the same names, FOLDER/classes.txt; or FOLDER/captions.txt; or a data set (dataset):
   a list of pictures, and its folders of label maps. */
typedef struct photos {
    names files; /* the pictures, by name; of a data set, in the order of its list */
    names lines; /* of a data set: its list, which names each picture as its author did */
    char *path;  /* the folder; of a data set, --data-root */
    bool layouts, listed /* a data set */, all_classes /* --phrases all */, bytes /* --resize bytes */;
    dataset set;                 /* classes and void labels */
    size_t tokens[CLASS_LABELS]; /* that a class adds to a prompt, at most */
    names captions;              /* one per picture */
    char digest[65];             /* of all that is learned from, by photos_check */
} photos;

/* A sample of them, read and resized. */
typedef struct decoded {
    flis_real *pixels; /* [side][side][3] in -1..1 */
    uint8_t *label;    /* [side][side] */
    flis_phrase *phrase;
    size_t phrases;
    char error[4096]; /* why the sample cannot be used; "": it can */
} decoded;

/* Pictures that are read while the networks work (ahead.c). */
typedef struct ahead {
    size_t count;
    decoded *now, *next; /* [count]: of batch `number`, and of the one after it */
    uint64_t number;
    bool begun; /* there was a batch before */
    thread thread;
    const struct job *job;
} ahead;

/* What a training depends on beside its options: digests of the files, "none" for those that were not given. */
enum { OF_MODEL, OF_START, OF_VOCAB, OF_LATENTS, OF_DATA, ORIGINS };

/* What is drawn first of a sample. */
typedef struct choice {
    size_t at;            /* which one */
    bool dropped, mirror; /* it has the empty prompt; left and right are exchanged */
} choice;

/* One batch of text2image and layout. */
typedef struct batch {
    flis_tensor *z, *noise; /* [n][h][w][4] */
    double t[MAX_BATCH];    /* timesteps */
    int32_t *ids;           /* [n][77] */
    float *class_ids;       /* [n][77] */
    flis_rca rca[MAX_BATCH];
    const flis_rca *layout[MAX_BATCH]; /* NULL: plain cross-attention */
    /* --record: the picture [n][side][side][3], and the noise of the posterior's sample [n][h][w][4]; else NULL */
    flis_real *image, *posterior;
} batch;

typedef struct log_line {
    uint64_t step;
    double loss, norm, validation; /* validation NAN: not measured at this step */
} log_line;

/* Samples that are not learned from. */
typedef struct validation {
    photos folder; /* --validate or --val-txt-file; of latents: empty */
    latents data;
    size_t count, of; /* samples that are used, of all; 0: no validation */
    double loss;      /* the last one; NAN: none yet */
} validation;

/* A layout that is painted every N steps. */
typedef struct painted {
    int32_t ids[FLIS_TOKENS];
    float class_ids[FLIS_TOKENS];
    size_t classes, height, width;
    uint8_t *label; /* [height][width] */
    bool layout;    /* false: plain cross-attention */
} painted;
typedef struct show {
    size_t count, h, w; /* of the latent */
    painted *item;
    char *path; /* the folder of the pictures */
} show;

typedef struct job {
    options o;
    flis_ctx ctx;
    models m;
    flis_vae *autoencoder; /* segmenter: --model, which is not written */
    flis_vocab *vocab;
    training training;
    flis_tape tape;
    flis_schedule schedule;
    latents data;
    photos folder;
    validation validation;
    show show;
    ahead *ahead;        /* of the whole job: workers share it; NULL: no folder */
    world_scene **scene; /* [scenes]: room for drawing a batch */
    size_t scenes;
    flis_param edges, colours;  /* [6][3][3][3], [2][3][3][3] */
    int32_t empty[FLIS_TOKENS]; /* tokens of "" */
    char origin[ORIGINS][65];
    /* The loss of this worker's share of step training.step; its gradients accumulate. -1: failed. */
    double (*loss)(struct job *job);
    struct job *worker; /* [workers]: copies, each with a context, a tape and a share of the batch; NULL: not split */
    size_t workers, first, units; /* the share: scenes where they are drawn, else samples */
    double share, share_loss;     /* units / all units; a worker's last loss */
    uint64_t part;                /* of the step: which of --accumulate batches this is */
    log_line *line;
    size_t lines, room;
    double sum; /* of the losses of `summed` steps since the last line of the log */
    uint64_t summed;
    progress progress;
    const volatile int *stop; /* set by Ctrl-C */
} job;

/* ---- settings.c -------------------------------------------------------------------------------------------------- */

void settings_default(options *o, stage s);
/* Every setting of a recipe, over the stage's defaults. */
void settings_recipe(options *o, recipe_kind recipe);
bool learns_pictures(const options *o); /* --data or --dataset, not --latents */

/* ---- data.c ------------------------------------------------------------------------------------------------------ */

/* Random numbers are a function of (seed, stage, purpose, step, number in the batch) and nothing else. */
enum { DICE_CROP = 1, DICE_SAMPLE = 3, DICE_WEIGHT, DICE_LATENT, DICE_ORDER, DICE_VALIDATE };
dice dice_of(const options *o, int purpose, uint64_t step, uint64_t number);
/* Which batch this is, over all steps and the --accumulate batches of each: the `step` of its samples' random numbers. */
uint64_t batch_number(const struct job *j);
void fill_normal(dice *d, flis_real *out, size_t count);

bool latents_new(flis_ctx *ctx, latents *l, size_t count, size_t h, size_t w);
bool latents_read(flis_ctx *ctx, const char *path, latents *l);
/* Fails unless every sample is a prompt of this vocabulary with finite moments. */
bool latents_check(flis_ctx *ctx, const char *path, const latents *l, const flis_vocab *vocab);
/* Leaves l in the file's byte order: free it next. */
bool latents_write(flis_ctx *ctx, const char *path, latents *l);
void latents_free(latents *l);

/* Tokens and classes of a prompt, as latents hold them. */
bool put_prompt(flis_ctx *ctx, const flis_vocab *vocab, const flis_phrase *phrase, size_t count, int32_t *ids,
                int16_t *class_ids, int16_t *classes);
/* The prompt of a scene: its phrases with their labels where the set is plain, else its caption. */
bool put_scene_prompt(flis_ctx *ctx, const flis_vocab *vocab, const world_scene *s, bool plain, int32_t *ids,
                      int16_t *class_ids, int16_t *classes);

/* ---- photos.c ---------------------------------------------------------------------------------------------------- */

bool photos_open(flis_ctx *ctx, const char *path, bool layouts, const flis_vocab *vocab, photos *out);
/* How samples are made of pictures: --phrases, --resize. */
void photos_settings(photos *f, const options *o);
/* Reads every file and does what a step does with it, but for resizing and the networks; warns of what is not used; sets the
   digest. To be called before the first step. An error names the first samples that cannot be used; with --check-data there is a
   line on stdout for each. */
bool photos_check(job *j, photos *f);
/* Sample `at`: pixels [side][side][3] in -1..1, label [side][side], and phrases (phrases_free). mirror: left to right. */
bool photos_sample(flis_ctx *ctx, const photos *f, size_t at, size_t side, bool mirror, flis_real *pixels,
                   uint8_t *label, flis_phrase **phrase, size_t *phrases);
void photos_close(photos *f);
/* The tokens that each class of f->set adds to a prompt. `where` is used in sentences. */
bool photos_count_tokens(flis_ctx *ctx, photos *f, const flis_vocab *vocab, const char *where);

/* ---- datasets.c -------------------------------------------------------------------------------------------------- */

/* --dataset: reads the list of pictures. A picture is opened as the list names it, or below the root where that does not exist. */
bool photos_open_dataset(flis_ctx *ctx, const options *o, const flis_vocab *vocab, photos *out);
/* Which of `count` pictures is number i in the order of an epoch. */
uint64_t shuffled(const options *o, uint64_t epoch, uint64_t i, uint64_t count);
/* Which picture a sample of batch `number` is: --order drawn: by a random number; epochs: the next of the epoch's order. */
size_t choose_picture(const options *o, size_t count, uint64_t number, size_t sample, uint64_t drawn);

/* ---- samples.c --------------------------------------------------------------------------------------------------- */

/* Which of `of` samples is number i of `count` that are spread over all. */
size_t spread_evenly(size_t i, size_t count, size_t of);
/* Side of the windows that are cut from scenes of `side` latent cells. */
size_t window_side(const job *j, size_t side);
int choose_window(const latents *l, size_t at, size_t side, bool things, dice *d, size_t *top, size_t *left);
void put_window_prompt(const latents *l, size_t at, const uint8_t *label, size_t cells, bool all, int only,
                       const int32_t *empty, int32_t *ids, float *class_ids, size_t *classes);
/* The first random numbers of a sample of batch `number`. */
choice choose_latents(const job *j, uint64_t number, size_t sample, dice *d);
choice choose_photo(const job *j, uint64_t number, size_t sample, dice *d);
/* Sample k of a batch, by the random numbers after those. `scale` is the autoencoder's scale factor. A photo is resized already; its
   error, where it has one, becomes that of the context. It must last as long as the batch. */
bool put_latents(job *j, const latents *l, choice c, batch *b, size_t k, double scale, dice *d);
bool put_photo(job *j, const photos *f, choice c, const decoded *photo, batch *b, size_t k, double scale, dice *d);
/* A batch's tensors and lists, for n samples of h x w latent cells, in the arena; pictures: what is recorded of them too. */
batch *batch_new(flis_ctx *ctx, size_t n, size_t h, size_t w, bool pictures);
/* z_t = sqrt(alpha_bar_t) z + sqrt(1 - alpha_bar_t) eps for each sample, in place. */
void batch_add_noise(const flis_schedule *s, batch *b);

/* ---- ahead.c ------------------------------------------------------------------------------------------------------ */

/* Room for one sample of a folder; false: no memory. Freed with decoded_free. */
bool decoded_make(flis_ctx *ctx, size_t side, decoded *out);
void decoded_free(decoded *d);
/* photos_sample; what it fails with is kept in out->error. */
void decode_photo(const photos *f, size_t at, size_t side, bool mirror, decoded *out);
/* For a training on a folder, else nothing. Before ahead_batch, and before workers copy the job. */
bool ahead_make(job *j);
/* Before the losses of a batch: its pictures are read when this returns, and those of the next batch are being read. */
void ahead_batch(job *j);
/* The picture of sample k of this worker's share. */
const decoded *ahead_sample(const job *j, size_t k);
void ahead_free(job *j);

/* ---- validate.c --------------------------------------------------------------------------------------------------- */

/* Opens and checks the samples of --validate or --val-txt-file; neither: nothing. */
bool validate_prepare(job *j);
/* Their mean loss, into j->validation.loss. */
bool validate(job *j);
/* After a step and its line of the log, and before the first: measures where --validate-every wants it, into that line. */
bool validate_if_due(job *j);
/* Exchanges the weights with their averages, where there are any; works on a failed context too. */
void averages_swap(job *j);

/* ---- show.c ------------------------------------------------------------------------------------------------------- */

/* --show-every: makes the folder, reads the layouts. */
bool show_prepare(job *j);
/* After a step, and before the first: paints a sheet where --show-every wants it; not `again`: unless its file is there. */
bool show_if_due(job *j, bool again);
void show_free(job *j);

/* ---- weights.c --------------------------------------------------------------------------------------------------- */

extern const flis_vae_config SMALL_VAE;
extern const flis_clip_config SMALL_CLIP;
extern const flis_unet_config SMALL_UNET, SMALL_SEGMENTER;

bool name_ends(const char *name, const char *end);
bool new_weights(flis_ctx *ctx, void *options, const char *name, flis_param *p); /* a visitor */
void models_free(models *m);
bool models_walk(flis_ctx *ctx, const models *m, flis_visit *visit, void *user);
void model_metadata(flis_ctx *ctx, flis_writer *writer, const models *m, double scale_factor);
bool models_write(flis_ctx *ctx, const options *o, const models *m, double scale_factor); /* F16; --f32: F32 */
/* Fails unless the vocabulary is one for a text encoder with `rows` token embeddings, which `path` has. */
bool vocab_fits(flis_ctx *ctx, const char *path, size_t rows, const char *vocab_path, const flis_vocab *vocab);
/* The parts of --model that a stage needs. */
bool models_load(job *j, bool clip, bool unet, bool decoder);
/* The parts that are trained: those of --start, else new ones. A config that is NULL: not that part. */
bool models_begin(job *j, const flis_vae_config *vae, const flis_clip_config *clip, const flis_unet_config *unet);

/* Of padding's mean score in each head of a new cross-attention: what suppress_padding adds. */
enum { PADDING_SCORE = -6 };
typedef struct padding_features {
    const flis_real *mean; /* f: [context] */
    size_t context, heads;
    double *shared; /* q1: [c], kept from to_q until to_k is visited */
} padding_features;
bool suppress_padding(flis_ctx *ctx, void *padding_features, const char *name, flis_param *p); /* a visitor */
bool suppress_padding_keys(job *j);

/* ---- stages.c ---------------------------------------------------------------------------------------------------- */

void weigh_crop(const world_scene *s, size_t top, size_t left, size_t crop, double things, flis_real *weight);
bool prepare(job *j);
/* --check-data: reads and checks all that would be learned from, and nothing else. */
bool check_only(job *j);
/* The model file, from the weights' averages. */
bool write_result(job *j);
bool make_latents(job *j);

/* ---- state.c ----------------------------------------------------------------------------------------------------- */

/* For ctx->warn: "train STAGE: warning: …" on stderr. */
void job_print_warning(void *job, const char *sentence);
/* Digests of the job's files, into j->origin. The folder of --data was checked before. */
bool origins_find(job *j);
/* The state of a training and its log. state_check: what can be known before anything is loaded. */
bool state_check(job *j);
bool state_read(job *j);
bool state_write(job *j);

/* ---- record.c ---------------------------------------------------------------------------------------------------- */

/* --record FOLDER: what a step computes, for ports and checks, in FOLDER/step-N-… .safetensors (docs/training.md). Each does nothing
   without --record. */
bool record_begin(job *j); /* makes the folder */
/* One batch: the pictures and labels, latents before noise is added (clean), noise, timesteps, text features, eps, loss. */
bool record_batch(job *j, const batch *b, const flis_real *clean, const flis_tensor *text, const flis_tensor *eps,
                  double loss);
bool record_gradients(job *j); /* before the update, over all batches of the step */
bool record_weights(job *j);   /* after it */

/* ---- loop.c ------------------------------------------------------------------------------------------------------ */

bool train(job *j);
void job_free(job *j);

/* ---- plot.c ------------------------------------------------------------------------------------------------------ */

bool log_add(job *j, uint64_t step, double loss, double norm);
bool log_write(job *j);
/* The lines up to the state's step, so that a resumed log is one log. */
bool log_read(job *j);
bool plot_write(job *j);

#endif
