"""Every circulating layout opens to the same pairs; what is wrong with a folder is said."""

import os
from pathlib import Path

import draw_layouts
import numpy as np
import pytest

from sartm.classes import MFNET, PST900
from sartm.data.layouts import open_layout
from sartm.data.pairs import PairDataset, read_pair
from sartm.errors import InputError
from sartm.io.decode import read_thermal

SHARED = Path(__file__).resolve().parents[3] / "shared"
needs_shared = pytest.mark.skipif(
    not SHARED.is_dir(), reason="no folder shared beside the checkout"
)

TOML = """
name = "own"
classes = ["unlabeled", "car", "person", "bike", "curve", "stop", "rail", "cone", "bump"]
[files]
rgb = "rgb/{name}.png"
thermal = "thermal/{name}.png"
label = "labels/{name}.png"
[splits]
train = "train.txt"
night = "*N"
[subsets]
day = "D$"
[thermal]
unit = "counts"
black_hot = true
"""


def content(root: Path, split: str) -> dict[str, dict[str, np.ndarray]]:
    samples = PairDataset.open(root, split)
    return {s.name: {"rgb": s.rgb, "thermal": s.thermal, "label": s.label} for s in samples}


def assert_drawn(found: dict, size: tuple[int, int], classes) -> None:
    for name, arrays in found.items():
        for key, drawn in draw_layouts.draw(name, size, classes).items():
            np.testing.assert_array_equal(arrays[key], drawn, f"{key} of {name}")


@pytest.mark.parametrize("layout", draw_layouts.MFNET_LAYOUTS)
def test_every_mfnet_layout_gives_the_same_pairs(layout, tmp_path):
    draw_layouts.MFNET_LAYOUTS[layout](tmp_path)
    opened = open_layout(tmp_path)
    assert opened.name == "mfnet"
    assert opened.classes == MFNET
    for split, names in draw_layouts.MFNET_NAMES.items():
        found = content(tmp_path, split)
        assert sorted(found) == sorted(names)
        assert_drawn(found, (24, 32), MFNET)


def test_jpeg_copies_of_mfnet_open_with_their_png_labels(tmp_path):
    draw_layouts.flat("rgb", "ther", "labels", suffix=".jpg")(tmp_path)
    for name, arrays in content(tmp_path, "test").items():
        drawn = draw_layouts.draw(name, (24, 32), MFNET)
        np.testing.assert_array_equal(arrays["label"], drawn["label"])
        assert np.abs(arrays["thermal"].astype(int) - drawn["thermal"]).max() <= 3


def test_flipped_copies_belong_to_the_train_list_and_to_their_time_of_day(tmp_path):
    draw_layouts.mfnet_flipped(tmp_path)
    dataset = PairDataset.open(tmp_path, "train")
    assert len(dataset) == 4
    plain, flipped = dataset[0], dataset[2]
    np.testing.assert_array_equal(plain.label, flipped.label[:, ::-1])
    assert dataset.subset_of(flipped.name) == dataset.subset_of(plain.name) == ["day"]


@pytest.mark.parametrize("layout", draw_layouts.OTHER_LAYOUTS)
def test_pst900_and_fmb_open_with_their_own_classes(layout, tmp_path):
    write, classes, size = draw_layouts.OTHER_LAYOUTS[layout]
    write(tmp_path)
    assert open_layout(tmp_path).classes == classes
    for split, names in draw_layouts.OTHER_NAMES.items():
        found = content(tmp_path, split)
        assert sorted(found) == sorted(names)
        assert_drawn(found, size, classes)


def test_pst900_in_flat_folders_is_known_by_its_size(tmp_path):
    draw_layouts.pst900_flat(tmp_path)
    assert open_layout(tmp_path).classes == PST900
    assert content(tmp_path, "test")["00012"]["label"].shape == (720, 1280)


def test_raw_counts_of_pst900_are_read_and_their_holes_filled(tmp_path):
    draw_layouts.pst900_raw(tmp_path)
    layout = open_layout(tmp_path)
    assert (layout.kind, layout.classes, layout.thermal_unit) == ("pst900-raw", PST900, "counts")
    sample = PairDataset.of(layout, "test")[0]
    seen = read_thermal(layout.splits["test"][0].thermal) > 0
    drawn = draw_layouts.draw(sample.name, (36, 64), PST900)["thermal"]
    assert sample.thermal.dtype == np.uint16
    assert np.array_equal(sample.thermal[seen], 20000 + 10 * drawn[seen].astype(np.uint16))
    assert 0 < seen.mean() < 1
    assert sample.thermal.min() >= 20000


def test_a_dataset_toml_names_the_value_of_holes(tmp_path):
    draw_layouts.pst900_raw(tmp_path)
    text = """name = "cave"\nclasses = ["background", "a", "b", "c", "d"]\n[files]
rgb = "{split}/rgb/{name}.png"\nthermal = "{split}/thermal_raw/{name}.png"
label = "{split}/labels/{name}.png"\n[splits]\ntrain = "train"\n[thermal]
unit = "counts"\n"""
    path = tmp_path / "dataset.toml"
    path.write_text(text)
    assert PairDataset.open(path)[0].thermal.min() == 0
    path.write_text(text + "holes = 0\n")
    assert PairDataset.open(path)[0].thermal.min() >= 20000
    path.write_text(text + "holes = nan\n")
    with pytest.raises(InputError, match=r"dataset\.toml: thermal\.holes is nan.*-9999"):
        open_layout(path)


def test_msrs_as_published_has_day_and_night(tmp_path):
    draw_layouts.msrs(tmp_path)
    dataset = PairDataset.open(tmp_path, "test")
    assert dataset.name == "msrs"
    assert [dataset.subset_of(pair.name) for pair in dataset.pairs] == [["night"], ["day"]]
    assert_drawn(content(tmp_path, "train"), (24, 32), MFNET)


@pytest.mark.parametrize("as_folder", [True, False])
def test_a_dataset_toml_says_everything(as_folder, tmp_path):
    path = draw_layouts.toml(tmp_path / "own", TOML)
    layout = open_layout(path.parent if as_folder else path)
    assert [pair.name for pair in layout.splits["train"]] == ["00001D", "00002N"]
    assert [pair.name for pair in layout.splits["night"]] == ["00002N", "00004N"]
    assert (layout.name, layout.thermal_unit, layout.black_hot) == ("own", "counts", True)
    dataset = PairDataset.open(path, "train")
    drawn = draw_layouts.draw("00001D", (24, 32), MFNET)
    np.testing.assert_array_equal(dataset[0].thermal, 255 - drawn["thermal"])
    assert dataset.subset_of("00001D") == ["day"]


def test_a_split_of_a_dataset_toml_may_be_a_folder_with_subfolders(tmp_path):
    for split, name in (("a", "x"), ("a", "deep/y"), ("b", "x")):
        pair = draw_layouts.draw(split + name, (8, 8), MFNET)
        draw_layouts.save(tmp_path / split / "four" / f"{name}.png", draw_layouts.four(pair))
    (tmp_path / "dataset.toml").write_text(
        'name = "own"\nclasses = ["a", "b"]\n[files]\nfour_channel = "{split}/four/{name}.png"\n'
        '[splits]\ntrain = "a"\nval = "b"\n'
    )
    layout = open_layout(tmp_path)
    assert [pair.name for pair in layout.splits["train"]] == ["deep/y", "x"]
    sample = read_pair(layout.splits["val"][0])
    np.testing.assert_array_equal(sample.thermal, draw_layouts.draw("bx", (8, 8), MFNET)["thermal"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("classes =", "clases ="), "did you mean 'classes'"),
        (("rgb = ", "rbg = "), "did you mean 'rgb'"),
        (("unit = ", "units = "), "did you mean 'unit'"),
        (('"counts"', '"kelvin"'), "display, counts, celsius"),
        (("rgb/{name}.png", "rgb/{nam}.png"), "lacks {name}"),
        (("rgb/{name}.png", "{fold}/{name}.png"), "found {fold}"),
        (("rgb/{name}.png", "rgb_{split}/{name}.png"), "does not exist"),
        (('"D$"', '"(D"'), "subsets.day"),
        (('"train.txt"', '"trian.txt"'), "trian.txt: no such file"),
        (('"*N"', '"*X"'), "split 'night'"),
        (('"*N"', '"nowhere"'), "split 'night' (nowhere) of"),
        (('"bump"]', '"car"]'), "more than once"),
        (("[files]", 'ignore = 3\n[files]'), "ignore is 3"),
        (("name = ", "name == "), "not valid TOML"),
        (('[splits]\ntrain = "train.txt"\nnight = "*N"\n', ""), "lacks splits; write"),
        (("[splits]", "[split]"), "did you mean 'splits'"),
        (("[files]", '[files]\nfour_channel = "{name}.png"'), "four_channel and rgb"),
    ],
)  # fmt: skip
def test_a_wrong_dataset_toml_is_refused_by_the_key_that_is_wrong(change, message, tmp_path):
    path = draw_layouts.toml(tmp_path / "own", TOML.replace(*change))
    with pytest.raises(InputError) as error:
        open_layout(path)
    assert message in str(error.value)


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "a/../../b", "..\\b", "C:\\b"])
def test_a_list_cannot_lead_out_of_the_data_set(name, tmp_path):
    draw_layouts.mfnet_original(tmp_path)
    (tmp_path / "train.txt").write_text(f"00001D\n{name}\n")
    with pytest.raises(InputError, match="leads out of"):
        open_layout(tmp_path)


def test_a_listed_pair_that_is_not_there_is_named_with_its_list(tmp_path):
    draw_layouts.mfnet_original(tmp_path)
    (tmp_path / "images" / "00003D.png").unlink()
    with pytest.raises(InputError, match=r"val\.txt.*00003D"):
        open_layout(tmp_path)


def test_a_label_that_is_no_file_is_not_taken_for_a_pair_without_one(tmp_path):
    path = draw_layouts.toml(tmp_path / "own", TOML)
    for label in (tmp_path / "own" / "labels").iterdir():
        label.unlink()
    os.mkfifo(tmp_path / "own" / "labels" / "00001D.png")
    with pytest.raises(InputError, match=r"labels/00001D\.png is no file"):
        open_layout(path)


@pytest.mark.parametrize("part", ["ir", "Segmentation_labels"])
def test_a_missing_partner_in_split_folders_is_named(part, tmp_path):
    draw_layouts.msrs(tmp_path)
    (tmp_path / "test" / part / "00004N.png").unlink()
    with pytest.raises(InputError, match="00004N"):
        open_layout(tmp_path)


def test_an_empty_list_is_refused_and_blank_lines_and_suffixes_are_not(tmp_path):
    draw_layouts.mfnet_original(tmp_path)
    (tmp_path / "train.txt").write_text("\n00001D.png\r\n\n 00002N \n")
    assert [pair.name for pair in open_layout(tmp_path).splits["train"]] == ["00001D", "00002N"]
    (tmp_path / "val.txt").write_text("\n\n")
    with pytest.raises(InputError, match="'val' is empty"):
        open_layout(tmp_path)


def test_an_unknown_folder_is_refused_with_what_was_found_and_what_is_expected(tmp_path):
    (tmp_path / "pictures").mkdir()
    with pytest.raises(InputError) as error:
        open_layout(tmp_path)
    assert "pictures/" in str(error.value)
    assert "dataset.toml" in str(error.value)
    with pytest.raises(InputError, match="no such folder"):
        open_layout(tmp_path / "missing")


def test_known_folders_with_unknown_content_ask_for_a_class_table(tmp_path):
    draw_layouts.pst900_flat(tmp_path)
    for file in tmp_path.glob("RGB/*.png"):
        draw_layouts.save(file, np.zeros((50, 70, 3), np.uint8))
    with pytest.raises(InputError, match=r"00010.*50x70.*dataset\.toml"):
        open_layout(tmp_path)


@needs_shared
def test_the_real_street_pairs_open_with_their_splits():
    layout = open_layout(SHARED / "data" / "msrs268")
    assert {split: len(pairs) for split, pairs in layout.splits.items()} == {
        "train": 220,
        "val": 48,
    }
    assert layout.classes == MFNET
