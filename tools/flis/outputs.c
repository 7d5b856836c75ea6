/* outputs.c - what a command writes must be none of what it reads: checked before anything is computed. */
#include "tools/flis/command.h"

#include <stdlib.h>
#include <string.h>

static void add_input(job *j, names *in, const char *path)
{
    if (path && *path) names_add(&j->ctx, in, NULL, path, strlen(path));
}

/* A model's file, or the parts of a diffusers folder, where outputs_check looks for the files. */
static void add_model(job *j, names *in)
{
    static const char *const PARTS[] = {"unet", "vae", "text_encoder", "tokenizer", "scheduler", "model_index.json"};
    char path[PATH_ROOM];
    if (*j->model_path && kind_of_file(j->model_path) != FILE_FOLDER) add_input(j, in, j->model_path);
    else if (*j->model_path)
        for (size_t i = 0; i < sizeof PARTS / sizeof *PARTS; i++)
            if (snprintf(path, sizeof path, "%s/%s", j->model_path, PARTS[i]) < PATH_ROOM) add_input(j, in, path);
}

/* The files of a model that has several: those that an index names, which may lie elsewhere, and those of --vae. */
static void add_shards(job *j, names *in)
{
    const bool several = kind_of_file(j->model_path) == FILE_FOLDER || strstr(j->model_path, ".index.") || j->set.vae;
    if (!*j->model_path || !several) return;
    void (*warn)(void *, const char *) = j->ctx.warn;
    j->ctx.warn = NULL; /* the model is opened again for the work, and warns then */
    flis_file *file = open_model(j);
    j->ctx.warn = warn;
    for (size_t i = 0; file && i < file->shards; i++) add_input(j, in, file->shard[i].path);
    flis_file_close(file);
}

static bool apart(job *j, const names *in)
{
    const settings *s = &j->set;
    const char *const out[] = {s->out, s->trace, s->trace_digest, s->json};
    return binary_check(&j->ctx, s->out) && binary_check(&j->ctx, s->trace) &&
           outputs_check(&j->ctx, (const char *const *)in->name, in->count, out, sizeof out / sizeof *out);
}

bool job_check_outputs(job *j, const flis_layout *layout)
{
    const settings *s = &j->set;
    const char *const given[] = {s->layout, s->in, s->noise, s->truth, s->vocab, s->vae, j->vocab_path};
    names in = {0, 0, NULL};
    for (size_t i = 0; i < sizeof given / sizeof *given; i++) add_input(j, &in, given[i]);
    if (layout) add_input(j, &in, layout->label_path);
    add_model(j, &in);
    if (flis_ok(&j->ctx) && apart(j, &in)) add_shards(j, &in);
    if (flis_ok(&j->ctx)) apart(j, &in);
    names_free(&in);
    return flis_ok(&j->ctx);
}
