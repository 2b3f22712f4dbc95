"""Processor time of a training step on a Lite trunk: its ReLU6 against PyTorch's in place.

    python benchmarks/training_step.py [--size lite|lite2] [--width 128] [--crop 224x320]
        [--rounds 5]

In turns in one process, on one thread, random crops in batches of 4; gradients are compared too.
"""

import argparse
import json
import statistics
import time
from dataclasses import replace

import torch
import torch.nn.functional as F

from sartm.model import lite
from sartm.model.sartm import SARTM
from sartm.training.recipes import mini


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--size", default="lite", choices=lite.LITES)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--crop", default="224x320")
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    model = SARTM(replace(mini().model, size=given.size, width=given.width)).train()
    height, width = map(int, given.crop.split("x"))
    rgb, thermal = torch.rand(4, 3, height, width), torch.rand(4, 1, height, width)
    label = torch.randint(0, 9, (4, height // 4, width // 4))
    there = torch.ones(4, dtype=torch.bool)
    ways = {"in place": lambda x: F.relu6(x, inplace=True), "lean": lite.clip}
    times: dict[str, list[float]] = {name: [] for name in ways}
    gradients = {}
    for _ in range(given.rounds + 1):
        for name, way in ways.items():
            lite.clip = way
            model.zero_grad(set_to_none=True)
            begun = time.process_time()
            out = model(rgb, thermal, there, there)
            (F.cross_entropy(out.logits, label) + F.cross_entropy(out.auxiliary, label)).backward()
            times[name].append(time.process_time() - begun)
            gradients[name] = [p.grad for p in model.parameters() if p.grad is not None]
    medians = {name: statistics.median(found[1:]) for name, found in times.items()}
    same = all(map(torch.equal, *gradients.values()))
    print(f"{medians['lean'] / medians['in place']:.2f} of the time; gradients equal: {same}")
    print(json.dumps(medians | {"equal": same}))


if __name__ == "__main__":
    main()
