/* names.c - names of tensors: what wrappers put before them, their order of execution, and the map of --map. */
#include "tools/compare/compare.h"

#include <stdlib.h>
#include <string.h>

char *copy_text(flis_ctx *ctx, const char *text)
{
    char *copy = flis_alloc(ctx, strlen(text) + 1, 1);
    if (copy) strcpy(copy, text);
    return copy;
}

bool skip_prefix(const char **name, const char *prefix)
{
    const size_t length = strlen(prefix);
    if (strncmp(*name, prefix, length) != 0 || !(*name)[length]) return false;
    *name += length;
    return true;
}

const char *behind_model(const char *name)
{
    static const char *const prefixes[] = {"module.",       "_orig_mod.",         "model.",     "diffusion_model.",
                                           "unet.",         "first_stage_model.", "vae.",       "cond_stage_model.",
                                           "text_encoder.", "transformer.",       "text_model."};
    for (size_t i = 0; i < sizeof prefixes / sizeof *prefixes;)
        if (skip_prefix(&name, prefixes[i])) i = 0;
        else i++;
    return name;
}

const char *behind_scope(const char *name)
{
    const char *digits = name;
    if (skip_prefix(&digits, "step.") && strspn(digits, "0123456789") && digits[strspn(digits, "0123456789")] == '.')
        name = digits + strspn(digits, "0123456789") + 1;
    skip_prefix(&name, "next.");
    if (!skip_prefix(&name, "cond.")) skip_prefix(&name, "uncond.");
    return behind_model(name);
}

/* Words of module paths in the order in which siblings run; others come after them, by name. */
static const char WORDS[] =
    " in ids label class_ids context uncond x_T t x z step next cond clip unet decode encode embeddings"
    " time_embed input_blocks middle_block output_blocks in_layers emb_layers out_layers skip_connection"
    " post_quant_conv encoder decoder quant_conv conv_in down mid up block_1 attn_1 block_2 block attn"
    " downsample upsample layers layer_norm1 self_attn layer_norm2 mlp norm proj_in transformer_blocks norm1"
    " attn1 norm2 attn2 norm3 ff to_q to_k to_v q_proj k_proj v_proj q k v scores mask weights to_out out_proj"
    " fc1 fc2 conv1 conv2 nin_shortcut proj proj_out norm_out conv_out out final_layer_norm last_hidden_state"
    " eps e_t pred_x0 x_prev latents moments image ";

/* The position of a word in WORDS. */
static size_t word_rank(const char *word, size_t length)
{
    for (const char *at = WORDS + 1; *at; at += strcspn(at, " ") + 1)
        if (strcspn(at, " ") == length && strncmp(at, word, length) == 0) return (size_t)(at - WORDS);
    return sizeof WORDS;
}

/* For files that are sorted by name: siblings by word_rank, numbers upwards (the decoder's levels downwards), and a module after
   its parts. "norm2" of a VAE's block runs after "conv1". */
int path_order(const char *a, const char *b)
{
    bool down = false;
    while (*a && *b) {
        size_t i = strcspn(a, "."), k = strcspn(b, ".");
        const size_t digits_a = strspn(a, "0123456789"), digits_b = strspn(b, "0123456789");
        if (digits_a == i && digits_b == k) {
            const unsigned long x = strtoul(a, NULL, 10), y = strtoul(b, NULL, 10);
            if (x != y) return (x < y) != down ? -1 : 1;
        } else if (i != k || strncmp(a, b, i) != 0) {
            const size_t x = word_rank(a, i), y = word_rank(b, k);
            const bool conv1_norm2 = (strncmp(a, "norm2", i) == 0 && i == 5 && strncmp(b, "conv1", k) == 0) ||
                                     (strncmp(b, "norm2", k) == 0 && k == 5 && strncmp(a, "conv1", i) == 0);
            if (x != y) return (x < y) != conv1_norm2 ? -1 : 1;
            const int order = strncmp(a, b, i < k ? i : k);
            return order ? order : i < k ? -1 : 1;
        }
        down = i == 2 && strncmp(a, "up", 2) == 0;
        a += i + (a[i] == '.');
        b += k + (b[k] == '.');
    }
    return *a ? -1 : *b ? 1 : 0; /* parts before their module */
}

void map_free(rename_map *map)
{
    free(map->line);
    free(map->text);
}

bool map_read(flis_ctx *ctx, const char *path, rename_map *map)
{
    size_t length, number = 0;
    if (!(map->text = flis_read_file(ctx, path, (size_t)1 << 26, &length))) return false;
    size_t lines = 1;
    for (size_t i = 0; i < length; i++) lines += map->text[i] == '\n';
    if (strlen(map->text) != length) return flis_fail(ctx, "%s: is not a text file", path);
    if (!(map->line = flis_alloc(ctx, lines, sizeof *map->line))) return false;
    for (char *line = map->text; line; number++) {
        char *next = strchr(line, '\n');
        if (next) *next++ = 0;
        line[strcspn(line, "\r")] = 0;
        char *from = line + strspn(line, " \t"), *gap = from + strcspn(from, " \t"), *to = gap + strspn(gap, " \t");
        char *end = to + strcspn(to, " \t");
        line = next;
        if (!*from || *from == '#') continue;
        if (!*to || end[strspn(end, " \t")])
            return flis_fail(ctx, "%s:%zu: wanted two names, OTHER's and REF's", path, number + 1);
        *gap = *end = 0;
        if ((strchr(from, '*') != NULL) != (strchr(to, '*') != NULL))
            return flis_fail(ctx, "%s:%zu: wanted a * in both names or in none", path, number + 1);
        map->line[map->count].from = from;
        map->line[map->count++].to = to;
    }
    return true;
}

char *map_name(flis_ctx *ctx, const rename_map *map, const char *name)
{
    for (size_t i = 0; i < map->count; i++) {
        const char *from = map->line[i].from, *to = map->line[i].to, *star = strchr(from, '*'), *hole = strchr(to, '*');
        if (!star && strcmp(from, name) == 0) return copy_text(ctx, to);
        if (!star) continue;
        const size_t head = (size_t)(star - from), tail = strlen(star + 1), length = strlen(name);
        if (length < head + tail || strncmp(name, from, head) != 0 || strcmp(name + length - tail, star + 1) != 0)
            continue;
        char *out = flis_alloc(ctx, strlen(to) + length, 1);
        if (out) sprintf(out, "%.*s%.*s%s", (int)(hole - to), to, (int)(length - head - tail), name + head, hole + 1);
        return out;
    }
    return copy_text(ctx, name);
}
