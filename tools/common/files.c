/* files.c - files that programs write, and paths. */
#include "tools/common/common.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#ifdef _WIN32
#define IS_SEPARATOR(c) ((c) == '/' || (c) == '\\')
#else
#define IS_SEPARATOR(c) ((c) == '/')
#endif

size_t folder_length(const char *path)
{
    size_t length = 0;
    for (size_t i = 0; path[i]; i++)
        if (IS_SEPARATOR(path[i])) length = i + 1;
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

/* Where a result for `path` goes: behind links, to a regular file or none. */
static bool find_target(flis_ctx *ctx, const char *path, output *o)
{
    if (!flis_ok(ctx)) return false;
    if (!resolve_links(path, o->path) || strlen(o->path) + sizeof ".partial" > PATH_ROOM)
        return flis_fail(ctx, "%.200s: the name is too long, or its links lead in a circle", path);
    const file_kind kind = kind_of_file(o->path);
    if (kind == FILE_FOLDER) return flis_fail(ctx, "%s: is a folder, wanted a file name", path);
    if (kind == FILE_SPECIAL) return flis_fail(ctx, "%s: is not a regular file, and only those are replaced", path);
    strcat(strcpy(o->partial, o->path), ".partial");
    return true;
}

FILE *output_open(flis_ctx *ctx, output *o, const char *path)
{
    memset(o, 0, sizeof *o);
    if (!find_target(ctx, path, o)) return NULL;
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
#ifdef _WIN32
    if (flis_ok(ctx)) remove(o->path);
#endif
    if (flis_ok(ctx) && rename(o->partial, o->path) != 0)
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

bool output_remove(const char *path)
{
    return kind_of_file(path) == FILE_REGULAR && remove(path) == 0;
}

FILE *input_open(flis_ctx *ctx, const char *path)
{
    FILE *file = flis_ok(ctx) ? fopen(path, "rb") : NULL;
    if (!file) flis_fail(ctx, "%s: cannot be opened: %s", path, strerror(errno));
    return file;
}

bool file_digest(flis_ctx *ctx, const char *path, char hex[65])
{
    enum { PIECE = 1 << 20 };
    flis_sha256 sum;
    unsigned char *bytes = flis_alloc(ctx, PIECE, 1);
    FILE *file = bytes ? input_open(ctx, path) : NULL;
    flis_sha256_begin(&sum);
    for (size_t got = PIECE; file && got == PIECE && flis_poll(ctx);) {
        got = fread(bytes, 1, PIECE, file);
        flis_sha256_add(&sum, bytes, got);
    }
    if (file && ferror(file)) flis_fail(ctx, "%s: cannot be read", path);
    if (file) fclose(file);
    free(bytes);
    flis_sha256_end(&sum, hex);
    return flis_ok(ctx);
}
