#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# native_handover: migrations over sockets that another program has connected: calls, memory and images, and nothing
# else between the hosts. Who is not let in is refused, and sockets that break leave the workload where it is.
# shellcheck source-path=SCRIPTDIR disable=SC2119,SC2120
. "$(dirname "$0")/../haul.sh"

# Nobody listens there: --to is for when the sockets are lost.
nowhere=tls+tcp://10.77.0.2:1
port=5000

# accept_as NAME: a program at B takes three connections and gives them to the engine there.
accept_as() {
    port=$((port + 1))
    on B python3 -c '
import os, socket, sys
listener = socket.create_server(("10.77.0.2", int(sys.argv[1])), backlog=3)
fds = [listener.accept()[0].detach() for _ in range(3)]
flags = []
for flag, fd in zip(("--fd-rpc", "--fd-mem", "--fd-fs"), fds):
    os.set_inheritable(fd, True)
    flags += [flag, str(fd)]
os.execv(sys.argv[2], sys.argv[2:] + flags)
' "$port" "$(program haulctl)" --local "$LOCAL" --timeout 20s accept --as "$1" >"$LAB/accept" 2>&1 &
    ACCEPT=$!
}

# migrate_over TO ARG…: a program at A makes the connections, and migrates over them; what `migrate` sets is set.
migrate_over() {
    CODE=0
    REPORT=$(on A python3 -c '
import os, socket, sys, time
def connect():
    for _ in range(400):
        try:
            return socket.create_connection(("10.77.0.2", int(sys.argv[1]))).detach()
        except ConnectionRefusedError:
            time.sleep(0.05)
    sys.exit("nobody listens")
flags = []
for flag in ("--fd-rpc", "--fd-mem", "--fd-fs"):
    fd = connect()
    os.set_inheritable(fd, True)
    flags += [flag, str(fd)]
os.execv(sys.argv[2], sys.argv[2:] + flags)
' "$port" "$(program haulctl)" --local "$LOCAL" --json --timeout 60s migrate "pid:$PID" --to "$1" --restore eager "${@:2}" \
        2>"$LAB/errors") || CODE=$?
    ERRORS=$(<"$LAB/errors")
}

accepted() {
    wait "$ACCEPT" || fail "accept: $(<"$LAB/accept")"
}

files() {
    # shellcheck disable=SC2012,SC2016 # numbers; runs in the host
    on "$1" bash -c 'ls /proc/$1/fd | wc -l' bash "${ENGINE[$1]}"
}

# No more files than before, once what is over has been let go of.
expect_files() {
    local host=$1 try
    for ((try = 0; try < 150 * SLOW; try++)); do
        (($(files "$host") > FILES[$host])) || return 0
        sleep 0.1
    done
    on "$host" ls -l "/proc/${ENGINE[$host]}/fd" >&2
    fail "$host has $(files "$host") files open, ${FILES[$host]} before"
}
declare -A FILES=()

lab_start
workload A memory 64 5 --incompressible
for host in A B; do
    ctl "$host" node >/dev/null
    FILES[$host]=$(($(files "$host") + 1)) # and a call of the local socket
done

note "over three sockets, and nothing else"
accept_as a
migrate_over "$nowhere"
accepted
expect_completed
expect_gone A "$PID"
expect_healthy B "$PID"
expect_precopied 1
grep -q 'audit. caller=a .*method=/haul.v1.Peer/Commit .*code=OK' "$SHARED/hauld-B.log" || fail "B does not know it as a"
! grep 'caller=a ' "$SHARED/hauld-B.log" | grep -q 'peer=10\.77' || fail "a called by the network"
note "$(report downtimeMs) ms, $(report bytesOnWire) bytes"
migrate B "$PID" A
expect_completed
for host in A B; do
    expect_files "$host"
done

note "what is no socket"
for flags in "--fd-rpc 3" "--fd-rpc 3 --fd-mem 4 --fd-fs 5" "--fd-rpc 0 --fd-mem 1 --fd-fs 2"; do
    # shellcheck disable=SC2086 # several words
    migrate A "$PID" B $flags
    expect_refused INVALID_ARGUMENT
done
expect_healthy A "$PID"

note "an engine that ends while memory is on its way"
accept_as a
migrate_over "$nowhere" --bandwidth 4MiB &
job=$!
for ((try = 0; try < 200 * SLOW; try++)); do
    ! ctl A --json list --active | grep -q '"stage":[[:space:]]*"pre-copy"' || break
    sleep 0.1
done
accepted
engine_kill B
wait "$job"
[[ $(report error.reason "$(report migrations.0 "$(ctl A --json list)")") == DESTINATION_LOST ]] ||
    fail "not given up: $(ctl A --json list)"
expect_healthy A "$PID"

note "somebody whom the policy does not let in"
printf '{"rules": [{"identities": ["a"], "roles": ["partner"]}]}\n' >"$SHARED/policy.json"
engine_start B --policy /srv/shared/policy.json
accept_as stranger
migrate_over "$nowhere"
accepted
expect_refused PERMISSION_DENIED
expect_healthy A "$PID"

note "and once more"
accept_as a
migrate_over "$nowhere"
accepted
expect_completed
expect_gone A "$PID"
expect_healthy B "$PID"
