#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# both_shared: shared anonymous memory is in place at the destination before the tree is restored there, right to
# the last page (the workload looks itself), again when it moves on from what CRIU restored it as. A tree that has a
# memfd open, and one that was not pre-copied, are restored by CRIU alone.
# shellcheck source-path=SCRIPTDIR disable=SC2119,SC2120
. "$(dirname "$0")/../haul.sh"

# How often a host has restored memory that was in place.
in_place() {
    grep -c 'pages of shared memory are in place' "$SHARED/hauld-$1.log" || true
}

open_files() {
    # shellcheck disable=SC2016 # runs in the host
    on "$1" bash -c 'ls "/proc/$1/fd" | sort -n | paste -sd" "' bash "$2"
}

# move FROM TO WANTED [FLAG…]: WANTED memories are in place.
move() {
    local from=$1 to=$2 wanted=$3 before files
    shift 3
    before=$(in_place "$to")
    files=$(open_files "$from" "$PID")
    migrate "$from" "$PID" "$to" "$@"
    expect_completed
    expect_healthy "$to" "$PID"
    sleep 1
    expect_healthy "$to" "$PID"
    [[ $(open_files "$to" "$PID") == "$files" ]] || fail "open files: $files, then $(open_files "$to" "$PID")"
    (($(in_place "$to") == before + wanted)) ||
        fail "$to says $(in_place "$to") times that memory is in place, $before times before"
    note "$from to $to $*: downtime $(report downtimeMs) ms, of which restore $(report criu.restoreMs) ms"
}

lab_start
workload A shares 48
for ((run = 0; run < ${HAUL_RUNS:-3}; run++)); do
    move A B 1 --restore lazy
    move B A 1 --restore eager
done
move A B 0 --mode stop-copy
move B A 1
on A kill -KILL "$PID"
expect_gone A "$PID"

workload A shares 16 --memfd
move A B 0
move B A 0
