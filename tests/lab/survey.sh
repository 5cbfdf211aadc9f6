#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# survey.sh: what must be true when faults are over.
#
# usage: . survey.sh    sources haul.sh; then
#        settled        wait until no engine has an open migration
#        survey         what is wrong now, a line each; nothing = exactly one healthy copy (COPIES=0: none) and
#                       nothing left behind. Sets SURVIVOR
#
# shellcheck source-path=SCRIPTDIR disable=SC2016,SC2034,SC2119,SC2120,SC2153,SC2154
# shellcheck source=haul.sh
. "$(dirname "${BASH_SOURCE[0]}")/haul.sh"

has_open() {
    local list
    list=$(ctl "$1" --json --timeout 5s list --active 2>/dev/null) || return 0
    [[ $list == *'"id"'* ]]
}

is_settled() {
    ! has_open A && ! has_open B
}

settled() {
    eventually 400 is_settled
}

# One line a thing: KIND VALUE. All of one host at once.
facts() {
    # shellcheck disable=SC2016 # runs in the host
    on "$1" bash -c '
        exec 2>/dev/null
        for pid in $(pgrep -x "$3"); do
            if [[ $(cat "/proc/$(sed -n "s/^PPid:[[:space:]]*//p" "/proc/$pid/status")/comm") == "$3" ]]; then
                echo "child $pid"
                continue
            fi
            echo "copy $pid $(sed -n "s/^State:[[:space:]]*\(.\).*/\1/p" "/proc/$pid/status")" \
                "$(sed -n "s/^0:://p" "/proc/$pid/cgroup")"
        done
        for pid in $(pgrep -x criu); do echo "criu $pid $(tr "\0" " " <"/proc/$pid/cmdline")"; done
        for group in "$1"/*/; do [[ ! -d $group ]] || echo "group $(basename "$group")"; done
        for dir in in out probe; do
            [[ ! -d $2/$dir ]] || find "$2/$dir" -mindepth 1 -maxdepth 1 | sed "s/^/file /"
        done | grep -v "/probe/criu" || true
        find /run/haul -mindepth 1 ! -name "hauld.sock*" | sed "s/^/socket /"
        ss -Hltn "sport >= 7800 and sport <= 7899" | sed "s/^/listener /"
        { nft list tables; iptables-save; ip6tables-save; } | grep CRIU | sed "s/^/rule /"
        true
    ' bash "$CGROUPS" "$STATE_DIR" "$VICTIM"
}

# Where the copies are; sets SURVIVOR when there is one.
survey_copies() {
    local host kind pid state group count=0
    SURVIVOR=''
    for host in A B; do
        while read -r kind pid state group; do
            [[ $kind == copy ]] || continue
            count=$((count + 1))
            SURVIVOR=$host
            [[ $pid == "$PID" ]] || echo "copy $pid on $host is not $PID"
            [[ $state == [RSD] ]] || echo "the copy on $host is in state $state ($group)"
            [[ $(process_state "$host" "$pid") == *"frozen 0" ]] || echo "the copy on $host is frozen"
        done <<<"${FACTS[$host]}"
    done
    ((count == COPIES)) || echo "$count copies"
    [[ -z $SURVIVOR || $(grep -c ^child <<<"${FACTS[$SURVIVOR]}") == "${VICTIM_CHILDREN[$VICTIM]}" ]] ||
        echo "the copy on $SURVIVOR is not whole"
}

# What must not be there. The survivor's group is in-<id> where it was restored.
survey_leftovers() {
    local host kind rest group
    for host in A B; do
        group=$(sed -n 's/^copy .* //p' <<<"${FACTS[$host]}")
        while read -r kind rest; do
            case $kind in
            copy | '') ;;
            child) [[ $host == "$SURVIVOR" ]] || echo "$host: child $rest" ;;
            group)
                [[ $group == "/haul/$rest" && $rest == in-* ]] || echo "$host: cgroup $rest"
                ;;
            *) echo "$host: $kind $rest" ;;
            esac
        done <<<"${FACTS[$host]}"
    done
}

# Of both hosts at the same time: in an emulated guest that takes seconds.
look_around() {
    local job
    facts A >"$LAB/facts-A" &
    job=$!
    FACTS[B]=$(facts B)
    wait "$job"
    FACTS[A]=$(<"$LAB/facts-A")
}

is_clean() {
    look_around
    survey_copies >"$LAB/wrong"
    survey_leftovers >>"$LAB/wrong"
    [[ ! -s $LAB/wrong ]]
}
declare -A FACTS=()

beats() {
    local word count rest
    read -r word count rest <"$SHARED/beats-$1/$BEATS" || true
    [[ $word != CORRUPT ]] || echo "CORRUPT on $1: $rest" >>"$LAB/wrong"
    echo "${count:-0}"
}

has_advanced() {
    (($(beats "$1") > $2 + 2))
}

survey() {
    local host
    if ! eventually 60 is_clean; then
        cat "$LAB/wrong"
    fi
    for host in A B; do
        [[ -n ${ENGINE[$host]:-} && $(engine_state "$host") != gone ]] || echo "the engine of $host is gone"
    done
    : >"$LAB/wrong"
    [[ -n $SURVIVOR ]] || return 0
    eventually 100 has_advanced "$SURVIVOR" "$(beats "$SURVIVOR")" || echo "the copy on $SURVIVOR does not beat"
    beats "$(other "$SURVIVOR")" >/dev/null
    cat "$LAB/wrong"
}

other() {
    if [[ $1 == A ]]; then echo B; else echo A; fi
}
