"""Data workers: their batches arrive whatever shared memory there is, and they keep no run alive.

PyTorch alone waits for ever where a worker cannot allocate shared memory (Docker gives 64 MB), and
for a worker that is stuck in a read.
"""

import logging
import multiprocessing
import os
import signal
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import get_worker_info

from sartm.training.augmentation import Batch, TrainingItem, collate

log = logging.getLogger("sartm")


def usable_workers(wanted: int) -> int:
    """`wanted`, or 0 with a warning where the system has no room for what workers need."""
    # PyTorch's advice on a machine of one core, twice in each run; readers often wait for a disk
    warnings.filterwarnings("ignore", "This DataLoader will create")
    try:
        if wanted:  # a page of it for each of their semaphores; batches can do without, see `pack`
            _ = [multiprocessing.Lock() for _ in range(16 + 4 * wanted)]
    except OSError as error:
        log.warning(
            "no data workers: there is no shared memory for them (%s). Batches are read by the "
            "training process; in Docker raise shm-size",
            error.strerror,
        )
        return 0
    return wanted


def leave_group(worker: int) -> None:
    """Ctrl-C or a scheduler's signal to the group must not end a data worker before the parent."""
    if hasattr(os, "setpgid"):
        os.setpgid(0, 0)


def pack(items: Sequence[TrainingItem]) -> Batch:
    """`collate` in a worker: in shared memory, or where it is full, to be sent through a pipe."""
    batch = collate(items)
    if get_worker_info() is None:
        return batch
    try:
        for tensor in vars(batch).values():
            tensor.share_memory_()
    except RuntimeError:
        return _PipedBatch(**vars(batch))
    return batch


class _PipedBatch(Batch):
    """A batch that is pickled with its values, not as names of shared memory."""

    def __reduce__(self) -> tuple[Callable[..., Batch], tuple[Any, ...]]:
        return _unpack, tuple(tensor.numpy() for tensor in vars(self).values())


def _unpack(*arrays: npt.NDArray[np.generic]) -> Batch:
    return Batch(*map(torch.from_numpy, arrays))


class Stream:
    """The batches of a loader; when it is left its workers end at once, whatever they are at.

    `waiting` is entered while a batch is waited for: what interrupts it there costs no step.
    """

    def __init__(
        self, loader: Iterable[Batch], waiting: Callable[[], AbstractContextManager[None]]
    ) -> None:
        self._waiting = waiting
        self._before = set(multiprocessing.active_children())
        self._batches: Iterator[Batch] = iter(loader)

    def __enter__(self) -> "Stream":
        return self

    def __iter__(self) -> "Stream":
        return self

    def __next__(self) -> Batch:
        with self._waiting():
            return next(self._batches)

    def __exit__(self, *error: object) -> None:
        workers = [
            child
            for child in multiprocessing.active_children()
            if child.daemon and child not in self._before
        ]
        if not workers or threading.current_thread() is not threading.main_thread():
            return  # signals are the main thread's; PyTorch asks the workers to end
        # PyTorch takes the end of a worker for an accident, and raises in this thread
        number = getattr(signal, "SIGCHLD", None)
        handler = None if number is None else signal.signal(number, signal.SIG_DFL)
        try:
            for worker in workers:
                worker.kill()
            for worker in workers:
                worker.join(5)
            del self._batches
        finally:
            if number is not None:
                signal.signal(number, handler or signal.SIG_DFL)
