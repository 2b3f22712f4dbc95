"""Which camera a label rests on: what each alone says, in Python and in the summary."""

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from conftest import TINY, build

from sartm.cli.main import main
from sartm.config import Calibration, Calibrations, ModelConfig, Scaling
from sartm.data.pairs import Sample
from sartm.inference.predictor import Predictor
from sartm.inference.tiles import Tiling
from sartm.model.checkpoint import save
from sartm.model.facts import ModelFacts
from sartm.model.sartm import SARTM


def a_sample(size: tuple[int, int] = (64, 96)) -> Sample:
    random = np.random.default_rng(0)
    rgb = cv2.resize(random.integers(0, 256, (6, 8, 3), np.uint8), size[::-1])
    heat = cv2.resize(random.integers(0, 256, (5, 9), np.uint8), size[::-1])
    return Sample("drawn", rgb, heat)


@pytest.mark.parametrize(
    "config",
    [
        TINY,
        replace(TINY, output="blend", scale=0.5),
        replace(TINY, output="auxiliary"),
        replace(TINY, decode="per_modality"),
    ],
    ids=["decoder", "blend at half size", "auxiliary", "per modality"],
)
def test_either_camera_alone_is_what_the_auxiliary_head_gives_without_the_other(
    config: ModelConfig,
) -> None:
    model = build(config).eval()
    draw = torch.Generator().manual_seed(0)
    rgb, thermal = (
        torch.rand(2, 3, 64, 96, generator=draw),
        torch.rand(2, 1, 64, 96, generator=draw),
    )
    alone = SARTM(replace(config, output="auxiliary")).eval()
    alone.load_state_dict(model.state_dict())
    with torch.inference_mode():
        found = model.predict_apart(rgb, thermal)
        expected = [model.predict_logits(rgb, thermal)]
        expected += [alone.predict_logits(rgb, None), alone.predict_logits(None, thermal)]
    torch.testing.assert_close(found, torch.cat(expected, 1), atol=1e-4, rtol=1e-4)


def test_trust_is_the_difference_of_what_both_give_the_label() -> None:
    network = build(TINY).eval()
    warm = Calibrations(rgb=Calibration(Scaling(2.0)), thermal=Calibration(Scaling(0.5)))
    network.config = replace(TINY, calibration=warm)
    predictor, sample = Predictor(network, device="cpu", precision="fp32"), a_sample()
    found = predictor.predict(sample, trust=True)
    np.testing.assert_array_equal(found.labels, predictor.predict(sample).labels)
    assert found.trust is not None
    assert found.trust.shape == (64, 96)
    assert np.abs(found.trust).max() <= 1
    alone = {}
    for modality, temperature in (("rgb", 2.0), ("thermal", 0.5)):
        rgb, heat = predictor.inputs(sample, modality)  # type: ignore[arg-type]
        x = None if rgb is None else torch.from_numpy(rgb).permute(2, 0, 1)[None].float() / 255
        y = None if heat is None else torch.from_numpy(heat)[None, None]
        with torch.inference_mode():
            output = network(x, y)
        alone[modality] = (output.auxiliary[0] / temperature).softmax(0)
    assert found.logits is not None
    labels = found.logits.argmax(0, keepdim=True)
    expected = alone["thermal"].gather(0, labels)[0] - alone["rgb"].gather(0, labels)[0]
    at = found.trust.reshape(16, 4, 24, 4)[:, 1:3, :, 1:3].mean((1, 3))  # about the stride's middle
    assert np.corrcoef(at.ravel(), expected.numpy().ravel())[0, 1] > 0.98
    summary = found.summary()["trust"]
    assert summary["mean"] == pytest.approx(float(found.trust.astype(float).mean()), abs=1e-3)


def test_there_is_no_trust_without_asking_of_one_camera_and_of_tiles() -> None:
    network, sample = build(TINY).eval(), a_sample()
    predictor = Predictor(network, device="cpu", precision="fp32")
    assert predictor.predict(sample).trust is None
    assert "trust" not in predictor.predict(sample).summary()
    assert predictor.predict(sample, "rgb", trust=True).trust is None
    assert predictor.predict(replace(sample, rgb=None), trust=True).trust is None
    tiling = Tiling(above=1, side=64, overlap=32)
    tiled = Predictor(network, device="cpu", precision="fp32", tiling=tiling)
    assert tiled.predict(sample, trust=True).trust is None
    mixed = predictor.predict_batch([sample, replace(sample, thermal=None)], trust=True)
    assert [each.trust is None for each in mixed] == [False, True]


def test_the_summary_has_it_where_it_was_asked_for(tmp_path: Path) -> None:
    save(build(TINY), tmp_path / "model", ModelFacts(name="small"))
    sample = a_sample()
    for kind, image in (("rgb", sample.rgb), ("thermal", sample.thermal)):
        (tmp_path / kind).mkdir()
        assert image is not None
        cv2.imwrite(str(tmp_path / kind / "a.png"), image)
    words = ["predict", "--rgb", f"{tmp_path}/rgb", "--thermal", f"{tmp_path}/thermal"]
    words += ["--model", f"{tmp_path}/model", "--out", f"{tmp_path}/out", "--device", "cpu"]

    def entry(*more: str) -> dict[str, object]:
        assert main([*words, *more]) == 0
        found: dict[str, object] = json.loads((tmp_path / "out/summary.json").read_text())
        pairs = found["pairs"]
        assert isinstance(pairs, dict)
        return dict(pairs["a"])

    assert "trust" not in entry()
    trust = entry("--trust")["trust"]
    assert isinstance(trust, dict)
    assert -1 <= trust["mean"] <= 1
    assert entry()["trust"] == trust  # kept
