/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One migration's commit, as engine/migration has it: source_stages.c, source_commit.c, source_recover.c and
 * verdict.c on one side, incoming_copy.c, incoming_commit.c and incoming.c on the other.
 *
 * A step is what a crash cannot cut in two: one journal record, one message, one act of the kernel. All
 * of a machine's memory is forgotten by a crash of its hauld; its journal and its trees stay as the fence
 * says; a power-off takes the trees too.
 *
 * The network: a request that was sent stays deliverable for ever, so it may be late, doubled, overtaken or
 * never come. An answer belongs to the call that waits for it, and may be lost. When the faults are over
 * (calm) requests come once and calls are answered.
 *
 * Bounds, set by check.sh with -D: CRASHES of each hauld, POWER cuts of each machine, KILLS of a tree by
 * somebody else, JFAIL failed journal writes, LOSE = the destination's state directory may be lost,
 * SHORT_HOLD = a whole copy may be given up while the source's machine is down, LAZY = the restored tree has
 * not got all its memory, GKILLS = kills of the guard that holds that memory beside hauld.
 */
#ifndef CRASHES
#define CRASHES 1
#endif
#ifndef POWER
#define POWER 1
#endif
#ifndef KILLS
#define KILLS 0
#endif
#ifndef JFAIL
#define JFAIL 0
#endif
#ifndef LOSE
#define LOSE 0
#endif
#ifndef SHORT_HOLD
#define SHORT_HOLD 0
#endif

#ifndef LAZY
#define LAZY 0
#endif
#ifndef GKILLS
#define GKILLS 0
#endif

/* The source's journal. */
#define BEGUN 0
#define RESERVED 1
#define FENCED 2
#define COMMITTING 3
#define DONE 4
#define RESUMED 5
#define LOST 6
/* The destination's. */
#define NOTHING 0
#define PREPARED 1
#define RESTORED 2
#define COMMITTED 3
#define ABORTED 4
#define SETTLED 5
#define ENDED 6
#define BROKEN 7
#define is_committed(j) ((j) == COMMITTED || (j) == SETTLED || (j) == ENDED)
/* Trees. HELD: stopped by CRIU only. FROZEN: in a frozen cgroup, whole. */
#define NONE 0
#define RUNS 1
#define HELD 2
#define FROZEN 3
#define GONE 4
/* Calls and messages. */
#define PREPARE 1
#define RESTORE 2
#define COMMIT 3
#define ABORT 4
#define QUERY 5
#define SETTLE 6
/* Answers; SAYS_ as verdict.h. */
#define UNANSWERED 0
#define OK 1
#define ERROR 2
#define SAYS_UNKNOWN 3
#define SAYS_PREPARED 4
#define SAYS_RESTORED 5
#define SAYS_COMMITTED 6
#define SAYS_ABORTED 7
#define SAYS_FILLING 8
#define SAYS_BROKEN 9
/* Where the source is. */
#define AT_PREPARE 0
#define AT_PREPARE_CALL 1
#define AT_NOTE 2
#define AT_DUMP 3
#define AT_FENCE 4
#define AT_RESTORE_CALL 5
#define AT_COMMIT 6
#define AT_COMMIT_SEND 7
#define AT_COMMIT_CALL 8
#define AT_ASK 9
#define AT_QUERY_CALL 10
#define AT_COMMIT_AGAIN_CALL 11
#define AT_ABORT_FIRST_CALL 12
#define AT_FINISH 13
#define AT_KILL 14
#define AT_SETTLE 15
#define AT_ABORT 16
#define AT_RESUME 17
#define AT_RESUME_ABORT_CALL 18
#define AT_OPEN 19
#define AT_TELL_ABORT 20
#define AT_LOST 21
#define AT_OVER 22
#define AT_RECOVER 23
#define AT_COPY 24
#define AT_RESUME_WRITE 25
/* Where the destination is: between methods, or within one that has the turn. */
#define D_IDLE 0
#define D_RECOVER 1
#define D_RESTORED 2
#define D_THAW 3
#define D_KILL 4
#define D_UNREADABLE 5
#define D_BROKEN 6

/* What stays. */
byte sj = BEGUN, dj = NOTHING;
byte st = RUNS, dt = NONE;
/* Memory that the tree at the destination has not got: the marker, which stays. The guard: whoever of the two is
 * left alone freezes the tree before it goes on filling (is_held). */
bool is_missing = false, guard = false, is_held = false;
/* What a crash forgets; `holds`: this hauld has what the tree lacks, a new one has not. */
bool holds = false;
bool s_up = true, d_up = true;
byte at = AT_PREPARE, call = 0, answer = UNANSWERED;
bool is_committing = false, s_broken = false;
byte d_at = D_IDLE, d_method = 0, d_answer = OK;
bool d_broken = false;
/* The network. */
bool sent[7];
/* For the properties: */
bool calm = false;     /* no more faults */
bool is_copied = false;/* the final dump is at the destination */
bool ran_on = false;   /* the tree ran at the source after its dump */
bool d_ran = false;    /* it ran at the destination */
bool excused = false;  /* a power cut or a kill took the last whole copy */
byte jfails = JFAIL;

#define is_final(j) ((j) >= DONE)
/* The tree at the source is a copy until the destination's journal says "committed"; the frozen one at the
 * destination is one from RESTORED on until the source's journal says "resumed" (or, when that could not be
 * written, until the source has told it to give up). */
#define is_fillable (!is_missing || holds || guard)
#define source_copy (st != GONE && (!is_committed(dj) || is_missing))
#define destination_copy ((dt == FROZEN && is_committed(dj) && is_fillable) || (dt == RUNS && is_fillable) || \
	(dt == FROZEN && is_fillable && dj == RESTORED && sj != RESUMED && !ran_on && !(JFAIL && sent[ABORT])))

#define never_two (!(st == RUNS && dt == RUNS))
#define never_none (source_copy || destination_copy || excused)
#define runs_only_if_committed (dt != RUNS || is_committed(dj))
/* It never runs without somebody who holds what it has not got. */
#define never_zeros (dt != RUNS || is_fillable)

inline s_write(event, ret_ok)
{
	if
	:: !s_broken -> sj = event; ret_ok = true
	:: s_broken -> ret_ok = false
	:: !s_broken && jfails > 0 -> jfails--; ret_ok = false
	:: !s_broken && jfails > 0 -> jfails--; sj = event; s_broken = true; ret_ok = false
	fi
}

inline d_write(event, ret_ok)
{
	if
	:: !d_broken -> dj = event; ret_ok = true
	:: d_broken -> ret_ok = false
	:: !d_broken && jfails > 0 -> jfails--; ret_ok = false
	:: !d_broken && jfails > 0 -> jfails--; dj = event; d_broken = true; ret_ok = false
	fi
}

/* Sends and waits at `next`. */
inline s_call(kind, next)
{
	sent[kind] = true;
	call = kind;
	answer = UNANSWERED;
	at = next
}

/* The wait's end: an answer, or none in time. */
#define is_answered(where) (s_up && at == where && (answer != UNANSWERED || !calm))

inline hang_up()
{
	call = 0;
	answer = UNANSWERED
}

/* verdict.c, for one answer; `says` is UNANSWERED or ERROR for SAYS_NOTHING. */
#define tree_exists (st != GONE)
#define tree_has_run (st == RUNS)
#define may_be_there (sj >= FENCED)

inline s_decide(says)
{
	if
	:: !tree_exists && !may_be_there -> at = AT_LOST
	:: tree_exists && !is_committing -> at = AT_RESUME
	:: !(!tree_exists && !may_be_there) && !(tree_exists && !is_committing) ->
		if
		:: says == UNANSWERED || says == ERROR -> at = AT_ASK /* VERDICT NOTHING */
		:: says == SAYS_COMMITTED -> at = AT_FINISH
		:: says == SAYS_FILLING && tree_exists -> at = AT_ASK /* VERDICT FILLING */
		:: says == SAYS_FILLING && !tree_exists -> at = AT_FINISH
		:: says == SAYS_BROKEN && tree_exists -> at = AT_RESUME /* by an operator */
		:: says == SAYS_BROKEN && !tree_exists -> at = AT_LOST
		:: tree_exists && tree_has_run && says > ERROR && says != SAYS_COMMITTED &&
			says != SAYS_FILLING && says != SAYS_BROKEN -> at = AT_RESUME
		:: !(tree_exists && tree_has_run) && says == SAYS_UNKNOWN -> at = AT_ASK /* VERDICT UNKNOWN */
		:: !(tree_exists && tree_has_run) && says == SAYS_PREPARED -> s_call(ABORT, AT_ABORT_FIRST_CALL)
		:: !(tree_exists && tree_has_run) && says == SAYS_RESTORED -> s_call(COMMIT, AT_COMMIT_AGAIN_CALL) /* VERDICT RESTORED */
		:: !(tree_exists && tree_has_run) && says == SAYS_ABORTED && tree_exists -> at = AT_RESUME
		:: says == SAYS_ABORTED && !tree_exists -> at = AT_LOST
		fi
	fi
}

active proctype Source()
{
	bool ok;
	byte says;

end:	do
	/* prepare; an error before the freeze leads to abort */
	:: atomic { s_up && at == AT_PREPARE -> s_write(RESERVED, ok);
		if :: ok -> s_call(PREPARE, AT_PREPARE_CALL) :: !ok -> at = AT_ABORT fi }
	:: atomic { is_answered(AT_PREPARE_CALL) ->
		if :: answer == OK -> at = AT_NOTE :: answer == OK -> at = AT_ABORT /* cancelled */
		   :: answer != OK -> at = AT_ABORT fi; hang_up() }
	/* freeze */
	:: atomic { s_up && at == AT_NOTE -> s_write(FENCED, ok);
		if :: ok -> at = AT_DUMP :: true -> at = AT_RESUME fi }
	:: atomic { s_up && at == AT_DUMP ->
		if :: st == RUNS -> st = HELD; at = AT_FENCE :: true -> at = AT_RESUME fi }
	:: atomic { s_up && at == AT_FENCE ->
		if :: st == HELD -> st = FROZEN; at = AT_COPY :: true -> at = AT_RESUME fi }
	:: atomic { s_up && at == AT_COPY ->
		if :: d_up && dj == PREPARED && st == FROZEN -> is_copied = true; s_call(RESTORE, AT_RESTORE_CALL)
		   :: true -> at = AT_RESUME fi }
	/* restore */
	:: atomic { is_answered(AT_RESTORE_CALL) ->
		if :: answer == OK -> at = AT_COMMIT :: answer == OK -> at = AT_RESUME /* cancelled */
		   :: answer != OK -> at = AT_RESUME fi; hang_up() }
	/* commit: the record, then the message */
	:: atomic { s_up && at == AT_COMMIT -> is_committing = true; s_write(COMMITTING, ok);
		if :: ok -> at = AT_COMMIT_SEND :: !ok -> at = AT_RESUME fi }
	:: atomic { s_up && at == AT_COMMIT_SEND -> s_call(COMMIT, AT_COMMIT_CALL) }
	:: atomic { is_answered(AT_COMMIT_CALL) ->
		if :: answer == OK -> at = AT_FINISH /* NOT FILLING */ :: answer != OK -> at = AT_ASK /* NO ANSWER */ fi; hang_up() }
	/* in doubt */
	:: atomic { s_up && at == AT_ASK ->
		if
		:: !tree_exists && !may_be_there -> at = AT_LOST
		:: tree_exists && !is_committing -> at = AT_RESUME
		:: else -> s_call(QUERY, AT_QUERY_CALL)
		fi }
	:: atomic { is_answered(AT_QUERY_CALL) -> says = answer; hang_up(); s_decide(says); says = 0 }
	:: atomic { is_answered(AT_COMMIT_AGAIN_CALL) ->
		if :: answer == OK -> at = AT_FINISH :: answer != OK -> at = AT_ASK fi; hang_up() }
	:: atomic { is_answered(AT_ABORT_FIRST_CALL) -> at = AT_ASK; hang_up() }
	/* finish: a record that could not be written changes nothing */
	:: atomic { s_up && at == AT_FINISH -> s_write(DONE, ok); at = AT_KILL }
	:: atomic { s_up && at == AT_KILL -> st = GONE; at = AT_SETTLE }
	:: atomic { s_up && at == AT_SETTLE -> sent[SETTLE] = true; at = AT_OVER }
	/* abort: the tree was never frozen */
	:: atomic { s_up && at == AT_ABORT -> s_write(RESUMED, ok); at = AT_TELL_ABORT }
	/* resume: CRIU lets go (behind the fence it stays frozen), the record, the thaw */
	:: atomic { s_up && at == AT_RESUME ->
		if :: st == HELD -> st = RUNS; ran_on = true :: else -> skip fi; at = AT_RESUME_WRITE }
	:: atomic { s_up && at == AT_RESUME_WRITE -> s_write(RESUMED, ok);
		if :: ok -> at = AT_OPEN :: !ok -> s_call(ABORT, AT_RESUME_ABORT_CALL) fi }
	:: atomic { is_answered(AT_RESUME_ABORT_CALL) -> at = AT_OPEN; hang_up() }
	:: atomic { s_up && at == AT_OPEN ->
		if :: st == FROZEN -> st = RUNS; ran_on = true; assert(!d_ran || dj == BROKEN) :: else -> skip fi; at = AT_TELL_ABORT }
	:: atomic { s_up && at == AT_TELL_ABORT -> sent[ABORT] = true; at = AT_OVER }
	:: atomic { s_up && at == AT_LOST -> s_write(LOST, ok); at = AT_OVER }
	/* a new hauld */
	:: atomic { s_up && at == AT_RECOVER ->
		if
		:: sj == RESUMED && st == FROZEN -> st = RUNS; ran_on = true; assert(!d_ran || dj == BROKEN); at = AT_OVER
		:: (sj == DONE || sj == LOST) && st == FROZEN -> st = GONE; at = AT_OVER
		:: is_final(sj) && st != FROZEN -> at = AT_OVER
		:: !is_final(sj) -> is_committing = (sj >= COMMITTING); at = AT_ASK
		fi }
	od
}

#define is_served (d_up && d_at == D_IDLE)

/* A method's end: the answer reaches the call that waits, or is lost. */
inline d_reply(method, what)
{
	if
	:: call == method && answer == UNANSWERED -> answer = what
	:: !(call == method && answer == UNANSWERED) || !calm -> skip
	fi
}

/* A request comes; in calm it comes once. */
inline d_take(method)
{
	if :: calm -> sent[method] = false :: !calm -> skip fi
}

/* incoming_give_up: the record, then the kill. */
inline d_give_up(method, what)
{
	d_write(ABORTED, d_ok);
	if
	:: d_ok -> d_method = method; d_answer = what; d_at = D_KILL
	:: !d_ok -> d_reply(method, ERROR)
	fi
}

active proctype Destination()
{
	bool d_ok;

end:	do
	:: atomic { is_served && sent[PREPARE] -> d_take(PREPARE);
		if
		:: dj == NOTHING && dt != NONE -> d_reply(PREPARE, ERROR) /* its group exists: the journal was lost */
		:: dj == NOTHING && dt == NONE -> d_write(PREPARED, d_ok);
			if :: d_ok -> d_reply(PREPARE, OK) :: !d_ok -> d_reply(PREPARE, ERROR) fi
		:: dj == NOTHING -> d_reply(PREPARE, ERROR) /* preflight */
		:: dj == PREPARED -> d_reply(PREPARE, OK)   /* the same request again */
		:: dj > PREPARED -> d_reply(PREPARE, ERROR)
		fi }
	:: atomic { is_served && sent[RESTORE] -> d_take(RESTORE);
		if
		:: dj == PREPARED && is_copied && dt == NONE -> dt = FROZEN; d_at = D_RESTORED;
			is_missing = LAZY; guard = LAZY; holds = LAZY
		:: dj == PREPARED && is_copied && dt == NONE -> d_give_up(RESTORE, ERROR) /* it failed */
		:: dj == PREPARED && !(is_copied && dt == NONE) -> d_reply(RESTORE, ERROR)
		:: dj == RESTORED -> d_reply(RESTORE, OK)
		:: dj == NOTHING || dj > RESTORED -> d_reply(RESTORE, ERROR)
		fi }
	:: atomic { d_up && d_at == D_RESTORED -> d_at = D_IDLE; d_write(RESTORED, d_ok);
		if :: d_ok -> d_reply(RESTORE, OK) :: !d_ok -> d_give_up(RESTORE, ERROR) fi }
	:: atomic { is_served && sent[COMMIT] -> d_take(COMMIT);
		if
		:: dj == RESTORED && dt == FROZEN && !d_broken -> d_write(COMMITTED, d_ok);
			if
			:: d_ok -> assert(!ran_on || JFAIL); d_at = D_THAW
			:: !d_ok -> d_reply(COMMIT, ERROR)
			fi
		:: dj == RESTORED && dt == FROZEN && d_broken -> d_reply(COMMIT, ERROR)
		:: dj == RESTORED && dt != FROZEN -> d_give_up(COMMIT, ERROR)
		:: is_committed(dj) -> d_reply(COMMIT, (is_missing -> SAYS_FILLING : OK))
		:: !is_committed(dj) && dj != RESTORED -> d_reply(COMMIT, ERROR)
		fi }
	:: atomic { d_up && d_at == D_THAW ->
		if
		:: dt == FROZEN && !is_held && (guard || !is_missing || !holds) -> dt = RUNS; d_ran = true
		:: dt == FROZEN && is_missing && !guard && holds -> is_held = true /* ALONE AT THE COMMIT */
		:: else -> skip
		fi;
		d_at = D_IDLE; d_reply(COMMIT, (is_missing -> SAYS_FILLING : OK)) }
	:: atomic { is_served && sent[ABORT] -> d_take(ABORT);
		if
		:: dj == PREPARED || dj == RESTORED -> d_give_up(ABORT, SAYS_ABORTED)
		:: is_committed(dj) -> d_reply(ABORT, SAYS_COMMITTED) /* ABORT TOO LATE */
		:: dj == ABORTED -> d_reply(ABORT, SAYS_ABORTED)
		:: dj == BROKEN -> d_reply(ABORT, SAYS_BROKEN)
		:: dj == NOTHING -> d_write(ABORTED, d_ok); d_reply(ABORT, SAYS_UNKNOWN)
		fi }
	:: atomic { d_up && d_at == D_KILL ->
		if :: dt != NONE -> dt = GONE :: else -> skip fi;
		is_missing = false; guard = false; is_held = false;
		d_at = D_IDLE; d_reply(d_method, d_answer); d_method = 0; d_answer = OK }
	:: atomic { is_served && sent[QUERY] -> d_take(QUERY);
		if
		:: d_broken -> d_reply(QUERY, ERROR)
		:: !d_broken && dj == NOTHING -> d_reply(QUERY, SAYS_UNKNOWN)
		:: !d_broken && dj == PREPARED -> d_reply(QUERY, SAYS_PREPARED)
		:: !d_broken && dj == RESTORED -> d_reply(QUERY, SAYS_RESTORED)
		:: !d_broken && dj == ABORTED -> d_reply(QUERY, SAYS_ABORTED)
		:: !d_broken && is_committed(dj) && !is_missing -> d_reply(QUERY, SAYS_COMMITTED)
		:: !d_broken && is_committed(dj) && is_missing -> d_reply(QUERY, SAYS_FILLING) /* MISSING */
		:: !d_broken && dj == BROKEN -> d_reply(QUERY, SAYS_BROKEN)
		fi }
	:: atomic { is_served && sent[SETTLE] && dj == COMMITTED && !d_broken -> d_take(SETTLE); dj = SETTLED }
	/* the caretaker: the lease, the hold, the end of a committed tree */
	:: atomic { is_served && dj == PREPARED && (!calm || at == AT_OVER) -> d_give_up(0, OK) }
	:: atomic { is_served && dj == RESTORED && (!calm || at == AT_OVER) &&
		(SHORT_HOLD || st != GONE || is_final(sj)) -> d_give_up(0, OK);
		if :: !source_copy && SHORT_HOLD -> excused = true :: else -> skip fi }
	:: atomic { is_served && (dj == COMMITTED || dj == SETTLED) && dt == GONE && !d_broken -> dj = ENDED;
		is_missing = false; guard = false; is_held = false }
	/* a new hauld, before it serves */
	:: atomic { d_up && d_at == D_RECOVER && !(guard && is_missing) /* AWAIT GUARD */ ->
		d_at = D_IDLE;
		if
		:: is_committed(dj) && is_missing -> if :: dt != NONE -> dt = GONE :: else -> skip fi; d_at = D_BROKEN
		:: dj == BROKEN -> is_missing = false
		:: dj == PREPARED || (dj == RESTORED && (dt != FROZEN || is_missing)) -> d_give_up(0, OK)
		:: dj == RESTORED && dt == FROZEN && !is_missing -> skip /* RECOVER RESTORED */
		:: dj == ABORTED -> if :: dt != NONE -> dt = GONE :: else -> skip fi; is_missing = false; guard = false
		:: is_committed(dj) && !is_missing -> if :: dt == FROZEN -> dt = RUNS; d_ran = true :: else -> skip fi /* RECOVER COMMITTED */
		:: dj == NOTHING -> skip
		fi }
	/* it is dead by now */
	:: atomic { d_up && d_at == D_BROKEN -> d_write(BROKEN, d_ok);
		if :: d_ok -> d_at = D_IDLE; is_missing = false :: !d_ok -> d_at = D_UNREADABLE fi }
	/* an operator restarts it */
	:: atomic { d_up && d_at == D_UNREADABLE -> d_up = false; d_at = D_RECOVER; d_broken = false }
	od
}

/* hauld's thread: the last page comes; alone, with the tree frozen. */
active proctype Filler()
{
end:	do
	:: atomic { holds && is_missing && (dt == FROZEN || dt == RUNS) && (guard || dt == FROZEN) ->
		is_missing = false; guard = false;
		if :: is_held -> dt = RUNS; d_ran = true :: else -> skip fi;
		is_held = false }
	od
}

/* hauld is gone: its guard holds the memory, freezes, fills, and lets go what was committed. */
active proctype Guard()
{
end:	do
	:: atomic { guard && is_missing && !holds && (dt == FROZEN || dt == RUNS) ->
		if :: dt == RUNS -> dt = FROZEN; is_held = true :: else -> skip fi; /* GUARD FREEZES */
		is_missing = false; guard = false;
		if :: is_held -> dt = RUNS :: else -> skip fi;
		is_held = false }
	:: atomic { guard && is_missing && !holds && (dt == NONE || dt == GONE) -> guard = false }
	od
}

inline s_forget()
{
	s_up = false;
	at = AT_RECOVER;
	call = 0;
	answer = UNANSWERED;
	is_committing = false;
	s_broken = false
}

inline d_forget()
{
	d_up = false;
	d_at = D_RECOVER;
	d_method = 0;
	d_answer = OK;
	d_broken = false;
	holds = false
}

active proctype Faults()
{
	byte s_crashes = CRASHES, d_crashes = CRASHES, s_cuts = POWER, d_cuts = POWER, kills = KILLS, losses = LOSE,
		g_kills = GKILLS;

	do
	/* hauld dies: CRIU lets go of what only it held, the fence holds */
	:: atomic { s_up && s_crashes > 0 -> s_crashes--; s_forget();
		if :: st == HELD -> st = RUNS; ran_on = true :: else -> skip fi /* FENCE */ }
	:: atomic { d_up && d_crashes > 0 -> d_crashes--; d_forget();
		if :: is_missing && guard && dt == RUNS -> dt = FROZEN; is_held = true :: else -> skip fi /* ALONE G */;
		if :: is_missing && st == GONE && !is_fillable -> excused = true /* both holders, and the source's machine */
		   :: else -> skip fi }
	:: atomic { guard && is_missing && g_kills > 0 -> g_kills--; guard = false;
		if :: dt == RUNS && holds -> dt = FROZEN; is_held = true :: else -> skip fi /* ALONE D */;
		if :: is_missing && st == GONE && !is_fillable -> excused = true :: else -> skip fi }
	/* the machine's power */
	:: atomic { st != GONE && s_cuts > 0 -> s_cuts--; s_forget(); st = GONE; /* FSYNC S */
		if :: is_missing && !is_fillable -> excused = true :: else -> skip fi;
		if :: !source_copy && !destination_copy -> excused = true :: else -> skip fi }
	:: atomic { d_cuts > 0 && dj != NOTHING -> d_cuts--; d_forget(); if :: dt != NONE -> dt = GONE :: else -> skip fi; /* FSYNC D */
		guard = false; is_held = false;
		if :: is_missing -> is_missing = false :: true -> skip fi; /* the marker is not synced */
		if :: !source_copy && !destination_copy -> excused = true :: else -> skip fi }
	/* an operator restarts an engine whose journal is broken */
	:: atomic { s_up && s_broken -> s_forget(); if :: st == HELD -> st = RUNS; ran_on = true :: else -> skip fi }
	:: atomic { d_up && d_broken -> d_forget();
		if :: is_missing && guard && dt == RUNS -> dt = FROZEN; is_held = true :: else -> skip fi }
	:: atomic { !s_up -> s_up = true }
	:: atomic { !d_up -> d_up = true }
	/* somebody kills the tree: the workload has ended, wherever it was at home */
	:: atomic { kills > 0 && st != GONE -> kills--; st = GONE;
		if :: !is_committed(dj) -> excused = true :: else -> skip fi }
	:: atomic { kills > 0 && (dt == FROZEN || dt == RUNS) -> kills--; dt = GONE;
		if :: is_committed(dj) || st == GONE -> excused = true :: else -> skip fi }
	:: atomic { losses > 0 && !d_up -> losses--; dj = NOTHING }
	:: atomic { s_up && d_up && !s_broken && !d_broken -> calm = true; jfails = 0; break }
	od
}

active proctype Monitor()
{
end:	do
	:: atomic { !never_two -> assert(never_two) }
	:: atomic { !never_zeros -> assert(never_zeros) }
	:: atomic { !never_none && !LOSE -> assert(never_none) }
	:: atomic { !runs_only_if_committed && !LOSE -> assert(runs_only_if_committed) }
#ifdef LIVENESS
	:: calm -> skip /* time goes on when all others wait */
#endif
	od
}

/* Everybody knows, nothing is left frozen, and it runs in one place unless the last copy was taken. */
#define is_settled (at == AT_OVER && d_at == D_IDLE && dj != PREPARED && dj != RESTORED && \
	st != FROZEN && st != HELD && dt != FROZEN && !is_missing && (st == RUNS || dt == RUNS || excused))
#ifdef LIVENESS
ltl ends { [] (calm -> <> [] is_settled) }
#endif
