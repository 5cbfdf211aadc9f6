#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# run.sh: runs the libFuzzer targets, one after the other, and says how far each came.
#
# usage: [HAUL_FUZZ_SECONDS=600] [HAUL_FUZZ_RUNS=10000000] tests/fuzz/run.sh [NAME…]
#        in the toolbox, behind: cmake --preset fuzz && cmake --build --preset fuzz
#
# A target ends after so many seconds or so many runs, whichever comes first, or with what it found: that
# is in build/fuzz/tests/fuzz/found/NAME, and becomes a file of tests/fuzz/corpus/NAME once it is mended. What
# it learned is there too, and is where it goes on the next time. NAME is "envelope" for fuzz_envelope.
# The last line is "N passed, N failed".
set -euo pipefail
shopt -s inherit_errexit

FUZZ_DIR=$(dirname "$(realpath "${BASH_SOURCE[0]}")")
BUILD=$(realpath "$FUZZ_DIR/../..")/build/fuzz/tests/fuzz
seconds=${HAUL_FUZZ_SECONDS:-600}
runs=${HAUL_FUZZ_RUNS:-10000000}
passed=0
failed=0

all_targets() {
    sed -n 's/^haul_fuzz(\([a-z_]*\) .*/\1/p' "$FUZZ_DIR/CMakeLists.txt"
}

# A line of libFuzzer's own statistics.
figure() {
    sed -n "s/^$1: *//p" "$2"
}

run_target() {
    local name=$1 found=$BUILD/found/$1 log=$BUILD/found/$1.log start=$SECONDS status=0
    mkdir -p "$found"
    "$BUILD/fuzz_$name" "-max_total_time=$seconds" "-runs=$runs" -timeout=20 -rss_limit_mb=1024 \
        -print_final_stats=1 "-artifact_prefix=$found/" "$found" "$FUZZ_DIR/corpus/$name" >"$log" 2>&1 ||
        status=$?
    if [[ $status == 0 ]]; then
        passed=$((passed + 1))
        printf '%-12s %10s executions, %4d s, nothing found\n' "$name" \
            "$(figure stat::number_of_executed_units "$log")" $((SECONDS - start))
    else
        failed=$((failed + 1))
        printf '%-12s FAILED with %d after %d s:\n' "$name" "$status" $((SECONDS - start))
        tail -n 40 "$log"
    fi
}

targets=("$@")
[[ $# -gt 0 ]] || mapfile -t targets < <(all_targets)
for target in "${targets[@]}"; do
    run_target "$target"
done
echo "$passed passed, $failed failed"
[[ $failed == 0 ]]
