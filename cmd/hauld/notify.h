/* SPDX-License-Identifier: Apache-2.0 */
/* Tells the service manager how far we are, by systemd's notification protocol. */
#ifndef HAUL_CMD_HAULD_NOTIFY_H
#define HAUL_CMD_HAULD_NOTIFY_H

#include "proto/status.h"

/* Sends `state` ("READY=1") to the socket that NOTIFY_SOCKET names, a path or "@abstract"; does
 * nothing when it is not set. */
must_check status *notify_manager(const char *state);

#endif
