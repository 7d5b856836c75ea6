/* lis_layouts.c - the layouts of a run: the list of pictures, their label maps, the prompts that their classes make.
 * FreestyleNet@5dcb8b8 scripts/LIS.py COCOVal and ADE20KVal.
 */
#include "tools/flis/lis.h"

#include <stdlib.h>
#include <string.h>

/* ---- The list -------------------------------------------------------------------------------------------------------- */

/* The label maps of a data set's validation folder, or of the root itself. */
static bool list_label_maps(lis *l)
{
    flis_ctx *ctx = &l->j->ctx;
    const char *root = l->j->set.data_root;
    char folder[PATH_ROOM];
    if (l->set.labels[1] && snprintf(folder, sizeof folder, "%s/%s", root, l->set.labels[1]) < PATH_ROOM &&
        kind_of_file(folder) == FILE_FOLDER)
        root = folder;
    return list_folder(ctx, root, LABEL_ENDINGS, &l->list) || flis_fail(ctx, "%s: there is no such folder", root);
}

/* NAME.jpg of ".../NAME.jpg". */
static char *picture_name(lis *l, const char *source)
{
    const char *stem;
    size_t length;
    buffer name = {NULL, 0, 0};
    name_stem(source, &stem, &length);
    if (!length) flis_fail(&l->j->ctx, "%s: \"%.200s\" names no picture", l->j->set.txt_file, source);
    buffer_put(&l->j->ctx, &name, "%.*s%s", (int)length, stem, l->j->set.format == FORMAT_JPEG ? ".jpg" : ".png");
    return name.at;
}

typedef struct named_index {
    const char *name;
    size_t index;
} named_index;

static int by_name(const void *a, const void *b)
{
    return strcmp(((const named_index *)a)->name, ((const named_index *)b)->name);
}

/* Two lines with one name would paint into one file. */
static bool sort_names(lis *l)
{
    flis_ctx *ctx = &l->j->ctx;
    const size_t count = l->list.count;
    named_index *sorted = flis_alloc(ctx, count, sizeof *sorted);
    l->by_name = flis_alloc(ctx, count, sizeof *l->by_name);
    for (size_t i = 0; sorted && i < count; i++) sorted[i] = (named_index){l->picture[i].name, i};
    if (sorted && l->by_name) qsort(sorted, count, sizeof *sorted, by_name);
    for (size_t i = 0; sorted && l->by_name && i < count; i++) {
        l->by_name[i] = sorted[i].index;
        if (i && strcmp(sorted[i].name, sorted[i - 1].name) == 0 && flis_ok(ctx))
            flis_fail(ctx, "'%s' and '%s' would both be painted to '%s'", l->list.name[sorted[i - 1].index],
                      l->list.name[sorted[i].index], sorted[i].name);
    }
    free(sorted);
    return flis_ok(ctx);
}

bool lis_list(lis *l)
{
    flis_ctx *ctx = &l->j->ctx;
    const settings *s = &l->j->set;
    bool folder = false;
    if (!dataset_open(ctx, s->dataset, &l->set)) return false;
    if (kind_of_file(s->data_root) != FILE_FOLDER) return flis_fail(ctx, "%s: there is no such folder", s->data_root);
    if (s->txt_file && kind_of_file(s->txt_file) == FILE_FOLDER)
        return flis_fail(ctx, "%s: is a folder, wanted a file with a picture's name on each line", s->txt_file);
    if (s->txt_file ? !list_files(ctx, s->txt_file, LABEL_ENDINGS, &l->list, &folder) : !list_label_maps(l))
        return false;
    l->picture = flis_alloc(ctx, l->list.count, sizeof *l->picture);
    for (size_t i = 0; l->picture && i < l->list.count && flis_ok(ctx); i++) {
        l->picture[i].source = l->list.name[i];
        l->picture[i].name = picture_name(l, l->list.name[i]);
        l->picture[i].seed = s->by_picture ? s->seed + i : s->seed;
    }
    return flis_ok(ctx) && sort_names(l);
}

/* ---- One layout ------------------------------------------------------------------------------------------------------ */

/* A layout of void alone has the empty prompt, and nothing is masked. */
static bool add_empty_phrase(flis_ctx *ctx, flis_layout *out)
{
    out->phrase[0] = (flis_phrase){path_with(ctx, "", ""), -1};
    out->count = 1;
    return flis_ok(ctx);
}

bool lis_layout(lis *l, size_t i, flis_layout *out)
{
    flis_ctx *ctx = &l->j->ctx;
    const size_t width = l->j->options.width, height = l->j->options.height;
    char path[PATH_ROOM];
    memset(out, 0, sizeof *out);
    if (!dataset_label_path(ctx, &l->set, l->j->set.data_root, l->picture[i].source, path) ||
        !flis_read_label(ctx, path, &out->label))
        return false;
    out->label_path = path_with(ctx, path, "");
    uint8_t *label = flis_alloc(ctx, width, height);
    if (label) {
        flis_label_pil(out->label.pixels, out->label.height, out->label.width, label, height, width);
        dataset_phrases(ctx, &l->set, path, label, width * height, &out->phrase, &out->count);
        if (flis_ok(ctx) && !out->count) add_empty_phrase(ctx, out);
    }
    free(label);
    if (flis_ok(ctx)) return true;
    flis_layout_free(out);
    return false;
}

/* ---- All of a shard ---------------------------------------------------------------------------------------------------- */

void lis_fail(lis *l, size_t i)
{
    flis_ctx *ctx = &l->j->ctx, plain = FLIS_CTX_PLAIN;
    l->picture[i].state = PICTURE_FAILED;
    free(l->picture[i].error);
    l->picture[i].error = path_with(&plain, ctx->error, "");
    l->failed++;
    flis_clear_error(ctx);
}

/* The phrases, joined by blanks. */
static char *joined(flis_ctx *ctx, const flis_layout *layout)
{
    buffer text = {NULL, 0, 0};
    for (size_t i = 0; i < layout->count; i++) buffer_put(ctx, &text, "%s%s", i ? " " : "", layout->phrase[i].text);
    return text.at;
}

/* Whether it can be painted; keeps the prompt alone. */
static bool read_prompt(lis *l, const flis_vocab *vocab, size_t i)
{
    flis_ctx *ctx = &l->j->ctx;
    flis_layout layout;
    flis_prompt prompt = {0};
    if (!lis_layout(l, i, &layout)) return false;
    free(l->picture[i].text);
    l->picture[i].text = joined(ctx, &layout);
    if (!flis_prompt_make(ctx, vocab, layout.phrase, layout.count, &prompt)) flis_fail_in(ctx, layout.label_path);
    flis_prompt_free(&prompt);
    flis_layout_free(&layout);
    return flis_ok(ctx);
}

/* Numbers the different prompts of the pictures that are to be painted. */
static bool number_prompts(lis *l)
{
    flis_ctx *ctx = &l->j->ctx;
    named_index *sorted = flis_alloc(ctx, l->todo, sizeof *sorted);
    size_t count = 0;
    l->prompt = flis_alloc(ctx, l->todo, sizeof *l->prompt);
    if (!sorted || !l->prompt) return free(sorted), flis_ok(ctx);
    for (size_t i = l->first; i < l->list.count; i += l->step)
        if (l->picture[i].state == PICTURE_TODO) sorted[count++] = (named_index){l->picture[i].text, i};
    if (count) qsort(sorted, count, sizeof *sorted, by_name);
    for (size_t i = 0; i < count; i++) {
        if (!i || strcmp(sorted[i].name, sorted[i - 1].name) != 0) l->prompts++;
        l->picture[sorted[i].index].prompt = l->prompts - 1;
        l->prompt[l->prompts - 1].uses++;
    }
    free(sorted);
    return true;
}

bool lis_read_layouts(lis *l, const flis_vocab *vocab)
{
    job *j = l->j;
    size_t read = 0, wanted = 0;
    for (size_t i = l->first; i < l->list.count; i += l->step) wanted += l->picture[i].state == PICTURE_TODO;
    j->progress.unit = "layout";
    for (size_t i = l->first; i < l->list.count && flis_poll(&j->ctx); i += l->step) {
        if (l->picture[i].state != PICTURE_TODO) continue;
        if (read_prompt(l, vocab, i)) l->todo++;
        else lis_fail(l, i);
        if (is_terminal(stderr)) progress_show(&j->progress, "read", ++read, wanted);
    }
    progress_end(&j->progress);
    return flis_ok(&j->ctx) && number_prompts(l);
}
