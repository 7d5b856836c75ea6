/* datasets.c - pictures of a data set as the authors have it: a list of pictures, label maps in the data set's folders; and the order
 * in which pictures are seen. FreestyleNet@5dcb8b8 ldm/data/COCO.py COCOBase, ldm/data/ADE20K.py ADE20KBase; main.py
 * DataModuleFromConfig.
 */
#include "tools/train/train.h"

#include <stdlib.h>
#include <string.h>

/* ---- Opening ----------------------------------------------------------------------------------------------------- */

/* A picture of the list: as it is named there, else below the root. */
static bool add_picture(flis_ctx *ctx, const options *o, const char *line, photos *f)
{
    char below[PATH_ROOM];
    if (kind_of_file(line) != FILE_ABSENT) return names_add(ctx, &f->files, NULL, line, strlen(line));
    const int used = snprintf(below, sizeof below, "%s/%s", o->data_root, line);
    if (used > 0 && used < PATH_ROOM && kind_of_file(below) != FILE_ABSENT)
        return names_add(ctx, &f->files, NULL, below, (size_t)used);
    return flis_fail(ctx, "%s: there is no file %.300s, and no %.300s/%.300s", o->train_list, line, o->data_root, line);
}

bool photos_open_dataset(flis_ctx *ctx, const options *o, const flis_vocab *vocab, photos *out)
{
    bool folder;
    memset(out, 0, sizeof *out);
    out->layouts = out->listed = true;
    if (kind_of_file(o->data_root) != FILE_FOLDER)
        return flis_fail(ctx, "%s: there is no such folder (--data-root)", o->data_root);
    if (strlen(o->data_root) > 3000) return flis_fail(ctx, "%.100s…: the name is too long", o->data_root);
    if (!input_check(ctx, o->train_list) || !(out->path = path_with(ctx, o->data_root, "")) ||
        !dataset_open(ctx, o->dataset, &out->set) || !photos_count_tokens(ctx, out, vocab, out->set.name) ||
        !list_files(ctx, o->train_list, PICTURE_ENDINGS, &out->lines, &folder))
        return false;
    for (size_t i = 0; i < out->lines.count && flis_poll(ctx); i++) add_picture(ctx, o, out->lines.name[i], out);
    return flis_ok(ctx);
}

/* ---- Order ------------------------------------------------------------------------------------------------------- */

/* An epoch's order is a pseudo-random permutation of 0 … count - 1 that depends on (seed, epoch) alone, so that a resumed training
   and any worker find their place without a list: a Feistel network over 2^(2 bits) >= count numbers (Luby & Rackoff 1988, How to
   construct pseudorandom permutations from pseudorandom functions), and what it maps beyond count is mapped again (Black & Rogaway
   2002, Ciphers with arbitrary finite domains, "cycle walking"). */
uint64_t shuffled(const options *o, uint64_t epoch, uint64_t i, uint64_t count)
{
    enum { ROUNDS = 8 };
    const dice key = dice_of(o, DICE_ORDER, epoch, 0);
    unsigned bits = 1;
    while (bits < 32 && UINT64_C(1) << 2 * bits < count) bits++;
    const uint64_t mask = (UINT64_C(1) << bits) - 1;
    do {
        uint64_t left = i >> bits, right = i & mask;
        for (uint64_t round = 0; round < ROUNDS; round++) {
            const uint64_t mixed = left ^ (scramble(key.state + scramble(right * ROUNDS + round + 1)) & mask);
            left = right;
            right = mixed;
        }
        i = left << bits | right;
    } while (i >= count);
    return i;
}

size_t choose_picture(const options *o, size_t count, uint64_t number, size_t sample, uint64_t drawn)
{
    const uint64_t i = number * o->batch + sample;
    if (o->order == ORDER_DRAWN) return (size_t)(drawn % count);
    return (size_t)shuffled(o, i / count, i % count, count);
}
