"""Jobyard's client for trio: `AsyncClient` has the methods of `jobyard.Client`, each to be awaited.

    from jobyard.aio import AsyncClient

    async with AsyncClient() as yard:
        ticket = await yard.submit("sh", "sha256sum /etc/hostname")
        print((await yard.wait(ticket)).stdout.decode())

Its two files line up with those of the blocking client; values, errors and everything that decides are the same.
It needs trio: `pip install jobyard[trio]`.

    connection.py  one socket to one node
    client.py      AsyncClient: fail-over, and a method for each verb
"""

from jobyard.aio.client import AsyncClient

__all__ = ["AsyncClient"]
