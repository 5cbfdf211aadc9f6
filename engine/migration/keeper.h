/* SPDX-License-Identifier: Apache-2.0 */
/* A thread beside the source's own: keeps the destination's lease alive while a stage is long,
 * shows progress, and ends the migration when its time is up. */
#ifndef HAUL_ENGINE_MIGRATION_KEEPER_H
#define HAUL_ENGINE_MIGRATION_KEEPER_H

#include "engine/migration/source_internal.h"

must_check status *keeper_start(struct source *source);
void keeper_stop(struct source *source); /* not started is fine */

#endif
