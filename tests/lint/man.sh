#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# man.sh: mandoc finds no fault with the manual pages.
# shellcheck source-path=SCRIPTDIR
set -euo pipefail
# shellcheck source=files.sh
. "$(dirname "$(realpath "$0")")/files.sh"

pages=(docs/man/*.[1-8])
[[ -e ${pages[0]} ]] || { echo "no manual pages" >&2; exit 1; }
# The pages name each other and criu(8), which need not be installed.
faults=$(mandoc -Tlint "${pages[@]}" | grep -v 'referenced manual not found' || true)
echo "$faults"
[[ -z $faults ]]
