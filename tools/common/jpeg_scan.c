/* jpeg_scan.c - the entropy-coded data of a scan: Huffman-coded coefficients, sequential and progressive (ITU-T T.81, annexes
 * F.2 and G.2). Damaged data is decoded as libjpeg-turbo does it, so that the pixels are those of PIL. Arithmetic coding is
 * refused before.
 */
#include "tools/common/jpeg.h"

#include <string.h>

/* A block of a scan's MCU: its component, which number the component has in the scan, and the block's place: in MCU (i, j) it is
   block (i * step_x + x, j * step_y + y) of the component. */
typedef struct unit {
    jpeg_component *component;
    int scan_index;
    size_t x, y, step_x, step_y;
} unit;

typedef struct mcu {
    int blocks;
    unit unit[JPEG_MCU_BLOCKS];
    size_t columns, rows; /* MCUs in the scan */
    size_t frame_rows;    /* rows of this scan's MCUs in a row of the frame's MCUs */
} mcu;

/* x modulo 2^16, as a signed number. */
static int16_t wrap(uint32_t x)
{
    return (int16_t)((int32_t)((x & 0xFFFF) ^ 0x8000) - 0x8000);
}

/* ---- Bits ---------------------------------------------------------------------------------------------------------- */

/* Loads bytes until more than 56 bits are there, or a marker comes: 0xFF 0x00 stands for 0xFF, and 0xFF with another byte is a
   marker, which stays in r->marker. Beyond a marker, zeros are supplied. libjpeg loads as far in advance; this decides whether
   a file that ends without a marker is complete. SPEC 16.6. */
static void fill(jpeg_reader *r, int needed)
{
    enum { FULL = 57 };
    while (!r->marker && !r->over && r->left < FULL) {
        int c = 0xFF;
        if (r->at < r->end && *r->at != 0xFF) c = *r->at++;
        else {
            while (r->at < r->end && *r->at == 0xFF) r->at++;
            if (r->at == r->end) r->over = true;
            else if (*r->at) r->marker = *r->at;
            r->at += r->at < r->end;
            if (r->marker || r->over) break;
        }
        r->bits = r->bits << 8 | (uint64_t)c;
        r->left += 8;
    }
    if (needed > r->left) {
        if (r->marker) r->starved = true;
        r->bits <<= FULL - r->left;
        r->left = FULL;
    }
}

/* The loading of libjpeg-turbo's fast routine: six bytes at once. 0xFF with anything but 0x00 counts as a marker and
   gives zeros. SPEC 16.6. */
static void fill_fast(jpeg_reader *r)
{
    for (int i = 0, few = r->left <= 16; few && i < 6; i++) {
        uint64_t c = 0;
        if (r->end - r->at < 2 || (*r->at == 0xFF && r->at[1])) r->marker = 0xFF;
        else {
            c = *r->at;
            r->at += c == 0xFF ? 2 : 1;
        }
        r->bits = r->bits << 8 | c;
        r->left += 8;
    }
}

/* The next n bits, n <= 16. */
static int receive(jpeg_reader *r, int n)
{
    if (r->left < n) fill(r, n);
    r->left -= n;
    return (int)(r->bits >> r->left & ((1u << n) - 1));
}

/* The value of n bits: the upper half of their range is positive (T.81 figure F.12, EXTEND). SPEC 16.2. */
static int receive_signed(jpeg_reader *r, int n)
{
    if (n && r->hasty) fill_fast(r);
    const int x = n ? receive(r, n) : 0;
    return n && x < 1 << (n - 1) ? x - (1 << n) + 1 : x;
}

/* The symbol of the next code (T.81 figure F.16); 0 if no code fits. SPEC 16.2. */
static int decode(jpeg_reader *r, const jpeg_decoder *d)
{
    int length = 1;
    if (r->hasty) fill_fast(r);
    else if (r->left < 8) fill(r, 0);
    if (r->left >= 8) {
        const int look = d->look[r->bits >> (r->left - 8) & 255];
        if (look) {
            r->left -= look >> 8;
            return look & 255;
        }
        length = 9;
    }
    int32_t code = receive(r, length);
    for (; code > d->last[length]; length++) code = code * 2 + receive(r, 1);
    return length > 16 ? 0 : d->symbols[code + d->offset[length]];
}

/* Makes the decoding tables of a Huffman table (T.81 C.2 and F.2.2.3). No code may consist of ones only. SPEC 16.6. */
static bool derive(jpeg_reader *r, const jpeg_huffman *h, bool dc, jpeg_decoder *d)
{
    int32_t code = 0;
    int symbol = 0, length = 1;
    if (!h->defined) return jpeg_damaged(r, "a scan needs a Huffman table that the file does not define");
    memset(d, 0, sizeof *d);
    d->symbols = h->symbols;
    for (; length <= 16; length++, code *= 2) {
        d->offset[length] = symbol - code;
        for (int i = 0; i < h->counts[length]; i++, code++, symbol++) {
            if (dc && h->symbols[symbol] > 15)
                return jpeg_damaged(r, "a DC table contains the symbol %d", h->symbols[symbol]);
            for (int32_t k = 0; length <= 8 && k < 1 << (8 - length); k++)
                d->look[((code << (8 - length)) + k) & 255] = (uint16_t)(length << 8 | h->symbols[symbol]);
        }
        d->last[length] = h->counts[length] ? code - 1 : -1;
        if (symbol && h->counts[length] && code >= 1 << length)
            return jpeg_damaged(r, "a Huffman table has more codes of length %d than fit", length);
    }
    d->last[17] = 0xFFFFF;
    return true;
}

/* ---- Restart markers ------------------------------------------------------------------------------------------------ */

/* A marker other than the expected restart marker: libjpeg's three ways to go on (jpeg_resync_to_restart). An old restart
   marker or an invalid one is skipped up to the next marker; one of the next two, or any other valid marker, is kept, and the
   blocks before that marker stay empty; a restart marker further off is dropped. SPEC 16.6. */
static bool resynchronise(jpeg_reader *r)
{
    for (;;) {
        const int ahead = (r->marker - JPEG_RST0 - r->next_restart) & 7;
        const bool is_restart = r->marker >= JPEG_RST0 && r->marker <= JPEG_RST7;
        if (r->marker < JPEG_SOF0 || (is_restart && ahead >= 6)) {
            r->marker = 0;
            if (!jpeg_next_marker(r)) return false;
        } else {
            if (is_restart && ahead != 1 && ahead != 2) r->marker = 0;
            return true;
        }
    }
}

/* SPEC 16.6 */
static bool restart(jpeg_reader *r)
{
    r->left = 0;
    if (!r->marker && !jpeg_next_marker(r)) return false;
    if (r->marker == JPEG_RST0 + r->next_restart) r->marker = 0;
    else if (!resynchronise(r)) return false;
    r->next_restart = (r->next_restart + 1) & 7;
    memset(r->previous_dc, 0, sizeof r->previous_dc);
    r->end_of_band_run = 0;
    r->restarts_to_go = r->restart_interval;
    if (!r->marker) r->starved = false;
    return true;
}

/* ---- Blocks ----------------------------------------------------------------------------------------------------------- */

/* DC = the previous block's DC + a difference, in all but refinement scans. SPEC 16.2. */
static int decode_dc(jpeg_reader *r, const unit *u)
{
    const int difference = receive_signed(r, decode(r, &r->dc_decoder[u->component->dc_index]));
    int *previous = &r->previous_dc[u->scan_index];
    return *previous = wrap((uint32_t)*previous + (uint32_t)difference);
}

/* T.81 F.2.2. A run beyond the block writes to the last coefficient. SPEC 16.2. */
static void sequential_block(jpeg_reader *r, const unit *u, int16_t *block)
{
    block[0] = (int16_t)decode_dc(r, u);
    for (int k = 1; k < 64; k++) {
        const int symbol = decode(r, &r->ac_decoder[u->component->ac_index]), size = symbol & 15;
        if (!size && symbol != 0xF0) break;
        k += symbol >> 4;
        if (size) block[JPEG_ZIGZAG[k]] = (int16_t)receive_signed(r, size);
    }
}

/* T.81 G.1.2.2: the first scan of a band: values shifted left by Al, runs of blocks without further values. SPEC 16.2.
   */
static void first_ac(jpeg_reader *r, const unit *u, int16_t *block)
{
    if (r->end_of_band_run) {
        r->end_of_band_run--;
        return;
    }
    for (int k = r->first; k <= r->last; k++) {
        const int symbol = decode(r, &r->ac_decoder[u->component->ac_index]), run = symbol >> 4, size = symbol & 15;
        if (!size && run < 15) {
            r->end_of_band_run = (1u << run) - 1;
            if (run) r->end_of_band_run += (uint32_t)receive(r, run);
            break;
        }
        k += run;
        if (size) block[JPEG_ZIGZAG[k]] = wrap((uint32_t)receive_signed(r, size) << r->low);
    }
}

/* A further bit of a coefficient that is not zero. */
static void correct(jpeg_reader *r, int16_t *x)
{
    const uint32_t bit = 1u << r->low;
    if (receive(r, 1) && !((uint32_t)*x & bit)) *x = wrap(*x >= 0 ? (uint32_t)*x + bit : (uint32_t)*x - bit);
}

/* T.81 G.1.2.3: a further bit of the coefficients of a band. A run counts the coefficients that are still zero. SPEC
   16.2. */
static void refine_ac(jpeg_reader *r, const unit *u, int16_t *block)
{
    int k = r->first;
    for (; !r->end_of_band_run && k <= r->last; k++) {
        const int symbol = decode(r, &r->ac_decoder[u->component->ac_index]), size = symbol & 15;
        int run = symbol >> 4;
        int16_t value = 0;
        if (size) value = wrap(receive(r, 1) ? 1u << r->low : 0u - (1u << r->low));
        else if (run < 15) {
            r->end_of_band_run = 1u << run;
            if (run) r->end_of_band_run += (uint32_t)receive(r, run);
            break;
        }
        for (; k <= r->last; k++) {
            int16_t *x = &block[JPEG_ZIGZAG[k]];
            if (*x) correct(r, x);
            else if (--run < 0) break;
        }
        if (value) block[JPEG_ZIGZAG[k]] = value;
    }
    if (!r->end_of_band_run) return;
    for (; k <= r->last; k++)
        if (block[JPEG_ZIGZAG[k]]) correct(r, &block[JPEG_ZIGZAG[k]]);
    r->end_of_band_run--;
}

/* SPEC 16.2 */
static void decode_block(jpeg_reader *r, const unit *u, int16_t *block)
{
    if (!r->progressive) sequential_block(r, u, block);
    else if (r->first) (r->high ? refine_ac : first_ac)(r, u, block);
    else if (!r->high) block[0] = wrap((uint32_t)decode_dc(r, u) << r->low);
    else if (receive(r, 1)) block[0] = wrap((uint32_t)block[0] | 1u << r->low);
}

/* ---- The scan ----------------------------------------------------------------------------------------------------------- */

/* The MCUs of the scan (T.81 A.2): a scan of one component has its blocks one by one, without those that fill up the
   MCUs. SPEC 16.2. */
static bool lay_out(jpeg_reader *r, mcu *m)
{
    *m = (mcu){0, {{NULL, 0, 0, 0, 0, 0}}, 0, 0, 1};
    if (r->scan_count == 1) {
        jpeg_component *c = &r->component[r->scan_component[0]];
        m->unit[m->blocks++] = (unit){c, 0, 0, 0, 1, 1};
        m->columns = c->columns;
        m->rows = c->rows;
        m->frame_rows = (size_t)c->v;
        return true;
    }
    for (int i = 0; i < r->scan_count; i++) {
        jpeg_component *c = &r->component[r->scan_component[i]];
        if (m->blocks + c->h * c->v > JPEG_MCU_BLOCKS)
            return jpeg_damaged(r, "its sampling factors give more than %d blocks per MCU", JPEG_MCU_BLOCKS);
        for (int b = 0; b < c->h * c->v; b++)
            m->unit[m->blocks++] = (unit){c, i, (size_t)(b % c->h), (size_t)(b / c->h), (size_t)c->h, (size_t)c->v};
        m->columns = c->room_columns / (size_t)c->h;
        m->rows = c->room_rows / (size_t)c->v;
    }
    return true;
}

/* A component's quantisation table is the one that is defined when its first scan starts. SPEC 16.1. */
static bool latch(jpeg_reader *r, jpeg_component *c)
{
    if (c->latched) return true;
    if (c->quant_index >= JPEG_TABLES || !r->quant_defined[c->quant_index])
        return jpeg_damaged(r, "component %d has no quantisation table", c->id);
    memcpy(c->quant, r->quant[c->quant_index], sizeof c->quant);
    c->latched = true;
    return true;
}

/* Block smoothing asks which bits of the coefficients are known, and which were before this scan. SPEC 16.4. */
static void note_known(const jpeg_reader *r, jpeg_component *c)
{
    const int from = r->first < 1 ? r->first : 1, to = r->last > JPEG_SMOOTHED - 1 ? r->last : JPEG_SMOOTHED - 1;
    for (int k = from; k <= to; k++) c->before[k] = r->scans > 1 ? c->known[k] : 0;
    for (int k = r->first; k <= r->last; k++) c->known[k] = r->low;
}

/* The header of a progressive scan (T.81 G.1.1.1). A sequential scan's is not looked at, as in libjpeg. SPEC 16.6. */
static bool check_header(jpeg_reader *r)
{
    const bool band = r->first ? r->first <= r->last && r->last < 64 && r->scan_count == 1 : r->last == 0;
    if (r->progressive && (!band || (r->high && r->low != r->high - 1) || r->low > 13))
        return jpeg_damaged(r, "a progressive scan of coefficients %d to %d, bits %d and %d", r->first, r->last,
                            r->high, r->low);
    return true;
}

static bool start_scan(jpeg_reader *r)
{
    bool good = check_header(r);
    for (int i = 0; good && i < r->scan_count; i++) good = latch(r, &r->component[r->scan_component[i]]);
    for (int i = 0; good && i < r->scan_count; i++) {
        jpeg_component *c = &r->component[r->scan_component[i]];
        const bool dc = !r->progressive || (!r->first && !r->high), ac = !r->progressive || r->first;
        if (r->progressive) note_known(r, c);
        if ((dc && c->dc_index >= JPEG_TABLES) || (ac && c->ac_index >= JPEG_TABLES))
            return jpeg_damaged(r, "component %d uses Huffman table %d", c->id, dc ? c->dc_index : c->ac_index);
        if (dc) good = derive(r, &r->dc[c->dc_index], true, &r->dc_decoder[c->dc_index]);
        if (good && ac) good = derive(r, &r->ac[c->ac_index], false, &r->ac_decoder[c->ac_index]);
    }
    memset(r->previous_dc, 0, sizeof r->previous_dc);
    r->end_of_band_run = 0;
    r->left = r->next_restart = 0;
    r->starved = false;
    r->restarts_to_go = r->restart_interval;
    return good;
}

/* Decodes one MCU into its blocks, which are zero before their first scan. After a marker in the middle of the data, blocks are
   left as they are up to the next restart.
     libjpeg-turbo decodes sequential scans by a fast routine while 512 bytes per block are there. At 0xFF with anything but 0x00,
   this routine goes on with zeros, and then the slow one decodes the MCU again, into blocks that are not cleared: where the
   data contains 0xFF 0xFF, coefficients of the first attempt stay. SPEC 16.6. */
static bool decode_mcu(jpeg_reader *r, const mcu *m, int16_t *const *block)
{
    if (r->restart_interval && !r->restarts_to_go && !restart(r)) return false;
    const size_t done = (size_t)(r->at - r->start), file = (size_t)(r->end - r->start),
                 piece = (done / JPEG_PIECE + 1) * JPEG_PIECE, there = (piece < file ? piece : file) - done;
    if (!r->progressive && !r->restart_interval && !r->marker && there >= 512 * (size_t)m->blocks) {
        const uint8_t *at = r->at;
        const uint64_t bits = r->bits;
        const int left = r->left;
        int previous[JPEG_COMPONENTS];
        memcpy(previous, r->previous_dc, sizeof previous);
        r->hasty = true;
        for (int i = 0; i < m->blocks; i++) decode_block(r, &m->unit[i], block[i]);
        r->hasty = false;
        if (!r->marker) return true;
        r->at = at;
        r->bits = bits;
        r->left = left;
        r->marker = 0;
        r->starved = false;
        memcpy(r->previous_dc, previous, sizeof previous);
    }
    for (int i = 0, starved = r->starved; !starved && i < m->blocks; i++) decode_block(r, &m->unit[i], block[i]);
    r->restarts_to_go--;
    return !r->over || jpeg_damaged(r, "it ends early");
}

/* The inverse DCT of the blocks of MCU (x, y). */
static void transform_mcu(const mcu *m, size_t x, size_t y, int16_t *const *block)
{
    for (int i = 0; i < m->blocks; i++) {
        const unit *u = &m->unit[i];
        const jpeg_component *c = u->component;
        const size_t stride = c->room_columns * 8;
        jpeg_inverse_dct(block[i], c->quant,
                         c->samples + (y * u->step_y + u->y) * 8 * stride + (x * u->step_x + u->x) * 8, stride);
    }
}

bool jpeg_scan(jpeg_reader *r)
{
    int16_t room[JPEG_MCU_BLOCKS][64], *block[JPEG_MCU_BLOCKS];
    mcu m;
    if (!lay_out(r, &m) || !start_scan(r)) return false;
    for (int i = 0; i < JPEG_MCU_BLOCKS; i++) block[i] = room[i];
    for (size_t y = 0; y < m.rows && flis_poll(r->ctx); y++)
        for (size_t x = 0; x < m.columns; x++) {
            if (!r->starved) r->good_row = y / m.frame_rows;
            else if (r->several_scans && !r->restart_interval) return true;
            for (int i = 0; r->several_scans && i < m.blocks; i++) {
                const unit *u = &m.unit[i];
                const jpeg_component *c = u->component;
                block[i] = c->coefficients + ((y * u->step_y + u->y) * c->room_columns + x * u->step_x + u->x) * 64;
            }
            if (!r->several_scans) memset(room, 0, sizeof room);
            if (!decode_mcu(r, &m, block)) return false;
            if (!r->several_scans) transform_mcu(&m, x, y, block);
        }
    return flis_ok(r->ctx);
}
