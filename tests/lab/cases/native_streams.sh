#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# native_streams: memory goes over several pipes side by side and arrives whole; one of them is lost while memory
# is copied ahead, and all are taken up again where they were; one is lost in the final dump, and the workload
# goes on where it was.
# shellcheck source-path=SCRIPTDIR disable=SC2119,SC2120
. "$(dirname "$0")/../haul.sh"

STREAMS=4
ERRORS=

# Shuts the second of the connections that the engine of A has made to B's data ports, of which there are N.
lose_pipe() {
    on A python3 -c '
import ctypes, os, socket, sys

pid, wanted = int(sys.argv[1]), int(sys.argv[2])
get_descriptor = 438
libc = ctypes.CDLL(None)
process = os.pidfd_open(pid)
found = []
for name in os.listdir(f"/proc/{pid}/fd"):
    if not os.readlink(f"/proc/{pid}/fd/{name}").startswith("socket:"):
        continue
    copy = libc.syscall(get_descriptor, process, int(name), 0)
    if copy < 0:
        continue
    one = socket.socket(fileno=copy)
    try:
        peer = one.getpeername()
    except OSError:
        continue
    if one.family == socket.AF_INET and 7800 <= peer[1] < 7900:
        found.append((int(name), one))
assert len(found) == wanted, f"{len(found)} connections, not {wanted}"
found.sort(key=lambda pair: pair[0])
found[1][1].shutdown(socket.SHUT_RDWR)' "${ENGINE[A]}" "$1"
}

begin() {
    ctl A --json migrate "pid:$PID" --to "$(url B)" --streams "$STREAMS" "$@" --detach >"$LAB/begun"
    ID=$(report id "$(<"$LAB/begun")")
}

shown() {
    report "$1" "$(ctl A --json show "$ID")"
}

is_over() {
    [[ $(shown state) != RUNNING ]]
}

sent() {
    on A cat /sys/class/net/haul0/statistics/tx_bytes
}

has_sent() {
    (($(sent) - BEFORE >= $1))
}

lab_start
# Hardly any of it changes: what is sent again was lost.
workload A memory 64 0.1 --incompressible

note "one is lost while memory is copied ahead"
link_rate 200
BEFORE=$(sent)
begin
wait_for has_sent $((48 * 1024 * 1024))
lose_pipe $((STREAMS + 1))
wait_for is_over
link_rate
REPORT=$(ctl A --json show "$ID")
CODE=0
expect_completed
expect_healthy B "$PID"
expect_message 'the link was lost in round'
[[ $(report streams) == "$STREAMS" ]] || fail "$(report streams) pipes"
bytes=$(report bytesOnWire)
((bytes < 96 * 1024 * 1024)) || fail "$bytes bytes were sent: nothing was taken up again"
note "$bytes bytes for 64 MiB"

note "all of it, back by one and there again by several"
migrate B "$PID" A
expect_completed
migrate A "$PID" B --streams 8
expect_completed
expect_healthy B "$PID"
migrate B "$PID" A --streams 3 --mode stop-copy --restore eager # it can be moved on at once
expect_completed
expect_healthy A "$PID"

note "one is lost in the final dump"
link_rate 200
BEFORE=$(sent)
begin --mode stop-copy
wait_for has_sent $((16 * 1024 * 1024))
lose_pipe $((STREAMS + 1))
wait_for is_over
link_rate
[[ $(shown state) == ABORTED ]] || fail "$(ctl A show "$ID")"
note "$(report error.message "$(ctl A --json show "$ID")")"
expect_healthy A "$PID"

note "too many are refused"
migrate A "$PID" B --streams 9
expect_refused INVALID_ARGUMENT
expect_healthy A "$PID"
