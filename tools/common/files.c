/* files.c - files that programs write, and paths. */
#include "tools/common/common.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

size_t folder_length(const char *path)
{
    size_t length = 0;
    for (size_t i = 0; path[i]; i++)
        if (is_separator(path[i])) length = i + 1;
    return length;
}

const char *base_name(const char *path)
{
    return path + folder_length(path);
}

char *path_with(flis_ctx *ctx, const char *path, const char *end)
{
    const size_t length = strlen(path) + strlen(end) + 1;
    char *out = flis_alloc(ctx, length, 1);
    if (out) snprintf(out, length, "%s%s", path, end);
    return out;
}

bool output_target(flis_ctx *ctx, const char *path, char target[PATH_ROOM])
{
    if (!flis_ok(ctx)) return false;
    if (!resolve_links(path, target) || strlen(target) + sizeof ".partial" > PATH_ROOM)
        return flis_fail(ctx, "%.200s: the name is too long, or its links lead in a circle", path);
    const file_kind kind = kind_of_file(target);
    if (kind == FILE_FOLDER) return flis_fail(ctx, "%s: is a folder, wanted a file name", path);
    if (kind == FILE_SPECIAL) return flis_fail(ctx, "%s: is not a regular file, and only those are replaced", path);
    return true;
}

FILE *output_open(flis_ctx *ctx, output *o, const char *path)
{
    memset(o, 0, sizeof *o);
    if (!output_target(ctx, path, o->path)) return NULL;
    strcat(strcpy(o->partial, o->path), ".partial");
    o->stream = fopen(o->partial, "wb");
    if (!o->stream) flis_fail(ctx, "%s: cannot be written: %s", path, strerror(errno));
    return o->stream;
}

bool output_close(flis_ctx *ctx, output *o)
{
    if (!o->stream) return flis_ok(ctx);
    const bool whole = !ferror(o->stream) && flush_to_disk(o->stream);
    if ((fclose(o->stream) != 0 || !whole) && flis_ok(ctx))
        flis_fail(ctx, "%s: cannot be written: is the disk full?", o->path);
    o->stream = NULL;
    if (flis_ok(ctx) && !rename_over(o->partial, o->path))
        flis_fail(ctx, "%s: cannot be written: %s", o->path, strerror(errno));
    if (!flis_ok(ctx)) remove(o->partial);
    return flis_ok(ctx);
}

void output_abort(output *o)
{
    if (!o->stream) return;
    fclose(o->stream);
    o->stream = NULL;
    remove(o->partial);
}

bool output_check(flis_ctx *ctx, const char *path)
{
    output o;
    const bool good = output_open(ctx, &o, path) != NULL;
    output_abort(&o);
    return good;
}

bool output_write(flis_ctx *ctx, const char *path, const void *bytes, size_t length)
{
    output o;
    FILE *stream = output_open(ctx, &o, path);
    if (stream) fwrite(bytes, 1, length, stream);
    return output_close(ctx, &o);
}

bool output_remove(const char *path)
{
    char target[PATH_ROOM];
    return resolve_links(path, target) && kind_of_file(target) == FILE_REGULAR && remove(target) == 0;
}

FILE *input_open(flis_ctx *ctx, const char *path)
{
    FILE *file = flis_ok(ctx) ? fopen(path, "rb") : NULL;
    if (!file) flis_fail(ctx, "%s: cannot be opened: %s", path, strerror(errno));
    return file;
}

bool file_digest_add(flis_ctx *ctx, const char *path, flis_sha256 *sum, uint64_t *done, uint64_t total)
{
    enum { PIECE = 1 << 20 };
    unsigned char *bytes = flis_ok(ctx) ? flis_alloc(ctx, PIECE, 1) : NULL;
    FILE *file = bytes ? input_open(ctx, path) : NULL;
    for (size_t got = PIECE; file && got == PIECE && flis_poll(ctx);) {
        got = fread(bytes, 1, PIECE, file);
        flis_sha256_add(sum, bytes, got);
        *done += got;
        if (ctx->progress && total >> 20 && *done <= total)
            ctx->progress(ctx->progress_user, "digest", (size_t)(*done >> 20), (size_t)(total >> 20));
    }
    if (file && ferror(file)) flis_fail(ctx, "%s: cannot be read", path);
    if (file) fclose(file);
    free(bytes);
    return flis_ok(ctx);
}

bool file_digest(flis_ctx *ctx, const char *path, char hex[65])
{
    flis_sha256 sum;
    uint64_t done = 0;
    flis_sha256_begin(&sum);
    file_digest_add(ctx, path, &sum, &done, 0);
    flis_sha256_end(&sum, hex);
    return flis_ok(ctx);
}
