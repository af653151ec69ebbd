/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/engine/run-answer.h"

#include "runtime/engine/run-report.h"

#include <string.h>

static void print(struct moe_run_answer *a, const char *s, size_t n)
{
    if (!n) return;
    moe_run_print(NULL, s, n);
    a->last = s[n - 1];
}

static void print_word(struct moe_run_answer *a, const char *s) { print(a, s, strlen(s)); }

static void end_line(struct moe_run_answer *a)
{
    if (a->last && a->last != '\n') print(a, "\n", 1);
}

/* Prints what stands between two parts of different kinds. */
static void print_change(struct moe_run_answer *a, const struct moe_chat_delta *d)
{
    bool thinking = d->part == MOE_PART_REASONING, content = d->part == MOE_PART_CONTENT;
    if (a->thinking && !thinking) {
        end_line(a);
        print_word(a, "</think>\n");
    }
    if (d->part == MOE_PART_CALL || (a->calling && (thinking || content))) end_line(a);
    if (thinking && !a->thinking) {
        end_line(a);
        print_word(a, "<think>\n");
    }
    a->thinking = thinking;
    a->calling = !thinking && !content;
}

static void print_part(struct moe_run_answer *a, const struct moe_chat_delta *d)
{
    print_change(a, d);
    if (d->part == MOE_PART_CALL) {
        print_word(a, "tool call ");
        print(a, d->name, d->name_bytes);
        print_word(a, " (");
        print(a, d->id, d->id_bytes);
        print_word(a, "): ");
    }
    print(a, d->text, d->bytes);
}

static void put(void *ctx, const struct moe_chat_delta *d)
{
    struct moe_run_answer *a = ctx;
    if (a->print) print_part(a, d);
    moe_chat_answer_put(&a->parts, d);
}

static enum moe_code take(void *ctx, const struct moe_event *ev, struct moe_err *err)
{
    struct moe_run_answer *a = ctx;
    return moe_reply_add(&a->reply, ev->tokens, ev->n_tokens, ev->text_bytes, ev->end, err);
}

void moe_run_answer_begin(struct moe_run_answer *a, const struct moe_chat *c, const struct moe_tokenizer *t,
                          bool thinking, bool print_parts, struct moe_generate *set)
{
    *a = (struct moe_run_answer){ .print = print_parts };
    moe_reply_init(&a->reply, c, t, thinking, set->request.keep_special, put, a);
    set->event = take;
    set->event_ctx = a;
    if (print_parts) set->text = NULL;
}

void moe_run_answer_release(struct moe_run_answer *a)
{
    moe_reply_release(&a->reply);
    moe_chat_answer_release(&a->parts);
}
