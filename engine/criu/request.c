/* SPDX-License-Identifier: Apache-2.0 */
/* What is left out here is left out on purpose: no cpu_cap for a restore (CRIU would demand a
 * cpuinfo.img among the images), no keep_open for DUMP and RESTORE (CRIU would close without a
 * word), and pre_dump_mode never VM_READ (it corrupts memory that goes to a socket). */
#include "engine/criu/request.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "engine/criu/criu_error.h"

enum {
	LOG_LEVEL_WARNINGS = 2,
	CPU_CAP_FPU = 1,
	CPU_CAP_INS = 4,
	NETWORK_UNLOCKS_MOST = 16, /* notifications after a refused dump */
};

/* A request with its options and the directories that CRIU opens through our descriptors. */
struct request {
	CriuReq message;
	CriuOpts opts;
	CriuPageServerInfo memory;
	int images_fd, work_fd;
};

static void scope_request(struct request *request)
{
	close_if_open(request->images_fd);
	close_if_open(request->work_fd);
}

static status *open_directory(const char *path, int *ret_fd)
{
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0)
		return status_errnof(errno, "cannot open directory %s", path);
	*ret_fd = fd;
	return NULL;
}

static void request_init(struct request *request, CriuReqType type)
{
	memset(request, 0, sizeof(*request));
	request->images_fd = request->work_fd = -1;
	criu_req__init(&request->message);
	criu_opts__init(&request->opts);
	criu_page_server_info__init(&request->memory);
	request->message.type = type;
}

static status *request_places(struct request *request, const char *images_dir, const char *work_dir,
			      const char *log_file)
{
	status *st = open_directory(images_dir, &request->images_fd);

	if (st == NULL)
		st = open_directory(work_dir, &request->work_fd);
	if (st != NULL)
		return st;
	request->message.opts = &request->opts;
	request->opts.images_dir_fd = request->images_fd;
	request->opts.has_work_dir_fd = 1;
	request->opts.work_dir_fd = request->work_fd;
	request->opts.has_log_level = 1;
	request->opts.log_level = LOG_LEVEL_WARNINGS;
	request->opts.log_file = (char *)log_file;
	return NULL;
}

/* --- short requests --- */

static status *short_call(struct swrk *session, struct request *request, const char *log_file,
			  const struct criu_limits *limits, CriuResp **ret_response)
{
	request->message.has_keep_open = 1;
	request->message.keep_open = 1;
	return swrk_call(session, &request->message, log_file, limits->short_ms, ret_response);
}

status *criu_version(struct swrk *session, const struct criu_limits *limits, unsigned *ret_version)
{
	struct request request __attribute__((cleanup(scope_request)));
	CriuResp *response = NULL;

	request_init(&request, CRIU_REQ_TYPE__VERSION);
	status *st = short_call(session, &request, NULL, limits, &response);
	if (st != NULL)
		return st;
	const CriuVersion *version = response->version;
	if (version == NULL || version->major_number < 1 || version->major_number > 1000 ||
	    version->minor_number < 0 || version->minor_number > 99)
		st = status_errorf(STATUS_FAILED_PRECONDITION,
				   "this CRIU does not tell its version");
	else
		*ret_version =
		    (unsigned)version->major_number * 10000 +
		    (unsigned)version->minor_number * 100 +
		    (version->has_sublevel && version->sublevel >= 0 && version->sublevel < 100
			 ? (unsigned)version->sublevel
			 : 0);
	criu_resp__free_unpacked(response, NULL);
	return st;
}

/* What CRIU and the kernel answer for the features that are asked for. */
static status *check_features(struct swrk *session, CriuFeatures *features,
			      const struct criu_limits *limits, CriuResp **ret_response)
{
	struct request request __attribute__((cleanup(scope_request)));

	request_init(&request, CRIU_REQ_TYPE__FEATURE_CHECK);
	request.message.features = features;
	return short_call(session, &request, NULL, limits, ret_response);
}

status *criu_has_dirty_tracking(struct swrk *session, const struct criu_limits *limits,
				bool *ret_has)
{
	CriuFeatures features = CRIU_FEATURES__INIT;
	CriuResp *response = NULL;

	features.has_mem_track = 1;
	features.mem_track = 1;
	status *st = check_features(session, &features, limits, &response);
	if (st != NULL)
		return status_detailf(st, "next",
				      "run criu check on this host to see what its kernel lacks");
	*ret_has = response->features != NULL && response->features->has_mem_track &&
		   response->features->mem_track;
	criu_resp__free_unpacked(response, NULL);
	return NULL;
}

status *criu_has_lazy_pages(struct swrk *session, const struct criu_limits *limits, bool *ret_has)
{
	CriuFeatures features = CRIU_FEATURES__INIT;
	CriuResp *response = NULL;

	features.has_lazy_pages = 1;
	features.lazy_pages = 1;
	status *st = check_features(session, &features, limits, &response);
	if (st != NULL)
		return st;
	*ret_has = response->features != NULL && response->features->has_lazy_pages &&
		   response->features->lazy_pages;
	criu_resp__free_unpacked(response, NULL);
	return NULL;
}

static status *cpuinfo(struct swrk *session, CriuReqType type, const char *dir,
		       const struct criu_limits *limits)
{
	struct request request __attribute__((cleanup(scope_request)));
	const char *log_file =
	    type == CRIU_REQ_TYPE__CPUINFO_DUMP ? "cpuinfo-dump.log" : "cpuinfo-check.log";
	CriuResp *response = NULL;

	request_init(&request, type);
	status *st = request_places(&request, dir, swrk_work_dir(session), log_file);
	if (st != NULL)
		return st;
	request.opts.has_cpu_cap = 1;
	request.opts.cpu_cap = CPU_CAP_FPU | CPU_CAP_INS;
	st = short_call(session, &request, log_file, limits, &response);
	if (response != NULL)
		criu_resp__free_unpacked(response, NULL);
	return st;
}

status *criu_cpuinfo_dump(struct swrk *session, const char *dir, const struct criu_limits *limits)
{
	return cpuinfo(session, CRIU_REQ_TYPE__CPUINFO_DUMP, dir, limits);
}

status *criu_cpuinfo_check(struct swrk *session, const char *dir, const struct criu_limits *limits)
{
	status *st = cpuinfo(session, CRIU_REQ_TYPE__CPUINFO_CHECK, dir, limits);

	/* CRIU itself says no more than "failed" here. */
	if (status_code_of(st) != STATUS_ABORTED &&
	    status_code_of(st) != STATUS_FAILED_PRECONDITION)
		return st;
	st = status_recode(st, STATUS_FAILED_PRECONDITION);
	return status_detailf(status_wrapf(st, "this host's CPU lacks what the source's CPU has"),
			      "next", "choose a destination with the same or a newer CPU");
}

/* --- dumps --- */

/* After a failure the session is of no more use, but CRIU may still wait for the page server with
 * the tree stopped, and the page server for CRIU: with the channel shut both end and the tree goes
 * on. */
static status *dump_failed(struct swrk *session, status *st)
{
	swrk_give_up(session);
	return st;
}

static status *dump_request(struct request *request, CriuReqType type, const struct criu_dump *dump)
{
	CriuOpts *opts = &request->opts;

	request_init(request, type);
	status *st = request_places(request, dump->images_dir, dump->work_dir, dump->log_file);
	if (st != NULL)
		return st;
	opts->has_pid = 1;
	opts->pid = dump->pid;
	opts->parent_img = (char *)dump->parent;
	opts->has_track_mem = 1;
	opts->track_mem = dump->track_mem;
	opts->has_shell_job = 1;
	opts->shell_job = dump->shell_job;
	opts->has_tcp_close = 1;
	opts->tcp_close = dump->tcp_close;
	opts->has_file_locks = 1;
	opts->file_locks = 1;
	opts->has_notify_scripts = 1;
	opts->notify_scripts = 1;
	opts->has_manage_cgroups_mode = 1;
	opts->manage_cgroups_mode = CRIU_CG_MODE__IGNORE;
	opts->has_pre_dump_mode = 1;
	opts->pre_dump_mode = CRIU_PRE_DUMP_MODE__SPLICE;
	opts->has_network_lock = 1;
	/* No connection moves: they are refused, or closed by the move. CRIU would leave the table
	 * of its lock behind at the source after each dump. */
	opts->network_lock = CRIU_NETWORK_LOCK_METHOD__SKIP;
	opts->ps = &request->memory;
	request->memory.has_fd = 1;
	request->memory.fd = SWRK_MEMORY_FD;
	return NULL;
}

status *criu_pre_dump(struct swrk *session, const struct criu_dump *dump)
{
	struct request request __attribute__((cleanup(scope_request)));
	CriuResp *response = NULL;
	status *st = dump_request(&request, CRIU_REQ_TYPE__PRE_DUMP, dump);

	if (st == NULL)
		st = swrk_call(session, &request.message, dump->log_file, dump->limits->long_ms,
			       &response);
	if (response != NULL)
		criu_resp__free_unpacked(response, NULL);
	return st == NULL ? NULL : dump_failed(session, st);
}

/* One event of the dump; *ret_held: it is the one to hold. */
static status *dump_step(struct swrk *session, const struct criu_dump *dump, bool *ret_held)
{
	scoped(swrk_event) struct swrk_event event = {0};
	status *st = swrk_next(session, dump->limits->long_ms, &event);

	if (st != NULL)
		return status_wrapf(st, "CRIU was to dump the tree");
	if (event.is_response && !event.response->success)
		return criu_error("dump the tree", event.response, dump->work_dir, dump->log_file);
	if (event.is_response)
		return status_errorf(STATUS_ABORTED, "CRIU ended its dump without waiting for us");
	*ret_held = strcmp(event.script, "post-dump") == 0;
	return *ret_held ? NULL : swrk_ack(session, true);
}

status *criu_dump_hold(struct swrk *session, const struct criu_dump *dump)
{
	struct request request __attribute__((cleanup(scope_request)));
	bool is_held = false;
	status *st = dump_request(&request, CRIU_REQ_TYPE__DUMP, dump);

	if (st == NULL)
		st = swrk_send(session, &request.message);
	while (st == NULL && !is_held)
		st = dump_step(session, dump, &is_held);
	return st == NULL ? NULL : dump_failed(session, st);
}

status *criu_dump_end(struct swrk *session, const struct criu_dump *dump, bool kill)
{
	status *st = swrk_ack(session, kill);

	/* In a network namespace of its own the tree stays locked and frozen until a last
	 * "network-unlock" is acknowledged. */
	for (int i = 0; i < NETWORK_UNLOCKS_MOST && st == NULL; i++) {
		scoped(swrk_event) struct swrk_event event = {0};
		st = swrk_next(session, dump->limits->long_ms, &event);
		if (st == NULL && event.is_response)
			return !kill || event.response->success
				   ? NULL
				   : criu_error("end the dumped tree", event.response,
						dump->work_dir, dump->log_file);
		if (st == NULL)
			st = swrk_ack(session, true);
	}
	if (st == NULL)
		st = status_errorf(STATUS_INTERNAL, "CRIU does not come to an end");
	return status_wrapf(st, "CRIU was to %s", kill ? "end the dumped tree" : "let the tree go");
}

/* --- restore --- */

/* CRIU pivots into its root, which the kernel allows for mount points only; its own message would
 * be of mountinfo. It matters to trees with a mount namespace of their own; others ignore it. */
static status *check_root(const char *root)
{
	struct statx info;

	if (root == NULL)
		return NULL;
	if (statx(AT_FDCWD, root, AT_NO_AUTOMOUNT, STATX_BASIC_STATS, &info) != 0)
		return status_errnof(errno, "cannot look at the destination's root %s", root);
	if ((info.stx_attributes_mask & STATX_ATTR_MOUNT_ROOT) == 0 ||
	    (info.stx_attributes & STATX_ATTR_MOUNT_ROOT) != 0)
		return NULL;
	return status_detailf(status_errorf(STATUS_FAILED_PRECONDITION,
					    "the destination's root %s is not a mount point", root),
			      "next", "mount --bind %s %s there, then migrate again", root, root);
}

struct inherits {
	InheritFd list[SWRK_MORE_FDS], *pointers[SWRK_MORE_FDS];
};

/* The request refers to what it is given. */
static void request_inherits(struct request *request, const struct criu_restore *restore,
			     struct inherits *inherits)
{
	for (size_t i = 0; i < restore->inherit_count; i++) {
		inherit_fd__init(&inherits->list[i]);
		inherits->list[i].key = restore->inherits[i].key;
		inherits->list[i].fd = SWRK_MORE_FD + (int32_t)restore->inherits[i].number;
		inherits->pointers[i] = &inherits->list[i];
	}
	request->opts.n_inherit_fd = restore->inherit_count;
	request->opts.inherit_fd = inherits->pointers;
}

static status *restore_request(struct request *request, const struct criu_restore *restore)
{
	CriuOpts *opts = &request->opts;

	request_init(request, CRIU_REQ_TYPE__RESTORE);
	status *st =
	    request_places(request, restore->images_dir, restore->work_dir, restore->log_file);
	if (st == NULL)
		st = check_root(restore->root);
	if (st != NULL)
		return st;
	opts->root = (char *)restore->root;
	opts->has_lazy_pages = restore->is_lazy;
	opts->lazy_pages = restore->is_lazy;
	opts->has_rst_sibling = 1;
	opts->rst_sibling = 1;
	opts->has_shell_job = 1;
	opts->shell_job = restore->shell_job;
	opts->has_tcp_close = 1;
	opts->tcp_close = restore->tcp_close;
	opts->has_file_locks = 1;
	opts->file_locks = 1;
	opts->has_notify_scripts = 1;
	opts->notify_scripts = 1;
	opts->has_manage_cgroups_mode = 1;
	opts->manage_cgroups_mode = CRIU_CG_MODE__IGNORE;
	return NULL;
}

struct restoring {
	const struct criu_restore *restore;
	status *(*before_resume)(void *self, pid_t root);
	void *self;
	pid_t root;
	bool is_frozen; /* before_resume has been called */
	bool is_done;
};

static status *restore_ended(struct restoring *state, const CriuResp *response)
{
	if (!response->success)
		return criu_error("restore the tree", response, state->restore->work_dir,
				  state->restore->log_file);
	if (response->restore != NULL && response->restore->pid > 0)
		state->root = response->restore->pid;
	if (!state->is_frozen || state->root <= 0)
		return status_errorf(STATUS_ABORTED,
				     "CRIU let the restored tree run without asking");
	state->is_done = true;
	return NULL;
}

static status *restore_step(struct swrk *session, struct restoring *state)
{
	scoped(swrk_event) struct swrk_event event = {0};
	status *st = swrk_next(session, state->restore->limits->long_ms, &event);

	if (st != NULL)
		return st;
	if (event.is_response)
		return restore_ended(state, event.response);
	if (event.pid > 0)
		state->root = event.pid;
	/* CRIU does not care for our answer here: on an error there must be none. */
	if (strcmp(event.script, "pre-resume") == 0 && !state->is_frozen) {
		st = state->before_resume(state->self, state->root);
		state->is_frozen = st == NULL;
	}
	return st == NULL ? swrk_ack(session, true) : st;
}

status *criu_restore_frozen(struct swrk *session, const struct criu_restore *restore,
			    status *(*before_resume)(void *self, pid_t root), void *self,
			    pid_t *ret_pid)
{
	struct request request __attribute__((cleanup(scope_request)));
	struct restoring state = {.restore = restore, .before_resume = before_resume, .self = self};
	struct inherits inherits;
	status *st = restore_request(&request, restore);

	request_inherits(&request, restore, &inherits);
	if (st == NULL)
		st = swrk_send(session, &request.message);
	while (st == NULL && !state.is_done)
		st = restore_step(session, &state);
	if (st != NULL)
		return status_wrapf(st, "restore");
	*ret_pid = state.root;
	return NULL;
}
