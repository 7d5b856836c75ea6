/* palette.c - colours for the labels of a map, and label maps as small PNG pictures in those colours. */
#include "tools/common/common.h"

#include <stdlib.h>
#include <string.h>

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

void label_colour(int label, uint8_t rgb[3])
{
    for (int i = 0; i < 3; i++) {
        const char c = COLOURS[3 * label + i];
        rgb[i] = (uint8_t)(17 * (c <= '9' ? c - '0' : c - 'a' + 10));
    }
}

/* The index of each label of a map among those that it has: void first, then the others in their order. Returns their number. */
static size_t index_labels(const flis_picture *map, const bool *is_void, uint8_t *index, uint8_t *label, size_t *voids)
{
    bool seen[CLASS_LABELS] = {false};
    size_t count = 0;
    for (size_t i = 0; i < map->width * map->height; i++) seen[map->pixels[i]] = true;
    for (int pass = 1; pass >= 0; pass--) {
        for (int l = 0; l < CLASS_LABELS; l++)
            if (seen[l] && is_void[l] == (pass == 1)) {
                index[l] = (uint8_t)count;
                label[count++] = (uint8_t)l;
            }
        if (pass) *voids = count;
    }
    return count;
}

static uint8_t *put_32(uint8_t *at, uint32_t x)
{
    for (int i = 0; i < 4; i++) *at++ = (uint8_t)(x >> (24 - 8 * i));
    return at;
}

/* PNG (ISO/IEC 15948) 5.3 and 5.5: length, type, data, and the CRC of type and data. The data may be in place already. */
static uint8_t *put_chunk(uint8_t *at, const char *type, const uint8_t *data, size_t length)
{
    uint32_t crc = UINT32_MAX;
    const uint8_t *start = at = put_32(at, (uint32_t)length);
    memcpy(at, type, 4);
    memmove(at + 4, data, length);
    at += 4 + length;
    for (const uint8_t *p = start; p < at; p++) {
        crc ^= *p;
        for (int bit = 0; bit < 8; bit++) crc = crc >> 1 ^ (crc & 1 ? UINT32_C(0xEDB88320) : 0);
    }
    return put_32(at, ~crc);
}

/* A gray PNG of the indices, made one of a palette: IHDR gets colour type 3; PLTE, and tRNS for void, come after it. */
static uint8_t *with_palette(flis_ctx *ctx, const uint8_t *gray, size_t gray_length, const uint8_t *label, size_t count,
                             size_t voids, size_t *length)
{
    enum { SIGNATURE = 8, HEADER = 13, BEFORE = SIGNATURE + 12 + HEADER, TYPE = 9 };
    uint8_t colours[3 * CLASS_LABELS], clear[CLASS_LABELS] = {0}, header[HEADER];
    uint8_t *out = flis_alloc(ctx, gray_length + 2 * 12 + 3 * count + voids, 1);
    if (!out) return NULL;
    for (size_t i = 0; i < count; i++) label_colour(label[i], colours + 3 * i);
    memcpy(header, gray + SIGNATURE + 8, HEADER);
    header[TYPE] = 3;
    memcpy(out, gray, SIGNATURE);
    uint8_t *at = put_chunk(out + SIGNATURE, "IHDR", header, HEADER);
    at = put_chunk(at, "PLTE", colours, 3 * count);
    if (voids) at = put_chunk(at, "tRNS", clear, voids);
    memcpy(at, gray + BEFORE, gray_length - BEFORE);
    *length = (size_t)(at - out) + gray_length - BEFORE;
    return out;
}

uint8_t *label_png(flis_ctx *ctx, const flis_picture *map, const bool is_void[CLASS_LABELS], size_t *length)
{
    uint8_t index[CLASS_LABELS], label[CLASS_LABELS], *out = NULL;
    size_t voids = 0, gray_length = 0;
    if (map->channels != 1) {
        flis_fail(ctx, "label map: got %zu channels, wanted 1", map->channels);
        return NULL;
    }
    const size_t pixels = map->width * map->height, count = index_labels(map, is_void, index, label, &voids);
    flis_picture indexed = {map->width, map->height, 1, flis_alloc(ctx, pixels, 1)};
    for (size_t i = 0; indexed.pixels && i < pixels; i++) indexed.pixels[i] = index[map->pixels[i]];
    uint8_t *gray = indexed.pixels ? flis_png_bytes(ctx, &indexed, NULL, &gray_length) : NULL;
    if (gray) out = with_palette(ctx, gray, gray_length, label, count, voids, length);
    free(gray);
    free(indexed.pixels);
    return out;
}
