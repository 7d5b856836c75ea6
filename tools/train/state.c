/* state.c - the state of a training in a file, and what it must agree with.
 *
 * A state holds all that changes, so a training that was stopped and resumed gives the same file as one that was not, on any
 * number of threads. Its metadata hold the options that the bits of a step depend on, and digests of the files: with another
 * folder of pictures a resumed training would go on without a word, and its result would be that of no training.
 */
#include "tools/train/train.h"

#include <stdlib.h>
#include <string.h>

void job_print_warning(void *user, const char *sentence)
{
    job *j = user;
    progress_end(&j->progress);
    fprintf(stderr, "train %s: warning: %s\n", STAGE[j->o.stage], sentence);
}

/* ---- Options ----------------------------------------------------------------------------------------------------- */

enum { FINGERPRINT = 768 };

/* What must be equal when a training is resumed: everything that the bits of a step depend on. Options that are newer than this
   text appear only where they are used, so that older states can still be resumed. */
static void fingerprint(const options *o, char *out, size_t room)
{
    char later[320] = "";
    if (o->workers > 1) text_append(later, sizeof later, " workers %llu", (unsigned long long)o->workers);
    if (o->alone > 0) text_append(later, sizeof later, " alone %.9g", o->alone);
    if (o->things_weight != 1) text_append(later, sizeof later, " things weight %.9g", o->things_weight);
    if (o->accumulate > 1) text_append(later, sizeof later, " accumulate %llu", (unsigned long long)o->accumulate);
    if (o->fall != 0.2) text_append(later, sizeof later, " fall %.9g", o->fall);
    if (o->flip != 0.5) text_append(later, sizeof later, " flip %.9g", o->flip);
    if (o->order == ORDER_EPOCHS) text_append(later, sizeof later, " epochs");
    if (o->phrases == PHRASES_ALL) text_append(later, sizeof later, " all-phrases");
    if (o->resize == RESIZE_BYTES) text_append(later, sizeof later, " bytes");
    if (o->dataset) text_append(later, sizeof later, " dataset");
    snprintf(out, room,
             "%s seed %llu batch %llu warmup %llu rate %.9g decay %.9g ema %.9g clip %.9g dropout %.9g kl %.9g edges "
             "%.9g colours %.9g "
             "size %llu crop %llu window %llu set %s%s%s%s%s%s",
             STAGE[o->stage], (unsigned long long)o->seed, (unsigned long long)o->batch, (unsigned long long)o->warmup,
             o->rate, o->decay, o->ema, o->clip, o->dropout, o->kl, o->edges, o->colours, (unsigned long long)o->size,
             (unsigned long long)o->crop, (unsigned long long)o->window, learns_pictures(o) ? "" : o->set,
             o->frozen_text ? " frozen text" : "", o->frozen_encoder ? " frozen encoder" : "",
             o->things ? " things" : "", o->stage == SEGMENTER && o->model ? " through an autoencoder" : "", later);
}

/* True if a text of options begins with a name and a value, "seed 1", not with a flag. */
static bool has_value(const char *text)
{
    const size_t name = strcspn(text, " ");
    return strncmp(text, "set ", 4) == 0 || (text[name] && text[name + 1] >= '0' && text[name + 1] <= '9');
}

/* Where two texts of options differ first: at which option. */
static size_t first_difference(const char *a, const char *b)
{
    size_t i = 0, word = 0, before = 0;
    for (; a[i] && a[i] == b[i]; i++)
        if (a[i] == ' ') before = word, word = i + 1;
    if ((!a[i] && b[i] == ' ') || (!b[i] && a[i] == ' ')) return i; /* one has more options */
    return has_value(a + before) ? before : word;
}

/* Of the option at the start of a text. */
static int option_length(const char *text)
{
    const size_t name = strcspn(text, " ");
    return (int)(has_value(text) ? name + 1 + strcspn(text + name + 1, " ") : name);
}

static bool check_options(job *j, const flis_file *file)
{
    char now[FINGERPRINT];
    const char *saved = flis_file_metadata(file, "train.options"), *path = j->o.state;
    fingerprint(&j->o, now, sizeof now);
    if (!saved) return flis_fail(&j->ctx, "%s: is not the state of a training: it names no options", path);
    if (strcmp(saved, now) == 0) return true;
    const char *was = saved + first_difference(saved, now), *is = now + (was - saved);
    was += *was == ' ';
    is += *is == ' ';
    return flis_fail(&j->ctx, "%s: its options were \"%s\", wanted \"%s\": \"%.*s\" is not \"%.*s\"", path, saved, now,
                     option_length(was), was, option_length(is), is);
}

/* ---- Origins ----------------------------------------------------------------------------------------------------- */

static const struct {
    const char *option, *key;
} ORIGIN[ORIGINS] = {
    [OF_MODEL] = {"--model", "train.model"}, [OF_START] = {"--start", "train.start"},
    [OF_VOCAB] = {"--vocab", "train.vocab"}, [OF_LATENTS] = {"--latents", "train.latents"},
    [OF_DATA] = {"--data", "train.data"},
};

/* The path of an origin; NULL: the stage does not use it. */
static const char *origin_path(const options *o, int which)
{
    const bool words = o->stage == TEXT2IMAGE || o->stage == LAYOUT;
    const char *const path[ORIGINS] = {o->model, o->start, words ? o->vocab : NULL, o->latents,
                                       o->dataset ? o->train_list : o->data};
    return path[which];
}

static void show_digest(void *user, const char *what, size_t done, size_t total)
{
    if (is_terminal(stderr)) progress_show(user, what, done, total);
}

/* Of all files of a model, and of the metadata that configuration files became. */
static bool model_digest(flis_ctx *ctx, const char *path, char hex[65])
{
    void (*const warn)(void *, const char *) = ctx->warn;
    flis_sha256 sum;
    uint64_t done = 0, total = 0;
    ctx->warn = NULL; /* what is to be said of the model was said when it was loaded */
    flis_file *file = flis_model_open(ctx, path);
    ctx->warn = warn;
    if (!file) return false;
    flis_sha256_begin(&sum);
    for (size_t i = 0; i < 2 * file->metadata_count; i++)
        flis_sha256_add(&sum, file->metadata[i], strlen(file->metadata[i]) + 1);
    for (size_t i = 0; i < file->count; i++) total += file->entry[i].end - file->entry[i].begin;
    for (size_t i = 0; i < file->shards; i++) file_digest_add(ctx, file->shard[i].path, &sum, &done, total);
    flis_sha256_end(&sum, hex);
    flis_file_close(file);
    return flis_ok(ctx);
}

bool origins_find(job *j)
{
    flis_ctx *ctx = &j->ctx;
    progress shown = {.quiet = j->o.quiet};
    ctx->progress = show_digest;
    ctx->progress_user = &shown;
    for (int i = 0; i < ORIGINS && flis_ok(ctx); i++) {
        const char *path = origin_path(&j->o, i);
        if (!path) strcpy(j->origin[i], "none");
        else if (i == OF_DATA) strcpy(j->origin[i], j->folder.digest);
        else if (i == OF_MODEL || i == OF_START) model_digest(ctx, path, j->origin[i]);
        else file_digest(ctx, path, j->origin[i]);
    }
    progress_end(&shown);
    ctx->progress = NULL;
    return flis_ok(ctx);
}

/* A state from before origins were kept is accepted with a warning. --start need not be given again where the state has all that was
   taken from it. */
static bool check_origins(job *j, const flis_file *file)
{
    char unknown[80] = "";
    for (int i = 0; i < ORIGINS; i++) {
        const char *saved = flis_file_metadata(file, ORIGIN[i].key), *now = j->origin[i], *path = origin_path(&j->o, i);
        const bool frozen = j->o.frozen_text || j->o.frozen_encoder;
        if (!saved && path) text_append(unknown, sizeof unknown, "%s%s", *unknown ? ", " : "", ORIGIN[i].option);
        if (!saved || strcmp(saved, now) == 0) continue;
        if (i == OF_START && !path && !frozen) {
            snprintf(j->origin[i], sizeof j->origin[i], "%.64s", saved);
            continue;
        }
        if (!path) return flis_fail(&j->ctx, "%s: its training had %s, which is missing", j->o.state, ORIGIN[i].option);
        if (strcmp(saved, "none") == 0)
            return flis_fail(&j->ctx, "%s: its training had no %s, got %s", j->o.state, ORIGIN[i].option, path);
        return flis_fail(&j->ctx, "%s: its training had another %s: got %s with SHA-256 %.12s…, wanted %.12s…",
                         j->o.state, ORIGIN[i].option, path, now, saved);
    }
    if (*unknown)
        flis_warn(&j->ctx,
                  "%s: was written by an older version: whether its training had the same %s could not be checked",
                  j->o.state, unknown);
    return true;
}

/* ---- The file ---------------------------------------------------------------------------------------------------- */

bool state_check(job *j)
{
    if (!j->o.resume) {
        if (kind_of_file(j->o.state) == FILE_REGULAR && kind_of_file(j->o.out) == FILE_ABSENT)
            flis_warn(
                &j->ctx,
                "%s: is the state of a training that is not finished, and will be replaced (--resume continues it)",
                j->o.state);
        return flis_ok(&j->ctx);
    }
    flis_file *file = flis_file_open(&j->ctx, j->o.state);
    const bool good = file && check_options(j, file) && input_check(&j->ctx, j->o.log);
    flis_file_close(file);
    return good;
}

/* The metadata of a model is there too, so that `flis info` can describe a state. */
bool state_write(job *j)
{
    char text[FINGERPRINT];
    flis_writer *writer = flis_write_begin(&j->ctx, j->o.state);
    if (!writer) return false;
    fingerprint(&j->o, text, sizeof text);
    flis_write_metadata(&j->ctx, writer, "train.options", text);
    snprintf(text, sizeof text, "%llu", (unsigned long long)j->o.steps);
    flis_write_metadata(&j->ctx, writer, "train.steps", text);
    for (int i = 0; i < ORIGINS; i++) flis_write_metadata(&j->ctx, writer, ORIGIN[i].key, j->origin[i]);
    snprintf(text, sizeof text, "%.17g %llu", j->sum, (unsigned long long)j->summed);
    if (j->summed) flis_write_metadata(&j->ctx, writer, "train.sum", text);
    model_metadata(&j->ctx, writer, &j->m, j->m.vae ? flis_vae_get_config(j->m.vae)->scale_factor : 1);
    training_declare(&j->ctx, writer, &j->training);
    training_write(&j->ctx, writer, &j->training);
    return flis_write_end(&j->ctx, writer) && log_write(j);
}

/* The sum of losses that no line of the log has yet. */
static void read_sum(job *j, const flis_file *file)
{
    const char *text = flis_file_metadata(file, "train.sum");
    char *end;
    if (!text) return;
    j->sum = strtod(text, &end);
    j->summed = strtoull(end, NULL, 10);
}

/* Another --steps is no error, for a training may be made longer; but then the rate falls at another time, if it falls. */
static void compare_steps(job *j, const flis_file *file)
{
    uint64_t steps;
    const char *text = flis_file_metadata(file, "train.steps");
    if (!text || !parse_whole(text, &steps) || steps == j->o.steps || j->o.fall <= 0) return;
    flis_warn(&j->ctx,
              "%s: its training had --steps %s, now it is %llu: the learning rate falls over the last %s of these",
              j->o.state, text, (unsigned long long)j->o.steps, j->o.fall == 0.2 ? "fifth" : "part (--fall)");
}

bool state_read(job *j)
{
    flis_file *file = flis_file_open(&j->ctx, j->o.state);
    if (!file) return false;
    const bool good = check_options(j, file) && check_origins(j, file) && training_read(&j->ctx, file, &j->training);
    if (good) read_sum(j, file), compare_steps(j, file);
    flis_file_close(file);
    return good && log_read(j);
}
