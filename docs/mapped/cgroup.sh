#!/usr/bin/env bash
# What mapped weights do to the page cache: three models of 1 GiB come and go in a budget of a little
# more than one, in a memory cgroup of its own, which counts as `file` what it read.
#
#     cargo build --release && sudo docs/mapped/cgroup.sh
#
# Prints a table; for each way the highest `file` memory of the cgroup, sampled every 20 ms, and the
# time of nine leases with every page read: cold (the page cache dropped before) and warm. Needs root,
# for the cgroup and to drop the page cache, and 4 GiB on the disk of $TMPDIR.
set -euo pipefail
cd "$(dirname "$0")/../.."
plimsoll=${PLIMSOLL:-target/release/plimsoll}
work=$(mktemp -d)
mount=$(awk '$3 == "cgroup" && $4 ~ /(^|,)memory(,|$)/ { print $2; exit }' /proc/mounts)
case $mount in
    ?*) key=total_cache ;;
    *) mount=$(awk '$3 == "cgroup2" { print $2; exit }' /proc/mounts) key=file ;;
esac
group=$mount/plimsoll-mapped-$$
mkdir "$group"
trap 'rmdir "$group" || true; rm -r "$work"' EXIT

python3 - "$work" <<'PYTHON'
import json, os, sys
block = os.urandom(1 << 20)
for name in "abc":
    tensors = {f"layer.{n}.weight": {"dtype": "F16", "shape": [4 << 20], "data_offsets": [n * (8 << 20), (n + 1) * (8 << 20)]} for n in range(128)}
    header = json.dumps(tensors).encode()
    header += b" " * (-len(header) % 64 + 56)
    with open(f"{sys.argv[1]}/{name}.safetensors", "wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        for _ in range(1024):
            file.write(block)
        os.fsync(file.fileno())
PYTHON

run() { # name, how warm, options...
    local name=$1 warm=$2 highest=0 now seconds
    shift 2
    sync
    echo 3 >/proc/sys/vm/drop_caches
    # Pages that are read here are charged here, not where they are read again.
    [ "$warm" = cold ] || cat "$work"/*.safetensors >/dev/null
    local begun=$EPOCHREALTIME
    (
        echo $BASHPID >"$group/cgroup.procs"
        exec "$plimsoll" run --models "$work" --workload cyclic --steps 9 --ram 1100MiB --json \
            --no-publish "$@" >"$work/report.json"
    ) &
    while kill -0 $! 2>/dev/null; do
        now=$(awk -v key=$key '$1 == key { print $2 }' "$group/memory.stat")
        [ "$now" -le "$highest" ] || highest=$now
        sleep 0.02
    done
    wait $!
    seconds=$(awk -v from="$begun" -v to="$EPOCHREALTIME" 'BEGIN { printf "%.2f", to - from }')
    printf '%-24s %-5s %10s %14s\n' "$name" "$warm" "$seconds s" "$((highest >> 20)) MiB"
}

printf '%-24s %-5s %10s %14s\n' storage cache "9 leases" "highest file"
for warm in cold warm; do
    run "mapped, keep" $warm --storage mapped --page-cache keep
    run "mapped, drop" $warm --storage mapped --page-cache drop
    run "mapped, drop, willneed" $warm --storage mapped --page-cache drop --advise willneed
    run "anonymous" $warm --storage anonymous
done
