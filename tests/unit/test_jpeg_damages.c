/* test_jpeg_damages.c - the list of damaged JPEGs, jpeg_damages.txt: what each becomes is pinned. */
#include "tests/unit/test.h"
#include "tools/common/common.h"

#include <stdio.h>

enum { FIELDS = 5, ROOM = 4096 };

/* A damaged file in the making. */
typedef struct hurt {
    uint8_t bytes[ROOM];
    size_t length;
} hurt;

static bool load(const char *name, hurt *h)
{
    flis_ctx ctx;
    char path[200];
    flis_init(&ctx);
    snprintf(path, sizeof path, "fuzz/corpus/jpeg/%s.jpg", name);
    char *bytes = flis_read_file(&ctx, test_path(path), ROOM, &h->length);
    if (bytes) memcpy(h->bytes, bytes, h->length);
    CHECK(bytes, "%s", ctx.error);
    free(bytes);
    flis_free(&ctx);
    return h->length > 0;
}

/* Where the n-th marker is, from 1; the length: there is none. */
static size_t marker_at(const hurt *h, unsigned second, size_t n)
{
    for (size_t at = 0; at + 1 < h->length; at++)
        if (h->bytes[at] == 0xFF && h->bytes[at + 1] == second && !--n) return at;
    return h->length;
}

/* The length of a segment: its marker and its parameters. */
static size_t segment_length(const hurt *h, size_t at)
{
    return at + 4 <= h->length ? 2 + ((size_t)h->bytes[at + 2] << 8 | h->bytes[at + 3]) : 0;
}

/* "C4.2+5", "data+10", "end-2", "+0". */
static size_t place(const hurt *h, const char *text)
{
    unsigned second = 0;
    long offset = 0;
    size_t n = 1, at = 0;
    const char *sign = text + strcspn(text, "+-");
    if (*sign) sscanf(sign, "%ld", &offset);
    if (strncmp(text, "data", 4) == 0) at = marker_at(h, 0xDA, 1), at += segment_length(h, at);
    else if (strncmp(text, "end", 3) == 0) at = h->length;
    else if (sign != text) {
        sscanf(text, "%2x.%zu", &second, &n);
        at = marker_at(h, second, n);
    }
    at = (size_t)((long)at + offset);
    CHECK(at <= h->length, "%s: beyond the file", text);
    return at <= h->length ? at : h->length;
}

static void delete_bytes(hurt *h, size_t at, size_t count)
{
    CHECK(at + count <= h->length, "%zu bytes at %zu of %zu", count, at, h->length);
    if (at + count > h->length) return;
    memmove(h->bytes + at, h->bytes + at + count, h->length - at - count);
    h->length -= count;
}

/* One edit: "set C0+4 0C". */
static void edit(hurt *h, const char *text)
{
    char verb[8] = "", where[40] = "", value[400] = "";
    sscanf(text, " %7s %39[^ ;] %399[0-9A-F]", verb, where, value);
    const size_t count = strlen(value) / 2, at = strcmp(verb, "drop") == 0 ? 0 : place(h, where);
    if (strcmp(verb, "cut") == 0) h->length = at;
    else if (strcmp(verb, "del") == 0) delete_bytes(h, at, (size_t)atoi(value));
    else if (strcmp(verb, "drop") == 0) {
        const unsigned second = (unsigned)strtoul(where, NULL, 16);
        for (size_t i; (i = marker_at(h, second, 1)) < h->length;) delete_bytes(h, i, segment_length(h, i));
    } else {
        const bool put = strcmp(verb, "put") == 0;
        CHECK(put || strcmp(verb, "set") == 0, "no such edit: %s", text);
        CHECK(h->length + count <= ROOM && (put || at + count <= h->length), "%s: no room", text);
        if (put) memmove(h->bytes + at + count, h->bytes + at, h->length - at), h->length += count;
        for (size_t i = 0; i < count; i++) {
            unsigned byte = 0;
            sscanf(value + 2 * i, "%2x", &byte);
            h->bytes[at + i] = (uint8_t)byte;
        }
    }
}

/* "18 x 19 4fb1ec834e30d163", or the sentence. JPEGs are read from a block of their own, for the sanitizer. */
static void outcome(const hurt *h, char out[8192])
{
    flis_ctx ctx;
    flis_picture p;
    flis_sha256 sum;
    char hex[65];
    const char *path = test_scratch("damaged.jpg");
    uint8_t *exact = malloc(h->length ? h->length : 1);
    flis_init(&ctx);
    memcpy(exact, h->bytes, h->length);
    const bool jpeg = h->length > 2 && memcmp(exact, "\xFF\xD8\xFF", 3) == 0;
    const bool good = jpeg ? read_jpeg_memory(&ctx, path, exact, h->length, &p)
                           : output_write(&ctx, path, exact, h->length) && read_picture(&ctx, path, &p);
    if (good) {
        flis_sha256_begin(&sum);
        flis_sha256_add(&sum, p.pixels, p.width * p.height * 3);
        flis_sha256_end(&sum, hex);
        snprintf(out, 8192, "%zu x %zu %.16s", p.width, p.height, hex);
    } else {
        const bool named = strncmp(ctx.error, path, strlen(path)) == 0;
        snprintf(out, 8192, "%s", named ? ctx.error + strlen(path) + 2 : "no sentence");
    }
    free(exact);
    if (good) flis_picture_free(&p);
    flis_free(&ctx);
}

/* Splits a row at " | "; the rest of the fields are "". */
static void split(char *line, const char *field[FIELDS])
{
    for (int i = 0; i < FIELDS; i++) {
        field[i] = line;
        char *next = strstr(line, " | ");
        line += next ? (size_t)(next - line) + 3 : strlen(line);
        if (next) *next = 0;
    }
}

void test_jpeg_damage_list(void)
{
    flis_ctx ctx;
    size_t length = 0, rows = 0;
    flis_init(&ctx);
    char *text = flis_read_file(&ctx, test_path("unit/jpeg_damages.txt"), 1 << 20, &length);
    CHECK(text, "%s", ctx.error);
    for (char *line = text, *next; line && *line; line = next) {
        const char *field[FIELDS];
        char got[8192];
        hurt h;
        next = line + strcspn(line, "\n");
        if (*next) *next++ = 0;
        if (*line == '#' || !*line) continue;
        split(line, field);
        if (!load(field[1], &h)) continue;
        for (const char *e = field[2]; *e; e += strcspn(e, ";"), e += *e == ';') edit(&h, e);
        outcome(&h, got);
        CHECK(strcmp(got, field[3]) == 0, "%s: got \"%s\", wanted \"%s\"", field[0], got, field[3]);
        rows++;
    }
    CHECK(rows >= 60, "got %zu damaged files", rows);
    free(text);
    flis_free(&ctx);
}
