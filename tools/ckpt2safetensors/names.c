/* names.c - the names of tensors behind what wrappers put before them: module. (DataParallel), _orig_mod. (torch.compile), … */
#include "tools/ckpt2safetensors/ckpt.h"

#include <string.h>

/* Parts of names that wrappers add and that no network of Stable Diffusion has. */
static const char *const WRAPPERS[] = {
    "module", "_orig_mod", "_forward_module", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_fpw_module"};

/* How names of Stable Diffusion begin: in one file, and in diffusers' files of the parts. */
static const char *const KNOWN[] = {
    "model.diffusion_model.", "first_stage_model.", "cond_stage_model.", "down_blocks.", "up_blocks.",
    "encoder.down_blocks.",   "text_model.",        "model_ema."};

static bool starts(const char *text, const char *with)
{
    return strncmp(text, with, strlen(with)) == 0;
}

bool known_name(const char *name)
{
    const char *at = name;
    for (int part = 0; at && part < 8; part++, at = (at = strchr(at, '.')) ? at + 1 : NULL)
        for (size_t i = 0; i < sizeof KNOWN / sizeof *KNOWN; i++)
            if (starts(at, KNOWN[i])) return true;
    return false;
}

/* Bytes of the wrapper's part at the start of a name, with its dot; 0: none. */
static size_t wrapper(const char *name)
{
    for (size_t i = 0; i < sizeof WRAPPERS / sizeof *WRAPPERS; i++) {
        const size_t length = strlen(WRAPPERS[i]);
        if (starts(name, WRAPPERS[i]) && name[length] == '.' && name[length + 1]) return length + 1;
    }
    return 0;
}

/* Removes the wrappers' parts wherever they are in a name. */
static bool without_wrappers(checkpoint *c, const char **name)
{
    size_t length = 0;
    bool found = false;
    for (const char *at = *name; at && !found; at = (at = strchr(at, '.')) ? at + 1 : NULL) found = wrapper(at) > 0;
    if (!found) return false;
    char *out = pool_take(c->ctx, &c->pool, strlen(*name) + 1);
    if (!out) return false;
    for (const char *at = *name; *at;) {
        const size_t skip = wrapper(at);
        if (skip) {
            at += skip;
            continue;
        }
        const size_t part = strcspn(at, "."), all = part + (at[part] == '.');
        memcpy(out + length, at, all);
        length += all;
        at += all;
    }
    out[length] = 0;
    *name = out;
    return true;
}

/* Whether a name goes on behind the first `length` bytes of `first`. Names without a dot (AveragedModel's n_averaged) have no
   prefix. */
static bool behind(const char *name, const char *first, size_t length)
{
    return strncmp(name, first, length) == 0 && name[length];
}

/* Length of the prefix to remove: parts that all names have, where they are wrappers' or where names that begin as Stable
   Diffusion's are left. *first: a name that has it. */
static size_t common_prefix(const ckpt_tensor *list, size_t count, const char **first)
{
    enum { MOST_PARTS = 4 };
    size_t length = 0, removed = 0;
    *first = NULL;
    for (size_t i = 0; i < count && !*first; i++)
        if (strchr(list[i].name, '.')) *first = list[i].name;
    for (int part = 0; *first && part <= MOST_PARTS; part++) {
        for (size_t i = 0; i < count; i++)
            for (size_t k = 0; behind(list[i].name, *first, length) && k < sizeof KNOWN / sizeof *KNOWN; k++)
                if (starts(list[i].name + length, KNOWN[k])) return length;
        const size_t skip = wrapper(*first + length), dot = strcspn(*first + length, ".") + 1;
        if (!strchr(*first + length, '.')) break;
        length += dot;
        for (size_t i = 0; i < count; i++)
            if (strchr(list[i].name, '.') && !behind(list[i].name, *first, length)) return removed;
        if (skip && removed + skip == length) removed = length;
    }
    return removed;
}

/* SPEC 10.7. */
bool unwrap_names(checkpoint *c, ckpt_tensor *list, size_t count)
{
    const char *first;
    char prefix[256];
    size_t inside = 0, known = 0;
    if (!count) return true;
    const size_t length = common_prefix(list, count, &first);
    snprintf(prefix, sizeof prefix, "%.*s", (int)(length < 200 ? length : 200), length ? first : "");
    for (size_t i = 0; length && i < count; i++)
        if (behind(list[i].name, first, length)) list[i].name += length;
    for (size_t i = 0; i < count; i++) known += known_name(list[i].name);
    for (size_t i = 0; known && i < count; i++) inside += without_wrappers(c, &list[i].name);
    if (length) add_note(c, "removed the prefix '%s' from all names", prefix);
    if (inside) add_note(c, "removed the parts of wrappers (module., _orig_mod., …) from %zu names", inside);
    return flis_ok(c->ctx);
}
