"""What a manifest costs beside labelling: memory, time, and the way through Ray.

    python benchmarks/fleet.py memory --pairs 100000     real pipeline, a network that is none
    python benchmarks/fleet.py time --pairs 400          what is outside labelling, at 480x640
    python benchmarks/fleet.py ray --pairs 300           the same pairs by this process and by Ray
    python benchmarks/fleet.py cluster --pairs 2000 --data DATASET [--data DATASET]
                                                         two nodes: one is killed, then a driver is

The last line of each is one JSON object. Pairs are few files that many rows of a manifest name:
drawn ones, for `cluster` those of data sets. `memory --registration` leaves the check of the
cameras in, which takes 30 ms a pair.
"""

import argparse
import gc
import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import torch

from sartm.config import DecoderConfig, FusionConfig, ModelConfig
from sartm.data.layouts import open_layout
from sartm.data.manifest import Manifest, Row, rows_of, write_manifest
from sartm.fleet.labeller import PairLabeller
from sartm.fleet.labelling import Way, label_manifest
from sartm.inference import products
from sartm.inference.alarm import check_pair
from sartm.inference.options import PredictOptions
from sartm.model.sartm import SARTM

FILES = 40
TURNS = 6
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


def measure_memory(folder: Path, pairs: int, registration: bool) -> dict[str, object]:
    if not registration:  # which takes 30 ms whatever the size: an hour here, for nothing
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
        "pairs": pairs, "registration": registration,
        "mib_after_1000": seen.get(1000, 0), "mib_at_end": round(resident(), 1),
        "marks": seen, "seconds": round(seconds, 1), "record_bytes_per_pair": round(size / pairs),
        "seconds_of_rerun": round(time.monotonic() - begun, 1),
    }  # fmt: skip


def measure_time(folder: Path, pairs: int) -> dict[str, object]:
    """Labelling alone is the same answers, thrown away.

    In time of the processor, all threads, so that what else runs here counts for little; in turns,
    so that what is left of it meets both.
    """
    manifest, labeller = link_pairs(folder, pairs, SIZES["time"]), stub()
    spent: dict[str, list[tuple[float, float]]] = {"alone": [], "whole": []}

    def label(out: str) -> None:
        if out:
            label_manifest(labeller, manifest, out, Way())
        else:
            for _ in labeller.answer(iter(manifest)):
                pass

    label("")  # what is made once
    for turn in range(TURNS):
        for what, out in (("alone", ""), ("whole", str(folder / f"out{turn}"))):
            begun = time.process_time(), time.monotonic()
            label(out)
            spent[what].append((time.process_time() - begun[0], time.monotonic() - begun[1]))
    alone, whole = (np.array(spent[what]) for what in ("alone", "whole"))
    each, (sum_of, on_wall) = 1 - alone[:, 0] / whole[:, 0], 1 - alone.sum(0) / whole.sum(0)
    return {
        "pairs": pairs, "turns": TURNS,
        "ms_per_pair": [round(1000 * x[:, 0].sum() / (TURNS * pairs), 1) for x in (alone, whole)],
        "outside_percent": round(100 * float(sum_of), 1),
        "outside_percent_of_turns": [round(100 * float(share), 1) for share in sorted(each)],
        "outside_percent_of_wall": round(100 * float(on_wall), 1),
    }  # fmt: skip


def measure_ray(folder: Path, pairs: int) -> dict[str, object]:
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


def hashes(out: Path) -> dict[str, str]:
    """Of the label maps in an output folder, by name of the pair."""
    labels = out / "labels"
    return {
        path.relative_to(labels).with_suffix("").as_posix():
            hashlib.sha256(path.read_bytes()).hexdigest()
        for path in labels.rglob("*.png")
    }  # fmt: skip


def recorded(out: Path) -> Counter[str]:
    """Lines in the record for each pair."""
    found = Counter[str]()
    for file in out.glob("record*.jsonl"):
        lines = file.read_bytes().split(b"\n")[:-1]  # whole ones
        found.update(line["pair"] for line in map(json.loads, lines) if "pair" in line)
    return found


def wait_for(out: Path, lines: int) -> None:
    while not (out / "record.jsonl").exists() or sum(recorded(out).values()) < lines:
        time.sleep(0.5)


def link_data(folder: Path, data: list[str], count: int) -> dict[str, str]:
    """Write pairs.parquet, `count` rows over the pairs of data sets, a quarter of them as
    quarter.parquet, and distinct.parquet.

    Returns the name of each row's pair among the distinct ones.
    """
    files = []
    for place in data:
        layout = open_layout(Path(place))
        every = (pair for split in layout.splits.values() for pair in split)
        files += list(rows_of(dict.fromkeys(every), None))
    distinct = [replace(row, name=f"{n:07d}") for n, row in enumerate(files[:count])]
    write_manifest(distinct, folder / "distinct.parquet")
    rows = [
        replace(distinct[n % len(distinct)], name=f"{n // 1000:04d}/{n:07d}") for n in range(count)
    ]
    write_manifest(rows, folder / "pairs.parquet")
    write_manifest(rows[: count // 4], folder / "quarter.parquet")
    return {row.name: distinct[n % len(distinct)].name for n, row in enumerate(rows)}


def predict(folder: Path, out: str, manifest: str, *options: str) -> list[str]:
    command = [sys.executable, "-m", "sartm", "predict", "--manifest", str(folder / manifest)]
    return [*command, "--out", str(folder / out), "--no-overlay", "--json", "-", *options]


def measure_cluster(folder: Path, pairs: int, data: list[str]) -> dict[str, int]:
    """All maps of a cluster of two nodes of one core are those of one process, whoever is killed.

    The reference is one process over each distinct pair once: rows that name the same two files
    have the same map. The driver is killed in a run of a quarter of the pairs.
    """
    from ray.cluster_utils import Cluster

    source, found = link_data(folder, data, pairs), {"pairs": pairs}
    begun = time.monotonic()
    subprocess.run(predict(folder, "one", "distinct.parquet"), check=True, capture_output=True)
    one = hashes(folder / "one")
    found |= {"distinct": len(one), "one_process_s": round(time.monotonic() - begun)}
    whole = {name: one[pair] for name, pair in source.items()}
    room = {"object_store_memory": 100 * 2**20}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **room})
    nodes = [cluster.add_node(num_cpus=1, **room) for _ in range(2)]
    by_ray = ("--engine", "ray", "--address", cluster.address, "--workers", "2")
    try:
        begun = time.monotonic()
        driver = subprocess.Popen(
            predict(folder, "out", "pairs.parquet", *by_ray), stderr=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )  # fmt: skip
        wait_for(folder / "out", pairs // 2)
        cluster.remove_node(nodes[0], allow_graceful=False)
        found["node_killed_after"] = sum(recorded(folder / "out").values())
        assert driver.wait() == 0
        found["node_killed_s"] = round(time.monotonic() - begun)
        assert hashes(folder / "out") == whole
        assert recorded(folder / "out") == dict.fromkeys(whole, 1)

        cluster.add_node(num_cpus=1, **room)
        begun = time.monotonic()
        command = predict(folder, "again", "quarter.parquet", *by_ray)
        driver = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        wait_for(folder / "again", pairs // 8)
        os.kill(driver.pid, signal.SIGKILL)
        driver.wait()
        there = hashes(folder / "again")
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        assert json.loads(done.stdout)["kept"] == len(there)
        found |= {"driver_killed_after": len(there), "rest": pairs // 4 - len(there)}
        found["driver_killed_s"] = round(time.monotonic() - begun)
        assert hashes(folder / "again") == dict(list(whole.items())[: pairs // 4])
        twice = sum(count - 1 for count in recorded(folder / "again").values())
        found["lines_of_maps_that_were_not_there"] = twice
    finally:
        cluster.shutdown()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("what", choices=[*SIZES, "cluster"])
    parser.add_argument("--pairs", type=int, default=1000)
    parser.add_argument("--registration", action="store_true")
    parser.add_argument("--data", action="append", default=[])
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder, pairs = Path(name), chosen.pairs
        found = {
            "memory": lambda: measure_memory(folder, pairs, chosen.registration),
            "time": lambda: measure_time(folder, pairs),
            "ray": lambda: measure_ray(folder, pairs),
            "cluster": lambda: measure_cluster(folder, pairs, chosen.data),
        }[chosen.what]()
        print(json.dumps({"what": chosen.what} | found))


if __name__ == "__main__":
    main()
