"""Writes the vectors of the words in src/sartm/assets/text/vocabulary.txt beside them.

python scripts/make_vocabulary.py -> src/sartm/assets/text/vocabulary.npy, float16
"""

from collections import Counter
from pathlib import Path

import numpy as np

from sartm.files import write_atomic
from sartm.language import embed
from sartm.vocabulary import SENTENCE_ENCODER, words

FILE = Path(__file__).resolve().parents[1] / "src" / "sartm" / "assets" / "text" / "vocabulary.npy"


def main() -> None:
    """Encode every word once; a word that stands there twice is refused."""
    twice = [word for word, count in Counter(words()).items() if count > 1]
    if twice:
        raise SystemExit(f"these words stand there more than once: {', '.join(twice)}")
    found = embed(words(), SENTENCE_ENCODER).numpy().astype(np.float16)
    temporary = FILE.with_name(f".{FILE.name}")
    with temporary.open("wb") as file:
        np.save(file, found, allow_pickle=False)
    write_atomic(FILE, temporary.read_bytes())
    temporary.unlink()
    print(f"{FILE.name}: {found.shape[0]} words, {FILE.stat().st_size} bytes")


if __name__ == "__main__":
    main()
