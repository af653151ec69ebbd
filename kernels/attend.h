/* SPDX-License-Identifier: Apache-2.0 */
/* kernels/attend.h - the lengths that the attention order (kernels.def) is made of.  A model's text depends
 * on them: they never change. */
#ifndef MOE_KERNELS_ATTEND_H
#define MOE_KERNELS_ATTEND_H

enum {
    MOE_PAGE = 64,                       /* positions of a page of the latent cache */
    MOE_CHUNK_PAGES = 8,                 /* pages whose sums are made one after the other */
    MOE_CHUNK = MOE_CHUNK_PAGES * MOE_PAGE
};

#endif
