"""Stories that once went wrong, kept in `found.toml` and told first, for ever.

A seed alone would not do: what is drawn from it changes with the drawing. So the setting and the plan are kept beside
it, as the hunt printed them.
"""

import ast
import tomllib
from pathlib import Path
from typing import Any, Final

import attrs

from tests.simulation import plan
from tests.simulation.knobs import Load, Setting
from tests.simulation.plan import Plan
from tests.simulation.world import Knobs

FILE: Final = Path(__file__).with_name("found.toml")


@attrs.frozen
class Found:
    what: str  # in one line, what went wrong
    seed: int
    setting: Setting
    faults: Plan


def found() -> list[Found]:
    """All of them, in the order in which they were found."""
    return read(FILE.read_text())


def read(text: str) -> list[Found]:
    return [_read(entry) for entry in tomllib.loads(text).get("found", [])]


def _read(entry: dict[str, Any]) -> Found:
    setting = Setting(_changed(Knobs, entry.get("knobs", {})), _changed(Load, entry.get("load", {})))
    return Found(entry["what"], entry["seed"], setting, plan.parse(entry["plan"]))


def _changed(cls: type[Any], values: dict[str, str]) -> Any:
    return cls(**{name: ast.literal_eval(text) for name, text in values.items()})


def entry(seed: int, setting: Setting, faults: Plan, what: str) -> str:
    """What belongs into `found.toml`."""
    lines = ["[[found]]", f"what = {_quoted(what)}", f"seed = {seed}"]
    for name, value in (("knobs", setting.knobs), ("load", setting.load)):
        usual = type(value)()
        changed = {key: was for key, was in attrs.asdict(value).items() if was != getattr(usual, key)}
        lines.append(f"{name} = {{ {', '.join(f'{key} = {_quoted(repr(was))}' for key, was in changed.items())} }}")
    lines += ["plan = [", *(f"    {_quoted(line)}," for line in plan.show(faults)), "]"]
    return "\n".join(lines)


def _quoted(text: str) -> str:
    """A literal string of TOML."""
    return '"' + text.replace("\\", "\\\\").replace('"', "'") + '"'
