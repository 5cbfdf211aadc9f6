#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A client of haul made from docs/protocol.md and proto/ alone: Python's standard library and protobuf (Debian:
python3-protobuf); watching a migration, which is a sealed stream, needs AES-256-GCM (python3-cryptography).

    protoc -Iproto --python_out=gen proto/haul/v1/*.proto
    PYTHONPATH=gen docs/examples/haul_client.py ipc:///run/haul/hauld.sock list
    PYTHONPATH=gen docs/examples/haul_client.py --ca ca.pem --cert me.pem --key me.key tls+tcp://b:7777 node

It shows how things are, and stays simple: one call at a time, and what got lost on the way is told, not sent again.
"""
import argparse
import contextlib
import os
import socket
import ssl
import struct
import sys
import time
from urllib.parse import urlsplit

from google.protobuf import json_format
from haul.v1 import envelope_pb2, migrations_pb2, node_pb2, pipe_pb2

CODES = ("OK CANCELLED UNKNOWN INVALID_ARGUMENT DEADLINE_EXCEEDED NOT_FOUND ALREADY_EXISTS PERMISSION_DENIED "
         "RESOURCE_EXHAUSTED FAILED_PRECONDITION ABORTED OUT_OF_RANGE UNIMPLEMENTED INTERNAL UNAVAILABLE DATA_LOSS "
         "UNAUTHENTICATED").split()
PAIR, REQ, REP = 0x10, 0x30, 0x31
MESSAGE_MOST = 1024 * 1024 + 256
MESSAGE_COST = 64
KEEPALIVE_S, DEAD_S = 10, 30


class HaulError(Exception):
    """A status that is not OK; details are (label, text)."""

    def __init__(self, code, message, details=()):
        super().__init__(f"{code}: {message}")
        self.code, self.message, self.details = code, message, list(details)

    @classmethod
    def of_wire(cls, wire):
        code = CODES[wire.code] if wire.code < len(CODES) else "UNKNOWN"
        return cls(code, wire.message, [(detail.label, detail.text) for detail in wire.details])


def open_socket(url, tls, timeout):
    parts = urlsplit(url)
    if parts.scheme == "ipc":
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(timeout)
        sock.connect(parts.path)
        return sock
    sock = socket.create_connection((parts.hostname, parts.port), timeout)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return tls.wrap_socket(sock, server_hostname=parts.hostname) if parts.scheme == "tls+tcp" else sock


class Connection:
    """Messages over a connection of nng's: a header each way, then each message behind its length."""

    def __init__(self, url, own, peer, timeout, tls=None):
        self.mark = b"\1" if url.startswith("ipc:") else b""
        self.sock = open_socket(url, tls, timeout)
        self.buffer = b""
        self.sock.sendall(struct.pack(">4sHH", b"\0SP\0", own, 0))
        self.fill(8)
        header, self.buffer = self.buffer[:8], self.buffer[8:]
        if header != struct.pack(">4sHH", b"\0SP\0", peer, 0):
            raise HaulError("DATA_LOSS", f"{url} is not what was expected there")

    def fill(self, size):
        """What has come when the time is over is not lost."""
        while len(self.buffer) < size:
            piece = self.sock.recv(65536)
            if not piece:
                raise HaulError("UNAVAILABLE", "the connection was closed")
            self.buffer += piece

    def send(self, message):
        self.sock.sendall(self.mark + struct.pack(">Q", len(message)) + message)

    def receive(self, timeout):
        self.sock.settimeout(timeout)
        start = len(self.mark) + 8
        self.fill(start)
        size = int.from_bytes(self.buffer[start - 8:start], "big")
        if not self.buffer.startswith(self.mark) or size > MESSAGE_MOST:
            raise HaulError("DATA_LOSS", "a message is malformed or too long")
        self.fill(start + size)
        message, self.buffer = self.buffer[start:start + size], self.buffer[start + size:]
        return message


class Stream:
    """The events of a method that streams: a pipe, dialed with the keys that its call has answered with."""

    def __init__(self, address, event_type, timeout=10):
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM
        self.event_type = event_type
        self.pipe_id = address.pipe_id
        self.ciphers = AESGCM(address.key_to_listener), AESGCM(address.key_to_dialer)
        self.sent = self.received = 0
        self.sent_at = self.heard_at = time.monotonic()
        self.connection = Connection(address.url, PAIR, PAIR, timeout)
        self.send(pipe_pb2.FRAME_HELLO)
        if self.receive(timeout) != (pipe_pb2.FRAME_HELLO, b""):
            raise HaulError("DATA_LOSS", "the pipe does not begin with a hello")

    def send(self, kind, message=None):
        number = struct.pack(">Q", self.sent)
        body = bytes([kind]) + (message.SerializeToString() if message is not None else b"")
        self.connection.send(self.ciphers[0].encrypt(bytes(4) + number, body, self.pipe_id + number))
        self.sent += 1
        self.sent_at = time.monotonic()

    def receive(self, timeout):
        sealed = self.connection.receive(timeout)
        number = struct.pack(">Q", self.received)
        frame = self.ciphers[1].decrypt(bytes(4) + number, sealed, self.pipe_id + number)
        self.received += 1
        self.heard_at = time.monotonic()
        return frame[0], frame[1:]

    def frames(self):
        """All that comes, for ever; says itself that it is there."""
        while True:
            quiet = time.monotonic() - self.sent_at
            if quiet >= KEEPALIVE_S:
                self.send(pipe_pb2.FRAME_KEEPALIVE)
                quiet = 0
            with contextlib.suppress(TimeoutError):
                yield self.receive(KEEPALIVE_S - quiet)
            if time.monotonic() - self.heard_at > DEAD_S:
                raise HaulError("UNAVAILABLE", "the engine has been silent for too long")

    def __iter__(self):
        for kind, body in self.frames():
            if kind == pipe_pb2.FRAME_EVENT:
                yield self.event_type.FromString(body)
                self.send(pipe_pb2.FRAME_CREDIT, pipe_pb2.StreamCredit(bytes=len(body) + MESSAGE_COST))
            elif kind == pipe_pb2.FRAME_END:
                end = pipe_pb2.PipeEnd.FromString(body)
                self.send(pipe_pb2.FRAME_END, pipe_pb2.PipeEnd(messages=self.sent))
                if end.messages != self.received - 1:
                    raise HaulError("DATA_LOSS", "not all that was sent has come")
                if end.status.code:
                    raise HaulError.of_wire(end.status)
                return


class Client:
    def __init__(self, url, ca=None, cert=None, key=None, timeout=10):
        self.timeout = timeout
        tls = None
        if url.startswith("tls+tcp:"):
            tls = ssl.create_default_context(cafile=ca)
            tls.minimum_version = ssl.TLSVersion.TLSv1_3
            tls.load_cert_chain(cert, key)
        self.connection = Connection(url, REQ, REP, timeout, tls)

    def call(self, method, request, response_type):
        envelope = envelope_pb2.Request(version=1, method=method, request_id=os.urandom(16),
                                        timeout_ms=int(self.timeout * 1000), payload=request.SerializeToString())
        mark = struct.pack(">L", 0x80000000 | int.from_bytes(os.urandom(4), "big"))
        self.connection.send(mark + envelope.SerializeToString())
        deadline = time.monotonic() + self.timeout
        answer = b""
        while answer[:4] != mark:  # another's is the late answer of a call that was given up
            answer = self.connection.receive(max(deadline - time.monotonic(), 0.001))
        reply = envelope_pb2.Reply.FromString(answer[4:])
        if reply.status.code:
            raise HaulError.of_wire(reply.status)
        return response_type.FromString(reply.payload)

    def node(self):
        return self.call("/haul.v1.Node/Info", node_pb2.NodeInfoRequest(), node_pb2.NodeInfo)

    def list(self, **filters):
        token = None
        while token != "":
            page = self.call("/haul.v1.Migrations/List", migrations_pb2.ListRequest(page_token=token, **filters),
                             migrations_pb2.ListResponse)
            yield from page.migrations
            token = page.next_page_token

    def start(self, workload, to, **options):
        return self.call("/haul.v1.Migrations/Start", migrations_pb2.StartRequest(
            workload=workload, to=to, options=migrations_pb2.MigrateOptions(**options)), migrations_pb2.Migration)

    def watch(self, migration_id):
        response = self.call("/haul.v1.Migrations/Watch", migrations_pb2.WatchRequest(id=migration_id),
                             migrations_pb2.WatchResponse)
        return Stream(response.pipe, migrations_pb2.Migration, self.timeout)


def show(message):
    print(json_format.MessageToJson(message, indent=None), flush=True)


def main():
    parser = argparse.ArgumentParser(description="Asks an engine of haul.")
    for name in "ca", "cert", "key":
        parser.add_argument(f"--{name}")
    parser.add_argument("url")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("node")
    commands.add_parser("list")
    commands.add_parser("watch").add_argument("id")
    migrate = commands.add_parser("migrate")
    migrate.add_argument("workload")
    migrate.add_argument("to")
    asked = parser.parse_args()
    try:
        client = Client(asked.url, asked.ca, asked.cert, asked.key)
        if asked.command == "node":
            show(client.node())
        elif asked.command == "list":
            for migration in client.list():
                show(migration)
        else:
            watched = asked.id if asked.command == "watch" else client.start(asked.workload, asked.to).id
            for migration in client.watch(watched):
                show(migration)
    except HaulError as error:
        print(error, *(f"  {label}: {text}" for label, text in error.details), sep="\n", file=sys.stderr)
        return 64 + CODES.index(error.code)
    except OSError as error:  # the connection; a timeout, a certificate, too
        print(f"UNAVAILABLE: {error}", file=sys.stderr)
        return 64 + CODES.index("UNAVAILABLE")
    return 0


if __name__ == "__main__":
    sys.exit(main())
