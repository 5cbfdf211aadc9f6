#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# native_abuse: hostile, broken and dying clients at every listener. The engines still answer, a
# workload stays healthy and moves afterwards, nothing leaks.
# shellcheck source-path=SCRIPTDIR disable=SC2119,SC2120
. "$(dirname "$0")/../haul.sh"

pki=/srv/shared/pki
socket=/run/haul/hauld.sock
port=10.77.0.2:7777

abuse() {
    local host=$1
    shift
    note "$(on "$host" python3 "$HAUL_LAB/abuse.py" "$@")" || fail "abuse.py $*"
}

still_answers() {
    local host
    for host in A B; do
        ctl "$host" --timeout 20s node >/dev/null || fail "the engine of $host does not answer locally"
    done
    remote a 20s node >/dev/null || fail "the engine of B does not answer remotely"
}

# remote NAME TIMEOUT ARG…: haulctl on A asks B over TLS as NAME.
remote() {
    on A "$(program haulctl)" --server "$(url B)" --timeout "$2" --ca "$pki/${CA_OF[$1]:-ca}.pem" \
        --cert "$pki/${1}.pem" --key "$pki/${1}.key" "${@:3}"
}
declare -A CA_OF=()

# remote_refused NAME CODE LOG: the call ends with 64 + CODE and B logs it.
remote_refused() {
    local code=0 text try
    text=$(remote "$1" 20s node 2>&1) || code=$?
    [[ $code == $((64 + $2)) ]] || fail "$1 got $code instead of $((64 + $2)): $text"
    note "$1: $(head -n 1 <<<"$text")"
    await_log B "$3"
}

await_log() {
    local try
    for ((try = 0; try < 100; try++)); do
        ! grep -qE "$2" "$SHARED/hauld-$1.log" || return 0
        sleep 0.1
    done
    fail "the log of $1 does not say $2"
}

counts() {
    # shellcheck disable=SC2016 # runs in the host
    on "$1" bash -c 'echo "$(ls /proc/$1/fd | wc -l) $(ls /proc/$1/task | wc -l) $(pgrep -cP $1)"' bash "${ENGINE[$1]}"
}

# As many files, threads and children as before, but for a connection of each listener and a tree that
# came here, as soon as what is silent has been dropped.
expect_counts() {
    local host=$1 what=$2 fds tasks children before_fds before_tasks before_children try
    read -r before_fds before_tasks before_children <<<"${COUNTS[$host]}"
    for ((try = 0; try < 150 * SLOW; try++)); do
        read -r fds tasks children <<<"$(counts "$host")"
        if ((fds <= before_fds + 2 && tasks <= before_tasks + 1 && children <= before_children + 1)); then
            note "$host after $what: $fds files, $tasks threads, $children children (before: ${COUNTS[$host]})"
            return
        fi
        sleep 0.2
    done
    on "$host" ls -l "/proc/${ENGINE[$host]}/fd" >&2
    fail "$host after $what: $fds files, $tasks threads, $children children; before: ${COUNTS[$host]}"
}
declare -A COUNTS=()

established() {
    on B ss -Htn state established '( sport = :7777 )' | wc -l
}

lab_start
on A "$(program haulctl)" pki init "$pki/other" >/dev/null
on A "$(program haulctl)" pki issue "$pki/other" stranger --san IP:10.77.0.1 >/dev/null
cp "$SHARED/pki/other/stranger".* "$SHARED/pki/"
on A "$(program haulctl)" pki issue "$pki" c --san IP:10.77.0.1 >/dev/null
workload A memory 96 5 --incompressible
victim=$PID
still_answers
for host in A B; do
    COUNTS[$host]=$(counts "$host")
done
migrate A "$victim" B
expect_completed
migrate B "$victim" A
expect_completed
note "before: A ${COUNTS[A]}, B ${COUNTS[B]} (files, threads, children)"

note "frames"
abuse A frames "$socket"
abuse A frames "$port" "$pki/ca.pem" "$pki/a.pem" "$pki/a.key"
still_answers
note "300 connections that half-close and reset"
abuse A churn "$socket" 300
abuse A churn "$port" 300
still_answers

note "200 silent connections"
on A python3 "$HAUL_LAB/abuse.py" silent "$port" 200 15 "$pki/ca.pem" "$pki/a.pem" "$pki/a.key" >"$LAB/silent" 2>&1 &
job=$!
for ((try = 0; try < 100; try++)); do
    ! grep -q '^open' "$LAB/silent" || break
    sleep 0.1
done
note "$(established) are established at B"
(($(established) >= 150)) || fail "the silent connections are not there: $(<"$LAB/silent")"
still_answers
wait "$job" || fail "$(<"$LAB/silent")"
left=$(established)
note "$(tail -n 1 "$LAB/silent"), then $left are established"
((left < 8)) || fail "$left connections are established after the silent ones left"

note "strangers"
abuse A strangers "$port" "$pki/ca.pem"
await_log B 'refused.*(certificate|did not return)'
remote_refused stranger 16 'audit: connection refused.*certificate'
note "a name that the policy does not list"
engine_stop B
printf '{"rules": [{"identities": ["a"], "methods": ["*"]}]}\n' >"$SHARED/policy.json"
engine_start B --policy /srv/shared/policy.json
remote a 20s node >/dev/null || fail "a listed name is refused"
remote_refused c 7 'audit. caller=c .*PERMISSION_DENIED'
printf '{"rules": [{"identities": ["c"], "methods": ["*"]}]}\n' >"$SHARED/policy.json"
engine_stop B
engine_start B --policy /srv/shared/policy.json
migrate A "$victim" B
expect_refused PERMISSION_DENIED
expect_healthy A "$victim"
engine_stop B
# The last one counts.
engine_start B --data-ports 7800-7803

note "data ports of a migration, and 20 watchers killed"
link_rate 30
on A python3 "$HAUL_LAB/abuse.py" knock 10.77.0.2 7800-7803 >"$LAB/knocks" &
knocking=$!
wait_for grep -q knocking "$LAB/knocks"
ctl A --json --timeout 60s migrate "pid:$victim" --to "$(url B)" >"$LAB/report" 2>"$LAB/errors" &
job=$!
# Strangers may hold the peers up, but not for long, and once these are there nobody listens any more.
for ((try = 0; try < 1000; try++)); do
    ! ctl A --json list --active | grep -q '"stage":[[:space:]]*"pre-copy"' || break
    sleep 0.02
done
((try < 1000)) || fail "it does not begin: $(<"$LAB/errors")"
data_ports=$(on B ss -Htln '( sport >= :7800 and sport <= :7803 )')
[[ -z $data_ports ]] || fail "data ports still listen: $data_ports"
on A pkill -TERM -f 'abuse.py knock'
wait "$knocking" || fail "abuse.py knock: $(<"$LAB/knocks")"
# They are open for some milliseconds: unit_pipe_attach has strangers that certainly come in time.
note "$(tail -n 1 "$LAB/knocks") strangers at its data ports"
id=$(report migrations.0.id "$(ctl A --json list)")
[[ -n $id ]] || id=$(report 0.id "$(ctl A --json list)")
# shellcheck disable=SC2016 # runs in the host
on A bash -c 'for ((i = 0; i < 20; i++)); do "$@" >/dev/null 2>&1 & pids+=($!); done
    sleep 0.5; kill -KILL "${pids[@]}"; wait "${pids[@]}" || [[ $? == 137 ]]' \
    bash "$(program haulctl)" --local "$LOCAL" --json watch "$id" || fail "the watchers ended by themselves"
kill -0 "$job" 2>/dev/null || fail "the migration was over before its data ports were abused"
link_rate
wait "$job" || fail "a migration with its data ports abused: $(<"$LAB/report") $(<"$LAB/errors")"
expect_gone A "$victim"
expect_healthy B "$victim"
migrate B "$victim" A
expect_completed
still_answers
engine_stop B
engine_start B

note "clients killed in mid-call and in mid-transfer"
on A bash -c 'mkdir -p /tmp/cpu && criu cpuinfo dump --images-dir /tmp/cpu >/dev/null'
COUNTS[B]=$(counts B) # the engine is a new one
on A "$BUILD/bench/abuse_peer" "$(url B)" "$pki/ca.pem" "$pki/a.pem" "$pki/a.key" /tmp/cpu/cpuinfo.img \
    life "${HAUL_DEATHS:-200}" >"$LAB/deaths" 2>&1 || fail "abuse_peer: $(<"$LAB/deaths")"
note "$(<"$LAB/deaths")"
still_answers
expect_counts B "the deaths of its peers"

note "a destination killed in mid-transfer"
link_rate 200
for ((death = 0; death < 3; death++)); do
    ctl A --json --timeout 60s migrate "pid:$victim" --to "$(url B)" >"$LAB/report" 2>"$LAB/errors" &
    job=$!
    for ((try = 0; try < 200; try++)); do
        (($(established) == 0)) || [[ -z $(on B ss -Htn state established '( sport >= :7800 and sport <= :7899 )') ]] || break
        sleep 0.02
    done
    engine_kill B
    CODE=0
    wait "$job" || CODE=$?
    REPORT=$(<"$LAB/report")
    ERRORS=$(<"$LAB/errors")
    expect_refused
    expect_healthy A "$victim"
    engine_start B
done
link_rate
expect_counts A "the deaths of its destination"

note "after all of this it still migrates"
expect_healthy A "$victim"
migrate A "$victim" B
expect_completed
expect_gone A "$victim"
expect_healthy B "$victim"
