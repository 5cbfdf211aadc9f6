#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# native_wire: what goes over the link during a migration tells nothing, whichever seal it has: no page, no name, no
# image, no message. What is looked for is known to be in the process, in the images, and in the messages.
# shellcheck source-path=SCRIPTDIR disable=SC2119,SC2120
. "$(dirname "$0")/../haul.sh"

name=needle-name-$RANDOM$RANDOM$RANDOM
secret=needle-secret-$RANDOM$RANDOM$RANDOM

capture_start() {
    local try
    capture=$(START_OUT=/srv/shared/tcpdump-$1.log start_on A \
        tcpdump -i haul0 -n -U -B 131072 -s 0 -w "/srv/shared/$1.pcap")
    for ((try = 0; try < 100 * SLOW; try++)); do
        ! grep -q 'listening on' "$SHARED/tcpdump-$1.log" 2>/dev/null || return 0
        sleep 0.1
    done
    fail "tcpdump does not listen: $(<"$SHARED/tcpdump-$1.log")"
}

capture_stop() {
    local try
    # The kernel hands packets over in blocks: a last ping tells that all before it were.
    on A ping -q -c 1 -s 64 -p 656e642d6f662d63617074757265 10.77.0.2 >/dev/null
    for ((try = 0; try < 100 * SLOW; try++)); do
        ! grep -qaF end-of-capture "$SHARED/$1.pcap" || break
        sleep 0.1
    done
    on A kill -INT "$capture"
    expect_gone A "$capture"
    grep -q '^0 packets dropped by kernel' "$SHARED/tcpdump-$1.log" ||
        fail "the capture is not whole: $(<"$SHARED/tcpdump-$1.log")"
}

# Looks for everything that must not be there; first for all of it where it must be.
search() {
    on B python3 - "$@" <<'PY'
import glob, struct, sys

pcap, images, name, secret, migration, least = sys.argv[1:]
MASK = (1 << 64) - 1


def mix(x):  # of workloads/memory.c
    x = (x + 0x9E3779B97F4A7C15) & MASK
    x = ((x ^ x >> 30) * 0xBF58476D1CE4E5B9) & MASK
    x = ((x ^ x >> 27) * 0x94D049BB133111EB) & MASK
    return x ^ x >> 31


def read(path):
    with open(path, "rb") as file:
        return file.read()


wire = read(pcap)
if len(wire) < int(least):
    sys.exit(f"only {len(wire)} bytes were captured, {least} were sent")
files = {path: read(path) for path in glob.glob(images + "/**/*.img", recursive=True)}
pages = b"".join(data for path, data in files.items() if "/pages-" in path)
others = b"".join(data for path, data in files.items() if "/pages-" not in path)
needles = {}
for page in range(0, 8192, 128):
    word = mix(page << 32 | 1)
    needles[f"page {page}"] = (struct.pack("<QQ", word, word), pages)
needles["the environment"] = (secret.encode(), pages)
needles["an argument"] = (name.encode(), pages)
needles["a file's name"] = (name.encode(), others)
for path, data in files.items():
    if "/pages-" not in path:
        needles[f"the magic of {path.rsplit('/', 1)[1]}"] = (data[:8], others)
if len(needles) < 64 + 3 + 8:
    sys.exit(f"only {len(needles)} things to look for: {sorted(files)}")
for what, (needle, where) in needles.items():
    if len(needle) < 8 or needle not in where:
        sys.exit(f"{what} is not where it must be: the test tests nothing")
for what, needle in (("the migration's id", migration), ("a method's name", "haul.v1"),
                     ("a path", "/srv/shared"), ("CRIU's name", "criu")):
    needles[what] = (needle.encode(), b"")
found = [what for what, (needle, _) in needles.items() if needle in wire]
if found:
    sys.exit("in plain sight on the link: " + ", ".join(found))
print(f"{len(wire)} bytes of the link hold none of {len(needles)} things")
PY
}

start_needle() {
    local try
    rm -f "$SHARED/needle.status"
    PID=$(start_on A env "NEEDLE=$secret" "$BUILD/workloads/memory" /srv/shared/needle.status 32 0 --open "/tmp/$name")
    STATUS_OF[$PID]=$SHARED/needle.status
    for ((try = 0; try < 100 * SLOW; try++)); do
        ! grep -q '^ok ' "$SHARED/needle.status" 2>/dev/null || break
        sleep 0.1
    done
}

expect_nothing_in_sight() {
    local text
    capture_start "$1"
    migrate A "$PID" B --compression none
    on A "$(program haulctl)" --server "$(url B)" --ca /srv/shared/pki/ca.pem --cert /srv/shared/pki/a.pem \
        --key /srv/shared/pki/a.key node >/dev/null
    capture_stop "$1"
    expect_completed
    expect_healthy B "$PID"
    text=$(search "/srv/shared/$1.pcap" "/var/lib/haul/in/$(report id)/images" "$name" "$secret" "$(report id)" \
        "$(report bytesOnWire)") || fail "${text:-the search failed}"
    note "$text"
}

lab_start --hold-images 10m
for host in A B; do
    on "$host" bash -c 'echo content >/tmp/'"$name"
done
link_rate 500
start_needle
expect_nothing_in_sight migration
on B kill -KILL "$PID"
expect_gone B "$PID"

note "the same with ChaCha20-Poly1305, which one of the two insists on"
engine_stop B
engine_start B --hold-images 10m --seal chacha20-poly1305
start_needle
expect_nothing_in_sight chacha
grep -q "$(report id).*ChaCha20-Poly1305" "$SHARED/hauld-B.log" || fail "the log of B does not name the seal"
on B kill -KILL "$PID"
expect_gone B "$PID"

note "two that insist on different ones"
engine_stop A
engine_start A --seal aes-256-gcm
start_needle
migrate A "$PID" B
expect_refused FAILED_PRECONDITION
expect_message "no seal for pipes in common"
expect_healthy A "$PID"
link_rate

note "without TLS the same capture shows the messages"
engine_stop B
engine_start B --listen tcp://10.77.0.2:7777 --insecure
capture_start plain
on A "$(program haulctl)" --server tcp://10.77.0.2:7777 node >/dev/null
capture_stop plain
grep -qaF haul.v1.Node "$SHARED/plain.pcap" || fail "a capture of a plain call does not show it"
