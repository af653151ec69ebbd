/* convert/diff.h - whether two models hold the same weights, tensor by tensor, as they are stored. */
#ifndef MOE_CONVERT_DIFF_H
#define MOE_CONVERT_DIFF_H

#include "base/json.h"
#include "base/progress.h"
#include "formats/source.h"

/* {"same": bool, "tensors_same": n, "tensors_different": n, "differences": ["tensor: what"]} (at most 1000 listed).  Two tensors are the same
 * when type, shape, codes, scales and global scales are; where scales lie in tiles in one and row by row in the other does
 * not count.  Two containers are compared by their hashes, anything else by reading, in pieces.  progress may be NULL. */
enum moe_code moe_inspect_diff(const struct moe_source *a, const struct moe_source *b, struct moe_progress *progress, cJSON **out,
                               struct moe_err *err);

#endif
