/* ckpt2safetensors - turns a PyTorch checkpoint (.ckpt, .pt) into a safetensors file, without PyTorch and without ever
 * executing the pickle in it.
 *
 * A pickle is a program for a stack machine that may call anything. This program interprets the machine and calls nothing: a few
 * functions of PyTorch describe dictionaries and tensors, and whatever any other function or class would have made is an inert
 * value. Only a tensor that depends on an inert value is refused, and only where it would be written.
 *
 * Formats: torch.save's zip archive (zip.c) and the stream of pickles before it (legacy.c).
 */
#include "tools/ckpt2safetensors/ckpt.h"

#include <stdlib.h>
#include <string.h>

typedef struct options {
    conversion c;
    const char **set, **without; /* room for every argument */
} options;

static bool add_without(void *user, const char *text)
{
    options *o = user;
    if (!*text) return false;
    o->without[o->c.withouts++] = text;
    return true;
}

/* KEY=VALUE: a key that was not given before, and a number above 0 where flis reads a number. */
static bool add_metadata(void *user, const char *text)
{
    static const char *const numbers[] = {"unet.num_heads", "clip.num_heads", "vae.scale_factor",
                                          "unet.norm_num_groups", "vae.norm_num_groups"};
    options *o = user;
    const size_t length = strcspn(text, "=");
    if (!length || !text[length]) return false;
    for (size_t i = 0; i < o->c.sets; i++)
        if (strncmp(o->set[i], text, length + 1) == 0) return false;
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        double number;
        if (strlen(numbers[i]) != length || strncmp(numbers[i], text, length) != 0) continue;
        if (!parse_number(text + length + 1, &number) || !(number > 0)) return false;
    }
    o->set[o->c.sets++] = text;
    return true;
}

static const option OPTIONS[] = {
    {.name = "half",
     .kind = OPTION_FLAG,
     .offset = offsetof(options, c.half),
     .help = "store floating-point weights as F16"},
    {.name = "ema",
     .kind = OPTION_FLAG,
     .offset = offsetof(options, c.ema),
     .help = "take the averaged weights (model_ema.*) in place of model.*"},
    {.name = "all",
     .kind = OPTION_FLAG,
     .offset = offsetof(options, c.all),
     .help = "keep model_ema.* too; default: they are left out"},
    {.name = "key",
     .kind = OPTION_TEXT,
     .value = "NAME",
     .offset = offsetof(options, c.key),
     .help = "take the weights under this key (a.b: key b in a; \".\": the top); default: the only ones"},
    {.name = "without",
     .kind = OPTION_CALL,
     .value = "PATTERN",
     .parse = add_without,
     .wanted = "a name, or a pattern with *",
     .help = "leave out the tensors of these names; may be repeated"},
    {.name = "set",
     .kind = OPTION_CALL,
     .value = "KEY=VALUE",
     .parse = add_metadata,
     .wanted = "KEY=VALUE with a key that is not given twice, and a number above 0 for heads, groups and scale_factor",
     .help = "write metadata: unet.num_heads=8 clip.num_heads=12 vae.scale_factor=0.18215; may be repeated"},
};

static const program CKPT2SAFETENSORS = {
    .name = "ckpt2safetensors",
    .arguments = "IN.ckpt OUT.safetensors [options]",
    .summary = "Turns a PyTorch checkpoint into a safetensors file. Nothing in the checkpoint is executed.",
    .options = OPTIONS,
    .count = sizeof OPTIONS / sizeof *OPTIONS,
};

static int run(options *o, int argc, char **argv)
{
    flis_ctx ctx;
    int words;
    const int status = options_read(&CKPT2SAFETENSORS, o, argc, argv, &words);
    if (status >= 0) return finish("ckpt2safetensors", NULL, status);
    if (words < 2) return missing_argument(&CKPT2SAFETENSORS, words ? "OUT.safetensors" : "IN.ckpt");
    if (words > 2) return unexpected_argument(&CKPT2SAFETENSORS, argv[2]);
    o->c.in = argv[0];
    o->c.out = argv[1];
    o->c.set = o->set;
    o->c.without = o->without;
    if (flis_init(&ctx)) {
        ctx.interrupted = catch_signals();
        if (input_check(&ctx, o->c.in)) convert_checkpoint(&ctx, &o->c);
    }
    flis_free(&ctx);
    return finish("ckpt2safetensors", &ctx, 0);
}

int main(int argc, char **argv)
{
    options o = {.set = calloc((size_t)argc + 1, sizeof *o.set),
                 .without = calloc((size_t)argc + 1, sizeof *o.without)};
    const int status = o.set && o.without ? run(&o, argc, argv) : 1;
    free(o.set);
    free(o.without);
    return status;
}
