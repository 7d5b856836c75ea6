/* stages.c - the stages: what each prepares, the loss that it minimises, and what it writes. */
#include "tools/train/train.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

const char *const STAGE[STAGES] = {"vae", "latents", "text2image", "layout", "segmenter"};

/* ---- Scenes ------------------------------------------------------------------------------------------------------ */

static bool scenes_make(job *j, size_t count)
{
    j->scene = flis_alloc(&j->ctx, count, sizeof *j->scene);
    for (size_t i = 0; j->scene && i < count; i++) {
        if (!(j->scene[i] = flis_alloc(&j->ctx, 1, sizeof **j->scene))) return false;
        j->scenes = i + 1;
    }
    return flis_ok(&j->ctx);
}

/* Draws the scenes of this share of the batch; scene k of the batch depends on (seed, step, k). */
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
    return good || flis_fail(&j->ctx, "--set %s: no scene satisfies its rules", j->o.set);
}

/* A scene's pixels in -1..1. */
static void put_pixels(const world_scene *s, flis_real *x)
{
    for (size_t i = 0; i < WORLD_PIXELS * 3; i++) x[i] = (flis_real)s->rgb[i] / (flis_real)127.5 - 1;
}

/* ---- Autoencoder ------------------------------------------------------------------------------------------------- */

/* Kernels [6][3][3][3]: differences to the right and to the lower neighbour, of each colour. */
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

/* Kernels [2][3][3][3]: red less green and blue less green, means of 3 x 3 pixels. A picture's brightness takes the first of four
   latent channels, and the difference between a red house and a green one is little of the absolute error of its pixels. */
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

/* Weights [crop][crop] of the losses: `things` for a thing's pixels, 1 for those of stuff, which has most of them. */
void weigh_crop(const world_scene *s, size_t top, size_t left, size_t crop, double things, flis_real *weight)
{
    for (size_t i = 0; i < crop * crop; i++) {
        const int label = s->label[(top + i / crop) * WORLD_SIDE + left + i % crop];
        weight[i] = world_is_stuff(world_class_of(label)) ? 1 : (flis_real)things;
    }
}

/* Crops of the batch's scenes: x [n][crop][crop][3], noise [n][crop/8][crop/8][4], weights or NULL. */
static void take_crops(job *j, size_t n, flis_real *x, flis_real *noise, flis_real *weight)
{
    const size_t crop = (size_t)j->o.crop, values = (crop / 8) * (crop / 8) * 4;
    for (size_t k = 0; k < n; k++) {
        dice d = dice_of(&j->o, DICE_SAMPLE, j->training.step, j->first * CROPS + k);
        const world_scene *s = j->scene[k / CROPS];
        const size_t left = (size_t)roll(&d, (int)(WORLD_SIDE - crop + 1)),
                     top = (size_t)roll(&d, (int)(WORLD_SIDE - crop + 1));
        for (size_t y = 0; y < crop; y++)
            for (size_t i = 0; i < crop * 3; i++)
                x[(k * crop + y) * crop * 3 + i] =
                    (flis_real)s->rgb[((top + y) * WORLD_SIDE + left) * 3 + i] / (flis_real)127.5 - 1;
        if (weight) weigh_crop(s, top, left, crop, j->o.things_weight, weight + k * crop * crop);
        fill_normal(&d, noise + k * values, values);
    }
}

/* |x - y| + edges |E x - E y| + colours |C x - C y| + kl KL(q(z|x), N(0, 1)), y = decode(z), z drawn from q(z|x) (Kingma & Welling
   2014, Auto-Encoding Variational Bayes). E and C are make_edges and make_colours. Rombach et al. 2022 have a perceptual and an
   adversarial loss, which need other trained networks, in place of the second and third term. */
static double vae_loss(job *j)
{
    flis_ctx *ctx = &j->ctx;
    const size_t n = j->scenes * CROPS, crop = (size_t)j->o.crop;
    flis_mark mark = flis_here(ctx);
    if (!draw_scenes(j, world_set(j->o.set), DICE_CROP, j->training.step)) return -1;
    flis_tensor *x = flis_image(ctx, n, crop, crop, 3), *noise = flis_image(ctx, n, crop / 8, crop / 8, 4);
    flis_real *weight = j->o.things_weight == 1 ? NULL : flis_scratch(ctx, n * crop * crop, sizeof *weight);
    if (!x || !noise || !flis_ok(ctx)) return -1;
    take_crops(j, n, x->x, noise->x, weight);
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

/* Standard deviation of the latents of some scenes. A scale factor of 1 / deviation brings it to 1, as Stable Diffusion's 0.18215
   did for its first batch (FreestyleNet@5dcb8b8 ldm/models/diffusion/ddpm.py on_train_batch_start). 0: failed. */
static double latent_deviation(job *j)
{
    enum { SCENES = 32 };
    double sum = 0, squares = 0, count = 0;
    for (uint64_t b = 0; b * j->scenes < SCENES && draw_scenes(j, world_set(j->o.set), DICE_LATENT, b); b++)
        for (size_t k = 0; k < j->scenes && flis_ok(&j->ctx); k++) {
            flis_mark mark = flis_here(&j->ctx);
            flis_tensor *x = flis_image(&j->ctx, 1, WORLD_SIDE, WORLD_SIDE, 3);
            if (x) put_pixels(j->scene[k], x->x);
            flis_tensor *moments = flis_vae_encode(&j->ctx, j->m.vae, x),
                        *noise = flis_image(&j->ctx, 1, WORLD_SIDE / 8, WORLD_SIDE / 8, 4);
            dice d = dice_of(&j->o, DICE_LATENT, b, k + 1000);
            if (noise) fill_normal(&d, noise->x, flis_count(noise));
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

static bool prepare_vae(job *j)
{
    j->loss = vae_loss;
    return make_edges(&j->ctx, &j->edges) && make_colours(&j->ctx, &j->colours) &&
           scenes_make(j, ((size_t)j->o.batch + CROPS - 1) / CROPS) && models_begin(j, &SMALL_VAE, NULL, NULL);
}

/* ---- Text to image, layouts -------------------------------------------------------------------------------------- */

/* E |eps - eps_theta(z_t, t, c)|^2 with z_t = sqrt(alpha_bar_t) z + sqrt(1 - alpha_bar_t) eps, t uniform in 0 to 999
   (Ho et al. 2020, equation 14; Rombach et al. 2022, equation 2; FreestyleNet@5dcb8b8 ldm/models/diffusion/ddpm.py p_losses).
   A share --dropout of the samples has the empty prompt, for guidance (Ho & Salimans 2022). SPEC 14.6. */
static double diffusion_loss(job *j)
{
    flis_ctx *ctx = &j->ctx;
    const bool folder = j->folder.files.count > 0;
    const size_t n = j->units, h = folder ? (size_t)j->o.size / FLIS_FACTOR : window_side(j, j->data.h),
                 w = folder ? h : window_side(j, j->data.w);
    const double share = j->share / (double)j->o.accumulate, scale = flis_vae_get_config(j->m.vae)->scale_factor;
    flis_mark mark = flis_here(ctx);
    batch *b = batch_new(ctx, n, h, w, folder && j->o.record);
    if (!b) return -1;
    for (size_t k = 0; k < n; k++) {
        dice d = dice_of(&j->o, DICE_SAMPLE, batch_number(j), j->first + k);
        const choice c = (folder ? choose_photo : choose_latents)(j, batch_number(j), j->first + k, &d);
        if (!(folder ? put_photo(j, &j->folder, c, ahead_sample(j, k), b, k, scale, &d)
                     : put_latents(j, &j->data, c, b, k, scale, &d)))
            return -1;
    }
    flis_real *clean = j->o.record ? flis_scratch(ctx, flis_count(b->z), sizeof *clean) : NULL;
    if (clean) memcpy(clean, b->z->x, flis_count(b->z) * sizeof *clean);
    batch_add_noise(&j->schedule, b);
    flis_tape_begin(ctx, &j->tape);
    flis_tensor *text = flis_clip_encode(ctx, j->m.clip, b->ids, n);
    flis_tensor *eps = flis_unet_eps(ctx, j->m.unet, b->z, b->t, text, b->layout);
    const double loss = flis_ok(ctx) ? flis_mse(ctx, eps, b->noise->x, NULL, share) : -1;
    flis_backward(ctx);
    flis_tape_end(ctx);
    record_batch(j, b, clean, text, eps, loss);
    flis_rewind(ctx, mark);
    return flis_ok(ctx) ? loss : -1;
}

static bool open_vocab(job *j)
{
    int16_t class_ids[FLIS_TOKENS], classes;
    char text[] = "";
    j->vocab = flis_vocab_read(&j->ctx, j->o.vocab);
    return j->vocab && put_prompt(&j->ctx, j->vocab, &(flis_phrase){text, -1}, 1, j->empty, class_ids, &classes);
}

static bool prepare_data(job *j)
{
    if (learns_pictures(&j->o)) {
        const bool opened = j->o.dataset ? photos_open_dataset(&j->ctx, &j->o, j->vocab, &j->folder)
                                         : photos_open(&j->ctx, j->o.data, j->o.stage == LAYOUT, j->vocab, &j->folder);
        photos_settings(&j->folder, &j->o);
        return opened && photos_check(j, &j->folder);
    }
    if (!latents_read(&j->ctx, j->o.latents, &j->data) || !latents_check(&j->ctx, j->o.latents, &j->data, j->vocab))
        return false;
    if (j->o.alone > 0 && j->o.window >= j->data.h && j->o.window >= j->data.w)
        return flis_fail(&j->ctx, "%s: --alone needs windows smaller than its %zu x %zu", j->o.latents, j->data.h,
                         j->data.w);
    for (size_t i = 0; i < j->data.count * FLIS_TOKENS && j->o.window; i++)
        if (j->data.class_ids[i] >= 0) return true;
    return !j->o.window ||
           flis_fail(&j->ctx, "%s: its words have no regions, which --window needs: make it from a plain set",
                     j->o.latents);
}

/* Training and validation data both, whatever the first has. */
bool check_only(job *j)
{
    char first[sizeof j->ctx.error];
    if (!open_vocab(j)) return false;
    prepare_data(j);
    snprintf(first, sizeof first, "%s", j->ctx.error);
    if (*j->stop) return false;
    flis_clear_error(&j->ctx);
    validate_prepare(j);
    if (!*first) return flis_ok(&j->ctx);
    if (flis_ok(&j->ctx)) return flis_fail(&j->ctx, "%s", first);
    char second[sizeof j->ctx.error];
    snprintf(second, sizeof second, "%s", j->ctx.error);
    flis_clear_error(&j->ctx);
    return flis_fail(&j->ctx, "%s; %s", first, second);
}

static bool prepare_text2image(job *j)
{
    flis_clip_config clip = SMALL_CLIP;
    j->loss = diffusion_loss;
    if (!open_vocab(j) || !models_load(j, false, false, true) || !prepare_data(j)) return false;
    clip.vocab = flis_vocab_size(j->vocab);
    return models_begin(j, NULL, &clip, &SMALL_UNET) && (j->o.start || suppress_padding_keys(j));
}

static bool prepare_layout(job *j)
{
    j->loss = diffusion_loss;
    return open_vocab(j) && models_load(j, true, true, true) && prepare_data(j) &&
           flis_unet_walk(&j->ctx, j->m.unet, training_visit, &j->training);
}

/* ---- Segmenter --------------------------------------------------------------------------------------------------- */

/* Cross-entropy of classes at half the picture's size, mean over pixels. With --model every second scene is seen through the
   autoencoder, since the pictures that will be labelled come from one. */
static double segmenter_loss(job *j)
{
    enum { PIXELS = SEGMENTER_SIDE * SEGMENTER_SIDE };
    flis_ctx *ctx = &j->ctx;
    flis_mark mark = flis_here(ctx);
    const size_t n = j->scenes;
    double t[MAX_BATCH] = {0};
    if (!draw_scenes(j, world_set(j->o.set), DICE_SAMPLE, j->training.step)) return -1;
    flis_tensor *x = flis_image(ctx, n, SEGMENTER_SIDE, SEGMENTER_SIDE, 3),
                *text = flis_rows(ctx, n, FLIS_TOKENS, SMALL_SEGMENTER.context);
    uint8_t *label = flis_scratch(ctx, n * PIXELS, 1);
    if (!x || !text || !label) return -1;
    memset(text->x, 0, flis_count(text) * sizeof *text->x);
    for (size_t k = 0; k < n; k++) {
        if (j->autoencoder && (j->first + k) % 2 &&
            !through_autoencoder(ctx, j->autoencoder, WORLD_SIDE, j->scene[k]->rgb))
            return -1;
        half_picture(j->scene[k]->rgb, WORLD_SIDE, WORLD_SIDE, x->x + k * PIXELS * 3);
        for (size_t i = 0; i < PIXELS; i++)
            label[k * PIXELS + i] = (uint8_t)world_class_of(
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

static bool prepare_segmenter(job *j)
{
    j->loss = segmenter_loss;
    flis_file *file = j->o.model ? flis_model_open(&j->ctx, j->o.model) : NULL;
    if (file) j->autoencoder = flis_vae_load(&j->ctx, file, true, true);
    flis_file_close(file);
    return flis_ok(&j->ctx) && scenes_make(j, (size_t)j->o.batch) && models_begin(j, NULL, NULL, &SMALL_SEGMENTER);
}

/* ---- All --------------------------------------------------------------------------------------------------------- */

bool prepare(job *j)
{
    static bool (*const of[STAGES])(job * j) = {prepare_vae, NULL, prepare_text2image, prepare_layout,
                                                prepare_segmenter};
    return of[j->o.stage](j);
}

bool write_result(job *j)
{
    double scale_factor = j->m.vae ? flis_vae_get_config(j->m.vae)->scale_factor : 0;
    const bool averages = j->training.ema > 0;
    if (averages && !training_swap(&j->ctx, &j->training)) return false;
    if (j->o.stage == VAE && !j->o.frozen_encoder) {
        const double deviation = latent_deviation(j);
        if (!(deviation > 0)) return flis_fail(&j->ctx, "the latents' standard deviation is 0");
        scale_factor = 1 / deviation;
    }
    return models_write(&j->ctx, &j->o, &j->m, scale_factor) && (!averages || training_swap(&j->ctx, &j->training));
}

/* Labels and prompt of a scene, as sample `at` of the latents. */
static bool put_scene(job *j, const world_scene *s, bool plain, size_t at)
{
    latents *l = &j->data;
    for (size_t i = 0; i < l->h * l->w; i++)
        l->label[at * l->h * l->w + i] = s->label[i / l->w * FLIS_FACTOR * WORLD_SIDE + i % l->w * FLIS_FACTOR];
    return put_scene_prompt(&j->ctx, j->vocab, s, plain, l->ids + at * FLIS_TOKENS, l->class_ids + at * FLIS_TOKENS,
                            l->classes + at);
}

/* Encodes scenes 0, 1, … of the seed. Flipped and cropped copies, as one makes of photographs, are not needed: there are as many
   scenes as one wants. */
bool make_latents(job *j)
{
    enum { BATCH = 16, SIDE = WORLD_SIDE / FLIS_FACTOR };
    const world_rules *rules = world_set(j->o.set);
    flis_ctx *ctx = &j->ctx;
    latents *l = &j->data;
    if (!open_vocab(j) || !models_load(j, false, false, false) || !scenes_make(j, BATCH)) return false;
    if (!latents_new(ctx, l, (size_t)j->o.count, SIDE, SIDE)) return false;
    for (size_t first = 0; first < l->count && flis_poll(ctx); first += BATCH) {
        const size_t n = l->count - first < BATCH ? l->count - first : BATCH;
        if (!draw_scenes(j, rules, DICE_SAMPLE, first / BATCH)) return false;
        flis_mark mark = flis_here(ctx);
        flis_tensor *x = flis_image(ctx, n, WORLD_SIDE, WORLD_SIDE, 3);
        for (size_t k = 0; x && k < n; k++) {
            put_pixels(j->scene[k], x->x + k * WORLD_PIXELS * 3);
            if (!put_scene(j, j->scene[k], rules->plain, first + k)) return false;
        }
        const flis_tensor *moments = flis_vae_encode(ctx, j->m.vae, x);
        for (size_t i = 0; moments && i < flis_count(moments); i++)
            l->moments[first * SIDE * SIDE * 8 + i] = flis_float_to_half((float)moments->x[i]);
        flis_rewind(ctx, mark);
        if (!flis_ok(ctx)) return false;
        progress_show(&j->progress, STAGE[LATENTS], first + n, l->count);
    }
    progress_end(&j->progress);
    return flis_ok(ctx) && latents_write(ctx, j->o.out, l);
}
