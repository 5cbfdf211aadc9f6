#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# native_lazy: a workload goes on before its memory is in place. Whoever holds that memory is killed at moments of the
# fill, and at random ones: no page is ever read as zeros (the workloads check themselves), and exactly one copy runs,
# or can be resumed.
# shellcheck source-path=SCRIPTDIR disable=SC2119,SC2120,SC2016,SC2034,SC2317,SC2004
. "$(dirname "$0")/../matrix.sh"

VICTIM_ARGS[memory]="192 5 --incompressible"
VICTIM_ARGS[mappings]="96 1"
VICTIM_CHILDREN[mappings]=0
STAGE_POINT[pre-filling]="to fill:2 restored"
STAGE_POINT[filling]="to fill:3 running"
RECORD[BROKEN]=26

guard_of() {
    on "$1" pgrep -x haul-guard || true
}

kill_guard() {
    local pid
    pid=$(guard_of "$1")
    [[ -n $pid ]] || flunk "no guard on $1"
    # shellcheck disable=SC2086 # one or none
    on "$1" kill -KILL $pid
}

flunk() {
    show_logs >&2
    fail "$PART: $*"
}

# begin PART WORKLOAD: a new one runs at A, and a lazy migration to B begins.
begin() {
    PART=$1
    VICTIM=$2
    log_marks
    victim A
    watch_start
}

# at STAGE: the migration has come that far.
at() {
    reach "$1" || flunk "it did not get that far"
}

# expect_at HOST: there it is whole, one, goes on, and can be migrated again.
expect_at() {
    local wrong
    settled || flunk "migrations stay open: $(ctl A list --active 2>&1) $(ctl B list --active 2>&1)"
    survey >"$LAB/survey"
    [[ ! -s $LAB/survey ]] || flunk "$(<"$LAB/survey")"
    [[ $SURVIVOR == "$1" ]] || flunk "the copy is at $SURVIVOR, not at $1"
    [[ -z $BEGUN_JOB ]] || wait "$BEGUN_JOB" || true
    watch_end
    [[ -z $SEEN ]] || flunk "$SEEN"
    wrong=$(move_survivor)
    [[ -z $wrong ]] || flunk "$wrong"
    wrong=$(finish_victim)
    [[ -z $wrong ]] || flunk "$wrong"
    note "$PART: one whole copy, at $1"
}

is_said() {
    local text
    text=$(ctl "$1" --json list 2>/dev/null)
    [[ $text == *"$2"* ]]
}

# --- what it is for: side by side ---

declare -A RESTORE=()
compare() {
    local mode=$1 mib=$2
    VICTIM_ARGS[memory]="$mib 0 --incompressible"
    PART="$mode, $mib MiB"
    VICTIM=memory
    log_marks
    victim A
    STATUS_OF[$PID]=$SHARED/beats-B/$BEATS
    migrate A "$PID" B --restore "$mode"
    expect_completed
    [[ $(report restore.mode) == "$mode" ]] || flunk "it was restored $(report restore.mode)"
    expect_healthy B "$PID"
    RESTORE[$mode$mib]=$(report criu.restoreMs)
    note "$mode, $mib MiB: downtime $(report downtimeMs) ms, of which restore $(report criu.restoreMs) ms;" \
        "filled in $(report restore.fillMs) ms, $(report restore.lazyFaults) pages waited for"
    finish_victim >/dev/null
    VICTIM_ARGS[memory]="192 5 --incompressible"
}

# --- one of the two dies ---

part_guard_killed() {
    begin "guard killed while the tree runs" memory
    at filling
    kill_guard B
    go_on
    expect_at B
}

part_engine_killed() {
    begin "hauld killed while the tree runs" memory
    at filling
    engine_kill B
    eventually 100 has_no_guard || flunk "the guard does not come to an end"
    beats_go_on B
    engine_up B
    expect_at B
}

has_no_guard() {
    [[ -z $(guard_of B) ]]
}

# Nobody of haul is there, and the workload runs.
beats_go_on() {
    eventually 100 has_advanced "$1" "$(beats "$1")" || flunk "it does not go on at $1 without its hauld"
}

part_engine_killed_before() {
    begin "hauld killed before the commit" memory
    at pre-filling
    engine_kill B
    eventually 100 has_no_guard || flunk "the guard does not come to an end"
    engine_up B
    expect_at A
}

part_guard_killed_before() {
    begin "guard killed before the commit" memory
    at pre-filling
    kill_guard B
    go_on
    expect_at B
}

part_engines_killed() {
    begin "both engines killed while the tree runs" memory
    at filling
    engine_kill A
    engine_kill B
    engine_up A
    engine_up B
    expect_at B
}

part_link_cut() {
    begin "link cut while the tree runs" memory
    at filling
    link_cut
    go_on
    sleep "$AWAY_S"
    link_restore
    expect_at B
}

part_stopped() {
    begin "hauld stops while the tree runs" memory
    at filling
    engine_signal TERM B
    go_on
    eventually 400 is_engine_gone || flunk "hauld does not stop"
    unset "ENGINE[B]"
    engine_up B
    expect_at B
}

is_engine_gone() {
    [[ $(engine_state B) == gone ]]
}

# --- both die: it is killed, the source has the frozen tree, an operator decides ---

is_stalled_again() {
    [[ ! -e $SHARED/stall-B ]] && is_stopped B
}

part_both_killed() {
    begin "guard, then hauld killed while it fills the frozen tree" memory
    at filling
    kill_guard B
    echo "fill 40 restored" >"$SHARED/stall-B"
    go_on
    eventually 200 is_stalled_again || flunk "hauld does not fill on"
    [[ $(process_state B "$PID") == *"frozen 1" ]] || flunk "the tree is not frozen: $(process_state B "$PID")"
    engine_kill B
    [[ $(process_state A "$PID") == *"frozen 1" ]] || flunk "the source does not keep its tree: $(process_state A "$PID")"
    engine_up B
    eventually 200 is_said B LOST || flunk "B does not say that it is lost: $(ctl B list 2>&1)"
    eventually 200 is_said A IN_DOUBT || flunk "A does not say that it is in doubt: $(ctl A list 2>&1)"
    is_said A "killed there" || flunk "A does not say why: $(ctl A --json list)"
    ! facts B | grep -q ^copy || flunk "a copy is left at B"
    ctl A resolve "$(report migrations.0.id "$(ctl A --json list --active)")" --resume --accept-risk >/dev/null ||
        flunk "it cannot be resumed"
    expect_at A
}

# --- events ---

part_events() {
    local i
    for ((i = 0; i < 3; i++)); do
        begin "a tree that forks, moves and drops memory" mappings
        STATUS_OF[$PID]=$SHARED/beats-B/$BEATS
        migrate A "$PID" B --restore lazy
        expect_completed
        BEGUN_JOB=
        note "$PART: downtime $(report downtimeMs) ms, filled in $(report restore.fillMs) ms, $(report notes)"
        expect_at B
    done
}

part_events_guard_killed() {
    begin "such a tree, guard killed" mappings
    at filling
    kill_guard B
    go_on
    expect_at B
}

part_events_engine_killed() {
    begin "such a tree, hauld killed" mappings
    at filling
    engine_kill B
    engine_up B
    expect_at B
}

# --- at any moment ---

# Who dies when: 0 to 400 ms after the whole copy is there.
part_random() {
    local i who
    for ((i = 0; i < ${HAUL_RANDOM_KILLS:-8}; i++)); do
        who=$((RANDOM % 2))
        begin "killed at random: $([[ $who == 0 ]] && echo guard || echo hauld)" "$([[ $((i % 3)) == 2 ]] && echo mappings || echo memory)"
        at pre-restored
        go_on
        sleep "0.$(printf %03d $((RANDOM % 400)))"
        if [[ $who == 0 ]]; then
            on B pkill -KILL -x haul-guard || true
        else
            engine_kill B
            engine_up B
        fi
        settled || flunk "migrations stay open"
        if is_said A IN_DOUBT; then
            flunk "in doubt: $(ctl A list)"
        fi
        survey >"$LAB/survey"
        [[ ! -s $LAB/survey ]] || flunk "$(<"$LAB/survey")"
        expect_at "$SURVIVOR"
    done
}

BEGIN_FLAGS=(--detach --restore lazy)
matrix_start
if [[ -z ${HAUL_PARTS:-} ]]; then
    for mib in 64 512; do
        for mode in eager lazy; do
            compare "$mode" "$mib"
        done
    done
    ((RESTORE[lazy512] * 2 < RESTORE[eager512])) || flunk "a lazy restore is not faster: ${RESTORE[*]} ms"
fi
for part in ${HAUL_PARTS:-guard_killed engine_killed engine_killed_before guard_killed_before engines_killed link_cut \
    stopped both_killed events events_guard_killed events_engine_killed random}; do
    "part_$part"
done
