"""Who a data directory is: random ids made with it, once and for ever, and a boot id for each start.

Names are for people, and containers reuse them; these are what leases, tickets and ledgers are known by.
"""

import secrets
from collections.abc import Callable
from typing import Final

from common.effects import Put, Table
from common.model import PREFIX_ALPHABET, PREFIX_CHARACTERS
from common.runtime.outside import Nonce, Tables

_ID_BYTES: Final = 16
assert 256 % len(PREFIX_ALPHABET) == 0, "or the letters of a prefix would not be equally likely"


def directory_id(tables: Tables, nonce: Nonce = secrets.token_bytes) -> str:
    """The random id of this directory."""
    return _once(tables, b"id", lambda: nonce(_ID_BYTES).hex())


def ticket_prefix(tables: Tables, nonce: Nonce = secrets.token_bytes) -> str:
    """The characters with which every ticket issued from this directory begins."""

    def fresh() -> str:
        return "".join(PREFIX_ALPHABET[byte % len(PREFIX_ALPHABET)] for byte in nonce(PREFIX_CHARACTERS))

    return _once(tables, b"prefix", fresh)


def boot_id(nonce: Nonce = secrets.token_bytes) -> str:
    """A new one at each start."""
    return nonce(_ID_BYTES).hex()


def _once(tables: Tables, key: bytes, fresh: Callable[[], str]) -> str:
    known = tables.get(Table.META, key)
    if known is not None:
        return known.decode()
    made = fresh()
    tables.commit([Put(Table.META, key, made.encode())])
    return made
