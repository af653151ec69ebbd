/* SPDX-License-Identifier: Apache-2.0 */
#include "formats/tokenizer/tokenizer-internal.h"

#include <stdlib.h>
#include <string.h>

static uint64_t load64(const unsigned char *p) { uint64_t v; memcpy(&v, p, 8); return v; }
static uint64_t load32(const unsigned char *p) { uint32_t v; memcpy(&v, p, 4); return v; }

static uint64_t mix(uint64_t h, uint64_t v)
{
    h = (h ^ v) * 0x9e3779b97f4a7c15u;
    return h ^ h >> 32;
}

static uint64_t hash_bytes(const unsigned char *s, size_t len)
{
    uint64_t h = mix(0x243f6a8885a308d3u, len);
    for (; len > 16; s += 8, len -= 8) h = mix(h, load64(s));
    if (len >= 8) return mix(mix(h, load64(s)), load64(s + len - 8));
    if (len >= 4) return mix(h, load32(s) << 32 | load32(s + len - 4));
    return mix(h, (uint64_t)s[0] << 16 | (uint64_t)s[len / 2] << 8 | s[len - 1]);
}

int32_t moe_bpe_find(const struct moe_bpe *b, const unsigned char *s, size_t len)
{
    if (len == 0 || len > b->longest) return -1;
    uint64_t h = hash_bytes(s, len);
    for (uint32_t i = (uint32_t)h & b->mask;; i = (i + 1) & b->mask) {
        const struct moe_bpe_slot *slot = &b->slots[i];
        if (slot->id < 0) return -1;
        if (slot->tag != (uint32_t)(h >> 32)) continue;
        uint32_t at = b->start[slot->id];
        if (b->start[slot->id + 1] - at == len && !memcmp(b->bytes + at, s, len)) return slot->id;
    }
}

static void fill_small(struct moe_bpe *b)
{
    for (int c = 0; c < 256; c++) b->single[c] = moe_bpe_find(b, &(unsigned char){ (unsigned char)c }, 1);
    for (int c = 0; c < 65536; c++)
        b->pair[c] = moe_bpe_find(b, (unsigned char[]){ (unsigned char)(c >> 8), (unsigned char)c }, 2);
}

int moe_bpe_index(struct moe_bpe *b, int32_t *twice)
{
    uint32_t cap = 16;
    while (cap < 3 * (uint32_t)b->count) cap *= 2;
    b->slots = malloc(cap * sizeof *b->slots);
    b->pair = malloc(65536 * sizeof *b->pair);
    if (!b->slots || !b->pair) return -1;
    memset(b->slots, 0xff, cap * sizeof *b->slots);
    b->mask = cap - 1;
    for (int32_t id = 0; id < b->count; id++) {
        const unsigned char *s = b->bytes + b->start[id];
        size_t len = b->start[id + 1] - b->start[id];
        if (moe_bpe_find(b, s, len) >= 0) { *twice = id; return 0; }
        uint64_t h = hash_bytes(s, len);
        uint32_t i = (uint32_t)h & b->mask;
        while (b->slots[i].id >= 0) i = (i + 1) & b->mask;
        b->slots[i] = (struct moe_bpe_slot){ (uint32_t)(h >> 32), id };
    }
    fill_small(b);
    return 1;
}

void moe_bpe_release(struct moe_bpe *b)
{
    free(b->bytes);
    free(b->start);
    free(b->slots);
    free(b->pair);
    *b = (struct moe_bpe){ 0 };
}

int moe_ids_room(struct moe_ids *ids, size_t more)
{
    if (ids->cap - ids->count >= more) return 1;
    size_t cap = ids->cap + ids->cap / 2 + more + 16;
    if (ids->most && cap > ids->most) cap = ids->most;
    if (cap - ids->count < more || cap < ids->count) return 0;
    int32_t *v = cap > SIZE_MAX / sizeof *v ? NULL : realloc(ids->v, cap * sizeof *v);
    if (!v) return 0;
    ids->v = v;
    ids->cap = cap;
    return 1;
}

enum moe_code moe_ids_refuse(const struct moe_ids *ids, size_t more, struct moe_err *err)
{
    unsigned long long need = (ids->count + (unsigned long long)more) * sizeof *ids->v;
    if (!ids->most || need <= ids->most * sizeof *ids->v)
        return moe_fail(err, MOE_NOMEM, "no memory for %zu tokens", ids->count + more);
    return moe_fail(err, MOE_NOMEM,
                    "its tokens take up to %llu bytes of memory, and %llu are there for them (allow more "
                    "with --memory, or give less text at once)",
                    need, (unsigned long long)ids->most * sizeof *ids->v);
}

/* ---- short pre-tokens: parts in an array, which is searched for the lowest rank ---- */

static int32_t pair_rank(const struct moe_bpe *b, const unsigned char *s, size_t from, size_t to)
{
    return to - from == 2 ? b->pair[s[from] << 8 | s[from + 1]] : moe_bpe_find(b, s + from, to - from);
}

static void encode_short(const struct moe_bpe *b, const unsigned char *s, size_t len, struct moe_ids *ids)
{
    uint8_t start[MOE_BPE_SHORT + 2];
    uint32_t rank[MOE_BPE_SHORT + 2]; /* of part i joined with part i+1; -1, no token, becomes the largest */
    size_t n = len;
    for (size_t i = 0; i <= n; i++) start[i] = (uint8_t)i;
    for (size_t i = 0; i + 1 < n; i++) rank[i] = (uint32_t)b->pair[s[i] << 8 | s[i + 1]];
    while (n > 1) {
        size_t best = 0;
        for (size_t i = 1; i + 1 < n; i++)
            if (rank[i] < rank[best]) best = i; /* of equal ranks the leftmost */
        if (rank[best] == UINT32_MAX) break;
        memmove(start + best + 1, start + best + 2, n - best - 1);
        memmove(rank + best, rank + best + 1, (n - best - 1) * sizeof *rank);
        n--;
        if (best + 1 < n) rank[best] = (uint32_t)pair_rank(b, s, start[best], start[best + 2]);
        if (best > 0) rank[best - 1] = (uint32_t)pair_rank(b, s, start[best - 1], start[best + 1]);
    }
    for (size_t i = 0; i < n; i++) {
        size_t part = (size_t)start[i + 1] - start[i];
        ids->v[ids->count++] = part == 1 ? b->single[s[start[i]]] : pair_rank(b, s, start[i], start[i + 1]);
    }
}

/* ---- long pre-tokens: a linked list of parts and a heap of pairs ---- */

/* A heap entry is rank << 32 | start, so the smallest entry has the lowest rank and, of equal ranks, is the
 * leftmost.  An entry is stale when rank[start] has changed.  When it has not, the bytes are the same, so it
 * is the same pair. */
static void sift_down(uint64_t *h, size_t n, size_t i)
{
    uint64_t v = h[i];
    for (size_t k; (k = 2 * i + 1) < n; i = k) {
        if (k + 1 < n && h[k + 1] < h[k]) k++;
        if (h[k] >= v) break;
        h[i] = h[k];
    }
    h[i] = v;
}

static int push(struct moe_bpe_work *w, uint64_t v)
{
    if (w->heap_count == w->heap_cap) {
        size_t cap = w->heap_cap + w->heap_cap / 2 + 64;
        uint64_t *h = realloc(w->heap, cap * sizeof *h);
        if (!h) return 0;
        w->heap = h;
        w->heap_cap = cap;
    }
    size_t i = w->heap_count++;
    w->steps++;
    for (; i && w->heap[(i - 1) / 2] > v; i = (i - 1) / 2) w->heap[i] = w->heap[(i - 1) / 2];
    w->heap[i] = v;
    return 1;
}

static uint64_t pop(struct moe_bpe_work *w)
{
    uint64_t least = w->heap[0];
    w->steps++;
    w->heap[0] = w->heap[--w->heap_count];
    if (w->heap_count) sift_down(w->heap, w->heap_count, 0);
    return least;
}

static int work_room(struct moe_bpe_work *w, size_t len)
{
    if (len + 1 > w->cap) {
        size_t cap = len + 1;
        moe_bpe_work_release(w);
        w->next = malloc(cap * sizeof *w->next);
        w->prev = malloc(cap * sizeof *w->prev);
        w->rank = malloc(cap * sizeof *w->rank);
        if (!w->next || !w->prev || !w->rank) return 0;
        w->cap = cap;
    }
    if (len > w->heap_cap) {
        free(w->heap);
        w->heap = malloc(len * sizeof *w->heap);
        w->heap_cap = w->heap ? len : 0;
    }
    return w->heap != NULL;
}

void moe_bpe_work_release(struct moe_bpe_work *w)
{
    free(w->next);
    free(w->prev);
    free(w->rank);
    free(w->heap);
    *w = (struct moe_bpe_work){ 0 };
}

/* Set the rank of the pair that begins at `at`, and push an entry on the heap when the pair is a token. */
static int rate(const struct moe_bpe *b, struct moe_bpe_work *w, const unsigned char *s, uint32_t at,
                uint32_t len)
{
    uint32_t mid = w->next[at];
    w->rank[at] = mid < len ? pair_rank(b, s, at, w->next[mid]) : -1;
    return w->rank[at] < 0 || push(w, (uint64_t)w->rank[at] << 32 | at);
}

static int merge_long(const struct moe_bpe *b, struct moe_bpe_work *w, const unsigned char *s, uint32_t len)
{
    w->heap_count = 0;
    for (uint32_t i = 0; i < len; i++) {
        w->next[i] = i + 1;
        w->prev[i] = i ? i - 1 : UINT32_MAX;
        w->rank[i] = i + 1 < len ? b->pair[s[i] << 8 | s[i + 1]] : -1;
        if (w->rank[i] >= 0) w->heap[w->heap_count++] = (uint64_t)w->rank[i] << 32 | i;
    }
    for (size_t i = w->heap_count / 2; i-- > 0;) sift_down(w->heap, w->heap_count, i);
    while (w->heap_count) {
        uint64_t least = pop(w);
        uint32_t at = (uint32_t)least, gone;
        if (w->rank[at] != (int32_t)(least >> 32)) continue;
        gone = w->next[at];
        w->next[at] = w->next[gone];
        w->rank[gone] = -1;
        if (w->next[at] < len) w->prev[w->next[at]] = at;
        if (!rate(b, w, s, at, len)) return 0;
        if (w->prev[at] != UINT32_MAX && !rate(b, w, s, w->prev[at], len)) return 0;
    }
    return 1;
}

static enum moe_code encode_long(const struct moe_bpe *b, struct moe_bpe_work *w, const unsigned char *s,
                                 uint32_t len, struct moe_ids *ids, struct moe_err *err)
{
    size_t parts = 0;
    if (!work_room(w, len) || !merge_long(b, w, s, len)) goto nomem;
    for (uint32_t i = 0; i < len; i = w->next[i]) parts++;
    if (!moe_ids_room(ids, parts)) return moe_ids_refuse(ids, parts, err);
    for (uint32_t i = 0; i < len; i = w->next[i]) {
        uint32_t end = w->next[i];
        ids->v[ids->count++] = end - i == 1 ? b->single[s[i]] : moe_bpe_find(b, s + i, end - i);
    }
    return MOE_OK;
nomem:
    return moe_fail(err, MOE_NOMEM, "out of memory for a pre-token of %u bytes", len);
}

enum moe_code moe_bpe_encode(const struct moe_bpe *b, struct moe_bpe_work *w, const unsigned char *s,
                             size_t len, struct moe_ids *ids, struct moe_err *err)
{
    if (!moe_ids_room(ids, MOE_BPE_SHORT)) return moe_ids_refuse(ids, MOE_BPE_SHORT, err);
    if (len == 1) {
        ids->v[ids->count++] = b->single[s[0]];
        return MOE_OK;
    }
    int32_t whole = moe_bpe_find(b, s, len);
    if (whole >= 0) {
        ids->v[ids->count++] = whole;
        return MOE_OK;
    }
    if (len <= MOE_BPE_SHORT) {
        encode_short(b, s, len, ids);
        return MOE_OK;
    }
    if (len > INT32_MAX)
        return moe_fail(err, MOE_UNSUPPORTED, "a pre-token of %zu bytes (split the text)", len);
    return encode_long(b, w, s, (uint32_t)len, ids, err);
}
