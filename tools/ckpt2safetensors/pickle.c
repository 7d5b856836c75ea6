/* pickle.c - the stack machine that runs a pickle: instructions, stack and memo (Python's Lib/pickletools.py, protocols 0 to 5).
 * What a call would make is decided in globals.c. No call is made.
 */
#include "tools/ckpt2safetensors/pickle.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static const size_t MOST_MEMO = (size_t)1 << 22;
/* Nothing reads more of a text: names and keys are short, and what is longer (an array of NumPy, say) is no weight. */
enum { TEXT_KEPT = 1 << 16 };

bool bad_pickle(machine *m, const char *what)
{
    return flis_fail(m->ctx, "%s: not a checkpoint that torch.save wrote: at byte %llu of its pickle: %s", m->path,
                     (unsigned long long)m->at, what);
}

static bool get_bytes(machine *m, void *out, size_t count)
{
    pickle_bytes *from = m->from;
    if (!flis_ok(m->ctx)) return false;
    if (count > from->left) return bad_pickle(m, "the pickle ended early");
    if (from->at) {
        memcpy(out, from->at, count);
        from->at += count;
    } else if (fread(out, 1, count, from->in) != count) return bad_pickle(m, "the pickle ended early");
    from->left -= count;
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

value *new_value(machine *m, value_kind kind)
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
        value **grown = pool_grow(m->ctx, m->pool, m->stack, m->depth * sizeof *grown, room * sizeof *grown);
        if (!grown) return;
        m->stack = grown;
        m->stack_room = room;
    }
    m->stack[m->depth++] = v;
}

static value *pop(machine *m)
{
    if (flis_ok(m->ctx) && m->depth && m->stack[m->depth - 1]->kind != MARK) return m->stack[--m->depth];
    bad_pickle(m, "an instruction found the stack empty");
    return NULL;
}

static value *top(machine *m)
{
    if (flis_ok(m->ctx) && m->depth && m->stack[m->depth - 1]->kind != MARK) return m->stack[m->depth - 1];
    bad_pickle(m, "an instruction found the stack empty");
    return NULL;
}

/* Index of the first value above the topmost mark; the mark stays on the stack. */
static size_t above_mark(machine *m)
{
    size_t i = m->depth;
    while (i && m->stack[i - 1]->kind != MARK) i--;
    if (!i) bad_pickle(m, "an instruction found no mark");
    return i;
}

void append_value(machine *m, value *list, value *item)
{
    if (!list || !item || !flis_ok(m->ctx)) return;
    if (list->u.list.count == list->u.list.room) {
        size_t room = list->u.list.room ? 2 * list->u.list.room : 4;
        value **grown =
            pool_grow(m->ctx, m->pool, list->u.list.item, list->u.list.count * sizeof *grown, room * sizeof *grown);
        if (!grown) return;
        list->u.list.item = grown;
        list->u.list.room = room;
    }
    list->u.list.item[list->u.list.count++] = item;
}

/* Moves everything above the mark into `list`, and removes the mark. */
static void take_marked(machine *m, value *list)
{
    size_t first = above_mark(m);
    if (!list || !flis_ok(m->ctx)) return;
    for (size_t i = first; i < m->depth; i++) append_value(m, list, m->stack[i]);
    m->depth = first - 1;
}

static value *last_values(machine *m, size_t count, value_kind kind)
{
    value *tuple = new_value(m, kind);
    for (size_t i = 0; i < count; i++) {
        if (m->depth < count - i || m->stack[m->depth - (count - i)]->kind == MARK) {
            bad_pickle(m, "an instruction found the stack empty");
            return NULL;
        }
        append_value(m, tuple, m->stack[m->depth - (count - i)]);
    }
    if (flis_ok(m->ctx)) m->depth -= count;
    return tuple;
}

static value *get_text(machine *m, uint64_t length)
{
    const size_t kept = length < TEXT_KEPT ? (size_t)length : TEXT_KEPT;
    value *v = new_value(m, TEXT);
    if (length > m->from->left) {
        bad_pickle(m, "a string is longer than the pickle");
        return NULL;
    }
    if (!v || !(v->u.text.bytes = pool_take(m->ctx, m->pool, kept + 1))) return NULL;
    v->u.text.length = kept;
    v->u.text.bytes[kept] = 0;
    if (!get_bytes(m, v->u.text.bytes, kept)) return NULL;
    for (length -= kept; length;) {
        unsigned char skipped[4096];
        const size_t now = length < sizeof skipped ? (size_t)length : sizeof skipped;
        if (!get_bytes(m, skipped, now)) return NULL;
        length -= now;
    }
    return v;
}

/* A line without its line feed; for the text instructions of protocol 0. */
static value *get_line(machine *m)
{
    char first[256], *line = first;
    size_t length = 0, room = sizeof first;
    while (get_bytes(m, line + length, 1) && line[length] != '\n' && ++length < TEXT_KEPT) {
        if (length < room) continue;
        line = pool_grow(m->ctx, m->pool, line, length, room *= 2);
        if (!line) return NULL;
    }
    if (!flis_ok(m->ctx) || length == TEXT_KEPT) {
        bad_pickle(m, "a line is too long");
        return NULL;
    }
    value *v = new_value(m, TEXT);
    if (!v || !(v->u.text.bytes = pool_take(m->ctx, m->pool, length + 1))) return NULL;
    memcpy(v->u.text.bytes, line, length);
    v->u.text.bytes[length] = 0;
    v->u.text.length = length;
    return v;
}

/* STRING: a line in quotes. */
static value *get_quoted(machine *m)
{
    value *v = get_line(m);
    if (!v) return NULL;
    char *text = v->u.text.bytes;
    const size_t length = v->u.text.length;
    if (length < 2 || (*text != '\'' && *text != '"') || text[length - 1] != *text) return v;
    v->u.text.length = length - 2;
    memmove(text, text + 1, length - 2);
    text[length - 2] = 0;
    return v;
}

static void remember(machine *m, uint64_t index, value *v)
{
    if (!v || !flis_ok(m->ctx)) return;
    if (index >= m->memo_room) {
        size_t room = m->memo_room ? m->memo_room : 1024;
        while (room <= index && room < MOST_MEMO) room *= 2;
        if (index >= room) {
            bad_pickle(m, "a memo of more than 4194304 values");
            return;
        }
        value **grown = pool_grow(m->ctx, m->pool, m->memo, m->memo_room * sizeof *grown, room * sizeof *grown);
        if (!grown) return;
        memset(grown + m->memo_room, 0, (room - m->memo_room) * sizeof *grown);
        m->memo = grown;
        m->memo_room = room;
    }
    m->memo[index] = v;
}

static void recall(machine *m, uint64_t index)
{
    if (index >= m->memo_room || !m->memo[index]) bad_pickle(m, "it reads a memo entry that was never written");
    else push(m, m->memo[index]);
}

/* ---- Instructions ---------------------------------------------------------------------------------------------- */

static value *integer(machine *m, int64_t number)
{
    const bool small = number >= 0 && number < 256;
    if (small && m->small[number]) return m->small[number];
    value *v = new_value(m, INT);
    if (v) v->u.integer = number;
    if (small) m->small[number] = v;
    return v;
}

/* LONG1, LONG4: little-endian two's complement of `length` bytes. A number of more than 8 bytes becomes a text: nothing computes
   with torch's magic number or with the state of a random generator. */
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
    value **kept = &m->truth[is];
    if (!*kept && (*kept = new_value(m, BOOL))) (*kept)->u.integer = is;
    return *kept;
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
    if (end == line->u.text.bytes || (*end && strcmp(end, "L"))) bad_pickle(m, "a line that is not a number");
    if (!floating && errno == ERANGE) return line; /* beyond 64 bits: nothing computes with it */
    if (!floating) return integer(m, whole);
    value *v = new_value(m, FLOAT);
    if (v) v->u.number = number;
    return v;
}

/* BUILD: the state of an inert object is kept, because weights may be in it; any other is dropped. torch sets an OrderedDict's
   _metadata this way, and nothing reads that. */
static void build(machine *m)
{
    value *state = pop(m), *target = top(m);
    if (!state || !target) return;
    if (target->kind == INERT) target->u.object->state = state;
    else if (target->kind != DICT && target->kind != TENSOR && target->kind != GLOBAL)
        bad_pickle(m, "it sets the state of a value that has none");
}

static void set_items(machine *m, bool marked)
{
    value *pairs = marked ? new_value(m, TUPLE) : last_values(m, 2, TUPLE);
    if (marked) take_marked(m, pairs);
    value *dict = top(m);
    if (!pairs || !dict || !flis_ok(m->ctx)) return;
    if ((dict->kind != DICT && dict->kind != INERT) || pairs->u.list.count % 2)
        bad_pickle(m, "it sets an item of a value that is not a dictionary");
    if (dict->kind == INERT) {
        if (!dict->u.object->items) dict->u.object->items = new_value(m, DICT);
        dict = dict->u.object->items;
    }
    for (size_t i = 0; i < pairs->u.list.count; i++) append_value(m, dict, pairs->u.list.item[i]);
}

/* What is appended to an inert object is dropped: weights have names. */
static void append_items(machine *m, bool marked)
{
    value *items = marked ? new_value(m, TUPLE) : last_values(m, 1, TUPLE);
    if (marked) take_marked(m, items);
    value *list = top(m);
    if (!items || !list || !flis_ok(m->ctx)) return;
    if (list->kind != LIST && list->kind != INERT) bad_pickle(m, "it appends to a value that is not a list");
    for (size_t i = 0; list->kind == LIST && i < items->u.list.count; i++) append_value(m, list, items->u.list.item[i]);
}

/* The values above the mark as arguments; class: the first of them is what they are given to (OBJ), else a global (INST). */
static void call_marked(machine *m, value *class)
{
    value *arguments = new_value(m, TUPLE);
    take_marked(m, arguments);
    if (!arguments || !flis_ok(m->ctx)) return;
    if (!class) {
        if (!arguments->u.list.count) {
            bad_pickle(m, "an object without a class");
            return;
        }
        class = arguments->u.list.item[0];
        arguments->u.list.item++;
        arguments->u.list.count--;
        arguments->u.list.room--;
    }
    push(m, call_global(m, class, arguments));
}

static void marked(machine *m, value_kind kind)
{
    value *v = new_value(m, kind);
    take_marked(m, v);
    if (v && kind == DICT && v->u.list.count % 2) bad_pickle(m, "a dictionary with a key and no value");
    push(m, v);
}

/* Instructions that push a constant. False: `op` is not one of them. */
static bool step_constant(machine *m, unsigned char op)
{
    switch (op) {
    case 'N':
        if (!m->none) m->none = new_value(m, NONE);
        push(m, m->none);
        return true;
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
    case 0x8e:
    case 0x96: push(m, get_text(m, get_number(m, 8))); return true; /* BINUNICODE8, BINBYTES8, BYTEARRAY8 */
    case 'S': push(m, get_quoted(m)); return true;
    case 'V': push(m, get_line(m)); return true;
    case '}': push(m, new_value(m, DICT)); return true;
    case ']':
    case 0x8f: push(m, new_value(m, LIST)); return true; /* EMPTY_LIST, EMPTY_SET */
    case ')': push(m, new_value(m, TUPLE)); return true;
    case '(': push(m, new_value(m, MARK)); return true;
    default: return false;
    }
}

/* Instructions that combine values on the stack. False: `op` is not one of them. */
static bool step_stack(machine *m, unsigned char op)
{
    value *a;
    switch (op) {
    case '0':
        if (m->depth && m->stack[m->depth - 1]->kind == MARK) m->depth--;
        else pop(m);
        return true;
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
    case 'b': build(m); return true;
    default: return false;
    }
}

/* EXT1, EXT2, EXT4: a global by its number in a table of the program that wrote the file. */
static value *extension(machine *m, uint64_t code)
{
    value *v = new_value(m, GLOBAL);
    if (!v) return NULL;
    v->u.global.call = G_INERT;
    v->u.global.name = pool_text(m->ctx, m->pool, "extension code %llu", (unsigned long long)code);
    return v;
}

/* Instructions that name something, or that would call it. False: `op` is not one of them. */
static bool step_object(machine *m, unsigned char op)
{
    value *a, *b;
    switch (op) {
    case 0x92:
        pop(m); /* NEWOBJ_EX: the keywords; then as NEWOBJ */
    /* fall through */
    case 'R':
    case 0x81: /* REDUCE, NEWOBJ */
        b = pop(m);
        a = pop(m);
        push(m, call_global(m, a, b));
        return true;
    case 'o': call_marked(m, NULL); return true; /* OBJ */
    case 'c':
    case 'i':
        a = get_line(m);
        b = get_line(m);
        a = find_global(m, a, b);
        if (op == 'c') push(m, a);
        else if (a) call_marked(m, a); /* INST */
        return true;
    case 0x93:
        b = pop(m);
        a = pop(m);
        push(m, find_global(m, a, b));
        return true; /* STACK_GLOBAL */
    case 0x82: push(m, extension(m, get_number(m, 1))); return true;
    case 0x83: push(m, extension(m, get_number(m, 2))); return true;
    case 0x84: push(m, extension(m, get_number(m, 4))); return true;
    case 'P':
    case 'Q': /* PERSID, BINPERSID */
        a = op == 'P' ? get_line(m) : pop(m);
        if (a) push(m, make_storage(m, a));
        return true;
    case 0x97: push(m, make_object(m, "a buffer outside the pickle", NULL)); return true; /* NEXT_BUFFER */
    case 0x98: top(m); return true;                                                       /* READONLY_BUFFER */
    default: return false;
    }
}

/* The index of PUT and GET: a line of digits. */
static bool memo_index(machine *m, const value *line, uint64_t *index)
{
    *index = 0;
    if (!line) return false;
    const char *digit = line->u.text.bytes;
    if (!*digit) return bad_pickle(m, "a line that is not a number");
    for (; *digit; digit++) {
        if (*digit < '0' || *digit > '9') return bad_pickle(m, "a line that is not a number");
        if (*index < MOST_MEMO) *index = *index * 10 + (uint64_t)(*digit - '0'); /* any index beyond it is refused */
    }
    return true;
}

/* The memo, frames and the protocol. False: `op` is not one of them. */
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
        if (get_number(m, 1) > 5) bad_pickle(m, "a pickle protocol above 5");
        return true;
    default: return false;
    }
}

/* SPEC 10.7. */
value *unpickle(flis_ctx *ctx, const char *path, pickle_bytes *from, pool *p, storages *known)
{
    machine m = {.ctx = ctx, .path = path, .from = from, .pool = p, .storages = known};
    uint64_t memoized = 0;
    while (flis_ok(ctx)) {
        unsigned char op = 0;
        m.at = from->size - from->left;
        if (!get_bytes(&m, &op, 1)) break;
        if (op == '.') return pop(&m);
        if (op == 0x94) remember(&m, memoized++, top(&m)); /* MEMOIZE */
        else if (!step_constant(&m, op) && !step_stack(&m, op) && !step_object(&m, op) && !step_memo(&m, op))
            flis_fail(ctx, "%s: not a checkpoint that torch.save wrote: at byte %llu of its pickle: instruction 0x%02x",
                      path, (unsigned long long)m.at, op);
    }
    return NULL;
}
