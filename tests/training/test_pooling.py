"""Training on several data sets: mixed batches, a label space for each, scores for each."""

import json
import shutil
from collections import Counter
from dataclasses import replace
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TINY, build
from draw_training import draw_dataset, draw_scene, write_dataset

from sartm.classes import MFNET, Classes
from sartm.cli.main import main
from sartm.config import to_dict
from sartm.errors import InputError
from sartm.files import write_atomic
from sartm.inference.predictor import Predictor
from sartm.model.loading import load
from sartm.spaces import choose_space, join_classes
from sartm.training.batches import StepBatches, measure, measure_all
from sartm.training.criterion import SpaceMask
from sartm.training.loop import Limits, train
from sartm.training.runs import latest_checkpoint
from sartm.training.settings import LossConfig, OptimConfig, TrainConfig
from sartm.training.splits import open_splits
from training.runs import in_two, lines, losses, short

CRACK = Classes(names=("background", "crack"))


@pytest.fixture(scope="session")
def cracks(tmp_path_factory) -> Path:
    """Four pairs of a person's own: background and crack, class 2 of the drawn scenes."""
    scenes = [draw_scene(index, (64, 96)) for index in range(20, 26)]
    for scene in scenes:
        scene["label"] = (scene["label"] == 2).astype(np.uint8)
    root = write_dataset(tmp_path_factory.mktemp("cracks"), scenes, 0)
    toml = (root / "dataset.toml").read_text().splitlines()
    toml = [line for line in toml if not line.startswith(("name", "classes", "prompts"))]
    head = ['name = "cracks"', 'classes = ["background", "crack"]']
    text = "\n".join([*head, *toml]) + '\nval = "val.txt"\n'
    (root / "dataset.toml").write_text(text)
    (root / "train.txt").write_text("000\n001\n002\n003\n")
    (root / "val.txt").write_text("004\n005\n")
    return root


def both(six: Path, cracks: Path, **changes) -> TrainConfig:
    config = short(six, pooled=(str(cracks),), data_weights=(1.0, 0.5), **changes)
    return replace(config, optim=replace(config.optim, epochs=3, batch_size=3))


@pytest.fixture(scope="module")
def pooled(six, cracks, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("pooled") / "run"
    assert train(both(six, cracks), out, device="cpu")["finished"]
    return out


def test_every_set_has_its_share_of_every_batch_and_its_pairs_take_turns():
    config = OptimConfig(epochs=4, batch_size=6)
    sizes, weights = (40, 5, 90), (1.0, 0.5, 1.5)
    batches = list(StepBatches(135, config, 1, 3, 0, sizes=sizes, weights=weights))
    assert len(batches) == 4 * (135 // 6)

    def set_of(index: int) -> int:
        return int(np.searchsorted(np.cumsum(sizes), index, side="right"))

    for batch in batches:
        counts = Counter(set_of(index) for _, index in batch)
        assert abs(counts[0] - 2) <= 1
        assert abs(counts[1] - 1) <= 1
        assert abs(counts[2] - 3) <= 1
    for place, size in enumerate(sizes):  # epochs of the set's own, each pair once in each
        keys = [key for key in chain(*batches) if set_of(key[1]) == place]
        assert len(set(keys)) == len(keys)
        assert [epoch for epoch, _ in keys] == [turn // size for turn in range(len(keys))]
    for start in (1, 22, 23, 57):
        again = StepBatches(135, config, 1, 3, start, sizes=sizes, weights=weights)
        assert list(again) == batches[start:]
    two = StepBatches(135, replace(config, batch_size=3), 2, 3, 0, sizes=sizes, weights=weights)
    halves = iter(two)
    assert [first + second for first, second in zip(halves, halves, strict=True)] == batches
    other = StepBatches(135, config, 1, 4, 0, sizes=sizes, weights=weights)
    assert list(other) != batches


def test_a_set_without_a_place_in_an_epoch_is_refused():
    with pytest.raises(InputError, match="no place for one of data set 2; raise its weight"):
        StepBatches(
            8, OptimConfig(epochs=1, batch_size=4), 1, 0, 0, sizes=(4, 4), weights=(1, 0.01)
        )


def test_a_pair_is_scored_in_the_label_space_of_its_data_set():
    things = Classes(("car", "person"))
    joined = join_classes([MFNET, CRACK])
    mask = SpaceMask([choose_space(joined, table) for table in (MFNET, CRACK, things)], len(joined))
    logits = torch.randn(3, len(joined), 2, 2, generator=torch.Generator().manual_seed(0))
    street, crack, bare = mask(logits, torch.tensor([0, 1, 2])).softmax(1)
    own = logits.softmax(1)
    torch.testing.assert_close(street[1:9], own[0, 1:9])
    torch.testing.assert_close(street[0], own[0, 0] + own[0, 9])  # its rest may be a crack
    assert not street[9].any()
    torch.testing.assert_close(crack[9], own[1, 9])
    torch.testing.assert_close(crack[0], own[1, :9].sum(0))
    assert not crack[1:9].any()
    two = logits[2, 1:3].softmax(0)  # without a rest what it does not know takes no part
    torch.testing.assert_close(bare[1:3], two)
    assert not bare[[0, *range(3, 10)]].any()


def test_no_pixel_of_one_set_is_evidence_against_a_class_of_another():
    """A road is `background` to the set of cracks, and may be a street's car all the same."""
    joined = join_classes([MFNET, CRACK])
    mask = SpaceMask([choose_space(joined, table) for table in (MFNET, CRACK)], len(joined))
    logits = torch.zeros(1, len(joined), 1, 1, requires_grad=True)
    with torch.no_grad():
        logits[0, 1] = 6.0  # it looks like a car
    loss = torch.nn.functional.cross_entropy(
        mask(logits, torch.tensor([1])), torch.zeros(1, 1, 1).long()
    )
    (gradient,) = torch.autograd.grad(loss, logits)
    assert gradient[0, 1] < 0 < gradient[0, 9]  # more car, less crack


def test_statistics_are_those_of_what_batches_hold(six, cracks):
    config = both(six, cracks)
    splits = open_splits(config)
    first, second = (measure(part.train, config) for part in splits.sets)
    found = measure_all(splits, config)
    assert found.thermal_mean == pytest.approx((2 * first.thermal_mean + second.thermal_mean) / 3)
    assert found.class_shares.sum() == pytest.approx(1)
    assert found.class_shares[9] == pytest.approx(float(second.class_shares[1]) / 3)
    assert found.class_shares[4] == pytest.approx(2 * float(first.class_shares[4]) / 3)


@pytest.mark.slow
def test_two_data_sets_join_in_one_run_that_scores_each_and_selects_by_their_mean(pooled):
    config = json.loads((pooled / "config.json").read_text())
    assert len(config["pooled"]) == 1
    assert config["data_weights"] == [1.0, 0.5]
    validations = [line for line in lines(pooled) if "val" in line]
    for line in validations:
        scores = line["val"]
        parts = [scores["drawn: present"]["miou"], scores["cracks: present"]["miou"]]
        assert scores["present"]["miou"] == pytest.approx(sum(parts) / 2)
        assert {"drawn: car", "drawn: bump", "cracks: background", "cracks: crack"} <= {
            *line["iou"]
        }
        assert "cracks: car" not in line["iou"]
    model = load(pooled / "best")
    assert model.config.classes.names == (*MFNET.names, "crack")
    assert model.facts is not None
    assert model.facts.data == ("drawn", "cracks")
    assert len(model.facts.training_images) == 10
    best = max(line["val"]["present"]["miou"] for line in validations)
    assert model.facts.results["present"] == best
    card = (pooled / "best" / "README.md").read_text()
    assert "| cracks: present |" in card


def test_words_of_several_sets_are_distilled_and_a_run_begun_without_goes_on_without(
    pooled, six, cracks, tmp_path
):
    assert all(value > 0 for value in losses(pooled, "cmkd"))
    assert losses(pooled, "cmkd")
    out = tmp_path / "run"
    train(both(six, cracks), out, limits=Limits(steps=2), device="cpu")
    for state in out.glob("checkpoints/*/state.json"):
        values = json.loads(state.read_text())
        assert values["text"]["prompts"][-1] == "crack"
        write_atomic(state, json.dumps(values | {"text": None}).encode())
    train(both(six, cracks), out, resume=True, device="cpu")
    assert lines(out)[-1]["step"] > 2
    assert not [line for line in lines(out) if line["step"] > 2 and "cmkd" in line]


@pytest.mark.slow
def test_a_pooled_run_that_stops_goes_on_to_the_same_end(pooled, six, cracks, tmp_path):
    out = tmp_path / "run"
    config = both(six, cracks)
    train(config, out, limits=Limits(steps=4), device="cpu")
    moved = shutil.copytree(cracks, tmp_path / "moved")
    with pytest.raises(InputError, match="data_weights was"):
        train(replace(config, data_weights=(1.0, 2.0)), out, resume=True, device="cpu")
    here = replace(config, pooled=(str(moved),))
    assert train(here, out, resume=True, device="cpu")["finished"]
    ours, theirs = latest_checkpoint(out), latest_checkpoint(pooled)
    assert ours is not None
    assert theirs is not None
    assert all(torch.equal(value, theirs.tensors[name]) for name, value in ours.tensors.items())
    assert losses(out) == losses(pooled)


@pytest.mark.slow
def test_the_command_trains_on_both_and_each_is_evaluated_in_its_own_classes(
    six, cracks, tmp_path, capsys
):
    """What the issue asks of a person with a word of their own."""
    config = replace(short(six), data="", validate_every=1)
    config = replace(config, optim=replace(config.optim, epochs=1, batch_size=3))
    write_atomic(tmp_path / "config.json", json.dumps(to_dict(config)).encode())
    out = tmp_path / "run"
    command = ["train", str(tmp_path / "config.json"), "--out", str(out), "--device", "cpu"]
    assert main([*command, "--data", str(six), "--data", f"{cracks}:0.5"]) == 0
    for data, names in ((six, MFNET.names), (cracks, CRACK.names)):
        report = tmp_path / data.name
        command = ["evaluate", "--model", str(out / "best"), "--data", str(data)]
        assert main([*command, "--out", str(report), "--device", "cpu"]) == 0
        found = json.loads((report / "report.json").read_text())
        assert tuple(row["name"] for row in found["classes"]) == names
    capsys.readouterr()
    assert main([*command[:2], "--model", "mini", "--data", str(cracks), "--device", "cpu"]) == 2


@pytest.mark.parametrize("weight", ["0", "-1", "nan", "inf"])
def test_a_weight_that_is_none_is_refused(six, capsys, weight):
    assert main(["train", "mini", "--data", f"{six}:{weight}"]) == 2
    assert "give a number above 0" in capsys.readouterr().err


def test_a_set_that_trains_on_what_another_validates_on_is_refused(six, tmp_path):
    other = draw_dataset(tmp_path / "other", 4, 1)
    toml = other / "dataset.toml"
    with pytest.raises(InputError, match="called 'drawn'"):
        train(short(six, pooled=(str(other),)), tmp_path / "run", device="cpu")
    toml.write_text(toml.read_text().replace('name = "drawn"', 'name = "others"'))
    for path in other.glob("*/000.png"):
        path.rename(path.with_name("renamed.png"))
    for path in other.glob("*.txt"):
        path.write_text(path.read_text().replace("000", "renamed"))
    with pytest.raises(InputError, match="3 validation pairs of drawn are training pairs of anoth"):
        train(short(six, pooled=(str(other),)), tmp_path / "run", device="cpu")


@pytest.mark.parametrize("several", [False, True])
def test_a_set_that_trains_on_what_it_validates_on_is_refused(six, cracks, tmp_path, several):
    data, out = shutil.copytree(six, tmp_path / "data"), tmp_path / "run"
    (data / "val.txt").write_text("val-0\n000\n005\n")
    config = both(data, cracks) if several else short(data)
    said = "2 validation pairs of drawn are training pairs of it too, such as '000'.*data check"
    with pytest.raises(InputError, match=said):
        train(config, out, device="cpu")
    assert not out.exists()
    (data / "val.txt").write_text("val-0\n")
    assert train(config, out, limits=Limits(steps=1), device="cpu")["step"] == 1


def test_a_run_that_was_begun_on_what_it_validates_on_can_still_be_ended(begun, six, tmp_path):
    data = shutil.copytree(six, tmp_path / "data")
    (data / "val.txt").write_text("000\n")
    assert train(short(data), begun, resume=True, limits=Limits(steps=9), device="cpu")["step"] == 9


def test_a_start_that_knows_some_of_the_classes_keeps_what_belongs_to_them(six, cracks, tmp_path):
    from sartm.model.checkpoint import save
    from sartm.model.facts import ModelFacts

    start = build(replace(TINY, frozen_encoder=False))
    save(start, tmp_path / "start", ModelFacts())
    config = both(six, cracks, init=str(tmp_path / "start"), validate_every=0)
    config = replace(config, optim=replace(config.optim, lr=1e-12, ema=0.0))
    train(config, tmp_path / "run", limits=Limits(steps=1), device="cpu")
    model = load(tmp_path / "run" / "best")
    for name in ("sam_mask_decoder.mask_tokens.weight", "auxiliary_head.predict.bias"):
        torch.testing.assert_close(model.state_dict()[name][:9], start.state_dict()[name])


def test_classes_chosen_from_a_fixed_model_have_the_logits_they_had(tiny_model, pair):
    model = tiny_model.eval()
    rgb, thermal = (image[:1] for image in pair)
    with torch.no_grad():
        every = model.predict_logits(rgb, thermal)
        some = model.choose(Classes(("person", "unlabeled", "bike"))).predict_logits(rgb, thermal)
    assert torch.equal(some[:, [0, 2]], every[:, [2, 3]])
    left = [0, 1, 4, 5, 6, 7, 8]
    torch.testing.assert_close(some[:, 1], every[:, left].logsumexp(1))
    found = Predictor(model.choose(Classes(("person", "unlabeled", "bike"))), device="cpu")
    assert found.classes.names == ("person", "unlabeled", "bike")
    with pytest.raises(InputError, match="no class 'walrus'"):
        model.choose(Classes(("walrus", "person")))


def test_check_of_several_sets_says_which_words_they_share(six, cracks, tmp_path, capsys):
    found = tmp_path / "found.json"
    main(["data", "check", str(six), str(cracks), "--json", str(found)])
    out = capsys.readouterr().out
    assert "shared words: none" in out
    told = json.loads(found.read_text())
    assert [part["name"] for part in told["sets"]] == ["drawn", "cracks"]
    names = {row["name"]: row["names"] for row in told["classes"]}
    assert names["unlabeled"] == ["unlabeled", "background"]
    assert names["crack"] == [None, "crack"]
    toml = shutil.copytree(cracks, tmp_path / "bikes") / "dataset.toml"
    toml.write_text(toml.read_text().replace('"crack"', '"bicycle"'))
    main(["data", "check", str(six), str(toml)])
    assert "shared words: bike" in capsys.readouterr().out


@pytest.mark.slow
def test_two_processes_give_the_curve_of_one_on_several_sets(six, cracks, tmp_path):
    config = both(six, cracks, loss=LossConfig(lovasz=0.3, class_weights="sqrt"))
    config = replace(config, optim=replace(config.optim, batch_size=2))
    one = replace(config, optim=replace(config.optim, batch_size=4))
    train(one, tmp_path / "one", device="cpu")
    in_two(lambda: train(config, tmp_path / "two", device="cpu"))
    for term in ("total", "ce", "lovasz", "auxiliary", "norm"):
        ours, expected = losses(tmp_path / "two", term), losses(tmp_path / "one", term)
        assert len(ours) == len(expected) == 6
        assert ours == pytest.approx(expected, abs=1e-4, rel=1e-4), term
