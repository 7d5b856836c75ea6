/* generate.c - `flis generate`: a layout and its phrases in, a picture out. */
#include "tools/flis/command.h"

#include <stdlib.h>
#include <string.h>

/* The phrases as the authors join them. */
static char *prompt_text(flis_ctx *ctx, const flis_layout *layout)
{
    size_t room = 1;
    for (size_t i = 0; i < layout->count; i++) room += strlen(layout->phrase[i].text) + 1;
    char *text = flis_alloc(ctx, room, 1);
    for (size_t i = 0; text && i < layout->count; i++) {
        if (i) strcat(text, " ");
        strcat(text, layout->phrase[i].text);
    }
    return text;
}

/* Keys and values in turn, as flis_png_bytes takes them; at[count] stays NULL. */
typedef struct png_text {
    const char *at[2 * 16];
    size_t count;
} png_text;

static void keep_text(png_text *t, const char *key, const char *value)
{
    t->at[t->count++] = key;
    t->at[t->count++] = value;
}

/* Stores in the picture everything that reproduces it. Files are named without folders: the bytes must not depend on where the
   picture was made. SPEC 9.2. */
static bool write_picture(job *j, const flis_picture *picture, const flis_layout *layout)
{
    const flis_options *o = &j->options;
    png_text text = {{NULL}, 0};
    char seed[24], steps[24], eta[32], scale[32], size[48];
    char *prompt = prompt_text(&j->ctx, layout);
    snprintf(seed, sizeof seed, "%llu", (unsigned long long)o->seed);
    snprintf(steps, sizeof steps, "%d", o->sampling.steps);
    snprintf(size, sizeof size, "%zux%zu", o->width, o->height);
    shortest_number(o->sampling.eta, eta);
    shortest_number(o->sampling.scale, scale);
    keep_text(&text, "Software", "flis " FLIS_VERSION);
    keep_text(&text, "seed", seed);
    keep_text(&text, "steps", steps);
    keep_text(&text, "sampler", o->sampling.kind == FLIS_PLMS ? "plms" : "ddim");
    keep_text(&text, "eta", eta);
    keep_text(&text, "scale", scale);
    keep_text(&text, "rng", o->rng == FLIS_RNG_CPU ? "cpu" : "cuda");
    keep_text(&text, "size", size);
    keep_text(&text, "model", base_name(j->model_path));
    if (j->set.variant) keep_text(&text, "variant", j->set.variant);
    if (j->set.vae) keep_text(&text, "vae", base_name(j->set.vae));
    keep_text(&text, "prompt", prompt);
    keep_text(&text, "layout", o->no_layout || !layout->label.width ? "none" : base_name(j->set.layout));
    if (o->noise) keep_text(&text, "noise", base_name(o->noise));
    size_t length = 0;
    uint8_t *bytes = prompt && flis_ok(&j->ctx) ? flis_png_bytes(&j->ctx, picture, text.at, &length) : NULL;
    if (bytes) output_write(&j->ctx, j->set.out, bytes, length);
    free(bytes);
    free(prompt);
    return flis_ok(&j->ctx);
}

static void add_generate_facts(job *j, const flis_vocab *vocab, const flis_layout *layout)
{
    add_run_facts(j, "generate", true);
    add_layout_facts(j, vocab, layout);
    add_fact(j, "size", "%zux%zu", j->options.width, j->options.height);
    add_sampling_facts(j);
    if (j->options.noise) add_file_facts(j, "noise", "noise.sha256", j->options.noise);
}

/* Names, in one line, the phrases whose region has no cell at the U-Net's finest scale. The coarser scales take their cells from
   the finest one, so such a phrase is masked everywhere. (A region that vanishes at the coarsest scales alone is ordinary in a small
   picture; `flis layout` lists those.) */
static void warn_of_lost_phrases(job *j, const flis_layout *layout)
{
    cell_counts cells;
    buffer lost = {NULL, 0, 0};
    if (j->options.no_layout || !layout->label.width ||
        !count_cells(&j->ctx, &layout->label, j->options.width, j->options.height, &cells))
        return;
    for (size_t i = 0; i < layout->count; i++) {
        const flis_phrase *phrase = &layout->phrase[i];
        if (phrase->id >= 0 && !cells.count[1][phrase->id])
            buffer_put(&j->ctx, &lost, "%s\"%.150s\" (id %d)", lost.length ? ", " : "", phrase->text, phrase->id);
    }
    if (lost.length) {
        flis_make_printable(lost.at);
        flis_warn(&j->ctx, "no cell of the %zux%zu latent belongs to %s: masked everywhere",
                  j->options.width / FLIS_FACTOR, j->options.height / FLIS_FACTOR, lost.at);
    }
    free(lost.at);
}

static int check_usage(job *j)
{
    const settings *s = &j->set;
    if (j->words) return unexpected_argument(j->program, j->word[0]);
    if (!s->layout) return missing_argument(j->program, "-j LAYOUT.json");
    if (!s->out) return missing_argument(j->program, "-o OUT.png");
    if (!s->trace && (s->trace_match || (s->trace_steps && !s->trace_digest)))
        return missing_argument(j->program, "--trace FILE");
    return 0;
}

int run_generate(job *j)
{
    flis_ctx *ctx = &j->ctx;
    flis_layout layout = {0};
    flis_picture picture = {0};
    flis_vocab *vocab = NULL;
    if (check_usage(j)) return 2;
    job_begin(j);
    if (job_check_steps(j) && trace_check_steps(j)) return 2;
    if (flis_ok(ctx) && job_check_outputs(j, NULL) && find_model(j) && input_check(ctx, j->set.layout) &&
        (!j->set.noise || input_check(ctx, j->set.noise)) &&
        (j->options.no_layout ? flis_layout_read_phrases : flis_layout_read)(ctx, j->set.layout, &layout))
        vocab = find_vocab(j);
    if (vocab) job_check_outputs(j, &layout);
    if (vocab && tracing(j)) add_generate_facts(j, vocab, &layout);
    if (vocab) warn_of_lost_phrases(j, &layout);
    if (vocab) trace_begin(j);
    if (vocab && flis_ok(ctx)) {
        job_print_seed(j);
        const flis_choice choice = model_choice(j);
        flis_model *model = flis_model_load_with(ctx, j->model_path, &choice, FLIS_PARTS_NONE);
        if (model) flis_model_generate(ctx, model, vocab, &layout, &j->options, &picture);
        flis_model_free(&model);
        progress_end(&j->progress);
    }
    if (trace_end(j) && !write_picture(j, &picture, &layout)) trace_remove(j); /* all or nothing */
    free(picture.pixels);
    flis_vocab_free(vocab);
    flis_layout_free(&layout);
    return job_status(j);
}
