/* SPDX-License-Identifier: Apache-2.0 */
#include "cmd/haulctl/ctl.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "proto/pack.h"

/* NULL where --server needs none. */
static status *read_tls(const struct ctl *ctl, struct haul_tls *tls,
			const struct haul_tls **ret_tls)
{
	bool has_any = ctl->ca != NULL || ctl->cert != NULL || ctl->key != NULL || ctl->crl != NULL;
	bool has_all = ctl->ca != NULL && ctl->cert != NULL && ctl->key != NULL;

	if (!has_all && (has_any || strncmp(ctl->server, "tls+tcp://", strlen("tls+tcp://")) == 0))
		return status_detailf(status_errorf(STATUS_INVALID_ARGUMENT,
						    "--server %.200s needs --ca, --cert and --key",
						    ctl->server),
				      "next", "haulctl pki issue makes a certificate and its key");
	tls->ca = ctl->ca;
	tls->cert = ctl->cert;
	tls->key = ctl->key;
	tls->crl = ctl->crl;
	*ret_tls = has_all ? tls : NULL;
	return NULL;
}

static status *connect_client(struct ctl *ctl)
{
	struct haul_tls tls = HAUL_TLS_INIT;
	const struct haul_tls *used_tls = NULL;
	status *st = NULL;

	if (ctl->server != NULL && ctl->local != NULL)
		return status_errorf(STATUS_INVALID_ARGUMENT,
				     "--local and --server exclude each other");
	if (ctl->server == NULL &&
	    (ctl->ca != NULL || ctl->cert != NULL || ctl->key != NULL || ctl->crl != NULL))
		return status_errorf(
		    STATUS_INVALID_ARGUMENT,
		    "--ca, --cert, --key and --crl are for --server, which is missing");
	if (ctl->server != NULL)
		st = read_tls(ctl, &tls, &used_tls);
	if (st == NULL)
		st = ctl_status(haul_connect(ctl->server != NULL ? ctl->server : ctl->local,
					     used_tls, &ctl->client));
	return st;
}

status *ctl_connect(struct ctl *ctl)
{
	status *st = ctl->client == NULL ? connect_client(ctl) : NULL;

	if (st == NULL)
		haul_set_timeout(ctl->client, ctl->timeout_ms);
	return st;
}

status *ctl_status(struct haul_error *error)
{
	const char *label = NULL, *text = NULL;

	if (error == NULL)
		return NULL;
	status *st = status_errorf((enum status_code)haul_error_code(error), "%s",
				   haul_error_message(error));
	for (size_t i = 0; haul_error_detail_at(error, i, &label, &text); i++)
		st = status_detailf(st, label, "%s", text);
	haul_error_free(error);
	return st;
}

status *ctl_failed(const struct ctl *ctl, struct haul_error *error)
{
	status *st = ctl_status(error);

	if (status_code_of(st) == STATUS_UNAVAILABLE && status_detail_find(st, "next") == NULL &&
	    !rpc_client_may_have_run(st))
		st = status_detailf(st, "next", "is hauld running%s?",
				    ctl->server != NULL
					? " there, and may this machine connect to it"
					: " here (systemctl status hauld), and are you root");
	return st;
}

status *ctl_call_bytes(struct ctl *ctl, const char *method, const struct buffer *request,
		       struct buffer *ret_response)
{
	uint8_t *data = NULL;
	size_t size = 0;
	status *st = ctl_connect(ctl);

	if (st == NULL)
		st = ctl_failed(ctl, haul_call(ctl->client, method, request->data, request->size,
					       &data, &size));
	if (st == NULL)
		*ret_response = (struct buffer){data, size};
	return st;
}

status *ctl_call(struct ctl *ctl, const ProtobufCServiceDescriptor *service, const char *method,
		 const ProtobufCMessage *request, ProtobufCMessage **ret_response)
{
	const ProtobufCMethodDescriptor *known =
	    protobuf_c_service_descriptor_get_method_by_name(service, method);
	scoped(buffer) struct buffer packed = {0};
	scoped(buffer) struct buffer response = {0};
	char name[LIMIT_NAME + 1];

	assert(known != NULL);
	(void)snprintf(name, sizeof(name), "%s/%s", service->name, method);
	status *st = pack_message(request, LIMIT_UNARY_BYTES, &packed);
	if (st == NULL)
		st = ctl_call_bytes(ctl, name, &packed, &response);
	if (st != NULL)
		return st;
	st = unpack_message(known->output, response.data, response.size, LIMIT_UNARY_BYTES,
			    ret_response);
	return st == NULL
		   ? NULL
		   : status_recode(status_wrapf(st, "the server's response"), STATUS_DATA_LOSS);
}

status *ctl_migration(struct haul_migration *view, Haul__V1__Migration **ret_migration)
{
	ProtobufCMessage *message = NULL;
	status *st = NULL;

	if (view != NULL)
		st = unpack_message(&haul__v1__migration__descriptor, view->wire, view->wire_bytes,
				    LIMIT_UNARY_BYTES, &message);
	haul_migration_free(view);
	if (st == NULL)
		*ret_migration = (Haul__V1__Migration *)message;
	return st;
}

void ctl_close(struct ctl *ctl)
{
	haul_disconnect(ctl->client);
	ctl->client = NULL;
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

status *ctl_id_and_connect(struct ctl *ctl, char **ret_id)
{
	scoped(str) char *id = NULL;
	status *st = ctl_id(ctl, &id);

	if (st == NULL)
		st = ctl_connect(ctl);
	if (st == NULL)
		*ret_id = TAKE(id);
	return st;
}
