"""Device and number format of a run, and what its processes tell each other."""

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import Tensor
from torch.distributed.nn.functional import all_reduce

from sartm.inference.devices import Precision, choose_device, fast_precision


def make_accelerator(precision: str, device: str) -> Accelerator:
    """accelerate on the wanted device; `auto` takes bf16 where the hardware is fast at it."""
    chosen = choose_device(device)
    if chosen.type == "cuda" and chosen.index is not None:
        torch.cuda.set_device(chosen)
    if precision == "auto":
        precision = fast_precision(chosen.type)
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
