/* SPDX-License-Identifier: Apache-2.0 */
/* Reads any bytes as the header and table of a shard file: whatever is accepted has to lie inside the file.
 * What the input lacks of a file is filled up, and all checksums are computed anew, as otherwise every input
 * would fail at a checksum; then the shard replaces one of a small container that is otherwise sound, and
 * that container is opened. */
#include "base/hash.h"
#include "tests/fuzz/fuzzcontainer.h"

#include <limits.h>
#include <sys/mman.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { FILE_MAX = 1 << 22, HEAD = sizeof(struct moe_shard_header), RECORD = sizeof(struct moe_shard_record) };

struct file { unsigned char *p; size_t n; };

static struct file whole(const uint8_t *data, size_t size)
{
    struct moe_shard_header h;
    struct file f = { NULL, size };
    if (size >= HEAD) {
        memcpy(&h, data, HEAD);
        if (h.file_bytes > size && h.file_bytes <= FILE_MAX) f.n = (size_t)h.file_bytes;
    }
    assert(f.p = calloc(1, f.n + 1));
    if (size) memcpy(f.p, data, size);
    return f;
}

/* The single values must be above zero; the hash of each plane that lies in the file
 * becomes that of its bytes. */
static void redo_record(struct file f, unsigned char *at, bool fill)
{
    struct moe_shard_record r;
    memcpy(&r, at, RECORD);
    if (r.offset > f.n || r.bytes > f.n - r.offset) return;
    if (fill && r.plane >= MOE_PLANE_GLOBAL && r.bytes == 4 && r.offset >= (size_t)(at - f.p) + RECORD)
        memset(f.p + r.offset, 0x3d, 4);
    r.hash = moe_hash64(f.p + r.offset, (size_t)r.bytes);
    memcpy(at, &r, RECORD);
}

static void redo_checksums(struct file f, bool fill)
{
    struct moe_shard_header h;
    if (f.n < HEAD) return;
    memcpy(&h, f.p, HEAD);
    if (h.record_count <= (f.n - HEAD) / RECORD) {
        for (uint64_t i = 0; i < h.record_count; i++) redo_record(f, f.p + HEAD + RECORD * i, fill);
        h.table_hash = moe_hash64(f.p + HEAD, RECORD * (size_t)h.record_count);
    }
    h.header_hash = 0;
    h.header_hash = moe_hash64(&h, HEAD);
    memcpy(f.p, &h, HEAD);
}

static void read_table(const unsigned char *head, size_t size)
{
    struct moe_shard_header h;
    struct moe_err err;
    memcpy(&h, head, HEAD);
    const struct moe_shard_record *r = (const struct moe_shard_record *)(const void *)(head + HEAD);
    for (uint64_t i = 0, used; i < h.record_count; i += used) {
        struct moe_tensor t;
        enum moe_code code = moe_shard_tensor(&h, r + i, h.record_count - i, 0, "fuzz", &t, &used, &err);
        assert(used > 0 && used <= h.record_count - i);
        if (code != MOE_OK) continue;
        for (int p = 0; p < MOE_PLANE_COUNT; p++)
            assert(t.plane[p].file < 0 ||
                   (t.plane[p].offset <= size && t.plane[p].bytes <= size - t.plane[p].offset));
    }
    moe_shard_check_overlap(r, h.record_count, "fuzz", &err);
}

/* The shard replaces that of its layer, which is put back afterwards. */
static void open_in_container(struct file f, const unsigned char *head, size_t n)
{
    struct moe_shard_header h;
    char name[32], path[PATH_MAX], hex[33], *own;
    struct moe_err err;
    size_t own_bytes;
    memcpy(&h, head, HEAD);
    snprintf(name, sizeof name, h.layer < 0 ? "m.moe/dense.moe" : "m.moe/layer-%03d.moe", h.layer);
    cJSON *m = cJSON_Duplicate(fuzz_manifest, true), *e = fuzz_entry(m, name + 6);
    assert(m);
    if (e) {
        snprintf(path, sizeof path, "%s/%s", fuzz_dir, name);
        assert(moe_read_file(path, FILE_MAX, &own, &own_bytes, &err) == MOE_OK);
        moe_hex128(moe_hash128(head, n), hex);
        cJSON_SetValuestring(cJSON_GetObjectItemCaseSensitive(e, "xxh3_128"), hex);
        cJSON_SetNumberValue(cJSON_GetObjectItemCaseSensitive(e, "bytes"), (double)f.n);
        fuzz_put(name, f.p, f.n);
        fuzz_seal(m);
        fuzz_open(fuzz_model);
        fuzz_put(name, own, own_bytes);
        free(own);
    }
    cJSON_Delete(m);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct file f = whole(data, size);
    unsigned char *head;
    size_t n;
    struct moe_err err;
    int fd = memfd_create("fuzz", 0);
    assert(fd >= 0);
    fuzz_container_make();
    redo_checksums(f, f.n > size);
    assert(moe_pwrite(fd, "fuzz", f.p, f.n, 0, &err) == MOE_OK);
    if (moe_shard_read_head(fd, "fuzz", f.n, &head, &n, &err) == MOE_OK) {
        assert(n <= f.n);
        read_table(head, f.n);
        open_in_container(f, head, n);
        free(head);
    }
    close(fd);
    free(f.p);
    return 0;
}
