/* SPDX-License-Identifier: Apache-2.0 */
/* The memory of a lease: at the source the engine is the page server behind a socket that CRIU
 * has; at the destination pages become images. Rounds follow each other without a word: CRIU says
 * where one ends. */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include "engine/pipe/batch_codec.h"
#include "engine/relay/lease_internal.h"
#include "proto/envelope.h"

enum {
	DIAL_MS = 10000,
	/* Nothing is wrong with a caller that takes its time; the lease's stream tells whether it
	 * lives. */
	ROUND_MS = 24 * 60 * 60 * 1000,
};

static status *dial(struct lease *lease, const struct rpc_call *call,
		    const Haul__V1__PipeAddress *address)
{
	const struct batch_codecs codecs = {BATCH_CODECS_ALL, 1};
	struct endpoint endpoint;

	status *st = endpoint_parse(address->url, &endpoint);
	if (st != NULL)
		return st;
	if (endpoint.transport == TRANSPORT_IPC && !call->caller->is_local)
		return status_errorf(STATUS_INVALID_ARGUMENT,
				     "memory_to: an address of the network");
	st = core_check_destination(lease->core, address->url);
	if (st == NULL)
		st = page_channel_open(&lease->memory[0], &lease->memory[1]);
	if (st == NULL)
		st = pipe_dial(address, DIAL_MS, &lease->pipe);
	if (st != NULL)
		return st;
	const struct pipe_set pipes = pipe_set_of(lease->pipe);
	return memory_sender_new(lease->memory[0], &pipes, &codecs, &lease->sender);
}

static status *listen_for(struct lease *lease, const struct rpc_call *call, const char *host)
{
	const struct engine_config *config = &lease->core->config;
	char pages[FILES_PATH];

	if (!call->caller->is_local && host[0] != '\0')
		return status_errorf(STATUS_INVALID_ARGUMENT,
				     "memory_host: only for who calls over the local socket");
	if (host[0] == '\0')
		host = call->server_host;
	if (strlen(host) > LIMIT_NAME)
		return status_errorf(STATUS_INVALID_ARGUMENT, "memory_host: too long");
	const struct pipe_place place = {
	    .host = host[0] != '\0' ? host : NULL,
	    .port_low = config->port_low,
	    .port_high = config->port_high,
	    .directory = config->local_dir,
	};
	lease_path(lease, "pages", pages);
	status *st = page_store_new(pages, &lease->store);
	return st == NULL ? pipe_listen(&place, &lease->pipe, &lease->address) : st;
}

status *lease_open_memory(struct lease *lease, const struct rpc_call *call,
			  const Haul__V1__LeaseRequest *request)
{
	if (request->memory_to != NULL)
		return dial(lease, call, request->memory_to);
	return request->memory_from ? listen_for(lease, call, request->memory_host) : NULL;
}

static status *move_round(struct lease *lease, unsigned round, struct memory_round *ret_moved)
{
	const struct memory_feed feed = {.live_fd = -1, .is_criu = true, .is_tracked = true};
	status *st;

	if (lease->sender == NULL) {
		st = page_store_begin(lease->store, round);
		if (st == NULL)
			st = lease_link_round(lease, round);
		const struct pipe_set pipes = pipe_set_of(lease->pipe);
		return st == NULL
			   ? memory_receive_round(&pipes, lease->store, round, ROUND_MS, ret_moved)
			   : st;
	}
	st = memory_sender_begin(lease->sender, round, &feed);
	return st == NULL ? memory_sender_end(lease->sender, ROUND_MS, ret_moved) : st;
}

static status *tell_round(struct lease *lease, unsigned round, const struct memory_round *moved)
{
	Haul__V1__LeaseEvent event = HAUL__V1__LEASE_EVENT__INIT;
	Haul__V1__LeaseRound told = HAUL__V1__LEASE_ROUND__INIT;

	event.round = &told;
	told.round = round;
	told.pages = moved->pages_sent;
	told.digest = moved->digest;
	return lease_tell(lease, &event);
}

/* Takes the status. */
static void tell_end(struct lease *lease, status *why)
{
	Haul__V1__LeaseEvent event = HAUL__V1__LEASE_EVENT__INIT;
	Haul__V1__LeaseMemoryEnd told = HAUL__V1__LEASE_MEMORY_END__INIT;

	told.status = status_to_wire(why);
	event.memory_end = &told;
	status_free(lease_tell(lease, &event)); /* the lease ends, and its handler knows */
	haul__v1__status__free_unpacked(told.status, NULL);
	status_free(why);
}

static void *move(void *self)
{
	struct lease *lease = self;
	status *st = lease->sender == NULL ? pipe_accept(lease->pipe, ROUND_MS) : NULL;

	for (unsigned round = 1; st == NULL; round++) {
		struct memory_round moved = {0};
		if (round > LIMIT_ROUNDS + 1)
			st = status_errorf(STATUS_RESOURCE_EXHAUSTED,
					   "more than %d rounds of memory", LIMIT_ROUNDS + 1);
		if (st == NULL)
			st = move_round(lease, round, &moved);
		if (st == NULL)
			st = tell_round(lease, round, &moved);
	}
	/* So that CRIU does not wait for who is not there any more. */
	if (lease->memory[0] >= 0)
		(void)shutdown(lease->memory[0], SHUT_RDWR);
	if (atomic_load(&lease->is_closing))
		status_free(st);
	else
		tell_end(lease, st);
	return NULL;
}

status *lease_start_memory(struct lease *lease)
{
	if (lease->pipe == NULL)
		return NULL;
	int failed = pthread_create(&lease->mover, NULL, move, lease);
	if (failed != 0)
		return status_errnof(failed, "cannot start a thread");
	lease->has_mover = true;
	return NULL;
}

void lease_stop_memory(struct lease *lease)
{
	atomic_store(&lease->is_closing, true);
	if (lease->memory[0] >= 0)
		(void)shutdown(lease->memory[0], SHUT_RDWR);
	if (lease->pipe != NULL)
		pipe_interrupt(lease->pipe);
	if (lease->has_mover)
		(void)pthread_join(lease->mover, NULL);
	memory_sender_free(TAKE(lease->sender));
	page_store_free(TAKE(lease->store));
	pipe_free(TAKE(lease->pipe));
	haul__v1__pipe_address__free_unpacked(TAKE(lease->address), NULL);
	close_if_open(TAKE_FD(lease->memory[0]));
	close_if_open(TAKE_FD(lease->memory[1]));
}
