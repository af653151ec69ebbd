/* SPDX-License-Identifier: Apache-2.0 */
/* Shows a GGUF file of any bytes as moe-inspect does.  It has to be refused with a sentence, or every tensor
 * lies within the file and every text within what was kept of the header. */
#include "convert/inspect-gguf.h"
#include "formats/gguf/gguf-read.h"
#include "tests/fuzz/fuzzdir.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(const struct moe_gguf_head *h, size_t size)
{
    assert(h->file_bytes == size && h->alignment && (h->n_tensors == 0 || h->data_offset <= size));
    for (int64_t i = 0; i < h->n_tensors; i++) {
        const struct moe_gguf_entry *t = &h->tensors[i];
        assert(t->name[0] && t->ndim >= 1 && t->ndim <= 4 && t->offset >= h->data_offset &&
               t->offset <= size);
        bool none = !t->ne[0] || !t->ne[1] || !t->ne[2] || !t->ne[3];
        assert(t->bytes <= size - t->offset && (t->bytes || none || !moe_gguf_type_name(t->type)));
    }
    for (int64_t i = 0; i < h->n_pairs; i++) {
        const struct moe_gguf_pair *p = &h->pairs[i];
        assert(p->key[0] && p->type < MOE_GGUF_VALUES && p->item < MOE_GGUF_VALUES &&
               p->shown <= MOE_GGUF_SHOWN && moe_gguf_find(h, p->key) == p);
        for (int k = 0; k < p->shown && p->item == MOE_GGUF_STRING; k++)
            assert(p->value[k].kept <= MOE_GGUF_TEXT && p->value[k].kept <= p->value[k].length &&
                   !p->value[k].text[p->value[k].kept]);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct moe_err err = MOE_ERR_INIT;
    struct moe_gguf_head h;
    char path[PATH_MAX];
    cJSON *j;
    fuzz_dir_make();
    fuzz_put("x.gguf", data, size);
    snprintf(path, sizeof path, "%s/x.gguf", fuzz_dir);
    if (moe_gguf_read(&h, path, &err) != MOE_OK) {
        assert(err.msg[0] && !h.pairs && !h.tensors);
        assert(moe_inspect_gguf(path, "", false, &j, &err) != MOE_OK && !j);
        return 0;
    }
    check(&h, size);
    moe_gguf_head_release(&h);
    assert(moe_inspect_gguf(path, "", false, &j, &err) == MOE_OK);
    char *text = moe_json_print(j, 0);
    assert(text);
    cJSON *again = NULL; /* our own JSON reader refuses NUL in a text, which JSON allows */
    assert(moe_json_parse(text, strlen(text), "again", &again, &err) == MOE_OK || strstr(text, "\\u0000"));
    cJSON_Delete(again);
    free(text);
    cJSON_Delete(j);
    return 0;
}
