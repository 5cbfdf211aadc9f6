#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# bench_migrate: how long workloads stand still, how long they take to move and what that costs on the wire,
# with haul and with its peers, by turns on the same two hosts. tests/bench/migrate runs it and says what can
# be set. One line of JSON for each migration, on stdout behind "result".
# shellcheck source-path=SCRIPTDIR disable=SC2119,SC2120
. "$(dirname "$0")/../haul.sh"
. "$(dirname "$0")/../redis.sh"

runs=${HAUL_RUNS:-1}
hand=$SHARED/hand
# What each workload is started with; @ is the size in MiB.
declare -A workloads=(
    [idle]="memory @ 0 --incompressible"
    [shared]="memory @ 10 --incompressible --shared --processes 4"
    [writer]="memory @ 10 --incompressible --random"
    [writer-huge]="memory @ 10 --incompressible --random --huge"
    [hot]="memory 64 max --incompressible"
    [text]="memory @ 2 --text"
    [zero]="memory @ 2 --incompressible --zero 80"
    [tree]="tree"
    [redis]=redis
)
# Rate and, where the kernel has netem, the delay each way.
declare -A links=([free]="" [1gbit]="1gbit 0ms" [100mbit]="100mbit 5ms")
mib=${HAUL_MIB:-256}
IFS=, read -ra chosen_workloads <<<"${HAUL_WORKLOADS:-idle,shared,writer,writer-huge,hot,text,zero,tree,redis}"
IFS=, read -ra chosen_links <<<"${HAUL_LINKS:-free,1gbit,100mbit}"
IFS=, read -ra chosen_peers <<<"${HAUL_PEERS:-haul,by_hand,p_haul}"

shape() {
    local host rate=${1% *} delay=${1#* }
    for host in A B; do
        on "$host" tc qdisc del dev haul0 root 2>/dev/null || true
        [[ -n $rate ]] || continue
        on "$host" tc qdisc add dev haul0 root netem rate "$rate" delay "$delay" limit 20000 2>/dev/null ||
            on "$host" tc qdisc add dev haul0 root tbf rate "$rate" burst 256k latency 400ms
    done
}

now_ms() {
    echo $(($(date +%s%N) / 1000000))
}

wire_bytes() {
    # shellcheck disable=SC2016 # runs in the host
    on A bash -c 'cd /sys/class/net/haul0/statistics && echo $(($(<tx_bytes) + $(<rx_bytes)))'
}

start_redis() {
    redis_start A
    PID=$SERVER
    redis_write
    WRITTEN=$(wc -l <"$ACKS")
}

# The longest wait of the client since the start, once it writes at the destination.
redis_gap() {
    wait_for bash -c "sed -n '/connected 10.77.0.2/,\$p' '$ACKS' | grep -q '^ack'"
    on A kill "$WRITER"
    tail -n "+$WRITTEN" "$ACKS" | awk '$1 == "ack" && $3 > most { most = $3 } END { print most + 0 }'
}

# A container with the workload in place of a process.
start_container() {
    CONTAINERS=$((${CONTAINERS:-0} + 1))
    CONTAINER=c$CONTAINERS
    STATUS=$SHARED/$CONTAINER.status
    PID=$(on A bash "$HAUL_LAB/runc_by_hand.sh" run "$CONTAINER" "$BUILD/workloads/$1" \
        "/srv/shared/$CONTAINER.status" "${@:2}") || fail "runc does not start a container"
    STATUS_OF[$PID]=$STATUS
    wait_for grep -q '^ok ' "$STATUS"
}

# begin WORKLOAD [START]: START is workload, or what starts it otherwise.
begin() {
    local name=$1 words start=(workload A)
    [[ -z ${2:-} ]] || start=("$2")
    read -ra words <<<"${workloads[$name]//@/$mib}"
    FLAGS=()
    HAND_FLAGS=
    # It never comes to rest: the promise is kept, or what was said for that case is done.
    [[ $name != hot ]] || FLAGS=(--max-downtime 500ms --timeout 20s --on-timeout post-copy)
    if [[ $name == redis ]]; then
        start_redis
        FLAGS=(--tcp close)
        HAND_FLAGS=--tcp-close
    else
        "${start[@]}" "${words[@]}"
        sleep 1
        gap_reset A "$PID"
    fi
    BYTES=$(wire_bytes)
    BEGAN=$(now_ms)
}

# finish NAME PEER LINK MORE…: checks the moved workload, prints what was measured, and ends it.
finish() {
    local total=$(($(now_ms) - BEGAN)) bytes=$(($(wire_bytes) - BYTES)) gap
    if [[ $1 == redis ]]; then
        gap=$(redis_gap)
    else
        expect_on_b
        gap=$(gap "$PID")
    fi
    expect_gone A "$PID"
    printf 'result {"workload": "%s", "peer": "%s", "link": "%s", "downtimeMs": %d, "totalMs": %d, "bytes": %d%s}\n' \
        "$1" "$2" "$3" "$gap" "$total" "$bytes" "${4:-}"
    if [[ $2 == runc ]]; then
        on B runc delete --force "$CONTAINER"
        on A runc delete --force "$CONTAINER"
    else
        on B kill -KILL "$PID"
        expect_gone B "$PID"
    fi
}

# A container's process gets another pid at B.
expect_on_b() {
    local source=$PID
    if [[ -n ${CONTAINER:-} ]]; then
        PID=$(on B runc state "$CONTAINER" | python3 -c 'import json, sys; print(json.load(sys.stdin)["pid"])')
        STATUS_OF[$PID]=$STATUS
    fi
    expect_healthy B "$PID"
    PID=$source
}

peer_haul() {
    local name=$1 link=$2 more
    begin "$name"
    # shellcheck disable=SC2086 # flags
    migrate A "$PID" B "${FLAGS[@]}" ${HAUL_FLAGS:-}
    expect_completed
    more=", \"rounds\": $(precopy_rounds), \"reportedDowntimeMs\": $(report downtimeMs)"
    more+=", \"criuFreezeMs\": $(report criu.freezeMs), \"criuRestoreMs\": $(report criu.restoreMs)"
    finish "$name" "${HAUL_PEER_NAME:-haul}" "$link" "$more"
}

hand_logs() {
    on A bash -c 'tail -v -n 5 /var/lib/haul/hand/*/*.log' || true
    on B bash -c 'tail -v -n 15 /var/lib/haul/hand/*/*.log' || true
}

# with_criu NAME LINK PEER ROUNDS
with_criu() {
    local rounds=$4 output
    [[ $tracks == true ]] || rounds=1
    rm -rf "$hand"
    mkdir -p "$hand"
    mkfifo "$hand/orders" "$hand/answers"
    begin "$1"
    START_OUT=/srv/shared/hand-B.log start_on B env "HAND_FLAGS=$HAND_FLAGS" "HAND_PLAIN=${HAND_PLAIN:-}" \
        bash "$HAUL_LAB/by_hand.sh" destination /srv/shared/hand 10.77.0.2 >/dev/null
    output=$(on A env "HAND_FLAGS=$HAND_FLAGS" "HAND_PLAIN=${HAND_PLAIN:-}" timeout "$((300 * SLOW))" \
        bash "$HAUL_LAB/by_hand.sh" source /srv/shared/hand 10.77.0.2 "$rounds" "$PID" 2>&1) ||
        fail "$3: $output $(cat "$SHARED/hand-B.log"; hand_logs)"
    finish "$1" "$3" "$2" ", \"rounds\": $(($(sed -n 's/ rounds$//p' <<<"$output") - 1))"
}

peer_by_hand() {
    with_criu "$1" "$2" by_hand 3
}

# In the clear, as it is.
peer_p_haul() {
    HAND_PLAIN=1 with_criu "$1" "$2" p_haul phaul
}

peer_runc() {
    local rounds=3 output
    [[ $1 != redis ]] || return 0 # a container of its own image: not here
    [[ $tracks == true ]] || rounds=1
    rm -rf "$hand"
    mkdir -p "$hand"
    mkfifo "$hand/orders" "$hand/answers"
    begin "$1" start_container
    START_OUT=/srv/shared/hand-B.log start_on B bash "$HAUL_LAB/runc_by_hand.sh" destination /srv/shared/hand \
        10.77.0.2 "$CONTAINER" >/dev/null
    output=$(on A timeout "$((300 * SLOW))" bash "$HAUL_LAB/runc_by_hand.sh" source /srv/shared/hand 10.77.0.2 \
        "$rounds" "$CONTAINER" 2>&1) || fail "runc: $output $(cat "$SHARED/hand-B.log"; runc_logs)"
    finish "$1" runc "$2" ", \"rounds\": $((rounds - 1))"
    CONTAINER=
}

runc_logs() {
    on A bash -c 'grep -n -B5 Error /var/lib/haul/runc/*/*.log' || true
    on B bash -c 'tail -v -n 15 /var/lib/haul/runc/*/*.log' || true
}

lab_start
tracks=$(report dirtyTracking "$(ctl A --json node)")
for name in "${chosen_workloads[@]}"; do
    [[ -n ${workloads[$name]:-} ]] || fail "no workload $name; there are: ${!workloads[*]}"
    for link in "${chosen_links[@]}"; do
        [[ -v links[$link] ]] || fail "no link $link; there are: ${!links[*]}"
        for ((run = 0; run < runs; run++)); do
            for peer in "${chosen_peers[@]}"; do
                shape "${links[$link]}"
                "peer_$peer" "$name" "$link"
                shape ""
            done
        done
    done
done
