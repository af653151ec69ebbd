/* SPDX-License-Identifier: Apache-2.0 */
/* Tests SHA-256 and HMAC with published vectors (the examples of FIPS 180-4, RFC 4231), and one byte at a
 * time. */
#include "tests/ok.h"
#include "base/sha256.h"

#include <stdlib.h>
#include <string.h>

static const char *hex(const unsigned char d[MOE_SHA256_BYTES])
{
    static char text[2 * MOE_SHA256_BYTES + 1];
    for (int i = 0; i < MOE_SHA256_BYTES; i++) snprintf(text + 2 * i, 3, "%02x", d[i]);
    return text;
}

static void digest(const char *text, size_t n, const char *want)
{
    unsigned char out[MOE_SHA256_BYTES];
    struct moe_sha256 s;
    for (size_t step = 1; step <= 129; step += 64) { /* in pieces of 1, 65 and 129 bytes */
        moe_sha256_init(&s);
        for (size_t at = 0; at < n; at += step) moe_sha256_add(&s, text + at, n - at < step ? n - at : step);
        moe_sha256_end(&s, out);
        OK(!strcmp(hex(out), want));
    }
}

static void hmac(const void *key, size_t n_key, const void *text, size_t n, const char *want)
{
    unsigned char out[MOE_SHA256_BYTES];
    struct moe_hmac h;
    moe_hmac_init(&h, key, n_key);
    for (size_t i = 0; i < n; i++) moe_hmac_add(&h, (const char *)text + i, 1);
    moe_hmac_end(&h, out);
    OK(!strcmp(hex(out), want));
}

static void rfc4231(void)
{
    unsigned char key[131], data[50];
    memset(key, 0x0b, 20);
    hmac(key, 20, "Hi There", 8, "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7");
    hmac("Jefe", 4, "what do ya want for nothing?", 28,
         "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
    memset(key, 0xaa, sizeof key);
    memset(data, 0xdd, sizeof data);
    hmac(key, 20, data, 50, "773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe");
    const char *hashed = "Test Using Larger Than Block-Size Key - Hash Key First";
    hmac(key, 131, hashed, strlen(hashed),
         "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54");
    const char *both = "This is a test using a larger than block-size key and a larger than block-size data. "
                       "The key needs to be hashed before being used by the HMAC algorithm.";
    hmac(key, 131, both, strlen(both), "9b09ffa71b942fcb27635fbcd5b0e944bfdc63644f0713938a7f51535c3a35e2");
}

int main(void)
{
    digest("", 0, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    digest("abc", 3, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    digest("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq", 56,
           "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
    char *million = malloc(1000000);
    OK(million);
    memset(million, 'a', 1000000);
    digest(million, 1000000, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
    free(million);
    rfc4231();
    OK(moe_equal_constant_time("abc", "abc", 3) && !moe_equal_constant_time("abc", "abd", 3) &&
       moe_equal_constant_time("abc", "abd", 2));
    printf("test-sha256: %ld checks\n", checks);
    return 0;
}
