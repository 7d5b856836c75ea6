/* batch.c - the pictures of one `flis generate`: every layout with every seed, and the files that they go to. */
#include "tools/flis/command.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

/* Whether the text after a name's last dot is `ending`, in any case. */
static bool has_ending(const char *name, const char *ending)
{
    const char *dot = strrchr(name, '.');
    size_t k = 0;
    while (dot && dot[k + 1] && tolower((unsigned char)dot[k + 1]) == ending[k]) k++;
    return dot && !dot[k + 1] && !ending[k];
}

/* Endings of other formats: a file with such a name that holds a PNG would mislead the next program. */
static bool other_format(const char *name)
{
    static const char *const ENDINGS[] = {"jpe",  "jfif", "webp", "bmp", "dib", "gif", "tif",  "tiff",        "avif",
                                          "heic", "heif", "jxl",  "jp2", "ppm", "pgm", "pnm",  "tga",         "ico",
                                          "svg",  "pdf",  "psd",  "exr", "npy", "txt", "json", "safetensors", "ckpt"};
    for (size_t i = 0; i < sizeof ENDINGS / sizeof *ENDINGS; i++)
        if (has_ending(name, ENDINGS[i])) return true;
    return false;
}

picture_format format_of_name(const char *name)
{
    return has_ending(name, "jpg") || has_ending(name, "jpeg") ? FORMAT_JPEG
           : has_ending(name, "png")                           ? FORMAT_PNG
                                                               : FORMAT_BY_NAME;
}

/* The length of a file's name without its ending; a dot at its start is part of the name. */
static size_t stem_length(const char *name)
{
    const char *dot = strrchr(name, '.');
    return dot && dot != name ? (size_t)(dot - name) : strlen(name);
}

const char *source_name(const batch *b, size_t i)
{
    return strcmp(b->source[i], "-") == 0 ? "stdin" : base_name(b->source[i]);
}

/* Whether -o names a folder: one that exists, or any name that ends in a separator. */
static bool into_folder(const settings *s)
{
    return is_separator(s->out[strlen(s->out) - 1]) || kind_of_file(s->out) == FILE_FOLDER;
}

static const char *folder_ending(const settings *s)
{
    return s->format == FORMAT_JPEG ? ".jpg" : ".png";
}

/* "out.png" and 42: "out-42.png"; into a folder: the layout's stem. */
static char *name_picture(job *j, const batch *b, size_t i)
{
    const char *out = j->set.out, *last = base_name(out), *source = source_name(b, i / b->seeds);
    const unsigned long long seed = j->set.seed + i % b->seeds;
    const size_t stem = stem_length(last);
    buffer name = {NULL, 0, 0};
    if (b->folder)
        buffer_put(&j->ctx, &name, "%s%s%.*s", out, is_separator(out[strlen(out) - 1]) ? "" : "/",
                   (int)stem_length(source), source);
    else buffer_put(&j->ctx, &name, "%.*s%.*s", (int)folder_length(out), out, (int)stem, last);
    if (b->seeds > 1) buffer_put(&j->ctx, &name, "-%llu", seed);
    buffer_put(&j->ctx, &name, "%s", b->folder ? folder_ending(&j->set) : last + stem);
    return name.at;
}

/* The index of the first layout with the stem of layout i. */
static size_t same_stem(const batch *b, size_t i)
{
    const char *name = source_name(b, i);
    const size_t length = stem_length(name);
    for (size_t k = 0; k < i; k++) {
        const char *other = source_name(b, k);
        if (stem_length(other) == length && memcmp(other, name, length) == 0) return k;
    }
    return i;
}

/* What the names alone show. 0, or 2: a usage error was printed. */
static int check_names(const job *j, const batch *b)
{
    const settings *s = &j->set;
    const picture_format named = format_of_name(base_name(s->out));
    if (s->count - 1 > UINT64_MAX - s->seed)
        return usage_error(j->program, "--seed %llu and --count %llu: the last seed is beyond 2^64-1",
                           (unsigned long long)s->seed, (unsigned long long)s->count);
    if (!b->folder && other_format(base_name(s->out)))
        return usage_error(j->program,
                           "invalid value '%s' for --output: pictures are PNG or JPEG files here; wanted FILE.png or "
                           "FILE.jpg",
                           s->out);
    if (!b->folder && named != FORMAT_BY_NAME && named != (picture_format)s->format)
        return usage_error(j->program, "-o %s and --format %s contradict each other", s->out,
                           s->format == FORMAT_JPEG ? "jpg" : "png");
    if (b->sources > 1 && !b->folder)
        return usage_error(j->program, "%zu layouts ('%s', '%s'%s) need a folder for their pictures: -o DIR/",
                           b->sources, b->source[0], b->source[1], b->sources > 2 ? ", ..." : "");
    if (b->count > 1 && !b->folder && (strcmp(s->out, "-") == 0 || kind_of_file(s->out) == FILE_SPECIAL))
        return usage_error(j->program, "-o %s takes one picture, got %zu", s->out, b->count);
    if (b->count > 1 && tracing(j))
        return usage_error(j->program, "a trace belongs to one picture, got %zu pictures", b->count);
    for (size_t i = 0; i < b->sources; i++) {
        const size_t first = same_stem(b, i);
        if (first == i) continue;
        if (strcmp(b->source[i], b->source[first]) == 0)
            return usage_error(j->program, "layout '%s' is given twice", b->source[i]);
        return usage_error(j->program, "layouts '%s' and '%s' would both be painted to '%.*s%s': rename one",
                           b->source[first], b->source[i], (int)stem_length(source_name(b, i)), source_name(b, i),
                           folder_ending(s));
    }
    return 0;
}

int batch_plan(job *j, batch *b)
{
    flis_ctx *ctx = &j->ctx;
    b->folder = into_folder(&j->set);
    b->seeds = (size_t)j->set.count;
    b->count = b->sources * b->seeds;
    if (j->set.format == FORMAT_BY_NAME && !b->folder) j->set.format = format_of_name(base_name(j->set.out));
    if (j->set.format == FORMAT_BY_NAME) j->set.format = FORMAT_PNG;
    const int status = check_names(j, b);
    if (status) return status;
    b->layout = flis_alloc(ctx, b->sources, sizeof *b->layout);
    b->out = flis_alloc(ctx, b->count, sizeof *b->out);
    for (size_t i = 0; flis_ok(ctx) && i < b->count; i++) b->out[i] = name_picture(j, b, i);
    return 0;
}

bool batch_make_folder(job *j, batch *b)
{
    if (!b->folder || kind_of_file(j->set.out) != FILE_ABSENT) return flis_ok(&j->ctx);
    size_t length = strlen(j->set.out);
    while (length > 1 && is_separator(j->set.out[length - 1])) length--;
    b->made = flis_alloc(&j->ctx, length + 1, 1);
    if (b->made) memcpy(b->made, j->set.out, length);
    if (b->made && make_folder(&j->ctx, b->made)) return true;
    free(b->made);
    b->made = NULL;
    return false;
}

/* Adds to the error which picture failed and which are finished. */
static void explain_failure(flis_ctx *ctx, const batch *b)
{
    char why[sizeof ctx->error];
    memcpy(why, ctx->error, sizeof why);
    flis_clear_error(ctx);
    if (!b->finished) flis_fail(ctx, "%s (picture 1 of %zu, %s; none is finished)", why, b->count, b->out[0]);
    else
        flis_fail(ctx, "%s (picture %zu of %zu, %s; finished: %s%s%s)", why, b->finished + 1, b->count,
                  b->out[b->finished], b->out[0], b->finished > 1 ? " to " : "",
                  b->finished > 1 ? b->out[b->finished - 1] : "");
}

void batch_end(job *j, batch *b)
{
    if (b->painting && b->count > 1 && b->finished < b->count && !flis_ok(&j->ctx)) explain_failure(&j->ctx, b);
    if (b->made && !b->finished) scratch_remove(b->made);
    for (size_t i = 0; b->layout && i < b->sources; i++) flis_layout_free(&b->layout[i]);
    for (size_t i = 0; b->out && i < b->count; i++) free(b->out[i]);
    free(b->layout);
    free(b->out);
    free(b->made);
}
