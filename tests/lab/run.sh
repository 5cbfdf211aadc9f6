#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# run.sh: runs the lab's cases.
#
# usage: run.sh native CASE…|all     on this machine's kernel, in the toolbox
#        run.sh guest CASE…|all      in the QEMU guest, all in one boot
#        run.sh guests CASE…|all     on this machine, with two QEMU guests
#
# A case is tests/lab/cases/CASE.sh; both_* run native or guest, native_*, guest_* and guests_* in one place. The
# programs come from HAUL_BUILD (native, default build/dev) or HAUL_GUEST_BUILD (guest, default
# build/release). HAUL_RUNS=N repeats what a case repeats, HAUL_CASE_TIMEOUT is in seconds;
# HAUL_FOLLOW=1 shows what a case says while it says it.
# shellcheck source-path=SCRIPTDIR
set -euo pipefail
shopt -s inherit_errexit

RUN_DIR=$(dirname "$(realpath "${BASH_SOURCE[0]}")")

usage() {
    sed -n '4,/^set/{/^#/s/^# \{0,1\}//p}' "$0" >&2
    exit 2
}

list_cases() {
    local place=$1 path
    shift
    if [[ $* != all ]]; then
        printf '%s\n' "$@"
        return
    fi
    for path in "$RUN_DIR"/cases/both_*.sh "$RUN_DIR"/cases/"$place"_*.sh; do
        [[ ! -e $path || $place/$path == guests/*/both_* ]] || basename "$path" .sh
    done
}

# Inside the toolbox or the guest.
run_cases() {
    local name status start passed=0 failed=0 log follower
    log=$(mktemp)
    bash "$RUN_DIR/hosts.sh" prune
    for name in "$@"; do
        start=$(date +%s.%N)
        status=0
        : >"$log"
        [[ -z ${HAUL_FOLLOW:-} ]] || { tail -f -s 0.2 "$log" & follower=$!; }
        timeout -k 10 "${HAUL_CASE_TIMEOUT:-$((240 * ${HAUL_SLOW:-1}))}" \
            bash "$RUN_DIR/cases/$name.sh" </dev/null >>"$log" 2>&1 || status=$?
        if [[ -n ${HAUL_FOLLOW:-} ]]; then
            sleep 0.5
            kill "$follower"
        else
            cat "$log"
        fi
        if [[ $status == 0 ]]; then
            passed=$((passed + 1))
            printf 'PASS %s (%.1f s)\n' "$name" "$(seconds_since "$start")"
        else
            failed=$((failed + 1))
            printf 'FAIL %s (%.1f s, status %d)\n' "$name" "$(seconds_since "$start")" "$status"
        fi
        bash "$RUN_DIR/hosts.sh" prune
    done
    rm -f "$log"
    echo "$passed passed, $failed failed"
    [[ $failed == 0 ]]
}

seconds_since() {
    awk -v a="$1" -v b="$(date +%s.%N)" 'BEGIN { print b - a }'
}

[[ $# -ge 2 ]] || usage
place=$1
shift
mapfile -t cases < <(list_cases "$place" "$@")
case $place in
native)
    exec "$RUN_DIR/toolbox.sh" run bash "$RUN_DIR/run.sh" inside "${cases[@]}"
    ;;
guest)
    export HAUL_BUILD=${HAUL_GUEST_BUILD:-build/release} HAUL_SLOW=${HAUL_SLOW:-6}
    exec "$RUN_DIR/lab.sh" run --timeout "${HAUL_GUEST_TIMEOUT:-1800}" bash "$RUN_DIR/run.sh" inside "${cases[@]}"
    ;;
guests)
    export HAUL_BUILD=${HAUL_GUEST_BUILD:-build/release} HAUL_SLOW=${HAUL_SLOW:-6} HAUL_HOSTS=guests
    "$RUN_DIR/lab.sh" ensure >/dev/null
    exec setpriv --pdeathsig KILL unshare --net --pid --mount-proc --fork --kill-child \
        bash -c 'ip link set lo up && exec "$@"' bash bash "$RUN_DIR/run.sh" inside "${cases[@]}"
    ;;
inside) run_cases "$@" ;;
*) usage ;;
esac
