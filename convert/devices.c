/* SPDX-License-Identifier: Apache-2.0 */
#include "convert/devices.h"

#include "base/io.h"
#include "model/ops/cuda/gpu.h"
#include "model/ops/cuda/load.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A number at the beginning of a file of a PCI device in sysfs ("32.0 GT/s PCIe"); 0 when it is not there. */
static double pci_number(const char *bus, const char *name)
{
    char path[128], text[64] = "";
    snprintf(path, sizeof path, "/sys/bus/pci/devices/%s/%s", bus, name);
    for (char *c = path; *c; c++) *c = *c >= 'A' && *c <= 'F' ? (char)(*c + 32) : *c;
    FILE *f = fopen(path, "r");
    if (f && !fgets(text, sizeof text, f)) text[0] = 0;
    if (f) fclose(f);
    return strtod(text, NULL);
}

/* The link as the device allows it, because an idle one is slower; null in what the system does not say. */
static void add_link(cJSON *o, const struct moe_gpu_info *i)
{
    cJSON *link = moe_json_add_object(o, "link");
    double rate = pci_number(i->bus, "max_link_speed"), width = pci_number(i->bus, "max_link_width");
    moe_json_add_str(link, "bus", i->bus);
    if (rate > 0 && rate < 1000) moe_json_add_f64(link, "pcie_gtransfers_per_second", rate);
    else moe_json_add_null(link, "pcie_gtransfers_per_second");
    if (width > 0 && width <= 32) moe_json_add_f64(link, "pcie_lanes", width);
    else moe_json_add_null(link, "pcie_lanes");
    moe_json_add_bool(link, "host_page_tables", i->host_pages);
}

static void append_str(cJSON *array, const char *s) { moe_json_append(array, cJSON_CreateString(s)); }

/* GPUDirect storage is not used; what is said of it is whether the parts that it needs are installed. */
static void add_paths(cJSON *o, const struct moe_gpu_info *i)
{
    struct moe_err ignored;
    cJSON *paths = moe_json_add_array(o, "load_paths"), *handles = moe_json_add_array(o, "handles");
    for (int p = MOE_LOAD_DIRECT; p <= MOE_LOAD_MAPPED; p++)
        if (moe_load_check(i, (enum moe_load_path)p, &ignored) == MOE_OK)
            append_str(paths, moe_load_path_name((enum moe_load_path)p));
    if (i->posix_fd) append_str(handles, "posix_fd");
    if (i->fabric) append_str(handles, "fabric");
    bool module = moe_exists("/proc/driver/nvidia-fs") == MOE_DIR;
    moe_json_add_str(o, "gpudirect_storage", module ? "installed, not used" : "not installed");
}

static cJSON *describe(const struct moe_gpu_info *i)
{
    struct moe_err err = MOE_ERR_INIT;
    uint64_t left = 0;
    char arch[16];
    cJSON *o = cJSON_CreateObject();
    enum moe_code code = moe_gpu_check_usable(i, &err);
    if (code == MOE_OK) code = moe_gpu_free_bytes(i->index, &left, &err);
    snprintf(arch, sizeof arch, "sm_%d%d", i->major, i->minor);
    moe_json_add_i64(o, "index", i->index);
    moe_json_add_str(o, "name", i->name);
    moe_json_add_str(o, "arch", arch);
    moe_json_add_i64(o, "multiprocessors", i->multiprocessors);
    moe_json_add_i64(o, "memory_bytes", (int64_t)i->bytes);
    if (code == MOE_OK) moe_json_add_i64(o, "free_bytes", (int64_t)left);
    else moe_json_add_null(o, "free_bytes");
    moe_json_add_bool(o, "ecc", i->ecc);
    if (i->numa_node >= 0) moe_json_add_i64(o, "numa_node", i->numa_node);
    else moe_json_add_null(o, "numa_node");
    add_link(o, i);
    add_paths(o, i);
    if (code == MOE_OK) moe_json_add_null(o, "problem");
    else moe_json_add_str(o, "problem", err.msg);
    return o;
}

enum moe_code moe_inspect_devices(cJSON **json, struct moe_err *err)
{
    int n;
    *json = NULL;
    MOE_TRY(moe_gpu_check_build(err));
    MOE_TRY(moe_gpus_found(&n, err));
    cJSON *o = cJSON_CreateObject(), *list = moe_json_add_array(o, "devices");
    enum moe_code code = MOE_OK;
    for (int i = 0; i < n && code == MOE_OK; i++) {
        struct moe_gpu_info info;
        code = moe_gpu_describe(i, &info, err);
        if (code == MOE_OK) moe_json_append(list, describe(&info));
    }
    if (code == MOE_OK && !moe_json_whole(o)) code = moe_fail(err, MOE_NOMEM, "no memory for the report");
    if (code == MOE_OK) *json = o;
    else cJSON_Delete(o);
    return code;
}
