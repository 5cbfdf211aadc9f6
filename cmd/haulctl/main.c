/* SPDX-License-Identifier: Apache-2.0 */
/* haulctl: finds the subcommand, reads its flags, runs it. */
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "cmd/haulctl/ctl.h"
#include "cmd/haulctl/render.h"

enum { COMMANDS = 24, GLOBAL_FLAGS = 9, NAME = 64 };

static const struct command *const commands[COMMANDS];
static const struct flag global_flags[GLOBAL_FLAGS];

static void help(FILE *out)
{
	(void)fprintf(
	    out, "haulctl: moves running process trees between nodes, and tells how it goes.\n\n"
		 "usage: haulctl [flags] SUBCOMMAND [arguments]\n\n"
		 "example: move process 4711 with its children to the node b\n"
		 "  haulctl migrate pid:4711 --to tls+tcp://b.example.org:7777\n\n"
		 "subcommands (haulctl SUBCOMMAND --help teaches each):\n");
	for (size_t i = 0; i < COMMANDS; i++)
		(void)fprintf(out, "  %-14s %s\n", commands[i]->name, commands[i]->summary);
	(void)fprintf(out, "\nflags, before or after the subcommand:\n");
	flags_help(out, global_flags, GLOBAL_FLAGS);
	(void)fprintf(out,
		      "\nhaulctl exits with 0, or with 64 plus the code of the error it prints.\n");
}

static void help_command(FILE *out, const struct command *command)
{
	(void)fprintf(out, "usage: haulctl %s %s%s\n\n%s", command->name, command->arguments,
		      command->flag_count > 0 ? " [flags]" : "", command->text);
	if (command->flag_count > 0) {
		(void)fprintf(out, "\nflags (durations are written 300ms, 10s, 5m):\n");
		flags_help(out, command->flags, command->flag_count);
	}
	(void)fprintf(out, "\nhaulctl --help tells the flags that all subcommands have.\n");
}

static void help_group(FILE *out, const char *group)
{
	(void)fprintf(out, "usage: haulctl %s SUBCOMMAND …\n\n", group);
	for (size_t i = 0; i < COMMANDS; i++)
		if (strncmp(commands[i]->name, group, strlen(group)) == 0)
			(void)fprintf(out, "  haulctl %s %s\n      %s\n", commands[i]->name,
				      commands[i]->arguments, commands[i]->summary);
	(void)fprintf(out, "\nexample: an authority, and a certificate for the node b\n"
			   "  haulctl pki init /root/haul-pki\n"
			   "  haulctl pki issue /root/haul-pki b --san DNS:b.example.org\n");
}

static const char *command_name(const void *self, size_t i)
{
	(void)self;
	return i < COMMANDS ? commands[i]->name : NULL;
}

static const struct command *find_command(const char *name)
{
	for (size_t i = 0; i < COMMANDS; i++)
		if (strcmp(commands[i]->name, name) == 0)
			return commands[i];
	return NULL;
}

static status *unknown_command(const char *name)
{
	const char *nearest = nearest_word(name, command_name, NULL);
	status *st =
	    status_errorf(STATUS_INVALID_ARGUMENT, "there is no subcommand \"%.60s\"", name);

	if (nearest != NULL)
		return status_detailf(st, "next", "did you mean haulctl %s?", nearest);
	return status_detailf(st, "next", "haulctl --help lists them");
}

static status *check_words(const struct command *command, const struct flag_words *words)
{
	if (words->count == command->word_count)
		return NULL;
	if (words->count > command->word_count)
		return status_errorf(STATUS_INVALID_ARGUMENT,
				     "\"%.80s\" is one argument too many: haulctl %s %s",
				     words->words[command->word_count], command->name,
				     command->arguments);
	return status_errorf(STATUS_INVALID_ARGUMENT, "an argument is missing: haulctl %s %s",
			     command->name, command->arguments);
}

static void block_signals(void)
{
	sigset_t signals;

	(void)sigemptyset(&signals);
	(void)sigaddset(&signals, SIGINT);
	(void)sigaddset(&signals, SIGTERM);
	(void)sigprocmask(SIG_BLOCK, &signals, NULL);
}

static status *run_command(struct ctl *ctl, const struct command *command, int argc, char **argv,
			   int *ret_exit)
{
	const struct flag_set sets[] = {{command->flags, command->flag_count, ctl},
					{global_flags, GLOBAL_FLAGS, ctl}};
	status *st = flags_parse(sets, array_len(sets), argc, argv, SIZE_MAX, &ctl->words);

	if (st == NULL && ctl->help) {
		help_command(stdout, command);
		return NULL;
	}
	if (st == NULL)
		st = check_words(command, &ctl->words);
	if (st == NULL && ctl->timeout_ms == 0)
		st = status_errorf(STATUS_INVALID_ARGUMENT, "--timeout: must be longer than 0");
	if (st != NULL)
		return st;
	/* Before rpc starts its threads: only those who ask for the signals shall get them. */
	if (command->takes_signals)
		block_signals();
	return command->run(ctl, ret_exit);
}

/* "pki" and its own subcommand are two words. */
static status *run_group(struct ctl *ctl, const char *group, int argc, char **argv, int *ret_exit)
{
	const struct flag_set set = {global_flags, GLOBAL_FLAGS, ctl};
	struct flag_words words = {0};
	char name[NAME];
	status *st = flags_parse(&set, 1, argc, argv, 1, &words);

	if (st != NULL)
		return st;
	if (words.count == 0) {
		help_group(ctl->help ? stdout : stderr, group);
		*ret_exit = ctl->help ? 0 : EXIT_BASE + STATUS_INVALID_ARGUMENT;
		return NULL;
	}
	(void)snprintf(name, sizeof(name), "%s %s", group, words.words[0]);
	const struct command *command = find_command(name);
	if (command == NULL)
		return unknown_command(name);
	return run_command(ctl, command, argc - words.used, argv + words.used, ret_exit);
}

static status *run(struct ctl *ctl, int argc, char **argv, int *ret_exit)
{
	const struct flag_set set = {global_flags, GLOBAL_FLAGS, ctl};
	struct flag_words words = {0};
	status *st = flags_parse(&set, 1, argc, argv, 1, &words);

	if (st != NULL)
		return st;
	if (words.count == 0) {
		help(ctl->help ? stdout : stderr);
		*ret_exit = ctl->help ? 0 : EXIT_BASE + STATUS_INVALID_ARGUMENT;
		return NULL;
	}
	if (strcmp(words.words[0], "pki") == 0)
		return run_group(ctl, "pki", argc - words.used, argv + words.used, ret_exit);
	const struct command *command = find_command(words.words[0]);
	if (command == NULL)
		return unknown_command(words.words[0]);
	return run_command(ctl, command, argc - words.used, argv + words.used, ret_exit);
}

int main(int argc, char **argv)
{
	scoped(ctl) struct ctl ctl = {.timeout_ms = CTL_TIMEOUT_MS};
	int result = 0;

	(void)signal(SIGPIPE, SIG_IGN);
	/* Also what is wrong before --json is reached is told as JSON. */
	for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++)
		ctl.is_json |= strcmp(argv[i], "--json") == 0;
	scoped(status) status *st = run(&ctl, argc - 1, argv + 1, &result);
	if (st != NULL) {
		print_status(st, ctl.is_json);
		return EXIT_BASE + (int)status_code_of(st);
	}
	return result;
}

static const struct command *const commands[COMMANDS] = {
    &command_migrate,	&command_list,	     &command_show,	  &command_watch,
    &command_wait,	&command_accept,     &command_adjust,	  &command_cancel,
    &command_recover,	&command_delete,     &command_check,	  &command_resolve,
    &command_node,	&command_health,     &command_call,	  &command_list_services,
    &command_describe,	&command_criu_lease, &command_version,	  &command_pki_init,
    &command_pki_issue, &command_pki_list,   &command_pki_revoke, &command_pki_crl,
};

static const struct flag global_flags[GLOBAL_FLAGS] = {
    {"--local", "URL", FLAG_TEXT, CTL_FLAG(local),
     "ask the hauld of this machine on this socket (default: ipc:///run/haul/hauld.sock)"},
    {"--server", "URL", FLAG_TEXT, CTL_FLAG(server),
     "ask the hauld there instead: tls+tcp://HOST:PORT, with --ca, --cert and --key"},
    {"--ca", "FILE", FLAG_TEXT, CTL_FLAG(ca), "PEM certificates of the authorities to trust"},
    {"--cert", "FILE", FLAG_TEXT, CTL_FLAG(cert), "PEM certificate to show"},
    {"--key", "FILE", FLAG_TEXT, CTL_FLAG(key), "PEM private key of that certificate"},
    {"--crl", "FILE", FLAG_TEXT, CTL_FLAG(crl),
     "PEM lists of what these authorities have revoked; a server on it is not trusted"},
    {"--json", NULL, FLAG_SWITCH, CTL_FLAG(is_json), "answer as JSON, errors too"},
    {"--timeout", "D", FLAG_DURATION, CTL_FLAG(timeout_ms),
     "give up on a call after this time (default: 10s)"},
    {"--help", NULL, FLAG_SWITCH, CTL_FLAG(help), "say this"},
};
