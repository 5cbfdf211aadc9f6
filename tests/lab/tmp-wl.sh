cd /work/main
set -euo pipefail
. tests/lab/hosts.sh
W=$PWD/build/lab/workloads
hosts_up /tmp/lab
S=/tmp/lab/shared
declare -A P
P[memory]=$(start_on A $W/memory /srv/shared/memory.st 64 20)
P[tree]=$(start_on A $W/tree /srv/shared/tree.st)
P[event]=$(start_on A $W/event /srv/shared/event.st)
P[lock]=$(start_on A $W/lock /srv/shared/lock.st /srv/shared/lock.file)
P[shared]=$(start_on A $W/memory /srv/shared/shared.st 16 5 --shared --incompressible)
P[tcp]=$(start_on A $W/tcp /srv/shared/tcp.st)

sleep 2
tail -n +1 $S/*.st | tr -s ' '
for w in memory tree event lock shared; do
  p=${P[$w]}; [ $w = lock ] && x=--file-locks || x=
  echo "== $w pid $p"
  rm -rf $S/img; mkdir -p $S/img
  t0=$(date +%s%N)
  mkdir -p $S/img/0 $S/img/1; 
  on A criu pre-dump -t $p -D /srv/shared/img/0 --track-mem -v4 -o p.log $x || grep Error $S/img/0/p.log
  on A criu pre-dump -t $p -D /srv/shared/img/1 --prev-images-dir ../0 --track-mem -v4 -o p.log $x || grep Error $S/img/1/p.log
  du -sm $S/img/0 $S/img/1
  on A criu dump -t $p -D /srv/shared/img -v4 -o d.log --track-mem --prev-images-dir 1 $x >/dev/null 2>&1 || { echo dump failed; grep Error $S/img/d.log | grep -v RLIMIT | head -3; tr -s ' ' < $S/$w.st; continue; }
  t1=$(date +%s%N)
  on B criu restore -d -D /srv/shared/img -v4 -o r.log $x || { echo restore failed;  grep Error $S/img/r.log| head -3; continue; }
  t2=$(date +%s%N)
  sleep 1
  echo "dump $(( (t1-t0)/1000000 )) ms restore $(( (t2-t1)/1000000 )) ms"; tr -s ' ' < $S/$w.st
  # back
  rm -rf $S/img; mkdir -p $S/img
  on B criu dump -t $p -D /srv/shared/img -v4 -o d.log $x >/dev/null 2>&1 || { echo dump 2 failed; grep Error $S/img/d.log | grep -v RLIMIT | head -3; continue; }
  on A criu restore -d -D /srv/shared/img -v4 -o r.log $x || { echo restore 2 failed;  grep Error $S/img/r.log| head -3; continue; }
  sleep 1;  tr -s ' ' < $S/$w.st; echo now $(date +%s%3N)
done
hosts_down

