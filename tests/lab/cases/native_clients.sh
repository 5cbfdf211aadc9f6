#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# native_clients: programs of others talk to an engine: what docs/libhaul.md shows, compiled with an installed
# libhaul.
# shellcheck source-path=SCRIPTDIR disable=SC2119,SC2120
. "$(dirname "$0")/../haul.sh"

# example N: the Nth program of docs/libhaul.md.
example() {
    awk -v want="$1" '/^```/ { if (text ~ /int main/ && ++n == want) printf "%s", text; text = ""; next }
        { text = text $0 "\n" }' "$HOSTS_TREE/docs/libhaul.md"
}

# A program of this build's sanitizers cannot use a library of theirs without them.
sanitize=$(sed -n 's/^HAUL_SANITIZE:.*=\(.\)/-fsanitize=\1/p' "$BUILD/CMakeCache.txt")
note "libhaul is installed under a prefix of its own, and moved"
cmake --install "$BUILD" --prefix "$LAB/prefix" >/dev/null
mkdir -p "$SHARED"
mv "$LAB/prefix" "$SHARED/prefix"
pkgconfig=$(dirname "$(find "$SHARED/prefix" -name libhaul.pc)")
for program in 1 2; do
    example "$program" >"$SHARED/example$program.c"
    # shellcheck disable=SC2046,SC2086 # flags are words
    cc -Wall -Wextra -Werror $sanitize "$SHARED/example$program.c" \
        $(PKG_CONFIG_PATH=$pkgconfig pkg-config --cflags --libs libhaul) -o "$SHARED/example$program"
done
library=/srv/shared/${pkgconfig#"$SHARED/"}/..

# run_example HOST N ARG…: the first leaves what it has to the end of the process.
run_example() {
    on "$1" env "LD_LIBRARY_PATH=$library" ASAN_OPTIONS="detect_leaks=$(($2 != 1))" "/srv/shared/example$2" "${@:3}"
}

lab_start
on A /srv/shared/prefix/bin/haulctl --local "$LOCAL" node >/dev/null || fail "the installed haulctl does not run"
shown=$(run_example A 1) || fail "the first example: $shown"
[[ -z $shown ]] || fail "a list with nothing in it: $shown"
code=0
refused=$(run_example A 2 redis "$(url B)" 2>&1) || code=$?
[[ $code == 1 && $refused == INVALID_ARGUMENT:* ]] || fail "what is no workload, $code: $refused"

workload A memory 8 0
shown=$(run_example A 2 "pid:$PID" "$(url B)") || fail "the second example: $shown"
[[ $(tail -n 1 <<<"$shown") == *" COMPLETED: "* && $shown == *" RUNNING: "* ]] || fail "its changes: $shown"
expect_healthy B "$PID"
id=${shown%% *}
[[ $(run_example A 1) == "$id pid:$PID" ]] || fail "the first example: $(run_example A 1)"
