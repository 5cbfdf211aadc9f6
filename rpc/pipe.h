/* SPDX-License-Identifier: Apache-2.0 */
/* A bulk pipe or stream: PAIR (pair.h) over plain tcp (or ipc), every message sealed (seal.h). The
 * keys travel in the call that set the pipe up. Nonce = message counter; pipe id and sequence are
 * associated data: an altered, repeated, reordered or missing message is DATA_LOSS. The first
 * message each way (HELLO) proves the peer; a pipe without it is dropped and the listener waits for
 * the right one. The end is always explicit (PipeEnd): a pipe that just closes is UNAVAILABLE. */
#ifndef HAUL_RPC_PIPE_H
#define HAUL_RPC_PIPE_H

#include "haul/v1/pipe.pb-c.h"
#include "proto/pack.h"
#include "rpc/endpoint.h"

struct pipe;

/* For a program that moves much, once at its start: what a frame took stays with the process for
 * the next one. Else the C library gives it back to the kernel each time, and each page of the next
 * frame is a fault: a third of the processor time of a pipe. */
void pipe_keep_memory(void);

/* Where pipes may listen. */
struct pipe_place {
	const char *host; /* for tcp; NULL = ipc in `directory` */
	uint16_t port_low, port_high;
	const char *directory;
	int socket; /* instead, when it is > 0: one that is connected to the dialer already; taken
		     */
	Haul__V1__Seal seal; /* AES-256-GCM unless something else is said */
};

/* Listens on a free port of the range with fresh keys (RESOURCE_EXHAUSTED when none is).
 * *ret_address: heap, for the caller to put in a response (haul__v1__pipe_address__free_unpacked).
 */
must_check status *pipe_listen(const struct pipe_place *place, struct pipe **ret_pipe,
			       Haul__V1__PipeAddress **ret_address);

/* Removes what earlier servers, which are no more, have left in a directory of local pipes: socket
 * files of ours by name and owner at which nobody listens. How many there were. */
unsigned pipe_sweep(const char *directory);

/* Listener: waits until the peer's HELLO came and answers it. Dialer: done by pipe_dial. */
must_check status *pipe_accept(struct pipe *pipe, int64_t timeout_ms);

must_check status *pipe_dial(const Haul__V1__PipeAddress *address, int64_t timeout_ms,
			     struct pipe **ret_pipe);

/* The same over a socket that is connected to the listener already; taken, also on error. */
must_check status *pipe_dial_socket(const Haul__V1__PipeAddress *address, int fd,
				    int64_t timeout_ms, struct pipe **ret_pipe);

/* A frame to be sent: write `size` bytes at the returned place (what is sent of them is not cleared
 * before), then pipe_send_frame. */
struct pipe_out {
	void *message; /* all of it, with room for what goes before and behind */
	uint8_t *body;
	size_t size;
};
must_check status *pipe_out_new(Haul__V1__FrameKind kind, size_t size, struct pipe_out *ret_out);
/* Sends the first `used` bytes (<= size); takes `out`, also on error. Blocks while the peer is slow
 * (back-pressure), at most timeout_ms: DEADLINE_EXCEEDED. One sender thread at a time. */
must_check status *pipe_send_frame(struct pipe *pipe, struct pipe_out *out, size_t used,
				   int64_t timeout_ms);
void pipe_out_drop(struct pipe_out *out);

/* Sends one protobuf message as a frame. */
must_check status *pipe_send_message(struct pipe *pipe, Haul__V1__FrameKind kind,
				     const ProtobufCMessage *message, int64_t timeout_ms);

/* Sends PipeEnd with this status (borrowed). */
must_check status *pipe_send_end(struct pipe *pipe, const status *verdict, int64_t timeout_ms);

/* The same with a stream's trailing metadata (borrowed, or NULL). */
must_check status *pipe_send_trailer(struct pipe *pipe, const status *verdict,
				     Haul__V1__Metadata *trailing, int64_t timeout_ms);

/* A received, opened frame; body is valid until pipe_in_drop. */
struct pipe_in {
	void *message;
	Haul__V1__FrameKind kind;
	const uint8_t *body;
	size_t size;
};
/* timeout_ms: silence allowed. Errors: DEADLINE_EXCEEDED, UNAVAILABLE (closed without PipeEnd),
 * DATA_LOSS, CANCELLED (interrupted). A PipeEnd is checked (count) and returned like any frame. One
 * receiver thread at a time. */
must_check status *pipe_receive(struct pipe *pipe, int64_t timeout_ms, struct pipe_in *ret_in);
void pipe_in_drop(struct pipe_in *in);

/* Ends the connection: the other side's operations end with UNAVAILABLE at once. By the thread that
 * receives. */
void pipe_hang_up(struct pipe *pipe);

/* Ends all waiting and future operations with CANCELLED. Any thread, any number of times. */
void pipe_interrupt(struct pipe *pipe);

/* Bytes sent and received on the wire so far, seals included. */
uint64_t pipe_bytes_sent(const struct pipe *pipe);
uint64_t pipe_bytes_received(const struct pipe *pipe);

/* How long the sender has waited for the connection to take what was sent before. The sender's
 * thread. */
double pipe_waited_ms(const struct pipe *pipe);

/* Flushes nothing: what must arrive is confirmed by the peer in words (PipeEnd, or a call). */
void pipe_free(struct pipe *pipe);

DEFINE_SCOPE(pipe, struct pipe *, pipe_free);
static inline void scope_pipe_in(struct pipe_in *in)
{
	pipe_in_drop(in);
}

#endif
