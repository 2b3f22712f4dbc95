"""What every report is made of as text: Markdown of tables and commands, and whole files."""

import re
from collections.abc import Mapping
from pathlib import Path

from sartm.errors import InputError
from sartm.evaluation.report.tables import Table, describe_versions, numeric_columns
from sartm.files import write_atomic
from sartm.terminal import as_markdown, clean_text


def markdown_table(table: Table) -> str:
    """A table under its title."""
    align = ["---", *("---:" if column else "---" for column in numeric_columns(table)[1:])]
    lines = [table.head, align, *table.rows]
    body = "\n".join("| " + " | ".join(map(as_markdown, line)) + " |" for line in lines)
    return f"## {as_markdown(table.title)}\n\n{body}" + (
        f"\n\n{as_markdown(table.note)}" if table.note else ""
    )


def markdown_origin(command: str, versions: Mapping[str, str]) -> list[str]:
    """Blocks on how a report was made."""
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", command)), default=0))
    return [
        f"## Command\n\n{fence}sh\n{clean_text(command)}\n{fence}",
        as_markdown(f"Versions: {describe_versions(versions)}"),
    ]


def write_texts(out: Path, texts: Mapping[str, str]) -> None:
    """Write files by name into the folder `out`; InputError where it cannot be written."""
    try:
        for name, text in texts.items():
            write_atomic(out / name, text.encode(), durable=True)
    except OSError as error:
        raise InputError(
            f"cannot write the report to {out}: {error.strerror}; choose another folder with --out"
        ) from None
