/* SPDX-License-Identifier: Apache-2.0 */
/* The messages by which ranks meet (rendezvous.h): frames, JOIN and WELCOME. */
#include "runtime/comm/wire-internal.h"

#include "base/show.h"

#include <assert.h>

#define MAGIC "MOERANKS"
enum { MAGIC_BYTES = 8, ITEM_BYTES_MAX = 1 + MOE_AGREE_NAME + 16 };
static_assert(sizeof MAGIC == MAGIC_BYTES + 1, "the magic number fills its field");
static_assert(MOE_WIRE_FRAME_BYTES == (int)MAGIC_BYTES + 4 + 4 + 4 + 4 + 8 + 8, "the fields of a frame");

void moe_wire_frame_put(unsigned char out[MOE_WIRE_FRAME_BYTES], const struct moe_wire_frame *f)
{
    unsigned char *at = out;
    put_bytes(&at, MAGIC, MAGIC_BYTES);
    put32(&at, f->version);
    put32(&at, (uint32_t)f->rank);
    put32(&at, (uint32_t)f->ranks);
    put32(&at, f->type);
    put64(&at, f->secret);
    put64(&at, f->bytes);
}

bool moe_wire_frame_get(const unsigned char p[MOE_WIRE_FRAME_BYTES], struct moe_wire_frame *f)
{
    struct fields in = read_fields(p, MOE_WIRE_FRAME_BYTES);
    const unsigned char *magic = get_bytes(&in, MAGIC_BYTES);
    f->version = get32(&in);
    f->rank = (int32_t)get32(&in);
    f->ranks = (int32_t)get32(&in);
    f->type = get32(&in);
    f->secret = get64(&in);
    f->bytes = get64(&in);
    return !memcmp(magic, MAGIC, MAGIC_BYTES);
}

uint64_t moe_wire_body_max(uint32_t type, int ranks)
{
    switch (type) {
    case MOE_WIRE_HELLO: return MOE_WIRE_NONCE;
    case MOE_WIRE_CHALLENGE: return MOE_WIRE_NONCE + MOE_WIRE_MAC;
    case MOE_WIRE_JOIN:
        return MOE_WIRE_ERR_BYTES + 4 + MOE_AGREE_MAX * ITEM_BYTES_MAX + 4 + MOE_WIRE_ADDRESS_MAX +
               MOE_WIRE_MAC;
    case MOE_WIRE_WELCOME: return MOE_WIRE_KEY + (uint64_t)ranks * (4 + MOE_WIRE_ADDRESS_MAX) + MOE_WIRE_MAC;
    case MOE_WIRE_REFUSED: return MOE_WIRE_ERR_BYTES + MOE_WIRE_MAC;
    default: return 0;
    }
}

static void put_settings(unsigned char **at, const struct moe_agreement *a)
{
    put32(at, a->n);
    for (uint32_t i = 0; i < a->n; i++) {
        size_t n = strlen(a->item[i].name);
        put_uint(at, n, 1);
        put_bytes(at, a->item[i].name, n);
        put64(at, a->item[i].digest.high);
        put64(at, a->item[i].digest.low);
    }
}

static void get_settings(struct fields *in, struct moe_agreement *a)
{
    *a = (struct moe_agreement){ .n = get32(in) };
    in->bad |= a->n > MOE_AGREE_MAX;
    for (uint32_t i = 0; !in->bad && i < a->n; i++) {
        size_t n = (size_t)get_uint(in, 1);
        const unsigned char *p = get_bytes(in, n);
        in->bad |= !n || n >= MOE_AGREE_NAME || (p && memchr(p, 0, n));
        if (in->bad) return;
        memcpy(a->item[i].name, p, n);
        moe_show(a->item[i].name, sizeof a->item[i].name);
        a->item[i].digest.high = get64(in);
        a->item[i].digest.low = get64(in);
    }
}

size_t moe_wire_join_bytes(const struct moe_wire_join *j)
{
    size_t n = 4 + 3 * 2 + strlen(j->failure.msg) + strlen(j->failure.file) + strlen(j->failure.tensor) + 4 +
               4 + j->address_bytes;
    for (uint32_t i = 0; i < j->settings.n; i++) n += 1 + strlen(j->settings.item[i].name) + 16;
    return n;
}

void moe_wire_join_put(unsigned char *out, const struct moe_wire_join *j)
{
    moe_wire_put_err_fields(&out, &j->failure);
    put_settings(&out, &j->settings);
    put32(&out, (uint32_t)j->address_bytes);
    put_bytes(&out, j->address, j->address_bytes);
}

bool moe_wire_join_get(const unsigned char *p, size_t bytes, struct moe_wire_join *j)
{
    struct fields in = read_fields(p, bytes);
    struct fields ahead = in; /* looks at the code, which moe_wire_get_err_fields reads again */
    if (get32(&ahead) != MOE_OK) {
        moe_wire_get_err_fields(&in, &j->failure);
    } else { /* no failure: the lengths of its three texts are 0 */
        j->failure = (struct moe_err)MOE_ERR_INIT;
        get32(&in);
        in.bad |= get_uint(&in, 6) != 0;
    }
    get_settings(&in, &j->settings);
    j->address_bytes = get32(&in);
    in.bad |= j->address_bytes > MOE_WIRE_ADDRESS_MAX || (!j->address_bytes && j->failure.code == MOE_OK);
    j->address = get_bytes(&in, j->address_bytes);
    return !in.bad && in.at == in.end;
}

size_t moe_wire_welcome_bytes(int ranks, size_t addresses)
{
    return MOE_WIRE_KEY + 4 * (size_t)ranks + addresses;
}

void moe_wire_welcome_put(unsigned char *out, const unsigned char key[MOE_WIRE_KEY], int ranks,
                          const size_t *offset, const unsigned char *all)
{
    put_bytes(&out, key, MOE_WIRE_KEY);
    for (int r = 0; r < ranks; r++) put32(&out, (uint32_t)(offset[r + 1] - offset[r]));
    put_bytes(&out, all, offset[ranks]);
}

bool moe_wire_welcome_get(const unsigned char *p, size_t bytes, unsigned char key[MOE_WIRE_KEY], int ranks,
                          size_t *offset, const unsigned char **all)
{
    struct fields in = read_fields(p, bytes);
    const unsigned char *k = get_bytes(&in, MOE_WIRE_KEY);
    if (!k) return false;
    memcpy(key, k, MOE_WIRE_KEY);
    offset[0] = 0;
    for (int r = 0; r < ranks; r++) {
        uint32_t n = get32(&in);
        in.bad |= !n || n > MOE_WIRE_ADDRESS_MAX;
        offset[r + 1] = offset[r] + n;
    }
    *all = get_bytes(&in, offset[ranks]);
    return !in.bad && in.at == in.end;
}
