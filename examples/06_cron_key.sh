#!/usr/bin/env bash
# A job that cron submits, once a day and no more, however often cron, the network or somebody repeats it.
#
#   */10 * * * *  JOBYARD_URL=tcp://node1:9000,tcp://node2:9000 /opt/jobs/06_cron_key.sh report ./make-report
#
# One key gives one job in the whole cluster: whoever submits it again gets the ticket of the first. So every ten minutes
# is not too often; it is what makes up for a machine that was down at midnight, or for an answer that was lost.
# Printed are the ticket, and the state that the job is in by now.
set -euo pipefail

[ $# -ge 2 ] || { echo "usage: $0 NAME COMMAND..." >&2; exit 2; }
name=$1; shift

ticket=$(jobyard submit --key "$name-${DAY:-$(date +%F)}" --name "$name" --retries 3 -- "$@")
jobyard status --json "$ticket" | sed 's/.*"ticket": "\([^"]*\)".*"state": "\([^"]*\)".*/\1 \2/'
