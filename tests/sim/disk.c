/* SPDX-License-Identifier: Apache-2.0 */
/* The disks, one a machine: what is written, what of it a power cut leaves. A file's content is
 * durable after fsync of it, its name after fsync of its directory. Directories and files made
 * through engine/host/files.h are no decisions: they are durable at once. */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include "engine/host/files.h"
#include "engine/migration/journal.h"
#include "tests/sim/sim.h"

enum { ENTRIES = 128, OPEN_FILES = 32, FD_BASE = 100000, NAME = 256 };

struct inode {
	uint8_t *data, *durable;
	size_t size, durable_size, room;
	size_t dirty_from; /* what is before is durable */
	const struct life *locked_by;
};

struct entry {
	int node;
	char path[NAME];
	bool is_directory, is_there;
	struct inode *inode, *durable; /* NULL: no such name */
};

struct open_file {
	bool is_used;
	int node;
	struct inode *inode; /* NULL: a directory */
	const struct life *life;
	char path[NAME];
};

static struct entry entries[ENTRIES];
static struct open_file open_files[OPEN_FILES];
static bool is_full[NODES];
static enum disk_failure failing[NODES];

static struct entry *entry_of(int node, const char *path, bool make)
{
	struct entry *empty = NULL;

	for (int i = 0; i < ENTRIES; i++) {
		struct entry *entry = &entries[i];
		if (entry->path[0] == '\0')
			empty = empty == NULL ? entry : empty;
		else if (entry->node == node && strcmp(entry->path, path) == 0)
			return entry;
	}
	if (!make)
		return NULL;
	if (empty == NULL || strlen(path) >= NAME)
		sim_fail("the played disk is too small");
	*empty = (struct entry){.node = node};
	(void)snprintf(empty->path, NAME, "%s", path);
	return empty;
}

static struct entry *existing(int node, const char *path)
{
	struct entry *entry = entry_of(node, path, false);

	return entry != NULL && (entry->is_directory ? entry->is_there : entry->inode != NULL)
		   ? entry
		   : NULL;
}

static struct inode *inode_new(void)
{
	struct inode *inode = calloc(1, sizeof(*inode));

	if (inode == NULL)
		abort();
	return inode;
}

static uint8_t *grown(uint8_t *data, size_t size)
{
	uint8_t *larger = realloc(data, size);

	if (larger == NULL)
		abort();
	return larger;
}

static void inode_write(struct inode *inode, const void *data, size_t size, size_t at)
{
	if (at + size > inode->room) {
		inode->room = (at + size) * 2;
		inode->data = grown(inode->data, inode->room);
	}
	if (at > inode->size)
		memset(inode->data + inode->size, 0, at - inode->size);
	memcpy(inode->data + at, data, size);
	if (at + size > inode->size)
		inode->size = at + size;
	if (at < inode->dirty_from)
		inode->dirty_from = at;
}

static void inode_sync(struct inode *inode)
{
	if (inode->dirty_from < inode->size) {
		inode->durable = grown(inode->durable, inode->size);
		memcpy(inode->durable + inode->dirty_from, inode->data + inode->dirty_from,
		       inode->size - inode->dirty_from);
	}
	inode->durable_size = inode->size;
	inode->dirty_from = inode->size;
}

static void inode_lose(struct inode *inode, enum disk_loss loss)
{
	size_t kept = inode->durable_size;

	if (loss == DISK_NAMES) {
		inode_sync(inode);
		return;
	}
	/* A torn write leaves a part of what was being appended. */
	if (loss == DISK_TORN && inode->size > kept && inode->dirty_from >= kept) {
		inode->size = kept + (inode->size - kept) / 2;
		inode_sync(inode);
		return;
	}
	inode->size = 0;
	inode->dirty_from = 0;
	if (kept > 0)
		inode_write(inode, inode->durable, kept, 0);
	inode->dirty_from = kept;
}

void disk_power_off(int node, enum disk_loss loss)
{
	for (int i = 0; i < ENTRIES; i++) {
		struct entry *entry = &entries[i];
		if (entry->path[0] == '\0' || entry->node != node || entry->is_directory)
			continue;
		if (loss == DISK_ALL || loss == DISK_NAMES)
			entry->inode = entry->durable;
		entry->durable = entry->inode;
	}
	for (int i = 0; i < ENTRIES; i++) {
		if (entries[i].path[0] != '\0' && entries[i].node == node &&
		    entries[i].inode != NULL)
			inode_lose(entries[i].inode, loss);
	}
}

void disk_unlock(const struct life *life)
{
	for (int i = 0; i < ENTRIES; i++) {
		if (entries[i].inode != NULL && entries[i].inode->locked_by == life)
			entries[i].inode->locked_by = NULL;
	}
	for (int i = 0; i < OPEN_FILES; i++) {
		if (open_files[i].life == life)
			open_files[i].is_used = false;
	}
}

void disk_wipe(int node)
{
	for (int i = 0; i < ENTRIES; i++) {
		if (entries[i].node == node)
			entries[i].path[0] = '\0';
	}
}

void disk_set_full(int node, bool full)
{
	is_full[node] = full;
}

void disk_set_failing(int node, enum disk_failure failure)
{
	failing[node] = failure;
}

bool disk_is_failing(int node)
{
	return failing[node] != DISK_WORKS;
}

bool disk_has_below(int node, const char *directory)
{
	size_t length = strlen(directory);

	for (int i = 0; i < ENTRIES; i++) {
		const struct entry *entry = &entries[i];
		if (entry->path[0] != '\0' && entry->node == node &&
		    strncmp(entry->path, directory, length) == 0 && entry->path[length] == '/' &&
		    existing(node, entry->path) != NULL)
			return true;
	}
	return false;
}

const uint8_t *disk_durable_journal(int node, size_t *ret_size)
{
	const struct entry *entry = entry_of(node, "/state/journal", false);

	if (entry == NULL || entry->durable == NULL || entry->durable->durable_size == 0)
		return NULL;
	*ret_size = entry->durable->durable_size;
	return entry->durable->durable;
}

/* --- the journal's system calls (ld --wrap) --- */

int __wrap_open64(const char *path, int flags, ...);
int __wrap_close(int fd);
int __real_close(int fd);
ssize_t __wrap_pwrite64(int fd, const void *data, size_t size, off_t at);
int __wrap_fsync(int fd);
int __wrap_fdatasync(int fd);
int __wrap_ftruncate64(int fd, off_t size);
int __wrap_fallocate64(int fd, int mode, off_t at, off_t size);
int __wrap_fstat64(int fd, struct stat *ret_info);
int __wrap_rename(const char *from, const char *to);
int __wrap_unlink(const char *path);
int __wrap_flock(int fd, int operation);
int __wrap_statvfs64(const char *path, struct statvfs *ret_info);

static struct open_file *file_of(int fd)
{
	if (fd < FD_BASE || fd >= FD_BASE + OPEN_FILES || !open_files[fd - FD_BASE].is_used)
		sim_fail("a descriptor that is not open");
	return &open_files[fd - FD_BASE];
}

int __wrap_open64(const char *path, int flags, ...)
{
	struct entry *entry = entry_of(node_here(), path, (flags & O_CREAT) != 0);

	if (entry == NULL || (!entry->is_directory && entry->inode == NULL && !(flags & O_CREAT))) {
		errno = ENOENT;
		return -1;
	}
	if (!entry->is_directory && entry->inode == NULL)
		entry->inode = inode_new();
	for (int i = 0; i < OPEN_FILES; i++) {
		struct open_file *file = &open_files[i];
		if (file->is_used)
			continue;
		*file = (struct open_file){true, node_here(), entry->inode, life_here(), ""};
		(void)snprintf(file->path, NAME, "%s", path);
		if ((flags & O_TRUNC) != 0)
			file->inode->size = file->inode->dirty_from = 0;
		return FD_BASE + i;
	}
	sim_fail("too many open files");
}

int __wrap_close(int fd)
{
	if (fd < FD_BASE)
		return __real_close(fd);
	struct open_file *file = file_of(fd);
	if (file->inode != NULL && strstr(file->path, "/lock") != NULL &&
	    file->inode->locked_by == life_here())
		file->inode->locked_by = NULL;
	file->is_used = false;
	return 0;
}

ssize_t __wrap_pwrite64(int fd, const void *data, size_t size, off_t at)
{
	struct open_file *file = file_of(fd);

	if (is_full[file->node]) {
		errno = ENOSPC;
		return -1;
	}
	if (failing[file->node] == DISK_REFUSES) {
		errno = EIO;
		return -1;
	}
	inode_write(file->inode, data, size, (size_t)at);
	sim_disk_point("written", file->path);
	return (ssize_t)size;
}

int __wrap_fsync(int fd)
{
	struct open_file *file = file_of(fd);

	sim_sleep(MS);
	enum disk_failure failure = failing[file->node];
	if (file->inode != NULL && failure != DISK_DROPS)
		inode_sync(file->inode);
	if (failure == DISK_DROPS || failure == DISK_SAVES_IT) {
		errno = EIO;
		return -1;
	}
	size_t length = strlen(file->path);
	for (int i = 0; i < ENTRIES && file->inode == NULL; i++) {
		if (entries[i].path[0] != '\0' && entries[i].node == file->node &&
		    strncmp(entries[i].path, file->path, length) == 0)
			entries[i].durable = entries[i].inode;
	}
	sim_disk_point("durable", file->path);
	return 0;
}

int __wrap_fdatasync(int fd)
{
	return __wrap_fsync(fd);
}

int __wrap_ftruncate64(int fd, off_t size)
{
	struct inode *inode = file_of(fd)->inode;

	if (failing[file_of(fd)->node] == DISK_SAVES_IT) {
		errno = EIO;
		return -1;
	}
	inode->size = (size_t)size;
	if (inode->dirty_from > inode->size)
		inode->dirty_from = inode->size;
	return 0;
}

int __wrap_fallocate64(int fd, int mode, off_t at, off_t size)
{
	(void)mode;
	(void)at;
	(void)size;
	if (!is_full[file_of(fd)->node])
		return 0;
	errno = ENOSPC;
	return -1;
}

int __wrap_fstat64(int fd, struct stat *ret_info)
{
	memset(ret_info, 0, sizeof(*ret_info));
	ret_info->st_size = (off_t)file_of(fd)->inode->size;
	return 0;
}

int __wrap_rename(const char *from, const char *to)
{
	struct entry *old = existing(node_here(), from);

	if (old == NULL)
		sim_fail("rename of what is not there");
	entry_of(node_here(), to, true)->inode = old->inode;
	old->inode = NULL;
	sim_disk_point("renamed", to);
	return 0;
}

int __wrap_unlink(const char *path)
{
	struct entry *entry = existing(node_here(), path);

	if (entry != NULL)
		entry->inode = NULL;
	return 0;
}

int __wrap_flock(int fd, int operation)
{
	struct inode *inode = file_of(fd)->inode;

	(void)operation;
	if (inode->locked_by != NULL && !inode->locked_by->is_dead) {
		errno = EWOULDBLOCK;
		return -1;
	}
	inode->locked_by = life_here();
	return 0;
}

int __wrap_statvfs64(const char *path, struct statvfs *ret_info)
{
	(void)path;
	memset(ret_info, 0, sizeof(*ret_info));
	return 0;
}

/* --- engine/host/files.h --- */

status *files_make_directory(const char *path)
{
	char partial[NAME];

	(void)snprintf(partial, sizeof(partial), "%s", path);
	for (char *slash = strchr(partial + 1, '/');; slash = strchr(slash + 1, '/')) {
		if (slash != NULL)
			*slash = '\0';
		struct entry *entry = entry_of(node_here(), partial, true);
		entry->is_directory = entry->is_there = true;
		if (slash == NULL)
			return NULL;
		*slash = '/';
	}
}

status *files_remove_tree(const char *path)
{
	size_t length = strlen(path);
	bool was_there = false;

	for (int i = 0; i < ENTRIES; i++) {
		struct entry *entry = &entries[i];
		if (entry->node != node_here() || strncmp(entry->path, path, length) != 0 ||
		    (entry->path[length] != '/' && entry->path[length] != '\0'))
			continue;
		entry->path[0] = '\0';
		was_there = true;
	}
	if (was_there)
		sim_point("removed", path);
	return NULL;
}

status *files_read(const char *path, size_t limit, struct buffer *ret_content)
{
	const struct entry *entry = existing(node_here(), path);

	if (entry == NULL || entry->is_directory)
		return status_errorf(STATUS_NOT_FOUND, "cannot open %s", path);
	if (entry->inode->size > limit)
		return status_errorf(STATUS_RESOURCE_EXHAUSTED, "%s is too long", path);
	ret_content->data = malloc(entry->inode->size + 1);
	ret_content->size = entry->inode->size;
	if (ret_content->data == NULL)
		abort();
	if (ret_content->size > 0)
		memcpy(ret_content->data, entry->inode->data, ret_content->size);
	return NULL;
}

status *files_write(const char *path, const void *data, size_t size)
{
	struct entry *entry = entry_of(node_here(), path, true);

	entry->inode = entry->durable = inode_new();
	if (size > 0)
		inode_write(entry->inode, data, size, 0);
	inode_sync(entry->inode);
	return NULL;
}

/* Reports and costs: nothing is decided by them, so no power is lost in the middle of it. */
status *files_replace(const char *path, const void *data, size_t size)
{
	return files_write(path, data, size);
}

status *files_each(const char *directory, void (*visit)(void *self, const char *name), void *self)
{
	char names[16][NAME];
	size_t count = 0, length = strlen(directory);

	for (int i = 0; i < ENTRIES && count < array_len(names); i++) {
		const struct entry *entry = &entries[i];
		if (entry->path[0] == '\0' || entry->node != node_here() ||
		    strncmp(entry->path, directory, length) != 0 || entry->path[length] != '/' ||
		    strchr(entry->path + length + 1, '/') != NULL ||
		    existing(entry->node, entry->path) == NULL)
			continue;
		(void)snprintf(names[count++], NAME, "%s", entry->path + length + 1);
	}
	for (size_t i = 0; i < count; i++)
		visit(self, names[i]);
	return NULL;
}

/* --- a journal that will be rewritten soon --- */

enum { COMPACT_ABOVE = 4 * 1024 * 1024, FILLER = 16000 };

static void append_filler(struct journal *journal, Haul__V1__JournalEvent event, size_t length)
{
	Haul__V1__JournalRecord record = HAUL__V1__JOURNAL_RECORD__INIT;
	static char text[FILLER + 1];

	memset(text, 'x', length);
	text[length] = '\0';
	record.event = event;
	record.id = (char *)"before";
	record.boot_id = (char *)"earlier";
	record.reason = text;
	status *st = journal_append(journal, &record);
	if (st != NULL)
		sim_fail("cannot fill a journal: %s", status_message(st));
}

static struct journal *open_journal(void)
{
	struct journal *journal;
	status *st = files_make_directory("/state");

	if (st == NULL)
		st = journal_open("/state", &journal);
	if (st != NULL)
		sim_fail("cannot make a journal: %s", status_message(st));
	return journal;
}

/* By far the most of it: once for many runs. */
void disk_fill_journal(void)
{
	struct journal *journal = open_journal();
	const struct entry *entry = entry_of(node_here(), "/state/journal", false);

	while (entry->inode->size + 2 * FILLER < COMPACT_ABOVE)
		append_filler(journal, HAUL__V1__JOURNAL_EVENT__J_SOURCE_BEGUN, FILLER);
	journal_close(journal);
}

void disk_make_big(int node, unsigned room)
{
	struct journal *journal = open_journal();
	const struct entry *entry = entry_of(node, "/state/journal", false);

	append_filler(journal, HAUL__V1__JOURNAL_EVENT__J_SOURCE_BEGUN, FILLER / 2);
	size_t left = COMPACT_ABOVE - room - entry->inode->size;
	append_filler(journal, HAUL__V1__JOURNAL_EVENT__J_SOURCE_BEGUN, left / 2);
	left = COMPACT_ABOVE - room - entry->inode->size;
	append_filler(journal, HAUL__V1__JOURNAL_EVENT__J_SOURCE_RESUMED,
		      left > 100 ? left - 40 : 1);
	journal_close(journal);
}
