/* SPDX-License-Identifier: Apache-2.0 */
/* base/io.h - files: reads and writes that are complete or fail, durable renames, locks, free space,
 * mapping.  Interrupted system calls are restarted.  A failure names the path that was given.  Nothing here
 * knows what is in a file. */
#ifndef MOE_BASE_IO_H
#define MOE_BASE_IO_H

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Open for reading; *size gets the size in bytes.  Refuses what is not a regular file.  O_CLOEXEC. */
enum moe_code moe_open_read(const char *path, int *fd, uint64_t *size, struct moe_err *err);

/* The same for input that is read once, from front to end: a named pipe, such as a shell's <(command), is
 * accepted too.  For a pipe *piped is true and *size is UINT64_MAX, and reading must wait with poll, because
 * nobody may have opened the other end yet. */
enum moe_code moe_open_input(const char *path, int *fd, uint64_t *size, bool *piped, struct moe_err *err);

/* The time of the last write to an open file, in nanoseconds of its file system's clock, and its present
 * size.  Compare both: two writes within one tick of that clock have the same time. */
enum moe_code moe_written_at(int fd, const char *path, int64_t *when, uint64_t *size, struct moe_err *err);

/* Read exactly `bytes` bytes at `offset`; a file that ends earlier is MOE_CORRUPT ("N bytes short").
 * Interrupted and short reads are continued. */
enum moe_code moe_pread(int fd, const char *path, void *buf, size_t bytes, uint64_t offset,
                        struct moe_err *err);
/* Write exactly `bytes` bytes at `offset`; ENOSPC gives MOE_NOSPACE. */
enum moe_code moe_pwrite(int fd, const char *path, const void *buf, size_t bytes, uint64_t offset,
                         struct moe_err *err);

/* Read a whole file into malloc'd memory with a NUL after it (free() it); a file larger than `limit` bytes
 * is refused. */
enum moe_code moe_read_file(const char *path, size_t limit, char **data, size_t *size, struct moe_err *err);

/* Write a file with these bytes, whole or not at all, replacing one that exists (base/newfile.h). */
enum moe_code moe_write_file(const char *path, const void *data, size_t size, struct moe_err *err);

/* open, fsync and ftruncate, restarted when a signal interrupts them; they return and set errno as the system
 * calls do.  moe_open sets O_CLOEXEC, and a new file gets the permissions 0666 less the umask. */
int moe_open(const char *path, int flags);
int moe_fsync(int fd);
int moe_ftruncate(int fd, uint64_t bytes);

/* Open a file in `dir` that has no name (O_TMPFILE), for reading and writing; return -1 with errno
 * EOPNOTSUPP where the file system has no such files. */
int moe_open_nameless(const char *dir, unsigned mode);

/* Set the size of a file and reserve disk space for it; where the file system cannot reserve, only the size
 * is set.  Returns 0, or -1 with errno. */
int moe_reserve(int fd, uint64_t bytes);
/* How many bytes from `offset` on, at most `bytes`, lie in a hole of the file: they are zeros and need not be
 * read.  Returns 0 where the file system does not report holes.  Moves the descriptor's own position, which
 * pread and pwrite do not use. */
uint64_t moe_hole(int fd, uint64_t offset, uint64_t bytes);

enum moe_code moe_fsync_path(const char *path, struct moe_err *err); /* file or directory */
/* Make the name `path` durable by syncing its directory.  fd: a descriptor of the file or directory at
 * `path`, or -1.  Where the directory cannot be opened (no permission to read it, too many open files), the
 * whole file system is synced through fd. */
enum moe_code moe_fsync_parent(const char *path, int fd, struct moe_err *err);

/* Make one directory.  A directory that exists already is fine, a symbolic link to one is not. */
enum moe_code moe_mkdir(const char *path, struct moe_err *err);
/* The same with the permissions `mode` less the umask; *created is false when something exists at `path`. */
enum moe_code moe_mkdir_new(const char *path, unsigned mode, bool *created, struct moe_err *err);
/* Remove a file, or a directory with everything in it.  It need not exist; symbolic links are not
 * followed. */
enum moe_code moe_remove_tree(const char *path, struct moe_err *err);

/* Rename, then fsync the parent of `to`. */
enum moe_code moe_rename(const char *from, const char *to, struct moe_err *err);
/* Rename without replacing anything: 0, or -1 with errno, which is EEXIST when something exists at `to`.
 * Syncs nothing. */
int moe_rename_new(const char *from, const char *to);
/* Exchange two names atomically, then sync the directory; fd is as for moe_fsync_parent, of either name. */
enum moe_code moe_exchange(const char *a, const char *b, int fd, struct moe_err *err);

/* Lock a directory for writing (flock on its descriptor): MOE_EXISTS when another process holds it, or
 * when it is a link or a file.  The lock dies with the process; moe_unlock closes the descriptor. */
enum moe_code moe_lock_dir(const char *path, int *fd, struct moe_err *err);
void moe_unlock(int fd);

/* Whether the file or directory that is open as fd is still the one at `path`: another process may have moved
 * it away and created a new one, and then nothing at `path` may be published or removed.
 * moe_fd_is_path_find sets *is, or returns MOE_IO when this cannot be found out.  moe_fd_is_path_check
 * returns MOE_EXISTS when it is not.  moe_fd_is_path returns false also when this cannot be found out. */
enum moe_code moe_fd_is_path_find(int fd, const char *path, bool *is, struct moe_err *err);
enum moe_code moe_fd_is_path_check(int fd, const char *path, struct moe_err *err);
bool moe_fd_is_path(int fd, const char *path);

/* What exists at `path`, links followed; a link to nothing is MOE_OTHER.  moe_look fails when that cannot be
 * found out (a directory without search permission, an I/O error); moe_exists returns MOE_OTHER then, for
 * callers whose next step reports the error. */
enum moe_exists { MOE_ABSENT, MOE_FILE, MOE_DIR, MOE_OTHER };
enum moe_code moe_look(const char *path, enum moe_exists *what, struct moe_err *err);
enum moe_exists moe_exists(const char *path);
/* MOE_EXISTS when `path` is a symbolic link, whether or not its target exists: a new `what` ("file",
 * "directory") would take the link's place instead of going where the link points.  The message names the
 * target and the remedy. */
enum moe_code moe_no_link(const char *path, const char *what, struct moe_err *err);

/* The names in a directory, without "." and "..", in the order of their bytes.  The caller calls
 * moe_names_release; after a failure there is nothing to release. */
struct moe_names { char **v; size_t n, cap; };
enum moe_code moe_list_dir(const char *path, struct moe_names *names, struct moe_err *err);
void moe_names_release(struct moe_names *names);

/* The bytes that an unprivileged process may still write on the file system of `path`, or of its nearest
 * parent that exists. */
enum moe_code moe_free_space(const char *path, uint64_t *bytes, struct moe_err *err);
/* MOE_NOSPACE, naming the output `shown`, when fewer than `bytes` are free where `path` is. */
enum moe_code moe_need_space(const char *path, uint64_t bytes, const char *shown, struct moe_err *err);

/* A nameless temporary file in `dir` of `bytes` zeros, with disk space reserved; it vanishes when it is
 * closed.  path [cap] gets what messages call it.  fd is -1 on failure.  moe_scratch_clear makes all its
 * bytes zero again. */
enum moe_code moe_scratch_open(const char *dir, uint64_t bytes, char *path, size_t cap, int *fd,
                               struct moe_err *err);
enum moe_code moe_scratch_clear(int fd, const char *path, uint64_t bytes, struct moe_err *err);

/* "dir/name" in out; MOE_IO when it does not fit. */
enum moe_code moe_path_join(char *out, size_t cap, const char *dir, const char *name, struct moe_err *err);
/* The directory part of `path`, from its text alone: "." for a plain name; slashes at the end are ignored. */
void moe_path_parent(const char *path, char out[MOE_PATH_BYTES]);
/* True for a plain file name: not empty, no '/', not "." or "..". */
bool moe_plain_name(const char *name);
/* Raise this process's limit of open files to `want`, or to the hard limit if that is lower; MOE_IO when the
 * hard limit is below `least`. */
enum moe_code moe_want_files(uint64_t least, uint64_t want, struct moe_err *err);

/* Whether s ends with `tail`. */
bool moe_ends_with(const char *s, const char *tail);

/* MOE_CORRUPT when a file begins as a Git LFS pointer does, a small text in place of a file that was not
 * fetched. */
enum moe_code moe_not_lfs(const void *head, size_t n, const char *path, struct moe_err *err);

/* Map a whole file read-only.  An empty file maps to NULL.  When a page cannot be read later, because the
 * file was truncated or the disk failed, the process gets SIGBUS; after moe_map_guard such a page reads as
 * zeros instead, and moe_map_check fails from then on. */
enum moe_code moe_map(int fd, const char *path, uint64_t size, const unsigned char **map,
                      struct moe_err *err);
void moe_unmap(const unsigned char *map, uint64_t size);
/* Install a SIGBUS handler for the mappings of moe_map; a SIGBUS from elsewhere ends the program as
 * before. */
void moe_map_guard(void);
/* MOE_IO, naming the first file of which a page could not be read; what was computed since then may be
 * wrong. */
enum moe_code moe_map_check(struct moe_err *err);

/* moe_peak_rss: peak resident memory of this process in bytes, from VmHWM (getrusage would include the peak
 * of the program that started this one).  moe_available_memory: what the machine can still give, in bytes,
 * from MemAvailable. */
uint64_t moe_peak_rss(void);
uint64_t moe_peak_anonymous(void); /* bytes of anonymous memory: the present value, not a peak (see io.c) */
uint64_t moe_available_memory(void);

double moe_now(void); /* seconds, monotonic */
double moe_cpu_seconds(void); /* processor time of all threads of this process */

#endif
