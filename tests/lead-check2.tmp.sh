cd /work/main
mkdir -p build/gen-lead
for p in envelope pipe migrations peer node journal; do protoc-c --c_out=build/gen-lead -Iproto proto/haul/v1/$p.proto; done
protoc-c --c_out=build/gen-lead -I/usr/include criu/rpc.proto
protoc-c --c_out=build/gen-lead -Iengine/criu stats.proto pagemap.proto
for f in engine/criu/*.c engine/log.c engine/host/*.c engine/pipe/*.c; do
gcc -std=gnu17 -c -o /dev/null -D_GNU_SOURCE -D_FILE_OFFSET_BITS=64 -DHAUL_VERSION='"0.1.0"' -I. -isystem build/gen-lead -O1 -Wall -Wextra -Wpedantic -Wformat=2 -Wshadow -Wconversion -Wstrict-prototypes -Wmissing-prototypes -Wvla -Wundef -Wwrite-strings $f 2>&1
done
