"""Values ↔ bytes, for messages and for records alike, as MessagePack.

What there is one of for each job or message is a `Record`, which msgspec makes and reads ten times as fast as anything
written in Python; whatever there are few of may as well be an attrs class, read by cattrs.

Fields that hold their default are left out: it keeps records small, and it is what lets an older record open after
a field was added. Reading is closed: an unknown field, a missing one or a value of another type is refused with
`Malformed`, because the bytes come from another machine or from a disk. Bodies and outputs are bytes that nobody on
the way looks into.
"""

import functools
from collections.abc import Callable
from enum import StrEnum
from typing import Any, TypeVar

import cattrs
import msgspec
from cattrs.errors import ForbiddenExtraKeysError

T = TypeVar("T")
S = TypeVar("S", bound=msgspec.Struct)
R = TypeVar("R", bound=msgspec.Struct)

_REFUSALS = (
    msgspec.DecodeError,
    ForbiddenExtraKeysError,
    ValueError,
    TypeError,
    KeyError,
    AttributeError,
    OverflowError,
    RecursionError,
)


class Malformed(ValueError):
    """The bytes are not what they claim to be; the text says how."""


class Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, gc=False):
    """A frozen value that is packed and unpacked for each job. Its fields are words, numbers, bytes and tuples of such,
    so that it can be in no cycle. What the types do not say is checked in `__post_init__`, by raising ValueError; one
    that reads as it was written may still differ in bytes (`canonical` does not)."""


def replace(record: R, **changes: Any) -> R:
    """The record with other values in these fields."""
    return msgspec.structs.replace(record, **changes)


def pack(value: object) -> bytes:
    """The bytes of a Record or of an attrs instance."""
    return _encode(value if isinstance(value, msgspec.Struct) else _converter.unstructure(value))


def canonical(record: msgspec.Struct) -> bytes:
    """Its bytes without any field that equals its default, so that equal records have equal bytes in every version."""
    fields = zip(_defaults(type(record)), msgspec.structs.astuple(record), strict=True)
    kept = {name: value for (name, default), value in fields if value != default}
    return _encode(kept)


@functools.cache  # there are few classes, and msgspec finds out anew each time that it is asked
def _defaults(cls: type[msgspec.Struct]) -> tuple[tuple[str, Any], ...]:
    return tuple((field.name, field.default) for field in msgspec.structs.fields(cls))


def unpack(cls: type[T], data: bytes) -> T:
    """The instance of `cls` that `data` holds; raises Malformed."""
    try:
        return (_readers.get(cls) or _reader(cls))(data)  # type: ignore[no-any-return]
    except _REFUSALS as error:
        raise Malformed(f"not a {cls.__name__}: {type(error).__name__}: {_told(error)}") from error


_readers: dict[type, Callable[[bytes], Any]] = {}


def _reader(cls: type[Any]) -> Callable[[bytes], Any]:
    if issubclass(cls, msgspec.Struct):
        _readers[cls] = msgspec.msgpack.Decoder(cls).decode
    else:
        _readers[cls] = lambda data: _converter.structure(_decode(data), cls)
    return _readers[cls]


def _told(error: Exception) -> str:
    """What cattrs says of fields that nobody knows it can say only of names, and a map may have anything for a key."""
    if isinstance(error, ForbiddenExtraKeysError):
        return f"unknown fields: {', '.join(sorted(map(repr, error.extra_fields)))}"
    return str(error)


def glance(shape: type[S], data: bytes) -> S:
    """A few fields of a packed value, those that `shape` names, for a thirtieth of what all of it costs; raises
    Malformed. The rest is not looked at."""
    try:
        return msgspec.msgpack.decode(data, type=shape)
    except msgspec.DecodeError as error:
        raise Malformed(f"no {shape.__name__}: {error}") from error


def _exactly(cls: type[T]) -> Callable[[Any, Any], T]:
    """cattrs would make a str of anything; what crosses a wire must already be one."""

    def check(value: Any, _: Any) -> T:
        if type(value) is cls:
            return value
        raise TypeError(f"expected {cls.__name__}, got {type(value).__name__}")

    return check


def _number(value: Any, _: Any) -> float:
    if type(value) is float or type(value) is int:
        return float(value)
    raise TypeError(f"expected a number, got {type(value).__name__}")


def _make_converter() -> cattrs.Converter:
    converter = cattrs.Converter(omit_if_default=True, forbid_extra_keys=True, detailed_validation=False)
    for cls in (str, bytes, int, bool):
        converter.register_structure_hook(cls, _exactly(cls))
    converter.register_structure_hook(float, _number)
    # A word of a closed set travels as the string that it is, and must be one of the set.
    converter.register_unstructure_hook(StrEnum, lambda value: value)
    converter.register_structure_hook(StrEnum, lambda value, cls: cls(value))
    # A Record within an attrs class.
    converter.register_unstructure_hook(msgspec.Struct, lambda value: value)
    converter.register_structure_hook(msgspec.Struct, lambda value, cls: msgspec.convert(value, cls))
    return converter


_converter = _make_converter()
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder().decode
