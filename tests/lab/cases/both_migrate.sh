#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# both_migrate: processes with memory that changes, and a tree of 20, go to the other host and back;
# each workload verifies its own content all the time. HAUL_RUNS (default 2) round trips. The memory is
# copied at least twice before the freeze. HAUL_MIB: how much of it, with
# 10 MiB/s changing (default 64, in the guest 24; with HAUL_FULL=1 256).
# shellcheck source-path=SCRIPTDIR disable=SC2119,SC2120
. "$(dirname "$0")/../haul.sh"

move() {
    local pid=$1 from=$2 to=$3
    gap_reset "$from" "$pid"
    migrate "$from" "$pid" "$to"
    expect_completed
    [[ $(report restoredPid) == "$pid" ]] || fail "restoredPid is $(report restoredPid), not $pid"
    expect_gone "$from" "$pid"
    expect_healthy "$to" "$pid"
    note "$pid $from to $to: downtime $(report downtimeMs) ms, seen by the workload $(gap "$pid") ms," \
        "total $(report totalMs) ms, $(report bytesOnWire) bytes, $(precopy_rounds) rounds ahead"
}

mib=$((SLOW > 1 ? 24 : 64))
[[ -z ${HAUL_FULL:-} ]] || mib=256
lab_start
workload A memory "${HAUL_MIB:-$mib}" 10
memory=$PID
workload A tree
tree=$PID
for ((run = 0; run < ${HAUL_RUNS:-2}; run++)); do
    for pid in "$memory" "$tree"; do
        move "$pid" A B
        [[ $pid != "$memory" ]] || expect_precopied 2
        move "$pid" B A
        [[ $pid != "$memory" ]] || expect_precopied 2
    done
done
[[ $(ctl A --json list) == *"$(report id)"* ]] || fail "list does not know the last migration"
