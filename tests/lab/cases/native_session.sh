#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# native_session: CRIU is started once when an engine starts, and once a migration on each side,
# whatever number of rounds. Every start is counted: a script that notes it and goes on as CRIU lies
# over CRIU's own file. Runs in the guest too, where there are rounds.
# shellcheck source-path=SCRIPTDIR disable=SC2119,SC2120
. "$(dirname "$0")/../haul.sh"

# Prints "PID ARGUMENTS" of every start of CRIU at a host since the last call.
starts() {
    sed -n "s/^$1 //p" "$SHARED/criu.log"
    sed -i "/^$1 /d" "$SHARED/criu.log"
}

# Notes the pid of every CRIU that the engine of a host has as its child, until the case ends.
watch_sessions() {
    # shellcheck disable=SC2016 # runs in the host
    START_OUT=/srv/shared/sessions-$1 start_on "$1" bash -c 'while :; do
        pgrep -P "$1" -f "swrk [0-9]|^criu: " | grep -vxF -f "$2" | tee -a "$2" || true; sleep 0.01; done' \
        bash "${ENGINE[$1]}" "/srv/shared/seen-$1" >/dev/null
}

expect_one_session() {
    local host=$1 text pid
    text=$(starts "$host")
    note "$host: $text"
    [[ $(wc -l <<<"$text") == 1 && $text =~ ^([0-9]+)\ swrk\ [0-9]+$ ]] || fail "$host started CRIU so: $text"
    pid=${BASH_REMATCH[1]}
    [[ $(sort -u "$SHARED/sessions-$host") == "$pid" ]] ||
        fail "$host had the sessions $(sort -u "$SHARED/sessions-$host" | tr '\n' ' ')instead of $pid"
    : >"$SHARED/sessions-$host"
}

# The process of a session is there from the first stage on: its pid is told by the first line of the
# watcher, its end by the last stage.
move() {
    migrate "$1" "$PID" "$2" --max-downtime 1ms --max-rounds 3
    expect_completed
    expect_healthy "$2" "$PID"
    note "rounds: $(report rounds | grep -o pagesSent | wc -l), tracking $(report tracking)"
    expect_one_session A
    expect_one_session B
}

hosts_up "$LAB"
make_pki
cp /usr/sbin/criu "$SHARED/criu.real"
cat >"$SHARED/criu.sh" <<'END'
#!/bin/sh
echo "$(cat /proc/sys/kernel/hostname) $$ $*" >>/srv/shared/criu.log
exec /srv/shared/criu.real "$@"
END
chmod +x "$SHARED/criu.sh"
for host in A B; do
    touch "$SHARED/criu.log" "$SHARED/seen-$host" "$SHARED/sessions-$host"
    on "$host" mount --bind /srv/shared/criu.sh /usr/sbin/criu
    engine_start "$host"
    text=$(starts "$host")
    [[ $text =~ ^[0-9]+\ swrk\ [0-9]+$ ]] || fail "at its start $host started CRIU so: $text"
    watch_sessions "$host"
done
workload A memory 64 10
move A B
move B A
for host in A B; do
    text=$(starts "$host")
    [[ -z $text ]] || fail "$host started CRIU after the migrations: $text"
done
