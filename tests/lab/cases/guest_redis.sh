#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# guest_redis: redis with 100 000 keys moves while a client writes. The client reconnects to the
# destination; every write that was acknowledged is there. HAUL_DEMO=1 shows haulctl's own output.
# shellcheck source-path=SCRIPTDIR disable=SC2119,SC2120
. "$(dirname "$0")/../haul.sh"

client=$HAUL_LAB/cases/redis_client.py
acks=$SHARED/acks

redis() {
    on "$1" redis-cli -h 127.0.0.1 "${@:2}"
}

wait_for() {
    local try
    for ((try = 0; try < 100 * SLOW; try++)); do
        ! "$@" >/dev/null 2>&1 || return 0
        sleep 0.1
    done
    fail "never: $*"
}

acknowledged_at_b() {
    sed -n '/connected 10.77.0.2/,$p' "$acks" | grep -q -m 1 '^ack'
}

lab_start
server=$(start_on A redis-server --bind 0.0.0.0 --protected-mode no --save '' --appendonly no --dir /)
wait_for redis A ping
redis A eval "for i = 1, 100000 do redis.call('set', 'key:' .. i, string.rep(tostring(i) .. ' ', 20)) end" 0
note "redis holds $(redis A dbsize) keys, $(redis A info memory | sed -n 's/^used_memory_human:\(.*\)\r/\1/p')"
writer=$(start_on A python3 "$client" write /srv/shared/acks 6379 10.77.0.1 10.77.0.2)
wait_for grep -q '^ack 50 ' "$acks"

if [[ -n ${HAUL_DEMO:-} ]]; then
    echo "moving redis (process $server) from A to B:"
    ctl A --timeout "$((60 * SLOW))s" migrate "pid:$server" --to "$(url B)" --tcp close
else
    migrate A "$server" B --tcp close
    expect_completed
    note "downtime $(report downtimeMs) ms, total $(report totalMs) ms, $(report bytesOnWire) bytes," \
        "rounds $(report rounds)"
fi
expect_gone A "$server"
wait_for acknowledged_at_b
sleep 2
on A kill "$writer"
note "$(on A python3 "$client" verify /srv/shared/acks 6379 10.77.0.2)" || fail "acknowledged writes are lost"
keys=$(redis B eval "local n = 0 for i = 1, 100000 do
    if redis.call('get', 'key:' .. i) == string.rep(tostring(i) .. ' ', 20) then n = n + 1 end end return n" 0)
[[ $keys == 100000 ]] || fail "only $keys of 100000 keys are right"
note "100000 keys are right"
