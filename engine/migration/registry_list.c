/* SPDX-License-Identifier: Apache-2.0 */
/* Pages of the list. A page token is the place of the last one of the page before, so that a page
 * is right also when migrations came and went in between, and after a restart. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "engine/migration/registry_internal.h"
#include "proto/limits.h"
#include "proto/pack.h"

/* With room for the envelope around a page. */
enum { PAGE_USUAL = 100, PAGE_BYTES_MOST = LIMIT_UNARY_BYTES * 3 / 4 };

struct place {
	int64_t started_unix_ms;
	const char *id;
};

/* "<started>-<id>" */
static status *read_token(const char *token, struct place *ret_place)
{
	char *end = NULL;

	errno = 0;
	long long started = strtoll(token, &end, 10);
	if (errno != 0 || end == token || *end != '-' || strlen(end + 1) > LIMIT_ID)
		return status_errorf(STATUS_INVALID_ARGUMENT, "not a page token of this engine");
	*ret_place = (struct place){started, end + 1};
	return NULL;
}

static char *make_token(const Haul__V1__Migration *view)
{
	char token[LIMIT_ID + 32];

	(void)snprintf(token, sizeof(token), "%" PRId64 "-%s", view->started_unix_ms, view->id);
	return text_copy(token);
}

/* A peer is known by its URL or identity, and by the host in the URL. */
static bool is_of_peer(const char *peer, const char *wanted)
{
	const char *at = strstr(peer, wanted);

	if (strcmp(peer, wanted) == 0)
		return true;
	while (at != NULL) {
		char after = at[strlen(wanted)];
		if (at > peer && (at[-1] == '/' || at[-1] == '[') &&
		    (after == ':' || after == '/' || after == ']' || after == '\0'))
			return true;
		at = strstr(at + 1, wanted);
	}
	return false;
}

static bool is_wanted(const Haul__V1__Migration *view, const Haul__V1__ListRequest *request)
{
	bool is_of_state = request->n_states == 0;

	for (size_t i = 0; i < request->n_states; i++)
		is_of_state = is_of_state || request->states[i] == view->state;
	return is_of_state && (!request->active_only || !migration_is_over(view)) &&
	       (request->workload[0] == '\0' || strcmp(view->workload, request->workload) == 0) &&
	       (request->peer[0] == '\0' || is_of_peer(view->peer, request->peer)) &&
	       view->started_unix_ms >= request->since_unix_ms;
}

/* With the lock held. */
static void fill_page(const struct registry *registry, const Haul__V1__ListRequest *request,
		      const struct place *after, size_t most, Haul__V1__ListResponse *list)
{
	const Haul__V1__Migration *last = NULL;
	size_t bytes = 0;

	for (size_t i = registry->count; i-- > 0;) {
		const Haul__V1__Migration *view = registry->views[i];
		if ((after->id != NULL &&
		     view_compare(view, after->started_unix_ms, after->id) >= 0) ||
		    !is_wanted(view, request))
			continue;
		bytes += haul__v1__migration__get_packed_size(view);
		if (last != NULL && (list->n_migrations == most || bytes > PAGE_BYTES_MOST)) {
			list->next_page_token = make_token(last);
			return;
		}
		last = view;
		list->migrations[list->n_migrations++] = view_copy(view);
	}
}

status *registry_list(struct registry *registry, const Haul__V1__ListRequest *request,
		      Haul__V1__ListResponse **ret_list)
{
	struct place after = {0};
	size_t most = request->page_size == 0 ? PAGE_USUAL : request->page_size;
	status *st =
	    request->page_token[0] != '\0' ? read_token(request->page_token, &after) : NULL;

	if (st != NULL)
		return st;
	if (most > LIMIT_HISTORY)
		most = LIMIT_HISTORY;
	Haul__V1__ListResponse *list = malloc(sizeof(*list));
	if (list == NULL)
		abort();
	haul__v1__list_response__init(list);
	(void)pthread_mutex_lock(&registry->lock);
	list->migrations = calloc(registry->count + 1, sizeof(*list->migrations));
	if (list->migrations == NULL)
		abort();
	fill_page(registry, request, &after, most, list);
	(void)pthread_mutex_unlock(&registry->lock);
	*ret_list = list;
	return NULL;
}
