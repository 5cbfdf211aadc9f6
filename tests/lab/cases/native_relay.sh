#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# native_relay: a program that speaks CRIU's RPC moves a process through two engines, which pass its
# messages on unread: CRIU here over a local socket, CRIU there over the network, memory between them.
# shellcheck source-path=SCRIPTDIR disable=SC2119,SC2120
. "$(dirname "$0")/../haul.sh"

# shellcheck source=../relay.sh
. "$HAUL_LAB/relay.sh"

printf '{"rules": [{"identities": ["a"], "methods": ["/haul.v1.Criu/*"]}]}\n' >"$LAB/policy.json"
mkdir -p "$SHARED" && cp "$LAB/policy.json" "$SHARED/"
lab_start --policy /srv/shared/policy.json
mkdir "$SHARED/images"

note "a lease is lost in the middle of a dump: the process goes on"
workload A memory 16 4
relay abandon "$PID" /srv/shared/images
expect_healthy A "$PID"
expect_tidy

note "memory goes to a socket of the caller's"
[[ $(relay own "$PID" /srv/shared/images) =~ ^([0-9]+)\ pages$ ]] || fail "no pages came to the caller"
((BASH_REMATCH[1] >= 16 * 256)) || fail "only ${BASH_REMATCH[1]} pages came to the caller"
expect_healthy A "$PID"
expect_tidy

note "an engine is killed in the middle of a dump: the next one lets the process go on"
held=$(START_OUT=/srv/shared/held start_on A python3 "$HAUL_LAB/relay.py" hold "$(program haulctl)" "$PID" /srv/shared/images)
expect_line "$SHARED/held" '^held'
engine_kill A
[[ $(on A pgrep -xc criu) == 1 ]] || fail "CRIU did not outlive its engine"
engine_start A --policy /srv/shared/policy.json
expect_line "$SHARED/held" '^taken away'
expect_gone A "$held"
expect_healthy A "$PID"
expect_tidy

note "the caller shuts its socket before the restored process runs: it goes on where it was"
mkdir "$SHARED/given-up"
move_by give-up /srv/shared/given-up
expect_gone B "$PID"
expect_healthy A "$PID"
expect_tidy

note "a process moves"
move_by move /srv/shared/images
expect_gone A "$PID"
expect_healthy B "$PID"
expect_tidy
expect_healthy B "$PID"
[[ $(on B cat "/proc/$PID/cgroup") == *"/haul/lease-"* ]] || fail "it is in $(on B cat "/proc/$PID/cgroup")"

note "whom the policy does not name gets no CRIU over the network"
code=0
on A "$(program haulctl)" --server "$(url B)" --ca /srv/shared/pki/ca.pem --cert /srv/shared/pki/b.pem \
    --key /srv/shared/pki/b.key call haul.v1.Criu/Lease 2>"$LAB/errors" || code=$?
[[ $code == "$((64 + STATUS_CODE[PERMISSION_DENIED]))" ]] || fail "$code: $(<"$LAB/errors")"

note "an engine that stops ends its leases, and what they restored goes on"
lease=$(START_OUT=/srv/shared/lease start_on A "$(program haulctl)" call haul.v1.Criu/Lease)
expect_line "$SHARED/lease" '"offer"'
engine_stop A
expect_line "$SHARED/lease" 'UNAVAILABLE: the engine stops'
expect_gone A "$lease"
engine_stop B
engine_start B
expect_healthy B "$PID"
