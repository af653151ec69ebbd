/* SPDX-License-Identifier: Apache-2.0 */
/* gen-golden OUT.moe
 *
 * Writes the container from which tests/data/golden-v1.moe was made (version 1 of the format, all types). */
#include "tests/gen/smallmodel.h"

int main(int argc, char **argv)
{
    struct moe_err err = MOE_ERR_INIT;
    if (argc != 2) return fprintf(stderr, "gen-golden OUT.moe\n"), 2;
    enum moe_code code = small_write(argv[1], MOE_WRITE_PLAIN, -1, 1, false, 2, NULL, &err);
    if (code != MOE_OK) fprintf(stderr, "gen-golden: %s\n", err.msg);
    return (int)code;
}
