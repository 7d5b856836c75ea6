/* train.c - trains small models of flis, and tunes any model of Stable Diffusion v1's kind to layouts.
 *
 * The paper starts from Stable Diffusion and tunes its U-Net with rectified cross-attention (RCA). Here everything before
 * that is trained too, in the same order, on the small world of world.c or on folders of pictures:
 *
 *   vae          the autoencoder, on crops: |x - x'| + |edges(x) - edges(x')| + |colours(x) - colours(x')| + KL
 *   latents      encodes scenes once, for the next two: moments, small label maps, tokens
 *   text2image   text encoder and U-Net on captions: E |eps - eps_theta(z_t, t, c)|^2, some captions left empty
 *   layout       the paper's fine-tuning: the same loss with RCA; U-Net alone (FreestyleNet@5dcb8b8 models/ldm/ddpm.py p_losses)
 *   segmenter    a small U-Net that labels the world's pictures; its features measure Fréchet distances
 *
 * Every sample's dice come from (seed, step, number in the batch), sums are taken in a fixed order, and a state holds all
 * that changes: a training that was stopped and resumed gives the same file as one that was not, on any number of threads.
 *
 * In order: options, dice, new weights, models in files, data, the losses of each stage, the loop (state, log, plot), and
 * the program.
 */
#include "tools/common/folder.h"

#include "tools/train/adamw.h"

#define WORLD_NO_MAIN
#include "tools/world/main.c"

#include <signal.h>
#include <time.h>

/* ---- Options ----------------------------------------------------------------------------------------------------- */

typedef enum { VAE, LATENTS, TEXT2IMAGE, LAYOUT, SEGMENTER, STAGES } stage;
static const char *const STAGE[STAGES] = {"vae", "latents", "text2image", "layout", "segmenter"};

typedef struct options {
    stage stage;
    const char *out, *state, *log, *plot; /* what is written */
    const char *model, *start, *vocab, *latents, *data, *set;
    uint64_t seed, steps, batch, warmup, count, size, crop, window, workers;
    double rate, decay, ema, clip, dropout, alone, kl, edges, colours, things_weight, minutes, every;
    uint64_t threads;
    bool resume, quiet, less_memory, frozen_text, frozen_encoder, things;
} options;

/* Steps between two lines of the log; a state is saved at such a step only, so that no sum is cut. */
enum { LOG_EVERY = 25 };

/* ---- Dice -------------------------------------------------------------------------------------------------------- */

enum { DICE_CROP = 1, DICE_NOISE, DICE_SAMPLE, DICE_WEIGHT, DICE_LATENT };

static dice dice_of(const options *o, int purpose, uint64_t step, uint64_t number)
{
    uint64_t z = scramble(o->seed + UINT64_C(0x9E3779B97F4A7C15) * (uint64_t)(purpose + 16 * (int)o->stage));
    return (dice){scramble(scramble(z ^ step) + number)};
}

static void normal(dice *d, flis_real *out, size_t count)
{
    flis_rng rng;
    float piece[256];
    flis_rng_seed(&rng, FLIS_RNG_CPU, dice_next(d));
    for (size_t i = 0; i < count; i += 256) {
        size_t now = count - i < 256 ? count - i : 256;
        flis_randn(&rng, piece, now);
        for (size_t k = 0; k < now; k++) out[i + k] = piece[k];
    }
}

/* ---- New weights ------------------------------------------------------------------------------------------------- */

static bool ends(const char *text, const char *end)
{
    size_t n = strlen(text), m = strlen(end);
    return n >= m && strcmp(text + n - m, end) == 0;
}

/* What Stable Diffusion's code starts with zeros, so that every block is the identity at first (zero_module); the
   autoencoder's blocks and attention too. */
static bool starts_zero(const char *name)
{
    static const char *const zero[] = {".out_layers.3.weight", ".proj_out.weight", ".diffusion_model.out.2.weight",
                                       ".conv2.weight"};
    for (size_t i = 0; i < sizeof zero / sizeof *zero; i++)
        if (ends(name, zero[i])) return true;
    return false;
}

/* Half of its values are log variances. At 0, noise of deviation 1 hides what a mean says, and a channel that the decoder does
   not use at once may never be used: of four, one stayed dead. */
static const char LOG_VARIANCE_BIAS[] = ".quant_conv.bias";
enum { FIRST_LOG_VARIANCE = -6 };

/* Gains 1, biases 0, embeddings of deviation 0.5 (tokens: what a word is must outweigh where it stands and what the first layers
   make of its neighbours) and 0.02 (positions), matrices and kernels uniform in +-sqrt(gain / fan_in): PyTorch's default
   has gain 1. */
static bool new_weights(flis_ctx *ctx, void *user, const char *name, flis_param *p)
{
    const options *o = user;
    const size_t count = flis_param_count(p);
    size_t fan_in = 1;
    uint64_t hash = UINT64_C(0xcbf29ce484222325);
    for (const char *c = name; *c; c++) hash = (hash ^ (unsigned char)*c) * UINT64_C(0x100000001b3);
    dice d = dice_of(o, DICE_WEIGHT, 0, hash);
    for (int i = 1; i < p->rank; i++) fan_in *= p->shape[i];
    const float range = p->table            ? (ends(name, "token_embedding.weight") ? 0.866025f : 0.034641f)
                        : starts_zero(name) ? 0
                                            : (float)sqrt(1.0 / (double)fan_in);
    flis_real *values = flis_alloc(ctx, count, sizeof *values);
    for (size_t i = 0; values && i < count; i++)
        values[i] = p->rank == 1 ? (ends(name, "weight") ? 1 : 0) : spread(&d, -range, range);
    for (size_t i = count / 2; values && i < count && ends(name, LOG_VARIANCE_BIAS); i++)
        values[i] = FIRST_LOG_VARIANCE;
    if (values) flis_param_set(ctx, p, values, false);
    free(values);
    return flis_ok(ctx);
}

/* ---- Models ------------------------------------------------------------------------------------------------------ */

/* Stable Diffusion v1's topology, narrower, with 8 channels and more for each group of a norm (there 4 and more; with 32 groups
   of one channel each, a norm takes away every channel's mean over the picture, and with it the colours; the autoencoder has
   one group). Widths are multiples of 24, which kernels of 24 and of 32 lanes both take without much waste. */
static const flis_vae_config SMALL_VAE = {24, 4, {1, 1, 2, 2}, 2, 4, 4, 1.0, 1};
static const flis_clip_config SMALL_CLIP = {0, 64, 4, 4, 256, FLIS_TOKENS};
static const flis_unet_config SMALL_UNET = {4, 4, 48, 4, {1, 1, 2, 1}, {true, true, true, false}, 2, 2, 64, 6};
/* A segmenter is a U-Net from colours to classes, without text (its one transformer sees zeros). */
enum { SEGMENTER_SIDE = 64, SEGMENTER_CLASSES = WORLD_CLASSES + 1 };
static const flis_unet_config SMALL_SEGMENTER = {
    3, SEGMENTER_CLASSES, 24, 4, {1, 1, 2, 2}, {false, false, false, false}, 1, 1, 24, 3};

typedef struct models {
    flis_vae *vae;
    flis_clip *clip;
    flis_unet *unet;
} models;

static void models_free(models *m)
{
    flis_vae_free(m->vae);
    flis_clip_free(m->clip);
    flis_unet_free(m->unet);
    *m = (models){NULL, NULL, NULL};
}

static bool models_walk(flis_ctx *ctx, const models *m, flis_visit *visit, void *user)
{
    if (m->unet) flis_unet_walk(ctx, m->unet, visit, user);
    if (m->vae) flis_vae_walk(ctx, m->vae, visit, user);
    if (m->clip) flis_clip_walk(ctx, m->clip, visit, user);
    return flis_ok(ctx);
}

typedef struct output {
    flis_writer *writer;
    flis_dtype dtype;
} output;

static bool declare(flis_ctx *ctx, void *user, const char *name, flis_param *p)
{
    const output *o = user;
    uint64_t sizes[4];
    for (int i = 0; i < p->rank; i++) sizes[i] = p->shape[i];
    return flis_write_declare(ctx, o->writer, name, o->dtype, p->rank, sizes);
}

static bool write_values(flis_ctx *ctx, void *user, const char *name, flis_param *p)
{
    const output *o = user;
    const size_t count = flis_param_count(p);
    flis_real *values = flis_alloc(ctx, count, sizeof *values);
    (void)name;
    if (values) flis_param_get(p, values);
    if (values) flis_write_real(ctx, o->writer, values, count);
    free(values);
    return flis_ok(ctx);
}

static void number_entry(flis_ctx *ctx, flis_writer *writer, const char *key, double value)
{
    char text[40];
    snprintf(text, sizeof text, "%.9g", value);
    flis_write_metadata(ctx, writer, key, text);
}

/* What no shape tells. SPEC 10.6. */
static void model_metadata(flis_ctx *ctx, flis_writer *writer, const models *m, double scale_factor)
{
    if (m->unet) number_entry(ctx, writer, "unet.num_heads", (double)flis_unet_get_config(m->unet)->heads);
    if (m->clip) number_entry(ctx, writer, "clip.num_heads", (double)flis_clip_get_config(m->clip)->heads);
    if (m->vae) number_entry(ctx, writer, "vae.scale_factor", scale_factor);
    if (m->unet && flis_unet_get_config(m->unet)->groups)
        number_entry(ctx, writer, "unet.norm_num_groups", (double)flis_unet_get_config(m->unet)->groups);
    if (m->vae && flis_vae_get_config(m->vae)->groups)
        number_entry(ctx, writer, "vae.norm_num_groups", (double)flis_vae_get_config(m->vae)->groups);
}

/* Averages, as F16. */
static bool models_write(flis_ctx *ctx, const options *o, const models *m, double scale_factor)
{
    output out = {flis_ok(ctx) ? flis_write_begin(ctx, o->out) : NULL, FLIS_F16};
    if (!out.writer) return false;
    model_metadata(ctx, out.writer, m, scale_factor);
    flis_write_metadata(ctx, out.writer, "flis.trained", STAGE[o->stage]);
    models_walk(ctx, m, declare, &out);
    models_walk(ctx, m, write_values, &out);
    return flis_write_end(ctx, out.writer);
}

/* ---- Data -------------------------------------------------------------------------------------------------------- */

/* Scenes, encoded: what text2image and layout learn from. */
typedef struct latents {
    size_t count, h, w;
    uint16_t *moments; /* F16 [count][h][w][8] */
    uint8_t *label;    /* [count][h][w]: every 8th pixel, which is torch's nearest rule for this and the next scales */
    int16_t *ids, *class_ids; /* [count][77] */
    int16_t *classes;         /* [count] */
} latents;

static void latents_free(latents *l)
{
    free(l->moments);
    free(l->label);
    free(l->ids);
    free(l->class_ids);
    free(l->classes);
    memset(l, 0, sizeof *l);
}

static bool latents_new(flis_ctx *ctx, latents *l, size_t count, size_t h, size_t w)
{
    *l = (latents){.count = count, .h = h, .w = w};
    l->moments = flis_alloc(ctx, count, h * w * 8 * sizeof *l->moments);
    l->label = flis_alloc(ctx, count, h * w);
    l->ids = flis_alloc(ctx, count, FLIS_TOKENS * sizeof *l->ids);
    l->class_ids = flis_alloc(ctx, count, FLIS_TOKENS * sizeof *l->class_ids);
    l->classes = flis_alloc(ctx, count, sizeof *l->classes);
    return flis_ok(ctx);
}

enum { PARTS = 5 };
static const char *const LATENTS_NAME[PARTS] = {"moments", "label", "ids", "class_ids", "classes"};
static const flis_dtype LATENTS_DTYPE[PARTS] = {FLIS_F16, FLIS_U8, FLIS_I16, FLIS_I16, FLIS_I16};

static void little_endian(uint16_t *x, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        const unsigned char b[2] = {(unsigned char)(x[i] & 255), (unsigned char)(x[i] >> 8)};
        memcpy(x + i, b, 2);
    }
}

/* Leaves l in the file's byte order: to be freed next. */
static bool latents_write(flis_ctx *ctx, const options *o, latents *l)
{
    const uint64_t n = l->count,
                   sizes[PARTS][4] = {{n, l->h, l->w, 8}, {n, l->h, l->w}, {n, FLIS_TOKENS}, {n, FLIS_TOKENS}, {n}};
    const int rank[PARTS] = {4, 3, 2, 2, 1};
    void *const values[PARTS] = {l->moments, l->label, l->ids, l->class_ids, l->classes};
    flis_writer *writer = flis_write_begin(ctx, o->out);
    for (int i = 0; writer && i < PARTS; i++)
        flis_write_declare(ctx, writer, LATENTS_NAME[i], LATENTS_DTYPE[i], rank[i], sizes[i]);
    for (int i = 0; writer && i < PARTS; i++) {
        size_t count = 1;
        for (int k = 0; k < rank[i]; k++) count *= (size_t)sizes[i][k];
        if (flis_dtype_size(LATENTS_DTYPE[i]) == 2) little_endian(values[i], count);
        flis_write_raw(ctx, writer, values[i], count);
    }
    return writer && flis_write_end(ctx, writer);
}

static const flis_entry *latents_entry(flis_ctx *ctx, const flis_file *file, int part, int rank)
{
    const flis_entry *e = flis_file_find(file, LATENTS_NAME[part]);
    if (e && e->dtype == LATENTS_DTYPE[part] && e->rank == rank) return e;
    flis_fail(ctx, "%s: wanted a file of latents: a tensor %s of %s with %d dimensions", file->path, LATENTS_NAME[part],
              flis_dtype_name(LATENTS_DTYPE[part]), rank);
    return NULL;
}

static bool read_i16(flis_ctx *ctx, flis_file *file, const flis_entry *e, int16_t *out)
{
    const size_t count = (size_t)flis_entry_count(e);
    int64_t *wide = flis_alloc(ctx, count, sizeof *wide);
    bool good = wide && flis_file_read_i64(ctx, file, e, wide);
    for (size_t i = 0; good && i < count; i++) out[i] = (int16_t)wide[i];
    free(wide);
    return good;
}

static bool latents_read(flis_ctx *ctx, const char *path, latents *l)
{
    static const int rank[PARTS] = {4, 3, 2, 2, 1};
    const flis_entry *e[PARTS] = {NULL};
    flis_file *file = flis_file_open(ctx, path);
    bool good = file != NULL;
    for (int i = 0; good && i < PARTS; i++) good = (e[i] = latents_entry(ctx, file, i, rank[i])) != NULL;
    for (int i = 1; good && i < PARTS; i++)
        if (e[i]->shape[0] != e[0]->shape[0] || ((i == 2 || i == 3) && e[i]->shape[1] != FLIS_TOKENS))
            good = flis_fail(ctx, "%s: %s has another number of samples or tokens than moments", path, LATENTS_NAME[i]);
    good = good && latents_new(ctx, l, (size_t)e[0]->shape[0], (size_t)e[0]->shape[1], (size_t)e[0]->shape[2]);
    good = good && flis_file_read_u16(ctx, file, e[0], l->moments) && flis_file_read_u8(ctx, file, e[1], l->label) &&
           read_i16(ctx, file, e[2], l->ids) && read_i16(ctx, file, e[3], l->class_ids) &&
           read_i16(ctx, file, e[4], l->classes);
    flis_file_close(file);
    return good;
}

/* One prompt's tokens and classes, as latents hold them. */
static bool put_prompt(flis_ctx *ctx, const flis_vocab *vocab, const flis_phrase *phrase, size_t count, int16_t *ids,
                       int16_t *class_ids, int16_t *classes)
{
    flis_prompt prompt;
    if (!flis_prompt_make(ctx, vocab, phrase, count, &prompt)) return false;
    for (size_t i = 0; i < FLIS_TOKENS; i++) {
        ids[i] = (int16_t)prompt.ids[i];
        class_ids[i] = (int16_t)(i < prompt.classes ? prompt.class_ids[i] : -1);
    }
    *classes = (int16_t)prompt.classes;
    flis_prompt_free(&prompt);
    return true;
}

/* The words of a scene: phrases of the map where they are meant for it, else the caption. */
static bool put_scene_prompt(flis_ctx *ctx, const flis_vocab *vocab, const world_scene *s, bool plain, int16_t *ids,
                             int16_t *class_ids, int16_t *classes)
{
    flis_phrase phrase[WORLD_PHRASES];
    char text[WORLD_PHRASES][40];
    char caption[sizeof s->caption];
    if (!plain) {
        memcpy(caption, s->caption, sizeof caption);
        return put_prompt(ctx, vocab, &(flis_phrase){caption, -1}, 1, ids, class_ids, classes);
    }
    for (int i = 0; i < s->phrases; i++) {
        memcpy(text[i], s->phrase[i].text, sizeof text[i]);
        phrase[i] = (flis_phrase){text[i], s->phrase[i].id};
    }
    return put_prompt(ctx, vocab, phrase, (size_t)s->phrases, ids, class_ids, classes);
}

/* ---- The job ----------------------------------------------------------------------------------------------------- */

typedef struct job {
    options o;
    flis_ctx ctx;
    models m;
    flis_vae *autoencoder; /* segmenter: --model; not written with it */
    flis_vocab *vocab;
    training training;
    flis_tape tape;
    flis_schedule schedule;
    latents data;
    photos folder;
    world_scene **scene; /* room for drawing, one for each scene of a batch */
    size_t scenes;
    flis_param edges, colours;       /* [6][3][3][3], [2][3][3][3] */
    int16_t empty[FLIS_TOKENS];      /* tokens of "" */
    double (*loss)(struct job *job); /* of this worker's share of step training.step, with its gradients; -1: failed */
    struct job
        *worker; /* [workers]: copies, each with a context, a tape and a part of the batch; NULL: this does all of it */
    size_t workers, first, units; /* the part: scenes where they are drawn, else samples */
    double share, part_loss;      /* units of all; a worker's last loss */
    struct {
        uint64_t step;
        double loss, norm;
    } * line; /* the log */
    size_t lines, room;
    time_t began;
    uint64_t began_at; /* step */
} job;

/* Draws this part of the batch's scenes, number k of all from (seed, step, k). */
static bool draw_scenes(job *j, const world_rules *rules, int purpose, uint64_t step)
{
    bool good = true;
#ifdef _OPENMP
#pragma omp parallel for num_threads(j->ctx.threads) schedule(dynamic) reduction(&& : good)
#endif
    for (size_t k = 0; k < j->scenes; k++) {
        dice d = dice_of(&j->o, purpose, step, j->first + k);
        good = world_draw(dice_next(&d), rules, j->scene[k]) && good;
    }
    return good || flis_fail(&j->ctx, "the set's rules allow no scene");
}

/* ---- Losses ------------------------------------------------------------------------------------------------------ */

/* The differences to the right and lower neighbour, of each colour. */
static bool make_edges(flis_ctx *ctx, flis_param *p)
{
    flis_real w[6 * 3 * 9] = {0};
    for (size_t c = 0; c < 3; c++)
        for (size_t way = 0; way < 2; way++) {
            flis_real *kernel = w + ((2 * c + way) * 3 + c) * 9;
            kernel[4] = -1;
            kernel[way ? 7 : 5] = 1;
        }
    *p = (flis_param){.rank = 4, .shape = {6, 3, 3, 3}};
    return flis_param_set(ctx, p, w, false);
}

/* Red less green and blue less green, means of 3 x 3 pixels. Of four latent channels a picture's light takes the first, and
   what tells a red house from a green one is little of the absolute error of its pixels. */
static bool make_colours(flis_ctx *ctx, flis_param *p)
{
    flis_real w[2 * 3 * 9] = {0};
    for (size_t c = 0; c < 2; c++)
        for (size_t i = 0; i < 9; i++) {
            w[(c * 3 + 2 * c) * 9 + i] = (flis_real)1 / 9;
            w[(c * 3 + 1) * 9 + i] = (flis_real)-1 / 9;
        }
    *p = (flis_param){.rank = 4, .shape = {2, 3, 3, 3}};
    return flis_param_set(ctx, p, w, false);
}

enum { CROPS = 2 }; /* of each scene */

/* Weights [batch][crop][crop] of the losses: a thing's pixels count more than the ground's, which has most of them. */
static void weigh_crop(const world_scene *s, size_t top, size_t left, size_t crop, double things, flis_real *weight)
{
    for (size_t i = 0; i < crop * crop; i++) {
        const int label = s->label[(top + i / crop) * WORLD_SIDE + left + i % crop];
        weight[i] = world_is_stuff(world_class_of(label)) ? 1 : (flis_real)things;
    }
}

static double vae_loss(job *j)
{
    flis_ctx *ctx = &j->ctx;
    const size_t batch = j->scenes * CROPS, crop = (size_t)j->o.crop;
    flis_mark mark = flis_here(ctx);
    if (!draw_scenes(j, world_set(j->o.set), DICE_CROP, j->training.step)) return -1;
    flis_tensor *x = flis_image(ctx, batch, crop, crop, 3), *noise = flis_image(ctx, batch, crop / 8, crop / 8, 4);
    flis_real *weight = j->o.things_weight == 1 ? NULL : flis_scratch(ctx, batch * crop * crop, sizeof *weight);
    if (!x || !noise || !flis_ok(ctx)) return -1;
    for (size_t k = 0; k < batch; k++) {
        dice d = dice_of(&j->o, DICE_SAMPLE, j->training.step, j->first * CROPS + k);
        size_t left = (size_t)roll(&d, WORLD_SIDE - crop + 1), top = (size_t)roll(&d, WORLD_SIDE - crop + 1);
        for (size_t y = 0; y < crop; y++)
            for (size_t i = 0; i < crop * 3; i++)
                x->x[(k * crop + y) * crop * 3 + i] =
                    (flis_real)j->scene[k / CROPS]->rgb[((top + y) * WORLD_SIDE + left) * 3 + i] / (flis_real)127.5 - 1;
        if (weight) weigh_crop(j->scene[k / CROPS], top, left, crop, j->o.things_weight, weight + k * crop * crop);
        normal(&d, noise->x + k * (crop / 8) * (crop / 8) * 4, (crop / 8) * (crop / 8) * 4);
    }
    flis_tensor *edges = flis_conv(ctx, x, &j->edges, NULL, FLIS_SAME, NULL);
    flis_tensor *colours = flis_conv(ctx, x, &j->colours, NULL, FLIS_SAME, NULL);
    flis_tape_begin(ctx, &j->tape);
    flis_tensor *moments = flis_vae_encode(ctx, j->m.vae, x);
    flis_tensor *y = flis_vae_decode(ctx, j->m.vae, flis_posterior_sample(ctx, moments, noise));
    flis_tensor *y_edges = flis_conv(ctx, y, &j->edges, NULL, FLIS_SAME, NULL);
    flis_tensor *y_colours = j->o.colours > 0 ? flis_conv(ctx, y, &j->colours, NULL, FLIS_SAME, NULL) : NULL;
    double loss = flis_ok(ctx) ? flis_l1(ctx, y, x->x, weight, j->share) : -1;
    if (flis_ok(ctx)) {
        loss += j->o.edges * flis_l1(ctx, y_edges, edges->x, weight, j->share * j->o.edges);
        if (y_colours) loss += j->o.colours * flis_l1(ctx, y_colours, colours->x, weight, j->share * j->o.colours);
        if (!j->o.frozen_encoder) loss += j->o.kl * flis_kl(ctx, moments, j->share * j->o.kl);
    }
    flis_backward(ctx);
    flis_tape_end(ctx);
    flis_rewind(ctx, mark);
    return flis_ok(ctx) ? loss : -1;
}

/* Deviation of the latents of some scenes: what a scale factor of 1 / deviation brings to 1, as Stable Diffusion's 0.18215
   did for its first batch. */
static double latent_deviation(job *j)
{
    enum { SCENES = 32 };
    double sum = 0, squares = 0, count = 0;
    for (uint64_t b = 0; b * j->scenes < SCENES && draw_scenes(j, world_set(j->o.set), DICE_LATENT, b); b++)
        for (size_t k = 0; k < j->scenes && flis_ok(&j->ctx); k++) {
            flis_mark mark = flis_here(&j->ctx);
            flis_tensor *x = flis_image(&j->ctx, 1, WORLD_SIDE, WORLD_SIDE, 3);
            for (size_t i = 0; x && i < WORLD_PIXELS * 3; i++)
                x->x[i] = (flis_real)j->scene[k]->rgb[i] / (flis_real)127.5 - 1;
            flis_tensor *moments = flis_vae_encode(&j->ctx, j->m.vae, x),
                        *noise = flis_image(&j->ctx, 1, WORLD_SIDE / 8, WORLD_SIDE / 8, 4);
            dice d = dice_of(&j->o, DICE_LATENT, b, k + 1000);
            if (noise) normal(&d, noise->x, flis_count(noise));
            flis_tensor *z = flis_posterior_sample(&j->ctx, moments, noise);
            for (size_t i = 0; z && i < flis_count(z); i++) {
                sum += z->x[i];
                squares += (double)z->x[i] * z->x[i];
                count++;
            }
            flis_rewind(&j->ctx, mark);
        }
    return flis_ok(&j->ctx) && count > 0 ? sqrt(squares / count - sum / count * (sum / count)) : 0;
}

/* One batch of text2image and layout: clean latents, timesteps, noise, tokens, layouts. */
typedef struct batch {
    flis_tensor *z, *noise;
    double t[256];
    int32_t *ids;
    flis_rca rca[256];
    const flis_rca *layout[256];
    float *class_ids;
} batch;

static size_t window_side(const job *j, size_t side)
{
    return j->o.window && j->o.window < side ? (size_t)j->o.window : side;
}

/* Where a window of a sample begins: around any place of a phrase that is drawn first, so that a boat is seen as often as the
   sea. A style, which acts everywhere, gets the upper left corner: better any place, but the shipped model was trained so,
   and its commands must give it again. things: the phrase is drawn among things alone, where there are any. Returns the phrase's
   class in the map, -1 for a style. */
static int place_window(const latents *l, size_t at, size_t side, bool things, dice *d, size_t *top, size_t *left)
{
    const uint8_t *label = l->label + at * l->h * l->w;
    const int16_t *of = l->class_ids + at * FLIS_TOKENS;
    int word[FLIS_TOKENS], words = 0;
    for (int pick = things; pick >= 0 && !words; pick--)
        for (int i = 0; i < l->classes[at]; i++)
            if (!pick || (of[i] >= 0 && !world_is_stuff(world_class_of(of[i])))) word[words++] = i;
    const int class = words ? of[word[roll(d, words)]] : -1;
    int seen = 0;
    for (size_t i = 0; i < l->h * l->w; i++) seen += class < 0 || label[i] == class;
    int chosen = seen ? roll(d, seen) : 0;
    size_t i = 0;
    while (class >= 0 && seen && chosen >= 0) chosen -= label[i++] == class;
    i -= i > 0;
    const size_t y = i / l->w, x = i % l->w, up = (size_t)roll(d, (int)side), before = (size_t)roll(d, (int)side);
    *top = y < up ? 0 : y - up + side > l->h ? l->h - side : y - up;
    *left = x < before ? 0 : x - before + side > l->w ? l->w - side : x - before;
    return class;
}

/* Words of phrases that cover few places of the window would be lies there. */
enum { FEWEST_PLACES = 3 };

/* Tokens [77] and classes [77] of sample `at`: those of the window's phrases (and of what acts everywhere), closed up. only: of
   the regions' phrases this one alone; -1: all. */
static void put_words(const latents *l, size_t at, const uint8_t *label, size_t places, bool all, int only,
                      const int16_t *empty, int32_t *ids, float *class_ids, size_t *classes)
{
    const int16_t *from = l->ids + at * FLIS_TOKENS, *class = l->class_ids + at * FLIS_TOKENS;
    const size_t words = (size_t)l->classes[at];
    size_t n = 0;
    ids[0] = empty[0];
    for (size_t i = 0; i < words && i + 1 < FLIS_TOKENS; i++) {
        size_t seen = 0;
        for (size_t k = 0; k < places && class[i] >= 0; k++) seen += label[k] == class[i];
        if (!all && class[i] >= 0 && seen < FEWEST_PLACES) continue;
        if (only >= 0 && class[i] >= 0 && class[i] != only) continue;
        class_ids[n] = class[i];
        ids[++n] = from[i + 1];
    }
    *classes = n;
    for (size_t i = n; i < FLIS_TOKENS; i++) class_ids[i] = -1;
    while (++n < FLIS_TOKENS) ids[n] = empty[1]; /* EOS and padding */
}

static bool gather_latent(job *j, batch *b, size_t k, double scale, dice *d)
{
    const latents *l = &j->data;
    const size_t at = (size_t)(dice_next(d) % l->count), h = window_side(j, l->h), w = window_side(j, l->w),
                 places = h * w;
    const bool dropped = chance(d, (int)(100 * j->o.dropout + 0.5)), layout = j->o.stage == LAYOUT && !dropped;
    size_t top = 0, left = 0, classes;
    int only = -1;
    flis_real *noise = flis_scratch(&j->ctx, places * 4, sizeof *noise);
    uint8_t *label = flis_scratch(&j->ctx, places, 1);
    if (!noise || !label) return false;
    b->t[k] = roll(d, FLIS_TIMESTEPS);
    if (places < l->h * l->w) only = place_window(l, at, h, j->o.things, d, &top, &left);
    if (j->o.alone == 0 || !chance(d, (int)(100 * j->o.alone + 0.5))) only = -1;
    normal(d, noise, places * 4);
    normal(d, b->noise->x + k * places * 4, places * 4);
    for (size_t i = 0; i < places; i++) {
        const size_t from = at * l->h * l->w + (top + i / w) * l->w + left + i % w;
        label[i] = l->label[from];
        for (size_t c = 0; c < 4; c++) {
            double mean = flis_half_to_float(l->moments[from * 8 + c]),
                   log_variance = flis_half_to_float(l->moments[from * 8 + 4 + c]);
            b->z->x[(k * places + i) * 4 + c] =
                (flis_real)(scale * (mean + flis_exp(0.5 * log_variance) * (double)noise[i * 4 + c]));
        }
    }
    put_words(l, at, label, places, places == l->h * l->w, only, j->empty, b->ids + k * FLIS_TOKENS,
              b->class_ids + k * FLIS_TOKENS, &classes);
    for (size_t i = 0; dropped && i < FLIS_TOKENS; i++) b->ids[k * FLIS_TOKENS + i] = j->empty[i];
    b->rca[k] = (flis_rca){label, h, w, b->class_ids + k * FLIS_TOKENS, classes};
    b->layout[k] = layout ? &b->rca[k] : NULL;
    return true;
}

/* A sample of a folder: the picture, resized and perhaps mirrored, through the encoder. */
static bool gather_folder(job *j, batch *b, size_t k, double scale, dice *d)
{
    flis_ctx *ctx = &j->ctx;
    const size_t side = (size_t)j->o.size, h = side / FLIS_FACTOR, places = h * h;
    const bool dropped = chance(d, (int)(100 * j->o.dropout + 0.5)), mirror = chance(d, 50);
    const size_t at = (size_t)(dice_next(d) % j->folder.count);
    flis_real *pixels = flis_scratch(ctx, side * side * 3, sizeof *pixels);
    uint8_t *label = flis_scratch(ctx, side * side, 1);
    flis_phrase *phrase = NULL;
    size_t phrases = 0;
    if (!pixels || !label || !folder_sample(ctx, &j->folder, at, side, mirror, pixels, label, &phrase, &phrases))
        return false;
    int16_t ids[FLIS_TOKENS], class_ids[FLIS_TOKENS], classes = 0;
    bool good = put_prompt(ctx, j->vocab, phrase, phrases, ids, class_ids, &classes) ||
                flis_fail_in(ctx, j->folder.picture[at]);
    folder_phrases_free(phrase, phrases);
    flis_mark mark = flis_here(ctx);
    flis_tensor *x = good ? flis_image(ctx, 1, side, side, 3) : NULL;
    if (x) memcpy(x->x, pixels, side * side * 3 * sizeof *pixels);
    flis_tensor *moments = flis_vae_encode(ctx, j->m.vae, x), *noise = flis_image(ctx, 1, h, h, 4);
    if (noise) normal(d, noise->x, flis_count(noise));
    flis_tensor *z = flis_posterior_sample(ctx, moments, noise);
    for (size_t i = 0; z && i < places * 4; i++) b->z->x[k * places * 4 + i] = (flis_real)(scale * (double)z->x[i]);
    flis_rewind(ctx, mark);
    b->t[k] = roll(d, FLIS_TIMESTEPS);
    normal(d, b->noise->x + k * places * 4, places * 4);
    for (size_t i = 0; i < FLIS_TOKENS; i++) {
        b->ids[k * FLIS_TOKENS + i] = dropped ? j->empty[i] : ids[i];
        b->class_ids[k * FLIS_TOKENS + i] = class_ids[i];
    }
    b->rca[k] = (flis_rca){label, side, side, b->class_ids + k * FLIS_TOKENS, (size_t)classes};
    b->layout[k] = j->o.stage == LAYOUT && !dropped ? &b->rca[k] : NULL;
    return flis_ok(ctx);
}

/* z_t = sqrt(alpha_bar) z + sqrt(1 - alpha_bar) noise; SPEC 14.6. */
static double diffusion_loss(job *j)
{
    flis_ctx *ctx = &j->ctx;
    const size_t n = j->units, h = j->folder.count ? (size_t)j->o.size / FLIS_FACTOR : window_side(j, j->data.h),
                 w = j->folder.count ? h : window_side(j, j->data.w), places = h * w;
    const double scale = flis_vae_get_config(j->m.vae)->scale_factor;
    flis_mark mark = flis_here(ctx);
    batch *b = flis_scratch(ctx, 1, sizeof *b);
    if (!b) return -1;
    memset(b, 0, sizeof *b);
    b->z = flis_image(ctx, n, h, w, 4);
    b->noise = flis_image(ctx, n, h, w, 4);
    b->ids = flis_scratch(ctx, n * FLIS_TOKENS, sizeof *b->ids);
    b->class_ids = flis_scratch(ctx, n * FLIS_TOKENS, sizeof *b->class_ids);
    if (!b->z || !b->noise || !b->ids || !b->class_ids) return -1;
    for (size_t k = 0; k < n; k++) {
        dice d = dice_of(&j->o, DICE_SAMPLE, j->training.step, j->first + k);
        if (!(j->folder.count ? gather_folder : gather_latent)(j, b, k, scale, &d)) return -1;
        const double bar = j->schedule.alpha_bar[(size_t)b->t[k]], signal = sqrt(bar), noise = sqrt(1 - bar);
        for (size_t i = k * places * 4; i < (k + 1) * places * 4; i++)
            b->z->x[i] = (flis_real)(signal * (double)b->z->x[i] + noise * (double)b->noise->x[i]);
    }
    flis_tape_begin(ctx, &j->tape);
    flis_tensor *text = flis_clip_encode(ctx, j->m.clip, b->ids, n);
    flis_tensor *eps = flis_unet_eps(ctx, j->m.unet, b->z, b->t, text, b->layout);
    const double loss = flis_ok(ctx) ? flis_mse(ctx, eps, b->noise->x, NULL, j->share) : -1;
    flis_backward(ctx);
    flis_tape_end(ctx);
    flis_rewind(ctx, mark);
    return flis_ok(ctx) ? loss : -1;
}

static double segmenter_loss(job *j)
{
    enum { PLACES = SEGMENTER_SIDE * SEGMENTER_SIDE };
    flis_ctx *ctx = &j->ctx;
    flis_mark mark = flis_here(ctx);
    const size_t n = j->scenes;
    double t[256] = {0};
    if (!draw_scenes(j, world_set(j->o.set), DICE_SAMPLE, j->training.step)) return -1;
    flis_tensor *x = flis_image(ctx, n, SEGMENTER_SIDE, SEGMENTER_SIDE, 3),
                *text = flis_rows(ctx, n, FLIS_TOKENS, SMALL_SEGMENTER.context);
    uint8_t *label = flis_scratch(ctx, n * PLACES, 1);
    if (!x || !text || !label) return -1;
    memset(text->x, 0, flis_count(text) * sizeof *text->x);
    for (size_t k = 0; k < n; k++) {
        if (j->autoencoder && (j->first + k) % 2 &&
            !through_autoencoder(ctx, j->autoencoder, WORLD_SIDE, j->scene[k]->rgb))
            return -1;
        half_picture(j->scene[k]->rgb, WORLD_SIDE, WORLD_SIDE, x->x + k * PLACES * 3);
        for (size_t i = 0; i < PLACES; i++)
            label[k * PLACES + i] = (uint8_t)world_class_of(
                j->scene[k]->label[i / SEGMENTER_SIDE * 2 * WORLD_SIDE + i % SEGMENTER_SIDE * 2]);
    }
    flis_tape_begin(ctx, &j->tape);
    flis_tensor *y = flis_unet_eps(ctx, j->m.unet, x, t, text, NULL);
    const double loss = flis_ok(ctx) ? flis_cross_entropy(ctx, y, label, 0, j->share) : -1;
    flis_backward(ctx);
    flis_tape_end(ctx);
    flis_rewind(ctx, mark);
    return flis_ok(ctx) ? loss : -1;
}

/* ---- The log and its plot ---------------------------------------------------------------------------------------- */

static bool log_add(job *j, uint64_t step, double loss, double norm)
{
    if (j->lines == j->room) {
        size_t room = j->room ? 2 * j->room : 1024;
        void *grown = realloc(j->line, room * sizeof *j->line);
        if (!grown) return flis_fail(&j->ctx, "out of memory: a log of %zu lines", room);
        j->line = grown;
        j->room = room;
    }
    j->line[j->lines].step = step;
    j->line[j->lines].loss = loss;
    j->line[j->lines++].norm = norm;
    return true;
}

static bool log_write(job *j)
{
    FILE *file = fopen(j->o.log, "wb");
    bool good = file && fputs("step\tloss\tgradient_norm\n", file) >= 0;
    for (size_t i = 0; good && i < j->lines; i++)
        good = fprintf(file, "%llu\t%.9g\t%.9g\n", (unsigned long long)j->line[i].step, j->line[i].loss,
                       j->line[i].norm) > 0;
    if (file && fclose(file) != 0) good = false;
    return good || flis_fail(&j->ctx, "%s: cannot be written: %s", j->o.log, strerror(errno));
}

/* The lines up to the step of the state, so that a resumed log is one log. */
static bool log_read(job *j)
{
    size_t length = 0;
    char *text = flis_read_file(&j->ctx, j->o.log, (size_t)1 << 30, &length);
    for (char *line = text ? strchr(text, '\n') : NULL; line && line[1]; line = strchr(line + 1, '\n')) {
        char *end = line + 1;
        uint64_t step = strtoull(end, &end, 10);
        double loss = strtod(end, &end), norm = strtod(end, &end);
        if (step > j->training.step) break;
        if (!log_add(j, step, loss, norm)) break;
    }
    free(text);
    return flis_ok(&j->ctx);
}

enum { PLOT_W = 720, PLOT_H = 360, PLOT_LEFT = 64, PLOT_BOTTOM = 40, PLOT_TOP = 16, PLOT_POINTS = 600 };

/* Means of neighbouring lines, at most PLOT_POINTS of them; log scale, since losses fall by orders of magnitude. */
static bool plot_write(job *j)
{
    const size_t points = j->lines < PLOT_POINTS ? j->lines : PLOT_POINTS;
    double low = HUGE_VAL, high = 0, mean[PLOT_POINTS];
    if (!points) return true;
    for (size_t i = 0; i < points; i++) {
        const size_t first = i * j->lines / points, last = (i + 1) * j->lines / points;
        mean[i] = 0;
        for (size_t k = first; k < last; k++) mean[i] += j->line[k].loss / (double)(last - first);
        low = mean[i] < low ? mean[i] : low;
        high = mean[i] > high ? mean[i] : high;
    }
    const double floor10 = low > 0 ? flis_log(low) : -1,
                 span = (high > low && low > 0 ? flis_log(high) : floor10 + 1) - floor10;
    FILE *file = fopen(j->o.plot, "wb");
    if (!file) return flis_fail(&j->ctx, "%s: cannot be written: %s", j->o.plot, strerror(errno));
    fprintf(
        file,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %d\" font-family=\"sans-serif\" font-size=\"12\">\n"
        "<title>train %s: loss</title><rect width=\"100%%\" height=\"100%%\" fill=\"#fff\"/>\n",
        PLOT_W, PLOT_H, STAGE[j->o.stage]);
    for (int i = 0; i <= 4; i++) {
        double y = PLOT_TOP + (PLOT_H - PLOT_TOP - PLOT_BOTTOM) * i / 4.0,
               value = flis_exp(floor10 + span * (4 - i) / 4);
        fprintf(file,
                "<path d=\"M%d %.1fH%d\" stroke=\"#ddd\"/><text x=\"%d\" y=\"%.1f\" text-anchor=\"end\">%.3g</text>\n",
                PLOT_LEFT, y, PLOT_W - 8, PLOT_LEFT - 6, y + 4, value);
    }
    fprintf(file,
            "<text x=\"%d\" y=\"%d\" text-anchor=\"end\">%llu steps of %llu samples</text>\n<polyline fill=\"none\" "
            "stroke=\"#0a58a8\" "
            "points=\"",
            PLOT_W - 8, PLOT_H - 12, (unsigned long long)j->line[j->lines - 1].step, (unsigned long long)j->o.batch);
    for (size_t i = 0; i < points; i++)
        fprintf(file, "%.1f,%.1f ", PLOT_LEFT + (PLOT_W - 8 - PLOT_LEFT) * ((double)i + 0.5) / (double)points,
                PLOT_TOP + (PLOT_H - PLOT_TOP - PLOT_BOTTOM) *
                               (1 - (flis_log(mean[i] > 0 ? mean[i] : 1e-9) - floor10) / span));
    fputs("\"/>\n</svg>\n", file);
    return fclose(file) == 0 || flis_fail(&j->ctx, "%s: cannot be written", j->o.plot);
}

/* ---- The loop ---------------------------------------------------------------------------------------------------- */

/* What must be the same when resuming: everything that the bits of a step depend on. */
static void fingerprint(const options *o, char *out, size_t room)
{
    char later[96] = ""; /* options of later versions, where they are used: older states go on */
    size_t at = 0;
    if (o->workers > 1) at += (size_t)snprintf(later, sizeof later, " workers %llu", (unsigned long long)o->workers);
    if (o->alone > 0) at += (size_t)snprintf(later + at, sizeof later - at, " alone %.9g", o->alone);
    if (o->things_weight != 1) snprintf(later + at, sizeof later - at, " things weight %.9g", o->things_weight);
    snprintf(out, room,
             "%s seed %llu batch %llu warmup %llu rate %.9g decay %.9g ema %.9g clip %.9g dropout %.9g kl %.9g edges "
             "%.9g colours %.9g "
             "size %llu crop %llu window %llu set %s%s%s%s%s%s",
             STAGE[o->stage], (unsigned long long)o->seed, (unsigned long long)o->batch, (unsigned long long)o->warmup,
             o->rate, o->decay, o->ema, o->clip, o->dropout, o->kl, o->edges, o->colours, (unsigned long long)o->size,
             (unsigned long long)o->crop, (unsigned long long)o->window,
             o->data  ? ""
             : o->set ? o->set
                      : "",
             o->frozen_text ? " frozen text" : "", o->frozen_encoder ? " frozen encoder" : "",
             o->things ? " things" : "", o->stage == SEGMENTER && o->model ? " through an autoencoder" : "", later);
}

static bool state_write(job *j)
{
    char text[400];
    flis_writer *writer = flis_write_begin(&j->ctx, j->o.state);
    if (!writer) return false;
    fingerprint(&j->o, text, sizeof text);
    flis_write_metadata(&j->ctx, writer, "train.options", text);
    model_metadata(&j->ctx, writer, &j->m,
                   j->m.vae ? flis_vae_get_config(j->m.vae)->scale_factor : 1); /* it can be looked at */
    training_declare(&j->ctx, writer, &j->training);
    training_write(&j->ctx, writer, &j->training);
    return flis_write_end(&j->ctx, writer) && log_write(j);
}

static bool state_read(job *j)
{
    char text[400];
    flis_file *file = flis_file_open(&j->ctx, j->o.state);
    if (!file) return false;
    const char *saved = flis_file_metadata(file, "train.options");
    fingerprint(&j->o, text, sizeof text);
    bool good = saved && strcmp(saved, text) == 0;
    if (!good)
        flis_fail(&j->ctx, "%s: its options were \"%s\", wanted \"%s\"", j->o.state, saved ? saved : "none", text);
    good = good && training_read(&j->ctx, file, &j->training);
    flis_file_close(file);
    return good && log_read(j);
}

/* Rises over the warmup, stays, and falls to a tenth over the last fifth. */
static double rate_at(const options *o, uint64_t step)
{
    const double done = (double)step + 1, fall = 0.2 * (double)o->steps, left = (double)o->steps - (double)step;
    if (done < (double)o->warmup) return o->rate * done / (double)o->warmup;
    return left < fall ? o->rate * (0.1 + 0.9 * left / fall) : o->rate;
}

static volatile sig_atomic_t stopped;
static void stop(int unused)
{
    (void)unused, stopped = 1;
}

static void show(const job *j, double loss)
{
    const double seconds = difftime(time(NULL), j->began), done = (double)(j->training.step - j->began_at),
                 speed = seconds > 0 ? done / seconds : 0,
                 left = speed > 0 ? (double)(j->o.steps - j->training.step) / speed : 0;
    if (j->o.quiet) return;
    fprintf(stderr, "%s%s: step %llu of %llu  loss %.4f  norm %.2f  %.1f samples/s  %d:%02d:%02d left",
            flis_terminal() ? "\r" : "", STAGE[j->o.stage], (unsigned long long)j->training.step,
            (unsigned long long)j->o.steps, loss, j->training.norm, speed * (double)j->o.batch, (int)(left / 3600),
            (int)(left / 60) % 60, (int)left % 60);
    fputs(flis_terminal() ? "   " : "\n", stderr);
}

/* A small network's operations are too short to share out well (measured: two threads train 1.1 to 1.3 times as fast as one); so the
   batch is dealt out, and every worker takes its part through the whole network with one thread. */
static bool workers_make(job *j)
{
    const size_t workers = (size_t)j->o.workers;
    j->units = j->scenes ? j->scenes : (size_t)j->o.batch;
    j->share = 1;
    if (workers < 2) return true;
    if (workers > j->units)
        return flis_fail(&j->ctx, "--workers %zu: more than the %zu parts that a batch has", workers, j->units);
    if (!(j->worker = flis_alloc(&j->ctx, workers, sizeof *j->worker))) return false;
    for (size_t i = 0; i < workers; i++) {
        job *own = &j->worker[i];
        *own = *j;
        own->worker = NULL;
        own->tape = (flis_tape){.worker = i, .checkpoint = j->tape.checkpoint};
        own->first = i * j->units / workers;
        own->units = (i + 1) * j->units / workers - own->first;
        own->share = (double)own->units / (double)j->units;
        if (j->scenes) own->scene = j->scene + own->first, own->scenes = own->units;
        j->workers = i + 1;
        if (!flis_init(&own->ctx)) return flis_fail(&j->ctx, "%s", own->ctx.error);
        own->ctx.threads = 1;
    }
    return true;
}

static void workers_free(job *j)
{
    for (size_t i = 0; i < j->workers; i++) {
        flis_tape_free(&j->worker[i].tape);
        flis_free(&j->worker[i].ctx);
    }
    free(j->worker);
}

/* The loss of a batch, its gradients in the workers' shares. */
static double batch_loss(job *j)
{
    double loss = 0;
    if (!j->worker) return j->loss(j);
#ifdef _OPENMP
#pragma omp parallel for num_threads(j->ctx.threads) schedule(dynamic)
#endif
    for (size_t i = 0; i < j->workers; i++) {
        j->worker[i].training.step = j->training.step;
        j->worker[i].part_loss = j->worker[i].loss(&j->worker[i]);
    }
    for (size_t i = 0; i < j->workers; i++) {
        if (!flis_ok(&j->worker[i].ctx)) flis_fail(&j->ctx, "%s", j->worker[i].ctx.error);
        loss += j->worker[i].share * j->worker[i].part_loss;
    }
    return loss;
}

/* Trains until all steps are done or it is stopped. *finished tells which; either way the state is saved. */
static bool loop(job *j, bool *finished)
{
    double sum = 0;
    time_t saved = time(NULL);
    j->began = saved;
    j->began_at = j->training.step;
    *finished = true;
    while (j->training.step < j->o.steps) {
        j->training.rate = rate_at(&j->o, j->training.step);
        const double loss = batch_loss(j);
        if (!flis_ok(&j->ctx) || !training_step(&j->ctx, &j->training)) return false;
        sum += loss;
        if (j->training.step % LOG_EVERY && j->training.step != j->o.steps) continue;
        const uint64_t part = j->training.step % LOG_EVERY ? j->training.step % LOG_EVERY : LOG_EVERY;
        if (!log_add(j, j->training.step, sum / (double)part, j->training.norm)) return false;
        show(j, sum / (double)part);
        sum = 0;
        const time_t now = time(NULL);
        /* time() counts whole seconds: almost one more may have passed. */
        const bool last = stopped || (j->o.minutes > 0 && difftime(now, j->began) + 1 > 60 * j->o.minutes);
        if (last || (j->o.every > 0 && difftime(now, saved) >= 60 * j->o.every)) {
            if (!state_write(j) || !plot_write(j)) return false;
            saved = now;
        }
        if (!last) continue;
        *finished = j->training.step >= j->o.steps;
        break;
    }
    if (!j->o.quiet && flis_terminal()) fputc('\n', stderr);
    return state_write(j) && plot_write(j);
}

/* ---- Deaf to padding ---------------------------------------------------------------------------------------------- */

/* A caption has some ten tokens, and 65 of padding: a new cross-attention gives each word a seventy-seventh, and what words say
   is lost in what padding says to all captions alike. So norm2's biases begin as 1, which gives every query a part q1 = Wq 1
   that all places share, and keys begin as Wk - s q1 f^T / |f|^2, f the padding's features: that adds DEAF to padding's mean
   score, in each head, and nothing to features at right angles to f. */
enum { DEAF = -6 };

typedef struct deafness {
    const flis_real *padding; /* f: [context] */
    size_t context, heads;
    double *shared; /* q1: [c], from to_q until to_k comes by */
} deafness;

static bool deafen(flis_ctx *ctx, void *user, const char *name, flis_param *p)
{
    deafness *f = user;
    const bool q = ends(name, ".attn2.to_q.weight"), k = ends(name, ".attn2.to_k.weight");
    if (!q && !k && !ends(name, ".transformer_blocks.0.norm2.bias")) return true;
    const size_t rows = p->shape[0], columns = flis_param_count(p) / rows, head = rows / f->heads;
    flis_real *w = flis_alloc(ctx, rows * columns, sizeof *w);
    if (!w) return false;
    flis_param_get(p, w);
    if (q) {
        free(f->shared);
        f->shared = flis_alloc(ctx, rows, sizeof *f->shared);
        for (size_t i = 0; f->shared && i < rows; i++) {
            f->shared[i] = 0;
            for (size_t c = 0; c < columns; c++) f->shared[i] += (double)w[i * columns + c];
        }
    } else if (k) {
        double length = 0;
        for (size_t i = 0; i < columns; i++) length += (double)f->padding[i] * (double)f->padding[i];
        for (size_t h = 0; h < rows; h += head) {
            double square = 0;
            for (size_t i = h; i < h + head; i++) square += f->shared[i] * f->shared[i];
            for (size_t i = h; i < h + head; i++)
                for (size_t c = 0; c < columns; c++)
                    w[i * columns + c] +=
                        (flis_real)(DEAF * sqrt((double)head) / square * f->shared[i] * (double)f->padding[c] / length);
        }
    } else
        for (size_t i = 0; i < rows; i++) w[i] = 1;
    if (!q) flis_param_set(ctx, p, w, false);
    free(w);
    return flis_ok(ctx);
}

static bool start_deaf(job *j)
{
    flis_ctx *ctx = &j->ctx;
    flis_mark mark = flis_here(ctx);
    int32_t ids[FLIS_TOKENS];
    deafness f = {NULL, flis_clip_get_config(j->m.clip)->width, flis_unet_get_config(j->m.unet)->heads, NULL};
    flis_real *mean = flis_scratch(ctx, f.context, sizeof *mean);
    for (size_t i = 0; i < FLIS_TOKENS; i++) ids[i] = j->empty[i];
    const flis_tensor *text = flis_clip_encode(ctx, j->m.clip, ids, 1);
    if (!text || !mean) return false;
    for (size_t c = 0; c < f.context; c++) {
        mean[c] = 0;
        for (size_t i = 1; i < FLIS_TOKENS; i++) mean[c] += text->x[i * f.context + c] / (FLIS_TOKENS - 1);
    }
    f.padding = mean;
    flis_unet_walk(ctx, j->m.unet, deafen, &f);
    free(f.shared);
    flis_rewind(ctx, mark);
    return flis_ok(ctx);
}

/* ---- Stages ------------------------------------------------------------------------------------------------------ */

static bool scenes_make(job *j, size_t count)
{
    j->scene = flis_alloc(&j->ctx, count, sizeof *j->scene);
    for (size_t i = 0; j->scene && i < count; i++) {
        if (!(j->scene[i] = flis_alloc(&j->ctx, 1, sizeof **j->scene))) return false;
        j->scenes = i + 1;
    }
    return flis_ok(&j->ctx);
}

static bool empty_prompt(job *j)
{
    int16_t class_ids[FLIS_TOKENS], classes;
    char text[] = "";
    return put_prompt(&j->ctx, j->vocab, &(flis_phrase){text, -1}, 1, j->empty, class_ids, &classes);
}

/* The parts of a model file that a stage needs. */
static bool models_load(job *j, bool clip, bool unet, bool decoder)
{
    flis_file *file = flis_model_open(&j->ctx, j->o.model);
    if (!file) return false;
    bool good = (j->m.vae = flis_vae_load(&j->ctx, file, decoder, true)) != NULL;
    if (good && clip) good = (j->m.clip = flis_clip_load(&j->ctx, file)) != NULL;
    if (good && unet) good = (j->m.unet = flis_unet_load(&j->ctx, file)) != NULL;
    flis_file_close(file);
    if (good && clip && flis_clip_get_config(j->m.clip)->vocab < flis_vocab_size(j->vocab))
        good = flis_fail(&j->ctx, "%s: its text encoder knows %zu tokens, the vocabulary has %zu", j->o.model,
                         flis_clip_get_config(j->m.clip)->vocab, flis_vocab_size(j->vocab));
    return good;
}

/* With a frozen encoder latents stay what they are, so that models of them remain good while pictures become better. */
static bool visit_decoder(flis_ctx *ctx, void *user, const char *name, flis_param *p)
{
    return strstr(name, ".encoder.") || strstr(name, ".quant_conv.") || training_visit(ctx, user, name, p);
}

/* The parts that are trained: those of --start, else new ones. */
static bool models_begin(job *j, const flis_vae_config *vae, const flis_clip_config *clip, const flis_unet_config *unet)
{
    flis_file *file = j->o.start ? flis_model_open(&j->ctx, j->o.start) : NULL;
    models begun = {NULL, NULL, NULL};
    if (j->o.start && !file) return false;
    if (vae)
        begun.vae = j->m.vae = file ? flis_vae_load(&j->ctx, file, true, true) : flis_vae_new(&j->ctx, vae, true, true);
    if (clip) begun.clip = j->m.clip = file ? flis_clip_load(&j->ctx, file) : flis_clip_new(&j->ctx, clip);
    if (unet) begun.unet = j->m.unet = file ? flis_unet_load(&j->ctx, file) : flis_unet_new(&j->ctx, unet);
    flis_file_close(file);
    if (flis_ok(&j->ctx) && !file) models_walk(&j->ctx, &begun, new_weights, &j->o);
    if (j->o.frozen_text) begun.clip = NULL;
    return flis_ok(&j->ctx) &&
           models_walk(&j->ctx, &begun, j->o.frozen_encoder ? visit_decoder : training_visit, &j->training);
}

static bool open_vocab(job *j)
{
    j->vocab = flis_vocab_read(&j->ctx, j->o.vocab);
    return j->vocab && empty_prompt(j);
}

static bool prepare_vae(job *j)
{
    j->loss = vae_loss;
    return make_edges(&j->ctx, &j->edges) && make_colours(&j->ctx, &j->colours) &&
           scenes_make(j, ((size_t)j->o.batch + CROPS - 1) / CROPS) && models_begin(j, &SMALL_VAE, NULL, NULL);
}

static bool prepare_data(job *j)
{
    if (j->o.data) return folder_open(&j->ctx, j->o.data, j->o.stage == LAYOUT, &j->folder);
    if (!latents_read(&j->ctx, j->o.latents, &j->data)) return false;
    if (j->o.alone > 0 && j->o.window >= j->data.h && j->o.window >= j->data.w)
        return flis_fail(&j->ctx, "%s: --alone wants windows smaller than its %zu x %zu", j->o.latents, j->data.h,
                         j->data.w);
    for (size_t i = 0; i < j->data.count * FLIS_TOKENS && j->o.window; i++)
        if (j->data.class_ids[i] >= 0) return true;
    return !j->o.window ||
           flis_fail(&j->ctx, "%s: its words have no places, as --window wants: make it from a plain set",
                     j->o.latents);
}

static bool prepare_text2image(job *j)
{
    flis_clip_config clip = SMALL_CLIP;
    j->loss = diffusion_loss;
    if (!open_vocab(j) || !models_load(j, false, false, true) || !prepare_data(j)) return false;
    clip.vocab = flis_vocab_size(j->vocab);
    return models_begin(j, NULL, &clip, &SMALL_UNET) && (j->o.start || start_deaf(j));
}

static bool prepare_layout(job *j)
{
    j->loss = diffusion_loss;
    return open_vocab(j) && models_load(j, true, true, true) && prepare_data(j) &&
           flis_unet_walk(&j->ctx, j->m.unet, training_visit, &j->training);
}

static bool prepare_segmenter(job *j)
{
    j->loss = segmenter_loss;
    flis_file *file = j->o.model ? flis_model_open(&j->ctx, j->o.model) : NULL;
    if (file) j->autoencoder = flis_vae_load(&j->ctx, file, true, true);
    flis_file_close(file);
    return flis_ok(&j->ctx) && scenes_make(j, (size_t)j->o.batch) && models_begin(j, NULL, NULL, &SMALL_SEGMENTER);
}

/* Averages are what a model is written with; the training goes on with the others. */
static bool finish(job *j)
{
    double scale_factor = j->m.vae ? flis_vae_get_config(j->m.vae)->scale_factor : 0;
    const bool averages = j->training.ema > 0;
    if (averages && !training_swap(&j->ctx, &j->training)) return false;
    if (j->o.stage == VAE && !j->o.frozen_encoder) {
        const double deviation = latent_deviation(j);
        if (!(deviation > 0)) return flis_fail(&j->ctx, "the latents have no deviation");
        scale_factor = 1 / deviation;
    }
    return models_write(&j->ctx, &j->o, &j->m, scale_factor) && (!averages || training_swap(&j->ctx, &j->training));
}

static bool train(job *j)
{
    static bool (*const prepare[STAGES])(job * j) = {prepare_vae, NULL, prepare_text2image, prepare_layout,
                                                     prepare_segmenter};
    bool finished = false;
    flis_schedule_make(&j->schedule);
    training_default(&j->training);
    j->training.decay = j->o.decay;
    j->training.ema = j->o.ema;
    j->training.clip = j->o.clip;
    j->training.workers = (size_t)j->o.workers;
    j->tape.checkpoint = j->o.less_memory;
    if (!prepare[j->o.stage](j) || !workers_make(j)) return false;
    if (j->o.resume && !state_read(j)) return false;
    if (!loop(j, &finished)) return false;
    if (finished) return finish(j);
    if (!j->o.quiet)
        fprintf(stderr, "train: stopped at step %llu; --resume goes on\n", (unsigned long long)j->training.step);
    return true;
}

/* Encodes scenes seed, seed + 1, …: the flips and crops of photographs are not needed where scenes are never short. */
static bool make_latents(job *j)
{
    enum { BATCH = 16, SIDE = WORLD_SIDE / FLIS_FACTOR };
    const world_rules *rules = world_set(j->o.set);
    latents *l = &j->data;
    if (!open_vocab(j) || !models_load(j, false, false, false) || !scenes_make(j, BATCH)) return false;
    if (!latents_new(&j->ctx, l, (size_t)j->o.count, SIDE, SIDE)) return false;
    for (size_t first = 0; first < l->count && !stopped; first += BATCH) {
        const size_t n = l->count - first < BATCH ? l->count - first : BATCH;
        if (!draw_scenes(j, rules, DICE_SAMPLE, first / BATCH)) return false;
        flis_mark mark = flis_here(&j->ctx);
        flis_tensor *x = flis_image(&j->ctx, n, WORLD_SIDE, WORLD_SIDE, 3);
        for (size_t k = 0; x && k < n; k++) {
            const world_scene *s = j->scene[k];
            for (size_t i = 0; i < WORLD_PIXELS * 3; i++)
                x->x[k * WORLD_PIXELS * 3 + i] = (flis_real)s->rgb[i] / (flis_real)127.5 - 1;
            for (size_t i = 0; i < SIDE * SIDE; i++)
                l->label[(first + k) * SIDE * SIDE + i] = s->label[i / SIDE * 8 * WORLD_SIDE + i % SIDE * 8];
            const size_t at = (first + k) * FLIS_TOKENS;
            if (!put_scene_prompt(&j->ctx, j->vocab, s, rules->plain, l->ids + at, l->class_ids + at,
                                  l->classes + first + k))
                return false;
        }
        const flis_tensor *moments = flis_vae_encode(&j->ctx, j->m.vae, x);
        for (size_t i = 0; moments && i < flis_count(moments); i++)
            l->moments[first * SIDE * SIDE * 8 + i] = flis_float_to_half((float)moments->x[i]);
        flis_rewind(&j->ctx, mark);
        if (!flis_ok(&j->ctx)) return false;
        if (!j->o.quiet && flis_terminal()) fprintf(stderr, "\rlatents: %zu of %zu", first + n, l->count);
    }
    if (!j->o.quiet && flis_terminal()) fputc('\n', stderr);
    return stopped ? flis_fail(&j->ctx, "interrupted") : latents_write(&j->ctx, &j->o, l);
}

/* ---- The program ------------------------------------------------------------------------------------------------- */

static const char HELP[] =
    "usage: train vae -o VAE.safetensors [options]\n"
    "       train latents --model VAE.safetensors [--set NAME] [--count N] -o LATENTS.safetensors\n"
    "       train text2image --model VAE.safetensors --latents LATENTS.safetensors -o MODEL.safetensors [options]\n"
    "       train layout --model MODEL.safetensors --latents LATENTS.safetensors -o MODEL.safetensors [options]\n"
    "       train layout --model SD.safetensors --data FOLDER -o MODEL.safetensors [options]\n"
    "       train segmenter [--model VAE.safetensors] -o SEGMENTER.safetensors [options]\n"
    "Trains flis' small model on the small world (see tools/world), or tunes a model of Stable Diffusion v1's kind to "
    "layouts.\n"
    "  --data FOLDER   pictures/NAME.png or .ppm, labels/NAME.png or .pgm, classes.txt (lines of label, tab, name); "
    "text2image:\n"
    "                  captions.txt, one line for each picture in the order of their names\n"
    "  --size N        pictures are resized to N x N (bicubic; labels nearest) and mirrored half of the time; default "
    "512\n"
    "  --vocab FILE    default models/vocab.txt\n"
    "  --set NAME      of the small world; default text2image, for latents too\n"
    "  --count N       latents: how many scenes; default 20000\n"
    "  --steps N       updates in all; --batch N: samples for each\n"
    "  --rate R        learning rate, reached after --warmup N steps; falls to a tenth over the last fifth\n"
    "  --decay D       AdamW's weight decay; --ema D: decay of the averages that are written; --clip N: of the "
    "gradient's norm\n"
    "  --frozen-text   text2image: the text encoder stays as it was drawn, or as --start has it\n"
    "  --frozen-encoder  vae: the decoder alone goes on from --start, for the same latents\n"
    "  --model FILE    segmenter: every second scene is seen as that autoencoder shows it\n"
    "  --dropout P     share of samples without words, so that guidance works\n"
    "  --start FILE    vae, text2image, segmenter: weights to go on from (an earlier -o), instead of new ones\n"
    "  --kl W          vae: weight of the KL divergence; --edges W: of differences between neighbours; --colours W: "
    "between colours\n"
    "  --things-weight W  vae: the pixels of things count W times as much as the others; default 1\n"
    "  --crop N        vae: two N x N pieces of each scene; default 64\n"
    "  --window N      text2image, layout: N x N latents of each scene, with the phrases that are seen in them (of a "
    "plain set)\n"
    "  --things        with --window: around things alone, a boat more often than the sea\n"
    "  --alone P       text2image, with --window: share of windows that name only the phrase which they are cut around "
    "(and the\n"
    "                  picture's style; those cut around a style name all)\n"
    "  --seed S        default 0\n"
    "  --workers N     data parallelism: deals the batch out to N that train at the same time, each with one thread; "
    "faster\n"
    "                  than --threads where the network is small (another N gives other bits, other --threads do not); "
    "default 1\n"
    "  --less-memory   computes blocks twice instead of keeping what is inside (the same bits)\n"
    "  --state FILE    default OUT.state; written every --every MINUTES (10) and at the end, or after --minutes M or "
    "Ctrl-C;\n"
    "  --resume        goes on from it: the same bits as without a break\n"
    "  --log FILE      default OUT.tsv: step, loss, norm of the gradient; --plot FILE: default OUT.svg\n"
    "  --threads N, -q, --help, --version\n"
    "exit status: 0 done (or stopped, with its state saved), 1 failed (one sentence on stderr), 2 wrong usage\n";

typedef struct choice {
    const char *name;
    const char **text;
    uint64_t *number;
    double *amount;
    bool *flag;
} choice;

static int misused(const char *what, const char *why)
{
    fprintf(stderr, "train: %s%s (see train --help)\n", what, why);
    return 2;
}

static bool whole(const char *text, uint64_t *out)
{
    uint64_t value = 0;
    for (const char *c = text; *c; c++) {
        if (*c < '0' || *c > '9' || value > (UINT64_MAX - (uint64_t)(*c - '0')) / 10) return false;
        value = value * 10 + (uint64_t)(*c - '0');
    }
    *out = value;
    return *text != 0;
}

static bool amount(const char *text, double *out)
{
    char *end;
    *out = strtod(text, &end);
    return *text && !*end && *out >= 0 && *out <= 1e9;
}

static void defaults(options *o)
{
    static const struct {
        uint64_t steps, batch, warmup;
        double rate, decay, dropout;
    } of[STAGES] = {
        {4000, 8, 100, 1e-3, 0, 0},        {0, 0, 0, 0, 0, 0},
        {20000, 16, 200, 5e-4, 0.01, 0.1}, {6000, 16, 100, 2e-4, 0.01, 0.1},
        {2000, 8, 100, 1e-3, 0.01, 0},
    };
    o->steps = of[o->stage].steps;
    o->batch = of[o->stage].batch;
    o->warmup = of[o->stage].warmup;
    o->rate = of[o->stage].rate;
    o->decay = of[o->stage].decay;
    o->dropout = of[o->stage].dropout;
    o->ema = 0.999;
    o->clip = 1;
    o->kl = 2e-6;
    o->edges = 0.5;
    o->colours = 2;
    o->things_weight = 1;
    o->every = 10;
    o->workers = 1;
    o->count = 20000;
    o->size = 512;
    o->crop = 64;
    o->set = "text2image";
    o->vocab = "models/vocab.txt";
}

static int parse(options *o, int argc, char **argv)
{
    const choice choices[] = {
        {"-o", &o->out, NULL, NULL, NULL},
        {"--state", &o->state, NULL, NULL, NULL},
        {"--log", &o->log, NULL, NULL, NULL},
        {"--plot", &o->plot, NULL, NULL, NULL},
        {"--model", &o->model, NULL, NULL, NULL},
        {"--vocab", &o->vocab, NULL, NULL, NULL},
        {"--latents", &o->latents, NULL, NULL, NULL},
        {"--data", &o->data, NULL, NULL, NULL},
        {"--set", &o->set, NULL, NULL, NULL},
        {"--seed", NULL, &o->seed, NULL, NULL},
        {"--steps", NULL, &o->steps, NULL, NULL},
        {"--batch", NULL, &o->batch, NULL, NULL},
        {"--warmup", NULL, &o->warmup, NULL, NULL},
        {"--count", NULL, &o->count, NULL, NULL},
        {"--size", NULL, &o->size, NULL, NULL},
        {"--workers", NULL, &o->workers, NULL, NULL},
        {"--crop", NULL, &o->crop, NULL, NULL},
        {"--window", NULL, &o->window, NULL, NULL},
        {"--threads", NULL, &o->threads, NULL, NULL},
        {"--rate", NULL, NULL, &o->rate, NULL},
        {"--decay", NULL, NULL, &o->decay, NULL},
        {"--ema", NULL, NULL, &o->ema, NULL},
        {"--clip", NULL, NULL, &o->clip, NULL},
        {"--dropout", NULL, NULL, &o->dropout, NULL},
        {"--kl", NULL, NULL, &o->kl, NULL},
        {"--edges", NULL, NULL, &o->edges, NULL},
        {"--colours", NULL, NULL, &o->colours, NULL},
        {"--things-weight", NULL, NULL, &o->things_weight, NULL},
        {"--alone", NULL, NULL, &o->alone, NULL},
        {"--start", &o->start, NULL, NULL, NULL},
        {"--minutes", NULL, NULL, &o->minutes, NULL},
        {"--every", NULL, NULL, &o->every, NULL},
        {"--resume", NULL, NULL, NULL, &o->resume},
        {"-q", NULL, NULL, NULL, &o->quiet},
        {"--less-memory", NULL, NULL, NULL, &o->less_memory},
        {"--frozen-text", NULL, NULL, NULL, &o->frozen_text},
        {"--frozen-encoder", NULL, NULL, NULL, &o->frozen_encoder},
        {"--things", NULL, NULL, NULL, &o->things},
    };
    for (int i = 2; i < argc; i++) {
        const choice *c = NULL;
        for (size_t k = 0; k < sizeof choices / sizeof *choices; k++)
            if (strcmp(argv[i], choices[k].name) == 0) c = &choices[k];
        if (!c) return misused(argv[i], ": not an option");
        if (c->flag) {
            *c->flag = true;
            continue;
        }
        if (++i == argc) return misused(c->name, " wants a value");
        if (c->text) *c->text = argv[i];
        if ((c->number && !whole(argv[i], c->number)) || (c->amount && !amount(argv[i], c->amount)))
            return misused(c->name, ": its value is not one");
    }
    return 0;
}

static int check(const options *o)
{
    if (!o->out) return misused("wanted -o FILE", "");
    if (o->stage != VAE && o->stage != SEGMENTER && !o->model) return misused("wanted --model FILE", "");
    if ((o->stage == TEXT2IMAGE || o->stage == LAYOUT) && !o->latents == !o->data)
        return misused("wanted --latents FILE or --data FOLDER", "");
    if (o->frozen_encoder && (o->stage != VAE || !o->start))
        return misused("--frozen-encoder", ": wanted train vae with --start");
    if (o->start && (o->stage == LATENTS || o->stage == LAYOUT))
        return misused("--start: this stage goes on from its --model", "");
    if (!world_set(o->set)) return misused(o->set, ": not a set of the small world");
    if (o->stage != LATENTS && (!o->steps || !o->batch || o->batch > 256))
        return misused("wanted at least 1 step and batches of 1 to 256", "");
    if (!o->workers || o->workers > 256 || (o->workers > 1 && o->stage == LATENTS))
        return misused("wanted 1 to 256 --workers, and a training", "");
    if (o->ema >= 1 || o->dropout > 1) return misused("wanted --ema below 1 and --dropout up to 1", "");
    if (o->things && (!o->window || !o->latents)) return misused("--things", ": wanted --window N and --latents FILE");
    if (o->alone > 0 && (o->alone < 0.01 || o->alone > 1 || o->stage != TEXT2IMAGE || !o->window || !o->latents))
        return misused("--alone", ": wanted a share of 0.01 to 1, train text2image, --window N and --latents FILE");
    if (o->things_weight != 1 && (o->stage != VAE || o->things_weight == 0))
        return misused("--things-weight", ": wanted train vae, and a weight above 0");
    if (o->crop < 8 || o->crop % 8 || o->crop > WORLD_SIDE)
        return misused("wanted a --crop that is a multiple of 8, at most 128", "");
    if (o->window % 8) return misused("wanted a --window that is a multiple of 8", "");
    if (o->window && !o->latents) return misused("--window", ": wanted --latents");
    if (o->size < 64 || o->size % 64 || o->size > 2048)
        return misused("wanted a --size that is a multiple of 64, at most 2048", "");
    if (!o->count || o->count > 1 << 24 || o->threads > 1024)
        return misused("--count, --threads", ": too many or none");
    return 0;
}

static void job_free(job *j)
{
    training_free(&j->training);
    models_free(&j->m);
    flis_vae_free(j->autoencoder);
    flis_vocab_free(j->vocab);
    workers_free(j);
    flis_tape_free(&j->tape);
    latents_free(&j->data);
    folder_close(&j->folder);
    flis_free_visit(&j->ctx, NULL, NULL, &j->edges);
    flis_free_visit(&j->ctx, NULL, NULL, &j->colours);
    for (size_t i = 0; i < j->scenes; i++) free(j->scene[i]);
    free(j->scene);
    free(j->line);
    flis_free(&j->ctx);
}

/* OUT.state and so on, where they were not given. */
static const char *beside(flis_ctx *ctx, const char *given, const char *out, const char *end, char **room)
{
    if (given) return given;
    const size_t length = strlen(out) + strlen(end) + 1;
    if ((*room = flis_alloc(ctx, length, 1))) snprintf(*room, length, "%s%s", out, end);
    return *room;
}

int main(int argc, char **argv)
{
    static job j;
    char *paths[3] = {NULL, NULL, NULL};
    int wrong = 0;
    if (argc > 1 && strcmp(argv[1], "--help") == 0) return fputs(HELP, stdout) < 0;
    if (argc > 1 && strcmp(argv[1], "--version") == 0) return puts("train " FLIS_VERSION) < 0;
    for (j.o.stage = VAE; j.o.stage < STAGES; j.o.stage++)
        if (argc > 1 && strcmp(argv[1], STAGE[j.o.stage]) == 0) break;
    if (j.o.stage == STAGES) return misused(argc > 1 ? argv[1] : "wanted a stage", argc > 1 ? ": not a stage" : "");
    defaults(&j.o);
    if ((wrong = parse(&j.o, argc, argv)) != 0 || (wrong = check(&j.o)) != 0) return wrong;
    bool done = flis_init(&j.ctx);
    if (j.o.threads) j.ctx.threads = (int)j.o.threads;
    signal(SIGINT, stop);
    signal(SIGTERM, stop);
    j.o.state = beside(&j.ctx, j.o.state, j.o.out, ".state", &paths[0]);
    j.o.log = beside(&j.ctx, j.o.log, j.o.out, ".tsv", &paths[1]);
    j.o.plot = beside(&j.ctx, j.o.plot, j.o.out, ".svg", &paths[2]);
    done = done && flis_ok(&j.ctx) && (j.o.stage == LATENTS ? make_latents(&j) : train(&j));
    if (!done) fprintf(stderr, "train: %s\n", j.ctx.error);
    for (int i = 0; i < 3; i++) free(paths[i]);
    job_free(&j);
    return done ? 0 : 1;
}
