/* Sums, norms, activations and attention. */
#include "kernels/avx512/lanes.h"

#include "kernels/body/vector.h"
