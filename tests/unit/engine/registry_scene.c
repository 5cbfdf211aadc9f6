/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/engine/registry_scene.h"

#include <stdlib.h>

#include "proto/pack.h"
#include "tests/unit/test.h"

static int64_t started; /* grows, so that the newest is the last one added */

Haul__V1__Migration *view(const char *id, Haul__V1__MigrationState migration_state)
{
	Haul__V1__Migration *made = malloc(sizeof(*made));

	assert_non_null(made);
	haul__v1__migration__init(made);
	made->started_unix_ms = ++started;
	made->id = text_copy(id);
	made->state = migration_state;
	made->stage = text_copy("prepare");
	made->role = text_copy("source");
	made->workload = text_copy("pid:1");
	made->peer = text_copy("");
	made->tracking = text_copy("");
	made->doubt = text_copy("");
	return made;
}

status *add(struct registry *registry, const char *id, Haul__V1__MigrationState migration_state)
{
	return registry_add(registry, view(id, migration_state));
}

void set_stage(void *self, Haul__V1__Migration *changed)
{
	text_set(&changed->stage, self);
}

void set_over(void *self, Haul__V1__Migration *changed)
{
	(void)self;
	changed->state = COMPLETED;
}
