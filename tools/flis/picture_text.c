/* picture_text.c - the texts that a PNG keeps: tEXt, zTXt and iTXt chunks, of any program. Nothing in the file is trusted. */
#include "tools/flis/command.h"

#include <stdlib.h>
#include <string.h>

enum { LARGEST_PICTURE = 1 << 30, LARGEST_TEXT = 1 << 27, MOST_TEXTS = 1000 };

static uint32_t big_endian(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

/* The check of a chunk's type and data: CRC-32 (PNG, ISO/IEC 15948, annex D). */
static uint32_t crc_of(const uint8_t *p, size_t count)
{
    uint32_t crc = 0xffffffffu;
    for (; count--; p++) {
        crc ^= *p;
        for (int k = 0; k < 8; k++) crc = crc >> 1 ^ (crc & 1 ? 0xedb88320u : 0);
    }
    return ~crc;
}

/* tEXt and zTXt are in Latin-1. */
static char *from_latin1(flis_ctx *ctx, const uint8_t *in, size_t length)
{
    char *out = flis_alloc(ctx, 2 * length + 1, 1), *to = out;
    for (size_t i = 0; out && i < length; i++) {
        if (in[i] >= 0x80) *to++ = (char)(0xc0 | in[i] >> 6);
        *to++ = (char)(in[i] < 0x80 ? in[i] : 0x80 | (in[i] & 0x3f));
    }
    return out;
}

static char *copy_bytes(flis_ctx *ctx, const uint8_t *in, size_t length)
{
    char *out = flis_alloc(ctx, length + 1, 1);
    if (out && length) memcpy(out, in, length);
    return out;
}

/* One text: the bytes after its keyword, as UTF-8; *room bytes are left for all texts. NULL: no text of a known form, or failed. */
static char *text_of(flis_ctx *ctx, const char *path, const char *type, const uint8_t *p, size_t length, size_t *room)
{
    bool compressed = false;
    const bool international = memcmp(type, "iTXt", 4) == 0;
    if (memcmp(type, "zTXt", 4) == 0) {
        if (length < 1 || p[0]) return NULL;
        compressed = true;
        p++, length--;
    }
    if (international) { /* compressed or not, the method, the language, the keyword in that language */
        if (length < 2 || p[0] > 1 || p[1]) return NULL;
        compressed = p[0];
        p += 2, length -= 2;
        for (int i = 0; i < 2; i++) {
            const uint8_t *end = memchr(p, 0, length);
            if (!end) return NULL;
            length -= (size_t)(end + 1 - p);
            p = end + 1;
        }
    }
    uint8_t *inflated = NULL;
    if (compressed) {
        size_t got = 0;
        inflated = flis_inflate(ctx, path, FLIS_ZLIB, p, length, *room, &got);
        if (!inflated) return NULL;
        p = inflated;
        length = got;
        *room -= got;
    }
    char *text = international ? copy_bytes(ctx, p, length) : from_latin1(ctx, p, length);
    free(inflated);
    return text;
}

/* Adds the text of one chunk. */
static void take_chunk(flis_ctx *ctx, const char *path, const char *type, const uint8_t *data, size_t length,
                       picture_text *out, size_t *room)
{
    const uint8_t *end = length ? memchr(data, 0, length < 80 ? length : 80) : NULL;
    if (!end || end == data) return;
    if (out->count == MOST_TEXTS) {
        flis_fail(ctx, "%s: got more than %d texts in the picture", path, MOST_TEXTS);
        return;
    }
    char *text = text_of(ctx, path, type, end + 1, length - (size_t)(end + 1 - data), room);
    char *key = text ? copy_bytes(ctx, data, (size_t)(end - data)) : NULL;
    if (!key) {
        free(text);
        return;
    }
    out->at[2 * out->count] = key;
    out->at[2 * out->count++ + 1] = text;
}

static bool take_chunks(flis_ctx *ctx, const char *path, const uint8_t *in, size_t length, picture_text *out)
{
    size_t room = LARGEST_TEXT;
    for (size_t at = 8; length - at >= 12 && flis_ok(ctx);) {
        const size_t size = big_endian(in + at);
        const char *type = (const char *)in + at + 4;
        if (size > length - at - 12) break;
        const bool text = memcmp(type, "tEXt", 4) == 0 || memcmp(type, "zTXt", 4) == 0 || memcmp(type, "iTXt", 4) == 0;
        if (memcmp(type, "IEND", 4) == 0) return true;
        if (text && crc_of(in + at + 4, size + 4) != big_endian(in + at + 8 + size))
            return flis_fail(ctx, "%s: damaged PNG: the text at byte %zu does not have its CRC", path, at);
        if (text) take_chunk(ctx, path, type, in + at + 8, size, out, &room);
        at += size + 12;
    }
    return flis_fail(ctx, "%s: damaged PNG: it ends early", path);
}

bool picture_text_read(flis_ctx *ctx, const char *path, picture_text *out)
{
    size_t length = 0;
    memset(out, 0, sizeof *out);
    uint8_t *in = (uint8_t *)flis_read_file(ctx, path, LARGEST_PICTURE, &length);
    if (in && (length < 8 || memcmp(in, "\x89PNG\r\n\x1a\n", 8) != 0)) {
        const flis_kind is = flis_kind_of(in, length);
        const char *kind = flis_kind_text(is);
        flis_fail(ctx, "%s: is %s%s, wanted a PNG picture of flis generate", path, kind ? kind : "another kind of file",
                  is == FLIS_KIND_JPEG ? ", which keeps nothing of how it was made" : "");
    }
    out->at = in && flis_ok(ctx) ? flis_alloc(ctx, 2 * MOST_TEXTS, sizeof *out->at) : NULL;
    if (out->at) take_chunks(ctx, path, in, length, out);
    free(in);
    return flis_ok(ctx);
}

const char *picture_text_get(const picture_text *t, const char *key)
{
    for (size_t i = 0; i < t->count; i++)
        if (strcmp(t->at[2 * i], key) == 0) return t->at[2 * i + 1];
    return NULL;
}

void picture_text_free(picture_text *t)
{
    for (size_t i = 0; i < 2 * t->count; i++) free(t->at[i]);
    free(t->at);
    memset(t, 0, sizeof *t);
}
