/* test_field_config.c - what the configuration of a diffusers folder, the tensors and the metadata of a file say about
 * another model than the one that flis computes: read, or refused by name, never ignored.
 *
 * The folders hold a few zeros under diffusers' names, enough to be listed: opening reads no weights.
 */
#include "tests/unit/test.h"

#include <stdio.h>

typedef struct shape {
    const char *name;
    int rank;
    uint64_t dims[4];
} shape;

/* Two levels of two blocks, attention at the first; an autoencoder of two levels of one block; a text encoder of two
   layers. */
static const shape UNET[] = {
    {"conv_in.weight", 4, {8, 4, 3, 3}},
    {"conv_out.weight", 4, {4, 8, 3, 3}},
    {"time_embedding.linear_1.weight", 2, {32, 8}},
    {"down_blocks.0.resnets.0.conv1.weight", 4, {8, 8, 1, 1}},
    {"down_blocks.0.resnets.1.conv1.weight", 4, {8, 8, 1, 1}},
    {"down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.weight", 2, {8, 12}},
    {"down_blocks.0.downsamplers.0.conv.weight", 4, {8, 8, 1, 1}},
    {"down_blocks.1.resnets.0.conv1.weight", 4, {16, 8, 1, 1}},
    {"down_blocks.1.resnets.1.conv1.weight", 4, {16, 16, 1, 1}},
    {"mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight", 2, {16, 12}},
    {"up_blocks.0.resnets.0.conv1.weight", 4, {16, 16, 1, 1}},
    {"up_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k.weight", 2, {8, 12}},
};
static const shape VAE[] = {
    {"encoder.conv_in.weight", 4, {4, 3, 3, 3}},
    {"decoder.conv_out.weight", 4, {3, 4, 3, 3}},
    {"post_quant_conv.weight", 4, {4, 4, 1, 1}},
    {"decoder.up_blocks.0.resnets.0.norm2.weight", 1, {8}},
    {"decoder.up_blocks.0.resnets.1.norm2.weight", 1, {8}},
    {"decoder.up_blocks.1.resnets.0.norm2.weight", 1, {4}},
    {"decoder.up_blocks.1.resnets.1.norm2.weight", 1, {4}},
};
static const shape TEXT[] = {
    {"text_model.embeddings.token_embedding.weight", 2, {20, 12}},
    {"text_model.embeddings.position_embedding.weight", 2, {77, 12}},
    {"text_model.encoder.layers.0.mlp.fc1.weight", 2, {48, 12}},
    {"text_model.encoder.layers.1.mlp.fc1.weight", 2, {48, 12}},
};
#define LENGTH(array) (sizeof(array) / sizeof *(array))

/* What diffusers and transformers write for it; the row under test is appended, and the last of a name counts. */
static const char *const CONFIG[][2] = {
    {"unet/config.json",
     "\"_class_name\": \"UNet2DConditionModel\", \"_diffusers_version\": \"0.31.0\", \"act_fn\": \"silu\", "
     "\"attention_head_dim\": 2, \"block_out_channels\": [8, 16], \"cross_attention_dim\": 12, \"layers_per_block\": "
     "2, "
     "\"down_block_types\": [\"CrossAttnDownBlock2D\", \"DownBlock2D\"], "
     "\"up_block_types\": [\"UpBlock2D\", \"CrossAttnUpBlock2D\"], \"in_channels\": 4, \"out_channels\": 4, "
     "\"norm_eps\": 1e-05, \"norm_num_groups\": 4, \"flip_sin_to_cos\": true, \"freq_shift\": 0, "
     "\"num_attention_heads\": null, \"class_embed_type\": null"},
    {"vae/config.json",
     "\"_class_name\": \"AutoencoderKL\", \"act_fn\": \"silu\", \"block_out_channels\": [4, 8], \"in_channels\": 3, "
     "\"latent_channels\": 4, \"layers_per_block\": 1, \"norm_num_groups\": 2, \"out_channels\": 3, "
     "\"down_block_types\": [\"DownEncoderBlock2D\", \"DownEncoderBlock2D\"], \"scaling_factor\": 0.18215"},
    {"text_encoder/config.json",
     "\"architectures\": [\"CLIPTextModel\"], \"model_type\": \"clip_text_model\", \"hidden_act\": \"quick_gelu\", "
     "\"hidden_size\": 12, \"intermediate_size\": 48, \"layer_norm_eps\": 1e-05, \"max_position_embeddings\": 77, "
     "\"num_attention_heads\": 2, \"num_hidden_layers\": 2, \"vocab_size\": 20"},
    {"scheduler/scheduler_config.json",
     "\"_class_name\": \"PNDMScheduler\", \"beta_end\": 0.012, \"beta_schedule\": \"scaled_linear\", "
     "\"beta_start\": 0.00085, \"num_train_timesteps\": 1000, \"set_alpha_to_one\": false, \"skip_prk_steps\": true, "
     "\"steps_offset\": 1, \"trained_betas\": null, \"clip_sample\": false"},
    {"model_index.json",
     "\"_class_name\": \"StableDiffusionPipeline\", \"feature_extractor\": [\"transformers\", \"CLIPImageProcessor\"], "
     "\"scheduler\": [\"diffusers\", \"PNDMScheduler\"], \"text_encoder\": [\"transformers\", \"CLIPTextModel\"], "
     "\"tokenizer\": [\"transformers\", \"CLIPTokenizer\"], \"unet\": [\"diffusers\", \"UNet2DConditionModel\"], "
     "\"vae\": [\"diffusers\", \"AutoencoderKL\"], \"image_encoder\": [null, null]"},
};
enum { UNET_FILE, VAE_FILE, TEXT_FILE, SCHEDULER_FILE, INDEX_FILE };

static void put_file(const char *name, const char *before, const char *text, const char *after)
{
    char path[64];
    snprintf(path, sizeof path, "config/%s", name);
    FILE *file = fopen(test_scratch(path), "wb");
    CHECK(file && fprintf(file, "%s%s%s", before, text, after) >= 0 && fclose(file) == 0, "%s", path);
}

static void put_config(int file, const char *more)
{
    char end[2048];
    snprintf(end, sizeof end, "%s%s}", *more ? ", " : "", more);
    put_file(CONFIG[file][0], "{", CONFIG[file][1], end);
}

static void put_weights(flis_ctx *ctx, const char *path, const shape *list, size_t count, const char *const *metadata)
{
    static const flis_real zeros[16384];
    flis_writer *out = flis_write_begin(ctx, path);
    for (; metadata && metadata[0]; metadata += 2) flis_write_metadata(ctx, out, metadata[0], metadata[1]);
    for (int pass = 0; pass < 2; pass++)
        for (size_t i = 0; i < count; i++) {
            size_t n = 1;
            for (int d = 0; d < list[i].rank; d++) n *= (size_t)list[i].dims[d];
            if (!pass) flis_write_declare(ctx, out, list[i].name, FLIS_F16, list[i].rank, list[i].dims);
            else
                for (size_t left = n; left; left -= left < LENGTH(zeros) ? left : LENGTH(zeros))
                    flis_write_real(ctx, out, zeros, left < LENGTH(zeros) ? left : LENGTH(zeros));
        }
    CHECK(flis_write_end(ctx, out), "%s", ctx->error);
}

static void make_folder(flis_ctx *ctx)
{
    char command[1200];
    snprintf(command, sizeof command, "cd '%s' && mkdir -p config/unet config/vae config/text_encoder config/scheduler",
             test_scratch("."));
    CHECK(system(command) == 0, "%s", command);
    put_weights(ctx, test_scratch("config/unet/diffusion_pytorch_model.safetensors"), UNET, LENGTH(UNET), NULL);
    put_weights(ctx, test_scratch("config/vae/diffusion_pytorch_model.safetensors"), VAE, LENGTH(VAE), NULL);
    put_weights(ctx, test_scratch("config/text_encoder/model.safetensors"), TEXT, LENGTH(TEXT), NULL);
    for (int i = 0; i < (int)LENGTH(CONFIG); i++) put_config(i, "");
}

static char said[4096];

static void keep(void *user, const char *sentence)
{
    (void)user;
    snprintf(said + strlen(said), sizeof said - strlen(said), "%s\n", sentence);
}

/* Opens the folder and gives its error, "" if there is none; what was warned of is in `said`. */
static const char *open_folder(const char *name)
{
    static char error[4096];
    flis_ctx ctx;
    flis_init(&ctx);
    ctx.warn = keep;
    said[0] = 0;
    flis_file_close(flis_model_open(&ctx, test_scratch(name)));
    snprintf(error, sizeof error, "%s", ctx.error);
    flis_free(&ctx);
    return error;
}

/* file, the member that is appended, and the value that the sentence must say is wanted. */
static const struct {
    int file;
    const char *key, *value, *wanted;
} REFUSED[] = {
    {UNET_FILE, "_class_name", "\"UNet3DConditionModel\"", "\"UNet2DConditionModel\""},
    {UNET_FILE, "cross_attention_dim", "768", "12"},
    {UNET_FILE, "cross_attention_dim", "[12, 16]", "12"},
    {UNET_FILE, "in_channels", "6", "4"},
    {UNET_FILE, "out_channels", "8", "4"},
    {UNET_FILE, "time_cond_proj_dim", "256", "null"},
    {UNET_FILE, "time_cond_proj_dim", "true", "null"},
    {UNET_FILE, "addition_embed_type", "\"text_time\"", "null"},
    {UNET_FILE, "class_embed_type", "\"timestep\"", "null"},
    {UNET_FILE, "num_class_embeds", "1000", "null"},
    {UNET_FILE, "encoder_hid_dim", "1024", "null"},
    {UNET_FILE, "encoder_hid_dim_type", "\"text_proj\"", "null"},
    {UNET_FILE, "use_linear_projection", "true", "false"},
    {UNET_FILE, "attention_type", "\"gated\"", "\"default\""},
    {UNET_FILE, "attention_head_dim", "[5, 10]", "the same at all levels"},
    {UNET_FILE, "num_attention_heads", "[2, 4]", "the same at all levels"},
    {UNET_FILE, "layers_per_block", "1", "2"},
    {UNET_FILE, "layers_per_block", "[2, 1]", "the same at all levels"},
    {UNET_FILE, "block_out_channels", "[8, 32]", "[8, 16]"},
    {UNET_FILE, "block_out_channels", "[8]", "[8, 16]"},
    {UNET_FILE, "down_block_types", "[\"DownBlock2D\", \"DownBlock2D\"]",
     "[\"CrossAttnDownBlock2D\", \"DownBlock2D\"]"},
    {UNET_FILE, "down_block_types", "[\"SimpleCrossAttnDownBlock2D\", \"DownBlock2D\"]", "[\"CrossAttnDownBlock2D\""},
    {UNET_FILE, "up_block_types", "[\"UpBlock2D\", \"UpBlock2D\"]", "[\"UpBlock2D\", \"CrossAttnUpBlock2D\"]"},
    {UNET_FILE, "mid_block_type", "\"UNetMidBlock2D\"", "\"UNetMidBlock2DCrossAttn\""},
    {UNET_FILE, "mid_block_type", "null", "\"UNetMidBlock2DCrossAttn\""},
    {UNET_FILE, "time_embedding_dim", "64", "32"},
    {UNET_FILE, "act_fn", "\"gelu\"", "\"silu\" or \"swish\""},
    {UNET_FILE, "norm_eps", "1e-06", "1e-05"},
    {UNET_FILE, "norm_eps", "\"1e-05\"", "1e-05"},
    {UNET_FILE, "norm_eps", "NaN", "1e-05"},
    {UNET_FILE, "norm_eps", "[1e-05]", "1e-05"},
    {UNET_FILE, "flip_sin_to_cos", "false", "true"},
    {UNET_FILE, "flip_sin_to_cos", "null", "true"},
    {UNET_FILE, "flip_sin_to_cos", "0", "true"},
    {UNET_FILE, "flip_sin_to_cos", "\"true\"", "true"},
    {UNET_FILE, "freq_shift", "1", "0"},
    {UNET_FILE, "center_input_sample", "true", "false"},
    {UNET_FILE, "only_cross_attention", "true", "false"},
    {UNET_FILE, "only_cross_attention", "[false, true]", "false"},
    {UNET_FILE, "mid_block_only_cross_attention", "true", "null or false"},
    {UNET_FILE, "dual_cross_attention", "true", "false"},
    {UNET_FILE, "cross_attention_norm", "\"layer_norm\"", "null or false"},
    {UNET_FILE, "transformer_layers_per_block", "[1, 2]", "1"},
    {UNET_FILE, "reverse_transformer_layers_per_block", "[2, 1]", "null or 1"},
    {UNET_FILE, "resnet_time_scale_shift", "\"scale_shift\"", "\"default\""},
    {UNET_FILE, "resnet_skip_time_act", "true", "false"},
    {UNET_FILE, "resnet_out_scale_factor", "1.4", "1"},
    {UNET_FILE, "mid_block_scale_factor", "1.4142135", "1"},
    {UNET_FILE, "downsample_padding", "0", "1"},
    {UNET_FILE, "conv_in_kernel", "1", "3"},
    {UNET_FILE, "conv_out_kernel", "5", "3"},
    {UNET_FILE, "time_embedding_type", "\"fourier\"", "\"positional\""},
    {UNET_FILE, "time_embedding_act_fn", "\"silu\"", "null"},
    {UNET_FILE, "timestep_post_act", "\"silu\"", "null"},
    {UNET_FILE, "class_embeddings_concat", "true", "false"},
    {UNET_FILE, "quantization_config", "{\"quant_method\": \"bitsandbytes\"}", "null"},
    {VAE_FILE, "_class_name", "\"AutoencoderTiny\"", "\"AutoencoderKL\""},
    {VAE_FILE, "latent_channels", "16", "4"},
    {VAE_FILE, "in_channels", "4", "3"},
    {VAE_FILE, "out_channels", "4", "3"},
    {VAE_FILE, "block_out_channels", "[4, 8, 8]", "2"},
    {VAE_FILE, "block_out_channels", "[8, 8]", "[4, 8]"},
    {VAE_FILE, "layers_per_block", "2", "1"},
    {VAE_FILE, "shift_factor", "0.1159", "null or 0"},
    {VAE_FILE, "latents_mean", "[0, 0, 0, 0]", "null"},
    {VAE_FILE, "latents_std", "[1, 1, 1, 1]", "null"},
    {VAE_FILE, "act_fn", "\"relu\"", "\"silu\" or \"swish\""},
    {VAE_FILE, "down_block_types", "[\"DownEncoderBlock2D\", \"AttnDownEncoderBlock2D\"]", "\"DownEncoderBlock2D\""},
    {VAE_FILE, "up_block_types", "[\"AttnUpDecoderBlock2D\"]", "\"UpDecoderBlock2D\""},
    {VAE_FILE, "use_quant_conv", "false", "true"},
    {VAE_FILE, "use_post_quant_conv", "false", "true"},
    {VAE_FILE, "mid_block_add_attention", "false", "true"},
    {VAE_FILE, "quantization_config", "{\"a\": 1}", "null"},
    {TEXT_FILE, "model_type", "\"t5\"", "\"clip_text_model\""},
    {TEXT_FILE, "architectures", "[\"T5EncoderModel\"]", "\"CLIPTextModel\""},
    {TEXT_FILE, "hidden_size", "768", "12"},
    {TEXT_FILE, "max_position_embeddings", "154", "77"},
    {TEXT_FILE, "intermediate_size", "96", "48"},
    {TEXT_FILE, "num_hidden_layers", "1", "2"},
    {TEXT_FILE, "hidden_act", "\"gelu\"", "\"quick_gelu\""},
    {TEXT_FILE, "layer_norm_eps", "1e-12", "1e-05"},
    {TEXT_FILE, "pruned_heads", "{\"1\": [0]}", "{} or null"},
    {TEXT_FILE, "add_cross_attention", "true", "false"},
    {TEXT_FILE, "quantization_config", "{\"a\": 1}", "null"},
    {SCHEDULER_FILE, "_class_name", "\"LCMScheduler\"", "\"PNDMScheduler\""},
    {SCHEDULER_FILE, "_class_name", "\"FlowMatchEulerDiscreteScheduler\"", "\"PNDMScheduler\""},
    {SCHEDULER_FILE, "_class_name", "\"EDMEulerScheduler\"", "\"PNDMScheduler\""},
    {SCHEDULER_FILE, "prediction_type", "\"v_prediction\"", "\"epsilon\""},
    {SCHEDULER_FILE, "prediction_type", "\"sample\"", "\"epsilon\""},
    {SCHEDULER_FILE, "predict_epsilon", "false", "true"},
    {SCHEDULER_FILE, "beta_schedule", "\"squaredcos_cap_v2\"", "\"scaled_linear\""},
    {SCHEDULER_FILE, "beta_schedule", "null", "\"scaled_linear\""},
    {SCHEDULER_FILE, "beta_start", "0.0001", "0.00085"},
    {SCHEDULER_FILE, "beta_end", "0.02", "0.012"},
    {SCHEDULER_FILE, "num_train_timesteps", "500", "1000"},
    {SCHEDULER_FILE, "trained_betas", "[0.1, 0.2]", "null"},
    {SCHEDULER_FILE, "rescale_betas_zero_snr", "true", "false"},
    {SCHEDULER_FILE, "snr_shift_scale", "3", "1"},
    {SCHEDULER_FILE, "thresholding", "true", "false"},
    {SCHEDULER_FILE, "variance_type", "\"learned_range\"", "null or \"fixed_small\""},
    {SCHEDULER_FILE, "timestep_type", "\"continuous\"", "\"discrete\""},
    {SCHEDULER_FILE, "sigma_min", "0.002", "null"},
    {SCHEDULER_FILE, "sigma_max", "80", "null"},
    {SCHEDULER_FILE, "sigma_data", "0.5", "null"},
    {SCHEDULER_FILE, "use_flow_sigmas", "true", "false"},
    {INDEX_FILE, "_class_name", "\"StableDiffusionXLPipeline\"", "Stable Diffusion v1"},
    {INDEX_FILE, "unet", "[\"diffusers\", \"UNetMotionModel\"]", "\"UNet2DConditionModel\""},
    {INDEX_FILE, "vae", "[\"diffusers\", \"VQModel\"]", "\"AutoencoderKL\""},
    {INDEX_FILE, "text_encoder", "[\"transformers\", \"BertModel\"]", "\"CLIPTextModel\""},
    {INDEX_FILE, "scheduler", "[\"diffusers\", \"TCDScheduler\"]", "\"PNDMScheduler\""},
};

/* Every key that can change a result, with another value than flis computes: file, key, got, wanted. */
void test_field_config_refused(void)
{
    flis_ctx ctx;
    flis_init(&ctx);
    make_folder(&ctx);
    const char *error = open_folder("config");
    CHECK(!*error && !*said, "the folder itself: %s%s", error, said);
    for (size_t i = 0; i < LENGTH(REFUSED); i++) {
        char more[512], file_and_key[128], wanted[128];
        snprintf(more, sizeof more, "\"%s\": %s", REFUSED[i].key, REFUSED[i].value);
        put_config(REFUSED[i].file, more);
        error = open_folder("config");
        snprintf(file_and_key, sizeof file_and_key, "config/%s: %s: got ", CONFIG[REFUSED[i].file][0], REFUSED[i].key);
        snprintf(wanted, sizeof wanted, "wanted %s", REFUSED[i].wanted);
        CHECK(strstr(error, file_and_key) && strstr(error, wanted), "%s: \"%s\"", more, error);
        put_config(REFUSED[i].file, "");
    }
    flis_free(&ctx);
}

/* Values that mean what flis computes, in any form, and keys that change nothing: no error and no warning. */
void test_field_config_taken(void)
{
    static const struct {
        int file;
        const char *more;
    } row[] = {
        {UNET_FILE, "\"norm_eps\": 0.00001, \"freq_shift\": 0.0, \"flip_sin_to_cos\": 1, \"act_fn\": \"swish\""},
        {UNET_FILE, "\"norm_eps\": 9.999999747378752e-06, \"center_input_sample\": null, \"conv_in_kernel\": 3.0"},
        {UNET_FILE, "\"norm_eps\": null, \"act_fn\": null, \"dual_cross_attention\": false"},
        {UNET_FILE, "\"attention_head_dim\": [2, 2], \"layers_per_block\": [2, 2], \"cross_attention_dim\": [12, 12]"},
        {UNET_FILE, "\"only_cross_attention\": [false, false], \"transformer_layers_per_block\": [1, 1], "
                    "\"reverse_transformer_layers_per_block\": [[1, 1], 1], \"mid_block_only_cross_attention\": false"},
        {UNET_FILE, "\"time_embedding_dim\": 32, \"mid_block_type\": \"UNetMidBlock2DCrossAttn\", \"norm_eps\": 1e-6, "
                    "\"norm_eps\": 1e-05"},
        {UNET_FILE,
         "\"sample_size\": [64, 96], \"dropout\": 0.1, \"upcast_attention\": true, \"use_ema_warmup\": true, "
         "\"_name_or_path\": \"x\", \"_anything\": 1, \"addition_embed_type_num_heads\": 64, \"dtype\": 1"},
        {VAE_FILE, "\"shift_factor\": 0.0, \"latents_mean\": null, \"use_quant_conv\": true, \"sample_size\": 512, "
                   "\"force_upcast\": false, \"up_block_types\": [\"UpDecoderBlock2D\", \"UpDecoderBlock2D\"]"},
        {TEXT_FILE, "\"eos_token_id\": 2, \"bos_token_id\": 0, \"pad_token_id\": 1, \"projection_dim\": 768, "
                    "\"attention_dropout\": 0.5, \"initializer_factor\": 1.0, \"torch_dtype\": \"float16\", "
                    "\"transformers_version\": \"4.22\", \"pruned_heads\": {}, \"id2label\": {\"0\": \"a\"}"},
        {SCHEDULER_FILE, "\"_class_name\": \"DPMSolverMultistepScheduler\", \"lambda_min_clipped\": -Infinity, "
                         "\"algorithm_type\": \"dpmsolver++\", \"solver_order\": 2, \"variance_type\": null, "
                         "\"use_karras_sigmas\": true, \"final_sigmas_type\": \"zero\""},
        {SCHEDULER_FILE, "\"_class_name\": \"DDIMScheduler\", \"clip_sample\": true, \"set_alpha_to_one\": true, "
                         "\"timestep_spacing\": \"trailing\", \"beta_start\": 0.0008500000112690032, "
                         "\"beta_end\": 1.2e-2, \"thresholding\": false"},
        {INDEX_FILE, "\"_class_name\": \"StableDiffusionImg2ImgPipeline\", \"safety_checker\": [null, null], "
                     "\"requires_safety_checker\": false, \"text_encoder_2\": [null, null], \"scheduler\": "
                     "[\"diffusers\", \"EulerAncestralDiscreteScheduler\"]"},
    };
    flis_ctx ctx;
    flis_init(&ctx);
    make_folder(&ctx);
    for (size_t i = 0; i < LENGTH(row); i++) {
        put_config(row[i].file, row[i].more);
        const char *error = open_folder("config");
        CHECK(!*error && !*said, "%s: %s%s", row[i].more, error, said);
        put_config(row[i].file, "");
    }
    flis_free(&ctx);
}

/* Whole files, and files of CLIPModel, where the text encoder's keys are one level deeper. What is read reaches the
   metadata; what nobody knows is warned of in one line for each file. */
void test_field_config_files(void)
{
    static const char clip[] = "\"model_type\": \"clip\", \"architectures\": [\"CLIPModel\"], \"projection_dim\": 768, "
                               "\"vision_config\": {\"hidden_size\": 1024}, \"text_config\": {";
    flis_ctx ctx;
    flis_init(&ctx);
    make_folder(&ctx);
    const char *error;
    put_file(CONFIG[SCHEDULER_FILE][0], "", "{\"_class_name\": \"PNDMScheduler\", \"beta_end\": 0.012}", "");
    CHECK(strstr(error = open_folder("config"), "beta_schedule: got nothing, which means \"linear\" to diffusers"),
          "%s", error);
    put_file(CONFIG[SCHEDULER_FILE][0], "", "[1]", "");
    CHECK(strstr(error = open_folder("config"), "scheduler_config.json:1:1: got an array, wanted an object"), "%s",
          error);
    put_file(CONFIG[SCHEDULER_FILE][0], "", "{\n \"beta_start\": }", "");
    CHECK(strstr(error = open_folder("config"), "scheduler_config.json:2:16: "), "%s", error);
    remove(test_scratch("config/scheduler/scheduler_config.json"));
    remove(test_scratch("config/model_index.json"));
    CHECK(!*(error = open_folder("config")), "neither a scheduler nor an index: %s", error);
    put_file(CONFIG[TEXT_FILE][0], "{", clip, "\"hidden_act\": \"gelu\"}}");
    CHECK(strstr(error = open_folder("config"), "hidden_act: got \"gelu\""), "in text_config: %s", error);
    put_file(CONFIG[TEXT_FILE][0], "{", clip, "\"num_hidden_layers\": 1}}");
    CHECK(strstr(error = open_folder("config"), "num_hidden_layers: got 1, wanted 2"), "in text_config: %s", error);
    put_file(CONFIG[TEXT_FILE][0], "{", clip, "\"num_attention_heads\": 3, \"what\": 1}}");
    put_config(UNET_FILE, "\"a\": 1, \"b\": {\"c\": 2}, \"num_attention_heads\": 4");
    ctx.warn = keep;
    said[0] = 0;
    flis_file *file = flis_model_open(&ctx, test_scratch("config"));
    const char *heads = flis_file_metadata(file, "clip.num_heads"), *unet = flis_file_metadata(file, "unet.num_heads");
    CHECK(heads && strcmp(heads, "3") == 0 && unet && strcmp(unet, "4") == 0, "heads: %s", ctx.error);
    const char *a = strstr(said, "unet/config.json: keys that flis does not know, ignored: a, b\n");
    CHECK(a && strstr(a, "text_encoder/config.json: keys that flis does not know, ignored: what\n"), "%s", said);
    flis_file_close(file);
    put_file(CONFIG[TEXT_FILE][0], "", "{}", "");
    file = flis_model_open(&ctx, test_scratch("config"));
    heads = flis_file_metadata(file, "clip.num_heads");
    CHECK(heads && strcmp(heads, "8") == 0, "heads where the key is absent: transformers' 8: %s", ctx.error);
    flis_file_close(file);
    flis_free(&ctx);
}

/* Sizes that name another model, before what else its configuration says. */
void test_field_config_named(void)
{
    static const struct {
        int file;
        const char *more, *name;
    } row[] = {
        {UNET_FILE, "\"cross_attention_dim\": 1024, \"use_linear_projection\": true", "Stable Diffusion 2"},
        {UNET_FILE, "\"cross_attention_dim\": 2048, \"addition_embed_type\": \"text_time\"", "Stable Diffusion XL"},
        {UNET_FILE, "\"in_channels\": 9", "an inpainting model"},
        {UNET_FILE, "\"in_channels\": 8", "InstructPix2Pix"},
        {UNET_FILE, "\"in_channels\": 7, \"num_class_embeds\": 1000", "upscaler"},
        {UNET_FILE, "\"in_channels\": 5", "depth-to-image"},
        {UNET_FILE, "\"time_cond_proj_dim\": 256", "a latent consistency model (LCM)"},
        {TEXT_FILE, "\"max_position_embeddings\": 248", "Long-CLIP"},
        {TEXT_FILE, "\"hidden_size\": 1024, \"hidden_act\": \"gelu\"", "Stable Diffusion 2"},
        {SCHEDULER_FILE, "\"_class_name\": \"LCMScheduler\"", "a latent consistency model (LCM)"},
        {INDEX_FILE, "\"_class_name\": \"AnimateDiffPipeline\"", "AnimateDiff"},
        {INDEX_FILE, "\"_class_name\": \"StableDiffusion3Pipeline\"", "Stable Diffusion 3"},
        {INDEX_FILE, "\"text_encoder_2\": [\"transformers\", \"CLIPTextModelWithProjection\"]", "Stable Diffusion XL"},
        {INDEX_FILE, "\"text_encoder_3\": [\"diffusers\", \"X\"]", "Stable Diffusion 3"},
        {INDEX_FILE, "\"motion_adapter\": [\"diffusers\", \"X\"]", "AnimateDiff"},
        {INDEX_FILE, "\"depth_estimator\": [\"diffusers\", \"X\"]", "depth-to-image"},
        {INDEX_FILE, "\"low_res_scheduler\": [\"diffusers\", \"X\"]", "upscaler"},
        {INDEX_FILE, "\"image_normalizer\": [\"diffusers\", \"X\"]", "unCLIP"},
        {INDEX_FILE, "\"prior\": [\"diffusers\", \"X\"]", "a prior"},
        {INDEX_FILE, "\"vqvae\": [\"diffusers\", \"X\"]", "before Stable Diffusion"},
        {INDEX_FILE, "\"bert\": [\"diffusers\", \"X\"]", "before Stable Diffusion"},
        {INDEX_FILE, "\"transformer\": [\"diffusers\", \"FluxTransformer2DModel\"]", "FLUX"},
    };
    flis_ctx ctx;
    flis_init(&ctx);
    make_folder(&ctx);
    for (size_t i = 0; i < LENGTH(row); i++) {
        put_config(row[i].file, row[i].more);
        const char *error = open_folder("config");
        CHECK(strstr(error, row[i].name) && (row[i].file == SCHEDULER_FILE || strstr(error, "FreestyleNet")),
              "%s: \"%s\"", row[i].more, error);
        put_config(row[i].file, "");
    }
    put_config(INDEX_FILE, "\"_class_name\": [\"mine\", \"MyPipeline\"], \"controlnet\": [\"diffusers\", \"X\"]");
    const char *error = open_folder("config");
    CHECK(!*error && strstr(said, "MyPipeline") && strstr(said, "controlnet"), "%s%s", error, said);
    flis_free(&ctx);
}

/* Files that hold one tensor or one pair of metadata more: the model that the file is must be named. */
void test_field_config_marks(void)
{
    static const struct {
        const char *tensor;
        int rank;
        uint64_t dims[2];
        const char *name;
    } row[] = {
        {"x", 1, {1}, NULL},
        {"v_pred", 1, {0}, "predicts v"},
        {"v_pred_not", 1, {1}, NULL},
        {"ztsnr", 1, {0}, "zero terminal SNR"},
        {"edm_mean", 1, {1}, "EDM"},
        {"edm_vpred.sigma_max", 1, {1}, "predicts v"},
        {"conditioner.embedders.0.transformer.x", 1, {1}, "Stable Diffusion XL"},
        {"add_embedding.linear_1.weight", 1, {1}, "Stable Diffusion XL"},
        {"model.diffusion_model.label_emb.0.0.weight", 1, {1}, "size embeddings"},
        {"model.diffusion_model.joint_blocks.0.x", 1, {1}, "Stable Diffusion 3"},
        {"model.diffusion_model.double_blocks.0.x", 1, {1}, "FLUX"},
        {"adaln_single.linear.weight", 1, {1}, "PixArt"},
        {"clip_txt_mapper.weight", 1, {1}, "Stable Cascade"},
        {"cond_stage_model.model.transformer.resblocks.0.x", 1, {1}, "Stable Diffusion 2"},
        {"cond_stage_model.model.visual.proj", 1, {1}, "image variations"},
        {"embedder.model.visual.proj", 1, {1}, "unCLIP"},
        {"encoder_hid_proj.weight", 1, {1}, "Kandinsky"},
        {"time_embedding.cond_proj.weight", 1, {1}, "a latent consistency model (LCM)"},
        {"down_blocks.0.motion_modules.0.x", 1, {1}, "AnimateDiff"},
        {"model.diffusion_model.input_blocks.1.0.time_stack.x", 1, {1}, "Stable Video Diffusion"},
        {"model.diffusion_model.input_blocks.1.1.transformer_blocks.0.fuser.x", 1, {1}, "GLIGEN"},
        {"conv_in_condition.weight", 1, {1}, "BrushNet"},
        {"text_encoders.clip_l.x", 1, {1}, "Stable Diffusion 3 or FLUX"},
        {"joint_blocks.0.x", 1, {1}, "Stable Diffusion 3"},
        {"double_blocks.0.x", 1, {1}, "FLUX"},
        {"single_transformer_blocks.0.x", 1, {1}, "FLUX"},
        {"model.diffusion_model.adaln_single.x", 1, {1}, "PixArt"},
        {"model.diffusion_model.clip_txt_mapper.x", 1, {1}, "Stable Cascade"},
        {"model.diffusion_model.clip_txt_pooled_mapper.x", 1, {1}, "Stable Cascade"},
        {"clip_txt_pooled_mapper.x", 1, {1}, "Stable Cascade"},
        {"model.diffusion_model.effnet_mapper.x", 1, {1}, "Stable Cascade"},
        {"model.diffusion_model.time_embed.cond_proj.weight", 1, {1}, "a latent consistency model (LCM)"},
        {"model.diffusion_model.time_embedding.cond_proj.weight", 1, {1}, "a latent consistency model (LCM)"},
        {"class_embedding.weight", 1, {1}, "class embeddings"},
        {"cond_stage_model.transformer.token_emb.weight", 1, {1}, "before Stable Diffusion"},
        {"brushnet.x", 1, {1}, "BrushNet"},
        {"down_blocks.0.temporal_transformer_blocks.0.x", 1, {1}, "Stable Video Diffusion"},
        {"down_blocks.0.temp_convs.0.x", 1, {1}, "a video model"},
        {"position_net.x", 1, {1}, "GLIGEN"},
        {"clip.positional_embedding_res", 1, {1}, "Long-CLIP"},
        {"text_model.embeddings.position_embedding_res", 1, {1}, "Long-CLIP"},
        {"edm_std", 1, {1}, "EDM"},
        {"model.diffusion_model.input_blocks.0.0.weight", 2, {8, 16}, "Stable Diffusion 3"},
        {"model.diffusion_model.middle_block.1.transformer_blocks.0.attn2.to_k.weight", 2, {8, 1280}, "refiner"},
        {"cond_stage_model.transformer.text_model.embeddings.token_embedding.weight",
         2,
         {2, 1280},
         "Stable Diffusion XL"},
        {"cond_stage_model.transformer.text_model.embeddings.token_embedding.weight", 2, {2, 768}, NULL},
        {"model.diffusion_model.input_blocks.0.0.weight", 2, {8, 9}, "an inpainting model"},
        {"model.diffusion_model.input_blocks.0.0.weight", 2, {8, 8}, "InstructPix2Pix"},
        {"model.diffusion_model.input_blocks.0.0.weight", 2, {8, 4}, NULL},
        {"model.diffusion_model.middle_block.1.transformer_blocks.0.attn2.to_k.weight",
         2,
         {8, 1024},
         "Stable Diffusion 2"},
        {"model.diffusion_model.middle_block.1.transformer_blocks.0.attn2.to_k.weight", 2, {8, 768}, NULL},
        {"cond_stage_model.transformer.text_model.embeddings.position_embedding.weight", 2, {248, 4}, "Long-CLIP"},
        {"cond_stage_model.transformer.text_model.embeddings.position_embedding.weight", 2, {77, 4}, NULL},
    };
    flis_ctx ctx;
    flis_init(&ctx);
    for (size_t i = 0; i < LENGTH(row); i++) {
        const shape list[] = {{"a", 1, {1}}, {row[i].tensor, row[i].rank, {row[i].dims[0], row[i].dims[1]}}};
        put_weights(&ctx, test_scratch("mark.safetensors"), list, 2, NULL);
        const char *error = open_folder("mark.safetensors");
        CHECK(row[i].name ? strstr(error, row[i].name) && strstr(error, "wanted Stable Diffusion v1 or FreestyleNet")
                          : !*error,
              "%s: \"%s\"", row[i].tensor, error);
    }
    size_t length = 0;
    const shape list[] = {{"v_pred", 1, {0}}};
    put_weights(&ctx, test_scratch("mark.safetensors"), list, 1, NULL);
    char *bytes = flis_read_file(&ctx, test_scratch("mark.safetensors"), 4096, &length);
    flis_model *model = flis_model_load_memory(&ctx, "memory", bytes, length, FLIS_PARTS_NONE);
    CHECK(!model && strstr(ctx.error, "memory: is a model that predicts v"), "%s", ctx.error);
    flis_clear_error(&ctx);
    ctx.dry = true; /* as `flis info` opens it */
    flis_file *file = flis_model_open(&ctx, test_scratch("mark.safetensors"));
    CHECK(file && !flis_model_check(&ctx, file) && strstr(ctx.error, "predicts v"), "dry: %s", ctx.error);
    flis_file_close(file);
    free(bytes);
    flis_free(&ctx);
}

/* MODEL.yaml beside MODEL.safetensors, and the special tokens of a folder's tokenizer. */
void test_field_config_beside(void)
{
    static const struct {
        const char *text, *name; /* NULL: passes */
    } row[] = {
        {"", NULL},
        {"model:\n  params:\n    linear_start: 0.00085\n    linear_end: 0.0120 # as v1\n    timesteps: 1000\n", NULL},
        {"model:\r\n  params:\r\n    parameterization: \"eps\"\r\n", NULL},
        {"    parameterization: \"v\"\n", "parameterization: got v, wanted eps"},
        {"model:\n  params:\n    parameterization: v", "parameterization: got v, wanted eps"},
        {"a: 1\n\n    linear_end: 0.02\n", "linear_end: got 0.02, wanted 0.012"},
        {"    linear_start: 0.001\n", "linear_start: got 0.001, wanted 0.00085"},
        {"    timesteps: 500\n", "timesteps: got 500, wanted 1000"},
        {"      layer: penultimate\n", "layer: got penultimate, wanted last"},
        {"# parameterization: v\nmy_parameterization: v\n", NULL},
    };
    static const struct {
        const char *text, *name;
    } tokens[] = {
        {"{\"pad_token\": \"<|endoftext|>\", \"bos_token\": {\"content\": \"<|startoftext|>\"}}", NULL},
        {"{\"pad_token\": \"!\"}", "pad_token: got \"!\", wanted \"<|endoftext|>\""},
        {"{\"pad_token\": {\"content\": \"!\"}}", "pad_token: got \"!\""},
        {"{\"bos_token\": \"<s>\"}", "bos_token: got \"<s>\""},
        {"{\"eos_token\": \"</s>\"}", "eos_token: got \"</s>\""},
    };
    flis_ctx ctx;
    flis_init(&ctx);
    const shape list[] = {{"a", 1, {1}}};
    make_folder(&ctx);
    put_weights(&ctx, test_scratch("config/m.safetensors"), list, 1, NULL);
    for (size_t i = 0; i < LENGTH(row); i++) {
        put_file("m.yaml", "", row[i].text, "");
        const char *error = open_folder("config/m.safetensors");
        CHECK(row[i].name ? strstr(error, "m.yaml: ") && strstr(error, row[i].name) : !*error, "%s: \"%s\"",
              row[i].text, error);
    }
    char command[1200];
    snprintf(command, sizeof command, "mkdir -p '%s'", test_scratch("config/tokenizer"));
    CHECK(system(command) == 0, "%s", command);
    for (size_t i = 0; i < 2 * LENGTH(tokens); i++) {
        const char *file = i % 2 ? "tokenizer/tokenizer_config.json" : "tokenizer/special_tokens_map.json";
        char path[64];
        snprintf(path, sizeof path, "config/%s", file);
        put_file(file, "", tokens[i / 2].text, "");
        const char *error = open_folder("config");
        CHECK(tokens[i / 2].name ? strstr(error, file) && strstr(error, tokens[i / 2].name) : !*error, "%s: \"%s\"",
              tokens[i / 2].text, error);
        remove(test_scratch(path));
    }
    flis_free(&ctx);
}

void test_field_config_metadata(void)
{
    static const struct {
        const char *key, *value, *name; /* NULL: passes; "!": passes with a warning */
    } row[] = {
        {"modelspec.architecture", "stable-diffusion-v1", NULL},
        {"modelspec.architecture", "Stable-Diffusion-v1-5", NULL},
        {"modelspec.architecture", "", NULL},
        {"modelspec.architecture", "stable-diffusion-v1/lora", "a LoRA"},
        {"modelspec.architecture", "stable-diffusion-v1/textual-inversion", "an embedding"},
        {"modelspec.architecture", "stable-diffusion-v1-inpainting", "an inpainting model"},
        {"modelspec.architecture", "stable-diffusion-v2-768-v", "Stable Diffusion 2"},
        {"modelspec.architecture", "stable-diffusion-xl-v1-base", "Stable Diffusion XL"},
        {"modelspec.architecture", "stable-diffusion-v3-medium", "Stable Diffusion 3"},
        {"modelspec.architecture", "flux-1-dev", "FLUX"},
        {"modelspec.architecture", "stable-diffusion-v10", "wanted \"stable-diffusion-v1\""},
        {"modelspec.architecture", "another", "wanted \"stable-diffusion-v1\""},
        {"modelspec.predict_type", "v", "wanted \"epsilon\""},
        {"modelspec.architecture", "stable-diffusion-v1/lycoris", "a LoRA"},
        {"modelspec.architecture", "stable-diffusion-v1/control-net", "a ControlNet"},
        {"modelspec.architecture", "sdxl", "Stable Diffusion XL"},
        {"modelspec.architecture", "stable-unclip-l", "unCLIP"},
        {"modelspec.architecture", "stable-video-diffusion-img2vid-v1", "Stable Video Diffusion"},
        {"modelspec.architecture", "stable-cascade", "Stable Cascade"},
        {"modelspec.architecture", "stable-diffusion-2", "Stable Diffusion 2"},
        {"modelspec.architecture", "sd2.1", "Stable Diffusion 2"},
        {"modelspec.architecture", "stable-diffusion-3-medium", "Stable Diffusion 3"},
        {"modelspec.architecture", "sd3", "Stable Diffusion 3"},
        {"modelspec.prediction_type", "epsilon", NULL},
        {"modelspec.prediction_type", "v", "got \"v\", wanted \"epsilon\""},
        {"modelspec.predict_key", "v", "got \"v\", wanted \"epsilon\""},
        {"modelspec.predict_key", "Epsilon", NULL},
        {"prediction_type", "v_prediction", "wanted \"epsilon\""},
        {"modelspec.resolution", "768x768", NULL},
        {"modelspec.encoder_layer", "1", NULL},
        {"modelspec.encoder_layer", "2", "!"},
        {"ss_clip_skip", "None", NULL},
        {"ss_clip_skip", "2", "!"},
        {"ss_v2", "False", NULL},
        {"ss_v2", "True", "wanted \"false\""},
        {"ss_base_model_version", "sd_v1", NULL},
        {"ss_base_model_version", "sd_v2_v", "wanted \"sd_v1\""},
        {"ss_base_model_version", "sdxl_base_v1-0", "wanted \"sd_v1\""},
        {"ss_v_parameterization", "True", "wanted \"false\""},
        {"ss_zero_terminal_snr", "True", "wanted \"false\""},
        {"ss_zero_terminal_snr", "None", NULL},
        {"v_pred", "true", "wanted \"false\""},
        {"ztsnr", "1", "wanted \"false\""},
        {"format", "pt", NULL},
        {"sd_merge_recipe", "{}", NULL},
    };
    flis_ctx ctx;
    flis_init(&ctx);
    for (size_t i = 0; i < LENGTH(row); i++) {
        const shape list[] = {{"a", 1, {1}}};
        const char *const metadata[] = {row[i].key, row[i].value, NULL};
        put_weights(&ctx, test_scratch("metadata.safetensors"), list, 1, metadata);
        const char *error = open_folder("metadata.safetensors");
        const bool passes = !row[i].name || *row[i].name == '!';
        CHECK(passes ? !*error : strstr(error, row[i].name) && strstr(error, row[i].key), "%s=%s: \"%s\"", row[i].key,
              row[i].value, error);
        CHECK(!*said == !(row[i].name && *row[i].name == '!'), "%s=%s: warned \"%s\"", row[i].key, row[i].value, said);
    }
    const shape lora[] = {{"lora_unet_a.lora_up.weight", 1, {1}}};
    const char *const adapter[] = {"ss_network_module", "networks.lora", "ss_v2", "True", NULL};
    put_weights(&ctx, test_scratch("metadata.safetensors"), lora, 1, adapter);
    const char *error = open_folder("metadata.safetensors");
    CHECK(!strstr(error, "ss_v2"), "a LoRA alone: %s", error);
    flis_free(&ctx);
}

/* A tiny model with more tensors. */
static void put_model(flis_ctx *ctx, const char *path, const char *const *more, size_t count)
{
    const uint64_t one[1] = {1};
    const char *tiny = test_scratch("tiny.safetensors");
    test_write_tiny_model(ctx, tiny, 64);
    flis_file *file = flis_file_open(ctx, tiny);
    flis_writer *out = flis_write_begin(ctx, path);
    if (!file) return;
    for (size_t i = 0; i < file->metadata_count; i++)
        flis_write_metadata(ctx, out, file->metadata[2 * i], file->metadata[2 * i + 1]);
    for (size_t i = 0; i < file->count; i++)
        flis_write_declare(ctx, out, file->entry[i].name, FLIS_F32, file->entry[i].rank, file->entry[i].shape);
    for (size_t i = 0; i < count; i++) flis_write_declare(ctx, out, more[i], FLIS_F32, 1, one);
    for (size_t i = 0; i < file->count + count; i++) {
        const size_t n = i < file->count ? (size_t)flis_entry_count(&file->entry[i]) : 1;
        flis_real *values = calloc(n, sizeof *values);
        if (i < file->count) flis_file_read_real(ctx, file, &file->entry[i], values);
        flis_write_real(ctx, out, values, n);
        free(values);
    }
    CHECK(flis_write_end(ctx, out), "%s", ctx->error);
    flis_file_close(file);
}

/* What a file holds beyond the model is said in one line, and what every checkpoint holds is not. The vocabulary is not the
   model's, so that nothing is painted. */
void test_field_config_extra(void)
{
    static const char *const ordinary[] = {"betas", "logvar", "first_stage_model.loss.logvar",
                                           "cond_stage_model.transformer.text_model.embeddings.position_ids",
                                           "cond_stage_model.transformer.text_projection.weight"};
    static const char *const extra[] = {"betas",
                                        "model_ema.decay",
                                        "model_ema.num_updates",
                                        "lora_unet_a.lora_up.weight",
                                        "model.diffusion_model.a.lora_A.weight",
                                        "model.diffusion_model.b",
                                        "safety_checker.x",
                                        "alone"};
    static const char want[] = "extra.safetensors: 7 tensors of the file are not used: alone (1), LoRA (2), "
                               "model.diffusion_model.* (1), model_ema.* (2), safety_checker.* (1)\n";
    flis_ctx ctx;
    flis_init(&ctx);
    flis_vocab *vocab = flis_vocab_read(&ctx, test_path("vocab.txt"));
    char sky[] = "sky";
    flis_phrase phrase = {sky, 1};
    flis_layout layout = {.count = 1, .phrase = &phrase};
    flis_picture picture;
    flis_options options;
    flis_options_default(&options);
    ctx.warn = keep;
    for (int i = 0; i < 5; i++) {
        const char *path = test_scratch("extra.safetensors");
        put_model(&ctx, path, i ? extra : ordinary, i ? LENGTH(extra) : LENGTH(ordinary));
        said[0] = 0;
        if (i < 2) {
            CHECK(!flis_generate(&ctx, path, vocab, &layout, &options, &picture) && strstr(ctx.error, "vocabulary"),
                  "%s", ctx.error);
        } else {
            static const unsigned parts[] = {FLIS_PARTS_PAINT, FLIS_PARTS_NONE, FLIS_PART_TEXT};
            flis_model *model = flis_model_load(&ctx, path, parts[i - 2]);
            CHECK(model, "%s", ctx.error);
            for (int k = 0; k < 2; k++) { /* once, however often it is used */
                CHECK(!flis_model_generate(&ctx, model, vocab, &layout, &options, &picture), "another vocabulary");
                flis_clear_error(&ctx);
            }
            flis_model_free(&model);
        }
        flis_clear_error(&ctx);
        const char *line = strstr(said, "extra.safetensors: ");
        CHECK(i ? line && strcmp(line, want) == 0 : !*said, "%d: %s", i, said);
    }
    flis_vocab_free(vocab);
    flis_free(&ctx);
}

/* ---- Buffers of a checkpoint ---------------------------------------------------------------------------------------- */

/* A file of one buffer; the sentence of opening it on the disk and, the same, from memory. */
static const char *open_buffer(const char *name, flis_dtype dtype, uint64_t count, const double *values,
                               const char *scale)
{
    static char error[4096];
    const char *path = test_scratch("buffer.safetensors");
    flis_ctx ctx;
    size_t length = 0;
    flis_init(&ctx);
    flis_writer *out = flis_write_begin(&ctx, path);
    if (scale) flis_write_metadata(&ctx, out, "vae.scale_factor", scale);
    flis_write_declare(&ctx, out, name, dtype, 1, &count);
    flis_write_f64(&ctx, out, values, (size_t)count);
    CHECK(flis_write_end(&ctx, out), "%s", ctx.error);
    flis_file_close(flis_model_open(&ctx, path));
    snprintf(error, sizeof error, "%s", ctx.error);
    flis_clear_error(&ctx);
    char *bytes = flis_read_file(&ctx, path, 1 << 20, &length);
    flis_model *model = flis_model_load_memory(&ctx, path, bytes, length, FLIS_PARTS_NONE);
    CHECK(!model == (*error != 0) && strcmp(ctx.error, error) == 0, "in memory: \"%s\", on the disk: \"%s\"", ctx.error,
          error);
    flis_model_free(&model);
    free(bytes);
    flis_free(&ctx);
    return error;
}

void test_field_config_buffers(void)
{
    static const flis_dtype rounded[] = {FLIS_F64, FLIS_F32, FLIS_F16, FLIS_BF16};
    static flis_schedule right;
    double other[FLIS_TIMESTEPS], scale[] = {0.18215, 0.13025, NAN};
    flis_schedule_make(&right);
    for (size_t i = 0; i < LENGTH(rounded); i++) {
        const char *error = open_buffer("alphas_cumprod", rounded[i], FLIS_TIMESTEPS, right.alpha_bar, NULL);
        CHECK(!*error, "type %d: %s", (int)rounded[i], error);
        error = open_buffer("scale_factor", rounded[i], 1, scale, NULL);
        CHECK(!*error, "type %d: %s", (int)rounded[i], error);
    }
    for (int which = 0; which < 5; which++) { /* linear; cosine; zero terminal SNR; one value; NaN at the end */
        char want[64];
        double product = 1;
        int first = -1;
        for (int t = 0; t < FLIS_TIMESTEPS; t++) {
            const double a = right.alpha_bar[t], end = sqrt(right.alpha_bar[999]), begin = sqrt(right.alpha_bar[0]);
            const double zero = (sqrt(a) - end) * begin / (begin - end),
                         angle = cos((t / 1000.0 + 0.008) / 1.008 * 1.5707963);
            product *= 1 - (0.0001 + (0.02 - 0.0001) * t / 999);
            other[t] = which == 0 ? product : which == 1 ? angle * angle : which == 2 ? zero * zero : a;
            if (which == 3 && t == 500) other[t] *= 1.005;
            if (which == 4 && t == 999) other[t] = NAN;
            if (first < 0 && !(fabs(other[t] - a) <= a / 256)) first = t;
        }
        snprintf(want, sizeof want, "\"alphas_cumprod\": value %d: got ", first);
        const char *error = open_buffer("alphas_cumprod", FLIS_F64, FLIS_TIMESTEPS, other, NULL);
        CHECK(strstr(error, want) && strstr(error, "buffer.safetensors") && strstr(error, ", wanted 0."),
              "%d: %s wants %s", which, error, want);
    }
    const char *error = open_buffer("alphas_cumprod", FLIS_F32, 500, right.alpha_bar, NULL);
    CHECK(strstr(error, "got 500 values of F32, wanted 1000"), "%s", error);
    error = open_buffer("scale_factor", FLIS_F32, 1, scale + 1, NULL);
    CHECK(strstr(error, "\"scale_factor\": value 0: got 0.13025") && strstr(error, "wanted 0.18215"), "%s", error);
    error = open_buffer("scale_factor", FLIS_F32, 1, scale + 2, NULL);
    CHECK(strstr(error, "wanted 0.18215"), "%s", error);
    error = open_buffer("scale_factor", FLIS_F32, 1, scale + 1, "0.13025");
    CHECK(!*error, "%s", error);
    error = open_buffer("scale_factor", FLIS_F32, 1, scale, "0.5");
    CHECK(strstr(error, "wanted 0.5"), "%s", error);
}

/* ---- Other files in the place of a configuration ---------------------------------------------------------------------- */

void test_field_config_kinds(void)
{
    static const char *const names[] = {"unet/config.json",
                                        "vae/config.json",
                                        "text_encoder/config.json",
                                        "scheduler/scheduler_config.json",
                                        "model_index.json",
                                        "tokenizer/tokenizer_config.json",
                                        "tokenizer/special_tokens_map.json",
                                        "unet/diffusion_pytorch_model.safetensors.index.json"};
    static const char *const kinds[][2] = {
        {"\n<!DOCTYPE html><html><title>Sign in</title></html>", "is an HTML page, not the file"},
        {"version https://git-lfs.github.com/spec/v1\noid sha256:aa\nsize 9\n", "is a Git LFS pointer"},
        {"<?xml version=\"1.0\"?><Error/>", "is an XML text"},
        {"{\"error\": \"Repository not found\"}",
         "is a server's error message, not the file: \"Repository not found\""},
        {"\x89PNG\r\n", "is a PNG picture"},
        {"PK\3\4abcdefgh", "is a zip archive"},
        {"", "is an empty file"},
    };
    flis_ctx ctx;
    flis_init(&ctx);
    make_folder(&ctx);
    for (size_t i = 0; i < LENGTH(names); i++)
        for (size_t k = 0; k < LENGTH(kinds); k++) {
            char command[1200], want[200], path[64];
            snprintf(command, sizeof command, "cd '%s' && mkdir -p tokenizer%s", test_scratch("config"),
                     strstr(names[i], ".index.json") ? " && rm -f unet/diffusion_pytorch_model.safetensors" : "");
            CHECK(system(command) == 0, "%s", command); /* the index is read where the plain weights are absent */
            put_file(names[i], "", kinds[k][0], "");
            snprintf(want, sizeof want, "%s: %s", names[i], kinds[k][1]);
            const char *error = open_folder("config");
            CHECK(strstr(error, want), "\"%s\" lacks \"%s\"", error, want);
            snprintf(path, sizeof path, "config/%s", names[i]);
            remove(test_scratch(path));
            for (int file = 0; file < (int)LENGTH(CONFIG); file++) put_config(file, "");
        }
    flis_free(&ctx);
}
