/* test_npy.c - NumPy's files: .npy of every kind, .npz, and damaged ones. The bytes are those that NumPy 1.24 writes. */
#include "tests/unit/test.h"
#include "tools/common/common.h"

/* A file of version 1: a header of `dictionary`, then `values`. Returns its length. */
static size_t write_npy(uint8_t *out, const char *dictionary, const void *values, size_t bytes)
{
    const size_t header = strlen(dictionary);
    memcpy(out, "\x93NUMPY\1\0", 8);
    out[8] = (uint8_t)header, out[9] = (uint8_t)(header >> 8);
    memcpy(out + 10, dictionary, header);
    memcpy(out + 10 + header, values, bytes);
    return 10 + header + bytes;
}

static void check_values(const char *dictionary, const void *values, size_t bytes, size_t count, const double *wanted)
{
    uint8_t file[512];
    npy_array a;
    flis_ctx ctx;
    flis_init(&ctx);
    const size_t length = write_npy(file, dictionary, values, bytes);
    CHECK(npy_parse(&ctx, "a.npy", file, length, &a), "%s: %s", dictionary, ctx.error);
    CHECK(a.count == count, "%s: got %zu values, wanted %zu", dictionary, a.count, count);
    for (size_t i = 0; i < a.count; i++) {
        CHECK(npy_number(&a, i) == wanted[i], "%s: value %zu is %g, wanted %g", dictionary, i, npy_number(&a, i),
              wanted[i]);
        if (a.kind != 'f')
            CHECK(npy_integer(&a, i) == (int64_t)wanted[i], "%s: value %zu is %d, wanted %g", dictionary, i,
                  (int)npy_integer(&a, i), wanted[i]);
    }
    flis_clear_error(&ctx);
    CHECK(!npy_parse(&ctx, "a.npy", file, length - 1, &a) && strstr(ctx.error, "a.npy: cut short"), "cut: \"%s\"",
          ctx.error);
    flis_free(&ctx);
}

void test_npy_types(void)
{
    static const double few[] = {1, -2, 0.5, 65504, 0x1p-24, -0.0};
    static const uint8_t half[] = {0x00, 0x3C, 0x00, 0xC0, 0x00, 0x38, 0xFF, 0x7B, 0x01, 0x00, 0x00, 0x80},
                         big[] = {0x3F, 0x80, 0, 0, 0xC0, 0, 0, 0},
                         wide[] = {0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFE, 0, 0, 0, 0, 0, 0, 1, 0},
                         bytes[] = {0x80, 0x7F, 0xFF};
    static const double signs[] = {-128, 127, -1}, no_signs[] = {128, 127, 255}, eight[] = {-2, 256},
                        turned[] = {0, 2, 4, 1, 3, 5};
    static const uint8_t order[] = {0, 1, 2, 3, 4, 5};
    check_values("{'descr': '<f2', 'fortran_order': False, 'shape': (6,), }\n", half, 12, 6, few);
    check_values("{'descr': '>f4', 'fortran_order': False, 'shape': (2,), }\n", big, 8, 2, few);
    check_values("{'shape': (1, 2L), \"descr\": \">i8\", 'fortran_order': False}", wide, 16, 2, eight);
    check_values("{'descr': '|i1', 'fortran_order': False, 'shape': (3,)}", bytes, 3, 3, signs);
    check_values("{'descr': '|u1', 'fortran_order': False, 'shape': (3, 1, 1)}", bytes, 3, 3, no_signs);
    /* [2][3] with the first index fastest: columns of two. */
    check_values("{'descr': '|u1', 'fortran_order': True, 'shape': (2, 3)}", order, 6, 6, turned);
    check_values("{'descr': '|b1', 'fortran_order': False, 'shape': ()}", order + 1, 1, 1, few);
}

void test_npy_infinities(void)
{
    static const uint8_t half[] = {0x00, 0x7C, 0x00, 0xFC, 0x01, 0x7E};
    uint8_t file[128];
    npy_array a;
    flis_ctx ctx;
    flis_init(&ctx);
    const size_t length = write_npy(file, "{'descr': '<f2', 'fortran_order': False, 'shape': (3,)}", half, 6);
    CHECK(npy_parse(&ctx, "a.npy", file, length, &a), "%s", ctx.error);
    CHECK(npy_number(&a, 0) > 1e300 && npy_number(&a, 1) < -1e300 && npy_number(&a, 2) != npy_number(&a, 2), "%g %g %g",
          npy_number(&a, 0), npy_number(&a, 1), npy_number(&a, 2));
    flis_free(&ctx);
}

static void check_refused(const char *dictionary, const char *sentence)
{
    uint8_t file[512];
    npy_array a;
    flis_ctx ctx;
    flis_init(&ctx);
    const size_t length = write_npy(file, dictionary, "12345678", 8);
    CHECK(!npy_parse(&ctx, "a.npy", file, length, &a) && strstr(ctx.error, sentence), "%s: got \"%s\", wanted \"%s\"",
          dictionary, ctx.error, sentence);
    flis_free(&ctx);
}

void test_npy_refused(void)
{
    flis_ctx ctx;
    npy_array a;
    check_refused("{'descr': '|O', 'fortran_order': False, 'shape': (1,)}", "holds Python objects");
    check_refused("{'descr': '<c8', 'fortran_order': False, 'shape': (1,)}", "got the type \"<c8\"");
    check_refused("{'descr': [('x', '<f4')], 'fortran_order': False, 'shape': (1,)}", "a table of several columns");
    check_refused("{'descr': '<f4', 'fortran_order': False, 'shape': (1,", "its header is damaged");
    check_refused("{'descr': '<f4", "its header is damaged");
    check_refused("{'descr': '<f4', 'shape': (1,)}", "its header is damaged");
    check_refused("{'descr': '<f4', 'fortran_order': False, 'shape': (1,1,1,1,1,1,1,1,1)}", "its header is damaged");
    check_refused("{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999,)}",
                  "its header is damaged");
    check_refused("{'descr': '<f4', 'fortran_order': False, 'shape': (4294967296,4294967296,4294967296)}",
                  "too many values");
    check_refused("{'descr': '<f4', 'fortran_order': False, 'shape': (3,)}", "got 8 bytes of values, wanted 12");
    flis_init(&ctx);
    CHECK(!npy_parse(&ctx, "a.npy", (const uint8_t *)"\x89PNG\r\n\x1a\n????", 12, &a) &&
              strstr(ctx.error, "a.npy: got a PNG"),
          "a picture: \"%s\"", ctx.error);
    flis_clear_error(&ctx);
    CHECK(!npy_parse(&ctx, "a.npy", (const uint8_t *)"\x93NUMPY\1\0\xFF\xFF{}", 12, &a) &&
              strstr(ctx.error, "cut short"),
          "a long header: \"%s\"", ctx.error);
    flis_free(&ctx);
}

/* One file for both compressions of the corpus: np.savez(mu=zeros(2), sigma=eye(2)). */
static void check_archive(const char *name, bool damage)
{
    char path[128];
    size_t length = 0;
    npz z;
    npy_array a = {.count = 0};
    flis_ctx ctx;
    flis_init(&ctx);
    snprintf(path, sizeof path, "fuzz/corpus/npy/%s", name);
    uint8_t *bytes = (uint8_t *)flis_read_file(&ctx, test_path(path), 1 << 20, &length);
    for (size_t i = 0; damage && bytes && i + 5 < length;
         i++) /* the order of bytes in a header: still an array, of other values */
        if (memcmp(bytes + i, "'<f8'", 5) == 0) bytes[i + 1] = '>';
    CHECK(bytes && npz_parse(&ctx, "a.npz", bytes, length, &z), "%s", ctx.error);
    if (!flis_ok(&ctx)) {
        flis_free(&ctx);
        return;
    }
    const int sigma = npz_find(&z, "sigma");
    CHECK(z.count == 2 && npz_find(&z, "mu") >= 0 && sigma >= 0 && npz_find(&z, "x") < 0, "names of the arrays");
    const bool good = sigma >= 0 && npz_array(&ctx, &z, sigma, &a);
    if (damage)
        CHECK(!good && strstr(ctx.error, "a.npz: array sigma: its bytes are damaged"), "damaged: \"%s\"", ctx.error);
    else
        CHECK(good && a.count == 4 && npy_number(&a, 0) == 1 && npy_number(&a, 1) == 0 && npy_number(&a, 3) == 1,
              "sigma: %s", ctx.error);
    npy_free(&a);
    npz_close(&z);
    flis_free(&ctx);
}

void test_npy_archive(void)
{
    check_archive("39dc44efa26f", false); /* stored */
    check_archive("6184e83acd53", false); /* deflated */
    check_archive("39dc44efa26f", true);
}

void test_npy_archive_refused(void)
{
    static const struct {
        size_t at; /* from the end of the stored archive */
        uint8_t value;
        const char *sentence;
    } damage[] = {{22, 'Q', "a zip file without a directory"}, {6, 0xFF, "the zip file's directory is damaged"}};
    for (size_t i = 0; i < sizeof damage / sizeof *damage; i++) {
        size_t length = 0;
        npz z;
        flis_ctx ctx;
        flis_init(&ctx);
        uint8_t *bytes = (uint8_t *)flis_read_file(&ctx, test_path("fuzz/corpus/npy/39dc44efa26f"), 1 << 20, &length);
        if (bytes) bytes[length - damage[i].at] = damage[i].value;
        CHECK(bytes && !npz_parse(&ctx, "a.npz", bytes, length, &z) && strstr(ctx.error, damage[i].sentence),
              "got \"%s\"", ctx.error);
        flis_free(&ctx);
    }
}
