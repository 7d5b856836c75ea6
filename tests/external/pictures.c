/* pictures.c COMMAND FILE... - what tools/common makes of pictures, for pictures_check.py: a line for each file with the width, the
 * height and the SHA-256 of the bytes, or the error message.
 *
 *   read FILE...               read_picture
 *   write QUALITY FILE...      jpeg_bytes of a picture; GRAY FILE... instead of QUALITY: of its first channel, quality 75
 *   bicubic W H FILE...        resize_bicubic
 *   nearest W H FILE...        resize_nearest
 */
#include "tools/common/common.h"

#include <stdlib.h>
#include <string.h>

static void print(const char *path, const flis_ctx *ctx, size_t width, size_t height, const void *bytes, size_t length)
{
    char hex[65] = "";
    flis_sha256 sum;
    flis_sha256_begin(&sum);
    if (bytes) flis_sha256_add(&sum, bytes, length);
    flis_sha256_end(&sum, hex);
    if (ctx->error[0]) printf("%s\terror\t%s\n", path, ctx->error);
    else printf("%s\t%zu %zu\t%s\n", path, width, height, hex);
}

static void one(char **argv, const char *path)
{
    flis_ctx ctx;
    flis_picture p = {0}, small = {0};
    size_t length = 0;
    flis_init(&ctx);
    if (!read_picture(&ctx, path, &p)) print(path, &ctx, 0, 0, NULL, 0);
    else if (strcmp(argv[1], "read") == 0) print(path, &ctx, p.width, p.height, p.pixels, p.width * p.height * 3);
    else if (strcmp(argv[1], "write") == 0) {
        const bool gray = strcmp(argv[2], "GRAY") == 0;
        for (size_t i = 0; gray && i < p.width * p.height; i++) p.pixels[i] = p.pixels[3 * i];
        p.channels = gray ? 1 : 3;
        uint8_t *bytes = jpeg_bytes(&ctx, &p, gray ? 75 : atoi(argv[2]), &length);
        print(path, &ctx, p.width, p.height, bytes, length);
        free(bytes);
    } else {
        const size_t width = (size_t)atoi(argv[2]), height = (size_t)atoi(argv[3]);
        if (strcmp(argv[1], "bicubic") == 0) resize_bicubic(&ctx, &p, width, height, &small);
        else resize_nearest(&ctx, &p, width, height, &small);
        print(path, &ctx, small.width, small.height, small.pixels, small.width * small.height * 3);
    }
    flis_picture_free(&p);
    flis_picture_free(&small);
    flis_free(&ctx);
}

int main(int argc, char **argv)
{
    const int first = argc < 2 ? 0 : strcmp(argv[1], "read") == 0 ? 2 : strcmp(argv[1], "write") == 0 ? 3 : 4;
    if (!first || argc < first) return 2;
    for (int i = first; i < argc; i++) one(argv, argv[i]);
    return 0;
}
