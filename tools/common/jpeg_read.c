/* jpeg_read.c - reads JPEG files (ITU-T T.81): baseline, extended and progressive with Huffman codes and 8 bits. The pixels equal
 * those of PIL with libjpeg-turbo, Image.open(file).convert("RGB"), to the byte; EXIF's orientation is ignored, as there. This
 * file reads the markers. Arithmetic coding, 12 bits, lossless and hierarchical files are refused.
 */
#include "tools/common/jpeg.h"

#include <stdlib.h>
#include <string.h>

enum { SCANS = 1000 }; /* at most: a small file could otherwise keep the reader busy for hours */

bool jpeg_damaged(jpeg_reader *r, const char *format, ...)
{
    char what[200];
    va_list args;
    va_start(args, format);
    vsnprintf(what, sizeof what, format, args);
    va_end(args);
    return flis_fail(r->ctx, "%s: damaged JPEG: %s", r->name, what);
}

static bool ends_early(jpeg_reader *r)
{
    r->over = true;
    return r->complete ? false : jpeg_damaged(r, "it ends early");
}

/* ---- Markers ----------------------------------------------------------------------------------------------------------- */

/* SPEC 16.1 */
bool jpeg_next_marker(jpeg_reader *r)
{
    do {
        while (r->at < r->end && *r->at != 0xFF) r->at++;
        while (r->at < r->end && *r->at == 0xFF) r->at++;
        if (r->at == r->end) return ends_early(r);
        r->marker = *r->at++;
    } while (!r->marker);
    return true;
}

static unsigned two_bytes(const uint8_t *b)
{
    return (unsigned)b[0] << 8 | b[1];
}

static bool bad_length(jpeg_reader *r, const char *what)
{
    return jpeg_damaged(r, "the length of %s is wrong", what);
}

/* The parameters after a marker: a length of two bytes, which counts itself, then the rest. Lengths below 2 mean none.
   SPEC 16.1. */
static bool segment(jpeg_reader *r, const uint8_t **at, size_t *length)
{
    if (r->end - r->at < 2) return ends_early(r);
    const size_t size = two_bytes(r->at), left = (size_t)(r->end - r->at);
    *at = r->at + 2;
    *length = size < 2 ? 0 : size - 2;
    if (size > left && r->complete) r->over = true;
    else if (size > left) return ends_early(r);
    r->at += size < 2 ? 2 : r->over ? left : size;
    return size >= 2 || (r->marker != JPEG_DQT && r->marker != JPEG_DHT && r->marker != JPEG_DAC) ||
           bad_length(r, "a table");
}

/* T.81 B.2.4.1. SPEC 16.1. */
static bool read_quantisation(jpeg_reader *r, const uint8_t *at, size_t length)
{
    while (length > 0) {
        const size_t wide = at[0] >> 4 ? 2 : 1, index = at[0] & 15;
        if (index >= JPEG_TABLES) return jpeg_damaged(r, "it defines quantisation table %zu", index);
        if (length < 1 + 64 * wide) return bad_length(r, "a quantisation table");
        for (size_t i = 0; i < 64; i++)
            r->quant[index][JPEG_ZIGZAG[i]] = (uint16_t)(wide == 2 ? two_bytes(at + 1 + 2 * i) : at[1 + i]);
        r->quant_defined[index] = true;
        at += 1 + 64 * wide;
        length -= 1 + 64 * wide;
    }
    return true;
}

/* T.81 B.2.4.2. SPEC 16.1. */
static bool read_huffman(jpeg_reader *r, const uint8_t *at, size_t length)
{
    while (length > 16) {
        size_t count = 0;
        const size_t index = at[0] & ~0x10u;
        jpeg_huffman *h = (at[0] & 0x10 ? r->ac : r->dc) + (index < JPEG_TABLES ? index : 0);
        if (index >= JPEG_TABLES) return jpeg_damaged(r, "it defines Huffman table %d", at[0]);
        for (size_t i = 1; i <= 16; i++) count += at[i];
        if (count > 256 || count + 17 > length) return bad_length(r, "a Huffman table");
        memset(h, 0, sizeof *h);
        h->defined = true;
        memcpy(h->counts + 1, at + 1, 16);
        memcpy(h->symbols, at + 17, count);
        at += 17 + count;
        length -= 17 + count;
    }
    return !length || bad_length(r, "the Huffman tables");
}

/* Conditioning of arithmetic coding (T.81 B.2.4.3). Only its faults matter; `there` of its bytes are in the file. */
static bool read_conditioning(jpeg_reader *r, const uint8_t *at, size_t length, size_t there)
{
    for (size_t i = 0; i + 2 <= there && i < length; i += 2)
        if (at[i] >= 32 || (at[i] < 16 && (at[i + 1] & 15) > at[i + 1] >> 4))
            return jpeg_damaged(r, "conditioning %d of arithmetic coding", at[i]);
    return length % 2 == 0 || bad_length(r, "the conditioning of arithmetic coding");
}

/* SPEC 16.1 */
static bool read_restart_interval(jpeg_reader *r, const uint8_t *at, size_t length)
{
    if (length != 2) return bad_length(r, "the restart interval");
    r->restart_interval = two_bytes(at);
    return true;
}

/* JFIF and Adobe's marker before the first scan say what the colours are. PIL refuses short ones there. SPEC 16.1. */
static bool read_application(jpeg_reader *r, const uint8_t *at, size_t length)
{
    const bool jfif = r->marker == JPEG_APP0 && length >= 4 && memcmp(at, "JFIF", 4) == 0,
               adobe = r->marker == JPEG_APP14 && length >= 5 && memcmp(at, "Adobe", 5) == 0;
    if (r->scans) return true;
    if ((jfif || adobe) && length < 7) return bad_length(r, jfif ? "the JFIF marker" : "Adobe's marker");
    if (jfif && length >= 14 && !at[4]) r->jfif = true;
    if (adobe && length >= 12) {
        r->adobe = true;
        r->transform = at[11];
    }
    return true;
}

/* ---- The frame ----------------------------------------------------------------------------------------------------------- */

/* What kind of JPEG a start of frame means, if it is not one of those that are read; NULL: it is. SPEC 16.6. */
static const char *refused(int marker, int bits)
{
    const int kind = marker - JPEG_SOF0;
    if (kind >= 8) return "uses arithmetic coding";
    if (kind >= 4) return "is hierarchical";
    if (kind == 3) return "is lossless";
    return bits == 8 ? NULL : bits == 12 ? "has 12 bits per sample" : "does not have 8 bits per sample";
}

/* T.81 B.2.2. SPEC 16.1. */
static bool read_frame(jpeg_reader *r, const uint8_t *at, size_t length)
{
    enum { SIDE = 65500, PIXELS = 1 << 26 }; /* libjpeg's limit, and that of pictures from PNG */
    const char *no = refused(r->marker, length ? at[0] : 0);
    if (no)
        return flis_fail(r->ctx, "%s: this JPEG %s; wanted Huffman coding with 8 bits, baseline or progressive",
                         r->name, no);
    if (r->framed) return jpeg_damaged(r, "it has two frames");
    if (length < 6) return bad_length(r, "the frame");
    r->progressive = r->marker == JPEG_SOF0 + 2;
    r->height = two_bytes(at + 1);
    r->width = two_bytes(at + 3);
    r->count = at[5];
    if (r->count != 1 && r->count != 3 && r->count != 4)
        return flis_fail(r->ctx, "%s: this JPEG has %d components, wanted 1, 3 or 4", r->name, r->count);
    if (length != 6 + 3 * (size_t)r->count) return bad_length(r, "the frame");
    if (!r->width || !r->height || r->width > SIDE || r->height > SIDE || r->width * r->height > PIXELS)
        return flis_fail(r->ctx, "%s: got %zu x %zu pixels, wanted sides of 1 to %d and at most %d pixels", r->name,
                         r->width, r->height, SIDE, PIXELS);
    for (int i = 0; i < r->count; i++) {
        jpeg_component *c = &r->component[i];
        const uint8_t *from = at + 6 + 3 * i;
        *c = (jpeg_component){.id = from[0], .h = from[1] >> 4, .v = from[1] & 15, .quant_index = from[2]};
        for (int k = 0; k < 64; k++) c->known[k] = c->before[k] = -1;
        if (c->h < 1 || c->h > 4 || c->v < 1 || c->v > 4)
            return jpeg_damaged(r, "component %d has sampling factors %d x %d", c->id, c->h, c->v);
        r->h_max = c->h > r->h_max ? c->h : r->h_max;
        r->v_max = c->v > r->v_max ? c->v : r->v_max;
    }
    return r->framed = true;
}

static size_t divide_up(size_t a, size_t b)
{
    return (a + b - 1) / b;
}

/* T.81 A.1.1: a component has ceil(X H / H_max) samples in a row, and with several components the MCUs are filled up.
   SPEC 16.1. */
static bool allocate(jpeg_reader *r)
{
    const size_t h_max = (size_t)r->h_max, v_max = (size_t)r->v_max, mcu_columns = divide_up(r->width, 8 * h_max),
                 mcu_rows = divide_up(r->height, 8 * v_max);
    r->several_scans = r->progressive || r->scan_count < r->count;
    for (int i = 0; i < r->count; i++) {
        jpeg_component *c = &r->component[i];
        const size_t h = (size_t)c->h, v = (size_t)c->v;
        c->width = divide_up(r->width * h, h_max);
        c->height = divide_up(r->height * v, v_max);
        c->columns = divide_up(r->width * h, 8 * h_max);
        c->rows = divide_up(r->height * v, 8 * v_max);
        c->room_columns = mcu_columns * h;
        c->room_rows = mcu_rows * v;
        c->samples = flis_alloc(r->ctx, c->room_columns * c->room_rows, 64);
        if (r->several_scans)
            c->coefficients = flis_alloc(r->ctx, c->room_columns * c->room_rows, 64 * sizeof *c->coefficients);
    }
    return flis_ok(r->ctx);
}

/* ---- Scans --------------------------------------------------------------------------------------------------------------- */

/* Sets component i of the scan. Of components with equal ids, libjpeg takes the first whose place in the scan's list is still free.
   SPEC 16.1. */
static bool find_component(jpeg_reader *r, int i, int id)
{
    int k = 0;
    while (k < r->count && (r->component[k].id != id || k < i)) k++;
    for (int j = 0; j < i && k < r->count; j++)
        if (r->scan_component[j] == k) k = r->count;
    if (k == r->count) return jpeg_damaged(r, "a scan of component %d, which the frame does not have once", id);
    r->scan_component[i] = k;
    return true;
}

/* T.81 B.2.3. SPEC 16.1. */
static bool read_scan_header(jpeg_reader *r, const uint8_t *at, size_t length)
{
    if (!r->framed) return jpeg_damaged(r, "a scan comes before the frame");
    r->scan_count = length ? at[0] : 0;
    if (r->scan_count < 1 || r->scan_count > JPEG_COMPONENTS || length != 4 + 2 * (size_t)r->scan_count)
        return bad_length(r, "a scan's header");
    for (int i = 0; i < r->scan_count; i++) {
        const int tables = at[2 + 2 * i];
        if (!find_component(r, i, at[1 + 2 * i])) return false;
        r->component[r->scan_component[i]].dc_index = tables >> 4;
        r->component[r->scan_component[i]].ac_index = tables & 15;
    }
    at += 1 + 2 * r->scan_count;
    r->first = at[0];
    r->last = at[1];
    r->high = at[2] >> 4;
    r->low = at[2] & 15;
    if (++r->scans > SCANS) return flis_fail(r->ctx, "%s: this JPEG has more than %d scans", r->name, SCANS);
    return true;
}

/* Parameters that the file's end cuts short, after the whole picture: libjpeg has seen what is wrong in those that are
   there. SPEC 16.6. */
static bool check_cut(jpeg_reader *r, const uint8_t *at, size_t length)
{
    const size_t left = (size_t)(r->end - at);
    const int m = r->marker;
    for (size_t i = 0; m == JPEG_DQT && i < left; i += at[i] >> 4 ? 129 : 65)
        if ((at[i] & 15) >= JPEG_TABLES) return bad_length(r, "a quantisation table");
    for (size_t i = 0, count = 0; m == JPEG_DHT && i + 17 <= left; i += 17 + count) {
        count = 0;
        for (size_t k = 1; k <= 16; k++) count += at[i + k];
        if (count > 256 || i + 17 + count > length || (i + 17 + count <= left && (at[i] & ~0x10u) >= JPEG_TABLES))
            return bad_length(r, "a Huffman table");
    }
    if (m == JPEG_SOS && left > 0) {
        const int count = at[0];
        if (count < 1 || count > JPEG_COMPONENTS || length != 4 + 2 * (size_t)count)
            return bad_length(r, "a scan's header");
        for (int i = 0; i < count && 3 + 2 * (size_t)i <= left; i++)
            if (!find_component(r, i, at[1 + 2 * i])) return false;
    }
    if (m == JPEG_DAC && !read_conditioning(r, at, length - length % 2, left)) return false;
    if (m == JPEG_DRI && length != 2) return bad_length(r, "the restart interval");
    if (m >= JPEG_SOF0 && m <= JPEG_SOF15 && m != JPEG_DHT && m != JPEG_DAC && left >= 6)
        return jpeg_damaged(r, "it has two frames");
    return false;
}

/* One marker with its parameters. SPEC 16.1. */
static bool read_marker(jpeg_reader *r)
{
    const uint8_t *at = NULL;
    size_t length = 0;
    const int m = r->marker;
    const bool frame = m >= JPEG_SOF0 && m <= JPEG_SOF15 && m != JPEG_DHT && m != JPEG_DAC;
    if (m == JPEG_EOI || (m == JPEG_TEM && r->scans) || (m >= JPEG_RST0 && m <= JPEG_RST7)) return true;
    if (m == JPEG_SOI) return jpeg_damaged(r, "it starts twice");
    if (m < JPEG_SOF0 || m == JPEG_JPG || (m > JPEG_DRI && m < JPEG_APP0) || (m > JPEG_APP15 && m != JPEG_COM) ||
        (frame && r->complete && m > JPEG_SOF0 + 2 && m != JPEG_SOF0 + 9 && m != JPEG_SOF0 + 10))
        return jpeg_damaged(r, "unknown marker %02X", (unsigned)m);
    if (!segment(r, &at, &length)) return false;
    if (r->over) return check_cut(r, at, length);
    if (m == JPEG_DQT) return read_quantisation(r, at, length);
    if (m == JPEG_DHT) return read_huffman(r, at, length);
    if (m == JPEG_DRI) return read_restart_interval(r, at, length);
    if (m == JPEG_DAC) return read_conditioning(r, at, length, length);
    if (m == JPEG_SOS) return read_scan_header(r, at, length);
    if (frame) return read_frame(r, at, length);
    return m < JPEG_APP0 || m > JPEG_APP15 || read_application(r, at, length);
}

/* Reads up to a scan's data or the end of the picture. */
static bool read_markers(jpeg_reader *r)
{
    for (int m = 0; m != JPEG_SOS && m != JPEG_EOI;) {
        if (!r->marker && !jpeg_next_marker(r)) return false;
        m = r->marker;
        if (!read_marker(r)) return false;
        r->marker = 0;
        r->ended = m == JPEG_EOI;
    }
    return true;
}

/* ---- The file -------------------------------------------------------------------------------------------------------------- */

/* A file without tables is taken to mean the typical ones. SPEC 16.1. */
static void default_tables(jpeg_reader *r)
{
    for (int i = 0; i < 2 && !r->progressive; i++) {
        if (!r->dc[i].defined) r->dc[i] = JPEG_STANDARD_DC[i];
        if (!r->ac[i].defined) r->ac[i] = JPEG_STANDARD_AC[i];
    }
}

static bool read_scans(jpeg_reader *r)
{
    while (!r->ended)
        if (!jpeg_scan(r) || !read_markers(r)) return false;
    jpeg_transform(r);
    return flis_ok(r->ctx);
}

/* A scan that is the whole picture. What follows in the piece of the file that PIL has read by then may be missing, but it must
   not be damaged, and it must not be another scan. SPEC 16.6. */
static bool read_scan(jpeg_reader *r)
{
    if (!jpeg_scan(r)) return false;
    const size_t pieces = ((size_t)(r->at - r->start) + JPEG_PIECE - 1) / JPEG_PIECE * JPEG_PIECE;
    if (pieces < (size_t)(r->end - r->start)) r->end = r->start + pieces;
    r->complete = true;
    if (!read_markers(r)) return flis_ok(r->ctx);
    return r->ended || jpeg_damaged(r, "a scan follows the whole picture");
}

/* Up to the first scan. A picture may follow the end of another one that had only tables (T.81 B.5). SPEC 16.1. */
static bool read_header(jpeg_reader *r)
{
    do {
        if (r->end - r->at < 3) return ends_early(r);
        if (memcmp(r->at, "\xFF\xD8\xFF", r->at == r->start ? 3 : 2) != 0)
            return r->at == r->start ? flis_fail(r->ctx, "%s: wanted a JPEG: it does not start as one", r->name)
                                     : jpeg_damaged(r, "it has only tables");
        r->at += 2;
        r->jfif = r->adobe = r->ended = false;
        r->restart_interval = 0;
        if (!read_markers(r)) return false;
        if (r->ended && r->framed) return jpeg_damaged(r, "it ends without a scan");
    } while (r->ended);
    return true;
}

static bool read_file(jpeg_reader *r, const uint8_t *bytes, size_t length)
{
    r->start = r->at = bytes;
    r->end = bytes + length;
    if (!read_header(r)) return false;
    default_tables(r);
    if (!allocate(r)) return false;
    return r->several_scans ? read_scans(r) : read_scan(r);
}

bool read_jpeg_memory(flis_ctx *ctx, const char *name, const uint8_t *bytes, size_t length, flis_picture *out)
{
    memset(out, 0, sizeof *out);
    jpeg_reader *r = flis_alloc(ctx, 1, sizeof *r);
    if (!r) return false;
    r->ctx = ctx;
    r->name = name;
    if (read_file(r, bytes, length)) {
        *out = (flis_picture){r->width, r->height, 3, flis_alloc(ctx, r->width * 3, r->height)};
        if (out->pixels && !jpeg_colours(r, out->pixels)) flis_picture_free(out);
    }
    for (int i = 0; i < JPEG_COMPONENTS; i++) {
        free(r->component[i].samples);
        free(r->component[i].coefficients);
    }
    free(r);
    return flis_ok(ctx);
}
