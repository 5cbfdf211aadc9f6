/* SPDX-License-Identifier: Apache-2.0 */
/* cJSON parses; what it lets pass is looked at before: nesting, control characters, NUL, UTF-8. */
#include <stdio.h>
#include <string.h>

#include "proto/json_internal.h"
#include "proto/limits.h"

/* Length of the character at the start, 0 when it is none (RFC 3629). */
static size_t utf8_length(const uint8_t *at, size_t left)
{
	static const struct {
		uint8_t first_low, first_high, second_low, second_high;
		size_t length;
	} rows[] = {
	    {0x00, 0x7f, 0, 0, 1},	 {0xc2, 0xdf, 0x80, 0xbf, 2}, {0xe0, 0xe0, 0xa0, 0xbf, 3},
	    {0xe1, 0xec, 0x80, 0xbf, 3}, {0xed, 0xed, 0x80, 0x9f, 3}, {0xee, 0xef, 0x80, 0xbf, 3},
	    {0xf0, 0xf0, 0x90, 0xbf, 4}, {0xf1, 0xf3, 0x80, 0xbf, 4}, {0xf4, 0xf4, 0x80, 0x8f, 4},
	};

	for (size_t i = 0; i < array_len(rows); i++) {
		if (at[0] < rows[i].first_low || at[0] > rows[i].first_high)
			continue;
		if (left < rows[i].length)
			return 0;
		if (rows[i].length > 1 &&
		    (at[1] < rows[i].second_low || at[1] > rows[i].second_high))
			return 0;
		for (size_t j = 2; j < rows[i].length; j++)
			if ((at[j] & 0xc0) != 0x80)
				return 0;
		return rows[i].length;
	}
	return 0;
}

bool is_text(const uint8_t *data, size_t size)
{
	for (size_t at = 0; at < size;) {
		size_t length = data[at] != 0 ? utf8_length(data + at, size - at) : 0;
		if (length == 0)
			return false;
		at += length;
	}
	return true;
}

static status *wrong_at(size_t at, const char *what)
{
	return status_errorf(STATUS_INVALID_ARGUMENT, "not valid JSON at byte %zu: %s", at, what);
}

struct scan {
	size_t depth;
	bool is_in_text, is_escaped;
};

/* What is wrong with the character, or NULL. */
static const char *scan_character(struct scan *scan, const char *at, size_t left)
{
	if (scan->is_escaped) {
		scan->is_escaped = false;
		if (left >= 5 && strncmp(at, "u0000", 5) == 0)
			return "a text with a NUL";
	} else if (scan->is_in_text) {
		scan->is_escaped = *at == '\\';
		scan->is_in_text = *at != '"';
		if ((unsigned char)*at < ' ')
			return "a control character in a text";
	} else if (*at == '"') {
		scan->is_in_text = true;
	} else if (*at == '[' || *at == '{') {
		if (++scan->depth > LIMIT_JSON_DEPTH)
			return "nested too deeply";
	} else if (*at == ']' || *at == '}') {
		scan->depth -= scan->depth > 0;
	}
	return NULL;
}

static status *check_text(const char *text, size_t size)
{
	struct scan scan = {0};

	if (size > LIMIT_UNARY_BYTES)
		return status_errorf(STATUS_INVALID_ARGUMENT,
				     "a JSON of %zu bytes is over the limit of %d", size,
				     LIMIT_UNARY_BYTES);
	for (size_t at = 0; at < size;) {
		size_t length =
		    text[at] != '\0' ? utf8_length((const uint8_t *)text + at, size - at) : 0;
		if (length == 0)
			return wrong_at(at, "it is not UTF-8");
		const char *trouble = scan_character(&scan, text + at, size - at);
		if (trouble != NULL)
			return wrong_at(at, trouble);
		at += length;
	}
	return NULL;
}

status *json_parse(const char *text, size_t size, cJSON **ret_json)
{
	const char *end = NULL;
	status *st = check_text(text, size);

	if (st != NULL)
		return st;
	cJSON *json = cJSON_ParseWithLengthOpts(text, size, &end, false);
	if (json == NULL)
		return wrong_at(end != NULL ? (size_t)(end - text) : 0,
				"a value is missing or cut off");
	while (end < text + size && strchr(" \t\r\n", *end) != NULL)
		end++;
	if (end < text + size) {
		cJSON_Delete(json);
		return wrong_at((size_t)(end - text), "something follows the value");
	}
	*ret_json = json;
	return NULL;
}

static const char base64_letters[] =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

char *base64_encode(const uint8_t *data, size_t size)
{
	char *text = malloc((size + 2) / 3 * 4 + 1), *to = text;

	if (text == NULL)
		return NULL;
	for (size_t at = 0; at < size; at += 3) {
		size_t left = size - at;
		uint32_t bits = (uint32_t)data[at] << 16;
		bits |= left > 1 ? (uint32_t)data[at + 1] << 8 : 0;
		bits |= left > 2 ? data[at + 2] : 0;
		*to++ = base64_letters[bits >> 18];
		*to++ = base64_letters[bits >> 12 & 63];
		*to++ = left > 1 ? base64_letters[bits >> 6 & 63] : '=';
		*to++ = left > 2 ? base64_letters[bits & 63] : '=';
	}
	*to = '\0';
	return text;
}

static int base64_value(char letter)
{
	if (letter == '-')
		return 62;
	if (letter == '_')
		return 63;
	const char *found = letter != '\0' ? strchr(base64_letters, letter) : NULL;
	return found != NULL ? (int)(found - base64_letters) : -1;
}

bool base64_decode(const char *text, struct buffer *ret_bytes)
{
	size_t length = strlen(text), used = 0, padding = 0;
	uint32_t bits = 0;

	while (padding < 2 && padding < length && text[length - padding - 1] == '=')
		padding++;
	if (padding > 0 && length % 4 != 0)
		return false;
	length -= padding;
	uint8_t *bytes = length % 4 != 1 ? malloc(length / 4 * 3 + 3) : NULL;
	for (size_t i = 0; bytes != NULL && i < length; i++) {
		int value = base64_value(text[i]);
		if (value < 0) {
			free(bytes);
			return false;
		}
		bits = bits << 6 | (uint32_t)value;
		if (i % 4 > 0)
			bytes[used++] = (uint8_t)(bits >> (6 - 2 * (i % 4)));
	}
	if (bytes != NULL)
		*ret_bytes = (struct buffer){bytes, used};
	return bytes != NULL;
}
