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

struct log_message {
	const char *text;
	const struct log_field *fields;
	size_t field_count;
};

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
		       const struct log_message *message)
{
	cJSON *line = cJSON_CreateObject();

	(void)cJSON_AddStringToObject(line, "time", when);
	(void)cJSON_AddStringToObject(line, "level", level_names[level]);
	if (migration != NULL)
		(void)cJSON_AddStringToObject(line, "migration", migration);
	(void)cJSON_AddStringToObject(line, "msg", message->text);
	for (size_t i = 0; i < message->field_count; i++) {
		const struct log_field *field = &message->fields[i];
		if (field->text != NULL)
			(void)cJSON_AddStringToObject(line, field->name, field->text);
		else
			(void)cJSON_AddNumberToObject(line, field->name, (double)field->number);
	}
	char *printed = cJSON_PrintUnformatted(line);
	if (printed != NULL)
		(void)fprintf(stderr, "%s\n", printed);
	cJSON_free(printed);
	cJSON_Delete(line);
}

/* A value without spaces and quotes stands for itself. */
static bool is_plain(const char *text)
{
	for (const char *at = text; *at != '\0'; at++)
		if ((unsigned char)*at <= ' ' || *at == '"' || *at == '\\' || *at == '=')
			return false;
	return text[0] != '\0';
}

static void add_value(char *line, size_t room, const char *name, const char *text)
{
	size_t used = strlen(line);
	char quoted[LINE_BYTES];

	quote(text, quoted, sizeof(quoted));
	if (is_plain(text))
		(void)snprintf(line + used, room - used, " %s=%s", name, text);
	else
		(void)snprintf(line + used, room - used, " %s=\"%s\"", name, quoted);
}

static void write_text(const char *when, enum log_level level, const char *migration,
		       const struct log_message *message)
{
	char line[2 * LINE_BYTES], quoted[LINE_BYTES + 64], number[24];

	quote(message->text, quoted, sizeof(quoted));
	(void)snprintf(line, sizeof(line), "time=%s level=%s%s%s msg=\"%s\"", when,
		       level_names[level], migration != NULL ? " migration=" : "",
		       migration != NULL ? migration : "", quoted);
	for (size_t i = 0; i < message->field_count; i++) {
		const struct log_field *field = &message->fields[i];
		(void)snprintf(number, sizeof(number), "%lld", (long long)field->number);
		add_value(line, sizeof(line), field->name,
			  field->text != NULL ? field->text : number);
	}
	/* One call, so that lines of several threads do not mix. */
	(void)fprintf(stderr, "%s\n", line);
}

static void write_line(enum log_level level, const char *migration,
		       const struct log_message *message)
{
	char when[40];

	timestamp(when);
	if (sink.as_json)
		write_json(when, level, migration, message);
	else
		write_text(when, level, migration, message);
}

void log_fields(enum log_level level, const char *migration, const char *message,
		const struct log_field *fields, size_t count)
{
	if (level >= sink.least)
		write_line(level, migration, &(struct log_message){message, fields, count});
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
	write_line(level, migration, &(struct log_message){.text = text});
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
	write_line(level, migration, &(struct log_message){.text = text});
}
