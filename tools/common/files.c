/* files.c - files that programs write, and paths. */
#include "tools/common/common.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#ifndef FLIS_DATADIR
#define FLIS_DATADIR "/usr/local/share/flis"
#endif

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

FILE *input_open(flis_ctx *ctx, const char *path)
{
    FILE *file = flis_ok(ctx) ? fopen(path, "rb") : NULL;
    if (!file) flis_fail(ctx, "%s: cannot be opened: %s", path, strerror(errno));
    return file;
}

bool input_check(flis_ctx *ctx, const char *path)
{
    const file_kind kind = kind_of_file(path);
    if (kind == FILE_FOLDER) return flis_fail(ctx, "%s: is a folder, wanted a file", path);
    if (kind == FILE_SPECIAL) return flis_ok(ctx);
    FILE *file = input_open(ctx, path);
    if (file) fclose(file);
    return file != NULL;
}

bool folder_check(flis_ctx *ctx, const char *path)
{
    const file_kind kind = kind_of_file(path);
    if (kind == FILE_ABSENT || kind == FILE_FOLDER) return flis_ok(ctx);
    return flis_fail(ctx, "%s: is a file, wanted a folder", path);
}

bool file_in(const char *folder, size_t length, const char *name, char out[PATH_ROOM])
{
    const int wrote = snprintf(out, PATH_ROOM, "%.*s%s", (int)length, folder, name);
    if (wrote < 0 || wrote >= PATH_ROOM || length >= PATH_ROOM) return false;
    const file_kind kind = kind_of_file(out);
    return kind == FILE_REGULAR || kind == FILE_SPECIAL;
}

/* The length of the folder that has the program, or that has the bin/ with the program. */
static size_t length_beside(const char *program_path)
{
    const size_t length = folder_length(program_path);
    if (length >= 4 && strncmp(program_path + length - 4, "bin", 3) == 0 &&
        (length == 4 || is_separator(program_path[length - 5])))
        return length - 4;
    return length;
}

bool data_folder(const char *program_path, int i, const char *here, const char *installed, char out[PATH_ROOM])
{
    const size_t beside = length_beside(program_path);
    if (i == 0) return snprintf(out, PATH_ROOM, "%.*s%s", (int)beside, program_path, here) < PATH_ROOM;
    if (i == 1) return snprintf(out, PATH_ROOM, "%s", here) < PATH_ROOM;
    return i == 2 && snprintf(out, PATH_ROOM, "%s/%s", FLIS_DATADIR, installed) < PATH_ROOM;
}

bool data_file(const char *program_path, const char *name, char out[PATH_ROOM])
{
    char folder[PATH_ROOM];
    for (int i = 0; data_folder(program_path, i, "models/", "", folder); i++)
        if (file_in(folder, strlen(folder), name, out)) return true;
    snprintf(out, PATH_ROOM, "models/%s", name);
    return false;
}

bool stream_digest_add(flis_ctx *ctx, const char *path, FILE *file, flis_sha256 *sum, uint64_t *done, uint64_t total)
{
    enum { PIECE = 1 << 20 };
    unsigned char *bytes = flis_ok(ctx) ? flis_alloc(ctx, PIECE, 1) : NULL;
    if (bytes && file) rewind(file);
    for (size_t got = PIECE; bytes && file && got == PIECE && flis_poll(ctx);) {
        got = fread(bytes, 1, PIECE, file);
        flis_sha256_add(sum, bytes, got);
        *done += got;
        if (ctx->progress && total >> 20 && *done <= total)
            ctx->progress(ctx->progress_user, "digest", (size_t)(*done >> 20), (size_t)(total >> 20));
    }
    if (file && ferror(file)) flis_fail(ctx, "%s: cannot be read", path);
    free(bytes);
    return flis_ok(ctx);
}

bool file_digest_add(flis_ctx *ctx, const char *path, flis_sha256 *sum, uint64_t *done, uint64_t total)
{
    FILE *file = flis_ok(ctx) ? input_open(ctx, path) : NULL;
    stream_digest_add(ctx, path, file, sum, done, total);
    if (file) fclose(file);
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
