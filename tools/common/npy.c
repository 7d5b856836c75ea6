/* npy.c - NumPy's files: one array (.npy, numpy/lib/format.py: versions 1 to 3), and several in a zip archive (.npz; PKWARE's
 * APPNOTE 6.3), stored or deflated. Nothing in them is executed: arrays of Python objects are refused.
 */
#include "tools/common/common.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static uint64_t little(const uint8_t *p, int bytes)
{
    uint64_t x = 0;
    for (int i = bytes; i-- > 0;) x = x << 8 | p[i];
    return x;
}

/* ---- The header: a Python dictionary ----------------------------------------------------------------------------- */

typedef struct text {
    const char *at, *end;
} text;

static void skip_blanks(text *t)
{
    while (t->at < t->end && (*t->at == ' ' || *t->at == '\n' || *t->at == '\t' || *t->at == '\r')) t->at++;
}

static bool take(text *t, const char *word)
{
    const size_t length = strlen(word);
    skip_blanks(t);
    if ((size_t)(t->end - t->at) < length || memcmp(t->at, word, length) != 0) return false;
    t->at += length;
    return true;
}

/* A string without escapes, in either kind of quotes. */
static bool take_string(text *t, const char **start, size_t *length)
{
    skip_blanks(t);
    if (t->at == t->end || (*t->at != '\'' && *t->at != '"')) return false;
    const char quote = *t->at++;
    *start = t->at;
    while (t->at < t->end && *t->at != quote) t->at++;
    *length = (size_t)(t->at - *start);
    if (t->at == t->end) return false;
    t->at++;
    return true;
}

/* (), (5,), (5, 3); Python 2 wrote 5L. */
static bool take_shape(text *t, npy_array *out)
{
    if (!take(t, "(")) return false;
    for (out->rank = 0; !take(t, ")"); out->rank++) {
        uint64_t size = 0;
        if (out->rank == FLIS_MAX_DIMS) return false;
        if (out->rank && !take(t, ",")) return false;
        if (out->rank && take(t, ")")) return true;
        skip_blanks(t);
        if (t->at == t->end || *t->at < '0' || *t->at > '9') return false;
        for (; t->at < t->end && *t->at >= '0' && *t->at <= '9'; t->at++) {
            if (size > UINT64_MAX / 20) return false;
            size = 10 * size + (uint64_t)(*t->at - '0');
        }
        take(t, "L");
        out->shape[out->rank] = size;
    }
    return true;
}

/* '<f4': byte order, kind, bytes. */
static bool parse_type(flis_ctx *ctx, const char *name, const char *type, size_t length, npy_array *out)
{
    static const char *const TYPES[] = {"f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1"};
    if (length == 3)
        for (size_t i = 0; i < sizeof TYPES / sizeof *TYPES; i++)
            if (memcmp(type + 1, TYPES[i], 2) == 0 && strchr("<>|=", type[0]) &&
                (strchr("<>", type[0]) || type[2] == '1')) {
                out->kind = type[1], out->size = (size_t)(type[2] - '0'), out->big = type[0] == '>';
                return true;
            }
    if (length && type[length - 1] == 'O')
        return flis_fail(
            ctx, "%s: holds Python objects, wanted an array of numbers: np.save(FILE, np.asarray(x, dtype=float))",
            name);
    return flis_fail(ctx, "%s: got the type \"%.*s\", wanted a float or an integer of 8 to 64 bits, or bool", name,
                     (int)(length > 40 ? 40 : length), type);
}

static bool parse_header(flis_ctx *ctx, const char *name, text t, npy_array *out)
{
    const char *key, *type = NULL;
    size_t length, type_length = 0;
    bool order = false, shape = false, good = take(&t, "{");
    while (good && !take(&t, "}")) {
        if (!(good = take_string(&t, &key, &length) && take(&t, ":"))) break;
        if (length == 5 && memcmp(key, "descr", 5) == 0) {
            if (take(&t, "["))
                return flis_fail(ctx, "%s: is a table of several columns, wanted an array of numbers", name);
            good = take_string(&t, &type, &type_length);
        } else if (length == 13 && memcmp(key, "fortran_order", 13) == 0)
            order = good = (out->fortran = take(&t, "True")) || take(&t, "False");
        else if (length == 5 && memcmp(key, "shape", 5) == 0) shape = good = take_shape(&t, out);
        else good = false;
        take(&t, ",");
    }
    if (!good || !type || !order || !shape)
        return flis_fail(ctx,
                         "%s: its header is damaged, wanted descr, fortran_order and shape of at most %d dimensions",
                         name, FLIS_MAX_DIMS);
    return parse_type(ctx, name, type, type_length, out);
}

bool npy_parse(flis_ctx *ctx, const char *name, const uint8_t *bytes, size_t length, npy_array *out)
{
    memset(out, 0, sizeof *out);
    if (length < 10 || memcmp(bytes, "\x93NUMPY", 6) != 0) {
        const char *kind = flis_kind_text(flis_kind_of(bytes, length));
        return flis_fail(ctx, "%s: got %s, wanted NumPy's .npy", name, kind ? kind : "another file");
    }
    const size_t start = bytes[6] == 1 ? 10 : 12;
    if (bytes[6] < 1 || bytes[6] > 3)
        return flis_fail(ctx, "%s: got version %d of .npy, wanted 1, 2 or 3", name, bytes[6]);
    if (length < start || little(bytes + 8, (int)start - 8) > length - start)
        return flis_fail(ctx, "%s: cut short: its header ends beyond its %zu bytes", name, length);
    const size_t header = (size_t)little(bytes + 8, (int)start - 8);
    if (!parse_header(ctx, name, (text){(const char *)bytes + start, (const char *)bytes + start + header}, out))
        return false;
    out->data = bytes + start + header;
    out->count = 1;
    for (int i = 0; i < out->rank; i++) {
        if (out->shape[i] && out->count > SIZE_MAX / 16 / out->shape[i])
            return flis_fail(ctx, "%s: its shape has too many values for this machine", name);
        out->count *= (size_t)out->shape[i];
    }
    const size_t got = length - start - header;
    if (got / out->size < out->count)
        return flis_fail(ctx, "%s: cut short (a copy that broke off?): got %zu bytes of values, wanted %zu", name, got,
                         out->count * out->size);
    return true;
}

/* ---- Values ------------------------------------------------------------------------------------------------------ */

/* Where value i in C order lies in the file. */
static size_t position_of(const npy_array *a, size_t i)
{
    size_t at = 0, stride[FLIS_MAX_DIMS], each = 1;
    if (!a->fortran) return i;
    for (int k = 0; k < a->rank; k++) stride[k] = each, each *= (size_t)a->shape[k];
    for (int k = a->rank; k-- > 0; i /= (size_t)a->shape[k]) at += i % (size_t)a->shape[k] * stride[k];
    return at;
}

static uint64_t bits_at(const npy_array *a, size_t i)
{
    const uint8_t *p = a->data + position_of(a, i) * a->size;
    uint64_t x = 0;
    for (size_t k = 0; k < a->size; k++) x = x << 8 | p[a->big ? k : a->size - 1 - k];
    return x;
}

static double half_to_double(uint64_t h)
{
    const int exponent = (int)(h >> 10 & 31);
    const double fraction = (double)(h & 1023) * 0x1p-10, sign = h >> 15 ? -1 : 1;
    if (exponent == 31) return fraction != 0 ? (double)NAN : sign * (double)INFINITY;
    double x = exponent ? 1 + fraction : fraction;
    for (int k = exponent ? exponent : 1; k < 15; k++) x /= 2;
    for (int k = 15; k < exponent; k++) x *= 2;
    return sign * x;
}

double npy_number(const npy_array *a, size_t i)
{
    const uint64_t x = bits_at(a, i);
    const uint32_t half = (uint32_t)x;
    float f;
    double d;
    if (a->kind != 'f') return a->kind == 'i' ? (double)npy_integer(a, i) : (double)x;
    if (a->size == 2) return half_to_double(x);
    if (a->size == 4) return memcpy(&f, &half, sizeof f), (double)f;
    return memcpy(&d, &x, sizeof d), d;
}

int64_t npy_integer(const npy_array *a, size_t i)
{
    const uint64_t x = bits_at(a, i), sign = (uint64_t)1 << (8 * a->size - 1);
    if (a->kind == 'i' && (x & sign)) return -(int64_t)(~x & (sign - 1)) - 1;
    return x > INT64_MAX ? INT64_MAX : (int64_t)x;
}

void npy_free(npy_array *a)
{
    free(a->owned);
    memset(a, 0, sizeof *a);
}

bool npy_read(flis_ctx *ctx, const char *path, npy_array *out)
{
    size_t length;
    memset(out, 0, sizeof *out);
    uint8_t *bytes = (uint8_t *)flis_read_file(ctx, path, SIZE_MAX / 4, &length);
    if (!bytes) return false;
    const bool good = npy_parse(ctx, path, bytes, length, out);
    out->owned = bytes;
    if (!good) npy_free(out);
    return good;
}

/* ---- .npz -------------------------------------------------------------------------------------------------------- */

/* The end-of-central-directory record, the last one; NULL: none. */
static const uint8_t *directory_end(const uint8_t *bytes, size_t length)
{
    for (size_t i = length < 22 ? 0 : length - 21; i-- > 0 && length - i <= 22 + 65535;)
        if (memcmp(bytes + i, "PK\5\6", 4) == 0) return bytes + i;
    return NULL;
}

/* The record of an entry at p, `left` bytes before the directory's end: its array's name is its name without .npy. */
static bool read_entry(flis_ctx *ctx, const char *name, const uint8_t *p, size_t left, npz_entry *out, size_t *length)
{
    if (left < 46 || memcmp(p, "PK\1\2", 4) != 0 ||
        left < 46 + (size_t)(little(p + 28, 2) + little(p + 30, 2) + little(p + 32, 2)))
        return flis_fail(ctx, "%s: the zip file's directory is damaged", name);
    const size_t named = (size_t)little(p + 28, 2);
    *length = 46 + named + (size_t)(little(p + 30, 2) + little(p + 32, 2));
    *out = (npz_entry){.method = (int)little(p + 10, 2),
                       .crc = (uint32_t)little(p + 16, 4),
                       .packed = (size_t)little(p + 20, 4),
                       .size = (size_t)little(p + 24, 4),
                       .at = (size_t)little(p + 42, 4)};
    if (little(p + 8, 2) & 1) return flis_fail(ctx, "%s: is encrypted", name);
    if (out->packed == 0xFFFFFFFF || out->size == 0xFFFFFFFF || out->at == 0xFFFFFFFF)
        return flis_fail(ctx, "%s: has an array of 4 GiB or more, wanted it as .npy", name);
    if (!(out->name = flis_alloc(ctx, named + 1, 1))) return false;
    memcpy(out->name, p + 46, named);
    if (ends_in(out->name, ".npy")) out->name[strlen(out->name) - 4] = 0;
    return true;
}

void npz_close(npz *z)
{
    for (size_t i = 0; i < z->count; i++) free(z->entry[i].name);
    free(z->entry);
    free(z->bytes);
    free(z->path);
    memset(z, 0, sizeof *z);
}

bool npz_parse(flis_ctx *ctx, const char *name, uint8_t *bytes, size_t length, npz *out)
{
    const uint8_t *end = directory_end(bytes, length);
    *out = (npz){.bytes = bytes, .length = length, .path = path_with(ctx, name, "")};
    if (!end) flis_fail(ctx, "%s: a zip file without a directory at its end: cut short, or damaged", name);
    else {
        const size_t entries = (size_t)little(end + 10, 2), at = (size_t)little(end + 16, 4),
                     size = (size_t)little(end + 12, 4);
        if (at > length || size > length - at) flis_fail(ctx, "%s: the zip file's directory is damaged", name);
        else out->entry = flis_alloc(ctx, entries + 1, sizeof *out->entry);
        for (size_t i = 0, from = 0, step = 0; out->entry && i < entries; i++, from += step) {
            if (!read_entry(ctx, name, bytes + at + from, size - from, &out->entry[i], &step)) break;
            out->count++;
        }
    }
    if (!flis_ok(ctx)) npz_close(out);
    return flis_ok(ctx);
}

bool npz_open(flis_ctx *ctx, const char *path, npz *out)
{
    size_t length;
    memset(out, 0, sizeof *out);
    uint8_t *bytes = (uint8_t *)flis_read_file(ctx, path, SIZE_MAX / 4, &length);
    return bytes && npz_parse(ctx, path, bytes, length, out);
}

/* CRC-32 of ISO/IEC 3309. */
static uint32_t check_sum(const uint8_t *bytes, size_t count)
{
    uint32_t table[256], crc = 0xFFFFFFFF;
    for (uint32_t i = 0; i < 256; i++) {
        table[i] = i;
        for (int bit = 0; bit < 8; bit++) table[i] = table[i] >> 1 ^ (0xEDB88320 & (0 - (table[i] & 1)));
    }
    for (size_t i = 0; i < count; i++) crc = table[(crc ^ bytes[i]) & 255] ^ crc >> 8;
    return ~crc;
}

int npz_find(const npz *z, const char *name)
{
    for (size_t i = 0; i < z->count; i++)
        if (strcmp(z->entry[i].name, name) == 0) return (int)i;
    return -1;
}

bool npz_array(flis_ctx *ctx, const npz *z, int i, npy_array *out)
{
    const npz_entry *e = &z->entry[i];
    const uint8_t *header = z->bytes + e->at;
    char where[512];
    size_t length = e->size;
    memset(out, 0, sizeof *out);
    snprintf(where, sizeof where, "%.200s: array %.200s", z->path, e->name);
    if (e->at > z->length || z->length - e->at < 30 || memcmp(header, "PK\3\4", 4) != 0)
        return flis_fail(ctx, "%s: is not where the zip file's directory says", where);
    const size_t from = e->at + 30 + (size_t)(little(header + 26, 2) + little(header + 28, 2));
    if (from > z->length || e->packed > z->length - from) return flis_fail(ctx, "%s: cut short", where);
    const uint8_t *bytes = z->bytes + from;
    if (e->method == 8) bytes = out->owned = flis_inflate(ctx, where, FLIS_DEFLATE, bytes, e->packed, e->size, &length);
    else if (e->method != 0 || e->packed != e->size)
        return flis_fail(ctx, "%s: compressed by method %d, wanted 0 (stored) or 8 (deflated)", where, e->method);
    uint8_t *owned = out->owned;
    const bool good = bytes &&
                      ((length == e->size && check_sum(bytes, length) == e->crc) ||
                       flis_fail(ctx, "%s: its bytes are damaged: the check sum is wrong", where)) &&
                      npy_parse(ctx, where, bytes, length, out);
    out->owned = owned;
    if (!good) npy_free(out);
    return good;
}
