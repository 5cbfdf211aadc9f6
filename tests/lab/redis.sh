#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# redis.sh: a redis and a client that writes to it and follows it. Sourced behind haul.sh.
#
#        redis_start HOST        with 100 000 keys; sets SERVER, its process
#        redis_write             the client, on A: knows both hosts, logs to ACKS; sets WRITER. Returns when it writes
#        redis HOST WORD…        redis-cli there
#        written_at HOST LINE N  behind this line of ACKS the client connected there and got N writes acknowledged
# shellcheck disable=SC2034 # the variables are for whoever sources this

REDIS_CLIENT=$HAUL_LAB/cases/redis_client.py
ACKS=$SHARED/acks

redis() {
    on "$1" redis-cli -h 127.0.0.1 "${@:2}"
}

redis_start() {
    SERVER=$(start_on "$1" redis-server --bind 0.0.0.0 --protected-mode no --save '' --appendonly no --dir /)
    wait_for redis "$1" ping
    redis "$1" eval "for i = 1, 100000 do redis.call('set', 'key:' .. i, string.rep(tostring(i) .. ' ', 20)) end" 0 \
        >/dev/null
}

redis_write() {
    rm -f "$ACKS"
    WRITER=$(start_on A python3 "$REDIS_CLIENT" write /srv/shared/acks 6379 "${HOST_ADDRESS[A]}" "${HOST_ADDRESS[B]}")
    wait_for grep -q '^ack 50 ' "$ACKS"
}

written_at() {
    (($(sed -n "$2,\$p" "$ACKS" | sed -n "/connected ${HOST_ADDRESS[$1]}\$/,\$p" | grep -c '^ack') >= $3))
}
