/* SPDX-License-Identifier: Apache-2.0 */
/* The committer's thread, which finishes one unit at a time. */
#include "model/rewrite/commit.h"

#include "base/io.h"
#include "base/thread.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

struct moe_commit {
    struct moe_writer *writer;
    bool threaded, running;          /* running: there is a thread to join */
    atomic_bool failed;
    struct moe_finished unit;        /* the unit that is being finished */
    struct moe_err err;              /* the first failure */
    double seconds;
    pthread_t thread;
};

enum moe_code moe_commit_open(struct moe_commit **c, struct moe_writer *w, bool thread, struct moe_err *err)
{
    *c = calloc(1, sizeof **c);
    if (!*c) return moe_fail(err, MOE_NOMEM, "no memory to write units");
    (*c)->writer = w;
    (*c)->threaded = thread;
    return MOE_OK;
}

static void release(struct moe_finished *u)
{
    moe_shard_abort(&u->shard);
    cJSON_Delete(u->source);
    cJSON_Delete(u->report);
    *u = (struct moe_finished){ .name = "" };
}

static void *commit(void *arg)
{
    struct moe_commit *c = arg;
    struct moe_finished *u = &c->unit;
    struct moe_hash128 digest;
    uint64_t bytes;
    double from = moe_now();
    enum moe_code code = moe_shard_finish(&u->shard, &bytes, &digest, &c->err);
    if (code == MOE_OK)
        code = moe_writer_commit_unit(c->writer, u->name, bytes, digest, u->source, u->report, &c->err);
    release(u);
    c->seconds += moe_now() - from;
    if (code != MOE_OK) atomic_store(&c->failed, true);
    return NULL;
}

enum moe_code moe_commit_wait(struct moe_commit *c, struct moe_err *err)
{
    if (c->running) pthread_join(c->thread, NULL);
    c->running = false;
    if (!atomic_load(&c->failed)) return MOE_OK;
    *err = c->err;
    return err->code;
}

enum moe_code moe_commit_check(struct moe_commit *c, struct moe_err *err)
{
    return atomic_load(&c->failed) ? moe_commit_wait(c, err) : MOE_OK;
}

enum moe_code moe_commit_unit(struct moe_commit *c, const struct moe_finished *u, struct moe_err *err)
{
    struct moe_finished mine = *u;
    enum moe_code code = moe_commit_wait(c, err);
    if (code != MOE_OK) {
        release(&mine);
        return code;
    }
    c->unit = mine;
    c->running = c->threaded && !moe_thread_start(&c->thread, commit, c);
    if (c->running) return MOE_OK;
    commit(c);
    return moe_commit_wait(c, err);
}

double moe_commit_seconds(const struct moe_commit *c) { return c->seconds; }

void moe_commit_close(struct moe_commit **c)
{
    struct moe_err err;
    if (!*c) return;
    moe_commit_wait(*c, &err);
    free(*c);
    *c = NULL;
}
