/* test_damage.c - damaged and hostile files, each with the whole sentence that it must end in: golden/damage.txt, one line
 * for each ("what", tab, sentence). Beside them stand healthy twins, made by the same builders: they must load, so that no
 * file is refused for another reason than its damage. FLIS_DAMAGE=FILE writes the sentences instead of holding them to the
 * table, for when one was mended: read the difference.
 * Checks: test_damage_table
 */
#define main ckpt_main_again
#include "../tools/ckpt2safetensors.c"
#undef main

#include "test.h"

enum { BYTES_ROOM = 1 << 17 };
static const char TABLE[] = "golden/damage.txt";

/* A file in the making. */
typedef struct bytes { uint8_t at[BYTES_ROOM]; size_t count; } bytes;

static void put(bytes *b, const void *from, size_t count)
{
    if (count) memcpy(b->at + b->count, from, count);
    b->count += count;
}

static void put_text(bytes *b, const char *text) { put(b, text, strlen(text)); }

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

/* The sentences in order; the path of the scratch directory is left out of them. */
typedef struct table {
    flis_ctx own;
    char *text, *line;
    FILE *out;                  /* FLIS_DAMAGE */
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

/* As the table holds it: no directory, one line. */
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

/* `what` was refused with `error` ("": it was taken). */
static void refused(table *t, const char *what, const char *error)
{
    char got[4200], wanted[4400];
    tidy(error, got, sizeof got);
    t->rows++;
    CHECK(*error, "%s: it was taken", what);
    if (t->out) {
        fprintf(t->out, "%s\t%s\n", what, got);
        return;
    }
    if (!t->line) return;
    const size_t length = strcspn(t->line, "\n");
    snprintf(wanted, sizeof wanted, "%s\t%s", what, got);
    CHECK(length == strlen(wanted) && memcmp(wanted, t->line, length) == 0, "got    %s\n    wanted %.*s", wanted, (int)length, t->line);
    t->line += length + (t->line[length] == '\n');
}

static void healthy(table *t, const char *what, const char *error)
{
    t->healthy++;
    CHECK(!*error, "%s is not damaged: %s", what, error);
}

/* The scratch file of that name; the string is the caller's. */
static const char *write_file(const bytes *b, const char *name, char path[1024])
{
    snprintf(path, 1024, "%s", test_scratch(name));
    FILE *f = fopen(path, "wb");
    CHECK(f && fwrite(b->at, 1, b->count, f) == b->count, "%s cannot be written", path);
    if (f) fclose(f);
    return path;
}

/* ---- Safetensors ------------------------------------------------------------------------------------------------- */

#define ENTRY(dtype, shape, begin, end) "{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":[" begin "," end "]}"
#define A ENTRY("F32", "[2]", "0", "8")

/* length: what the first 8 bytes say; 0: the truth. cut: bytes that the file lost at its end. */
typedef struct header_row { const char *what, *header; size_t data; uint64_t length; size_t cut; } header_row;

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

static void safetensors_rows(table *t, bytes *b)
{
    static const header_row sound[] = {
        {"one tensor", "{\"a\":" A "}", 8, 0, 0}, {"no tensor", "{}", 0, 0, 0},
        {"padded header", "{\"a\":" A "}    ", 8, 0, 0},
        {"two tensors", "{\"a\":" A ",\"b\":" ENTRY("I64", "[1,1]", "8", "16") "}", 16, 0, 0},
        {"no values", "{\"a\":" ENTRY("F16", "[0,3]", "0", "0") "}", 0, 0, 0},
        {"a scalar", "{\"a\":" ENTRY("BOOL", "[]", "0", "1") "}", 1, 0, 0},
        {"8 dimensions", "{\"a\":" ENTRY("U8", "[1,1,1,1,1,1,1,2]", "0", "2") "}", 2, 0, 0},
        {"metadata", "{\"__metadata__\":{\"x\":\"y\"},\"a\":" A "}", 8, 0, 0},
    };
    static const header_row broken[] = {
        {"empty", "", 0, 0, 8}, {"7 bytes", "", 0, 0, 1}, {"the header's length alone", "", 0, 20, 0},
        {"header of 2^63 bytes", "{\"a\":" A "}", 8, UINT64_C(1) << 63, 0},
        {"header of 100000001 bytes", "{\"a\":" A "}", 8, 100000001, 0},
        {"header longer than the file", "{\"a\":" A "}", 8, 68, 0}, {"header cut", "{\"a\":" A "}", 0, 0, 5},
        {"header one byte short", "{\"a\":" A "}", 8, 56, 0}, {"data cut", "{\"a\":" A "}", 8, 0, 1},
        {"data missing", "{\"a\":" A "}", 0, 0, 0},
        {"a byte too many", "{\"a\":" A "}", 9, 0, 0}, {"not JSON", "hello", 0, 0, 0}, {"an array", "[]", 0, 0, 0},
        {"a number", "7", 0, 0, 0},
        {"two roots", "{}{}", 0, 0, 0}, {"a comma too many", "{\"a\":" A ",}", 8, 0, 0},
        {"a name twice", "{\"a\":" A ",\"a\":" ENTRY("F32", "[2]", "8", "16") "}", 16, 0, 0},
        {"NUL in a name", "{\"a\\u0000b\":" A "}", 8, 0, 0},
        {"control characters in a name", "{\"a\\u001b[2J\":" ENTRY("F31", "[2]", "0", "8") "}", 8, 0, 0},
        {"bad UTF-8", "{\"a\xff\":" A "}", 8, 0, 0}, {"half a surrogate pair", "{\"\\ud800\":" A "}", 8, 0, 0},
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
}

/* ---- Checkpoints of PyTorch -------------------------------------------------------------------------------------- */

/* {'t': _rebuild_tensor_v2(('storage', TYPE, '0', 'cpu', NUMEL), OFFSET, SIZE, STRIDE, …)}; the four as pickle. */
#define TENSOR(type, numel, offset, size, stride) \
    "\x80\x02}X\x01\0\0\0t" "ctorch._utils\n_rebuild_tensor_v2\n(" \
    "(X\x07\0\0\0storage" "ctorch\n" type "\nX\x01\0\0\0" "0X\x03\0\0\0cpu" numel "tQ" offset size stride "\x89}tRs."
#define PICKLE(text) text, sizeof(text) - 1
#define GOOD TENSOR("FloatStorage", "K\x04", "K\0", "K\x04\x85", "K\x01\x85")
#define GLOBAL(module, name) "}X\1\0\0\0a" "c" module "\n" name "\n)Rs."

typedef struct pickle_row { const char *what, *pickle; size_t size; } pickle_row;

static const pickle_row SOUND[] = {
    {"a tensor", PICKLE(GOOD)},
    {"one value of it", PICKLE(TENSOR("FloatStorage", "K\x04", "K\x03", "K\x01\x85", "K\x01\x85"))},
    {"a 2 x 2 view", PICKLE(TENSOR("FloatStorage", "K\x04", "K\0", "K\2K\2\x86", "K\1K\2\x86"))},
    {"stride 0", PICKLE(TENSOR("FloatStorage", "K\x04", "K\0", "K\x09\x85", "K\0\x85"))},
    {"a scalar", PICKLE(TENSOR("FloatStorage", "K\x04", "K\0", ")", ")"))},
    {"8 dimensions", PICKLE(TENSOR("FloatStorage", "K\x04", "K\0", "(K\1K\1K\1K\1K\1K\1K\1K\1t", "(K\1K\1K\1K\1K\1K\1K\1K\1t"))},
    {"other integers", PICKLE(TENSOR("FloatStorage", "J\4\0\0\0", "\x8a\0", "\x8a\1\4\x85", "M\1\0\x85"))},
};

static const pickle_row BROKEN[] = {
    {"os.system", PICKLE("\x80\x02" "cos\nsystem\nX\x02\0\0\0id\x85R.")},
    {"posix.system by STACK_GLOBAL", PICKLE("\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c\x02id\x85R.")},
    {"builtins.eval", PICKLE("\x80\x02" "cbuiltins\neval\n.")}, {"__builtin__.exec", PICKLE("c__builtin__\nexec\n.")},
    {"subprocess.Popen", PICKLE("csubprocess\nPopen\n.")},
    {"a global as value", PICKLE(GLOBAL("shutil", "rmtree"))},
    {"an allowed name of another module", PICKLE(GLOBAL("evil", "OrderedDict"))},
    {"a name near an allowed one", PICKLE("\x80\x02" "ctorch._utils\n_rebuild_tensor_v3\n.")},
    {"torch.load within", PICKLE("\x80\x02" "ctorch\nload\n.")},
    {"INST", PICKLE("(ios\nsystem\n.")}, {"OBJ", PICKLE("(o.")}, {"EXT1", PICKLE("\x82\x01.")},
    {"PERSID", PICKLE("Pabc\n.")}, {"NEXT_BUFFER", PICKLE("\x97.")},
    {"protocol 9", PICKLE("\x80\x09}.")}, {"nothing", PICKLE("")}, {"no STOP", PICKLE("}")},
    {"STOP alone", PICKLE(".")}, {"POP on nothing", PICKLE("0.")}, {"REDUCE on nothing", PICKLE("R.")},
    {"TUPLE without a mark", PICKLE("Nt.")}, {"a mark as value", PICKLE("(.")}, {"recall of nothing", PICKLE("h\x05.")},
    {"a memo of 4 billion", PICKLE("Nr\xff\xff\xff\xff.")},
    {"a string of 4 GB", PICKLE("X\xff\xff\xff\xff" "a.")},
    {"a string of 2^63 bytes", PICKLE("\x8d\xff\xff\xff\xff\xff\xff\xff\x7f" "a.")},
    {"a line without end", PICKLE("cos")},
    {"an integer of 9 bytes", PICKLE("\x8a\x09" "123456789.")}, {"calling a string", PICKLE("X\x01\0\0\0a)R.")},
    {"calling a number", PICKLE("K\x01)R.")}, {"BUILD on a number", PICKLE("K\x01}b.")},
    {"SETITEM on a list", PICKLE("]K\x01K\x02s.")}, {"APPEND to a dictionary", PICKLE("}K\x01" "a.")},
    {"an odd dictionary", PICKLE("(K\x01" "d.")}, {"a number for root", PICKLE("K\x01.")},
    {"an empty dictionary", PICKLE("}.")}, {"a list that holds itself", PICKLE("]q\0h\0a.")},
    {"a dictionary that holds itself", PICKLE("}q\0X\x0a\0\0\0state_dicth\0s.")},
    {"OrderedDict of numbers", PICKLE("ccollections\nOrderedDict\n]K\x01" "a\x85R.")},
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
    {"a stride of 2^40 - 1", PICKLE(TENSOR("FloatStorage", "K\x04", "K\0", "K\x02\x85", "\x8a\x06\xff\xff\xff\xff\xff\0\x85"))},
    {"2^60 values of stride 0", PICKLE(TENSOR("FloatStorage", "K\x04", "K\0", "\x8a\x05\0\0\0\0\x40\x8a\x05\0\0\0\0\x40\x86", "K\0K\0\x86"))},
    {"2^28 values of stride 0", PICKLE(TENSOR("FloatStorage", "K\x04", "K\0", "J\0\0\0\x10\x85", "K\0\x85"))},
    {"9 dimensions", PICKLE(TENSOR("FloatStorage", "K\x04", "K\0", "(K\1K\1K\1K\1K\1K\1K\1K\1K\1t", "(K\1K\1K\1K\1K\1K\1K\1K\1K\1t"))},
    {"a storage longer than its data", PICKLE(TENSOR("FloatStorage", "K\x05", "K\0", "K\x01\x85", "K\x01\x85"))},
    {"another storage type", PICKLE(TENSOR("DoubleStorage", "K\x04", "K\0", "K\x01\x85", "K\x01\x85"))},
    {"a storage of 2^62 values", PICKLE(TENSOR("FloatStorage", "\x8a\x08\0\0\0\0\0\0\0\x40", "K\0", "K\x01\x85", "K\x01\x85"))},
};

typedef struct part { const char *name; const void *bytes; size_t size; unsigned method; } part;

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
    options o = {.in = write_file(b, "bad.ckpt", path), .out = to, .quiet = true};
    convert(&ctx, &o);
    snprintf(error, 4096, "%s", ctx.error);
    FILE *out = fopen(to, "rb");
    CHECK((out != NULL) == !*error, "%s", out ? "something was written though it failed" : "nothing was written");
    if (out) fclose(out);
    flis_free(&ctx);
}

static const float DATA[4];

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
}

#define PKL {"a/data.pkl", GOOD, sizeof GOOD - 1, 0}
#define DATA_0 {"a/data/0", DATA, sizeof DATA, 0}

static void zip_rows(table *t, bytes *b)
{
    static const struct { const char *what; part parts[3]; size_t count; } row[] = {
        {"no data.pkl", {DATA_0}, 1}, {"no data", {PKL}, 1},
        {"two pickles", {PKL, {"b/data.pkl", GOOD, sizeof GOOD - 1, 0}}, 2},
        {"a compressed pickle", {{"a/data.pkl", GOOD, sizeof GOOD - 1, 8}, DATA_0}, 2},
        {"compressed data", {PKL, {"a/data/0", DATA, sizeof DATA, 8}}, 2},
        {"big-endian", {PKL, {"a/byteorder", "big", 3, 0}, DATA_0}, 3},
        {"data of another root", {PKL, {"b/data/0", DATA, sizeof DATA, 0}}, 2},
        {"too little data", {PKL, {"a/data/0", DATA, 15, 0}}, 2},
        {"an empty pickle", {{"a/data.pkl", "", 0, 0}, DATA_0}, 2}, {"no entries", {PKL}, 0},
    };
    static const part whole[] = {PKL, {"a/byteorder", "little", 6, 0}, DATA_0};
    /* a byte of the sound file, counted from its end, and what it becomes */
    static const struct { const char *what; size_t from_end; uint8_t value; } flip[] = {
        {"the directory beyond the file", 6 - 2, 0x7f}, {"the directory's size", 10 - 2, 0x7f},
        {"more entries than the directory", 12 - 1, 9}, {"no end record", 22, 'X'},
        {"a directory entry's signature", 22 + 54, 'X'}, {"an entry beyond the file", 22 + 12 - 2, 0x7f},
        {"an entry longer than the file", 22 + 54 - 24 + 2, 0x7f},
    };
    char error[4096], what[128];
    put_zip(b, whole, 3);
    read_checkpoint(b, error);
    healthy(t, "zip", error);
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
}

/* The old format: magic number, protocol, system information, object, list of keys, and per key its count and values. */
typedef struct legacy_row { const char *what, *magic, *system, *object, *keys; uint64_t count; size_t values; } legacy_row;
#define MAGIC "\x80\x02\x8a\x0al\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19."
#define LITTLE "\x80\x02}(X\x0d\0\0\0little_endian\x88u."
#define BIG "\x80\x02}(X\x0d\0\0\0little_endian\x89u."
#define OLD "\x80\x02}X\1\0\0\0t" "ctorch._utils\n_rebuild_tensor_v2\n((X\7\0\0\0storagectorch\nFloatStorage\nX\1\0\0\0" "0X\3\0\0\0cpuK\4NtQK\0K\4\x85K\1\x85\x89}tRs."
#define KEYS "\x80\x02]X\1\0\0\0" "0a."
enum { MAGIC_SIZE = sizeof MAGIC - 1, LITTLE_SIZE = sizeof LITTLE - 1, OLD_SIZE = sizeof OLD - 1, KEYS_SIZE = sizeof KEYS - 1 };

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
    static const struct { const char *what, *system, *keys; size_t keys_size; uint64_t count; size_t values; } row[] = {
        {"big-endian", BIG, PICKLE(KEYS), 4, 16}, {"keys not a list", LITTLE, PICKLE("\x80\x02K\1."), 4, 16},
        {"keys of numbers", LITTLE, PICKLE("\x80\x02]K\1a."), 4, 16},
        {"a key that no tensor names", LITTLE, PICKLE("\x80\x02]X\1\0\0\0" "9a."), 4, 16},
        {"a key twice", LITTLE, PICKLE("\x80\x02](X\1\0\0\0" "0X\1\0\0\0" "0e."), 4, 40},
        {"no keys", LITTLE, PICKLE("\x80\x02]."), 4, 16}, {"another count", LITTLE, PICKLE(KEYS), 5, 20},
        {"a count of 2^64 - 1", LITTLE, PICKLE(KEYS), UINT64_MAX, 16},
        {"data cut", LITTLE, PICKLE(KEYS), 4, 15}, {"no data", LITTLE, PICKLE(KEYS), 4, 0},
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
    static const size_t left[] = {MAGIC_SIZE, MAGIC_SIZE + 6, MAGIC_SIZE + 6 + LITTLE_SIZE, MAGIC_SIZE + 6 + LITTLE_SIZE + 20, MAGIC_SIZE + 6 + LITTLE_SIZE + OLD_SIZE};
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
    bytes head = {{0}, 0};
    b->count = 0;
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

/* 2 x 2 gray, in rows of filter byte and two pixels. */
static void put_png(bytes *b, const char *rows, size_t count)
{
    put_head(b, 2, 2, 8, 0, 0, 0, 0);
    put_pixels(b, rows, count, 0);
    put_chunk(b, "IEND", "", 0);
}

static void png_rows(table *t, bytes *b)
{
    static const struct { const char *what; uint32_t w, h; int depth, color, compression, filter, interlace; } head[] = {
        {"no width", 0, 2, 8, 0, 0, 0, 0}, {"a width of 2^31", 0x80000000u, 2, 8, 0, 0, 0, 0},
        {"16384 x 16384", 16384, 16384, 8, 0, 0, 0, 0}, {"3 bits", 2, 2, 3, 0, 0, 0, 0},
        {"a palette of 16 bits", 2, 2, 16, 3, 0, 0, 0}, {"colour type 1", 2, 2, 8, 1, 0, 0, 0},
        {"RGB", 2, 2, 8, 2, 0, 0, 0}, {"alpha", 2, 2, 8, 4, 0, 0, 0},
        {"compression 1", 2, 2, 8, 0, 1, 0, 0}, {"filter method 1", 2, 2, 8, 0, 0, 1, 0},
        {"interlace 2", 2, 2, 8, 0, 0, 0, 2}, {"no palette", 2, 2, 8, 3, 0, 0, 0},
    };
    char error[4096], what[128];
    put_png(b, "\0\1\2\0\3\4", 6);
    read_label(b, "bad.png", error);
    healthy(t, "PNG", error);
    const size_t whole = b->count;
    for (size_t i = 0; i < sizeof head / sizeof *head; i++) {
        put_head(b, head[i].w, head[i].h, head[i].depth, head[i].color, head[i].compression, head[i].filter, head[i].interlace);
        put_pixels(b, "\0\1\2\0\3\4", 6, 0);
        put_chunk(b, "IEND", "", 0);
        read_label(b, "bad.png", error);
        snprintf(what, sizeof what, "PNG: %s", head[i].what);
        refused(t, what, error);
    }
    static const struct { const char *what, *rows; size_t count; } rows[] = {
        {"filter 5", "\5\1\2\0\3\4", 6}, {"a pixel too few", "\0\1\2\0\3", 5},
        {"a pixel too many", "\0\1\2\0\3\4\5", 7}, {"no pixels", "", 0},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        put_png(b, rows[i].rows, rows[i].count);
        read_label(b, "bad.png", error);
        snprintf(what, sizeof what, "PNG: %s", rows[i].what);
        refused(t, what, error);
    }
    static const struct { const char *what; size_t at; uint8_t value; } flip[] = {
        {"text mode", 4, '\n'}, {"a changed CRC", 32, 0}, {"another first chunk", 12, 'X'},
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
        b->count = i < sizeof left / sizeof *left ? left[i] : whole - 12;
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

static void text_rows(table *t, bytes *b)
{
    static const struct { const char *what, *text; bool sound; } row[] = {
        {"PGM", "P2 2 1 255 3 4", true}, {"PGM: no size", "P2", false}, {"PGM: a size of 0", "P2 0 1 255", false},
        {"PGM: 10^9 wide", "P2 1000000000 1 255 0", false},
        {"PGM: maxval 0", "P2 1 1 0 0", false}, {"PGM: maxval 65536", "P2 1 1 65536 0", false},
        {"PGM: a pixel missing", "P2 2 1 255 3", false},
        {"PGM: a pixel above maxval", "P2 2 1 7 3 8", false}, {"PGM: class number 256", "P2 1 1 1000 256", false},
        {"PGM: words", "P2 two 1 255", false},
        {"PGM: bytes missing", "P5 2 2 255\nabc", false}, {"PGM: no end of the header", "P5 2 2 255", false},
        {"PPM", "P6 1 1 255\nabc", false}, {"a JPEG", "\xFF\xD8\xFF\xE0 JFIF", false},
        {"an empty label map", "", false}, {"words for a label map", "hello", false},
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
    static const struct { const char *what, *text; bool sound; } row[] = {
        {"layout", "{\"text_label_mapping\":{\"sea\":1},\"layout_path\":\"map.pgm\"}", true},
        {"layout of pairs", "{\"text_label_mapping\":[[\"sea\",1],[\"sea\",2]],\"layout_path\":\"map.pgm\"}", true},
        {"layout: empty", "", false}, {"layout: an array", "[]", false},
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
        {"layout: bad UTF-8", "{\"text_label_mapping\":{\"s\xe9" "a\":1},\"layout_path\":\"map.pgm\"}", false},
        {"layout: a line break in a string", "{\"text_label_mapping\":{\"s\na\":1}}", false},
    };
    char error[4096], path[1024];
    b->count = 0;
    put_text(b, "P2 1 1 255 1");
    write_file(b, "map.pgm", path);
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
    static const struct { const char *what, *text; size_t length; bool sound; } row[] = {
        {"vocabulary", PICKLE("#version: 0.2\na b</w>\n"), true},
        {"vocabulary without a version", PICKLE("a b</w>\n"), true},
        {"vocabulary: one word in a line", PICKLE("#version: 0.2\nab\n"), false},
        {"vocabulary: three words", PICKLE("#version: 0.2\na b c\n"), false},
        {"vocabulary: NUL", PICKLE("#version: 0.2\na \0b\n"), false},
        {"vocabulary: an unknown part", PICKLE("#version: 0.2\nab c\n"), false},
        {"vocabulary: a merge twice", PICKLE("#version: 0.2\na b\na b\n"), false},
        {"vocabulary: bad UTF-8", PICKLE("#version: 0.2\na \xff\n"), false},
    };
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        flis_ctx ctx;
        flis_init(&ctx);
        flis_vocab_free(flis_vocab_parse(&ctx, "merges.txt", row[i].text, row[i].length));
        (row[i].sound ? healthy : refused)(t, row[i].what, ctx.error);
        flis_free(&ctx);
    }
}

/* Models of many files: an index of shards. */
static void index_rows(table *t, bytes *b)
{
    static const struct { const char *what, *text; bool sound; } row[] = {
        {"index", "{\"weight_map\":{\"a\":\"one.safetensors\"}}", true}, {"index: not an object", "7", false},
        {"index: no weight_map", "{}", false}, {"index: weight_map a list", "{\"weight_map\":[]}", false},
        {"index: no shards", "{\"weight_map\":{}}", false},
        {"index: a shard that is a number", "{\"weight_map\":{\"a\":1}}", false},
        {"index: a shard that is not there", "{\"weight_map\":{\"a\":\"two.safetensors\"}}", false},
        {"index: a tensor that the shard lacks", "{\"weight_map\":{\"a\":\"one.safetensors\",\"b\":\"one.safetensors\"}}", false},
        {"index: out of the folder", "{\"weight_map\":{\"a\":\"../one.safetensors\"}}", false},
        {"index: an absolute path", "{\"weight_map\":{\"a\":\"/one.safetensors\"}}", false},
    };
    char error[4096], path[1024];
    const header_row one = {"", "{\"a\":" A "}", 8, 0, 0};
    put_safetensors(b, &one);
    write_file(b, "one.safetensors", path);
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
    text_rows(&t, &b);
    layout_rows(&t, &b);
    vocabulary_rows(&t);
    index_rows(&t, &b);
    table_close(&t);
    CHECK(t.rows >= 200 && t.healthy >= 25, "%zu damaged files, %zu healthy ones", t.rows, t.healthy);
    if (getenv("FLIS_TEST_ERRORS")) fprintf(stderr, "%zu damaged files, %zu healthy twins\n", t.rows, t.healthy);
}
