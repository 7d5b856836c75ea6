/* tensors.c - lists of named tensors on their way to a safetensors file: results of stages and traces. */
#include "tools/flis/command.h"

#include <stdlib.h>
#include <string.h>

flis_dtype real_type(void)
{
    return sizeof(flis_real) == 8 ? FLIS_F64 : FLIS_F32;
}

static size_t value_size(flis_dtype dtype)
{
    return dtype == FLIS_U8 ? 1 : dtype == FLIS_I64 ? sizeof(int64_t) : sizeof(flis_real);
}

static bool make_room(flis_ctx *ctx, tensor_list *list)
{
    if (list->count < list->room) return true;
    const size_t room = list->room ? 2 * list->room : 64;
    named_tensor *item = flis_alloc(ctx, room, sizeof *item);
    if (!item) return false;
    if (list->count) memcpy(item, list->item, list->count * sizeof *item);
    free(list->item);
    list->item = item;
    list->room = room;
    return true;
}

void *add_tensor(flis_ctx *ctx, tensor_list *list, const char *name, flis_dtype dtype, int rank, const uint64_t *shape)
{
    if (!flis_ok(ctx) || !make_room(ctx, list)) return NULL;
    named_tensor *t = &list->item[list->count];
    *t = (named_tensor){.dtype = dtype, .rank = rank, .count = 1};
    for (int i = 0; i < rank; i++) {
        t->shape[i] = shape[i];
        t->count *= (size_t)shape[i];
    }
    t->name = flis_alloc(ctx, strlen(name) + 1, 1);
    t->values = flis_alloc(ctx, t->count ? t->count : 1, value_size(dtype));
    if (!t->name || !t->values) {
        free(t->name);
        free(t->values);
        return NULL;
    }
    strcpy(t->name, name);
    list->count++;
    return t->values;
}

void file_shape(const flis_tensor *x, uint64_t shape[4])
{
    shape[0] = x->n;
    shape[1] = x->rank == 3 ? x->h * x->w : x->c;
    shape[2] = x->rank == 3 ? x->c : x->h;
    shape[3] = x->w;
}

void add_activation(flis_ctx *ctx, tensor_list *list, const char *name, const flis_tensor *x)
{
    if (!x || !flis_ok(ctx)) return;
    uint64_t shape[4];
    file_shape(x, shape);
    void *values = add_tensor(ctx, list, name, x->bytes ? FLIS_U8 : real_type(), x->rank, shape);
    if (!values) return;
    if (x->rank == 4) flis_to_nchw(x, values);
    else if (!x->bytes) memcpy(values, x->x, flis_count(x) * sizeof *x->x);
    for (size_t i = 0; x->bytes && i < flis_count(x); i++) ((uint8_t *)values)[i] = (uint8_t)x->x[i];
}

void free_tensors(tensor_list *list)
{
    for (size_t i = 0; i < list->count; i++) {
        free(list->item[i].name);
        free(list->item[i].values);
    }
    free(list->item);
    *list = (tensor_list){0};
}

bool save_tensors(flis_ctx *ctx, const char *path, const tensor_list *list, const fact *facts, size_t fact_count)
{
    flis_writer *writer = flis_write_begin(ctx, path);
    for (size_t i = 0; writer && i < fact_count; i++) flis_write_metadata(ctx, writer, facts[i].key, facts[i].value);
    for (size_t i = 0; writer && i < list->count; i++) {
        const named_tensor *t = &list->item[i];
        flis_write_declare(ctx, writer, t->name, t->dtype, t->rank, t->shape);
    }
    for (size_t i = 0; writer && i < list->count; i++) {
        const named_tensor *t = &list->item[i];
        if (t->dtype == FLIS_U8) flis_write_u8(ctx, writer, t->values, t->count);
        else if (t->dtype == FLIS_I64) flis_write_i64(ctx, writer, t->values, t->count);
        else flis_write_real(ctx, writer, t->values, t->count);
    }
    return writer && flis_write_end(ctx, writer);
}
