#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# reasons.sh: each reason of proto/reason.h is given by the product, and looked for by a test.
set -euo pipefail
cd "$(dirname "$(realpath "$0")")/../.."

failed=0
mapfile -t reasons < <(sed -n 's/^\tX(\([A-Z_]*\)).*/\1/p' proto/reason.h)
for reason in "${reasons[@]}"; do
    if ! grep -rqw --include='*.c' "REASON_$reason" engine rpc cmd; then
        echo "proto/reason.h: nothing gives the reason $reason" >&2
        failed=1
    fi
    if ! grep -rqw --include='*.c' --include='*.sh' "$reason" tests/unit tests/lab; then
        echo "proto/reason.h: no test looks for the reason $reason" >&2
        failed=1
    fi
done
((${#reasons[@]} > 10)) || failed=1
exit $failed
