/* SPDX-License-Identifier: Apache-2.0 */
/* tests/unit/tokenizer-texts.h - random hostile text, and a tiktoken.model of K2's size,
 * for the tokenizer's tests. */
#ifndef MOE_TESTS_UNIT_TOKENIZER_TEXTS_H
#define MOE_TESTS_UNIT_TOKENIZER_TEXTS_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

static inline uint32_t next_random(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return (uint32_t)(*state >> 24);
}

/* At least one of every kind of character that the pattern tells apart. */
static const char *const text_atoms[] = {
    "a",
    "b",
    "A",
    "Z",
    "'",
    "'s",
    "'S",
    "'\xc5\xbf",
    "\xc5\xbf",
    "'re",
    "'LL",
    "'t",
    "1",
    "23",
    "4567",
    " ",
    "  ",
    "\t",
    "\n",
    "\r",
    "\r\n",
    "\x0b",
    "\xc2\xa0",
    "\xe3\x80\x80",
    "\xc2\x85",
    "\xe2\x80\xa8",
    "\xe1\xa0\x8e",
    "\xe2\x80\x8b",
    ".",
    "!",
    "/",
    "-",
    "_",
    "<|im_end|>",
    "\xca\xb0",
    "\xe3\x83\xbc",
    "\xc7\x85",
    "\xc3\x9f",
    "e\xcc\x81",
    "\xcc\x81",
    "\xe3\x80\xaa",
    "\xe3\x80\xad",
    "\xe3\x80\xae",
    "\xe2\x83\x9d",
    "\xe4\xb8\x96",
    "\xe7\x95\x8c",
    "\xe3\x80\x85",
    "\xe3\x80\x87",
    "\xe3\x80\xa1",
    "\xe2\xba\x80",
    "\xf0\xa0\x80\x80",
    "\xe3\x81\x8b",
    "\xed\x95\x9c",
    "\xe0\xb8\x81",
    "\xd8\xa7",
    "\xd9\x8b",
    "\xd7\x90",
    "\xd9\xa3",
    "\xc2\xb2",
    "\xe2\x85\xa7",
    "\xf0\x9f\x98\x80",
    "\xe2\x80\x8d",
    "\xef\xb8\x8f",
    "\xef\xbf\xbd",
    "\xf4\x8f\xbf\xbf",
    "\xce\xa9",
    "\xd1\x8f",
    "\xd0\x96",
    "word",
    "Word",
};
#define TEXT_ATOMS (sizeof text_atoms / sizeof *text_atoms)

/* Up to `most` atoms in out (12 bytes each are enough); the bytes. */
static inline size_t random_text(uint64_t *state, char *out, size_t most)
{
    size_t n = 0;
    for (size_t i = 1 + next_random(state) % most; i > 0; i--) {
        const char *atom = text_atoms[next_random(state) % TEXT_ATOMS];
        size_t len = strlen(atom);
        memcpy(out + n, atom, len);
        n += len;
    }
    return n;
}

#endif
