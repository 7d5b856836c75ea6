/* stage_inputs.c - what `flis stage` reads: tensors whose shapes are checked against patterns of letters. */
#include "tools/flis/command.h"

#include <stdlib.h>
#include <string.h>

/* Compares a shape with "n,77,d": a number must be equal; a letter must equal its earlier value, or takes this one. */
static bool shape_fits(stage *s, const char *pattern, const uint64_t *shape, int rank)
{
    size_t bound[128];
    memcpy(bound, s->dim, sizeof bound);
    for (int i = 0; i < rank; i++) {
        char *end = (char *)pattern;
        size_t want = *pattern >= '0' && *pattern <= '9' ? strtoul(pattern, &end, 10) : bound[(int)*end++];
        if (want ? shape[i] != want : shape[i] == 0 || shape[i] > SIZE_MAX) return false;
        if (!want) bound[(int)*pattern] = (size_t)shape[i];
        if (*end != (i + 1 < rank ? ',' : 0)) return false;
        pattern = end + 1;
    }
    memcpy(s->dim, bound, sizeof bound);
    return true;
}

const flis_entry *find_input(stage *s, const char *name, const char *pattern, bool optional)
{
    flis_ctx *ctx = &s->j->ctx;
    if (!flis_ok(ctx)) return NULL;
    const flis_entry *entry = flis_file_find(s->in, name);
    if (!entry) {
        if (!optional) flis_fail(ctx, "%s: tensor \"%s\": missing, wanted [%s]", s->j->set.in, name, pattern);
        return NULL;
    }
    int rank = 1, spare;
    for (const char *p = pattern; *p; p++) rank += *p == ',';
    spare = entry->rank == rank + 1 && entry->shape[0] == 1;
    if (entry->rank == rank + spare && shape_fits(s, pattern, entry->shape + spare, rank)) return entry;
    char got[160] = "", bound[160] = "";
    for (int i = 0; i < entry->rank; i++)
        text_append(got, sizeof got, "%s%llu", i ? "," : "", (unsigned long long)entry->shape[i]);
    for (const char *p = pattern; *p; p++)
        if (*p > '9' && s->dim[(int)*p])
            text_append(bound, sizeof bound, "%s%c = %zu", *bound ? ", " : " with ", *p, s->dim[(int)*p]);
    flis_fail(ctx, "%s: tensor \"%s\": got shape [%s], wanted [%s]%s", s->j->set.in, name, got, pattern, bound);
    return NULL;
}

flis_real *real_input(stage *s, const char *name, const char *pattern, bool optional)
{
    const flis_entry *entry = find_input(s, name, pattern, optional);
    flis_real *values = entry ? flis_alloc(&s->j->ctx, (size_t)flis_entry_count(entry), sizeof *values) : NULL;
    if (values) flis_file_read_real(&s->j->ctx, s->in, entry, values);
    return values;
}

int64_t *integer_input(stage *s, const char *name, const char *pattern, int64_t low, int64_t high, bool optional)
{
    flis_ctx *ctx = &s->j->ctx;
    const flis_entry *entry = find_input(s, name, pattern, optional);
    size_t count = entry ? (size_t)flis_entry_count(entry) : 0;
    int64_t *values = entry ? flis_alloc(ctx, count, sizeof *values) : NULL;
    if (!values || !flis_file_read_i64(ctx, s->in, entry, values)) return values;
    for (size_t i = 0; i < count; i++)
        if (values[i] < low || values[i] > high) {
            flis_fail(ctx, "%s: tensor \"%s\": value %zu: got %lld, wanted %lld to %lld", s->j->set.in, name, i,
                      (long long)values[i], (long long)low, (long long)high);
            break;
        }
    return values;
}

void free_rca(rca_input *r)
{
    free(r->label);
    free(r->class_ids);
}

bool read_rca(stage *s, rca_input *r, bool optional)
{
    flis_ctx *ctx = &s->j->ctx;
    bool has_label = flis_file_find(s->in, "label"), has_ids = flis_file_find(s->in, "class_ids");
    *r = (rca_input){0};
    if (optional && !has_label && !has_ids) return false;
    const flis_entry *entry = flis_file_find(s->in, "class_ids");
    if (entry && flis_entry_count(entry) == 0) { /* no class at all: every column stays attended */
        r->class_ids = flis_alloc(ctx, 1, sizeof *r->class_ids);
    } else {
        flis_real *ids = real_input(s, "class_ids", "k", false);
        r->class_ids = ids ? flis_alloc(ctx, s->dim['k'], sizeof *r->class_ids) : NULL;
        for (size_t i = 0; r->class_ids && i < s->dim['k']; i++) r->class_ids[i] = (float)ids[i];
        free(ids);
    }
    int64_t *label = integer_input(s, "label", "H,W", 0, 255, false);
    size_t count = s->dim['H'] * s->dim['W'];
    r->label = label && flis_ok(ctx) ? flis_alloc(ctx, count, 1) : NULL;
    for (size_t i = 0; r->label && i < count; i++) r->label[i] = (uint8_t)label[i];
    free(label);
    r->rca = (flis_rca){r->label, s->dim['H'], s->dim['W'], r->class_ids, s->dim['k']};
    return flis_ok(ctx);
}

flis_tensor *image_input(stage *s, const char *name, const char *pattern, size_t channels, char h, char w)
{
    flis_real *values = real_input(s, name, pattern, false);
    flis_tensor *x = NULL;
    if (flis_ok(&s->j->ctx))
        x = flis_from_nchw(&s->j->ctx, values, s->dim['n'], channels, s->dim[(int)h], s->dim[(int)w]);
    free(values);
    return x;
}
