#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# layers.sh: includes point only down (cmd → engine → rpc → proto); nng is seen by rpc/ alone and CRIU
# by engine/ alone.
# shellcheck source-path=SCRIPTDIR
set -euo pipefail
# shellcheck source=files.sh
. "$(dirname "$(realpath "$0")")/files.sh"

declare -A rank=([proto]=0 [rpc]=1 [engine]=2 [cmd]=3 [tests]=4)
failed=0
seen=0

complain() {
    echo "$1 includes $2: $3" >&2
    failed=1
}

# check FILE INCLUDED
check() {
    local layer=${1%%/*} target=${2%%/*}
    [[ -n ${rank[$layer]:-} ]] || return 0
    if [[ -n ${rank[$target]:-} && ${rank[$target]} -gt ${rank[$layer]} ]]; then
        complain "$1" "$2" "$layer must not know $target"
    fi
    if [[ $2 == nng/* && $layer != rpc && $layer != tests ]]; then
        complain "$1" "$2" "only rpc/ sees nng"
    fi
    if [[ $2 == criu/* && $layer != engine && $layer != tests ]]; then
        complain "$1" "$2" "only engine/ sees CRIU"
    fi
}

while IFS=: read -r file line; do
    included=$(sed -E 's/.*["<]([^">]*)[">].*/\1/' <<<"$line")
    check "$file" "$included"
    seen=$((seen + 1))
done < <(our_files '*.c' '*.h' | xargs grep -HE '^[[:space:]]*#[[:space:]]*include')
[[ $seen -gt 0 ]] || complain "no file" "anything" "the lint sees nothing"
exit $failed
