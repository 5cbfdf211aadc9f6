#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# hosts.sh: two "hosts", A (10.77.0.1) and B (10.77.0.2), as namespaces joined by a veth.
#
# usage: . hosts.sh                 inside the toolbox or the guest; then
#        hosts_up DIR               make them; DIR/shared is /srv/shared in both
#        on HOST CMD…               run CMD in host A or B and return its exit status
#        start_on HOST CMD…         start CMD detached; prints its pid in the host
#                                   (START_OUT=FILE: its output is appended to that file there)
#        link_cut, link_restore     as if the cable between them were pulled
#        link_rate MBIT             limit both directions; without MBIT: no limit
#        hosts_down                 end every process of both and remove what they left
#        hosts.sh prune             remove what killed runs left (empty cgroups)
#
# Each host has its own network, pids, mounts, cgroup root, hostname and IPC, its own /tmp, /run,
# /dev and /var/lib/haul, and shares the rest of / with the other. Its first process reaps orphans.
# Pids start far apart (A 1000, B 2000000) so that a migrated tree finds its own free, also after
# many migrations.
# shellcheck source-path=SCRIPTDIR
set -euo pipefail
shopt -s inherit_errexit

HOSTS_SELF=$(realpath "${BASH_SOURCE[0]}")
HOSTS_TREE=$(realpath "$(dirname "$HOSTS_SELF")/../..")
HOSTS_CGROUPS=/sys/fs/cgroup
# shellcheck source=namespace.sh
. "$(dirname "$HOSTS_SELF")/namespace.sh"

declare -A HOST_PID=() HOST_RUNNER=()
declare -A HOST_FIRST_PID=([A]=1000 [B]=2000000)
declare -A HOST_ADDRESS=([A]=10.77.0.1 [B]=10.77.0.2)
HOSTS_NAME=haul-lab-$$-$RANDOM

host_cgroup() {
    echo "$HOSTS_CGROUPS/$HOSTS_NAME-$1"
}

# Pids count up from here on; some kernels keep them below 32768 unless they are told.
host_pids() {
    echo 4194304 >/proc/sys/kernel/pid_max
    echo "$1" >/proc/sys/kernel/ns_last_pid
}

# Runs as the first process of a host.
host_init() {
    local host=$1 dir=$2 root=$2/$1/root
    hostname "$host"
    mount --bind / "$root"
    ns_mounts "$root"
    ns_bind "$HOSTS_TREE" "$root" ro
    mkdir -p "$root/srv/shared" "$root/var/lib/haul"
    mount --bind "$dir/shared" "$root/srv/shared"
    mount -t tmpfs -o mode=755 state "$root/var/lib/haul"
    ns_enter "$root"
    ns_close_fds
    # Processes in a group forbid controllers below it: leave the host's root group empty.
    mkdir "$HOSTS_CGROUPS/init"
    echo 1 >"$HOSTS_CGROUPS/init/cgroup.procs"
    host_controllers "$HOSTS_CGROUPS"
    ip link set lo up
    host_pids "$3"
    touch "/srv/shared/.up-$host"
    trap : TERM INT HUP
    # The shell reaps every orphan when SIGCHLD arrives, also while it waits.
    while :; do
        sleep infinity >/dev/null 2>&1 || true
    done
}

host_controllers() {
    local name
    for name in $(<"$1/cgroup.controllers"); do
        echo "+$name" >"$1/cgroup.subtree_control" 2>/dev/null || true
    done
}

# The one that started the host is in its root group still, and keeps controllers from below it.
host_empty_root() {
    local pid
    while read -r pid; do
        echo "$pid" >"$1/init/cgroup.procs" 2>/dev/null || true
    done <"$1/cgroup.procs"
    host_controllers "$1"
}

host_start() {
    local host=$1 dir=$2 cgroup child try
    cgroup=$(host_cgroup "$host")
    mkdir -p "$dir/$host/root" "$cgroup"
    (
        echo "$BASHPID" >"$cgroup/cgroup.procs"
        exec setpriv --pdeathsig KILL unshare --net --pid --mount --uts --ipc --cgroup --fork --kill-child \
            --propagation private bash "$HOSTS_SELF" init "$host" "$dir" "${HOST_FIRST_PID[$host]}"
    ) </dev/null >"$dir/$host/init.log" 2>&1 &
    HOST_RUNNER[$host]=$!
    for ((try = 0; try < 200; try++)); do
        child=$(pgrep -P "${HOST_RUNNER[$host]}" || true)
        if [[ -n $child && -e $dir/shared/.up-$host ]]; then
            HOST_PID[$host]=$child
            host_empty_root "$cgroup"
            return
        fi
        sleep 0.05
    done
    echo "host $host did not come up:" >&2
    cat "$dir/$host/init.log" >&2
    return 1
}

hosts_up() {
    local dir
    mkdir -p "$1/shared"
    dir=$(realpath "$1")
    rm -f "$dir"/shared/.up-*
    host_controllers "$HOSTS_CGROUPS"
    host_start A "$dir"
    host_start B "$dir"
    ip link add haul0 netns "${HOST_PID[A]}" type veth peer name haul0 netns "${HOST_PID[B]}"
    local host
    for host in A B; do
        on "$host" ip address add "${HOST_ADDRESS[$host]}/24" dev haul0
        on "$host" ip link set haul0 up
    done
}

on() {
    local host=$1
    shift
    (
        echo "$BASHPID" >"$(host_cgroup "$host")/init/cgroup.procs"
        exec nsenter --target "${HOST_PID[$host]}" --mount --uts --ipc --net --pid --cgroup --wdns=/ "$@"
    )
}

start_on() {
    local host=$1
    shift
    on "$host" bash "$HOSTS_SELF" spawn "${START_OUT:-/dev/null}" "$@"
}

# Runs in the host: the process gets its own session, no terminal, no stray file.
host_spawn() {
    local out=$1
    shift
    ns_close_fds
    setsid "$@" </dev/null >>"$out" 2>&1 &
    echo $!
}

link_cut() {
    on B ip link set haul0 down
}

link_restore() {
    on B ip link set haul0 up
}

link_rate() {
    local host
    for host in A B; do
        on "$host" tc qdisc del dev haul0 root 2>/dev/null || true
        [[ -z ${1:-} ]] ||
            on "$host" tc qdisc add dev haul0 root tbf rate "${1}mbit" burst 256k latency 400ms
    done
}

hosts_down() {
    local host cgroup
    for host in A B; do
        [[ -n ${HOST_RUNNER[$host]:-} ]] || continue
        cgroup=$(host_cgroup "$host")
        echo 1 >"$cgroup/cgroup.kill" || true
        wait "${HOST_RUNNER[$host]}" 2>/dev/null || true
        cgroup_remove "$cgroup"
        unset "HOST_RUNNER[$host]" "HOST_PID[$host]"
    done
}

cgroup_remove() {
    local try
    for ((try = 0; try < 50; try++)); do
        find "$1" -depth -type d -exec rmdir {} + 2>/dev/null || true
        [[ -e $1 ]] || return 0
        sleep 0.1
    done
    echo "could not remove $1, continuing" >&2
}

hosts_prune() {
    local cgroup
    for cgroup in "$HOSTS_CGROUPS"/haul-lab-*; do
        # One that is just being made is empty, too.
        [[ -n $(find "$cgroup" -maxdepth 0 -mmin +2 2>/dev/null) ]] || continue
        ! grep -q '^populated 0' "$cgroup/cgroup.events" || cgroup_remove "$cgroup"
    done
}

if [[ ${BASH_SOURCE[0]} == "$0" ]]; then
    case ${1:-} in
    init) host_init "${@:2}" ;;
    spawn) host_spawn "${@:2}" ;;
    prune) hosts_prune ;;
    *)
        sed -n '4,/^set/s/^# \{0,1\}//p' "$0" >&2
        exit 2
        ;;
    esac
fi
