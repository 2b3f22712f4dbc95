"""Somebody's own folder becomes a data set in one command, and nothing of theirs is lost."""

import json
import shutil
from itertools import pairwise
from pathlib import Path

import draw_layouts
import numpy as np
import pytest
from draw_layouts import OWN_FOLDERS, own_pair, save

from sartm.app.annotation import open_annotation
from sartm.classes import MFNET, Classes
from sartm.cli.main import main
from sartm.data.finding import search_pairs
from sartm.data.layouts import open_layout
from sartm.data.names import natural_order
from sartm.data.pairs import PairDataset
from sartm.datatools.check import check_dataset
from sartm.datatools.init import init_dataset
from sartm.datatools.splitting import split_blocks
from sartm.errors import InputError

PAIRS = {
    "FLIR": {"train": 8, "val": 2},
    "KAIST": {"train": 8, "val": 4},
    "PST900": {"train": 8, "test": 3},
    "MFNet-like": {"train": 8, "val": 2},
    "suffixes": {"train": 6, "val": 2, "unlabelled": 1},
    "half-size": {"train": 8, "val": 2},
    "one folder": {"train": 8, "val": 2},
    "radiometric": {"train": 5, "val": 1},
}


@pytest.fixture
def yard(tmp_path: Path) -> Path:
    return tmp_path / "yard"


@pytest.mark.parametrize("kind", OWN_FOLDERS)
def test_one_command_makes_a_data_set_of_a_folder_and_it_passes_the_check(
    kind: str, yard: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    OWN_FOLDERS[kind](yard)
    images = {file: file.read_bytes() for file in yard.rglob("*.*")}
    if kind != "PST900":  # which looks like the benchmark until it says what it is
        plain = check_dataset(yard)
        assert plain.usable
        assert {one.split: one.pairs for one in plain.splits} == PAIRS[kind]
        assert "sartm data init" in plain.notes[0]
    assert not (yard / "dataset.toml").exists()
    assert main(["data", "init", str(yard)]) == 0
    said = capsys.readouterr().out
    assert "written: dataset.toml" in said
    assert main(["data", "check", str(yard)]) == 0
    assert f"sartm data check {yard}" in said
    layout = open_layout(yard)
    assert {split: len(pairs) for split, pairs in layout.splits.items()} == PAIRS[kind]
    for split in layout.splits:
        for sample in PairDataset.of(layout, split):
            assert sample.rgb is not None
            assert sample.thermal is not None
            assert sample.thermal.shape == sample.rgb.shape[:2]
    assert images == {file: file.read_bytes() for file in images}


@pytest.mark.parametrize("kind", ["PST900", "MFNet-like", "suffixes", "half-size", "one folder"])
def test_labels_mean_what_their_pixels_say(kind: str, yard: Path) -> None:
    OWN_FOLDERS[kind](yard)
    start = init_dataset(yard)
    layout = open_layout(yard)
    assert layout.classes.names == start.layout.classes.names
    for sample in PairDataset.of(layout, "train"):
        drawn = own_pair(int("".join(sign for sign in sample.name if sign.isdigit())))["label"]
        if kind == "half-size":  # white where the class was 1
            np.testing.assert_array_equal(sample.label, drawn == 1)
        elif kind == "suffixes":  # the colours' own order
            assert sample.label is not None
            colours = np.array(layout.classes.palette)[sample.label]
            palette = np.array([(0, 0, 0), (220, 20, 60), (0, 90, 200)])
            np.testing.assert_array_equal(colours, palette[drawn])
        else:
            np.testing.assert_array_equal(sample.label, drawn)
    if kind == "MFNet-like":
        assert layout.classes == MFNET
        assert set(layout.subsets) == {"day", "night"}
    else:
        assert any("called" in question for question in start.questions)


def test_flirs_two_ways_to_name_partners_otherwise(tmp_path: Path) -> None:
    counted, listed = tmp_path / "counted", tmp_path / "listed"
    for index in range(4):
        pair = own_pair(index)
        save(counted / f"IR_{2 * index + 1:04}.jpg", pair["thermal"])
        save(counted / f"DC_{2 * index + 2:04}.jpg", pair["rgb"])
    save(counted / "IR_0009.jpg", own_pair(9)["thermal"])  # without a visible picture
    partners = {}
    for index in range(4):
        names = [f"video-x-frame-{index:06}-{word * 4}{index}.jpg" for word in ("aB", "Cd")]
        save(listed / "video_rgb_test/data" / names[0], own_pair(index)["rgb"])
        save(listed / "video_thermal_test/data" / names[1], own_pair(index)["thermal"])
        partners[names[0]] = names[1]
    partners["gone.jpg"] = "other.jpg"
    (listed / "rgb_to_thermal_vid_map.json").write_text(json.dumps(partners))
    for folder, split in ((counted, "train"), (listed, "test")):
        start = init_dataset(folder)
        assert sum(map(len, open_layout(folder).splits.values())) == 4
        sample = PairDataset.open(folder, split)[0]
        drawn = own_pair(0)
        assert sample.rgb is not None
        assert sample.thermal is not None
        assert np.abs(sample.thermal.astype(int) - drawn["thermal"]).mean() < 3
        assert np.abs(sample.rgb.astype(int) - drawn["rgb"]).mean() < 30
        assert len(search_pairs(folder, None).pairs) == 4
        assert not any("aB" in question for question in start.questions)
    (listed / "dataset.toml").unlink()
    assert len(search_pairs(listed, None).pairs) == 4
    (listed / "rgb_to_thermal_vid_map.json").write_text("[1]")
    with pytest.raises(InputError, match="rgb_to_thermal_vid_map"):
        search_pairs(listed, None)


def test_folders_whose_names_say_nothing_are_told_what_they_hold(
    yard: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for index in range(5):
        pair = own_pair(index)
        save(yard / "mast" / "a" / f"pic{index:03}_cam1.png", pair["rgb"])
        save(yard / "mast" / "b" / f"pic{index:03}_cam2.png", pair["thermal"])
        save(yard / "x" / f"{index:03}.png", pair["label"])
        save(yard / "rgb" / f"{index}.png", pair["rgb"])  # of something else
    told = ["--rgb", "mast/a", "--thermal", "mast/b", "--label"]
    assert main(["data", "init", str(yard), *told, "../yard/x"]) == 2
    assert "--label ../yard/x: no folder of that name" in capsys.readouterr().err
    assert main(["data", "init", str(yard), *told, "x"]) == 0
    dataset = PairDataset.open(yard, "train")
    assert len(dataset) == 4
    for sample in dataset:
        drawn = own_pair(int("".join(filter(str.isdigit, sample.name))[:3]))
        np.testing.assert_array_equal(sample.rgb, drawn["rgb"])
        np.testing.assert_array_equal(sample.thermal, drawn["thermal"])
        np.testing.assert_array_equal(sample.label, drawn["label"])
    assert main(["data", "align", str(yard / "mast"), "--out", str(yard / "out")]) == 2
    assert "sartm data init" in capsys.readouterr().err


def test_what_raw_thermal_values_are_is_told(tmp_path: Path) -> None:
    for kind, unit in (("radiometric", "celsius"), ("one folder", "counts"), ("FLIR", "display")):
        OWN_FOLDERS[kind](tmp_path / kind)
        assert init_dataset(tmp_path / kind).layout.thermal_unit == unit
    sample = PairDataset.open(tmp_path / "radiometric")[0]
    assert sample.thermal is not None
    assert 0 < float(sample.thermal.mean()) < 60


def test_names_of_classes_are_taken_from_the_command_or_a_file(yard: Path) -> None:
    OWN_FOLDERS["one folder"](yard)
    with pytest.raises(InputError, match="names 2 classes, but the labels hold 3 ids"):
        init_dataset(yard, ("rest", "car"))
    assert not (yard / "dataset.toml").exists()
    (yard / "classes.txt").write_text("rest\ncar\nperson\n")
    init_dataset(yard)
    assert open_layout(yard).classes.names == ("rest", "car", "person")
    assert main(["data", "init", str(yard), "--classes", "a, b, c, d", "--overwrite"]) == 0
    assert open_layout(yard).classes.names == ("a", "b", "c", "d")


def test_pairs_that_were_labelled_since_join_the_splits(yard: Path) -> None:
    OWN_FOLDERS["FLIR"](yard)
    init_dataset(yard, ("rest", "road", "person"))
    opened = open_annotation(yard, None, MFNET)
    for index in (0, 1, 2, 8):
        save(opened.targets[index], own_pair(index)["label"])
    with pytest.raises(InputError, match="leave it out: sartm data init --overwrite"):
        open_layout(yard)
    assert main(["data", "init", str(yard), "--overwrite"]) == 0
    layout = open_layout(yard)
    assert layout.classes.names == ("rest", "road", "person")
    assert {split: len(some) for split, some in layout.splits.items()} == {
        "train": 3, "val": 1, "unlabelled": 6,
    }  # fmt: skip
    assert check_dataset(yard).usable


BLACK, RED, GREEN, BLUE = (0, 0, 0), (255, 0, 0), (0, 255, 0), (0, 0, 255)


def draw_pairs(root: Path, count: int) -> None:
    for index in range(count):
        for kind in ("rgb", "thermal"):
            save(root / kind / f"{index}.png", own_pair(index)[kind])


def draw_colours(file: Path, bands: dict[tuple[int, int, int], int]) -> None:
    """A label of black with bands of so many rows."""
    label = np.zeros((48, 64, 3), np.uint8)
    start = 0
    for colour, count in bands.items():
        label[start : start + count] = colour
        start += count
    save(file, label)


def test_colours_keep_their_ids_when_more_is_labelled(yard: Path) -> None:
    draw_pairs(yard, 6)
    for index in range(3):
        draw_colours(yard / f"masks/{index}.png", {RED: 10, GREEN: 5})
    init_dataset(yard, ("background", "person", "car"))
    before = open_layout(yard).classes
    assert before.palette == (BLACK, RED, GREEN)
    for index in range(3, 6):
        draw_colours(yard / f"masks/{index}.png", {RED: 2, GREEN: 20})
    init_dataset(yard, overwrite=True)
    assert open_layout(yard).classes == before
    init_dataset(yard, ("rest", "man", "bus"), overwrite=True)
    assert open_layout(yard).classes.palette == before.palette
    for index in range(6):  # what was a colour by mistake is none where the names are given anew
        draw_colours(yard / f"masks/{index}.png", {GREEN: 20})
    init_dataset(yard, ("rest", "bus"), overwrite=True)
    assert open_layout(yard).classes.palette == (BLACK, GREEN)


def test_a_class_that_no_label_showed_gets_its_colour_later(yard: Path) -> None:
    draw_pairs(yard, 4)
    draw_colours(yard / "masks/0.png", {RED: 10})
    init_dataset(yard, ("background", "person", "car"))
    draw_colours(yard / "masks/1.png", {RED: 1, BLUE: 20})
    init_dataset(yard, overwrite=True)
    classes = open_layout(yard).classes
    assert classes.names == ("background", "person", "car")
    assert classes.palette == (BLACK, RED, BLUE)


def test_overwrite_keeps_what_images_do_not_say(yard: Path) -> None:
    draw_pairs(yard, 6)
    init_dataset(yard, ("background", "person"))
    toml = yard / "dataset.toml"
    said = 'ignore = 77\nprompts = ["", "somebody"]\npalette = [[0, 0, 0], [9, 9, 9]]\n'
    more = '[subsets]\nlate = "[345]$"\n[thermal]\nblack_hot = true\nholes = 0.0\n'
    toml.write_text(said + toml.read_text().replace("[thermal]\n", more))
    before = open_layout(yard)
    edges = np.where(np.eye(48, 64) > 0, 1, 0).astype(np.uint8)
    edges[0, 9:] = 77
    for index in range(4):
        save(yard / f"labels/{index}.png", edges)
    (yard / "rgb/5.png").unlink()  # which the list names still
    init_dataset(yard, overwrite=True)
    after = open_layout(yard)
    assert (after.classes, after.subsets) == (before.classes, before.subsets)
    assert after.black_hot
    assert after.holes == 0


def test_ids_that_are_new_in_labels_become_classes(yard: Path) -> None:
    draw_pairs(yard, 6)
    for index in range(4):
        save(yard / f"labels/{index}.png", np.eye(48, 64, dtype=np.uint8))
    init_dataset(yard, ("rest", "road"))
    save(yard / "labels/4.png", np.full((48, 64), 3, np.uint8))
    (asked,) = init_dataset(yard, overwrite=True).questions
    assert asked.startswith("what class 2, class 3 are called")
    assert open_layout(yard).classes.names == ("rest", "road", "class 2", "class 3")


def test_a_set_stays_usable_while_its_unlabelled_pairs_are_labelled(
    yard: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    OWN_FOLDERS["suffixes"](yard)
    (yard / "masks/003_mask.png").unlink()
    init_dataset(yard)
    palette = np.array(open_layout(yard).classes.palette, np.uint8)
    bare = open_layout(yard, labels=False).splits["unlabelled"]
    assert [pair.name for pair in bare] == ["000", "003"]
    assert bare[1].label is not None
    save(bare[1].label, palette[own_pair(3)["label"]])
    assert [pair.label is None for pair in open_layout(yard).splits["unlabelled"]] == [True, False]
    assert main(["data", "check", str(yard)]) == 0
    assert "sartm data init" in capsys.readouterr().out
    assert main(["data", "convert", str(yard), "--to", "coco", "--out", str(yard / "x")]) == 0


def test_nothing_that_is_there_is_written_over(
    yard: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    OWN_FOLDERS["one folder"](yard)
    (yard / "pairs.tsv").write_text("mine")
    assert main(["data", "init", str(yard)]) == 2
    assert "pairs.tsv already" in capsys.readouterr().err
    assert sorted(file.suffix for file in yard.iterdir() if file.suffix in (".toml", ".txt")) == []
    (yard / "pairs.tsv").unlink()
    assert main(["data", "init", str(yard)]) == 0
    before = (yard / "dataset.toml").read_text()
    assert main(["data", "init", str(yard), "--classes", "a,b,c"]) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert (yard / "dataset.toml").read_text() == before


@pytest.mark.parametrize("name", ["IMG_0.jpg", "1 1", "a,a", "b\nc"])
def test_names_that_a_list_cannot_hold_are_refused(name: str, yard: Path) -> None:
    for kind in ("rgb", "thermal"):
        for one in (name, "2"):
            save(yard / kind / f"{one}.png", own_pair(0)[kind])
    with pytest.raises(InputError, match=r"1 names that a list cannot hold, such as .*rename them"):
        init_dataset(yard)
    assert sorted(file.name for file in yard.iterdir()) == ["rgb", "thermal"]


def test_lists_that_are_there_are_the_splits(yard: Path) -> None:
    OWN_FOLDERS["half-size"](yard)
    draw_layouts.lists(yard, {"train": ["3", "0"], "val": ["1"]})
    kept = (yard / "train.txt").read_bytes()
    start = init_dataset(yard)
    assert set(start.files) == {"dataset.toml"}
    assert (yard / "train.txt").read_bytes() == kept
    assert [pair.name for pair in open_layout(yard).splits["train"]] == ["3", "0"]


def test_a_benchmark_needs_no_description(yard: Path, capsys: pytest.CaptureFixture[str]) -> None:
    draw_layouts.msrs(yard)
    assert main(["data", "init", str(yard)]) == 0
    assert "msrs as it circulates" in capsys.readouterr().out
    assert not (yard / "dataset.toml").exists()


def test_what_cannot_be_decided_is_said(yard: Path, capsys: pytest.CaptureFixture[str]) -> None:
    OWN_FOLDERS["FLIR"](yard)
    save(yard / "train" / "RGB" / "odd.jpg", own_pair(0)["rgb"])
    assert main(["data", "init", str(yard), "--json", str(yard / "said.json")]) == 0
    said = capsys.readouterr().out
    assert "thermal_16_bit are left out for thermal_8_bit" in said
    assert "1 files without a partner belong, such as odd.jpg" in said
    assert "which classes there are" in said
    assert len(json.loads((yard / "said.json").read_text())["undecided"]) == 3


@pytest.mark.parametrize("name", ["{}", "{:05}D"])  # of nobody, and as MFNet's
def test_masks_of_0_and_255_among_labels_of_ids_are_a_question(name: str, yard: Path) -> None:
    def draw(index: int, label: np.ndarray) -> list[str]:
        pair = own_pair(index)
        for kind, image in (("rgb", pair["rgb"]), ("thermal", pair["thermal"]), ("labels", label)):
            save(yard / kind / f"{name.format(index)}.png", image)
        return [text for text in init_dataset(yard, overwrite=True).questions if "255" in text]

    label = own_pair(0)["label"]
    edges = label.copy()
    edges[:3] = 255
    assert not draw(0, edges)  # among ids, it is what nobody has labelled
    assert not draw(1, label)
    (asked,) = draw(2, np.where(label == 1, 255, 0).astype(np.uint8))
    assert asked.startswith(f"whether 255 is a class: 1 labels, such as that of {name.format(2)}")
    assert len(open_layout(yard).classes) >= 3  # the ids stay what they were


def test_thermal_of_another_shape_is_not_resized(yard: Path) -> None:
    for index in range(3):
        save(yard / "rgb" / f"{index}.png", own_pair(index)["rgb"])
        save(yard / "thermal" / f"{index}.png", own_pair(index)["thermal"][:30])
    start = init_dataset(yard)
    assert not start.layout.resize_thermal
    assert any("sartm data align" in question for question in start.questions)


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ([], "among 0 images"),
        (["a.png", "b.png"], "a.png, b.png"),
        (["rgb/a.png", "thermal/b.png"], "rgb and _ir|_rgb and"),
    ],
)
def test_a_folder_without_pairs_is_refused_with_what_was_looked_for(
    files: list[str], words: str, yard: Path
) -> None:
    yard.mkdir()
    for name in files:
        save(yard / name, own_pair(0)["rgb"])
    for read in (init_dataset, check_dataset):
        with pytest.raises(InputError, match=words):
            read(yard)
    assert sorted(file.name for file in yard.iterdir()) == sorted(
        {Path(name).parts[0] for name in files}
    )


def test_frames_are_held_back_in_blocks_and_every_class_is_on_both_sides() -> None:
    names = [f"frame{index}" for index in range(1, 201)]
    splits = split_blocks(names, {})
    assert {split: len(some) for split, some in splits.items()} == {"train": 160, "val": 40}
    order = sorted(names, key=natural_order)
    inside = [name in splits["val"] for name in order]
    assert sum(first != second for first, second in pairwise(inside)) <= 8
    rare = {name: frozenset({int(index in range(55, 70)), 2}) for index, name in enumerate(order)}
    for split in split_blocks(names, rare).values():
        assert any(1 in rare[name] for name in split)
    sequences = [f"walk{index // 10:02}/{index % 10}" for index in range(100)]
    whole = split_blocks(sequences, {})
    assert not {name[:6] for name in whole["train"]} & {name[:6] for name in whole["val"]}
    assert split_blocks(["a"], {}) == {"train": ["a"]}


def test_predict_pairs_what_init_pairs(tmp_path: Path) -> None:
    OWN_FOLDERS["suffixes"](tmp_path)
    found = search_pairs(tmp_path / "photos", tmp_path / "heat")
    assert len(found.pairs) == 9
    assert found.unpaired == []
    assert found.pairs[0].thermal == tmp_path / "heat/000_th.png"
    for source in ((tmp_path, None), (tmp_path, tmp_path)):
        mixed = search_pairs(*source)
        assert [pair.name for pair in mixed.pairs] == [f"{index:03}" for index in range(9)]
    shutil.rmtree(tmp_path / "heat")
    assert search_pairs(tmp_path / "photos", None).pairs[0].thermal is None


def test_the_expression_that_would_have_worked_is_named(tmp_path: Path) -> None:
    for index in range(3):
        save(tmp_path / "a" / f"left_{index:02}.png", own_pair(index)["rgb"])
        save(tmp_path / "b" / f"shot{index:02}-x.png", own_pair(index)["thermal"])
    with pytest.raises(InputError, match=r"--pair '.*' would pair 3") as failed:
        search_pairs(tmp_path / "a", tmp_path / "b")
    expression = str(failed.value).split("--pair '")[1].split("'")[0].replace("\\\\", "\\")
    assert len(search_pairs(tmp_path / "a", tmp_path / "b", expression).pairs) == 3


def test_annotation_says_what_was_paired_and_where_labels_go(tmp_path: Path) -> None:
    classes = Classes(("rest", "thing"))
    OWN_FOLDERS["KAIST"](tmp_path / "kaist")
    opened = open_annotation(tmp_path / "kaist", None, classes)
    assert "12 pairs, such as I00000.jpg + I00000.jpg" in opened.said
    assert str(tmp_path / "kaist/labels/set00/V000") in opened.said
    assert "rest, thing" in opened.said
    OWN_FOLDERS["half-size"](tmp_path / "half")
    init_dataset(tmp_path / "half", ("ground", "hole"))
    described = open_annotation(tmp_path / "half", None, classes)
    assert described.resize_thermal
    assert "ground, hole" in described.said
    assert described.targets[0] == tmp_path / "half/labels/0.png"  # gt holds black and white
