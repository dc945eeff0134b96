#!/usr/bin/env bash
# Commands that you do not quite trust, each with bounds to what it can take from its node.
#
#   JOBYARD_URL=tcp://node1:9000 ./11_limits.sh < commands.txt
#
# For each command one line: how it ended, and if a limit ended it, which. Limits keep a mistake from taking a node
# down; they do not keep an attacker out. A job may still read and write what the node's user may, so for strangers
# give the node a container, and a user, of its own.
set -euo pipefail

group="limits-$$-$RANDOM"
while IFS= read -r command; do
    jobyard submit --group "$group" --name "$command" --scratch \
        --timeout "${TIMEOUT:-1m}" --cpu "${CPU:-30s}" --memory "${MEMORY:-256MiB}" --processes 20 --files 64 --output 1MiB \
        --sh "$command" > /dev/null
done

jobyard wait "group:$group" || true  # that some fail is what this is for
