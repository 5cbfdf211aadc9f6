#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# guest_auto_converge: a workload that writes all its memory all the time is slowed down until what it writes
# can be copied; whatever ends the migration, the workload has all of its time back, and is where it came
# from. In the guest, whose cgroups have the cpu controller.
# shellcheck source-path=SCRIPTDIR disable=SC2119,SC2120
. "$(dirname "$0")/../haul.sh"

groups=/sys/fs/cgroup/haul
mib=${HAUL_MIB:-16}

cgroup_of() {
    on "$1" sed -n 's/^0:://p' "/proc/$2/cgroup"
}

# The quota of the slowed tree's group at A, "max" or none.
quota() {
    # shellcheck disable=SC2016 # runs in the host
    on A bash -c 'cat "$1"/slow-*/cpu.max 2>/dev/null | cut -d" " -f1' bash "$groups"
}

is_slowed() {
    [[ $(quota) =~ ^[0-9]+$ ]]
}

# await CMD…
await() {
    local until=$((SECONDS + 30 * SLOW))
    while ((SECONDS < until)); do
        ! "$@" || return 0
        sleep 0.1
    done
    fail "never: $*: $(ctl A show "$ID")"
}

begin_slowed() {
    ctl A --json migrate "pid:$PID" --to "$(url B)" --auto-converge --detach >"$LAB/begun"
    ID=$(report id "$(<"$LAB/begun")")
    await is_slowed
    [[ $(cgroup_of A "$PID") == "/haul/slow-$ID" ]] || fail "it is slowed down in $(cgroup_of A "$PID")"
    note "slowed down to $(quota) us"
}

is_state() {
    [[ $(report state "$(ctl A --json show "$ID")") == "$1" ]]
}

expect_free() {
    await is_state "$1"
    [[ -z $(quota) ]] || fail "it is still slowed down: $(quota)"
    [[ $(cgroup_of A "$PID") == "$home" ]] || fail "it is in $(cgroup_of A "$PID"), not in $home"
    expect_healthy A "$PID"
}

final_pages() {
    report "rounds.$(precopy_rounds).pagesSent"
}

# The first group with a limit makes the kernel patch its scheduler while it runs, which the emulator does not
# always survive: let one processor do it alone, and keep that group.
keep_limits_on() {
    echo 0 >/sys/devices/system/cpu/cpu1/online
    mkdir "$HOSTS_CGROUPS/limited"
    echo "50000 100000" >"$HOSTS_CGROUPS/limited/cpu.max"
    echo 1 >/sys/devices/system/cpu/cpu1/online
}

lab_start
[[ ! -w /sys/devices/system/cpu/cpu1/online ]] || keep_limits_on
workload A memory "$mib" 6400 --incompressible
home=$(cgroup_of A "$PID")
link_rate 100

begin_slowed
engine_kill A
is_slowed || fail "it was not slowed down any more before a new hauld came"
engine_start A
expect_free ABORTED

begin_slowed
ctl A cancel "$ID" >/dev/null
expect_free CANCELLED

begin_slowed
engine_kill B
expect_free ABORTED
engine_start B

migrate A "$PID" B
expect_completed
plain=$(final_pages)
note "as fast as it likes: $plain pages while frozen, downtime $(report downtimeMs) ms"
expect_healthy B "$PID"
migrate B "$PID" A
expect_completed
home=$(cgroup_of A "$PID")
migrate A "$PID" B --auto-converge
expect_completed
slowed=$(final_pages)
note "slowed down: $slowed pages while frozen, downtime $(report downtimeMs) ms, $(precopy_rounds) rounds"
((slowed * 2 <= plain)) || fail "slowing it down did not halve what is left"
[[ -z $(quota) ]] || fail "a group is left: $(quota)"
expect_healthy B "$PID"
limit=$(on B cat "/sys/fs/cgroup$(cgroup_of B "$PID")/cpu.max" 2>/dev/null || echo max)
[[ $limit == max* ]] || fail "it is slowed down at the destination: $limit"
