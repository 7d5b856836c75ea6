/* test_checkpoints.c - tools/ckpt2safetensors on PyTorch's own files (golden/ckpt, made by torch.save 1.13), and on damaged
 * and hostile ones, each with the words that its sentence must have.
 * Checks: test_checkpoints_convert, test_checkpoints_views, test_checkpoints_ema, test_checkpoints_half,
 *   test_checkpoints_damaged, test_checkpoints_cut_short, test_checkpoints_flipped
 */
#define main ckpt_main
#include "../tools/ckpt2safetensors.c"
#undef main

#include "test.h"

#define OUT "out.safetensors"

/* test_path and test_scratch hand out four strings in turn; a path that is needed longer is copied. */
typedef struct saved_path { char text[1024]; } saved_path;

static saved_path kept(const char *text)
{
    saved_path p;
    snprintf(p.text, sizeof p.text, "%s", text);
    return p;
}

/* Converts; true when it did. The error text goes to `error` (4096). */
static bool converted(options o, char *error)
{
    flis_ctx ctx;
    flis_init(&ctx);
    o.out = test_scratch(OUT);
    o.quiet = true;
    remove(o.out);
    convert(&ctx, &o);
    snprintf(error, 4096, "%s", ctx.error);
    bool done = flis_ok(&ctx);
    FILE *out = fopen(o.out, "rb");
    CHECK((out != NULL) == done, "%s: %s", o.in, done ? "nothing was written" : "something was written though it failed");
    if (out) fclose(out);
    flis_free(&ctx);
    return done;
}

/* Same names, shapes and values (dtypes may differ: BF16 against its F32). Returns the number of tensors. */
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
            CHECK(!b, "%s is there", a->name);
            continue;
        }
        CHECK(b && a->rank == b->rank && memcmp(a->shape, b->shape, sizeof a->shape) == 0, "%s: missing or of another shape", a->name);
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
    CHECK(!got || !wanted || left_out || got->count == wanted->count, "%zu tensors, wanted %zu", got->count, wanted->count);
    flis_file_close(got);
    flis_file_close(wanted);
    flis_free(&ctx);
    return compared;
}

void test_checkpoints_convert(void)
{
    const struct { const char *in, *expected; size_t tensors; } cases[] = {
        {"zip", "expected", 8}, {"flat", "expected", 8}, {"lightning", "expected", 8}, {"legacy_nonzip", "expected", 8},
        {"half", "half_expected", 8}, {"bf16", "bf16_as_f32_expected", 8}, {"metadata_build", "metadata_build_expected", 4},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char in[64], expected[64], error[4096];
        snprintf(in, sizeof in, "golden/ckpt/%s.ckpt", cases[i].in);
        snprintf(expected, sizeof expected, "golden/ckpt/%s.safetensors", cases[i].expected);
        CHECK(converted((options){.in = test_path(in), .all = true}, error), "%s", error);
        size_t tensors = same_tensors(test_scratch(OUT), test_path(expected), NULL);
        CHECK(tensors == cases[i].tensors, "%s: %zu tensors", cases[i].in, tensors);
    }
}

/* Storage offsets, transposed and strided views, stride 0, 0 dimensions, no values, many views of one storage, all dtypes. */
void test_checkpoints_views(void)
{
    char error[4096];
    CHECK(converted((options){.in = test_path("golden/ckpt/views.ckpt")}, error), "%s", error);
    CHECK(same_tensors(test_scratch(OUT), test_path("golden/ckpt/views_expected.safetensors"), NULL) == 15, "views");
}

void test_checkpoints_ema(void)
{
    char error[4096];
    const saved_path zip = kept(test_path("golden/ckpt/zip.ckpt")), tensors = kept(test_path("golden/ckpt/expected.safetensors"));
    const char *in = zip.text, *expected = tensors.text;
    CHECK(converted((options){.in = in}, error), "%s", error);
    CHECK(same_tensors(test_scratch(OUT), expected, "model_ema.") == 5, "model_ema.* was not dropped");
    char set[] = "unet.num_heads=2", *sets[] = {set};
    CHECK(converted((options){.in = in, .ema = true, .sets = 1, .set = sets}, error), "%s", error);
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
    CHECK(!converted((options){.in = test_path("golden/ckpt/metadata_build.ckpt"), .ema = true}, error) &&
          strstr(error, "no model_ema"), "%s", error);
    flis_free(&ctx);
}

void test_checkpoints_half(void)
{
    char error[4096];
    flis_ctx ctx;
    flis_init(&ctx);
    CHECK(converted((options){.in = test_path("golden/ckpt/zip.ckpt"), .half = true}, error), "%s", error);
    flis_file *got = flis_file_open(&ctx, test_scratch(OUT)), *wanted = flis_file_open(&ctx, test_path("golden/ckpt/expected.safetensors"));
    for (size_t i = 0; got && wanted && i < got->count; i++) {
        const flis_entry *a = &got->entry[i], *b = flis_file_find(wanted, a->name);
        CHECK(a->dtype == (b->dtype == FLIS_F32 ? FLIS_F16 : b->dtype), "%s is %s", a->name, flis_dtype_name(a->dtype));
        double x[64], y[64];
        if (flis_entry_count(a) > 64) continue;
        flis_file_read_f64(&ctx, got, a, x);
        flis_file_read_f64(&ctx, wanted, b, y);
        for (size_t k = 0; k < flis_entry_count(a); k++)
            CHECK(x[k] == (b->dtype == FLIS_F32 ? (double)flis_half_to_float(flis_float_to_half((float)y[k])) : y[k]), "%s", a->name);
    }
    flis_file_close(got);
    flis_file_close(wanted);
    flis_free(&ctx);
}

/* ---- Damaged and hostile ---------------------------------------------------------------------------------------- */

static void little(FILE *f, uint64_t number, int bytes)
{
    for (; bytes > 0; bytes--, number >>= 8) putc((int)(number & 255), f);
}

typedef struct part { const char *name; const void *bytes; size_t size; unsigned method; } part;

/* A zip file of stored entries. */
static void write_zip(const char *to, const part *parts, size_t count)
{
    FILE *f = fopen(to, "wb");
    long at[8] = {0}, start;
    for (size_t i = 0; i < count; i++) {
        at[i] = ftell(f);
        fputs("PK\3\4", f);
        little(f, 0, 4);
        little(f, parts[i].method, 2);
        little(f, 0, 8);
        little(f, parts[i].size, 4);
        little(f, parts[i].size, 4);
        little(f, strlen(parts[i].name), 2);
        little(f, 0, 2);
        fputs(parts[i].name, f);
        fwrite(parts[i].bytes, 1, parts[i].size, f);
    }
    start = ftell(f);
    for (size_t i = 0; i < count; i++) {
        fputs("PK\1\2", f);
        little(f, 0, 6);
        little(f, parts[i].method, 2);
        little(f, 0, 8);
        little(f, parts[i].size, 4);
        little(f, parts[i].size, 4);
        little(f, strlen(parts[i].name), 2);
        little(f, 0, 12);
        little(f, (uint64_t)at[i], 4);
        fputs(parts[i].name, f);
    }
    long end = ftell(f);
    fputs("PK\5\6", f);
    little(f, 0, 4);
    little(f, count, 2);
    little(f, count, 2);
    little(f, (uint64_t)(end - start), 4);
    little(f, (uint64_t)start, 4);
    little(f, 0, 2);
    CHECK(fclose(f) == 0, "%s cannot be written", to);
}

/* {'t': _rebuild_tensor_v2(('storage', FloatStorage, '0', 'cpu', NUMEL), OFFSET, SIZE, STRIDE, …)}; the four as pickle. */
#define TENSOR(type, numel, offset, size, stride) \
    "\x80\x02}X\x01\0\0\0t" "ctorch._utils\n_rebuild_tensor_v2\n(" \
    "(X\x07\0\0\0storage" "ctorch\n" type "\nX\x01\0\0\0" "0X\x03\0\0\0cpu" numel "tQ" offset size stride "\x89}tRs."
#define PICKLE(text) text, sizeof(text) - 1

void test_checkpoints_damaged(void)
{
    static const struct { const char *what, *pickle; size_t size; const char *says; } rows[] = {
        {"os.system", PICKLE("\x80\x02" "cos\nsystem\nX\x02\0\0\0id\x85R."), "os.system"},
        {"posix.system by STACK_GLOBAL", PICKLE("\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c\x02id\x85R."), "posix.system"},
        {"builtins.eval", PICKLE("\x80\x02" "cbuiltins\neval\n."), "builtins.eval"},
        {"__builtin__.exec", PICKLE("c__builtin__\nexec\n."), "__builtin__.exec"},
        {"a name near an allowed one", PICKLE("\x80\x02" "ctorch._utils\n_rebuild_tensor_v3\n."), "_rebuild_tensor_v3"},
        {"torch.load within", PICKLE("\x80\x02" "ctorch\nload\n."), "torch.load"},
        {"INST", PICKLE("(ios\nsystem\n."), "instruction 0x69"},
        {"OBJ", PICKLE("(o."), "instruction 0x6f"},
        {"EXT1", PICKLE("\x82\x01."), "instruction 0x82"},
        {"PERSID", PICKLE("Pabc\n."), "instruction 0x50"},
        {"protocol 9", PICKLE("\x80\x09}."), "protocol"},
        {"nothing", PICKLE(""), "ended early"},
        {"STOP alone", PICKLE("."), "stack empty"},
        {"POP on nothing", PICKLE("0."), "stack empty"},
        {"REDUCE on nothing", PICKLE("R."), "stack empty"},
        {"TUPLE without a mark", PICKLE("Nt."), "no mark"},
        {"a mark as value", PICKLE("(."), "stack empty"},
        {"recall of nothing", PICKLE("h\x05."), "recalls"},
        {"a memo of 4 billion", PICKLE("Nr\xff\xff\xff\xff."), "memo"},
        {"a string of 4 GB", PICKLE("X\xff\xff\xff\xff" "a."), "longer than the pickle"},
        {"a string of 2^63 bytes", PICKLE("\x8d\xff\xff\xff\xff\xff\xff\xff\x7f" "a."), "longer than the pickle"},
        {"calling a string", PICKLE("X\x01\0\0\0a)R."), "not a function"},
        {"calling a number", PICKLE("K\x01)R."), "not a function"},
        {"BUILD on a number", PICKLE("K\x01}b."), "state"},
        {"SETITEM on a list", PICKLE("]K\x01K\x02s."), "no dictionary"},
        {"APPEND to a dictionary", PICKLE("}K\x01" "a."), "no list"},
        {"an odd dictionary", PICKLE("(K\x01" "d."), "no value"},
        {"a number", PICKLE("K\x01."), "no dictionary of tensors"},
        {"an empty dictionary", PICKLE("}."), "no tensors"},
        {"a list that holds itself", PICKLE("]q\0h\0a."), "no dictionary of tensors"},
        {"a dictionary that holds itself", PICKLE("}q\0X\x0a\0\0\0state_dicth\0s."), "no tensors"},
        {"OrderedDict of numbers", PICKLE("ccollections\nOrderedDict\n]K\x01" "a\x85R."), "pairs"},
        {"a storage called", PICKLE("ctorch\nFloatStorage\n)R."), "storage without data"},
        {"a storage without length", PICKLE("(X\x07\0\0\0storagectorch\nFloatStorage\ntQ."), "storage without"},
        {"a Parameter of nothing", PICKLE("ctorch._utils\n_rebuild_parameter\nN\x85R."), "Parameter"},
        {"a tensor of nothing", PICKLE("ctorch._utils\n_rebuild_tensor_v2\n)R."), "without storage"},
        {"beyond its storage", PICKLE(TENSOR("FloatStorage", "K\x04", "K\0", "K\x05\x85", "K\x01\x85")), "beyond its storage"},
        {"an offset beyond it", PICKLE(TENSOR("FloatStorage", "K\x04", "K\x04", "K\x01\x85", "K\x01\x85")), "beyond its storage"},
        {"a negative size", PICKLE(TENSOR("FloatStorage", "K\x04", "K\0", "J\xff\xff\xff\xff\x85", "K\x01\x85")), "no count"},
        {"a negative offset", PICKLE(TENSOR("FloatStorage", "K\x04", "J\xff\xff\xff\xff", "K\x01\x85", "K\x01\x85")), "without storage"},
        {"a stride missing", PICKLE(TENSOR("FloatStorage", "K\x04", "K\0", "K\x01\x85", ")")), "without storage"},
        {"a stride of 2^40 - 1", PICKLE(TENSOR("FloatStorage", "K\x04", "K\0", "K\x02\x85", "\x8a\x06\xff\xff\xff\xff\xff\0\x85")), "beyond its storage"},
        {"2^60 values of stride 0", PICKLE(TENSOR("FloatStorage", "K\x04", "K\0", "\x8a\x05\0\0\0\0\x40\x8a\x05\0\0\0\0\x40\x86", "K\0K\0\x86")), "2^40 values"},
        {"9 dimensions", PICKLE(TENSOR("FloatStorage", "K\x04", "K\0", "(K\1K\1K\1K\1K\1K\1K\1K\1K\1t", "(K\1K\1K\1K\1K\1K\1K\1K\1K\1t")), "8 dimensions"},
        {"a storage longer than its data", PICKLE(TENSOR("FloatStorage", "K\x05", "K\0", "K\x01\x85", "K\x01\x85")), "got 16 bytes"},
        {"another storage type", PICKLE(TENSOR("DoubleStorage", "K\x04", "K\0", "K\x01\x85", "K\x01\x85")), "got 16 bytes"},
    };
    static const float data[4] = {1, 2, 3, 4};
    size_t count = sizeof rows / sizeof *rows;
    char error[4096];
    const saved_path bad_file = kept(test_scratch("bad.ckpt"));
    const char *bad = bad_file.text;
    for (size_t i = 0; i < count; i++) {
        const part parts[2] = {{"a/data.pkl", rows[i].pickle, rows[i].size, 0}, {"a/data/0", data, sizeof data, 0}};
        write_zip(bad, parts, 2);
        CHECK(!converted((options){.in = bad}, error) && strstr(error, rows[i].says) && strstr(error, "bad.ckpt") &&
              !strchr(error, '\n'), "%s: got \"%s\", wanted \"…%s…\"", rows[i].what, error, rows[i].says);
    }
    const char *good = TENSOR("FloatStorage", "K\x04", "K\0", "K\x04\x85", "K\x01\x85");
    const size_t good_size = sizeof TENSOR("FloatStorage", "K\x04", "K\0", "K\x04\x85", "K\x01\x85") - 1;
    const part whole[2] = {{"a/data.pkl", good, good_size, 0}, {"a/data/0", data, sizeof data, 0}};
    write_zip(bad, whole, 2);
    CHECK(converted((options){.in = bad}, error), "the undamaged one: %s", error);
    const struct { const char *what; part parts[3]; size_t count; const char *says; } zips[] = {
        {"no data.pkl", {{"a/data/0", data, sizeof data, 0}}, 1, "without data.pkl"},
        {"no data", {{"a/data.pkl", good, good_size, 0}}, 1, "missing"},
        {"two pickles", {{"a/data.pkl", good, good_size, 0}, {"b/data.pkl", good, good_size, 0}}, 2, "a second data.pkl"},
        {"a compressed pickle", {{"a/data.pkl", good, good_size, 8}}, 1, "compressed"},
        {"compressed data", {{"a/data.pkl", good, good_size, 0}, {"a/data/0", data, sizeof data, 8}}, 2, "compressed"},
        {"big-endian", {{"a/data.pkl", good, good_size, 0}, {"a/byteorder", "big", 3, 0}, {"a/data/0", data, sizeof data, 0}}, 3, "got big, wanted little"},
    };
    for (size_t i = 0; i < sizeof zips / sizeof *zips; i++) {
        write_zip(bad, zips[i].parts, zips[i].count);
        CHECK(!converted((options){.in = bad}, error) && strstr(error, zips[i].says), "%s: got \"%s\"", zips[i].what, error);
    }
    CHECK(count + sizeof zips / sizeof *zips >= 50, "%zu rows", count);
}

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

/* Cut anywhere, both formats fail with a sentence (or, cut behind the last data, convert), and never crash. */
void test_checkpoints_cut_short(void)
{
    const char *const files[] = {"golden/ckpt/zip.ckpt", "golden/ckpt/legacy_nonzip.ckpt"}, *name = "cut.ckpt";
    const saved_path cut_file = kept(test_scratch(name));
    for (int f = 0; f < 2; f++) {
        size_t size = 0;
        char error[4096];
        uint8_t *bytes = read_all(test_path(files[f]), &size);
        for (size_t cut = 0; bytes && cut < size; cut += cut < 64 ? 1 : 13) {
            write_bytes(cut_file.text, bytes, cut);
            CHECK(!converted((options){.in = cut_file.text}, error) && *error, "%s cut at %zu was taken", files[f], cut);
        }
        free(bytes);
    }
}

/* Any single byte changed: a sentence or a conversion, never a crash (the sanitizers judge). */
void test_checkpoints_flipped(void)
{
    const char *const files[] = {"golden/ckpt/zip.ckpt", "golden/ckpt/legacy_nonzip.ckpt"}, *name = "flipped.ckpt";
    const saved_path flipped_file = kept(test_scratch(name));
    for (int f = 0; f < 2; f++) {
        size_t size = 0, refused = 0;
        char error[4096];
        uint8_t *bytes = read_all(test_path(files[f]), &size);
        for (size_t i = 0; bytes && i < size; i += 3) {
            uint8_t old = bytes[i];
            bytes[i] ^= (uint8_t)(1 + i % 255);
            write_bytes(flipped_file.text, bytes, size);
            refused += !converted((options){.in = flipped_file.text}, error);
            bytes[i] = old;
        }
        CHECK(refused > 50, "%s: only %zu changes were noticed", files[f], refused);
        free(bytes);
    }
}
