#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# native_parallel: eight migrations at a time from one engine to another over a narrow link: they share it fairly,
# all of them end well, and the engines stay within their memory.
# shellcheck source-path=SCRIPTDIR disable=SC2119,SC2120
. "$(dirname "$0")/../haul.sh"

COUNT=8
mib=${HAUL_MIB:-24}
# The pipes of each migration have up to 4 MiB under way.
most_kib=$((64 * 1024 + COUNT * (4 * 1024 + mib * 1024 / 200)))
ERRORS=

peak_kib() {
    # shellcheck disable=SC2016 # awk's
    on "$1" awk '/^VmHWM/ { print $2 }' "/proc/${ENGINE[$1]}/status"
}

lab_start
pids=()
for ((i = 0; i < COUNT; i++)); do
    workload A memory "$mib" 0.1 --incompressible
    pids+=("$PID")
done

link_rate 200
jobs=()
for pid in "${pids[@]}"; do
    ctl A --json migrate "pid:$pid" --to "$(url B)" >"$LAB/report-$pid" 2>&1 &
    jobs+=("$!")
done
wait "${jobs[@]}"
link_rate

total=()
for pid in "${pids[@]}"; do
    REPORT=$(<"$LAB/report-$pid")
    CODE=0
    expect_completed
    expect_healthy B "$pid"
    total+=("$(report totalMs)")
    note "downtime $(report downtimeMs) ms, total $(report totalMs) ms"
done
mapfile -t total < <(printf '%s\n' "${total[@]}" | sort -n)
# All of them are under way at a time: nobody has to wait until the others are done. (How fair TCP is to single
# connections of a narrow link is its own business.)
awk -v middle="${total[COUNT / 2]}" -v last="${total[-1]}" 'BEGIN { exit !(last < 1.5 * middle) }' ||
    fail "half of them were done after ${total[COUNT / 2]} ms, the last after ${total[-1]}"
for host in A B; do
    peak=$(peak_kib "$host")
    note "$host: $peak KiB at most"
    ((peak < most_kib)) || fail "the engine of $host needed $peak KiB"
done
