#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# native_soak: one workload goes back and forth, every other time with a random fault at a random stage; then
# the engines must be no larger than before. HAUL_MIGRATIONS of them (default 12; HAUL_FULL=1: 200).
# In the first half faults also kill engines; in the second the same two engines live through all of it.
# HAUL_SEED repeats a run.
# shellcheck source-path=SCRIPTDIR disable=SC2119,SC2120,SC2016,SC2034
. "$(dirname "$0")/../matrix.sh"

[[ ${HAUL_FULL:-} == 1 ]] && COUNT=${HAUL_MIGRATIONS:-200} || COUNT=${HAUL_MIGRATIONS:-12}
SEED=${HAUL_SEED:-$((SRANDOM % 1000000))}
RANDOM=$SEED
GENTLE=(swrk-from swrk-to cut stop-from stop-to)
NAMES=(fds threads rss_kib cgroups tables disk_kib processes)
# What each may grow by. The journal is compacted, and the reports of the last LIMIT_HISTORY migrations are
# kept: neither counts. Descriptors: an idle connection to the other engine. Memory: each migration has threads
# of its own, and the allocator keeps what was once needed in each of its arenas (8 a core at most, 2 MiB): that
# grows ever more slowly, a leak of 256 KiB does not.
MORE=(2 2 $((COUNT > 50 ? 24576 : 12288)) 0 0 64 0)

pick() {
    local -n from=$1
    PICKED=${from[RANDOM % ${#from[@]}]}
}

figures() {
    on "$1" bash -c '
        ls "/proc/$1/fd" | wc -l
        ls "/proc/$1/task" | wc -l
        sed -n "s/^VmRSS:[^0-9]*\([0-9]*\).*/\1/p" "/proc/$1/status"
        find "$2" -mindepth 1 -type d | wc -l
        nft list tables | wc -l
        du -sk --exclude=journal --exclude=history "$3" | cut -f1
        pgrep -cx "hauld|criu|memory|tree"' bash "${ENGINE[$1]}" "$CGROUPS" "$STATE_DIR"
}

# One migration from where it runs, with a fault or without. Sets WRONG.
one() {
    local faults=$1 stage='' fault=''
    WRONG=''
    log_marks
    FROM=$SURVIVOR
    TO=$(other "$SURVIVOR")
    # A new run of the copy there may not be taken for an old one.
    truncate -s 0 "$SHARED/beats-$TO/$BEATS"
    truncate -s 256 "$SHARED/beats-$TO/$BEATS"
    watch_start
    if ((RANDOM % 2 == 0)); then
        pick STAGES
        stage=$PICKED
        pick "$faults"
        fault=$PICKED
        moment "$stage" || WRONG="the stage was not reached"
        fault "$fault" "$stage"
        wait "$BEGUN_JOB" || true
    else
        migrate "$FROM" "$PID" "$TO"
        [[ $CODE == 0 ]] || WRONG="a plain migration: $(message)"
    fi
    settled || WRONG+=" migrations stay open"
    survey >"$LAB/survey"
    WRONG+=$(<"$LAB/survey")
    watch_end
    WRONG+=$SEEN
    note "$((++DONE)): $FROM to $TO ${stage:-plain} $fault: ${WRONG:-runs on $SURVIVOR}"
    [[ -z $WRONG ]] || { show_logs; fail "seed $SEED, migration $DONE: $WRONG"; }
}

home() {
    [[ $SURVIVOR == A ]] || {
        migrate B "$PID" A
        expect_completed
        SURVIVOR=A
    }
    survey >"$LAB/survey"
    [[ ! -s $LAB/survey ]] || fail "$(<"$LAB/survey")"
}

# What grew too much; connections and images take a moment to go.
grown() {
    local i grown
    mapfile -t AFTER_A < <(figures A)
    mapfile -t AFTER_B < <(figures B)
    GROWN=''
    for i in "${!NAMES[@]}"; do
        for grown in $((AFTER_A[i] - BEFORE_A[i])) $((AFTER_B[i] - BEFORE_B[i])); do
            ((grown <= MORE[i])) || GROWN+=" ${NAMES[i]} by $grown"
        done
    done
    [[ -z $GROWN ]]
}

print_figures() {
    local i
    printf '  %-10s %10s %10s %10s %10s\n' '' "A before" "A after" "B before" "B after"
    for i in "${!NAMES[@]}"; do
        printf '  %-10s %10s %10s %10s %10s\n' "${NAMES[i]}" "${BEFORE_A[i]}" "${AFTER_A[i]}" \
            "${BEFORE_B[i]}" "${AFTER_B[i]}"
    done
}

DONE=0
echo "  seed $SEED"
matrix_start
victim A
SURVIVOR=A
for ((i = 0; i < COUNT / 2; i++)); do
    one FAULTS
done
# Warm: what is made once is there.
for ((i = 0; i < 2; i++)); do
    migrate "$SURVIVOR" "$PID" "$(other "$SURVIVOR")"
    expect_completed
    SURVIVOR=$(other "$SURVIVOR")
done
home
mapfile -t BEFORE_A < <(figures A)
mapfile -t BEFORE_B < <(figures B)
for ((i = COUNT / 2; i < COUNT; i++)); do
    one GENTLE
done
home
eventually 100 grown || true
print_figures
[[ -z $GROWN ]] || fail "seed $SEED: grown:$GROWN"
