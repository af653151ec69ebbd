/* SPDX-License-Identifier: Apache-2.0 */
/* runtime/comm/wire-internal.h - how the fields of messages are written and read.  Only runtime/comm/wire*.c
 * include it.
 *
 * A function named put writes one field at *at and moves *at behind it.  A function named get reads the next
 * field; once it has set in->bad, what is read has no meaning, so a reader looks at `bad` at the end, or
 * before it uses a number. */
#ifndef MOE_RUNTIME_COMM_WIRE_INTERNAL_H
#define MOE_RUNTIME_COMM_WIRE_INTERNAL_H

#include "runtime/comm/wire.h"

#include <math.h>
#include <string.h>

/* The fields of a message that are left to read.  bad: one that was read was missing or out of range. */
struct fields {
    const unsigned char *at, *end;
    bool bad;
};

static inline uint64_t get_uint(struct fields *in, int bytes)
{
    uint64_t v = 0;
    if (in->bad || in->end - in->at < bytes) {
        in->bad = true;
        return 0;
    }
    for (int i = 0; i < bytes; i++) v |= (uint64_t)in->at[i] << 8 * i;
    in->at += bytes;
    return v;
}

static inline void put_uint(unsigned char **at, uint64_t v, int bytes)
{
    for (int i = 0; i < bytes; i++) *(*at)++ = (unsigned char)(v >> 8 * i);
}

static inline uint32_t get32(struct fields *in) { return (uint32_t)get_uint(in, 4); }
static inline uint64_t get64(struct fields *in) { return get_uint(in, 8); }
static inline void put32(unsigned char **at, uint32_t v) { put_uint(at, v, 4); }
static inline void put64(unsigned char **at, uint64_t v) { put_uint(at, v, 8); }

static inline double get_double(struct fields *in)
{
    uint64_t bits = get64(in);
    double v;
    memcpy(&v, &bits, sizeof v);
    in->bad |= !isfinite(v);
    return v;
}

static inline void put_double(unsigned char **at, double v)
{
    uint64_t bits;
    memcpy(&bits, &v, sizeof bits);
    put64(at, bits);
}

static inline void put_bytes(unsigned char **at, const void *p, size_t bytes)
{
    if (bytes) memcpy(*at, p, bytes);
    *at += bytes;
}

/* Returns where the next n bytes lie; NULL, and sets in->bad, when fewer are left. */
static inline const unsigned char *get_bytes(struct fields *in, size_t n)
{
    const unsigned char *p = in->at;
    if (in->bad || (size_t)(in->end - in->at) < n) {
        in->bad = true;
        return NULL;
    }
    in->at += n;
    return p;
}

/* Begins to read a message. */
static inline struct fields read_fields(const void *p, size_t bytes)
{
    const unsigned char *at = p;
    return (struct fields){ at, at + bytes, false };
}

/* The fields of a failure. */
void moe_wire_put_err_fields(unsigned char **at, const struct moe_err *e);
void moe_wire_get_err_fields(struct fields *in, struct moe_err *e);

#endif
