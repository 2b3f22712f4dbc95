"""A manifest to label maps: what is missing is labelled and recorded, no list held."""

import json
import logging
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass, field, replace
from itertools import compress
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from sartm.classes import Classes
from sartm.colours import describe_classes
from sartm.config import to_dict
from sartm.data.listing import SUMMARY, WRITTEN
from sartm.data.manifest import Manifest, Row, Shard, survey
from sartm.errors import InputError
from sartm.files import remove_leftovers
from sartm.fleet.labeller import Answer, PairLabeller
from sartm.fleet.ray_engine import Cluster, connect, map_chunks
from sartm.fleet.record import Done, WorkerRecord, lines_of, records, source_of
from sartm.fleet.sink import Kind, Sink, label_name, open_sink, overlay_name
from sartm.fleet.store import Store, require_store
from sartm.inference.ahead import read_ahead, split_chunks, write_behind
from sartm.inference.alarm import count_alarms, word_alarms
from sartm.inference.folders import Outcome
from sartm.inference.options import PredictOptions
from sartm.inference.predictor import SMALL
from sartm.inference.products import Product
from sartm.inference.record import Maker, decode_made
from sartm.io.remote import is_remote, local_path
from sartm.outputs import check_targets, ignores_case, lock_beside, lock_folder
from sartm.progress import Meter

log = logging.getLogger("sartm")

MOST_SUMMARISED = 10_000
"""Pairs whose entries summary.json repeats; of more it has the counts, and the record all."""
MOST_TOLD = 1000
"""Failures that are held and told; the record has all."""
Engine = Literal["local", "ray"]


@dataclass(frozen=True)
class Way:
    """How a manifest is worked through."""

    shard: Shard = field(default_factory=Shard)
    sink: Kind = "files"
    engine: Engine = "local"
    address: str = ""
    """Of a Ray cluster; empty: this machine."""
    workers: int | None = None
    """Of the cluster; of this process the labeller says it."""
    overwrite: bool = False


@dataclass(frozen=True)
class _Facts:
    """What the driver needs to know of a labeller that may be elsewhere."""

    maker: Maker
    drawn: dict[str, Any]
    classes: Classes


def label_manifest(
    labeller: PairLabeller, manifest: Manifest, out: str, way: Way = Way()
) -> Outcome:
    """Label the pairs of a manifest, or of one shard of it, into `out`, a folder or a bucket.

    What the record has from the same model, settings and places of images, and what is there as it
    says, is kept; a bad pair costs that pair only. Memory hardly grows with the pairs.

    Args:
        labeller: model and options.
        manifest: the pairs.
        out: folder, or an address that fsspec knows.
        way: which part, where label maps go, and by what.

    Raises:
        InputError: a wrong manifest, label maps that would be replaced without `overwrite`, a
            folder that is in use or cannot be written, no such engine.
    """
    options = labeller.options
    if options.align is not None and options.resize_thermal:
        raise InputError("--align and --resize-thermal exclude each other; leave one out")
    store = require_store(out)
    with _hold(store, way.shard):
        folds = store.folder is not None and ignores_case(store.folder)
        total = survey(manifest, way.shard, folds)
        cluster = None
        if way.engine == "ray":
            small = not isinstance(labeller.model, str) and _weights(labeller.model) <= SMALL
            cluster = connect(way.address, way.workers, not small)
        facts = _ask(labeller, cluster)
        done = Done(store, way.shard, facts.maker, facts.drawn)
        todo = _choose(manifest, way, store, done, total, options)
        count = int(todo.sum())
        run = _Run(store, way, len(done.parts))
        if count:
            rows = compress(manifest.rows(way.shard), todo)
            with (
                _stopped_by_sigterm(), run, Meter("predict", count) as meter,
                write_behind(run.put) as put,
            ):  # fmt: skip
                for answer in _answers(labeller, rows, cluster):
                    put(answer)
                    meter.advance()
        alarms = word_alarms(count_alarms(run.alarms.elements()), run.done)
        replaced = _remove_replaced(store, way, facts) if way.overwrite and done.parts else []
        if way.shard.count == 1:
            _write_summary(store, total, facts, options, run.failures, replaced)
    return Outcome(run.done, total - count, run.failures, alarms)


def _remove_replaced(store: Store, way: Way, facts: _Facts) -> list[str]:
    """Once all is made anew, whoever reads every shard of label maps shall find no pair twice."""
    stay = Done(store, way.shard, facts.maker, facts.drawn).remove_replaced()
    if stay:
        log.warning(
            "replaced label maps lie still in %d of the shards in %s, such as %s: of a pair that "
            "shard counts that its last line in the record names",
            len(stay), store.place, stay[0],
        )  # fmt: skip
    return stay


@contextmanager
def _stopped_by_sigterm() -> Iterator[None]:
    """Batch systems send it before they kill: what is made is put where it belongs."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _weights(model: Any) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def _hold(store: Store, shard: Shard) -> AbstractContextManager[None]:
    """The folder, or this worker's place in it, is kept to this process; a bucket has no locks."""
    if store.folder is None:
        return nullcontext()
    if shard.count == 1:
        return lock_folder(store.folder)
    store.folder.mkdir(parents=True, exist_ok=True)
    return lock_beside(store.path(f"record{shard.title()}.jsonl"))


def _ask(labeller: PairLabeller, cluster: Cluster | None) -> _Facts:
    """Of a worker, whose device may be another one than the driver's."""
    work = _Work(labeller, _describe)
    found: _Facts = work([]) if cluster is None else next(map_chunks(work, iter([None]), cluster))
    return found


class _Work:
    """A labeller and what it is to do, as they travel."""

    def __init__(
        self, labeller: PairLabeller, do: Callable[[PairLabeller, list[Any]], Any]
    ) -> None:
        self.labeller, self.do = labeller, do

    def __call__(self, chunk: list[Any]) -> Any:
        return self.do(self.labeller, chunk)


def _describe(labeller: PairLabeller, _: list[None]) -> _Facts:
    workshop = labeller.workshop()
    return _Facts(workshop.maker, workshop.drawn, workshop.predictor.classes)


def _label(labeller: PairLabeller, rows: list[Row]) -> list[Answer]:
    return list(labeller.answer(rows))


def _answers(
    labeller: PairLabeller, rows: Iterable[Row], cluster: Cluster | None
) -> Iterator[Answer]:
    if cluster is None:
        yield from labeller.answer(rows)
        return
    for answers in map_chunks(_Work(labeller, _label), rows, cluster):
        yield from answers


def _choose(
    manifest: Manifest, way: Way, store: Store, done: Done, total: int, options: PredictOptions
) -> npt.NDArray[np.bool_]:
    """Which rows are to be labelled; nothing is changed if this is refused."""
    todo, place = np.ones(total, np.bool_), 0
    replaced, first = 0, ""

    def compare(row: Row) -> str | None:
        overlay = overlay_name(row.name) if options.overlay else ""
        return done.compare(row, label_name(row.name), overlay, way.sink != "files")

    for rows in split_chunks(manifest.rows(way.shard), 1024):
        if store.folder is not None:
            _check_places(store, rows, options.overlay and way.sink == "files")
        if way.overwrite:
            continue
        for row, found in read_ahead(rows, compare, 8):
            reason = found()
            todo[place] = reason is None
            place += 1
            if reason:
                replaced += 1
                first = first or f"{store.place}/{label_name(row.name)} {reason}"
    if replaced:
        others = f", and {replaced - 1} more would be replaced" if replaced > 1 else ""
        raise InputError(f"{first}{others}; choose another --out, or pass --overwrite")
    return todo


def _check_places(store: Store, rows: list[Row], overlays: bool) -> None:
    """Refuse outputs that are inputs, or lie outside the folder."""
    assert store.folder is not None
    names = [label_name(row.name) for row in rows]
    names += [overlay_name(row.name) for row in rows] if overlays else []
    places = {place for row in rows for place in (row.rgb, row.thermal) if place}
    inputs = [local_path(place) for place in places if not is_remote(place)]
    for written in WRITTEN:
        inside = [path for path in inputs if path.is_relative_to(store.path(written).absolute())]
        if inside:
            raise InputError(f"{inside[0]} is an input of this run in {written} of its --out")
    check_targets(store.folder, [store.path(name) for name in names], [])


class _Run:
    """What a run writes and counts."""

    def __init__(self, store: Store, way: Way, parts: int) -> None:
        self.store, self.way, self.parts = store, way, parts
        self.failures: dict[str, str] = {}
        self.alarms: Counter[tuple[str, ...]] = Counter()
        self.done = 0

    def __enter__(self) -> "_Run":
        try:
            if self.store.folder is not None and self.way.shard.count == 1:
                remove_leftovers(self.store.folder)
                for name in WRITTEN:
                    remove_leftovers(self.store.path(name), below=True)
                self.store.path(SUMMARY).unlink(missing_ok=True)  # of what was
            self.record = WorkerRecord(self.store, self.way.shard)
        except OSError as error:
            raise self._cannot_write(error) from None
        self.sink: Sink = open_sink(
            self.way.sink, self.store, self.record, self.way.shard, self.parts
        )
        return self

    def put(self, answer: Answer) -> None:
        """Write what became of a pair."""
        name = answer.row.name
        try:
            if answer.product is None:
                if len(self.failures) < MOST_TOLD:
                    self.failures[name] = answer.error
                self.record.note({"failed": name, "why": answer.error})
                return
            self.sink.put(name, _with_source(answer.product, answer.row))
        except OSError as error:
            raise self._cannot_write(error) from None
        self.alarms[answer.product.check.alarms] += 1
        self.done += 1

    def __exit__(self, *error: object) -> None:
        try:
            self.sink.close()
            self.record.close()
        except OSError as failed:
            if error[0] is None:
                raise self._cannot_write(failed) from None

    def _cannot_write(self, error: OSError) -> InputError:
        kept = "what was finished is kept" if self.done else "choose another --out"
        return InputError(f"cannot write to {self.store.place}: {error.strerror or error}; {kept}")


def _with_source(product: Product, row: Row) -> Product:
    return replace(product, made=replace(product.made, source=source_of(row)))


def _write_summary(
    store: Store,
    total: int,
    facts: _Facts,
    options: PredictOptions,
    failures: dict[str, str],
    replaced: list[str],
) -> None:
    """What the record says, as one document: the entries of each pair, or of many their number."""
    entries: dict[str, Any] = {}
    for name in records(store) if total <= MOST_SUMMARISED else ():
        for pair, made in decode_made(lines_of(store, name)):
            if pair in failures:
                continue
            entries[pair] = made.entry
            if made.maker.differences(facts.maker):
                entries[pair] = made.entry | {"made": asdict(made.maker)}
    settings = to_dict(options) | facts.maker.settings
    content = {
        "model": facts.maker.model,
        "settings": settings | {"fingerprint": facts.maker.fingerprint},
        "classes": describe_classes(facts.classes),
        "count": total,
        "pairs": dict(sorted(entries.items())),
        "alarms": count_alarms(entry.get("alarms", ()) for entry in entries.values()),
        "failures": failures,
    }
    if total > MOST_SUMMARISED:
        content["more"] = f"entries of more than {MOST_SUMMARISED} pairs are in the record alone"
    if replaced:  # shards of label maps that hold older ones still
        content["replaced"] = replaced
    store.write(SUMMARY, json.dumps(content, indent=1).encode())
