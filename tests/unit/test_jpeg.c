/* test_jpeg.c - the JPEG reader and writer, PNG's kinds, and resizing: the bytes equal PIL's (Pillow 9.4, libjpeg-turbo 2.1.5), which
 * made the digests. tests/external/pictures_check.py compares thousands of files with the PIL that is installed.
 */
#include "tests/unit/test.h"
#include "tools/common/common.h"

#include <stdio.h>

/* ---- Reading ------------------------------------------------------------------------------------------------------------ */

/* damaged: the digest of what becomes of every file that has one fault, at each byte from the third on (damage); `read` of these
   files are read. */
static const struct jpeg_case {
    const char *name;
    size_t width, height;
    const char *pixels, *damaged;
    size_t read;
} CASES[] = {
    {"baseline420", 18, 19, "90d620571d2289787bea3472e36ed6b0fc73b07407a30e4617a64dc11818a26c",
     "4fb1ec834e30d163ed0bbbd0378b39b42fc0267871a56da1b550c869462705e3", 532},
    {"baseline422", 20, 9, "5be0bdc1199f31d5fd72ceca58f8dcee8c9198f35db6e8e3942cb8a117c42d24",
     "20b7ad40363169f79263bb1a748cfb5f847606ee0b9259a367a3f1b3f3ffa7d1", 499},
    {"baseline444", 9, 10, "15e7cc8097e7eefb1e9cd70198a9aef54aa369f8fcd70db0b743d924eeecb930",
     "10081de1f4395a81da0b0c9676ffc7cfbeb4a9ccde847e15b8ee0b6c0ea529b8", 451},
    {"440", 12, 20, "eb977084cf9c50a7ad36087d1cec4dd5a685c03543021ec6e36b51bd2784bd29",
     "10f167c59b3cc9c9f4f68b2b8d3d3933f3c2ddd504c2dfa4c6e6af3ededfcb3e", 547},
    {"411", 33, 9, "fb4653ad793a1a362ffbb21f17ca074dbfdffcad78416162d5cf35c19dceb644",
     "75615b244b31af87fc28c8603df8c2ed75cf7997a6095703a7d353d77e8db533", 568},
    {"mixed", 33, 17, "5b634fe6c612de2ba8979687cff06f5312631befc3477f885ed87f61f7e224dd",
     "3c60ca179c621a5464cb25b2ae19572f244e2562dbc6db6ba5bc0601e89ef3cd", 627},
    {"gray", 17, 9, "3bfba1d17a0c5974c8bfaface1de402d93b06a6bf516d37c1c41ecff9ec322ce",
     "fa543acb9dbb58ce401f93b71efc150a0daf33f0a6204601b89ff356bbb7af8d", 271},
    {"rgb", 10, 12, "32decd7a84a041351e6b41d7276e834c5dc4a31c4ca5838877c7776ce371266c",
     "54943474132a93d76ff37c3549ea1ff89a06511c2b7d0b67028be93a2477203b", 350},
    {"cmyk", 10, 17, "8108c482b765367137476e090eb536c23eecda53dc20d3135a434a9e5003273f",
     "7f74e1d3343ce26b25d1d4755f811afc9b67de027b7007b85f304d110c954fb8", 382},
    {"restart", 34, 20, "a07b99cb8d2a29a8049f844b59fa72f6126d42af48ca9de735060cff2fb6d0e1",
     "bb7e103701fe07750b01bac57c7ff1c206196432f9997718e2c46446506146ce", 733},
    {"scans", 17, 17, "be1ca03c43f9f4e9b116f7a510ef0f82e4b21b35ed9942242aed57871068a388",
     "b198eeec5ae57c467d92bb336c5c2963e546d2bce370689506e139317aeafead", 537},
    {"no-tables", 9, 9, "11afdae1f5130f2effa6f21fcabd059e53c5688c6e50c067deeba2dcb9f5d163",
     "e54ef95780d6f2001f154cdcb1755871972adf5002718d8d2dcd46b096efc1d5", 463},
    {"progressive", 20, 20, "fdcd4a6f61f7d1fafa8df154948b3c927f291a5f060d271eba8f4fb1bad0fd5a",
     "a46e22e74fce23810c4a7bde52209336ba48ccd9a2649ab404c11d4a9c3d227b", 763},
    {"gray-progressive", 17, 9, "ae08e0b942f7db93f3edb48b6f0ca67c567894ea487a2a3a99db8be044b6ade6",
     "8d306e86837dbacd9ef76116cd2aa4558bf1f2a864ba09eac0fc69f93ea7d619", 372},
    {"progressive-restart", 34, 20, "4d88998d136e4e20e37cdc580f08cc0d89f3315e2ce0ac44bfab3d9fd92cf2e1",
     "87a2b77cc46b078e761de5a2beabd08828e0102792d7c99c97c9d47481fb6246", 1165},
    {"smooth", 26, 30, "8d7836f70d48c6bb2b54a83e3873ec5aca8ff6fcbbf2689b033e611c29b35154",
     "9d9f0bf23254b6895d1214144e89657d2b2edb88b4f6f9aafaed9180c5a08c78", 355},
    {"smooth-some", 26, 30, "47ff733443a09d5c1cf8cf4273f4459dc24947a432b5f61d54a6ecfb1bb962ee",
     "cf7392eefd3da93998699eefd86bbac1fa94b4cc50c0591fae34b577073a57b7", 435},
};
enum { CASE_COUNT = sizeof CASES / sizeof *CASES };

static uint8_t *load(const char *name, size_t *length)
{
    flis_ctx ctx;
    char path[200];
    flis_init(&ctx);
    snprintf(path, sizeof path, "fuzz/corpus/jpeg/%s.jpg", name);
    uint8_t *bytes = (uint8_t *)flis_read_file(&ctx, test_path(path), 1 << 20, length);
    CHECK(bytes, "%s", ctx.error);
    flis_free(&ctx);
    return bytes;
}

static void check_digest(const char *what, flis_sha256 *sum, const char *wanted)
{
    char hex[65];
    flis_sha256_end(sum, hex);
    CHECK(strcmp(hex, wanted) == 0, "%s: got %s, wanted %s", what, hex, wanted);
}

void test_jpeg_read(void)
{
    for (size_t i = 0; i < CASE_COUNT; i++) {
        const struct jpeg_case *c = &CASES[i];
        flis_ctx ctx;
        flis_picture p;
        flis_sha256 sum;
        size_t length = 0;
        uint8_t *bytes = load(c->name, &length);
        flis_init(&ctx);
        CHECK(bytes && read_jpeg_memory(&ctx, c->name, bytes, length, &p), "%s: %s", c->name, ctx.error);
        if (flis_ok(&ctx)) {
            CHECK(p.width == c->width && p.height == c->height && p.channels == 3, "%s: got %zu x %zu", c->name,
                  p.width, p.height);
            flis_sha256_begin(&sum);
            flis_sha256_add(&sum, p.pixels, p.width * p.height * 3);
            check_digest(c->name, &sum, c->pixels);
            flis_picture_free(&p);
        }
        free(bytes);
        flis_free(&ctx);
    }
}

/* Adds a file's pixels to the sum, or the word "refused". */
static bool add_outcome(flis_sha256 *sum, const char *name, const uint8_t *bytes, size_t length)
{
    flis_ctx ctx;
    flis_picture p;
    flis_init(&ctx);
    const bool good = read_jpeg_memory(&ctx, name, bytes, length, &p);
    CHECK(good == (p.pixels != NULL) && good == !ctx.error[0], "%s: no picture and no sentence", name);
    if (good) flis_sha256_add(sum, p.pixels, p.width * p.height * 3);
    else flis_sha256_add(sum, "refused", 7);
    flis_picture_free(&p);
    flis_free(&ctx);
    return good;
}

/* One bit changed, one byte 0xFF or 0x00, the file cut: at each byte. The result is PIL's. */
static void damage(const struct jpeg_case *c)
{
    flis_sha256 sum;
    size_t length = 0, read = 0;
    uint8_t *bytes = load(c->name, &length);
    flis_sha256_begin(&sum);
    for (size_t at = 2; bytes && at < length; at++) {
        uint8_t *cut = malloc(at), kept = bytes[at]; /* a block of its own, for the sanitizer */
        bytes[at] = (uint8_t)(kept ^ 1 << at % 8);
        read += add_outcome(&sum, c->name, bytes, length);
        bytes[at] = at % 2 ? 0xFF : 0;
        read += add_outcome(&sum, c->name, bytes, length);
        bytes[at] = kept;
        if (cut) memcpy(cut, bytes, at);
        read += cut && add_outcome(&sum, c->name, cut, at);
        free(cut);
    }
    CHECK(read == c->read, "%s: %zu damaged files are read, wanted %zu", c->name, read, c->read);
    check_digest(c->name, &sum, c->damaged);
    free(bytes);
}

/* slow */
void test_jpeg_damage(void)
{
    for (size_t i = 0; i < CASE_COUNT; i++) damage(&CASES[i]);
}

void test_jpeg_damage_some(void)
{
    damage(&CASES[9]);  /* restart markers */
    damage(&CASES[13]); /* progressive */
}

/* Where the marker is. */
static size_t find_marker(const uint8_t *bytes, size_t length, int second)
{
    size_t at = 2;
    while (at + 1 < length && (bytes[at] != 0xFF || bytes[at + 1] != second)) at++;
    return at;
}

/* Which colours a file has: JFIF's marker or none, ids 1 2 3 4, R G B K and 0 1 2 3, Adobe's transforms 0, 1, 2 and no marker. */
void test_jpeg_colours(void)
{
    static const uint8_t ids[3][4] = {{1, 2, 3, 4}, {'R', 'G', 'B', 'K'}, {0, 1, 2, 3}};
    static const char *const file_name[2] = {"baseline444", "cmyk"};
    flis_sha256 sum;
    size_t read = 0;
    flis_sha256_begin(&sum);
    for (int i = 0; i < 2 * 2 * 3 * 4; i++) {
        const int transform = i % 4 - 1, keep = i / 12 % 2;
        uint8_t adobe[16] = {0xFF, 0xEE, 0, 14, 'A', 'd', 'o', 'b', 'e', 0, 100, 0, 0, 0, 0, (uint8_t)transform},
                file[1000];
        const uint8_t *id = ids[i / 4 % 3];
        size_t length = 0;
        uint8_t *bytes = load(file_name[i / 24], &length);
        if (!bytes || length > 900) break;
        const size_t first = keep ? 2 : 4 + (size_t)bytes[5], frame = find_marker(bytes, length, 0xC0),
                     scan = find_marker(bytes, length, 0xDA), extra = transform < 0 ? 0 : sizeof adobe;
        for (size_t c = 0; c < bytes[frame + 9]; c++) bytes[frame + 10 + 3 * c] = bytes[scan + 5 + 2 * c] = id[c];
        memcpy(file, bytes, 2);
        memcpy(file + 2, bytes + first, frame - first);
        memcpy(file + 2 + frame - first, adobe, extra);
        memcpy(file + 2 + frame - first + extra, bytes + frame, length - frame);
        read += add_outcome(&sum, file_name[i / 24], file, 2 + length - first + extra);
        free(bytes);
    }
    CHECK(read == 48, "%zu files are read, wanted 48", read);
    check_digest("colours", &sum, "590170bf2550a671ae9b3e8bc82a95a4476440c61d4d8234f8cf7cc89595b8d6");
}

/* What is refused gets a sentence that names it. Each case changes one byte of a file, counted from its frame's marker, or all
   before it. */
void test_jpeg_refused(void)
{
    static const struct {
        int at, value;
        const char *sentence;
    } cases[] = {
        {1, 0xC9, "arithmetic coding"},
        {1, 0xC3, "lossless"},
        {1, 0xC5, "hierarchical"},
        {4, 12, "12 bits"},
        {4, 7, "8 bits per sample"},
        {9, 2, "2 components"},
        {5, 255, "pixels"},
        {11, 0x51, "sampling factors"},
        {11, 0x03, "sampling factors"},
        {11, 0x33, "MCU"},
        {12, 3, "no quantisation"},
        {9, 1, "length of the frame"},
    };
    size_t length = 0;
    uint8_t *bytes = load("baseline420", &length);
    const size_t frame = bytes ? find_marker(bytes, length, 0xC0) : 0;
    for (size_t i = 0; bytes && i < sizeof cases / sizeof *cases; i++) {
        flis_ctx ctx;
        flis_picture p;
        uint8_t *at = bytes + frame + cases[i].at, kept = *at, width = bytes[frame + 7];
        flis_init(&ctx);
        *at = (uint8_t)cases[i].value;
        if (cases[i].at == 5) bytes[frame + 7] = 255;
        CHECK(!read_jpeg_memory(&ctx, "a.jpg", bytes, length, &p) && !p.pixels &&
                  strstr(ctx.error, cases[i].sentence) && strncmp(ctx.error, "a.jpg: ", 7) == 0,
              "case %zu: got '%s', wanted %s", i, ctx.error, cases[i].sentence);
        *at = kept;
        bytes[frame + 7] = width;
        flis_free(&ctx);
    }
    free(bytes);
}

/* ---- Writing -------------------------------------------------------------------------------------------------------------- */

static void make(flis_picture *p, size_t width, size_t height, size_t channels)
{
    *p = (flis_picture){width, height, channels, malloc(width * height * channels)};
    for (size_t i = 0; p->pixels && i < width * height * channels; i++) {
        const size_t c = i % channels, x = i / channels % width, y = i / channels / width;
        p->pixels[i] = (uint8_t)(x * x * 3 + y * 7 * (c + 1) + x * y * (c + 2) + (x * y * 31 + c * 17) % 13 * 9);
    }
}

/* Bytes 0xFF in the data, with and without 0x00 after them, in a file long enough for libjpeg's fast routine: coefficients of its
   attempt stay. */
void test_jpeg_fill_bytes(void)
{
    flis_ctx ctx;
    flis_picture p;
    flis_sha256 sum;
    size_t length = 0, read = 0;
    flis_init(&ctx);
    flis_sha256_begin(&sum);
    make(&p, 40, 40, 1);
    uint8_t *bytes = jpeg_bytes(&ctx, &p, 90, &length);
    for (size_t at = bytes ? find_marker(bytes, length, 0xDA) + 10 : 0; at + 2 < length; at += 3)
        for (size_t zero = 0; zero < 2; zero++) {
            uint8_t file[2000];
            const size_t count = 1 + at % 2 + zero;
            if (length > 1900) break;
            memcpy(file, bytes, at);
            memset(file + at, 0xFF, count);
            file[at + count] = 0;
            memcpy(file + at + count + zero, bytes + at, length - at);
            read += add_outcome(&sum, "fill bytes", file, length + count + zero);
        }
    CHECK(length == 1567 && read == 471, "%zu bytes, %zu files are read, wanted 1567 and 471", length, read);
    check_digest("fill bytes", &sum, "19f6f9e789df8b7b077c92c3d79d66e16d07140258e930bb9607831edad16468");
    free(bytes);
    flis_picture_free(&p);
    flis_free(&ctx);
}

static const size_t SIZES[][2] = {{1, 1},   {2, 1},   {1, 2},  {7, 5},  {8, 8},   {9, 8},   {8, 9},   {15, 17},
                                  {16, 16}, {17, 15}, {33, 9}, {9, 40}, {70, 50}, {25, 24}, {24, 25}, {31, 33}};
enum { SIZE_COUNT = sizeof SIZES / sizeof *SIZES };

void test_jpeg_write(void)
{
    static const struct {
        size_t channels;
        int quality;
        const char *digest;
    } cases[] = {
        {3, 75, "2970de731ef2b2f4c73b21f07cd8b1446f28035305ffc51fcbd69ef998c453b5"},
        {1, 75, "1d0d49f51deab0c3058c849c0b7fb09aab7afe8eebc6f088ef53d1529210541a"},
        {3, 1, "bffe5ad83567bce51a6e334afd176ece32edbcc8483be40bfba781d935d1ff03"},
        {3, 30, "3aa85cb0051db44b19916185d51597049cba58622263bcbb9638ca37f694e00a"},
        {3, 100, "2df6ff9ea70064c1624a0ba30ec360e7661dc4f8fdf408659e768180b9ff02a8"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        flis_ctx ctx;
        flis_sha256 sum;
        char what[40];
        flis_init(&ctx);
        flis_sha256_begin(&sum);
        for (size_t s = 0; s < SIZE_COUNT; s++) {
            flis_picture p;
            size_t length = 0;
            make(&p, SIZES[s][0], SIZES[s][1], cases[i].channels);
            uint8_t *bytes = jpeg_bytes(&ctx, &p, cases[i].quality, &length);
            CHECK(bytes, "%s", ctx.error);
            if (bytes) flis_sha256_add(&sum, bytes, length);
            free(bytes);
            flis_picture_free(&p);
        }
        snprintf(what, sizeof what, "%zu channels, quality %d", cases[i].channels, cases[i].quality);
        check_digest(what, &sum, cases[i].digest);
        flis_free(&ctx);
    }
}

void test_jpeg_write_refused(void)
{
    static const struct {
        size_t width, height, channels;
        int quality;
    } cases[] = {{0, 1, 3, 75}, {1, 0, 3, 75}, {65501, 1, 3, 75}, {1, 1, 2, 75}, {1, 1, 3, 0}, {1, 1, 3, 101}};
    uint8_t pixel[3] = {0};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        flis_ctx ctx;
        size_t length = 1;
        flis_init(&ctx);
        flis_picture p = {cases[i].width, cases[i].height, cases[i].channels, pixel};
        CHECK(!jpeg_bytes(&ctx, &p, cases[i].quality, &length) && !length && strncmp(ctx.error, "JPEG: got ", 10) == 0,
              "case %zu: got '%s'", i, ctx.error);
        flis_free(&ctx);
    }
}

/* ---- Resizing --------------------------------------------------------------------------------------------------------------- */

typedef bool resizing(flis_ctx *ctx, const flis_picture *p, size_t width, size_t height, flis_picture *out);

static void check_resizing(const char *what, resizing *resize, const char *wanted)
{
    flis_ctx ctx;
    flis_sha256 sum;
    flis_init(&ctx);
    flis_sha256_begin(&sum);
    for (size_t s = 0; s < SIZE_COUNT; s++) {
        const size_t to[6][2] = {{1, 1}, {5, 3}, {16, 16}, {64, 64}, {23, 90}, {SIZES[s][0], SIZES[s][1]}};
        flis_picture p, out;
        make(&p, SIZES[s][0], SIZES[s][1], 3);
        for (size_t i = 0; i < 6; i++) {
            CHECK(resize(&ctx, &p, to[i][0], to[i][1], &out), "%s", ctx.error);
            if (out.pixels) flis_sha256_add(&sum, out.pixels, out.width * out.height * 3);
            flis_picture_free(&out);
        }
        flis_picture_free(&p);
    }
    check_digest(what, &sum, wanted);
    flis_free(&ctx);
}

void test_jpeg_resize(void)
{
    check_resizing("bicubic", resize_bicubic, "34e4517d2ad09a5924ad7a1be7bdaa856f6bf6ead312cbeb4cc11526bbe78461");
    check_resizing("nearest", resize_nearest, "4af7cca6d148e2b93d1c249769288f0306495ad8f05d600ed852912f2393f671");
}

/* ---- PNG ---------------------------------------------------------------------------------------------------------------------- */

/* Every kind of PNG with at most 8 bits per value, all filters. The pixels are those of PIL's convert("RGB"). */
void test_jpeg_png_kinds(void)
{
    static const struct {
        const char *name, *file, *pixels;
    } cases[] = {
        {"gray 1",
         "89504e470d0a1a0a0000000d4948445200000005000000060100000000238069e60000001449444154789c635064ac66f267dec0a2ca"
         "2002000c2201df1b8f262f0000000049454e44ae426082",
         "52c33aa4bc0390a63e6dadd4724c1f578e7c3895f7669fde1019701f9457657f"},
        {"gray 2",
         "89504e470d0a1a0a0000000d4948445200000005000000060200000000642013360000001a49444154789c638833649c5acf74ee0bb3"
         "4c398b1903c3819700324d05e22a5ab28f0000000049454e44ae426082",
         "19b879876fd621b5121ac8c001bf380a864183f280111a92113501dd75f13d67"},
        {"gray 4",
         "89504e470d0a1a0a0000000d4948445200000005000000060400000000eb60e6960000002149444154789c63102ad9cfb874c70ea6e3"
         "4bff32af532c64610c2d65283ff51a0077af0a0570dd7e350000000049454e44ae426082",
         "ff97d92b663436b7e727ac4d863608d83ea762c99ca7e70d984e65801c63e3ac"},
        {"gray 8",
         "89504e470d0a1a0a0000000d49484452000000050000000608000000002e900b970000002f49444154789c012400dbff007ce463db90"
         "01ff50a090f202124bb760df038da59e30bd042134f1fcf200029c245ae83daf10f24f5d15a20000000049454e44ae426082",
         "16103785849edcc1d95fef1997c61e3bed6224322d09e5f6d2ac960a35c1e7ac"},
        {"palette 1",
         "89504e470d0a1a0a0000000d49484452000000050000000601030000003135c60800000006504c54456a98f983b8c84cc06be4000000"
         "1449444154789c6358c3b881c99af914cb36860f00167d04122c1168350000000049454e44ae426082",
         "829d175b99583382858b62e48d283b0f13261adf429cd174c124b21190dd9582"},
        {"palette 2",
         "89504e470d0a1a0a0000000d49484452000000050000000602030000007695bcd80000000c504c54456a98f983b8c80015fd93ca6b15"
         "1473fc0000001a49444154789c637812cdf85194a9d08239439d457601c3064e00335504fe21c8b6140000000049454e44ae426082",
         "70f37253a4504089307622b9cca5098c82857696b3f8c1ca443cf3931d9bf935"},
        {"palette 4",
         "89504e470d0a1a0a0000000d4948445200000005000000060403000000f9d5497800000030504c54456a98f983b8c80015fd93ca6bf9"
         "a98a9577a6e094ac5da78ef81a51da964202bf3c81b35a45686e619d6a98fb3e07f8ab208fa7620000002149444154789c63507cff9d"
         "71cf0d7326ee2b5dcc05177c585c7474187e0b4f00007761090c3e5f84640000000049454e44ae426082",
         "4d57524356b10f478181692a4dd6ec5bcde534894d1c8ddf98e0a3ad87bbef29"},
        {"palette 8",
         "89504e470d0a1a0a0000000d49484452000000050000000608030000003c25a47900000030504c54456a98f983b8c80015fd93ca6bf9"
         "a98a9577a6e094ac5da78ef81a51da964202bf3c81b35a45686e619d6a98fb3e07f8ab208fa7620000002f49444154789c012400dbff"
         "0078e2a7b2c10123adf234010212bf02d7e303943ed116dc04eb87b9e1ab0020fc5c3c902aae1093b5f703ea0000000049454e44ae42"
         "6082",
         "a37d43d813c79d4f89d0e0294ec7e4165dc68c7ea99cd4b0f598e551f776f4ad"},
        {"gray alpha",
         "89504e470d0a1a0a0000000d4948445200000005000000060804000000a1f29cc00000004d49444154789c014200bdff001b356b0814"
         "0898ce4c130164891ab23c85d4f75fe9026a5109208dfe2c475c24037daac8fc1a98943eac9e04917420b556273c5f20d70058a17c55"
         "335acf5c0bf6272619c3958eddb20000000049454e44ae426082",
         "e8ef72dde5e4dd239a0a54276c86a249b2ce4f4b13fbffec636da3f947d5d79e"},
        {"RGB",
         "89504e470d0a1a0a0000000d49484452000000050000000608020000008499c31c0000006b49444154789c0160009fff00e9fc11b347"
         "0d5fc4ffde3f290dcd6001d83cafa4b7eab8d5c657dc0c9c6f6e028a8b23d5dc3148d9220b59f8d9bb840355dd00b85eadc761e295a2"
         "faee1daa0407de9e4ccbf6a739b1f5e76cac155e0029c7dc228f162d24a85a340993e84548612fde2c9f72c90000000049454e44ae42"
         "6082",
         "1da22895fedbce3a718e2afb235364cbbbc48df8261c9cfc48472d77642a8413"},
        {"RGBA",
         "89504e470d0a1a0a0000000d49484452000000050000000608060000000bfb544b0000008949444154789c017e0081ff00b68c1aa398"
         "b4e22b7797b21240c7dab5a04e7ad3011a03a5156ef47a97ed4c12225c06c6933ccd76e702ff6d27403c8ca879042af5e47d3ade95ec"
         "00234d031544e25d457d71e7a9c6db2da041dfc7e0c3d7fd0419731acee5964c0b1ee14ff583462e2ff88e4b0500d6cf77d0bca2c126"
         "32bb121dbf159a8c17119e24c7fe3b04dd0282440000000049454e44ae426082",
         "df22a96e50afc181d9f7a955ec13db6e9a92ff1721fbc40595620affda7e0689"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        flis_ctx ctx;
        flis_picture p;
        flis_sha256 sum;
        uint8_t bytes[400];
        const size_t length = strlen(cases[i].file) / 2;
        for (size_t k = 0; k < length; k++) {
            unsigned byte = 0;
            sscanf(cases[i].file + 2 * k, "%2x", &byte);
            bytes[k] = (uint8_t)byte;
        }
        flis_init(&ctx);
        const char *path = test_scratch("kind.png");
        CHECK(output_write(&ctx, path, bytes, length) && read_picture(&ctx, path, &p), "%s: %s", cases[i].name,
              ctx.error);
        if (flis_ok(&ctx)) {
            flis_sha256_begin(&sum);
            flis_sha256_add(&sum, p.pixels, p.width * p.height * 3);
            check_digest(cases[i].name, &sum, cases[i].pixels);
            flis_picture_free(&p);
        }
        flis_free(&ctx);
    }
}
