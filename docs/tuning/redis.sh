#!/bin/sh
# Redis as a cache that is filled and emptied: five times 60 000 values of 100 to 8000 bytes, of which
# nine in ten are deleted again. Marks its moments for `plimsoll compare`:
#
#     plimsoll compare -- docs/tuning/redis.sh
#
# Needs redis-server and redis-cli, and `plimsoll` in PATH or in $PLIMSOLL.
set -eu
mark=${PLIMSOLL:-plimsoll}
folder=$(mktemp -d)
redis-server --save '' --appendonly no --port 0 --unixsocket "$folder/s" --daemonize no >/dev/null &
server=$!
trap 'kill $server 2>/dev/null; wait $server; rm -r "$folder"' EXIT
cli() { redis-cli -s "$folder/s" "$@"; }
until cli ping >/dev/null 2>&1; do sleep 0.05; done
"$mark" mark baseline
for cycle in 1 2 3 4 5; do
    cli eval "
        math.randomseed($cycle)
        for n = 1, 60000 do
            redis.call('set', 'k' .. n, string.rep('v', math.random(100, 8000)))
        end
        for n = 1, 60000 do
            if n % 10 ~= 0 then redis.call('del', 'k' .. n) end
        end" 0 >/dev/null
    sleep 0.3
    "$mark" mark cycle
done
cli flushall >/dev/null
sleep 1
"$mark" mark dropped
