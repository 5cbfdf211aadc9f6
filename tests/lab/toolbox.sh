#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# toolbox.sh: the Debian 13 root in which haul is built and tested, whatever this machine runs.
#
# usage: toolbox.sh ensure           build the root if it is missing; its path is the last line
#        toolbox.sh path             print the path, built or not
#        toolbox.sh run CMD [ARG…]   run CMD inside and return its exit status
#
# CMD gets its own mount and pid namespaces, the working tree at the same path (writable), and the
# same working directory. Everything else it writes is gone when it ends: the root is the lower layer
# of an overlay in memory. Variables named HAUL_*, CI and TERM are passed on.
# shellcheck source-path=SCRIPTDIR
set -euo pipefail
shopt -s inherit_errexit

TOOLBOX_DIR=$(dirname "$(realpath "${BASH_SOURCE[0]}")")
TOOLBOX_TREE=$(realpath "$TOOLBOX_DIR/../..")
# shellcheck source=rootfs.sh
. "$TOOLBOX_DIR/rootfs.sh"
# shellcheck source=namespace.sh
. "$TOOLBOX_DIR/namespace.sh"
mapfile -t TOOLBOX_PACKAGES < <(tr -s ' ' '\n' <"$TOOLBOX_DIR/toolbox-packages")

# The first process of the namespaces: makes the mounts, runs the command and reaps.
inside() {
    local lower=$1 cwd=$2 scratch=$ROOTFS_CACHE/mnt
    shift 2
    mount -t tmpfs -o mode=755 toolbox "$scratch"
    mkdir "$scratch/upper" "$scratch/work" "$scratch/root"
    mount -t overlay -o "lowerdir=$lower,upperdir=$scratch/upper,workdir=$scratch/work" toolbox "$scratch/root"
    local root=$scratch/root
    cp /etc/resolv.conf "$root/etc/resolv.conf"
    printf '127.0.0.1 localhost toolbox %s\n' "$(hostname)" >"$root/etc/hosts"
    ns_mounts "$root"
    ns_bind "$TOOLBOX_TREE" "$root"
    ns_enter "$root"
    ns_close_fds
    cd "$cwd" 2>/dev/null || cd "$TOOLBOX_TREE"

    local pass=() name status=0
    while read -r name; do pass+=("$name=${!name}"); done < <(compgen -e | grep -E '^(HAUL_.*|CI|TERM)$')
    # The background job of the outer shell has SIGINT and SIGQUIT ignored: undo that.
    env -i --default-signal HOME=/root LC_ALL=C.UTF-8 USER=root \
        PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
        ${pass[@]+"${pass[@]}"} "$@" || status=$?
    exit "$status"
}

run() {
    local root
    root=$(rootfs_ensure toolbox "${TOOLBOX_PACKAGES[@]}")
    mkdir -p "$ROOTFS_CACHE/mnt"
    setpriv --pdeathsig KILL unshare --mount --pid --fork --kill-child --propagation private \
        bash "$TOOLBOX_DIR/toolbox.sh" inside "$root" "$PWD" "$@" <&0 &
    local child=$! status=0
    trap 'kill -KILL $child 2>/dev/null; exit 130' INT TERM HUP
    wait "$child" || status=$?
    exit "$status"
}

case ${1:-} in
ensure) rootfs_ensure toolbox "${TOOLBOX_PACKAGES[@]}" ;;
path) rootfs_path toolbox "${TOOLBOX_PACKAGES[@]}" ;;
run)
    [[ $# -gt 1 ]] || { echo "usage: toolbox.sh run CMD [ARG…]" >&2; exit 2; }
    run "${@:2}"
    ;;
inside) inside "${@:2}" ;;
*)
    sed -n '2,/^set/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2
    exit 2
    ;;
esac
