/* shared_layouts.c - compares flis' label grids with those that PIL and torch made from the authors' layouts; not part
 * of `make check`.
 *
 *   shared_layouts SHARED_DIR     reads layouts/layout_{boat,building,flower}.{json,png} and oracle/labels.safetensors
 *
 * Every cell at 512 (PIL's nearest from the file), 64, 32, 16 and 8 (torch's nearest from 512) must be equal, the JSON
 * of every layout must be read, and its layout_path ("examples/…", which is absent) must lead to the file beside it.
 * Exit 0 if so, 1 at any difference, 2 wrong usage.
 */
#include "tests/unit/test.h"

/* The number of cells that differ from the golden grid. If that cannot be read, all cells differ. */
static size_t differences(flis_ctx *ctx, flis_file *file, const char *name, const uint8_t *got, size_t side)
{
    char key[64];
    size_t bad = 0;
    snprintf(key, sizeof key, "%s.label%zu", name, side);
    const flis_entry *entry = flis_file_find(file, key);
    uint8_t *wanted = malloc(side * side);
    if (!entry || flis_entry_count(entry) != side * side || !wanted || !flis_file_read_u8(ctx, file, entry, wanted)) {
        printf("%s: missing, of another size, or unreadable: %s\n", key, ctx->error);
        bad = side * side;
    } else
        for (size_t i = 0; i < side * side; i++) bad += got[i] != wanted[i];
    printf("%s: %zu of %zu cells differ\n", key, bad, side * side);
    free(wanted);
    return bad;
}

static size_t check_layout(flis_ctx *ctx, flis_file *file, const char *shared, const char *name)
{
    char path[1024];
    flis_layout layout;
    size_t bad = 0;
    snprintf(path, sizeof path, "%s/layouts/layout_%s.json", shared, name);
    if (!flis_layout_read(ctx, path, &layout)) {
        printf("%s\n", ctx->error);
        return 1;
    }
    printf("%s: %zu phrases, %zu x %zu pixels\n", name, layout.count, layout.label.width, layout.label.height);
    uint8_t *full = malloc(512 * 512), *grid = malloc(64 * 64);
    if (full && grid && layout.label.width) {
        flis_label_pil(layout.label.pixels, layout.label.height, layout.label.width, full, 512, 512);
        bad += differences(ctx, file, name, full, 512);
        for (size_t side = 64; side >= 8; side /= 2) {
            flis_label_torch(full, 512, 512, grid, side, side);
            bad += differences(ctx, file, name, grid, side);
        }
    } else bad++;
    free(full);
    free(grid);
    flis_layout_free(&layout);
    return bad;
}

/* The other JSON files share pictures with the three; they only have to be read. */
static size_t check_variant(flis_ctx *ctx, const char *shared, const char *name)
{
    char path[1024];
    flis_layout layout;
    snprintf(path, sizeof path, "%s/layouts/layout_%s.json", shared, name);
    bool ok = flis_layout_read(ctx, path, &layout);
    printf("%s: %s\n", name, ok ? "read" : ctx->error);
    flis_layout_free(&layout);
    return !ok;
}

int main(int argc, char **argv)
{
    static const char *const names[] = {"boat", "building", "flower"};
    static const char *const variants[] = {"boat_new_object", "building_new_style", "flower_new_attribute"};
    char path[1024];
    size_t bad = 0;
    flis_ctx ctx;
    if (argc != 2) {
        fprintf(stderr, "usage: shared_layouts SHARED_DIR\n");
        return 2;
    }
    flis_init(&ctx);
    snprintf(path, sizeof path, "%s/oracle/labels.safetensors", argv[1]);
    flis_file *file = flis_file_open(&ctx, path);
    if (!file) {
        printf("%s\n", ctx.error);
        return 1;
    }
    for (int i = 0; i < 3; i++)
        bad += check_layout(&ctx, file, argv[1], names[i]) + check_variant(&ctx, argv[1], variants[i]);
    flis_file_close(file);
    flis_free(&ctx);
    printf("%s\n", bad ? "FAIL" : "ok");
    return bad != 0;
}
