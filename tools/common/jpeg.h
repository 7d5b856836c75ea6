/* jpeg.h - what the files of the JPEG reader and writer share (ITU-T T.81 with libjpeg-turbo's arithmetic). jpeg_read.c reads
 * markers, jpeg_scan.c reads entropy-coded data, jpeg_pixels.c turns coefficients into pixels, jpeg_write.c writes files.
 * Programs use read_jpeg_memory and jpeg_bytes of common.h.
 */
#ifndef TOOLS_COMMON_JPEG_H
#define TOOLS_COMMON_JPEG_H

#include "tools/common/common.h"

enum {
    JPEG_TABLES = 4,      /* of each kind: quantisation, DC, AC */
    JPEG_COMPONENTS = 4,  /* at most: CMYK */
    JPEG_MCU_BLOCKS = 10, /* at most (T.81 B.2.3) */
    JPEG_PIECE = 65536,   /* PIL gives a file to libjpeg in pieces of so many bytes */
    JPEG_SMOOTHED = 10,   /* the DC and the AC coefficients that block smoothing looks at, in zigzag order */
    /* Markers: the second byte, after 0xFF (T.81 table B.1). */
    JPEG_SOF0 = 0xC0,
    JPEG_DHT = 0xC4,
    JPEG_JPG = 0xC8,
    JPEG_DAC = 0xCC,
    JPEG_SOF15 = 0xCF,
    JPEG_RST0 = 0xD0,
    JPEG_RST7 = 0xD7,
    JPEG_SOI = 0xD8,
    JPEG_EOI = 0xD9,
    JPEG_SOS = 0xDA,
    JPEG_DQT = 0xDB,
    JPEG_DNL = 0xDC,
    JPEG_DRI = 0xDD,
    JPEG_APP0 = 0xE0,
    JPEG_APP14 = 0xEE,
    JPEG_APP15 = 0xEF,
    JPEG_COM = 0xFE,
    JPEG_TEM = 0x01
};

/* A Huffman table as a file defines it (T.81 B.2.4.2): counts[l] codes of l bits, and the symbols in the order of their codes. */
typedef struct jpeg_huffman {
    bool defined;
    uint8_t counts[17], symbols[256];
} jpeg_huffman;

/* The same for decoding (T.81 F.2.2.3): codes of l bits end at last[l] (-1: none), and a code's symbol is
   symbols[code + offset[l]]. look[b], for codes of up to 8 bits, is 256 l + symbol for the next 8 bits b; 0: longer. */
typedef struct jpeg_decoder {
    int32_t last[18], offset[18];
    uint16_t look[256];
    const uint8_t *symbols;
} jpeg_decoder;

typedef struct jpeg_component {
    int id, h, v, quant_index, dc_index, ac_index;
    size_t width, height;           /* samples */
    size_t columns, rows;           /* blocks */
    size_t room_columns, room_rows; /* blocks, filled up to whole MCUs */
    bool latched;                   /* quant is set, as it was at the component's first scan */
    uint16_t quant[64];             /* natural order; zeros until latched */
    int16_t *coefficients;          /* [room_rows][room_columns][64], natural order; NULL in a file of one scan */
    uint8_t *samples;               /* [8 room_rows][8 room_columns] */
    /* Progressive: for each coefficient in zigzag order, the lowest bit that is known (-1: nothing is), and the same
       before the last scan that contained the component. */
    int known[64], before[64];
} jpeg_component;

typedef struct jpeg_reader {
    flis_ctx *ctx;
    const char *name;
    const uint8_t *start, *at, *end;
    /* Markers */
    int marker; /* read, not yet processed; 0: none */
    bool framed, progressive, jfif, adobe, several_scans, ended;
    bool complete; /* the pixels are there; the file may end */
    int transform; /* Adobe's */
    size_t width, height;
    unsigned restart_interval;
    uint16_t quant[JPEG_TABLES][64];
    bool quant_defined[JPEG_TABLES];
    jpeg_huffman dc[JPEG_TABLES], ac[JPEG_TABLES];
    int count; /* components */
    jpeg_component component[JPEG_COMPONENTS];
    int h_max, v_max;
    /* The scan */
    size_t scans;
    int scan_count, scan_component[JPEG_COMPONENTS], first, last, high, low; /* Ss, Se, Ah, Al */
    size_t good_row; /* the last row of MCUs (of all components) whose data had not run out */
    /* Entropy-coded data */
    uint64_t bits;
    int left;     /* bits in `bits` */
    bool starved; /* a marker came before the data of a block: no data until the next restart marker */
    bool over;    /* the file ended inside the data */
    bool hasty;   /* in libjpeg-turbo's fast routine */
    unsigned restarts_to_go;
    int next_restart, previous_dc[JPEG_COMPONENTS];
    uint32_t end_of_band_run;
    jpeg_decoder dc_decoder[JPEG_TABLES], ac_decoder[JPEG_TABLES];
} jpeg_reader;

/* Natural (row-major) positions of the coefficients in zigzag order; 16 more entries of 63 catch runs beyond the block. */
extern const uint8_t JPEG_ZIGZAG[80];
/* The typical tables of T.81 K.3: luminance, chrominance. Writers use them, and files without tables (Motion JPEG) mean them. */
extern const jpeg_huffman JPEG_STANDARD_DC[2], JPEG_STANDARD_AC[2];

/* "NAME: damaged JPEG: what". Returns false. */
bool jpeg_damaged(jpeg_reader *r, const char *format, ...);
/* Reads up to the next marker into r->marker; false: the file has ended. */
bool jpeg_next_marker(jpeg_reader *r);
/* Decodes the data of the scan whose header was read. */
bool jpeg_scan(jpeg_reader *r);
/* The inverse DCT of a block of coefficients into 8 x 8 samples, `stride` bytes apart. */
void jpeg_inverse_dct(const int16_t *coefficients, const uint16_t *quant, uint8_t *out, size_t stride);
/* The inverse DCT of all coefficients of a file of several scans. */
void jpeg_transform(jpeg_reader *r);
/* Upsampling and colour conversion to RGB: out [height][width][3]. */
bool jpeg_colours(jpeg_reader *r, uint8_t *out);

#endif
