#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# matrix.sh: faults at exact moments of a migration, and what must be true after each.
#
# usage: . matrix.sh                    sources survey.sh; then
#        matrix_start                   lab_start with engines that can be stalled (workloads/stall.c)
#        victim HOST                    start the workload there; sets PID and BEATS
#        moment STAGE                   start a migration of it, A to B by default (FROM, TO), and stop the
#                                       engine concerned at that stage: sets STALLED
#        reach STAGE                    moment, again when a lease ran out on the way
#        fault NAME STAGE               do that, let the stalled engine go on, bring everything back
#        watch_start, watch_end         two copies at once in between? watch_end sets SEEN, empty if all is well
#        cells FAULT…                   which cells are wanted, of SAMPLE or all
#        cell STAGE FAULT               all of that and a plain migration of the survivor; sets RESULT, and VOID when the
#                                       machine was so busy that a lease had run out before a user's cancel came
#
# Each host has a status file of its own for the workload, so that it shows which copy runs. The workload is
# HAUL_VICTIM: memory (the default), or tree, which has pipes, sockets, timers, threads and children.
# shellcheck source-path=SCRIPTDIR disable=SC2119,SC2120,SC2016,SC2034,SC2317
# shellcheck source=survey.sh
. "$(dirname "${BASH_SOURCE[0]}")/survey.sh"

LEASE_MS=1500
# Longer than the lease, shorter than a whole copy is held.
AWAY_S=2.5
TIMERS=(--lease "${LEASE_MS}ms" --criu-timeout 4s --hold-restored 5s --hold-images 500ms)
CGROUPS=/sys/fs/cgroup/haul
STATE_DIR=/var/lib/haul
VICTIM=${HAUL_VICTIM:-memory}
declare -A VICTIM_ARGS=([memory]="16 20 --incompressible" [tree]="") VICTIM_CHILDREN=([memory]=0 [tree]=19)
FROM=A
TO=B
COPIES=1
CLOCKS_DIFFER_MS=0
LINK_SLOW_MBIT=24
RESTART_AFTER_S=0

declare -A RECORD=([BEGUN]=1 [RESERVED]=2 [FENCED]=3 [COMMITTING]=4 [DONE]=5 [RESUMED]=6
    [PREPARED]=20 [RESTORED]=21 [COMMITTED]=22 [ABORTED]=23 [SETTLED]=24)

# STAGE: which engine, and where workloads/stall.c stops it: at a record, or at a fence. "dump" is neither:
# see moment_dump.
STAGES=(begun reserved dump fenced pre-committing committing pre-done "done"
    pre-prepared prepared restoring pre-restored restored pre-committed committed pre-settled)
declare -A STAGE_POINT=(
    [begun]="from BEGUN after" [reserved]="from RESERVED after" [dump]="from FENCED after"
    [fenced]="from freeze:out after" [pre-committing]="from COMMITTING before" [committing]="from COMMITTING after"
    [pre-done]="from DONE before" [done]="from DONE after"
    [pre-prepared]="to PREPARED before" [prepared]="to PREPARED after"
    [restoring]="to freeze:in after" [pre-restored]="to RESTORED before" [restored]="to RESTORED after"
    [pre-committed]="to COMMITTED before" [committed]="to COMMITTED after"
    [pre-settled]="to SETTLED before")
FAULTS=(kill-from kill-to kill-both swrk-from swrk-to hang-from hang-to cut stop-from stop-to cancel ctrl-c)
# Where a user's cancel must come in time, and where too late; elsewhere it races the engine, which goes on by then.
IN_TIME=(dump pre-prepared prepared restoring pre-restored restored)
TOO_LATE=(committing pre-done "done" pre-committed committed pre-settled)

# --- engines that can be stalled ---

engine_up() {
    ENGINE_ENV=("HAUL_STALL=/srv/shared/stall-$1" "LD_PRELOAD=$BUILD/workloads/libstall.so")
    engine_start "$1" "${TIMERS[@]}"
}

beats_mount() {
    on "$1" bash -c 'mkdir -p /srv/beats && mount --bind "$1" /srv/beats' bash "/srv/shared/beats-$1"
}

matrix_start() {
    local host
    hosts_up "$LAB"
    make_pki
    for host in A B; do
        mkdir "$SHARED/beats-$host"
        beats_mount "$host"
        engine_up "$host"
    done
}

engine_state() {
    on "$1" sed -n 's/^State:[[:space:]]*\(.\).*/\1/p' "/proc/${ENGINE[$1]}/status" 2>/dev/null || echo gone
}

engine_signal() {
    on "$2" kill "-$1" "${ENGINE[$2]}" 2>/dev/null || true
}

# eventually TRIES CMD…: every 50 ms until it succeeds.
eventually() {
    local try tries=$(($1 * SLOW))
    shift
    for ((try = 0; try < tries; try++)); do
        ! "$@" || return 0
        sleep 0.05
    done
    return 1
}

is_stopped() {
    [[ $(engine_state "$1") == T ]]
}

# stall_at HOST RECORD|freeze:KIND|thaw:KIND before|after
stall_at() {
    local point=${2/:/ }
    [[ $2 == *:* ]] || point="record ${RECORD[$2]}"
    echo "$point $3" >"$SHARED/stall-$1"
}

stall_forget() {
    rm -f "$SHARED/stall-A" "$SHARED/stall-B"
}

# --- the workload, the migration ---

victim() {
    local host other args
    VICTIMS=$((${VICTIMS:-0} + 1))
    BEATS=$VICTIMS.status
    for other in A B; do
        truncate -s 256 "$SHARED/beats-$other/$BEATS"
    done
    host=$1
    read -ra args <<<"${VICTIM_ARGS[$VICTIM]}" || true
    PID=$(START_OUT=/srv/shared/$VICTIMS.out start_on "$host" "$BUILD/workloads/$VICTIM" "/srv/beats/$BEATS" \
        ${args[@]+"${args[@]}"})
    STATUS_OF[$PID]=$SHARED/beats-$host/$BEATS
    eventually 200 grep -q '^ok ' "${STATUS_OF[$PID]}" || fail "the workload did not start"
}

BEGIN_FLAGS=(--detach)
migrate_begin() {
    local flags=("$@" ${BEGIN_FLAGS[@]+"${BEGIN_FLAGS[@]}"})
    ctl "$FROM" --json --timeout "$((20 * SLOW))s" migrate "pid:$PID" --to "$(url "$TO")" \
        ${flags[@]+"${flags[@]}"} >"$LAB/begun.json" 2>"$LAB/begun.err" &
    BEGUN_JOB=$!
}

# Held by CRIU; its memory is on its way over a slow link.
is_held() {
    on "$FROM" grep -q '^TracerPid:[[:space:]]*[1-9]' "/proc/$PID/status" 2>/dev/null
}

# Slow, but with a short queue: what renews the lease must not wait behind the memory for long.
link_slow() {
    local host
    for host in A B; do
        on "$host" tc qdisc replace dev haul0 root tbf rate "${LINK_SLOW_MBIT}mbit" burst 32k latency 30ms
    done
}

moment_dump() {
    link_slow
    engine_signal CONT "$FROM"
    eventually 200 is_held || return 1
    engine_signal STOP "$FROM"
}

# has_come SEEN: the engine is where it was to stop, or the migration, of which the log tells behind these
# lines, ended before: no need to wait any longer.
has_come() {
    is_stopped "$STALLED" ||
        tail -n "+$(($1 + 1))" "$SHARED/hauld-$FROM.log" | grep -qE 'msg="state (ABORTED|CANCELLED|LOST)"'
}

has_turned_back() {
    tail -n "+$(($1 + 1))" "$SHARED/hauld-$FROM.log" | grep -qE 'msg="stage (abort|resume|lost)"'
}

moment() {
    local side point when seen flags=()
    read -r side point when <<<"${STAGE_POINT[$1]}"
    STALLED=$FROM
    [[ $side == from ]] || STALLED=$TO
    stall_at "$STALLED" "$point" "$when"
    seen=$(wc -l <"$SHARED/hauld-$FROM.log")
    [[ $1 != dump ]] || flags=(--no-precopy) # all of the memory is still to move then
    migrate_begin ${flags[@]+"${flags[@]}"}
    if ! eventually 400 has_come "$seen" || ! is_stopped "$STALLED"; then
        echo "stage $1 was never reached: $(<"$LAB/begun.json") $(<"$LAB/begun.err")" >&2
        return 1
    fi
    # The way back passes some points too.
    if has_turned_back "$seen"; then
        stall_forget
        go_on
        return 1
    fi
    [[ $1 != dump ]] || moment_dump
}

# Both sides were kept waiting by a busy machine, before there was any fault.
lease_ran_out() {
    local id
    id=$(tail -n "+$(($1 + 1))" "$SHARED/hauld-$FROM.log" | grep -oE 'migration=[0-9a-f]+' | tail -n 1)
    [[ $(ctl "$FROM" --json show "${id#migration=}" 2>&1) =~ "nothing was heard from the destination"|"the source fell silent" ]]
}

# The same as moment, but a lease that has run out on the way, which is short here, is no result: it is tried again.
reach() {
    local try seen
    for ((try = 0; try < 10; try++)); do
        seen=$(wc -l <"$SHARED/hauld-$FROM.log")
        ! moment "$1" || return 0
        lease_ran_out "$seen" || return 1
        echo "  ($1: a lease ran out before, on a busy machine; again)"
        wait "$BEGUN_JOB" || true
        link_rate
        stall_forget
        settled || return 1
    done
    return 1
}

# --- faults ---

# CRIU of an engine: its children by that name.
swrk_of() {
    on "$1" pgrep -P "${ENGINE[$1]}" -x criu || true
}

go_on() {
    engine_signal CONT "$STALLED"
}

kill_engines() {
    local host
    for host in "$@"; do
        engine_kill "$host"
    done
    [[ -z ${ENGINE[$STALLED]:-} ]] || go_on
    sleep "$RESTART_AFTER_S"
    for host in "$@"; do
        engine_up "$host"
    done
}

stop_engine() {
    engine_signal STOP "$1"
    [[ $1 == "$STALLED" ]] || go_on
    sleep "$AWAY_S"
    engine_signal CONT "$1"
}

# signal_swrk KILL|STOP HOST
signal_swrk() {
    local pid
    pid=$(swrk_of "$2")
    NOTE="no CRIU there"
    for pid in $pid; do
        on "$2" kill "-$1" "$pid"
        NOTE=''
    done
    go_on
}

# A haulctl of that host waits for its engine's answer; or has it already.
is_waiting() {
    local pid
    pid=$(on "$1" pgrep -n -x haulctl) || return 0
    [[ $(on "$1" sed -n 's/^State:[[:space:]]*\(.\).*/\1/p' "/proc/$pid/status" 2>/dev/null) == [S] ]]
}

has_begun() {
    [[ -s $LAB/begun.json ]]
}

is_among() {
    [[ " ${*:2} " == *" $1 "* ]]
}

# A cancel that was taken leaves the workload where it was, one that came too late does not.
expect_after() {
    CANCELLED=$2
    EXPECTED_AT=$TO
    [[ $2 != yes ]] || EXPECTED_AT=$FROM
    if { is_among "$1" "${IN_TIME[@]}" && [[ $2 != yes ]]; } || { is_among "$1" "${TOO_LATE[@]}" && [[ $2 == yes ]]; }; then
        echo "cancelled: $2, at stage $1" >&2
        EXPECTED_AT="another host"
    fi
}

# The user's word is at the engine when it goes on.
cancel_it() {
    local id code=0 job tries=400
    [[ $STALLED != "$FROM" ]] || tries=40
    eventually "$tries" has_begun || go_on # the answer with the id was not out yet
    wait "$BEGUN_JOB" || true
    id=$(report id "$(<"$LAB/begun.json")")
    ctl "$FROM" --timeout "$((20 * SLOW))s" cancel "$id" >"$LAB/cancel" 2>&1 &
    job=$!
    if [[ $STALLED == "$FROM" ]]; then
        eventually 20 is_waiting "$FROM" || true
        go_on
    fi
    wait "$job" || code=$?
    go_on
    case $code in
    0) expect_after "$1" yes ;;
    $((64 + STATUS_CODE[FAILED_PRECONDITION]))) expect_after "$1" no ;;
    *) expect_after "$1" "$(<"$LAB/cancel")" ;;
    esac
}

has_heard_cancel() {
    tail -n "+$((LOG_MARK[$FROM] + 1))" "$SHARED/hauld-$FROM.log" | grep -q 'method=/haul.v1.Migrations/Cancel'
}

interrupt_it() {
    local code=0
    on "$FROM" pkill -INT -x haulctl || true
    if [[ $STALLED == "$FROM" ]]; then
        eventually 20 is_waiting "$FROM" || true
    else
        eventually 400 has_heard_cancel || true
    fi
    go_on
    wait "$BEGUN_JOB" || code=$?
    case $code in
    $((64 + STATUS_CODE[CANCELLED]))) expect_after "$1" yes ;;
    0) expect_after "$1" no ;;
    *) expect_after "$1" "$(<"$LAB/begun.err")" ;;
    esac
}

# fault NAME STAGE
fault() {
    NOTE=''
    case $1 in
    kill-from) kill_engines "$FROM" ;;
    kill-to) kill_engines "$TO" ;;
    kill-both) kill_engines "$FROM" "$TO" ;;
    swrk-from) signal_swrk KILL "$FROM" ;;
    swrk-to) signal_swrk KILL "$TO" ;;
    hang-from) signal_swrk STOP "$FROM" ;;
    hang-to) signal_swrk STOP "$TO" ;;
    cancel) cancel_it "$2" ;;
    ctrl-c) interrupt_it "$2" ;;
    cut)
        link_cut
        go_on
        sleep "$AWAY_S"
        link_restore
        ;;
    stop-from) stop_engine "$FROM" ;;
    stop-to) stop_engine "$TO" ;;
    power-from) power_cycle "$FROM" ;;
    power-to) power_cycle "$TO" ;;
    none) go_on ;;
    *) fail "no such fault: $1" ;;
    esac
    link_rate
    stall_forget
}

# --- two at once? ---

# Notes when each copy beats. The copies take turns once: after the first beat at TO none at FROM.
watch_start() {
    python3 - "$SHARED/beats-$FROM/$BEATS" "$SHARED/beats-$TO/$BEATS" "$LAB/watch.stop" "$CLOCKS_DIFFER_MS" \
        >"$LAB/watch" <<'PY' &
import os, sys, time

def read(path):
    try:
        with open(path) as file:
            word, beats, _, at = file.read(256).split()[:4]
        return word, int(beats), int(at.split("=")[1])
    except (OSError, ValueError, IndexError):
        return None

first_path, second_path, stop, clocks_differ = sys.argv[1:]
began = read(second_path)
begin = None
while True:
    is_last = os.path.exists(stop)
    first, second = read(first_path), read(second_path)
    if begin is None and second is not None and second != began:
        begin = second[2]
    if is_last:
        break
    time.sleep(0.01)
for seen in first, second:
    if seen is not None and seen[0] == "CORRUPT":
        print("a copy is corrupt")
if begin is not None and first is not None and first[2] > begin + int(clocks_differ):
    print(f"TWO COPIES: the old one still ran {first[2] - begin} ms after the new one's first beat")
PY
    WATCHER=$!
}

watch_end() {
    touch "$LAB/watch.stop"
    SEEN=''
    wait "$WATCHER" || SEEN="the watcher failed"
    rm -f "$LAB/watch.stop"
    SEEN+=$(<"$LAB/watch")
}

# --- a cell ---

# cells FAULT…: which are to run, STAGE/FAULT[/WORKLOAD] a line: HAUL_CELLS, or with HAUL_FULL=1 all, or SAMPLE.
cells() {
    local stage
    if [[ -n ${HAUL_CELLS:-} ]]; then
        tr ' ' '\n' <<<"$HAUL_CELLS"
    elif [[ ${HAUL_FULL:-} != 1 ]]; then
        printf '%s\n' "${SAMPLE[@]}"
    else
        for stage in "${STAGES[@]}"; do
            printf '%s\n' "${@/#/$stage/}"
        done
    fi
}

move_survivor() {
    local there
    there=$(other "$SURVIVOR")
    STATUS_OF[$PID]=$SHARED/beats-$there/$BEATS
    migrate "$SURVIVOR" "$PID" "$there"
    if [[ $CODE != 0 ]]; then
        echo "a plain migration of the survivor $SURVIVOR to $there: $(message)"
        return
    fi
    eventually 100 grep -q '^ok ' "${STATUS_OF[$PID]}" || echo "no beat at $there"
    (expect_gone "$SURVIVOR" "$PID" && expect_healthy "$there" "$PID") 2>&1 || true
}

has_no_groups() {
    look_around
    [[ -z ${FACTS[A]}${FACTS[B]} ]]
}

# The workload ends; what it leaves must be tidied before the next one.
finish_victim() {
    local host
    for host in A B; do
        on "$host" pkill -KILL -x "$VICTIM" || true
    done
    eventually 60 has_no_groups || printf '%s\n' "${FACTS[@]}" | sed 's/^/after its end: /'
}

# After a failed cell: nothing of it may harm the next.
start_over() {
    local host
    for host in A B; do
        [[ -z ${ENGINE[$host]:-} ]] || engine_kill "$host"
        on "$host" bash -c 'pkill -KILL -x "memory|tree|criu"; sleep 0.2
            for group in "$1"/*/; do echo 1 >"$group/cgroup.kill"; done; sleep 0.2
            find "$1" -mindepth 1 -depth -type d -exec rmdir {} +; rm -rf "$2"/*; true' \
            bash "$CGROUPS" "$STATE_DIR" >/dev/null 2>&1 || true
    done
    link_restore
    link_rate
    stall_forget
    for host in A B; do
        engine_up "$host"
    done
}

log_marks() {
    local host
    for host in A B; do
        LOG_MARK[$host]=$(wc -l <"$SHARED/hauld-$host.log")
    done
}
declare -A LOG_MARK=()

show_logs() {
    local host
    for host in A B; do
        echo "    --- engine $host"
        tail -n "+$((LOG_MARK[$host] + 1))" "$SHARED/hauld-$host.log" | tail -n "${1:-60}" | sed 's/^/    /'
    done
}

cell() {
    local wrong='' started=$EPOCHREALTIME
    log_marks
    victim "$FROM"
    watch_start
    EXPECTED_AT=''
    VOID=''
    BEGIN_FLAGS=(--detach)
    [[ $2 != ctrl-c ]] || BEGIN_FLAGS=()
    if reach "$1"; then
        fault "$2" "$1"
        settled || wrong+="migrations stay open: $(ctl A list --active 2>&1 | tail -n +2)"$'\n'"$(ctl B list --active 2>&1 | tail -n +2)"$'\n'
        survey >"$LAB/survey"
        wrong+=$(<"$LAB/survey")
        if [[ -n $EXPECTED_AT && $SURVIVOR != "$EXPECTED_AT" ]]; then
            ! lease_ran_out "${LOG_MARK[$FROM]}" || VOID=yes
            [[ -n $VOID ]] || wrong+="it is at $SURVIVOR, not at $EXPECTED_AT (cancelled: $CANCELLED)"
        fi
    else
        wrong="the stage was not reached"
    fi
    wait "$BEGUN_JOB" || true
    watch_end
    wrong+=${SEEN:+$'\n'$SEEN}
    [[ -n $wrong || -z $SURVIVOR ]] || wrong+=$(move_survivor)
    [[ -n $wrong ]] || wrong+=$(finish_victim)
    RESULT=${wrong:-ok $SURVIVOR${NOTE:+ ($NOTE)}}
    [[ -z $VOID ]] || RESULT=${wrong:-void: the lease ran out before the user was heard}
    printf '  %-15s %-10s %-7s %5.1f s  %s\n' "$1" "$2" "$VICTIM" "$(awk -v a="$started" -v b="$EPOCHREALTIME" 'BEGIN { print b - a }')" \
        "$RESULT"
    [[ -n $wrong ]] || return 0
    show_logs
    start_over
}
