/* SPDX-License-Identifier: Apache-2.0 */
/* The machines' cgroups, and what the world tells its other parts. */
#ifndef HAUL_TESTS_SIM_GROUPS_H
#define HAUL_TESTS_SIM_GROUPS_H

#include "tests/sim/sim.h"

void groups_init(void);
void groups_forget(int node); /* power is gone */
bool group_is_frozen(int node, const char *path);
void groups_check_left_over(int node);
struct proc *proc_at(int place); /* NULL behind the last */

#endif
