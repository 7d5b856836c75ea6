/* golden - writes the conformance vectors: what a port of FreestyleNet must compute, one vector per operation, stage and rule
 * that is easy to get wrong, each with the mistake that it catches.
 *
 * Inputs and weights are formulas of their names (SPEC 11.1), so that a port needs nothing but the manifest; inputs.safetensors
 * holds them as well. Tensors in files are in PyTorch's order.
 */
#include "tools/golden/golden.h"

#include <stdlib.h>
#include <string.h>

typedef struct options {
    const char *answers;
} options;

static const option OPTIONS[] = {
    {.name = "answers",
     .kind = OPTION_TEXT,
     .value = "FILE",
     .offset = offsetof(options, answers),
     .help = "write flis' own answers alone, as a port would give them to `flis conformance`; default: none"},
};

static const program GOLDEN = {
    .name = "golden",
    .arguments = "DIR\n--answers FILE.safetensors",
    .summary = "Writes the conformance vectors into the folder DIR: manifest.json, inputs.safetensors and\n"
               "outputs.safetensors, the same bytes on every machine. A vector that fails is named on stderr.",
    .options = OPTIONS,
    .count = sizeof OPTIONS / sizeof *OPTIONS,
};

/* SPEC 11.3. */
static void make_vectors(golden *g, const char *scratch)
{
    operation_vectors(g);
    text_vectors(g);
    label_vectors(g);
    network_vectors(g);
    sampler_vectors(g);
    file_vectors(g, scratch);
}

/* FOLDER/NAME, or NAME alone; room is left for what is appended while the file is written. */
static void make_path(golden *g, const char *folder, const char *name, char out[PATH_ROOM])
{
    if (snprintf(out, PATH_ROOM, "%s%s%s", folder, *folder ? "/" : "", name) >= PATH_ROOM - 16)
        flis_fail(&g->all, "%.200s: the name is too long", *folder ? folder : name);
}

/* The layouts of some vectors are in a file for the time being, which must not be another's. */
static bool check_files(golden *g, const char *const *out, size_t count, const char *scratch)
{
    if (kind_of_file(scratch) != FILE_ABSENT)
        return flis_fail(&g->all, "%s: exists already, and a file of that name is made and removed here", scratch);
    return outputs_check(&g->all, NULL, 0, out, count);
}

/* manifest.json and its two files of tensors. */
static void write_vectors(golden *g, const char *folder)
{
    char manifest[PATH_ROOM], inputs[PATH_ROOM], outputs[PATH_ROOM], scratch[PATH_ROOM];
    make_path(g, folder, "manifest.json", manifest);
    make_path(g, folder, "inputs.safetensors", inputs);
    make_path(g, folder, "outputs.safetensors", outputs);
    make_path(g, folder, "layout.scratch", scratch);
    const char *const out[] = {manifest, inputs, outputs, scratch};
    if (!flis_ok(&g->all) || !folder_check(&g->all, folder) || !check_files(g, out, 4, scratch)) return;
    make_vectors(g, scratch);
    if (g->failed) flis_fail(&g->all, "%zu vectors failed; nothing was written", g->failed);
    write_list(g, &g->inputs, inputs);
    write_list(g, &g->outputs, outputs);
    write_manifest(g, manifest);
}

static void write_answers(golden *g, const char *path)
{
    char scratch[PATH_ROOM];
    make_path(g, "", path, scratch);
    if (!flis_ok(&g->all)) return;
    if (strcmp(path, "-") == 0) strcpy(scratch, "flis-answers"); /* standard output */
    strcat(scratch, ".layout");
    const char *const out[] = {path, scratch};
    if (!binary_check(&g->all, path) || !check_files(g, out, 2, scratch)) return;
    make_vectors(g, scratch);
    write_list(g, &g->outputs, path);
    if (g->failed) flis_fail(&g->all, "%zu vectors failed; their answers are missing", g->failed);
}

int main(int argc, char **argv)
{
    options o = {NULL};
    golden g = {.vectors = 0};
    int words;
    const int status = options_read(&GOLDEN, &o, argc, argv, &words);
    if (status >= 0) return finish("golden", NULL, status);
    if (words > (o.answers ? 0 : 1)) return unexpected_argument(&GOLDEN, argv[o.answers ? 0 : 1]);
    if (!words && !o.answers) return missing_argument(&GOLDEN, "DIR or --answers FILE.safetensors");
    if (!o.answers && sizeof(flis_real) == 8)
        return usage_error(&GOLDEN, "DIR takes single precision: in double precision there is only --answers");
    flis_init(&g.all);
    if (o.answers) write_answers(&g, o.answers);
    else write_vectors(&g, argv[0]);
    list_drop(&g.inputs, 0);
    list_drop(&g.outputs, 0);
    list_drop(&g.traced, 0);
    free(g.manifest.at);
    free(g.given.at);
    free(g.in.at);
    free(g.out.at);
    flis_free(&g.all);
    return finish("golden", &g.all, 0);
}
