"""What made each label map of a folder: record.jsonl, to which a line per pair is appended."""

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sartm.data.listing import RECORD
from sartm.files import require_plain


@dataclass(frozen=True)
class Maker:
    """What label maps are made by: pairs labelled by equal ones need not be labelled again."""

    model: str
    """Its name when it was used; the fingerprint says whether it is the same."""
    fingerprint: str
    settings: dict[str, Any]
    """Those that change label maps."""

    def differences(self, other: "Maker") -> list[str]:
        """What `other` has otherwise, in words."""
        found = []
        if self.fingerprint != other.fingerprint:
            same = "other weights of that name" if self.model == other.model else other.model
            found.append(f"model {self.model} (now {same})")
        ours, theirs = _flatten(self.settings), _flatten(other.settings)
        for name in sorted(ours | theirs):
            if ours.get(name) != theirs.get(name):
                found.append(f"{name} {_show(ours.get(name))} (now {_show(theirs.get(name))})")
        return found


def _flatten(settings: dict[str, Any], above: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        flat |= _flatten(value, f"{name}.") if isinstance(value, dict) else {above + name: value}
    return flat


def _show(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


@dataclass(frozen=True)
class Made:
    """How the files of one pair came about."""

    maker: Maker
    inputs: dict[str, str | None]
    """Hash of what RGB and thermal hold."""
    label: str
    """Hash of the label map; a map of another one is not what this entry is about."""
    overlay: dict[str, Any] | None
    """How the overlay is drawn; None: there is none."""
    entry: dict[str, Any]
    """What summary.json says about the pair."""
    source: int = 0
    """Of a manifest's pair: 64 bits of where its images lay."""
    part: str = ""
    """The shard that holds the label map, where it is no file of its own."""
    objects: dict[str, Any] | None = None
    """How its objects are measured; None: they are not listed."""


def encode_made(name: str, made: Made, before: Maker | None) -> bytes:
    """The line of a pair; also its maker's, where that is another one than `before`."""
    known = {key: value for key, value in vars(made).items() if key != "maker"}
    lines = [{"pair": name} | {key: known[key] for key in known if known[key] not in (0, "")}]
    if made.maker != before:
        lines.insert(0, {"sartm": "predict", "maker": asdict(made.maker)})
    return "".join(f"{json.dumps(line)}\n" for line in lines).encode()


def decode_made(lines: Iterable[bytes]) -> Iterator[tuple[str, Made]]:
    """The pairs of a record, in its order. Lines that are none count for nothing."""
    maker: Maker | None = None
    for line in lines:
        try:  # a killed run leaves half a line
            content = json.loads(line)
            if "sartm" in content:
                maker = Maker(**content["maker"])
            elif maker is not None:
                name = content.pop("pair")
                yield name, Made(maker, **content)
        except (ValueError, TypeError, KeyError, AttributeError):
            continue


class LineFile:
    """A file to which whole lines are appended, whatever a killed process left at its end."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._cut_off = False
        self._file: int | None = None
        if path.exists():
            require_plain(path)
            with path.open("rb") as file:
                file.seek(0, os.SEEK_END)
                if file.tell():
                    file.seek(-1, os.SEEK_END)
                    self._cut_off = file.read() != b"\n"

    def append(self, data: bytes) -> None:
        """Add lines.

        Raises:
            OSError: they cannot be written; half a line that is left is skipped by readers.
        """
        data = b"\n" * self._cut_off + data
        self._cut_off = True  # until it is known better
        if self._file is None:
            binary = getattr(os, "O_BINARY", 0)  # of Windows
            self._file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | binary, 0o666)
        while data:
            data = data[os.write(self._file, data) :]
        self._cut_off = False

    def close(self) -> None:
        """On disk by the time this returns, where the disk does not fail."""
        if self._file is not None:
            os.fsync(self._file)
            os.close(self._file)
            self._file = None


class Record:
    """record.jsonl of one folder. Write to it only while holding the folder's lock.

    A line is there before the label map it is about, so a map without a line is of someone else; a
    line without its map is of a run that was killed, and means nothing.
    """

    def __init__(self, folder: Path) -> None:
        self._file = LineFile(folder / RECORD)
        self.made: dict[str, Made] = {}
        self._maker: Maker | None = None
        if self._file.path.exists():
            with self._file.path.open("rb") as lines:
                for name, made in decode_made(lines):
                    self.made[name], self._maker = made, made.maker

    def append(self, name: str, made: Made) -> None:
        """Add the line of a pair, which takes the place of an earlier one of that name.

        Raises OSError as `LineFile`.
        """
        self._file.append(encode_made(name, made, self._maker))
        self._maker = made.maker
        self.made[name] = made

    def close(self) -> None:
        """As `LineFile`."""
        self._file.close()
