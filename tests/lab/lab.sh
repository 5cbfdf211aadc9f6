#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# lab.sh: a QEMU guest with Debian 13's stock cloud kernel, for what this machine's kernel lacks.
#
# usage: lab.sh ensure                        build the guest's root and disk if they are missing
#        lab.sh run [--timeout S] CMD [ARG…]  boot, run CMD in the working tree, return its status
#        . lab.sh                             its functions, for guests.sh
#
# The guest gets a copy of tests/lab, demo.sh, README.md and of the programs in HAUL_GUEST_BUILD (default
# build/release) at the same path as here. What it writes is gone afterwards. After S seconds
# (default 900) it is killed and the status is 124. HAUL_ACCEL=kvm makes it fast where KVM works.
# HAUL_* and CI are passed on.
# shellcheck source-path=SCRIPTDIR
set -euo pipefail
shopt -s inherit_errexit

LAB_DIR=$(dirname "$(realpath "${BASH_SOURCE[0]}")")
LAB_TREE=$(realpath "$LAB_DIR/../..")
# shellcheck source=rootfs.sh
. "$LAB_DIR/rootfs.sh"
mapfile -t LAB_PACKAGES < <(tr -s ' ' '\n' <"$LAB_DIR/guest-packages")

make_initrd() {
    local root=$1 out=$2 kernel=$3 dir module
    dir=$(mktemp -d)
    mkdir "$dir/bin"
    cp "$(command -v busybox)" "$dir/bin/busybox"
    install -m 755 "$LAB_DIR/guest-initrd.sh" "$dir/init"
    ln -s busybox "$dir/bin/sh"
    # Of each module and those it needs, in order; the kernel has some built in.
    chroot "$root" modprobe --set-version "$kernel" --show-depends --all virtio_pci virtio_blk crc32c-intel ext4 |
        awk '$1 == "insmod" && !seen[$2]++ { print $2 }' |
        while read -r module; do
            case $module in
            *.xz) xz -dc "$root$module" ;;
            *.zst) zstd -dcq "$root$module" ;;
            *) cat "$root$module" ;;
            esac >"$dir/$(basename "${module%.ko*}").ko"
            echo "/$(basename "${module%.ko*}").ko"
        done >"$dir/modules"
    (cd "$dir" && find . | cpio --quiet -o -H newc | gzip -1) >"$out"
    rm -rf "$dir"
}

make_disk() {
    local root=$1 out=$2 kernel size
    kernel=$(cd "$root/usr/lib/modules" && echo *)
    size=$(du -s --block-size=M "$root" | cut -dM -f1)
    mkdir -p "$out"
    cp "$root/boot/vmlinuz-$kernel" "$out/vmlinuz"
    make_initrd "$root" "$out/initrd" "$kernel"
    mke2fs -q -t ext4 -O ^has_journal -d "$root" "$out/disk" "$((size + 2048))M"
}

# Prints the directory with vmlinuz, initrd and disk.
ensure() {
    local root disk key
    host_packages busybox=busybox-static cpio=cpio mke2fs=e2fsprogs zstd=zstd xz=xz-utils
    root=$(rootfs_ensure guest "${LAB_PACKAGES[@]}")
    key=$({ echo "$root"; declare -f make_disk make_initrd; cat "$LAB_DIR/guest-initrd.sh"; } | sha256sum)
    disk=$ROOTFS_CACHE/disk-${key:0:12}
    [[ -d $disk ]] || flock "$ROOTFS_CACHE/disk.lock" bash "$LAB_DIR/lab.sh" disk "$root" "$disk" >&2
    echo "$disk"
}

# Runs under the lock.
ensure_disk() {
    local root=$1 disk=$2
    [[ ! -d $disk ]] || return 0
    echo "making the guest's disk"
    rm -rf "$ROOTFS_CACHE"/disk-*.new
    make_disk "$root" "$disk.new"
    mv "$disk.new" "$disk"
    find "$ROOTFS_CACHE" -maxdepth 1 -name 'disk-*' ! -path "$disk" -mtime +2 -exec rm -rf {} +
}

# The second disk: a tar of the job and of what it needs from the tree.
make_job() {
    local out=$1 marker=$2 build=${HAUL_GUEST_BUILD:-build/release} dir name
    shift 2
    dir=$(mktemp -d)
    mkdir -p "$dir/job" "$dir$LAB_TREE"
    cp "$LAB_DIR/guest-init.sh" "$dir/job/init.sh"
    echo "$marker" >"$dir/job/marker"
    {
        while read -r name; do
            printf 'export %s=%q\n' "$name" "${!name}"
        done < <(compgen -e | grep -E '^(HAUL_.*|CI)$' | grep -vE '^HAUL_(CACHE|MIRROR)$')
        printf 'cd %q\n' "$LAB_TREE"
        printf '%q ' "$@"
        echo
    } >"$dir/job/run"
    local paths=() path
    for path in tests/lab demo.sh README.md "$build/cmd" "$build/rpc/libhaul" "$build/workloads"; do
        [[ ! -e $LAB_TREE/$path ]] || paths+=("$path")
    done
    (
        cd "$LAB_TREE"
        find "${paths[@]}" \( -type f -o -type l \) ! -path '*CMakeFiles*' ! -name '*.a' ! -name '*.cmake' -print0
    ) | tar -C "$LAB_TREE" --null -T - -cf - | tar -C "$dir$LAB_TREE" -xf -
    tar -C "$dir" -cf "$out" .
    rm -rf "$dir"
}

# from_toolbox PROGRAM: sets FROM_TOOLBOX, the toolbox's program to be run here, whatever this machine has.
from_toolbox() {
    local root
    root=$("$LAB_DIR/toolbox.sh" ensure | tail -n 1)
    FROM_TOOLBOX=("$root/usr/lib64/ld-linux-x86-64.so.2" --library-path "$root/usr/lib/x86_64-linux-gnu" "$root$1")
    TOOLBOX_SHARE=$root/usr/share
}

# guest_command DISK JOB CPUS MIB: sets GUEST_COMMAND, a QEMU that talks on stdin and stdout. From version 8.2 on
# it emulates the processor's instructions for AES-GCM by those of the machine's own.
guest_command() {
    from_toolbox /usr/bin/qemu-system-x86_64
    GUEST_COMMAND=("${FROM_TOOLBOX[@]}" -L "$TOOLBOX_SHARE/qemu" -L "$TOOLBOX_SHARE/seabios" -accel "${HAUL_ACCEL:-tcg,thread=multi}" -cpu max -smp "$3" -m "$4"
        -nodefaults -display none -monitor none -serial stdio -no-reboot
        -kernel "$1/vmlinuz" -initrd "$1/initrd"
        -append "console=ttyS0 quiet panic=-1 mitigations=off no_timer_check rdinit=/init"
        -drive "file=$1/disk,format=raw,if=virtio,snapshot=on"
        -drive "file=$2,format=raw,if=virtio,readonly=on")
}

boot() {
    guest_command "$1" "$2" 2 "${HAUL_GUEST_MIB:-3072}"
    # Each dies with the one that started it.
    setpriv --pdeathsig KILL timeout --foreground -k 2 "$3" setpriv --pdeathsig KILL \
        "${GUEST_COMMAND[@]}" </dev/null
}

# boot_job DISK MARKER LIMIT: one boot. Prints what the job says; sets BEGAN, and STATUS once the job is over.
boot_job() {
    local marker=$2 line
    BEGAN=''
    STATUS=''
    while IFS= read -r line || [[ -n $line ]]; do
        line=${line%$'\r'}
        if [[ $line == "$marker began" ]]; then
            BEGAN=yes
        elif [[ $line == "$marker "* ]]; then
            STATUS=${line##* }
        elif [[ -z $STATUS ]]; then
            printf '%s\n' "$line"
        fi
        # $! is the process substitution with the guest below.
    done < <(boot "$1" "$LAB_JOB" "$3")
}

run() {
    local limit=900 disk marker try
    if [[ ${1:-} == --timeout ]]; then
        limit=$2
        shift 2
    fi
    disk=$(ensure)
    marker=lab-exit-$RANDOM$RANDOM$RANDOM
    # Not local: the trap needs it.
    LAB_JOB=$(mktemp)
    trap 'rm -f "$LAB_JOB"; kill "$!" 2>/dev/null || true' EXIT
    trap 'exit 130' INT TERM HUP
    make_job "$LAB_JOB" "$marker" "$@"
    # An emulated kernel now and then dies of an int3 of its own while it patches its code at boot.
    for try in 1 2 3; do
        boot_job "$disk" "$marker" "$limit"
        [[ -z $BEGAN ]] || break
        echo "lab.sh: the guest did not come up (try $try of 3)" >&2
    done
    if [[ -z $STATUS ]]; then
        echo "lab.sh: the guest ended without a status (more than $limit s, or it crashed)" >&2
        STATUS=124
    fi
    exit "$STATUS"
}

if [[ ${BASH_SOURCE[0]} == "$0" ]]; then
    case ${1:-} in
    ensure) ensure ;;
    disk) ensure_disk "${@:2}" ;;
    run)
        [[ $# -gt 1 ]] || { echo "usage: lab.sh run [--timeout S] CMD [ARG…]" >&2; exit 2; }
        run "${@:2}"
        ;;
    *)
        sed -n '4,/^set/s/^# \{0,1\}//p' "$0" >&2
        exit 2
        ;;
    esac
fi
