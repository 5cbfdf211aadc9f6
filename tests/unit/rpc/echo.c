/* SPDX-License-Identifier: Apache-2.0 */
#include "proto/clock.h"
#include "tests/unit/test.h"

#include "tests/unit/rpc/echo.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#include "rpc/nng_error.h"

static void sleep_ms(long ms)
{
	struct timespec time = {.tv_nsec = ms * 1000000};
	(void)nanosleep(&time, NULL);
}

static status *ask_onward(struct echo *echo, const struct rpc_call *call,
			  ProtobufCMessage **ret_response)
{
	char id[] = "attend";
	Haul__V1__HelloRequest message = HAUL__V1__HELLO_REQUEST__INIT;
	message.id = id;
	const struct rpc_request request = {.service = &haul__v1__peer__descriptor,
					    .method = "Hello",
					    .message = &message.base,
					    .timeout_ms = 60000};
	return rpc_call_forward(call, echo->onward, &request, ret_response);
}

static status *hello(void *self, const struct rpc_call *call, const ProtobufCMessage *request,
		     ProtobufCMessage **ret_response)
{
	struct echo *echo = self;
	const char *id = ((const Haul__V1__HelloRequest *)request)->id;
	(void)atomic_fetch_add(&echo->runs, 1);
	atomic_store(&echo->last_deadline_ms, call->deadline_ms);
	while (strcmp(id, "block") == 0 && !atomic_load(&echo->is_released))
		sleep_ms(2);
	while (strcmp(id, "attend") == 0 && !rpc_call_is_cancelled(call) &&
	       !atomic_load(&echo->is_released))
		sleep_ms(2);
	if (strcmp(id, "onward") == 0)
		return ask_onward(echo, call, ret_response);
	if (strcmp(id, "fail") == 0)
		return status_detailf(status_detailf(status_errorf(STATUS_ABORTED, "it failed"),
						     "next", "try again"),
				      "sent", "no");
	if (strcmp(id, "nothing") == 0)
		return NULL;
	Haul__V1__HelloResponse *response = malloc(sizeof(*response));
	haul__v1__hello_response__init(response);
	response->node = text_copy(call->caller->name);
	response->kernel = text_copy(call->server_host);
	if (strcmp(id, "big") == 0) {
		response->version = malloc(LIMIT_UNARY_BYTES + 1);
		memset(response->version, 'x', LIMIT_UNARY_BYTES);
		response->version[LIMIT_UNARY_BYTES] = '\0';
	}
	*ret_response = &response->base;
	return NULL;
}

static status *abort_call(void *self, const struct rpc_call *call, const ProtobufCMessage *request,
			  ProtobufCMessage **ret_response)
{
	(void)self;
	(void)call;
	(void)request;
	Haul__V1__AbortResponse *response = malloc(sizeof(*response));
	haul__v1__abort_response__init(response);
	*ret_response = &response->base;
	return NULL;
}

static status *query(void *self, const struct rpc_call *call, const ProtobufCMessage *request,
		     ProtobufCMessage **ret_response)
{
	struct echo *echo = self;
	const char *text = metadata_find(call->metadata, "say");
	const char *id = ((const Haul__V1__QueryRequest *)request)->id;
	scoped(message) ProtobufCMessage *onward = NULL;
	status *st = text != NULL ? rpc_call_add_trailing(call, "said", text) : NULL;
	if (st == NULL && strcmp(id, "onward") == 0)
		st = ask_onward(echo, call, &onward);
	if (st == NULL && strcmp(id, "fail") == 0)
		st = status_errorf(STATUS_ABORTED, "it failed");
	if (st != NULL)
		return st;
	Haul__V1__QueryResponse *response = malloc(sizeof(*response));
	haul__v1__query_response__init(response);
	response->pid = atomic_fetch_add(&echo->reads, 1) + 1;
	*ret_response = &response->base;
	return NULL;
}

static const rpc_handler handlers[9] = {[0] = hello, [6] = abort_call, [7] = query};

static void on_called(void *self, const struct rpc_call *call, const status *st, int64_t took_us)
{
	struct echo *echo = self;
	(void)st;
	(void)took_us;
	(void)pthread_mutex_lock(&echo->lock);
	(void)snprintf(echo->last_id, sizeof(echo->last_id), "%s", call->id);
	(void)snprintf(echo->last_peer, sizeof(echo->last_peer), "%s", call->peer);
	(void)pthread_mutex_unlock(&echo->lock);
	(void)atomic_fetch_add(&echo->called, 1);
}

static void on_refused(void *self, const char *listener, const char *peer, const char *why)
{
	struct echo *echo = self;
	(void)listener;
	(void)pthread_mutex_lock(&echo->lock);
	char *place = echo->refusals[echo->refusal_count++ % array_len(echo->refusals)];
	(void)snprintf(place, sizeof(echo->refusals[0]), "%s: %s", peer, why);
	(void)pthread_mutex_unlock(&echo->lock);
	(void)atomic_fetch_add(&echo->refused, 1);
}

bool echo_was_refused_for(struct echo *echo, const char *from, const char *why)
{
	bool is_it = false;

	(void)pthread_mutex_lock(&echo->lock);
	for (size_t i = 0; i < array_len(echo->refusals); i++)
		is_it = is_it || (strstr(echo->refusals[i], from) != NULL &&
				  strstr(echo->refusals[i], why) != NULL);
	(void)pthread_mutex_unlock(&echo->lock);
	return is_it;
}

static status *authorize(void *self, const struct identity *caller, const char *method)
{
	struct echo *echo = self;
	(void)caller;
	if (atomic_load(&echo->deny))
		return status_errorf(STATUS_PERMISSION_DENIED, "no %s today", method);
	return NULL;
}

static unsigned calls_most(void *self, const struct identity *caller)
{
	const struct echo *echo = self;
	(void)caller;
	return atomic_load(&echo->calls_most);
}

static int64_t pause_ms(void *self, const char *method)
{
	const struct echo *echo = self;
	return echo->pause_ms != NULL ? echo->pause_ms(NULL, method) : 0;
}

void echo_start(struct echo *echo)
{
	memset(echo, 0, sizeof(*echo));
	(void)pthread_mutex_init(&echo->lock, NULL);
	echo->service = (struct rpc_service){.descriptor = &haul__v1__peer__descriptor,
					     .handlers = handlers,
					     .self = echo};
	const struct rpc_server_config config = {
	    .services = &echo->service,
	    .service_count = 1,
	    .authorize = authorize,
	    .calls_most = calls_most,
	    .authorize_self = echo,
	    .pause_ms = pause_ms,
	    .pause_self = echo,
	    .observer = {.self = echo, .called = on_called, .refused = on_refused},
	};
	assert_ok(rpc_start());
	assert_ok(rpc_server_new(&config, &echo->server));
	(void)snprintf(echo->directory, sizeof(echo->directory), "/tmp/haul-echo-XXXXXX");
	assert_non_null(mkdtemp(echo->directory));
}

unsigned free_port(void)
{
	struct sockaddr_in address = {.sin_family = AF_INET};
	socklen_t size = sizeof(address);
	scoped(fd) int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &size), 0);
	return ntohs(address.sin_port);
}

void echo_listen(struct echo *echo, const char *transport, const struct credentials *credentials,
		 unsigned calls)
{
	for (int try = 0;; try++) {
		if (strcmp(transport, "ipc") == 0)
			(void)snprintf(echo->url, sizeof(echo->url), "ipc://%s/sock",
				       echo->directory);
		else
			(void)snprintf(echo->url, sizeof(echo->url), "%s://127.0.0.1:%u",
				       strcmp(transport, "tls") == 0 ? "tls+tcp" : "tcp",
				       free_port());
		status *st = rpc_server_listen(echo->server, echo->url, credentials, calls);
		if (st == NULL)
			return;
		if (try == 5)
			fail_msg("%s", status_message(st));
		status_free(st);
	}
}

void echo_stop(struct echo *echo)
{
	char command[128];
	atomic_store(&echo->is_released, true);
	rpc_server_stop(echo->server, 20000);
	rpc_server_free(echo->server);
	(void)snprintf(command, sizeof(command), "rm -rf %s", echo->directory);
	assert_int_equal(system(command), 0);
}

status *echo_hello(struct rpc_client *client, const char *id, int64_t timeout_ms, char **ret_node)
{
	scoped(str) char *text = text_copy(id);
	scoped(message) ProtobufCMessage *response = NULL;
	Haul__V1__HelloRequest request = HAUL__V1__HELLO_REQUEST__INIT;
	request.id = text;
	status *st = rpc_client_call(client, &haul__v1__peer__descriptor, "Hello", &request.base,
				     timeout_ms, &response);
	if (st == NULL && ret_node != NULL)
		*ret_node = text_copy(((Haul__V1__HelloResponse *)response)->node);
	return st;
}

bool is_at_least(atomic_int *value, int wanted, int64_t timeout_ms)
{
	int64_t deadline_ms = clock_monotonic_ms() + timeout_ms;
	while (atomic_load(value) < wanted && left_ms(deadline_ms) > 0)
		sleep_ms(2);
	return atomic_load(value) >= wanted;
}

int count_fds(void)
{
	int count = 0;
	DIR *directory = opendir("/proc/self/fd");
	while (readdir(directory) != NULL)
		count++;
	(void)closedir(directory);
	return count;
}
