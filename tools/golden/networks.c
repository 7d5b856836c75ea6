/* networks.c - vectors of whole networks and of their intermediates, with tinyA's formula weights. */
#include "tools/golden/golden.h"

#include <stdlib.h>
#include <string.h>

/* ---- Text encoder ------------------------------------------------------------------------------------------------ */

static const char SMALL_RULE[] = "tinyA, every weight divided by 64";

/* Formula weights divided by 64: activations become so small that the eps of a norm matters. */
static bool small_visit(flis_ctx *ctx, void *unused, const char *name, flis_param *param)
{
    (void)unused;
    size_t count = 1;
    for (int i = 0; i < param->rank; i++) count *= param->shape[i];
    flis_real *values = flis_alloc(ctx, count, sizeof *values);
    if (values) {
        flis_formula_weights(name, param->rank, param->shape, 0, count, values);
        for (size_t i = 0; i < count; i++) values[i] /= 64;
        flis_param_set(ctx, param, values, false);
    }
    free(values);
    return flis_ok(ctx);
}

/* An intermediate that is a vector of its own. */
typedef struct traced {
    const char *id; /* NULL: the table ends */
    int item;
    const char *section, *name, *what, *catches; /* name: of the trace */
    double units;
} traced;

typedef struct wanted {
    golden *g;
    const traced *table;
} wanted;

static bool is_wanted(const wanted *w, const char *name)
{
    for (const traced *t = w->table; t->id; t++)
        if (strcmp(t->name, name) == 0) return true;
    return false;
}

static bool on_wants(void *user, const char *name, size_t count)
{
    (void)count;
    return is_wanted(user, name);
}

static void on_trace(void *user, const char *name, const flis_tensor *x)
{
    const wanted *w = user;
    size_t shape[4];
    if (!x->x || !is_wanted(w, name) || list_find(&w->g->traced, name)) return;
    const int rank = shape_in_file(x, shape);
    tensor *kept = list_add(w->g, &w->g->traced, name, FLIS_F64, rank, shape);
    flis_real *values = kept ? flis_alloc(&w->g->all, kept->count, sizeof *values) : NULL;
    if (!values) return;
    if (x->rank == 4) flis_to_nchw(x, values);
    else memcpy(values, x->x, kept->count * sizeof *values);
    for (size_t i = 0; i < kept->count; i++) kept->number[i] = (double)values[i];
    free(values);
}

static void trace_on(golden *g, wanted *w, const traced *table)
{
    list_drop(&g->traced, 0);
    *w = (wanted){g, table};
    g->ctx.trace = on_trace;
    g->ctx.trace_wants = on_wants;
    g->ctx.trace_user = w;
}

/* An intermediate of the network that ran last, under its module's name. */
static void traced_output(golden *g, const char *name, double units)
{
    const tensor *x = list_find(&g->traced, name);
    size_t shape[4];
    if (!x) {
        flis_fail(&g->ctx, "%s was not traced", name);
        return;
    }
    flis_real *values = flis_alloc(&g->ctx, x->count, sizeof *values);
    for (int i = 0; i < x->rank; i++) shape[i] = (size_t)x->shape[i];
    for (size_t i = 0; values && i < x->count; i++) values[i] = (flis_real)x->number[i];
    if (values) real_output(g, name, x->rank, shape, values, units);
    free(values);
}

/* The vectors of a table, from the run that the vector `of` has just made. */
static void traced_vectors(golden *g, const char *of, const traced *table)
{
    for (const traced *t = table; t->id; t++) {
        vector_begin(g, t->id, t->item, t->section, t->what, t->catches);
        given_string(g, "run", of);
        traced_output(g, t->name, t->units);
        vector_end(g);
    }
}

static const traced CLIP_TRACED[] = {
    {"clip.q", 9, "3.2", "encoder.layers.0.self_attn.q_proj",
     "queries of the first layer, W x + b, before they are scaled", "a bias that is left out", 64},
    {"clip.attention", 9, "3.2", "encoder.layers.0.self_attn", "the first self-attention's output, out_proj included",
     "no causal mask, queries scaled before their bias is added", 64},
    {"clip.mlp", 8, "3.2", "encoder.layers.0.mlp", "the first MLP's output",
     "SiLU or exact GELU for x sigmoid(1.702 x)", 64},
    {"clip.last-layer", 9, "3.2", "encoder.layers.1", "what the last layer gives, before the final layer norm",
     "a residual that is left out, another layer", 128},
    {NULL, 0, NULL, NULL, NULL, NULL, 0},
};

static void clip_vectors(golden *g)
{
    static const int32_t words[] = {998, 530, 576, 577, 66, 127, 325, 171, 999};
    int32_t ids[FLIS_TOKENS];
    int64_t wide[FLIS_TOKENS];
    const size_t shape[2] = {1, FLIS_TOKENS};
    wanted w;
    vector_begin(g, "clip", 9, "3.2", "77 ids to last_hidden_state: two layers of tinyA, causal, final layer norm",
                 "no causal mask, no final layer norm, the last layer but one, padding other than EOS (999)");
    given_string(g, "weights", "tinyA");
    for (size_t i = 0; i < FLIS_TOKENS; i++) wide[i] = ids[i] = i < 9 ? words[i] : 999;
    whole_input(g, "clip/ids", FLIS_I64, 2, shape, "998, 530, 576, 577, 66, 127, 325, 171, then 999", wide);
    flis_clip *clip = flis_clip_new(&g->ctx, &preset_find("tinyA")->clip);
    if (clip) flis_clip_walk(&g->ctx, clip, flis_formula_visit, NULL);
    trace_on(g, &w, CLIP_TRACED);
    flis_tensor *y = clip ? flis_clip_encode(&g->ctx, clip, ids, 1) : NULL;
    tensor_output(g, "last_hidden_state", y, 128);
    flis_clip_free(clip);
    vector_end(g);
    traced_vectors(g, "clip", CLIP_TRACED);
}

/* ---- U-Net ------------------------------------------------------------------------------------------------------- */

#define RES "input_blocks.1.0"
#define BLOCK "input_blocks.1.1.transformer_blocks.0"
#define MIDDLE "middle_block.1.transformer_blocks.0"

static flis_unet *make_unet(golden *g, flis_visit *visit)
{
    flis_unet *unet = flis_unet_new(&g->ctx, &preset_find("tinyA")->unet);
    if (unet) flis_unet_walk(&g->ctx, unet, visit, NULL);
    return unet;
}

/* eps of latents h x w at timestep t, with or without a layout of 8h x 8w. */
static void unet_vector(golden *g, const char *id, int item, const char *what, const char *catches, size_t h, size_t w,
                        double t, bool layout, bool small, const traced *table)
{
    char x_name[NAME], label_name[NAME];
    wanted want;
    vector_begin(g, id, item, "5.7", what, catches);
    uint8_t *label = flis_alloc(&g->ctx, 64 * h * w, 1);
    given_string(g, "weights", small ? SMALL_RULE : "tinyA");
    given(g, "t", "%g", t);
    snprintf(x_name, sizeof x_name, "unet/x.%zux%zu", h, w);
    snprintf(label_name, sizeof label_name, "rca/label.%zux%zu", 8 * h, 8 * w);
    flis_tensor *x = formula_image(g, x_name, 1, 4, h, w, 1),
                *context = formula_rows(g, "unet/context", 1, FLIS_TOKENS, 32, 1);
    if (small) x = flis_scale(&g->ctx, x, 0x1p-6);
    if (small) given_string(g, "x", "divided by 64");
    if (layout && label) label_input(g, label_name, label, 8 * h, 8 * w);
    if (layout) classes_input(g, "rca/class_ids");
    const flis_rca rca = {label, 8 * h, 8 * w, CLASS_IDS, CLASSES}, *rcas[1] = {&rca};
    flis_unet *unet = make_unet(g, small ? small_visit : flis_formula_visit);
    if (table) trace_on(g, &want, table);
    flis_tensor *eps = unet ? flis_unet_eps(&g->ctx, unet, x, &t, context, layout ? rcas : NULL) : NULL;
    tensor_output(g, "eps", eps, 512);
    flis_unet_free(unet);
    free(label);
    vector_end(g);
}

static const traced UNET_TRACED[] = {
    {"unet.time-embed", 10, "5.4", "time_embed", "time_embed: W2 silu(W0 embedding + b0) + b2",
     "SiLU left out; [sin, cos]", 2048},
    {"unet.resblock", 0, "5.5", RES, "the first ResBlock", "no residual", 256},
    {"unet.resblock.wide", 0, "5.5", "input_blocks.3.0",
     "the first ResBlock whose groups have more than one channel: there the time embedding tells", "no time embedding",
     512},
    {"unet.resblock.norm", 0, "5.5", RES ".in_layers.0", "its first group norm, before SiLU", "other groups", 64},
    {"unet.resblock.emb", 10, "5.5", RES ".emb_layers.1", "its share of the time embedding: W silu(emb) + b",
     "no SiLU before emb_layers.1", 2048},
    {"unet.transformer", 0, "5.6", "input_blocks.1.1", "the first SpatialTransformer, its residual included",
     "no residual, proj_in left out", 512},
    {"unet.attn1.weights", 2, "5.6", BLOCK ".attn1.weights",
     "self-attention's weights: every key is open to every query", "self-attention masked", 256},
    {"unet.attn1", 0, "5.6", BLOCK ".attn1", "self-attention's output, to_out included", "to_out's bias left out", 256},
    {"unet.attn2.scores", 16, "5.6", BLOCK ".attn2.scores",
     "cross-attention's scores before the mask: (q . k) times head width^-0.5", "all channels' width^-0.5, or no scale",
     256},
    {"unet.attn2.weights", 2, "4.4", BLOCK ".attn2.weights", "rectified weights [heads,64,77]: 0 where closed",
     "a mask applied after softmax, closed scores of -1, column k for k + 1", 256},
    {"unet.attn2", 2, "5.6", BLOCK ".attn2", "cross-attention's output, to_out included", "no mask", 256},
    {"unet.ff", 8, "5.6", BLOCK ".ff.net.0", "GEGLU inside the feed-forward: value times erf GELU of the gate",
     "the halves swapped, tanh GELU", 256},
    {"unet.down", 17, "5.2", "input_blocks.2", "the first downsample: one zero on every side",
     "zeros right and below only: shifted by a pixel", 512},
    {"unet.attn2.weights.level-1", 2, "4.4", "input_blocks.3.1.transformer_blocks.0.attn2.weights",
     "rectified weights of the second level", "RCA at full size only", 256},
    {"unet.attn2.weights.middle", 2, "4.4", MIDDLE ".attn2.weights", "rectified weights of the middle block",
     "no RCA in the middle block", 256},
    {"unet.attn1.weights.middle", 2, "4.4", MIDDLE ".attn1.weights", "self-attention of the middle block: not masked",
     "self-attention masked", 256},
    {"unet.skip.norm", 19, "5.2", "output_blocks.0.0.in_layers.0", "group norm of [h, skip] in the first output block",
     "[skip, h]", 512},
    {"unet.up", 17, "5.2", "output_blocks.1", "the first upsample: nearest, then 3x3",
     "an enlargement that is shifted by one", 512},
    {"unet.skip-connection", 19, "5.5", "output_blocks.3.0.skip_connection",
     "the 1x1 convolution of [h, skip] around a ResBlock", "[skip, h]; another skip than the last that is left", 512},
    {"unet.attn2.weights.last", 2, "4.4", "output_blocks.5.1.transformer_blocks.0.attn2.weights",
     "rectified weights of the last output block", "the mask of another level", 512},
    {"unet.out-norm", 0, "5.7", "out.0", "the last group norm, before SiLU", "its channels in another order", 512},
    {NULL, 0, NULL, NULL, NULL, NULL, 0},
};

static const traced UNET_NORMS[] = {
    {"unet.eps.resblock", 7, "5.5", RES ".in_layers.0", "the first ResBlock's first group norm: eps 1e-5", "eps 1e-6",
     64},
    {"unet.eps.transformer", 7, "5.6", "input_blocks.1.1.norm", "the first SpatialTransformer's group norm: eps 1e-6",
     "eps 1e-5", 64},
    {"unet.eps.out", 7, "5.7", "out.0", "the last group norm: eps 1e-5", "eps 1e-6", 512},
    {NULL, 0, NULL, NULL, NULL, NULL, 0},
};

static void unet_vectors(golden *g)
{
    unet_vector(
        g, "unet.layout", 2, "eps of 8x8 latents at t = 981 with a layout",
        "the mask missing in some cross-attention, or used in self-attention; whatever else is wrong in the U-Net", 8,
        8, 981, true, false, UNET_TRACED);
    traced_vectors(g, "unet.layout", UNET_TRACED);
    unet_vector(g, "unet.plain", 0, "eps without a layout: plain Stable Diffusion",
                "a mask where there is no layout; a wrong ResBlock or SpatialTransformer", 8, 8, 500, false, false,
                NULL);
    unet_vector(g, "unet.not-square", 6, "eps of 8x16 latents with a layout of 64x128",
                "latents taken for square, H and W swapped", 8, 16, 500, true, false, NULL);
    unet_vector(g, "unet.small", 7, "eps of small activations, where eps of the norms tells", "any other eps of a norm",
                8, 8, 500, false, true, UNET_NORMS);
    traced_vectors(g, "unet.small", UNET_NORMS);
}

static void guided_vector(golden *g)
{
    const size_t shape[3] = {4, 8, 8};
    flis_real eps[256], uncond[256];
    uint8_t label[64 * 64];
    vector_begin(g, "unet.guided", 3, "8.5",
                 "the two passes of guidance at t = 261: the layout acts on the conditional one alone",
                 "the unconditional pass rectified too; both in one batch with one mask; conditions swapped");
    given_string(g, "weights", "tinyA");
    given(g, "t", "261");
    flis_tensor *x = formula_image(g, "unet/x.8x8", 1, 4, 8, 8, 1),
                *context = formula_rows(g, "unet/context", 1, FLIS_TOKENS, 32, 1);
    flis_tensor *empty = formula_rows(g, "unet/uncond", 1, FLIS_TOKENS, 32, 1);
    label_input(g, "rca/label.64x64", label, 64, 64);
    classes_input(g, "rca/class_ids");
    const flis_rca rca = {label, 64, 64, CLASS_IDS, CLASSES};
    flis_unet *unet = make_unet(g, flis_formula_visit);
    if (unet && x && context && empty) {
        flis_real latent[256];
        flis_to_nchw(x, latent);
        flis_guided guided = {unet, 8, 8, context->x, empty->x, &rca};
        if (flis_guided_eps(&g->ctx, &guided, latent, 261, eps, uncond)) {
            real_output(g, "eps", 3, shape, eps, 512);
            real_output(g, "uncond", 3, shape, uncond, 512);
        }
    }
    flis_unet_free(unet);
    vector_end(g);
}

/* ---- Autoencoder ------------------------------------------------------------------------------------------------- */

static flis_vae *make_vae(golden *g, flis_visit *visit)
{
    flis_vae *vae = flis_vae_new(&g->ctx, &preset_find("tinyA")->vae, true, true);
    if (vae) flis_vae_walk(&g->ctx, vae, visit, NULL);
    return vae;
}

static void picture_vector(golden *g)
{
    flis_picture picture = {0};
    vector_begin(g, "vae.bytes", 18, "9.1",
                 "latents to bytes: times float32(1 / 0.18215), decode, clamp((x + 1) / 2), 255 x truncated; [h,w,rgb]",
                 "bytes rounded instead of truncated, latents not divided by the factor, BGR");
    given_string(g, "weights", "tinyA");
    flis_vae *vae = make_vae(g, flis_formula_visit);
    flis_tensor *z = formula_image(g, "vae/latents", 1, 4, 4, 4, 1);
    if (vae && flis_decode_picture(&g->ctx, vae, z, &picture)) {
        const size_t shape[3] = {picture.height, picture.width, 3};
        byte_output(g, "bytes", 3, shape, picture.pixels, "\"tolerance\": 1, \"share\": 0.01");
    }
    free(picture.pixels);
    flis_vae_free(vae);
    vector_end(g);
}

static const traced DECODER_TRACED[] = {
    {"vae.attention", 16, "6.2", "decoder.mid.attn_1", "the middle attention: one head, scale c^-0.5",
     "no scale, several heads", 512},
    {"vae.up", 17, "6.3", "decoder.up.3.upsample", "the first upsample: nearest, then 3x3",
     "an enlargement that is shifted by one", 512},
    {"vae.resnet", 0, "6.2", "decoder.mid.block_1", "the first resnet", "no residual", 256},
    {NULL, 0, NULL, NULL, NULL, NULL, 0},
};

static const traced DECODER_NORMS[] = {
    {"vae.eps.resnet", 7, "6.2", "decoder.mid.block_1.norm1", "the first resnet's first group norm: eps 1e-6",
     "eps 1e-5", 64},
    {"vae.eps.attention", 7, "6.2", "decoder.mid.attn_1.norm", "the attention's group norm: eps 1e-6", "eps 1e-5", 64},
    {"vae.eps.out", 7, "6.3", "decoder.norm_out", "the last group norm: eps 1e-6", "eps 1e-5", 1024},
    {NULL, 0, NULL, NULL, NULL, NULL, 0},
};

static const traced ENCODER_TRACED[] = {
    {"vae.down", 17, "6.4", "encoder.down.0.downsample", "the first downsample: one zero right and below",
     "zeros on every side", 256},
    {NULL, 0, NULL, NULL, NULL, NULL, 0},
};

static void vae_vectors(golden *g)
{
    for (int small = 0; small < 2; small++) {
        wanted want;
        vector_begin(g, small ? "vae.decode.small" : "vae.decode", small ? 7 : 16, "6.3",
                     small ? "decode small activations, where eps of the norms tells"
                           : "latents [1,4,3,4] (already divided by the factor) to an image [1,3,24,32]",
                     small ? "eps 1e-5" : "no scale in the attention, a shifted upsample, levels in another order");
        given_string(g, "weights", small ? SMALL_RULE : "tinyA");
        flis_vae *vae = make_vae(g, small ? small_visit : flis_formula_visit);
        flis_tensor *z = formula_image(g, "vae/z", 1, 4, 3, 4, 1);
        trace_on(g, &want, small ? DECODER_NORMS : DECODER_TRACED);
        tensor_output(g, "image", vae ? flis_vae_decode(&g->ctx, vae, z) : NULL, 512);
        flis_vae_free(vae);
        vector_end(g);
        if (small) break;
        traced_vectors(g, "vae.decode", DECODER_TRACED);
    }
    traced_vectors(g, "vae.decode.small", DECODER_NORMS);
    wanted want;
    vector_begin(g, "vae.encode", 17, "6.4", "an image [1,3,24,32] to moments [1,8,3,4]: means, then log variances",
                 "zeros on both sides of a downsample: shifted by a pixel; quant_conv left out");
    given_string(g, "weights", "tinyA");
    flis_vae *vae = make_vae(g, flis_formula_visit);
    flis_tensor *image = formula_image(g, "vae/image", 1, 3, 24, 32, 1);
    trace_on(g, &want, ENCODER_TRACED);
    tensor_output(g, "moments", vae ? flis_vae_encode(&g->ctx, vae, image) : NULL, 512);
    flis_vae_free(vae);
    vector_end(g);
    traced_vectors(g, "vae.encode", ENCODER_TRACED);
    picture_vector(g);
}

void network_vectors(golden *g)
{
    clip_vectors(g);
    unet_vectors(g);
    guided_vector(g);
    vae_vectors(g);
}
