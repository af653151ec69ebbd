/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/comm/ucx.h"

#if MOE_HAVE_UCX
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

/* Sets UCX's settings in the environment, where UCX reads them when it is loaded.  UCX must not log to
 * standard output, which belongs to this program, and must neither catch signals nor intercept every mmap of
 * the process.  What the user has set is kept. */
static void set_environment(bool here)
{
    setenv("UCX_LOG_LEVEL", "fatal", 0);
    setenv("UCX_HANDLE_ERRORS", "none", 0);
    setenv("UCX_MEM_EVENTS", "no", 0);
    setenv("UCX_WARN_UNUSED_ENV_VARS", "n", 0);
    if (here) setenv("UCX_NET_DEVICES", "lo", 0); /* nobody outside this host can reach the ranks */
    /* Sockets report the death of a peer at once, so that nobody waits for the timeout; shared memory does
     * not report it in every version of UCX. */
    setenv("UCX_TLS", "^posix,sysv,xpmem,cma,knem", 0);
}

enum moe_code moe_ucx(const struct moe_ucx **out, bool here, struct moe_err *err)
{
    static struct moe_ucx u;
    static bool loaded;
    *out = &u;
    if (loaded) return MOE_OK;
    set_environment(here);
    void *lib = dlopen("libucp.so.0", RTLD_NOW | RTLD_GLOBAL);
    if (!lib) return moe_fail(err, MOE_UNSUPPORTED, "--comm ucx: libucp is not installed (Debian: libucx0)");
#define X(name) \
    { \
        void *p = dlsym(lib, #name); \
        if (!p) \
            return moe_fail(err, MOE_UNSUPPORTED, "--comm ucx: libucp has no %s (it is older than 1.11)", \
                            #name); \
        memcpy(&u.name, &p, sizeof p); \
    }
    MOE_UCX_FUNCTIONS(X)
#undef X
    loaded = true;
    return MOE_OK;
}
#else
typedef int moe_ucx_absent; /* C allows no empty file */
#endif
