/* SPDX-License-Identifier: Apache-2.0 */
/* gen-tiktoken DIR TEXT
 *
 * Writes a vocabulary of K2's size to DIR, with words from the file TEXT. */
#undef NDEBUG
#include "base/io.h"
#include "tests/unit/tokenizer-vocab.h"

int main(int argc, char **argv)
{
    struct moe_err err = MOE_ERR_INIT;
    char *text;
    size_t size;
    if (argc != 3) return 2;
    if (moe_read_file(argv[2], (size_t)1 << 30, &text, &size, &err) != MOE_OK) {
        fprintf(stderr, "%s\n", err.msg);
        return (int)err.code;
    }
    write_k2_vocabulary(argv[1], text, size);
    free(text);
    return 0;
}
