/* generate.c - `flis generate`: a layout and its phrases in, a picture out. */
#include "tools/flis/command.h"

#include <stdlib.h>
#include <string.h>

static void add_generate_facts(job *j, const flis_vocab *vocab, const flis_layout *layout)
{
    add_run_facts(j, "generate", true);
    add_layout_facts(j, vocab, layout);
    add_fact(j, "size", "%zux%zu", j->options.width, j->options.height);
    add_sampling_facts(j);
    if (j->options.negative && *j->options.negative) add_fact(j, "negative", "%s", j->options.negative);
    if (j->options.noise) add_file_facts(j, "noise", "noise.sha256", j->options.noise);
}

/* Names, in one line, the phrases whose region has no cell at the U-Net's finest scale. The coarser scales take their cells from
   the finest one, so such a phrase is masked everywhere. (A region that vanishes at the coarsest scales alone is ordinary in a small
   picture; `flis layout` lists those.) `where`: which layout, of several. */
static void warn_of_lost_phrases(job *j, const flis_layout *layout, const char *where)
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
        flis_warn(&j->ctx, "%s%sno cell of the %zux%zu latent belongs to %s: masked everywhere", where ? where : "",
                  where ? ": " : "", j->options.width / FLIS_FACTOR, j->options.height / FLIS_FACTOR, lost.at);
    }
    free(lost.at);
}

static int check_usage(const job *j)
{
    const settings *s = &j->set;
    if (s->again && j->words)
        return usage_error(j->program, "--again has a layout of its own: '%s' is one too many", j->word[0]);
    if (!s->again && !j->words) return missing_argument(j->program, "-j LAYOUT.json");
    if (!s->out) return missing_argument(j->program, "-o OUT.png");
    if (!s->trace && (s->trace_match || (s->trace_steps && !s->trace_digest)))
        return missing_argument(j->program, "--trace FILE");
    return 0;
}

/* What options say together, when all are known: those of --again, too. */
static int check_together(const job *j)
{
    const settings *s = &j->set;
    if (s->negative && *s->negative && s->scale == 1)
        return usage_error(j->program, "--negative has no effect with --scale 1, which has no unconditional pass");
    if (s->of_batch && s->count > 1)
        return usage_error(j->program, "--of-batch determines one picture's noise, got --count %llu",
                           (unsigned long long)s->count);
    if (s->of_batch && s->noise) return usage_error(j->program, "--of-batch and --noise exclude each other");
    return 0;
}

/* The layouts are the arguments; --again has one. Reads the latter, whose options others may replace. */
static int plan(job *j, batch *b, picture_text *again)
{
    flis_layout layout = {0};
    b->sources = j->set.again ? 1 : (size_t)j->words;
    b->source = j->set.again ? &j->set.again : (const char **)j->word;
    if (j->set.again && !again_read(j, again, &layout)) {
        flis_layout_free(&layout);
        return 1;
    }
    const int status = check_together(j) ? 2 : batch_plan(j, b);
    if (b->layout) b->layout[0] = layout;
    else flis_layout_free(&layout);
    return status;
}

/* The library refuses too many tokens as well, but after the model's digest. */
static bool check_negative(job *j, const flis_vocab *vocab)
{
    const char *text = j->options.negative ? j->options.negative : "";
    int32_t *ids = NULL;
    const long tokens = flis_tokenize(&j->ctx, vocab, text, strlen(text), &ids);
    free(ids);
    if (tokens <= FLIS_PHRASE_TOKENS) return flis_ok(&j->ctx);
    return flis_fail(&j->ctx, "negative prompt: got %ld tokens, wanted at most %d", tokens, FLIS_PHRASE_TOKENS);
}

static bool read_layout(job *j, const char *path, flis_layout *out)
{
    return layout_check(&j->ctx, path) &&
           (j->options.no_layout ? flis_layout_read_phrases : flis_layout_read)(&j->ctx, path, out);
}

/* Reads every layout, so that a mistake in the last one shows before the first picture. */
static bool read_layouts(job *j, batch *b, const flis_vocab *vocab)
{
    flis_ctx *ctx = &j->ctx;
    for (size_t i = 0; i < b->sources && flis_ok(ctx); i++) {
        flis_prompt prompt = {0};
        if (!j->set.again && !read_layout(j, b->source[i], &b->layout[i])) return false;
        if (!flis_prompt_make(ctx, vocab, b->layout[i].phrase, b->layout[i].count, &prompt))
            return flis_fail_in(ctx, b->source[i]);
        flis_prompt_free(&prompt);
        warn_of_lost_phrases(j, &b->layout[i], b->sources > 1 ? b->source[i] : NULL);
    }
    return flis_ok(ctx);
}

/* A mapped model is kept for several pictures, and a packed one if it and a large picture's activations fit into memory; else its parts
   are loaded for the time of their work, for each picture. The bits are the same. */
static unsigned parts_to_keep(const job *j, const batch *b)
{
    const double activations = 2e9, weights = (double)j->model_bytes * (double)(sizeof(flis_real) / sizeof(float));
    const bool fits = !j->set.packed || weights + activations < memory_available();
    return b->count > 1 && fits ? FLIS_PARTS_PAINT : FLIS_PARTS_NONE;
}

static bool write_file(job *j, const flis_picture *picture, const flis_layout *layout, const char *out)
{
    return j->set.format == FORMAT_JPEG ? write_jpeg(&j->ctx, picture, out) : write_picture(j, picture, layout, out);
}

/* --of-batch: noise as `flis lis` draws it. */
static bool set_batch_noise(job *j, flis_real **code)
{
    flis_rng at = {.batch = 0};
    uint64_t number = 0;
    if (!j->set.of_batch) return true;
    j->options.random = &j->random;
    return job_batch_noise(j, &at, &number, j->set.batch_number, (size_t)j->set.batch_index, &j->random) &&
           (!j->set.fixed_code || job_fixed_code(j, (size_t)j->set.batch_index, code));
}

/* One picture, to its file. */
static bool paint(job *j, batch *b, const flis_model *model, const flis_vocab *vocab)
{
    const size_t i = b->finished;
    const flis_layout *layout = &b->layout[i / b->seeds];
    flis_picture picture = {0};
    j->options.seed = j->set.seed + i % b->seeds;
    if (!j->set.again) j->with.layout = source_name(b, i / b->seeds);
    if (!j->set.quiet && b->count > 1)
        fprintf(stderr, "picture %zu of %zu: %s, ", i + 1, b->count, base_name(b->out[i]));
    job_print_seed(j);
    flis_model_generate(&j->ctx, model, vocab, layout, &j->options, &picture);
    progress_end(&j->progress);
    if (trace_end(j) && !write_file(j, &picture, layout, b->out[i])) trace_remove(j); /* all or nothing */
    free(picture.pixels);
    return flis_ok(&j->ctx);
}

static void paint_all(job *j, batch *b, const flis_vocab *vocab)
{
    flis_model *model = load_model(j, parts_to_keep(j, b));
    flis_real *code = NULL;
    b->painting = model != NULL && set_batch_noise(j, &code);
    while (b->painting && b->finished < b->count && paint(j, b, model, vocab)) b->finished++;
    free(code);
    flis_model_free(&model);
}

int run_generate(job *j)
{
    flis_ctx *ctx = &j->ctx;
    batch b = {0};
    picture_text again = {0};
    flis_vocab *vocab = NULL;
    int status = check_usage(j);
    if (status) return status;
    status = plan(j, &b, &again);
    job_begin(j);
    if (!status && job_check_steps(j) && trace_check_steps(j)) status = 2;
    if (!status && flis_ok(ctx) && batch_make_folder(j, &b) && job_check_outputs(j, &b) &&
        (!j->set.noise || input_check(ctx, j->set.noise)) && find_model(j) && job_check_outputs(j, &b) &&
        check_tensors(j))
        vocab = find_vocab(j);
    if (vocab && check_negative(j, vocab) && read_layouts(j, &b, vocab) && job_check_outputs(j, &b) &&
        find_digests(j) && (!j->set.again || (model_digest(j) && again_check_files(j, &again)))) {
        if (!j->set.again) j->with.layout = source_name(&b, 0);
        if (tracing(j)) add_generate_facts(j, vocab, &b.layout[0]);
        trace_begin(j);
        paint_all(j, &b, vocab);
    }
    batch_end(j, &b);
    flis_vocab_free(vocab);
    picture_text_free(&again);
    return status ? status : job_status(j);
}
