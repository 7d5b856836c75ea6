/* text.c - text that programs write: growing buffers, JSON, HTML, base64, names, globs. */
#include "tools/common/common.h"

#include <stdlib.h>
#include <string.h>

void buffer_put_args(flis_ctx *ctx, buffer *b, const char *format, va_list args)
{
    va_list again;
    va_copy(again, args);
    const int length = vsnprintf(NULL, 0, format, again);
    va_end(again);
    if (length < 0 || !flis_ok(ctx)) return;
    if (b->room - b->length <= (size_t)length) {
        const size_t room = 2 * b->room + (size_t)length + 64;
        char *larger = flis_alloc(ctx, room, 1);
        if (!larger) return;
        if (b->length) memcpy(larger, b->at, b->length);
        free(b->at);
        b->at = larger;
        b->room = room;
    }
    vsnprintf(b->at + b->length, b->room - b->length, format, args);
    b->length += (size_t)length;
}

void buffer_put(flis_ctx *ctx, buffer *b, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    buffer_put_args(ctx, b, format, args);
    va_end(args);
}

void text_append(char *text, size_t room, const char *format, ...)
{
    const size_t used = strlen(text);
    va_list args;
    va_start(args, format);
    vsnprintf(text + used, room - used, format, args);
    va_end(args);
}

/* One byte of a JSON string; UTF-8 passes as it is. */
static const char *json_escape(unsigned char c, char out[8])
{
    if (c == '"' || c == '\\') snprintf(out, 8, "\\%c", c);
    else if (c < ' ') snprintf(out, 8, "\\u%04x", (unsigned)c);
    else snprintf(out, 8, "%c", c);
    return out;
}

void buffer_json_string(flis_ctx *ctx, buffer *b, const char *string)
{
    char one[8];
    buffer_put(ctx, b, "\"");
    for (; *string; string++) buffer_put(ctx, b, "%s", json_escape((unsigned char)*string, one));
    buffer_put(ctx, b, "\"");
}

void print_json_string(FILE *stream, const char *string)
{
    char one[8];
    putc('"', stream);
    for (; *string; string++) fputs(json_escape((unsigned char)*string, one), stream);
    putc('"', stream);
}

/* SPEC 9.2. */
void shortest_number(double x, char out[32])
{
    for (int digits = 1; digits <= 17; digits++) {
        snprintf(out, 32, "%.*g", digits, x);
        if (strtod(out, NULL) == x) return;
    }
}

void buffer_json_number(flis_ctx *ctx, buffer *b, double x, int digits)
{
    char number[32];
    if (x != x) buffer_put(ctx, b, "\"NaN\"");
    else if (x - x != 0) buffer_put(ctx, b, x > 0 ? "\"Infinity\"" : "\"-Infinity\"");
    else if (digits) buffer_put(ctx, b, "%.*g", digits, x);
    else {
        shortest_number(x, number);
        buffer_put(ctx, b, "%s", number);
    }
}

void print_json_number(FILE *stream, double x)
{
    char number[32] = "null";
    if (x - x == 0) shortest_number(x, number);
    fputs(number, stream);
}

void print_html(FILE *stream, const char *string)
{
    for (; *string; string++) switch (*string) {
        case '<': fputs("&lt;", stream); break;
        case '>': fputs("&gt;", stream); break;
        case '&': fputs("&amp;", stream); break;
        case '"': fputs("&quot;", stream); break;
        default: putc(*string, stream);
        }
}

/* RFC 3986: letters, digits and -._~ stand for themselves, and slashes separate. */
static void print_escaped(FILE *stream, const char *path)
{
    static const char PLAIN[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~";
    for (; *path; path++) {
        if (is_separator(*path)) putc('/', stream);
        else if (strchr(PLAIN, *path)) putc(*path, stream);
        else fprintf(stream, "%%%02X", (unsigned)(unsigned char)*path);
    }
}

void print_link(FILE *stream, const char *page, const char *file)
{
    char from[PATH_ROOM], to[PATH_ROOM];
    size_t same = 0; /* length of the folders that both are in */
    if (!absolute_path(page, from) || !absolute_path(file, to)) {
        print_escaped(stream, file);
        return;
    }
    for (size_t i = 0; from[i] && from[i] == to[i]; i++)
        if (is_separator(from[i])) same = i + 1;
    if (!same) fputs("file:///", stream); /* another drive */
    for (const char *c = from + same; same && *c; c++)
        if (is_separator(*c)) fputs("../", stream);
    print_escaped(stream, to + same);
}

static const char BASE64[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/* Four digits for n bytes, 1 to 3. */
static void base64_group(const uint8_t *bytes, size_t n, char out[5])
{
    const uint32_t bits = (uint32_t)bytes[0] << 16 | (n > 1 ? (uint32_t)bytes[1] << 8 : 0) | (n > 2 ? bytes[2] : 0);
    for (size_t k = 0; k < 4; k++) out[k] = k <= n ? BASE64[bits >> (18 - 6 * k) & 63] : '=';
    out[4] = 0;
}

void print_base64(FILE *stream, const uint8_t *bytes, size_t length)
{
    char group[5];
    for (size_t i = 0; i < length; i += 3) {
        base64_group(bytes + i, length - i < 3 ? length - i : 3, group);
        fputs(group, stream);
    }
}

void buffer_base64(flis_ctx *ctx, buffer *b, const uint8_t *bytes, size_t length)
{
    char *text = length < SIZE_MAX / 4 ? flis_alloc(ctx, (length + 2) / 3 * 4 + 1, 1) : NULL;
    for (size_t i = 0; text && i < length; i += 3)
        base64_group(bytes + i, length - i < 3 ? length - i : 3, text + i / 3 * 4);
    if (text) buffer_put(ctx, b, "%s", text);
    free(text);
}

uint8_t *base64_bytes(flis_ctx *ctx, const char *text, size_t *length)
{
    size_t digits = strlen(text);
    const bool whole = digits % 4 == 0;
    for (int i = 0; i < 2 && digits && text[digits - 1] == '='; i++) digits--;
    uint8_t *out = whole && digits % 4 != 1 ? flis_alloc(ctx, digits / 4 * 3 + 3, 1) : NULL;
    uint32_t bits = 0;
    *length = 0;
    for (size_t i = 0; out && i < digits; i++) {
        const char *digit = strchr(BASE64, text[i]);
        if (!digit) {
            free(out);
            return NULL;
        }
        bits = bits << 6 | (uint32_t)(digit - BASE64);
        if (i % 4) out[(*length)++] = (uint8_t)(bits >> (6 - 2 * (i % 4)));
    }
    return out;
}

void print_name(FILE *stream, const char *name)
{
    while (*name) {
        const size_t n = flis_printable(name);
        if (n) fwrite(name, 1, n, stream);
        else putc('?', stream);
        name += n ? n : 1;
    }
}

/* [abc], [a-z], [!a]: true if the set at *pattern (after its bracket) contains c. Moves *pattern past the set. */
static bool glob_set(const char **pattern, char c)
{
    const char *p = *pattern;
    bool invert = *p == '!', inside = false;
    if (invert) p++;
    const char *first = p;
    for (; *p && (*p != ']' || p == first); p++) {
        char low = *p, high = low;
        if (p[1] == '-' && p[2] && p[2] != ']') {
            high = p[2];
            p += 2;
        }
        inside = inside || (c >= low && c <= high);
    }
    *pattern = *p ? p + 1 : p;
    return inside != invert;
}

/* A later * makes an earlier one's choice final, so remembering one position to return to is enough. */
bool glob_match(const char *pattern, const char *string)
{
    const char *star = NULL, *resume = NULL;
    while (*string || *pattern) {
        const char *next = pattern + 1;
        if (*pattern == '*') {
            star = pattern++;
            resume = string;
            continue;
        }
        if (*string && *pattern &&
            (*pattern == '?' || (*pattern == '[' ? glob_set(&next, *string) : *pattern == *string))) {
            pattern = next;
            string++;
            continue;
        }
        if (!star || !*resume) return false;
        pattern = star + 1;
        string = ++resume;
    }
    return true;
}

bool ends_in(const char *string, const char *end)
{
    const size_t n = strlen(string), k = strlen(end);
    return n > k && strcmp(string + n - k, end) == 0;
}
