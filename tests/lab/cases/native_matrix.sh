#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# native_matrix: whatever dies, stops or is cut at whichever stage of a migration, afterwards exactly one
# healthy copy runs and nothing is left behind; never did two run. HAUL_FULL=1: every fault at every stage,
# HAUL_RUNS times (default 1; ten minutes each: HAUL_CASE_TIMEOUT=900); otherwise a sample that has each fault and each stage.
# HAUL_CELLS="STAGE/FAULT[/WORKLOAD] …" runs those, HAUL_VICTIM is the workload where none is said.
# shellcheck source-path=SCRIPTDIR disable=SC2119,SC2120
. "$(dirname "$0")/../matrix.sh"

SAMPLE=(begun/kill-from reserved/stop-to dump/swrk-from fenced/kill-from/tree pre-committing/stop-from
    committing/cut pre-done/kill-both done/kill-from/tree pre-prepared/kill-to prepared/swrk-to
    restoring/swrk-to/tree pre-restored/kill-both restored/kill-to/tree pre-committed/stop-to
    committed/kill-from pre-settled/cut)

cells() {
    local stage fault
    if [[ -n ${HAUL_CELLS:-} ]]; then
        tr ' ' '\n' <<<"$HAUL_CELLS"
    elif [[ ${HAUL_FULL:-} != 1 ]]; then
        printf '%s\n' "${SAMPLE[@]}"
    else
        for stage in "${STAGES[@]}"; do
            for fault in "${FAULTS[@]}"; do
                echo "$stage/$fault"
            done
        done
    fi
}

# The worst of a cell's runs stays.
note_result() {
    [[ $RESULT == ok* ]] || FAILED=$((FAILED + 1))
    [[ -n ${TABLE[$1]:-} && ${TABLE[$1]} != ok* ]] && return
    TABLE[$1]=$RESULT
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

declare -A TABLE=()
FAILED=0
DONE=0
mapfile -t wanted < <(cells)
matrix_start
for ((run = 0; run < ${HAUL_RUNS:-1}; run++)); do
    RESTART_AFTER_S=$((run % 2 * 2))
    for one in "${wanted[@]}"; do
        IFS=/ read -r stage fault VICTIM <<<"$one"
        VICTIM=${VICTIM:-${HAUL_VICTIM:-memory}}
        cell "$stage" "$fault"
        DONE=$((DONE + 1))
        note_result "$stage/$fault"
    done
done
print_table
for one in "${!TABLE[@]}"; do
    [[ ${TABLE[$one]} == ok* ]] || printf '%s: %s\n' "$one" "${TABLE[$one]}"
done
note "$DONE cells, $FAILED failed"
((FAILED == 0)) || fail "$FAILED of $DONE"
