/* outputs.c - files that programs write: completely or not at all, and never over what is read. */
#include "tools/common/common.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Opens the output for a moment. A pipe is not opened: its reader would take the close for the end of the data. */
static bool try_output(flis_ctx *ctx, const char *path, char **partial)
{
    flis_output o;
    *partial = NULL;
    if (strcmp(path, "-") != 0 && is_pipe(path)) {
        ignore_broken_pipes();
        return flis_ok(ctx);
    }
    const bool good = flis_output_open(ctx, path, &o) != NULL;
    if (good && o.partial) *partial = path_with(ctx, o.partial, "");
    else if (good) ignore_broken_pipes(); /* a sentence in place of a silent end */
    flis_output_abort(&o);
    return good && flis_ok(ctx);
}

bool output_check(flis_ctx *ctx, const char *path)
{
    char *partial;
    const bool good = try_output(ctx, path, &partial);
    free(partial);
    return good;
}

bool binary_check(flis_ctx *ctx, const char *path)
{
    if (!path || !leads_to_terminal(path)) return flis_ok(ctx);
    return flis_fail(ctx, "%s: is a terminal, and binary data would go to it; wanted a file or a pipe", path);
}

bool output_write(flis_ctx *ctx, const char *path, const void *bytes, size_t length)
{
    flis_output o;
    FILE *stream = flis_output_open(ctx, path, &o);
    errno = 0;
    if (stream && fwrite(bytes, 1, length, stream) != length)
        flis_fail(ctx, "%s: cannot be written: %s", path, errno ? strerror(errno) : "the disk may be full");
    return flis_output_close(ctx, &o);
}

bool output_remove(const char *path)
{
    flis_ctx ctx = FLIS_CTX_PLAIN;
    char *partial, target[PATH_ROOM];
    const bool kept = kind_of_file(path) == FILE_REGULAR && try_output(&ctx, path, &partial) && partial;
    if (!kept) return false; /* a pipe, a device, a redirected standard output */
    free(partial);
    return resolve_links(path, target) && remove(target) == 0;
}

/* ---- No output over an input --------------------------------------------------------------------------------------- */

/* A file that will be written. */
typedef struct target {
    char key[KEY_ROOM];
    const char *path; /* as it was given */
} target;

typedef struct targets {
    flis_ctx *ctx;
    target *at; /* sorted by key */
    size_t count;
    bool exist; /* any of them: otherwise no folder needs a search */
} targets;

static int by_key(const void *a, const void *b)
{
    return strcmp(((const target *)a)->key, ((const target *)b)->key);
}

static const target *find_target(const targets *t, const char *key)
{
    target wanted;
    snprintf(wanted.key, sizeof wanted.key, "%s", key);
    return t->count ? bsearch(&wanted, t->at, t->count, sizeof *t->at, by_key) : NULL;
}

static void add_target(targets *t, const char *path)
{
    target *next = &t->at[t->count];
    const bool standard = strcmp(path, "-") == 0;
    next->path = path;
    t->exist = t->exist || kind_of_file(path) != FILE_ABSENT;
    if (file_key(standard ? "/dev/stdout" : path, next->key)) t->count++;
    else if (standard) strcpy(t->at[t->count++].key, "-");
}

/* The name that the bytes of an output have until they are complete must not be that of another output. */
static bool check_partial(const targets *t, const target *one)
{
    char key[KEY_ROOM], *partial;
    try_output(t->ctx, one->path, &partial);
    const target *other = partial && file_key(partial, key) ? find_target(t, key) : NULL;
    if (other)
        flis_fail(t->ctx, "%s: is where %s is kept until it is complete; wanted another name", other->path, one->path);
    free(partial);
    return flis_ok(t->ctx);
}

static bool check_pairs(const targets *t)
{
    for (size_t i = 1; i < t->count; i++) {
        const char *a = t->at[i - 1].path, *b = t->at[i].path;
        if (strcmp(t->at[i - 1].key, t->at[i].key) != 0) continue;
        if (strcmp(a, b) == 0) return flis_fail(t->ctx, "%s: is named for two outputs", a);
        return flis_fail(t->ctx, "%s and %s: are one file, named for two outputs", a, b);
    }
    return true;
}

static bool check_input(const targets *t, const char *path)
{
    char key[KEY_ROOM];
    const target *same = file_key(path, key) ? find_target(t, key) : NULL;
    if (!same) return true;
    if (strcmp(same->path, path) == 0)
        return flis_fail(t->ctx, "%s: the output is the input; wanted another file", path);
    return flis_fail(t->ctx, "%s: the output is the input %s; wanted another file", same->path, path);
}

/* A folder that is being searched for targets. */
typedef struct search {
    const targets *t;
    const char *folder;
    int depth;
} search;

static void search_folder(const targets *t, const char *folder, int depth);

static void search_entry(void *user, const char *name)
{
    const search *s = user;
    char path[PATH_ROOM];
    if (!flis_ok(s->t->ctx) || strcmp(name, ".") == 0 || strcmp(name, "..") == 0 ||
        snprintf(path, sizeof path, "%s/%s", s->folder, name) >= PATH_ROOM)
        return;
    const file_kind kind = kind_of_file(path);
    if (kind == FILE_FOLDER) search_folder(s->t, path, s->depth + 1);
    else if (kind == FILE_REGULAR) check_input(s->t, path);
}

/* Models and data sets have two levels of folders; a link may lead back to a folder above. */
static void search_folder(const targets *t, const char *folder, int depth)
{
    enum { DEEPEST = 3 };
    search s = {t, folder, depth};
    if (t->exist && depth < DEEPEST) each_entry(folder, search_entry, &s);
}

static bool check_targets(targets *t, const char *const *in, size_t inputs, const char *const *out, size_t outputs)
{
    t->at = flis_alloc(t->ctx, outputs + 1, sizeof *t->at);
    if (!t->at) return false;
    for (size_t i = 0; i < outputs; i++)
        if (out[i]) add_target(t, out[i]);
    qsort(t->at, t->count, sizeof *t->at, by_key);
    check_pairs(t);
    for (size_t i = 0; i < inputs && flis_ok(t->ctx); i++) {
        if (!in[i]) continue;
        if (kind_of_file(in[i]) == FILE_FOLDER) search_folder(t, in[i], 0);
        else check_input(t, in[i]);
    }
    return flis_ok(t->ctx);
}

bool outputs_apart(flis_ctx *ctx, const char *const *in, size_t inputs, const char *const *out, size_t outputs)
{
    targets t = {.ctx = ctx};
    const bool good = check_targets(&t, in, inputs, out, outputs);
    free(t.at);
    return good;
}

bool outputs_check(flis_ctx *ctx, const char *const *in, size_t inputs, const char *const *out, size_t outputs)
{
    targets t = {.ctx = ctx};
    bool good = flis_ok(ctx);
    for (size_t i = 0; i < outputs && good; i++) good = !out[i] || output_check(ctx, out[i]);
    good = good && check_targets(&t, in, inputs, out, outputs);
    for (size_t i = 0; i < t.count && good; i++) good = check_partial(&t, &t.at[i]);
    free(t.at);
    return good;
}
