/* SPDX-License-Identifier: Apache-2.0 */
/* tests/ok.h - checks that are counted: OK(condition) aborts with file and line when the condition is
 * false. */
#undef NDEBUG
#include <assert.h>
#include <stdio.h>

static long checks;
#define OK(cond) (assert(cond), checks++)
/* FAILS, SAYS: the call fails with this code, and the message has this text.  Both look at `err`, a variable
 * of the test that the call fills. */
#define FAILS(code_, call) OK((call) == (code_) && err.code == (code_) && err.msg[0])
#define SAYS(text) OK(strstr(err.msg, (text)))
/* TAKES_LESS: a limit on memory holds.  It is not checked under sanitizers, which keep what was freed for a
 * while. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define TAKES_LESS(cond) ((void)(cond), checks++)
#else
#define TAKES_LESS(cond) OK(cond)
#endif
