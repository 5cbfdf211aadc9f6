#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# native_session: CRIU is started once when an engine starts, and once a migration on each side,
# whatever number of rounds. Every start is counted, however short its life: a script that notes it and
# goes on as CRIU lies over CRIU's own file. Runs in the guest too, where there are rounds.
# shellcheck source-path=SCRIPTDIR
. "$(dirname "$0")/../haul.sh"

# Prints "PARENT ARGUMENTS" of every start of CRIU at a host since the last call.
starts() {
    sed -n "s/^$1 //p" "$SHARED/criu.log"
    sed -i "/^$1 /d" "$SHARED/criu.log"
}

# One start, by the engine itself.
expect_one_session() {
    local host=$1 text
    text=$(starts "$host")
    note "$host: $text"
    [[ $text =~ ^${ENGINE[$host]}\ swrk\ [0-9]+$ ]] || fail "$host started CRIU so: $text"
}

move() {
    migrate "$1" "$PID" "$2" --max-downtime 1ms --max-rounds 3 --on-timeout stop-copy
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
echo "$(cat /proc/sys/kernel/hostname) $PPID $*" >>/srv/shared/criu.log
exec /srv/shared/criu.real "$@"
END
chmod +x "$SHARED/criu.sh"
for host in A B; do
    touch "$SHARED/criu.log"
    on "$host" mount --bind /srv/shared/criu.sh /usr/sbin/criu
    engine_start "$host"
    expect_one_session "$host"
done
workload A memory 64 10
move A B
move B A
for host in A B; do
    text=$(starts "$host")
    [[ -z $text ]] || fail "$host started CRIU after the migrations: $text"
done
