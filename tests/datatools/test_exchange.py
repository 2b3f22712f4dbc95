"""Labels come from where people make them, and go back, without a pixel lost where that can be."""

import base64
import json
from collections.abc import Callable
from itertools import chain, pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import TINY, build
from draw_layouts import OWN_FOLDERS, own_pair, save

from sartm.classes import Classes
from sartm.cli.main import main
from sartm.data.layouts import open_layout
from sartm.data.pairs import PairDataset
from sartm.datatools.check import check_dataset
from sartm.datatools.importing import import_annotations
from sartm.datatools.init import init_dataset
from sartm.datatools.shapes import decode_coco, fill_polygons, trace
from sartm.errors import InputError
from sartm.io.labels import read_label
from sartm.io.run_lengths import encode_mask
from sartm.model.checkpoint import save as save_model
from sartm.model.facts import ModelFacts
from sartm.objects.parts import find_parts

SIZE = (48, 64)
CLASSES = Classes(("background", "road", "person"))


def blobs(seed: int) -> np.ndarray:
    """Ids 0-2 of ragged areas with holes, some a pixel wide."""
    random = np.random.default_rng(seed)
    noise = cv2.GaussianBlur(random.normal(size=SIZE), (0, 0), 2.5)
    label = np.digitize(noise, np.quantile(noise, [0.6, 0.8])).astype(np.uint8)
    label[5, 3:20] = 2
    label[30, 30] = 1
    return label


@pytest.fixture
def yard(tmp_path: Path) -> Path:
    """Six pairs in two folders, without labels."""
    for index in range(6):
        pair = own_pair(index)
        save(tmp_path / "yard" / "rgb" / f"p{index}.png", pair["rgb"])
        save(tmp_path / "yard" / "thermal" / f"p{index}.png", pair["thermal"])
    return tmp_path / "yard"


def labels_of(root: Path) -> dict[str, np.ndarray]:
    layout = open_layout(root)
    return {
        sample.name: sample.label
        for split in layout.splits
        for sample in PairDataset.of(layout, split)
        if sample.label is not None
    }


def convert(source: Path, *more: object) -> int:
    return main(["data", "convert", str(source), *map(str, more)])


# --- shapes --------------------------------------------------------------------------------------


def test_run_lengths_are_those_of_coco() -> None:
    oracle = pytest.importorskip("pycocotools.mask")
    for seed in range(20):
        mask = blobs(seed) == seed % 3
        for one in (mask, mask & False, mask | True, ~mask):
            theirs = oracle.encode(np.asfortranarray(one.astype(np.uint8)))
            assert encode_mask(one) == theirs["counts"].decode()
            ours = {"size": list(SIZE), "counts": encode_mask(one)}
            np.testing.assert_array_equal(decode_coco(ours, SIZE), one)
        plain = {"size": list(SIZE), "counts": [10, 5, 48 * 64 - 15]}
        wanted = oracle.decode(oracle.frPyObjects(plain, *SIZE))
        np.testing.assert_array_equal(decode_coco(plain, SIZE), wanted)


def test_polygons_come_back_exactly_with_their_holes() -> None:
    for seed in range(20):
        mask = blobs(seed) == 1
        drawn = np.zeros(SIZE, bool)
        for outline in trace(mask):
            drawn |= fill_polygons([outline], SIZE)
        np.testing.assert_array_equal(drawn, mask)


def test_polygons_have_their_area_and_neighbours_share_no_pixel() -> None:
    square = np.array([[10, 10], [20, 10], [20, 20], [10, 20.0]])
    filled, beside = (fill_polygons([square + np.array([right, 0])], SIZE) for right in (0, 10))
    assert filled[10:20, 10:20].all()
    assert filled.sum() == beside.sum() == 100
    assert not (filled & beside).any()
    (outline,) = trace(filled)
    assert cv2.contourArea(outline.astype(np.float32)) == 100
    round_ = np.stack([f(np.linspace(0, 2 * np.pi, 99)) for f in (np.cos, np.sin)], axis=1)
    assert fill_polygons([round_ * 15 + 24], SIZE).sum() == pytest.approx(np.pi * 15**2, rel=0.02)


def test_corners_far_outside_and_more_edges_than_are_filled_at_a_time() -> None:
    across = np.array([[-1e300, -1e300], [1e300, -1e300], [1e300, 24], [-1e300, 24]])
    filled = fill_polygons([across], SIZE)
    assert filled[:24].all()
    assert not filled[24:].any()
    teeth = np.array([(index / 50, 48.0 * (index % 2)) for index in range(3000)])
    one_by_one = np.zeros(SIZE, bool)
    for start in range(0, 2998, 2):  # even and odd: a triangle for every tooth
        one_by_one ^= fill_polygons([teeth[[0, start + 1, start + 2]]], SIZE)
        one_by_one ^= fill_polygons([teeth[[0, start, start + 1]]], SIZE)
    one_by_one ^= fill_polygons([teeth[[0, 2998, 2999]]], SIZE)
    np.testing.assert_array_equal(fill_polygons([teeth], SIZE), one_by_one)


# --- out and back --------------------------------------------------------------------------------


@pytest.fixture
def labelled(yard: Path) -> Path:
    for index in range(6):
        save(yard / "labels" / f"p{index}.png", blobs(index))
    init_dataset(yard, CLASSES.names)
    return yard


def test_coco_and_back_is_exact(labelled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert convert(labelled, "--to", "coco", "--out", tmp_path / "coco") == 0
    assert "6 pairs" in capsys.readouterr().out
    content = json.loads((tmp_path / "coco/annotations/train.json").read_text())
    assert [one["name"] for one in content["categories"]] == list(CLASSES.names)
    assert {one["file_name"] for one in content["images"]} <= {f"p{i}.png" for i in range(6)}
    back = ("--from", "coco", "--annotations", tmp_path / "coco/annotations")
    assert convert(labelled, *back, "--out", tmp_path / "back") == 0
    assert open_layout(tmp_path / "back").classes.names == CLASSES.names
    before, after = labels_of(labelled), labels_of(tmp_path / "back")
    assert before.keys() == after.keys()
    for name, label in before.items():
        np.testing.assert_array_equal(after[name], label)
    assert check_dataset(tmp_path / "back").usable
    # The export itself is a folder that can be read: RGB in images/, thermal beside.
    assert len(open_layout_of(tmp_path / "coco")) == 6


def open_layout_of(root: Path) -> list[str]:
    init_dataset(root)
    return [pair.name for pairs in open_layout(root).splits.values() for pair in pairs]


def test_yolo_and_back_is_exact(
    labelled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert convert(labelled, "--to", "yolo", "--out", tmp_path / "yolo") == 0
    assert "lost" not in capsys.readouterr().out
    assert "  0: road\n  1: person" in (tmp_path / "yolo/data.yaml").read_text()
    back = ("--from", "yolo", "--annotations", tmp_path / "yolo")
    assert convert(labelled, *back, "--out", tmp_path / "back") == 0
    after = labels_of(tmp_path / "back")
    for name, label in labels_of(labelled).items():
        np.testing.assert_array_equal(after[name], label)


def test_any_name_of_a_class_comes_back_from_yolo(labelled: Path, tmp_path: Path) -> None:
    names = ["background", "Straße, nass #2", 'it\'s "1" # no: \u2028\U0001f6b2']
    toml = labelled / "dataset.toml"
    text = toml.read_text().replace(
        '"background", "road", "person"', json.dumps(names, ensure_ascii=False)[1:-1]
    )
    toml.write_text(text)
    assert convert(labelled, "--to", "yolo", "--out", tmp_path / "yolo") == 0
    import_annotations(labelled, "yolo", tmp_path / "yolo", tmp_path / "back")
    assert open_layout(tmp_path / "back").classes.names == tuple(names)


@pytest.mark.parametrize("to", ["coco", "yolo"])
def test_a_pair_of_two_splits_comes_back_once(
    to: str, labelled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    every = "".join((labelled / f"{split}.txt").read_text() for split in ("train", "val"))
    (labelled / "trainval.txt").write_text(every)
    toml = labelled / "dataset.toml"
    more = 'trainval = "trainval.txt"\n[thermal]'
    toml.write_text(toml.read_text().replace("[thermal]", more))
    assert convert(labelled, "--to", to, "--out", tmp_path / "made") == 0
    assert "lost: that 6 pairs are of split trainval too" in capsys.readouterr().out
    place = tmp_path / "made" / ("annotations" if to == "coco" else "")
    import_annotations(labelled, to, place, tmp_path / "back")  # type: ignore[arg-type]
    after = labels_of(tmp_path / "back")
    for name, label in labels_of(labelled).items():
        np.testing.assert_array_equal(after[name], label)


def test_16_bits_of_rgb_that_become_8_are_said(
    labelled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    deep = np.full((*SIZE, 3), 1234, np.uint16)
    cv2.imwrite(str(labelled / "rgb/p0.png"), deep)
    assert convert(labelled, "--to", "coco", "--out", tmp_path / "same") == 0
    assert "lost" not in capsys.readouterr().out  # files are copied
    save(labelled / "rgb/p1.jpg", own_pair(1)["rgb"])
    (labelled / "rgb/p1.png").unlink()
    init_dataset(labelled, overwrite=True)
    assert convert(labelled, "--to", "coco", "--out", tmp_path / "coco") == 0
    assert "lost: 16 bits of 1 RGB images, now 8" in capsys.readouterr().out


def test_small_parts_may_be_left_out_and_what_is_lost_is_said(
    labelled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = ("--to", "coco", "--out", tmp_path / "coco", "--min-area", 30)
    assert convert(labelled, *out) == 0
    assert "of parts below --min-area 30" in capsys.readouterr().out
    for file in (tmp_path / "coco/annotations").iterdir():
        assert all(one["area"] >= 30 for one in json.loads(file.read_text())["annotations"])


@pytest.mark.parametrize("kind", ["coco", "yolo"])
def test_predict_writes_what_it_labelled_as_objects(kind: str, yard: Path, tmp_path: Path) -> None:
    save_model(build(TINY), tmp_path / "tiny", ModelFacts(name="tiny"))
    out = tmp_path / "out"
    words = ["predict", str(yard), "--out", str(out), "--model", str(tmp_path / "tiny")]
    words += ["--precision", "fp32", "--device", "cpu", "--format", kind, "--min-area", "4"]
    assert main(words) == 0
    if kind == "yolo":
        names = sorted(file.stem for file in (out / "yolo/labels").iterdir())
        assert names == [f"p{index}" for index in range(6)]
        assert (out / "yolo/data.yaml").is_file()
        return
    content = json.loads((out / "annotations.json").read_text())
    assert len(content["images"]) == 6
    label = read_label(out / "labels/p0.png")
    drawn = np.zeros(SIZE, np.uint8)
    for one in content["annotations"]:
        if one["image_id"] == 1:
            drawn[decode_coco(one["segmentation"], SIZE)] = one["category_id"]
    large = np.zeros(SIZE, np.uint8)
    parts = find_parts(label, range(1, len(content["categories"])), 4)
    large[parts.where > 0] = parts.ids[parts.where[parts.where > 0] - 1]
    np.testing.assert_array_equal(drawn, large)
    # What another model labelled stays, but its ids are not this model's classes.
    save_model(build(TINY, seed=3), tmp_path / "other", ModelFacts(name="other"))
    words = ["predict", *map(str, sorted(yard.rglob("p0*"))), *words[2:], "--overwrite"]
    assert main([word.replace("/tiny", "/other") for word in words]) == 0
    assert len(json.loads((out / "annotations.json").read_text())["images"]) == 1
    assert len(list((out / "labels").iterdir())) == 6


# --- what tools export ---------------------------------------------------------------------------

SQUARE = [[10.0, 8.0], [30.0, 8.0], [30.0, 24.0], [10.0, 24.0]]
FLAT = [number for corner in SQUARE for number in corner]
INSIDE = np.zeros(SIZE, bool)
INSIDE[8:24, 10:30] = True


def coco(root: Path) -> Path:
    mask = np.zeros(SIZE, bool)
    mask[40:44, 50:60] = True
    code = {"size": list(SIZE), "counts": encode_mask(mask)}
    content = {
        "images": [
            {"id": 7, "file_name": "rgb/p1.png", "height": 48, "width": 64},
            {"id": 8, "file_name": "p2.png", "height": 48, "width": 64},
        ],
        "categories": [{"id": 3, "name": "person"}, {"id": 1, "name": "road"}],
        "annotations": [
            {"image_id": 7, "category_id": 1, "segmentation": [FLAT], "iscrowd": 0},
            {"image_id": 7, "category_id": 3, "segmentation": code, "iscrowd": 1},
            {"image_id": 7, "category_id": 3, "bbox": [1, 2, 3, 4]},
        ],
    }  # fmt: skip
    (root / "all.json").write_text(json.dumps(content))
    return root / "all.json"


def yolo(root: Path) -> Path:
    (root / "labels").mkdir()
    (root / "data.yaml").write_text("nc: 2\nnames: ['road', person]\ntrain: x\n")
    shares = " ".join(f"{x / 64:.6f} {y / 48:.6f}" for x, y in SQUARE)
    box = ((50, 40), (60, 40), (60, 44), (50, 44))
    corner = " ".join(f"{x / 64:.6f} {y / 48:.6f}" for x, y in box)
    (root / "labels" / "p1.txt").write_text(f"0 {shares}\n1 {corner}\n1 0.5 0.5 0.1 0.1\n")
    (root / "labels" / "p2.txt").write_text("")
    return root


def labelme(root: Path) -> Path:
    mask = cv2.imencode(".png", np.full((4, 10), 255, np.uint8))[1].tobytes()
    shapes = [
        {"label": "road", "points": SQUARE, "shape_type": "polygon"},
        {"label": "person", "points": [[50, 40], [60, 44]], "shape_type": "mask",
         "mask": base64.b64encode(mask).decode()},
        {"label": "person", "points": [[1, 1]], "shape_type": "point"},
    ]  # fmt: skip
    for name, some in (("p1", shapes), ("p2", [])):
        content = {"imagePath": f"..\\rgb\\{name}.png", "imageHeight": 48, "imageWidth": 64,
                   "shapes": some}  # fmt: skip
        (root / f"{name}.json").write_text(json.dumps(content))
    return root


def cvat(root: Path) -> Path:
    corners = ";".join(f"{x},{y}" for x, y in SQUARE)
    (root / "annotations.xml").write_text(
        '<?xml version="1.0" encoding="utf-8"?><annotations><version>1.1</version><meta><task>'
        "<labels><label><name>road</name></label><label><name>person</name></label></labels></task>"
        '</meta><image id="0" name="p1.png" width="64" height="48">'
        '<mask label="person" rle="0, 40" left="50" top="40" width="10" height="4" z_order="1"/>'
        f'<polygon label="road" points="{corners}" z_order="0"><attribute name="a">1</attribute>'
        '</polygon><points label="person" points="1,1" z_order="0"/></image>'
        '<image id="1" name="p2.png" width="64" height="48"></image></annotations>'
    )
    return root / "annotations.xml"


def brush(mask: np.ndarray) -> list[int]:
    """As Label Studio packs RGBA: runs where values repeat, else single values."""
    values = np.repeat(mask.ravel().astype(np.uint8) * 255, 4)
    bits = f"{len(values):032b}{7:05b}" + "".join(f"{size - 1:04b}" for size in (3, 4, 8, 16))
    edges = [0, *(np.flatnonzero(np.diff(values)) + 1).tolist(), len(values)]
    for start, end in pairwise(edges):
        for first in range(start, end, 60000):
            count = min(end - first, 60000)
            if count == 40:  # literal values, as it writes where nothing repeats
                bits += f"0{2:02b}{count - 1:08b}" + f"{values[first]:08b}" * count
            else:
                bits += f"1{3:02b}{count - 1:016b}{values[first]:08b}"
    bits += "0" * (-len(bits) % 8)
    return [int(bits[place : place + 8], 2) for place in range(0, len(bits), 8)]


def label_studio(root: Path) -> Path:
    mask = np.zeros(SIZE, bool)
    mask[40:44, 50:60] = True
    shares = [[100 * x / 64, 100 * y / 48] for x, y in SQUARE]
    size = {"original_width": 64, "original_height": 48}
    results = [
        {"type": "polygonlabels", **size, "value": {"points": shares, "polygonlabels": ["road"]}},
        {"type": "brushlabels", **size,
         "value": {"format": "rle", "rle": brush(mask), "brushlabels": ["person"]}},
        {"type": "keypointlabels", **size, "value": {"x": 1, "y": 1, "keypointlabels": ["person"]}},
    ]  # fmt: skip
    tasks = [
        {"data": {"image": "/data/upload/1/0a1b2c3d-p1.png"},
         "annotations": [{"was_cancelled": True, "result": []}, {"result": results}]},
        {"data": {"image": "/data/upload/1/0a1b2c3d-p2.png"}, "annotations": [{"result": []}]},
    ]  # fmt: skip
    (root / "export.json").write_text(json.dumps(tasks))
    return root / "export.json"


TOOLS: dict[str, Callable[[Path], Path]] = {
    "coco": coco,
    "yolo": yolo,
    "labelme": labelme,
    "cvat": cvat,
    "label-studio": label_studio,
}


@pytest.mark.parametrize("tool", TOOLS)
def test_what_a_tool_exports_becomes_labels(
    tool: str, yard: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "made").mkdir()
    place = TOOLS[tool](tmp_path / "made")
    out = tmp_path / "out"
    assert convert(yard, "--from", tool, "--annotations", place, "--out", out) == 0
    said = capsys.readouterr().out
    assert "pairs without annotation: 4: p0, p3, p4, p5" in said
    assert "left out, no areas: 1" in said
    layout = open_layout(out)
    assert layout.classes.names == CLASSES.names
    assert len(layout.splits["unlabelled"]) == 4
    labels = labels_of(out)
    assert set(labels) == {"p1", "p2"}
    np.testing.assert_array_equal(labels["p1"] == 1, INSIDE)
    assert (labels["p1"][41:43, 51:59] == 2).all()
    assert not labels["p2"].any()  # seen, and nothing was there
    kinds = {finding.kind for finding in check_dataset(out).findings}
    assert kinds == {"unlabelled", "labels"}  # one of the two labelled pairs is blank


@pytest.mark.parametrize(
    "names",
    [
        "[person, 'traffic light, red', \"no\",\n  yes]",
        "\n  # of our own\n  - person\n  - 'traffic light, red'  # both\n\n  - no\n  - yes",
        "{1: 'traffic light, red', 0: person, 2: no, 3: yes}",
        "\n  0: person\n  1: traffic light, red\n  2: no\n  3: 'yes'",
    ],
)
def test_names_of_yolo_are_read_as_yaml_has_them(names: str, yard: Path, tmp_path: Path) -> None:
    yolo(tmp_path)
    (tmp_path / "data.yaml").write_text(f"nc: 4\nnames: {names}\ntrain: x\n")
    result = import_annotations(yard, "yolo", tmp_path, tmp_path / "out")
    assert result.classes == ("background", "person", "traffic light, red", "no", "yes")


@pytest.mark.parametrize(
    "names", ["{0: person, 2: car}", "person", "[person", "[[person], car]", "[" * 5000, "{a: b}"]
)
def test_names_of_yolo_that_are_none_are_refused(names: str, yard: Path, tmp_path: Path) -> None:
    yolo(tmp_path)
    (tmp_path / "data.yaml").write_text(f"names: {names}\n")
    with pytest.raises(InputError, match=r"data.yaml is no YOLO file"):
        import_annotations(yard, "yolo", tmp_path, tmp_path / "out")


@pytest.mark.parametrize(
    "shape", ['box xtl="20" ytl="22" xbr="50" ybr="26"', 'ellipse cx="35" cy="24" rx="15" ry="2"']
)
def test_shapes_of_cvat_are_turned_about_their_middle(
    shape: str, yard: Path, tmp_path: Path
) -> None:
    text = cvat(tmp_path).read_text()
    start, end = text.index("<mask"), text.index("<polygon")
    turned = f'<{shape} label="person" z_order="1" rotation="90.0"/>'
    (tmp_path / "annotations.xml").write_text(text[:start] + turned + text[end:])
    import_annotations(yard, "cvat", tmp_path / "annotations.xml", tmp_path / "out")
    rows, columns = np.nonzero(labels_of(tmp_path / "out")["p1"] == 2)
    assert (rows.min(), rows.max()) == pytest.approx((9, 38), abs=1)
    assert (columns.min(), columns.max()) == (33, 36)


def test_tasks_of_label_studio_that_nobody_annotated_are_not_blank(
    yard: Path, tmp_path: Path
) -> None:
    file = label_studio(tmp_path)
    tasks = json.loads(file.read_text())
    tasks[0]["data"] = {"note": "v1.2 at 5 p.m.", "view": "/data/local-files/?d=own/p%31.png"}
    skipped = {"data": {"image": "p3.png"}, "annotations": [{"was_cancelled": True, "result": []}]}
    tasks += [skipped, {"data": {"image": "p4.png"}, "annotations": []}]
    file.write_text(json.dumps(tasks))
    result = import_annotations(yard, "label-studio", file, tmp_path / "out")
    assert result.without == ("p0", "p3", "p4", "p5")
    assert result.unmatched == ()
    tasks[0]["data"] = {"id": "5"}
    file.write_text(json.dumps(tasks))
    with pytest.raises(InputError, match="a task without an image"):
        import_annotations(yard, "label-studio", file, tmp_path / "none")


def test_images_of_boxes_alone_are_not_annotated(yard: Path, tmp_path: Path) -> None:
    yolo(tmp_path)
    for name in ("p2", "p3"):
        (tmp_path / f"labels/{name}.txt").write_text("1 0.5 0.5 0.1 0.1\n")
    result = import_annotations(yard, "yolo", tmp_path, tmp_path / "out")
    assert result.without == ("p0", "p2", "p3", "p4", "p5")
    assert result.left_out == {"boxes": 3}
    content = json.loads(coco(tmp_path).read_text())
    for one in content["annotations"]:
        one["segmentation"] = []
    (tmp_path / "all.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"boxes only, such as those of rgb/p1"):
        import_annotations(yard, "coco", tmp_path / "all.json", tmp_path / "none")


@pytest.mark.parametrize(
    ("folder", "image"),
    [("rgb/{}", "000.png"), ("json/{}", "../../rgb/{}/000.png"), ("json", "../rgb/{}/000.png")],
)
def test_labelme_finds_images_of_several_sequences_from_its_files(
    tmp_path: Path, folder: str, image: str
) -> None:
    for number, sequence in enumerate(("seq1", "seq2")):
        for kind in ("rgb", "thermal"):
            save(tmp_path / "yard" / kind / sequence / "000.png", own_pair(number)[kind])
        shape = {"label": sequence, "points": SQUARE, "shape_type": "polygon"}
        path = image.format(sequence)
        content = {"imagePath": path, "imageHeight": 48, "imageWidth": 64, "shapes": [shape]}
        file = tmp_path / "yard" / folder.format(sequence) / f"{sequence}.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(content))
    import_annotations(tmp_path / "yard", "labelme", tmp_path / "yard", tmp_path / "out")
    labels = labels_of(tmp_path / "out")
    assert {name: int(label.max()) for name, label in labels.items()} == {
        "seq1/000": 1, "seq2/000": 2,
    }  # fmt: skip


def test_polygons_that_are_none_are_left_out_and_counted(yard: Path, tmp_path: Path) -> None:
    content = json.loads(coco(tmp_path).read_text())
    content["annotations"][0]["segmentation"] += [[], [1, 2, 3, 4]]
    content["annotations"].append({"image_id": 8, "category_id": 1, "segmentation": [[]]})
    (tmp_path / "all.json").write_text(json.dumps(content))
    result = import_annotations(yard, "coco", tmp_path / "all.json", tmp_path / "out")
    assert result.left_out == {"boxes": 1, "polygons of fewer than three corners": 3}
    np.testing.assert_array_equal(labels_of(tmp_path / "out")["p1"] == 1, INSIDE)
    assert "p2" in result.without


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('"category_id": 1', '"category_id": 99', "category_id 99 is not in categories"),
        ('"image_id": 7', '"image_id": 9', "image_id 9 is not in images"),
        ("[[10.0, 8.0", '[["x", 8.0', "could not convert"),
        ("[[10.0, 8.0", "[[8.0", "reshape"),
    ],
)
def test_the_annotation_that_is_wrong_is_named(
    old: str, new: str, said: str, yard: Path, tmp_path: Path
) -> None:
    text = coco(tmp_path).read_text().replace('{"image_id"', '{"id": 12, "image_id"', 1)
    (tmp_path / "all.json").write_text(text.replace(old, new, 1))
    with pytest.raises(InputError, match=f"annotation 12: .*{said}"):
        import_annotations(yard, "coco", tmp_path / "all.json", tmp_path / "out")


def test_names_of_files_are_taken_as_they_are(yard: Path, tmp_path: Path) -> None:
    for kind in ("rgb", "thermal"):
        (yard / kind / "p1.png").rename(yard / kind / "p%31.png")
    file = coco(tmp_path)
    file.write_text(file.read_text().replace("p1", "p%31"))
    import_annotations(yard, "coco", file, tmp_path / "out")
    assert set(labels_of(tmp_path / "out")) == {"p%31", "p2"}


def test_annotations_behind_a_link_are_found_and_hidden_ones_are_not(
    yard: Path, tmp_path: Path
) -> None:
    for name in ("made", "given", "given/.old"):
        (tmp_path / name).mkdir()
    labelme(tmp_path / "made")
    (tmp_path / "given" / "linked").symlink_to(tmp_path / "made")
    (tmp_path / "given" / ".old" / "p3.json").write_text("no JSON")
    import_annotations(yard, "labelme", tmp_path / "given", tmp_path / "out")
    assert set(labels_of(tmp_path / "out")) == {"p1", "p2"}


def test_of_areas_that_overlap_the_upper_one_counts(yard: Path, tmp_path: Path) -> None:
    path = cvat(yard)
    text = path.read_text().replace('left="50" top="40"', 'left="12" top="10"')
    for order, id_ in (("1", 2), ("-1", 1)):
        path.write_text(text.replace('z_order="1"', f'z_order="{order}"'))
        result = import_annotations(yard, "cvat", path, tmp_path / f"out{id_}")
        assert result.overlapping == 40
        assert (labels_of(tmp_path / f"out{id_}")["p1"][10:14, 12:22] == id_).all()


def test_annotations_of_half_size_thermal_are_stretched(tmp_path: Path) -> None:
    OWN_FOLDERS["half-size"](tmp_path / "half")
    content = {
        "images": [{"id": 1, "file_name": "infrared/3.png", "height": 24, "width": 32}],
        "categories": [{"id": 1, "name": "road"}],
        "annotations": [{"image_id": 1, "category_id": 1,
                         "segmentation": [[x / 2 for x in FLAT]]}],
    }  # fmt: skip
    (tmp_path / "a.json").write_text(json.dumps(content))
    import_annotations(tmp_path / "half", "coco", tmp_path / "a.json", tmp_path / "out")
    np.testing.assert_array_equal(labels_of(tmp_path / "out")["3"] == 1, INSIDE)


@pytest.fixture
def anew(tmp_path: Path) -> Path:
    """A data set whose pictures are called 0 and 1 in both of its splits, without labels."""
    root = tmp_path / "anew"
    for index in range(4):
        pair, split = own_pair(index), "train" if index < 2 else "val"
        for kind in ("rgb", "thermal"):
            save(root / split / kind / f"{index % 2}.png", pair[kind])
    (root / "dataset.toml").write_text(
        'name = "anew"\nclasses = ["background", "road"]\n[files]\n'
        + "".join(f'{kind} = "{{split}}/{kind}/{{name}}.png"\n' for kind in
                  ("rgb", "thermal", "label"))
        + '[splits]\ntrain = "train"\nval = "val"\n'
    )  # fmt: skip
    return root


def moved_square(index: int) -> list[list[float]]:
    """The square, elsewhere in the picture of each pair."""
    return [[x + 8 * index, y + 4 * index] for x, y in SQUARE]


def annotate_anew(tool: str, place: Path, tell: bool) -> None:
    """A square in each of four pictures, in a file or folder per split; `tell` in the names too."""
    for number, split in enumerate(("train", "val")):
        names = [f"{f'{split}/rgb/' * tell}{index}.png" for index in (0, 1)]
        squares = [moved_square(2 * number + index) for index in (0, 1)]
        folder = place / "labels" / split
        folder.mkdir(parents=True, exist_ok=True)
        if tool == "coco":
            one = {"categories": [{"id": 1, "name": "road"}]}
            one["images"] = [{"id": index, "file_name": name, "height": 48, "width": 64}
                             for index, name in enumerate(names)]  # fmt: skip
            one["annotations"] = [
                {"image_id": index, "category_id": 1, "segmentation": [list(chain(*square))]}
                for index, square in enumerate(squares)
            ]
            (place / f"instances_{split}2017.json").write_text(json.dumps(one))
        for index, (name, square) in enumerate(zip(names, squares, strict=True)):
            shares = " ".join(f"{x / 64:.6f} {y / 48:.6f}" for x, y in square)
            if tool == "yolo":
                (folder / f"{index}.txt").write_text(f"0 {shares}\n")
            if tool == "labelme":
                shape = {"label": "road", "points": square, "shape_type": "polygon"}
                content = {"imagePath": f"../{name}", "imageHeight": 48, "imageWidth": 64}
                (folder / f"{index}.json").write_text(json.dumps(content | {"shapes": [shape]}))
    (place / "classes.txt").write_text("road\n")


@pytest.mark.parametrize("tell", [False, True])
@pytest.mark.parametrize("tool", ["coco", "yolo", "labelme"])
def test_names_that_start_anew_in_each_split_are_told_apart(
    tool: str, tell: bool, anew: Path, tmp_path: Path
) -> None:
    annotate_anew(tool, tmp_path / "made", tell)
    import_annotations(anew, tool, tmp_path / "made", tmp_path / "out")  # type: ignore[arg-type]
    layout = open_layout(tmp_path / "out")
    names = {split: [pair.name for pair in pairs] for split, pairs in layout.splits.items()}
    assert names == {"train": ["train/0", "train/1"], "val": ["val/0", "val/1"]}
    samples = [one for split in names for one in PairDataset.of(layout, split)]
    for index, sample in enumerate(samples):
        np.testing.assert_array_equal(sample.rgb, own_pair(index)["rgb"])
        np.testing.assert_array_equal(sample.thermal, own_pair(index)["thermal"])
        assert sample.label is not None
        corner = np.argwhere(sample.label == 1).min(0)
        assert np.abs(corner - (8 + 4 * index, 10 + 8 * index)).max() <= 1
    # Out and back again, by what is written for them.
    assert convert(tmp_path / "out", "--to", "coco", "--out", tmp_path / "coco") == 0
    import_annotations(anew, "coco", tmp_path / "coco/annotations", tmp_path / "back")
    back = labels_of(tmp_path / "back")
    assert len(back) == 4
    for sample in samples:
        np.testing.assert_array_equal(back[sample.name], sample.label)


def test_an_annotation_of_one_of_several_pairs_is_refused(anew: Path, tmp_path: Path) -> None:
    annotate_anew("coco", tmp_path / "made", tell=False)
    for split in ("train", "val"):
        file = tmp_path / f"made/instances_{split}2017.json"
        file.rename(file.with_name(f"{split.replace('train', 'a').replace('val', 'b')}.json"))
    with pytest.raises(InputError, match="image 0 may be of pair train/0 or val/0; name its fold"):
        import_annotations(anew, "coco", tmp_path / "made", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_annotations_of_other_images_are_refused(yard: Path, tmp_path: Path) -> None:
    path = coco(yard)
    path.write_text(path.read_text().replace("p1.png", "x.png").replace("p2.png", "y.png"))
    with pytest.raises(InputError, match="names must be the same"):
        import_annotations(yard, "coco", path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


BOMB = '<!DOCTYPE a [<!ENTITY x "y"><!ENTITY z "&x;&x;">]>'
HOSTILE = {
    "coco": [
        ('"height": 48', '"height": 48000000'), ('"height": 48', '"height": -1'),
        ('"height": 48', '"height": NaN'), ('"category_id": 1', '"category_id": 99'),
        ('"image_id": 7', '"image_id": [7]'), ("[[10.0, 8.0", "[[1e400, 8.0"),
        ("[[10.0, 8.0", "[[null, 8.0"), ('"counts": "', '"counts": "~~~~'),
        ('"counts": "', '"counts": "0000'), ('"name": "road"', '"name": ""'),
        ('"file_name": "rgb/p1.png"', '"file_name": 5'), ('"images"', '"pictures"'),
        ('{"images"', "[" * 5000 + '{"images"'),
    ],
    "cvat": [
        ("<annotations>", f"{BOMB}<annotations>"), ("0, 40", "0, 40000000000"), ("0, 40", "0, -40"),
        ('top="40"', 'top="47"'), ('width="64"', 'width="x"'), ("</annotations>", ""),
        ("10.0,8.0", "nan,8.0"),
    ],
    "label-studio": [
        ('"original_width": 64', '"original_width": -64'), ('"rle": [0', '"rle": [255'),
        ('"rle": [0, 0, 48', '"rle": [0'), ('"annotations"', '"notes"'), ("[{", "[[[{"),
    ],
    "labelme": [
        ('"imageHeight": 48', '"imageHeight": 4'), ('"points": [[50, 40]', '"points": [[59, 47]'),
        ('"mask": "', '"mask": "!'), ('"mask": "iVBO', '"mask": "aVBO'), ('"shapes"', '"forms"'),
    ],
    "yolo": [
        ("0 0.1", "9 0.1"), ("0 0.1", "0 nan 0.1"), ("0 0.1", "x 0.1"), ("0 0.1", "0 0.1 0.1"),
    ],
}  # fmt: skip


@pytest.mark.parametrize(
    ("tool", "old", "new"), [(tool, *one) for tool, some in HOSTILE.items() for one in some]
)
def test_damaged_and_hostile_exports_are_refused_with_their_name(
    tool: str, old: str, new: str, yard: Path, tmp_path: Path
) -> None:
    (tmp_path / "made").mkdir()
    place = TOOLS[tool](tmp_path / "made")
    file = {"labelme": place / "p1.json", "yolo": place / "labels" / "p1.txt"}.get(tool, place)
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))
    with pytest.raises(InputError):
        import_annotations(yard, tool, place, tmp_path / "out")  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()
