/* The head of a shard file: read and checked as far as one file tells by itself. */
#include "formats/container-internal.h"

#include "base/io.h"

#include <stdlib.h>
#include <string.h>

enum { HEAD = sizeof(struct moe_shard_header), RECORD = sizeof(struct moe_shard_record) };

static enum moe_code check_header(const struct moe_shard_header *h, const char *path, uint64_t size, struct moe_err *err)
{
    struct moe_shard_header z = *h;
#define BAD(code, ...) return moe_fail_at(err, code, path, NULL, __VA_ARGS__)
    if (memcmp(h->magic, MOE_SHARD_MAGIC, sizeof h->magic)) BAD(MOE_CORRUPT, "not a shard file (its first bytes are wrong)");
    if (h->version != MOE_SHARD_VERSION)
        BAD(MOE_UNSUPPORTED, "shard version %u (this program reads version %d)", h->version, MOE_SHARD_VERSION);
    z.header_hash = 0;
    if (moe_hash64(&z, HEAD) != h->header_hash) BAD(MOE_CORRUPT, "the header does not match its checksum (copy the file again)");
    if (h->incompatible) BAD(MOE_UNSUPPORTED, "it needs features 0x%llx (use a newer program)", (unsigned long long)h->incompatible);
    if (h->header_bytes != HEAD || h->record_bytes != RECORD || h->table_offset != HEAD) BAD(MOE_CORRUPT, "impossible sizes in the header");
    if (h->reserved[0] || h->reserved[1]) BAD(MOE_CORRUPT, "reserved fields of the header are not zero");
    if (h->file_bytes != size)
        BAD(MOE_CORRUPT, "%llu bytes, should be %llu (the file is truncated or overlong)", (unsigned long long)size,
            (unsigned long long)h->file_bytes);
    if (!h->record_count || h->record_count > MOE_HEAD_LIMIT / RECORD || HEAD + h->record_count * RECORD > size)
        BAD(MOE_CORRUPT, "a table of %llu records does not fit", (unsigned long long)h->record_count);
    if (h->data_offset < HEAD + h->record_count * RECORD || h->data_offset > size) BAD(MOE_CORRUPT, "the data offset is outside the file");
    if (h->alignment < 64 || h->alignment > 2u << 20 || h->alignment & (h->alignment - 1)) BAD(MOE_CORRUPT, "alignment %u", h->alignment);
    if (h->layer < -1 || h->layer > INT16_MAX || h->experts < 0) BAD(MOE_CORRUPT, "layer %d with %d experts", h->layer, h->experts);
    if (h->layer == -1 && (h->experts || h->extent_bytes || h->extent_offset || h->alignment != 64))
        BAD(MOE_CORRUPT, "expert extents in a file that holds none");
    if (h->layer >= 0 && (!h->experts || h->extent_offset != h->data_offset || h->extent_offset % h->alignment ||
                          h->alignment < 256 || !h->extent_bytes || h->extent_bytes % h->alignment ||
                          (size - h->extent_offset) % h->extent_bytes ||
                          (size - h->extent_offset) / h->extent_bytes != (uint64_t)h->experts))
        BAD(MOE_CORRUPT, "impossible expert extents");
#undef BAD
    return MOE_OK;
}

enum moe_code moe_shard_read_head(int fd, const char *path, uint64_t size, unsigned char **head, size_t *bytes, struct moe_err *err)
{
    struct moe_shard_header h;
    *head = NULL;
    if (size < HEAD) return moe_fail_at(err, MOE_CORRUPT, path, NULL, "%llu bytes, too short for a shard file", (unsigned long long)size);
    MOE_TRY(moe_pread(fd, path, &h, HEAD, 0, err));
    MOE_TRY(check_header(&h, path, size, err));
    *bytes = HEAD + (size_t)h.record_count * RECORD;
    unsigned char *p = malloc(*bytes);
    if (!p) return moe_fail_at(err, MOE_NOMEM, path, NULL, "no memory for its table");
    memcpy(p, &h, HEAD);
    enum moe_code code = moe_pread(fd, path, p + HEAD, *bytes - HEAD, HEAD, err);
    if (code == MOE_OK && moe_hash64(p + HEAD, *bytes - HEAD) != h.table_hash)
        code = moe_fail_at(err, MOE_CORRUPT, path, NULL, "the table does not match its checksum (copy the file again)");
    if (code != MOE_OK) {
        free(p);
        return code;
    }
    *head = p;
    return MOE_OK;
}
