#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# native_call: what an engine serves can be asked and called with JSON alone: over the local socket all of
# it, a stream too, and over the network by any certificate what only reads.
# shellcheck source-path=SCRIPTDIR disable=SC2119,SC2120
. "$(dirname "$0")/../haul.sh"

remote() {
    on A "$(program haulctl)" --server "$(url B)" --ca /srv/shared/pki/ca.pem --cert /srv/shared/pki/a.pem \
        --key /srv/shared/pki/a.key "$@"
}

# expect_answer PART COMMAND…
expect_answer() {
    local part=$1 text
    shift
    text=$("$@") || fail "$*: $text"
    [[ $text == *"$part"* ]] || fail "$* answers: $text"
}

lab_start
workload A memory 8 0
migrate A "$PID" B
expect_completed
id=$(report id)
services=$(ctl A list-services | sort | tr '\n' ' ')
[[ $services == "grpc.health.v1.Health haul.v1.Criu haul.v1.Migrations haul.v1.Node haul.v1.Peer haul.v1.Reflection " ]] ||
    fail "these are not the services: $services"
expect_answer '"SERVING"' ctl A call grpc.health.v1.Health/Check
expect_answer "\"$id\"" ctl A call haul.v1.Migrations/List -d '{"activeOnly": false}'
expect_answer '"node":	"b"' ctl B call haul.v1.Node/Info
events=$(ctl A call haul.v1.Migrations/Watch -d "{\"id\": \"$id\"}" --max-time 20s) || fail "Watch: $events"
[[ $(wc -l <<<"$events") == 1 && $events == "{\"id\":\"$id\",\"state\":\"COMPLETED\","* ]] ||
    fail "a stream of a migration that is over: $events"

expect_answer '"SERVING"' remote call grpc.health.v1.Health/Check -d '{"service": "haul.v1.Peer"}'
expect_answer '"maxDowntimeMs"' remote describe --template haul.v1.MigrateOptions
for method in grpc.health.v1.Health/Watch haul.v1.Migrations/List; do
    code=0
    remote call "$method" 2>/dev/null || code=$?
    [[ $code == "$((64 + STATUS_CODE[PERMISSION_DENIED]))" ]] || fail "$method over the network: $code"
done

note "a source of another version"
code=0
text=$(remote call haul.v1.Peer/Hello -d '{"protocol": 1, "node": "old", "version": "0.0.1"}' 2>&1) || code=$?
[[ $code == "$((64 + STATUS_CODE[FAILED_PRECONDITION]))" && $text == *"old speaks protocol 1"*"run the same haul on both"* ]] ||
    fail "Hello of another version ended with $code: $text"

note "health by exit status"
# health CODE WORD ARG…
health() {
    local wanted=$1 word=$2 text code=0
    shift 2
    text=$(ctl B health "$@" 2>&1) || code=$?
    [[ $code == "$wanted" && $text == *"$word"* ]] || fail "health $* ended with $code: $text"
}
health 0 SERVING
health 0 SERVING --service haul.v1.Migrations
health "$((64 + STATUS_CODE[NOT_FOUND]))" NOT_FOUND --service haul.v1.Nothing
engine_stop B
health "$((64 + STATUS_CODE[UNAVAILABLE]))" UNAVAILABLE
engine_start B --criu /nonexistent
health 0 SERVING
health 1 NOT_SERVING --service haul.v1.Migrations

note "an engine that stops says so to who watches its health"
watch=$(START_OUT=/srv/shared/health start_on A "$(program haulctl)" --local "$LOCAL" call grpc.health.v1.Health/Watch)
for ((try = 0; try < 100; try++)); do
    ! grep -q '"SERVING"' "$SHARED/health" || break
    sleep 0.1
done
engine_stop A
for ((try = 0; try < 100; try++)); do
    on A kill -0 "$watch" 2>/dev/null || break
    sleep 0.1
done
grep -q 'UNAVAILABLE: the engine stops' "$SHARED/health" || fail "the watch ended so: $(<"$SHARED/health")"
