/* test_field_names.c - names that people's files have: parts under other prefixes, variants of diffusers folders, another
 * file's autoencoder, tokenizer.json, types that nobody asks for; and what a wrong file is called.
 *
 * The tiny model is rewritten under each spelling; opened, it must hold the same tensors with the same values under the
 * checkpoint's names. diffusers' names are made here from the checkpoint's, the other way round than the library does.
 */
#include "tests/unit/test.h"

#define UNET "model.diffusion_model."
#define VAE "first_stage_model."
#define TEXT "cond_stage_model.transformer."
#define COUNT(array) (sizeof(array) / sizeof *(array))
enum { LEVELS = 4, PER_LEVEL = 2, ROOM = 1100 }; /* PER_LEVEL: blocks + 1 of test_write_tiny_model */

/* ---- The tiny model under other names ---------------------------------------------------------------------------- */

typedef bool renaming(const char *name, char *out); /* false: left out */

static char warned[4096];

static void keep_warning(void *unused, const char *sentence)
{
    (void)unused;
    snprintf(warned + strlen(warned), sizeof warned - strlen(warned), "%s\n", sentence);
}

static bool begin(flis_ctx *ctx)
{
    const bool good = flis_init(ctx);
    ctx->warn = keep_warning;
    warned[0] = 0;
    return good;
}

/* Writes from's tensors to `to` under other names. metadata: with those that shapes do not determine. */
static void rewrite(flis_ctx *ctx, const char *from, const char *to, renaming *rename_tensor, bool metadata)
{
    flis_file *in = flis_file_open(ctx, from);
    flis_writer *out = flis_write_begin(ctx, to);
    char name[256];
    for (size_t i = 0; metadata && in && i < in->metadata_count; i++)
        flis_write_metadata(ctx, out, in->metadata[2 * i], in->metadata[2 * i + 1]);
    for (int pass = 0; pass < 2 && in; pass++)
        for (size_t i = 0; i < in->count; i++) {
            const flis_entry *e = &in->entry[i];
            if (!rename_tensor(e->name, name)) continue;
            if (!pass) {
                flis_write_declare(ctx, out, name, e->dtype, e->rank, e->shape);
                continue;
            }
            const size_t count = (size_t)flis_entry_count(e);
            flis_real *x = calloc(count + 1, sizeof *x);
            flis_file_read_real(ctx, in, e, x);
            flis_write_real(ctx, out, x, count);
            free(x);
        }
    CHECK(flis_write_end(ctx, out), "%s: %s", to, ctx->error);
    flis_file_close(in);
}

/* All tensors of `all` (below a prefix) are in the file, with their values; `extra` more may be. */
static void holds(flis_ctx *ctx, const char *what, flis_file *file, const char *all, const char *prefix)
{
    flis_ctx own;
    flis_init(&own);
    flis_file *want = flis_file_open(&own, all);
    CHECK(file, "%s: %s", what, ctx->error);
    for (size_t i = 0; file && want && i < want->count; i++) {
        const flis_entry *e = &want->entry[i], *got = flis_file_find(file, e->name);
        if (strncmp(e->name, prefix, strlen(prefix)) != 0) continue;
        const size_t count = (size_t)flis_entry_count(e);
        const bool same = got && flis_entry_count(got) == count;
        CHECK(same, "%s: no tensor %s", what, e->name);
        if (!same) break;
        flis_real *a = calloc(2 * count + 1, sizeof *a), *b = a + count;
        CHECK(flis_file_read_real(&own, want, e, a) && flis_file_read_real(ctx, file, got, b) &&
                  memcmp(a, b, count * sizeof *a) == 0,
              "%s: %s has other values", what, e->name);
        free(a);
    }
    flis_file_close(want);
    flis_file_close(file);
    flis_clear_error(ctx);
    flis_free(&own);
}

static const char *below(const char *name, const char *prefix)
{
    return strncmp(name, prefix, strlen(prefix)) == 0 ? name + strlen(prefix) : NULL;
}

static const char *res_name(const char *rest, char *out)
{
    static const char *const pairs[][2] = {{"in_layers.0", "norm1"},          {"in_layers.2", "conv1"},
                                           {"emb_layers.1", "time_emb_proj"}, {"out_layers.0", "norm2"},
                                           {"out_layers.3", "conv2"},         {"skip_connection", "conv_shortcut"}};
    for (size_t i = 0; i < COUNT(pairs); i++)
        if (below(rest, pairs[i][0])) sprintf(out, "%s%s", pairs[i][1], below(rest, pairs[i][0]));
    return out;
}

/* A U-Net's name below the prefix, as diffusers calls it. Level 0 of the checkpoint alone has attention. */
static void diffusers_unet(const char *name, char *out)
{
    static const char *const outer[][2] = {{"input_blocks.0.0.", "conv_in."},
                                           {"time_embed.0.", "time_embedding.linear_1."},
                                           {"time_embed.2.", "time_embedding.linear_2."},
                                           {"out.0.", "conv_norm_out."},
                                           {"out.2.", "conv_out."},
                                           {"middle_block.1.", "mid_block.attentions.0."}};
    unsigned n, inner;
    int used = 0;
    char rest[128];
    for (size_t i = 0; i < COUNT(outer); i++)
        if (below(name, outer[i][0])) {
            sprintf(out, "%s%s", outer[i][1], below(name, outer[i][0]));
            return;
        }
    if (sscanf(name, "middle_block.%u.%n", &n, &used) == 1)
        sprintf(out, "mid_block.resnets.%u.%s", n / 2, res_name(name + used, rest));
    else if (sscanf(name, "input_blocks.%u.%u.%n", &n, &inner, &used) == 2) {
        const unsigned level = (n - 1) / PER_LEVEL, index = (n - 1) % PER_LEVEL;
        if (index == PER_LEVEL - 1) sprintf(out, "down_blocks.%u.downsamplers.0.conv.%s", level, name + used + 3);
        else if (inner) sprintf(out, "down_blocks.%u.attentions.%u.%s", level, index, name + used);
        else sprintf(out, "down_blocks.%u.resnets.%u.%s", level, index, res_name(name + used, rest));
    } else if (sscanf(name, "output_blocks.%u.%u.%n", &n, &inner, &used) == 2) {
        const unsigned level = n / PER_LEVEL, index = n % PER_LEVEL;
        if (!inner) sprintf(out, "up_blocks.%u.resnets.%u.%s", level, index, res_name(name + used, rest));
        else if (level == LEVELS - 1) sprintf(out, "up_blocks.%u.attentions.%u.%s", level, index, name + used);
        else sprintf(out, "up_blocks.%u.upsamplers.0.%s", level, name + used);
    }
}

/* An autoencoder's name below the prefix; attention as to_q (or, of old files, query). */
static void diffusers_vae(const char *name, bool old, char *out)
{
    static const char *const pieces[][3] = {
        {"mid.block_1.", "mid_block.resnets.0.", "mid_block.resnets.0."},
        {"mid.block_2.", "mid_block.resnets.1.", "mid_block.resnets.1."},
        {"mid.attn_1.norm.", "mid_block.attentions.0.group_norm.", "mid_block.attentions.0.group_norm."},
        {"mid.attn_1.q.", "mid_block.attentions.0.to_q.", "mid_block.attentions.0.query."},
        {"mid.attn_1.k.", "mid_block.attentions.0.to_k.", "mid_block.attentions.0.key."},
        {"mid.attn_1.v.", "mid_block.attentions.0.to_v.", "mid_block.attentions.0.value."},
        {"mid.attn_1.proj_out.", "mid_block.attentions.0.to_out.0.", "mid_block.attentions.0.proj_attn."},
        {"norm_out.", "conv_norm_out.", "conv_norm_out."}};
    unsigned level, index;
    int used = 0;
    const char *rest = below(name, "decoder.");
    strcpy(out, name);
    if (!rest) return;
    for (size_t i = 0; i < COUNT(pieces); i++)
        if (below(rest, pieces[i][0])) sprintf(out, "decoder.%s%s", pieces[i][1 + old], below(rest, pieces[i][0]));
    if (sscanf(rest, "up.%u.block.%u.%n", &level, &index, &used) == 2 && used) {
        const char *shortcut = below(rest + used, "nin_shortcut.");
        sprintf(out, "decoder.up_blocks.%u.resnets.%u.%s%s", LEVELS - 1 - level, index,
                shortcut ? "conv_shortcut." : "", shortcut ? shortcut : rest + used);
    } else if (sscanf(rest, "up.%u.upsample.%n", &level, &used) == 1 && used)
        sprintf(out, "decoder.up_blocks.%u.upsamplers.0.%s", LEVELS - 1 - level, rest + used);
}

/* ---- One file ------------------------------------------------------------------------------------------------------ */

/* What the three parts are called in the file that is written; NULL: left out. */
static struct {
    const char *unet, *vae, *text, *wrapper;
    bool diffusers, old, flat; /* flat: without text_model. */
    const char *attention;     /* of the autoencoder, in the checkpoint's other names: "to_q to_k to_v to_out.0" */
} spelling;

static bool spell(const char *name, char *out)
{
    static const char *const parts[] = {"q.", "k.", "v.", "proj_out."};
    const char *rest;
    char inner[256], words[4][16], *attention;
    const char *prefix = (rest = below(name, UNET))   ? spelling.unet
                         : (rest = below(name, VAE))  ? spelling.vae
                         : (rest = below(name, TEXT)) ? spelling.text
                                                      : NULL;
    if (!prefix) return false;
    strcpy(inner, rest);
    if (spelling.diffusers && below(name, UNET)) diffusers_unet(rest, inner);
    if (spelling.diffusers && below(name, VAE)) diffusers_vae(rest, spelling.old, inner);
    if (spelling.flat && below(inner, "text_model.")) memmove(inner, inner + 11, strlen(inner) - 10);
    if (spelling.attention && (attention = strstr(inner, ".attn_1.")) != NULL) {
        sscanf(spelling.attention, "%15s %15s %15s %15s", words[0], words[1], words[2], words[3]);
        char tail[32];
        strcpy(tail, attention + 8);
        for (int i = 0; i < 4; i++)
            if (below(tail, parts[i])) sprintf(attention + 8, "%s.%s", words[i], below(tail, parts[i]));
    }
    sprintf(out, "%s%s%s", spelling.wrapper ? spelling.wrapper : "", prefix, inner);
    return true;
}

void test_field_names_of_one_file(void)
{
    static const struct {
        const char *unet, *vae, *text, *wrapper;
        bool diffusers, old, flat;
        const char *attention;
    } spellings[] = {
        {.unet = UNET, .vae = VAE, .text = TEXT},
        {.unet = UNET, .vae = VAE, .text = TEXT, .flat = true},
        {.unet = UNET, .vae = VAE, .text = "text_encoders.clip_l.transformer."},
        {.unet = UNET, .vae = VAE, .text = "text_encoders.clip_l.transformer.", .flat = true},
        {.unet = UNET, .vae = VAE, .text = "clip_l.transformer."},
        {.unet = UNET, .vae = VAE, .text = "clip_l.", .flat = true},
        {.unet = "diffusion_model.", .vae = "vae.", .text = "te."},
        {.unet = "unet.", .vae = "vae.", .text = "text_encoder.", .diffusers = true},
        {.unet = "unet.", .vae = "vae.", .text = "text_encoder.", .diffusers = true, .old = true, .flat = true},
        {.unet = UNET, .vae = VAE, .text = TEXT, .diffusers = true},
        {.unet = UNET, .vae = VAE, .text = TEXT, .attention = "to_q to_k to_v to_out.0"},
        {.unet = UNET, .vae = VAE, .text = TEXT, .attention = "query key value proj_attn"},
        {.unet = UNET, .vae = VAE, .text = TEXT, .wrapper = "module."},
        {.unet = UNET, .vae = VAE, .text = TEXT, .wrapper = "_orig_mod.module."},
        /* Parts alone, under no prefix too. */
        {.unet = ""},
        {.unet = "", .diffusers = true},
        {.vae = ""},
        {.vae = "", .diffusers = true},
        {.vae = "", .diffusers = true, .old = true},
        {.text = ""},
        {.text = "", .flat = true},
    };
    flis_ctx ctx;
    char all[ROOM], path[ROOM];
    begin(&ctx);
    strcpy(all, test_scratch("names-all.safetensors"));
    strcpy(path, test_scratch("names-spelt.safetensors"));
    test_write_tiny_model(&ctx, all, 514);
    for (size_t i = 0; i < COUNT(spellings); i++) {
        char what[64];
        memset(&spelling, 0, sizeof spelling);
        spelling.unet = spellings[i].unet, spelling.vae = spellings[i].vae, spelling.text = spellings[i].text;
        spelling.wrapper = spellings[i].wrapper, spelling.diffusers = spellings[i].diffusers;
        spelling.old = spellings[i].old, spelling.flat = spellings[i].flat, spelling.attention = spellings[i].attention;
        rewrite(&ctx, all, path, spell, true);
        sprintf(what, "spelling %zu", i);
        const bool whole = spelling.unet && spelling.vae && spelling.text;
        holds(&ctx, what, flis_model_open(&ctx, path), all,
              whole           ? ""
              : spelling.unet ? UNET
              : spelling.vae  ? VAE
                              : TEXT);
    }
    CHECK(!*warned, "a spelling is warned of: %s", warned);
    flis_free(&ctx);
}

/* ---- Folders ------------------------------------------------------------------------------------------------------- */

static void shell(const char *format, const char *a, const char *b)
{
    char command[3 * ROOM];
    snprintf(command, sizeof command, format, a, b);
    CHECK(system(command) == 0, "%s", command);
}

static void write_text(const char *path, const char *text)
{
    FILE *f = fopen(path, "wb");
    CHECK(f && fwrite(text, 1, strlen(text), f) == strlen(text) && fclose(f) == 0, "%s cannot be written", path);
}

static const char *inside(const char *folder, const char *name)
{
    static char path[4][ROOM];
    static int next;
    next = (next + 1) % 4;
    const int length = snprintf(path[next], sizeof path[next], "%s/%s", folder, name);
    CHECK(length > 0 && length < ROOM, "%s/%s: the name is too long", folder, name);
    return path[next];
}

static void make_folder(flis_ctx *ctx, const char *all, const char *folder)
{
    static const char unet[] =
        "{\"attention_head_dim\": 2, \"layers_per_block\": 1, \"block_out_channels\": [32, 32, 32, 32], "
        "\"cross_attention_dim\": 32, \"down_block_types\": [\"CrossAttnDownBlock2D\", \"DownBlock2D\", "
        "\"DownBlock2D\", \"DownBlock2D\"], \"up_block_types\": [\"UpBlock2D\", \"UpBlock2D\", \"UpBlock2D\", "
        "\"CrossAttnUpBlock2D\"]}";
    static const char text[] = "{\"num_attention_heads\": 2, \"hidden_size\": 32, \"intermediate_size\": 64, "
                               "\"num_hidden_layers\": 1, \"vocab_size\": 514}";
    static const char *const parts[] = {"unet", "vae", "text_encoder"};
    shell("rm -rf '%s' && mkdir -p '%s'/unet", folder, folder);
    shell("mkdir '%s'/vae '%s'/text_encoder", folder, folder);
    write_text(inside(folder, "unet/config.json"), unet);
    write_text(inside(folder, "vae/config.json"),
               "{\"block_out_channels\": [32, 32, 32, 32], \"layers_per_block\": 1}");
    write_text(inside(folder, "text_encoder/config.json"), text);
    for (int i = 0; i < 3; i++) {
        char name[64];
        memset(&spelling, 0, sizeof spelling);
        *(i == 0 ? &spelling.unet : i == 1 ? &spelling.vae : &spelling.text) = "";
        spelling.diffusers = true;
        sprintf(name, "%s/%s.safetensors", parts[i], i < 2 ? "diffusion_pytorch_model" : "model");
        rewrite(ctx, all, inside(folder, name), spell, false);
    }
}

static void move(const char *folder, const char *from, const char *to)
{
    char a[ROOM], b[ROOM];
    strcpy(a, inside(folder, from));
    strcpy(b, inside(folder, to));
    shell("mv '%s' '%s'", a, b);
}

static size_t chosen; /* which shard is being written: tensors alternate */
static bool spell_half(const char *name, char *out)
{
    static size_t seen;
    return spell(name, out) && seen++ % 2 == chosen;
}

/* Cuts the U-Net's file into two, "…%u…" in `shard`, and writes an index ("": none). */
static void cut(flis_ctx *ctx, const char *all, const char *folder, const char *shard, const char *index)
{
    char name[2][128], path[ROOM];
    memset(&spelling, 0, sizeof spelling);
    spelling.unet = "", spelling.diffusers = true;
    FILE *f = *index ? fopen(inside(folder, index), "wb") : NULL;
    if (f) fputs("{\"weight_map\": {", f);
    for (chosen = 0; chosen < 2; chosen++) {
        snprintf(name[chosen], sizeof name[chosen], shard, (unsigned)chosen + 1);
        snprintf(path, sizeof path, "unet/%s", name[chosen]);
        rewrite(ctx, all, inside(folder, path), spell_half, false);
        flis_file *part = flis_file_open(ctx, inside(folder, path));
        for (size_t i = 0; f && part && i < part->count; i++)
            fprintf(f, "%s\"%s\": \"%s\"", chosen || i ? ", " : "", part->entry[i].name, name[chosen]);
        flis_file_close(part);
    }
    if (f) fputs("}}", f);
    if (f) fclose(f);
    shell("rm -f '%s'%s", inside(folder, "unet/diffusion_pytorch_model.safetensors"), "");
}

static void refuses(flis_ctx *ctx, const char *what, const flis_file *file, const char *const *words, size_t count)
{
    CHECK(!file, "%s: was opened", what);
    for (size_t i = 0; i < count && words[i]; i++)
        CHECK(strstr(ctx->error, words[i]), "%s: \"%s\" lacks \"%s\"", what, ctx->error, words[i]);
    flis_clear_error(ctx);
}
#define REFUSES(what, file, ...) \
    refuses(&ctx, what, file, (const char *const[]){__VA_ARGS__}, \
            sizeof((const char *const[]){__VA_ARGS__}) / sizeof(char *))

void test_field_names_of_variants(void)
{
    static const char *const words[] = {"fp16", "bf16", "fp32", "ema", "non_ema", "my-own_2"};
    flis_ctx ctx;
    char all[ROOM], folder[ROOM], name[96];
    begin(&ctx);
    strcpy(all, test_scratch("names-all.safetensors"));
    strcpy(folder, test_scratch("names folder"));
    test_write_tiny_model(&ctx, all, 514);
    make_folder(&ctx, all, folder);
    holds(&ctx, "plain", flis_model_open(&ctx, folder), all, "");
    CHECK(!*warned, "plain: %s", warned);
    for (size_t i = 0; i < COUNT(words); i++) { /* the only variant is taken, and said */
        make_folder(&ctx, all, folder);
        warned[0] = 0;
        snprintf(name, sizeof name, "text_encoder/model.%s.safetensors", words[i]);
        move(folder, "text_encoder/model.safetensors", name);
        snprintf(name, sizeof name, "unet/diffusion_pytorch_model.%s.safetensors", words[i]);
        move(folder, "unet/diffusion_pytorch_model.safetensors", name);
        holds(&ctx, words[i], flis_model_open(&ctx, folder), all, "");
        snprintf(name, sizeof name, "took diffusion_pytorch_model.%s.safetensors", words[i]);
        CHECK(strstr(warned, name) && strstr(warned, "took model."), "%s: warned of \"%s\"", words[i], warned);
    }
    /* Roundings of the same weights: the most precise. Other weights: the user chooses. */
    make_folder(&ctx, all, folder);
    warned[0] = 0;
    move(folder, "unet/diffusion_pytorch_model.safetensors", "unet/diffusion_pytorch_model.fp16.safetensors");
    write_text(inside(folder, "unet/diffusion_pytorch_model.bf16.safetensors"), "");
    holds(&ctx, "fp16 and bf16", flis_model_open(&ctx, folder), all, "");
    CHECK(strstr(warned, "took diffusion_pytorch_model.fp16"), "%s", warned);
    write_text(inside(folder, "unet/diffusion_pytorch_model.non_ema.safetensors"), "");
    REFUSES("fp16, bf16 and non_ema", flis_model_open(&ctx, folder), "/unet", "several variants", "fp16", "bf16",
            "non_ema", "--variant");
    flis_choice choice = {.variant = "fp16"};
    warned[0] = 0;
    holds(&ctx, "chosen fp16", flis_model_open_with(&ctx, folder, &choice), all, "");
    CHECK(!*warned, "a choice is warned of: %s", warned);
    choice.variant = "fp8";
    REFUSES("a variant that is not there", flis_model_open_with(&ctx, folder, &choice), "fp8", "no part has it",
            "non_ema");
    choice.variant = "../fp16";
    REFUSES("a variant that is no word", flis_model_open_with(&ctx, folder, &choice), "../fp16");
    choice.variant = "fp16";
    REFUSES("a variant of one file", flis_model_open_with(&ctx, all, &choice), "one file");
    /* A choice goes before the plain weights. */
    make_folder(&ctx, all, folder);
    write_text(inside(folder, "unet/diffusion_pytorch_model.fp16.safetensors"), "");
    REFUSES("the chosen file is read", flis_model_open_with(&ctx, folder, &choice), "model.fp16.safetensors");
    shell("rm -rf '%s'%s", folder, "");
    flis_free(&ctx);
}

void test_field_names_of_shards(void)
{
    static const char *const forms[][2] = {
        {"diffusion_pytorch_model-0000%u-of-00002.safetensors", "unet/diffusion_pytorch_model.safetensors.index.json"},
        {"diffusion_pytorch_model.fp16-0000%u-of-00002.safetensors",
         "unet/diffusion_pytorch_model.safetensors.index.fp16.json"},
        {"diffusion_pytorch_model.fp16-0000%u-of-00002.safetensors",
         "unet/diffusion_pytorch_model.fp16.safetensors.index.json"},
        {"diffusion_pytorch_model-0000%u-of-00002.bf16.safetensors",
         "unet/diffusion_pytorch_model.bf16.safetensors.index.json"},
        {"diffusion_pytorch_model-0000%u-of-00002.safetensors", ""},
    };
    flis_ctx ctx;
    char all[ROOM], folder[ROOM];
    begin(&ctx);
    strcpy(all, test_scratch("names-all.safetensors"));
    strcpy(folder, test_scratch("names-shards"));
    test_write_tiny_model(&ctx, all, 514);
    for (size_t i = 0; i < COUNT(forms); i++) {
        make_folder(&ctx, all, folder);
        warned[0] = 0;
        cut(&ctx, all, folder, forms[i][0], forms[i][1]);
        holds(&ctx, forms[i][0], flis_model_open(&ctx, folder), all, "");
        const bool variant = strstr(forms[i][0], "16") != NULL;
        CHECK(variant == (strstr(warned, "took diffusion_pytorch_model.") != NULL), "%s: warned of \"%s\"", forms[i][1],
              warned);
    }
    flis_choice choice = {.variant = "fp16"};
    make_folder(&ctx, all, folder);
    cut(&ctx, all, folder, forms[1][0], forms[1][1]);
    holds(&ctx, "chosen shards", flis_model_open_with(&ctx, folder, &choice), all, "");
    /* PyTorch's files: every part's lines, ready for a shell. */
    make_folder(&ctx, all, folder);
    move(folder, "unet/diffusion_pytorch_model.safetensors", "unet/diffusion_pytorch_model-00001-of-00002.bin");
    move(folder, "text_encoder/model.safetensors", "text_encoder/pytorch_model.bin");
    REFUSES("PyTorch's files", flis_model_open(&ctx, folder), "unet/diffusion_pytorch_model-00001-of-00002.bin ",
            "unet/diffusion_pytorch_model-00002-of-00002.safetensors\n", "\n  bin/ckpt2safetensors ",
            "text_encoder/pytorch_model.bin ", "text_encoder/model.safetensors");
    shell("rm -rf '%s'%s", folder, "");
    flis_free(&ctx);
}

void test_field_names_of_folders(void)
{
    flis_ctx ctx;
    char all[ROOM], hub[ROOM], folder[ROOM], found[ROOM];
    begin(&ctx);
    strcpy(all, test_scratch("names-all.safetensors"));
    strcpy(hub, test_scratch("models--of--names"));
    test_write_tiny_model(&ctx, all, 514);
    strcpy(folder, inside(hub, "snapshots/0123abcd"));
    make_folder(&ctx, all, folder);
    REFUSES("a cache without refs", flis_model_open(&ctx, hub), "Hugging Face cache", "snapshots");
    shell("mkdir '%s'/refs && printf 0123abcd > '%s'/refs/main", hub, hub);
    holds(&ctx, "a folder of the Hugging Face cache", flis_model_open(&ctx, hub), all, "");
    shell("mkdir '%s'/tokenizer && echo '#version: 0.2' > '%s'/tokenizer/merges.txt", folder, folder);
    CHECK(flis_vocab_find(hub, found, sizeof found) && strstr(found, "tokenizer/merges.txt"), "tokenizer/ of a cache");
    CHECK(!flis_vocab_find(all, found, sizeof found), "a vocabulary in a file");
    shell("printf other > '%s'/refs/main%s", hub, "");
    REFUSES("a commit that is not there", flis_model_open(&ctx, hub), "refs/main", "other");
    REFUSES("a part's folder", flis_model_open(&ctx, inside(folder, "unet")), "one part of a diffusers folder");
    REFUSES("a configuration", flis_model_open(&ctx, inside(folder, "unet/config.json")), "configuration");
    shell("rm -r '%s'/vae%s", folder, "");
    REFUSES("a folder without vae/", flis_model_open(&ctx, folder), "vae/config.json", "text_encoder/");
    shell("rm -r '%s'/*%s", folder, "");
    REFUSES("an empty folder", flis_model_open(&ctx, folder), "empty folder");
    shell("rm -rf '%s'%s", hub, "");
    flis_free(&ctx);
}

/* ---- Another file's autoencoder ------------------------------------------------------------------------------------ */

static bool no_vae(const char *name, char *out)
{
    return !below(name, VAE) && strcpy(out, name);
}

void test_field_names_of_another_vae(void)
{
    static const char *const vae_prefix[] = {VAE, "vae.", ""};
    flis_ctx ctx;
    char all[ROOM], bare[ROOM], vae[ROOM], folder[ROOM];
    begin(&ctx);
    strcpy(all, test_scratch("names-all.safetensors"));
    strcpy(bare, test_scratch("names-bare.safetensors"));
    strcpy(vae, test_scratch("names-vae.safetensors"));
    strcpy(folder, test_scratch("names-vae-folder"));
    test_write_tiny_model(&ctx, all, 514);
    rewrite(&ctx, all, bare, no_vae, true);
    make_folder(&ctx, all, folder);
    for (int i = 0; i < 6; i++) {
        memset(&spelling, 0, sizeof spelling);
        spelling.vae = vae_prefix[i / 2];
        spelling.diffusers = i % 2;
        rewrite(&ctx, all, vae, spell, false);
        holds(&ctx, vae_prefix[i / 2], flis_model_open_with(&ctx, bare, &(flis_choice){.vae = vae}), all, "");
    }
    holds(&ctx, "a whole model's", flis_model_open_with(&ctx, bare, &(flis_choice){.vae = all}), all, "");
    holds(&ctx, "a folder's", flis_model_open_with(&ctx, bare, &(flis_choice){.vae = folder}), all, "");
    flis_file *file = flis_model_open_with(&ctx, folder, &(flis_choice){.vae = inside(folder, "vae")});
    CHECK(file && file->shards == 3, "a vae/: %s", ctx.error); /* its own is not opened */
    holds(&ctx, "a vae/", file, all, "");
    /* Only its tensors, and the scale factor that it states. */
    write_text(inside(folder, "vae/config.json"), "{\"_class_name\": \"AutoencoderKL\", \"scaling_factor\": 0.5}");
    warned[0] = 0;
    file = flis_model_open_with(&ctx, all, &(flis_choice){.vae = folder});
    CHECK(file && flis_file_number(&ctx, file, "vae.scale_factor", false, 0) == 0.5 &&
              strstr(warned, "vae.scale_factor"),
          "scale factor: %s %s", ctx.error, warned);
    CHECK(file && flis_file_number(&ctx, file, "unet.num_heads", true, 0) == 2, "the model's own metadata stay");
    flis_file_close(file);
    file = flis_vae_open(&ctx, all);
    for (size_t i = 0; file && i < file->count; i++) CHECK(below(file->entry[i].name, VAE), "%s", file->entry[i].name);
    CHECK(file && file->count > 10, "%s", ctx.error);
    flis_file_close(file);
    write_text(inside(folder, "vae/config.json"), "{\"scaling_factor\": 0.13025}");
    REFUSES("XL's", flis_model_open_with(&ctx, all, &(flis_choice){.vae = folder}), "0.13025", "Stable Diffusion XL");
    write_text(inside(folder, "vae/config.json"), "{\"_class_name\": \"AutoencoderTiny\"}");
    REFUSES("another class", flis_vae_open(&ctx, folder), "_class_name", "AutoencoderTiny", "AutoencoderKL");
    REFUSES("a model without one", flis_vae_open(&ctx, bare), "without an autoencoder", "wanted an autoencoder");
    shell("rm -rf '%s'%s", folder, "");
    flis_free(&ctx);
}

/* One tensor of an autoencoder in another shape or type (or, rank 0, left out), by zeros or by NaN. */
static void write_vae(flis_ctx *ctx, const char *all, const char *path, const char *changed, int rank,
                      const uint64_t *shape, flis_real value, const char *const *metadata)
{
    flis_file *in = flis_file_open(ctx, all);
    flis_writer *out = flis_write_begin(ctx, path);
    for (; metadata && metadata[0]; metadata += 2) flis_write_metadata(ctx, out, metadata[0], metadata[1]);
    for (int pass = 0; pass < 2 && in; pass++)
        for (size_t i = 0; i < in->count; i++) {
            const flis_entry *e = &in->entry[i];
            const bool other = strcmp(e->name, changed) == 0;
            size_t count = 1;
            if (!below(e->name, VAE) || (other && !rank)) continue;
            if (!pass)
                flis_write_declare(ctx, out, e->name, FLIS_F32, other ? rank : e->rank, other ? shape : e->shape);
            if (!pass) continue;
            for (int d = 0; d < (other ? rank : e->rank); d++) count *= (size_t)(other ? shape : e->shape)[d];
            flis_real *x = calloc(count + 1, sizeof *x);
            if (!other) flis_file_read_real(ctx, in, e, x);
            for (size_t k = 0; other && k < count; k++) x[k] = value;
            flis_write_real(ctx, out, x, count);
            free(x);
        }
    CHECK(flis_write_end(ctx, out), "%s: %s", path, ctx->error);
    flis_file_close(in);
}

/* A folder needs no vae/ then, and no weights in it; what its config.json says still counts. */
void test_field_names_without_vae(void)
{
    flis_ctx ctx;
    char all[ROOM], folder[ROOM], vae[ROOM];
    begin(&ctx);
    strcpy(all, test_scratch("names-all.safetensors"));
    strcpy(folder, test_scratch("names-no-vae"));
    strcpy(vae, test_scratch("names-scaled.safetensors"));
    test_write_tiny_model(&ctx, all, 514);
    make_folder(&ctx, all, folder);
    write_text(inside(folder, "vae/config.json"), "{\"scaling_factor\": 0.25}");
    write_text(inside(folder, "vae/diffusion_pytorch_model.safetensors"),
               "version https://git-lfs.github.com/spec/v1\n");
    REFUSES("a pointer in vae/", flis_model_open(&ctx, folder), "vae/diffusion_pytorch_model", "Git LFS pointer");
    flis_file *file = flis_model_open_with(&ctx, folder, &(flis_choice){.vae = all});
    CHECK(file && flis_file_number(&ctx, file, "vae.scale_factor", false, 0) == 0.25, "%s", ctx.error);
    holds(&ctx, "a pointer in vae/", file, all, "");
    shell("rm -r '%s'/vae%s", folder, "");
    REFUSES("no vae/", flis_model_open(&ctx, folder), "vae/config.json", "--vae");
    warned[0] = 0;
    holds(&ctx, "no vae/", flis_model_open_with(&ctx, folder, &(flis_choice){.vae = all}), all, "");
    CHECK(!*warned, "no vae/: %s", warned);
    /* A scale factor is warned of where the model states another one, and not where it has no autoencoder to state one. */
    const char *const metadata[] = {"vae.scale_factor", "0.5", NULL};
    write_vae(&ctx, all, vae, "", 0, NULL, 0, metadata);
    file = flis_model_open_with(&ctx, folder, &(flis_choice){.vae = vae});
    CHECK(file && flis_file_number(&ctx, file, "vae.scale_factor", false, 0) == 0.5 && !*warned, "%s %s", ctx.error,
          warned);
    flis_file_close(file);
    shell("rm -r '%s'/unet%s", folder, "");
    REFUSES("no unet/", flis_model_open_with(&ctx, folder, &(flis_choice){.vae = all}), "unet/config.json");
    shell("rm -rf '%s'%s", folder, "");
    flis_free(&ctx);
}

/* Gives decoder.conv_in.weight another type, of which nobody knows the size. */
static void write_f8(const char *path)
{
    flis_ctx ctx;
    size_t length = 0;
    flis_init(&ctx);
    char *bytes = flis_read_file(&ctx, path, 1 << 24, &length), *at;
    FILE *f = fopen(path, "wb");
    CHECK(bytes && f && (at = strstr(bytes + 8, VAE "decoder.conv_in.weight")) != NULL, "%s", path);
    at = strstr(at, "\"F32\"");
    memcpy(at, "\"XF8\"", 5);
    CHECK(fwrite(bytes, 1, length, f) == length && fclose(f) == 0, "%s", path);
    free(bytes);
    flis_free(&ctx);
}

/* What is wrong with another file's autoencoder is said of that file, when it is loaded and when it is painted with. */
void test_field_names_of_faults_in_a_vae(void)
{
    static const struct {
        const char *tensor;
        int rank;
        uint64_t shape[4];
        flis_real value;
        bool f8;
        const char *says;
    } cases[] = {
        {VAE "decoder.conv_in.weight", 0, {0}, 0, false, "decoder.conv_in.weight: missing"},
        {VAE "decoder.conv_in.weight", 1, {5}, 0, false, "got shape [5]"},
        {VAE "decoder.conv_in.weight", 4, {32, 4, 3, 3}, NAN, false, "value 0 is NaN"},
        {VAE "decoder.conv_in.weight", 4, {32, 4, 3, 3}, 0, true, "got dtype XF8"},
        {VAE "post_quant_conv.weight", 0, {0}, 0, false, "post_quant_conv.weight"},
        {VAE "post_quant_conv.weight", 4, {4, 8, 1, 1}, 0, false, "got size 8"},
        {VAE "decoder.up.0.block.0.norm2.weight", 0, {0}, 0, false, "is missing"},
        {VAE "decoder.up.1.block.0.norm2.weight", 0, {0}, 0, false, "is missing"},
        {VAE "decoder.conv_out.weight", 4, {4, 32, 3, 3}, 0, false, "decoder.conv_out.weight"},
    };
    char all[ROOM], vae[ROOM], word[] = "x";
    flis_phrase phrase = {word, -1};
    flis_layout layout = {.count = 1, .phrase = &phrase};
    flis_options options;
    flis_ctx ctx;
    begin(&ctx);
    strcpy(all, test_scratch("names-model.safetensors"));
    strcpy(vae, test_scratch("names-faulty.safetensors"));
    test_write_tiny_model(&ctx, all, 514);
    flis_vocab *vocab = flis_vocab_read(&ctx, NULL);
    flis_options_default(&options);
    options.width = options.height = 64;
    options.sampling = (flis_sampling){FLIS_DDIM, 1, 0, 1};
    for (size_t i = 0; i < COUNT(cases); i++)
        for (int load = 0; load < 2; load++) {
            flis_picture picture = {0};
            write_vae(&ctx, all, vae, cases[i].tensor, cases[i].rank, cases[i].shape, cases[i].value, NULL);
            if (cases[i].f8) write_f8(vae);
            const unsigned parts = load ? FLIS_PARTS_PAINT : FLIS_PARTS_NONE;
            flis_model *model = flis_model_load_with(&ctx, all, &(flis_choice){.vae = vae}, parts);
            if (!load || model) flis_model_generate(&ctx, model, vocab, &layout, &options, &picture);
            CHECK(strncmp(ctx.error, vae, strlen(vae)) == 0 && strstr(ctx.error, cases[i].says) &&
                      !strstr(ctx.error, all),
                  "%zu: \"%s\" lacks \"%s\", or names another file", i, ctx.error, cases[i].says);
            flis_clear_error(&ctx);
            flis_picture_free(&picture);
            flis_model_free(&model);
        }
    flis_vocab_free(vocab);
    flis_free(&ctx);
}

/* Autoencoders of other models. Stable Diffusion 2's latents are v1's. */
void test_field_names_of_other_latents(void)
{
    static const struct {
        const char *key, *value, *model; /* NULL: taken */
    } marks[] = {
        {"modelspec.architecture", "stable-diffusion-xl-v1-base/vae", "Stable Diffusion XL"},
        {"modelspec.architecture", "Stable-Diffusion-XL-v1-base", "Stable Diffusion XL"},
        {"modelspec.architecture", "stable-diffusion-v3-medium/vae", "Stable Diffusion 3"},
        {"modelspec.architecture", "Flux.1-dev/vae", "FLUX"},
        {"modelspec.architecture", "stable-video-diffusion-img2vid", "Stable Video Diffusion"},
        {"modelspec.architecture", "stable-cascade", "Stable Cascade"},
        {"ss_base_model_version", "sdxl_base_v1-0", "Stable Diffusion XL"},
        {"ss_base_model_version", "flux1", "FLUX"},
        {"vae.scale_factor", "0.13025", "Stable Diffusion XL"},
        {"modelspec.architecture", "stable-diffusion-v1/vae", NULL},
        {"modelspec.architecture", "stable-diffusion-v2-768-v", NULL},
        {"modelspec.architecture", "stable-diffusion-v1-inpainting", NULL},
        {"ss_base_model_version", "sd_v1", NULL},
    };
    static const struct {
        const char *config, *shown;
    } configs[] = {{"{\"shift_factor\": 0.0609, \"scaling_factor\": 1.5305}", "shift_factor"},
                   {"{\"latent_channels\": 16}", "latent_channels"}};
    static const uint64_t sixteen[4] = {32, 16, 3, 3};
    flis_ctx ctx;
    char all[ROOM], vae[ROOM], folder[ROOM];
    begin(&ctx);
    strcpy(all, test_scratch("names-all.safetensors"));
    strcpy(vae, test_scratch("names-latents.safetensors"));
    strcpy(folder, test_scratch("names-latents-folder"));
    test_write_tiny_model(&ctx, all, 514);
    make_folder(&ctx, all, folder);
    for (size_t i = 0; i < COUNT(marks); i++) {
        const char *const metadata[] = {marks[i].key, marks[i].value, NULL};
        write_vae(&ctx, all, vae, "", 0, NULL, 0, metadata);
        flis_file *file = flis_model_open_with(&ctx, all, &(flis_choice){.vae = vae});
        if (!marks[i].model) holds(&ctx, marks[i].value, file, all, "");
        else REFUSES(marks[i].value, file, vae, "is the autoencoder of ", marks[i].model, "Stable Diffusion v1");
    }
    write_vae(&ctx, all, vae, VAE "decoder.conv_in.weight", 4, sixteen, 0, NULL);
    REFUSES("16 channels", flis_vae_open(&ctx, vae), vae, "Stable Diffusion 3, FLUX", "16 channels");
    for (size_t i = 0; i < COUNT(configs); i++) {
        write_text(inside(folder, "vae/config.json"), configs[i].config);
        REFUSES("a folder", flis_vae_open(&ctx, folder), "vae/config.json", "Stable Diffusion 3, FLUX",
                configs[i].shown);
        REFUSES("a vae/", flis_vae_open(&ctx, inside(folder, "vae")), "Stable Diffusion 3, FLUX", configs[i].shown);
    }
    shell("rm -rf '%s'%s", folder, "");
    flis_free(&ctx);
}

/* ---- Prefixes within a folder --------------------------------------------------------------------------------------- */

static bool spell_mixed(const char *name, char *out)
{
    static size_t seen;
    char plain[256];
    if (!spell(name, plain)) return false;
    return sprintf(out, "%s%s", seen++ % 2 ? "module." : "", plain) > 0;
}

void test_field_names_of_wrapped_parts(void)
{
    static const char *const wrappers[] = {"module.", "_orig_mod.",       "unet.", "vae.", "text_encoder.",
                                           "model.",  "_orig_mod.module."};
    static const char *const files[] = {"unet/diffusion_pytorch_model.safetensors",
                                        "vae/diffusion_pytorch_model.safetensors", "text_encoder/model.safetensors"};
    flis_ctx ctx;
    char all[ROOM], folder[ROOM], want[128];
    begin(&ctx);
    strcpy(all, test_scratch("names-all.safetensors"));
    strcpy(folder, test_scratch("names-wrapped"));
    test_write_tiny_model(&ctx, all, 514);
    for (size_t part = 0; part < COUNT(files); part++) {
        make_folder(&ctx, all, folder);
        for (size_t i = 0; i < COUNT(wrappers) + 2; i++) {
            memset(&spelling, 0, sizeof spelling);
            *(part == 0 ? &spelling.unet : part == 1 ? &spelling.vae : &spelling.text) = "";
            spelling.diffusers = true;
            spelling.wrapper = i < COUNT(wrappers) ? wrappers[i] : i == COUNT(wrappers) ? "net." : "";
            rewrite(&ctx, all, inside(folder, files[part]), i > COUNT(wrappers) ? spell_mixed : spell, false);
            warned[0] = 0;
            flis_file *file = flis_model_open(&ctx, folder);
            if (i < COUNT(wrappers)) {
                snprintf(want, sizeof want, "%s: all names begin with \"%s\"", files[part], wrappers[i]);
                holds(&ctx, want, file, all, "");
                CHECK(strstr(warned, want), "\"%s\" lacks \"%s\"", warned, want);
            } else if (i == COUNT(wrappers)) REFUSES("another prefix", file, files[part], "got names like \"net.");
            else REFUSES("some names", file, files[part], "some names begin with \"module.\"");
        }
    }
    memset(&spelling, 0, sizeof spelling);
    shell("rm -rf '%s'%s", folder, "");
    flis_free(&ctx);
}

/* ---- Types that nobody asks for, positions ------------------------------------------------------------------------- */

static flis_file *open_header(flis_ctx *ctx, const char *json, size_t data, unsigned char *bytes)
{
    const size_t length = strlen(json);
    memset(bytes, 0, 8 + length + data);
    bytes[0] = (unsigned char)length;
    bytes[1] = (unsigned char)(length >> 8);
    memcpy(bytes + 8, json, length);
    return flis_file_open_memory(ctx, "header", bytes, 8 + length + data);
}

void test_field_names_of_types(void)
{
    static const struct {
        const char *dtype, *shape;
        size_t bytes;
        bool good;
    } cases[] = {{"F8_E4M3", "[3]", 3, true},  {"F8_E5M2", "[3]", 4, false}, {"F8_E8M0", "[2,2]", 4, true},
                 {"U16", "[3]", 6, true},      {"U16", "[3]", 3, false},     {"U32", "[]", 4, true},
                 {"U64", "[2]", 16, true},     {"C64", "[2]", 16, true},     {"C64", "[2]", 8, false},
                 {"F4", "[6]", 3, true},       {"F4", "[6]", 6, false},      {"F6_E2M3", "[8]", 6, true},
                 {"anything", "[9]", 2, true}, {"", "[1]", 1, true},         {"F32", "[1]", 2, false}};
    unsigned char bytes[512];
    char json[256], name[64];
    flis_ctx ctx;
    begin(&ctx);
    for (size_t i = 0; i < COUNT(cases); i++) {
        flis_real x[16];
        snprintf(json, sizeof json, "{\"a\": {\"dtype\": \"%s\", \"shape\": %s, \"data_offsets\": [0, %zu]}}",
                 cases[i].dtype, cases[i].shape, cases[i].bytes);
        flis_file *file = open_header(&ctx, json, cases[i].bytes, bytes);
        CHECK((file != NULL) == cases[i].good, "%s: %s", json, ctx.error);
        flis_clear_error(&ctx);
        if (file && i + 1 < COUNT(cases)) {
            snprintf(name, sizeof name, "got dtype %s, wanted", cases[i].dtype);
            CHECK(strcmp(flis_entry_dtype(&file->entry[0]), cases[i].dtype) == 0, "%s", json);
            CHECK(!flis_file_read_real(&ctx, file, &file->entry[0], x) && strstr(ctx.error, name), "%s: %s", json,
                  ctx.error);
        }
        flis_clear_error(&ctx);
        flis_file_close(file);
    }
    flis_free(&ctx);
}

static bool add_nothing(const char *name, char *out)
{
    return strcpy(out, name) != NULL;
}

/* The tiny text encoder with position_ids of some type. */
static void positions_case(flis_dtype dtype, size_t count, int wrong, const char *word)
{
    static const char name[] = TEXT "text_model.embeddings.position_ids";
    flis_ctx ctx;
    char all[ROOM], path[ROOM], folder[ROOM];
    const uint64_t shape[2] = {1, count};
    double x[128];
    begin(&ctx);
    strcpy(all, test_scratch("names-all.safetensors"));
    strcpy(path, test_scratch("names-positions.safetensors"));
    strcpy(folder, test_scratch("names-positions.safetensors.index.json"));
    test_write_tiny_model(&ctx, all, 514);
    rewrite(&ctx, all, test_scratch("names-most.safetensors"), add_nothing, true);
    flis_writer *out = flis_write_begin(&ctx, path);
    flis_write_declare(&ctx, out, name, dtype, 2, shape);
    for (size_t i = 0; i < count; i++) x[i] = (int)i == wrong ? 4 : (double)i;
    int64_t whole[128];
    for (size_t i = 0; i < count; i++) whole[i] = (int64_t)x[i];
    if (dtype == FLIS_I64) flis_write_i64(&ctx, out, whole, count);
    else flis_write_f64(&ctx, out, x, count);
    CHECK(flis_write_end(&ctx, out), "%s", ctx.error);
    flis_file *file = flis_file_new(&ctx, folder);
    flis_file_append(&ctx, file, all, NULL, NULL);
    flis_file_append(&ctx, file, path, NULL, NULL);
    flis_file_set_metadata(&ctx, file, "clip.num_heads", "2");
    flis_clip *clip = flis_file_ready(&ctx, file) ? flis_clip_load(&ctx, file) : NULL;
    CHECK(clip, "%s", ctx.error);
    CHECK(word ? strstr(warned, "position_ids") && strstr(warned, word) : !*warned, "type %d: warned of \"%s\"",
          (int)dtype, warned);
    flis_clip_free(clip);
    flis_file_close(file);
    flis_free(&ctx);
}

void test_field_names_of_positions(void)
{
    positions_case(FLIS_I64, 77, -1, NULL);
    positions_case(FLIS_F16, 77, -1, NULL);
    positions_case(FLIS_F32, 77, 5, "value 5: got 4, wanted 5");
    positions_case(FLIS_I64, 77, 76, "value 76");
    positions_case(FLIS_I64, 64, -1, "64 values");
}
