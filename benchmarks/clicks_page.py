"""What clicks save somebody who labels in the page: pointer actions and milliseconds to a preview.

    python benchmarks/clicks_page.py [--model M] [--pairs 20] [--seed 1000] [--size 480x640]

Drawn night scenes are labelled from nothing in `sartm app --annotate` with real clicks and drags in
Chromium, twice. With clicks: the click simulator (`sartm.data.targets`) clicks on each thing, and
again where the preview is wrong the deepest, until its IoU is 80 % or it has clicked five times. By
brush and fill, to the IoU that the clicks reached: by a dab, else by one straight stroke, else by
the coarsest outline that will do and a fill; the size of the brush and the class cost nothing.

A pointer action is a place that is aimed at: a click, a dab, each corner of an outline, a fill.
Presses of the button are counted as well, an outline being one. The time is from the end of a click
to the frame in which its mask is painted; the pair has been encoded before. The last line is one
JSON object. Needs chromium and chromium-driver, and the tests' folder beside this one.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from browser import Browser
from page import place

from sartm.classes import MFNET
from sartm.data.targets import Target, find_targets, iou, middle, next_click
from sartm.io.labels import read_label, write_label
from sartm.io.run_lengths import decode_mask
from sartm.scenes.dataset import SceneOptions, draw_scene

Truth = npt.NDArray[np.bool_]
Place = tuple[int, int]

SMALLEST, ENOUGH, MOST = 200, 0.8, 5
"""Pixels of a thing; the IoU at which nobody clicks on; clicks on one thing."""
TOLERANCES = (24, 16, 12, 8, 6, 5, 4, 3, 2.5, 2, 1.5, 1, 0.5, 0)
"""Pixels by which an outline may leave the thing's own."""
ENTER, ALT = "\ue007", "\ue00a"
WATCH = """
    window.answers = []; window.times = []; window.encoded = window.stored = 0;
    let pressed = 0, due = false;
    const real = window.fetch;
    window.fetch = async (path, options) => {
        const answer = await real(path, options);
        if (path.endsWith('/v1/scenes')) window.encoded++;
        if (options?.method === 'PUT' && answer.ok) window.stored++;
        if (path.endsWith('/mask')) {
            due = true;
            answer.clone().json().then(found => window.answers.push(found));
        }
        return answer;
    };
    addEventListener('pointerup', event => (pressed = event.timeStamp), true);
    new MutationObserver(() => {
        if (!due) return;
        due = false;
        const painted = () => window.times.push(performance.now() - pressed);
        requestAnimationFrame(() => setTimeout(painted));
    }).observe(document.getElementById('found'), { childList: true });
"""
"""Notes each answer, and when it was painted."""
SETTLED = (
    "return document.getElementById('busy').hidden && !document.getElementById('save').disabled"
)


@dataclass
class Effort:
    """What a way to label took."""

    places: int = 0
    presses: int = 0


@dataclass
class Strokes:
    """A thing by brush and fill."""

    mask: Truth
    diameter: int
    line: list[Place]
    """Where the pointer goes, pressed."""
    fill: Place | None = None

    @property
    def places(self) -> int:
        """What is aimed at; an outline ends where it began."""
        closed = len(self.line) > 2
        return len(set(self.line)) + int(closed) + int(self.fill is not None)


def stroke_mask(shape: tuple[int, int], line: list[Place], diameter: int) -> Truth:
    """What a round brush paints along a line, as the page does."""
    y, x = np.indices(shape)
    mask = np.zeros(shape, bool)
    reach = max(diameter / 2, 0.71) ** 2
    for a, b in zip(line, line[1:] or line, strict=False):
        dx, dy = b[0] - a[0], b[1] - a[1]
        along = ((x - a[0]) * dx + (y - a[1]) * dy) / max(dx * dx + dy * dy, 1)
        t = along.clip(0, 1)
        mask |= (x - a[0] - t * dx) ** 2 + (y - a[1] - t * dy) ** 2 <= reach
    return mask


def plan_strokes(found: Target, target: float) -> Strokes:
    """The least that brush and fill need for a thing at this IoU."""
    truth = found.mask
    spot, depth = middle(truth)
    rows, columns = np.nonzero(truth)
    centre = np.array([columns.mean(), rows.mean()])
    off = np.stack([columns, rows], 1) - centre
    axis = np.linalg.eigh(off.T @ off)[1][:, 1]  # the longer one
    spread = float((off @ axis).std())
    for length in (0.0, 0.6, 0.9, 1.2, 1.5):
        ends = [np.rint(centre + side * length * spread * axis).astype(int) for side in (-1, 1)]
        line = [(int(x), int(y)) for x, y in ends] if length else [spot]
        for factor in (1.0, 1.3, 1.6, 2.0, 2.5):
            diameter = min(80, max(1, round(2 * factor * depth)))
            mask = stroke_mask(found.mask.shape, line, diameter)
            if iou(mask, truth) >= target:
                return Strokes(mask, diameter, line)
    return _plan_outline(truth, target)


def _plan_outline(truth: Truth, target: float) -> Strokes:
    contours, _ = cv2.findContours(truth.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    contour = max(contours, key=len)
    for tolerance in TOLERANCES:
        corners = cv2.approxPolyDP(contour, tolerance, True)[:, 0]
        filled = np.zeros(truth.shape, np.uint8)
        cv2.fillPoly(filled, [corners], 1)
        if iou(filled == 1, truth) >= target:
            break
    line = [(int(x), int(y)) for x, y in corners]
    inner = cv2.erode(filled, np.ones((3, 3), np.uint8)) == 1
    return Strokes(filled == 1, 1, [*line, line[0]], middle(inner)[0] if inner.any() else None)


def write_pairs(folder: Path, seeds: range, size: tuple[int, int]) -> list[npt.NDArray[Any]]:
    """A folder of night scenes whose labels are blank; what they should be."""
    truths = []
    for kind in ("rgb", "thermal"):
        (folder / kind).mkdir(parents=True)
    for number, seed in enumerate(seeds):
        scene = draw_scene(seed, SceneOptions("night", size))
        cv2.imwrite(str(folder / "rgb" / f"{number:02}.png"), scene.rgb[..., ::-1])
        cv2.imwrite(str(folder / "thermal" / f"{number:02}.png"), scene.thermal)
        write_label(folder / "labels" / f"{number:02}.png", np.zeros(size, np.uint8))
        truths.append(scene.label)
    names = ", ".join(json.dumps(name) for name in MFNET.names)
    (folder / "dataset.toml").write_text(
        f'name = "night"\nclasses = [{names}]\n[files]\nrgb = "rgb/{{name}}.png"\n'
        f'thermal = "thermal/{{name}}.png"\nlabel = "labels/{{name}}.png"\n'
        f'[splits]\ntrain = "*"\n',
        encoding="utf-8",
    )
    return truths


@contextmanager
def serving_folder(folder: Path, model: str) -> Iterator[str]:
    """The address of `sartm app --annotate`."""
    command = [sys.executable, "-m", "sartm", "app", "--port", "0", "--device", "cpu"]
    command += ["--annotate", str(folder), "--model", model]
    service = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=dict(os.environ))
    assert service.stderr
    try:
        for line in service.stderr:
            if found := re.search(r"http://127\.0\.0\.1:\d+", line):
                rest = service.stderr  # to be read on, or the service waits once the pipe is full
                threading.Thread(target=deque, args=(rest, 0), daemon=True).start()
                yield found[0]
                return
        raise SystemExit(f"the service did not start: {' '.join(command)}")
    finally:
        service.terminate()
        service.wait(timeout=30)


class Page:
    """The page on one pair after another."""

    def __init__(self, browser: Browser, address: str, size: tuple[int, int]) -> None:
        self.browser, self.size, self.seen = browser, size, 0
        browser.resize(1600, 1000)
        browser.go(address)
        browser.wait(SETTLED)
        browser.js(WATCH)

    def draw(self, *line: Place) -> None:
        """Press, follow a line, let go."""
        spots = [place(self.browser, self.size, *at) for at in line]
        self.browser.drag(*(spots if len(spots) > 1 else spots * 2))

    def click(self, at: Place, adds: int) -> Truth:
        """Click, and what is previewed then."""
        with ExitStack() as held:
            if not adds:
                held.enter_context(self.browser.holding(ALT))
            self.draw(at)
        self.seen += 1
        self.browser.wait(f"return Math.min(answers.length, times.length) === {self.seen}")
        code = self.browser.js("return answers.at(-1).segmentation.counts")
        return decode_mask(code, self.size)

    def save(self, number: int, pairs: int) -> None:
        """Save, and be on the next pair, encoded where there are clicks."""
        self.browser.press("s")
        shown = f"{min(number + 2, pairs)} of {pairs},"
        self.browser.wait(
            f"return window.stored === {number + 1} && document.getElementById('busy').hidden"
            f" && document.getElementById('progress').textContent.startsWith('{shown}')"
        )


def click_thing(page: Page, found: Target, effort: Effort) -> float:
    """Label a thing by clicks; its IoU."""
    page.browser.press(str(found.class_id))
    click: tuple[Place, int] | None = (middle(found.mask)[0], 1)
    mask = np.zeros_like(found.mask)
    for _ in range(MOST):
        if click is None or iou(mask, found.mask) >= ENOUGH:
            break
        mask = page.click(*click)
        effort.places += 1
        effort.presses += 1
        click = next_click(mask, found.mask)
    page.browser.press(ENTER)
    return iou(mask, found.mask)


def brush_thing(page: Page, found: Target, target: float, effort: Effort) -> float:
    """Label a thing by brush and fill; its IoU."""
    plan, browser = plan_strokes(found, target), page.browser
    browser.press(str(found.class_id))
    browser.press("b")
    browser.js(
        "const s = document.getElementById('size'); s.value = arguments[0];"
        "s.dispatchEvent(new Event('input'))",
        plan.diameter,
    )
    page.draw(*plan.line)
    effort.presses += 1
    if plan.fill is not None:
        browser.press("f")
        page.draw(plan.fill)
        effort.presses += 1
    effort.places += plan.places
    return iou(plan.mask, found.mask)


def score(folder: Path, things: list[list[Target]]) -> float:
    """Mean IoU of the things in the labels that were saved, percent: of the likest part there."""
    found = []
    for number, objects in enumerate(things):
        labels = read_label(folder / "labels" / f"{number:02}.png")
        for thing in objects:
            x0, y0, x1, y1 = thing.box
            room = (slice(max(0, y0 - 20), y1 + 20), slice(max(0, x0 - 20), x1 + 20))
            mine = (labels == thing.class_id)[room]
            count, parts = cv2.connectedComponents(mine.astype(np.uint8))
            truth = thing.mask[room]
            found.append(max((iou(parts == k, truth) for k in range(1, count)), default=0.0))
    return round(100 * float(np.mean(found)), 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="mini")
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1000, help="of the first scene")
    parser.add_argument("--size", default="480x640", help="height x width in pixels")
    options = parser.parse_args()
    height, width = map(int, options.size.split("x"))
    size, seeds = (height, width), range(options.seed, options.seed + options.pairs)
    clicks, brush, reached, drawn = Effort(), Effort(), [], []
    browser = Browser(1600, 1000)
    with tempfile.TemporaryDirectory(prefix="sartm-clicks-") as home:
        folders = [Path(home) / way for way in ("clicks", "brush")]
        for folder in folders:
            truths = write_pairs(folder, seeds, size)
        things = [find_targets(truth, MFNET, SMALLEST) for truth in truths]
        try:
            with serving_folder(folders[0], options.model) as address:
                page = Page(browser, address, size)
                browser.click("input[name=tool][value=click]")
                for number, objects in enumerate(things):
                    browser.wait(f"return window.encoded > {number}")
                    reached += [click_thing(page, thing, clicks) for thing in objects]
                    page.save(number, options.pairs)
                    print(f"clicks {number + 1}: {clicks}", flush=True)
                times = browser.js("return window.times")
            with serving_folder(folders[1], options.model) as address:
                page, targets = Page(browser, address, size), iter(reached)
                for number, objects in enumerate(things):
                    drawn += [brush_thing(page, thing, next(targets), brush) for thing in objects]
                    page.save(number, options.pairs)
                    print(f"brush and fill {number + 1}: {brush}", flush=True)
        finally:
            browser.close()
        saved = [score(folder, things) for folder in folders]
    result = {
        "model": options.model, "pairs": options.pairs, "things": len(reached),
        "iou": {"clicks": round(100 * float(np.mean(reached)), 1),
                "brush": round(100 * float(np.mean(drawn)), 1)},
        "saved_iou": {"clicks": saved[0], "brush": saved[1]},
        "places": {"clicks": clicks.places, "brush": brush.places,
                   "ratio": round(clicks.places / brush.places, 3)},
        "presses": {"clicks": clicks.presses, "brush": brush.presses,
                    "ratio": round(clicks.presses / brush.presses, 3)},
        "milliseconds": {"median": round(float(np.median(times)), 1),
                         "p90": round(float(np.percentile(times, 90)), 1)},
    }  # fmt: skip
    print(json.dumps(result))


if __name__ == "__main__":
    main()
