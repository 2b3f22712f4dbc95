"""Reading, labelling and answering in order, several pairs under way at a time."""

import time
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
            readable = []
            reading = [readers.submit(read, item) for item in chunk]
            for answer, future in zip(answers, reading, strict=True):
                try:
                    readable.append((future.result(), answer))
                except InputError as error:
                    answer.set_exception(error)
            with turns:
                _answer(readable, label)
            return answers

        with ThreadPoolExecutor(max(threads, min(size, READERS))) as readers:
            for chunk, finished in read_ahead(split_chunks(items, size), work, threads):
                for item, answer in zip(chunk, finished(), strict=True):
                    yield item, answer.result


def _answer(
    readable: Sequence[tuple[Sample, Future[Labelled[Result]]]],
    label: Callable[[list[Sample]], Sequence[Result]],
) -> None:
    """Label samples together, or one by one where together they cannot be."""
    if not readable:
        return
    begun = time.perf_counter()
    try:
        results = label([sample for sample, _ in readable])
    except InputError as error:
        if len(readable) == 1:
            readable[0][1].set_exception(error)
        else:
            for each in readable:
                _answer([each], label)
        return
    seconds = (time.perf_counter() - begun) / len(readable)
    for (sample, answer), result in zip(readable, results, strict=True):
        answer.set_result((sample, result, seconds))
