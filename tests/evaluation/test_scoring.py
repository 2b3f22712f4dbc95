"""Scores a user can trust: what is labelled, how it is counted, and what is said instead."""

import json
import shutil
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import SHARED, TINY, build
from draw_layouts import MFNET_LAYOUTS, OTHER_LAYOUTS, OTHER_NAMES, draw, flat, save, toml
from PIL import Image

from sartm.classes import MFNET, Classes
from sartm.cli.main import main
from sartm.colours import display_palette
from sartm.data.pairs import PairDataset, Sample, pixel_hash
from sartm.data.sets import Pair
from sartm.errors import InputError
from sartm.evaluation.metrics import best_and_worst
from sartm.evaluation.report.scores import build_report
from sartm.evaluation.scoring import evaluate, evaluate_with_pictures, score, score_pairs
from sartm.evaluation.views import Array, Views, label_sample
from sartm.inference.predictor import Predictor
from sartm.io.labels import read_label
from sartm.model.checkpoint import save as save_model
from sartm.model.facts import ModelFacts
from sartm.model.sartm import SARTM, resize_logits

SMALL = ["model.size=test", "model.width=32", "model.decoder.mlp_dim=64", "workers=0"]
SMALL += ["augmentation.crop=[32,32]", "optim.batch_size=2"]


@pytest.fixture(scope="module")
def network() -> SARTM:
    return build(TINY)


@pytest.fixture(scope="module")
def predictor(network: SARTM) -> Predictor:
    return Predictor(network, device="cpu", precision="fp32")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, network: SARTM) -> str:
    folder = tmp_path_factory.mktemp("models") / "small"
    save_model(network, folder, ModelFacts(name="small", selected_on="val"))
    return str(folder)


@pytest.fixture
def mfnet(tmp_path: Path) -> Path:
    """Five random pairs of 24x32 in splits train, val and test, named as MFNet's frames."""
    flat("rgb", "thermal", "labels")(tmp_path / "mfnet")
    return tmp_path / "mfnet"


def a_sample(size: tuple[int, int], seed: int = 0) -> Sample:
    random = np.random.default_rng(seed)
    rgb = random.integers(0, 256, (*size, 3), np.uint8)
    label = random.integers(0, 9, size, np.uint8)
    return Sample(f"pair{seed}", rgb, random.integers(0, 256, size, np.uint8), label)


def many(root: Path, pairs: int, classes: Classes = MFNET) -> PairDataset:
    """Labelled pairs of 24x32; every third holds one class only."""
    found = []
    for index in range(pairs):
        name = f"p{index:03d}{'DN'[index % 2]}"
        drawn = draw(name, (24, 32), classes)
        if index % 3 == 0:
            drawn["label"][:] = index % len(classes)
        files = {kind: root / kind / f"{name}.png" for kind in drawn}
        for kind, file in files.items():
            save(file, drawn[kind])
        found.append(Pair(name, files["rgb"], files["thermal"], files["label"]))
    subsets = {"day": "D$", "night": "N$"}
    return PairDataset(found, classes, name="many", split="val", subsets=subsets)


def run(
    arguments: list[str | Path], capsys: pytest.CaptureFixture[str], *words: str, status: int = 2
) -> None:
    """The command ends with `status` and names each of `words` on standard error."""
    assert main([str(argument) for argument in arguments]) == status
    said = capsys.readouterr().err
    assert "Traceback" not in said
    for word in words:
        assert word in said


# --- What is labelled ----------------------------------------------------------------------------


def test_the_default_is_what_predict_gives(predictor: Predictor) -> None:
    sample = a_sample((50, 71))
    np.testing.assert_array_equal(label_sample(predictor, sample), predictor.predict(sample).labels)


def test_one_window_over_the_whole_image_changes_nothing(predictor: Predictor) -> None:
    sample = a_sample((50, 71))
    whole = label_sample(predictor, sample)
    np.testing.assert_array_equal(whole, label_sample(predictor, sample, views=Views((64, 80))))


def test_windows_scales_and_mirror_images_average_probabilities(predictor: Predictor) -> None:
    """Against the definition: the mean of soft-maxed views, each put back where it was seen."""
    sample = a_sample((64, 98))

    def probabilities(rgb: np.ndarray, thermal: np.ndarray) -> torch.Tensor:
        size = rgb.shape[:2]
        logits = predictor.logits(np.ascontiguousarray(rgb), np.ascontiguousarray(thermal))
        return resize_logits(logits[None], size).softmax(1)

    total = torch.zeros(1, 9, 64, 98)
    images = predictor.inputs(sample)
    for size in ((64, 98), (80, 122)):
        rgb, thermal = (cv2.resize(x, size[::-1], interpolation=cv2.INTER_LINEAR) for x in images)
        for mirrored in (False, True):
            seen = [x[:, ::-1] if mirrored else x for x in (rgb, thermal)]
            mean, count = torch.zeros(1, 9, *size), torch.zeros(size)
            for top in {64: [0], 80: [0, 16]}[size[0]]:
                for left in {98: [0, 34], 122: [0, 40, 58]}[size[1]]:
                    part = probabilities(*(x[top : top + 64, left : left + 64] for x in seen))
                    mean[..., top : top + 64, left : left + 64] += part
                    count[top : top + 64, left : left + 64] += 1
            mean = mean / count
            mean = mean.flip(-1) if mirrored else mean
            total += F.interpolate(mean, (64, 98), mode="bilinear")
    views = Views((64, 64), 40, scales=(1.0, 1.25), flip=True)
    labels = label_sample(predictor, sample, views=views)
    best = total[0].sort(0, descending=True)
    clear = (best.values[0] - best.values[1] > 1e-4).numpy()
    assert clear.mean() > 0.95
    np.testing.assert_array_equal(labels[clear], best.indices[0].numpy()[clear])


@pytest.mark.parametrize(
    "views",
    [Views((32, 32), 20), Views((32, 40)), Views(scales=(0.3, 2.0)), Views((64, 64), 64, (0.5,))],
    ids=["window", "own stride", "scales", "window larger than the scaled image"],
)
def test_every_view_gives_a_map_of_the_original_size(network: SARTM, views: Views) -> None:
    labels = label_sample(ClassFour(network, device="cpu"), a_sample((50, 71)), views=views)
    assert labels.shape == (50, 71)
    assert (labels == 4).all()


class ClassFour(Predictor):
    """Says class 4 wherever it looks, so that a pixel that no window covers would be class 0."""

    def logits(self, rgb: Array | None, thermal: Array | None) -> torch.Tensor:
        assert rgb is not None
        assert thermal is not None
        assert rgb.shape[:2] == thermal.shape
        four = torch.zeros(9, -(-thermal.shape[0] // 4), -(-thermal.shape[1] // 4))
        four[4] = 1.0
        return four


def test_report_json_says_how_each_pair_was_seen(
    model: str, mfnet: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["evaluate", "--model", model, "--data", str(mfnet), "--out", str(tmp_path / "out")]

    def seen(*more: str) -> tuple[object, str]:
        assert main([*words, *more]) == 0
        page = (tmp_path / "out/report.md").read_text()
        return json.loads((tmp_path / "out/report.json").read_text())["views"], page

    whole, page = seen()
    assert whole == {"window": None, "stride": None, "scales": [1.0], "flip": False}
    assert "views: the whole image\n" in page
    views, page = seen("--window", "32x48", "--scales", "1,1.5", "--flip")
    assert views == {"window": [32, 48], "stride": 21, "scales": [1.0, 1.5], "flip": True}
    assert "windows of 32x48, a new one every 21 pixels; scales 1, 1.5; with mirror images" in page
    labels = tmp_path / "labels"
    shutil.copytree(mfnet / "labels", labels)
    args = ["score", "--predictions", labels, "--data", mfnet, "--out", tmp_path / "scored"]
    assert main([str(word) for word in args]) == 0
    assert "views" not in json.loads((tmp_path / "scored/report.json").read_text())


def test_a_mirrored_pair_gets_the_mirrored_map(predictor: Predictor) -> None:
    sample = a_sample((64, 96))
    assert sample.rgb is not None
    assert sample.thermal is not None
    turned = replace(sample, rgb=sample.rgb[:, ::-1], thermal=sample.thermal[:, ::-1])
    views = Views(flip=True)
    ours = label_sample(predictor, sample, views=views)
    assert (label_sample(predictor, turned, views=views)[:, ::-1] == ours).mean() > 0.999
    assert (label_sample(predictor, turned)[:, ::-1] == label_sample(predictor, sample)).mean() < 1


@pytest.mark.parametrize("modality", ["rgb", "thermal"])
def test_a_modality_alone_is_all_the_model_sees(predictor: Predictor, modality: str) -> None:
    sample, other = a_sample((64, 96)), a_sample((64, 96), seed=1)
    hidden = "thermal" if modality == "rgb" else "rgb"
    changed = replace(sample, **{hidden: getattr(other, hidden)})
    for views in (Views(), Views((64, 64), 32, flip=True)):
        seen = label_sample(predictor, sample, modality, views)
        np.testing.assert_array_equal(seen, label_sample(predictor, changed, modality, views))
        assert (seen != label_sample(predictor, sample, "both", views)).any()


def test_several_workers_count_the_same_and_leave_torch_as_it_was(
    predictor: Predictor, tmp_path: Path
) -> None:
    dataset, threads = many(tmp_path, 6), torch.get_num_threads()
    alone, _ = evaluate_with_pictures(predictor, dataset)
    predictor.workers = 3
    together, _ = evaluate_with_pictures(predictor, dataset)
    assert alone == together
    assert torch.get_num_threads() == threads


@pytest.mark.slow
def test_options_reach_the_model_from_the_command_line(
    mfnet: Path, model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = ["evaluate", "--data", mfnet, "--split", "test", "--model", model, "--precision", "fp32"]

    def confusion(*options: str) -> list[list[int]]:
        assert main([str(x) for x in (*base, *options, "--out", tmp_path / "r")]) == 0
        content = json.loads((tmp_path / "r/report.json").read_text())
        return content["confusion"]

    whole = confusion()
    assert confusion("--workers", "2") == whole
    assert confusion("--window", "32x32") == whole  # larger than the images
    others = [("--flip",), ("--scales", "0.75,1,1.25"), ("--modality", "rgb")]
    assert all(confusion(*options) != whole for options in others)
    for options, word in [
        (("--window", "64"), "HEIGHTxWIDTH"),
        (("--window", "8x64"), "8x64"),
        (("--stride", "8"), "--window"),
        (("--window", "64x64", "--stride", "65"), "65"),
        (("--scales", "1,big"), "big"),
        (("--scales", "nan"), "nan"),
        (("--scales", "9"), "9"),
        (("--protocol", "pst900-5"), "pst900-5"),
    ]:
        run([*base, *options, "--out", tmp_path / "r"], capsys, word)


# --- How it is counted ---------------------------------------------------------------------------


def test_counts_are_those_of_every_pixel(predictor: Predictor, tmp_path: Path) -> None:
    dataset = many(tmp_path, 2)
    for sample, _, counts, _ in score_pairs(predictor, dataset):
        assert sample.label is not None
        labels = predictor.predict(sample).labels
        slow = np.zeros((9, 9), int)
        for truth, found in zip(sample.label.ravel(), labels.ravel(), strict=True):
            slow[truth, found] += 1
        np.testing.assert_array_equal(counts, slow)


@pytest.mark.parametrize("pairs", [2, 7, 16])
def test_pictures_are_of_the_best_and_worst_pairs(
    predictor: Predictor, tmp_path: Path, pairs: int
) -> None:
    dataset = many(tmp_path, pairs)
    _, pictures = evaluate_with_pictures(predictor, dataset)
    best, worst = best_and_worst(
        np.stack([scored.counts for scored in score_pairs(predictor, dataset)])
    )
    wanted = [("best", dataset.pairs[i].name) for i in best]
    wanted += [("worst", dataset.pairs[i].name) for i in worst]
    assert [(picture.group, picture.name) for picture in pictures] == wanted
    palette = np.array(display_palette(MFNET), np.uint8)
    for picture, index in zip(pictures, [*best, *worst], strict=True):
        labels = predictor.predict(dataset[index]).labels
        np.testing.assert_array_equal(picture.images["prediction"], palette[labels])


def test_scoring_loads_no_torch(mfnet: Path, tmp_path: Path) -> None:
    arguments = ["score", "--predictions", str(mfnet / "labels"), "--data", str(mfnet)]
    arguments += ["--split", "test", "--out", str(tmp_path / "s")]
    code = (
        "import sys; from sartm.cli.main import main\n"
        f"assert main({arguments!r}) == 0\n"
        "assert not {'torch', 'transformers'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    means = json.loads((tmp_path / "s/report.json").read_text())["means"]
    assert means["mfnet-9"]["miou"] == 100.0


def as_palette(ids: np.ndarray) -> Image.Image:
    image = Image.fromarray(ids, "P")
    image.putpalette(np.random.default_rng(0).integers(0, 256, 768, np.uint8).tobytes())
    return image


WRITERS: dict[str, Callable[[np.ndarray], Image.Image]] = {
    "8 bits": lambda ids: Image.fromarray(ids),
    "16 bits": lambda ids: Image.fromarray(ids.astype(np.uint16)),
    "32-bit integers": lambda ids: Image.fromarray(ids.astype(np.int32), "I"),
    "32 bits per pixel": lambda ids: Image.fromarray(
        np.dstack([ids, ids, ids, np.full_like(ids, 255)])
    ),
    "palette": as_palette,
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("kind", WRITERS)
def test_maps_of_any_png_kind_score_the_same(mfnet: Path, tmp_path: Path, kind: str) -> None:
    dataset = PairDataset.open(mfnet, "test")
    maps = {pair.name: draw(f"{pair.name}x", (24, 32), MFNET)["label"] for pair in dataset.pairs}
    for name, ids in maps.items():
        save(tmp_path / "plain" / f"{name}.png", ids)
        (tmp_path / "maps/labels").mkdir(parents=True, exist_ok=True)
        WRITERS[kind](ids).save(tmp_path / f"maps/labels/{name}.png")
    plain, other = score(tmp_path / "plain", dataset), score(tmp_path / "maps", dataset)
    assert plain.confusion == other.confusion
    counts = np.zeros((9, 9), int)
    for pair in dataset.pairs:
        assert pair.label is not None
        np.add.at(counts, (read_label(pair.label), maps[pair.name]), 1)
    np.testing.assert_array_equal(np.array(plain.confusion), counts)


def test_memory_does_not_grow_with_the_pairs(tmp_path: Path) -> None:
    """130 classes: kept pair by pair, the counts of 400 pairs would be 27 MB."""
    classes = Classes(tuple(f"c{i}" for i in range(130)))
    dataset = many(tmp_path, 8, classes)
    (tmp_path / "maps").mkdir()
    counts = np.zeros((8, 130, 130), np.int64)
    for index, pair in enumerate(dataset.pairs):
        ids = draw(pair.name, (24, 32), classes)["label"]
        save(tmp_path / "maps" / f"{pair.name}.png", ids)
        assert pair.label is not None
        truth = read_label(pair.label)
        np.add.at(counts[index], (truth[truth != classes.ignore], ids[truth != classes.ignore]), 1)
    report = score(tmp_path / "maps", dataset)
    days = {"day": [0, 2, 4, 6], "night": [1, 3, 5, 7]}
    known = build_report(
        counts,
        classes,
        split="val",
        modality="unknown",
        label_sizes=[(24, 32)],
        model=report.model,
        data="many",
        command="",
        subsets=days,
        samples=0,
    )
    assert report == known  # without intervals, for which each pair's counts would be needed
    tracemalloc.start()
    try:
        fifty_times = score(tmp_path / "maps", dataset.replace(50 * list(dataset.pairs)))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 8e6
    assert fifty_times.pairs == 400
    assert fifty_times.means["all"] == report.means["all"]
    parts = {name: part.pairs for name, part in fifty_times.subsets.items()}
    assert parts == {"day": 200, "night": 200}


@pytest.mark.slow
def test_a_pair_costs_its_paths_and_a_few_counts(tmp_path: Path) -> None:
    """From opening to the report with intervals; 9,000 pairs more are then below 20 MB."""
    peaks = []
    encoded = cv2.imencode(".png", np.arange(64, dtype=np.uint8).reshape(8, 8) % 9)[1].tobytes()
    (tmp_path / "maps").mkdir()
    for pairs in (500, 1300):
        names = [f"{index:06d}{'DN'[index % 2]}" for index in range(pairs)]
        for name in names:
            (tmp_path / "maps" / f"{name}.png").write_bytes(encoded)
        (tmp_path / "all.txt").write_text("\n".join(names))
        files = "".join(f"{kind} = 'maps/{{name}}.png'\n" for kind in ("rgb", "thermal", "label"))
        (tmp_path / "dataset.toml").write_text(
            f"name = 'many'\nclasses = {list(MFNET.names)}\n[files]\n{files}"
            f"[splits]\nall = 'all.txt'\n[subsets]\nday = 'D$'\nnight = 'N$'\n"
        )
        tracemalloc.start()
        try:
            report = score(tmp_path / "maps", PairDataset.open(tmp_path, "all"))
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
        assert report.pairs == pairs
        assert report.intervals
    assert (peaks[1] - peaks[0]) / 800 < 2200


def test_real_labels_score_100_in_seconds() -> None:
    root = SHARED / "data/msrs268"
    if not root.is_dir():
        pytest.skip("the real pairs are not beside this checkout")
    report = score(root / "labels", PairDataset.open(root, "val"))
    assert report.means["present"]["miou"] == 100.0
    assert report.means["mfnet-9"]["counted"] == 8  # no guardrail in this split
    assert report.subsets.keys() == {"day", "night"}


# --- What the model has seen before --------------------------------------------------------------


def trained_on(network: SARTM, images: dict[str, str]) -> Predictor:
    facts = ModelFacts(name="seen", selected_on="val", training_images=images)
    seen = Predictor(network, device="cpu", precision="fp32")
    seen.facts = facts
    return seen


def test_pixels_that_were_trained_on_are_named_whatever_they_are_called(
    network: SARTM, tmp_path: Path
) -> None:
    dataset = many(tmp_path, 3)
    known = trained_on(network, {"another name": pixel_hash(dataset[1].rgb, dataset[1].thermal)})
    report, _ = evaluate_with_pictures(known, dataset)
    assert report.contaminated == (dataset.pairs[1].name,)
    assert report.selected_on == "val"
    clean, _ = evaluate_with_pictures(trained_on(network, {"x": "0" * 64}), dataset)
    assert clean.contaminated == ()


def test_msrs_frames_are_mfnet_frames_of_the_same_name(network: SARTM, mfnet: Path) -> None:
    test = PairDataset.open(mfnet, "test")
    names = [pair.name for pair in test.pairs]
    known = trained_on(network, {names[0]: "other pixels", names[1][:-1]: "other pixels"})
    assert evaluate_with_pictures(known, test)[0].contaminated == (names[0],)
    few = Classes(("unlabeled", "person", "car"))
    chosen = trained_on(network.choose(few), {names[0]: "other pixels"})
    assert evaluate_with_pictures(chosen, test.relabel(few))[0].contaminated == (names[0],)


def test_an_equal_name_elsewhere_proves_nothing(network: SARTM, tmp_path: Path) -> None:
    dataset = many(tmp_path, 2)  # named p000D, ...: no numbering of MFNet's
    known = trained_on(network, {dataset.pairs[0].name: "other pixels"})
    assert evaluate_with_pictures(known, dataset)[0].contaminated == ()


@pytest.mark.slow
def test_a_leak_is_inherited_by_what_starts_from_the_model(
    mfnet: Path, network: SARTM, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A test split's hashes go in; a model trained from there on other pairs still has them."""
    test = PairDataset.open(mfnet, "test")
    samples = [test[index] for index in range(len(test))]
    hashes = {f"copy of {one.name}": pixel_hash(one.rgb, one.thermal) for one in samples}
    first = tmp_path / "first"
    save_model(network, first, ModelFacts(name="first", training_images=hashes))
    arguments = ["train", "mini", "--data", mfnet, "--init", first, "--out", tmp_path / "run"]
    arguments += ["--max-steps", "1"]
    for setting in SMALL:
        arguments += ["--set", setting]
    assert main([str(argument) for argument in arguments]) == 0
    arguments = ["evaluate", "--data", mfnet, "--split", "test", "--out", tmp_path / "r"]
    assert main([str(x) for x in (*arguments, "--model", tmp_path / "run/best")]) == 0
    assert "2 of these pairs were trained on" in capsys.readouterr().out
    report = json.loads((tmp_path / "r/report.json").read_text())
    assert report["contaminated"] == [pair.name for pair in test.pairs]
    assert "scored pairs were in the model's" in (tmp_path / "r/report.md").read_text()


def test_published_figures_are_shown_for_the_same_protocol_only(
    mfnet: Path, model: str, tmp_path: Path
) -> None:
    base = ["evaluate", "--data", str(mfnet), "--split", "test", "--model", model]
    assert main([*base, "--compare", "--out", str(tmp_path / "with")]) == 0
    page = (tmp_path / "with/report.md").read_text()
    assert "SpatialSeg" in page  # an MFNet figure under mfnet-9
    assert "other images, so not comparable" in page
    from sartm.evaluation.report.published import load_published

    elsewhere = {row.system for row in load_published().rows if row.protocol != "mfnet-9"}
    here = {row.system for row in load_published().rows if row.protocol == "mfnet-9"}
    assert elsewhere - here
    rows = [line.split("|")[1].strip() for line in page.splitlines() if line.startswith("|")]
    assert not set(rows) & (elsewhere - here)
    assert main([*base, "--out", str(tmp_path / "without")]) == 0
    assert "SpatialSeg" not in (tmp_path / "without/report.md").read_text()


# --- What is said instead of a wrong number ------------------------------------------------------


def test_a_class_table_that_differs_exits_2(
    tmp_path: Path, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ["unlabeled", "car", "bus"]
    text = (
        f"name = 'other'\nclasses = {names}\n[files]\nrgb = 'rgb/{{name}}.png'\n"
        "thermal = 'thermal/{name}.png'\nlabel = 'labels/{name}.png'\n[splits]\nval = 'val.txt'\n"
    )
    data = toml(tmp_path / "other", text)
    run(["evaluate", "--data", data, "--model", model, "--out", tmp_path / "r"], capsys,
        "class 2", "'person'", "'bus'", "--init")  # fmt: skip
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize("command", ["evaluate", "score"])
def test_a_split_without_labels_exits_2(
    tmp_path: Path, model: str, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    text = (
        f"name = 'bare'\nclasses = {list(MFNET.names)}\n[files]\nrgb = 'rgb/{{name}}.png'\n"
        "thermal = 'thermal/{name}.png'\n[splits]\ntest = 'test.txt'\n"
    )
    data = toml(tmp_path / "bare", text)
    source = ["--model", model] if command == "evaluate" else ["--predictions", tmp_path]
    run([command, "--data", data, "--split", "test", *source, "--out", tmp_path / "r"], capsys,
        "2 of 2 pairs", "no label", "00004N")  # fmt: skip


def test_labels_of_another_size_exit_2(
    mfnet: Path, tmp_path: Path, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    save(mfnet / "labels/00005D.png", np.zeros((12, 16), np.uint8))
    run(["evaluate", "--data", mfnet, "--split", "test", "--model", model, "--out", tmp_path / "r"],
        capsys, "00005D", "12x16", "24x32")  # fmt: skip


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_damaged_image_is_named_with_any_number_of_workers(
    mfnet: Path, tmp_path: Path, model: str, capsys: pytest.CaptureFixture[str], workers: str
) -> None:
    file = mfnet / "thermal/00005D.png"
    file.write_bytes(file.read_bytes()[:300])
    run(["evaluate", "--data", mfnet, "--split", "test", "--model", model, "--out", tmp_path / "r",
         "--workers", workers], capsys, str(file))  # fmt: skip


def test_maps_that_are_missing_cut_off_or_wrong_exit_2(
    mfnet: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    maps = tmp_path / "maps"
    base = ["score", "--predictions", maps, "--data", mfnet, "--split", "test"]
    base += ["--out", tmp_path / "s"]
    run(base, capsys, str(maps), "no such folder")
    good = np.zeros((24, 32), np.uint8)
    save(maps / "00004N.png", good)
    run(base, capsys, "1 of 2 label maps", "00005D.png", "--split")
    file = maps / "00005D.png"
    save(file, np.random.default_rng(0).integers(0, 9, (24, 32), np.uint8))
    file.write_bytes(file.read_bytes()[:-20])  # a disk that was full
    run(base, capsys, str(file), "cut off")
    save(file, good[:12])
    run(base, capsys, str(file), "12x32", "24x32")
    save(file, np.full((24, 32), 9, np.uint8))
    run(base, capsys, str(file), "id 9")
    save(file, np.random.default_rng(0).integers(0, 256, (24, 32, 3), np.uint8))
    run(base, capsys, str(file), "colour")
    assert not (tmp_path / "s").exists()
    save(file, good)
    run(base, capsys, status=0)


def test_the_library_says_the_same_as_the_command(network: SARTM, tmp_path: Path) -> None:
    dataset = many(tmp_path, 2)
    assert evaluate(network, dataset, device="cpu").pairs == 2
    with pytest.raises(InputError, match="unknown protocol"):
        evaluate(network, dataset, protocol="miou", device="cpu")


# --- Every layout, the same numbers --------------------------------------------------------------


@pytest.mark.parametrize("layout", [*MFNET_LAYOUTS, "dataset.toml"])
def test_every_layout_is_evaluated_to_the_same_numbers(
    predictor: Predictor, tmp_path: Path, layout: str
) -> None:
    flat("rgb", "ther", "labels")(tmp_path / "known")
    known, _ = evaluate_with_pictures(predictor, PairDataset.open(tmp_path / "known", "test"))
    if layout == "dataset.toml":
        assert main(["data", "convert", str(tmp_path / "known"), "--to", layout, "--out",
                     str(tmp_path / "other")]) == 0  # fmt: skip
    else:
        MFNET_LAYOUTS[layout](tmp_path / "other")
    found, _ = evaluate_with_pictures(predictor, PairDataset.open(tmp_path / "other", "test"))
    assert found.confusion == known.confusion
    assert found.means == known.means
    assert found.subsets == known.subsets


@pytest.mark.parametrize("layout", OTHER_LAYOUTS)
def test_pst900_and_fmb_are_scored_the_same_in_every_layout(tmp_path: Path, layout: str) -> None:
    write, classes, size = OTHER_LAYOUTS[layout]
    write(tmp_path / "data")
    names = OTHER_NAMES["test"]
    counts = np.zeros((len(classes), len(classes)), np.int64)
    for name in names:
        label = draw(name, size, classes)["label"]
        guess = np.roll(label, 3, axis=1) % len(classes)
        save(tmp_path / "maps" / f"{name}.png", guess.astype(np.uint8))
        kept = label != classes.ignore
        np.add.at(counts, (label[kept], guess[kept]), 1)
    report = score(tmp_path / "maps", PairDataset.open(tmp_path / "data", "test"))
    np.testing.assert_array_equal(np.array(report.confusion), counts)
