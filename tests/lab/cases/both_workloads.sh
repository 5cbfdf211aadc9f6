#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# both_workloads: every kind of workload either arrives whole or is refused and stays whole.
# shellcheck source-path=SCRIPTDIR disable=SC2119,SC2120
. "$(dirname "$0")/../haul.sh"

finish() {
    on "$1" kill -KILL "$2"
    expect_gone "$1" "$2"
}

must_move() {
    note "$*"
    workload A "$@"
    migrate A "$PID" B
    expect_completed
    expect_gone A "$PID"
    expect_healthy B "$PID"
    finish B "$PID"
}

must_stay() {
    note "$*"
    workload A "$@"
    migrate A "$PID" B
    expect_refused
    expect_healthy A "$PID"
    finish A "$PID"
}

either() {
    note "$*"
    workload A "$@"
    migrate A "$PID" B
    if [[ $CODE == 0 ]]; then
        expect_healthy B "$PID"
        finish B "$PID"
    else
        expect_refused
        expect_healthy A "$PID"
        finish A "$PID"
    fi
}

# Of memory that hardly changes the frozen tree sends hardly any: it was copied ahead, and is not sent again.
expect_copied_ahead() {
    local last
    last=$(report rounds.-1.pagesSent)
    ((last < $1)) || fail "$last pages were sent while frozen, not fewer than $1: $(report rounds)"
}

lab_start
must_move memory 16 2
expect_copied_ahead 2048
must_move memory 16 50 --incompressible
must_move memory 16 2 --shared
expect_copied_ahead 2048
must_move memory 16 2 --huge
expect_copied_ahead 2048
must_move tree
must_move event
must_stay undumpable
must_stay tcp
either event --wide
note "a lock on a file that both hosts share: the destination cannot have it while the source does"
must_stay lock /srv/shared/lock.file
expect_message 'holds a lock on /srv/shared/lock.file'
on B touch /tmp/lock.file
must_move lock /tmp/lock.file
