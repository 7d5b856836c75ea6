/* palette.c - colours for the labels of a map, and label maps as PNG pictures in those colours. */
#include "tools/common/common.h"

#include <stdlib.h>

/* Three hexadecimal digits per label: each colour lies as far as possible, in CIE Lab, from all before it, with lightness 25
   to 90 so that all are seen on black and on white. The nearest two of the first 32 differ by 32, of 182 by 15, of all by 13. */
static const char COLOURS[] =
    "c330f000f0df460f8ffd0048fcb4fa46f805643f80bbfd1f8c2076ac8f09709a80f8af0048ad85969093acc09ffd74ca"
    "712985345e2cf1686c73e0d5840988242faeab4b6fd5ab66239f632bf540627fb38d7ce0b25595535f7779767bece02b"
    "7e14aab4baec81026c0b7cca063577c61c9fa1c6909ac1a0d9a9460eef24ba5cc29dfc10668f59e98964ce8b5374cfb7"
    "e5fb6bc0977086180f8ea08c10c78f563ed90f5ce5cbb044967f94c691ebc073c69ee060b9cf5cf0e0c04438949380ac"
    "04f8e6b87631437097b707ae2406a497fda4e5798d067844ca07b8c96f8d61b26973655c9026f8b44f65990b4f65507f"
    "c047648327cbf85dde7ab55ac40cb4f50c7ec8ca0aacf84a908c57a07fd5e1778904c634759ac0f4352965f6cd380364"
    "f569a99c5776ae217c6b3b83e90773dd77f5447a40084b9aca8a20aa7d76d6c089757b37b79f6ea6398afc908ff7b473"
    "8243cc7ededca4558268b90d5b6354e600468b6fbddb7ae970678509c455f1b75248679facad78f9c2aff97ae59835c3";

enum { VOID_GRAY = 128 };

void label_colour(int label, uint8_t rgb[3])
{
    for (int i = 0; i < 3; i++) {
        const char c = COLOURS[3 * label + i];
        rgb[i] = (uint8_t)(17 * (c <= '9' ? c - '0' : c - 'a' + 10));
    }
}

uint8_t *label_png(flis_ctx *ctx, const flis_picture *map, const bool is_void[CLASS_LABELS], size_t *length)
{
    const size_t pixels = map->width * map->height;
    if (map->channels != 1) {
        flis_fail(ctx, "label map: got %zu channels, wanted 1", map->channels);
        return NULL;
    }
    flis_picture coloured = {map->width, map->height, 3, flis_alloc(ctx, pixels, 3)};
    for (size_t i = 0; coloured.pixels && i < pixels; i++) {
        uint8_t *rgb = coloured.pixels + 3 * i;
        if (is_void[map->pixels[i]]) rgb[0] = rgb[1] = rgb[2] = VOID_GRAY;
        else label_colour(map->pixels[i], rgb);
    }
    uint8_t *png = coloured.pixels ? flis_png_bytes(ctx, &coloured, NULL, length) : NULL;
    free(coloured.pixels);
    return png;
}
