/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/comm/wire-keep.h"

#include "base/show.h"
#include "runtime/comm/wire-internal.h"

#include <assert.h>
#include <stdio.h>

#define MAGIC "MOEKEEPS"
enum { MAGIC_BYTES = 8, HEAD = MAGIC_BYTES + 4 + 4 };
static_assert(sizeof MAGIC == MAGIC_BYTES + 1, "the magic number fills its field");
static_assert(HEAD + 4 + MOE_KEEP_TERMS * (2 + MOE_KEEP_NAME + MOE_KEEP_VALUE) <= (int)MOE_KEEP_PACKET,
              "the longest OFFER fits a packet");
static_assert(HEAD + MOE_KEEP_TEXT <= (int)MOE_KEEP_PACKET, "the longest FAILED fits a packet");

/* ---- terms ---- */

void moe_keep_add(struct moe_keep_terms *t, const char *name, const char *value)
{
    MOE_CHECK(t->n < MOE_KEEP_TERMS && *name && *value);
    MOE_CHECK(strlen(name) < MOE_KEEP_NAME && strlen(value) < MOE_KEEP_VALUE);
    memset(&t->item[t->n], 0, sizeof t->item[t->n]);
    snprintf(t->item[t->n].name, MOE_KEEP_NAME, "%s", name);
    snprintf(t->item[t->n++].value, MOE_KEEP_VALUE, "%s", value);
}

int moe_keep_difference(const struct moe_keep_terms *a, const struct moe_keep_terms *b)
{
    for (uint32_t i = 0; i < a->n || i < b->n; i++)
        if (i >= a->n || i >= b->n || strcmp(a->item[i].name, b->item[i].name) ||
            strcmp(a->item[i].value, b->item[i].value))
            return (int)i;
    return -1;
}

static void put_terms(unsigned char **at, const struct moe_keep_terms *t)
{
    put32(at, t->n);
    for (uint32_t i = 0; i < t->n; i++) {
        size_t name = strlen(t->item[i].name), value = strlen(t->item[i].value);
        put_uint(at, name, 1);
        put_uint(at, value, 1);
        put_bytes(at, t->item[i].name, name);
        put_bytes(at, t->item[i].value, value);
    }
}

/* Reads a text of n bytes, at least one and no NUL, into out [cap]. */
static void get_text(struct fields *in, size_t n, char *out, size_t cap)
{
    const unsigned char *p = get_bytes(in, n);
    in->bad |= !n || n >= cap || (p && memchr(p, 0, n));
    if (in->bad) return;
    memcpy(out, p, n);
    out[n] = 0;
    moe_show(out, cap);
}

static void get_terms(struct fields *in, struct moe_keep_terms *t)
{
    t->n = get32(in);
    in->bad |= t->n > MOE_KEEP_TERMS;
    for (uint32_t i = 0; !in->bad && i < t->n; i++) {
        size_t name = (size_t)get_uint(in, 1), value = (size_t)get_uint(in, 1);
        get_text(in, name, t->item[i].name, MOE_KEEP_NAME);
        get_text(in, value, t->item[i].value, MOE_KEEP_VALUE);
    }
}

/* ---- messages ---- */

size_t moe_keep_put(unsigned char out[MOE_KEEP_PACKET], const struct moe_keep_message *m)
{
    unsigned char *at = out;
    put_bytes(&at, MAGIC, MAGIC_BYTES);
    put32(&at, m->version);
    put32(&at, m->type);
    if (m->type == MOE_KEEP_OFFER) put_terms(&at, &m->terms);
    if (m->type == MOE_KEEP_TAKE || m->type == MOE_KEEP_GIVE) {
        put64(&at, m->first);
        put32(&at, m->n);
    }
    if (m->type == MOE_KEEP_FAILED) put_bytes(&at, m->text, strlen(m->text));
    return (size_t)(at - out);
}

bool moe_keep_get(const void *p, size_t bytes, struct moe_keep_message *m)
{
    struct fields in = read_fields(p, bytes);
    const unsigned char *magic = get_bytes(&in, MAGIC_BYTES);
    *m = (struct moe_keep_message){ .version = get32(&in) };
    if (in.bad || memcmp(magic, MAGIC, MAGIC_BYTES)) return false;
    if (m->version != MOE_KEEP_VERSION) return true;
    m->type = get32(&in);
    switch (m->type) {
    case MOE_KEEP_OFFER: get_terms(&in, &m->terms); break;
    case MOE_KEEP_TAKE:
    case MOE_KEEP_GIVE:
        m->first = get64(&in);
        m->n = get32(&in);
        in.bad |= !m->n || m->n > MOE_KEEP_UNITS || m->first > UINT64_MAX - m->n;
        break;
    case MOE_KEEP_FAILED: get_text(&in, (size_t)(in.end - in.at), m->text, MOE_KEEP_TEXT); break;
    default: in.bad = true;
    }
    return !in.bad && in.at == in.end;
}
