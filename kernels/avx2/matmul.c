/* Products with a stored weight. */
#include "kernels/avx2/lanes.h"

#include "kernels/body/matmul.h"
