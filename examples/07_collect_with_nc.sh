#!/usr/bin/env bash
# Thousands of jobs with nothing but bash and nc: submit them, hear of each as it ends, fetch what they printed.
#
#   JOBYARD_URL=tcp://node1:9000 ./07_collect_with_nc.sh 5000
#
# Each job squares a number; their sum is compared with what it must be. WATCH tells who has ended since a cursor. The
# cursor holds at any node, so when the connection is cut, or the node is gone, nothing is missed and nothing told twice.
# This is the nc of OpenBSD; others say -q 0 where it says -N. Where a token is needed, send `AUTH <token>` first.
set -euo pipefail

count=${1:-1000}
address=${JOBYARD_URL:-tcp://127.0.0.1:9000}
address=${address%%,*}; address=${address#tcp://}
group="squares-$$-$RANDOM"

ask() { nc -N "${address%:*}" "${address##*:}"; }  # requests come in, replies go out, in the same order

for ((n = 1; n <= count; n++)); do
    echo "SUBMIT group=$group key=$group-$n exec expr $n * $n"
done | ask | grep -qv '^OK ' && { echo "not all were taken" >&2; exit 1; }

cursor=; ended=0; sum=0
while [ "$ended" -lt "$count" ]; do
    { read -r ok fields; jobs=$(cat); } < <(echo "WATCH timeout=30s ${cursor:+since=$cursor} group=$group" | ask)
    [ "$ok" = OK ] || { echo "$ok $fields" >&2; exit 1; }  # UNAVAILABLE, for instance: ask again, with the same cursor
    cursor=${fields#*cursor=}; cursor=${cursor%% *}
    [ -n "$jobs" ] || continue  # the time was over
    results=$(sed 's/ .*//; s/^/RESULT /' <<< "$jobs" | ask | grep -xE '[0-9]+' || true)  # what they printed
    ended=$((ended + $(wc -l <<< "$jobs")))
    sum=$((sum + $(paste -sd+ <<< "$results")))
    echo "$ended of $count" >&2
done

echo "the squares up to $count come to $sum"
[ "$sum" -eq $((count * (count + 1) * (2 * count + 1) / 6)) ]
