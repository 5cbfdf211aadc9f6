/* SPDX-License-Identifier: Apache-2.0 */
/* One end of what tests/bench/rpc measures.
 *
 * usage: rpc_peer serve haul|nng URL WORKERS [CA CERT KEY]
 *        rpc_peer call read|change|nng URL CALLERS SECONDS BYTES [CA CERT KEY]
 *        rpc_peer leak URL CALLS [CA CERT KEY]     (CALLS twice)
 *
 * haul: a server of our rpc layer whose methods give back what they are asked, called by a client
 * of it; `read` is a method that only reads, `change` one whose answers are remembered. nng: the
 * same bytes by bare REQ/REP, with our TLS, a context and a blocked thread a call as well. leak:
 * serves and calls in one process, and prints what it holds before and after. */
#include <dirent.h>
#include <nng/nng.h>
#include <nng/protocol/reqrep0/rep.h>
#include <nng/protocol/reqrep0/req.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "haul/v1/peer.pb-c.h"
#include "haul/v1/reflection.pb-c.h"
#include "load.h"
#include "proto/pack.h"
#include "rpc/client.h"
#include "rpc/server.h"
#include "rpc/tls_engine.h"

enum {
	MAX_BYTES = 1 << 20,
	CALL_MS = 60000,
	LEAK_CALLERS = 16,
	/* One caller's share of what a server remembers (LIMIT_REQUESTS_KEPT / 4), and some less.
	 */
	MOST_CHANGES = 8000,
};

static void check(status *st, const char *what)
{
	if (st == NULL)
		return;
	(void)fprintf(stderr, "%s: %s\n", what, status_message(st));
	exit(1);
}

static void check_nng(int rv, const char *what)
{
	if (rv == 0)
		return;
	(void)fprintf(stderr, "%s: %s\n", what, nng_strerror(rv));
	exit(1);
}

/* The last three arguments, if they are there. */
static struct credentials *read_credentials(int argc, char **argv, int first)
{
	struct credentials *credentials = NULL;
	if (argc < first + 3)
		return NULL;
	const struct credentials_files files = {.ca = argv[first],
						.cert = argv[first + 1],
						.key = argv[first + 2]};
	check(credentials_load(&files, &credentials), "certificates");
	return credentials;
}

/* --- haul --- */

static status *echo_read(void *self, const struct rpc_call *call, const ProtobufCMessage *request,
			 ProtobufCMessage **ret_response)
{
	const char *text = ((const Haul__V1__FileContainingSymbolRequest *)request)->symbol;
	Haul__V1__FileDescriptorResponse *response = malloc(sizeof(*response));
	(void)self;
	(void)call;
	haul__v1__file_descriptor_response__init(response);
	response->file_descriptor_proto = malloc(sizeof(*response->file_descriptor_proto));
	response->file_descriptor_proto[0].len = strlen(text);
	response->file_descriptor_proto[0].data = (uint8_t *)text_copy(text);
	response->n_file_descriptor_proto = 1;
	*ret_response = &response->base;
	return NULL;
}

static status *echo_change(void *self, const struct rpc_call *call, const ProtobufCMessage *request,
			   ProtobufCMessage **ret_response)
{
	Haul__V1__HelloResponse *response = malloc(sizeof(*response));
	(void)self;
	(void)call;
	haul__v1__hello_response__init(response);
	response->node = text_copy(((const Haul__V1__HelloRequest *)request)->id);
	*ret_response = &response->base;
	return NULL;
}

static const rpc_handler reading[2] = {[1] = echo_read};
static const rpc_handler changing[9] = {[0] = echo_change};
static const struct rpc_service services[] = {
    {.descriptor = &haul__v1__reflection__descriptor, .handlers = reading},
    {.descriptor = &haul__v1__peer__descriptor, .handlers = changing},
};

static struct rpc_server *start_server(const char *url, const struct credentials *credentials,
				       unsigned workers)
{
	const struct rpc_server_config config = {.services = services, .service_count = 2};
	struct rpc_server *server = NULL;
	check(rpc_server_new(&config, &server), "server");
	check(rpc_server_listen(server, url, credentials, workers), "server");
	return server;
}

static void serve_haul(const char *url, const struct credentials *credentials, unsigned workers)
{
	struct rpc_server *server = start_server(url, credentials, workers);
	load_serve();
	rpc_server_stop(server, 1000);
	rpc_server_free(server);
}

struct haul_caller {
	struct rpc_client *client;
	bool reads;
	char *text;
};

static bool call_haul(void *self, unsigned number)
{
	const struct haul_caller *caller = self;
	Haul__V1__FileContainingSymbolRequest read = HAUL__V1__FILE_CONTAINING_SYMBOL_REQUEST__INIT;
	Haul__V1__HelloRequest change = HAUL__V1__HELLO_REQUEST__INIT;
	ProtobufCMessage *response = NULL;
	(void)number;
	read.symbol = change.id = caller->text;
	status *st = caller->reads
			 ? rpc_client_call(caller->client, &haul__v1__reflection__descriptor,
					   "FileContainingSymbol", &read.base, CALL_MS, &response)
			 : rpc_client_call(caller->client, &haul__v1__peer__descriptor, "Hello",
					   &change.base, CALL_MS, &response);
	if (st != NULL)
		(void)fprintf(stderr, "%s\n", status_message(st));
	bool is_good = st == NULL;
	message_free(response);
	status_free(st);
	return is_good;
}

static struct haul_caller new_haul_caller(const char *url, const struct credentials *credentials,
					  size_t bytes)
{
	struct haul_caller caller = {.text = calloc(1, bytes + 1)};
	if (caller.text == NULL)
		exit(1);
	memset(caller.text, 'x', bytes);
	check(rpc_client_new(url, credentials, &caller.client), "client");
	return caller;
}

/* --- bare nng --- */

static void *run_nng_worker(void *argument)
{
	const nng_ctx *ctx = argument;
	nng_aio *aio = NULL;
	check_nng(nng_aio_alloc(&aio, NULL, NULL), "aio");
	for (;;) {
		nng_ctx_recv(*ctx, aio);
		nng_aio_wait(aio);
		if (nng_aio_result(aio) != 0)
			break;
		/* As a server does that has understood it: another message goes back. */
		nng_msg *request = nng_aio_get_msg(aio);
		nng_msg *reply = NULL;
		check_nng(nng_msg_alloc(&reply, nng_msg_len(request)), "message");
		memcpy(nng_msg_body(reply), nng_msg_body(request), nng_msg_len(request));
		nng_msg_free(request);
		nng_aio_set_msg(aio, reply);
		nng_ctx_send(*ctx, aio);
		nng_aio_wait(aio);
		if (nng_aio_result(aio) != 0)
			nng_msg_free(reply);
	}
	nng_aio_free(aio);
	return NULL;
}

static void serve_nng(const char *url, const struct credentials *credentials, unsigned workers)
{
	nng_socket socket;
	nng_listener listener;
	struct tls_context *tls = NULL;
	nng_ctx *contexts = calloc(workers, sizeof(*contexts));
	pthread_t *threads = calloc(workers, sizeof(*threads));
	if (contexts == NULL || threads == NULL)
		exit(1);
	check_nng(nng_rep0_open(&socket), "socket");
	check_nng(nng_listener_create(&listener, socket, url), url);
	if (credentials != NULL) {
		check(tls_context_new(credentials, NULL, &tls), "TLS");
		check(tls_context_apply_to_listener(tls, listener), "TLS");
	}
	check_nng(nng_listener_start(listener, 0), url);
	for (unsigned i = 0; i < workers; i++) {
		check_nng(nng_ctx_open(&contexts[i], socket), "context");
		if (pthread_create(&threads[i], NULL, run_nng_worker, &contexts[i]) != 0)
			exit(1);
	}
	load_serve();
	(void)nng_socket_close(socket);
	for (unsigned i = 0; i < workers; i++)
		(void)pthread_join(threads[i], NULL);
	tls_context_free(tls);
	free(contexts);
	free(threads);
}

struct nng_caller {
	nng_ctx *contexts;
	nng_aio **aios;
	size_t bytes;
};

static bool call_nng(void *self, unsigned number)
{
	const struct nng_caller *caller = self;
	nng_aio *aio = caller->aios[number];
	nng_msg *msg = NULL;
	if (nng_msg_alloc(&msg, caller->bytes) != 0)
		return false;
	memset(nng_msg_body(msg), 'x', caller->bytes);
	nng_aio_set_timeout(aio, CALL_MS);
	nng_aio_set_msg(aio, msg);
	nng_ctx_send(caller->contexts[number], aio);
	nng_aio_wait(aio);
	if (nng_aio_result(aio) != 0)
		return false;
	nng_ctx_recv(caller->contexts[number], aio);
	nng_aio_wait(aio);
	if (nng_aio_result(aio) != 0)
		return false;
	msg = nng_aio_get_msg(aio);
	bool is_good = nng_msg_len(msg) == caller->bytes;
	nng_msg_free(msg);
	return is_good;
}

static void load_nng(struct load *load, const char *url, const struct credentials *credentials,
		     size_t bytes)
{
	struct nng_caller caller = {.contexts = calloc(load->callers, sizeof(*caller.contexts)),
				    .aios = calloc(load->callers, sizeof(nng_aio *)),
				    .bytes = bytes};
	nng_socket socket;
	nng_dialer dialer;
	struct tls_context *tls = NULL;
	struct endpoint endpoint;
	if (caller.contexts == NULL || caller.aios == NULL)
		exit(1);
	check(endpoint_parse(url, &endpoint), url);
	check_nng(nng_req0_open(&socket), "socket");
	check_nng(nng_socket_set_ms(socket, NNG_OPT_REQ_RESENDTIME, NNG_DURATION_INFINITE),
		  "socket");
	check_nng(nng_dialer_create(&dialer, socket, url), url);
	if (credentials != NULL) {
		check(tls_context_new(credentials, endpoint.host, &tls), "TLS");
		check(tls_context_apply_to_dialer(tls, dialer), "TLS");
	}
	check_nng(nng_dialer_start(dialer, 0), url);
	for (unsigned i = 0; i < load->callers; i++) {
		check_nng(nng_ctx_open(&caller.contexts[i], socket), "context");
		check_nng(nng_aio_alloc(&caller.aios[i], NULL, NULL), "aio");
	}
	load->self = &caller;
	load->call = call_nng;
	load_run(load);
	(void)nng_socket_close(socket);
	for (unsigned i = 0; i < load->callers; i++)
		nng_aio_free(caller.aios[i]);
	tls_context_free(tls);
	free(caller.contexts);
	free(caller.aios);
}

/* --- */

static int count_entries(const char *path)
{
	int count = -2; /* . and .. */
	DIR *directory = opendir(path);
	if (directory == NULL)
		exit(1);
	while (readdir(directory) != NULL)
		count++;
	(void)closedir(directory);
	return count;
}

static long resident_kib(void)
{
	long pages = 0;
	FILE *file = fopen("/proc/self/statm", "re");
	if (file == NULL || fscanf(file, "%*s %ld", &pages) != 1)
		exit(1);
	(void)fclose(file);
	return pages * 4;
}

static void print_held(const char *when)
{
	(void)printf("{\"when\": \"%s\", \"descriptors\": %d, \"threads\": %d, \"resident_kib\": "
		     "%ld}\n",
		     when, count_entries("/proc/self/fd"), count_entries("/proc/self/task"),
		     resident_kib());
}

/* Remembered answers are part of what a server holds: only methods that read are called, so that
 * what has grown has leaked. */
static void leak(const char *url, size_t calls, const struct credentials *credentials)
{
	struct rpc_server *server = start_server(url, credentials, LEAK_CALLERS);
	struct haul_caller caller = new_haul_caller(url, credentials, 64);
	struct load load = {.callers = LEAK_CALLERS,
			    .calls = calls,
			    .self = &caller,
			    .call = call_haul};
	caller.reads = true;
	load_run(&load);
	print_held("before");
	load_run(&load);
	print_held("after");
	free(caller.text);
	rpc_client_free(caller.client);
	rpc_server_stop(server, 1000);
	rpc_server_free(server);
}

static void call(int argc, char **argv, const struct credentials *credentials)
{
	struct load load = {.callers = (unsigned)strtoul(argv[4], NULL, 10),
			    .seconds = strtod(argv[5], NULL)};
	size_t bytes = strtoul(argv[6], NULL, 10);
	(void)argc;
	if (bytes > MAX_BYTES || load.callers == 0)
		exit(2);
	if (strcmp(argv[2], "nng") == 0) {
		load_nng(&load, argv[3], credentials, bytes);
		return;
	}
	struct haul_caller caller = new_haul_caller(argv[3], credentials, bytes);
	caller.reads = strcmp(argv[2], "read") == 0;
	if (!caller.reads)
		load.calls = MOST_CHANGES;
	load.self = &caller;
	load.call = call_haul;
	load_run(&load);
	free(caller.text);
	rpc_client_free(caller.client);
}

int main(int argc, char **argv)
{
	check(rpc_start(), "start");
	if (argc >= 5 && strcmp(argv[1], "serve") == 0) {
		struct credentials *credentials = read_credentials(argc, argv, 5);
		unsigned workers = (unsigned)strtoul(argv[4], NULL, 10);
		if (strcmp(argv[2], "nng") == 0)
			serve_nng(argv[3], credentials, workers);
		else
			serve_haul(argv[3], credentials, workers);
		credentials_free(credentials);
	} else if (argc >= 7 && strcmp(argv[1], "call") == 0) {
		struct credentials *credentials = read_credentials(argc, argv, 7);
		call(argc, argv, credentials);
		credentials_free(credentials);
	} else if (argc >= 4 && strcmp(argv[1], "leak") == 0) {
		struct credentials *credentials = read_credentials(argc, argv, 4);
		leak(argv[2], strtoul(argv[3], NULL, 10), credentials);
		credentials_free(credentials);
	} else {
		(void)fprintf(stderr, "usage: see the head of rpc_peer.c\n");
		return 2;
	}
	return 0;
}
