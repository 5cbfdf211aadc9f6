#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# no_fork.sh PROGRAM…: fork is never used, nor what calls it: a process with nng's threads must not be
# copied. posix_spawn only.
set -euo pipefail

failed=0
for program in "$@"; do
    symbols=$(nm -D --undefined-only "$program" | awk '{ print $NF }' | sed 's/@.*//')
    if ! grep -qx malloc <<<"$symbols"; then
        echo "$program: its symbols cannot be read" >&2
        failed=1
    fi
    if found=$(grep -xE '_?_?v?fork|_Fork|forkpty|daemon|clone3?|system|popen|wordexp' <<<"$symbols"); then
        echo "$program uses $(tr '\n' ' ' <<<"$found")" >&2
        failed=1
    fi
done
exit $failed
