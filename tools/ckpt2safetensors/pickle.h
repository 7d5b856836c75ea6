/* pickle.h - what the stack machine (pickle.c) and the globals that it may call (globals.c) share. */
#ifndef PICKLE_H
#define PICKLE_H

#include "tools/ckpt2safetensors/ckpt.h"

typedef struct machine {
    flis_ctx *ctx;
    const char *path;
    FILE *in;
    uint64_t left, size; /* bytes of the pickle (old format: of the file) that may still be read, and all */
    uint64_t at;         /* position of the current instruction among them */
    pool *pool;
    value **stack;
    size_t depth, stack_room;
    value **memo;
    size_t memo_room;
    storages *storages;
} machine;

/* Fails with the position of the instruction. */
bool bad_pickle(machine *m, const char *what);
value *new_value(machine *m, value_kind kind);
void append_value(machine *m, value *list, value *item);

/* A GLOBAL of the allow-list; NULL: refused. */
value *find_global(machine *m, const value *module, const value *name);
/* f(*args). */
value *call_global(machine *m, const value *f, value *args);
/* The storage that a persistent id names. */
value *make_storage(machine *m, const value *id);
/* Inserts a storage into the sorted table (values.c); its key must be new. */
bool storage_insert(flis_ctx *ctx, pool *p, storages *all, storage *s);

#endif
