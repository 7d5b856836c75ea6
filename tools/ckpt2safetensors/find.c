/* find.c - where in a checkpoint the weights are: dictionaries and modules of named tensors, under whatever key. */
#include "tools/ckpt2safetensors/ckpt.h"

#include <stdlib.h>
#include <string.h>

enum { DEEPEST = 32, DEEPEST_MODULE = 64, MOST_ATTRIBUTES = 1 << 22, MOST_SETS = 1 << 16 };

/* The way from the root to a value. */
typedef struct step {
    const struct step *up;
    const value *key; /* of a dictionary; NULL: `index` */
    size_t index;
} step;

typedef struct finder {
    checkpoint *c;
    weight_set *set; /* in the pool */
    size_t count, room;
    size_t attributes; /* of the modules seen so far */
    bool optimizer;    /* the last dictionary seen is an optimizer's */
    const char *inert; /* what made the first inert value that has a name like a weight's */
} finder;

static value *list_of(value *v)
{
    return v && v->kind == DICT ? v : v && v->kind == INERT ? v->u.object->items : NULL;
}

/* The attributes of an object: its state, or the first part of (state, slots). */
static value *state_of(const value *v)
{
    value *state = v && v->kind == INERT ? v->u.object->state : NULL;
    if (state && state->kind == TUPLE && state->u.list.count) state = state->u.list.item[0];
    return list_of(state);
}

static bool is_module(const value *v)
{
    value *state = state_of(v);
    if (!state) return false;
    if (state->module_state == MODULE_UNKNOWN)
        state->module_state = dict_get(state, "_parameters") && dict_get(state, "_modules") ? MODULE_YES : MODULE_NO;
    return state->module_state == MODULE_YES;
}

static void print_step(const step *s, char *out, size_t room)
{
    if (s->up) print_step(s->up, out, room);
    if (!s->up) return;
    const char *dot = *out ? "." : "";
    if (!s->key) text_append(out, room, "%s%zu", dot, s->index);
    else if (s->key->kind == TEXT) text_append(out, room, "%s%.200s", dot, s->key->u.text.bytes);
    else text_append(out, room, "%s%lld", dot, s->key->kind == INT ? (long long)s->key->u.integer : -1);
}

/* Keys under which Lightning and others keep what is not the model: what holds anything, and an optimizer's averages. */
static bool beside_key(const value *key)
{
    static const char *const keys[] = {"hyper_parameters", "hparams",        "datamodule_hyper_parameters",
                                       "callbacks",        "loops",          "lr_schedulers",
                                       "lr_scheduler",     "scheduler",      "args",
                                       "config",           "rng_states",     "opt",
                                       "exp_avg",          "exp_avg_sq",     "max_exp_avg_sq",
                                       "momentum",         "momentum_buffer"};
    if (!key || key->kind != TEXT) return false;
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        if (strcmp(key->u.text.bytes, keys[i]) == 0) return true;
    return strncmp(key->u.text.bytes, "optim", 5) == 0; /* optimizer, optimizer_states, optim_state_dict, … */
}

static bool beside(const step *s)
{
    while (s && !beside_key(s->key)) s = s->up;
    return s != NULL;
}

static weight_set *new_set(finder *f, const step *where)
{
    pool *p = &f->c->pool;
    char path[1024] = "";
    if (f->count == MOST_SETS) {
        flis_fail(f->c->ctx, "%s: more than %d dictionaries of tensors", f->c->path, MOST_SETS);
        return NULL;
    }
    if (f->count == f->room) {
        const size_t room = f->room ? 2 * f->room : 16;
        weight_set *grown = pool_grow(f->c->ctx, p, f->set, f->count * sizeof *grown, room * sizeof *grown);
        if (!grown) return NULL;
        f->set = grown;
        f->room = room;
    }
    print_step(where, path, sizeof path);
    weight_set *s = &f->set[f->count];
    *s = (weight_set){.path = pool_text(f->c->ctx, p, "%s", path), .root = !where->up, .beside = beside(where)};
    return s->path ? s : NULL;
}

static void add_entry(finder *f, weight_set *s, const char *name, const value *v)
{
    if (s->count == s->room) {
        const size_t room = s->room ? 2 * s->room : 16;
        ckpt_tensor *grown = pool_grow(f->c->ctx, &f->c->pool, s->list, s->count * sizeof *grown, room * sizeof *grown);
        if (!grown) return;
        s->list = grown;
        s->room = room;
    }
    s->list[s->count++] = (ckpt_tensor){name, v, false};
    if (v->kind != TENSOR) return;
    s->tensors++;
    s->dotted = s->dotted || strchr(name, '.');
    s->known = s->known || known_name(name);
}

/* The parameters and buffers of a module and of the modules in it, named as PyTorch's state_dict() names them. */
static void add_module(finder *f, weight_set *s, const value *module, const char *prefix, int depth)
{
    static const char *const kinds[] = {"_parameters", "_buffers", "_modules"};
    const value *state = state_of(module);
    f->attributes += 3 + state->u.list.count;
    if (f->attributes > MOST_ATTRIBUTES || depth > DEEPEST_MODULE)
        flis_fail(f->c->ctx, "%s: got modules of more than %d attributes, or more than %d deep", f->c->path,
                  MOST_ATTRIBUTES, DEEPEST_MODULE);
    for (int k = 0; k < 3; k++) {
        const value *found = dict_get(state, kinds[k]),
                    *members = found && found->kind == INERT ? found->u.object->items : found;
        if (members && members->kind != DICT) continue;
        if (members) f->attributes += members->u.list.count;
        for (size_t i = 0; members && flis_ok(f->c->ctx) && i + 1 < members->u.list.count; i += 2) {
            const value *key = members->u.list.item[i], *v = members->u.list.item[i + 1];
            if (key->kind != TEXT || (v->kind != TENSOR && v->kind != INERT)) continue;
            if (k == 2 && !is_module(v)) continue;
            const char *name =
                pool_text(f->c->ctx, &f->c->pool, "%s%s%.200s", prefix, *prefix ? "." : "", key->u.text.bytes);
            if (!name) return;
            if (k == 2) add_module(f, s, v, name, depth + 1);
            else add_entry(f, s, name, v);
        }
    }
}

/* A name such as those of weights, for a value that is no tensor. */
static bool weight_name(const char *name)
{
    return (strchr(name, '.') && !ends_in(name, "_extra_state")) || ends_in(name, "weight") || ends_in(name, "bias");
}

static void add_dict(finder *f, const value *dict, const step *where)
{
    bool any = false;
    for (size_t i = 0; i + 1 < dict->u.list.count; i += 2) {
        const value *key = dict->u.list.item[i], *v = dict->u.list.item[i + 1];
        if (key->kind != TEXT) continue;
        any = any || v->kind == TENSOR;
        if (v->kind == INERT && !f->inert && weight_name(key->u.text.bytes) && !is_module(v))
            f->inert =
                pool_text(f->c->ctx, &f->c->pool, ": %.200s is made by %s", key->u.text.bytes, v->u.object->name);
    }
    weight_set *s = any ? new_set(f, where) : NULL;
    if (!s) return;
    for (size_t i = 0; i + 1 < dict->u.list.count; i += 2) {
        const value *key = dict->u.list.item[i], *v = dict->u.list.item[i + 1];
        if (key->kind != TEXT || (v->kind != TENSOR && (v->kind != INERT || is_module(v)))) continue;
        add_entry(f, s, key->u.text.bytes, v);
        if (s->count) s->list[s->count - 1].nul = strlen(key->u.text.bytes) != key->u.text.length;
    }
    f->count++;
}

static void search(finder *f, value *v, const step *where, int depth);

/* What is beside the model comes last: of a module that is in both places, the place of the model counts. */
static void search_items(finder *f, const value *items, const step *where, int depth)
{
    const bool dict = items->kind == DICT;
    const size_t each = dict ? 2 : 1;
    for (int last = 0; last < 2; last++)
        for (size_t i = 0; i + each <= items->u.list.count; i += each) {
            const step next = {where, dict ? items->u.list.item[i] : NULL, i / each};
            if (beside_key(next.key) == last) search(f, items->u.list.item[i + each - 1], &next, depth + 1);
        }
}

/* An optimizer's state: its averages have the shapes of weights, and are none. */
static bool is_optimizer(const value *dict)
{
    return dict && dict_get(dict, "param_groups") && dict_get(dict, "state");
}

/* Every container once, however often it is referred to. */
static void search(finder *f, value *v, const step *where, int depth)
{
    if (!flis_ok(f->c->ctx) || depth > DEEPEST || v->seen) return;
    if (v->kind != DICT && v->kind != LIST && v->kind != TUPLE && v->kind != INERT) return;
    v->seen = true;
    if (v->kind == LIST || v->kind == TUPLE) {
        search_items(f, v, where, depth);
        return;
    }
    if (is_module(v)) {
        weight_set *s = new_set(f, where);
        if (s) add_module(f, s, v, "", 0);
        if (s && s->tensors) f->count++;
        return;
    }
    value *part[] = {list_of(v), state_of(v)};
    for (int i = 0; i < 2; i++) {
        if (!part[i] || (i && part[i]->seen)) continue;
        part[i]->seen = true;
        f->optimizer = is_optimizer(part[i]);
        if (f->optimizer) return;
        add_dict(f, part[i], where);
        search_items(f, part[i], where, depth);
    }
    const value *given = v->kind == INERT ? v->u.object->arguments : NULL;
    for (size_t i = 0; given && given->kind == TUPLE && i < given->u.list.count; i++)
        if (given->u.list.item[i]->kind == DICT) search(f, given->u.list.item[i], where, depth + 1);
}

/* ---- One of several ------------------------------------------------------------------------------------------------- */

static uint64_t set_bytes(const weight_set *s)
{
    uint64_t total = 0;
    for (size_t i = 0; i < s->count; i++) {
        const value *v = s->list[i].value;
        if (v->kind != TENSOR || v->u.tensor->refused) continue;
        uint64_t bytes = flis_dtype_size(v->u.tensor->dtype);
        for (int k = 0; k < v->u.tensor->rank; k++) bytes *= v->u.tensor->shape[k];
        total += bytes;
    }
    return total;
}

/* "'generator' (680 tensors, 12.3 MB), 'critic' (…)" */
static void list_sets(const weight_set *const *set, size_t count, char *out, size_t room)
{
    enum { SHOWN = 12 };
    *out = 0;
    for (size_t i = 0; i < count && i < SHOWN; i++)
        text_append(out, room, "%s'%.100s' (%zu tensors, %.1f MB)", i ? ", " : "", *set[i]->path ? set[i]->path : ".",
                    set[i]->tensors, (double)set_bytes(set[i]) / 1e6);
    if (count > SHOWN) text_append(out, room, " and %zu more", count - SHOWN);
}

static size_t keep(const weight_set **set, size_t count, bool (*wanted)(const weight_set *))
{
    size_t kept = 0, all = 0;
    for (size_t i = 0; i < count; i++) all += wanted(set[i]);
    if (!all) return count;
    for (size_t i = 0; i < count; i++)
        if (wanted(set[i])) set[kept++] = set[i];
    return kept;
}

static bool not_beside(const weight_set *s)
{
    return !s->beside;
}

static bool dotted(const weight_set *s)
{
    return s->dotted;
}

static bool known(const weight_set *s)
{
    return s->known;
}

/* Whether the last key is one that weights are usually under. */
static bool usual_key(const weight_set *s)
{
    static const char *const keys[] = {"state_dict", "model",   "model_state_dict", "module", "net",
                                       "params",     "weights", "params_ema",       "network"};
    const char *dot = strrchr(s->path, '.'), *last = dot ? dot + 1 : s->path;
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        if (strcmp(last, keys[i]) == 0) return true;
    return false;
}

/* The set that --key names: by its whole path, else the only one whose path begins, else the only one whose path ends with it. */
static size_t keep_key(const weight_set **set, size_t count, const char *key)
{
    const size_t length = strlen(key);
    for (int rule = 0; rule < 3; rule++) {
        size_t kept = 0;
        for (size_t i = 0; i < count; i++) {
            const char *path = set[i]->path;
            const size_t own = strlen(path);
            const bool same =
                rule == 0   ? strcmp(*path ? path : ".", key) == 0
                : rule == 1 ? own > length && strncmp(path, key, length) == 0 && path[length] == '.'
                            : own > length && strcmp(path + own - length, key) == 0 && path[own - length - 1] == '.';
            if (!same) continue;
            const weight_set *found = set[i];
            set[i] = set[kept];
            set[kept++] = found;
        }
        if (kept) return kept;
    }
    return 0;
}

/* Notes which set was taken, and which others there are. */
static void note_choice(const finder *f, const weight_set *taken)
{
    enum { SHOWN = 12 };
    size_t loose = 0, others = 0;
    if (!taken->root && strcmp(taken->path, "state_dict") != 0)
        add_note(f->c, "took the weights under '%.200s'", taken->path);
    for (size_t i = 0; i < f->count; i++) {
        const weight_set *s = &f->set[i];
        if (s == taken) continue;
        if (!s->dotted) loose += s->tensors;
        else if (++others <= SHOWN)
            add_note(f->c, "left out the tensors under '%.200s' (%zu; --key takes them)", *s->path ? s->path : ".",
                     s->tensors);
    }
    if (others > SHOWN) add_note(f->c, "left out the tensors under %zu more keys", others - SHOWN);
    if (loose) add_note(f->c, "left out %zu tensors beside the weights", loose);
}

static const weight_set *choose_set(const finder *f, const conversion *o, const weight_set **set)
{
    char list[3072];
    size_t count = f->count;
    for (size_t i = 0; i < count; i++) set[i] = &f->set[i];
    if (o->key) {
        count = keep_key(set, count, o->key);
        if (count == 1) return set[0];
        if (!count)
            for (size_t i = 0; i < f->count; i++) set[i] = &f->set[i];
        list_sets(set, count ? count : f->count, list, sizeof list);
        flis_fail(f->c->ctx, "%s: --key %.200s: got %s, wanted one of these keys: %s", f->c->path, o->key,
                  count ? "several sets of weights" : "no weights under that key", list);
        return NULL;
    }
    count = keep(set, count, not_beside);
    count = keep(set, count, dotted);
    if (!set[0]->dotted) count = keep(set, count, usual_key);
    if (count > 1) count = keep(set, count, known);
    if (count == 1) return set[0];
    list_sets(set, count, list, sizeof list);
    flis_fail(f->c->ctx, "%s: got weights under several keys, wanted --key with one of them: %s", f->c->path, list);
    return NULL;
}

/* SPEC 10.7. */
const weight_set *find_weights(checkpoint *c, const conversion *o)
{
    static const char *const kinds[] = {"None",     "a boolean", "a number",     "a number", "a string",
                                        "a tuple",  "a list",    "a dictionary", "a global", "a storage",
                                        "a tensor", "an object", "a mark"};
    finder f = {.c = c};
    const step root = {0};
    const value *v = c->root;
    search(&f, c->root, &root, 0);
    if (!flis_ok(c->ctx)) return NULL;
    if (!f.count) {
        const char *by = v->kind == INERT ? v->u.object->name : v->kind == GLOBAL ? v->u.global.name : "";
        if (v->kind == DICT)
            flis_fail(c->ctx, "%s: no tensors in it%s", c->path,
                      f.inert       ? f.inert
                      : f.optimizer ? ": an optimizer's state, wanted the model's"
                                    : "");
        else
            flis_fail(c->ctx, "%s: no dictionary of tensors in it: got %s%s%s", c->path, kinds[v->kind],
                      v->kind == INERT ? " made by "
                      : *by            ? " named "
                                       : "",
                      by);
        return NULL;
    }
    const weight_set **set = flis_alloc(c->ctx, f.count, sizeof *set);
    const weight_set *taken = set ? choose_set(&f, o, set) : NULL;
    free(set);
    if (taken) note_choice(&f, taken);
    return taken;
}
