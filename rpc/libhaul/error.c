/* SPDX-License-Identifier: Apache-2.0 */
#include "proto/reason.h"
#include "rpc/libhaul/internal.h"

static const status *status_of(const struct haul_error *error)
{
	return (const status *)error;
}

enum haul_code haul_error_code(const struct haul_error *error)
{
	return (enum haul_code)status_code_of(status_of(error));
}

const char *haul_code_name(enum haul_code code)
{
	return status_code_name(status_code_from_wire((uint32_t)code));
}

const char *haul_error_message(const struct haul_error *error)
{
	return error != NULL ? status_message(status_of(error)) : "";
}

const char *haul_error_reason(const struct haul_error *error)
{
	return status_reason(status_of(error));
}

bool haul_error_detail_at(const struct haul_error *error, size_t index, const char **ret_label,
			  const char **ret_text)
{
	if (index >= status_detail_count(status_of(error)))
		return false;
	const struct status_detail detail = status_detail_at(status_of(error), index);
	*ret_label = detail.label;
	*ret_text = detail.text;
	return true;
}

const char *haul_error_detail(const struct haul_error *error, const char *label)
{
	return status_detail_find(status_of(error), label);
}

bool haul_error_may_have_run(const struct haul_error *error)
{
	return rpc_client_may_have_run(status_of(error));
}

void haul_error_free(struct haul_error *error)
{
	status_free(take_error(error));
}
