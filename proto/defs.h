/* SPDX-License-Identifier: Apache-2.0 */
/* The few macros every file may use. There are seven, and there shall be no more. */
#ifndef HAUL_PROTO_DEFS_H
#define HAUL_PROTO_DEFS_H

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

/* Result must not be ignored. */
#define must_check __attribute__((warn_unused_result))

/* printf-like; `args` is 0 for functions that take a va_list. */
#define format_like(fmt, args) __attribute__((format(printf, fmt, args)))

#define array_len(a) (sizeof(a) / sizeof((a)[0]))

/* TAKE hands a pointer over: yields its value and leaves NULL behind. */
#define TAKE(p)                                                                                    \
	__extension__({                                                                            \
		__typeof__(p) *take_at_ = &(p);                                                    \
		__typeof__(p) take_was_ = *take_at_;                                               \
		*take_at_ = NULL;                                                                  \
		take_was_;                                                                         \
	})

/* TAKE_FD hands a descriptor over: yields it and leaves -1 behind. */
#define TAKE_FD(fd)                                                                                \
	__extension__({                                                                            \
		int *take_fd_at_ = &(fd);                                                          \
		int take_fd_was_ = *take_fd_at_;                                                   \
		*take_fd_at_ = -1;                                                                 \
		take_fd_was_;                                                                      \
	})

/* scoped(x) releases the variable by x's scope function when its block ends; DEFINE_SCOPE makes
 * that function: DEFINE_SCOPE(name, type, release) calls release(value). */
#define scoped(name) __attribute__((cleanup(scope_##name), unused))
#define DEFINE_SCOPE(name, type, release)                                                          \
	static inline void scope_##name(type *value)                                               \
	{                                                                                          \
		release(*value);                                                                   \
	}                                                                                          \
	struct scope_##name##_dummy

static inline void close_if_open(int fd)
{
	if (fd >= 0)
		(void)close(fd);
}

DEFINE_SCOPE(fd, int, close_if_open); /* scoped(fd) int fd = -1; */
DEFINE_SCOPE(mem, void *, free);      /* only for void *; see scoped(str) and scoped(bytes) */
DEFINE_SCOPE(str, char *, free);
DEFINE_SCOPE(bytes, uint8_t *, free);

#endif
