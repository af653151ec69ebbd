/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/comm/ucx.h"

#if MOE_HAVE_UCX
#include <dlfcn.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

/* Sets in the environment what UCX reads there when it is loaded, and has no function for.  UCX must not log
 * to standard output, which belongs to this program, and must neither catch signals nor intercept every mmap
 * of the process.  What the user has set is kept. */
static void set_environment(void)
{
    setenv("UCX_LOG_LEVEL", "fatal", 0);
    setenv("UCX_HANDLE_ERRORS", "none", 0);
    setenv("UCX_MEM_EVENTS", "no", 0);
    setenv("UCX_WARN_UNUSED_ENV_VARS", "n", 0);
}

static enum moe_code load(struct moe_ucx *u, struct moe_err *err)
{
    set_environment();
    void *lib = dlopen("libucp.so.0", RTLD_NOW | RTLD_GLOBAL);
    if (!lib) return moe_fail(err, MOE_UNSUPPORTED, "--comm ucx: libucp is not installed (Debian: libucx0)");
#define X(name) \
    { \
        void *p = dlsym(lib, #name); \
        if (!p) \
            return moe_fail(err, MOE_UNSUPPORTED, "--comm ucx: libucp has no %s (it is older than 1.11)", \
                            #name); \
        memcpy(&u->name, &p, sizeof p); \
    }
    MOE_UCX_FUNCTIONS(X)
#undef X
    return MOE_OK;
}

enum moe_code moe_ucx(const struct moe_ucx **out, struct moe_err *err)
{
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    static struct moe_ucx u;
    static bool loaded;
    pthread_mutex_lock(&lock);
    enum moe_code code = loaded ? MOE_OK : load(&u, err);
    loaded |= code == MOE_OK;
    pthread_mutex_unlock(&lock);
    *out = &u;
    return code;
}

/* Changes the setting `name`, unless the user has set it in the environment. */
static ucs_status_t set(const struct moe_ucx *u, ucp_config_t *config, const char *name, const char *value)
{
    return getenv(name) ? UCS_OK : u->ucp_config_modify(config, name + strlen("UCX_"), value);
}

ucs_status_t moe_ucx_config(const struct moe_ucx *u, bool here, ucp_config_t **config)
{
    ucs_status_t s = u->ucp_config_read(NULL, NULL, config);
    if (s != UCS_OK) return s;
    /* Sockets report the death of a peer at once, so that nobody waits for the timeout; shared memory does
     * not report it in every version of UCX. */
    s = set(u, *config, "UCX_TLS", "^posix,sysv,xpmem,cma,knem");
    /* nobody outside this host can reach the ranks */
    if (s == UCS_OK && here) s = set(u, *config, "UCX_NET_DEVICES", "lo");
    if (s != UCS_OK) u->ucp_config_release(*config);
    return s;
}
#else
typedef int moe_ucx_absent; /* C allows no empty file */
#endif
