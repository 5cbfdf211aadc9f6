#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# native_load: a migration with 1000 watchers, 200 calls at a time and a flood of 10 000 connections of a
# stranger at its source. All watchers see its end, all calls are answered, and the workload stands
# still hardly longer than without all that. Prints the numbers as one JSON object.
#
# HAUL_RUNS=N: so many migrations with and as many without, in turn (default 1). HAUL_LOAD_MOST: what
# the medians of their downtimes may differ by, in percent of the one without (default 400: a machine that does
# other things as well is no place for a finer measure; tests/bench/load has one).
#
# Those who watch, call and flood get what processors nobody else wants: in earnest they have their own. Here they still
# share caches and memory with the engines, so the migrations without them have as many processors kept busy beside them in
# the same way: what differs is what the engine does for its callers.
# shellcheck source-path=SCRIPTDIR disable=SC2119,SC2120
. "$(dirname "$0")/../haul.sh"

runs=${HAUL_RUNS:-1}
watchers=${HAUL_WATCHERS:-1000}
callers=${HAUL_CALLERS:-200}
connections=${HAUL_CONNECTIONS:-10000}
pki=/srv/shared/pki
stranger=10.77.0.66
peers=4
slow=2MiB
declare -A DOWNTIMES=([without]='' [with]='')

# Until FILE has a line with WORD; the job must live.
await_word() {
    local file=$1 word=$2 job=$3 try
    for ((try = 0; try < 600; try++)); do
        ! grep -q "$word" "$file" 2>/dev/null || return 0
        kill -0 "$job" 2>/dev/null || break
        sleep 0.1
    done
    fail "no $word: $(<"$file")"
}

running_id() {
    local try id
    for ((try = 0; try < 100; try++)); do
        id=$(report migrations.0.id "$(ctl A --json list --active)")
        [[ -z $id ]] || { echo "$id"; return; }
        sleep 0.1
    done
    fail "no migration is running: $(<"$LAB/report") $(<"$LAB/errors")"
}

busy_start() {
    local i
    for ((i = 0; i < $(nproc); i++)); do
        on B chrt --idle 0 python3 -c 'while True: sum(range(100000))' &
        BUSY[i]=$!
    done
}

busy_end() {
    on B pkill -f 'sum.range' || true
    wait "${BUSY[@]}" 2>/dev/null || true
}
BUSY=()

load_start() {
    local id=$1 i
    mkfifo "$LAB/hold"
    exec {HOLD}<>"$LAB/hold"
    for ((i = 1; i <= peers; i++)); do
        on B chrt --idle 0 "$BUILD/bench/load_peer" "$(url A)" "$pki/ca.pem" "$pki/w$i.pem" "$pki/w$i.key" "$id" \
            $((watchers / peers)) $((callers / peers)) <"$LAB/hold" {HOLD}>&- >"$LAB/peer$i" 2>&1 &
        PEERS[i]=$!
    done
    for ((i = 1; i <= peers; i++)); do
        await_word "$LAB/peer$i" watching "${PEERS[$i]}"
    done
    on B chrt --idle 0 python3 "$HAUL_LAB/abuse.py" flood "${HOST_ADDRESS[A]}:7777" "$connections" "$pki/ca.pem" "$stranger" \
        {HOLD}>&- >"$LAB/flood" 2>&1 &
    FLOOD=$!
    await_word "$LAB/flood" flooding "$FLOOD"
}

# Adds what the peers counted to LOAD.
load_end() {
    local i seen=0 line
    wait "$FLOOD" || fail "flood: $(<"$LAB/flood")"
    FLOODED=$(grep connections "$LAB/flood")
    exec {HOLD}>&-
    for ((i = 1; i <= peers; i++)); do
        wait "${PEERS[$i]}" || fail "load_peer ended with $?: $(<"$LAB/peer$i")"
        line=$(tail -n 1 "$LAB/peer$i")
        note "$line"
        LOAD+=("$line")
        seen=$((seen + $(report saw_completed "$line")))
    done
    note "$FLOODED"
    ((seen == watchers)) || fail "$seen of $watchers watchers saw the end"
    rm "$LAB/hold"
}
PEERS=()
LOAD=()

# From B to A, as soon as all its memory is at B; it is all at A when it runs there, for the next one.
back() {
    local try
    for ((try = 0; try < 60; try++)); do
        migrate B "$PID" A --restore eager
        ((CODE == 64 + STATUS_CODE[UNAVAILABLE])) || break
        sleep 0.5
    done
    expect_completed
}

# one with|without: moves the workload from A to B, and back.
one() {
    local how=$1 job id
    rm -f "$LAB/report"
    ctl A --json --timeout 300s migrate "pid:$PID" --to "$(url B)" --bandwidth "$slow" >"$LAB/report" 2>"$LAB/errors" &
    job=$!
    id=$(running_id)
    if [[ $how == without ]]; then busy_start; else load_start "$id"; fi
    ctl A adjust "$id" --bandwidth none >/dev/null
    CODE=0
    wait "$job" || CODE=$?
    REPORT=$(<"$LAB/report")
    ERRORS=$(<"$LAB/errors")
    expect_completed
    DOWNTIMES[$how]+="$(report downtimeMs) "
    note "$how: $(report downtimeMs) ms, of these $(report criu.freezeMs) ms"
    if [[ $how == without ]]; then busy_end; else load_end; fi
    expect_gone A "$PID"
    expect_healthy B "$PID"
    back
}

hosts_up "$LAB"
make_pki
for ((i = 1; i <= peers; i++)); do
    on A "$(program haulctl)" pki issue "$pki" "w$i" --san "DNS:w$i" >/dev/null
done
cat >"$SHARED/policy.json" <<JSON
{"rules": [{"identities": ["10.77.0.1", "10.77.0.2"], "roles": ["partner"]},
           {"identities": ["w1", "w2", "w3", "w4"], "roles": ["viewer"]}],
 "limits": [{"identities": ["w1", "w2", "w3", "w4"], "calls": 64, "streams": 320}]}
JSON
for host in A B; do
    engine_start "$host" --policy /srv/shared/policy.json --data-ports 20000-21999
done
on B ip address add "$stranger/24" dev haul0
workload A memory 96 5 --incompressible
for ((run = 0; run < runs; run++)); do
    one without
    one with
done
python3 - "${HAUL_LOAD_MOST:-400}" "${DOWNTIMES[without]}" "${DOWNTIMES[with]}" "$FLOODED" "${LOAD[@]}" <<'PY'
import json, statistics, sys
most, without, loaded = float(sys.argv[1]), *([float(x) for x in sys.argv[i].split()] for i in (2, 3))
peers = [json.loads(line) for line in sys.argv[5:]]
more = (statistics.median(loaded) / statistics.median(without) - 1) * 100
print(json.dumps({
    "migrations": len(without) + len(loaded),
    "downtime_ms": {"without": statistics.median(without), "with": statistics.median(loaded)},
    "all_ms": {"without": without, "with": loaded},
    "more_percent": round(more, 1),
    "watchers": sum(peer["watchers"] for peer in peers) // len(loaded),
    "events": sum(peer["events"] for peer in peers),
    "calls": sum(peer["calls"] for peer in peers),
    "calls_per_second": sum(peer["calls_per_second"] for peer in peers) / len(loaded),
    "slowest_call_ms": max(peer["slowest_call_ms"] for peer in peers),
    "flood": sys.argv[4],
}))
sys.exit(f"FAIL: {more:.1f} % more downtime" if more > most else 0)
PY
