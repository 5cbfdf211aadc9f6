#!/usr/bin/env bash
. "$(dirname "$0")/../haul.sh"
lab_start
threads() { for host in A B; do echo "== $host"; on $host bash -c 'for t in /proc/$1/task/*/stat; do awk "{ if (\$14+\$15 > 20) print \$1, \$2, \"u\", \$14, \"s\", \$15 }" $t; done' bash "${ENGINE[$host]}"; done; }
for run in 1 2; do
workload A memory 64 0
threads
( while sleep 1; do threads; done ) > "$LAB/th" &
sampler=$!
migrate A "$PID" B --no-precopy
kill $sampler
expect_completed
tail -40 "$LAB/th"
threads
note "down $(report downtimeMs) freeze $(report criu.freezeMs) restore $(report criu.restoreMs)"
on B kill -KILL "$PID"
expect_gone B "$PID"
done
