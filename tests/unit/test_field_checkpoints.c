/* test_field_checkpoints.c - checkpoints as people have them: objects of unknown classes beside the weights, weights under any key
 * and behind the prefixes of wrappers, tensors that cannot be written as they are, archives that were packed again, and files that
 * are no checkpoints.
 *
 * The pickles are written by a small compiler from text that looks like Python (see put_value), into a zip archive and into
 * PyTorch's older format.
 */
#include "tests/unit/test.h"
#include "tools/ckpt2safetensors/ckpt.h"

#include <ctype.h>

enum { ROOM = 1 << 18, STORAGES = 4, VALUES = 16 };

typedef struct bytes {
    uint8_t at[ROOM];
    size_t count;
} bytes;

static void put(bytes *b, const void *from, size_t count)
{
    if (count) memcpy(b->at + b->count, from, count);
    b->count += count;
}

static void put_little(bytes *b, uint64_t number, int count)
{
    for (; count > 0; count--, number >>= 8) b->at[b->count++] = (uint8_t)(number & 255);
}

/* ---- From text to a pickle ------------------------------------------------------------------------------------------ */

static void put_atom(bytes *b, const char **p);
static void put_value(bytes *b, const char **p);

static void blanks(const char **p)
{
    while (**p == ' ' || **p == ',' || **p == ':') ++*p;
}

static void put_text(bytes *b, const char *text, size_t length)
{
    put(b, "X", 1);
    put_little(b, length, 4);
    put(b, text, length);
}

/* Values up to the closing character. */
static void put_values(bytes *b, const char **p, char close)
{
    for (blanks(p); **p != close; blanks(p)) {
        if (!**p) {
            fprintf(stderr, "test_field_checkpoints: a value without its end\n");
            abort();
        }
        put_value(b, p);
    }
    ++*p;
}

/* "module.name" as a GLOBAL. */
static void put_global(bytes *b, const char **p)
{
    const char *start = *p, *dot = start;
    for (; isalnum((unsigned char)**p) || **p == '_' || **p == '.'; ++*p)
        if (**p == '.') dot = *p;
    put(b, "c", 1);
    put(b, start, (size_t)(dot - start));
    put(b, "\n", 1);
    put(b, dot + 1, (size_t)(*p - dot) - 1);
    put(b, "\n", 1);
}

/* #Type key size: the storage of that type and key. */
static void put_storage(bytes *b, const char **p)
{
    char type[32], key[8];
    int count, used;
    if (sscanf(*p, "#%31s %7s %d%n", type, key, &count, &used) != 3) abort();
    *p += used;
    put(b, "(", 1);
    put_text(b, "storage", 7);
    put(b, "ctorch\n", 7);
    put(b, type, strlen(type));
    put(b, "Storage\n", 8);
    put_text(b, key, strlen(key));
    put_text(b, "cpu", 3);
    put(b, "K", 1);
    put_little(b, (uint64_t)count, 1);
    put(b, "tQ", 2);
}

/* T0: a tensor of all values of storage 0; T0{…}: with metadata. */
static void put_tensor(bytes *b, const char **p)
{
    char text[32];
    const char *at = text;
    snprintf(text, sizeof text, "#Float %c %d", (*p)[1], VALUES);
    *p += 2;
    put(b, "ctorch._utils\n_rebuild_tensor_v2\n(", 34);
    put_storage(b, &at);
    put(b, "K\0K\x10\x85K\1\x85\x89}", 10);
    if (**p == '{') put_atom(b, p);
    put(b, "tR", 2);
}

/* None, True, False, 12, 'text', [a, b], (a, b), {k: v}, T0, #Float 0 16, a.b (a global). */
static void put_atom(bytes *b, const char **p)
{
    static const struct {
        const char *word, *code;
    } words[] = {{"None", "N"}, {"True", "\x88"}, {"False", "\x89"}};
    blanks(p);
    const char c = **p;
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        const size_t length = strlen(words[i].word);
        if (strncmp(*p, words[i].word, length) != 0) continue;
        *p += length;
        put(b, words[i].code, 1);
        return;
    }
    if (c == '\'') {
        const char *start = ++*p;
        *p += strcspn(start, "'");
        put_text(b, start, (size_t)(*p - start));
        ++*p;
    } else if (c == '[' || c == '(' || c == '{') {
        put(b, c == '[' ? "](" : c == '{' ? "}(" : "(", c == '(' ? 1 : 2);
        ++*p;
        put_values(b, p, c == '[' ? ']' : c == '{' ? '}' : ')');
        put(b, c == '[' ? "e" : c == '{' ? "u" : "t", 1);
    } else if (isdigit((unsigned char)c) || c == '-') {
        char *end;
        put(b, "J", 1);
        put_little(b, (uint64_t)strtol(*p, &end, 10), 4);
        *p = end;
    } else if (c == '#') put_storage(b, p);
    else if (c == 'T' && isdigit((unsigned char)(*p)[1])) put_tensor(b, p);
    else put_global(b, p);
}

/* An atom, and then: (…) REDUCE, !(…) NEWOBJ, @state BUILD, {…} SETITEMS, […] APPENDS. */
static void put_value(bytes *b, const char **p)
{
    put_atom(b, p);
    for (;;) {
        const char c = **p;
        if (!c || !strchr("(!@{[", c)) return;
        if (c == '!' || c == '@' || c == '{' || c == '[') ++*p;
        if (c == '{' || c == '[') {
            put(b, "(", 1);
            put_values(b, p, c == '{' ? '}' : ']');
        } else put_atom(b, p);
        put(b, c == '(' ? "R" : c == '!' ? "\x81" : c == '@' ? "b" : c == '{' ? "u" : "e", 1);
    }
}

static void put_pickle(bytes *b, const char *text)
{
    put(b, "\x80\x02", 2);
    put_value(b, &text);
    put(b, ".", 1);
}

/* ---- Archives ------------------------------------------------------------------------------------------------------- */

typedef struct part {
    const char *name;
    const void *bytes;
    size_t size;
} part;

/* ISO 3309, bit by bit. */
static uint32_t check_sum(const uint8_t *p, size_t count)
{
    uint32_t crc = 0xffffffff;
    for (size_t i = 0; i < count; i++) {
        crc ^= p[i];
        for (int bit = 0; bit < 8; bit++) crc = crc >> 1 ^ (0xedb88320 & (0 - (crc & 1)));
    }
    return ~crc;
}

/* A zip archive; deflated: every entry as one stored block of deflate, with its sizes behind it (bit 3) and not in its header. */
static void put_zip(bytes *b, const part *parts, size_t count, bool deflated)
{
    size_t at[16] = {0};
    b->count = 0;
    for (size_t i = 0; i < count; i++) {
        const size_t packed = parts[i].size + (deflated ? 5 : 0);
        at[i] = b->count;
        put(b, deflated ? "PK\3\4\24\0\10\0\10\0" : "PK\3\4\24\0\0\0\0\0", 10);
        put_little(b, 0, 4);
        put_little(b, deflated ? 0 : check_sum(parts[i].bytes, parts[i].size), 4);
        put_little(b, deflated ? 0 : packed, 4);
        put_little(b, deflated ? 0 : parts[i].size, 4);
        put_little(b, strlen(parts[i].name), 4);
        put(b, parts[i].name, strlen(parts[i].name));
        if (deflated) {
            put_little(b, 1, 1);
            put_little(b, parts[i].size, 2);
            put_little(b, ~parts[i].size, 2);
        }
        put(b, parts[i].bytes, parts[i].size);
        if (!deflated) continue;
        put(b, "PK\7\10", 4);
        put_little(b, check_sum(parts[i].bytes, parts[i].size), 4);
        put_little(b, packed, 4);
        put_little(b, parts[i].size, 4);
    }
    const size_t start = b->count;
    for (size_t i = 0; i < count; i++) {
        put(b, deflated ? "PK\1\2\24\0\24\0\10\0\10\0" : "PK\1\2\24\0\24\0\0\0\0\0", 12);
        put_little(b, 0, 4);
        put_little(b, check_sum(parts[i].bytes, parts[i].size), 4);
        put_little(b, parts[i].size + (deflated ? 5 : 0), 4);
        put_little(b, parts[i].size, 4);
        put_little(b, strlen(parts[i].name), 2);
        put(b, "\0\0\0\0\0\0\0\0\0\0\0\0", 12);
        put_little(b, at[i], 4);
        put(b, parts[i].name, strlen(parts[i].name));
    }
    const size_t end = b->count;
    put(b, "PK\5\6\0\0\0\0", 8);
    put_little(b, count, 2);
    put_little(b, count, 2);
    put_little(b, end - start, 4);
    put_little(b, start, 4);
    put_little(b, 0, 2);
}

/* The values of storage k are the floats 16 k, 16 k + 1, … */
static void put_data(bytes *b, int k)
{
    for (int i = 0; i < VALUES; i++) {
        const float f = (float)(VALUES * k + i);
        uint32_t u;
        memcpy(&u, &f, sizeof u);
        put_little(b, u, 4);
    }
}

typedef struct archive {
    const char *folder, *junk; /* of the entries; an entry before them, or NULL */
    bool deflated;
} archive;

static void zip_checkpoint(bytes *b, const char *text, archive how)
{
    static bytes pickle, data[STORAGES];
    static char name[STORAGES + 1][64];
    part parts[STORAGES + 2];
    size_t count = 0;
    pickle.count = 0;
    put_pickle(&pickle, text);
    if (how.junk) parts[count++] = (part){how.junk, "junk", 4};
    snprintf(name[STORAGES], sizeof *name, "%sdata.pkl", how.folder);
    parts[count++] = (part){name[STORAGES], pickle.at, pickle.count};
    for (int k = 0; k < STORAGES; k++) {
        data[k].count = 0;
        put_data(&data[k], k);
        snprintf(name[k], sizeof *name, "%sdata/%d", how.folder, k);
        parts[count++] = (part){name[k], data[k].at, data[k].count};
    }
    put_zip(b, parts, count, how.deflated);
}

/* Magic number, protocol number, system information. */
static void put_beginning(bytes *b)
{
    static const char pickles[] = "\x80\x02\x8a\nl\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19."
                                  "\x80\x02M\xe9\x03."
                                  "\x80\x02}.";
    put(b, pickles, sizeof pickles - 1);
}

/* The older format. Only storages that the text names have data. */
static void old_checkpoint(bytes *b, const char *text)
{
    b->count = 0;
    put_beginning(b);
    put_pickle(b, text);
    bool has[STORAGES];
    put(b, "\x80\x02](", 4);
    for (int k = 0; k < STORAGES; k++) {
        char name[16];
        snprintf(name, sizeof name, "T%d", k);
        has[k] = strstr(text, name) != NULL;
        snprintf(name, sizeof name, "%d", k);
        if (has[k]) put_text(b, name, 1);
    }
    put(b, "e.", 2);
    for (int k = 0; k < STORAGES; k++) {
        if (has[k]) put_little(b, VALUES, 8);
        if (has[k]) put_data(b, k);
    }
}

/* ---- Trying ---------------------------------------------------------------------------------------------------------- */

/* Converts the bytes. Returns false on failure, with the message in `error` [4096]. */
static bool convert(const bytes *b, conversion o, char *error)
{
    char in[1024], out[1024];
    flis_ctx ctx;
    snprintf(in, sizeof in, "%s", test_scratch("field.ckpt"));
    snprintf(out, sizeof out, "%s", test_scratch("field.safetensors"));
    FILE *file = fopen(in, "wb");
    CHECK(file && fwrite(b->at, 1, b->count, file) == b->count, "%s: cannot be written", in);
    if (file) fclose(file);
    flis_init(&ctx);
    remove(out);
    o.in = in;
    o.out = out;
    o.quiet = true;
    convert_checkpoint(&ctx, &o);
    snprintf(error, 4096, "%s", ctx.error);
    const bool done = flis_ok(&ctx);
    file = fopen(out, "rb");
    CHECK((file != NULL) == done, "%s", done ? "nothing was written" : "a file was written although it failed");
    if (file) fclose(file);
    flis_free(&ctx);
    return done;
}

/* The tensors that were written: "name:storage …", sorted by name; "?" for a storage whose values are other ones. */
static void written(char *list, size_t room)
{
    flis_ctx ctx;
    flis_init(&ctx);
    flis_file *file = flis_file_open(&ctx, test_scratch("field.safetensors"));
    *list = 0;
    for (size_t i = 0; file && i < file->count; i++) {
        double x[64] = {-1};
        const size_t count = (size_t)flis_entry_count(&file->entry[i]);
        if (count <= 64) flis_file_read_f64(&ctx, file, &file->entry[i], x);
        bool good = count == VALUES;
        for (int k = 0; k < VALUES; k++) good = good && x[k] == floor(x[0] / VALUES) * VALUES + k;
        text_append(list, room, "%s%s:", *list ? " " : "", file->entry[i].name);
        if (good) text_append(list, room, "%d", (int)x[0] / VALUES);
        else text_append(list, room, "?");
    }
    CHECK(flis_ok(&ctx), "%s", ctx.error);
    flis_file_close(file);
    flis_free(&ctx);
}

/* The sentence has every word; '|' is between them. */
static void says(const char *what, const char *error, const char *words)
{
    while (*words) {
        char one[128];
        const size_t length = strcspn(words, "|");
        snprintf(one, sizeof one, "%.*s", (int)length, words);
        CHECK(strstr(error, one), "%s: \"%s\" lacks \"%s\"", what, error, one);
        words += length + (words[length] == '|');
    }
}

/* Converts the checkpoint in both formats; wanted: the tensors written, or NULL and in `words` what the sentence must say. */
static void try(const char *text, conversion o, const char *wanted, const char *words)
{
    static bytes b;
    char error[4096], list[4096];
    for (int old = 0; old < 2; old++) {
        if (old) old_checkpoint(&b, text);
        else zip_checkpoint(&b, text, (archive){"archive/", NULL, false});
        const bool done = convert(&b, o, error);
        if (wanted) {
            CHECK(done, "%s: %s", text, error);
            if (!done) continue;
            written(list, sizeof list);
            CHECK(strcmp(list, wanted) == 0, "%s: got %s, wanted %s", text, list, wanted);
            continue;
        }
        CHECK(!done, "%s: was converted", text);
        if (!done) says(text, error, words);
    }
}

static void takes(const char *text, const char *wanted)
{
    try(text, (conversion){0}, wanted, NULL);
}

static void refuses(const char *text, const char *words)
{
    try(text, (conversion){0}, NULL, words);
}

/* ---- Beside the weights ---------------------------------------------------------------------------------------------- */

#define DTYPE "numpy.dtype('f8', False, True)@(3, '<', None, None, None, -1, -1, 0)"

/* What is beside weights is of any class, and nothing of it is called. */
void test_field_checkpoints_inert(void)
{
    static const char *const things[] = {
        "numpy._core.multiarray.scalar(" DTYPE ", _codecs.encode('x', 'latin1'))",
        "numpy.core.multiarray._reconstruct(numpy.ndarray, (0,), 'b')@(1, (2,), " DTYPE ", False, 'x')",
        "numpy.random._pickle.__randomstate_ctor('PCG64')@{'state': 1}",
        "omegaconf.listconfig.ListConfig!()@{'_content': [1, 2], '_parent': None}",
        "omegaconf.dictconfig.DictConfig!()@{'_metadata': omegaconf.base.ContainerMetadata!()@{'a': T1}}",
        "pathlib.PosixPath('/', 'home')",
        "torch.float16",
        "torch.device('cuda', 0)",
        "torch.Size((1, 2))",
        "torch._C.Generator()@T1",
        "pytorch_lightning.utilities.parsing.AttributeDict!(){'lr': 1, 'x': T1}@{'y': 2}",
        "argparse.Namespace()@{'a': [1, T1]}",
        "my.module.Color(1)",
        "datetime.datetime('x')",
        "collections.defaultdict(builtins.list){'a': [1]}",
        "collections.Counter({'a': 3})",
        "collections.deque([], 3)[1, 2, 3]",
        "my.OrderedSubclass(){1: 2}@{'z': 1}",
        "{my.Key(1): 1, (1, 2): 2, my.Color: 3, None: T1}",
        "os.system('touch EXECUTED')",
        "builtins.eval('1')",
        "builtins.getattr(os.path, 'join')('a', 'b')",
        "my.partial!(my.f, (), {}, None)@(my.f, (), {}, None)('called')[1, 2]{3: 4}",
        "torch._utils._rebuild_sparse_tensor(torch.serialization._get_layout('torch.sparse_coo'), (T1, T1, (4, 4)))",
        "torch._utils._rebuild_qtensor(#QInt8 q 8, 0, (8,), (1,), (torch.per_tensor_affine, 1, 0), False, {})",
        "torch._utils._rebuild_meta_tensor_no_storage(torch.float32, (4,), (1,), False)",
        "torch._utils._rebuild_tensor_v2(#ComplexFloat c 8, 0, (8,), (1,), False, {})",
        "torch._utils._rebuild_tensor_v3(#Untyped u 8, 0, (8,), (1,), False, {}, torch.float8_e4m3fn)",
        "torch._utils._rebuild_parameter(my.quantised(1), False, {})",
        "torch._tensor._rebuild_from_type_v2(my.rebuild, my.Tensor, (1,), {})",
        "T1{'neg': True}",
        "T1{'conj': True}",
    };
    char text[1024];
    for (size_t i = 0; i < sizeof things / sizeof *things; i++) {
        const bool zip_only = strchr(things[i], '#') != NULL; /* its storage has no data in the older format here */
        static bytes b;
        char error[4096], list[256];
        snprintf(text, sizeof text,
                 "{'epoch': 1, 'hyper_parameters': {'x': %s}, 'state_dict': {'a.weight': T0}, 'y': [%s]}", things[i],
                 things[i]);
        if (!zip_only) takes(text, "a.weight:0");
        zip_checkpoint(&b, text, (archive){"archive/", NULL, false});
        CHECK(convert(&b, (conversion){0}, error), "%s: %s", text, error);
        written(list, sizeof list);
        CHECK(strcmp(list, "a.weight:0") == 0, "%s: %s", text, list);
    }
    FILE *executed = fopen("EXECUTED", "rb");
    CHECK(!executed, "a pickle was executed");
    if (executed) fclose(executed);
}

/* Instructions that torch.save does not use for weights, but Python uses for what is beside them; each is put before the STOP's
   tuple of what it leaves and the weights. */
void test_field_checkpoints_instructions(void)
{
#define CODE(text) text, sizeof(text) - 1
    static const struct {
        const char *what, *code;
        size_t size;
    } row[] = {
        {"OBJ", CODE("(cmy\nClass\nK\1K\2o")},
        {"INST", CODE("(K\1imy\nClass\n")},
        {"NEWOBJ_EX", CODE("cmy\nClass\n)}\x92")},
        {"EXT1, built and called", CODE("\x82\1)R}b")},
        {"EXT2", CODE("\x83\1\0")},
        {"EXT4", CODE("\x84\1\0\0\0")},
        {"PERSID", CODE("Pan id\n")},
        {"BINPERSID of a text", CODE("U\2idQ")},
        {"BINPERSID of a tuple", CODE("U\3keyK\1\x86Q")},
        {"NEXT_BUFFER, READONLY_BUFFER", CODE("\x97\x98")},
        {"BYTEARRAY8", CODE("\x96\3\0\0\0\0\0\0\0abc")},
        {"FRAME", CODE("\x95\1\0\0\0\0\0\0\0N")},
        {"LONG1 of 16 bytes", CODE("\x8a\x10"
                                   "0123456789abcdef")},
        {"LONG of 40 digits", CODE("L1234567890123456789012345678901234567890L\n")},
        {"INT of 20 digits", CODE("I99999999999999999999\n")},
        {"FLOAT nan", CODE("Fnan\n")},
        {"STRING", CODE("S'a text'\n")},
        {"UNICODE", CODE("Va text\n")},
        {"a set", CODE("\x8f(K\1K\2\x90")},
        {"a frozen set", CODE("(K\1K\2\x91")},
        {"STACK_GLOBAL, called with an inert value", CODE("\x8c\2my\x8c\1f\x93\x82\1)RR")},
        {"POP of a mark", CODE("(0N")},
        {"DUP, POP_MARK", CODE("N2(NN1")},
        {"a recursive list", CODE("]q\0h\0a")},
        {"a recursive object", CODE("cmy\nClass\n)\x81q\0}U\1xh\0sb")},
    };
    static bytes b;
    char error[4096], list[256];
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        static const char weights[] = "{'a.weight': T0}";
        const char *text = weights;
        b.count = 0;
        put_beginning(&b);
        put(&b, "\x80\x02(", 3);
        put(&b, row[i].code, row[i].size);
        put_value(&b, &text);
        put(&b,
            "t.\x80\x02](X\1\0\0\0"
            "0e.",
            14);
        put_little(&b, VALUES, 8);
        put_data(&b, 0);
        CHECK(convert(&b, (conversion){0}, error), "%s: %s", row[i].what, error);
        written(list, sizeof list);
        CHECK(strcmp(list, "a.weight:0") == 0, "%s: %s", row[i].what, list);
    }
}

/* Long lists and large arrays beside the weights. */
void test_field_checkpoints_large(void)
{
    static bytes b;
    static uint8_t longest[100000];
    char error[4096], list[256];
    const char *text = "{'a.weight': T0}";
    b.count = 0;
    put_beginning(&b);
    put(&b, "\x80\x02(", 3);
    put(&b, "B", 1);
    put_little(&b, sizeof longest, 4);
    put(&b, longest, sizeof longest);
    put(&b, "](", 2);
    for (int i = 0; i < 1000; i++) put(&b, "K\1", 2);
    put(&b, "e", 1);
    put_value(&b, &text);
    put(&b,
        "t.\x80\x02](X\1\0\0\0"
        "0e.",
        14);
    put_little(&b, VALUES, 8);
    put_data(&b, 0);
    CHECK(convert(&b, (conversion){0}, error), "%s", error);
    written(list, sizeof list);
    CHECK(strcmp(list, "a.weight:0") == 0, "%s", list);
}

/* ---- Written --------------------------------------------------------------------------------------------------------- */

/* A tensor that would be written and cannot be: its name, what it is, what is wanted. Without it the rest is written. */
void test_field_checkpoints_refused_where_written(void)
{
    static const struct {
        const char *value, *words;
    } row[] = {
        {"os.system('true')", "b.weight|os.system|never called"},
        {"my.Lazy!(){'a': 1}@{'b': 2}", "b.weight|my.Lazy"},
        {"numpy._core.multiarray._reconstruct(numpy.ndarray, (0,), 'b')",
         "b.weight|numpy._core.multiarray._reconstruct"},
        {"torch._utils._rebuild_parameter(my.quantised(1), False, {})", "b.weight|my.quantised"},
        {"torch._utils._rebuild_tensor_v2(my.storage(), 0, (4,), (1,), False, {})", "b.weight|my.storage"},
        {"torch._utils._rebuild_tensor_v2(#Float 0 16, my.offset(), (4,), (1,), False, {})", "b.weight|my.offset"},
        {"torch._utils._rebuild_tensor_v2(#Float 0 16, 0, my.size(), (1,), False, {})", "b.weight|my.size"},
        {"torch._utils._rebuild_tensor_v2(#Float 0 16, 0, (4,), (my.stride(),), False, {})", "b.weight|my.stride"},
        {"torch._utils._rebuild_tensor_v2(#Strange 0 16, 0, (4,), (1,), False, {})", "b.weight|torch.StrangeStorage"},
        {"torch._utils._rebuild_tensor_v2(#ComplexFloat 0 8, 0, (8,), (1,), False, {})", "b.weight|complex"},
        {"torch._utils._rebuild_tensor_v2(#QInt8 0 8, 0, (8,), (1,), False, {})", "b.weight|quantised|dequantize"},
        {"torch._utils._rebuild_tensor_v3(#Untyped 0 8, 0, (8,), (1,), False, {}, torch.float8_e4m3fn)",
         "b.weight|torch.float8_e4m3fn|wanted float32"},
        {"torch._utils._rebuild_tensor_v3(#Untyped 0 16, 0, (4,), (1,), False, {}, torch.float32, {'neg': True})",
         "b.weight|neg"},
        {"torch._utils._rebuild_sparse_tensor(1, 2)", "b.weight|sparse|to_dense"},
        {"torch._utils._rebuild_nested_tensor(1, 2)", "b.weight|nested"},
        {"torch._utils._rebuild_qtensor(1, 2)", "b.weight|quantised"},
        {"torch._utils._rebuild_of_the_future(1, 2)", "b.weight|_rebuild_of_the_future|unknown kind"},
        {"torch._utils._rebuild_meta_tensor_no_storage(1, 2)", "b.weight|meta"},
        {"torch._utils._rebuild_device_tensor_from_numpy(1, 2)", "b.weight|NumPy"},
        {"torch._tensor._rebuild_from_type_v2(my.rebuild, my.Tensor, (1,), {})", "b.weight|my.rebuild"},
        {"torch._tensor._rebuild_from_type_v2(torch._utils._rebuild_wrapper_subclass, my.Tensor, (1,), {})",
         "b.weight|another class"},
        {"T1{'neg': True}", "b.weight|neg|resolve_neg"},
        {"T1{'conj': True}", "b.weight|conj|resolve_conj"},
        {"T1{'twisted': True}", "b.weight|twisted"},
        {"T1{'neg': False, my.Key(): my.Value()}", "b.weight|metadata"},
        {"torch._utils._rebuild_tensor_v2(#Float 1 16, 0, (16,), (1,), False, {}, my.Metadata())",
         "b.weight|my.Metadata"},
    };
    static const char *const without[] = {"b.*"};
    char text[1024], error[4096], list[256];
    static bytes b;
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        const bool zip_only = strchr(row[i].value, '#') != NULL;
        if (!zip_only) {
            snprintf(text, sizeof text, "{'state_dict': {'a.weight': T2, 'b.weight': %s}}", row[i].value);
            refuses(text, row[i].words);
            try(text, (conversion){.withouts = 1, .without = without}, "a.weight:2", NULL);
        }
        snprintf(text, sizeof text, "{'state_dict': {'a.weight': T2, 'b.weight': %s, 'model_ema.b': %s}}", row[i].value,
                 row[i].value);
        zip_checkpoint(&b, text, (archive){"archive/", NULL, false});
        CHECK(!convert(&b, (conversion){0}, error) && strstr(error, "b.weight"), "%s: %s", text, error);
        says(text, error, row[i].words);
        CHECK(convert(&b, (conversion){.withouts = 1, .without = without}, error), "%s: %s", text, error);
        written(list, sizeof list);
        CHECK(strcmp(list, "a.weight:2") == 0, "%s: %s", text, list);
    }
    refuses("{'state_dict': {'a': T0, 'b': os.system('true')}}", "tensor b|os.system");
    refuses("{'a.weight': T0, 'b.bias': os.system('true')}", "tensor b.bias|os.system");
    takes("{'a.weight': T0, 'args': argparse.Namespace()@{}, 'a._extra_state': my.Object()}", "a.weight:0");
    takes("{'state_dict': {'a.weight': T0, 'step': numpy.core.multiarray.scalar(1)}}", "a.weight:0");
}

#define TYPED "torch._tensor._rebuild_from_type_v2"

/* Other ways to write a tensor whose values are known. */
void test_field_checkpoints_tensors(void)
{
    static const char *const tensors[] = {
        "T1{'neg': False}",
        "T1{}",
        "torch._utils._rebuild_parameter(T1, True, {})",
        "torch._utils._rebuild_parameter_with_state(T1, True, {}, {'x': 1})",
        "torch.nn.parameter.Parameter!(T1, True)",
        "torch._utils._rebuild_device_tensor_from_cpu_tensor(T1, torch.float32, 'xla', False)",
        TYPED "(torch._utils._rebuild_parameter, my.Parameter, (T1, True, {}), {'tag': my.Tag()})",
        TYPED "(" TYPED ", my.T, (torch._utils._rebuild_parameter, my.U, (T1, True, {}), {}), {})",
        "T1@{'attribute': my.Object()}",
    };
    char text[1024];
    for (size_t i = 0; i < sizeof tensors / sizeof *tensors; i++) {
        snprintf(text, sizeof text, "{'state_dict': {'a.weight': %s}}", tensors[i]);
        takes(text, "a.weight:1");
    }
    static bytes b;
    char error[4096], list[256];
    zip_checkpoint(&b,
                   "{'a.weight': torch._utils._rebuild_tensor_v3(#Untyped 1 64, 0, torch.Size((16,)), (1,), False, {}, "
                   "torch.float32)}",
                   (archive){"archive/", NULL, false});
    CHECK(convert(&b, (conversion){0}, error), "%s", error);
    written(list, sizeof list);
    CHECK(strcmp(list, "a.weight:1") == 0, "%s", list);
    zip_checkpoint(
        &b, "{'a.weight': torch._utils._rebuild_tensor_v3(#Untyped 1 64, 0, (17,), (1,), False, {}, torch.float32)}",
        (archive){"archive/", NULL, false});
    CHECK(!convert(&b, (conversion){0}, error) && strstr(error, "beyond its storage"), "%s", error);
}

/* ---- Where the weights are -------------------------------------------------------------------------------------------- */

#define SD0 "{'model.diffusion_model.a': T0, 'first_stage_model.b': T1}"
#define SD0_WRITTEN "first_stage_model.b:1 model.diffusion_model.a:0"

void test_field_checkpoints_where(void)
{
    static const char *const keys[] = {"state_dict", "model", "model_state_dict", "module",  "ema",    "params",
                                       "params_ema", "net",   "generator",        "weights", "any key"};
    char text[512];
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        snprintf(text, sizeof text, "{'%s': {'a.weight': T0}, 'step': 3, 'best': T1, 'rng': {'cpu': T1}}", keys[i]);
        takes(text, "a.weight:0");
        snprintf(text, sizeof text, "{'%s': {'state_dict': {'a.weight': T0}}, 'step': 3}", keys[i]);
        takes(text, "a.weight:0");
        snprintf(text, sizeof text, "{'%s': {'w': T0}}", keys[i]);
        takes(text, "w:0");
    }
    takes("{'a.weight': T0, 'step': 3}", "a.weight:0");
    takes("({'a.weight': T0}, 3)", "a.weight:0");
    takes("[3, {'model': {'a.weight': T0}}]", "a.weight:0");
    takes("{'a': {'b': [{'c': {'a.weight': T0}}]}}", "a.weight:0");
    takes("my.Dict!(){'a.weight': T0}", "a.weight:0");
    takes("my.Config()@{'weights': {'a.weight': T0}}", "a.weight:0");
    takes("my.Config()@(None, {'x': 1})@({'weights': {'a.weight': T0}}, {'slot': 1})", "a.weight:0");
    takes("collections.OrderedDict([('a.weight', T0)])", "a.weight:0");
    takes("collections.OrderedDict((('a.weight', T0),))", "a.weight:0");
    takes("copyreg._reconstructor(my.Dict, builtins.dict, {'a.weight': T0})", "a.weight:0");
    /* an optimizer's averages have shapes of weights; the key of Lightning's that holds anything */
    takes("{'state_dict': {'a.weight': T0}, 'optimizer_states': [{'state': {0: {'exp_avg': T1}}, 'param_groups': []}]}",
          "a.weight:0");
    takes("{'net': {'a.weight': T0}, 'opt': {'state': {'a.weight': {'exp.avg': T1}}, 'param_groups': []}}",
          "a.weight:0");
    takes("{'net': {'a.weight': T0}, 'opt': torch.optim.adam.Adam!()@{'state': {0: {'x.y': T1}}, 'param_groups': []}}",
          "a.weight:0");
    takes("{'net': {'a.weight': T0}, 'hyper_parameters': {'net': {'b.weight': T1}}, 'callbacks': {'ema': {'c.d': T2}}}",
          "a.weight:0");
    takes("{'net': {'a.weight': T0}, 'optimizer': {'m': {'a.weight': T1}}, 'x': {'exp_avg': {'a.weight': T2}}}",
          "a.weight:0");
    refuses("{'state': {0: {'exp_avg': T1}}, 'param_groups': []}", "no tensors|optimizer's state");
    takes("{'state_dict': {'a': T0}, 'rng': {'cpu': T1}}", "a:0");
    takes("{'state_dict': " SD0 ", 'critic': {'b.weight': T2}}", SD0_WRITTEN);
    refuses("{'state_dict': 3}", "no tensors");
    refuses("{'state_dict': {'a.weight': numpy._core.multiarray._reconstruct(1)}}",
            "no tensors|a.weight|numpy._core.multiarray._reconstruct");
    refuses("my.Object()@{'a': 1}", "no dictionary of tensors|my.Object");
}

/* Several sets: listed, and --key takes one. */
void test_field_checkpoints_key(void)
{
    static const struct {
        const char *text, *words;
    } several[] = {
        {"{'generator': {'a.weight': T0}, 'critic': {'a.weight': T1}}",
         "'generator' (1 tensors|'critic' (1 tensors|--key"},
        {"{'generator': " SD0 ", 'critic': " SD0 "}", "'generator' (2 tensors|'critic' (2 tensors|--key"},
        {"{'state_dict': " SD0 ", 'ema': " SD0 "}", "'state_dict'|'ema'|--key"},
        {"{'a.weight': T0, 'ema': {'a.weight': T1}}", "'.'|'ema'|--key"},
        {"{'x': {'g': {'a.weight': T0}, 'd': {'b.weight': T1}}}", "'x.g'|'x.d'|--key"},
        {"({'a.weight': T0}, {'a.weight': T1})", "'0'|'1'|--key"},
        {"{'a': {'w': T0}, 'b': {'w': T1}}", "'a'|'b'|--key"},
    };
    for (size_t i = 0; i < sizeof several / sizeof *several; i++) refuses(several[i].text, several[i].words);
    const char *two = several[0].text, *nested = several[4].text;
    try(two, (conversion){.key = "critic"}, "a.weight:1", NULL);
    try(two, (conversion){.key = "generator"}, "a.weight:0", NULL);
    try(two, (conversion){.key = "gen"}, NULL, "--key gen|no weights|'generator'|'critic'");
    try(nested, (conversion){.key = "x.d"}, "b.weight:1", NULL);
    try(nested, (conversion){.key = "d"}, "b.weight:1", NULL);
    try(nested, (conversion){.key = "x"}, NULL, "several|'x.g'|'x.d'");
    try(several[3].text, (conversion){.key = "."}, "a.weight:0", NULL);
    try(several[5].text, (conversion){.key = "1"}, "a.weight:1", NULL);
    try("{'g': {'state_dict': {'a.weight': T0}}, 'd': {'state_dict': {'a.weight': T1}}}", (conversion){.key = "d"},
        "a.weight:1", NULL);
    try("{'net': {'a.weight': T0}, 'callbacks': {'ema': {'a.weight': T2}}}", (conversion){.key = "callbacks.ema"},
        "a.weight:2", NULL);
    refuses("{'first_stage_model.b': T0, 'model_ema.diffusion_modela': T1}", "model_ema|--all");
    try("{'a.b': T0, 'model_ema.a': T1}", (conversion){.ema = true}, NULL, "model_ema|--all");
    try("{'first_stage_model.b': T0, 'model_ema.a': T1}", (conversion){.all = true},
        "first_stage_model.b:0 model_ema.a:1", NULL);
    try("{'m': {'model.a': T0, 'model_ema.a': T1}, 'n': {'b.c': T2}}", (conversion){.key = "m", .ema = true},
        "model.a:1", NULL);
}

/* Modules pickled whole: the tensors as state_dict() names them. */
void test_field_checkpoints_modules(void)
{
#define LINEAR(t) \
    "torch.nn.modules.linear.Linear!()@{'training': True, '_parameters': {'weight': " t \
    ", 'bias': None}, '_buffers': {}, " \
    "'_modules': {}}"
#define NET(a, b) \
    "my.Net!()@{'_parameters': {'scale': torch._utils._rebuild_parameter(T2, True, {})}, '_buffers': {'count': T3, " \
    "'no': " \
    "None}, '_modules': collections.OrderedDict([('one', " LINEAR( \
        a) "), ('list', " \
           "torch.nn.modules.container.ModuleList!()@{'_parameters': {}, '_modules': {'0': " LINEAR(b) "}})])}"
    takes(NET("T0", "T1"), "count:3 list.0.weight:1 one.weight:0 scale:2");
    takes("{'model': " NET("T0", "T1") ", 'optimizer': my.Adam!()@{'state': {0: {'x.y': T1}}, 'param_groups': []}}",
          "count:3 list.0.weight:1 one.weight:0 scale:2");
    takes("{'net': {'a.weight': T0}, 'hyper_parameters': {'backbone': " NET("T1", "T1") "}}", "a.weight:0");
    refuses("{'model': " NET("T0", "T1") ", 'ema': " NET("T1", "T0") "}", "'model' (4|'ema' (4|--key");
    refuses(NET("my.Quantised(1)", "T1"), "one.weight|my.Quantised");
}

void test_field_checkpoints_prefixes(void)
{
    static const char *const prefixes[] = {
        "module.",       "_orig_mod.", "module._orig_mod.",    "_forward_module.", "student.",
        "model.module.", "a.b.c.",     "_fsdp_wrapped_module."};
    char text[512];
    for (size_t i = 0; i < sizeof prefixes / sizeof *prefixes; i++) {
        const char *p = prefixes[i];
        snprintf(text, sizeof text,
                 "{'state_dict': {'%smodel.diffusion_model.a': T0, '%sfirst_stage_model.b': T1, '%slogvar': T2}}", p, p,
                 p);
        takes(text, "first_stage_model.b:1 logvar:2 model.diffusion_model.a:0");
    }
    takes("{'module.a.weight': T0, 'module.b': T1, 'n_averaged': T2}", "a.weight:0 b:1 n_averaged:2");
    takes("{'model._orig_mod.diffusion_model.module.a': T0, 'first_stage_model._orig_mod.b': T1}", SD0_WRITTEN);
    takes("{'module.model.diffusion_model.a': T0, 'module.model_ema.diffusion_modela': T1}",
          "model.diffusion_model.a:0");
    /* no wrapper: kept */
    takes("{'model.diffusion_model.a': T0, 'model.diffusion_model.b': T1}",
          "model.diffusion_model.a:0 model.diffusion_model.b:1");
    takes("{'foo.a': T0, 'foo.b': T1}", "foo.a:0 foo.b:1");
    takes("{'module.a': T0, 'b.c': T1}", "b.c:1 module.a:0");
    takes("{'module.': T0, 'module.a': T1}", "module.:0 module.a:1");
    refuses("{'model.diffusion_model.module.a': T0, 'model.diffusion_model.a': T1}",
            "model.diffusion_model.a|duplicated");
}

/* ---- Files ------------------------------------------------------------------------------------------------------------- */

void test_field_checkpoints_archives(void)
{
    static const char text[] =
        "{'state_dict': {'a.weight': T1, 'b.weight': T0, 'c': torch._utils._rebuild_tensor_v2(#Float 1 16, "
        "0, (16,), (1,), False, {})}}";
    static const archive row[] = {
        {"archive/", NULL, true},
        {"my model/", "my model/", true},
        {"", NULL, true},
        {"", NULL, false},
        {"a/b/c/", "a/b/", false},
        {"archive/", "__MACOSX/archive/._data.pkl", true},
        {"archive/", "__MACOSX/data.pkl", false},
        {"archive/", "archive/.DS_Store", true},
    };
    static bytes b;
    char error[4096], list[256];
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        zip_checkpoint(&b, text, row[i]);
        CHECK(convert(&b, (conversion){0}, error), "archive %zu: %s", i, error);
        written(list, sizeof list);
        CHECK(strcmp(list, "a.weight:1 b.weight:0 c:1") == 0, "archive %zu: %s", i, list);
    }
    /* the last value of storage 1, deflated */
    zip_checkpoint(&b, text, row[0]);
    static bytes data;
    data.count = 0;
    put_data(&data, 1);
    for (size_t i = 0; i + data.count <= b.count; i++)
        if (memcmp(b.at + i, data.at, data.count) == 0) b.at[i + data.count - 1] ^= 1;
    CHECK(!convert(&b, (conversion){0}, error) && strstr(error, "check sum"), "%s", error);
    /* a directory that claims a gigabyte */
    zip_checkpoint(&b, text, row[0]);
    for (size_t i = 0; i + 4 <= b.count; i++)
        if (memcmp(b.at + i, "PK\1\2", 4) == 0) memcpy(b.at + i + 24, "\0\0\0\x40", 4);
    CHECK(!convert(&b, (conversion){0}, error) && strstr(error, "cannot be"), "%s", error);
    zip_checkpoint(&b, text, row[0]);
    for (size_t i = 0; i + 4 <= b.count; i++)
        if (memcmp(b.at + i, "PK\1\2", 4) == 0) b.at[i + 24] ^= 2; /* one or two bytes more or fewer than there are */
    CHECK(!convert(&b, (conversion){0}, error), "another size was accepted");
}

/* Cut short: how many bytes there are, and how many there must be at least (here 250 values of 8 bytes). */
void test_field_checkpoints_cut(void)
{
    static bytes b;
    char error[4096];
    zip_checkpoint(&b, "{'a': torch._utils._rebuild_tensor_v2(#Double 0 250, 0, (16,), (1,), False, {})}",
                   (archive){"archive/", NULL, false});
    b.count = 400;
    CHECK(!convert(&b, (conversion){0}, error), "a part was converted");
    says("a part of an archive", error, "cut short|got 400 bytes|at least 2000");
    b.count = 40;
    CHECK(!convert(&b, (conversion){0}, error), "40 bytes were converted");
    says("40 bytes of an archive", error, "cut short");
    old_checkpoint(&b, "{'a': T0}");
    b.count -= 8;
    CHECK(!convert(&b, (conversion){0}, error), "a part was converted");
    says("a part of the older format", error, "cut short|got 56 bytes|wanted 16 values of F32");
}

void test_field_checkpoints_kinds(void)
{
    static const struct {
        const char *what, *head;
        size_t size;
        const char *words;
    } row[] = {
        {"a safetensors file", CODE("\x02\0\0\0\0\0\0\0{}"), "safetensors file already|generate -m"},
        {"a Git LFS pointer", CODE("version https://git-lfs.github.com/spec/v1\noid sha256:aa\nsize 4265380512\n"),
         "Git LFS"},
        {"an HTML page", CODE("\n<!DOCTYPE html><html><title>Virus scan warning</title>"), "HTML"},
        {"an error in JSON", CODE("{\"error\": \"Access denied\"}"), "JSON|Access denied"},
        {"an error in XML", CODE("<?xml version=\"1.0\"?><Error/>"), "XML"},
        {"GGUF", CODE("GGUF\3\0\0\0\0\0\0\0"), "GGUF"},
        {"ONNX", CODE("\x08\x07\x12\x07pytorch\x1a\x04"), "ONNX"},
        {"a pickle", CODE("\x80\x04\x95\x0b\0\0\0\0\0\0\0}\x94\x8c\1a\x94K\1s."), "pickle|torch.save did not write"},
        {"a pickle of protocol 0", CODE("(dp0\nVa\np1\nI1\ns."), "pickle|torch.save did not write"},
        {"a pickle of NumPy",
         CODE("\x80\x03"
              "cnumpy.core.multiarray\n_reconstruct\nq\0."),
         "pickle|torch.save did not write"},
        {"a pickle and what joblib writes after it",
         CODE("\x80\x03"
              "cjoblib.numpy_pickle\nNumpyArrayWrapper\n)\x81\0\0"),
         "pickle|torch.save did not write"},
        {"an array of NumPy", CODE("\x93NUMPY\1\0v\0{'descr'"), "NumPy"},
        {"gzip", CODE("\x1f\x8b\x08\0\0\0\0\0"), "gzip|unpacked"},
        {"7z", CODE("7z\xbc\xaf\x27\x1c\0\4"), "7z"},
        {"RAR", CODE("Rar!\x1a\x07\1\0"), "RAR"},
        {"HDF5", CODE("\x89HDF\r\n\x1a\n"), "HDF5"},
        {"a picture", CODE("\x89PNG\r\n\x1a\n"), "PNG"},
        {"nothing", CODE(""), "empty file|0 bytes"},
        {"one byte", CODE("x"), "1 bytes"},
        {"text", CODE("epoch 1 loss 0.1\n"), "not a file of a known kind"},
    };
    static bytes b;
    char error[4096];
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        b.count = 0;
        put(&b, row[i].head, row[i].size);
        CHECK(!convert(&b, (conversion){0}, error), "%s was converted", row[i].what);
        says(row[i].what, error, row[i].words);
    }
    b.count = 0;
    put(&b, "./model.ckpt", 12);
    while (b.count < 257) put(&b, "\0", 1);
    put(&b, "ustar\0", 6);
    CHECK(!convert(&b, (conversion){0}, error) && strstr(error, "tar archive"), "%s", error);
    static const struct {
        part parts[2];
        const char *words;
    } zips[] = {
        {{{"w.npy", "x", 1}, {"b.npy", "x", 1}}, "NumPy"},
        {{{"m/data.pkl", "}.", 2}, {"m/constants.pkl", ").", 2}}, "TorchScript"},
        {{{"sd/", "", 0}, {"sd/v1-5.ckpt", "x", 1}}, "unpacked|sd/v1-5.ckpt"},
        {{{"unet/model.safetensors", "x", 1}, {"b", "x", 1}}, "unpacked|unet/model.safetensors"},
        {{{"word/document.xml", "x", 1}, {"b", "x", 1}}, "without data.pkl|word/document.xml"},
    };
    for (size_t i = 0; i < sizeof zips / sizeof *zips; i++) {
        put_zip(&b, zips[i].parts, 2, false);
        CHECK(!convert(&b, (conversion){0}, error), "%s was converted", zips[i].parts[0].name);
        says(zips[i].parts[0].name, error, zips[i].words);
    }
}
