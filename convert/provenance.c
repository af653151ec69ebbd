/* SPDX-License-Identifier: Apache-2.0 */
/* The lines of source.jsonl, parsed. */
#include "convert/provenance.h"

#include "base/io.h"
#include "formats/checkpoint/safetensors.h"
#include "formats/container/container.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char *keep(struct moe_provenance *x, const char *s)
{
    size_t n = strlen(s) + 1;
    char *p = moe_arena_alloc(&x->arena, n);
    if (!p) x->no_memory = true;
    return p ? memcpy(p, s, n) : NULL;
}

static bool from_hex(const char *hex, unsigned char *out, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        unsigned v;
        if (sscanf(hex + 2 * i, "%2x", &v) != 1) return false;
        out[i] = (unsigned char)v;
    }
    return true;
}

/* One line: [name, dtype, [shape], file, hash | null, skipped | null, bytes | null]. */
static bool parse_line(struct moe_provenance *p, const cJSON *line, struct moe_origin *e,
                       const char *last_file)
{
    const cJSON *c[7];
    int n = 0;
    if (!cJSON_IsArray(line)) return false;
    for (const cJSON *i = line->child; i; i = i->next, n++)
        if (n < 7) c[n] = i;
    if (n != 7 || !cJSON_IsString(c[0]) || !cJSON_IsString(c[1]) || !cJSON_IsArray(c[2]) ||
        !cJSON_IsString(c[3]))
        return false;
    if (strlen(c[1]->valuestring) >= sizeof e->dtype || !moe_plain_name(c[3]->valuestring)) return false;
    snprintf(e->dtype, sizeof e->dtype, "%s", c[1]->valuestring);
    for (const cJSON *d = c[2]->child; d; d = d->next) {
        if (e->ndim == 8 || !cJSON_IsNumber(d) || d->valuedouble < 0 || d->valuedouble > 1e15) return false;
        e->shape[e->ndim++] = (int64_t)d->valuedouble;
    }
    int64_t bytes = moe_st_bytes(e->dtype, e->shape, e->ndim);
    if (bytes < 0) return false;
    e->bytes = (uint64_t)bytes;
    if (cJSON_IsString(c[4]) && sscanf(c[4]->valuestring, "%16llx", (unsigned long long *)&e->hash) != 1)
        return false;
    if (cJSON_IsString(c[5]) && !(e->skipped = keep(p, c[5]->valuestring))) return false;
    if (cJSON_IsString(c[6])) {
        size_t k = strlen(c[6]->valuestring) / 2;
        unsigned char *b = moe_arena_alloc(&p->arena, k + 1);
        if (!b) p->no_memory = true;
        if (k != e->bytes || !b || !from_hex(c[6]->valuestring, b, k)) return false;
        e->literal = b;
        e->literal_bytes = k;
    }
    e->file = last_file && !strcmp(last_file, c[3]->valuestring) ? last_file : keep(p, c[3]->valuestring);
    e->name = keep(p, c[0]->valuestring);
    return e->file && e->name;
}

static enum moe_code parse(struct moe_provenance *p, char *text, size_t size, const char *path,
                           struct moe_err *err)
{
    int64_t lines = 0;
    for (size_t i = 0; i < size; i++) lines += text[i] == '\n';
    p->entries = MOE_NEWN(&p->arena, struct moe_origin, lines + 1);
    if (!p->entries)
        return moe_fail_at(err, MOE_NOMEM, path, NULL, "no memory for %lld lines", (long long)lines);
    for (char *s = text, *end; s < text + size; s = end + 1) {
        end = memchr(s, '\n', (size_t)(text + size - s));
        if (!end) return moe_fail_at(err, MOE_CORRUPT, path, NULL, "the last line is cut short");
        cJSON *line;
        MOE_TRY(moe_json_parse(s, (size_t)(end - s), path, &line, err));
        bool ok = parse_line(p, line, &p->entries[p->n], p->n ? p->entries[p->n - 1].file : NULL);
        cJSON_Delete(line);
        if (p->no_memory) return moe_fail_at(err, MOE_NOMEM, path, NULL, "no memory for its lines");
        if (!ok)
            return moe_fail_at(err, MOE_CORRUPT, path, NULL, "line %lld is malformed", (long long)p->n + 1);
        p->n++;
    }
    if (!p->n) return moe_fail_at(err, MOE_CORRUPT, path, NULL, "is empty");
    return MOE_OK;
}

enum moe_code moe_provenance_open(struct moe_provenance **out, const struct moe_source *src,
                                  struct moe_err *err)
{
    char path[PATH_MAX], *text;
    size_t size;
    struct moe_provenance *p;
    *out = NULL;
    MOE_TRY(moe_path_join(path, sizeof path, src->path, "source.jsonl", err));
    MOE_TRY(moe_container_read_file(src, "source.jsonl", &text, &size, err));
    p = calloc(1, sizeof *p);
    enum moe_code code = p ? parse(p, text, size, path, err)
                           : moe_fail(err, MOE_NOMEM, "no memory for provenance");
    free(text);
    if (code != MOE_OK) moe_provenance_close(&p);
    *out = p;
    return code;
}

void moe_provenance_close(struct moe_provenance **p)
{
    if (!*p) return;
    moe_arena_clear(&(*p)->arena);
    free(*p);
    *p = NULL;
}
