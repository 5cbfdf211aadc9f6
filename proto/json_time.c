/* SPDX-License-Identifier: Apache-2.0 */
/* google.protobuf.Timestamp as RFC 3339, Duration as "1.5s". The calendar is the proleptic
 * Gregorian one; there are no leap seconds. */
#include <stdio.h>
#include <string.h>

#include "proto/json_internal.h"

#define SECONDS_FIRST (-62135596800) /* 0001-01-01T00:00:00Z */
#define SECONDS_LAST 253402300799    /* 9999-12-31T23:59:59Z */
#define DURATION_MOST 315576000000   /* 10 000 years */
enum { NANOS = 1000000000, DAY_S = 86400, DAYS_TO_EPOCH = 719468, ERA_DAYS = 146097 };

struct date {
	int64_t year;
	int month, day;
};

/* Days since 1970-01-01 to a date and back (Howard Hinnant's algorithms). */
static struct date date_of_days(int64_t days)
{
	days += DAYS_TO_EPOCH;
	int64_t era = (days >= 0 ? days : days - (ERA_DAYS - 1)) / ERA_DAYS;
	int64_t of_era = days - era * ERA_DAYS;
	int64_t year = (of_era - of_era / 1460 + of_era / 36524 - of_era / 146096) / 365;
	int64_t of_year = of_era - (365 * year + year / 4 - year / 100);
	int64_t month = (5 * of_year + 2) / 153;
	struct date date = {.day = (int)(of_year - (153 * month + 2) / 5 + 1),
			    .month = (int)(month < 10 ? month + 3 : month - 9)};

	date.year = year + era * 400 + (date.month <= 2 ? 1 : 0);
	return date;
}

static int64_t days_of_date(const struct date *date)
{
	int64_t year = date->year - (date->month <= 2 ? 1 : 0);
	int64_t era = (year >= 0 ? year : year - 399) / 400;
	int64_t of_era_year = year - era * 400;
	int64_t of_year =
	    (153 * (date->month > 2 ? date->month - 3 : date->month + 9) + 2) / 5 + date->day - 1;
	int64_t of_era = of_era_year * 365 + of_era_year / 4 - of_era_year / 100 + of_year;

	return era * ERA_DAYS + of_era - DAYS_TO_EPOCH;
}

/* ".021", with 3, 6 or 9 digits; "" for none. */
static void fraction_text(int32_t nanos, char ret_text[16])
{
	if (nanos == 0)
		ret_text[0] = '\0';
	else if (nanos % 1000000 == 0)
		(void)snprintf(ret_text, 16, ".%03d", nanos / 1000000);
	else if (nanos % 1000 == 0)
		(void)snprintf(ret_text, 16, ".%06d", nanos / 1000);
	else
		(void)snprintf(ret_text, 16, ".%09d", nanos);
}

static bool is_in_range(enum special kind, const struct moment *moment)
{
	if (kind == SPECIAL_TIMESTAMP)
		return moment->seconds >= SECONDS_FIRST && moment->seconds <= SECONDS_LAST &&
		       moment->nanos >= 0 && moment->nanos < NANOS;
	return moment->seconds >= -DURATION_MOST && moment->seconds <= DURATION_MOST &&
	       moment->nanos > -NANOS && moment->nanos < NANOS &&
	       (moment->seconds <= 0 || moment->nanos >= 0) &&
	       (moment->seconds >= 0 || moment->nanos <= 0);
}

static status *out_of_range(enum special kind)
{
	return status_errorf(STATUS_INVALID_ARGUMENT, "a %s is out of its range",
			     kind == SPECIAL_TIMESTAMP ? "Timestamp" : "Duration");
}

status *moment_to_text(enum special kind, const struct moment *moment, char **ret_text)
{
	char fraction[16], *text = NULL;
	int printed;

	if (!is_in_range(kind, moment))
		return out_of_range(kind);
	if (kind == SPECIAL_DURATION) {
		bool is_negative = moment->seconds < 0 || moment->nanos < 0;
		fraction_text(is_negative ? -moment->nanos : moment->nanos, fraction);
		printed = asprintf(&text, "%s%jd%ss", is_negative ? "-" : "",
				   (intmax_t)(is_negative ? -moment->seconds : moment->seconds),
				   fraction);
	} else {
		int64_t days = (moment->seconds - SECONDS_FIRST) / DAY_S + SECONDS_FIRST / DAY_S;
		int of_day = (int)(moment->seconds - days * DAY_S);
		struct date date = date_of_days(days);
		fraction_text(moment->nanos, fraction);
		printed =
		    asprintf(&text, "%04d-%02d-%02dT%02d:%02d:%02d%sZ", (int)date.year, date.month,
			     date.day, of_day / 3600, of_day / 60 % 60, of_day % 60, fraction);
	}
	if (printed < 0)
		return status_errorf(STATUS_RESOURCE_EXHAUSTED, "no memory for a text");
	*ret_text = text;
	return NULL;
}

/* Takes so many digits. */
static bool take_digits(const char **at, size_t least, size_t most, int64_t *ret_value)
{
	int64_t value = 0;
	size_t count = 0;

	for (; count < most && **at >= '0' && **at <= '9'; count++, ++*at)
		value = value * 10 + (**at - '0');
	*ret_value = value;
	return count >= least;
}

static bool take_character(const char **at, char character)
{
	bool is_there = **at == character;

	*at += is_there;
	return is_there;
}

/* ".5": 1 to 9 digits, or nothing. */
static bool take_fraction(const char **at, int32_t *ret_nanos)
{
	int64_t value = 0;

	*ret_nanos = 0;
	if (!take_character(at, '.'))
		return true;
	const char *start = *at;
	if (!take_digits(at, 1, 9, &value))
		return false;
	for (size_t digits = (size_t)(*at - start); digits < 9; digits++)
		value *= 10;
	*ret_nanos = (int32_t)value;
	return true;
}

static bool read_duration(const char *at, struct moment *ret_moment)
{
	bool is_negative = take_character(&at, '-');

	if (!take_digits(&at, 1, 12, &ret_moment->seconds) ||
	    !take_fraction(&at, &ret_moment->nanos) || strcmp(at, "s") != 0)
		return false;
	if (is_negative) {
		ret_moment->seconds = -ret_moment->seconds;
		ret_moment->nanos = -ret_moment->nanos;
	}
	return true;
}

static int days_of_month(const struct date *date)
{
	static const int days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
	bool is_leap = date->year % 4 == 0 && (date->year % 100 != 0 || date->year % 400 == 0);

	return date->month == 2 && is_leap ? 29 : days[date->month - 1];
}

/* "Z", or an offset such as "+01:30". */
static bool take_zone(const char **at, int64_t *ret_seconds)
{
	int64_t hours = 0, minutes = 0;

	*ret_seconds = 0;
	if (take_character(at, 'Z'))
		return true;
	bool is_negative = take_character(at, '-');
	if (!is_negative && !take_character(at, '+'))
		return false;
	if (!take_digits(at, 2, 2, &hours) || !take_character(at, ':') ||
	    !take_digits(at, 2, 2, &minutes) || hours > 23 || minutes > 59)
		return false;
	*ret_seconds = (hours * 60 + minutes) * (is_negative ? -60 : 60);
	return true;
}

static bool take_date(const char **at, int64_t *ret_seconds)
{
	int64_t month = 0, day = 0;
	struct date date = {0};

	if (!take_digits(at, 4, 4, &date.year) || !take_character(at, '-') ||
	    !take_digits(at, 2, 2, &month) || !take_character(at, '-') ||
	    !take_digits(at, 2, 2, &day) || month < 1 || month > 12)
		return false;
	date.month = (int)month;
	date.day = (int)day;
	*ret_seconds = days_of_date(&date) * DAY_S;
	return date.year > 0 && day >= 1 && day <= days_of_month(&date);
}

static bool read_timestamp(const char *at, struct moment *ret_moment)
{
	int64_t date = 0, hour = 0, minute = 0, second = 0, zone = 0;

	if (!take_date(&at, &date) || !take_character(&at, 'T') || !take_digits(&at, 2, 2, &hour) ||
	    !take_character(&at, ':') || !take_digits(&at, 2, 2, &minute) ||
	    !take_character(&at, ':') || !take_digits(&at, 2, 2, &second) ||
	    !take_fraction(&at, &ret_moment->nanos) || !take_zone(&at, &zone) || *at != '\0')
		return false;
	ret_moment->seconds = date + hour * 3600 + minute * 60 + second - zone;
	return hour < 24 && minute < 60 && second < 60;
}

status *moment_from_text(enum special kind, const char *text, struct moment *ret_moment)
{
	struct moment moment = {0};
	bool is_read = kind == SPECIAL_TIMESTAMP ? read_timestamp(text, &moment)
						 : read_duration(text, &moment);

	if (!is_read)
		return status_errorf(STATUS_INVALID_ARGUMENT, "\"%.60s\" is not a %s", text,
				     kind == SPECIAL_TIMESTAMP
					 ? "Timestamp, like \"2026-01-31T10:00:20.021Z\""
					 : "Duration, like \"1.5s\"");
	if (!is_in_range(kind, &moment))
		return out_of_range(kind);
	*ret_moment = moment;
	return NULL;
}
