"""Who a data directory is: random ids made with it, once and for ever, and a boot id for each start.

Names are for people, and containers reuse them; these are what leases, tickets and ledgers are known by.
"""

import secrets

from common.effects import Put, Table
from common.model import PREFIX_ALPHABET, PREFIX_CHARACTERS
from common.runtime.store import Store

_ID_BYTES = 16


def directory_id(store: Store) -> str:
    """The random id of this directory."""
    return _once(store, b"id", secrets.token_hex(_ID_BYTES))


def ticket_prefix(store: Store) -> str:
    """The characters with which every ticket issued from this directory begins."""
    return _once(store, b"prefix", "".join(secrets.choice(PREFIX_ALPHABET) for _ in range(PREFIX_CHARACTERS)))


def boot_id() -> str:
    """A new one at each start."""
    return secrets.token_hex(_ID_BYTES)


def _once(store: Store, key: bytes, fresh: str) -> str:
    known = store.get(Table.META, key)
    if known is None:
        store.commit([Put(Table.META, key, fresh.encode())])
        return fresh
    return known.decode()
