#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# guest_hybrid: on a kernel that tracks dirty pages, what is dirty after the rounds of pre-copy is fetched after the
# workload runs at its destination, what they brought is not; where dirty bits lie (huge pages), only what has
# changed is. Each workload goes and returns, and checks its content at both ends.
# shellcheck source-path=SCRIPTDIR disable=SC2119,SC2120
. "$(dirname "$0")/../haul.sh"

# FROM TO MOST FLAG…
goes() {
    migrate "$1" "$PID" "$2" "${@:4}"
    expect_completed
    expect_healthy "$2" "$PID"
    expect_gone "$1" "$PID"
    [[ $(report tracking) == soft-dirty ]] || fail "tracking is $(report tracking)"
    note "  $1 to $2: downtime $(report downtimeMs) ms (dump $(report criu.freezeMs), restore $(report \
        criu.restoreMs)), $(report restore.latePages) pages fetched"
    (($(report restore.latePages) > 0)) || fail "nothing stayed behind"
    (($(report restore.latePages) <= $3)) || fail "$(report restore.latePages) pages were fetched, not $3 at most"
    [[ $(report restore.lateMissing) == 0 ]] || fail "pages are missing"
}

# MOST WORKLOAD… -- FLAG…
moves() {
    local most=$1 what=()
    shift
    while [[ $1 != -- ]]; do
        what+=("$1")
        shift
    done
    note "${what[*]} $*"
    workload A "${what[@]}"
    goes A B "$most" "${@:2}"
    goes B A "$most" "${@:2}"
    on A kill -KILL "$PID"
    expect_gone A "$PID"
}

lab_start
moves 8000 memory 64 5 --incompressible --random -- --mode hybrid
moves 8000 memory 64 1 --incompressible --random --huge -- --mode hybrid
moves 12000 mappings 32 50 -- --mode hybrid
moves 16500 memory 64 max --incompressible -- --max-downtime 20ms --max-rounds 2 --on-timeout post-copy
