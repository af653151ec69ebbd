/* SPDX-License-Identifier: Apache-2.0 */
/* Reads any bytes as a message between a keeper of weights and an engine (runtime/comm/wire-keep.h).  What is
 * accepted has to keep within every limit, be fit for a terminal, and be the same after it was written and
 * read again. */
#undef NDEBUG
#include "runtime/comm/wire-keep.h"

#include <assert.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_text(const char *s, size_t cap)
{
    assert(*s && memchr(s, 0, cap));
    for (; *s; s++) assert((unsigned char)*s >= 0x20 && *s != 0x7f);
}

static void check(const struct moe_keep_message *m)
{
    assert(m->type >= MOE_KEEP_OFFER && m->type <= MOE_KEEP_FAILED && m->terms.n <= MOE_KEEP_TERMS);
    for (uint32_t i = 0; i < m->terms.n; i++) {
        check_text(m->terms.item[i].name, MOE_KEEP_NAME);
        check_text(m->terms.item[i].value, MOE_KEEP_VALUE);
    }
    if (m->type == MOE_KEEP_TAKE || m->type == MOE_KEEP_GIVE)
        assert(m->n >= 1 && m->n <= MOE_KEEP_UNITS && m->first + m->n > m->first);
    if (m->type == MOE_KEEP_FAILED) check_text(m->text, MOE_KEEP_TEXT);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct moe_keep_message m, again;
    unsigned char out[MOE_KEEP_PACKET];
    if (!moe_keep_get(data, size, &m) || m.version != MOE_KEEP_VERSION) return 0;
    check(&m);
    size_t bytes = moe_keep_put(out, &m);
    assert(bytes <= sizeof out && moe_keep_get(out, bytes, &again));
    assert(again.type == m.type && again.first == m.first && again.n == m.n && !strcmp(again.text, m.text));
    assert(again.terms.n == m.terms.n && moe_keep_difference(&again.terms, &m.terms) < 0);
    return 0;
}
