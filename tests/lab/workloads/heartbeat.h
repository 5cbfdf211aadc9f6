/* SPDX-License-Identifier: Apache-2.0 */
/* heartbeat: how a workload tells from outside its memory that it runs and that its content is
 * right.
 *
 * The status file is opened once, has a fixed size and is rewritten in place, so that a migrated
 * workload finds the same file at the destination. Its one line:
 *   WORD N gap_ms=G at_ms=T pid=P[ TEXT]
 * WORD is ok, closed or CORRUPT; N counts beats; G is the largest time between two beats since the
 * start or the last SIGUSR1; T is the time of this beat (CLOCK_REALTIME: the others may be restored
 * into another time namespace). A workload beats about every 10 ms and writes every 50 ms. */
#ifndef HAUL_TESTS_LAB_WORKLOADS_HEARTBEAT_H
#define HAUL_TESTS_LAB_WORKLOADS_HEARTBEAT_H

#include <stdint.h>

/* heartbeat_open opens the status file; it ends the process when it cannot. */
void heartbeat_open(const char *path);

/* heartbeat_beat notes that the workload is alive; TEXT is shown at the end of the line. */
void heartbeat_beat(const char *word, const char *text);

/* heartbeat_corrupt reports what was found wrong and ends the process. */
_Noreturn void heartbeat_corrupt(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* heartbeat_die ends the process with errno's text: the workload could not even start. */
_Noreturn void heartbeat_die(const char *what);

/* heartbeat_sleep sleeps for MS milliseconds, whatever signals arrive. */
void heartbeat_sleep(int ms);

/* heartbeat_now is CLOCK_REALTIME in ms. */
int64_t heartbeat_now(void);

#endif
