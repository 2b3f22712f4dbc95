"""Progress of long work: a bar with rate and time left on a terminal, plain lines otherwise."""

import sys
import time

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)

from sartm.terminal import printable

QUIET_SECONDS = 10.0
"""Between two plain lines."""


class Meter:
    """Counts finished items on standard error; use as a context manager."""

    def __init__(self, description: str, total: int, unit: str = "pairs", done: int = 0) -> None:
        self.description = printable(description)
        self.total, self.unit, self.done = total, unit, done
        self.console = Console(file=sys.stderr)
        self.note = ""
        self.begun = self.spoken = time.monotonic()
        self.before = done
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TaskProgressColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}", markup=False),
        )
        self.bar = Progress(*columns, console=self.console) if self.console.is_terminal else None

    def __enter__(self) -> "Meter":
        if self.bar:
            self.bar.start()
            self.task = self.bar.add_task(
                self.description, total=self.total, completed=self.done, note=""
            )
        return self

    def __exit__(self, *error: object) -> None:
        if self.bar:
            self.bar.stop()
        elif error[0] is None:
            self._say()

    def rate(self) -> float:
        """Items per second since the start."""
        return (self.done - self.before) / max(time.monotonic() - self.begun, 1e-9)

    def expect(self, total: int) -> None:
        """Correct how many items there are."""
        self.total = total
        if self.bar:
            self.bar.update(self.task, total=total)

    def advance(self, count: int = 1, note: str = "") -> None:
        """Count `count` more items; `note` is shown beside the rate."""
        self.done += count
        self.note = note = printable(note)
        if self.bar:
            text = f"{self.rate():.1f} {self.unit}/s  {note}"
            self.bar.update(self.task, completed=self.done, note=text)
        elif time.monotonic() - self.spoken > QUIET_SECONDS:
            self._say()

    def _say(self) -> None:
        self.spoken = time.monotonic()
        rate = self.rate()
        left = (self.total - self.done) / rate if rate > 0 else 0.0
        text = (
            f"{self.description}: {self.done}/{self.total} {self.unit}, {rate:.2f}/s, "
            f"{left:.0f} s left"
        )
        print(f"{text}  {self.note}".rstrip(), file=sys.stderr, flush=True)  # noqa: T201
