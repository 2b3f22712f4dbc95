"""The engine: batches, several at a time, tiles of a large image beside each other, compiled."""

import json
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from conftest import TINY, build

from sartm.cli.main import main
from sartm.data.pairs import Sample
from sartm.errors import InputError
from sartm.inference.pipeline import label_ahead
from sartm.inference.predictor import Predictor
from sartm.inference.tiles import Tiling
from sartm.io.labels import read_label
from sartm.model.checkpoint import save
from sartm.model.facts import ModelFacts
from sartm.model.sartm import SARTM

KINDS = [(64, 96, "both"), (64, 96, "both"), (80, 64, "both"), (64, 96, "rgb"), (64, 96, "both")]


def draw_sample(height: int, width: int, modality: str = "both", seed: int = 0) -> Sample:
    draw = np.random.default_rng(seed)
    rgb = draw.integers(0, 256, (height, width, 3), dtype=np.uint8)
    thermal = draw.integers(0, 256, (height, width), dtype=np.uint8)
    return Sample(f"{seed}", None if modality == "thermal" else rgb,
                  None if modality == "rgb" else thermal)  # fmt: skip


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """Shape of what the network was given at every pass."""
    seen: list[tuple[int, ...]] = []
    logits = SARTM.predict_logits

    def watched(self, rgb, thermal):
        seen.append(tuple((rgb if rgb is not None else thermal).shape))
        return logits(self, rgb, thermal)

    monkeypatch.setattr(SARTM, "predict_logits", watched)
    return seen


def test_pairs_of_one_kind_pass_together_and_are_labelled_as_alone(passes):
    predictor = Predictor(build(TINY), device="cpu", precision="fp32")
    samples = [draw_sample(*kind, seed=seed) for seed, kind in enumerate(KINDS)]
    alone = [predictor.predict(sample) for sample in samples]
    passes.clear()
    together = predictor.predict_batch(samples)
    assert sorted(passes) == [(1, 3, 64, 96), (1, 3, 80, 64), (3, 3, 64, 96)]
    for ours, theirs in zip(together, alone, strict=True):
        torch.testing.assert_close(ours.logits, theirs.logits, atol=1e-4, rtol=1e-4)
        assert (ours.labels == theirs.labels).mean() > 0.999
        np.testing.assert_array_equal(ours.image, theirs.image)
    assert len({prediction.labels.tobytes() for prediction in alone}) == len(alone)


def test_a_large_image_in_a_batch_is_labelled_in_tiles(passes):
    tiling = Tiling(above=64 * 96, side=64, overlap=32)
    predictor = Predictor(build(TINY), device="cpu", precision="fp32", tiling=tiling)
    samples = [draw_sample(64, 96), draw_sample(120, 100, seed=1), draw_sample(64, 96, seed=2)]
    first, large, last = predictor.predict_batch(samples)
    assert first.logits is not None
    assert last.logits is not None
    assert large.logits is None
    assert large.labels.shape == (120, 100)
    assert max(shape[2] * shape[3] for shape in passes) == 64 * 96


@pytest.mark.parametrize(("workers", "batch_size"), [(3, 1), (1, 4), (2, 4)])
def test_tiles_pass_together_and_beside_each_other(workers, batch_size, passes):
    """Whatever is under way at a time, the label map of a large image is the same."""
    model, tiling = build(TINY), Tiling(above=0, side=64, overlap=16)
    sample = draw_sample(208, 208)
    expected = Predictor(model, device="cpu", precision="fp32", tiling=tiling).predict(sample)
    passes.clear()
    predictor = Predictor(model, device="cpu", precision="fp32", tiling=tiling, workers=workers,
                          batch_size=batch_size)  # fmt: skip
    with predictor.side_by_side():
        found = predictor.predict(sample)
    assert (found.labels == expected.labels).mean() > 0.999
    assert max(shape[0] for shape in passes) == batch_size
    assert sum(shape[0] for shape in passes) == 16


@pytest.mark.parametrize("batch_size", [1, 2, 3, 8])
@pytest.mark.parametrize("workers", [None, 1, 3])
def test_what_cannot_be_read_or_labelled_costs_only_itself(batch_size, workers):
    predictor = Predictor(build(TINY), device="cpu", precision="fp32", batch_size=batch_size,
                          workers=workers)  # fmt: skip
    threads, tried = torch.get_num_threads(), []

    def read(seed: int) -> Sample:
        if seed == 3:
            raise InputError("cannot be read")
        return draw_sample(64, 96, "thermal" if seed == 5 else "both", seed)

    def label(samples):
        tried.append(len(samples))
        return [found.labels for found in predictor.predict_batch(samples, "rgb")]

    found, failed = {}, {}
    for item, labelled in label_ahead(predictor, range(8), read, label):
        try:
            sample, labels, seconds = labelled()
        except InputError as error:
            failed[item] = str(error)
            continue
        assert sample.name == str(item)
        assert seconds > 0
        found[item] = labels
    assert list(found) == [0, 1, 2, 4, 6, 7]
    assert list(failed) == [3, 5]
    assert failed[3] == "cannot be read"
    assert "no RGB image" in failed[5]
    assert max(tried) == min(batch_size, 7)
    for seed, labels in found.items():
        alone = predictor.predict(draw_sample(64, 96, "both", seed), "rgb").labels
        assert (labels == alone).mean() > 0.999
    assert torch.get_num_threads() == threads


def test_a_fault_of_the_program_is_not_taken_for_a_bad_pair():
    predictor = Predictor(build(TINY), device="cpu", batch_size=2)

    def label(samples):
        raise ZeroDivisionError

    answers = label_ahead(predictor, range(4), lambda seed: draw_sample(64, 96, seed=seed), label)
    with pytest.raises(ZeroDivisionError):
        next(answers)[1]()


def test_memory_that_runs_out_is_said_with_the_remedy():
    """And pairs that fit alone are labelled alone."""
    predictor = Predictor(build(TINY), device="cpu", batch_size=3)
    network = predictor.network

    def too_many(rgb, thermal):  # a CPU has no way to run out of memory as a GPU does
        if len(rgb) > 1:
            raise torch.OutOfMemoryError
        return network(rgb, thermal)

    predictor.network = too_many
    samples = [draw_sample(64, 96, seed=seed) for seed in range(3)]
    with pytest.raises(InputError, match=r"3 pairs of 64x96; lower the batch size"):
        predictor.predict_batch(samples)
    answers = label_ahead(predictor, samples, lambda sample: sample, predictor.predict_batch)
    assert [labelled()[1].labels.shape for _, labelled in answers] == 3 * [(64, 96)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model and six pairs of two sizes, of which one is damaged."""
    save(build(TINY), tmp_path / "model", ModelFacts("drawn"))
    for index in range(6):
        sample = draw_sample(64, 96 if index % 3 else 64, seed=index)
        for part, image in (("rgb", sample.rgb), ("thermal", sample.thermal)):
            (tmp_path / part).mkdir(exist_ok=True)
            cv2.imwrite(str(tmp_path / part / f"{index}.png"), image)
    damaged = tmp_path / "rgb/4.png"
    damaged.write_bytes(damaged.read_bytes()[:300])
    return tmp_path


def label_folder(folder: Path, out: str, *options: str) -> dict[str, np.ndarray]:
    inputs = ["--rgb", folder / "rgb", "--thermal", folder / "thermal", "--precision", "fp32"]
    command = ["predict", *inputs, "--model", folder / "model", "--out", folder / out, *options]
    assert main([str(word) for word in command]) == 3
    assert list(json.loads((folder / out / "summary.json").read_text())["failures"]) == ["4"]
    maps = sorted((folder / out / "labels").iterdir())
    return {path.name: read_label(path) for path in maps}


def test_a_second_run_labels_only_what_is_missing(folder, passes):
    first = label_folder(folder, "out")
    (folder / "out/labels/2.png").unlink()
    (folder / "out/overlays/5.jpg").unlink()
    passes.clear()
    second = label_folder(folder, "out")
    assert len(passes) == 2
    assert list(second) == list(first)
    summary = json.loads((folder / "out/summary.json").read_text())
    assert set(summary["pairs"]) == {"0", "1", "2", "3", "5"}


def test_a_label_map_that_cannot_be_written_ends_the_run_and_keeps_what_is_done(folder, capsys):
    (folder / "out/labels/3.png").mkdir(parents=True)  # stands where a label map shall be
    inputs = ["--rgb", folder / "rgb", "--thermal", folder / "thermal", "--workers", "1"]
    command = ["predict", *inputs, "--model", folder / "model", "--out", folder / "out"]
    assert main([str(word) for word in [*command, "--overwrite"]]) == 2
    assert "what was finished is kept" in capsys.readouterr().err
    summary = json.loads((folder / "out/summary.json").read_text())
    assert set(summary["pairs"]) == {"0", "1", "2"}


@pytest.mark.slow
def test_batches_of_a_folder_are_labelled_as_its_pairs_are(folder, passes):
    alone = label_folder(folder, "alone", "--workers", "1")
    passes.clear()
    together = label_folder(folder, "together", "--batch-size", "3", "--workers", "2")
    assert [shape[0] for shape in passes].count(2) == 1  # 1 and 2; 4 is damaged
    assert list(together) == list(alone) == [f"{index}.png" for index in (0, 1, 2, 3, 5)]
    for name, labels in together.items():
        assert (labels == alone[name]).mean() > 0.999


def test_a_number_of_pairs_or_workers_below_one_is_refused():
    for options in ({"batch_size": 0}, {"workers": 0}):
        with pytest.raises(InputError, match="give 1 or more"):
            Predictor(build(TINY), device="cpu", **options)


def assert_compiled_is_the_same(model: SARTM) -> None:
    options = {"device": "cpu", "precision": "fp32"}
    eager, compiled = Predictor(model, **options), Predictor(model, **options, compiled=True)
    assert compiled.network is not eager.network
    samples = [draw_sample(64, 96), draw_sample(64, 96, seed=1)]
    expected = eager.predict_batch(samples)
    for found, theirs in zip(compiled.predict_batch(samples), expected, strict=True):
        torch.testing.assert_close(found.logits, theirs.logits, atol=1e-3, rtol=1e-3)
        assert (found.labels == theirs.labels).mean() > 0.999


@pytest.mark.slow
def test_the_network_can_be_traced_as_a_whole(monkeypatch):
    """All of it, as `torch.compile` sees it; what generates code is left out."""
    compile = partial(torch.compile, backend="aot_eager", fullgraph=True)
    monkeypatch.setattr(torch, "compile", compile)
    assert_compiled_is_the_same(build(TINY).eval())


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("g++"), reason="no C++ compiler")
def test_compiled_it_gives_the_same():
    """The smallest network there is: code for a whole one takes minutes."""
    config = replace(TINY, size="lite", lora=replace(TINY.lora, sets="none"), frozen_encoder=False,
                     output="auxiliary", fusion=replace(TINY.fusion, kind="rgb"))  # fmt: skip
    assert_compiled_is_the_same(build(config).eval())


def test_without_a_compiler_the_remedy_is_said(folder, monkeypatch, capsys):
    from torch._inductor import config

    monkeypatch.setattr(config.cpp, "cxx", ("no-such-compiler",))
    inputs = ["--rgb", folder / "rgb/0.png", "--out", folder / "out"]
    command = ["predict", *inputs, "--model", folder / "model", "--compile"]
    assert main([str(word) for word in command]) == 2
    assert "install g++" in capsys.readouterr().err
