/* SPDX-License-Identifier: Apache-2.0 */
/* gen-values MODEL OUT.safetensors
 *
 * Writes the values of every NVFP4 weight of a model, as this project dequantizes them, in F32. */
#undef NDEBUG
#include "formats/checkpoint/safetensors.h"
#include "formats/source.h"
#include "kernels/kernels.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static enum moe_code write_values(const struct moe_source *src, struct moe_st_writer *w, struct moe_err *err)
{
    for (int64_t i = 0; i < src->n_tensors; i++) {
        struct moe_weight t;
        if (src->tensors[i].type != MOE_NVFP4) continue;
        moe_source_weight(src, &src->tensors[i], &t);
        size_t n = (size_t)(t.rows * t.cols);
        float *v = malloc(n * sizeof *v);
        assert(v);
        for (int64_t r = 0; r < t.rows; r++) moe_kernels()->dequantize(&t, r, 0, t.cols, v + r * t.cols);
        enum moe_code code = moe_st_write(w, v, n * sizeof *v, err);
        free(v);
        MOE_TRY(code);
    }
    return MOE_OK;
}

static enum moe_code run(const char *model, const char *out, struct moe_err *err)
{
    struct moe_source *src;
    struct moe_st_writer *w;
    MOE_TRY(moe_source_open(&src, model, err));
    struct moe_st_entry *e = calloc((size_t)src->n_tensors, sizeof *e);
    char (*names)[128] = malloc((size_t)src->n_tensors * sizeof *names);
    int64_t n = 0;
    assert(e && names);
    for (int64_t i = 0; i < src->n_tensors; i++) {
        const struct moe_tensor *t = &src->tensors[i];
        if (t->type != MOE_NVFP4) continue;
        e[n] = (struct moe_st_entry){ .name = moe_tensor_name((enum moe_role)t->role, t->layer, t->expert,
                                                              names[n]),
                                      .dtype = "F32",
                                      .ndim = 2,
                                      .shape = { t->rows, t->cols } };
        n++;
    }
    enum moe_code code = moe_source_map(src, err);
    if (code == MOE_OK && (code = moe_st_create(&w, out, e, n, err)) == MOE_OK) {
        code = write_values(src, w, err);
        if (code == MOE_OK) code = moe_st_finish(&w, err);
        else moe_st_abort(&w);
    }
    free(e);
    free(names);
    moe_source_close(&src);
    return code;
}

int main(int argc, char **argv)
{
    struct moe_err err = MOE_ERR_INIT;
    if (argc != 3) return fprintf(stderr, "gen-values MODEL OUT.safetensors\n"), 2;
    enum moe_code code = run(argv[1], argv[2], &err);
    if (code != MOE_OK) fprintf(stderr, "gen-values: %s\n", err.msg);
    return (int)code;
}
