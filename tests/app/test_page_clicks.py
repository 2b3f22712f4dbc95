"""Clicks in the page, in a real Chromium: what they find is previewed, painted, taken back."""

import json
import time
import urllib.request
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from browser import LOOPBACK, MISSING, Browser, serving
from conftest import CLICKED, TINY, build
from page import LABELLED, choose, frame, labels_of, open_page, paint, place

pytest.importorskip("fastapi")
if MISSING:
    pytest.skip(f"the page needs a browser: {MISSING}", allow_module_level=True)

from test_hostile import form

from sartm.app.guard import Limits
from sartm.app.server import create_app
from sartm.inference.clicks import Promptable, Scene
from sartm.inference.predictor import Predictor
from sartm.scenes.dataset import SceneOptions, draw_scene

pytestmark = pytest.mark.slow

SIZE = (240, 320)
ALT, SHIFT, CONTROL, ENTER, ESCAPE = "\ue00a", "\ue008", "\ue009", "\ue007", "\ue00c"
HOOK = """
    window.prompts = []; window.scenes = []; window.delays = [];
    const real = window.fetch;
    window.fetch = async (path, options) => {
        if (path.endsWith('/mask')) {
            window.prompts.push(JSON.parse(options.body));
            const delay = window.delays.shift();
            if (delay) await new Promise(done => setTimeout(done, delay));
        }
        if (path.endsWith('/v1/scenes')) window.scenes.push(options.body.get('modality'));
        return real(path, options);
    };
"""
"""Notes what the page asks of the service, and lets an answer come late."""
FOUND = "document.getElementById('found').textContent"
PREVIEWED = f"return {FOUND}.includes('pixels') && {FOUND}"
NOTHING = f"return !{FOUND}.includes('pixels')"
UNDOABLE = "return !document.getElementById('undo').disabled"


@pytest.fixture(scope="module")
def drawn(tmp_path_factory) -> SimpleNamespace:
    folder = tmp_path_factory.mktemp("clicks")
    scene = draw_scene(5, SceneOptions("night", size=SIZE))
    cv2.imwrite(str(folder / "rgb.png"), scene.rgb[..., ::-1])
    cv2.imwrite(str(folder / "thermal.png"), scene.thermal)
    return SimpleNamespace(rgb=folder / "rgb.png", thermal=folder / "thermal.png", scene=scene)


@pytest.fixture(scope="module")
def models() -> dict[str, Predictor]:
    def ready(config: Any) -> Predictor:
        return Predictor(build(config, seed=2), device="cpu", precision="fp32")

    return {"clicked": ready(CLICKED), "plain": ready(TINY)}


@pytest.fixture(scope="module")
def service(models) -> Iterator[str]:
    with serving(create_app(models, limits=Limits(scenes=2))) as address:
        yield address


def send_pair(service: str, drawn: SimpleNamespace) -> None:
    """As another user of the service would, to click on it."""
    kind = {"Content-Type": "multipart/form-data; boundary=x"}
    files = {"rgb": drawn.rgb.read_bytes(), "thermal": drawn.thermal.read_bytes()}
    request = urllib.request.Request(f"{service}/v1/scenes", form(files), kind)
    with LOOPBACK.open(request, timeout=60) as answer:
        assert json.load(answer)["id"]


@pytest.fixture(scope="module")
def oracle(models, drawn) -> "Oracle":
    return Oracle(models["clicked"], drawn.scene)


class Oracle:
    """What the library makes of the prompts that the page sent, one after another."""

    def __init__(self, predictor: Predictor, scene: Any) -> None:
        self.prompt = Promptable(predictor)
        pairs = {
            "both": (scene.rgb, scene.thermal),
            "rgb": (scene.rgb, None),
            "thermal": (None, scene.thermal),
        }
        self.scenes: dict[str, Scene] = {
            name: self.prompt.encode(*pair) for name, pair in pairs.items()
        }

    def masks(self, prompts: list[dict[str, Any]], modality: str = "both") -> list[np.ndarray]:
        found, answers = [], {}
        for number, prompt in enumerate(prompts, 1):
            mask = self.prompt.mask(
                self.scenes[modality],
                [tuple(point) for point in prompt["points"]],
                prompt["labels"],
                prompt.get("box"),
                answers[prompt["after"]] if "after" in prompt else None,
            )
            answers[number] = mask.logits.astype(np.float16).astype(np.float32)
            found.append(mask.mask)
        return found


@pytest.fixture
def page(window, service, drawn) -> Iterator[Browser]:
    """The page with the pair on it, clicking on it for class 5."""
    window.resize(1280, 860)
    window.go("about:blank")
    open_page(window, service)
    window.js(HOOK)
    choose(window, drawn.rgb, drawn.thermal)
    window.wait(LABELLED)
    window.complaints()
    window.click("#edit")
    window.click("input[name=tool][value=click]")
    paint(window, 5)
    yield window
    assert window.complaints() == []


def click(page: Browser, x: int, y: int, key: str = "") -> None:
    spot = place(page, SIZE, x, y)
    if not key:
        page.drag(spot, spot)
        return
    with page.holding(key):
        page.drag(spot, spot)


def prompts(page: Browser, count: int) -> list[dict[str, Any]]:
    """What was asked, once that many answers are there."""
    page.wait(f"return window.prompts.length >= {count} && document.getElementById('busy').hidden")
    asked = page.js("return window.prompts")
    assert len(asked) == count
    return asked


def pixel(page: Browser, x: int, y: int) -> np.ndarray:
    """Colour on the screen."""
    left, top, _, _ = frame(page)
    at = place(page, SIZE, x, y)
    return np.array(
        page.js(
            "await new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)));"
            "const c = document.querySelector('.pane canvas').getContext('2d');"
            "return [...c.getImageData(arguments[0], arguments[1], 1, 1).data].slice(0, 3)",
            round(at[0] - left), round(at[1] - top),
        ),
        float,
    )  # fmt: skip


def test_what_a_click_finds_is_previewed_and_painted_by_enter_as_one_change(page, oracle, models):
    before = labels_of(page)
    frames = frame(page)
    page.js("const s = document.getElementById('opacity'); s.value = 0;"
            "s.dispatchEvent(new Event('input'))")  # fmt: skip
    click(page, 100, 80)
    said = page.wait(PREVIEWED)
    [asked] = prompts(page, 1)
    assert asked["labels"] == [1]
    assert np.abs(np.array(asked["points"]) - (100, 80)).max() <= 0.5
    [mask] = oracle.masks([asked])
    assert 0 < mask.mean() < 1
    assert said.startswith(f"{TINY.classes.names[5].replace('_', ' ')}: {mask.sum()} pixels")
    assert frame(page) == frames  # nothing moves under the pointer

    inner = cv2.erode(np.pad(mask, 1).astype(np.uint8), np.ones((9, 9)))[1:-1, 1:-1]
    y, x = np.argwhere(inner)[len(np.argwhere(inner)) // 2]
    shown = pixel(page, x, y)
    page.press("3")  # another class: another colour at once
    other = pixel(page, x, y)
    assert np.abs(shown - other).max() > 20
    page.press("5")
    np.testing.assert_allclose(pixel(page, x, y), shown)
    page.press(ESCAPE)
    base = pixel(page, x, y)
    assert np.abs(shown - base).max() > 20
    assert page.js(NOTHING)
    assert not page.js(UNDOABLE)

    click(page, 100, 80)
    page.wait(PREVIEWED)
    page.press(ENTER)
    assert page.js(NOTHING)
    after = labels_of(page)
    np.testing.assert_array_equal(after, np.where(mask, 5, before))
    page.press(CONTROL, "z")
    np.testing.assert_array_equal(labels_of(page), before)
    assert not page.js(UNDOABLE)
    page.press(CONTROL, "y")
    np.testing.assert_array_equal(labels_of(page), after)


def test_alt_takes_away_a_drag_is_a_box_and_undo_takes_the_last_click_back(page, oracle):
    before = labels_of(page)
    click(page, 100, 80)
    first = page.wait(PREVIEWED)
    click(page, 200, 150, ALT)
    asked = prompts(page, 2)
    assert asked[1]["labels"] == [1, 0]
    assert asked[1]["after"] == 1
    page.drag(place(page, SIZE, 40, 40), place(page, SIZE, 90, 60), place(page, SIZE, 180, 170))
    asked = prompts(page, 3)
    assert len(asked[2]["points"]) == 2
    assert np.abs(np.array(asked[2]["box"]) - (40, 40, 180, 170)).max() <= 0.5
    masks = oracle.masks(asked)
    page.press(CONTROL, "z")
    assert f"{masks[1].sum()} pixels" in page.wait(PREVIEWED)
    page.press(CONTROL, "z")
    assert page.wait(PREVIEWED) == first
    page.press(CONTROL, "z")
    assert page.js(NOTHING)
    np.testing.assert_array_equal(labels_of(page), before)

    page.drag(place(page, SIZE, 180, 170), place(page, SIZE, 40, 40))  # a box alone, from below
    asked = prompts(page, 4)
    assert asked[3]["points"] == []
    page.click("#accept")
    expected = np.where(oracle.masks([asked[3]])[0], 5, before)
    np.testing.assert_array_equal(labels_of(page), expected)


def test_to_take_away_there_must_be_something(page):
    click(page, 100, 80, ALT)
    assert "Click on a thing first" in page.js("return document.getElementById('toasts').innerText")
    assert page.js("return window.prompts") == []


def test_clicks_see_what_the_model_sees_whatever_is_shown(page, oracle):
    page.js("document.activeElement.blur()")
    for modality in ("both", "rgb", "thermal"):
        page.click(f"input[name=mode][value={modality}]")
        page.wait(LABELLED)
        for base in ("thermal", "rgb"):
            page.click(f"input[name=base][value={base}]")
            page.js("window.prompts.length = 0")
            click(page, 100, 80)
            page.wait(PREVIEWED)
            [mask] = oracle.masks(prompts(page, 1), modality)
            assert f"{mask.sum()} pixels" in page.js(f"return {FOUND}")
            page.press(ESCAPE)
    # Encoded once for each, not for each click.
    assert page.js("return window.scenes") == ["both", "rgb", "thermal"]


def test_answers_to_older_clicks_are_dropped_and_nothing_waits_for_them(page, oracle):
    page.js("window.delays.push(1500)")
    before = labels_of(page)
    for x in (100, 150, 200):
        click(page, x, 80)
    page.press("3")  # the page goes on
    assert page.js("return document.getElementById('paint').value") == "3"
    asked = prompts(page, 2)  # the second click was overtaken before it was asked for
    assert [len(prompt["points"]) for prompt in asked] == [1, 3]
    assert f"{oracle.masks(asked)[1].sum()} pixels" in page.wait(PREVIEWED)
    page.press(CONTROL, "z")  # back to the second click, which has no answer yet
    asked = prompts(page, 3)
    assert len(asked[2]["points"]) == 2
    page.press(ESCAPE)

    page.js("window.delays.push(1000)")
    click(page, 100, 80)
    page.press(ENTER)  # before anything was found
    click(page, 200, 150)  # which is another thing already
    page.js("window.prompts.splice(0, 3)")
    asked = prompts(page, 2)
    assert [len(prompt["points"]) for prompt in asked] == [1, 1]
    page.press(ESCAPE)
    expected = np.where(oracle.masks(asked[:1])[0], 3, before)
    np.testing.assert_array_equal(labels_of(page), expected)


def test_an_open_preview_is_painted_when_the_tool_is_left_or_the_map_is_saved(page, oracle):
    before = labels_of(page)
    for leave in (lambda: page.press("b"), lambda: page.click("#edit"), lambda: None):
        page.js("window.prompts.length = 0")
        click(page, 100, 80)
        page.wait(PREVIEWED)
        [mask] = oracle.masks(prompts(page, 1))
        leave()
        np.testing.assert_array_equal(labels_of(page), np.where(mask, 5, before))
        if not page.js("return document.getElementById('tools').offsetParent !== null"):
            page.click("#edit")
        page.js("document.activeElement.blur()")
        page.press("a")
        page.press(CONTROL, "z")
        np.testing.assert_array_equal(labels_of(page), before)


def test_a_scene_that_the_service_dropped_is_sent_again(page, service, oracle, drawn):
    click(page, 100, 80)
    first = page.wait(PREVIEWED)
    for _ in range(2):  # as many as the service keeps
        send_pair(service, drawn)
    click(page, 200, 150)
    page.wait(f"return {FOUND} !== {json.dumps(first)}")
    asked = page.js("return window.prompts")
    assert [set(prompt) >= {"mask"} for prompt in asked] == [False, False, True]
    assert page.js("return window.scenes.length") == 2
    assert all("404" in complaint for complaint in page.complaints())


def test_the_keyboard_alone_clicks_in_the_middle(page, oracle):
    before = labels_of(page)
    page.js("document.querySelector('.pane canvas').focus()")
    page.press(" ")
    page.wait(PREVIEWED)
    page.press("\ue012")  # the picture moves to the right
    page.press("\ue015")
    page.press(SHIFT, " ")
    asked = prompts(page, 2)
    assert asked[1]["labels"] == [1, 0]
    page.press(ENTER)
    expected = np.where(oracle.masks(asked)[1], 5, before)
    np.testing.assert_array_equal(labels_of(page), expected)


def test_fingers_tap_and_press_long(page, oracle):
    before = labels_of(page)
    page.resize(390, 844, phone=True)
    page.js("window.scrollTo(0, 0)")

    def touch(kind: str, *points: tuple[float, float]) -> None:
        fingers = [{"x": x, "y": y, "id": index} for index, (x, y) in enumerate(points)]
        page.cdp("Input.dispatchTouchEvent", type=kind, touchPoints=fingers)

    touch("touchStart", place(page, SIZE, 100, 80))
    touch("touchEnd")
    page.wait(PREVIEWED)
    places = frame(page)
    touch("touchStart", place(page, SIZE, 200, 150))
    page.wait("return window.prompts.length === 2")  # while the finger is still down
    touch("touchEnd")
    asked = prompts(page, 2)
    assert asked[1]["labels"] == [1, 0]
    left, top, width, height = places
    x, y = left + width / 2, top + height / 2
    touch("touchStart", (x - 30, y))
    touch("touchStart", (x - 30, y), (x + 30, y))  # a second finger: no click
    touch("touchMove", (x - 40, y), (x + 40, y))
    touch("touchEnd")
    time.sleep(0.6)  # longer than a long press
    assert page.js("return window.prompts.length") == 2
    assert frame(page) == places
    page.click("#takes")
    page.click("#fit")
    page.js("window.scrollTo(0, 0)")
    touch("touchStart", place(page, SIZE, 50, 150))
    touch("touchEnd")
    asked = prompts(page, 3)
    assert asked[2]["labels"] == [1, 0, 0]
    page.click("#accept")
    expected = np.where(oracle.masks(asked)[2], 5, before)
    np.testing.assert_array_equal(labels_of(page), expected)


def test_a_model_without_clicks_says_so(page):
    page.js("document.activeElement.blur()")
    page.js("const s = document.getElementById('model'); s.value = 'plain';"
            "s.dispatchEvent(new Event('change'))")  # fmt: skip
    page.wait(LABELLED)
    assert page.js("return document.getElementById('click-tool').hidden")
    assert page.js("return document.querySelector('input[name=tool]:checked').value") == "brush"
    page.press("a")
    assert "Choose clicked" in page.js("return document.getElementById('toasts').innerText")
    assert page.js("return document.querySelector('input[name=tool]:checked').value") == "brush"
