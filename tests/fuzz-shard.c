/* A shard's header and table from anybody: whatever is accepted lies inside the file.  The checksums are redone first, or
 * nothing would get past them. */
#include "formats/container-internal.h"
#include "base/io.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void redo_checksums(unsigned char *p, size_t size)
{
    struct moe_shard_header h;
    if (size < sizeof h) return;
    memcpy(&h, p, sizeof h);
    if (h.record_count <= (size - sizeof h) / 64) h.table_hash = moe_hash64(p + sizeof h, 64 * (size_t)h.record_count);
    h.header_hash = 0;
    h.header_hash = moe_hash64(&h, sizeof h);
    memcpy(p, &h, sizeof h);
}

static void read_table(const unsigned char *head, size_t size)
{
    struct moe_shard_header h;
    struct moe_err err;
    memcpy(&h, head, sizeof h);
    const struct moe_shard_record *r = (const struct moe_shard_record *)(const void *)(head + sizeof h);
    for (uint64_t i = 0, used; i < h.record_count; i += used) {
        struct moe_tensor t;
        if (moe_shard_tensor(&h, r + i, h.record_count - i, 0, "fuzz", &t, &used, &err) != MOE_OK) continue;
        for (int p = 0; p < MOE_PLANE_COUNT; p++)
            if (t.plane[p].file >= 0 && (t.plane[p].offset > size || t.plane[p].bytes > size - t.plane[p].offset)) abort();
    }
    moe_shard_check_overlap(r, h.record_count, "fuzz", &err);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    unsigned char *copy = malloc(size + 1), *head;
    size_t n;
    struct moe_err err;
    int fd = memfd_create("fuzz", 0);
    if (!copy || fd < 0) abort();
    if (size) memcpy(copy, data, size);
    redo_checksums(copy, size);
    if (moe_pwrite(fd, "fuzz", copy, size, 0, &err) != MOE_OK) abort();
    if (moe_shard_read_head(fd, "fuzz", size, &head, &n, &err) == MOE_OK) {
        if (n > size) abort();
        read_table(head, size);
        free(head);
    }
    close(fd);
    free(copy);
    return 0;
}
