/* convert.c - a checkpoint's tensors copied into a safetensors file, piece by piece: memory does not grow with the file. */
#include "tools/ckpt2safetensors/ckpt.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Where a tensor's values are read: in its storage, or in a part of it that is in memory. */
typedef struct window {
    uint64_t at; /* byte of the storage */
    unsigned char *bytes;
} window;

/* Loads the part of the storage that a tensor which is not contiguous spans, if that is not much more than the tensor: without
   it, a transposed matrix needs a read for each value. */
static bool window_open(checkpoint *c, const tensor *t, uint64_t count, window *w)
{
    const uint64_t most = (uint64_t)128 << 20, size = flis_dtype_size(t->dtype);
    uint64_t extent = 1;
    *w = (window){t->offset * size, NULL};
    for (int i = 0; i < t->rank; i++) extent += (t->shape[i] - 1) * t->stride[i];
    if (extent * size > most || extent > 4 * count + 65536) return true;
    w->bytes = flis_alloc(c->ctx, (size_t)(extent * size), 1);
    return w->bytes && read_storage(c, t->storage, w->at, w->bytes, (size_t)(extent * size));
}

static double float_at(const unsigned char *bytes, flis_dtype dtype)
{
    const uint64_t bits = little_endian(bytes, (int)flis_dtype_size(dtype));
    const uint32_t low = (uint32_t)bits;
    double wide;
    float f;
    memcpy(&wide, &bits, sizeof wide);
    memcpy(&f, &low, sizeof f);
    return dtype == FLIS_F64   ? wide
           : dtype == FLIS_F32 ? (double)f
           : dtype == FLIS_F16 ? flis_half_to_float((uint16_t)bits)
                               : flis_bf16_to_float((uint16_t)bits);
}

/* Values that are read and written together; at most 8 bytes each. */
enum { PIECE = 8192 };

/* Writes `now` values and counts those that are NaN or infinite. A finite value that F16 cannot hold is an error: it would become
   infinite, and the model could not be loaded. */
static bool put_values(checkpoint *c, flis_writer *writer, const ckpt_tensor *of, const unsigned char *bytes,
                       size_t now, bool to_half, uint64_t *non_finite)
{
    const flis_dtype dtype = of->value->u.tensor->dtype;
    const size_t size = flis_dtype_size(dtype);
    double values[PIECE];
    if (dtype > FLIS_BF16) return flis_write_raw(c->ctx, writer, bytes, now);
    for (size_t i = 0; i < now; i++) {
        values[i] = float_at(bytes + i * size, dtype);
        const bool finite = values[i] - values[i] == 0;
        *non_finite += !finite;
        if (to_half && finite && fabs(values[i]) >= 65520)
            return flis_fail(
                c->ctx, "%s: tensor %.200s: got the value %g, wanted at most 65504 for F16: convert it without --half",
                c->path, of->name, values[i]);
    }
    return to_half ? flis_write_f64(c->ctx, writer, values, now) : flis_write_raw(c->ctx, writer, bytes, now);
}

/* Copies one tensor's values in order, one contiguous run after the other. */
static bool copy_values(checkpoint *c, flis_writer *writer, const ckpt_tensor *of, bool to_half, uint64_t *non_finite)
{
    unsigned char bytes[8 * PIECE];
    const tensor *t = of->value->u.tensor;
    const size_t size = flis_dtype_size(t->dtype);
    uint64_t index[FLIS_MAX_DIMS] = {0}, count = 1, run = 1;
    int inner = t->rank; /* dimensions inner..rank-1 are one contiguous run */
    window w = {t->offset * size, NULL};
    size_t kept = 0; /* values in `bytes`, not written yet */
    bool good = true;
    for (int i = 0; i < t->rank; i++) count *= t->shape[i];
    while (inner > 0 && (t->shape[inner - 1] == 1 || t->stride[inner - 1] == run)) run *= t->shape[--inner];
    if (count && inner > 0) good = window_open(c, t, count, &w);
    for (uint64_t done = 0; good && done < count; done += run) {
        uint64_t from = 0;
        for (int i = 0; i < inner; i++) from += index[i] * t->stride[i];
        for (uint64_t part = 0; good && part < run;) {
            const size_t now = run - part < PIECE - kept ? (size_t)(run - part) : PIECE - kept;
            if (w.bytes) memcpy(bytes + kept * size, w.bytes + (from + part) * size, now * size);
            else good = read_storage(c, t->storage, w.at + (from + part) * size, bytes + kept * size, now * size);
            part += now;
            kept += now;
            if (kept < PIECE) continue;
            good = good && flis_poll(c->ctx) && put_values(c, writer, of, bytes, kept, to_half, non_finite);
            kept = 0;
        }
        for (int i = inner; i-- > 0;) {
            if (++index[i] < t->shape[i]) break;
            index[i] = 0;
        }
    }
    free(w.bytes);
    return good && (!kept || put_values(c, writer, of, bytes, kept, to_half, non_finite));
}

/* Whether --half stores this type as F16. */
static bool narrows(const conversion *o, flis_dtype dtype)
{
    return o->half && (dtype == FLIS_F32 || dtype == FLIS_F64 || dtype == FLIS_BF16);
}

static void write_metadata(checkpoint *c, flis_writer *writer, const conversion *o)
{
    for (size_t i = 0; i < o->sets; i++) {
        const size_t length = strcspn(o->set[i], "=");
        char *key = flis_alloc(c->ctx, length + 1, 1);
        if (!key) return;
        memcpy(key, o->set[i], length);
        key[length] = 0;
        flis_write_metadata(c->ctx, writer, key, o->set[i] + length + 1);
        free(key);
    }
}

static void write_tensors(checkpoint *c, const conversion *o)
{
    enum { SHOWN = 3 };
    size_t count = 0, warned = 0;
    ckpt_tensor *list = choose_tensors(c, o, &count);
    flis_writer *writer = list ? flis_write_begin(c->ctx, o->out) : NULL;
    if (writer) write_metadata(c, writer, o);
    for (size_t i = 0; writer && i < count; i++) {
        const tensor *t = list[i].value->u.tensor;
        flis_write_declare(c->ctx, writer, list[i].name, narrows(o, t->dtype) ? FLIS_F16 : t->dtype, t->rank, t->shape);
    }
    for (size_t i = 0; writer && i < count; i++) {
        uint64_t non_finite = 0;
        if (!copy_values(c, writer, &list[i], narrows(o, list[i].value->u.tensor->dtype), &non_finite)) break;
        if (!non_finite || o->quiet || ++warned > SHOWN) continue;
        fputs("ckpt2safetensors: warning: tensor ", stderr);
        print_name(stderr, list[i].name);
        fprintf(stderr, ": %llu of its values are NaN or infinite\n", (unsigned long long)non_finite);
    }
    if (warned > SHOWN)
        fprintf(stderr, "ckpt2safetensors: warning: %zu more tensors have values that are NaN or infinite\n",
                warned - SHOWN);
    const bool done = writer && flis_write_end(c->ctx, writer);
    for (size_t i = 0; done && !o->quiet && i < c->notes; i++) {
        fputs("ckpt2safetensors: ", stderr);
        print_name(stderr, c->note[i]);
        fputc('\n', stderr);
    }
    if (done && !o->quiet) fprintf(stderr, "%s: %zu tensors\n", o->out, count);
    free(list);
}

void convert_checkpoint(flis_ctx *ctx, const conversion *o)
{
    checkpoint c;
    if (!outputs_check(ctx, &o->in, 1, &o->out, 1) || !binary_check(ctx, o->out)) return;
    if (checkpoint_read(ctx, &c, o->in)) write_tensors(&c, o);
    checkpoint_close(&c);
}
