/* SPDX-License-Identifier: Apache-2.0 */
/* runtime/comm/ucx.h - UCX's library libucp, loaded when it is first needed, so that tools which exchange no
 * messages with other ranks neither link nor start it.  Only runtime/comm/comm-ucx*.c include this header; it
 * is empty where UCX's headers were missing at build time. */
#ifndef MOE_RUNTIME_COMM_UCX_H
#define MOE_RUNTIME_COMM_UCX_H

#include "base/err.h"

#include <stdbool.h>

#if MOE_HAVE_UCX
#include <ucp/api/ucp.h>

#define MOE_UCX_FUNCTIONS(X) \
    X(ucp_init_version) X(ucp_cleanup) X(ucp_config_read) X(ucp_config_modify) X(ucp_config_release) \
    X(ucp_worker_create) X(ucp_worker_destroy) X(ucp_worker_get_address) X(ucp_worker_release_address) \
    X(ucp_worker_progress) X(ucp_worker_get_efd) X(ucp_worker_arm) X(ucp_worker_set_am_recv_handler) \
    X(ucp_am_send_nbx) X(ucp_am_recv_data_nbx) \
    X(ucp_ep_create) X(ucp_ep_close_nbx) X(ucp_ep_flush_nbx) \
    X(ucp_request_free) X(ucp_request_check_status) X(ucp_get_version_string)

struct moe_ucx {
#define X(name) __typeof__(name) *name;
    MOE_UCX_FUNCTIONS(X)
#undef X
};

/* Loads the library at the first call, and gives its functions to every caller; it is never unloaded.  Any
 * thread may call this, but the first call sets variables of the environment (UCX_LOG_LEVEL and others that
 * UCX reads when it is loaded), which no other thread may read or write meanwhile.  MOE_UNSUPPORTED where the
 * library is not installed or too old. */
enum moe_code moe_ucx(const struct moe_ucx **u, struct moe_err *err);

/* UCX's settings: those of the user (UCX_* in the environment), and this program's where he has set none.
 * here: all ranks run on this host, so that UCX uses the loopback device alone.  The caller releases *config
 * (ucp_config_release), unless this failed. */
ucs_status_t moe_ucx_config(const struct moe_ucx *u, bool here, ucp_config_t **config);
#endif

#endif
