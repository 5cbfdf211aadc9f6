#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# native_resume: the link is cut while memory is copied ahead, in the first round and in a later one, and comes
# back: the migration goes on with what had arrived. Cut for longer than the lease it is rolled back. The
# workload (HAUL_MIB, default 64) checks its content all the time. Its beginning runs in the guest, too, where
# the kernel's dirty bits of the round that was cut are lost.
# shellcheck source-path=SCRIPTDIR disable=SC2119,SC2120
. "$(dirname "$0")/../haul.sh"

mib=${HAUL_MIB:-64}
pages=$((mib * 256))
lease_s=$((12 * SLOW))

begin() {
    ctl "$at" --json migrate "pid:$PID" --to "$(url "$to")" "$@" --detach >"$LAB/begun"
    ID=$(report id "$(<"$LAB/begun")")
}

shown() {
    report "$1" "$(ctl "$at" --json show "$ID")"
}

rounds_begun() {
    ctl "$at" --json show "$ID" | grep -c '"pagesSent"' || true
}

# await SECONDS CMD…
await() {
    local until=$((SECONDS + $1 * SLOW))
    shift
    while ((SECONDS < until)); do
        ! "$@" || return 0
        sleep 0.1
    done
    fail "never: $*: $(ctl "$at" show "$ID")"
}

has_rounds() {
    (($(rounds_begun) >= $1))
}

# So many bytes have gone out of the host's interface since the last call.
sent() {
    local now before=${SENT:-0}
    now=$(on "$at" cat /sys/class/net/haul0/statistics/tx_bytes)
    SENT=$now
    echo $((now - before))
}

has_sent() {
    local now
    now=$(on "$at" cat /sys/class/net/haul0/statistics/tx_bytes)
    ((now - SENT >= $1))
}

is_over() {
    [[ $(shown state) != RUNNING ]]
}

# cut_in ROUND SECONDS: in the middle of that round.
cut_in() {
    (($1 == 1)) || await 60 has_rounds $(($1 - 1))
    sent >/dev/null
    await 60 has_sent $((pages * 4096 * 6 / 10))
    link_cut
    note "cut in round $(($(rounds_begun) + 1))"
    sleep "$2"
    link_restore
}

# All pages that were sent in the rounds from the N-th on, and how many rounds there were.
pages_from() {
    python3 -c 'import json, sys
report = json.loads(sys.argv[1])
print(sum(r["pagesSent"] for r in report["rounds"][int(sys.argv[2]):]))' "$REPORT" "$1"
}

finish() {
    await 120 is_over
    REPORT=$(ctl "$at" --json show "$ID")
    CODE=0
    expect_completed
    expect_healthy "$to" "$PID"
    expect_message 'the link was lost in round'
    note "$(report rounds | tr -d ' \n' | grep -o '"pagesSent":[0-9]*' | tr '\n' ' ')$(report notes)"
}

ERRORS=
lab_start --lease "${lease_s}s"
at=A
to=B
# Hardly any of it changes: what is sent again was lost.
workload A memory "$mib" 0.1 --incompressible
link_rate 100

# In the first round at six tenths: what was there is not sent again.
begin --max-rounds 6
cut_in 1 $((SLOW > 1 ? 25 : 7))
finish
again=$(pages_from 1)
((again < pages * 6 / 10)) || fail "$again of $pages pages were sent after the first round was cut"
((again > pages / 10)) || fail "only $again of $pages pages were sent after it: was it cut?"
at=B
to=A

# The rest does not depend on how pages are tracked, and needs a machine that is faster than its link.
((SLOW == 1)) || exit 0

# While a user may still cancel it.
begin
cut_in 1 0
link_cut
sleep 2
ctl "$at" cancel "$ID" >/dev/null
await 20 is_over
[[ $(shown state) == CANCELLED ]] || fail "$(ctl "$at" show "$ID")"
link_restore
expect_healthy "$at" "$PID"

# For longer than the lease: rolled back, by both.
begin
cut_in 1 $((lease_s * 2))
await 60 is_over
[[ $(shown state) == ABORTED ]] || fail "$(ctl "$at" show "$ID")"
note "$(report error.message "$(ctl "$at" --json show "$ID")")"
expect_healthy "$at" "$PID"

# In a later round, of a workload that is written all over.
on "$at" kill -KILL "$PID"
workload "$at" memory "$mib" 30 --incompressible
begin --max-downtime 500ms --max-rounds 5 --on-timeout stop-copy
await 60 has_rounds 2
sent >/dev/null
await 60 has_sent 2000000
link_cut
sleep 7
link_restore
finish
