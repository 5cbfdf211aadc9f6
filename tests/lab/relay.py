#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""relay.py: a program that speaks CRIU's RPC and knows nothing else of CRIU or haul's engines.

usage: relay.py move HAULCTL PID DIR SERVER CA CERT KEY   moves a tree to SERVER through two leases; asks
                                      for images on stdout ("copy FROM TO") and goes on with a line
       relay.py give-up …             the same, but shuts the socket before the restored tree runs
       relay.py own HAULCTL PID DIR   dumps it to a page server of its own, and lets it go on
       relay.py abandon HAULCTL PID DIR  holds it in a dump, and loses its lease
       relay.py hold HAULCTL PID DIR  holds it in a dump until CRIU is taken away

DIR is for images. All messages to CRIU and from it are pycriu's.
"""
import array
import json
import os
import socket
import struct
import subprocess
import sys
import threading

import pycriu.rpc_pb2 as rpc

PAGE, LIMIT = 4096, 256 * 1024
PRE_DUMPS = 2
PAGE_OPEN, PAGE_PARENT, PAGE_ADD, PAGE_CLOSE, PAGE_FORCE_CLOSE, PRESENT = 4, 5, 6, 0x1023, 0x1024, 4


def fail(text):
    sys.exit(f"relay.py: {text}")


class Lease:
    """A process that holds a lease, and prints what becomes of it."""

    def __init__(self, command, pass_fds=()):
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, pass_fds=pass_fds)
        self.offer = self.event("offer")

    def event(self, kind):
        line = self.process.stdout.readline()
        event = json.loads(line) if line else {}
        if kind not in event:
            fail(f"{kind} was expected of the lease, not {line!r}")
        return event[kind]

    def end(self):
        self.process.terminate()
        self.process.wait()


class Criu:
    def __init__(self, sk):
        self.sk = sk

    def send(self, request, descriptors=()):
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
        self.sk.sendmsg([request.SerializeToString()], rights)

    def receive(self):
        data = self.sk.recv(LIMIT)
        if not data:
            fail("CRIU has ended without an answer")
        answer = rpc.criu_resp()
        answer.ParseFromString(data)
        return answer

    def acknowledge(self, success=True):
        request = rpc.criu_req(type=rpc.NOTIFY, notify_success=success)
        self.send(request)

    def until(self, script):
        """Acknowledges what comes before this notification, and leaves that waiting."""
        while True:
            answer = self.receive()
            if answer.type != rpc.NOTIFY:
                fail(f"CRIU answers {answer} before {script}")
            if answer.notify.script == script:
                return
            self.acknowledge()

    def result(self):
        while True:
            answer = self.receive()
            if answer.type != rpc.NOTIFY:
                return answer
            self.acknowledge()


def connect(path):
    sk = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    sk.connect(path)
    return Criu(sk)


def lease_here(haulctl, request):
    return Lease([haulctl, "call", "haul.v1.Criu/Lease", "-d", json.dumps({"socket": True, **request})])


def dump_request(kind, pid, directory, memory, parent=None, track=False):
    """directory is a descriptor of this process: CRIU finds it by who has connected."""
    request = rpc.criu_req(type=kind)
    opts = request.opts
    opts.images_dir_fd = directory
    opts.pid = pid
    opts.log_level = 2
    opts.log_file = "dump.log"
    opts.notify_scripts = True
    opts.manage_cgroups_mode = rpc.IGNORE
    opts.network_lock = rpc.SKIP
    opts.track_mem = track
    if parent:
        opts.parent_img = parent
    opts.ps.fd = memory
    return request


def make_directory(path):
    os.mkdir(path, 0o700)
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY)


def tracks_memory(path):
    criu = connect(path)
    request = rpc.criu_req(type=rpc.FEATURE_CHECK)
    request.features.mem_track = True
    criu.send(request)
    return criu.receive().features.mem_track


def same_round(source, destination):
    left, arrived = source.event("round"), destination.event("round")
    if left != arrived or int(left.get("pages", 0)) == 0:
        fail(f"{left} has left, {arrived} has arrived")


def restore(criu, images):
    """Up to the moment before the tree runs. images is a link, which CRIU 4.1 wants where it gets a name."""
    request = rpc.criu_req(type=rpc.RESTORE)
    opts = request.opts
    opts.images_dir_fd = -1
    opts.images_dir = images
    opts.log_level = 2
    opts.log_file = "restore.log"
    opts.notify_scripts = True
    opts.manage_cgroups_mode = rpc.IGNORE
    criu.send(request)
    criu.until("pre-resume")


def ended_well(lease):
    end = lease.event("criuEnd")
    if end.get("exitStatus", 0) != 0 or end.get("signal", 0) != 0:
        fail(f"CRIU ended so: {end}")


def move(haulctl, pid, directory, server, ca, cert, key, gives_up=False):
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    there = Lease([haulctl, "--server", server, "--ca", ca, "--cert", cert, "--key", key, "criu-lease",
                   "--fd-rpc", str(theirs.fileno()), "-d", '{"memoryFrom": true}'], [theirs.fileno()])
    theirs.close()
    here = lease_here(haulctl, {"memoryTo": there.offer["memory"]})
    path, memory = here.offer["socket"], here.offer["memoryFd"]
    tracks, rounds = tracks_memory(path), 0
    here.event("criuEnd")
    source = connect(path)
    while tracks and rounds < PRE_DUMPS:
        rounds += 1
        source.send(dump_request(rpc.PRE_DUMP, pid, make_directory(f"{directory}/{rounds}"), memory,
                                 f"../{rounds - 1}" if rounds > 1 else None, True))
        if not source.result().success:
            fail("CRIU cannot pre-dump")
        same_round(here, there)
    rounds += 1
    images = f"{directory}/{rounds}"
    source.send(dump_request(rpc.DUMP, pid, make_directory(images), memory,
                             f"../{rounds - 1}" if rounds > 1 else None, tracks))
    source.until("post-dump")
    same_round(here, there)
    target = f"{there.offer['imagesDir']}/{rounds}"
    print(f"copy {images} {target}", flush=True)
    sys.stdin.readline()
    destination = Criu(ours)
    restore(destination, target)
    if gives_up:
        ours.close()
        if there.process.wait() != 0:
            fail("the lease there did not end well")
        here.end()
        print("given up", flush=True)
        return
    source.acknowledge()
    if not source.result().success:
        fail("CRIU does not end the dumped tree")
    ended_well(here)
    destination.acknowledge()
    answer = destination.result()
    if not answer.success or answer.restore.pid != pid:
        fail(f"CRIU restores {answer}")
    ended_well(there)
    here.end()
    ours.shutdown(socket.SHUT_RDWR)
    if there.process.wait() != 0:
        fail("the lease there did not end well")
    print(f"moved {rounds}", flush=True)


def give_up(*arguments):
    move(*arguments, gives_up=True)


def read_exactly(sk, size):
    data = sk.recv(size, socket.MSG_WAITALL)
    if len(data) != size:
        fail("CRIU's pages end too early")
    return data


def serve_pages(sk):
    """A page server that throws everything away. Returns how many pages there were."""
    pages = 0
    while True:
        command, count, _, _ = struct.unpack("<IIQQ", read_exactly(sk, 24))
        flags, command = command >> 16, command & 0xffff
        if command == PAGE_ADD and flags & PRESENT:
            for _ in range(count):
                read_exactly(sk, PAGE)
            pages += count
        elif command == PAGE_OPEN:
            sk.sendall(b"\0")
        elif command == PAGE_PARENT:
            sk.sendall(struct.pack("<i", 0))
        elif command in (PAGE_CLOSE, PAGE_FORCE_CLOSE):
            sk.sendall(struct.pack("<i", 0))
            return pages


class PageServer(threading.Thread):
    """In the place of an engine: at a socket of the caller's, which CRIU gets with its request."""

    def __init__(self):
        super().__init__(daemon=True)
        self.ours, self.theirs = socket.socketpair()
        self.pages = 0

    def run(self):
        self.pages = serve_pages(self.ours)


def dump_to_ourselves(lease, pid, directory):
    server = PageServer()
    criu = connect(lease.offer["socket"])
    request = dump_request(rpc.DUMP, pid, make_directory(directory), lease.offer["firstFd"])
    criu.send(request, [server.theirs.fileno()])
    server.theirs.close()
    server.start()
    criu.until("post-dump")
    server.join()
    return criu, server.pages


def own(haulctl, pid, directory):
    lease = lease_here(haulctl, {})
    criu, pages = dump_to_ourselves(lease, pid, f"{directory}/own")
    criu.acknowledge(False)
    criu.result()
    lease.end()
    print(f"{pages} pages", flush=True)


def hold(haulctl, pid, directory):
    criu, _ = dump_to_ourselves(lease_here(haulctl, {}), pid, f"{directory}/held")
    print("held", flush=True)
    if criu.sk.recv(1):
        fail("CRIU goes on without a lease")
    print("taken away", flush=True)


def abandon(haulctl, pid, directory):
    lease = lease_here(haulctl, {})
    criu, _ = dump_to_ourselves(lease, pid, f"{directory}/abandoned")
    lease.process.kill()
    lease.process.wait()
    if criu.sk.recv(1):
        fail("CRIU goes on without a lease")
    print("abandoned", flush=True)


if __name__ == "__main__":
    name, tool, number, *rest = sys.argv[1:]
    {"move": move, "give-up": give_up, "own": own, "abandon": abandon, "hold": hold}[name](tool, int(number), *rest)
