#!/usr/bin/env bash
# A model server that the kernel kills for want of memory, though it never holds more than one model:
# to be looked at with `plimsoll top PID` while it lasts, half a minute. docs/diagnose.md walks
# through it.
#
#   docs/diagnose/oom.sh                                        killed
#   MALLOC_MMAP_THRESHOLD_=131072 docs/diagnose/oom.sh          not
#
# A cgroup of its own limits it to 700 MB, so that nothing else is killed; to make one takes root, or
# a delegated cgroup.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
echo "plimsoll top \$(pgrep -nf 'server.py --climb')" >&2
exec "$here/../../tests/limited.sh" 700000000 python3 "$here/server.py" --climb --scale 2
