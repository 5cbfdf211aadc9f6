#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# native_memory: the engines' memory does not grow with the workload, and no page is written to a
# disk at the source.
# shellcheck source-path=SCRIPTDIR disable=SC2119,SC2120
. "$(dirname "$0")/../haul.sh"

# Half a percent of the workload is for the table of its pages. A small workload may never fill the pipes.
workload_kib=$((${HAUL_MIB:-512} * 1024))
most_kib=$((64 * 1024 + workload_kib / 200))
grown_most_kib=$((10 * 1024 + workload_kib / 200))
most_bytes=$((1024 * 1024))

# Samples the source's state directory until the file "stop" is there: samples, most bytes, files of pages.
# The journal has room allocated in advance: of it only what is written counts.
watch_state() {
    start_on A python3 -c '
import os, time
most = samples = pages = 0
while not os.path.exists("/srv/shared/stop"):
    total = 0
    for where, _, names in os.walk("/var/lib/haul"):
        for name in names:
            try:
                stat = os.lstat(os.path.join(where, name))
            except OSError:
                continue
            total += stat.st_size if name == "journal" else max(stat.st_size, stat.st_blocks * 512)
            pages += name.startswith("pages-")
    samples += 1
    most = max(most, total)
    time.sleep(0.005)
with open("/srv/shared/state.new", "w") as out:
    print(samples, most, pages, file=out)
os.rename("/srv/shared/state.new", "/srv/shared/state")' >/dev/null
}

peak_kib() {
    # shellcheck disable=SC2016 # awk's
    on "$1" awk '/^VmHWM/ { print $2 }' "/proc/${ENGINE[$1]}/status"
}

# Moves a workload of MIB between new engines; adds to PEAK.
measure() {
    local mib=$1 host try samples most pages
    for host in A B; do
        engine_start "$host"
    done
    rm -f "$SHARED/stop" "$SHARED/state"
    watch_state
    workload A memory "$mib" 20 --incompressible
    migrate A "$PID" B
    expect_completed
    expect_healthy B "$PID"
    (($(report bytesOnWire) > mib * 1000000)) || fail "only $(report bytesOnWire) bytes left"
    touch "$SHARED/stop"
    for ((try = 0; try < 100 * SLOW; try++)); do
        [[ ! -e $SHARED/state ]] || break
        sleep 0.1
    done
    read -r samples most pages <"$SHARED/state"
    for host in A B; do
        PEAK[$host$mib]=$(peak_kib "$host")
    done
    note "$mib MiB: engines' peak A ${PEAK[A$mib]} KiB, B ${PEAK[B$mib]} KiB; the source's state directory" \
        "$most bytes at most in $samples samples, downtime $(report downtimeMs) ms"
    ((samples >= 20)) || fail "only $samples samples of the state directory"
    ((most > 0 && most < most_bytes)) || fail "the source's state directory held $most bytes"
    ((pages == 0)) || fail "the source wrote files of pages"
    on B kill -KILL "$PID"
    expect_gone B "$PID"
    for host in A B; do
        engine_stop "$host"
    done
}
declare -A PEAK=()

hosts_up "$LAB"
make_pki
measure 64
measure "${HAUL_MIB:-512}"
for host in A B; do
    grown=$((PEAK[$host${HAUL_MIB:-512}] - PEAK[${host}64]))
    note "$host: $grown KiB more"
    ((PEAK[$host${HAUL_MIB:-512}] < most_kib)) || fail "the engine of $host needs more than $most_kib KiB"
    ((grown < grown_most_kib)) || fail "the engine of $host needs $grown KiB more for ${HAUL_MIB:-512} MiB than for 64 MiB"
done
