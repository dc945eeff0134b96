#!/usr/bin/env bash
# Encode a directory of files on all nodes; put ffmpeg, convert or whatever you have in the place of gzip.
#
#   JOBYARD_URL=tcp://node1:9000 ./02_compress_files.sh /data/logs
#
# What is done already is left out, so that it can be called again after new files have come. A job may run twice, when
# its node is lost: so it writes beside the file that it makes, and renames at the end. Nodes have to see the directory.
set -euo pipefail

[ $# -eq 1 ] || { echo "usage: $0 DIRECTORY" >&2; exit 2; }
export LC_ALL=C
cd "$1"

find . -type f ! -name '*.gz' ! -name '*.part' -print0 | while IFS= read -r -d '' file; do
    [ "$file.gz" -nt "$file" ] || printf '%s\0' "$file"
done | jobyard map --null --jobs 50 --retries 1 --timeout 30m \
    'gzip -9 < {} > {}.part && gzip -t < {}.part && mv {}.part {}.gz && echo {} "$(stat -c %s {}) -> $(stat -c %s {}.gz)"'
