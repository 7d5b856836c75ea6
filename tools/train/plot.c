/* plot.c - the log (tab-separated: step, mean loss of the steps since the line before, norm of the last gradient), and its
 * plot as SVG. With validation (validate.c) its loss is a fourth column, empty where it was not measured, and a second curve.
 */
#include "tools/train/train.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

bool log_add(job *j, uint64_t step, double loss, double norm)
{
    if (j->lines == j->room) {
        const size_t room = j->room ? 2 * j->room : 1024;
        log_line *grown = realloc(j->line, room * sizeof *grown);
        if (!grown) return flis_fail(&j->ctx, "out of memory: a log of %zu lines", room);
        j->line = grown;
        j->room = room;
    }
    j->line[j->lines++] = (log_line){step, loss, norm, NAN};
    return true;
}

/* A column of the log is for what is measured; without it the log is as ever. */
static bool has_validation(const job *j)
{
    bool has = j->validation.count > 0;
    for (size_t i = 0; i < j->lines; i++) has = has || !isnan(j->line[i].validation);
    return has;
}

bool log_write(job *j)
{
    flis_output file;
    FILE *stream = flis_output_open(&j->ctx, j->o.log, &file);
    if (!stream) return false;
    const bool validated = has_validation(j);
    fprintf(stream, "step\tloss\tgradient_norm%s\n", validated ? "\tvalidation" : "");
    for (size_t i = 0; i < j->lines; i++) {
        const log_line *l = &j->line[i];
        fprintf(stream, "%llu\t%.9g\t%.9g", (unsigned long long)l->step, l->loss, l->norm);
        if (validated) fputc('\t', stream);
        if (!isnan(l->validation)) fprintf(stream, "%.9g", l->validation);
        fputc('\n', stream);
    }
    return flis_output_close(&j->ctx, &file);
}

bool log_read(job *j)
{
    size_t length = 0;
    char *text = flis_read_file(&j->ctx, j->o.log, (size_t)1 << 30, &length);
    for (char *line = text ? strchr(text, '\n') : NULL; line && line[1]; line = strchr(line + 1, '\n')) {
        char *end = line + 1;
        const uint64_t step = strtoull(end, &end, 10);
        const double loss = strtod(end, &end), norm = strtod(end, &end);
        if (step > j->training.step) break;
        if (!log_add(j, step, loss, norm)) break;
        if (end[0] == '\t' && end[1] != '\r' && end[1] != '\n')
            j->line[j->lines - 1].validation = j->validation.loss = strtod(end + 1, NULL);
    }
    free(text);
    return flis_ok(&j->ctx);
}

enum { PLOT_W = 720, PLOT_H = 360, PLOT_LEFT = 64, PLOT_RIGHT = 8, PLOT_BOTTOM = 40, PLOT_TOP = 16, PLOT_POINTS = 600 };

/* The curve: means of neighbouring lines, and the range of their logarithms. */
typedef struct curve {
    size_t points;
    double mean[PLOT_POINTS], low, span; /* low: logarithm of the smallest mean; span: of the largest, less low */
} curve;

static void make_curve(const job *j, curve *c)
{
    double low = HUGE_VAL, high = 0;
    c->points = j->lines < PLOT_POINTS ? j->lines : PLOT_POINTS;
    for (size_t i = 0; i < c->points; i++) {
        const size_t first = i * j->lines / c->points, last = (i + 1) * j->lines / c->points;
        c->mean[i] = 0;
        for (size_t k = first; k < last; k++) c->mean[i] += j->line[k].loss / (double)(last - first);
        low = c->mean[i] < low ? c->mean[i] : low;
        high = c->mean[i] > high ? c->mean[i] : high;
    }
    for (size_t i = 0; i < j->lines; i++) { /* NAN compares false */
        low = j->line[i].validation < low ? j->line[i].validation : low;
        high = j->line[i].validation > high ? j->line[i].validation : high;
    }
    c->low = low > 0 ? flis_log(low) : -1;
    c->span = (high > low && low > 0 ? flis_log(high) : c->low + 1) - c->low;
}

/* x: share of the width. */
static void put_point(FILE *stream, const curve *c, double x, double loss)
{
    const double height = PLOT_H - PLOT_TOP - PLOT_BOTTOM, width = PLOT_W - PLOT_RIGHT - PLOT_LEFT,
                 share = (flis_log(loss > 0 ? loss : 1e-9) - c->low) / c->span;
    fprintf(stream, "%.1f,%.1f ", PLOT_LEFT + width * x, PLOT_TOP + height * (1 - share));
}

/* A second curve, with a dot for each value. */
static void put_validation(FILE *stream, const job *j, const curve *c)
{
    if (!has_validation(j)) return;
    fprintf(
        stream,
        "<text x=\"%d\" y=\"%d\"><tspan fill=\"#0a58a8\">training</tspan> <tspan fill=\"#c2410c\">validation</tspan>"
        "</text>\n<path fill=\"none\" stroke=\"#c2410c\" stroke-width=\"1.5\" d=\"",
        PLOT_LEFT, PLOT_H - 12);
    for (int dots = 0, began = 0; dots < 2; dots++)
        for (size_t i = 0; i < j->lines; i++) {
            if (isnan(j->line[i].validation)) continue;
            fputs(dots || !began++ ? "M" : "L", stream);
            put_point(stream, c, ((double)i + 0.5) / (double)j->lines, j->line[i].validation);
            if (dots) fputs("m-2,0h4m-2-2v4", stream);
        }
    fputs("\"/>\n", stream);
}

/* The loss axis is logarithmic, since losses fall by orders of magnitude. */
bool plot_write(job *j)
{
    const double height = PLOT_H - PLOT_TOP - PLOT_BOTTOM;
    flis_output file;
    curve c;
    make_curve(j, &c);
    if (!c.points) return true;
    FILE *stream = flis_output_open(&j->ctx, j->o.plot, &file);
    if (!stream) return false;
    fprintf(
        stream,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %d\" font-family=\"sans-serif\" font-size=\"12\">\n"
        "<title>train %s: loss</title><rect width=\"100%%\" height=\"100%%\" fill=\"#fff\"/>\n",
        PLOT_W, PLOT_H, STAGE[j->o.stage]);
    for (int i = 0; i <= 4; i++) {
        const double y = PLOT_TOP + height * i / 4.0, value = flis_exp(c.low + c.span * (4 - i) / 4);
        fprintf(stream,
                "<path d=\"M%d %.1fH%d\" stroke=\"#ddd\"/><text x=\"%d\" y=\"%.1f\" text-anchor=\"end\">%.3g</text>\n",
                PLOT_LEFT, y, PLOT_W - PLOT_RIGHT, PLOT_LEFT - 6, y + 4, value);
    }
    fprintf(stream,
            "<text x=\"%d\" y=\"%d\" text-anchor=\"end\">%llu steps of %llu samples</text>\n"
            "<polyline fill=\"none\" stroke=\"#0a58a8\" points=\"",
            PLOT_W - PLOT_RIGHT, PLOT_H - 12, (unsigned long long)j->line[j->lines - 1].step,
            (unsigned long long)j->o.batch);
    for (size_t i = 0; i < c.points; i++) put_point(stream, &c, ((double)i + 0.5) / (double)c.points, c.mean[i]);
    fputs("\"/>\n", stream);
    put_validation(stream, j, &c);
    fputs("</svg>\n", stream);
    return flis_output_close(&j->ctx, &file);
}
