#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# slowly.sh: migrations that take long enough for something to happen meanwhile.
#
# usage: . slowly.sh                   sources haul.sh; then, with the workload in "$victim",
#        migrate_slowly [FLAG…]        A to B over a slow link, in the background; sets ID, SLOW_JOB
#        slow_result                   waits for its end: sets REPORT, ERRORS, CODE
# shellcheck source-path=SCRIPTDIR disable=SC2119,SC2120,SC2034,SC2154
# shellcheck source=haul.sh
. "$(dirname "${BASH_SOURCE[0]}")/haul.sh"

# Starts a migration of the victim in the background (FLAG…) and waits until it shows in the list.
migrate_slowly() {
    local try
    link_rate 200
    ctl A --json --timeout "$((60 * SLOW))s" migrate "pid:$victim" --to "$(url B)" "$@" \
        >"$LAB/slow.json" 2>"$LAB/slow.err" &
    SLOW_JOB=$!
    for ((try = 0; try < 100 * SLOW; try++)); do
        ID=$(ctl A --json list 2>/dev/null | running_id)
        [[ -z $ID ]] || return 0
        kill -0 "$SLOW_JOB" 2>/dev/null || break
        sleep 0.05
    done
    fail "the migration never showed in the list: $(<"$LAB/slow.json") $(<"$LAB/slow.err")"
}

# The id of the first migration in a list that has not ended.
running_id() {
    python3 -c '
import json, sys
def walk(value):
    if isinstance(value, dict):
        if "id" in value and value.get("state") not in ("COMPLETED", "ABORTED", "CANCELLED"):
            print(value["id"])
            sys.exit()
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            walk(item)
walk(json.loads(sys.stdin.read() or "[]"))'
}

slow_result() {
    link_rate
    CODE=0
    wait "$SLOW_JOB" || CODE=$? # also when it was waited for before
    REPORT=$(<"$LAB/slow.json")
    ERRORS=$(<"$LAB/slow.err")
}
