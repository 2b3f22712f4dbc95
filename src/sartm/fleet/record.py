"""What became of each pair of a manifest: lines that are appended, one record per worker."""

import json
import logging
import re
import time
from array import array
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from sartm.data.manifest import Row, Shard, key_of
from sartm.errors import InputError
from sartm.files import hash_bytes
from sartm.fleet.store import Store
from sartm.inference.record import LineFile, Made, Maker, decode_made, encode_made

log = logging.getLogger("sartm")

RECORDS = "record"
"""What the names of records begin with."""
_LINES, _SECONDS = 512, 30.0
"""After so many lines or seconds a record in a bucket, to which nothing can be appended, gets its
next part."""


def source_of(row: Row) -> int:
    """64 bits of where the images of a pair lie."""
    return key_of(f"{row.rgb}\n{row.thermal}")


class WorkerRecord:
    """The record of one worker: record[-I-of-N].jsonl, or parts of it in a bucket.

    A line is there before a file of its own is, as `inference.record` says; in a bucket, and of
    maps in shards, behind it: then a killed run leaves maps without lines, which are made again.
    """

    def __init__(self, store: Store, shard: Shard) -> None:
        self.store, self.title = store, f"{RECORDS}{shard.title()}"
        self._maker: Maker | None = None
        self._waiting: list[bytes] = []
        self._flushed = time.monotonic()
        self._file: LineFile | None = None
        if store.folder is None:
            self._next = len(store.names(f"{self.title}-part"))
        else:
            store.folder.mkdir(parents=True, exist_ok=True)
            self._file = LineFile(store.path(f"{self.title}.jsonl"))

    def add(self, name: str, made: Made) -> None:
        """Of a pair that is labelled; OSError or InputError where it cannot be written."""
        data = encode_made(name, made, self._maker)
        self._maker = made.maker
        self._append(data)

    def note(self, content: dict[str, Any]) -> None:
        """Of a pair that failed, or of a finished shard of label maps."""
        self._append(json.dumps(content).encode() + b"\n")

    def _append(self, data: bytes) -> None:
        if self._file is not None:
            self._file.append(data)
            return
        self._waiting.append(data)
        if len(self._waiting) >= _LINES or time.monotonic() - self._flushed > _SECONDS:
            self._flush()

    def _flush(self) -> None:
        if self._waiting:
            name = f"{self.title}-part{self._next:06d}.jsonl"
            self.store.write(name, b"".join(self._waiting))
            self._next += 1
            self._waiting, self._maker = [], None  # each part tells its maker
        self._flushed = time.monotonic()

    def close(self) -> None:
        """All of it is where it belongs by the time this returns."""
        if self._file is not None:
            self._file.close()
        else:
            self._flush()


def records(store: Store, shard: Shard | None = None) -> list[str]:
    """Names of the records of a store: those of one worker and the merged one, or all."""
    names = [name for name in store.names(RECORDS) if name.endswith(".jsonl")]
    if shard is None:
        return names
    own = re.compile(rf"{RECORDS}({re.escape(shard.title())})?(-part\d+)?\.jsonl")
    # the worker's last: what it appends is newer than what was merged
    worker = f"{RECORDS}{shard.title()}"
    return sorted(filter(own.fullmatch, names), key=lambda name: name.startswith(worker))


def lines_of(store: Store, name: str) -> Iterator[bytes]:
    """Lines of a record, one at a time where it is a file."""
    if store.folder is None:
        yield from (store.read(name) or b"").splitlines()
        return
    path: Path = store.path(name)
    if path.is_file():
        with path.open("rb") as lines:
            yield from lines


def notes_in(lines: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    """The lines of a record that tell of failed pairs and finished shards."""
    for line in lines:
        if line.startswith((b'{"failed"', b'{"part"')):
            try:
                yield json.loads(line)
            except ValueError:
                continue


class Done:
    """What earlier runs made, at 40 bytes a pair: whether a row need be labelled again."""

    def __init__(self, store: Store, shard: Shard, maker: Maker, drawn: dict[str, Any]) -> None:
        self.store, self.maker = store, maker
        self.parts: dict[str, int] = {}
        """Shard of label maps -> its bytes."""
        self._reasons: list[str] = []
        keys, sources, labels = array("Q"), array("Q"), array("Q")
        places, makers, overlays = array("l"), array("l"), array("b")
        names: list[str] = []
        known: dict[str, int] = {}
        for record in records(store, shard):
            for note in notes_in(lines_of(store, record)):
                if "part" in note:
                    self.parts[str(note["part"])] = int(note.get("bytes", -1))
            for name, made in decode_made(lines_of(store, record)):
                if made.part and made.part not in known:
                    known[made.part] = len(names)
                    names.append(made.part)
                keys.append(key_of(name))
                sources.append(made.source)
                labels.append(int(made.label[:16], 16))
                places.append(known[made.part] if made.part else -1)
                makers.append(self._reason(made.maker))
                overlays.append(0 if made.overlay is None else 1 + (made.overlay == drawn))
        self._part_names = names
        columns = [np.array(column) for column in (keys, sources, labels, places, makers, overlays)]
        order = np.argsort(columns[0], kind="stable")  # of a pair's lines the last one counts
        self._columns = [column[order] for column in columns]
        self._sizes: dict[str, int | None] = {}

    def __len__(self) -> int:
        return len(self._columns[0])

    def _reason(self, maker: Maker) -> int:
        """0 for what is made as now; else the position, from 1, of how it differs."""
        differences = maker.differences(self.maker)
        if not differences:
            return 0
        text = f"was made with {', '.join(differences)}"
        if text not in self._reasons:
            self._reasons.append(text)
        return self._reasons.index(text) + 1

    def compare(self, row: Row, label: str, overlay: str, sharded: bool) -> str | None:
        """Of a row's label map: "" where it is what would be made, None where there is none.

        Else why it is another one. What images hold is not looked at: their places tell.

        Args:
            row: of the manifest.
            label: name of its label map, where it is a file of its own.
            overlay: likewise; "" where none is wanted.
            sharded: whether it would be written into a shard.
        """
        keys = self._columns[0]
        place = int(np.searchsorted(keys, np.uint64(key_of(row.name)), "right")) - 1
        if place < 0 or keys[place] != key_of(row.name):
            there = self.store.folder is not None and not sharded and self._lies(label)
            return "is there, and no record says what made it" if there else None
        source, digest, part, reason, drawn = (int(column[place]) for column in self._columns[1:])
        if part >= 0:
            if not self._is_whole(self._part_names[part]):
                return None
        else:
            found = self.store.read(label)
            if found is None:
                return None
            if int(hash_bytes(found)[:16], 16) != digest:
                return "was changed after it was written"
        if reason:
            return self._reasons[reason - 1]
        if source and source != source_of(row):
            return "was made of images that lie elsewhere"
        if not overlay:
            return ""
        return "" if drawn == 2 and (part >= 0 or self.store.size(overlay)) else None

    def remove_replaced(self) -> list[str]:
        """Take away the shards of label maps that no pair's last line names any more.

        What stays and holds replaced maps is returned: shards that others count of, as of pairs
        that failed this time, and such as cannot be removed.
        """
        keys, places = self._columns[0], self._columns[3]
        last = places[np.searchsorted(keys, keys, "right") - 1]
        counted, older = (
            {self._part_names[place] for place in np.unique(found) if place >= 0}
            for found in (last, places[places != last])
        )
        stay = sorted(counted & older)
        for name in sorted(self.parts.keys() - counted):
            try:
                if self.store.size(name) is not None:
                    self.store.remove(name)
            except (OSError, InputError) as error:
                log.warning("cannot remove %s, whose label maps are replaced: %s", name, error)
                stay.append(name)
        return stay

    def _lies(self, name: str) -> bool:
        return self.store.size(name) is not None

    def _is_whole(self, part: str) -> bool:
        if part not in self._sizes:
            self._sizes[part] = self.store.size(part)
        return self._sizes[part] == self.parts.get(part, -1)
