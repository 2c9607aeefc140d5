#!/usr/bin/env bash
# Draws the pictures of docs/top.md: frames of real sessions, as the live screen shows them.
#
#   docs/top/pictures.sh                with target/release/plimsoll; PLIMSOLL names another
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
plimsoll=${PLIMSOLL:-$here/../../target/release/plimsoll}
[ -x "$plimsoll" ] || { echo "no $plimsoll: cargo build --release, or set PLIMSOLL" >&2; exit 2; }
work=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null || true; rm -rf "$work"' EXIT
plimsoll=$(readlink -f "$plimsoll")
cd "$work"
export COLUMNS=132 LINES=40 LANG=C.UTF-8

# Six models that share 1200 MiB of heap, churned as real loaders do, with everything dropped at the
# end: what a default glibc keeps, and what one keeps whose threshold stays where it was.
for profile in glibc-default glibc-mmap-128k; do
    "$plimsoll" run --synthetic six --ram 1200MiB --workload cyclic --steps 18 --churn \
        --storage heap --profile "$profile" --publish "$work/$profile.sock" --settle 600 \
        --json >/dev/null &
    while [ ! -S "$work/$profile.sock" ]; do sleep 0.1; done
    "$plimsoll" top "$work/$profile.sock" --once --after 110s --keys '3' --svg "$here/$profile.svg"
    kill -INT $!
    wait $! || true
done

# A cache in too small a budget: why it evicted what it did.
"$plimsoll" run --synthetic six --ram 1200MiB --workload zipf --steps 40 --record "$work/ram.jsonl" \
    --json >/dev/null
"$plimsoll" top ram.jsonl --once --at 2.5s --keys '6 / e v i c t enter enter' \
    --svg "$here/eviction.svg"

# The same models in less memory of a device than they have.
"$plimsoll" run --synthetic six --device simulated:1GiB,12 --working-memory 64MiB --ram 2GiB \
    --workload zipf --steps 60 --record "$work/vram.jsonl" --json >/dev/null
"$plimsoll" top vram.jsonl --once --at 6s --keys '5' --svg "$here/vram.svg"

# Where this machine puts the process is of no interest.
sed -E -i 's#>/[^<]*<#>/serve<#' "$here"/*.svg
