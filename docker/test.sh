#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# test.sh: builds the image, brings the cluster of compose.yaml up, asks engines across it and moves a
# process from one to the other.
#
# usage: docker/test.sh       as root on a Debian-like machine; the last line is "N passed, N failed"
#
# Installs Docker from Debian when it is missing and starts dockerd when it does not run (its data stays in
# the lab's cache, so that the next build is fast). Where debian:trixie-slim cannot be pulled it is made by
# debootstrap from the mirror that this machine's apt uses.
#
# Containers get single capabilities instead of --privileged, which asks for all and fails where this
# machine itself lacks one (CAP_SYS_RESOURCE, say).
# shellcheck source-path=SCRIPTDIR
set -euo pipefail
shopt -s inherit_errexit

TREE=$(realpath "$(dirname "$(realpath "$0")")/..")
# shellcheck source=../tests/lab/rootfs.sh
. "$TREE/tests/lab/rootfs.sh"
BASE=debian:trixie-slim
WORK=$(mktemp -d)
DAEMON=''
UP=''
passed=0
failed=0
export COMPOSE_PROJECT_NAME=haul-test-$$

compose() {
    if docker compose version >/dev/null 2>&1; then
        docker compose -f "$TREE/docker/compose.yaml" "$@"
    else
        docker-compose -f "$TREE/docker/compose.yaml" "$@"
    fi
}

end() {
    local status=$?
    trap - EXIT
    if [[ -n $UP ]]; then
        if ((status != 0 || failed > 0)); then
            compose logs --no-color 2>&1 | tail -n 80 || true
        fi
        compose down --volumes --timeout 20 >"$WORK/down.log" 2>&1 ||
            { cat "$WORK/down.log"; failed=$((failed + 1)); }
    fi
    if [[ -n $DAEMON ]]; then
        kill "$DAEMON" 2>/dev/null || true
        wait "$DAEMON" 2>/dev/null || true
        umount "$WORK"/exec/netns/* 2>/dev/null || true
    fi
    rm -rf "$WORK" || true
    ((status == 0 || failed > 0)) || failed=1
    echo "$passed passed, $failed failed"
    ((failed == 0)) || exit 1
}

start_daemon() {
    local try state=$ROOTFS_CACHE/docker
    if docker info >/dev/null 2>&1; then
        return
    fi
    host_packages dockerd=docker.io iptables=iptables
    # Debian 13 has the client in a package of its own.
    host_packages docker=docker-cli
    command -v docker-compose >/dev/null || docker compose version >/dev/null 2>&1 ||
        host_packages docker-compose=docker-compose
    # Installing it may have started it.
    if docker info >/dev/null 2>&1; then
        return
    fi
    mkdir -p "$state"
    export DOCKER_HOST=unix://$WORK/docker.sock
    echo "starting dockerd (data in $state)"
    # A private cgroup namespace is the default with cgroup v2; CRIU insists on it with v1 too.
    setpriv --pdeathsig TERM dockerd --default-cgroupns-mode private \
        --data-root "$state" --exec-root "$WORK/exec" --pidfile "$WORK/pid" --host "$DOCKER_HOST" </dev/null >"$WORK/dockerd.log" 2>&1 &
    DAEMON=$!
    for ((try = 0; try < 120; try++)); do
        if docker info >/dev/null 2>&1; then
            prune
            return
        fi
        kill -0 "$DAEMON" 2>/dev/null || break
        sleep 0.5
    done
    tail -n 20 "$WORK/dockerd.log" >&2
    echo "dockerd does not start here" >&2
    return 1
}

# What killed runs left, in a dockerd that is ours alone; layers of the image stay.
prune() {
    docker container prune --force >/dev/null
    docker volume prune --force >/dev/null
    docker network prune --force >/dev/null
    docker image prune --force --filter until=24h >/dev/null
}

make_base() {
    local root
    if docker image inspect "$BASE" >/dev/null 2>&1; then
        return
    fi
    if [[ -z ${HAUL_MIRROR:-} ]] && timeout 60 docker pull --quiet "$BASE" >/dev/null 2>&1; then
        return
    fi
    echo "$BASE cannot be pulled: making it"
    root=$(rootfs_ensure image)
    tar -C "$root" -c . | docker import - "$BASE" >/dev/null
}

build_image() {
    local proxy args=()
    for proxy in http_proxy https_proxy no_proxy; do
        [[ -z ${!proxy:-} ]] || args+=(--build-arg "$proxy=${!proxy}")
    done
    # The old builder is part of every Docker that Debian has; it does without a registry.
    docker buildx version >/dev/null 2>&1 || export DOCKER_BUILDKIT=0
    docker build --network host "${args[@]}" -f "$TREE/docker/Dockerfile" -t haul "$TREE" >"$WORK/build.log" 2>&1 ||
        { tail -n 40 "$WORK/build.log"; return 1; }
}

# expect NAME CMD…
expect() {
    local name=$1
    shift
    if "$@" >"$WORK/out" 2>&1; then
        passed=$((passed + 1))
        echo "PASS $name"
    else
        failed=$((failed + 1))
        echo "FAIL $name"
        sed 's/^/    /' "$WORK/out"
    fi
}

client() {
    compose exec -T client "$@"
}

# as NAME HAULCTL-ARG…: over TLS, from the client, with NAME's certificate
as() {
    local name=$1
    shift
    client haulctl --ca /etc/haul/pki/ca.pem --cert "/etc/haul/pki/$name.pem" --key "/etc/haul/pki/$name.key" "$@"
}

answers() {
    local node=$1 try
    for ((try = 0; try < 60; try++)); do
        ! as client --server "tls+tcp://$node:7777" node || return 0
        sleep 0.5
    done
    return 1
}

node_is() {
    local out
    out=$("${@:2}")
    echo "$out"
    grep -qE "\"node\":[[:space:]]*\"$1\"" <<<"$out"
}

# On a, with its own certificate, b is asked: the way that a migration goes.
across() {
    compose exec -T "$1" haulctl --json --ca /etc/haul/pki/ca.pem --cert "/etc/haul/pki/$1.pem" \
        --key "/etc/haul/pki/$1.key" --server "tls+tcp://$2:7777" node
}

refused() {
    local out status=0
    out=$("$@" 2>&1) || status=$?
    echo "$out (status $status)"
    ((status > 64 && status <= 80))
}

stranger() {
    # shellcheck disable=SC2016 # runs there
    client sh -c 'd=$(mktemp -d) && haulctl pki init $d >/dev/null && haulctl pki issue $d x >/dev/null &&
        exec haulctl --timeout 5s --ca /etc/haul/pki/ca.pem --cert $d/x.pem --key $d/x.key --server tls+tcp://a:7777 node'
}

# Counts in its memory, and tells on a signal how far it is.
counter() {
    # shellcheck disable=SC2016 # runs there
    compose exec -T "$1" sh -c '
        n=0
        while [ $n -lt 300 ]; do /bin/true; n=$((n + 1)); done # pids of its own, free at the destination
        setsid sh -c "trap \"echo \\\$i >/tmp/count\" USR1; i=0; while :; do i=\$((i + 1)); sleep 0.05; done" \
            </dev/null >/dev/null 2>&1 &
        echo $!'
}

# count NODE PID: how far it is
count() {
    # shellcheck disable=SC2016 # runs there
    compose exec -T "$1" sh -c 'rm -f /tmp/count; kill -USR1 $0 && n=0
        while [ $n -lt 100 ] && [ ! -s /tmp/count ]; do sleep 0.1; n=$((n + 1)); done
        cat /tmp/count' "$2"
}

moves() {
    local pid before after
    pid=$(counter a)
    before=$(count a "$pid")
    compose exec -T a haulctl migrate "pid:$pid" --to tls+tcp://b:7777
    after=$(count b "$pid")
    echo "process $pid had counted to $before at a and is at $after at b"
    ((after > before)) && ! compose exec -T a sh -c "kill -0 $pid" 2>/dev/null
}

trap end EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP
start_daemon
make_base
echo "building the image"
build_image
UP=1
compose up --detach --no-build >"$WORK/up.log" 2>&1 || { cat "$WORK/up.log"; exit 1; }
expect "an engine answers the client" answers a
expect "the other engine answers the client" answers b
expect "a reaches b" node_is b across a b
expect "b reaches a" node_is a across b a
expect "the local socket answers" node_is a compose exec -T a haulctl --json node
expect "a client may not start migrations" refused as client --server tls+tcp://a:7777 list
expect "a certificate of another authority is refused" refused stranger
expect "a process moves from a to b and goes on counting" moves
