"""What clicks cost: encoding against a pass for labels, a first and a further click, and as ONNX.

    python benchmarks/clicks.py --model M [--pairs 10] [--size 480x640] [--threads 2] [--seed 2000]

Drawn night pairs are labelled (the network, no label map) and encoded to click on, in turns within
one process; the ratio is of each turn, by the clock and by processor time. Then each thing of 200
pixels and more is clicked on by the click simulator, three times. Milliseconds are medians. The
exported files do the same in ONNX Runtime, on as many threads, in turns with PyTorch too. The last
line is one JSON object.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
import torch

from sartm.classes import MFNET
from sartm.click_export import export_clicks
from sartm.data.pairs import Sample
from sartm.data.targets import find_targets, next_click
from sartm.inference.clicks import Promptable, Scene
from sartm.model.loading import load
from sartm.model.sartm import SARTM
from sartm.scenes.dataset import SceneOptions, draw_scene

Array = npt.NDArray[Any]
SMALLEST, CLICKS = 200, 3


class Times:
    """Seconds by the clock and of the processor."""

    def __init__(self) -> None:
        self.clock: list[float] = []
        self.processor: list[float] = []

    def of(self, run: Callable[..., Any], *inputs: Any) -> Any:
        """What `run` gives, timed."""
        clock, processor = time.perf_counter(), time.process_time()
        found = run(*inputs)
        self.clock.append(time.perf_counter() - clock)
        self.processor.append(time.process_time() - processor)
        return found

    def milliseconds(self) -> dict[str, float]:
        values = 1000 * np.array(self.clock)
        return {
            "median": round(float(np.median(values)), 1),
            "p90": round(float(np.percentile(values, 90)), 1),
            "processor": round(1000 * float(np.median(self.processor)), 1),
        }


def ratio(some: Times, others: Times) -> dict[str, float]:
    """Median of the turns' ratios."""
    pairs = (("clock", some.clock, others.clock), ("processor", some.processor, others.processor))
    return {name: round(float(np.median(np.array(a) / np.array(b))), 3) for name, a, b in pairs}


class Exported:
    """Both files, on as many threads."""

    def __init__(self, model: SARTM, folder: Path, size: tuple[int, int], threads: int) -> None:
        self.found = export_clicks(model, folder, size=size)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = threads, 4
        self.encoder, self.decoder = (
            onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
            for path in (self.found.encoder, self.found.decoder)
        )
        self.names = [value.name for value in self.encoder.get_outputs()]

    def encode(self, rgb: Array | None, thermal: Array | None) -> dict[str, Array]:
        assert rgb is not None
        assert thermal is not None
        maps = self.encoder.run(None, {"rgb": rgb[None], "thermal": thermal[None]})
        return dict(zip(self.names, maps, strict=True))

    def click(
        self, maps: dict[str, Array], points: list[Any], labels: list[int], before: Array | None
    ) -> Array:
        shape = next(x.shape for x in self.decoder.get_inputs() if x.name == "mask_input")
        prompt = {
            "points": np.array(points, np.float32),
            "labels": np.array(labels, np.int32),
            "mask_input": np.zeros(shape, np.float32) if before is None else before,
            "has_mask": np.array([before is not None]),
        }
        mask: Array = self.decoder.run(["mask"], maps | prompt)[0]
        return mask


class Race:
    """PyTorch and the exported files on the same pairs and clicks."""

    def __init__(self, prompt: Promptable, exported: Exported) -> None:
        self.prompt, self.exported = prompt, exported
        self.label, self.encode = Times(), Times()
        self.clicks = {"first click": Times(), "further click": Times()}
        self.onnx_encode = Times()
        self.onnx_clicks = {"first click": Times(), "further click": Times()}
        self.same: list[float] = []
        """Share of the pixels of each mask."""

    def run(self, seed: int, size: tuple[int, int]) -> None:
        """One drawn pair."""
        scene = draw_scene(seed, SceneOptions("night", size))
        images = self.prompt.predictor.inputs(Sample("drawn", scene.rgb, scene.thermal))
        if seed % 2:
            self.label.of(self.prompt.predictor.logits, *images)
        encoded = self.encode.of(self.prompt.encode_inputs, images)
        if not seed % 2:
            self.label.of(self.prompt.predictor.logits, *images)
        maps = self.onnx_encode.of(self.exported.encode, *images)
        for thing in find_targets(scene.label, MFNET, SMALLEST):
            self._click(encoded, maps, thing.mask)

    def _click(self, encoded: Scene, maps: dict[str, Array], truth: Array) -> None:
        points: list[tuple[float, float]] = []
        labels: list[int] = []
        mask = before = None
        for number in range(CLICKS):
            click = next_click(mask, truth)
            if click is None:
                return
            points.append(click[0])
            labels.append(click[1])
            kind = "further click" if number else "first click"
            found = self.clicks[kind].of(self.prompt.mask, encoded, points, labels, None, before)
            other = self.onnx_clicks[kind].of(self.exported.click, maps, points, labels, before)
            self.same.append(float((found.mask == other).mean()))
            mask, before = found.mask, found.logits

    def rows(self) -> dict[str, Times]:
        """By what was timed."""
        rows = {"pass for labels": self.label, "encode": self.encode, **self.clicks}
        onnx = {"encode": self.onnx_encode, **self.onnx_clicks}
        return rows | {f"{name}, ONNX": times for name, times in onnx.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="mini")
    parser.add_argument("--pairs", type=int, default=10)
    parser.add_argument("--size", default="480x640", help="height x width in pixels")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=2000, help="of the first scene")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    height, width = map(int, options.size.split("x"))
    model = load(options.model)
    assert isinstance(model, SARTM)
    prompt = Promptable(model, device="cpu", precision="fp32", thermal_range="model")
    with tempfile.TemporaryDirectory(prefix="sartm-clicks-") as home:
        folder = Path(home) / "exported"
        exported = Exported(model, folder, (height, width), options.threads)
        Race(prompt, exported).run(options.seed, (height, width))  # what is first is slow
        race = Race(prompt, exported)
        for seed in range(options.seed, options.seed + options.pairs):
            race.run(seed, (height, width))
    rows = {name: times.milliseconds() for name, times in race.rows().items()}
    for name, shown in rows.items():
        print(f"{name:20} {shown['median']:8.1f} ms, p90 {shown['p90']:.1f}, "
              f"processor {shown['processor']:.1f}")  # fmt: skip
    result = {
        "model": options.model, "size": options.size, "threads": options.threads,
        "pairs": options.pairs, "clicks": len(race.same), "milliseconds": rows,
        "encode_over_label": ratio(race.encode, race.label),
        "onnx_same_pixels": round(float(np.mean(race.same)), 6),
    }  # fmt: skip
    print(json.dumps(result))


if __name__ == "__main__":
    main()
