"""Reading, labelling and answering in order, several pairs under way at a time."""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Semaphore

from sartm.data.pairs import Sample
from sartm.errors import InputError
from sartm.inference.ahead import Item, Result, read_ahead, split_chunks
from sartm.inference.predictor import Predictor

READERS = 8
"""Files of a batch that are read at a time."""
Labelled = tuple[Sample, Result, float]
"""A sample, what was made of it, and the seconds that took."""


def label_ahead(
    predictor: Predictor,
    items: Iterable[Item],
    read: Callable[[Item], Sample],
    label: Callable[[list[Sample]], Sequence[Result]],
) -> Iterator[tuple[Item, Callable[[], Labelled[Result]]]]:
    """Each item, in order, with a call that gives what was made of it, or raises.

    The predictor's workers read and label batches in threads, ahead of what is asked for. An item
    that cannot be read or labelled costs only itself.

    Args:
        predictor: says how many at a time.
        items: what `read` takes.
        read: gives a sample, or raises InputError.
        label: one result per sample, or InputError; then each is labelled again by itself.
    """
    size = predictor.batch_size
    with predictor.side_by_side() as streams:
        turns, threads = Semaphore(streams), max(2, streams)

        def work(chunk: list[Item]) -> list[Future[Labelled[Result]]]:
            answers: list[Future[Labelled[Result]]] = [Future() for _ in chunk]
            readable = _read_all(readers, read, chunk, answers)
            groups = deque([readable] if readable else [])
            with turns:
                while groups:
                    group = groups.popleft()
                    begun = time.perf_counter()
                    try:
                        results = label([sample for sample, _ in group])
                    except InputError as error:
                        if len(group) == 1:
                            group[0][1].set_exception(error)
                        else:  # one sample must not cost the others their labels
                            groups.extend([each] for each in group)
                        continue
                    seconds = (time.perf_counter() - begun) / len(group)
                    for (sample, answer), result in zip(group, results, strict=True):
                        answer.set_result((sample, result, seconds))
            return answers

        with ThreadPoolExecutor(max(threads, min(size, READERS))) as readers:
            for chunk, finished in read_ahead(split_chunks(items, size), work, threads):
                for item, answer in zip(chunk, finished(), strict=True):
                    yield item, answer.result


def _read_all(
    readers: ThreadPoolExecutor,
    read: Callable[[Item], Sample],
    items: Sequence[Item],
    answers: Sequence[Future[Labelled[Result]]],
) -> list[tuple[Sample, Future[Labelled[Result]]]]:
    """Samples that can be read, each with its answer; the answers of the others raise."""
    readable = []
    reading = [readers.submit(read, item) for item in items]
    for answer, future in zip(answers, reading, strict=True):
        try:
            readable.append((future.result(), answer))
        except InputError as error:
            answer.set_exception(error)
    return readable
