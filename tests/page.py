"""What tests of the page share: one browser, one service, a pair; what they do, and read off."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from browser import Browser, serving

from sartm.io.labels import read_label
from sartm.scenes.dataset import SceneOptions, draw_scene

LABELLED = """
    return document.querySelectorAll('#legend li').length && document.getElementById('busy').hidden
"""
READY = "return document.documentElement.dataset.ready"
PLACES = """
    return [...document.querySelectorAll('button, select')].filter(e => e.offsetParent).map(e => {
        const r = e.getBoundingClientRect();
        return [e.id || e.textContent, r.x, r.y, r.width, r.height];
    })
"""
SEEN = "return document.getElementById('spot').textContent"


def open_page(browser: Browser, address: str) -> None:
    browser.go(address)
    browser.js("localStorage.clear()")
    browser.wait(READY)


def choose(browser: Browser, *files: Path) -> None:
    browser.type("#file", "\n".join(map(str, files)))


def frame(browser: Browser, index: int = 0) -> tuple[float, float, float, float]:
    """Left, top, scale and offset-corrected origin of the picture in a pane."""
    return tuple(
        browser.js(
            "const r = document.querySelectorAll('.pane canvas')[arguments[0]]"
            ".getBoundingClientRect(); return [r.x, r.y, r.width, r.height]",
            index,
        )
    )


def place(browser: Browser, size: tuple[int, int], x: float, y: float) -> tuple[float, float]:
    """Where a pixel of the fitted picture lies in the window."""
    left, top, width, height = frame(browser)
    scale = min(width / size[1], height / size[0])
    return (
        left + (width - size[1] * scale) / 2 + (x + 0.5) * scale,
        top + (height - size[0] * scale) / 2 + (y + 0.5) * scale,
    )


def paint(browser: Browser, index: int) -> None:
    browser.js(
        "const s = document.getElementById('paint'); s.value = arguments[0];"
        "s.dispatchEvent(new Event('change'))",
        index,
    )


def labels_of(browser: Browser) -> np.ndarray:
    return read_label(browser.downloaded(lambda: browser.click("#get-labels")))


@pytest.fixture(scope="session")
def work(tmp_path_factory) -> Path:
    """A model, a pair (real where there is one) and what `sartm predict` makes of it."""
    from sartm.cli.main import main
    from sartm.model.checkpoint import save
    from sartm.model.facts import ModelFacts

    folder = tmp_path_factory.mktemp("page")
    from conftest import SHARED, TINY, build

    save(build(TINY, seed=2), folder / "tiny", ModelFacts())
    rgb = sorted((SHARED / "data/msrs268/rgb").glob("*N.jpg"))[:1]
    if rgb:
        sources = {"rgb": rgb[0], "thermal": SHARED / "data/msrs268/thermal" / rgb[0].name}
        for kind, source in sources.items():
            (folder / f"{kind}.jpg").write_bytes(source.read_bytes())
    else:
        scene = draw_scene(5, SceneOptions(size=(240, 320)))
        cv2.imwrite(str(folder / "rgb.jpg"), scene.rgb[..., ::-1])
        cv2.imwrite(str(folder / "thermal.jpg"), scene.thermal)
    for modality in ("both", "rgb", "thermal"):
        command = ["predict", "--rgb", f"{folder}/rgb.jpg", "--thermal", f"{folder}/thermal.jpg"]
        command += ["--model", f"{folder}/tiny", "--precision", "fp32", "--modality", modality]
        assert main([*command, "--out", f"{folder}/{modality}"]) == 0
    return folder


@pytest.fixture(scope="session")
def predictors(work) -> dict[str, Any]:
    from sartm.app.server import load_predictors

    return load_predictors([str(work / "tiny")], device="cpu", precision="fp32")


@pytest.fixture(scope="session")
def address(predictors) -> Iterator[str]:
    from sartm.app.server import create_app

    with serving(create_app(predictors)) as address:
        yield address


@pytest.fixture(scope="session")
def window() -> Iterator[Browser]:
    browser = Browser()
    yield browser
    browser.close()


@pytest.fixture
def page(window, address, work) -> Iterator[Browser]:
    """The page with the pair on it; afterwards nothing may have been complained about."""
    window.resize(1280, 860)
    window.go("about:blank")
    open_page(window, address)
    choose(window, work / "rgb.jpg", work / "thermal.jpg")
    window.wait(LABELLED)
    window.complaints()
    yield window
    assert window.complaints() == []
