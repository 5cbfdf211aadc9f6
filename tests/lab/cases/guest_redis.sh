#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# guest_redis: redis with 100 000 keys moves to the other host and back while a client writes. The client
# reconnects to where it went; each time memory is copied ahead at least twice, and at the end every write
# that was ever acknowledged is there. HAUL_RUNS (default 1) round trips. HAUL_DEMO=1: one way, and
# haulctl's own output.
# shellcheck source-path=SCRIPTDIR disable=SC2119,SC2120
. "$(dirname "$0")/../haul.sh"
. "$(dirname "$0")/../redis.sh"

# Acknowledged behind this line, by the redis that was not moved yet.
written_meanwhile() {
    sed -n "$1,\$p" "$ACKS" | sed '/^lost/q' | grep -c '^ack' || true
}

move() {
    local from=$1 to=$2 line
    line=$(($(wc -l <"$ACKS") + 1))
    if [[ -n ${HAUL_DEMO:-} ]]; then
        echo "moving redis (process $SERVER) from $from to $to:"
        ctl "$from" --timeout "$((60 * SLOW))s" migrate "pid:$SERVER" --to "$(url "$to")" --tcp close
    else
        migrate "$from" "$SERVER" "$to" --tcp close
        expect_completed
        expect_precopied 2
        note "$from to $to: downtime $(report downtimeMs) ms, total $(report totalMs) ms," \
            "$(report bytesOnWire) bytes, $(precopy_rounds) rounds ahead," \
            "$(written_meanwhile "$line") writes acknowledged meanwhile"
    fi
    expect_gone "$from" "$SERVER"
    wait_for written_at "$to" "$line" 100
    (($(written_meanwhile "$line") > 0)) || fail "nothing was written while it moved from $from to $to"
}

# verify HOST: all that it ever acknowledged is there, and the keys of the beginning.
verify() {
    local keys
    note "$(on A python3 "$REDIS_CLIENT" verify /srv/shared/acks 6379 "${HOST_ADDRESS[$1]}")" ||
        fail "acknowledged writes are lost"
    keys=$(redis "$1" eval "local n = 0 for i = 1, 100000 do
        if redis.call('get', 'key:' .. i) == string.rep(tostring(i) .. ' ', 20) then n = n + 1 end end return n" 0)
    [[ $keys == 100000 ]] || fail "only $keys of 100000 keys are right"
    note "100000 keys are right"
}

lab_start
redis_start A
note "redis holds $(redis A dbsize) keys, $(redis A info memory | sed -n 's/^used_memory_human:\(.*\)\r/\1/p')"
redis_write

place=A
for ((run = 0; run < ${HAUL_RUNS:-1}; run++)); do
    move A B
    place=B
    [[ -z ${HAUL_DEMO:-} ]] || break
    move B A
    place=A
done
on A kill "$WRITER"
verify "$place"
