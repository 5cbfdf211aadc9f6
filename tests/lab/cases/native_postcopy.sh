#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# native_postcopy: a workload goes on at its destination before its memory has left the source. The time until it
# does, content afterwards, the link cut while it is fetched, each hauld and the guard killed then, the source
# stopped. The workloads check themselves: no page is ever read as zeros, and exactly one copy runs. HAUL_FULL=1:
# all parts; otherwise a sample.
# shellcheck source-path=SCRIPTDIR disable=SC2119,SC2120,SC2016,SC2034,SC2317,SC2004
. "$(dirname "$0")/../matrix.sh"

SLOW_MBIT=250 # 192 MiB take 6 s
CRAWL_MBIT=40
VICTIM_ARGS[memory]="192 5 --incompressible"
VICTIM_ARGS[mappings]="96 1"
VICTIM_CHILDREN[mappings]=0
RECORD[BROKEN]=26

guard_of() {
    on "$1" pgrep -x haul-guard || true
}

has_no_guard() {
    [[ -z $(guard_of B) ]]
}

kill_guard() {
    local pid
    pid=$(guard_of B)
    [[ -n $pid ]] || flunk "no guard"
    # shellcheck disable=SC2086 # one or none
    on B kill -KILL $pid
}

flunk() {
    show_logs >&2
    fail "$PART: $*"
}

shown() {
    report "$1" "$(ctl "${2:-A}" --json show "$ID" 2>/dev/null)"
}

# begin PART WORKLOAD [FLAG…]: a new one runs at A, and a migration to B begins over a narrow link.
begin() {
    PART=$1
    VICTIM=$2
    log_marks
    victim A
    watch_start
    WATCHED=1
    link_rate "$SLOW_MBIT"
    ID=$(report id "$(ctl A --json migrate "pid:$PID" --to "$(url B)" --detach "${@:3}")")
    [[ -n $ID ]] || flunk "it did not begin"
}

# It runs at B, and a part of its memory is there.
is_fetching() {
    local late missing
    late=$(shown restore.latePages)
    missing=$(shown restore.lateMissing)
    ((${missing:-0} > 0 && ${missing:-0} < ${late:-0} * ${1:-95} / 100))
}

# What is left then takes long, whatever else the machine has to do.
await_fetching() {
    eventually 600 is_fetching "$@" || flunk "it does not come to be fetched: $(ctl A show "$ID")"
    link_rate "$CRAWL_MBIT"
    note "$PART: $(shown restore.lateMissing) of $(shown restore.latePages) pages are missing"
}

# Until now. What an operator lets run after it has run elsewhere is not looked at.
seen_no_two() {
    [[ $WATCHED == 1 ]] || return 0
    WATCHED=0
    watch_end
    [[ -z $SEEN ]] || flunk "$SEEN"
}

# expect_at HOST: there it is whole, one, goes on, and can be migrated again.
expect_at() {
    local wrong
    link_rate
    settled || flunk "migrations stay open: $(ctl A list --active 2>&1) $(ctl B list --active 2>&1)"
    survey >"$LAB/survey"
    [[ ! -s $LAB/survey ]] || flunk "$(<"$LAB/survey")"
    [[ $SURVIVOR == "$1" ]] || flunk "the copy is at $SURVIVOR, not at $1"
    seen_no_two
    wrong=$(move_survivor)
    [[ -z $wrong ]] || flunk "$wrong"
    wrong=$(finish_victim)
    [[ -z $wrong ]] || flunk "$wrong"
    note "$PART: one whole copy, at $1; $(shown restore.lateFaults) pages on demand"
}

is_said() {
    [[ $(ctl "$1" --json list 2>/dev/null) == *"$2"* ]]
}

beats_go_on() {
    eventually 100 has_advanced "$1" "$(beats "$1")" || flunk "it does not go on at $1"
}

is_frozen_at() {
    [[ $(process_state "$1" "$PID") == *"frozen 1" ]]
}

# --- what it is for ---

declare -A DOWN=()
measure() {
    local mode=$1 mib=$2
    PART="$mode, $mib MiB"
    VICTIM=memory
    VICTIM_ARGS[memory]="$mib 0 --incompressible ${*:3}"
    log_marks
    victim A
    STATUS_OF[$PID]=$SHARED/beats-B/$BEATS
    migrate A "$PID" B --mode "$mode"
    expect_completed
    ID=$(report id)
    expect_healthy B "$PID"
    [[ $(report mode) == "$mode" ]] || flunk "its mode is $(report mode)"
    DOWN[$mode$mib]=$(report downtimeMs)
    note "$PART: downtime $(report downtimeMs) ms (dump $(report criu.freezeMs), restore $(report criu.restoreMs));" \
        "$(report restore.latePages) pages fetched in $(report restore.fillMs) ms, $(report restore.lateFaults) on demand"
    [[ $mode != post-copy ]] || (($(report restore.latePages) >= mib * 250)) || flunk "its memory was sent before"
    [[ $(report restore.lateMissing) == 0 ]] || flunk "pages are missing"
    finish_victim >/dev/null
    VICTIM_ARGS[memory]="192 5 --incompressible"
}

part_measure() {
    local mib mode
    for mib in 64 ${HAUL_BIG_MIB:-256}; do
        for mode in ${HAUL_MODES:-stop-copy post-copy hybrid}; do
            measure "$mode" "$mib"
        done
    done
}

# CRIU takes all of its memory for stack, and sends it as what cannot stay behind.
part_stack() {
    measure post-copy 32 --page-stack
}

part_plain() {
    begin "over a narrow link" memory --mode post-copy
    await_fetching
    beats_go_on B
    expect_at B
}

part_hybrid() {
    begin "hybrid" memory --mode hybrid
    expect_at B
}

part_on_timeout() {
    begin "no freeze in time" memory --max-downtime 20ms --max-rounds 2 --on-timeout post-copy
    expect_at B
    [[ $(shown notes) == *"--on-timeout post-copy"* ]] || flunk "it was not a post-copy: $(ctl A --json show "$ID")"
    (($(shown restore.latePages) > 0)) || flunk "nothing was left behind: $(ctl A --json show "$ID")"
}

# What does not go together is refused before anything is done.
part_refused() {
    PART=refused
    VICTIM=memory
    victim A
    migrate A "$PID" B --mode post-copy --restore eager
    expect_refused INVALID_ARGUMENT
    migrate A "$PID" B --mode hybrid --no-precopy
    expect_refused INVALID_ARGUMENT
    STATUS_OF[$PID]=$SHARED/beats-A/$BEATS
    expect_healthy A "$PID"
    ! ctl A recover 0123456789abcdef 2>/dev/null || flunk "a migration that is not there is recovered"
    finish_victim >/dev/null || true
}

# --- the link ---

is_paused() {
    [[ $(shown stage B) == paused ]]
}

part_cut() {
    begin "link cut while it is fetched" memory --mode post-copy
    await_fetching
    link_cut
    eventually 500 is_said A POST_COPY_PAUSED || flunk "A does not say that it waits: $(ctl A --json list)"
    eventually 200 is_paused || flunk "B does not say it: $(ctl B list)"
    is_frozen_at A || flunk "the source does not keep its tree"
    link_restore
    ctl A recover "$ID" >/dev/null || flunk "it cannot be recovered"
    expect_at B
}

# --- who dies ---

part_guard_killed() {
    begin "guard killed while it is fetched" memory --mode post-copy
    await_fetching
    kill_guard
    expect_at B
}

part_to_killed() {
    begin "the destination's hauld killed while it is fetched" memory --mode post-copy
    await_fetching
    engine_kill B
    eventually 100 is_frozen_at B || flunk "the guard does not freeze it: $(process_state B "$PID")"
    engine_up B
    expect_at B
}

part_from_killed() {
    begin "the source's hauld killed while it is fetched" memory --mode post-copy
    await_fetching
    engine_kill A
    engine_up A
    expect_at B
}

part_both_killed() {
    begin "both killed while it is fetched" memory --mode post-copy
    await_fetching
    engine_kill A
    engine_kill B
    engine_up B
    engine_up A
    expect_at B
}

part_from_stopped() {
    begin "the source's hauld ends while it is fetched" memory --mode post-copy
    await_fetching
    engine_stop A
    is_frozen_at A || flunk "the source does not keep its tree"
    engine_up A
    expect_at B
}

part_holders_killed() {
    begin "guard and hauld killed" memory --mode post-copy
    await_fetching
    kill_guard
    eventually 100 is_frozen_at B || flunk "hauld, alone, does not freeze it: $(process_state B "$PID")"
    engine_kill B
    engine_up B
    eventually 200 is_said B LOST || flunk "B does not say that it is lost: $(ctl B list 2>&1)"
    eventually 200 is_said A IN_DOUBT || flunk "A does not say that it is in doubt: $(ctl A list 2>&1)"
    seen_no_two
    ctl A resolve "$ID" --resume --accept-risk >/dev/null || flunk "it cannot be resumed"
    expect_at A
}

# The source's tree is gone: as after a restart of its machine.
part_source_lost() {
    begin "the source's tree killed while it is fetched" memory --mode post-copy
    await_fetching
    on A bash -c 'echo 1 >"$1"/cgroup.kill' bash "$CGROUPS/out-$ID"
    eventually 200 is_said B PAGES_LOST || flunk "B does not say that pages are lost: $(ctl B --json list)"
    is_frozen_at B || flunk "B lets it run: $(process_state B "$PID")"
    ! ctl B resolve "$ID" --resume --accept-risk 2>/dev/null || flunk "it can be resumed"
    ctl B resolve "$ID" --kill --accept-risk >/dev/null || flunk "it cannot be ended"
    eventually 200 is_said A LOST || flunk "A does not say that it is lost: $(ctl A list)"
    settled || flunk "migrations stay open"
    ! facts A | grep -q ^copy || flunk "a copy is left at A"
    ! facts B | grep -q ^copy || flunk "a copy is left at B"
    seen_no_two
    link_rate
    note "$PART: said so, ended by an operator"
}

# --- a tree that changes its mappings meanwhile ---

part_events() {
    begin "a tree that forks, moves and drops memory" mappings --mode post-copy
    await_fetching
    link_rate "$SLOW_MBIT"
    beats_go_on B
    expect_at B
}

part_events_cut() {
    begin "such a tree, link cut" mappings --mode post-copy
    await_fetching
    link_cut
    sleep 2
    link_restore
    expect_at B
}

part_events_killed() {
    begin "such a tree, the destination's hauld killed" mappings --mode post-copy
    await_fetching
    engine_kill B
    engine_up B
    expect_at B
}

# --- at any moment ---

is_process_gone() {
    ! on "$1" kill -0 "$2" 2>/dev/null
}

# A process that is killed may hold its journal for a moment longer.
restart() {
    local pid=${ENGINE[$1]}
    engine_kill "$1"
    eventually 100 is_process_gone "$1" "$pid" || flunk "the engine of $1 does not end"
    engine_up "$1"
}

strike() {
    case $1 in
    guard) on B pkill -KILL -x haul-guard || true ;;
    from) restart A ;;
    to) restart B ;;
    both)
        engine_kill A
        engine_kill B
        engine_up A
        engine_up B
        ;;
    cut)
        link_cut
        sleep 1
        link_restore
        ;;
    esac
}

# Who dies when: 0 to 2 s after the migration began.
part_random() {
    local i who whos=(guard from to both cut)
    for ((i = 0; i < ${HAUL_RANDOM_KILLS:-3}; i++)); do
        who=${whos[i % 5]}
        begin "at random: $who" "$([[ $((i % 3)) == 2 ]] && echo mappings || echo memory)" \
            --mode "$([[ $((i % 2)) == 0 ]] && echo post-copy || echo hybrid)"
        sleep "$((RANDOM % 2)).$(printf %03d $((RANDOM % 1000)))"
        strike "$who"
        link_rate
        settled || flunk "migrations stay open: $(ctl A list --active 2>&1) $(ctl B list --active 2>&1)"
        ! is_said A IN_DOUBT || flunk "in doubt: $(ctl A list)"
        survey >"$LAB/survey"
        [[ ! -s $LAB/survey ]] || flunk "$(<"$LAB/survey")"
        expect_at "$SURVIVOR"
    done
}

matrix_start
parts="stack plain hybrid guard_killed to_killed from_killed"
[[ ${HAUL_FULL:-} != 1 ]] || parts="measure $parts events on_timeout refused cut both_killed from_stopped holders_killed source_lost \
    events_cut events_killed random"
for part in ${HAUL_PARTS:-$parts}; do
    "part_$part"
done
