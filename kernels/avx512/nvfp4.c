/* The NVFP4 quantizers. */
#include "kernels/avx512/blocks.h"

#include "kernels/body/nvfp4.h"
