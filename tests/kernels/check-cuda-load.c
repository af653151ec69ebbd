/* SPDX-License-Identifier: Apache-2.0 */
/* model/ops/cuda/load.h on the stand-in for NVIDIA's driver: every byte comes to its place by every path and
 * for every size of slots, nothing else is written, damage is found, and a load that fails or is ended leaves
 * nothing behind, whichever call failed. */
#include "base/hash.h"
#include "base/io.h"
#include "kernels/cuda/images.h"
#include "model/ops/cuda/gpu.h"
#include "model/ops/cuda/load.h"

#include "tests/ok.h"
#include "tests/shim/cuda/open.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>

enum { FILES = 2, FILE_BYTES = 900 * 1000 + 77, TENSORS = 40, PIECES = TENSORS + 8,
       TWICE = 3, SCALE_ROWS = 300, SCALE_BLOCKS = 37, SCALES = SCALE_ROWS * SCALE_BLOCKS,
       DEVICE_BYTES = 4 << 20, UNTOUCHED = 0xee };

static struct moe_err err;
static char dir[] = "/tmp/moe-load-XXXXXX";
static struct moe_file files[FILES];
static struct moe_tensor tensors[TENSORS];
static struct moe_source source = { .path = dir, .kind = MOE_CONTAINER, .files = files, .n_files = FILES,
                                    .tensors = tensors, .n_tensors = TENSORS };
static struct moe_load_piece pieces[PIECES];
static unsigned char host[1000];
static unsigned char expected[DEVICE_BYTES];
static struct moe_gpu *gpu;
static struct moe_addr device;

static uint32_t random_number(void)
{
    static uint64_t x = 88172645463325252u;
    x ^= x << 13, x ^= x >> 7, x ^= x << 17;
    return (uint32_t)(x >> 16);
}

/* ---- a source of two files: planes of many sizes, with gaps; some are large, one ends the file ---- */

static void make_file(int f)
{
    char path[128];
    unsigned char *bytes = malloc(FILE_BYTES);
    snprintf(path, sizeof path, "%s/%d", dir, f);
    for (int i = 0; i < FILE_BYTES; i++) bytes[i] = (unsigned char)random_number();
    OK(moe_write_file(path, bytes, FILE_BYTES, &err) == MOE_OK);
    free(bytes);
    files[f] = (struct moe_file){ .name = strdup("shard"), .path = strdup(path), .fd = -1 };
    OK(moe_open_read(path, &files[f].fd, &files[f].size, &err) == MOE_OK);
    OK(moe_map(files[f].fd, path, files[f].size, &files[f].map, &err) == MOE_OK);
}

static void make_tensors(void)
{
    uint64_t at[FILES] = { 3, 4096 };
    for (int i = 0; i < TENSORS; i++) {
        int f = i % 3 == 0;
        struct moe_tensor *t = &tensors[i];
        uint64_t n = i % 7 == 3 ? 100000 + random_number() % 9 : 1 + random_number() % 5000;
        if (i == TENSORS - 2) n = FILE_BYTES - at[f];
        *t = (struct moe_tensor){ .role = MOE_ROLE_EXPERT_GATE, .layer = 1, .expert = i, .type = MOE_BF16 };
        for (int p = 0; p < MOE_PLANE_COUNT; p++) t->plane[p].file = -1;
        t->plane[0] = (struct moe_span){ f, at[f], n };
        t->hash[0] = moe_hash64(files[f].map + at[f], n);
        /* what follows at once, after a gap of some bytes, after a large one */
        const uint64_t gap[] = { 0, (256 - n % 256) % 256, 300, 70000 };
        at[f] += n + (n < 99999 ? gap[i % 4] : 0);
        OK(at[f] <= FILE_BYTES);
    }
}

/* Bytes that are loaded as they are. */
static struct moe_load_piece plain(const void *from, uint64_t bytes, uint64_t at)
{
    return (struct moe_load_piece){ .from = from, .bytes = bytes, .to = device.at + at };
}

/* Scales in rows, which are to be tiles at `at`, and what is expected there; returns the bytes of the tiles,
 * whose padding is 0. */
static uint64_t make_scales(struct moe_load_piece *p, const uint8_t *from, int64_t rows, int64_t blocks,
                            uint64_t at)
{
    uint64_t bytes = (uint64_t)((rows + 127) / 128 * ((blocks + 3) / 4) * 512);
    *p = (struct moe_load_piece){ from, (uint64_t)(rows * blocks), device.at + at, blocks };
    memset(expected + at, 0, bytes);
    for (int64_t r = 0; r < rows; r++)
        for (int64_t k = 0; k < blocks; k++)
            expected[at + moe_tile_offset((size_t)r, (size_t)k, (size_t)blocks)] = from[r * blocks + k];
    return bytes;
}

/* The places of the pieces: in the order of the tensors, some right after another, some far away. */
static void make_pieces(void)
{
    uint64_t at = 0;
    memset(expected, UNTOUCHED, sizeof expected);
    for (int i = 0; i < TENSORS; i++) {
        const struct moe_span *s = &tensors[i].plane[0];
        pieces[i] = plain(files[s->file].map + s->offset, s->bytes, at);
        memcpy(expected + at, files[s->file].map + s->offset, s->bytes);
        at = (at + s->bytes + 255) / 256 * 256 + (i % 5 ? 0 : 512);
    }
    for (size_t i = 0; i < sizeof host; i++) host[i] = (unsigned char)i;
    pieces[TENSORS] = plain(host, sizeof host, at);
    memcpy(expected + at, host, sizeof host);
    at += 1024;
    /* half a tensor, whose checksum cannot be compared */
    const unsigned char *half = files[0].map + tensors[1].plane[0].offset + 5;
    pieces[TENSORS + 1] = plain(half, 50, at);
    memcpy(expected + at, half, 50);
    at += 256;
    /* as far apart in the file as on the GPU, where something else lies between them */
    for (int i = 0; i < 3; i++) {
        const unsigned char *from = i == 1 ? host : files[1].map + FILE_BYTES - 900 + 256 * i;
        pieces[TENSORS + 2 + i] = plain(from, 200, at);
        memcpy(expected + at, from, 200);
        at += 256;
    }
    /* a plane a second time, which most slots cannot hold whole, as a tied embedding is loaded twice */
    pieces[TENSORS + 5] = plain(pieces[TWICE].from, pieces[TWICE].bytes, at);
    memcpy(expected + at, pieces[TWICE].from, pieces[TWICE].bytes);
    at = (at + pieces[TWICE].bytes + 255) / 256 * 256;
    OK(pieces[TWICE].bytes >= 100000);
    at += make_scales(&pieces[TENSORS + 6], (const uint8_t *)pieces[TWICE].from + 999, SCALE_ROWS,
                      SCALE_BLOCKS, at);
    at += make_scales(&pieces[TENSORS + 7], host, (int64_t)sizeof host / 8, 8, at);
    OK(at < DEVICE_BYTES);
}

/* ---- checks ---- */

/* All bytes are right but those that end the last 256 of a piece, which belong to it, too. */
static bool is_loaded(void)
{
    unsigned char *got = malloc(DEVICE_BYTES);
    OK(moe_gpu_read(gpu, got, device, DEVICE_BYTES, &err) == MOE_OK && moe_gpu_wait(gpu, &err) == MOE_OK);
    for (int i = 0; i < TENSORS + 6; i++) { /* not of tiles, which end there */
        uint64_t from = pieces[i].to - device.at + pieces[i].bytes, to = (from + 255) / 256 * 256;
        memset(got + from, UNTOUCHED, to - from);
    }
    bool same = !memcmp(got, expected, DEVICE_BYTES);
    free(got);
    return same;
}

static enum moe_code load(enum moe_load_path path, int slots, uint64_t slot_bytes, struct moe_load_result *r)
{
    struct moe_load_options o = { .path = path, .slots = slots, .slot_bytes = slot_bytes };
    OK(moe_gpu_fill(gpu, device, UNTOUCHED, DEVICE_BYTES, &err) == MOE_OK);
    return moe_load(gpu, &source, pieces, PIECES, &o, r, &err);
}

static bool direct_works(void)
{
    char byte[1];
    int fd = open(files[0].path, O_RDONLY | O_DIRECT);
    void *buffer = aligned_alloc(4096, 4096);
    bool works = fd >= 0 && pread(fd, buffer, 4096, 0) > 0 && pread(files[0].fd, byte, 1, 0) == 1;
    if (fd >= 0) close(fd);
    free(buffer);
    return works;
}

static void test_paths(bool direct)
{
    static const uint64_t sizes[] = { 4096, 12288, 1 << 20, 0 };
    struct moe_load_result r;
    uint64_t bytes = 0;
    for (int i = 0; i < PIECES; i++) bytes += pieces[i].bytes;
    for (int path = direct ? MOE_LOAD_DIRECT : MOE_LOAD_CACHED; path <= MOE_LOAD_MAPPED; path++)
        for (int slots = 1; slots <= 4; slots++)
            for (int i = 0; i < 4; i++) {
                OK(load((enum moe_load_path)path, slots, sizes[i], &r) == MOE_OK && is_loaded());
                OK((int)r.path == path && r.bytes == bytes &&
                   r.bytes_read >= bytes - pieces[TWICE].bytes - SCALES - 2 * sizeof host - 250);
                /* gaps of 70,000 bytes and more are not read */
                OK(r.bytes_read < 2 * FILE_BYTES + pieces[TWICE].bytes + SCALES - 3 * 60000 ||
                   sizes[i] == 4096);
                OK((r.pinned_bytes == 0) == (path == MOE_LOAD_MAPPED));
            }
    OK(load(MOE_LOAD_AUTO, 0, 0, &r) == MOE_OK && is_loaded() && r.path == MOE_LOAD_CACHED);
    OK(r.pinned_bytes > 0 && r.pinned_bytes < 4 * (bytes / 4 + 3 * 4096));
    for (int f = 0; f < FILES; f++) OK(posix_fadvise(files[f].fd, 0, 0, POSIX_FADV_DONTNEED) == 0);
    OK(load(MOE_LOAD_MAPPED, 0, 0, &r) == MOE_OK && is_loaded());
}

static void test_nothing(void)
{
    struct moe_load_options o = { .path = MOE_LOAD_AUTO };
    struct moe_load_result r;
    OK(moe_load(gpu, &source, NULL, 0, &o, &r, &err) == MOE_OK && !r.bytes && !r.bytes_read);
    struct moe_gpu_info info = *moe_gpu_info(gpu);
    OK(info.host_pages && moe_load_check(&info, MOE_LOAD_MAPPED, &err) == MOE_OK);
    info.host_pages = false;
    FAILS(MOE_UNSUPPORTED, moe_load_check(&info, MOE_LOAD_MAPPED, &err));
    SAYS("cannot read host memory through the host's page tables");
}

static void test_damage(void)
{
    struct moe_load_result r;
    int fd = open(files[1].path, O_RDWR);
    unsigned char byte;
    int which[] = { 3, 6 };
    for (int k = 0; k < 2; k++)
        for (int i = 0; i < 2; i++) {
            uint64_t at = tensors[which[k]].plane[0].offset + (i ? tensors[which[k]].plane[0].bytes - 1 : 0);
            OK(pread(fd, &byte, 1, (off_t)at) == 1);
            byte ^= 4;
            OK(pwrite(fd, &byte, 1, (off_t)at) == 1);
            FAILS(MOE_CORRUPT, load(MOE_LOAD_CACHED, 2, 4096, &r));
            SAYS("does not match its checksum");
            OK(strstr(err.tensor, which[k] == 3 ? "experts.3.gate_proj" : "experts.6.gate_proj"));
            FAILS(MOE_CORRUPT, load(MOE_LOAD_CACHED, 3, 0, &r));
            FAILS(MOE_CORRUPT, load(MOE_LOAD_MAPPED, 3, i ? 4096 : 0, &r));
            SAYS("does not match its checksum");
            byte ^= 4;
            OK(pwrite(fd, &byte, 1, (off_t)at) == 1);
        }
    OK(ftruncate(fd, (off_t)tensors[39].plane[0].offset + 1) == 0);
    FAILS(MOE_CORRUPT, load(MOE_LOAD_CACHED, 2, 8192, &r));
    SAYS("bytes short");
    FAILS(MOE_CORRUPT, load(MOE_LOAD_MAPPED, 2, 8192, &r));
    SAYS("cannot be read any more");
    close(fd);
}

static void test_end(void)
{
    struct moe_cancel cancel = { .code = MOE_SIGINT };
    struct moe_load_options o = { .path = MOE_LOAD_CACHED, .cancel = &cancel };
    struct moe_load_result r;
    FAILS(MOE_SIGINT, moe_load(gpu, &source, pieces, TENSORS, &o, &r, &err));
}

/* With the nth call of the driver failing; the GPU is opened again each time, because such a failure may end
 * its context. */
static enum moe_code fail_at(enum moe_load_path path, long n, int result, long *calls)
{
    struct moe_load_result r;
    OK(moe_gpu_open(&gpu, 0, &err) == MOE_OK && moe_gpu_alloc(gpu, DEVICE_BYTES, &device, &err) == MOE_OK);
    OK(moe_gpu_fill(gpu, device, UNTOUCHED, DEVICE_BYTES, &err) == MOE_OK);
    OK(moe_gpu_wait(gpu, &err) == MOE_OK);
    make_pieces();
    long before = standin_calls();
    standin_fail("any", n, result);
    struct moe_load_options o = { .path = path, .slots = 2, .slot_bytes = 262144 };
    enum moe_code code = moe_load(gpu, &source, pieces, PIECES, &o, &r, &err);
    standin_fail("any", 0, 0);
    *calls = standin_calls() - before;
    OK(code == MOE_DEVICE || (code == MOE_OK && is_loaded()));
    moe_gpu_free(gpu, device);
    moe_gpu_close(&gpu);
    OK(standin_left() == 0);
    return code;
}

int main(void)
{
    setenv("MOE_SHIM_MEMORY", "67108864", 1);
    setenv("MOE_SHIM_HAS", "vmm,fd,host-pages", 1);
    if (!standin_open() || !moe_cuda_image_count) return 77;
    OK(mkdtemp(dir));
    for (int f = 0; f < FILES; f++) make_file(f);
    make_tensors();
    OK(moe_gpu_open(&gpu, 0, &err) == MOE_OK && moe_gpu_alloc(gpu, DEVICE_BYTES, &device, &err) == MOE_OK);
    make_pieces();
    bool direct = direct_works();
    test_paths(direct);
    test_nothing();
    test_end();
    moe_gpu_free(gpu, device);
    moe_gpu_close(&gpu);
    OK(standin_left() == 0);
    /* all but the last calls, which give back two slots, and a stream where it is the loader's own */
    long calls, ignored, n = 1, k = 1;
    OK(fail_at(MOE_LOAD_CACHED, 0, 0, &calls) == MOE_OK);
    while (fail_at(MOE_LOAD_CACHED, n, 2, &ignored) != MOE_OK) n++;
    OK(n - 1 == calls - 9);
    OK(fail_at(MOE_LOAD_MAPPED, 0, 0, &calls) == MOE_OK);
    while (fail_at(MOE_LOAD_MAPPED, k, 2, &ignored) != MOE_OK) k++;
    OK(k - 1 == calls - 6);
    OK(moe_gpu_open(&gpu, 0, &err) == MOE_OK && moe_gpu_alloc(gpu, DEVICE_BYTES, &device, &err) == MOE_OK);
    make_pieces();
    test_damage();
    moe_gpu_free(gpu, device);
    moe_gpu_close(&gpu);
    OK(standin_left() == 0 && moe_remove_tree(dir, &err) == MOE_OK);
    printf("%ld checks; each of %ld calls of the driver failed in turn; direct reads %s\n", checks, n + k - 2,
           direct ? "too" : "not: this file system has none");
    return 0;
}
