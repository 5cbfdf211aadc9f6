#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# both_faults: whatever is wrong, the workload goes on at the source, unharmed and not frozen, and the
# refusal says why.
# shellcheck source-path=SCRIPTDIR disable=SC2119,SC2120
. "$(dirname "$0")/../slowly.sh"

# refused TITLE PID TO CODE [FLAG…]: the workload in "$victim" must not notice.
refused() {
    note "$1"
    local code=$4
    migrate A "$2" "$3" "${@:5}"
    expect_refused "$code"
    expect_healthy A "$victim"
}

# The CRIU that dumps for the engine of A.
swrk_pid() {
    local try pid
    for ((try = 0; try < 100 * SLOW; try++)); do
        pid=$(on A pgrep -P "${ENGINE[A]}" -f '^criu: (pre-)?dump') || true
        if [[ -n $pid ]]; then
            echo "$pid"
            return
        fi
        sleep 0.05
    done
    return 1
}

lab_start
engine_stop A
ENGINE_SHELL=1 engine_start A
workload A memory 128 20 --incompressible
victim=$PID

refused "no such process" 999 B NOT_FOUND
refused "the init of the host" 1 B INVALID_ARGUMENT
expect_message 'init'
refused "the engine itself" "${ENGINE[A]}" B INVALID_ARGUMENT
expect_message 'is this engine'
refused "an ancestor of the engine" "$ENGINE_PARENT" B INVALID_ARGUMENT
expect_message 'ancestor of this engine'
for pid in 1 "$ENGINE_PARENT" "${ENGINE[A]}"; do
    [[ $(process_state A "$pid") == [RS]*" frozen 0" ]] || fail "process $pid is $(process_state A "$pid")"
done
refused "nobody listens at the destination" "$victim" tls+tcp://10.77.0.2:7 ""
note "an object that CRIU cannot dump"
workload A undumpable
migrate A "$PID" B
expect_refused
expect_message 'perf|bpf|uring|alg|socket'
expect_healthy A "$PID"
on A kill "$PID"
note "an open TCP connection"
workload A tcp
migrate A "$PID" B --tcp refuse
expect_refused
expect_message '[Tt][Cc][Pp]'
expect_healthy A "$PID"
on A kill "$PID"

note "an open file that the destination lacks"
on A bash -c 'echo content >/tmp/only-on-a'
workload A memory 4 1 --open /tmp/only-on-a
migrate A "$PID" B
expect_refused
expect_message 'only-on-a'
expect_healthy A "$PID"
on A kill "$PID"

note "the pid is taken at the destination"
# shellcheck disable=SC2016 # runs in the host
squatter=$(on B bash -c 'echo $(($1 - 1)) >/proc/sys/kernel/ns_last_pid
    setsid sleep 1000 </dev/null >/dev/null 2>&1 & echo $!' bash "$victim")
on B sysctl -qw "kernel.ns_last_pid=$((HOST_FIRST_PID[B] + 100000))"
[[ $squatter == "$victim" ]] || fail "could not take pid $victim at B"
migrate A "$victim" B
expect_refused
expect_message "$victim"
expect_healthy A "$victim"
on B kill "$squatter"

note "no CRIU at the destination"
engine_stop B
engine_start B --criu /nonexistent/criu
migrate A "$victim" B
expect_refused
expect_message '[Cc][Rr][Ii][Uu]'
expect_healthy A "$victim"
engine_stop B
engine_start B

note "the same process twice"
migrate_slowly
migrate A "$victim" B
expect_refused ALREADY_EXISTS
ctl A cancel "$ID" || fail "cancel ended with $?"
slow_result
expect_refused
[[ $(report state) == CANCELLED ]] || fail "state is $(report state) after cancel"
expect_healthy A "$victim"

note "the link is cut"
migrate_slowly
link_cut
wait "$SLOW_JOB" || true
link_restore
slow_result
expect_refused
expect_healthy A "$victim"
sleep 1

# Where CRIU does not pre-dump it must be met in its one dump, with all of the memory.
at_work=()
kernel_tracks || at_work=(--no-precopy)
for signal in KILL STOP; do
    note "CRIU gets SIG$signal"
    migrate_slowly ${at_work[@]+"${at_work[@]}"}
    swrk=$(swrk_pid) || fail "no CRIU at work at the source"
    on A kill "-$signal" "$swrk" || true
    slow_result
    if [[ $CODE == 0 ]]; then
        fail "the migration completed although CRIU got SIG$signal"
    fi
    expect_refused
    expect_healthy A "$victim"
    ! on A test -e "/proc/$swrk" || fail "CRIU ($swrk) is still there"
done

note "after all of this it still migrates"
migrate A "$victim" B
expect_completed
expect_gone A "$victim"
expect_healthy B "$victim"
