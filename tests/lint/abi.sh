#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# abi.sh LIBHAUL: the shared library shows the names of libhaul.map and no others, the header declares the
# same, and it is C++ too and needs nothing but the compiler's own headers.
set -euo pipefail

library=$1
tree=$(realpath "$(dirname "$(realpath "${BASH_SOURCE[0]}")")/../..")
header=$tree/rpc/libhaul/haul.h
failed=0

# same WHAT NAMES: as those of the map.
same() {
    local only
    only=$(comm -3 <(echo "$names") <(sort -u <<<"$2") | tr -d '\t')
    [[ -z $only ]] && return
    echo "libhaul.map and $1 differ: ${only//$'\n'/ }" >&2
    failed=1
}

names=$(sed -n 's/^\t\(haul_[a-z_]*\);$/\1/p' "$tree/rpc/libhaul/libhaul.map" | sort -u)
[[ $(wc -l <<<"$names") -gt 20 ]] || { echo "libhaul.map cannot be read" >&2; exit 1; }
# Sanitizers add what they need to know each other by.
same "the library" "$(nm -D --defined-only "$library" | awk '$2 != "A" { sub(/@.*/, "", $3); print $3 }' |
    grep -vE '^__(odr_asan|asan|tsan|ubsan)')"
same "haul.h" "$(gcc -fpreprocessed -dD -E -P "$header" | grep -oE '\bhaul_[a-z_]+\(' | tr -d '(')"
readelf -d "$library" | grep -q 'SONAME.*\[libhaul\.so\.0\]' || { echo "the SONAME is not libhaul.so.0" >&2; failed=1; }
for language in c c++; do
    echo "#include \"$header\"" | gcc -x "$language" -Wall -Wextra -Wpedantic -Werror -fsyntax-only - || failed=1
done
exit $failed
