/* zip.c - torch.save's zip archive (torch/serialization.py since 1.6; PKWARE's APPNOTE 6.3): entries stored, or deflated by another
 * program; any folder; zip64.
 */
#include "tools/ckpt2safetensors/ckpt.h"

#include <stdlib.h>
#include <string.h>

typedef struct directory {
    uint64_t at, size, entries;
} directory;

/* An archive without its end. Its first entry, the pickle, says how many bytes of values there must be at least. */
static bool cut_short(checkpoint *c)
{
    unsigned char header[30] = {0};
    const uint64_t got = c->size;
    uint64_t wanted = 0;
    if (got > sizeof header && read_at(c, 0, header, sizeof header) && little_endian(header + 8, 2) == 0) {
        const uint64_t at = sizeof header + little_endian(header + 26, 2) + little_endian(header + 28, 2);
        pickle_bytes from = {c->in, NULL, got - (at < got ? at : got), got - (at < got ? at : got)};
        if (from.size && file_seek(c->in, at) && unpickle(c->ctx, c->path, &from, &c->pool, &c->storages))
            for (size_t i = 0; i < c->storages.count; i++) {
                const uint64_t bytes = storage_size(c->storages.at[i]);
                wanted = bytes > UINT64_MAX - wanted ? UINT64_MAX : wanted + bytes;
            }
        c->ctx->error[0] = 0; /* whatever is wrong with the pickle, the archive is cut short */
    }
    if (wanted > got)
        return flis_fail(c->ctx, "%s: cut short (a download that broke off?): got %llu bytes, wanted at least %llu",
                         c->path, (unsigned long long)got, (unsigned long long)wanted);
    return flis_fail(c->ctx, "%s: a zip file without a directory at its end: cut short, or damaged", c->path);
}

/* Reads the end-of-central-directory record, in its 64-bit form where there is one. */
static bool find_directory(checkpoint *c, directory *d)
{
    static const size_t TAIL = 65536 + 22;
    size_t length = c->size < TAIL ? (size_t)c->size : TAIL;
    unsigned char *tail = flis_alloc(c->ctx, length + 1, 1);
    bool found = false;
    if (tail && read_at(c, c->size - length, tail, length))
        for (size_t i = length < 22 ? 0 : length - 21; i-- > 0 && !found;)
            if ((found = memcmp(tail + i, "PK\5\6", 4) == 0)) {
                *d = (directory){little_endian(tail + i + 16, 4), little_endian(tail + i + 12, 4),
                                 little_endian(tail + i + 10, 2)};
                unsigned char record[56];
                bool wide = d->at == 0xffffffff || d->size == 0xffffffff || d->entries == 0xffff;
                if (i >= 20 && memcmp(tail + i - 20, "PK\6\7", 4) == 0 &&
                    (wide || little_endian(tail + i - 20 + 8, 8) < c->size) &&
                    read_at(c, little_endian(tail + i - 20 + 8, 8), record, sizeof record) &&
                    memcmp(record, "PK\6\6", 4) == 0)
                    *d = (directory){little_endian(record + 48, 8), little_endian(record + 40, 8),
                                     little_endian(record + 32, 8)};
            }
    free(tail);
    if (!flis_ok(c->ctx)) return false;
    if (!found) return cut_short(c);
    if (d->at > c->size || d->size > c->size - d->at || d->entries > d->size / 46)
        return flis_fail(
            c->ctx, "%s: the zip file's directory: got %llu entries in %llu bytes from byte %llu, in a file of %llu",
            c->path, (unsigned long long)d->entries, (unsigned long long)d->size, (unsigned long long)d->at,
            (unsigned long long)c->size);
    return true;
}

typedef struct zip_entry {
    const unsigned char *name;
    size_t name_length;
    uint64_t size, packed, header;
    unsigned method, flags;
    uint32_t crc;
} zip_entry;

/* Fails with a sentence about an entry: its name, then what is wrong with it. */
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
        return flis_fail(c->ctx, "%s: the zip file's directory: wanted an entry %zu bytes before its end, got none",
                         c->path, left);
    size_t name = (size_t)little_endian(p + 28, 2), extra = (size_t)little_endian(p + 30, 2),
           comment = (size_t)little_endian(p + 32, 2);
    *length = 46 + name + extra + comment;
    if (*length > left)
        return flis_fail(c->ctx, "%s: the zip file's directory: an entry of %zu bytes, %zu bytes before its end",
                         c->path, *length, left);
    *e = (zip_entry){p + 46,
                     name,
                     little_endian(p + 24, 4),
                     little_endian(p + 20, 4),
                     little_endian(p + 42, 4),
                     (unsigned)little_endian(p + 10, 2),
                     (unsigned)little_endian(p + 8, 2),
                     (uint32_t)little_endian(p + 16, 4)};
    const unsigned char *x = p + 46 + name, *end = x + extra;
    while (end - x >= 4) { /* the extra field of zip64 has those of size, packed and header that are all ones here */
        size_t size = (size_t)little_endian(x + 2, 2);
        if (size > (size_t)(end - x) - 4) break;
        if (little_endian(x, 2) == 1) {
            const unsigned char *field = x + 4, *last = x + 4 + size;
            uint64_t *wide[3] = {&e->size, &e->packed, &e->header};
            for (int i = 0; i < 3; i++)
                if (*wide[i] == 0xffffffff && last - field >= 8) {
                    *wide[i] = little_endian(field, 8);
                    field += 8;
                }
        }
        x += 4 + size;
    }
    return true;
}

/* Position of an entry's bytes: after its local header, which repeats the name but has an extra field of its own. */
static bool locate(checkpoint *c, const zip_entry *e, uint64_t *at)
{
    unsigned char header[30], name[256];
    if (e->flags & 1) return entry_fail(c, e, "encrypted; torch.save writes plain ones");
    if (e->method != 0 && e->method != 8)
        return entry_fail(c, e, "compressed by method %u, wanted 0 (stored) or 8 (deflated)", e->method);
    if (e->method == 8 && e->size / 1032 >= e->packed) /* the most that deflate can gain, RFC 1951 */
        return entry_fail(c, e, "got %llu bytes deflated to %llu, which cannot be", (unsigned long long)e->size,
                          (unsigned long long)e->packed);
    if (e->method == 0 && e->size != e->packed)
        return entry_fail(c, e, "got %llu bytes stored in %llu, wanted the same", (unsigned long long)e->size,
                          (unsigned long long)e->packed);
    if (!read_at(c, e->header, header, sizeof header)) return false;
    if (memcmp(header, "PK\3\4", 4) != 0)
        return entry_fail(c, e, "no entry where the directory points, at byte %llu", (unsigned long long)e->header);
    bool same = little_endian(header + 26, 2) == e->name_length;
    for (size_t i = 0, now; same && i < e->name_length; i += now) {
        now = e->name_length - i < sizeof name ? e->name_length - i : sizeof name;
        if (!read_at(c, e->header + 30 + i, name, now)) return false;
        same = memcmp(name, e->name + i, now) == 0;
    }
    if (!same)
        return entry_fail(c, e, "another name where the directory points, at byte %llu", (unsigned long long)e->header);
    *at = e->header + 30 + little_endian(header + 26, 2) + little_endian(header + 28, 2);
    if (*at > c->size || e->packed > c->size - *at)
        return entry_fail(c, e, "wanted %llu bytes from byte %llu, got a file of %llu", (unsigned long long)e->packed,
                          (unsigned long long)*at, (unsigned long long)c->size);
    return true;
}

/* CRC-32 of ISO/IEC 3309, four bits at a time. */
static uint32_t crc32_of(const unsigned char *bytes, size_t count)
{
    uint32_t nibble[16], crc = 0xffffffff;
    for (uint32_t i = 0; i < 16; i++) {
        nibble[i] = i;
        for (int bit = 0; bit < 4; bit++) nibble[i] = nibble[i] >> 1 ^ (0xedb88320 & (0 - (nibble[i] & 1)));
    }
    for (size_t i = 0; i < count; i++) {
        crc ^= bytes[i];
        crc = nibble[crc & 15] ^ crc >> 4;
        crc = nibble[crc & 15] ^ crc >> 4;
    }
    return ~crc;
}

unsigned char *inflate_entry(checkpoint *c, const char *name, uint64_t at, uint64_t packed, uint64_t unpacked,
                             uint32_t crc)
{
    char where[512];
    size_t length = 0;
    snprintf(where, sizeof where, "%.200s: entry %.200s", c->path, name);
    if (packed > SIZE_MAX / 4 || unpacked > SIZE_MAX / 4) {
        flis_fail(c->ctx, "%s: got %llu bytes, more than fit into memory", where, (unsigned long long)unpacked);
        return NULL;
    }
    unsigned char *in = flis_alloc(c->ctx, (size_t)packed + 1, 1), *out = NULL;
    if (in && read_at(c, at, in, (size_t)packed))
        out = flis_inflate(c->ctx, where, FLIS_DEFLATE, in, (size_t)packed, (size_t)unpacked, &length);
    free(in);
    if (!out) return NULL;
    if (length != unpacked)
        flis_fail(c->ctx, "%s: got %zu bytes inflated, wanted %llu", where, length, (unsigned long long)unpacked);
    else if (crc32_of(out, length) != crc)
        flis_fail(c->ctx, "%s: its bytes are damaged: their check sum is %08x, wanted %08x", where,
                  (unsigned)crc32_of(out, length), (unsigned)crc);
    if (flis_ok(c->ctx)) return out;
    free(out);
    return NULL;
}

/* Whether what follows the folder is `tail`. */
static bool ends_with(const zip_entry *e, const char *tail, size_t folder)
{
    size_t length = strlen(tail);
    return e->name_length == folder + length && memcmp(e->name + folder, tail, length) == 0;
}

/* Length of the name's folders, their slashes included; 0: none. */
static size_t folder_of(const zip_entry *e)
{
    size_t i = e->name_length;
    while (i && e->name[i - 1] != '/') i--;
    return i;
}

/* What macOS adds to an archive. */
static bool junk(const zip_entry *e)
{
    static const char folder[] = "__MACOSX/";
    return e->name_length >= sizeof folder - 1 && memcmp(e->name, folder, sizeof folder - 1) == 0;
}

static bool read_pickle(checkpoint *c, const zip_entry *e)
{
    pickle_bytes from = {c->in, NULL, e->size, e->size};
    unsigned char *bytes = NULL;
    char name[256];
    if (c->root) return entry_fail(c, e, "a second data.pkl");
    if (!locate(c, e, &c->pickle_at)) return false;
    c->folder = e->name;
    c->folder_length = folder_of(e);
    c->pickle_size = e->packed;
    if (e->method) {
        snprintf(name, sizeof name, "%.*s", (int)(e->name_length > 200 ? 200 : e->name_length), (const char *)e->name);
        from.at = bytes = inflate_entry(c, name, c->pickle_at, e->packed, e->size, e->crc);
        if (!bytes) return false;
    } else if (!file_seek(c->in, c->pickle_at)) return flis_fail(c->ctx, "%s: cannot be read", c->path);
    c->root = unpickle(c->ctx, c->path, &from, &c->pool, &c->storages);
    free(bytes);
    return c->root != NULL;
}

static bool check_byteorder(checkpoint *c, const zip_entry *e)
{
    char order[41] = {0};
    uint64_t where = 0;
    const size_t size = e->size < sizeof order ? (size_t)e->size : sizeof order - 1;
    if (!locate(c, e, &where)) return false;
    if (e->method && e->size < sizeof order) {
        unsigned char *bytes = inflate_entry(c, "byteorder", where, e->packed, e->size, e->crc);
        if (bytes) memcpy(order, bytes, size);
        free(bytes);
        if (!bytes) return false;
    } else if (!e->method && !read_at(c, where, order, size)) return false;
    return (e->size == 6 && memcmp(order, "little", 6) == 0) || entry_fail(c, e, "got %s, wanted little", order);
}

static bool find_storage(checkpoint *c, const zip_entry *e, size_t prefix)
{
    storage *s = storage_find(&c->storages, (const char *)e->name + prefix, e->name_length - prefix);
    if (!s) return true; /* no tensor uses it */
    if (s->located) return entry_fail(c, e, "a second entry of that name");
    if (!locate(c, e, &s->at)) return false;
    if (s->size && s->numel > e->size / s->size)
        return flis_fail(c->ctx, "%s: storage %.200s: got %llu bytes, wanted %llu values of %s", c->path, s->key,
                         (unsigned long long)e->size, (unsigned long long)s->numel, storage_type(s));
    if (e->method) {
        s->packed = e->packed;
        s->unpacked = e->size;
        s->crc = e->crc;
        if (e->size > e->packed) c->unpacked += e->size - e->packed;
    }
    return s->located = true;
}

/* Walks the directory: first for the pickle (data false), then, once the storages are known, for their data. */
static bool walk_directory(checkpoint *c, const unsigned char *bytes, const directory *d, bool data)
{
    size_t at = 0;
    for (uint64_t i = 0; i < d->entries; i++) {
        zip_entry e;
        size_t length = 0;
        if (!read_record(c, bytes + at, (size_t)d->size - at, &e, &length)) return false;
        at += length;
        if (junk(&e)) continue;
        const size_t folder = folder_of(&e);
        bool good = true;
        if (!data && ends_with(&e, "data.pkl", folder)) good = read_pickle(c, &e);
        else if (!data && ends_with(&e, "byteorder", folder)) good = check_byteorder(c, &e);
        else if (data && folder == c->folder_length + 5 && memcmp(e.name, c->folder, c->folder_length) == 0 &&
                 memcmp(e.name + c->folder_length, "data/", 5) == 0)
            good = find_storage(c, &e, folder);
        if (!good) return false;
    }
    return true;
}

static bool has_ending(const zip_entry *e, const char *ending)
{
    const size_t length = strlen(ending);
    return e->name_length > length && memcmp(e->name + e->name_length - length, ending, length) == 0;
}

/* What the archive is instead of torch.save's, by its entries' names. NULL: nothing known. `first`: an entry that is no folder. */
static const char *another_archive(checkpoint *c, const unsigned char *bytes, const directory *d, zip_entry *first)
{
    static const char *const models[] = {".ckpt", ".safetensors", ".pt", ".pth", ".bin"};
    bool constants = false, pickle = false, model = false, array = false;
    size_t at = 0, length = 0;
    zip_entry e;
    for (uint64_t i = 0; i < d->entries && read_record(c, bytes + at, (size_t)d->size - at, &e, &length); i++) {
        at += length;
        if (junk(&e) || !e.name_length || e.name[e.name_length - 1] == '/') continue;
        const size_t folder = folder_of(&e);
        if (!first->name_length) *first = e;
        constants = constants || ends_with(&e, "constants.pkl", folder);
        pickle = pickle || ends_with(&e, "data.pkl", folder);
        array = array || has_ending(&e, ".npy");
        for (size_t k = 0; k < sizeof models / sizeof *models; k++) model = model || has_ending(&e, models[k]);
    }
    return constants ? "a TorchScript archive (torch.jit.save)"
           : pickle  ? NULL
           : array   ? "an archive of NumPy arrays (.npz)"
           : model   ? "a zip archive with a model file in it, which must be unpacked first"
                     : "a zip archive without data.pkl";
}

static int by_place(const void *a, const void *b)
{
    const storage *x = *(storage *const *)a, *y = *(storage *const *)b;
    return x->at < y->at ? -1 : x->at > y->at ? 1 : strcmp(x->key, y->key);
}

/* Entries that share bytes let a small zip file claim to be a large one. */
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
        const uint64_t end = s->at + (s->packed ? s->packed : s->size ? storage_size(s) : 0);
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
bool read_zip(checkpoint *c)
{
    directory d;
    zip_entry first = {0};
    if (!find_directory(c, &d)) return false;
    if (d.size > (uint64_t)32 << 20) return flis_fail(c->ctx, "%s: the zip file's directory is over 32 MB", c->path);
    unsigned char *bytes = flis_alloc(c->ctx, (size_t)d.size + 1, 1);
    bool done = bytes && read_at(c, d.at, bytes, (size_t)d.size);
    const char *other = done ? another_archive(c, bytes, &d, &first) : NULL;
    if (other && flis_ok(c->ctx) && !first.name_length)
        done = flis_fail(c->ctx, "%s: is a zip archive without files, wanted torch.save(model.state_dict(), PATH)",
                         c->path);
    else if (other && flis_ok(c->ctx))
        done =
            flis_fail(c->ctx, "%s: is %s (its first entry: %.*s), wanted torch.save(model.state_dict(), PATH)", c->path,
                      other, (int)(first.name_length > 200 ? 200 : first.name_length), (const char *)first.name);
    done = done && flis_ok(c->ctx) && walk_directory(c, bytes, &d, false) && walk_directory(c, bytes, &d, true) &&
           check_overlaps(c, &d);
    free(bytes);
    return done;
}
