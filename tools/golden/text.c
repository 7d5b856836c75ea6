/* text.c - vectors of the tokenizer and of prompts, and their vocabulary. */
#include "tools/golden/golden.h"

#include <stdlib.h>
#include <string.h>

enum { MERGES = 486 };
/* "b c</w>" ranks before "a b": in "abc" the later pair merges first. */
const char VOCABULARY_WORDS[] =
    "s e\nse a</w>\ns k\nsk y</w>\nr e\nre d</w>\nb o\na t</w>\nbo at</w>\ni n</w>\no i\noi l</w>\n"
    "t h\nth e</w>\nb c</w>\na b\n";
enum { WORD_MERGES = 16 };

/* VOCABULARY_WORDS, then pairs of capitals, which never merge: text is lowered first. */
static flis_vocab *make_vocab(golden *g)
{
    char merges[sizeof VOCABULARY_WORDS + 4 * MERGES];
    char *at = strcpy(merges, VOCABULARY_WORDS) + sizeof VOCABULARY_WORDS - 1;
    for (int i = 0; i < MERGES - WORD_MERGES; i++) at += sprintf(at, "%c %c\n", 'A' + i / 26, 'A' + i % 26);
    return flis_vocab_parse(&g->ctx, "the vectors' vocabulary", merges, (size_t)(at - merges));
}

static void given_vocabulary(golden *g)
{
    given_string(g, "vocabulary", "vocabulary"); /* the manifest's member of that name */
}

static void token_vector(golden *g, const char *id, const char *section, const char *what, const char *catches,
                         const char *text_in)
{
    int32_t *ids = NULL;
    vector_begin(g, id, 5, section, what, catches);
    given_vocabulary(g);
    given_string(g, "text", text_in);
    flis_vocab *vocab = make_vocab(g);
    const long count = vocab ? flis_tokenize(&g->ctx, vocab, text_in, strlen(text_in), &ids) : -1;
    int64_t wide[400];
    const size_t length = count > 0 ? (size_t)count : 0;
    for (size_t i = 0; i < length && i < 400; i++) wide[i] = ids[i];
    if (count >= 0) whole_output(g, "ids", 1, &length, wide);
    free(ids);
    flis_vocab_free(vocab);
    vector_end(g);
}

static void token_vectors(golden *g)
{
    token_vector(g, "tokens.words", "2.6", "letters, digits and signs are words of their own; white space goes",
                 "digits kept together, contractions split elsewhere, _ taken for a letter",
                 "a red boat, the sea; it's 101 o'clock in_oil");
    token_vector(g, "tokens.merges", "2.7",
                 "the pair of lowest rank merges first, wherever it stands; </w> ends a word",
                 "pairs merged from left to right, words without </w>", "abc sea seat abab sky");
    token_vector(g, "tokens.case", "2.5", "text is lowered, runs of white space are one, ends are trimmed",
                 "text that is not lowered", "  The SEA \t and\n the Sky  ");
    token_vector(g, "tokens.unicode", "2.4",
                 "what ftfy and Unicode's NFC make of entities, combining and wide characters",
                 "entities kept, accents kept apart, wide characters kept wide",
                 "caf\xC3\xA9 cafe\xCC\x81 &amp; \xEF\xBC\xA1 \xE2\x80\x99s \xF0\x9F\x98\x80");
    token_vector(g, "tokens.none", "2.1", "the empty prompt has no tokens", "BOS and EOS counted twice", "");
}

static void prompt_outputs(golden *g, const flis_prompt *p)
{
    const size_t ids_shape = FLIS_TOKENS, classes = p->classes;
    int64_t ids[FLIS_TOKENS], class_ids[FLIS_TOKENS];
    for (size_t i = 0; i < FLIS_TOKENS; i++) ids[i] = p->ids[i];
    for (size_t i = 0; i < classes; i++) class_ids[i] = (int64_t)p->class_ids[i];
    whole_output(g, "ids", 1, &ids_shape, ids);
    whole_output(g, "class_ids", 1, &classes, class_ids);
}

/* refused: NULL, or the kind of refusal that is expected. */
static void prompt_vector(golden *g, const char *id, const char *what, const char *catches, const flis_phrase *phrase,
                          size_t count, const char *refused)
{
    flis_prompt p = {0};
    buffer list_text = {0};
    vector_begin(g, id, 5, "2.9", what, catches);
    given_vocabulary(g);
    buffer_put(&g->all, &list_text, "[");
    for (size_t i = 0; i < count; i++) {
        buffer_put(&g->all, &list_text, i ? ", [" : "[");
        buffer_json_string(&g->all, &list_text, phrase[i].text);
        buffer_put(&g->all, &list_text, ", %d]", phrase[i].id);
    }
    buffer_put(&g->all, &list_text, "]");
    given(g, "phrases", "%s", list_text.at ? list_text.at : "");
    free(list_text.at);
    flis_vocab *vocab = make_vocab(g);
    const bool made = vocab && flis_prompt_make(&g->ctx, vocab, phrase, count, &p);
    if (refused) refusal_output(g, refused);
    else if (made) prompt_outputs(g, &p);
    flis_prompt_free(&p);
    flis_vocab_free(vocab);
    vector_end(g);
}

static void prompt_vectors(golden *g)
{
    static flis_phrase phrases[] = {{"sky", 1}, {"red boat", 4}, {"the sea, at 7", 2}, {"in oil", -1}};
    static flis_phrase split[] = {{"x<y &amp; z", 3}, {"sea", 7}};
    static flis_phrase special[] = {{"sky", 1}, {"a <|endoftext|> b", 2}};
    static char seventy_five[2 * 75] = "";
    char seventy_six[2 * 76];
    for (int i = 0; i < 75; i++) strcpy(seventy_five + 2 * i, i < 74 ? "z " : "z");
    snprintf(seventy_six, sizeof seventy_six, "%s z", seventy_five);
    flis_phrase full[] = {{seventy_five, 3}}, over[] = {{seventy_six, 3}};
    prompt_vector(g, "prompt",
                  "phrases joined by spaces and tokenised whole; a class for each token of each space-separated word",
                  "a class per word instead of per token, padding other than EOS", phrases, 4, NULL);
    prompt_vector(g, "prompt.words",
                  "each word is cleaned and counted alone, where the whole prompt keeps &amp; behind a <",
                  "tokens counted per phrase", split, 2, NULL);
    prompt_vector(g, "prompt.full", "75 tokens fit", "a limit of 74 or 77", full, 1, NULL);
    prompt_vector(g, "prompt.too-long", "76 tokens are refused: the authors' code would mask EOS",
                  "76 tokens taken, or cut off", over, 1, "too many tokens");
    prompt_vector(g, "prompt.special", "a special token inside a phrase is refused: it breaks the alignment of classes",
                  "a special token taken", special, 2, "special token");
}

void text_vectors(golden *g)
{
    token_vectors(g);
    prompt_vectors(g);
}
