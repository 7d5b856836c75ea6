/* html.c - the result as one page that needs nothing else, with a plot of the error by tensor. */
#include "tools/compare/compare.h"

enum { PLOT_W = 1000, PLOT_H = 300, PLOT_LEFT = 60, PLOT_RIGHT = 12, PLOT_TOP = 14, PLOT_FOOT = 34 };

/* The axis' decades: from the smallest error to the largest, and the tolerances among them. */
typedef struct axis {
    int low, high;
} axis;

static double height_of(const axis *a, double x)
{
    const double at = (log10(x) - a->low) / (a->high - a->low);
    return PLOT_TOP + (1 - (at < 0 ? 0 : at > 1 ? 1 : at)) * (PLOT_H - PLOT_TOP - PLOT_FOOT);
}

/* A tensor's error in the plot: root mean square, relative to REF's. An error of 0 is drawn at the bottom. */
static bool drawn(const pair *p, double *error)
{
    *error = p->measured && p->verdict != NOT_FINITE ? p->m.relative : HUGE_VAL;
    return p->measured;
}

static axis html_axis(const comparison *c)
{
    double low = 1e-7, high = 1e-6;
    for (size_t i = 0; i < c->count; i++) {
        double e;
        if (!drawn(&c->pair[i], &e) || !(e < 1e30) || !(e > 1e-30)) continue;
        low = e < low ? e : low;
        high = e > high ? e : high;
    }
    for (size_t i = 0; i < c->count; i++) {
        const double limit = limits_of(c->pair[i].ref->name, c->o.profile).relative;
        high = limit > high ? limit : high;
    }
    return (axis){(int)floor(log10(low)), (int)ceil(log10(high) + 1e-9)};
}

static double column_of(const comparison *c, size_t i)
{
    return PLOT_LEFT + ((double)i + 0.5) / (double)c->count * (PLOT_W - PLOT_LEFT - PLOT_RIGHT);
}

static void html_point(FILE *file, const comparison *c, const axis *a, size_t i)
{
    const pair *p = &c->pair[i];
    double e;
    if (!drawn(p, &e)) return;
    const bool bad = p->verdict != SAME;
    fprintf(file, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"%s\" fill=\"%s\"><title>", column_of(c, i),
            height_of(a, e > 0 ? e : 1e-300),
            p == c->first ? "5"
            : bad         ? "3"
                          : "1.6",
            bad ? "#c22" : "#27a");
    print_html(file, p->ref->name);
    fprintf(file, ": %.3g</title></circle>\n", e);
}

static void html_plot(FILE *file, const comparison *c)
{
    const axis a = html_axis(c);
    const bool given = c->o.absolute >= 0 || c->o.relative >= 0;
    fprintf(file, "<svg viewBox=\"0 0 %d %d\" role=\"img\" aria-label=\"error by tensor\">\n", PLOT_W, PLOT_H);
    for (int d = a.low; d <= a.high; d++) {
        const double y = height_of(&a, pow(10, d));
        fprintf(file,
                "<path d=\"M%d %.1fH%d\" stroke=\"#ddd\"/><text x=\"%d\" y=\"%.1f\" text-anchor=\"end\">1e%d</text>\n",
                PLOT_LEFT, y, PLOT_W - PLOT_RIGHT, PLOT_LEFT - 6, y + 4, d);
    }
    if (!given || c->o.relative > 0) {
        fputs("<polyline fill=\"none\" stroke=\"#e90\" stroke-width=\"1.5\" points=\"", file);
        for (size_t i = 0; i < c->count; i++)
            fprintf(file, "%.1f,%.1f ", column_of(c, i),
                    height_of(&a, given ? c->o.relative : limits_of(c->pair[i].ref->name, c->o.profile).relative));
        fputs("\"><title>tolerance</title></polyline>\n", file);
    }
    for (size_t i = 0; i < c->count; i++)
        if (&c->pair[i] != c->first) html_point(file, c, &a, i);
    if (c->first) {
        const size_t i = (size_t)(c->first - c->pair);
        fprintf(file, "<path d=\"M%.1f %dV%d\" stroke=\"#c22\" stroke-dasharray=\"4 3\"/>", column_of(c, i), PLOT_TOP,
                PLOT_H - PLOT_FOOT);
        html_point(file, c, &a, i);
    }
    fprintf(file,
            "<text x=\"%d\" y=\"%d\">tensors in order of execution; relative error, root mean square; orange: "
            "tolerance; red: above it"
            "</text>\n</svg>\n",
            PLOT_LEFT, PLOT_H - 10);
}

static void html_row(FILE *file, const comparison *c, const pair *p)
{
    static const char *const verdicts[] = {"same", "different", "not finite", "another shape", "missing"};
    char text[200];
    fprintf(file, "<tr%s><td>", p == c->first ? " class=\"first\"" : p->verdict == SAME ? "" : " class=\"bad\"");
    print_html(file, p->ref->name);
    fprintf(file, "</td><td>%s</td><td>%s</td>", shape_text(p->ref->entry, text), verdicts[p->verdict]);
    if (p->measured)
        fprintf(file, "<td>%.3g</td><td>%s</td><td>%.3g</td><td>%.9g</td><td>%.3g</td>", p->m.max_error,
                index_text(p->ref->entry, p->verdict == NOT_FINITE ? p->m.first_bad : p->m.at, text), p->m.relative,
                p->m.cosine, p->m.excess);
    fputs("</tr>\n", file);
}

static void html_head(FILE *file, const comparison *c)
{
    fputs("<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" "
          "content=\"width=device-width\">\n"
          "<title>compare</title>\n<style>body{font:15px/1.5 sans-serif;max-width:64rem;margin:2rem auto;padding:0 "
          "1rem;color:#222}"
          "svg{width:100%;font-size:12px}table{border-collapse:collapse;font-size:13px}td,th{padding:.1rem "
          ".6rem;text-align:right}"
          "td:first-child,th:first-child{text-align:left}tr.bad td{color:#c22}tr.first "
          "td{background:#fdd}pre{white-space:pre-wrap}"
          ".wide{overflow-x:auto}</style></head><body>\n<h1>",
          file);
    fputs(c->first ? "First wrong: " : differs(c) ? "Tensors are missing" : "Same within tolerance", file);
    if (c->first) print_html(file, c->first->ref->name);
    fputs("</h1>\n<p>", file);
    print_html(file, c->o.path[1]);
    fputs(" compared with ", file);
    print_html(file, c->o.path[0]);
    fprintf(file, ": %zu tensors compared, %zu wrong, %zu missing; profile %s.</p>\n", c->compared, c->failed,
            c->missing, PROFILE_NAMES[c->o.profile]);
    if (!c->first) return;
    fputs("<pre>", file);
    print_html(file, c->diagnosis);
    fputs("</pre>\n", file);
}

bool write_html(comparison *c)
{
    flis_output page;
    FILE *file = flis_output_open(&c->ctx, c->o.html, &page);
    if (!file) return false;
    html_head(file, c);
    if (c->count) html_plot(file, c);
    fputs("<div class=\"wide\"><table><tr><th>tensor</th><th>shape</th><th></th><th>largest "
          "error</th><th>at</th><th>relative</th><th>cosine</th>"
          "<th>times tolerance</th></tr>\n",
          file);
    for (size_t i = 0; i < c->count; i++) html_row(file, c, &c->pair[i]);
    fputs("</table></div>\n</body></html>\n", file);
    return flis_output_close(&c->ctx, &page);
}
