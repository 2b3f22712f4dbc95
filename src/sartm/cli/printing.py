"""All that commands say: whatever names hold, it neither steers the terminal nor is cut off."""

import io
import logging
import os
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.logging import RichHandler
from rich.table import Table
from rich.text import Text

from sartm.terminal import printable

if TYPE_CHECKING:
    from sartm.evaluation.modalities import Comparison


def say(text: str) -> None:
    """A line on standard output."""
    print(printable(text))


def complain(text: str) -> None:
    """A line on standard error, under the name of the program."""
    print(f"sartm: {printable(text)}", file=sys.stderr)


def complain_of_each(failures: Mapping[str, str]) -> None:
    """A line for every reason, with all that it befell: a folder may fail for one reason."""
    alike: dict[str, list[str]] = {}
    for name, message in failures.items():
        reason = re.sub(rf"(?<!\w){re.escape(name)}(?!\w)", "", message)
        alike.setdefault(reason, []).append(name)
    for first, *others in alike.values():
        message = failures[first].removeprefix(f"pair {first!r}: ")
        same = f"; the same of {len(others)} more: {', '.join(others)}" if others else ""
        complain(f"{first}: {message}{same}")


_MOST_ROWS = 1000
"""Nobody reads more on a terminal."""


def print_table(
    titles: Sequence[str], rows: Iterable[Sequence[str]], title: str = "", whole: bool = False
) -> None:
    """A table whose first column is never cut, nor with `whole` any other but that."""
    table = Table(title=Text(printable(title)) if title else None)
    for number, text in enumerate(titles):
        table.add_column(Text(printable(text)), no_wrap=number == 0 or whole)
    lines = list(rows)
    for row in lines[:_MOST_ROWS]:
        table.add_row(*(Text(printable(cell)) for cell in row))
    if len(lines) > _MOST_ROWS:
        table.add_row(f"... and {len(lines) - _MOST_ROWS:,} more; --json FILE has all")
    console = Console()
    needed = Console(width=10_000).measure(table)
    width = max(console.width, needed.minimum) if console.is_terminal else needed.maximum
    Console(width=width).print(table)


def print_comparison(found: "Comparison | None") -> None:
    """What each camera adds to the other, as a table and in a sentence."""
    from sartm.evaluation.report.tables import modalities_table

    table = modalities_table(found)
    if found is not None and table is not None:
        print_table(table.head, table.rows)
        say(found.sentence)


class _OneLine(logging.Formatter):
    def formatMessage(self, record: logging.LogRecord) -> str:
        return printable(super().formatMessage(record))


def log_handler() -> logging.Handler:
    """Log lines on standard error."""
    handler = RichHandler(console=Console(stderr=True), show_path=False, show_time=False)
    handler.setFormatter(_OneLine("%(message)s"))
    return handler


def prepare_streams() -> None:
    """What an encoding cannot say is spelled out instead of ending the command."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def drop_unwritable() -> None:
    """Let go of what standard output does not take: nobody reads it any more, or it is full."""
    try:
        sys.stdout.flush()
    except OSError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())  # else Python tries again at exit, and complains
        os.close(nowhere)
