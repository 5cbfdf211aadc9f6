/* SPDX-License-Identifier: Apache-2.0 */
/* fake-criu swrk FD: the session. fake.h tells what it does. */
#include "tests/fake/fake.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "criu/rpc.pb-c.h"

enum { MESSAGE = 65536 };

struct fake {
	int rpc;
	pid_t engine;
	unsigned rounds; /* pre-dumps so far */
	const CriuReq *request;
	int images, work; /* of the request; -1 */
};

/* --- messages --- */

static void say(const struct fake *fake, const CriuResp *response)
{
	uint8_t packed[MESSAGE];

	if (criu_resp__get_packed_size(response) > sizeof(packed))
		_exit(254);
	size_t size = criu_resp__pack(response, packed);
	if (send(fake->rpc, packed, size, MSG_NOSIGNAL) != (ssize_t)size)
		_exit(1);
}

static CriuReq *hear(const struct fake *fake)
{
	uint8_t packed[MESSAGE];
	ssize_t got = recv(fake->rpc, packed, sizeof(packed), 0);

	return got > 0 ? criu_req__unpack(NULL, (size_t)got, packed) : NULL;
}

static void answer(const struct fake *fake, CriuReqType type, bool success)
{
	CriuResp response = CRIU_RESP__INIT;

	response.type = type;
	response.success = success;
	say(fake, &response);
}

/* An error line into the log, as CRIU's are, behind the noise that is always there. */
static void log_error(const struct fake *fake, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));
static void log_error(const struct fake *fake, const char *fmt, ...)
{
	const char *name = fake->request->opts != NULL ? fake->request->opts->log_file : NULL;
	va_list args;
	int fd = fake->work >= 0 && name != NULL
		     ? openat(fake->work, name, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600)
		     : dup(2);

	(void)dprintf(
	    fd, "(00.000001) Error (criu/util.c:1): Unable to restore TCP_CORK (1): not supported\n"
		"(00.000002) Error (fake/criu.c:1): ");
	va_start(args, fmt);
	(void)vdprintf(fd, fmt, args);
	va_end(args);
	(void)dprintf(fd, "\n(00.000003) Error (fake/criu.c:2): %s FAILED.\n",
		      fake->request->type == CRIU_REQ_TYPE__RESTORE ? "Restoring" : "Dumping");
	(void)close(fd);
}

static bool refuse(const struct fake *fake, int err)
{
	CriuResp response = CRIU_RESP__INIT;

	response.type = fake->request->type;
	response.has_cr_errno = err > 0;
	response.cr_errno = err;
	say(fake, &response);
	return false;
}

/* Notifies; returns the engine's answer. -1: it has closed the socket. */
static int notify(const struct fake *fake, const char *script, pid_t pid)
{
	CriuResp response = CRIU_RESP__INIT;
	CriuNotify what = CRIU_NOTIFY__INIT;

	what.script = (char *)script;
	what.has_pid = pid > 0;
	what.pid = pid;
	response.type = CRIU_REQ_TYPE__NOTIFY;
	response.success = true;
	response.notify = &what;
	say(fake, &response);
	fault_point(script);
	CriuReq *reply = hear(fake);
	if (reply == NULL)
		return -1;
	int go_on = reply->type == CRIU_REQ_TYPE__NOTIFY && reply->notify_success;
	criu_req__free_unpacked(reply, NULL);
	return go_on;
}

/* True when the request is to be failed at this point; the answer is out then. */
static bool is_failed_by_order(const struct fake *fake, const char *point)
{
	fault_point(point);
	if (fault_is("garbage", point)) {
		(void)send(fake->rpc, "\xff\xff\xff", 3, MSG_NOSIGNAL);
		return true;
	}
	if (!fault_is("fail", point))
		return false;
	log_error(fake, "Told to fail at %s", point);
	(void)refuse(fake, 0);
	return true;
}

/* --- short requests --- */

static bool serve_version(const struct fake *fake)
{
	CriuResp response = CRIU_RESP__INIT;
	CriuVersion version = CRIU_VERSION__INIT;
	long number = fault_number("version", 40101);

	if (is_failed_by_order(fake, "version"))
		return true;
	version.major_number = (int32_t)(number / 10000);
	version.minor_number = (int32_t)(number / 100 % 100);
	version.has_sublevel = 1;
	version.sublevel = (int32_t)(number % 100);
	response.type = CRIU_REQ_TYPE__VERSION;
	response.success = true;
	response.version = &version;
	say(fake, &response);
	return true;
}

static bool serve_features(const struct fake *fake)
{
	CriuResp response = CRIU_RESP__INIT;
	CriuFeatures features = CRIU_FEATURES__INIT;

	if (is_failed_by_order(fake, "feature-check"))
		return true;
	features.has_mem_track =
	    fake->request->features != NULL && fake->request->features->mem_track;
	features.mem_track = !fault_word("no-track");
	response.type = CRIU_REQ_TYPE__FEATURE_CHECK;
	response.success = !fault_word("no-kernel");
	response.features = &features;
	say(fake, &response);
	return true;
}

static bool serve_cpuinfo(const struct fake *fake)
{
	bool is_check = fake->request->type == CRIU_REQ_TYPE__CPUINFO_CHECK;
	bool is_fine = fake->images >= 0;

	if (is_failed_by_order(fake, is_check ? "cpuinfo-check" : "cpuinfo-dump"))
		return true;
	if (is_check) {
		is_fine = is_fine && faccessat(fake->images, "cpuinfo.img", R_OK, 0) == 0;
		if (fault_word("cpu-mismatch")) {
			log_error(fake, "CPU instruction capabilities do not match run time");
			is_fine = false;
		}
	} else if (is_fine) {
		int fd = openat(fake->images, "cpuinfo.img",
				O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
		is_fine = write(fd, "fake cpu", 8) == 8;
		(void)close(fd);
	}
	answer(fake, fake->request->type, is_fine);
	return true;
}

/* --- dumps --- */

static struct fake_memory memory_of(const struct fake *fake)
{
	const CriuOpts *opts = fake->request->opts;

	return (struct fake_memory){
	    .fd = opts->ps != NULL && opts->ps->has_fd ? opts->ps->fd : -1,
	    .round = fake->rounds + 1,
	    .pages = (unsigned)fault_number("pages", FAKE_PAGES),
	};
}

static bool begin_dump(const struct fake *fake, struct fake_tree *tree)
{
	const CriuOpts *opts = fake->request->opts;

	if (opts == NULL || !opts->has_pid || fake->images < 0) {
		log_error(fake, "No pid or no directory in the request");
		return refuse(fake, EINVAL);
	}
	if (opts->parent_img != NULL)
		(void)symlinkat(opts->parent_img, fake->images, "parent");
	if (!tree_seize(opts->pid, tree)) {
		log_error(fake, "Unable to interrupt task: %d (No such process)", opts->pid);
		return refuse(fake, ESRCH);
	}
	return true;
}

static bool send_memory(const struct fake_memory *memory, const struct fake_tree *tree)
{
	for (size_t i = 0; i < tree->count; i++)
		if (!pages_send(memory, tree->pids[i]))
			return false;
	return pages_close(memory);
}

static bool serve_pre_dump(struct fake *fake)
{
	struct fake_tree tree;
	struct fake_memory memory;

	if (!begin_dump(fake, &tree))
		return false;
	memory = memory_of(fake);
	bool is_fine = true;
	if (is_failed_by_order(fake, "pre-dump")) {
		tree_release(&tree);
		return false;
	}
	for (size_t i = 0; i < tree.count && is_fine; i++)
		is_fine = pages_ask_parent(&memory, tree.pids[i]);
	tree_release(&tree);
	if (!is_fine || !send_memory(&memory, &tree)) {
		log_error(fake, "The page server doesn't answer");
		return refuse(fake, 0);
	}
	fake->rounds++;
	fault_point("response");
	answer(fake, CRIU_REQ_TYPE__PRE_DUMP, true);
	return true;
}

static bool dump_stopped(struct fake *fake, const struct fake_tree *tree)
{
	struct fake_memory memory = memory_of(fake);

	/* Before anything can go wrong: the engine has sent some images by then. */
	bool is_written = images_write_tasks(fake->images, tree);
	if (is_failed_by_order(fake, "dump"))
		return false;
	if (!send_memory(&memory, tree)) {
		log_error(fake, "Can't write pages to socket");
		return refuse(fake, 0);
	}
	if (!is_written || !images_write_tree(fake->images, tree, &memory)) {
		log_error(fake, "No space left on device");
		return refuse(fake, ENOSPC);
	}
	return true;
}

static void serve_dump(struct fake *fake)
{
	struct fake_tree tree;

	if (notify(fake, "pre-dump", 0) != 1) {
		(void)refuse(fake, 0);
		return;
	}
	if (notify(fake, "query-ext-files", 0) != 1 || !begin_dump(fake, &tree))
		return;
	if (!dump_stopped(fake, &tree)) {
		tree_release(&tree);
		return;
	}
	int verdict = notify(fake, "post-dump", 0);
	if (verdict != 1) {
		tree_release(&tree);
		if (verdict == 0)
			(void)refuse(fake, 0);
		return;
	}
	fault_point("kill");
	tree_kill(&tree);
	fault_point("response");
	answer(fake, CRIU_REQ_TYPE__DUMP, true);
}

/* --- restore --- */

static bool check_images(const struct fake *fake, struct fake_images *images)
{
	char why[256];

	if (!images_read(fake->images, images)) {
		log_error(fake, "Unexpected EOF on (empty-image)");
		return refuse(fake, 0);
	}
	for (size_t i = 0; i < images->count; i++) {
		if (pages_check(fake->images, images->pids[i], images->round, images->pages, why))
			continue;
		log_error(fake, "%s", why);
		return refuse(fake, 0);
	}
	return true;
}

/* From the parked process to the running one; false: it must be killed, and no answer is due if the
 * engine is gone. */
static bool resume(const struct fake *fake, pid_t pid, int gate)
{
	if (notify(fake, "setup-namespaces", pid) != 1 || notify(fake, "post-restore", pid) != 1)
		return false;
	(void)write(gate, "r", 1);
	/* CRIU does not look at the answer, but if nobody is there any more it ends here, and the
	 * tree runs. */
	if (notify(fake, "pre-resume", 0) < 0)
		_exit(1);
	(void)write(gate, "g", 1);
	(void)notify(fake, "post-resume", 0);
	return true;
}

static void serve_restore(struct fake *fake)
{
	struct fake_images images = {.count = 0};
	CriuResp response = CRIU_RESP__INIT;
	CriuRestoreResp restored = CRIU_RESTORE_RESP__INIT;
	int gate = -1;

	if (notify(fake, "pre-restore", 0) != 1 || is_failed_by_order(fake, "restore") ||
	    !check_images(fake, &images))
		return;
	pid_t pid = restored_start(&images, &gate);
	if (pid < 0) {
		log_error(fake, "Can't fork for %d: %s", images.pids[0], strerror(-pid));
		(void)refuse(fake, -pid);
		return;
	}
	if (!resume(fake, pid, gate)) {
		(void)kill(pid, SIGKILL);
		(void)refuse(fake, 0);
		return;
	}
	fault_point("response");
	restored.pid = pid;
	response.type = CRIU_REQ_TYPE__RESTORE;
	response.success = true;
	response.restore = &restored;
	say(fake, &response);
}

/* --- session --- */

/* Directories come as numbers in the engine's table. */
static int open_engines(const struct fake *fake, int number)
{
	char path[64];

	(void)snprintf(path, sizeof(path), "/proc/%d/fd/%d", fake->engine, number);
	return open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

/* Whether the session goes on. */
static bool serve(struct fake *fake)
{
	const CriuReq *request = fake->request;
	bool has_gone_on = false;

	if (fake->rounds > 0 && request->type != CRIU_REQ_TYPE__PRE_DUMP &&
	    request->type != CRIU_REQ_TYPE__DUMP) {
		answer(fake, CRIU_REQ_TYPE__EMPTY, false);
		return false;
	}
	if (request->keep_open &&
	    (request->type == CRIU_REQ_TYPE__DUMP || request->type == CRIU_REQ_TYPE__RESTORE))
		_exit(255);
	switch ((int)request->type) {
	case CRIU_REQ_TYPE__VERSION:
		return serve_version(fake) && request->keep_open;
	case CRIU_REQ_TYPE__FEATURE_CHECK:
		return serve_features(fake) && request->keep_open;
	case CRIU_REQ_TYPE__CPUINFO_DUMP:
	case CRIU_REQ_TYPE__CPUINFO_CHECK:
		return serve_cpuinfo(fake) && request->keep_open;
	case CRIU_REQ_TYPE__PRE_DUMP:
		has_gone_on = serve_pre_dump(fake);
		break;
	case CRIU_REQ_TYPE__DUMP:
		serve_dump(fake);
		break;
	case CRIU_REQ_TYPE__RESTORE:
		serve_restore(fake);
		break;
	default:
		answer(fake, CRIU_REQ_TYPE__EMPTY, false);
	}
	return has_gone_on;
}

static bool serve_next(struct fake *fake)
{
	CriuReq *request = hear(fake);

	if (request == NULL)
		return false;
	fake->request = request;
	fake->images = fake->work = -1;
	if (request->opts != NULL) {
		fake->images = open_engines(fake, request->opts->images_dir_fd);
		fake->work = request->opts->has_work_dir_fd
				 ? open_engines(fake, request->opts->work_dir_fd)
				 : -1;
	}
	bool goes_on = serve(fake);
	if (fake->images >= 0)
		(void)close(fake->images);
	if (fake->work >= 0)
		(void)close(fake->work);
	criu_req__free_unpacked(request, NULL);
	return goes_on;
}

int main(int argc, char **argv)
{
	struct ucred peer;
	socklen_t size = sizeof(peer);
	struct fake fake = {.rpc = argc == 3 ? (int)strtol(argv[2], NULL, 10) : -1};

	if (argc == 2 && strcmp(argv[1], "--version") == 0)
		return puts("Version: 4.1.1 (fake)") < 0;
	if (argc != 3 || strcmp(argv[1], "swrk") != 0 ||
	    getsockopt(fake.rpc, SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0) {
		(void)fprintf(stderr, "usage: fake-criu swrk FD\n");
		return 2;
	}
	fake.engine = peer.pid;
	while (serve_next(&fake))
		;
	return 0;
}
