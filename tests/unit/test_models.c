/* test_models.c - the same weights in every distributed form: one file, shards, a diffusers folder, halves.
 *
 * diffusers' names are generated here from its nesting (down_blocks.LEVEL.resnets.I …), independently of the library's
 * renaming, which parses them.
 */
#include "tests/unit/test.h"

static const flis_clip_config CLIP = {
    .vocab = 514, .width = 32, .layers = 2, .heads = 2, .hidden = 64, .positions = 77};
static const flis_unet_config UNET = {.in = 4,
                                      .out = 4,
                                      .channels = 32,
                                      .levels = 4,
                                      .mult = {1, 2, 2, 2},
                                      .attention = {true, true, true, false},
                                      .blocks = 2,
                                      .heads = 2,
                                      .context = 32};
static const flis_vae_config VAE = {
    .channels = 32, .levels = 4, .mult = {1, 1, 2, 2}, .blocks = 2, .z = 4, .embed = 4, .scale_factor = 0.18215};

/* ---- Every weight of the model, by its checkpoint name ---------------------------------------------------------- */

typedef struct weight {
    char name[160];
    int rank;
    uint64_t shape[4];
    size_t count;
    flis_real *x;
} weight;
typedef struct weights {
    weight *at;
    size_t count;
} weights;

static bool collect(flis_ctx *ctx, void *user, const char *name, flis_param *param)
{
    weights *all = user;
    all->at = realloc(all->at, (all->count + 1) * sizeof *all->at);
    weight *w = &all->at[all->count++];
    snprintf(w->name, sizeof w->name, "%s", name);
    w->rank = param->rank;
    w->count = 1;
    for (int i = 0; i < param->rank; i++) w->count *= (size_t)(w->shape[i] = param->shape[i]);
    w->x = malloc(w->count * sizeof *w->x);
    flis_formula_weights(name, param->rank, param->shape, 0, w->count, w->x);
    for (size_t i = 0; i < w->count; i++)
        w->x[i] = flis_half_to_float(flis_float_to_half((float)w->x[i])); /* F16 can represent them */
    return flis_ok(ctx);
}

static weights all_weights(flis_ctx *ctx)
{
    weights all = {NULL, 0};
    flis_clip *clip = flis_clip_new(ctx, &CLIP);
    flis_unet *unet = flis_unet_new(ctx, &UNET);
    flis_vae *vae = flis_vae_new(ctx, &VAE, true, true);
    flis_clip_walk(ctx, clip, collect, &all);
    flis_unet_walk(ctx, unet, collect, &all);
    flis_vae_walk(ctx, vae, collect, &all);
    flis_clip_free(clip);
    flis_unet_free(unet);
    flis_vae_free(vae);
    return all;
}

static void weights_free(weights *all)
{
    for (size_t i = 0; i < all->count; i++) free(all->at[i].x);
    free(all->at);
}

static const weight *find(const weights *all, const char *name)
{
    for (size_t i = 0; i < all->count; i++)
        if (strcmp(all->at[i].name, name) == 0) return &all->at[i];
    CHECK(false, "no weight %s", name);
    return NULL;
}

/* names NULL: the checkpoint's names. flat: 1x1 kernels are written as [c][c]. */
static void write(flis_ctx *ctx, const char *path, const weight *const *list, const char *const *names, size_t count,
                  flis_dtype dtype, bool flat)
{
    flis_writer *out = flis_write_begin(ctx, path);
    flis_write_metadata(ctx, out, "unet.num_heads", "2");
    flis_write_metadata(ctx, out, "clip.num_heads", "2");
    for (size_t i = 0; i < count; i++) {
        const weight *w = list[i];
        int rank = flat && w->rank == 4 && w->shape[2] == 1 ? 2 : w->rank;
        flis_write_declare(ctx, out, names ? names[i] : w->name, dtype, rank, w->shape);
    }
    for (size_t i = 0; i < count; i++) flis_write_real(ctx, out, list[i]->x, list[i]->count);
    CHECK(flis_write_end(ctx, out), "%s", ctx->error);
}

static void write_text(const char *path, const char *text)
{
    FILE *f = fopen(path, "wb");
    CHECK(f && fputs(text, f) >= 0 && fclose(f) == 0, "%s cannot be written", path);
}

static void make_folder(const char *path)
{
    char command[1200];
    snprintf(command, sizeof command, "mkdir -p '%s'", path);
    CHECK(system(command) == 0, "%s cannot be made", path);
}

/* ---- What a model computes -------------------------------------------------------------------------------------- */

typedef struct digests {
    uint64_t clip, unet, decode, encode;
} digests;

static uint64_t digest(const flis_tensor *x)
{
    return x ? test_hash(x->x, flis_count(x) * sizeof(flis_real)) : 0;
}

static digests run_as(flis_ctx *ctx, const char *path, bool mapped)
{
    digests d = {0, 0, 0, 0};
    flis_file *file = flis_model_open(ctx, path);
    if (file) file->mapped = mapped;
    flis_clip *clip = file ? flis_clip_load(ctx, file) : NULL;
    flis_unet *unet = clip ? flis_unet_load(ctx, file) : NULL;
    flis_vae *vae = unet ? flis_vae_load(ctx, file, true, true) : NULL;
    CHECK(vae, "%s: %s", path, ctx->error);
    if (vae) {
        int32_t ids[FLIS_TOKENS] = {512, 7, 65, 300};
        const double t = 500;
        flis_tensor *x = flis_image(ctx, 1, 8, 8, 4), *image = flis_image(ctx, 1, 16, 16, 3);
        for (int i = 4; i < FLIS_TOKENS; i++) ids[i] = 513;
        for (size_t i = 0; i < flis_count(x); i++) x->x[i] = (flis_real)((double)(i * 37 % 101) / 50 - 1);
        for (size_t i = 0; i < flis_count(image); i++) image->x[i] = (flis_real)((double)(i * 53 % 101) / 50 - 1);
        flis_tensor *text = flis_clip_encode(ctx, clip, ids, 1);
        d.clip = digest(text);
        d.unet = digest(flis_unet_eps(ctx, unet, x, &t, text, NULL));
        d.decode = digest(flis_vae_decode(ctx, vae, x));
        d.encode = digest(flis_vae_encode(ctx, vae, image));
        CHECK(flis_ok(ctx), "%s: %s", path, ctx->error);
    }
    flis_clip_free(clip);
    flis_unet_free(unet);
    flis_vae_free(vae);
    flis_file_close(file);
    return d;
}

static digests run(flis_ctx *ctx, const char *path)
{
    return run_as(ctx, path, false);
}

static void same(const char *what, digests a, digests b)
{
    CHECK(a.clip == b.clip, "%s: the text encoder's output differs", what);
    CHECK(a.unet == b.unet, "%s: eps differs", what);
    CHECK(a.decode == b.decode && a.encode == b.encode, "%s: the autoencoder's output differs", what);
}

static const weight **listed(const weights *all)
{
    const weight **list = calloc(all->count, sizeof *list);
    for (size_t i = 0; i < all->count; i++) list[i] = &all->at[i];
    return list;
}

static digests single(flis_ctx *ctx, const weights *all, const char *name, flis_dtype dtype)
{
    const weight **list = listed(all);
    const char *path = test_scratch(name);
    write(ctx, path, list, NULL, all->count, dtype, false);
    free(list);
    return run(ctx, path);
}

/* ---- Checks ---------------------------------------------------------------------------------------------------- */

/* slow */
void test_models_sharded(void)
{
    flis_ctx ctx;
    flis_init(&ctx);
    weights all = all_weights(&ctx);
    const weight **list = listed(&all);
    digests one = single(&ctx, &all, "single.safetensors", FLIS_F32);
    const size_t half = all.count / 2;
    write(&ctx, test_scratch("model-00001-of-00002.safetensors"), list, NULL, half, FLIS_F32, false);
    write(&ctx, test_scratch("model-00002-of-00002.safetensors"), list + half, NULL, all.count - half, FLIS_F32, false);
    FILE *index = fopen(test_scratch("model.safetensors.index.json"), "wb");
    fputs("{\"metadata\":{\"total_size\":1},\"weight_map\":{", index);
    for (size_t i = 0; i < all.count; i++)
        fprintf(index, "%s\"%s\":\"model-0000%d-of-00002.safetensors\"", i ? "," : "", all.at[i].name,
                i < half ? 1 : 2);
    fputs("}}", index);
    fclose(index);
    same("sharded", one, run(&ctx, test_scratch("model.safetensors.index.json")));
    const char *wrong = test_scratch("wrong.safetensors.index.json");
    write_text(wrong, "{\"weight_map\":{\"no.such.tensor\":\"model-00001-of-00002.safetensors\"}}");
    CHECK(!flis_model_open(&ctx, wrong) && strstr(ctx.error, "no.such.tensor"), "a wrong weight map: %s", ctx.error);
    ctx.error[0] = 0;
    write_text(wrong, "{\"weight_map\":{\"x\":\"../model-00001-of-00002.safetensors\"}}");
    CHECK(!flis_model_open(&ctx, wrong) && strstr(ctx.error, "beside the index"), "a path that leaves the folder: %s",
          ctx.error);
    free(list);
    weights_free(&all);
    flis_free(&ctx);
}

/* Pairs of names as diffusers nests them. */
typedef struct names {
    const weight **from;
    char **to;
    size_t count;
} names;

static void pair(names *n, const weights *all, const char *checkpoint, const char *diffusers)
{
    const char *const tails[] = {"weight", "bias"};
    for (int i = 0; i < 2; i++) {
        char name[200];
        snprintf(name, sizeof name, "%s.%s", checkpoint, tails[i]);
        bool exists = false;
        for (size_t k = 0; k < all->count; k++) exists = exists || strcmp(all->at[k].name, name) == 0;
        if (!exists) continue; /* to_q has no bias, and not every block has a shortcut */
        n->from = realloc(n->from, (n->count + 1) * sizeof *n->from);
        n->to = realloc(n->to, (n->count + 1) * sizeof *n->to);
        n->from[n->count] = find(all, name);
        n->to[n->count] = malloc(200);
        snprintf(n->to[n->count++], 200, "%s.%s", diffusers, tails[i]);
    }
}

/* from/to: pairs of module names below two prefixes. */
static void pairs(names *n, const weights *all, const char *from, const char *to, const char *const (*modules)[2],
                  size_t count)
{
    for (size_t i = 0; i < count; i++) {
        char a[160], b[160];
        snprintf(a, sizeof a, "%s%s", from, modules[i][0]);
        snprintf(b, sizeof b, "%s%s", to, modules[i][1]);
        pair(n, all, a, b);
    }
}

static const char *const RES[][2] = {
    {"in_layers.0", "norm1"},  {"in_layers.2", "conv1"},  {"emb_layers.1", "time_emb_proj"},
    {"out_layers.0", "norm2"}, {"out_layers.3", "conv2"}, {"skip_connection", "conv_shortcut"},
};
#define B "transformer_blocks.0."
static const char *const ATTENTION[][2] = {
    {"norm", "norm"},
    {"proj_in", "proj_in"},
    {"proj_out", "proj_out"},
    {B "attn1.to_q", B "attn1.to_q"},
    {B "attn1.to_k", B "attn1.to_k"},
    {B "attn1.to_v", B "attn1.to_v"},
    {B "attn1.to_out.0", B "attn1.to_out.0"},
    {B "attn2.to_q", B "attn2.to_q"},
    {B "attn2.to_k", B "attn2.to_k"},
    {B "attn2.to_v", B "attn2.to_v"},
    {B "attn2.to_out.0", B "attn2.to_out.0"},
    {B "ff.net.0.proj", B "ff.net.0.proj"},
    {B "ff.net.2", B "ff.net.2"},
    {B "norm1", B "norm1"},
    {B "norm2", B "norm2"},
    {B "norm3", B "norm3"},
};
#undef B
#define LENGTH(table) (sizeof(table) / sizeof *(table))

static void unet_block(names *n, const weights *all, const char *list, size_t index, const char *block, size_t level,
                       size_t i)
{
    char from[96], to[96];
    snprintf(from, sizeof from, "model.diffusion_model.%s.%zu.0.", list, index);
    snprintf(to, sizeof to, "%s.%zu.resnets.%zu.", block, level, i);
    pairs(n, all, from, to, RES, LENGTH(RES));
    snprintf(from, sizeof from, "model.diffusion_model.%s.%zu.1.", list, index);
    snprintf(to, sizeof to, "%s.%zu.attentions.%zu.", block, level, i);
    pairs(n, all, from, to, ATTENTION, LENGTH(ATTENTION));
}

static names unet_names(const weights *all)
{
    names n = {NULL, NULL, 0};
    const char *const outer[][2] = {{"input_blocks.0.0", "conv_in"},
                                    {"time_embed.0", "time_embedding.linear_1"},
                                    {"time_embed.2", "time_embedding.linear_2"},
                                    {"out.0", "conv_norm_out"},
                                    {"out.2", "conv_out"},
                                    {"input_blocks.3.0.op", "down_blocks.0.downsamplers.0.conv"},
                                    {"input_blocks.6.0.op", "down_blocks.1.downsamplers.0.conv"},
                                    {"input_blocks.9.0.op", "down_blocks.2.downsamplers.0.conv"},
                                    {"output_blocks.2.1.conv", "up_blocks.0.upsamplers.0.conv"},
                                    {"output_blocks.5.2.conv", "up_blocks.1.upsamplers.0.conv"},
                                    {"output_blocks.8.2.conv", "up_blocks.2.upsamplers.0.conv"}};
    pairs(&n, all, "model.diffusion_model.", "", outer, LENGTH(outer));
    pairs(&n, all, "model.diffusion_model.middle_block.0.", "mid_block.resnets.0.", RES, LENGTH(RES));
    pairs(&n, all, "model.diffusion_model.middle_block.1.", "mid_block.attentions.0.", ATTENTION, LENGTH(ATTENTION));
    pairs(&n, all, "model.diffusion_model.middle_block.2.", "mid_block.resnets.1.", RES, LENGTH(RES));
    const size_t down[4][2] = {{1, 2}, {4, 5}, {7, 8}, {10, 11}};
    for (size_t level = 0; level < 4; level++) {
        for (size_t i = 0; i < 2; i++) unet_block(&n, all, "input_blocks", down[level][i], "down_blocks", level, i);
        for (size_t i = 0; i < 3; i++) unet_block(&n, all, "output_blocks", 3 * level + i, "up_blocks", level, i);
    }
    return n;
}

static names vae_names(const weights *all)
{
    names n = {NULL, NULL, 0};
    const char *const res[][2] = {{"norm1", "norm1"},
                                  {"conv1", "conv1"},
                                  {"norm2", "norm2"},
                                  {"conv2", "conv2"},
                                  {"nin_shortcut", "conv_shortcut"}};
    const char *const attention[][2] = {
        {"norm", "group_norm"}, {"q", "to_q"}, {"k", "key"}, {"v", "value"}, {"proj_out", "to_out.0"}};
    const char *const outer[][2] = {{"quant_conv", "quant_conv"},
                                    {"post_quant_conv", "post_quant_conv"},
                                    {"encoder.conv_in", "encoder.conv_in"},
                                    {"encoder.norm_out", "encoder.conv_norm_out"},
                                    {"encoder.conv_out", "encoder.conv_out"},
                                    {"decoder.conv_in", "decoder.conv_in"},
                                    {"decoder.norm_out", "decoder.conv_norm_out"},
                                    {"decoder.conv_out", "decoder.conv_out"}};
    char from[96], to[96];
    pairs(&n, all, "first_stage_model.", "", outer, LENGTH(outer));
    for (int coder = 0; coder < 2; coder++) {
        const char *name = coder ? "decoder" : "encoder";
        for (size_t i = 0; i < 2; i++) {
            snprintf(from, sizeof from, "first_stage_model.%s.mid.block_%zu.", name, i + 1);
            snprintf(to, sizeof to, "%s.mid_block.resnets.%zu.", name, i);
            pairs(&n, all, from, to, res, LENGTH(res));
        }
        snprintf(from, sizeof from, "first_stage_model.%s.mid.attn_1.", name);
        snprintf(to, sizeof to, "%s.mid_block.attentions.0.", name);
        pairs(&n, all, from, to, attention, LENGTH(attention));
        for (size_t level = 0; level < 4; level++) {
            const char *const here = coder ? "up" : "down";
            const size_t theirs = coder ? 3 - level : level;
            for (size_t i = 0; i < (coder ? 3u : 2u); i++) {
                snprintf(from, sizeof from, "first_stage_model.%s.%s.%zu.block.%zu.", name, here, level, i);
                snprintf(to, sizeof to, "%s.%s_blocks.%zu.resnets.%zu.", name, here, theirs, i);
                pairs(&n, all, from, to, res, LENGTH(res));
            }
            snprintf(from, sizeof from, "first_stage_model.%s.%s.%zu.%ssample.conv", name, here, level, here);
            snprintf(to, sizeof to, "%s.%s_blocks.%zu.%ssamplers.0.conv", name, here, theirs, here);
            pair(&n, all, from, to);
        }
    }
    return n;
}

static names clip_names(const weights *all)
{
    const char *prefix = "cond_stage_model.transformer.";
    names n = {NULL, NULL, 0};
    for (size_t i = 0; i < all->count; i++) {
        if (strncmp(all->at[i].name, prefix, strlen(prefix)) != 0) continue;
        n.from = realloc(n.from, (n.count + 1) * sizeof *n.from);
        n.to = realloc(n.to, (n.count + 1) * sizeof *n.to);
        n.from[n.count] = &all->at[i];
        n.to[n.count] = malloc(200);
        snprintf(n.to[n.count++], 200, "%s", all->at[i].name + strlen(prefix));
    }
    return n;
}

static void part(flis_ctx *ctx, const char *root, const char *folder, const char *file, const char *config, names n,
                 bool flat)
{
    char path[1100];
    snprintf(path, sizeof path, "%s/%s", root, folder);
    make_folder(path);
    snprintf(path, sizeof path, "%s/%s/config.json", root, folder);
    write_text(path, config);
    snprintf(path, sizeof path, "%s/%s/%s", root, folder, file);
    write(ctx, path, n.from, (const char *const *)n.to, n.count, FLIS_F32, flat);
    for (size_t i = 0; i < n.count; i++) free(n.to[i]);
    free(n.from);
    free(n.to);
}

/* slow */
void test_models_diffusers(void)
{
    flis_ctx ctx;
    flis_init(&ctx);
    weights all = all_weights(&ctx);
    digests one = single(&ctx, &all, "single.safetensors", FLIS_F32);
    const char *root = test_scratch("diffusers");
    names unet = unet_names(&all), vae = vae_names(&all), clip = clip_names(&all);
    CHECK(unet.count + vae.count + clip.count == all.count, "%zu + %zu + %zu names, wanted %zu", unet.count, vae.count,
          clip.count, all.count);
    part(&ctx, root, "unet", "diffusion_pytorch_model.safetensors",
         "{\"attention_head_dim\": 2, \"layers_per_block\": 2, \"up_block_types\": "
         "[\"UpBlock2D\", \"CrossAttnUpBlock2D\", \"CrossAttnUpBlock2D\", \"CrossAttnUpBlock2D\"]}",
         unet, false);
    part(&ctx, root, "vae", "diffusion_pytorch_model.safetensors", "{\"block_out_channels\": [32, 32, 64, 64]}", vae,
         true);
    part(&ctx, root, "text_encoder", "model.safetensors", "{\"num_attention_heads\": 2}", clip, false);
    same("diffusers", one, run(&ctx, root));
    weights_free(&all);
    flis_free(&ctx);
}

/* F16 weights stay halves in memory and give the same bits as the same values in F32. F16 can represent every value
   here. */
void test_models_half(void)
{
    flis_ctx ctx;
    flis_init(&ctx);
    weights all = all_weights(&ctx);
    digests wide = single(&ctx, &all, "wide.safetensors", FLIS_F32);
    same("mapped", wide, run_as(&ctx, test_scratch("wide.safetensors"), true));
    same("half", wide, single(&ctx, &all, "half.safetensors", FLIS_F16));
    same("mapped half", wide, run_as(&ctx, test_scratch("half.safetensors"), true));
    for (size_t i = 0; i < all.count; i++)
        for (size_t k = 0; k < all.at[i].count; k++)
            all.at[i].x[k] = flis_bf16_to_float(flis_float_to_bf16((float)all.at[i].x[k]));
    wide = single(&ctx, &all, "wide.safetensors", FLIS_F32);
    same("bfloat16", wide, single(&ctx, &all, "bf16.safetensors", FLIS_BF16));
    same("mapped bfloat16", wide, run_as(&ctx, test_scratch("bf16.safetensors"), true));
    /* Subnormal halves, the largest, and zeros of both signs, in a product. */
    const uint16_t edges[8] = {0x0001, 0x8001, 0x03ff, 0x0400, 0x7bff, 0xfbff, 0x0000, 0x8000};
    flis_real values[8];
    for (int i = 0; i < 8; i++) values[i] = flis_half_to_float(edges[i]);
    flis_param a = {.rank = 2, .shape = {8, 1}}, b = a;
    flis_param_set(&ctx, &a, values, false);
    flis_param_set_half(&ctx, &b, edges, false);
    flis_tensor *x = flis_rows(&ctx, 1, 1, 1);
    x->x[0] = 7;
    flis_tensor *y = flis_linear(&ctx, x, &a, NULL, NULL), *z = flis_linear(&ctx, x, &b, NULL, NULL);
    CHECK(y && z && memcmp(y->x, z->x, 8 * sizeof(flis_real)) == 0 && y->x[0] == 7 * values[0], "edges of F16");
    flis_free_visit(&ctx, NULL, NULL, &a);
    flis_free_visit(&ctx, NULL, NULL, &b);
    weights_free(&all);
    flis_free(&ctx);
}

void test_models_refuses(void)
{
    flis_ctx ctx;
    flis_init(&ctx);
    CHECK(!flis_model_open(&ctx, "some.ckpt") && strstr(ctx.error, "bin/ckpt2safetensors some.ckpt"), "%s", ctx.error);
    ctx.error[0] = 0;
    make_folder(test_scratch("empty/unet"));
    write_text(test_scratch("empty/unet/config.json"), "{}");
    CHECK(!flis_model_open(&ctx, test_scratch("empty")) && strstr(ctx.error, "vae/config.json"), "%s", ctx.error);
    ctx.error[0] = 0;
    weights all = all_weights(&ctx);
    all.at[5].x[3] = NAN;
    const weight **list = listed(&all);
    const char *path = test_scratch("nan.safetensors");
    write(&ctx, path, list, NULL, all.count, FLIS_F32, false);
    flis_file *file = flis_model_open(&ctx, path);
    CHECK(file && !flis_clip_load(&ctx, file) && strstr(ctx.error, "value 3 is NaN"), "a NaN among the weights: %s",
          ctx.error);
    flis_file_close(file);
    free(list);
    weights_free(&all);
    flis_free(&ctx);
}
