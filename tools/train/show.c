/* show.c - pictures of fixed layouts every N steps, as the authors' image logger has them (FreestyleNet@5dcb8b8 main.py
 * ImageLogger): OUT.pictures/step-000123.png, one row per layout: its colours, the picture by the present weights, and that by
 * their averages where there are any. Seed, steps and guidance are fixed: `flis generate` with them paints the same from the
 * model. No random number and no weight of the training changes.
 */
#include "tools/train/train.h"

#include <stdlib.h>
#include <string.h>

enum { SHOW_SEED = 42, GAP = 8 };

/* ---- What is painted --------------------------------------------------------------------------------------------- */

/* An empty item; its label map [height][width]. */
static painted *add_item(job *j, size_t height, size_t width)
{
    painted *s = &j->show.item[j->show.count];
    s->label = flis_alloc(&j->ctx, height, width);
    s->height = height;
    s->width = width;
    s->layout = j->o.stage == LAYOUT;
    if (s->label) j->show.count++;
    return s->label ? s : NULL;
}

static bool put_phrases(job *j, painted *s, const flis_phrase *phrase, size_t count, const char *where)
{
    int16_t class_ids[FLIS_TOKENS], classes;
    if (!put_prompt(&j->ctx, j->vocab, phrase, count, s->ids, class_ids, &classes)) return flis_fail_in(&j->ctx, where);
    s->classes = (size_t)classes;
    for (size_t i = 0; i < FLIS_TOKENS; i++) s->class_ids[i] = class_ids[i];
    return true;
}

/* A layout as flis generate takes it. */
static bool add_json(job *j, const char *path)
{
    flis_layout layout;
    const size_t height = j->show.h * FLIS_FACTOR, width = j->show.w * FLIS_FACTOR;
    bool good = (j->o.stage == LAYOUT ? flis_layout_read : flis_layout_read_phrases)(&j->ctx, path, &layout);
    painted *s = good ? add_item(j, height, width) : NULL;
    good = s && put_phrases(j, s, layout.phrase, layout.count, path);
    if (good && layout.label.width)
        flis_label_pil(layout.label.pixels, layout.label.height, layout.label.width, s->label, height, width);
    if (good) s->layout = layout.label.width > 0;
    flis_layout_free(&layout);
    return good;
}

static bool add_photo(job *j, const photos *f, size_t at)
{
    const size_t side = (size_t)j->o.size;
    decoded photo;
    if (!decoded_make(&j->ctx, side, &photo)) return false;
    decode_photo(f, at, side, false, &photo);
    bool good = !*photo.error || flis_fail(&j->ctx, "%s", photo.error);
    painted *s = good ? add_item(j, side, side) : NULL;
    if (s) memcpy(s->label, photo.label, side * side);
    good = s && put_phrases(j, s, photo.phrase, photo.phrases, f->files.name[at]);
    decoded_free(&photo);
    return good;
}

static bool add_latents(job *j, const latents *l, size_t at)
{
    painted *s = add_item(j, l->h, l->w);
    if (!s) return false;
    memcpy(s->label, l->label + at * l->h * l->w, l->h * l->w);
    memcpy(s->ids, l->ids + at * FLIS_TOKENS, sizeof s->ids);
    s->classes = (size_t)l->classes[at];
    for (size_t i = 0; i < FLIS_TOKENS; i++) s->class_ids[i] = l->class_ids[at * FLIS_TOKENS + i];
    return true;
}

/* The layouts of --show, else samples of the validation set, else of the training's. */
static bool add_items(job *j)
{
    const bool apart = j->validation.count > 0;
    const photos *f = apart ? &j->validation.folder : &j->folder;
    const latents *l = apart ? &j->validation.data : &j->data;
    static const char *const ends[] = {".json", NULL};
    names files = {0};
    if (j->o.show && !list_folder(&j->ctx, j->o.show, ends, &files))
        names_add(&j->ctx, &files, NULL, j->o.show, strlen(j->o.show));
    const size_t of = j->o.show        ? files.count
                      : f->files.count ? f->files.count
                                       : l->count,
                 count = j->o.show_count < of ? (size_t)j->o.show_count : of;
    j->show.item = flis_alloc(&j->ctx, count, sizeof *j->show.item);
    for (size_t i = 0; i < count && flis_ok(&j->ctx); i++) {
        const size_t at = spread_evenly(i, count, of);
        if (j->o.show) add_json(j, files.name[at]);
        else if (f->files.count) add_photo(j, f, at);
        else add_latents(j, l, at);
    }
    names_free(&files);
    return flis_ok(&j->ctx);
}

bool show_prepare(job *j)
{
    flis_steps *steps;
    if (!j->o.show_every) return flis_ok(&j->ctx);
    const bool folder = learns_pictures(&j->o);
    j->show.h = folder ? (size_t)j->o.size / FLIS_FACTOR : j->data.h;
    j->show.w = folder ? j->show.h : j->data.w;
    steps = flis_alloc(&j->ctx, 1, sizeof *steps);
    const bool good = steps && (flis_steps_make(&j->ctx, &j->schedule, FLIS_PLMS, (int)j->o.show_steps, 0, steps) ||
                                flis_fail_in(&j->ctx, "--show-steps"));
    free(steps);
    if (!good || !(j->show.path = path_with(&j->ctx, j->o.out, ".pictures"))) return false;
    return make_folder(&j->ctx, j->show.path) && add_items(j);
}

void show_free(job *j)
{
    for (size_t i = 0; i < j->show.count; i++) free(j->show.item[i].label);
    free(j->show.item);
    free(j->show.path);
}

/* ---- Painting ---------------------------------------------------------------------------------------------------- */

/* flis_model_generate by the weights in training. */
static bool paint(job *j, const painted *s, flis_picture *out)
{
    flis_ctx *ctx = &j->ctx;
    const size_t h = j->show.h, w = j->show.w, count = 4 * h * w;
    const flis_sampling sampling = {FLIS_PLMS, (int)j->o.show_steps, 0, j->o.show_scale};
    flis_mark mark = flis_here(ctx);
    const flis_tensor *text = flis_clip_encode(ctx, j->m.clip, s->ids, 1),
                      *empty = flis_clip_encode(ctx, j->m.clip, j->empty, 1);
    float *drawn = flis_scratch(ctx, count, sizeof *drawn);
    flis_real *x = flis_scratch(ctx, count, sizeof *x);
    memset(out, 0, sizeof *out);
    if (!text || !empty || !drawn || !x) return false;
    flis_rng_seed(&ctx->rng, FLIS_RNG_CPU, SHOW_SEED);
    flis_randn(&ctx->rng, drawn, count);
    for (size_t i = 0; i < count; i++) x[i] = (flis_real)drawn[i];
    const flis_rca rca = {s->label, s->height, s->width, s->class_ids, s->classes};
    flis_guided guided = {j->m.unet, h, w, text->x, empty->x, s->layout ? &rca : NULL};
    const flis_model_fn model = {flis_guided_eps, NULL, &guided};
    if (flis_sample(ctx, &sampling, count, x, &model))
        flis_decode_picture(ctx, j->m.vae, flis_from_nchw(ctx, x, 1, 4, h, w), out);
    flis_rewind(ctx, mark);
    return flis_ok(ctx);
}

/* Copies a picture to the cell of a row and a column of the sheet. */
static void put_cell(flis_picture *sheet, size_t row, size_t column, const flis_picture *p)
{
    const size_t top = row * (p->height + GAP), left = column * (p->width + GAP);
    for (size_t y = 0; y < p->height; y++)
        memcpy(sheet->pixels + ((top + y) * sheet->width + left) * 3, p->pixels + y * p->width * 3, p->width * 3);
}

static void put_colours(const job *j, flis_picture *sheet, size_t row, const painted *s)
{
    const size_t height = j->show.h * FLIS_FACTOR, width = j->show.w * FLIS_FACTOR;
    for (size_t y = 0; y < height; y++)
        for (size_t x = 0; x < width; x++)
            label_colour(s->label[y * s->height / height * s->width + x * s->width / width],
                         sheet->pixels + ((row * (height + GAP) + y) * sheet->width + x) * 3);
}

static bool paint_all(job *j, flis_picture *sheet, size_t column, progress *shown_so_far, size_t *done, size_t total)
{
    for (size_t i = 0; i < j->show.count; i++) {
        flis_picture p;
        if (!paint(j, &j->show.item[i], &p)) return false;
        put_cell(sheet, i, column, &p);
        flis_picture_free(&p);
        (*done)++;
        if (is_terminal(stderr)) progress_show(shown_so_far, "paint", *done, total);
    }
    return true;
}

static bool paint_sheet(job *j, const char *path)
{
    const bool averages = j->training.ema > 0;
    const size_t first = j->o.stage == LAYOUT, columns = first + 1 + averages, count = j->show.count,
                 width = columns * (j->show.w * FLIS_FACTOR + GAP) - GAP,
                 height = count * (j->show.h * FLIS_FACTOR + GAP) - GAP;
    char step[24];
    progress shown_so_far = {.quiet = j->o.quiet, .unit = "picture"};
    size_t done = 0;
    flis_picture sheet = {width, height, 3, flis_alloc(&j->ctx, width * height, 3)};
    if (!sheet.pixels) return false;
    memset(sheet.pixels, 255, width * height * 3);
    progress_end(&j->progress);
    for (size_t i = 0; i < count && first; i++) put_colours(j, &sheet, i, &j->show.item[i]);
    bool good = paint_all(j, &sheet, first, &shown_so_far, &done, count * (1 + averages));
    if (good && averages) {
        averages_swap(j);
        good = paint_all(j, &sheet, first + 1, &shown_so_far, &done, count * 2);
        averages_swap(j);
    }
    progress_end(&shown_so_far);
    snprintf(step, sizeof step, "%llu", (unsigned long long)j->training.step);
    const char *const text[] = {"train.step", step, NULL};
    good = good && flis_write_png(&j->ctx, path, &sheet, text);
    flis_picture_free(&sheet);
    return good;
}

bool show_if_due(job *j, bool again)
{
    char path[PATH_ROOM];
    const uint64_t step = j->training.step;
    if (!j->o.show_every || (step % j->o.show_every && step != j->o.steps)) return true;
    const int used = snprintf(path, sizeof path, "%s/step-%06llu.png", j->show.path, (unsigned long long)step);
    if (used < 0 || used >= PATH_ROOM) return flis_fail(&j->ctx, "%.100s…: the name is too long", j->show.path);
    return (!again && kind_of_file(path) != FILE_ABSENT) || paint_sheet(j, path);
}
