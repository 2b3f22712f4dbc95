"""Device and number format of a run, and what its processes tell each other."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import Tensor
from torch.distributed.nn.functional import all_reduce

from sartm.errors import InputError
from sartm.inference.devices import Precision, choose_device, fast_precision
from sartm.outputs import lock_folder
from sartm.training.runs import recover_run


@contextmanager
def hold_run(out: Path) -> Iterator[None]:
    """Keep a run's folder to this training, cleaned of what a killed one left.

    Of several processes the first one does so, before there is an accelerator that tells them
    apart; `accelerate launch` and torchrun number them in the environment.
    """
    if int(os.environ.get("RANK", 0)):
        yield
        return
    with lock_folder(out):
        recover_run(out)
        yield


def make_accelerator(precision: str, device: str) -> Accelerator:
    """accelerate on the wanted device; `auto` takes bf16 where the hardware is fast at it."""
    chosen = choose_device(device)
    if chosen.type == "cuda" and chosen.index is not None:
        torch.cuda.set_device(chosen)
    if precision == "auto":
        precision = fast_precision(chosen.type)
    if precision == "fp16" and chosen.type == "cpu":
        raise InputError("fp16 is trained on a GPU only; use --precision bf16 or fp32 on a CPU")
    # its state outlives a run; a second one in this process may want another precision
    AcceleratorState._reset_state(reset_partial_state=not torch.distributed.is_initialized())
    return Accelerator(
        cpu=chosen.type == "cpu",
        mixed_precision={"fp32": "no"}.get(precision, precision),
        step_scheduler_with_optimizer=False,
    )


def precision_of(accelerator: Accelerator) -> Precision:
    """The number format that accelerate computes in."""
    names: dict[str, Precision] = {"no": "fp32", "bf16": "bf16", "fp16": "fp16"}
    return names[accelerator.mixed_precision]


def loss_scale(accelerator: Accelerator) -> float:
    """What fp16 multiplies the loss by; it falls exactly when a step was skipped.

    accelerate's own flag stays False with a fused optimizer, which skips within its kernel.
    """
    return 1.0 if accelerator.scaler is None else float(accelerator.scaler.get_scale())


def sum_over_ranks(tensor: Tensor) -> Tensor:
    """Sum with gradient, so that a loss of global means has the global gradient."""
    summed: Tensor = all_reduce(tensor)
    return summed


def agree(accelerator: Accelerator, *flags: bool) -> tuple[bool, ...]:
    """Each flag, True where it is on any rank: ranks that part ways wait for each other."""
    if accelerator.num_processes == 1:
        return flags
    here = torch.tensor(flags, dtype=torch.float32, device=accelerator.device)
    return tuple(bool(flag) for flag in accelerator.reduce(here))


def mean_over_ranks(accelerator: Accelerator, *numbers: float) -> tuple[float, ...]:
    """The mean of each number over all ranks."""
    if accelerator.num_processes == 1:
        return numbers
    here = torch.tensor(numbers, dtype=torch.float32, device=accelerator.device)
    return tuple(accelerator.reduce(here, "mean").tolist())
