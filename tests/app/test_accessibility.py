"""The page for people who cannot see it well, or use no mouse: what axe-core finds, in Chromium."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from browser import MISSING, Browser, serving
from conftest import CLICKED, build
from page import LABELLED, READY, choose, open_page

pytest.importorskip("fastapi")
if MISSING:
    pytest.skip(f"the page needs a browser: {MISSING}", allow_module_level=True)

from sartm.app.annotation import open_annotation
from sartm.app.server import create_app
from sartm.inference.predictor import Predictor

ROOT = Path(__file__).resolve().parents[2]
AXE = Path(os.environ.get("AXE", ROOT / "node_modules" / "axe-core" / "axe.min.js"))
"""Fetched by .ci/run, and by hand with: npm install --no-save axe-core (MPL-2.0, not shipped)."""
GRAVE = ("serious", "critical")
THEMES = ("light", "dark")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not AXE.is_file(), reason=f"no axe-core at {AXE}: npm install axe-core"),
]


def violations(browser: Browser) -> list[tuple[str, str, list[str]]]:
    """Rule, impact and elements of what is serious, of the page as it is now."""
    found = browser.js(
        AXE.read_text("utf-8") + ";return (await axe.run(document)).violations.map(v =>"
        "[v.id, v.impact, v.nodes.map(n => n.target.join(' ') + ': ' + n.failureSummary)])"
    )
    return [(rule, impact, nodes) for rule, impact, nodes in found if impact in GRAVE]


def in_each_theme_and_size(browser: Browser, show: Callable[[], None]) -> list[str]:
    problems = []
    for theme in THEMES:
        media = [{"name": "prefers-color-scheme", "value": theme}]
        browser.cdp("Emulation.setEmulatedMedia", features=media)
        for width, height, phone in ((1280, 800, False), (390, 844, True)):
            browser.resize(width, height, phone=phone)
            show()
            problems += [f"{theme} {width}: {problem}" for problem in violations(browser)]
    browser.cdp("Emulation.setEmulatedMedia", features=[])
    browser.resize(1280, 860)
    return problems


def test_the_start_and_the_description_of_the_api(window, address):
    def start() -> None:
        window.go("about:blank")
        open_page(window, address)

    def description() -> None:
        window.go(f"{address}/docs")
        window.wait("return document.body.innerText.includes('/v1/segment')")

    assert in_each_theme_and_size(window, start) == []
    assert in_each_theme_and_size(window, description) == []


def test_a_pair_in_every_view_and_the_dialog_of_keys(window, address, work):
    window.go("about:blank")
    open_page(window, address)
    choose(window, work / "rgb.jpg", work / "thermal.jpg")
    window.wait(LABELLED)
    for base in ("rgb", "thermal", "confidence"):
        window.click(f"input[name=base][value={base}]")
        assert violations(window) == []
    window.click("#edit")
    assert in_each_theme_and_size(window, lambda: None) == []
    window.click("#help")
    assert violations(window) == []


def test_several_pairs_with_one_that_failed(window, address, work, tmp_path):
    for name in ("a", "b"):
        for kind in ("rgb", "thermal"):
            shutil.copy(work / f"{kind}.jpg", tmp_path / f"{name}_{kind}.jpg")
    (tmp_path / "c_rgb.jpg").write_text("no image")
    window.go("about:blank")
    open_page(window, address)
    choose(window, *sorted(tmp_path.iterdir()))
    window.wait(LABELLED)
    window.wait("return document.querySelector('#items [data-status=failed]')")
    assert in_each_theme_and_size(window, lambda: None) == []
    window.complaints()


def test_clicking_on_a_thing(window, work):
    models = {"clicked": Predictor(build(CLICKED, seed=2), device="cpu", precision="fp32")}
    with serving(create_app(models)) as address:
        window.go("about:blank")
        open_page(window, address)
        choose(window, work / "rgb.jpg", work / "thermal.jpg")
        window.wait(LABELLED)
        window.click("#edit")
        window.click("input[name=tool][value=click]")
        assert violations(window) == []
        window.js("document.querySelector('.pane canvas').focus()")
        window.press(" ")
        window.wait("return !document.getElementById('accept').disabled")
        assert in_each_theme_and_size(window, lambda: None) == []


def test_annotating_a_folder(window, predictors, work, tmp_path):
    for kind in ("rgb", "thermal"):
        (tmp_path / kind).mkdir()
        for name in ("one", "two"):
            shutil.copy(work / f"{kind}.jpg", tmp_path / kind / f"{name}.jpg")
    classes = predictors["tiny"].classes
    app = create_app(predictors, annotation=open_annotation(tmp_path, None, classes))
    with serving(app) as address:
        window.go("about:blank")
        window.go(address)
        window.wait(READY)
        window.wait(LABELLED)
        assert in_each_theme_and_size(window, lambda: None) == []


def test_what_axe_finds_is_seen(window, address):
    """Guards the guard: a button without a name is a violation."""
    window.go("about:blank")
    open_page(window, address)
    window.js("document.querySelector('main').append(document.createElement('button'))")
    assert "button-name" in json.dumps(violations(window))
