/* checkpoint.c - opening a checkpoint: which of the two formats it has, what it is where it has neither, and reading its bytes. */
#include "tools/ckpt2safetensors/ckpt.h"

#include <stdlib.h>
#include <string.h>

uint64_t little_endian(const unsigned char *bytes, int size)
{
    uint64_t number = 0;
    for (int i = size - 1; i >= 0; i--) number = number << 8 | bytes[i];
    return number;
}

bool read_at(checkpoint *c, uint64_t offset, void *out, size_t count)
{
    if (offset > c->size || count > c->size - offset || !file_seek(c->in, offset) ||
        fread(out, 1, count, c->in) != count)
        return flis_fail(c->ctx, "%s: cut short: wanted %zu bytes from byte %llu, got a file of %llu", c->path, count,
                         (unsigned long long)offset, (unsigned long long)c->size);
    return true;
}

void add_note(checkpoint *c, const char *format, ...)
{
    char text[1024];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    const char **grown = pool_grow(c->ctx, &c->pool, c->note, c->notes * sizeof *grown, (c->notes + 1) * sizeof *grown);
    if (!grown) return;
    c->note = grown;
    if ((grown[c->notes] = pool_text(c->ctx, &c->pool, "%s", text))) c->notes++;
}

bool read_storage(checkpoint *c, const storage *s, uint64_t offset, void *out, size_t count)
{
    const uint64_t size = storage_size(s);
    if (!s->packed) return read_at(c, s->at + offset, out, count);
    if (c->inflated != s) {
        char name[256];
        free(c->inflated_bytes);
        c->inflated = NULL;
        snprintf(name, sizeof name, "data/%.200s", s->key);
        c->inflated_bytes = inflate_entry(c, name, s->at, s->packed, s->unpacked, s->crc);
        if (!c->inflated_bytes) return false;
        c->inflated = s;
    }
    if (offset > size || count > size - offset)
        return flis_fail(c->ctx, "%s: storage %.200s: too short", c->path, s->key);
    memcpy(out, c->inflated_bytes + offset, count);
    return true;
}

enum { SHORTEST = 8 }; /* bytes; less shows nothing */

/* A file that is no checkpoint is named by its first bytes. */
static bool another_kind(checkpoint *c, flis_kind kind, const unsigned char *head)
{
    if (kind == FLIS_KIND_SAFETENSORS)
        return flis_fail(c->ctx,
                         "%s: is a safetensors file already, whatever its name: it needs no conversion: "
                         "flis generate -m %s",
                         c->path, c->path);
    if (kind == FLIS_KIND_EMPTY || kind == FLIS_KIND_UNKNOWN || c->size < SHORTEST)
        return flis_fail(c->ctx, "%s: %s, wanted a checkpoint that torch.save wrote; got %llu bytes", c->path,
                         kind == FLIS_KIND_EMPTY ? "is an empty file"
                         : c->size < SHORTEST    ? "is too short"
                                                 : "is not a file of a known kind",
                         (unsigned long long)c->size);
    if (kind == FLIS_KIND_JSON) {
        char text[201];
        size_t length = c->size < 200 ? (size_t)c->size : 200;
        memcpy(text, head, length);
        text[length] = 0;
        return flis_fail(c->ctx,
                         "%s: is %s (perhaps a server's error message), wanted a checkpoint that torch.save wrote: %s",
                         c->path, flis_kind_text(kind), text);
    }
    const bool packed = kind == FLIS_KIND_GZIP || kind == FLIS_KIND_TAR || kind == FLIS_KIND_ARCHIVE;
    return flis_fail(c->ctx, "%s: is %s%s, wanted a checkpoint that torch.save wrote", c->path, flis_kind_text(kind),
                     packed ? ", which must be unpacked first" : "");
}

/* Pickles of protocols 0 and 1 have no mark of their own: torch.save's magic number, and how others usually begin. */
static bool old_pickle(const unsigned char *head, size_t length)
{
    static const char *const starts[] = {"L119547037146038801333356L\n",
                                         "(dp0\n",
                                         "(lp0\n",
                                         "(dp1\n",
                                         "(lp1\n",
                                         "ccollections\n",
                                         "ccopy_reg\n",
                                         "cnumpy"};
    for (size_t i = 0; i < sizeof starts / sizeof *starts; i++)
        if (length > strlen(starts[i]) && memcmp(head, starts[i], strlen(starts[i])) == 0) return true;
    return length > 3 && memcmp(head, "}q\0", 3) == 0;
}

bool checkpoint_read(flis_ctx *ctx, checkpoint *c, const char *path)
{
    unsigned char head[FLIS_KIND_BYTES] = {0};
    *c = (checkpoint){.ctx = ctx, .path = path, .pool = {.path = path}};
    if (!(c->in = input_open(ctx, path))) return false;
    if (getc(c->in) == EOF && ferror(c->in)) return flis_fail(ctx, "%s: cannot be read: is it a folder?", path);
    if (!file_size(c->in, &c->size)) return flis_fail(ctx, "%s: cannot be read at any position: is it a pipe?", path);
    const size_t length = c->size < sizeof head ? (size_t)c->size : sizeof head;
    if (!read_at(c, 0, head, length)) return false;
    const flis_kind kind = flis_kind_of(head, length);
    if (length < SHORTEST) return another_kind(c, kind, head);
    if (kind == FLIS_KIND_ZIP) return read_zip(c);
    if (kind == FLIS_KIND_PICKLE || old_pickle(head, length)) return read_legacy(c);
    return another_kind(c, kind, head);
}

void checkpoint_close(checkpoint *c)
{
    if (c->in) fclose(c->in);
    free(c->inflated_bytes);
    pool_free(&c->pool);
}
