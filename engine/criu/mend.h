/* SPDX-License-Identifier: Apache-2.0 */
/* Mends what CRIU 4.1 dumps so that it would be lost at the restore.
 *
 * A periodic timerfd that has expired and was not read has nothing left until its next expiration:
 * the kernel starts the next period only when it is read. CRIU dumps "0 left", and restoring that
 * disarms the timer for good (timerfd_settime(2): zero disarms): a program that waits for it would
 * wait for ever. With one nanosecond left it expires at once and goes on with its period; the
 * unread expirations are restored by CRIU as they were. */
#ifndef HAUL_ENGINE_CRIU_MEND_H
#define HAUL_ENGINE_CRIU_MEND_H

#include "proto/pack.h"

/* The only image that is mended. */
#define CRIU_MENDED_IMAGE "files.img"

/* Mends dir/files.img in place; *ret_count = timers mended. Missing file: nothing to do. */
must_check status *criu_mend(const char *dir, unsigned *ret_count);

/* Pure part: a new image in *ret_mended (data NULL when nothing was to be mended). DATA_LOSS when
 * it is no files.img. */
must_check status *criu_mend_files(const uint8_t *data, size_t size, struct buffer *ret_mended,
				   unsigned *ret_count);

#endif
