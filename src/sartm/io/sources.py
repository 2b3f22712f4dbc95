"""What readers take: a path, bytes that lie in no file, or a member of an archive."""

from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path, PurePath
from typing import BinaryIO, Literal

from sartm.errors import InputError, unreadable
from sartm.io import remote
from sartm.io.remote import is_remote


@dataclass(frozen=True)
class Upload:
    """The bytes of an image that lie in no file; every reader takes them like a path."""

    name: str
    """What messages call it; never opened."""
    data: bytes = field(repr=False)

    def __str__(self) -> str:
        return self.name

    @property
    def suffix(self) -> str:
        """Ending of the name."""
        return PurePath(self.name).suffix

    def open(self, mode: Literal["rb"] = "rb") -> BinaryIO:
        """A new stream from the first byte."""
        return BytesIO(self.data)

    def read_bytes(self) -> bytes:
        """All of it."""
        return self.data


@dataclass(frozen=True, slots=True)
class Member:
    """A file within an archive that is not compressed; every reader takes it like a path."""

    archive: str
    """Path, or the address of one in a bucket."""
    name: str
    offset: int
    size: int

    def __str__(self) -> str:
        return f"{self.archive}/{self.name}"

    @property
    def suffix(self) -> str:
        """Ending of the name."""
        return PurePath(self.name).suffix

    def read_bytes(self) -> bytes:
        """All of it; InputError where it cannot be read."""
        if is_remote(self.archive):
            data = remote.read_bytes(self.archive, self.offset, self.offset + self.size)
        else:
            try:
                with Path(self.archive).open("rb") as file:
                    file.seek(self.offset)
                    data = file.read(self.size)
            except OSError as error:
                raise unreadable(self.archive, error) from None
        if len(data) < self.size:
            raise InputError(f"{self}: the archive is shorter than its index says; copy it again")
        return data


Source = str | Path | Upload | Member
File = Path | Upload


def as_file(source: Source) -> File:
    """A path, or bytes: those of an upload, or of a member, which are read once."""
    if isinstance(source, Member):
        return Upload(str(source), source.read_bytes())
    return Path(source) if isinstance(source, str) else source


def read_bytes(file: File) -> bytes:
    """All of a file; InputError where the system refuses it."""
    try:
        return file.read_bytes()
    except (OSError, ValueError) as error:
        raise unreadable(file, error) from None
