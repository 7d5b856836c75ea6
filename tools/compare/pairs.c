/* pairs.c - the tensors of both files that take part, in order of execution, and which belong together. */
#include "tools/compare/compare.h"

#include <stdlib.h>
#include <string.h>

static int by_offset(const void *a, const void *b)
{
    const struct named *x = a, *y = b;
    if (x->entry->shard != y->entry->shard) return x->entry->shard < y->entry->shard ? -1 : 1;
    if (x->entry->begin != y->entry->begin) return x->entry->begin < y->entry->begin ? -1 : 1;
    return strcmp(x->name, y->name); /* empty tensors begin where their neighbours do */
}

static int by_path(const void *a, const void *b)
{
    const struct named *x = a, *y = b;
    const int order = path_order(behind_model(x->name), behind_model(y->name));
    return order ? order : strcmp(x->name, y->name);
}

/* Sorted by name within each dtype: how PyTorch's safetensors writer leaves its tensors. */
static bool sorted_by_name(const side *s)
{
    for (size_t i = 1; i < s->count; i++)
        if (s->item[i].entry->dtype == s->item[i - 1].entry->dtype &&
            strcmp(s->item[i - 1].entry->name, s->item[i].entry->name) > 0)
            return false;
    return s->count > 1;
}

static bool side_open(flis_ctx *ctx, side *s, const char *path, const char *prefix, const char *match,
                      const rename_map *map)
{
    if (!digest_open(ctx, path, s) && (!flis_ok(ctx) || !(s->file = flis_file_open(ctx, path)))) return false;
    if (!(s->item = flis_alloc(ctx, s->file->count + 1, sizeof *s->item))) return false;
    for (size_t i = 0; i < s->file->count; i++) {
        const char *name = s->file->entry[i].name;
        if (prefix && !skip_prefix(&name, prefix)) continue;
        if (match && !glob_match(match, name)) continue;
        struct named *n = &s->item[s->count];
        n->entry = &s->file->entry[i];
        if (!(n->name = map ? map_name(ctx, map, name) : copy_text(ctx, name))) return false;
        s->count++;
    }
    qsort(s->item, s->count, sizeof *s->item, by_offset);
    s->by_name = sorted_by_name(s);
    if (s->by_name) qsort(s->item, s->count, sizeof *s->item, by_path);
    for (size_t i = 0; i < s->count; i++) s->item[i].order = i;
    return true;
}

void side_close(side *s)
{
    for (size_t i = 0; i < s->count; i++) free(s->item[i].name);
    free(s->item);
    free(s->samples);
    flis_file_close(s->file);
}

typedef struct keyed {
    const char *key;
    size_t index;
} keyed;
static int by_key(const void *a, const void *b)
{
    return strcmp(((const keyed *)a)->key, ((const keyed *)b)->key);
}

static const char *whole_name(const char *name)
{
    return name;
}

/* Pairs what is not yet paired and has the same key, where only one tensor on each side has it. */
static bool pair_by(comparison *c, const char *(*key)(const char *name))
{
    size_t refs = 0, others = 0;
    keyed *r = flis_alloc(&c->ctx, c->count + 1, sizeof *r), *o = flis_alloc(&c->ctx, c->other.count + 1, sizeof *o);
    for (size_t i = 0; r && o && i < c->count; i++)
        if (!c->pair[i].other) r[refs++] = (keyed){key(c->pair[i].ref->name), i};
    for (size_t i = 0; r && o && i < c->other.count; i++)
        if (!c->other.item[i].taken) o[others++] = (keyed){key(c->other.item[i].name), i};
    if (refs) qsort(r, refs, sizeof *r, by_key);
    if (others) qsort(o, others, sizeof *o, by_key);
    for (size_t i = 0, k = 0; i < refs && k < others;) {
        const int order = strcmp(r[i].key, o[k].key);
        size_t same_r = 1, same_o = 1;
        while (i + same_r < refs && strcmp(r[i].key, r[i + same_r].key) == 0) same_r++;
        while (k + same_o < others && strcmp(o[k].key, o[k + same_o].key) == 0) same_o++;
        if (order == 0 && same_r == 1 && same_o == 1) {
            c->pair[r[i].index].other = &c->other.item[o[k].index];
            c->other.item[o[k].index].taken = true;
        }
        if (order <= 0) i += same_r;
        if (order >= 0) k += same_o;
    }
    free(r);
    free(o);
    return flis_ok(&c->ctx);
}

static int by_other_order(const void *a, const void *b)
{
    const pair *x = a, *y = b;
    const size_t i = x->other ? x->other->order : (size_t)-1, k = y->other ? y->other->order : (size_t)-1;
    if (i != k) return i < k ? -1 : 1;
    return x->ref->order < y->ref->order ? -1 : 1;
}

/* Counts what is left in OTHER; with --match, only what would have matched. */
static void count_extra(comparison *c)
{
    for (size_t i = 0; i < c->other.count; i++) {
        struct named *n = &c->other.item[i];
        if (!n->taken && c->o.match && !glob_match(c->o.match, n->name)) n->taken = true;
        c->extra += !n->taken;
    }
}

static bool sides_open(comparison *c)
{
    const options *o = &c->o;
    rename_map map = {0};
    if ((!o->map || map_read(&c->ctx, o->map, &map)) &&
        side_open(&c->ctx, &c->ref, o->path[0], o->ref_prefix, o->match, NULL))
        side_open(&c->ctx, &c->other, o->path[1], o->other_prefix, NULL, &map);
    map_free(&map);
    if (flis_ok(&c->ctx) && !c->ref.count)
        return flis_fail(&c->ctx, "%s: no tensor to compare%s%s", o->path[0], o->match ? ": none matches " : "",
                         o->match ? o->match : "");
    return flis_ok(&c->ctx);
}

bool pairs_make(comparison *c)
{
    const options *o = &c->o;
    if (!sides_open(c) || !(c->pair = flis_alloc(&c->ctx, c->ref.count, sizeof *c->pair))) return false;
    c->count = c->ref.count;
    for (size_t i = 0; i < c->count; i++) c->pair[i].ref = &c->ref.item[i];
    if (!pair_by(c, whole_name) || !pair_by(c, behind_model) || !pair_by(c, behind_scope)) return false;
    size_t paired = 0;
    for (size_t i = 0; i < c->count; i++) paired += c->pair[i].other != NULL;
    if (!paired)
        return flis_fail(&c->ctx, "%s: none of its %zu tensors has a name of %s's (see --map)", o->path[1],
                         c->other.count, o->path[0]);
    if (c->ref.by_name && !c->other.by_name) {
        qsort(c->pair, c->count, sizeof *c->pair, by_other_order);
        c->order = "OTHER's file (REF's is sorted by name)";
    } else if (c->ref.by_name) c->order = "the modules' paths (both files are sorted by name)";
    count_extra(c);
    return true;
}
