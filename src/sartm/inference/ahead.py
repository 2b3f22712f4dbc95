"""Work in threads, ahead of what is taken or behind what is made: in order, in bounded memory."""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from itertools import islice
from typing import Any, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def split_chunks(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """`items` in lists of `size`, the last one shorter."""
    each = iter(items)
    while chunk := list(islice(each, size)):
        yield chunk


def read_ahead(
    items: Iterable[Item], read: Callable[[Item], Result], threads: int = 2
) -> Iterator[tuple[Item, Callable[[], Result]]]:
    """Each item, in order, with a call that gives what `read` made of it, or raises.

    `read` runs in `threads` threads, one item ahead of each: memory does not grow with the items.
    """
    waiting: deque[tuple[Item, Future[Result]]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        for item in items:
            waiting.append((item, pool.submit(read, item)))
            if len(waiting) > threads:
                first, future = waiting.popleft()
                yield first, future.result
        for first, future in waiting:
            yield first, future.result


def prepare_next(items: Generator[Item]) -> Generator[Item]:
    """`items`, the next one being prepared in another thread."""
    # In this order: `items` is closed when the thread has left it.
    with closing(items), ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(next, items, None)
        while (item := waiting.result()) is not None:
            waiting = pool.submit(next, items, None)
            yield item


@contextmanager
def write_behind(write: Callable[..., None]) -> Iterator[Callable[..., None]]:
    """Calls `write` in a thread while the caller goes on; one call is under way at a time.

    Its error is raised by the next call, or on leaving.
    """
    with ThreadPoolExecutor(1) as pool:
        running: Future[None] | None = None

        def call(*arguments: Any) -> None:
            nonlocal running
            if running is not None:
                running.result()
            running = pool.submit(write, *arguments)

        yield call
        if running is not None:
            running.result()
