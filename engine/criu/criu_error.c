/* SPDX-License-Identifier: Apache-2.0 */
/* CRIU tells what went wrong in its log, among lines that are always there. The cause is the first
 * line of the kind "Error (file:line): …" that is neither noise nor a mere "it failed". */
#include "engine/criu/criu_error.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "engine/host/files.h"
#include "proto/pack.h"
#include "proto/reason.h"

enum { LOG_LIMIT = 1024 * 1024, LINE_MOST = 512, TAIL_LINES = 20, TAIL_MOST = 4000 };

struct meaning {
	const char *pattern; /* "a*b": a, and somewhere after it b */
	enum status_code code;
	const char *meaning;
	const char *next;
};

/* Both tables are at the end. */
static const char *const *noise_patterns(void);
static const struct meaning *meanings(void);

static bool line_has(const char *line, size_t length, const char *pattern)
{
	for (;;) {
		size_t part = strcspn(pattern, "*");
		const char *found = memmem(line, length, pattern, part);
		if (found == NULL)
			return false;
		if (pattern[part] == '\0')
			return true;
		length -= (size_t)(found - line) + part;
		line = found + part;
		pattern += part + 1;
	}
}

static bool is_noise(const char *line, size_t length)
{
	for (const char *const *pattern = noise_patterns(); *pattern != NULL; pattern++)
		if (line_has(line, length, *pattern))
			return true;
	return false;
}

/* "Dumping FAILED.", "Restoring FAILED.": the last line of every failure. */
static bool is_generic(const char *line, size_t length)
{
	return line_has(line, length, "FAILED.");
}

const char *criu_error_cause(const char *log, size_t size, size_t *ret_length)
{
	const char *generic = NULL, *end = log + size;
	size_t generic_length = 0;

	for (const char *line = log; line < end;) {
		const char *stop = memchr(line, '\n', (size_t)(end - line));
		size_t length = stop != NULL ? (size_t)(stop - line) : (size_t)(end - line);
		bool is_error = line_has(line, length, "Error (") && !is_noise(line, length);
		if (is_error && !is_generic(line, length)) {
			*ret_length = length;
			return line;
		}
		if (is_error) {
			generic = line;
			generic_length = length;
		}
		line += length + 1;
	}
	*ret_length = generic_length;
	return generic_length > 0 ? generic : log;
}

/* Copies the cause without control characters, and without what stands before "Error". */
static void copy_line(const char *line, size_t length, char text[LINE_MOST])
{
	const char *word = memmem(line, length, "Error (", 7);

	if (word != NULL) {
		length -= (size_t)(word - line);
		line = word;
	}
	if (length >= LINE_MOST)
		length = LINE_MOST - 1;
	for (size_t i = 0; i < length; i++)
		text[i] = (char)((unsigned char)line[i] < ' ' ? ' ' : line[i]);
	text[length] = '\0';
}

/* Of a long log the beginning: the cause is the first error. */
static status *read_head(const char *path, struct buffer *ret_content)
{
	scoped(fd) int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return status_errnof(errno, "cannot open %s", path);
	uint8_t *data = malloc(LOG_LIMIT);
	if (data == NULL)
		return status_errnof(ENOMEM, "cannot read %s", path);
	ssize_t got = pread(fd, data, LOG_LIMIT, 0);
	ret_content->data = data;
	ret_content->size = got > 0 ? (size_t)got : 0;
	return NULL;
}

static void find_in(const char *work_dir, const char *name, char text[LINE_MOST])
{
	char path[FILES_PATH + 256];
	struct buffer content __attribute__((cleanup(scope_buffer))) = {0};
	size_t length = 0;

	(void)snprintf(path, sizeof(path), "%.4000s/%.200s", work_dir, name);
	scoped(status) status *st = read_head(path, &content);
	if (st != NULL)
		return;
	const char *line = criu_error_cause((const char *)content.data, content.size, &length);
	if (length > 0)
		copy_line(line, length, text);
}

/* The log's line; else what it said on stderr before it had a log; else the response's own. */
static void find_cause(const CriuResp *response, const char *work_dir, const char *log_file,
		       char text[LINE_MOST])
{
	text[0] = '\0';
	if (log_file != NULL)
		find_in(work_dir, log_file, text);
	if (text[0] == '\0' || is_generic(text, strlen(text))) {
		char early[LINE_MOST] = "";
		find_in(work_dir, "swrk.err", early);
		if (early[0] != '\0' && !is_generic(early, strlen(early)))
			memcpy(text, early, sizeof(early));
	}
	if (text[0] == '\0' && response != NULL && response->cr_errmsg != NULL)
		copy_line(response->cr_errmsg, strlen(response->cr_errmsg), text);
}

static const struct meaning *meaning_of(const char *text)
{
	for (const struct meaning *entry = meanings(); entry->pattern != NULL; entry++)
		if (line_has(text, strlen(text), entry->pattern))
			return entry;
	return NULL;
}

/* Behind "Error (file.c:12): ", the words. */
static const char *words_of(const char *text)
{
	const char *colon = strncmp(text, "Error (", 7) == 0 ? strstr(text, "): ") : NULL;

	return colon != NULL ? colon + 3 : text;
}

/* The last lines of the log, printable. */
static void copy_tail(const char *log, size_t size, char text[TAIL_MOST])
{
	const char *start = log + size;
	size_t lines = 0, used = 0;

	while (start > log && (size_t)(log + size - start) < TAIL_MOST - 1) {
		if (start[-1] == '\n' && start != log + size && ++lines == TAIL_LINES)
			break;
		start--;
	}
	for (; start < log + size; start++)
		text[used++] = (char)((unsigned char)*start < ' ' && *start != '\n' ? ' ' : *start);
	text[used] = '\0';
}

static status *add_tail(status *st, const char *work_dir, const char *name)
{
	char path[FILES_PATH + 256], tail[TAIL_MOST], window[TAIL_MOST];

	(void)snprintf(path, sizeof(path), "%.4000s/%.200s", work_dir, name);
	scoped(fd) int fd = open(path, O_RDONLY | O_CLOEXEC);
	off_t size = fd >= 0 ? lseek(fd, 0, SEEK_END) : 0;
	off_t from = size > TAIL_MOST ? size - TAIL_MOST : 0;
	ssize_t got = fd >= 0 ? pread(fd, window, sizeof(window), from) : 0;
	if (got <= 0)
		return st;
	copy_tail(window, (size_t)got, tail);
	return status_detailf(st, DEBUG_LABEL, "%s", tail);
}

status *criu_error(const char *what, const CriuResp *response, const char *work_dir,
		   const char *log_file)
{
	char text[LINE_MOST];
	int err = response != NULL && response->has_cr_errno ? response->cr_errno : 0;

	find_cause(response, work_dir, log_file, text);
	const struct meaning *known = text[0] != '\0' ? meaning_of(text) : NULL;
	status *st;
	if (known != NULL)
		st = status_errorf(known->code, "CRIU could not %s: %s", what, known->meaning);
	else if (text[0] != '\0' && !is_generic(text, strlen(text)))
		st = status_errorf(STATUS_ABORTED, "CRIU could not %s: %s", what, words_of(text));
	else if (err > 0)
		st = status_errorf(err == EEXIST ? STATUS_ALREADY_EXISTS : STATUS_ABORTED,
				   "CRIU could not %s: %s", what, strerrordesc_np(err));
	else
		st = status_errorf(STATUS_ABORTED, "CRIU could not %s and did not say why", what);
	st = status_because(st, REASON_CRIU_FAILED);
	if (text[0] != '\0')
		st = status_detailf(st, "criu", "%s", text);
	if (log_file != NULL)
		st = add_tail(st, work_dir, log_file);
	if (known != NULL && known->next != NULL)
		st = status_detailf(st, "next", "%s", known->next);
	else if (log_file != NULL)
		st = status_detailf(st, "log", "%s/%s", work_dir, log_file);
	return st;
}

void criu_last_words(const char *work_dir, char ret_words[CRIU_LAST_WORDS])
{
	char path[FILES_PATH + 16];
	struct buffer content __attribute__((cleanup(scope_buffer))) = {0};

	(void)snprintf(path, sizeof(path), "%s/" CRIU_STDERR, work_dir);
	scoped(status) status *st = files_read(path, LOG_LIMIT, &content);
	size_t end = content.size;
	while (end > 0 && content.data[end - 1] == '\n')
		end--;
	size_t begin = end;
	while (begin > 0 && content.data[begin - 1] != '\n' && end - begin < CRIU_LAST_WORDS - 1)
		begin--;
	for (size_t i = begin; i < end; i++)
		ret_words[i - begin] = (char)(content.data[i] < ' ' ? ' ' : content.data[i]);
	ret_words[end - begin] = '\0';
}

/* --- tables --- */

/* Lines that CRIU logs as errors though nothing is wrong. */
static const char *const noise[] = {
    "TCP_CORK", /* the memory channel is no TCP */
    "TCP_NODELAY",
    "RLIMIT_NOFILE", /* no CAP_SYS_RESOURCE */
    "Iptables configuration failed",
    "exited, status=1",
    NULL,
};

static const char *const *noise_patterns(void)
{
	return noise;
}

/* clang-format off */
#define PRECONDITION STATUS_FAILED_PRECONDITION
static const struct meaning known_meanings[] = {
	{"Can't fork for*File exists", STATUS_ALREADY_EXISTS, "a process id of the tree is taken here",
	 "end the process with that id (a zombie counts: its parent must reap it), or migrate to another host"},
	{"Unable to interrupt task*Operation not permitted", PRECONDITION, "a debugger traces the tree",
	 "detach strace, gdb or the like from it"},
	{"Can't seize*Operation not permitted", PRECONDITION, "a debugger traces the tree",
	 "detach strace, gdb or the like from it"},
	{"Unable to interrupt task*No such process", STATUS_NOT_FOUND, "a process of the tree ended meanwhile", NULL},
	{"[io_uring]", PRECONDITION, "the tree uses io_uring, which CRIU cannot take along",
	 "turn io_uring off in the workload"},
	{"send_fds failed (-22)", PRECONDITION, "the tree uses io_uring, which CRIU cannot take along",
	 "turn io_uring off in the workload"},
	{"Can't dump file*of that type", PRECONDITION, "the tree has a file or device open that CRIU cannot take along",
	 "close it in the workload (the line of CRIU tells descriptor and type)"},
	{"Unknown socket collected", PRECONDITION, "the tree has a socket of a kind that CRIU does not know", NULL},
	{"Connected TCP socket", PRECONDITION, "the tree has established TCP connections",
	 "close them, or migrate with --tcp-close if they may be dropped"},
	{"In-flight connection", PRECONDITION, "a TCP connection of the tree is just being made", "try again"},
	{"Some file locks are hold", PRECONDITION, "the tree holds file locks together with others", NULL},
	{"External socket is used", PRECONDITION, "the tree talks through a unix socket to a process outside",
	 "close that socket in the workload"},
	{"Found dangling tty", PRECONDITION, "the tree is attached to a terminal",
	 "start it detached (setsid, redirected stdio), or use --shell-job"},
	{"A session leader of*is outside", PRECONDITION, "the tree's session leader is not part of the tree",
	 "start it with setsid, or use --shell-job"},
	{"Can't dump ghost file*increase limit", PRECONDITION, "a deleted file that is still open is larger than 1 MiB", NULL},
	{"Can't create link remap", PRECONDITION, "a deleted file that is still open has other names", NULL},
	{"unix: FATAL: Peer", PRECONDITION, "the tree talks through a unix socket to a process outside",
	 "close that socket in the workload"},
	{"has bad size", PRECONDITION, "a file differs at the destination in size",
	 "install the same programs and libraries on both hosts, or share the files"},
	{"has bad mode", PRECONDITION, "a file differs at the destination in mode", "make the file the same on both hosts"},
	{"Can't open file*No such file", PRECONDITION, "a file of the tree is missing at the destination",
	 "bring the file there first (CRIU's line names it)"},
	{"Can't bind inet socket*Address already in use", PRECONDITION, "a port of the tree is in use at the destination",
	 "end what listens there"},
	{"Can't bind inet socket", PRECONDITION, "an address of the tree is not at the destination",
	 "add the address there, or let the workload listen on 0.0.0.0"},
	{"CPU instruction capabilities do not match", PRECONDITION, "this CPU lacks instructions that the tree may use", NULL},
	{"FPU feature required by image", PRECONDITION, "this CPU lacks floating point features", NULL},
	{"xfeatures has unsupported bits", PRECONDITION, "this CPU lacks floating point features", NULL},
	{"FPU xsave area present", PRECONDITION, "this CPU lacks xsave", NULL},
	{"Not supported images version", PRECONDITION, "the images are of another CRIU",
	 "install the same CRIU on both hosts"},
	{"Magic doesn't match", STATUS_DATA_LOSS, "an image file is damaged", NULL},
	{"Failed unpacking object", STATUS_DATA_LOSS, "an image file is damaged", NULL},
	{"Unexpected EOF on", STATUS_DATA_LOSS, "an image file is missing or short", NULL},
	{"Can't open parent path", STATUS_DATA_LOSS, "an earlier round's pages are missing", NULL},
	{"The page server doesn't answer", STATUS_UNAVAILABLE, "the memory channel broke", NULL},
	{"Can't send PSI", STATUS_UNAVAILABLE, "the memory channel broke", NULL},
	{"Can't write pages to socket", STATUS_UNAVAILABLE, "the memory channel broke", NULL},
	{"Unable to spice data", STATUS_UNAVAILABLE, "the memory channel broke", NULL},
	{"No space left on device", STATUS_RESOURCE_EXHAUSTED, "the disk is full", "free space in the state directory"},
	{"Cannot allocate memory", STATUS_RESOURCE_EXHAUSTED, "not enough memory", NULL},
	{"Unable to convert uid or gid", PRECONDITION, "the tree lives in a user namespace of its own", NULL},
	{NULL, STATUS_UNKNOWN, NULL, NULL},
};
/* clang-format on */

static const struct meaning *meanings(void)
{
	return known_meanings;
}
