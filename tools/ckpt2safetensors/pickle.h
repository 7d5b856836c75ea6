/* pickle.h - what the stack machine (pickle.c) and the globals that it may call (globals.c) share. */
#ifndef PICKLE_H
#define PICKLE_H

#include "tools/ckpt2safetensors/ckpt.h"

typedef struct machine {
    flis_ctx *ctx;
    const char *path;
    pickle_bytes *from;
    uint64_t at; /* position of the current instruction among its bytes */
    pool *pool;
    value **stack;
    size_t depth, stack_room;
    value **memo;
    size_t memo_room;
    storages *storages;
    value *small[256], *truth[2], *none; /* values that need not be made twice */
} machine;

/* Fails with the position of the instruction. */
bool bad_pickle(machine *m, const char *what);
value *new_value(machine *m, value_kind kind);
void append_value(machine *m, value *list, value *item);

/* A GLOBAL. Whatever its name: nothing is looked up, imported or executed. */
value *find_global(machine *m, const value *module, const value *name);
/* What f(*args) would be: a dictionary, a tensor, else an inert object. */
value *call_global(machine *m, const value *f, value *args);
/* An INERT object of that name. */
value *make_object(machine *m, const char *name, const value *args);
/* The storage that a persistent id names. Any other id: an inert object. */
value *make_storage(machine *m, value *id);
/* Inserts a storage into the sorted table (values.c); its key must be new. */
bool storage_insert(flis_ctx *ctx, pool *p, storages *all, storage *s);

#endif
