/* folders.c - lists of files: a folder's, or the lines of a text file. */
#include "tools/common/common.h"

#include <stdlib.h>
#include <string.h>

void names_free(names *n)
{
    for (size_t i = 0; i < n->count; i++) free(n->name[i]);
    free(n->name);
    memset(n, 0, sizeof *n);
}

/* Adds the text folder + "/" + name; folder NULL: name alone. */
bool names_add(flis_ctx *ctx, names *n, const char *folder, const char *name_of, size_t length)
{
    if (n->count == n->room) {
        size_t room = n->room ? 2 * n->room : 64;
        char **grown = flis_alloc(ctx, room, sizeof *grown);
        if (!grown) return false;
        if (n->count) memcpy(grown, n->name, n->count * sizeof *grown);
        free(n->name);
        n->name = grown;
        n->room = room;
    }
    size_t head = folder ? strlen(folder) : 0;
    char *name = flis_alloc(ctx, head + length + 2, 1);
    if (!name) return false;
    if (folder) memcpy(name, folder, head), name[head++] = '/';
    memcpy(name + head, name_of, length);
    n->name[n->count++] = name;
    return true;
}

const char *const PICTURE_ENDINGS[] = {".png", ".jpg", ".jpeg", ".ppm", NULL}, *const LABEL_ENDINGS[] = {".png", ".pgm",
                                                                                                         NULL};

bool ends_in_any(const char *name, const char *const *endings)
{
    for (; *endings; endings++)
        if (ends_in(name, *endings)) return true;
    return false;
}

char *endings_text(const char *const *endings, char text[64])
{
    *text = 0;
    for (size_t i = 0; endings[i]; i++)
        text_append(text, 64, "%s%s", i == 0 ? "" : endings[i + 1] ? ", " : " or ", endings[i]);
    return text;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* The argument of add_entry. */
typedef struct listing {
    flis_ctx *ctx;
    const char *path, *const *endings;
    names *out;
} listing;

static void add_entry(void *user, const char *name)
{
    const listing *l = user;
    if (*name != '.' && ends_in_any(name, l->endings)) names_add(l->ctx, l->out, l->path, name, strlen(name));
}

bool list_folder(flis_ctx *ctx, const char *path, const char *const *endings, names *out)
{
    char text[64];
    listing l = {ctx, path, endings, out};
    if (!each_entry(path, add_entry, &l)) return false;
    if (out->count) qsort(out->name, out->count, sizeof *out->name, by_name);
    else flis_fail(ctx, "%s: the folder has no file that ends in %s", path, endings_text(endings, text));
    return true;
}

/* A folder's files, or the lines of a text file; *folder is true for a folder. */
bool list_files(flis_ctx *ctx, const char *path, const char *const *endings, names *out, bool *folder)
{
    *folder = list_folder(ctx, path, endings, out);
    if (*folder || !flis_ok(ctx)) return flis_ok(ctx);
    const char *what = flis_kind_text(flis_file_kind(path));
    if (what && flis_file_kind(path) != FLIS_KIND_EMPTY)
        return flis_fail(ctx, "%s: is %s, wanted a folder, or a text file with one path per line", path, what);
    size_t length;
    char *text = flis_read_file(ctx, path, 64u << 20, &length);
    for (size_t i = 0, stop; text && i < length && flis_ok(ctx); i = stop + 1) {
        const char *newline = memchr(text + i, '\n', length - i);
        stop = newline ? (size_t)(newline - text) : length;
        size_t used = stop - i;
        while (used && (text[i + used - 1] == '\r' || text[i + used - 1] == ' ')) used--;
        if (used) names_add(ctx, out, NULL, text + i, used);
    }
    free(text);
    if (flis_ok(ctx) && !out->count) flis_fail(ctx, "%s: the list is empty", path);
    return flis_ok(ctx);
}

/* A file's name without folder and ending. */
void name_stem(const char *path, const char **start, size_t *length)
{
    const char *slash = strrchr(path, '/');
    *start = slash ? slash + 1 : path;
    const char *dot_at = strrchr(*start, '.');
    *length = dot_at ? (size_t)(dot_at - *start) : strlen(*start);
}

/* The file of `in` with the stem of `like`; NULL: none. */
static const char *same_stem(const names *in, const char *like)
{
    const char *a, *b;
    size_t m, n;
    name_stem(like, &a, &m);
    for (size_t i = 0; i < in->count; i++) {
        name_stem(in->name[i], &b, &n);
        if (m == n && memcmp(a, b, n) == 0) return in->name[i];
    }
    return NULL;
}

/* The partner of file i: with the same stem if either side is a folder, else on the same line. */
const char *name_partner(flis_ctx *ctx, const names *of, size_t i, const names *in, bool folders, const char *where)
{
    if (!folders && of->count != in->count) {
        flis_fail(ctx, "%s: the list has %zu files, wanted %zu, as the other has", where, in->count, of->count);
        return NULL;
    }
    const char *found = folders ? same_stem(in, of->name[i]) : in->name[i];
    if (!found) flis_fail(ctx, "%s: no file belongs to %s", where, of->name[i]);
    return found;
}
