#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# by_hand.sh: a migration with what CRIU and rsync bring, as an operator would script it: pre-dumps and
# the dump to page servers at the destination, rsync of the images, restore. Memory goes by CRIU's own TLS, as
# it must between machines (HAND_PLAIN=1: in the clear); the images, a few kilobytes, go in the clear.
#
# usage: by_hand.sh destination DIR ADDRESS         serves one migration, then ends
#        by_hand.sh source DIR ADDRESS ROUNDS PID   moves PID there; ROUNDS counts the dump
#
# ROUNDS is a number, or "phaul" for p.haul's rule: pre-dump until no more than 64 pages were dirty, they
# became more by over a tenth, or 8 rounds are done. HAND_FLAGS goes to every dump and to the restore.
# DIR holds the two pipes by which the source tells the destination what comes next (in place of ssh,
# and faster); each side keeps its images in /var/lib/haul/hand.
# shellcheck source-path=SCRIPTDIR
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/hand.sh"

images=/var/lib/haul/hand
rsync_port=8730
pki=/srv/shared/pki
name=$(hostname)
tls=(--tls --tls-cacert "$pki/ca.pem" --tls-cert "$pki/${name,,}.pem" --tls-key "$pki/${name,,}.key"
    --tls-no-cn-verify)
[[ -z ${HAND_PLAIN:-} ]] || tls=()

serve() {
    local round=$1 parent=()
    mkdir -p "$images/$round"
    ((round == 1)) || parent=(--prev-images-dir "../$((round - 1))")
    criu page-server --daemon --images-dir "$images/$round" "${parent[@]}" --address "$address" \
        --port "$((9000 + round))" "${tls[@]}" --log-file server.log
}

destination() {
    local act argument
    trap 'echo failed >&4' EXIT
    mkdir -p "$images"
    serve_images "$rsync_port"
    exec 3<>"$dir/orders" 4<>"$dir/answers"
    echo ready >&4
    while read -r -u 3 act argument; do
        case $act in
        serve) serve "$argument" ;;
        restore)
            # shellcheck disable=SC2086 # flags
            criu restore --restore-detached --images-dir "$images/$argument" ${HAND_FLAGS:-} --log-file restore.log
            break
            ;;
        esac
        echo over >&4
    done
    trap 'echo over >&4' EXIT
    end_images
}

# copy ACT ROUND
copy() {
    local act=$1 round=$2 flags=()
    mkdir -p "$images/$round"
    ((round == 1)) || flags+=(--prev-images-dir "../$((round - 1))")
    [[ $rounds == 1 ]] || flags+=(--track-mem) # needs a kernel that can
    ask serve "$round"
    # shellcheck disable=SC2086 # flags
    criu "$act" --tree "$pid" --images-dir "$images/$round" "${flags[@]}" ${HAND_FLAGS:-} --page-server \
        --address "$address" --port "$((9000 + round))" "${tls[@]}" --log-file dump.log
}

pages_written() {
    python3 -c 'import pycriu, sys
print(pycriu.images.load(open(sys.argv[1], "rb"))["entries"][0]["dump"]["pages_written"])' \
        "$images/$1/stats-dump"
}

# Whether another round follows this one.
goes_on() {
    local round=$1 before=${pages:-}
    [[ $rounds == phaul ]] || return "$((round + 1 >= rounds))"
    pages=$(pages_written "$round")
    ((pages > 64 && round < 8)) && [[ -z $before || $pages -le $((before * 11 / 10)) ]]
}

source_side() {
    local round=1
    mkdir -p "$images"
    exec 3<>"$dir/orders" 4<>"$dir/answers"
    read -r -t 120 -u 4 _ # ready
    if [[ $rounds != 1 ]]; then
        copy pre-dump 1
        while goes_on "$round"; do
            round=$((round + 1))
            copy pre-dump "$round"
        done
        round=$((round + 1))
    fi
    copy dump "$round"
    rsync --archive --exclude parent --exclude '*.log' "$images/$round" "rsync://$address:$rsync_port/images/"
    ask restore "$round"
    echo "$round rounds"
}

role=$1 dir=$2 address=$3 rounds=${4:-} pid=${5:-}
rm -rf "$images"
case $role in
destination) destination ;;
source) source_side ;;
esac
