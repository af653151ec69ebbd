/* SPDX-License-Identifier: Apache-2.0 */
/* formats/tokenizer/chat-left.c - notices on what conversations contain but their template cannot express. */
#include "base/notes.h"
#include "base/show.h"
#include "formats/tokenizer/chat.h"

void moe_chat_tell_left(const struct moe_notes *to, const char *option, const struct moe_chat_left *l)
{
    if (l->keys)
        moe_note(to, "%s: %lld key%s of messages %s left out, the first is '%s'", option,
                 (long long)l->keys, moe_plural(l->keys), l->keys == 1 ? "is" : "are", l->key);
    if (l->reasoning)
        moe_note(to, "%s: the thinking of %lld answers is left out, since the model's chat template has "
                 "no place for it there", option, (long long)l->reasoning);
    if (l->tools)
        moe_note(to, "%s: the tools of %lld conversations are left out, since the model's chat template "
                 "does not declare any", option, (long long)l->tools);
    if (l->nameless)
        moe_note(to, "%s: %lld results of tools do not name their call ('tool_call_id')", option,
                 (long long)l->nameless);
    if (l->spelled)
        moe_note(to, "%s: %lld markers of tools and thinking are written as text, since the vocabulary "
                 "has no tokens for them", option, (long long)l->spelled);
}
