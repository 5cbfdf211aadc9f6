/* SPDX-License-Identifier: Apache-2.0 */
#include "cmd/hauld/config.h"

#include <cjson/cJSON.h>
#include <string.h>

#include "cmd/shared/flags.h"
#include "engine/engine.h"
#include "engine/host/files.h"
#include "rpc/endpoint.h"

enum { FLAGS = 22, PORT_MOST = 65535 };

static const struct flag flags[FLAGS];

static void defaults(struct config *config)
{
	struct engine_config engine;

	engine_config_defaults(&engine);
	*config = (struct config){
	    .local = "ipc:///run/haul/hauld.sock",
	    .state_dir = "/var/lib/haul",
	    .data_ports = "7800-7899",
	    .seal = "auto",
	    .criu = "criu",
	    .log_format = "text",
	    .log_level = "info",
	    .criu_timeout_ms = engine.criu_timeout_ms,
	    .lease_ms = engine.lease_ms,
	    .hold_restored_ms = engine.hold_restored_ms,
	    .hold_images_ms = engine.hold_images_ms,
	};
	if (gethostname(config->hostname, sizeof(config->hostname) - 1) != 0)
		config->hostname[0] = '\0';
	config->node = config->hostname;
}

static const struct flag *member_flag(const char *name)
{
	for (size_t i = 0; i < FLAGS; i++)
		if (strcmp(flags[i].name + 2, name) == 0)
			return &flags[i];
	return NULL;
}

static const char *member_name(const void *self, size_t i)
{
	(void)self;
	return i < FLAGS ? flags[i].name + 2 : NULL;
}

static status *unknown_member(const char *name)
{
	const char *nearest = nearest_word(name, member_name, NULL);
	status *st = status_errorf(STATUS_INVALID_ARGUMENT, "there is no setting \"%.80s\"", name);

	return nearest != NULL ? status_detailf(st, "next", "did you mean \"%s\"?", nearest) : st;
}

static bool is_of_the_command_line(const struct flag *flag)
{
	return strcmp(flag->name, "--config") == 0 || strcmp(flag->name, "--help") == 0 ||
	       strcmp(flag->name, "--version") == 0;
}

static status *read_member(const cJSON *member, struct config *config)
{
	const struct flag *flag = member_flag(member->string);

	if (flag == NULL)
		return unknown_member(member->string);
	if (is_of_the_command_line(flag))
		return status_errorf(STATUS_INVALID_ARGUMENT,
				     "\"%s\" can only be given on the command line",
				     member->string);
	for (const cJSON *other = member->next; other != NULL; other = other->next)
		if (strcmp(other->string, member->string) == 0)
			return status_errorf(STATUS_INVALID_ARGUMENT, "\"%s\" stands there twice",
					     member->string);
	if (flag->kind == FLAG_SWITCH) {
		if (!cJSON_IsBool(member))
			return status_errorf(STATUS_INVALID_ARGUMENT,
					     "\"%s\" must be true or false", member->string);
		*(bool *)((char *)config + flag->offset) = cJSON_IsTrue(member);
		return NULL;
	}
	if (!cJSON_IsString(member))
		return status_errorf(STATUS_INVALID_ARGUMENT, "\"%s\" must be a string (%s)",
				     member->string, flag->value);
	return flag_set_value(flag, config, member->valuestring);
}

static unsigned line_of(const char *text, const char *at)
{
	unsigned line = 1;

	for (; text < at; text++)
		line += *text == '\n';
	return line;
}

static status *read_document(const char *text, size_t size, struct config *config)
{
	const char *end = NULL;
	cJSON *document = cJSON_ParseWithLengthOpts(text, size, &end, 1);

	if (document == NULL)
		return status_errorf(STATUS_INVALID_ARGUMENT, "it is not JSON: look at line %u",
				     end != NULL ? line_of(text, end) : 1);
	config->document = document;
	if (!cJSON_IsObject(document))
		return status_errorf(STATUS_INVALID_ARGUMENT,
				     "it must be one JSON object, { \"node\": … }");
	for (const cJSON *member = document->child; member != NULL; member = member->next) {
		status *st = read_member(member, config);
		if (st != NULL)
			return st;
	}
	return NULL;
}

static status *read_file(const char *path, struct config *config)
{
	scoped(buffer) struct buffer content = {0};
	status *st = files_read(path, LIMIT_CONFIG, &content);

	if (st != NULL)
		return status_wrapf(st, "--config");
	/* NUL ends the text for the parser; one inside would hide what follows it. */
	char *text = malloc(content.size + 1);
	if (text == NULL)
		return status_errorf(STATUS_RESOURCE_EXHAUSTED, "no memory for %s", path);
	if (content.size > 0)
		memcpy(text, content.data, content.size);
	text[content.size] = '\0';
	if (strlen(text) != content.size)
		st = status_errorf(STATUS_INVALID_ARGUMENT, "it is not text");
	else
		st = read_document(text, content.size + 1, config);
	free(text);
	return st != NULL ? status_wrapf(st, "%s", path) : NULL;
}

static status *check_ports(struct config *config)
{
	unsigned low = 0, high = 0;
	char rest = '\0';

	if (strspn(config->data_ports, "0123456789-") != strlen(config->data_ports) ||
	    sscanf(config->data_ports, "%5u-%5u%c", &low, &high, &rest) != 2 || low == 0 ||
	    high > PORT_MOST || low > high)
		return status_errorf(STATUS_INVALID_ARGUMENT,
				     "--data-ports: \"%.40s\" is not a range of ports, for example "
				     "7800-7899",
				     config->data_ports);
	config->port_low = (uint16_t)low;
	config->port_high = (uint16_t)high;
	return NULL;
}

static status *check_local(struct config *config)
{
	struct endpoint endpoint;
	status *st = endpoint_parse(config->local, &endpoint);

	if (st != NULL)
		return status_wrapf(st, "--local");
	if (endpoint.transport != TRANSPORT_IPC)
		return status_errorf(STATUS_INVALID_ARGUMENT,
				     "--local: %s is not an ipc:// URL, for example "
				     "ipc:///run/haul/hauld.sock",
				     config->local);
	(void)snprintf(config->local_dir, sizeof(config->local_dir), "%s",
		       config->local + strlen("ipc://"));
	char *slash = strrchr(config->local_dir, '/');
	if (slash == NULL || slash == config->local_dir)
		return status_errorf(STATUS_INVALID_ARGUMENT,
				     "--local: the socket %s needs a directory of its own, which "
				     "only root may enter",
				     config->local);
	*slash = '\0';
	return NULL;
}

static status *check_listen(struct config *config)
{
	bool has_certificates = config->ca != NULL && config->cert != NULL && config->key != NULL;
	struct endpoint endpoint;

	if (!has_certificates &&
	    (config->ca != NULL || config->cert != NULL || config->key != NULL))
		return status_errorf(STATUS_INVALID_ARGUMENT,
				     "--ca, --cert and --key belong together: %s is missing",
				     config->ca == NULL	    ? "--ca"
				     : config->cert == NULL ? "--cert"
							    : "--key");
	if (config->crl != NULL && !has_certificates)
		return status_errorf(STATUS_INVALID_ARGUMENT,
				     "--crl needs --ca, --cert and --key: without certificates "
				     "there is nothing to revoke");
	if (config->listen == NULL && has_certificates)
		config->listen = "tls+tcp://0.0.0.0:7777";
	if (config->listen == NULL)
		return NULL;
	status *st = endpoint_parse(config->listen, &endpoint);
	if (st != NULL)
		return status_wrapf(st, "--listen");
	if (endpoint.transport == TRANSPORT_IPC)
		return status_errorf(STATUS_INVALID_ARGUMENT,
				     "--listen: %s is a local socket: that is --local",
				     config->listen);
	if (endpoint.transport == TRANSPORT_TCP && !config->insecure)
		return status_detailf(
		    status_errorf(
			STATUS_INVALID_ARGUMENT,
			"--listen: %s would let anyone in: there is no authentication on tcp://",
			config->listen),
		    "next",
		    "use tls+tcp:// with --ca, --cert and --key (haulctl pki makes them); for an "
		    "isolated "
		    "test network there is --insecure");
	if (endpoint.transport == TRANSPORT_TLS && !has_certificates)
		return status_detailf(status_errorf(STATUS_INVALID_ARGUMENT,
						    "--listen: %s needs --ca, --cert and --key",
						    config->listen),
				      "next", "haulctl pki init and haulctl pki issue make them");
	return NULL;
}

static status *check_names(const struct config *config)
{
	if (config->node[0] == '\0' || strlen(config->node) > LIMIT_NAME)
		return status_errorf(STATUS_INVALID_ARGUMENT,
				     "--node: a node's name has 1 to %d bytes", LIMIT_NAME);
	for (const char *at = config->node; *at != '\0'; at++)
		if ((unsigned char)*at <= ' ' || *at == 0x7f)
			return status_errorf(STATUS_INVALID_ARGUMENT,
					     "--node: a node's name has no spaces");
	if (config->state_dir[0] != '/' || strlen(config->state_dir) > LIMIT_URL)
		return status_errorf(
		    STATUS_INVALID_ARGUMENT,
		    "--state-dir: %.80s is not an absolute path of at most %d bytes",
		    config->state_dir, LIMIT_URL);
	if (config->criu_timeout_ms == 0 || config->lease_ms == 0)
		return status_errorf(STATUS_INVALID_ARGUMENT, "%s: must be longer than 0",
				     config->lease_ms == 0 ? "--lease" : "--criu-timeout");
	return NULL;
}

static status *check_all(struct config *config)
{
	static const char *const levels[] = {"debug", "info", "warn", "error"};
	status *st = check_names(config);

	for (size_t i = 0; i < array_len(levels); i++)
		if (strcmp(config->log_level, levels[i]) == 0)
			config->least_level = (enum log_level)i;
	if (st == NULL)
		st = check_ports(config);
	if (st == NULL)
		st = check_local(config);
	return st != NULL ? st : check_listen(config);
}

static status *read_flags(int argc, char *const *argv, struct config *config)
{
	const struct flag_set set = {flags, FLAGS, config};
	struct flag_words words;
	status *st = flags_parse(&set, 1, argc, argv, FLAG_WORDS_MOST, &words);

	if (st == NULL && words.count > 0)
		st = status_errorf(STATUS_INVALID_ARGUMENT, "hauld takes flags only, not \"%.80s\"",
				   words.words[0]);
	return st;
}

status *config_read(int argc, char *const *argv, struct config *ret_config)
{
	struct config config, scratch;

	/* Flags are read twice: first to find the file, then to win over it. */
	defaults(&scratch);
	status *st = read_flags(argc, argv, &scratch);
	if (st != NULL)
		return st;
	defaults(&config);
	if (scratch.file != NULL && !scratch.help && !scratch.version)
		st = read_file(scratch.file, &config);
	if (st == NULL)
		st = read_flags(argc, argv, &config);
	/* The default node name lies inside the structure, which moves. */
	bool is_default_node = config.node == config.hostname;
	if (st == NULL && !config.help && !config.version)
		st = check_all(&config);
	if (st != NULL) {
		config_free(&config);
		return st;
	}
	*ret_config = config;
	if (is_default_node)
		ret_config->node = ret_config->hostname;
	return NULL;
}

void config_free(struct config *config)
{
	cJSON_Delete(config->document);
	config->document = NULL;
}

void config_help(FILE *out)
{
	(void)fprintf(
	    out,
	    "hauld: the engine of one node. It moves running process trees to other nodes, and "
	    "takes\ntheirs in.\n\n"
	    "usage: hauld [flags]\n\n"
	    "example: a node that others may move to and from, with certificates from haulctl "
	    "pki:\n"
	    "  hauld --ca /etc/haul/ca.pem --cert /etc/haul/a.pem --key /etc/haul/a.key\n\n"
	    "flags (durations are written 300ms, 10s, 5m, 2h):\n");
	flags_help(out, flags, FLAGS);
	(void)fprintf(out,
		      "\nThe file of --config holds the same settings, without the dashes:\n"
		      "  { \"node\": \"a\", \"ca\": \"/etc/haul/ca.pem\", \"lease\": \"15s\" }\n"
		      "Flags win over the file. hauld exits with 64 plus the code of its error.\n");
}

#define AT(member) offsetof(struct config, member)
static const struct flag flags[FLAGS] = {
    {"--config", "FILE", FLAG_TEXT, AT(file), "read settings from this JSON file"},
    {"--node", "NAME", FLAG_TEXT, AT(node), "this node's name (default: the hostname)"},
    {"--listen", "URL", FLAG_TEXT, AT(listen),
     "serve other nodes and remote users on tls+tcp://ADDR:PORT (default: "
     "tls+tcp://0.0.0.0:7777 when there are certificates, otherwise nowhere)"},
    {"--local", "URL", FLAG_TEXT, AT(local),
     "the socket for root on this machine (default: ipc:///run/haul/hauld.sock)"},
    {"--state-dir", "DIR", FLAG_TEXT, AT(state_dir),
     "journal, images and logs (default: /var/lib/haul)"},
    {"--data-ports", "LO-HI", FLAG_TEXT, AT(data_ports),
     "TCP ports that memory and images arrive on (default: 7800-7899)"},
    {"--seal", "auto|aes-256-gcm|aes-128-gcm|chacha20-poly1305", FLAG_CHOICE, AT(seal),
     "what encrypts the pipes of migrations (default: auto, what the slower of the two nodes does "
     "fastest)"},
    {"--ca", "FILE", FLAG_TEXT, AT(ca),
     "PEM certificates of the authorities that others' certificates come from"},
    {"--cert", "FILE", FLAG_TEXT, AT(cert), "PEM certificate of this node"},
    {"--key", "FILE", FLAG_TEXT, AT(key), "PEM private key of this node"},
    {"--crl", "FILE", FLAG_TEXT, AT(crl),
     "PEM lists of the certificates that these authorities have revoked, one of each authority: "
     "whoever is on it is not let in (default: nobody is asked for)"},
    {"--criu", "PATH", FLAG_TEXT, AT(criu), "the criu program (default: criu)"},
    {"--log-format", "text|json", FLAG_CHOICE, AT(log_format),
     "how log lines look (default: text)"},
    {"--log-level", "debug|info|warn|error", FLAG_CHOICE, AT(log_level),
     "the least important lines to log (default: info)"},
    {"--policy", "FILE", FLAG_TEXT, AT(policy),
     "JSON file that says which identity may call what (default: the local socket everything, "
     "certified nodes what migrations need)"},
    {"--insecure", NULL, FLAG_SWITCH, AT(insecure),
     "allow --listen tcp://: anyone who can connect can read and replace workloads. For isolated "
     "test "
     "networks only"},
    {"--criu-timeout", "D", FLAG_DURATION, AT(criu_timeout_ms),
     "silence of criu that ends a stage (default: 30s)"},
    {"--lease", "D", FLAG_DURATION, AT(lease_ms),
     "silence of a source after which an unfinished session is given up (default: 15s)"},
    {"--hold-restored", "D", FLAG_DURATION, AT(hold_restored_ms),
     "how long a whole restored copy is kept without word from its source (default: 10m)"},
    {"--hold-images", "D", FLAG_DURATION, AT(hold_images_ms),
     "how long images are kept after a migration (default: 10s)"},
    {"--help", NULL, FLAG_SWITCH, AT(help), "say this"},
    {"--version", NULL, FLAG_SWITCH, AT(version), "say the version"},
};
