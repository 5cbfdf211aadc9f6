#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# guest_first_round: pre-copy's first round is read while the tree runs, and CRIU's next one sends only what was
# written since; also of a tree that moves, drops, protects and forks its memory all the time, and of which pages are
# merged: the kernel calls clean what is not. Each workload checks its
# content at both ends. HAUL_RUNS (default 1) goes and returns of each.
# shellcheck source-path=SCRIPTDIR disable=SC2119,SC2120
. "$(dirname "$0")/../haul.sh"

said() {
    grep -c "migration=$(report id) .*$1" "$SHARED/hauld-$FROM.log" || true
}

# FROM TO: the tree goes, and CRIU finds nothing that was not read.
goes() {
    FROM=$1
    migrate "$1" "$PID" "$2"
    expect_completed
    expect_healthy "$2" "$PID"
    expect_gone "$1" "$PID"
    [[ $(report tracking) == soft-dirty ]] || fail "the kernel's dirty bits are not used: $(report tracking)"
    [[ $(said "not read while it runs") == 0 ]] || fail "the first round was not read live"
    local first second
    first=$(report rounds.0.pagesSent)
    second=$(report rounds.1.pagesSent)
    note "  $1 to $2: $first pages read live ($(report rounds.0.frozenMs) ms still), then $second ($(report \
        rounds.1.frozenMs) ms still), downtime $(report downtimeMs) ms"
    ((first > $3)) || fail "$first pages went in the first round, there are more than $3"
    ((second * 2 < first)) || fail "the second round sent $second pages after $first"
}

# PAGES WORKLOAD…
moves() {
    local pages=$1 run
    shift
    note "$*"
    workload A "$@"
    for ((run = 0; run < ${HAUL_RUNS:-1}; run++)); do
        goes A B "$pages"
        goes B A "$pages"
    done
    on A kill -KILL "$PID"
    expect_gone A "$PID"
}

lab_start
moves 16384 memory 64 5 --incompressible --random
moves 16384 memory 64 5 --incompressible --random --huge
moves 8192 memory 32 2 --shared --processes 4
# Pages that are alike are merged in the middle of it.
on A bash -c 'cd /sys/kernel/mm/ksm && echo 20000 >pages_to_scan && echo 0 >smart_scan && echo 1 >run'
moves 7000 mappings 32 50
on A bash -c 'echo 2 >/sys/kernel/mm/ksm/run'
moves 100 tree

note "one that another traces is refused, and moves when it is not traced any more"
workload A memory 8 1
tracer=$(start_on A python3 -c '
import ctypes, sys, time
SEIZE = 0x4206
libc = ctypes.CDLL(None, use_errno=True)
assert libc.ptrace(SEIZE, int(sys.argv[1]), None, None) == 0, ctypes.get_errno()
time.sleep(1e6)' "$PID")
wait_for on A grep -q 'TracerPid:[[:space:]]*[1-9]' "/proc/$PID/status"
migrate A "$PID" B
expect_refused
expect_healthy A "$PID"
on A kill -KILL "$tracer"
expect_gone A "$tracer"
migrate A "$PID" B
expect_completed
expect_healthy B "$PID"
