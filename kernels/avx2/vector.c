/* Sums, norms, activations and attention. */
#include "kernels/avx2/lanes.h"

#include "kernels/body/vector.h"
