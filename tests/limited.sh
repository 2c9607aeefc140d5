#!/usr/bin/env bash
# Runs a command in a memory cgroup of its own, without swap, and says whether the kernel killed in it.
#
#   tests/limited.sh BYTES COMMAND [ARGUMENT]...
#   tests/limited.sh show            the six-model trace within 1.5 GB, and what exceeds it
#
# Exit: the command's own code; 137 where the kernel killed it; 77 where no cgroup may be made here,
# with a word on why. `PLIMSOLL` names the binary of `show`, `SWITCHES` how many leases it takes.
set -euo pipefail

skip() {
    echo "skipped: $*" >&2
    exit 77
}

# Finds where memory is controlled, and makes a cgroup there: sets $group and $version.
make_group() {
    local bytes=$1 mount own
    mount=$(awk '$3 == "cgroup" && $4 ~ /(^|,)memory(,|$)/ { print $2; exit }' /proc/mounts)
    if [ -n "$mount" ]; then
        version=1
        own=$(awk -F: '$2 ~ /(^|,)memory(,|$)/ { print $3; exit }' /proc/self/cgroup)
    else
        mount=$(awk '$3 == "cgroup2" { print $2; exit }' /proc/mounts)
        [ -n "$mount" ] || skip "no cgroup hierarchy is mounted"
        version=2
        own=$(awk -F: '$1 == 0 { print $3; exit }' /proc/self/cgroup)
        # Processes may only be in leaves, so the new one goes beside this one, not below it.
        [ "$own" = / ] || own=$(dirname "$own")
    fi
    [ -d "$mount$own" ] || own=/
    group="${mount%/}${own%/}/plimsoll-limited-$$"
    mkdir "$group" 2>/dev/null || skip "may not make a cgroup in $(dirname "$group")"
    trap clean EXIT
    if [ "$version" = 1 ]; then
        echo "$bytes" > "$group/memory.limit_in_bytes" || skip "may not limit $group"
        # Where swap is accounted, none of it.
        if [ -e "$group/memory.memsw.limit_in_bytes" ]; then
            echo "$bytes" > "$group/memory.memsw.limit_in_bytes" || skip "may not limit swap"
        else
            echo 0 > "$group/memory.swappiness" || skip "may not turn swap off"
        fi
    else
        [ -e "$group/memory.max" ] || skip "the memory controller is off in $(dirname "$group")"
        echo "$bytes" > "$group/memory.max" || skip "may not limit $group"
        [ ! -e "$group/memory.swap.max" ] || echo 0 > "$group/memory.swap.max"
    fi
}

clean() {
    # What the command left behind ends with it.
    for pid in $(cat "$group/cgroup.procs" 2>/dev/null); do
        kill -9 "$pid" 2>/dev/null || true
    done
    for _ in 1 2 3 4 5 6 7 8 9 10; do
        rmdir "$group" 2>/dev/null && return
        sleep 0.1
    done
    echo "could not remove $group" >&2
}

kills() {
    if [ "$version" = 1 ]; then
        awk '$1 == "oom_kill" { print $2 }' "$group/memory.oom_control"
    else
        awk '$1 == "oom_kill" { print $2 }' "$group/memory.events"
    fi
}

run_limited() {
    local code=0
    sh -c 'echo $$ > "$0/cgroup.procs" && exec "$@"' "$group" "$@" || code=$?
    echo "limited to $limit bytes (cgroup v$version): exit $code, OOM kills $(kills)" >&2
    return "$code"
}

if [ "${1:-}" = show ]; then
    plimsoll=${PLIMSOLL:-target/release/plimsoll}
    [ -x "$plimsoll" ] || { echo "no $plimsoll: build it, or set PLIMSOLL" >&2; exit 2; }
    switches=${SWITCHES:-200}
    set -- run --synthetic six --workload cyclic --steps "$switches" --churn --json
    # Models are made outside of the limit.
    "$plimsoll" run --synthetic six --workload cyclic --steps 1 --json > /dev/null
    limit=1500000000
    make_group "$limit"
    report=$(mktemp)
    code=0
    run_limited "$plimsoll" "$@" --ram auto --storage anonymous > "$report" || code=$?
    grep -oE '"(budget_low_bytes|budget_high_bytes|budget_bytes|refusals|failed_loads|loads|rss_peak_bytes)": *[0-9]+' "$report" | sort -u || true
    rm -f "$report"
    [ "$code" = 0 ] && [ "$(kills)" = 0 ] || { echo "the automatic budget did not hold" >&2; exit 1; }
    code=0
    run_limited "$plimsoll" "$@" --ram 8GB --storage heap --profile glibc-default > /dev/null || code=$?
    [ "$code" = 137 ] || { echo "8 GB of heap were not killed" >&2; exit 1; }
    echo "held by the automatic budget; killed without it" >&2
    exit 0
fi

[ $# -ge 2 ] || { sed -n '2,8s/^# \{0,1\}//p' "$0" >&2; exit 2; }
limit=$1
shift
make_group "$limit"
run_limited "$@"
