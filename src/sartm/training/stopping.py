"""Being told to stop: Ctrl-C and SIGTERM end a run after the step under way."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class Stopped(KeyboardInterrupt):
    """Told to stop where nothing is under way that could be lost."""


class StopSignal:
    """Notes SIGTERM and Ctrl-C, so that the step under way ends and is saved."""

    def __init__(self) -> None:
        self.received = self.idle = False
        self.before: dict[int, Any] = {}

    def __enter__(self) -> "StopSignal":
        for number in (signal.SIGTERM, signal.SIGINT):
            try:
                self.before[number] = signal.signal(number, self._note)
            except ValueError:  # not the main thread: the caller handles signals
                break
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    @contextmanager
    def breaks_off(self) -> Iterator[None]:
        """What stands under it is broken off by the signal, or not begun after it."""
        self.idle = True
        try:
            if self.received:
                raise Stopped
            yield
        finally:
            self.idle = False

    def _note(self, *_: object) -> None:
        if self.received:
            raise KeyboardInterrupt
        self.received = True
        if self.idle:
            raise Stopped
