#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# guest_kernel_threads: kernel threads are refused by name, and are what they were. The hosts of the lab have pids
# of their own, in which there are none: so this engine runs on the guest itself.
# shellcheck source-path=SCRIPTDIR disable=SC2119,SC2120
. "$(dirname "$0")/../haul.sh"

outside=$LAB/outside
local=ipc://$outside/hauld.sock
mkdir -m 700 "$outside"
mkdir "$SHARED"
"$(program haulctl)" pki init "$SHARED/pki" >/dev/null
"$(program haulctl)" pki issue "$SHARED/pki" a --san IP:127.0.0.1 >/dev/null

stop() {
    kill "$engine" && wait "$engine"
}

# What would have changed, had anybody tried to move it.
looks() {
    awk '/^(Name|State|TracerPid|Threads):/ { print $2 }' "/proc/$1/status" | tr '\n' ' '
    cat "/proc/$1/cgroup"
}

refused() {
    local pid=$1 name before
    name=$(<"/proc/$pid/comm")
    before=$(looks "$pid")
    CODE=0
    REPORT=$("$(program haulctl)" --local "$local" --json --timeout "$((10 * SLOW))s" migrate "pid:$pid" \
        --to tls+tcp://127.0.0.1:7 2>"$LAB/errors") || CODE=$?
    ERRORS=$(<"$LAB/errors")
    expect_refused INVALID_ARGUMENT
    expect_message "process $pid \\($name\\) is a kernel thread"
    [[ $(looks "$pid") == "$before" ]] || fail "process $pid was $before and is $(looks "$pid")"
}

"$(program hauld)" --node a --listen tls+tcp://127.0.0.1:7777 --local "$local" --state-dir "$outside/state" \
    --ca "$SHARED/pki/ca.pem" --cert "$SHARED/pki/a.pem" --key "$SHARED/pki/a.key" --criu /usr/sbin/criu \
    >"$SHARED/hauld-outside.log" 2>&1 &
engine=$!
trap 'stop; lab_end' EXIT
for ((try = 0; try < 100 * SLOW; try++)); do
    ! grep -qw ready "$SHARED/hauld-outside.log" || break
    sleep 0.1
done

[[ $(</proc/2/comm) == kthreadd ]] || fail "process 2 is $(</proc/2/comm)"
refused 2
refused "$(pgrep -P 2 | head -n 1)"
trap lab_end EXIT
stop || fail "the engine ended with $?"
