/* SPDX-License-Identifier: Apache-2.0 */
/* What programs see of the messages: structs of this library's own, with texts that stay in the
 * message that they come from. */
#include <string.h>

#include "proto/envelope.h"
#include "proto/limits.h"
#include "rpc/libhaul/internal.h"

struct migration_owner {
	struct haul_migration view; /* first: programs have its address */
	Haul__V1__Migration *message;
	status *error;
	struct haul_round *rounds;
	const struct haul_round **round_list;
	struct buffer wire;
};

struct node_owner {
	struct haul_node view; /* first */
	Haul__V1__NodeInfo *message;
	struct buffer wire;
};

const char *haul_state_name(enum haul_state state)
{
	const ProtobufCEnumValue *value =
	    protobuf_c_enum_descriptor_get_value(&haul__v1__migration_state__descriptor,
						 (int)state);

	return value != NULL ? value->name : "STATE_UNKNOWN";
}

bool haul_state_is_over(enum haul_state state)
{
	return state == HAUL_STATE_COMPLETED || state == HAUL_STATE_ABORTED ||
	       state == HAUL_STATE_CANCELLED || state == HAUL_STATE_LOST;
}

static status *view_rounds(struct migration_owner *owner)
{
	const Haul__V1__Migration *message = owner->message;

	owner->rounds = calloc(message->n_rounds + 1, sizeof(*owner->rounds));
	owner->round_list = calloc(message->n_rounds + 1, sizeof(*owner->round_list));
	if (owner->rounds == NULL || owner->round_list == NULL)
		return status_errorf(STATUS_RESOURCE_EXHAUSTED, "no memory");
	for (size_t i = 0; i < message->n_rounds; i++) {
		const Haul__V1__Round *round = message->rounds[i];
		owner->rounds[i] = (struct haul_round){
		    .pages_sent = round->pages_sent,
		    .pages_clean = round->pages_skipped,
		    .pages_same = round->pages_same,
		    .pages_zero = round->pages_zero,
		    .bytes = round->bytes,
		    .duration_ms = round->duration_ms,
		    .frozen_ms = round->frozen_ms,
		};
		owner->round_list[i] = &owner->rounds[i];
	}
	owner->view.round_count = message->n_rounds;
	owner->view.rounds = owner->round_list;
	return NULL;
}

static void view_texts(struct migration_owner *owner)
{
	const Haul__V1__Migration *message = owner->message;
	struct haul_migration *view = &owner->view;

	view->id = message->id;
	view->stage = message->stage;
	view->role = message->role;
	view->workload = message->workload;
	view->peer = message->peer;
	view->tracking = message->tracking;
	view->doubt = message->doubt;
	view->mode = message->mode;
	view->note_count = message->n_notes;
	view->notes = (const char *const *)message->notes;
	view->wire = owner->wire.data;
	view->wire_bytes = owner->wire.size;
	owner->error = status_from_wire(message->error);
	view->error = (const struct haul_error *)owner->error;
}

static void view_numbers(struct haul_migration *view, const Haul__V1__Migration *message)
{
	view->state = (int)message->state;
	view->sequence = message->sequence;
	view->started_unix_ms = message->started_unix_ms;
	view->ended_unix_ms = message->ended_unix_ms;
	view->bytes_on_wire = message->bytes_on_wire;
	view->rate_bytes_per_s = message->rate_bytes_per_s;
	view->downtime_ms = message->downtime_ms;
	view->total_ms = message->total_ms;
	view->predicted_downtime_ms = message->predicted_downtime_ms;
	view->predicted_dump_ms = message->predicted_dump_ms;
	view->predicted_restore_ms = message->predicted_restore_ms;
	view->prediction_error_ms = message->prediction_error_ms;
	view->cpu_share_percent = message->cpu_share_percent;
	view->late_pages = message->late_pages;
	view->late_missing = message->late_missing;
	view->late_faults = message->late_faults;
	view->criu_freeze_ms = message->criu_freeze_ms;
	view->criu_restore_ms = message->criu_restore_ms;
	view->pid = message->pid;
	view->restored_pid = message->restored_pid;
	view->in_doubt_since_unix_ms = message->in_doubt_since_unix_ms;
}

status *migration_view(Haul__V1__Migration *message, struct haul_migration **ret_migration)
{
	struct migration_owner *owner = calloc(1, sizeof(*owner));

	if (owner == NULL) {
		haul__v1__migration__free_unpacked(message, NULL);
		return status_errorf(STATUS_RESOURCE_EXHAUSTED, "no memory");
	}
	owner->message = message;
	status *st = pack_message(&message->base, LIMIT_UNARY_BYTES, &owner->wire);
	if (st == NULL)
		st = view_rounds(owner);
	if (st != NULL) {
		haul_migration_free(&owner->view);
		return st;
	}
	view_texts(owner);
	view_numbers(&owner->view, message);
	*ret_migration = &owner->view;
	return NULL;
}

void haul_migration_free(struct haul_migration *migration)
{
	struct migration_owner *owner = (struct migration_owner *)migration;

	if (owner == NULL)
		return;
	haul__v1__migration__free_unpacked(owner->message, NULL);
	status_free(owner->error);
	free(owner->rounds);
	free(owner->round_list);
	buffer_free(&owner->wire);
	free(owner);
}

static void view_node(struct haul_node *view, const Haul__V1__NodeInfo *message)
{
	view->node = message->node;
	view->version = message->version;
	view->protocol = message->protocol;
	view->criu = message->criu;
	view->criu_trouble = message->criu_trouble;
	view->kernel = message->kernel;
	view->machine = message->machine;
	view->dirty_tracking = message->dirty_tracking;
	view->draining = message->draining;
	view->migrations_active = message->migrations_active;
	view->migrations_in_doubt = message->migrations_in_doubt;
	view->started_unix_ms = message->started_unix_ms;
	view->identity = message->identity;
	view->certificate_expires_unix_ms = message->certificate_expires_unix_ms;
	view->crl_expires_unix_ms = message->crl_expires_unix_ms;
}

status *node_view(Haul__V1__NodeInfo *message, struct haul_node **ret_node)
{
	struct node_owner *owner = calloc(1, sizeof(*owner));

	if (owner == NULL) {
		haul__v1__node_info__free_unpacked(message, NULL);
		return status_errorf(STATUS_RESOURCE_EXHAUSTED, "no memory");
	}
	owner->message = message;
	status *st = pack_message(&message->base, LIMIT_UNARY_BYTES, &owner->wire);
	if (st != NULL) {
		haul_node_free(&owner->view);
		return st;
	}
	view_node(&owner->view, message);
	owner->view.wire = owner->wire.data;
	owner->view.wire_bytes = owner->wire.size;
	*ret_node = &owner->view;
	return NULL;
}

void haul_node_free(struct haul_node *node)
{
	struct node_owner *owner = (struct node_owner *)node;

	if (owner == NULL)
		return;
	haul__v1__node_info__free_unpacked(owner->message, NULL);
	buffer_free(&owner->wire);
	free(owner);
}
