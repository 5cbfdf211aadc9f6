/* SPDX-License-Identifier: Apache-2.0 */
#include "cmd/haulctl/ctl.h"

#include <string.h>
#include <time.h>

#include "proto/pack.h"

static status *load_credentials(struct ctl *ctl)
{
	bool has_any = ctl->ca != NULL || ctl->cert != NULL || ctl->key != NULL || ctl->crl != NULL;
	bool has_all = ctl->ca != NULL && ctl->cert != NULL && ctl->key != NULL;

	const struct credentials_files files = {.ca = ctl->ca,
						.cert = ctl->cert,
						.key = ctl->key,
						.crl = ctl->crl};

	if (has_all)
		return credentials_load(&files, &ctl->credentials);
	if (has_any || strncmp(ctl->server, "tls+tcp://", strlen("tls+tcp://")) == 0)
		return status_detailf(status_errorf(STATUS_INVALID_ARGUMENT,
						    "--server %.200s needs --ca, --cert and --key",
						    ctl->server),
				      "next", "haulctl pki issue makes a certificate and its key");
	return NULL;
}

static status *connect_client(struct ctl *ctl)
{
	status *st = NULL;

	if (ctl->server != NULL && ctl->local != NULL)
		return status_errorf(STATUS_INVALID_ARGUMENT,
				     "--local and --server exclude each other");
	if (ctl->server == NULL &&
	    (ctl->ca != NULL || ctl->cert != NULL || ctl->key != NULL || ctl->crl != NULL))
		return status_errorf(
		    STATUS_INVALID_ARGUMENT,
		    "--ca, --cert, --key and --crl are for --server, which is missing");
	st = rpc_start();
	if (st == NULL && ctl->server != NULL)
		st = load_credentials(ctl);
	if (st != NULL)
		return st;
	const char *local = ctl->local != NULL ? ctl->local : "ipc:///run/haul/hauld.sock";
	st = rpc_client_new(ctl->server != NULL ? ctl->server : local, ctl->credentials,
			    &ctl->client);
	/* What got lost on the way is sent again: the engine carries a request out once. */
	if (st == NULL)
		rpc_client_enable_retry(ctl->client);
	return st;
}

status *ctl_connect(struct ctl *ctl)
{
	return ctl->client == NULL ? connect_client(ctl) : NULL;
}

status *ctl_call(struct ctl *ctl, const ProtobufCServiceDescriptor *service, const char *method,
		 const ProtobufCMessage *request, ProtobufCMessage **ret_response)
{
	status *st = ctl_connect(ctl);

	if (st != NULL)
		return st;
	st = rpc_client_call(ctl->client, service, method, request, ctl->timeout_ms, ret_response);
	if (status_code_of(st) == STATUS_UNAVAILABLE && status_detail_find(st, "next") == NULL &&
	    !rpc_client_may_have_run(st))
		st = status_detailf(st, "next", "is hauld running%s?",
				    ctl->server != NULL
					? " there, and may this machine connect to it"
					: " here (systemctl status hauld), and are you root");
	return st;
}

int64_t ctl_now_ms(void)
{
	struct timespec now = {0};

	(void)clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

void ctl_close(struct ctl *ctl)
{
	rpc_client_free(ctl->client);
	credentials_free(ctl->credentials);
	ctl->client = NULL;
	ctl->credentials = NULL;
}

status *ctl_id(const struct ctl *ctl, char **ret_id)
{
	const char *id = ctl->words.words[0];

	if (id[0] == '\0' || strlen(id) > LIMIT_ID)
		return status_detailf(status_errorf(STATUS_INVALID_ARGUMENT,
						    "\"%.80s\" is not a migration's id", id),
				      "next", "haulctl list shows the ids");
	*ret_id = text_copy(id);
	return NULL;
}
