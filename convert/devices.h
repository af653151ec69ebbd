/* SPDX-License-Identifier: Apache-2.0 */
/* convert/devices.h - the GPUs of this machine, for moe-inspect --devices. */
#ifndef MOE_CONVERT_DEVICES_H
#define MOE_CONVERT_DEVICES_H

#include "base/json.h"

/* {"devices": [...]}, an object for each GPU with what it is, how much of its memory is free, how it is
 * linked to the host, how the loader can bring weights there and how its memory can be handed on; "problem"
 * is why a GPU cannot be used, else null.  The caller deletes *json.  MOE_UNSUPPORTED where this build has no
 * GPU kernels, MOE_DEVICE where there is no driver or no GPU. */
enum moe_code moe_inspect_devices(cJSON **json, struct moe_err *err);

#endif
