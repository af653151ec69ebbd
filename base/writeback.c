/* SPDX-License-Identifier: Apache-2.0 */
#include "base/writeback.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>

enum {
    RING_PIECES = 4096,
    PIECE_LEAST = 32 << 10 /* bytes; shorter pieces are left to fsync */
};

/* A range of bytes of the file whose writing to the disk was started. */
struct piece { uint64_t offset, bytes; };

struct moe_writeback {
    int fd;
    uint64_t window, held;       /* held: bytes of the pieces in the ring */
    unsigned first, n;           /* ring: piece[first] is the oldest of n */
    pthread_mutex_t lock;
    struct piece piece[RING_PIECES];
};

struct moe_writeback *moe_writeback_open(int fd, uint64_t window)
{
    struct moe_writeback *b = malloc(sizeof *b);
    if (!b) return NULL;
    b->fd = fd;
    b->window = window;
    b->held = 0;
    b->first = b->n = 0;
    pthread_mutex_init(&b->lock, NULL);
    return b;
}

void moe_writeback_close(struct moe_writeback **b)
{
    if (!*b) return;
    pthread_mutex_destroy(&(*b)->lock);
    free(*b);
    *b = NULL;
}

/* Make room in the ring for a piece of `more` bytes: when the ring is full, or its pieces and the new one
 * exceed the window together, the oldest piece is taken out as *p.  False when there is room already. */
static bool take_oldest(struct moe_writeback *b, uint64_t more, struct piece *p)
{
    if (!b->n || (b->n < RING_PIECES && b->held + more <= b->window)) return false;
    *p = b->piece[b->first];
    b->first = (b->first + 1) % RING_PIECES;
    b->n--;
    b->held -= p->bytes;
    return true;
}

/* Wait until a piece is on the disk and drop it from the page cache.  Errors are ignored here, because fsync
 * reports them. */
static void wait_and_drop(const struct moe_writeback *b, const struct piece *p)
{
    sync_file_range(b->fd, (off64_t)p->offset, (off64_t)p->bytes,
                    SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER);
    posix_fadvise(b->fd, (off_t)p->offset, (off_t)p->bytes, POSIX_FADV_DONTNEED);
}

void moe_writeback_add(struct moe_writeback *b, uint64_t offset, uint64_t bytes)
{
    struct piece old;
    if (!b || bytes < PIECE_LEAST) return;
    sync_file_range(b->fd, (off64_t)offset, (off64_t)bytes, SYNC_FILE_RANGE_WRITE);
    pthread_mutex_lock(&b->lock);
    while (take_oldest(b, bytes, &old)) {
        pthread_mutex_unlock(&b->lock);
        wait_and_drop(b, &old);
        pthread_mutex_lock(&b->lock);
    }
    b->piece[(b->first + b->n++) % RING_PIECES] = (struct piece){ offset, bytes };
    b->held += bytes;
    pthread_mutex_unlock(&b->lock);
}

void moe_writeback_drop(const struct moe_writeback *b, uint64_t bytes)
{
    if (b && bytes > b->window) posix_fadvise(b->fd, 0, 0, POSIX_FADV_DONTNEED);
}
