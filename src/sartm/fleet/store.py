"""Where a run over a manifest writes: a folder of this machine, or a bucket."""

from contextlib import suppress
from pathlib import Path

from sartm.errors import InputError
from sartm.files import write_atomic
from sartm.io.remote import file_system, is_remote, local_path, patiently


class Store:
    """Files by their names below a place; each is whole or not there."""

    def __init__(self, place: str | Path) -> None:
        self.place = str(place).rstrip("/") or "/"
        self.folder = None if is_remote(self.place) else local_path(self.place)
        """None: it is remote."""
        if self.folder is None:
            self.system, self.root = file_system(self.place)

    def path(self, name: str) -> Path:
        """Of a file in a local store."""
        assert self.folder is not None
        return self.folder / name

    def write(self, name: str, data: bytes) -> None:
        """Write a file, in place of one that is there.

        Raises:
            OSError: a local disk refuses it.
            InputError: a remote place does, after several attempts.
        """
        if self.folder is not None:
            write_atomic(self.folder / name, data)
            return
        target = f"{self.root}/{name}"
        patiently(f"{self.place}/{name}", lambda: self.system.pipe_file(target, data))

    def read(self, name: str) -> bytes | None:
        """What a file holds; None where there is none, or it cannot be read."""
        if self.folder is not None:
            with suppress(OSError):
                return (self.folder / name).read_bytes()
            return None

        def look() -> bytes | None:
            try:
                found: bytes = self.system.cat_file(f"{self.root}/{name}")
            except FileNotFoundError:
                return None
            return found

        return patiently(f"{self.place}/{name}", look)

    def size(self, name: str) -> int | None:
        """Bytes of a file; None where there is none."""
        if self.folder is not None:
            with suppress(OSError):
                return (self.folder / name).lstat().st_size
            return None

        def look() -> int | None:
            try:
                return int(self.system.info(f"{self.root}/{name}")["size"])
            except FileNotFoundError:
                return None

        return patiently(f"{self.place}/{name}", look)

    def remove(self, name: str) -> None:
        """Take a file away; OSError or InputError as `write`."""
        if self.folder is not None:
            (self.folder / name).unlink(missing_ok=True)
        else:
            patiently(f"{self.place}/{name}", lambda: self.system.rm_file(f"{self.root}/{name}"))

    def names(self, start: str) -> list[str]:
        """Names at the top that begin with `start`, sorted: records, of which there are few."""
        if self.folder is not None:
            if not self.folder.is_dir():
                return []
            return sorted(
                path.name for path in self.folder.iterdir() if path.name.startswith(start)
            )
        self.system.invalidate_cache()

        def look() -> list[str]:
            found = self.system.glob(f"{self.root}/{start}*")
            return sorted(str(name).rpartition("/")[2] for name in found)

        return patiently(self.place, look)


def require_store(place: str) -> Store:
    """The store of --out; InputError where it is a file."""
    store = Store(place)
    if store.folder is not None and store.folder.exists() and not store.folder.is_dir():
        raise InputError(f"{place} is a file; outputs need a folder or the address of one")
    return store
