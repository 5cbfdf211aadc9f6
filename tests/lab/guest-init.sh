#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# guest-init.sh: the first process of the guest: prepares the machine, says so, runs /job/run, prints
# its status for lab.sh and powers off.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8
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
# CRIU's breakpoints are perf events: with the first one the kernel patches its scheduler, with the last one
# back, and an emulated processor that meets the patch half done brings the kernel down (int3). So there is always one.
if grep -q 'QEMU TCG' /proc/cpuinfo; then
    coproc python3 -c '
import ctypes, struct, time
SYS_PERF_EVENT_OPEN, SOFTWARE, ATTR_BYTES, DUMMY = 298, 1, 112, 9
attr = struct.pack("IIQ", SOFTWARE, ATTR_BYTES, DUMMY).ljust(ATTR_BYTES, bytes(1))
event = ctypes.CDLL(None).syscall(SYS_PERF_EVENT_OPEN, attr, 0, -1, -1, 0)
print("held" if event >= 0 else "not held", flush=True)
time.sleep(1e9)'
    read -r held <&"${COPROC[0]}"
    [ "$held" = held ] || echo "guest-init.sh: no perf event is held; the kernel may die of CRIU's breakpoints"
fi
printf '\n%s began\n' "$(</job/marker)"
/bin/bash /job/run </dev/null
status=$?
printf '\n%s %d\n' "$(</job/marker)" "$status"
sleep 0.2
echo b >/proc/sysrq-trigger
sleep 60
