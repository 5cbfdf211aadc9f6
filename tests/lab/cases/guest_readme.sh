#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# guest_readme: README's example "By hand", typed in as it stands there, line by line. The hosts have no sshd:
# ssh and scp go by a pipe instead; /etc/haul and /root/pki are each host's own.
# shellcheck source-path=SCRIPTDIR disable=SC2119,SC2120
. "$(dirname "$0")/../haul.sh"

mapfile -t lines < <(sed -n '/^## By hand/,/^## /s/^\([ab]\)# /\1 /p' "$HOSTS_TREE/README.md")
((${#lines[@]} >= 8)) || fail "README's example has ${#lines[@]} lines"
bin=$SHARED/bin
mkdir -p "$bin"

# What is typed at A with ssh and scp, done at B by a shell that reads from a pipe.
make_ssh() {
    mkfifo "$SHARED/typed" "$SHARED/done"
    cat >"$bin/ssh" <<'SH'
#!/bin/sh
[ "$1" = b ] || exit 2
shift
echo "$*" >/srv/shared/typed
exit "$(cat /srv/shared/done)"
SH
    cat >"$bin/scp" <<'SH'
#!/bin/bash
to=${*: -1}
dir=$(mktemp -d /srv/shared/scp.XXXXXX)
cp "${@:1:$#-1}" "$dir/"
exec ssh "${to%%:*}" "cp $dir/* ${to#*:}"
SH
    chmod +x "$bin/ssh" "$bin/scp"
    # shellcheck disable=SC2016 # runs in the host
    start_on B bash -c 'while read -r line </srv/shared/typed; do
        bash -c "$line"; echo $? >/srv/shared/done; done' >/dev/null
}

# A shell with a prompt, as it were: what it sets and starts stays.
shell() {
    mkfifo "$SHARED/keys-$1" "$SHARED/code-$1"
    # shellcheck disable=SC2016 # runs in the host
    START_OUT=/srv/shared/shell-$1.log start_on "$1" env "PATH=/srv/shared/bin:$PATH" bash -c '
        while read -r line <"/srv/shared/keys-$1"; do
            eval "$line"
            echo $? >"/srv/shared/code-$1"
        done' bash "$1" >/dev/null
}

await() {
    local try
    for ((try = 0; try < 100 * SLOW; try++)); do
        ! "$@" >/dev/null 2>&1 || return 0
        sleep 0.1
    done
    fail "never: $*"
}

# type_in HOST LINE: as a person would, who waits for what the line before has started.
type_in() {
    local host=$1 line=$2 code
    [[ ! $line =~ haulctl\ (check|migrate|list) ]] || await on "$host" "$(program haulctl)" node
    [[ ! $line =~ pgrep ]] || await on "$host" redis-cli ping
    note "$host# $line"
    printf '%s\n' "$line" >"$SHARED/keys-$host"
    code=$(<"$SHARED/code-$host")
    [[ $code == 0 ]] || fail "it ended with $code: $(tail -n 20 "$SHARED/shell-$host.log")"
}

hosts_up "$LAB"
printf '127.0.0.1 localhost\n%s a\n%s b\n' "${HOST_ADDRESS[A]}" "${HOST_ADDRESS[B]}" >"$SHARED/hosts"
for name in hauld haulctl; do
    ln -s "$(program "$name")" "$bin/$name"
done
for host in A B; do
    on "$host" mkdir -p /etc/haul /root/pki
    on "$host" mount -t tmpfs -o mode=755 etc /etc/haul
    on "$host" mount -t tmpfs -o mode=700 pki /root/pki
    on "$host" mount --bind /srv/shared/hosts /etc/hosts
    shell "$host"
done
make_ssh
for line in "${lines[@]}"; do
    type_in "$(tr ab AB <<<"${line%% *}")" "${line#* }"
done
grep -qi completed "$SHARED/shell-A.log" || fail "no report: $(<"$SHARED/shell-A.log")"
[[ $(on B redis-cli ping) == PONG ]] || fail "redis does not answer at b"
[[ -z $(on A pgrep redis-server || true) ]] || fail "redis is still at a"
grep -qi completed "$SHARED/shell-B.log" || fail "haulctl list at b does not show it: $(<"$SHARED/shell-B.log")"
