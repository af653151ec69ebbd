/* NVFP4 rounding against a quadratic form. */
#include "kernels/avx2/lanes.h"

LANE bool vf_any(vf x)
{
    const __m256 zero = _mm256_setzero_ps();
    return _mm256_movemask_ps(_mm256_or_ps(_mm256_cmp_ps(x.a, zero, _CMP_NEQ_UQ), _mm256_cmp_ps(x.b, zero, _CMP_NEQ_UQ))) != 0;
}

#include "kernels/body/feedback.h"
