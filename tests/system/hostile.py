"""What strangers send: strategies of bytes, requests and messages, right and wrong, and where the network cuts them.

Nothing here knows what the answer should be. Requests name verbs and options as `docs/protocol.md` does, and messages
the classes and fields of `common/messages.py`, so that most of what is drawn gets past the first check, and is wrong
behind it.
"""

import itertools
from collections.abc import Sequence
from typing import Any, Final

import msgspec
from hypothesis import strategies as st

from common import frames
from common.codec import pack
from common.lines import Parser
from common.messages import CODES, PROTOCOL, Holdings
from common.model import Job

CHUNKS_MAX: Final = 8
TICKETS: Final = ("aaaaaa-1", "aaaaaa-2_7", "bbbbbb-999999999", "aaaaaa-1,aaaaaa-2", "k3f7qa-1.2", "nope", "")

# --- segmentations -----------------------------------------------------------------------------------------------


def cut(data: bytes, at: Sequence[int]) -> list[bytes]:
    """The pieces of `data` that arrive one after another."""
    edges = [0, *sorted(edge % (len(data) + 1) for edge in at), len(data)]
    return [data[begin:end] for begin, end in itertools.pairwise(edges) if end > begin]


CUTS: Final = st.lists(st.integers(0, 1 << 16), max_size=CHUNKS_MAX)

# --- the clients' port -------------------------------------------------------------------------------------------

_TEXT: Final = st.one_of(
    st.sampled_from(TICKETS), st.text(max_size=20),
    st.sampled_from(["\x1b[2J", "a\rb", "%00", "%", "\u2028", "ö" * 40]),
    st.integers(-10, 1 << 70).map(str), st.sampled_from(["1h", "10y", "99999999999h", "nan", "-0", "1e9", "0x10"]),
)  # fmt: skip
_OPTION: Final = st.builds(
    "{}={}".format,
    st.sampled_from(
        ["name", "group", "key", "priority", "slots", "retries", "backoff", "crash_limit", "timeout", "delay", "after",
         "array", "dir", "env.A", "env.", "bytes", "limit", "state", "since", "follow", "local", "cpu", "memory",
         "files", "processes", "output", "=", "colour"]
    ),
    _TEXT,
)  # fmt: skip
_VERB: Final = st.sampled_from(
    ["submit", "SUBMIT", "status", "result", "wait timeout=0", "watch timeout=0", "cancel", "retry", "forget",
     "explain", "logs", "list", "nodes", "stats", "events", "auth", "ping", "version", "help", "undrain", "run", "15",
     "logs follow=1", "events follow=1", "quit", "sUbMiT", "nonsense"]
)  # fmt: skip
_KIND: Final = st.sampled_from(
    ["sleep 0", "sleep 1h", "sh exit 1", "argv [", "argv []", "py a:b {", "call", "exec '", ""]
)
_LINE: Final = st.builds(
    lambda verb, options, tail, end: f"{' '.join([verb, *options, tail])}{end}".encode(errors="surrogatepass"),
    _VERB, st.just([]) | st.lists(_OPTION, max_size=3), st.one_of(_KIND, _TEXT),
    st.sampled_from(["\n", "\n", "\n", "\r\n", "", "\0\n"]),
)  # fmt: skip
_BODY: Final = st.builds(
    lambda body, claimed, end: b"submit bytes=%d sleep 0\n%b%b" % (claimed, body, end),
    st.binary(max_size=100), st.integers(0, 120), st.sampled_from([b"\n", b""]),
)  # fmt: skip
_LONG: Final = st.builds(
    lambda size, end: b"submit name=long sh " + b"x" * size + end,
    st.sampled_from([65_515, 65_516, 65_517, 65_537, 200_000]), st.sampled_from([b"\n", b""]),
)  # fmt: skip
CONVERSATIONS: Final = st.lists(
    st.one_of(*[_LINE] * 10, _BODY, _BODY, st.binary(max_size=200), st.binary(max_size=200), _LONG),
    min_size=1,
    max_size=6,
).map(b"".join)


def waits(conversation: bytes) -> bool:
    """Whether it asks something whose answer may never end."""
    requests = Parser().feed(conversation)
    return any(type(request).__name__ in ("Logs", "Events", "Wait", "Watch") or getattr(request, "wait", False)
               for request in requests)  # fmt: skip


# --- the cluster port --------------------------------------------------------------------------------------------

_JOB: Final = Job("sleep", "0")
_BYTES: Final = st.one_of(st.binary(max_size=40), st.just(pack(_JOB)), st.just(pack(_JOB)[:-1]))
_INT: Final = st.one_of(st.integers(-2, 3), st.sampled_from([2**31, 2**32, 2**63, -(2**63)]))
_WORD: Final = st.one_of(st.sampled_from(TICKETS[:2]), st.sampled_from(TICKETS), st.text(max_size=80))
_RIGHT: Final[dict[str, st.SearchStrategy[Any]]] = {
    "int": _INT,
    "float": st.floats(),
    "bool": st.booleans(),
    "bytes": _BYTES,
    "str": _WORD,
    "str | None": st.none() | _WORD,
    "tuple[str, ...]": st.lists(_WORD, max_size=3),
    "tuple[AttemptId, ...]": st.lists(st.tuples(_WORD, _INT), max_size=3),
    "tuple[tuple[str, str], ...]": st.lists(st.tuples(_WORD, _WORD), max_size=3),
    "tuple[tuple[str, int, str], ...]": st.lists(st.tuples(_WORD, _INT, _WORD), max_size=3),
}
_WRONG: Final = st.recursive(
    st.none() | st.booleans() | _INT | st.floats() | st.text(max_size=5) | st.binary(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


def _name(annotation: Any) -> str:
    """As it is written in the class."""
    text = str(annotation) if not isinstance(annotation, type) or "[" in str(annotation) else annotation.__name__
    return text.replace("common.messages.", "").replace("tuple[str, int], ...", "AttemptId, ...")


@st.composite
def _fields(draw: st.DrawFn, cls: type[Any]) -> dict[str, Any]:
    """The fields of a message, by name: mostly of the right types, now and then one that is wrong, or none."""
    drawn: dict[str, Any] = {}
    for field in msgspec.structs.fields(cls):
        fate = draw(st.integers(0, 19))
        if fate == 0:
            continue
        drawn[field.name] = draw(_WRONG if fate == 1 else _value(field.type))
    if draw(st.integers(0, 19)) == 0:
        drawn["surprise"] = 1
    return drawn


def _value(annotation: Any) -> st.SearchStrategy[Any]:
    name = _name(annotation)
    if name in _RIGHT:
        return _RIGHT[name]
    item = annotation.__args__[0]
    assert issubclass(item, msgspec.Struct), f"no strategy for {name}"
    return st.lists(_fields(item), max_size=2)


def _frame(code: int, payload: bytes) -> bytes:
    return (len(payload) + 2).to_bytes(4, "big") + bytes((PROTOCOL, code)) + payload


_TYPED: Final = st.sampled_from(sorted(CODES, key=lambda cls: CODES[cls])).flatmap(
    lambda cls: _fields(cls).map(lambda fields: _frame(CODES[cls], _packed(fields)))
)
_BROKEN: Final = st.one_of(
    st.binary(max_size=60),
    st.builds(_frame, st.integers(0, 255), st.binary(max_size=40)),
    st.integers(0, (1 << 32) - 1).map(lambda length: length.to_bytes(4, "big") + b"\x01\x0a"),
)
FRAMES: Final = st.lists(st.one_of(_TYPED, _TYPED, _TYPED, _TYPED, _BROKEN), min_size=1, max_size=5).map(b"".join)


def _packed(fields: dict[str, Any]) -> bytes:
    try:
        return msgspec.msgpack.encode(fields)
    except (OverflowError, UnicodeEncodeError):
        return b"\x80"


def holdings() -> bytes:
    """What a node says first, so that more of what follows is taken for its own."""
    return frames.encode(Holdings())
