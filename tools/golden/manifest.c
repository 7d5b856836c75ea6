/* manifest.c - writes manifest.json and the two files of tensors. */
#include "tools/golden/golden.h"

#include <stdlib.h>

static const char *const ITEMS[] = {
    "Mask column of phrase token k is k+1; BOS, EOS, padding and class -1 stay open; an absent class closes its column",
    "Closed scores are -max(float) before softmax, in every cross-attention, never in self-attention",
    "The unconditional pass has no RCA and is a separate call; guidance is uncond + scale (cond - uncond)",
    "Label map: PIL's NEAREST to the picture's size, then torch's nearest to each scale: two rules",
    "Tokens are counted per space-separated word; the prompt is tokenised whole; more than 75 tokens are refused",
    "Latents need not be square",
    "GroupNorm eps: 1e-5 in the U-Net's ResBlocks and out, 1e-6 in SpatialTransformer and autoencoder; LayerNorm 1e-5",
    "GEGLU is exact erf GELU on the second half; CLIP's activation is x sigmoid(1.702 x)",
    "CLIP: causal mask, final LayerNorm, last layer; padding is EOS; q scaled after its bias",
    "Time embedding [cos, sin], frequencies exp(-ln(10000) i/half)",
    "Betas linear in sqrt; DDIM timesteps range(0,1000,1000//S)+1; step counts that read t=1000 are refused",
    "alphas_prev[0] = alphas_cumprod[0]",
    "PLMS: the first step evaluates twice; history holds the guided eps",
    "Noise is drawn every step even where sigma is 0",
    "torch.randn: mt19937 with its scalar and 16-wide paths on the CPU, Philox on CUDA",
    "Attention scale d_head^-0.5; the autoencoder's single head c^-0.5",
    "Downsample pads (0,1,0,1) in the autoencoder's encoder, 1 on every side in the U-Net; upsample is nearest",
    "Decode multiplies by float32(1/0.18215); bytes are 255 clamp((x+1)/2), truncated",
    "Skip connections concatenate [h, skip]",
    "The authors' default is fp16 autocast: float32 is the reference here",
};
enum { ITEM_COUNT = sizeof ITEMS / sizeof *ITEMS };

static void put_vocabulary(golden *g, buffer *t)
{
    buffer_put(&g->all, t, "  \"vocabulary\": {\"size\": 1000, \"bos\": 998, \"eos\": 999,\n   \"rule\": ");
    buffer_json_string(
        &g->all, t,
        "CLIP's 512 byte tokens, then 486 merges: these, then pairs of capitals A A, A B, ... A Z, B A, ...");
    buffer_put(&g->all, t, ",\n   \"merges\": ");
    buffer_json_string(&g->all, t, VOCABULARY_WORDS);
    buffer_put(&g->all, t, "},\n");
}

static void put_rule(golden *g, buffer *t, const char *before, const char *name, const char *rule)
{
    buffer_put(&g->all, t, "%s\n   \"%s\": ", before, name);
    buffer_json_string(&g->all, t, rule);
}

static void put_rules(golden *g, buffer *t)
{
    buffer_put(&g->all, t, "  \"rules\": {");
    put_rule(
        g, t, "", "u",
        "value i (flat index, in the shape's order) of the tensor's name: h = FNV-1a-64 of the name, z = splitmix64's "
        "finaliser of "
        "h + (i + 1) 0x9E3779B97F4A7C15 (shifts 30, 27, 31; multipliers 0xBF58476D1CE4E5B9, 0x94D049BB133111EB), "
        "u = ((z >> 40) - 2^23) 2^-23");
    put_rule(g, t, ",", "formula weights",
             "two or more dimensions (fan_in = product of shape[1:]): u 2^round(log2(sqrt(3 / fan_in))); one "
             "dimension: 1 + u 2^-4 where "
             "the name ends in weight, else u 2^-6");
    put_rule(g, t, ",", "tinyA",
             "formula weights under the checkpoint's names, in the shapes of tools/synth tinyA: U-Net 32 channels, "
             "levels 1, 2, 2, one "
             "ResBlock a level, attention at each, 2 heads, text width 32; CLIP 1000 tokens, width 32, 2 layers, 2 "
             "heads, MLP 128; autoencoder 32 "
             "channels, levels 1, 1, 1, 1, one resnet a level");
    put_rule(g, t, ",", "tolerance",
             "largest absolute error; `units` tells it in 2^-24 of the output's largest value, and is at least 8 "
             "times what flis' float32 is off from flis64's double. exact: equal values. relative: largest "
             "relative error. share: how many of the values may be off at all. A NaN is never right");
    buffer_put(&g->all, t, "},\n");
}

/* SPEC 11.3. */
void write_manifest(golden *g, const char *path)
{
    buffer head = {0};
    buffer_put(&g->all, &head,
               "{\"format\": \"flis conformance\", \"version\": 1,\n  \"inputs\": \"inputs.safetensors\", "
               "\"outputs\": \"outputs.safetensors\",\n");
    put_rules(g, &head);
    put_vocabulary(g, &head);
    buffer_put(&g->all, &head, "  \"items\": [");
    for (int i = 0; i < ITEM_COUNT; i++) {
        buffer_put(&g->all, &head, i ? ",\n   " : "\n   ");
        buffer_json_string(&g->all, &head, ITEMS[i]);
    }
    buffer_put(&g->all, &head, "],\n  \"vectors\": [");
    buffer_put(&g->all, &g->manifest, "]\n}\n");
    flis_output file;
    if (flis_output_open(&g->all, path, &file)) {
        fwrite(head.at, 1, head.length, file.stream);
        fwrite(g->manifest.at, 1, g->manifest.length, file.stream);
        flis_output_close(&g->all, &file);
    }
    free(head.at);
}

void write_list(golden *g, const list *l, const char *path)
{
    flis_writer *writer = flis_ok(&g->all) ? flis_write_begin(&g->all, path) : NULL;
    if (!writer) return;
    flis_write_metadata(&g->all, writer, "generator",
                        sizeof(flis_real) == 8 ? "flis64 " FLIS_VERSION : "flis " FLIS_VERSION);
    for (size_t i = 0; i < l->count; i++)
        flis_write_declare(&g->all, writer, l->item[i].name, l->item[i].dtype, l->item[i].rank, l->item[i].shape);
    for (size_t i = 0; i < l->count; i++) {
        const tensor *x = &l->item[i];
        if (x->dtype == FLIS_I64) flis_write_i64(&g->all, writer, x->whole, x->count);
        else if (x->dtype == FLIS_U8) {
            uint8_t *bytes = flis_alloc(&g->all, x->count + 1, 1);
            for (size_t k = 0; bytes && k < x->count; k++) bytes[k] = (uint8_t)x->whole[k];
            if (bytes) flis_write_u8(&g->all, writer, bytes, x->count);
            free(bytes);
        } else flis_write_f64(&g->all, writer, x->number, x->count);
    }
    flis_write_end(&g->all, writer);
}
