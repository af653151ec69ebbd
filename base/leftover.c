#include "base/leftover.h"

#include <string.h>
#include <sys/xattr.h>

#define ATTRIBUTE "user.moe.work"

void moe_work_put(int fd, const char *work)
{
    (void)!fsetxattr(fd, ATTRIBUTE, work, strlen(work), 0);
}

void moe_work_drop(int fd)
{
    (void)!fremovexattr(fd, ATTRIBUTE);
}

bool moe_work_is(int fd, const char *work)
{
    char was[MOE_WORK_BYTES];
    ssize_t n = fgetxattr(fd, ATTRIBUTE, was, sizeof was);
    return n > 0 && (size_t)n == strlen(work) && !memcmp(was, work, (size_t)n);
}

enum moe_code moe_left_whole(const char *partial, const char *final, struct moe_err *err)
{
    return moe_fail_at(err, MOE_EXISTS, partial, NULL,
                       "is finished and waits for its name (rename it to '%s', or start over with --force)", final);
}
