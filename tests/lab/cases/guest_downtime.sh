#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# guest_downtime: how long a process that dirties its memory stands still, and how long it takes to move
# it, with haul and with a script of CRIU and rsync, by turns on the same two hosts. Prints one line
# of JSON (medians). HAUL_RUNS (default 3), HAUL_MIB (default 64); with HAUL_FULL=1 10 and 256. Both copy
# the memory twice before they stop the process. Also runs on the machine's own kernel: where that
# cannot track dirty pages the script stops and copies, and haul compares content.
# shellcheck source-path=SCRIPTDIR disable=SC2119,SC2120
. "$(dirname "$0")/../haul.sh"

runs=${HAUL_RUNS:-3}
mib=${HAUL_MIB:-64}
if [[ -n ${HAUL_FULL:-} ]]; then
    runs=${HAUL_RUNS:-10}
    mib=${HAUL_MIB:-256}
fi
dirty_mib_per_s=${HAUL_DIRTY:-5}
hand=$SHARED/hand

now_ms() {
    echo $(($(date +%s%N) / 1000000))
}

begin() {
    workload A memory "$mib" "$dirty_mib_per_s"
    sleep 1
    gap_reset A "$PID"
    BEGAN=$(now_ms)
}

# finish NAME MORE: checks the moved workload, notes what it saw, and ends it.
finish() {
    local total=$(($(now_ms) - BEGAN))
    expect_gone A "$PID"
    expect_healthy B "$PID"
    printf '%s %d %d %s\n' "$1" "$(gap "$PID")" "$total" "$2" | tee -a "$LAB/results" | sed 's/^/  /'
    on B kill -KILL "$PID"
    expect_gone B "$PID"
}

with_haul() {
    begin
    migrate A "$PID" B --max-rounds 2
    finish haul "$(($(report criu.freezeMs) + $(report criu.restoreMs))) $(report downtimeMs) $(report rounds |
        grep -o pagesSent | wc -l)"
    expect_completed
}

hand_logs() {
    on A bash -c 'tail -v -n 5 /var/lib/haul/hand/*/*.log' || true
    on B bash -c 'tail -v -n 15 /var/lib/haul/hand/*/*.log' || true
}

by_hand() {
    rm -rf "$hand"
    mkdir -p "$hand"
    mkfifo "$hand/orders" "$hand/answers"
    START_OUT=/srv/shared/hand-B.log start_on B bash "$HAUL_LAB/by_hand.sh" \
        destination /srv/shared/hand 10.77.0.2 >/dev/null
    begin
    on A timeout 300 bash "$HAUL_LAB/by_hand.sh" source /srv/shared/hand 10.77.0.2 "$rounds" "$PID" \
        >"$LAB/hand-A.log" 2>&1 ||
        fail "by hand: $(cat "$LAB/hand-A.log" "$SHARED/hand-B.log"; hand_logs)"
    finish by_hand "0 0 $rounds"
}

lab_start
rounds=3
[[ $(report dirtyTracking "$(ctl A --json node)") == true ]] || rounds=1
for ((run = 0; run < runs; run++)); do
    with_haul
    by_hand
done
# Columns: who, the workload's gap, total, CRIU's frozen and restore time, haul's own downtime, rounds.
python3 - "$LAB/results" "$mib" "$dirty_mib_per_s" "$(uname -r)" <<'PY'
import json, sys

rows = [line.split() for line in open(sys.argv[1])]


def median(who, column):
    values = sorted(float(row[column]) for row in rows if row[0] == who)
    middle = len(values) // 2
    return values[middle] if len(values) % 2 else (values[middle - 1] + values[middle]) / 2


ratios = sorted(float(row[1]) / max(float(row[3]), 1) for row in rows if row[0] == "haul")
result = {
    "workloadMiB": int(sys.argv[2]),
    "dirtyMiBPerS": float(sys.argv[3]),
    "kernel": sys.argv[4],
    "runs": sum(row[0] == "haul" for row in rows),
    "haul": {"downtimeMs": median("haul", 1), "totalMs": median("haul", 2), "criuMs": median("haul", 3),
             "reportedDowntimeMs": median("haul", 4), "rounds": median("haul", 5)},
    "by_hand": {"downtimeMs": median("by_hand", 1), "totalMs": median("by_hand", 2)},
    "ratio": round(ratios[len(ratios) // 2], 3),
}
print(json.dumps(result))
haul, hand = result["haul"], result["by_hand"]
problems = [text for bad, text in (
    (result["ratio"] > 1.5, "the workload stands still for more than 1.5 times what CRIU needs"),
    (haul["downtimeMs"] >= hand["downtimeMs"], "the downtime is not lower than by hand"),
    (haul["totalMs"] >= hand["totalMs"], "the total time is not lower than by hand"),
) if bad]
sys.exit("; ".join(problems) or 0)
PY
