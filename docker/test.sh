#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# test.sh: builds the image, brings the cluster of compose.yaml up, asks engines across it, and moves a process
# around it as far as their policies let it. One engine is restarted and one paused in the middle of that.
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

# counter NODE [MIB]: a process that counts, and tells on a signal how far it is. With MIB it has so much memory
# that no two pages of it are the same.
counter() {
    # shellcheck disable=SC2016 # runs there
    compose exec -T "$1" sh -c '
        n=0
        while [ $n -lt 300 ]; do /bin/true; n=$((n + 1)); done # pids of its own, free at the destination
        setsid perl -e "\$i = 0; \$SIG{USR1} = sub { open(my \$f, q(>), q(/tmp/count)); print \$f \$i; };
            \$m = join q(), map { pack q(L), rand 2**32 } 1 .. \$ARGV[0] * 262144; open(my \$f, q(>), q(/tmp/up));
            close \$f; while (1) { \$i++; select(undef, undef, undef, 0.05); }" "$0" \
            </dev/null >/dev/null 2>&1 &
        n=0; while [ ! -e /tmp/up ] && [ $n -lt 600 ]; do sleep 0.1; n=$((n + 1)); done; rm /tmp/up
        echo $!' "${2:-0}"
}

# count NODE PID: how far it is
count() {
    # shellcheck disable=SC2016 # runs there
    compose exec -T "$1" sh -c 'rm -f /tmp/count; kill -USR1 $0 && n=0
        while [ $n -lt 100 ] && [ ! -s /tmp/count ]; do sleep 0.1; n=$((n + 1)); done
        cat /tmp/count' "$2"
}

goes_on() {
    local before after
    before=$(count "$1" "$2")
    after=$(count "$1" "$2")
    echo "process $2 at $1 has counted from $before to $after"
    ((after > before))
}

# moves FROM TO: the process that COUNTER is
moves() {
    local before after
    before=$(count "$1" "$COUNTER")
    compose exec -T "$1" haulctl migrate "pid:$COUNTER" --to "tls+tcp://$2:7777"
    after=$(count "$2" "$COUNTER")
    echo "process $COUNTER had counted to $before at $1 and is at $after at $2"
    ((after > before)) && ! compose exec -T "$1" sh -c "kill -0 $COUNTER" 2>/dev/null
}

# stays WHY FROM TO: COUNTER is refused, for that reason, and goes on where it is
stays() {
    local out status=0
    out=$(compose exec -T "$2" haulctl --json migrate "pid:$COUNTER" --to "tls+tcp://$3:7777" 2>&1) || status=$?
    echo "$out (status $status)"
    ((status == 71)) && grep -qE "\"reason\":[[:space:]]*\"$1\"" <<<"$out" && goes_on "$2" "$COUNTER"
}

# denied CMD…: PERMISSION_DENIED
denied() {
    local out status=0
    out=$("$@" 2>&1) || status=$?
    echo "$out (status $status)"
    ((status == 71))
}

# Calls node NODE until the file "enough" is there, each with a minute's time; "calls" counts them.
call_on() {
    local calls=0
    rm -f "$WORK/enough"
    until [[ -e $WORK/enough ]]; do
        as client --timeout 60s --server "tls+tcp://$1:7777" node >"$WORK/call" 2>&1 || return 1
        calls=$((calls + 1))
        echo "$calls" >"$WORK/calls"
    done
}

# a slow move of COUNTER from FROM to TO; SLOW is its job
begin_slow() {
    local try
    compose exec -T "$1" haulctl --json migrate "pid:$COUNTER" --to "tls+tcp://$2:7777" --bandwidth 100KiB \
        >"$WORK/slow" 2>&1 &
    SLOW=$!
    for ((try = 0; try < 100; try++)); do
        ! compose exec -T "$1" haulctl --json list --active | grep -q '"stage":[[:space:]]*"pre-copy"' || return 0
        sleep 0.2
    done
    cat "$WORK/slow"
    return 1
}

# The slow move fails with one of these codes, before the commit, and the process goes on at NODE.
slow_ends() {
    local status=0
    wait "$SLOW" || status=$?
    cat "$WORK/slow"
    echo "(status $status)"
    ((status > 64 && status <= 80)) && goes_on "$1" "$COUNTER"
}

# b is restarted while the client calls it, and while a process is on its way to it.
restart() {
    local caller status=0
    begin_slow a b || return 1
    call_on b &
    caller=$!
    sleep 2 # some calls before
    compose restart b
    slow_ends a || status=1
    answers b || status=1
    sleep 2 # and some after
    touch "$WORK/enough"
    wait "$caller" || { cat "$WORK/call"; status=1; }
    echo "$(<"$WORK/calls") calls, before, while and after b was restarted"
    return $status
}

# c is paused: its callers hear of it in their time, the others answer, a process on its way to it stays.
pause() {
    local status=0 code=0 try begun=$SECONDS
    begin_slow b c || return 1
    compose pause c
    as client --timeout 5s --server tls+tcp://c:7777 node || code=$?
    echo "a call to c ended with $code after $((SECONDS - begun)) s"
    ((code == 64 + 4 || code == 64 + 14)) || status=1
    answers a && answers b || status=1
    slow_ends b || status=1
    echo "given up after $((SECONDS - begun)) s"
    compose unpause c
    answers c || status=1
    # Nothing is left of it, a lease (15 s) after the last of what was on its way has been read.
    for ((try = 0; try < 60; try++)); do
        compose exec -T c haulctl --json list --active | grep -q '"id"' || return $status
        sleep 0.5
    done
    return 1
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
expect "the second engine answers the client" answers b
expect "the third engine answers the client" answers c
expect "a reaches b" node_is b across a b
expect "b reaches a" node_is a across b a
expect "the local socket answers" node_is a compose exec -T a haulctl --json node
expect "a certificate of another authority is refused" refused stranger
for node in a b c; do
    expect "the client may look at what $node does" as client --server "tls+tcp://$node:7777" list
    expect "the client may not meddle with what $node does" denied as client --server "tls+tcp://$node:7777" cancel x
    expect "an engine may not look at what $node does" denied as a --server "tls+tcp://$node:7777" list
done
COUNTER=$(counter a 64)
expect "a process stays at a: c takes none from there" stays SOURCE_NOT_ACCEPTED a c
expect "b is restarted in the middle of calls and of a migration to it" restart
expect "a process moves from a to b and goes on counting" moves a b
expect "c is paused in the middle of calls and of a migration to it" pause
expect "the process moves from b to c, who takes it from there" moves b c
expect "it stays at c: nothing may leave from there for a" stays DESTINATION_NOT_ALLOWED c a
expect "it moves from c back to b" moves c b
