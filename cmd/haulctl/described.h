/* SPDX-License-Identifier: Apache-2.0 */
/* Services and messages that haulctl was not built with, as their server describes them. */
#ifndef HAUL_CMD_HAULCTL_DESCRIBED_H
#define HAUL_CMD_HAULCTL_DESCRIBED_H

#include "cmd/haulctl/ctl.h"
#include "proto/pack.h"
#include "proto/schema.h"

/* Asks the server for what it knows around a symbol. One without haul.v1.Reflection is taken to
 * know what haulctl was built with. */
must_check status *described_load(struct ctl *ctl, const char *symbol, struct schema **ret_schema);

/* "haul.v1.Migrations/Get", also with a '/' before it or a '.' between. */
struct method_name {
	char service[LIMIT_NAME + 1];
	char method[LIMIT_NAME + 1];
};
must_check status *method_name_parse(const char *text, struct method_name *ret_name);

/* One call with the bytes of its messages. */
must_check status *described_call(struct ctl *ctl, const struct method_name *name,
				  const struct buffer *request, struct buffer *ret_response);

#endif
