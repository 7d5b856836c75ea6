/* lis_page.c - layouts beside pictures, thousands of them, on one page.
 *
 * Layouts are PNG pictures inside the page, pictures are links that a browser loads when they come into view. Rows out of
 * view are not laid out (content-visibility), so that 5,000 rows open at once.
 */
#include "tools/flis/lis_page.h"

#include <stdlib.h>
#include <string.h>

enum { LAYOUT_SIDE = 128, JUMP = 100 }; /* pixels at most; rows between two links of the head */

/* A page at work. */
typedef struct writer {
    flis_ctx *ctx;
    FILE *file;
    const char *path;
    const lis_page *page;
    size_t width, height;          /* of the layouts in the page */
    size_t pictures[CLASS_LABELS]; /* that have the class */
} writer;

static void put_style(const writer *w)
{
    fprintf(
        w->file,
        "<style>\n"
        ":root{color-scheme:light dark}\n"
        "body{font:15px/1.4 system-ui,sans-serif;margin:0 auto;padding:1rem;max-width:110rem}\n"
        "h1{font-size:1.4rem;margin:0 0 .3rem}h2{font-size:1.1rem}nav{line-height:1.9}nav a{margin-right:.5rem}\n"
        "main{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%%,22rem),1fr));gap:1.2rem;margin:1rem "
        "0}\n"
        "figure{margin:0;content-visibility:auto;contain-intrinsic-size:auto 15rem;scroll-margin-top:1rem}\n"
        "figure>a{display:grid;grid-template-columns:1fr 1fr;gap:3px}\n"
        "figure img{display:block;width:100%%;height:auto;aspect-ratio:%zu/%zu}\n"
        ".l{image-rendering:pixelated}\n"
        "figcaption{margin-top:.3rem;overflow-wrap:anywhere}small{opacity:.7}p{margin:.1rem 0}\n"
        "i{display:inline-block;width:.75em;height:.75em;margin-right:.25em;border:1px solid #8888;border-radius:2px}\n"
        "span{margin-right:.4em;white-space:nowrap}a:focus-visible{outline:3px solid Highlight;outline-offset:2px}\n"
        "ul{columns:13rem;padding:0;list-style:none}\n",
        w->page->width, w->page->height);
    for (int l = 0; l < CLASS_LABELS; l++) {
        uint8_t c[3];
        label_colour(l, c);
        if (!w->page->data->is_void[l]) fprintf(w->file, ".c%d{background:#%02x%02x%02x}", l, c[0], c[1], c[2]);
    }
    fputs("\n</style>\n", w->file);
}

static void put_head(const writer *w)
{
    const size_t rows = w->page->rows;
    fputs("<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n"
          "<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n<title>",
          w->file);
    print_html(w->file, w->page->title);
    fputs("</title>\n", w->file);
    put_style(w);
    fputs("</head><body>\n<h1>", w->file);
    print_html(w->file, w->page->title);
    fprintf(w->file,
            "</h1>\n<p>%zu picture%s of %zu x %zu, each beside its layout. Gray: void. A picture opens in full size. "
            "<a href=\"#classes\">All classes</a></p>\n",
            rows, rows == 1 ? "" : "s", w->page->width, w->page->height);
    if (rows > JUMP) {
        fputs("<nav aria-label=\"rows\">", w->file);
        for (size_t i = 0; i < rows; i += JUMP) fprintf(w->file, "<a href=\"#r%zu\">%zu</a>", i + 1, i + 1);
        fputs("</nav>\n", w->file);
    }
    fputs("<main>\n", w->file);
}

static void put_class(const writer *w, int label)
{
    const char *name = w->page->data->classes.name[label];
    fprintf(w->file, "<span title=\"%d\"><i class=\"c%d\"></i>", label, label);
    if (name) print_html(w->file, name);
    else fprintf(w->file, "label %d", label);
    fputs("</span> ", w->file);
}

/* The names of the classes, joined by blanks, as the prompt of a layout is made; free() it. */
static char *legend_of(const writer *w, const bool *seen)
{
    buffer text = {NULL, 0, 0};
    for (int l = 0; l < CLASS_LABELS; l++) {
        const char *name = w->page->data->classes.name[l];
        if (seen[l] && name) buffer_put(w->ctx, &text, "%s%s", text.length ? " " : "", name);
    }
    return text.at ? text.at : path_with(w->ctx, "", "");
}

/* The classes of a layout with their colours, in the prompt's order; the prompt too if it has other words. */
static void put_caption(writer *w, const lis_page_row *row, const bool *seen, const char *legend)
{
    const char *stem;
    size_t length;
    name_stem(base_name(row->picture), &stem, &length);
    char *name = flis_alloc(w->ctx, length + 1, 1);
    if (!name) return;
    memcpy(name, stem, length);
    fputs("<figcaption><small>", w->file);
    print_html(w->file, name);
    fprintf(w->file, " · seed %llu</small><p>", (unsigned long long)row->seed);
    free(name);
    for (int l = 0; l < CLASS_LABELS; l++) {
        if (!seen[l]) continue;
        put_class(w, l);
        w->pictures[l]++;
    }
    fputs("</p>", w->file);
    if (row->prompt && strcmp(row->prompt, legend) != 0) {
        fputs("<p>“", w->file);
        print_html(w->file, row->prompt);
        fputs("”</p>", w->file);
    }
    fputs("</figcaption>", w->file);
}

static bool put_layout(const writer *w, const flis_picture *map)
{
    size_t length;
    const flis_picture small = {w->width, w->height, 1, flis_alloc(w->ctx, w->width * w->height, 1)};
    if (!small.pixels) return false;
    flis_label_pil(map->pixels, map->height, map->width, small.pixels, small.height, small.width);
    uint8_t *png = label_png(w->ctx, &small, w->page->data->is_void, &length);
    free(small.pixels);
    if (!png) return false;
    fprintf(w->file, "<img class=\"l\" width=\"%zu\" height=\"%zu\" alt=\"layout\" src=\"data:image/png;base64,",
            w->width, w->height);
    print_base64(w->file, png, length);
    fputs("\">", w->file);
    free(png);
    return true;
}

static void put_picture(const writer *w, const lis_page_row *row, const char *legend)
{
    fprintf(w->file, "<img loading=\"lazy\" decoding=\"async\" width=\"%zu\" height=\"%zu\" alt=\"", w->page->width,
            w->page->height);
    print_html(w->file, row->prompt ? row->prompt : legend);
    fputs("\" src=\"", w->file);
    print_link(w->file, w->path, row->picture);
    fputs("\">", w->file);
}

static bool put_row(writer *w, size_t i)
{
    const lis_page_row *row = &w->page->row[i];
    flis_picture map = {0, 0, 0, NULL};
    bool seen[CLASS_LABELS] = {false}, good = flis_poll(w->ctx) && w->page->label(w->page->user, i, &map);
    if (good && map.channels != 1)
        good = flis_fail(w->ctx, "row %zu: got a label map of %zu channels, wanted 1", i + 1, map.channels);
    for (size_t k = 0; good && k < map.width * map.height; k++)
        seen[map.pixels[k]] = !w->page->data->is_void[map.pixels[k]];
    char *legend = good ? legend_of(w, seen) : NULL;
    if (legend) {
        fprintf(w->file, "<figure id=\"r%zu\"><a href=\"", i + 1);
        print_link(w->file, w->path, row->picture);
        fputs("\">", w->file);
        good = put_layout(w, &map);
        put_picture(w, row, legend);
        fputs("</a>", w->file);
        put_caption(w, row, seen, legend);
        fputs("</figure>\n", w->file);
    }
    free(legend);
    free(map.pixels);
    return good && flis_ok(w->ctx);
}

static void put_foot(const writer *w)
{
    fputs("</main>\n<h2 id=\"classes\">All classes, with the number of pictures that have them</h2>\n<ul>", w->file);
    for (int l = 0; l < CLASS_LABELS; l++) {
        if (!w->pictures[l]) continue;
        fputs("<li>", w->file);
        put_class(w, l);
        fprintf(w->file, "<small>%zu</small></li>\n", w->pictures[l]);
    }
    fputs("</ul>\n</body></html>\n", w->file);
}

/* A side of the layouts in the page: that of the pictures, unless the larger one is beyond LAYOUT_SIDE. */
static size_t layout_side(size_t side, size_t larger)
{
    const size_t scaled = larger > LAYOUT_SIDE ? side * LAYOUT_SIDE / larger : side;
    return scaled ? scaled : 1;
}

bool lis_page_write(flis_ctx *ctx, const char *path, const lis_page *page)
{
    const size_t larger = page->width > page->height ? page->width : page->height;
    writer w = {.ctx = ctx, .path = path, .page = page};
    flis_output o;
    w.width = layout_side(page->width, larger);
    w.height = layout_side(page->height, larger);
    w.file = flis_output_open(ctx, path, &o);
    if (!w.file) return false;
    put_head(&w);
    bool good = flis_ok(ctx);
    for (size_t i = 0; good && i < page->rows; i++) good = put_row(&w, i);
    put_foot(&w);
    if (!good) flis_output_abort(&o);
    return good && flis_output_close(ctx, &o);
}
