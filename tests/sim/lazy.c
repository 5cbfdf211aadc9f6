/* SPDX-License-Identifier: Apache-2.0 */
/* Lazy restores: the played hosts cannot. */
#include "engine/lazy/lazy.h"
#include "engine/criu/request.h"
#include "engine/host/preflight.h"
#include "tests/sim/sim.h"

status *lazy_probe(void)
{
	return status_errorf(STATUS_UNIMPLEMENTED, "not here");
}

uint64_t preflight_available_bytes(void)
{
	return UINT64_MAX;
}

status *criu_has_lazy_pages(struct swrk *session, const struct criu_limits *limits, bool *ret_has)
{
	(void)session;
	(void)limits;
	*ret_has = false;
	return NULL;
}

status *lazy_new(const struct lazy_options *options, struct lazy **ret_lazy)
{
	(void)options;
	(void)ret_lazy;
	return lazy_probe();
}

status *lazy_add_round(struct lazy *lazy, unsigned round)
{
	(void)lazy;
	(void)round;
	return NULL;
}

status *lazy_begin(struct lazy *lazy, uint64_t least, uint64_t most, bool *ret_is_lazy,
		   uint64_t *ret_pages)
{
	(void)lazy;
	(void)least;
	(void)most;
	*ret_is_lazy = false;
	*ret_pages = 0;
	return NULL;
}

status *lazy_restored(struct lazy *lazy)
{
	(void)lazy;
	return NULL;
}

enum lazy_state lazy_state_of(struct lazy *lazy)
{
	(void)lazy;
	return LAZY_STATE_IDLE;
}

status *lazy_error(struct lazy *lazy)
{
	(void)lazy;
	return NULL;
}

status *lazy_let_run(struct lazy *lazy)
{
	(void)lazy;
	return NULL;
}

void lazy_report_of(struct lazy *lazy, struct lazy_report *ret_report)
{
	(void)lazy;
	*ret_report = (struct lazy_report){0};
}

void lazy_free(struct lazy *lazy)
{
	(void)lazy;
}

void lazy_abandon(struct lazy *lazy)
{
	(void)lazy;
}
