/* operations.c - vectors of single operations: linear, convolution, norms, activations, attention, time embedding. */
#include "tools/golden/golden.h"

static void linear_vectors(golden *g)
{
    vector_begin(g, "op.linear", 20, "1.3",
                 "y[i,o] = sum over k of x[i,k] w[o,k], + b[o]; k runs over more than one block of 256",
                 "a bias that is left out, a matrix that is transposed, 16-bit arithmetic");
    flis_tensor *x = formula_rows(g, "x", 2, 5, 300, 1);
    flis_param *w = formula_weight(g, "weight", 2, 40, 300, 0, false),
               *b = formula_weight(g, "bias", 1, 40, 0, 0, false);
    tensor_output(g, "y", flis_linear(&g->ctx, x, w, b, NULL), 64);
    vector_end(g);
}

static void conv_vector(golden *g, const char *id, int item, const char *what, const char *catches, size_t size,
                        flis_conv_kind kind)
{
    vector_begin(g, id, item, "1.3", what, catches);
    flis_tensor *x = formula_image(g, "x", 1, 8, 6, 10, 1);
    flis_param *w = formula_weight(g, "weight", 4, 12, 8, size, false),
               *b = formula_weight(g, "bias", 1, 12, 0, 0, false);
    tensor_output(g, "y", flis_conv(&g->ctx, x, w, b, kind, NULL), 64);
    vector_end(g);
}

static void conv_vectors(golden *g)
{
    conv_vector(
        g, "op.conv.same", 0, "3x3, stride 1, one zero on every side",
        "a kernel that is flipped (convolution instead of correlation) or transposed, edges repeated instead of zero",
        3, FLIS_SAME);
    conv_vector(g, "op.conv.1x1", 0, "1x1: a linear layer at every place", "H and W swapped on the way", 1, FLIS_SAME);
    conv_vector(g, "op.conv.down-both", 17, "3x3, stride 2, one zero on every side: the U-Net's downsample",
                "the autoencoder's padding (0,1,0,1), which shifts by a pixel", 3, FLIS_STRIDE2);
    conv_vector(g, "op.conv.down-after", 17, "3x3, stride 2, one zero right and below: the encoder's downsample",
                "zeros on every side, which shifts by a pixel", 3, FLIS_STRIDE2_ASYMMETRIC);
    conv_vector(g, "op.conv.upsampled", 17, "each value becomes 2x2 (nearest), then 3x3 with one zero on every side",
                "an enlargement that is shifted by one, or interpolated", 3, FLIS_UPSAMPLE2);
}

static void norm_vector(golden *g, const char *id, const char *what, const char *catches, double eps, bool silu)
{
    vector_begin(g, id, 7, "1.9", what, catches);
    given(g, "groups", "32");
    given(g, "eps", "%g", eps);
    given(g, "silu", silu ? "true" : "false");
    flis_tensor *x = formula_image(g, "x", 2, 64, 3, 5, 0x1p-7);
    flis_param *w = formula_weight(g, "weight", 1, 64, 0, 0, false),
               *bias = formula_weight(g, "bias", 1, 64, 0, 0, false);
    tensor_output(g, "y", flis_group_norm(&g->ctx, x, w, bias, eps, silu), 64);
    vector_end(g);
}

static void norm_vectors(golden *g)
{
    norm_vector(g, "op.group-norm", "32 groups of neighbouring channels, eps inside the root, on small values",
                "another eps, groups of channels that are 32 apart, the variance divided by n - 1", 1e-5, false);
    norm_vector(g, "op.group-norm.silu", "the same with the other eps, then SiLU", "SiLU left out, another eps", 1e-6,
                true);
    vector_begin(g, "op.layer-norm", 7, "1.10", "over the channels of each token, eps 1e-5, on small values",
                 "eps 1e-6 or 1e-12, statistics over all tokens");
    flis_tensor *x = formula_rows(g, "x", 1, 7, 48, 0x1p-7);
    flis_param *w = formula_weight(g, "weight", 1, 48, 0, 0, false),
               *bias = formula_weight(g, "bias", 1, 48, 0, 0, false);
    tensor_output(g, "y", flis_layer_norm(&g->ctx, x, w, bias), 64);
    vector_end(g);
}

static void activation_vectors(golden *g)
{
    vector_begin(g, "op.silu", 0, "1.8", "x sigmoid(x) for x in (-8, 8)", "x sigmoid(1.702 x), ReLU");
    tensor_output(g, "y", flis_silu(&g->ctx, formula_rows(g, "x", 1, 8, 32, 8)), 16);
    vector_end(g);
    vector_begin(g, "op.quick-gelu", 8, "1.8", "x sigmoid(1.702 x) for x in (-8, 8): CLIP's", "SiLU, exact GELU");
    tensor_output(g, "y", flis_quick_gelu(&g->ctx, formula_rows(g, "x", 1, 8, 32, 8)), 16);
    vector_end(g);
    vector_begin(g, "op.geglu", 8, "1.8", "the first half times the erf GELU of the second, for values in (-4, 4)",
                 "the halves swapped, tanh GELU (off by 5e-4), quick GELU");
    tensor_output(g, "y", flis_geglu(&g->ctx, formula_rows(g, "x", 1, 8, 64, 4)), 16);
    vector_end(g);
}

static void move_vectors(golden *g)
{
    vector_begin(g, "op.add", 0, "1.4", "a + b", "a residual that is left out");
    flis_tensor *a = formula_image(g, "a", 1, 4, 3, 5, 1), *b = formula_image(g, "b", 1, 4, 3, 5, 1);
    tensor_output(g, "y", flis_add(&g->ctx, a, b), 4);
    vector_end(g);
    vector_begin(g, "op.add-to-all", 0, "1.4", "v [n,c] added at every place of x [n,c,h,w]",
                 "a vector added along another axis");
    flis_tensor *x = formula_image(g, "x", 2, 4, 4, 4, 1), *v = formula_rows(g, "v", 2, 1, 4, 1);
    tensor_output(g, "y", flis_add_to_all(&g->ctx, x, v), 4);
    vector_end(g);
    vector_begin(g, "op.scale", 18, "1.4", "x times float32(1 / 0.18215) = 5.4899807",
                 "a division by the factor left out");
    tensor_output(g, "y", flis_scale(&g->ctx, formula_image(g, "x", 1, 4, 3, 5, 1), (double)(float)(1.0 / 0.18215)), 8);
    vector_end(g);
    vector_begin(g, "op.concat", 19, "1.4", "channels of h, then channels of skip", "the skip before h");
    flis_tensor *h = formula_image(g, "h", 1, 4, 3, 5, 1), *skip = formula_image(g, "skip", 1, 4, 3, 5, 1);
    tensor_output(g, "y", flis_concat(&g->ctx, h, skip), 1);
    vector_end(g);
    vector_begin(g, "op.embed", 9, "3.2", "row ids[t] of the token table plus row t of the positions",
                 "positions left out, or counted from 1");
    static const int64_t ids64[6] = {4, 0, 9, 9, 2, 7};
    const int32_t ids[6] = {4, 0, 9, 9, 2, 7};
    const size_t shape[2] = {2, 3};
    whole_input(g, "ids", FLIS_I64, 2, shape, "[[4, 0, 9], [9, 2, 7]]", ids64);
    flis_param *token = formula_weight(g, "token.weight", 2, 10, 16, 0, true),
               *position = formula_weight(g, "position.weight", 2, 77, 16, 0, true);
    /* flis_embed takes texts of 77 tokens; the first three of each are the output. */
    int32_t padded[2 * FLIS_TOKENS] = {0};
    for (int i = 0; i < 6; i++) padded[i / 3 * FLIS_TOKENS + i % 3] = ids[i];
    flis_tensor *y = flis_embed(&g->ctx, padded, 2, token, position), *few = flis_rows(&g->ctx, 2, 3, 16);
    for (size_t i = 0; y && few && i < 96; i++) few->x[i] = y->x[i / 48 * FLIS_TOKENS * 16 + i % 48];
    tensor_output(g, "y", few, 4);
    vector_end(g);
}

static void attention_vector(golden *g, const char *id, int item, const char *what, const char *catches, bool causal,
                             const uint8_t *attended)
{
    const size_t queries = 6, keys = causal ? 6 : 9;
    vector_begin(g, id, item, "1.11", what, catches);
    given(g, "heads", "2");
    given(g, "scale", "0.25");
    given(g, "causal", causal ? "true" : "false");
    flis_tensor *q = formula_rows(g, "q", 1, queries, 32, 4), *k = formula_rows(g, "k", 1, keys, 32, 4);
    flis_tensor *v = formula_rows(g, "v", 1, keys, 32, 1);
    if (attended) {
        const size_t shape[2] = {queries, keys};
        int64_t whole[54];
        for (size_t i = 0; i < queries * keys; i++) whole[i] = attended[i];
        whole_input(g, "open", FLIS_U8, 2, shape, "1 open, 0 closed: (i + 2 j) mod 3 != 0, and nothing in row 2",
                    whole);
    }
    tensor_output(g, "y", flis_attention(&g->ctx, q, k, v, 2, 0.25, (flis_mask){causal, attended ? &attended : NULL}),
                  256);
    vector_end(g);
}

static void attention_vectors(golden *g)
{
    uint8_t attended[54];
    for (size_t i = 0; i < 54; i++) attended[i] = i / 9 != 2 && (i / 9 + 2 * (i % 9)) % 3 != 0;
    attention_vector(g, "op.attention", 16, "softmax(scale q k^T) v, two heads side by side in the channels",
                     "no scale, heads interleaved instead of side by side, softmax over the queries", false, NULL);
    attention_vector(g, "op.attention.causal", 9, "key j is open to query i where j <= i",
                     "no causal mask, or one that hides i itself", true, NULL);
    attention_vector(g, "op.attention.masked", 2,
                     "closed scores are -max(float) before softmax; a row with nothing open weighs all keys equally",
                     "a mask applied after softmax, closed scores of -1 or 0, NaN in a row of closed scores", false,
                     attended);
}

static void time_vector(golden *g)
{
    static const double t[3] = {1, 500, 981};
    flis_real out[3 * 32];
    const size_t shape[2] = {3, 32};
    vector_begin(g, "time-embedding", 10, "5.4", "[cos, sin] of t exp(-ln(10000) i / 16) for t = 1, 500, 981, 32 wide",
                 "sines before cosines, i / (half - 1), frequencies in 16 bits");
    given(g, "t", "[1, 500, 981]");
    for (size_t i = 0; i < 3; i++) flis_time_embedding(t[i], 32, out + 32 * i);
    /* PyTorch works in float32, which is up to 6e-5 away at t = 981. */
    real_output(g, "y", 2, shape, out, 2048);
    vector_end(g);
}

void operation_vectors(golden *g)
{
    linear_vectors(g);
    conv_vectors(g);
    norm_vectors(g);
    activation_vectors(g);
    move_vectors(g);
    attention_vectors(g);
    time_vector(g);
}
