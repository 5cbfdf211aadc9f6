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

note "a client in Python, from proto/ and docs/protocol.md"
mkdir "$SHARED/gen"
protoc "-I$HOSTS_TREE/proto" "--python_out=$SHARED/gen" "$HOSTS_TREE"/proto/haul/v1/*.proto
cp "$HOSTS_TREE/docs/examples/haul_client.py" "$SHARED/"

python_client() {
    on A env PYTHONPATH=/srv/shared/gen PYTHONDONTWRITEBYTECODE=1 python3 /srv/shared/haul_client.py "$@" 2>&1
}
remote=(--ca /srv/shared/pki/ca.pem --cert /srv/shared/pki/a.pem --key /srv/shared/pki/a.key "$(url B)")

# answers PART ARG…
answers() {
    local part=$1 text
    shift
    text=$(python_client "$@") || fail "haul_client.py $*: $text"
    [[ $text == *"$part"* ]] || fail "haul_client.py $* says: $text"
}
answers '"node": "a"' "$LOCAL" node
answers '"node": "b"' "${remote[@]}" node
answers "\"id\": \"$id\"" "$LOCAL" list
answers '"state": "COMPLETED"' "$LOCAL" watch "$id"
code=0
refused=$(python_client "${remote[@]}" list) || code=$?
[[ $code == "$((64 + STATUS_CODE[PERMISSION_DENIED]))" && $refused == *"reason: METHOD_NOT_ALLOWED"* ]] ||
    fail "what the policy does not allow, $code: $refused"
on A "$(program haulctl)" pki init /srv/shared/other >/dev/null
code=0
refused=$(python_client --ca /srv/shared/other/ca.pem "${remote[@]:2}" node) || code=$?
[[ $code == "$((64 + STATUS_CODE[UNAVAILABLE]))" && $refused == *"CERTIFICATE_VERIFY_FAILED"* ]] ||
    fail "a server that another authority vouches for, $code: $refused"
workload A memory 8 0
shown=$(python_client "$LOCAL" migrate "pid:$PID" "$(url B)") || fail "a migration: $shown"
[[ $(head -n 1 <<<"$shown") == *RUNNING* && $(tail -n 1 <<<"$shown") == *COMPLETED* ]] || fail "its changes: $shown"
expect_healthy B "$PID"
