/* tokens.c - `flis tokens`: token ids of each argument, or of each line of stdin. */
#include "tools/flis/command.h"

#include <stdlib.h>
#include <string.h>

/* BOS, at most 75 tokens, EOS: what the text encoder sees, without padding. */
static bool print_tokens(flis_ctx *ctx, const flis_vocab *vocab, const char *text, size_t length)
{
    int32_t *ids = NULL;
    const long count = flis_tokenize(ctx, vocab, text, length, &ids);
    if (count < 0) return false;
    printf("%ld", (long)flis_vocab_bos(vocab));
    for (long i = 0; i < count && i < FLIS_PHRASE_TOKENS; i++) printf(" %ld", (long)ids[i]);
    printf(" %ld\n", (long)flis_vocab_eos(vocab));
    free(ids);
    return true;
}

/* One line of stdin, of any length and with any bytes. False at the end. */
static bool read_line(flis_ctx *ctx, char **line, size_t *room, size_t *length)
{
    int byte;
    for (*length = 0; (byte = getchar()) != EOF && byte != '\n'; (*line)[(*length)++] = (char)byte) {
        if (*length < *room) continue;
        char *larger = flis_alloc(ctx, 2 * *room + 256, 1);
        if (!larger) return false;
        if (*length) memcpy(larger, *line, *length);
        free(*line);
        *line = larger;
        *room = 2 * *room + 256;
    }
    return byte != EOF || *length;
}

int run_tokens(job *j)
{
    flis_ctx *ctx = &j->ctx;
    flis_vocab *vocab = find_vocab(j);
    char *line = NULL;
    size_t room = 0, length;
    for (int i = 0; vocab && flis_ok(ctx) && i < j->words; i++)
        print_tokens(ctx, vocab, j->word[i], strlen(j->word[i]));
    while (vocab && flis_ok(ctx) && !j->words && read_line(ctx, &line, &room, &length))
        print_tokens(ctx, vocab, line ? line : "", length);
    free(line);
    flis_vocab_free(vocab);
    return job_status(j);
}
