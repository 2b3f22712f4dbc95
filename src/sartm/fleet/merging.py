"""`sartm data merge`: the records of all shards as one, checked against the label maps."""

import json
import re
from array import array
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sartm.data.listing import SUMMARY, WRITTEN
from sartm.data.manifest import Manifest, Shard, key_of, survey
from sartm.errors import InputError
from sartm.files import remove_leftovers
from sartm.fleet.labelling import MOST_SUMMARISED, MOST_TOLD
from sartm.fleet.record import WorkerRecord, lines_of, notes_in, records
from sartm.fleet.sink import label_name
from sartm.fleet.store import Store, require_store
from sartm.inference.ahead import read_ahead
from sartm.inference.alarm import count_alarms
from sartm.inference.record import Made, Maker, decode_made
from sartm.outputs import ignores_case, lock_beside, lock_folder


@dataclass
class Merged:
    """What all workers made together."""

    pairs: int = 0
    """Label maps that are there as the records say."""
    failures: dict[str, str] = field(default_factory=dict)
    """Of the first pairs that failed and were not made later."""
    failed: int = 0
    """All of those."""
    missing: list[str] = field(default_factory=list)
    """The first names whose label map is not there, of the records and of the manifest."""
    missed: int = 0
    """All of those."""


def merge_shards(out: str, manifest: Manifest | None = None) -> Merged:
    """Join the records of a folder or bucket into record.jsonl and summary.json.

    Those of workers go once theirs are in it; an unsharded run goes on from it, too.

    Args:
        out: where the shards were written.
        manifest: of the pairs that should be there; None: that is not asked.

    Raises:
        InputError: nothing was labelled there, somebody is at work, or a name is twice in the
            manifest: of one of its rows there is no label map.
    """
    store = require_store(out)
    with nullcontext() if store.folder is None else lock_folder(store.folder):
        if manifest is not None:
            survey(manifest, Shard(), store.folder is not None and ignores_case(store.folder))
        _join_records(store)  # refused while a worker is at it
        names = records(store, Shard())
        if not names:
            raise InputError(
                f"{out}: no record; label a manifest into it: sartm predict --manifest"
            )
        last, merged = _last_lines(store, names), Merged()
        parts = {
            str(note["part"]): int(note.get("bytes", -1))
            for name in names for note in notes_in(lines_of(store, name)) if "part" in note
        }  # fmt: skip
        entries: dict[str, Any] = {}
        alarms: list[tuple[str, ...]] = []
        maker: Maker | None = None

        def is_there(found: tuple[str, Made]) -> bool:
            pair, made = found
            if made.part:
                return store.size(made.part) == parts.get(made.part)
            return store.size(label_name(pair)) is not None

        for (pair, made), there in read_ahead(_made_in(store, names, last), is_there, 8):
            if not there():
                merged.missed += 1
                merged.missing += [pair] * (len(merged.missing) < MOST_TOLD)
                continue
            merged.pairs += 1
            maker = made.maker
            if len(entries) < MOST_SUMMARISED:
                alarms.append(tuple(made.entry.get("alarms", ())))
                entries[pair] = made.entry
        _add_failures(store, names, last, merged)
        if manifest is not None:
            _add_missing(manifest, last, merged)
        content = {
            "model": "" if maker is None else maker.model,
            "settings": {} if maker is None
            else maker.settings | {"fingerprint": maker.fingerprint},
            "count": merged.pairs,
            "pairs": entries if merged.pairs <= MOST_SUMMARISED else {},
            "alarms": count_alarms(alarms),
            "failures": merged.failures,
        }  # fmt: skip
        store.write(SUMMARY, json.dumps(content, indent=1).encode())
    return merged


def _join_records(store: Store) -> None:
    """Move the lines of workers' records to the end of the joined one; clear up after them."""
    joined = WorkerRecord(store, Shard())
    own = set(records(store, Shard()))
    for name in records(store):
        if name in own:
            continue
        worker = re.sub(r"-part\d+(?=\.jsonl$)", "", name)
        with nullcontext() if store.folder is None else lock_beside(store.path(worker)):
            for note in notes_in(lines_of(store, name)):
                joined.note(note)
            for pair, made in decode_made(lines_of(store, name)):
                joined.add(pair, made)
            joined.close()
            store.remove(name)
    if store.folder is not None:
        for name in WRITTEN:
            remove_leftovers(store.path(name), below=True)


def _last_lines(store: Store, names: list[str]) -> "_Last":
    keys, places = array("Q"), array("Q")
    for place, name in enumerate(names):
        for number, (pair, _) in enumerate(decode_made(lines_of(store, name))):
            keys.append(key_of(pair))
            places.append(place << 48 | number)
    return _Last(np.array(keys), np.array(places))


class _Last:
    """Which line of which record is the last about each pair, at 16 bytes a line."""

    def __init__(self, keys: Any, places: Any) -> None:
        order = np.argsort(keys, kind="stable")
        self.keys, self.places = keys[order], places[order]

    def find(self, pair: str) -> int | None:
        key = np.uint64(key_of(pair))
        at = int(np.searchsorted(self.keys, key, "right")) - 1
        return int(self.places[at]) if at >= 0 and self.keys[at] == key else None


def _made_in(store: Store, names: list[str], last: _Last) -> Iterator[tuple[str, Made]]:
    """Each pair once, by its last line."""
    for place, name in enumerate(names):
        for number, (pair, made) in enumerate(decode_made(lines_of(store, name))):
            if last.find(pair) == place << 48 | number:
                yield pair, made


def _add_failures(store: Store, names: list[str], last: _Last, merged: Merged) -> None:
    found: dict[str, str] = {}
    for name in names:
        for note in notes_in(lines_of(store, name)):
            if "failed" in note and last.find(str(note["failed"])) is None:
                found[str(note["failed"])] = str(note.get("why", ""))
    merged.failed = len(found)
    merged.failures = dict(list(found.items())[:MOST_TOLD])


def _add_missing(manifest: Manifest, last: _Last, merged: Merged) -> None:
    for row in manifest:
        if last.find(row.name) is None and row.name not in merged.failures:
            merged.missed += 1
            merged.missing += [row.name] * (len(merged.missing) < MOST_TOLD)
