#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# native_recovery: migrations in doubt, operators' decisions, a destination that is lost, and state directories that are lost, damaged,
# foreign, read-only or full. After each part exactly one healthy copy runs.
# shellcheck source-path=SCRIPTDIR disable=SC2119,SC2120,SC2016,SC2317
. "$(dirname "$0")/../matrix.sh"

# --- words ---

say() {
    PART=$1
    note "$1"
    log_marks
}

# flunk MESSAGE: with the logs of this part.
flunk() {
    show_logs >&2
    fail "$PART: $*"
}

# expect_one HOST: the copy runs there, nothing else is left, and it can be migrated.
expect_one() {
    local wrong
    settled || flunk "migrations stay open: $(ctl A list --active 2>&1) $(ctl B list --active 2>&1)"
    survey >"$LAB/survey"
    [[ ! -s $LAB/survey ]] || flunk "$(<"$LAB/survey")"
    [[ $SURVIVOR == "$1" ]] || flunk "the copy runs on $SURVIVOR, not on $1"
    wrong=$(move_survivor)
    [[ -z $wrong ]] || flunk "$wrong"
    wrong=$(finish_victim)
    [[ -z $wrong ]] || flunk "$wrong"
}

# beats_stand HOST: it does not run there. Two looks, several beats apart.
beats_stand() {
    local before
    before=$(beats "$1")
    sleep 0.5
    [[ $(beats "$1") == "$before" ]] || flunk "the copy on $1 runs"
}

is_in_doubt() {
    DOUBT=$(ctl A --json list --active 2>/dev/null)
    [[ $DOUBT == *IN_DOUBT* ]]
}

in_doubt() {
    eventually 400 is_in_doubt || flunk "it is not in doubt: $DOUBT"
    ID=$(report migrations.0.id "$DOUBT")
}

# resolve CODE ARG…: haulctl resolve at A ends with this code; its words are in SAID.
resolve() {
    local code=0 wanted=$1
    shift
    SAID=$(ctl A resolve "$ID" "$@" 2>&1 </dev/null) || code=$?
    [[ $code == "$wanted" ]] || flunk "resolve $* ended with $code: $SAID"
}

expect_said() {
    [[ $SAID =~ $1 ]] || flunk "it does not say '$1': $SAID"
}

# expect_reason WORD COMMAND ARG…: haulctl at A refuses it with this reason.
expect_reason() {
    local wanted=$1
    shift
    ! SAID=$(ctl A --json "$@" 2>/dev/null </dev/null) || flunk "$* was not refused: $SAID"
    [[ $(report error.reason "$SAID") == "$wanted" ]] || flunk "$*: the reason is not $wanted: $SAID"
}

# The words of a hauld that must not start: start_refused HOST CODE ARG…
start_refused() {
    local host=$1 wanted=$2 code=0
    shift 2
    SAID=$(on "$host" timeout 20 "$(program hauld)" --node x --local ipc:///run/haul2/x.sock \
        --criu /usr/sbin/criu "$@" 2>&1) || code=$?
    [[ $code == $((64 + wanted)) ]] || flunk "hauld ended with $code: $SAID"
}

log_says() {
    tail -n "+$((LOG_MARK[$1] + 1))" "$SHARED/hauld-$1.log" | grep -qE "$2"
}

# A stops with COMMITTING in its journal, B's engine dies with a whole copy behind its fence.
doubt() {
    victim A
    moment committing || flunk "it did not get that far"
    engine_kill B
    go_on
    in_doubt
}

poke() {
    on "$1" python3 - "$STATE_DIR/journal" "$2" "$3" <<'PY'
import sys
path, at, data = sys.argv[1], int(sys.argv[2]), bytes.fromhex(sys.argv[3])
with open(path, "r+b") as file:
    file.seek(at if at >= 0 else 0, 0 if at >= 0 else 2)
    file.write(data)
PY
}

# --- in doubt ---

doubt_resume() {
    say "in doubt; an operator lets the tree at the source run"
    doubt
    [[ $(report migrations.0.inDoubtSinceUnixMs "$DOUBT") -gt 1600000000000 ]] || flunk "no since-when: $DOUBT"
    [[ $(report migrations.0.doubt "$DOUBT") == *"did not say whether it committed"* ]] || flunk "no why: $DOUBT"
    [[ $(report migrations.0.error.reason "$DOUBT") == IN_DOUBT ]] || flunk "no reason: $DOUBT"
    SAID=$(ctl A list)
    expect_said 'IN_DOUBT.*did not say'
    beats_stand A
    beats_stand B
    expect_reason TOO_LATE_TO_CANCEL cancel "$ID"
    expect_reason RISK_NOT_ACCEPTED resolve "$ID" --resume
    expect_reason RISK_NOT_ACCEPTED call haul.v1.Migrations/Resolve -d "{\"id\": \"$ID\", \"act\": \"RESUME\"}"
    resolve 73 --resume
    expect_said 'second copy'
    is_in_doubt || flunk "a refused resolve changed something: $DOUBT"
    beats_stand A
    resolve 0 --resume --accept-risk --reason "the other one is off"
    eventually 100 has_advanced A "$(beats A)" || flunk "the copy on A does not run"
    on A grep -aq "the other one is off" "$STATE_DIR/journal" || flunk "the decision is not in the journal"
    log_says A 'Migrations/Resolve' || flunk "the call is not in the log"
    log_says A 'an operator decided' || flunk "the decision is not in the log"
    engine_kill A
    engine_up A
    eventually 100 has_advanced A "$(beats A)" || flunk "the copy on A does not run after a restart"
    engine_up B
    expect_one A
}

doubt_kill() {
    say "in doubt; an operator ends the tree at the source, since it runs at the destination"
    victim A
    stall_at B thaw:in after
    STALLED=B
    migrate_begin
    eventually 400 is_stopped B || flunk "it did not get that far"
    wait "$BEGUN_JOB"
    expect_reason NOT_IN_DOUBT resolve "$(report id "$(<"$LAB/begun.json")")" --kill --accept-risk
    engine_kill B
    in_doubt
    eventually 100 has_advanced B "$(beats B)" || flunk "the copy on B does not run"
    beats_stand A
    resolve 73 --kill
    expect_said 'only copy'
    resolve 0 --kill --accept-risk
    expect_gone A "$PID"
    engine_up B
    expect_one B
}

doubt_answered() {
    say "in doubt; both engines are restarted, and the destination has a whole copy"
    doubt
    engine_kill A
    engine_up A
    in_doubt
    beats_stand A
    engine_up B
    expect_one B
    [[ $(recorded A "$ID" state) == COMPLETED && $(recorded A "$ID" error) == None ]] ||
        flunk "what became of the doubt: $(ctl A --json show "$ID")"
}

tree_gone() {
    say "in doubt; the source's tree is killed behind its fence: the copy that is held takes over"
    doubt
    on A kill -KILL "$PID"
    # CRIU still holds what is left of it.
    is_dead() {
        [[ $(process_state A "$PID") == [Zg]* ]]
    }
    eventually 100 is_dead || flunk "the tree at A lives: $(process_state A "$PID")"
    engine_up B
    expect_one B
}

state_lost() {
    say "in doubt; the destination has lost its state directory"
    doubt
    on B find "$STATE_DIR" -mindepth 1 -delete
    engine_up B
    log_says B 'frozen tree of a migration that the journal does not know' || flunk "B says nothing of the tree"
    knows_nothing() {
        is_in_doubt && [[ $DOUBT == *"no record of this migration"* && $DOUBT == *RESOLVE_NEEDED* ]]
    }
    eventually 400 knows_nothing || flunk "the doubt does not say why: $DOUBT"
    beats_stand A
    beats_stand B
    engine_kill A
    engine_up A
    eventually 400 knows_nothing || flunk "after a restart the doubt does not say why: $DOUBT"
    # The operator looks, ends the copy at B and lets the one at A run.
    on B bash -c 'echo 1 >"$1/in-$2/cgroup.kill"; until rmdir "$1/in-$2"; do sleep 0.05; done 2>/dev/null
        rmdir "$1/criu-in-$2"
        [[ ! -e $1/lazy-$2 ]] || until rmdir "$1/lazy-$2"; do sleep 0.05; done 2>/dev/null' bash "$CGROUPS" "$ID"
    resolve 0 --resume --accept-risk
    expect_one A
}

# --- the destination's engine ---

not_open() {
    ! has_open "$1"
}

# The report of the migration that `moment` began.
show_begun() {
    wait "$BEGUN_JOB" || true
    ID=$(report id "$(<"$LAB/begun.json")")
    eventually 400 not_open A || flunk "it stays open at A"
    REPORT=$(ctl A --json show "$ID")
}

expect_report() {
    [[ $REPORT == *"$1"* ]] || flunk "the report does not say '$1': $REPORT"
}

destination_lost() {
    say "the destination's engine dies with half a copy, and nobody answers any more"
    victim A
    moment fenced || flunk "it did not get that far"
    engine_kill B
    go_on
    show_begun
    note "  $(message)"
    [[ $(message) == *"the destination's engine was lost"* && $(report error.reason) == DESTINATION_LOST ]] ||
        flunk "it does not say who was lost: $REPORT"
    expect_report 'the workload runs here as before'
    expect_report 'see whether hauld runs there'
    eventually 100 has_advanced A "$(beats A)" || flunk "the workload does not run"
    engine_up B
    expect_one A
    say "the destination's engine dies with half a copy, and the next one answers"
    victim A
    moment fenced || flunk "it did not get that far"
    engine_kill B
    engine_up B
    go_on
    show_begun
    note "  $(message)"
    [[ $(message) == *"the destination's engine was restarted"* && $(report error.reason) == DESTINATION_GAVE_UP ]] ||
        flunk "it does not say why: $REPORT"
    expect_report 'the workload runs here as before'
    ABORTED_ID=$ID
    expect_one A
}

destination_silent() {
    say "the destination is not heard of any more while the tree is frozen: it runs again when the lease is over"
    TIMERS=(--lease "${LEASE_MS}ms" --criu-timeout 120s --hold-restored 5s --hold-images 500ms)
    engine_kill A
    engine_up A
    victim A
    moment fenced || flunk "it did not get that far"
    link_cut
    go_on
    # Long before the call that waits for the destination gives up.
    eventually 400 has_advanced A "$(beats A)" || flunk "the workload stays frozen"
    show_begun
    note "  $(message)"
    [[ $(message) == *"the destination's engine was lost"*"nothing was heard"* ]] || flunk "it does not say why: $REPORT"
    [[ $(report error.reason) == DESTINATION_LOST ]] || flunk "another reason: $REPORT"
    link_restore
    expect_one A
}

gave_up_because() {
    [[ $(recorded B "$ID" state) == ABORTED && $(recorded B "$ID" error.reason) == "$1" ]]
}

# stays_silent STAGE REASON WORDS: A's engine is silent from that stage on, until B has given up for that reason.
stays_silent() {
    victim A
    moment "$1" || flunk "it did not get that far"
    wait "$BEGUN_JOB"
    ID=$(report id "$(<"$LAB/begun.json")")
    eventually 400 gave_up_because "$2" || flunk "at B: $(ctl B --json show "$ID")"
    go_on
    show_begun
    note "  $(message)"
    [[ $(message) == *"$3"* && $(report error.reason) == DESTINATION_GAVE_UP ]] || flunk "it does not say why: $REPORT"
    expect_one A
}

source_silent() {
    say "the source is not heard of any more: half a copy goes when the lease is over, a whole one after the hold"
    TIMERS=(--lease "${LEASE_MS}ms" --criu-timeout 4s --hold-restored 500ms --hold-images 500ms)
    engine_kill B
    engine_up B
    stays_silent fenced LEASE_EXPIRED "the source fell silent"
    stays_silent committing HOLD_EXPIRED "the source did not come back"
}

# recorded HOST ID PATH: a field of that migration, as HOST lists it.
recorded() {
    ctl "$1" --json list | python3 -c '
import json, sys
for migration in json.load(sys.stdin)["migrations"]:
    if migration["id"] == sys.argv[1]:
        value = migration
        for key in sys.argv[2].split("."):
            value = value.get(key, {})
        print(value)' "$2" "$3"
}

history() {
    local host
    say "what is over is listed after a restart, at both sides, even when the reports are lost"
    victim A
    migrate A "$PID" B
    expect_completed
    ID=$(report id)
    SURVIVOR=B
    [[ -z $(finish_victim) ]] || flunk "something is left"
    # The reports are not synced: after a power-off only the journal may know.
    for host in A B; do
        engine_kill "$host"
        on "$host" rm -r "$STATE_DIR/history"
        engine_up "$host"
    done
    [[ $(recorded A "$ID" state) == COMPLETED && $(recorded A "$ID" role) == source ]] ||
        flunk "A does not list it: $(ctl A list)"
    [[ $(recorded B "$ID" state) == COMPLETED && $(recorded B "$ID" role) == destination &&
        $(recorded B "$ID" peer) == a && $(recorded B "$ID" endedUnixMs) -gt 0 ]] ||
        flunk "B does not list it: $(ctl B --json list)"
    [[ $(recorded B "$ABORTED_ID" state) == ABORTED &&
        $(recorded B "$ABORTED_ID" error.message) == *'was restarted'* ]] ||
        flunk "B does not list the aborted one: $(ctl B --json list)"
}

# --- the journal ---

second_engine() {
    say "a second hauld on the state directory"
    victim A
    start_refused A 6 --state-dir "$STATE_DIR"
    expect_said 'another hauld uses the state directory'
    expect_one A
}

journal_damage() {
    say "a journal with a torn tail, a damaged one, and one of a newer haul"
    victim A
    engine_kill A
    poke A -1 2000000012345678
    engine_up A
    expect_one A
    victim A
    engine_kill A
    on A cp "$STATE_DIR/journal" /tmp/journal
    poke A 40 ffffffff
    start_refused A 15 --state-dir "$STATE_DIR"
    expect_said 'damaged at byte'
    expect_said 'do not delete it'
    on A cp /tmp/journal "$STATE_DIR/journal"
    poke A 8 63000000
    start_refused A 9 --state-dir "$STATE_DIR"
    expect_said 'newer haul'
    eventually 100 has_advanced A "$(beats A)" || flunk "the workload does not run"
    on A cp /tmp/journal "$STATE_DIR/journal"
    engine_up A
    expect_one A
}

# --- the disk ---

refused_here() {
    migrate A "$PID" B
    [[ $CODE != 0 ]] || flunk "it was not refused"
    [[ $(message) =~ $1 ]] || flunk "it does not say '$1': $(message)"
    note "  $(message)"
    settled || flunk "it stays open"
    eventually 100 has_advanced A "$(beats A)" || flunk "the workload does not run"
}

read_only() {
    local host kind
    say "a read-only state directory: at the start, and under a running engine"
    victim A
    engine_kill A
    # Not while what was killed, or its CRIU, still has a file open for writing.
    eventually 100 on A mount -o remount,ro "$STATE_DIR" 2>/dev/null || flunk "the state directory stays writable"
    start_refused A 7 --state-dir "$STATE_DIR"
    expect_said 'Read-only'
    on A mount -o remount,rw "$STATE_DIR"
    engine_up A
    eventually 100 has_advanced A "$(beats A)" || flunk "the workload does not run"
    for host in A B; do
        kind=out
        [[ $host == A ]] || kind=in
        on "$host" bash -c 'mkdir -p "$1" && mount -t tmpfs -o ro full "$1"' bash "$STATE_DIR/$kind"
        refused_here 'Read-only'
        eventually 100 on "$host" umount "$STATE_DIR/$kind" 2>/dev/null || flunk "$STATE_DIR/$kind stays mounted"
    done
    expect_one A
}

full() {
    local host
    say "a full disk: at the source, at the destination, and in the middle of a migration"
    victim A
    for host in A B; do
        disk_fill "$host"
        refused_here 'No space|[Nn]o room|MiB free'
        disk_clear "$host"
    done
    moment reserved || flunk "it did not get that far"
    disk_fill A
    go_on
    show_begun
    note "  $(message)"
    [[ $(message) =~ No\ space|no\ room ]] || flunk "it does not say that the disk is full: $REPORT"
    expect_report 'the workload runs here as before'
    eventually 100 has_advanced A "$(beats A)" || flunk "the workload does not run"
    settled || flunk "it stays open"
    disk_clear A
    expect_one A
}

matrix_start
PARTS=(doubt_resume doubt_kill doubt_answered tree_gone state_lost destination_lost destination_silent source_silent history second_engine journal_damage read_only full)
# HAUL_PARTS="…": only those.
read -ra wanted <<<"${HAUL_PARTS:-${PARTS[*]}}"
for part in "${wanted[@]}"; do
    "$part"
done
