/* legacy.c - the format of torch.save before 1.6: a stream of pickles, then the storages' values. */
#include "tools/ckpt2safetensors/ckpt.h"

#include <string.h>

static value *next_pickle(checkpoint *c, uint64_t *left)
{
    pickle_bytes from = {c->in, NULL, c->size, *left};
    value *v = unpickle(c->ctx, c->path, &from, &c->pool, &c->storages);
    *left = from.left;
    return v;
}

/* Locates the next storage: its number of values in 8 bytes, then the values. */
static bool next_storage(checkpoint *c, const value *key, uint64_t *at)
{
    unsigned char bytes[8];
    storage *s = key->kind == TEXT ? storage_find(&c->storages, key->u.text.bytes, strlen(key->u.text.bytes)) : NULL;
    if (!s)
        return flis_fail(c->ctx, "%s: data of storage %.200s, which no tensor names", c->path,
                         key->kind == TEXT ? key->u.text.bytes : "(no name)");
    if (s->located) return flis_fail(c->ctx, "%s: data of storage %.200s is duplicated", c->path, s->key);
    if (!read_at(c, *at, bytes, 8)) return false;
    *at += 8;
    if (little_endian(bytes, 8) != s->numel)
        return flis_fail(c->ctx, "%s: storage %.200s: got %llu values, wanted %llu", c->path, s->key,
                         (unsigned long long)little_endian(bytes, 8), (unsigned long long)s->numel);
    if (!s->size)
        return flis_fail(c->ctx, "%s: storage %.200s %s, and what follows it cannot be found", c->path, s->key,
                         s->refused);
    if (s->numel > (c->size - *at) / s->size)
        return flis_fail(
            c->ctx, "%s: cut short: storage %.200s: got %llu bytes to the end of the file, wanted %llu values of %s",
            c->path, s->key, (unsigned long long)(c->size - *at), (unsigned long long)s->numel, storage_type(s));
    s->at = *at;
    *at += storage_size(s);
    return s->located = true;
}

/* 0x1950a86a20f9469cfc6c, in binary or (protocols 0 and 1) as text. */
static bool is_magic(const value *v)
{
    static const char binary[] = "\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19", text[] = "119547037146038801333356L";
    if (!v || v->kind != TEXT) return false;
    return (v->u.text.length == 10 && memcmp(v->u.text.bytes, binary, 10) == 0) || strcmp(v->u.text.bytes, text) == 0;
}

/* The old format: pickles of a magic number, a protocol number, system information and the object; a list of storage keys;
   then for each key its number of values (8 bytes) and the values. SPEC 10.7. */
bool read_legacy(checkpoint *c)
{
    uint64_t left = c->size;
    rewind(c->in);
    const value *magic = next_pickle(c, &left);
    if (!is_magic(magic)) {
        c->ctx->error[0] = 0; /* an error of the machine only means that this is another pickle */
        return flis_fail(c->ctx,
                         "%s: is a Python pickle that torch.save did not write (pickle.dump and joblib.dump write such "
                         "files), wanted torch.save(model.state_dict(), PATH)",
                         c->path);
    }
    next_pickle(c, &left); /* the protocol's number */
    const value *system = next_pickle(c, &left), *little = dict_get(system, "little_endian");
    if (little && little->kind == BOOL && !little->u.integer)
        return flis_fail(c->ctx, "%s: its system information: got a big-endian machine, wanted a little-endian one",
                         c->path);
    c->root = next_pickle(c, &left);
    const value *keys = next_pickle(c, &left);
    if (!flis_ok(c->ctx)) return false;
    if (!keys || keys->kind != LIST) return flis_fail(c->ctx, "%s: no list of storages behind the pickle", c->path);
    uint64_t at = c->size - left;
    for (size_t i = 0; i < keys->u.list.count; i++)
        if (!next_storage(c, keys->u.list.item[i], &at)) return false;
    return true;
}
