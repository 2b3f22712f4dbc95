"""What a manifest costs beside labelling: memory, time, and the way through Ray.

    python benchmarks/fleet.py memory --pairs 100000     real pipeline, a network that is none
    python benchmarks/fleet.py time --pairs 400          what is outside labelling, at 480x640
    python benchmarks/fleet.py ray --pairs 300           the same pairs by this process and by Ray

The last line of each is one JSON object. Pairs are few files that many rows of a manifest name.
"""

import argparse
import gc
import json
import os
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import torch

from sartm.config import DecoderConfig, FusionConfig, ModelConfig
from sartm.data.manifest import Manifest, Row, write_manifest
from sartm.fleet.labeller import PairLabeller
from sartm.fleet.labelling import Way, label_manifest
from sartm.inference import products
from sartm.inference.alarm import check_pair
from sartm.inference.options import PredictOptions
from sartm.model.sartm import SARTM

FILES = 40
SIZES = {"memory": (48, 64), "time": (480, 640), "ray": (480, 640)}
OPTIONS = PredictOptions(overlay=False)


def link_pairs(folder: Path, count: int, size: tuple[int, int]) -> Manifest:
    """A manifest of `count` rows over a few drawn pairs."""
    for index in range(FILES):
        draw = np.random.default_rng(index)
        coarse = draw.integers(0, 255, (size[0] // 8, size[1] // 8, 4), np.uint8)
        smooth = cv2.resize(coarse, size[::-1], interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(folder / f"rgb{index}.jpg"), smooth[..., :3])
        cv2.imwrite(str(folder / f"thermal{index}.png"), smooth[..., 3])
    rows = (
        Row(f"{n // 1000:04d}/{n:07d}", f"rgb{n % FILES}.jpg", f"thermal{n % FILES}.png")
        for n in range(count)
    )
    write_manifest(rows, folder / "pairs.parquet")
    return Manifest(str(folder / "pairs.parquet"))


def stub(workers: int | None = None) -> PairLabeller:
    """A labeller whose network gives the same logits for everything, at once."""
    config = ModelConfig(
        size="test", width=32, decoder=DecoderConfig(heads=4, mlp_dim=64),
        fusion=FusionConfig(crop=(64, 96)),
    )  # fmt: skip
    labeller = PairLabeller(SARTM(config).eval(), options=OPTIONS, workers=workers, name="stub")

    def network(rgb: torch.Tensor | None, thermal: torch.Tensor | None) -> torch.Tensor:
        seen = rgb if rgb is not None else thermal
        height, width = seen.shape[-2:]
        ramp = torch.linspace(0, 1, width // 4).expand(height // 4, width // 4)
        return torch.stack([ramp * k for k in range(9)]).expand(len(seen), -1, -1, -1)

    labeller.workshop().predictor.network = network
    return labeller


def resident() -> float:
    """MiB of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def measure_memory(folder: Path, pairs: int) -> dict[str, float]:
    # whether cameras are registered takes 30 ms whatever the size: an hour here, for nothing
    products.check_pair = partial(check_pair, registration=False)
    manifest, labeller = link_pairs(folder, pairs, SIZES["memory"]), stub()
    seen: dict[int, float] = {}
    record, ended = folder / "out/record.jsonl", threading.Event()

    def watch() -> None:
        lines = position = 0
        while not ended.wait(0.5):
            if record.exists():
                with record.open("rb") as file:
                    file.seek(position)
                    data = file.read()
                    position, lines = position + len(data), lines + data.count(b"\n")
                del data
                for mark in (1000, 10_000, 30_000, 100_000, 300_000):
                    if lines >= mark and mark not in seen:
                        gc.collect()
                        seen[mark] = round(resident(), 1)
                        print(f"{mark} pairs: {seen[mark]:.0f} MiB", flush=True)

    watcher = threading.Thread(target=watch)
    watcher.start()
    begun = time.monotonic()
    label_manifest(labeller, manifest, str(folder / "out"), Way(sink="files"))
    seconds = time.monotonic() - begun
    ended.set()
    watcher.join()
    size = record.stat().st_size
    begun = time.monotonic()
    again = label_manifest(labeller, manifest, str(folder / "out"), Way(sink="files"))
    assert again.skipped == pairs
    return {
        "pairs": pairs, "mib_after_1000": seen.get(1000, 0), "mib_at_end": round(resident(), 1),
        "marks": seen, "seconds": round(seconds, 1), "record_bytes_per_pair": round(size / pairs),
        "seconds_of_rerun": round(time.monotonic() - begun, 1),
    }  # fmt: skip


def measure_time(folder: Path, pairs: int) -> dict[str, float]:
    """Labelling alone is the same answers, thrown away."""
    manifest, labeller = link_pairs(folder, pairs, SIZES["time"]), stub()

    def rows() -> Iterator[Row]:
        return iter(manifest)

    alone, whole = [], []
    for turn in range(3):
        begun = time.monotonic()
        for _ in labeller.answer(rows()):
            pass
        alone.append(time.monotonic() - begun)
        begun = time.monotonic()
        label_manifest(labeller, manifest, str(folder / f"out{turn}"), Way())
        whole.append(time.monotonic() - begun)
    each = [1 - a / w for a, w in zip(alone, whole, strict=True)]
    return {
        "pairs": pairs, "labelling_s": [round(s, 2) for s in alone],
        "whole_s": [round(s, 2) for s in whole],
        "outside_percent": round(100 * float(np.median(each)), 1),
    }  # fmt: skip


def measure_ray(folder: Path, pairs: int) -> dict[str, float]:
    from sartm.model.loading import load

    manifest, found = link_pairs(folder, pairs, SIZES["ray"]), {}
    for engine in ("local", "ray"):
        labeller = PairLabeller(load("mini"), options=OPTIONS, name="mini")
        labeller.workers = None if engine == "local" else 1
        begun = time.monotonic()
        way = replace(Way(), engine=engine)
        label_manifest(labeller, manifest, str(folder / engine), way)
        first = time.monotonic() - begun
        found[f"{engine}_s"] = round(first, 1)
        found[f"{engine}_pairs_per_s"] = round(pairs / first, 2)
    same = [
        path.read_bytes() == (folder / "ray" / path.relative_to(folder / "local")).read_bytes()
        for path in (folder / "local/labels").rglob("*.png")
    ]
    assert len(same) == pairs
    assert all(same)
    return {"pairs": pairs} | found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("what", choices=SIZES)
    parser.add_argument("--pairs", type=int, default=1000)
    chosen = parser.parse_args()
    measure = {"memory": measure_memory, "time": measure_time, "ray": measure_ray}[chosen.what]
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps({"what": chosen.what} | measure(Path(folder), chosen.pairs)))


if __name__ == "__main__":
    main()
