/* SPDX-License-Identifier: Apache-2.0 */
/* One heap block for the object, one for each text. The object without memory is static and
 * const: every function that would change or free it leaves it alone instead. */
#include "proto/status.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "proto/limits.h"

struct status {
	enum status_code code;
	char *message;
	unsigned detail_count;
	struct {
		char *label;
		char *text;
	} details[LIMIT_STATUS_DETAILS];
};

static char no_memory_text[] = "out of memory";
static const struct status no_memory = {.code = STATUS_RESOURCE_EXHAUSTED,
					.message = no_memory_text};

/* clang-format off */
static const struct {
	int err;
	enum status_code code;
} errno_codes[] = {
	{EPERM,         STATUS_PERMISSION_DENIED},
	{EACCES,        STATUS_PERMISSION_DENIED},
	{EROFS,         STATUS_PERMISSION_DENIED},
	{ENOENT,        STATUS_NOT_FOUND},
	{ESRCH,         STATUS_NOT_FOUND},
	{ENODEV,        STATUS_NOT_FOUND},
	{ENXIO,         STATUS_NOT_FOUND},
	{EEXIST,        STATUS_ALREADY_EXISTS},
	{EADDRINUSE,    STATUS_ALREADY_EXISTS},
	{EINVAL,        STATUS_INVALID_ARGUMENT},
	{ENAMETOOLONG,  STATUS_INVALID_ARGUMENT},
	{ENOTDIR,       STATUS_FAILED_PRECONDITION},
	{EISDIR,        STATUS_FAILED_PRECONDITION},
	{ELOOP,         STATUS_FAILED_PRECONDITION},
	{EBUSY,         STATUS_FAILED_PRECONDITION},
	{ENOTEMPTY,     STATUS_FAILED_PRECONDITION},
	{EXDEV,         STATUS_FAILED_PRECONDITION},
	{ENOMEM,        STATUS_RESOURCE_EXHAUSTED},
	{ENOSPC,        STATUS_RESOURCE_EXHAUSTED},
	{EDQUOT,        STATUS_RESOURCE_EXHAUSTED},
	{EMFILE,        STATUS_RESOURCE_EXHAUSTED},
	{ENFILE,        STATUS_RESOURCE_EXHAUSTED},
	{ENOBUFS,       STATUS_RESOURCE_EXHAUSTED},
	{EMSGSIZE,      STATUS_RESOURCE_EXHAUSTED},
	{EFBIG,         STATUS_OUT_OF_RANGE},
	{ERANGE,        STATUS_OUT_OF_RANGE},
	{EOVERFLOW,     STATUS_OUT_OF_RANGE},
	{ENOSYS,        STATUS_UNIMPLEMENTED},
	{EOPNOTSUPP,    STATUS_UNIMPLEMENTED},
	{EAGAIN,        STATUS_UNAVAILABLE},
	{EINTR,         STATUS_UNAVAILABLE},
	{ECONNREFUSED,  STATUS_UNAVAILABLE},
	{ECONNRESET,    STATUS_UNAVAILABLE},
	{ECONNABORTED,  STATUS_UNAVAILABLE},
	{EPIPE,         STATUS_UNAVAILABLE},
	{ENOTCONN,      STATUS_UNAVAILABLE},
	{EHOSTUNREACH,  STATUS_UNAVAILABLE},
	{ENETUNREACH,   STATUS_UNAVAILABLE},
	{ENETDOWN,      STATUS_UNAVAILABLE},
	{EADDRNOTAVAIL, STATUS_UNAVAILABLE},
	{ETIMEDOUT,     STATUS_DEADLINE_EXCEEDED},
	{ECANCELED,     STATUS_CANCELLED},
	{EIO,           STATUS_DATA_LOSS},
	{EBADMSG,       STATUS_DATA_LOSS},
};
/* clang-format on */

/* The static object travels as `status *` like the others; nothing writes through it. */
static status *out_of_memory(void)
{
	union {
		const status *in;
		status *out;
	} cast = {.in = &no_memory};
	return cast.out;
}

static bool is_fixed(const status *st)
{
	return st == NULL || st == &no_memory;
}

/* Cuts a text to the limit without ending inside a UTF-8 character. */
static void cut_text(char *text)
{
	size_t length = strlen(text);
	if (length <= LIMIT_STATUS_TEXT)
		return;
	length = LIMIT_STATUS_TEXT;
	while (length > 0 && ((unsigned char)text[length] & 0xC0) == 0x80)
		length--;
	text[length] = '\0';
}

static char *format_text(const char *fmt, va_list args) format_like(1, 0);
static char *format_text(const char *fmt, va_list args)
{
	char *text = NULL;
	if (vasprintf(&text, fmt, args) < 0)
		return NULL;
	cut_text(text);
	return text;
}

status *status_verrorf(enum status_code code, const char *fmt, va_list args)
{
	assert(code != STATUS_OK);
	status *st = calloc(1, sizeof(*st));
	if (st == NULL)
		return out_of_memory();
	st->code = code;
	st->message = format_text(fmt, args);
	if (st->message == NULL) {
		free(st);
		return out_of_memory();
	}
	return st;
}

status *status_errorf(enum status_code code, const char *fmt, ...)
{
	va_list args;
	va_start(args, fmt);
	status *st = status_verrorf(code, fmt, args);
	va_end(args);
	return st;
}

static enum status_code code_of_errno(int err)
{
	for (size_t i = 0; i < array_len(errno_codes); i++)
		if (errno_codes[i].err == err)
			return errno_codes[i].code;
	return STATUS_UNKNOWN;
}

status *status_errnof(int err, const char *fmt, ...)
{
	va_list args;
	va_start(args, fmt);
	char *text = format_text(fmt, args);
	va_end(args);
	if (text == NULL)
		return out_of_memory();
	char buffer[128];
	status *st = status_errorf(code_of_errno(err), "%s: %s", text,
				   strerror_r(err, buffer, sizeof(buffer)));
	free(text);
	return st;
}

status *status_wrapf(status *cause, const char *fmt, ...)
{
	if (is_fixed(cause))
		return cause;
	va_list args;
	va_start(args, fmt);
	char *outer = format_text(fmt, args);
	va_end(args);
	char *joined = NULL;
	if (outer == NULL || asprintf(&joined, "%s: %s", outer, cause->message) < 0) {
		free(outer);
		return cause;
	}
	free(outer);
	free(cause->message);
	cause->message = joined;
	cut_text(cause->message);
	return cause;
}

status *status_recode(status *st, enum status_code code)
{
	assert(code != STATUS_OK);
	if (!is_fixed(st))
		st->code = code;
	return st;
}

status *status_detailf(status *st, const char *label, const char *fmt, ...)
{
	if (is_fixed(st) || st->detail_count == LIMIT_STATUS_DETAILS)
		return st;
	va_list args;
	va_start(args, fmt);
	char *text = format_text(fmt, args);
	va_end(args);
	char *name = strndup(label, LIMIT_NAME);
	if (text == NULL || name == NULL) {
		free(text);
		free(name);
		return st;
	}
	st->details[st->detail_count].label = name;
	st->details[st->detail_count].text = text;
	st->detail_count++;
	return st;
}

status *status_copy(const status *st)
{
	if (st == NULL)
		return NULL;
	if (is_fixed(st))
		return out_of_memory();
	status *copy = status_errorf(st->code, "%s", st->message);
	for (unsigned i = 0; i < st->detail_count; i++)
		copy = status_detailf(copy, st->details[i].label, "%s", st->details[i].text);
	return copy;
}

status *status_first(status *first, status *second)
{
	if (first == NULL)
		return second;
	status_free(second);
	return first;
}

void status_free(status *st)
{
	if (is_fixed(st))
		return;
	for (unsigned i = 0; i < st->detail_count; i++) {
		free(st->details[i].label);
		free(st->details[i].text);
	}
	free(st->message);
	free(st);
}

enum status_code status_code_of(const status *st)
{
	return st == NULL ? STATUS_OK : st->code;
}

const char *status_message(const status *st)
{
	return st == NULL ? "OK" : st->message;
}

size_t status_detail_count(const status *st)
{
	return st == NULL ? 0 : st->detail_count;
}

struct status_detail status_detail_at(const status *st, size_t index)
{
	assert(index < status_detail_count(st));
	return (struct status_detail){st->details[index].label, st->details[index].text};
}

const char *status_detail_find(const status *st, const char *label)
{
	for (size_t i = 0; i < status_detail_count(st); i++)
		if (strcmp(st->details[i].label, label) == 0)
			return st->details[i].text;
	return NULL;
}

const char *status_code_name(enum status_code code)
{
	switch (code) {
#define X(name, value)                                                                             \
	case STATUS_##name:                                                                        \
		return #name;
		STATUS_CODES(X)
#undef X
	}
	return "UNKNOWN";
}

enum status_code status_code_from_wire(uint32_t number)
{
	return number <= STATUS_UNAUTHENTICATED ? (enum status_code)number : STATUS_UNKNOWN;
}
