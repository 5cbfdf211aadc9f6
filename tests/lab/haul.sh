#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# haul.sh: what a case needs: two hosts with an engine each, workloads, and words to expect things.
#
# usage: . haul.sh                       inside the toolbox or the guest; then
#        lab_start [FLAG…]               hosts, certificates, both engines (FLAGs for both)
#        engine_start HOST [FLAG…]       start hauld; returns when its log says ready
#                                        (ENGINE_SHELL=1: as the child of a shell, ENGINE_PARENT)
#        engine_stop HOST, engine_kill HOST
#        ctl HOST ARG…                   haulctl over the host's local socket
#        disk_fill HOST, disk_clear HOST its state directory is full, and no longer
#        workload HOST NAME [ARG…]       start a workload; sets PID and STATUS
#        migrate HOST PID TO [FLAG…]     sets REPORT (JSON), ERRORS (stderr), CODE (exit status)
#        report PATH                     a field of REPORT: report criu.freezeMs
#        precopy_rounds                  how often the REPORT's memory was copied before the freeze
#        expect_precopied N              at least N times, by the kernel's dirty bits if it has them, else by content
#        expect_completed / expect_refused [CODE] / expect_healthy HOST PID / expect_gone HOST PID
#        wait_for CMD…                   until it succeeds; fails when it never does
#        fail MESSAGE…
#
# The programs come from HAUL_BUILD. Everything ends with the script that sourced this. The hosts are
# namespaces (hosts.sh), with HAUL_HOSTS=guests two QEMU guests (guests.sh). ENGINE_ENV is what engines
# find in their environment.
# shellcheck source-path=SCRIPTDIR disable=SC2119,SC2120
set -euo pipefail

HAUL_LAB=$(dirname "$(realpath "${BASH_SOURCE[0]}")")
HAUL_TESTS=$(realpath "$HAUL_LAB/..")
export LSAN_OPTIONS=suppressions=$HAUL_TESTS/lsan.supp:print_suppressions=0
# shellcheck source=hosts.sh
. "$HAUL_LAB/${HAUL_HOSTS:-hosts}.sh"
BUILD=$HOSTS_TREE/${HAUL_BUILD:-build/dev}
LAB=$(mktemp -d /tmp/lab.XXXXXX)
SHARED=$LAB/shared
LOCAL=ipc:///run/haul/hauld.sock
# The guest is emulated: everything takes about ten times as long.
SLOW=${HAUL_SLOW:-1}
declare -A ENGINE=()
declare -A STATUS_CODE=([CANCELLED]=1 [INVALID_ARGUMENT]=3 [DEADLINE_EXCEEDED]=4 [NOT_FOUND]=5
    [ALREADY_EXISTS]=6 [PERMISSION_DENIED]=7 [RESOURCE_EXHAUSTED]=8 [FAILED_PRECONDITION]=9
    [ABORTED]=10 [UNIMPLEMENTED]=12 [INTERNAL]=13 [UNAVAILABLE]=14 [DATA_LOSS]=15)

fail() {
    echo "FAIL: $*" >&2
    exit 1
}

wait_for() {
    local try
    for ((try = 0; try < 100 * SLOW; try++)); do
        ! "$@" >/dev/null 2>&1 || return 0
        sleep 0.1
    done
    fail "never: $*"
}

note() {
    echo "  $*"
}

# Where the build puts a program.
program() {
    local path
    for path in "$BUILD/cmd/$1/$1" "$BUILD/cmd/$1" "$BUILD/bin/$1"; do
        if [[ -f $path && -x $path ]]; then
            echo "$path"
            return
        fi
    done
    fail "no $1 in $BUILD"
}

lab_end() {
    local status=$? host
    trap - EXIT
    for host in "${!ENGINE[@]}"; do
        if [[ $status == 0 ]] && ! engine_stop "$host"; then
            status=1
        fi
    done
    if grep -lE '(ERROR|WARNING): (Address|Leak|Thread)Sanitizer|runtime error:' "$SHARED"/hauld-*.log 2>/dev/null; then
        echo "FAIL: a sanitizer found something" >&2
        status=1
    fi
    if [[ $status != 0 ]]; then
        tail -v -n 30 "$SHARED"/hauld-*.log 2>/dev/null || true
        head -v -n 1 "$SHARED"/*.status 2>/dev/null | tr -s ' ' || true
        [[ -z ${REPORT:-}${ERRORS:-} ]] || printf 'last report: %s\nlast stderr: %s\n' "${REPORT:-}" "${ERRORS:-}"
    fi
    hosts_down
    rm -rf "$LAB"
    exit "$status"
}
trap lab_end EXIT
trap 'exit 143' TERM
trap 'exit 130' INT

lab_start() {
    local host
    hosts_up "$LAB"
    make_pki
    for host in A B; do
        engine_start "$host" "$@"
    done
}

# Identities a and b, in /srv/shared/pki of both hosts.
make_pki() {
    local haulctl host
    haulctl=$(program haulctl)
    on A "$haulctl" pki init /srv/shared/pki >/dev/null
    for host in A B; do
        on A "$haulctl" pki issue /srv/shared/pki "${host,}" --san "IP:${HOST_ADDRESS[$host]}" >/dev/null
    done
}

engine_start() {
    local host=$1 log=hauld-$1.log name=${1,} seen try under=()
    shift
    # shellcheck disable=SC2016 # runs in the host
    [[ -z ${ENGINE_SHELL:-} ]] || under=(bash -c '"$@" & wait' bash)
    on "$host" mkdir -p -m 700 /run/haul
    touch "$SHARED/$log"
    seen=$(wc -l <"$SHARED/$log") # a restart appends
    ENGINE[$host]=$(START_OUT=/srv/shared/$log start_on "$host" env ${ENGINE_ENV[@]+"${ENGINE_ENV[@]}"} \
        "${under[@]}" "$(program hauld)" --node "$name" \
        --listen "tls+tcp://${HOST_ADDRESS[$host]}:7777" --local "$LOCAL" --state-dir /var/lib/haul \
        --data-ports 7800-7899 --ca /srv/shared/pki/ca.pem --cert "/srv/shared/pki/$name.pem" \
        --key "/srv/shared/pki/$name.key" --criu /usr/sbin/criu \
        --lease "$((15 * SLOW))s" --criu-timeout "$((30 * SLOW))s" "$@")
    if [[ -n ${ENGINE_SHELL:-} ]]; then
        ENGINE_PARENT=${ENGINE[$host]}
        for ((try = 0; try < 100 * SLOW; try++)); do
            ! ENGINE[$host]=$(on "$host" pgrep -P "$ENGINE_PARENT") || break
            sleep 0.1
        done
    fi
    for ((try = 0; try < 100 * SLOW; try++)); do
        ! tail -n "+$((seen + 1))" "$SHARED/$log" | grep -qw ready || return 0
        on "$host" kill -0 "${ENGINE[$host]}" 2>/dev/null || break
        sleep 0.1
    done
    fail "the engine of $host did not get ready"
}

engine_stop() {
    local host=$1 try
    on "$host" kill -TERM "${ENGINE[$host]}" 2>/dev/null || true
    for ((try = 0; try < 100 * SLOW; try++)); do
        if ! on "$host" kill -0 "${ENGINE[$host]}" 2>/dev/null; then
            unset "ENGINE[$host]"
            return 0
        fi
        sleep 0.1
    done
    echo "the engine of $host does not stop" >&2
    return 1
}

engine_kill() {
    on "$1" kill -KILL "${ENGINE[$1]}" || true
    unset "ENGINE[$1]"
}

ctl() {
    local host=$1
    shift
    on "$host" "$(program haulctl)" --local "$LOCAL" "$@"
}

# Of the host's state directory: nothing more fits in; it fits again.
disk_fill() {
    # shellcheck disable=SC2016 # runs in the host
    on "$1" bash -c 'mount -o remount,size=4m "$1" 2>/dev/null; dd if=/dev/zero of="$1/fill" bs=64k 2>/dev/null
        dd if=/dev/zero of="$1/fill2" bs=1k 2>/dev/null; true' bash /var/lib/haul
}

disk_clear() {
    # shellcheck disable=SC2016 # runs in the host
    on "$1" bash -c 'rm "$1"/fill*; mount -o remount,size=50% "$1"' bash /var/lib/haul
}

workload() {
    local host=$1 name=$2 try
    shift 2
    WORKLOADS=$((${WORKLOADS:-0} + 1))
    STATUS=$SHARED/$WORKLOADS-$name.status
    PID=$(START_OUT=/srv/shared/$WORKLOADS-$name.out start_on "$host" "$BUILD/workloads/$name" \
        "/srv/shared/$WORKLOADS-$name.status" "$@")
    STATUS_OF[$PID]=$STATUS
    for ((try = 0; try < 100 * SLOW; try++)); do
        ! grep -q '^ok ' "$STATUS" 2>/dev/null || return 0
        sleep 0.1
    done
    fail "workload $name did not start: $(cat "$SHARED/$WORKLOADS-$name.out")"
}
declare -A STATUS_OF=()

url() {
    echo "tls+tcp://${HOST_ADDRESS[$1]}:7777"
}

# TO is a host or a URL. What came a moment ago is moved once all of its memory is there.
migrate() {
    local host=$1 pid=$2 to=$3
    shift 3
    [[ $to != [AB] ]] || to=$(url "$to")
    local try
    for ((try = 0; try < 100 * SLOW; try++)); do
        CODE=0
        REPORT=$(ctl "$host" --json --timeout "$((60 * SLOW))s" migrate "pid:$pid" \
            --to "$to" "$@" 2>"$LAB/errors") || CODE=$?
        ERRORS=$(<"$LAB/errors")
        [[ $CODE == "$((64 + STATUS_CODE[UNAVAILABLE]))" && $ERRORS$REPORT == *"not all of its memory is in place"* ]] || break
        sleep 0.1
    done
}

# A dotted path into a JSON object; missing fields are empty.
report() {
    python3 - "$1" "${2:-$REPORT}" <<'PY'
import json, sys
try:
    value = json.loads(sys.argv[2] or "{}")
    for key in sys.argv[1].split("."):
        value = value[int(key)] if isinstance(value, list) else value[key]
except (KeyError, IndexError, ValueError, TypeError):
    value = ""
if isinstance(value, float):
    value = round(value)
print(value if isinstance(value, str) else json.dumps(value))
PY
}

# The last one in the report is the final dump.
precopy_rounds() {
    echo $(($(report rounds | grep -o '"pagesSent"' | wc -l) - 1))
}

expect_precopied() {
    local rounds tracking
    rounds=$(precopy_rounds)
    ((rounds >= $1)) || fail "$rounds rounds of pre-copy, not $1: $(report rounds)"
    tracking="hash"
    ! kernel_tracks || tracking=soft-dirty
    [[ $(report tracking) == "$tracking" ]] || fail "tracking is $(report tracking), not $tracking"
}

# Whether the kernel says of a page that was just written that it is dirty (bit 55), without asking haul.
kernel_tracks() {
    python3 - <<'PY'
import ctypes, mmap, struct, sys
page = mmap.mmap(-1, mmap.PAGESIZE)
page[0] = 1
number = ctypes.addressof(ctypes.c_char.from_buffer(page)) // mmap.PAGESIZE
with open("/proc/self/pagemap", "rb") as pagemap:
    pagemap.seek(number * 8)
    sys.exit(not struct.unpack("Q", pagemap.read(8))[0] >> 55 & 1)
PY
}

# What went wrong, from the report or from stderr.
message() {
    local text
    text=$(report error.message)
    echo "${text:-$ERRORS}"
}

expect_completed() {
    [[ $CODE == 0 ]] || fail "migrate ended with $CODE: $(message)"
    [[ $(report state) == COMPLETED ]] || fail "state is $(report state): $(message)"
}

# A refusal has a gRPC code and says why. Give the name of a status code to expect that one.
expect_refused() {
    ((CODE > 64 && CODE <= 80)) || fail "migrate ended with $CODE, not with a status code"
    [[ -n $(message) ]] || fail "a refusal without a message"
    [[ -z ${1:-} || $CODE == $((64 + ${STATUS_CODE[$1]})) ]] ||
        fail "migrate ended with $((CODE - 64)) instead of $1: $(message)"
    note "refused ($((CODE - 64))): $(message)"
}

expect_message() {
    [[ $(message) =~ $1 || $REPORT =~ $1 ]] || fail "the message does not say $1: $(message)"
}

# The workload runs, its content is right, it beats on, and it is neither frozen nor stopped.
expect_healthy() {
    local host=$1 pid=$2 status=${STATUS_OF[$2]} before word beats try
    read -r word before _ <"$status"
    for ((try = 0; try < 100 * SLOW; try++)); do
        sleep 0.1
        read -r word beats _ <"$status"
        [[ $word == ok || $word == closed ]] || fail "workload $pid: $(tr -s ' ' <"$status")"
        ((beats <= before + 2)) || break
    done
    ((beats > before + 2)) || fail "workload $pid on $host does not go on: $(process_state "$host" "$pid")"
    [[ $(process_state "$host" "$pid") == [RSD]*" frozen 0" ]] ||
        fail "workload $pid on $host is $(process_state "$host" "$pid")"
}

process_state() {
    # shellcheck disable=SC2016 # runs in the host
    on "$1" bash -c 'awk "/^State/ { printf \"%s \", \$2 }" /proc/$1/status
        group=/sys/fs/cgroup$(sed -n "s/^0:://p" /proc/$1/cgroup)
        grep -s "^frozen" "$group/cgroup.events" || echo "frozen 0"' bash "$2" 2>/dev/null || echo gone
}

# Also no zombie: it would block the pid for a migration back.
expect_gone() {
    local try
    for ((try = 0; try < 50 * SLOW; try++)); do
        on "$1" test -e "/proc/$2" || return 0
        sleep 0.1
    done
    fail "process $2 is still on $1: $(process_state "$1" "$2")"
}

# The largest pause the workload itself saw since the last call, in ms.
gap() {
    sed -n 's/.*gap_ms=\([0-9]*\).*/\1/p' "${STATUS_OF[$1]}"
}

gap_reset() {
    on "$1" kill -USR1 "$2"
    sleep 0.2
}
