/* unet.c - rectified cross-attention (RCA), and the U-Net of Stable Diffusion v1 that contains it.
 *
 * Transcribes FreestyleNet@5dcb8b8 ldm/modules/attention_FLIS.py and ldm/modules/diffusionmodules/openaimodel_FLIS.py;
 * the paper's section 3.3. The only difference from plain Stable Diffusion is flis_rca_mask and where its result is
 * used: in the cross-attention (attn2) of every SpatialTransformer, never in the self-attention (attn1). This file
 * knows nothing of prompts, samplers or pictures.
 *
 * Letters: n samples, h height, w width, c channels, t tokens (h*w), e width of the time embedding, x width of the text
 * features. Any channel multipliers and any sizes that halve evenly are accepted; the authors need square latents.
 */
#include "flis.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define PREFIX "model.diffusion_model."

/* The eps of group norm: 1e-5 in ResBlocks and in `out`, 1e-6 in SpatialTransformers. With the wrong one the error is
   1e-5 where activations are small: a quarter of the tolerance, and systematic. SPEC 15.7. */
static const double RESBLOCK_EPS = 1e-5, TRANSFORMER_EPS = 1e-6;

/* ---- Rectified cross-attention --------------------------------------------------------------------------------- */

/* Paper section 3.3: a text token acts only on the image tokens of its region. With the label map at this scale,
     mask[i][k + 1] = (label[i] == class_ids[k])     for the prompt's tokens k = 0..classes-1 (column 0 is BOS)
   and 1 (attended) everywhere else: BOS, EOS and padding, and tokens of class -1. A class that does not occur at this
   scale is masked in every cell. attention_FLIS.py:203-226. SPEC 4.3. */
bool flis_rca_mask(flis_ctx *ctx, const flis_rca *rca, size_t h, size_t w, uint8_t *mask)
{
    if (!flis_given(ctx, rca, "mask: the layout") || !flis_given(ctx, rca->label, "mask: the label map") ||
        !flis_given(ctx, mask, "mask: where it goes"))
        return false;
    if (rca->classes && !rca->class_ids) return flis_fail(ctx, "mask: the tokens' classes: got NULL");
    if (!rca->height || !rca->width || !h || !w || h > SIZE_MAX / FLIS_TOKENS / w)
        return flis_fail(ctx,
                         "mask: got a label map of %zu x %zu pixels and %zu x %zu cells, wanted sides of 1 or more",
                         rca->width, rca->height, w, h);
    if (rca->classes > FLIS_PHRASE_TOKENS)
        return flis_fail(ctx, "the layout has classes for %zu tokens, wanted at most %d", rca->classes,
                         FLIS_PHRASE_TOKENS);
    uint8_t *small = flis_alloc(ctx, h * w, 1);
    if (!small) return false;
    flis_label_torch(rca->label, rca->height, rca->width, small, h, w);
    memset(mask, 1, h * w * FLIS_TOKENS);
    for (size_t k = 0; k < rca->classes; k++) {
        if (rca->class_ids[k] == -1) continue;
        for (size_t i = 0; i < h * w; i++) mask[i * FLIS_TOKENS + k + 1] = (float)small[i] == rca->class_ids[k];
    }
    free(small);
    return true;
}

/* ---- Weights --------------------------------------------------------------------------------------------------- */

typedef struct resblock {
    size_t in, out;
    flis_param in_norm_weight, in_norm_bias;   /* in_layers.0: group norm [in] */
    flis_param in_w, in_b;                     /* in_layers.2: [out][in][3][3] */
    flis_param emb_w, emb_b;                   /* emb_layers.1: [out][e] */
    flis_param out_norm_weight, out_norm_bias; /* out_layers.0: group norm [out] */
    flis_param out_w, out_b;                   /* out_layers.3: [out][out][3][3] */
    flis_param skip_w, skip_b;                 /* skip_connection: [out][in][1][1], where in != out */
} resblock;

static const flis_key RESBLOCK_KEYS[] = {
    FLIS_KEY(resblock, in_norm_weight, "in_layers.0.weight", "i"),
    FLIS_KEY(resblock, in_norm_bias, "in_layers.0.bias", "i"),
    FLIS_KEY(resblock, in_w, "in_layers.2.weight", "oi33"),
    FLIS_KEY(resblock, in_b, "in_layers.2.bias", "o"),
    FLIS_KEY(resblock, emb_w, "emb_layers.1.weight", "oe"),
    FLIS_KEY(resblock, emb_b, "emb_layers.1.bias", "o"),
    FLIS_KEY(resblock, out_norm_weight, "out_layers.0.weight", "o"),
    FLIS_KEY(resblock, out_norm_bias, "out_layers.0.bias", "o"),
    FLIS_KEY(resblock, out_w, "out_layers.3.weight", "oo33"),
    FLIS_KEY(resblock, out_b, "out_layers.3.bias", "o"),
    FLIS_KEY(resblock, skip_w, "skip_connection.weight", "oi11"), /* the last two only where in != out */
    FLIS_KEY(resblock, skip_b, "skip_connection.bias", "o"),
};

typedef struct attention_weights {
    flis_param q, k, v, out_w, out_b;
} attention_weights; /* [c][c]; attn2's k and v [c][x] */

typedef struct transformer {
    size_t channels;
    flis_param norm_weight, norm_bias; /* norm: group norm [c] */
    flis_param in_w, in_b;             /* proj_in: [c][c][1][1] */
    flis_param norm1_weight, norm1_bias, norm2_weight, norm2_bias, norm3_weight,
        norm3_bias;                /* norm1..3: layer norms [c] */
    attention_weights self, cross; /* attn1, attn2 */
    flis_param gate_w, gate_b;     /* ff.net.0.proj: [8c][c], value and gate of GEGLU */
    flis_param ff_w, ff_b;         /* ff.net.2: [c][4c] */
    flis_param out_w, out_b;       /* proj_out: [c][c][1][1] */
} transformer;

#define BLOCK "transformer_blocks.0."
static const flis_key TRANSFORMER_KEYS[] = {
    FLIS_KEY(transformer, norm_weight, "norm.weight", "c"),
    FLIS_KEY(transformer, norm_bias, "norm.bias", "c"),
    FLIS_KEY(transformer, in_w, "proj_in.weight", "cc11"),
    FLIS_KEY(transformer, in_b, "proj_in.bias", "c"),
    FLIS_KEY(transformer, self.q, BLOCK "attn1.to_q.weight", "cc"),
    FLIS_KEY(transformer, self.k, BLOCK "attn1.to_k.weight", "cc"),
    FLIS_KEY(transformer, self.v, BLOCK "attn1.to_v.weight", "cc"),
    FLIS_KEY(transformer, self.out_w, BLOCK "attn1.to_out.0.weight", "cc"),
    FLIS_KEY(transformer, self.out_b, BLOCK "attn1.to_out.0.bias", "c"),
    FLIS_KEY(transformer, gate_w, BLOCK "ff.net.0.proj.weight", "gc"),
    FLIS_KEY(transformer, gate_b, BLOCK "ff.net.0.proj.bias", "g"),
    FLIS_KEY(transformer, ff_w, BLOCK "ff.net.2.weight", "cf"),
    FLIS_KEY(transformer, ff_b, BLOCK "ff.net.2.bias", "c"),
    FLIS_KEY(transformer, cross.q, BLOCK "attn2.to_q.weight", "cc"),
    FLIS_KEY(transformer, cross.k, BLOCK "attn2.to_k.weight", "cx"),
    FLIS_KEY(transformer, cross.v, BLOCK "attn2.to_v.weight", "cx"),
    FLIS_KEY(transformer, cross.out_w, BLOCK "attn2.to_out.0.weight", "cc"),
    FLIS_KEY(transformer, cross.out_b, BLOCK "attn2.to_out.0.bias", "c"),
    FLIS_KEY(transformer, norm1_weight, BLOCK "norm1.weight", "c"),
    FLIS_KEY(transformer, norm1_bias, BLOCK "norm1.bias", "c"),
    FLIS_KEY(transformer, norm2_weight, BLOCK "norm2.weight", "c"),
    FLIS_KEY(transformer, norm2_bias, BLOCK "norm2.bias", "c"),
    FLIS_KEY(transformer, norm3_weight, BLOCK "norm3.weight", "c"),
    FLIS_KEY(transformer, norm3_bias, BLOCK "norm3.bias", "c"),
    FLIS_KEY(transformer, out_w, "proj_out.weight", "cc11"),
    FLIS_KEY(transformer, out_b, "proj_out.bias", "c"),
};
#undef BLOCK

typedef enum { STAY, DOWN, UP } resampling;

/* One entry of input_blocks or output_blocks, or the middle block: the parts it has, in this order. */
typedef struct block {
    size_t level;                          /* of its input: 0 is full latent size */
    bool has_res, has_attention, has_res2; /* has_res2: the middle block only */
    resampling resample;                   /* DOWN is the block's only part; UP is its last */
    size_t channels;                       /* of its output */
    resblock res, res2;
    transformer attention;
    flis_param sample_w, sample_b; /* op / conv: [c][c][3][3] */
} block;

static const flis_key SAMPLE_KEYS[] = {
    FLIS_KEY(block, sample_w, "weight", "cc33"),
    FLIS_KEY(block, sample_b, "bias", "c"),
};

enum { MAX_BLOCKS = 64 };

struct flis_unet {
    flis_unet_config config;
    flis_param time0_w, time0_b, time2_w, time2_b; /* time_embed.0 [e][channels], .2 [e][e] */
    flis_param in_w, in_b;                         /* input_blocks.0.0: [channels][in][3][3] */
    size_t inputs, outputs;                        /* blocks in use; input_blocks.0 is in_w and has no entry */
    block input[MAX_BLOCKS], middle, output[MAX_BLOCKS];
    flis_param out_norm_weight, out_norm_bias; /* out.0: group norm [channels] */
    flis_param out_w, out_b;                   /* out.2: [out][channels][3][3] */
};

static const flis_key HEAD_KEYS[] = {
    FLIS_KEY(flis_unet, time0_w, "time_embed.0.weight", "em"),
    FLIS_KEY(flis_unet, time0_b, "time_embed.0.bias", "e"),
    FLIS_KEY(flis_unet, time2_w, "time_embed.2.weight", "ee"),
    FLIS_KEY(flis_unet, time2_b, "time_embed.2.bias", "e"),
    FLIS_KEY(flis_unet, in_w, "input_blocks.0.0.weight", "mi33"),
    FLIS_KEY(flis_unet, in_b, "input_blocks.0.0.bias", "m"),
};

static const flis_key TAIL_KEYS[] = {
    FLIS_KEY(flis_unet, out_norm_weight, "out.0.weight", "m"),
    FLIS_KEY(flis_unet, out_norm_bias, "out.0.bias", "m"),
    FLIS_KEY(flis_unet, out_w, "out.2.weight", "om33"),
    FLIS_KEY(flis_unet, out_b, "out.2.bias", "o"),
};

#define COUNT(table) (sizeof(table) / sizeof *(table))

/* Visits the weights of one ResBlock; skip_connection exists only where in and out differ. SPEC 10.5. */
static bool walk_resblock(flis_ctx *ctx, flis_walk *walk, const char *module, resblock *r, size_t e)
{
    const size_t dims[] = {'i', r->in, 'o', r->out, 'e', e, 0};
    const size_t keys = r->in == r->out ? COUNT(RESBLOCK_KEYS) - 2 : COUNT(RESBLOCK_KEYS);
    return flis_walk_keys(ctx, walk, module, RESBLOCK_KEYS, keys, r, dims);
}

/* Visits the parts of one block in order: `LIST.INDEX.PART.`, or `middle_block.PART.`. SPEC 10.5. */
static bool walk_block(flis_ctx *ctx, flis_walk *walk, const char *list, size_t index, block *b,
                       const flis_unet_config *config)
{
    char module[64];
    size_t part = 0, e = 4 * config->channels;
#define MODULE(tail) \
    (list ? snprintf(module, sizeof module, "%s.%zu.%zu." tail, list, index, part) \
          : snprintf(module, sizeof module, "middle_block.%zu." tail, part), \
     part++, module)
    if (b->has_res && !walk_resblock(ctx, walk, MODULE(""), &b->res, e)) return false;
    if (b->has_attention) {
        const size_t c = b->attention.channels, dims[] = {'c', c, 'g', 8 * c, 'f', 4 * c, 'x', config->context, 0};
        if (!flis_walk_keys(ctx, walk, MODULE(""), TRANSFORMER_KEYS, COUNT(TRANSFORMER_KEYS), &b->attention, dims))
            return false;
    }
    if (b->has_res2 && !walk_resblock(ctx, walk, MODULE(""), &b->res2, e)) return false;
    const size_t dims[] = {'c', b->channels, 0};
    if (b->resample == DOWN && !flis_walk_keys(ctx, walk, MODULE("op."), SAMPLE_KEYS, COUNT(SAMPLE_KEYS), b, dims))
        return false;
    if (b->resample == UP && !flis_walk_keys(ctx, walk, MODULE("conv."), SAMPLE_KEYS, COUNT(SAMPLE_KEYS), b, dims))
        return false;
#undef MODULE
    return true;
}

/* Visits every weight in the order of the checkpoint: name, shape, storage. Loading, counting and freeing use this.
   SPEC 5.1. */
bool flis_unet_walk(flis_ctx *ctx, flis_unet *unet, flis_visit *visit, void *user)
{
    if (!flis_given(ctx, unet, "U-Net")) return false;
    const flis_unet_config *config = &unet->config;
    const size_t dims[] = {'m', config->channels, 'e', 4 * config->channels, 'i', config->in, 'o', config->out, 0};
    flis_walk walk = {visit, user, PREFIX};
    if (!flis_walk_keys(ctx, &walk, "", HEAD_KEYS, COUNT(HEAD_KEYS), unet, dims)) return false;
    for (size_t i = 0; i < unet->inputs; i++)
        if (!walk_block(ctx, &walk, "input_blocks", i + 1, &unet->input[i], config)) return false;
    if (!walk_block(ctx, &walk, NULL, 0, &unet->middle, config)) return false;
    for (size_t i = 0; i < unet->outputs; i++)
        if (!walk_block(ctx, &walk, "output_blocks", i, &unet->output[i], config)) return false;
    return flis_walk_keys(ctx, &walk, "", TAIL_KEYS, COUNT(TAIL_KEYS), unet, dims);
}

/* ---- Shape of the network -------------------------------------------------------------------------------------- */

/* Describes a block that begins with a ResBlock in -> out, and has a SpatialTransformer if `attention`. SPEC 5.2. */
static void block_res(block *b, size_t level, size_t in, size_t out, bool attention)
{
    b->level = level;
    b->has_res = true;
    b->res.in = in;
    b->res.out = out;
    b->channels = out;
    b->has_attention = attention;
    b->attention.channels = out;
}

/* openaimodel_FLIS.py UNetModel.__init__: down through the levels, recording the width of every output for the skip
   connections; the middle; up again, where each output block uses one skip. SPEC 5.2. */
static void lay_out(flis_unet *unet)
{
    const flis_unet_config *config = &unet->config;
    size_t skip[MAX_BLOCKS + 1], skips = 0, width = config->channels;
    skip[skips++] = width;
    for (size_t level = 0; level < config->levels; level++) {
        for (size_t i = 0; i < config->blocks; i++) {
            size_t out = config->channels * config->mult[level];
            block_res(&unet->input[unet->inputs++], level, width, out, config->attention[level]);
            skip[skips++] = width = out;
        }
        if (level + 1 < config->levels) {
            block *b = &unet->input[unet->inputs++];
            b->level = level;
            b->resample = DOWN;
            b->channels = width;
            skip[skips++] = width;
        }
    }
    block_res(&unet->middle, config->levels - 1, width, width, true);
    unet->middle.has_res2 = true;
    unet->middle.res2.in = unet->middle.res2.out = width;
    for (size_t level = config->levels; level-- > 0;)
        for (size_t i = 0; i <= config->blocks; i++) {
            size_t out = config->channels * config->mult[level];
            block *b = &unet->output[unet->outputs++];
            block_res(b, level, width + skip[--skips], out, config->attention[level]);
            if (level && i == config->blocks) b->resample = UP;
            width = out;
        }
}

static bool set_groups(flis_ctx *ctx, void *groups, const char *name, flis_param *param)
{
    (void)name;
    if (param->rank == 1) param->groups = *(const size_t *)groups;
    return flis_ok(ctx);
}

/* Refuses a configuration that the authors' code could not build, then lays out the blocks, without weights.
   SPEC 5.1. */
flis_unet *flis_unet_new(flis_ctx *ctx, const flis_unet_config *config)
{
    if (!flis_given(ctx, config, "U-Net: its configuration")) return NULL;
    const size_t most = 1 << 16, groups = config->groups ? config->groups : 32;
    bool sane = config->levels >= 1 && config->levels <= FLIS_MAX_LEVELS && config->blocks >= 1 &&
                (config->blocks + 1) * config->levels <= MAX_BLOCKS && config->channels <= most && config->heads >= 1 &&
                config->context <= most;
    for (size_t i = 0; sane && i < config->levels; i++) {
        size_t c = config->channels * config->mult[i];
        sane = config->mult[i] >= 1 && config->mult[i] <= 64 && c % groups == 0 && c % config->heads == 0;
    }
    if (!sane) {
        flis_fail(ctx,
                  "the U-Net's shape is not one that Stable Diffusion's code can build: channels %zu, levels %zu, "
                  "blocks %zu, heads %zu; widths must be multiples of %zu and of the heads",
                  config->channels, config->levels, config->blocks, config->heads, groups);
        return NULL;
    }
    flis_unet *unet = flis_alloc(ctx, 1, sizeof *unet);
    if (!unet) return NULL;
    unet->config = *config;
    lay_out(unet);
    flis_unet_walk(ctx, unet, set_groups, &unet->config.groups);
    return unet;
}

/* The walk knows every weight that was loaded, so that none is forgotten. SPEC 5.1. */
void flis_unet_free(flis_unet *unet)
{
    if (!unet) return;
    flis_ctx calm = FLIS_CTX_PLAIN; /* a failed context would stop the walk */
    flis_unet_walk(&calm, unet, flis_free_visit, NULL);
    free(unet);
}

/* The configuration that the network was made with. SPEC 5.1. */
const flis_unet_config *flis_unet_get_config(const flis_unet *unet)
{
    return unet ? &unet->config : NULL;
}

static bool any(const flis_file *file, const char *format, size_t index)
{
    char name[128];
    snprintf(name, sizeof name, format, index);
    return flis_file_any(file, name);
}

static const flis_entry *find(const flis_file *file, const char *format, size_t index)
{
    char name[128];
    snprintf(name, sizeof name, format, index);
    return flis_file_find(file, name);
}

/* The configuration that the shapes imply. The blocks of a level are those before its downsample. SPEC 5.1. */
static bool config_read(flis_ctx *ctx, const flis_file *file, flis_unet_config *config)
{
    const flis_entry *first = flis_file_find(file, PREFIX "input_blocks.0.0.weight");
    if (!first || first->rank != 4) return flis_fail_no_part(ctx, file, "U-Net", PREFIX "input_blocks.0.0.weight");
    config->channels = (size_t)first->shape[0];
    config->in = (size_t)first->shape[1];
    const flis_entry *last = flis_file_find(file, PREFIX "out.2.weight");
    config->out = last && last->rank == 4 ? (size_t)last->shape[0] : config->in;
    size_t blocks = 0;
    config->levels = 1;
    const flis_entry *k = flis_file_find(file, PREFIX "middle_block.1.transformer_blocks.0.attn2.to_k.weight");
    for (size_t i = 1; i <= MAX_BLOCKS; i++) {
        const flis_entry *res = find(file, PREFIX "input_blocks.%zu.0.in_layers.2.bias", i);
        if (!res) res = find(file, PREFIX "input_blocks.%zu.0.in_layers.2.weight", i);
        if (res && res->rank >= 1 && config->channels) {
            size_t level = config->levels - 1;
            config->mult[level] = (size_t)res->shape[0] / config->channels;
            if (any(file, PREFIX "input_blocks.%zu.1.", i)) config->attention[level] = true;
            if (!k) k = find(file, PREFIX "input_blocks.%zu.1.transformer_blocks.0.attn2.to_k.weight", i);
            if (++blocks > config->blocks) config->blocks = blocks;
        } else if (any(file, PREFIX "input_blocks.%zu.0.op.", i) && config->levels < FLIS_MAX_LEVELS) {
            config->levels++;
            blocks = 0;
        } else {
            for (size_t next = i; next <= MAX_BLOCKS; next++)
                if (any(file, PREFIX "input_blocks.%zu.", next))
                    return flis_fail(ctx,
                                     "%s: %sinput_blocks.%zu is there, but what should be in input_blocks.%zu is not",
                                     file->path, PREFIX, next, i);
            break;
        }
    }
    if (k && k->rank == 2) config->context = (size_t)k->shape[1];
    config->groups = (size_t)flis_file_number(ctx, file, "unet.norm_num_groups", true, 32);
    /* No shape determines the number of heads; Stable Diffusion v1 has 8. */
    config->heads = (size_t)flis_file_number(ctx, file, "unet.num_heads", true, 8);
    return flis_ok(ctx);
}

/* Reads the configuration and all weights; missing, misshaped and non-finite tensors are listed. SPEC 5.1. */
flis_unet *flis_unet_load(flis_ctx *ctx, flis_file *file)
{
    flis_unet_config config = {0};
    if (!flis_given(ctx, file, "U-Net: its file") || !config_read(ctx, file, &config)) return NULL;
    flis_unet *unet = flis_unet_new(ctx, &config);
    if (!unet) return flis_fail_in(ctx, file->path), NULL;
    flis_loader loader = {.file = file};
    flis_unet_walk(ctx, unet, flis_count_visit, &loader.total);
    flis_unet_walk(ctx, unet, flis_load_visit, &loader);
    if (flis_load_finish(ctx, &loader, PREFIX)) return unet;
    flis_unet_free(unet);
    return NULL;
}

/* ---- Forward --------------------------------------------------------------------------------------------------- */

/* What all blocks of one forward pass share. */
typedef struct forward_pass {
    const flis_unet *unet;
    const flis_tensor *emb;                 /* SiLU of the time embedding [n][1][e] */
    const flis_tensor *context;             /* [n][77][x] */
    const uint8_t **masks[FLIS_MAX_LEVELS]; /* per level and sample: RCA mask [h*w][77] or NULL; NULL: none has one */
} forward_pass;

/* out[i] = cos(t f_i), out[half + i] = sin(t f_i), f_i = exp(-ln(10000) i / half): cosines first. In double, rounded
   once; PyTorch computes in float32, which is up to 6e-5 off at t = 981. openaimodel's timestep_embedding. SPEC 5.4. */
void flis_time_embedding(double t, size_t dim, flis_real *out)
{
    const size_t half = dim / 2;
    for (size_t i = 0; i < half; i++) {
        double angle = t * flis_exp(-9.2103403719761836 * (double)i / (double)half);
        out[i] = (flis_real)flis_cos(angle);
        out[half + i] = (flis_real)flis_sin(angle);
    }
    if (dim % 2) out[dim - 1] = 0;
}

/* emb = W2 silu(W0 embedding(t) + b0) + b2. Returns silu(emb), the form in which every ResBlock uses it. SPEC 5.4. */
static flis_tensor *time_embed(flis_ctx *ctx, const flis_unet *unet, const double *t, size_t n)
{
    const size_t channels = unet->config.channels;
    flis_tensor *wave = flis_vectors(ctx, n, channels);
    for (size_t i = 0; wave && wave->x && i < n; i++) flis_time_embedding(t[i], channels, wave->x + i * channels);
    flis_tensor *y = flis_linear(ctx, wave, &unet->time0_w, &unet->time0_b, NULL);
    flis_trace(ctx, y, "time_embed.0");
    y = flis_linear(ctx, flis_silu(ctx, y), &unet->time2_w, &unet->time2_b, NULL);
    flis_trace(ctx, y, "time_embed");
    return flis_silu(ctx, y);
}

/* y = skip(x) + conv(silu(gn(conv(silu(gn(x))) + W silu(emb)))). openaimodel_FLIS.py ResBlock._forward. SPEC 5.5. */
static flis_tensor *resblock_forward(flis_ctx *ctx, const forward_pass *pass, const resblock *r, const flis_tensor *x,
                                     const char *name)
{
    flis_mark mark = flis_here(ctx);
    flis_tensor *y = flis_norm_silu(ctx, x, &r->in_norm_weight, &r->in_norm_bias, RESBLOCK_EPS, name, ".in_layers.0");
    y = flis_conv(ctx, y, &r->in_w, &r->in_b, FLIS_SAME, NULL);
    flis_trace(ctx, y, "%s.in_layers.2", name);
    flis_tensor *emb = flis_linear(ctx, pass->emb, &r->emb_w, &r->emb_b, NULL);
    flis_trace(ctx, emb, "%s.emb_layers.1", name);
    y = flis_norm_silu(ctx, flis_add_to_all(ctx, y, emb), &r->out_norm_weight, &r->out_norm_bias, RESBLOCK_EPS, name,
                       ".out_layers.0");
    const flis_tensor *skip = r->in == r->out ? x : flis_conv(ctx, x, &r->skip_w, &r->skip_b, FLIS_SAME, NULL);
    if (r->in != r->out) flis_trace(ctx, skip, "%s.skip_connection", name);
    y = flis_conv_add(ctx, y, &r->out_w, &r->out_b, skip, name, ".out_layers.3");
    flis_trace(ctx, y, "%s", name);
    return flis_keep(ctx, mark, y);
}

/* y = residual + W x + b. With a trace W x + b is recorded under the module's name and the residual is added after it;
   without one both happen in one call, with the same bits. SPEC 5.6. */
static flis_tensor *project_and_add(flis_ctx *ctx, const flis_tensor *x, const flis_param *w, const flis_param *b,
                                    const flis_tensor *residual, const char *name, const char *module)
{
    if (!ctx->trace) return flis_linear(ctx, x, w, b, residual);
    flis_tensor *y = flis_linear(ctx, x, w, b, NULL);
    flis_trace(ctx, y, "%s.transformer_blocks.0.%s", name, module);
    return flis_add(ctx, y, residual);
}

static void trace_insides(flis_ctx *ctx, const flis_tensor *q, const flis_tensor *k, const flis_tensor *v, size_t heads,
                          double scale, flis_mask mask, const char *name, const char *module)
{
    char path[128];
    if (!ctx->trace_wants) return;
    snprintf(path, sizeof path, "%s.transformer_blocks.0.%s", name, module);
    flis_trace_attention(ctx, q, k, v, heads, scale, mask, path);
}

/* y = x + to_out(attention(to_q(norm x), to_k(source), to_v(source))), scale 1 / sqrt(head width). The source is the
   text in cross-attention, norm x in self-attention. attention_FLIS.py CrossAttention.forward. SPEC 5.6. */
static flis_tensor *attention_forward(flis_ctx *ctx, const forward_pass *pass, const attention_weights *a,
                                      const flis_tensor *x, const flis_tensor *normed, const flis_tensor *text,
                                      flis_mask mask, const char *name)
{
    const flis_tensor *source = text ? text : normed;
    const size_t heads = pass->unet->config.heads;
    const char *module = text ? "attn2" : "attn1";
    flis_mark mark = flis_here(ctx);
    flis_tensor *q = flis_linear(ctx, normed, &a->q, NULL, NULL);
    flis_tensor *k = flis_linear(ctx, source, &a->k, NULL, NULL);
    flis_tensor *v = flis_linear(ctx, source, &a->v, NULL, NULL);
    flis_trace(ctx, q, "%s.transformer_blocks.0.%s.to_q", name, module);
    flis_trace(ctx, k, "%s.transformer_blocks.0.%s.to_k", name, module);
    flis_trace(ctx, v, "%s.transformer_blocks.0.%s.to_v", name, module);
    double scale = x ? 1.0 / sqrt((double)(x->c / heads)) : 1.0; /* the width of a head, not of all channels */
    trace_insides(ctx, q, k, v, heads, scale, mask, name, module);
    flis_tensor *y = flis_attention(ctx, q, k, v, heads, scale, mask);
    return flis_keep(ctx, mark, project_and_add(ctx, y, &a->out_w, &a->out_b, x, name, module));
}

static flis_tensor *layer_norm(flis_ctx *ctx, const flis_tensor *x, const flis_param *weight, const flis_param *bias,
                               const char *name, int number)
{
    flis_tensor *y = flis_layer_norm(ctx, x, weight, bias);
    flis_trace(ctx, y, "%s.transformer_blocks.0.norm%d", name, number);
    return y;
}

/* proj_out(block(proj_in(norm x))) + x, block: x += attn1(norm1 x); x += attn2(norm2 x, text); x += ff(norm3 x).
   attention_FLIS.py SpatialTransformer.forward, BasicTransformerBlock._forward, GEGLU. SPEC 5.6. */
static flis_tensor *transformer_forward(flis_ctx *ctx, const forward_pass *pass, const transformer *a, size_t level,
                                        const flis_tensor *x, const char *name)
{
    if (!x) return NULL;
    flis_mark mark = flis_here(ctx);
    flis_tensor *y = flis_group_norm(ctx, x, &a->norm_weight, &a->norm_bias, TRANSFORMER_EPS, false);
    flis_trace(ctx, y, "%s.norm", name);
    y = flis_conv(ctx, y, &a->in_w, &a->in_b, FLIS_SAME, NULL);
    flis_trace(ctx, y, "%s.proj_in", name);
    y = flis_keep(ctx, mark, y);
    flis_mark inner = flis_here(ctx);
    y = flis_as_rows(ctx, y);
    flis_mask all = {0}, rectified = {.attended = (const uint8_t *const *)pass->masks[level]};
    y = attention_forward(ctx, pass, &a->self, y, layer_norm(ctx, y, &a->norm1_weight, &a->norm1_bias, name, 1), NULL,
                          all, name);
    y = attention_forward(ctx, pass, &a->cross, y, layer_norm(ctx, y, &a->norm2_weight, &a->norm2_bias, name, 2),
                          pass->context, rectified, name);
    y = flis_keep(ctx, inner, y);
    flis_tensor *f =
        flis_linear(ctx, layer_norm(ctx, y, &a->norm3_weight, &a->norm3_bias, name, 3), &a->gate_w, &a->gate_b, NULL);
    flis_trace(ctx, f, "%s.transformer_blocks.0.ff.net.0.proj", name);
    f = flis_geglu(ctx, f);
    flis_trace(ctx, f, "%s.transformer_blocks.0.ff.net.0", name);
    y = project_and_add(ctx, f, &a->ff_w, &a->ff_b, y, name, "ff");
    flis_trace(ctx, y, "%s.transformer_blocks.0", name);
    y = flis_conv_add(ctx, flis_as_image(ctx, y, x->h, x->w), &a->out_w, &a->out_b, x, name, ".proj_out");
    flis_trace(ctx, y, "%s", name);
    return flis_keep(ctx, mark, y);
}

/* One TimestepEmbedSequential: its parts in order, applied to x or, on the way up, to [x, skip]. `name` is its path.
   SPEC 5.2. */
static flis_tensor *block_forward(flis_ctx *ctx, const forward_pass *pass, const block *b, flis_tensor *x,
                                  const flis_tensor *skip, const char *name)
{
    char part_name[80];
    size_t part = 0;
    flis_mark mark = flis_here(ctx);
    flis_tensor *y = skip ? flis_concat(ctx, x, skip) : x;
#define PART (snprintf(part_name, sizeof part_name, "%s.%zu", name, part), part++, part_name)
    if (b->has_res) y = resblock_forward(ctx, pass, &b->res, y, PART);
    if (b->has_attention) y = transformer_forward(ctx, pass, &b->attention, b->level, y, PART);
    if (b->has_res2) y = resblock_forward(ctx, pass, &b->res2, y, PART);
    if (b->resample != STAY) {
        y = flis_conv(ctx, y, &b->sample_w, &b->sample_b, b->resample == DOWN ? FLIS_STRIDE2 : FLIS_UPSAMPLE2, NULL);
        flis_trace(ctx, y, "%s", PART);
    }
#undef PART
    flis_trace(ctx, y, "%s", name);
    return flis_keep(ctx, mark, y);
}

/* The arguments of a block that flis_checkpoint runs: once forward, once more during the backward pass. */
typedef struct block_call {
    const forward_pass *pass;
    const block *b;
    bool has_skip;
    char name[48];
} block_call;

static flis_tensor *block_rerun(flis_ctx *ctx, void *user, flis_tensor *const *in)
{
    const block_call *call = user;
    return block_forward(ctx, call->pass, call->b, in[0], call->has_skip ? in[1] : NULL, call->name);
}

/* A block. A tape records all its operations or, with checkpointing, its inputs and result only. */
static flis_tensor *block_run(flis_ctx *ctx, const forward_pass *pass, const block *b, flis_tensor *x,
                              flis_tensor *skip, const char *name)
{
    if (!ctx->tape || !ctx->tape->checkpoint || !x) return block_forward(ctx, pass, b, x, skip, name);
    block_call *call = flis_scratch(ctx, 1, sizeof *call);
    flis_tensor *in[2] = {x, skip};
    if (!call) return NULL;
    *call = (block_call){.pass = pass, .b = b, .has_skip = skip != NULL};
    snprintf(call->name, sizeof call->name, "%s", name);
    return flis_checkpoint(ctx, block_rerun, call, in, skip ? 2 : 1);
}

/* The RCA mask of every level that has attention, for every sample with a layout. SPEC 4.4. */
static void masks_make(flis_ctx *ctx, forward_pass *pass, const flis_tensor *x, const flis_rca *const *rca)
{
    const flis_unet_config *config = &pass->unet->config;
    for (size_t level = 0; rca && level < config->levels; level++) {
        /* The middle block, on the last level, always has attention. */
        if (!config->attention[level] && level + 1 < config->levels) continue;
        const size_t h = x->h >> level, w = x->w >> level;
        const uint8_t **masks = flis_scratch(ctx, x->n, sizeof *masks);
        for (size_t i = 0; i < x->n; i++) {
            uint8_t *mask = rca[i] ? flis_scratch(ctx, h * w, FLIS_TOKENS) : NULL;
            if (mask) flis_rca_mask(ctx, rca[i], h, w, mask);
            if (masks) masks[i] = mask;
        }
        pass->masks[level] = masks;
    }
}

/* UNetModel.forward: down, keeping the output of every block; the middle; up, each block on [y, skip]; out.
   SPEC 5.7. */
static flis_tensor *forward(flis_ctx *ctx, const flis_unet *unet, const flis_tensor *x, const double *t,
                            const flis_tensor *context, const flis_rca *const *rca)
{
    char name[48];
    flis_tensor *skip[MAX_BLOCKS + 1];
    size_t skips = 0;
    forward_pass on_stack,
        *pass = ctx->tape ? flis_scratch(ctx, 1, sizeof *pass) : &on_stack; /* a tape refers to it later */
    if (!pass) return NULL;
    *pass = (forward_pass){.unet = unet, .context = context};
    flis_mark mark = flis_here(ctx);
    masks_make(ctx, pass, x, rca);
    pass->emb = time_embed(ctx, unet, t, x->n);
    flis_tensor *y = flis_conv(ctx, x, &unet->in_w, &unet->in_b, FLIS_SAME, NULL);
    flis_trace(ctx, y, "input_blocks.0");
    skip[skips++] = y;
    for (size_t i = 0; i < unet->inputs; i++) {
        snprintf(name, sizeof name, "input_blocks.%zu", i + 1);
        skip[skips++] = y = block_run(ctx, pass, &unet->input[i], y, NULL, name);
    }
    y = block_run(ctx, pass, &unet->middle, y, NULL, "middle_block");
    for (size_t i = 0; i < unet->outputs; i++) {
        snprintf(name, sizeof name, "output_blocks.%zu", i);
        y = block_run(ctx, pass, &unet->output[i], y, skip[--skips], name);
    }
    y = flis_norm_silu(ctx, y, &unet->out_norm_weight, &unet->out_norm_bias, RESBLOCK_EPS, "out", ".0");
    y = flis_conv(ctx, y, &unet->out_w, &unet->out_b, FLIS_SAME, NULL);
    flis_trace(ctx, y, "out");
    return flis_keep(ctx, mark, y);
}

/* x [n][h][w][in], h and w multiples of 2^(levels-1); text [n][77][context]. SPEC 5.7. */
static bool inputs_fit(flis_ctx *ctx, const flis_unet *unet, const flis_tensor *x, const flis_tensor *context)
{
    const size_t unit = (size_t)1 << (unet->config.levels - 1);
    if (x->c != unet->config.in)
        return flis_fail(ctx, "U-Net: got %zu latent channels, wanted %zu", x->c, unet->config.in);
    if (!x->n) return flis_fail(ctx, "U-Net: got 0 samples, wanted 1 or more");
    if (x->h % unit || x->w % unit || !x->h || !x->w)
        return flis_fail(ctx, "U-Net: got latents of %zu x %zu, wanted multiples of %zu", x->h, x->w, unit);
    if (context->n != x->n || context->h != FLIS_TOKENS || context->c != unet->config.context)
        return flis_fail(ctx, "U-Net: got text features [%zu,%zu,%zu], wanted [%zu,%d,%zu]", context->n, context->h,
                         context->c, x->n, FLIS_TOKENS, unet->config.context);
    return true;
}

/* eps = U-Net(x, t, text, layouts). A dry run first measures the memory, which is then allocated once. SPEC 5.7. */
flis_tensor *flis_unet_eps(flis_ctx *ctx, const flis_unet *unet, const flis_tensor *x, const double *t,
                           const flis_tensor *context, const flis_rca *const *rca)
{
    if (!flis_given(ctx, unet, "U-Net") || !flis_given(ctx, x, "U-Net: the latents") ||
        !flis_given(ctx, t, "U-Net: the timesteps") || !flis_given(ctx, context, "U-Net: the text features") ||
        !inputs_fit(ctx, unet, x, context))
        return NULL;
    flis_dry dry;
    if (flis_dry_begin(ctx, &dry)) {
        forward(ctx, unet, x, t, context, rca);
        flis_dry_end(ctx, &dry);
    }
    return forward(ctx, unet, x, t, context, rca);
}

/* ---- diffusers' names ------------------------------------------------------------------------------------------ */

/* A row of a table of names: the diffusers prefix and its name in the checkpoint. */
typedef struct rename_pair {
    const char *from, *to;
} rename_pair;

static const rename_pair RES_NAMES[] = {
    {"norm1.", "in_layers.0."},  {"conv1.", "in_layers.2."},  {"time_emb_proj.", "emb_layers.1."},
    {"norm2.", "out_layers.0."}, {"conv2.", "out_layers.3."}, {"conv_shortcut.", "skip_connection."},
};

static const rename_pair OUTER_NAMES[] = {
    {"conv_in.", "input_blocks.0.0."},
    {"time_embedding.linear_1.", "time_embed.0."},
    {"time_embedding.linear_2.", "time_embed.2."},
    {"conv_norm_out.", "out.0."},
    {"conv_out.", "out.2."},
    {"mid_block.attentions.0.", "middle_block.1."},
};

static bool starts(const char *text, const char *with, const char **rest)
{
    const size_t length = strlen(with);
    if (strncmp(text, with, length) != 0) return false;
    *rest = text + length;
    return true;
}

/* A weight of the ResBlock whose checkpoint path is `path`. SPEC 10.4. */
static bool rename_res(const char *path, const char *rest, char *out, size_t room)
{
    const char *tail;
    for (size_t i = 0; i < COUNT(RES_NAMES); i++)
        if (starts(rest, RES_NAMES[i].from, &tail)) {
            snprintf(out, room, PREFIX "%s%s%s", path, RES_NAMES[i].to, tail);
            return true;
        }
    return false;
}

/* diffusers numbers blocks per level (down_blocks.LEVEL.resnets.I, .attentions.I, .downsamplers.0), the checkpoint
   numbers them in one sequence: level * (blocks + 1) + I, plus one in input_blocks, whose first is conv_in.
   SPEC 10.4. */
bool flis_unet_rename(void *user, const char *name, char *out, size_t room)
{
    const flis_diffusers *d = user;
    const char *tail;
    char path[48];
    unsigned level, index;
    int used = 0;
    const size_t per_level = d->blocks + 1;
    for (size_t i = 0; i < COUNT(OUTER_NAMES); i++)
        if (starts(name, OUTER_NAMES[i].from, &tail))
            return snprintf(out, room, PREFIX "%s%s", OUTER_NAMES[i].to, tail) > 0;
    if (sscanf(name, "mid_block.resnets.%1u.%n", &index, &used) == 1 && used) {
        snprintf(path, sizeof path, "middle_block.%u.", index * 2);
        return rename_res(path, name + used, out, room);
    }
    if (sscanf(name, "down_blocks.%1u.resnets.%2u.%n", &level, &index, &used) == 2 && used) {
        snprintf(path, sizeof path, "input_blocks.%zu.0.", 1 + level * per_level + index);
        return rename_res(path, name + used, out, room);
    }
    if (sscanf(name, "up_blocks.%1u.resnets.%2u.%n", &level, &index, &used) == 2 && used) {
        snprintf(path, sizeof path, "output_blocks.%zu.0.", level * per_level + index);
        return rename_res(path, name + used, out, room);
    }
    if (sscanf(name, "down_blocks.%1u.attentions.%2u.%n", &level, &index, &used) == 2 && used)
        return snprintf(out, room, PREFIX "input_blocks.%zu.1.%s", 1 + level * per_level + index, name + used) > 0;
    if (sscanf(name, "up_blocks.%1u.attentions.%2u.%n", &level, &index, &used) == 2 && used)
        return snprintf(out, room, PREFIX "output_blocks.%zu.1.%s", level * per_level + index, name + used) > 0;
    if (sscanf(name, "down_blocks.%1u.downsamplers.0.conv.%n", &level, &used) == 1 && used)
        return snprintf(out, room, PREFIX "input_blocks.%zu.0.op.%s", (level + 1) * per_level, name + used) > 0;
    if (sscanf(name, "up_blocks.%1u.upsamplers.0.conv.%n", &level, &used) == 1 && used && level < FLIS_MAX_LEVELS)
        return snprintf(out, room, PREFIX "output_blocks.%zu.%d.conv.%s", level * per_level + d->blocks,
                        d->up_attention[level] ? 2 : 1, name + used) > 0;
    return false;
}
