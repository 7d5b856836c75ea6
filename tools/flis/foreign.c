/* foreign.c - options of the authors' scripts, of other programs for Stable Diffusion, and what `flis generate` has in their
 * place. FreestyleNet@5dcb8b8 scripts/FLIS.py and LIS.py, the parsers in main; CompVis's scripts/txt2img.py; diffusers' pipelines;
 * AUTOMATIC1111's web UI.
 */
#include "tools/flis/command.h"

#define STEPS "steps", "it is --steps N here"
#define SIZE "size", "it is --size WIDTHxHEIGHT here"
#define COUNT "count", "it is --count N here: N pictures, with the seeds S, S + 1, ..."
#define SCALE "scale", "it is --scale X here"
#define OUTPUT "output", "it is --output DIR/ here, or --output FILE.png"
#define MODEL "model", "it is --model FILE here: a safetensors file, which bin/ckpt2safetensors makes of a checkpoint"
#define JSON "json", "it is --json FILE here: a JSON file with the phrases and the name of the label map"
#define SAMPLER "sampler", "it is --sampler here: plms (the default) or ddim"
#define NEGATIVE "negative", "it is --negative TEXT here"
#define CPU "threads", "flis computes on the processor, in float32 (flis64: in double), with --threads N"
#define NOISE "noise", "a picture starts from noise here: that of --seed, or of --noise FILE"
#define FIXED "model", "the model's tensors determine it here"

const foreign_option FOREIGN[] = {
    {"ddim_steps", STEPS},
    {"num_inference_steps", STEPS},
    {"sampling_steps", STEPS},
    {"H", SIZE},
    {"W", SIZE},
    {"height", SIZE},
    {"width", SIZE},
    {"resolution", SIZE},
    {"n_samples", COUNT},
    {"n_iter", COUNT},
    {"batch_size", COUNT},
    {"batch_count", COUNT},
    {"num_images", COUNT},
    {"num_images_per_prompt", COUNT},
    {"plms", SAMPLER},
    {"ddim", SAMPLER},
    {"dpm", SAMPLER},
    {"dpm_solver", SAMPLER},
    {"sampler_name", SAMPLER},
    {"sampling_method", SAMPLER},
    {"scheduler", SAMPLER},
    {"ddim_eta", "eta", "it is --eta X here, with --sampler ddim"},
    {"guidance_scale", SCALE},
    {"cfg_scale", SCALE},
    {"cfg", SCALE},
    {"guidance", SCALE},
    {"negative_prompt", NEGATIVE},
    {"neg_prompt", NEGATIVE},
    {"uncond", NEGATIVE},
    {"ckpt", MODEL},
    {"ckpt_path", MODEL},
    {"checkpoint", MODEL},
    {"model_id", MODEL},
    {"pretrained_model_name_or_path", MODEL},
    {"config", FIXED},
    {"C", FIXED},
    {"f", FIXED},
    {"outdir", OUTPUT},
    {"output_dir", OUTPUT},
    {"outpath", OUTPUT},
    {"save_path", OUTPUT},
    {"skip_grid", "output", "no grid is written here: each picture has a file of its own"},
    {"skip_save", "output", "no grid is written here: each picture has a file of its own"},
    {"n_rows", "output", "no grid is written here: each picture has a file of its own"},
    {"prompt", JSON},
    {"from_file", JSON},
    {"layout", JSON},
    {"layout_path", JSON},
    {"label", JSON},
    {"data_root", JSON},
    {"txt_file", JSON},
    {"dataset", JSON},
    {"fixed_code", "seed", "the noise comes from --seed N here, or from --noise FILE"},
    {"generator", "rng", "it is --rng cpu or cuda here, with --seed N"},
    {"init_img", NOISE},
    {"init_image", NOISE},
    {"image", NOISE},
    {"strength", NOISE},
    {"latents", NOISE},
    {"precision", CPU},
    {"dtype", CPU},
    {"device", CPU},
    {"gpu", CPU},
    {"cuda", CPU},
    {"fp16", CPU},
    {"half", CPU},
    {"num_workers", CPU},
    {"xformers", CPU},
    {"lowvram", CPU},
    {"medvram", CPU},
    {"tokenizer", "vocab", "it is --vocab FILE here"},
    {"lora", "model", "LoRA is not supported: merge it into the model first"},
    {"clip_skip", "model", "there is none here: the text encoder's last layer is used, as in the authors' code"},
    {NULL, NULL, NULL},
};
