/* test_field_layouts.c - layouts as people bring them: label maps of few bits, in colours, with harmless damage; JSON from other
 * editors and with other names; paths of other machines. Each right value is what PIL 9.4 reads (the authors' reader), or what
 * flis.h promises. A case names its one difference from a sound file; all are built here.
 */
#include "tests/unit/test.h"

/* ---- Files, built ------------------------------------------------------------------------------------------------ */

typedef struct bytes {
    uint8_t at[1 << 14];
    size_t count;
} bytes;

static void put(bytes *b, const void *from, size_t count)
{
    if (count) memcpy(b->at + b->count, from, count);
    b->count += count;
}

static void put_u32(bytes *b, uint32_t value)
{
    const uint8_t four[4] = {(uint8_t)(value >> 24), (uint8_t)(value >> 16), (uint8_t)(value >> 8), (uint8_t)value};
    put(b, four, 4);
}

/* ISO/IEC 15948, annex D. */
static uint32_t crc_of(const uint8_t *p, size_t count)
{
    uint32_t crc = 0xffffffffu;
    for (size_t i = 0; i < count; i++) {
        crc ^= p[i];
        for (int bit = 0; bit < 8; bit++) crc = crc >> 1 ^ (0xedb88320u & (0u - (crc & 1)));
    }
    return ~crc;
}

static void put_chunk(bytes *b, const char *type, const void *data, size_t count)
{
    put_u32(b, (uint32_t)count);
    const size_t start = b->count;
    put(b, type, 4);
    put(b, data, count);
    put_u32(b, crc_of(b->at + start, count + 4));
}

static void put_head(bytes *b, unsigned w, unsigned h, unsigned depth, unsigned color)
{
    const uint8_t head[13] = {0, 0, 0, (uint8_t)w, 0, 0, 0, (uint8_t)h, (uint8_t)depth, (uint8_t)color};
    b->count = 0;
    put(b, "\x89PNG\r\n\x1a\n", 8);
    put_chunk(b, "IHDR", head, 13);
}

/* A zlib stream of one stored block. */
static bytes zlib_of(const void *rows, size_t count)
{
    bytes z = {{0}, 0};
    const uint8_t *p = rows,
                  head[7] = {
                      0x78, 1, 1, (uint8_t)count, (uint8_t)(count >> 8), (uint8_t)~count, (uint8_t)(~count >> 8)};
    uint32_t s = 1, u = 0;
    put(&z, head, 7);
    put(&z, rows, count);
    for (size_t i = 0; i < count; i++) s = (s + p[i]) % 65521, u = (u + s) % 65521;
    put_u32(&z, u << 16 | s);
    return z;
}

static void put_rows(bytes *b, const void *rows, size_t count)
{
    const bytes z = zlib_of(rows, count);
    put_chunk(b, "IDAT", z.at, z.count);
    put_chunk(b, "IEND", "", 0);
}

/* A picture of one row. */
static void put_png(bytes *b, unsigned w, unsigned depth, unsigned color, const char *palette, size_t colors,
                    const void *row, size_t count)
{
    uint8_t rows[256] = {0};
    memcpy(rows + 1, row, count);
    put_head(b, w, 1, depth, color);
    if (palette) put_chunk(b, "PLTE", palette, 3 * colors);
    put_rows(b, rows, count + 1);
}

static const char *file_of(const char *name, const void *content, size_t count)
{
    const char *path = test_scratch(name);
    FILE *file = fopen(path, "wb");
    CHECK(file && fwrite(content, 1, count, file) == count, "%s: cannot be written", path);
    if (file) fclose(file);
    return path;
}

static const char *text_of(const char *name, const char *text)
{
    return file_of(name, text, strlen(text));
}

/* ---- Reading, with what is said ---------------------------------------------------------------------------------- */

typedef struct reading {
    flis_ctx ctx;
    flis_picture label;
    flis_layout layout;
    char said[4096]; /* warnings, one a line */
    int warnings;
} reading;

static void collect(void *user, const char *sentence)
{
    reading *r = user;
    r->warnings++;
    if (strlen(r->said) + strlen(sentence) + 2 < sizeof r->said) strcat(strcat(r->said, sentence), "\n");
}

static void begin(reading *r)
{
    memset(r, 0, sizeof *r);
    flis_init(&r->ctx);
    r->ctx.warn = collect;
    r->ctx.warn_user = r;
}

static void end(reading *r)
{
    flis_picture_free(&r->label);
    flis_layout_free(&r->layout);
    flis_free(&r->ctx);
}

/* The file has these ids, and the warning has `warned` in it; NULL: there is none. */
static void label_is(const char *what, const void *content, size_t count, const char *ids, size_t pixels,
                     const char *warned)
{
    static reading r;
    begin(&r);
    const bool ok = flis_read_label(&r.ctx, file_of("map.png", content, count), &r.label);
    CHECK(ok, "%s: %s", what, r.ctx.error);
    CHECK(!ok || (r.label.channels == 1 && r.label.width * r.label.height == pixels &&
                  memcmp(r.label.pixels, ids, pixels) == 0),
          "%s: other ids", what);
    CHECK(warned ? r.warnings == 1 && strstr(r.said, warned) : !r.warnings, "%s: got warnings \"%s\", wanted \"%s\"",
          what, r.said, warned ? warned : "");
    end(&r);
}

static void label_refused(const char *what, const void *content, size_t count, const char *wanted)
{
    static reading r;
    begin(&r);
    const bool ok = flis_read_label(&r.ctx, file_of("map.png", content, count), &r.label);
    CHECK(!ok && strstr(r.ctx.error, wanted), "%s: got \"%s\", wanted \"%s\"", what, ok ? "a map" : r.ctx.error,
          wanted);
    end(&r);
}

/* Reads JSON as a layout, and gives "id id …" of phrases, then of pixels; or the error. */
static const char *layout_of(reading *r, const char *json)
{
    static char out[512];
    begin(r);
    if (!flis_layout_read(&r->ctx, text_of("field.json", json), &r->layout)) {
        snprintf(out, sizeof out, "%s", r->ctx.error);
        CHECK(!r->layout.count && !r->layout.colors && !r->layout.label.pixels, "%s: a layout is left", json);
        return out;
    }
    out[0] = 0;
    for (size_t i = 0; i < r->layout.count; i++)
        snprintf(out + strlen(out), sizeof out - strlen(out), "%s%d", i ? " " : "", r->layout.phrase[i].id);
    for (size_t i = 0; i < r->layout.label.width * r->layout.label.height; i++)
        snprintf(out + strlen(out), sizeof out - strlen(out), "%s%d", i ? " " : ": ", r->layout.label.pixels[i]);
    return out;
}

static void layout_is(const char *json, const char *wanted, const char *warned)
{
    static reading r;
    const char *got = layout_of(&r, json);
    CHECK(strcmp(got, wanted) == 0, "%s: got \"%s\", wanted \"%s\"", json, got, wanted);
    CHECK(warned ? r.warnings == 1 && strstr(r.said, warned) : !r.warnings, "%s: got warnings \"%s\", wanted \"%s\"",
          json, r.said, warned ? warned : "");
    end(&r);
}

static void layout_refused(const char *json, const char *wanted)
{
    static reading r;
    const char *got = layout_of(&r, json);
    CHECK(!flis_ok(&r.ctx) && strstr(got, wanted), "%s: got \"%s\", wanted \"%s\"", json, got, wanted);
    end(&r);
}

/* ---- Gray and palettes ------------------------------------------------------------------------------------------- */

/* PIL's modes: 1 bit is 0 and 1 (mode 1), 2 and 4 bits are stretched to 0..255 (mode L), 8 and 16 are as they are. */
void test_field_gray_of_few_bits(void)
{
    static bytes b;
    put_png(&b, 4, 1, 0, NULL, 0, "\x50", 1);
    label_is("1 bit", b.at, b.count, "\0\1\0\1", 4, NULL);
    put_png(&b, 4, 2, 0, NULL, 0, "\x1b", 1);
    label_is("2 bits", b.at, b.count, "\0\x55\xaa\xff", 4, NULL);
    put_png(&b, 4, 4, 0, NULL, 0, "\x01\x2f", 2);
    label_is("4 bits", b.at, b.count, "\0\x11\x22\xff", 4, NULL);
    put_png(&b, 4, 8, 0, NULL, 0, "\0\1\2\xff", 4);
    label_is("8 bits", b.at, b.count, "\0\1\2\xff", 4, NULL);
    put_png(&b, 2, 16, 0, NULL, 0, "\0\1\0\xff", 4);
    label_is("16 bits", b.at, b.count, "\1\xff", 2, NULL);
    for (unsigned depth = 1; depth <= 4; depth *= 2) { /* the indices of a palette are not stretched */
        put_png(&b, 8 / depth, depth, 3, "\0\0\0\1\1\1", 2, depth == 1 ? "\x41" : depth == 2 ? "\x11" : "\x01", 1);
        label_is("palette", b.at, b.count,
                 depth == 1   ? "\0\1\0\0\0\0\0\1"
                 : depth == 2 ? "\0\1\0\1"
                              : "\0\1",
                 8 / depth, NULL);
    }
    const uint8_t dark[7] = {0, 0x1b, 0, 0x1b}; /* tRNS says that one gray is transparent: PIL's mode L does not care */
    put_head(&b, 4, 2, 2, 0);
    put_chunk(&b, "tRNS", "\0\1", 2);
    put_rows(&b, dark, 4);
    label_is("2 bits and tRNS", b.at, b.count, "\0\x55\xaa\xff\0\x55\xaa\xff", 8, NULL);
}

/* An optimiser makes a palette of a gray map, and ids become other indices: said, with both. */
void test_field_gray_palette(void)
{
    static bytes b;
    static const struct {
        const char *what, *palette;
        size_t colors;
        bool warned;
    } cases[] = {{"gray", "\0\0\0\10\10\10\206\206\206\234\234\234", 4, true},
                 {"gray, in another order", "\3\3\3\2\2\2\1\1\1\0\0\0", 4, true},
                 {"black and white", "\0\0\0\377\377\377\1\1\1\2\2\2", 4, true},
                 {"gray equal to the indices", "\0\0\0\1\1\1\2\2\2\3\3\3", 4, false},
                 {"gray, other for indices that no pixel has", "\0\0\0\1\1\1\2\2\2\3\3\3\7\7\7", 5, false},
                 {"black alone", "\0\0\0\0\0\0\0\0\0\0\0\0", 4, false},
                 {"colours, as Pascal VOC's", "\0\0\0\200\0\0\0\200\0\200\200\0", 4, false}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        put_png(&b, 4, 8, 3, cases[i].palette, cases[i].colors, "\0\1\2\3", 4);
        label_is(cases[i].what, b.at, b.count, "\0\1\2\3", 4, cases[i].warned ? "its palette is gray" : NULL);
    }
    put_png(&b, 4, 8, 3, cases[0].palette, 4, "\0\1\2\3", 4);
    label_is("both are named", b.at, b.count, "\0\1\2\3", 4,
             "the class ids are its indices (1, 2, 3), not its gray values (8, 134, 156)");
}

/* ---- PNG as others read it --------------------------------------------------------------------------------------- */

/* Damage that no pixel depends on. Each case changes a sound picture of 2 x 2 gray pixels in one way. */
enum {
    SOUND,
    SPARE_BYTES,
    SPARE_CHUNK,
    MANY_ROWS,
    MANY_ROWS_BAD,
    NO_CHECKSUM,
    HALF_CHECKSUM,
    NO_END,
    HALF_END,
    END_DATA,
    END_CRC,
    BEHIND_END,
    JUNK,
    TEXT_CRC,
    TEXT_CRC_LATE,
    TEXT_KEYWORD,
    NO_KEYWORD,
    PROFILE,
    SHORT_GAMMA,
    TWO_DAMAGED,
    UNKNOWN,
    UNKNOWN_LATE,
    GRAY_PALETTE,
    HISTOGRAM,
    ANIMATED,
    APART,
    PIECES,
    WINDOW,
    TOLERATED
};

static const char *tolerated(bytes *b, int which)
{
    static const uint8_t rows[9] = {0, 1, 2, 0, 3, 4, 0, 5, 6}, bad[9] = {0, 1, 2, 0, 3, 4, 9, 5, 6};
    static const char *const warned[TOLERATED] = {[SPARE_BYTES] = "4 bytes behind its compressed pixels are ignored",
                                                  [SPARE_CHUNK] = "2 bytes behind its compressed pixels are ignored",
                                                  [MANY_ROWS] = "more pixels than its size says",
                                                  [MANY_ROWS_BAD] = "more pixels than its size says",
                                                  [NO_CHECKSUM] = "complete, but cut before their checksum",
                                                  [HALF_CHECKSUM] = "complete, but cut before their checksum",
                                                  [NO_END] = "its end is missing",
                                                  [HALF_END] = "behind its pixels is damaged",
                                                  [END_DATA] = "1 bytes behind its end",
                                                  [END_CRC] = "behind its pixels is damaged",
                                                  [BEHIND_END] = "8 bytes behind its end",
                                                  [JUNK] = "behind its pixels is damaged",
                                                  [TEXT_CRC] = "its damaged chunk tEXt at byte 33 is ignored",
                                                  [TEXT_CRC_LATE] = "its damaged chunk tEXt at byte 62 is ignored",
                                                  [TEXT_KEYWORD] = "its damaged chunk tEXt",
                                                  [NO_KEYWORD] = "its damaged chunk zTXt",
                                                  [PROFILE] = "its damaged chunk iCCP",
                                                  [SHORT_GAMMA] = "its damaged chunk gAMA",
                                                  [TWO_DAMAGED] =
                                                      "2 damaged chunks are ignored, the first is iTXt at byte 33",
                                                  [UNKNOWN_LATE] = "behind its pixels is damaged",
                                                  [GRAY_PALETTE] = "a palette in a gray picture",
                                                  [ANIMATED] = "an animated PNG: its first picture",
                                                  [APART] = "IDAT chunks that do not follow the others"};
    bytes z = zlib_of(which == MANY_ROWS_BAD ? bad : rows, which == MANY_ROWS || which == MANY_ROWS_BAD ? 9 : 6);
    const bool late = which == TEXT_CRC_LATE || which == APART || which == UNKNOWN_LATE;
    put_head(b, 2, 2, 8, 0);
    if (which == TEXT_CRC) put_chunk(b, "tEXt", "a\0b", 3), b->at[b->count - 1] ^= 1;
    if (which == TEXT_KEYWORD) put_chunk(b, "tEXt", "\0text", 5);
    if (which == NO_KEYWORD) put_chunk(b, "zTXt", "text", 4);
    if (which == PROFILE) put_chunk(b, "iCCP", "", 0);
    if (which == SHORT_GAMMA) put_chunk(b, "gAMA", "\1", 1);
    if (which == TWO_DAMAGED) put_chunk(b, "iTXt", "a", 1), put_chunk(b, "sRGB", "ab", 2);
    if (which == UNKNOWN) put_chunk(b, "abCd", "what", 4);
    if (which == GRAY_PALETTE) put_chunk(b, "PLTE", "abc", 3);
    if (which == HISTOGRAM) put_chunk(b, "bKGD", "", 0), put_chunk(b, "hIST", "abcde", 5), put_chunk(b, "tRNS", "", 0);
    if (which == ANIMATED) put_chunk(b, "acTL", "\0\0\0\2\0\0\0\0", 8);
    if (which == SPARE_BYTES) put(&z, "more", 4);
    if (which == WINDOW) memcpy(z.at, "\x08\x1d", 2); /* a window of 256 bytes */
    z.count -= which == NO_CHECKSUM ? 4 : which == HALF_CHECKSUM ? 2 : 0;
    if (which == PIECES) {
        put_chunk(b, "IDAT", "", 0);
        for (size_t i = 0; i < z.count; i++) put_chunk(b, "IDAT", z.at + i, 1);
    } else put_chunk(b, "IDAT", z.at, z.count);
    if (which == SPARE_CHUNK) put_chunk(b, "IDAT", "!!", 2);
    if (late) put_chunk(b, which == UNKNOWN_LATE ? "ABCD" : "tEXt", "a\0b", 3);
    if (which == TEXT_CRC_LATE) b->at[b->count - 1] ^= 1;
    if (which == APART) put_chunk(b, "IDAT", "again", 5);
    if (which == ANIMATED) put_chunk(b, "fdAT", "\0\0\0\1what", 8);
    if (which == JUNK) put(b, "\0\0\0\0\0\0\0\0\0\0\0\0\0", 13);
    else if (which != NO_END) put_chunk(b, "IEND", "!", which == END_DATA);
    if (which == HALF_END) b->count -= 5;
    if (which == END_CRC) b->at[b->count - 1] ^= 1;
    if (which == BEHIND_END) put(b, "whatever", 8);
    return warned[which];
}

void test_field_png_tolerated(void)
{
    static bytes b;
    char what[32];
    for (int i = 0; i < TOLERATED; i++) {
        const char *warned = tolerated(&b, i);
        snprintf(what, sizeof what, "case %d", i);
        label_is(what, b.at, b.count, "\1\2\3\4", 4, warned);
    }
    const uint8_t rows[3] = {0, 1, 0}; /* the ids are indices: no palette changes them */
    put_head(&b, 2, 1, 8, 3);
    put_rows(&b, rows, 3);
    label_is("no palette", b.at, b.count, "\1\0", 2, "a palette picture without a palette");
    put_png(&b, 8, 1, 3, "\1\2\3\4\5\6\7\10\11", 3, "\x41", 1);
    label_is("more colours than 1 bit has", b.at, b.count, "\0\1\0\0\0\0\0\1", 8,
             "1 colours of its palette are ignored");
}

/* What the pixels depend on is refused as before: PIL and libpng refuse it too, or PIL reads zeros. */
void test_field_png_refused(void)
{
    static bytes b;
    const uint8_t rows[6] = {0, 1, 2, 0, 3, 4};
    for (int which = 0; which < 6; which++) {
        static const char *const wanted[6] = {"the checksum differs",  "chunk IDAT at byte 33: got CRC",
                                              "got 3 bytes of pixels", "its IDAT chunks do not follow each other",
                                              "is cut short",          "chunk IHDR at byte 8: got CRC"};
        bytes z = zlib_of(rows, which == 2 ? 3 : 6);
        if (which == 0) z.at[z.count - 1] ^= 1;
        put_head(&b, 2, 2, 8, 0);
        put_chunk(&b, "IDAT", z.at, which == 3 ? 9 : z.count);
        if (which == 1) b.at[b.count - 1] ^= 1;
        if (which == 3) put_chunk(&b, "tEXt", "a\0b", 3), put_chunk(&b, "IDAT", z.at + 9, z.count - 9);
        put_chunk(&b, "IEND", "", 0);
        if (which == 4) b.count -= 13;
        if (which == 5) b.at[32] ^= 1;
        label_refused(wanted[which], b.at, b.count, wanted[which]);
    }
}

/* ---- Colours ----------------------------------------------------------------------------------------------------- */

void test_field_rgb_of_gray(void)
{
    static bytes b;
    put_png(&b, 3, 8, 2, NULL, 0, "\1\1\1\0\0\0\377\377\377", 9);
    label_is("RGB", b.at, b.count, "\1\0\377", 3, NULL);
    put_png(&b, 2, 8, 6, NULL, 0, "\7\7\7\377\3\3\3\377", 8);
    label_is("RGBA", b.at, b.count, "\7\3", 2, NULL);
    put_png(&b, 2, 8, 4, NULL, 0, "\7\377\3\377", 4);
    label_is("gray and alpha", b.at, b.count, "\7\3", 2, NULL);
    put_png(&b, 2, 8, 6, NULL, 0, "\7\7\7\377\3\3\3\200", 8);
    label_refused("RGBA", b.at, b.count, "got alpha 128 at pixel (1, 0), wanted 255");
    put_png(&b, 2, 8, 4, NULL, 0, "\7\0\3\377", 4);
    label_refused("gray and alpha", b.at, b.count, "got alpha 0 at pixel (0, 0), wanted 255");
    put_png(&b, 1, 16, 2, NULL, 0, "\0\1\0\1\0\1", 6);
    label_refused("16 bits", b.at, b.count, "RGB pixels with 16 bits");
    put_png(&b, 5, 8, 2, NULL, 0, "\1\1\1\213\0\0\213\0\0\1\2\3\213\0\0", 15);
    label_refused(
        "colours", b.at, b.count,
        "got colour #8b0000 at pixel (1, 0) (3 pixels of it, and 1 other colour: #010203), wanted gray (R = G = "
        "B is the id), or \"colors\": {\"#8b0000\": id, ...}");
    char edge[3 * 40];
    for (int i = 0; i < 40; i++) edge[3 * i] = (char)i, edge[3 * i + 1] = 1, edge[3 * i + 2] = 9;
    put_png(&b, 40, 8, 2, NULL, 0, edge, sizeof edge);
    label_refused("many colours", b.at, b.count, "and 39 other colours: #010109 #020109 #030109 #040109 ...");
    label_refused("many colours", b.at, b.count, "smoothed edges");
    label_refused("JPEG", "\xFF\xD8\xFF\xE0 JFIF", 9, "got a JPEG picture, whose compression changes ids");
}

#define LAYOUT(rest) "{\"text_label_mapping\": {\"sea\": 3, \"sky\": 5}, \"layout_path\": \"map.png\"" rest "}"

/* red, green, red, blue */
static void put_colours(void)
{
    static bytes b;
    put_png(&b, 4, 8, 2, NULL, 0, "\213\0\0\0\200\0\213\0\0\0\0\1", 12);
    file_of("map.png", b.at, b.count);
}

void test_field_colors(void)
{
    static reading r;
    static bytes b;
    put_colours();
    layout_is(LAYOUT(", \"colors\": {\"#8b0000\": 3, \"#008000\": 5, \"#000001\": 0}"), "3 5: 3 5 3 0", NULL);
    layout_is(LAYOUT(", \"colors\": {\"#8B0000\": 3.0, \"#008000\": 255, \"#000001\": 3, \"#ffffff\": 9}"),
              "3 5: 3 255 3 3", NULL);
    layout_is(LAYOUT(", \"colors\": [[\"#8b0000\", 3], [[0, 128, 0], 5], [[0, 0, 1], 1]]"), "3 5: 3 5 3 1", NULL);
    layout_is(LAYOUT(", \"colors\": [[\"#8b0000\", 3], [\"#8B0000\", 3], [[0, 128, 0], 5], [[0, 0, 1], 1]]"),
              "3 5: 3 5 3 1", NULL);
    layout_of(&r, LAYOUT(", \"colors\": {\"#8b0000\": 3, \"#123456\": 7, \"#008000\": 5, \"#000001\": 0}"));
    CHECK(r.layout.colors == 4 && r.layout.color[0].red == 139 && r.layout.color[0].id == 3 &&
              r.layout.color[0].pixels == 2 && !r.layout.color[1].pixels && r.layout.color[3].blue == 1 &&
              !r.layout.color[0].name,
          "the table of a layout");
    end(&r);
    put_png(&b, 4, 2, 3, "\213\0\0\0\200\0\0\0\1", 3, "\x12", 1); /* a palette's colours count, not its indices */
    file_of("map.png", b.at, b.count);
    layout_is(LAYOUT(""), "3 5: 0 1 0 2", NULL);
    layout_is(LAYOUT(", \"colors\": {\"#8b0000\": 3, \"#008000\": 5, \"#000001\": 7}"), "3 5: 3 5 3 7", NULL);
    put_png(&b, 4, 2, 3, "\213\0\0\0\200\0\0\0\1", 3, "\x1b", 1);
    file_of("map.png", b.at, b.count);
    layout_refused(LAYOUT(", \"colors\": {\"#8b0000\": 3, \"#008000\": 5, \"#000001\": 7}"),
                   "got index 3 at pixel (3, 0), wanted one of the 3 colours of its palette");
    put_png(&b, 4, 1, 0, NULL, 0, "\x50", 1); /* black and white */
    file_of("map.png", b.at, b.count);
    layout_is(LAYOUT(", \"colors\": {\"#000000\": 9, \"#ffffff\": 5}"), "3 5: 9 5 9 5", NULL);
    text_of("map.png", "P2 3 1 255 8 7 8");
    layout_is(LAYOUT(", \"colors\": {\"#080808\": 3, \"#070707\": 5}"), "3 5: 3 5 3", NULL);
}

void test_field_colors_refused(void)
{
    static const struct {
        const char *json, *wanted;
    } bad[] = {
        {LAYOUT(", \"colors\": {\"#8b0000\": 3, \"#008000\": 5}"),
         "map.png: got colour #000001 at pixel (3, 0) (1 pixel of it), wanted a colour that has an id"},
        {LAYOUT(", \"colors\": {\"#8b0000\": 3}"),
         "got colour #008000 at pixel (1, 0) (1 pixel of it, and 1 other colour: #000001)"},
        {LAYOUT(""), "got colour #8b0000 at pixel (0, 0) (2 pixels of it, and 2 other colours: #008000 #000001)"},
        {LAYOUT(", \"colors\": {\"#8b0000\": 3, \"#8B0000\": 5}"),
         "field.json:1:97: colors: colour #8b0000 has two ids, 3 and 5"},
        {LAYOUT(", \"colors\": {\"8b0000\": 3}"), "colors: got \"8b0000\", wanted a colour: \"#rrggbb\""},
        {LAYOUT(", \"colors\": {\"#8b0\": 3}"), "colors: got \"#8b0\", wanted a colour"},
        {LAYOUT(", \"colors\": {\"#8b00001\": 3}"), "colors: got \"#8b00001\", wanted a colour"},
        {LAYOUT(", \"colors\": {\"#8b000g\": 3}"), "colors: got \"#8b000g\", wanted a colour"},
        {LAYOUT(", \"colors\": {\"139,0,0\": 3}"), "colors: got \"139,0,0\", wanted a colour"},
        {LAYOUT(", \"colors\": {\"red\": 3}"), "colors: got \"red\", wanted a colour"},
        {LAYOUT(", \"colors\": {\"#8b0000\": 256}"), "colors: an id out of range: got 256, wanted an integer from 0"},
        {LAYOUT(", \"colors\": {\"#8b0000\": -1}"), "colors: an id out of range: got -1"},
        {LAYOUT(", \"colors\": {\"#8b0000\": 1.5}"), "colors: an id out of range: got 1.5, wanted an integer from 0"},
        {LAYOUT(", \"colors\": {\"#8b0000\": \"3\"}"), "colors: got \"3\" in quotes"},
        {LAYOUT(", \"colors\": [[139, 0, 0]]"), "colors: got an array, wanted a pair"},
        {LAYOUT(", \"colors\": [[[139, 0, 256], 3]]"), "colors: got an array, wanted a colour"},
        {LAYOUT(", \"colors\": [[[139, 0], 3]]"), "colors: got an array, wanted a colour"},
        {LAYOUT(", \"colors\": {}"), "colors: got none"},
        {LAYOUT(", \"colors\": \"labelmap.txt\""), "colors: got a string, wanted {\"#rrggbb\": id, ...}"},
        {LAYOUT(", \"colors\": {\"#8b0000\": 3}, \"labelmap\": \"x\""), "got colors and labelmap, wanted one of them"},
        {LAYOUT(", \"labelmap\": \"absent.txt\""), "labelmap: \"absent.txt\" cannot be read"},
        {LAYOUT(", \"labelmap\": 3"), "labelmap: got 3, wanted the name of a file"},
        {LAYOUT(", \"colours\": {\"#8b0000\": 3}"), "\"colours\": a layout has no such member"},
        {LAYOUT(", \"Color\": [[\"#8b0000\", 3]]"), "wanted \"colors\""},
        {LAYOUT(", \"legend\": {\"#8b0000\": 3}"), "\"legend\": a layout has no such member"},
        {LAYOUT(", \"label_map\": \"labelmap.txt\""), "wanted \"labelmap\""},
    };
    put_colours();
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) layout_refused(bad[i].json, bad[i].wanted);
}

#define LABELMAP "# label:color_rgb:parts:actions\nsea:0,0,1::\r\nsky:139,0,0:a,b:c\n\nboat:0, 128 ,0\n"

void test_field_labelmap(void)
{
    static bytes b;
    put_colours();
    text_of("table.txt", LABELMAP);
    layout_is("{\"text_label_mapping\": {\"boat\": 2, \"waves\": 0}, \"layout_path\": \"map.png\", \"labelmap\": "
              "\"table.txt\"}",
              "2 0: 1 2 1 0", NULL);
    text_of("table.txt", "\xEF\xBB\xBF" LABELMAP);
    layout_is("{\"text_label_mapping\": {\"boat\": 9}, \"layout_path\": \"map.png\", \"labelmap\": \"table.txt\"}",
              "9: 1 2 1 0", "phrase \"boat\" has id 9, but the label of this name in ");
    text_of("labelmap.txt", LABELMAP);
    layout_is("{\"text_label_mapping\": {\"boat\": 2}, \"layout_path\": \"map.png\"}", "2: 1 2 1 0",
              "map.png: its colours have the ids of ");
    put_png(&b, 2, 8, 3, "\0\0\1\213\0\0", 2, "\1\0", 2); /* ids already: the table is not looked for */
    file_of("map.png", b.at, b.count);
    layout_is("{\"text_label_mapping\": {\"x\": 2}, \"layout_path\": \"map.png\"}", "2: 1 0", NULL);
    put_png(&b, 2, 8, 2, NULL, 0, "\2\2\2\1\1\1", 6); /* gray, and not of the table: R is the id */
    file_of("map.png", b.at, b.count);
    layout_is("{\"text_label_mapping\": {\"x\": 2}, \"layout_path\": \"map.png\"}", "2: 2 1", NULL);
    text_of("labelmap.txt", "sea:1,1,1::\nsky:2,2,2::\n"); /* gray, and all of the table */
    layout_is("{\"text_label_mapping\": {\"x\": 2}, \"layout_path\": \"map.png\"}", "2: 1 0",
              "its colours have the ids of ");
    remove(test_scratch("labelmap.txt"));
    put_colours();
    static const struct {
        const char *text, *wanted;
    } bad[] = {{"sea:0,0\n", "table.txt:1: got \"sea:0,0\", wanted name:red,green,blue:parts:actions"},
               {"sea:0,0,1\nsky\n", "table.txt:2: got \"sky\", wanted name"},
               {"sea:0,0,256\n", "table.txt:1: got"},
               {"sea:0,0,1x\n", "table.txt:1: got"},
               {"sea:::\n", "table.txt:1: got"},
               {"sea:0,0,1\nsky:0,0,1\n", "table.txt: colour #000001 has two ids, 0 and 1"},
               {"# nothing\n", "table.txt: got no labels"},
               {"", "table.txt: is an empty file"},
               {"<!DOCTYPE html>", "table.txt: is an HTML page"},
               {"{}", "table.txt: is a JSON text"}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        text_of("table.txt", bad[i].text);
        layout_refused(LAYOUT(", \"labelmap\": \"table.txt\""), bad[i].wanted);
    }
    char many[257 * 24 + 1] = "";
    for (int i = 0; i < 257; i++) snprintf(many + strlen(many), 24, "l:0,%d,%d\n", i / 256, i % 256);
    text_of("table.txt", many);
    layout_refused(LAYOUT(", \"labelmap\": \"table.txt\""), "table.txt:257: got more than 256 labels");
}

void test_field_colors_in_memory(void)
{
    static reading r;
    static bytes b;
    static const char json[] = "{\"text_label_mapping\": {\"sea\": 3}, \"colors\": {\"#8b0000\": 3, \"#008000\": 5}}";
    static const char plain[] = "{\"text_label_mapping\": {\"sea\": 3}}";
    uint8_t rgb[6] = {139, 0, 0, 0, 128, 0}, gray[6] = {4, 4, 4, 0, 0, 0}, ids[2] = {1, 2};
    begin(&r);
    flis_picture label = {2, 1, 3, rgb};
    CHECK(flis_layout_parse(&r.ctx, "m", json, strlen(json), &label, &r.layout) && r.layout.label.channels == 1 &&
              r.layout.label.pixels[0] == 3 && r.layout.label.pixels[1] == 5 && rgb[0] == 139,
          "colours: %s", r.ctx.error);
    end(&r);
    begin(&r);
    label.pixels = gray;
    CHECK(flis_layout_parse(&r.ctx, "m", plain, strlen(plain), &label, &r.layout) && r.layout.label.pixels[0] == 4,
          "gray: %s", r.ctx.error);
    end(&r);
    begin(&r);
    label.pixels = rgb;
    CHECK(!flis_layout_parse(&r.ctx, "m", plain, strlen(plain), &label, &r.layout) &&
              strstr(r.ctx.error, "m: got colour #8b0000 at pixel (0, 0)"),
          "no table: %s", r.ctx.error);
    end(&r);
    begin(&r);
    flis_picture one = {2, 1, 1, ids};
    CHECK(!flis_layout_parse(&r.ctx, "m", json, strlen(json), &one, &r.layout) &&
              strstr(r.ctx.error, "m: got colors and a label map of 1 channels, wanted 3"),
          "ids: %s", r.ctx.error);
    end(&r);
    begin(&r);
    static const char file[] = "{\"text_label_mapping\": {\"sea\": 3}, \"labelmap\": \"x.txt\"}";
    CHECK(!flis_layout_parse(&r.ctx, "m", file, strlen(file), &label, &r.layout) &&
              strstr(r.ctx.error, "m:1:48: labelmap: a layout in memory opens no file"),
          "a file: %s", r.ctx.error);
    end(&r);
    begin(&r);
    put_png(&b, 2, 8, 3, "\1\2\3\213\0\0", 2, "\1\0", 2);
    CHECK(flis_read_label_colors(&r.ctx, "p", b.at, b.count, &r.label) && r.label.channels == 3 &&
              !memcmp(r.label.pixels, "\213\0\0\1\2\3", 6),
          "a palette's colours: %s", r.ctx.error);
    end(&r);
}
