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

lab_start
must_move memory 16 2
must_move memory 16 50 --incompressible
must_move memory 16 2 --shared
must_move memory 16 2 --huge
must_move tree
must_move event
must_stay undumpable
must_stay tcp
either event --wide
either lock /srv/shared/lock.file

note "tcp --tcp close"
workload A tcp
migrate A "$PID" B --tcp close
expect_completed
expect_healthy B "$PID"
grep -q '^closed ' "$STATUS" || fail "the connection survived --tcp close: $(tr -s ' ' <"$STATUS")"
