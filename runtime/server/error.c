/* SPDX-License-Identifier: Apache-2.0 */
/* Errors as the API of OpenAI reports them. */
#include "runtime/server/server-internal.h"

#include <stdarg.h>
#include <stdio.h>

/* What clients tell errors apart by. */
static const char *type_of(int status)
{
    switch (status) {
    case 401: case 403: return "authentication_error";
    case 404: return "not_found_error";
    case 429: return "rate_limit_error";
    default: return status < 500 ? "invalid_request_error" : "server_error";
    }
}

bool moe_api_fail(struct moe_api_error *e, int status, const char *param, const char *fmt, ...)
{
    char text[sizeof e->err.msg];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    moe_fail(&e->err, MOE_USAGE, "%s", text);
    e->status = status;
    e->type = type_of(status);
    snprintf(e->param, sizeof e->param, "%s", param ? param : "");
    return false;
}

bool moe_api_fail_code(struct moe_api_error *e, const char *param)
{
    switch (e->err.code) {
    case MOE_USAGE: case MOE_CORRUPT: case MOE_UNSUPPORTED: case MOE_MISMATCH: e->status = 400; break;
    case MOE_BUSY:
        e->status = 429;
        e->code = "queue_full";
        e->retry_after = 1;
        break;
    case MOE_NOMEM:
        e->status = 503;
        e->retry_after = 5;
        break;
    default: e->status = 500; break;
    }
    e->type = type_of(e->status);
    snprintf(e->param, sizeof e->param, "%s", param && e->status == 400 ? param : "");
    return false;
}

cJSON *moe_api_error_json(const struct moe_api_error *e)
{
    cJSON *json = cJSON_CreateObject(), *o = moe_json_add_object(json, "error");
    moe_json_add_str(o, "message", e->err.msg);
    moe_json_add_str(o, "type", e->type);
    if (*e->param) moe_json_add_str(o, "param", e->param);
    else moe_json_add_null(o, "param");
    if (e->code) moe_json_add_str(o, "code", e->code);
    else moe_json_add_null(o, "code");
    return json;
}
