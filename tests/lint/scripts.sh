#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# scripts.sh: shellcheck likes every script.
# shellcheck source-path=SCRIPTDIR
set -euo pipefail
# shellcheck source=files.sh
. "$(dirname "$(realpath "$0")")/files.sh"

mapfile -t scripts < <(our_scripts)
[[ ${#scripts[@]} -gt 0 ]] || { echo "no scripts" >&2; exit 1; }
shellcheck -x "${scripts[@]}"
