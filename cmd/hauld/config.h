/* SPDX-License-Identifier: Apache-2.0 */
/* What hauld is told: by its flags, and by a JSON file whose members have the flags' names. */
#ifndef HAUL_CMD_HAULD_CONFIG_H
#define HAUL_CMD_HAULD_CONFIG_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "engine/log.h"
#include "proto/limits.h"
#include "proto/status.h"

struct config {
	const char *node;
	const char *listen; /* NULL: local socket only */
	const char *local;  /* ipc URL */
	const char *state_dir;
	const char *data_ports;
	const char *seal;
	const char *ca, *cert, *key; /* all or none */
	const char *crl;
	const char *criu;
	const char *log_format, *log_level;
	const char *policy;
	const char *file;
	int64_t criu_timeout_ms, lease_ms, hold_restored_ms, hold_images_ms;
	bool insecure, help, version;
	/* Derived when everything was read. */
	uint16_t port_low, port_high;
	enum log_level least_level;
	char hostname[LIMIT_NAME + 1];
	char local_dir[LIMIT_URL + 1]; /* directory of the local socket */
	void *document;		       /* owns the file's strings */
};

/* Defaults, then the file that --config names, then the flags; checked as a whole unless help or
 * version are asked for. INVALID_ARGUMENT names the flag or the file and its member. The strings
 * live as long as argv and the config. */
must_check status *config_read(int argc, char *const *argv, struct config *ret_config);

void config_free(struct config *config);

/* The text of --help. */
void config_help(FILE *out);

static inline void scope_config(struct config *value)
{
	config_free(value);
}

#endif
