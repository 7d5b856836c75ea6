/* fuzz.c - all readers of untrusted input behind one entry point, for libFuzzer and for replaying corpora.
 *
 *   make fuzz [RUNS=N] [TARGETS="png json"]     clang's fuzzer with address and undefined sanitizers
 *   replay TARGET FILE...                       built with -DREPLAY: `make test` runs it over tests/fuzz/corpus
 *
 * The target is named by FLIS_FUZZ in the environment, or by replay's first argument. Readers that take a path get a
 * file in memory (/dev/shm) where there is one. A reader may refuse its input with an error message. It must not crash,
 * leak, hang, fail without a message, or leave a file behind.
 */
#define _POSIX_C_SOURCE 200112L
#include "tools/ckpt2safetensors/ckpt.h"
#include "tools/common/common.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#ifndef FUZZ_VOCAB
#define FUZZ_VOCAB "models/vocab.txt"
#endif

static const char *scratch(const char *name)
{
    static char path[2][128];
    static int turn;
    char *out = path[turn ^= 1];
    snprintf(out, sizeof path[0], "%s/flis-fuzz-%ld-%s", access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp",
             (long)getpid(), name);
    return out;
}

static const char *const LEFT[] = {"in.safetensors", "in.ckpt", "in.png", "in.json", "in.txt"};

/* A folder for models of several files, made once. */
static const char *const FOLDERS[] = {"", "unet", "vae", "text_encoder", "scheduler", "tokenizer"};
static const char *const IN_FOLDERS[] = {"unet/config.json",
                                         "vae/config.json",
                                         "text_encoder/config.json",
                                         "scheduler/scheduler_config.json",
                                         "tokenizer/tokenizer_config.json",
                                         "model_index.json",
                                         "m.safetensors.index.json",
                                         "unet/diffusion_pytorch_model.safetensors",
                                         "vae/diffusion_pytorch_model.safetensors",
                                         "text_encoder/model.safetensors",
                                         "a.safetensors",
                                         "b.safetensors"};
enum { FUZZED = 7 }; /* the first of them are inputs; the others are weights */

static const char *in_model(const char *name)
{
    static char path[256];
    snprintf(path, sizeof path, "%s/%s", scratch("model"), name);
    return path;
}

static void clear_away(void)
{
    for (size_t i = 0; i < sizeof IN_FOLDERS / sizeof *IN_FOLDERS; i++) remove(in_model(IN_FOLDERS[i]));
    for (size_t i = sizeof FOLDERS / sizeof *FOLDERS; i-- > 0;) remove(in_model(FOLDERS[i]));
    for (size_t i = 0; i < sizeof LEFT / sizeof *LEFT; i++) remove(scratch(LEFT[i]));
}

static const char *in_file(const char *name, const uint8_t *data, size_t size)
{
    const char *path = scratch(name);
    FILE *f = fopen(path, "wb");
    if (!f || fwrite(data, 1, size, f) != size || fclose(f) != 0) abort();
    return path;
}

/* A failure must have an error message, and a success must have none. */
static void judge(flis_ctx *ctx, bool accepted)
{
    if (accepted != flis_ok(ctx)) abort();
}

static void fuzz_safetensors(flis_ctx *ctx, const uint8_t *data, size_t size)
{
    flis_file *file = flis_file_open(ctx, in_file("in.safetensors", data, size));
    judge(ctx, file != NULL);
    for (size_t i = 0; file && i < file->count; i++) {
        uint64_t count = flis_entry_count(&file->entry[i]);
        double *x = count <= 65536 ? malloc((size_t)count * sizeof *x + 1) : NULL;
        if (x) flis_file_read_f64(ctx, file, &file->entry[i], x);
        free(x);
    }
    flis_file_close(file);
}

static void fuzz_pickle(flis_ctx *ctx, const uint8_t *data, size_t size)
{
    static const char *const without[] = {"*a*"};
    conversion o = {.quiet = true, .in = in_file("in.ckpt", data, size), .without = without};
    o.all = size % 5 > 0; /* each option for a part of the inputs */
    o.ema = size % 5 == 1;
    o.key = size % 5 == 2 ? "." : size % 5 == 3 ? "a" : NULL;
    o.withouts = size % 5 == 4;
    o.out = scratch("out.safetensors");
    convert_checkpoint(ctx, &o);
    if (flis_ok(ctx)) remove(o.out);
    else if (access(o.out, F_OK) == 0) abort();
}

static void fuzz_label(flis_ctx *ctx, const uint8_t *data, size_t size)
{
    flis_picture picture = {0};
    judge(ctx, flis_read_label(ctx, in_file("in.png", data, size), &picture));
    free(picture.pixels);
    ctx->error[0] = 0;
    judge(ctx, flis_read_label_colors(ctx, "fuzz", data, size, &picture));
    free(picture.pixels);
}

/* ISO/IEC 15948 annex D. */
static uint32_t crc_of(const uint8_t *data, size_t size)
{
    static uint32_t table[256];
    uint32_t crc = 0xffffffffu;
    for (uint32_t i = 0; !table[255] && i < 256; i++) {
        uint32_t c = i;
        for (int bit = 0; bit < 8; bit++) c = c >> 1 ^ (0xedb88320u & (0u - (c & 1)));
        table[i] = c;
    }
    for (size_t i = 0; i < size; i++) crc = crc >> 8 ^ table[(crc ^ data[i]) & 255];
    return ~crc;
}

/* A mutated chunk fails its CRC and is refused before its content is read. Therefore every picture is read a second time, with
   correct CRCs. */
static void fuzz_png(flis_ctx *ctx, const uint8_t *data, size_t size)
{
    fuzz_label(ctx, data, size);
    uint8_t *mended = malloc(size + 1);
    if (!mended) abort();
    memcpy(mended, data, size);
    for (size_t at = 8; at + 12 <= size;) {
        size_t length = (size_t)data[at] << 24 | (size_t)data[at + 1] << 16 | (size_t)data[at + 2] << 8 | data[at + 3];
        if (length > size - at - 12) break;
        uint32_t crc = crc_of(data + at + 4, length + 4);
        for (int i = 0; i < 4; i++) mended[at + 8 + length + (size_t)i] = (uint8_t)(crc >> (24 - 8 * i));
        at += length + 12;
    }
    if (memcmp(mended, data, size) != 0) {
        ctx->error[0] = 0;
        fuzz_label(ctx, mended, size);
    }
    free(mended);
}

/* What can be read can be written. Frames of many pixels are left out: a second for each would stop the fuzzer. */
static void fuzz_jpeg(flis_ctx *ctx, const uint8_t *data, size_t size)
{
    flis_picture picture = {0};
    size_t length = 0;
    for (size_t i = 0; i + 9 <= size; i++)
        if (data[i] == 0xFF && data[i + 1] >= 0xC0 && data[i + 1] <= 0xC2 &&
            ((size_t)data[i + 5] << 8 | data[i + 6]) * ((size_t)data[i + 7] << 8 | data[i + 8]) > 1 << 14)
            return;
    const bool good = read_jpeg_memory(ctx, "fuzz", data, size, &picture);
    judge(ctx, good);
    if (good != (picture.pixels != NULL)) abort();
    if (good && picture.width * picture.height < 4096) free(jpeg_bytes(ctx, &picture, 1 + (int)(size % 100), &length));
    judge(ctx, good);
    free(picture.pixels);
}

/* The values of an array, and of each array of an archive. */
static void fuzz_array(const npy_array *a)
{
    double sum = 0;
    for (size_t i = 0; i < a->count && i < 4096; i++)
        sum += a->kind == 'f' ? npy_number(a, i) : npy_number(a, i) + (double)npy_integer(a, i);
    if (a->count) sum += npy_number(a, a->count - 1);
    if (sum == 1e300) abort(); /* the sum is used */
}

static void fuzz_npy(flis_ctx *ctx, const uint8_t *data, size_t size)
{
    npy_array a;
    npz z;
    const bool good = npy_parse(ctx, "fuzz", data, size, &a);
    judge(ctx, good);
    if (good) fuzz_array(&a);
    npy_free(&a);
    ctx->error[0] = 0;
    uint8_t *copy = malloc(size + 1);
    if (!copy) abort();
    memcpy(copy, data, size);
    const bool archive = npz_parse(ctx, "fuzz", copy, size, &z);
    judge(ctx, archive);
    for (size_t i = 0; archive && i < z.count && i < 16; i++) {
        ctx->error[0] = 0;
        if (z.entry[i].size > 1 << 20) continue;
        const bool inside = npz_array(ctx, &z, (int)i, &a);
        judge(ctx, inside);
        if (inside) fuzz_array(&a);
        npy_free(&a);
    }
    ctx->error[0] = 0;
    npz_close(&z);
}

static void fuzz_inflate(flis_ctx *ctx, const uint8_t *data, size_t size)
{
    size_t length = 0;
    if (!size) return;
    uint8_t *out = flis_inflate(ctx, "fuzz", (flis_stream_kind)(data[0] % 3), data + 1, size - 1, 1 << 20, &length);
    judge(ctx, out != NULL);
    free(out);
}

static void fuzz_json(flis_ctx *ctx, const uint8_t *data, size_t size)
{
    char *text = malloc(size + 1);
    memcpy(text, data, size);
    text[size] = 0;
    flis_json *json = flis_json_parse(ctx, "fuzz", text, size);
    judge(ctx, json != NULL);
    flis_json_free(json);
    free(text);
}

static void fuzz_layout(flis_ctx *ctx, const uint8_t *data, size_t size)
{
    uint8_t pixels[12] = {139, 0, 0, 0, 128, 0, 7, 7, 7, 0, 0, 1};
    const flis_picture map = {2, 2, 3, pixels};
    flis_layout layout = {0};
    judge(ctx, flis_layout_read(ctx, in_file("in.json", data, size), &layout));
    flis_layout_free(&layout);
    ctx->error[0] = 0; /* without files: this reaches the table of colours */
    judge(ctx, flis_layout_parse(ctx, "fuzz", (const char *)data, size, &map, &layout));
    flis_layout_free(&layout);
}

/* A table of labels, named by a layout. The layout names itself as its map, which comes after the table. */
static void fuzz_labelmap(flis_ctx *ctx, const uint8_t *data, size_t size)
{
    char json[512];
    flis_layout layout = {0};
    const char *table = strrchr(in_file("in.txt", data, size), '/') + 1, *own = strrchr(scratch("in.json"), '/') + 1;
    snprintf(json, sizeof json, "{\"text_label_mapping\": {\"sea\": 1}, \"layout_path\": \"%s\", \"labelmap\": \"%s\"}",
             own, table);
    judge(ctx, flis_layout_read(ctx, in_file("in.json", (const uint8_t *)json, strlen(json)), &layout));
    flis_layout_free(&layout);
}

static void fuzz_vocab(flis_ctx *ctx, const uint8_t *data, size_t size)
{
    int32_t *ids = NULL;
    flis_vocab *vocab = flis_vocab_read(ctx, in_file("in.txt", data, size));
    judge(ctx, vocab != NULL);
    if (vocab && flis_tokenize(ctx, vocab, "a red house, the sea's sky", 26, &ids) < 0) abort();
    free(ids);
    flis_vocab_free(vocab);
}

static flis_vocab *vocab_kept; /* reading it takes ten times as long as tokenizing most texts */

static void vocab_away(void)
{
    flis_vocab_free(vocab_kept);
}

static void fuzz_tokens(flis_ctx *ctx, const uint8_t *data, size_t size)
{
    int32_t *ids = NULL;
    if (!vocab_kept) {
        if (!(vocab_kept = flis_vocab_read(ctx, FUZZ_VOCAB))) {
            fprintf(stderr, "fuzz: %s\n", ctx->error); /* otherwise every text is refused, and nothing is tested */
            abort();
        }
        atexit(vocab_away);
    }
    judge(ctx, flis_tokenize(ctx, vocab_kept, (const char *)data, size, &ids) >= 0);
    free(ids);
}

/* The weights of the folder, tensors of zeros: those by which configurations are judged, two levels of U-Net and of
   autoencoder, one layer of text encoder. In the order of the files; NULL ends a file. */
static const struct {
    const char *name;
    uint64_t first, second;
} WEIGHTS[] = {
    {"conv_in.weight", 32, 4},
    {"conv_out.weight", 4, 32},
    {"time_embedding.linear_1.weight", 128, 32},
    {"down_blocks.0.resnets.0.conv1.weight", 32, 32},
    {"down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.weight", 32, 16},
    {"down_blocks.0.downsamplers.0.conv.weight", 32, 32},
    {"down_blocks.1.resnets.0.conv1.weight", 64, 32},
    {"mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight", 64, 16},
    {"up_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k.weight", 32, 16},
    {NULL, 0, 0},
    {"post_quant_conv.weight", 4, 4},
    {"encoder.conv_in.weight", 32, 3},
    {"decoder.conv_out.weight", 3, 32},
    {"decoder.up_blocks.0.resnets.0.norm2.weight", 64, 1},
    {"decoder.up_blocks.1.resnets.0.norm2.weight", 32, 1},
    {"decoder.up_blocks.1.resnets.1.norm2.weight", 32, 1},
    {NULL, 0, 0},
    {"text_model.embeddings.token_embedding.weight", 50, 16},
    {"text_model.embeddings.position_embedding.weight", 77, 16},
    {"text_model.encoder.layers.0.mlp.fc1.weight", 64, 16},
    {NULL, 0, 0},
    {"a", 2, 3},
    {NULL, 0, 0},
    {"b", 2, 3},
    {NULL, 0, 0},
};

/* Writes the tensors from WEIGHTS[i] on; returns where the next file's begin. */
static size_t write_weights(const char *path, size_t i)
{
    flis_ctx ctx;
    const size_t first = i;
    static const unsigned char zeros[128 * 32 * sizeof(float)];
    flis_init(&ctx);
    flis_writer *writer = flis_write_begin(&ctx, path);
    for (; WEIGHTS[i].name; i++) {
        const uint64_t shape[2] = {WEIGHTS[i].first, WEIGHTS[i].second};
        flis_write_declare(&ctx, writer, WEIGHTS[i].name, FLIS_F32, 2, shape);
    }
    for (i = first; WEIGHTS[i].name; i++) {
        const size_t count = (size_t)(WEIGHTS[i].first * WEIGHTS[i].second);
        if (count > sizeof zeros / sizeof(float)) abort();
        flis_write_raw(&ctx, writer, zeros, count);
    }
    flis_write_end(&ctx, writer);
    if (!flis_ok(&ctx)) abort();
    flis_free(&ctx);
    return i + 1;
}

static void put_text(const char *path, const void *text, size_t size)
{
    FILE *f = fopen(path, "wb");
    if (!f || fwrite(text, 1, size, f) != size || fclose(f) != 0) abort();
}

/* What the other files say while one is the input: nothing that is refused. */
static const char *const NEUTRAL[FUZZED] = {
    "{\"layers_per_block\": 1, \"up_block_types\": [\"UpBlock2D\", \"CrossAttnUpBlock2D\"]}",
    "{\"block_out_channels\": [32, 64]}",
    "{}",
    "{\"beta_schedule\": \"scaled_linear\", \"beta_start\": 0.00085, \"beta_end\": 0.012}",
    "{}",
    "{}",
    "{}"};

static void put_neutral(size_t i)
{
    put_text(in_model(IN_FOLDERS[i]), NEUTRAL[i], strlen(NEUTRAL[i]));
}

static void make_model(void)
{
    flis_ctx ctx;
    size_t at = 0;
    if (access(in_model("b.safetensors"), F_OK) == 0) return;
    for (size_t i = 0; i < sizeof FOLDERS / sizeof *FOLDERS; i++) mkdir(in_model(FOLDERS[i]), 0700);
    for (size_t i = FUZZED; i < sizeof IN_FOLDERS / sizeof *IN_FOLDERS; i++)
        at = write_weights(in_model(IN_FOLDERS[i]), at);
    for (size_t i = 0; i < FUZZED; i++) put_neutral(i);
    /* Otherwise every input would be refused for the folder's sake, and nothing tested. */
    flis_init(&ctx);
    flis_file *file = flis_model_open(&ctx, scratch("model"));
    if (!file) {
        fprintf(stderr, "fuzz: the folder that inputs are put into: %s\n", ctx.error);
        abort();
    }
    flis_file_close(file);
    flis_free(&ctx);
}

/* The first byte chooses which file of a diffusers folder the others are. */
static void fuzz_config(flis_ctx *ctx, const uint8_t *data, size_t size)
{
    if (!size) return;
    make_model();
    const size_t which = data[0] % 6;
    put_text(in_model(IN_FOLDERS[which]), data + 1, size - 1);
    flis_file *file = flis_model_open(ctx, scratch("model"));
    judge(ctx, file != NULL);
    flis_file_close(file);
    put_neutral(which);
}

static void fuzz_index(flis_ctx *ctx, const uint8_t *data, size_t size)
{
    make_model();
    put_text(in_model("m.safetensors.index.json"), data, size);
    flis_file *file = flis_model_open(ctx, in_model("m.safetensors.index.json"));
    judge(ctx, file != NULL);
    flis_file_close(file);
}

static void fuzz_tokenizer(flis_ctx *ctx, const uint8_t *data, size_t size)
{
    int32_t *ids = NULL;
    flis_vocab *vocab = flis_vocab_parse(ctx, "fuzz", (const char *)data, size);
    judge(ctx, vocab != NULL);
    if (vocab && flis_tokenize(ctx, vocab, "a red house", 11, &ids) < 0) abort();
    free(ids);
    flis_vocab_free(vocab);
}

static const struct {
    const char *name;
    void (*run)(flis_ctx *ctx, const uint8_t *data, size_t size);
} TARGETS[] = {
    {"safetensors", fuzz_safetensors},
    {"pickle", fuzz_pickle},
    {"png", fuzz_png},
    {"pgm", fuzz_label},
    {"inflate", fuzz_inflate},
    {"npy", fuzz_npy},
    {"json", fuzz_json},
    {"layout", fuzz_layout},
    {"labelmap", fuzz_labelmap},
    {"vocab", fuzz_vocab},
    {"tokens", fuzz_tokens},
    {"jpeg", fuzz_jpeg},
    {"config", fuzz_config},
    {"index", fuzz_index},
    {"tokenizer", fuzz_tokenizer},
};

static void one(const char *name, const uint8_t *data, size_t size)
{
    size_t i = 0;
    while (i < sizeof TARGETS / sizeof *TARGETS && strcmp(TARGETS[i].name, name) != 0) i++;
    if (i == sizeof TARGETS / sizeof *TARGETS) {
        fprintf(stderr, "fuzz: %s: no such target\n", name);
        exit(2);
    }
    flis_ctx ctx;
    if (!flis_init(&ctx)) abort();
    TARGETS[i].run(&ctx, data, size);
    flis_free(&ctx);
}

#ifndef REPLAY
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static bool started;
    const char *name = getenv("FLIS_FUZZ");
    if (!started) started = atexit(clear_away) == 0;
    one(name ? name : "(none)", data, size);
    return 0;
}
#else
int main(int argc, char **argv)
{
    for (int i = 2; i < argc; i++) {
        flis_ctx ctx;
        size_t length = 0;
        flis_init(&ctx);
        char *data = flis_read_file(&ctx, argv[i], (size_t)1 << 26, &length);
        if (!data) return fprintf(stderr, "replay: %s\n", ctx.error), 1;
        one(argv[1], (const uint8_t *)data, length);
        free(data);
        flis_free(&ctx);
    }
    clear_away();
    return 0;
}
#endif
