#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# relay.sh: what cases with relay.py share, a program that speaks CRIU's RPC and moves a process through two engines.
#
# usage: . relay.sh           after haul.sh; then
#        relay VERB ARG…      that program, at A
#        move_by VERB DIR     it moves the process PID from A to B
#        expect_line, expect_tidy
# shellcheck source-path=SCRIPTDIR disable=SC2119,SC2120

relay() {
    local verb=$1
    shift
    on A python3 "$HAUL_LAB/relay.py" "$verb" "$(program haulctl)" "$@"
}

# move_by VERB DIR: the program asks for images to be copied, and in the end tells what it did; ROUNDS is how many
# rounds of memory it took.
move_by() {
    local said='' from='' to='' pid in out
    coproc MOVE { relay "$1" "$PID" "$2" "$(url B)" /srv/shared/pki/{ca.pem,a.pem,a.key} 2>&1; }
    pid=$MOVE_PID
    # The shell forgets its own when the program has ended.
    exec {in}<&"${MOVE[0]}" {out}>&"${MOVE[1]}"
    while read -r -u "$in" said from to; do
        [[ $said == copy ]] || break
        on B find "$from" -type f -exec cp -t "$to" {} +
        echo copied >&"$out"
    done
    exec {in}<&- {out}>&-
    [[ $said == moved || "$said $from" == "given up" ]] || fail "$1: $said $from $to"
    wait "$pid" || fail "$1 ended with $?"
    # shellcheck disable=SC2034 # of who calls
    ROUNDS=$from
}

# expect_line FILE PATTERN
expect_line() {
    local try
    for ((try = 0; try < 200 * SLOW; try++)); do
        ! grep -qs "$2" "$1" || return 0
        sleep 0.1
    done
    fail "$1 does not say $2: $(<"$1")"
}

# Nothing of a lease is left on a host but what was restored.
expect_tidy() {
    local host try left
    for host in A B; do
        for ((try = 0; try < 100 * SLOW; try++)); do
            left=$(on "$host" bash -c 'pgrep -x criu; find /var/lib/haul/lease -mindepth 1; ls /run/haul/criu-*' 2>/dev/null || true)
            [[ -n $left ]] || continue 2
            sleep 0.1
        done
        fail "a lease is left on $host: $left"
    done
}
