/* ckpt2safetensors - turns a PyTorch checkpoint (.ckpt, .pt) into a safetensors file, without PyTorch and without ever
 * executing the pickle in it.
 *
 * A pickle is a program for a stack machine that may call anything. This is an interpreter of the part of that machine
 * that torch.save needs, in which the only "calls" are a fixed list: OrderedDict, tensors and parameters from storages,
 * and a few inert classes that PyTorch Lightning leaves in its entries. Any other global is refused by name. What it is
 * not: a general pickle reader.
 *
 * Formats: torch.save's zip (torch/serialization.py, since 1.6; stored entries, any root folder, zip64), and the stream
 * of pickles before it. Tensor data is streamed: memory does not grow with the file.
 */
#define _FILE_OFFSET_BITS 64
#define _POSIX_C_SOURCE 200112L

#include "flis.h"

#include <errno.h>
#include <math.h>
#include <limits.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

/* What C99 does not have: offsets beyond 2 GiB. */
#if defined(__unix__) || defined(__APPLE__)
#include <sys/types.h>
#define SEEK64(stream, offset) fseeko(stream, (off_t)(offset), SEEK_SET)
#define TELL64(stream) ((uint64_t)ftello(stream))
#define SEEK_LAST(stream) fseeko(stream, 0, SEEK_END)
#else
#define SEEK64(stream, offset) ((offset) > LONG_MAX ? -1 : fseek(stream, (long)(offset), SEEK_SET))
#define TELL64(stream) ((uint64_t)ftell(stream))
#define SEEK_LAST(stream) fseek(stream, 0, SEEK_END)
#endif

/* ---- Values of the stack machine ------------------------------------------------------------------------------- */

typedef enum { NONE, BOOL, INT, FLOAT, TEXT, TUPLE, LIST, DICT, GLOBAL, STORAGE, TENSOR, INERT, MARK } value_kind;
typedef enum { G_INERT, G_DICT, G_TENSOR2, G_TENSOR, G_PARAMETER, G_STORAGE } global_kind;

typedef struct value value;
typedef struct storage {
    uint64_t numel, at;
    flis_dtype dtype;
    char *key;
    bool located;
} storage;
typedef struct storages {
    storage **at;
    size_t count, room;
} storages; /* every storage named so far, sorted by key */
struct value {
    value_kind kind;
    union {
        int64_t integer;
        double number;
        struct {
            char *bytes;
            size_t length;
        } text;
        struct {
            value **item;
            size_t count, room;
        } list; /* TUPLE, LIST; DICT: key, value, key, value, … */
        struct {
            global_kind call;
            flis_dtype dtype;
            const char *name;
        } global;
        storage *storage;
        struct {
            storage *storage;
            uint64_t offset, shape[FLIS_MAX_DIMS], stride[FLIS_MAX_DIMS];
            int rank;
        } tensor;
    } u;
};

/* Memory for values, all freed together. */
typedef struct pool {
    const char *path; /* of the checkpoint, for the sentence */
    struct pool_piece {
        struct pool_piece *next;
    } * pieces;
    size_t used;
    unsigned char *free;
    size_t left;
} pool;
enum { POOL_PIECE = 1 << 16 };
static const size_t POOL_LIMIT = (size_t)96 << 20; /* a checkpoint of 10,000 tensors takes about 10 MB */
static const size_t MOST_STORAGES = 1 << 16;

static void *pool_take(flis_ctx *ctx, pool *p, size_t size)
{
    size = (size + 15) / 16 * 16;
    if (size > POOL_LIMIT || p->used + size > POOL_LIMIT) {
        flis_fail(ctx, "%s: the pickle describes more than %zu MB of values besides its tensors", p->path,
                  POOL_LIMIT >> 20);
        return NULL;
    }
    if (size > p->left) {
        size_t want = size > POOL_PIECE ? size : POOL_PIECE;
        struct pool_piece *piece = flis_alloc(ctx, 1, want + 16);
        if (!piece) return NULL;
        piece->next = p->pieces;
        p->pieces = piece;
        p->free = (unsigned char *)piece + 16;
        p->left = want;
    }
    void *taken = p->free;
    p->free += size;
    p->left -= size;
    p->used += size;
    return taken;
}

static void pool_free(pool *p)
{
    while (p->pieces) {
        struct pool_piece *next = p->pieces->next;
        free(p->pieces);
        p->pieces = next;
    }
}

/* ---- The machine ----------------------------------------------------------------------------------------------- */

typedef struct machine {
    flis_ctx *ctx;
    const char *path;
    FILE *in;
    uint64_t left, size; /* bytes of the pickle (old format: of the file) that may still be read, and all */
    uint64_t at;         /* where the present instruction stands among them */
    pool *pool;
    value **stack;
    size_t depth, stack_room;
    value **memo;
    size_t memo_room;
    storages *storages;
} machine;

static bool bad(machine *m, const char *what)
{
    return flis_fail(m->ctx, "%s: not a checkpoint that torch.save wrote: at byte %llu of its pickle: %s", m->path,
                     (unsigned long long)m->at, what);
}

static bool get_bytes(machine *m, void *out, size_t count)
{
    if (!flis_ok(m->ctx)) return false;
    if (count > m->left || fread(out, 1, count, m->in) != count) return bad(m, "the pickle ended early");
    m->left -= count;
    return true;
}

static uint64_t get_number(machine *m, int size)
{
    unsigned char bytes[8];
    uint64_t number = 0;
    if (!get_bytes(m, bytes, (size_t)size)) return 0;
    for (int i = size - 1; i >= 0; i--) number = number << 8 | bytes[i];
    return number;
}

static value *new_value(machine *m, value_kind kind)
{
    value *v = pool_take(m->ctx, m->pool, sizeof *v);
    if (v) {
        memset(v, 0, sizeof *v);
        v->kind = kind;
    }
    return v;
}

static void push(machine *m, value *v)
{
    if (!v || !flis_ok(m->ctx)) return;
    if (m->depth == m->stack_room) {
        size_t room = m->stack_room ? 2 * m->stack_room : 256;
        value **grown = pool_take(m->ctx, m->pool, room * sizeof *grown);
        if (!grown) return;
        if (m->depth) memcpy(grown, m->stack, m->depth * sizeof *grown);
        m->stack = grown;
        m->stack_room = room;
    }
    m->stack[m->depth++] = v;
}

static value *pop(machine *m)
{
    if (flis_ok(m->ctx) && m->depth && m->stack[m->depth - 1]->kind != MARK) return m->stack[--m->depth];
    bad(m, "an instruction found the stack empty");
    return NULL;
}

static value *top(machine *m)
{
    if (flis_ok(m->ctx) && m->depth && m->stack[m->depth - 1]->kind != MARK) return m->stack[m->depth - 1];
    bad(m, "an instruction found the stack empty");
    return NULL;
}

/* Index of the first value above the topmost mark, which stays for the caller to remove. */
static size_t above_mark(machine *m)
{
    size_t i = m->depth;
    while (i && m->stack[i - 1]->kind != MARK) i--;
    if (!i) bad(m, "an instruction found no mark");
    return i;
}

static void append(machine *m, value *list, value *item)
{
    if (!list || !item || !flis_ok(m->ctx)) return;
    if (list->u.list.count == list->u.list.room) {
        size_t room = list->u.list.room ? 2 * list->u.list.room : 4;
        value **grown = pool_take(m->ctx, m->pool, room * sizeof *grown);
        if (!grown) return;
        if (list->u.list.count) memcpy(grown, list->u.list.item, list->u.list.count * sizeof *grown);
        list->u.list.item = grown;
        list->u.list.room = room;
    }
    list->u.list.item[list->u.list.count++] = item;
}

/* Takes everything above the mark, and the mark, off the stack and into `list`. */
static void take_marked(machine *m, value *list)
{
    size_t first = above_mark(m);
    if (!list || !flis_ok(m->ctx)) return;
    for (size_t i = first; i < m->depth; i++) append(m, list, m->stack[i]);
    m->depth = first - 1;
}

static value *last_values(machine *m, size_t count, value_kind kind)
{
    value *tuple = new_value(m, kind);
    for (size_t i = 0; i < count; i++) {
        if (m->depth < count - i || m->stack[m->depth - (count - i)]->kind == MARK) {
            bad(m, "an instruction found the stack empty");
            return NULL;
        }
        append(m, tuple, m->stack[m->depth - (count - i)]);
    }
    if (flis_ok(m->ctx)) m->depth -= count;
    return tuple;
}

static value *get_text(machine *m, uint64_t length)
{
    value *v = new_value(m, TEXT);
    if (length > m->left) {
        bad(m, "a string is longer than the pickle");
        return NULL;
    }
    if (!v || !(v->u.text.bytes = pool_take(m->ctx, m->pool, (size_t)length + 1))) return NULL;
    v->u.text.length = (size_t)length;
    v->u.text.bytes[length] = 0;
    return get_bytes(m, v->u.text.bytes, (size_t)length) ? v : NULL;
}

/* A line of text without its end; for the old text instructions. */
static value *get_line(machine *m)
{
    char line[4096];
    size_t length = 0;
    while (length < sizeof line && get_bytes(m, line + length, 1) && line[length] != '\n') length++;
    if (!flis_ok(m->ctx) || length == sizeof line) {
        bad(m, "a line is too long");
        return NULL;
    }
    value *v = new_value(m, TEXT);
    if (!v || !(v->u.text.bytes = pool_take(m->ctx, m->pool, length + 1))) return NULL;
    memcpy(v->u.text.bytes, line, length);
    v->u.text.bytes[length] = 0;
    v->u.text.length = length;
    return v;
}

static const size_t MOST_MEMO = (size_t)1 << 22;

static void remember(machine *m, uint64_t index, value *v)
{
    if (!v || !flis_ok(m->ctx)) return;
    if (index >= m->memo_room) {
        size_t room = m->memo_room ? m->memo_room : 1024;
        while (room <= index && room < MOST_MEMO) room *= 2;
        if (index >= room) {
            bad(m, "a memo of more than 4194304 values");
            return;
        }
        value **grown = pool_take(m->ctx, m->pool, room * sizeof *grown);
        if (!grown) return;
        if (m->memo_room) memcpy(grown, m->memo, m->memo_room * sizeof *grown);
        memset(grown + m->memo_room, 0, (room - m->memo_room) * sizeof *grown);
        m->memo = grown;
        m->memo_room = room;
    }
    m->memo[index] = v;
}

static void recall(machine *m, uint64_t index)
{
    if (index >= m->memo_room || !m->memo[index]) bad(m, "it recalls what it never stored");
    else push(m, m->memo[index]);
}

/* ---- The allow-list -------------------------------------------------------------------------------------------- */

/* name "*": every name in the module. INERT: may be named, called and built, and is then a value that nothing reads. */
static const struct {
    const char *module, *name;
    global_kind call;
    flis_dtype dtype;
} ALLOWED[] = {
    {"collections", "OrderedDict", G_DICT, FLIS_F32},
    {"torch._utils", "_rebuild_tensor_v2", G_TENSOR2, FLIS_F32},
    {"torch._utils", "_rebuild_tensor", G_TENSOR, FLIS_F32},
    {"torch._utils", "_rebuild_parameter", G_PARAMETER, FLIS_F32},
    {"torch", "DoubleStorage", G_STORAGE, FLIS_F64},
    {"torch", "FloatStorage", G_STORAGE, FLIS_F32},
    {"torch", "HalfStorage", G_STORAGE, FLIS_F16},
    {"torch", "BFloat16Storage", G_STORAGE, FLIS_BF16},
    {"torch", "LongStorage", G_STORAGE, FLIS_I64},
    {"torch", "IntStorage", G_STORAGE, FLIS_I32},
    {"torch", "ShortStorage", G_STORAGE, FLIS_I16},
    {"torch", "CharStorage", G_STORAGE, FLIS_I8},
    {"torch", "ByteStorage", G_STORAGE, FLIS_U8},
    {"torch", "BoolStorage", G_STORAGE, FLIS_BOOL},
    {"torch", "Size", G_INERT, FLIS_F32},
    {"torch", "device", G_INERT, FLIS_F32},
    {"collections", "defaultdict", G_INERT, FLIS_F32},
    {"collections", "Counter", G_INERT, FLIS_F32},
    {"builtins", "set", G_INERT, FLIS_F32},
    {"__builtin__", "set", G_INERT, FLIS_F32},
    {"builtins", "dict", G_INERT, FLIS_F32},
    {"__builtin__", "dict", G_INERT, FLIS_F32},
    {"builtins", "int", G_INERT, FLIS_F32},
    {"__builtin__", "long", G_INERT, FLIS_F32},
    {"argparse", "Namespace", G_INERT, FLIS_F32},
    {"_codecs", "encode", G_INERT, FLIS_F32},
    {"numpy", "dtype", G_INERT, FLIS_F32},
    {"numpy", "ndarray", G_INERT, FLIS_F32},
    {"numpy.core.multiarray", "scalar", G_INERT, FLIS_F32},
    {"numpy.core.multiarray", "_reconstruct", G_INERT, FLIS_F32},
    {"pytorch_lightning.callbacks.model_checkpoint", "ModelCheckpoint", G_INERT, FLIS_F32},
    {"pytorch_lightning.callbacks.early_stopping", "EarlyStopping", G_INERT, FLIS_F32},
    {"pytorch_lightning.callbacks.lr_monitor", "LearningRateMonitor", G_INERT, FLIS_F32},
    {"pytorch_lightning.utilities.parsing", "AttributeDict", G_INERT, FLIS_F32},
};

/* SPEC 10.7. */
static void push_global(machine *m, const value *module, const value *name)
{
    if (!module || !name || module->kind != TEXT || name->kind != TEXT) {
        bad(m, "a global without a name");
        return;
    }
    for (size_t i = 0; i < sizeof ALLOWED / sizeof *ALLOWED; i++) {
        if (strcmp(module->u.text.bytes, ALLOWED[i].module) || strcmp(name->u.text.bytes, ALLOWED[i].name)) continue;
        value *v = new_value(m, GLOBAL);
        if (!v) return;
        v->u.global.call = ALLOWED[i].call;
        v->u.global.dtype = ALLOWED[i].dtype;
        v->u.global.name = ALLOWED[i].name;
        push(m, v);
        return;
    }
    flis_fail(m->ctx,
              "%s: the pickle names %.200s.%.200s, which is not one of the things that a checkpoint of weights needs; "
              "nothing was executed",
              m->path, module->u.text.bytes, name->u.text.bytes);
}

static const value *argument(const value *args, size_t index, value_kind kind)
{
    if (!args || args->kind != TUPLE || index >= args->u.list.count) return NULL;
    return args->u.list.item[index]->kind == kind ? args->u.list.item[index] : NULL;
}

/* _rebuild_tensor[_v2](storage, offset, size, stride, …). SPEC 10.7. */
static value *make_tensor(machine *m, const value *args)
{
    const value *from = argument(args, 0, STORAGE), *offset = argument(args, 1, INT), *size = argument(args, 2, TUPLE);
    const value *stride = argument(args, 3, TUPLE);
    value *v = new_value(m, TENSOR);
    if (!v) return NULL;
    if (!from || !offset || !size || !stride || offset->u.integer < 0 || size->u.list.count != stride->u.list.count) {
        bad(m, "a tensor without storage, offset, size and stride");
        return NULL;
    }
    if (size->u.list.count > FLIS_MAX_DIMS) {
        bad(m, "a tensor of more than 8 dimensions");
        return NULL;
    }
    v->u.tensor.storage = from->u.storage;
    v->u.tensor.offset = (uint64_t)offset->u.integer;
    v->u.tensor.rank = (int)size->u.list.count;
    /* The last element that it reads must lie in its storage; sizes are bounded by the storage only where strides are
       not zero, so the count is bounded as well. */
    uint64_t last = v->u.tensor.offset, count = 1;
    for (int i = 0; i < v->u.tensor.rank; i++) {
        const value *n = size->u.list.item[i], *s = stride->u.list.item[i];
        const int64_t most = (int64_t)1 << 40;
        if (n->kind != INT || s->kind != INT || n->u.integer < 0 || s->u.integer < 0 || n->u.integer > most ||
            s->u.integer > most) {
            bad(m, "a tensor with a size or stride that is no count");
            return NULL;
        }
        v->u.tensor.shape[i] = (uint64_t)n->u.integer;
        v->u.tensor.stride[i] = (uint64_t)s->u.integer;
        if (v->u.tensor.shape[i] && count > ((uint64_t)1 << 40) / v->u.tensor.shape[i]) {
            bad(m, "a tensor of more than 2^40 values");
            return NULL;
        }
        count *= v->u.tensor.shape[i];
        if (v->u.tensor.shape[i] > 1 && v->u.tensor.stride[i] > (UINT64_MAX - last) / (v->u.tensor.shape[i] - 1)) {
            bad(m, "a tensor that reaches beyond its storage");
            return NULL;
        }
        if (v->u.tensor.shape[i]) last += (v->u.tensor.shape[i] - 1) * v->u.tensor.stride[i];
    }
    if (count && last >= from->u.storage->numel) {
        bad(m, "a tensor that reaches beyond its storage");
        return NULL;
    }
    return v;
}

/* REDUCE, NEWOBJ: f(*args), for the f that are allowed. SPEC 10.7. */
static value *call(machine *m, const value *f, value *args)
{
    if (!f || !args) return NULL;
    if (f->kind != GLOBAL) {
        bad(m, "it calls what is not a function");
        return NULL;
    }
    value *v = NULL;
    switch (f->u.global.call) {
    case G_DICT: { /* OrderedDict(), or OrderedDict([(key, value), …]) */
        v = new_value(m, DICT);
        const value *pairs = argument(args, 0, LIST);
        for (size_t i = 0; v && pairs && i < pairs->u.list.count; i++) {
            const value *pair = pairs->u.list.item[i];
            if ((pair->kind != TUPLE && pair->kind != LIST) || pair->u.list.count != 2) {
                bad(m, "an OrderedDict of something else than pairs");
                return NULL;
            }
            append(m, v, pair->u.list.item[0]);
            append(m, v, pair->u.list.item[1]);
        }
        return v;
    }
    case G_TENSOR2:
    case G_TENSOR: return make_tensor(m, args);
    case G_PARAMETER:
        v = args->kind == TUPLE && args->u.list.count ? args->u.list.item[0] : NULL;
        if (!v || v->kind != TENSOR) bad(m, "a Parameter without a tensor");
        return v;
    case G_STORAGE: bad(m, "it makes a storage without data"); return NULL;
    case G_INERT: return new_value(m, INERT);
    }
    return NULL;
}

static int key_order(const storage *s, const char *key, size_t length)
{
    const size_t own = strlen(s->key);
    const int order = memcmp(s->key, key, own < length ? own : length);
    return order ? order : own < length ? -1 : own > length;
}

/* Index of the first storage whose key is not before this one. */
static size_t storage_place(const storages *all, const char *key, size_t length)
{
    size_t low = 0, high = all->count;
    while (low < high) {
        const size_t middle = low + (high - low) / 2;
        if (key_order(all->at[middle], key, length) < 0) low = middle + 1;
        else high = middle;
    }
    return low;
}

static storage *storage_find(const storages *all, const char *key, size_t length)
{
    const size_t place = storage_place(all, key, length);
    return place < all->count && key_order(all->at[place], key, length) == 0 ? all->at[place] : NULL;
}

static bool storage_insert(machine *m, size_t place, storage *s)
{
    storages *all = m->storages;
    if (all->count == MOST_STORAGES) return bad(m, "more than 65536 storages");
    if (all->count == all->room) {
        const size_t room = all->room ? 2 * all->room : 256;
        storage **grown = pool_take(m->ctx, m->pool, room * sizeof *grown);
        if (!grown) return false;
        if (all->count) memcpy(grown, all->at, all->count * sizeof *grown);
        all->at = grown;
        all->room = room;
    }
    memmove(all->at + place + 1, all->at + place, (all->count - place) * sizeof *all->at);
    all->at[place] = s;
    all->count++;
    return true;
}

/* ('storage', FloatStorage, key, location, numel[, view]). A view (a part of another storage) is refused: files of before
   PyTorch 0.4 have them, and taken for the whole they would be other values. SPEC 10.7. */
static void push_storage(machine *m, const value *id)
{
    const value *word = argument(id, 0, TEXT), *type = argument(id, 1, GLOBAL), *key = argument(id, 2, TEXT),
                *numel = argument(id, 4, INT);
    if (!word || strcmp(word->u.text.bytes, "storage") != 0) {
        bad(m, "a persistent id that is no storage's");
        return;
    }
    if (id->u.list.count > 5 && !argument(id, 5, NONE)) {
        bad(m, "a storage that is a view of another");
        return;
    }
    if (!type || type->u.global.call != G_STORAGE || !key || !numel || numel->u.integer < 0) {
        bad(m, "a storage without type, key and length");
        return;
    }
    const size_t length = strlen(key->u.text.bytes), place = storage_place(m->storages, key->u.text.bytes, length);
    storage *s = storage_find(m->storages, key->u.text.bytes, length);
    if (s && (s->numel != (uint64_t)numel->u.integer || s->dtype != type->u.global.dtype)) {
        bad(m, "one storage with two lengths or types");
        return;
    }
    if (!s) {
        if (!(s = pool_take(m->ctx, m->pool, sizeof *s))) return;
        *s = (storage){(uint64_t)numel->u.integer, 0, type->u.global.dtype, key->u.text.bytes, false};
        if (!storage_insert(m, place, s)) return;
    }
    value *v = new_value(m, STORAGE);
    if (v) v->u.storage = s;
    push(m, v);
}

/* ---- Instructions ---------------------------------------------------------------------------------------------- */

static value *integer(machine *m, int64_t number)
{
    value *v = new_value(m, INT);
    if (v) v->u.integer = number;
    return v;
}

/* LONG1, LONG4: little-endian two's complement of `length` bytes. Longer than 8 bytes is kept as text: only torch's magic
   number is, and nothing computes with it. */
static value *get_long(machine *m, uint64_t length)
{
    if (length > 8) return get_text(m, length);
    uint64_t number = get_number(m, (int)length);
    if (length && length < 8 && number >> (8 * length - 1)) number |= ~(uint64_t)0 << 8 * length;
    return integer(m, (int64_t)number);
}

static value *get_double(machine *m)
{
    unsigned char bytes[8];
    uint64_t bits = 0;
    value *v = new_value(m, FLOAT);
    if (!v || !get_bytes(m, bytes, 8)) return NULL;
    for (int i = 0; i < 8; i++) bits = bits << 8 | bytes[i];
    memcpy(&v->u.number, &bits, 8);
    return v;
}

static value *truth(machine *m, bool is)
{
    value *v = new_value(m, BOOL);
    if (v) v->u.integer = is;
    return v;
}

static value *text_number(machine *m, bool floating)
{
    value *line = get_line(m);
    if (!line) return NULL;
    if (strcmp(line->u.text.bytes, "00") == 0 || strcmp(line->u.text.bytes, "01") == 0)
        return truth(m, line->u.text.bytes[1] == '1');
    char *end;
    const double number = strtod(line->u.text.bytes, &end);
    errno = 0;
    const int64_t whole = floating ? 0 : strtoll(line->u.text.bytes, &end, 10);
    if (end == line->u.text.bytes || (*end && strcmp(end, "L"))) bad(m, "a line that is no number");
    else if (!floating && errno == ERANGE) bad(m, "a line with a number beyond 64 bits");
    if (!floating) return integer(m, whole);
    value *v = new_value(m, FLOAT);
    if (v) v->u.number = number;
    return v;
}

/* state is what BUILD gives an object: torch puts _metadata into an OrderedDict that way. Nothing reads it. */
static void build(machine *m)
{
    value *state = pop(m), *object = top(m);
    if (state && object && object->kind != DICT && object->kind != INERT && object->kind != TENSOR)
        bad(m, "it sets the state of something that has none");
}

static void set_items(machine *m, bool marked)
{
    value *pairs = marked ? new_value(m, TUPLE) : last_values(m, 2, TUPLE);
    if (marked) take_marked(m, pairs);
    value *dict = top(m);
    if (!pairs || !dict || !flis_ok(m->ctx)) return;
    if ((dict->kind != DICT && dict->kind != INERT) || pairs->u.list.count % 2)
        bad(m, "it sets an item of no dictionary");
    for (size_t i = 0; dict->kind == DICT && i < pairs->u.list.count; i++) append(m, dict, pairs->u.list.item[i]);
}

static void append_items(machine *m, bool marked)
{
    value *items = marked ? new_value(m, TUPLE) : last_values(m, 1, TUPLE);
    if (marked) take_marked(m, items);
    value *list = top(m);
    if (!items || !list || !flis_ok(m->ctx)) return;
    if (list->kind != LIST && list->kind != INERT) bad(m, "it appends to no list");
    for (size_t i = 0; list->kind == LIST && i < items->u.list.count; i++) append(m, list, items->u.list.item[i]);
}

static void marked(machine *m, value_kind kind)
{
    value *v = new_value(m, kind);
    take_marked(m, v);
    if (v && kind == DICT && v->u.list.count % 2) bad(m, "a dictionary with a key and no value");
    push(m, v);
}

/* Instructions that push a constant. Returns false where `op` is none. */
static bool step_constant(machine *m, unsigned char op)
{
    switch (op) {
    case 'N': push(m, new_value(m, NONE)); return true;
    case 0x88:
    case 0x89: push(m, truth(m, op == 0x88)); return true;                           /* NEWTRUE, NEWFALSE */
    case 'J': push(m, integer(m, (int32_t)(uint32_t)get_number(m, 4))); return true; /* BININT */
    case 'K': push(m, integer(m, (int64_t)get_number(m, 1))); return true;
    case 'M': push(m, integer(m, (int64_t)get_number(m, 2))); return true;
    case 0x8a: push(m, get_long(m, get_number(m, 1))); return true;
    case 0x8b: push(m, get_long(m, get_number(m, 4))); return true;
    case 'G': push(m, get_double(m)); return true;
    case 'I':
    case 'L': push(m, text_number(m, false)); return true;
    case 'F': push(m, text_number(m, true)); return true;
    case 'X':
    case 'T':
    case 'B': push(m, get_text(m, get_number(m, 4))); return true; /* BINUNICODE, BINSTRING, BINBYTES */
    case 0x8c:
    case 'U':
    case 'C': push(m, get_text(m, get_number(m, 1))); return true;
    case 0x8d:
    case 0x8e: push(m, get_text(m, get_number(m, 8))); return true;
    case 'S':
    case 'V': push(m, get_line(m)); return true;
    case '}': push(m, new_value(m, DICT)); return true;
    case ']':
    case 0x8f: push(m, new_value(m, LIST)); return true; /* EMPTY_LIST, EMPTY_SET */
    case ')': push(m, new_value(m, TUPLE)); return true;
    case '(': push(m, new_value(m, MARK)); return true;
    default: return false;
    }
}

/* Instructions that work on the stack. */
static bool step_stack(machine *m, unsigned char op)
{
    value *a, *b;
    switch (op) {
    case '0': pop(m); return true;
    case '1':
        a = new_value(m, TUPLE);
        take_marked(m, a);
        return true;                        /* POP_MARK */
    case '2': push(m, top(m)); return true; /* DUP */
    case 't': marked(m, TUPLE); return true;
    case 'l':
    case 0x91: marked(m, LIST); return true; /* LIST, FROZENSET */
    case 'd': marked(m, DICT); return true;
    case 0x85:
    case 0x86:
    case 0x87: push(m, last_values(m, (size_t)(op - 0x84), TUPLE)); return true;
    case 'a': append_items(m, false); return true;
    case 'e':
    case 0x90: append_items(m, true); return true; /* APPENDS, ADDITEMS */
    case 's': set_items(m, false); return true;
    case 'u': set_items(m, true); return true;
    case 'R':
    case 0x81:
        b = pop(m);
        a = pop(m);
        push(m, call(m, a, b));
        return true; /* REDUCE, NEWOBJ */
    case 'b': build(m); return true;
    case 'c':
        a = get_line(m);
        b = get_line(m);
        push_global(m, a, b);
        return true;
    case 0x93:
        b = pop(m);
        a = pop(m);
        push_global(m, a, b);
        return true; /* STACK_GLOBAL */
    case 'Q':
        a = pop(m);
        if (a) push_storage(m, a);
        return true; /* BINPERSID */
    default: return false;
    }
}

/* PUT and GET write their place in the memo as a line of digits. */
static bool memo_index(machine *m, const value *line, uint64_t *index)
{
    *index = 0;
    if (!line) return false;
    const char *digit = line->u.text.bytes;
    if (!*digit) return bad(m, "a line that is no number");
    for (; *digit; digit++) {
        if (*digit < '0' || *digit > '9') return bad(m, "a line that is no number");
        if (*index < MOST_MEMO) *index = *index * 10 + (uint64_t)(*digit - '0'); /* beyond it, any will be refused */
    }
    return true;
}

static bool step_memo(machine *m, unsigned char op)
{
    value *line;
    uint64_t index;
    switch (op) {
    case 'q': remember(m, get_number(m, 1), top(m)); return true;
    case 'r': remember(m, get_number(m, 4), top(m)); return true;
    case 'p':
        line = get_line(m);
        if (memo_index(m, line, &index)) remember(m, index, top(m));
        return true;
    case 'h': recall(m, get_number(m, 1)); return true;
    case 'j': recall(m, get_number(m, 4)); return true;
    case 'g':
        line = get_line(m);
        if (memo_index(m, line, &index)) recall(m, index);
        return true;
    case 0x95: get_number(m, 8); return true; /* FRAME: only a hint */
    case 0x80:
        if (get_number(m, 1) > 5) bad(m, "a pickle protocol above 5");
        return true;
    default: return false;
    }
}

/* Runs one pickle from the stream's present place to its STOP. SPEC 10.7. */
static value *unpickle(flis_ctx *ctx, const char *path, FILE *in, uint64_t size, uint64_t *left, pool *p,
                       storages *known)
{
    machine m = {.ctx = ctx, .path = path, .in = in, .left = *left, .size = size, .pool = p, .storages = known};
    value *result = NULL;
    uint64_t memoized = 0;
    while (flis_ok(ctx)) {
        unsigned char op = 0;
        m.at = m.size - m.left;
        if (!get_bytes(&m, &op, 1)) break;
        if (op == '.') {
            result = pop(&m);
            break;
        }
        if (op == 0x94) remember(&m, memoized++, top(&m)); /* MEMOIZE */
        else if (!step_constant(&m, op) && !step_stack(&m, op) && !step_memo(&m, op))
            flis_fail(ctx, "%s: not a checkpoint that torch.save wrote: at byte %llu of its pickle: instruction 0x%02x",
                      path, (unsigned long long)m.at, op);
    }
    *left = m.left;
    return flis_ok(ctx) ? result : NULL;
}

/* ---- Zip ------------------------------------------------------------------------------------------------------- */

typedef struct checkpoint {
    flis_ctx *ctx;
    const char *path;
    FILE *in;
    uint64_t size;
    pool pool;
    storages storages;
    value *root;
    const unsigned char *folder; /* of data.pkl, with its slash; in the directory's bytes */
    size_t folder_length;
    uint64_t pickle_at, pickle_size; /* zip: where data.pkl lies */
} checkpoint;

static uint64_t number_at(const unsigned char *bytes, int size)
{
    uint64_t number = 0;
    for (int i = size - 1; i >= 0; i--) number = number << 8 | bytes[i];
    return number;
}

static bool read_at(checkpoint *c, uint64_t offset, void *out, size_t count)
{
    if (offset > c->size || count > c->size - offset || SEEK64(c->in, offset) != 0 ||
        fread(out, 1, count, c->in) != count)
        return flis_fail(c->ctx, "%s: cut short: wanted %zu bytes from byte %llu, got a file of %llu", c->path, count,
                         (unsigned long long)offset, (unsigned long long)c->size);
    return true;
}

typedef struct directory {
    uint64_t at, size, entries;
} directory;

/* The end-of-central-directory record, its 64-bit form where there is one. */
static bool find_directory(checkpoint *c, directory *d)
{
    static const size_t TAIL = 65536 + 22;
    size_t length = c->size < TAIL ? (size_t)c->size : TAIL;
    unsigned char *tail = flis_alloc(c->ctx, length + 1, 1);
    bool found = false;
    if (tail && read_at(c, c->size - length, tail, length))
        for (size_t i = length < 22 ? 0 : length - 21; i-- > 0 && !found;)
            if ((found = memcmp(tail + i, "PK\5\6", 4) == 0)) {
                *d = (directory){number_at(tail + i + 16, 4), number_at(tail + i + 12, 4), number_at(tail + i + 10, 2)};
                unsigned char record[56];
                bool wide = d->at == 0xffffffff || d->size == 0xffffffff || d->entries == 0xffff;
                if (i >= 20 && memcmp(tail + i - 20, "PK\6\7", 4) == 0 &&
                    (wide || number_at(tail + i - 20 + 8, 8) < c->size) &&
                    read_at(c, number_at(tail + i - 20 + 8, 8), record, sizeof record) &&
                    memcmp(record, "PK\6\6", 4) == 0)
                    *d = (directory){number_at(record + 48, 8), number_at(record + 40, 8), number_at(record + 32, 8)};
            }
    free(tail);
    if (!flis_ok(c->ctx)) return false;
    if (!found)
        return flis_fail(c->ctx, "%s: a zip file without a directory at its end: cut short, or damaged", c->path);
    if (d->at > c->size || d->size > c->size - d->at || d->entries > d->size / 46)
        return flis_fail(
            c->ctx,
            "%s: the zip file's directory would be %llu entries in %llu bytes from byte %llu, in a file of %llu",
            c->path, (unsigned long long)d->entries, (unsigned long long)d->size, (unsigned long long)d->at,
            (unsigned long long)c->size);
    return true;
}

typedef struct zip_entry {
    const unsigned char *name;
    size_t name_length;
    uint64_t size, packed, header;
    unsigned method, flags;
} zip_entry;

/* A sentence about an entry: its name, then what is wrong with it. */
static bool entry_fail(checkpoint *c, const zip_entry *e, const char *format, ...)
{
    char what[256];
    va_list args;
    va_start(args, format);
    vsnprintf(what, sizeof what, format, args);
    va_end(args);
    return flis_fail(c->ctx, "%s: entry %.*s: %s", c->path, (int)(e->name_length > 200 ? 200 : e->name_length),
                     (const char *)e->name, what);
}

/* One directory record at `p`, `left` bytes before the end; *length is the record's. */
static bool read_record(checkpoint *c, const unsigned char *p, size_t left, zip_entry *e, size_t *length)
{
    if (left < 46 || memcmp(p, "PK\1\2", 4) != 0)
        return flis_fail(c->ctx, "%s: the zip file's directory: no entry where one should be, %zu bytes before its end",
                         c->path, left);
    size_t name = (size_t)number_at(p + 28, 2), extra = (size_t)number_at(p + 30, 2),
           comment = (size_t)number_at(p + 32, 2);
    *length = 46 + name + extra + comment;
    if (*length > left)
        return flis_fail(c->ctx, "%s: the zip file's directory: an entry of %zu bytes, %zu bytes before its end",
                         c->path, *length, left);
    *e = (zip_entry){p + 46,
                     name,
                     number_at(p + 24, 4),
                     number_at(p + 20, 4),
                     number_at(p + 42, 4),
                     (unsigned)number_at(p + 10, 2),
                     (unsigned)number_at(p + 8, 2)};
    const unsigned char *x = p + 46 + name, *end = x + extra;
    while (end - x >= 4) { /* zip64's extra field holds those of size, packed, header that are all ones */
        size_t size = (size_t)number_at(x + 2, 2);
        if (size > (size_t)(end - x) - 4) break;
        if (number_at(x, 2) == 1) {
            const unsigned char *field = x + 4, *last = x + 4 + size;
            uint64_t *wide[3] = {&e->size, &e->packed, &e->header};
            for (int i = 0; i < 3; i++)
                if (*wide[i] == 0xffffffff && last - field >= 8) {
                    *wide[i] = number_at(field, 8);
                    field += 8;
                }
        }
        x += 4 + size;
    }
    return true;
}

/* Where an entry's bytes begin: after its local header, whose extra field differs from the directory's, but not its name. */
static bool locate(checkpoint *c, const zip_entry *e, uint64_t *at)
{
    unsigned char header[30], name[256];
    if (e->flags & 1) return entry_fail(c, e, "encrypted; torch.save writes plain ones");
    if (e->method != 0) return entry_fail(c, e, "compressed (method %u); torch.save stores", e->method);
    if (e->size != e->packed)
        return entry_fail(c, e, "got %llu bytes stored in %llu, wanted the same", (unsigned long long)e->size,
                          (unsigned long long)e->packed);
    if (!read_at(c, e->header, header, sizeof header)) return false;
    if (memcmp(header, "PK\3\4", 4) != 0)
        return entry_fail(c, e, "nothing where the directory points to, at byte %llu", (unsigned long long)e->header);
    bool same = number_at(header + 26, 2) == e->name_length;
    for (size_t i = 0, now; same && i < e->name_length; i += now) {
        now = e->name_length - i < sizeof name ? e->name_length - i : sizeof name;
        if (!read_at(c, e->header + 30 + i, name, now)) return false;
        same = memcmp(name, e->name + i, now) == 0;
    }
    if (!same)
        return entry_fail(c, e, "another name where the directory points to, at byte %llu",
                          (unsigned long long)e->header);
    *at = e->header + 30 + number_at(header + 26, 2) + number_at(header + 28, 2);
    if (*at > c->size || e->size > c->size - *at)
        return entry_fail(c, e, "wanted %llu bytes from byte %llu, got a file of %llu", (unsigned long long)e->size,
                          (unsigned long long)*at, (unsigned long long)c->size);
    return true;
}

static bool ends_with(const zip_entry *e, const char *tail, size_t root)
{
    size_t length = strlen(tail);
    return e->name_length == root + length && memcmp(e->name + root, tail, length) == 0;
}

static size_t root_length(const zip_entry *e)
{
    size_t i = 0;
    while (i < e->name_length && e->name[i] != '/') i++;
    return i < e->name_length ? i + 1 : 0;
}

static bool read_pickle(checkpoint *c, const zip_entry *e)
{
    uint64_t left = e->size;
    if (c->root) return entry_fail(c, e, "a second data.pkl");
    if (!locate(c, e, &c->pickle_at)) return false;
    if (SEEK64(c->in, c->pickle_at) != 0) return flis_fail(c->ctx, "%s: cannot be read", c->path);
    c->folder = e->name;
    c->folder_length = root_length(e);
    c->pickle_size = e->size;
    c->root = unpickle(c->ctx, c->path, c->in, e->size, &left, &c->pool, &c->storages);
    return c->root != NULL;
}

static bool check_byteorder(checkpoint *c, const zip_entry *e)
{
    char order[41] = {0};
    uint64_t where = 0;
    const size_t size = e->size < sizeof order ? (size_t)e->size : sizeof order - 1;
    if (!locate(c, e, &where) || !read_at(c, where, order, size)) return false;
    return (e->size == 6 && memcmp(order, "little", 6) == 0) || entry_fail(c, e, "got %s, wanted little", order);
}

static bool find_storage(checkpoint *c, const zip_entry *e, size_t prefix)
{
    storage *s = storage_find(&c->storages, (const char *)e->name + prefix, e->name_length - prefix);
    if (!s) return true; /* of something that no tensor names */
    if (s->located) return entry_fail(c, e, "a second one of that name");
    if (!locate(c, e, &s->at)) return false;
    if (s->numel > e->size / flis_dtype_size(s->dtype))
        return flis_fail(c->ctx, "%s: storage %.200s: got %llu bytes, wanted %llu values of %s", c->path, s->key,
                         (unsigned long long)e->size, (unsigned long long)s->numel, flis_dtype_name(s->dtype));
    return s->located = true;
}

/* Walks the directory: first for the pickle, then, with the storages known, for their data. */
static bool walk_directory(checkpoint *c, const unsigned char *bytes, const directory *d, bool data)
{
    size_t at = 0;
    for (uint64_t i = 0; i < d->entries; i++) {
        zip_entry e;
        size_t length = 0;
        if (!read_record(c, bytes + at, (size_t)d->size - at, &e, &length)) return false;
        at += length;
        const size_t root = root_length(&e);
        bool good = true;
        if (!data && ends_with(&e, "data.pkl", root)) good = read_pickle(c, &e);
        else if (!data && ends_with(&e, "byteorder", root)) good = check_byteorder(c, &e);
        else if (data && e.name_length > root + 5 && memcmp(e.name + root, "data/", 5) == 0 &&
                 root == c->folder_length && memcmp(e.name, c->folder, root) == 0)
            good = find_storage(c, &e, root + 5);
        if (!good) return false;
    }
    return true;
}

static uint64_t storage_size(const storage *s)
{
    return s->numel * flis_dtype_size(s->dtype);
}

static int by_place(const void *a, const void *b)
{
    const storage *x = *(storage *const *)a, *y = *(storage *const *)b;
    return x->at < y->at ? -1 : x->at > y->at ? 1 : strcmp(x->key, y->key);
}

/* Entries that share bytes are how a small zip file claims to be a large one. */
static bool check_overlaps(checkpoint *c, const directory *d)
{
    const size_t most = c->storages.count;
    size_t count = 0;
    storage **list = flis_alloc(c->ctx, most, sizeof *list);
    for (size_t i = 0; list && i < most; i++)
        if (c->storages.at[i]->located && c->storages.at[i]->numel) list[count++] = c->storages.at[i];
    if (list) qsort(list, count, sizeof *list, by_place);
    for (size_t i = 0; list && i < count && flis_ok(c->ctx); i++) {
        const storage *s = list[i];
        const uint64_t end = s->at + storage_size(s);
        const bool next = i + 1 < count && list[i + 1]->at < end;
        if (next || end > d->at || (s->at < c->pickle_at + c->pickle_size && end > c->pickle_at))
            flis_fail(c->ctx, "%s: storage %.200s: bytes %llu to %llu overlap those of %s%.200s", c->path, s->key,
                      (unsigned long long)s->at, (unsigned long long)end,
                      next          ? "storage "
                      : end > d->at ? "the directory"
                                    : "data.pkl",
                      next ? list[i + 1]->key : "");
    }
    free(list);
    return flis_ok(c->ctx);
}

/* SPEC 10.7. */
static bool read_zip(checkpoint *c)
{
    directory d;
    if (!find_directory(c, &d)) return false;
    if (d.size > (uint64_t)32 << 20) return flis_fail(c->ctx, "%s: the zip file's directory is over 32 MB", c->path);
    unsigned char *bytes = flis_alloc(c->ctx, (size_t)d.size + 1, 1);
    bool done = bytes && read_at(c, d.at, bytes, (size_t)d.size) && walk_directory(c, bytes, &d, false);
    if (done && !c->root) done = flis_fail(c->ctx, "%s: a zip file without data.pkl: not a checkpoint", c->path);
    done = done && walk_directory(c, bytes, &d, true) && check_overlaps(c, &d);
    free(bytes);
    return done;
}

static const value *get(const value *dict, const char *key)
{
    const value *found = NULL;
    for (size_t i = 0; dict && dict->kind == DICT && i + 1 < dict->u.list.count; i += 2)
        if (dict->u.list.item[i]->kind == TEXT && strcmp(dict->u.list.item[i]->u.text.bytes, key) == 0)
            found = dict->u.list.item[i + 1];
    return found;
}

static value *next_pickle(checkpoint *c, uint64_t *left)
{
    return unpickle(c->ctx, c->path, c->in, c->size, left, &c->pool, &c->storages);
}

/* The number of values of a storage, 8 bytes, and the values. */
static bool next_storage(checkpoint *c, const value *key, uint64_t *at)
{
    unsigned char bytes[8];
    storage *s = key->kind == TEXT ? storage_find(&c->storages, key->u.text.bytes, strlen(key->u.text.bytes)) : NULL;
    if (!s)
        return flis_fail(c->ctx, "%s: data of storage %.200s, which no tensor names", c->path,
                         key->kind == TEXT ? key->u.text.bytes : "(no name)");
    if (s->located) return flis_fail(c->ctx, "%s: data of storage %.200s twice", c->path, s->key);
    if (!read_at(c, *at, bytes, 8)) return false;
    *at += 8;
    if (number_at(bytes, 8) != s->numel)
        return flis_fail(c->ctx, "%s: storage %.200s: got %llu values, wanted %llu", c->path, s->key,
                         (unsigned long long)number_at(bytes, 8), (unsigned long long)s->numel);
    if (s->numel > (c->size - *at) / flis_dtype_size(s->dtype))
        return flis_fail(c->ctx, "%s: storage %.200s: got %llu bytes to the end of the file, wanted %llu values of %s",
                         c->path, s->key, (unsigned long long)(c->size - *at), (unsigned long long)s->numel,
                         flis_dtype_name(s->dtype));
    s->at = *at;
    *at += storage_size(s);
    return s->located = true;
}

/* The old format: pickles of a magic number, a protocol number, system information and the object; a list of storage keys;
   then for each key its number of values (8 bytes) and the values. SPEC 10.7. */
static bool read_legacy(checkpoint *c)
{
    uint64_t left = c->size;
    rewind(c->in);
    const value *magic = next_pickle(c, &left);
    if (!magic || magic->kind != TEXT || magic->u.text.length != 10 ||
        memcmp(magic->u.text.bytes, "\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19", 10) != 0) {
        c->ctx->error[0] = 0; /* whatever the machine found, the reason is this */
        return flis_fail(c->ctx, "%s: neither a zip file nor an old torch.save file", c->path);
    }
    next_pickle(c, &left); /* the protocol's number */
    const value *system = next_pickle(c, &left), *little = get(system, "little_endian");
    if (little && little->kind == BOOL && !little->u.integer)
        return flis_fail(c->ctx, "%s: its system information: got a big-endian machine, wanted a little-endian one",
                         c->path);
    c->root = next_pickle(c, &left);
    const value *keys = next_pickle(c, &left);
    if (!flis_ok(c->ctx)) return false;
    if (!keys || keys->kind != LIST) return flis_fail(c->ctx, "%s: no list of storages behind the pickle", c->path);
    uint64_t at = c->size - left;
    for (size_t i = 0; i < keys->u.list.count; i++)
        if (!next_storage(c, keys->u.list.item[i], &at)) return false;
    return true;
}

/* ---- Writing --------------------------------------------------------------------------------------------------- */

typedef struct options {
    bool ema, all, half, quiet;
    size_t sets;
    char **set;
    const char *in, *out;
} options;

typedef struct item {
    const char *name;
    const value *tensor;
} item;

/* What a tensor's values are read from: the file, or the part of it that holds them all. */
typedef struct {
    uint64_t at;
    unsigned char *bytes;
} window;

/* Where a tensor is not contiguous, its part of the storage in memory, if that is not much more than the tensor itself: else
   a transposed matrix would be a read for every value. */
static bool window_open(checkpoint *c, const value *v, uint64_t count, window *w)
{
    const uint64_t most = (uint64_t)128 << 20, size = flis_dtype_size(v->u.tensor.storage->dtype);
    uint64_t extent = 1;
    *w = (window){v->u.tensor.storage->at + v->u.tensor.offset * size, NULL};
    for (int i = 0; i < v->u.tensor.rank; i++) extent += (v->u.tensor.shape[i] - 1) * v->u.tensor.stride[i];
    if (extent * size > most || extent > 4 * count + 65536) return true;
    w->bytes = flis_alloc(c->ctx, (size_t)(extent * size), 1);
    return w->bytes && read_at(c, w->at, w->bytes, (size_t)(extent * size));
}

static double float_at(const unsigned char *bytes, flis_dtype dtype)
{
    const uint64_t bits = number_at(bytes, (int)flis_dtype_size(dtype));
    const uint32_t low = (uint32_t)bits;
    double wide;
    float f;
    memcpy(&wide, &bits, sizeof wide);
    memcpy(&f, &low, sizeof f);
    return dtype == FLIS_F64   ? wide
           : dtype == FLIS_F32 ? (double)f
           : dtype == FLIS_F16 ? flis_half_to_float((uint16_t)bits)
                               : flis_bf16_to_float((uint16_t)bits);
}

/* Writes `now` values; *odd counts those that are NaN or infinite. A finite one that F16 cannot hold is an error: it would
   become infinite, and the model refuse to load. */
static bool put_values(checkpoint *c, flis_writer *writer, const item *of, const unsigned char *bytes, size_t now,
                       bool to_half, uint64_t *odd)
{
    enum { MOST = 8192 };
    const flis_dtype dtype = of->tensor->u.tensor.storage->dtype;
    const size_t size = flis_dtype_size(dtype);
    double values[MOST];
    if (dtype > FLIS_BF16) return flis_write_raw(c->ctx, writer, bytes, now);
    for (size_t i = 0; i < now; i++) {
        values[i] = float_at(bytes + i * size, dtype);
        const bool finite = values[i] - values[i] == 0;
        *odd += !finite;
        if (to_half && finite && fabs(values[i]) >= 65520)
            return flis_fail(
                c->ctx, "%s: tensor %.200s: got the value %g, wanted at most 65504 for F16: convert it without --half",
                c->path, of->name, values[i]);
    }
    return to_half ? flis_write_f64(c->ctx, writer, values, now) : flis_write_raw(c->ctx, writer, bytes, now);
}

/* Copies one tensor's values in order, innermost run after run. */
static bool copy_values(checkpoint *c, flis_writer *writer, const item *of, bool to_half, uint64_t *odd)
{
    enum { PIECE = 1 << 16, MOST = PIECE / 8 };
    unsigned char bytes[PIECE];
    const value *v = of->tensor;
    const size_t size = flis_dtype_size(v->u.tensor.storage->dtype);
    uint64_t index[FLIS_MAX_DIMS] = {0}, count = 1, run = 1;
    int inner = v->u.tensor.rank; /* dimensions inner..rank-1 are one contiguous run */
    window w = {v->u.tensor.storage->at + v->u.tensor.offset * size, NULL};
    size_t kept = 0; /* values in bytes, waiting to be written together */
    bool good = true;
    for (int i = 0; i < v->u.tensor.rank; i++) count *= v->u.tensor.shape[i];
    while (inner > 0 && (v->u.tensor.shape[inner - 1] == 1 || v->u.tensor.stride[inner - 1] == run))
        run *= v->u.tensor.shape[--inner];
    if (count && inner > 0) good = window_open(c, v, count, &w);
    for (uint64_t done = 0; good && done < count; done += run) {
        uint64_t from = 0;
        for (int i = 0; i < inner; i++) from += index[i] * v->u.tensor.stride[i];
        for (uint64_t part = 0; good && part < run;) {
            const size_t now = run - part < MOST - kept ? (size_t)(run - part) : MOST - kept;
            if (w.bytes) memcpy(bytes + kept * size, w.bytes + (from + part) * size, now * size);
            else good = read_at(c, w.at + (from + part) * size, bytes + kept * size, now * size);
            part += now;
            kept += now;
            if (kept < MOST) continue;
            good = good && put_values(c, writer, of, bytes, kept, to_half, odd);
            kept = 0;
        }
        for (int i = inner; i-- > 0;) {
            if (++index[i] < v->u.tensor.shape[i]) break;
            index[i] = 0;
        }
    }
    free(w.bytes);
    return good && (!kept || put_values(c, writer, of, bytes, kept, to_half, odd));
}

/* LitEma (ldm/modules/ema.py) keeps the average of model.X under model_ema. + X without its dots. SPEC 10.7. */
static void ema_name(const char *name, char *out, size_t room)
{
    size_t used = (size_t)snprintf(out, room, "model_ema.");
    for (const char *p = name + strlen("model."); *p && used + 1 < room; p++)
        if (*p != '.') out[used++] = *p;
    out[used] = 0;
}

static bool starts(const char *text, const char *with)
{
    return strncmp(text, with, strlen(with)) == 0;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const item *)a)->name, ((const item *)b)->name);
}

/* Every tensor of the dictionary, sorted by name; a name that comes twice is refused, where Python would keep the last. */
static item *list_tensors(checkpoint *c, const value *dict, size_t *count)
{
    const size_t pairs = dict->u.list.count / 2;
    size_t n = 0;
    item *all = flis_alloc(c->ctx, pairs, sizeof *all);
    for (size_t i = 0; all && i < pairs; i++) {
        const value *key = dict->u.list.item[2 * i], *v = dict->u.list.item[2 * i + 1];
        if (key->kind != TEXT || v->kind != TENSOR) continue;
        if (strlen(key->u.text.bytes) != key->u.text.length)
            flis_fail(c->ctx, "%s: tensor %.200s: a NUL character in its name", c->path, key->u.text.bytes);
        all[n++] = (item){key->u.text.bytes, v};
    }
    if (all) qsort(all, n, sizeof *all, by_name);
    for (size_t i = 1; all && i < n; i++)
        if (strcmp(all[i - 1].name, all[i].name) == 0)
            flis_fail(c->ctx, "%s: tensor %.200s stands twice", c->path, all[i].name);
    *count = n;
    return all;
}

/* The tensors to write. SPEC 10.7. */
static item *choose(checkpoint *c, const options *o, size_t *count)
{
    static const char *const kinds[] = {"None",     "a boolean", "a number",     "a number", "a string",
                                        "a tuple",  "a list",    "a dictionary", "a global", "a storage",
                                        "a tensor", "an object", "a mark"};
    const value *dict = get(c->root, "state_dict");
    size_t n = 0, averaged = 0, kept = 0;
    if (!dict) dict = c->root;
    if (dict->kind != DICT) {
        flis_fail(c->ctx, "%s: no dictionary of tensors in it: got %s", c->path, kinds[dict->kind]);
        return NULL;
    }
    item *all = list_tensors(c, dict, &n);
    for (size_t i = 0; all && o->ema && i < n; i++) {
        char name[512];
        if (!starts(all[i].name, "model.")) continue;
        ema_name(all[i].name, name, sizeof name);
        const item wanted = {name, NULL}, *average = bsearch(&wanted, all, n, sizeof *all, by_name);
        if (!average) continue;
        all[i].tensor = average->tensor;
        averaged++;
    }
    if (all && o->ema && !averaged) flis_fail(c->ctx, "%s: --ema: no model_ema.* tensors in it", c->path);
    for (size_t i = 0; all && i < n; i++)
        if (o->all || !starts(all[i].name, "model_ema.")) all[kept++] = all[i];
    if (all && !kept) flis_fail(c->ctx, "%s: no tensors in it", c->path);
    *count = kept;
    return all;
}

/* Views may repeat values (a stride of 0) and share storages; a small file must not become one that fills the disk. */
static bool check_size(checkpoint *c, const item *list, size_t count)
{
    const uint64_t most = 8 * c->size + ((uint64_t)16 << 20);
    uint64_t total = 0;
    for (size_t i = 0; i < count && total <= most; i++) {
        const value *v = list[i].tensor;
        uint64_t bytes = flis_dtype_size(v->u.tensor.storage->dtype);
        for (int k = 0; k < v->u.tensor.rank; k++) bytes *= v->u.tensor.shape[k];
        total += bytes;
        if (total > most)
            flis_fail(c->ctx,
                      "%s: tensor %.200s: the tensors up to it would take %llu bytes, wanted at most 8 times the "
                      "file's and 16 MB",
                      c->path, list[i].name, (unsigned long long)total);
    }
    return flis_ok(c->ctx);
}

static bool narrows(const options *o, flis_dtype dtype)
{
    return o->half && (dtype == FLIS_F32 || dtype == FLIS_F64 || dtype == FLIS_BF16);
}

static void write_all(checkpoint *c, const options *o)
{
    size_t count = 0;
    item *list = choose(c, o, &count);
    for (size_t i = 0; list && flis_ok(c->ctx) && i < count; i++)
        if (!list[i].tensor->u.tensor.storage->located)
            flis_fail(c->ctx, "%s: tensor %.200s: its data (storage %.200s) is missing", c->path, list[i].name,
                      list[i].tensor->u.tensor.storage->key);
    if (list && flis_ok(c->ctx)) check_size(c, list, count);
    flis_writer *writer = flis_ok(c->ctx) ? flis_write_begin(c->ctx, o->out) : NULL;
    for (size_t i = 0; i < o->sets; i++) {
        char *equals = strchr(o->set[i], '=');
        *equals = 0;
        flis_write_metadata(c->ctx, writer, o->set[i], equals + 1);
        *equals = '=';
    }
    for (size_t i = 0; writer && i < count; i++) {
        const value *v = list[i].tensor;
        flis_dtype dtype = v->u.tensor.storage->dtype;
        flis_write_declare(c->ctx, writer, list[i].name, narrows(o, dtype) ? FLIS_F16 : dtype, v->u.tensor.rank,
                           v->u.tensor.shape);
    }
    for (size_t i = 0; writer && i < count; i++) {
        uint64_t odd = 0;
        if (!copy_values(c, writer, &list[i], narrows(o, list[i].tensor->u.tensor.storage->dtype), &odd)) break;
        if (odd && !o->quiet)
            fprintf(stderr, "ckpt2safetensors: warning: tensor %.200s: %llu of its values are NaN or infinite\n",
                    list[i].name, (unsigned long long)odd);
    }
    if (writer && flis_write_end(c->ctx, writer) && !o->quiet) fprintf(stderr, "%s: %zu tensors\n", o->out, count);
    free(list);
}

/* ---- Command line ---------------------------------------------------------------------------------------------- */

static const char HELP[] =
    "usage: ckpt2safetensors [options] IN.ckpt OUT.safetensors\n"
    "Turns a PyTorch checkpoint into a safetensors file. Nothing in the checkpoint is executed.\n"
    "  --half            store float weights as F16\n"
    "  --ema             take the averaged weights (model_ema.*) in place of model.*\n"
    "  --all             keep model_ema.* as they are (by default they are left out)\n"
    "  --set KEY=VALUE   write metadata, e.g. unet.num_heads=8 clip.num_heads=12 vae.scale_factor=0.18215\n"
    "  --help, --version\n"
    "exit status: 0 done, 1 failed (one sentence on stderr, nothing written), 2 wrong usage\n";

/* Whether KEY=VALUE can be written: a key, given once, and a number where flis reads one. */
static bool check_set(const options *o, const char *set)
{
    static const char *const numbers[] = {"unet.num_heads", "clip.num_heads", "vae.scale_factor",
                                          "unet.norm_num_groups", "vae.norm_num_groups"};
    const size_t length = strcspn(set, "=");
    bool twice = false, number = true;
    for (size_t i = 0; i < o->sets; i++) twice = twice || strncmp(o->set[i], set, length + 1) == 0;
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        char *end;
        if (strlen(numbers[i]) != length || strncmp(numbers[i], set, length) != 0) continue;
        number = strtod(set + length + 1, &end) > 0 && !*end;
    }
    if (length && !twice && number) return true;
    fprintf(stderr, "ckpt2safetensors: --set %s: %s; see --help\n", set,
            !length ? "its key is missing"
            : twice ? "its key stands twice"
                    : "its value is no number above 0");
    return false;
}

/* 0: go on; else the exit status + 1. */
static int parse(int argc, char **argv, options *o)
{
    for (int i = 1; i < argc; i++) {
        const char *a = argv[i];
        if (strcmp(a, "--help") == 0) return fputs(HELP, stdout), 1;
        if (strcmp(a, "--version") == 0) return puts("ckpt2safetensors " FLIS_VERSION), 1;
        if (strcmp(a, "--half") == 0) o->half = true;
        else if (strcmp(a, "--ema") == 0) o->ema = true;
        else if (strcmp(a, "--all") == 0) o->all = true;
        else if (strcmp(a, "--set") == 0 && i + 1 < argc && strchr(argv[i + 1], '=')) {
            if (!check_set(o, argv[++i])) return 3;
            o->set[o->sets++] = argv[i];
        } else if (a[0] == '-' && a[1])
            return fprintf(stderr, "ckpt2safetensors: %s: not an option, or its value is missing; see --help\n", a), 3;
        else if (!o->in) o->in = a;
        else if (!o->out) o->out = a;
        else return fprintf(stderr, "ckpt2safetensors: %s: one file too many; see --help\n", a), 3;
    }
    if (!o->out) return fprintf(stderr, "ckpt2safetensors: wanted IN.ckpt and OUT.safetensors; see --help\n"), 3;
    return 0;
}

static void convert(flis_ctx *ctx, const options *o)
{
    checkpoint c = {.ctx = ctx, .path = o->in, .pool = {.path = o->in}};
    unsigned char head[4] = {0};
    if (!(c.in = fopen(o->in, "rb"))) flis_fail(ctx, "%s: cannot be opened", o->in);
    else if (getc(c.in) == EOF && ferror(c.in)) flis_fail(ctx, "%s: cannot be read: is it a folder?", o->in);
    else if (SEEK_LAST(c.in) != 0) flis_fail(ctx, "%s: cannot be read from any place", o->in);
    else {
        c.size = TELL64(c.in);
        if (c.size < 4)
            flis_fail(ctx, "%s: not a checkpoint: got %llu bytes, wanted 4 and more", o->in,
                      (unsigned long long)c.size);
        else if (read_at(&c, 0, head, 4) && (memcmp(head, "PK\3\4", 4) == 0 ? read_zip(&c) : read_legacy(&c)))
            write_all(&c, o);
    }
    if (c.in) fclose(c.in);
    pool_free(&c.pool);
}

int main(int argc, char **argv)
{
    options o = {.set = calloc((size_t)argc + 1, sizeof *o.set)};
    int status = o.set ? parse(argc, argv, &o) : 2;
    if (status == 0) {
        flis_ctx ctx;
        if (flis_init(&ctx)) convert(&ctx, &o);
        if (!flis_ok(&ctx)) fprintf(stderr, "ckpt2safetensors: %s\n", ctx.error);
        status = flis_ok(&ctx) ? 1 : 2;
        flis_free(&ctx);
    }
    free(o.set);
    return status - 1;
}
