#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""guest_agent.py: carries out commands in a guest, one a connection, for guests.sh.

usage: guest_agent.py PORT

Asked is a line with the number of words, then each word and a NUL; answered is a line with the command's status
and the sizes of its output and its errors, then both. What a command leaves in the background may
go on writing: nobody waits for it. A program takes long to start in an emulated guest: nothing but the command does.
"""
import os
import socketserver
import subprocess
import sys
import tempfile


def word_of(file):
    word = bytearray()
    while (byte := file.read(1)) != b"\0":
        if not byte:
            raise EOFError("the command is not whole")
        word += byte
    return bytes(word)


class Answer(socketserver.StreamRequestHandler):
    def handle(self):
        words = [word_of(self.rfile) for _ in range(int(self.rfile.readline()))]
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            try:
                done = subprocess.run(words, cwd="/", stdin=subprocess.DEVNULL, stdout=out, stderr=err, check=False)
                status = done.returncode if done.returncode >= 0 else 128 - done.returncode
            except OSError as error:
                err.write(f"{os.fsdecode(words[0])}: {error.strerror}\n".encode())
                status = 127
            texts = [self.written(file) for file in (out, err)]
            self.wfile.write(b"%d %d %d\n" % (status, *map(len, texts)) + b"".join(texts))

    def written(self, file):
        file.flush()
        return os.pread(file.fileno(), os.fstat(file.fileno()).st_size, 0)


class Agent(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 64


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    Agent(("", int(sys.argv[1])), Answer).serve_forever()
