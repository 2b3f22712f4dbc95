"""Starting from a model: what it gives, and what is said of it."""

import json
import logging
import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from conftest import TINY, build
from draw_training import SIZE, draw_scene
from safetensors.torch import load_file
from small_weights import meta_weights, small_released

import sartm.language
from sartm.classes import MFNET, Classes
from sartm.cli.main import main
from sartm.config import FusionConfig, to_dict
from sartm.errors import InputError
from sartm.inference.predictor import Predictor
from sartm.io.labels import read_label
from sartm.language import TextTable
from sartm.model.checkpoint import save
from sartm.model.facts import ModelFacts
from sartm.model.loading import load
from sartm.model.lora import AdaptedQKV
from sartm.model.released import Released
from sartm.model.sartm import SARTM
from sartm.training.loop import Limits, train
from sartm.training.recipes import load_recipe
from sartm.training.runs import latest_checkpoint
from sartm.training.settings import LossConfig
from sartm.training.start import start_from
from training.runs import lines, losses, short


def test_a_model_is_started_from_and_heads_of_other_classes_are_new(tiny_model):
    same = SARTM(tiny_model.config)
    start_from(same, tiny_model)
    assert all(torch.equal(t, same.state_dict()[n]) for n, t in tiny_model.state_dict().items())
    classes = replace(MFNET, names=("road", *MFNET.names[1:]))
    other = SARTM(replace(tiny_model.config, classes=classes))
    fresh = {name: tensor.clone() for name, tensor in other.state_dict().items()}
    start_from(other, tiny_model)
    for name, tensor in other.state_dict().items():
        head = any(p in name for p in ("mask_tokens", "hypernetworks", "auxiliary_head.predict"))
        source = fresh if head else tiny_model.state_dict()
        assert torch.equal(tensor, source[name]), name
    wider = SARTM(replace(tiny_model.config, width=64))
    with pytest.raises(InputError, match="cannot start from this model"):
        start_from(wider, tiny_model)


def test_heads_of_another_number_are_refused_though_their_shapes_are_the_same(tiny_model):
    other = SARTM(replace(tiny_model.config, decoder=replace(TINY.decoder, heads=8)))
    with pytest.raises(InputError, match=r"4 heads.*--set model\.decoder\.heads=4"):
        start_from(other, tiny_model)


def test_what_would_count_for_less_or_be_lost_is_refused(tiny_model):
    config = tiny_model.config
    louder = SARTM(replace(config, lora=replace(config.lora, alpha=2 * config.lora.alpha)))
    with pytest.raises(InputError, match=r"--set model\.lora\.alpha="):
        start_from(louder, tiny_model)
    deeper = SARTM(replace(config, decoder=replace(config.decoder, depth=3)))
    with pytest.raises(InputError, match="have no place here"):
        start_from(tiny_model, deeper)
    finer = SARTM(replace(config, lora=replace(config.lora, rank=2 * config.lora.rank)))
    assert all(".lora_" in name for name in start_from(finer, tiny_model))


def test_a_decoder_for_clicks_is_not_taken_along_and_that_is_said(six, tmp_path, caplog):
    """It has learned from maps that change now."""
    model = build(replace(short(six).model, clicks=True))
    save(model, tmp_path / "clicked", ModelFacts(name="clicked"))
    config = short(six, init=str(tmp_path / "clicked"))
    with caplog.at_level(logging.INFO, "sartm"):
        train(config, tmp_path / "run", limits=Limits(steps=1), device="cpu")
    assert "its decoder for clicks left out" in caplog.text
    assert load(tmp_path / "run" / "best").clicks is None


def test_a_model_of_format_1_starts_as_what_it_was_in_the_arithmetic_of_now(pair):
    older = build(replace(TINY, frozen_encoder=False, no_mem_embed="fusion"))
    newer = SARTM(replace(older.config, no_mem_embed="decoder"))
    start_from(newer, older)
    torch.testing.assert_close(newer(*pair).logits, older(*pair).logits, atol=1e-4, rtol=1e-4)
    again = SARTM(newer.config)
    start_from(again, newer)  # from then on it is like any other
    assert torch.equal(again(*pair).logits, newer(*pair).logits)


@pytest.mark.parametrize("frozen", [True, False])
@pytest.mark.slow
def test_a_run_from_a_model_of_format_1_keeps_its_arithmetic_only_on_a_frozen_encoder(
    six, tmp_path, frozen
):
    """A frozen encoder is a file of others, found again by its hash: no bias can go into it."""
    model = replace(TINY, fusion=FusionConfig(), frozen_encoder=frozen)
    save(build(replace(model, no_mem_embed="fusion")), tmp_path / "older", ModelFacts())
    config = short(six, model=model, init=str(tmp_path / "older"))
    train(config, tmp_path / "run", limits=Limits(steps=1), device="cpu")
    made = load(tmp_path / "run" / "best").config
    assert made.no_mem_embed == ("fusion" if frozen else "decoder")


def test_a_start_decides_how_its_trunk_sees_thermal(six, tmp_path):
    """The trunk of a Lite0 has learned one of the two views; the other would be noise to it."""
    model = short(six).model
    save(build(replace(model, thermal_view="contrast")), tmp_path / "seen", ModelFacts())
    train(
        short(six, init=str(tmp_path / "seen")), tmp_path / "run", limits=Limits(steps=1),
        device="cpu",
    )  # fmt: skip
    assert load(tmp_path / "run" / "best").config.thermal_view == "contrast"


def test_the_crop_of_the_training_is_what_the_fusion_is_made_for(six, tmp_path):
    config = short(six)
    train(config, tmp_path / "run", limits=Limits(steps=1), device="cpu")
    assert load(tmp_path / "run" / "best").config.fusion.crop == config.augmentation.crop
    other = replace(config.model, fusion=FusionConfig(crop=(64, 64)))
    with pytest.raises(InputError, match=r"model\.fusion\.crop is \[64, 64\].*\[32, 64\]"):
        train(replace(config, model=other), tmp_path / "other", device="cpu")
    assert not (tmp_path / "other" / "config.json").exists()


@pytest.mark.slow
def test_a_run_that_an_older_sartm_began_is_resumed_as_it_was(six, tmp_path):
    run = tmp_path / "run"
    train(short(six), run, limits=Limits(steps=1), device="cpu")
    values = json.loads((run / "config.json").read_text())
    del values["model"]["no_mem_embed"]  # there was no such setting
    values["model"]["fusion"]["crop"] = [64, 64]  # and this one was of its own
    (run / "config.json").write_text(json.dumps(values))
    train(load_recipe(str(run)), run, resume=True, limits=Limits(steps=2), device="cpu")
    made = load(run / "best").config
    assert (made.no_mem_embed, made.fusion.crop) == ("fusion", (64, 64))


@pytest.mark.slow
def test_training_goes_on_from_released_weights(six, tmp_path):
    file, lr = tmp_path / "released.pth", 1e-3
    torch.save({"model_state_dict": small_released(len(MFNET))}, file)
    model = replace(
        TINY, decoder=replace(TINY.decoder, heads=8), fusion=FusionConfig(crop=(32, 64))
    )
    optim = replace(short(six).optim, lr=lr, warmup_epochs=0, ema=0.0)
    train(
        short(six, init=str(file), model=model, optim=optim),
        tmp_path / "run",
        limits=Limits(steps=2),
        device="cpu",
    )
    before, after = load(file, classes=MFNET, canvas=128), load(tmp_path / "run" / "best")
    assert isinstance(before, Released)
    assert not isinstance(after, Released)
    assert after.config.classes.names == MFNET.names
    assert (after.config.thermal.mean, after.config.thermal.std) == (0, 1)  # as it was trained
    file.unlink()  # the encoder is in the model
    theirs, ours = before.state_dict(), load(tmp_path / "run" / "best").state_dict()
    for name, module in before.named_modules():
        if isinstance(module, AdaptedQKV):  # adapters are folded into an encoder that is frozen
            theirs[f"{name}.weight"] = module.merged().weight[0]
    learned = 0
    for name, value in theirs.items():
        if ".lora_" in name or name not in ours:
            continue
        if "mask_tokens" in name or "output_hypernetworks" in name:
            value = value[1:]  # token 0 means no class
        if name.startswith(("image_encoder.", "sam_prompt_encoder.")) or "running_" in name:
            assert torch.equal(ours[name], value), name
        else:  # two steps of AdamW from there
            assert (ours[name] - value).abs().max() < 3 * lr, name
            learned += int(not torch.equal(ours[name], value))
    assert learned > 50
    scene = draw_scene(0)
    labels = Predictor(after, device="cpu")(scene["rgb"], scene["thermal"]).labels
    assert labels.shape == SIZE


@pytest.mark.slow
def test_trained_adapters_on_their_encoder_give_the_label_maps_of_the_run(six, tmp_path):
    file = tmp_path / "sam2.pt"
    torch.save({"model": meta_weights()}, file)
    model = replace(TINY, fusion=FusionConfig(), output="decoder")
    run = tmp_path / "run"
    train(short(six, model=model, encoder=str(file)), run, limits=Limits(steps=9), device="cpu")
    stored = load_file(run / "best" / "model.safetensors")
    assert any(".lora_up" in name and value.any() for name, value in stored.items())
    assert not [n for n in stored if n.startswith("image_encoder.") and ".lora_" not in n]
    best, whole = load(run / "best"), latest_checkpoint(run)
    assert whole is not None
    average = "average/module."  # what was kept, with every weight of its encoder
    averaged = {n.removeprefix(average): t for n, t in whole.tensors.items() if average in n}
    in_training = SARTM(best.config)
    in_training.load_state_dict(averaged)
    trained, loaded = (
        Predictor(each.eval(), device="cpu", precision="fp32") for each in (in_training, best)
    )
    expected = {}
    for index in range(3):
        scene = draw_scene(index)
        expected[index] = trained(scene["rgb"], scene["thermal"]).labels
        assert np.array_equal(loaded(scene["rgb"], scene["thermal"]).labels, expected[index])
        assert np.array_equal(loaded(scene["rgb"], None).labels, trained(scene["rgb"], None).labels)
    assert len(np.unique(expected[0])) > 1
    moved = file.rename(tmp_path / "moved.pt")
    inputs = ["--rgb", str(six / "rgb"), "--thermal", str(six / "thermal"), "--device", "cpu"]
    words = ["predict", *inputs, "--model", str(run / "best"), "--precision", "fp32"]
    assert main([*words, "--out", str(tmp_path / "lost")]) == 2
    assert main([*words, "--out", str(tmp_path / "out"), "--encoder", str(moved)]) == 0
    for index, labels in expected.items():
        found = read_label(tmp_path / "out" / "labels" / f"{index:03d}.png", MFNET.ignore)
        assert np.array_equal(found, labels)


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_split_without_labels_is_refused_before_the_first_step(six, tmp_path, split):
    data, out = shutil.copytree(six, tmp_path / "data"), tmp_path / "run"
    names = (data / f"{split}.txt").read_text().split()
    for name in names:
        (data / "label" / f"{name}.png").unlink()
    said = f"{len(names)} pairs of split '{split}' have no label, such as '{names[0]}'"
    with pytest.raises(InputError, match=said):
        train(short(data), out, device="cpu")
    assert not out.exists()
    if split == "val":  # which nobody looks at here
        config = short(data, validate_every=0)
        assert train(config, out, limits=Limits(steps=1), device="cpu")["step"] == 1


def test_an_empty_init_on_the_command_line_starts_from_nothing(six, tmp_path, capsys):
    save(build(replace(TINY, frozen_encoder=False)), tmp_path / "start", ModelFacts())
    config = short(six, init=str(tmp_path / "start"), validate_every=0)
    (tmp_path / "config.json").write_text(json.dumps(to_dict(config)))
    words = ["train", str(tmp_path / "config.json"), "--device", "cpu", "--max-steps", "1"]
    found = []
    for more in ([], ["--init", ""]):
        out = tmp_path / f"run{len(found)}"
        assert main([*words, "--out", str(out), *more]) == 0
        found.append(json.loads((out / "config.json").read_text())["init"])
    assert found == [config.init, ""]
    clicks = ["train", "clicks", "--data", str(six), "--out", str(tmp_path / "clicks")]
    assert main([*clicks, "--init", ""]) == 2
    assert "init is empty, but clicks are learned on a model" in capsys.readouterr().err


def test_a_start_that_has_seen_the_validation_pairs_is_named(six, undisturbed, tmp_path, caplog):
    config = short(six, init=str(undisturbed / "best"), encoder="unread.pt")
    with caplog.at_level(logging.WARNING, "sartm"):
        train(config, tmp_path / "run", limits=Limits(steps=1), device="cpu")
    assert "was trained on 3 of the 3 validation pairs" in caplog.text
    assert "unread.pt is not read" in caplog.text


def test_a_start_of_the_same_classes_is_scored_and_told_where_it_was_better(
    six, undisturbed, tmp_path, capsys
):
    start, run = str(undisturbed / "best"), tmp_path / "run"
    words = ["train", str(undisturbed), "--init", start, "--out", str(run), "--device", "cpu"]
    assert main([*words, "--set", "optim.lr=1"]) == 0
    told = capsys.readouterr().out
    assert "no step was better than the weights it started from" in told
    assert f"take {start} as it is" in told
    before = max(line["val"]["present"]["miou"] for line in lines(undisturbed) if "val" in line)
    begun = [line for line in lines(run) if "start" in line]
    assert [line["step"] for line in begun] == [0]
    assert begun[0]["start"]["present"]["miou"] == pytest.approx(before, abs=1e-6)
    resumed = train(load_recipe(str(run)), run, resume=True, device="cpu")
    assert resumed["start"]["present"] == pytest.approx(before, abs=1e-6)
    assert "of what it starts from" in (run / "report" / "report.html").read_text()


def test_a_start_of_other_classes_is_not_scored(odd_names, undisturbed, tmp_path):
    config = short(odd_names, init=str(undisturbed / "best"), loss=LossConfig(language=0.0))
    result = train(config, tmp_path / "run", limits=Limits(steps=1), device="cpu")
    assert result["start"] is None


@pytest.mark.slow
def test_a_licence_is_passed_on_with_the_data_that_came_after(six, tmp_path):
    licence = "Drawn; free."
    save(build(short(six).model), tmp_path / "start", ModelFacts(name="start", licence=licence))
    config = short(six, init=str(tmp_path / "start"))
    train(config, tmp_path / "run", limits=Limits(steps=1), device="cpu")
    facts = load(tmp_path / "run" / "best").facts
    assert facts is not None
    assert licence in facts.licence
    assert "drawn" in facts.licence


WORDS = Classes(names=("background", "gnome", "teapot", "walrus"))
TABLE = TextTable(
    "someone/clip", ("gnome", "teapot", "walrus"), ((1, 0.2, 0.4), (0.2, 1, 0.1), (0.4, 0.1, 1))
)


@pytest.fixture
def odd_names(six, tmp_path) -> Path:
    """Four classes with names that no table of the package holds."""
    data = shutil.copytree(six, tmp_path / "odd")
    text = (data / "dataset.toml").read_text()
    text = text.replace(json.dumps(MFNET.names), json.dumps(WORDS.names))
    (data / "dataset.toml").write_text(text.replace(f"prompts = {json.dumps(MFNET.prompts)}\n", ""))
    for path in (data / "label").iterdir():
        label = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        cv2.imwrite(str(path), label % 4)
    return data


@pytest.mark.slow
def test_the_text_table_goes_with_a_checkpoint_and_a_model(odd_names, tmp_path, monkeypatch):
    """Made once; a run resumed offline and one that starts from its model need no encoder."""
    made = []

    def encode(prompts: tuple[str, ...], encoder: str) -> TextTable:
        made.append(encoder)
        return TABLE

    def offline(*_: object) -> TextTable:
        raise InputError("the hub is out of reach")

    run, after = tmp_path / "run", tmp_path / "after"
    config = short(odd_names, text_encoder="someone/clip")
    monkeypatch.setattr(sartm.language, "encode", encode)
    train(config, run, limits=Limits(steps=2), device="cpu")
    assert made == ["someone/clip"]
    monkeypatch.setattr(sartm.language, "encode", offline)
    train(config, run, limits=Limits(steps=3), resume=True, device="cpu")
    assert len(losses(run, "cmkd")) == 3
    silent = short(odd_names, init=str(run / "best"), loss=LossConfig(language=0.0))
    train(silent, tmp_path / "silent", limits=Limits(steps=1), device="cpu")
    for encoder in ("", "someone/clip"):
        start = short(odd_names, init=str(tmp_path / "silent" / "best"), text_encoder=encoder)
        train(start, after, limits=Limits(steps=1), device="cpu")
        assert len(losses(after, "cmkd")) == 1
        shutil.rmtree(after)
    other = short(odd_names, init=str(run / "best"), text_encoder="other/clip")
    with pytest.raises(InputError, match="out of reach"):
        train(other, after, device="cpu")


def test_fp16_on_a_cpu_is_refused_in_words(six, tmp_path):
    with pytest.raises(InputError, match="fp16 is trained on a GPU only"):
        train(short(six, precision="fp16"), tmp_path / "run", device="cpu")
