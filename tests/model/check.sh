#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# check.sh: checks commit.pml under bounded faults, then that the model would notice: each mutant breaks
# one rule of the protocol and must be caught.
#
# usage: check.sh [WORKDIR]     HAUL_FULL=1: larger bounds
set -euo pipefail
shopt -s inherit_errexit

MODEL=$(dirname "$(realpath "${BASH_SOURCE[0]}")")/commit.pml
WORK=${1:-}
if [[ -z $WORK ]]; then
    WORK=$(mktemp -d)
    trap 'rm -rf "$WORK"' EXIT
fi
mkdir -p "$WORK"
WORK=$(realpath "$WORK")
for tool in spin gcc; do
    command -v "$tool" >/dev/null || { echo "skipped: no $tool here" >&2; exit 77; }
done

# run KIND DIR MODEL DEFINES…: builds and runs the verifier in a new directory; its figures are in DIR/out, an error's
# way in DIR/trail. True: no error found.
run() {
    local kind=$1 dir=$2 model=$3
    shift 3
    rm -rf "$dir"
    mkdir "$dir"
    cd "$dir"
    # Compiling takes longer than searching, unless the bounds are large.
    local -a compile=(-O0 -w -DVECTORSZ=256) verify=(-n -m200000 -w22)
    [[ ${HAUL_FULL:-} == 1 && $model == "$MODEL" ]] && compile[0]=-O2
    case $kind in
    safety) compile+=(-DSAFETY) ;;
    liveness) set -- "$@" -DLIVENESS; compile+=(-DNFAIR=3); verify+=(-a -f) ;;
    esac
    spin "$@" -a "$model" >spin.out || { cat spin.out >&2; exit 2; }
    gcc "${compile[@]}" -o pan pan.c
    ./pan "${verify[@]}" >out 2>&1 || { cat out >&2; exit 2; }
    if grep -q 'max search depth too small\|out of memory' out; then
        echo "the search was cut short" >&2
        exit 2
    fi
    if compgen -G '*.trail' >/dev/null; then
        spin -k ./*.trail -p -g "$@" "$model" >trail 2>&1 || true
        return 1
    fi
}

# One check, in a process of its own: "holds KIND DEFINES…", the model as it is keeps its promises, or "caught
# KIND DEFINES NAME SED", with one rule broken it does not.
one() {
    local number=$1 what=$2 kind=$3
    local dir=$WORK/$number
    shift 3
    if [[ $what == holds ]]; then
        if run "$kind" "$dir" "$MODEL" "$@"; then
            printf 'holds   %-8s %9s states  %s\n' "$kind" \
                "$(sed -n 's/^ *\([0-9.e+]*\) states, stored.*/\1/p' out)" "$*"
            return
        fi
        tail -n 120 "$dir/trail"
        echo "BROKEN  $kind $*: the trail's end is above"
        return 1
    fi
    local defines=$1 name=$2 mutant=$WORK/$number.pml
    sed -E "$3" "$MODEL" >"$mutant"
    if cmp -s "$MODEL" "$mutant"; then
        echo "mutant \"$name\" changes nothing: its pattern is out of date"
        return 1
    fi
    # shellcheck disable=SC2086 # defines are words
    if run "$kind" "$dir" "$mutant" $defines; then
        echo "NOT CAUGHT: $name"
        return 1
    fi
    printf 'caught  %-8s %s\n' "$kind" "$name"
}

# As many at a time as there are processors.
STARTED=0 MUTANTS=0 FAILED=0
start() {
    if ((STARTED >= $(nproc))); then
        wait -n || FAILED=$((FAILED + 1))
        STARTED=$((STARTED - 1))
    fi
    NUMBER=$((${NUMBER:-0} + 1))
    one "$NUMBER" "$@" &
    STARTED=$((STARTED + 1))
}
holds() { start holds "$@"; }
caught() {
    MUTANTS=$((MUTANTS + 1))
    start caught "$@"
}

holds safety -DCRASHES=1 -DPOWER=1 -DKILLS=1
holds safety -DCRASHES=2 -DPOWER=1
holds safety -DCRASHES=1 -DPOWER=1 -DSHORT_HOLD=1
holds safety -DCRASHES=1 -DPOWER=1 -DJFAIL=1
holds safety -DCRASHES=1 -DPOWER=0 -DLOSE=1
holds safety -DCRASHES=1 -DPOWER=1 -DLAZY=1 -DGKILLS=1
holds liveness -DCRASHES=1 -DPOWER=1
holds liveness -DCRASHES=1 -DPOWER=0 -DLAZY=1 -DGKILLS=1
holds liveness -DCRASHES=1 -DPOWER=0 -DJFAIL=1
if [[ ${HAUL_FULL:-} == 1 ]]; then
    holds safety -DCRASHES=3 -DPOWER=2 -DKILLS=2
    holds safety -DCRASHES=2 -DPOWER=2 -DJFAIL=2
    holds safety -DCRASHES=2 -DPOWER=1 -DKILLS=1 -DSHORT_HOLD=1
    holds safety -DCRASHES=2 -DPOWER=1 -DLOSE=1
    holds liveness -DCRASHES=2 -DPOWER=2 -DKILLS=1
    holds liveness -DCRASHES=2 -DPOWER=1 -DJFAIL=2
fi

ONE='-DCRASHES=1 -DPOWER=1'
# What must be durable.
caught safety "$ONE" "COMMITTING is not journaled before Commit leaves" 's/s_write\(COMMITTING, ok\)/ok = true/'
caught safety "$ONE" "RESUMED is not journaled" 's/s_write\(RESUMED, ok\)/ok = true/'
caught safety "$ONE" "RESUMED is lost by a power cut (no fsync)" \
    's|/\* FSYNC S \*/|if :: sj == RESUMED -> sj = FENCED :: else -> skip fi;|'
caught safety "$ONE" "DONE is journaled before the destination answers" \
    's/at == AT_COMMIT_SEND -> /at == AT_COMMIT_SEND -> sj = DONE; /'
caught safety "$ONE" "COMMITTED is not journaled" 's/d_write\(COMMITTED, d_ok\)/d_ok = true/'
caught safety "$ONE" "COMMITTED is lost by a power cut (no fsync)" \
    's|/\* FSYNC D \*/|if :: dj == COMMITTED -> dj = RESTORED :: else -> skip fi;|'
caught safety "$ONE" "the copy is thawed before COMMITTED is journaled" \
    's/d_write\(COMMITTED, d_ok\)/d_ok = true; dt = RUNS; d_ran = true/; s/d_at == D_THAW ->/d_at == D_THAW -> dj = COMMITTED;/'
# The fences.
caught safety "$ONE" "no fence: the tree runs when its tracer dies" 's|\:\: st == HELD -> st = RUNS; ran_on = true :: else -> skip fi /\* FENCE \*/|:: st >= HELD \&\& st <= FROZEN -> st = RUNS; ran_on = true :: else -> skip fi|'
caught safety "$ONE" "no fence at the destination: the restored tree runs at once" 's/dt = FROZEN; d_at = D_RESTORED/dt = RUNS; d_at = D_RESTORED/'
caught liveness "$ONE" "the source's tree is not killed at the end" 's/at == AT_KILL -> st = GONE;/at == AT_KILL -> /'
# Asking.
caught safety "$ONE" "no answer to Commit resumes" 's|at = AT_ASK /\* NO ANSWER \*/|at = AT_RESUME|'
caught safety "$ONE" "no answer to Query resumes" 's|at = AT_ASK /\* VERDICT NOTHING \*/|at = AT_RESUME|'
caught safety "$ONE" "no answer to Commit is taken for committed" 's|at = AT_ASK /\* NO ANSWER \*/|at = AT_FINISH|'
caught safety "-DCRASHES=1 -DPOWER=0 -DLOSE=1" "\"unknown\" is taken for aborted" 's|at = AT_ASK /\* VERDICT UNKNOWN \*/|at = AT_RESUME|'
caught safety "$ONE" "\"restored\" is taken for aborted" 's|s_call\(COMMIT, AT_COMMIT_AGAIN_CALL\) /\* VERDICT RESTORED \*/|at = AT_RESUME|'
caught safety "$ONE" "a source whose tree is gone gives up a whole copy" \
    's|s_call\(COMMIT, AT_COMMIT_AGAIN_CALL\) /\* VERDICT RESTORED \*/|if :: tree_exists -> s_call(COMMIT, AT_COMMIT_AGAIN_CALL) :: !tree_exists -> s_call(ABORT, AT_ABORT_FIRST_CALL) fi|'
caught safety "$ONE" "a new hauld resumes without asking" 's/is_committing = \(sj >= COMMITTING\)/is_committing = false/'
caught safety "$ONE" "a new hauld kills without asking" 's/:: !is_final\(sj\) -> is_committing = \(sj >= COMMITTING\); at = AT_ASK/:: !is_final(sj) -> st = GONE; at = AT_OVER/'
caught safety "$ONE" "Query answers \"aborted\" while it may still commit" 's/dj == RESTORED -> d_reply\(QUERY, SAYS_RESTORED\)/dj == RESTORED -> d_reply(QUERY, SAYS_ABORTED)/'
caught liveness "$ONE" "the source asks once only" 's|at = AT_ASK /\* VERDICT NOTHING \*/|at = AT_OVER|'
caught liveness "$ONE" "a tree that is gone before any dump is asked for" 's/define may_be_there \(sj >= FENCED\)/define may_be_there (sj >= RESERVED)/'
# The destination.
caught safety "$ONE" "Abort undoes a commit" \
    's|:: is_committed\(dj\) -> d_reply\(ABORT, SAYS_COMMITTED\) /\* ABORT TOO LATE \*/|:: is_committed(dj) -> d_give_up(ABORT, SAYS_ABORTED)|'
caught safety '-DCRASHES=0 -DPOWER=0 -DKILLS=1' "Commit does not look whether the copy is whole" \
    's/:: dj == RESTORED && dt == FROZEN && !d_broken ->/:: dj == RESTORED \&\& !d_broken ->/'
caught liveness "$ONE" "an abort leaves the copy" '/d_at == D_KILL ->/,/d_at = D_IDLE/s/dt = GONE/skip/'
caught safety "$ONE" "the hold ends a committed copy" 's/is_served && dj == RESTORED && \(!calm/is_served \&\& (dj == RESTORED || dj == COMMITTED) \&\& (!calm/'
caught safety "$ONE" "a new hauld gives a whole copy up" 's|:: dj == RESTORED && dt == FROZEN && !is_missing -> skip /\* RECOVER RESTORED \*/|:: dj == RESTORED \&\& dt == FROZEN \&\& !is_missing -> d_give_up(0, OK)|'
caught liveness "$ONE" "a new hauld does not thaw what was committed" 's|-> dt = RUNS; d_ran = true :: else -> skip fi /\* RECOVER COMMITTED \*/|-> skip :: else -> skip fi|'
# Memory that comes later.
LAZY='-DCRASHES=1 -DPOWER=0 -DLAZY=1 -DGKILLS=1'
caught safety "$LAZY" "the guard, left alone, does not freeze the tree" 's|dt = FROZEN; is_held = true :: else -> skip fi /\* ALONE G \*/|skip :: else -> skip fi|'
caught safety "$LAZY" "hauld, left alone, does not freeze the tree" 's|dt = FROZEN; is_held = true :: else -> skip fi /\* ALONE D \*/|skip :: else -> skip fi|'
caught safety "$LAZY" "a tree whose guard is dead is thawed before it is filled" 's/!is_held && \(guard \|\| !is_missing \|\| !holds\)/!is_held/'
caught safety "$LAZY" "the source ends its tree while memory is missing" 's|at = AT_ASK /\* VERDICT FILLING \*/|at = AT_FINISH|'
caught safety "$LAZY" "\"filling\" is not told from \"committed\"" 's|d_reply\(QUERY, SAYS_FILLING\) /\* MISSING \*/|d_reply(QUERY, SAYS_COMMITTED)|'
caught safety "$LAZY" "Commit's answer does not tell that memory is missing" 's/\(is_missing -> SAYS_FILLING : OK\)/OK/'
caught safety "$LAZY" "a new hauld thaws a tree whose memory is missing" 's/:: is_committed\(dj\) && is_missing -> if/:: false -> if/; s/:: is_committed\(dj\) && !is_missing -> if/:: is_committed(dj) -> if/'
caught safety "$LAZY" "a new hauld keeps a restored tree whose memory is missing" 's/\(dt != FROZEN \|\| is_missing\)/(dt != FROZEN)/; s/dt == FROZEN && !is_missing -> skip/dt == FROZEN -> skip/'
while ((STARTED > 0)); do
    wait -n || FAILED=$((FAILED + 1))
    STARTED=$((STARTED - 1))
done
echo "$MUTANTS mutants; $FAILED checks failed"
((FAILED == 0))
