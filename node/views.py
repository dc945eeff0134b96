"""What the HTTP side of a node shows of it, as JSON: whether it takes jobs, and its numbers. Pure."""

import msgspec

from common.events import StoreLevel
from common.messages import Inquiry
from common.replies import read_reply


def answer(inquiry: Inquiry, refused: bytes | None, statistics: dict[str, float], level: StoreLevel) -> bytes:
    """The answer to `ready`, and to anything else the numbers; `refused` is what SUBMIT would be told."""
    if inquiry.verb == "ready":
        why = "takes jobs" if refused is None else read_reply(refused).message
        return msgspec.json.encode({"ready": refused is None, "why": why})
    return msgspec.json.encode({"store_fraction": level.fraction, "statistics": statistics})
