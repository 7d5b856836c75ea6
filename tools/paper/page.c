/* page.c - the results as one HTML page and as text. */
#include "tools/paper/paper.h"

#include <stdlib.h>

static bool put_picture(paper *p, FILE *file, uint8_t *rgb, const char *what)
{
    size_t length;
    const flis_picture picture = {SIDE, SIDE, 3, rgb};
    uint8_t *png = flis_png_bytes(&p->ctx, &picture, NULL, &length);
    if (!png) return false;
    fprintf(file, "<td><img width=\"%d\" height=\"%d\" alt=\"%s\" src=\"data:image/png;base64,", SIDE, SIDE, what);
    print_base64(file, png, length);
    fputs("\"></td>", file);
    free(png);
    return true;
}

static bool put_figure(paper *p, FILE *file, size_t row, uint64_t count)
{
    fputs("<div class=\"wide\"><table class=\"pictures\"><tr><th>layout</th>", file);
    for (int m = 0; m < METHODS; m++) fprintf(file, "<th>%s</th>", METHOD[m]);
    fputs("</tr>\n", file);
    for (uint64_t i = 0; i < count && i < SHOWN; i++) {
        fputs("<tr>", file);
        for (int m = 0; m <= METHODS; m++)
            if (!put_picture(p, file, shown_picture(p, row, i, m), m ? METHOD[m - 1] : "layout")) return false;
        fprintf(file, "</tr>\n<tr><td colspan=\"%d\" class=\"caption\">%s</td></tr>\n", METHODS + 1,
                p->caption[row][i]);
    }
    fputs("</table></div>\n", file);
    return true;
}

static void put_table(const paper *p, FILE *file)
{
    fprintf(file,
            "<h2>Layouts of known classes (the paper's Table 1)</h2>\n<p>%llu held-out layouts. Distance: Fréchet "
            "distance between "
            "features of the small world's own segmenter, from those of %llu other real pictures; it is not anybody's "
            "FID. mIoU: the "
            "segmenter's labels against the layout, over the classes that "
            "occur.</p>\n<table><tr><th></th><th>distance</th><th>mIoU</th>"
            "<th>pixel accuracy</th></tr>\n",
            (unsigned long long)p->o.count, (unsigned long long)p->o.count);
    for (int m = 0; m < METHODS; m++)
        fprintf(file, "<tr><td>%s</td><td>%.3f</td><td>%.3f</td><td>%.3f</td></tr>\n", METHOD[m], p->distance[m],
                p->iou[m].mean_present, p->iou[m].pixel_accuracy);
    fputs("</table>\n", file);
}

static void put_questions(const paper *p, FILE *file)
{
    fprintf(file,
            "<h2>Beyond what the fine-tuning saw</h2>\n<p>%llu layouts each; how many are right. The fine-tuning saw "
            "no such object, "
            "attribute or style, and none of these scenes. Only the swapped maps are made of what it knows: plain "
            "things, of which it saw "
            "some in each other's outlines.</p>\n<div class=\"wide\"><table><tr><th></th><th>right means</th>",
            (unsigned long long)p->o.trials);
    for (int m = 0; m < METHODS; m++) fprintf(file, "<th>%s</th>", METHOD[m]);
    fputs("</tr>\n", file);
    for (int q = 0; q < QUESTIONS; q++) {
        fprintf(file, "<tr><td>%s</td><td class=\"text\">%s</td>", QUESTION[q].name, QUESTION[q].asks);
        for (int m = 0; m < METHODS; m++) {
            const tally *t = &p->tally[q][m];
            fprintf(file, "<td>%.0f %%</td>", 100.0 * (double)t->right / (double)t->all);
        }
        fputs("</tr>\n", file);
        if (!QUESTION[q].each) continue;
        fprintf(file, "<tr><td>%s</td><td class=\"text\">the same, one by one</td>", QUESTION[q].each);
        for (int m = 0; m < METHODS; m++)
            fprintf(file, "<td>%.0f %%</td>", 100.0 * (double)p->tally[q][m].each_right / (double)p->tally[q][m].each);
        fputs("</tr>\n", file);
    }
    fputs("</table></div>\n", file);
}

bool write_page(paper *p)
{
    static const char HEAD[] = "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta "
                               "name=\"viewport\" content=\"width=device-width\">\n"
                               "<title>The paper in miniature</title>\n<style>body{font:16px/1.5 "
                               "sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222}"
                               "table{border-collapse:collapse}td,th{padding:.2rem "
                               ".6rem;text-align:right;vertical-align:bottom}td:first-child,th:first-child,"
                               "td.text{text-align:left}tr+tr td{border-top:1px solid #ddd}.pictures td,.pictures "
                               "th{padding:.1rem;text-align:center;border:0;"
                               "font-size:.8rem;width:8rem}.pictures "
                               "td.caption{text-align:left;padding-bottom:.8rem;color:#555}.wide{overflow-x:auto}"
                               "img{image-rendering:auto;display:block}code{font-size:.85rem;word-break:break-all}</"
                               "style></head><body>\n<h1>The paper in miniature</h1>\n";
    flis_output o;
    FILE *file = flis_output_open(&p->ctx, p->o.out, &o);
    if (!file) return false;
    fputs(HEAD, file);
    fprintf(file,
            "<p>The experiments of <i>Freestyle Layout-to-Image Synthesis</i> (Xue et al., CVPR 2023), repeated with "
            "flis' small model on "
            "the small world that bin/world draws. PLMS, %llu steps, guidance %g, seeds %llu and on. Judges: the "
            "world's own segmenter and "
            "measures of colour, pattern and style; their verdict on real pictures is the most that a method can "
            "reach.</p>\n",
            (unsigned long long)p->o.steps, p->o.scale, (unsigned long long)p->o.seed);
    put_table(p, file);
    bool good = put_figure(p, file, QUESTIONS, p->o.count);
    put_questions(p, file);
    for (size_t q = 0; good && q < QUESTIONS; q++) {
        fprintf(file, "<h3>%c%s</h3>\n<p>Right: %s.</p>\n", QUESTION[q].name[0] - 32, QUESTION[q].name + 1,
                QUESTION[q].asks);
        good = put_figure(p, file, q, p->o.trials);
    }
    fprintf(file,
            "<h2>Made from</h2>\n<p>Model with fine-tuning: <code>%s</code><br>without: "
            "<code>%s</code></p>\n</body></html>\n",
            p->tuned.digest, p->plain.digest);
    if (!good) flis_output_abort(&o);
    return good && flis_output_close(&p->ctx, &o);
}

void print_results(const paper *p)
{
    printf("%-32s %10s %8s %8s\n", "", "distance", "mIoU", "accuracy");
    for (int m = 0; m < METHODS; m++)
        printf("%-32s %10.3f %8.4f %8.4f\n", METHOD[m], p->distance[m], p->iou[m].mean_present,
               p->iou[m].pixel_accuracy);
    for (int q = 0; q < QUESTIONS; q++) {
        printf("%-28s", QUESTION[q].name);
        for (int m = 0; m < METHODS; m++)
            printf(" %4llu/%-4llu", (unsigned long long)p->tally[q][m].right, (unsigned long long)p->tally[q][m].all);
        if (QUESTION[q].each) printf("\n%-28s", QUESTION[q].each);
        for (int m = 0; QUESTION[q].each && m < METHODS; m++)
            printf(" %4llu/%-4llu", (unsigned long long)p->tally[q][m].each_right,
                   (unsigned long long)p->tally[q][m].each);
        putchar('\n');
    }
}
