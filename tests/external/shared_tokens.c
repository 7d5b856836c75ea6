/* shared_tokens.c - the tokenizer with CLIP's real vocabulary, against every line of the oracle's lists (not part of
 * `make check`, because the vocabulary is not in the repository).
 *
 *   shared_tokens DIR       DIR contains clip/, or is that folder: bpe_simple_vocab_16e6.txt.gz and the four .tsv files
 *
 * Prints each line that differs, and per file "N lines, N equal, …". Exit 1 if any differs. Left out: the lines of
 * layouts.tsv whose names start with adv/mojibake. There the oracle used ftfy's guess of the encoding, which flis does
 * not implement.
 */
#include "flis.h"

#include <stdlib.h>
#include <string.h>

typedef struct line {
    char *field[4];
    size_t length, fields;
} line; /* length of field[text], unescaped */
typedef struct tally {
    size_t lines, equal, refused, left_out, differ;
} tally;
typedef enum { EQUAL, REFUSED, LEFT_OUT, DIFFERS } verdict;

/* \\ and \xHH, in place. Returns the length. */
static size_t unescape(char *s)
{
    char *out = s, *start = s;
    while (*s) {
        if (s[0] == '\\' && s[1] == 'x') {
            char hex[3] = {s[2], s[3], 0};
            *out++ = (char)strtol(hex, NULL, 16);
            s += 4;
        } else {
            s += s[0] == '\\';
            *out++ = *s++;
        }
    }
    *out = 0;
    return (size_t)(out - start);
}

/* Numbers of a field; returns how many. */
static size_t numbers(const char *s, long *out, size_t room)
{
    size_t n = 0;
    char *end;
    for (; n < room; s = end) {
        long value = strtol(s, &end, 10);
        if (end == s) break;
        out[n++] = value;
    }
    return n;
}

/* The ids of the file: BOS, tokens, EOS, cut to 75 tokens. */
static bool same_ids(const flis_vocab *vocab, const int32_t *ids, size_t n, const long *want, size_t wanted)
{
    if (n > FLIS_PHRASE_TOKENS) n = FLIS_PHRASE_TOKENS;
    if (wanted != n + 2 || want[0] != flis_vocab_bos(vocab) || want[n + 1] != flis_vocab_eos(vocab)) return false;
    for (size_t i = 0; i < n; i++)
        if (want[i + 1] != ids[i]) return false;
    return true;
}

static verdict check_text(flis_ctx *ctx, const flis_vocab *vocab, const line *l)
{
    long want[FLIS_TOKENS + 1];
    int32_t *ids = NULL;
    size_t wanted = numbers(l->field[l->fields - 1], want, FLIS_TOKENS + 1);
    long n = flis_tokenize(ctx, vocab, l->field[0], l->length, &ids);
    bool same = n >= 0 && same_ids(vocab, ids, (size_t)n, want, wanted);
    free(ids);
    return same ? EQUAL : DIFFERS;
}

/* The mapping that gives a prompt: each word is a phrase, with the class that its first token has in the file. */
static size_t phrases_of(flis_ctx *ctx, const flis_vocab *vocab, char *prompt, const long *class, size_t classes,
                         flis_phrase *phrase)
{
    size_t count = 0, at = 0;
    for (char *item = prompt, *gap; item; item = gap) {
        int32_t *ids = NULL;
        gap = strchr(item, ' ');
        if (gap) *gap++ = 0;
        long n = flis_tokenize(ctx, vocab, item, strlen(item), &ids);
        free(ids);
        phrase[count].text = item;
        phrase[count++].id = at < classes ? (int)class[at] : -1;
        at += n > 0 ? (size_t)(n < FLIS_PHRASE_TOKENS ? n : FLIS_PHRASE_TOKENS) : 0;
    }
    return count;
}

static bool same_prompt(const flis_vocab *vocab, const flis_prompt *p, const char *text, const long *class,
                        size_t classes, const long *want, size_t wanted)
{
    if (strcmp(p->text, text) != 0 || p->classes != classes) return false;
    for (size_t i = 0; i < classes; i++)
        if (p->class_ids[i] != (float)class[i]) return false;
    return p->ids[0] == flis_vocab_bos(vocab) && same_ids(vocab, p->ids + 1, p->tokens, want, wanted) &&
           p->ids[FLIS_TOKENS - 1] == flis_vocab_eos(vocab);
}

/* fields: case, prompt, class ids, prompt ids. A refusal is correct if there are special tokens or more than 75
   tokens. */
static verdict check_layout(flis_ctx *ctx, const flis_vocab *vocab, const line *l)
{
    static flis_phrase phrase[1024];
    long class[128], want[128];
    char *text = malloc(l->length + 1);
    flis_prompt prompt;
    if (!text || l->fields != 4 || l->length > 1000) {
        free(text);
        return DIFFERS;
    }
    memcpy(text, l->field[1], l->length + 1);
    size_t classes = numbers(l->field[2], class, 128), wanted = numbers(l->field[3], want, 128);
    size_t count = phrases_of(ctx, vocab, text, class, classes, phrase);
    bool special = strstr(l->field[1], "<|endoftext|>") || strstr(l->field[1], "<|startoftext|>");
    bool refusable = special || classes > FLIS_PHRASE_TOKENS;
    verdict v = DIFFERS;
    if (flis_prompt_make(ctx, vocab, phrase, count, &prompt)) {
        v = same_prompt(vocab, &prompt, l->field[1], class, classes, want, wanted) ? EQUAL : DIFFERS;
        flis_prompt_free(&prompt);
    } else {
        if (refusable) {
            v = REFUSED;
            printf("  %s is refused: %.150s\n", l->field[0], ctx->error);
        }
        *ctx->error = 0;
    }
    if (v == DIFFERS && strncmp(l->field[0], "adv/mojibake", 12) == 0) v = LEFT_OUT;
    free(text);
    return v;
}

static void show(const line *l, flis_ctx *ctx, const flis_vocab *vocab, verdict v, size_t text)
{
    int32_t *ids = NULL;
    long n = flis_tokenize(ctx, vocab, l->field[text], l->length, &ids);
    const char *what = v == LEFT_OUT ? "left out" : "DIFFERS";
    printf("  %s \"%s\": wanted %s, got", what, l->field[text], l->field[l->fields - 1]);
    for (long i = 0; i < n; i++) printf(" %ld", (long)ids[i]);
    printf("%s\n", ctx->error);
    free(ids);
}

static bool check_file(flis_ctx *ctx, const flis_vocab *vocab, const char *dir, const char *name, bool layouts)
{
    char path[1024];
    tally t = {0, 0, 0, 0, 0};
    snprintf(path, sizeof path, "%s/%s", dir, name);
    size_t length;
    char *text = flis_read_file(ctx, path, 64u << 20, &length), *next = NULL;
    for (char *s = text; s && *s; s = next) {
        line l = {{s, NULL, NULL, NULL}, 0, 1};
        next = s + strcspn(s, "\n");
        if (*next) *next++ = 0;
        for (char *tab; l.fields < 4 && (tab = strchr(l.field[l.fields - 1], '\t')) != NULL; l.fields++) {
            *tab = 0;
            l.field[l.fields] = tab + 1;
        }
        l.length = unescape(l.field[layouts]);
        verdict v = layouts ? check_layout(ctx, vocab, &l) : check_text(ctx, vocab, &l);
        t.lines++;
        t.equal += v == EQUAL;
        t.refused += v == REFUSED;
        t.left_out += v == LEFT_OUT;
        t.differ += v == DIFFERS;
        if (v == DIFFERS || v == LEFT_OUT) show(&l, ctx, vocab, v, layouts);
        *ctx->error = 0;
    }
    printf("%s: %zu lines, %zu equal", name, t.lines, t.equal);
    if (layouts) printf(", %zu refused, %zu left out (mojibake)", t.refused, t.left_out);
    printf(", %zu differ\n", t.differ);
    free(text);
    return t.lines > 0 && t.differ == 0;
}

int main(int argc, char **argv)
{
    static const char *const names[] = {"tokens.tsv", "tokens-fuzz.tsv", "invalid_utf8.tsv", "layouts.tsv"};
    char dir[900], path[1024];
    flis_ctx ctx;
    if (argc != 2 || strlen(argv[1]) > 800) {
        fprintf(stderr, "usage: shared_tokens DIR\n");
        return 2;
    }
    if (!flis_init(&ctx)) {
        fprintf(stderr, "shared_tokens: %s\n", ctx.error);
        return 1;
    }
    snprintf(dir, sizeof dir, "%s/clip", argv[1]);
    snprintf(path, sizeof path, "%s/tokens.tsv", dir);
    FILE *probe = fopen(path, "rb");
    if (probe) fclose(probe);
    else snprintf(dir, sizeof dir, "%s", argv[1]);
    snprintf(path, sizeof path, "%s/bpe_simple_vocab_16e6.txt.gz", dir);
    flis_vocab *vocab = flis_vocab_read(&ctx, path);
    bool good = vocab != NULL;
    if (!good) fprintf(stderr, "shared_tokens: %s\n", ctx.error);
    for (size_t i = 0; vocab && i < sizeof names / sizeof *names; i++)
        good = check_file(&ctx, vocab, dir, names[i], i == 3) && good;
    flis_vocab_free(vocab);
    flis_free(&ctx);
    return good ? 0 : 1;
}
