"""How a mutant changes shipped code, and how the code gets well again."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def patched(owner: Any, name: str, new: Any) -> Iterator[None]:
    """`owner.name` is something else for a while. There must be one: a mutant of code that is gone is no mutant."""
    old = owner.__dict__[name]
    setattr(owner, name, new)
    try:
        yield
    finally:
        setattr(owner, name, old)
