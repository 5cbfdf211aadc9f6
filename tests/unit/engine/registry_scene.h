/* SPDX-License-Identifier: Apache-2.0 */
/* Migrations for a registry that is tested. */
#ifndef HAUL_TESTS_UNIT_ENGINE_REGISTRY_SCENE_H
#define HAUL_TESTS_UNIT_ENGINE_REGISTRY_SCENE_H

#include "engine/migration/registry.h"

#define RUNNING HAUL__V1__MIGRATION_STATE__RUNNING
#define COMPLETED HAUL__V1__MIGRATION_STATE__COMPLETED
#define IN_DOUBT HAUL__V1__MIGRATION_STATE__IN_DOUBT

/* In stage "prepare", from nobody; later than all before it. */
Haul__V1__Migration *view(const char *id, Haul__V1__MigrationState migration_state);

/* Adds such a one. */
status *add(struct registry *registry, const char *id, Haul__V1__MigrationState migration_state);

/* For registry_change: self is the name of the stage. */
void set_stage(void *self, Haul__V1__Migration *changed);
void set_over(void *self, Haul__V1__Migration *changed);

#endif
