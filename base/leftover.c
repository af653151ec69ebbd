#include "base/leftover.h"

#include <string.h>
#include <sys/xattr.h>

#define WORK "user.moe.work"
#define MADE "user.moe.made"

static void put(int fd, const char *attribute, const char *line)
{
    (void)!fsetxattr(fd, attribute, line, strlen(line), 0);
}

/* "" when there is none. */
static void get(int fd, const char *attribute, char line[MOE_WORK_BYTES])
{
    ssize_t n = fgetxattr(fd, attribute, line, MOE_WORK_BYTES - 1);
    line[n > 0 ? n : 0] = 0;
}

void moe_work_put(int fd, const char *work) { put(fd, WORK, work); }
void moe_work_drop(int fd) { (void)!fremovexattr(fd, WORK); }

bool moe_work_is(int fd, const char *work)
{
    char was[MOE_WORK_BYTES];
    get(fd, WORK, was);
    return *was && !strcmp(was, work);
}

void moe_made_put(int fd, const char *line) { put(fd, MADE, line); }
void moe_made_get(int fd, char line[MOE_WORK_BYTES]) { get(fd, MADE, line); }

enum moe_code moe_left_whole(const char *partial, const char *final, struct moe_err *err)
{
    return moe_fail_at(err, MOE_EXISTS, partial, NULL,
                       "is finished and waits for its name (rename it to '%s', or start over with --force)", final);
}
