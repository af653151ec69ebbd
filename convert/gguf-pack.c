/* convert/gguf-pack.c - our nibbles in ggml's order: codes move, none changes. */
#include "convert/gguf-internal.h"

#include "kernels/scalar.h"

#include <math.h>
#include <string.h>

/* 8 nibbles, the first lowest -> 8 bytes, each with one nibble low. */
static uint64_t spread(uint32_t v)
{
    uint64_t x = v;
    x = (x | x << 16) & 0x0000ffff0000ffffu;
    x = (x | x << 8) & 0x00ff00ff00ff00ffu;
    return (x | x << 4) & 0x0f0f0f0f0f0f0f0fu;
}

static void store64(uint8_t *p, uint64_t v)
{
    for (int i = 0; i < 8; i++) p[i] = (uint8_t)(v >> 8 * i);
}

/* Source: block_nvfp4 in ggml-common.h; checked against gguf-py's NVFP4. */
bool moe_gguf_pack_nvfp4(const uint8_t *codes, const uint8_t *scales, int64_t cols, uint8_t *out)
{
    bool ok = true;
    for (int64_t b = 0; b < cols / 64; b++, codes += 32, scales += 4, out += 36) {
        for (int s = 0; s < 4; s++) {
            ok &= scales[s] < 0x7f;
            out[s] = scales[s];
            store64(out + 4 + 8 * s, spread(moe_load_le32(codes + 8 * s)) | spread(moe_load_le32(codes + 8 * s + 4)) << 4);
        }
    }
    return ok;
}

/* Nearest, ties to even.  False when the result is not the value. */
static bool bf16_to_f16(uint16_t b, uint16_t *h)
{
    double v = (double)moe_bf16_to_f32(b), a = fabs(v);
    uint16_t sign = b & 0x8000;
    int e;
    frexp(a, &e); /* a = m * 2^e, m in [0.5, 1) */
    if (e < -13) e = -13; /* below 2^-14 the step stays 2^-24 */
    double step = ldexp(1, e - 11), n = nearbyint(a / step);
    /* n counts steps: 1024 to 2047 for a normal number, less for a subnormal; a carry to 2048 lands in the next exponent. */
    *h = (uint16_t)(sign | (uint32_t)(n + (a == 0 ? 0 : (double)((e + 13) * 1024))));
    return n * step == a;
}

int64_t moe_gguf_pack_q4_0(const uint8_t *codes, const uint8_t *scales, int64_t cols, uint8_t *out)
{
    int64_t rounded = 0;
    for (int64_t b = 0; b < cols / 32; b++, codes += 16, scales += 2, out += 18) {
        uint16_t s = moe_load_le16(scales), h;
        if (!(fabsf(moe_bf16_to_f32(s)) <= 65504.0f)) return -1;
        rounded += !bf16_to_f16(s, &h);
        out[0] = (uint8_t)h;
        out[1] = (uint8_t)(h >> 8);
        for (int k = 0; k < 2; k++)
            store64(out + 2 + 8 * k, spread(moe_load_le32(codes + 4 * k)) | spread(moe_load_le32(codes + 8 + 4 * k)) << 4);
    }
    return rounded;
}
