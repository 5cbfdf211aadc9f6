/* SPDX-License-Identifier: Apache-2.0 */
/* lock: holds a flock and a POSIX record lock on FILE and checks that it still has the first.
 *
 * usage: lock STATUS FILE */
#include "tests/lab/workloads/heartbeat.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/file.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	struct flock record = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 8, .l_len = 8};
	if (argc != 3) {
		fprintf(stderr, "usage: lock STATUS FILE\n");
		return 2;
	}
	heartbeat_open(argv[1]);
	int held = open(argv[2], O_RDWR | O_CREAT | O_CLOEXEC, 0644);
	int recorded = open(argv[2], O_RDWR | O_CLOEXEC);
	int other = open(argv[2], O_RDWR | O_CLOEXEC);
	if (held < 0 || recorded < 0 || other < 0 || flock(held, LOCK_EX | LOCK_NB) != 0 ||
	    fcntl(recorded, F_SETLK, &record) != 0)
		heartbeat_die(argv[2]);
	for (;;) {
		if (flock(other, LOCK_EX | LOCK_NB) == 0)
			heartbeat_corrupt("the lock is lost");
		heartbeat_beat("ok", "");
		heartbeat_sleep(10);
	}
}
