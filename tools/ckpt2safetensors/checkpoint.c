/* checkpoint.c - opening a checkpoint: which of the two formats it has, and reading its bytes. */
#include "tools/ckpt2safetensors/ckpt.h"

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

bool checkpoint_read(flis_ctx *ctx, checkpoint *c, const char *path)
{
    unsigned char head[4] = {0};
    *c = (checkpoint){.ctx = ctx, .path = path, .pool = {.path = path}};
    if (!(c->in = input_open(ctx, path))) return false;
    if (getc(c->in) == EOF && ferror(c->in)) return flis_fail(ctx, "%s: cannot be read: is it a folder?", path);
    if (!file_size(c->in, &c->size)) return flis_fail(ctx, "%s: cannot be read at any position: is it a pipe?", path);
    if (c->size < 4)
        return flis_fail(ctx, "%s: not a checkpoint: got %llu bytes, wanted 4 or more", path,
                         (unsigned long long)c->size);
    if (!read_at(c, 0, head, 4)) return false;
    return memcmp(head, "PK\3\4", 4) == 0 ? read_zip(c) : read_legacy(c);
}

void checkpoint_close(checkpoint *c)
{
    if (c->in) fclose(c->in);
    pool_free(&c->pool);
}
