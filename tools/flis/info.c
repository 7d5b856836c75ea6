/* info.c - `flis info`: the kind of a model, its parts and their configuration, and every tensor. */
#include "tools/flis/command.h"

#include <stdlib.h>
#include <string.h>

/* The parts of a checkpoint by the prefixes of their tensors' names; the last takes what is left. */
static const char *const PART_PREFIX[] = {"cond_stage_model.", "model.diffusion_model.", "first_stage_model.", ""};
enum { PART_CLIP, PART_UNET, PART_VAE, PART_OTHER, PARTS };

/* Totals of one part of the file. */
typedef struct part_sum {
    size_t tensors;
    uint64_t parameters;
    size_t of[FLIS_OTHER + 1];
} part_sum;

static int part_of(const char *name)
{
    int part = 0;
    while (strncmp(name, PART_PREFIX[part], strlen(PART_PREFIX[part]))) part++;
    return part;
}

static void print_list(const char *label, const size_t *values, size_t count)
{
    printf(" %s", label);
    for (size_t i = 0; i < count; i++) printf("%c%zu", i ? ',' : ' ', values[i]);
}

static void print_clip(flis_ctx *ctx, flis_file *file)
{
    flis_clip *clip = flis_clip_load(ctx, file);
    if (!clip) return;
    const flis_clip_config *k = flis_clip_get_config(clip);
    printf(" vocab %zu width %zu layers %zu heads %zu hidden %zu positions %zu", k->vocab, k->width, k->layers,
           k->heads, k->hidden, k->positions);
    flis_clip_free(clip);
}

static void print_unet(flis_ctx *ctx, flis_file *file)
{
    flis_unet *unet = flis_unet_load(ctx, file);
    if (!unet) return;
    const flis_unet_config *k = flis_unet_get_config(unet);
    size_t attention[FLIS_MAX_LEVELS];
    for (size_t i = 0; i < k->levels; i++) attention[i] = k->attention[i];
    printf(" in %zu out %zu channels %zu", k->in, k->out, k->channels);
    print_list("mult", k->mult, k->levels);
    print_list("attention", attention, k->levels);
    printf(" blocks %zu heads %zu context %zu", k->blocks, k->heads, k->context);
    flis_unet_free(unet);
}

static void print_vae(flis_ctx *ctx, flis_file *file)
{
    bool encoder = flis_file_find(file, "first_stage_model.encoder.conv_in.weight");
    flis_vae *vae = flis_vae_load(ctx, file, true, encoder);
    if (!vae) return;
    const flis_vae_config *k = flis_vae_get_config(vae);
    printf(" channels %zu", k->channels);
    print_list("mult", k->mult, k->levels);
    printf(" blocks %zu z %zu embed %zu scale_factor %.9g encoder %s", k->blocks, k->z, k->embed, k->scale_factor,
           encoder ? "yes" : "no");
    flis_vae_free(vae);
}

/* Lines to be printed later. */
typedef struct lines {
    char *text;
    size_t used;
} lines;

static void keep_line(void *user, const char *line)
{
    lines *kept = user;
    size_t length = strlen(line) + 3;
    char *grown = realloc(kept->text, kept->used + length + 1);
    if (!grown) return;
    kept->text = grown;
    kept->used += (size_t)sprintf(grown + kept->used, "  %s\n", line);
}

/* The line of a part: tensors, parameters, dtypes, and the configuration as the library reads it; below it every tensor that is
   missing, misshaped or unexpected. A dry context loads nothing. */
static bool print_part(flis_ctx *ctx, flis_file *file, int part, const part_sum *sum)
{
    static const char *const name[] = {"clip", "unet", "vae", "other"};
    static void (*const print[])(flis_ctx *, flis_file *) = {print_clip, print_unet, print_vae};
    flis_ctx dry;
    printf("%s tensors %zu parameters %llu", name[part], sum->tensors, (unsigned long long)sum->parameters);
    for (int k = 0; k <= FLIS_OTHER; k++)
        if (sum->of[k]) printf(" %s %zu", k == FLIS_OTHER ? "other" : flis_dtype_name((flis_dtype)k), sum->of[k]);
    if (part == PART_OTHER || !sum->tensors) return printf("\n") > 0;
    if (!flis_init(&dry)) return flis_fail(ctx, "%s", dry.error);
    lines found = {NULL, 0};
    dry.dry = true;
    dry.report = keep_line;
    dry.report_user = &found;
    print[part](&dry, file);
    printf("%s\n%s", flis_ok(&dry) ? "" : " incomplete", found.text ? found.text : "");
    free(found.text);
    if (!flis_ok(&dry)) flis_fail(ctx, "%s", dry.error);
    flis_free(&dry);
    return flis_ok(ctx);
}

/* The text encoder of Stable Diffusion v1 is 768 wide; that of v2 has another width and other names. */
static bool file_has_clip_l(const flis_file *file)
{
    const flis_entry *e =
        flis_file_find(file, "cond_stage_model.transformer.text_model.embeddings.token_embedding.weight");
    return e && e->rank == 2 && e->shape[1] == 768;
}

/* The kind of model, judged by the names and sizes of its tensors. */
static const char *kind_of_model(const flis_file *file)
{
    const flis_entry *first = flis_file_find(file, "model.diffusion_model.input_blocks.0.0.weight");
    const char *lacks = flis_model_lacks(file);
    if (lacks) return lacks;
    if (first && first->rank == 4 && first->shape[0] == 320 && (first->shape[1] != 4 || !file_has_clip_l(file)))
        return "a latent diffusion model of Stable Diffusion v1's width, but another text encoder or input: none that "
               "flis knows";
    if (!first || first->rank != 4 || first->shape[0] != 320)
        return "a small latent diffusion model with Stable Diffusion v1's topology";
    if (file->shards == 1) return "Stable Diffusion v1 or FreestyleNet, single file";
    return file->shards == 3 && !strstr(file->path, ".index.json")
               ? "Stable Diffusion v1 or FreestyleNet, diffusers folder"
               : "Stable Diffusion v1 or FreestyleNet, sharded";
}

/* --verify: reads every value, as copying the weights into memory does, and fails with the tensors that have a NaN or an infinity
   and the index of the first. */
static void verify(flis_ctx *ctx, flis_file *file)
{
    size_t bad = 0;
    char first[256] = "";
    for (size_t i = 0; i < file->count && flis_poll(ctx); i++) {
        const flis_entry *e = &file->entry[i];
        const size_t count = (size_t)flis_entry_count(e);
        flis_real *x = e->dtype <= FLIS_BF16 ? flis_alloc(ctx, count, sizeof *x) : NULL;
        size_t k = 0;
        if (x && flis_file_read_real(ctx, file, e, x))
            while (k < count && x[k] - x[k] == 0) k++;
        if (x && flis_ok(ctx) && k < count) {
            printf("not finite ");
            print_name(stdout, e->name);
            printf(" %zu\n", k);
            if (!bad++) snprintf(first, sizeof first, "%.180s: value %zu is NaN or infinite", e->name, k);
        }
        free(x);
    }
    if (bad)
        flis_fail(ctx, "%s: %zu tensor%s not finite, first %s", file->path, bad, bad == 1 ? " is" : "s are", first);
    else if (flis_ok(ctx)) printf("every value is finite\n");
}

int run_info(job *j)
{
    flis_ctx *ctx = &j->ctx;
    part_sum sum[PARTS] = {{0, 0, {0}}};
    uint64_t bytes = 0;
    if (!j->words) return missing_argument(j->program, "MODEL");
    if (j->words > 1) return unexpected_argument(j->program, j->word[1]);
    j->set.model = j->word[0];
    ctx->dry = true; /* a model of another kind is listed as well, before it is named */
    flis_file *file = find_model(j) ? open_model(j) : NULL;
    ctx->dry = false;
    if (!file) return 1;
    for (size_t i = 0; i < file->count; i++) {
        int part = part_of(file->entry[i].name);
        sum[part].tensors++;
        sum[part].parameters += flis_entry_count(&file->entry[i]);
        sum[part].of[file->entry[i].dtype]++;
        bytes += file->entry[i].end - file->entry[i].begin;
    }
    printf("kind %s\nfiles %zu\nbytes %llu\ntensors %zu\n", kind_of_model(file), file->shards,
           (unsigned long long)bytes, file->count);
    for (size_t i = 0; i < file->metadata_count; i++)
        for (int k = 0; k < 2; k++) {
            fputs(k ? " " : "metadata ", stdout);
            print_name(stdout, file->metadata[2 * i + (size_t)k]);
            fputs(k ? "\n" : "", stdout);
        }
    for (int part = 0; part < PARTS; part++) print_part(ctx, file, part, &sum[part]);
    printf("\n");
    for (size_t i = 0; i < file->count; i++) {
        const flis_entry *e = &file->entry[i];
        print_name(stdout, e->name);
        fputc(' ', stdout);
        print_name(stdout, flis_entry_dtype(e));
        fputs(" [", stdout);
        for (int k = 0; k < e->rank; k++) printf("%s%llu", k ? "," : "", (unsigned long long)e->shape[k]);
        if (j->set.diffable) printf("]\n");
        else printf("] %zu:%llu-%llu\n", e->shard, (unsigned long long)e->begin, (unsigned long long)e->end);
    }
    if (flis_ok(ctx)) flis_model_check(ctx, file);
    if (j->set.verify && flis_ok(ctx)) verify(ctx, file);
    flis_file_close(file);
    return job_status(j);
}
