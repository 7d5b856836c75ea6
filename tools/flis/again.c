/* again.c - `flis generate --again PICTURE.png`: the same picture from what the PNG keeps. The texts are a foreign input: every
 * value passes the checks of the option, the layout or the file that it stands for.
 */
#include "tools/flis/command.h"

#include <stdlib.h>
#include <string.h>

/* Programs whose texts people try here: a keyword that only they write, and their name. */
static const struct {
    const char *key, *program;
} OTHERS[] = {
    {"parameters", "AUTOMATIC1111's web UI"},
    {"workflow", "ComfyUI"},
    {"invokeai_metadata", "InvokeAI"},
    {"sd-metadata", "InvokeAI"},
    {"Dream", "InvokeAI"},
    {"Comment", "another program"},
};

/* Why a picture without our texts cannot be made again. */
static bool not_ours(job *j, const char *path, const picture_text *t)
{
    const char *software = picture_text_get(t, "Software");
    if (software && strncmp(software, "flis ", 5) == 0)
        return flis_fail(&j->ctx,
                         "%s: was made by a version of flis (%.40s) that did not keep the phrases and the label map in "
                         "its pictures: give the layout with -j, and seed and options as its text has them",
                         path, software);
    for (size_t i = 0; i < sizeof OTHERS / sizeof *OTHERS; i++)
        if (picture_text_get(t, OTHERS[i].key))
            return flis_fail(&j->ctx, "%s: was made by %s (its text \"%s\"), wanted a picture of flis generate", path,
                             OTHERS[i].program, OTHERS[i].key);
    return flis_fail(
        &j->ctx, "%s: has no text of flis: flis generate did not make it, or a program has removed its texts", path);
}

/* A text that must be there, once. */
static const char *needed(job *j, const char *path, const picture_text *t, const char *key)
{
    const char *value = picture_text_get(t, key);
    size_t times = 0;
    for (size_t i = 0; i < t->count; i++) times += strcmp(t->at[2 * i], key) == 0;
    if (!times) flis_fail(&j->ctx, "%s: text \"%s\": missing", path, key);
    if (times > 1) flis_fail(&j->ctx, "%s: text \"%s\": duplicated", path, key);
    return times == 1 ? value : NULL;
}

/* The options that the picture was made with, as if they had been given on the command line. */
static bool take_options(job *j, const char *path, const picture_text *t, settings *s)
{
    static const char *const KEYS[] = {"seed", "steps", "sampler", "eta", "scale", "rng", "size"};
    char wanted[256];
    for (size_t i = 0; i < sizeof KEYS / sizeof *KEYS; i++) {
        const char *value = needed(j, path, t, KEYS[i]);
        if (!value) return false;
        if (!option_set(j->program, s, KEYS[i], value, wanted, sizeof wanted))
            return flis_fail(&j->ctx, "%s: text \"%s\": got '%.80s', wanted %s", path, KEYS[i], value, wanted);
    }
    const char *of_batch = picture_text_get(t, "of-batch") ? needed(j, path, t, "of-batch") : NULL;
    if (of_batch && !option_set(j->program, s, "of-batch", of_batch, wanted, sizeof wanted))
        return flis_fail(&j->ctx, "%s: text \"of-batch\": got '%.80s', wanted %s", path, of_batch, wanted);
    s->variant = picture_text_get(t, "variant") ? needed(j, path, t, "variant") : NULL;
    s->negative = picture_text_get(t, "negative") ? needed(j, path, t, "negative") : NULL;
    return flis_ok(&j->ctx);
}

/* Whether this program computes what that one did. */
static bool check_arithmetic(job *j, const char *path, const picture_text *t)
{
    const char *edition = needed(j, path, t, "edition"), *real = needed(j, path, t, "flis.real");
    char ours[24];
    snprintf(ours, sizeof ours, "%d", FLIS_EDITION);
    if (!edition || !real) return false;
    if (strcmp(edition, ours) != 0)
        return flis_fail(&j->ctx,
                         "%s: was made by %.40s, whose arithmetic is edition %.10s, but this version's is edition %s: "
                         "the pixels would differ",
                         path, j->with.software, edition, ours);
    if (strcmp(real, flis_dtype_name(real_type())) != 0)
        return flis_fail(&j->ctx, "%s: was made in %.10s, but this program computes in %s: use %s", path, real,
                         flis_dtype_name(real_type()), sizeof(flis_real) == 4 ? "flis64" : "flis");
    return true;
}

/* The phrases alone must be a list; then they are read as those of a layout. What was warned of when the picture was made is not
   warned of again. */
static bool take_phrases(flis_ctx *ctx, const char *where, const char *phrases, const flis_picture *label,
                         flis_layout *out)
{
    buffer text = {NULL, 0, 0};
    flis_json *json = flis_json_parse(ctx, where, phrases, strlen(phrases));
    if (json && json->type != FLIS_ARRAY) flis_fail(ctx, "%s: got %.40s, wanted an array", where, flis_json_got(json));
    flis_json_free(json);
    buffer_put(ctx, &text, "{\"text_label_mapping\": %s}", phrases);
    void (*warn)(void *, const char *) = ctx->warn;
    ctx->warn = NULL;
    if (flis_ok(ctx)) flis_layout_parse(ctx, where, text.at, text.length, label, out);
    ctx->warn = warn;
    free(text.at);
    return flis_ok(ctx);
}

/* A label map: base64 of a picture. */
static bool take_map(flis_ctx *ctx, const char *where, const char *map, flis_picture *out)
{
    size_t length = 0;
    uint8_t *bytes = base64_bytes(ctx, map, &length);
    if (!bytes) flis_fail(ctx, "%s: is not base64", where);
    if (bytes) flis_read_label_memory(ctx, where, bytes, length, out);
    free(bytes);
    return flis_ok(ctx);
}

/* The phrases and the label map. */
static bool take_layout(job *j, const char *path, const picture_text *t, flis_layout *out)
{
    flis_ctx *ctx = &j->ctx;
    const bool has_map = strcmp(j->with.layout, "none") != 0;
    const char *phrases = needed(j, path, t, "phrases"), *map = has_map ? needed(j, path, t, "layout.map") : NULL;
    char *where = path_with(ctx, path, ": text \"phrases\""), *map_at = path_with(ctx, path, ": text \"layout.map\"");
    flis_picture label = {0};
    if (flis_ok(ctx) && (!has_map || take_map(ctx, map_at, map, &label)))
        take_phrases(ctx, where, phrases, has_map ? &label : NULL, out);
    flis_picture_free(&label);
    free(where);
    free(map_at);
    return flis_ok(ctx);
}

/* Reads the command line again, over the picture's options: what is given there counts. */
static void read_options_again(job *j, settings *s)
{
    int words;
    char **copy = flis_alloc(&j->ctx, (size_t)j->argc + 1, sizeof *copy);
    if (!copy) return;
    memcpy(copy, j->argv, (size_t)j->argc * sizeof *copy);
    options_read(j->program, s, j->argc, copy, &words);
    free(copy);
}

bool again_read(job *j, picture_text *t, flis_layout *layout)
{
    const char *path = j->set.again;
    settings s = j->fresh;
    if (!picture_text_read(&j->ctx, path, t)) return false;
    if (!picture_text_get(t, "phrases") || !picture_text_get(t, "edition")) return not_ours(j, path, t);
    j->with.software = needed(j, path, t, "Software");
    j->with.layout = needed(j, path, t, "layout");
    if (!j->with.software || !j->with.layout || !check_arithmetic(j, path, t) || !take_options(j, path, t, &s) ||
        !take_layout(j, path, t, layout))
        return false;
    read_options_again(j, &s);
    if (picture_text_get(t, "vae") && !s.vae)
        return flis_fail(&j->ctx, "%s: was made with the autoencoder of %.200s: give it with --vae FILE", path,
                         picture_text_get(t, "vae"));
    if (picture_text_get(t, "noise") && !s.noise)
        return flis_fail(&j->ctx, "%s: was made with a noise file, %.200s: give it with --noise FILE", path,
                         picture_text_get(t, "noise"));
    j->set = s;
    return flis_ok(&j->ctx);
}

/* A file must have the digest that the picture names. The picture's name for the file is kept: the digest counts. */
static bool same_as_then(job *j, const picture_text *t, const char *what, const char *key, const char *digest_key,
                         const char *flag, const char **name, const char *got)
{
    const char *path = j->set.again, *then = needed(j, path, t, key), *wanted = needed(j, path, t, digest_key);
    if (!then || !wanted) return false;
    if (strcmp(wanted, got) != 0)
        return flis_fail(
            &j->ctx,
            "%s: was made with the %s %.200s of SHA-256 %.64s, got %.200s of SHA-256 %s: give the right one "
            "with %s",
            path, what, then, wanted, *name, got, flag);
    *name = then;
    return true;
}

bool again_check_files(job *j, const picture_text *t)
{
    made_with *w = &j->with;
    const char *then = picture_text_get(t, "configuration.sha256");
    if (!flis_ok(&j->ctx) ||
        !same_as_then(j, t, "model", "model", "model.sha256", "--model", &w->model, w->model_sha256))
        return false;
    if (picture_text_get(t, "vae") &&
        !same_as_then(j, t, "autoencoder", "vae", "vae.sha256", "--vae", &w->vae, w->vae_sha256))
        return false;
    if (j->set.vae && !picture_text_get(t, "vae")) then = w->configuration; /* another autoencoder is asked for */
    if (then ? strcmp(then, w->configuration) != 0 : *w->configuration != 0)
        return flis_fail(&j->ctx,
                         "%s: was made with the same weights, but another configuration (config.json) than that of %s",
                         j->set.again, j->model_path);
    return same_as_then(j, t, "vocabulary", "vocab", "vocab.sha256", "--vocab", &w->vocab, w->vocab_sha256) &&
           (!picture_text_get(t, "noise") ||
            same_as_then(j, t, "noise", "noise", "noise.sha256", "--noise", &w->noise, w->noise_sha256));
}
