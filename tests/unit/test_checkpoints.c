/* test_checkpoints.c - ckpt2safetensors on PyTorch's own files (golden/ckpt, written by torch.save 1.13), and on
 * truncated and modified ones (malicious ones are in test_damage.c).
 */
#include "tests/unit/test.h"
#include "tools/ckpt2safetensors/ckpt.h"

#define OUT "out.safetensors"

/* test_path and test_scratch return four buffers in turn; a path that must stay valid for longer is copied. */
typedef struct saved_path {
    char text[1024];
} saved_path;

static saved_path kept(const char *text)
{
    saved_path p;
    snprintf(p.text, sizeof p.text, "%s", text);
    return p;
}

/* Converts a checkpoint. Returns false on failure, with the message in `error` [4096]. */
static bool converted(conversion o, char *error)
{
    flis_ctx ctx;
    flis_init(&ctx);
    o.out = test_scratch(OUT);
    o.quiet = true;
    remove(o.out);
    convert_checkpoint(&ctx, &o);
    snprintf(error, 4096, "%s", ctx.error);
    bool done = flis_ok(&ctx);
    FILE *out = fopen(o.out, "rb");
    CHECK((out != NULL) == done, "%s: %s", o.in,
          done ? "nothing was written" : "a file was written although the conversion failed");
    if (out) fclose(out);
    flis_free(&ctx);
    return done;
}

/* Compares names, shapes and values (dtypes may differ: BF16 and F32). Returns the number of tensors. */
static size_t same_tensors(const char *got_path, const char *wanted_path, const char *left_out)
{
    flis_ctx ctx;
    flis_init(&ctx);
    flis_file *got = flis_file_open(&ctx, got_path), *wanted = flis_file_open(&ctx, wanted_path);
    CHECK(got && wanted, "%s", ctx.error);
    size_t compared = 0;
    for (size_t i = 0; got && wanted && i < wanted->count; i++) {
        const flis_entry *a = &wanted->entry[i], *b = flis_file_find(got, a->name);
        if (left_out && strncmp(a->name, left_out, strlen(left_out)) == 0) {
            CHECK(!b, "%s is present, but must be dropped", a->name);
            continue;
        }
        CHECK(b && a->rank == b->rank && memcmp(a->shape, b->shape, sizeof a->shape) == 0,
              "%s: missing or of another shape", a->name);
        if (!b) continue;
        size_t count = (size_t)flis_entry_count(a);
        double *x = malloc((count + 1) * sizeof *x), *y = malloc((count + 1) * sizeof *y);
        flis_file_read_f64(&ctx, wanted, a, x);
        flis_file_read_f64(&ctx, got, b, y);
        CHECK(flis_ok(&ctx) && memcmp(x, y, count * sizeof *x) == 0, "%s: other values", a->name);
        free(x);
        free(y);
        compared++;
    }
    CHECK(!got || !wanted || left_out || got->count == wanted->count, "%zu tensors, wanted %zu", got->count,
          wanted->count);
    flis_file_close(got);
    flis_file_close(wanted);
    flis_free(&ctx);
    return compared;
}

void test_checkpoints_convert(void)
{
    const struct {
        const char *in, *expected;
        size_t tensors;
    } cases[] = {
        {"zip", "expected", 8},
        {"flat", "expected", 8},
        {"lightning", "expected", 8},
        {"legacy_nonzip", "expected", 8},
        {"half", "half_expected", 8},
        {"bf16", "bf16_as_f32_expected", 8},
        {"metadata_build", "metadata_build_expected", 4},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char in[64], expected[64], error[4096];
        snprintf(in, sizeof in, "golden/ckpt/%s.ckpt", cases[i].in);
        snprintf(expected, sizeof expected, "golden/ckpt/%s.safetensors", cases[i].expected);
        CHECK(converted((conversion){.in = test_path(in), .all = true}, error), "%s", error);
        size_t tensors = same_tensors(test_scratch(OUT), test_path(expected), NULL);
        CHECK(tensors == cases[i].tensors, "%s: %zu tensors", cases[i].in, tensors);
    }
}

/* Storage offsets, transposed and strided views, stride 0, 0 dimensions, no values, many views of one storage, all dtypes. */
void test_checkpoints_views(void)
{
    char error[4096];
    CHECK(converted((conversion){.in = test_path("golden/ckpt/views.ckpt")}, error), "%s", error);
    CHECK(same_tensors(test_scratch(OUT), test_path("golden/ckpt/views_expected.safetensors"), NULL) == 15, "views");
}

/* A value that is too large for F16 is refused and does not become infinite; without --half it is kept. */
void test_checkpoints_too_large_for_half(void)
{
    enum { VALUES = 4 };
    static const char NAME[] = "model.diffusion_model.time_embed.0.weight";
    char error[4096];
    unsigned char wanted[4 * VALUES], large[4] = {0x00, 0x50, 0xc3, 0x47}; /* 100000 */
    const saved_path in = kept(test_path("golden/ckpt/zip.ckpt")), changed = kept(test_scratch("large.ckpt"));
    size_t length = 0, at = 0;
    double x[64];
    flis_ctx ctx;
    flis_init(&ctx);
    flis_file *file = flis_file_open(&ctx, test_path("golden/ckpt/expected.safetensors"));
    const flis_entry *e = file ? flis_file_find(file, NAME) : NULL;
    CHECK(e && flis_entry_count(e) <= 64 && flis_file_read_f64(&ctx, file, e, x), "%s", ctx.error);
    unsigned char *bytes = (unsigned char *)flis_read_file(&ctx, in.text, (size_t)1 << 20, &length);
    CHECK(bytes != NULL, "%s", ctx.error);
    for (int i = 0; i < VALUES; i++) {
        const float f = (float)x[i];
        uint32_t u;
        memcpy(&u, &f, sizeof u);
        for (int k = 0; k < 4; k++) wanted[4 * i + k] = (unsigned char)(u >> 8 * k);
    }
    while (bytes && at + sizeof wanted <= length && memcmp(bytes + at, wanted, sizeof wanted) != 0) at++;
    CHECK(bytes && at + sizeof wanted <= length, "%s: its values are not in the file", NAME);
    if (bytes && at + sizeof wanted <= length) {
        memcpy(bytes + at + 4, large, 4);
        FILE *out = fopen(changed.text, "wb");
        CHECK(out && fwrite(bytes, 1, length, out) == length, "%s: cannot be written", changed.text);
        if (out) fclose(out);
        CHECK(converted((conversion){.in = changed.text}, error), "%s", error);
        CHECK(!converted((conversion){.in = changed.text, .half = true}, error) && strstr(error, NAME) &&
                  strstr(error, "F16"),
              "%s", error);
    }
    free(bytes);
    flis_file_close(file);
    flis_free(&ctx);
}

void test_checkpoints_ema(void)
{
    char error[4096];
    const saved_path zip = kept(test_path("golden/ckpt/zip.ckpt")),
                     tensors = kept(test_path("golden/ckpt/expected.safetensors"));
    const char *in = zip.text, *expected = tensors.text;
    CHECK(converted((conversion){.in = in}, error), "%s", error);
    CHECK(same_tensors(test_scratch(OUT), expected, "model_ema.") == 5, "model_ema.* was not dropped");
    const char *const sets[] = {"unet.num_heads=2"};
    CHECK(converted((conversion){.in = in, .ema = true, .sets = 1, .set = sets}, error), "%s", error);
    flis_ctx ctx;
    flis_init(&ctx);
    flis_file *got = flis_file_open(&ctx, test_scratch(OUT)), *wanted = flis_file_open(&ctx, expected);
    CHECK(got && wanted, "%s", ctx.error);
    if (got && wanted) {
        double x[24], y[24];
        const char *heads = flis_file_metadata(got, "unet.num_heads");
        flis_file_read_f64(&ctx, got, flis_file_find(got, "model.diffusion_model.time_embed.0.weight"), x);
        flis_file_read_f64(&ctx, wanted, flis_file_find(wanted, "model_ema.diffusion_modeltime_embed0weight"), y);
        CHECK(memcmp(x, y, sizeof x) == 0, "--ema did not take the average");
        CHECK(heads && strcmp(heads, "2") == 0, "--set wrote nothing");
    }
    flis_file_close(got);
    flis_file_close(wanted);
    CHECK(!converted((conversion){.in = test_path("golden/ckpt/metadata_build.ckpt"), .ema = true}, error) &&
              strstr(error, "no model_ema"),
          "%s", error);
    flis_free(&ctx);
}

void test_checkpoints_half(void)
{
    char error[4096];
    flis_ctx ctx;
    flis_init(&ctx);
    CHECK(converted((conversion){.in = test_path("golden/ckpt/zip.ckpt"), .half = true}, error), "%s", error);
    flis_file *got = flis_file_open(&ctx, test_scratch(OUT)),
              *wanted = flis_file_open(&ctx, test_path("golden/ckpt/expected.safetensors"));
    for (size_t i = 0; got && wanted && i < got->count; i++) {
        const flis_entry *a = &got->entry[i], *b = flis_file_find(wanted, a->name);
        CHECK(a->dtype == (b->dtype == FLIS_F32 ? FLIS_F16 : b->dtype), "%s is %s", a->name, flis_dtype_name(a->dtype));
        double x[64], y[64];
        if (flis_entry_count(a) > 64) continue;
        flis_file_read_f64(&ctx, got, a, x);
        flis_file_read_f64(&ctx, wanted, b, y);
        for (size_t k = 0; k < flis_entry_count(a); k++)
            CHECK(x[k] == (b->dtype == FLIS_F32 ? (double)flis_half_to_float(flis_float_to_half((float)y[k])) : y[k]),
                  "%s", a->name);
    }
    flis_file_close(got);
    flis_file_close(wanted);
    flis_free(&ctx);
}

/* ---- Truncated and modified ---------------------------------------------------------------------------------------- */

static uint8_t *read_all(const char *from, size_t *size)
{
    flis_ctx ctx;
    flis_init(&ctx);
    uint8_t *bytes = (uint8_t *)flis_read_file(&ctx, from, 1 << 20, size);
    CHECK(bytes, "%s", ctx.error);
    flis_free(&ctx);
    return bytes;
}

static void write_bytes(const char *to, const uint8_t *bytes, size_t size)
{
    FILE *f = fopen(to, "wb");
    fwrite(bytes, 1, size, f);
    fclose(f);
}

/* Cut in the header or at every `step`-th byte, both formats fail with an error message, without a crash. */
static void cut_files(size_t header, size_t step)
{
    const char *const files[] = {"golden/ckpt/zip.ckpt", "golden/ckpt/legacy_nonzip.ckpt"}, *name = "cut.ckpt";
    const saved_path cut_file = kept(test_scratch(name));
    for (int f = 0; f < 2; f++) {
        size_t size = 0;
        char error[4096];
        uint8_t *bytes = read_all(test_path(files[f]), &size);
        for (size_t cut = 0; bytes && cut < size; cut += cut < header ? 1 : step) {
            write_bytes(cut_file.text, bytes, cut);
            CHECK(!converted((conversion){.in = cut_file.text}, error) && *error, "%s cut at %zu was accepted",
                  files[f], cut);
        }
        free(bytes);
    }
}

/* The output is never written over the input. */
void test_checkpoints_onto_itself(void)
{
    const char *const name = "itself.ckpt";
    const saved_path path = kept(test_scratch(name));
    size_t size = 0, after = 0;
    flis_ctx ctx;
    flis_init(&ctx);
    uint8_t *bytes = read_all(test_path("golden/ckpt/zip.ckpt"), &size);
    if (bytes) write_bytes(path.text, bytes, size);
    convert_checkpoint(&ctx, &(conversion){.in = path.text, .out = path.text, .quiet = true});
    CHECK(strstr(ctx.error, "the output is the input"), "%s", ctx.error);
    uint8_t *left = read_all(path.text, &after);
    CHECK(bytes && left && after == size && memcmp(bytes, left, size) == 0, "the input has changed");
    free(bytes);
    free(left);
    flis_free(&ctx);
}

void test_checkpoints_cut_short(void)
{
    cut_files(16, 131);
}

/* slow */
void test_checkpoints_cut_often(void)
{
    cut_files(64, 13);
}

/* One byte changed, every `step`-th in turn: the file is converted or refused, and the sanitizers find nothing. */
static void flip_bytes(size_t step)
{
    const char *const files[] = {"golden/ckpt/zip.ckpt", "golden/ckpt/legacy_nonzip.ckpt"}, *name = "flipped.ckpt";
    const saved_path flipped_file = kept(test_scratch(name));
    for (int f = 0; f < 2; f++) {
        size_t size = 0, refused = 0;
        char error[4096];
        uint8_t *bytes = read_all(test_path(files[f]), &size);
        for (size_t i = 0; bytes && i < size; i += step) {
            uint8_t old = bytes[i];
            bytes[i] ^= (uint8_t)(1 + i % 255);
            write_bytes(flipped_file.text, bytes, size);
            refused += !converted((conversion){.in = flipped_file.text}, error);
            bytes[i] = old;
        }
        CHECK(refused * step > 150, "%s: only %zu changes were detected", files[f], refused);
        free(bytes);
    }
}

void test_checkpoints_flipped(void)
{
    flip_bytes(41);
}

/* slow */
void test_checkpoints_flipped_often(void)
{
    flip_bytes(3);
}
