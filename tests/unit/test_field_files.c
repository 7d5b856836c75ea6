/* test_field_files.c - what a wrong file is called, and vocabularies as people have them: tokenizer.json in both forms, with
 * what would make it another tokenizer, and extra token embeddings.
 */
#include "tests/unit/test.h"

#define COUNT(array) (sizeof(array) / sizeof *(array))

static char warned[4096];

static void keep_warning(void *unused, const char *sentence)
{
    (void)unused;
    snprintf(warned + strlen(warned), sizeof warned - strlen(warned), "%s\n", sentence);
}

static void begin(flis_ctx *ctx)
{
    flis_init(ctx);
    ctx->warn = keep_warning;
    warned[0] = 0;
}

static const char *write_bytes(const char *name, const void *bytes, size_t length)
{
    const char *path = test_scratch(name);
    FILE *f = fopen(path, "wb");
    CHECK(f && fwrite(bytes, 1, length, f) == length && fclose(f) == 0, "%s cannot be written", path);
    return path;
}

/* ---- By their bytes ------------------------------------------------------------------------------------------------ */

#define LFS "version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 4265146304\n"
#define BYTES(text) text, sizeof(text) - 1

void test_field_files_by_their_bytes(void)
{
    static const struct {
        const char *name, *bytes;
        size_t length;
        const char *says;
    } cases[] = {
        {"a.safetensors", BYTES(LFS), "is a Git LFS pointer"},
        {"a.ckpt", BYTES(LFS), "is a Git LFS pointer"},
        {"a.bin", BYTES("\r\n<!DOCTYPE html><html>"), "is an HTML page"},
        {"a.safetensors", BYTES("{\"error\":\"Invalid username\"}"),
         "is a JSON text: {\"error\":\"Invalid username\"}"},
        {"a.json", BYTES("{\"text_label_mapping\": {}}"), "is a layout"},
        {"a.safetensors", BYTES("GGUF\3\0\0\0abcdefgh"), "is a GGUF file"},
        {"a.onnx", BYTES("\x08\x07\x12\x07pytorch\x1a\x05"), "is an ONNX file"},
        {"a.yaml", BYTES("model:\n  target: ldm\n"), "is a YAML configuration"},
        {"a.png", BYTES("\x89PNG\r\n\x1a\n\0\0\0\rIHDR"), "is a PNG picture"},
        {"a.txt", BYTES("#version: 0.2\na b\n"), "is a vocabulary"},
        {"a.txt", BYTES("just some words\n"), "is a text file"},
        {"a.7z", BYTES("7z\xBC\xAF\x27\x1C\0\4abcdef"), "is a compressed archive"},
        {"a.safetensors", BYTES("PK\3\4abcdefghij"), "bin/ckpt2safetensors"},
        {"a.safetensors", BYTES("\x80\2}q\0.abcdef"), "bin/ckpt2safetensors"},
        {"a.safetensors", BYTES("\xff\0\0\0\0\0\0\0{\"a\":"), "cut short: got 13 bytes, wanted 263"},
        {"a.safetensors", BYTES(""), "got 0 bytes"},
        {"a.safetensors", BYTES("x"), "too short for a safetensors file: got 1 bytes"},
        {"a.safetensors", BYTES("{\"a\":1}"), "too short for a safetensors file: got 7 bytes"},
        {"a.ckpt", BYTES("PK"), "too short for a safetensors file: got 2 bytes"},
        {"a.ckpt", BYTES("PK\3\4abc"), "too short for a safetensors file: got 7 bytes"},
        {"a.pt", BYTES("\x80\2}q"), "too short for a safetensors file: got 4 bytes"},
        {"a.bin", BYTES("abcdefg"), "too short for a safetensors file: got 7 bytes"},
        {"a.bin", BYTES("abcdefgh"), "bin/ckpt2safetensors"},
        {"model_index.json", BYTES("{\"_class_name\": 1}"), "wanted the folder"},
        {"config.json", BYTES("{\"_class_name\": 1}"), "is a configuration"},
    };
    flis_ctx ctx;
    begin(&ctx);
    for (size_t i = 0; i < COUNT(cases); i++) {
        const char *path = write_bytes(cases[i].name, cases[i].bytes, cases[i].length);
        CHECK(!flis_model_open(&ctx, path) && strstr(ctx.error, cases[i].says), "%zu: \"%s\" lacks \"%s\"", i,
              ctx.error, cases[i].says);
        flis_clear_error(&ctx);
        CHECK(!flis_file_open_memory(&ctx, "memory", cases[i].length ? cases[i].bytes : "x", cases[i].length), "%zu",
              i);
        flis_clear_error(&ctx);
    }
    /* Safetensors under a checkpoint's name is what it is. */
    const char *path = write_bytes("b.ckpt", BYTES("\2\0\0\0\0\0\0\0{}"));
    flis_file *file = flis_model_open(&ctx, path);
    CHECK(file, "%s", ctx.error);
    flis_file_close(file);
    flis_free(&ctx);
}

/* ---- By their tensors ---------------------------------------------------------------------------------------------- */

void test_field_files_by_their_tensors(void)
{
    static const struct {
        const char *names, *is; /* names: one or two, by a blank */
        int width;
    } cases[] = {
        {"lora_unet_down_blocks_0_attn1_to_q.lora_down.weight", "a LoRA", 4},
        {"lora_te_text_model_encoder_layers_0_mlp_fc1.alpha", "a LoRA", 4},
        {"unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q.lora_A.weight", "a LoRA", 4},
        {"base_model.model.mid_block.attentions.0.proj_in.lora_B.default.weight", "a LoRA", 4},
        {"unet.mid_block.attentions.0.transformer_blocks.0.attn1.processor.to_q_lora.up.weight", "a LoRA", 4},
        {"text_encoder.text_model.encoder.layers.0.self_attn.q_proj.lora_linear_layer.up.weight", "a LoRA", 4},
        {"lora_unet_x.hada_w1_a", "a LoHa", 4},
        {"lora_unet_x.lokr_w1", "a LoKr", 4},
        {"lora_unet_x.lora_up.weight lora_unet_x.dora_scale", "a DoRA", 4},
        {"emb_params", "a textual-inversion embedding", 768},
        {"string_to_param", "a textual-inversion embedding", 768},
        {"<cat-toy>", "a textual-inversion embedding", 768},
        {"clip_l clip_g", "a textual-inversion embedding", 4},
        {"control_model.input_blocks.0.0.weight control_model.zero_convs.0.0.weight", "a ControlNet", 4},
        {"controlnet_cond_embedding.conv_in.weight down_blocks.0.resnets.0.conv1.weight", "a ControlNet", 4},
        {"adapter.body.0.resnets.0.block1.weight", "a T2I-Adapter", 4},
        {"image_proj.proj.weight ip_adapter.1.to_k_ip.weight", "an IP-Adapter", 4},
        {"768.0.linear.0.weight", "a hypernetwork", 4},
        {"model.0.weight model.1.sub.0.RDB1.conv1.0.weight", "an upscaler", 4},
        {"conv_first.weight", "an upscaler", 4},
        {"vision_model.embeddings.class_embedding", "CLIP's image encoder", 4},
        {"concept_embeds vision_model.vision_model.embeddings.class_embedding", "the safety checker", 4},
        {"model_ema.diffusion_modelout0weight first_stage_model.quant_conv.bias", "--ema", 4},
        {"input_blocks.0.0.weight output_blocks.0.0.weight", "a U-Net alone", 4},
        {"down_blocks.0.resnets.0.norm1.weight up_blocks.0.resnets.0.norm1.weight", "a U-Net alone", 4},
        {"model.diffusion_model.input_blocks.0.0.weight", "a U-Net alone", 4},
        {"decoder.mid.block_1.norm1.weight", "an autoencoder alone", 4},
        {"decoder.mid_block.resnets.0.norm1.weight", "an autoencoder alone", 4},
        {"text_model.embeddings.token_embedding.weight", "a text encoder alone", 4},
        {"embeddings.token_embedding.weight encoder.layers.0.mlp.fc1.weight", "a text encoder alone", 4},
        {"model.diffusion_model.out.2.bias first_stage_model.quant_conv.bias", "without a text encoder", 4},
        {"model.diffusion_model.out.2.bias cond_stage_model.transformer.text_model.final_layer_norm.bias",
         "without an autoencoder (--vae", 4},
        {"some.thing else", "no model that flis knows", 4},
    };
    flis_ctx ctx;
    begin(&ctx);
    flis_vocab *vocab = flis_vocab_read(&ctx, NULL);
    char word[] = "x";
    flis_phrase phrase = {word, -1};
    flis_layout layout = {.count = 1, .phrase = &phrase};
    flis_options options;
    flis_options_default(&options);
    for (size_t i = 0; i < COUNT(cases); i++) {
        const char *path = test_scratch("names.safetensors"), *blank = strchr(cases[i].names, ' ');
        const uint64_t shape[1] = {(uint64_t)cases[i].width};
        const size_t first = blank ? (size_t)(blank - cases[i].names) : strlen(cases[i].names);
        char name[2][200] = {"", ""};
        flis_real zeros[768] = {0};
        flis_picture picture;
        memcpy(name[0], cases[i].names, first);
        if (blank) strcpy(name[1], blank + 1);
        flis_writer *out = flis_write_begin(&ctx, path);
        for (int k = 0; k < 1 + (blank != NULL); k++) flis_write_declare(&ctx, out, name[k], FLIS_F32, 1, shape);
        for (int k = 0; k < 1 + (blank != NULL); k++) flis_write_real(&ctx, out, zeros, (size_t)cases[i].width);
        CHECK(flis_write_end(&ctx, out), "%s", ctx.error);
        CHECK(!flis_generate(&ctx, path, vocab, &layout, &options, &picture) && strstr(ctx.error, cases[i].is),
              "%s: \"%s\"", cases[i].names, ctx.error);
        flis_clear_error(&ctx);
        flis_file *file = flis_model_open(&ctx, path);
        CHECK(file && flis_model_lacks(file) && strstr(flis_model_lacks(file), cases[i].is), "%s: %s", cases[i].names,
              ctx.error);
        /* A ControlNet has no up_blocks: it is not taken for a U-Net whose names are diffusers'. */
        if (file && strcmp(cases[i].is, "a ControlNet") == 0)
            CHECK(!strstr(cases[i].names, "down_blocks") ||
                      flis_file_find(file, "down_blocks.0.resnets.0.conv1.weight"),
                  "%s: renamed", cases[i].names);
        flis_clear_error(&ctx);
        flis_file_close(file);
    }
    flis_vocab_free(vocab);
    flis_free(&ctx);
}

/* ---- tokenizer.json ------------------------------------------------------------------------------------------------ */

enum { TOKENS = 512 + 3 + 2, ADDED_TOKEN = 6 }; /* which of the good ones below has a token more */
#define PATTERN "'s|'t|'re|'ve|'m|'ll|'d|[\\\\p{L}]+|[\\\\p{N}]|[^\\\\s\\\\p{L}\\\\p{N}]+"
#define NORMALIZER \
    "\"normalizer\": {\"type\": \"Sequence\", \"normalizers\": [{\"type\": \"NFC\"}, {\"type\": \"Replace\", " \
    "\"pattern\": " \
    "{\"Regex\": \"\\\\s+\"}, \"content\": \" \"}, {\"type\": \"Lowercase\"}]}"
#define SPLIT(pattern) \
    "\"pre_tokenizer\": {\"type\": \"Sequence\", \"pretokenizers\": [{\"type\": \"Split\", \"pattern\": {\"Regex\": " \
    "\"" pattern "\"}}, {\"type\": \"ByteLevel\"}]}"
#define ADDED(eos) \
    "\"added_tokens\": [{\"id\": 515, \"content\": \"<|startoftext|>\"}, {\"id\": " eos \
    ", \"content\": \"<|endoftext|>\"}]"
#define MODEL(more) "\"model\": {\"type\": \"BPE\", \"merges\": [\"c a\", \"ca t</w>\", \"d o\"]" more "}"
#define WHOLE ADDED("516") ", " NORMALIZER ", " SPLIT(PATTERN) ", "

/* The same tokens as from the merges' own file. */
static void same_tokens(const char *what, const char *bytes, size_t length)
{
    static const char text[] = "A cat, a dog: cats do. 12!";
    flis_ctx ctx;
    int32_t *a = NULL, *b = NULL;
    begin(&ctx);
    flis_vocab *want = flis_vocab_parse(&ctx, "merges", BYTES("#version: 0.2\nc a\nca t</w>\nd o\n"));
    flis_vocab *got = flis_vocab_parse(&ctx, what, bytes, length);
    const long n = want ? flis_tokenize(&ctx, want, BYTES(text), &a) : -1,
               m = got ? flis_tokenize(&ctx, got, BYTES(text), &b) : -2;
    CHECK(n == m && flis_vocab_size(got) == TOKENS && memcmp(a, b, (size_t)n * sizeof *a) == 0, "%s: %s", what,
          ctx.error);
    free(a);
    free(b);
    flis_vocab_free(want);
    flis_vocab_free(got);
    flis_free(&ctx);
}

void test_field_files_vocabularies(void)
{
    static const struct {
        const char *bytes;
        size_t length;
    } good[] = {
        {BYTES("{" WHOLE MODEL("") "}")},
        {BYTES("\xEF\xBB\xBF{" WHOLE MODEL("") "}")},
        {BYTES("{\"model\": {\"type\": \"BPE\", \"vocab\": {}, \"merges\": [\"c a\", \"ca t</w>\", \"d o\"]}}")},
        {BYTES("{\"model\": {\"merges\": [[\"c\", \"a\"], [\"ca\", \"t</w>\"], [\"d\", \"o\"]]}}")},
        {BYTES("{\"normalizer\": null, \"pre_tokenizer\": null, " MODEL(
            ", \"dropout\": null, \"end_of_word_suffix\": \"</w>\", "
            "\"continuing_subword_prefix\": \"\", \"byte_fallback\": false") "}")},
        {BYTES("{" SPLIT("<\\\\|startoftext\\\\|>|<\\\\|endoftext\\\\|>|" PATTERN) ", " MODEL("") "}")},
        {BYTES("{\"added_tokens\": [{\"id\": 517, \"content\": \"<toy>\"}], " MODEL("") "}")},
        {BYTES("#version: 0.2\r\nc a\r\nca t</w>\r\nd o\r\n")},
        {BYTES("\xEF\xBB\xBF#version: 0.2\nc a\nca t</w>\nd o\n")},
        {BYTES("\xEF\xBB\xBF"
               "c a\nca t</w>\nd o")},
        {BYTES("c a\nca t</w>\nd o\n")},
    };
    static const struct {
        const char *text, *says;
    } bad[] = {
        {"{\"model\": {\"type\": \"Unigram\", \"vocab\": []}}", "Unigram"},
        {"{\"model\": {\"type\": \"WordPiece\", \"vocab\": {}}}", "WordPiece"},
        {"{" MODEL(", \"end_of_word_suffix\": null") "}", "end_of_word_suffix"},
        {"{" MODEL(", \"end_of_word_suffix\": \"\"") "}", "end_of_word_suffix"},
        {"{" MODEL(", \"continuing_subword_prefix\": \"##\"") "}", "continuing_subword_prefix"},
        {"{" MODEL(", \"dropout\": 0.1") "}", "dropout"},
        {"{" MODEL(", \"byte_fallback\": true") "}", "byte_fallback"},
        {"{" MODEL(", \"ignore_merges\": true") "}", "ignore_merges"},
        {"{\"normalizer\": {\"type\": \"NFKC\"}, " MODEL("") "}", "NFKC"},
        {"{\"normalizer\": {\"type\": \"NFC\"}, " MODEL("") "}", "lower"},
        {"{\"pre_tokenizer\": {\"type\": \"Metaspace\"}, " MODEL("") "}", "Metaspace"},
        {"{\"pre_tokenizer\": {\"type\": \"ByteLevel\"}, " MODEL("") "}", "GPT-2"},
        {"{" SPLIT("\\\\w+") ", " MODEL("") "}", "pattern"},
        {"{" ADDED("0") ", " MODEL("") "}", "<|endoftext|>"},
        {"{\"added_tokens\": [{\"id\": 0, \"content\": \"!\"}], " MODEL("") "}", "Stable Diffusion 2"},
        {"{" MODEL(", \"vocab\": {\"!\": 0}") "}", "1 of the 515"},
        {"{" MODEL(", \"vocab\": {\"ca\": 513}") "}", "\"ca\": got id 513, wanted 512"},
        {"{" MODEL(", \"vocab\": {\"zebra\": 5}") "}", "\"zebra\": got id 5"},
        {"{\"model\": {\"merges\": []}}", "got none"},
        {"{\"model\": {\"merges\": [\"c a\", 7]}}", "got 7"},
        {"{\"model\": {\"merges\": [[\"c\", \"a b\"]]}}", "model.merges"},
        {"{\"model\": {\"merges\": [\"x\\ny z\"]}}", "model.merges"},
        {"{\"!\": 0, \"a\": 1}", "merges.txt"},
        {"{\"tokenizer_class\": \"CLIPTokenizer\"}", "configuration"},
        {"{\"text_label_mapping\": {}}", "is a layout"},
        {"[1, 2]", "JSON"},
        {"#version: 0.2\n\xC4\xA0 t\n", "GPT-2"},
        {LFS, "Git LFS"},
        {"<html>", "HTML"},
        {"\x89PNG\r\n", "PNG"},
        {"PK\3\4abcdefgh", "zip"},
        {"\xFF\xFE#", "UTF-16"},
        {"", "is empty"},
    };
    flis_ctx ctx;
    char name[32];
    for (size_t i = 0; i < COUNT(good); i++) {
        sprintf(name, "vocabulary %zu", i);
        same_tokens(name, good[i].bytes, good[i].length);
        CHECK((i == ADDED_TOKEN) == (strstr(warned, "<toy>") != NULL), "%s: warned of \"%s\"", name, warned);
    }
    begin(&ctx);
    for (size_t i = 0; i < COUNT(bad); i++) {
        const char *path = write_bytes("a.json", bad[i].text, strlen(bad[i].text));
        flis_vocab *vocab = flis_vocab_read(&ctx, path);
        CHECK(!vocab && strstr(ctx.error, bad[i].says), "%s: \"%s\" lacks \"%s\"", bad[i].text, ctx.error, bad[i].says);
        flis_clear_error(&ctx);
        flis_vocab_free(vocab);
    }
    /* Every id, and one swapped. */
    static char json[1 << 16];
    for (int swapped = 0; swapped < 2; swapped++) {
        size_t n = (size_t)sprintf(json, "{\"model\": {\"merges\": [\"c a\", \"ca t</w>\", \"d o\"], \"vocab\": {");
        for (int i = 0; i < 512; i++) {
            static const int first[] = {33, 161, 174, 0, 127, 173}, last[] = {127, 173, 256, 33, 161, 174};
            int k = 0, at = i % 256, code;
            while (at >= last[k] - first[k]) at -= last[k] - first[k], k++;
            code = k < 3 ? first[k] + at : 256 + i % 256 - 188;
            n += (size_t)sprintf(json + n, "\"\\u%04x%s\": %d, ", code, i < 256 ? "" : "</w>", i);
        }
        sprintf(json + n,
                "\"ca\": %d, \"cat</w>\": %d, \"do\": 514, \"<|startoftext|>\": 515, \"<|endoftext|>\": 516}}}",
                512 + swapped, 513 - swapped);
        if (!swapped) same_tokens("a whole vocab", json, strlen(json));
        else {
            flis_vocab *vocab = flis_vocab_parse(&ctx, "swapped", json, strlen(json));
            CHECK(!vocab && strstr(ctx.error, "wanted 512"), "%s", ctx.error);
            flis_vocab_free(vocab);
        }
        /* The same object beside merges.txt. */
        char folder[1000];
        snprintf(folder, sizeof folder, "mkdir -p '%s'", test_scratch("whole"));
        CHECK(system(folder) == 0, "%s", folder);
        flis_clear_error(&ctx);
        write_bytes("whole/merges.txt", BYTES("c a\nca t</w>\nd o\n"));
        const char *ids = strstr(json, "\"vocab\": ") + 9;
        write_bytes("whole/vocab.json", ids, strlen(ids) - 2);
        flis_vocab *vocab = flis_vocab_read(&ctx, test_scratch("whole/merges.txt"));
        CHECK((vocab == NULL) == (swapped == 1) &&
                  (!swapped || strstr(ctx.error, "vocab.json: \"ca\": got id 513, wanted 512")),
              "%s", ctx.error);
        flis_vocab_free(vocab);
        flis_clear_error(&ctx);
    }
    flis_free(&ctx);
}

/* ---- vocab.json beside merges.txt ------------------------------------------------------------------------------------ */

void test_field_files_vocab_json(void)
{
    static const struct {
        const char *json, *says; /* says NULL: taken */
    } cases[] = {
        {NULL, NULL},
        {"{}", NULL},
        {"\xEF\xBB\xBF{}", NULL},
        {"{\"ca\": 512", "vocab.json:1:11: "},
        {"{\"ca\": 512}", "vocab.json: got 1 of the 515 tokens that the merges make"},
        {"{\"ca\": 513, \"cat</w>\": 512}", "vocab.json: \"ca\": got id 513, wanted 512, which the merges give"},
        {"{\"<|endoftext|>\": 515}", "vocab.json: \"<|endoftext|>\": got id 515, wanted 516"},
        {"{\"zebra\": 5}", "vocab.json: \"zebra\": got id 5, wanted 517 or more"},
        {"{\"ca\": \"512\"}", "vocab.json: \"ca\": got a string, wanted an id"},
        {"[1]", "vocab.json: got an array, wanted an object of tokens and ids"},
        {"7", "vocab.json: got 7"},
        {"<html>", "vocab.json: is an HTML page"},
        {LFS, "vocab.json: is a Git LFS pointer"},
        {"", "vocab.json: is an empty file"},
    };
    char folder[1000], path[1100];
    flis_ctx ctx;
    begin(&ctx);
    snprintf(folder, sizeof folder, "%s", test_scratch("tokenizer"));
    snprintf(path, sizeof path, "mkdir -p '%s/tokenizer'", folder);
    CHECK(system(path) == 0, "%s", path);
    write_bytes("tokenizer/tokenizer/merges.txt", BYTES("#version: 0.2\nc a\nca t</w>\nd o\n"));
    write_bytes("tokenizer/tokenizer/others.txt", BYTES("c a\nca t</w>\nd o\n"));
    for (size_t i = 0; i < COUNT(cases); i++)
        for (int form = 0; form < 3;
             form++) { /* the file, its folder, and a file of another name, which has no vocab.json */
            static const char *const forms[] = {"/tokenizer/merges.txt", "", "/tokenizer/others.txt"};
            if (cases[i].json) write_bytes("tokenizer/tokenizer/vocab.json", cases[i].json, strlen(cases[i].json));
            snprintf(path, sizeof path, "%s%s", folder, forms[form]);
            flis_vocab *vocab = flis_vocab_read(&ctx, path);
            const bool taken = !cases[i].says || form == 2;
            CHECK(!vocab == !taken && (taken || strstr(ctx.error, cases[i].says)), "%zu, %s: \"%s\"", i, forms[form],
                  ctx.error);
            CHECK(!vocab || flis_vocab_size(vocab) == TOKENS, "%zu tokens", flis_vocab_size(vocab));
            flis_clear_error(&ctx);
            flis_vocab_free(vocab);
        }
    CHECK(!*warned, "%s", warned);
    flis_free(&ctx);
}

/* ---- Extra token embeddings ---------------------------------------------------------------------------------------- */

void test_field_files_extra_tokens(void)
{
    static const struct {
        size_t rows;
        bool good;
        const char *says;
    } cases[] = {{514, true, NULL},
                 {517, true, "the last 3"},
                 {579, false, "vocabulary"},
                 {513, false, "vocabulary"},
                 {49408, false, "vocabulary"}};
    flis_ctx ctx;
    uint64_t plain = 0;
    char word[] = "x";
    flis_phrase phrase = {word, -1};
    flis_layout layout = {.count = 1, .phrase = &phrase};
    flis_options options;
    flis_options_default(&options);
    options.width = options.height = 64;
    options.sampling = (flis_sampling){FLIS_DDIM, 1, 0, 1};
    for (size_t i = 0; i < COUNT(cases); i++) {
        flis_picture picture = {0};
        begin(&ctx);
        flis_vocab *vocab = flis_vocab_read(&ctx, NULL);
        const char *path = test_scratch("rows.safetensors");
        test_write_tiny_model(&ctx, path, cases[i].rows);
        const bool good = flis_generate(&ctx, path, vocab, &layout, &options, &picture);
        CHECK(good == cases[i].good, "%zu rows: %s", cases[i].rows, ctx.error);
        CHECK(cases[i].says ? strstr(good ? warned : ctx.error, cases[i].says) != NULL : !*warned, "%zu rows: \"%s\"",
              cases[i].rows, good ? warned : ctx.error);
        if (picture.pixels && i)
            CHECK(test_hash(picture.pixels, 64 * 64 * 3) == plain, "extra rows change the picture");
        else if (picture.pixels) plain = test_hash(picture.pixels, 64 * 64 * 3);
        flis_picture_free(&picture);
        flis_vocab_free(vocab);
        flis_free(&ctx);
    }
}
