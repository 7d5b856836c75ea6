/* lis_page.h - the page of `flis lis --grid`: layouts beside the pictures that were painted from them.
 *
 * One HTML file with the layouts inside it and links to the pictures. It needs no JavaScript and no server, and is written row
 * by row, so that memory does not grow with the number of pictures.
 *
 *   static bool read_label(void *user, size_t i, flis_picture *out);     the label map of row i; the page frees its pixels
 *   lis_page page = {.title = "COCO-Stuff", .data = &coco, .row = rows, .rows = 5000, .width = 512, .height = 512,
 *                    .label = read_label, .user = me};
 *   if (!lis_page_write(&ctx, "page.html", &page)) …
 */
#ifndef TOOLS_FLIS_LIS_PAGE_H
#define TOOLS_FLIS_LIS_PAGE_H

#include "tools/common/common.h"

typedef struct lis_page_row {
    const char *picture; /* its file */
    const char *prompt;  /* NULL: the names of the layout's classes, joined by blanks */
    uint64_t seed;
} lis_page_row;

/* Everything is borrowed. */
typedef struct lis_page {
    const char *title;
    const dataset *data; /* names of the classes, void labels */
    size_t width,
        height; /* of the pictures; layouts are shown in that shape, as the model sees them, 128 pixels at most */
    const lis_page_row *row;
    size_t rows;
    /* The label map of row i, 1 channel of any size; false: an error in the page's context. */
    bool (*label)(void *user, size_t i, flis_picture *out);
    void *user;
} lis_page;

/* Writes the page, atomically. Fails if it cannot be written, a label map cannot be read, or the context is interrupted. */
bool lis_page_write(flis_ctx *ctx, const char *path, const lis_page *page);

#endif
