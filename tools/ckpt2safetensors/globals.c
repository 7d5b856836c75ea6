/* globals.c - the globals that a pickle may name, and the effect of calling each. The list is closed, and nothing on it does more
 * than describe tensors.
 */
#include "tools/ckpt2safetensors/pickle.h"

#include <string.h>

static const size_t MOST_STORAGES = 1 << 16;

/* G_INERT: may be named, called and built; the result is a value that nothing reads. */
static const struct {
    const char *module, *name;
    global_kind call;
    flis_dtype dtype;
} ALLOWED[] = {
    {"collections", "OrderedDict", G_DICT, FLIS_F32},
    {"torch._utils", "_rebuild_tensor_v2", G_TENSOR2, FLIS_F32},
    {"torch._utils", "_rebuild_tensor", G_TENSOR, FLIS_F32},
    {"torch._utils", "_rebuild_parameter", G_PARAMETER, FLIS_F32},
    {"torch", "DoubleStorage", G_STORAGE, FLIS_F64},
    {"torch", "FloatStorage", G_STORAGE, FLIS_F32},
    {"torch", "HalfStorage", G_STORAGE, FLIS_F16},
    {"torch", "BFloat16Storage", G_STORAGE, FLIS_BF16},
    {"torch", "LongStorage", G_STORAGE, FLIS_I64},
    {"torch", "IntStorage", G_STORAGE, FLIS_I32},
    {"torch", "ShortStorage", G_STORAGE, FLIS_I16},
    {"torch", "CharStorage", G_STORAGE, FLIS_I8},
    {"torch", "ByteStorage", G_STORAGE, FLIS_U8},
    {"torch", "BoolStorage", G_STORAGE, FLIS_BOOL},
    {"torch", "Size", G_INERT, FLIS_F32},
    {"torch", "device", G_INERT, FLIS_F32},
    {"collections", "defaultdict", G_INERT, FLIS_F32},
    {"collections", "Counter", G_INERT, FLIS_F32},
    {"builtins", "set", G_INERT, FLIS_F32},
    {"__builtin__", "set", G_INERT, FLIS_F32},
    {"builtins", "dict", G_INERT, FLIS_F32},
    {"__builtin__", "dict", G_INERT, FLIS_F32},
    {"builtins", "int", G_INERT, FLIS_F32},
    {"__builtin__", "long", G_INERT, FLIS_F32},
    {"argparse", "Namespace", G_INERT, FLIS_F32},
    {"_codecs", "encode", G_INERT, FLIS_F32},
    {"numpy", "dtype", G_INERT, FLIS_F32},
    {"numpy", "ndarray", G_INERT, FLIS_F32},
    {"numpy.core.multiarray", "scalar", G_INERT, FLIS_F32},
    {"numpy.core.multiarray", "_reconstruct", G_INERT, FLIS_F32},
    {"pytorch_lightning.callbacks.model_checkpoint", "ModelCheckpoint", G_INERT, FLIS_F32},
    {"pytorch_lightning.callbacks.early_stopping", "EarlyStopping", G_INERT, FLIS_F32},
    {"pytorch_lightning.callbacks.lr_monitor", "LearningRateMonitor", G_INERT, FLIS_F32},
    {"pytorch_lightning.utilities.parsing", "AttributeDict", G_INERT, FLIS_F32},
};

/* SPEC 10.7. */
value *find_global(machine *m, const value *module, const value *name)
{
    if (!module || !name || module->kind != TEXT || name->kind != TEXT) {
        bad_pickle(m, "a global without a name");
        return NULL;
    }
    for (size_t i = 0; i < sizeof ALLOWED / sizeof *ALLOWED; i++) {
        if (strcmp(module->u.text.bytes, ALLOWED[i].module) || strcmp(name->u.text.bytes, ALLOWED[i].name)) continue;
        value *v = new_value(m, GLOBAL);
        if (!v) return NULL;
        v->u.global.call = ALLOWED[i].call;
        v->u.global.dtype = ALLOWED[i].dtype;
        v->u.global.name = ALLOWED[i].name;
        return v;
    }
    flis_fail(m->ctx,
              "%s: the pickle names %.200s.%.200s, which is not one of the things that a checkpoint of weights needs; "
              "nothing was executed",
              m->path, module->u.text.bytes, name->u.text.bytes);
    return NULL;
}

static const value *argument(const value *args, size_t index, value_kind kind)
{
    if (!args || args->kind != TUPLE || index >= args->u.list.count) return NULL;
    return args->u.list.item[index]->kind == kind ? args->u.list.item[index] : NULL;
}

/* _rebuild_tensor[_v2](storage, offset, size, stride, …). SPEC 10.7. */
static value *make_tensor(machine *m, const value *args)
{
    const value *from = argument(args, 0, STORAGE), *offset = argument(args, 1, INT), *size = argument(args, 2, TUPLE);
    const value *stride = argument(args, 3, TUPLE);
    value *v = new_value(m, TENSOR);
    if (!v) return NULL;
    if (!from || !offset || !size || !stride || offset->u.integer < 0 || size->u.list.count != stride->u.list.count) {
        bad_pickle(m, "a tensor without storage, offset, size and stride");
        return NULL;
    }
    if (size->u.list.count > FLIS_MAX_DIMS) {
        bad_pickle(m, "a tensor of more than 8 dimensions");
        return NULL;
    }
    v->u.tensor.storage = from->u.storage;
    v->u.tensor.offset = (uint64_t)offset->u.integer;
    v->u.tensor.rank = (int)size->u.list.count;
    /* The last value that the tensor reads must be inside its storage. A stride of 0 repeats values, so that the storage does not
       bound the count: it has a limit of its own. */
    uint64_t last = v->u.tensor.offset, count = 1;
    for (int i = 0; i < v->u.tensor.rank; i++) {
        const value *n = size->u.list.item[i], *s = stride->u.list.item[i];
        const int64_t most = (int64_t)1 << 40;
        if (n->kind != INT || s->kind != INT || n->u.integer < 0 || s->u.integer < 0 || n->u.integer > most ||
            s->u.integer > most) {
            bad_pickle(m, "a tensor whose size or stride is not a count");
            return NULL;
        }
        v->u.tensor.shape[i] = (uint64_t)n->u.integer;
        v->u.tensor.stride[i] = (uint64_t)s->u.integer;
        if (v->u.tensor.shape[i] && count > ((uint64_t)1 << 40) / v->u.tensor.shape[i]) {
            bad_pickle(m, "a tensor of more than 2^40 values");
            return NULL;
        }
        count *= v->u.tensor.shape[i];
        if (v->u.tensor.shape[i] > 1 && v->u.tensor.stride[i] > (UINT64_MAX - last) / (v->u.tensor.shape[i] - 1)) {
            bad_pickle(m, "a tensor that reaches beyond its storage");
            return NULL;
        }
        if (v->u.tensor.shape[i]) last += (v->u.tensor.shape[i] - 1) * v->u.tensor.stride[i];
    }
    if (count && last >= from->u.storage->numel) {
        bad_pickle(m, "a tensor that reaches beyond its storage");
        return NULL;
    }
    return v;
}

/* REDUCE, NEWOBJ. SPEC 10.7. */
value *call_global(machine *m, const value *f, value *args)
{
    if (!f || !args) return NULL;
    if (f->kind != GLOBAL) {
        bad_pickle(m, "it calls a value that is not a function");
        return NULL;
    }
    value *v = NULL;
    switch (f->u.global.call) {
    case G_DICT: { /* OrderedDict(), or OrderedDict([(key, value), …]) */
        v = new_value(m, DICT);
        const value *pairs = argument(args, 0, LIST);
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
    case G_TENSOR2:
    case G_TENSOR: return make_tensor(m, args);
    case G_PARAMETER:
        v = args->kind == TUPLE && args->u.list.count ? args->u.list.item[0] : NULL;
        if (!v || v->kind != TENSOR) bad_pickle(m, "a Parameter without a tensor");
        return v;
    case G_STORAGE: bad_pickle(m, "it calls a storage type; wanted a persistent id"); return NULL;
    case G_INERT: return new_value(m, INERT);
    }
    return NULL;
}

/* ('storage', FloatStorage, key, location, numel[, view]). A view, a part of another storage, is refused: files from before
   PyTorch 0.4 have them, and reading the whole storage in its place would give wrong values. SPEC 10.7. */
value *make_storage(machine *m, const value *id)
{
    const value *word = argument(id, 0, TEXT), *type = argument(id, 1, GLOBAL), *key = argument(id, 2, TEXT),
                *numel = argument(id, 4, INT);
    if (!word || strcmp(word->u.text.bytes, "storage") != 0) {
        bad_pickle(m, "a persistent id that does not name a storage");
        return NULL;
    }
    if (id->u.list.count > 5 && !argument(id, 5, NONE)) {
        bad_pickle(m, "a storage that is a view of another");
        return NULL;
    }
    if (!type || type->u.global.call != G_STORAGE || !key || !numel || numel->u.integer < 0) {
        bad_pickle(m, "a storage without type, key and length");
        return NULL;
    }
    storage *s = storage_find(m->storages, key->u.text.bytes, strlen(key->u.text.bytes));
    if (s && (s->numel != (uint64_t)numel->u.integer || s->dtype != type->u.global.dtype)) {
        bad_pickle(m, "one storage with two lengths or types");
        return NULL;
    }
    if (!s && m->storages->count == MOST_STORAGES) bad_pickle(m, "more than 65536 storages");
    if (!flis_ok(m->ctx)) return NULL;
    if (!s) {
        if (!(s = pool_take(m->ctx, m->pool, sizeof *s))) return NULL;
        *s = (storage){(uint64_t)numel->u.integer, 0, type->u.global.dtype, key->u.text.bytes, false};
        if (!storage_insert(m->ctx, m->pool, m->storages, s)) return NULL;
    }
    value *v = new_value(m, STORAGE);
    if (v) v->u.storage = s;
    return v;
}
