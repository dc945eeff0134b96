"""Texts that fit a line, and do nothing to a terminal. Pure."""

import unicodedata


def harmless(text: str) -> str:
    """The same text; what could act on a terminal is written as an escape."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def in_ascii(text: str) -> str:
    """The same text; what is not ASCII is written as an escape."""
    return text if text.isascii() else text.encode("ascii", "backslashreplace").decode()


def cells(text: str) -> int:
    """How many cells of a terminal a harmless text takes: letters of East Asia take two, accents of their own none."""
    return len(text) if text.isascii() else sum(map(_cells_of, text))


def _cells_of(character: str) -> int:
    if unicodedata.combining(character) or unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def cut(text: str, width: int, mark: str = "…") -> str:
    """As much of a harmless text as fits so many cells; what is cut ends with the mark."""
    if cells(text) <= width:
        return text
    kept, taken = "", len(mark)
    for character in text:
        taken += _cells_of(character)
        if taken > width:
            break
        kept += character
    return (kept + mark)[: max(width, 0)] if width < len(mark) else kept + mark


def clock(seconds: float) -> str:
    """A time for a narrow place: `4.2s`, `3m05s`, `2h10m`, `5d03h`."""
    if seconds < 10:
        return f"{max(seconds, 0):.1f}s"
    for unit_s, unit, part_s, part in ((86400, "d", 3600, "h"), (3600, "h", 60, "m"), (60, "m", 1, "s")):
        if seconds >= unit_s:
            return f"{int(seconds // unit_s)}{unit}{int(seconds % unit_s // part_s):02}{part}"
    return f"{int(seconds)}s"
