/* layout.c - `flis layout`: the phrases, tokens and classes of a layout, and the cells of each id at every scale. */
#include "tools/flis/command.h"

#include <stdlib.h>
#include <string.h>

static void print_phrases_of(const flis_layout *layout, int id)
{
    bool any = false;
    for (size_t i = 0; i < layout->count; i++)
        if (layout->phrase[i].id == id) {
            fputs(any ? ", " : "", stdout);
            print_name(stdout, layout->phrase[i].text);
            any = true;
        }
    if (!any) putchar('-');
}

/* Of each token its number, its id, and the class that its column of the mask belongs to. */
static void print_prompt_tokens(job *j, const flis_layout *layout)
{
    flis_prompt prompt = {0};
    flis_vocab *vocab = find_vocab(j);
    if (!vocab && !j->set.vocab) { /* none was asked for: the rest is still useful */
        job_note(j, "note", "tokens are left out: %s", j->ctx.error);
        j->ctx.error[0] = 0;
        return;
    }
    if (vocab && flis_prompt_make(&j->ctx, vocab, layout->phrase, layout->count, &prompt)) {
        printf("\ntoken\tid\tclass\n");
        for (size_t i = 0; i < prompt.tokens; i++) {
            printf("%zu\t%ld\t", i + 1, (long)prompt.ids[i + 1]);
            if (i < prompt.classes) printf("%.0f\n", (double)prompt.class_ids[i]);
            else printf("-\n");
        }
        flis_prompt_free(&prompt);
    }
    flis_vocab_free(vocab);
}

const size_t SCALE_FACTOR[SCALES] = {1, 8, 16, 32, 64};

/* The label map is brought to the picture's size by PIL's nearest, and from there to the scales of the U-Net by torch's. */
bool count_cells(flis_ctx *ctx, const flis_picture *label, size_t width, size_t height, cell_counts *out)
{
    uint8_t *full = flis_alloc(ctx, width, height), *cells = flis_alloc(ctx, width, height);
    memset(out, 0, sizeof *out);
    if (full && cells) {
        flis_label_pil(label->pixels, label->height, label->width, full, height, width);
        for (size_t s = 0; s < SCALES; s++) {
            const size_t w = width / SCALE_FACTOR[s], h = height / SCALE_FACTOR[s];
            flis_label_torch(full, height, width, cells, h, w);
            for (size_t i = 0; i < w * h; i++) out->count[s][cells[i]]++;
        }
    }
    free(full);
    free(cells);
    return flis_ok(ctx);
}

static bool is_named(const flis_layout *layout, int id)
{
    for (size_t i = 0; i < layout->count; i++)
        if (layout->phrase[i].id == id) return true;
    return false;
}

static void print_areas(job *j, const flis_layout *layout)
{
    const size_t width = j->set.width, height = j->set.height;
    cell_counts cells;
    if (!count_cells(&j->ctx, &layout->label, width, height, &cells)) return;
    printf("\nid");
    for (size_t s = 0; s < SCALES; s++) {
        const size_t w = width / SCALE_FACTOR[s], h = height / SCALE_FACTOR[s];
        if (w == h) printf("\t%zu", w);
        else printf("\t%zux%zu", w, h);
    }
    printf("\tphrase\n");
    for (int id = 0; id < 256; id++) {
        if (!is_named(layout, id) && !cells.count[0][id]) continue;
        printf("%d", id);
        for (size_t s = 0; s < SCALES; s++) printf("\t%zu", cells.count[s][id]);
        printf("\t");
        print_phrases_of(layout, id);
        printf("\n");
    }
    flis_layout_warnings(&j->ctx, layout, width, height, j->ctx.warn, j->ctx.warn_user);
}

/* The table that gave the map its ids: pixels of the map itself, before it is brought to the picture's size. */
static void print_colors(const flis_layout *layout)
{
    if (!layout->colors) return;
    printf("\ncolour\tid\tpixels\tlabel\n");
    for (size_t i = 0; i < layout->colors; i++) {
        const flis_color *c = &layout->color[i];
        printf("#%02x%02x%02x\t%d\t%zu\t", c->red, c->green, c->blue, c->id, c->pixels);
        if (c->name) print_name(stdout, c->name);
        else putchar('-');
        putchar('\n');
    }
}

bool layout_check(flis_ctx *ctx, const char *path)
{
    return strcmp(path, "-") == 0 || input_check(ctx, path);
}

int run_layout(job *j)
{
    flis_ctx *ctx = &j->ctx;
    flis_layout layout = {0};
    if (!j->words) return missing_argument(j->program, "LAYOUT.json");
    if (j->words > 1) return unexpected_argument(j->program, j->word[1]);
    if (!layout_check(ctx, j->word[0]) || !flis_layout_read(ctx, j->word[0], &layout)) return 1;
    printf("prompt\t");
    for (size_t i = 0; i < layout.count; i++) {
        fputs(i ? " " : "", stdout);
        print_name(stdout, layout.phrase[i].text);
    }
    printf("\nlayout\t");
    if (layout.label.width) printf("%zux%zu\n", layout.label.width, layout.label.height);
    else printf("none: plain Stable Diffusion\n");
    printf("\nphrase\tid\n");
    for (size_t i = 0; i < layout.count; i++) {
        print_name(stdout, layout.phrase[i].text);
        printf("\t%d\n", layout.phrase[i].id);
    }
    print_colors(&layout);
    print_prompt_tokens(j, &layout);
    if (flis_ok(ctx) && layout.label.width) print_areas(j, &layout);
    flis_layout_free(&layout);
    return job_status(j);
}
