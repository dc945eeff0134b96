"""The two clients under one roof: the async one is driven from here call by call, so that one test holds both to the
same conversation.
"""

import threading
from collections.abc import AsyncGenerator, Callable, Generator
from functools import partial
from inspect import isasyncgen
from types import TracebackType
from typing import Any, Self

import trio

from jobyard import Client
from jobyard.aio import AsyncClient

Connect = Callable[..., Any]  # takes what Client takes


class InTrio:
    """An AsyncClient in a loop of its own, with the methods of the blocking one."""

    def __init__(self, *args: Any, **options: Any) -> None:
        self._make = partial(AsyncClient, *args, **options)
        self._started = threading.Event()
        self._thread = threading.Thread(target=trio.run, args=(self._run,))

    async def _run(self) -> None:
        self._stop = trio.Event()
        self._token = trio.lowlevel.current_trio_token()
        async with self._make() as self.client:
            self._started.set()
            await self._stop.wait()

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._started.wait(10)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._token.run_sync_soon(self._stop.set)
        self._thread.join()

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self.client, name)

        def call(*args: Any, **options: Any) -> Any:
            made = method(*args, **options)
            return self._step_by_step(made) if isasyncgen(made) else self._wait_for(made)

        return call

    def _step_by_step(self, items: AsyncGenerator[Any, None]) -> Generator[Any, None, None]:
        try:
            while True:
                try:
                    yield self._wait_for(anext(items))
                except StopAsyncIteration:
                    return
        finally:
            self._wait_for(items.aclose())

    def _wait_for(self, made: Any) -> Any:
        async def wait() -> Any:
            return await made

        return trio.from_thread.run(wait, trio_token=self._token)


def idle_connection(yard: Any) -> Any:
    """The connection that a client keeps for its next request."""
    return yard._connection if isinstance(yard, Client) else yard.client._idle[0]
