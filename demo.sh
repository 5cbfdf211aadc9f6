#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# demo.sh: a live migration to watch: redis with 100 000 keys moves between two hosts of a virtual
# lab while a client writes to it.
#
# usage: ./demo.sh        as root on a Debian-like machine; the first run makes the lab (3 minutes)
set -euo pipefail
cd "$(dirname "$(realpath "${BASH_SOURCE[0]}")")"

tests/lab/toolbox.sh run sh -c 'cmake --preset release >/dev/null && cmake --build --preset release'
export HAUL_DEMO=1
exec tests/lab/run.sh guest guest_redis
