/* SPDX-License-Identifier: Apache-2.0 */
#include "cmd/hauld/security.h"

#include <string.h>
#include <time.h>

#include "engine/host/files.h"
#include "proto/clock.h"

enum {
	CERTIFICATE_AHEAD_DAYS = 30,
	CRL_AHEAD_DAYS = 7, /* lists live for weeks, not for years */
	MS_A_DAY = 24 * 60 * 60 * 1000,
	MOMENT = 32,
};

static status *load_policy(const struct config *config, struct policy **ret_policy)
{
	scoped(buffer) struct buffer content = {0};

	if (config->policy == NULL)
		return policy_parse(config->insecure ? "{\"insecure\": true}" : NULL, ret_policy);
	status *st = files_read(config->policy, LIMIT_CONFIG, &content);
	if (st != NULL)
		return status_wrapf(st, "--policy");
	char *text = strndup(content.data != NULL ? (const char *)content.data : "", content.size);
	if (text == NULL)
		return status_errorf(STATUS_RESOURCE_EXHAUSTED, "no memory for %s", config->policy);
	st = policy_parse(text, ret_policy);
	free(text);
	return st != NULL ? status_wrapf(st, "--policy %s", config->policy) : NULL;
}

status *security_load(const struct config *config, struct security *ret_security)
{
	const struct credentials_files files = {.ca = config->ca,
						.cert = config->cert,
						.key = config->key,
						.crl = config->crl};
	struct security security = {.config = config};
	status *st = config->ca != NULL ? credentials_load(&files, &security.credentials) : NULL;

	if (st == NULL)
		st = load_policy(config, &security.policy);
	if (st != NULL)
		security_free(&security);
	else
		*ret_security = security;
	return st;
}

/* Peers know the sessions of running migrations by this node's name. */
static status *check_name(const struct security *before, const struct security *now)
{
	struct credentials_info old, new;

	if (now->credentials == NULL)
		return NULL;
	credentials_describe(before->credentials, &old);
	credentials_describe(now->credentials, &new);
	if (strcmp(old.identity, new.identity) == 0)
		return NULL;
	return status_detailf(
	    status_errorf(STATUS_FAILED_PRECONDITION,
			  "the certificate in %s is %s's, and this node is %s to its peers",
			  now->config->cert, new.identity, old.identity),
	    "next", "issue one with %s as its first name; to change the name restart hauld",
	    old.identity);
}

status *security_reload(struct security *security)
{
	scoped(security) struct security fresh = {0};
	status *st = security_load(security->config, &fresh);

	if (st == NULL)
		st = check_name(security, &fresh);
	if (st != NULL)
		return st;
	if (security->credentials != NULL)
		credentials_replace(security->credentials, TAKE(fresh.credentials));
	policy_replace(security->policy, TAKE(fresh.policy));
	return NULL;
}

void security_free(struct security *security)
{
	credentials_free(TAKE(security->credentials));
	policy_free(TAKE(security->policy));
}

bool security_notice(const char *what, int64_t ends_unix_ms, int64_t now_unix_ms, int ahead_days,
		     char ret_text[NOTICE_TEXT])
{
	int64_t left_ms = ends_unix_ms - now_unix_ms;
	time_t seconds = (time_t)(ends_unix_ms / 1000);
	char moment[MOMENT] = "";
	struct tm parts;

	if (ends_unix_ms == 0 || left_ms > (int64_t)ahead_days * MS_A_DAY)
		return false;
	if (gmtime_r(&seconds, &parts) != NULL)
		(void)strftime(moment, sizeof(moment), "%Y-%m-%d %H:%M:%S UTC", &parts);
	if (left_ms > 0)
		(void)snprintf(ret_text, NOTICE_TEXT,
			       "%s ends in %d days, at %s: put a new one in its place and send "
			       "SIGHUP",
			       what, (int)(left_ms / MS_A_DAY), moment);
	else
		(void)snprintf(ret_text, NOTICE_TEXT,
			       "%s ended at %s: no new connection with another node is possible "
			       "until there is a new one and a SIGHUP",
			       what, moment);
	return true;
}

static void warn_of(const char *what, const char *file, int64_t ends_unix_ms, int ahead_days)
{
	char text[NOTICE_TEXT], named[NOTICE_TEXT / 2];
	int64_t now = clock_unix_ms();

	(void)snprintf(named, sizeof(named), "%s %.180s", what, file);
	if (security_notice(named, ends_unix_ms, now, ahead_days, text))
		log_line(ends_unix_ms > now ? LOG_LEVEL_WARN : LOG_LEVEL_ERROR, NULL, "%s", text);
}

void security_warn(const struct security *security)
{
	const struct config *config = security->config;
	struct credentials_info info;

	if (security->credentials == NULL)
		return;
	credentials_describe(security->credentials, &info);
	warn_of("the certificate", config->cert, info.expire_unix_ms, CERTIFICATE_AHEAD_DAYS);
	if (config->crl != NULL)
		warn_of("the revocation list", config->crl, info.crl_expire_unix_ms,
			CRL_AHEAD_DAYS);
}
