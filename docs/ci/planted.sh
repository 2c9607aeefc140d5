#!/usr/bin/env bash
# Does the gate catch what it is for, and only that? For the server in Rust (examples/gated.rs) and
# the one in Python (server.py): takes a baseline, checks each planted regression, and then the
# program as it is, time and again, with another core kept busy. Prints a table; ends with 1 if a
# regression was missed or a clean check failed.
#
#     cargo build && cargo build --example gated && docs/ci/planted.sh
#
#     PLIMSOLL=path   the command                    [default: target/debug/plimsoll]
#     GATED=path      the server in Rust             [default: target/debug/examples/gated]
#     N=20            how many clean checks of each
#     SUBJECTS=...    which                          [default: rust python]
set -euo pipefail
cd "$(dirname "$0")/../.."
plimsoll=${PLIMSOLL:-target/debug/plimsoll}
gated=${GATED:-target/debug/examples/gated}
clean=${N:-20}
# Not a shim in front of it, which would be measured as well.
python=$(python3 -c 'import sys; print(sys.executable)')

work=$(mktemp -d)
yes >/dev/null &
busy=$!
trap 'kill $busy; wait $busy 2>/dev/null || true; rm -r "$work"' EXIT

# The metrics of a verdict that failed, or that have none.
failed() {
    "$python" - "$1" <<'PYTHON'
import json, sys
checked = json.load(open(sys.argv[1]))
names = [f"{row['measure']} ({row['verdict']})" for row in checked["rows"]
         if row["verdict"] not in ("pass", "improved", "skipped", "regression")]
caught = [row["measure"] for row in checked["rows"] if row["verdict"] == "regression"]
print(", ".join(caught + names + checked["reasons"]) or "-")
PYTHON
}

check() { # subject, plant
    local code=0
    local -a command
    case $1 in
        rust) command=("$gated") ;;
        python) command=("$python" docs/ci/server.py) ;;
    esac
    PLANT=$2 "$plimsoll" check --baseline "$work/$1.json" --json "${@:3}" -- "${command[@]}" \
        >"$work/verdict.json" 2>"$work/said" || code=$?
    return $code
}

wrong=0
row='%-8s %-12s %-14s %s\n'
printf "$row" subject planted verdict metrics
for subject in ${SUBJECTS:-rust python}; do
    check "$subject" "" --update || { cat "$work/said" >&2; exit 1; }
    for plant in leak survivor threshold over-budget; do
        code=0
        check "$subject" $plant || code=$?
        case $code in
            1) verdict=caught ;;
            *) verdict="missed (exit $code)"; wrong=1 ;;
        esac
        printf "$row" "$subject" $plant "$verdict" "$(failed "$work/verdict.json" || cat "$work/said")"
    done
    passed=0
    for _ in $(seq "$clean"); do
        code=0
        check "$subject" "" || code=$?
        if [ $code = 0 ]; then
            passed=$((passed + 1))
            continue
        fi
        wrong=1
        printf "$row" "$subject" - "exit $code" "$(failed "$work/verdict.json" || cat "$work/said")"
    done
    printf "$row" "$subject" - "$passed of $clean pass" "-"
done
exit $wrong
