"""Clicks are learned beside the classes: labels stay, runs resume, small objects are found."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from draw_training import draw_dataset, draw_scene
from safetensors.torch import load_file
from small_weights import SMALL, small_model

import sartm
from sartm.classes import MFNET
from sartm.cli.main import main
from sartm.config import ModelConfig, ThermalRule
from sartm.data.pairs import PairDataset, Sample
from sartm.model.checkpoint import save
from sartm.model.clicks import FEATURES, PIXELS, ClickDecoder, ClickMaps, halve
from sartm.model.facts import ModelFacts
from sartm.training.clicking import ClickSettings, Trial, click_loss, prepare_lesson
from sartm.training.clicks import ClickConfig, train_clicks

FEW = ClickSettings(
    steps=4, images=1, objects=2, rounds=3, smallest=30, validate_every=4, checkpoint_every=2
)


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """A small model and a drawn data set."""
    root = tmp_path_factory.mktemp("clicks")
    save(small_model(replace(SMALL, frozen_encoder=False)), root / "model", ModelFacts())
    draw_dataset(root / "data", 4, 2)
    return root


def config(places, **changes) -> ClickConfig:
    settings = replace(FEW, **changes)
    return ClickConfig(init=str(places / "model"), data=(str(places / "data"),), clicks=settings)


@pytest.fixture(scope="module")
def whole(places):
    """A run from its beginning to its end, and what it said."""
    return places / "run", train_clicks(config(places), places / "run", device="cpu")


@pytest.mark.slow
def test_labels_stay_what_they_were_and_clicks_are_answered(places, whole):
    run, result = whole
    assert result["finished"]
    assert result["best"]["step"] == 4
    assert len(result["best"]["iou"]) == 3
    before = load_file(places / "model" / "model.safetensors")
    after = load_file(run / "best" / "model.safetensors")
    for name, value in before.items():
        assert torch.equal(value, after[name]), name
    added = [name for name in after if name not in before]
    assert added
    assert all(name.startswith("clicks.") for name in added)
    sample = PairDataset.open(places / "data")[0]
    old, new = (
        sartm.Predictor(sartm.load(folder), device="cpu", precision="fp32").predict(sample)
        for folder in (places / "model", run / "best")
    )
    assert np.array_equal(old.labels, new.labels)
    prompt = sartm.Promptable(run / "best", device="cpu")
    scene = prompt.encode(sample.rgb, sample.thermal)
    found = prompt.mask(scene, [(20, 8)])
    assert found.mask.shape == sample.size
    again = prompt.mask(scene, [(20, 8), (90, 60)], [1, 0], mask_input=found.logits)
    assert again.logits.shape == sample.size
    boxed = prompt.mask(scene, box=(10, 4, 40, 30))  # no click at all
    assert not np.array_equal(boxed.logits, found.logits)


@pytest.mark.slow
def test_a_run_that_was_stopped_ends_as_one_that_was_not(places, whole, tmp_path):
    run, result = whole
    train_clicks(config(places), tmp_path / "parts", max_steps=2, device="cpu")
    rest = train_clicks(config(places), tmp_path / "parts", resume=True, device="cpu")
    assert result["best"] == rest["best"]
    first, second = (
        load_file(folder / "best" / "model.safetensors") for folder in (run, tmp_path / "parts")
    )
    for name, value in first.items():
        assert torch.equal(value, second[name]), name


@pytest.mark.slow
def test_a_model_says_what_its_clicks_have_learned_from(places, tmp_path):
    before = ModelFacts(name="drawn", data=("scenes",), licence="Free.", training_images={"a": "b"})
    save(small_model(replace(SMALL, frozen_encoder=False)), tmp_path / "model", before)
    asked = replace(config(places, steps=1), init=str(tmp_path / "model"))
    train_clicks(asked, tmp_path / "run", device="cpu", command="sartm train clicks")
    facts = sartm.load(tmp_path / "run" / "best").facts
    assert facts is not None
    assert facts.data == ("scenes", "drawn")
    assert "Free." in facts.licence
    assert "drawn, whose terms apply too" in facts.licence
    assert len(facts.training_images) == 5
    card = (tmp_path / "run" / "best" / "README.md").read_text()
    assert "learned from drawn in 1 steps by `sartm train clicks`" in card


def test_objects_that_are_too_small_to_be_validated_on_are_learned_from(
    places, tmp_path, monkeypatch, caplog
):
    monkeypatch.setattr("sartm.training.clicks.SMALLEST", 10**6)
    result = train_clicks(config(places, steps=1), tmp_path / "run", device="cpu")
    assert result["best"] == {"step": 1, "score": 0.0, "iou": []}
    assert "no object of 1000000 pixels or more to validate on" in caplog.text


@pytest.mark.parametrize(
    ("name", "value"), [("seed", -1), ("data_weights", (0.0,)), ("data_weights", (-1.0,))]
)
def test_numbers_that_cannot_be_are_refused(places, name, value):
    with pytest.raises(sartm.InputError, match=name):
        replace(config(places), **{name: value})


def test_other_settings_or_a_folder_with_a_run_are_refused(places, whole, tmp_path):
    with pytest.raises(sartm.InputError, match="--resume"):
        train_clicks(config(places), whole[0], device="cpu")
    with pytest.raises(sartm.InputError, match=r"clicks\.lr was 0\.002, now 0\.1\. .*--out"):
        train_clicks(config(places, lr=0.1), whole[0], resume=True, device="cpu")
    with pytest.raises(sartm.InputError, match="--data"):
        train_clicks(ClickConfig(), tmp_path / "other", device="cpu")


def begin(places: Path, out: Path) -> Path:
    """A run of 2 of its 4 steps, in a copy of everything that it reads and writes."""
    shutil.copytree(places / "model", out / "model")
    shutil.copytree(places / "data", out / "data")
    train_clicks(config(out), out / "run", max_steps=2, device="cpu")
    return out


def contents(run: Path) -> dict[str, bytes]:
    return {str(p.relative_to(run)): p.read_bytes() for p in run.rglob("*") if p.is_file()}


def test_a_resume_of_nothing_is_refused_and_begins_no_run(places, tmp_path, capsys):
    with pytest.raises(sartm.InputError, match=r"nothing to resume in .*no config\.json"):
        train_clicks(config(places), tmp_path / "none", resume=True, device="cpu")
    assert main(["train", "clicks", "--out", str(tmp_path / "none"), "--resume"]) == 2
    assert "nothing to resume" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("changed", ["pairs", "model", "checkpoints"])
def test_a_run_is_not_resumed_on_other_pairs_another_model_or_without_a_checkpoint(
    places, tmp_path, changed
):
    here = begin(places, tmp_path / "here")
    if changed == "pairs":
        (here / "data" / "train.txt").write_text("000\n001\n002\n")
        said = rf"lists other pairs \(3 now\).*--init {re.escape(str(here / 'run'))}/best"
    elif changed == "model":
        save(
            small_model(replace(SMALL, frozen_encoder=False), seed=1), here / "model", ModelFacts()
        )
        said = r"model is another model than when .*/run was begun"
    else:
        for state in (here / "run").glob("checkpoints/*/state.json"):
            state.write_text("[]")
        said = r"no checkpoint that can be read, but best and .* another --out"
    before = contents(here / "run")
    with pytest.raises(sartm.InputError, match=said):
        train_clicks(config(here), here / "run", resume=True, device="cpu")
    assert contents(here / "run") == before


def test_a_run_goes_on_where_its_data_lies_now(places, tmp_path):
    here = begin(places, tmp_path / "here")
    moved = replace(config(here), data=(str((here / "data").rename(here / "moved")),))
    assert train_clicks(moved, here / "run", resume=True, device="cpu")["finished"]


@pytest.mark.parametrize("wrong", ["repeated", "train", "val", "init"])
def test_pairs_that_cannot_be_learned_from_or_scored_are_refused_at_the_start(
    places, tmp_path, wrong
):
    data = shutil.copytree(places / "data", tmp_path / "data")
    asked = replace(config(places), data=(str(data),))
    if wrong == "repeated":
        (data / "val.txt").write_text("val-0\n001\n")
        said = r"1 validation pairs of drawn are training pairs of it too, such as '001'"
    elif wrong == "init":
        with pytest.raises(sartm.InputError, match="init is empty"):
            replace(asked, init="")
        return
    else:
        names = (data / f"{wrong}.txt").read_text().split()
        for name in names:
            (data / "label" / f"{name}.png").unlink()
        said = rf"{len(names)} pairs of split '{wrong}' have no label, such as '{names[0]}'"
    with pytest.raises(sartm.InputError, match=said):
        train_clicks(asked, tmp_path / "run", device="cpu")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("boxes", [0.0, 1.0])
def test_what_is_learned_from_lies_on_the_device_of_the_maps(boxes):
    """`meta` stands for a GPU: what lies elsewhere is refused, and nothing is computed."""
    scene = draw_scene(0)
    sample = Sample("000", scene["rgb"], scene["thermal"], scene["label"])
    settings, draw = replace(FEW, boxes=boxes), np.random.default_rng(0)
    lesson = prepare_lesson(sample, MFNET, ThermalRule(), settings, draw)
    assert lesson is not None
    device = torch.device("meta")
    trial = Trial(lesson, settings, draw, device)
    pixels = halve(torch.zeros(1, PIXELS, *trial.padded, device=device))
    maps = ClickMaps(torch.zeros(1, FEATURES, 12, 16, device=device), pixels)
    looks, wanted, counts = trial.look(ClickDecoder(32).to(device), maps)
    terms = click_loss(looks, wanted, counts, trial.ambiguous(), settings)
    assert {value.device for value in terms.values()} == {device}


@pytest.mark.slow
def test_the_command_trains_and_says_what_came_of_it(places, tmp_path, capsys):
    call = ["train", "clicks", "--init", str(places / "model"), "--data", str(places / "data"),
            "--out", str(tmp_path / "run"), "--device", "cpu", "--json", str(tmp_path / "j.json"),
            "--batch-size", "1", "--set", "clicks.steps=2", "--set", "clicks.rounds=2"]  # fmt: skip
    assert main(call) == 0
    assert "IoU" in capsys.readouterr().out
    assert json.loads((tmp_path / "j.json").read_text())["finished"]
    assert main([*call, "--workers", "2"]) == 2
    assert "--workers is not of sartm train clicks" in capsys.readouterr().err


def test_a_model_without_clicks_says_how_it_gets_them():
    model = small_model(ModelConfig(size="lite", width=32, scale=0.5))
    with pytest.raises(sartm.InputError, match="sartm train clicks --init"):
        sartm.Promptable(model, device="cpu")


def test_the_loss_is_zero_for_the_right_mask_and_the_best_of_three_counts():
    from sartm.model.clicks import Looks

    wanted = torch.zeros(1, 1, 8, 8)
    wanted[..., :4] = 1
    right, wrong = 60 * wanted - 30, 30 - 60 * wanted
    counts = torch.ones(1, 1, 8, 8)
    logits = torch.cat([right, wrong, right, wrong], 1)
    scores = torch.tensor([[1.0, 0.0, 1.0, 0.0]])
    one = torch.tensor([True])
    terms = click_loss(Looks(logits, scores), wanted, counts, one, ClickSettings())
    assert float(terms["total"]) == pytest.approx(0, abs=1e-3)
    assert float(terms["iou"]) == 1
    swapped = Looks(logits.flip(1), scores.flip(1))
    clear = torch.tensor([False])
    assert float(click_loss(swapped, wanted, counts, clear, ClickSettings())["total"]) > 5
    unknown = torch.zeros_like(counts)
    ignored = click_loss(swapped, wanted, unknown, clear, ClickSettings())
    assert float(ignored["shape"]) == pytest.approx(0, abs=1e-3)
