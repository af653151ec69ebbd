/* SPDX-License-Identifier: Apache-2.0 */
#include "base/re.h"

#include <stdlib.h>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

struct moe_re {
    pcre2_code *code;
    pcre2_match_data *data;
};

enum moe_code moe_re_open(struct moe_re **re, const char *pattern, struct moe_err *err)
{
    int why;
    PCRE2_SIZE at;
    *re = NULL;
    pcre2_code *code = pcre2_compile((PCRE2_SPTR)pattern, PCRE2_ZERO_TERMINATED, 0, &why, &at, NULL);
    if (!code) {
        PCRE2_UCHAR text[160];
        if (why == PCRE2_ERROR_HEAP_FAILED)
            return moe_fail(err, MOE_NOMEM, "no memory for a regular expression");
        pcre2_get_error_message(why, text, sizeof text);
        return moe_fail(err, MOE_USAGE, "bad regular expression '%s' at offset %zu: %s", pattern, (size_t)at,
                        (char *)text);
    }
    struct moe_re *r = malloc(sizeof *r);
    pcre2_match_data *data = pcre2_match_data_create_from_pattern(code, NULL);
    if (!r || !data) {
        free(r);
        pcre2_match_data_free(data);
        pcre2_code_free(code);
        return moe_fail(err, MOE_NOMEM, "no memory for a regular expression");
    }
    *r = (struct moe_re){ code, data };
    *re = r;
    return MOE_OK;
}

void moe_re_close(struct moe_re **re)
{
    if (!*re) return;
    pcre2_match_data_free((*re)->data);
    pcre2_code_free((*re)->code);
    free(*re);
    *re = NULL;
}

bool moe_re_match(const struct moe_re *re, const char *subject, size_t bytes)
{
    return pcre2_match(re->code, (PCRE2_SPTR)subject, bytes, 0, 0, re->data, NULL) >= 0;
}
