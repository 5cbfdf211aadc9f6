#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# rootfs.sh: makes and caches Debian 13 root directories by debootstrap.
#
# usage: . rootfs.sh                      then call the functions
#        rootfs_ensure NAME PACKAGE…      builds the root when missing; prints its path
#        rootfs_path NAME PACKAGE…        prints the path, whether or not it is there
#        host_packages COMMAND=PACKAGE…   installs what this machine lacks
#
# A PACKAGE kernel:NAME is the kernel that NAME depends on: unpacked, not installed.
# A root is keyed by the packages and by how it is built, so changing either makes a new one. The mirror
# is the one this machine's apt uses; HAUL_MIRROR overrides it, HAUL_CACHE the place of the cache.
# Roots that nobody asked for in two weeks go when another of the same name is built.
set -euo pipefail
shopt -s inherit_errexit

ROOTFS_SUITE=trixie
ROOTFS_CACHE=${HAUL_CACHE:-${HOME:-/root}/.cache/haul-lab}
ROOTFS_SELF=$(realpath "${BASH_SOURCE[0]}")

host_packages() {
    local pair missing=()
    for pair in "$@"; do
        command -v "${pair%%=*}" >/dev/null || missing+=("${pair#*=}")
    done
    ((${#missing[@]})) || return 0
    echo "installing on this machine: ${missing[*]}" >&2
    apt-get update -qq >&2
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >&2
}

rootfs_mirror() {
    if [[ -n ${HAUL_MIRROR:-} ]]; then
        echo "$HAUL_MIRROR"
        return
    fi
    local uri
    for _ in 1 2; do
        # shellcheck disable=SC2016 # the format is apt's, not the shell's
        uri=$(apt-get indextargets --format '$(REPO_URI)' 'Label: Debian' 'Component: main' | head -n 1)
        [[ -z $uri ]] || break
        apt-get update -qq >&2
    done
    [[ -n $uri ]] || { echo "apt knows no Debian mirror: set HAUL_MIRROR" >&2; return 1; }
    echo "$uri"
}

rootfs_path() {
    local name=$1 key
    shift
    key=$({ printf '%s\n' "$ROOTFS_SUITE" "$@"; declare -f rootfs_build rootfs_kernel; } | sha256sum)
    echo "$ROOTFS_CACHE/$name-${key:0:12}"
}

rootfs_ensure() {
    local path
    path=$(rootfs_path "$@")
    if [[ ! -d $path ]]; then
        mkdir -p "$ROOTFS_CACHE"
        flock "$ROOTFS_CACHE/$1.lock" bash "$ROOTFS_SELF" make "$path" "${@:2}" >&2 || return 1
    fi
    touch "$path"
    echo "$path"
}

# Runs under the lock. A root appears under its name only when it is complete.
rootfs_make() {
    local path=$1
    [[ ! -d $path ]] || return 0
    host_packages debootstrap=debootstrap
    echo "building $path (log: ${path%-*}.log)"
    rm -rf "${path%-*}"-*.new
    # A mount namespace of its own, so that no failure leaves a mount behind.
    if ! unshare --mount --propagation private bash "$ROOTFS_SELF" build "$path.new" "${@:2}" \
        </dev/null >"${path%-*}.log" 2>&1; then
        tail -n 20 "${path%-*}.log"
        return 1
    fi
    touch "$path.new" # its time is that of the last use, not of some package
    mv "$path.new" "$path"
    find "$ROOTFS_CACHE" -maxdepth 1 -name "$(basename "${path%-*}")-*" -mtime +14 -exec rm -rf {} +
}

rootfs_build() {
    local root=$1 package packages=() kernels=()
    shift
    debootstrap --variant=minbase --include=ca-certificates "$ROOTFS_SUITE" "$root" "$(rootfs_mirror)"
    printf '#!/bin/sh\nexit 101\n' >"$root/usr/sbin/policy-rc.d"
    chmod +x "$root/usr/sbin/policy-rc.d"
    printf 'force-unsafe-io\npath-exclude /usr/share/doc/*\npath-exclude /usr/share/man/*\n' \
        >"$root/etc/dpkg/dpkg.cfg.d/lab"
    printf 'APT::Install-Recommends "false";\nAcquire::Languages "none";\n' >"$root/etc/apt/apt.conf.d/90lab"
    cp /etc/resolv.conf "$root/etc/resolv.conf"
    mountpoint -q "$root/proc" || mount -t proc proc "$root/proc"
    for package in "$@"; do
        case $package in
        kernel:*) kernels+=("${package#*:}") ;;
        *) packages+=("$package") ;;
        esac
    done
    DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8 chroot "$root" apt-get install -y -qq "${packages[@]}"
    ((${#kernels[@]} == 0)) || rootfs_kernel "$root" "${kernels[@]}"
    chroot "$root" apt-get clean
    umount -R "$root/proc"
    : >"$root/etc/resolv.conf"
}

rootfs_kernel() {
    local root=$1 name image
    shift
    for name in "$@"; do
        image=$(chroot "$root" apt-cache depends "$name" | awk '/Depends: linux-image/ { print $2 }')
        chroot "$root" sh -c "cd /tmp && apt-get download -qq $image && dpkg-deb -x $image*.deb / && rm $image*.deb"
        chroot "$root" depmod "${image#linux-image-}"
    done
}

if [[ ${BASH_SOURCE[0]} == "$0" ]]; then
    case ${1:-} in
    make) rootfs_make "${@:2}" ;;
    build) rootfs_build "${@:2}" ;;
    esac
fi
