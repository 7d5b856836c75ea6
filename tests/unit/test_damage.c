/* test_damage.c - damaged and malicious files, with the complete error message of each: golden/damage.txt has one line
 * per file (description, tab, message). The same builders also make undamaged files, which must load: this shows that a
 * file is refused only for its damage. FLIS_DAMAGE=FILE writes the messages instead of comparing them; use it when a
 * message has changed, and read the difference.
 *
 * In order: safetensors; checkpoints (pickles, zip, zip64, the old format); label maps (PNG, PGM); layouts and JSON;
 * vocabularies, plain and gzip; indices of shards; files of a wrong kind; diffusers folders; models with missing or
 * non-finite tensors or tensors of a wrong shape or type; x_T; training states.
 */
#include "tests/unit/test.h"
#include "tools/ckpt2safetensors/ckpt.h"
#include "tools/train/adamw.h"

enum { BYTES_ROOM = 1 << 21 };
static const char TABLE[] = "golden/damage.txt";

/* A file under construction. */
typedef struct bytes {
    uint8_t at[BYTES_ROOM];
    size_t count;
} bytes;

static void put(bytes *b, const void *from, size_t count)
{
    if (count) memcpy(b->at + b->count, from, count);
    b->count += count;
}

static void put_text(bytes *b, const char *text)
{
    put(b, text, strlen(text));
}

static void put_little(bytes *b, uint64_t number, int count)
{
    for (; count > 0; count--, number >>= 8) b->at[b->count++] = (uint8_t)(number & 255);
}

static void put_big(bytes *b, uint64_t number, int count)
{
    for (int i = count - 1; i >= 0; i--) b->at[b->count++] = (uint8_t)(number >> (8 * i) & 255);
}

static void put_zeros(bytes *b, size_t count)
{
    memset(b->at + b->count, 0, count);
    b->count += count;
}

/* ---- The table --------------------------------------------------------------------------------------------------- */

/* The messages in order, without the path of the scratch directory. */
typedef struct table {
    flis_ctx own;
    char *text, *line;
    FILE *out; /* FLIS_DAMAGE */
    size_t rows, healthy;
} table;

static void table_open(table *t)
{
    size_t length;
    memset(t, 0, sizeof *t);
    flis_init(&t->own);
    const char *path = getenv("FLIS_DAMAGE");
    if (path) t->out = fopen(path, "wb");
    else t->line = t->text = flis_read_file(&t->own, test_path(TABLE), 1 << 20, &length);
    CHECK(t->out || t->text, "%s", t->own.error);
}

static void table_close(table *t)
{
    CHECK(t->out || !t->line || !*t->line, "the table has more lines: %.60s", t->line);
    if (t->out) fclose(t->out);
    free(t->text);
    flis_free(&t->own);
}

/* A message as the table has it: without the directory, on one line. */
static void tidy(const char *error, char *out, size_t room)
{
    const char *scratch = test_scratch("");
    const size_t length = strlen(scratch);
    size_t used = 0;
    for (const char *c = error; *c && used + 4 < room;) {
        if (strncmp(c, scratch, length) == 0) c += length;
        else if (*c == '\n') out[used++] = ' ', out[used++] = '|', out[used++] = ' ', c++;
        else out[used++] = *c++;
    }
    out[used] = 0;
}

/* A valid message is complete and printable, and has line feeds only before the lines of a list. */
static bool is_sentence(const char *error)
{
    const size_t length = strlen(error);
    for (const char *c = error; *c; c++)
        if ((unsigned char)*c < ' ' && !(*c == '\n' && strncmp(c, "\n  ", 3) == 0 && c[3] > ' ')) return false;
    return length > 0 && !strchr(" :,;(", error[length - 1]) && !strstr(error, "(null)");
}

/* Records that `what` was refused with the message `error`; "" means that it was accepted, which is a failure. */
static void refused(table *t, const char *what, const char *error)
{
    char got[4200], wanted[4400];
    tidy(error, got, sizeof got);
    t->rows++;
    CHECK(*error, "%s: it was accepted", what);
    CHECK(!*error || is_sentence(error), "%s: not a valid message: %s", what, error);
    if (t->out) {
        fprintf(t->out, "%s\t%s\n", what, got);
        return;
    }
    if (!t->line) return;
    const size_t length = strcspn(t->line, "\n");
    snprintf(wanted, sizeof wanted, "%s\t%s", what, got);
    CHECK(length == strlen(wanted) && memcmp(wanted, t->line, length) == 0, "got    %s\n    wanted %.*s", wanted,
          (int)length, t->line);
    t->line += length + (t->line[length] == '\n');
}

static void healthy(table *t, const char *what, const char *error)
{
    t->healthy++;
    CHECK(!*error, "%s is not damaged: %s", what, error);
}

/* Writes the scratch file of that name, and its path to `path`, which is returned. */
static const char *write_file(const bytes *b, const char *name, char path[1024])
{
    snprintf(path, 1024, "%s", test_scratch(name));
    FILE *f = fopen(path, "wb");
    CHECK(f && fwrite(b->at, 1, b->count, f) == b->count, "%s cannot be written", path);
    if (f) fclose(f);
    return path;
}

/* ---- Safetensors ------------------------------------------------------------------------------------------------- */

#define ENTRY(dtype, shape, begin, end) \
    "{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":[" begin "," end "]}"
#define A ENTRY("F32", "[2]", "0", "8")

/* length: the header length in the first 8 bytes; 0: the correct one. cut: bytes removed from the end. */
typedef struct header_row {
    const char *what, *header;
    size_t data;
    uint64_t length;
    size_t cut;
} header_row;

static void put_safetensors(bytes *b, const header_row *r)
{
    b->count = 0;
    put_little(b, r->length ? r->length : strlen(r->header), 8);
    put_text(b, r->header);
    put_zeros(b, r->data);
    b->count -= r->cut;
}

static void read_safetensors(const bytes *b, char *error)
{
    char path[1024];
    flis_ctx ctx;
    flis_init(&ctx);
    flis_file *file = flis_file_open(&ctx, write_file(b, "bad.safetensors", path));
    for (size_t i = 0; file && i < file->count && flis_ok(&ctx); i++) {
        double *x = flis_alloc(&ctx, (size_t)flis_entry_count(&file->entry[i]) + 1, sizeof *x);
        if (x) flis_file_read_f64(&ctx, file, &file->entry[i], x);
        free(x);
    }
    snprintf(error, 4096, "%s", ctx.error);
    flis_file_close(file);
    flis_free(&ctx);
}

/* A folder, a missing file, and a header beyond the format's limit in a sparse file. */
static void unreadable_rows(table *t)
{
    static const unsigned char length[8] = {0x01, 0xe1, 0xf5, 0x05};
    const char *folder = test_scratch(""), *absent = test_scratch("absent.safetensors"),
               *large = test_scratch("large.safetensors");
    flis_ctx ctx;
    flis_init(&ctx);
    flis_file_close(flis_file_open(&ctx, folder));
    CHECK(!strncmp(ctx.error, folder, strlen(folder)), "%s", ctx.error);
    refused(t, "a folder for a file", ctx.error);
    ctx.error[0] = 0;
    flis_file_close(flis_file_open(&ctx, absent));
    refused(t, "no file", ctx.error);
    ctx.error[0] = 0;
    FILE *f = fopen(large, "wb");
    CHECK(f && fwrite(length, 1, 8, f) == 8 && fseek(f, 100000100, SEEK_SET) == 0 && putc('}', f) == '}' &&
              fclose(f) == 0,
          "%s", large);
    flis_file_close(flis_file_open(&ctx, large));
    refused(t, "header of 100000001 bytes, all there", ctx.error);
    remove(large);
    flis_free(&ctx);
}

static void safetensors_rows(table *t, bytes *b)
{
    static const header_row sound[] = {
        {"one tensor", "{\"a\":" A "}", 8, 0, 0},
        {"no tensor", "{}", 0, 0, 0},
        {"padded header", "{\"a\":" A "}    ", 8, 0, 0},
        {"two tensors", "{\"a\":" A ",\"b\":" ENTRY("I64", "[1,1]", "8", "16") "}", 16, 0, 0},
        {"no values", "{\"a\":" ENTRY("F16", "[0,3]", "0", "0") "}", 0, 0, 0},
        {"a scalar", "{\"a\":" ENTRY("BOOL", "[]", "0", "1") "}", 1, 0, 0},
        {"8 dimensions", "{\"a\":" ENTRY("U8", "[1,1,1,1,1,1,1,2]", "0", "2") "}", 2, 0, 0},
        {"metadata", "{\"__metadata__\":{\"x\":\"y\"},\"a\":" A "}", 8, 0, 0},
        {"names in another order than their data", "{\"b\":" ENTRY("F32", "[2]", "8", "16") ",\"a\":" A "}", 16, 0, 0},
        {"a member more", "{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8],\"note\":7}}", 8, 0, 0},
        {"a name in Greek and a smile", "{\"\\u03b1\xF0\x9F\x99\x82\":" A "}", 8, 0, 0},
    };
    static const header_row broken[] = {
        {"empty", "", 0, 0, 8},
        {"7 bytes", "", 0, 0, 1},
        {"the header's length alone", "", 0, 20, 0},
        {"header of 2^63 bytes", "{\"a\":" A "}", 8, UINT64_C(1) << 63, 0},
        {"header of 100000001 bytes", "{\"a\":" A "}", 8, 100000001, 0},
        {"header longer than the file", "{\"a\":" A "}", 8, 68, 0},
        {"header cut", "{\"a\":" A "}", 0, 0, 5},
        {"a header that takes two bytes of the data", "{\"a\":" A "}", 8, 56, 0},
        {"header one byte short", "{\"a\":" A "}", 8, 53, 0},
        {"data cut", "{\"a\":" A "}", 8, 0, 1},
        {"data missing", "{\"a\":" A "}", 0, 0, 0},
        {"a byte too many", "{\"a\":" A "}", 9, 0, 0},
        {"not JSON", "hello", 0, 0, 0},
        {"an array", "[]", 0, 0, 0},
        {"a number", "7", 0, 0, 0},
        {"two roots", "{}{}", 0, 0, 0},
        {"a comma too many", "{\"a\":" A ",}", 8, 0, 0},
        {"a name twice", "{\"a\":" A ",\"a\":" ENTRY("F32", "[2]", "8", "16") "}", 16, 0, 0},
        {"NUL in a name", "{\"a\\u0000b\":" A "}", 8, 0, 0},
        {"control characters in a name", "{\"a\\u001b[2J\":" ENTRY("F31", "[2]", "0", "8") "}", 8, 0, 0},
        {"bad UTF-8", "{\"a\xff\":" A "}", 8, 0, 0},
        {"half a surrogate pair", "{\"\\ud800\":" A "}", 8, 0, 0},
        {"a tensor that is a list", "{\"a\":[1]}", 0, 0, 0},
        {"a tensor that is null", "{\"a\":null}", 0, 0, 0},
        {"no dtype", "{\"a\":{\"shape\":[2],\"data_offsets\":[0,8]}}", 8, 0, 0},
        {"dtype twice", "{\"a\":{\"dtype\":\"F32\",\"dtype\":\"F16\",\"shape\":[2],\"data_offsets\":[0,8]}}", 8, 0, 0},
        {"an unknown dtype", "{\"a\":" ENTRY("F8_E4M3", "[8]", "0", "8") "}", 8, 0, 0},
        {"a numeric dtype", "{\"a\":{\"dtype\":32,\"shape\":[2],\"data_offsets\":[0,8]}}", 8, 0, 0},
        {"no shape", "{\"a\":{\"dtype\":\"F32\",\"data_offsets\":[0,8]}}", 8, 0, 0},
        {"shape a number", "{\"a\":" ENTRY("F32", "2", "0", "8") "}", 8, 0, 0},
        {"negative dimension", "{\"a\":" ENTRY("F32", "[-2]", "0", "8") "}", 8, 0, 0},
        {"fractional dimension", "{\"a\":" ENTRY("F32", "[2.5]", "0", "8") "}", 8, 0, 0},
        {"dimension as text", "{\"a\":" ENTRY("F32", "[\"2\"]", "0", "8") "}", 8, 0, 0},
        {"dimension 2e0", "{\"a\":" ENTRY("F32", "[2e0]", "0", "8") "}", 8, 0, 0},
        {"9 dimensions", "{\"a\":" ENTRY("U8", "[1,1,1,1,1,1,1,1,2]", "0", "2") "}", 2, 0, 0},
        {"a product of 2^64", "{\"a\":" ENTRY("U8", "[4294967296,4294967296]", "0", "0") "}", 0, 0, 0},
        {"2^62 floats", "{\"a\":" ENTRY("F32", "[4611686018427387904]", "0", "0") "}", 0, 0, 0},
        {"a dimension of 2^64", "{\"a\":" ENTRY("U8", "[18446744073709551616]", "0", "0") "}", 0, 0, 0},
        {"shape smaller than its range", "{\"a\":" ENTRY("F32", "[1]", "0", "8") "}", 8, 0, 0},
        {"shape larger than its range", "{\"a\":" ENTRY("F32", "[3]", "0", "8") "}", 8, 0, 0},
        {"no offsets", "{\"a\":{\"dtype\":\"F32\",\"shape\":[2]}}", 8, 0, 0},
        {"one offset", "{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[8]}}", 8, 0, 0},
        {"three offsets", "{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8,8]}}", 8, 0, 0},
        {"offsets turned round", "{\"a\":" ENTRY("F32", "[2]", "8", "0") "}", 8, 0, 0},
        {"a negative offset", "{\"a\":" ENTRY("F32", "[2]", "-8", "0") "}", 8, 0, 0},
        {"a hole before", "{\"a\":" ENTRY("F32", "[2]", "4", "12") "}", 12, 0, 0},
        {"a hole between", "{\"a\":" A ",\"b\":" ENTRY("F32", "[1]", "12", "16") "}", 16, 0, 0},
        {"an overlap", "{\"a\":" A ",\"b\":" ENTRY("F32", "[2]", "4", "12") "}", 12, 0, 0},
        {"the same bytes twice", "{\"a\":" A ",\"b\":" A "}", 8, 0, 0},
        {"metadata a list", "{\"__metadata__\":[],\"a\":" A "}", 8, 0, 0},
        {"metadata of numbers", "{\"__metadata__\":{\"x\":1},\"a\":" A "}", 8, 0, 0},
        {"metadata twice", "{\"__metadata__\":{},\"__metadata__\":{},\"a\":" A "}", 8, 0, 0},
        {"a metadata key twice", "{\"__metadata__\":{\"x\":\"1\",\"x\":\"2\"},\"a\":" A "}", 8, 0, 0},
        {"metadata null", "{\"__metadata__\":null,\"a\":" A "}", 8, 0, 0},
        {"metadata of null", "{\"__metadata__\":{\"x\":null},\"a\":" A "}", 8, 0, 0},
        {"NUL in metadata", "{\"__metadata__\":{\"x\":\"1\\u00002\"},\"a\":" A "}", 8, 0, 0},
        {"NUL in a metadata key", "{\"__metadata__\":{\"x\\u0000\":\"1\"},\"a\":" A "}", 8, 0, 0},
        {"NUL in metadata's own name", "{\"__metadata__\\u0000\":{\"x\":\"1\"},\"a\":" A "}", 8, 0, 0},
        {"NUL in a dtype", "{\"a\":" ENTRY("F32\\u0000X", "[2]", "0", "8") "}", 8, 0, 0},
        {"NUL in a member", "{\"a\":{\"dtype\":\"F32\",\"shape\\u0000\":[2],\"data_offsets\":[0,8]}}", 8, 0, 0},
        {"a line feed in a name", "{\"a\\nb\":" ENTRY("F31", "[2]", "0", "8") "}", 8, 0, 0},
        {"a name that turns its direction", "{\"a\\u202eb\":" ENTRY("F31", "[2]", "0", "8") "}", 8, 0, 0},
        {"a line separator in a name", "{\"a\\u2028b\":" ENTRY("F31", "[2]", "0", "8") "}", 8, 0, 0},
        {"a C1 control character in a name", "{\"a\\u009bb\":" ENTRY("F31", "[2]", "0", "8") "}", 8, 0, 0},
        {"a tab as it is in a name", "{\"a\tb\":" A "}", 8, 0, 0},
        {"an overlong name", "{\"\xc0\xaf\":" A "}", 8, 0, 0},
        {"a header of nothing", "", 0, 0, 0},
        {"a header of spaces", "   ", 0, 0, 0},
        {"a byte order mark", "\xEF\xBB\xBF{}", 0, 0, 0},
        {"a tensor that is NaN", "{\"a\":NaN}", 0, 0, 0},
        {"shape null", "{\"a\":" ENTRY("F32", "null", "0", "8") "}", 8, 0, 0},
        {"a list in a shape", "{\"a\":" ENTRY("F32", "[[2]]", "0", "8") "}", 8, 0, 0},
        {"dimension true", "{\"a\":" ENTRY("F32", "[true]", "0", "8") "}", 8, 0, 0},
        {"dimension 02", "{\"a\":" ENTRY("F32", "[02]", "0", "8") "}", 8, 0, 0},
        {"dimension 1e999", "{\"a\":" ENTRY("F32", "[1e999]", "0", "8") "}", 8, 0, 0},
        {"2^64 values of no bytes", "{\"a\":" ENTRY("U8", "[4294967296,4294967296,0]", "0", "0") "}", 0, 0, 0},
        {"a scalar of 8 bytes", "{\"a\":" ENTRY("F32", "[]", "0", "8") "}", 8, 0, 0},
        {"no values, behind a hole", "{\"a\":" ENTRY("F32", "[0]", "8", "8") "}", 8, 0, 0},
        {"a fractional offset", "{\"a\":" ENTRY("F32", "[2]", "0.0", "8") "}", 8, 0, 0},
        {"an offset of 2^64", "{\"a\":" ENTRY("F32", "[2]", "18446744073709551608", "18446744073709551616") "}", 8, 0,
         0},
        {"offsets to the end of 2^64",
         "{\"a\":" ENTRY("F32", "[2]", "18446744073709551607", "18446744073709551615") "}", 8, 0, 0},
        {"offsets an object", "{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":{\"0\":8}}}", 8, 0, 0},
        {"offsets beyond the file", "{\"a\":" ENTRY("F32", "[4]", "0", "16") "}", 8, 0, 0},
    };
    char error[4096];
    for (size_t i = 0; i < sizeof sound / sizeof *sound; i++) {
        put_safetensors(b, &sound[i]);
        read_safetensors(b, error);
        healthy(t, sound[i].what, error);
    }
    for (size_t i = 0; i < sizeof broken / sizeof *broken; i++) {
        put_safetensors(b, &broken[i]);
        read_safetensors(b, error);
        refused(t, broken[i].what, error);
    }
    b->count = 0;
    put_little(b, 8 + 2 * 5000, 8);
    put_text(b, "{\"a\":");
    for (int i = 0; i < 5000; i++) put_text(b, "[");
    for (int i = 0; i < 5000; i++) put_text(b, "]");
    put_text(b, "}  ");
    read_safetensors(b, error);
    refused(t, "5000 levels deep", error);
    b->count = 0;
    put_little(b, 7 + 300 + 3, 8);
    put_text(b, "{\"");
    for (int i = 0; i < 150; i++) put_text(b, "\xC3\xA9");
    put_text(b, "\":[1]}  ");
    read_safetensors(b, error);
    refused(t, "a name of 300 bytes", error);
    unreadable_rows(t);
}

/* ---- Checkpoints of PyTorch -------------------------------------------------------------------------------------- */

/* {'t': _rebuild_tensor_v2(('storage', TYPE, '0', 'cpu', NUMEL), OFFSET, SIZE, STRIDE, …)}; the last four as pickle code. */
#define TENSOR(type, numel, offset, size, stride) \
    "\x80\x02}X\x01\0\0\0t" \
    "ctorch._utils\n_rebuild_tensor_v2\n(" \
    "(X\x07\0\0\0storage" \
    "ctorch\n" type "\nX\x01\0\0\0" \
    "0X\x03\0\0\0cpu" numel "tQ" offset size stride "\x89}tRs."
#define PICKLE(text) text, sizeof(text) - 1
#define GOOD TENSOR("FloatStorage", "K\x04", "K\0", "K\x04\x85", "K\x01\x85")
#define GLOBAL(module, name) \
    "}X\1\0\0\0a" \
    "c" module "\n" name "\n)Rs."

/* {NAME: a tensor of storage "0", NAME2: another}, each with its storage's length as pickle code. */
#define ONE(name, numel) \
    name "ctorch._utils\n_rebuild_tensor_v2\n((X\7\0\0\0storagectorch\nFloatStorage\n" \
         "X\1\0\0\0" \
         "0X\3\0\0\0cpu" numel "tQK\0K\1\x85K\1\x85\x89}tR"
#define TWO(name, numel, name2, numel2) "\x80\x02}(" ONE(name, numel) ONE(name2, numel2) "u."
#define T "X\1\0\0\0t"
#define U "X\1\0\0\0u"

typedef struct pickle_row {
    const char *what, *pickle;
    size_t size;
} pickle_row;

static const pickle_row SOUND[] = {
    {"a tensor", PICKLE(GOOD)},
    {"one value of it", PICKLE(TENSOR("FloatStorage", "K\x04", "K\x03", "K\x01\x85", "K\x01\x85"))},
    {"a 2 x 2 view", PICKLE(TENSOR("FloatStorage", "K\x04", "K\0", "K\2K\2\x86", "K\1K\2\x86"))},
    {"stride 0", PICKLE(TENSOR("FloatStorage", "K\x04", "K\0", "K\x09\x85", "K\0\x85"))},
    {"a scalar", PICKLE(TENSOR("FloatStorage", "K\x04", "K\0", ")", ")"))},
    {"8 dimensions",
     PICKLE(TENSOR("FloatStorage", "K\x04", "K\0", "(K\1K\1K\1K\1K\1K\1K\1K\1t", "(K\1K\1K\1K\1K\1K\1K\1K\1t"))},
    {"other integers", PICKLE(TENSOR("FloatStorage", "J\4\0\0\0", "\x8a\0", "\x8a\1\4\x85", "M\1\0\x85"))},
    {"integers as text", PICKLE(TENSOR("FloatStorage", "I4\n", "L0L\n", "I4\n\x85", "I1\n\x85"))},
    {"two tensors", PICKLE(TWO(T, "K\4", U, "K\4"))},
    {"a memo of text", PICKLE(TENSOR("FloatStorage", "K\4p7\n0g7\n", "K\0", "K\4\x85", "K\1\x85"))},
    {"a name in Greek", PICKLE(TWO(T, "K\4", "X\2\0\0\0\xCE\xB1", "K\4"))},
    {"control characters in a name", PICKLE(TWO(T, "K\4", "X\3\0\0\0\"\n\\", "K\4"))},
    {"protocol 5", PICKLE("\x80\x05}(" ONE(T, "K\4") "u.")},
};

static const pickle_row BROKEN[] = {
    {"os.system", PICKLE("\x80\x02"
                         "cos\nsystem\nX\x02\0\0\0id\x85R.")},
    {"posix.system by STACK_GLOBAL", PICKLE("\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c\x02id\x85R.")},
    {"builtins.eval", PICKLE("\x80\x02"
                             "cbuiltins\neval\n.")},
    {"__builtin__.exec", PICKLE("c__builtin__\nexec\n.")},
    {"subprocess.Popen", PICKLE("csubprocess\nPopen\n.")},
    {"a global as value", PICKLE(GLOBAL("shutil", "rmtree"))},
    {"an allowed name of another module", PICKLE(GLOBAL("evil", "OrderedDict"))},
    {"a name near an allowed one", PICKLE("\x80\x02"
                                          "ctorch._utils\n_rebuild_tensor_v3\n.")},
    {"torch.load within", PICKLE("\x80\x02"
                                 "ctorch\nload\n.")},
    {"INST", PICKLE("(ios\nsystem\n.")},
    {"OBJ", PICKLE("(o.")},
    {"EXT1", PICKLE("\x82\x01.")},
    {"PERSID", PICKLE("Pabc\n.")},
    {"NEXT_BUFFER", PICKLE("\x97.")},
    {"protocol 9", PICKLE("\x80\x09}.")},
    {"nothing", PICKLE("")},
    {"no STOP", PICKLE("}")},
    {"STOP alone", PICKLE(".")},
    {"POP on nothing", PICKLE("0.")},
    {"REDUCE on nothing", PICKLE("R.")},
    {"TUPLE without a mark", PICKLE("Nt.")},
    {"a mark as value", PICKLE("(.")},
    {"recall of nothing", PICKLE("h\x05.")},
    {"a memo of 4 billion", PICKLE("Nr\xff\xff\xff\xff.")},
    {"a string of 4 GB", PICKLE("X\xff\xff\xff\xff"
                                "a.")},
    {"a string of 2^63 bytes", PICKLE("\x8d\xff\xff\xff\xff\xff\xff\xff\x7f"
                                      "a.")},
    {"a line without end", PICKLE("cos")},
    {"an integer of 9 bytes", PICKLE("\x8a\x09"
                                     "123456789.")},
    {"calling a string", PICKLE("X\x01\0\0\0a)R.")},
    {"calling a number", PICKLE("K\x01)R.")},
    {"BUILD on a number", PICKLE("K\x01}b.")},
    {"SETITEM on a list", PICKLE("]K\x01K\x02s.")},
    {"APPEND to a dictionary", PICKLE("}K\x01"
                                      "a.")},
    {"an odd dictionary", PICKLE("(K\x01"
                                 "d.")},
    {"a number for root", PICKLE("K\x01.")},
    {"an empty dictionary", PICKLE("}.")},
    {"a list that holds itself", PICKLE("]q\0h\0a.")},
    {"a dictionary that holds itself", PICKLE("}q\0X\x0a\0\0\0state_dicth\0s.")},
    {"OrderedDict of numbers", PICKLE("ccollections\nOrderedDict\n]K\x01"
                                      "a\x85R.")},
    {"a storage called", PICKLE("ctorch\nFloatStorage\n)R.")},
    {"a storage without length", PICKLE("(X\x07\0\0\0storagectorch\nFloatStorage\ntQ.")},
    {"a storage of strings", PICKLE(TENSOR("StringStorage", "K\x04", "K\0", "K\x01\x85", "K\x01\x85"))},
    {"a Parameter of nothing", PICKLE("ctorch._utils\n_rebuild_parameter\nN\x85R.")},
    {"a tensor of nothing", PICKLE("ctorch._utils\n_rebuild_tensor_v2\n)R.")},
    {"beyond its storage", PICKLE(TENSOR("FloatStorage", "K\x04", "K\0", "K\x05\x85", "K\x01\x85"))},
    {"an offset beyond it", PICKLE(TENSOR("FloatStorage", "K\x04", "K\x04", "K\x01\x85", "K\x01\x85"))},
    {"a stride beyond it", PICKLE(TENSOR("FloatStorage", "K\x04", "K\0", "K\2K\2\x86", "K\3K\1\x86"))},
    {"a negative size", PICKLE(TENSOR("FloatStorage", "K\x04", "K\0", "J\xff\xff\xff\xff\x85", "K\x01\x85"))},
    {"a negative offset", PICKLE(TENSOR("FloatStorage", "K\x04", "J\xff\xff\xff\xff", "K\x01\x85", "K\x01\x85"))},
    {"a negative stride", PICKLE(TENSOR("FloatStorage", "K\x04", "K\0", "K\x01\x85", "J\xff\xff\xff\xff\x85"))},
    {"a stride missing", PICKLE(TENSOR("FloatStorage", "K\x04", "K\0", "K\x01\x85", ")"))},
    {"a stride of 2^40 - 1",
     PICKLE(TENSOR("FloatStorage", "K\x04", "K\0", "K\x02\x85", "\x8a\x06\xff\xff\xff\xff\xff\0\x85"))},
    {"2^60 values of stride 0",
     PICKLE(TENSOR("FloatStorage", "K\x04", "K\0", "\x8a\x05\0\0\0\0\x40\x8a\x05\0\0\0\0\x40\x86", "K\0K\0\x86"))},
    {"2^28 values of stride 0", PICKLE(TENSOR("FloatStorage", "K\x04", "K\0", "J\0\0\0\x10\x85", "K\0\x85"))},
    {"9 dimensions",
     PICKLE(TENSOR("FloatStorage", "K\x04", "K\0", "(K\1K\1K\1K\1K\1K\1K\1K\1K\1t", "(K\1K\1K\1K\1K\1K\1K\1K\1K\1t"))},
    {"a storage longer than its data", PICKLE(TENSOR("FloatStorage", "K\x05", "K\0", "K\x01\x85", "K\x01\x85"))},
    {"another storage type", PICKLE(TENSOR("DoubleStorage", "K\x04", "K\0", "K\x01\x85", "K\x01\x85"))},
    {"protocol 6", PICKLE("\x80\x06}(" ONE(T, "K\4") "u.")},
    {"two tensors of one name", PICKLE(TWO(T, "K\4", T, "K\4"))},
    {"a storage of two lengths", PICKLE(TWO(T, "K\4", U, "K\3"))},
    {"a name that is not UTF-8", PICKLE(TWO(T, "K\4", "X\1\0\0\0\xff", "K\4"))},
    {"NUL in a name", PICKLE(TWO(T, "K\4", "X\2\0\0\0a\0", "K\4"))},
    {"a name that safetensors keeps", PICKLE(TWO(T, "K\4", "X\x0c\0\0\0__metadata__", "K\4"))},
    {"state_dict a number", PICKLE("}X\x0a\0\0\0state_dictK\1s.")},
    {"STACK_GLOBAL of numbers", PICKLE("K\1K\2\x93.")},
    {"a global cut in its name", PICKLE("cos\nsys")},
    {"an overlong control character in a global", PICKLE("c\xe0\x82\x9b\nx\n.")},
    {"a line feed that is none in a global", PICKLE("\x8c\3a\nb\x8c\1x\x93.")},
    {"a memo that is no number", PICKLE("Np7x\n.")},
    {"a memo of no digits", PICKLE("Np\n.")},
    {"a recall that is no number", PICKLE("Np7\ng-7\n.")},
    {"a recall of 10^30", PICKLE("Ng1000000000000000000000000000000\n.")},
    {"an integer that is no number", PICKLE("Iseven\n.")},
    {"an integer of 20 digits", PICKLE("I99999999999999999999\n.")},
    {"a float that is no number", PICKLE("Fpi\n.")},
    {"a float in an integer", PICKLE("I1.5\n.")},
    {"a persistent id that is a string", PICKLE("X\1\0\0\0aQ.")},
    {"a persistent id of nothing", PICKLE("Q.")},
    {"a persistent id of another type", PICKLE("(X\7\0\0\0storagectorch\nSize\nX\1\0\0\0"
                                               "0X\3\0\0\0cpuK\4tQ.")},
    {"a storage that is a view", PICKLE(TENSOR("FloatStorage",
                                               "K\x04"
                                               "X\1\0\0\0vK\0K\2\x87",
                                               "K\0", "K\x02\x85", "K\x01\x85"))},
    {"a persistent id of a module", PICKLE("(X\6\0\0\0modulectorch\nFloatStorage\nX\1\0\0\0"
                                           "0X\3\0\0\0cpuK\4tQ.")},
    {"a storage of -1 values", PICKLE(TENSOR("FloatStorage", "J\xff\xff\xff\xff", "K\0", "K\1\x85", "K\1\x85"))},
    {"LONG4 of 4 GB", PICKLE("\x8b\xff\xff\xff\xff.")},
    {"BINBYTES8 of 2^64 - 1 bytes", PICKLE("\x8e\xff\xff\xff\xff\xff\xff\xff\xff.")},
    {"BYTEARRAY8", PICKLE("\x96\0\0\0\0\0\0\0\0.")},
    {"instruction 0", PICKLE("\0.")},
    {"POP of a mark", PICKLE("(0.")},
    {"DUP of nothing", PICKLE("2.")},
    {"TUPLE3 of two", PICKLE("NN\x87.")},
    {"BUILD on nothing", PICKLE("b.")},
    {"MEMOIZE of nothing", PICKLE("\x94.")},
    {"APPENDS without a mark", PICKLE("]Ne.")},
    {"SETITEMS of three", PICKLE("}(NNNu.")},
    {"a float cut", PICKLE("G\0\0\0.")},
    {"a size as text", PICKLE(TENSOR("FloatStorage", "K\4", "K\0",
                                     "X\1\0\0\0"
                                     "4\x85",
                                     "K\1\x85"))},
    {"a size that is no tuple", PICKLE(TENSOR("FloatStorage", "K\4", "K\0", "K\4", "K\1"))},
    {"a stride of None", PICKLE(TENSOR("FloatStorage", "K\4", "K\0", "K\4\x85", "N\x85"))},
    {"an offset as text", PICKLE(TENSOR("FloatStorage", "K\4",
                                        "X\1\0\0\0"
                                        "0",
                                        "K\4\x85", "K\1\x85"))},
    {"an offset of 2^63 - 1",
     PICKLE(TENSOR("FloatStorage", "K\4", "\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f", "K\2\x85", "K\1\x85"))},
    {"a size of 2^63", PICKLE(TENSOR("FloatStorage", "K\4", "K\0", "\x8a\x09\0\0\0\0\0\0\0\x80\0\x85", "K\1\x85"))},
    {"a size of 2^41", PICKLE(TENSOR("FloatStorage", "K\4", "K\0", "\x8a\6\0\0\0\0\0\2\x85", "K\0\x85"))},
    {"a storage of 2^62 values",
     PICKLE(TENSOR("FloatStorage", "\x8a\x08\0\0\0\0\0\0\0\x40", "K\0", "K\x01\x85", "K\x01\x85"))},
};

typedef struct part {
    const char *name;
    const void *bytes;
    size_t size;
    unsigned method;
} part;

/* A zip file of stored entries. */
static void put_zip(bytes *b, const part *parts, size_t count)
{
    size_t at[8] = {0};
    b->count = 0;
    for (size_t i = 0; i < count; i++) {
        at[i] = b->count;
        put(b, "PK\3\4\0\0\0\0", 8);
        put_little(b, parts[i].method, 2);
        put_zeros(b, 8);
        put_little(b, parts[i].size, 4);
        put_little(b, parts[i].size, 4);
        put_little(b, strlen(parts[i].name), 2);
        put_zeros(b, 2);
        put_text(b, parts[i].name);
        put(b, parts[i].bytes, parts[i].size);
    }
    const size_t start = b->count;
    for (size_t i = 0; i < count; i++) {
        put(b, "PK\1\2\0\0\0\0\0\0", 10);
        put_little(b, parts[i].method, 2);
        put_zeros(b, 8);
        put_little(b, parts[i].size, 4);
        put_little(b, parts[i].size, 4);
        put_little(b, strlen(parts[i].name), 2);
        put_zeros(b, 12);
        put_little(b, at[i], 4);
        put_text(b, parts[i].name);
    }
    const size_t end = b->count;
    put(b, "PK\5\6\0\0\0\0", 8);
    put_little(b, count, 2);
    put_little(b, count, 2);
    put_little(b, end - start, 4);
    put_little(b, start, 4);
    put_zeros(b, 2);
}

static void read_checkpoint(const bytes *b, char *error)
{
    char path[1024], to[1024];
    flis_ctx ctx;
    flis_init(&ctx);
    snprintf(to, sizeof to, "%s", test_scratch("out.safetensors"));
    remove(to);
    const conversion o = {.in = write_file(b, "bad.ckpt", path), .out = to, .quiet = true};
    convert_checkpoint(&ctx, &o);
    snprintf(error, 4096, "%s", ctx.error);
    FILE *out = fopen(to, "rb");
    CHECK((out != NULL) == !*error, "%s",
          out ? "a file was written although the conversion failed" : "nothing was written");
    if (out) fclose(out);
    if (out) flis_file_close(flis_file_open(&ctx, to));
    CHECK(!out || !*ctx.error, "the written file cannot be read: %s", ctx.error);
    snprintf(to, sizeof to, "%s", test_scratch("out.safetensors.partial"));
    CHECK(!(out = fopen(to, "rb")), "an incomplete file is left: %s", error);
    if (out) fclose(out);
    flis_free(&ctx);
}

static const float DATA[4];

/* Pickles that need much stack depth, time or memory to read. */
enum { TUPLES, MARKS, DOUBLES, LINE, MILLIONS, STORAGES, LARGE };

static void put_large(bytes *b, int kind)
{
    b->count = 0;
    if (kind == TUPLES || kind == MARKS)
        for (int i = 0; i < 60000; i++) put(b, "(", 1);
    if (kind == TUPLES)
        for (int i = 0; i < 60000; i++) put(b, "t", 1);
    if (kind == MARKS) put(b, "N", 1);
    if (kind == DOUBLES) put(b, "]", 1);
    for (int i = 0; kind == DOUBLES && i < 100; i++) { /* q: memo; ](h h e: a list that contains it twice */
        const char step[9] = {'q', (char)i, ']', '(', 'h', (char)i, 'h', (char)i, 'e'};
        put(b, step, 9);
    }
    if (kind == LINE) put(b, "c", 1);
    for (int i = 0; kind == LINE && i < 5000; i++) put(b, "a", 1);
    if (kind == MILLIONS) put(b, "N", 1);
    for (int i = 0; kind == MILLIONS && i < 2000000; i++) put(b, "Q", 1);
    static const char before[] = "X\7\0\0\0storageq\0"
                                 "0ctorch\nFloatStorage\nq\1"
                                 "0X\3\0\0\0cpuq\2"
                                 "0";
    if (kind == STORAGES) put(b, before, sizeof before - 1);
    for (int i = 0; kind == STORAGES && i < 65537; i++) {
        char key[8];
        snprintf(key, sizeof key, "%05d", i);
        put(b, "(h\0h\1\x8c\5", 7);
        put(b, key, 5);
        put(b, "h\2K\1tQ0", 7);
    }
    put(b, ".", 1);
}

static void checkpoint_rows(table *t, bytes *b)
{
    char error[4096], what[128];
    for (size_t i = 0; i < sizeof SOUND / sizeof *SOUND; i++) {
        const part parts[2] = {{"a/data.pkl", SOUND[i].pickle, SOUND[i].size, 0}, {"a/data/0", DATA, sizeof DATA, 0}};
        put_zip(b, parts, 2);
        read_checkpoint(b, error);
        healthy(t, SOUND[i].what, error);
    }
    for (size_t i = 0; i < sizeof BROKEN / sizeof *BROKEN; i++) {
        const part parts[2] = {{"a/data.pkl", BROKEN[i].pickle, BROKEN[i].size, 0}, {"a/data/0", DATA, sizeof DATA, 0}};
        put_zip(b, parts, 2);
        read_checkpoint(b, error);
        snprintf(what, sizeof what, "pickle: %s", BROKEN[i].what);
        refused(t, what, error);
    }
    static bytes pickle;
    for (int i = 0; i < LARGE; i++) {
        static const char *const large[LARGE] = {"60000 tuples in one another",
                                                 "60000 marks",
                                                 "lists of twice the one before, 100 deep",
                                                 "a line of 5000 characters",
                                                 "two million persistent ids",
                                                 "65537 storages"};
        put_large(&pickle, i);
        const part parts[2] = {{"a/data.pkl", pickle.at, pickle.count, 0}, {"a/data/0", DATA, sizeof DATA, 0}};
        put_zip(b, parts, 2);
        read_checkpoint(b, error);
        snprintf(what, sizeof what, "pickle: %s", large[i]);
        refused(t, what, error);
    }
}

#define PKL \
    { \
        "a/data.pkl", GOOD, sizeof GOOD - 1, 0 \
    }
#define DATA_0 \
    { \
        "a/data/0", DATA, sizeof DATA, 0 \
    }

/* Sets the position of the local header in the last directory entry, whose name has 8 bytes. */
static void point_last(bytes *b, uint64_t at)
{
    const size_t end = b->count;
    b->count -= 22 + 12;
    put_little(b, at, 4);
    b->count = end;
}

/* Entries that share bytes: a local header inside the data of another entry. */
static void overlap_rows(table *t, bytes *b)
{
    static const char both[] =
        "\x80\x02}(" ONE(T, "K\x0e") "X\1\0\0\0u"
                                     "ctorch._utils\n_rebuild_tensor_v2\n((X\7\0\0\0storagectorch\n"
                                     "FloatStorage\nX\1\0\0\0"
                                     "1X\3\0\0\0cpuK\4tQK\0K\4\x85K\1\x85\x89}tRu.";
    static const char inner[56] = "PK\3\4\0\0\0\0\0\0\0\0\0\0\0\0\0\0\20\0\0\0\20\0\0\0\10\0\0\0a/data/1";
    static const char within[] = "U\x36PK\3\4\0\0\0\0\0\0\0\0\0\0\0\0\0\0\20\0\0\0\20\0\0\0\10\0\0\0a/data/0"
                                 "\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"
                                 "0" GOOD;
    const part two[3] = {{"a/data.pkl", both, sizeof both - 1, 0},
                         {"a/data/0", inner, sizeof inner, 0},
                         {"a/data/1", DATA, sizeof DATA, 0}};
    const part one[2] = {{"a/data.pkl", within, sizeof within - 1, 0}, DATA_0};
    static const char five[] = TENSOR("FloatStorage", "K\5", "K\0", "K\4\x85", "K\1\x85");
    const part last[2] = {{"a/data.pkl", five, sizeof five - 1, 0}, DATA_0};
    char error[4096];
    put_zip(b, two, 3);
    read_checkpoint(b, error);
    healthy(t, "a local header in data", error);
    point_last(b, 30 + 10 + sizeof both - 1 + 30 + 8);
    read_checkpoint(b, error);
    refused(t, "zip: data within other data", error);
    put_zip(b, one, 2);
    read_checkpoint(b, error);
    healthy(t, "a local header in the pickle", error);
    point_last(b, 30 + 10 + 2);
    read_checkpoint(b, error);
    refused(t, "zip: data within the pickle", error);
    put_zip(b, last, 2);
    const size_t end = b->count;
    b->count -= 22 + 54 - 20;
    put_little(b, 20, 4);
    put_little(b, 20, 4);
    b->count = end;
    read_checkpoint(b, error);
    refused(t, "zip: data that runs into the directory", error);
}

/* Sizes and positions of 64 bits: of the last entry, in an extra field, and of the directory, in a record of its own. */
typedef struct wide {
    const char *what;
    uint64_t size, header, at, directory, entries, record;
    int signature;
} wide;

static void put_zip64(bytes *b, const wide *w)
{
    static const part parts[] = {PKL, DATA_0};
    put_zip(b, parts, 2);
    b->count -= 22 + 54; /* the last entry again, with an extra field of 4 + 24 bytes */
    const size_t start = b->count - 46 - 10, header = 30 + 10 + sizeof GOOD - 1;
    put(b,
        "PK\1\2\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff\10\0\34\0\0\0\0\0\0\0\0\0\0\0\xff\xff"
        "\xff\xff",
        46);
    put(b, "a/data/0\1\0\30\0", 12);
    put_little(b, w->size ? w->size : 16, 8);
    put_little(b, w->size ? w->size : 16, 8);
    put_little(b, w->header ? w->header : header, 8);
    const size_t record = b->count;
    put(b, w->signature ? "PK\6\5" : "PK\6\6", 4);
    put_little(b, 44, 8);
    put_zeros(b, 12);
    put_little(b, 2, 8);
    put_little(b, w->entries ? w->entries : 2, 8);
    put_little(b, w->directory ? w->directory : record - start, 8);
    put_little(b, w->at ? w->at : start, 8);
    put(b, "PK\6\7\0\0\0\0", 8);
    put_little(b, w->record ? w->record : record, 8);
    put_little(b, 1, 4);
    put(b, "PK\5\6\0\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\0\0", 22);
}

static void zip64_rows(table *t, bytes *b)
{
    static const uint64_t most = UINT64_MAX, half = (uint64_t)1 << 63;
    const wide row[] = {
        {"zip64", 0, 0, 0, 0, 0, 0, 0},
        {"an entry of 2^63 bytes", half, 0, 0, 0, 0, 0, 0},
        {"an entry of 2^64 - 1 bytes", most, 0, 0, 0, 0, 0, 0},
        {"an entry at byte 2^64 - 1", 0, most, 0, 0, 0, 0, 0},
        {"an entry at byte 2^63", 0, half, 0, 0, 0, 0, 0},
        {"a directory at byte 2^63", 0, 0, half, 0, 0, 0, 0},
        {"a directory of 2^64 - 1 bytes", 0, 0, 0, most, 0, 0, 0},
        {"a directory that ends beyond 2^64", 0, 0, most - 20, 100, 0, 0, 0},
        {"2^64 - 1 entries", 0, 0, 0, 0, most, 0, 0},
        {"a record beyond the file", 0, 0, 0, 0, 0, 1 << 20, 0},
        {"a record at byte 2^64 - 1", 0, 0, 0, 0, 0, most, 0},
        {"another signature of the record", 0, 0, 0, 0, 0, 0, 1},
    };
    char error[4096], what[128];
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        put_zip64(b, &row[i]);
        read_checkpoint(b, error);
        snprintf(what, sizeof what, "zip64: %s", row[i].what);
        (i ? refused : healthy)(t, what, error);
    }
}

static void zip_rows(table *t, bytes *b)
{
    static const struct {
        const char *what;
        part parts[3];
        size_t count;
    } row[] = {
        {"no data.pkl", {DATA_0}, 1},
        {"no data", {PKL}, 1},
        {"two pickles", {PKL, {"b/data.pkl", GOOD, sizeof GOOD - 1, 0}}, 2},
        {"a compressed pickle", {{"a/data.pkl", GOOD, sizeof GOOD - 1, 8}, DATA_0}, 2},
        {"compressed data", {PKL, {"a/data/0", DATA, sizeof DATA, 8}}, 2},
        {"big-endian", {PKL, {"a/byteorder", "big", 3, 0}, DATA_0}, 3},
        {"data of another root", {PKL, {"b/data/0", DATA, sizeof DATA, 0}}, 2},
        {"too little data", {PKL, {"a/data/0", DATA, 15, 0}}, 2},
        {"an empty pickle", {{"a/data.pkl", "", 0, 0}, DATA_0}, 2},
        {"no entries", {PKL}, 0},
    };
    static const part whole[] = {PKL, {"a/byteorder", "little", 6, 0}, DATA_0};
    /* a byte of the undamaged file, counted from its end, and its new value */
    static const struct {
        const char *what;
        size_t from_end;
        uint8_t value;
    } flip[] = {
        {"the directory beyond the file", 6 - 2, 0x7f},
        {"the directory's size", 10 - 2, 0x7f},
        {"more entries than the directory", 12 - 1, 9},
        {"no end record", 22, 'X'},
        {"a directory entry's signature", 22 + 54, 'X'},
        {"an entry beyond the file", 22 + 12 - 2, 0x7f},
        {"an entry longer than the file", 22 + 54 - 24 + 2, 0x7f},
    };
    char error[4096], what[128];
    put_zip(b, whole, 3);
    read_checkpoint(b, error);
    healthy(t, "zip", error);
    put_zip(b, whole, 3);
    put_text(b, "a comment");
    b->at[b->count - 11] = 9; /* its length, in the record before it */
    read_checkpoint(b, error);
    healthy(t, "zip with a comment", error);
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        put_zip(b, row[i].parts, row[i].count);
        read_checkpoint(b, error);
        snprintf(what, sizeof what, "zip: %s", row[i].what);
        refused(t, what, error);
    }
    for (size_t i = 0; i < sizeof flip / sizeof *flip; i++) {
        put_zip(b, whole, 3);
        b->at[b->count - flip[i].from_end] = flip[i].value;
        read_checkpoint(b, error);
        snprintf(what, sizeof what, "zip: %s", flip[i].what);
        refused(t, what, error);
    }
    static const size_t left[] = {0, 3, 4, 30, 100};
    for (size_t i = 0; i < sizeof left / sizeof *left; i++) {
        put_zip(b, whole, 3);
        b->count = left[i];
        read_checkpoint(b, error);
        snprintf(what, sizeof what, "zip: its first %zu bytes", left[i]);
        refused(t, what, error);
    }
    b->count = 0;
    put_text(b, "\x89PNG\r\n\x1a\n and so on");
    read_checkpoint(b, error);
    refused(t, "a picture for a checkpoint", error);
    /* numbers of more than one byte in the last directory entry, data/0 */
    static const struct {
        const char *what;
        struct {
            size_t from_end;
            uint64_t value;
            int bytes;
        } patch[2];
    } lie[] = {
        {"an encrypted entry", {{22 + 54 - 8, 1, 2}}},
        {"another method in the directory", {{22 + 54 - 10, 12, 2}}},
        {"both sizes beyond the file", {{22 + 54 - 20, 1000, 4}, {22 + 54 - 24, 1000, 4}}},
        {"both sizes short", {{22 + 54 - 20, 8, 4}, {22 + 54 - 24, 8, 4}}},
        {"an entry that points to another", {{22 + 12, 0, 4}}},
        {"an entry that points into another", {{22 + 12, 7, 4}}},
        {"a name of 65535 bytes", {{22 + 54 - 28, 0xffff, 2}}},
        {"an entry without a name", {{22 + 54 - 28, 0, 2}}},
        {"one entry fewer", {{12, 2, 2}}},
        {"a directory of no bytes", {{10, 0, 4}}},
        {"a directory that begins later", {{6, 250, 4}}},
    };
    for (size_t i = 0; i < sizeof lie / sizeof *lie; i++) {
        put_zip(b, whole, 3);
        for (int k = 0; k < 2; k++) {
            const size_t end = b->count;
            b->count -= lie[i].patch[k].from_end;
            put_little(b, lie[i].patch[k].value, lie[i].patch[k].bytes);
            b->count = end;
        }
        read_checkpoint(b, error);
        snprintf(what, sizeof what, "zip: %s", lie[i].what);
        refused(t, what, error);
    }
    overlap_rows(t, b);
    zip64_rows(t, b);
}

/* The old format: magic number, protocol, system information, object, keys, and for each key its count and values. */
typedef struct legacy_row {
    const char *what, *magic, *system, *object, *keys;
    uint64_t count;
    size_t values;
} legacy_row;
#define MAGIC "\x80\x02\x8a\x0al\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19."
#define LITTLE "\x80\x02}(X\x0d\0\0\0little_endian\x88u."
#define BIG "\x80\x02}(X\x0d\0\0\0little_endian\x89u."
#define OLD \
    "\x80\x02}X\1\0\0\0t" \
    "ctorch._utils\n_rebuild_tensor_v2\n((X\7\0\0\0storagectorch\nFloatStorage\nX\1\0\0\0" \
    "0X\3\0\0\0cpuK\4NtQK\0K\4\x85K\1\x85\x89}tRs."
#define KEYS \
    "\x80\x02]X\1\0\0\0" \
    "0a."
enum {
    MAGIC_SIZE = sizeof MAGIC - 1,
    LITTLE_SIZE = sizeof LITTLE - 1,
    OLD_SIZE = sizeof OLD - 1,
    KEYS_SIZE = sizeof KEYS - 1
};

static void put_legacy(bytes *b, const char *system, const char *keys, size_t keys_size, uint64_t count, size_t values)
{
    b->count = 0;
    put(b, MAGIC, MAGIC_SIZE);
    put(b, "\x80\x02M\xe9\x03.", 6);
    put(b, system, LITTLE_SIZE);
    put(b, OLD, OLD_SIZE);
    put(b, keys, keys_size);
    put_little(b, count, 8);
    put_zeros(b, values);
}

static void legacy_rows(table *t, bytes *b)
{
    static const struct {
        const char *what, *system, *keys;
        size_t keys_size;
        uint64_t count;
        size_t values;
    } row[] = {
        {"big-endian", BIG, PICKLE(KEYS), 4, 16},
        {"keys not a list", LITTLE, PICKLE("\x80\x02K\1."), 4, 16},
        {"keys of numbers", LITTLE, PICKLE("\x80\x02]K\1a."), 4, 16},
        {"a key that no tensor names", LITTLE,
         PICKLE("\x80\x02]X\1\0\0\0"
                "9a."),
         4, 16},
        {"a key twice", LITTLE,
         PICKLE("\x80\x02](X\1\0\0\0"
                "0X\1\0\0\0"
                "0e."),
         4, 40},
        {"no keys", LITTLE, PICKLE("\x80\x02]."), 4, 16},
        {"another count", LITTLE, PICKLE(KEYS), 5, 20},
        {"a count of 2^64 - 1", LITTLE, PICKLE(KEYS), UINT64_MAX, 16},
        {"data cut", LITTLE, PICKLE(KEYS), 4, 15},
        {"no data", LITTLE, PICKLE(KEYS), 4, 0},
    };
    char error[4096], what[128];
    put_legacy(b, LITTLE, PICKLE(KEYS), 4, 16);
    read_checkpoint(b, error);
    healthy(t, "old format", error);
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        put_legacy(b, row[i].system, row[i].keys, row[i].keys_size, row[i].count, row[i].values);
        read_checkpoint(b, error);
        snprintf(what, sizeof what, "old format: %s", row[i].what);
        refused(t, what, error);
    }
    static const size_t left[] = {MAGIC_SIZE, MAGIC_SIZE + 6, MAGIC_SIZE + 6 + LITTLE_SIZE,
                                  MAGIC_SIZE + 6 + LITTLE_SIZE + 20, MAGIC_SIZE + 6 + LITTLE_SIZE + OLD_SIZE};
    for (size_t i = 0; i < sizeof left / sizeof *left; i++) {
        put_legacy(b, LITTLE, PICKLE(KEYS), 4, 16);
        b->count = left[i];
        read_checkpoint(b, error);
        snprintf(what, sizeof what, "old format: its first %zu bytes", left[i]);
        refused(t, what, error);
    }
    put_legacy(b, LITTLE, PICKLE(KEYS), 4, 16);
    b->at[5] ^= 1;
    read_checkpoint(b, error);
    refused(t, "old format: another magic number", error);
}

/* ---- Label maps -------------------------------------------------------------------------------------------------- */

static uint32_t crc_of(const uint8_t *p, size_t count)
{
    uint32_t c = 0xFFFFFFFF;
    for (size_t i = 0; i < count; i++) {
        c ^= p[i];
        for (int k = 0; k < 8; k++) c = c >> 1 ^ (c & 1 ? 0xEDB88320 : 0);
    }
    return ~c;
}

static void put_chunk(bytes *b, const char *type, const void *data, size_t count)
{
    put_big(b, count, 4);
    const size_t start = b->count;
    put(b, type, 4);
    put(b, data, count);
    put_big(b, crc_of(b->at + start, b->count - start), 4);
}

static void put_head(bytes *b, uint32_t w, uint32_t h, int depth, int color, int compression, int filter, int interlace)
{
    static bytes head;
    head.count = b->count = 0;
    put(b, "\x89PNG\r\n\x1a\n", 8);
    put_big(&head, w, 4);
    put_big(&head, h, 4);
    const uint8_t rest[5] = {(uint8_t)depth, (uint8_t)color, (uint8_t)compression, (uint8_t)filter, (uint8_t)interlace};
    put(&head, rest, 5);
    put_chunk(b, "IHDR", head.at, head.count);
}

/* zlib: one stored block. */
static void put_pixels(bytes *b, const char *rows, size_t count, uint32_t adler_change)
{
    static bytes z;
    uint32_t s = 1, u = 0;
    z.count = 0;
    put(&z, "\x78\x01\x01", 3);
    put_little(&z, count, 2);
    put_little(&z, ~(uint64_t)count & 0xFFFF, 2);
    put(&z, rows, count);
    for (size_t i = 0; i < count; i++) s = (s + (uint8_t)rows[i]) % 65521, u = (u + s) % 65521;
    put_big(&z, (u << 16 | s) ^ adler_change, 4);
    put_chunk(b, "IDAT", z.at, z.count);
}

static void read_label(const bytes *b, const char *name, char *error)
{
    char path[1024];
    flis_ctx ctx;
    flis_picture picture;
    flis_init(&ctx);
    if (flis_read_label(&ctx, write_file(b, name, path), &picture)) free(picture.pixels);
    snprintf(error, 4096, "%s", ctx.error);
    flis_free(&ctx);
}

/* 2 x 2 gray pixels: rows of a filter byte and two pixels. */
static void put_png(bytes *b, const char *rows, size_t count)
{
    put_head(b, 2, 2, 8, 0, 0, 0, 0);
    put_pixels(b, rows, count, 0);
    put_chunk(b, "IEND", "", 0);
}

static void png_rows(table *t, bytes *b)
{
    static const struct {
        const char *what;
        uint32_t w, h;
        int depth, color, compression, filter, interlace;
    } head[] = {
        {"no width", 0, 2, 8, 0, 0, 0, 0},
        {"a width of 2^31", 0x80000000u, 2, 8, 0, 0, 0, 0},
        {"16384 x 16384", 16384, 16384, 8, 0, 0, 0, 0},
        {"3 bits", 2, 2, 3, 0, 0, 0, 0},
        {"a palette of 16 bits", 2, 2, 16, 3, 0, 0, 0},
        {"colour type 1", 2, 2, 8, 1, 0, 0, 0},
        {"RGB of 16 bits", 2, 2, 16, 2, 0, 0, 0},
        {"alpha and 16 bits", 2, 2, 16, 4, 0, 0, 0},
        {"RGB of 4 bits", 2, 2, 4, 2, 0, 0, 0},
        {"compression 1", 2, 2, 8, 0, 1, 0, 0},
        {"filter method 1", 2, 2, 8, 0, 0, 1, 0},
        {"interlace 2", 2, 2, 8, 0, 0, 0, 2},
    };
    char error[4096], what[128];
    put_png(b, "\0\1\2\0\3\4", 6);
    read_label(b, "bad.png", error);
    healthy(t, "PNG", error);
    const size_t whole = b->count;
    for (size_t i = 0; i < sizeof head / sizeof *head; i++) {
        put_head(b, head[i].w, head[i].h, head[i].depth, head[i].color, head[i].compression, head[i].filter,
                 head[i].interlace);
        put_pixels(b, "\0\1\2\0\3\4", 6, 0);
        put_chunk(b, "IEND", "", 0);
        read_label(b, "bad.png", error);
        snprintf(what, sizeof what, "PNG: %s", head[i].what);
        refused(t, what, error);
    }
    static const struct {
        const char *what, *rows;
        size_t count;
    } rows[] = {
        {"filter 5", "\5\1\2\0\3\4", 6},
        {"a pixel too few", "\0\1\2\0\3", 5},
        {"no pixels", "", 0},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        put_png(b, rows[i].rows, rows[i].count);
        read_label(b, "bad.png", error);
        snprintf(what, sizeof what, "PNG: %s", rows[i].what);
        refused(t, what, error);
    }
    static const struct {
        const char *what;
        size_t at;
        uint8_t value;
    } flip[] = {
        {"text mode", 4, '\n'},        {"a changed CRC", 32, 0},      {"another first chunk", 12, 'X'},
        {"a chunk of 2 GB", 33, 0x7f}, {"a chunk of no type", 38, 0},
    };
    for (size_t i = 0; i < sizeof flip / sizeof *flip; i++) {
        put_png(b, "\0\1\2\0\3\4", 6);
        b->at[flip[i].at] = flip[i].value;
        read_label(b, "bad.png", error);
        snprintf(what, sizeof what, "PNG: %s", flip[i].what);
        refused(t, what, error);
    }
    static const size_t left[] = {0, 7, 8, 20, 33, 50};
    for (size_t i = 0; i < sizeof left / sizeof *left + 1; i++) {
        put_png(b, "\0\1\2\0\3\4", 6);
        b->count = i < sizeof left / sizeof *left ? left[i] : whole - 13;
        read_label(b, "bad.png", error);
        snprintf(what, sizeof what, "PNG: its first %zu bytes", b->count);
        refused(t, what, error);
    }
    put_head(b, 2, 2, 8, 0, 0, 0, 0);
    put_pixels(b, "\0\1\2\0\3\4", 6, 1);
    put_chunk(b, "IEND", "", 0);
    read_label(b, "bad.png", error);
    refused(t, "PNG: a changed checksum of pixels", error);
    put_head(b, 2, 2, 8, 0, 0, 0, 0);
    put_chunk(b, "IDAT", "\x78\x02\1\0\0\xff\xff\0\0\0\1", 11);
    put_chunk(b, "IEND", "", 0);
    read_label(b, "bad.png", error);
    refused(t, "PNG: another header of zlib", error);
    put_head(b, 2, 2, 16, 0, 0, 0, 0);
    put_pixels(b, "\0\0\1\0\2\0\1\1\0\3", 10, 0);
    put_chunk(b, "IEND", "", 0);
    read_label(b, "bad.png", error);
    refused(t, "PNG: class number 257", error);
}

/* Deflate's fixed code, lowest bit first: a literal zero, then `times` matches of length 258. */
static void put_bomb(bytes *b, size_t times)
{
    static const unsigned char code[13] = {1, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 0, 0}; /* symbol 285, distance 0 */
    unsigned held = 3 | 0x0c << 3, bits = 11; /* the final block, with the fixed code; literal 0 is 00110000 */
    for (size_t i = 0; i < times; i++)
        for (int k = 0; k < 13; k++) {
            held |= (unsigned)code[k] << bits++;
            for (; bits >= 8; bits -= 8, held >>= 8) put_little(b, held & 255, 1);
        }
    put_little(b, held, 3); /* the end of the block is seven zeros */
}

typedef struct chunk_row {
    const char *what;
    uint8_t depth, color, interlace;
    struct {
        const char *type, *data;
        size_t count;
    } chunk[5];
    bool sound;
} chunk_row;
#define GRAY "\x78\1\1\6\0\xf9\xff\0\1\2\0\3\4\0\x1d\0\x0b", 17
#define SEVEN "\x78\1\1\7\0\xf8\xff\0\1\0\2\0\3\4\0\x1f\0\x0b", 18
#define TEN "\x78\1\1\x0a\0\xf5\xff\0\0\1\0\2\0\0\1\0\3\0\x24\0\x08", 21

/* 2 x 2 pixels in chunks of all kinds. */
static void chunk_rows(table *t, bytes *b)
{
    static const char colours[257 * 3];
    const chunk_row row[] = {
        {"PNG of gray", 8, 0, 0, {{"IDAT", GRAY}}, true},
        {"PNG in two pieces and none",
         8,
         0,
         0,
         {{"IDAT", "\x78\1\1\6\0\xf9\xff\0\1\2", 10}, {"IDAT", "", 0}, {"IDAT", "\0\3\4\0\x1d\0\x0b", 7}},
         true},
        {"PNG among other chunks", 8, 0, 0, {{"gAMA", "\0\1\x86\xa0", 4}, {"IDAT", GRAY}, {"tEXt", "a\0b", 3}}, true},
        {"PNG with a palette", 8, 3, 0, {{"PLTE", colours, 15}, {"IDAT", GRAY}}, true},
        {"PNG with less of a palette: the label is the index", 8, 3, 0, {{"PLTE", colours, 6}, {"IDAT", GRAY}}, true},
        {"interlaced PNG", 8, 0, 1, {{"IDAT", SEVEN}}, true},
        {"PNG of 16 bits", 16, 0, 0, {{"IDAT", TEN}}, true},
        {"no IDAT", 8, 0, 0, {{"tEXt", "a\0b", 3}}, false},
        {"an empty IDAT", 8, 0, 0, {{"IDAT", "", 0}}, false},
        {"IDATs apart",
         8,
         0,
         0,
         {{"IDAT", "\x78\1\1\6\0\xf9\xff\0\1\2", 10}, {"tEXt", "a\0b", 3}, {"IDAT", "\0\3\4\0\x1d\0\x0b", 7}},
         false},
        {"a second IHDR", 8, 0, 0, {{"IHDR", "\0\0\0\2\0\0\0\2\x8\0\0\0\0", 13}, {"IDAT", GRAY}}, false},
        {"a palette in gray", 8, 0, 0, {{"PLTE", colours, 6}, {"IDAT", GRAY}}, true},
        {"two palettes", 8, 3, 0, {{"PLTE", colours, 6}, {"PLTE", colours, 6}, {"IDAT", GRAY}}, false},
        {"a palette behind the pixels", 8, 3, 0, {{"IDAT", GRAY}, {"PLTE", colours, 6}}, true},
        {"a palette of 4 bytes", 8, 3, 0, {{"PLTE", colours, 4}, {"IDAT", GRAY}}, false},
        {"a palette of nothing", 8, 3, 0, {{"PLTE", "", 0}, {"IDAT", GRAY}}, false},
        {"257 colours", 8, 3, 0, {{"PLTE", colours, 257 * 3}, {"IDAT", GRAY}}, false},
        {"3 colours for 1 bit", 1, 3, 0, {{"PLTE", colours, 9}, {"IDAT", GRAY}}, true},
        {"a chunk that must be known", 8, 0, 0, {{"ABCD", "?", 1}, {"IDAT", GRAY}}, false},
        {"IEND with data", 8, 0, 0, {{"IDAT", GRAY}, {"IEND", "!", 1}}, true},
        {"a pass of an interlaced picture too few", 8, 0, 1, {{"IDAT", GRAY}}, false},
        {"rows of 16 bits cut", 16, 0, 0, {{"IDAT", GRAY}}, false},
        {"compressed data cut in their header", 8, 0, 0, {{"IDAT", "\x78", 1}}, false},
        {"compressed data cut in a block", 8, 0, 0, {{"IDAT", "\x78\1\1\6\0\xf9\xff\0\1", 9}}, false},
        {"compressed data cut in their checksum",
         8,
         0,
         0,
         {{"IDAT", "\x78\1\1\6\0\xf9\xff\0\1\2\0\3\4\0\x1d", 15}},
         true},
        {"a byte behind the compressed data", 8, 0, 0, {{"IDAT", GRAY}, {"IDAT", "!", 1}}, true},
        {"a preset dictionary", 8, 0, 0, {{"IDAT", "\x78\x20\1\6\0\xf9\xff\0\1\2\0\3\4\0\x1d\0\x0b", 17}}, false},
        {"a block's length and its complement",
         8,
         0,
         0,
         {{"IDAT", "\x78\1\1\6\0\xf8\xff\0\1\2\0\3\4\0\x1d\0\x0b", 17}},
         false},
        {"a block of kind 3", 8, 0, 0, {{"IDAT", "\x78\1\7\6\0\xf9\xff\0\1\2\0\3\4\0\x1d\0\x0b", 17}}, false},
        {"a copy from before the beginning", 8, 0, 0, {{"IDAT", "\x78\1\x03\2\0\0\0\0\0", 9}}, false},
    };
    char error[4096], what[128];
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        put_head(b, 2, 2, row[i].depth, row[i].color, 0, 0, row[i].interlace);
        for (int k = 0; k < 5 && row[i].chunk[k].type; k++)
            put_chunk(b, row[i].chunk[k].type, row[i].chunk[k].data, row[i].chunk[k].count);
        put_chunk(b, "IEND", "", 0);
        read_label(b, "bad.png", error);
        snprintf(what, sizeof what, "PNG: %s", row[i].what);
        (row[i].sound ? healthy : refused)(t, what, error);
    }
    static bytes z;
    z.count = 0;
    put(&z, "\x78\1", 2);
    put_bomb(&z, 40000);
    put_head(b, 2, 2, 8, 0, 0, 0, 0);
    put_chunk(b, "IDAT", z.at, z.count);
    put_chunk(b, "IEND", "", 0);
    read_label(b, "bad.png", error);
    healthy(t, "PNG: 10 MB of pixels in 65 kB", error); /* only the first 6 bytes are unpacked */
    b->count = 0;
    put(b, "\x89PNG\r\n\x1a\n", 8);
    put_chunk(b, "IHDR", "\0\0\0\2\0\0\0\2\x8\0\0\0", 12);
    read_label(b, "bad.png", error);
    refused(t, "PNG: an IHDR of 12 bytes", error);
}

static void text_rows(table *t, bytes *b)
{
    static const struct {
        const char *what, *text;
        bool sound;
    } row[] = {
        {"PGM", "P2 2 1 255 3 4", true},
        {"PGM: no size", "P2", false},
        {"PGM: a size of 0", "P2 0 1 255", false},
        {"PGM: 10^9 wide", "P2 1000000000 1 255 0", false},
        {"PGM: maxval 0", "P2 1 1 0 0", false},
        {"PGM: maxval 65536", "P2 1 1 65536 0", false},
        {"PGM: a pixel missing", "P2 2 1 255 3", false},
        {"PGM: a pixel above maxval", "P2 2 1 7 3 8", false},
        {"PGM: class number 256", "P2 1 1 1000 256", false},
        {"PGM: words", "P2 two 1 255", false},
        {"PGM: bytes missing", "P5 2 2 255\nabc", false},
        {"PGM: no end of the header", "P5 2 2 255", false},
        {"PGM of bytes", "P5 2 2 255\nabcd", true},
        {"PGM of 16 bits", "P2 1 1 65535 255", true},
        {"PGM with comments", "P2 # a\n1 #b\n1 255 7\n", true},
        {"PGM: no maxval", "P2 2 1", false},
        {"PGM: a size of -1", "P2 -1 1 255 0", false},
        {"PGM: 16385 wide", "P2 16385 1 255 0", false},
        {"PGM: 10^30 wide", "P2 1000000000000000000000000000000 1 255 0", false},
        {"PGM: maxval 4294967551", "P2 1 1 4294967551 0", false},
        {"PGM: a number with a point", "P2 1 1 255 1.5", false},
        {"PGM: a pixel too many", "P2 1 1 255 1 2", true},
        {"PGM: bytes too many", "P5 1 1 255\nab", true},
        {"PGM: CR LF", "P5 1 1 255\r\na", false},
        {"PGM: 16 bits cut", "P5 1 1 65535\na", false},
        {"PGM: class number 24930", "P5 1 1 65535\nab", false},
        {"PGM: a byte above maxval", "P5 1 1 7\na", false},
        {"PGM: a comment without end", "P2 1 # 1 255 0", false},
        {"PGM: its magic number alone", "P5", false},
        {"PGM: 16384 x 16384 in a few bytes", "P5 16384 16384 255\nabc", false},
        {"PGM: 8192 x 8192 in a few bytes", "P5 8192 8192 255\nabc", false},
        {"PPM of text", "P3 1 1 255 1 2 3", false},
        {"PBM", "P1 1 1 0", false},
        {"PAM", "P7\nWIDTH 1\n", false},
        {"PFM", "Pf\n1 1\n-1.0\n", false},
        {"PPM", "P6 1 1 255\nabc", false},
        {"a JPEG", "\xFF\xD8\xFF\xE0 JFIF", false},
        {"an empty label map", "", false},
        {"words for a label map", "hello", false},
    };
    char error[4096];
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        b->count = 0;
        put_text(b, row[i].text);
        read_label(b, "bad.pgm", error);
        (row[i].sound ? healthy : refused)(t, row[i].what, error);
    }
}

/* ---- Layouts, vocabularies, models ------------------------------------------------------------------------------- */

static void layout_rows(table *t, bytes *b)
{
    static const struct {
        const char *what, *text;
        bool sound;
    } row[] = {
        {"layout", "{\"text_label_mapping\":{\"sea\":1},\"layout_path\":\"map.pgm\"}", true},
        {"layout of pairs", "{\"text_label_mapping\":[[\"sea\",1],[\"sea\",2]],\"layout_path\":\"map.pgm\"}", true},
        {"layout: empty", "", false},
        {"layout: an array", "[]", false},
        {"layout: cut", "{\"text_label_mapping\":{\"sea\":1},\"layout_pa", false},
        {"layout: a comment", "{} // sea", false},
        {"layout: single quotes", "{'text_label_mapping':{}}", false},
        {"layout: no mapping", "{\"layout_path\":\"map.pgm\"}", false},
        {"layout: mapping a string", "{\"text_label_mapping\":\"sea\",\"layout_path\":\"map.pgm\"}", false},
        {"layout without phrases", "{\"text_label_mapping\":{},\"layout_path\":\"map.pgm\"}", true},
        {"layout: id 256", "{\"text_label_mapping\":{\"sea\":256},\"layout_path\":\"map.pgm\"}", false},
        {"layout: id -2", "{\"text_label_mapping\":{\"sea\":-2},\"layout_path\":\"map.pgm\"}", false},
        {"layout: id 1.5", "{\"text_label_mapping\":{\"sea\":1.5},\"layout_path\":\"map.pgm\"}", false},
        {"layout: id as text", "{\"text_label_mapping\":{\"sea\":\"1\"},\"layout_path\":\"map.pgm\"}", false},
        {"layout: id 1e999", "{\"text_label_mapping\":{\"sea\":1e999},\"layout_path\":\"map.pgm\"}", false},
        {"layout: half a pair", "{\"text_label_mapping\":[[\"sea\"]],\"layout_path\":\"map.pgm\"}", false},
        {"layout: pairs turned round", "{\"text_label_mapping\":[[1,\"sea\"]],\"layout_path\":\"map.pgm\"}", false},
        {"layout: NUL in a phrase", "{\"text_label_mapping\":{\"se\\u0000a\":1},\"layout_path\":\"map.pgm\"}", false},
        {"layout: no map", "{\"text_label_mapping\":{\"sea\":1},\"layout_path\":\"absent.png\"}", false},
        {"layout: map a number", "{\"text_label_mapping\":{\"sea\":1},\"layout_path\":7}", false},
        {"layout: map a layout", "{\"text_label_mapping\":{\"sea\":1},\"layout_path\":\"bad.json\"}", false},
        {"layout: bad UTF-8",
         "{\"text_label_mapping\":{\"s\xe9"
         "a\":1},\"layout_path\":\"map.pgm\"}",
         false},
        {"layout: a line break in a string", "{\"text_label_mapping\":{\"s\na\":1}}", false},
        {"layout with an empty phrase", "{\"text_label_mapping\":{\"\":1},\"layout_path\":\"map.pgm\"}", true},
        {"layout with a name twice", "{\"text_label_mapping\":{\"sea\":1,\"sea\":2},\"layout_path\":\"map.pgm\"}",
         true},
        {"layout with a surrogate pair", "{\"text_label_mapping\":{\"\\ud83d\\ude42\":-1},\"layout_path\":\"map.pgm\"}",
         true},
        {"layout: the first of two ids wrong",
         "{\"text_label_mapping\":{\"sea\":300,\"sea\":2},\"layout_path\":\"map.pgm\"}", false},
        {"layout: id null", "{\"text_label_mapping\":{\"sea\":null},\"layout_path\":\"map.pgm\"}", false},
        {"layout: id -0", "{\"text_label_mapping\":{\"sea\":-0},\"layout_path\":\"map.pgm\"}", true},
        {"layout: id 2^64", "{\"text_label_mapping\":{\"sea\":18446744073709551616},\"layout_path\":\"map.pgm\"}",
         false},
        {"layout: a pair of three", "{\"text_label_mapping\":[[\"sea\",1,2]],\"layout_path\":\"map.pgm\"}", false},
        {"layout: a phrase without its pair", "{\"text_label_mapping\":[\"sea\",1],\"layout_path\":\"map.pgm\"}",
         false},
        {"layout: mapping null", "{\"text_label_mapping\":null,\"layout_path\":\"map.pgm\"}", false},
        {"layout: map null", "{\"text_label_mapping\":{\"sea\":1},\"layout_path\":null}", false},
        {"layout: map of no name", "{\"text_label_mapping\":{\"sea\":1},\"layout_path\":\"\"}", false},
        {"layout: NUL in the map's name", "{\"text_label_mapping\":{\"sea\":1},\"layout_path\":\"map.pgm\\u0000.png\"}",
         false},
        {"layout: a map at the root, not there",
         "{\"text_label_mapping\":{\"sea\":1},\"layout_path\":\"/no/such/absent.png\"}", false},
        {"layout: a damaged map", "{\"text_label_mapping\":{\"sea\":1},\"layout_path\":\"cut.pgm\"}", false},
        {"JSON: a number -", "{\"a\":-}", false},
        {"JSON: a number 01", "{\"a\":01}", false},
        {"JSON: a number +1", "{\"a\":+1}", false},
        {"JSON: a number .5", "{\"a\":.5}", false},
        {"JSON: a number 1.", "{\"a\":1.}", false},
        {"JSON: a number 1e", "{\"a\":1e}", false},
        {"JSON: a number 0x10", "{\"a\":0x10}", false},
        {"JSON: Infinity", "{\"a\":Infinity}", false},
        {"JSON: True", "{\"a\":True}", false},
        {"JSON: half a pair, the high one", "{\"\\ud83d\":1}", false},
        {"JSON: half a pair, the low one", "{\"\\ude42\":1}", false},
        {"JSON: two high halves", "{\"\\ud83d\\ud83d\":1}", false},
        {"JSON: an escape cut", "{\"\\u12\":1}", false},
        {"JSON: an escape that is none", "{\"\\x41\":1}", false},
        {"JSON: a string without end", "{\"a", false},
        {"JSON: a byte order mark", "\xEF\xBB\xBF{}", false},
        {"JSON: a comma too many", "{\"a\":1,}", false},
        {"JSON: no comma", "{\"a\":1 \"b\":2}", false},
        {"JSON: another bracket", "{\"a\":[1}", false},
        {"JSON: a value behind it", "{} {}", false},
        {"JSON: a surrogate in UTF-8", "{\"\xED\xA0\x80\":1}", false},
        {"JSON: 64 deep",
         "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]"
         "]]]]]]]]]]]]]]]]]]]",
         false},
        {"JSON: 65 deep", "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[", false},
        {"JSON: UTF-16", "\xff\xfe{", false},
    };
    char error[4096], path[1024];
    b->count = 0;
    put_text(b, "P2 1 1 255 1");
    write_file(b, "map.pgm", path);
    b->count--;
    write_file(b, "cut.pgm", path);
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        flis_ctx ctx;
        flis_layout layout = {0};
        flis_init(&ctx);
        b->count = 0;
        put_text(b, row[i].text);
        flis_layout_read(&ctx, write_file(b, "bad.json", path), &layout);
        flis_layout_free(&layout);
        snprintf(error, sizeof error, "%s", ctx.error);
        (row[i].sound ? healthy : refused)(t, row[i].what, error);
        flis_free(&ctx);
    }
}

static void vocabulary_rows(table *t)
{
    static const struct {
        const char *what, *text;
        size_t length;
        bool sound;
    } row[] = {
        {"vocabulary", PICKLE("#version: 0.2\na b</w>\n"), true},
        {"vocabulary without a version", PICKLE("a b</w>\n"), true},
        {"vocabulary: one word in a line", PICKLE("#version: 0.2\nab\n"), false},
        {"vocabulary: three words", PICKLE("#version: 0.2\na b c\n"), false},
        {"vocabulary: NUL", PICKLE("#version: 0.2\na \0b\n"), false},
        {"vocabulary: an unknown part", PICKLE("#version: 0.2\nab c\n"), false},
        {"vocabulary: a merge twice", PICKLE("#version: 0.2\na b\na b\n"), false},
        {"vocabulary: bad UTF-8", PICKLE("#version: 0.2\na \xff\n"), false},
        {"vocabulary with line ends of two", PICKLE("#version: 0.2\r\na b</w>\r\n"), true},
        {"vocabulary: nothing", PICKLE(""), false},
        {"vocabulary: line ends alone", PICKLE("\n\n"), false},
        {"vocabulary: an empty line", PICKLE("a b\n\nb c\n"), false},
        {"vocabulary: a space before", PICKLE(" a b\n"), false},
        {"vocabulary: a space behind", PICKLE("a b \n"), false},
        {"vocabulary: two spaces", PICKLE("a  b\n"), false},
        {"vocabulary: a tab", PICKLE("a\tb\n"), false},
        {"vocabulary: a word's end on its left", PICKLE("a</w> b\n"), false},
        {"vocabulary: an unknown part on its right", PICKLE("a bc\n"), false},
        {"vocabulary: the version later", PICKLE("a b\n#version: 0.2\n"), false},
        {"vocabulary: a picture", PICKLE("\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR"), false},
        {"vocabulary: JSON", PICKLE("{\"a\": 1}\n"), false},
        {"vocabulary: a letter that stands for no byte", PICKLE("a \xE2\x82\xAC\n"), false},
        {"vocabulary: a line of 100 characters",
         PICKLE(
             "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa b\n"),
         false},
    };
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        flis_ctx ctx;
        flis_init(&ctx);
        flis_vocab_free(flis_vocab_parse(&ctx, "merges.txt", row[i].text, row[i].length));
        (row[i].sound ? healthy : refused)(t, row[i].what, ctx.error);
        flis_free(&ctx);
    }
}

/* A vocabulary file, plain or compressed with gzip. */
static void read_vocabulary(const char *path, char *error)
{
    flis_ctx ctx;
    flis_init(&ctx);
    flis_vocab_free(flis_vocab_read(&ctx, path));
    snprintf(error, 4096, "%s", ctx.error);
    flis_free(&ctx);
}

static void put_gzip(bytes *b)
{
    static const char text[] = "#version: 0.2\na b</w>\n";
    const size_t count = sizeof text - 1;
    b->count = 0;
    put(b, "\x1f\x8b\x08\0\0\0\0\0\0\x03\1", 11);
    put_little(b, count, 2);
    put_little(b, ~count & 0xffff, 2);
    put(b, text, count);
    put_little(b, crc_of((const uint8_t *)text, count), 4);
    put_little(b, count, 4);
}

static void gzip_rows(table *t, bytes *b)
{
    static const struct {
        const char *what;
        size_t at;
        uint8_t value;
    } flip[] = {
        {"another method", 2, 7},          {"a flag that is reserved", 3, 0x80},
        {"a file name without end", 3, 8}, {"a header checksum that differs", 3, 2},
        {"a block of kind 3", 10, 7},      {"another letter", 20, 'x'},
        {"another checksum", 37, 0},       {"another length", 41, 9},
    };
    static const size_t left[] = {2, 9, 10, 15, 30, 37, 44};
    char error[4096], what[128], path[1024];
    put_gzip(b);
    read_vocabulary(write_file(b, "bad.gz", path), error);
    healthy(t, "vocabulary in gzip", error);
    for (size_t i = 0; i < sizeof flip / sizeof *flip; i++) {
        put_gzip(b);
        b->at[flip[i].at] = flip[i].value;
        read_vocabulary(write_file(b, "bad.gz", path), error);
        snprintf(what, sizeof what, "gzip: %s", flip[i].what);
        refused(t, what, error);
    }
    for (size_t i = 0; i < sizeof left / sizeof *left; i++) {
        put_gzip(b);
        b->count = left[i];
        read_vocabulary(write_file(b, "bad.gz", path), error);
        snprintf(what, sizeof what, "gzip: its first %zu bytes", left[i]);
        refused(t, what, error);
    }
    put_gzip(b);
    put_text(b, "more");
    read_vocabulary(write_file(b, "bad.gz", path), error);
    refused(t, "gzip: something behind it", error);
    b->count = 10;
    put_bomb(b, 262144);
    read_vocabulary(write_file(b, "bad.gz", path), error);
    refused(t, "gzip: 67 MB in 426 kB", error);
    read_vocabulary(test_scratch("absent.txt"), error);
    refused(t, "vocabulary: no file", error);
}

/* Models in several files: an index of shards. */
static void index_rows(table *t, bytes *b)
{
    static const struct {
        const char *what, *text;
        bool sound;
    } row[] = {
        {"index", "{\"weight_map\":{\"a\":\"one.safetensors\"}}", true},
        {"index: not an object", "7", false},
        {"index: no weight_map", "{}", false},
        {"index: weight_map a list", "{\"weight_map\":[]}", false},
        {"index: no shards", "{\"weight_map\":{}}", false},
        {"index: a shard that is a number", "{\"weight_map\":{\"a\":1}}", false},
        {"index: a shard that is not there", "{\"weight_map\":{\"a\":\"two.safetensors\"}}", false},
        {"index: a tensor that the shard lacks",
         "{\"weight_map\":{\"a\":\"one.safetensors\",\"b\":\"one.safetensors\"}}", false},
        {"index: out of the folder", "{\"weight_map\":{\"a\":\"../one.safetensors\"}}", false},
        {"index: an absolute path", "{\"weight_map\":{\"a\":\"/one.safetensors\"}}", false},
        {"index of two",
         "{\"metadata\":{\"total_size\":8},\"weight_map\":{\"a\":\"one.safetensors\",\"b\":\"other.safetensors\"}}",
         true},
        {"index: a tensor in two shards", "{\"weight_map\":{\"a\":\"one.safetensors\",\"b\":\"twin.safetensors\"}}",
         false},
        {"index: a tensor of the other shard",
         "{\"weight_map\":{\"b\":\"one.safetensors\",\"a\":\"other.safetensors\"}}", false},
        {"index: a damaged shard", "{\"weight_map\":{\"a\":\"cut.safetensors\"}}", false},
        {"index: the folder above", "{\"weight_map\":{\"a\":\"..\"}}", false},
        {"index: a path of the other slash", "{\"weight_map\":{\"a\":\"..\\\\one.safetensors\"}}", false},
        {"index: a shard of no name", "{\"weight_map\":{\"a\":\"\"}}", false},
        {"index: a shard null", "{\"weight_map\":{\"a\":null}}", false},
        {"index: NUL in a shard's name", "{\"weight_map\":{\"a\":\"one.safetensors\\u0000\"}}", false},
        {"index: NUL in a tensor's name", "{\"weight_map\":{\"a\\u0000\":\"one.safetensors\"}}", false},
        {"index: a line feed in a tensor's name", "{\"weight_map\":{\"a\\n\":\"one.safetensors\"}}", false},
        {"index: weight_map null", "{\"weight_map\":null}", false},
        {"index: empty", "", false},
        {"index: cut", "{\"weight_map\":{\"a\":\"one.saf", false},
        {"index: no text", "\x02", false},
    };
    char error[4096], path[1024];
    const header_row one = {"", "{\"a\":" A "}", 8, 0, 0};
    const header_row other = {"", "{\"b\":" A "}", 8, 0, 0},
                     twin = {"", "{\"a\":" A ",\"b\":" ENTRY("F32", "[2]", "8", "16") "}", 16, 0, 0};
    put_safetensors(b, &other);
    write_file(b, "other.safetensors", path);
    put_safetensors(b, &twin);
    write_file(b, "twin.safetensors", path);
    put_safetensors(b, &one);
    write_file(b, "one.safetensors", path);
    b->count--;
    write_file(b, "cut.safetensors", path);
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        flis_ctx ctx;
        flis_init(&ctx);
        b->count = 0;
        put_text(b, row[i].text);
        flis_file_close(flis_model_open(&ctx, write_file(b, "bad.index.json", path)));
        snprintf(error, sizeof error, "%s", ctx.error);
        (row[i].sound ? healthy : refused)(t, row[i].what, error);
        flis_free(&ctx);
    }
}

/* A file of a wrong kind, a folder instead of a file, and a missing file. */
static void confused_rows(table *t, bytes *b)
{
    enum { MODEL, LABEL, LAYOUT, VOCABULARY, CHECKPOINT };
    static const struct {
        const char *what, *name;
        int as;
    } row[] = {
        {"a checkpoint for a model", "bad.ckpt", MODEL},
        {"a zip file for a model", "zip.safetensors", MODEL},
        {"a picture for a model", "map.pgm", MODEL},
        {"a layout for a model", "map.json", MODEL},
        {"a folder for a model", "", MODEL},
        {"no model", "absent.safetensors", MODEL},
        {"no index", "absent.index.json", MODEL},
        {"a model for a label map", "one.safetensors", LABEL},
        {"a zip file for a label map", "zip.safetensors", LABEL},
        {"a folder for a label map", "", LABEL},
        {"no label map", "absent.png", LABEL},
        {"a label map for a layout", "map.pgm", LAYOUT},
        {"a model for a layout", "one.safetensors", LAYOUT},
        {"a folder for a layout", "", LAYOUT},
        {"no layout", "absent.json", LAYOUT},
        {"a label map for a vocabulary", "map.pgm", VOCABULARY},
        {"a layout for a vocabulary", "map.json", VOCABULARY},
        {"a folder for a vocabulary", "", VOCABULARY},
        {"a zip file for a vocabulary", "zip.safetensors", VOCABULARY},
        {"a model for a checkpoint", "one.safetensors", CHECKPOINT},
        {"a layout for a checkpoint", "map.json", CHECKPOINT},
        {"a folder for a checkpoint", "", CHECKPOINT},
        {"no checkpoint", "absent.ckpt", CHECKPOINT},
    };
    static const part zip[] = {PKL, DATA_0};
    char path[1024], to[1024];
    put_zip(b, zip, 2);
    write_file(b, "zip.safetensors", path);
    b->count = 0;
    put_text(b, "{\"text_label_mapping\":{\"sea\":1},\"layout_path\":\"map.pgm\"}");
    write_file(b, "map.json", path);
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        flis_ctx ctx;
        flis_layout layout = {0};
        flis_picture picture = {0};
        flis_init(&ctx);
        snprintf(path, sizeof path, "%s", test_scratch(row[i].name));
        snprintf(to, sizeof to, "%s", test_scratch("out.safetensors"));
        const conversion o = {.in = path, .out = to, .quiet = true};
        if (row[i].as == MODEL) flis_file_close(flis_model_open(&ctx, path));
        if (row[i].as == LABEL && flis_read_label(&ctx, path, &picture)) free(picture.pixels);
        if (row[i].as == LAYOUT) flis_layout_read(&ctx, path, &layout);
        if (row[i].as == VOCABULARY) flis_vocab_free(flis_vocab_read(&ctx, path));
        if (row[i].as == CHECKPOINT) convert_checkpoint(&ctx, &o);
        flis_layout_free(&layout);
        refused(t, row[i].what, ctx.error);
        flis_free(&ctx);
    }
}

/* A diffusers folder: three parts, each with its config.json and its weights. */
static void folder_rows(table *t, bytes *b)
{
    static const char *const parts[3] = {"unet", "vae", "text_encoder"};
    static const struct {
        const char *what, *config[3];
        int weights[3];
        bool sound;
    } row[] = {
        /* weights: 0 complete, 1 cut, 2 missing */
        {"folder", {"{}", "{}", "{}"}, {0, 0, 0}, true},
        {"folder with configurations",
         {"{\"attention_head_dim\":[8,8,8,8],\"num_attention_heads\":null,\"layers_per_block\":2,\"up_block_types\":"
          "[\"UpBlock2D\"]}",
          "{\"block_out_channels\":[32,64],\"scaling_factor\":0.18215,\"norm_num_groups\":16}",
          "{\"num_attention_heads\":2}"},
         {0, 0, 0},
         true},
        {"no config.json in vae", {"{}", NULL, "{}"}, {0, 0, 0}, false},
        {"no config.json in text_encoder", {"{}", "{}", NULL}, {0, 0, 0}, false},
        {"no config.json in unet", {NULL, "{}", "{}"}, {0, 0, 0}, false},
        {"no weights in unet", {"{}", "{}", "{}"}, {2, 0, 0}, false},
        {"no weights in vae", {"{}", "{}", "{}"}, {0, 2, 0}, false},
        {"no weights in text_encoder", {"{}", "{}", "{}"}, {0, 0, 2}, false},
        {"weights cut", {"{}", "{}", "{}"}, {0, 1, 0}, false},
        {"config.json empty", {"", "{}", "{}"}, {0, 0, 0}, false},
        {"config.json cut", {"{}", "{\"a\"", "{}"}, {0, 0, 0}, false},
        {"config.json an array", {"{}", "{}", "[]"}, {0, 0, 0}, false},
        {"config.json of Python", {"{'a':1}", "{}", "{}"}, {0, 0, 0}, false},
        {"heads 0", {"{\"attention_head_dim\":0}", "{}", "{}"}, {0, 0, 0}, false},
        {"heads -1", {"{\"num_attention_heads\":-1}", "{}", "{}"}, {0, 0, 0}, false},
        {"heads as text", {"{\"attention_head_dim\":\"8\"}", "{}", "{}"}, {0, 0, 0}, false},
        {"heads of nothing", {"{\"attention_head_dim\":[]}", "{}", "{}"}, {0, 0, 0}, false},
        {"heads a list of text", {"{\"attention_head_dim\":[\"8\"]}", "{}", "{}"}, {0, 0, 0}, false},
        {"heads of several numbers", {"{\"attention_head_dim\":[5,10,20,20]}", "{}", "{}"}, {0, 0, 0}, false},
        {"heads 65537", {"{}", "{}", "{\"num_attention_heads\":65537}"}, {0, 0, 0}, false},
        {"heads true", {"{}", "{}", "{\"num_attention_heads\":true}"}, {0, 0, 0}, false},
        {"blocks 0", {"{\"layers_per_block\":0}", "{}", "{}"}, {0, 0, 0}, false},
        {"blocks 2.5", {"{\"layers_per_block\":2.5}", "{}", "{}"}, {0, 0, 0}, false},
        {"blocks 65", {"{\"layers_per_block\":65}", "{}", "{}"}, {0, 0, 0}, false},
        {"blocks an object", {"{\"layers_per_block\":{}}", "{}", "{}"}, {0, 0, 0}, false},
        {"scale 0", {"{}", "{\"scaling_factor\":0}", "{}"}, {0, 0, 0}, false},
        {"scale 1e999", {"{}", "{\"scaling_factor\":1e999}", "{}"}, {0, 0, 0}, false},
        {"groups -32", {"{}", "{\"norm_num_groups\":-32}", "{}"}, {0, 0, 0}, false},
        {"groups as text", {"{\"norm_num_groups\":\"32\"}", "{}", "{}"}, {0, 0, 0}, false},
        {"up blocks a name", {"{\"up_block_types\":\"UpBlock2D\"}", "{}", "{}"}, {0, 0, 0}, false},
        {"up blocks of nothing", {"{\"up_block_types\":[]}", "{}", "{}"}, {0, 0, 0}, false},
        {"up blocks of numbers", {"{\"up_block_types\":[1]}", "{}", "{}"}, {0, 0, 0}, false},
        {"widths a number", {"{}", "{\"block_out_channels\":128}", "{}"}, {0, 0, 0}, false},
        {"widths of text", {"{}", "{\"block_out_channels\":[\"128\"]}", "{}"}, {0, 0, 0}, false},
        {"nine widths", {"{}", "{\"block_out_channels\":[1,1,1,1,1,1,1,1,1]}", "{}"}, {0, 0, 0}, false},
    };
    char error[4096], what[128], path[1024], name[64], command[1200];
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        for (int k = 0; k < 3; k++) {
            snprintf(name, sizeof name, "folder/%s/config.json", parts[k]);
            snprintf(path, sizeof path, "%s", test_scratch(name));
            snprintf(command, sizeof command, "mkdir -p '%.*s'", (int)(strlen(path) - strlen("/config.json")), path);
            CHECK(i || system(command) == 0, "%s", command);
            remove(path);
            b->count = 0;
            if (row[i].config[k]) put_text(b, row[i].config[k]);
            if (row[i].config[k]) write_file(b, name, path);
            snprintf(name, sizeof name, "folder/%s/diffusion_pytorch_model.safetensors", parts[k]);
            remove(test_scratch(name));
            const char *const header[3] = {"{\"u\":" A "}", "{\"v\":" A "}", "{\"t\":" A "}"};
            const header_row weights = {"", header[k], 8, 0, row[i].weights[k] == 1};
            put_safetensors(b, &weights);
            if (row[i].weights[k] < 2) write_file(b, name, path);
        }
        for (int k = 0; k < 3; k++) snprintf(name, sizeof name, "folder/%s", parts[k]), test_scratch(name);
        flis_ctx ctx;
        flis_init(&ctx);
        flis_file_close(flis_model_open(&ctx, test_scratch("folder")));
        snprintf(error, sizeof error, "%s", ctx.error);
        snprintf(what, sizeof what, "folder: %s", row[i].what);
        (row[i].sound ? healthy : refused)(t, what, error);
        flis_free(&ctx);
    }
}

/* ---- Complete models with some wrong tensors --------------------------------------------------------------- */

enum { NOT_THERE = 1, TURNED, LONGER, DEEPER, INTEGERS, BYTES, NOT_FINITE, HALF };
typedef struct model_row {
    const char *what;
    struct {
        const char *name;
        int kind;
    } wrong[4];
    const char *key, *value;
    bool sound;
} model_row;
typedef struct maker {
    const model_row *row;
    flis_writer *writer;
    bool values;
} maker;

/* A visitor: declares the weight, or writes its values. The row determines which names (by their end, or with "*" by a
   part) are damaged, and how. */
static bool make_weight(flis_ctx *ctx, void *user, const char *name, flis_param *param)
{
    const maker *m = user;
    const size_t length = strlen(name);
    uint64_t shape[5] = {0}, count = 1;
    int rank = param->rank, kind = 0;
    for (int k = 0; k < 4 && m->row->wrong[k].name; k++) {
        const char *want = m->row->wrong[k].name;
        const size_t n = strlen(want);
        if (want[0] == '*' ? strstr(name, want + 1) != NULL : n <= length && strcmp(name + length - n, want) == 0)
            kind = m->row->wrong[k].kind;
    }
    for (int i = 0; i < rank; i++) shape[i] = param->shape[i];
    if (kind == NOT_THERE) return true;
    if (kind == TURNED) shape[0] = param->shape[1], shape[1] = param->shape[0];
    if (kind == LONGER) shape[0]++;
    if (kind == DEEPER) shape[rank++] = 2;
    for (int i = 0; i < rank; i++) count *= shape[i];
    const flis_dtype dtype = kind == INTEGERS ? FLIS_I64 : kind == BYTES ? FLIS_U8 : kind == HALF ? FLIS_F16 : FLIS_F32;
    if (!m->values) return flis_write_declare(ctx, m->writer, name, dtype, rank, shape);
    double *x = flis_alloc(ctx, (size_t)count, sizeof *x);
    if (x && kind == NOT_FINITE) x[count / 2] = HUGE_VAL;
    if (x) flis_write_f64(ctx, m->writer, x, (size_t)count);
    free(x);
    return flis_ok(ctx);
}

enum { TEXT_PART, UNET_PART, VAE_PART };

/* Writes the part's weights and loads them. */
static void read_model(const model_row *row, int which, char *error)
{
    static const flis_clip_config text_config = {
        .vocab = 514, .width = 64, .layers = 2, .heads = 1, .hidden = 64, .positions = 77};
    static const flis_unet_config unet_config = {.in = 4,
                                                 .out = 4,
                                                 .channels = 32,
                                                 .levels = 2,
                                                 .mult = {1, 1},
                                                 .attention = {true, true},
                                                 .blocks = 1,
                                                 .heads = 8,
                                                 .context = 64};
    static const flis_vae_config vae_config = {
        .channels = 32, .levels = 4, .mult = {1, 1, 1, 1}, .blocks = 2, .z = 4, .embed = 4, .scale_factor = 1};
    flis_ctx ctx;
    flis_init(&ctx);
    flis_clip *text = which == TEXT_PART ? flis_clip_new(&ctx, &text_config) : NULL;
    flis_unet *unet = which == UNET_PART ? flis_unet_new(&ctx, &unet_config) : NULL;
    flis_vae *vae = which == VAE_PART ? flis_vae_new(&ctx, &vae_config, true, true) : NULL;
    char path[1024];
    snprintf(path, sizeof path, "%s", test_scratch("bad.safetensors"));
    maker m = {row, flis_write_begin(&ctx, path), false};
    if (row->key) flis_write_metadata(&ctx, m.writer, row->key, row->value);
    for (int pass = 0; pass < 2; pass++, m.values = true) {
        if (text) flis_clip_walk(&ctx, text, make_weight, &m);
        if (unet) flis_unet_walk(&ctx, unet, make_weight, &m);
        if (vae) flis_vae_walk(&ctx, vae, make_weight, &m);
    }
    CHECK(flis_write_end(&ctx, m.writer), "%s", ctx.error);
    flis_clip_free(text);
    flis_unet_free(unet);
    flis_vae_free(vae);
    flis_file *file = flis_model_open(&ctx, path);
    if (which == TEXT_PART) flis_clip_free(flis_clip_load(&ctx, file));
    if (which == UNET_PART) flis_unet_free(flis_unet_load(&ctx, file));
    if (which == VAE_PART) flis_vae_free(flis_vae_load(&ctx, file, true, true));
    flis_file_close(file);
    snprintf(error, 4096, "%s", ctx.error);
    flis_free(&ctx);
}

static void model_rows(table *t)
{
    static const struct {
        int part;
        model_row row;
    } row[] = {
        {TEXT_PART, {"text encoder", {{NULL, 0}}, NULL, NULL, true}},
        {TEXT_PART, {"text encoder of halves", {{"*", HALF}}, NULL, NULL, true}},
        {TEXT_PART, {"text encoder: one tensor missing", {{"final_layer_norm.bias", NOT_THERE}}, NULL, NULL, false}},
        {TEXT_PART,
         {"text encoder: three missing",
          {{"q_proj.weight", NOT_THERE}, {"layer_norm2.bias", NOT_THERE}, {"fc2.bias", NOT_THERE}},
          NULL,
          NULL,
          false}},
        {TEXT_PART,
         {"text encoder: a matrix turned round", {{"position_embedding.weight", TURNED}}, NULL, NULL, false}},
        {TEXT_PART, {"text encoder: a bias too long", {{"k_proj.bias", LONGER}}, NULL, NULL, false}},
        {TEXT_PART, {"text encoder: a dimension more", {{"v_proj.weight", DEEPER}}, NULL, NULL, false}},
        {TEXT_PART, {"text encoder: integers for weights", {{"out_proj.weight", INTEGERS}}, NULL, NULL, false}},
        {TEXT_PART,
         {"text encoder: bytes for weights",
          {{"token_embedding.weight", BYTES}, {"fc1.bias", BYTES}},
          NULL,
          NULL,
          false}},
        {TEXT_PART, {"text encoder: not finite", {{"fc1.weight", NOT_FINITE}}, NULL, NULL, false}},
        {TEXT_PART,
         {"text encoder: two not finite",
          {{"q_proj.bias", NOT_FINITE}, {"fc2.weight", NOT_FINITE}},
          NULL,
          NULL,
          false}},
        {TEXT_PART,
         {"text encoder: missing, misshaped and of integers",
          {{"q_proj.weight", LONGER}, {"k_proj.weight", NOT_THERE}, {"fc1.bias", INTEGERS}, {"fc2.weight", DEEPER}},
          NULL,
          NULL,
          false}},
        {TEXT_PART,
         {"text encoder: nothing but its embeddings",
          {{"*.layers.", NOT_THERE}, {"*final_layer_norm.", NOT_THERE}},
          NULL,
          NULL,
          false}},
        {TEXT_PART,
         {"text encoder: the first norm of its last layer missing",
          {{"layers.1.layer_norm1.weight", NOT_THERE}},
          NULL,
          NULL,
          false}},
        {TEXT_PART, {"text encoder: its first layer missing", {{"*.layers.0.", NOT_THERE}}, NULL, NULL, false}},
        {TEXT_PART, {"text encoder: all its layers missing", {{"*.layers.", NOT_THERE}}, NULL, NULL, false}},
        {TEXT_PART, {"text encoder: no embeddings", {{"token_embedding.weight", NOT_THERE}}, NULL, NULL, false}},
        {TEXT_PART, {"text encoder: heads 0", {{NULL, 0}}, "clip.num_heads", "0", false}},
        {TEXT_PART, {"text encoder: heads 3", {{NULL, 0}}, "clip.num_heads", "3", false}},
        {TEXT_PART, {"text encoder: heads two", {{NULL, 0}}, "clip.num_heads", "two", false}},
        {TEXT_PART, {"text encoder: heads 1.5", {{NULL, 0}}, "clip.num_heads", "1.5", false}},
        {TEXT_PART, {"text encoder: heads of no text", {{NULL, 0}}, "clip.num_heads", "", false}},
        {TEXT_PART, {"text encoder: heads 1e9", {{NULL, 0}}, "clip.num_heads", "1e9", false}},
        {TEXT_PART, {"text encoder: heads behind a space", {{NULL, 0}}, "clip.num_heads", "1 1", false}},
        {UNET_PART, {"U-Net", {{NULL, 0}}, NULL, NULL, true}},
        {UNET_PART,
         {"U-Net: missing and misshaped",
          {{"input_blocks.1.0.in_layers.2.weight", LONGER}, {"time_embed.2.bias", NOT_THERE}, {"out.2.bias", INTEGERS}},
          NULL,
          NULL,
          false}},
        {UNET_PART, {"U-Net: all biases missing", {{".bias", NOT_THERE}}, NULL, NULL, false}},
        {UNET_PART,
         {"U-Net: not finite",
          {{"middle_block.1.norm.bias", NOT_FINITE}, {".out.0.weight", NOT_FINITE}},
          NULL,
          NULL,
          false}},
        {UNET_PART, {"U-Net: no first tensor", {{"input_blocks.0.0.weight", NOT_THERE}}, NULL, NULL, false}},
        {UNET_PART,
         {"U-Net: the norm by which attention is known missing",
          {{"input_blocks.1.1.norm.weight", NOT_THERE}},
          NULL,
          NULL,
          false}},
        {UNET_PART, {"U-Net: a downsample missing", {{"input_blocks.2.0.op.weight", NOT_THERE}}, NULL, NULL, false}},
        {UNET_PART, {"U-Net: a block missing", {{"*.input_blocks.2.", NOT_THERE}}, NULL, NULL, false}},
        {UNET_PART,
         {"U-Net: all that shapes are read from missing",
          {{"out.2.weight", NOT_THERE}, {"middle_block.1.transformer_blocks.0.attn2.to_k.weight", NOT_THERE}},
          NULL,
          NULL,
          false}},
        {UNET_PART, {"U-Net: heads -8", {{NULL, 0}}, "unet.num_heads", "-8", false}},
        {UNET_PART, {"U-Net: heads 7", {{NULL, 0}}, "unet.num_heads", "7", false}},
        {UNET_PART, {"U-Net: groups 5", {{NULL, 0}}, "unet.norm_num_groups", "5", false}},
        {VAE_PART, {"autoencoder", {{NULL, 0}}, NULL, NULL, true}},
        {VAE_PART,
         {"autoencoder: missing and misshaped",
          {{"decoder.mid.attn_1.q.weight", DEEPER},
           {"encoder.mid.attn_1.q.weight", LONGER},
           {"post_quant_conv.bias", NOT_THERE},
           {"decoder.conv_out.bias", BYTES}},
          NULL,
          NULL,
          false}},
        {VAE_PART, {"autoencoder: no encoder", {{"*.encoder.", NOT_THERE}}, NULL, NULL, false}},
        {VAE_PART, {"autoencoder: no decoder", {{"*.decoder.", NOT_THERE}}, NULL, NULL, false}},
        {VAE_PART, {"autoencoder: no quant_conv", {{".quant_conv.weight", NOT_THERE}}, NULL, NULL, false}},
        {VAE_PART,
         {"autoencoder: the norm by which blocks are counted missing",
          {{"decoder.up.0.block.2.norm1.weight", NOT_THERE}},
          NULL,
          NULL,
          false}},
        {VAE_PART,
         {"autoencoder: the norm by which levels are counted missing",
          {{"decoder.up.2.block.0.norm2.weight", NOT_THERE}},
          NULL,
          NULL,
          false}},
        {VAE_PART, {"autoencoder: scale 0", {{NULL, 0}}, "vae.scale_factor", "0", false}},
        {VAE_PART, {"autoencoder: scale nan", {{NULL, 0}}, "vae.scale_factor", "nan", false}},
        {VAE_PART, {"autoencoder: groups 33", {{NULL, 0}}, "vae.norm_num_groups", "33", false}},
    };
    char error[4096];
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        read_model(&row[i].row, row[i].part, error);
        (row[i].row.sound ? healthy : refused)(t, row[i].row.what, error);
    }
}

/* ---- x_T and training states ---------------------------------------------------------------------------------- */

/* The model is missing: with a valid noise file, that is the error of flis_generate. */
static void noise_rows(table *t, bytes *b)
{
#define NOISE(name, dtype, shape, size) "{\"" name "\":" ENTRY(dtype, shape, "0", size) "}"
    static const header_row row[] = {
        {"noise", NOISE("x_T", "F32", "[1,4,8,8]", "1024"), 1024, 0, 0},
        {"noise of another name", NOISE("z", "F64", "[1,4,8,8]", "2048"), 2048, 0, 0},
        {"noise of another size", NOISE("x_T", "F32", "[1,4,8,9]", "1152"), 1152, 0, 0},
        {"noise of two samples", NOISE("x_T", "F32", "[2,4,8,8]", "2048"), 2048, 0, 0},
        {"noise without its first dimension", NOISE("x_T", "F32", "[4,8,8]", "1024"), 1024, 0, 0},
        {"noise of halves", NOISE("x_T", "F16", "[1,4,8,8]", "512"), 512, 0, 0},
        {"noise of integers", NOISE("x_T", "I32", "[1,4,8,8]", "1024"), 1024, 0, 0},
        {"noise of no tensors", "{}", 0, 0, 0},
        {"noise of two tensors, none of which is x_T", "{\"a\":" A ",\"b\":" ENTRY("F32", "[1]", "8", "12") "}", 12, 0,
         0},
        {"noise cut", NOISE("x_T", "F32", "[1,4,8,8]", "1024"), 1024, 0, 1},
        {"noise that is not finite", NOISE("x_T", "F32", "[1,4,8,8]", "1024"), 1024, 0, 0},
        {"noise in the channels last", NOISE("x_T", "F32", "[1,8,8,4]", "1024"), 1024, 0, 0},
    };
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        char path[1024], model[1024];
        flis_ctx ctx;
        flis_options o;
        flis_layout layout = {0};
        flis_picture picture = {0};
        flis_init(&ctx);
        flis_options_default(&o);
        o.width = o.height = 64;
        put_safetensors(b, &row[i]);
        if (strstr(row[i].what, "not finite")) memcpy(b->at + b->count - 4, "\0\0\x80\x7f", 4);
        o.noise = write_file(b, "noise.safetensors", path);
        snprintf(model, sizeof model, "%s", test_scratch("absent.safetensors"));
        flis_generate(&ctx, model, NULL, &layout, &o, &picture);
        const bool sound = strncmp(ctx.error, model, strlen(model)) == 0;
        CHECK(!picture.pixels, "%s: a picture is left", row[i].what);
        (i < 2 ? healthy : refused)(t, row[i].what, sound ? "" : ctx.error);
        flis_free(&ctx);
    }
}

static void training_rows(table *t, bytes *b)
{
#define STATE_OF(step, moment) \
    "{\"__metadata__\":{" step \
    "},\"w\":" ENTRY("F32", "[3]", "0", "12") ",\"adamw.m.w\":" ENTRY("F32", "[3]", "12", "24") ",\"" moment "}"
#define STATE(step) STATE_OF(step, "adamw.v.w\":" ENTRY("F32", "[3]", "24", "36"))
    static const header_row row[] = {
        {"state", STATE("\"adamw.step\":\"7\""), 36, 0, 0},
        {"state of the last step", STATE("\"adamw.step\":\"18446744073709551615\""), 36, 0, 0},
        {"state without a step", STATE(""), 36, 0, 0},
        {"state: a step of no text", STATE("\"adamw.step\":\"\""), 36, 0, 0},
        {"state: step -1", STATE("\"adamw.step\":\"-1\""), 36, 0, 0},
        {"state: step 1.5", STATE("\"adamw.step\":\"1.5\""), 36, 0, 0},
        {"state: step 1e3", STATE("\"adamw.step\":\"1e3\""), 36, 0, 0},
        {"state: step +7", STATE("\"adamw.step\":\"+7\""), 36, 0, 0},
        {"state: step 7x", STATE("\"adamw.step\":\"7x\""), 36, 0, 0},
        {"state: step 2^64", STATE("\"adamw.step\":\"18446744073709551616\""), 36, 0, 0},
        {"state: no second moment", STATE_OF("\"adamw.step\":\"7\"", "other\":" ENTRY("F32", "[3]", "24", "36")), 36, 0,
         0},
        {"state: a moment of 4 values",
         STATE_OF("\"adamw.step\":\"7\"", "adamw.v.w\":" ENTRY("F32", "[4]", "24", "40")), 40, 0, 0},
        {"state: a moment of rank 2",
         STATE_OF("\"adamw.step\":\"7\"", "adamw.v.w\":" ENTRY("F32", "[3,1]", "24", "36")), 36, 0, 0},
        {"state cut", STATE("\"adamw.step\":\"7\""), 36, 0, 4},
    };
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        static const flis_real zero[3];
        char path[1024];
        flis_ctx ctx;
        training state;
        flis_param w = {.rank = 1, .shape = {3}};
        flis_init(&ctx);
        training_default(&state);
        flis_param_set(&ctx, &w, zero, true);
        training_visit(&ctx, &state, "w", &w);
        put_safetensors(b, &row[i]);
        flis_file *file = flis_file_open(&ctx, write_file(b, "state.safetensors", path));
        if (file) training_read(&ctx, file, &state);
        (i < 2 ? healthy : refused)(t, row[i].what, ctx.error);
        CHECK(i || state.step == 7, "step %llu", (unsigned long long)state.step);
        flis_file_close(file);
        training_free(&state);
        flis_free_visit(&ctx, NULL, "w", &w);
        flis_free(&ctx);
    }
}

/* Each of these files is refused when it is cut, at every `step`-th byte, and accepted when what it holds is complete. */
static void cut_files(size_t step)
{
    static const header_row tensors = {
        "", "{\"__metadata__\":{\"x\":\"y\"},\"a\":" A ",\"b\":" ENTRY("U8", "[3,1]", "8", "11") "}", 11, 0, 0};
    static const part zip[] = {PKL, DATA_0};
    static bytes b;
    for (int kind = 0; kind < 4; kind++) {
        size_t whole = 1;
        for (size_t cut = 0; cut <= whole; cut += cut < whole && cut + step > whole ? whole - cut : step) {
            char error[4096], path[1024];
            if (kind == 0) put_safetensors(&b, &tensors);
            if (kind == 1) put_png(&b, "\0\1\2\0\3\4", 6);
            if (kind == 2) put_gzip(&b);
            if (kind == 3) put_zip(&b, zip, 2);
            whole = b.count;
            b.count = cut;
            if (kind == 0) read_safetensors(&b, error);
            if (kind == 1) read_label(&b, "bad.png", error);
            if (kind == 2) read_vocabulary(write_file(&b, "bad.gz", path), error);
            if (kind == 3) read_checkpoint(&b, error);
            const size_t needed = kind == 1 ? whole - 12 : whole; /* a PNG without IEND has its pixels: a warning */
            CHECK((cut < needed) == (*error != 0) && (!*error || is_sentence(error)), "kind %d, %zu of %zu bytes: %s",
                  kind, cut, whole, *error ? error : "accepted");
        }
    }
}

void test_damage_cut(void)
{
    cut_files(17);
}

/* slow */
void test_damage_cut_everywhere(void)
{
    cut_files(1);
}

void test_damage_table(void)
{
    static bytes b;
    static table t;
    table_open(&t);
    safetensors_rows(&t, &b);
    checkpoint_rows(&t, &b);
    zip_rows(&t, &b);
    legacy_rows(&t, &b);
    png_rows(&t, &b);
    chunk_rows(&t, &b);
    text_rows(&t, &b);
    layout_rows(&t, &b);
    vocabulary_rows(&t);
    gzip_rows(&t, &b);
    index_rows(&t, &b);
    confused_rows(&t, &b);
    folder_rows(&t, &b);
    model_rows(&t);
    noise_rows(&t, &b);
    training_rows(&t, &b);
    table_close(&t);
    CHECK(t.rows >= 550 && t.healthy >= 60, "%zu damaged files, %zu undamaged ones", t.rows, t.healthy);
    if (getenv("FLIS_TEST_ERRORS")) fprintf(stderr, "%zu damaged files, %zu undamaged ones\n", t.rows, t.healthy);
}
