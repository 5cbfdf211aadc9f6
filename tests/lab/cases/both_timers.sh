#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# both_timers: a periodic timerfd that expired and was not read before the freeze goes on. CRIU 4.1
# alone disarms it (see workloads/event.c, engine/criu/mend.h).
# shellcheck source-path=SCRIPTDIR disable=SC2119,SC2120
. "$(dirname "$0")/../haul.sh"

lab_start
for ((run = 0; run < ${HAUL_RUNS:-3}; run++)); do
    workload A event --periodic
    migrate A "$PID" B
    expect_completed
    expect_healthy B "$PID"
done
