#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# native_identity: only the identity that prepared a migration may go on with it. Another certificate of the same
# authority calls every method about it, in each state that the destination can be in: it is refused, the journal
# does not change, and the migration ends as if nobody had.
# shellcheck source-path=SCRIPTDIR disable=SC2119,SC2120,SC2016,SC2317
. "$(dirname "$0")/../matrix.sh"

pki=/srv/shared/pki
# Calls of a busy machine take their time.
TIMERS=("${TIMERS[@]/#5s/30s}")
METHODS=(BeginRound EndRound Resume Restore Commit Abort Query Settle)

# peer NAME METHOD JSON: that identity calls haul.v1.Peer at B; sets CODE and SAID.
peer() {
    CODE=0
    SAID=$(on A "$(program haulctl)" --server "$(url B)" --timeout 20s --ca "$pki/ca.pem" --cert "$pki/$1.pem" \
        --key "$pki/$1.key" call "haul.v1.Peer/$2" -d "$3" 2>&1) || CODE=$?
}

journal() {
    on B sha256sum "$STATE_DIR/journal"
}

# meddle METHOD…: a stranger calls them; sets nothing, changes nothing.
meddle() {
    local method before
    before=$(journal)
    for method in "$@"; do
        peer stranger "$method" "{\"id\": \"$ID\"}"
        [[ $CODE == "$((64 + STATUS_CODE[PERMISSION_DENIED]))" && $SAID == *"was prepared by a, not by stranger"* ]] ||
            fail "$PART: $method by a stranger ended with $CODE: $SAID"
    done
    [[ $(journal) == "$before" ]] || fail "$PART: the journal has changed"
}

# outcome OUTCOME: what its owner is told.
outcome() {
    peer a Query "{\"id\": \"$ID\"}"
    [[ $CODE == 0 && $SAID == *"\"OUTCOME_$1\""* ]] || fail "$PART: its owner is told: $CODE, $SAID"
}

# at STAGE: a migration from A to B, stopped there.
at() {
    PART=$1
    note "$1"
    victim A
    moment "$1" || fail "$1 was not reached"
    ID=$(report migrations.0.id "$(ctl B --json list)")
    [[ -n $ID ]] || fail "$1: B knows of no migration"
}

go_on_to() {
    fault none
    settled || fail "$PART: it stays open"
    survey >"$LAB/survey"
    [[ ! -s $LAB/survey && $SURVIVOR == "$1" ]] || fail "$PART: on $SURVIVOR: $(<"$LAB/survey")"
}

is_given_up() {
    peer stranger Hello "{\"protocol\": $PROTOCOL, \"node\": \"x\", \"id\": \"$ID\"}"
    [[ $CODE == 0 ]] || fail "$PART: Hello by a stranger ended with $CODE: $SAID"
    [[ $(report migrations.0.state "$(ctl B --json list)") == ABORTED ]]
}

finish() {
    local wrong
    wrong=$(finish_victim)
    [[ -z $wrong ]] || fail "$PART: $wrong"
}

matrix_start
"$(program haulctl)" pki issue "$SHARED/pki" stranger --san "IP:${HOST_ADDRESS[A]}" >/dev/null

PROTOCOL=$(report protocol "$(ctl B --json node)")

at pre-committing
outcome RESTORED
meddle "${METHODS[@]}"
outcome RESTORED
go_on_to B

finish

at pre-done
outcome COMMITTED
meddle "${METHODS[@]}"
go_on_to B
meddle Commit Abort Query Settle
finish
note "when the tree has ended"
meddle Abort Query Settle
outcome COMMITTED

at fenced
outcome PREPARED
meddle "${METHODS[@]}"
note "a stranger's Hello does not keep a session"
eventually 400 is_given_up || fail "the lease at B does not end: $(ctl B --json list)"
outcome ABORTED
meddle Abort Query Settle
outcome ABORTED
go_on_to A
