/* classes.c - lists of classes: a label, a tab, a name on each line. Lists of data sets come in many forms, and a list that is
 * misread trains every region on another word; therefore a line of any other form is refused.
 */
#include "tools/common/common.h"

#include <stdlib.h>
#include <string.h>

void classes_free(class_names *c)
{
    for (size_t i = 0; i < CLASS_LABELS; i++) free(c->name[i]);
    memset(c, 0, sizeof *c);
}

/* A piece of a text, not terminated. */
typedef struct piece {
    const char *at;
    size_t length;
} piece;

/* Without the blanks around it. */
static piece trim(piece p)
{
    while (p.length && (p.at[p.length - 1] == ' ' || p.at[p.length - 1] == '\t')) p.length--;
    while (p.length && *p.at == ' ') p.at++, p.length--;
    return p;
}

/* The text up to the next tab; *rest: what follows it. */
static piece column(piece line, piece *rest)
{
    const char *tab = memchr(line.at, '\t', line.length);
    const size_t length = tab ? (size_t)(tab - line.at) : line.length;
    *rest = (piece){line.at + length + (tab != NULL), line.length - length - (tab != NULL)};
    return trim((piece){line.at, length});
}

static bool only(piece p, const char *characters)
{
    for (size_t i = 0; i < p.length; i++)
        if (!strchr(characters, p.at[i])) return false;
    return p.length > 0;
}

/* The label, at most 255; -1: none. */
static int label_of(piece p)
{
    int label = 0;
    if (!only(p, "0123456789")) return -1;
    for (size_t i = 0; i < p.length; i++) {
        label = label * 10 + (p.at[i] - '0');
        if (label >= CLASS_LABELS) return -1;
    }
    return label;
}

/* What a person should know who has a list of a data set that is often at hand. */
static const char *hint(piece line, piece name)
{
    const char *colon = memchr(line.at, ':', line.length);
    if (colon && only((piece){line.at, (size_t)(colon - line.at)}, "0123456789"))
        return "; where this is COCO-Stuff's labels.txt: its numbers are by one higher than the labels in "
               "stuffthingmaps, where 0 is person and 255 is void";
    if ((line.length > 3 && memcmp(line.at, "Idx", 3) == 0) ||
        (memchr(name.at, '.', name.length) && only(name, "0123456789.")))
        return "; of ADE20K's objectInfo150.txt keep the columns Idx and Name";
    return "";
}

static bool printable(piece p)
{
    char text[8] = "";
    for (size_t i = 0, n; i < p.length; i += n) {
        const size_t left = p.length - i < sizeof text - 1 ? p.length - i : sizeof text - 1;
        memcpy(text, p.at + i, left);
        text[left] = 0;
        if (!(n = flis_printable(text))) return false;
    }
    return true;
}

/* line: without its end. line_of: the line that gave each label, 0: none. */
static bool read_line(flis_ctx *ctx, const char *path, size_t number, piece line, size_t *line_of, class_names *out)
{
    piece rest;
    line = trim(line);
    if (!line.length || *line.at == '#') return true;
    const piece first = column(line, &rest), name = column(rest, &rest);
    const int label = label_of(first), shown = (int)(first.length < 60 ? first.length : 60);
    if (label < 0 || !name.length || (memchr(name.at, '.', name.length) && only(name, "0123456789.")))
        return flis_fail(ctx, "%s:%zu: got \"%.*s%s%.*s\", wanted a label from 0 to 255, a tab and a name: 7<tab>sea%s",
                         path, number, shown, first.at, name.length ? "<tab>" : "",
                         (int)(name.length < 60 ? name.length : 60), name.at, hint(line, name));
    if (!printable(name))
        return flis_fail(ctx, "%s:%zu: the name of label %d is not UTF-8, or has control characters", path, number,
                         label);
    if (line_of[label])
        return flis_fail(ctx, "%s:%zu: label %d is given twice, first in line %zu", path, number, label,
                         line_of[label]);
    line_of[label] = number;
    if (!(out->name[label] = flis_alloc(ctx, name.length + 1, 1))) return false;
    memcpy(out->name[label], name.at, name.length);
    out->count++;
    return true;
}

bool text_check(flis_ctx *ctx, const char *path, const char **text, size_t *length)
{
    const unsigned char *b = (const unsigned char *)*text;
    if (*length >= 2 && ((b[0] == 0xFF && b[1] == 0xFE) || (b[0] == 0xFE && b[1] == 0xFF)))
        return flis_fail(ctx, "%s: is UTF-16, wanted UTF-8", path);
    if (memchr(*text, 0, *length)) return flis_fail(ctx, "%s: has NUL bytes, wanted a text in UTF-8", path);
    if (*length >= 3 && memcmp(*text, "\xEF\xBB\xBF", 3) == 0) *text += 3, *length -= 3;
    return flis_ok(ctx);
}

bool classes_parse(flis_ctx *ctx, const char *path, const char *text, size_t length, class_names *out)
{
    size_t line_of[CLASS_LABELS] = {0}, number = 0;
    memset(out, 0, sizeof *out);
    if (!text_check(ctx, path, &text, &length)) return false;
    for (size_t i = 0, stop; i < length && flis_ok(ctx); i = stop + 1) {
        for (stop = i; stop < length && text[stop] != '\n' && text[stop] != '\r'; stop++) continue;
        read_line(ctx, path, ++number, (piece){text + i, stop - i}, line_of, out);
        if (stop + 1 < length && text[stop] == '\r' && text[stop + 1] == '\n') stop++;
    }
    if (flis_ok(ctx) && !out->count) flis_fail(ctx, "%s: has no class, wanted lines of label, tab, name", path);
    if (!flis_ok(ctx)) classes_free(out);
    return flis_ok(ctx);
}

bool classes_read(flis_ctx *ctx, const char *path, class_names *out)
{
    size_t length;
    memset(out, 0, sizeof *out);
    char *text = flis_read_file(ctx, path, (size_t)1 << 20, &length);
    const bool good = text && classes_parse(ctx, path, text, length, out);
    free(text);
    return good;
}
