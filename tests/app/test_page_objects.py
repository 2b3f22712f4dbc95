"""The objects on the page, in a real Chromium: the card, the table that sorts, the CSV."""

import csv
import json

import numpy as np
import pytest
from browser import MISSING, serving
from draw_places import write_shot
from page import LABELLED, choose, open_page, place

pytest.importorskip("fastapi")
if MISSING:
    pytest.skip(f"the page needs a browser: {MISSING}", allow_module_level=True)

from sartm.app.annotation import open_annotation
from sartm.app.server import create_app
from sartm.classes import Classes
from sartm.cli.main import main
from sartm.scenes.dataset import SceneOptions, draw_scene

pytestmark = pytest.mark.slow

CARD = "const card = document.getElementById('object'); return card.hidden ? '' : card.innerText"
TABLE = """
    return [...document.querySelectorAll('#objects-rows tr')]
        .map(row => [...row.cells].map(cell => cell.innerText))
"""
READ = "return document.getElementById('objects-count').textContent"


@pytest.fixture
def warm(window, address, work, tmp_path):
    """A pair with float Celsius on the page, and the table that predict makes of it."""
    scene = draw_scene(4, SceneOptions(size=(240, 320)))
    write_shot(tmp_path / "rgb.jpg", scene.rgb, 47.05, -8.3)
    np.save(tmp_path / "thermal.npy", scene.celsius)
    command = ["predict", f"{tmp_path}/rgb.jpg", f"{tmp_path}/thermal.npy", "--objects"]
    command += ["--degrees", "celsius", "--model", f"{work}/tiny", "--precision", "fp32"]
    assert main([*command, "--out", f"{tmp_path}/out"]) == 0
    lines = (tmp_path / "out/objects.jsonl").read_text().splitlines()
    window.resize(1280, 860)
    window.go("about:blank")
    open_page(window, address)
    choose(window, tmp_path / "rgb.jpg", tmp_path / "thermal.npy")
    window.wait(LABELLED)
    window.complaints()
    yield window, [json.loads(line) for line in lines]
    assert window.complaints() == []


def with_degrees(page) -> None:
    page.js(
        "const s = document.getElementById('degrees'); s.value = 'celsius';"
        "s.dispatchEvent(new Event('change'))"
    )
    page.wait(LABELLED)
    page.wait("return document.getElementById('objects-head').innerText.includes('Max')")


def test_the_table_sorts_and_shows_where_an_object_is(warm):
    page, rows = warm
    assert page.js(READ) == str(len(rows))
    areas = [int(cells[1]) for cells in page.js(TABLE)]
    assert areas == sorted((row["area"] for row in rows), reverse=True)
    with_degrees(page)
    page.js("[...document.querySelectorAll('#objects-head button')].at(-1).click()")
    hottest = [float(cells[-1]) for cells in page.js(TABLE)]
    expected = sorted((row["celsius_max"] for row in rows), reverse=True)
    assert hottest == pytest.approx(expected, abs=0.06)
    page.js("[...document.querySelectorAll('#objects-head button')].at(-1).click()")
    assert [float(cells[-1]) for cells in page.js(TABLE)] == hottest[::-1]
    sorting = "return [...document.querySelectorAll('#objects-head th')].map(th => th.ariaSort)"
    assert page.js(sorting) == ["none", "none", "none", "none", "ascending"]


def test_the_card_is_of_the_object_under_the_pointer(warm):
    page, rows = warm
    with_degrees(page)
    largest = max(rows, key=lambda row: row["area"])
    at = place(page, (240, 320), largest["hottest_x"], largest["hottest_y"])
    page.drag(at, button=False)
    text = page.wait(CARD)
    name = largest["class"].replace("_", " ")
    assert text.startswith(f"{name} {largest['id']}")
    assert f"{largest['area']} pixels" in text
    assert f"{largest['celsius_mean']:.1f} °C ± {largest['celsius_error']:.1f}" in text
    assert "Camera at\n47.050000, -8.300000" in text
    assert "2026-07-14 13:05:59" in text
    page.js("document.querySelector('#edit').click()")  # a map being corrected has no objects
    page.drag(at, button=False)
    assert page.js(CARD) == ""


def test_the_csv_is_that_of_predict(warm, tmp_path):
    page, rows = warm
    with_degrees(page)
    saved = page.downloaded(lambda: page.click("#get-objects"))
    with saved.open(newline="") as file:
        table = list(csv.DictReader(file))
    assert [line["class"] for line in table] == [row["class"] for row in rows]
    assert {(line["located"], line["taken"]) for line in table} == {
        ("camera", "2026-07-14T13:05:59"),
    }  # fmt: skip
    for line, row in zip(table, rows, strict=True):
        assert list(line) == [name for name in row if name != "geometry"]
        for name, text in line.items():
            if name not in ("pair", "class", "located", "taken"):
                assert float(text or "nan") == pytest.approx(
                    float("nan") if row[name] is None else row[name], nan_ok=True
                ), name


def test_a_folder_of_other_classes_lists_only_objects_of_its_own(
    window, predictors, work, tmp_path
):
    for kind in ("rgb", "thermal"):
        (tmp_path / kind).mkdir()
        (tmp_path / kind / "one.jpg").write_bytes((work / f"{kind}.jpg").read_bytes())
    known = predictors["tiny"].classes.names
    for names in (("background", known[1]), ("background", "walrus")):
        annotation = open_annotation(tmp_path, None, Classes(names))
        with serving(create_app(predictors, annotation=annotation)) as address:
            window.go(address)
            window.wait(LABELLED)
            shown = {cells[0].rsplit(" ", 1)[0] for cells in window.js(TABLE)}
            assert shown <= {known[1].replace("_", " ")} & set(names)
            data = json.loads(window.downloaded(lambda: window.click("#get-json")).read_text())
            table = {(entry["id"], entry["name"]) for entry in data["classes"]}
            assert {(entry["id"], entry["name"]) for entry in data["segments"]} <= table
            assert {found["class"] for found in data["objects"]} <= set(names)
            assert window.complaints() == []
