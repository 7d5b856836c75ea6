/* vae.c - the autoencoder of Stable Diffusion v1: latents to picture, picture to latents.
 *
 * Transcribes ldm/modules/diffusionmodules/model.py (Encoder, Decoder, ResnetBlock, AttnBlock) and
 * ldm/models/autoencoder.py of CompVis/latent-diffusion, which FreestyleNet@5dcb8b8 uses unchanged and never tunes.
 * The scale factor between encodings and diffusion latents is applied by the pipeline (flis.c); here z is the input of
 * post_quant_conv.
 *
 * Letters: n samples, h height, w width, c channels, i/o channels in/out of a block, z latent channels.
 */
#include "flis.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define PREFIX "first_stage_model."
#define COUNT(table) (sizeof(table) / sizeof *(table))

/* The eps of every group norm of the autoencoder; the U-Net's ResBlocks have 1e-5. SPEC 15.7. */
static const double VAE_EPS = 1e-6;

/* ---- Weights --------------------------------------------------------------------------------------------------- */

typedef struct resnet { /* ResnetBlock without a time embedding */
    size_t in, out;
    flis_param norm1_weight, norm1_bias; /* norm1 [in] */
    flis_param w1, b1;                   /* conv1 [out][in][3][3] */
    flis_param norm2_weight, norm2_bias; /* norm2 [out] */
    flis_param w2, b2;                   /* conv2 [out][out][3][3] */
    flis_param skip_w, skip_b;           /* nin_shortcut [out][in][1][1], where in != out */
} resnet;

static const flis_key RESNET_KEYS[] = {
    FLIS_KEY(resnet, norm1_weight, "norm1.weight", "i"),
    FLIS_KEY(resnet, norm1_bias, "norm1.bias", "i"),
    FLIS_KEY(resnet, w1, "conv1.weight", "oi33"),
    FLIS_KEY(resnet, b1, "conv1.bias", "o"),
    FLIS_KEY(resnet, norm2_weight, "norm2.weight", "o"),
    FLIS_KEY(resnet, norm2_bias, "norm2.bias", "o"),
    FLIS_KEY(resnet, w2, "conv2.weight", "oo33"),
    FLIS_KEY(resnet, b2, "conv2.bias", "o"),
    FLIS_KEY(resnet, skip_w, "nin_shortcut.weight", "oi11"), /* the last two only where in != out */
    FLIS_KEY(resnet, skip_b, "nin_shortcut.bias", "o"),
};

typedef struct self_attention {                            /* AttnBlock: one head over all pixels */
    flis_param norm_weight, norm_bias;                     /* norm [c] */
    flis_param q_w, q_b, k_w, k_b, v_w, v_b, out_w, out_b; /* [c][c][1][1], [c] */
} self_attention;

static const flis_key ATTENTION_KEYS[] = {
    FLIS_KEY(self_attention, norm_weight, "norm.weight", "c"),  FLIS_KEY(self_attention, norm_bias, "norm.bias", "c"),
    FLIS_KEY(self_attention, q_w, "q.weight", "cc11"),          FLIS_KEY(self_attention, q_b, "q.bias", "c"),
    FLIS_KEY(self_attention, k_w, "k.weight", "cc11"),          FLIS_KEY(self_attention, k_b, "k.bias", "c"),
    FLIS_KEY(self_attention, v_w, "v.weight", "cc11"),          FLIS_KEY(self_attention, v_b, "v.bias", "c"),
    FLIS_KEY(self_attention, out_w, "proj_out.weight", "cc11"), FLIS_KEY(self_attention, out_b, "proj_out.bias", "c"),
};

enum { MAX_RESNETS = 8 }; /* of one level */

typedef struct level { /* encoder.down.N or decoder.up.N */
    size_t width, resnets;
    bool resamples;
    resnet block[MAX_RESNETS];
    flis_param sample_w, sample_b; /* downsample.conv / upsample.conv [c][c][3][3] */
} level;

static const flis_key SAMPLE_KEYS[] = {
    FLIS_KEY(level, sample_w, "conv.weight", "cc33"),
    FLIS_KEY(level, sample_b, "conv.bias", "c"),
};

typedef struct coder { /* the encoder or the decoder: the same parts in another order */
    const char *name;  /* "encoder." or "decoder." */
    size_t in, out, first_width, last_width, middle_width;
    flis_param in_w, in_b;                     /* conv_in [first_width][in][3][3] */
    level level[FLIS_MAX_LEVELS];              /* 0 is picture size */
    resnet middle1, middle2;                   /* mid.block_1, mid.block_2 */
    self_attention attention;                  /* mid.attn_1 */
    flis_param out_norm_weight, out_norm_bias; /* norm_out [last_width] */
    flis_param out_w, out_b;                   /* conv_out [out][last_width][3][3] */
} coder;

static const flis_key IN_KEYS[] = {
    FLIS_KEY(coder, in_w, "conv_in.weight", "fi33"),
    FLIS_KEY(coder, in_b, "conv_in.bias", "f"),
};

static const flis_key OUT_KEYS[] = {
    FLIS_KEY(coder, out_norm_weight, "norm_out.weight", "l"),
    FLIS_KEY(coder, out_norm_bias, "norm_out.bias", "l"),
    FLIS_KEY(coder, out_w, "conv_out.weight", "ol33"),
    FLIS_KEY(coder, out_b, "conv_out.bias", "o"),
};

struct flis_vae {
    flis_vae_config config;
    bool has_decoder, has_encoder;
    coder decoder, encoder;
    flis_param quant_w, quant_b; /* quant_conv [2 embed][2 z][1][1]: after the encoder */
    flis_param post_w, post_b;   /* post_quant_conv [z][embed][1][1]: before the decoder */
};

static const flis_key QUANT_KEYS[] = {
    FLIS_KEY(flis_vae, quant_w, "quant_conv.weight", "qp11"),
    FLIS_KEY(flis_vae, quant_b, "quant_conv.bias", "q"),
};

static const flis_key POST_KEYS[] = {
    FLIS_KEY(flis_vae, post_w, "post_quant_conv.weight", "ze11"),
    FLIS_KEY(flis_vae, post_b, "post_quant_conv.bias", "z"),
};

/* Visits the weights of one resnet; nin_shortcut exists only where in and out differ. SPEC 10.5. */
static bool walk_resnet(flis_ctx *ctx, flis_walk *walk, const char *module, resnet *r)
{
    const size_t dims[] = {'i', r->in, 'o', r->out, 0};
    const size_t keys = r->in == r->out ? COUNT(RESNET_KEYS) - 2 : COUNT(RESNET_KEYS);
    return flis_walk_keys(ctx, walk, module, RESNET_KEYS, keys, r, dims);
}

/* Visits the weights of the encoder or the decoder: conv_in, the levels, the middle, norm_out, conv_out. SPEC 10.5. */
static bool walk_coder(flis_ctx *ctx, flis_walk *walk, coder *c, size_t levels)
{
    const bool decodes = c->name[0] == 'd';
    const size_t dims[] = {'f', c->first_width, 'i', c->in, 'l', c->last_width, 'o', c->out, 'c', c->middle_width, 0};
    char module[96];
#define MODULE(...) (snprintf(module, sizeof module, __VA_ARGS__), module)
    if (!flis_walk_keys(ctx, walk, c->name, IN_KEYS, COUNT(IN_KEYS), c, dims)) return false;
    for (size_t i = 0; i < levels; i++) {
        level *l = &c->level[i];
        const size_t level_dims[] = {'c', l->width, 0};
        const char *list = decodes ? "up" : "down", *sample = decodes ? "upsample" : "downsample";
        for (size_t k = 0; k < l->resnets; k++)
            if (!walk_resnet(ctx, walk, MODULE("%s%s.%zu.block.%zu.", c->name, list, i, k), &l->block[k])) return false;
        if (l->resamples && !flis_walk_keys(ctx, walk, MODULE("%s%s.%zu.%s.", c->name, list, i, sample), SAMPLE_KEYS,
                                            COUNT(SAMPLE_KEYS), l, level_dims))
            return false;
    }
    return walk_resnet(ctx, walk, MODULE("%smid.block_1.", c->name), &c->middle1) &&
           flis_walk_keys(ctx, walk, MODULE("%smid.attn_1.", c->name), ATTENTION_KEYS, COUNT(ATTENTION_KEYS),
                          &c->attention, dims) &&
           walk_resnet(ctx, walk, MODULE("%smid.block_2.", c->name), &c->middle2) &&
           flis_walk_keys(ctx, walk, c->name, OUT_KEYS, COUNT(OUT_KEYS), c, dims);
#undef MODULE
}

/* Visits every weight in the order of the checkpoint: name, shape, storage. Loading, counting and freeing use this.
   SPEC 6.1. */
bool flis_vae_walk(flis_ctx *ctx, flis_vae *vae, flis_visit *visit, void *user)
{
    if (!flis_given(ctx, vae, "autoencoder")) return false;
    const flis_vae_config *config = &vae->config;
    const size_t dims[] = {'q', 2 * config->embed, 'p', 2 * config->z, 'z', config->z, 'e', config->embed, 0};
    flis_walk walk = {visit, user, PREFIX};
    if (vae->has_encoder && !(walk_coder(ctx, &walk, &vae->encoder, config->levels) &&
                              flis_walk_keys(ctx, &walk, "", QUANT_KEYS, COUNT(QUANT_KEYS), vae, dims)))
        return false;
    return !vae->has_decoder || (flis_walk_keys(ctx, &walk, "", POST_KEYS, COUNT(POST_KEYS), vae, dims) &&
                                 walk_coder(ctx, &walk, &vae->decoder, config->levels));
}

/* ---- Shape of the network -------------------------------------------------------------------------------------- */

/* model.py Encoder.__init__ and Decoder.__init__. The encoder goes down the levels with `blocks` resnets each, the
   decoder up with one more. SPEC 6.1. */
static void lay_out(coder *c, const char *name, const flis_vae_config *config)
{
    const bool decodes = name[0] == 'd';
    const size_t last = config->levels - 1, widest = config->channels * config->mult[last];
    c->name = name;
    c->in = decodes ? config->z : 3;
    c->out = decodes ? 3 : 2 * config->z;
    c->first_width = decodes ? widest : config->channels;
    c->last_width = decodes ? config->channels * config->mult[0] : widest;
    c->middle_width = c->middle1.in = c->middle1.out = c->middle2.in = c->middle2.out = widest;
    size_t width = c->first_width;
    for (size_t step = 0; step < config->levels; step++) {
        size_t i = decodes ? last - step : step;
        level *l = &c->level[i];
        l->width = config->channels * config->mult[i];
        l->resnets = config->blocks + (decodes ? 1 : 0);
        l->resamples = decodes ? i > 0 : i < last;
        for (size_t k = 0; k < l->resnets; k++) {
            l->block[k].in = k ? l->width : width;
            l->block[k].out = l->width;
        }
        width = l->width;
    }
}

static bool set_groups(flis_ctx *ctx, void *groups, const char *name, flis_param *param)
{
    (void)name;
    if (param->rank == 1) param->groups = *(const size_t *)groups;
    return flis_ok(ctx);
}

/* The configuration that the network was made with. SPEC 6.1. */
const flis_vae_config *flis_vae_get_config(const flis_vae *vae)
{
    return vae ? &vae->config : NULL;
}

/* Refuses a configuration that the authors' code could not build, then lays out both halves, without weights.
   SPEC 6.1. */
flis_vae *flis_vae_new(flis_ctx *ctx, const flis_vae_config *config, bool decoder, bool encoder)
{
    if (!flis_given(ctx, config, "autoencoder: its configuration")) return NULL;
    const size_t most = 1 << 16, groups = config->groups ? config->groups : 32;
    bool sane = config->levels == 4 && config->blocks >= 1 && config->blocks < MAX_RESNETS && config->z >= 1 &&
                config->embed >= 1 && config->z <= most && config->embed <= most && config->channels <= most;
    for (size_t i = 0; sane && i < config->levels; i++)
        sane = config->mult[i] >= 1 && config->mult[i] <= 64 && config->channels * config->mult[i] % groups == 0;
    if (!sane) {
        flis_fail(
            ctx,
            "the autoencoder's shape is not one that Stable Diffusion's code can build with factor %d: channels %zu, "
            "levels %zu, blocks %zu; widths must be multiples of %zu",
            FLIS_FACTOR, config->channels, config->levels, config->blocks, groups);
        return NULL;
    }
    flis_vae *vae = flis_alloc(ctx, 1, sizeof *vae);
    if (!vae) return NULL;
    vae->config = *config;
    vae->has_decoder = decoder;
    vae->has_encoder = encoder;
    lay_out(&vae->decoder, "decoder.", config);
    lay_out(&vae->encoder, "encoder.", config);
    flis_vae_walk(ctx, vae, set_groups, &vae->config.groups);
    return vae;
}

/* The walk knows every weight that was loaded, so that none is forgotten. SPEC 6.1. */
void flis_vae_free(flis_vae *vae)
{
    if (!vae) return;
    flis_ctx calm = FLIS_CTX_PLAIN; /* a failed context would stop the walk */
    flis_vae_walk(&calm, vae, flis_free_visit, NULL);
    free(vae);
}

static size_t dimension(const flis_file *file, const char *name, int which)
{
    const flis_entry *entry = flis_file_find(file, name);
    return entry && entry->rank > which ? (size_t)entry->shape[which] : 0;
}

/* The configuration that the shapes imply, read from the decoder if it is wanted, else from the encoder. SPEC 6.1. */
static bool config_read(flis_ctx *ctx, const flis_file *file, bool decoder, flis_vae_config *config)
{
    const char *coder_name = decoder ? "decoder.up" : "encoder.down";
    char name[128];
    size_t width[FLIS_MAX_LEVELS] = {0};
    for (size_t i = 0; i < FLIS_MAX_LEVELS; i++) {
        snprintf(name, sizeof name, PREFIX "%s.%zu.block.0.norm2.weight", coder_name, i);
        width[i] = dimension(file, name, 0);
        if (width[i]) config->levels++;
        snprintf(name, sizeof name, PREFIX "%s.%zu.", coder_name, i);
        if (!width[i] && config->levels && flis_file_any(file, name))
            return flis_fail(ctx, "%s: " PREFIX "%s.%zu.block.0.norm2.weight is missing", flis_file_path(file, name),
                             coder_name, i);
        if (!width[i]) break;
    }
    if (!config->levels) {
        snprintf(name, sizeof name, PREFIX "%s.0.block.0.norm2.weight", coder_name);
        return flis_fail_no_part(ctx, file, "autoencoder", name);
    }
    size_t resnets = 0;
    for (size_t i = 0; i <= MAX_RESNETS; i++) {
        snprintf(name, sizeof name, PREFIX "%s.0.block.%zu.", coder_name, i);
        if (flis_file_any(file, name)) resnets = i + 1;
    }
    config->blocks = decoder && resnets ? resnets - 1 : resnets;
    config->channels = dimension(file, PREFIX "encoder.conv_in.weight", 0);
    if (!config->channels) config->channels = width[0];
    for (size_t i = 0; i < config->levels; i++) config->mult[i] = width[i] / config->channels;
    config->z = decoder ? dimension(file, PREFIX "post_quant_conv.weight", 0)
                        : dimension(file, PREFIX "quant_conv.weight", 1) / 2;
    config->embed = decoder ? dimension(file, PREFIX "post_quant_conv.weight", 1)
                            : dimension(file, PREFIX "quant_conv.weight", 0) / 2;
    if (!config->z || !config->embed)
        return flis_fail(ctx, "%s: " PREFIX "%squant_conv.weight is missing", flis_file_path(file, PREFIX),
                         decoder ? "post_" : "");
    config->groups = (size_t)flis_file_number(ctx, file, "vae.norm_num_groups", true, 32);
    config->scale_factor = flis_file_number(ctx, file, "vae.scale_factor", false, 0.18215); /* not in any shape; v1's */
    return flis_ok(ctx);
}

/* Reads the configuration and the weights of the halves that are wanted; faulty tensors are listed. SPEC 6.1. */
flis_vae *flis_vae_load(flis_ctx *ctx, flis_file *file, bool decoder, bool encoder)
{
    flis_vae_config config = {0};
    if (!flis_given(ctx, file, "autoencoder: its file") || !config_read(ctx, file, decoder, &config)) return NULL;
    flis_vae *vae = flis_vae_new(ctx, &config, decoder, encoder);
    if (!vae) return flis_fail_in(ctx, flis_file_path(file, PREFIX)), NULL;
    flis_loader loader = {.file = file};
    flis_vae_walk(ctx, vae, flis_count_visit, &loader.total);
    flis_vae_walk(ctx, vae, flis_load_visit, &loader);
    if (flis_load_finish(ctx, &loader, decoder && encoder ? PREFIX : NULL)) return vae;
    flis_vae_free(vae);
    return NULL;
}

/* ---- Forward --------------------------------------------------------------------------------------------------- */

/* y = skip(x) + conv2(silu(gn2(conv1(silu(gn1(x)))))). model.py ResnetBlock.forward. SPEC 6.2. */
static flis_tensor *resnet_forward(flis_ctx *ctx, const resnet *r, const flis_tensor *x, const char *name)
{
    flis_mark mark = flis_here(ctx);
    flis_tensor *y = flis_norm_silu(ctx, x, &r->norm1_weight, &r->norm1_bias, VAE_EPS, name, ".norm1");
    y = flis_keep(ctx, mark, flis_conv(ctx, y, &r->w1, &r->b1, FLIS_SAME, NULL));
    flis_trace(ctx, y, "%s.conv1", name);
    y = flis_norm_silu(ctx, y, &r->norm2_weight, &r->norm2_bias, VAE_EPS, name, ".norm2");
    y = flis_keep(ctx, mark,
                  y); /* this is where a large picture takes the most memory: conv1's result is not needed any more */
    const flis_tensor *skip = r->in == r->out ? x : flis_conv(ctx, x, &r->skip_w, &r->skip_b, FLIS_SAME, NULL);
    if (r->in != r->out) flis_trace(ctx, skip, "%s.nin_shortcut", name);
    y = flis_conv_add(ctx, y, &r->w2, &r->b2, skip, name, ".conv2");
    flis_trace(ctx, y, "%s", name);
    return flis_keep(ctx, mark, y);
}

/* y = x + proj_out(attention(q(n), k(n), v(n))), n = gn(x); one head, scale c^-0.5. model.py AttnBlock.forward.
   SPEC 6.2. */
static flis_tensor *attention_forward(flis_ctx *ctx, const self_attention *a, const flis_tensor *x, const char *name)
{
    if (!x) return NULL;
    flis_mark mark = flis_here(ctx);
    flis_tensor *normed = flis_group_norm(ctx, x, &a->norm_weight, &a->norm_bias, VAE_EPS, false);
    flis_tensor *q = flis_conv(ctx, normed, &a->q_w, &a->q_b, FLIS_SAME, NULL);
    flis_tensor *k = flis_conv(ctx, normed, &a->k_w, &a->k_b, FLIS_SAME, NULL);
    flis_tensor *v = flis_conv(ctx, normed, &a->v_w, &a->v_b, FLIS_SAME, NULL);
    flis_trace(ctx, normed, "%s.norm", name);
    flis_trace(ctx, q, "%s.q", name);
    flis_trace(ctx, k, "%s.k", name);
    flis_trace(ctx, v, "%s.v", name);
    flis_mask all = {0};
    flis_tensor *y = flis_attention(ctx, flis_as_rows(ctx, q), flis_as_rows(ctx, k), flis_as_rows(ctx, v), 1,
                                    1.0 / sqrt((double)x->c), all);
    y = flis_conv_add(ctx, flis_as_image(ctx, y, x->h, x->w), &a->out_w, &a->out_b, x, name, ".proj_out");
    flis_trace(ctx, y, "%s", name);
    return flis_keep(ctx, mark, y);
}

#define NAME(...) (snprintf(name, sizeof name, __VA_ARGS__), name)

/* y = block_2(attn_1(block_1(x))), at the smallest size of either half. SPEC 6.2. */
static flis_tensor *middle_forward(flis_ctx *ctx, const coder *c, const flis_tensor *x)
{
    char name[80];
    flis_tensor *y = resnet_forward(ctx, &c->middle1, x, NAME("%smid.block_1", c->name));
    y = attention_forward(ctx, &c->attention, y, NAME("%smid.attn_1", c->name));
    return resnet_forward(ctx, &c->middle2, y, NAME("%smid.block_2", c->name));
}

/* y = conv_out(silu(norm_out(x))). SPEC 6.3. */
static flis_tensor *out_forward(flis_ctx *ctx, const coder *c, const flis_tensor *x)
{
    flis_tensor *y = flis_norm_silu(ctx, x, &c->out_norm_weight, &c->out_norm_bias, VAE_EPS, c->name, "norm_out");
    y = flis_conv(ctx, y, &c->out_w, &c->out_b, FLIS_SAME, NULL);
    flis_trace(ctx, y, "%sconv_out", c->name);
    return y;
}

/* post_quant_conv, conv_in, middle, then up the levels from the smallest; model.py Decoder.forward. SPEC 6.3. */
static flis_tensor *decode(flis_ctx *ctx, const flis_vae *vae, const flis_tensor *z)
{
    const coder *c = &vae->decoder;
    char name[80];
    flis_mark mark = flis_here(ctx);
    flis_tensor *y = flis_conv(ctx, z, &vae->post_w, &vae->post_b, FLIS_SAME, NULL);
    flis_trace(ctx, y, "post_quant_conv");
    y = flis_conv(ctx, y, &c->in_w, &c->in_b, FLIS_SAME, NULL);
    flis_trace(ctx, y, "decoder.conv_in");
    y = flis_keep(ctx, mark, middle_forward(ctx, c, y));
    for (size_t i = vae->config.levels; i-- > 0;) {
        const level *l = &c->level[i];
        for (size_t k = 0; k < l->resnets; k++)
            y = flis_keep(ctx, mark, resnet_forward(ctx, &l->block[k], y, NAME("decoder.up.%zu.block.%zu", i, k)));
        if (l->resamples) {
            y = flis_keep(ctx, mark, flis_conv(ctx, y, &l->sample_w, &l->sample_b, FLIS_UPSAMPLE2, NULL));
            flis_trace(ctx, y, "decoder.up.%zu.upsample", i);
        }
        if (ctx->progress && !ctx->dry)
            ctx->progress(ctx->progress_user, "decode", vae->config.levels - i, vae->config.levels);
    }
    return flis_keep(ctx, mark, out_forward(ctx, c, y));
}

/* conv_in, down the levels, middle, conv_out, quant_conv: mean and log variance side by side; model.py Encoder.forward.
   SPEC 6.4. */
static flis_tensor *encode(flis_ctx *ctx, const flis_vae *vae, const flis_tensor *image)
{
    const coder *c = &vae->encoder;
    char name[80];
    flis_mark mark = flis_here(ctx);
    flis_tensor *y = flis_conv(ctx, image, &c->in_w, &c->in_b, FLIS_SAME, NULL);
    flis_trace(ctx, y, "encoder.conv_in");
    for (size_t i = 0; i < vae->config.levels; i++) {
        const level *l = &c->level[i];
        for (size_t k = 0; k < l->resnets; k++)
            y = flis_keep(ctx, mark, resnet_forward(ctx, &l->block[k], y, NAME("encoder.down.%zu.block.%zu", i, k)));
        if (l->resamples) { /* padded at the right and below only: symmetric padding would shift the picture */
            y = flis_keep(ctx, mark, flis_conv(ctx, y, &l->sample_w, &l->sample_b, FLIS_STRIDE2_ASYMMETRIC, NULL));
            flis_trace(ctx, y, "encoder.down.%zu.downsample", i);
        }
    }
    y = out_forward(ctx, c, middle_forward(ctx, c, y));
    y = flis_conv(ctx, y, &vae->quant_w, &vae->quant_b, FLIS_SAME, NULL);
    flis_trace(ctx, y, "quant_conv");
    return flis_keep(ctx, mark, y);
}

/* z [n][h][w][embed], already divided by the scale factor, to a picture [n][8h][8w][3]. A dry run first measures the
   memory. SPEC 6.3. */
flis_tensor *flis_vae_decode(flis_ctx *ctx, const flis_vae *vae, const flis_tensor *z)
{
    if (!flis_given(ctx, vae, "decode: the autoencoder") || !flis_given(ctx, z, "decode: the latents")) return NULL;
    if (!vae->has_decoder || z->c != vae->config.embed || !z->n || !z->h || !z->w) {
        flis_fail(ctx, "decode: got latents [%zu,%zu,%zu,%zu], wanted [n,%zu,h,w]%s", z->n, z->c, z->h, z->w,
                  vae->config.embed, vae->has_decoder ? "" : " and a decoder, which was not loaded");
        return NULL;
    }
    flis_dry dry;
    if (flis_dry_begin(ctx, &dry)) {
        decode(ctx, vae, z);
        flis_dry_end(ctx, &dry);
    }
    return decode(ctx, vae, z);
}

/* A picture [n][H][W][3] to moments [n][H/8][W/8][2 embed]. A dry run first measures the memory. SPEC 6.4. */
flis_tensor *flis_vae_encode(flis_ctx *ctx, const flis_vae *vae, const flis_tensor *image)
{
    if (!flis_given(ctx, vae, "encode: the autoencoder") || !flis_given(ctx, image, "encode: the picture")) return NULL;
    if (!vae->has_encoder || image->c != 3 || image->h % FLIS_FACTOR || image->w % FLIS_FACTOR || !image->n ||
        !image->h || !image->w) {
        flis_fail(ctx, "encode: got a picture [%zu,%zu,%zu,%zu], wanted [n,3,H,W], H and W multiples of %d%s", image->n,
                  image->c, image->h, image->w, FLIS_FACTOR,
                  vae->has_encoder ? "" : ", and an encoder, which was not loaded");
        return NULL;
    }
    flis_dry dry;
    if (flis_dry_begin(ctx, &dry)) {
        encode(ctx, vae, image);
        flis_dry_end(ctx, &dry);
    }
    return encode(ctx, vae, image);
}

/* ---- diffusers' names ------------------------------------------------------------------------------------------ */

/* Pieces of names, replaced from left to right wherever they occur. */
static const struct {
    const char *from, *to;
} PIECES[] = {
    {"mid_block.resnets.0.", "mid.block_1."},
    {"mid_block.resnets.1.", "mid.block_2."},
    {"mid_block.attentions.0.", "mid.attn_1."},
    {"conv_norm_out.", "norm_out."},
    {"conv_shortcut.", "nin_shortcut."},
    {"group_norm.", "norm."},
    {"query.", "q."},
    {"key.", "k."},
    {"value.", "v."},
    {"proj_attn.", "proj_out."},
    {"to_q.", "q."},
    {"to_k.", "k."},
    {"to_v.", "v."},
    {"to_out.0.", "proj_out."},
};

/* diffusers' module names to the checkpoint's, piece by piece. SPEC 10.4. */
static void replace_pieces(const char *name, char *out, size_t room)
{
    size_t used = 0;
    while (*name && used + 1 < room) {
        size_t i = 0;
        while (i < COUNT(PIECES) && strncmp(name, PIECES[i].from, strlen(PIECES[i].from)) != 0) i++;
        if (i < COUNT(PIECES)) {
            used += (size_t)snprintf(out + used, room - used, "%s", PIECES[i].to);
            name += strlen(PIECES[i].from);
        } else do
                out[used++] = *name;
            while (*name++ != '.' && *name && used + 1 < room);
    }
    out[used < room ? used : room - 1] = 0;
}

/* diffusers numbers the levels of the decoder from the smallest size, the checkpoint from the largest: LEVELS - 1 -
   l. SPEC 10.4. */
bool flis_vae_rename(void *user, const char *name, char *out, size_t room)
{
    const flis_diffusers *d = user;
    char plain[256];
    unsigned which, index;
    int used = 0;
    replace_pieces(name, plain, sizeof plain);
    if (sscanf(plain, "encoder.down_blocks.%1u.resnets.%2u.%n", &which, &index, &used) == 2 && used)
        return snprintf(out, room, PREFIX "encoder.down.%u.block.%u.%s", which, index, plain + used) > 0;
    if (sscanf(plain, "encoder.down_blocks.%1u.downsamplers.0.%n", &which, &used) == 1 && used)
        return snprintf(out, room, PREFIX "encoder.down.%u.downsample.%s", which, plain + used) > 0;
    if (sscanf(plain, "decoder.up_blocks.%1u.resnets.%2u.%n", &which, &index, &used) == 2 && used && which < d->levels)
        return snprintf(out, room, PREFIX "decoder.up.%zu.block.%u.%s", d->levels - 1 - which, index, plain + used) > 0;
    if (sscanf(plain, "decoder.up_blocks.%1u.upsamplers.0.%n", &which, &used) == 1 && used && which < d->levels)
        return snprintf(out, room, PREFIX "decoder.up.%zu.upsample.%s", d->levels - 1 - which, plain + used) > 0;
    return snprintf(out, room, PREFIX "%s", plain) > 0;
}
