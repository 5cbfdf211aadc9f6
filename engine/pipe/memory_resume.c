/* SPDX-License-Identifier: Apache-2.0 */
/* Going on after a pipe that was lost: each batch of a round has a mark in the page table, so that
 * the table can go back to what the destination has. */
#include <errno.h>

#include "engine/pipe/memory_sender_internal.h"

status *memory_sender_mark(struct memory_sender *sender)
{
	if (sender->mark_count == sender->mark_room) {
		size_t room = sender->mark_room * 2 + 64;
		struct batch_mark *grown = realloc(sender->marks, room * sizeof(*grown));
		if (grown == NULL)
			return status_errnof(ENOMEM, "memory sender");
		sender->marks = grown;
		sender->mark_room = room;
	}
	sender->marks[sender->mark_count++] =
	    (struct batch_mark){page_table_mark(sender->table),
				XXH3_64bits_digest(&sender->digests)};
	return NULL;
}

bool memory_sender_lost_pipe(const struct memory_sender *sender)
{
	return sender->is_pipe_lost;
}

/* Of the round that this sender was in; the destination has told no more than it was sent. */
static status *cut_round(struct memory_sender *sender, const struct memory_progress *there)
{
	static const struct page_table_mark beginning;

	if (there->is_whole)
		return there->digest == sender->round.digest
			   ? NULL
			   : status_errorf(STATUS_DATA_LOSS,
					   "round %u: its digest is another one there",
					   there->round);
	if (there->batches > sender->mark_count ||
	    (there->batches > 0 && sender->marks[there->batches - 1].digest != there->digest))
		return status_errorf(STATUS_DATA_LOSS,
				     "round %u: what is there of it is not what was sent",
				     there->round);
	return page_table_cut(sender->table, there->batches > 0
						 ? &sender->marks[there->batches - 1].table
						 : &beginning);
}

status *memory_sender_resume(struct memory_sender *sender, int criu_fd,
			     const struct pipe_set *pipes, const struct memory_progress *there)
{
	status *st = NULL;

	if (sender->has_thread || sender->feed.is_last)
		return status_errorf(STATUS_INTERNAL, "a round is under way");
	if (there->round == sender->round_number)
		st = cut_round(sender, there);
	/* It was told of the round after, of which nothing has been sent. */
	else if (there->round != sender->round_number + 1 || there->batches != 0)
		st = status_errorf(STATUS_DATA_LOSS, "round %u is there, not round %u",
				   there->round, sender->round_number);
	if (st != NULL)
		return st;
	sender->round_number = there->round;
	sender->mark_count = 0;
	sender->criu_fd = criu_fd;
	return memory_sender_use(sender, pipes);
}
