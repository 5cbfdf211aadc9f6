#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# size.sh: no source file is longer than 600 lines, and every one names its licence.
# shellcheck source-path=SCRIPTDIR
set -euo pipefail
# shellcheck source=files.sh
. "$(dirname "$(realpath "$0")")/files.sh"

failed=0
seen=0
while read -r file; do
    seen=$((seen + 1))
    lines=$(wc -l <"$file")
    if ((lines > 600)); then
        echo "$file has $lines lines: split it" >&2
        failed=1
    fi
    if ! head -n 3 "$file" | grep -q 'SPDX-License-Identifier: Apache-2.0'; then
        echo "$file does not begin with SPDX-License-Identifier: Apache-2.0" >&2
        failed=1
    fi
done < <({ our_files '*.c' '*.h' '*.py' '*.proto'; our_scripts; } | sort -u)
[[ $seen -gt 0 ]] || failed=1
exit $failed
