#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# guest_tcp: with --tcp close a process with an open connection moves; it finds the connection closed
# and goes on. In the guest, because CRIU 4.1 dumps no inet socket on kernels (6.16 and later) that
# refuse SO_PASSCRED on it.
# shellcheck source-path=SCRIPTDIR disable=SC2119,SC2120
. "$(dirname "$0")/../haul.sh"

lab_start
workload A tcp
migrate A "$PID" B --tcp refuse
expect_refused FAILED_PRECONDITION
expect_healthy A "$PID"
migrate A "$PID" B --tcp close
expect_completed
expect_gone A "$PID"
expect_healthy B "$PID"
grep -q '^closed ' "$STATUS" || fail "the connection survived --tcp close: $(tr -s ' ' <"$STATUS")"
