/* SPDX-License-Identifier: Apache-2.0 */
/* haulctl accept: gives the engine sockets over which a migration will come. */
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include "cmd/haulctl/ctl.h"
#include "cmd/haulctl/render_json.h"

static status *check_socket(const char *flag, uint32_t number)
{
	int type = 0;
	socklen_t size = sizeof(type);
	struct sockaddr_storage peer;
	socklen_t peer_size = sizeof(peer);

	if (number <= STDERR_FILENO)
		return status_errorf(STATUS_INVALID_ARGUMENT,
				     "%s: a descriptor that is open for haulctl, from 3 on; "
				     "--fd-rpc, --fd-mem and --fd-fs go together",
				     flag);
	if (getsockopt((int)number, SOL_SOCKET, SO_TYPE, &type, &size) != 0 ||
	    type != SOCK_STREAM ||
	    getpeername((int)number, (struct sockaddr *)&peer, &peer_size) != 0)
		return status_errorf(STATUS_INVALID_ARGUMENT,
				     "%s %u: not a stream socket that is connected", flag, number);
	return NULL;
}

status *ctl_check_sockets(const struct ctl *ctl)
{
	status *st = check_socket("--fd-rpc", ctl->fd_rpc);

	if (st == NULL)
		st = check_socket("--fd-mem", ctl->fd_memory);
	return st == NULL ? check_socket("--fd-fs", ctl->fd_images) : st;
}

static status *run(struct ctl *ctl, int *ret_exit)
{
	status *st = ctl_check_sockets(ctl);

	(void)ret_exit;
	if (st == NULL && ctl->as == NULL)
		st = status_errorf(STATUS_INVALID_ARGUMENT,
				   "--as is missing: who is at the other end? The name that the "
				   "source's engine has in its certificate");
	if (st == NULL)
		st = ctl_connect(ctl);
	if (st == NULL)
		st = ctl_failed(ctl, haul_accept(ctl->client, ctl->as, (int)ctl->fd_rpc,
						 (int)ctl->fd_memory, (int)ctl->fd_images));
	if (st == NULL && ctl->is_json)
		json_print(stdout, cJSON_CreateObject(), false);
	return st;
}

static const struct flag flags[] = {
    {"--fd-rpc", "N", FLAG_NUMBER, CTL_FLAG(fd_rpc),
     "a stream socket that is open for haulctl and connected to the source's: for calls"},
    {"--fd-mem", "N", FLAG_NUMBER, CTL_FLAG(fd_memory), "the same, for memory"},
    {"--fd-fs", "N", FLAG_NUMBER, CTL_FLAG(fd_images), "the same, for CRIU's images"},
    {"--as", "NAME", FLAG_TEXT, CTL_FLAG(as),
     "who is at the other end, by your word: the policy is asked about this name"},
};

const struct command command_accept = {
    .name = "accept",
    .arguments = "--fd-rpc N --fd-mem N --fd-fs N --as NAME",
    .summary = "let one migration come over sockets that are connected already",
    .text =
	"Gives the engine here three stream sockets that the caller has connected to the source's, "
	"however\n"
	"that was done: one migration comes over them, that of `haulctl migrate --fd-rpc … "
	"--fd-mem …\n"
	"--fd-fs …` there. The engine takes them over: the caller may close its own when this has "
	"returned.\n"
	"There is no TLS on them: who is at the other end, and that nobody listens in, is the "
	"caller's business.\n\n"
	"example, with sockets 3, 4 and 5 of the program that starts it\n"
	"  haulctl accept --fd-rpc 3 --fd-mem 4 --fd-fs 5 --as a.example.org\n",
    .flags = flags,
    .flag_count = array_len(flags),
    .run = run,
};
