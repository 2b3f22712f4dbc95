"""What people look at: colours that are seen, outlines, names; and the ids in the files."""

import json
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import TINY, build
from PIL import Image

from sartm.classes import MFNET, Classes
from sartm.cli.main import main
from sartm.colours import display_palette
from sartm.inference.overlays import draw_legend, draw_overlay, find_outlines, place_beside
from sartm.io.labels import encode_label, read_label
from sartm.io.sources import Upload
from sartm.model.checkpoint import save
from sartm.model.facts import ModelFacts

PERSON = MFNET.names.index("person")


def street(side=64):
    """Ids with a person's box and a car at the edge."""
    labels = np.zeros((side, side), np.uint8)
    labels[20:40, 20:30] = PERSON
    labels[50:, 40:] = 1
    return labels


@pytest.mark.parametrize("grey", [0, 255])
def test_a_person_is_seen_at_night_and_on_snow(grey):
    image = np.full((64, 64, 3), grey, np.uint8)
    drawn = draw_overlay(image, street(), MFNET).astype(int)
    inside, line, beside = drawn[30, 25], drawn[20, 25], drawn[19, 25]
    assert np.abs(inside - grey).max() > 60
    np.testing.assert_array_equal(line, display_palette(MFNET)[PERSON])
    np.testing.assert_array_equal(beside, [grey] * 3)  # outlines lie inside; the rest stays clear
    assert (draw_overlay(image, street(), MFNET, 0) == grey).all()


def test_strips_of_rows_are_drawn_as_the_whole():
    draw = np.random.default_rng(0)
    small = draw.integers(0, 9, (70, 8), np.uint8)
    labels = cv2.resize(small, (96, 700), interpolation=cv2.INTER_NEAREST)
    whole = find_outlines(labels, 0, 700, 2)
    parts = np.concatenate([find_outlines(labels, 0, 256, 2), find_outlines(labels, 256, 700, 2)])
    np.testing.assert_array_equal(whole, parts)
    image = draw.integers(0, 256, (700, 96, 3), np.uint8)
    drawn = draw_overlay(image, labels, MFNET)
    np.testing.assert_array_equal(draw_overlay(image.copy(), labels, MFNET, out=image), drawn)


def test_a_legend_names_the_classes_and_breaks_its_lines():
    band = draw_legend(640, MFNET, [1, PERSON])
    assert band.shape[1] == 640
    assert band.shape[0] % 2 == 0
    colours = {tuple(pixel) for pixel in band.reshape(-1, 3).tolist()}
    palette = display_palette(MFNET)
    assert palette[1] in colours
    assert palette[PERSON] in colours
    assert palette[3] not in colours
    narrow = draw_legend(120, MFNET, range(1, 9))
    assert narrow.shape[0] > 8 * 11 > draw_legend(640, MFNET, range(1, 9)).shape[0]
    assert draw_legend(64, MFNET, []).shape[1] == 64


def test_pictures_beside_each_other_stay_within_bounds():
    panel = np.zeros((3000, 5000, 3), np.uint8)
    assert place_beside([panel] * 3).shape[1] == 3 * 2048
    assert place_beside([panel[:51, :77]] * 2, 100).shape == (32, 100, 3)


# --- label maps ----------------------------------------------------------------------------------


@pytest.mark.parametrize("classes", [MFNET, Classes(tuple(f"c{i}" for i in range(200)))])
def test_a_label_map_shows_colours_and_holds_the_same_ids(classes):
    draw = np.random.default_rng(1)
    labels = draw.integers(0, len(classes), (33, 47), np.uint8)
    labels[0, 0] = 255
    data = encode_label(labels, "x", classes.palette)
    with Image.open(BytesIO(data)) as image:
        image.verify()
    with Image.open(BytesIO(data)) as image:
        assert image.mode == "P"
        np.testing.assert_array_equal(np.array(image), labels)
        shown = np.array(image.convert("RGB"))
    assert (shown[0, 0] == 255).all()
    labels[0, 0] = 0
    np.testing.assert_array_equal(shown[1:], np.array(classes.palette, np.uint8)[labels[1:]])
    data = encode_label(labels, "x", classes.palette)
    for colours, coloured in (((), True), (classes.palette, None), (classes.palette, False)):
        found = read_label(Upload("x", data), 255, colours, coloured=coloured)
        np.testing.assert_array_equal(found, labels)


def test_sixteen_bits_stay_grey():
    labels = np.array([[0, 300], [5, 256]], np.uint16)
    many = Classes(tuple(f"c{i}" for i in range(301)), ignore=65535)
    data = encode_label(labels, "x", many.palette)
    assert Image.open(BytesIO(data)).mode == "I;16"
    np.testing.assert_array_equal(read_label(Upload("x", data)), labels)


# --- predict -------------------------------------------------------------------------------------


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    draw = np.random.default_rng(2)
    for kind, shape in (("rgb", (6, 8, 3)), ("thermal", (6, 8))):
        Path(kind).mkdir()
        image = cv2.resize(draw.integers(0, 256, shape, np.uint8), (96, 64))
        cv2.imwrite(f"{kind}/a.png", image)
    save(build(TINY), tmp_path / "model", ModelFacts("tiny"))
    return tmp_path


def predict(*options: str) -> int:
    return main(["predict", *options, "--model", "model", "--device", "cpu"])


def overlay(out: str = "out") -> np.ndarray:
    return cv2.imread(f"{out}/overlays/a.jpg")


@pytest.mark.slow
def test_files_are_named_in_order_or_by_options(place, capsys):
    assert predict("rgb/a.png", "thermal/a.png", "--out", "two") == 0
    assert predict("--rgb", "rgb", "--thermal", "thermal", "--out", "options") == 0
    assert predict(".", "--out", "folder") == 0
    assert predict("rgb/a.png", "--out", "one") == 0
    maps = [read_label(f"{out}/labels/a.png") for out in ("two", "options", "folder", "one")]
    assert (maps[0] == maps[1]).all()
    assert (maps[0] == maps[2]).all()
    assert not (maps[0] == maps[3]).all()
    capsys.readouterr()
    assert predict("rgb/a.png", "--thermal", "thermal/a.png") == 2
    assert "in one way" in capsys.readouterr().err
    assert predict("rgb/a.png", "rgb/b.png", "thermal/a.png") == 2
    assert "quote globs" in capsys.readouterr().err
    assert predict() == 2
    assert "RGB THERMAL" in capsys.readouterr().err


def test_legend_and_inputs_beside_are_drawn_again_when_asked_for(place, capsys):
    sources = ("rgb", "thermal")
    assert predict(*sources) == 0
    label = Path("out/labels/a.png").read_bytes()
    assert overlay().shape == (64, 96, 3)
    assert predict(*sources, "--beside") == 0
    left, middle, right = np.split(overlay().astype(int), 3, axis=1)
    assert np.abs(left - cv2.imread("rgb/a.png")).mean() < 6
    assert np.abs(middle - cv2.imread("thermal/a.png")).mean() < 6
    assert np.abs(right - left).max() > 60
    assert predict(*sources, "--beside", "--legend") == 0
    assert overlay().shape[0] > 64
    capsys.readouterr()
    assert predict(*sources, "--beside", "--legend") == 0
    said = capsys.readouterr()
    assert said.out == f"nothing to do, 1 label map is there: {Path('out/labels')}\n"
    assert "0/0" not in said.err
    assert Path("out/labels/a.png").read_bytes() == label


def test_one_image_beside_its_overlay(place):
    assert predict("--thermal", "thermal", "--beside") == 0
    assert overlay().shape == (64, 192, 3)


def test_the_summary_has_the_class_table_and_score_reads_the_maps(place):
    assert predict("rgb", "thermal") == 0
    rows = json.loads(Path("out/summary.json").read_text())["classes"]
    assert [row["id"] for row in rows] == list(range(9))
    assert rows[PERSON]["name"] == "person"
    assert rows[PERSON]["colour"] == [64, 64, 0]
    assert rows[PERSON]["display"] == list(display_palette(MFNET)[PERSON])
    Path("labels").mkdir()
    ids = read_label("out/labels/a.png")
    cv2.imwrite("labels/a.png", ids)
    Path("names.txt").write_text("a\n")
    palette = [list(colour) for colour in MFNET.palette]
    Path("dataset.toml").write_text(
        f"name = 'own'\nclasses = {list(MFNET.names)}\npalette = {palette}\n"
        "[files]\nrgb = 'rgb/{name}.png'\nthermal = 'thermal/{name}.png'\n"
        "label = 'labels/{name}.png'\n[splits]\nval = 'names.txt'\n"
    )
    assert main(["score", "--predictions", "out", "--data", ".", "--out", "report"]) == 0
    assert json.loads(Path("report/report.json").read_text())["pixel_accuracy"] == 100
