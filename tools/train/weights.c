/* weights.c - the weights that a training begins with, and models in files.
 *
 * New weights follow Stable Diffusion's code and PyTorch's defaults; where they differ, the reason is given beside them.
 */
#include "tools/train/train.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Stable Diffusion v1's topology, narrower. A group of a norm has 8 channels or more (there 4 or more): with 32 groups of one
   channel each, a norm removes every channel's mean over the picture, and with it the colours; the autoencoder has one group.
   Widths are multiples of 24, which kernels of 24 and of 32 lanes both take without much waste. */
const flis_vae_config SMALL_VAE = {24, 4, {1, 1, 2, 2}, 2, 4, 4, 1.0, 1};
const flis_clip_config SMALL_CLIP = {0, 64, 4, 4, 256, FLIS_TOKENS};
const flis_unet_config SMALL_UNET = {4, 4, 48, 4, {1, 1, 2, 1}, {true, true, true, false}, 2, 2, 64, 6};
/* A segmenter is a U-Net from colours to classes, without text: its one transformer sees zeros. */
const flis_unet_config SMALL_SEGMENTER = {
    3, SEGMENTER_CLASSES, 24, 4, {1, 1, 2, 2}, {false, false, false, false}, 1, 1, 24, 3};

/* ---- New weights ------------------------------------------------------------------------------------------------- */

bool name_ends(const char *name, const char *end)
{
    const size_t n = strlen(name), m = strlen(end);
    return n >= m && strcmp(name + n - m, end) == 0;
}

/* The weights that zero_module clears in FreestyleNet@5dcb8b8 ldm/modules/diffusionmodules/openaimodel.py and
   ldm/modules/attention.py, so that every block begins as the identity; here those of the autoencoder's blocks too. */
static bool starts_zero(const char *name)
{
    static const char *const zero[] = {".out_layers.3.weight", ".proj_out.weight", ".diffusion_model.out.2.weight",
                                       ".conv2.weight"};
    for (size_t i = 0; i < sizeof zero / sizeof *zero; i++)
        if (name_ends(name, zero[i])) return true;
    return false;
}

/* The second half of this bias holds log variances. Starting at 0, noise of standard deviation 1 hides what a mean says, and a
   channel that the decoder does not use at once may never be used: one of four stayed unused. */
static const char LOG_VARIANCE_BIAS[] = ".quant_conv.bias";
enum { FIRST_LOG_VARIANCE = -6 };

/* Norms: weight 1, bias 0. Matrices and kernels: uniform in +-1 / sqrt(fan_in), PyTorch's default (kaiming_uniform_ with
   a = sqrt(5)). Embeddings: uniform with standard deviation 0.5 (tokens) and 0.02 (positions), since which word it is must
   outweigh its position and what the first layers make of its neighbours. A weight's random numbers depend on its name alone
   (FNV-1a), not on the order of the visit. */
bool new_weights(flis_ctx *ctx, void *user, const char *name, flis_param *p)
{
    const options *o = user;
    const size_t count = flis_param_count(p);
    size_t fan_in = 1;
    uint64_t hash = UINT64_C(0xcbf29ce484222325);
    for (const char *c = name; *c; c++) hash = (hash ^ (unsigned char)*c) * UINT64_C(0x100000001b3);
    dice d = dice_of(o, DICE_WEIGHT, 0, hash);
    for (int i = 1; i < p->rank; i++) fan_in *= p->shape[i];
    const float range = p->table            ? (name_ends(name, "token_embedding.weight") ? 0.866025f : 0.034641f)
                        : starts_zero(name) ? 0
                                            : (float)sqrt(1.0 / (double)fan_in);
    flis_real *values = flis_alloc(ctx, count, sizeof *values);
    for (size_t i = 0; values && i < count; i++)
        values[i] = p->rank == 1 ? (name_ends(name, "weight") ? 1 : 0) : spread(&d, -range, range);
    for (size_t i = count / 2; values && i < count && name_ends(name, LOG_VARIANCE_BIAS); i++)
        values[i] = FIRST_LOG_VARIANCE;
    if (values) flis_param_set(ctx, p, values, false);
    free(values);
    return flis_ok(ctx);
}

/* ---- Padding keys ------------------------------------------------------------------------------------------------ */

/* A caption has about ten tokens and 65 of padding. A new cross-attention gives each token 1/77 of the weight, so what words
   say is lost in what padding says, which is the same for all captions. Therefore padding's keys are suppressed at the start:
   norm2's bias begins as 1, which gives every query a part q1 = Wq 1 that all positions share, and in each head
     Wk = Wk + PADDING_SCORE sqrt(head) / |q1|^2 q1 f^T / |f|^2,   f: padding's mean features [context].
   This adds PADDING_SCORE to the score q1 . Wk f / sqrt(head) of padding, and nothing to features orthogonal to f. */
static void lower_keys(const padding_features *f, flis_real *w, size_t rows, size_t columns)
{
    const size_t head = rows / f->heads;
    double length = 0;
    for (size_t i = 0; i < columns; i++) length += (double)f->mean[i] * (double)f->mean[i];
    for (size_t h = 0; h < rows; h += head) {
        double square = 0;
        for (size_t i = h; i < h + head; i++) square += f->shared[i] * f->shared[i];
        for (size_t i = h; i < h + head; i++)
            for (size_t c = 0; c < columns; c++)
                w[i * columns + c] += (flis_real)(PADDING_SCORE * sqrt((double)head) / square * f->shared[i] *
                                                  (double)f->mean[c] / length);
    }
}

/* q1 = Wq 1: the sum of each row. */
static void keep_shared_query(flis_ctx *ctx, padding_features *f, const flis_real *w, size_t rows, size_t columns)
{
    free(f->shared);
    f->shared = flis_alloc(ctx, rows, sizeof *f->shared);
    for (size_t i = 0; f->shared && i < rows; i++) {
        f->shared[i] = 0;
        for (size_t c = 0; c < columns; c++) f->shared[i] += (double)w[i * columns + c];
    }
}

bool suppress_padding(flis_ctx *ctx, void *user, const char *name, flis_param *p)
{
    padding_features *f = user;
    const bool q = name_ends(name, ".attn2.to_q.weight"), k = name_ends(name, ".attn2.to_k.weight");
    if (!q && !k && !name_ends(name, ".transformer_blocks.0.norm2.bias")) return true;
    const size_t rows = p->shape[0], columns = flis_param_count(p) / rows;
    flis_real *w = flis_alloc(ctx, rows * columns, sizeof *w);
    if (!w) return false;
    flis_param_get(p, w);
    if (q) keep_shared_query(ctx, f, w, rows, columns);
    else if (k) lower_keys(f, w, rows, columns);
    else
        for (size_t i = 0; i < rows; i++) w[i] = 1;
    if (!q) flis_param_set(ctx, p, w, false);
    free(w);
    return flis_ok(ctx);
}

bool suppress_padding_keys(job *j)
{
    flis_ctx *ctx = &j->ctx;
    flis_mark mark = flis_here(ctx);
    int32_t ids[FLIS_TOKENS];
    padding_features f = {NULL, flis_clip_get_config(j->m.clip)->width, flis_unet_get_config(j->m.unet)->heads, NULL};
    flis_real *mean = flis_scratch(ctx, f.context, sizeof *mean);
    for (size_t i = 0; i < FLIS_TOKENS; i++) ids[i] = j->empty[i];
    const flis_tensor *text = flis_clip_encode(ctx, j->m.clip, ids, 1);
    if (!text || !mean) return false;
    for (size_t c = 0; c < f.context; c++) {
        mean[c] = 0;
        for (size_t i = 1; i < FLIS_TOKENS; i++) mean[c] += text->x[i * f.context + c] / (FLIS_TOKENS - 1);
    }
    f.mean = mean;
    flis_unet_walk(ctx, j->m.unet, suppress_padding, &f);
    free(f.shared);
    flis_rewind(ctx, mark);
    return flis_ok(ctx);
}

/* ---- Models ------------------------------------------------------------------------------------------------------ */

void models_free(models *m)
{
    flis_vae_free(m->vae);
    flis_clip_free(m->clip);
    flis_unet_free(m->unet);
    *m = (models){NULL, NULL, NULL};
}

bool models_walk(flis_ctx *ctx, const models *m, flis_visit *visit, void *user)
{
    if (m->unet) flis_unet_walk(ctx, m->unet, visit, user);
    if (m->vae) flis_vae_walk(ctx, m->vae, visit, user);
    if (m->clip) flis_clip_walk(ctx, m->clip, visit, user);
    return flis_ok(ctx);
}

/* A model's file, and the type of its weights. */
typedef struct model_file {
    flis_writer *writer;
    flis_dtype dtype;
} model_file;

static bool declare(flis_ctx *ctx, void *user, const char *name, flis_param *p)
{
    const model_file *file = user;
    uint64_t sizes[4];
    for (int i = 0; i < p->rank; i++) sizes[i] = p->shape[i];
    return flis_write_declare(ctx, file->writer, name, file->dtype, p->rank, sizes);
}

static bool write_values(flis_ctx *ctx, void *user, const char *name, flis_param *p)
{
    const model_file *file = user;
    const size_t count = flis_param_count(p);
    flis_real *values = flis_alloc(ctx, count, sizeof *values);
    (void)name;
    if (values) flis_param_get(p, values);
    if (values) flis_write_real(ctx, file->writer, values, count);
    free(values);
    return flis_ok(ctx);
}

static void number_entry(flis_ctx *ctx, flis_writer *writer, const char *key, double value)
{
    char text[40];
    snprintf(text, sizeof text, "%.9g", value);
    flis_write_metadata(ctx, writer, key, text);
}

/* The configuration that no tensor's shape determines. SPEC 10.6. */
void model_metadata(flis_ctx *ctx, flis_writer *writer, const models *m, double scale_factor)
{
    if (m->unet) number_entry(ctx, writer, "unet.num_heads", (double)flis_unet_get_config(m->unet)->heads);
    if (m->clip) number_entry(ctx, writer, "clip.num_heads", (double)flis_clip_get_config(m->clip)->heads);
    if (m->vae) number_entry(ctx, writer, "vae.scale_factor", scale_factor);
    if (m->unet && flis_unet_get_config(m->unet)->groups)
        number_entry(ctx, writer, "unet.norm_num_groups", (double)flis_unet_get_config(m->unet)->groups);
    if (m->vae && flis_vae_get_config(m->vae)->groups)
        number_entry(ctx, writer, "vae.norm_num_groups", (double)flis_vae_get_config(m->vae)->groups);
}

bool models_write(flis_ctx *ctx, const options *o, const models *m, double scale_factor)
{
    model_file file = {flis_ok(ctx) ? flis_write_begin(ctx, o->out) : NULL, o->f32 ? FLIS_F32 : FLIS_F16};
    if (!file.writer) return false;
    model_metadata(ctx, file.writer, m, scale_factor);
    flis_write_metadata(ctx, file.writer, "flis.trained", STAGE[o->stage]);
    models_walk(ctx, m, declare, &file);
    models_walk(ctx, m, write_values, &file);
    return flis_write_end(ctx, file.writer);
}

/* The last two tokens of a vocabulary are "begin" and "end of text", so that with another size every prompt is wrong. Rows beyond
   CLIP's own 49408 are tokens that were added to it. */
bool vocab_fits(flis_ctx *ctx, const char *path, size_t rows, const char *vocab_path, const flis_vocab *vocab)
{
    enum { CLIP_TOKENS = 49408 };
    const size_t tokens = flis_vocab_size(vocab);
    if (rows == tokens || (tokens == CLIP_TOKENS && rows > tokens)) return true;
    return flis_fail(ctx,
                     "%s: got a vocabulary of %zu tokens, wanted %zu, as many as the text encoder of %s has (--vocab)",
                     vocab_path, tokens, rows, path);
}

bool models_load(job *j, bool clip, bool unet, bool decoder)
{
    flis_file *file = flis_model_open(&j->ctx, j->o.model);
    if (!file) return false;
    bool good = (j->m.vae = flis_vae_load(&j->ctx, file, decoder, true)) != NULL;
    if (good && clip) good = (j->m.clip = flis_clip_load(&j->ctx, file)) != NULL;
    if (good && unet) good = (j->m.unet = flis_unet_load(&j->ctx, file)) != NULL;
    flis_file_close(file);
    if (good && clip)
        good = vocab_fits(&j->ctx, j->o.model, flis_clip_get_config(j->m.clip)->vocab, j->o.vocab, j->vocab);
    return good;
}

/* With a frozen encoder latents do not change, so models that were trained on them stay valid while pictures improve. */
static bool visit_decoder(flis_ctx *ctx, void *user, const char *name, flis_param *p)
{
    return strstr(name, ".encoder.") || strstr(name, ".quant_conv.") || training_visit(ctx, user, name, p);
}

bool models_begin(job *j, const flis_vae_config *vae, const flis_clip_config *clip, const flis_unet_config *unet)
{
    flis_file *file = j->o.start ? flis_model_open(&j->ctx, j->o.start) : NULL;
    models begun = {NULL, NULL, NULL};
    if (j->o.start && !file) return false;
    if (vae)
        begun.vae = j->m.vae = file ? flis_vae_load(&j->ctx, file, true, true) : flis_vae_new(&j->ctx, vae, true, true);
    if (clip) begun.clip = j->m.clip = file ? flis_clip_load(&j->ctx, file) : flis_clip_new(&j->ctx, clip);
    if (unet) begun.unet = j->m.unet = file ? flis_unet_load(&j->ctx, file) : flis_unet_new(&j->ctx, unet);
    flis_file_close(file);
    if (begun.clip && !vocab_fits(&j->ctx, j->o.start, flis_clip_get_config(begun.clip)->vocab, j->o.vocab, j->vocab))
        return false;
    if (flis_ok(&j->ctx) && !file) models_walk(&j->ctx, &begun, new_weights, &j->o);
    if (j->o.frozen_text) begun.clip = NULL;
    return flis_ok(&j->ctx) &&
           models_walk(&j->ctx, &begun, j->o.frozen_encoder ? visit_decoder : training_visit, &j->training);
}
