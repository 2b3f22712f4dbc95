"""What a training holds on each process between steps, whole and cut over the processes.

    torchrun --nproc-per-node 2 benchmarks/sharding.py --size base_plus [--all]

Random weights and images, one step of the recipe `mfnet` with an average; `--all`: the encoder
learns too. MiB as [whole, here], and the sums of both; the last line is one JSON object.
"""

import argparse
import json
from collections.abc import Iterable
from dataclasses import replace

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from sartm.model.sartm import SARTM
from sartm.training.optimizer import make_average, make_optimizer
from sartm.training.processes import make_accelerator
from sartm.training.recipes import mfnet
from sartm.training.sharding import shard


def sizes(tensors: Iterable[Tensor | None]) -> tuple[int, int]:
    """MiB of tensors as they are whole, and of what this process has of them."""
    found = [tensor for tensor in tensors if tensor is not None]
    parts = [tensor.to_local() if isinstance(tensor, DTensor) else tensor for tensor in found]
    whole, here = (sum(t.numel() * t.element_size() for t in some) for some in (found, parts))
    return round(whole / 2**20), round(here / 2**20)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--size", default="base_plus")
    parser.add_argument("--all", action="store_true")
    chosen = parser.parse_args()
    config = mfnet()
    model = SARTM(replace(config.model, size=chosen.size, frozen_encoder=not chosen.all))
    accelerator = make_accelerator("fp32", "auto")
    average = make_average(model, 0.99)
    assert average is not None
    for network in (model, average.module):
        shard(network, accelerator)
    optimizer = make_optimizer(model, config.optim)
    images = torch.rand(2, 4, 64, 96, device=accelerator.device)
    output = model(images[:, :3], images[:, 3:])
    assert output.auxiliary is not None
    (output.logits.mean() + output.auxiliary.mean()).backward()
    optimizer.step()
    average.update_parameters(model)
    states = [value for state in optimizer.state.values() for value in state.values()]
    held = {
        "weights": sizes(model.parameters()),
        "gradients": sizes(parameter.grad for parameter in model.parameters()),
        "adamw": sizes(states),
        "average": sizes(average.parameters()),
    }
    if accelerator.is_main_process:
        whole, here = (sum(found[i] for found in held.values()) for i in (0, 1))
        about = {"size": chosen.size, "all": chosen.all, "processes": accelerator.num_processes}
        print(json.dumps(about | held | {"whole": whole, "each": here}))


if __name__ == "__main__":
    main()
