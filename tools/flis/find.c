/* find.c - where the command finds what was not named: the default model, its vocabulary, the conformance vectors. */
#include "tools/flis/command.h"

#include <string.h>

#ifndef FLIS_DATADIR
#define FLIS_DATADIR "/usr/local/share/flis"
#endif
#define DEFAULT_MODEL "flis-small.safetensors"

/* out = the first `length` bytes of folder, then name; true if there is such a file. */
static bool file_in(const char *folder, size_t length, const char *name, char out[PATH_ROOM])
{
    const int wrote = snprintf(out, PATH_ROOM, "%.*s%s", (int)length, folder, name);
    if (wrote < 0 || wrote >= PATH_ROOM || length >= PATH_ROOM) return false;
    const file_kind kind = kind_of_file(out);
    return kind == FILE_REGULAR || kind == FILE_SPECIAL;
}

/* Folder number i of those that defaults are looked for in: `here` beside the command and in the working directory, `installed`
   below the data folder. False: no more. */
static bool default_folder(const job *j, int i, const char *here, const char *installed, char out[PATH_ROOM])
{
    const size_t beside = folder_length(j->self);
    if (i == 0) return snprintf(out, PATH_ROOM, "%.*s%s", (int)beside, j->self, here) < PATH_ROOM;
    if (i == 1) return snprintf(out, PATH_ROOM, "%s", here) < PATH_ROOM;
    return i == 2 && snprintf(out, PATH_ROOM, "%s/%s", FLIS_DATADIR, installed) < PATH_ROOM;
}

bool find_model(job *j)
{
    char folder[PATH_ROOM];
    if (!j->set.model) {
        for (int i = 0; default_folder(j, i, "models/", "", folder); i++)
            if (file_in(folder, strlen(folder), DEFAULT_MODEL, j->model_path)) return true;
        return flis_fail(&j->ctx, "no model: give one with -m; the default, models/" DEFAULT_MODEL ", is not here");
    }
    const size_t length = strlen(j->set.model);
    if (length >= PATH_ROOM) return flis_fail(&j->ctx, "%.200s: the name is too long", j->set.model);
    memcpy(j->model_path, j->set.model, length + 1);
    return true;
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
    if (j->set.vocab) return flis_vocab_read(&j->ctx, j->set.vocab);
    const char *model = j->set.model ? j->set.model : *j->model_path ? j->model_path : NULL;
    if (model) { /* a diffusers folder has its own in tokenizer/ */
        const int length = snprintf(folder, sizeof folder, "%s/tokenizer/", model);
        found = (length > 0 && length < PATH_ROOM && vocab_in(j, folder, (size_t)length)) ||
                vocab_in(j, model, folder_length(model));
    } else
        for (int i = 0; !found && default_folder(j, i, "models/", "", folder); i++)
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
    for (int i = 0; default_folder(j, i, "tests/golden/", "golden/", folder); i++)
        if (i == 2 || file_in(folder, strlen(folder), "manifest.json", path)) return true;
    return flis_fail(&j->ctx, "--manifest: the default name is too long");
}
