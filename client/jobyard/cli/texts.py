"""Texts that fit a line, and do nothing to a terminal. Pure."""


def harmless(text: str) -> str:
    """The same text; what could act on a terminal is written as an escape."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def clock(seconds: float) -> str:
    """A time for a narrow place: `4.2s`, `3m05s`, `2h10m`, `5d03h`."""
    if seconds < 10:
        return f"{max(seconds, 0):.1f}s"
    for unit_s, unit, part_s, part in ((86400, "d", 3600, "h"), (3600, "h", 60, "m"), (60, "m", 1, "s")):
        if seconds >= unit_s:
            return f"{int(seconds // unit_s)}{unit}{int(seconds % unit_s // part_s):02}{part}"
    return f"{int(seconds)}s"
