/* SPDX-License-Identifier: Apache-2.0 */
/* cutlass-layouts.cpp - prints tests/kernels/cutlass-layouts.h: where CUTLASS says that the values of a lane are.
 * t-mma-oracle compiles it where the package nvidia-cutlass of PyPI is installed, and compares. */
#include <cstdio>

#include <cute/atom/copy_traits_sm75.hpp>
#include <cute/atom/mma_traits_sm80.hpp>
#include <cute/tensor.hpp>

/* table[lane][value] = layout(lane, step * value) / step */
template <class Layout> static void table(const char *name, const char *what, Layout layout, int values, int step)
{
    std::printf("\n/* %s */\nstatic const uint16_t %s[32][%d] = {\n", what, name, values);
    for (int lane = 0; lane < 32; lane++)
        for (int v = 0; v < values; v++)
            std::printf("%s%d%s", v ? " " : "    { ", int(layout(lane, step * v)) / step, v < values - 1 ? "," : " },\n");
    std::printf("};\n");
}

int main()
{
    using F16 = cute::MMA_Traits<cute::SM80_16x8x16_F32F16F16F32_TN>;
    using BF16 = cute::MMA_Traits<cute::SM80_16x8x16_F32BF16BF16F32_TN>;
    static_assert(cute::is_same_v<F16::ALayout, BF16::ALayout> && cute::is_same_v<F16::BLayout, BF16::BLayout> &&
                      cute::is_same_v<F16::CLayout, BF16::CLayout>, "both types have the same layouts");
    std::printf("/* SPDX-License-Identifier: Apache-2.0 */\n"
                "/* tests/kernels/cutlass-layouts.h - the fragments of a lane, as CUTLASS has them: printed by\n"
                " * tests/readers/cutlass-layouts.cpp with nvidia-cutlass 4.2.0 of PyPI, from its headers\n"
                " * cute/atom/mma_traits_sm80.hpp and cute/atom/copy_traits_sm75.hpp. */\n"
                "#ifndef CUTLASS_LAYOUTS_H\n#define CUTLASS_LAYOUTS_H\n\n#include <stdint.h>\n");
    table("cutlass_a", "Of m16n8k16, [lane][value]: the place in a [16, 16], stored column after column.",
          F16::ALayout{}, 8, 1);
    table("cutlass_b", "In b [8, 16] (n, k), stored column after column.", F16::BLayout{}, 4, 1);
    table("cutlass_c", "In c and d [16, 8], stored column after column.", F16::CLayout{}, 4, 1);
    table("cutlass_x4", "Of ldmatrix.x4: the value of 16 bits, counted over the rows of 8 that the lanes name.",
          cute::Copy_Traits<cute::SM75_U32x4_LDSM_N>::DstLayout{}, 8, 16);
    table("cutlass_x2", "Of ldmatrix.x2.", cute::Copy_Traits<cute::SM75_U32x2_LDSM_N>::DstLayout{}, 4, 16);
    table("cutlass_x4_trans", "Of ldmatrix.x4.trans.", cute::Copy_Traits<cute::SM75_U16x8_LDSM_T>::DstLayout{}, 8, 16);
    std::printf("\n#endif\n");
}
