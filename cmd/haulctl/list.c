/* SPDX-License-Identifier: Apache-2.0 */
/* haulctl list: the migrations that an engine knows of. */
#include <ctype.h>
#include <time.h>

#include "cmd/haulctl/ctl.h"
#include "cmd/haulctl/render.h"
#include "cmd/haulctl/render_json.h"
#include "proto/pack.h"

/* "completed", "in-doubt" or "IN_DOUBT". */
static status *read_state(const char *text, Haul__V1__MigrationState *ret_state)
{
	const ProtobufCEnumDescriptor *states = &haul__v1__migration_state__descriptor;

	for (unsigned i = 0; i < states->n_values; i++) {
		const char *name = states->values[i].name;
		size_t at = 0;
		while (name[at] != '\0' && (toupper((unsigned char)text[at]) == name[at] ||
					    (text[at] == '-' && name[at] == '_')))
			at++;
		if (name[at] == '\0' && text[at] == '\0' && states->values[i].value != 0) {
			*ret_state = (Haul__V1__MigrationState)states->values[i].value;
			return NULL;
		}
	}
	return status_detailf(status_errorf(STATUS_INVALID_ARGUMENT,
					    "--state: there is no state \"%.40s\"", text),
			      "next",
			      "one of running, completed, aborted, cancelled, in-doubt, lost");
}

/* A request with texts on the heap: free it with free_unpacked. */
static status *make_request(const struct ctl *ctl, Haul__V1__ListRequest *request)
{
	request->active_only = ctl->active;
	request->workload = text_copy(ctl->workload);
	request->peer = text_copy(ctl->peer);
	request->page_token = text_copy("");
	request->states = calloc(ctl->states.count + 1, sizeof(*request->states));
	if (request->states == NULL)
		return status_errorf(STATUS_RESOURCE_EXHAUSTED, "no memory");
	if (ctl->since_ms > 0)
		request->since_unix_ms = (int64_t)time(NULL) * 1000 - ctl->since_ms;
	for (size_t i = 0; i < ctl->states.count; i++) {
		status *st = read_state(ctl->states.items[i], &request->states[i]);
		if (st != NULL)
			return st;
		request->n_states++;
	}
	return NULL;
}

/* Moves a page's migrations to the end of the list, and its token with them. */
static status *take_page(Haul__V1__ListResponse *list, Haul__V1__ListResponse *page)
{
	size_t count = list->n_migrations + page->n_migrations;
	Haul__V1__Migration **grown =
	    realloc(list->migrations, (count + 1) * sizeof(*list->migrations));

	if (grown == NULL)
		return status_errorf(STATUS_RESOURCE_EXHAUSTED, "no memory");
	list->migrations = grown;
	for (size_t i = 0; i < page->n_migrations; i++)
		grown[list->n_migrations++] = TAKE(page->migrations[i]);
	page->n_migrations = 0;
	return NULL;
}

static status *list_all(struct ctl *ctl, Haul__V1__ListRequest *request,
			Haul__V1__ListResponse *list)
{
	for (;;) {
		scoped(message) ProtobufCMessage *response = NULL;
		request->page_size = ctl->limit > 0 ? ctl->limit - (uint32_t)list->n_migrations : 0;
		status *st = ctl_call(ctl, &haul__v1__migrations__descriptor, "List",
				      &request->base, &response);
		if (st != NULL)
			return st;
		Haul__V1__ListResponse *page = (Haul__V1__ListResponse *)response;
		st = take_page(list, page);
		if (st != NULL || page->next_page_token[0] == '\0' ||
		    (ctl->limit > 0 && list->n_migrations >= ctl->limit))
			return st;
		free(request->page_token);
		request->page_token = text_copy(page->next_page_token);
	}
}

static status *run(struct ctl *ctl, int *ret_exit)
{
	Haul__V1__ListRequest *request = malloc(sizeof(*request));
	Haul__V1__ListResponse *list = malloc(sizeof(*list));

	(void)ret_exit;
	if (request == NULL || list == NULL)
		abort();
	haul__v1__list_request__init(request);
	haul__v1__list_response__init(list);
	scoped(message) ProtobufCMessage *request_owner = &request->base, *list_owner = &list->base;
	if (ctl->all && ctl->active)
		return status_errorf(STATUS_INVALID_ARGUMENT,
				     "--all and --active exclude each other");
	status *st = make_request(ctl, request);
	if (st == NULL)
		st = list_all(ctl, request, list);
	if (st != NULL)
		return st;
	if (ctl->is_json)
		json_print(stdout, json_of_list(list), false);
	else
		print_list(stdout, list);
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
