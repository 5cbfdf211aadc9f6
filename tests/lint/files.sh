#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# files.sh: which files are ours.
#
# usage: . files.sh
#        our_files NAME…     the files of these name patterns, built and other people's left out
#        our_scripts         every shell script, by its first line
set -euo pipefail

LINT_TREE=$(realpath "$(dirname "${BASH_SOURCE[0]}")/../..")
cd "$LINT_TREE"

our_files() {
    local name patterns=()
    for name in "$@"; do patterns+=(-o -name "$name"); done
    find . \( -path ./build -o -path ./.git \) -prune -o -type f \( "${patterns[@]:1}" \) -printf '%P\n' | sort
}

our_scripts() {
    our_files '*' | while read -r name; do
        head -c 64 "$name" | head -n 1 | LC_ALL=C grep -aqE '^#!.*[/ ](ba|da)?sh( |$)' && echo "$name"
    done
    return 0
}
