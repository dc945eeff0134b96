#!/usr/bin/env bash
# A long job whose output you watch, without being tied to it.
#
#   JOBYARD_URL=tcp://node1:9000 ./12_follow_a_long_job.sh make -j4
#
# As with a local command: its output as it comes, and its exit code. But Ctrl-C, or a laptop that is closed, ends the
# watching and not the job; `jobyard logs --follow TICKET` goes on watching, from any machine. (`jobyard run` is the
# other way: there Ctrl-C ends the job.)
set -euo pipefail

[ $# -gt 0 ] || { echo "usage: $0 COMMAND..." >&2; exit 2; }

ticket=$(jobyard submit -- "$@")
echo "it is $ticket" >&2
trap 'echo "it goes on: jobyard logs --follow $ticket" >&2; exit 130' INT

jobyard logs --follow "$ticket"
jobyard result --wait --quiet "$ticket" > /dev/null 2>&1  # for its exit code: the output we have seen
