#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# runc_by_hand.sh: a container that moves with what runc brings: checkpoints with --pre-dump to page servers at
# the destination, rsync of the images, restore. In the clear, as runc has it.
#
# usage: runc_by_hand.sh run NAME PROGRAM [ARG…]      starts a container; prints its pid
#        runc_by_hand.sh destination DIR ADDRESS NAME  serves one migration, then ends; prints nothing
#        runc_by_hand.sh source DIR ADDRESS ROUNDS NAME moves it there; ROUNDS counts the last checkpoint
#
# DIR holds the two pipes by which the source tells the destination what comes next. The container sees /usr
# and the tree of the tests read-only, and /srv/shared.
# shellcheck source-path=SCRIPTDIR
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/hand.sh"

images=/var/lib/haul/runc
bundle=/var/lib/haul/bundle
rsync_port=8731
tree=$(realpath "$(dirname "${BASH_SOURCE[0]}")/../..")

make_bundle() {
    local link
    rm -rf "$bundle"
    mkdir -p "$bundle/rootfs"/{usr,proc,dev,sys,tmp,srv/shared} "$bundle/rootfs$tree"
    for link in bin sbin lib lib64; do
        ln -s "usr/$link" "$bundle/rootfs/$link"
    done
    (cd "$bundle" && runc spec)
    python3 - "$bundle/config.json" "$tree" "$@" <<'PY'
import json, sys

path, tree, *words = sys.argv[1:]
config = json.load(open(path))
config["process"].update(terminal=False, args=words, noNewPrivileges=False)
config["root"]["readonly"] = False
config["hostname"] = "container"
config["linux"]["namespaces"] = [n for n in config["linux"]["namespaces"] if n["type"] not in ("network", "cgroup")]
config["linux"].pop("seccomp", None)
config["mounts"] = [m for m in config["mounts"] if m["destination"] not in ("/sys/fs/cgroup", "/sys")]
for place, mode in (("/usr", "ro"), (tree, "ro"), ("/srv/shared", "rw")):
    config["mounts"].append({"destination": place, "type": "bind", "source": place, "options": ["rbind", mode]})
json.dump(config, open(path, "w"))
PY
}

state_pid() {
    runc state "$1" | python3 -c 'import json, sys; print(json.load(sys.stdin)["pid"])'
}

start() {
    local name=$1
    shift
    make_bundle "$@"
    runc run --detach --bundle "$bundle" "$name" </dev/null >/dev/null 2>&1
    state_pid "$name"
}

destination() {
    local act argument parent
    trap 'echo failed >&4' EXIT
    exec 3<>"$dir/orders" 4<>"$dir/answers"
    rm -rf "$images"
    mkdir -p "$images"
    serve_images "$rsync_port"
    echo ready >&4
    while read -r -u 3 act argument; do
        case $act in
        bundle) make_bundle true ;;
        serve)
            parent=()
            mkdir -p "$images/$argument"
            ((argument == 1)) || parent=(--prev-images-dir "../$((argument - 1))")
            criu page-server --daemon --images-dir "$images/$argument" "${parent[@]}" --address "$address" \
                --port "$((9100 + argument))" --log-file server.log
            ;;
        restore)
            cp "$dir/config.json" "$bundle/config.json"
            runc restore --detach --image-path "$images/$argument" --bundle "$bundle" "$name" </dev/null \
                >/dev/null 2>&1
            break
            ;;
        esac
        echo over >&4
    done
    trap 'echo over >&4' EXIT
    end_images
}

source_side() {
    local round flags
    exec 3<>"$dir/orders" 4<>"$dir/answers"
    read -r -t 120 -u 4 _ # ready
    rm -rf "$images"
    cp "$bundle/config.json" "$dir/config.json"
    ask bundle
    for ((round = 1; round <= rounds; round++)); do
        mkdir -p "$images/$round"
        flags=()
        ((round == 1)) || flags+=(--parent-path "../$((round - 1))")
        ((round == rounds)) || flags+=(--pre-dump)
        ask serve "$round"
        runc checkpoint "${flags[@]}" --image-path "$images/$round" --work-path "$images/$round" \
            --page-server "$address:$((9100 + round))" "$name"
    done
    rsync --archive --exclude parent --exclude '*.log' "$images/$rounds" "rsync://$address:$rsync_port/images/"
    ask restore "$rounds"
    echo "$rounds rounds"
}

case ${1:-} in
run) start "${@:2}" ;;
destination)
    dir=$2 address=$3 name=$4
    destination
    ;;
source)
    dir=$2 address=$3 rounds=$4 name=$5
    source_side
    ;;
*)
    sed -n '4,/^set/{/^#/s/^# \{0,1\}//p}' "$0" >&2
    exit 2
    ;;
esac
