#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# both_nice: a workload keeps its niceness, whatever that of the CRIU is which dumps and restores it.
# shellcheck source-path=SCRIPTDIR disable=SC2119,SC2120,SC2016
. "$(dirname "$0")/../haul.sh"

niceness() {
    on "$1" bash -c 'for task in /proc/$1/task/*/stat; do sed "s/.*) //" "$task" | cut -d" " -f17; done' bash "$2" |
        sort -u | tr '\n' ' '
}

lab_start
for nice in 0 5 -3; do
    workload A memory 8 2
    on A renice -n "$nice" -p "$PID" >/dev/null
    [[ $(niceness A "$PID") == "$nice " ]] || fail "it has niceness $(niceness A "$PID"), not $nice"
    migrate A "$PID" B
    expect_completed
    [[ $(niceness B "$PID") == "$nice " ]] || fail "niceness $nice has become $(niceness B "$PID")"
    expect_healthy B "$PID"
    note "$nice stays $(niceness B "$PID")"
    on B kill -KILL "$PID"
done
