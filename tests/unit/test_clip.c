/* test_clip.c - the text transformer against the authors' PyTorch tensors (golden/tinyclip_B: formula weights, tiny B).
 *
 * Tolerance 1e-5: float32 PyTorch differs from float64 by 4e-6 on the full-size encoder; the largest error measured
 * here is 3e-6.
 */
#include "tests/unit/test.h"

#define GOLDEN "golden/tinyclip_B.safetensors"

static flis_clip *tiny_clip(flis_ctx *ctx)
{
    const flis_clip_config config = {
        .vocab = 1000, .width = 48, .layers = 4, .heads = 4, .hidden = 192, .positions = 77};
    flis_clip *clip = flis_clip_new(ctx, &config);
    if (clip) flis_clip_walk(ctx, clip, flis_formula_visit, NULL);
    CHECK(flis_ok(ctx), "%s", ctx->error);
    return clip;
}

void test_clip_layers(void)
{
    const char *cases[] = {"a", "full", "empty"};
    flis_ctx ctx;
    flis_init(&ctx);
    flis_clip *clip = tiny_clip(&ctx);
    for (int i = 0; i < 3; i++) {
        char prefix[16], key[64];
        int32_t ids[FLIS_TOKENS];
        test_trace trace;
        snprintf(prefix, sizeof prefix, "%s.", cases[i]);
        if (!test_trace_open(&trace, GOLDEN, prefix, 1e-5)) break;
        ctx.trace = test_trace_take;
        ctx.trace_user = &trace;
        snprintf(key, sizeof key, "%sin.ids", prefix);
        double *wanted = test_golden(GOLDEN, key, NULL);
        for (int k = 0; k < FLIS_TOKENS; k++) ids[k] = (int32_t)wanted[k];
        flis_tensor *y = flis_clip_encode(&ctx, clip, ids, 1);
        CHECK(flis_ok(&ctx), "%s", ctx.error);
        snprintf(key, sizeof key, "%sout.last_hidden_state", prefix);
        test_close(y, GOLDEN, key, 1e-5);
        CHECK(trace.compared == test_trace_expected(&trace), "%s: compared %zu tensors, the golden file has %zu",
              cases[i], trace.compared, test_trace_expected(&trace));
        free(wanted);
        test_trace_close(&trace);
    }
    flis_clip_free(clip);
    flis_free(&ctx);
}

void test_clip_refuses(void)
{
    flis_ctx ctx;
    flis_init(&ctx);
    flis_clip *clip = tiny_clip(&ctx);
    int32_t ids[FLIS_TOKENS] = {0};
    ids[7] = 1000;
    CHECK(!flis_clip_encode(&ctx, clip, ids, 1) && strstr(ctx.error, "1000"), "an id beyond the vocabulary: %s",
          ctx.error);
    flis_clip_free(clip);
    flis_free(&ctx);
}
