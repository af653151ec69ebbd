/* SPDX-License-Identifier: Apache-2.0 */
/* base/io.h - files: whole reads and writes whatever the kernel interrupts, durable renames, locks, space.
 * Every function reports the path it was given.  No function here knows what is in a file. */
#ifndef MOE_BASE_IO_H
#define MOE_BASE_IO_H

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Open for reading; *size gets the size in bytes.  Refuses what is not a regular file.  O_CLOEXEC. */
enum moe_code moe_open_read(const char *path, int *fd, uint64_t *size, struct moe_err *err);

/* The same for input that is read once, from front to end: a pipe with a name, such as a shell's <(command),
 * is accepted, too.  Then *piped is true, *size is UINT64_MAX, and reading must wait with poll, as nobody may
 * have opened its other end yet. */
enum moe_code moe_open_input(const char *path, int *fd, uint64_t *size, bool *piped, struct moe_err *err);

/* When an open file was last written to, in nanoseconds as its file system counts them, and its size now:
 * only to be compared, together, since two writes within a tick of that clock have one time. */
enum moe_code moe_written_at(int fd, const char *path, int64_t *when, uint64_t *size, struct moe_err *err);

/* Read exactly `bytes` bytes at `offset`; short input is MOE_CORRUPT ("N bytes short").
 * Retries EINTR and short reads. */
enum moe_code moe_pread(int fd, const char *path, void *buf, size_t bytes, uint64_t offset,
                        struct moe_err *err);
/* Write exactly `bytes` bytes at `offset`; ENOSPC gives MOE_NOSPACE. */
enum moe_code moe_pwrite(int fd, const char *path, const void *buf, size_t bytes, uint64_t offset,
                         struct moe_err *err);

/* The whole file in malloc'd memory with a NUL after it (free() it), refused above `limit` bytes. */
enum moe_code moe_read_file(const char *path, size_t limit, char **data, size_t *size, struct moe_err *err);

/* Write a file of these bytes, whole or not at all, in the place of one that is there (base/newfile.h). */
enum moe_code moe_write_file(const char *path, const void *data, size_t size, struct moe_err *err);

/* open (with O_CLOEXEC; a new file may be read and written by all that the umask allows), fsync and
 * ftruncate.  They start again when a signal interrupts them, and leave errno as the calls do. */
int moe_open(const char *path, int flags);
int moe_fsync(int fd);
int moe_ftruncate(int fd, uint64_t bytes);

/* A file in `dir` that has no name, for reading and writing; errno is EOPNOTSUPP where the file system
 * has no such files. */
int moe_open_nameless(const char *dir, unsigned mode);

/* Give a file so many bytes and reserve room for them; where the file system cannot reserve, the size alone.
 * 0, or -1 and errno. */
int moe_reserve(int fd, uint64_t bytes);
/* How many bytes from `offset` on, at most `bytes`, are a hole of the file: zeros that need not be read.  0
 * where the file system does not tell holes.  Moves the descriptor's own position, which pread and pwrite do
 * not use. */
uint64_t moe_hole(int fd, uint64_t offset, uint64_t bytes);

enum moe_code moe_fsync_path(const char *path, struct moe_err *err); /* file or directory */
/* Make the name of what stands at `path` durable.  fd: a descriptor of it, or -1.  Where the directory cannot
 * be opened (it may not be read, or there are too many open files), the whole file system is synced through
 * fd. */
enum moe_code moe_fsync_parent(const char *path, int fd, struct moe_err *err);

/* Make one directory.  It may be there already, but not as a link. */
enum moe_code moe_mkdir(const char *path, struct moe_err *err);
/* The same with a mode, less the umask; *created is false when anything stands there. */
enum moe_code moe_mkdir_new(const char *path, unsigned mode, bool *created, struct moe_err *err);
/* Remove a file, or a directory with all that is in it.  It need not be there; no symbolic link is
 * followed. */
enum moe_code moe_remove_tree(const char *path, struct moe_err *err);

/* Rename, then fsync the parent of `to`. */
enum moe_code moe_rename(const char *from, const char *to, struct moe_err *err);
/* Rename, but replace nothing: 0, or -1 and errno, EEXIST when something stands at `to`.  Syncs nothing. */
int moe_rename_new(const char *from, const char *to);
/* Exchange two names atomically, then fsync the parent.  fd: as for moe_fsync_parent, of either. */
enum moe_code moe_exchange(const char *a, const char *b, int fd, struct moe_err *err);

/* Lock a directory for writing (flock on its descriptor): MOE_EXISTS when another process holds it, or
 * when it is a link or a file. The lock dies with the process; moe_unlock closes the descriptor. */
enum moe_code moe_lock_dir(const char *path, int *fd, struct moe_err *err);
void moe_unlock(int fd);

/* Is what is open as fd still what stands at `path`?  Somebody may have taken it for stale, moved it away and
 * begun another; then nothing of what stands there may be published or removed.  moe_held_look: *held, or
 * MOE_IO when that cannot be known.  moe_held_check: MOE_EXISTS when it is not.  moe_held_is: false, too,
 * when that cannot be known. */
enum moe_code moe_held_look(int fd, const char *path, bool *held, struct moe_err *err);
enum moe_code moe_held_check(int fd, const char *path, struct moe_err *err);
bool moe_held_is(int fd, const char *path);

/* What stands there, links followed; a link to nothing is MOE_OTHER.  moe_look fails when that cannot be
 * known (a directory that may not be searched, an I/O error); moe_exists says MOE_OTHER then, for callers
 * whose next step meets the error. */
enum moe_exists { MOE_ABSENT, MOE_FILE, MOE_DIR, MOE_OTHER };
enum moe_code moe_look(const char *path, enum moe_exists *what, struct moe_err *err);
enum moe_exists moe_exists(const char *path);
/* MOE_EXISTS, with what it points to and what to do, when `path` is a symbolic link, to something or to
 * nothing: a new `what` ("file", "directory") in its place would lie beside what the link was made for. */
enum moe_code moe_no_link(const char *path, const char *what, struct moe_err *err);

/* The names in a directory, without "." and "..", sorted by bytes.  The caller releases them; there are none
 * after a failure. */
struct moe_names { char **v; size_t n; };
enum moe_code moe_list_dir(const char *path, struct moe_names *names, struct moe_err *err);
void moe_names_release(struct moe_names *names);

/* The bytes that an unprivileged process may still write on the file system of `path`, or of its nearest
 * parent that exists. */
enum moe_code moe_free_space(const char *path, uint64_t *bytes, struct moe_err *err);
/* MOE_NOSPACE, naming the output `shown`, when fewer than `bytes` are free where `path` is. */
enum moe_code moe_need_space(const char *path, uint64_t bytes, const char *shown, struct moe_err *err);

/* A file without a name in `dir`, all zeros, with room for `bytes`: it goes when it is closed.  path [cap]:
 * what to call it in messages.  fd is -1 on failure.  moe_scratch_clear makes it all zeros again. */
enum moe_code moe_scratch_open(const char *dir, uint64_t bytes, char *path, size_t cap, int *fd,
                               struct moe_err *err);
enum moe_code moe_scratch_clear(int fd, const char *path, uint64_t bytes, struct moe_err *err);

/* "dir/name" in out; MOE_IO when it does not fit. */
enum moe_code moe_path_join(char *out, size_t cap, const char *dir, const char *name, struct moe_err *err);
/* The directory that `path` is in, by its text: "." for a plain name; slashes at the end do not count. */
void moe_path_parent(const char *path, char out[MOE_PATH_BYTES]);
/* True for a plain file name: not empty, no '/', not "." or "..". */
bool moe_plain_name(const char *name);
/* Let this process have `want` files open, or as many as its hard limit allows: MOE_IO when those are fewer
 * than `least`. */
enum moe_code moe_want_files(uint64_t least, uint64_t want, struct moe_err *err);

bool moe_ends_with(const char *s, const char *tail);

/* MOE_CORRUPT when a file's first bytes are those of a Git LFS pointer, which stands for a file that was not
 * fetched. */
enum moe_code moe_not_lfs(const void *head, size_t n, const char *path, struct moe_err *err);

/* Map a whole file read-only.  An empty file maps to NULL and 0.  A page that cannot be read later, since the
 * file was cut or the disk failed, is SIGBUS, unless the program called moe_map_guard: it then reads as
 * zeros, and moe_map_check says so from then on. */
enum moe_code moe_map(int fd, const char *path, uint64_t size, const unsigned char **map,
                      struct moe_err *err);
void moe_unmap(const unsigned char *map, uint64_t size);
/* Handle SIGBUS for the maps of moe_map; any other SIGBUS ends the program as before. */
void moe_map_guard(void);
/* MOE_IO, naming the first file of which a page could not be read: what was computed since may be wrong. */
enum moe_code moe_map_check(struct moe_err *err);

/* Peak resident memory of this process (VmHWM: getrusage's figure begins at the peak of the program that
 * started this one), and what the machine could still give (MemAvailable), in bytes. */
uint64_t moe_peak_rss(void);
uint64_t moe_peak_anonymous(void); /* VmHWM less mapped file pages, sampled: see io.c */
uint64_t moe_available_memory(void);

double moe_now(void); /* seconds, monotonic */
double moe_cpu_seconds(void); /* processor time of all threads of this process */

#endif
