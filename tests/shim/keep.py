# SPDX-License-Identifier: Apache-2.0
"""keep.py ROLE SOCKET [ARGUMENT]: the other side of a connection between a keeper of weights and an engine
(runtime/comm/wire-keep.h), which says nothing or lies.

    fake LIE      listens at SOCKET, and does to everybody who connects what LIE says; ends when killed
    hostile       connects in every bad way; exit 0 when the keeper is none the worse
    silent        connects, says nothing, and prints after how many seconds the keeper has closed
    terms         prints what the keeper offers, a line each"""
import array, os, socket, struct, sys, time

role, path = sys.argv[1:3]
HEAD, OFFER, TAKE, GIVE, FAILED = b"MOEKEEPS" + struct.pack("<I", 1), 1, 2, 3, 4


def message(kind, body=b""): return HEAD + struct.pack("<I", kind) + body
def units(kind, first, n): return message(kind, struct.pack("<QI", first, n))
def rights(files): return [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", files))]


def connect():
    s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    s.settimeout(30)
    for turn in range(1000):
        try:
            s.connect(path)
            return s
        except BlockingIOError: time.sleep(0.02)  # so many wait already
    sys.exit("nobody accepts")


def offer_of(s):
    packet = s.recv(4096)
    assert packet[:16] == message(OFFER), packet
    at, terms = 20, []
    for _ in range(struct.unpack("<I", packet[16:20])[0]):
        name, value = packet[at], packet[at + 1]
        text = packet[at + 2:at + 2 + name + value].decode()
        terms.append((text[:name], text[name:]))
        at += 2 + name + value
    assert at == len(packet)
    return terms


def packed(terms):
    return message(OFFER, struct.pack("<I", len(terms)) + b"".join(
        bytes((len(n), len(v))) + n.encode() + v.encode() for n, v in terms))


def lie(s, what):
    """Serves one engine."""
    if what == "silent": return time.sleep(60)
    if what == "gone": return
    if what == "noise": return s.send(os.urandom(300))
    if what == "version": return s.send(b"MOEKEEPS" + struct.pack("<II", 7, 1) + b"whatever")
    if what == "failed": return s.send(message(FAILED, b"the sky \x1b[31mis falling"))
    if what == "long": return s.send(message(FAILED, b"x" * 5000))
    if what == "terms": return s.send(packed([("moon", "x"), ("GPU", "y")]))
    if what == "few": return s.send(packed([]))
    terms = [tuple(line.split("\t")) for line in open(sys.argv[4]).read().splitlines()]
    if what.startswith("other="):
        s.send(packed([(n, "another" if n == what[6:] else v) for n, v in terms]))
        return s.recv(4096)
    s.send(packed(terms))
    first, n = struct.unpack("<QI", s.recv(4096)[16:28])
    null = [os.open("/dev/null", os.O_RDONLY)]
    if what == "after": return time.sleep(60)
    if what == "leave": return
    if what == "null": return s.sendmsg([units(GIVE, first, n)], rights(null * n))
    if what == "none": return s.send(units(GIVE, first, n))
    if what == "less": return s.sendmsg([units(GIVE, first, n)], rights(null * (n - 1)))
    if what == "more": return s.sendmsg([units(GIVE, first, n)], rights(null * min(253, n + 70)))
    if what == "shift": return s.sendmsg([units(GIVE, first + 1, n)], rights(null * n))
    if what == "again": return s.sendmsg([packed(terms)], rights(null * n))
    sys.exit("no such lie: " + what)


if role == "fake":
    kind = socket.SOCK_STREAM if sys.argv[3] == "stream" else socket.SOCK_SEQPACKET
    door = socket.socket(socket.AF_UNIX, kind)
    if os.path.exists(path): os.unlink(path)
    door.bind(path)
    door.listen(8)
    print("listens", flush=True)
    while True:
        s = door.accept()[0]
        try: lie(s, sys.argv[3])
        except (BrokenPipeError, ConnectionResetError): pass
        s.close()

if role == "silent":
    s, start = connect(), time.monotonic()
    s.settimeout(60)
    offer_of(s)
    while s.recv(4096): pass
    print(round(time.monotonic() - start))

if role == "terms":
    for name, value in offer_of(connect()): print(name, value, sep="\t")

if role == "hostile":
    def ends(s):
        """The keeper gives no descriptors, and closes."""
        while True:
            packet, extra, flags, address = s.recvmsg(4096, 4096)
            assert not extra, "descriptors for a lie"
            if not packet: return
    there = sum(int(v.split()[-2]) for n, v in offer_of(connect()) if n == "layout")
    bad = [b"x", os.urandom(2000), HEAD, message(OFFER), message(TAKE), message(9), units(TAKE, 0, 0), units(TAKE, 0, 65),
           units(TAKE, there, 1), units(TAKE, there - 1, 2), units(TAKE, 2 ** 64 - 1, 1), units(GIVE, 0, 1),
           b"MOEKEEPS" + struct.pack("<IIQI", 2, TAKE, 0, 1), units(TAKE, 0, 1) + b"x", message(FAILED, b"y")]
    for packet in bad:
        s = connect()
        offer_of(s)
        s.send(packet)
        ends(s)
    s = connect()                       # descriptors that nobody asked for
    offer_of(s)
    s.sendmsg([units(TAKE, 0, 1)], rights([0, 1, 2]))
    packet, extra, flags, address = s.recvmsg(4096, 4096)
    assert packet == units(GIVE, 0, 1) and len(extra) == 1, packet
    s.close()
    for _ in range(20): connect().close()  # gone before they are accepted, or after
    asks = connect()                    # asks again and again, and does not read
    asks.setblocking(False)
    try:
        for _ in range(100000): asks.send(units(TAKE, 0, 1))
    except OSError: pass
    crowd = [connect() for _ in range(130)]
    offer_of(crowd[-1])
    print("still there")
    time.sleep(0.5)
