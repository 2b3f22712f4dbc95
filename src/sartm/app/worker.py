"""One thread that computes, a bounded number of requests that wait for it, and their time limit."""

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import Scope

Result = TypeVar("Result")

DEADLINE = "sartm.deadline"
"""Key of a request's scope: the `time.monotonic` at which it is given up."""
CLIENT_CLOSED_REQUEST = 499
"""Status of a request whose client went away; nobody receives it."""


class Worker:
    """Runs one job at a time, in order of arrival.

    A job that nobody waits for any longer (time is up, client gone) is dropped if it has not begun;
    one that runs is left to finish, since a thread cannot be stopped.
    """

    def __init__(self, waiting: int, seconds: float) -> None:
        self.room = waiting + 1  # the one that is computed does not wait
        self.seconds = seconds
        self.present = 0
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="sartm-worker")

    def enter(self, scope: Scope) -> bool:
        """Take a place, before the body is read; False if all are taken."""
        with self._lock:
            if self.present >= self.room:
                return False
            self.present += 1
        scope[DEADLINE] = time.monotonic() + self.seconds
        return True

    def leave(self) -> None:
        """Give the place back."""
        with self._lock:
            self.present -= 1

    async def run(self, request: Request, job: Callable[[], Result]) -> Result:
        """The job's result or exception; HTTPException 503 when the request's time is up."""
        future = asyncio.wrap_future(self._pool.submit(job))
        gone = asyncio.ensure_future(_disconnected(request))
        either: set[asyncio.Future[Any]] = {future, gone}
        left = request.scope[DEADLINE] - time.monotonic()
        try:
            done, _ = await asyncio.wait(
                either, timeout=max(left, 0), return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            gone.cancel()
            if not future.done():
                future.cancel()
        if future in done:
            return future.result()
        if gone in done:
            raise HTTPException(CLIENT_CLOSED_REQUEST, "the client went away")
        raise HTTPException(
            503,
            f"not done after {self.seconds:g} seconds; send a smaller image or come back when "
            f"fewer are waiting",
            {"Retry-After": "5"},
        )

    def close(self) -> None:
        """Drop what waits and let the running job finish."""
        self._pool.shutdown(wait=False, cancel_futures=True)


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
