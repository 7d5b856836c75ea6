/* lis_grid.c - --grid of `flis lis`: the page (lis_page.c) of the pictures that are finished, of all shards. */
#include "tools/flis/lis.h"
#include "tools/flis/lis_page.h"

#include <stdlib.h>

/* What the page asks for: rows are the finished pictures, by their indices. */
typedef struct grid {
    lis *l;
    size_t *index;
    char **path;
} grid;

static bool read_map(void *user, size_t i, flis_picture *out)
{
    const grid *g = user;
    flis_ctx *ctx = &g->l->j->ctx;
    char path[PATH_ROOM];
    return dataset_label_path(ctx, &g->l->set, g->l->j->set.data_root, g->l->picture[g->index[i]].source, path) &&
           flis_read_label(ctx, path, out);
}

/* Pictures of other shards are those that their records have, if the files are there. */
static size_t fill_rows(const grid *g, lis_page_row *row)
{
    lis *l = g->l;
    size_t rows = 0;
    for (size_t i = 0; i < l->list.count && flis_ok(&l->j->ctx); i++) {
        const lis_picture *p = &l->picture[i];
        const bool others = i % l->step != l->first && p->recorded;
        char *path = p->state == PICTURE_DONE || others ? lis_picture_path(l, i) : NULL;
        if (path && (p->state == PICTURE_DONE || kind_of_file(path) == FILE_REGULAR)) {
            g->index[rows] = i;
            g->path[rows] = path;
            row[rows++] = (lis_page_row){path, p->text, p->seed};
        } else free(path);
    }
    return rows;
}

bool lis_grid(lis *l)
{
    job *j = l->j;
    flis_ctx *ctx = &j->ctx;
    const size_t count = l->list.count;
    buffer title = {NULL, 0, 0};
    grid g = {l, flis_alloc(ctx, count, sizeof *g.index), flis_alloc(ctx, count, sizeof *g.path)};
    lis_page_row *row = flis_alloc(ctx, count, sizeof *row);
    const size_t rows = flis_ok(ctx) ? fill_rows(&g, row) : 0;
    buffer_put(ctx, &title, "%s: %zu of %zu layouts, painted by %s", base_name(l->set.name), rows, count,
               base_name(j->model_path));
    const lis_page page = {title.at, &l->set, j->options.width, j->options.height, row, rows, read_map, &g};
    const bool good = flis_ok(ctx) && lis_page_write(ctx, j->set.grid, &page);
    for (size_t i = 0; i < rows; i++) free(g.path[i]);
    free(g.path);
    free(g.index);
    free(row);
    free(title.at);
    return good;
}
