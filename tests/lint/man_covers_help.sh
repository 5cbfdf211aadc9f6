#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# man_covers_help.sh HAULD HAULCTL: every flag and subcommand of --help stands in the manual page, and
# the pages name no flag that is not there. mandoc must like the pages, if it is installed.
set -euo pipefail

HAULD=$1
HAULCTL=$2
MAN=$(dirname "$(realpath "${BASH_SOURCE[0]}")")/../../docs/man
failed=0

complain() {
    echo "$*" >&2
    failed=1
}

# The flags that a help text explains, one a line.
flags_of_help() {
    sed -n 's/^  \(--[a-z-]*\).*/\1/p' | sort -u
}

# The flags that a page explains in lists.
flags_of_page() {
    sed -n 's/^\.It Fl -\([a-z-]*\).*/--\1/p' "$1" | sort -u
}

compare() {
    local page=$1 help=$2 only
    only=$(comm -23 <(flags_of_help <<<"$help") <(flags_of_page "$page"))
    [[ -z $only ]] || complain "$page does not explain: ${only//$'\n'/ }"
    only=$(comm -13 <(flags_of_help <<<"$help") <(flags_of_page "$page"))
    [[ -z $only ]] || complain "$page explains what --help does not know: ${only//$'\n'/ }"
    [[ -n $(flags_of_page "$page") ]] || complain "$page explains no flag at all"
}

compare "$MAN/hauld.8" "$("$HAULD" --help)"

help=$("$HAULCTL" --help)
subcommands=$(sed -n '/^subcommands/,/^$/p' <<<"$help" | sed -n 's/^  \(pki [a-z]*\|[a-z-]*\)  *.*/\1/p')
[[ $(wc -l <<<"$subcommands") -ge 10 ]] || complain "haulctl --help lists too few subcommands"
while read -r subcommand; do
    # shellcheck disable=SC2086 # two words for pki
    text=$("$HAULCTL" $subcommand --help)
    help+=$'\n'$text
    grep -q "^example" <<<"$text" || complain "haulctl $subcommand --help has no example"
    grep -q "^\.It Ic $subcommand\( \|$\)" "$MAN/haulctl.1" ||
        complain "haulctl.1 does not explain $subcommand"
done <<<"$subcommands"
compare "$MAN/haulctl.1" "$help"

if command -v mandoc >/dev/null; then
    for page in "$MAN"/*.[1-8]; do
        # The pages are told about each other, not about criu(8) as installed.
        lint=$(mandoc -Tlint "$page" | grep -v 'referenced manual not found' || true)
        [[ -z $lint ]] || complain "$lint"
    done
fi
exit $failed
