#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# guests_power: one of two machines loses its power at whichever stage of a migration, and is booted again.
# The workload then runs in at most one place, and in exactly one when the machine that held the copy of
# record lived on. HAUL_FULL=1: each stage and each side, HAUL_RUNS times (default 1); otherwise a sample.
# HAUL_CELLS="STAGE/power-from|power-to[/WORKLOAD] …" runs those.
# shellcheck source-path=SCRIPTDIR disable=SC2034,SC2119,SC2120
. "$(dirname "$0")/../matrix.sh"

# A copy that is held must outlast a boot.
TIMERS=(--lease 30s --criu-timeout 120s --hold-restored 10m --hold-images 500ms)
CLOCKS_DIFFER_MS=2000
VICTIM_ARGS[memory]="4 2 --incompressible"
# A command in a guest takes half a second on a busy machine: the final dump must take far longer.
LINK_SLOW_MBIT=2

# What docs/safety.md promises: WHILE/AFTER of a power-off of A (the source) and of B. WHILE: where the workload
# runs as long as that machine is off, "-" for nowhere (it is held, or lost); AFTER: where it runs
# once the machine and its engine are back; "-": it was on the machine that died.
declare -A PROMISE=(
    # Before the destination is whole, the source has the only copy.
    [begun]="-/- A/A" [reserved]="-/- A/A" [pre-prepared]="-/- A/A" [prepared]="-/- A/A"
    [dump]="-/- A/A" [fenced]="-/- A/A"
    # Two whole copies, both frozen, and no Commit: the machine that lives on has one.
    [restoring]="-/B A/A" [pre-restored]="-/B A/A" [restored]="-/B A/A"
    # The source has, or will have, said Commit to nobody: in doubt until B is back without its copy.
    [pre-committing]="-/B -/A" [committing]="-/B -/A"
    # The destination commits as soon as it goes on; without having committed it has no copy any more.
    [pre-committed]="B/B -/A"
    # Committed: the destination has the only copy.
    [committed]="B/B -/-" [pre-done]="B/B -/-" [done]="B/B -/-" [pre-settled]="B/B -/-"
)
SAMPLE=(fenced/power-to restored/power-from committing/power-to)

# promised STAGE FAULT: sets WHILE and AFTER.
promised() {
    local from to
    read -r from to <<<"${PROMISE[$1]}"
    [[ $2 == power-from ]] && to=$from
    WHILE=${to%/*}
    AFTER=${to#*/}
    COPIES=1
    [[ $AFTER != - ]] || COPIES=0
}

advances() {
    has_advanced "$1" "$(beats "$1")"
}

# The other machine has had a whole boot's time to come to rest.
check_while() {
    local before
    if [[ $WHILE != - ]]; then
        eventually 100 advances "$WHILE" || WRONG="it does not run on $WHILE while $1 is off"
        return
    fi
    before="$(beats A) $(beats B)"
    sleep 2
    [[ "$(beats A) $(beats B)" == "$before" ]] || WRONG="it runs while $1 is off"
}

power_cycle() {
    power_off "$1"
    unset "ENGINE[$1]"
    [[ $STALLED == "$1" ]] || go_on
    power_on "$1"
    check_while "$1"
    beats_mount "$1"
    engine_up "$1"
}

# Like the matrix's cell, with what is promised. Sets RESULT.
power_cell() {
    local started=$EPOCHREALTIME
    promised "$1" "$2"
    WRONG=''
    log_marks
    guest_clock A
    guest_clock B
    victim A
    watch_start
    if reach "$1"; then
        fault "$2"
        settled || WRONG+="; migrations stay open: $(ctl A list --active 2>&1) $(ctl B list --active 2>&1)"
        survey >"$LAB/survey"
        WRONG+=$(<"$LAB/survey")
        [[ ${SURVIVOR:--} == "$AFTER" ]] || WRONG+="; it is on ${SURVIVOR:-no host}, not on $AFTER"
    else
        WRONG="the stage was not reached"
    fi
    wait "$BEGUN_JOB" || true
    watch_end
    WRONG+=$SEEN
    # The next cell tells whether these engines can still move a tree.
    [[ -n $WRONG ]] || WRONG+=$(finish_victim)
    RESULT=${WRONG:-$WHILE $AFTER}
    printf '  %-15s %-10s %-7s %5.1f s  %s\n' "$1" "$2" "$VICTIM" "$(seconds_since "$started")" "$RESULT"
    [[ -n $WRONG ]] || return 0
    FAILED=$((FAILED + 1))
    show_logs
    start_over
}

seconds_since() {
    awk -v a="$1" -v b="$EPOCHREALTIME" 'BEGIN { print b - a }'
}

print_table() {
    local stage
    printf '%-15s %-25s %-25s\n' stage "A off: while, after" "B off: while, after"
    for stage in "${STAGES[@]}"; do
        printf '%-15s %-25s %-25s\n' "$stage" "${TABLE[$stage/power-from]:-.}" "${TABLE[$stage/power-to]:-.}"
    done
    echo "(the host on which it runs; - = on none, as promised; . = not run)"
}

declare -A TABLE=()
FAILED=0
mapfile -t wanted < <(cells power-from power-to)
matrix_start
for ((run = 0; run < ${HAUL_RUNS:-1}; run++)); do
    for one in "${wanted[@]}"; do
        IFS=/ read -r stage fault VICTIM <<<"$one"
        VICTIM=${VICTIM:-${HAUL_VICTIM:-memory}}
        power_cell "$stage" "$fault"
        [[ -z $WRONG ]] || RESULT=FAIL
        [[ ${TABLE[$stage/$fault]:-} == FAIL ]] || TABLE[$stage/$fault]=$RESULT
    done
done
print_table
note "${#wanted[@]} cells, ${HAUL_RUNS:-1} times, $FAILED failed"
((FAILED == 0)) || fail "$FAILED failed"
