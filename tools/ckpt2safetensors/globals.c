/* globals.c - what the calls in a pickle would make. Nothing is called: a few functions of PyTorch describe tensors and
 * dictionaries, and those are made here; what any other function or class would make is an inert object that keeps its name.
 */
#include "tools/ckpt2safetensors/pickle.h"

#include <string.h>

static const size_t MOST_STORAGES = 1 << 16;

static const char WANTED_REAL[] = "holds complex numbers, wanted real ones";
static const char WANTED_DENSE[] = "is a quantised tensor, wanted one saved after dequantize()";

/* `size`: bytes of one value. `refused`: why a tensor of this storage cannot be written; NULL: it can. */
static const struct {
    const char *name;
    flis_dtype dtype;
    size_t size;
    const char *refused;
} STORAGES[] = {
    {"Double", FLIS_F64, 8, NULL},
    {"Float", FLIS_F32, 4, NULL},
    {"Half", FLIS_F16, 2, NULL},
    {"BFloat16", FLIS_BF16, 2, NULL},
    {"Long", FLIS_I64, 8, NULL},
    {"Int", FLIS_I32, 4, NULL},
    {"Short", FLIS_I16, 2, NULL},
    {"Char", FLIS_I8, 1, NULL},
    {"Byte", FLIS_U8, 1, NULL},
    {"Bool", FLIS_BOOL, 1, NULL},
    {"Untyped", FLIS_U8, 1, NULL}, /* of _rebuild_tensor_v3, which gives the type */
    {"_Untyped", FLIS_U8, 1, NULL},
    {"ComplexFloat", FLIS_F32, 8, WANTED_REAL},
    {"ComplexDouble", FLIS_F64, 16, WANTED_REAL},
    {"QInt8", FLIS_I8, 1, WANTED_DENSE},
    {"QUInt8", FLIS_U8, 1, WANTED_DENSE},
    {"QInt32", FLIS_I32, 4, WANTED_DENSE},
    {"QUInt4x2", FLIS_U8, 1, WANTED_DENSE},
    {"QUInt2x4", FLIS_U8, 1, WANTED_DENSE},
};

static const struct {
    const char *name;
    flis_dtype dtype;
} DTYPES[] = {
    {"float64", FLIS_F64}, {"double", FLIS_F64}, {"float32", FLIS_F32},   {"float", FLIS_F32},
    {"float16", FLIS_F16}, {"half", FLIS_F16},   {"bfloat16", FLIS_BF16}, {"int64", FLIS_I64},
    {"long", FLIS_I64},    {"int32", FLIS_I32},  {"int", FLIS_I32},       {"int16", FLIS_I16},
    {"short", FLIS_I16},   {"int8", FLIS_I8},    {"uint8", FLIS_U8},      {"bool", FLIS_BOOL},
};

/* refused: G_OTHER_TENSOR, what the tensor is and what is wanted. */
static const struct {
    const char *name;
    global_kind call;
    const char *refused;
} FUNCTIONS[] = {
    {"collections.OrderedDict", G_DICT, NULL},
    {"builtins.dict", G_DICT, NULL},
    {"__builtin__.dict", G_DICT, NULL},
    {"torch.Size", G_SIZE, NULL},
    {"torch._utils._rebuild_tensor", G_TENSOR, NULL},
    {"torch._utils._rebuild_tensor_v2", G_TENSOR2, NULL},
    {"torch._utils._rebuild_tensor_v3", G_TENSOR3, NULL},
    {"torch._utils._rebuild_parameter", G_PARAMETER, NULL},
    {"torch._utils._rebuild_parameter_with_state", G_PARAMETER, NULL},
    {"torch._utils._rebuild_device_tensor_from_cpu_tensor", G_PARAMETER, NULL},
    {"torch.nn.parameter.Parameter", G_PARAMETER, NULL},
    {"torch.nn.parameter.Buffer", G_PARAMETER, NULL},
    {"torch._tensor._rebuild_from_type", G_TYPED, NULL},
    {"torch._tensor._rebuild_from_type_v2", G_TYPED, NULL},
    {"torch.tensor._rebuild_from_type", G_TYPED, NULL},
    {"torch._utils._rebuild_meta_tensor_no_storage", G_OTHER_TENSOR,
     "is a meta tensor, whose values are not in the file, wanted a model saved with its values"},
    {"torch._utils._rebuild_qtensor", G_OTHER_TENSOR, WANTED_DENSE},
    {"torch._utils._rebuild_sparse_tensor", G_OTHER_TENSOR, "is a sparse tensor, wanted one saved after to_dense()"},
    {"torch._utils._rebuild_sparse_csr_tensor", G_OTHER_TENSOR,
     "is a sparse tensor, wanted one saved after to_dense()"},
    {"torch._utils._rebuild_nested_tensor", G_OTHER_TENSOR, "is a nested tensor, wanted a strided one"},
    {"torch._utils._rebuild_wrapper_subclass", G_OTHER_TENSOR,
     "is a tensor of another class that keeps its values elsewhere, wanted a plain tensor"},
    {"torch._utils._rebuild_device_tensor_from_numpy", G_OTHER_TENSOR,
     "is kept as an array of NumPy, wanted one saved after cpu()"},
    {"torch._utils._rebuild_xla_tensor", G_OTHER_TENSOR, "is kept as an array of NumPy, wanted one saved after cpu()"},
};

/* "torch.FloatStorage", "torch.storage.UntypedStorage", "torch.float32". */
static void know_type(value *v)
{
    const char *name = v->u.global.name + strlen("torch.");
    if (strncmp(name, "storage.", 8) == 0) name += 8;
    const size_t length = strlen(name);
    for (size_t i = 0; i < sizeof STORAGES / sizeof *STORAGES; i++) {
        const size_t stem = strlen(STORAGES[i].name);
        if (length != stem + 7 || strncmp(name, STORAGES[i].name, stem) || strcmp(name + stem, "Storage")) continue;
        v->u.global.call = G_STORAGE;
        v->u.global.type = (int)i;
    }
    for (size_t i = 0; i < sizeof DTYPES / sizeof *DTYPES; i++) {
        if (strcmp(name, DTYPES[i].name) != 0) continue;
        v->u.global.call = G_DTYPE;
        v->u.global.type = (int)DTYPES[i].dtype;
    }
}

/* SPEC 10.7. */
value *find_global(machine *m, const value *module, const value *name)
{
    if (!module || !name || module->kind != TEXT || name->kind != TEXT) {
        bad_pickle(m, "a global without a name");
        return NULL;
    }
    value *v = new_value(m, GLOBAL);
    if (!v) return NULL;
    v->u.global.call = G_INERT;
    v->u.global.name = pool_text(m->ctx, m->pool, "%.200s.%.200s", module->u.text.bytes, name->u.text.bytes);
    if (!v->u.global.name) return NULL;
    for (size_t i = 0; i < sizeof FUNCTIONS / sizeof *FUNCTIONS; i++) {
        if (strcmp(v->u.global.name, FUNCTIONS[i].name) != 0) continue;
        v->u.global.call = FUNCTIONS[i].call;
        v->u.global.refused = FUNCTIONS[i].refused;
        return v;
    }
    if (strncmp(v->u.global.name, "torch._utils._rebuild_", 22) == 0) {
        v->u.global.call = G_OTHER_TENSOR;
        v->u.global.refused = "is a tensor of an unknown kind, wanted a strided one";
    } else if (strncmp(v->u.global.name, "torch.", 6) == 0) know_type(v);
    return v;
}

value *make_object(machine *m, const char *name, const value *args)
{
    value *v = new_value(m, INERT);
    if (!v || !(v->u.object = pool_take(m->ctx, m->pool, sizeof *v->u.object))) return NULL;
    *v->u.object = (object){name, args, NULL, NULL};
    return name ? v : NULL;
}

static value *item(const value *args, size_t index)
{
    return args && args->kind == TUPLE && index < args->u.list.count ? args->u.list.item[index] : NULL;
}

static value *argument(const value *args, size_t index, value_kind kind)
{
    value *v = item(args, index);
    return v && v->kind == kind ? v : NULL;
}

/* The name of what made an inert value; NULL: not inert. */
static const char *maker(const value *v)
{
    return !v                                                 ? NULL
           : v->kind == INERT                                 ? v->u.object->name
           : v->kind == GLOBAL && v->u.global.call != G_DTYPE ? v->u.global.name
                                                              : NULL;
}

/* The same of a value or of the members of a tuple. */
static const char *maker_within(const value *v)
{
    const char *found = maker(v);
    for (size_t i = 0; !found && v && v->kind == TUPLE && i < v->u.list.count; i++) found = maker(v->u.list.item[i]);
    return found;
}

static value *new_tensor(machine *m, const char *refused)
{
    value *v = new_value(m, TENSOR);
    if (!v || !(v->u.tensor = pool_take(m->ctx, m->pool, sizeof *v->u.tensor))) return NULL;
    memset(v->u.tensor, 0, sizeof *v->u.tensor);
    v->u.tensor->refused = refused;
    return v;
}

/* A tensor that may stand beside the weights, and is refused where it would be written. */
static value *refused_tensor(machine *m, const char *name)
{
    const char *why = pool_text(m->ctx, m->pool, "depends on %s, which is not known and is never called", name);
    return why ? new_tensor(m, why) : NULL;
}

/* The last value that the tensor reads must be inside its storage, of `room` values. A stride of 0 repeats values, so that the
   storage does not bound the count: it has a limit of its own. */
static bool set_shape(machine *m, tensor *t, const value *size, const value *stride, uint64_t room, bool bounded)
{
    uint64_t last = t->offset, count = 1;
    for (int i = 0; i < t->rank; i++) {
        const value *n = size->u.list.item[i], *s = stride->u.list.item[i];
        const int64_t most = (int64_t)1 << 40;
        if (n->kind != INT || s->kind != INT || n->u.integer < 0 || s->u.integer < 0 || n->u.integer > most ||
            s->u.integer > most)
            return bad_pickle(m, "a tensor whose size or stride is not a count");
        t->shape[i] = (uint64_t)n->u.integer;
        t->stride[i] = (uint64_t)s->u.integer;
        if (t->shape[i] && count > ((uint64_t)1 << 40) / t->shape[i])
            return bad_pickle(m, "a tensor of more than 2^40 values");
        count *= t->shape[i];
        if (t->shape[i] > 1 && t->stride[i] > (UINT64_MAX - last) / (t->shape[i] - 1))
            return bad_pickle(m, "a tensor that reaches beyond its storage");
        if (t->shape[i]) last += (t->shape[i] - 1) * t->stride[i];
    }
    return !count || !bounded || last < room || bad_pickle(m, "a tensor that reaches beyond its storage");
}

/* The metadata of a tensor that is a lazy view: {'neg': True}, {'conj': True}. NULL: none that changes values. */
static const char *lazy_bit(machine *m, const value *metadata)
{
    if (!metadata || metadata->kind == NONE) return NULL;
    if (metadata->kind != DICT)
        return maker(metadata)
                   ? pool_text(m->ctx, m->pool, "has metadata made by %s, which is not known", maker(metadata))
                   : "has metadata that is not a dictionary";
    for (size_t i = 0; i + 1 < metadata->u.list.count; i += 2) {
        const value *key = metadata->u.list.item[i], *set = metadata->u.list.item[i + 1];
        if (set->kind == NONE || ((set->kind == BOOL || set->kind == INT) && !set->u.integer)) continue;
        if (key->kind == TEXT && strcmp(key->u.text.bytes, "neg") == 0)
            return "is a negated view (neg), whose values are stored with the opposite sign; wanted one saved after "
                   "resolve_neg()";
        if (key->kind == TEXT && strcmp(key->u.text.bytes, "conj") == 0)
            return "is a conjugated view (conj), wanted one saved after resolve_conj()";
        return pool_text(m->ctx, m->pool, "has the metadata %.100s, which is not known",
                         key->kind == TEXT ? key->u.text.bytes : "(no name)");
    }
    return NULL;
}

/* _rebuild_tensor_v3: bytes, and the type of the values as an argument. */
static const char *set_dtype(machine *m, tensor *t, const value *dtype)
{
    if (dtype && dtype->kind == GLOBAL && dtype->u.global.call == G_DTYPE) {
        t->dtype = (flis_dtype)dtype->u.global.type;
        return NULL;
    }
    return pool_text(m->ctx, m->pool, "has values of the type %s, wanted float32, float16 or bfloat16",
                     maker(dtype) ? maker(dtype) : "(no type)");
}

/* _rebuild_tensor(storage, offset, size, stride), _v2: and requires_grad, hooks, metadata; _v3: a type before the metadata.
   SPEC 10.7. */
static value *make_tensor(machine *m, global_kind call, const value *args)
{
    for (size_t i = 0; i < 4; i++) {
        const char *name = maker_within(args->kind == TUPLE ? item(args, i) : args);
        if (name) return refused_tensor(m, name);
    }
    const value *from = argument(args, 0, STORAGE), *offset = argument(args, 1, INT), *size = argument(args, 2, TUPLE);
    const value *stride = argument(args, 3, TUPLE);
    if (!from || !offset || !size || !stride || offset->u.integer < 0 || size->u.list.count != stride->u.list.count) {
        bad_pickle(m, "a tensor without storage, offset, size and stride");
        return NULL;
    }
    value *v = new_tensor(m, from->u.storage.refused);
    if (!v) return NULL;
    tensor *t = v->u.tensor;
    t->storage = from->u.storage.storage;
    t->dtype = t->storage->dtype;
    t->offset = (uint64_t)offset->u.integer;
    if (call == G_TENSOR3 && !t->refused) t->refused = set_dtype(m, t, item(args, 6));
    const char *lazy = lazy_bit(m, call == G_TENSOR2 ? item(args, 6) : call == G_TENSOR3 ? item(args, 7) : NULL);
    if (!t->refused) t->refused = lazy;
    if (size->u.list.count > FLIS_MAX_DIMS) {
        if (!t->refused) t->refused = "has more than 8 dimensions";
        return v;
    }
    t->rank = (int)size->u.list.count;
    const uint64_t width = call == G_TENSOR3 && !t->refused ? flis_dtype_size(t->dtype) : t->storage->size;
    const bool bounded = width && (call != G_TENSOR3 || !t->refused);
    const uint64_t room = bounded ? storage_size(t->storage) / width : 0;
    return set_shape(m, t, size, stride, room, bounded) ? v : NULL;
}

/* OrderedDict(), or OrderedDict([(key, value), …]). */
static value *make_dict(machine *m, const char *name, const value *args)
{
    const value *pairs = item(args, 0);
    if (pairs && (pairs->kind == INERT || pairs->kind == DICT)) return make_object(m, name, args);
    value *v = new_value(m, DICT);
    if (pairs && pairs->kind != LIST && pairs->kind != TUPLE) pairs = NULL;
    for (size_t i = 0; v && pairs && i < pairs->u.list.count; i++) {
        const value *pair = pairs->u.list.item[i];
        if ((pair->kind != TUPLE && pair->kind != LIST) || pair->u.list.count != 2) {
            bad_pickle(m, "an OrderedDict whose items are not pairs");
            return NULL;
        }
        append_value(m, v, pair->u.list.item[0]);
        append_value(m, v, pair->u.list.item[1]);
    }
    return v;
}

/* Parameter(tensor, …): the tensor. */
static value *make_parameter(machine *m, const char *name, value *args)
{
    value *v = item(args, 0);
    if (v && v->kind == TENSOR) return v;
    const char *by = maker(v ? v : args);
    if (by) return refused_tensor(m, by);
    if (strncmp(name, "torch._utils.", 13) != 0) return make_object(m, name, args);
    bad_pickle(m, "a Parameter without a tensor");
    return NULL;
}

/* REDUCE, NEWOBJ, NEWOBJ_EX, OBJ, INST. SPEC 10.7. */
value *call_global(machine *m, const value *f, value *args)
{
    if (!f || !args || !flis_ok(m->ctx)) return NULL;
    if (f->kind == INERT) return make_object(m, f->u.object->name, args);
    if (f->kind != GLOBAL) {
        bad_pickle(m, "it calls a value that is not a function");
        return NULL;
    }
    /* _rebuild_from_type_v2(f, type, args, state): f(*args), of a subclass of Tensor. */
    for (int depth = 0; f->u.global.call == G_TYPED; depth++) {
        const value *within = argument(args, 0, GLOBAL);
        value *given = argument(args, 2, TUPLE);
        if (!within || !given || depth == 8) {
            const char *name = maker(item(args, 0)) ? maker(item(args, 0)) : f->u.global.name;
            return refused_tensor(m, name);
        }
        if (within->u.global.call == G_INERT) return refused_tensor(m, within->u.global.name);
        f = within;
        args = given;
    }
    const char *name = f->u.global.name;
    switch (f->u.global.call) {
    case G_DICT: return make_dict(m, name, args);
    case G_SIZE: return argument(args, 0, TUPLE) ? argument(args, 0, TUPLE) : make_object(m, name, args);
    case G_TENSOR:
    case G_TENSOR2:
    case G_TENSOR3: return make_tensor(m, f->u.global.call, args);
    case G_PARAMETER: return make_parameter(m, name, args);
    case G_OTHER_TENSOR: return new_tensor(m, pool_text(m->ctx, m->pool, "%s (%s)", f->u.global.refused, name));
    case G_TYPED:
    case G_STORAGE:
    case G_DTYPE:
    case G_INERT: break;
    }
    return make_object(m, name, args);
}

/* A storage of the type, in the table. */
static storage *find_storage(machine *m, const value *type, char *key, uint64_t numel)
{
    const bool known = type->kind == GLOBAL && type->u.global.call == G_STORAGE;
    const size_t row = known ? (size_t)type->u.global.type : 0;
    const size_t size = known ? STORAGES[row].size : 0;
    storage *s = storage_find(m->storages, key, strlen(key));
    if (s && (s->numel != numel || s->size != size || s->dtype != STORAGES[row].dtype)) {
        bad_pickle(m, "one storage with two lengths or types");
        return NULL;
    }
    if (s) return s;
    if (m->storages->count == MOST_STORAGES) {
        bad_pickle(m, "more than 65536 storages");
        return NULL;
    }
    if (!(s = pool_take(m->ctx, m->pool, sizeof *s))) return NULL;
    *s = (storage){.numel = numel, .size = size, .dtype = STORAGES[row].dtype, .key = key};
    s->refused = known ? STORAGES[row].refused
                       : pool_text(m->ctx, m->pool, "has a storage of the type %s, which is not known", maker(type));
    return storage_insert(m->ctx, m->pool, m->storages, s) ? s : NULL;
}

/* ('storage', FloatStorage, key, location, numel[, view]). A tensor of a view, a part of another storage, is refused where it would
   be written: files from before PyTorch 0.4 have them, and reading the whole storage in its place would give wrong values.
   ('module', class, file, source) is the class. SPEC 10.7. */
value *make_storage(machine *m, value *id)
{
    const value *word = argument(id, 0, TEXT), *type = item(id, 1), *numel = argument(id, 4, INT);
    value *key = argument(id, 2, TEXT);
    if (word && strcmp(word->u.text.bytes, "module") == 0 && type && type->kind == GLOBAL) return item(id, 1);
    if (!word || strcmp(word->u.text.bytes, "storage") != 0) {
        const char *text = word ? word->u.text.bytes : id->kind == TEXT ? id->u.text.bytes : "(no name)";
        return make_object(m, pool_text(m->ctx, m->pool, "the persistent id %.100s", text), id);
    }
    for (size_t i = 1; i < 5; i++)
        if (i != 1 && i != 3 && maker(item(id, i))) return make_object(m, maker(item(id, i)), id);
    if (!maker(type) || !key || !numel || numel->u.integer < 0) {
        bad_pickle(m, "a storage without type, key and length");
        return NULL;
    }
    storage *s = find_storage(m, type, key->u.text.bytes, (uint64_t)numel->u.integer);
    value *v = s ? new_value(m, STORAGE) : NULL;
    if (!v) return NULL;
    v->u.storage.storage = s;
    v->u.storage.refused = s->refused;
    const value *view = item(id, 5);
    if (view && view->kind != NONE)
        v->u.storage.refused =
            "has a storage that is a view of another (PyTorch before 0.4), wanted one with all its values";
    return v;
}
