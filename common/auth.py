"""The proof of the cluster key: challenge and response, never the key itself.

Each side shows an HMAC-SHA256 over *everything* that both have said so far, under a label of its own, so a proof can
be neither replayed (both nonces are in it), nor reflected (the label), nor moved to another node, boot, ledger or
protocol version. The balancer proves itself first: whoever dials in without the key learns nothing but a MAC.
"""

import hashlib
import hmac

from common.codec import pack
from common.messages import Challenge, Hello

NONCE_BYTES = 32


def balancer_proof(key: bytes | None, hello: Hello, ledger_id: str, nonce: bytes) -> bytes:
    """What the balancer shows; empty where no key is set."""
    return _proof(key, b"jobyard balancer", hello, Challenge(ledger_id, nonce, b""))


def node_proof(key: bytes | None, hello: Hello, ledger_id: str, nonce: bytes) -> bytes:
    """What the node shows; empty where no key is set."""
    return _proof(key, b"jobyard node", hello, Challenge(ledger_id, nonce, b""))


def matches(expected: bytes, shown: bytes) -> bool:
    """Compared in constant time."""
    return hmac.compare_digest(expected, shown)


def _proof(key: bytes | None, label: bytes, hello: Hello, challenge: Challenge) -> bytes:
    if key is None:
        return b""
    mac = hmac.new(key, digestmod=hashlib.sha256)
    for part in (label, pack(hello), pack(challenge)):
        mac.update(len(part).to_bytes(4, "big"))
        mac.update(part)
    return mac.digest()
