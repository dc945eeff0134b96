#!/usr/bin/env bash
# A job that fails now and then, and is tried again: each time after twice as long, up to 5 minutes.
#
#   JOBYARD_URL=tcp://node1:9000 ./05_flaky_download.sh https://example.org/data.csv data.csv
#
# Nobody waits at a terminal meanwhile: the job is `retrying`, takes no slot, and `jobyard status` says when it is tried
# next. A node that is lost in the middle of it does not count as a failure. Nodes have to see this directory.
set -euo pipefail

[ $# -eq 2 ] || { echo "usage: $0 URL FILE" >&2; exit 2; }

ticket=$(jobyard submit --name "$2" --retries 8 --backoff "${BACKOFF:-1s}" --timeout 10m \
    --env FROM="$1" --env TO="$2" --sh '
        curl --fail --silent --show-error --location --output "$TO.part" "$FROM" && mv "$TO.part" "$TO"')

if jobyard wait --quiet "$ticket" > /dev/null; then
    echo "$2 is here, after $(jobyard status --json "$ticket" | sed 's/.*"attempt": \([0-9]*\).*/\1/') attempts"
else
    jobyard result --quiet "$ticket"  # what curl said the last time, and its exit code
fi
