#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# guest-init.sh: the first process of the guest: prepares the machine, says so, runs /job/run, prints
# its status for lab.sh and powers off.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8
# Emulated, a carry-less multiplication takes so long that AES-GCM is three times as fast without it.
! grep -q 'QEMU TCG' /proc/cpuinfo || export OPENSSL_ia32cap='~0x200000000'
mount -t cgroup2 cgroup2 /sys/fs/cgroup
# Not over the job: the tree may be below /tmp.
[ -n "$(ls -A /tmp)" ] || mount -t tmpfs -o mode=1777 tmp /tmp
mount -t tmpfs -o mode=755 run /run
mkdir -p /dev/pts /dev/shm
mount -t devpts -o ptmxmode=666,mode=620,gid=5 devpts /dev/pts
mount -t tmpfs -o mode=1777 shm /dev/shm
mount -o remount,rw /
ln -sf /proc/self/fd /dev/fd
hostname guest
echo '127.0.0.1 localhost guest' >/etc/hosts
ip link set lo up
modprobe -a -q veth virtio_net unix_diag inet_diag tcp_diag udp_diag raw_diag netlink_diag \
    af_packet_diag nf_tables overlay tun bridge sch_netem sch_tbf
printf '\n%s began\n' "$(</job/marker)"
/bin/bash /job/run </dev/null
status=$?
printf '\n%s %d\n' "$(</job/marker)" "$status"
sleep 0.2
echo b >/proc/sysrq-trigger
sleep 60
