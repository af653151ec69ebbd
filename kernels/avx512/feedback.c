/* NVFP4 rounding against a quadratic form. */
#include "kernels/avx512/lanes.h"

LANE bool vf_any(vf a) { return _mm512_cmp_ps_mask(a, _mm512_setzero_ps(), _CMP_NEQ_UQ) != 0; }

#include "kernels/body/feedback.h"
