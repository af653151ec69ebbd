/* SPDX-License-Identifier: Apache-2.0 */
/* Quantizing and exporting in one pass: a rewrite whose values go to the checkpoint's files. */
#include "model/rewrite/rewrite-hf.h"

#include "base/io.h"
#include "base/cancel.h"
#include "model/export/export-dir.h"
#include "model/rewrite/files.h"
#include "model/export/hf-layout.h"
#include "model/rewrite/rewrite-internal.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>

/* Plans the checkpoint.  The caller frees *type and closes *layout; both are NULL on failure. */
static enum moe_code plan_checkpoint(const struct moe_source *src, const struct moe_rewrite_options *o,
                                     const struct moe_hf_options *hf, uint8_t **type,
                                     struct moe_hf_layout **layout, struct moe_err *err)
{
    *layout = NULL;
    MOE_CHECK(!o->layers && !o->hf_layout);
    MOE_TRY(moe_rewrite_types(src, o, type, err));
    enum moe_code code = moe_hf_layout_open(layout, src, *type, hf, o->calibrated || o->chooser, err);
    if (code == MOE_OK) return MOE_OK;
    free(*type);
    *type = NULL;
    return code;
}

/* Sets *need to the bytes of memory that the end of the work takes, when the workers' buffers are freed.
 * MOE_NOMEM when o->memory is less. */
static enum moe_code check_memory(const struct moe_rewrite_options *o, const struct moe_hf_layout *layout,
                                  uint64_t *need, struct moe_err *err)
{
    *need = moe_peak_rss() + moe_hf_layout_memory(layout);
    if (!o->memory || *need <= o->memory) return MOE_OK;
    return moe_fail(err, MOE_NOMEM, "needs at least %llu MiB of memory, %llu MiB allowed (raise --memory)",
                    (unsigned long long)(*need >> 20) + 1, (unsigned long long)(o->memory >> 20));
}

/* Sets e->disk_bytes: the checkpoint's files, and the inner container, which lies in DIR.partial until the
 * end and has holes where the checkpoint has the weights. */
static enum moe_code add_disk(const struct moe_source *src, const uint8_t *type,
                              const struct moe_hf_layout *layout,
                              struct moe_rewrite_estimate *e, struct moe_err *err)
{
    enum moe_code code = MOE_OK;
    e->disk_bytes = moe_hf_layout_result(layout)->output_bytes + moe_other_files_bytes(src, 2);
    for (int u = 0; code == MOE_OK && u < moe_unit_count(src); u++) {
        struct moe_shard_unit unit;
        code = moe_unit_open(&unit, src, type, u, err);
        if (code == MOE_OK && unit.n) e->disk_bytes += moe_hf_layout_left(layout, &unit);
        if (code == MOE_OK) moe_unit_release(&unit);
    }
    return code;
}

enum moe_code moe_rewrite_hf_estimate(const struct moe_source *src, const struct moe_rewrite_options *o,
                                      const struct moe_hf_options *hf, struct moe_pool *pool,
                                      struct moe_rewrite_estimate *e, struct moe_hf_result *r,
                                      struct moe_err *err)
{
    struct moe_hf_layout *layout;
    uint8_t *type;

    MOE_TRY(plan_checkpoint(src, o, hf, &type, &layout, err));
    *r = *moe_hf_layout_result(layout);
    uint64_t at_end;
    enum moe_code code = check_memory(o, layout, &at_end, err);
    if (code == MOE_OK) code = moe_rewrite_estimate(src, o, pool, e, err);
    if (code == MOE_OK) code = add_disk(src, type, layout, e, err);
    free(type);
    moe_hf_layout_close(&layout);
    e->output_bytes = r->output_bytes;
    r->memory_bytes = at_end;
    if (at_end > e->memory_bytes) e->memory_bytes = at_end;
    return code;
}

/* ---- in one pass ---- */

/* One call of moe_rewrite_hf, with that function's parameters. */
struct pass {
    const struct moe_source *src;
    const struct moe_rewrite_options *o;
    const struct moe_hf_options *hf;
    struct moe_pool *pool;
    struct moe_progress *progress;
    struct moe_rewrite_result *got;
    struct moe_hf_result *r;
    struct moe_hf_layout *layout;
    struct moe_newdir dir;
    struct moe_export_dir export;
    char options[64];          /* moe_hf_options_words */
    char work[MOE_WORK_BYTES]; /* the line that identifies this work */
    char inner[PATH_MAX];      /* the path of the inner container */
    char partial[PATH_MAX];    /* its path while it is unfinished: that of inner with ".partial" */
};

/* Sets *begun to whether the inner container is in the directory, finished or not. */
static enum moe_code is_begun(const struct pass *p, bool *begun, struct moe_err *err)
{
    enum moe_exists whole, part;
    MOE_TRY(moe_look(p->inner, &whole, err));
    MOE_TRY(moe_look(p->partial, &part, err));
    *begun = whole != MOE_ABSENT || part != MOE_ABSENT;
    return MOE_OK;
}

/* Sets p->options, p->work and the paths of the inner container in the directory that becomes `out`. */
static enum moe_code set_names(struct pass *p, const struct moe_work *work, const char *out,
                               struct moe_err *err)
{
    char digest[33];
    struct moe_newdir d;
    MOE_TRY(moe_work_digest(work, digest, err));
    moe_hf_options_words(p->hf, p->options);
    snprintf(p->work, sizeof p->work, "moe " MOE_VERSION " %s in one pass %s", p->options, digest);
    MOE_TRY(moe_newdir_name(&d, out, err));
    MOE_TRY(moe_path_join(p->inner, sizeof p->inner, d.path, MOE_EXPORT_INNER, err));
    return moe_path_join(p->partial, sizeof p->partial, d.path, MOE_EXPORT_INNER ".partial", err);
}

/* When `code` says that the unfinished directory is that of another work, replaces *err by an error that
 * names the option that differs, as the container in it records.  Returns code. */
static enum moe_code tell_difference(const struct pass *p, const struct moe_work *work, enum moe_code code,
                                     struct moe_err *err)
{
    struct moe_err why;
    bool differs = code == MOE_MISMATCH && (moe_work_compare(p->partial, work, &why) == MOE_MISMATCH ||
                                            moe_work_compare(p->inner, work, &why) == MOE_MISMATCH);
    if (differs) *err = why;
    return code;
}

/* Begins the directory, or goes on with that of an earlier run of the same work. */
static enum moe_code begin(struct pass *p, const char *out, struct moe_err *err)
{
    struct moe_work work;
    MOE_TRY(moe_rewrite_work_init(p->src, p->o, &work, err));
    enum moe_code code = set_names(p, &work, out, err);
    p->export = (struct moe_export_dir){ .src = p->src, .options = p->options, .mode = p->hf->mode,
                                         .proof = MOE_PROOF_PRODUCER, .work = p->work,
                                         .cancel = p->o->cancel };
    if (code == MOE_OK)
        code = tell_difference(p, &work, moe_export_dir_begin(&p->dir, &p->export, out, err), err);
    moe_rewrite_work_release(&work);
    return code;
}

/* Writes what the checkpoint still lacks, from the finished container, and marks the directory as complete.
 * For a damaged container the usual remedy, to copy it again, does not apply, as there is no other copy. */
static enum moe_code finish(struct pass *p, struct moe_err *err)
{
    struct moe_source *inner;
    char work[MOE_WORK_BYTES];
    enum moe_code code = moe_source_open(&inner, p->inner, err);
    if (code == MOE_OK) {
        code = moe_hf_layout_finish(p->layout, inner, p->dir.path, p->progress, p->r, err);
        moe_export_dir_work(inner, p->options, work);
        moe_source_close(&inner);
    }
    if (code == MOE_CORRUPT) return moe_err_remedy(err, "start over with --force");
    MOE_TRY(code);
    return moe_export_dir_complete(&p->dir, &p->export, work, err);
}

/* Writes the inner container with its weights in the checkpoint's files, then the rest of the checkpoint. */
static enum moe_code write_all(struct pass *p, const char *out, struct moe_err *err)
{
    struct moe_rewrite_options o = *p->o;
    bool begun;
    o.hf_layout = p->layout;
    MOE_TRY(is_begun(p, &begun, err));
    enum moe_code code = moe_hf_layout_make(p->layout, p->dir.path, begun, out, err);
    if (code != MOE_OK) return begun ? moe_newdir_interrupted(code, p->inner, p->dir.path, err) : code;
    MOE_TRY(moe_work_check_manifest(p->inner, true, err));
    MOE_TRY(moe_work_check_manifest(p->partial, false, err));
    MOE_TRY(moe_rewrite(p->src, p->inner, MOE_WRITE_RESUME, &o, p->pool, p->progress, p->got, err));
    p->got->was_done = false; /* the container may have been complete, but the checkpoint was not */
    return finish(p, err);
}

/* Adds to the error of an interrupted run how to go on, if the inner container is complete, so that all
 * weights are quantized. */
static void tell_kept(const struct pass *p, enum moe_code code, struct moe_err *err)
{
    struct moe_err ignored;
    enum moe_exists there;
    if (moe_look(p->inner, &there, &ignored) != MOE_OK || there == MOE_ABSENT) return;
    moe_cancel_left(code, err,
                    "every weight is quantized, and kept in '%s' (go on with the same command and "
                    "--resume)", p->dir.path);
}

static enum moe_code run(struct pass *p, const char *out, struct moe_err *err)
{
    struct moe_err ignored;
    bool begun = false;
    enum moe_code code = begin(p, out, err);

    if (code != MOE_OK && p->hf->mode == MOE_WRITE_RESUME)
        return moe_newdir_interrupted(code, out, NULL, err);
    if (code != MOE_OK) return moe_cancel_left(code, err, "nothing was finished yet by this run");
    p->r->was_done = p->got->was_done = p->dir.whole;
    if (p->dir.whole) return moe_export_dir_end(&p->dir, &p->export, MOE_OK, err);
    code = write_all(p, out, err);
    /* The directory stays for --resume once a container has been begun in it. */
    if (code != MOE_OK && is_begun(p, &begun, &ignored) == MOE_OK && begun) p->dir.keep = true;
    if (code != MOE_OK) tell_kept(p, code, err);
    return moe_export_dir_end(&p->dir, &p->export, code, err);
}

enum moe_code moe_rewrite_hf(const struct moe_source *src, const char *out,
                             const struct moe_rewrite_options *o, const struct moe_hf_options *hf,
                             struct moe_pool *pool, struct moe_progress *progress,
                             struct moe_rewrite_result *got, struct moe_hf_result *r, struct moe_err *err)
{
    struct pass *p = calloc(1, sizeof *p);
    uint8_t *type;
    uint64_t need;

    *got = (struct moe_rewrite_result){ 0 };
    *r = (struct moe_hf_result){ 0 };
    if (!p) return moe_fail_at(err, MOE_NOMEM, out, NULL, "no memory to write it");
    *p = (struct pass){ .src = src, .o = o, .hf = hf, .pool = pool, .progress = progress, .got = got,
                        .r = r };
    enum moe_code code = plan_checkpoint(src, o, hf, &type, &p->layout, err);
    if (code == MOE_OK) *r = *moe_hf_layout_result(p->layout);
    if (code == MOE_OK) moe_rewrite_count(src, type, got);
    free(type);
    if (code == MOE_OK) code = check_memory(o, p->layout, &need, err);
    if (code == MOE_OK) code = run(p, out, err);
    if (code != MOE_OK) moe_rewrite_result_release(got);
    got->output_bytes = r->output_bytes;
    moe_hf_layout_close(&p->layout);
    free(p);
    return code;
}
