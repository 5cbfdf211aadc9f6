#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# hand.sh: what migrations by hand have in common, by_hand.sh and runc_by_hand.sh.
#
# usage: . hand.sh; with `images` and `address` set:
#        serve_images PORT     an rsync daemon that takes images; end_images ends it
#        ask ACT [ARG]         at the source: tells the destination by fd 3 what comes next, and waits
# shellcheck disable=SC2154 # its users set them
set -euo pipefail

serve_images() {
    printf '%s\n' "pid file = $images/rsyncd.pid" '[images]' "path = $images" 'use chroot = no' \
        'read only = no' 'uid = 0' 'gid = 0' >"$images/rsyncd.conf"
    rsync --daemon --address="$address" --port="$1" --config="$images/rsyncd.conf"
}

end_images() {
    kill "$(<"$images/rsyncd.pid")"
}

ask() {
    local answer
    echo "$@" >&3
    read -r -t 1200 -u 4 answer
    [[ $answer == over ]]
}
