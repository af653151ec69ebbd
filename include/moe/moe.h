/* SPDX-License-Identifier: Apache-2.0 */
/* moe/moe.h - the public interface of libmoe, all of it.
 *
 *     #include <moe/moe.h>
 *     #include <stdio.h>
 *
 *     int main(int argc, char **argv)
 *     {
 *         struct moe_err err = MOE_ERR_INIT;
 *         struct moe_generate_options o = { .size = sizeof o, .max_tokens = 32 };
 *         struct moe_generation g = { .size = sizeof g };
 *         struct moe_lm *lm;
 *         if (argc != 2) return MOE_USAGE;
 *         if (moe_lm_open(&lm, argv[1], NULL, &err) == MOE_OK) {
 *             if (moe_lm_generate(lm, "The llama is", 12, &o, &g, &err) == MOE_OK) puts(g.text);
 *             moe_generation_release(&g);
 *             moe_lm_close(&lm);
 *         }
 *         if (err.code != MOE_OK) fprintf(stderr, "%s\n", err.msg);
 *         return (int)err.code;
 *     }
 *
 * Rules that hold everywhere:
 * - A function that can fail returns enum moe_code and takes `struct moe_err *err` last, which may be NULL
 *   (moe/error.h).  NULL where a pointer is needed is MOE_USAGE.
 * - A struct of options or of results begins with its size, which the caller sets to sizeof.  Every other
 *   member of options that is zero has its default, and NULL for the struct is all defaults.  So a struct can
 *   grow: a library that is newer than its caller treats members that the caller lacks as zero, and fills in
 *   no more of a result than there is room for; an older one fails with MOE_UNSUPPORTED where an option that
 *   it does not know is not zero, and leaves results that it does not know as they are.
 * - Messages name options as the members of these structs: 'force', 'calib_tokens'.
 * - Texts are UTF-8 with their length in bytes; paths end with a NUL.  Sizes are bytes.
 * - The library never prints, never exits, reads neither the command line nor standard input, and installs no
 *   signal handler. */
#ifndef MOE_MOE_H
#define MOE_MOE_H

#include <moe/cancel.h>
#include <moe/convert.h>
#include <moe/error.h>
#include <moe/lm.h>
#include <moe/model.h>
#include <moe/plan.h>
#include <moe/progress.h>
#include <moe/quantize.h>

#endif
