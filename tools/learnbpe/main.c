/* learnbpe - learns the merges of a byte-pair vocabulary, for models too small for CLIP's.
 *
 * Words are those of the tokenizer: each line is tokenized without merges, and </w> marks the end of a word. Then, MERGES times, the
 * most frequent pair becomes a symbol; ties go to the pair that comes first byte by byte (a symbol sorts before its form with
 * </w>). A pair whose bytes spell an existing symbol is skipped, so that no two ids are the same text. The same text gives the
 * same file on every machine.
 */
#include "tools/common/common.h"

#include <stdlib.h>
#include <string.h>

enum { BYTES = 256, MOST_MERGES = 48894 };

typedef struct word {
    int32_t *symbol;
    size_t length, count;
} word;
typedef struct symbol {
    uint8_t *bytes;
    size_t length;
    bool end;
} symbol; /* bytes as token ids 0..255 */
typedef struct learner {
    flis_ctx ctx;
    word *words;
    size_t word_count, word_room;
    symbol *symbols; /* [BYTES * 2 + merges] */
    size_t symbol_count;
} learner;
typedef struct pair {
    int32_t left, right;
    size_t count;
} pair;

/* Prints the character for the byte with this token id, as UTF-8: the inverse of clip.c's table. */
static void print_byte(unsigned id)
{
    unsigned c = id < 94 ? 33 + id : id < 106 ? 161 + id - 94 : id < 188 ? 174 + id - 106 : 256 + id - 188;
    if (c < 0x80) {
        putchar((int)c);
    } else {
        putchar((int)(0xC0 | c >> 6));
        putchar((int)(0x80 | (c & 0x3F)));
    }
}

static void print_symbol(const symbol *s)
{
    for (size_t i = 0; i < s->length; i++) print_byte(s->bytes[i]);
    if (s->end) fputs("</w>", stdout);
}

/* Like strcmp on token ids: the shorter first, the form with </w> last. */
static int compare_symbols(const symbol *a, const symbol *b)
{
    size_t n = a->length < b->length ? a->length : b->length;
    int order = memcmp(a->bytes, b->bytes, n);
    if (order == 0 && a->length != b->length) order = a->length < b->length ? -1 : 1;
    return order ? order : (int)a->end - (int)b->end;
}

static bool add_symbol(learner *l, const symbol *left, const symbol *right)
{
    symbol *s = &l->symbols[l->symbol_count];
    s->bytes = flis_alloc(&l->ctx, left->length + right->length, 1);
    if (!s->bytes) return false;
    memcpy(s->bytes, left->bytes, left->length);
    memcpy(s->bytes + left->length, right->bytes, right->length);
    s->length = left->length + right->length;
    s->end = right->end;
    l->symbol_count++;
    return true;
}

static bool start_symbols(learner *l, size_t merges)
{
    symbol none = {(uint8_t *)"", 0, false};
    l->symbols = flis_alloc(&l->ctx, BYTES * 2 + merges, sizeof *l->symbols);
    for (unsigned i = 0; i < BYTES * 2 && l->symbols; i++) {
        uint8_t b = (uint8_t)i;
        symbol one = {&b, 1, i >= BYTES};
        if (!add_symbol(l, &none, &one)) return false;
    }
    return flis_ok(&l->ctx);
}

/* Counts a word. The search is linear: texts for small vocabularies have few different words. */
static bool add_word(learner *l, const int32_t *ids, size_t length)
{
    for (size_t i = 0; i < l->word_count; i++) {
        if (l->words[i].length != length || memcmp(l->words[i].symbol, ids, length * sizeof *ids) != 0) continue;
        l->words[i].count++;
        return true;
    }
    if (l->word_count == l->word_room) {
        size_t room = l->word_room ? l->word_room * 2 : 256;
        word *words = flis_alloc(&l->ctx, room, sizeof *words);
        if (!words) return false;
        if (l->word_count) memcpy(words, l->words, l->word_count * sizeof *words);
        free(l->words);
        l->words = words;
        l->word_room = room;
    }
    word w = {flis_alloc(&l->ctx, length, sizeof *ids), length, 1};
    if (!w.symbol) return false;
    memcpy(w.symbol, ids, length * sizeof *ids);
    l->words[l->word_count++] = w;
    return true;
}

static bool read_words(learner *l, const char *path)
{
    size_t length = 0;
    flis_vocab *bytes = flis_vocab_read(&l->ctx, NULL);
    char *text = flis_read_file(&l->ctx, path, 256u << 20, &length);
    for (size_t i = 0, end; text && bytes && i < length && flis_ok(&l->ctx); i = end + 1) {
        const char *newline = memchr(text + i, '\n', length - i);
        int32_t *ids;
        end = newline ? (size_t)(newline - text) : length;
        long n = flis_tokenize(&l->ctx, bytes, text + i, end - i, &ids);
        for (long from = 0, k = 0; k < n; k++) {
            if (ids[k] < BYTES) continue;
            if (ids[k] < BYTES * 2) add_word(l, ids + from, (size_t)(k + 1 - from));
            from = k + 1; /* after the end of a word, or after a special token, which no merge uses */
        }
        free(ids);
    }
    free(text);
    flis_vocab_free(bytes);
    return flis_ok(&l->ctx);
}

static bool exists(const learner *l, const symbol *left, const symbol *right)
{
    for (size_t i = 0; i < l->symbol_count; i++) {
        const symbol *s = &l->symbols[i];
        if (s->length == left->length + right->length && s->end == right->end &&
            memcmp(s->bytes, left->bytes, left->length) == 0 &&
            memcmp(s->bytes + left->length, right->bytes, right->length) == 0)
            return true;
    }
    return false;
}

static bool better(const learner *l, const pair *a, const pair *b)
{
    if (a->count != b->count) return a->count > b->count;
    int order = compare_symbols(&l->symbols[a->left], &l->symbols[b->left]);
    return (order ? order : compare_symbols(&l->symbols[a->right], &l->symbols[b->right])) < 0;
}

/* The most frequent pair; count 0: no pair is left. counts [symbols][symbols]. */
static pair most_frequent(const learner *l, size_t *counts)
{
    size_t n = l->symbol_count;
    pair best = {0, 0, 0};
    memset(counts, 0, n * n * sizeof *counts);
    for (size_t i = 0; i < l->word_count; i++)
        for (size_t k = 0; k + 1 < l->words[i].length; k++)
            counts[(size_t)l->words[i].symbol[k] * n + (size_t)l->words[i].symbol[k + 1]] += l->words[i].count;
    for (size_t i = 0; i < n * n; i++) {
        pair p = {(int32_t)(i / n), (int32_t)(i % n), counts[i]};
        if (p.count == 0 || !better(l, &p, &best)) continue;
        if (!exists(l, &l->symbols[p.left], &l->symbols[p.right])) best = p;
    }
    return best;
}

static void merge_everywhere(learner *l, pair p, int32_t merged)
{
    for (size_t i = 0; i < l->word_count; i++) {
        word *w = &l->words[i];
        size_t to = 0;
        for (size_t k = 0; k < w->length; to++) {
            bool here = k + 1 < w->length && w->symbol[k] == p.left && w->symbol[k + 1] == p.right;
            w->symbol[to] = here ? merged : w->symbol[k];
            k += here ? 2 : 1;
        }
        w->length = to;
    }
}

static bool learn(learner *l, size_t merges)
{
    size_t most = BYTES * 2 + merges, *counts = flis_alloc(&l->ctx, most * most, sizeof *counts);
    if (counts) printf("#version: 0.2\n");
    for (size_t i = 0; i < merges && counts && flis_poll(&l->ctx); i++) {
        pair p = most_frequent(l, counts);
        if (p.count == 0) {
            flis_fail(&l->ctx, "the text has pairs for %zu merges, wanted %zu", i, merges);
            break;
        }
        if (!add_symbol(l, &l->symbols[p.left], &l->symbols[p.right])) break;
        merge_everywhere(l, p, (int32_t)(l->symbol_count - 1));
        print_symbol(&l->symbols[p.left]);
        putchar(' ');
        print_symbol(&l->symbols[p.right]);
        putchar('\n');
    }
    free(counts);
    return flis_ok(&l->ctx);
}

static void learner_free(learner *l)
{
    for (size_t i = 0; i < l->word_count; i++) free(l->words[i].symbol);
    for (size_t i = 0; i < l->symbol_count; i++) free(l->symbols[i].bytes);
    free(l->words);
    free(l->symbols);
    flis_free(&l->ctx);
}

static const program LEARNBPE = {
    .name = "learnbpe",
    .arguments = "MERGES TEXTFILE > merges.txt",
    .summary = "Learns MERGES (1 to 48894) byte-level merges from a text. The same text gives the same merges on every "
               "machine.",
};

int main(int argc, char **argv)
{
    learner l = {.words = NULL};
    uint64_t merges;
    int words;
    const int status = options_read(&LEARNBPE, NULL, argc, argv, &words);
    if (status >= 0) return finish("learnbpe", NULL, status);
    if (words < 2) return missing_argument(&LEARNBPE, words ? "TEXTFILE" : "MERGES");
    if (words > 2) return unexpected_argument(&LEARNBPE, argv[2]);
    if (!parse_whole(argv[0], &merges) || merges < 1 || merges > MOST_MERGES)
        return usage_error(&LEARNBPE, "invalid value '%s' for MERGES: wanted a whole number from 1 to %d", argv[0],
                           (int)MOST_MERGES);
    if (flis_init(&l.ctx)) {
        l.ctx.interrupted = catch_signals();
        if (input_check(&l.ctx, argv[1]) && start_symbols(&l, (size_t)merges) && read_words(&l, argv[1]))
            learn(&l, (size_t)merges);
    }
    learner_free(&l);
    return finish("learnbpe", &l.ctx, 0);
}
