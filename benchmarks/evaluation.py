"""What evaluating costs beside the network, how fast label maps are scored, and in what memory.

    python benchmarks/evaluation.py --data DIR [--split val] [--model M] [--pairs 48] [--workers 1]
        [--maps 10000]

Overhead is the time of `evaluate` without its pictures over the sum of its own forward passes, in
wall seconds and in CPU seconds; the latter hold on a busy machine too. The scores are of
the split's own labels as predictions, and of drawn maps, of which two numbers show whether memory
grows. Without --model a `mini` with random weights is timed. The last line is one JSON object.
"""

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

MAP = (96, 128)


def measure_overhead(
    model: str, data: str, split: str, pairs: int, workers: int
) -> dict[str, float | int]:
    """Seconds per pair of `score_pairs`, and what that is of the forward passes inside it."""
    import torch

    from sartm.config import ModelConfig
    from sartm.data.pairs import PairDataset
    from sartm.evaluation.scoring import score_pairs
    from sartm.inference.predictor import Images, Predictor
    from sartm.model.loading import load
    from sartm.model.sartm import SARTM

    dataset = PairDataset.open(data, split, pairs)
    network = load(model) if model else SARTM(ModelConfig(classes=dataset.classes))
    predictor = Predictor(network, device="cpu", precision="fp32", workers=workers)
    predictor.predict(dataset[0])  # warms up
    torch.set_num_threads(1)  # so that a thread's own CPU time is all of its forward pass
    inside, forward = [], predictor.batch_logits

    def timed(pairs: Sequence[Images]) -> list[torch.Tensor]:
        wall, cpu = time.perf_counter(), time.thread_time()
        logits = forward(pairs)
        inside.append((time.perf_counter() - wall, time.thread_time() - cpu))
        return logits

    predictor.batch_logits = timed  # type: ignore[method-assign]
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in score_pairs(predictor, dataset):
        pass
    whole = time.perf_counter() - wall, time.process_time() - cpu
    passes = [sum(column) for column in zip(*inside, strict=True)]
    return {
        "pairs": len(dataset),
        "workers": workers,
        "wall_s": whole[0] / len(dataset),
        "cpu_s": whole[1] / len(dataset),
        "overhead_wall": whole[0] / passes[0],
        "overhead_cpu": whole[1] / passes[1],
    }


def measure_score(predictions: str, data: str, split: str) -> dict[str, float]:
    """Seconds and memory of one `sartm score`, start of Python included."""
    with tempfile.TemporaryDirectory() as out:
        arguments = ["score", "--predictions", predictions, "--data", data, "--split", split]
        code = (
            "import re, sys; from pathlib import Path; from sartm.cli.main import main\n"
            f"status = main({[*arguments, '--out', out]!r})\n"
            "status_file = Path('/proc/self/status').read_text()\n"
            "print(re.search(r'VmHWM:\\s*(\\d+)', status_file)[1])\n"
            "sys.exit(status)"
        )
        before, wall = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        wall = time.perf_counter() - wall
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise SystemExit(done.stderr)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"wall_s": wall, "cpu_s": cpu, "peak_mib": int(done.stdout.split()[-1]) / 1024}


def draw_maps(root: Path, pairs: int) -> Path:
    """A labelled data set of `pairs` random maps; the images are the labels themselves."""
    from sartm.classes import MFNET
    from sartm.io.labels import write_label

    random = np.random.default_rng(0)
    names = [f"{index:06d}" for index in range(pairs)]
    for name in names:
        blocks = random.integers(0, 9, (MAP[0] // 16, MAP[1] // 16), np.uint8)
        write_label(root / f"labels/{name}.png", blocks.repeat(16, 0).repeat(16, 1))
    (root / "all.txt").write_text("\n".join(names))
    (root / "dataset.toml").write_text(
        f"name = 'drawn'\nclasses = {list(MFNET.names)}\n[files]\nrgb = 'labels/{{name}}.png'\n"
        f"thermal = 'labels/{{name}}.png'\nlabel = 'labels/{{name}}.png'\n"
        f"[splits]\nall = 'all.txt'\n"
    )
    return root


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="labelled data set, labels in DIR/labels")
    parser.add_argument("--split", default="val")
    parser.add_argument("--model", default="", help="folder or name; empty: `mini`, random weights")
    parser.add_argument("--pairs", type=int, default=48)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--maps", type=int, default=10000, help="drawn maps; 0: leave them out")
    arguments = parser.parse_args()
    labels = str(Path(arguments.data) / "labels")
    rows = {
        "evaluate": measure_overhead(
            arguments.model, arguments.data, arguments.split, arguments.pairs, arguments.workers
        ),
        "score": measure_score(labels, arguments.data, arguments.split),
    }
    for count in (arguments.maps // 10, arguments.maps) if arguments.maps else ():
        with tempfile.TemporaryDirectory() as folder:
            root = str(draw_maps(Path(folder), count))
            rows[f"score {count} maps"] = measure_score(f"{root}/labels", root, "all")
    for name, row in rows.items():
        cells = (f"{key} {value:.4g}" for key, value in row.items())
        print(f"{name}: {'  '.join(cells)}")
    machine = {"cpu": platform.machine(), "cores": os.cpu_count(), "load": os.getloadavg()[0]}
    print(json.dumps({"machine": machine, "rows": rows}))


if __name__ == "__main__":
    main()
