#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# guest_clients: redis moves with --mode post-copy over a narrow link, so that most of its memory is still to come
# when it runs at its destination. Its client does not wait for the frozen one at the source: it is let go there at
# once, finds nobody who listens, and goes on at the destination long before the source's ends. Then the
# destination's is lost; an operator lets the source's run, and clients find that one again.
# shellcheck source-path=SCRIPTDIR disable=SC2119,SC2120
. "$(dirname "$0")/../haul.sh"
. "$(dirname "$0")/../redis.sh"

missing() {
    report restore.lateMissing "$(ctl A --json show "$id")"
}

is_lost() {
    [[ $(ctl B --json list) == *LOST* && $(ctl A --json list) == *IN_DOUBT* ]]
}

lab_start
redis_start A
redis_write

line=$(($(wc -l <"$ACKS") + 1))
id=$(on A "$(program haulctl)" --local "$LOCAL" --json migrate "pid:$SERVER" --to "$(url B)" --tcp close --mode post-copy \
    --bandwidth 10mbit --detach | python3 -c 'import json, sys; print(json.load(sys.stdin)["id"])')
wait_for written_at B "$line" 20
left=$(missing)
((${left:-0} > 0)) || fail "all memory had come before the client went on: $(ctl A show "$id")"
on A kill -0 "$SERVER" || fail "the source does not keep the tree while pages are missing"
note "the client went on at B while $left pages were missing"

# What holds the memory at B is lost, before all of it is there.
line=$(($(wc -l <"$ACKS") + 1))
on B pkill -KILL -x haul-guard
engine_kill B
engine_start B
wait_for is_lost
ctl A resolve "$id" --resume --accept-risk >/dev/null
wait_for written_at A "$line" 20
[[ $(redis A dbsize) -ge 100000 ]] || fail "keys are missing at A"
note "resumed at A, it listens again"
