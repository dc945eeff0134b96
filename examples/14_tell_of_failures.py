#!/usr/bin/env python3
"""What has failed since the last time: for cron, with a mail or a chat in the place of `print`.

JOBYARD_URL=tcp://node1:9000 python 14_tell_of_failures.py /var/tmp/failures.cursor

Events are read from a cursor on, which is kept in a file. So nothing is told twice, and nothing is missed that happened
while this did not run, whichever node answers. When so much has happened that the oldest is no longer kept, it says so.
"""

import sys
from pathlib import Path

from jobyard import Client, JobyardError


def main(cursor: Path) -> None:
    since = cursor.read_text().strip() if cursor.exists() else None
    with Client() as yard:
        while True:
            part = yard.events(since)
            if part.lost:
                print("some events are no longer kept; failures among them are not told")
            for event in part.events:
                if event["event"] == "job.failed":
                    print(f"{event['ticket']} failed on {event.get('node')}: {event.get('reason')}{said(yard, event)}")
            since = part.cursor
            cursor.write_text(since)
            if not part.events:
                return


def said(yard: Client, event: dict[str, str]) -> str:
    """The end of what it printed on standard error, if it is still known."""
    try:
        lines = yard.result(event["ticket"]).stderr.decode(errors="replace").strip().splitlines()
    except JobyardError:
        return ""
    return f" ({lines[-1]})" if lines else ""


if __name__ == "__main__":
    main(Path(sys.argv[1]))
