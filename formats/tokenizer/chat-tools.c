/* SPDX-License-Identifier: Apache-2.0 */
/* formats/tokenizer/chat-tools.c - declares tools to a model, as sorted JSON or as TypeScript. */
#include "formats/tokenizer/chat-internal.h"

#include <stdlib.h>
#include <string.h>

/* ---- sorting ---- */

static int by_key(const void *a, const void *b)
{
    return strcmp((*(cJSON *const *)a)->string, (*(cJSON *const *)b)->string);
}

/* Sort the keys of all objects by their bytes; lists keep their order.  False when out of memory. */
static bool sort(cJSON *v)
{
    size_t n = 0, i = 0;
    for (cJSON *c = v->child; c; c = c->next, n++)
        if (!sort(c)) return false;
    if (!cJSON_IsObject(v) || n < 2) return true;
    cJSON **list = malloc(n * sizeof *list);
    if (!list) return false;
    for (cJSON *c = v->child; c; c = c->next) list[i++] = c;
    qsort(list, n, sizeof *list, by_key);
    for (i = 0; i < n; i++) {
        list[i]->next = i + 1 < n ? list[i + 1] : NULL;
        list[i]->prev = list[i ? i - 1 : n - 1]; /* in cJSON the first element's prev is the last element */
    }
    v->child = list[0];
    free(list);
    return true;
}

void moe_chat_put_tools(struct moe_chat_out *o, const cJSON *tools)
{
    const struct moe_chat_style *s = &o->chat->style;
    cJSON *sorted = o->code == MOE_OK ? cJSON_Duplicate(tools, true) : NULL;
    if (!sorted || !sort(sorted)) moe_chat_fail(o, MOE_NOMEM, -1, "no memory for tools");
    else if (!s->typescript || !moe_chat_put_typescript(o, sorted)) moe_chat_put_json(o, sorted, !s->spaced);
    cJSON_Delete(sorted);
}
