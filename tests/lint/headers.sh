#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# headers.sh BUILD: every header of proto/, rpc/, engine/ and cmd/ compiles alone: those that a layer shows
# to others by CMake's own target, those inside of a layer here, as a file of that layer.
# shellcheck source-path=SCRIPTDIR
set -euo pipefail
build=$(realpath "$1")
# shellcheck source=files.sh
. "$(dirname "$(realpath "$0")")/files.sh"

# The compiler and flags of a source file that stands in a directory.
flags_beside() {
    python3 - "$build/compile_commands.json" "$LINT_TREE/$1" <<'PY'
import json, os, shlex, sys
for entry in json.load(open(sys.argv[1])):
    path = os.path.join(entry["directory"], entry["file"])
    if os.path.dirname(path) == sys.argv[2]:
        words = shlex.split(entry["command"])
        at = words.index("-o")
        del words[at:at + 2]
        print("\n".join(word for word in words if word != "-c" and word != entry["file"]))
        break
PY
}

cmake --build "$build" --target all_verify_interface_header_sets
failed=0
seen=0
while read -r header; do
    seen=$((seen + 1))
    ! find "$build" -path "*_verify_interface_header_sets/$header.c" | grep -q . || continue
    mapfile -t flags < <(flags_beside "$(dirname "$header")")
    if ((${#flags[@]} == 0)) || ! "${flags[@]}" -fsyntax-only -x c - <<<"#include \"$header\""; then
        echo "$header does not compile alone" >&2
        failed=1
    fi
done < <(our_files '*.h' | grep -E '^(proto|rpc|engine|cmd)/')
((seen > 0 && failed == 0))
