/* SPDX-License-Identifier: Apache-2.0 */
/* From CRIU's log to one sentence: the cause, not the first noise (CRIU's own cr_errmsg is the
 * first Error line, often harmless). */
#ifndef HAUL_ENGINE_CRIU_ERROR_H
#define HAUL_ENGINE_CRIU_ERROR_H

#include "criu/rpc.pb-c.h"
#include "proto/status.h"

/* Status for a failed response: "CRIU could not <what>: <meaning>", detail "criu" = its own line,
 * detail "next" = what to do where we know, detail "debug" = the last 20 lines of the log.
 * work_dir/log_file and work_dir/swrk.err are read (bounded). Codes: FAILED_PRECONDITION for
 * objects and files, ALREADY_EXISTS for a taken pid, RESOURCE_EXHAUSTED for no space, DATA_LOSS for
 * broken images, ABORTED otherwise. response may be NULL. */
must_check status *criu_error(const char *what, const CriuResp *response, const char *work_dir,
			      const char *log_file);

/* Pure part, for tests: the line in `log` that tells the cause; *ret_length 0 if none. */
const char *criu_error_cause(const char *log, size_t size, size_t *ret_length);

/* What CRIU says before it has a log goes to this file of its work directory. */
#define CRIU_STDERR "swrk.err"

enum { CRIU_LAST_WORDS = 512 };

/* The last line of that, with blanks for what is not to be printed; "" when there is none. */
void criu_last_words(const char *work_dir, char ret_words[CRIU_LAST_WORDS]);

#endif
