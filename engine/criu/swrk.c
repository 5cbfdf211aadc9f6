/* SPDX-License-Identifier: Apache-2.0 */
/* CRIU has no timeout of its own for anything, and may rightly be busy for hours with a large tree.
 * So what is limited is silence: no message, and no activity of any process of its group. A stopped
 * CRIU is silent, and so is a restore that spins at the end of a short file. */
#include "engine/criu/swrk.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "engine/criu/criu_error.h"
#include "engine/criu/page_stream.h"
#include "engine/host/cgroup.h"
#include "engine/host/child.h"
#include "engine/host/files.h"
#include "proto/clock.h"
#include "proto/limits.h"

enum {
	LOOK_MS = 250,	     /* between looks at CRIU's progress */
	LAST_WORD_MS = 1000, /* for the exit status of one whose socket has closed */
	LEAVE_MS = 2000,     /* for a CRIU that is to let its tree go */
	END_MS = 10000,	     /* for a killed group */
	PROC_LIMIT = 8192,
	SWRK_NICE = -10, /* before what else waits for a processor */
};

struct swrk {
	struct child child;
	int rpc;
	int memory;
	int wake; /* eventfd: interrupted */
	atomic_bool is_interrupted;
	bool is_over; /* its socket has ended, and `how` */
	char how[64];
	bool is_busy; /* with a request */
	int64_t deadline_ms;
	char cgroup[CGROUP_PATH];
	char work_dir[FILES_PATH];
	uint8_t *message; /* LIMIT_CRIU_MESSAGE */
};

/* --- open --- */

static struct swrk *session_new(const struct swrk_options *options)
{
	struct swrk *session = calloc(1, sizeof(*session));

	if (session == NULL)
		return NULL;
	session->child = (struct child){0, -1};
	session->rpc = session->memory = session->wake = -1;
	(void)snprintf(session->cgroup, sizeof(session->cgroup), "%s",
		       options->cgroup != NULL ? options->cgroup : "");
	(void)snprintf(session->work_dir, sizeof(session->work_dir), "%s", options->work_dir);
	session->message = malloc(LIMIT_CRIU_MESSAGE);
	if (session->message == NULL) {
		free(session);
		return NULL;
	}
	return session;
}

static status *spawn(struct swrk *session, const struct swrk_options *options, int rpc, int memory)
{
	char path[FILES_PATH + 16], number[16];

	(void)snprintf(path, sizeof(path), "%s/" CRIU_STDERR, session->work_dir);
	scoped(fd) int errors =
	    open(path, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0600);
	if (errors < 0)
		return status_errnof(errno, "cannot make %s", path);
	(void)snprintf(number, sizeof(number), "%d", SWRK_RPC_FD);
	const char *argv[] = {options->without_huge_pages,
			      SWRK_PLAIN_PAGES_VERB,
			      options->criu,
			      "swrk",
			      number,
			      NULL};
	int fds[SWRK_MORE_FD + SWRK_MORE_FDS] = {
	    -1, errors, errors, rpc, memory, options->outlives_engine ? session->rpc : -1};
	size_t count = memory >= 0 ? SWRK_MEMORY_FD + 1 : SWRK_RPC_FD + 1;
	if (options->outlives_engine)
		count = SWRK_ENGINE_FD + 1;
	if (options->more_count > 0)
		count = SWRK_MORE_FD + options->more_count;
	for (size_t i = 0; i < options->more_count; i++)
		fds[SWRK_MORE_FD + i] = options->more_fds[i];
	struct child_spec spec = {
	    .argv = argv + (options->without_huge_pages != NULL ? 0 : 2),
	    .fds = fds,
	    .fd_count = count,
	    .cgroup = options->cgroup,
	    .directory = session->work_dir,
	};
	status *st = child_spawn(&spec, &session->child);
	if (status_code_of(st) == STATUS_NOT_FOUND)
		st = status_detailf(st, "next", "install CRIU 4.1 or give hauld --criu PATH");
	return st;
}

int swrk_plain_pages_main(char **argv)
{
	if (prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0) != 0)
		perror("transparent huge pages cannot be switched off");
	else if (execvp(argv[0], argv) != 0)
		perror(argv[0]);
	return 127;
}

status *swrk_open(const struct swrk_options *options, struct swrk **ret_session)
{
	scoped(swrk) struct swrk *session = session_new(options);
	int pair[2];

	if (session == NULL)
		return status_errnof(ENOMEM, "CRIU session");
	/* SOCK_CLOEXEC on both: the child's ends are placed by number at exec. */
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) != 0)
		return status_errnof(errno, "cannot make a socket for CRIU");
	session->rpc = pair[0];
	scoped(fd) int rpc = pair[1];
	scoped(fd) int memory = -1;
	status *st = options->with_memory ? page_channel_open(&session->memory, &memory) : NULL;
	if (st != NULL)
		return st;
	session->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (session->wake < 0)
		return status_errnof(errno, "cannot make an eventfd");
	st = spawn(session, options, rpc, memory);
	if (st == NULL)
		*ret_session = TAKE(session);
	return st;
}

pid_t swrk_pid(const struct swrk *session)
{
	return session->child.pid;
}

const char *swrk_work_dir(const struct swrk *session)
{
	return session->work_dir;
}

int swrk_memory_fd(const struct swrk *session)
{
	return session->memory;
}

/* --- how it ended --- */

static status *died(struct swrk *session)
{
	char tail[CRIU_LAST_WORDS];
	int ended = 0;

	if (!session->is_over) {
		scoped(status) status *st = child_wait(&session->child, LAST_WORD_MS, &ended);
		if (st != NULL)
			(void)snprintf(session->how, sizeof(session->how), "it closed its socket");
		else if (WIFSIGNALED(ended))
			(void)snprintf(session->how, sizeof(session->how), "killed by signal %d",
				       WTERMSIG(ended));
		else
			(void)snprintf(session->how, sizeof(session->how), "exit status %d",
				       WEXITSTATUS(ended));
	}
	session->is_over = true;
	criu_last_words(session->work_dir, tail);
	status *st = status_errorf(STATUS_UNAVAILABLE, "CRIU ended (%s)", session->how);
	return tail[0] != '\0' ? status_detailf(st, "criu", "%s", tail) : st;
}

/* --- messages --- */

static status *send_packed(struct swrk *session, const CriuReq *request)
{
	struct buffer packed __attribute__((cleanup(scope_buffer))) = {0};
	status *st = pack_message(&request->base, LIMIT_CRIU_MESSAGE, &packed);

	if (st != NULL)
		return st;
	if (session->is_over)
		return died(session);
	/* Never blocks for long: CRIU reads each request before it is due. A full queue is a
	 * stopped CRIU. */
	ssize_t sent = send(session->rpc, packed.data, packed.size, MSG_NOSIGNAL | MSG_DONTWAIT);
	if (sent == (ssize_t)packed.size)
		return NULL;
	if (sent < 0 && (errno == EPIPE || errno == ECONNRESET))
		return died(session);
	return sent < 0 && errno != EAGAIN
		   ? status_errnof(errno, "cannot send to CRIU")
		   : status_errorf(STATUS_UNAVAILABLE, "CRIU does not take requests");
}

status *swrk_send(struct swrk *session, const CriuReq *request)
{
	if (atomic_load(&session->is_interrupted))
		return status_errorf(STATUS_CANCELLED, "interrupted");
	/* The workload stands still for these. A restored task gets the niceness that it had. */
	if (request->type == CRIU_REQ_TYPE__DUMP || request->type == CRIU_REQ_TYPE__RESTORE)
		(void)setpriority(PRIO_PROCESS, (id_t)session->child.pid, SWRK_NICE);
	status *st = send_packed(session, request);
	session->is_busy = st == NULL;
	return st;
}

status *swrk_ack(struct swrk *session, bool go_on)
{
	CriuReq request = CRIU_REQ__INIT;

	request.type = CRIU_REQ_TYPE__NOTIFY;
	request.has_notify_success = 1;
	request.notify_success = go_on;
	return send_packed(session, &request);
}

static status *decode(const uint8_t *data, size_t size, struct swrk_event *ret_event)
{
	CriuResp *response = criu_resp__unpack(NULL, size, data);

	if (response == NULL)
		return status_errorf(STATUS_DATA_LOSS,
				     "CRIU sent a message that cannot be read (%zu bytes)", size);
	*ret_event = (struct swrk_event){.is_response = true};
	if (response->type != CRIU_REQ_TYPE__NOTIFY) {
		ret_event->response = response;
		return NULL;
	}
	ret_event->is_response = false;
	if (response->notify != NULL) {
		(void)snprintf(ret_event->script, sizeof(ret_event->script), "%s",
			       response->notify->script != NULL ? response->notify->script : "");
		ret_event->pid = response->notify->has_pid ? response->notify->pid : 0;
	}
	criu_resp__free_unpacked(response, NULL);
	return NULL;
}

/* One message if there is one; *ret_got tells. */
static status *take_message(struct swrk *session, struct swrk_event *ret_event, bool *ret_got)
{
	ssize_t got =
	    recv(session->rpc, session->message, LIMIT_CRIU_MESSAGE, MSG_DONTWAIT | MSG_TRUNC);

	if (got < 0 && (errno == EAGAIN || errno == EINTR)) {
		*ret_got = false;
		return NULL;
	}
	if (got == 0 || (got < 0 && errno == ECONNRESET))
		return died(session);
	if (got < 0)
		return status_errnof(errno, "cannot hear CRIU");
	*ret_got = true;
	if (got > LIMIT_CRIU_MESSAGE)
		return status_errorf(STATUS_DATA_LOSS, "CRIU sent a message of %zd bytes", got);
	status *st = decode(session->message, (size_t)got, ret_event);
	session->is_busy = session->is_busy && (st != NULL || !ret_event->is_response);
	return st;
}

/* --- silence --- */

/* The number behind `key` in a file of /proc/PID; 0 when there is none (any more). */
static uint64_t number_of(pid_t pid, const char *name, const char *key)
{
	char path[64], text[PROC_LIMIT];

	(void)snprintf(path, sizeof(path), "/proc/%d/%s", pid, name);
	scoped(fd) int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return 0;
	ssize_t got = read(fd, text, sizeof(text) - 1);
	text[got > 0 ? got : 0] = '\0';
	const char *found = strstr(text, key);
	return found != NULL ? strtoull(found + strlen(key), NULL, 10) : 0;
}

/* Changes when the process does something. Bytes read and written say so best. They do not count
 * what is sent or spliced into the memory channel, so a dump counts whenever it runs at all; a
 * restore must not, or a task that spins at the end of a short file would look busy for ever. */
static uint64_t activity(const struct swrk *session, pid_t pid)
{
	uint64_t sum = number_of(pid, "io", "rchar: ") + number_of(pid, "io", "wchar: ");

	return session->memory < 0 ? sum
				   : sum + number_of(pid, "status", "\nvoluntary_ctxt_switches:");
}

/* Changes as long as CRIU, its helpers or the tasks it restores are active. */
static uint64_t progress(const struct swrk *session)
{
	uint64_t sum = activity(session, session->child.pid);
	pid_t *pids = NULL;
	size_t count = 0;

	if (session->cgroup[0] == '\0')
		return sum;
	scoped(status) status *st = cgroup_pids(session->cgroup, &pids, &count);
	for (size_t i = 0; i < count; i++)
		if (pids[i] != session->child.pid)
			sum += activity(session, pids[i]);
	free(pids);
	return sum;
}

struct watchdog {
	int64_t timeout_ms, quiet_since_ms;
	uint64_t progress;
};

static status *check_silence(const struct swrk *session, struct watchdog *dog)
{
	uint64_t now = progress(session);

	if (now != dog->progress) {
		dog->progress = now;
		dog->quiet_since_ms = clock_monotonic_ms();
	}
	int64_t quiet_ms = clock_monotonic_ms() - dog->quiet_since_ms;
	if (quiet_ms < dog->timeout_ms)
		return NULL;
	return status_errorf(STATUS_DEADLINE_EXCEEDED,
			     "CRIU (process %d) has been silent for %lld ms: stuck or stopped",
			     session->child.pid, (long long)quiet_ms);
}

/* Until something is to be read, CRIU dies, someone interrupts, or it is time to look. */
static status *wait_a_while(struct swrk *session, int64_t wait_ms)
{
	struct pollfd fds[] = {
	    {.fd = session->rpc, .events = POLLIN},
	    {.fd = session->wake, .events = POLLIN},
	    {.fd = session->child.pidfd, .events = POLLIN},
	};

	if (poll(fds, array_len(fds), (int)wait_ms) < 0 && errno != EINTR)
		return status_errnof(errno, "cannot wait for CRIU");
	if (atomic_load(&session->is_interrupted))
		return status_errorf(STATUS_CANCELLED, "interrupted");
	/* The socket may be held open by a worker that CRIU left behind. What it said before its
	 * end counts. */
	if ((fds[0].revents & POLLIN) == 0 && (fds[2].revents & POLLIN) != 0)
		return died(session);
	return NULL;
}

static int64_t wait_ms_of(const struct swrk *session, int64_t look_ms)
{
	if (session->deadline_ms == 0)
		return look_ms;
	int64_t left_ms = clock_left_ms(session->deadline_ms);
	return left_ms < look_ms ? left_ms : look_ms;
}

status *swrk_next(struct swrk *session, int64_t timeout_ms, struct swrk_event *ret_event)
{
	struct watchdog dog = {timeout_ms, clock_monotonic_ms(), 0};
	int64_t look_ms = timeout_ms / 4 < LOOK_MS ? timeout_ms / 4 + 1 : LOOK_MS;
	int64_t looked_ms = dog.quiet_since_ms;
	bool got = false;

	if (session->is_over)
		return died(session);
	for (;;) {
		if (atomic_load(&session->is_interrupted))
			return status_errorf(STATUS_CANCELLED, "interrupted");
		status *st = take_message(session, ret_event, &got);
		if (st != NULL || got)
			return st;
		if (session->deadline_ms != 0 && clock_left_ms(session->deadline_ms) == 0)
			return status_errorf(
			    STATUS_DEADLINE_EXCEEDED,
			    "CRIU (process %d) was not ready when the time for it was over",
			    session->child.pid);
		st = wait_a_while(session, wait_ms_of(session, look_ms));
		if (st == NULL && clock_monotonic_ms() - looked_ms >= look_ms) {
			st = check_silence(session, &dog);
			looked_ms = clock_monotonic_ms();
		}
		if (st != NULL)
			return st;
	}
}

void swrk_set_deadline(struct swrk *session, int64_t deadline_ms)
{
	session->deadline_ms = deadline_ms;
}

static const char *work_of(CriuReqType type)
{
	switch ((int)type) {
	case CRIU_REQ_TYPE__PRE_DUMP:
		return "copy the tree's memory";
	case CRIU_REQ_TYPE__DUMP:
		return "dump the tree";
	case CRIU_REQ_TYPE__RESTORE:
		return "restore the tree";
	case CRIU_REQ_TYPE__CPUINFO_DUMP:
		return "describe this CPU";
	case CRIU_REQ_TYPE__CPUINFO_CHECK:
		return "accept this CPU for the tree";
	case CRIU_REQ_TYPE__FEATURE_CHECK:
		return "work on this kernel";
	default:
		return "serve a request";
	}
}

status *swrk_call(struct swrk *session, const CriuReq *request, const char *log_file,
		  int64_t timeout_ms, CriuResp **ret_response)
{
	status *st = swrk_send(session, request);

	while (st == NULL) {
		scoped(swrk_event) struct swrk_event event = {0};
		st = swrk_next(session, timeout_ms, &event);
		if (st == NULL && !event.is_response) {
			st = swrk_ack(session, true);
			continue;
		}
		if (st == NULL && !event.response->success)
			return criu_error(work_of(request->type), event.response, session->work_dir,
					  log_file);
		if (st == NULL) {
			*ret_response = TAKE(event.response);
			return NULL;
		}
	}
	return status_wrapf(st, "CRIU was to %s", work_of(request->type));
}

/* --- interrupt, end --- */

void swrk_interrupt(struct swrk *session)
{
	atomic_store(&session->is_interrupted, true);
	(void)eventfd_write(session->wake, 1);
}

void swrk_resume(struct swrk *session)
{
	eventfd_t count;

	(void)eventfd_read(session->wake, &count);
	atomic_store(&session->is_interrupted, false);
}

void swrk_shut_memory(struct swrk *session)
{
	if (session->memory >= 0)
		(void)shutdown(session->memory, SHUT_RDWR);
}

/* One step of giving up; false when CRIU has nothing more to say. */
static bool take_leave(struct swrk *session, int64_t wait_ms)
{
	scoped(swrk_event) struct swrk_event event = {0};
	struct pollfd said = {.fd = session->rpc, .events = POLLIN};
	bool got = false;

	(void)poll(&said, 1, (int)wait_ms);
	scoped(status) status *st = take_message(session, &event, &got);
	if (st == NULL && got && !event.is_response)
		/* Everything is refused but the unlocking of its network, without which the tree
		 * stays stopped. */
		st = swrk_ack(session, strcmp(event.script, "network-unlock") == 0);
	return st == NULL;
}

void swrk_give_up(struct swrk *session)
{
	int64_t until = clock_monotonic_ms() + LEAVE_MS;

	swrk_shut_memory(session);
	while (session->is_busy && !session->is_over && clock_monotonic_ms() < until)
		if (!take_leave(session, clock_left_ms(until)))
			break;
}

static bool is_own_group(const char *cgroup)
{
	const char *name = strrchr(cgroup, '/');

	return name != NULL && strncmp(name + 1, "criu-", 5) == 0;
}

void swrk_free(struct swrk *session)
{
	if (session == NULL)
		return;
	swrk_shut_memory(session);
	/* A pre-dump's worker outlives swrk and holds the tree: all of the group ends. */
	if (is_own_group(session->cgroup))
		status_free(cgroup_kill(session->cgroup, END_MS));
	if (session->child.pidfd >= 0)
		child_kill(&session->child);
	/* The root of a tree that could not be restored is our child, and its zombie would keep its
	 * id. */
	if (session->cgroup[0] != '\0')
		child_reap_group(session->cgroup);
	close_if_open(session->rpc);
	close_if_open(session->memory);
	close_if_open(session->wake);
	free(session->message);
	free(session);
}
