#!/usr/bin/env bash
# Does what the jobs of docs/ci.md do: runs the `run:` and `script:` lines of each, by bash, in a new
# folder with a crate or a Python server and nothing else; once to take a baseline, and once to check.
# In place of `cargo install` the command is put where that would put it, and the crate takes
# malloc-stats from here, since neither is asked to download anything. `uses:` lines are not run.
#
#     cargo build && docs/ci/try.sh
#
#     PLIMSOLL=path   the command    [default: target/debug/plimsoll]
#
# Needs python3 with yaml.
set -euo pipefail
cd "$(dirname "$0")"
here=$PWD
repository=$(cd ../.. && pwd)
plimsoll=$(realpath "${PLIMSOLL:-$repository/target/debug/plimsoll}")
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$repository/target}
python=$(python3 -c 'import sys; print(sys.executable)')

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# The lines that a job file runs, in their order, one shell script a step.
steps() {
    "$python" - "$1" "$2" <<'PYTHON'
import pathlib, sys, yaml
job = yaml.safe_load(open(sys.argv[1]))
if "jobs" in job:
    scripts = [step["run"] for step in job["jobs"]["memory"]["steps"] if "run" in step]
else:
    # A job of GitLab is one shell.
    scripts = ["\n".join(job[name]["script"]) for name in job]
for number, script in enumerate(scripts):
    script = "\n".join(
        "install_plimsoll" if line.startswith("cargo install") else line
        for line in script.splitlines()
    )
    pathlib.Path(sys.argv[2], f"{number}.sh").write_text(script + "\n")
PYTHON
}

for job in github-rust github-python gitlab-rust gitlab-python; do
    folder=$work/$job
    mkdir -p "$folder/steps" "$folder/tools" "$folder/clone"
    steps "$here/$job.yml" "$folder/steps"
    # Not a shim in front of it, which would be measured as well.
    ln -s "$python" "$folder/tools/python3"
    cat >"$folder/tools/install_plimsoll" <<SCRIPT
#!/bin/sh
mkdir -p "\$CARGO_HOME/bin" && cp "$plimsoll" "\$CARGO_HOME/bin/plimsoll"
SCRIPT
    chmod +x "$folder/tools/install_plimsoll"
    cd "$folder/clone"
    case $job in
        *-rust)
            cp -r "$here/crate/." .
            stats="path = \"$repository/malloc-stats\""
            sed -i "s|git = \"[^\"]*\"|$stats|" Cargo.toml
            # Those versions that are here already.
            cp "$repository/Cargo.lock" . && cargo update --offline --quiet --workspace
            ln -s "$CARGO_TARGET_DIR" target
            ;;
        *-python) cp "$here/server.py" . ;;
    esac
    for UPDATE in --update ""; do
        export UPDATE
        for step in "$folder"/steps/*.sh; do
            echo "== $job${UPDATE:+ ($UPDATE)}: $(basename "$step")"
            (
                # What is downloaded already stays in the usual place.
                export CARGO_HOME=${CARGO_HOME:-$HOME/.cargo}
                export CARGO_NET_OFFLINE=true PYTHONHASHSEED=0
                export PATH="$folder/tools:$folder/home/bin:$PATH"
                case $job in
                    github-*) export GITHUB_ACTIONS=true GITHUB_STEP_SUMMARY=$folder/summary.md ;;
                esac
                sed -i "s|\$CARGO_HOME|$folder/home|g" "$step" "$folder/tools/install_plimsoll"
                exec bash -e "$step"
            )
        done
    done
    test -s memory.json && test -s memory.xml
    test -s memory.md || test -s "$folder/summary.md"
    cd "$here"
done
echo "all jobs did what they say"
