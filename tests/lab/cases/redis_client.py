#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes to redis and follows it when it moves.

usage: redis_client.py write LOG PORT ADDRESS…   SET live:N N, N = 0, 1, …; a line in LOG for each
                                                  acknowledged N and for each new connection
       redis_client.py verify LOG PORT ADDRESS   every acknowledged N must be there
"""
import socket
import sys
import time


def command(*words):
    parts = [word.encode() for word in words]
    return b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(p), p) for p in parts)


def connect(addresses, port):
    while True:
        for address in addresses:
            try:
                return socket.create_connection((address, port), timeout=2), address
            except OSError:
                time.sleep(0.02)


def write(log, port, addresses):
    number = 0
    last = time.time()
    with open(log, "w", buffering=1) as out:
        while True:
            connection, address = connect(addresses, port)
            out.write(f"connected {address}\n")
            with connection:
                replies = connection.makefile("rb")
                try:
                    while True:
                        connection.sendall(command("SET", f"live:{number}", str(number)))
                        reply = replies.readline()
                        if not reply.startswith(b"+OK"):
                            raise OSError(f"redis answered {reply!r}")
                        now = time.time()
                        out.write(f"ack {number} {(now - last) * 1000:.0f}\n")
                        last = now
                        number += 1
                except OSError as error:
                    out.write(f"lost {error}\n")


def verify(log, port, address):
    lines = [line.split() for line in open(log)]
    acks = [line for line in lines if line[0] == "ack" and len(line) == 3]
    connection, _ = connect([address], port)
    replies = connection.makefile("rb")
    missing = 0
    for _, number, _ in acks:
        connection.sendall(command("GET", f"live:{number}"))
        header = replies.readline()
        value = replies.readline().strip() if not header.startswith(b"$-1") else b""
        missing += value != number.encode()
    longest = max((int(line[2]) for line in acks), default=0)
    print(f"{len(acks)} acknowledged writes, {missing} missing, longest wait {longest} ms")
    return 1 if missing or not acks else 0


if __name__ == "__main__":
    mode, log_path, port_number = sys.argv[1], sys.argv[2], int(sys.argv[3])
    if mode == "write":
        write(log_path, port_number, sys.argv[4:])
    sys.exit(verify(log_path, port_number, sys.argv[4]))
