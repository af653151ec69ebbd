/* SPDX-License-Identifier: Apache-2.0 */
/* formats/text-kind.c - what kind of text a file is, by its first bytes, and whether it is text at all. */
#include "base/io.h"
#include "base/json.h"
#include "base/show.h"
#include "formats/text-internal.h"

#include <string.h>
#include <strings.h>

/* What is not text, by the n bytes `magic` at offset `at`. */
static const struct { const char *magic; size_t at, n; const char *what, *remedy; } foreign[] = {
    { "PAR1", 0, 4, "Parquet", "convert it to JSON lines" },
    { "ARROW1\0\0", 0, 8, "Arrow", "convert it to JSON lines" },
    { "Obj\x01", 0, 4, "Avro", "convert it to JSON lines" },
    { "SQLite format 3", 0, 16, "an SQLite database", "export it as JSON lines" },
    { "\x89HDF", 0, 4, "HDF5", "convert it to JSON lines" },
    { "\x93NUMPY", 0, 6, "a NumPy array", "convert it to JSON lines" },
    { "\x28\xb5\x2f\xfd", 0, 4, "compressed with zstd", "decompress it: zstd -d" },
    { "\xfd\x37zXZ", 0, 6, "compressed with xz", "decompress it: xz -d" },
    { "\x04\x22\x4d\x18", 0, 4, "compressed with lz4", "decompress it: lz4 -d" },
    { "\x1f\x8b", 0, 2, "compressed with gzip twice", "decompress it: gzip -d" },
    { "1AY&SY", 4, 6, "compressed with bzip2", "decompress it: bzip2 -d" },
    { "7z\xbc\xaf", 0, 4, "a 7z archive", "unpack it" },
    { "PK\x03\x04", 0, 4, "a ZIP archive", "unpack it" },
    { "ustar", 257, 5, "a tar archive", "unpack it" },
    { "%PDF-", 0, 5, "PDF", "extract its text" },
    /* before UTF-16, whose byte order mark is the beginning of this one */
    { "\xff\xfe\0\0", 0, 4, "UTF-32", "convert it: iconv -f UTF-32 -t UTF-8" },
    { "\xff\xfe", 0, 2, "UTF-16", "convert it: iconv -f UTF-16 -t UTF-8" },
    { "\xfe\xff", 0, 2, "UTF-16", "convert it: iconv -f UTF-16 -t UTF-8" },
    { "\0\0\xfe\xff", 0, 4, "UTF-32", "convert it: iconv -f UTF-32 -t UTF-8" },
};

/* Whether s[0..n) ends in `tail`, in upper or lower case. */
static bool ends_in(const char *s, size_t n, const char *tail)
{
    size_t m = strlen(tail);
    return n >= m && !strncasecmp(s + n - m, tail, m);
}

static bool has_json_name(const char *path)
{
    size_t n = strlen(path);
    if (ends_in(path, n, ".gz")) n -= 3;
    return ends_in(path, n, ".jsonl") || ends_in(path, n, ".ndjson") || ends_in(path, n, ".json");
}

/* Whether the text after the string that begins at s[i] is that of an array: the array's end, or a comma and
 * the beginning of a value. */
static bool string_in_array(const char *s, size_t n, size_t i)
{
    for (i++; i < n && s[i] != '"' && s[i] != '\n'; i++) i += s[i] == '\\';
    i = i < n && s[i] == '"' ? moe_json_space(s, n, i + 1) : n;
    if (i >= n || s[i] != ',') return i < n && s[i] == ']';
    i = moe_json_space(s, n, i + 1);
    return i == n || strchr("\"{[-0123456789", s[i]);
}

/* A '[' alone does not make a JSON array, since plain text may begin with one ("[1] See ..."). */
static enum moe_text_kind guess_kind(const char *path, const char *s, size_t n)
{
    bool named = has_json_name(path);
    size_t i = moe_json_space(s, n, 0), next = i < n ? moe_json_space(s, n, i + 1) : n;
    bool array = i < n && s[i] == '[',
         strings = array && next < n && s[next] == '"' && string_in_array(s, n, next);
    enum moe_json_start start = moe_json_begins(s, n);
    if (start == MOE_JSON_ARRAY || strings || (array && named)) return MOE_TEXT_ARRAY;
    return named || start == MOE_JSON_OBJECT ? MOE_TEXT_LINES : MOE_TEXT_PLAIN;
}

enum moe_code moe_text_refuse_foreign(const char *path, const char *head, size_t n, struct moe_err *err)
{
    MOE_TRY(moe_not_lfs(head, n, path, err));
    for (size_t i = 0; i < sizeof foreign / sizeof *foreign; i++)
        if (n >= foreign[i].at + foreign[i].n && !memcmp(head + foreign[i].at, foreign[i].magic,
                                                         foreign[i].n))
            return moe_fail_at(err, MOE_UNSUPPORTED, path, NULL, "is %s, not text (%s)", foreign[i].what,
                               foreign[i].remedy);
    return MOE_OK;
}

enum moe_code moe_text_detect_kind(const char *path, const char *head, size_t n, enum moe_text_kind *kind,
                                   struct moe_err *err)
{
    MOE_TRY(moe_text_refuse_foreign(path, head, n, err));
    *kind = guess_kind(path, head, n);
    return MOE_OK;
}

enum moe_code moe_text_check(const char *path, int64_t line, const char *p, size_t n, struct moe_err *err)
{
    const char *zero = memchr(p, 0, n);
    size_t valid = moe_utf8_prefix((const unsigned char *)p, n),
        at = zero && (size_t)(zero - p) < valid ? (size_t)(zero - p) : valid;
    if (at == n) return MOE_OK;
    for (size_t i = 0; i < at; i++) line += p[i] == '\n';
    if (!p[at])
        return moe_fail_at(err, MOE_CORRUPT, path, NULL, "line %lld: a NUL byte: this is no text in UTF-8 "
                           "(UTF-16 is converted with iconv)", (long long)line);
    return moe_fail_at(err, MOE_CORRUPT, path, NULL,
                       "line %lld: byte 0x%02x is not UTF-8 (Latin-1? iconv -f LATIN1 -t UTF-8 converts it)",
                       (long long)line, (unsigned)(unsigned char)p[at]);
}
