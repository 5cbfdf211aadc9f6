/* SPDX-License-Identifier: Apache-2.0 */
/* A stream of messages over a pipe, in both directions, in gRPC's manner: initial metadata,
 * messages under flow control, half-close by the client, and a trailer of the server with a status
 * and trailing metadata.
 *
 * Credits count bytes: the receiver's program takes messages out, and only then may the sender send
 * more, so that neither side grows with a slow reader. Whoever has nothing to say sends a
 * keepalive; a side that is silent for too long is dead. A client ends a stream early with an end
 * of its own, CANCELLED; the server's handler sees that where it waits.
 *
 * Two threads of its own serve a stream; all functions may be called by any thread. */
#ifndef HAUL_RPC_STREAM_H
#define HAUL_RPC_STREAM_H

#include <protobuf-c/protobuf-c.h>

#include "rpc/pipe.h"

struct stream;

struct stream_options {
	uint32_t window;      /* bytes of messages that wait for the reader on each side at most */
	int64_t keepalive_ms; /* silence of ours after which a keepalive leaves */
	int64_t dead_ms;      /* silence of the other side after which it is dead */
};

/* Takes the pipe, which is accepted or dialed, also on error. options: NULL for the usual (256 KiB,
 * 10 s, 30 s); the window must be the same on both sides. */
must_check status *stream_new(struct pipe *pipe, bool is_server,
			      const struct stream_options *options, struct stream **ret_stream);

/* Waits for credit, at most timeout_ms: DEADLINE_EXCEEDED. CANCELLED when the other side or
 * stream_interrupt has cancelled it, UNAVAILABLE when it is lost, FAILED_PRECONDITION after one's
 * own half-close or end. */
must_check status *stream_send(struct stream *stream, const ProtobufCMessage *message,
			       int64_t timeout_ms);

/* The same for whoever has the message packed. */
must_check status *stream_send_bytes(struct stream *stream, const uint8_t *bytes, size_t size,
				     int64_t timeout_ms);

/* The next message. NULL and OK: there are no more: the client has half-closed, or the server ended
 * with OK. Otherwise the trailer's status, DEADLINE_EXCEEDED, CANCELLED, UNAVAILABLE, DATA_LOSS.
 * Messages that arrived before an end come first. */
must_check status *stream_receive(struct stream *stream,
				  const ProtobufCMessageDescriptor *descriptor, int64_t timeout_ms,
				  ProtobufCMessage **ret_message);

/* The same for whoever knows the message by a schema only: its bytes, and whether there is one. */
must_check status *stream_receive_bytes(struct stream *stream, int64_t timeout_ms,
					struct buffer *ret_bytes, bool *ret_has_message);

/* Adds an entry to what is sent before the first message; FAILED_PRECONDITION after that. */
must_check status *stream_add_metadata(struct stream *stream, const char *key, const char *value);
/* Server: adds an entry to the trailer. */
must_check status *stream_add_trailing(struct stream *stream, const char *key, const char *value);
/* What the other side sent, or NULL; there once a message or the end was received. Copies: free. */
char *stream_metadata(struct stream *stream, const char *key);
char *stream_trailing(struct stream *stream, const char *key);

/* Client: no more messages from this side. */
void stream_half_close(struct stream *stream);

/* Ends it with this status (borrowed) after all that was sent, and waits at most timeout_ms until
 * the other side has read that. A client's end with an error cancels the stream. */
void stream_end(struct stream *stream, const status *verdict, int64_t timeout_ms);

/* Its threads and the calling one get less of the processors than others from now on: for those who
 * only look on. */
void stream_set_background(struct stream *stream);

/* The other side has cancelled it, or is gone: nobody waits for more. */
bool stream_is_cancelled(struct stream *stream);

/* waker(self) is called once when the stream is cancelled or lost, at once when it is already; it
 * must not call the stream. NULL takes it away, and waits for one that runs. */
void stream_on_cancel(struct stream *stream, void (*waker)(void *self), void *self);

/* All that waits, now and later, ends with CANCELLED. What is left to do is stream_end, which still
 * tells the other side, or stream_free. */
void stream_stop(struct stream *stream);

/* The same, and the other side is not told: the connection breaks. */
void stream_interrupt(struct stream *stream);

void stream_free(struct stream *stream);

DEFINE_SCOPE(stream, struct stream *, stream_free);

#endif
