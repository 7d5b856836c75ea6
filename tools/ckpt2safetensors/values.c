/* values.c - values of the pickle machine: their memory, lists, dictionaries, and the table of storages. */
#include "tools/ckpt2safetensors/pickle.h"

#include <stdlib.h>
#include <string.h>

enum { POOL_PIECE = 1 << 16 };
/* A checkpoint of 10,000 tensors takes about 10 MB; beside them there may be lists of file names and of losses. */
static const size_t POOL_LIMIT = (size_t)160 << 20;

void *pool_take(flis_ctx *ctx, pool *p, size_t size)
{
    size = (size + 15) / 16 * 16;
    if (size > POOL_LIMIT || p->used + size > POOL_LIMIT) {
        flis_fail(ctx, "%s: the pickle describes more than %zu MB of values besides its tensors", p->path,
                  POOL_LIMIT >> 20);
        return NULL;
    }
    if (size > p->left) {
        size_t want = size > POOL_PIECE ? size : POOL_PIECE;
        struct pool_piece *piece = flis_alloc(ctx, 1, want + 16);
        if (!piece) return NULL;
        piece->next = p->pieces;
        p->pieces = piece;
        p->free = (unsigned char *)piece + 16;
        p->left = want;
    }
    void *taken = p->free;
    p->free += size;
    p->left -= size;
    p->used += size;
    return taken;
}

void *pool_grow(flis_ctx *ctx, pool *p, const void *old, size_t used, size_t size)
{
    void *grown = pool_take(ctx, p, size);
    if (grown && used) memcpy(grown, old, used);
    return grown;
}

void pool_free(pool *p)
{
    while (p->pieces) {
        struct pool_piece *next = p->pieces->next;
        free(p->pieces);
        p->pieces = next;
    }
}

char *pool_text(flis_ctx *ctx, pool *p, const char *format, ...)
{
    char text[1024];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    char *kept = pool_take(ctx, p, strlen(text) + 1);
    return kept ? strcpy(kept, text) : NULL;
}

const value *dict_get(const value *dict, const char *key)
{
    const value *found = NULL;
    for (size_t i = 0; dict && dict->kind == DICT && i + 1 < dict->u.list.count; i += 2)
        if (dict->u.list.item[i]->kind == TEXT && strcmp(dict->u.list.item[i]->u.text.bytes, key) == 0)
            found = dict->u.list.item[i + 1];
    return found;
}

static int key_order(const storage *s, const char *key, size_t length)
{
    const size_t own = strlen(s->key);
    const int order = memcmp(s->key, key, own < length ? own : length);
    return order ? order : own < length ? -1 : own > length;
}

/* Index of the first storage whose key is not before this one. */
static size_t storage_place(const storages *all, const char *key, size_t length)
{
    size_t low = 0, high = all->count;
    while (low < high) {
        const size_t middle = low + (high - low) / 2;
        if (key_order(all->at[middle], key, length) < 0) low = middle + 1;
        else high = middle;
    }
    return low;
}

storage *storage_find(const storages *all, const char *key, size_t length)
{
    const size_t place = storage_place(all, key, length);
    return place < all->count && key_order(all->at[place], key, length) == 0 ? all->at[place] : NULL;
}

bool storage_insert(flis_ctx *ctx, pool *p, storages *all, storage *s)
{
    const size_t place = storage_place(all, s->key, strlen(s->key));
    if (all->count == all->room) {
        const size_t room = all->room ? 2 * all->room : 256;
        storage **grown = pool_grow(ctx, p, all->at, all->count * sizeof *grown, room * sizeof *grown);
        if (!grown) return false;
        all->at = grown;
        all->room = room;
    }
    memmove(all->at + place + 1, all->at + place, (all->count - place) * sizeof *all->at);
    all->at[place] = s;
    all->count++;
    return true;
}

uint64_t storage_size(const storage *s)
{
    return s->size && s->numel > UINT64_MAX / s->size ? UINT64_MAX : s->numel * s->size;
}

const char *storage_type(const storage *s)
{
    return s->refused ? "another type" : flis_dtype_name(s->dtype);
}
