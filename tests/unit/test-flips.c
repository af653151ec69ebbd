/* SPDX-License-Identifier: Apache-2.0 */
/* Opens a container in which one byte is wrong: every byte of headers, tables, manifest and small files, one
 * at a time, and random bytes of the data, padding included.  Verifying it, as moe-inspect --verify does,
 * has to name the file and, where the byte belongs to a tensor, the tensor with its expert and projection,
 * and the plane.  Opening it without verification must not crash, whatever it says.
 * test-flips [RANDOM-BYTES [SEED]]  (tests/long/long-flips.sh runs it with more bytes) */
#include "tests/gen/smallmodel.h"

#include "formats/container/container-internal.h"

#include <fcntl.h>
#include <limits.h>
#include <sys/stat.h>
#include <unistd.h>

static char dir[64], model[96];
static long checks;
static struct moe_err err;

static void cleanup(void)
{
    struct moe_err e;
    moe_remove_tree(dir, &e);
}

static void failed(const char *what, const char *name, uint64_t at, const cJSON *problems)
{
    fprintf(stderr, "%s, byte %llu: %s; said: %s\n", name, (unsigned long long)at, what, err.msg);
    for (const cJSON *p = problems ? problems->child : NULL; p; p = p->next)
        fprintf(stderr, "  %s\n", p->valuestring);
    cleanup();
    exit(1);
}

/* ---- one file of the container, in memory and on disk ---- */

struct file { char name[64], path[PATH_MAX]; unsigned char *p; size_t n; int fd; };

static void load(struct file *f, const char *name)
{
    snprintf(f->name, sizeof f->name, "%s", name);
    snprintf(f->path, sizeof f->path, "%s/%s", model, name);
    assert(moe_read_file(f->path, 1 << 24, (char **)&f->p, &f->n, &err) == MOE_OK);
    f->fd = open(f->path, O_RDWR | O_CLOEXEC);
    assert(f->fd >= 0);
}

static void unload(struct file *f)
{
    close(f->fd);
    free(f->p);
}

static void poke(const struct file *f, uint64_t at, unsigned char v)
{
    assert(pwrite(f->fd, &v, 1, (off_t)at) == 1);
}

/* ---- what is said ---- */

/* Verify as moe-inspect --verify does: a survey, and when that finds nothing, all bytes.  Returns the
 * lines of problems; NULL when the model cannot be opened. */
static cJSON *verify(enum moe_code *code)
{
    struct moe_source *src;
    cJSON *problems;
    *code = moe_source_survey(&src, model, &problems, &err);
    if (*code != MOE_OK) return NULL;
    *code = problems->child ? err.code : moe_source_verify(src, NULL, NULL, NULL, problems, &err);
    moe_source_close(&src);
    return problems;
}

/* Use the model without verifying it: open it, and when that succeeds, read every plane through the map. */
static void use(void)
{
    struct moe_source *src;
    volatile unsigned char sum = 0;
    if (moe_source_open(&src, model, &err) != MOE_OK) {
        assert(*err.msg && !src);
        return;
    }
    assert(moe_source_map(src, &err) == MOE_OK);
    for (int64_t i = 0; i < src->n_tensors; i++)
        for (int p = 0; p < MOE_PLANE_COUNT; p++) {
            const struct moe_span *s = &src->tensors[i].plane[p];
            if (s->file >= 0)
                sum = (unsigned char)(sum + src->files[s->file].map[s->offset] +
                                      src->files[s->file].map[s->offset + s->bytes - 1]);
        }
    moe_source_close(&src);
}

/* What is said names the file and has `what` in it; the list's first line begins with the file's
 * name, as a survey cuts it. */
static void expect(const char *name, uint64_t at, const char *what)
{
    enum moe_code code;
    const char *slash = strrchr(name, '/'), *last = slash ? slash + 1 : name;
    cJSON *problems = verify(&code);
    if (code == MOE_OK) failed("nothing was said", name, at, problems);
    if (code != MOE_CORRUPT && code != MOE_UNSUPPORTED && code != MOE_VERIFY && code != MOE_NONFINITE)
        failed("wrong code", name, at, problems);
    if (!strstr(err.msg, name) || !strstr(err.msg, what)) failed("not named", name, at, problems);
    const char *line = problems && problems->child ? problems->child->valuestring : "";
    if (problems && strncmp(line, name, strlen(name)) && strncmp(line, last, strlen(last)))
        failed("the list does not name it", name, at, problems);
    cJSON_Delete(problems);
    checks++;
}

static void flip(const struct file *f, uint64_t at, unsigned char with, const char *what)
{
    poke(f, at, f->p[at] ^ with);
    expect(f->name, at, what);
    if (at % 8 == 0) use();
    poke(f, at, f->p[at]);
}

/* ---- every byte ---- */

static void flip_all(const char *name, size_t n)
{
    struct file f;
    load(&f, name);
    for (size_t i = 0; i < (n ? n : f.n); i++) flip(&f, i, (unsigned char)(1 + i * 37 % 255), "");
    unload(&f);
}

/* Cut a file to nothing, to one byte, to all but one, and inside its header. */
static void cut(const char *name, size_t head)
{
    struct file f;
    load(&f, name);
    const size_t to[] = { 0, 1, head / 2, head - 1, f.n - 1 };
    for (size_t i = 0; i < sizeof to / sizeof *to; i++) {
        assert(to[i] < f.n && !ftruncate(f.fd, (off_t)to[i]));
        expect(f.name, to[i], "");
        use();
        assert(moe_pwrite(f.fd, f.path, f.p, f.n, 0, &err) == MOE_OK);
    }
    unload(&f);
}

static size_t head_of(const char *name)
{
    struct file f;
    struct moe_shard_header h;
    load(&f, name);
    memcpy(&h, f.p, sizeof h);
    unload(&f);
    return sizeof h + (size_t)h.record_count * sizeof(struct moe_shard_record);
}

/* ---- data ---- */

/* What verification must say of a byte of a shard's data: "tensor": the PLANE plane ...", or whose padding
 * it is. */
static void describe(const struct file *f, uint64_t at, char out[256])
{
    struct moe_shard_header h;
    struct moe_shard_record r;
    char name[128];
    memcpy(&h, f->p, sizeof h);
    for (uint64_t i = 0; i < h.record_count; i++) {
        memcpy(&r, f->p + sizeof h + i * sizeof r, sizeof r);
        if (at < r.offset || at - r.offset >= r.bytes) continue;
        moe_tensor_name((enum moe_role)r.role, r.layer, r.expert, name);
        snprintf(out, 256, "tensor '%s': ", name);
        return;
    }
    if (h.extent_bytes && at >= h.extent_offset)
        snprintf(out, 256, "padding at byte %llu in the extent of expert %llu is", (unsigned long long)at,
                 (unsigned long long)((at - h.extent_offset) / h.extent_bytes));
    else
        snprintf(out, 256, "padding at byte %llu is", (unsigned long long)at);
}

static void flip_random(const char *name, long count, uint64_t *seed)
{
    struct file f;
    char what[256];
    size_t head = head_of(name);
    load(&f, name);
    for (long i = 0; i < count; i++) {
        *seed = *seed * 6364136223846793005u + 1442695040888963407u;
        uint64_t at = head + (*seed >> 33) % (f.n - head);
        unsigned char with = (unsigned char)(1 + (*seed >> 20) % 255);
        describe(&f, at, what);
        flip(&f, at, with, what);
    }
    unload(&f);
}

int main(int argc, char **argv)
{
    const char *san = getenv("MOE_SAN"); /* sanitizers take six times as long */
    long count = argc > 1 ? strtol(argv[1], NULL, 10) : san && *san ? 1000 : 10000;
    uint64_t seed = argc > 2 ? strtoull(argv[2], NULL, 10) : 1;
    bool memory = !access("/dev/shm", W_OK);
    enum moe_code code;
    snprintf(dir, sizeof dir, "%s/moe-flips.XXXXXX", memory ? "/dev/shm" : "/tmp");
    assert(mkdtemp(dir));
    snprintf(model, sizeof model, "%s/m.moe", dir);
    assert(small_write(model, MOE_WRITE_PLAIN, -1, 1, false, 2, NULL, &err) == MOE_OK);
    static const char *const shards[] = { "dense.moe", "layer-001.moe" }, *const small[] = {
        "source.jsonl", "hf/config.json", "tokenizer/note"
    };
    for (int i = 0; i < 2; i++) {
        flip_all(shards[i], head_of(shards[i]));
        cut(shards[i], 128);
        cut(shards[i], head_of(shards[i]));
        flip_random(shards[i], count / 2, &seed);
    }
    for (int i = 0; i < 3; i++) {
        flip_all(small[i], 0);
        cut(small[i], 2);
    }
    flip_all(MOE_MANIFEST_NAME, 0);
    cut(MOE_MANIFEST_NAME, 100);
    cJSON *problems = verify(&code); /* all is as it was */
    if (code != MOE_OK) failed("should be whole", model, 0, problems);
    cJSON_Delete(problems);
    cleanup();
    printf("test-flips: %ld checks\n", checks);
    return 0;
}
