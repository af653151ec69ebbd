/* tests/ok.h - checks that count: OK(condition) aborts with file and line when it is false. */
#undef NDEBUG
#include <assert.h>
#include <stdio.h>

static long checks;
#define OK(cond) (assert(cond), checks++)
#define FAILS(code_, call) OK((call) == (code_) && err.code == (code_) && err.msg[0])
#define SAYS(text) OK(strstr(err.msg, (text)))
