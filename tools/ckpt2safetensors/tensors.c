/* tensors.c - which tensors of a checkpoint are written: the dictionary's, without or in place of their averages. */
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

/* Every tensor of the dictionary, sorted by name. A duplicate is refused: Python would keep the last one. */
static ckpt_tensor *list_tensors(checkpoint *c, const value *dict, size_t *count)
{
    const size_t pairs = dict->u.list.count / 2;
    size_t n = 0;
    ckpt_tensor *all = flis_alloc(c->ctx, pairs, sizeof *all);
    for (size_t i = 0; all && i < pairs; i++) {
        const value *key = dict->u.list.item[2 * i], *v = dict->u.list.item[2 * i + 1];
        if (key->kind != TEXT || v->kind != TENSOR) continue;
        if (strlen(key->u.text.bytes) != key->u.text.length)
            flis_fail(c->ctx, "%s: tensor %.200s: a NUL character in its name", c->path, key->u.text.bytes);
        all[n++] = (ckpt_tensor){key->u.text.bytes, v};
    }
    if (all) qsort(all, n, sizeof *all, by_name);
    for (size_t i = 1; all && i < n; i++)
        if (strcmp(all[i - 1].name, all[i].name) == 0)
            flis_fail(c->ctx, "%s: tensor %.200s is duplicated", c->path, all[i].name);
    *count = n;
    return all;
}

/* The tensors that the options ask for. SPEC 10.7. */
static ckpt_tensor *choose(checkpoint *c, const conversion *o, size_t *count)
{
    static const char *const kinds[] = {"None",     "a boolean", "a number",     "a number", "a string",
                                        "a tuple",  "a list",    "a dictionary", "a global", "a storage",
                                        "a tensor", "an object", "a mark"};
    const value *dict = dict_get(c->root, "state_dict");
    size_t n = 0, averaged = 0, kept = 0;
    if (!dict) dict = c->root;
    if (dict->kind != DICT) {
        flis_fail(c->ctx, "%s: no dictionary of tensors in it: got %s", c->path, kinds[dict->kind]);
        return NULL;
    }
    ckpt_tensor *all = list_tensors(c, dict, &n);
    for (size_t i = 0; all && o->ema && i < n; i++) {
        char name[512];
        if (!starts(all[i].name, "model.")) continue;
        ema_name(all[i].name, name, sizeof name);
        const ckpt_tensor wanted = {name, NULL}, *average = bsearch(&wanted, all, n, sizeof *all, by_name);
        if (!average) continue;
        all[i].tensor = average->tensor;
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
    const uint64_t most = 8 * c->size + ((uint64_t)16 << 20);
    uint64_t total = 0;
    for (size_t i = 0; i < count && total <= most; i++) {
        const value *v = list[i].tensor;
        uint64_t bytes = flis_dtype_size(v->u.tensor.storage->dtype);
        for (int k = 0; k < v->u.tensor.rank; k++) bytes *= v->u.tensor.shape[k];
        total += bytes;
        if (total > most)
            flis_fail(c->ctx,
                      "%s: tensor %.200s: the tensors up to it would take %llu bytes, wanted at most 8 times the "
                      "file's and 16 MB",
                      c->path, list[i].name, (unsigned long long)total);
    }
    return flis_ok(c->ctx);
}

static bool check_data(checkpoint *c, const ckpt_tensor *list, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        const storage *s = list[i].tensor->u.tensor.storage;
        if (!s->located)
            return flis_fail(c->ctx, "%s: tensor %.200s: its data (storage %.200s) is missing", c->path, list[i].name,
                             s->key);
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
