/* SPDX-License-Identifier: Apache-2.0 */
/* The same end as rpc_peer.c by gRPC's C core (libgrpc-dev), for comparison: a server whose threads
 * share one completion queue, and callers that block, as gRPC's own synchronous stubs do.
 *
 * usage: rpc_grpc serve ADDRESS WORKERS [CA CERT KEY]
 *        rpc_grpc call ADDRESS CALLERS SECONDS BYTES [CA CERT KEY] */
#include <grpc/byte_buffer.h>
#include <grpc/byte_buffer_reader.h>
#include <grpc/grpc.h>
#include <grpc/grpc_security.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "load.h"

enum { CALL_S = 60, OPS = 6 };

struct pem {
	char *ca;
	grpc_ssl_pem_key_cert_pair pair;
};

static void fail(const char *what)
{
	(void)fprintf(stderr, "%s\n", what);
	exit(1);
}

static char *read_file(const char *path)
{
	FILE *file = fopen(path, "re");
	char *text = calloc(1, 65536);
	if (file == NULL || text == NULL || fread(text, 1, 65535, file) == 0)
		fail(path);
	(void)fclose(file);
	return text;
}

/* The last three arguments, if they are there. */
static bool read_pem(int argc, char **argv, int first, struct pem *ret_pem)
{
	if (argc < first + 3)
		return false;
	ret_pem->ca = read_file(argv[first]);
	ret_pem->pair.cert_chain = read_file(argv[first + 1]);
	ret_pem->pair.private_key = read_file(argv[first + 2]);
	return true;
}

/* --- server --- */

enum served { WAITS, RECEIVES, ANSWERS };

/* A call on its way; it is its own tag. */
struct served_call {
	enum served state;
	grpc_server *server;
	grpc_completion_queue *queue;
	grpc_call *call;
	grpc_call_details details;
	grpc_metadata_array metadata;
	grpc_byte_buffer *request;
	int was_cancelled;
};

static void wait_for_call(grpc_server *server, grpc_completion_queue *queue)
{
	struct served_call *served = calloc(1, sizeof(*served));
	if (served == NULL)
		fail("no memory");
	served->server = server;
	served->queue = queue;
	grpc_call_details_init(&served->details);
	grpc_metadata_array_init(&served->metadata);
	(void)grpc_server_request_call(server, &served->call, &served->details, &served->metadata,
				       queue, queue, served);
}

static void receive(struct served_call *served)
{
	grpc_op op = {.op = GRPC_OP_RECV_MESSAGE};
	op.data.recv_message.recv_message = &served->request;
	served->state = RECEIVES;
	wait_for_call(served->server, served->queue);
	(void)grpc_call_start_batch(served->call, &op, 1, served, NULL);
}

/* Another message goes back, as by a server that has understood it. */
static grpc_byte_buffer *copy_of(grpc_byte_buffer *request)
{
	grpc_byte_buffer_reader reader;
	if (request == NULL || !grpc_byte_buffer_reader_init(&reader, request))
		fail("a request without a message");
	grpc_slice slice = grpc_byte_buffer_reader_readall(&reader);
	grpc_byte_buffer *copy = grpc_raw_byte_buffer_create(&slice, 1);
	grpc_slice_unref(slice);
	grpc_byte_buffer_reader_destroy(&reader);
	return copy;
}

static void answer(struct served_call *served)
{
	grpc_op ops[4] = {0};
	grpc_byte_buffer *reply = copy_of(served->request);
	ops[0].op = GRPC_OP_SEND_INITIAL_METADATA;
	ops[1].op = GRPC_OP_SEND_MESSAGE;
	ops[1].data.send_message.send_message = reply;
	ops[2].op = GRPC_OP_SEND_STATUS_FROM_SERVER;
	ops[2].data.send_status_from_server.status = GRPC_STATUS_OK;
	ops[3].op = GRPC_OP_RECV_CLOSE_ON_SERVER;
	ops[3].data.recv_close_on_server.cancelled = &served->was_cancelled;
	served->state = ANSWERS;
	(void)grpc_call_start_batch(served->call, ops, 4, served, NULL);
	grpc_byte_buffer_destroy(reply);
}

static void forget(struct served_call *served)
{
	grpc_byte_buffer_destroy(served->request);
	grpc_metadata_array_destroy(&served->metadata);
	grpc_call_details_destroy(&served->details);
	if (served->call != NULL)
		grpc_call_unref(served->call);
	free(served);
}

static void *run_worker(void *argument)
{
	grpc_completion_queue *queue = argument;
	for (;;) {
		grpc_event event =
		    grpc_completion_queue_next(queue, gpr_inf_future(GPR_CLOCK_REALTIME), NULL);
		struct served_call *served = event.tag;
		if (event.type == GRPC_QUEUE_SHUTDOWN)
			return NULL;
		if (served == NULL)
			continue;
		if (!event.success || served->state == ANSWERS)
			forget(served);
		else if (served->state == WAITS)
			receive(served);
		else
			answer(served);
	}
}

static void serve(const char *address, unsigned workers, struct pem *pem)
{
	grpc_completion_queue *queue = grpc_completion_queue_create_for_next(NULL);
	grpc_server *server = grpc_server_create(NULL, NULL);
	grpc_server_credentials *credentials =
	    pem == NULL ? grpc_insecure_server_credentials_create()
			: grpc_ssl_server_credentials_create_ex(
			      pem->ca, &pem->pair, 1,
			      GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY, NULL);
	pthread_t *threads = calloc(workers, sizeof(*threads));
	grpc_server_register_completion_queue(server, queue, NULL);
	if (threads == NULL || grpc_server_add_http2_port(server, address, credentials) == 0)
		fail("cannot listen");
	grpc_server_start(server);
	for (unsigned i = 0; i < workers; i++) {
		wait_for_call(server, queue);
		wait_for_call(server, queue);
		if (pthread_create(&threads[i], NULL, run_worker, queue) != 0)
			fail("cannot start a thread");
	}
	load_serve();
	grpc_server_shutdown_and_notify(server, queue, NULL);
	grpc_server_cancel_all_calls(server);
	grpc_completion_queue_shutdown(queue);
	for (unsigned i = 0; i < workers; i++)
		(void)pthread_join(threads[i], NULL);
	free(threads);
	grpc_server_destroy(server);
	grpc_completion_queue_destroy(queue);
	grpc_server_credentials_release(credentials);
}

/* --- client --- */

struct client {
	grpc_channel *channel;
	grpc_slice text;
};

/* What is sent, and what comes back. */
struct answer {
	grpc_metadata_array initial, trailing;
	grpc_byte_buffer *message, *reply;
	grpc_status_code status;
	grpc_slice details;
};

static void fill_ops(struct answer *got, grpc_op ops[OPS])
{
	memset(ops, 0, OPS * sizeof(*ops));
	ops[0].op = GRPC_OP_SEND_INITIAL_METADATA;
	ops[1].op = GRPC_OP_SEND_MESSAGE;
	ops[1].data.send_message.send_message = got->message;
	ops[2].op = GRPC_OP_SEND_CLOSE_FROM_CLIENT;
	ops[3].op = GRPC_OP_RECV_INITIAL_METADATA;
	ops[3].data.recv_initial_metadata.recv_initial_metadata = &got->initial;
	ops[4].op = GRPC_OP_RECV_MESSAGE;
	ops[4].data.recv_message.recv_message = &got->reply;
	ops[5].op = GRPC_OP_RECV_STATUS_ON_CLIENT;
	ops[5].data.recv_status_on_client.trailing_metadata = &got->trailing;
	ops[5].data.recv_status_on_client.status = &got->status;
	ops[5].data.recv_status_on_client.status_details = &got->details;
}

static bool call_once(void *self, unsigned number)
{
	const struct client *client = self;
	grpc_slice text = client->text;
	struct answer got = {.status = GRPC_STATUS_UNKNOWN, .details = grpc_empty_slice()};
	grpc_op ops[OPS];
	gpr_timespec deadline =
	    gpr_time_add(gpr_now(GPR_CLOCK_REALTIME), gpr_time_from_seconds(CALL_S, GPR_TIMESPAN));
	grpc_completion_queue *queue = grpc_completion_queue_create_for_pluck(NULL);
	grpc_call *call =
	    grpc_channel_create_call(client->channel, NULL, GRPC_PROPAGATE_DEFAULTS, queue,
				     grpc_slice_from_static_string("/haul.v1.Peer/Hello"), NULL,
				     deadline, NULL);
	(void)number;
	grpc_metadata_array_init(&got.initial);
	grpc_metadata_array_init(&got.trailing);
	got.message = grpc_raw_byte_buffer_create(&text, 1);
	fill_ops(&got, ops);
	(void)grpc_call_start_batch(call, ops, OPS, &got, NULL);
	(void)grpc_completion_queue_pluck(queue, &got, deadline, NULL);
	bool is_good = got.status == GRPC_STATUS_OK && got.reply != NULL &&
		       grpc_byte_buffer_length(got.reply) == GRPC_SLICE_LENGTH(text);
	if (!is_good)
		(void)fprintf(stderr, "status %d\n", (int)got.status);
	grpc_byte_buffer_destroy(got.message);
	grpc_byte_buffer_destroy(got.reply);
	grpc_metadata_array_destroy(&got.initial);
	grpc_metadata_array_destroy(&got.trailing);
	grpc_slice_unref(got.details);
	grpc_call_unref(call);
	grpc_completion_queue_shutdown(queue);
	grpc_completion_queue_destroy(queue);
	return is_good;
}

static void call(int argc, char **argv, struct pem *pem)
{
	size_t bytes = strtoul(argv[5], NULL, 10);
	char *text = calloc(1, bytes + 1);
	grpc_channel_credentials *credentials =
	    pem == NULL ? grpc_insecure_credentials_create()
			: grpc_ssl_credentials_create(pem->ca, &pem->pair, NULL, NULL);
	(void)argc;
	if (text == NULL)
		fail("no memory");
	memset(text, 'x', bytes);
	struct client client = {.channel = grpc_channel_create(argv[2], credentials, NULL),
				.text = grpc_slice_from_copied_buffer(text, bytes)};
	const struct load load = {.callers = (unsigned)strtoul(argv[3], NULL, 10),
				  .seconds = strtod(argv[4], NULL),
				  .self = &client,
				  .call = call_once};
	load_run(&load);
	grpc_slice_unref(client.text);
	grpc_channel_destroy(client.channel);
	grpc_channel_credentials_release(credentials);
	free(text);
}

int main(int argc, char **argv)
{
	struct pem pem = {0};
	grpc_init();
	if (argc >= 4 && strcmp(argv[1], "serve") == 0)
		serve(argv[2], (unsigned)strtoul(argv[3], NULL, 10),
		      read_pem(argc, argv, 4, &pem) ? &pem : NULL);
	else if (argc >= 6 && strcmp(argv[1], "call") == 0)
		call(argc, argv, read_pem(argc, argv, 6, &pem) ? &pem : NULL);
	else
		return 2;
	grpc_shutdown();
	return 0;
}
