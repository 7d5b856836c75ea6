/* files.c - vectors of the PNG that is written, and of layouts and options that must be refused. */
#include "tools/golden/golden.h"

#include <stdlib.h>
#include <string.h>

static void png_vector(golden *g)
{
    static const char *const words[] = {"Software", "flis", "Title", "caf\xC3\xA9", "prompt", "\xE6\xB5\xB7", NULL};
    uint8_t pixels[5 * 7 * 3];
    int64_t whole[sizeof pixels];
    const size_t shape[3] = {5, 7, 3};
    size_t length = 0;
    vector_begin(g, "png", 0, "9.2",
                 "the PNG of a picture 7 wide and 5 high with three texts: bytes are a function of pixels and texts",
                 "BGR, H and W swapped, text that is not Latin-1 in tEXt, another filter or compression");
    given(g, "texts", "{\"Software\": \"flis\", \"Title\": \"caf\xC3\xA9\", \"prompt\": \"\xE6\xB5\xB7\"}");
    for (size_t i = 0; i < sizeof pixels; i++) whole[i] = pixels[i] = (uint8_t)(i * i % 251);
    whole_input(g, "pixels", FLIS_U8, 3, shape, "i i mod 251 of the flat index i, [h,w,rgb]", whole);
    const flis_picture picture = {7, 5, 3, pixels};
    uint8_t *bytes = flis_png_bytes(&g->ctx, &picture, words, &length);
    if (bytes) byte_output(g, "bytes", 1, &length, bytes, EXACT);
    free(bytes);
    vector_end(g);
}

/* Reads `content`, written to a file for the time being, as a layout; the sentence names that file layout.json. */
static void layout_vector(golden *g, const char *scratch, const char *id, const char *section, const char *what,
                          const char *catches, const char *content, const char *kind)
{
    flis_layout layout = {0};
    vector_begin(g, id, 0, section, what, catches);
    given_string(g, "layout", content);
    flis_output file;
    if (flis_output_open(&g->all, scratch, &file)) fputs(content, file.stream);
    if (flis_output_close(&g->all, &file)) flis_layout_read(&g->ctx, scratch, &layout);
    output_remove(scratch);
    char *at = strstr(g->ctx.error, scratch);
    if (at && strlen(g->ctx.error) + strlen("layout.json") < sizeof g->ctx.error) {
        memmove(at + strlen("layout.json"), at + strlen(scratch), strlen(at + strlen(scratch)) + 1);
        memcpy(at, "layout.json", strlen("layout.json"));
    }
    if (kind) refusal_output(g, kind);
    else {
        int64_t ids[16];
        const size_t count = layout.count < 16 ? layout.count : 16;
        for (size_t i = 0; i < count; i++) ids[i] = layout.phrase[i].id;
        whole_output(g, "ids", 1, &count, ids);
    }
    flis_layout_free(&layout);
    vector_end(g);
}

static void layout_vectors(golden *g, const char *scratch)
{
    layout_vector(g, scratch, "layout.pairs", "10.9", "a list of pairs lets a phrase occur twice; order is kept",
                  "phrases sorted, or merged",
                  "{\"text_label_mapping\": [[\"sky\", 1], [\"in oil\", -1], [\"sky\", 5]]}", NULL);
    layout_vector(g, scratch, "layout.id", "10.9", "an id above 255 is refused: label maps have 8 bits",
                  "256 taken for 0", "{\"text_label_mapping\": {\"sky\": 256}}", "id out of range");
    layout_vector(g, scratch, "layout.negative", "10.9", "an id below -1 is refused", "-2 taken for -1 or 254",
                  "{\"text_label_mapping\": {\"sky\": -2}}", "id out of range");
    layout_vector(g, scratch, "layout.fraction", "10.9", "an id that is no whole number is refused", "1.5 taken for 1",
                  "{\"text_label_mapping\": {\"sky\": 1.5}}", "id out of range");
    layout_vector(g, scratch, "layout.missing", "10.9", "a layout without text_label_mapping is refused",
                  "an empty prompt", "{\"layout_path\": \"a.png\"}", "text_label_mapping missing");
    layout_vector(g, scratch, "layout.json", "10.8", "JSON that is cut short is refused", "what was read so far taken",
                  "{\"text_label_mapping\": {\"sky\": 1", "broken JSON");
    layout_vector(
        g, scratch, "layout.absent", "10.9", "a label map that is not there is refused", "a plain picture made instead",
        "{\"text_label_mapping\": {\"sky\": 1}, \"layout_path\": \"flis-no-such-label-map.png\"}", "label map missing");
}

static void options_vector(golden *g, const char *id, const char *what, const char *catches, size_t width,
                           size_t height, flis_sampling s, const char *kind)
{
    flis_options options;
    flis_picture out = {0};
    flis_layout layout = {0};
    flis_options_default(&options);
    options.width = width;
    options.height = height;
    options.sampling = s;
    vector_begin(g, id, s.steps == 50 && s.eta == 0 ? 6 : 11, "13.2", what, catches);
    given(g, "size", "[%zu, %zu]", width, height);
    given_string(g, "sampler", s.kind == FLIS_PLMS ? "plms" : "ddim");
    given(g, "steps", "%d", s.steps);
    given(g, "eta", "%g", s.eta);
    /* Options are checked before the model is looked for; with them accepted, it is the file that is missing. */
    const bool done = flis_generate(&g->ctx, "flis-no-such-model.safetensors", NULL, &layout, &options, &out);
    if (!done && strstr(g->ctx.error, "flis-no-such-model")) g->ctx.error[0] = 0;
    refusal_output(g, kind);
    free(out.pixels);
    vector_end(g);
}

static void options_vectors(golden *g)
{
    options_vector(g, "refused.size", "a picture size that is no multiple of 64 is refused", "a size rounded or taken",
                   512, 500, (flis_sampling){FLIS_PLMS, 50, 0, 2}, "size");
    options_vector(g, "refused.steps", "27 steps are refused: timestep 1000 would be read",
                   "alphas beyond the schedule", 512, 512, (flis_sampling){FLIS_PLMS, 27, 0, 2},
                   "last timestep beyond the schedule");
    options_vector(g, "refused.eta", "PLMS with eta is refused", "eta ignored", 512, 512,
                   (flis_sampling){FLIS_PLMS, 50, 0.5, 2}, "eta");
    uint8_t mask[4 * FLIS_TOKENS], label[4] = {0};
    float ids[76] = {0};
    vector_begin(g, "refused.classes", 5, "4.3", "a layout with classes for 76 tokens is refused",
                 "a column beyond the text's closed, EOS masked");
    const flis_rca rca = {label, 2, 2, ids, 76};
    flis_rca_mask(&g->ctx, &rca, 2, 2, mask);
    refusal_output(g, "too many tokens");
    vector_end(g);
}

void file_vectors(golden *g, const char *scratch)
{
    png_vector(g);
    layout_vectors(g, scratch);
    options_vectors(g);
}
