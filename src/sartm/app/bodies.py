"""Bodies of requests, read before anything waits for them: how large, how slow, how many."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager

from starlette.responses import Response
from starlette.types import Receive

from sartm.app.problems import problem

STALLED = 10.0
"""Seconds without a byte after which a body is given up."""
HELD = 8
"""Bodies of the largest size that are in memory at a time, or as many bytes in smaller ones."""


def too_large(limit: int) -> Response:
    """The answer to a body of more bytes than `limit`."""
    return problem(413, f"the request has more than {limit / 2**20:g} MiB; send smaller images")


class Bodies:
    """What all requests together hold in memory."""

    def __init__(self, limit: int) -> None:
        """`limit` is of one body, in bytes."""
        self.limit = limit
        self._held: dict[Body, None] = {}  # in order of arrival

    @contextmanager
    def taking(self) -> Iterator["Body"]:
        """A body to receive, which counts while this is open."""
        body = Body(self)
        self._held[body] = None
        try:
            yield body
        finally:
            del self._held[body]

    def make_room(self, newest: "Body") -> None:
        """Give up the body that has been arriving for longest, where all are too many bytes."""
        if sum(body.size for body in self._held) > HELD * self.limit:
            arriving = (body for body in self._held if not body.complete)
            next(arriving, newest).dropped.set()


class Body:
    """One body that arrives."""

    def __init__(self, bodies: Bodies) -> None:
        self.bodies = bodies
        self.size = 0
        self.complete = False
        self.dropped = asyncio.Event()

    async def receive(self, receive: Receive, deadline: float) -> bytes | Response | None:
        """The body; the answer to one that is refused; None where its client went away."""
        parts = []
        dropped = asyncio.ensure_future(self.dropped.wait())
        try:
            while not self.complete:
                patience = min(deadline - time.monotonic(), STALLED)
                arrival = asyncio.ensure_future(receive())
                await asyncio.wait(
                    {arrival, dropped},
                    timeout=max(patience, 0.01),
                    return_when=asyncio.FIRST_COMPLETED,
                )
                if not arrival.done():
                    arrival.cancel()
                    return _too_slow() if not dropped.done() else _too_many()
                message = arrival.result()
                if message["type"] == "http.disconnect":
                    return None
                parts.append(message.get("body", b""))
                self.size += len(parts[-1])
                self.complete = not message.get("more_body", False)
                if self.size > self.bodies.limit:
                    return too_large(self.bodies.limit)
                self.bodies.make_room(self)
                if self.dropped.is_set():
                    return _too_many()
        finally:
            dropped.cancel()
        return b"".join(parts)


def _too_slow() -> Response:
    words = "the request did not arrive in time; send it again"
    return problem(408, words, {"connection": "close"})


def _too_many() -> Response:
    words = "too many bytes arrive at the same time; try again in a moment"
    return problem(429, words, {"connection": "close", "retry-after": "1"})
