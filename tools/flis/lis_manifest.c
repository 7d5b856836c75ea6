/* lis_manifest.c - the record of `flis lis`: a table of what is finished, after lines that say what the run is made with. Each shard
 * writes its own table and reads those of all, so that a picture is painted once, however the work is divided.
 */
#include "tools/flis/lis.h"

#include <stdlib.h>
#include <string.h>

static const char TITLE[] = "# manifest of flis lis";
static const char COLUMNS[] = "picture\tprompt\tseed\tshard\tdigest\tseconds";

/* ---- Settings -------------------------------------------------------------------------------------------------------- */

static void put_setting(lis *l, const char *key, const char *format, ...)
{
    va_list args;
    buffer_put(&l->j->ctx, &l->settings, "# %s\t", key);
    va_start(args, format);
    buffer_put_args(&l->j->ctx, &l->settings, format, args);
    va_end(args);
    buffer_put(&l->j->ctx, &l->settings, "\n");
}

/* With noise that is drawn for batches, a picture depends on its place in the list. */
static void list_digest(const lis *l, char hex[65])
{
    flis_sha256 sum;
    flis_sha256_begin(&sum);
    for (size_t i = 0; i < l->list.count; i++) {
        const char *name = l->picture[i].name;
        flis_sha256_add(&sum, name, strlen(name));
        flis_sha256_add(&sum, "\n", 1);
    }
    flis_sha256_end(&sum, hex);
}

static void classes_digest(const lis *l, char hex[65])
{
    flis_sha256 sum;
    flis_sha256_begin(&sum);
    for (int i = 0; i < CLASS_LABELS; i++) {
        const char *name = l->set.classes.name[i] ? l->set.classes.name[i] : "";
        flis_sha256_add(&sum, name, strlen(name));
        flis_sha256_add(&sum, l->set.is_void[i] ? "\t" : "\n", 1);
    }
    flis_sha256_end(&sum, hex);
}

/* Everything that a picture depends on, besides its label map. */
static bool put_settings(lis *l)
{
    const job *j = l->j;
    const flis_options *o = &j->options;
    char list[65], classes[65], eta[32], scale[32];
    list_digest(l, list);
    classes_digest(l, classes);
    shortest_number(o->sampling.eta, eta);
    shortest_number(o->sampling.scale, scale);
    put_setting(l, "edition", "%d %s", FLIS_EDITION, flis_dtype_name(real_type()));
    put_setting(l, "model", "%s", j->with.model_sha256);
    if (*j->with.vae_sha256) put_setting(l, "vae", "%s", j->with.vae_sha256);
    if (*j->with.configuration) put_setting(l, "configuration", "%s", j->with.configuration);
    put_setting(l, "vocab", "%s", j->with.vocab_sha256);
    put_setting(l, "classes", "%s", classes);
    put_setting(l, "list", "%s", list);
    put_setting(l, "size", "%zux%zu", o->width, o->height);
    put_setting(l, "sampler", "%s", o->sampling.kind == FLIS_PLMS ? "plms" : "ddim");
    put_setting(l, "steps", "%d", o->sampling.steps);
    put_setting(l, "eta", "%s", eta);
    put_setting(l, "scale", "%s", scale);
    put_setting(l, "seed", "%llu", (unsigned long long)j->set.seed);
    put_setting(l, "rng", "%s", o->rng == FLIS_RNG_CPU ? "cpu" : "cuda");
    if (j->set.by_picture) put_setting(l, "noise", "by picture");
    else
        put_setting(l, "noise", "batches of %llu%s", (unsigned long long)j->set.batch,
                    j->set.fixed_code ? ", fixed code" : "");
    put_setting(l, "format", "%s", j->set.format == FORMAT_JPEG ? "jpg" : "png");
    return flis_ok(&j->ctx);
}

/* ---- Reading --------------------------------------------------------------------------------------------------------- */

typedef struct line {
    const char *at;
    size_t length;
} line;

/* The next line of a text; false: none. */
static bool next_line(const char **text, const char *end, line *out)
{
    if (*text >= end) return false;
    const char *stop = memchr(*text, '\n', (size_t)(end - *text));
    if (!stop) stop = end;
    *out = (line){*text, (size_t)(stop - *text)};
    if (out->length && out->at[out->length - 1] == '\r') out->length--;
    *text = stop + 1;
    return true;
}

static bool line_is(line l, const char *text)
{
    return l.length == strlen(text) && memcmp(l.at, text, l.length) == 0;
}

/* What follows the tab in a line "# KEY<tab>VALUE"; the whole line where it is not one. */
static line value_of(line l)
{
    const char *tab = memchr(l.at, '\t', l.length);
    return tab ? (line){tab + 1, l.length - (size_t)(tab + 1 - l.at)} : l;
}

/* The lines of settings must be ours, one by one. */
static bool check_settings(lis *l, const char *path, const char **text, const char *end)
{
    enum { SHOWN = 120 };
    flis_ctx *ctx = &l->j->ctx;
    const char *ours = l->settings.at, *stop = ours + l->settings.length;
    line a, b;
    while (next_line(&ours, stop, &b)) {
        if (!next_line(text, end, &a)) return flis_fail(ctx, "%s: ends within its settings", path);
        if (a.length == b.length && memcmp(a.at, b.at, a.length) == 0) continue;
        const line got = value_of(a), wanted = value_of(b);
        const size_t key = b.length - wanted.length > 3 ? b.length - wanted.length - 3 : 0;
        return flis_fail(ctx,
                         "%s: is the record of another run: %.*s: got %.*s, wanted %.*s: give another --outdir, or "
                         "remove its pictures and manifests",
                         path, (int)key, b.at + 2, (int)(got.length < SHOWN ? got.length : SHOWN), got.at,
                         (int)(wanted.length < SHOWN ? wanted.length : SHOWN), wanted.at);
    }
    return true;
}

static lis_picture *find_picture(const lis *l, const char *name, size_t length)
{
    size_t low = 0, high = l->list.count;
    while (low < high) {
        const size_t middle = (low + high) / 2;
        lis_picture *p = &l->picture[l->by_name[middle]];
        const int order = strncmp(p->name, name, length);
        if (order == 0 && !p->name[length]) return p;
        if (order < 0) low = middle + 1;
        else high = middle;
    }
    return NULL;
}

/* Splits a row at its tabs. */
static size_t columns_of(line l, line *out, size_t room)
{
    size_t count = 0;
    for (const char *at = l.at, *end = l.at + l.length; count < room; count++) {
        const char *tab = memchr(at, '\t', (size_t)(end - at));
        out[count] = (line){at, (size_t)((tab ? tab : end) - at)};
        if (!tab) return count + 1;
        at = tab + 1;
    }
    return room + 1;
}

static bool take_row(lis *l, const char *path, size_t number, line row)
{
    enum { PICTURE, PROMPT, SEED, SHARD, DIGEST, SECONDS, COUNT };
    flis_ctx *ctx = &l->j->ctx;
    line column[COUNT];
    char seconds[32] = "";
    if (columns_of(row, column, COUNT) != COUNT || column[DIGEST].length != 64 || column[SECONDS].length > 31 ||
        column[SHARD].length > 31)
        return flis_fail(ctx, "%s:%zu: is no row of a manifest", path, number);
    lis_picture *p = find_picture(l, column[PICTURE].at, column[PICTURE].length);
    if (!p) return true; /* of a longer list, with noise by picture */
    memcpy(seconds, column[SECONDS].at, column[SECONDS].length);
    memcpy(p->digest, column[DIGEST].at, 64);
    memset(p->shard, 0, sizeof p->shard);
    memcpy(p->shard, column[SHARD].at, column[SHARD].length);
    if (!parse_number(seconds, &p->seconds)) p->seconds = 0;
    free(p->text);
    if (!(p->text = flis_alloc(ctx, column[PROMPT].length + 1, 1))) return false;
    memcpy(p->text, column[PROMPT].at, column[PROMPT].length);
    p->recorded = true;
    return true;
}

static bool read_manifest(lis *l, const char *path)
{
    flis_ctx *ctx = &l->j->ctx;
    size_t length = 0, number = 2;
    char *text = flis_read_file(ctx, path, (size_t)1 << 30, &length);
    const char *at = text, *end = text ? text + length : text;
    line row = {"", 0};
    if (!text) return false;
    for (size_t i = 0; i < l->settings.length; i++) number += l->settings.at[i] == '\n';
    if (!next_line(&at, end, &row) || !line_is(row, TITLE)) flis_fail(ctx, "%s: is no manifest of flis lis", path);
    else if (check_settings(l, path, &at, end) && (!next_line(&at, end, &row) || !line_is(row, COLUMNS)))
        flis_fail(ctx, "%s:%zu: got \"%.*s\", wanted the names of the columns", path, number,
                  (int)(row.length < 80 ? row.length : 80), row.at);
    while (flis_ok(ctx) && next_line(&at, end, &row))
        if (row.length) take_row(l, path, ++number, row);
    free(text);
    return flis_ok(ctx);
}

/* The argument of see_manifest. */
typedef struct manifests {
    flis_ctx *ctx;
    const char *folder;
    names found;
} manifests;

static void see_manifest(void *user, const char *name)
{
    manifests *m = user;
    if (strncmp(name, "manifest", 8) == 0 && ends_in(name, ".tsv"))
        names_add(m->ctx, &m->found, m->folder, name, strlen(name));
}

/* A picture counts as finished if its file has the digest of the record. */
static bool check_picture(lis *l, lis_picture *p, bool any_manifest)
{
    flis_ctx *ctx = &l->j->ctx;
    char path[PATH_ROOM], digest[65];
    if (snprintf(path, sizeof path, "%s/%s", l->j->set.outdir, p->name) >= PATH_ROOM)
        return flis_fail(ctx, "%.100s…: the name is too long", path);
    const file_kind kind = kind_of_file(path);
    if (kind == FILE_FOLDER || kind == FILE_SPECIAL) return flis_fail(ctx, "%s: is no regular file", path);
    if (kind == FILE_ABSENT) return true;
    if (!any_manifest)
        return flis_fail(ctx,
                         "%s: is there already, and no manifest of flis lis says that it may be replaced: give "
                         "another --outdir",
                         path);
    if (!p->recorded) return true;
    if (!file_digest(ctx, path, digest)) return false;
    if (strcmp(digest, p->digest) == 0) p->state = PICTURE_DONE;
    return true;
}

bool lis_manifest_read(lis *l)
{
    flis_ctx *ctx = &l->j->ctx;
    const settings *s = &l->j->set;
    manifests m = {ctx, s->outdir, {0, 0, NULL}};
    buffer path = {NULL, 0, 0};
    if (!put_settings(l)) return false;
    if (s->shards > 1)
        buffer_put(ctx, &path, "%s/manifest-%llu-of-%llu.tsv", s->outdir, (unsigned long long)s->shard,
                   (unsigned long long)s->shards);
    else buffer_put(ctx, &path, "%s/manifest.tsv", s->outdir);
    l->manifest = path.at;
    each_entry(s->outdir, see_manifest, &m);
    for (size_t i = 0; i < m.found.count && flis_ok(ctx); i++) read_manifest(l, m.found.name[i]);
    for (size_t i = l->first; i < l->list.count && flis_poll(ctx); i += l->step)
        check_picture(l, &l->picture[i], m.found.count > 0);
    names_free(&m.found);
    return flis_ok(ctx);
}

/* ---- Writing --------------------------------------------------------------------------------------------------------- */

static void put_row(flis_ctx *ctx, buffer *b, const lis_picture *p)
{
    char seconds[32];
    snprintf(seconds, sizeof seconds, "%.3f", p->seconds);
    buffer_put(ctx, b, "%s\t%s\t%llu\t%s\t%s\t%s\n", p->name, p->text ? p->text : "", (unsigned long long)p->seed,
               p->shard, p->digest, seconds);
}

bool lis_manifest_write(lis *l, bool now)
{
    flis_ctx plain = FLIS_CTX_PLAIN;
    buffer text = {NULL, 0, 0};
    if (!now && l->recorded > 0 && seconds_now() - l->recorded < 1) return true;
    buffer_put(&plain, &text, "%s\n%s%s\n", TITLE, l->settings.at, COLUMNS);
    for (size_t i = l->first; i < l->list.count; i += l->step)
        if (l->picture[i].state == PICTURE_DONE) put_row(&plain, &text, &l->picture[i]);
    if (flis_ok(&plain)) output_write(&plain, l->manifest, text.at, text.length);
    free(text.at);
    l->recorded = seconds_now();
    return flis_ok(&plain) || flis_fail(&l->j->ctx, "%s", plain.error);
}
