#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# native_reload: certificates, revocation lists and policy are replaced under running engines, with
# SIGHUP: what runs is not disturbed, what is bad is refused, who is revoked is out.
# shellcheck source-path=SCRIPTDIR disable=SC2119,SC2120
. "$(dirname "$0")/../haul.sh"

pki=/srv/shared/pki

# Issues HOST's certificate anew, for DAYS.
issue() {
    rm -f "$SHARED/pki/${1,}".{pem,key}
    "$(program haulctl)" pki issue "$SHARED/pki" "${1,}" --san "IP:${HOST_ADDRESS[$1]}" --days "$2" >/dev/null
}

policy() {
    printf '%s\n' "$2" >"$SHARED/policy-$1.json"
}

log_lines() {
    wc -l <"$SHARED/hauld-$1.log"
}

# await_log HOST FROM PATTERN: a line after line FROM says so.
await_log() {
    local try
    for ((try = 0; try < 100; try++)); do
        ! tail -n "+$(($2 + 1))" "$SHARED/hauld-$1.log" | grep -qE "$3" || return 0
        sleep 0.1
    done
    fail "the log of $1 does not say $3"
}

# hup HOST PATTERN: what the engine says to it.
hup() {
    local before
    before=$(log_lines "$1")
    on "$1" kill -HUP "${ENGINE[$1]}"
    await_log "$1" "$before" "$2"
}

# remote ARG…: haulctl on A asks B over TLS as a.
remote() {
    on A "$(program haulctl)" --server "$(url B)" --timeout 20s --ca "$pki/ca.pem" --cert "$pki/a.pem" \
        --key "$pki/a.key" --json "$@"
}

remote_node() {
    remote node
}

days_left() {
    local end
    end=$(report certificateExpiresUnixMs "$(ctl "$1" --json node)")
    echo $(((end / 1000 - $(date +%s) + 43200) / 86400))
}

hosts_up "$LAB"
make_pki
issue B 10
"$(program haulctl)" pki crl "$SHARED/pki" >/dev/null
cp "$SHARED/pki/crl.pem" "$SHARED/crl-B.pem"
policy A '{}'
policy B '{"rules": [{"identities": ["*"], "roles": ["partner"]}]}'
engine_start A --policy /srv/shared/policy-A.json
engine_start B --policy /srv/shared/policy-B.json --crl /srv/shared/crl-B.pem
await_log B 0 'level=warn .*the certificate /srv/shared/pki/b.pem ends in 9 days'
(($(report crlExpiresUnixMs "$(ctl B --json node)") > 0)) || fail "the node does not tell the end of its list"
workload A memory 48 5 --incompressible
victim=$PID

note "a certificate is renewed in mid-migration"
link_rate 100
before=$(log_lines A)
ctl A --json --timeout 60s migrate "pid:$victim" --to "$(url B)" >"$LAB/report" 2>"$LAB/errors" &
job=$!
await_log A "$before" 'stage.*pre-copy|stage.*freeze'
issue B 300
issue A 300
hup A 'are reloaded'
hup B 'are reloaded'
kill -0 "$job" 2>/dev/null || fail "the migration was over before the reload: $(<"$LAB/report")"
[[ $(days_left A) == 300 && $(days_left B) == 300 ]] || fail "the new certificates are not in force"
link_rate
CODE=0
wait "$job" || CODE=$?
REPORT=$(<"$LAB/report")
ERRORS=$(<"$LAB/errors")
expect_completed
expect_healthy B "$victim"
id=$(report id)
await_log B 0 "msg=\"audit\" caller=a peer=10.77.0.1:[0-9]+ method=/haul.v1.Peer/Commit migration=$id code=OK took_us="
await_log A 0 "msg=\"audit\" caller=local .*method=/haul.v1.Migrations/Start migration=$id code=OK"
! grep -E 'msg="audit".*(Hello|Query|Watch|List|Node/Info)' "$SHARED"/hauld-*.log || fail "what only asks is audited"
migrate B "$victim" A
expect_completed

note "a bad file changes nothing"
policy B '{"rules": [{"identities": ["*"], "role": ["partner"]}]}'
hup B 'level=error .*nothing is reloaded.*"role'
migrate A "$victim" B
expect_completed
migrate B "$victim" A
expect_completed

note "partners, both ways"
policy B '{"accept-from": ["c"]}'
hup B 'are reloaded'
migrate A "$victim" B
expect_refused PERMISSION_DENIED
expect_message accept-from
expect_healthy A "$victim"
policy B '{"accept-from": ["a"]}'
hup B 'are reloaded'
policy A '{"migrate-to": ["*.example.org"]}'
hup A 'are reloaded'
migrate A "$victim" B
expect_refused PERMISSION_DENIED
expect_message migrate-to
policy A '{"migrate-to": ["*.example.org", "10.77.0.2"]}'
hup A 'are reloaded'

note "one session and one stream for each"
policy B '{"rules": [{"identities": ["a"], "roles": ["partner", "viewer"]}],
    "limits": [{"identities": ["a"], "sessions": 1, "streams": 1}]}'
hup B 'are reloaded'
workload A event
second=$PID
link_rate 50
ctl A --json --timeout 60s migrate "pid:$victim" --to "$(url B)" >"$LAB/report" 2>"$LAB/errors" &
job=$!
await_log B "$(log_lines B)" 'method=/haul.v1.Peer/Prepare .*code=OK'
migrate A "$second" B
expect_refused RESOURCE_EXHAUSTED
[[ $(report error.reason) == TOO_MANY_SESSIONS && $(report error.retryInfo.retryDelay) == 10.000s ]] ||
    fail "the refusal does not say when to come again: $REPORT"
id=$(report migrations.0.id "$(ctl B --json list)")
remote watch "$id" >"$LAB/watch" 2>&1 &
watcher=$!
for ((try = 0; try < 100; try++)); do
    ! grep -q "$id" "$LAB/watch" || break
    sleep 0.1
done
CODE=0
text=$(remote watch "$id" 2>&1) || CODE=$?
[[ $CODE == 72 && $text == *TOO_MANY_STREAMS* ]] || fail "a second stream ended with $CODE: $text"
link_rate
CODE=0
wait "$job" || CODE=$?
REPORT=$(<"$LAB/report")
ERRORS=$(<"$LAB/errors")
expect_completed
wait "$watcher" || fail "the watcher: $(tail -n 5 "$LAB/watch")"
migrate B "$victim" A
expect_completed
expect_healthy A "$second"

note "a revoked node is out"
remote_node >/dev/null || fail "the renewed certificate is refused"
"$(program haulctl)" pki revoke "$SHARED/pki" a >/dev/null
cp "$SHARED/pki/crl.pem" "$SHARED/crl-B.pem"
hup B 'are reloaded'
CODE=0
text=$(remote_node 2>&1) || CODE=$?
[[ $CODE == 80 ]] || fail "a revoked certificate got $CODE: $text"
await_log B 0 'audit: connection refused.*peer=10\.77\.0\.1:.*revoked'
migrate A "$victim" B
expect_refused
expect_healthy A "$victim"
