#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Goldens of the tokenizer, from the real tiktoken (pip install tiktoken).

  make-tokenizer-golden.py               write tests/data/tokenizer-golden.txt
  make-tokenizer-golden.py --live GEN DIR   compare GEN (tests/gen-tokens) with tiktoken on many more texts, also on the
                                         vocabulary in DIR

Ids alone hardly show where a text was cut, least of all with 1,008 ranks.  So a second encoding is made whose tokens are
all the substrings of the texts: every piece is then one token, and its id tells the piece.

A golden line: text in hexadecimal, TAB, ids on the fixture's vocabulary, TAB, ends of the pieces in bytes."""
import base64, itertools, json, os, random, subprocess, sys, tempfile, unicodedata
try:
    import tiktoken
except ImportError:
    sys.exit(77)

DIR = "tests/data/tiny-k2/"
BYTES = [bytes([i]) for i in range(256)]
PATTERN = "|".join([
    r"[\p{Han}]+",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"\p{N}{1,3}",
    r" ?[^\s\p{L}\p{N}]+[\r\n]*",
    r"\s*[\r\n]+",
    r"\s+(?!\S)",
    r"\s+",
])
WHITE = [chr(c) for c in (*range(9, 14), 0x20, 0x85, 0xa0, 0x1680, *range(0x2000, 0x200b), 0x2028, 0x2029, 0x202f, 0x205f, 0x3000)]
NOT_WHITE = [chr(c) for c in (0, 8, 0x0e, 0x1b, 0x1c, 0x1d, 0x1e, 0x1f, 0x7f, 0x180e, 0x200b, 0x200c, 0x200d, 0x2060, 0xfeff)]

# One or more of every kind of character that the pattern tells apart, and the troublesome ones.
ATOMS = ["a", "z", "A", "Z", "s", "S", "t", "re", "LL", "d", "'", "’", "'s", "'T", "'\u017f", "\u017f", "\u212a", "1", "23", "4567", " ", "  ", "\t", "\n",
         "\r", "\r\n", "\x0b", "\u00a0", "\u3000", "\u2028", "\u0085", "\u180e", "\u200b", ".", ",", "!", "/", "-", "_", "<|im_end|>", "ʰ", "ー", "ǅ", "ǈ", "ß",
         "ẞ", "é", "e\u0301", "\u0301", "\u302a", "\u302d", "\u302e", "\u20dd", "世", "界", "々", "〇", "〡", "〻", "⺀", "⼀", "\U00020000", "\U00016ff0",
         "\U00016fe2", "\U00016fe3", "か", "カ", "한", "\u1100", "ก", "ำ", "ا", "ً", "א", "ִ", "नि", "த", "٣", "²", "Ⅷ", "½", "😀", "👩\u200d👩\u200d👧", "🇫🇷", "\ufe0f",
         "\u00ad", "\ufffd", "\U0010ffff", "\ue000", "\x00", "ªº", "ΑΩ", "я", "Ж", "\u1d2c", "\u02bc", "ﬀ", "K\u030c"]

TEXTS = ["", "Hello world", "HelloWorld", "helloWORLD", "HTTPServer", "I'm we'll THEY'RE it'S 'twas don’t", "It\u2019s", "a'\u017fb", "世界", "世世 ——", "你好,world。",
         "第〇章 1〇2〇3〇4", "12345678 9", "3.14159", "foo/bar/baz\r\n\r\n", "x  y   z", "  \n  \n  end", "   ", "\n\n\n", " \t \t", "tail   ", "a\u3000\u3000b",
         "日本語のテキストです。々々", "カタカナー、ひらがな", "한국어 문장", "\u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35\u0e0a\u0e32\u0e27\u0e42\u0e25\u0e01",
         "مرحبا بالعالم ٣٤٥٦", "שלום עולם", "नमस्ते दुनिया", "Здравствуй, МИР", "ǅabc ǆ Ǆ", "👩‍👩‍👧‍👦 🏳️‍🌈 🇫🇷", "e\u0301\u0301 \u0301a A\u0301", "!!!\u0301abc", "\u0301ABC",
         "ʰABC ABCʰDEF ABCʰ", "ABC\u0301DEF", "(世)\n\n界", "if (x) {\n\treturn y;\n}\n", "<|im_end|><|im_user|>[BOS]", "$100,000.00 (USD)", "\ufeffBOM", "mixed\u200bzero",
         "K\u212aelvin \u2126", "\u302a\u302d世\u302a", "⺀⺁⼀⼁", "Ⅷ Ⅸ ½ ²³", "x\u0085y\u0085\u0085z", "\u2028\u2029", "\x1c\x1d\x1e\x1f", "\u180e\u180ea", "a" * 100, " " * 100, "1" * 100,
         "And God said, Let there be light: and there was light.\n"]


def rng(seed):
    return random.Random(seed)


def mixed(n, seed, most=8):
    r = rng(seed)
    return ["".join(r.choice(ATOMS) for _ in range(r.randint(1, most))) for _ in range(n)]


def spaces():
    for w in WHITE + NOT_WHITE:
        for f in ("a{0}b", "{0}a", "a{0}", "{0}{0}a", "{0} a", " {0}a", "{0}\n{0}x", "{0}!", "{0}1", "{0}世", "!{0}\n"):
            yield f.format(w)


def every(codes):
    for c in map(chr, codes):
        for f in ("a{0}A", " {0}b", "A{0}'s", "1{0}2", "世{0}!", "{0}\n", "!{0}{0}a"):
            yield f.format(c)


def encoding(tokens, pattern=PATTERN):
    return tiktoken.Encoding("k2", pat_str=pattern, mergeable_ranks=tokens, special_tokens={})


def fixture(where=DIR + "bf16"):
    ranks = {}
    with open(where + "/tiktoken.model") as f:
        for line in f:
            b, r = line.split()
            ranks[base64.b64decode(b)] = int(r)
    return encoding(ranks)


def substrings(texts, most):
    for t in texts:
        for i in range(len(t)):
            for j in range(i + 1, min(len(t), i + most) + 1):
                yield t[i:j].encode()


def piece_ends(texts, most=10**9):
    tokens = dict.fromkeys(itertools.chain(BYTES, substrings(texts, most)))
    e = encoding({t: i for i, t in enumerate(tokens)})
    for t in texts:
        yield list(itertools.accumulate(len(e.decode_single_token_bytes(i)) for i in e.encode_ordinary(t)))


def numbers(v):
    return " ".join(map(str, v))


def write_golden():
    texts = list(dict.fromkeys(TEXTS + [t for t in spaces()][::3] + mixed(200, 1) + ["".join(p) for p in zip(ATOMS, ATOMS[1:])]))
    e = fixture()
    with open("tests/data/tokenizer-golden.txt", "w") as f:
        for t, ends in zip(texts, piece_ends(texts)):
            print(t.encode().hex(), numbers(e.encode_ordinary(t)), numbers(ends), sep="\t", file=f)


def run(gen, texts, *args):
    with tempfile.NamedTemporaryFile("w") as f:
        f.writelines(t.encode().hex() + "\n" for t in texts)
        f.flush()
        out = subprocess.run([gen, *args, f.name], check=True, stdout=subprocess.PIPE).stdout.decode().split("\n")[:-1]
    assert len(out) == len(texts), (len(out), len(texts))
    return out


class Live:
    def __init__(self, gen):
        self.gen, self.bad, self.count, self.newer = gen, 0, 0, set()
        ranges = subprocess.run([gen, "-u"], check=True, stdout=subprocess.PIPE).stdout.decode().split()
        self.unassigned = [(int(a, 16), int(b, 16)) for a, b in zip(ranges[::2], ranges[1::2])]

    def known(self, c):
        return not any(a <= c <= b for a, b in self.unassigned)

    def report(self, name, text, want, got):
        # A character that this PCRE2 does not know yet may be a letter to tiktoken.
        unknown = [c for c in set(text) if ord(c) >= 128 and not self.known(ord(c))]
        if unknown:
            self.newer.update(unknown)
            return
        self.bad += 1
        if self.bad <= 20:
            print(f"{name}: {text[:60]!r} {[hex(ord(c)) for c in text[:8]]}: want {want[:80]}, got {got[:80]}")

    def pieces(self, name, texts, most=10**9):
        texts = [t for t in dict.fromkeys(texts) if t]
        for t, want, got in zip(texts, piece_ends(texts, most), run(self.gen, texts, "-p")):
            self.count += 1
            if numbers(want) != got: self.report(name, t, numbers(want), got)

    def ids(self, name, e, texts, where=DIR + "bf16"):
        for t, got in zip(texts, run(self.gen, texts, where)):
            self.count += 1
            want = numbers(e.encode_ordinary(t))
            if want != got: self.report(name, t, want, got)


def live(gen, k2):
    l, e, r = Live(gen), fixture(), rng(3)
    for name in ("valid.txt", "calib.txt"):
        with open(DIR + name, newline="") as f: l.ids(name, e, [f.read()])
    l.ids("hostile ids", e, TEXTS + list(spaces()) + mixed(3000, 4, 40))
    with open(DIR + "calib.txt", newline="") as f: calib = f.read()
    runs = ["".join(r.choice(u) for _ in range(n)) for u in ("ab", "the ", "世界一", "aA", "\n ") for n in (47, 48, 49, 50, 300, 3000)]
    l.ids("vocabulary of K2's size", fixture(k2), [calib] + TEXTS + mixed(3000, 6, 40) + runs, k2)
    l.pieces("texts", TEXTS)
    l.pieces("white space", spaces())
    l.pieces("pairs", ("".join(p) for p in itertools.product(ATOMS, ATOMS)))
    l.pieces("mixed", mixed(30000, 5))
    chars = [c for c in range(0x110000) if not 0xd800 <= c <= 0xdfff]
    for at in range(0, 0x10000, 0x4000):
        l.pieces("BMP", every(c for c in chars if at <= c < at + 0x4000))
    l.pieces("beyond the BMP", every(c for c in chars if c >= 0x10000 and unicodedata.category(chr(c)) not in ("Cn", "Co") and (c % 7 == 0 or c < 0x1f000 and c % 2 == 0)))
    l.pieces("random", ("".join(map(chr, r.choices(chars[:0x20000], k=6))) for _ in range(10000)))
    print(f"{l.count} texts agree" if not l.bad else f"{l.bad} of {l.count} texts differ",
          f"(tiktoken {tiktoken.__version__}; {len(l.newer)} characters are newer than this PCRE2)")
    sys.exit(1 if l.bad else 0)


if __name__ == "__main__":
    live(*sys.argv[2:4]) if sys.argv[1:2] == ["--live"] else write_golden()
