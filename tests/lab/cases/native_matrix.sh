#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# native_matrix: whatever dies, stops or is cut at whichever stage of a migration, afterwards exactly one
# healthy copy runs and nothing is left behind; never did two run. HAUL_FULL=1: every fault at every stage,
# HAUL_RUNS times (default 1); otherwise a sample that has each fault and each stage.
# HAUL_CELLS="STAGE/FAULT[/WORKLOAD] …" runs those, HAUL_VICTIM is the workload where none is said.
# A cell mostly waits, so HAUL_PAIRS pairs of hosts (default 2) share the cells.
# shellcheck source-path=SCRIPTDIR disable=SC2119,SC2120
. "$(dirname "$0")/../matrix.sh"

SAMPLE=(begun/kill-from reserved/stop-to dump/swrk-from fenced/kill-from/tree pre-committing/stop-from
    committing/cut pre-done/kill-both done/kill-from/tree pre-prepared/kill-to prepared/swrk-to
    restoring/swrk-to/tree pre-restored/kill-both restored/kill-to/tree pre-committed/stop-to
    committed/kill-from pre-settled/cut restoring/cancel dump/ctrl-c committing/cancel fenced/hang-from prepared/hang-to)

# pair NUMBER: a pair of hosts that takes every HAUL_PAIRS-th cell of each run. A line of RESULTS a cell:
# STAGE/FAULT and what came out.
pair() {
    local run i stage fault try
    matrix_start
    for ((run = 0; run < ${HAUL_RUNS:-1}; run++)); do
        RESTART_AFTER_S=$((run % 2 * 2))
        for ((i = $1; i < ${#WANTED[@]}; i += PAIRS)); do
            IFS=/ read -r stage fault VICTIM <<<"${WANTED[i]}"
            VICTIM=${VICTIM:-${HAUL_VICTIM:-memory}}
            for ((try = 0; try < 10; try++)); do
                cell "$stage" "$fault" >"$RESULTS-$1" 2>&1
                cat "$RESULTS-$1" # whole, among those of the other pairs
                [[ -n $VOID ]] || break
            done
            printf '%s %s\n' "$stage/$fault" "${RESULT//$'\n'/; }" >>"$RESULTS"
        done
    done
}

# The worst of a cell's runs stays.
read_results() {
    local name result
    while read -r name result; do
        DONE=$((DONE + 1))
        [[ $result == ok* ]] || FAILED=$((FAILED + 1))
        [[ -n ${TABLE[$name]:-} && ${TABLE[$name]} != ok* ]] || TABLE[$name]=$result
    done <"$RESULTS"
}

print_table() {
    local stage fault text
    printf '%-15s' stage
    printf ' %-11s' "${FAULTS[@]}"
    echo
    for stage in "${STAGES[@]}"; do
        printf '%-15s' "$stage"
        for fault in "${FAULTS[@]}"; do
            text=${TABLE[$stage/$fault]:-.}
            [[ $text == ok* || $text == . ]] || text=FAIL
            printf ' %-11s' "${text/ (no CRIU there)/ -}"
        done
        echo
    done
    echo "(ok and the host where the copy runs; - = there was no CRIU to kill; . = not run)"
}

PAIRS=${HAUL_PAIRS:-2}
mapfile -t WANTED < <(cells "${FAULTS[@]}")
if [[ -n ${MATRIX_PAIR:-} ]]; then
    pair "$MATRIX_PAIR"
    exit
fi
declare -A TABLE=()
FAILED=0
DONE=0
RESULTS=$LAB/results
for ((number = 0; number < PAIRS; number++)); do
    RESULTS=$RESULTS MATRIX_PAIR=$number setpriv --pdeathsig TERM bash "$0" &
    runners[number]=$!
done
for number in "${!runners[@]}"; do
    wait "${runners[number]}" || fail "a pair of hosts ended early: $(cat "$RESULTS-$number")"
done
read_results
print_table
for one in "${!TABLE[@]}"; do
    [[ ${TABLE[$one]} == ok* ]] || printf '%s: %s\n' "$one" "${TABLE[$one]}"
done
note "$DONE cells, $FAILED failed"
((FAILED == 0)) || fail "$FAILED of $DONE"
((DONE == ${#WANTED[@]} * ${HAUL_RUNS:-1})) || fail "only $DONE cells ran"
