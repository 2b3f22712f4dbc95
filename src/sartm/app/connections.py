"""Connections with a time limit of their own: uvicorn waits for a first request without end."""

import asyncio

from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD_SECONDS = 10.0
"""For a request's head to arrive, from the connection's begin or the last answer."""
UNREAD_SECONDS = 60.0
"""For a client to read any of what was sent to it."""
CONNECTIONS = 500
"""Open at a time; beyond them the one that has been idle for longest is closed."""


class Connection(H11Protocol):
    """HTTP/1.1 with a client that may say nothing, or read nothing."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to watch."""
        super().connection_made(transport)
        self._waits_since = self._sent_since = self.loop.time()
        self._unread = 0
        self._watch = self.loop.call_later(1, self._look)
        if len(self.connections) > CONNECTIONS:
            others = (one for one in self.connections if isinstance(one, Connection))
            idle = [one for one in others if not one._is_answering()]
            min(idle, key=lambda one: one._waits_since).transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Watch no longer."""
        self._watch.cancel()
        super().connection_lost(exc)

    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _look(self) -> None:
        now = self.loop.time()
        unread = self.transport.get_write_buffer_size()
        if not unread or unread < self._unread:  # who reads slowly may take as long as it needs
            self._sent_since = now
        self._unread = unread
        if unread or self._is_answering():
            self._waits_since = now
        if now - self._waits_since > HEAD_SECONDS or now - self._sent_since > UNREAD_SECONDS:
            self.transport.abort()
            return
        self._watch = self.loop.call_later(1, self._look)


__all__ = ["CONNECTIONS", "HEAD_SECONDS", "UNREAD_SECONDS", "Connection"]
