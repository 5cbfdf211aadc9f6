/* SPDX-License-Identifier: Apache-2.0 */
/* fake-criu: speaks CRIU's RPC and page stream and fails on command.
 *
 * It really stops the tree (ptrace: the tree runs on when the fake dies), really kills it, and
 * really starts a process with the old id at the destination; but what it dumps is the command
 * line, and the pages are made up, and written into the tree where it has room for them
 * (fake-victim). A restore checks that each of them has arrived in its last version.
 *
 * HAUL_FAKE_CRIU holds words: fail=POINT (answers with an error), die=POINT, hang=POINT,
 * garbage=POINT (an unreadable packet), version=N, pages=N (a task), slow=MS (before each record),
 * no-track, no-kernel, cpu-mismatch, any-pid (restore under another id when the old one is taken).
 * Points: version, feature-check, cpuinfo-dump, cpuinfo-check, pre-dump (frozen), pages, dump
 * (frozen), close, post-dump, kill, restore, post-restore, pre-resume, response. */
#ifndef HAUL_TESTS_FAKE_FAKE_H
#define HAUL_TESTS_FAKE_FAKE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

enum { FAKE_ADDRESS = 0x10000000 };
enum { FAKE_PIDS = 256, FAKE_TASKS = 1024, FAKE_PAGE = 4096, FAKE_PAGES = 96, FAKE_TEXT = 8192 };

/* --- fake_faults.c --- */

/* Whether the word "verb=point" stands there. */
bool fault_is(const char *verb, const char *point);
bool fault_word(const char *word);
long fault_number(const char *name, long otherwise);

/* Dies or hangs if so told. */
void fault_point(const char *point);

/* --- fake_tree.c: a stopped tree --- */

struct fake_tree {
	pid_t pids[FAKE_PIDS];
	size_t count;
	pid_t tasks[FAKE_TASKS];
	size_t task_count;
};

/* Stops root and all below; false if it is not there or cannot be stopped. */
bool tree_seize(pid_t root, struct fake_tree *ret_tree);
void tree_release(const struct fake_tree *tree);
void tree_kill(const struct fake_tree *tree);

/* --- fake_pages.c --- */

/* The round: 1 … ; which pages go is a function of it. */
struct fake_memory {
	int fd; /* the page server's */
	unsigned round;
	unsigned pages; /* a task */
};

bool pages_ask_parent(const struct fake_memory *memory, pid_t pid);
bool pages_send(const struct fake_memory *memory, pid_t pid);
bool pages_close(const struct fake_memory *memory);

/* Whether images (with its parents) hold all pages of pid in their last version; else says what is
 * wrong. */
bool pages_check(int images, pid_t pid, unsigned round, unsigned pages, char ret_why[256]);

/* --- fake_images.c --- */

/* One image a task; then those of the whole tree. */
bool images_write_tasks(int images, const struct fake_tree *tree);
bool images_write_tree(int images, const struct fake_tree *tree, const struct fake_memory *memory);

struct fake_images {
	pid_t pids[FAKE_PIDS];
	size_t count;
	unsigned round, pages;
	char cwd[FAKE_TEXT];
	char command[FAKE_TEXT]; /* as in /proc/PID/cmdline */
	size_t command_size;
};
bool images_read(int images, struct fake_images *ret_images);

/* Starts the command in a child of our parent, parked; *ret_gate: write 'r' (about to run) and 'g'
 * (go). When the gate closes it runs if 'r' came, as a restored tree does when CRIU dies; else it
 * stays parked. Returns the pid or -errno. */
pid_t restored_start(const struct fake_images *images, int *ret_gate);

#endif
