"""`last`: the ticket that `submit` or `run` got last, of this user on this machine.

It is a convenience: where it cannot be kept, a submission is none the worse.
"""

import os
from pathlib import Path

from jobyard.model import Ticket


def keep(submitted: Ticket) -> None:
    path = _path()
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        beside = path.with_name(f"last.{os.getpid()}")
        beside.write_text(f"{submitted}\n", encoding="utf-8")
        beside.replace(path)  # whoever reads it at this moment gets the one or the other
    except OSError:
        pass


def ticket() -> Ticket:
    """Raises ValueError where there is none."""
    path = _path()
    try:
        text = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        text = ""
    if not text:
        raise ValueError(f"there is no last ticket: nothing was submitted from here before ({path} would have it)")
    return Ticket(text)


def _path() -> Path:
    """As the XDG base directories have it: what a program remembers from one run to the next."""
    state = os.environ.get("XDG_STATE_HOME", "")
    root = Path(state) if os.path.isabs(state) else Path("~/.local/state").expanduser()
    return root / "jobyard" / "last"
