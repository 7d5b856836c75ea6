/* trace.c - what `generate` and `stage` record beside their result: intermediates (--trace), their digests (--trace-digest), and
 * the facts that reproduce the run.
 */
#include "tools/flis/command.h"

#include <stdlib.h>
#include <string.h>

/* ---- Facts ---------------------------------------------------------------------------------------------------------- */

/* Takes the text over. */
static void keep_fact(job *j, const char *key, buffer *value)
{
    if (flis_ok(&j->ctx) && value->at && j->facts < MAX_FACTS) j->fact[j->facts++] = (fact){key, value->at};
    else free(value->at);
}

void add_fact(job *j, const char *key, const char *format, ...)
{
    buffer value = {NULL, 0, 0};
    va_list args;
    va_start(args, format);
    buffer_put_args(&j->ctx, &value, format, args);
    va_end(args);
    keep_fact(j, key, &value);
}

static void add_number_fact(job *j, const char *key, double x)
{
    char number[32];
    shortest_number(x, number);
    add_fact(j, key, "%s", number);
}

void free_facts(job *j)
{
    for (size_t i = 0; i < j->facts; i++) free(j->fact[i].value);
    j->facts = 0;
}

void add_file_facts(job *j, const char *key, const char *digest_key, const char *path)
{
    char hex[65];
    if (!file_digest(&j->ctx, path, hex)) return;
    add_fact(j, key, "%s", base_name(path));
    add_fact(j, digest_key, "%s", hex);
}

/* The model's own files, then those of --vae. */
static void add_model_facts(job *j)
{
    const made_with *w = &j->with;
    if (!model_digest(j)) return;
    add_fact(j, "model", "%s", base_name(j->model_path));
    add_fact(j, "model.sha256", "%s", w->model_sha256);
    if (j->set.variant) add_fact(j, "variant", "%s", j->set.variant);
    if (!j->set.vae) return;
    add_fact(j, "vae", "%s", base_name(j->set.vae));
    add_fact(j, "vae.sha256", "%s", w->vae_sha256);
}

void add_run_facts(job *j, const char *command, bool model)
{
    add_fact(j, "flis.version", FLIS_VERSION);
    add_fact(j, "flis.real", "%s", flis_dtype_name(real_type()));
    add_fact(j, "command", "%s", command);
    if (model) add_model_facts(j);
}

void add_sampling_facts(job *j)
{
    const flis_options *o = &j->options;
    add_fact(j, "seed", "%llu", (unsigned long long)o->seed);
    add_fact(j, "rng", "%s", o->rng == FLIS_RNG_CPU ? "cpu" : "cuda");
    add_fact(j, "steps", "%d", o->sampling.steps);
    add_fact(j, "sampler", "%s", o->sampling.kind == FLIS_PLMS ? "plms" : "ddim");
    add_number_fact(j, "eta", o->sampling.eta);
    add_number_fact(j, "scale", o->sampling.scale);
}

/* The phrases as JSON. */
static void add_phrases(job *j, const flis_layout *layout)
{
    flis_ctx *ctx = &j->ctx;
    buffer phrases = {NULL, 0, 0};
    put_phrases(ctx, &phrases, layout);
    keep_fact(j, "phrases", &phrases);
}

/* The phrases, the tokens and their classes, and the label map with the digest of its values. */
void add_layout_facts(job *j, const flis_vocab *vocab, const flis_layout *layout)
{
    flis_ctx *ctx = &j->ctx;
    flis_prompt prompt = {0};
    buffer ids = {NULL, 0, 0}, classes = {NULL, 0, 0};
    flis_sha256 sum;
    char hex[65];
    const bool has_label = !j->options.no_layout && layout->label.width;
    add_phrases(j, layout);
    if (!flis_prompt_make(ctx, vocab, layout->phrase, layout->count, &prompt)) return;
    for (size_t i = 0; i < prompt.tokens + 2; i++) buffer_put(ctx, &ids, i ? " %ld" : "%ld", (long)prompt.ids[i]);
    buffer_put(ctx, &classes, "%s", "");
    for (size_t i = 0; i < prompt.classes; i++)
        buffer_put(ctx, &classes, i ? " %.0f" : "%.0f", (double)prompt.class_ids[i]);
    keep_fact(j, "ids", &ids);
    keep_fact(j, "class_ids", &classes);
    flis_prompt_free(&prompt);
    add_fact(j, "layout", "%s", has_label ? j->with.layout : "none");
    if (!has_label) return;
    flis_sha256_begin(&sum);
    flis_sha256_add(&sum, layout->label.pixels, layout->label.width * layout->label.height);
    flis_sha256_end(&sum, hex);
    add_fact(j, "layout.size", "%zux%zu", layout->label.width, layout->label.height);
    add_fact(j, "layout.sha256", "%s", hex);
}

void put_facts(job *j, buffer *b)
{
    buffer_put(&j->ctx, b, "{\"metadata\": {");
    for (size_t i = 0; i < j->facts; i++) {
        buffer_put(&j->ctx, b, "%s\n  \"%s\": ", i ? "," : "", j->fact[i].key);
        buffer_json_string(&j->ctx, b, j->fact[i].value);
    }
    buffer_put(&j->ctx, b, "}");
}

/* ---- Digests of intermediates ----------------------------------------------------------------------------------------- */

/* Begins the JSON file with the facts; a line per tensor follows, in order of execution. */
static bool digest_begin(job *j)
{
    buffer head = {NULL, 0, 0};
    if (!flis_output_open(&j->ctx, j->set.trace_digest, &j->digest)) return false;
    put_facts(j, &head);
    buffer_put(&j->ctx, &head, ",\n\"tensors\": [");
    if (flis_ok(&j->ctx)) fputs(head.at, j->digest.stream);
    free(head.at);
    return flis_ok(&j->ctx);
}

static void digest_tensor(job *j, const char *name, const flis_tensor *x)
{
    flis_ctx *ctx = &j->ctx;
    const int digits = sizeof(flis_real) == 8 ? 17 : 9;
    flis_summary s;
    uint64_t shape[4];
    buffer line = {NULL, 0, 0};
    flis_tensor_summary(x, &s);
    file_shape(x, shape);
    buffer_put(ctx, &line, "%s\n{\"name\": ", j->digest_tensors++ ? "," : "");
    buffer_json_string(ctx, &line, name);
    buffer_put(ctx, &line, ", \"dtype\": \"%s\", \"shape\": [", flis_dtype_name(x->bytes ? FLIS_U8 : real_type()));
    for (int i = 0; i < x->rank; i++) buffer_put(ctx, &line, i ? ", %llu" : "%llu", (unsigned long long)shape[i]);
    buffer_put(ctx, &line, "], \"mean\": ");
    buffer_json_number(ctx, &line, s.mean, 17);
    buffer_put(ctx, &line, ", \"std\": ");
    buffer_json_number(ctx, &line, s.std, 17);
    buffer_put(ctx, &line, ", \"largest\": ");
    buffer_json_number(ctx, &line, s.largest, digits);
    buffer_put(ctx, &line, ", \"largest_at\": %zu, \"not_finite\": %zu, \"stride\": %zu, \"samples\": [", s.largest_at,
               s.not_finite, s.stride);
    for (size_t i = 0; i < s.samples; i++) {
        if (i) buffer_put(ctx, &line, ", ");
        buffer_json_number(ctx, &line, s.sample[i], digits);
    }
    buffer_put(ctx, &line, "], \"sha256\": \"%s\"}", s.sha256);
    if (flis_ok(ctx)) fputs(line.at, j->digest.stream);
    free(line.at);
}

static bool digest_end(job *j)
{
    if (j->digest.stream) fputs("\n]}\n", j->digest.stream);
    return flis_output_close(&j->ctx, &j->digest);
}

/* ---- Traces ------------------------------------------------------------------------------------------------------------- */

/* Whether --trace-steps wants a name: the number of "step.N…" must be in the list; other names always pass. */
static bool step_wanted(const job *j, const char *name)
{
    char *end;
    if (!j->set.trace_steps || strncmp(name, "step.", 5) != 0) return true;
    const unsigned long step = strtoul(name + 5, &end, 10);
    for (size_t i = 0; i < j->set.trace_steps; i++)
        if (step >= j->set.trace_step[i].first && step <= j->set.trace_step[i].last) return true;
    return end == name + 5;
}

/* Whether a tensor of that name goes into the trace file. */
static bool selected(const job *j, const char *name)
{
    const settings *s = &j->set;
    return (s->trace || s->trace_match) && (!s->trace_match || glob_match(s->trace_match, name)) &&
           step_wanted(j, name);
}

/* The insides of a large attention (self-attention at full size: 512 MB a layer) are left out, unless a glob asks for them. */
static bool on_trace_wants(void *user, const char *name, size_t count)
{
    enum { LARGEST_UNASKED = 1 << 24 };
    const job *j = user;
    if (j->set.trace_match && selected(j, name)) return true;
    return count <= LARGEST_UNASKED && (selected(j, name) || (j->digest.stream && step_wanted(j, name)));
}

static void on_trace(void *user, const char *name, const flis_tensor *x)
{
    job *j = user;
    if (j->digest.stream && step_wanted(j, name)) digest_tensor(j, name, x);
    if (!selected(j, name)) return;
    j->matches++;
    add_activation(&j->ctx, j->set.trace ? &j->traced : &j->outputs, name, x);
}

bool tracing(const job *j)
{
    return j->set.trace || j->set.trace_match || j->set.trace_digest;
}

int trace_check_steps(const job *j)
{
    for (size_t i = 0; i < j->set.trace_steps; i++) {
        const range *r = &j->set.trace_step[i];
        if (r->last >= j->step_count)
            return usage_error(j->program,
                               "invalid value '%llu' for --trace-steps: wanted 0 to %zu, the last of %zu steps",
                               (unsigned long long)r->last, j->step_count - 1, j->step_count);
    }
    return 0;
}

void trace_begin(job *j)
{
    if (!tracing(j) || !flis_ok(&j->ctx) || (j->set.trace_digest && !digest_begin(j))) return;
    j->ctx.trace = on_trace;
    j->ctx.trace_wants = on_trace_wants;
    j->ctx.trace_user = j;
}

bool trace_end(job *j)
{
    if (j->set.trace_match && !j->matches && flis_ok(&j->ctx))
        flis_warn(&j->ctx, "no intermediate matches '%s' (--trace-match)", j->set.trace_match);
    const bool saved = j->set.trace && save_tensors(&j->ctx, j->set.trace, &j->traced, j->fact, j->facts);
    if (!digest_end(j) && saved) output_remove(j->set.trace);
    return flis_ok(&j->ctx);
}

void trace_remove(const job *j)
{
    if (j->set.trace) output_remove(j->set.trace);
    if (j->set.trace_digest) output_remove(j->set.trace_digest);
}
