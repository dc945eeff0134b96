"""Values ↔ bytes, for messages and for records alike: attrs classes, checked by cattrs, as MessagePack.

Fields that hold their default are left out: it keeps records small, and it is what lets an older record open after
a field was added. Reading is closed: an unknown field, a missing one or a value of another type is refused with
`Malformed`, because the bytes come from another machine or from a disk. Bodies and outputs are bytes that nobody on
the way looks into.
"""

from collections.abc import Callable
from enum import StrEnum
from typing import Any, TypeVar

import cattrs
import msgspec
from cattrs.errors import ForbiddenExtraKeysError

T = TypeVar("T")
S = TypeVar("S", bound=msgspec.Struct)

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


def pack(value: object) -> bytes:
    """The bytes of an attrs instance."""
    return _encode(_converter.unstructure(value))


def unpack(cls: type[T], data: bytes) -> T:
    """The instance of `cls` that `data` holds; raises Malformed."""
    try:
        return _converter.structure(_decode(data), cls)
    except _REFUSALS as error:
        raise Malformed(f"not a {cls.__name__}: {type(error).__name__}: {_told(error)}") from error


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
    return converter


_converter = _make_converter()
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder().decode
