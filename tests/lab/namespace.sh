#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# namespace.sh: what a root directory needs to become the / of a new mount namespace.
#
# usage: . namespace.sh
#        ns_mounts ROOT        /proc /sys (with cgroup2) /dev /tmp /run
#        ns_bind DIR ROOT [ro] DIR at the same path under ROOT
#        ns_enter ROOT         makes ROOT the root of the calling process
#        ns_close_fds          closes all but stdin, stdout and stderr: CRIU refuses a process
#                              that has a file open outside its mounts
set -euo pipefail

ns_dev() {
    local dev=$1 name major minor
    mount -t tmpfs -o mode=755,size=1m dev "$dev"
    while read -r name major minor; do
        mknod -m 666 "$dev/$name" c "$major" "$minor"
    done <<<$'null 1 3\nzero 1 5\nfull 1 7\nrandom 1 8\nurandom 1 9\ntty 5 0'
    mkdir "$dev/pts" "$dev/shm" "$dev/net" "$dev/mqueue"
    mknod -m 666 "$dev/net/tun" c 10 200
    mount -t devpts -o newinstance,ptmxmode=666,mode=620,gid=5 devpts "$dev/pts"
    mount -t tmpfs -o mode=1777 shm "$dev/shm"
    ln -s pts/ptmx "$dev/ptmx"
    ln -s /proc/self/fd "$dev/fd"
    ln -s fd/0 "$dev/stdin"
    ln -s fd/1 "$dev/stdout"
    ln -s fd/2 "$dev/stderr"
}

ns_mounts() {
    mount -t proc proc "$1/proc"
    mount -t sysfs sysfs "$1/sys"
    mount -t cgroup2 cgroup2 "$1/sys/fs/cgroup"
    ns_dev "$1/dev"
    mount -t tmpfs -o mode=1777 tmp "$1/tmp"
    mount -t tmpfs -o mode=755 run "$1/run"
}

ns_bind() {
    mkdir -p "$2$1"
    mount --rbind "$1" "$2$1"
    [[ ${3:-} != ro ]] || mount -o remount,bind,ro "$2$1"
}

ns_enter() {
    cd "$1"
    mkdir -p run/oldroot
    pivot_root . run/oldroot
    umount -l /run/oldroot
    rmdir /run/oldroot
    cd /
}

ns_close_fds() {
    local fd
    for fd in /proc/self/fd/*; do
        fd=${fd##*/}
        ((fd <= 2 || fd == 255)) || eval "exec $fd>&-"
    done
}
