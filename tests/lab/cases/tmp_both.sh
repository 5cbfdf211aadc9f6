#!/usr/bin/env bash
. "$(dirname "$0")/../haul.sh"
lab_start
workload A memory 64 0
sleep 2
cpu() { head -1 /proc/stat; grep ctxt /proc/stat; }
cpu
for host in A B; do on $host nstat -n; done
( sleep 9; for i in 1 2; do on A ss -tinm '( dport >= :7800 and dport <= :7899 )'; on B ss -tinm '( sport >= :7800 and sport <= :7899 )'; for p in "${ENGINE[A]}"; do on A bash -c 'cat /proc/$1/task/*/wchan; echo; pgrep -a criu' bash $p; done; sleep 2; done ) > "$LAB/ss" 2>&1 &
s=$!
migrate A "$PID" B --no-precopy
cpu
for host in A B; do echo "== $host"; on $host nstat | grep -vE '^Ip|Icmp'; done
wait $s || true
cat "$LAB/ss"
note "down $(report downtimeMs) freeze $(report criu.freezeMs) restore $(report criu.restoreMs)"
fail x
