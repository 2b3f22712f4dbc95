"""Data sets in tar shards: few large files, of which any pair is read by itself.

The shards are WebDataset's: members <name>.rgb.jpg, <name>.thermal.png, <name>.label.png with the
bytes of the files. An index beside them says where each member lies, so that training has the order
of its own seed, and goes on exactly where it was: what streams from front to back has neither.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sartm.data.names import is_plain_name
from sartm.errors import InputError, unreadable
from sartm.files import require_plain
from sartm.io.remote import is_remote, read_bytes
from sartm.io.sources import Member

INDEX = "index.jsonl"
"""What the index is called: a line per shard."""
ENDING = re.compile(r"\.\w{1,8}")
"""What the name of a member may end in."""
KINDS = ("rgb", "thermal", "label", "four_channel", "instances")
Members = dict[str, Member]
"""Kind of file -> where it lies."""


@dataclass(frozen=True)
class ShardLine:
    """What the index says of one shard."""

    shard: str
    split: str
    pairs: dict[str, dict[str, list[Any]]]
    """Name -> kind of file -> ending, offset and size in bytes."""

    def encode(self) -> bytes:
        """The line."""
        return json.dumps(vars(self)).encode() + b"\n"


def member_name(name: str, kind: str, ending: str) -> str:
    """What a file of a pair is called within a shard."""
    return f"{name}.{kind}{ending}"


def read_index(place: str) -> dict[str, dict[str, Members]]:
    """Split -> name -> the files of a pair, in the order of the shards.

    Args:
        place: path or address of the index; the shards lie beside it.

    Raises:
        InputError: no index, or not one of ours.
    """
    base = place.rpartition("/")[0] if is_remote(place) else str(Path(place).parent)
    splits: dict[str, dict[str, Members]] = {}
    for number, line in enumerate(_lines(place), 1):
        try:
            found = ShardLine(**json.loads(line))
            if not re.fullmatch(r"[\w.-]+\.tar", found.shard) or not isinstance(found.split, str):
                raise ValueError("no name of a shard")
            pairs = splits.setdefault(found.split, {})
            for name, files in found.pairs.items():
                if not is_plain_name(name) or name in pairs:
                    raise ValueError(f"{name!r:.100} cannot name a pair, or names two")
                pairs[name] = _members(f"{base}/{found.shard}", name, files)
        except (ValueError, TypeError, AttributeError, KeyError) as error:
            raise InputError(
                f"{place}, line {number}: {str(error)[:200]}; write it again: sartm data shard"
            ) from None
    return splits


def _members(shard: str, name: str, files: dict[str, list[Any]]) -> Members:
    members = {}
    for kind, (ending, offset, size) in files.items():
        whole = all(type(value) is int and value >= 0 for value in (offset, size))
        if kind not in KINDS or not whole or not ENDING.fullmatch(ending):
            raise ValueError(f"{name!r:.100} has no such file: {kind!r:.20}")
        members[kind] = Member(shard, member_name(name, kind, ending), offset, size)
    return members


def _lines(place: str) -> list[bytes]:
    if is_remote(place):
        return read_bytes(place).splitlines()
    try:
        require_plain(Path(place))
        return Path(place).read_bytes().splitlines()
    except OSError as error:
        raise unreadable(place, error) from None
