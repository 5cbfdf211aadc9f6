#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# both_disk: a disk fills up while memory is on its way, at the source and at the destination: the refusal says so
# at once, and the workload goes on at the source, unharmed and not frozen.
# shellcheck source-path=SCRIPTDIR disable=SC2119,SC2120
. "$(dirname "$0")/../slowly.sh"

lab_start
workload A memory 128 20 --incompressible
victim=$PID

note "the disk fills up while memory is on its way"
migrate_slowly
is_on_its_way() {
    [[ $(report stage "$(ctl A --json show "$ID")") == pre-copy ]]
}
for ((try = 0; try < 100 * SLOW; try++)); do
    ! is_on_its_way || break
    sleep 0.05
done
disk_fill A
slow_result
expect_refused RESOURCE_EXHAUSTED
# The first of CRIU's dumps tells.
where="freeze"
! kernel_tracks || where="pre-copy round"
expect_message "$where.*no room for the images"
expect_healthy A "$victim"
disk_clear A

note "the destination's disk fills up while memory is on its way"
on B mount -o remount,size=192m /var/lib/haul # there is room when it begins
migrate_slowly
has_come() {
    local mib
    mib=$(on B du -sm /var/lib/haul/in)
    ((${mib%%[!0-9]*} >= 8))
}
for ((try = 0; try < 100 * SLOW; try++)); do
    ! has_come || break
    sleep 0.05
done
disk_fill B
slow_result
expect_refused RESOURCE_EXHAUSTED
expect_message 'round 1'
expect_message 'the workload runs here as before'
expect_healthy A "$victim"
disk_clear B
is_left() {
    on B find /var/lib/haul/in -mindepth 1 | grep -q .
}
for ((try = 0; try < 100 * SLOW; try++)); do
    is_left || break
    sleep 0.05
done
! is_left || fail "images are left at the destination: $(on B ls -R /var/lib/haul/in)"

note "after all of this it still migrates"
migrate A "$victim" B
expect_completed
expect_gone A "$victim"
expect_healthy B "$victim"
