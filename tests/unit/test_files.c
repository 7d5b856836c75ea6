/* test_files.c - what flis.c reads and writes (JSON, deflate, PNG, PGM, layouts), and flis.c's part of the pipeline.
 *
 * The files are built here: the builders below follow the formats' specifications, not flis.c.
 */
#include "tests/unit/test.h"

/* ---- Builders ---------------------------------------------------------------------------------------------------- */

typedef struct buffer {
    uint8_t at[1 << 17];
    size_t count;
    unsigned bit; /* bits used in the last byte; 0: there is no incomplete byte */
} buffer;

static void put(buffer *b, const void *from, size_t count)
{
    for (size_t i = 0; i < count && b->count < sizeof b->at; i++) b->at[b->count++] = ((const uint8_t *)from)[i];
    b->bit = 0;
}

static void put8(buffer *b, unsigned value)
{
    uint8_t byte = (uint8_t)value;
    put(b, &byte, 1);
}

static void put32(buffer *b, uint32_t value)
{
    for (int shift = 24; shift >= 0; shift -= 8) put8(b, value >> shift & 0xFF);
}

/* Deflate's order: the lowest bit of the value first, into the lowest free bit. */
static void put_bits(buffer *b, unsigned value, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        if (b->bit == 0) {
            put8(b, 0);
            b->bit = 0;
        }
        b->at[b->count - 1] |= (uint8_t)((value >> i & 1) << b->bit);
        b->bit = (b->bit + 1) % 8;
    }
}

/* The textbook CRC, bit by bit. */
static uint32_t crc_of(const uint8_t *p, size_t count)
{
    uint32_t crc = 0xFFFFFFFF;
    for (size_t i = 0; i < count; i++) {
        crc ^= p[i];
        for (int k = 0; k < 8; k++) crc = crc & 1 ? crc >> 1 ^ 0xEDB88320 : crc >> 1;
    }
    return ~crc;
}

static uint32_t adler_of(const uint8_t *p, size_t count)
{
    uint32_t a = 1, b = 0;
    for (size_t i = 0; i < count; i++) {
        a = (a + p[i]) % 65521;
        b = (b + a) % 65521;
    }
    return b << 16 | a;
}

static void put_chunk(buffer *b, const char *type, const void *data, size_t count)
{
    put32(b, (uint32_t)count);
    put(b, type, 4);
    put(b, data, count);
    put32(b, crc_of(b->at + b->count - count - 4, count + 4));
}

/* A zlib stream of one stored block. */
static void put_stored(buffer *b, const uint8_t *data, size_t count)
{
    put(b, "\x78\x01\x01", 3);
    put8(b, count & 0xFF);
    put8(b, (unsigned)count >> 8);
    put8(b, ~count & 0xFF);
    put8(b, (unsigned)(~count >> 8 & 0xFF));
    put(b, data, count);
    put32(b, adler_of(data, count));
}

static void put_idat(buffer *b, const uint8_t *data, size_t count)
{
    static buffer z;
    z.count = 0;
    put_stored(&z, data, count);
    put_chunk(b, "IDAT", z.at, z.count);
}

static void put_header(buffer *b, size_t w, size_t h, unsigned depth, unsigned color, unsigned interlace)
{
    uint8_t ihdr[13] = {0};
    b->count = 0;
    put(b, "\x89PNG\r\n\x1A\n", 8);
    for (int i = 0; i < 4; i++) {
        ihdr[i] = (uint8_t)(w >> (24 - 8 * i));
        ihdr[4 + i] = (uint8_t)(h >> (24 - 8 * i));
    }
    ihdr[8] = (uint8_t)depth;
    ihdr[9] = (uint8_t)color;
    ihdr[12] = (uint8_t)interlace;
    put_chunk(b, "IHDR", ihdr, 13);
}

static int paeth(int a, int b, int c)
{
    int p = a + b - c, pa = abs(p - a), pb = abs(p - b), pc = abs(p - c);
    if (pa <= pb && pa <= pc) return a;
    return pb <= pc ? b : c;
}

/* The label at a position: all values of the depth occur, without a simple pattern. */
static unsigned label_at(size_t x, size_t y, unsigned depth)
{
    const unsigned mixed = (unsigned)(x * 7 + y * 13 + x * y * 3 + (x >> 2) * (y >> 1));
    return mixed & (depth >= 8 ? 255u : (1u << depth) - 1);
}

/* What PIL makes of a gray value of 2 or 4 bits: white is 255. */
static unsigned scale_of(unsigned depth, unsigned color)
{
    return color == 0 && depth == 2 ? 85 : color == 0 && depth == 4 ? 17 : 1;
}

/* The filtered rows of one pass: filter 0..4, or 5 for the row number modulo 5. */
static void put_pass(buffer *b, size_t x0, size_t y0, size_t dx, size_t dy, size_t w, size_t h, unsigned depth,
                     unsigned filter)
{
    static uint8_t row[2][4096];
    size_t pixels = 0, number = 0;
    for (size_t x = x0; x < w; x += dx) pixels++;
    const size_t bytes = (pixels * depth + 7) / 8, each = depth == 16 ? 2 : 1;
    if (!pixels) return;
    memset(row, 0, sizeof row);
    for (size_t y = y0; y < h; y += dy, number++) {
        uint8_t *now = row[number % 2], *above = row[(number + 1) % 2];
        const unsigned f = filter < 5 ? filter : (unsigned)(number % 5);
        memset(now, 0, bytes);
        for (size_t i = 0; i < pixels; i++) {
            const unsigned value = label_at(x0 + i * dx, y, depth);
            if (depth == 16) now[2 * i + 1] = (uint8_t)value;
            else now[i * depth / 8] |= (uint8_t)(value << (8 - depth - i * depth % 8));
        }
        put8(b, f);
        for (size_t i = 0; i < bytes; i++) {
            const int a = i >= each ? now[i - each] : 0, c = i >= each ? above[i - each] : 0, up = above[i];
            const int guess[5] = {0, a, up, (a + up) / 2, paeth(a, up, c)};
            put8(b, (unsigned)(now[i] - guess[f]) & 0xFF);
        }
    }
}

static void put_picture(buffer *b, size_t w, size_t h, unsigned depth, unsigned color, bool interlaced, unsigned filter)
{
    static const unsigned char pass[7][4] = {{0, 0, 8, 8}, {4, 0, 8, 8}, {0, 4, 4, 8}, {2, 0, 4, 4},
                                             {0, 2, 2, 4}, {1, 0, 2, 2}, {0, 1, 1, 2}};
    static buffer data;
    data.count = 0;
    put_header(b, w, h, depth, color, interlaced);
    if (color == 3) put_chunk(b, "PLTE", "\1\2\3\4\5\6", 6);
    for (int i = 0; interlaced && i < 7; i++)
        put_pass(&data, pass[i][0], pass[i][1], pass[i][2], pass[i][3], w, h, depth, filter);
    if (!interlaced) put_pass(&data, 0, 0, 1, 1, w, h, depth, filter);
    put_idat(b, data.at, data.count);
    put_chunk(b, "IEND", "", 0);
}

/* Writes a scratch file; the path stays valid as long as test_scratch's. */
static const char *file_of(const char *name, const void *bytes, size_t count)
{
    const char *path = test_scratch(name);
    FILE *file = fopen(path, "wb");
    CHECK(file && fwrite(bytes, 1, count, file) == count, "%s: cannot be written", path);
    if (file) fclose(file);
    return path;
}

static const char *text_file(const char *name, const char *text)
{
    return file_of(name, text, strlen(text));
}

/* The error message must contain `wanted`, and no picture may be left. */
static void label_fails(const char *what, const void *bytes, size_t count, const char *wanted)
{
    flis_ctx ctx;
    flis_picture picture;
    flis_init(&ctx);
    bool ok = flis_read_label(&ctx, file_of("damaged.png", bytes, count), &picture);
    CHECK(!ok && strstr(ctx.error, wanted) && strstr(ctx.error, "damaged.png"), "%s: got \"%s\", wanted \"%s\"", what,
          ok ? "a picture" : ctx.error, wanted);
    CHECK(!picture.pixels && !picture.width, "%s: a picture is left", what);
    flis_free(&ctx);
}

static void label_reads(const char *what, const void *bytes, size_t count, size_t w, size_t h, unsigned depth,
                        unsigned color)
{
    flis_ctx ctx;
    flis_picture picture;
    size_t wrong = 0;
    flis_init(&ctx);
    bool ok = flis_read_label(&ctx, file_of("label.png", bytes, count), &picture);
    CHECK(ok, "%s: %s", what, ctx.error);
    CHECK(!ok || (picture.width == w && picture.height == h && picture.channels == 1), "%s: got %zu x %zu", what,
          picture.width, picture.height);
    for (size_t i = 0; ok && i < w * h; i++)
        wrong += picture.pixels[i] != label_at(i % w, i / w, depth) * scale_of(depth, color);
    CHECK(!wrong, "%s: %zu pixels differ", what, wrong);
    free(picture.pixels);
    flis_free(&ctx);
}

/* ---- JSON -------------------------------------------------------------------------------------------------------- */

static flis_json *parse(flis_ctx *ctx, const char *text)
{
    flis_init(ctx);
    return flis_json_parse(ctx, "x", text, strlen(text));
}

void test_json_values(void)
{
    flis_ctx ctx;
    flis_json *j =
        parse(&ctx, " {\"a\": [null, true,false, -12.5e+1, \"\\u00e9\\uD83D\\ude00\\n\\\"\\/\\u0000z\", []],\n"
                    "  \"b\":{}, \"a\" : 7 }\r\n");
    CHECK(j, "%s", ctx.error);
    if (!j) return;
    const flis_json *a = &j->item[0];
    CHECK(j->type == FLIS_OBJECT && j->count == 3 && j->line == 1 && j->column == 2, "the object");
    CHECK(a->type == FLIS_ARRAY && a->count == 6 && a->item[0].type == FLIS_NULL && a->item[1].type == FLIS_TRUE &&
              a->item[2].type == FLIS_FALSE && a->item[5].type == FLIS_ARRAY && a->item[5].count == 0,
          "the array");
    CHECK(a->item[3].number == -125 && strcmp(a->item[3].literal, "-12.5e+1") == 0, "the number");
    CHECK(a->item[4].length == 11 && memcmp(a->item[4].string, "\xC3\xA9\xF0\x9F\x98\x80\n\"/\0z", 12) == 0,
          "the string");
    CHECK(j->key[1].line == 2 && j->key[1].column == 3 && j->item[1].column == 7, "places");
    const flis_json *last = flis_json_get(j, "a");
    CHECK(last && last->number == 7, "the last of two equal keys must be found");
    CHECK(!flis_json_get(j, "c") && !flis_json_get(a, "a") && !flis_json_get(NULL, "a"),
          "a key that is absent was found");
    flis_json_free(j);
    static const char *const good[] = {"0",
                                       "-0",
                                       "1E5",
                                       "\"\"",
                                       "[]",
                                       "{}",
                                       "[[[]]]",
                                       "\"\x7F\xC2\x80\xEF\xBF\xBF\"",
                                       "\tnull\n",
                                       "0.0e-0",
                                       "\"\\uDBFF\\uDFFF\"",
                                       "{\"\":{\"\":[]}}"};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        CHECK((j = parse(&ctx, good[i])) != NULL, "%s: %s", good[i], ctx.error);
        flis_json_free(j);
    }
}

void test_json_refuses(void)
{
    static const struct {
        const char *text, *error;
    } bad[] = {
        {"", "x:1:1: got the end of the text, wanted a value"},
        {" \n ", "x:2:2: got the end of the text, wanted a value"},
        {"nul", "x:1:4: got the end of the text, wanted null, true, false or another value"},
        {"NaN", "x:1:1: got 'N', wanted a value (JSON has no NaN)"},
        {"01", "x:1:2: got '1', wanted nothing after the value"},
        {"-", "x:1:2: got the end of the text, wanted a digit"},
        {"+1", "x:1:1: got '+', wanted a value"},
        {".5", "x:1:1: got '.', wanted a value"},
        {"1.", "x:1:3: got the end of the text, wanted a digit"},
        {"1.e5", "x:1:3: got 'e', wanted a digit"},
        {"1e", "x:1:3: got the end of the text, wanted a digit"},
        {"1e+", "x:1:4: got the end of the text, wanted a digit"},
        {"0x10", "x:1:2: got 'x', wanted nothing after the value"},
        {"[1e999]", "x:1:2: a number is larger than a double can hold"},
        {"[1,]", "x:1:4: got ']', wanted a value (JSON has no trailing commas)"},
        {"[1 2]", "x:1:4: got '2', wanted ',' or ']'"},
        {"[1,\n2", "x:2:2: got the end of the text, wanted ',' or ']'"},
        {"[", "x:1:2: got the end of the text, wanted a value"},
        {"]", "x:1:1: got ']', wanted a value"},
        {"{\"a\" 1}", "x:1:6: got '1', wanted ':'"},
        {"{\"a\":}", "x:1:6: got '}', wanted a value"},
        {"{\"a\":1,}", "x:1:8: got '}', wanted a name in quotes (JSON has no trailing commas)"},
        {"{a:1}", "x:1:2: got 'a', wanted a name in quotes"},
        {"{\"a\":1", "x:1:7: got the end of the text, wanted ',' or '}'"},
        {"'a'", "x:1:1: got ''', wanted a value (JSON has only double quotes)"},
        {"\"abc", "x:1:1: a string has no closing quote"},
        {"\"abc\\\"", "x:1:1: a string has no closing quote"},
        {"\"a\nb\"", "x:1:3: a string has a control character, 0x0A, wanted an escape"},
        {"\"\xC3\xA9\tb\"", "x:1:3: a string has a control character, 0x09, wanted an escape"},
        {"\"\\x41\"", "x:1:3: got 'x', wanted one of \" \\ / b f n r t u after a backslash (a backslash of a path is "
                      "written twice)"},
        {"\"\\u12G4\"", "x:1:6: got 'G', wanted a hexadecimal digit"},
        {"\"\\uD800\"", "x:1:2: half of a surrogate pair: \\uD800"},
        {"\"\\uDC00\"", "x:1:2: half of a surrogate pair: \\uDC00"},
        {"\"\\uD800\\uD800\"", "x:1:2: half of a surrogate pair: \\uD800"},
        {"\"\\uD800\\n\"", "x:1:2: half of a surrogate pair: \\uD800"},
        {"\"a\x80\"", "x:1:3: a string has a byte that is not UTF-8, 0x80"},
        {"\"\xC0\xAF\"", "x:1:2: a string has a byte that is not UTF-8, 0xC0"},
        {"\"\xE0\x9F\xBF\"", "x:1:2: a string has a byte that is not UTF-8, 0xE0"},
        {"\"\xED\xA0\x80\"", "x:1:2: a string has a byte that is not UTF-8, 0xED"},
        {"\"\xF4\x90\x80\x80\"", "x:1:2: a string has a byte that is not UTF-8, 0xF4"},
        {"\"\xF0\x9F\x98\"", "x:1:2: a string has a byte that is not UTF-8, 0xF0"},
        {"\xEF\xBB\xBF", "x:1:1: got the end of the text, wanted a value"},
        {"{} // no", "x:1:4: got '/', wanted nothing after the value (JSON has no comments)"},
        {"[1]\n]", "x:2:1: got ']', wanted nothing after the value"},
    };
    flis_ctx ctx;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        flis_json *j = parse(&ctx, bad[i].text);
        CHECK(!j && strcmp(ctx.error, bad[i].error) == 0, "%s: got \"%s\", wanted \"%s\"", bad[i].text,
              j ? "a value" : ctx.error, bad[i].error);
        flis_json_free(j);
    }
    char deep[131];
    for (int levels = 64; levels <= 65; levels++) {
        memset(deep, '[', (size_t)levels);
        memset(deep + levels, ']', (size_t)levels);
        deep[2 * levels] = 0;
        flis_json *j = parse(&ctx, deep);
        CHECK((j != NULL) == (levels == 64), "%d levels: %s", levels, j ? "taken" : ctx.error);
        flis_json_free(j);
    }
    CHECK(strcmp(ctx.error, "x:1:65: nested more than 64 levels deep") == 0, "got \"%s\"", ctx.error);
    flis_init(&ctx);
    CHECK(!flis_json_parse(&ctx, "x", "[1]\0", 4) && strstr(ctx.error, "0x00"), "a NUL behind the value: \"%s\"",
          ctx.error);
}

/* No truncated value is accepted. Each piece has its own memory, so that sanitizers detect reads beyond its end. */
void test_json_cut_short(void)
{
    static const char text[] =
        "{\"text_label_mapping\": [[\"a\\u00e9\\ud83d\\ude00\xC3\xA9\", -1.5e3], [true, null]], \"b\": {}}";
    for (size_t n = 0; n < sizeof text - 1; n++) {
        flis_ctx ctx;
        flis_init(&ctx);
        char *piece = malloc(n ? n : 1);
        memcpy(piece, text, n);
        flis_json *j = flis_json_parse(&ctx, "x", piece, n);
        CHECK(!j && !strncmp(ctx.error, "x:1:", 4), "%zu bytes: got \"%s\"", n, j ? "a value" : ctx.error);
        flis_json_free(j);
        free(piece);
    }
}

void test_json_numbers(void)
{
    static const struct {
        const char *text;
        bool ok;
        uint64_t value;
    } cases[] = {{"0", true, 0},
                 {"255", true, 255},
                 {"18446744073709551615", true, UINT64_MAX},
                 {"18446744073709551616", false, 0},
                 {"9007199254740993", true, UINT64_C(9007199254740993)},
                 {"-1", false, 0},
                 {"-0", false, 0},
                 {"1.0", false, 0},
                 {"1e2", false, 0},
                 {"\"1\"", false, 0},
                 {"99999999999999999999999", false, 0}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        flis_ctx ctx;
        uint64_t value = 0;
        flis_json *j = parse(&ctx, cases[i].text);
        bool ok = flis_json_u64(j, &value);
        CHECK(ok == cases[i].ok && value == cases[i].value, "%s: got %d %llu", cases[i].text, ok,
              (unsigned long long)value);
        flis_json_free(j);
    }
    CHECK(!flis_json_u64(NULL, NULL), "NULL is accepted as a number");
}

/* A safetensors header is one line of megabytes: computing columns must not scan the line again. Wrong: quadratic time,
   minutes. */
void test_json_is_linear(void)
{
    const size_t items = 300000;
    char *text = malloc(items * 3 + 3), *at = text;
    *at++ = '[';
    for (size_t i = 0; i < items; i++) {
        memcpy(at, i ? ",\"\"" : " \"\"", 3);
        at += 3;
    }
    *at++ = ']';
    flis_ctx ctx;
    flis_init(&ctx);
    flis_json *j = flis_json_parse(&ctx, "x", text, (size_t)(at - text));
    CHECK(j && j->count == items && j->item[items - 1].column == (int)(3 * items), "%s", ctx.error);
    flis_json_free(j);
    free(text);
}

/* ---- Inflate ----------------------------------------------------------------------------------------------------- */

/* As zlib 1.2.13 wrote them: a fixed block of three times "flis flis flis: a layout and words. ", and a dynamic one. */
static const uint8_t FIXED[] =
    "\x4b\xcb\xc9\x2c\x56\x48\x83\x11\x56\x0a\x89\x0a\x39\x89\x95\xf9\xa5\x25\x0a\x89\x79\x29\x0a\xe5\xf9\x45"
    "\x29\xc5\x7a\x08\x69\x0a\xd5\x00\x00";
static const uint8_t DYNAMIC[] =
    "\xed\xcc\x31\x0e\xc0\x40\x08\x03\xc1\xb7\x1a\x5b\x70\x98\xff\xf7\x21\x52\x7e\x90\xf6\xb6\x1e\x2d\x80\xa0"
    "\xf2\x18\x2a\xb3\x46\xcd\xc3\x96\x33\x3a\x39\x27\x15\x18\xf7\xe6\x41\xac\x1b\x66\x47\xfa\x63\x53\x74\x09"
    "\x5e\xc7\xc0\xdb\x9d\xfd\x9b\x3d";
static const uint8_t STORED[] = "\x00\x03\x00\xfc\xff"
                                "abc"
                                "\x01\x00\x00\xff\xff";

static const struct stream {
    const char *name;
    const uint8_t *bytes;
    size_t count, unpacked;
} STREAMS[3] = {{"stored", STORED, sizeof STORED - 1, 3},
                {"fixed", FIXED, sizeof FIXED - 1, 108},
                {"dynamic", DYNAMIC, sizeof DYNAMIC - 1, 400}};

static void unpacked_text(int which, uint8_t *out)
{
    for (int i = 0; which == 2 && i < 400; i++) out[i] = (uint8_t)(i * i / 7 % 11 + 97);
    for (int i = 0; which == 1 && i < 108; i++) out[i] = (uint8_t) "flis flis flis: a layout and words. "[i % 36];
    if (which == 0) memcpy(out, "abc", 3);
}

void test_inflate_streams(void)
{
    for (int i = 0; i < 3; i++) {
        const struct stream *s = &STREAMS[i];
        uint8_t wanted[400];
        size_t length;
        flis_ctx ctx;
        flis_init(&ctx);
        unpacked_text(i, wanted);
        uint8_t *got = flis_inflate(&ctx, "x", FLIS_DEFLATE, s->bytes, s->count, s->unpacked, &length);
        CHECK(got && length == s->unpacked && memcmp(got, wanted, length) == 0, "%s: %s", s->name, ctx.error);
        free(got);
        got = flis_inflate(&ctx, "x", FLIS_DEFLATE, s->bytes, s->count, s->unpacked - 1, &length);
        CHECK(!got && strstr(ctx.error, "x: unpacks to more than the "), "%s beyond the limit: \"%s\"", s->name,
              ctx.error);
    }
}

void test_inflate_cut_short(void)
{
    for (int i = 0; i < 3; i++)
        for (size_t n = 0; n <= STREAMS[i].count + 1; n++) {
            size_t length;
            flis_ctx ctx;
            flis_init(&ctx);
            uint8_t *piece = malloc(n ? n : 1); /* exactly this long, so that sanitizers detect reads beyond the end */
            memcpy(piece, STREAMS[i].bytes, n <= STREAMS[i].count ? n : n - 1);
            if (n > STREAMS[i].count) piece[n - 1] = 0;
            uint8_t *got = flis_inflate(&ctx, "x", FLIS_DEFLATE, piece, n, 1000, &length);
            const char *wanted = n < STREAMS[i].count    ? "cut short"
                                 : n == STREAMS[i].count ? ""
                                                         : "more data behind its end";
            CHECK((got != NULL) == (n == STREAMS[i].count) && strstr(ctx.error, wanted), "%s, %zu bytes: \"%s\"",
                  STREAMS[i].name, n, ctx.error);
            free(got);
            free(piece);
        }
}

/* A dynamic block whose code lengths are written with one bit for "18" (11 to 138 zeros) and two for 0 and `other`. */
static void dynamic_start(buffer *b, unsigned distances, unsigned other)
{
    static const unsigned order[19] = {16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15};
    b->count = b->bit = 0;
    put_bits(b, 1, 1);
    put_bits(b, 2, 2);
    put_bits(b, 0, 5);
    put_bits(b, distances - 1, 5);
    put_bits(b, 15, 4);
    for (int i = 0; i < 19; i++) put_bits(b, order[i] == 18 ? 1 : order[i] == 0 || order[i] == other ? 2 : 0, 3);
    put_bits(b, 0, 1);
    put_bits(b, 127, 7); /* 138 zeros */
    put_bits(b, 0, 1);
    put_bits(b, 107, 7); /* 118 zeros: next is the end of block */
}

static void inflate_says(const char *what, buffer *b, const char *wanted)
{
    size_t length;
    flis_ctx ctx;
    flis_init(&ctx);
    put(b, "\0\0\0\0", 4); /* so that the end is not what is reported */
    uint8_t *got = flis_inflate(&ctx, "x", FLIS_DEFLATE, b->at, b->count, 1000, &length);
    CHECK(!got && strstr(ctx.error, wanted), "%s: got \"%s\", wanted \"%s\"", what, got ? "a stream" : ctx.error,
          wanted);
    free(got);
}

void test_inflate_refuses(void)
{
    static const struct {
        const char *what, *wanted;
        struct {
            unsigned value, bits;
        } put[12];
    } cases[] = {
        {"block 3", "a kind of block that does not exist", {{1, 1}, {3, 2}}},
        {"287 literals", "more symbols than exist", {{1, 1}, {2, 2}, {30, 5}, {0, 5}, {0, 4}}},
        {"31 distances", "more symbols than exist", {{1, 1}, {2, 2}, {0, 5}, {30, 5}, {0, 4}}},
        {"four codes of 1 bit",
         "a code of code lengths that is no complete code",
         {{1, 1}, {2, 2}, {0, 5}, {0, 5}, {0, 4}, {1, 3}, {1, 3}, {1, 3}, {1, 3}}},
        {"one code of 1 bit",
         "a code of code lengths that is no complete code",
         {{1, 1}, {2, 2}, {0, 5}, {0, 5}, {0, 4}, {1, 3}, {0, 3}, {0, 3}, {0, 3}}},
        {"no code",
         "a code of code lengths that is no complete code",
         {{1, 1}, {2, 2}, {0, 5}, {0, 5}, {0, 4}, {0, 12}}},
        {"16 first",
         "none before it",
         {{1, 1}, {2, 2}, {0, 5}, {0, 5}, {0, 4}, {1, 3}, {0, 3}, {1, 3}, {0, 3}, {0, 1}}},
        {"276 zeros",
         "more code lengths than were announced",
         {{1, 1}, {2, 2}, {0, 5}, {0, 5}, {0, 4}, {1, 3}, {0, 3}, {1, 3}, {0, 3}, {255, 8}, {255, 8}}},
        {"258 zeros",
         "a code without an end of block",
         {{1, 1}, {2, 2}, {0, 5}, {0, 5}, {0, 4}, {0, 3}, {0, 3}, {1, 3}, {1, 3}, {255, 8}, {1 | 109 << 1, 8}}},
        {"length 286", "a length that does not exist", {{1, 1}, {1, 2}, {0x63, 8}}},
        {"distance before the start", "a distance to before the beginning", {{1, 1}, {1, 2}, {0x40, 7}, {0, 5}}},
        {"distance 30", "a distance that does not exist", {{1, 1}, {1, 2}, {0x0C, 8}, {0x40, 7}, {0x0F, 5}}},
        {"stored lengths", "its complement differ", {{1, 1}, {0, 2}, {0, 5}, {5, 16}, {5, 16}}},
    };
    static buffer b;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        b.count = b.bit = 0;
        for (int k = 0; k < 12 && cases[i].put[k].bits; k++) put_bits(&b, cases[i].put[k].value, cases[i].put[k].bits);
        inflate_says(cases[i].what, &b, cases[i].wanted);
    }
    size_t length;
    flis_ctx ctx;
    flis_init(&ctx);
    dynamic_start(&b, 1, 1);
    put_bits(&b, 3, 2); /* the end of block: 1 bit, the only code; zlib accepts that, and so does flis */
    put_bits(&b, 1, 2); /* no distances */
    buffer unused = b;
    put_bits(&b, 0, 1);
    uint8_t *got = flis_inflate(&ctx, "x", FLIS_DEFLATE, b.at, b.count, 9, &length);
    CHECK(got && !length, "one code of one bit: %s", ctx.error);
    free(got);
    put_bits(&unused, 1, 1);
    inflate_says("its unused half", &unused, "a code that stands for nothing");
    dynamic_start(&b, 1, 2);
    put_bits(&b, 3, 2);
    put_bits(&b, 1, 2);
    inflate_says("one code of two bits", &b, "a literal code that is no complete code");
    dynamic_start(&b, 3, 1);
    for (int i = 0; i < 4; i++) put_bits(&b, 3, 2);
    inflate_says("three distances of one bit", &b, "a distance code that is no complete code");
    dynamic_start(&b, 1, 2);
    put_bits(&b, 3, 2);
    put_bits(&b, 3, 2);
    inflate_says("no literal code either", &b, "a literal code that is no complete code");
}

void test_inflate_wrappers(void)
{
    static buffer b;
    uint8_t text[108], header[] = "\x1f\x8b\x08\x1e\0\0\0\0\0\x03\x02\0zznotes.txt\0a comment\0";
    unpacked_text(1, text);
    const uint32_t crc = crc_of(text, 108);
    const uint8_t tail[8] = {
        (uint8_t)crc, (uint8_t)(crc >> 8), (uint8_t)(crc >> 16), (uint8_t)(crc >> 24), 108, 0, 0, 0};
    const uint32_t header_crc = crc_of(header, sizeof header - 1);
    for (int damage = -1; damage < 8; damage++) { /* gzip: one plain member, one with every field */
        static const char *const wanted[8] = {
            "no gzip header",       "no gzip header",     "no gzip header", "the header's checksum differs",
            "the checksum differs", "the length differs", "cut short",      "cut short"};
        size_t length;
        flis_ctx ctx;
        flis_init(&ctx);
        b.count = 0;
        put(&b, "\x1f\x8b\x08\0\0\0\0\0\0\x03", 10);
        put(&b, FIXED, sizeof FIXED - 1);
        put(&b, tail, 8);
        const size_t second = b.count;
        put(&b, header, sizeof header - 1);
        put8(&b, header_crc & 0xFF);
        put8(&b, header_crc >> 8 & 0xFF);
        put(&b, FIXED, sizeof FIXED - 1);
        put(&b, tail, 8);
        if (damage == 0) b.at[1] = 0;
        if (damage == 1) b.at[second + 2] = 7;
        if (damage == 2) b.at[3] = 0x20;
        if (damage == 3) b.at[second + 14] ^= 1;
        if (damage == 4) b.at[b.count - 8] ^= 1;
        if (damage == 5) b.at[b.count - 4] ^= 1;
        if (damage == 6) b.count -= 1;
        if (damage == 7) b.count = second + 12;
        uint8_t *got = flis_inflate(&ctx, "x", FLIS_GZIP, b.at, b.count, 216, &length);
        if (damage < 0)
            CHECK(got && length == 216 && !memcmp(got, text, 108) && !memcmp(got + 108, text, 108), "gzip: %s",
                  ctx.error);
        else CHECK(!got && strstr(ctx.error, wanted[damage]), "gzip damage %d: \"%s\"", damage, ctx.error);
        free(got);
    }
    for (int damage = -1; damage < 6; damage++) {
        static const char *const wanted[6] = {"no zlib header",       "no zlib header", "it needs a preset dictionary",
                                              "the checksum differs", "cut short",      "more data behind its end"};
        size_t length;
        flis_ctx ctx;
        flis_init(&ctx);
        b.count = 0;
        put_stored(&b, text, 108);
        if (damage == 0) b.at[1] ^= 1;
        if (damage == 1) memcpy(b.at, "\x88\x1c", 2); /* a window of 64 KiB */
        if (damage == 2) memcpy(b.at, "\x78\x20", 2);
        if (damage == 3) b.at[30] ^= 1;
        if (damage == 4) b.count--;
        if (damage == 5) put8(&b, 0);
        uint8_t *got = flis_inflate(&ctx, "x", FLIS_ZLIB, b.at, b.count, 108, &length);
        if (damage < 0) CHECK(got && length == 108 && !memcmp(got, text, 108), "zlib: %s", ctx.error);
        else CHECK(!got && strstr(ctx.error, wanted[damage]), "zlib damage %d: \"%s\"", damage, ctx.error);
        free(got);
    }
}

/* ---- Label maps in ----------------------------------------------------------------------------------------------- */

void test_png_every_kind(void)
{
    static const unsigned depths[5] = {1, 2, 4, 8, 16};
    static buffer b;
    char what[80];
    for (unsigned color = 0; color <= 3; color += 3)
        for (int d = 0; d < (color ? 4 : 5); d++)
            for (unsigned interlaced = 0; interlaced < 2; interlaced++)
                for (unsigned filter = 0; filter <= 5; filter++) {
                    snprintf(what, sizeof what, "colour type %u, %u bits, interlaced %u, filter %u", color, depths[d],
                             interlaced, filter);
                    put_picture(&b, 19, 13, depths[d], color, interlaced, filter);
                    label_reads(what, b.at, b.count, 19, 13, depths[d], color);
                }
}

/* Passes of an interlaced picture may be empty, and rows may end within a byte. */
void test_png_every_size(void)
{
    static buffer b;
    char what[80];
    for (size_t h = 1; h <= 9; h++)
        for (size_t w = 1; w <= 9; w++) {
            snprintf(what, sizeof what, "interlaced, %zu x %zu", w, h);
            put_picture(&b, w, h, (w + h) % 2 ? 1 : 2, 0, true, 5);
            label_reads(what, b.at, b.count, w, h, (w + h) % 2 ? 1 : 2, 0);
        }
}

/* The label is the palette index, whatever its colour, even if the palette has no colour for it (PIL writes such
   files). Pixels may be split over many IDAT chunks, some of them empty, among chunks that flis does not need. */
void test_png_palette_index(void)
{
    static buffer b, z;
    const uint8_t rows[] = {0, 200, 3, 0, 255, 0};
    flis_ctx ctx;
    flis_picture picture;
    flis_init(&ctx);
    z.count = 0;
    put_stored(&z, rows, 6);
    put_header(&b, 2, 2, 8, 3, 0);
    put_chunk(&b, "gAMA", "\0\1\x86\xa0", 4);
    put_chunk(&b, "PLTE", "\11\11\11\7\7\7", 6);
    put_chunk(&b, "tRNS", "\0", 1);
    for (size_t i = 0; i < z.count; i++) {
        put_chunk(&b, "IDAT", z.at + i, 1);
        put_chunk(&b, "IDAT", "", 0);
    }
    put_chunk(&b, "tIME", "\7\xe7\1\1\0\0\0", 7);
    put_chunk(&b, "IEND", "", 0);
    put(&b, "whatever", 8);
    CHECK(flis_read_label(&ctx, file_of("palette.png", b.at, b.count), &picture), "%s", ctx.error);
    CHECK(picture.pixels && !memcmp(picture.pixels, "\xC8\3\xFF\0", 4), "not the indices");
    free(picture.pixels);
}

void test_png_refuses(void)
{
    static const struct {
        unsigned depth, color;
        const char *wanted;
    } kinds[] = {{16, 2, "got a PNG of RGB pixels with 16 bits, wanted a label map of 8 bits or less"},
                 {16, 4, "got a PNG of gray pixels with alpha with 16 bits, wanted"},
                 {16, 6, "got a PNG of RGB pixels with alpha with 16 bits, wanted"},
                 {4, 2, "colour type 2 with 4 bits does not exist"},
                 {3, 0, "colour type 0 with 3 bits does not exist"},
                 {16, 3, "colour type 3 with 16 bits does not exist"},
                 {8, 1, "colour type 1 with 8 bits does not exist"},
                 {8, 255, "colour type 255 with 8 bits does not exist"}};
    static const struct {
        const char *start, *name;
    } files[] = {{"", "got an empty file"},
                 {"\xFF\xD8\xFF\xE0 JFIF", "got a JPEG picture"},
                 {"GIF89a", "got a GIF picture"},
                 {"P6\n1 1\n255\n", "got a PPM picture (RGB)"},
                 {"P4\n", "got a PBM bitmap"},
                 {"BM1234", "got a BMP picture"},
                 {"RIFFxxxxWEBP", "got a WebP picture"},
                 {"hello", "got a file of another kind, wanted a label map: a PNG, or a PGM"}};
    static buffer b;
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        put_header(&b, 3, 3, kinds[i].depth, kinds[i].color, 0);
        put_chunk(&b, "IEND", "", 0);
        label_fails("kind", b.at, b.count, kinds[i].wanted);
    }
    for (size_t i = 0; i < sizeof files / sizeof *files; i++)
        label_fails("file", files[i].start, strlen(files[i].start), files[i].name);
    static const size_t sides[][2] = {
        {0, 1}, {1, 0}, {16385, 1}, {1, 16385}, {16384, 16384}, {0x80000000, 0x80000000}, {0xFFFFFFFF, 1}};
    for (size_t i = 0; i < sizeof sides / sizeof *sides; i++) {
        put_header(&b, sides[i][0], sides[i][1], 8, 0, 0);
        label_fails("size", b.at, b.count, "pixels, wanted sides from 1 to 16384 and at most 67108864 pixels");
    }
    const uint8_t wide[] = {0, 0, 255, 1, 44, 0, 0, 1, 0, 2};
    put_header(&b, 2, 2, 16, 0, 0);
    put_idat(&b, wide, 10);
    put_chunk(&b, "IEND", "", 0);
    label_fails("16 bits", b.at, b.count, "got 300 at pixel (1, 0), wanted class numbers up to 255");
    flis_ctx ctx;
    flis_picture picture;
    flis_init(&ctx);
    CHECK(!flis_read_label(&ctx, test_scratch("absent.png"), &picture) &&
              strstr(ctx.error, "absent.png: cannot be opened"),
          "\"%s\"", ctx.error);
}

void test_png_damaged(void)
{
    static buffer b, good;
    const uint8_t rows[] = {0, 1, 2, 3, 1, 4, 5, 6};
    put_header(&good, 3, 2, 8, 0, 0); /* chunks at 8, 33, 64; IEND at the end */
    put_idat(&good, rows, 8);
    put_chunk(&good, "IEND", "", 0);
    const size_t end = good.count - 12; /* behind the pixels damage is a warning: test_field_layouts.c */
    for (size_t n = 1; n < end; n++)
        label_fails("cut short", good.at, n,
                    n < 4   ? "a file of another kind"
                    : n < 8 ? "its first 8 bytes"
                            : "cut short");
    for (size_t i = 0; i < end; i++) {
        b = good;
        b.at[i] ^= 1;
        label_fails("one bit", b.at, b.count, "");
    }
    b = good;
    b.at[33 + 9] ^= 1;
    label_fails("CRC", b.at, b.count, "damaged PNG: chunk IDAT at byte 33: got CRC ");
    b = good;
    b.at[4] = '\n';
    label_fails("text mode", b.at, b.count, "its first 8 bytes were changed, as by a transfer in text mode");
    b = good;
    b.at[33] = 0x7F;
    label_fails("length", b.at, b.count, "chunk IDAT at byte 33 is cut short: got 31 bytes, wanted 2130706451");
    b = good;
    b.at[37] = 0;
    label_fails("type", b.at, b.count, "no chunk where one should begin, at byte 33");
    enum {
        NO_HEADER,
        TWO_HEADERS,
        NO_DATA,
        UNKNOWN,
        APART,
        TWO_PALETTES,
        ODD_PALETTE,
        SHORT_ROWS,
        FILTER,
        NOT_ZLIB,
        CASES
    };
    static const char *const wanted[CASES] = {"got chunk IDAT first, wanted IHDR",
                                              "a second IHDR chunk",
                                              "no IDAT chunk",
                                              "unknown chunk ABcD, which must not be skipped",
                                              "its IDAT chunks do not follow each other",
                                              "a second palette",
                                              "got a palette of 4 bytes, wanted 3 for each of 1 to 256 colours",
                                              "got 7 bytes of pixels, wanted 8",
                                              "filter 5 in row 1 does not exist",
                                              "no zlib header"};
    for (int i = 0; i < CASES; i++) {
        const unsigned color = i == TWO_PALETTES || i == ODD_PALETTE ? 3 : 0;
        uint8_t data[8] = {0, 1, 2, 3, 0, 4, 5, 6};
        if (i == FILTER) data[4] = 5;
        put_header(&b, 3, 2, 8, color, 0);
        if (i == NO_HEADER) b.count = 8;
        if (i == TWO_HEADERS) put_chunk(&b, "IHDR", "0123456789012", 13);
        if (i == UNKNOWN) put_chunk(&b, "ABcD", "", 0);
        if (i == TWO_PALETTES) put_chunk(&b, "PLTE", "123", 3);
        if (i == TWO_PALETTES) put_chunk(&b, "PLTE", "123", 3);
        if (i == ODD_PALETTE) put_chunk(&b, "PLTE", "1234", 4);
        if (i == NOT_ZLIB) put_chunk(&b, "IDAT", "hello", 5);
        else if (i != NO_DATA) put_idat(&b, data, i == SHORT_ROWS || i == APART ? 7 : 8);
        if (i == APART) {
            put_chunk(&b, "tEXt", "a", 1);
            put_chunk(&b, "IDAT", "", 0);
        }
        put_chunk(&b, "IEND", "", 0);
        label_fails(wanted[i], b.at, b.count, wanted[i]);
    }
    for (int i = 10; i < 13; i++) { /* compression, filter method, interlace of IHDR */
        put_header(&b, 3, 2, 8, 0, 0);
        uint8_t header[13];
        memcpy(header, b.at + 16, 13);
        header[i] = 2;
        b.count = 8;
        put_chunk(&b, "IHDR", header, 13);
        label_fails("IHDR", b.at, b.count, "do not exist");
    }
}

void test_pgm(void)
{
    static const struct {
        const char *text;
        size_t count;
    } good[] = {
        {"P2 2 2 255 0 7\n255 1", 0},       {"P2\n# a comment\n2 # and another\n2\n255\n0 7 # here\n255\n1\n", 0},
        {"P2\n2 2\n65535\n0 7 255 1 ", 0},  {"P5\n2 2\n255\n\0\7\xFF\1", 15},
        {"P5 2\t2 #c\n255 \0\7\xFF\1", 18}, {"P5\n2 2\n256\n\0\0\0\7\0\xFF\0\1", 19},
        {"P5\n2 2\n255\n\0\7\xFF\1\n", 16}};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        flis_ctx ctx;
        flis_picture p;
        flis_init(&ctx);
        const char *path = file_of("label.pgm", good[i].text, good[i].count ? good[i].count : strlen(good[i].text));
        CHECK(flis_read_label(&ctx, path, &p), "case %zu: %s", i, ctx.error);
        CHECK(p.pixels && p.width == 2 && p.height == 2 && !memcmp(p.pixels, "\0\7\xFF\1", 4), "case %zu differs", i);
        free(p.pixels);
    }
}

void test_pgm_refuses(void)
{
    static const struct {
        const char *text;
        size_t count;
        const char *wanted;
    } bad[] = {{"P2", 0, "damaged PGM: cut short, wanted its width"},
               {"P2 2", 0, "cut short, wanted its height"},
               {"P2 x", 0, "got byte 0x78 at byte 3, wanted its width"},
               {"P2 2x 2", 0, "got byte 0x78 at byte 4, wanted its width"},
               {"P2 2 -2 255", 0, "got byte 0x2D at byte 5, wanted its height"},
               {"P2 2 2 # no end", 0, "cut short, wanted its maximum"},
               {"P2 0 2 255 ", 0, "got a picture of 0 x 2 pixels"},
               {"P2 99999999999999999999 2 255 ", 0, "pixels, wanted sides from 1"},
               {"P5 16384 16384 255 ", 0, "at most 67108864 pixels"},
               {"P5 8192 8192 255 ", 0, "cut short, wanted 67108864 pixels"},
               {"P2 2 2 0 0 0 0 0", 0, "got a maximum of 0, wanted 1 to 65535"},
               {"P2 2 2 65536 0 0 0 0", 0, "got a maximum of 65536"},
               {"P2 2 2 255 1 2 3      ", 0, "cut short, wanted its next pixel"},
               {"P2 2 2 9 1 2 10 3", 0, "got 10 at pixel (0, 1), wanted at most its own maximum, 9"},
               {"P2 2 2 999 1 2 3 256", 0, "got 256 at pixel (1, 1), wanted class numbers up to 255"},
               {"P5\n2 2\n255\n123", 0, "got 3 bytes of pixels, wanted 4"},
               {"P5\n2 2\n255\r\n1234", 0, "CR LF before the pixels, wanted one white space"},
               {"P5\n2 2\n300\n\0\1\0\2\0\3", 17, "got 6 bytes of pixels, wanted 8"},
               {"P5\n2 2\n300\n\0\1\0\2\0\3\1\1", 19, "got 257 at pixel (1, 1), wanted class numbers"},
               {"P5\n2 2\n100\n123\x65", 0, "got 101 at pixel (1, 1), wanted at most its own maximum, 100"},
               {"P5\n2 2\n255", 0, "cut short, wanted 4 pixels"},
               {"P5\n2 2\n255#\n1234", 0, "no white space before the pixels"}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        label_fails(bad[i].text, bad[i].text, bad[i].count ? bad[i].count : strlen(bad[i].text), bad[i].wanted);
}

/* ---- Pictures out ------------------------------------------------------------------------------------------------ */

/* A decoder of what flis_write_png writes: 8 bits, gray or RGB, not interlaced. Returns the chunks' types joined. */
static uint8_t *read_back(const char *path, size_t channels, size_t *w, size_t *h, char *types)
{
    flis_ctx ctx;
    size_t length, raw_length, bytes = 0;
    static buffer idat;
    flis_init(&ctx);
    idat.count = 0;
    *types = 0;
    uint8_t *in = (uint8_t *)flis_read_file(&ctx, path, 1 << 24, &length);
    CHECK(in, "%s", ctx.error);
    if (!in) return NULL;
    CHECK(!memcmp(in, "\x89PNG\r\n\x1A\n", 8), "no PNG");
    for (size_t at = 8; at + 12 <= length; at += bytes + 12) {
        bytes = (size_t)in[at] << 24 | (size_t)in[at + 1] << 16 | (size_t)in[at + 2] << 8 | in[at + 3];
        const uint8_t *end = in + at + 8 + bytes;
        const uint32_t crc = (uint32_t)end[0] << 24 | (uint32_t)end[1] << 16 | (uint32_t)end[2] << 8 | end[3];
        strncat(types, (const char *)in + at + 4, 4);
        CHECK(crc == crc_of(in + at + 4, bytes + 4), "CRC of the chunk at %zu", at);
        if (!memcmp(in + at + 4, "IDAT", 4)) put(&idat, in + at + 8, bytes);
    }
    *w = (size_t)in[18] << 8 | in[19];
    *h = (size_t)in[22] << 8 | in[23];
    CHECK(in[24] == 8 && in[25] == (channels == 3 ? 2 : 0) && !in[28], "IHDR");
    free(in);
    const size_t row = *w * channels;
    uint8_t *raw = flis_inflate(&ctx, "raw", FLIS_ZLIB, idat.at, idat.count, (row + 1) * *h, &raw_length);
    CHECK(raw && raw_length == (row + 1) * *h, "%s", ctx.error);
    uint8_t *out = calloc(*w * *h, channels);
    for (size_t y = 0; raw && y < *h; y++)
        for (size_t i = 0; i < row; i++) {
            uint8_t *now = out + y * row + i;
            const int a = i >= channels ? *(now - channels) : 0, up = y ? *(now - row) : 0;
            const int c = y && i >= channels ? *(now - row - channels) : 0;
            const int guess[5] = {0, a, up, (a + up) / 2, paeth(a, up, c)};
            *now = (uint8_t)(raw[y * (row + 1) + 1 + i] + guess[raw[y * (row + 1)] % 5]);
        }
    free(raw);
    return out;
}

/* Several kinds of pictures: 0 one colour, 1 gradients, 2 noise, 3 blocks that repeat at a distance. */
static flis_picture painted(size_t w, size_t h, size_t channels, int kind)
{
    flis_picture p = {w, h, channels, calloc(w * h, channels)};
    uint32_t state = 12345;
    for (size_t i = 0; i < w * h * channels; i++) {
        const size_t x = i / channels % w, y = i / channels / w, c = i % channels;
        state = state * 1664525 + 1013904223;
        p.pixels[i] = (uint8_t)(kind == 0   ? 77
                                : kind == 1 ? x * (c + 1) + y * (3 - c)
                                : kind == 2 ? state >> 24
                                            : (x % 60) * (y % 9) + c);
    }
    return p;
}

void test_png_written(void)
{
    static const struct {
        size_t w, h, channels, most;
    } sizes[] = {{1, 1, 3, 90},     {1, 1, 1, 90},        {3, 517, 1, 2000},
                 {300, 3, 3, 3200}, {130, 131, 3, 53000}, {257, 64, 1, 17000}};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        for (int kind = 0; kind < 4; kind++) {
            flis_ctx ctx;
            char types[64];
            size_t w = 0, h = 0;
            flis_picture p = painted(sizes[i].w, sizes[i].h, sizes[i].channels, kind);
            flis_init(&ctx);
            const char *path = test_scratch("written.png");
            CHECK(flis_write_png(&ctx, path, &p, NULL), "%s", ctx.error);
            uint8_t *back = read_back(path, p.channels, &w, &h, types);
            CHECK(w == p.width && h == p.height && back && !memcmp(back, p.pixels, w * h * p.channels),
                  "%zu x %zu x %zu, kind %d: reads back as a different picture", p.width, p.height, p.channels, kind);
            CHECK(!strcmp(types, "IHDRIDATIEND"), "chunks %s", types);
            if (p.channels == 1) {
                flis_picture label;
                CHECK(flis_read_label(&ctx, path, &label) && !memcmp(label.pixels, p.pixels, w * h), "as a label: %s",
                      ctx.error);
                free(label.pixels);
            }
            size_t length;
            char *bytes = flis_read_file(&ctx, path, 1 << 24, &length);
            CHECK(length < sizes[i].most && (kind || length < 400), "%zu x %zu x %zu, kind %d: %zu bytes", w, h,
                  p.channels, kind, length);
            free(bytes);
            char partial[1100];
            snprintf(partial, sizeof partial, "%s.partial", path);
            FILE *left = fopen(partial, "rb");
            CHECK(!left, "the temporary file was not removed");
            if (left) fclose(left);
            free(back);
            free(p.pixels);
        }
}

/* The bytes are the same on every machine: their hash is pinned. Only a deliberate change of the compressor may change
   it. */
void test_png_bytes(void)
{
    static const struct {
        int kind;
        size_t channels;
        uint64_t hash;
    } pinned[] = {{0, 3, UINT64_C(0xf90fa27c27caceb3)},
                  {1, 3, UINT64_C(0x15f3ee4c4d37b30b)},
                  {2, 3, UINT64_C(0xcc8915c8a9572171)},
                  {3, 1, UINT64_C(0xc81625037972775d)}};
    static const char *const text[] = {"seed", "42", "prompt", "sky sea", NULL};
    for (int i = 0; i < 4; i++) {
        flis_ctx ctx;
        size_t length;
        flis_init(&ctx);
        flis_picture p = painted(128, 96, pinned[i].channels, pinned[i].kind);
        const char *path = test_scratch("pinned.png");
        CHECK(flis_write_png(&ctx, path, &p, text), "%s", ctx.error);
        char *bytes = flis_read_file(&ctx, path, 1 << 24, &length);
        const uint64_t hash = bytes ? test_hash(bytes, length) : 0;
        CHECK(hash == pinned[i].hash, "kind %d: got 0x%016llx (%zu bytes), wanted 0x%016llx", pinned[i].kind,
              (unsigned long long)hash, length, (unsigned long long)pinned[i].hash);
        free(bytes);
        free(p.pixels);
    }
}

static bool contains(const char *bytes, size_t length, const char *part, size_t part_length)
{
    for (size_t i = 0; i + part_length <= length; i++)
        if (!memcmp(bytes + i, part, part_length)) return true;
    return false;
}

void test_png_text(void)
{
    static const char *const text[] = {"seed",  "42",        "prompt", "caf\xC3\xA9", "title", "\xE6\xB5\xB7", "odd",
                                       "a\xFF", "Two words", "",       NULL};
    static const char parts[5][40] = {"tEXtseed\00042", "tEXtprompt\0caf\xE9", "iTXttitle\0\0\0\0\0\xE6\xB5\xB7",
                                      "iTXtodd\0\0\0\0\0a\xEF\xBF\xBD", "tEXtTwo words\0"};
    static const size_t lengths[5] = {11, 15, 17, 16, 14};
    flis_ctx ctx;
    flis_init(&ctx);
    char types[64];
    size_t w, h, length;
    flis_picture p = painted(5, 4, 3, 1);
    const char *path = test_scratch("text.png");
    CHECK(flis_write_png(&ctx, path, &p, text), "%s", ctx.error);
    free(read_back(path, 3, &w, &h, types));
    CHECK(!strcmp(types, "IHDRtEXttEXtiTXtiTXttEXtIDATIEND"), "chunks %s", types);
    char *bytes = flis_read_file(&ctx, path, 1 << 24, &length);
    for (int i = 0; bytes && i < 5; i++) CHECK(contains(bytes, length, parts[i], lengths[i]), "text %d is missing", i);
    free(bytes);
    free(p.pixels);
}

void test_png_refuses_to_write(void)
{
    uint8_t pixel[4] = {0};
    static const char *const keys[] = {
        "",
        " a",
        "a ",
        "a  b",
        "a\nb",
        "caf\xE9",
        "12345678901234567890123456789012345678901234567890123456789012345678901234567890"};
    const flis_picture two = {1, 1, 2, pixel}, none = {0, 1, 3, pixel}, good = {1, 1, 3, pixel};
    flis_ctx ctx;
    flis_init(&ctx);
    const char *path = test_scratch("never.png");
    CHECK(!flis_write_png(&ctx, path, &two, NULL) &&
              strstr(ctx.error, "never.png: got a picture of 2 channels, wanted"),
          "\"%s\"", ctx.error);
    flis_init(&ctx);
    CHECK(!flis_write_png(&ctx, path, &none, NULL) && strstr(ctx.error, "got a picture of 0 x 1 pixels"), "\"%s\"",
          ctx.error);
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        const char *text[] = {keys[i], "x", NULL};
        flis_init(&ctx);
        CHECK(!flis_write_png(&ctx, path, &good, text) && strstr(ctx.error, "wanted 1 to 79 printable"), "%s: \"%s\"",
              keys[i], ctx.error);
    }
    FILE *left = fopen(path, "rb");
    CHECK(!left, "a file is left");
    if (left) fclose(left);
    flis_init(&ctx);
    CHECK(!flis_write_png(&ctx, test_scratch("absent/x.png"), &good, NULL) &&
              strstr(ctx.error, "x.png: cannot be written"),
          "\"%s\"", ctx.error);
}

/* ---- Layouts ----------------------------------------------------------------------------------------------------- */

#define PGM "P2 2 2 255 3 3 7 7\n"

static const char *layout_says(const char *json, flis_layout *layout, flis_ctx *ctx)
{
    text_file("label.pgm", PGM);
    flis_init(ctx);
    return flis_layout_read(ctx, text_file("layout.json", json), layout) ? "" : ctx->error;
}

static void phrases_are(const char *json, const char *wanted, bool label)
{
    flis_ctx ctx;
    flis_layout layout;
    char got[256] = "";
    CHECK(!*layout_says(json, &layout, &ctx), "%s: %s", json, ctx.error);
    for (size_t i = 0; i < layout.count; i++)
        snprintf(got + strlen(got), sizeof got - strlen(got), "%s=%d;", layout.phrase[i].text, layout.phrase[i].id);
    CHECK(!strcmp(got, wanted), "%s: got %s, wanted %s", json, got, wanted);
    CHECK((layout.label.width == 2 && layout.label.pixels && layout.label.pixels[2] == 7) == label, "%s: the label map",
          json);
    flis_layout_free(&layout);
    CHECK(!layout.count && !layout.phrase && !layout.label.pixels, "not empty after free");
}

void test_layout_reads(void)
{
    phrases_are(
        "{\"text_label_mapping\": {\"sky\": 3, \"sea\": 7, \"drawn by Van Gogh\": -1}, \"layout_path\": \"label.pgm\"}",
        "sky=3;sea=7;drawn by Van Gogh=-1;", true);
    phrases_are("{\"layout_path\": \"label.pgm\", \"note\": [1], \"text_label_mapping\": [[\"sea\", 7], [\"sky\", 0], "
                "[\"sea\", 255]]}",
                "sea=7;sky=0;sea=255;", true);
    phrases_are("{\"text_label_mapping\": {\"caf\\u00e9\": 1}}", "caf\xC3\xA9=1;", false);
    phrases_are("{\"text_label_mapping\": {}}", "", false);
    phrases_are("{\"text_label_mapping\": []}", "", false);
}

/* A Python dict keeps the position of the first and the value of the last. Wrong: both entries, or the position of the
   last. */
void test_layout_same_name_twice(void)
{
    phrases_are("{\"text_label_mapping\": {\"sea\": 1, \"sky\": 2, \"sea\": 3, \"sun\": 4, \"sky\": 5, \"sea\": 6}}",
                "sea=6;sky=5;sun=4;", false);
    phrases_are("{\"text_label_mapping\": {\"no\": 1}, \"text_label_mapping\": {\"sea\": 2}}", "sea=2;", false);
}

void test_layout_refuses(void)
{
    static const struct {
        const char *json, *wanted;
    } bad[] = {
        {"[]", ".json:1:1: got an array, wanted an object with text_label_mapping and layout_path"},
        {"{\"layout_path\": \"label.pgm\"}", ".json:1:1: text_label_mapping is missing"},
        {"{\"text_label_mapping\": 5}",
         ".json:1:24: text_label_mapping: got 5, wanted {\"phrase\": id, ...} or [[\"phrase\", id], ...]"},
        {"{\"text_label_mapping\": {\n  \"sea\": 256}}",
         ".json:2:10: phrase \"sea\": an id out of range: got 256, wanted an integer from -1 to 255"},
        {"{\"text_label_mapping\": {\"sea\": -2}}", "an id out of range: got -2, wanted"},
        {"{\"text_label_mapping\": {\"sea\": 1.5}}", "an id out of range: got 1.5, wanted an integer from -1"},
        {"{\"text_label_mapping\": {\"sea\": 1e3}}", "an id out of range: got 1e3, wanted"},
        {"{\"text_label_mapping\": {\"sea\": 18446744073709551617}}",
         "an id out of range: got 18446744073709551617, wanted"},
        {"{\"text_label_mapping\": {\"sea\": \"7\"}}",
         "phrase \"sea\": got \"7\" in quotes, wanted a class id: an integer from -1 to 255"},
        {"{\"text_label_mapping\": {\"sea\": 1, \"sea\": 300}}", "1:42: phrase \"sea\": an id out of range: got 300"},
        {"{\"text_label_mapping\": [[\"sea\", 1], \"sky\"]}", "1:37: got a string, wanted a pair [\"phrase\", id]"},
        {"{\"text_label_mapping\": [[\"sea\", 1, 2]]}", "1:25: got an array of another length, wanted a pair"},
        {"{\"text_label_mapping\": [[3, 1]]}", "1:26: got 3, wanted a phrase in quotes"},
        {"{\"text_label_mapping\": {\"a\\u0000b\": 1}}", "a phrase has a NUL character in it"},
        {"{\"text_label_mapping\": {\"a\": 1, \"a\\u0000b\": 1}}", "a phrase has a NUL character in it"},
        {"{\"text_label_mapping\": {}, \"layout_path\": null}",
         "1:43: layout_path: got null, wanted the name of a file"},
        {"{\"text_label_mapping\": {}, \"layout_path\": \"\"}",
         "layout_path: got an empty string or a NUL character, wanted"},
        {"{\"text_label_mapping\": {}, \"layout_path\": \"some/absent.png\"}",
         "1:43: layout_path: \"some/absent.png\" cannot be read, neither beside the JSON nor from the working "
         "directory, and no "
         "\"absent.png\" beside the JSON"},
        {"{\"text_label_mapping\": {\"sea\" 7}}", ".json:1:31: got '7', wanted ':'"},
        {"{\"text_label_mapping\": {}, \"layout_path\": \"layout.json\"}",
         "layout.json: got a JSON text, wanted a label map"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        flis_ctx ctx;
        flis_layout layout;
        const char *got = layout_says(bad[i].json, &layout, &ctx);
        CHECK(strstr(got, bad[i].wanted), "%s: got \"%s\", wanted \"%s\"", bad[i].json, got, bad[i].wanted);
        CHECK(!layout.count && !layout.phrase && !layout.label.pixels, "%s: a layout is left", bad[i].json);
    }
    char many[8 * 1001 + 40] = "{\"text_label_mapping\": [";
    for (int i = 0; i < 1001; i++) strcat(many, i ? ",[\"\",1]" : "[\"\",1]");
    flis_ctx ctx;
    flis_layout layout;
    CHECK(strstr(layout_says(strcat(many, "]}"), &layout, &ctx), "got 1001 phrases, wanted at most 1000"), "\"%s\"",
          ctx.error);
}

/* The authors write "examples/x.png" in examples/x.json and run their code in the parent folder. */
void test_layout_path(void)
{
    char json[1400];
    phrases_are("{\"text_label_mapping\": {}, \"layout_path\": \"examples/label.pgm\"}", "", true);
    phrases_are("{\"text_label_mapping\": {}, \"layout_path\": \"no/such/folder/label.pgm\"}", "", true);
    snprintf(json, sizeof json, "{\"text_label_mapping\": {}, \"layout_path\": \"%s\"}", test_scratch("label.pgm"));
    phrases_are(json, "", true);
}

static void collect(void *user, const char *sentence)
{
    strcat(strcat(user, sentence), "\n");
}

void test_layout_warnings(void)
{
    uint8_t pixels[64 * 64] = {0};
    char got[2048] = "";
    flis_phrase phrases[] = {{"sky", 0}, {"boat", 5}, {"style", -1}, {"rock", 9}, {"sun", 6}};
    flis_layout layout = {.count = 5, .phrase = phrases, .label = {64, 64, 1, pixels}};
    flis_ctx ctx;
    flis_init(&ctx);
    for (int i = 0; i < 64 * 64; i++)
        if (i % 64 >= 8 && i % 64 < 24 && i / 64 >= 8 && i / 64 < 24) pixels[i] = 5;
    pixels[33 * 64 + 33] = 6;
    flis_layout_warnings(&ctx, &layout, 512, 256, collect, got);
    CHECK(!strcmp(got, "phrase \"rock\" (id 9) has no cell at 512x256, 64x32, 32x16, 16x8, 8x4: it does nothing there\n"
                       "phrase \"sun\" (id 6) has no cell at 64x32, 32x16, 16x8, 8x4: it does nothing there\n"),
          "got %s", got);
    got[0] = 0;
    layout.count = 2;
    flis_layout_warnings(&ctx, &layout, 64, 64, collect, got);
    CHECK(!strcmp(got, "phrase \"boat\" (id 5) has no cell at 2x2, 1x1: it does nothing there\n"), "got %s", got);
    flis_layout_warnings(&ctx, &layout, 64, 64, NULL, NULL);
    layout.label.width = 0;
    got[0] = 0;
    flis_layout_warnings(&ctx, &layout, 64, 64, collect, got);
    CHECK(!got[0], "warned without a label map: %s", got);
}

/* ---- Two rules of nearest ---------------------------------------------------------------------------------------- */

/* Golden: the results of PIL and torch for the authors' layouts. Using one rule for both must give different grids.
   SPEC 15.4. */
void test_label_two_rules(void)
{
    static const char *const names[] = {"boat", "building", "flower"};
    for (int n = 0; n < 3; n++) {
        char key[40];
        size_t count = 0;
        snprintf(key, sizeof key, "%s.label512", names[n]);
        double *big = test_golden("golden/labels.safetensors", key, &count);
        uint8_t *label = malloc(512 * 512), *right = malloc(64 * 64), *wrong = malloc(64 * 64);
        for (size_t i = 0; big && i < 512 * 512 && i < count; i++) label[i] = (uint8_t)big[i];
        for (size_t s = 64; big && s >= 8; s /= 2) {
            snprintf(key, sizeof key, "%s.label%zu", names[n], s);
            double *wanted = test_golden("golden/labels.safetensors", key, &count);
            size_t bad = 0, other = 0;
            flis_label_torch(label, 512, 512, right, s, s);
            flis_label_pil(label, 512, 512, wrong, s, s);
            for (size_t i = 0; wanted && i < s * s; i++) {
                bad += right[i] != wanted[i];
                other += wrong[i] != wanted[i];
            }
            CHECK(wanted && count == s * s && !bad, "%s: %zu cells differ", key, bad);
            CHECK(other, "%s: PIL's rule in torch's place gives the same grid: the check is ineffective", key);
            free(wanted);
        }
        free(big);
        free(label);
        free(right);
        free(wrong);
    }
}

/* PIL's rule on a layout of our own: 8 rows of 10 pixels to 4 x 4. (2 i + 1) 10 / 8 = 1, 3, 6, 8; torch's 0, 2, 5, 7.
   And enlarging, where the two rules differ at odd ratios only: 3 to 7. */
void test_label_pil_rule(void)
{
    uint8_t in[80], pil[16], torch[16];
    static const uint8_t columns[2][4] = {{1, 3, 6, 8}, {0, 2, 5, 7}}, three[] = {0, 1, 2};
    for (int i = 0; i < 80; i++) in[i] = (uint8_t)i;
    flis_label_pil(in, 8, 10, pil, 4, 4);
    flis_label_torch(in, 8, 10, torch, 4, 4);
    for (int i = 0; i < 16; i++) {
        CHECK(pil[i] == (2 * (i / 4) + 1) * 10 + columns[0][i % 4], "PIL: cell %d is %d", i, pil[i]);
        CHECK(torch[i] == 2 * (i / 4) * 10 + columns[1][i % 4], "torch: cell %d is %d", i, torch[i]);
    }
    flis_label_pil(three, 1, 3, pil, 1, 7);
    flis_label_torch(three, 1, 3, torch, 1, 7);
    CHECK(!memcmp(pil, "\0\0\1\1\1\2\2", 7) && !memcmp(torch, "\0\0\0\1\1\2\2", 7), "3 to 7");
    flis_label_pil(in, 8, 10, pil, 1, 1);
    CHECK(pil[0] == 45, "1 x 1: %d", pil[0]);
}

/* ---- The pipeline ------------------------------------------------------------------------------------------------ */

/* Errors that are visible in the options alone are reported before any file is opened: the model and the vocabulary do
   not exist. */
void test_generate_refuses(void)
{
    static const struct {
        size_t width, height;
        double scale, eta;
        int steps;
        const char *noise, *wanted;
    } bad[] = {{512, 500, 2, 0, 50, NULL, "picture size: got 512x500, wanted multiples of 64"},
               {0, 512, 2, 0, 50, NULL, "got 0x512"},
               {8256, 64, 2, 0, 50, NULL, "from 64 to 8192"},
               {512, 512, NAN, 0, 50, NULL, "guidance scale: got "},
               {512, 512, HUGE_VAL, 0, 50, NULL, "guidance scale: got inf"},
               {64, 64, 2, 0, 27, NULL, "27"},
               {64, 64, 2, 0.5, 50, NULL, "eta"},
               {64, 64, 2, 0, 0, NULL, ""},
               {64, 64, 2, 0, 50, "absent.st", "absent.st: cannot be opened"},
               {64, 64, 2, 0, 50, NULL, "absent.safetensors: cannot be opened"}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        flis_ctx ctx;
        flis_options options;
        flis_layout layout = {0};
        flis_picture picture = {0};
        flis_init(&ctx);
        flis_options_default(&options);
        CHECK(options.width == 512 && options.height == 512 && options.seed == 42 &&
                  options.sampling.kind == FLIS_PLMS && options.sampling.steps == 50 && options.sampling.scale == 2 &&
                  options.sampling.eta == 0 && !options.no_layout,
              "the defaults differ from the authors'");
        options.width = bad[i].width;
        options.height = bad[i].height;
        options.sampling.scale = bad[i].scale;
        options.sampling.eta = bad[i].eta;
        options.sampling.steps = bad[i].steps;
        options.noise = bad[i].noise;
        bool ok = flis_generate(&ctx, test_scratch("absent.safetensors"), NULL, &layout, &options, &picture);
        CHECK(!ok && ctx.error[0] && strstr(ctx.error, bad[i].wanted), "got \"%s\", wanted \"%s\"", ctx.error,
              bad[i].wanted);
        CHECK(!picture.pixels, "a picture is left");
        flis_free(&ctx);
    }
}

typedef struct seen {
    char first[2][64], last[2][64];
    size_t count[2];
} seen;

static void note_name(void *user, const char *name, const flis_tensor *x)
{
    seen *s = user;
    const int which = !strncmp(name, "step.7.uncond.", 14);
    (void)x;
    if (!s->count[which]++) snprintf(s->first[which], 64, "%s", name);
    snprintf(s->last[which], 64, "%s", name);
    CHECK(which || !strncmp(name, "step.7.cond.", 12), "traced as %s", name);
}

/* The unconditional pass has no RCA, and both passes equal flis_unet_eps called directly. Wrong: the layout in both
   passes. SPEC 15.3. */
/* slow */
void test_guided_passes(void)
{
    enum { S = 8, N = 4 * S * S, D = 32 };
    static const flis_unet_config config = {4, 4, 32, 3, {1, 2, 2}, {true, true, true}, 1, 2, D, 32};
    static flis_real x[N], text[2][FLIS_TOKENS * D], eps[3][N], expected[N];
    static uint8_t label[64 * 64];
    static const float ids[] = {3, 7, -1, 9};
    const flis_rca rca = {label, 64, 64, ids, 4}, *rcas[1] = {&rca};
    const double t = 981;
    static seen names;
    flis_ctx ctx;
    flis_init(&ctx);
    for (int i = 0; i < N; i++) x[i] = (flis_real)((i * 7919 % 2003) / 1001.0 - 1);
    for (int i = 0; i < FLIS_TOKENS * D; i++) {
        text[0][i] = (flis_real)((i * 1009 % 1999) / 999.0 - 1);
        text[1][i] = (flis_real)((i * 1013 % 1997) / 998.0 - 1);
    }
    for (int i = 0; i < 64 * 64; i++) label[i] = i / 64 < 32 ? 3 : 7;
    flis_unet *unet = flis_unet_new(&ctx, &config);
    if (unet) flis_unet_walk(&ctx, unet, flis_formula_visit, NULL);
    CHECK(unet && flis_ok(&ctx), "%s", ctx.error);
    flis_guided guided = {unet, S, S, text[0], text[1], &rca};
    strcpy(ctx.scope, "step.7.");
    ctx.trace = note_name;
    ctx.trace_user = &names;
    const size_t used = ctx.arena.used;
    CHECK(flis_guided_eps(&ctx, &guided, x, 981, eps[0], eps[1]), "%s", ctx.error);
    CHECK(!strcmp(ctx.scope, "step.7.") && ctx.arena.used == used, "the scope is \"%s\", the arena holds %zu",
          ctx.scope, ctx.arena.used);
    CHECK(names.count[0] && names.count[0] == names.count[1] && !strcmp(names.last[1], "step.7.uncond.out"),
          "traced %zu and %zu, last %s", names.count[0], names.count[1], names.last[1]);
    ctx.trace = NULL;
    for (int pass = 0; pass < 3 && flis_ok(&ctx); pass++) { /* 2: RCA in the unconditional pass, a mistake */
        flis_tensor *context = flis_rows(&ctx, 1, FLIS_TOKENS, D);
        memcpy(context->x, text[pass > 0], sizeof text[0]);
        flis_tensor *y =
            flis_unet_eps(&ctx, unet, flis_from_nchw(&ctx, x, 1, 4, S, S), &t, context, pass == 1 ? NULL : rcas);
        CHECK(y, "%s", ctx.error);
        if (!y) break;
        flis_to_nchw(y, expected);
        bool same = !memcmp(expected, eps[pass > 0], sizeof expected);
        CHECK(same == (pass < 2), "pass %d: %s", pass, same ? "RCA made no difference" : "eps differs");
    }
    memcpy(expected, eps[0], sizeof expected);
    CHECK(flis_guided_eps(&ctx, &guided, x, 981, eps[2], NULL) && !memcmp(eps[2], expected, sizeof expected),
          "without guidance: %s", ctx.error);
    guided.uncond = NULL;
    CHECK(!flis_guided_eps(&ctx, &guided, x, 981, eps[0], eps[1]) && strstr(ctx.error, "empty prompt"), "\"%s\"",
          ctx.error);
    flis_unet_free(unet);
    flis_free(&ctx);
}
