"""One thread that computes, one that has images decoded, the requests that wait, their time."""

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from starlette.exceptions import HTTPException
from starlette.requests import Request

from sartm.app.decoding import Decoder
from sartm.inference.stopping import stopping

Result = TypeVar("Result")

DEADLINE = "sartm.deadline"
"""Key of a request's scope: the `time.monotonic` at which it is given up."""
CLIENT_CLOSED_REQUEST = 499
"""Status of a request whose client went away; nobody receives it."""


class Worker:
    """Runs one job at a time, in order of arrival, while the images of the next are decoded.

    A job that nobody waits for any longer (time is up, client gone) is dropped if it has not begun;
    one that runs stops before the next layer of the network, decoding when its process is killed.
    """

    def __init__(self, waiting: int, seconds: float, decoder: Decoder) -> None:
        self.room = waiting + 1  # the one that is computed does not wait
        self.seconds = seconds
        self.decoder = decoder
        self.present = 0
        self.observe: Callable[[str, float], None] = lambda phase, seconds: None
        """Told how long a phase of a request took: wait, decode or compute."""
        self._compute = ThreadPoolExecutor(1, thread_name_prefix="sartm-worker")
        self._decode = ThreadPoolExecutor(1, thread_name_prefix="sartm-decoder")

    def is_full(self) -> bool:
        """Whether all places are taken."""
        return self.present >= self.room

    def enter(self) -> bool:
        """Take a place; False if all are taken."""
        if self.is_full():
            return False
        self.present += 1
        return True

    def leave(self) -> None:
        """Give the place back."""
        self.present -= 1

    async def run(self, request: Request, job: Callable[[], Result]) -> Result:
        """The job's result or exception; HTTPException 503 when the request's time is up."""
        abandoned = threading.Event()

        def work() -> Result:
            with stopping(abandoned.is_set):
                return job()

        timed = self._timed("compute", work)
        return await self._await(request, self._compute, timed, abandoned)

    async def read(
        self, request: Request, function: Callable[..., Result], *arguments: Any
    ) -> Result:
        """What a function of `reading` returns or raises in the decoding process; 503 as `run`."""

        def work() -> Result:
            return self.decoder.call(_time_left(request), function, *arguments)

        timed = self._timed("decode", work)
        return await self._await(request, self._decode, timed, threading.Event())

    def _timed(self, phase: str, work: Callable[[], Result]) -> Callable[[], Result]:
        """`work` that tells how long it waited and took."""
        asked = time.monotonic()

        def timed() -> Result:
            begun = time.monotonic()
            self.observe("wait", begun - asked)
            try:
                return work()
            finally:
                self.observe(phase, time.monotonic() - begun)

        return timed

    async def _await(
        self,
        request: Request,
        pool: ThreadPoolExecutor,
        work: Callable[[], Result],
        abandoned: threading.Event,
    ) -> Result:
        future = asyncio.wrap_future(pool.submit(work))
        gone = asyncio.ensure_future(_disconnected(request))
        either: set[asyncio.Future[Any]] = {future, gone}
        try:
            done, _ = await asyncio.wait(
                either, timeout=_time_left(request), return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            gone.cancel()
            if not future.done():
                future.cancel()
                abandoned.set()
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
        """Drop what waits, end the decoding process and let the running job finish."""
        self._compute.shutdown(wait=False, cancel_futures=True)
        self._decode.shutdown(wait=False, cancel_futures=True)
        self.decoder.close()


def _time_left(request: Request) -> float:
    deadline: float = request.scope[DEADLINE]
    return max(deadline - time.monotonic(), 0.0)


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
