/* options.c - command lines: one table per program, the same rules and messages for all programs. */
#include "tools/common/common.h"

#include <errno.h>
#include <float.h>
#include <stdlib.h>
#include <string.h>

bool parse_whole(const char *text, uint64_t *out)
{
    uint64_t value = 0;
    if (!*text) return false;
    for (; *text; text++) {
        if (*text < '0' || *text > '9') return false;
        const uint64_t digit = (uint64_t)(*text - '0');
        if (value > (UINT64_MAX - digit) / 10) return false;
        value = value * 10 + digit;
    }
    *out = value;
    return true;
}

bool parse_number(const char *text, double *out)
{
    char *end;
    if (!*text || strspn(text, "0123456789+-.eE") != strlen(text)) return false;
    errno = 0;
    *out = strtod(text, &end);
    return !*end && !(errno == ERANGE && (*out > 1 || *out < -1));
}

bool parse_list(const char *text, uint64_t min, uint64_t max, uint64_t *out, size_t room, size_t *count)
{
    for (*count = 0;;) {
        char part[24];
        const size_t length = strcspn(text, ",");
        if (*count == room || length >= sizeof part) return false;
        memcpy(part, text, length);
        part[length] = 0;
        if (!parse_whole(part, &out[*count]) || out[*count] < min || out[*count] > max) return false;
        ++*count;
        if (!text[length]) return true;
        text += length + 1;
    }
}

static void print_usage_error(const program *p, const char *format, va_list args)
{
    fprintf(stderr, "%s: ", p->name);
    vfprintf(stderr, format, args);
    fprintf(stderr, " (see %s --help)\n", p->name);
}

int usage_error(const program *p, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    print_usage_error(p, format, args);
    va_end(args);
    return 2;
}

int missing_argument(const program *p, const char *what)
{
    return usage_error(p, "%s is missing", what);
}

int unexpected_argument(const program *p, const char *text)
{
    return usage_error(p, "unexpected argument '%s'", text);
}

static bool takes(const program *p, const option *o)
{
    return !p->command || !o->commands || (o->commands & p->command);
}

/* Whether a typed name of that length is an option's. either: '_' and '-' are one character, as the authors' scripts spell their options
   (--data_root). */
static bool same_name(const char *name, const char *typed, size_t length, bool either)
{
    if (strlen(name) != length) return false;
    for (size_t i = 0; i < length; i++)
        if (name[i] != typed[i] &&
            !(either && (name[i] == '-' || name[i] == '_') && (typed[i] == '-' || typed[i] == '_')))
            return false;
    return true;
}

/* The option of "--name" with its length, or of "-x". An exact name comes before one that differs in '_' and '-'. */
static const option *find(const program *p, const char *text, size_t length)
{
    const option *spelled = NULL;
    for (size_t i = 0; i < p->count; i++) {
        const option *o = &p->options[i];
        if (!takes(p, o)) continue;
        if (text[1] == '-' && same_name(o->name, text + 2, length - 2, false)) return o;
        if (text[1] == '-' && !spelled && same_name(o->name, text + 2, length - 2, true)) spelled = o;
        if (length == 2 && text[1] == o->letter) return o;
    }
    return spelled;
}

/* Describes the valid values, for messages. */
static void describe_wanted(const option *o, char *out, size_t room)
{
    *out = 0;
    switch (o->kind) {
    case OPTION_WHOLE:
        if (o->max > 0) snprintf(out, room, "a whole number from %.0f to %.0f", o->min, o->max);
        else snprintf(out, room, "a whole number from %.0f to 2^64-1", o->min);
        break;
    case OPTION_NUMBER:
        if (o->min <= -DBL_MAX && o->max >= DBL_MAX) snprintf(out, room, "a number");
        else if (o->max >= DBL_MAX) snprintf(out, room, "a number from %g", o->min);
        else snprintf(out, room, "a number from %g to %g", o->min, o->max);
        break;
    case OPTION_WORD:
        for (size_t i = 0; o->words[i]; i++)
            text_append(out, room, "%s%s", i == 0 ? "" : o->words[i + 1] ? ", " : " or ", o->words[i]);
        break;
    case OPTION_ARGUMENT:
    case OPTION_TEXT: snprintf(out, room, "a text that is not empty"); break;
    default: snprintf(out, room, "%s", o->wanted ? o->wanted : o->value); break;
    }
}

static bool set_value(const option *o, void *options, const char *text)
{
    void *field = (char *)options + o->offset;
    uint64_t whole;
    double number;
    switch (o->kind) {
    case OPTION_FLAG: *(bool *)field = true; return true;
    case OPTION_TEXT: *(const char **)field = text; return *text != 0;
    case OPTION_WHOLE:
        if (!parse_whole(text, &whole) || (double)whole < o->min || (o->max > 0 && (double)whole > o->max))
            return false;
        *(uint64_t *)field = whole;
        return true;
    case OPTION_NUMBER:
        if (!parse_number(text, &number) || number < o->min || number > o->max) return false;
        *(double *)field = number;
        return true;
    case OPTION_WORD:
        for (int i = 0; o->words[i]; i++)
            if (strcmp(o->words[i], text) == 0) {
                *(int *)field = i;
                return true;
            }
        return false;
    case OPTION_CALL: return o->parse(options, text);
    case OPTION_ARGUMENT: break;
    }
    return false;
}

bool option_set(const program *p, void *options, const char *name, const char *text, char *wanted, size_t room)
{
    for (size_t i = 0; i < p->count; i++) {
        const option *o = &p->options[i];
        if (!takes(p, o) || strcmp(o->name, name) != 0) continue;
        describe_wanted(o, wanted, room);
        return set_value(o, options, text);
    }
    snprintf(wanted, room, "an option of this program");
    return false;
}

/* The option as messages spell it: "--steps", or "-o" if there is no long name. */
static void spelling(const option *o, char out[48])
{
    if (*o->name) snprintf(out, 48, "--%s", o->name);
    else snprintf(out, 48, "-%c", o->letter);
}

/* What may have been meant: an option of another program, or one with a similar name. */
static int unknown_option(const program *p, const char *text, int length)
{
    const char *typed = text + (text[1] == '-' ? 2 : 1), *meant = NULL;
    const size_t count = (size_t)(text + length - typed);
    const foreign_option *foreign = find_foreign(p->foreign, typed, count);
    size_t best = SIZE_MAX;
    bool taken = false, attached = false;
    for (size_t i = 0; i < p->count; i++) {
        if (!takes(p, &p->options[i])) continue;
        const size_t distance = typed_distance(typed, count, p->options[i].name);
        if (distance < best) best = distance, meant = p->options[i].name;
        if (text[1] == p->options[i].letter && count > 1 && p->options[i].value) attached = true;
        taken = taken || (foreign && strcmp(foreign->option, p->options[i].name) == 0);
    }
    if (taken) return usage_error(p, "unknown option %.*s: %s", length, text, foreign->advice);
    if (meant) return usage_error(p, "unknown option %.*s: did you mean --%s?", length, text, meant);
    if (attached)
        return usage_error(p, "unknown option %.*s: did you mean -%c %.*s?", length, text, text[1], (int)count - 1,
                           typed + 1);
    return usage_error(p, "unknown option %.*s", length, text);
}

/* Reads the option at argv[*i] and moves *i past its value. Returns -1 to go on, else the exit status. */
static int read_one(const program *p, void *options, int argc, char **argv, int *i, int *words)
{
    const char *text = argv[*i], *value = NULL;
    const bool is_long = text[1] == '-';
    const size_t length = is_long ? strcspn(text, "=") : strlen(text);
    char name[48], wanted[256];
    if (strcmp(text, "-h") == 0 || strcmp(text, "--help") == 0) {
        options_help(p);
        return 0;
    }
    if (strcmp(text, "--version") == 0) {
        printf("%.*s " FLIS_VERSION "%s\n", (int)strcspn(p->name, " "), p->name,
               sizeof(flis_real) == 8 ? " (double precision)" : "");
        return 0;
    }
    const option *o = find(p, text, length);
    if (!o || (is_long && length == 2)) return unknown_option(p, text, (int)length);
    spelling(o, name);
    if (text[length]) value = text + length + 1;
    if (o->kind == OPTION_FLAG && value) return usage_error(p, "%s takes no value", name);
    if (o->kind != OPTION_FLAG && !value && !o->optional) {
        if (*i + 1 == argc) return usage_error(p, "%s needs a value: %s", name, o->value);
        value = argv[++*i];
    }
    if (o->kind == OPTION_ARGUMENT && *value) {
        argv[(*words)++] = (char *)value;
        return -1;
    }
    if (o->kind != OPTION_ARGUMENT && set_value(o, options, value)) return -1;
    describe_wanted(o, wanted, sizeof wanted);
    return usage_error(p, "invalid value '%s' for %s: wanted %s", value, name, wanted);
}

const char *options_find(const program *p, int argc, char *const *argv, const char *name)
{
    const char *value = NULL;
    for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++) {
        if (argv[i][0] != '-' || !argv[i][1]) continue;
        const size_t length = argv[i][1] == '-' ? strcspn(argv[i], "=") : strlen(argv[i]);
        const option *o = find(p, argv[i], length);
        if (!o || o->kind == OPTION_FLAG) continue;
        const char *given = argv[i][length] ? argv[i] + length + 1 : o->optional || i + 1 == argc ? NULL : argv[++i];
        if (strcmp(o->name, name) == 0) value = given;
    }
    return value;
}

int options_read(const program *p, void *options, int argc, char **argv, int *words)
{
    bool over = false;
    binary_stdout();
    *words = 0;
    for (int i = 1; i < argc; i++) {
        char *text = argv[i];
        if (over || text[0] != '-' || !text[1]) argv[(*words)++] = text;
        else if (strcmp(text, "--") == 0) over = true;
        else {
            const int status = read_one(p, options, argc, argv, &i, words);
            if (status >= 0) return status;
        }
    }
    return -1;
}

enum { HELP_LEFT = 26, HELP_WIDTH = 116 };

/* Prints a text, broken at blanks; all lines but the first are indented by `left`. */
static void print_wrapped(const char *text, size_t left, size_t width)
{
    while (*text) {
        size_t length = strcspn(text, "\n");
        if (length > width - left) {
            length = width - left;
            while (length && text[length] != ' ') length--;
            if (!length) length = strcspn(text, " \n");
        }
        printf("%.*s\n", (int)length, text);
        text += length;
        if (*text) text++;
        if (*text) printf("%*s", (int)left, "");
    }
}

/* Appends the value that an option has in a struct of options, as one types it. */
static void append_value(const option *o, const void *options, char *out, size_t room)
{
    const void *field = (const char *)options + o->offset;
    const char *text = o->kind == OPTION_TEXT ? *(const char *const *)field : NULL;
    switch (o->kind) {
    case OPTION_WHOLE: text_append(out, room, "%llu", (unsigned long long)*(const uint64_t *)field); break;
    case OPTION_NUMBER: text_append(out, room, "%.10g", *(const double *)field); break;
    case OPTION_WORD: text_append(out, room, "%s", o->words[*(const int *)field]); break;
    case OPTION_FLAG: text_append(out, room, "%s", *(const bool *)field ? "on" : "off"); break;
    default: text_append(out, room, "%s", text ? text : "none"); break;
    }
}

/* A help text that ends in "default " is completed with the value that the field has before options are read. */
static void name_default(const program *p, const option *o, char *out, size_t room)
{
    static const char end[] = "default ";
    const size_t length = strlen(out);
    if (!p->defaults || length < sizeof end - 1 || strcmp(out + length - (sizeof end - 1), end) != 0) return;
    append_value(o, p->defaults, out, room);
}

void options_list_changes(const program *p, const void *from, const void *to, char *out, size_t room)
{
    for (size_t i = 0; i < p->count; i++) {
        const option *o = &p->options[i];
        char before[64] = "", after[64] = "";
        if (!takes(p, o) || o->kind == OPTION_ARGUMENT || o->kind == OPTION_CALL) continue;
        append_value(o, from, before, sizeof before);
        append_value(o, to, after, sizeof after);
        if (strcmp(before, after) == 0) continue;
        text_append(out, room, "%s--%s%s%s", *out ? " " : "", o->name, o->kind == OPTION_FLAG ? "" : " ",
                    o->kind == OPTION_FLAG ? "" : after);
    }
}

/* "miou, segment: ": the commands that take an option, in a help text for all commands. */
static void name_commands(const program *p, const option *o, char *out, size_t room)
{
    *out = 0;
    for (size_t i = 0; o->commands && p->command_names && p->command_names[i]; i++)
        if (o->commands >> i & 1) text_append(out, room, "%s%s", *out ? ", " : "", p->command_names[i]);
    if (*out) text_append(out, room, ": ");
}

void options_help(const program *p)
{
    const char *line = p->arguments;
    for (bool first = true; first || *line; first = false) {
        const size_t length = strcspn(line, "\n");
        printf("%s %s %.*s\n", first ? "usage:" : "      ", p->name, (int)length, line);
        line += length;
        if (*line) line++;
    }
    printf("\n%s\n\noptions:\n", p->summary);
    for (size_t i = 0; i < p->count; i++) {
        const option *o = &p->options[i];
        char left[80], help[640];
        if (!takes(p, o)) continue;
        snprintf(left, sizeof left, "%s%c%s%s%s%s%s", o->letter ? "-" : "   ", o->letter ? o->letter : ' ',
                 o->letter && *o->name ? ", " : "", *o->name ? "--" : "", o->name, o->value && !o->optional ? " " : "",
                 o->value ? o->value : "");
        printf("  %-*s ", HELP_LEFT, left);
        if (strlen(left) > HELP_LEFT) printf("\n%*s", HELP_LEFT + 3, "");
        name_commands(p, o, help, sizeof help);
        text_append(help, sizeof help, "%s", o->help);
        name_default(p, o, help, sizeof help);
        print_wrapped(help, HELP_LEFT + 3, HELP_WIDTH);
    }
    printf("  %-*s this text\n  %-*s the version\n", HELP_LEFT, "-h, --help", HELP_LEFT, "    --version");
    if (p->details) {
        putchar('\n');
        print_wrapped(p->details, 0, HELP_WIDTH);
    }
    printf("\nExit status: %s.\n",
           p->exit_status ? p->exit_status : "0 done, 1 failed (one sentence on stderr), 2 wrong usage");
}

int finish(const char *name, const flis_ctx *ctx, int status)
{
    if (ctx && !flis_ok(ctx) && status != 2) {
        fprintf(stderr, "%s: %s\n", name, ctx->error);
        status = 1;
    }
    if ((fflush(stdout) != 0 || ferror(stdout)) && status != 2) {
        fprintf(stderr, "%s: standard output: cannot be written: %s\n", name, strerror(errno));
        status = 1;
    }
    return status;
}
