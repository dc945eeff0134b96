#!/usr/bin/env bash
# A pipeline: many jobs side by side, and one that begins when all of them have succeeded.
#
#   JOBYARD_URL=tcp://node1:9000 ./04_pipeline.sh /data/texts
#
# Each text is cut into sorted words, and the last job merges them and counts: the five words that are most frequent in
# all of them. If one of the first fails, the last is cancelled, with the reason `dependency`; this script need not
# live until then. Nodes have to see the directory.
set -euo pipefail

[ $# -eq 1 ] || { echo "usage: $0 DIRECTORY" >&2; exit 2; }
cd "$1"

words=()
for text in *.txt; do
    words+=("$(jobyard submit --env TEXT="$text" --sh '
        tr -cs "[:alpha:]" "\n" < "$TEXT" | tr "[:upper:]" "[:lower:]" | grep . | LC_ALL=C sort > "$TEXT.words"')")
done

merge=$(jobyard submit --after "$(IFS=,; echo "${words[*]}")" --sh '
    LC_ALL=C sort -m ./*.words | uniq -c | sort -k1,1nr -k2 | head -n 5')

jobyard result --wait "$merge"
