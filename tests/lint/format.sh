#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# format.sh: every C file is laid out as .clang-format says. Mend with: format.sh --fix
# shellcheck source-path=SCRIPTDIR
set -euo pipefail
# shellcheck source=files.sh
. "$(dirname "$(realpath "$0")")/files.sh"

mapfile -t files < <(our_files '*.c' '*.h')
[[ ${#files[@]} -gt 0 ]] || { echo "no files" >&2; exit 1; }
if [[ ${1:-} == --fix ]]; then
    exec clang-format -i "${files[@]}"
fi
clang-format --dry-run -Werror "${files[@]}"
