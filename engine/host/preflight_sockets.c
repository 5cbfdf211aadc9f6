/* SPDX-License-Identifier: Apache-2.0 */
/* The sockets of a tree: families CRIU knows, TCP connections, unix streams that lead outside. */
#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <linux/netlink.h>
#include <linux/sock_diag.h>
#include <linux/unix_diag.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>

#include "engine/host/preflight_parts.h"

enum {
	DIAG_BUFFER = 32768, /* the kernel fills at most this much at a time */
	DIAG_WAIT_S = 2,
	UNIX_STATES_ALL = -1,
};

struct family {
	int domain;
	bool can_dump;
	const char *name;
};
static const struct family *socket_family(int domain);

/* A second descriptor of the process's own socket: says more than /proc, in any network namespace.
 */
static int borrow_socket(const struct seen_socket *seen)
{
	scoped(fd) int process = pidfd_open(seen->pid, 0);

	return process < 0 ? -1 : pidfd_getfd(process, seen->fd, 0);
}

static int socket_option(int fd, int option)
{
	int value = -1;
	socklen_t size = sizeof(value);

	return getsockopt(fd, SOL_SOCKET, option, &value, &size) == 0 ? value : -1;
}

static void peer_text(int fd, char *text, size_t room)
{
	struct sockaddr_storage address;
	socklen_t size = sizeof(address);
	char host[INET6_ADDRSTRLEN] = "?";

	(void)snprintf(text, room, "its peer");
	if (getpeername(fd, (struct sockaddr *)&address, &size) != 0)
		return;
	if (address.ss_family == AF_INET) {
		const struct sockaddr_in *v4 = (const struct sockaddr_in *)&address;
		(void)inet_ntop(AF_INET, &v4->sin_addr, host, sizeof(host));
		(void)snprintf(text, room, "%s:%u", host, ntohs(v4->sin_port));
	} else if (address.ss_family == AF_INET6) {
		const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)&address;
		(void)inet_ntop(AF_INET6, &v6->sin6_addr, host, sizeof(host));
		(void)snprintf(text, room, "[%s]:%u", host, ntohs(v6->sin6_port));
	}
}

static void socket_trouble(struct inspection *in, const struct seen_socket *seen, const char *next,
			   const char *what)
{
	struct proc_stat who = {.pid = seen->pid};

	status_free(proc_stat(seen->pid, &who));
	trouble_add(&in->troubles, next, "process %d (%s): descriptor %d is %s", (int)seen->pid,
		    who.name, seen->fd, what);
}

static void check_tcp(struct inspection *in, const struct seen_socket *seen, int fd)
{
	struct tcp_info info = {0};
	socklen_t size = sizeof(info);
	char peer[80], what[160];

	if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &size) != 0)
		return;
	if (info.tcpi_state == TCP_CLOSE || info.tcpi_state == TCP_LISTEN ||
	    info.tcpi_state == TCP_TIME_WAIT || in->options->tcp == HAUL__V1__TCP_MODE__TCP_CLOSE)
		return;
	peer_text(fd, peer, sizeof(peer));
	(void)snprintf(what, sizeof(what), "an open TCP connection to %s", peer);
	socket_trouble(
	    in, seen,
	    "end the connection, or pass --tcp close: then the move closes it and the peer sees "
	    "a reset",
	    what);
}

static void check_socket(struct inspection *in, const struct seen_socket *seen)
{
	scoped(fd) int fd = borrow_socket(seen);
	char what[128];

	if (fd < 0)
		return;
	int domain = socket_option(fd, SO_DOMAIN), type = socket_option(fd, SO_TYPE);
	int protocol = socket_option(fd, SO_PROTOCOL);
	const struct family *family = socket_family(domain);
	if (family == NULL || !family->can_dump) {
		(void)snprintf(what, sizeof(what),
			       "a socket of %s (family %d), which CRIU cannot dump",
			       family != NULL ? family->name : "an unknown kind", domain);
		socket_trouble(in, seen, "close it before the migration, or end what uses it",
			       what);
		return;
	}
	if ((domain != AF_INET && domain != AF_INET6) || type == SOCK_RAW || type == SOCK_DGRAM)
		return;
	if (protocol == IPPROTO_TCP) {
		check_tcp(in, seen, fd);
		return;
	}
	(void)snprintf(what, sizeof(what), "a socket of protocol %d, which CRIU cannot dump",
		       protocol);
	socket_trouble(in, seen, "close it before the migration, or end what uses it", what);
}

static int compare_socket(const void *a, const void *b)
{
	const struct seen_socket *left = a, *right = b;

	return (left->inode > right->inode) - (left->inode < right->inode);
}

static const struct seen_socket *socket_of_tree(const struct inspection *in, uint64_t inode)
{
	const struct seen_socket key = {.inode = inode};

	return in->socket_count == 0 ? NULL
				     : bsearch(&key, in->sockets, in->socket_count,
					       sizeof(*in->sockets), compare_socket);
}

static int diag_open(void)
{
	const struct timeval wait = {.tv_sec = DIAG_WAIT_S};
	int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG);

	if (fd >= 0)
		(void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof(wait));
	return fd;
}

/* Asks for one unix socket, or (inode 0) for all of them. */
static bool diag_ask(int fd, uint32_t inode, uint32_t show)
{
	struct {
		struct nlmsghdr header;
		struct unix_diag_req request;
	} ask = {
	    .header = {.nlmsg_len = sizeof(ask),
		       .nlmsg_type = SOCK_DIAG_BY_FAMILY,
		       .nlmsg_flags = (uint16_t)(NLM_F_REQUEST | (inode == 0 ? NLM_F_DUMP : 0))},
	    .request = {.sdiag_family = AF_UNIX,
			.udiag_states = (uint32_t)UNIX_STATES_ALL,
			.udiag_ino = inode,
			.udiag_show = show,
			.udiag_cookie = {UINT32_MAX, UINT32_MAX}},
	};

	return send(fd, &ask, sizeof(ask), 0) == (ssize_t)sizeof(ask);
}

/* An attribute's bytes, or NULL. */
static const void *diag_attribute(const struct nlmsghdr *header, unsigned short kind,
				  size_t *ret_size)
{
	const size_t head = sizeof(struct nlattr);
	size_t at = NLMSG_SPACE(sizeof(struct unix_diag_msg)), end = header->nlmsg_len;

	while (at + head <= end) {
		const struct nlattr *attribute = (const void *)((const char *)header + at);
		if (attribute->nla_len < head || at + attribute->nla_len > end)
			return NULL;
		if ((attribute->nla_type & NLA_TYPE_MASK) == kind) {
			*ret_size = attribute->nla_len - head;
			return attribute + 1;
		}
		at += (attribute->nla_len + head - 1) / head * head;
	}
	return NULL;
}

/* "/run/x.sock", "@abstract", or "without a name". */
static void unix_name(uint32_t inode, char *text, size_t room)
{
	_Alignas(struct nlmsghdr) char buffer[4096];
	size_t size = 0;
	scoped(fd) int fd = diag_open();

	(void)snprintf(text, room, "without a name");
	if (fd < 0 || !diag_ask(fd, inode, UDIAG_SHOW_NAME))
		return;
	ssize_t got = recv(fd, buffer, sizeof(buffer), 0);
	const struct nlmsghdr *header = (const void *)buffer;
	if (got < 0 || !NLMSG_OK(header, (size_t)got) || header->nlmsg_type != SOCK_DIAG_BY_FAMILY)
		return;
	const char *name = diag_attribute(header, UNIX_DIAG_NAME, &size);
	if (name != NULL && size > 0)
		(void)snprintf(text, room, "%s%.*s", name[0] == '\0' ? "@" : "",
			       (int)(size - (name[0] == '\0')), name + (name[0] == '\0'));
}

static void check_unix(struct inspection *in, const struct nlmsghdr *header)
{
	const struct unix_diag_msg *message = NLMSG_DATA(header);
	char name[sizeof(((struct sockaddr_un *)NULL)->sun_path) + 16], what[256];
	size_t size = 0;
	uint32_t peer = 0;

	if (header->nlmsg_len < NLMSG_LENGTH(sizeof(*message)) ||
	    (message->udiag_type != SOCK_STREAM && message->udiag_type != SOCK_SEQPACKET))
		return;
	const struct seen_socket *seen = socket_of_tree(in, message->udiag_ino);
	const void *value = diag_attribute(header, UNIX_DIAG_PEER, &size);
	if (seen == NULL || value == NULL || size < sizeof(peer))
		return;
	memcpy(&peer, value, sizeof(peer));
	if (peer == 0 || socket_of_tree(in, peer) != NULL)
		return;
	unix_name(peer, name, sizeof(name));
	(void)snprintf(
	    what, sizeof(what),
	    "connected to a unix socket outside of the tree (%s), which cannot follow it", name);
	socket_trouble(in, seen,
		       "end that connection first, or move the tree that holds both ends; output "
		       "that goes to the journal can go to a file instead",
		       what);
}

/* Handles one packet of the dump; false when it was the last. */
static bool check_unix_packet(struct inspection *in, const char *buffer, size_t size)
{
	const struct nlmsghdr *header = (const void *)buffer;

	for (; NLMSG_OK(header, size); header = NLMSG_NEXT(header, size)) {
		if (header->nlmsg_type == NLMSG_DONE || header->nlmsg_type == NLMSG_ERROR)
			return false;
		if (header->nlmsg_type == SOCK_DIAG_BY_FAMILY)
			check_unix(in, header);
	}
	return true;
}

/* In our own network namespace only; elsewhere, or without the kernel's unix_diag, CRIU will tell.
 */
static void check_unix_peers(struct inspection *in)
{
	_Alignas(struct nlmsghdr) char buffer[DIAG_BUFFER];
	scoped(fd) int fd = -1;

	if (in->socket_count == 0 || !same_namespace(in->survey->pids[0], 0, "net"))
		return;
	fd = diag_open();
	if (fd < 0 || !diag_ask(fd, 0, UDIAG_SHOW_PEER))
		return;
	for (;;) {
		ssize_t got = recv(fd, buffer, sizeof(buffer), 0);
		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0 || !check_unix_packet(in, buffer, (size_t)got))
			return;
	}
}

status *preflight_sockets(struct inspection *in)
{
	if (in->socket_count == 0)
		return NULL;
	qsort(in->sockets, in->socket_count, sizeof(*in->sockets), compare_socket);
	for (size_t i = 0; i < in->socket_count; i++)
		if (i == 0 || in->sockets[i].inode != in->sockets[i - 1].inode)
			check_socket(in, &in->sockets[i]);
	check_unix_peers(in);
	return NULL;
}

static const struct family families[] = {
    {AF_UNIX, true, "unix"},	   {AF_INET, true, "IPv4"},
    {AF_INET6, true, "IPv6"},	   {AF_PACKET, true, "packets"},
    {AF_NETLINK, true, "netlink"}, {AF_ALG, false, "the kernel's crypto API (AF_ALG)"},
    {AF_VSOCK, false, "vsock"},	   {AF_BLUETOOTH, false, "Bluetooth"},
    {AF_TIPC, false, "TIPC"},	   {AF_CAN, false, "CAN"},
    {AF_XDP, false, "AF_XDP"},	   {AF_RDS, false, "RDS"},
    {AF_SMC, false, "SMC"},
};

static const struct family *socket_family(int domain)
{
	for (size_t i = 0; i < array_len(families); i++)
		if (families[i].domain == domain)
			return &families[i];
	return NULL;
}
