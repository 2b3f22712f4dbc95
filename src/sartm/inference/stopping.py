"""How a thread that waits for nobody any longer is told to stop computing."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_thread = threading.local()


class Stopped(Exception):
    """Nobody waits for the result."""


@contextmanager
def stopping(is_over: Callable[[], bool]) -> Iterator[None]:
    """While this is open, `check_stop` in this thread raises Stopped once `is_over` says so."""
    _thread.is_over = is_over
    try:
        yield
    finally:
        _thread.is_over = None


def check_stop() -> None:
    """Raise Stopped where nobody waits for what this thread computes."""
    is_over = getattr(_thread, "is_over", None)
    if is_over is not None and is_over():
        raise Stopped
