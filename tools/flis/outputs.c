/* outputs.c - what a command writes must be none of what it reads: checked before anything is computed. */
#include "tools/flis/command.h"

#include <stdlib.h>
#include <string.h>

static void add_name(job *j, names *in, const char *path)
{
    if (path && *path) names_add(&j->ctx, in, NULL, path, strlen(path));
}

/* A model's file, or the parts of a diffusers folder, where outputs_check looks for the files. */
static void add_model(job *j, names *in)
{
    static const char *const PARTS[] = {"unet", "vae", "text_encoder", "tokenizer", "scheduler", "model_index.json"};
    char path[PATH_ROOM];
    if (*j->model_path && kind_of_file(j->model_path) != FILE_FOLDER) add_name(j, in, j->model_path);
    else if (*j->model_path)
        for (size_t i = 0; i < sizeof PARTS / sizeof *PARTS; i++)
            if (snprintf(path, sizeof path, "%s/%s", j->model_path, PARTS[i]) < PATH_ROOM) add_name(j, in, path);
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
    for (size_t i = 0; file && i < file->shards; i++) add_name(j, in, file->shard[i].path);
    flis_file_close(file);
}

/* Whether the outputs can be written is asked once. */
static bool apart(job *j, const names *in, const names *out)
{
    const char *const *from = (const char *const *)in->name, *const *to = (const char *const *)out->name;
    const bool first = !j->outputs_checked;
    j->outputs_checked = true;
    return (first ? outputs_check : outputs_apart)(&j->ctx, from, in->count, to, out->count);
}

bool job_check_outputs(job *j, const batch *b)
{
    const settings *s = &j->set;
    const char *const given[] = {s->in, s->noise, s->truth, s->vocab, s->vae, j->vocab_path};
    names in = {0, 0, NULL}, out = {0, 0, NULL};
    for (size_t i = 0; i < sizeof given / sizeof *given; i++) add_name(j, &in, given[i]);
    for (size_t i = 0; b && i < b->sources; i++) {
        add_name(j, &in, b->source[i]);
        if (b->layout) add_name(j, &in, b->layout[i].label_path);
        if (b->layout) add_name(j, &in, b->layout[i].colors_path);
    }
    for (size_t i = 0; b && b->out && i < b->count; i++) add_name(j, &out, b->out[i]);
    if (!b) add_name(j, &out, s->out);
    add_name(j, &out, s->trace);
    for (size_t i = 0; i < out.count && flis_ok(&j->ctx); i++) binary_check(&j->ctx, out.name[i]);
    add_name(j, &out, s->trace_digest); /* JSON may go to a terminal */
    add_name(j, &out, s->json);
    add_model(j, &in);
    if (flis_ok(&j->ctx) && apart(j, &in, &out)) add_shards(j, &in);
    if (flis_ok(&j->ctx)) apart(j, &in, &out);
    names_free(&in);
    names_free(&out);
    return flis_ok(&j->ctx);
}
