/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/log.h"

#include <cjson/cJSON.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

enum { LINE_BYTES = 8192 };

/* Set once by main before any thread; read only afterwards. */
static struct {
	bool as_json;
	enum log_level least;
} sink = {false, LOG_LEVEL_INFO};

static const char *const level_names[] = {"debug", "info", "warn", "error"};

void log_configure(bool as_json, enum log_level least)
{
	sink.as_json = as_json;
	sink.least = least;
}

static void timestamp(char text[40])
{
	struct timespec now;
	struct tm parts;
	char seconds[24];

	(void)clock_gettime(CLOCK_REALTIME, &now);
	(void)gmtime_r(&now.tv_sec, &parts);
	(void)strftime(seconds, sizeof(seconds), "%Y-%m-%dT%H:%M:%S", &parts);
	(void)snprintf(text, 40, "%s.%03ldZ", seconds, now.tv_nsec / 1000000);
}

/* Quotes and control characters must not make a second line or a second field. */
static void quote(const char *text, char *out, size_t room)
{
	size_t at = 0;

	for (; *text != '\0' && at + 3 < room; text++) {
		if (*text == '"' || *text == '\\')
			out[at++] = '\\';
		out[at++] = (unsigned char)*text < ' ' ? ' ' : *text;
	}
	out[at] = '\0';
}

static void write_json(const char *when, enum log_level level, const char *migration,
		       const char *text)
{
	cJSON *line = cJSON_CreateObject();

	(void)cJSON_AddStringToObject(line, "time", when);
	(void)cJSON_AddStringToObject(line, "level", level_names[level]);
	if (migration != NULL)
		(void)cJSON_AddStringToObject(line, "migration", migration);
	(void)cJSON_AddStringToObject(line, "msg", text);
	char *printed = cJSON_PrintUnformatted(line);
	if (printed != NULL)
		(void)fprintf(stderr, "%s\n", printed);
	cJSON_free(printed);
	cJSON_Delete(line);
}

static void write_line(enum log_level level, const char *migration, const char *text)
{
	char when[40], quoted[LINE_BYTES + 64];

	timestamp(when);
	if (sink.as_json) {
		write_json(when, level, migration, text);
		return;
	}
	quote(text, quoted, sizeof(quoted));
	/* One call, so that lines of several threads do not mix. */
	if (migration != NULL)
		(void)fprintf(stderr, "time=%s level=%s migration=%s msg=\"%s\"\n", when,
			      level_names[level], migration, quoted);
	else
		(void)fprintf(stderr, "time=%s level=%s msg=\"%s\"\n", when, level_names[level],
			      quoted);
}

void log_line(enum log_level level, const char *migration, const char *fmt, ...)
{
	char text[LINE_BYTES];
	va_list args;

	if (level < sink.least)
		return;
	va_start(args, fmt);
	(void)vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	write_line(level, migration, text);
}

void log_status(enum log_level level, const char *migration, const char *what, const status *st)
{
	char text[LINE_BYTES];

	if (level < sink.least)
		return;
	int used = snprintf(text, sizeof(text), "%s: %s: %s", what,
			    status_code_name(status_code_of(st)), status_message(st));
	for (size_t i = 0; i < status_detail_count(st); i++) {
		struct status_detail detail = status_detail_at(st, i);
		if (used < 0 || (size_t)used >= sizeof(text))
			break;
		used += snprintf(text + used, sizeof(text) - (size_t)used, "; %s: %s", detail.label,
				 detail.text);
	}
	write_line(level, migration, text);
}
