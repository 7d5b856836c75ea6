/* test_tokens.c - the tokenizer, with the small vocabulary of models/ (with CLIP's own:
 * tests/external/shared_tokens.c).
 *
 * The pinned ids come from a second implementation in Python 3.8, which uses html, unicodedata, str.lower and re
 * instead of the tables of clip.c. It also agreed with flis on 40,000 random texts with CLIP's vocabulary. Most checks
 * need no ids: they require that two texts have the same tokens, or that a text is split into certain words.
 */
#include "tests/unit/test.h"

#define SAME(a, b) same(__LINE__, a, b, true)
#define DIFFERENT(a, b) same(__LINE__, a, b, false)
#define WORDS(text, lengths) words(__LINE__, text, lengths)

static flis_vocab *small_vocab(flis_ctx *ctx)
{
    flis_init(ctx);
    flis_vocab *vocab = flis_vocab_read(ctx, test_path("vocab.txt"));
    CHECK(vocab && flis_vocab_size(vocab) == 1000, "tests/vocab.txt: %s", ctx->error);
    return vocab;
}

static void done(flis_ctx *ctx, flis_vocab *vocab)
{
    flis_vocab_free(vocab);
    flis_free(ctx);
}

/* The ids with spaces between them, truncated at the end of out. */
static void list_ids(flis_ctx *ctx, const flis_vocab *vocab, const char *text, size_t length, char *out, size_t room)
{
    int32_t *ids = NULL;
    size_t at = 0;
    long n = vocab ? flis_tokenize(ctx, vocab, text, length, &ids) : -1;
    *out = 0;
    for (long i = 0; i < n && at + 12 < room; i++)
        at += (size_t)snprintf(out + at, room - at, i ? " %ld" : "%ld", (long)ids[i]);
    if (n < 0) snprintf(out, room, "failed: %.200s", ctx->error);
    free(ids);
}

/* Without merges, tokens are bytes, so any difference between cleaned texts is detected. */
static void same(int line, const char *a, const char *b, bool equal)
{
    char x[2000], y[2000];
    flis_ctx ctx;
    flis_init(&ctx);
    flis_vocab *bytes = flis_vocab_read(&ctx, NULL);
    list_ids(&ctx, bytes, a, strlen(a), x, sizeof x);
    list_ids(&ctx, bytes, b, strlen(b), y, sizeof y);
    CHECK((strcmp(x, y) == 0) == equal && *x != 'f', "line %d: \"%s\" is %s, \"%s\" is %s", line, a, x, b, y);
    done(&ctx, bytes);
}

/* Without merges the last token of each word is above 255, and no other is: the distances between these tokens are the
   words' lengths in bytes. */
static void words(int line, const char *text, const char *lengths)
{
    char got[200] = "";
    size_t at = 0;
    int32_t *ids = NULL;
    flis_ctx ctx;
    flis_init(&ctx);
    flis_vocab *bytes = flis_vocab_read(&ctx, NULL);
    long n = flis_tokenize(&ctx, bytes, text, strlen(text), &ids), from = 0;
    for (long i = 0; i < n && at + 12 < sizeof got; i++) {
        if (ids[i] < 256) continue;
        at += (size_t)snprintf(got + at, sizeof got - at, at ? " %ld" : "%ld", i + 1 - from);
        from = i + 1;
    }
    CHECK(strcmp(got, lengths) == 0, "line %d: \"%s\": words of %s bytes, wanted %s", line, text, got, lengths);
    free(ids);
    done(&ctx, bytes);
}

void test_tokens_pinned(void)
{
    static const struct {
        const char *text, *ids;
    } rows[] = {{"", ""},
                {"sky sea boat", "530 576 577"},
                {"red house and green tree", "732 615 513 729 570"},
                {"striped ball on sand, mosaic", "735 642 528 557 267 834"},
                {"night sky drawn by Van Gogh", "551 530 666 665 835 832"},
                {"person bicycle", "699 643 66 88 66 548"},
                {"A burning tree; melting clock!", "320 760 570 282 816 610 256"},
                {"it's the dog's, don't we'll", "72 339 6 338 525 645 6 338 267 67 528 6 339 86 324 6 522"},
                {"room 101 3d", "517 78 332 272 271 272 274 323"},
                {"fire_hydrant", "994 318 71 88 585 637"},
                {"caf\xC3\xA9 \xE5\xA4\xA9\xE7\xA9\xBA \xF0\x9F\x98\x80",
                 "599 69 127 358 161 97 102 163 102 374 172 253 246 478"},
                {"caf\xE9 sky", "599 325 171 123 377 530"},
                {"a<|endoftext|>b", "320 999 321"}};
    flis_ctx ctx;
    flis_vocab *vocab = small_vocab(&ctx);
    for (size_t i = 0; vocab && i < sizeof rows / sizeof *rows; i++) {
        char got[2000];
        list_ids(&ctx, vocab, rows[i].text, strlen(rows[i].text), got, sizeof got);
        CHECK(strcmp(got, rows[i].ids) == 0, "\"%s\": %s, wanted %s", rows[i].text, got, rows[i].ids);
    }
    CHECK(!vocab || (flis_vocab_bos(vocab) == 998 && flis_vocab_eos(vocab) == 999), "BOS and EOS are the last two");
    done(&ctx, vocab);
}

/* One U+FFFD per maximal subpart. Wrong variants: one per byte, one per sequence. */
void test_tokens_utf8(void)
{
#define FFFD "\xEF\xBF\xBD"
    SAME("\x80", FFFD);
    SAME("caf\xC3", "caf" FFFD);
    SAME("\xE2\x82", FFFD);
    DIFFERENT("\xE2\x82", FFFD FFFD); /* one per byte */
    SAME("\xE2(\xA1", FFFD "(" FFFD);
    SAME("\xF0\x9F\x98 sky", FFFD " sky");
    SAME("\xC0\xAF", FFFD FFFD);                   /* overlong: no byte of it is a valid first byte */
    SAME("\xED\xA0\x80", FFFD FFFD FFFD);          /* a surrogate */
    DIFFERENT("\xED\xA0\x80", FFFD);               /* one per sequence */
    SAME("\xF4\x90\x80\x80", FFFD FFFD FFFD FFFD); /* beyond U+10FFFF */
    SAME("\xF8\x88\x80\x80\x80", FFFD FFFD FFFD FFFD FFFD);
    SAME("\xC3\xA9\xE9", "\xC3\xA9" FFFD);
    SAME("\xEF\xBB\xBFsky", "sky"); /* a byte order mark is deleted */
#undef FFFD
}

void test_tokens_entities(void)
{
    SAME("rock &amp; sea", "rock & sea");
    SAME("caf&eacute;", "caf\xC3\xA9");
    SAME("caf&EACUTE;", "caf\xC3\xA9"); /* the entity in capitals is É, in lower case é */
    SAME("&szlig;&SZLIG;", "\xC3\x9Fss");
    SAME("&LTIMES;", "& ltimes ;");       /* has no form in capitals: HTML reads &LT here */
    SAME("&amp;amp;eacute;", "\xC3\xA9"); /* until stable */
    SAME("&#65;&#x42;&#X43;", "abc");
    SAME("&#x3b;&#59;", "&#x3b;&#59;");
    DIFFERENT("&#59;", ";"); /* ftfy does not decode this one */
    SAME("&#1;sky", "sky");
    SAME("&#xD800;&#x110000;&#0;", "\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD");
    SAME("&#x93;", "\"");        /* a C1 control as Windows-1252 */
    SAME("&eacute", "& eacute"); /* no semicolon */
    SAME("&nosuch; &;", "& nosuch ; &;");
    SAME("&am\x01p;", "&");         /* the second round sees it */
    SAME("\xEF\xBC\x86lt;b", "<b"); /* a full-width & starts an entity, too */
    /* After a `<` entities are kept, on its line and all later lines, but not on earlier lines. */
    SAME("a<b &eacute;", "a<b & eacute ;");
    SAME("&eacute; <", "& eacute ; <");
    SAME("&eacute;\n<", "\xC3\xA9 <");
    SAME("<\n&eacute;", "< & eacute ;");
    SAME("&lt; &eacute;", "< \xC3\xA9"); /* not after a `<` that came from an entity */
}

void test_tokens_characters(void)
{
    SAME("\xEF\xAC\x81re \xEF\xAC\x84 \xC5\x89 \xEF\xAC\x85", "fire ffl 'n \xC5\xBFt");
    DIFFERENT("\xC3\xA6", "ae"); /* æ is a letter of its own */
    SAME("\xEF\xBC\xB3\xEF\xBC\xAB\xEF\xBC\xB9", "sky");
    SAME("\xEF\xBD\xB6\xEF\xBE\x9E", "\xE3\x82\xAC"); /* half-width ka and its voiced sound mark are ga */
    SAME("don\xE2\x80\x99t \xE2\x80\x9Csky\xE2\x80\x9D", "don't \"sky\"");
    SAME("\xC2\x93sky\xC2\x94 \xC2\x80", "\"sky\" \xE2\x82\xAC");
    SAME("\x1B[1;31msky\x1B[0m", "sky");
    SAME("\x1B[31", "[31"); /* without a final letter it is no escape sequence: only the control character is deleted */
    SAME("blue\x07sky\xEF\xBB\xBF\xE2\x81\xAA", "bluesky");
    DIFFERENT("blue\xC2\xADsky", "bluesky"); /* a soft hyphen is kept */
    SAME(" \t blue\xC2\xA0\n\xE3\x80\x80sky\r\n", "blue sky");
    DIFFERENT("blue\xE2\x80\x8Bsky", "blue sky"); /* a zero-width space is not white space */
}

void test_tokens_normal_form(void)
{
    SAME("cafe\xCC\x81", "caf\xC3\xA9");
    SAME("\xE2\x84\xAB", "\xC3\xA5");               /* Angstrom, A with ring, in lower case */
    SAME("q\xCC\x87\xCC\xA3", "q\xCC\xA3\xCC\x87"); /* marks are sorted by combining class */
    SAME("e\xCC\xA3\xCC\x82", "\xE1\xBB\x87");      /* two steps: e, dot below, circumflex */
    SAME("e\xCC\x82\xCC\xA3", "\xE1\xBB\x87");
    DIFFERENT("a\xCC\x85\xCC\x81", "\xC3\xA1\xCC\x85"); /* the overline blocks the composition */
    SAME("\xE1\x84\x80\xE1\x85\xA1\xE1\x86\xA8", "\xEA\xB0\x81");
    SAME("\xE0\xA5\x98", "\xE0\xA4\x95\xE0\xA4\xBC"); /* a composition exclusion: decomposed, but not composed again */
    SAME("\xEF\xA4\x80", "\xE8\xB1\x88");
    SAME("\xCD\xBE", ";");
    DIFFERENT("\xC2\xB2", "2"); /* NFC, not NFKC */
    DIFFERENT("e \xCC\x81", "\xC3\xA9");
}

void test_tokens_lower_case(void)
{
#define ALPHA "\xCE\xB1"
#define SIGMA "\xCF\x83"
#define FINAL "\xCF\x82"
    SAME("SKY \xC3\x89 \xD0\x96", "sky \xC3\xA9 \xD0\xB6");
    SAME("\xCE\x91\xCE\xA3", ALPHA FINAL);
    DIFFERENT("\xCE\x91\xCE\xA3", ALPHA SIGMA); /* wrong: lower case of each letter by itself */
    SAME("\xCE\xA3", SIGMA);                    /* no letter before it */
    SAME("\xCE\x91\xCE\xA3\xCE\x91", ALPHA SIGMA ALPHA);
    SAME("\xCE\x91\xCE\xA3'", ALPHA FINAL "'");
    SAME("\xCE\x91.\xCE\xA3.", ALPHA "." FINAL "."); /* full stops are skipped */
    SAME("\xCE\x91\xCE\xA3.\xCE\x91", ALPHA SIGMA "." ALPHA);
    SAME("1\xCE\xA3", "1" SIGMA);
    SAME("\xC4\xB0", "i\xCC\x87");
    SAME("\xE1\xB2\x90", "\xE1\x83\x90"); /* Georgian capitals, new in Unicode 11 */
#undef ALPHA
#undef SIGMA
#undef FINAL
}

void test_tokens_words(void)
{
    WORDS("red sky", "3 3");
    WORDS("it's don't we'll they've I'm you're he'd", "2 2 3 2 2 3 4 3 1 2 3 3 2 2");
    WORDS("rock'n'roll", "4 1 1 1 4"); /* 'n is not a contraction */
    WORDS("!'s", "2 1");               /* a run of other characters is one word */
    WORDS("''s", "2 1");
    WORDS("'s's", "2 2");
    WORDS("IT'S", "2 2");
    WORDS("it'\xC5\xBF", "2 3");          /* without regard to case a long s is an s */
    WORDS("101 3d", "1 1 1 1 1");         /* each digit is a word */
    WORDS("\xC2\xBD\xE2\x85\xA3", "2 3"); /* and so is each other number */
    WORDS("fire_hydrant", "4 1 7");       /* for \w an underscore is a letter, here it is not */
    WORDS("__init__", "2 4 2");
    WORDS("blue-sky, sea...", "4 1 3 1 3 3");
    WORDS("q\xCC\x84q", "1 2 1");   /* a mark is neither letter nor number */
    WORDS("sky\xCD\x85sea", "3 3"); /* U+0345 is in no class: skipped */
    WORDS("\xE5\xA4\xA9\xE7\xA9\xBA!", "6 1");
}

static flis_vocab *vocab_of(flis_ctx *ctx, const char *name, const void *bytes, size_t length)
{
    FILE *file = fopen(test_scratch(name), "wb");
    bool good = file && fwrite(bytes, 1, length, file) == length;
    if (file) good = fclose(file) == 0 && good;
    CHECK(good, "%s: cannot be written", test_scratch(name));
    flis_init(ctx);
    return flis_vocab_read(ctx, test_scratch(name));
}

/* Ids in CLIP's numbering: a is 64 (bytes in printable order), a</w> 320, merges from 512 on. */
void test_tokens_merge_order(void)
{
    static const char merges[] = "#version: 0.2\nb c</w>\na b\na a\naa a\naa aa</w>";
    static const struct {
        const char *text, *ids;
    } rows[] = {{"abc", "64 512"},        /* lowest rank first; from the left it would be 513 322 */
                {"ab", "64 321"},         /* the merge is of `b`, not of `b</w>` */
                {"aaa", "514 320"},       /* from the left; from the right it would be 64 and another id */
                {"aaaab", "514 514 321"}, /* all occurrences of one merge before the next */
                {"aaab", "515 321"},      {"aaaba", "514 513 320"}};
    flis_ctx ctx;
    /* The last line's right half `aa</w>` is not made by any line, so the file is refused at this line. */
    flis_vocab *vocab = vocab_of(&ctx, "order.txt", merges, strlen(merges));
    CHECK(!vocab && strstr(ctx.error, "order.txt:6:") && strstr(ctx.error, "right"), "aa</w> passed: %s", ctx.error);
    flis_free(&ctx);
    vocab = vocab_of(&ctx, "order.txt", merges, strlen(merges) - strlen("\naa aa</w>"));
    CHECK(vocab && flis_vocab_size(vocab) == 512 + 4 + 2, "order.txt: %s", ctx.error);
    for (size_t i = 0; vocab && i < sizeof rows / sizeof *rows; i++) {
        char got[200];
        list_ids(&ctx, vocab, rows[i].text, strlen(rows[i].text), got, sizeof got);
        CHECK(strcmp(got, rows[i].ids) == 0, "\"%s\": %s, wanted %s", rows[i].text, got, rows[i].ids);
    }
    done(&ctx, vocab);
}

void test_tokens_special(void)
{
    char got[200];
    flis_ctx ctx;
    flis_vocab *vocab = small_vocab(&ctx);
    static const struct {
        const char *text, *ids;
    } rows[] = {
        {"<|startoftext|>sky<|endoftext|>", "998 530 999"},
        {"<|ENDOFTEXT|> sea", "999 576"}, /* as a word of the pattern, after lower case */
        {"&lt;|startoftext|&gt;", "998"},
        {"<|\xC5\xBFtartoftext|>", "27 91 129 123 519 81 544 69 83 68 87 83 91 285"}}; /* not the special token */
    for (size_t i = 0; vocab && i < sizeof rows / sizeof *rows; i++) {
        list_ids(&ctx, vocab, rows[i].text, strlen(rows[i].text), got, sizeof got);
        CHECK(strcmp(got, rows[i].ids) == 0, "\"%s\": %s, wanted %s", rows[i].text, got, rows[i].ids);
    }
    done(&ctx, vocab);
}

static long count_of(flis_ctx *ctx, const flis_vocab *vocab, const char *text)
{
    int32_t *ids = NULL;
    long n = flis_tokenize(ctx, vocab, text, strlen(text), &ids);
    free(ids);
    return n;
}

static bool classes_are(const flis_prompt *p, const int *want, size_t count)
{
    for (size_t i = 0; i < count && p->classes == count; i++)
        if (p->class_ids[i] != (float)want[i]) return false;
    return p->classes == count;
}

/* Classes are counted per item between spaces (U+0020); the prompt is tokenised as a whole. SPEC 15.5. */
void test_tokens_alignment(void)
{
    flis_ctx ctx;
    flis_vocab *vocab = small_vocab(&ctx);
    flis_prompt p;
    char spaced[] = "blue  sky", glued[] = "rock, don't", empty[] = "", sea[] = "sea", style[] = "drawn by Van Gogh";
    char context[] = "a<b caf&eacute;", tab[] = "a<b\tcaf&eacute;";
    flis_phrase phrases[] = {{spaced, 156}, {empty, 7}, {glued, 149}, {sea, 0}, {style, -1}};
    const int want[] = {156, 156, 149, 149, 149, 149, 149, 149, 0, -1, -1, -1, -1};
    CHECK(vocab && flis_prompt_make(&ctx, vocab, phrases, 5, &p), "%s", ctx.error);
    if (vocab && flis_ok(&ctx)) {
        CHECK(strcmp(p.text, "blue  sky  rock, don't sea drawn by Van Gogh") == 0, "text is \"%s\"", p.text);
        CHECK(classes_are(&p, want, 13) && p.tokens == 13, "%zu classes for %zu tokens", p.classes, p.tokens);
        CHECK(p.ids[0] == 998 && p.ids[14] == 999 && p.ids[76] == 999 && p.ids[13] == 832, "BOS, tokens, EOS, padding");
        flis_prompt_free(&p);
    }
    /* Context matters: `caf&eacute;` by itself has é; after a `<` the entity is kept. Wrong variants: counting per
       phrase, splitting at every white space, tokenising item by item. */
    flis_phrase one = {context, 3};
    CHECK(vocab && flis_prompt_make(&ctx, vocab, &one, 1, &p), "%s", ctx.error);
    if (vocab && flis_ok(&ctx)) {
        long items = count_of(&ctx, vocab, "a<b") + count_of(&ctx, vocab, "caf&eacute;");
        long whole = count_of(&ctx, vocab, context);
        CHECK(items == 7 && whole == 10, "%ld tokens item by item, %ld as a whole, wanted 7 and 10", items, whole);
        CHECK((long)p.classes == items && (long)p.classes != whole, "%zu classes: counted per phrase", p.classes);
        CHECK((long)p.tokens == whole && (long)p.tokens != items, "%zu tokens: the prompt is not tokenised as a whole",
              p.tokens);
        flis_prompt_free(&p);
    }
    one.text = tab;
    CHECK(vocab && flis_prompt_make(&ctx, vocab, &one, 1, &p), "%s", ctx.error);
    if (vocab && flis_ok(&ctx)) {
        CHECK(p.classes == 10, "%zu classes, wanted 10: a tab does not separate items", p.classes);
        flis_prompt_free(&p);
    }
    CHECK(vocab && flis_prompt_make(&ctx, vocab, NULL, 0, &p), "no phrases: %s", ctx.error);
    if (vocab && flis_ok(&ctx)) {
        CHECK(p.tokens == 0 && p.classes == 0 && !*p.text && p.ids[1] == 999, "no phrases: %zu tokens", p.tokens);
        flis_prompt_free(&p);
    }
    done(&ctx, vocab);
}

/* 75 tokens are accepted, 76 refused (SPEC 15.5). Wrong variant: cutting at 75, as the authors' tokenizer does, which
   leaves the 76th class to EOS. */
void test_tokens_limit(void)
{
    flis_ctx ctx;
    flis_vocab *vocab = small_vocab(&ctx);
    for (size_t n = 75; vocab && n <= 77; n++) {
        char text[400] = "", number[16];
        flis_phrase phrase = {text, 156};
        flis_prompt p;
        for (size_t i = 0; i < n; i++) strcat(text, i ? " sky" : "sky");
        snprintf(number, sizeof number, " %zu ", n);
        long tokens = count_of(&ctx, vocab, text), cut = tokens < FLIS_PHRASE_TOKENS ? tokens : FLIS_PHRASE_TOKENS;
        bool made = flis_prompt_make(&ctx, vocab, &phrase, 1, &p);
        CHECK(made == (tokens == cut), "%zu tokens: %s", n, made ? "cut, not refused" : ctx.error);
        if (made) {
            CHECK(p.tokens == 75 && p.classes == 75 && p.ids[75] == 530 && p.ids[76] == 999, "75 tokens must fit");
            flis_prompt_free(&p);
        } else {
            CHECK(strstr(ctx.error, number) && strstr(ctx.error, " 75"), "which numbers? %s", ctx.error);
            CHECK(!p.text && p.classes == 0, "a refused prompt is empty");
            *ctx.error = 0;
        }
    }
    char digits[90], boat[] = "boat"; /* one word over the limit */
    memset(digits, '1', 80);
    digits[80] = 0;
    flis_phrase two[] = {{digits, 5}, {boat, 6}};
    flis_prompt p;
    CHECK(vocab && !flis_prompt_make(&ctx, vocab, two, 2, &p) && strstr(ctx.error, " 81 "), "81 tokens: %s", ctx.error);
    *ctx.error = 0;
    /* Few classes, many tokens: after the `<` each of the entities is 7 tokens, by itself 4. */
    char context[] = "a<b caf&eacute; caf&eacute; caf&eacute; caf&eacute; caf&eacute; caf&eacute; caf&eacute;"
                     " caf&eacute; caf&eacute; caf&eacute; sky sky sky";
    flis_phrase one = {context, 5};
    CHECK(vocab && !flis_prompt_make(&ctx, vocab, &one, 1, &p) && strstr(ctx.error, " 76 "), "76: %s", ctx.error);
    done(&ctx, vocab);
}

/* BOS or EOS within a phrase shifts all later tokens against their classes, whatever text it comes from. */
void test_tokens_refused(void)
{
    char literal[] = "sky <|endoftext|> sea", glued[] = "a<|startoftext|>b", capital[] = "<|EndOfText|>",
         entity[] = "&lt;|endoftext|>", fine[] = "<|endoftext| >";
    flis_ctx ctx;
    flis_vocab *vocab = small_vocab(&ctx);
    flis_phrase rows[] = {{literal, 1}, {glued, 1}, {capital, 1}, {entity, 1}};
    flis_prompt p;
    for (size_t i = 0; vocab && i < 4; i++) {
        CHECK(!flis_prompt_make(&ctx, vocab, &rows[i], 1, &p) && strstr(ctx.error, "special token"), "%s passed",
              rows[i].text);
        *ctx.error = 0;
    }
    flis_phrase good = {fine, 1};
    CHECK(vocab && flis_prompt_make(&ctx, vocab, &good, 1, &p), "%s: %s", fine, ctx.error);
    if (vocab && flis_ok(&ctx)) flis_prompt_free(&p);
    done(&ctx, vocab);
}

void test_tokens_damaged(void)
{
    static const struct {
        const char *text, *place, *words;
    } rows[] = {{"", "bad.txt: ", "empty"},
                {"#version: 0.2\nab\n", "bad.txt:2: ", "two symbols"},
                {"#version: 0.2\na b\na b c\n", "bad.txt:3: ", "two symbols"},
                {"a  b\n", "bad.txt:1: ", "two symbols"},
                {"a b\n\nc d\n", "bad.txt:2: ", "two symbols"},
                {" b\n", "bad.txt:1: ", "two symbols"},
                {"a b\nab cd\n", "bad.txt:2: ", "right"},
                {"a b\nac d\n", "bad.txt:2: ", "left"},
                {"a </w>\n", "bad.txt:1: ", "right"},
                {"a b\na b\n", "bad.txt:2: ", "earlier line"},
                {"a b\nb c\nab c\na bc\n", "bad.txt:4: ", "earlier line"},
                {"a</w> b\n", "bad.txt:1: ", "left"},
                {"a \xC3(\n", "bad.txt:1: ", "UTF-8"},
                {"a \xE2\x82\xAC\n", "bad.txt:1: ", "stands for no byte"},
                {"{\"a\": 1}\n", "bad.txt: ", "is a vocab.json"},
                {"a\tb\n", "bad.txt:1: ", "two symbols"},
                {"\x1F\x8B\x08", "bad.txt", ""}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        flis_ctx ctx;
        flis_vocab *vocab = vocab_of(&ctx, "bad.txt", rows[i].text, strlen(rows[i].text));
        CHECK(!vocab && strstr(ctx.error, rows[i].place) && strstr(ctx.error, rows[i].words), "row %zu: %s", i,
              ctx.error);
        done(&ctx, vocab);
    }
    flis_ctx ctx;
    flis_vocab *vocab = vocab_of(&ctx, "crlf.txt", "a b\r\nab c\r\n\r\n", 13);
    CHECK(vocab && flis_vocab_size(vocab) == 516, "CRLF: %s", ctx.error);
    done(&ctx, vocab);
    flis_init(&ctx);
    CHECK(!flis_vocab_read(&ctx, test_scratch("none.txt")) && strstr(ctx.error, "none.txt"), "missing: %s", ctx.error);
    flis_free(&ctx);
}

/* A gzip file whose deflate stream is one stored block. */
void test_tokens_gzip(void)
{
    static const char text[] = "\"bpe_simple_vocab#version: 0.2\na b\nab c</w>\n";
    enum { N = sizeof text - 1 };
    uint8_t file[10 + 5 + N + 8] = {0x1F, 0x8B, 8, 0, 0, 0, 0, 0, 0, 255, 1, N, 0, 255 - N, 255};
    uint32_t crc = 0xFFFFFFFFu;
    for (size_t i = 0; i < N; i++) {
        crc ^= (uint8_t)text[i];
        for (int k = 0; k < 8; k++) crc = crc >> 1 ^ (crc & 1 ? 0xEDB88320u : 0);
    }
    memcpy(file + 15, text, N);
    for (int i = 0; i < 4; i++) file[15 + N + i] = (uint8_t)(~crc >> 8 * i);
    file[15 + N + 4] = N;
    flis_ctx ctx;
    flis_vocab *vocab = vocab_of(&ctx, "vocab.txt.gz", file, sizeof file);
    CHECK(vocab && flis_vocab_size(vocab) == 516, "gzip: %s", ctx.error);
    CHECK(!vocab || count_of(&ctx, vocab, "abc") == 1, "abc is one token");
    done(&ctx, vocab);
    file[15] ^= 1;
    vocab = vocab_of(&ctx, "vocab.txt.gz", file, sizeof file);
    CHECK(!vocab && strstr(ctx.error, "vocab.txt.gz"), "a wrong checksum was accepted");
    done(&ctx, vocab);
}

/* The time for long and repetitive texts is linear. Wrong: with a quadratic step each of these would take minutes. */
void test_tokens_long(void)
{
    static const char *const units[] = {"sky", "a",         "&amp;", "e\xCC\x81\xCC\xA7", "\xCC\x81\xCC\xA7",
                                        "\n<", "\xCE\xA3.", "\x1B[1"};
    enum { LENGTH = 300000 };
    flis_ctx ctx;
    flis_vocab *vocab = small_vocab(&ctx);
    char *text = malloc(LENGTH);
    for (size_t u = 0; vocab && text && u < sizeof units / sizeof *units; u++) {
        size_t n = strlen(units[u]);
        int32_t *ids = NULL;
        for (size_t i = 0; i < LENGTH; i++) text[i] = units[u][i % n];
        CHECK(flis_tokenize(&ctx, vocab, text, LENGTH, &ids) > 0, "%s…: %s", units[u], ctx.error);
        free(ids);
    }
    /* &amp;amp;amp;… loses one level per round. In a short text all levels are removed; a long text is refused. */
    for (size_t i = 0; text && i < LENGTH; i++) text[i] = i ? "amp;"[(i - 1) % 4] : '&';
    int32_t *ids = NULL;
    long n = vocab && text ? flis_tokenize(&ctx, vocab, text, 4001, &ids) : -1;
    CHECK(n == 1 && ids[0] == 261, "1000 levels: %ld tokens", n);
    free(ids);
    n = vocab && text ? flis_tokenize(&ctx, vocab, text, LENGTH, &ids) : -1;
    CHECK(n == -1 && strstr(ctx.error, "entities"), "75000 levels: %s", ctx.error);
    free(text);
    done(&ctx, vocab);
}
