#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# native_fakes: CRIU that fails, dies, hangs or talks nonsense at every point before the commit, on either side,
# with pre-copy, played by tests/fake; each time the workload goes on at the source and nothing is left at the
# destination. The same way is gone with the real CRIU in both_faults and native_matrix.
# shellcheck source-path=SCRIPTDIR disable=SC2119,SC2120
. "$(dirname "$0")/../haul.sh"

fake=$BUILD/tests/fake/fake-criu
[[ -x $fake ]] || fail "no $fake"
program=$BUILD/tests/fake/fake-victim

# engine HOST WORDS: its engine anew, with a CRIU that behaves so.
engine() {
    engine_stop "$1"
    HAUL_FAKE_CRIU=$2 engine_start "$1" --criu "$fake" --criu-timeout 2s --lease 5s
}

# Images, pages and groups of any migration at B.
left_behind() {
    on B bash -c 'find /var/lib/haul/in /sys/fs/cgroup/haul -mindepth 1 \( -type f -path "*/images/*" -o -name "*in-*" \) 2>/dev/null' || true
}

# The workload runs at A as it was, not frozen; nothing of it is at B.
untouched() {
    local try state
    for ((try = 0; try < 50 * SLOW; try++)); do
        state=$(process_state A "$victim")
        [[ $state != [RSD]*" frozen 0" ]] || break
        sleep 0.1
    done
    [[ $state == [RSD]*" frozen 0" ]] || fail "$1: the workload is $state"
    for ((try = 0; try < 50 * SLOW; try++)); do
        [[ -n $(on B pgrep -f "^$program" || true)$(left_behind) ]] || return 0
        sleep 0.1
    done
    fail "$1: left at B: $(on B pgrep -f "^$program" || true) $(left_behind)"
}

# broken HOST WORDS [CODE]: with such a CRIU there the migration is refused.
broken() {
    engine "$1" "$2"
    migrate A "$victim" B --max-rounds 2
    expect_refused "${3:-}"
    untouched "$1 $2"
}

lab_start
for host in A B; do
    engine "$host" any-pid
done
victim=$(start_on A "$program")

note "a CPU that does not match, another version, a kernel that it does not like"
broken B cpu-mismatch FAILED_PRECONDITION
broken B version=30000 FAILED_PRECONDITION
broken B no-kernel FAILED_PRECONDITION
engine B any-pid

for verb in fail garbage die hang; do
    note "the source's CRIU: $verb"
    points=(pre-dump dump) # where it answers
    [[ $verb != die && $verb != hang ]] || points=(pre-dump pages dump close)
    for point in "${points[@]}"; do
        broken A "$verb=$point"
    done
done
engine A any-pid

for verb in fail garbage die hang; do
    note "the destination's CRIU: $verb"
    points=(restore)
    [[ $verb != die && $verb != hang ]] || points=(restore post-restore pre-resume response)
    for point in "${points[@]}"; do
        broken B "any-pid $verb=$point"
    done
done
engine B any-pid

# in_time WHAT [FLAG…]: --timeout ends the migration, and not much later.
in_time() {
    local begun=$SECONDS
    migrate A "$victim" B --max-rounds 2 --timeout "$((3 * SLOW))s"
    expect_refused DEADLINE_EXCEEDED
    expect_message "timeout of $((3000 * SLOW)) ms has passed"
    untouched "--timeout, $1"
    ((SECONDS - begun < 20 * SLOW)) || fail "$1: --timeout came after $((SECONDS - begun)) s"
}

# late HOST WORDS: a CRIU there that hangs, in an engine that would wait for long.
late() {
    engine_stop "$1"
    HAUL_FAKE_CRIU=$2 engine_start "$1" --criu "$fake" --criu-timeout 10m --lease 5m
    in_time "$1 $2"
}

note "--timeout bounds every stage, and what the destination does for it"
for point in cpuinfo-dump pre-dump dump; do
    late A "hang=$point"
done
engine A any-pid
for point in cpuinfo-check restore; do
    late B "any-pid hang=$point"
    grep -q "audit.*the time for it was over" "$SHARED/hauld-B.log" || fail "B did not know how much time it had"
done
on B kill -STOP "${ENGINE[B]}"
in_time "a destination that does not answer"
on B kill -CONT "${ENGINE[B]}"
engine B any-pid

note "cancelled in pre-copy"
# One round alone is CRIU's, and slow.
engine A slow=500
ctl A --json --timeout "$((60 * SLOW))s" migrate "pid:$victim" --to "$(url B)" --max-rounds 1 >"$LAB/slow.json" 2>"$LAB/slow.err" &
job=$!
for ((try = 0; try < 200 * SLOW; try++)); do
    list=$(ctl A --json list --active 2>/dev/null)
    id=$(sed -n 's/.*"id":[[:space:]]*"\([0-9a-f]*\)".*/\1/p' <<<"$list" | head -n 1)
    stage=$(sed -n 's/.*"stage":[[:space:]]*"\([a-z-]*\)".*/\1/p' <<<"$list" | head -n 1)
    [[ $stage != pre-copy ]] || break
    sleep 0.05
done
[[ $stage == pre-copy ]] || fail "it never came to pre-copy but to '$stage'"
ctl A cancel "$id" >/dev/null || fail "cancel ended with $?"
CODE=0
wait "$job" || CODE=$?
REPORT=$(<"$LAB/slow.json")
ERRORS=$(<"$LAB/slow.err")
expect_refused CANCELLED
untouched "cancel"
engine A any-pid

note "after all of this it moves"
migrate A "$victim" B
expect_completed
[[ $(report rounds) == *pagesSkipped* ]] || fail "no rounds: $(report rounds)"
[[ -n $(on B pgrep -f "^$program") ]] || fail "it is not at B"
expect_gone A "$victim"
