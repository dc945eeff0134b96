#!/usr/bin/env bash
# Take a node out of service, do something to it, and put it back. No job is lost, and none is run again for it.
#
#   ./13_maintenance.sh tcp://node3:9000 ssh node3 sudo apt-get -y upgrade
#
# A draining node takes no new jobs, gives back what waits, and finishes what runs. That can take as long as the longest
# job; ask `jobyard list --state running` what it is, and cancel or wait. The node stays so over a restart, until undrain.
set -euo pipefail

[ $# -ge 2 ] || { echo "usage: $0 tcp://NODE:PORT COMMAND..." >&2; exit 2; }
node=$1; shift

jobyard drain --url "$node"
trap 'jobyard undrain --url "$node"' EXIT  # whatever becomes of the command

until jobyard drain --json --url "$node" | grep -q '"running": 0'; do
    sleep "${PERIOD:-5}"
done
echo "nothing runs there any more"
"$@"
