"""The optimizer, its learning rate, and the running mean of the weights."""

from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from sartm.training.settings import OptimConfig


def learning_rate(step: int, steps_per_epoch: int, config: OptimConfig) -> float:
    """Rate before optimizer step `step`: linear from 0.1 lr over the warm-up, then polynomial.

    As the released recipe: the decay reaches 0 one epoch after the last (released-code, section 4).
    """
    warm_up = min(config.warmup_epochs, config.epochs / 2) * steps_per_epoch
    if step < warm_up:
        return config.lr * (0.1 + 0.9 * step / warm_up)
    end = (config.epochs + 1) * steps_per_epoch
    left: float = (1 - (step - warm_up) / (end - warm_up)) ** config.power
    return config.lr * left


def make_optimizer(model: nn.Module, config: OptimConfig) -> torch.optim.AdamW:
    """AdamW over what learns; weight decay on weights, adapters and position codes alone.

    Not on norms, and not on biases: neither those of a layer nor those stacked for the classes
    (docs/decisions/0011).
    """
    learning = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    groups = []
    decays = {id(p): p.ndim > 1 and not _is_bias(name) for name, p in learning}
    for encoder in (False, True) if config.encoder != 1 else (False,):
        some = [p for name, p in learning if encoder is (config.encoder != 1 and _is_slow(name))]
        factor = config.encoder if encoder else 1.0
        for decay, params in (
            (config.weight_decay, [p for p in some if decays[id(p)]]),
            (0.0, [p for p in some if not decays[id(p)]]),
        ):
            groups.append({"params": params, "weight_decay": decay, "factor": factor})
    return torch.optim.AdamW(groups, lr=config.lr, fused=True)  # one pass over the weights


def _is_bias(name: str) -> bool:
    """Whether a parameter is added to features as it is; it may have one for every class."""
    return name.rpartition(".")[2].startswith("bias") or name == "no_mem_embed"


def _is_slow(name: str) -> bool:
    """Whether a parameter is one that `OptimConfig.encoder` is about."""
    return name.startswith("image_encoder.trunk.") and ".lora_" not in name


def make_average(model: nn.Module, decay: float) -> AveragedModel | None:
    """The running mean of the weights; young runs average over a tenth of their steps."""
    if decay == 0:
        return None

    def update(averaged: Any, current: Any, count: Any) -> None:
        keep = min(decay, (1 + int(count)) / (10 + int(count)))
        torch._foreach_lerp_(list(averaged), list(current), 1 - keep)

    average = AveragedModel(model, multi_avg_fn=update)
    average.n_averaged += 1  # starts as a copy, which is then averaged into
    return average
