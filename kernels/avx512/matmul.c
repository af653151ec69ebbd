/* Products with a stored weight. */
#include "kernels/avx512/lanes.h"

#include "kernels/body/matmul.h"
