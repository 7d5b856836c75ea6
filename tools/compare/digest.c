/* digest.c - digests of runs (--trace-digest): JSON with each tensor's shape and 64 samples, flat[0], flat[stride], … */
#include "tools/compare/compare.h"

#include <stdlib.h>
#include <string.h>

static double sample_value(const flis_json *json)
{
    if (json->type == FLIS_NUMBER) return json->number;
    if (strcmp(json->string, "NaN") == 0) return NAN;
    return *json->string == '-' ? -HUGE_VAL : HUGE_VAL;
}

static bool is_sample(const flis_json *json)
{
    return json->type == FLIS_NUMBER ||
           (json->type == FLIS_STRING && (strcmp(json->string, "NaN") == 0 || strcmp(json->string, "Infinity") == 0 ||
                                          strcmp(json->string, "-Infinity") == 0));
}

size_t samples_of(uint64_t count)
{
    return count < FLIS_SAMPLES ? (size_t)count : FLIS_SAMPLES;
}

size_t stride_of(uint64_t count)
{
    return count / FLIS_SAMPLES ? (size_t)(count / FLIS_SAMPLES) : 1;
}

static bool digest_entry(flis_ctx *ctx, const flis_json *json, flis_entry *e)
{
    const flis_json *name = flis_json_get(json, "name"), *dtype = flis_json_get(json, "dtype"),
                    *shape = flis_json_get(json, "shape");
    if (!name || name->type != FLIS_STRING || !dtype || dtype->type != FLIS_STRING || !shape ||
        shape->type != FLIS_ARRAY || shape->count > FLIS_MAX_DIMS)
        return false;
    while (e->dtype <= FLIS_BOOL && strcmp(flis_dtype_name(e->dtype), dtype->string) != 0) e->dtype++;
    if (e->dtype > FLIS_BOOL) return false;
    for (; e->rank < (int)shape->count; e->rank++) {
        const flis_json *size = &shape->item[e->rank];
        if (size->type != FLIS_NUMBER || !flis_json_u64(size, &e->shape[e->rank]) || e->shape[e->rank] > UINT32_MAX)
            return false;
    }
    return (e->name = copy_text(ctx, name->string)) != NULL;
}

/* One tensor's entry and samples. */
static bool digest_tensor(flis_ctx *ctx, const flis_json *json, flis_entry *e, double *out)
{
    const flis_json *samples = flis_json_get(json, "samples");
    if (!samples || samples->type != FLIS_ARRAY || !digest_entry(ctx, json, e) ||
        samples->count != samples_of(flis_entry_count(e)))
        return false;
    for (size_t i = 0; i < samples->count; i++) {
        if (!is_sample(&samples->item[i])) return false;
        out[i] = sample_value(&samples->item[i]);
    }
    return true;
}

static bool digest_read(flis_ctx *ctx, const flis_json *tensors, side *s)
{
    flis_file *file = s->file;
    s->samples = flis_alloc(ctx, tensors->count + 1, FLIS_SAMPLES * sizeof *s->samples);
    file->entry = flis_alloc(ctx, tensors->count + 1, sizeof *file->entry);
    while (flis_ok(ctx) && file->count < tensors->count) {
        const size_t at = file->count * FLIS_SAMPLES;
        const flis_json *json = &tensors->item[file->count];
        flis_entry *e = &file->entry[file->count++];
        if (!digest_tensor(ctx, json, e, s->samples + at))
            return flis_fail(ctx, "%s:%d:%d: wanted a tensor's name, dtype, shape and samples", file->path, json->line,
                             json->column);
        e->begin = at * sizeof *s->samples;
    }
    return flis_file_ready(ctx, file);
}

/* Safetensors begin with the header's length, whose last byte is 0. */
static bool begins_as_json(flis_ctx *ctx, const char *path)
{
    char begin[8] = {0};
    FILE *stream = input_open(ctx, path);
    const bool read = stream && fread(begin, 1, sizeof begin, stream) == sizeof begin;
    if (stream) fclose(stream);
    return read && *begin == '{' && begin[7];
}

bool digest_open(flis_ctx *ctx, const char *path, side *s)
{
    size_t length = 0;
    if (!begins_as_json(ctx, path)) return false;
    char *text = flis_read_file(ctx, path, (size_t)1 << 30, &length);
    flis_json *json = text ? flis_json_parse(ctx, path, text, length) : NULL;
    const flis_json *tensors = json ? flis_json_get(json, "tensors") : NULL;
    s->file = json ? flis_file_new(ctx, path) : NULL;
    if (s->file && (!tensors || tensors->type != FLIS_ARRAY))
        flis_fail(ctx, "%s: wanted a list of tensors, as --trace-digest writes it", path);
    if (s->file && flis_ok(ctx)) digest_read(ctx, tensors, s);
    flis_json_free(json);
    free(text);
    return flis_ok(ctx);
}
