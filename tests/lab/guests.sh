#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# guests.sh: the hosts A and B as two QEMU guests with a kernel each, which can lose their power.
#
# usage: . guests.sh              on this machine, in place of hosts.sh: the same words, and
#        power_off HOST           at once: what was not synced to its disk is lost
#        power_on HOST            boot it again; its disk for /var/lib/haul is the one it had
#        guests.sh serve HOST     inside a guest: its first job
#
# The guests share an Ethernet (haul0), and a directory with this machine (/srv/shared, virtiofs). A second
# network card is for `on`: each connection to a guest's guest_agent.py is one command. Wants a network namespace
# of its own (run.sh makes it), since the ports on the loopback are fixed. Emulated clocks drift: guest_clock
# HOST sets one to this machine's, as a boot does.
# shellcheck source-path=SCRIPTDIR
set -euo pipefail
shopt -s inherit_errexit

GUESTS_SELF=$(realpath "${BASH_SOURCE[0]}")
# shellcheck source=hosts.sh
. "$(dirname "$GUESTS_SELF")/hosts.sh"
# shellcheck source=lab.sh
. "$(dirname "$GUESTS_SELF")/lab.sh"

GUEST_MIB=512
GUEST_STATE_MIB=256
declare -A GUEST_NUMBER=([A]=1 [B]=2) GUEST_QEMU=()

# --- inside a guest ---

serve() {
    local host=$1 number=${GUEST_NUMBER[$1]} card
    hostname "$host"
    mkdir -p /var/lib/haul /srv/shared
    mount -t ext4 /dev/vdc /var/lib/haul
    mount -t virtiofs shared /srv/shared
    for card in /sys/class/net/*; do
        case $(<"$card/address") in
        52:54:00:00:01:*) ip link set "${card##*/}" name haul0 ;;
        52:54:00:00:00:*) ip link set "${card##*/}" name on0 ;;
        esac
    done
    ip address add 10.0.2.15/24 dev on0
    ip address add "${HOST_ADDRESS[$host]}/24" dev haul0
    ip link set on0 up
    ip link set haul0 up
    host_controllers "$HOSTS_CGROUPS"
    host_pids "${HOST_FIRST_PID[$host]}"
    echo "guest $host (${number}) serves"
    exec python3 "$(dirname "$GUESTS_SELF")/guest_agent.py" 7000
}

# --- the words of hosts.sh ---

on() {
    local host=$1
    shift
    (
        { exec 3<>"/dev/tcp/127.0.0.1/700${GUEST_NUMBER[$host]}"; } 2>/dev/null || exit 255
        { echo $#; printf '%s\0' "$@"; } >&3
        # Nothing comes from a guest that has lost its power.
        read -r status out err <&3 2>/dev/null || exit 255
        head -c "$out" <&3
        head -c "$err" <&3 >&2
        exit "$status"
    )
}

# QEMU is the process itself, so that it can be killed as itself.
guest_start() {
    local host=$1 dir=$GUESTS_DIR/$1 number=${GUEST_NUMBER[$1]} peer=B
    [[ $host == A ]] || peer=A
    rm -f "$dir/fs.sock" "$dir/lan.sock"
    from_toolbox /usr/libexec/virtiofsd
    setpriv --pdeathsig KILL "${FROM_TOOLBOX[@]}" --socket-path="$dir/fs.sock" \
        --shared-dir "$GUESTS_DIR/shared" --cache never --sandbox chroot </dev/null >>"$dir/virtiofsd.log" 2>&1 &
    GUEST_FS[$host]=$!
    until [[ -S $dir/fs.sock ]]; do
        kill -0 "${GUEST_FS[$host]}" || { cat "$dir/virtiofsd.log" >&2; return 1; }
        sleep 0.05
    done
    guest_command "$GUESTS_DISK" "$dir/job" 1 "$GUEST_MIB"
    setpriv --pdeathsig KILL "${GUEST_COMMAND[@]}" \
        -drive "file=$dir/state,format=raw,if=virtio,cache=writeback" \
        -object "memory-backend-memfd,id=memory,size=${GUEST_MIB}M,share=on" -machine memory-backend=memory \
        -chardev "socket,id=fs,path=$dir/fs.sock" -device vhost-user-fs-pci,chardev=fs,tag=shared \
        -netdev "user,id=on,restrict=on,hostfwd=tcp:127.0.0.1:700$number-10.0.2.15:7000" \
        -device "virtio-net-pci,netdev=on,mac=52:54:00:00:00:0$number" \
        -netdev "dgram,id=lan,local.type=unix,local.path=$dir/lan.sock,remote.type=unix,remote.path=$GUESTS_DIR/$peer/lan.sock" \
        -device "virtio-net-pci,netdev=lan,mac=52:54:00:00:01:0$number" \
        </dev/null >>"$dir/console" 2>&1 &
    GUEST_QEMU[$host]=$!
}
declare -A GUEST_FS=()

# Waits until it answers.
guest_wait() {
    local host=$1
    until on "$host" true 2>/dev/null; do
        if ! kill -0 "${GUEST_QEMU[$host]}" 2>/dev/null; then
            echo "guest $host did not come up:" >&2
            tail -n 20 "$GUESTS_DIR/$host/console" >&2
            return 1
        fi
        sleep 0.2
    done
    guest_clock "$host"
}

guest_clock() {
    on "$1" date -s "@$EPOCHREALTIME" >/dev/null
}

power_off() {
    kill -KILL "${GUEST_QEMU[$1]}"
    wait "${GUEST_QEMU[$1]}" 2>/dev/null || true
    wait "${GUEST_FS[$1]}" 2>/dev/null || true
    unset "GUEST_QEMU[$1]"
}

power_on() {
    guest_start "$1"
    guest_wait "$1"
}

hosts_up() {
    local host
    mkdir -p "$1/shared"
    GUESTS_DIR=$(realpath "$1")
    GUESTS_DISK=$(ensure)
    for host in A B; do
        mkdir "$GUESTS_DIR/$host"
        make_job "$GUESTS_DIR/$host/job" unused bash "$GUESTS_SELF" serve "$host"
        mke2fs -q -t ext4 "$GUESTS_DIR/$host/state" "${GUEST_STATE_MIB}M"
        guest_start "$host"
    done
    for host in A B; do
        guest_wait "$host"
    done
}

hosts_down() {
    local host
    for host in A B; do
        [[ -z ${GUEST_QEMU[$host]:-} ]] || power_off "$host"
    done
}

if [[ ${BASH_SOURCE[0]} == "$0" ]]; then
    case ${1:-} in
    serve) serve "$2" ;;
    *)
        sed -n '4,/^set/s/^# \{0,1\}//p' "$0" >&2
        exit 2
        ;;
    esac
fi
