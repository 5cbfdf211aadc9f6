#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# native_corrupt: a bit of the memory on its way turns, before it is sealed or on the wire, in a round ahead
# and in the final dump; one of several memory pipes is lost; a destination's disk is full. Each time the
# workload goes on unharmed where it was, or the migration goes on and all of it arrives.
# shellcheck source-path=SCRIPTDIR disable=SC2119,SC2120
. "$(dirname "$0")/../haul.sh"

ENGINE_ENV=("HAUL_FLIP=/srv/shared/flip" "LD_PRELOAD=$BUILD/workloads/libflip.so")
ERRORS=

# flipped KIND NUMBER FLAG…: that batch of the next migration has a bit turned: it is refused, by
# its digest or its seal, and nothing of it is restored.
flipped() {
    local kind=$1 number=$2
    shift 2
    echo "$kind $number" >"$SHARED/flip"
    migrate A "$PID" B "$@"
    [[ ! -e $SHARED/flip ]] || fail "no batch $number was sent"
    expect_refused DATA_LOSS
    expect_healthy A "$PID"
}

lab_start
workload A memory 32 20 --incompressible

note "in the first round, and in the final dump"
flipped plain 3
expect_message 'altered on its way'
flipped sealed 3
expect_message 'altered, repeated, reordered or lost'
flipped plain 3 --no-precopy
expect_message 'altered on its way'
flipped sealed 20 --no-precopy
expect_message 'altered, repeated, reordered or lost'

note "and then it moves"
migrate A "$PID" B
expect_completed
expect_healthy B "$PID"
