"""Processor time of a training step on a Lite trunk, two ways.

    python benchmarks/training_step.py [--what clip|bf16] [--size lite|lite2] [--width 128]
        [--crop 224x320] [--rounds 5]

clip: its ReLU6 against PyTorch's in place; bf16: mixed precision against fp32. In turns in one
process, on one thread, random crops in batches of 4; gradients are compared too.
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
    parser.add_argument("--what", default="clip", choices=("clip", "bf16"))
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
    clips = {"in place": lambda x: F.relu6(x, inplace=True), "lean": lite.clip}
    ways = {"clip": ("in place", "lean"), "bf16": ("fp32", "bf16")}[given.what]
    times: dict[str, list[float]] = {way: [] for way in ways}
    gradients = {}
    for _ in range(given.rounds + 1):
        for way in ways:
            lite.clip = clips.get(way, clips["lean"])
            model.zero_grad(set_to_none=True)
            begun = time.process_time()
            with torch.autocast("cpu", torch.bfloat16, enabled=way == "bf16"):
                out = model(rgb, thermal, there, there)
                loss = F.cross_entropy(out.logits, label) + F.cross_entropy(out.auxiliary, label)
            loss.backward()
            times[way].append(time.process_time() - begun)
            found = [p.grad.flatten() for p in model.parameters() if p.grad is not None]
            gradients[way] = torch.cat(found)
    before, now = (statistics.median(times[way][1:]) for way in ways)
    first, second = (gradients[way] for way in ways)
    alike, equal = float(F.cosine_similarity(first, second, dim=0)), torch.equal(first, second)
    print(f"{ways[1]}: {now / before:.2f} of the time of {ways[0]}; gradients' cosine {alike:.5f}")
    print(json.dumps({ways[0]: before, ways[1]: now, "equal": equal, "cosine": alike}))


if __name__ == "__main__":
    main()
