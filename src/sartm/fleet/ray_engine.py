"""Work on chunks of items by a Ray cluster, which places it, and repeats what a lost node had."""

import logging
import os
import socket
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from sartm.errors import InputError
from sartm.inference.ahead import split_chunks

log = logging.getLogger("sartm")

Item = TypeVar("Item")
Result = TypeVar("Result")

CHUNK = 8
"""Items that travel together: enough to hide the way, few enough to be lost."""
RETRIES = 5
"""Of a chunk whose worker or node died."""
_AHEAD = 2
"""Chunks under way per worker; what is made waits in the driver no longer than for one of them."""


@dataclass(frozen=True)
class Cluster:
    """A Ray cluster that this process is connected to, and what one worker of it takes."""

    workers: int
    cores: float
    gpus: float


def connect(address: str, workers: int | None, whole_nodes: bool) -> Cluster:
    """Connect to a cluster, or begin one on this machine.

    Args:
        address: of a cluster, as `ray.init` takes it; empty: this machine.
        workers: processes that label at a time; None: one per GPU, else one per core, or per node
            where `whole_nodes` says that a network uses all cores of one.
        whole_nodes: whether it does.

    Raises:
        InputError: Ray is not installed, or nothing answers at the address.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would report to its makers
    try:
        import ray
    except ImportError:
        raise InputError(
            "--engine ray needs Ray, which is not installed: pip install 'sartm[fleet]'"
        ) from None
    if not ray.is_initialized():
        _require_answer(address)
        quiet = {"logging_level": logging.ERROR, "log_to_driver": False}
        try:
            if address:
                ray.init(address=address, **quiet)
            else:  # "local": by itself Ray would join any cluster that it finds on this machine
                ray.init(address="local", include_dashboard=False, **quiet)
        except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
            raise InputError(
                f"no Ray cluster at {address or 'this machine'}: {str(error)[:200]}; begin one "
                f"(ray start), or leave --address out"
            ) from None
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    cores = [int(node.get("CPU", 0)) for node in nodes]
    gpus = int(sum(node.get("GPU", 0) for node in nodes))
    if workers is None:
        workers = gpus or (len(nodes) if whole_nodes else sum(cores))
    workers = max(1, workers)
    # no more than one node has, or no worker would ever find a place
    each = max(1, min(sum(cores) // workers, max(cores)))
    return Cluster(workers, each, min(1.0, gpus / workers))


def _require_answer(address: str) -> None:
    """Refuse HOST:PORT where nobody listens, for which Ray itself would wait for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), 10).close()
    except OSError as error:
        raise InputError(
            f"no Ray cluster at {address}: {error.strerror or error}; begin one (ray start), "
            f"or leave --address out"
        ) from None


def map_chunks(
    work: Callable[[list[Item]], Result], items: Iterable[Item], cluster: Cluster
) -> Iterator[Result]:
    """What `work` returns for each chunk of items, as they come.

    `work` travels once to each process that runs it, and is kept there with what it has loaded.
    Of a chunk whose worker or node dies nothing is lost and nothing comes twice.

    Raises:
        InputError: as `work`, or a chunk whose workers die again and again.
    """
    import ray
    from ray.exceptions import RayError, RayTaskError

    # GPU tasks would leave their process behind after each call
    run = ray.remote(
        num_cpus=cluster.cores, num_gpus=cluster.gpus, max_retries=RETRIES, max_calls=0
    )(_run)
    kept, waiting = [ray.put(work)], list[Any]()

    def next_done() -> Result:
        (done, *_), waiting[:] = ray.wait(waiting, num_returns=1)
        try:
            result: Result = ray.get(done)
        except RayTaskError as error:
            raise error.cause or error from None
        except RayError as error:
            raise InputError(
                f"workers died {RETRIES + 1} times over the same pairs ({type(error).__name__}): "
                f"is there too little memory? Give fewer --workers; what was finished is kept"
            ) from None
        return result

    try:
        for chunk in split_chunks(items, CHUNK):
            waiting.append(run.remote(kept, chunk, cluster.cores))
            if len(waiting) >= _AHEAD * cluster.workers:
                yield next_done()
        while waiting:
            yield next_done()
    finally:
        for task in waiting:
            ray.cancel(task)


_WORK: dict[str, Any] = {}
"""In a worker: what it was sent."""


def _run(kept: list[Any], chunk: list[Any], cores: float) -> Any:
    import ray
    import torch

    key = kept[0].hex()
    if key not in _WORK:
        torch.set_num_threads(max(1, int(cores)))
        _WORK.clear()
        _WORK[key] = ray.get(kept[0])
    return _WORK[key](chunk)
