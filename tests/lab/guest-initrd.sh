#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# guest-initrd.sh: the init of the guest's initramfs (busybox): mounts the disk, unpacks the job from
# the second disk and goes on with guest-init.sh.
/bin/busybox mkdir -p /proc /sys /dev /root
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sysfs /sys
/bin/busybox mount -t devtmpfs dev /dev
while read -r module; do
    /bin/busybox insmod "$module"
done </modules
/bin/busybox mount -t ext4 /dev/vda /root
/bin/busybox tar -x -C /root -f /dev/vdb
for dir in dev sys proc; do
    /bin/busybox mount --move "/$dir" "/root/$dir"
done
exec /bin/busybox switch_root /root /bin/bash /job/init.sh
