/* find.c - where the command finds what was not named: the default model, its vocabulary, the conformance vectors; and which
 * of a model's weights are opened. */
#include "tools/flis/command.h"

#include <stdlib.h>
#include <string.h>

#define DEFAULT_MODEL "flis-small.safetensors"

/* Whether `folder` has a folder of that name. */
static bool has_folder(const char *folder, const char *name)
{
    char path[PATH_ROOM];
    return snprintf(path, sizeof path, "%s/%s", folder, name) < PATH_ROOM && kind_of_file(path) == FILE_FOLDER;
}

/* The model files that lie in a folder, "a.safetensors, b.ckpt"; the first ones. */
typedef struct candidates {
    flis_ctx *ctx;
    buffer text;
    size_t count;
} candidates;

static void see_candidate(void *user, const char *name)
{
    candidates *c = user;
    if (!ends_in(name, ".safetensors") && !ends_in(name, ".ckpt")) return;
    if (c->count++ < 4) buffer_put(c->ctx, &c->text, "%s%.120s", c->text.length ? ", " : "", name);
}

/* A folder that is no model, but has files that may be one: many repositories lie so on a disk. */
static bool fail_candidates(job *j, const char *path)
{
    candidates c = {&j->ctx, {NULL, 0, 0}, 0};
    char config[PATH_ROOM];
    if (snprintf(config, sizeof config, "%s/config.json", path) >= PATH_ROOM || kind_of_file(config) == FILE_REGULAR)
        return false; /* one part of a diffusers folder */
    each_entry(path, see_candidate, &c);
    if (c.count)
        flis_fail(&j->ctx,
                  "%s: is a folder without unet/, vae/ or text_encoder/; it holds %s%s: give the file of a model", path,
                  c.text.at, c.count > 4 ? "..." : "");
    free(c.text.at);
    return c.count > 0;
}

/* The model that was given, which is a file or a folder, must exist, and so must the autoencoder's file. */
static bool check_model(job *j)
{
    const char *path = j->set.model, *vae = j->set.vae;
    const file_kind kind = kind_of_file(path);
    if (vae && kind_of_file(vae) != FILE_FOLDER && !input_check(&j->ctx, vae)) return false;
    if (kind != FILE_FOLDER) return input_check(&j->ctx, path);
    return has_folder(path, "unet") || has_folder(path, "vae") || has_folder(path, "text_encoder") ||
           has_folder(path, "tokenizer") || has_folder(path, "snapshots") || !fail_candidates(j, path);
}

flis_choice model_choice(const job *j)
{
    return (flis_choice){.variant = j->set.variant, .vae = j->set.vae, .packed = j->set.packed};
}

flis_file *open_model(job *j)
{
    const flis_choice choice = model_choice(j);
    flis_file *file = flis_model_open_with(&j->ctx, j->model_path, &choice);
    if (file) file->mapped = !j->set.packed;
    return file;
}

bool find_model(job *j)
{
    if (!j->set.model) {
        if (data_file(j->self, DEFAULT_MODEL, j->model_path)) return true;
        return flis_fail(&j->ctx, "no model: give one with -m; the default, models/" DEFAULT_MODEL ", is not here");
    }
    const size_t length = strlen(j->set.model);
    if (length >= PATH_ROOM) return flis_fail(&j->ctx, "%.200s: the name is too long", j->set.model);
    memcpy(j->model_path, j->set.model, length + 1);
    return check_model(j);
}

flis_model *load_model(job *j, unsigned parts)
{
    const flis_choice choice = model_choice(j);
    return flis_model_load_with(&j->ctx, j->model_path, &choice, parts);
}

bool check_tensors(job *j)
{
    flis_file *file = open_model(j);
    flis_file_close(file);
    return file != NULL;
}

/* A vocabulary beside a model. */
static bool vocab_in(job *j, const char *folder, size_t length)
{
    static const char *const NAMES[] = {"vocab.txt", "merges.txt", "bpe_simple_vocab_16e6.txt",
                                        "bpe_simple_vocab_16e6.txt.gz", "tokenizer.json"};
    for (size_t i = 0; i < sizeof NAMES / sizeof *NAMES; i++)
        if (file_in(folder, length, NAMES[i], j->vocab_path)) return true;
    return false;
}

/* The vocabulary in a folder, or in its tokenizer/. A tokenizer/ without one is an error: another vocabulary would be taken in
   place of the model's. */
static bool vocab_of_folder(job *j, const char *folder, bool required)
{
    char path[PATH_ROOM];
    if (flis_vocab_find(folder, j->vocab_path, PATH_ROOM)) return true;
    if (!required && !has_folder(folder, "tokenizer")) return false;
    const char *where = required ? "" : "/tokenizer";
    const bool ids =
        snprintf(path, sizeof path, "%s%s/vocab.json", folder, where) < PATH_ROOM && kind_of_file(path) == FILE_REGULAR;
    return flis_fail(&j->ctx, "%s%s: is a folder without merges.txt or tokenizer.json%s", folder, where,
                     ids ? ": vocab.json has the tokens' ids, but no merges" : "");
}

flis_vocab *find_vocab(job *j)
{
    char folder[PATH_ROOM];
    bool found = false;
    if (j->set.vocab && kind_of_file(j->set.vocab) == FILE_FOLDER)
        return vocab_of_folder(j, j->set.vocab, true) ? flis_vocab_read(&j->ctx, j->vocab_path) : NULL;
    if (j->set.vocab) return input_check(&j->ctx, j->set.vocab) ? flis_vocab_read(&j->ctx, j->set.vocab) : NULL;
    if (j->set.model && !check_model(j)) return NULL;
    const char *model = j->set.model ? j->set.model : *j->model_path ? j->model_path : NULL;
    if (model) { /* a diffusers folder has its own in tokenizer/ */
        found = kind_of_file(model) == FILE_FOLDER && vocab_of_folder(j, model, false);
        if (!found && flis_ok(&j->ctx)) found = vocab_in(j, model, folder_length(model));
    } else
        for (int i = 0; !found && data_folder(j->self, i, "models/", "", folder); i++)
            found = vocab_in(j, folder, strlen(folder));
    if (found) return flis_vocab_read(&j->ctx, j->vocab_path);
    flis_fail(&j->ctx,
              "no vocabulary: give one with --vocab, or put vocab.txt, merges.txt or bpe_simple_vocab_16e6.txt[.gz] "
              "beside %s",
              model ? model : "the model");
    return NULL;
}

bool find_manifest(job *j, char folder[PATH_ROOM])
{
    char path[PATH_ROOM];
    if (j->set.manifest) {
        if (snprintf(folder, PATH_ROOM, "%s/", j->set.manifest) < PATH_ROOM) return true;
        return flis_fail(&j->ctx, "--manifest: the name is too long");
    }
    for (int i = 0; data_folder(j->self, i, "tests/golden/", "golden/", folder); i++)
        if (i == 2 || file_in(folder, strlen(folder), "manifest.json", path)) return true;
    return flis_fail(&j->ctx, "--manifest: the default name is too long");
}
