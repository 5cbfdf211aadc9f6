#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Each rule that the promise rests on is broken once, in a copy of its file; the simulation must notice.

usage: mutants.py BUILD [NAME…]     names: parts of what a mutant is called

A mutant is: what is broken, file, text, replacement, and the words of `sim --only` that find it: where it is looked
for, and the faults. Text that is not there once exactly is an error: the list is out of date.
"""
import json
import os
import pathlib
import shlex
import subprocess
import sys

TREE = pathlib.Path(__file__).resolve().parents[2]
M = "engine/migration/"
EVENT = "HAUL__V1__JOURNAL_EVENT__J_"

MUTANTS = [
    # What is durable.
    ("a record is not synced", M + "journal.c",
     "if (st == NULL && fdatasync(journal->fd) != 0)", "if (st == NULL && false)", "fast,power-a,power-b"),
    ("a rewritten journal is not synced before it takes the old one's place", M + "journal.c",
     "(fsync(fd) != 0 || rename(", "(rename(", "big,power-a-data,power-b-data"),
    ("the directory is not synced after a rewrite", M + "journal.c",
     "st = sync_directory(journal->dir);", "st = NULL;", "big,fast,power-a,power-b"),
    ("what a new hauld has read is not synced before it acts on it", M + "journal.c",
     "return fsync(journal->fd) == 0 ? NULL : status_errnof(errno, \"cannot sync the journal\");",
     "return NULL;", "after-writes,kill-a,kill-b,power-a,power-b"),
    ("a torn tail keeps hauld from starting", M + "journal.c",
     "if (at < size && has_record_behind(data + at, size - at))", "if (at < size)", "fast,power-a-torn"),
    ("records go behind a torn tail", M + "journal.c", "*ret_good = at;", "*ret_good = size;",
     "pairs,power-a-torn,kill-a"),
    ("two haulds share a state directory", M + "journal.c",
     "if (flock(journal->lock_fd, LOCK_EX | LOCK_NB) != 0)", "if (false)", "fast,second-a"),
    # Records before acts, at the source.
    ("FENCED is not journaled", M + "source_copy.c",
     "return st == NULL ? source_journal(source, event, NULL) : st;", "return st;", "fast,kill-a"),
    ("where a tree that is slowed down belongs is not journaled", M + "source.c",
     "event == " + EVENT + "SOURCE_RESERVED ||", "false ||", "restless,kill-a"),
    ("a tree that was slowed down stays so", M + "source_converge.c",
     "throttle_undo(source->core, source->id, &source->fence);", "NULL;", "restless,kill-a"),
    ("a new hauld leaves a slowed tree whose migration is over", M + "source_recover.c",
     "cgroup_each(sources->core->cgroups, THROTTLE_GROUP,\n\t\t\t\t\t\t  return_slowed, sources)", "NULL",
     "restless,kill-a"),
    ("COMMITTING is not journaled", M + "source_commit.c",
     "st = source_journal(source, " + EVENT + "SOURCE_COMMITTING, NULL);", "st = NULL;", "fast,kill-a"),
    ("DONE is not journaled", M + "source_commit.c",
     "source_journal(source, " + EVENT + "SOURCE_DONE, NULL);", "NULL;", "fast,kill-a"),
    ("RESUMED is not journaled before the thaw", M + "source_commit.c",
     "source_journal(source, " + EVENT + "SOURCE_RESUMED, reason);", "NULL;", "fast,criu-b,power-a"),
    ("the end of an aborted migration is not journaled", M + "source_commit.c",
     "source_journal(source, " + EVENT + "SOURCE_RESUMED,\n"
     "\t\t\t   source->error != NULL ? status_message(source->error) : \"\");", "NULL;", "fast,lose"),
    ("LOST is not journaled", M + "source_commit.c",
     "source_journal(source, " + EVENT + "SOURCE_LOST,\n"
     "\t\t\t   \"no whole copy was at the destination\");", "NULL;", "fast,power-a"),
    ("a new hauld does not wait for the guard that fills a tree", M + "incoming_lazy.c",
     "if (cgroup_exists(group) && is_wanted && !is_late)", "if (false)", "lazy,kill-b"),
    # At the destination.
    ("PREPARED is not journaled", M + "incoming_copy.c",
     "st = incoming_journal(incoming, " + EVENT + "DEST_PREPARED, \"\");", "st = NULL;", "fast,kill-b"),
    ("RESTORED is not journaled", M + "incoming_restore.c",
     "st = incoming_journal(incoming, " + EVENT + "DEST_RESTORED, \"\");", "st = NULL;", "fast,power-a"),
    ("COMMITTED is not journaled", M + "incoming_commit.c",
     "st = core_journal(incoming->core, incoming->id, " + EVENT + "DEST_COMMITTED,\n\t\t\t  &fields);",
     "st = NULL;", "fast,kill-b"),
    ("ABORTED is not journaled", M + "incoming.c",
     "status *st = incoming_journal(incoming, " + EVENT + "DEST_ABORTED,\n"
     "\t\t\t\t      status_message(why));", "status *st = NULL;",
     "fast,lose,cut"),
    # Fences.
    ("the source's fence does not freeze", M + "fence.c",
     "st = cgroup_freeze(fence->path, FENCE_TIMEOUT_MS);", "st = NULL;", "fast,criu-a"),
    ("a tree that CRIU let go before the freeze is taken for held", M + "source_copy.c",
     "st = fence_check_held(&source->fence, swrk_pid(source->swrk));", "st = NULL;", "fast,criu-a"),
    ("the source's tree is not killed at the end", M + "source_commit.c",
     "st = fence_kill(&source->fence);", "st = NULL;", "fast,criu-a"),
    ("the restored tree is not frozen", M + "incoming_restore.c",
     "st = cgroup_freeze(incoming->group, GROUP_TIMEOUT_MS);", "st = NULL;", "fast,kill-b"),
    ("a restoring CRIU notices that its hauld died", M + "incoming_copy.c",
     ".outlives_engine = true,", ".outlives_engine = false,", "fast,kill-b"),
    ("a new hauld ends a restoring CRIU before what it holds is frozen", M + "incoming_commit.c",
     "status_free(cgroup_freeze(group, GROUP_TIMEOUT_MS));", ";", "fast,kill-b"),
    ("what is given up is not killed", M + "incoming.c",
     "cgroup_exists(incoming->group) ? cgroup_kill(incoming->group, GROUP_TIMEOUT_MS) : NULL;", "NULL;",
     "fast,lose,cut"),
    ("a new hauld does not kill what was given up", M + "incoming_commit.c",
     "scoped(status) status *st = cgroup_kill(group, GROUP_TIMEOUT_MS);", "scoped(status) status *st = NULL;",
     "pairs,cut,lose,kill-b"),
    ("a new hauld does not open, or kill, a decided tree's fence", M + "source_recover.c",
     "st = record->event == " + EVENT + "SOURCE_RESUMED ? fence_open(&fence)\n"
     "\t\t\t\t\t\t\t\t\t: fence_kill(&fence);", "st = NULL;", "fast,kill-a"),
    ("a new hauld does not thaw what was committed", M + "incoming_commit.c",
     "status *st = cgroup_thaw(incoming->group, GROUP_TIMEOUT_MS);", "status *st = NULL;", "fast,kill-b"),
    ("a new hauld gives a whole copy up", M + "incoming_commit.c",
     "if (is_whole) {", "if (false) {", "pairs,power-a-late,kill-b"),
    # Asking, and the verdict.
    ("no answer to Commit: resume", M + "source_stages.c",
     "SRC_FILL,    SRC_ASK,    true}", "SRC_FILL,    SRC_RESUME, true}", "fast,lose,kill-b"),
    ("no answer to Commit: finish", M + "source_stages.c",
     "SRC_FILL,    SRC_ASK,    true}", "SRC_FILL,    SRC_FINISH, true}", "fast,lose,kill-b"),
    ("not told whether all memory is there: resume", M + "source_stages.c",
     "SRC_FINISH,  SRC_ASK,    true}", "SRC_FINISH,  SRC_RESUME, true}", "lazy,cut-late,kill-b-gone"),
    ("no answer to Query: resume", M + "verdict.c",
     "static const enum verdict tree_waits[] = {\n    [SAYS_NOTHING] = VERDICT_ASK_AGAIN",
     "static const enum verdict tree_waits[] = {\n    [SAYS_NOTHING] = VERDICT_RESUME", "fast,lose,cut-late"),
    ("UNKNOWN is taken for aborted", M + "verdict.c",
     "[SAYS_UNKNOWN] = VERDICT_OPERATOR,\n    [SAYS_PREPARED] = VERDICT_ABORT_FIRST, "
     "[SAYS_RESTORED] = VERDICT_COMMIT,\n    [SAYS_COMMITTED] = VERDICT_FINISH,	   [SAYS_ABORTED] = VERDICT_RESUME,",
     "[SAYS_UNKNOWN] = VERDICT_RESUME,\n    [SAYS_PREPARED] = VERDICT_ABORT_FIRST, "
     "[SAYS_RESTORED] = VERDICT_COMMIT,\n    [SAYS_COMMITTED] = VERDICT_FINISH,	   [SAYS_ABORTED] = VERDICT_RESUME,",
     "fast,wipe-b"),
    ("RESTORED is taken for aborted", M + "verdict.c",
     "[SAYS_RESTORED] = VERDICT_COMMIT,\n    [SAYS_COMMITTED] = VERDICT_FINISH,	   [SAYS_ABORTED] = VERDICT_RESUME,",
     "[SAYS_RESTORED] = VERDICT_RESUME,\n    [SAYS_COMMITTED] = VERDICT_FINISH,	   [SAYS_ABORTED] = VERDICT_RESUME,",
     "messages,later,lose"),
    ("a tree that has run since gives way to a copy of before", M + "verdict.c",
     "if (here->tree_has_run && says", "if (false && says", "failing,saves-it-a,cut-late"),
    ("COMMITTED lets the source's tree run", M + "verdict.c",
     "[SAYS_COMMITTED] = VERDICT_FINISH,	   [SAYS_ABORTED] = VERDICT_RESUME,",
     "[SAYS_COMMITTED] = VERDICT_RESUME,	   [SAYS_ABORTED] = VERDICT_RESUME,", "fast,lose"),
    ("ABORTED ends the source's tree", M + "verdict.c",
     "[SAYS_ABORTED] = VERDICT_RESUME,", "[SAYS_ABORTED] = VERDICT_FINISH,", "fast,power-b"),
    ("a source whose tree is gone gives up a whole copy", M + "verdict.c",
     "[SAYS_RESTORED] = VERDICT_COMMIT,\n    [SAYS_COMMITTED] = VERDICT_FINISH,	   [SAYS_ABORTED] = VERDICT_LOST,",
     "[SAYS_RESTORED] = VERDICT_ABORT_FIRST,\n    [SAYS_COMMITTED] = VERDICT_FINISH,	   [SAYS_ABORTED] = VERDICT_LOST,",
     "fast,power-a"),
    ("a tree that is gone before any dump is asked for", M + "verdict.c",
     "if (!here->is_reserved)\n", "if (false)\n", "fast,power-a"),
    ("a new hauld does not know that Commit may have left", M + "source_recover.c",
     "source->is_committing = record->event >= " + EVENT + "SOURCE_COMMITTING;", "source->is_committing = false;",
     "fast,kill-a"),
    ("another boot's processes are taken for the tree", M + "source_recover.c",
     "source->tree_was_elsewhere = strcmp(record->boot_id, core->boot_id) != 0;",
     "source->tree_was_elsewhere = false;", "fast,power-a"),
    ("Query answers \"aborted\" while a copy may still be committed", M + "incoming_commit.c",
     "return HAUL__V1__OUTCOME__OUTCOME_RESTORED;", "return HAUL__V1__OUTCOME__OUTCOME_ABORTED;",
     "messages,later,lose"),
    ("a commit is forgotten when its tree has been settled", M + "incoming_commit.c",
     "\tcase " + EVENT + "DEST_COMMITTED:\n\tcase " + EVENT + "DEST_SETTLED:\n\tcase " + EVENT + "DEST_ENDED:\n"
     "\t\treturn HAUL__V1__OUTCOME__OUTCOME_COMMITTED;",
     "\tcase " + EVENT + "DEST_COMMITTED:\n\t\treturn HAUL__V1__OUTCOME__OUTCOME_COMMITTED;", "fast,power-b,power-b-gone"),
    ("after COMMITTING a cancel is accepted", M + "source.c",
     "source->is_committing = st == NULL;", ";", "fast,cancel,kill-b"),
    # What a hauld that was killed leaves.
    ("what a hauld left that was killed at its start stays behind", "engine/core.c",
     "\"probe-%s\", core->tag);", "\"probe-%d\", getpid());", "fast,kill-a"),
    # Operators.
    ("an operator's word is not journaled", M + "source_commit.c",
     "status *st = core_journal(source->core, source->id,\n"
     "\t\t\t\t  is_resume ? " + EVENT + "SOURCE_RESUMED\n\t\t\t\t\t    : " + EVENT + "SOURCE_DONE,\n"
     "\t\t\t\t  &fields);", "status *st = NULL;", "operators,kill-b-late,cut-late,resolve"),
    ("an operator's resume at the destination is a kill", M + "incoming_resolve.c",
     "return is_resume\n\t\t   ? incoming_let_run(incomings, incoming, true, request->reason)\n",
     "return false ? NULL\n",
     "operators,fast,power-a-late,power-a-gone,resolve"),
    # Leases.
    ("a source does not keep its lease", M + "keeper.c",
     "bool is_heard = say_hello(source, patience_ms(source, &heard, now));", "bool is_heard = now > 0;",
     "slow,kill-a"),
    ("a Hello has a third of the lease only", M + "keeper.c",
     "left_ms > lease_ms / 3 ? left_ms : lease_ms / 3", "lease_ms / 3 + 0 * left_ms", "far,kill-a"),
    ("memory that goes out is no sign of life", M + "keeper.c",
     "if (sent > heard->sent)", "if (false)", "narrow,kill-a"),
    ("memory that comes in is no sign of life", M + "incoming.c",
     "if (bytes != incoming->heard_bytes)", "if (false)", "narrow,kill-a"),
    ("a lease never ends", M + "incoming.c",
     "return incoming->users == 0 && silent > incoming->lease_ms ? CARE_LEASE : CARE_NONE;", "return CARE_NONE;",
     "fast,power-a"),
    ("a whole copy is held as long as a lease only", M + "incoming.c",
     "return silent > incoming->core->config.hold_restored_ms ? CARE_HOLD : CARE_NONE;",
     "return silent > incoming->lease_ms ? CARE_HOLD : CARE_NONE;", "fast,power-a-late"),
    ("a whole copy is held for ever", M + "incoming.c",
     "return silent > incoming->core->config.hold_restored_ms ? CARE_HOLD : CARE_NONE;", "return CARE_NONE;",
     "fast,cut-gone"),
]


# Broken, these are not noticed: something else holds, and the reason says what.
REDUNDANT = [
    ("a Hello that got lost is not said again in time: a migration is given up, no copy is lost", M + "keeper.c",
     "rpc_client_enable_retry(source->keeper);", ";", "slow,lose"),
    ("a broken journal goes on: what could not be taken back is overwritten by the next record", M + "journal.c",
     "fsync(journal->fd) != 0)\n\t\tjournal->is_broken = true;", "fsync(journal->fd) != 0)\n\t\t;",
     "fast,failing,saves-it-a,saves-it-b,drops-a,drops-b,cut-late"),
    ("BEGUN is not journaled: nothing is touched before RESERVED, and what is left is swept by its directory",
     M + "source_start.c", "st = source_journal(source, " + EVENT + "SOURCE_BEGUN, NULL);", "st = NULL;",
     "fast,kill-a"),
    ("RESERVED is not journaled: FENCED follows before any copy can be whole, and the lease ends what was prepared",
     M + "source_copy.c", "st = source_journal(source, " + EVENT + "SOURCE_RESERVED, NULL);", "st = NULL;",
     "fast,kill-a"),
    ("a Prepare for a known id is not refused at once: the journal lets no PREPARED follow ABORTED",
     M + "incoming_copy.c", "if (known != NULL)\n", "if (false)\n", "fast,late,later,twice-late"),
    ("a repeated Commit is an error: the source asks, and is told",
     M + "incoming_commit.c", "else if (incoming->state != INCOMING_COMMITTED)", "else", "fast,lose,twice"),
]


def compile_command(build, file):
    for entry in json.loads((build / "compile_commands.json").read_text()):
        if entry["file"].endswith("/" + file) and "sim_product.dir" in entry["command"]:
            return shlex.split(entry["command"]), entry["directory"]
    sys.exit(f"mutants.py: {file} is not a part of the simulation")


def make(build, work, file, text, number):
    """Compiles a changed file and links it before the others. Returns the program."""
    mutant = work / f"{number}-{os.path.basename(file)}"
    mutant.write_text(text)
    words, directory = compile_command(build, file)
    words[words.index("-c") + 1] = str(mutant)
    words[words.index("-o") + 1] = str(mutant) + ".o"
    subprocess.run(words + ["-w"], cwd=directory, check=True)
    program = work / f"{number}-sim"
    main = [build / f"tests/sim/CMakeFiles/sim.dir/{name}.c.o" for name in ("sim", "spec")]
    subprocess.run(["cc", "-o", program, *main, str(mutant) + ".o", f"@{build}/tests/sim/link.rsp"], check=True)
    return program


def is_wrong(build, work, number, mutant):
    """Tells whether a mutant is not what the list says."""
    name, file, old, new, only = mutant
    source = (TREE / file).read_text()
    if source.count(old) != 1:
        print(f"OUT OF DATE: {name}: its text is {source.count(old)} times in {file}")
        return True
    program = make(build, work, file, source.replace(old, new), number)
    done = subprocess.run([program, "--first", "--pairs", "4000", "--only", only], capture_output=True, text=True)
    program.unlink()
    if mutant in REDUNDANT:
        print(f"{'CAUGHT AFTER ALL' if done.returncode else 'redundant'}  {name}", flush=True)
        return done.returncode != 0
    if done.returncode != 1:
        print(f"NOT CAUGHT: {name}\n{done.stdout}{done.stderr}")
        return True
    print(f"caught  {name}: {done.stderr.strip().removeprefix('FAILED: ')}", flush=True)
    return False


def main():
    build = pathlib.Path(sys.argv[1]).resolve()
    work = build / "tests/sim/mutants"
    work.mkdir(exist_ok=True)
    chosen = [m for m in MUTANTS + REDUNDANT if len(sys.argv) == 2 or any(word in m[0] for word in sys.argv[2:])]
    failed = sum(is_wrong(build, work, number, mutant) for number, mutant in enumerate(chosen))
    print(f"{len(chosen)} mutants, {failed} not as the list says")
    sys.exit(1 if failed or not chosen else 0)


main()
