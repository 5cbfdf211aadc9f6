/* SPDX-License-Identifier: Apache-2.0 */
/* Follows one migration to its end, and listens to Ctrl-C meanwhile. */
#ifndef HAUL_CMD_HAULCTL_FOLLOW_H
#define HAUL_CMD_HAULCTL_FOLLOW_H

#include "cmd/haulctl/ctl.h"
#include "haul/v1/migrations.pb-c.h"

struct follow {
	struct ctl *ctl;
	const char *id;
	bool cancels;	  /* the first signal cancels the migration, the second leaves it alone;
			   * otherwise the first one leaves it alone */
	int64_t doubt_ms; /* how long to wait while it is in doubt; 0 = for ever */
	void *self;	  /* for the two below; both are called on the caller's thread but `say` */
	void (*changed)(void *self, const Haul__V1__Migration *migration);
	void (*say)(void *self, const char *text);
};

/* SIGINT and SIGTERM must be blocked in every thread. *ret_last is what was seen last (free with
 * haul__v1__migration__free_unpacked), *ret_left tells that the user left before the end. Errors:
 * UNAVAILABLE, with how to go on, when the engine is lost; what Watch itself refuses. */
must_check status *follow_migration(const struct follow *follow, Haul__V1__Migration **ret_last,
				    bool *ret_left);

#endif
