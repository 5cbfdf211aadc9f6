/* SPDX-License-Identifier: Apache-2.0 */
#include "rpc/endpoint.h"

#include <errno.h>
#include <nng/nng.h>
#include <openssl/crypto.h>
#include <stdio.h>
#include <string.h>
#include <sys/un.h>

#include "rpc/tls_engine.h"

status *rpc_start(void)
{
	/* nng's reaper still frees TLS configurations while the process ends: OpenSSL must not take
	 * itself down from under it. */
	(void)OPENSSL_init_crypto(OPENSSL_INIT_NO_ATEXIT, NULL);
	int major = 0;
	int minor = 0;
	int patch = 0;
	const char *version = nng_version();
	if (sscanf(version, "%d.%d.%d", &major, &minor, &patch) < 2)
		return status_errorf(STATUS_FAILED_PRECONDITION,
				     "libnng says its version is '%s', which cannot be understood",
				     version);
	if (major != 1 || minor < 10 || (minor == 12 && patch == 0))
		return status_errorf(
		    STATUS_FAILED_PRECONDITION,
		    "libnng %s is unfit: before 1.10 one unauthenticated connection can "
		    "end a listener for good, in 1.12.0 a listener dies under reconnects; "
		    "install nng 1.10 or 1.11",
		    version);
	if (major != NNG_MAJOR_VERSION || minor != NNG_MINOR_VERSION)
		return status_errorf(
		    STATUS_FAILED_PRECONDITION,
		    "this program was built with nng %d.%d but runs with %s, whose TLS "
		    "interface may differ; rebuild it or install the other libnng",
		    NNG_MAJOR_VERSION, NNG_MINOR_VERSION, version);
	return tls_engine_register();
}

static status *parse_port(const char *url, const char *text, uint16_t *ret_port)
{
	char *end = NULL;
	errno = 0;
	unsigned long port = strtoul(text, &end, 10);
	if (text[0] < '0' || text[0] > '9' || errno != 0 || *end != '\0' || port > UINT16_MAX)
		return status_errorf(STATUS_INVALID_ARGUMENT,
				     "the address '%s' does not end in a port (0 to 65535)", url);
	*ret_port = (uint16_t)port;
	return NULL;
}

static bool is_host_text(const char *host)
{
	const char *allowed = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_:%";
	return host[0] != '\0' && host[strspn(host, allowed)] == '\0';
}

/* `rest` is "host:port" or "[v6]:port". */
static status *parse_host_port(const char *rest, struct endpoint *endpoint)
{
	const char *host = rest;
	const char *colon = strrchr(rest, ':');
	size_t length = colon != NULL ? (size_t)(colon - rest) : 0;
	if (colon != NULL && rest[0] == '[' && length > 2 && rest[length - 1] == ']') {
		host++;
		length -= 2;
	} else if (colon != NULL && memchr(rest, ':', length) != NULL) {
		return status_errorf(STATUS_INVALID_ARGUMENT,
				     "the IPv6 address in '%s' needs brackets: [::1]:port",
				     endpoint->url);
	}
	if (length == 0 || length > LIMIT_NAME)
		return status_errorf(STATUS_INVALID_ARGUMENT,
				     "the address '%s' is not of the form scheme://host:port",
				     endpoint->url);
	memcpy(endpoint->host, host, length);
	endpoint->host[length] = '\0';
	if (!is_host_text(endpoint->host))
		return status_errorf(STATUS_INVALID_ARGUMENT,
				     "the host '%s' in '%s' has characters no host has",
				     endpoint->host, endpoint->url);
	return parse_port(endpoint->url, colon + 1, &endpoint->port);
}

static status *parse_path(const char *rest, struct endpoint *endpoint)
{
	const struct sockaddr_un *un = NULL;
	if (rest[0] != '/')
		return status_errorf(STATUS_INVALID_ARGUMENT,
				     "the address '%s' needs an absolute path: ipc:///path",
				     endpoint->url);
	if (strlen(rest) >= sizeof(un->sun_path))
		return status_errorf(STATUS_INVALID_ARGUMENT,
				     "the path in '%s' is longer than a socket's may be (%zu)",
				     endpoint->url, sizeof(un->sun_path) - 1);
	memcpy(endpoint->host, rest, strlen(rest) + 1);
	return NULL;
}

status *endpoint_parse(const char *url, struct endpoint *ret_endpoint)
{
	static const struct {
		const char *prefix;
		enum transport transport;
	} schemes[] = {
	    {"ipc://", TRANSPORT_IPC},
	    {"tls+tcp://", TRANSPORT_TLS},
	    {"tcp://", TRANSPORT_TCP},
	};
	struct endpoint endpoint = {0};
	if (url == NULL || strlen(url) > LIMIT_URL)
		return status_errorf(STATUS_INVALID_ARGUMENT,
				     "an address is missing or longer than %d characters",
				     LIMIT_URL);
	memcpy(endpoint.url, url, strlen(url) + 1);
	for (size_t i = 0; i < array_len(schemes); i++) {
		size_t length = strlen(schemes[i].prefix);
		if (strncmp(url, schemes[i].prefix, length) != 0)
			continue;
		endpoint.transport = schemes[i].transport;
		status *st = endpoint.transport == TRANSPORT_IPC
				 ? parse_path(url + length, &endpoint)
				 : parse_host_port(url + length, &endpoint);
		if (st == NULL)
			*ret_endpoint = endpoint;
		return st;
	}
	return status_errorf(STATUS_INVALID_ARGUMENT,
			     "the address '%s' is none of tls+tcp://host:port, tcp://host:port and "
			     "ipc:///path",
			     url);
}

const char *rpc_nng_version(void)
{
	return nng_version();
}

const char *rpc_openssl_version(void)
{
	return OpenSSL_version(OPENSSL_VERSION_STRING);
}
