"""Writes the text table of the benchmarks' class names that comes with the package.

python scripts/make_text_table.py [ENCODER] -> src/sartm/assets/text/<encoder>.json
"""

import json
import sys
from pathlib import Path

from sartm.classes import TABLES
from sartm.language import SENTENCE_ENCODER, TextTable, encode, named_prompts

FOLDER = Path(__file__).resolve().parents[1] / "src" / "sartm" / "assets" / "text"


def write(table: TextTable, path: Path) -> None:
    """The table as JSON, a row of cosines per line, so that a change can be read in a diff."""
    rows = ",\n".join(f"    {json.dumps(row)}" for row in table.cosines)
    text = (
        f'{{\n  "encoder": {json.dumps(table.encoder)},\n'
        f'  "prompts": {json.dumps(table.prompts)},\n  "cosines": [\n{rows}\n  ]\n}}\n'
    )
    temporary = path.with_name(f".{path.name}")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


def main() -> None:
    """Encode every prompt of the class tables once, in order of first use."""
    encoder = sys.argv[1] if len(sys.argv) > 1 else SENTENCE_ENCODER
    words = (word for table in TABLES.values() for word in named_prompts(table))
    prompts = tuple(dict.fromkeys(words))
    table = encode(prompts, encoder)
    path = FOLDER / f"{table.encoder.replace('/', '--')}.json"
    write(table, path)
    print(f"{path.name}: {len(prompts)} prompts, {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
