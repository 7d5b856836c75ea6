/* record.c - pictures as files. A PNG keeps how it was made: everything that makes it again, as texts (SPEC 9.2). A JPEG keeps only
 * pixels (SPEC 16.7).
 */
#include "tools/flis/command.h"

#include <stdlib.h>
#include <string.h>

/* ---- What the picture was made with ------------------------------------------------------------------------------------ */

/* The numbers of a diffusers folder's config.json files are no part of its weights' digest: they have one of their own, of the lines
   "KEY VALUE". SPEC 9.2. */
static void digest_configuration(const flis_file *file, char hex[65])
{
    flis_sha256 sum;
    flis_sha256_begin(&sum);
    for (size_t i = 0; i < file->metadata_count; i++) {
        flis_sha256_add(&sum, file->metadata[2 * i], strlen(file->metadata[2 * i]));
        flis_sha256_add(&sum, " ", 1);
        flis_sha256_add(&sum, file->metadata[2 * i + 1], strlen(file->metadata[2 * i + 1]));
        flis_sha256_add(&sum, "\n", 1);
    }
    flis_sha256_end(&sum, hex);
}

static uint64_t bytes_of(const flis_file *file)
{
    uint64_t total = 0;
    for (size_t i = 0; file && i < file->count; i++) total += file->entry[i].end - file->entry[i].begin;
    return total;
}

/* The digest of a model is that of its files' bytes, one file after the other in the order of `flis info`: for a single file what
   sha256sum prints. The last `others` belong to something else. The bytes are those of the files that were opened, whatever has
   their names by now. SPEC 9.2. */
static void digest_files(job *j, const flis_file *file, size_t others, char hex[65])
{
    enum { SHOWN = 256 << 20 }; /* below a second or two, progress would only be noise */
    flis_sha256 sum;
    uint64_t done = 0, total = bytes_of(file);
    if (!file || !flis_ok(&j->ctx)) return;
    flis_sha256_begin(&sum);
    for (size_t i = 0; i + others < file->shards && flis_ok(&j->ctx); i++)
        stream_digest_add(&j->ctx, file->shard[i].path, file->shard[i].stream, &sum, &done, total < SHOWN ? 0 : total);
    flis_sha256_end(&sum, hex);
}

/* What there is to warn of is said when the model is opened for its work. SPEC 9.2. */
bool model_open_files(job *j)
{
    flis_ctx *ctx = &j->ctx;
    const flis_choice choice = {.variant = j->set.variant};
    if (j->model_file || !flis_ok(ctx)) return flis_ok(ctx);
    void (*warn)(void *, const char *) = ctx->warn;
    ctx->warn = NULL;
    j->model_file = flis_model_open_with(ctx, j->model_path, &choice);
    if (j->set.vae && !j->model_file) { /* a folder whose own autoencoder is absent */
        flis_clear_error(ctx);
        j->model_file = open_model(j);
    }
    if (j->set.vae && j->model_file) j->vae_file = flis_vae_open(ctx, j->set.vae);
    j->model_bytes = bytes_of(j->model_file) + bytes_of(j->vae_file);
    ctx->warn = warn;
    return flis_ok(ctx);
}

void model_close_files(job *j)
{
    flis_file_close(j->model_file);
    flis_file_close(j->vae_file);
    j->model_file = j->vae_file = NULL;
}

bool model_digest(job *j)
{
    flis_ctx *ctx = &j->ctx;
    made_with *w = &j->with;
    const char *vae = j->set.vae;
    if (*w->model_sha256 || !model_open_files(j)) return flis_ok(ctx);
    void (*warn)(void *, const char *) = ctx->warn;
    ctx->warn = NULL;
    const bool within = j->vae_file && j->model_file->vae_path;
    digest_files(j, j->model_file, within ? j->vae_file->shards : 0, w->model_sha256);
    digest_files(j, j->vae_file, 0, w->vae_sha256);
    model_close_files(j);
    if (flis_ok(ctx) && (kind_of_file(j->model_path) == FILE_FOLDER || (vae && kind_of_file(vae) == FILE_FOLDER))) {
        flis_file *file = open_model(j);
        if (file) digest_configuration(file, w->configuration);
        flis_file_close(file);
    }
    ctx->warn = warn;
    return flis_ok(ctx);
}

bool find_digests(job *j)
{
    made_with *w = &j->with;
    const char *vocab = *j->vocab_path ? j->vocab_path : j->set.vocab; /* --vocab may be a folder */
    if (!w->software) w->software = "flis " FLIS_VERSION;              /* --again keeps that of the picture */
    w->model = base_name(j->model_path);
    w->vae = j->set.vae ? base_name(j->set.vae) : NULL;
    w->vocab = base_name(vocab);
    w->noise = j->set.noise ? base_name(j->set.noise) : NULL;
    return model_open_files(j) && file_digest(&j->ctx, vocab, w->vocab_sha256) &&
           (!w->noise || file_digest(&j->ctx, j->set.noise, w->noise_sha256));
}

/* ---- The texts ---------------------------------------------------------------------------------------------------------- */

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

/* The label map as a PNG in base64, at the size that it came with. */
static void map_text(flis_ctx *ctx, const flis_picture *label, buffer *out)
{
    size_t length = 0;
    uint8_t *bytes = flis_png_bytes(ctx, label, NULL, &length);
    if (bytes) buffer_base64(ctx, out, bytes, length);
    free(bytes);
}

void put_phrases(flis_ctx *ctx, buffer *b, const flis_layout *layout)
{
    buffer_put(ctx, b, "[");
    for (size_t i = 0; i < layout->count; i++) {
        buffer_put(ctx, b, i ? ", [" : "[");
        buffer_json_string(ctx, b, layout->phrase[i].text);
        buffer_put(ctx, b, ", %d]", layout->phrase[i].id);
    }
    buffer_put(ctx, b, "]");
}

/* Keys and values in turn, as flis_png_bytes takes them; at[count] stays NULL. */
typedef struct png_text {
    const char *at[2 * 32];
    size_t count;
} png_text;

static void keep_text(png_text *t, const char *key, const char *value)
{
    t->at[t->count++] = key;
    t->at[t->count++] = value;
}

/* The value of --of-batch. */
static void put_batch(const settings *s, char *out, size_t room)
{
    snprintf(out, room, "%llu,%llu,%llu%s", (unsigned long long)s->batch, (unsigned long long)s->batch_number,
             (unsigned long long)s->batch_index, s->fixed_code ? ",fixed" : "");
}

/* Files are named without folders, and there are no dates: the bytes must not depend on where and when the picture was made.
   SPEC 9.2. */
uint8_t *picture_bytes(job *j, const flis_picture *picture, const flis_layout *layout, size_t *length)
{
    const flis_options *o = &j->options;
    const made_with *w = &j->with;
    const bool has_map = !o->no_layout && layout->label.width;
    png_text text = {{NULL}, 0};
    char seed[24], steps[24], eta[32], scale[32], size[48], edition[24], of_batch[80];
    if (!model_digest(j)) return NULL;
    char *prompt = prompt_text(&j->ctx, layout);
    buffer phrases = {NULL, 0, 0}, map = {NULL, 0, 0};
    snprintf(seed, sizeof seed, "%llu", (unsigned long long)o->seed);
    snprintf(steps, sizeof steps, "%d", o->sampling.steps);
    snprintf(size, sizeof size, "%zux%zu", o->width, o->height);
    snprintf(edition, sizeof edition, "%d", FLIS_EDITION);
    shortest_number(o->sampling.eta, eta);
    shortest_number(o->sampling.scale, scale);
    put_phrases(&j->ctx, &phrases, layout);
    if (has_map) map_text(&j->ctx, &layout->label, &map);
    keep_text(&text, "Software", w->software);
    keep_text(&text, "seed", seed);
    keep_text(&text, "steps", steps);
    keep_text(&text, "sampler", o->sampling.kind == FLIS_PLMS ? "plms" : "ddim");
    keep_text(&text, "eta", eta);
    keep_text(&text, "scale", scale);
    keep_text(&text, "rng", o->rng == FLIS_RNG_CPU ? "cpu" : "cuda");
    keep_text(&text, "size", size);
    keep_text(&text, "model", w->model);
    if (j->set.variant) keep_text(&text, "variant", j->set.variant);
    if (w->vae) keep_text(&text, "vae", w->vae);
    keep_text(&text, "prompt", prompt);
    keep_text(&text, "layout", has_map ? w->layout : "none");
    if (w->noise) keep_text(&text, "noise", w->noise);
    if (o->negative && *o->negative) keep_text(&text, "negative", o->negative);
    if (j->set.of_batch) {
        put_batch(&j->set, of_batch, sizeof of_batch);
        keep_text(&text, "of-batch", of_batch);
    }
    keep_text(&text, "edition", edition);
    keep_text(&text, "flis.real", flis_dtype_name(real_type()));
    keep_text(&text, "phrases", phrases.at);
    keep_text(&text, "model.sha256", w->model_sha256);
    if (w->vae) keep_text(&text, "vae.sha256", w->vae_sha256);
    if (*w->configuration) keep_text(&text, "configuration.sha256", w->configuration);
    keep_text(&text, "vocab", w->vocab);
    keep_text(&text, "vocab.sha256", w->vocab_sha256);
    if (w->noise) keep_text(&text, "noise.sha256", w->noise_sha256);
    if (has_map) keep_text(&text, "layout.map", map.at);
    uint8_t *bytes = flis_ok(&j->ctx) ? flis_png_bytes(&j->ctx, picture, text.at, length) : NULL;
    free(prompt);
    free(phrases.at);
    free(map.at);
    return bytes;
}

bool write_picture(job *j, const flis_picture *picture, const flis_layout *layout, const char *out)
{
    size_t length = 0;
    uint8_t *bytes = picture_bytes(j, picture, layout, &length);
    if (bytes) output_write(&j->ctx, out, bytes, length);
    free(bytes);
    return flis_ok(&j->ctx);
}

/* SPEC 16.7 */
bool write_jpeg(flis_ctx *ctx, const flis_picture *picture, const char *out)
{
    size_t length = 0;
    uint8_t *bytes = flis_ok(ctx) ? jpeg_bytes(ctx, picture, JPEG_QUALITY, &length) : NULL;
    if (bytes) output_write(ctx, out, bytes, length);
    free(bytes);
    return flis_ok(ctx);
}
