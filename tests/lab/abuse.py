#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""abuse.py: a hostile client of one listener.

usage: abuse.py frames TARGET [CA CERT KEY]   garbage, truncated and oversized frames; with
                                              certificates once more inside TLS
       abuse.py churn TARGET N                N connections that connect, half-close and reset
       abuse.py knock HOST LOW-HIGH           connections to these ports, over and over, with garbage or half a
                                              greeting of PAIR, until SIGTERM; ports at which nobody listens
                                              are passed over
       abuse.py silent TARGET N S CA CERT KEY N connections that say nothing for up to S seconds:
                                              TCP only, half a ClientHello, a whole handshake
       abuse.py flood TARGET N CA SOURCE      N connections of the address SOURCE, FLOOD_OPEN at a
                                              time, as fast as they come: reset at once, garbage, handshakes without a
                                              certificate; says "flooding" when a tenth was there
       abuse.py strangers TARGET CA           handshakes without a certificate, and with TLS 1.2

TARGET is HOST:PORT or the path of a socket. Every answer that is not a reply to a well-formed
frame, and every connection that stays open after garbage that cannot be answered, is an error.
"""
import os
import random
import select
import signal
import socket
import ssl
import struct
import sys
import time

WAIT_S = 20
FLOOD_OPEN = 400
REQ, REP, PAIR = 0x30, 0x31, 0x10
LIMIT = 1024 * 1024


def fail(text):
    sys.exit(f"abuse.py: {text}")


def connect(target):
    if target.startswith("/"):
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.settimeout(WAIT_S)
        for _ in range(200):  # the queue of a busy listener may be full for a moment
            try:
                sock.connect(target)
                return sock
            except BlockingIOError:
                time.sleep(0.02)
        fail(f"{target} takes no connections")
    host, port = target.rsplit(":", 1)
    return socket.create_connection((host, int(port)), timeout=WAIT_S)


def context(ca, cert=None, key=None):
    ctx = ssl.create_default_context(cafile=ca)
    ctx.check_hostname = False
    if cert:
        ctx.load_cert_chain(cert, key)
    return ctx


def hello(protocol, magic=b"\0SP\0"):
    return magic + struct.pack(">HH", protocol, 0)


def frame(target, body, size=None):
    length = struct.pack(">Q", len(body) if size is None else size)
    return (b"\1" if target.startswith("/") else b"") + length + body


def field(number, data):
    """A length-delimited protobuf field; data up to 16383 bytes."""
    size = len(data)
    return bytes([number << 3 | 2]) + (bytes([size]) if size < 128 else bytes([size & 127 | 128, size >> 7])) + data


def request(method, payload=b"", version=1, request_id=None):
    ident = os.urandom(16) if request_id is None else request_id
    body = bytes([8, version]) + field(2, method) + field(3, ident) + b"\x20\x88\x27" + field(5, payload)
    return struct.pack(">I", 0x80000000 | random.getrandbits(31)) + body


def attacks(target):
    """(what, bytes, whether a reply must come)."""
    rep = hello(REQ)
    info = b"/haul.v1.Node/Info"
    yield "nothing but an end", b"", False
    for size in (1, 7, 8, 9, 64, 5000):
        yield f"{size} random bytes", os.urandom(size), False
    yield "HTTP", b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", False
    yield "half a header", rep[:4], False
    yield "a header of another protocol", hello(PAIR) + frame(target, b"x"), False
    yield "a header with another magic", hello(REQ, b"\0XP\0"), False
    yield "a reply to a server", hello(REP) + frame(target, b"x" * 64), False
    yield "half a length", rep + b"\0" * 3, False
    yield "a frame cut short", rep + frame(target, b"x" * 100, 1000), False
    yield "a frame of 2^63 bytes", rep + frame(target, b"x", 1 << 63), False
    yield "a frame of all ones", rep + frame(target, b"x", (1 << 64) - 1), False
    yield "a frame of 2 MiB", rep + frame(target, b"x" * 4096, 2 * LIMIT), False
    yield "an empty frame", rep + frame(target, b""), False
    yield "a frame of three bytes", rep + frame(target, b"abc"), False
    yield "a frame without an end of its route", rep + frame(target, b"\0" * 600), False
    if target.startswith("/"):
        yield "another kind of ipc message", rep + b"\x07" + struct.pack(">Q", 8) + b"x" * 8, False
    yield "a request of nothing", rep + frame(target, struct.pack(">I", 0x80000001)), True
    yield "a request of garbage", rep + frame(target, struct.pack(">I", 0x80000002) + os.urandom(900)), True
    yield "a request near the limit", rep + frame(target, struct.pack(">I", 0x80000003) + b"\xff" * (LIMIT - 64)), True
    yield "another version", rep + frame(target, request(info, version=9)), True
    yield "a request id of one byte", rep + frame(target, request(info, request_id=b"x")), True
    yield "no method", rep + frame(target, request(b"")), True
    yield "a method without a slash", rep + frame(target, request(b"Info")), True
    yield "a service alone", rep + frame(target, request(b"/haul.v1.Node/")), True
    yield "an unknown method", rep + frame(target, request(b"/haul.v1.Node/" + b"x" * 300)), True
    yield "a payload of garbage", rep + frame(target, request(b"/haul.v1.Peer/Prepare", os.urandom(2000))), True
    yield "an id that climbs", rep + frame(
        target, request(b"/haul.v1.Peer/Prepare", field(1, b"../../../etc/x"))), True
    yield "a request", rep + frame(target, request(info)), True


def read_all(sock, need_reply, what):
    """Reads until the peer closes, or until a whole reply is there."""
    got = b""
    deadline = time.monotonic() + WAIT_S
    head = 9 if sock.family == socket.AF_UNIX else 8
    while time.monotonic() < deadline:
        try:
            data = sock.recv(65536)
        except (ConnectionError, ssl.SSLError):
            data = b""
        except TimeoutError:
            break
        if not data:
            if need_reply:
                fail(f"{what}: closed without a reply")
            return
        got += data
        if need_reply and len(got) >= 8 + head:
            size = struct.unpack(">Q", got[8 + head - 8:8 + head])[0]
            if size > LIMIT + 256:
                fail(f"{what}: a reply of {size} bytes")
            if len(got) >= 8 + head + size:
                return
    fail(f"{what}: " + ("no reply" if need_reply else "the connection stays open") + f" after {WAIT_S} s")


def one_attack(target, tls, what, data, need_reply):
    sock = connect(target)
    family = sock.family
    try:
        if tls:
            sock = tls.wrap_socket(sock)
        try:
            sock.sendall(data)
            if not need_reply and not tls:
                sock.shutdown(socket.SHUT_WR)
            elif not need_reply:
                sock.unwrap()
        except (ConnectionError, ssl.SSLError, TimeoutError, OSError):
            pass  # refused already
        if family == socket.AF_UNIX or tls or not need_reply:
            read_all(sock, need_reply, what)
    finally:
        sock.close()


def frames(target, *certificates):
    count = 0
    for what, data, need_reply in attacks(target):
        # A plain TCP port takes no requests: everything is garbage to it.
        one_attack(target, None, what, data, need_reply and target.startswith("/"))
        count += 1
    if certificates:
        tls = context(*certificates)
        for what, data, need_reply in attacks(target):
            one_attack(target, tls, what + " in TLS", data, need_reply)
            count += 1
    print(f"{count} frames")


def reset(sock):
    if sock.family != socket.AF_UNIX:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def churn(target, number):
    for i in range(int(number)):
        sock = connect(target)
        try:
            if i % 3 == 1:
                sock.sendall(hello(REQ))
            elif i % 3 == 2:
                sock.sendall(bytes.fromhex("16030100c8010000c40303") + os.urandom(32))
            sock.shutdown(socket.SHUT_WR)
        except OSError:
            pass
        reset(sock)
    print(f"{number} connections")


def knock(host, ports):
    low, high = (int(port) for port in ports.split("-"))
    pair = hello(PAIR)
    words = (b"", os.urandom(40), b"GET / HTTP/1.1\r\n\r\n", pair[:5], pair, pair + frame(host, b"x" * 17),
             pair + frame(host, b"x", 1 << 63), pair + frame(host, b"x" * 17)[:20])
    count = 0
    is_over = []
    signal.signal(signal.SIGTERM, lambda *_: is_over.append(True))
    print("knocking", flush=True)
    while not is_over:
        for port in range(low, high + 1):
            try:
                sock = socket.create_connection((host, port), timeout=WAIT_S)
                count += 1
                sock.sendall(words[count % len(words)])
                sock.close()
            except OSError:
                pass
    print(count)


def silent(target, number, seconds, *certificates):
    tls = context(*certificates)
    poll = select.poll()
    socks = {}
    for i in range(int(number)):
        sock = connect(target)
        if i % 3 == 1:
            sock.sendall(bytes.fromhex("16030100c8010000c40303") + os.urandom(32))
        elif i % 3 == 2:
            sock = tls.wrap_socket(sock)
        sock.setblocking(False)
        socks[sock.fileno()] = sock
        poll.register(sock, select.POLLIN)
    print(f"open {len(socks)}", flush=True)
    begin = time.monotonic()
    while socks and time.monotonic() < begin + float(seconds):
        for fd, _ in poll.poll(200):
            try:
                data = socks[fd].recv(4096)
            except (BlockingIOError, ssl.SSLWantReadError):
                continue
            except OSError:
                data = b""
            if not data:
                poll.unregister(fd)
                socks.pop(fd).close()
    if socks:
        fail(f"{len(socks)} of {number} silent connections are open after {seconds} s")
    print(f"dropped after {time.monotonic() - begin:.1f} s")


class Flooder:
    """One connection of a flood after the other, on one selector."""

    def __init__(self, target, number, ca, source):
        self.source = (source, 0)
        host, port = target.rsplit(":", 1)
        self.address = (host, int(port))
        self.left = int(number)
        self.tls = context(ca)
        self.open = {}
        self.poll = select.poll()
        self.done = 0

    def begin(self):
        self.left -= 1
        kind = self.left % 3
        sock = socket.create_connection(self.address, timeout=WAIT_S, source_address=self.source)
        sock.setblocking(False)
        if kind == 2:
            try:
                sock = self.tls.wrap_socket(sock, do_handshake_on_connect=False)
            except OSError:  # closed already: as many are open from here as may be
                reset(sock)
                self.done += 1
                return
        self.open[sock.fileno()] = [sock, kind, False, time.monotonic()]
        self.poll.register(sock, select.POLLIN | select.POLLOUT)

    def end(self, fd):
        sock = self.open.pop(fd)[0]
        self.poll.unregister(fd)
        reset(sock)
        self.done += 1

    def go_on(self, fd):
        """What is next on this connection."""
        entry = self.open[fd]
        sock, kind, is_greeted, _ = entry
        try:
            if kind == 2 and not is_greeted:
                sock.do_handshake()
                entry[2] = True
                self.poll.modify(fd, select.POLLIN)
            elif kind == 1 and not is_greeted:
                sock.send(bytes.fromhex("16030100c8010000c40303") + os.urandom(200))
                entry[2] = True
                self.poll.modify(fd, select.POLLIN)
            elif kind == 0 or not sock.recv(4096):
                self.end(fd)
        except ssl.SSLWantReadError:
            self.poll.modify(fd, select.POLLIN)
        except ssl.SSLWantWriteError:
            self.poll.modify(fd, select.POLLOUT)
        except OSError:
            self.end(fd)

    def run(self):
        number, begin, is_said = self.left, time.monotonic(), False
        while self.left or self.open:
            while self.left and len(self.open) < FLOOD_OPEN:
                self.begin()
            for fd, _ in self.poll.poll(200):
                self.go_on(fd)
            for fd in [fd for fd, entry in self.open.items() if time.monotonic() > entry[3] + WAIT_S]:
                self.end(fd)
            if self.done >= number / 10 and not is_said:
                is_said = True
                print("flooding", flush=True)
        print(f"{number} connections in {time.monotonic() - begin:.1f} s")


def flood(target, number, ca, source):
    Flooder(target, number, ca, source).run()


def refused(tls, target, what):
    with connect(target) as sock:
        try:
            with tls.wrap_socket(sock) as inside:
                inside.sendall(hello(REQ) + frame(target, request(b"/haul.v1.Node/Info")))
                if inside.recv(4096):
                    fail(f"{what} got an answer")
                print(f"{what}: closed")
        except (ssl.SSLError, ConnectionError) as error:
            print(f"{what}: {error}")


def strangers(target, ca):
    refused(context(ca), target, "a client without a certificate")
    old = context(ca)
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    refused(old, target, "a client of TLS 1.2")


COMMANDS = {"frames": frames, "churn": churn, "knock": knock, "silent": silent, "flood": flood, "strangers": strangers}

if __name__ == "__main__":
    if len(sys.argv) < 3 or sys.argv[1] not in COMMANDS:
        sys.exit(__doc__)
    COMMANDS[sys.argv[1]](*sys.argv[2:])
