/* SPDX-License-Identifier: Apache-2.0 */
/* quantize/calibrate/probe.h - a made-up model of one layer, and tokens that pass through it, whose speed
 * speed.h measures.  One thread calls; everything that is allocated here is freed by moe_probe_close. */
#ifndef MOE_QUANTIZE_CALIBRATE_PROBE_H
#define MOE_QUANTIZE_CALIBRATE_PROBE_H

#include "model/forward.h"
#include "model/ops/cpu/cpu.h"
#include "quantize/passes/backward.h"

enum { MOE_PROBE_TOKENS = 2048 }; /* the most tokens of a probe */

struct moe_probe {
    struct moe_config c;
    struct moe_model m;
    struct moe_layer layer;
    struct moe_pool *pool;
    struct moe_device *device;
    struct moe_forward *f;
    struct moe_backward *back;
    struct moe_latent cache;
    struct moe_segment seg[MOE_PROBE_TOKENS];
    int64_t lengths[MOE_PROBE_TOKENS]; /* the tokens of each sequence */
    int64_t count;                     /* the number of sequences */
    int64_t n;                         /* the tokens of all sequences */
    float *h, *g, *work; /* [n, H] states; gradients; the array that a measured call changes */
    uint32_t random;     /* the state of the generator of made-up values */
    bool failed;         /* memory ran out */
    enum moe_code code;  /* of the first measured call that failed */
    struct moe_err *err; /* the caller's */
};

/* Makes the probe: a layer with the widths of c, or with smaller ones where those would take long, and tokens
 * in sequences of `sequence` or fewer.  backward: with what a backward pass needs.  moe_probe_close is due
 * after a failure as well. */
enum moe_code moe_probe_open(struct moe_probe *p, const struct moe_config *c, int64_t sequence, bool backward,
                             struct moe_pool *pool, struct moe_err *err);
void moe_probe_close(struct moe_probe *p);

/* Allocates an array of n elements of `size` bytes; n ones; an MLP with made-up weights.  Without memory
 * p->failed is set, and the pointer is NULL. */
void *moe_probe_array(struct moe_probe *p, int64_t n, size_t size);
float *moe_probe_ones(struct moe_probe *p, int64_t n);
struct moe_expert moe_probe_mlp(struct moe_probe *p, int64_t hidden, int64_t inter);

#endif
