/* test_mapped.c - weights that stay in their file against the same weights packed, to the bit: F32, F16, BF16 and F64, at odd
 * addresses, with edges of panels, blocks and bands, by fast code and definitions, mapped, from memory and read piece by piece;
 * non-finite values, and files that change while they are in use.
 */
#include "tests/unit/test.h"

/* ---- A file with one weight --------------------------------------------------------------------------------------- */

/* How the weight's bytes are reached. */
typedef enum { MAPPED, READ, IN_MEMORY, WAYS } way;

/* The weight twice: packed, and in its file. */
typedef struct pair {
    flis_param packed, mapped;
    flis_file *file;
    char *bytes; /* IN_MEMORY */
} pair;

static void fill(flis_real *x, size_t count, unsigned seed)
{
    const size_t shape[2] = {1, 3};
    char name[32];
    snprintf(name, sizeof name, "mapped%u", seed);
    flis_formula_weights(name, 2, shape, 0, count, x);
    for (size_t i = 0; i < count; i += 5)
        x[i] *= (flis_real)ldexp(1, -(int)(i % 26)); /* down to the subnormal halves */
}

/* One byte before the weight, so that its values lie at odd addresses. */
static void write_weight(flis_ctx *ctx, const char *path, flis_dtype dtype, const flis_param *p, const flis_real *x)
{
    const uint64_t one = 1, shape[4] = {p->shape[0], p->shape[1], p->shape[2], p->shape[3]};
    const uint8_t byte = 7;
    flis_writer *out = flis_write_begin(ctx, path);
    flis_write_declare(ctx, out, "byte", FLIS_U8, 1, &one);
    flis_write_declare(ctx, out, "w", dtype, p->rank, shape);
    flis_write_u8(ctx, out, &byte, 1);
    flis_write_real(ctx, out, x, flis_param_count(p));
    CHECK(flis_write_end(ctx, out), "%s", ctx->error);
}

static flis_file *reopen(flis_ctx *ctx, const char *path, way how, char **bytes)
{
    size_t length = 0;
    if (how != IN_MEMORY) return flis_file_open(ctx, path);
    *bytes = flis_read_file(ctx, path, 1 << 26, &length);
    return flis_file_open_memory(ctx, path, *bytes, length);
}

static pair pair_new(flis_ctx *ctx, const char *path, flis_dtype dtype, flis_param like, way how)
{
    pair w = {.packed = like, .mapped = like};
    const size_t count = flis_param_count(&like);
    flis_real *x = calloc(count, sizeof *x);
    fill(x, count, (unsigned)(count % 1000));
    write_weight(ctx, path, dtype, &like, x);
    flis_loader packs = {.file = w.file = reopen(ctx, path, how, &w.bytes)}, leaves = packs;
    if (w.file && flis_load_visit(ctx, &packs, "w", &w.packed)) {
        w.file->mapped = true;
        flis_load_visit(ctx, &leaves, "w", &w.mapped);
        CHECK(w.mapped.entry && !w.mapped.packed && !w.mapped.half && !w.mapped.value && !w.packed.entry,
              "the weight did not stay in its file");
        CHECK((w.mapped.entry->begin + w.file->shard[0].data) % 2 == 1, "the weight lies at an even address");
    }
    CHECK(flis_ok(ctx), "%s", ctx->error);
    free(x);
    return w;
}

static void pair_free(flis_ctx *ctx, pair *w)
{
    flis_free_visit(ctx, NULL, NULL, &w->packed);
    flis_free_visit(ctx, NULL, NULL, &w->mapped);
    flis_file_close(w->file);
    free(w->bytes);
}

/* READ: as on a system that maps no files. The map is put back for closing. */
static const unsigned char *hide_map(pair *w, way how)
{
    const unsigned char *map = w->file->shard[0].map;
    if (how == READ) w->file->shard[0].map = NULL;
    return map;
}

static void same(const flis_ctx *ctx, const char *what, const flis_tensor *a, const flis_tensor *b)
{
    CHECK(a && b && flis_ok(ctx), "%s: %s", what, ctx->error);
    if (!a || !b || !flis_ok(ctx)) return;
    size_t count = flis_count(a), wrong = 0, first = 0;
    for (size_t i = 0; i < count; i++)
        if (memcmp(&a->x[i], &b->x[i], sizeof *a->x) != 0 && !wrong++) first = i;
    CHECK(!wrong, "%s: %zu of %zu values differ from those of packed weights, first %zu: got %g, wanted %g", what,
          wrong, count, first, (double)b->x[first], (double)a->x[first]);
}

/* ---- Products ------------------------------------------------------------------------------------------------------- */

/* x is [1][h][w][channels]; a 3x3 kernel of every kind, or a matrix. */
static void product_case(flis_dtype dtype, way how, size_t side, size_t outputs, size_t channels, int kernel)
{
    static const flis_precision precisions[] = {FLIS_EXACT, FLIS_AS_TF32};
    flis_ctx ctx;
    char what[160];
    flis_init(&ctx);
    const size_t k = (size_t)kernel;
    const flis_param like = {.rank = kernel ? 4 : 2, .shape = {outputs, channels, k ? k : 0, k}};
    pair w = pair_new(&ctx, test_scratch("weight.safetensors"), dtype, like, how);
    flis_tensor *x = flis_image(&ctx, 1, side, side, channels);
    fill(x->x, flis_count(x), 3);
    const unsigned char *map = hide_map(&w, how);
    for (int run = 0; run < 4 && flis_ok(&ctx); run++) /* 0, 1: 1 and 2 threads; 2: the definition; 3: tf32 */
        for (int kind = FLIS_SAME; kind <= (kernel == 3 ? FLIS_UPSAMPLE2 : FLIS_SAME); kind++) {
            if (run == 2 && side * outputs * channels > 100000) continue;
            ctx.threads = run == 1 ? 2 : 1;
            ctx.naive = run == 2;
            ctx.precision = precisions[run == 3];
            snprintf(what, sizeof what, "%s, way %d, run %d, kind %d: %zu x %zu positions, %zu to %zu, kernel %d",
                     flis_dtype_name(dtype), (int)how, run, kind, side, side, channels, outputs, kernel);
            flis_mark mark = flis_here(&ctx);
            const flis_tensor *a = kernel ? flis_conv(&ctx, x, &w.packed, NULL, (flis_conv_kind)kind, NULL)
                                          : flis_linear(&ctx, x, &w.packed, NULL, NULL);
            const flis_tensor *b = kernel ? flis_conv(&ctx, x, &w.mapped, NULL, (flis_conv_kind)kind, NULL)
                                          : flis_linear(&ctx, x, &w.mapped, NULL, NULL);
            same(&ctx, what, a, b);
            flis_rewind(&ctx, mark);
        }
    w.file->shard[0].map = map;
    pair_free(&ctx, &w);
    flis_free(&ctx);
}

void test_mapped_products(void)
{
    static const flis_dtype types[] = {FLIS_F32, FLIS_F16, FLIS_BF16, FLIS_F64};
    for (int t = 0; t < 4; t++)
        for (int how = 0; how < WAYS; how++) {
            product_case(types[t], (way)how, 1, 1, 1, 0);
            product_case(types[t], (way)how, 3, 37, 300, how == 0 ? 0 : 1);
            product_case(types[t], (way)how, 4, 33, 36, 3);
        }
    product_case(FLIS_F32, MAPPED, 40, 70, 20, 3); /* several bands, in more than one share */
    product_case(FLIS_F16, MAPPED, 64, 3, 8, 3);
}

/* An embedding reads the rows that it needs; training widens them all. */
void test_mapped_tables(void)
{
    static const flis_dtype types[] = {FLIS_F32, FLIS_F16, FLIS_BF16};
    for (int t = 0; t < 3; t++)
        for (int how = 0; how < WAYS; how++) {
            flis_ctx ctx;
            flis_init(&ctx);
            const flis_param like = {.rank = 2, .shape = {50, 19}, .table = true};
            const int32_t ids[6] = {0, 49, 7, 7, 13, 1};
            pair w = pair_new(&ctx, test_scratch("table.safetensors"), types[t], like, (way)how);
            const unsigned char *map = hide_map(&w, (way)how);
            flis_param position = {.rank = 2, .shape = {3, 19}, .table = true};
            flis_real x[3 * 19], got[50 * 19], wanted[50 * 19];
            fill(x, 3 * 19, 4);
            flis_param_set(&ctx, &position, x, true);
            same(&ctx, "embedding", flis_embed(&ctx, ids, 2, &w.packed, &position),
                 flis_embed(&ctx, ids, 2, &w.mapped, &position));
            flis_param_get(&w.packed, wanted);
            flis_param_get(&w.mapped, got);
            CHECK(memcmp(got, wanted, sizeof got) == 0, "flis_param_get differs");
            CHECK(flis_param_train(&ctx, &w.mapped, 1) && w.mapped.grad && !w.mapped.entry &&
                      memcmp(w.mapped.value, wanted, sizeof wanted) == 0,
                  "a table from the file is not trained: %s", ctx.error);
            w.file->shard[0].map = map;
            flis_free_visit(&ctx, NULL, NULL, &position);
            pair_free(&ctx, &w);
            flis_free(&ctx);
        }
}

/* Gradients pass through frozen weights that stay in their file, and such weights can be trained. */
void test_mapped_gradients(void)
{
#ifndef FLIS_NAIVE
    flis_ctx ctx;
    flis_tape tape = {0};
    flis_init(&ctx);
    const flis_param like = {.rank = 4, .shape = {35, 33, 3, 3}};
    pair w = pair_new(&ctx, test_scratch("frozen.safetensors"), FLIS_F16, like, MAPPED);
    flis_real target[6 * 6 * 35], *grad[3];
    fill(target, sizeof target / sizeof *target, 5);
    for (int i = 0; i < 3 && flis_ok(&ctx); i++) {
        flis_param *p = i == 0 ? &w.packed : &w.mapped;
        if (i == 2) CHECK(flis_param_train(&ctx, p, 1) && p->packed && !p->entry, "%s", ctx.error);
        flis_tensor *x = flis_image(&ctx, 1, 6, 6, 33);
        fill(x->x, flis_count(x), 6);
        flis_tape_begin(&ctx, &tape);
        flis_watch(&ctx, x);
        flis_mse(&ctx, flis_conv(&ctx, x, p, NULL, FLIS_SAME, NULL), target, NULL, 1);
        flis_backward(&ctx);
        grad[i] = calloc(flis_count(x), sizeof **grad);
        if (flis_ok(&ctx) && x->grad->x) memcpy(grad[i], x->grad->x, flis_count(x) * sizeof **grad);
        flis_tape_end(&ctx);
        CHECK(flis_ok(&ctx) && memcmp(grad[i], grad[0], flis_count(x) * sizeof **grad) == 0 && grad[0][5] != 0,
              "gradient %d differs from that of packed weights: %s", i, ctx.error);
    }
    for (int i = 0; i < 3; i++) free(grad[i]);
    flis_tape_free(&tape);
    pair_free(&ctx, &w);
    flis_free(&ctx);
#endif
}

/* ---- What is wrong with a file ---------------------------------------------------------------------------------------- */

/* The first non-finite value is named when the weight is used, as loading names it. */
void test_mapped_nonfinite(void)
{
    static const flis_dtype types[] = {FLIS_F32, FLIS_F16, FLIS_BF16, FLIS_F64};
    static const size_t places[] = {0, 37, 70 * 100 - 1, 33 * 100 + 99};
    flis_real x[70 * 100];
    for (int t = 0; t < 4; t++)
        for (int i = 0; i < 8; i++) {
            flis_ctx ctx;
            char wanted[80];
            flis_init(&ctx);
            flis_param w = {.rank = 2, .shape = {70, 100}};
            const char *path = test_scratch("nonfinite.safetensors");
            fill(x, 70 * 100, 1);
            x[places[i % 4]] = i < 4 ? (flis_real)NAN : (flis_real)-INFINITY;
            x[70 * 100 - 1] = (flis_real)NAN; /* the first one is named */
            write_weight(&ctx, path, types[t], &w, x);
            flis_loader loader = {.file = flis_file_open(&ctx, path)};
            loader.file->mapped = true;
            CHECK(flis_load_visit(&ctx, &loader, "w", &w) && w.entry, "%s", ctx.error);
            flis_tensor *in = flis_rows(&ctx, 1, 3, 100);
            fill(in->x, flis_count(in), 2);
            ctx.naive = i % 2;
            ctx.threads = 2;
            snprintf(wanted, sizeof wanted, ": w: value %zu is NaN or infinite", places[i % 4]);
            flis_linear(&ctx, in, &w, NULL, NULL);
            CHECK(strstr(ctx.error, wanted) && strstr(ctx.error, path), "%s: got \"%s\", wanted \"%s\"",
                  flis_dtype_name(types[t]), ctx.error, wanted);
            flis_clear_error(&ctx);
            CHECK(!flis_param_train(&ctx, &w, 1) && strstr(ctx.error, wanted), "trained: %s", ctx.error);
            flis_free_visit(&ctx, NULL, NULL, &w);
            flis_file_close(loader.file);
            flis_free(&ctx);
        }
}

/* Cut, written to, replaced: the first two end in a sentence, the last leaves the old bytes in use. */
void test_mapped_changed(void)
{
    const char *path = test_scratch("changed.safetensors");
    for (int how = 0; how < 3; how++) {
        flis_ctx ctx;
        flis_init(&ctx);
        const flis_param like = {.rank = 2, .shape = {64, 300}};
        pair w = pair_new(&ctx, path, FLIS_F32, like, MAPPED);
        flis_tensor *x = flis_rows(&ctx, 1, 5, 300);
        fill(x->x, flis_count(x), 2);
        const flis_tensor *y = flis_linear(&ctx, x, &w.packed, NULL, NULL);
        FILE *file = how < 2 ? fopen(path, how == 0 ? "wb" : "ab") : NULL; /* "wb" cuts it to nothing */
        CHECK(how == 2 || (file && putc('x', file) == 'x' && fclose(file) == 0), "%s cannot be written", path);
        if (how == 2 && w.file->shard[0].map) { /* elsewhere files are opened by name each time */
            flis_real other[64 * 300] = {0};
            write_weight(&ctx, path, FLIS_F32, &like, other); /* a new file under the name */
            same(&ctx, "a file that was replaced", y, flis_linear(&ctx, x, &w.mapped, NULL, NULL));
        } else if (how < 2)
            CHECK(!flis_linear(&ctx, x, &w.mapped, NULL, NULL) && strstr(ctx.error, "was changed while it was in use"),
                  "got \"%s\"", ctx.error);
        pair_free(&ctx, &w);
        flis_free(&ctx);
    }
}
