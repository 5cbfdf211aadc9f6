#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# guest_clock: the clock is stepped by an hour while a migration has the tree frozen, and back again while it
# is in doubt with a whole copy held; once forth and back, once back and forth. Nothing expires early, nothing
# hangs, the times that are reported are sane, and certificates that were issued a minute ago are valid. In the
# guest, whose clock is its own.
# shellcheck source-path=SCRIPTDIR disable=SC2034,SC2119,SC2120
. "$(dirname "$0")/../matrix.sh"

STEP_S=3600
TIMERS=(--lease 20s --criu-timeout 120s --hold-restored 10m --hold-images 500ms)
VICTIM_ARGS[memory]="4 2"

step() {
    note "  the clock is stepped by $1 s"
    date -s "@$(($(date +%s) + $1))" >/dev/null
}

is_in_doubt() {
    DOUBT=$(ctl A --json list --active 2>/dev/null)
    [[ $DOUBT == *IN_DOUBT* ]]
}

# With the logs.
flunk() {
    show_logs
    fail "$*"
}

# The workload runs at B, and the report of the migration tells of minutes, not of hours.
expect_moved() {
    local total down
    settled || flunk "migrations stay open: $(ctl A list --active 2>&1)"
    eventually 100 has_advanced B "$(beats B)" || flunk "it does not run at B"
    expect_gone A "$PID"
    REPORT=$(ctl A --json show "$(report id "$(<"$LAB/begun.json")")")
    [[ $(report state) == COMPLETED ]] || flunk "it is $(report state): $REPORT"
    total=$(report totalMs)
    down=$(report downtimeMs)
    ((total > 0 && total < STEP_S * 500 && down >= 0 && down <= total)) ||
        flunk "total $total ms, downtime $down ms: $REPORT"
    note "  moved: total $total ms"
    on B kill -KILL "$PID"
}

# stepped BY: an hour and back, or the other way around.
stepped() {
    note "while the tree is frozen, then while it is in doubt and the destination, restarted, holds a whole copy"
    log_marks
    victim A
    moment fenced || flunk "it did not get that far"
    wait "$BEGUN_JOB"
    step "$1"
    stall_at A COMMITTING after
    go_on
    eventually 400 is_stopped A || flunk "it did not come to the commit"
    engine_kill B
    go_on
    eventually 400 is_in_doubt || flunk "it is not in doubt"
    [[ $(report migrations.0.error.reason "$DOUBT") == IN_DOUBT ]] || flunk "the destination is not asked: $DOUBT"
    step "$((-$1))"
    engine_up B
    expect_moved
}

matrix_start
stepped "$STEP_S"
stepped "-$STEP_S"
