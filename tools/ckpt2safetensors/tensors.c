/* tensors.c - which tensors of a set of weights are written: all, without or in place of their averages. */
#include "tools/ckpt2safetensors/ckpt.h"

#include <stdlib.h>
#include <string.h>

/* LitEma (ldm/modules/ema.py) stores the average of model.X as model_ema. + X without dots. SPEC 10.7. */
static void ema_name(const char *name, char *out, size_t room)
{
    size_t used = (size_t)snprintf(out, room, "model_ema.");
    for (const char *p = name + strlen("model."); *p && used + 1 < room; p++)
        if (*p != '.') out[used++] = *p;
    out[used] = 0;
}

static bool starts(const char *text, const char *with)
{
    return strncmp(text, with, strlen(with)) == 0;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const ckpt_tensor *)a)->name, ((const ckpt_tensor *)b)->name);
}

/* Whether an inert value is in the place of a weight: its name is one of a module's, or the set has no names of modules and is not
   the root, where other things are too. */
static bool in_place_of_weight(const weight_set *s, const char *name)
{
    if (ends_in(name, "_extra_state")) return false;
    return strchr(name, '.') || ends_in(name, "weight") || ends_in(name, "bias") || (!s->dotted && !s->root);
}

static bool left_out(const conversion *o, const char *name)
{
    for (size_t i = 0; i < o->withouts; i++)
        if (glob_match(o->without[i], name)) return true;
    return false;
}

enum { LONGEST_NAME = 1000 };

/* Every tensor of the set, sorted by name. A duplicate is refused: Python would keep the last one. */
static ckpt_tensor *list_tensors(checkpoint *c, const conversion *o, const weight_set *s, size_t *count)
{
    size_t n = 0, others = 0, kept = 0;
    const char *other = NULL;
    ckpt_tensor *all = flis_alloc(c->ctx, s->count, sizeof *all);
    for (size_t i = 0; all && i < s->count; i++) {
        const bool weight = s->list[i].value->kind == TENSOR || in_place_of_weight(s, s->list[i].name);
        if (weight && s->list[i].nul)
            flis_fail(c->ctx, "%s: tensor %.200s: a NUL character in its name", c->path, s->list[i].name);
        if (weight && strlen(s->list[i].name) > LONGEST_NAME)
            flis_fail(c->ctx, "%s: tensor %.200s…: got a name of more than %d bytes", c->path, s->list[i].name,
                      LONGEST_NAME);
        if (weight) all[n++] = s->list[i];
        else if (!others++) other = s->list[i].name;
    }
    if (others)
        add_note(c, "left out %zu values that are not tensors: %.200s%s", others, other, others > 1 ? ", …" : "");
    if (all && flis_ok(c->ctx) && unwrap_names(c, all, n)) qsort(all, n, sizeof *all, by_name);
    for (size_t i = 0; all && i < n; i++)
        if (!left_out(o, all[i].name)) all[kept++] = all[i];
    for (size_t i = 1; all && i < kept; i++)
        if (strcmp(all[i - 1].name, all[i].name) == 0)
            flis_fail(c->ctx, "%s: tensor %.200s is duplicated", c->path, all[i].name);
    *count = kept;
    return all;
}

static size_t count_prefix(const ckpt_tensor *list, size_t count, const char *prefix)
{
    size_t found = 0;
    for (size_t i = 0; i < count; i++) found += starts(list[i].name, prefix);
    return found;
}

/* Averages whose model is not there: their names have no dots, and only the model's names say where those were. */
static bool averages_alone(const conversion *o, const ckpt_tensor *list, size_t count)
{
    const size_t averages = count_prefix(list, count, "model_ema.");
    if (!averages || count_prefix(list, count, "model.")) return false;
    return o->ema || (!o->all && (averages == count || count_prefix(list, count, "first_stage_model.") ||
                                  count_prefix(list, count, "cond_stage_model.")));
}

static bool refuse_adapter(checkpoint *c, const char *what)
{
    return flis_fail(c->ctx, "%s: is %s, wanted the checkpoint of a model", c->path, what);
}

/* What is no model but changes one (a LoRA, an embedding, a ControlNet…) is refused here, by the names of its tensors, as flis
   would refuse the converted file. */
static bool check_adapter(checkpoint *c, const ckpt_tensor *list, size_t count)
{
    flis_entry *entry = flis_alloc(c->ctx, count + 1, sizeof *entry);
    for (size_t i = 0; entry && i < count; i++) {
        const tensor *t = list[i].value->kind == TENSOR ? list[i].value->u.tensor : NULL;
        entry[i].name = (char *)list[i].name;
        entry[i].rank = t ? t->rank : 0;
        if (t) memcpy(entry[i].shape, t->shape, sizeof t->shape);
    }
    const flis_file file = {.count = entry ? count : 0, .entry = entry};
    const char *what = flis_model_adapter(&file);
    free(entry);
    return what ? refuse_adapter(c, what) : flis_ok(c->ctx);
}

/* The tensors that the options ask for. SPEC 10.7. */
static ckpt_tensor *choose(checkpoint *c, const conversion *o, size_t *count)
{
    size_t n = 0, averaged = 0, kept = 0;
    if (c->root->kind == DICT && dict_get(c->root, "string_to_param")) /* which has two sets: parameters and ids */
        return refuse_adapter(c, "a textual-inversion embedding (a word's features, not a model)"), NULL;
    const weight_set *set = find_weights(c, o);
    ckpt_tensor *all = set ? list_tensors(c, o, set, &n) : NULL;
    if (all && flis_ok(c->ctx)) check_adapter(c, all, n);
    if (all && flis_ok(c->ctx) && averages_alone(o, all, n))
        flis_fail(
            c->ctx,
            "%s: got the averages model_ema.* without the model.* that they are of, wanted both: the averages' names "
            "alone do not say which weights they are (--all keeps them as they are)",
            c->path);
    for (size_t i = 0; all && o->ema && i < n; i++) {
        char name[512];
        if (!starts(all[i].name, "model.")) continue;
        ema_name(all[i].name, name, sizeof name);
        const ckpt_tensor wanted = {name, NULL, false}, *average = bsearch(&wanted, all, n, sizeof *all, by_name);
        if (!average) continue;
        all[i].value = average->value;
        averaged++;
    }
    if (all && o->ema && !averaged) flis_fail(c->ctx, "%s: --ema: no model_ema.* tensors in it", c->path);
    for (size_t i = 0; all && i < n; i++)
        if (o->all || !starts(all[i].name, "model_ema.")) all[kept++] = all[i];
    if (all && !kept) flis_fail(c->ctx, "%s: no tensors in it", c->path);
    *count = kept;
    return all;
}

/* Views may repeat values (a stride of 0) and share storages: a small file must not expand into one that fills the disk. */
static bool check_size(checkpoint *c, const ckpt_tensor *list, size_t count)
{
    const uint64_t deflated = c->unpacked < 32 * c->size ? c->unpacked : 32 * c->size;
    const uint64_t most = 8 * (c->size + deflated) + ((uint64_t)16 << 20);
    uint64_t total = 0;
    for (size_t i = 0; i < count && total <= most; i++) {
        const tensor *t = list[i].value->u.tensor;
        uint64_t bytes = flis_dtype_size(t->dtype);
        for (int k = 0; k < t->rank; k++) bytes *= t->shape[k];
        total += bytes;
        if (total > most)
            flis_fail(c->ctx,
                      "%s: tensor %.200s: the tensors up to it would take %llu bytes, wanted at most 8 times the "
                      "file's and 16 MB",
                      c->path, list[i].name, (unsigned long long)total);
    }
    return flis_ok(c->ctx);
}

/* Every value to write is a tensor whose values are in the file. SPEC 10.7. */
static bool check_data(checkpoint *c, const ckpt_tensor *list, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        const value *v = list[i].value;
        const char *why = v->kind == TENSOR ? v->u.tensor->refused : NULL;
        if (v->kind == INERT)
            return flis_fail(
                c->ctx,
                "%s: tensor %.200s: is made by %s, which is not known and is never called, wanted a tensor of "
                "PyTorch (--without NAME leaves it out)",
                c->path, list[i].name, v->u.object->name);
        if (why)
            return flis_fail(c->ctx, "%s: tensor %.200s: %s (--without NAME leaves it out)", c->path, list[i].name,
                             why);
        if (!v->u.tensor->storage->located)
            return flis_fail(c->ctx, "%s: tensor %.200s: its data (storage %.200s) is missing", c->path, list[i].name,
                             v->u.tensor->storage->key);
    }
    return true;
}

ckpt_tensor *choose_tensors(checkpoint *c, const conversion *o, size_t *count)
{
    ckpt_tensor *list = choose(c, o, count);
    if (list && flis_ok(c->ctx) && check_data(c, list, *count) && check_size(c, list, *count)) return list;
    free(list);
    return NULL;
}
