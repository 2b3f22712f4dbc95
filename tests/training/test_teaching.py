"""Teachers: what a student learns from them, and what they cannot teach."""

import json
import logging
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import TINY, build
from draw_training import draw_scene, write_dataset

from sartm.classes import MFNET, Classes
from sartm.config import ThermalRule, from_dict
from sartm.errors import InputError
from sartm.model.checkpoint import save
from sartm.model.facts import ModelFacts
from sartm.model.loading import load
from sartm.model.sartm import SARTM
from sartm.training.augmentation import Batch
from sartm.training.criterion import Criterion
from sartm.training.loop import Limits, train
from sartm.training.settings import AugmentationConfig, LossConfig, TrainConfig
from sartm.training.teaching import load_teacher, load_teachers
from training.runs import assert_same_run, losses, metrics, short


def apart(root: Path, pairs: int, first: int = 100) -> Path:
    """Scenes of their own, without labels."""
    scenes = [draw_scene(first + index) for index in range(pairs)]
    for scene in scenes:
        del scene["label"]
    return write_dataset(root, scenes, 0)


@pytest.fixture(scope="module")
def taught(six, undisturbed, tmp_path_factory) -> Path:
    """A run with a teacher, unlabelled pairs and hidden modalities."""
    root = tmp_path_factory.mktemp("taught")
    data = str(apart(root / "more", 5))
    config = short(six, teacher=(str(undisturbed / "best"),), unlabelled=(data,))
    assert train(config, root / "run", device="cpu")["finished"]
    return root / "run"


@pytest.mark.slow
def test_a_student_that_listens_comes_nearer_to_its_teacher(taught, tmp_path):
    """The same pairs in the same order: what the teacher says counts next to nothing, or a lot."""
    config = from_dict(TrainConfig, json.loads((taught / "config.json").read_text()), "config")
    curves = {}
    for weight in (0.001, 30.0):
        run = tmp_path / str(weight)
        train(replace(config, loss=replace(config.loss, distil=weight)), run, device="cpu")
        curves[weight] = losses(run, "distil")
        assert len(curves[weight]) == 36  # half of each batch is unlabelled: twice the steps
        assert len(losses(run, "auxiliary_distil")) == 36
    assert np.mean(curves[30.0][-6:]) < 0.5 * np.mean(curves[0.001][-6:]), curves


@pytest.mark.slow
def test_a_model_says_what_it_was_taught_by_and_what_it_has_seen(taught, six):
    facts = load(taught / "best").facts
    assert facts is not None
    assert facts.data[-2:] == ("drawn", "drawn")
    assert facts.recipe["teacher"] == ["best"]
    assert facts.recipe["unlabelled"] == ["drawn"]
    assert len(facts.training_images) == 6 + 5


@pytest.mark.slow
def test_terms_of_a_teacher_go_on_to_its_student(six, tmp_path, caplog):
    model = build(short(six).model)
    save(model, tmp_path / "teacher", ModelFacts(name="elder", licence="Research only. Cite it."))
    config = short(six, teacher=(str(tmp_path / "teacher"),))
    with caplog.at_level(logging.INFO, "sartm"):
        train(config, tmp_path / "run", limits=Limits(steps=1), device="cpu")
    terms = "Its terms go on to what is trained from it: Research only"
    assert f"taught by elder. {terms}" in caplog.text
    facts = load(tmp_path / "run" / "best").facts
    assert facts is not None
    assert "Taught by elder: Research only. Cite it." in facts.licence


@pytest.mark.slow
def test_a_run_with_a_teacher_resumes_bit_for_bit(taught, six, tmp_path):
    config = from_dict(TrainConfig, json.loads((taught / "config.json").read_text()), "config")
    train(config, tmp_path / "run", limits=Limits(steps=18), device="cpu")
    train(config, tmp_path / "run", resume=True, device="cpu")
    assert_same_run(tmp_path / "run", taught)


def test_a_teacher_sees_a_modality_that_was_dropped(six, tmp_path):
    given: list[Batch] = []

    def teacher(batch: Batch) -> torch.Tensor:
        given.append(batch)
        return torch.full((len(batch), len(MFNET), 8, 16), 1 / len(MFNET))

    always = AugmentationConfig(crop=(32, 64), drop_rgb=1, drop_thermal=0)
    config = short(six, augmentation=always)
    train(config, tmp_path / "run", limits=Limits(steps=2), device="cpu", teacher=teacher)
    for batch in given:
        assert not batch.has_rgb.any()
        assert batch.given_rgb.all()
        assert batch.rgb.std() > 0.05
    assert "distil" in metrics(tmp_path / "run")[0]


def test_a_larger_working_size_of_the_teacher_is_kept(six, tmp_path):
    """The teacher is asked at its own scale: it gives what it would give on larger crops."""
    torch.manual_seed(0)
    model = SARTM(replace(TINY, scale=1.0, output="blend"))
    save(model, tmp_path / "teacher", ModelFacts())
    student = replace(model.config, scale=0.5)
    teacher, facts = load_teacher(str(tmp_path / "teacher"), student, torch.device("cpu"))
    assert facts is not None
    rgb, thermal = torch.rand(2, 3, 32, 48), torch.rand(2, 1, 32, 48)
    yes, mixed = torch.tensor([True, True]), torch.tensor([True, False])
    batch = Batch(rgb, thermal, torch.zeros(2, 32, 48), yes, ~yes, mixed, yes)
    got = teacher(batch)
    assert got.shape == (2, len(MFNET), 16, 24)
    large = [F.interpolate(x, (64, 96), mode="bilinear") for x in (rgb, thermal)]
    model.eval()
    with torch.no_grad():
        expected = [
            model.predict_logits(large[0][:1], large[1][:1]),
            model.predict_logits(None, large[1][1:]),
        ]
    torch.testing.assert_close(got, torch.cat(expected).softmax(1))


def test_of_several_teachers_the_mean_is_taught(tmp_path):
    """Whatever size each of them works at: shares lie at that of the first one."""
    for name, seed, scale in (("one", 0, 0.5), ("two", 1, 1.0)):
        save(build(replace(TINY, scale=scale), seed=seed), tmp_path / name, ModelFacts())
    student, device = replace(TINY, scale=0.5), torch.device("cpu")
    alone = [load_teacher(str(tmp_path / name), student, device)[0] for name in ("one", "two")]
    both, facts = load_teachers([str(tmp_path / "one"), str(tmp_path / "two")], student, device)
    yes = torch.tensor([True])
    rgb, thermal = torch.rand(1, 3, 32, 64), torch.rand(1, 1, 32, 64)
    batch = Batch(rgb, thermal, torch.zeros(1, 32, 64), yes, yes, yes, yes)
    small, large = (teacher(batch) for teacher in alone)
    assert large.shape[2:] == (16, 32)
    large = F.interpolate(large, small.shape[2:], mode="bilinear")
    torch.testing.assert_close(both(batch), (small + large) / 2)
    assert len(facts) == 2


def test_a_model_is_its_own_teacher_without_loss_whatever_the_crop(tmp_path):
    """Crops that are no multiple of 32 are padded; what was taught lies where it belongs."""
    torch.manual_seed(0)
    model = build(replace(TINY, output="decoder")).eval()
    save(model, tmp_path / "teacher", ModelFacts())
    teacher, _ = load_teacher(str(tmp_path / "teacher"), model.config, torch.device("cpu"))
    rgb, thermal, yes = torch.rand(1, 3, 44, 72), torch.rand(1, 1, 44, 72), torch.tensor([True])
    label = torch.zeros(1, 44, 72, dtype=torch.long)
    taught = teacher(Batch(rgb, thermal, label, yes, yes, yes, yes))
    spoken = torch.ones(len(MFNET), dtype=torch.bool)
    criterion = Criterion(LossConfig(language=0), TINY.width, spoken, None)
    with torch.no_grad():
        terms = criterion(model(rgb, thermal), label, taught=taught)
    assert float(terms["distil"]) < 1e-6


def test_what_a_teacher_cannot_teach_is_refused(six, tmp_path):
    more = apart(tmp_path / "more", 2)
    with pytest.raises(InputError, match="need a --teacher"):
        train(short(six, unlabelled=(str(more),)), tmp_path / "a", device="cpu")
    other = replace(TINY, classes=Classes(("road", "rider")))
    save(SARTM(other), tmp_path / "other", ModelFacts())
    with pytest.raises(InputError, match="tells road, rider apart"):
        train(short(six, teacher=(str(tmp_path / "other"),)), tmp_path / "b", device="cpu")
    ranged = replace(TINY, thermal=ThermalRule("range", 0, 50))
    save(SARTM(ranged), tmp_path / "ranged", ModelFacts())
    with pytest.raises(InputError, match="reads thermal by"):
        train(short(six, teacher=(str(tmp_path / "ranged"),)), tmp_path / "c", device="cpu")


@pytest.mark.slow
def test_unlabelled_pairs_must_not_be_those_of_validation(six, tmp_path):
    model = tmp_path / "teacher"
    save(SARTM(TINY), model, ModelFacts())
    leaking = apart(tmp_path / "leaking", 3, first=1)  # other scenes under val's names ...
    for file in leaking.glob("*/*.png"):
        file.rename(file.with_name(f"val-{int(file.stem)}.png"))
    shutil.copy(six / "val.txt", leaking / "train.txt")
    train(
        short(six, teacher=(str(model),), unlabelled=(str(leaking),)),
        tmp_path / "fine", limits=Limits(steps=1), device="cpu",
    )  # fmt: skip
    shutil.copy(six / "thermal" / "val-2.png", leaking / "thermal" / "val-2.png")  # but for one
    with pytest.raises(InputError, match=r"1 unlabelled pairs .* such as 'val-2'"):
        train(
            short(six, teacher=(str(model),), unlabelled=(str(leaking),)),
            tmp_path / "not", device="cpu",
        )  # fmt: skip
