#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# guest_postcopy: on a kernel that tracks dirty pages, the time until a workload runs at its destination does not
# depend on its memory with --mode post-copy: 16 times as much (HAUL_MIB, default 8 and 128) takes at most 1.3 times
# as long, by the medians of HAUL_RUNS (default 3). Its content is checked afterwards.
# shellcheck source-path=SCRIPTDIR disable=SC2119,SC2120
. "$(dirname "$0")/../haul.sh"

read -r small big <<<"${HAUL_MIB:-8 128}"
runs=${HAUL_RUNS:-3}
declare -A DOWN=([$small]="" [$big]="")

median() {
    tr ' ' '\n' <<<"$1" | sed '/^$/d' | sort -n | sed -n "$(((runs + 1) / 2))p"
}

measure() {
    local mib=$1
    workload A memory "$mib" 0 --incompressible
    migrate A "$PID" B --mode post-copy
    expect_completed
    [[ $(report tracking) == soft-dirty ]] || fail "tracking is $(report tracking)"
    (($(report restore.latePages) >= mib * 250)) || fail "its memory was sent before: $(report restore)"
    expect_gone A "$PID"
    expect_healthy B "$PID"
    DOWN[$mib]+=" $(report downtimeMs)"
    note "$mib MiB: downtime $(report downtimeMs) ms (dump $(report criu.freezeMs), restore $(report criu.restoreMs));" \
        "$(report restore.latePages) pages fetched in $(report restore.fillMs) ms"
    on B kill -KILL "$PID"
    expect_gone B "$PID"
}

lab_start
measure "$small"
DOWN[$small]=
for ((run = 0; run < runs; run++)); do
    measure "$small"
    measure "$big"
done
few=$(median "${DOWN[$small]}")
much=$(median "${DOWN[$big]}")
note "medians: $small MiB $few ms, $big MiB $much ms"
((much * 10 <= few * 13)) || fail "the time to resume grows with memory: $few ms, $much ms"
