#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# entrypoint.sh: what a container of the haul image does.
#
# usage: hauld [FLAG…]       an engine, as HAUL_NODE (default: the host name), with that name's certificate
#        pki NAME…           make the authority and these nodes' certificates in /etc/haul/pki, once
#        COMMAND [ARG…]      anything else, for instance haulctl
#
# An engine needs the capabilities SYS_ADMIN, SYS_PTRACE, SYS_TIME and NET_ADMIN, no seccomp and no AppArmor profile,
# and cgroup v2.
set -eu

PKI=/etc/haul/pki

# hauld fences workloads with cgroup v2: a writable one must be at /sys/fs/cgroup, with this container's
# group as its root, so that engines on one machine do not share their groups.
own_cgroups() {
	is_ours="test -e /sys/fs/cgroup/cgroup.type -a -w /sys/fs/cgroup/cgroup.procs"
	$is_ours && mkdir -p /sys/fs/cgroup/haul 2>/dev/null && return 0
	mount -t cgroup2 -o nsdelegate cgroup2 /sys/fs/cgroup 2>/dev/null || mount -t cgroup2 cgroup2 /sys/fs/cgroup || {
		echo "entrypoint: cannot mount cgroup v2: start the container with --cap-add SYS_ADMIN and without AppArmor" >&2
		return 1
	}
	$is_ours && return 0
	# The machine's own tree: Docker on cgroup v1 makes no namespace of groups.
	[ -z "${HAUL_CGROUPS_SPLIT:-}" ] || return 0
	export HAUL_CGROUPS_SPLIT=1
	exec unshare --cgroup "$0" "$@"
}

make_pki() {
	[ -e "$PKI/ca.pem" ] || haulctl pki init "$PKI"
	for name in "$@"; do
		[ -e "$PKI/$name.pem" ] || haulctl pki issue "$PKI" "$name" --san "DNS:$name"
	done
	# Complete only now.
	touch "$PKI/.done"
}

case ${1:-hauld} in
pki)
	shift
	make_pki "$@"
	;;
hauld)
	own_cgroups "$@"
	shift
	# CRIU asks it about every network namespace.
	mkdir -p /dev/net
	[ -e /dev/net/tun ] || mknod /dev/net/tun c 10 200
	node=${HAUL_NODE:-$(hostname)}
	mkdir -p /run/haul
	chmod 700 /run/haul
	exec hauld --node "$node" --ca "$PKI/ca.pem" --cert "$PKI/$node.pem" \
		--key "$PKI/$node.key" "$@"
	;;
*)
	exec "$@"
	;;
esac
