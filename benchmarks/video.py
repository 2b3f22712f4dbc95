"""What `sartm video` makes of a model's speed: pairs/s of a film beside those of `sartm bench`.

    python benchmarks/video.py [--frames 300] [--size 480x640] [--model mini] [--keep FILE.webm]

Draws a pair of films, measures the model before and after labelling them, and prints memory after
frame 50 and at the end; the last line is one JSON object.
"""

import argparse
import gc
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
import psutil
from torch import Tensor

from sartm.benchmark import Setting, bench
from sartm.inference.predictor import Images, Predictor
from sartm.inference.video import predict_video
from sartm.model.loading import load
from sartm.scenes.dataset import SceneOptions, draw_scene

Image = npt.NDArray[np.uint8]
RATE = 25


class Watched(Predictor):
    """A predictor that notes the process's memory and the time at each frame."""

    def __init__(self, model: str) -> None:
        super().__init__(load(model))
        self.times: list[float] = []
        self.memory: list[float] = []

    def batch_logits(self, pairs: Sequence[Images]) -> list[Tensor]:
        """As the predictor's own."""
        gc.collect(0)
        self.times.append(time.perf_counter())
        self.memory.append(psutil.Process().memory_info().rss / 2**20)
        return super().batch_logits(pairs)


def draw_film(path: Path, picture: Image, frames: int) -> None:
    """A drawn picture that drifts to the left, as H.264."""
    with av.open(str(path), "w") as film:
        stream = film.add_stream("libx264", rate=RATE)
        stream.height, stream.width = picture.shape[:2]
        stream.pix_fmt = "yuv420p"
        for index in range(frames):
            frame = av.VideoFrame.from_ndarray(np.roll(picture, -index, axis=1), format="rgb24")
            film.mux(stream.encode(frame))
        film.mux(stream.encode())


def measure(model: str, frames: int, size: tuple[int, int], out: Path | None) -> dict[str, Any]:
    """Pairs/s of the film, of the model alone before and after it, and memory in MiB."""
    setting = Setting(model=model, height=size[0], width=size[1])
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        scene = draw_scene(3, SceneOptions(size=size))
        draw_film(folder / "rgb.mp4", scene.rgb, frames)
        heat = np.repeat(scene.thermal[..., None], 3, axis=2)
        draw_film(folder / "thermal.mp4", heat, frames)
        alone = [bench(setting, rounds=15)["rows"][0]["pairs_per_second"]]
        watched = Watched(model)
        result = out or folder / "out.webm"
        predict_video(
            watched, folder / "rgb.mp4", folder / "thermal.mp4", result, model=model, overwrite=True
        )
        alone.append(bench(setting, rounds=15)["rows"][0]["pairs_per_second"])
    film = (frames - 1) / (watched.times[-1] - watched.times[0])
    early = watched.memory[min(49, frames - 1)]
    return {
        "size": list(size),
        "frames": len(watched.times),
        "bench_pairs_per_second": [round(value, 3) for value in alone],
        "video_pairs_per_second": round(film, 3),
        "ratio": round(film / statistics.mean(alone), 3),
        "growth_mib": round(watched.memory[-1] - early, 1),
    }


def main(words: Sequence[str]) -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--model", default="mini")
    parser.add_argument("--frames", type=int, default=300)
    parser.add_argument("--size", default="480x640")
    parser.add_argument("--keep", type=Path, help="where the labelled film goes")
    given = parser.parse_args(words)
    height, width = map(int, given.size.split("x"))
    print(json.dumps(measure(given.model, given.frames, (height, width), given.keep)))


if __name__ == "__main__":
    main(sys.argv[1:])
