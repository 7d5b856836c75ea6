/* layouts.c - vectors of label maps and of the masks that they give. */
#include "tools/golden/golden.h"

#include <stdlib.h>

/* A label map of six regions with ragged edges, so that a wrong source index changes the output. */
static const char LABEL_RULE[] = "1 + floor((3 x + y mod 3) / W) + 3 floor(2 y / H), of row y and column x";
void label_values(uint8_t *label, size_t h, size_t w)
{
    for (size_t y = 0; y < h; y++)
        for (size_t x = 0; x < w; x++) {
            const size_t third = (3 * x + y % 3) / w;
            label[y * w + x] = (uint8_t)(1 + (third < 2 ? third : 2) + 2 * y / h * 3);
        }
}

void label_input(golden *g, const char *name, uint8_t *label, size_t h, size_t w)
{
    const size_t shape[2] = {h, w};
    label_values(label, h, w);
    int64_t *whole = flis_alloc(&g->ctx, h * w, sizeof *whole);
    for (size_t i = 0; whole && i < h * w; i++) whole[i] = label[i];
    if (whole) whole_input(g, name, FLIS_U8, 2, shape, LABEL_RULE, whole);
    free(whole);
}

/* Label maps whose values are their indices show the source index of each output. */
static void resize_vectors(golden *g)
{
    uint8_t in[44 * 50], big[64 * 64], small[64 * 11];
    const size_t big_shape[2] = {64, 64}, small_shape[2] = {11, 7};
    vector_begin(g, "label.pil", 4, "4.1", "44x50 to 64x64 by PIL's NEAREST: source index floor((i + 0.5) in / out)",
                 "torch's rule, floor(i in / out); rounding");
    label_input(g, "label", in, 44, 50);
    for (size_t i = 0; i < sizeof in; i++) in[i] = (uint8_t)(i % 251);
    int64_t whole[sizeof in];
    const size_t in_shape[2] = {44, 50};
    for (size_t i = 0; i < sizeof in; i++) whole[i] = in[i];
    whole_input(g, "places", FLIS_U8, 2, in_shape, "flat index mod 251", whole);
    flis_label_pil(in, 44, 50, big, 64, 64);
    byte_output(g, "y", 2, big_shape, big, EXACT);
    vector_end(g);
    vector_begin(g, "label.torch", 4, "4.2", "64x64 to 11x7 by torch's nearest: source index floor(i float(in / out))",
                 "PIL's rule, which looks up the middle of the new pixel: regions move by half a cell");
    int64_t indices[64 * 64];
    for (size_t i = 0; i < 64 * 64; i++) indices[i] = big[i] = (uint8_t)(i % 251);
    whole_input(g, "places", FLIS_U8, 2, big_shape, "flat index mod 251", indices);
    flis_label_torch(big, 64, 64, small, 11, 7);
    byte_output(g, "y", 2, small_shape, small, EXACT);
    vector_end(g);
}

/* Two tokens of one class, one attended everywhere (-1), one of a class that the label map does not have. */
const float CLASS_IDS[CLASSES] = {1, 1, 5, 2, 3, -1, 9, 6};
void classes_input(golden *g, const char *name)
{
    const size_t shape = CLASSES;
    int64_t ids[CLASSES];
    for (int i = 0; i < CLASSES; i++) ids[i] = (int64_t)CLASS_IDS[i];
    whole_input(g, name, FLIS_I64, 1, &shape, "[1, 1, 5, 2, 3, -1, 9, 6]", ids);
}

static void mask_vector(golden *g, const char *id, int item, const char *what, const char *catches, size_t height,
                        size_t width, size_t h, size_t w)
{
    char name[NAME];
    const size_t shape[2] = {h * w, FLIS_TOKENS};
    vector_begin(g, id, item, "4.3", what, catches);
    uint8_t *label = flis_alloc(&g->ctx, height * width, 1), *mask = flis_alloc(&g->ctx, h * w * FLIS_TOKENS, 1);
    given(g, "h", "%zu", h);
    given(g, "w", "%zu", w);
    snprintf(name, sizeof name, "rca/label.%zux%zu", height, width);
    if (label) label_input(g, name, label, height, width);
    classes_input(g, "rca/class_ids");
    const flis_rca rca = {label, height, width, CLASS_IDS, CLASSES};
    if (label && mask && flis_rca_mask(&g->ctx, &rca, h, w, mask)) byte_output(g, "mask", 2, shape, mask, EXACT);
    free(label);
    free(mask);
    vector_end(g);
}

static void mask_vectors(golden *g)
{
    static const char catches[] = "column k instead of k + 1, class -1 masked, a class that is absent left open, PIL's "
                                  "rule of nearest, H and W swapped";
    mask_vector(g, "rca.mask.0", 1, "the mask of the first level, 16x16, of a 128x128 picture; 1 open, 0 closed",
                catches, 128, 128, 16, 16);
    mask_vector(g, "rca.mask.1", 1, "of the second level, 8x8", catches, 128, 128, 8, 8);
    mask_vector(g, "rca.mask.2", 1, "of the third level, 4x4", catches, 128, 128, 4, 4);
    mask_vector(g, "rca.mask.3", 1, "of the middle block, 2x2: regions vanish, and their columns close everywhere",
                catches, 128, 128, 2, 2);
    mask_vector(g, "rca.mask.not-square", 6, "16x8, of a picture 64 wide and 128 high",
                "latents taken for square, H and W swapped", 128, 64, 16, 8);
}

void label_vectors(golden *g)
{
    resize_vectors(g);
    mask_vectors(g);
}
