/* SPDX-License-Identifier: Apache-2.0 */
/* One line a fact: "level=info migration=7f3a msg=…" or JSON. The only process-wide state haul has
 * is where the log goes (stderr). */
#ifndef HAUL_ENGINE_LOG_H
#define HAUL_ENGINE_LOG_H

#include <stdbool.h>

#include "proto/status.h"

enum log_level { LOG_LEVEL_DEBUG, LOG_LEVEL_INFO, LOG_LEVEL_WARN, LOG_LEVEL_ERROR };

/* Before any thread; text by default. */
void log_configure(bool as_json, enum log_level least);

/* migration may be NULL. */
void log_line(enum log_level level, const char *migration, const char *fmt, ...) format_like(3, 4);

/* A value of its own beside the message: a text, or the number when there is none. */
struct log_field {
	const char *name;
	const char *text;
	int64_t number;
};

/* A line with fields: name=value in text, members in JSON. */
void log_fields(enum log_level level, const char *migration, const char *message,
		const struct log_field *fields, size_t count);

/* Logs an error with its details; borrows it. */
void log_status(enum log_level level, const char *migration, const char *what, const status *st);

#endif
