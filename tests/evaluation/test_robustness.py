"""Bad conditions: what they do to a pair, and the table of what they cost."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from conftest import TINY, build
from draw_layouts import flat

from sartm.cli.main import main
from sartm.data.pairs import PairDataset, Sample
from sartm.errors import InputError
from sartm.evaluation.conditions import CONDITIONS, Change, Condition, choose_conditions, degrade
from sartm.evaluation.robustness import measure_robustness
from sartm.evaluation.scoring import evaluate_with_pictures
from sartm.inference.predictor import Predictor
from sartm.inference.tiles import Tiling
from sartm.model.checkpoint import save
from sartm.model.facts import ModelFacts
from sartm.model.sartm import SARTM

DAMAGED = [name for name in CONDITIONS if not name.endswith("missing")]
TYPES = {"uint8": (np.uint8, 1, 0), "uint16": (np.uint16, 50, 29000), "float32": (np.float32, 1, 5)}


@pytest.fixture(scope="module")
def network() -> SARTM:
    return build(TINY)


@pytest.fixture
def predictor(network: SARTM) -> Predictor:
    return Predictor(network, device="cpu", precision="fp32")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    flat("rgb", "thermal", "labels")(tmp_path / "mfnet")
    return tmp_path / "mfnet"


def a_scene(name: str = "scene", kind: str = "uint8", size: tuple[int, int] = (120, 160)) -> Sample:
    """A smooth picture with warm spots; thermal in counts, degrees or grey levels."""
    random = np.random.default_rng(5)
    rgb = cv2.resize(random.integers(30, 200, (9, 12, 3)).astype(np.uint8), size[::-1])
    heat = cv2.resize(random.integers(20, 220, (7, 9)).astype(np.float32), size[::-1])
    dtype, scale, offset = TYPES[kind]
    label = random.integers(0, 9, size, np.uint8)
    return Sample(name, rgb, (heat * scale + offset).astype(dtype), label)


def images(sample: Sample) -> tuple[np.ndarray, np.ndarray]:
    assert sample.rgb is not None
    assert sample.thermal is not None
    return sample.rgb, sample.thermal


def difference(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.abs(one.astype(float) - other).mean())


# --- Conditions ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("name", DAMAGED)
def test_a_condition_damages_one_modality_and_keeps_shapes_types_and_label(
    name: str, kind: str
) -> None:
    sample = a_scene(kind=kind)
    before = [image.copy() for image in images(sample)]
    condition = CONDITIONS[name]
    changed = degrade(sample, condition, condition.strengths[-1])
    for now, original, untouched in zip(images(changed), images(sample), before, strict=True):
        assert now.dtype == original.dtype
        assert now.shape == original.shape
        np.testing.assert_array_equal(original, untouched)  # the sample itself stays
    hurt = 0 if condition.needs == "rgb" else 1
    assert difference(images(changed)[hurt], before[hurt]) > 0
    np.testing.assert_array_equal(images(changed)[1 - hurt], before[1 - hurt])
    assert changed.label is sample.label


@pytest.mark.parametrize("name", DAMAGED)
def test_damage_depends_on_seed_and_pair_alone(name: str) -> None:
    condition = CONDITIONS[name]
    strength = condition.strengths[-1]

    def bytes_of(pair: str, seed: int) -> bytes:
        return b"".join(
            x.tobytes() for x in images(degrade(a_scene(pair), condition, strength, seed))
        )

    once = bytes_of("a", 0)
    bytes_of("b", 0)
    assert bytes_of("a", 0) == once
    drawn = {bytes_of(pair, seed) for pair in "abcdef" for seed in (0, 1)}
    exact = {"rgb-dark", "rgb-overexposed", "thermal-low-contrast", "thermal-inverted"}
    assert len(drawn) == (1 if name in exact else 4 if name == "misregistered" else 12)


@pytest.mark.parametrize("name", [name for name in DAMAGED if len(CONDITIONS[name].strengths) > 1])
def test_every_severity_is_worse_than_the_one_before(name: str) -> None:
    condition, sample = CONDITIONS[name], a_scene(size=(160, 640))
    hurt = 0 if condition.needs == "rgb" else 1
    original = images(sample)[hurt]
    levels = [images(degrade(sample, condition, s))[hurt] for s in condition.strengths]
    costs = [0.0, *(difference(level, original) for level in levels)]
    assert costs == sorted(set(costs))
    assert len(condition.severities()) == (4 if name == "misregistered" else 5)


@pytest.mark.parametrize("pixels", [2, 5, 10, 20])
def test_misregistration_moves_thermal_by_exactly_so_many_pixels(pixels: int) -> None:
    condition, directions = CONDITIONS["misregistered"], set()
    for index in range(16):
        sample = a_scene(f"pair{index}")
        before, after = images(sample)[1], images(degrade(sample, condition, pixels))[1]
        inner = (slice(pixels, -pixels),) * 2
        for axis, by in ((0, pixels), (0, -pixels), (1, pixels), (1, -pixels)):
            if np.array_equal(np.roll(before, by, axis)[inner], after[inner]):
                directions.add((axis, by))
                break
        else:
            pytest.fail("not a shift by whole pixels along one axis")
    assert len(directions) == 4


def test_a_missing_modality_is_gone_and_nothing_else() -> None:
    sample = a_scene()
    dark, cold = (degrade(sample, CONDITIONS[f"{name}-missing"], 1) for name in ("rgb", "thermal"))
    assert dark == replace(sample, rgb=None)
    assert cold == replace(sample, thermal=None)
    for only in (dark, cold):  # of a set where some pairs have one camera: nothing more to lose
        lost = [degrade(only, CONDITIONS[f"{name}-missing"], 1) for name in ("rgb", "thermal")]
        assert lost == [only, only]


def test_exposure_is_in_stops_of_light() -> None:
    grey = replace(a_scene(), rgb=np.full((8, 8, 3), 128, np.uint8))
    darker = images(degrade(grey, CONDITIONS["rgb-dark"], -1))[0]
    assert np.unique(darker).tolist() == [round(255 * ((128 / 255) ** 2.2 / 2) ** (1 / 2.2))]
    brighter = images(degrade(grey, CONDITIONS["rgb-overexposed"], 3))[0]
    assert np.unique(brighter).tolist() == [255]


@pytest.mark.parametrize("share", [0.05, 0.3])
def test_strengths_are_the_shares_they_claim(share: float) -> None:
    sample = a_scene(size=(240, 320))
    for name, image in (("rgb-occluded", 0), ("thermal-occluded", 1)):
        after = images(degrade(sample, CONDITIONS[name], share))[image]
        before = images(sample)[image]
        changed = (after != before).reshape(*before.shape[:2], -1).any(-1).mean()
        assert 0.8 * share < changed < share + 0.15  # the edge is soft
    dead = [
        (images(degrade(a_scene(str(i)), CONDITIONS["thermal-dead-columns"], share))[1]).std(0) == 0
        for i in range(20)
    ]
    assert abs(np.mean(dead) - share) < 0.03


@pytest.mark.parametrize("kind", TYPES)
def test_inverting_twice_is_nothing_and_hot_becomes_cold(kind: str) -> None:
    sample, inverted = a_scene(kind=kind), CONDITIONS["thermal-inverted"]
    once = degrade(sample, inverted, 1)
    before, after = images(sample)[1], images(once)[1]
    assert after.flat[before.argmax()] == after.min()
    np.testing.assert_allclose(images(degrade(once, inverted, 1))[1], before, rtol=1e-5)


def test_a_constant_thermal_image_and_a_tiny_pair_survive_everything() -> None:
    for size in ((120, 160), (9, 12)):
        sample = replace(a_scene(size=size), thermal=np.full(size, 7, np.uint8))
        for condition in CONDITIONS.values():
            for strength in condition.strengths:
                assert degrade(sample, condition, strength).size == size
    alone = replace(a_scene(), rgb=None)
    assert degrade(alone, CONDITIONS["rgb-fog"], 1.0) == alone


def test_conditions_that_mean_nothing_for_a_modality_are_left_out_or_refused() -> None:
    assert choose_conditions() == list(CONDITIONS.values())
    assert {one.needs for one in choose_conditions(modality="rgb")} == {"rgb"}
    assert {one.needs for one in choose_conditions(modality="thermal")} == {"thermal"}
    assert [one.name for one in choose_conditions(["rgb-fog", "rgb-fog"])] == ["rgb-fog"]
    with pytest.raises(InputError, match=r"unknown condition 'fog'.*rgb-fog"):
        choose_conditions(["fog"])
    with pytest.raises(InputError, match="misregistered needs both"):
        choose_conditions(["misregistered"], "rgb")


# --- The table -----------------------------------------------------------------------------------


def some(*names: str) -> list[Condition]:
    return choose_conditions(names)


class Watch:
    """Conditions that note the pairs they change, and can end the run as Ctrl-C would."""

    def __init__(self, *names: str, stop_after: int = 10**6) -> None:
        self.pairs: list[str] = []
        self.stop_after = stop_after
        self.conditions = [
            replace(condition, change=self.watched(condition)) for condition in some(*names)
        ]

    def watched(self, condition: Condition) -> Change:
        def change(sample: Sample, strength: float, random: np.random.Generator) -> Sample:
            self.pairs.append(sample.name)
            if len(self.pairs) > self.stop_after:
                raise KeyboardInterrupt
            return condition.change(sample, strength, random)

        return change


def finished(out: Path) -> int:
    """Lines of the record: one per condition and severity that was scored."""
    return len((out / "robustness.jsonl").read_text().splitlines())


def test_rows_are_the_scores_of_the_degraded_pairs(
    predictor: Predictor, data: Path, tmp_path: Path
) -> None:
    dataset = PairDataset.open(data, "test")
    chosen = some("rgb-noise", "thermal-missing")
    rows = measure_robustness(predictor, dataset, tmp_path / "out", conditions=chosen)
    report, _ = evaluate_with_pictures(predictor, dataset)
    alone, _ = evaluate_with_pictures(predictor, dataset, modality="rgb")
    of = {(row["condition"], row["severity"]): row for row in rows}
    assert of["clean", None]["miou"] == report.means["mfnet-9"]["miou"]
    assert of["clean", None]["drop"] == 0
    assert of["thermal-missing", None]["miou"] == alone.means["mfnet-9"]["miou"]
    assert {row["protocol"] for row in rows} == {"mfnet-9"}
    noise: list[Any] = [of["rgb-noise", step]["miou"] for step in (1, 2, 3, 4, 5)]
    assert of["rgb-noise", "mean"]["miou"] == pytest.approx(np.mean(noise), abs=1e-3)
    assert of["rgb-noise", "worst"]["miou"] == min(noise)
    missing: Any = of["thermal-missing", None]["miou"]
    mean = (np.mean(noise) + missing) / 2
    assert of["all conditions", "mean"]["miou"] == pytest.approx(mean, abs=1e-3)
    assert rows[-1]["miou"] == min(*noise, missing)
    clean: Any = of["clean", None]["miou"]
    assert all(row["drop"] == pytest.approx(clean - row["miou"], abs=1e-3) for row in rows)


def test_an_interrupted_run_goes_on_where_it_was(
    predictor: Predictor, data: Path, tmp_path: Path
) -> None:
    dataset, names = PairDataset.open(data, "test"), ("rgb-dark", "misregistered")
    whole = measure_robustness(predictor, dataset, tmp_path / "whole", conditions=some(*names))
    out = tmp_path / "out"
    stopped = Watch(*names, stop_after=5)  # two severities and a half: two pairs each
    with pytest.raises(KeyboardInterrupt):
        measure_robustness(predictor, dataset, out, conditions=stopped.conditions)
    lines = (out / "robustness.jsonl").read_text().splitlines()
    assert len(lines) == 1 + 2  # the pairs as they are, too
    (out / "robustness.jsonl").write_text("\n".join(lines) + '\n{"identity": "cut o')
    watch = Watch(*names)
    for _ in range(2):  # the second time there is nothing left to do
        found = measure_robustness(predictor, dataset, out, conditions=watch.conditions)
        assert found == whole
        assert len(watch.pairs) == 2 * (5 + 4 - 2)
        assert finished(out) == 1 + 5 + 4 + 1  # the cut line stays, passed over


def test_other_models_pairs_and_settings_do_not_mix(
    predictor: Predictor, data: Path, tmp_path: Path
) -> None:
    dataset, out, watch = PairDataset.open(data, "test"), tmp_path / "out", Watch("rgb-noise")

    def measured(predictor: Predictor, dataset: PairDataset, **settings: Any) -> tuple[Any, int]:
        """The rows, and how many pairs were changed for them."""
        before = len(watch.pairs)
        rows = measure_robustness(predictor, dataset, out, conditions=watch.conditions, **settings)
        return rows, len(watch.pairs) - before

    first, pairs = measured(predictor, dataset)
    assert pairs == 2 * 5
    other = Predictor(build(TINY, seed=1), device="cpu", precision="fp32")
    assert measured(other, dataset)[1] == 2 * 5
    assert measured(predictor, PairDataset.open(data, "test", limit=1))[1] == 5
    assert measured(predictor, dataset, seed=1)[1] == 2 * 5
    assert measured(predictor, dataset, modality="rgb")[1] == 2 * 5
    assert finished(out) == 5 * (1 + 5)
    assert measured(predictor, dataset) == (first, 0)
    assert finished(out) == 5 * (1 + 5)


@pytest.mark.parametrize("other", ["thermal range", "tiles", "palette", "unit", "coloured labels"])
def test_what_else_the_counts_depend_on_does_not_mix(
    predictor: Predictor, network: SARTM, data: Path, tmp_path: Path, other: str
) -> None:
    dataset, out, watch = PairDataset.open(data, "test"), tmp_path / "out", Watch("thermal-missing")
    measure_robustness(predictor, dataset, out, conditions=watch.conditions)
    measure_robustness(predictor, dataset, out, conditions=watch.conditions)
    assert len(watch.pairs) == 2
    options: dict[str, Any] = {}
    if other == "thermal range":
        options["thermal_range"] = "20:120"
    elif other == "tiles":
        options["tiling"] = Tiling(above=500, side=64, overlap=32)
    elif other == "unit":
        dataset.thermal_unit = "counts"
    elif other == "palette":
        palette = tuple((9, 9, id_) for id_ in range(9))
        dataset.classes = dataset.written = replace(dataset.classes, palette=palette)
    else:
        dataset = dataset.replace([replace(pair, coloured_label=None) for pair in dataset.pairs])
    predictor = Predictor(network, device="cpu", precision="fp32", **options)
    measure_robustness(predictor, dataset, out, conditions=watch.conditions)
    assert len(watch.pairs) == 4


@pytest.mark.parametrize(
    "line",
    ["[]", "null", '{"identity": 1}', '{"counts": [[1]], "condition": [], "severity": {}}', "\x00"],
)
def test_a_damaged_record_is_passed_over(
    predictor: Predictor, data: Path, tmp_path: Path, line: str
) -> None:
    dataset, out = PairDataset.open(data, "val"), tmp_path / "out"
    rows = measure_robustness(predictor, dataset, out, conditions=some("rgb-missing"))
    record = out / "robustness.jsonl"
    good = [json.loads(text) for text in record.read_text().splitlines()]
    bad = [good[0] | change for change in ({"counts": [[1]]}, {"severity": []}, {"counts": "x"})]
    bad += [good[0] | {"counts": [[-1] * 9] * 9}]
    record.write_text("\n".join([line, *map(json.dumps, bad)]) + "\n")
    again = measure_robustness(predictor, dataset, out, conditions=some("rgb-missing"))
    assert again == rows


def test_the_command_puts_the_table_into_the_report(
    network: SARTM, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, out = tmp_path / "model", tmp_path / "out"
    save(network, model, ModelFacts(name="small"))
    base = ["evaluate", "--data", data, "--model", model, "--out", out, "--split", "test"]
    base += ["--precision", "fp32"]

    def run(*options: str) -> int:
        return main([str(argument) for argument in (*base, *options)])

    assert run("--robustness", "--conditions", "rgb-dark, misregistered", "--limit", "1") == 0
    assert "misregistered worst" in capsys.readouterr().out
    report = json.loads((out / "report.json").read_text())
    assert report["pairs"] == 1
    rows = [(row["condition"], row["severity"]) for row in report["robustness"]]
    assert rows[0] == ("clean", None)
    assert [row for row in rows if row[0] == "misregistered"] == [
        ("misregistered", severity) for severity in (2, 5, 10, 20, "mean", "worst")
    ]
    assert report["robustness"][0]["miou"] == report["means"]["mfnet-9"]["miou"]
    page = (out / "report.html").read_text()
    assert page.count('class="curve"') == 2 + 2  # a chart per condition, and of confidence
    assert "rgb-dark" in (out / "report.md").read_text()
    for options, words in [
        (("--conditions", "fog"), ("'fog'", "rgb-fog")),
        (("--conditions", "rgb-fog", "--modality", "thermal"), ("rgb-fog", "thermal")),
    ]:
        assert run(*options) == 2
        said = capsys.readouterr().err
        assert all(word in said for word in words)


def test_a_folder_in_the_way_is_said_plainly(
    predictor: Predictor, data: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    dataset = PairDataset.open(data, "val")
    with pytest.raises(InputError, match=r"robustness\.jsonl.*--out"):
        measure_robustness(predictor, dataset, tmp_path / "file", conditions=some("rgb-missing"))


def test_the_page_lists_every_condition_as_it_is() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs/robustness.md").read_text()
    listed = [line for line in page.splitlines() if line.startswith("| ")][2:]
    assert listed == [
        f"| {one.name} | {', '.join(f'{value:g}' for value in one.strengths)} | {one.about} |"
        for one in CONDITIONS.values()
    ]
