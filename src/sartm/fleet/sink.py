"""Where label maps go: files of their own, or shards of thousands, as tar or Parquet."""

import io
import tarfile
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Any, Literal, Protocol

from sartm.data.manifest import Shard
from sartm.errors import InputError
from sartm.fleet.record import WorkerRecord
from sartm.fleet.store import Store
from sartm.inference.products import Product

Kind = Literal["files", "tar", "parquet"]

PART_PAIRS, PART_BYTES = 2000, 64 * 2**20
"""At which a shard of label maps is full; a kill costs the labelling of one at most."""
_WRITERS = 16
"""Files on their way to a bucket at a time."""


def label_name(name: str) -> str:
    """Of the label map of a pair, below the output folder."""
    return f"labels/{name}.png"


def overlay_name(name: str) -> str:
    """Likewise of its overlay."""
    return f"overlays/{name}.jpg"


class Sink(Protocol):
    """Takes what is made of pairs, in any order, and tells the record."""

    def put(self, name: str, product: Product) -> None:
        """Write what is made of a pair; it may be on its way still when this returns."""

    def close(self) -> None:
        """All of it is there by the time this returns."""


def open_sink(kind: Kind, store: Store, record: WorkerRecord, shard: Shard, parts: int) -> Sink:
    """The sink of a run; `parts` shards of label maps are there already."""
    if kind == "files":
        return LocalFiles(store, record) if store.folder else RemoteFiles(store, record)
    return Parts(store, record, kind, shard, parts)


class LocalFiles:
    """labels/<name>.png and overlays/<name>.jpg on this machine, each behind its line."""

    def __init__(self, store: Store, record: WorkerRecord) -> None:
        self.store, self.record = store, record

    def put(self, name: str, product: Product) -> None:
        label, overlay = label_name(name), overlay_name(name)
        for old in (label, overlay):  # a kill leaves nothing old that would pass for new
            self.store.path(old).unlink(missing_ok=True)
        self.record.add(name, product.made)
        if product.overlay is not None:
            self.store.write(overlay, product.overlay)
        self.store.write(label, product.label)

    def close(self) -> None:
        pass


class RemoteFiles:
    """The same in a bucket, several on their way at a time, each before its line."""

    def __init__(self, store: Store, record: WorkerRecord) -> None:
        self.store, self.record = store, record
        self._pool = ThreadPoolExecutor(_WRITERS)
        self._waiting: deque[tuple[str, Product, Future[None]]] = deque()

    def put(self, name: str, product: Product) -> None:
        self._waiting.append((name, product, self._pool.submit(self._write, name, product)))
        while len(self._waiting) > _WRITERS:
            self._settle()

    def _write(self, name: str, product: Product) -> None:
        if product.overlay is not None:
            self.store.write(overlay_name(name), product.overlay)
        self.store.write(label_name(name), product.label)

    def _settle(self) -> None:
        name, product, written = self._waiting.popleft()
        written.result()
        self.record.add(name, product.made)

    def close(self) -> None:
        while self._waiting:
            self._settle()
        self._pool.shutdown()


class Parts:
    """labels/part-<number>.tar, as WebDataset reads it, or .parquet; lines follow a whole part."""

    def __init__(
        self, store: Store, record: WorkerRecord, kind: Kind, shard: Shard, parts: int
    ) -> None:
        self.store, self.record, self.kind = store, record, kind
        self.title, self.number = f"labels/part{shard.title()}", parts
        self._held: list[tuple[str, Product]] = []
        self._bytes = 0
        if kind == "parquet":
            _require_pyarrow()

    def put(self, name: str, product: Product) -> None:
        self._held.append((name, product))
        self._bytes += len(product.label) + len(product.overlay or b"")
        if len(self._held) >= PART_PAIRS or self._bytes >= PART_BYTES:
            self._finish()

    def _finish(self) -> None:
        if not self._held:
            return
        name = f"{self.title}-{self.number:06d}.{self.kind}"
        data = pack_tar(self._held) if self.kind == "tar" else pack_parquet(self._held)
        self.store.write(name, data)
        self.record.note({"part": name, "bytes": len(data), "pairs": len(self._held)})
        for pair, product in self._held:
            self.record.add(pair, replace(product.made, part=name))
        self._held, self._bytes, self.number = [], 0, self.number + 1

    def close(self) -> None:
        self._finish()


def pack_tar(held: list[tuple[str, Product]]) -> bytes:
    """<name>.png and, with overlays, <name>.jpg of each pair."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, product in held:
            for ending, data in (("png", product.label), ("jpg", product.overlay)):
                if data is not None:
                    entry = tarfile.TarInfo(f"{name}.{ending}")
                    entry.size = len(data)
                    tar.addfile(entry, io.BytesIO(data))
    return content.getvalue()


def pack_parquet(held: list[tuple[str, Product]]) -> bytes:
    """Columns name, label (PNG) and overlay (JPEG or null)."""
    pyarrow, parquet = _require_pyarrow()
    columns = {
        "name": pyarrow.array([name for name, _ in held], pyarrow.string()),
        "label": pyarrow.array([product.label for _, product in held], pyarrow.binary()),
        "overlay": pyarrow.array([product.overlay for _, product in held], pyarrow.binary()),
    }
    content = pyarrow.BufferOutputStream()
    # they are compressed already
    parquet.write_table(pyarrow.table(columns), content, compression="none", row_group_size=256)
    data: bytes = content.getvalue().to_pybytes()
    return data


def _require_pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise InputError(
            "--sink parquet needs pyarrow, which is not installed: pip install 'sartm[fleet]'"
        ) from None
    return pyarrow, parquet
