#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# headers.sh BUILD: every header of proto/, rpc/, engine/ and cmd/ compiles alone.
# shellcheck source-path=SCRIPTDIR
set -euo pipefail
build=$(realpath "$1")
# shellcheck source=files.sh
. "$(dirname "$(realpath "$0")")/files.sh"

cmake --build "$build" --target all_verify_interface_header_sets
failed=0
while read -r header; do
    if ! find "$build" -path "*_verify_interface_header_sets/$header.c" | grep -q .; then
        echo "$header is in no haul_layer(… HEADERS …): nothing proves that it compiles alone" >&2
        failed=1
    fi
done < <(our_files '*.h' | grep -E '^(proto|rpc|engine|cmd)/')
exit $failed
