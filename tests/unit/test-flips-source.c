/* SPDX-License-Identifier: Apache-2.0 */
/* Opens a checkpoint in which one byte of a header, of the index or of config.json is wrong, and checkpoints
 * whose files are cut at every tensor.  There are no checksums, so not every such byte can be noticed; but
 * what still opens has to be the same model, tensor by tensor (or one that fits a changed config), and what
 * does not open has to name the file. */
#include "tests/gen/source-model.h"

static struct moe_err err;

static uint64_t mix(uint64_t h, uint64_t v) { return (h ^ v) * 0x9e3779b97f4a7c15u ^ h >> 29; }

/* A digest of everything that makes a tensor, and of where it lies. */
static uint64_t digest(const struct moe_source *src)
{
    uint64_t h = (uint64_t)src->n_tensors;
    for (int64_t i = 0; i < src->n_tensors; i++) {
        const struct moe_tensor *t = &src->tensors[i];
        h = mix(mix(mix(h, (uint64_t)t->role), (uint64_t)t->layer), (uint64_t)t->expert);
        h = mix(mix(mix(h, t->type), (uint64_t)t->rows), (uint64_t)t->cols + t->reciprocal);
        for (int p = 0; p < 4; p++)
            h = mix(mix(mix(h, (uint64_t)t->plane[p].file), t->plane[p].offset), t->plane[p].bytes);
    }
    return h;
}

/* Read both ends of every plane through the map: they must lie within the files. */
static void touch(struct moe_source *src)
{
    volatile unsigned char sum = 0;
    assert(moe_source_map(src, &err) == MOE_OK);
    for (int64_t i = 0; i < src->n_tensors; i++)
        for (int p = 0; p < 4; p++) {
            const struct moe_span *s = &src->tensors[i].plane[p];
            if (s->file < 0) continue;
            OK(s->offset + s->bytes <= src->files[s->file].size);
            sum = (unsigned char)(sum + src->files[s->file].map[s->offset] +
                                  src->files[s->file].map[s->offset + s->bytes - 1]);
        }
}

static void refused(const char *file, uint64_t at)
{
    if (!*err.msg || !*err.file || (*file && !strstr(err.msg, file))) {
        fprintf(stderr, "%s, byte %llu: not named: %s\n", file, (unsigned long long)at, err.msg);
        abort();
    }
    OK(err.code == MOE_CORRUPT || err.code == MOE_UNSUPPORTED || err.code == MOE_NOT_FOUND ||
       err.code == MOE_IO);
}

enum what { HEADER, INDEX, CONFIG };

/* Flip bits of each of the first n bytes of a file (0: all).  Returns how many flips went unnoticed. */
static long flip(const char *name, size_t n, enum what what, uint64_t was)
{
    char path[256];
    unsigned char *all;
    size_t size;
    long quiet = 0;
    snprintf(path, sizeof path, "%s/%s", dir, name);
    assert(moe_read_file(path, 1 << 24, (char **)&all, &size, &err) == MOE_OK);
    const char *san = getenv("MOE_SAN"); /* sanitizers take eight times as long: two of five bytes then */
    int fd = open(path, O_RDWR);
    for (size_t k = 0; k < 2 * (n ? n : size); k += san && *san ? 5 : 1) {
        struct moe_source *src;
        size_t i = k / 2;
        unsigned char v = all[i] ^ (unsigned char)(k % 2 ? 2u << i % 7 : 1);
        assert(pwrite(fd, &v, 1, (off_t)i) == 1);
        if (moe_source_open(&src, dir, &err) == MOE_OK) {
            quiet++;
            if (what != CONFIG) OK(digest(src) == was);
            touch(src);
            moe_source_close(&src);
        } else {
            refused(what == HEADER ? name : "", i);
        }
        assert(pwrite(fd, &all[i], 1, (off_t)i) == 1);
    }
    close(fd);
    free(all);
    return quiet;
}

static size_t header_bytes(const char *name)
{
    char path[256], *p;
    size_t n;
    uint64_t length = 0;
    snprintf(path, sizeof path, "%s/%s", dir, name);
    assert(moe_read_file(path, 1 << 24, &p, &n, &err) == MOE_OK);
    for (int i = 7; i >= 0; i--) length = length << 8 | (unsigned char)p[i];
    free(p);
    return 8 + (size_t)length;
}

/* Cut a file to `size` bytes; the message names it, and the tensor in which it ends (NULL: none). */
static void cut_to(const char *name, size_t size, const char *tensor)
{
    char path[256], *all;
    size_t n;
    struct moe_source *src;
    snprintf(path, sizeof path, "%s/%s", dir, name);
    assert(moe_read_file(path, 1 << 24, &all, &n, &err) == MOE_OK && size < n &&
           !truncate(path, (off_t)size));
    OK(moe_source_open(&src, dir, &err) == MOE_CORRUPT && !src);
    refused(name, size);
    if (tensor && strcmp(err.tensor, tensor)) {
        fprintf(stderr, "%s cut to %zu: tensor '%s' is not named: %s\n", name, size, tensor, err.msg);
        abort();
    }
    write_all(name, all, n);
    free(all);
}

static void cut_everywhere(const char *name, int f)
{
    size_t head = header_bytes(name), at = head;
    const size_t in_header[] = { 0, 1, 7, 8, 9, head / 2, head - 1 };
    for (size_t i = 0; i < sizeof in_header / sizeof *in_header; i++) cut_to(name, in_header[i], NULL);
    for (int i = 0; i < n_list; i++) {
        if (list[i].file != f) continue;
        size_t bytes = (size_t)spec_bytes(&list[i]);
        cut_to(name, at, list[i].name);
        cut_to(name, at + bytes - 1, list[i].name);
        at += bytes;
    }
}

int main(void)
{
    static const char formats[] = "b8inc";
    long quiet[3] = { 0, 0, 0 };
    snprintf(dir, sizeof dir, "%s/moe-flips.XXXXXX", access("/dev/shm", W_OK) ? "/tmp" : "/dev/shm");
    assert(mkdtemp(dir));
    for (const char *f = formats; *f; f++) {
        build(*f, "model.", "");
        write_model();
        struct moe_source *src = opened();
        uint64_t was = digest(src);
        moe_source_close(&src);
        for (int k = 0; k < n_files; k++) {
            char name[64];
            snprintf(name, sizeof name, "%s", file_name(k));
            if (*f != 'c') quiet[HEADER] += flip(name, header_bytes(name), HEADER, was);
            cut_everywhere(name, k);
        }
        if (*f != 'n') continue; /* the index and the config are the same in kind for all */
        quiet[INDEX] += flip("model.safetensors.index.json", 0, INDEX, was);
        quiet[CONFIG] += flip("config.json", 0, CONFIG, was);
    }
    assert(moe_remove_tree(dir, &err) == MOE_OK);
    printf("test-flips-source: %ld checks; unnoticed: %ld in headers, %ld in indexes (all the same model), "
           "%ld in configs\n",
           checks, quiet[HEADER], quiet[INDEX], quiet[CONFIG]);
    return 0;
}
