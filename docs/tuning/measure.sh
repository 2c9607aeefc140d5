#!/bin/sh
# The measured runs of docs/tuning.md: what they print goes to docs/tuning/*.txt, the pictures beside it.
#
#     docs/tuning/measure.sh [cache] [python] [redis] [search]      all of them without a word: an hour
#
# Needs: python3 with numpy (PYTHON names another interpreter), redis-server and redis-cli, and the
# libraries libjemalloc2, libmimalloc2.0 and libtcmalloc-minimal4; what is absent is left out, and said.
# Let nothing else run meanwhile. RUNS is how often each profile runs (5).
set -eu
cd "$(dirname "$0")/../.."
cargo build --release -p plimsoll
export PLIMSOLL="$PWD/target/release/plimsoll"
export COLUMNS=100 LC_ALL=C.UTF-8
runs=${RUNS:-5}
python=${PYTHON:-python3}
out=docs/tuning

measure() {
    name=$1
    shift
    echo "== $name: plimsoll compare $*" >&2
    "$PLIMSOLL" compare -n "$runs" --svg "$out/$name.svg" "$@" >"$out/$name.txt"
}

for what in ${*:-cache python redis search}; do
    case $what in
    cache)
        measure cache --synthetic six --ram 1200MiB --workload cyclic --steps 18 --storage heap --churn
        ;;
    python) measure python -- "$python" docs/tuning/server.py ;;
    redis)
        # Redis of Debian is linked with jemalloc, so no profile of glibc can be in force in it.
        measure redis --profile jemalloc-default --profile jemalloc-decay-0 --profile jemalloc-background-1s \
            --profile mimalloc-default --profile mimalloc-purge-0 --profile tcmalloc-default \
            -- sh docs/tuning/redis.sh
        ;;
    search)
        measure search --profile glibc-default --search mmap_threshold -- "$python" docs/tuning/server.py --cycles 2
        ;;
    *) echo "measure.sh: no measurement \`$what\`" >&2; exit 2 ;;
    esac
done
