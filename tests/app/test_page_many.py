"""The page with many pairs, films and thermal values, in a real Chromium, as people use it."""

import csv
import io
import json
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from browser import MISSING, Browser, serving
from conftest import TINY
from draw_flir import counts_of, field, write_flir
from page import LABELLED, choose, frame, labels_of, open_page, paint, place

pytest.importorskip("fastapi")
if MISSING:
    pytest.skip(f"the page needs a browser: {MISSING}", allow_module_level=True)

from sartm.app.annotation import open_annotation
from sartm.app.server import create_app
from sartm.inference.folders import label_folder
from sartm.inference.predictor import Predictor
from sartm.io.labels import read_label
from sartm.model.loading import load
from sartm.scenes.dataset import SceneOptions, draw_scene

pytestmark = pytest.mark.slow

SIZE = (96, 128)
ROWS = """
    return [...document.querySelectorAll('#items button')].map(e =>
        [e.querySelector('.label').textContent, e.dataset.status])
"""
OVER = """
    const rows = [...document.querySelectorAll('#items button')];
    return rows.length && rows.every(e => !['waiting', 'working'].includes(e.dataset.status))
        && document.getElementById('busy').hidden
"""
SHOWN = "return document.getElementById('pair').textContent"
BASE = "return document.querySelector('input[name=base]:checked').value"
PIXELS = """
    await new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)));
    const canvas = document.querySelector('.pane canvas');
    const [x, y] = arguments, r = canvas.getBoundingClientRect();
    const ratio = canvas.width / r.width;
    const context = canvas.getContext('2d');
    return [...context.getImageData((x - r.x) * ratio, (y - r.y) * ratio, 1, 1).data]
"""


@pytest.fixture(scope="module")
def pairs(tmp_path_factory) -> Path:
    """Six drawn pairs in the folders rgb and thermal, one label each by `sartm predict`."""
    folder = tmp_path_factory.mktemp("many")
    for kind in ("rgb", "thermal"):
        (folder / kind).mkdir()
    for index in range(6):
        scene = draw_scene(index, SceneOptions(size=SIZE))
        cv2.imwrite(str(folder / "rgb" / f"street {index}.png"), scene.rgb[..., ::-1])
        cv2.imwrite(str(folder / "thermal" / f"street {index}.png"), scene.thermal)
    return folder


@pytest.fixture
def empty(window, address) -> Iterator[Browser]:
    """The page without pictures; afterwards nothing may have been complained about."""
    window.resize(1280, 860)
    window.go("about:blank")
    open_page(window, address)
    window.complaints()
    yield window
    assert window.complaints() == []


def click(browser: Browser, css: str) -> None:
    """As a person does, wherever the page has to scroll to."""
    browser.js("document.querySelector(arguments[0]).scrollIntoView({block: 'center'})", css)
    browser.click(css)


def set_value(browser: Browser, name: str, value: object, event: str = "change") -> None:
    browser.js(
        "const e = document.getElementById(arguments[0]); e.value = arguments[1];"
        "e.dispatchEvent(new Event(arguments[2]))",
        name, value, event,
    )  # fmt: skip


def files_of(folder: Path) -> list[Path]:
    """With the kind in the name, since a dialog for files gives no folders."""
    out = folder / "loose"
    if not out.exists():
        out.mkdir()
        for path in sorted(folder.glob("rgb/*.png")):
            shutil.copy(path, out / f"{path.stem}_rgb.png")
            shutil.copy(folder / "thermal" / path.name, out / f"{path.stem}_th.png")
    return sorted(out.iterdir())


def unzip(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        return {name: archive.read(name) for name in archive.namelist()}


def test_six_pairs_are_labelled_corrected_and_saved_as_predict_saves_them(
    empty, pairs, predictors, tmp_path
):
    label_folder(predictors["tiny"], pairs / "rgb", pairs / "thermal", tmp_path, model="t")
    expected = {
        f"street {index}": read_label(tmp_path / "labels" / f"street {index}.png")
        for index in range(6)
    }
    choose(empty, *files_of(pairs))
    empty.wait(OVER)
    assert empty.js(ROWS) == [[name, "done"] for name in expected]
    thumbnails = "return [...document.querySelectorAll('#items canvas')].filter(c => !c.hidden)"
    assert empty.js(thumbnails + ".length") == 6
    assert empty.js("return document.getElementById('list-count').textContent") == "6 of 6 labelled"

    empty.press("n")
    empty.wait(SHOWN + " === 'street 1' && document.getElementById('busy').hidden")
    empty.wait(LABELLED)
    empty.js("document.activeElement.blur()")
    empty.press("c")
    paint(empty, 7)
    empty.drag(place(empty, SIZE, 30, 40), place(empty, SIZE, 90, 40))
    corrected = labels_of(empty)
    assert (corrected != expected["street 1"]).sum() > 100
    empty.press("n")
    empty.wait(SHOWN + " === 'street 2' && document.getElementById('busy').hidden")
    np.testing.assert_array_equal(labels_of(empty), expected["street 2"])
    empty.press("p")  # what was corrected is still there
    empty.wait(SHOWN + " === 'street 1' && document.getElementById('busy').hidden")
    np.testing.assert_array_equal(labels_of(empty), corrected)
    assert empty.js(ROWS)[1] == ["street 1", "corrected"]

    files = unzip(empty.downloaded(lambda: click(empty, "#get-zip")))
    for name, labels in (expected | {"street 1": corrected}).items():
        file = np.frombuffer(files[f"labels/{name}.png"], np.uint8)
        found = cv2.imdecode(file, cv2.IMREAD_UNCHANGED)
        if found.ndim == 3:  # OpenCV paints palettes
            path = tmp_path / "found.png"
            path.write_bytes(files[f"labels/{name}.png"])
            found = read_label(path)
        np.testing.assert_array_equal(found, labels)
        overlay = cv2.imdecode(np.frombuffer(files[f"overlays/{name}.jpg"], np.uint8), 1)
        assert overlay.shape[:2] == SIZE
    table = list(csv.DictReader(files["objects.csv"].decode().splitlines()))
    assert "street 1" not in {row["pair"] for row in table}  # it was corrected
    assert {"street 0", "street 2"} <= {row["pair"] for row in table}
    assert all(int(row["area"]) >= 20 for row in table)
    summary = json.loads(files["summary.json"])
    assert summary["model"] == "tiny"
    by_name = {pair["name"]: pair for pair in summary["pairs"]}
    assert [by_name[name]["corrected"] for name in expected] == [
        False, True, False, False, False, False,
    ]  # fmt: skip
    assert by_name["street 1"]["shares"][TINY.classes.names[7]] == pytest.approx(
        (corrected == 7).mean(), abs=1e-5
    )


def test_the_list_filters_by_state_and_name_and_one_bad_file_stops_nobody(empty, pairs, tmp_path):
    files = files_of(pairs)[:6]
    bad = tmp_path / "street 9_rgb.png"
    bad.write_text("no image")
    choose(empty, *files, bad)
    empty.wait(OVER)
    assert [state for _, state in empty.js(ROWS)] == ["done", "done", "done", "failed"]
    set_value(empty, "filter", "failed")
    assert empty.js(ROWS) == [["street 9", "failed"]]
    click(empty, "#items button")
    said = empty.wait("return document.getElementById('toasts').innerText")
    assert "not an image" in said
    assert "1 without a partner" in empty.js("return document.getElementById('leftover').innerText")
    set_value(empty, "filter", "all")
    set_value(empty, "search", "et 1", "input")
    assert empty.js(ROWS) == [["street 1", "done"]]
    set_value(empty, "search", "", "input")
    assert len(unzip(empty.downloaded(lambda: click(empty, "#get-zip")))) == 2 * 3 + 2
    click(empty, "#list-close")
    assert empty.js("return document.getElementById('list').hidden")
    empty.complaints()  # the refusals are ones for the browser's own log


PAIRING = [
    (["a/visible/1.png", "a/infrared/1.png"], [["a/1", "a/visible/1.png", "a/infrared/1.png"]]),
    (["set/V0/visible/I1.jpg", "set/V0/lwir/I1.jpg"],
     [["set/V0/I1", "set/V0/visible/I1.jpg", "set/V0/lwir/I1.jpg"]]),
    (["x_co.png", "x_th.png", "y_co.png", "y_th.png"],
     [["x", "x_co.png", "x_th.png"], ["y", "y_co.png", "y_th.png"]]),
    (["d/3_rgb.png", "d/3_lwir.tiff", "d/10_visible.png", "d/10_thermal.png"],
     [["d/3", "d/3_rgb.png", "d/3_lwir.tiff"], ["d/10", "d/10_visible.png", "d/10_thermal.png"]]),
    (["FLIR_0001.jpg", "FLIR_0001_RGB.jpg", "FLIR_0002.jpg", "FLIR_0002_RGB.jpg"],
     [["FLIR_0001", "FLIR_0001_RGB.jpg", "FLIR_0001.jpg"],
      ["FLIR_0002", "FLIR_0002_RGB.jpg", "FLIR_0002.jpg"]]),
    (["d/rgb/1.png", "d/thermal/1.png", "d/labels/1.png", "d/.hidden/1.png", "d/rgb/.1.png"],
     [["d/1", "d/rgb/1.png", "d/thermal/1.png"]]),
    (["d/rgb/1.png", "d/thermal/1.png", "d/rgb/2.png"],
     [["d/1", "d/rgb/1.png", "d/thermal/1.png"], ["d/2", "d/rgb/2.png", None]]),
    (["d/x_rgb.png", "d/X_rgb.jpg", "d/x_2_rgb.png"],  # no two names that are one file
     [["d/x", "d/x_rgb.png", None], ["d/X_2", "d/X_rgb.jpg", None],
      ["d/x_2_2", "d/x_2_rgb.png", None]]),
    (["d/a(1)_rgb.png", "d/a[1]_rgb.png", "d/a:1_rgb.png", "d/a?1_rgb.png", "d/ที่นี่_rgb.png"],
     [["d/a_1", "d/a:1_rgb.png", None], ["d/a_1_2", "d/a?1_rgb.png", None],
      ["d/a(1)", "d/a(1)_rgb.png", None], ["d/a[1]", "d/a[1]_rgb.png", None],
      ["d/ที่นี่", "d/ที่นี่_rgb.png", None]]),
]  # fmt: skip


@pytest.mark.parametrize(("names", "expected"), PAIRING)
def test_files_are_paired_by_the_words_in_their_names(empty, names, expected):
    found = empty.js(
        """
        const { keepPictures, pairFiles } = await import('/pairing.js');
        const files = arguments[0].map(place =>
            Object.assign(new File([''], place.split('/').pop()), { place }));
        const { pairs } = await pairFiles(keepPictures(files));
        return pairs.map(({ name, rgb, thermal }) =>
            [name, rgb && rgb.place, thermal && thermal.place]);
        """,
        names,
    )
    assert found == expected


def test_a_grey_rgb_and_a_coloured_thermal_picture_are_swapped_by_a_click(empty, work):
    """In the slots by hand, where the thermal one is refused; and dropped under wrong names."""
    hint = "return !document.getElementById('swap-row').hidden"
    names = (
        "return ['rgb', 'thermal'].map(k => document.querySelector(`#slot-${k} .name`).innerText)"
    )
    scene = draw_scene(2, SceneOptions(size=SIZE))
    coloured, grey = work / "left.png", work / "right.png"
    cv2.imwrite(str(coloured), scene.rgb[..., ::-1])
    cv2.imwrite(str(grey), scene.thermal)
    empty.js("document.getElementById('file').dataset.kind = 'rgb'")
    choose(empty, grey)
    empty.wait(LABELLED)
    assert not empty.js(hint)
    empty.js("document.getElementById('file').dataset.kind = 'thermal'")
    choose(empty, coloured)
    empty.wait(hint)
    click(empty, "#swap")
    empty.wait(names + ".join() === 'left.png,right.png' && " + LABELLED[12:])
    assert not empty.js(hint)
    empty.complaints()  # the refusal of a coloured thermal picture

    empty.js("document.getElementById('file').dataset.kind = ''")
    for path, name in ((coloured, "x_thermal.png"), (grey, "x_rgb.png")):
        shutil.copy(path, work / name)
    choose(empty, work / "x_rgb.png", work / "x_thermal.png")
    empty.wait(hint)
    click(empty, "#swap")
    empty.wait(names + ".join() === 'x_thermal.png,x_rgb.png' && " + LABELLED[12:])
    empty.complaints()


def test_level_and_window_are_dragged_on_the_picture_and_values_read_out(empty, work, tmp_path):
    counts = np.linspace(29000, 31000, SIZE[1]).round().astype(np.uint16)
    counts = np.tile(counts, (SIZE[0], 1))
    cv2.imwrite(str(tmp_path / "thermal.png"), counts)
    choose(empty, tmp_path / "thermal.png")
    empty.wait(LABELLED)
    set_value(empty, "opacity", 0, "input")
    warmth = "return document.getElementById('warmth').textContent"
    for x in (5, 64, 120):
        empty.drag(place(empty, SIZE, x, 50), button=False)
        assert empty.js(warmth) == str(counts[50, x])

    ends = "return ['low', 'high'].map(id => Number(document.getElementById(id).value))"
    low, high = empty.js(ends)
    assert 29000 <= low < 29100 < 30900 < high <= 31000
    middle = place(empty, SIZE, 64, 50)
    before = empty.js(PIXELS, *middle)[0]
    click(empty, "#window")
    view = empty.js("return document.getElementById('scale').textContent")
    empty.drag(middle, (middle[0] + 60, middle[1]))  # wider
    wider = empty.js(ends)
    assert wider[1] - wider[0] > 1.1 * (high - low)
    empty.drag(middle, (middle[0], middle[1] - 60))  # a higher level: darker
    raised = empty.js(ends)
    assert sum(raised) > sum(wider) + 300
    assert raised[1] - raised[0] == pytest.approx(wider[1] - wider[0], rel=0.01)
    assert empty.js(PIXELS, *middle)[0] < before - 20
    assert empty.js("return document.getElementById('scale').textContent") == view  # not moved

    set_value(empty, "low", 30000)
    set_value(empty, "high", 30500)
    assert empty.js(PIXELS, *place(empty, SIZE, 20, 50))[0] == 0
    assert empty.js(PIXELS, *place(empty, SIZE, 110, 50))[0] == 255
    scale = "return document.getElementById('bar').innerText.split(/\\s+/)"
    assert empty.js(scale) == ["30000", "30250", "30500"]
    empty.press("m")
    assert empty.js("return document.getElementById('map').value") == "inferno"
    bright = empty.js(PIXELS, *place(empty, SIZE, 110, 50))[:3]
    assert bright == [252, 255, 164]  # the brightest of matplotlib's inferno

    click(empty, "#window-use")
    facts = "return document.getElementById('facts').textContent"
    empty.wait(facts + ".includes('thermal 30000 to 30500')")
    model = load(str(work / "tiny"))
    fixed = Predictor(model, device="cpu", precision="fp32", thermal_range="30000:30500")
    np.testing.assert_array_equal(labels_of(empty), fixed(None, counts).labels)
    click(empty, "#window-auto")
    assert empty.js(ends) == [low, high]


def test_a_radiometric_file_is_read_out_in_degrees(empty, tmp_path):
    celsius = field(*SIZE)
    write_flir(tmp_path / "shot_thermal.jpg", counts_of(celsius))
    choose(empty, tmp_path / "shot_thermal.jpg")
    empty.wait(LABELLED)
    for x, y in ((20, 24), (100, 50)):
        empty.drag(place(empty, SIZE, x, y), button=False)
        text = empty.js("return document.getElementById('warmth').textContent")
        assert text.endswith(" °C")
        assert float(text[:-3]) == pytest.approx(celsius[y, x], abs=0.2)
    assert empty.js("return document.getElementById('unit').textContent") == "°C"


def test_colour_maps_are_those_that_people_know(empty):
    table = "const { colourTable } = await import('/thermal.js'); return [...colourTable('{}')]"
    words = np.array(empty.js(table.replace("{}", "inferno")), np.uint32)
    found = np.stack([words & 255, words >> 8 & 255, words >> 16 & 255], 1).astype(int)
    ramp = cv2.applyColorMap(np.arange(256, dtype=np.uint8)[None], cv2.COLORMAP_INFERNO)[0]
    assert np.abs(found - ramp[:, ::-1]).max() <= 8
    for name in ("grey", "ironbow"):  # from dark to bright without a step back
        words = np.array(empty.js(table.replace("{}", name)), np.uint32)
        light = (words & 255) * 0.3 + (words >> 8 & 255) * 0.59 + (words >> 16 & 255) * 0.11
        assert (np.diff(light) > -1.5).all()
        assert light[0] < 10
        assert light[-1] > 245


def test_dark_rgb_is_brightened_to_look_at_and_labels_stay(empty, work):
    choose(empty, work / "rgb.jpg", work / "thermal.jpg")
    empty.wait(LABELLED)
    set_value(empty, "opacity", 0, "input")
    labels = labels_of(empty)
    spot = place(empty, labels.shape, 50, labels.shape[0] - 20)
    dark = sum(empty.js(PIXELS, *spot)[:3])
    set_value(empty, "brightness", 300, "input")
    assert sum(empty.js(PIXELS, *spot)[:3]) > 1.2 * dark
    np.testing.assert_array_equal(labels_of(empty), labels)
    empty.click("input[name=base][value=thermal]")
    assert not empty.js("return document.getElementById('brightness').offsetParent")


def test_confidence_has_a_scale(empty, work):
    choose(empty, work / "rgb.jpg", work / "thermal.jpg")
    empty.wait(LABELLED)
    assert empty.js("return document.getElementById('bar').hidden")
    empty.press("3")
    assert empty.js("return document.getElementById('bar').innerText.split(/\\n/)") == [
        "0 %", "50 %", "100 %",
    ]  # fmt: skip
    label = empty.js("return document.getElementById('bar').getAttribute('aria-label')")
    assert label == "Confidence, dark to bright: 0 % to 100 %"


def test_a_folder_is_a_list_with_states_and_digits_choose_classes(
    window, predictors, pairs, tmp_path
):
    folder = tmp_path / "mine"
    for kind in ("rgb", "thermal"):
        shutil.copytree(pairs / kind, folder / kind)
    app = create_app(
        predictors, annotation=open_annotation(folder, None, predictors["tiny"].classes)
    )
    ready = SHOWN + " === '{}' && document.getElementById('busy').hidden"
    ready += " && !document.getElementById('save').disabled"
    with serving(app) as address:
        window.resize(1280, 860)
        window.go("about:blank")
        open_page(window, address)
        window.complaints()
        window.wait(ready.format("street 0"))
        assert window.js(ROWS) == [[f"street {index}", "open"] for index in range(6)]
        window.js("document.activeElement.blur()")
        for digit in (3, 7):
            window.press(str(digit))
            chosen = "return Number(document.getElementById('paint').value)"
            assert window.js(chosen) == digit
        assert window.js(BASE) == "rgb"  # digits are classes now
        window.press("v")
        assert window.js(BASE) == "thermal"
        assert "7" in window.js(
            "return document.querySelector('#legend [data-id=\"7\"]').innerText"
        )
        window.drag(place(window, SIZE, 30, 40), place(window, SIZE, 90, 40))
        window.press("s")
        window.wait(ready.format("street 1"))
        assert (read_label(folder / "labels" / "street 0.png")[40, 35:85] == 7).all()
        assert window.js(ROWS)[0] == ["street 0", "saved"]
        set_value(window, "filter", "open")
        assert [name for name, _ in window.js(ROWS)] == [f"street {index}" for index in range(1, 6)]
        click(window, "#items li:last-child button")
        window.wait(ready.format("street 5"))
        set_value(window, "filter", "saved")
        assert window.js(ROWS) == [["street 0", "saved"]]
        assert window.complaints() == []


def draw_films(folder: Path, pictures: int) -> list[Path]:
    """A walk at ten pictures a second, as thermal and as RGB."""
    av = pytest.importorskip("av")
    scene = draw_scene(4, SceneOptions(size=SIZE))
    for kind, image in (("rgb", scene.rgb), ("thermal", np.dstack([scene.thermal] * 3))):
        with av.open(str(folder / f"walk_{kind}.webm"), "w") as file:
            stream = file.add_stream("libvpx-vp9", 10)
            stream.height, stream.width, stream.pix_fmt = *SIZE, "yuv420p"
            for shift in range(pictures):
                shifted = np.ascontiguousarray(np.roll(image, 3 * shift, axis=1))
                file.mux(stream.encode(av.VideoFrame.from_ndarray(shifted, "rgb24")))
            file.mux(stream.encode())
    return [folder / "walk_thermal.webm", folder / "walk_rgb.webm"]


def test_two_films_are_labelled_picture_by_picture_and_come_back_as_a_film(empty, tmp_path):
    av = pytest.importorskip("av")
    choose(empty, *draw_films(tmp_path, 30))
    empty.wait(OVER)
    assert [state for _, state in empty.js(ROWS)] == ["done"] * 15  # three seconds, five a second
    modes = "return document.querySelector('input[name=mode][value=compare]').disabled"
    assert not empty.js(modes)  # both films are there
    film = empty.downloaded(lambda: click(empty, "#get-film"))
    assert film.name == "walk_thermal_labelled.webm"
    with av.open(str(film)) as file:
        moments = [float(frame.pts * frame.time_base) for frame in file.decode(video=0)]
        video = file.streams.video[0]
        assert (video.height, video.width) == (SIZE[0], 3 * SIZE[1])  # RGB, thermal, overlay
    assert moments == pytest.approx([index / 5 for index in range(15)], abs=0.002)
    files = unzip(empty.downloaded(lambda: click(empty, "#get-zip")))
    assert len([name for name in files if name.startswith("labels/")]) == 15
    set_value(empty, "rate", "2")
    empty.wait(OVER)
    assert len(empty.js(ROWS)) == 6


def test_corrections_of_a_film_are_asked_about_until_they_are_in_a_zip(empty, tmp_path):
    choose(empty, *draw_films(tmp_path, 10))
    empty.wait(OVER)
    shown = "return document.getElementById('list').hidden"

    def correct(row: int) -> None:
        paint(empty, 7)
        empty.drag(place(empty, SIZE, 30, row), place(empty, SIZE, 90, row))

    empty.js("document.activeElement.blur()")
    empty.press("c")
    correct(40)
    empty.downloaded(lambda: click(empty, "#get-film"))  # which holds pictures, no label maps
    click(empty, "#list-close")
    assert "not saved" in empty.dismiss()
    assert not empty.js(shown)
    files = unzip(empty.downloaded(lambda: click(empty, "#get-zip")))
    summary = json.loads(files["summary.json"])
    assert [pair["corrected"] for pair in summary["pairs"]] == [True] + [False] * 4
    assert ["confidence" in pair for pair in summary["pairs"]] == [False] + [True] * 4
    correct(60)  # on the picture that is shown
    click(empty, "#list-close")
    assert "not saved" in empty.dismiss()
    empty.downloaded(lambda: click(empty, "#get-zip"))
    click(empty, "#list-close")
    empty.wait(shown)


def test_another_model_leaves_no_picture_of_the_one_before(empty, tmp_path):
    choose(empty, *draw_films(tmp_path, 10))
    empty.wait(OVER)
    thumbnails = "return [...document.querySelectorAll('#items canvas')].filter(c => !c.hidden)"
    assert empty.js(thumbnails + ".length") == 5
    old = empty.js(
        "document.getElementById('model').dispatchEvent(new Event('change'));"
        "document.getElementById('pause').click();" + thumbnails + ".length"
    )
    assert old == 0
    empty.wait(
        "const all = [...document.querySelectorAll('#items button')].map(e => e.dataset.status);"
        "return !all.includes('working') && all.includes('done')"
    )
    done = [state for _, state in empty.js(ROWS)].count("done")
    assert done < 5
    film = empty.downloaded(lambda: click(empty, "#get-film"))
    av = pytest.importorskip("av")
    with av.open(str(film)) as file:
        assert len(list(file.decode(video=0))) == done


def test_what_is_left_out_of_films_is_said(empty):
    """More pictures than are taken, and more films than make a pair."""
    count = "const { filmItems } = await import('/film.js'); return filmItems(...arguments).length"
    said = "return document.getElementById('toasts').innerText"
    assert empty.js(count, {"duration": 600}, 5) == 3000
    assert empty.js(said) == ""
    assert empty.js(count, {"duration": 725}, 5) == 3000
    assert "10:00 min of 12:05 min" in empty.js(said)
    drop = """
        const data = new DataTransfer();
        for (const name of ['a.mp4', 'b.mp4', 'c.mp4']) data.items.add(new File(['x'], name));
        document.querySelector('#view').dispatchEvent(
            new DragEvent('drop', { bubbles: true, cancelable: true, dataTransfer: data }));
    """
    empty.js(drop)
    empty.wait(said + ".includes('These are 3 films')")


def test_names_of_files_stay_as_they_are_and_apart_in_the_zip(empty, pairs, tmp_path):
    names = ["a(1)", "a[1]", "a", "a_2", "ที่นี่"]
    for index, name in enumerate(names):
        shutil.copy(pairs / "rgb" / f"street {index}.png", tmp_path / f"{name}_rgb.png")
    shutil.copy(pairs / "rgb" / "street 5.png", tmp_path / "A_rgb.png")
    choose(empty, *sorted(tmp_path.glob("*.png")))
    empty.wait(OVER)
    with zipfile.ZipFile(empty.downloaded(lambda: click(empty, "#get-zip"))) as archive:
        found = [name for name in archive.namelist() if name.startswith("labels/")]
        summary = json.loads(archive.read("summary.json"))
    assert len({name.lower() for name in found}) == 6
    assert {f"labels/{name}.png" for name in ("a(1)", "a[1]", "ที่นี่")} < set(found)
    assert [f"labels/{pair['name']}.png" for pair in summary["pairs"]] == found


def test_a_phone_gives_each_compared_picture_its_width_and_says_tap(window, address, work):
    window.resize(390, 844, phone=True)
    try:
        window.go("about:blank")
        open_page(window, address)
        shown = window.js("return document.body.innerText").lower()
        assert "tap to choose" in shown
        assert "click" not in shown
        assert "drop" not in shown
        choose(window, work / "rgb.jpg", work / "thermal.jpg")
        window.wait(LABELLED)
        assert "Tap the picture" in window.js("return document.getElementById('spot').innerText")
        window.js("document.querySelector('input[name=mode][value=compare]').click()")
        window.wait(LABELLED)
        height, width = read_label(work / "both" / "labels" / "rgb.png").shape
        for index in range(3):
            _, _, wide, high = frame(window, index)
            assert wide > 360
            assert high == pytest.approx(wide * height / width, rel=0.03)
    finally:
        window.resize(1280, 860)


SAID = [
    ("rgb: the 4th channel has 3 distinct values and is dropped as transparency; predict "
     "--four-channel yes takes it as thermal", "3 different values"),
    ("the pair: RGB is 61x90 but thermal is 30x45. If both show the same view set resize_thermal; "
     "if not, register the cameras first: sartm data align", "tick the box"),
    ("thermal: the thermal image is in false colour or is a visible image (channels differ by up "
     "to 200, 40.0 on average). Export it in grey, or as 16-bit or radiometric TIFF; predict takes "
     "RGB + thermal in one file as --rgb alone", "RGB slot"),
    ("thermal: 1 of 600 thermal values are NaN or infinite; write a number that does not occur in "
     "their place, such as -9999, and name it: predict and video --holes -9999, or holes = -9999 "
     "under [thermal] of dataset.toml", "NaN"),
    ("pair 'upload' has no RGB image; choose --modality both", "see both"),
    ("thermal: not a FLIR radiometric JPEG, its raw data are missing (edited or sent by a "
     "messenger?); use the camera's original, or take the picture's grey levels (predict without "
     "--radiometric; unit = 'display' in dataset.toml)", "raw data are missing"),
]  # fmt: skip


@pytest.mark.parametrize(("message", "kept"), SAID)
def test_messages_name_no_options_or_commands(empty, message, kept):
    script = "const { inPageWords } = await import('/words.js'); return inPageWords(arguments[0])"
    words = empty.js(script, message)
    assert kept in words
    for strange in ("--", "sartm ", "dataset.toml", "resize_thermal"):
        assert strange not in words


def test_the_zip_of_the_page_is_one_that_others_read(empty):
    data = empty.js(
        """
        const { zip } = await import('/zip.js');
        const files = [['a/ö.txt', new TextEncoder().encode('hello')], ['b', new Uint8Array(0)]];
        return [...new Uint8Array(await (await zip(files)).arrayBuffer())]
        """
    )
    with zipfile.ZipFile(io.BytesIO(bytes(data))) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == ["a/ö.txt", "b"]
        assert archive.read("a/ö.txt") == b"hello"
