/* find.c - where the command finds what was not named: the default model, its vocabulary, the conformance vectors. */
#include "tools/flis/command.h"

#include <string.h>

#define DEFAULT_MODEL "flis-small.safetensors"

/* Whether `folder` has a folder of that name. */
static bool has_folder(const char *folder, const char *name)
{
    char path[PATH_ROOM];
    return snprintf(path, sizeof path, "%s/%s", folder, name) < PATH_ROOM && kind_of_file(path) == FILE_FOLDER;
}

/* The model that was given, which is a file or a folder, must exist. */
static bool check_model(job *j)
{
    const char *path = j->set.model;
    const file_kind kind = kind_of_file(path);
    if (kind != FILE_FOLDER) return input_check(&j->ctx, path);
    if (has_folder(path, "unet") || has_folder(path, "vae") || has_folder(path, "text_encoder") ||
        has_folder(path, "tokenizer"))
        return true;
    return flis_fail(&j->ctx, "%s: is a folder without unet/, vae/ or text_encoder/", path);
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

flis_file *open_model(job *j)
{
    return flis_model_open(&j->ctx, j->model_path);
}

flis_model *load_model(job *j, unsigned parts)
{
    return flis_model_load(&j->ctx, j->model_path, parts);
}

bool check_tensors(job *j)
{
    flis_file *file = open_model(j);
    flis_file_close(file);
    return file != NULL;
}

static bool vocab_in(job *j, const char *folder, size_t length)
{
    static const char *const NAMES[] = {"vocab.txt", "merges.txt", "bpe_simple_vocab_16e6.txt",
                                        "bpe_simple_vocab_16e6.txt.gz"};
    for (size_t i = 0; i < sizeof NAMES / sizeof *NAMES; i++)
        if (file_in(folder, length, NAMES[i], j->vocab_path)) return true;
    return false;
}

flis_vocab *find_vocab(job *j)
{
    char folder[PATH_ROOM];
    bool found = false;
    if (j->set.vocab) return input_check(&j->ctx, j->set.vocab) ? flis_vocab_read(&j->ctx, j->set.vocab) : NULL;
    if (j->set.model && !check_model(j)) return NULL;
    const char *model = j->set.model ? j->set.model : *j->model_path ? j->model_path : NULL;
    if (model) { /* a diffusers folder has its own in tokenizer/ */
        const int length = snprintf(folder, sizeof folder, "%s/tokenizer/", model);
        found = (length > 0 && length < PATH_ROOM && vocab_in(j, folder, (size_t)length)) ||
                vocab_in(j, model, folder_length(model));
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
