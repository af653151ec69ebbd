/* SPDX-License-Identifier: Apache-2.0 */
/* Reads any bytes as a safetensors header: the result is an error, or entries that cover the data without
 * holes or overlaps.  A file with that header is then opened as a checkpoint: it may be refused, or every
 * tensor can be read. */
#include "formats/checkpoint/safetensors.h"
#include "formats/names.h"
#include "formats/scan.h"
#include "tests/fuzz/fuzzsource.h"

#include <fcntl.h>
#include <limits.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(const struct moe_st_header *h, size_t size)
{
    uint64_t at = size + 8;
    struct moe_err err = MOE_ERR_INIT;
    for (int64_t i = 0; i < h->n; i++) {
        const struct moe_st_entry *e = &h->entries[i];
        struct moe_name n;
        char again[128];
        assert(e->offset == at && (int64_t)e->bytes == moe_st_bytes(e->dtype, e->shape, e->ndim));
        at += e->bytes;
        if (!moe_name_parse(e->name, &n)) continue;
        struct moe_name m;
        assert(moe_name_parse(moe_tensor_name(n.role, n.layer, n.expert, again), &m) && m.role == n.role &&
               m.layer == n.layer && m.expert == n.expert);
    }
    assert(at == h->end && moe_st_check_size(h, "fuzz", at, &err) == MOE_OK);
    for (uint64_t s = 8; s < at && s < 64; s++) moe_st_check_size(h, "fuzz", s, &err);
}

/* The largest file that is made.  Small data are filled with a pattern that is a sane value in every type;
 * large data are a hole. */
enum { FILE_MAX = 1 << 28, FILL_MAX = 1 << 16 };

static void open_as_checkpoint(const uint8_t *text, size_t size, uint64_t end)
{
    unsigned char length[8];
    char path[PATH_MAX];
    if (end > FILE_MAX) return;
    if (fuzz_dir_make()) fuzz_put("config.json", fuzz_config, sizeof fuzz_config - 1);
    for (int i = 0; i < 8; i++) length[i] = (unsigned char)((uint64_t)size >> 8 * i);
    snprintf(path, sizeof path, "%s/model.safetensors", fuzz_dir);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0666);
    assert(fd >= 0 && write(fd, length, 8) == 8 && write(fd, text, size) == (ssize_t)size);
    uint64_t data = end - 8 - size;
    if (data <= FILL_MAX) {
        static char fill[FILL_MAX];
        memset(fill, 0x3d, sizeof fill);
        assert(write(fd, fill, data) == (ssize_t)data);
    }
    assert(!ftruncate(fd, (off_t)end) && !close(fd));
    fuzz_open(fuzz_dir);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct moe_arena arena = MOE_ARENA_INIT;
    struct moe_st_header h;
    struct moe_err err = MOE_ERR_INIT;
    char *text = malloc(size + !size);
    assert(text);
    memcpy(text, data, size);
    if (moe_st_parse(text, size, "fuzz", &arena, &h, &err) == MOE_OK) {
        check(&h, size);
        open_as_checkpoint(data, size, h.end);
        free(h.entries);
    } else {
        assert(err.code == MOE_CORRUPT || err.code == MOE_UNSUPPORTED);
        assert(!h.entries && *err.msg);
    }
    memcpy(text, data, size);
    struct moe_scan s = { text, text, text + size }; /* the index's other members go through this */
    if (!moe_scan_skip(&s)) assert(s.at <= s.end);
    moe_arena_clear(&arena);
    free(text);
    return 0;
}
