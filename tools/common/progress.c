/* progress.c - progress of long work: a line that is redrawn on a terminal, a few lines elsewhere. */
#include "tools/common/common.h"

#include <string.h>

void progress_end(progress *p)
{
    if (p->line_open) fputc('\n', stderr);
    p->line_open = false;
}

/* "step 3/50, 1.25 s/step, 0:59 left, loss 0.12" */
static void draw(progress *p, double time, size_t done, size_t total, const char *note)
{
    fprintf(stderr, "%s %zu/%zu", p->what, done, total);
    if (p->unit && done > p->first) {
        const double each = (time - p->start) / (double)(done - p->first);
        const unsigned long left = (unsigned long)(each * (double)(total - done) + 0.5);
        if (each >= 0.01) fprintf(stderr, ", %.2f s/%s", each, p->unit);
        else fprintf(stderr, ", %.0f %ss/s", each > 0 ? 1 / each : 0, p->unit);
        fprintf(stderr, ", %lu:%02lu left", left / 60, left % 60);
    }
    if (*note) fprintf(stderr, ", %s", note);
}

static void show(progress *p, const char *what, size_t done, size_t total, const char *note)
{
    const double time = seconds_now();
    const bool terminal = is_terminal(stderr);
    if (strcmp(p->what, what) != 0 || done < p->done) {
        progress_end(p);
        snprintf(p->what, sizeof p->what, "%s", what);
        p->start = time;
        p->first = done;
        p->drawn = 0;
    } else if (done == p->done && !*note) return;
    p->done = done;
    if (p->quiet) return;
    if (terminal && done < total && time - p->drawn < 0.1) return;
    if (!terminal && done < total && (!p->unit || done % 10 != 0 || !done)) return;
    p->drawn = time;
    if (terminal) fputc('\r', stderr);
    draw(p, time, done, total, note);
    fputs(terminal ? "\033[K" : "\n", stderr);
    p->line_open = terminal;
    if (done >= total) progress_end(p);
    fflush(stderr);
}

void progress_show(progress *p, const char *what, size_t done, size_t total)
{
    show(p, what, done, total, "");
}

void progress_note(progress *p, const char *what, size_t done, size_t total, const char *format, ...)
{
    char note[160];
    va_list args;
    va_start(args, format);
    vsnprintf(note, sizeof note, format, args);
    va_end(args);
    show(p, what, done, total, note);
}

/* FNV-1a, 64 bits. */
static uint64_t hash_of(const char *text)
{
    uint64_t h = 0xcbf29ce484222325u;
    for (; *text; text++) h = (h ^ (unsigned char)*text) * 0x100000001b3u;
    return h;
}

void print_warning(void *user, const char *sentence)
{
    warnings *w = user;
    const uint64_t hash = hash_of(sentence);
    if (w->off) return;
    for (size_t i = 0; i < w->count; i++)
        if (w->printed[i] == hash) return;
    if (w->count < sizeof w->printed / sizeof *w->printed) w->printed[w->count++] = hash;
    if (w->progress) progress_end(w->progress);
    fprintf(stderr, "%s: warning: %s\n", w->name, sentence);
}
