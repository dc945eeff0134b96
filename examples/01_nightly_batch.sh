#!/usr/bin/env bash
# A nightly batch: one job for each directory, all of them in one group, then wait for the group and tell what failed.
#
#   JOBYARD_URL=tcp://node1:9000 ./01_nightly_batch.sh /data/*/
#
# Each job writes SHA256SUMS, a list of what is in its directory. It is tried three times, and an hour each time at
# most. Exit code 0 if every list was written; otherwise what failed is listed with its reason, and
# `jobyard retry group:…` runs exactly that again, when the cause is mended. Nodes have to see the directories.
set -euo pipefail

[ $# -gt 0 ] || { echo "usage: $0 DIRECTORY..." >&2; exit 2; }
group="night-$(date +%F)-$$"

for directory; do
    jobyard submit --group "$group" --name "$(basename "$directory")" --dir "$directory" \
        --retries 2 --backoff "${BACKOFF:-1m}" --timeout 1h --sh '
            set -e
            find . -type f ! -name "SHA256SUMS*" -print0 | sort -z | xargs -0r sha256sum > SHA256SUMS.new
            test -s SHA256SUMS.new
            mv SHA256SUMS.new SHA256SUMS' > /dev/null
done

if jobyard wait "group:$group" > /dev/null; then
    echo "$# lists written"
else
    jobyard list --group "$group" --state failed
    echo "when it is mended: jobyard retry group:$group" >&2
    exit 1
fi
