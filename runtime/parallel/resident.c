/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/parallel/resident.h"

#include "base/grow.h"
#include "base/io.h"
#include "formats/container/staged.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

/* Bytes [from, to) of a file. */
struct range { int32_t file; uint64_t from, to; };
struct ranges { struct range *v; size_t n, cap; };

static int by_place(const void *a, const void *b)
{
    const struct range *x = a, *y = b;
    if (x->file != y->file) return x->file < y->file ? -1 : 1;
    return (x->from > y->from) - (x->from < y->from);
}

/* Adds the byte range of each plane of a tensor; false: no memory. */
static bool add_tensor(struct ranges *r, const struct moe_tensor *t)
{
    for (int k = 0; k < MOE_PLANE_COUNT; k++) {
        const struct moe_span *s = &t->plane[k];
        if (s->file < 0 || !s->bytes) continue;
        if (!MOE_GROW(r->v, r->cap, r->n + 1)) return false;
        r->v[r->n++] = (struct range){ s->file, s->offset, s->offset + s->bytes };
    }
    return true;
}

/* Sorts the ranges, and joins those that are less than a page apart. */
static void join(struct ranges *r, uint64_t page)
{
    size_t n = 0;
    if (r->n) qsort(r->v, r->n, sizeof *r->v, by_place);
    for (size_t i = 0; i < r->n; i++) {
        struct range *last = n ? &r->v[n - 1] : NULL;
        if (last && last->file == r->v[i].file && r->v[i].from < last->to + page) {
            if (r->v[i].to > last->to) last->to = r->v[i].to;
        } else {
            r->v[n++] = r->v[i];
        }
    }
    r->n = n;
}

static void *address_of(const struct moe_file *f, uint64_t offset)
{
    return (void *)(uintptr_t)(f->map + offset);
}

/* Maps the pages that hold these ranges into the reserved addresses. */
static enum moe_code map(struct moe_resident *p, struct ranges *r, struct moe_err *err)
{
    uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
    join(r, page);
    for (size_t i = 0; i < r->n; i++) {
        const struct moe_file *f = &p->source.files[r->v[i].file];
        uint64_t from = r->v[i].from / page * page, bytes = (r->v[i].to + page - 1) / page * page - from;
        if (f->fd < 0) return moe_fail_at(err, MOE_IO, f->path, NULL, "is not open");
        if (mmap(address_of(f, from), bytes, PROT_READ, MAP_SHARED | MAP_FIXED, f->fd, (off_t)from) ==
            MAP_FAILED)
            return moe_fail_errno(err, errno, f->path, "cannot map a part of it");
        p->mapped += bytes;
    }
    return MOE_OK;
}

/* Takes away the access to the pages that hold nothing but these ranges; pages at their ends may hold other
 * tensors. */
static void unmap(struct moe_resident *p, struct ranges *r)
{
    uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
    join(r, 1);
    for (size_t i = 0; i < r->n; i++) {
        const struct moe_file *f = &p->source.files[r->v[i].file];
        uint64_t from = (r->v[i].from + page - 1) / page * page, to = r->v[i].to / page * page;
        if (from >= to) continue;
        mmap(address_of(f, from), to - from, PROT_NONE,
             MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
        p->mapped -= to - from;
    }
}

/* ---- open and close ---- */

/* Reserves the addresses of every file, without access, and allocates p->held. */
static enum moe_code reserve(struct moe_resident *p, const struct moe_source *whole, struct moe_err *err)
{
    p->source.files = calloc((size_t)whole->n_files + 1, sizeof *p->source.files);
    p->held = calloc((size_t)(whole->config.num_hidden_layers * whole->config.n_routed_experts) + 1,
                     sizeof *p->held);
    if (!p->source.files || !p->held) return moe_fail(err, MOE_NOMEM, "no memory for a part of the model");
    for (int32_t i = 0; i < whole->n_files; i++) {
        struct moe_file *f = &p->source.files[i];
        *f = whole->files[i];
        f->map = NULL;
        if (!f->size) continue;
        void *a = mmap(NULL, f->size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (a == MAP_FAILED) return moe_fail_errno(err, errno, f->path, "cannot reserve addresses for it");
        f->map = a;
    }
    return MOE_OK;
}

enum moe_code moe_resident_open(struct moe_resident **out, const struct moe_source *whole,
                                struct moe_err *err)
{
    struct moe_resident *p = calloc(1, sizeof *p);
    struct ranges r = { 0 };
    *out = NULL;
    if (!p) return moe_fail(err, MOE_NOMEM, "no memory for a part of the model");
    p->source = *whole;
    enum moe_code code = reserve(p, whole, err);
    for (int64_t i = 0; code == MOE_OK && i < whole->n_tensors; i++)
        if (whole->tensors[i].expert < 0 && !add_tensor(&r, &whole->tensors[i]))
            code = moe_fail(err, MOE_NOMEM, "no memory for a part of the model");
    if (code == MOE_OK) code = map(p, &r, err);
    free(r.v);
    if (code != MOE_OK) moe_resident_close(&p);
    *out = p;
    return code;
}

void moe_resident_close(struct moe_resident **pp)
{
    struct moe_resident *p = *pp;
    *pp = NULL;
    if (!p) return;
    for (int32_t i = 0; p->source.files && i < p->source.n_files; i++)
        moe_unmap(p->source.files[i].map, p->source.files[i].size);
    free(p->source.files);
    free(p->held);
    free(p);
}

/* ---- experts ---- */

/* The three matrices of an expert. */
static const enum moe_role roles[] = { MOE_ROLE_EXPERT_GATE, MOE_ROLE_EXPERT_UP, MOE_ROLE_EXPERT_DOWN };

/* Adds the byte ranges of an expert's matrices, as far as the source has them; false: no memory. */
static bool add_expert(const struct moe_resident *p, int layer, int64_t e, struct ranges *r)
{
    for (int k = 0; k < 3; k++) {
        const struct moe_tensor *t = moe_source_find(&p->source, roles[k], layer, (int)e);
        if (t && !add_tensor(r, t)) return false;
    }
    return true;
}

/* Sets the weights of an expert in the model; their pointers are NULL when it is not resident. */
static void set_weights(const struct moe_resident *p, int layer, int64_t e, struct moe_model *m)
{
    struct moe_expert *x = m ? &m->layers[layer].experts[e] : NULL;
    struct moe_weight *w[] = { x ? &x->gate : NULL, x ? &x->up : NULL, x ? &x->down : NULL };
    for (int k = 0; x && k < 3; k++) {
        moe_source_weight(&p->source, moe_source_find(&p->source, roles[k], layer, (int)e), w[k]);
        if (!moe_resident_holds(p, layer, e)) w[k]->data = w[k]->scale = NULL;
    }
}

enum moe_code moe_resident_add(struct moe_resident *p, int layer, const bool *held, struct moe_model *m,
                               struct moe_err *err)
{
    int64_t n = p->source.config.n_routed_experts;
    bool *have = p->held + layer * n;
    struct ranges r = { 0 };
    enum moe_code code = MOE_OK;
    for (int64_t e = 0; code == MOE_OK && e < n; e++) {
        if (!held[e] || have[e]) continue;
        if (!moe_source_has_expert(&p->source, layer, (int)e))
            code = moe_staged_fail_absent(&p->source, layer, e, -1, err);
        else if (!add_expert(p, layer, e, &r))
            code = moe_fail(err, MOE_NOMEM, "no memory for a part of the model");
    }
    if (code == MOE_OK) code = map(p, &r, err);
    free(r.v);
    for (int64_t e = 0; code == MOE_OK && e < n; e++) {
        have[e] |= held[e];
        set_weights(p, layer, e, m);
    }
    return code;
}

void moe_resident_keep(struct moe_resident *p, int layer, const bool *held, struct moe_model *m)
{
    int64_t n = p->source.config.n_routed_experts;
    bool *have = p->held + layer * n, listed = true;
    struct ranges r = { 0 };
    for (int64_t e = 0; e < n; e++) {
        if (!have[e] || held[e]) continue;
        listed &= add_expert(p, layer, e, &r);
        have[e] = false;
        set_weights(p, layer, e, m);
    }
    if (listed) unmap(p, &r); /* without memory for the list they stay mapped, and unused */
    free(r.v);
}
