/* lis.c - `flis lis`: the paper's second task. The layouts of a data set, by the thousand; each becomes a picture of the classes
 * in it. FreestyleNet@5dcb8b8 scripts/LIS.py. SPEC 8.8.
 */
#include "tools/flis/lis.h"

#include <stdlib.h>
#include <string.h>

/* ---- Text features ------------------------------------------------------------------------------------------------------ */

/* What prompts' features may take; beyond it a prompt is encoded for each of its pictures. */
enum { MOST_KEPT = 256 << 20 };

static flis_real *encode(lis *l, const flis_clip *clip, const int32_t *ids, size_t *count)
{
    flis_ctx *ctx = &l->j->ctx;
    flis_mark mark = flis_here(ctx);
    const flis_tensor *y = flis_clip_encode(ctx, clip, ids, 1);
    flis_real *out = y ? flis_alloc(ctx, flis_count(y), sizeof *out) : NULL;
    if (out) memcpy(out, y->x, (*count = flis_count(y)) * sizeof *out);
    flis_rewind(ctx, mark);
    return out;
}

static bool encode_text(lis *l, const flis_clip *clip, const flis_vocab *vocab, const flis_phrase *phrase, size_t count,
                        flis_real **out, size_t *values)
{
    flis_prompt prompt = {0};
    if (flis_prompt_make(&l->j->ctx, vocab, phrase, count, &prompt)) *out = encode(l, clip, prompt.ids, values);
    flis_prompt_free(&prompt);
    return flis_ok(&l->j->ctx);
}

/* Gives the features of a picture's prompt to the library, if the text encoder is in memory; else the library encodes. */
static bool give_features(lis *l, const flis_model *model, const flis_vocab *vocab, const flis_layout *layout,
                          lis_prompt *p)
{
    flis_options *o = &l->j->options;
    const flis_clip *clip = flis_model_clip(model);
    char empty[] = "";
    if (!clip) return true;
    if (!l->uncond && o->sampling.scale != 1 &&
        !encode_text(l, clip, vocab, &(flis_phrase){empty, -1}, 1, &l->uncond, &o->features_count))
        return false;
    if (!p->features) {
        if (!encode_text(l, clip, vocab, layout->phrase, layout->count, &p->features, &o->features_count)) return false;
        l->kept += o->features_count * sizeof(flis_real);
    }
    o->features = p->features;
    o->uncond_features = l->uncond;
    return true;
}

/* After a picture: the features stay if another picture needs them. */
static void release_features(lis *l, lis_prompt *p)
{
    if (p->uses) p->uses--;
    if (!p->features || (p->uses && l->kept <= MOST_KEPT)) return;
    free(p->features);
    p->features = NULL;
    l->kept -= l->j->options.features_count * sizeof(flis_real);
}

/* ---- One picture ---------------------------------------------------------------------------------------------------------- */

char *lis_picture_path(lis *l, size_t i)
{
    buffer path = {NULL, 0, 0};
    const char *folder = l->j->set.outdir;
    buffer_put(&l->j->ctx, &path, "%s%s%s", folder, is_separator(folder[strlen(folder) - 1]) ? "" : "/",
               l->picture[i].name);
    return path.at;
}

/* The file's bytes: JPEG as the authors' program writes it, or PNG with all that makes it again. */
static uint8_t *file_bytes(lis *l, const flis_layout *layout, const flis_picture *picture, size_t i, size_t *length)
{
    job *j = l->j;
    if (j->set.format == FORMAT_JPEG) return jpeg_bytes(&j->ctx, picture, JPEG_QUALITY, length);
    j->with.layout = base_name(layout->label_path);
    j->set.of_batch = !j->set.by_picture;
    j->set.batch_number = i / j->set.batch;
    j->set.batch_index = i % j->set.batch;
    return picture_bytes(j, picture, layout, length);
}

static bool store(lis *l, const flis_layout *layout, const flis_picture *picture, size_t i)
{
    flis_ctx *ctx = &l->j->ctx;
    size_t length = 0;
    flis_sha256 sum;
    char *path = lis_picture_path(l, i);
    uint8_t *bytes = path ? file_bytes(l, layout, picture, i, &length) : NULL;
    if (bytes && output_write(ctx, path, bytes, length)) {
        flis_sha256_begin(&sum);
        flis_sha256_add(&sum, bytes, length);
        flis_sha256_end(&sum, l->picture[i].digest);
        l->picture[i].state = PICTURE_DONE;
    }
    free(bytes);
    free(path);
    return flis_ok(ctx);
}

/* Paints picture i. A failure that is the picture's own is noted and the run goes on; false: the run must stop. */
static bool paint(lis *l, const flis_model *model, const flis_vocab *vocab, size_t i)
{
    flis_ctx *ctx = &l->j->ctx;
    lis_picture *p = &l->picture[i];
    flis_picture picture = {0};
    flis_layout layout;
    const double began = seconds_now();
    bool painted = lis_layout(l, i, &layout) && lis_noise(l, i) &&
                   give_features(l, model, vocab, &layout, &l->prompt[p->prompt]) &&
                   flis_model_generate(ctx, model, vocab, &layout, &l->j->options, &picture);
    if (painted && store(l, &layout, &picture, i)) {
        p->seconds = seconds_now() - began;
        snprintf(p->shard, sizeof p->shard, "%llu/%llu", (unsigned long long)l->j->set.shard,
                 (unsigned long long)l->j->set.shards);
        l->done++;
    } else if (!painted && !*ctx->interrupted) lis_fail(l, i);
    release_features(l, &l->prompt[p->prompt]);
    flis_picture_free(&picture);
    flis_layout_free(&layout);
    return flis_ok(ctx);
}

/* ---- All of them ---------------------------------------------------------------------------------------------------------- */

/* For ctx->progress: the step of the present picture, after the number of pictures. */
static void show_step(void *user, const char *what, size_t done, size_t total)
{
    lis *l = user;
    if (strcmp(what, "sample") != 0 || !is_terminal(stderr)) return;
    progress_note(&l->j->progress, "picture", l->done + l->failed_painting, l->todo, "step %zu of %zu", done, total);
}

/* The whole model is kept if it is mapped, or if it and a large picture's activations fit into memory. */
static unsigned parts_to_keep(const job *j)
{
    const double activations = 2e9, weights = (double)j->model_bytes * (double)(sizeof(flis_real) / sizeof(float));
    return !j->set.packed || weights + activations < memory_available() ? FLIS_PARTS_PAINT : FLIS_PARTS_NONE;
}

static void paint_all(lis *l, const flis_vocab *vocab)
{
    job *j = l->j;
    flis_model *model = load_model(j, parts_to_keep(j));
    progress_end(&j->progress);
    j->progress.unit = "picture";
    j->ctx.progress = show_step;
    j->ctx.progress_user = l;
    for (size_t i = l->first; model && i < l->list.count && flis_ok(&j->ctx); i += l->step) {
        if (l->picture[i].state != PICTURE_TODO) continue;
        if (!paint(l, model, vocab, i)) break;
        if (l->picture[i].state == PICTURE_FAILED) l->failed_painting++;
        progress_show(&j->progress, "picture", l->done + l->failed_painting, l->todo);
        lis_manifest_write(l, false);
    }
    progress_end(&j->progress);
    flis_model_free(&model);
}

/* ---- The end ---------------------------------------------------------------------------------------------------------------- */

static void report_failures(lis *l)
{
    flis_ctx *ctx = &l->j->ctx;
    if (!l->failed) return;
    for (size_t i = l->first; i < l->list.count; i += l->step)
        if (l->picture[i].state == PICTURE_FAILED)
            fprintf(stderr, "%s: failed: %s: %s\n", l->j->program->name, l->picture[i].name, l->picture[i].error);
    flis_fail(ctx, "%zu of the layouts could not be painted (the lines above)", l->failed);
}

static void report(lis *l, size_t skipped)
{
    const settings *s = &l->j->set;
    if (!s->quiet)
        fprintf(stderr, "%s: %zu painted, %zu were there already, %zu failed; record: %s\n", l->j->program->name,
                l->done, skipped, l->failed, l->manifest);
    report_failures(l);
}

static void lis_free(lis *l)
{
    for (size_t i = 0; l->picture && i < l->list.count; i++) {
        free(l->picture[i].name);
        free(l->picture[i].error);
        free(l->picture[i].text);
    }
    for (size_t i = 0; i < l->prompts; i++) free(l->prompt[i].features);
    free(l->picture);
    free(l->by_name);
    free(l->prompt);
    free(l->uncond);
    free(l->settings.at);
    free(l->manifest);
    free(l->noise.code);
    names_free(&l->list);
    dataset_close(&l->set);
}

/* ---- The command -------------------------------------------------------------------------------------------------------------- */

static int check_usage(job *j)
{
    settings *s = &j->set;
    if (j->words) return unexpected_argument(j->program, j->word[0]);
    if (!s->data_root) return missing_argument(j->program, "--data-root DIR");
    if (!s->outdir) return missing_argument(j->program, "--outdir DIR");
    if (s->by_picture && s->fixed_code)
        return usage_error(j->program, "--fixed-code and --noise-by-picture exclude each other");
    if (s->plms) s->sampler = 0;
    return 0;
}

/* The run's own files must be none of what it reads. (The pictures are checked one by one against manifests.) */
static bool check_outputs(lis *l)
{
    const job *j = l->j;
    const settings *s = &j->set;
    const char *const in[] = {
        s->txt_file, s->dataset, *j->model_path ? j->model_path : NULL, *j->vocab_path ? j->vocab_path : NULL,
        s->vocab,    s->vae};
    const char *const out[] = {l->manifest, s->grid};
    return outputs_check(&l->j->ctx, in, sizeof in / sizeof *in, out, sizeof out / sizeof *out);
}

static void run(lis *l, flis_vocab *vocab)
{
    size_t skipped = 0;
    if (!lis_manifest_read(l) || !check_outputs(l)) return;
    for (size_t i = l->first; i < l->list.count; i += l->step) skipped += l->picture[i].state == PICTURE_DONE;
    if (lis_read_layouts(l, vocab) && lis_manifest_write(l, true)) {
        if (l->todo) paint_all(l, vocab);
        lis_manifest_write(l, true);
    }
    if (flis_ok(&l->j->ctx) && l->j->set.grid) lis_grid(l);
    progress_end(&l->j->progress);
    if (flis_ok(&l->j->ctx)) report(l, skipped);
}

int run_lis(job *j)
{
    flis_ctx *ctx = &j->ctx;
    lis l = {.j = j, .first = (size_t)j->set.shard - 1, .step = (size_t)j->set.shards};
    int status = check_usage(j);
    if (status) return status;
    job_begin(j);
    if (job_check_steps(j) && lis_list(&l) && make_folder(ctx, j->set.outdir) && find_model(j) && check_tensors(j)) {
        flis_vocab *vocab = find_vocab(j);
        if (vocab && find_digests(j) && model_digest(j)) run(&l, vocab);
        flis_vocab_free(vocab);
    } else if (!j->step_count) status = 2;
    lis_free(&l);
    return status ? status : job_status(j);
}
