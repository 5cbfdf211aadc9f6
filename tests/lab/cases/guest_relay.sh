#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# guest_relay: a program that speaks CRIU's RPC moves a process through two engines, on a kernel that tracks dirty
# pages: two pre-dumps while it runs, each a round of memory from one lease to the other, then the dump.
# shellcheck source-path=SCRIPTDIR disable=SC2119,SC2120
. "$(dirname "$0")/../haul.sh"
# shellcheck source=../relay.sh
. "$HAUL_LAB/relay.sh"

mkdir -p "$SHARED"
printf '{"rules": [{"identities": ["a", "b"], "methods": ["/haul.v1.Criu/*"]}]}\n' >"$SHARED/policy.json"
lab_start --policy /srv/shared/policy.json
kernel_tracks || fail "this kernel does not track dirty pages"
workload A memory 16 4

note "it is given up before it runs there: it goes on here, with its dirty pages counted on"
mkdir "$SHARED/given-up" "$SHARED/images"
move_by give-up /srv/shared/given-up
expect_gone B "$PID"
expect_healthy A "$PID"
expect_tidy

note "it moves"
move_by move /srv/shared/images
[[ $ROUNDS == 3 ]] || fail "$ROUNDS rounds, not two pre-dumps and the dump"
expect_gone A "$PID"
expect_healthy B "$PID"
expect_tidy
