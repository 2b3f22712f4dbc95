"""`sartm data shard`: a data set as tar shards, the bytes of its files as they are."""

import io
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sartm.data.layouts import open_layout
from sartm.data.names import is_plain_name
from sartm.data.sets import Layout, Pair
from sartm.data.shards import ENDING, INDEX, KINDS, ShardLine, member_name
from sartm.datatools.writing import file_name, format_toml
from sartm.errors import InputError
from sartm.io.sources import as_file, read_bytes
from sartm.outputs import finished_folder
from sartm.progress import Meter

SHARD_BYTES = 256 * 2**20
"""After which a shard is full: large enough for a bucket and a disk, small enough to copy again."""


@dataclass(frozen=True)
class Sharded:
    """What `shard_dataset` wrote."""

    splits: dict[str, int]
    """Split -> pairs."""
    shards: int
    bytes: int


def shard_dataset(dataset: str | Path, out: Path, most: int = SHARD_BYTES) -> Sharded:
    """Write a data set as tar shards with an index and a dataset.toml, whole or not at all.

    The shards are WebDataset's. Training on them is training on the files: the same order, losses
    and weights.

    Args:
        dataset: folder in a known layout, or a dataset.toml.
        out: new folder.
        most: bytes after which a shard is full.

    Raises:
        InputError: no such data set, a pair or file whose name no shard can hold, or `out` holds
            something or cannot be written.
    """
    layout = open_layout(dataset)
    for pairs in layout.splits.values():
        for pair in pairs:
            _require_names(pair)
    text = _describe(layout)
    shards = size = 0
    with (
        finished_folder(out) as new,
        Meter("shard", sum(map(len, layout.splits.values()))) as meter,
        (new / INDEX).open("wb") as index,
    ):
        for split, pairs in layout.splits.items():
            waiting = list(pairs)
            number = 0
            while waiting:
                name = f"{file_name(split)}-{number:06d}.tar"
                line, written = _write_shard(new / name, split, waiting, most)
                index.write(line.encode())
                del waiting[: len(line.pairs)]
                meter.advance(len(line.pairs))
                number, shards, size = number + 1, shards + 1, size + written
        (new / "dataset.toml").write_text(text, "utf-8")
    counts = {split: len(pairs) for split, pairs in layout.splits.items()}
    return Sharded(counts, shards, size)


def _require_names(pair: Pair) -> None:
    """Refuse what the index would be refused for when it is read."""
    if not is_plain_name(pair.name):
        raise InputError(
            f"pair {pair.name!r:.100} cannot be named so in shards, where names have no colon, "
            f"backslash, control character or part above 240 bytes; rename its files"
        )
    for kind in KINDS:
        file = getattr(pair, kind)
        if file is not None and not ENDING.fullmatch(file.suffix):
            raise InputError(
                f"{file}: shards hold files that end in a point and up to 8 letters or digits; "
                f"rename it, as in .png"
            )


def _write_shard(path: Path, split: str, pairs: Sequence[Pair], most: int) -> tuple[ShardLine, int]:
    """The first of the pairs, up to `most` bytes; what the index says of them, and the bytes."""
    found: dict[str, dict[str, list[str | int]]] = {}
    with path.open("wb") as file, tarfile.open(fileobj=file, mode="w") as tar:
        for pair in pairs:
            if found and tar.offset >= most:
                break
            found[pair.name] = {}
            for kind in KINDS:
                source = getattr(pair, kind)
                if source is None or (kind == "instances" and not pair.numbered):
                    continue
                data, ending = read_bytes(as_file(source)), source.suffix.lower()
                entry = tarfile.TarInfo(member_name(pair.name, kind, ending))
                entry.size = len(data)
                tar.addfile(entry, io.BytesIO(data))
                padded = -(-len(data) // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
                found[pair.name][kind] = [ending, tar.offset - padded, len(data)]
    return ShardLine(path.name, split, found), path.stat().st_size


def _describe(layout: Layout) -> str:
    """dataset.toml of the shards."""
    if layout.repeated:
        raise InputError(
            f"{layout.root}: split {next(iter(layout.repeated))!r} lists names again; take them "
            f"off its list"
        )
    coloured = any(pair.coloured_label for pairs in layout.splits.values() for pair in pairs[:1])
    return format_toml(layout, layout.splits, {"shards": INDEX}, coloured)
