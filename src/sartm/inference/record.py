"""What made each label map of a folder: record.jsonl, to which a line per pair is appended."""

import json
import os
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
    objects: dict[str, Any] | None = None
    """How its objects are measured; None: they are not listed."""


class Record:
    """record.jsonl of one folder. Write to it only while holding the folder's lock.

    A line is there before the label map it is about, so a map without a line is of someone else; a
    line without its map is of a run that was killed, and means nothing.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / RECORD
        self.made: dict[str, Made] = {}
        self._maker: Maker | None = None
        self._cut_off = False
        self._file: int | None = None
        if self.path.exists():
            self._read()

    def _read(self) -> None:
        require_plain(self.path)
        data = self.path.read_bytes()
        self._cut_off = bool(data) and not data.endswith(b"\n")
        for line in data.splitlines():
            try:  # a killed run leaves half a line, which counts for nothing
                content = json.loads(line)
                if "sartm" in content:
                    self._maker = Maker(**content["maker"])
                elif self._maker is not None:
                    name = content.pop("pair")
                    self.made[name] = Made(self._maker, **content)
            except (ValueError, TypeError, KeyError, AttributeError):
                continue

    def append(self, name: str, made: Made) -> None:
        """Add the line of a pair, which takes the place of an earlier one of that name.

        Raises:
            OSError: it cannot be written; then half a line may be left, and is skipped by readers.
        """
        lines = [
            {"pair": name} | {key: value for key, value in vars(made).items() if key != "maker"}
        ]
        if made.maker != self._maker:
            lines.insert(0, {"sartm": "predict", "maker": asdict(made.maker)})
        text = "\n" * self._cut_off + "".join(f"{json.dumps(line)}\n" for line in lines)
        self._cut_off = True  # until it is known better
        self._write(text.encode())
        self._cut_off, self._maker = False, made.maker
        self.made[name] = made

    def _write(self, data: bytes) -> None:
        if self._file is None:
            binary = getattr(os, "O_BINARY", 0)  # of Windows
            self._file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | binary, 0o666)
        while data:
            data = data[os.write(self._file, data) :]

    def close(self) -> None:
        """On disk by the time this returns, where the disk does not fail."""
        if self._file is not None:
            os.fsync(self._file)
            os.close(self._file)
            self._file = None
