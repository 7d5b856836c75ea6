/* evaluate.c - the paper's measures: mIoU of label maps, Fréchet distance of features, and whether attributes came out.
 *
 * Nothing here looks at a network: label maps and features come as files, from whatever segmenter and feature network the
 * data set's field uses (COCO-Stuff: DeepLab v2, ADE20K: UperNet, features: Inception v3), or from the small world's own.
 *
 *   miou        one confusion matrix over all pixels of all images. Of class c: IoU = both / (truth + predicted - both).
 *               The mean goes over the classes that the ground truth has; and, with the same sum, over all classes.
 *   frechet     |m1 - m2|^2 + tr(S1 + S2 - 2 (S1^1/2 S2 S1^1/2)^1/2), S with N - 1 (Heusel et al. 2017, equation 6).
 *               With X = Q R the centred samples, S = R'R / (N - 1), the last trace is the sum of the singular values of
 *               R1 R2' / sqrt((N1 - 1) (N2 - 1)): no matrix is squared, so that N < d and equal sets are exact to rounding.
 *   segment     label maps and features of the small world's pictures, by its own segmenter (tools/train); distances of
 *               those features are the world's own, and must not be taken for Inception's FID.
 *   attributes  colours, patterns and styles of the small world, measured where the layout says they should be.
 *
 * In order: what others call, label maps and mIoU, Fréchet distance, pictures, measures of attributes, and the program.
 * Others include this file with EVALUATE_NO_MAIN defined.
 */
#include "tools/common/folder.h"

#define WORLD_NO_MAIN
#include "tools/world/main.c"

/* ---- What others call -------------------------------------------------------------------------------------------- */

/* Classes are the labels first .. first + classes - 1; truth pixels labelled `void_label` (-1: none) count nowhere. */
typedef struct confusion {
    int first, classes, void_label;
    int modulo;              /* > 0: labels are taken modulo this, once void is told (the world's second phrases) */
    uint64_t images, pixels; /* pixels: those that count */
    uint64_t *count;         /* [classes][classes + 1]: truth, predicted; last column: predicted none of the classes */
} confusion;

typedef struct iou_score {
    double iou[256]; /* per class; -1: the ground truth has none */
    uint64_t truth[256], predicted[256];
    int present;
    double mean_present, mean_all; /* of IoU; the same sum over `present` and over all classes (without void) */
    double pixel_accuracy, mean_accuracy;
} iou_score;

static inline bool confusion_make(flis_ctx *ctx, confusion *c, int first, int classes, int void_label, int modulo);
/* Adds one image; `name` is for error sentences. A truth label that is neither a class nor void is an error. */
static inline bool confusion_add(flis_ctx *ctx, confusion *c, const char *name, const uint8_t *truth,
                                 const uint8_t *predicted, size_t pixels);
static inline bool confusion_score(flis_ctx *ctx, const confusion *c, iou_score *out);

/* a [na][d], b [nb][d] (both are spoilt), at least 2 samples each. */
static inline bool frechet_distance(flis_ctx *ctx, double *a, size_t na, double *b, size_t nb, size_t d, double *out);

/* Measures of attributes, on a region of a picture: the pixels whose label is `id` (-1: all). Made for the small world's
   colours, patterns and styles; what they are worth on its own scenes, where the truth is known, is told by
   `evaluate attributes` on a folder that tools/world wrote. */
typedef struct region {
    const uint8_t *rgb, *label; /* [height][width][3], [height][width] */
    size_t width, height;
    int id;
    bool night; /* moonlight is taken out before colours are named */
} region;
/* The named colour (world_colour) that most of the region has, 0: none. Where a hue covers a quarter of it, white and black
   are taken for the rest of the thing. share [WORLD_COLOURS + 1] may be NULL. */
static inline int measure_colour(const region *r, double *share);
/* What has looked at scenes of the world's training half: of each style, of each thing without pattern, striped and
   spotted, and of each thing in any outline, the mean of some statistics and their covariance (quadratic discriminant analysis). */
typedef struct judges judges;
/* How a scene's pixels [128][128][3] come out of a painter, in place; false: failed. */
typedef bool develop(flis_ctx *ctx, void *user, uint8_t *rgb);
/* Scenes that judges learn from, and how many of them a painter is asked for. */
enum { STYLED = 1200, PATTERNED = 1600, LOOKED_AT = 1600, JUDGES_PAINTED = STYLED + PATTERNED / 2 + LOOKED_AT / 2 };
/* free() it; takes a few seconds. With a painter, judges know every kind twice: as drawn, and as it paints. */
static inline judges *judges_learn(flis_ctx *ctx, develop *painter, void *user);
/* The world_style that the region is most likely in, 0: none. */
static inline int measure_style(const judges *j, const region *r);
/* STRIPED, SPOTTED or 0, for a thing that can have patterns. */
static inline int measure_pattern(flis_ctx *ctx, const judges *j, const region *r, int class);

/* A thing's region looks more like one class than like another, whatever its outline: by the colours it has, how they spread,
   and how they change from above to below. */
#ifdef EVALUATE_NO_MAIN /* the program does not ask it, and clang warns of what nobody calls */
static inline bool looks_rather(const judges *j, const region *r, int class, int other);
#endif

/* The segmenter of tools/train: labels [height][width] of a picture whose sides are multiples of 32, in blocks of four
   pixels; features: means of the middle block's channels, as many as segmenter_features tells. Either may be NULL. */
static inline bool segmenter_run(flis_ctx *ctx, const flis_unet *segmenter, const uint8_t *rgb, size_t width,
                                 size_t height, uint8_t *label, flis_real *features);
static inline size_t segmenter_features(const flis_unet *segmenter);

/* ---- Label maps and mIoU ----------------------------------------------------------------------------------------- */

static inline bool confusion_make(flis_ctx *ctx, confusion *c, int first, int classes, int void_label, int modulo)
{
    *c = (confusion){.first = first, .classes = classes, .void_label = void_label, .modulo = modulo};
    c->count = flis_alloc(ctx, (size_t)classes * (size_t)(classes + 1), sizeof *c->count);
    return c->count != NULL;
}

static inline bool confusion_add(flis_ctx *ctx, confusion *c, const char *name, const uint8_t *truth,
                                 const uint8_t *predicted, size_t pixels)
{
    for (size_t i = 0; i < pixels; i++) {
        if (truth[i] == c->void_label) continue;
        int t = (c->modulo ? truth[i] % c->modulo : truth[i]) - c->first;
        int p = (c->modulo ? predicted[i] % c->modulo : predicted[i]) - c->first;
        if (t < 0 || t >= c->classes)
            return flis_fail(ctx, "%s: pixel %zu has label %d, wanted %d to %d%s", name, i, truth[i], c->first,
                             c->first + c->classes - 1, c->void_label < 0 ? "" : ", or the void label");
        if (p < 0 || p >= c->classes || predicted[i] == c->void_label) p = c->classes;
        c->count[(size_t)t * (size_t)(c->classes + 1) + (size_t)p]++;
        c->pixels++;
    }
    c->images++;
    return true;
}

static inline bool confusion_score(flis_ctx *ctx, const confusion *c, iou_score *out)
{
    double sum = 0, accuracy = 0;
    uint64_t right = 0;
    int n = c->classes, counted = n - (c->void_label >= c->first && c->void_label < c->first + n);
    memset(out, 0, sizeof *out);
    if (!c->pixels) return flis_fail(ctx, "the ground truth has no pixel with a class");
    for (int t = 0; t < n; t++)
        for (int p = 0; p <= n; p++) {
            uint64_t k = c->count[(size_t)t * (size_t)(n + 1) + (size_t)p];
            out->truth[t] += k;
            if (p < n) out->predicted[p] += k;
        }
    for (int t = 0; t < n; t++) {
        uint64_t both = c->count[(size_t)t * (size_t)(n + 1) + (size_t)t];
        out->iou[t] = -1;
        if (!out->truth[t]) continue;
        out->iou[t] = (double)both / (double)(out->truth[t] + out->predicted[t] - both);
        sum += out->iou[t];
        accuracy += (double)both / (double)out->truth[t];
        right += both;
        out->present++;
    }
    out->mean_present = sum / out->present;
    out->mean_all = sum / counted;
    out->mean_accuracy = accuracy / out->present;
    out->pixel_accuracy = (double)right / (double)c->pixels;
    return true;
}

/* ---- Fréchet distance -------------------------------------------------------------------------------------------- */

/* Eight sums side by side, so that compilers may use vectors and the result is the same on every machine. */
static double dot(const double *a, const double *b, size_t n)
{
    double s[8] = {0}, rest = 0;
    size_t i = 0;
    for (; i + 8 <= n; i += 8)
        for (int k = 0; k < 8; k++) s[k] += a[i + (size_t)k] * b[i + (size_t)k];
    for (; i < n; i++) rest += a[i] * b[i];
    return ((s[0] + s[4]) + (s[1] + s[5])) + ((s[2] + s[6]) + (s[3] + s[7])) + rest;
}

static void add_scaled(double *y, double k, const double *x, size_t n)
{
    for (size_t i = 0; i < n; i++) y[i] += k * x[i];
}

/* Householder: the reflection that takes (head, x) to (beta, 0) is 1 - tau v v', v = (v0, x). False: x is zero already, or both
   are so small that tau would overflow (with fewer samples than dimensions what is left of them is rounding of rounding). */
static bool reflector(double head, const double *x, size_t n, double *beta, double *v0, double *tau)
{
    double s = dot(x, x, n);
    if (s == 0 || head * head + s < 0x1p-960) return false;
    *beta = head > 0 ? -sqrt(head * head + s) : sqrt(head * head + s);
    *v0 = head - *beta;
    *tau = 2 / (*v0 * *v0 + s);
    return true;
}

/* R of [R; W]: adds m more rows to a QR decomposition. Columns lie together: r [d][d], entry (i, j) at r[j d + i], upper
   triangular; w [d][m], spoilt. */
static void qr_add(double *r, double *w, size_t d, size_t m)
{
    for (size_t k = 0; k < d; k++) {
        double beta, v0, tau, *v = w + k * m;
        if (!reflector(r[k * d + k], v, m, &beta, &v0, &tau)) continue;
        r[k * d + k] = beta;
#ifdef _OPENMP
#pragma omp parallel for if ((d - k) * m > 65536)
#endif
        for (size_t j = k + 1; j < d; j++) {
            double *x = w + j * m, t = tau * (v0 * r[j * d + k] + dot(v, x, m));
            r[j * d + k] -= t * v0;
            add_scaled(x, -t, v, m);
        }
    }
}

/* R of the centred samples x [n][d]; mean [d] gets their mean. NULL when out of memory. */
static double *centred_qr(flis_ctx *ctx, double *x, size_t n, size_t d, double *mean)
{
    enum { ROWS = 256 };
    double *r = flis_alloc(ctx, d * d, sizeof *r), *w = flis_alloc(ctx, d * ROWS, sizeof *w);
    memset(mean, 0, d * sizeof *mean);
    for (size_t i = 0; i < n; i++) add_scaled(mean, 1, x + i * d, d);
    for (size_t j = 0; j < d; j++) mean[j] /= (double)n;
    for (size_t i = 0; i < n && r && w; i += ROWS) {
        size_t m = n - i < ROWS ? n - i : ROWS;
        for (size_t k = 0; k < m; k++)
            for (size_t j = 0; j < d; j++) w[j * m + k] = x[(i + k) * d + j] - mean[j];
        qr_add(r, w, d, m);
    }
    free(w);
    if (!flis_ok(ctx)) {
        free(r);
        return NULL;
    }
    return r;
}

/* Golub and Kahan (1965): reflections from both sides leave a [n][m] (columns together, m >= n) with `diagonal` [n] and
   `above` [n - 1] alone. room: m values. */
static void bidiagonalise(double *a, size_t m, size_t n, double *diagonal, double *above, double *room)
{
    for (size_t k = 0; k < n; k++) {
        double beta, v0, tau, *v = a + k * m + k;
        diagonal[k] = v[0];
        if (reflector(v[0], v + 1, m - k - 1, &beta, &v0, &tau)) {
            diagonal[k] = beta, v[0] = v0;
#ifdef _OPENMP
#pragma omp parallel for if ((n - k) * (m - k) > 65536)
#endif
            for (size_t j = k + 1; j < n; j++) add_scaled(a + j * m + k, -tau * dot(v, a + j * m + k, m - k), v, m - k);
        }
        if (k + 1 == n) return;
        /* The row's tail, copied so that it is contiguous; then y = A v and A -= tau y v'. */
        size_t tail = n - k - 1, below = m - k - 1;
        for (size_t j = 0; j < tail; j++) room[j] = a[(k + 1 + j) * m + k];
        above[k] = room[0];
        if (!reflector(room[0], room + 1, tail - 1, &beta, &v0, &tau)) continue;
        above[k] = beta, room[0] = v0;
        double *y = a + k * m + k + 1; /* column k is done with */
        memset(y, 0, below * sizeof *y);
        for (size_t j = 0; j < tail; j++) add_scaled(y, room[j], a + (k + 1 + j) * m + k + 1, below);
        for (size_t j = 0; j < tail; j++) add_scaled(a + (k + 1 + j) * m + k + 1, -tau * room[j], y, below);
    }
}

/* One implicit QL step with Wilkinson's shift on the block l..m of the symmetric tridiagonal (d, e), e[i] beside d[i] and
   d[i + 1]. Bowdler, Martin, Reinsch, Wilkinson (1968), without vectors. */
static void ql_step(double *d, double *e, size_t l, size_t m)
{
    double g = (d[l + 1] - d[l]) / (2 * e[l]), r = sqrt(g * g + 1), s = 1, c = 1, p = 0;
    g = d[m] - d[l] + e[l] / (g + (g < 0 ? -r : r));
    for (size_t i = m; i-- > l;) {
        double f = s * e[i], b = c * e[i];
        r = sqrt(f * f + g * g);
        e[i + 1] = r;
        if (r == 0) {
            d[i + 1] -= p;
            e[m] = 0;
            return;
        }
        s = f / r, c = g / r;
        g = d[i + 1] - p;
        r = (d[i] - g) * s + 2 * c * b;
        p = s * r;
        d[i + 1] = g + p;
        g = c * r - b;
    }
    d[l] -= p;
    e[l] = g;
    e[m] = 0;
}

/* Eigenvalues of a symmetric tridiagonal matrix, into d [n]; e [n], the last is room. Each is right to rounding of the
   largest entry. */
static bool tridiagonal_eigenvalues(flis_ctx *ctx, double *d, double *e, size_t n)
{
    double largest = 0;
    e[n - 1] = 0;
    for (size_t i = 0; i < n; i++) {
        double x = fabs(d[i]), y = fabs(e[i]);
        largest = x > largest ? x : largest, largest = y > largest ? y : largest;
    }
    for (size_t l = 0; l < n; l++)
        for (int steps = 0;; steps++) {
            size_t m = l;
            while (m + 1 < n && fabs(e[m]) > 0x1p-53 * largest) m++;
            if (m == l) break;
            if (steps == 200) return flis_fail(ctx, "the eigenvalues did not converge");
            ql_step(d, e, l, m);
        }
    return true;
}

/* Sum of the singular values of a [n][m] (spoilt; columns together). Those of a bidiagonal matrix are the positive
   eigenvalues of the tridiagonal one with zeros on the diagonal and d0 e0 d1 e1 … beside it. */
static bool nuclear_norm(flis_ctx *ctx, double *a, size_t m, size_t n, double *out)
{
    double *room = flis_alloc(ctx, m + 6 * n, sizeof *room), *d = room + m, *e = d + n, *zero = e + n,
           *beside = zero + 2 * n;
    if (!room) return false;
    bidiagonalise(a, m, n, d, e, room);
    for (size_t i = 0; i < n; i++) beside[2 * i] = d[i], beside[2 * i + 1] = i + 1 < n ? e[i] : 0;
    bool good = tridiagonal_eigenvalues(ctx, zero, beside, 2 * n);
    *out = 0;
    for (size_t i = 0; i < 2 * n; i++) *out += fabs(zero[i]) / 2;
    free(room);
    return good;
}

/* M = R1 R2' with the larger side as its height: the singular values do not mind. rows of R beyond `n` samples are zero. */
static double *product(flis_ctx *ctx, const double *r1, size_t n1, const double *r2, size_t n2, size_t d, size_t *m,
                       size_t *n)
{
    size_t h1 = n1 < d ? n1 : d, h2 = n2 < d ? n2 : d;
    if (h1 < h2) return product(ctx, r2, n2, r1, n1, d, m, n);
    double *p = flis_alloc(ctx, h1 * h2, sizeof *p);
    *m = h1, *n = h2;
    if (!p) return NULL;
#ifdef _OPENMP
#pragma omp parallel for if (h1 * h2 > 4096)
#endif
    for (size_t j = 0; j < h2; j++)
        for (size_t k = j; k < d; k++) add_scaled(p + j * h1, r2[k * d + j], r1 + k * d, k + 1 < h1 ? k + 1 : h1);
    return p;
}

static double squares(const double *r, size_t count)
{
    double s = 0;
    for (size_t i = 0; i < count; i++) s += r[i] * r[i];
    return s;
}

static inline bool frechet_distance(flis_ctx *ctx, double *a, size_t na, double *b, size_t nb, size_t d, double *out)
{
    if (na < 2 || nb < 2) return flis_fail(ctx, "got %zu and %zu samples, wanted at least 2 of each", na, nb);
    double *mean = flis_alloc(ctx, d, 2 * sizeof *mean), *r1 = mean ? centred_qr(ctx, a, na, d, mean) : NULL;
    double *r2 = r1 ? centred_qr(ctx, b, nb, d, mean + d) : NULL;
    size_t m = 0, n = 0;
    double *p = r2 ? product(ctx, r1, na, r2, nb, d, &m, &n) : NULL, cross = 0, between = 0;
    bool good = p && nuclear_norm(ctx, p, m, n, &cross);
    if (good) {
        for (size_t i = 0; i < d; i++) between += (mean[i] - mean[d + i]) * (mean[i] - mean[d + i]);
        double f1 = (double)(na - 1), f2 = (double)(nb - 1);
        *out = between + squares(r1, d * d) / f1 + squares(r2, d * d) / f2 - 2 * cross / sqrt(f1 * f2);
        if (*out < 0) *out = 0; /* rounding */
    }
    free(mean);
    free(r1);
    free(r2);
    free(p);
    return good;
}

/* ---- Measures of attributes -------------------------------------------------------------------------------------- */

static bool inside(const region *r, size_t i)
{
    return r->id < 0 || r->label[i] == r->id;
}

static tint pixel_of(const region *r, size_t i)
{
    return (tint){(float)r->rgb[3 * i] / 255, (float)r->rgb[3 * i + 1] / 255, (float)r->rgb[3 * i + 2] / 255};
}

/* The name for one colour, 0: none. Boundaries lie between the hues of the world's palette; brown and teal have no name. */
static int name_colour(tint c)
{
    float high = c.r > c.g ? (c.r > c.b ? c.r : c.b) : c.g > c.b ? c.g : c.b;
    float low = c.r < c.g ? (c.r < c.b ? c.r : c.b) : c.g < c.b ? c.g : c.b, chroma = high - low;
    if (chroma < 0.12f) return high > 0.66f ? WHITE : high < 0.30f ? BLACK : 0;
    if (high < 0.20f) return BLACK;
    float hue = high == c.r ? (c.g - c.b) / chroma : high == c.g ? 2 + (c.b - c.r) / chroma : 4 + (c.r - c.g) / chroma;
    hue = 60 * (hue < 0 ? hue + 6 : hue);
    float share = chroma / high;
    if (hue >= 345 || hue < 13) return share < 0.5f && high > 0.8f ? PINK : share > 0.45f ? RED : 0;
    if (hue < 41) return share > 0.55f && high > 0.55f ? ORANGE : 0;
    if (hue < 68) return share > 0.45f && high > 0.45f ? YELLOW : 0;
    if (hue < 170) return GREEN;
    if (hue < 200) return 0;
    if (hue < 252) return share > 0.35f ? BLUE : 0;
    if (hue < 312) return PURPLE;
    return PINK;
}

static inline int measure_colour(const region *r, double *share)
{
    size_t count[WORLD_COLOURS + 1] = {0}, total = 0;
    for (size_t i = 0; i < r->width * r->height; i++) {
        if (!inside(r, i)) continue;
        tint c = pixel_of(r, i);
        if (r->night) c = (tint){c.r / MOONLIGHT.r, c.g / MOONLIGHT.g, c.b / MOONLIGHT.b};
        count[name_colour(c)]++;
        total++;
    }
    int best = WHITE, hue = RED;
    for (int c = RED; c <= WORLD_COLOURS; c++) {
        if (share) share[c] = total ? (double)count[c] / (double)total : 0;
        if (c < WHITE && count[c] > count[hue]) hue = c;
    }
    if (share) share[0] = total ? (double)count[0] / (double)total : 0;
    if (count[BLACK] > count[WHITE]) best = BLACK;
    if (4 * count[hue] >= total || count[hue] > count[best]) best = hue;
    return 5 * count[best] >= total && total ? best : 0;
}

/* The largest connected piece of a region: which pixels, and their values along the main axis of its colours, mean zero. */
typedef struct piece {
    uint8_t *in; /* [height][width] */
    double *value;
    size_t x0, y0, x1, y1;
    double count, total; /* pixels; sum of their values' squares */
} piece;

static void piece_free(piece *p)
{
    free(p->in);
    free(p->value);
}

/* Marks the piece that `start` lies in; returns its size. stack: room for as many pixels as there are. */
static size_t flood(const region *r, size_t start, uint32_t number, uint32_t *mark, uint32_t *stack)
{
    size_t top = 0, size = 0;
    stack[top++] = (uint32_t)start;
    mark[start] = number;
    while (top) {
        size_t i = stack[--top], x = i % r->width, y = i / r->width;
        const size_t next[4] = {x ? i - 1 : i, x + 1 < r->width ? i + 1 : i, y ? i - r->width : i,
                                y + 1 < r->height ? i + r->width : i};
        size++;
        for (int k = 0; k < 4; k++)
            if (!mark[next[k]] && inside(r, next[k])) mark[next[k]] = number, stack[top++] = (uint32_t)next[k];
    }
    return size;
}

/* The mask, and its bounds; false: out of memory, or the region has no pixel. */
static bool largest_piece(flis_ctx *ctx, const region *r, piece *p)
{
    size_t n = r->width * r->height, best_size = 0;
    uint32_t *mark = flis_alloc(ctx, n, sizeof *mark), *stack = flis_alloc(ctx, n, sizeof *stack), marks = 0, best = 0;
    for (size_t i = 0; mark && stack && i < n; i++) {
        if (mark[i] || !inside(r, i)) continue;
        size_t size = flood(r, i, ++marks, mark, stack);
        if (size > best_size) best = marks, best_size = size;
    }
    *p = (piece){
        .in = flis_alloc(ctx, n, 1), .value = flis_alloc(ctx, n, sizeof *p->value), .x0 = r->width, .y0 = r->height};
    p->count = (double)best_size;
    for (size_t i = 0; flis_ok(ctx) && i < n; i++) {
        size_t x = i % r->width, y = i / r->width;
        if (!best || mark[i] != best) continue;
        p->in[i] = 1;
        p->x0 = x < p->x0 ? x : p->x0, p->x1 = x + 1 > p->x1 ? x + 1 : p->x1;
        p->y0 = y < p->y0 ? y : p->y0, p->y1 = y + 1;
    }
    free(mark);
    free(stack);
    return flis_ok(ctx) && best;
}

/* Fills the piece's values: power iteration on the covariance of its colours gives the axis. */
static void main_axis(const region *r, piece *p)
{
    double mean[3] = {0}, s[6] = {0}, v[3] = {0.577, 0.578, 0.576};
    size_t n = r->width * r->height;
    for (size_t i = 0; i < n; i++)
        for (size_t k = 0; k < 3 && p->in[i]; k++) mean[k] += r->rgb[3 * i + k] / p->count;
    for (size_t i = 0; i < n; i++) {
        if (!p->in[i]) continue;
        double a = r->rgb[3 * i] - mean[0], b = r->rgb[3 * i + 1] - mean[1], c = r->rgb[3 * i + 2] - mean[2];
        s[0] += a * a, s[1] += a * b, s[2] += a * c, s[3] += b * b, s[4] += b * c, s[5] += c * c;
    }
    for (int k = 0; k < 40; k++) {
        double x = s[0] * v[0] + s[1] * v[1] + s[2] * v[2], y = s[1] * v[0] + s[3] * v[1] + s[4] * v[2];
        double z = s[2] * v[0] + s[4] * v[1] + s[5] * v[2], length = sqrt(x * x + y * y + z * z) + 1e-30;
        v[0] = x / length, v[1] = y / length, v[2] = z / length;
    }
    for (size_t i = 0; i < n; i++) {
        if (!p->in[i]) continue;
        for (size_t k = 0; k < 3; k++) p->value[i] += (r->rgb[3 * i + k] - mean[k]) * v[k];
        p->total += p->value[i] * p->value[i];
    }
}

/* Share of the variance at the spatial frequency (fx, fy), in turns a pixel. */
static double energy(const region *r, const piece *p, double fx, double fy)
{
    const double tau = 6.283185307179586;
    double re = 0, im = 0, c1 = flis_cos(tau * fx), s1 = flis_sin(tau * fx);
    for (size_t y = p->y0; y < p->y1; y++) {
        double turn = tau * ((double)p->x0 * fx + (double)y * fy), c = flis_cos(turn), s = flis_sin(turn);
        for (size_t x = p->x0; x < p->x1; x++) {
            double value = p->value[y * r->width + x], next = c * c1 - s * s1;
            re += value * c, im += value * s;
            s = s * c1 + c * s1;
            c = next;
        }
    }
    return p->total > 0 ? 2 * (re * re + im * im) / (p->count * p->total) : 0;
}

/* What patterns are told by: how much of the variance stripes and spots explain that run as the world's do (pattern_share in
   world.c), at their best period and at the usual one, and what other directions would. */
enum { STRIPES, SPOTS, MIRRORED, SPOTS_A, SPOTS_B, SPOTS_C, UPRIGHT, STRIPES_10, SPOTS_11, PATTERN_FEATURES };
static bool pattern_features(flis_ctx *ctx, const region *r, double *out)
{
    piece p;
    bool good = largest_piece(ctx, r, &p);
    for (int i = 0; i < PATTERN_FEATURES; i++) out[i] = 0;
    if (good) main_axis(r, &p);
    for (double period = 7; good && period < 14.6; period += 0.5) {
        const double f = 1 / period, a = energy(r, &p, f, 0.625 * f), b = energy(r, &p, f, -0.625 * f),
                     c = energy(r, &p, 0, 1.25 * f);
        const double now[UPRIGHT + 1] = {energy(r, &p, 0.9 * f, 0.45 * f),
                                         a + b + c,
                                         energy(r, &p, 0.9 * f, -0.45 * f),
                                         a,
                                         b,
                                         c,
                                         energy(r, &p, f, 0)};
        for (int i = 0; i <= UPRIGHT; i++) out[i] = now[i] > out[i] ? now[i] : out[i];
        if (period == 10) out[STRIPES_10] = now[STRIPES];
        if (period == 11) out[SPOTS_11] = now[SPOTS];
    }
    piece_free(&p);
    return good;
}

/* Gaussians, one for each kind. While learning, `factor` holds sums of products; then the Cholesky factors of the
   covariances, each drawn a fifth of the way to their common mean so that few samples do. */
enum { MOST_KINDS = 2 * (WORLD_STYLES + 1), MOST_FEATURES = 16 };
typedef struct judge {
    int names, kinds, features; /* kind k's name is k modulo names */
    double count[MOST_KINDS], mean[MOST_KINDS][MOST_FEATURES], log_det[MOST_KINDS];
    double factor[MOST_KINDS][MOST_FEATURES][MOST_FEATURES];
} judge;
struct judges {
    judge picture, part, rest;      /* styles; rest: the picture without one region */
    judge thing[WORLD_CLASSES + 1]; /* patterns */
    judge look[WORLD_CLASSES + 1];  /* what a thing looks like by day (name 0) and at night (1) */
};

static void judge_see(judge *j, int kind, const double *x)
{
    j->count[kind]++;
    for (int a = 0; a < j->features; a++) {
        j->mean[kind][a] += x[a];
        for (int b = 0; b <= a; b++) j->factor[kind][a][b] += x[a] * x[b];
    }
}

/* In place; false: not positive definite. The sum of the logarithms of the squared diagonal is the determinant's. */
static bool cholesky(double (*m)[MOST_FEATURES], int n, double *log_det)
{
    *log_det = 0;
    for (int i = 0; i < n; i++)
        for (int k = 0; k <= i; k++) {
            double s = m[i][k];
            for (int l = 0; l < k; l++) s -= m[i][l] * m[k][l];
            if (i == k && !(s > 0)) return false;
            m[i][k] = i == k ? sqrt(s) : s / m[k][k];
            if (i == k) *log_det += flis_log(s);
        }
    return true;
}

static bool judge_ready(judge *j)
{
    double common[MOST_FEATURES][MOST_FEATURES] = {{0}}, all = 0;
    for (int k = 0; k < j->kinds; k++) {
        if (j->count[k] < 2) return false;
        all += j->count[k];
        for (int a = 0; a < j->features; a++) j->mean[k][a] /= j->count[k];
        for (int a = 0; a < j->features; a++)
            for (int b = 0; b <= a; b++) {
                double s = j->factor[k][a][b] - j->count[k] * j->mean[k][a] * j->mean[k][b];
                common[a][b] += s;
                j->factor[k][a][b] = s / (j->count[k] - 1);
            }
    }
    bool good = true;
    for (int k = 0; k < j->kinds && good; k++) {
        for (int a = 0; a < j->features; a++)
            for (int b = 0; b <= a; b++)
                j->factor[k][a][b] =
                    0.8 * j->factor[k][a][b] + 0.2 * common[a][b] / (all - j->kinds) + (a == b ? 1e-6 : 0);
        good = cholesky(j->factor[k], j->features, &j->log_det[k]);
    }
    return good;
}

/* -2 log of the density at x, less a constant, of the likeliest kind of that name. */
static double judge_distance(const judge *j, int name, const double *x)
{
    double best = HUGE_VAL;
    for (int k = name; k < j->kinds; k += j->names) {
        double u[MOST_FEATURES], d = j->log_det[k];
        for (int a = 0; a < j->features; a++) {
            u[a] = x[a] - j->mean[k][a];
            for (int b = 0; b < a; b++) u[a] -= j->factor[k][a][b] * u[b];
            u[a] /= j->factor[k][a][a];
            d += u[a] * u[a];
        }
        best = d < best ? d : best;
    }
    return best;
}

static int judge_tell(const judge *j, const double *x)
{
    int name = 0;
    for (int k = 1; k < j->names; k++)
        if (judge_distance(j, k, x) < judge_distance(j, name, x)) name = k;
    return name;
}

/* What styles are told by, over the pairs of neighbours that lie within the region: statistics of colour (spread, darkness,
   how far the hues agree) and of steps between pixels (size, flatness, where in a grid of 4 they lie). */
enum {
    COLOURFUL,
    LUMA,
    LUMA2,
    DARK_SHARE,
    BRIGHT_SHARE,
    HUE_A,
    HUE_B,
    AGREED,
    STEP,
    FLAT,
    SHARP,
    PHASE,
    STYLE_FEATURES = PHASE + 4
};
static bool style_features(const region *r, double *out)
{
    double n = 0, pairs = 0, phase[4] = {0};
    memset(out, 0, STYLE_FEATURES * sizeof *out);
    for (size_t y = 0; y < r->height; y++)
        for (size_t x = 0; x < r->width; x++) {
            size_t i = y * r->width + x;
            if (!inside(r, i)) continue;
            tint c = pixel_of(r, i);
            double l = (double)luma(c), a = (double)(c.r - c.g), b = (double)((c.r + c.g) / 2 - c.b),
                   chroma = sqrt(a * a + b * b);
            n++;
            out[COLOURFUL] += chroma, out[LUMA] += l, out[LUMA2] += l * l, out[HUE_A] += a, out[HUE_B] += b;
            out[DARK_SHARE] += l<0.12, out[BRIGHT_SHARE] += chroma> 0.5;
            for (int way = 0; way < 2; way++) {
                size_t k = way ? i + r->width : i + 1, at_edge = way ? y : x;
                if (at_edge + 1 == (way ? r->height : r->width) || !inside(r, k)) continue;
                double step = fabs((double)luma(pixel_of(r, k)) - l);
                pairs++;
                out[STEP] += step, out[FLAT] += step<0.004, out[SHARP] += step> 0.18, phase[at_edge % 4] += step;
            }
        }
    if (n == 0 || pairs == 0) return false;
    out[AGREED] = sqrt(out[HUE_A] * out[HUE_A] + out[HUE_B] * out[HUE_B]) / (out[COLOURFUL] + 1e-9);
    for (int k = COLOURFUL; k <= HUE_B; k++) out[k] /= n;
    out[LUMA2] = sqrt(fabs(out[LUMA2] - out[LUMA] * out[LUMA]));
    for (int k = 0; k < 4; k++) out[PHASE + k] = phase[k] / (out[STEP] + 1e-9);
    for (int k = STEP; k <= SHARP; k++) out[k] /= pairs;
    return true;
}

static inline int measure_style(const judges *j, const region *r)
{
    double x[STYLE_FEATURES];
    return style_features(r, x) ? judge_tell(r->id < 0 ? &j->picture : &j->part, x) : 0;
}

static inline int measure_pattern(flis_ctx *ctx, const judges *j, const region *r, int class)
{
    double x[PATTERN_FEATURES];
    return j->thing[class].kinds && pattern_features(ctx, r, x) ? judge_tell(&j->thing[class], x) : 0;
}

/* Means of luma and two opponent colours, their deviations, and how much they change from the upper half to the lower. */
enum { CHANNELS = 3, LOOK_FEATURES = 3 * CHANNELS };
static bool look_features(const region *r, double *out)
{
    double n[2] = {0}, sum[2][CHANNELS] = {{0}}, squares[CHANNELS] = {0};
    size_t pixels = 0, seen = 0;
    for (size_t i = 0; i < r->width * r->height; i++) pixels += inside(r, i);
    for (size_t i = 0; i < r->width * r->height; i++) {
        if (!inside(r, i)) continue;
        const bool lower = 2 * seen++ >= pixels;
        const tint c = pixel_of(r, i);
        const double of[CHANNELS] = {(double)luma(c), (double)(c.r - c.g), (double)((c.r + c.g) / 2 - c.b)};
        n[lower]++;
        for (int k = 0; k < CHANNELS; k++) sum[lower][k] += of[k], squares[k] += of[k] * of[k];
    }
    if (n[0] == 0 || n[1] == 0) return false;
    for (int k = 0; k < CHANNELS; k++) {
        const double mean = (sum[0][k] + sum[1][k]) / (double)pixels;
        out[k] = mean;
        out[CHANNELS + k] = sqrt(fabs(squares[k] / (double)pixels - mean * mean));
        out[2 * CHANNELS + k] = sum[1][k] / n[1] - sum[0][k] / n[0];
    }
    return true;
}

#ifdef EVALUATE_NO_MAIN
static inline bool looks_rather(const judges *j, const region *r, int class, int other)
{
    double x[LOOK_FEATURES];
    return look_features(r, x) &&
           judge_distance(&j->look[class], r->night, x) < judge_distance(&j->look[other], r->night, x);
}
#endif

static region region_of(const world_scene *s, int id)
{
    return (region){s->rgb, s->label, WORLD_SIDE, WORLD_SIDE, id, s->night};
}

/* All but a region, with id 2 in the labels that room gets: as many as the region's. */
static region rest_of(const region *r, uint8_t *room)
{
    region rest = *r;
    for (size_t i = 0; i < r->width * r->height; i++) room[i] = inside(r, i) ? 1 : 2;
    rest.label = room;
    rest.id = 2;
    return rest;
}

/* Styles on the whole picture, or on one region and not on the rest. */
static void show_styled(judges *j, const world_scene *s, bool in_region, int id, int kind)
{
    double x[MOST_FEATURES] = {0};
    uint8_t room[WORLD_PIXELS];
    const region part = region_of(s, id), rest = rest_of(&part, room), whole = region_of(s, -1);
    const int name = kind % j->part.names;
    if (!in_region && style_features(&whole, x)) judge_see(&j->picture, kind, x);
    if (in_region && style_features(&part, x)) judge_see(&j->part, kind, x);
    if (style_features(&rest, x)) judge_see(&j->rest, in_region ? kind - name : kind, x);
}

/* Shows every judge scenes of the training half with all classes: styles on pictures and on regions, patterns on things; every
   second one also as the painter paints it. */
static bool show_styles(flis_ctx *ctx, judges *j, world_scene *s, develop *painter, void *user)
{
    world_rules rules = *world_set("text2image");
    rules.styles = 90;
    for (uint64_t seed = 0; seed < 2 * STYLED; seed++) {
        rules.style_in_region = seed >= STYLED;
        rules.attributes = rules.style_in_region ? 20 : 40;
        if (!world_draw(seed, &rules, s)) continue;
        const world_phrase *last = &s->phrase[s->phrases - 1];
        const int id = rules.style_in_region && last->style ? last->id : s->label[seed % WORLD_PIXELS];
        show_styled(j, s, rules.style_in_region, id, last->style);
        if (!painter || seed % 2) continue;
        if (!painter(ctx, user, s->rgb)) return false;
        show_styled(j, s, rules.style_in_region, id, j->part.names + last->style);
    }
    return true;
}

static bool show_patterns(flis_ctx *ctx, judges *j, world_scene *s, develop *painter, void *user)
{
    world_rules rules = *world_set("text2image");
    double x[MOST_FEATURES] = {0};
    rules.styles = 0;
    rules.attributes = 90;
    for (uint64_t seed = 0; seed < PATTERNED && flis_ok(ctx); seed++) {
        if (!world_draw(seed, &rules, s)) continue;
        for (int painted = 0; painted < (painter && seed % 2 == 0 ? 2 : 1); painted++) {
            if (painted && !painter(ctx, user, s->rgb)) return false;
            for (int i = 0; i < s->phrases; i++) {
                judge *one = &j->thing[s->phrase[i].class];
                region r = region_of(s, s->phrase[i].id);
                if (one->kinds && pattern_features(ctx, &r, x))
                    judge_see(one, painted * one->names + s->phrase[i].pattern, x);
            }
        }
    }
    return flis_ok(ctx);
}

/* Things without colour and pattern, half of them in another's outline. */
static bool show_looks(flis_ctx *ctx, judges *j, world_scene *s, develop *painter, void *user)
{
    world_rules rules = *world_set("shapes");
    double x[MOST_FEATURES] = {0};
    rules.styles = rules.attributes = rules.dyed = 0;
    rules.outlined = 50;
    for (uint64_t seed = 0; seed < LOOKED_AT; seed++) {
        if (!world_draw(seed, &rules, s)) continue;
        for (int painted = 0; painted < (painter && seed % 2 == 0 ? 2 : 1); painted++) {
            if (painted && !painter(ctx, user, s->rgb)) return false;
            for (int i = 0; i < s->phrases; i++) {
                judge *one = &j->look[s->phrase[i].class];
                const region r = region_of(s, s->phrase[i].id);
                if (one->kinds && look_features(&r, x)) judge_see(one, painted * one->names + s->night, x);
            }
        }
    }
    return true;
}

static inline judges *judges_learn(flis_ctx *ctx, develop *painter, void *user)
{
    judges *j = flis_alloc(ctx, 1, sizeof *j);
    world_scene *s = flis_alloc(ctx, 1, sizeof *s);
    const int times = painter ? 2 : 1;
    if (j && s) {
        const judge style = {
            .names = WORLD_STYLES + 1, .kinds = times * (WORLD_STYLES + 1), .features = STYLE_FEATURES};
        j->picture = j->part = j->rest = style;
        for (int c = 1; c <= WORLD_CLASSES; c++)
            if (CLASS[c].patterns)
                j->thing[c] = (judge){
                    .names = WORLD_PATTERNS + 1, .kinds = times * (WORLD_PATTERNS + 1), .features = PATTERN_FEATURES};
        for (int c = 1; c <= WORLD_CLASSES; c++)
            if (!CLASS[c].stuff) j->look[c] = (judge){.names = 2, .kinds = times * 2, .features = LOOK_FEATURES};
        bool good = show_styles(ctx, j, s, painter, user) && show_patterns(ctx, j, s, painter, user) &&
                    show_looks(ctx, j, s, painter, user) && judge_ready(&j->picture) && judge_ready(&j->part) &&
                    judge_ready(&j->rest);
        for (int c = 1; good && c <= WORLD_CLASSES; c++)
            good = (!j->thing[c].kinds || judge_ready(&j->thing[c])) && (!j->look[c].kinds || judge_ready(&j->look[c]));
        if (!good && flis_ok(ctx))
            flis_fail(ctx, "the world's scenes do not tell its styles, patterns and things apart");
    }
    free(s);
    if (flis_ok(ctx)) return j;
    free(j);
    return NULL;
}

/* ---- Segmenter --------------------------------------------------------------------------------------------------- */

static inline size_t segmenter_features(const flis_unet *segmenter)
{
    const flis_unet_config *config = flis_unet_get_config(segmenter);
    return config->channels * config->mult[config->levels - 1];
}

/* Means over the places of what the middle block gives. */
static inline void see_middle(void *user, const char *name, const flis_tensor *t)
{
    flis_real *out = user;
    if (!out || strcmp(name, "middle_block") != 0) return;
    for (size_t c = 0; c < t->c; c++) {
        double sum = 0;
        for (size_t i = 0; i < t->h * t->w; i++) sum += (double)t->x[i * t->c + c];
        out[c] = (flis_real)(sum / (double)(t->h * t->w));
    }
}

static inline bool segmenter_run(flis_ctx *ctx, const flis_unet *segmenter, const uint8_t *rgb, size_t width,
                                 size_t height, uint8_t *label, flis_real *features)
{
    const double t = 0;
    const size_t h = height / 2, w = width / 2;
    if (width % 32 || height % 32)
        return flis_fail(ctx, "the segmenter wants pictures whose sides are multiples of 32, got %zu x %zu", width,
                         height);
    flis_mark mark = flis_here(ctx);
    flis_tensor *x = flis_image(ctx, 1, h, w, 3),
                *text = flis_rows(ctx, 1, FLIS_TOKENS, flis_unet_get_config(segmenter)->context);
    if (x) half_picture(rgb, width, height, x->x);
    if (text) memset(text->x, 0, flis_count(text) * sizeof *text->x);
    ctx->trace = features ? see_middle : NULL;
    ctx->trace_user = features;
    const flis_tensor *y = flis_unet_eps(ctx, segmenter, x, &t, text, NULL);
    ctx->trace = NULL;
    for (size_t i = 0; y && label && i < height * width; i++) {
        const flis_real *score = y->x + (i / width / 2 * w + i % width / 2) * y->c;
        size_t best = 0;
        for (size_t c = 1; c < y->c; c++)
            if (score[c] > score[best]) best = c;
        label[i] = (uint8_t)best;
    }
    flis_rewind(ctx, mark);
    return flis_ok(ctx);
}

#ifndef EVALUATE_NO_MAIN

/* ---- The program ------------------------------------------------------------------------------------------------- */

static const char HELP[] =
    "usage: evaluate miou --truth FILES --predicted FILES [--first F] [--classes N] [--void L] [--modulo M] [--names "
    "FILE] [--json]\n"
    "       evaluate frechet A.safetensors B.safetensors [--tensor NAME] [--json]\n"
    "       evaluate segment SEGMENTER.safetensors --pictures FILES [-o DIR] [--features FILE.safetensors]\n"
    "       evaluate attributes --layouts FILES --pictures FILES [--json]\n"
    "miou: label maps (PNG gray or palette, PGM) against the ground truth; FILES is a folder, or a text file with one "
    "path a\n"
    "  line. Folders are paired by the files' names without ending, lists line by line. Every truth needs a partner of "
    "its size.\n"
    "  --first F      the first class; default 0 (ADE20K and tools/world: 1)\n"
    "  --classes N    how many there are; default: up to the largest label of the ground truth\n"
    "  --void L       the ground truth's label that counts nowhere; default 255\n"
    "  --modulo M     take labels modulo M (100 for the small world's second phrases)\n"
    "  --names FILE   names for the classes: lines of number, tab, name, as `world --classes` writes them\n"
    "  Means of IoU over the classes present in the ground truth, and over all.\n"
    "frechet: distance of two sets of features, [samples, dimensions]; --tensor: which tensor, where a file has "
    "several.\n"
    "segment: the small world's own segmenter (train segmenter) labels pictures: DIR/NAME.png; DIR must be there. "
    "--features: [samples,\n"
    "  dimensions] for frechet; the distance is the small world's own, not Inception's FID.\n"
    "attributes: the small world's colours, patterns and styles where the layouts (JSON) want them, in pictures (8-bit "
    "RGB PNG)\n"
    "  of the same names; how many are right, and of things without a pattern how many are seen without.\n"
    "--json: the same numbers for programs. --help, --version\n"
    "exit status: 0 done, 1 failed (one sentence on stderr), 2 wrong usage\n";

typedef struct program {
    flis_ctx ctx;
    const char *truth, *predicted, *layouts, *pictures, *tensor, *names_path, *out, *features, *file[2];
    int files;
    int first, classes, void_label, modulo;
    bool json;
} program;

/* Calls `see` for every pair of label maps. */
typedef bool see_pair(program *p, void *user, const char *name, const flis_picture *truth,
                      const flis_picture *predicted);

static bool one_pair(program *p, const char *truth_path, const char *predicted_path, see_pair *see, void *user)
{
    flis_picture truth = {0, 0, 0, NULL}, predicted = {0, 0, 0, NULL};
    bool good = flis_read_label(&p->ctx, truth_path, &truth) &&
                (!predicted_path || flis_read_label(&p->ctx, predicted_path, &predicted));
    if (good && predicted_path && (truth.width != predicted.width || truth.height != predicted.height))
        good = flis_fail(&p->ctx, "%s: got %zu x %zu pixels, wanted %zu x %zu, as %s has", predicted_path,
                         predicted.width, predicted.height, truth.width, truth.height, truth_path);
    good = good && see(p, user, truth_path, &truth, &predicted);
    free(truth.pixels);
    free(predicted.pixels);
    return good;
}

static bool see_largest(program *p, void *user, const char *name, const flis_picture *truth,
                        const flis_picture *predicted)
{
    int *largest = user;
    (void)name, (void)predicted;
    for (size_t i = 0; i < truth->width * truth->height; i++) {
        int label = p->modulo && truth->pixels[i] != p->void_label ? truth->pixels[i] % p->modulo : truth->pixels[i];
        if (truth->pixels[i] != p->void_label && label > *largest) *largest = label;
    }
    return true;
}

static bool see_confusion(program *p, void *user, const char *name, const flis_picture *truth,
                          const flis_picture *predicted)
{
    return confusion_add(&p->ctx, user, name, truth->pixels, predicted->pixels, truth->width * truth->height);
}

/* Name of a class in the --names file; "" where there is none. */
static void class_name(const char *text, int class, char *out, size_t room)
{
    char head[16];
    size_t n = (size_t)snprintf(head, sizeof head, "%d\t", class);
    *out = 0;
    for (const char *line = text; line && *line; line = strchr(line, '\n') ? strchr(line, '\n') + 1 : NULL)
        if (strncmp(line, head, n) == 0) {
            size_t length = strcspn(line + n, "\t\r\n");
            snprintf(out, room, "%.*s", (int)(length < room ? length : room - 1), line + n);
            return;
        }
}

static void print_iou(const program *p, const confusion *c, const iou_score *s, const char *text)
{
    char name[64];
    if (p->json)
        printf("{\"images\": %llu, \"pixels\": %llu, \"first\": %d, \"classes\": %d, \"present\": %d, "
               "\"miou_present\": %.9g, "
               "\"miou_all\": %.9g, \"pixel_accuracy\": %.9g, \"mean_accuracy\": %.9g, \"iou\": {",
               (unsigned long long)c->images, (unsigned long long)c->pixels, c->first, c->classes, s->present,
               s->mean_present, s->mean_all, s->pixel_accuracy, s->mean_accuracy);
    bool begun = false;
    for (int i = 0; i < c->classes; i++) {
        if (s->iou[i] < 0) continue;
        class_name(text, i + c->first, name, sizeof name);
        if (p->json) printf("%s\"%d\": %.9g", begun ? ", " : "", i + c->first, s->iou[i]);
        else
            printf("%3d  %.4f  %10llu  %10llu  %s\n", i + c->first, s->iou[i], (unsigned long long)s->truth[i],
                   (unsigned long long)s->predicted[i], name);
        begun = true;
    }
    if (p->json) printf("}}\n");
    else
        printf("mIoU %.4f over the %d classes present, %.4f over all %d; pixel accuracy %.4f, mean accuracy %.4f; %llu "
               "images\n",
               s->mean_present, s->present, s->mean_all, c->classes, s->pixel_accuracy, s->mean_accuracy,
               (unsigned long long)c->images);
}

static bool run_miou(program *p)
{
    names truth = {0, 0, NULL}, predicted = {0, 0, NULL};
    bool folder[2] = {false, false};
    confusion c = {.count = NULL};
    iou_score *score = flis_alloc(&p->ctx, 1, sizeof *score);
    size_t length;
    char *text = p->names_path ? flis_read_file(&p->ctx, p->names_path, 1u << 20, &length) : NULL;
    bool good = flis_ok(&p->ctx) && list_files(&p->ctx, p->truth, ".png", ".pgm", &truth, &folder[0]) &&
                list_files(&p->ctx, p->predicted, ".png", ".pgm", &predicted, &folder[1]);
    int largest = p->first;
    for (size_t i = 0; good && !p->classes && i < truth.count; i++)
        good = one_pair(p, truth.name[i], NULL, see_largest, &largest);
    good = good && confusion_make(&p->ctx, &c, p->first, p->classes ? p->classes : largest - p->first + 1,
                                  p->void_label, p->modulo);
    for (size_t i = 0; good && i < truth.count; i++) {
        const char *other = partner(&p->ctx, &truth, i, &predicted, folder[0] || folder[1], p->predicted);
        good = other && one_pair(p, truth.name[i], other, see_confusion, &c);
    }
    good = good && confusion_score(&p->ctx, &c, score);
    if (good) print_iou(p, &c, score, text);
    names_free(&truth);
    names_free(&predicted);
    free(c.count);
    free(score);
    free(text);
    return good;
}

/* The features of a file: the tensor that --tensor names, or the only one. */
static double *read_features(program *p, const char *path, size_t *n, size_t *d)
{
    flis_file *file = flis_file_open(&p->ctx, path);
    if (!file) return NULL;
    const flis_entry *e = p->tensor ? flis_file_find(file, p->tensor) : file->count == 1 ? &file->entry[0] : NULL;
    double *x = NULL;
    if (!e) {
        if (p->tensor) flis_fail(&p->ctx, "%s: tensor \"%s\" is missing", path, p->tensor);
        else flis_fail(&p->ctx, "%s: got %zu tensors; say which with --tensor", path, file->count);
    } else if (e->rank != 2 || !e->shape[0] || !e->shape[1])
        flis_fail(&p->ctx, "%s: tensor \"%s\": got %d dimensions, wanted [samples, dimensions]", path, e->name,
                  e->rank);
    else {
        *n = (size_t)e->shape[0], *d = (size_t)e->shape[1];
        x = flis_alloc(&p->ctx, *n * *d, sizeof *x);
        if (x) flis_file_read_f64(&p->ctx, file, e, x);
        for (size_t i = 0; x && flis_ok(&p->ctx) && i < *n * *d; i++)
            if (!(fabs(x[i]) <= 1e100))
                flis_fail(&p->ctx, "%s: sample %zu, dimension %zu is not finite (or beyond 1e100)", path, i / *d,
                          i % *d);
    }
    flis_file_close(file);
    if (flis_ok(&p->ctx)) return x;
    free(x);
    return NULL;
}

static bool run_frechet(program *p)
{
    size_t na = 0, nb = 0, d = 0, e = 0;
    double *a = read_features(p, p->file[0], &na, &d), *b = a ? read_features(p, p->file[1], &nb, &e) : NULL,
           distance_ab = 0;
    bool good = b != NULL;
    if (good && d != e)
        good = flis_fail(&p->ctx, "%s: got %zu dimensions, wanted %zu, as %s has", p->file[1], e, d, p->file[0]);
    good = good && frechet_distance(&p->ctx, a, na, b, nb, d, &distance_ab);
    if (good && p->json)
        printf("{\"frechet\": %.12g, \"samples\": [%zu, %zu], \"dimensions\": %zu}\n", distance_ab, na, nb, d);
    else if (good) printf("%.9g\n", distance_ab);
    free(a);
    free(b);
    return good;
}

/* What a phrase says; class 0 for a style, and where the class is none of the world's. */
static world_phrase parse_phrase(const flis_phrase *text)
{
    world_phrase f = {.id = text->id};
    const char *rest = text->text;
    for (int k = 1; k <= WORLD_STYLES; k++)
        if (strcmp(rest, world_style_name(k)) == 0) f.style = (uint8_t)k;
    for (bool more = true; more;) {
        more = false;
        for (int k = 1; k <= WORLD_COLOURS + WORLD_PATTERNS; k++) {
            const char *word = k <= WORLD_COLOURS ? world_colour_name(k) : world_pattern_name(k - WORLD_COLOURS);
            size_t n = strlen(word);
            if (strncmp(rest, word, n) != 0 || rest[n] != ' ') continue;
            if (k <= WORLD_COLOURS) f.colour = (uint8_t)k;
            else f.pattern = (uint8_t)(k - WORLD_COLOURS);
            rest += n + 1;
            more = true;
        }
    }
    for (int c = 1; c <= WORLD_CLASSES; c++)
        if (strcmp(rest, world_class_name(c)) == 0) f.class = (uint8_t)c;
    return f;
}

enum { COLOURS_MEASURED, PATTERNS_MEASURED, PLAIN_MEASURED, STYLES_MEASURED, MEASURES };
typedef struct tally {
    long right, all;
} tally;

/* Counts one layout's phrases in its picture; phrases without a pixel are left out. */
static bool judge_picture(program *p, const judges *j, const flis_layout *layout, const flis_picture *picture, tally *t)
{
    region r = {picture->pixels, NULL, picture->width, picture->height, -1, false};
    uint8_t *label = flis_alloc(&p->ctx, r.width, r.height);
    if (!label) return false;
    if (layout->label.width)
        flis_label_pil(layout->label.pixels, layout->label.height, layout->label.width, label, r.height, r.width);
    r.label = label;
    for (size_t i = 0; i < layout->count; i++) r.night = r.night || strcmp(layout->phrase[i].text, "night sky") == 0;
    for (size_t i = 0; i < layout->count; i++) {
        world_phrase f = parse_phrase(&layout->phrase[i]);
        r.id = f.id;
        if (f.id >= 0 && !memchr(label, f.id, r.width * r.height)) continue;
        if (f.colour) t[COLOURS_MEASURED].all++, t[COLOURS_MEASURED].right += measure_colour(&r, NULL) == f.colour;
        if (f.style) t[STYLES_MEASURED].all++, t[STYLES_MEASURED].right += measure_style(j, &r) == f.style;
        if (!f.class || !CLASS[f.class].patterns) continue;
        tally *which = &t[f.pattern ? PATTERNS_MEASURED : PLAIN_MEASURED];
        which->all++, which->right += measure_pattern(&p->ctx, j, &r, f.class) == f.pattern;
    }
    free(label);
    return flis_ok(&p->ctx);
}

static void print_attributes(const program *p, const tally *t, size_t images)
{
    static const char *const name[MEASURES] = {"colour", "pattern", "no pattern", "style"};
    if (p->json) printf("{\"images\": %zu", images);
    for (int i = 0; i < MEASURES; i++) {
        if (p->json) printf(", \"%s\": {\"right\": %ld, \"all\": %ld}", name[i], t[i].right, t[i].all);
        else if (t[i].all)
            printf("%-10s  %ld of %ld right (%.3f)\n", name[i], t[i].right, t[i].all,
                   (double)t[i].right / (double)t[i].all);
    }
    if (p->json) printf("}\n");
}

static bool run_attributes(program *p)
{
    names layouts = {0, 0, NULL}, pictures = {0, 0, NULL};
    bool folder[2] = {false, false};
    tally t[MEASURES] = {{0, 0}};
    bool good = list_files(&p->ctx, p->layouts, ".json", ".json", &layouts, &folder[0]) &&
                list_files(&p->ctx, p->pictures, ".png", ".png", &pictures, &folder[1]);
    judges *j = good ? judges_learn(&p->ctx, NULL, NULL) : NULL;
    good = j != NULL;
    for (size_t i = 0; good && i < layouts.count; i++) {
        const char *other = partner(&p->ctx, &layouts, i, &pictures, folder[0] || folder[1], p->pictures);
        flis_layout layout = {0};
        flis_picture picture = {0};
        good = other && flis_layout_read(&p->ctx, layouts.name[i], &layout) && read_picture(&p->ctx, other, &picture) &&
               judge_picture(p, j, &layout, &picture, t);
        flis_layout_free(&layout);
        free(picture.pixels);
    }
    if (good) print_attributes(p, t, layouts.count);
    names_free(&layouts);
    names_free(&pictures);
    free(j);
    return good;
}

static bool write_features(flis_ctx *ctx, const char *path, const flis_real *features, size_t count, size_t d)
{
    const uint64_t sizes[2] = {count, d};
    flis_writer *writer = flis_write_begin(ctx, path);
    if (!writer) return false;
    flis_write_declare(ctx, writer, "features", sizeof(flis_real) == 8 ? FLIS_F64 : FLIS_F32, 2, sizes);
    flis_write_real(ctx, writer, features, count * d);
    return flis_write_end(ctx, writer);
}

static bool segment_one(program *p, const flis_unet *segmenter, const char *path, flis_real *features)
{
    flis_picture picture, map = {0, 0, 1, NULL};
    char name[4096];
    const char *start;
    size_t length;
    if (!read_picture(&p->ctx, path, &picture)) return false;
    map = (flis_picture){picture.width, picture.height, 1, flis_alloc(&p->ctx, picture.width, picture.height)};
    bool good = map.pixels && (segmenter_run(&p->ctx, segmenter, picture.pixels, picture.width, picture.height,
                                             map.pixels, features) ||
                               flis_fail_in(&p->ctx, path));
    stem(path, &start, &length);
    if (good && p->out) {
        good = strlen(p->out) + length < 4000 || flis_fail(&p->ctx, "%.100s…: the name is too long", path);
        snprintf(name, sizeof name, "%s/%.*s.png", p->out, (int)(length < 2000 ? length : 2000), start);
        good = good && flis_write_png(&p->ctx, name, &map, NULL);
    }
    free(map.pixels);
    free(picture.pixels);
    return good;
}

static bool run_segment(program *p)
{
    names files = {0, 0, NULL};
    bool listed;
    flis_file *file = flis_file_open(&p->ctx, p->file[0]);
    flis_unet *segmenter = file ? flis_unet_load(&p->ctx, file) : NULL;
    flis_file_close(file);
    if (!segmenter || !list_files(&p->ctx, p->pictures, ".png", ".ppm", &files, &listed)) {
        flis_unet_free(segmenter);
        names_free(&files);
        return false;
    }
    const size_t d = segmenter_features(segmenter);
    if (flis_unet_get_config(segmenter)->in != 3)
        flis_fail(&p->ctx, "%s: it is no segmenter: its pictures have %zu channels, wanted 3", p->file[0],
                  flis_unet_get_config(segmenter)->in);
    flis_real *features = flis_alloc(&p->ctx, files.count, d * sizeof *features);
    for (size_t i = 0; features && i < files.count && flis_ok(&p->ctx); i++)
        segment_one(p, segmenter, files.name[i], features + i * d);
    if (flis_ok(&p->ctx) && p->features) write_features(&p->ctx, p->features, features, files.count, d);
    free(features);
    names_free(&files);
    flis_unet_free(segmenter);
    return flis_ok(&p->ctx);
}

static int misused(const char *what, const char *why)
{
    fprintf(stderr, "evaluate: %s%s (see evaluate --help)\n", what, why);
    return 2;
}

/* A whole number from low to high. */
static bool whole(const char *text, int low, int high, int *out)
{
    long value = 0;
    if (!*text || strlen(text) > 6) return false;
    for (const char *c = text; *c; c++) {
        if (*c < '0' || *c > '9') return false;
        value = value * 10 + (*c - '0');
    }
    *out = (int)value;
    return value >= low && value <= high;
}

static int parse(program *p, int argc, char **argv)
{
    for (int i = 2; i < argc; i++) {
        const char *name = argv[i], *value = i + 1 < argc ? argv[i + 1] : NULL;
        if (strcmp(name, "--json") == 0) {
            p->json = true;
            continue;
        }
        if (*name != '-') {
            if (p->files == 2) return misused(name, ": one file too many");
            p->file[p->files++] = name;
            continue;
        }
        bool known = true, good = true;
        if (strcmp(name, "--truth") == 0) good = (p->truth = value) != NULL;
        else if (strcmp(name, "--predicted") == 0) good = (p->predicted = value) != NULL;
        else if (strcmp(name, "--layouts") == 0) good = (p->layouts = value) != NULL;
        else if (strcmp(name, "--pictures") == 0) good = (p->pictures = value) != NULL;
        else if (strcmp(name, "--names") == 0) good = (p->names_path = value) != NULL;
        else if (strcmp(name, "-o") == 0) good = (p->out = value) != NULL;
        else if (strcmp(name, "--features") == 0) good = (p->features = value) != NULL;
        else if (strcmp(name, "--tensor") == 0) good = (p->tensor = value) != NULL;
        else if (strcmp(name, "--first") == 0) good = value && whole(value, 0, 255, &p->first);
        else if (strcmp(name, "--classes") == 0) good = value && whole(value, 1, 256, &p->classes);
        else if (strcmp(name, "--void") == 0) good = value && whole(value, 0, 255, &p->void_label);
        else if (strcmp(name, "--modulo") == 0) good = value && whole(value, 1, 255, &p->modulo);
        else known = false;
        if (!known) return misused(name, ": not an option");
        if (!good) return misused(name, value ? ": its value is none of those allowed" : " wants a value");
        i++;
    }
    return 0;
}

int main(int argc, char **argv)
{
    program p = {.void_label = 255};
    if (argc > 1 && strcmp(argv[1], "--help") == 0) return fputs(HELP, stdout) < 0;
    if (argc > 1 && strcmp(argv[1], "--version") == 0) return puts("evaluate " FLIS_VERSION) < 0;
    bool miou = argc > 1 && strcmp(argv[1], "miou") == 0, frechet = argc > 1 && strcmp(argv[1], "frechet") == 0;
    bool attributes = argc > 1 && strcmp(argv[1], "attributes") == 0;
    bool segment = argc > 1 && strcmp(argv[1], "segment") == 0;
    if (!miou && !frechet && !attributes && !segment) return misused("wanted miou, frechet, segment or attributes", "");
    int wrong = parse(&p, argc, argv);
    if (wrong) return wrong;
    if (miou && (!p.truth || !p.predicted || p.files))
        return misused("miou wants --truth FILES and --predicted FILES", "");
    if (miou && p.first + (p.classes ? p.classes : 1) > 256)
        return misused("--first and --classes", " go beyond label 255");
    if (frechet && p.files != 2) return misused("frechet wants two files", "");
    if (segment && (p.files != 1 || !p.pictures || (!p.out && !p.features)))
        return misused("segment wants SEGMENTER.safetensors, --pictures FILES, and -o DIR or --features FILE", "");
    if (attributes && (!p.layouts || !p.pictures || p.files))
        return misused("attributes wants --layouts FILES and --pictures FILES", "");
    bool done = flis_init(&p.ctx) && (miou      ? run_miou(&p)
                                      : frechet ? run_frechet(&p)
                                      : segment ? run_segment(&p)
                                                : run_attributes(&p));
    if (done && fflush(stdout) != 0) done = flis_fail(&p.ctx, "stdout: cannot be written");
    if (!done) fprintf(stderr, "evaluate: %s\n", p.ctx.error);
    flis_free(&p.ctx);
    return done ? 0 : 1;
}
#endif
