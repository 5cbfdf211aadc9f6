#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# test.sh: builds haul in a Debian 13 root and runs its tests, on any Debian-like machine, as root.
#
# usage: ./test.sh               what CI runs
#        HAUL_FULL=1 ./test.sh   also fuzzing, every case in the guest too, load, all pairs of crashes, and more rounds
#
# The last line is "N passed, N failed".
set -euo pipefail
cd "$(dirname "$(realpath "${BASH_SOURCE[0]}")")"

toolbox=tests/lab/toolbox.sh
passed=0
failed=0
log=$(mktemp)
aside=$(mktemp)
trap '[[ -z ${ASIDE:-} ]] || kill "$ASIDE" 2>/dev/null || true; rm -f "$log" "$aside"' EXIT

# phase NAME CMD…: counts what CMD counted, or itself.
phase() {
    local name=$1 start=$SECONDS status=0 good=0 bad=0 total
    shift
    echo "=== $name"
    "$@" 2>&1 | tee "$log" || status=$?
    if total=$(grep -oE '[0-9]+ tests failed out of [0-9]+' "$log" | tail -n 1) && [[ -n $total ]]; then
        bad=${total%% *}
        good=$((${total##* } - bad))
    elif total=$(grep -E '^[0-9]+ passed, [0-9]+ failed' "$log" | tail -n 1) && [[ -n $total ]]; then
        good=${total%% *}
        bad=${total#*, }
        bad=${bad%% *}
    elif [[ $status == 0 ]]; then
        good=1
    fi
    [[ $status == 0 || $bad != 0 ]] || bad=1
    passed=$((passed + good))
    failed=$((failed + bad))
    echo "=== $name: $good passed, $bad failed, $((SECONDS - start)) s"
    [[ $status == 0 ]]
}

# Configures, builds and tests one preset.
preset() {
    "$toolbox" run sh -c "cmake --preset $1 >/dev/null && cmake --build --preset $1 && ${2:-true}"
}

# aside CMD…: runs it beside the phases that follow, until aside_over NAME says what came of it.
aside() {
    "$@" >"$aside" 2>&1 &
    ASIDE=$!
}

aside_over() {
    local status=0
    wait "$ASIDE" || status=$?
    ASIDE=
    phase "$1" was_aside "$status"
}

was_aside() {
    cat "$aside"
    return "$1"
}

phase toolbox "$toolbox" ensure
without=pairs
[[ -z ${HAUL_FULL:-} ]] || without=none
phase "build and test dev" preset dev "ctest --preset dev -j 4 -LE $without" || true
phase "build release" preset release || true
phase "build and test tsan" preset tsan "ctest --preset tsan -L unit -j 4" || true
if [[ -n ${HAUL_FULL:-} ]]; then
    export HAUL_FUZZ_SECONDS=${HAUL_FUZZ_SECONDS:-30}
    phase "build and run fuzz" preset fuzz tests/fuzz/run.sh || true
    export HAUL_RUNS=${HAUL_RUNS:-10} HAUL_CASE_TIMEOUT=${HAUL_CASE_TIMEOUT:-7200}
    guest_cases=(all)
else
    export HAUL_RUNS=${HAUL_RUNS:-1}
    guest_cases=(both_migrate guest_kernel_threads guest_redis)
fi
# Side by side, since both wait most of the time: with sanitizers; and without, what preloads a library into hauld,
# or measures its memory.
native_cases=(native_corrupt native_identity native_lazy native_matrix native_memory native_parallel native_postcopy native_recovery native_soak native_streams)
[[ -z ${HAUL_FULL:-} ]] || native_cases+=(native_converge native_load native_resume)
aside env HAUL_BUILD=build/release tests/lab/run.sh native "${native_cases[@]}"
phase "lab, native, sanitized" tests/lab/run.sh native both_disk both_faults both_migrate both_nice both_shared both_timers both_workloads \
    native_abuse native_call native_clients native_fakes native_handover native_relay native_reload native_session native_wire || true
aside_over "lab, native" || true
export HAUL_BUILD=build/release
aside docker/test.sh
phase "lab, guest" tests/lab/run.sh guest "${guest_cases[@]}" || true
aside_over "docker" || true
[[ -z ${HAUL_FULL:-} ]] || phase "lab, two guests" env HAUL_RUNS=1 tests/lab/run.sh guests all || true

echo "$passed passed, $failed failed"
[[ $failed == 0 ]]
