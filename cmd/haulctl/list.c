/* SPDX-License-Identifier: Apache-2.0 */
/* haulctl list: the migrations that an engine knows of. */
#include <ctype.h>
#include <time.h>

#include "cmd/haulctl/ctl.h"
#include "cmd/haulctl/render.h"
#include "cmd/haulctl/render_json.h"
#include "proto/pack.h"

/* Adds "completed", "in-doubt" or "IN_DOUBT" to the states. */
static status *read_state(const char *text, uint32_t *states)
{
	const ProtobufCEnumDescriptor *names = &haul__v1__migration_state__descriptor;

	for (unsigned i = 0; i < names->n_values; i++) {
		const char *name = names->values[i].name;
		size_t at = 0;
		while (name[at] != '\0' && (toupper((unsigned char)text[at]) == name[at] ||
					    (text[at] == '-' && name[at] == '_')))
			at++;
		if (name[at] == '\0' && text[at] == '\0' && names->values[i].value != 0) {
			*states |= UINT32_C(1) << names->values[i].value;
			return NULL;
		}
	}
	return status_detailf(status_errorf(STATUS_INVALID_ARGUMENT,
					    "--state: there is no state \"%.40s\"", text),
			      "next",
			      "one of running, completed, aborted, cancelled, in-doubt, lost");
}

static status *make_filter(const struct ctl *ctl, struct haul_filter *filter)
{
	status *st = NULL;

	if (ctl->all && ctl->active)
		return status_errorf(STATUS_INVALID_ARGUMENT,
				     "--all and --active exclude each other");
	filter->active_only = ctl->active;
	filter->workload = ctl->workload;
	filter->peer = ctl->peer;
	filter->limit = ctl->limit;
	if (ctl->since_ms > 0)
		filter->since_unix_ms = (int64_t)time(NULL) * 1000 - ctl->since_ms;
	for (size_t i = 0; st == NULL && i < ctl->states.count; i++)
		st = read_state(ctl->states.items[i], &filter->states);
	return st;
}

/* The list as one message. */
static status *message_of(const struct haul_list *list, Haul__V1__ListResponse *message)
{
	status *st = NULL;

	message->migrations = calloc(list->count + 1, sizeof(*message->migrations));
	if (message->migrations == NULL)
		return status_errorf(STATUS_RESOURCE_EXHAUSTED, "no memory");
	for (size_t i = 0; st == NULL && i < list->count; i++) {
		const struct haul_migration *view = list->migrations[i];
		ProtobufCMessage *migration = NULL;
		st = unpack_message(&haul__v1__migration__descriptor, view->wire, view->wire_bytes,
				    LIMIT_UNARY_BYTES, &migration);
		if (st == NULL)
			message->migrations[message->n_migrations++] =
			    (Haul__V1__Migration *)migration;
	}
	return st;
}

static status *run(struct ctl *ctl, int *ret_exit)
{
	struct haul_filter filter = HAUL_FILTER_INIT;
	struct haul_list *list = NULL;
	Haul__V1__ListResponse *message = malloc(sizeof(*message));
	status *st = make_filter(ctl, &filter);

	(void)ret_exit;
	if (message == NULL)
		abort();
	haul__v1__list_response__init(message);
	scoped(message) ProtobufCMessage *owner = &message->base;
	if (st == NULL)
		st = ctl_connect(ctl);
	if (st == NULL)
		st = ctl_failed(ctl, haul_list(ctl->client, &filter, &list));
	if (st == NULL)
		st = message_of(list, message);
	haul_list_free(list);
	if (st != NULL)
		return st;
	if (ctl->is_json)
		json_print(stdout, json_of_list(message), false);
	else
		print_list(stdout, message);
	return NULL;
}

static const struct flag flags[] = {
    {"--all", NULL, FLAG_SWITCH, CTL_FLAG(all), "also those that are over (the default)"},
    {"--active", NULL, FLAG_SWITCH, CTL_FLAG(active), "only those that run or are in doubt"},
    {"--state", "STATE", FLAG_LIST, CTL_FLAG(states),
     "only those that are running, completed, aborted, cancelled, in-doubt or lost; may be given "
     "again"},
    {"--workload", "pid:N", FLAG_TEXT, CTL_FLAG(workload), "only those of this workload"},
    {"--peer", "HOST", FLAG_TEXT, CTL_FLAG(peer),
     "only those to or from this node: its URL, the host in it, or its identity"},
    {"--since", "D", FLAG_DURATION, CTL_FLAG(since_ms), "only those that began within this time"},
    {"--limit", "N", FLAG_NUMBER, CTL_FLAG(limit), "at most so many (default: all)"},
};

const struct command command_list = {
    .name = "list",
    .arguments = "[--active]",
    .summary = "list migrations, newest first",
    .text =
	"Lists the migrations from and to this node that its engine remembers, newest first. SINCE "
	"is\n"
	"when it began; DOUBT says why a migration is in doubt.\n\n"
	"example: what is in doubt?\n"
	"  haulctl list --active --json | jq '.migrations[] | select(.state == \"IN_DOUBT\")'\n",
    .flags = flags,
    .flag_count = array_len(flags),
    .run = run,
};
